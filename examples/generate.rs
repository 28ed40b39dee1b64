//! Continues a prompt, behind summary vectors or text, with or without an adapter.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use lloco_core::{Adapter, GenerateConfig, NoAdapter, Prompt, Tokenizer, softprompt};
use lloco_examples::{ModelArgs, Output, PromptArgs, Result, SamplingArgs, memory::peak_rss_bytes};
use serde_json::json;

/// Continue a prompt, behind summary vectors or text, with or without an adapter
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Summary vectors that stand before everything else, as `compress` writes them
    #[arg(long, value_name = "FILE.safetensors")]
    summary: Option<PathBuf>,

    /// A LoRA adapter in PEFT's layout
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    #[command(flatten)]
    prompt: PromptArgs,

    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    output: Output,
}

fn generate(args: Args) -> Result {
    let (checkpoint, decoder) = args.model.load()?;
    let adapter =
        args.adapter.as_ref().map(|dir| Adapter::load(dir, decoder.config(), decoder.device())).transpose()?;
    let tokenizer = args.prompt.tokenizer(&checkpoint)?;
    let mut prompt = Prompt::new();
    if let Some(path) = &args.summary {
        prompt = prompt.embeddings(softprompt::load(path, decoder.device())?);
    }
    prompt = prompt.text(&args.prompt.ids(tokenizer.as_ref())?);

    let config = GenerateConfig::greedy(args.max_new_tokens).with_sampling(args.sampling.into());
    let mut generation = match &adapter {
        Some(adapter) => decoder.generate(&prompt, &config, adapter)?,
        None => decoder.generate(&prompt, &config, NoAdapter)?,
    };
    let (mut ids, mut answer, mut pieces) = (Vec::new(), String::new(), tokenizer.as_ref().map(Tokenizer::stream));
    let start = Instant::now();
    for id in generation.by_ref() {
        ids.push(id?);
        let piece = match &mut pieces {
            Some(pieces) => pieces.push(ids[ids.len() - 1])?,
            None => format!("{} ", ids[ids.len() - 1]),
        };
        args.output.text(&piece)?;
        answer += &piece;
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(pieces) = pieces {
        let rest = pieces.finish()?;
        args.output.text(&rest)?;
        answer += &rest;
    }
    // The first token comes from reading the prompt, so it is no step; a stop token that ended the text is one.
    let steps = if ids.len() < args.max_new_tokens { ids.len() } else { ids.len().saturating_sub(1) };
    let (prefill, rate) = (generation.prefill_time().as_secs_f64(), (steps > 0).then(|| steps as f64 / seconds));
    args.output.line(format_args!("\n\n{} positions read in {prefill:.2} s", prompt.positions()))?;
    args.output.report(&json!({
        "token_ids": ids, "text": tokenizer.map(|_| answer), "prompt_positions": prompt.positions(),
        "prefill_seconds": prefill, "decode_tokens_per_second": rate, "peak_rss_bytes": peak_rss_bytes(),
    }))?;
    Ok(())
}

fn main() -> ExitCode {
    lloco_examples::main(generate)
}
