//! The whole path, once: fetch a small model, compress documents, finetune an adapter for each group, ask.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use lloco_core::{
    AskOptions, FinetuneConfig, Lloco, TrainConfig,
    dataset::{self, QaDocument},
};
use lloco_examples::{Output, Result, answer, interrupt, library, progress};
use serde_json::{Value, json};

/// Fetch a small model, compress documents, finetune an adapter for each group, ask
#[derive(Parser)]
struct Args {
    /// The library's directory, made if missing
    #[arg(long, value_name = "DIR", default_value = ".lloco/quickstart")]
    store: PathBuf,

    /// What to ask
    #[arg(long, default_value = "Which firm was given the roof contract?")]
    question: String,

    #[command(flatten)]
    output: Output,
}

fn quickstart(args: Args) -> Result {
    let Args { store, question, output } = args;
    let start = Instant::now();
    let lloco = Lloco::builder()
        .store(&store)
        .compressor(library::trained_compressor())
        .resolver(progress::resolver())
        .on_event(progress::observer(interrupt::flag()?))
        .build()?;
    let opening = start.elapsed().as_secs_f64();
    output.line(format_args!("library {}, opened with its models in {opening:.1} s", store.display()))?;

    // Three documents beside this file, and a long one from a seeded generator; all come with questions.
    let examples = dataset::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/questions.jsonl"))?;
    let mut archive = dataset::archive(1, 100);
    archive.questions.truncate(8); // a step on the long document takes a while on two cores
    let groups = [learn(&lloco, "examples", &examples, 4, output)?, learn(&lloco, "archive", &[archive], 1, output)?];

    let options = AskOptions::default();
    output.line(format_args!("\nquestion: {question}\n\nanswer from summary vectors, with the group's adapter:"))?;
    let compressed = answer::show(lloco.ask_stream(&question, &options)?, output)?;
    output.line("\nanswer of the same model from the text itself:")?;
    let text = answer::show(lloco.ask_text(&question, &options)?, output)?;
    output.report(&json!({
        "question": question, "opening_seconds": opening, "groups": groups, "answer": answer::json(&compressed), "answer_from_text": answer::json(&text),
    }))?;
    Ok(())
}

/// Adds documents to a group and trains its adapter on their questions; what is done already is not done again.
fn learn(lloco: &Lloco, group: &str, documents: &[QaDocument], epochs: usize, output: Output) -> Result<Value> {
    let added = lloco.add(&library::documents(documents, group))?;
    let compressing = added.compressing.as_secs_f64();
    output.line(format_args!(
        "group {group}: {} documents compressed in {compressing:.1} s, {} tokens to {} summary vectors; {} were there already",
        added.documents, added.tokens, added.summary_vectors, added.unchanged
    ))?;

    let training = TrainConfig::default().with_epochs(epochs).with_batches(4, 1).with_learning_rate(1e-3);
    let config = FinetuneConfig::new("questions.jsonl").with_training(training);
    let tuned = lloco.finetune_on(group, documents, &config)?;
    let (finetuning, (first, last)) = (tuned.time.as_secs_f64(), tuned.losses.unwrap_or_default());
    output.line(match tuned.steps {
        0 => format!("group {group}: its adapter was finetuned on the same {} questions already", tuned.examples),
        steps => format!(
            "group {group}: adapter finetuned on {} questions in {finetuning:.1} s, {steps} steps, loss {first:.2} to {last:.2}",
            tuned.examples
        ),
    })?;
    Ok(json!({
        "group": group, "documents": added.documents, "tokens": added.tokens, "summary_vectors": added.summary_vectors,
        "compressing_seconds": compressing, "questions": tuned.examples, "steps": tuned.steps,
        "finetuning_seconds": finetuning, "first_loss": first, "last_loss": last,
    }))
}

fn main() -> ExitCode {
    lloco_examples::main(quickstart)
}
