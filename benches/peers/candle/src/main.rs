//! The cases of `measure` that candle has: candle-peer GGUF prefill|decode TOKENS IDS.json [RUNS]
//!
//! It reads the GGUF's blocks as they are. Prints one line of JSON. `RAYON_NUM_THREADS` sets the threads.

use std::{env, fs, time::Instant};

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;

const STEPS: usize = 32;
/// Where candle's rotary tables of a quantised LLaMA end.
const LONGEST: usize = 4096;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [gguf, case, tokens, ids, rest @ ..] = args.as_slice() else { bail!("GGUF CASE TOKENS IDS.json [RUNS]") };
    let tokens: usize = tokens.parse()?;
    let runs: usize = rest.first().map_or(Ok(1), |runs| runs.parse())?;
    let ids: serde_json::Value = serde_json::from_slice(&fs::read(ids)?)?;
    let ids: Vec<u32> = serde_json::from_value(ids["ids"].clone())?;
    let device = Device::Cpu;
    let mut file = fs::File::open(gguf)?;
    let content = gguf_file::Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &device)?;
    // Decoded tokens stay in candle's cache, so the last of them must still have a position.
    let read = if case == "decode" { tokens.min(LONGEST - STEPS) } else { tokens };
    let text = Tensor::new(&ids[..read], &device)?.unsqueeze(0)?;
    let one = Tensor::new(&ids[..1], &device)?.unsqueeze(0)?;
    let mut seconds = Vec::new();
    let mut count = tokens;
    for _ in 0..runs {
        // Position 0 empties the cache.
        let start = Instant::now();
        model.forward(&text, 0)?.to_vec2::<f32>()?;
        let prefill = start.elapsed().as_secs_f64();
        match case.as_str() {
            "prefill" => seconds.push(prefill),
            "decode" => {
                count = STEPS;
                let start = Instant::now();
                for step in 0..STEPS {
                    model.forward(&one, read + step)?.to_vec2::<f32>()?;
                }
                seconds.push(start.elapsed().as_secs_f64());
            }
            other => bail!("unknown case {other}"),
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let peak = fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0);
    println!(
        "{}",
        serde_json::json!({"case": case, "tokens": tokens, "seconds": median, "per_second": count as f64 / median,
                           "peak_rss_bytes": peak * 1024})
    );
    Ok(())
}
