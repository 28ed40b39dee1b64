//! Compresses a text to a file of summary vectors.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use lloco_core::{open_encoder, softprompt};
use lloco_examples::{EncoderArgs, ModelArgs, Output, Result, memory::peak_rss_bytes, progress, tokens};
use serde_json::json;

/// Compress a text to a file of summary vectors
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The text, a UTF-8 file
    #[arg(long, value_name = "FILE.txt", required_unless_present = "token_ids", conflicts_with = "token_ids")]
    input: Option<PathBuf>,

    /// Token ids instead of a text: a JSON file that holds an array
    #[arg(long, value_name = "FILE.json")]
    token_ids: Option<PathBuf>,

    /// A trained compressor's directory
    #[arg(long, value_name = "DIR")]
    compressor: Option<PathBuf>,

    #[command(flatten)]
    encoder: EncoderArgs,

    /// The file to write: one tensor `softprompt`, [n, hidden], f32
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,

    #[command(flatten)]
    output: Output,
}

fn compress(args: Args) -> Result {
    let (checkpoint, decoder) = args.model.load()?;
    let encoder = open_encoder(&checkpoint, decoder, args.compressor.as_deref(), &args.encoder.into())?;
    let ids = match (&args.token_ids, &args.input) {
        (Some(path), _) => tokens::read_ids(path)?,
        (None, Some(path)) => checkpoint.tokenizer()?.encode(&tokens::read_text(path)?)?,
        (None, None) => Vec::new(),
    };

    let bar = progress::bar("compressing", ids.len() as u64);
    let start = Instant::now();
    let mut encoding = encoder.start(encoder.segments(&ids).len());
    for segment in encoder.segments(&ids) {
        encoding.push(segment)?;
        bar.inc(segment.len() as u64);
    }
    let rows = encoding.softprompt().ok_or("the text is empty: there is nothing to compress")?;
    drop(encoding);
    encoder.decoder().device().sync()?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let [vectors, _] = rows.dims();
    softprompt::save(&args.out, rows)?;
    let (count, ratio) = (ids.len(), ids.len() as f64 / vectors as f64);
    args.output.line(format_args!(
        "{count} tokens became {vectors} summary vectors ({ratio:.1} to 1) in {seconds:.2} s, {:.0} tokens a second: {}",
        count as f64 / seconds,
        args.out.display()
    ))?;
    args.output.report(&json!({
        "tokens": count, "summary_vectors": vectors, "ratio": ratio, "seconds": seconds,
        "tokens_per_second": count as f64 / seconds, "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(compress)
}
