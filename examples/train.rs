//! Trains a compressor by a curriculum, and fills its control table. Goes on where it was interrupted.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::HumanDuration;
use lloco_core::{
    Compressor, EncoderOptions, Lloco, Prompts,
    dataset::{self, QaDocument},
    eval::EvaluateConfig,
    training::{CompressorTrainer, Corpus, Curriculum, Evaluation, TrainingEvent, TrainingOutcome},
};
use lloco_examples::{
    ModelArgs, Output, Result, arithmetic, control, interrupt, library, memory::peak_rss_bytes, product_rate, progress,
};
use serde_json::json;

/// Train a compressor: the model learns to write summary vectors, and to read them
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The stages of the run, a JSON file
    #[arg(long, value_name = "FILE.json", default_value = "examples/data/curriculum-135m.json")]
    curriculum: PathBuf,

    /// Documents to learn from: plain texts, and .jsonl files with a document a line
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,

    /// Begin with this trained compressor instead of new weights
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,

    /// Documents to evaluate on [default: those to learn from]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    held_out: Vec<PathBuf>,

    /// The run's directory: checkpoints, metrics.jsonl, curves.svg, and, when all steps are done, the compressor and the library
    /// of its control table
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Stop after so many steps; the next call goes on
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Write the compressor there as it is when this call ends, whether or not all steps are done, in the place of an earlier one
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,

    /// Ask so many of the questions about --held-out documents for a control table when all steps are done, as `evaluate
    /// --questions N` does; 0 for none. A line of its own with --json
    #[arg(long, value_name = "N", default_value_t = 30)]
    control: usize,

    /// Tokens a summary vector in the control table [default: the first of the curriculum]
    #[arg(long, value_name = "N")]
    ratio: Option<usize>,

    /// A directory or org/name of a BERT-family embedder for the control table's retrieved text [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "DIR|ID")]
    embedder: Option<String>,

    #[command(flatten)]
    output: Output,
}

impl Args {
    /// The held-out documents that the control table asks about.
    fn judges(&self) -> Result<Vec<QaDocument>> {
        let mut judges = Vec::new();
        let lines =
            |path: &&PathBuf| self.control > 0 && path.extension().is_some_and(|extension| extension == "jsonl");
        for path in self.held_out.iter().filter(lines) {
            let documents = dataset::read(path).map_err(|e| format!("{e}; --control 0 asks no questions about it"))?;
            if documents.iter().any(|document| !document.questions.is_empty()) {
                judges.extend(documents);
            }
        }
        Ok(judges)
    }

    /// How the control table's library is compressed.
    fn encoder(&self) -> EncoderOptions {
        EncoderOptions { ratio: self.ratio, ..EncoderOptions::default() }
    }

    /// Compresses the held-out documents into a library of the run's own, and asks about them.
    fn control(&self, compressor: &Path, judges: &[QaDocument], stop: Arc<AtomicBool>) -> Result {
        let lloco = Lloco::builder()
            .store(self.out.join("control"))
            .model(self.model.source())
            .embedder(library::embedder(self.embedder.as_deref()))
            .encoder(self.encoder())
            .compressor(compressor)
            .device(self.model.device()?)
            .weights(self.model.weights)
            .resolver(progress::resolver())
            .on_event(progress::observer(stop))
            .build()?;
        if lloco.add(&library::documents(judges, GROUP))?.stale > 0 {
            lloco.reencode()?; // another compressor's, or of another ratio
        }
        self.output.line("")?;
        let questions = self.held_out.first().unwrap_or(&self.out);
        control(&lloco, GROUP, judges, &EvaluateConfig::new(questions).with_limit(self.control), &self.output)
    }
}

/// The group of held-out documents.
const GROUP: &str = "held-out";

fn train(args: Args) -> Result {
    let curriculum = Curriculum::from_file(&args.curriculum)?;
    if let Some(place) = args.export.as_deref().filter(|place| place.exists() && !holds_compressor(place)) {
        return Err(format!("--export {} exists already and is no compressor", place.display()).into());
    }
    let corpus = Corpus::open(&args.data)?;
    let held_out = if args.held_out.is_empty() { None } else { Some(Corpus::open(&args.held_out)?) };
    let judges = args.judges()?;
    let (checkpoint, decoder) = args.model.load()?;
    let wording = Prompts::new(checkpoint.tokenizer()?, checkpoint.config())?;
    let mut trainer = CompressorTrainer::new(&decoder, &checkpoint.fingerprint(), curriculum, &corpus, &wording)?;
    trainer.compressor().encoder(decoder.clone(), &args.encoder())?; // a ratio that is not trained
    if let Some(dir) = &args.from {
        let place = dir.canonicalize().map_err(|e| format!("--from {}: {e}", dir.display()))?;
        if place.starts_with(args.out.canonicalize().unwrap_or_else(|_| args.out.clone())) {
            return Err(format!("--from {} lies in --out, which this run writes", dir.display()).into());
        }
        trainer = trainer.start_from(Compressor::load(dir, &decoder, &checkpoint.fingerprint())?)?;
    }
    if let Some(corpus) = &held_out {
        trainer = trainer.with_held_out(corpus);
    }
    if trainer.resume(&args.out)? {
        args.output.line(format_args!("going on at step {}", trainer.steps_done()))?;
    }

    let (stop, begun, of) = (interrupt::flag()?, trainer.steps_done(), trainer.curriculum().steps());
    let steps_left = begun < of && args.steps != Some(0);
    if !judges.is_empty() && args.steps.is_none_or(|steps| steps >= of - begun) {
        progress::resolver().resolve(&library::embedder(args.embedder.as_deref()))?; // not after hours
    }
    let product_rate = steps_left.then(|| product_rate(&decoder));
    let start = Instant::now();
    let bar = progress::bar("training", of as u64);
    let (mut tokens, mut loss, mut last) = (0, None, None::<Evaluation>);
    let (mut operations, mut stepping) = (0.0, 0.0);
    let outcome = trainer.run(&args.out, args.steps, &mut |event| {
        match event {
            TrainingEvent::Step(step) => {
                tokens += step.tokens;
                (operations, stepping) = (operations + step.operations, stepping + step.seconds);
                loss = Some(step.loss);
                let seconds = start.elapsed().as_secs_f64();
                let left = start.elapsed().mul_f64((of - step.step) as f64 / (step.step - begun) as f64);
                bar.set_position(step.step as u64);
                bar.set_message(format!(
                    "{}: loss {:.3}, {:.0} tokens/s, {} left",
                    step.stage,
                    step.loss,
                    tokens as f64 / seconds,
                    HumanDuration(left)
                ));
            }
            TrainingEvent::Evaluated { step, evaluation } => {
                last = Some(*evaluation);
                bar.suspend(|| show(&args.output, *step, evaluation));
            }
            _ => {}
        }
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();

    let (finished, compressor) = (outcome == TrainingOutcome::Finished, args.out.join("compressor"));
    if finished {
        export(&trainer, &compressor)?;
    }
    if let Some(place) = &args.export {
        export(&trainer, place)?;
        args.output.line(format_args!("the compressor of step {}: {}", trainer.steps_done(), place.display()))?;
    }
    let (done, seconds) = (trainer.steps_done(), start.elapsed().as_secs_f64());
    match finished {
        true => args.output.line(format_args!("all {of} steps are done: {}", compressor.display()))?,
        false => args.output.line(format_args!("stopped at step {done} of {of}; the same command goes on"))?,
    }
    let arithmetic = arithmetic(product_rate, operations, Duration::from_secs_f64(stepping));
    if let Some(share) = arithmetic["share"].as_f64() {
        let (rate, percent) = (tokens as f64 / seconds, 100.0 * share);
        args.output
            .line(format_args!("{rate:.0} tokens/s, {percent:.0} % of what the device reaches in one large product"))?;
    }
    args.output.report(&json!({
        "step": done, "of": of, "finished": finished, "steps": done - begun, "loss": loss, "tokens": tokens,
        "tokens_per_second": tokens as f64 / seconds, "seconds": seconds, "evaluation": last,
        "arithmetic": arithmetic,
        "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    drop(trainer);
    drop(decoder); // the control table loads its own
    if !finished || judges.is_empty() {
        let made = args.export.as_ref().or(finished.then_some(&compressor));
        return Ok(made.map_or(Ok(()), |made| {
            args.output.line(format_args!(
                "its control table, once `ingest` read a library with it: evaluate --store DIR --compressor {} --data FILE.jsonl",
                made.display()
            ))
        })?);
    }
    args.control(&compressor, &judges, stop)
}

fn holds_compressor(place: &Path) -> bool {
    place.join("compressor.json").is_file()
}

/// Writes the compressor, in the place of one that is there: of an earlier step, or of the run before it got more stages.
fn export(trainer: &CompressorTrainer<'_>, place: &Path) -> Result {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let before = place.with_file_name(format!(".{name}.before"));
    if before.exists() {
        fs::remove_dir_all(&before)?; // a kill left it
    }
    if holds_compressor(place) {
        fs::rename(place, &before)?;
    }
    trainer.export(place)?;
    if before.exists() {
        fs::remove_dir_all(&before)?;
    }
    Ok(())
}

/// Scores of held-out samples, each beside the same reading of another document's summaries.
fn show(output: &Output, step: usize, evaluation: &Evaluation) {
    let Evaluation { reconstruction, continuation, answer, .. } = evaluation;
    let kinds = [("reconstruction", reconstruction), ("continuation", continuation), ("answer", answer)];
    for (name, score) in kinds.into_iter().filter(|(_, score)| score.tokens > 0) {
        // A closed stream must not end the run.
        let _ = output.line(format_args!(
            "step {step}: {name} {:.3} nats a token, {:.3} behind other summaries; {:.1} % of {} tokens right",
            score.nll,
            score.shuffled_nll,
            100.0 * score.accuracy,
            score.tokens
        ));
    }
}

fn main() -> ExitCode {
    lloco_examples::main(train)
}
