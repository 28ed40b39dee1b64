//! The whole path, once: fetch a small model, compress documents, finetune an adapter for each group, ask.

use std::{path::Path, path::PathBuf, process::ExitCode, slice, time::Instant};

use clap::Parser;
use lloco_core::{AskOptions, FinetuneConfig, Lloco, LoraConfig, TrainConfig, Training, dataset, store::NewDocument};
use lloco_examples::{Output, Result, answer, interrupt, progress};
use serde_json::json;

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
    let Args { store, question, output: out } = args;
    let start = Instant::now();
    let lloco = Lloco::builder()
        .store(&store)
        .resolver(progress::resolver())
        .on_event(progress::observer(interrupt::flag()?))
        .build()?;
    out.line(format_args!("{:.1} s to open the library {} and its models", start.elapsed().as_secs_f64(), store.display()))?;

    // Three documents with questions beside this file, and a long one from a seeded generator.
    let questions = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/questions.jsonl");
    let (examples, archive) = (dataset::read(&questions)?, dataset::archive(1, 100));
    let mut groups = Vec::new();
    for (group, documents, epochs) in [("examples", examples.as_slice(), 12), ("archive", slice::from_ref(&archive), 2)] {
        let document = |d| NewDocument::new(&d.id, &d.text).group(group).title(&d.title);
        let added = lloco.add(&documents.iter().map(document).collect::<Vec<_>>())?;
        out.line(format_args!(
            "group {group}: {} documents compressed ({} were already): {} tokens to {} summary vectors in {:.1} s",
            added.documents, added.unchanged, added.tokens, added.summary_vectors, added.compressing.as_secs_f64()
        ))?;

        let training = TrainConfig::default().with_epochs(epochs).with_learning_rate(1e-3).with_lora(LoraConfig::default());
        let tuned = lloco.finetune_on(group, documents, &FinetuneConfig::new(&questions).with_training(training))?;
        let (first, last) = tuned.losses.unwrap_or_default();
        out.line(format_args!(
            "group {group}: adapter {}, {} steps on {} questions, loss {first:.2} to {last:.2}, in {:.1} s",
            tuned.version, tuned.steps, tuned.examples, tuned.time.as_secs_f64()
        ))?;
        groups.push(json!({"group": group, "tokens": added.tokens}));
    }
    if lloco.training() == Training::Untrained {
        out.line("untrained")?;
    }

    out.line(format_args!("\n{question}\n\nFrom summary vectors:"))?;
    let compressed = answer::show(lloco.ask_stream(&question, &AskOptions::default())?, out)?;
    out.line(answer::cost(&compressed))?;
    answer::show_sources(&compressed, out)?;
    out.line("\nFrom the text itself, same model, no adapter:")?;
    let text = answer::show(lloco.ask_text(&question, &AskOptions::default())?, out)?;
    out.line(answer::cost(&text))?;
    out.report(&json!({"question": question, "groups": groups, "answer": answer::json(&compressed), "text": answer::json(&text)}))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(quickstart)
}
