//! An answer, its sources and its cost, as text and as JSON.

use lloco_core::{Answer, AnswerStream};
use serde_json::{Value, json};

use crate::{Output, Result, memory::peak_rss_bytes};

/// Shows an answer while it is generated, then what it rests on and what it cost.
///
/// # Errors
/// When the model fails or the standard output stream is closed.
pub fn show(mut stream: AnswerStream<'_>, output: Output) -> Result<Answer> {
    output.text("  ")?;
    for piece in stream.by_ref() {
        output.text(piece?)?;
    }
    let answer = stream.finish()?;
    output.line("")?;
    for source in &answer.sources {
        let page = source.page.map_or(String::new(), |page| format!(", page {page}"));
        output
            .line(format_args!("  source: {} {:?}{page}, score {:.3}", source.document, source.range, source.score))?;
        output.line(format_args!("          “{}…”", beginning(&source.passage)))?;
    }
    let (usage, timings) = (answer.usage, answer.timings);
    output.line(format_args!(
        "  {} tokens of text read as {} positions, {:.1} to 1; {:.2} s until the first token, {:.2} s in all",
        usage.document_tokens,
        usage.context_positions,
        usage.ratio(),
        (timings.total() - timings.decode).as_secs_f64(),
        timings.total().as_secs_f64(),
    ))?;
    Ok(answer)
}

/// The first words of a passage, on one line.
fn beginning(passage: &str) -> String {
    passage.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}

/// All of it, for machines.
pub fn json(answer: &Answer) -> Value {
    let sources = answer.sources.iter().map(|source| {
        json!({
            "document": source.document, "title": source.title, "group": source.group, "score": source.score,
            "start": source.range.start, "end": source.range.end, "page": source.page, "passage": source.passage,
        })
    });
    let (usage, timings) = (answer.usage, answer.timings);
    json!({
        "text": answer.text,
        "sources": sources.collect::<Vec<_>>(),
        "adapter": answer.adapter,
        "document_tokens": usage.document_tokens,
        "context_positions": usage.context_positions,
        "prompt_positions": usage.prompt_positions,
        "new_tokens": usage.new_tokens,
        "ratio": usage.ratio(),
        "retrieve_seconds": timings.retrieve.as_secs_f64(),
        "load_seconds": timings.load.as_secs_f64(),
        "prefill_seconds": timings.prefill.as_secs_f64(),
        "decode_seconds": timings.decode.as_secs_f64(),
        "seconds": timings.total().as_secs_f64(),
        "peak_rss_bytes": peak_rss_bytes(),
    })
}
