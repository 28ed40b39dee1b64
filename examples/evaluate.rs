//! Fills the control table: how well questions are answered from summaries, and from what summaries must be better than.

use std::{path::PathBuf, process::ExitCode};

use clap::{
    Parser,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use lloco_core::{
    dataset,
    eval::{Context, EvaluateConfig},
};
use lloco_examples::{LibraryArgs, Output, Result, control};

/// Compare answers from summaries with answers from no, other or shortened text
#[derive(Parser)]
struct Args {
    /// The group
    #[arg(long, default_value = "default")]
    group: String,

    /// Questions and answers that the adapter has not seen, one document a line; the documents are in the library
    #[arg(long, value_name = "FILE.jsonl")]
    data: PathBuf,

    /// Ask only N questions, chosen at random
    #[arg(long, value_name = "N")]
    questions: Option<usize>,

    /// Rows of the table, each read without and with the group's adapter [default: all]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = PossibleValuesParser::new(NAMES.map(|name| name.0))
        .map(|name| NAMES.into_iter().find(|known| known.0 == name).map_or(Context::Nothing, |known| known.1)))]
    rows: Vec<Context>,

    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_new_tokens: usize,

    /// Seed of the choice of questions, of other documents, and of the intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    library: LibraryArgs,

    #[command(flatten)]
    output: Output,
}

const NAMES: [(&str, Context); 7] = [
    ("nothing", Context::Nothing),
    ("shuffled", Context::Shuffled),
    ("compressed", Context::Compressed),
    ("truncated", Context::Truncated),
    ("retrieved", Context::Retrieved),
    ("both", Context::Both),
    ("full", Context::FullText),
];

fn evaluate(args: Args) -> Result {
    let mut config = EvaluateConfig::new(&args.data).with_max_new_tokens(args.max_new_tokens).with_seed(args.seed);
    config.limit = args.questions;
    if !args.rows.is_empty() {
        config = config.with_contexts(args.rows);
    }
    let lloco = args.library.builder()?.read_only(true).build()?;
    control(&lloco, &args.group, &dataset::read(&args.data)?, &config, &args.output)
}

fn main() -> ExitCode {
    lloco_examples::main(evaluate)
}
