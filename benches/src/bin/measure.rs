//! Prints the tables of `docs/results/main.md`, measured on this machine:
//! `cargo run --release -p lloco-benches --bin measure`.
//!
//! Each case runs in a process of its own, so that its peak memory is its own.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::{env, error::Error, process::Command, sync::Arc, time::Instant};

use lloco_core::{
    AutoCompressor, Checkpoint, Decoder, EncoderOptions, GenerateConfig, ModelSource, NoAdapter, Prompt, WeightType,
    dataset, device,
};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Lengths of the documents, in tokens.
const LENGTHS: [usize; 4] = [2048, 8192, 32_768, 122_880];
/// Beyond this, reading the text itself takes hours on two cores and says nothing new.
const LONGEST_TEXT: usize = 32_768;
/// Lengths at which answers from summaries and from the text are compared.
const ANSWERED: [usize; 3] = [2048, 4096, 8192 - 256];
/// Tokens of an answer.
const ANSWER: usize = 32;
const RUNS: usize = 3;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => tables(),
        [case, tokens] => {
            let tokens = tokens.parse()?;
            println!("{}", Case::load(tokens)?.run(case)?);
            Ok(())
        }
        _ => Err("give no argument for all tables, or a case and a number of tokens".into()),
    }
}

fn tables() -> Result<()> {
    println!(
        "| document tokens | compress, tokens/s | summary vectors | peak memory | read as text, tokens/s | decode behind it, tokens/s | peak memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    for tokens in LENGTHS {
        let compress = child("compress", tokens)?;
        let row = format!(
            "| {tokens} | {} | {} | {} |",
            number(&compress, "tokens_per_second"),
            compress["summary_vectors"],
            megabytes(&compress)
        );
        if tokens > LONGEST_TEXT {
            println!("{row} - | - | - |");
            continue;
        }
        let text = child("text", tokens)?;
        let (prefill, decode) = (number(&text, "prefill_tokens_per_second"), number(&text, "decode_tokens_per_second"));
        println!("{row} {prefill} | {decode} | {} |", megabytes(&text));
    }
    println!();
    println!(
        "| document tokens | answer from summaries, s | positions | answer from the text, s | positions | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    for tokens in ANSWERED {
        let answer = child("answer", tokens)?;
        println!(
            "| {tokens} | {:.2} | {} | {:.2} | {} | {:.2} |",
            answer["summaries_seconds"].as_f64().unwrap_or(f64::NAN),
            answer["summaries_positions"],
            answer["text_seconds"].as_f64().unwrap_or(f64::NAN),
            answer["text_positions"],
            answer["ratio"].as_f64().unwrap_or(f64::NAN)
        );
    }
    Ok(())
}

fn number(report: &Value, field: &str) -> String {
    format!("{:.1}", report[field].as_f64().unwrap_or(f64::NAN))
}

fn megabytes(report: &Value) -> String {
    report["peak_rss_bytes"].as_u64().map_or("-".into(), |bytes| format!("{} MB", bytes / 1_000_000))
}

fn child(case: &str, tokens: usize) -> Result<Value> {
    eprintln!("{case}, {tokens} tokens ...");
    let output = Command::new(env::current_exe()?).args([case, &tokens.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("{case} {tokens}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A model and the token ids of a document.
struct Case {
    encoder: AutoCompressor,
    ids: Vec<u32>,
    question: Vec<u32>,
}

impl Case {
    fn load(tokens: usize) -> Result<Self> {
        let checkpoint = Checkpoint::open(ModelSource::default_model().resolve()?)?;
        let tokenizer = checkpoint.tokenizer()?;
        // A report has some 220 tokens.
        let mut ids = tokenizer.encode(&dataset::archive(1, tokens / 200 + 10).text)?;
        ids.truncate(tokens);
        if ids.len() < tokens {
            return Err(format!("the archive has only {} tokens", ids.len()).into());
        }
        let device = device(&env::var("LLOCO_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
        let decoder = Arc::new(Decoder::load(&checkpoint, WeightType::Auto, &device)?);
        let encoder = AutoCompressor::load(&checkpoint, decoder, &EncoderOptions::default())?;
        Ok(Self { encoder, ids, question: tokenizer.encode("\nQuestion: Which firm got the contract?\nAnswer:")? })
    }

    fn run(&self, case: &str) -> Result<Value> {
        match case {
            "compress" => self.compress(),
            "text" => self.text(),
            "answer" => self.answer(),
            other => Err(format!("unknown case {other}").into()),
        }
    }

    fn compress(&self) -> Result<Value> {
        let start = Instant::now();
        let softprompt = self.encoder.encode(&self.ids)?;
        let rows = softprompt.dims()[0];
        let _ = softprompt.into_data();
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({
            "tokens": self.ids.len(), "summary_vectors": rows, "seconds": seconds,
            "tokens_per_second": self.ids.len() as f64 / seconds, "peak_rss_bytes": peak_rss(),
        }))
    }

    fn text(&self) -> Result<Value> {
        let (prefill, decode, tokens) = self.generate(&Prompt::new().text(&self.ids))?;
        Ok(json!({
            "prefill_tokens_per_second": self.ids.len() as f64 / prefill,
            "decode_tokens_per_second": tokens as f64 / decode, "peak_rss_bytes": peak_rss(),
        }))
    }

    /// Prefill and decode seconds, and tokens decoded behind the first.
    fn generate(&self, prompt: &Prompt) -> Result<(f64, f64, usize)> {
        let mut config = GenerateConfig::greedy(ANSWER);
        config.stop_at_end = false;
        let mut generation = self.encoder.decoder().generate(prompt, &config, NoAdapter)?;
        let prefill = generation.prefill_time().as_secs_f64();
        generation.next().transpose()?;
        let start = Instant::now();
        let tokens = generation.try_fold(0, |count, token| token.map(|_| count + 1))?;
        Ok((prefill, start.elapsed().as_secs_f64(), tokens))
    }

    fn answer(&self) -> Result<Value> {
        let softprompt = self.encoder.encode(&self.ids)?;
        let summaries = Prompt::new().embeddings(softprompt).text(&self.question);
        let text = Prompt::new().text(&self.ids).text(&self.question);
        let seconds = |prompt: &Prompt| self.generate(prompt).map(|(prefill, decode, _)| prefill + decode);
        let mut pairs = Vec::new();
        for _ in 0..RUNS {
            pairs.push((seconds(&summaries)?, seconds(&text)?));
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(RUNS / 2).copied().unwrap_or(f64::NAN)
        };
        Ok(json!({
            "summaries_seconds": median(pairs.iter().map(|pair| pair.0).collect()),
            "summaries_positions": summaries.positions(),
            "text_seconds": median(pairs.iter().map(|pair| pair.1).collect()),
            "text_positions": text.positions(),
            "ratio": median(pairs.iter().map(|pair| pair.1 / pair.0).collect()),
        }))
    }
}

/// The most memory that this process held, where the system tells.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
