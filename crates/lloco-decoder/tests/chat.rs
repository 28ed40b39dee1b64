//! Chat templates as models ship them, and templates that misbehave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use lloco_decoder::{ChatTemplate, Error, Message};

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
    {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// In the style of Llama 3: indented, trimmed, with tools that are not there.
const LLAMA3: &str = r#"{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message, if any, comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool') %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// In the style of Qwen 3: Python methods, namespaces, a reversed list, `loop_controls`.
const QWEN3: &str = r"{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' and message.content is string and not message.content.startswith('<tool_response>') %}
        {%- set ns.last = loop.revindex0 %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<' + message.role.upper() + (' last' if loop.index0 == ns.last else '') + '>' + content.strip() + eos_token }}
{%- endfor %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").unwrap()
}

fn detail<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Template { detail }) => detail,
        other => panic!("expected a template error, got {other:?}"),
    }
}

#[test]
fn chatml() {
    let chat = template(CHATML);
    let messages = [Message::user("Hi"), Message::assistant("Hello."), Message::user(" {{ no code }} ")];
    assert_eq!(
        chat.render(&messages, true).unwrap(),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n {{ no code }} <|im_end|>\n<|im_start|>assistant\n"
    );
    let messages = [Message::system("Be <b>brief</b> & \"quote\"."), Message::user("Hi")];
    assert_eq!(
        chat.render(&messages, false).unwrap(),
        "<|im_start|>system\nBe <b>brief</b> & \"quote\".<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn llama3_style() {
    let messages = [Message::system(" Be brief. "), Message::user("Hi\n")];
    assert_eq!(
        template(LLAMA3).render(&messages, true).unwrap(),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn qwen3_style() {
    let messages = [
        Message::user("Why?"),
        Message::assistant("<think>Hm.</think>\n\nBecause."),
        Message::user("Really?"),
        Message::assistant(" Yes "),
    ];
    assert_eq!(
        template(QWEN3).render(&messages, false).unwrap(),
        "<USER>Why?</s><ASSISTANT>Because.</s><USER last>Really?</s><ASSISTANT>Yes</s>"
    );
}

#[test]
fn python_methods() {
    let cases = [
        ("' a b '.strip()", "a b"),
        ("'xxaxx'.strip('x')", "a"),
        ("'xxaxx'.rstrip('x')", "xxa"),
        ("'a,b,c'.split(',', 1)[1]", "b,c"),
        ("' a  b '.split()|length", "2"),
        ("'tEst case'.title()", "Test Case"),
        ("'tEST'.capitalize()", "Test"),
        ("'Test'.lower() + 'Test'.upper()", "testTEST"),
        ("'a-b-c'.replace('-', '+')", "a+b+c"),
        ("'größe'.find('e')", "4"),
        ("'größe'.find('x')", "-1"),
        ("'banana'.count('an')", "2"),
        ("'banana'.endswith('na')", "True"),
        ("'banana'.removeprefix('ba').removesuffix('x')", "nana"),
        ("{'a': 1}.get('a')", "1"),
        ("{'a': 1}.get('b', 2)", "2"),
        ("{'a': 1}.get('b') is none", "True"),
        ("{'a': 1, 'b': 2}.keys()|join", "ab"),
        ("{'a': 1, 'b': 2}.values()|join", "12"),
        ("{'a': 1}.items()|first|join", "a1"),
        ("{'a': [1, '<ü>'], 'b': none}|tojson", "{\"a\": [1, \"<ü>\"], \"b\": null}"),
        ("[1, {}]|tojson(indent=2)", "[\n  1,\n  {}\n]"),
    ];
    for (expression, expected) in cases {
        let rendered = template(&format!("{{{{ {expression} }}}}")).render(&[], false);
        assert_eq!(rendered.unwrap(), expected, "{expression}");
    }
}

#[test]
fn a_template_may_refuse_the_messages() {
    let source = "{% if messages[0].role != 'user' %}{{ raise_exception('user must come first') }}{% endif %}";
    assert!(detail(template(source).render(&[Message::system("x")], true)).contains("user must come first"));
    assert_eq!(template(source).render(&[Message::user("x")], true).unwrap(), "");
}

#[test]
fn bad_templates_are_errors() {
    for source in ["{% if %}", "{{ 'open", "{% endfor %}", "{% generation %}x{% endgeneration %}", "{{ x | nofilter }}"]
    {
        let outcome = ChatTemplate::new(source, "", "").and_then(|chat| chat.render(&[], true));
        assert!(!detail(outcome).is_empty(), "{source}");
    }
    for source in ["{{ 'a'.mystery() }}", "{{ 'a'.split('') }}", "{{ nothing() }}", "{{ messages[0].role.x.y }}"] {
        detail(template(source).render(&[], true));
    }
}

#[test]
fn templates_that_do_not_end_are_stopped() {
    let count = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}x{% endfor %}{% endfor %}{% endfor %}";
    assert!(detail(template(count).render(&[], true)).contains("fuel"));
    let recursion = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    detail(template(recursion).render(&[], true));
    let nested = format!("{}1{}", "{{ ".to_owned() + &"(".repeat(5000), ")".repeat(5000) + " }}");
    assert!(matches!(ChatTemplate::new(nested, "", ""), Err(Error::Template { .. })));
}

// --- files ---

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
}

#[test]
fn templates_come_from_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let rendered = || ChatTemplate::from_directory(at).map(|chat| chat.map(|chat| chat.render(&[], true).unwrap()));
    assert_eq!(rendered().unwrap(), None);
    write(at, "tokenizer_config.json", r#"{"bos_token": "<s>", "other": 1}"#);
    assert_eq!(rendered().unwrap(), None);
    write(at, "tokenizer_config.json", r#"{"chat_template": "{{ bos_token }}one", "bos_token": "<s>"}"#);
    assert_eq!(rendered().unwrap().as_deref(), Some("<s>one"));
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "tool"}, {"name": "default", "template": "{{ eos_token }}two"}],
        "eos_token": {"content": "</s>", "special": true}, "bos_token": null}"#;
    write(at, "tokenizer_config.json", named);
    assert_eq!(rendered().unwrap().as_deref(), Some("</s>two"));
    write(at, "chat_template.jinja", "{{ eos_token }}three");
    assert_eq!(rendered().unwrap().as_deref(), Some("</s>three"));
    write(at, "chat_template.jinja", "{% if %}");
    assert!(matches!(rendered(), Err(Error::Template { .. })));
    write(at, "tokenizer_config.json", "{");
    assert!(matches!(rendered(), Err(Error::Malformed { path, .. }) if path.ends_with("tokenizer_config.json")));
}
