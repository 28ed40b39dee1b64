//! Data sets as files: what is read, and what each kind of bad file is answered with.

use std::path::Path;

use lloco_core::dataset::{self, Error, QaDocument, Question, Reader, archive};

const GOOD: &str = r#"{"id":"log","title":"A log","text":"Kept by Ilves.","questions":[{"id":"q","question":"Who?","answers":["Ilves"]}]}"#;

fn read(jsonl: &str) -> Result<Vec<QaDocument>, Error> {
    Reader::new(jsonl.as_bytes(), "qa.jsonl").collect()
}

#[test]
fn reads_documents_and_ignores_other_fields() {
    let jsonl = format!("\u{feff}{GOOD}\n\n{}\n", GOOD.replace("\"log\"", "\"two\",\"license\":\"CC0\""));
    let documents = read(&jsonl).expect("two good lines");
    assert_eq!(documents.len(), 2);
    let question = Question::new("q", "Who?", "Ilves");
    assert_eq!(documents[1].id, "two");
    assert_eq!(documents[0].questions, [question]);
    let silent = read(r#"{"id":"x","text":"t"}"#).expect("a document without questions");
    assert!(silent[0].questions.is_empty() && silent[0].text == "t");
}

#[test]
fn a_question_may_be_about_several_documents() {
    let jsonl = GOOD.replace(r#""answers""#, r#""documents":["log","map"],"answers""#);
    let documents = read(&jsonl).expect("a good line");
    assert_eq!(documents[0].questions, [Question::new("q", "Who?", "Ilves").about(["log", "map"])]);
    let error = read(&jsonl.replace("map", "log")).expect_err("twice the same");
    assert!(matches!(&error, Error::RepeatedDocument { line: 1, id, .. } if id == "log"), "{error:?}");
    let error = read(&jsonl.replace("map", " ")).expect_err("a blank name");
    assert!(matches!(&error, Error::Blank { line: 1, field: "documents", .. }), "{error:?}");
}

#[test]
fn a_question_may_have_a_line_of_its_own() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("qa.jsonl");
    let lines = [
        r#"{"document":"log","question":"When?","answers":["May"],"kind":"written","passage":[0,8]}"#,
        GOOD,
        r#"{"id":"pair","documents":["log","map"],"question":"Both?","answers":["yes"]}"#,
        r#"{"document":"map","question":"Where?","answers":["here"]}"#,
    ];
    std::fs::write(&path, lines.join("\n")).expect("written");
    let documents = dataset::read(&path).expect("good lines");
    assert_eq!(documents.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), ["log", "map"]);
    assert_eq!((documents[0].text.as_str(), documents[1].text.as_str()), ("Kept by Ilves.", ""));
    let [first, own, pair] = &documents[0].questions[..] else { panic!("{documents:?}") };
    assert_eq!((first.kind.as_str(), first.passage, first.id.as_str()), ("written", Some((0, 8)), "log-1"));
    assert_eq!((own.id.as_str(), pair.id.as_str(), pair.documents.len()), ("q", "pair", 2));

    for (line, expected) in [
        (r#"{"question":"q","answers":["a"]}"#, "document"),
        (r#"{"document":" ","question":"q","answers":["a"]}"#, "document"),
        (r#"{"document":"d","question":" ","answers":["a"]}"#, "question"),
        (r#"{"document":"d","question":"q","answers":[" "]}"#, "no answer"),
        (r#"{"document":"d","question":"q"}"#, "answers"),
        (r#"{"document":"d","question":"q","answers":["a"],"passage":[5,5]}"#, "passage"),
        (r#"{"document":"d","question":"q","answers":["a"],"passage":[5]}"#, "length"),
        (r#"{"document":"d","question":"q","answers":["a"],"passage":[-1,5]}"#, "u"),
        (r#"{"document":"d","question":7,"answers":["a"]}"#, "string"),
    ] {
        let message = read(&format!("{GOOD}\n{line}")).expect_err(line).to_string();
        assert!(message.starts_with("qa.jsonl, line 2") && message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn questions_without_an_id_are_numbered() {
    let jsonl =
        r#"{"id":"d","text":"t","questions":[{"question":"a","answers":["b"]},{"question":"c","answers":["d"]}]}"#;
    let ids: Vec<_> = read(jsonl).expect("good line")[0].questions.iter().map(|question| question.id.clone()).collect();
    assert_eq!(ids, ["d-1", "d-2"]);
}

#[test]
fn an_empty_file_is_an_error() {
    for empty in ["", "\n\n  \n"] {
        assert!(matches!(read(empty), Err(Error::Empty { .. })), "{empty:?}");
    }
}

#[test]
fn malformed_lines_are_named() {
    for (line, expected) in [
        ("{\"id\":", "EOF"),
        ("not json", "expected"),
        ("[]", "invalid length"),
        (r#"{"text":"t","questions":[]}"#, "id"),
        (r#"{"id":"x","text":"t","questions":[{"answers":["a"]}]}"#, "question"),
        (r#"{"id":"x","text":"t","questions":[{"question":"q"}]}"#, "answers"),
        (r#"{"id":7,"text":"t","questions":[]}"#, "string"),
        ("\"\\ud800\"", "line 3"),
    ] {
        let error = read(&format!("{GOOD}\n\n{line}\n")).expect_err(line);
        assert!(matches!(error, Error::Malformed { line: 3, .. }), "{line}: {error:?}");
        let message = error.to_string();
        assert!(message.starts_with("qa.jsonl, line 3, column ") && message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_an_error() {
    let bytes: &[u8] = b"{\"id\":\"\xff\",\"text\":\"t\",\"questions\":[]}";
    assert!(matches!(Reader::new(bytes, "qa.jsonl").next(), Some(Err(Error::Malformed { line: 1, .. }))));
}

#[test]
fn reading_goes_on_after_a_bad_line() {
    let jsonl = format!("oops\n{GOOD}\n");
    let lines: Vec<bool> = Reader::new(jsonl.as_bytes(), "qa.jsonl").map(|line| line.is_ok()).collect();
    assert_eq!(lines, [false, true]);
}

#[test]
fn a_question_needs_an_answer() {
    for answers in ["[]", r#"["", "  "]"#] {
        let error = read(&GOOD.replace(r#"["Ilves"]"#, answers)).expect_err(answers);
        assert!(matches!(&error, Error::NoAnswer { line: 1, question, .. } if question == "Who?"), "{error:?}");
    }
}

#[test]
fn blank_fields_are_named() {
    for (from, to, field) in [("\"log\"", "\" \"", "id"), ("Kept by Ilves.", "", "text"), ("Who?", "", "question")] {
        let error = read(&GOOD.replace(from, to)).expect_err(field);
        assert!(matches!(error, Error::Blank { line: 1, field: found, .. } if found == field), "{error:?}");
    }
}

#[test]
fn a_document_must_not_come_twice() {
    let error = read(&format!("{GOOD}\n\n{GOOD}\n")).expect_err("twice");
    assert!(matches!(&error, Error::DuplicateDocument { line: 3, first: 1, id, .. } if id == "log"), "{error:?}");
}

#[test]
fn a_line_without_text_takes_it_from_its_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("qa.jsonl");
    std::fs::write(&path, r#"{"id":"log","questions":[]}"#).expect("written");

    let error = dataset::read(&path).expect_err("no text file");
    assert!(matches!(&error, Error::Text { file, .. } if file.ends_with("log.txt")), "{error:?}");

    std::fs::write(directory.path().join("log.txt"), "Kept by Ilves.").expect("written");
    assert_eq!(dataset::read(&path).expect("text file").first().map(|log| log.text.as_str()), Some("Kept by Ilves."));
}

#[test]
fn an_id_cannot_reach_out_of_the_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(directory.path().join("inner")).expect("created");
    std::fs::write(directory.path().join("secret.txt"), "secret").expect("written");
    let path = directory.path().join("inner/qa.jsonl");
    for id in ["../secret", "/etc/secret", "inner/../../secret", "..\\\\secret"] {
        std::fs::write(&path, format!(r#"{{"id":"{id}","questions":[]}}"#)).expect("written");
        assert!(matches!(dataset::read(&path), Err(Error::Text { .. })), "{id}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = dataset::read("no/such/qa.jsonl").expect_err("missing");
    assert!(error.to_string().contains("qa.jsonl"), "{error}");
}

#[test]
fn what_is_written_is_read_again() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("qa.jsonl");
    let mut documents = [archive(1, 20), archive(2, 5)];
    documents[1].questions[0].documents = vec!["one".into(), "other".into()];
    dataset::write(&path, &documents).expect("written");
    assert_eq!(dataset::read(&path).expect("read"), documents);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("missing/qa.jsonl");
    assert!(matches!(dataset::write(&path, &[archive(1, 2)]), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0);
}

/// The example documents: complete, with every answer in the text.
#[test]
fn example_data_are_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/questions.jsonl");
    let documents = dataset::read(path).expect("example data");
    assert_eq!(
        documents.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(),
        ["meeting", "expedition", "manual"]
    );
    for document in documents {
        assert!(document.questions.len() >= 12, "{}", document.id);
        let text = document.text.to_lowercase();
        for question in document.questions {
            let found = question.answers.iter().any(|answer| text.contains(&answer.to_lowercase()));
            assert!(found, "{question:?}");
        }
    }
}
