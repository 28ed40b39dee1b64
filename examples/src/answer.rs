//! An answer, its sources and its cost, as text and as JSON.

use std::io;

use lloco_core::{Answer, AnswerStream};
use serde_json::{Value, json};

use crate::{Output, Result, memory::peak_rss_bytes};

/// Shows an answer while it is generated.
///
/// # Errors
/// When the model fails or the stream is closed.
pub fn show(mut stream: AnswerStream<'_>, output: Output) -> Result<Answer> {
    for piece in stream.by_ref() {
        output.text(piece?)?;
    }
    output.line("")?;
    Ok(stream.finish()?)
}

/// Shows what an answer rests on.
///
/// # Errors
/// When the stream is closed.
pub fn show_sources(answer: &Answer, output: Output) -> io::Result<()> {
    for source in &answer.sources {
        let passage: String = source.passage.split_whitespace().collect::<Vec<_>>().join(" ");
        let start: String = passage.chars().take(90).collect();
        let (from, to) = (source.range.start, source.range.end);
        output.line(format_args!(
            "  source: {} (group {}), score {:.2}, bytes {from}..{to}: {start}…",
            source.document, source.group, source.score
        ))?;
    }
    Ok(())
}

/// What an answer read and how long it took, in a line.
pub fn cost(answer: &Answer) -> String {
    let (usage, timings) = (answer.usage, answer.timings);
    format!(
        "{} tokens read as {} positions ({:.1} times fewer), answered in {:.2} s ({:.2} s until the first word)",
        usage.document_tokens,
        usage.context_positions,
        usage.ratio(),
        timings.total().as_secs_f64(),
        (timings.total() - timings.decode).as_secs_f64(),
    )
}

/// All of it, for machines.
pub fn json(answer: &Answer) -> Value {
    let sources = answer.sources.iter().map(|source| {
        json!({
            "document": source.document, "title": source.title, "group": source.group, "score": source.score,
            "start": source.range.start, "end": source.range.end, "passage": source.passage,
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
