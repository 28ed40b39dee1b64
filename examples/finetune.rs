//! Trains the adapter of a library's group on questions and answers. Goes on where it was interrupted.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lloco_core::{FinetuneConfig, LoraConfig, TrainConfig};
use lloco_examples::{LibraryArgs, Output, Result, memory::peak_rss_bytes};
use serde_json::json;

/// Train the adapter of a library's group on questions and answers
#[derive(Parser)]
struct Args {
    /// The group
    #[arg(long, default_value = "default")]
    group: String,

    /// Questions and answers, one document a line; documents are named by id, or by file name without extension
    #[arg(long, value_name = "FILE.jsonl")]
    questions: PathBuf,

    /// Questions that are not learned: the adapter that does best on them is kept
    #[arg(long, value_name = "FILE.jsonl")]
    held_out: Option<PathBuf>,

    /// Steps between looks at the held-out questions [default: an epoch]
    #[arg(long, value_name = "N", requires = "held_out", default_value_t = 0, hide_default_value = true)]
    evaluate_every: usize,

    /// Stop after so many looks without improvement
    #[arg(long, value_name = "N", requires = "held_out")]
    patience: Option<usize>,

    /// How often each question is seen
    #[arg(long, value_name = "N", default_value_t = TrainConfig::default().epochs)]
    epochs: usize,

    /// Learning rate behind the warm-up
    #[arg(long, value_name = "X", default_value_t = TrainConfig::default().learning_rate)]
    learning_rate: f64,

    /// Rank of the adapter
    #[arg(long, value_name = "N", default_value_t = LoraConfig::default().r)]
    rank: usize,

    /// The adapter's delta is scaled by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "X")]
    alpha: Option<f64>,

    /// Adapt all seven projections of a layer instead of the four of attention
    #[arg(long)]
    all_linear: bool,

    /// Questions in a forward pass
    #[arg(long, value_name = "N", default_value_t = TrainConfig::default().batch_size)]
    batch_size: usize,

    /// Forward passes in a step
    #[arg(long, value_name = "N", default_value_t = TrainConfig::default().accumulation)]
    accumulation: usize,

    /// Summaries of other documents beside the right ones, at most so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    distractors: usize,

    /// Learn also what the model predicts when it reads the text itself; X weighs that against the answers
    #[arg(long, value_name = "X", num_args = 0..=1, default_missing_value = "2")]
    distil: Option<f64>,

    /// Seed of the adapter, the order of the questions, and dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    library: LibraryArgs,

    #[command(flatten)]
    output: Output,
}

fn finetune(args: Args) -> Result {
    let lora = LoraConfig::default().with_rank(args.rank, args.alpha.unwrap_or(2.0 * args.rank as f64));
    let mut training = TrainConfig::default()
        .with_lora(if args.all_linear { lora.with_all_linear() } else { lora })
        .with_epochs(args.epochs)
        .with_learning_rate(args.learning_rate)
        .with_batches(args.batch_size, args.accumulation)
        .with_distractors(args.distractors)
        .with_distillation(args.distil.unwrap_or(TrainConfig::default().distillation))
        .with_seed(args.seed);
    (training.evaluate_every, training.patience) = (args.evaluate_every, args.patience);
    let lloco = args.library.builder()?.build()?;
    let mut config = FinetuneConfig::new(&args.questions).with_training(training);
    config.distil = args.distil.map(|_| 20);
    config.held_out = args.held_out;
    let done = lloco.finetune(&args.group, &config)?;

    let (version, seconds) = (done.version, done.time.as_secs_f64());
    match done.losses {
        Some((first, last)) => args.output.line(format_args!(
            "adapter {version} of group {}: {} questions, {} steps, loss {first:.3} to {last:.3}, in {seconds:.1} s",
            done.group, done.examples, done.steps
        ))?,
        None => args.output.line(format_args!("adapter {version} of group {} is trained already", done.group))?,
    }
    args.output.report(&json!({
        "group": done.group, "version": version, "examples": done.examples, "steps": done.steps,
        "first_loss": done.losses.map(|losses| losses.0), "last_loss": done.losses.map(|losses| losses.1),
        "last_divergence": done.divergences.map(|divergences| divergences.1),
        "held_out_loss": done.held_out.map(|found| found.0), "best_step": done.held_out.map(|found| found.1),
        "positions": done.positions, "seconds": seconds, "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(finetune)
}
