//! Makes questions about a library's group that nobody has asked about yet. Goes on where it was interrupted.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lloco_core::SelfStudyConfig;
use lloco_examples::{LibraryArgs, Output, Result, memory::peak_rss_bytes};
use serde_json::json;

/// Make questions and answers about a group's documents, to finetune on
#[derive(Parser)]
struct Args {
    /// The group
    #[arg(long, default_value = "default")]
    group: String,

    /// Where to write them, one question a line; must not exist
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,

    /// Questions of each passage that the model writes and answers itself; what the passage does not answer is dropped
    #[arg(long, value_name = "N", default_value_t = SelfStudyConfig::default().written)]
    written: usize,

    /// Sentences of each passage with a number, a name or a rare word missing, at most
    #[arg(long, value_name = "N", default_value_t = SelfStudyConfig::default().cloze)]
    cloze: usize,

    /// Questions for the words behind a sentence, for each passage, at most
    #[arg(long, value_name = "N", default_value_t = SelfStudyConfig::default().continuations)]
    continuations: usize,

    /// Passages of each document, evenly spread [default: all]
    #[arg(long, value_name = "N")]
    passages: Option<usize>,

    /// Seed of what the model writes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    library: LibraryArgs,

    #[command(flatten)]
    output: Output,
}

fn study(args: Args) -> Result {
    let mut config =
        SelfStudyConfig::default().with_items(args.written, args.cloze, args.continuations).with_seed(args.seed);
    config.passages = args.passages;
    let lloco = args.library.builder()?.read_only(true).build()?;
    let done = lloco.self_study(&args.group, &config, &args.out)?;
    let (out, seconds) = (args.out.display(), done.time.as_secs_f64());
    args.output.line(format_args!(
        "{} passages: {} questions written by the model ({} dropped), {} cloze, {} continuations, in {seconds:.1} s\n\
         {out}: read it, edit it, then finetune --group {} --questions {out} --distil",
        done.passages, done.written, done.dropped, done.cloze, done.continuations, args.group
    ))?;
    args.output.report(&json!({
        "group": args.group, "passages": done.passages, "written": done.written, "dropped": done.dropped,
        "cloze": done.cloze, "continuations": done.continuations, "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(study)
}
