//! Prints the tables of `docs/results/main.md`, measured on this machine:
//! `cargo run --release -p lloco-benches --bin measure`.
//!
//! Each case runs in a process of its own, so that its peak memory is its own:
//! `measure CASE TOKENS [RUNS]` prints one as JSON, which `benches/peers` compares with others' work.
//! `measure each CASE:TOKENS:RUNS...` loads the model once and prints a line for each as soon as it is there.
//! `--device NAME` chooses the device. On a GPU a case first runs once without being counted: kernels are compiled and
//! chosen then.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::time::Instant;

use lloco_benches::{Answer, Result, Subject, again, alternate, arguments, limit, median, peak_rss};
use lloco_core::{Device, NoAdapter, Prompt};
use lloco_decoder::LinearAdapter;
use serde_json::{Value, json};

/// Lengths of the documents, in tokens.
const LENGTHS: [usize; 4] = [2048, 8192, 32_768, 122_880];
/// Beyond this, reading the text itself takes hours on two cores and says nothing new.
const LONGEST_TEXT: usize = 32_768;
/// Lengths at which answers from summaries and from the text are compared.
const ANSWERED: [usize; 3] = [2048, 4096, 8192 - 256];
/// Steps timed as one when decoding.
const STEPS: usize = 32;

fn main() -> Result<()> {
    let args = arguments()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => tables(),
        ["each", cases @ ..] => each(cases),
        [case, tokens] => print(&Subject::load()?, case, tokens.parse()?, 1),
        [case, tokens, runs] => print(&Subject::load()?, case, tokens.parse()?, runs.parse()?),
        _ => Err("give no argument for all tables, or a case and a number of tokens, or also a number of runs".into()),
    }
}

fn tables() -> Result<()> {
    println!(
        "| document tokens | compress, tokens/s | summary vectors | peak memory | read as text, tokens/s | decode behind it, tokens/s | peak memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    for tokens in LENGTHS {
        let compress = child("compress", tokens, 1)?;
        let row = format!(
            "| {tokens} | {} | {} | {} |",
            number(&compress, "per_second"),
            compress["summary_vectors"],
            megabytes(&compress)
        );
        if tokens > LONGEST_TEXT {
            println!("{row} - | - | - |");
            continue;
        }
        let text = child("text", tokens, 1)?;
        let (prefill, decode) = (number(&text, "per_second"), number(&text, "decode_per_second"));
        println!("{row} {prefill} | {decode} | {} |", megabytes(&text));
    }
    println!();
    println!(
        "| document tokens | answer from summaries, s | positions | answer from the text, s | positions | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    for tokens in ANSWERED {
        let answer = child("answer", tokens, 3)?;
        println!(
            "| {tokens} | {:.2} | {} | {:.2} | {} | {:.2} |",
            answer["seconds"].as_f64().unwrap_or(f64::NAN),
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

fn child(case: &str, tokens: usize, runs: usize) -> Result<Value> {
    eprintln!("{case}, {tokens} tokens ...");
    let output = again(&[case.into(), tokens.to_string(), runs.to_string()])?.output()?;
    if !output.status.success() {
        return Err(format!("{case} {tokens}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn each(cases: &[&str]) -> Result<()> {
    let subject = Subject::load()?;
    for case in cases {
        let mut parts = case.split(':');
        let (Some(name), Some(tokens), Some(runs)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("{case}: expected CASE:TOKENS:RUNS").into());
        };
        print(&subject, name, tokens.parse()?, runs.parse()?)?;
        // What one case held is not counted in the memory of the next.
        subject.decoder().device().memory_cleanup();
    }
    Ok(())
}

fn print(subject: &Subject, case: &str, tokens: usize, runs: usize) -> Result<()> {
    let mut report = run(subject, case, tokens, runs.max(1))?;
    report["case"] = json!(case);
    report["tokens"] = json!(tokens);
    report["peak_rss_bytes"] = json!(peak_rss());
    println!("{report}");
    Ok(())
}

/// One case: `seconds` is the median of the runs, `per_second` the tokens of the case in that time.
fn run(subject: &Subject, case: &str, tokens: usize, runs: usize) -> Result<Value> {
    let rate = |count: usize, seconds: f64| json!({"seconds": seconds, "per_second": count as f64 / seconds});
    // Whether a first run does not count.
    let first = subject.decoder().device() != &Device::flex();
    let mut ids = Vec::new();
    if !case.starts_with("finetune") && case != "answer-summaries" {
        ids = subject.document(tokens)?;
    }
    Ok(match case {
        "ids" => json!({"ids": ids}),
        "compress" => {
            let mut rows = 0;
            let seconds = time(first, runs, || subject.compress(&ids).map(|softprompt| rows = softprompt.dims()[0]))?;
            let mut report = rate(tokens, seconds);
            report["summary_vectors"] = json!(rows);
            report["operations"] = json!(subject.compress_operations(tokens));
            report
        }
        "prefill" => {
            let mut report = rate(tokens, time(first, runs, || subject.prefill(1, &ids).map(drop))?);
            report["operations"] = json!(subject.prefill_operations(tokens));
            report
        }
        // Of a batch, `per_second` is the tokens of all its sequences.
        "decode" | "decode-adapted" | "decode-batch4" | "decode-batch8" => {
            let batch = case.strip_prefix("decode-batch").map_or(Ok(1), str::parse)?;
            let mut cache = subject.prefill(batch, &ids)?;
            let adapter: Box<dyn LinearAdapter> =
                if case == "decode-adapted" { Box::new(subject.adapter()?) } else { Box::new(NoAdapter) };
            let mut steps = || (0..STEPS).try_for_each(|_| subject.decode(batch, &mut cache, &*adapter));
            let mut report = rate(STEPS * batch, time(first, runs, &mut steps)?);
            report["bytes"] = json!(STEPS as f64 * subject.step_bytes(batch, tokens));
            report
        }
        "text" => {
            let Answer { prefill, decode, steps, .. } = subject.answer(&Prompt::new().text(&ids))?;
            let mut report = rate(tokens, prefill);
            report["decode_per_second"] = json!(steps as f64 / decode);
            report
        }
        "answer" => {
            let summaries = subject.behind_summaries(subject.compress(&ids)?);
            let text = subject.behind_text(&ids);
            let seconds = |prompt: &Prompt| subject.answer(prompt).map(|answer| answer.seconds());
            if first {
                seconds(&summaries)?;
                seconds(&text)?;
            }
            let turns = alternate(runs, || seconds(&summaries), || seconds(&text))?;
            json!({
                "seconds": turns.first, "summaries_positions": summaries.positions(),
                "text_seconds": turns.second, "text_positions": text.positions(), "ratio": turns.ratio,
            })
        }
        // One side of the answer alone; what the summary vectors say does not matter to the time.
        "answer-summaries" => answer(subject, &subject.behind_summaries(subject.summaries(tokens)), first, runs)?,
        "answer-text" => answer(subject, &subject.behind_text(&ids), first, runs)?,
        "limits" => {
            let device = subject.decoder().device();
            json!({
                "bandwidth": limit::bandwidth_of(device),
                "product_flops": subject.product_rate(),
            })
        }
        // The number given is that of the summary vectors. The first step packs weights for the way back.
        "finetune" => {
            let mut report = rate(tokens + 200, time(true, runs, subject.finetuning(tokens, 150, 50)?)?);
            report["operations"] = json!(subject.finetuning_operations(tokens + 200));
            report
        }
        // The number given is that of the tokens of text, in front of the same question and answer.
        "finetune-text" => rate(tokens + 200, time(first, runs, subject.finetuning(0, tokens + 150, 50)?)?),
        other => return Err(format!("unknown case {other}").into()),
    })
}

/// The medians of answering `runs` times, behind one answer that does not count if `first`.
fn answer(subject: &Subject, prompt: &Prompt, first: bool, runs: usize) -> Result<Value> {
    if first {
        subject.answer(prompt)?;
    }
    let answers = (0..runs).map(|_| subject.answer(prompt)).collect::<Result<Vec<Answer>>>()?;
    let of = |seconds: fn(&Answer) -> f64| median(answers.iter().map(seconds).collect());
    let any = answers.first().copied().unwrap_or_default();
    Ok(json!({
        "seconds": of(Answer::seconds), "positions": any.positions,
        "prefill_seconds": of(|answer| answer.prefill), "operations": subject.answer_operations(&any),
        "decode_seconds": of(|answer| answer.decode), "bytes": subject.answer_bytes(&any),
    }))
}

/// The median seconds of a number of runs, behind one that does not count if `first`.
fn time(first: bool, runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    if first {
        work()?;
    }
    let once = |_| -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    Ok(median((0..runs).map(once).collect::<Result<Vec<f64>>>()?))
}
