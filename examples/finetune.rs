//! Trains the adapter of a library's group on questions and answers. Goes on where it was interrupted.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lloco_core::{
    FinetuneConfig, LoraConfig, TrainConfig,
    dataset::{self, QaDocument},
    eval::EvaluateConfig,
};
use lloco_examples::{LibraryArgs, Output, Result, arithmetic, control, memory::peak_rss_bytes, product_rate};
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
    #[arg(long, value_name = "FILE.jsonl", group = "judge")]
    held_out: Option<PathBuf>,

    /// Do not learn from every Nth document of --questions, by the SHA-256 of their ids, but hold it out as --held-out does
    #[arg(long, value_name = "N", group = "judge")]
    hold_out_every: Option<usize>,

    /// Steps between looks at the held-out questions [default: an epoch]
    #[arg(long, value_name = "N", requires = "judge", default_value_t = 0, hide_default_value = true)]
    evaluate_every: usize,

    /// Stop after so many looks without improvement
    #[arg(long, value_name = "N", requires = "judge")]
    patience: Option<usize>,

    /// Ask so many of the held-out questions for a control table at the end, as `evaluate --questions N` does; 0 for none. A line of its
    /// own with --json
    #[arg(long, value_name = "N", requires = "judge", default_value_t = 30)]
    control: usize,

    /// How often each question is seen
    #[arg(long, value_name = "N", default_value_t = TrainConfig::default().epochs)]
    epochs: usize,

    /// Learning rate behind the warm-up
    #[arg(long, value_name = "X", default_value_t = TrainConfig::default().learning_rate)]
    learning_rate: f64,

    /// Rank of the adapter, at least that of the compressor's reader, as which it begins
    /// [default: the reader's; 8 without one]
    #[arg(long, value_name = "N", verbatim_doc_comment)]
    rank: Option<usize>,

    /// What the adapter adds is scaled by alpha / rank [default: in proportion to the rank as the reader's; twice the
    /// rank without one]
    #[arg(long, value_name = "X", verbatim_doc_comment)]
    alpha: Option<f64>,

    /// Adapt all seven projections of a layer [default: those of the reader; the four of attention without one]
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

impl Args {
    /// The shape that is asked for, if any part of it is; what is left open is as in `open`.
    fn shape(&self, open: LoraConfig) -> Option<LoraConfig> {
        if self.rank.is_none() && self.alpha.is_none() && !self.all_linear {
            return None;
        }
        let rank = self.rank.unwrap_or(open.r);
        let alpha = self.alpha.unwrap_or(open.lora_alpha * rank as f64 / open.r as f64);
        let shape = open.with_rank(rank, alpha);
        Some(if self.all_linear { shape.with_all_linear() } else { shape })
    }

    /// The documents whose questions are held out.
    fn judges(&self) -> Result<Vec<QaDocument>> {
        match (&self.held_out, self.hold_out_every) {
            (Some(path), _) => Ok(dataset::read(path)?),
            (None, Some(every)) => {
                let documents = dataset::read(&self.questions)?;
                let kept = dataset::held_out(&documents, every);
                Ok(documents.iter().filter(|document| kept.contains(document.id.as_str())).cloned().collect())
            }
            (None, None) => Ok(Vec::new()),
        }
    }
}

fn finetune(args: Args) -> Result {
    let mut training = TrainConfig::default()
        .with_epochs(args.epochs)
        .with_learning_rate(args.learning_rate)
        .with_batches(args.batch_size, args.accumulation)
        .with_distractors(args.distractors)
        .with_distillation(args.distil.unwrap_or(TrainConfig::default().distillation))
        .with_seed(args.seed);
    (training.evaluate_every, training.patience) = (args.evaluate_every, args.patience);
    let lloco = args.library.builder()?.build()?;
    let mut config = FinetuneConfig::new(&args.questions).with_training(training);
    config.lora = args.shape(lloco.adapter_shape());
    config.distil = args.distil.map(|_| 20);
    (config.held_out, config.hold_out_every) = (args.held_out.clone(), args.hold_out_every);
    // Whether steps are left is known only when the questions are read.
    let product_rate = args.output.is_json().then(|| product_rate(lloco.encoder().decoder()));
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
        "positions": done.positions, "positions_per_second": done.positions as f64 / done.stepping.as_secs_f64(),
        "seconds": seconds, "arithmetic": arithmetic(product_rate, done.operations, done.stepping),
        "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    let judges = args.judges()?;
    if judges.is_empty() || args.control == 0 {
        args.output.line(format_args!(
            "its control table, with the library's other options as here: evaluate --store {} --group {} --data {}",
            args.library.store.display(),
            args.group,
            args.held_out.as_deref().unwrap_or("FILE.jsonl".as_ref()).display()
        ))?;
        return Ok(());
    }
    let questions = args.held_out.as_ref().unwrap_or(&args.questions);
    args.output.line("")?;
    control(&lloco, &args.group, &judges, &EvaluateConfig::new(questions).with_limit(args.control), &args.output)
}

fn main() -> ExitCode {
    lloco_examples::main(finetune)
}
