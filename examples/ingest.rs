//! Adds documents to a library: splits, embeds, compresses, stores. Goes on where it was interrupted.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lloco_core::{Training, dataset, store::Shard};
use lloco_examples::{LibraryArgs, Output, Result, library, memory::peak_rss_bytes};
use serde_json::json;

/// Add documents to a library: split, embed, compress, store
#[derive(Parser)]
struct Args {
    /// Text files, or patterns such as 'transcripts/**/*.txt'
    #[arg(value_name = "FILES", required_unless_present_any = ["data", "reencode"], conflicts_with = "data")]
    files: Vec<String>,

    /// Documents of a data set, one JSON object a line, instead of files
    #[arg(long, value_name = "FILE.jsonl")]
    data: Option<PathBuf>,

    /// Compress again what another model or other settings compressed; goes on where it was interrupted
    #[arg(long, conflicts_with_all = ["files", "data"])]
    reencode: bool,

    /// The group that the documents belong to
    #[arg(long, default_value = "default")]
    group: String,

    /// Compress only share I (from 0) of N of the documents
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "0/1")]
    shard: Shard,

    #[command(flatten)]
    library: LibraryArgs,

    #[command(flatten)]
    output: Output,
}

fn ingest(args: Args) -> Result {
    let lloco = args.library.builder()?.shard(args.shard).build()?;
    let added = match &args.data {
        None if args.reencode => lloco.reencode()?,
        Some(path) => lloco.add(&library::documents(&dataset::read(path)?, &args.group))?,
        None => lloco.add_all_files(&args.group, &args.files)?,
    };
    for (path, error) in &added.failed {
        tracing::warn!("left out {}: {error}", path.display());
    }
    args.output.line(format_args!(
        "{} documents compressed, {} unchanged, {} left out; {} tokens became {} summary vectors in {:.1} s",
        added.documents,
        added.unchanged,
        added.failed.len(),
        added.tokens,
        added.summary_vectors,
        added.compressing.as_secs_f64(),
    ))?;
    if added.stale > 0 {
        args.output.line(format_args!(
            "{} documents keep the summaries of another model or other settings: run again with --reencode",
            added.stale
        ))?;
    }
    let failed = added.failed.iter().map(|(path, error)| json!({"path": path, "reason": error.to_string()}));
    args.output.report(&json!({
        "documents": added.documents,
        "unchanged": added.unchanged,
        "stale": added.stale,
        "failed": failed.collect::<Vec<_>>(),
        "tokens": added.tokens,
        "tokens_read": added.tokens_read,
        "summary_vectors": added.summary_vectors,
        "ratio": added.ratio(),
        "passages": added.passages,
        "compressing_seconds": added.compressing.as_secs_f64(),
        "embedding_seconds": added.embedding.as_secs_f64(),
        "trained_compressor": lloco.training() == Training::Trained,
        "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn shard(text: &str) -> std::result::Result<Shard, String> {
    let parse = |number: &str| number.trim().parse::<u32>().ok();
    let (index, of) =
        text.split_once('/').and_then(|(i, n)| parse(i).zip(parse(n))).ok_or("expected I/N, such as 0/4")?;
    Shard::new(index, of).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    lloco_examples::main(ingest)
}
