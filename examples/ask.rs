//! Asks a library a question: finds documents, reads their summary vectors, answers.

use std::process::ExitCode;

use clap::Parser;
use lloco_core::{AskOptions, GenerateConfig};
use lloco_examples::{LibraryArgs, Output, Result, SamplingArgs, answer};

/// Ask a library a question
#[derive(Parser)]
struct Args {
    /// The question
    question: String,

    /// Ask only documents of this group
    #[arg(long)]
    group: Option<String>,

    /// Read the summaries of this document instead of searching; may be given several times
    #[arg(long = "document", value_name = "ID")]
    named: Vec<String>,

    /// Read the summaries of up to N documents
    #[arg(long, value_name = "N", default_value_t = 1)]
    documents: usize,

    /// Let the model read the best passage of each document as text, too, behind the summaries
    #[arg(long)]
    passages: bool,

    /// Tokens of the answer at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,

    /// Read the documents' text, as far as the model's window reaches, instead of summaries and adapter
    #[arg(long)]
    text: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    library: LibraryArgs,

    #[command(flatten)]
    output: Output,
}

fn ask(args: Args) -> Result {
    let lloco = args.library.builder()?.read_only(true).build()?;
    let generation = GenerateConfig::greedy(args.max_new_tokens).with_sampling(args.sampling.into());
    let mut options = AskOptions::default().top_k(args.documents).passages(args.passages).generation(generation);
    (options.group, options.documents) = (args.group, args.named);
    let stream = match args.text {
        true => lloco.ask_text(&args.question, &options)?,
        false => lloco.ask_stream(&args.question, &options)?,
    };
    let answer = answer::show(stream, args.output)?;
    args.output.report(&answer::json(&answer))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(ask)
}
