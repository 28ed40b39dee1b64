//! Prints the tables of `docs/results/store.md`, measured on this machine:
//! `cargo run --release -p lloco-benches --bin store`.
//!
//! Texts and vectors are made up; their sizes are those of a short document under the default
//! model: one segment of 1,536 tokens, 50 vectors of 576 in f16. A directory may be given to
//! measure its disk instead of the current directory's.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{
    env,
    error::Error,
    fs,
    hint::black_box,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, NewSummary, Pending, Shard, Store, SummaryRows};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZES: [usize; 3] = [10, 1000, 100_000];
const TOKENS: usize = 1536;
const VECTORS: usize = 50;
const HIDDEN: usize = 576;
/// Bytes of a document's text: four a token.
const TEXT: usize = 4 * TOKENS;
/// Documents that are handed to the store together.
const BATCH: usize = 1000;
const RUNS: usize = 5;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [] => tables(Path::new(".")),
        [directory] => tables(Path::new(directory)),
        [role, store, number] if role == "writer" => write_on(Path::new(store), number.parse()?),
        [role, store, id] if role == "reader" => read_one(Path::new(store), id),
        _ => Err("give no argument, or a directory on the disk to measure".into()),
    }
}

fn tables(directory: &Path) -> Result<()> {
    let root = directory.join(format!("store-bench-{}", std::process::id()));
    fs::create_dir_all(&root)?;
    let outcome = one_by_one(&root.join("single")).and_then(|()| by_size(&root));
    fs::remove_dir_all(&root)?;
    outcome
}

/// What each durable write costs when a caller waits for it.
fn one_by_one(path: &Path) -> Result<()> {
    const DOCUMENTS: usize = 200;
    let (store, encoder, rows) = (LocalStore::open(path)?, encoder(), rows(0));
    println!("| verb | calls/s | MB/s |\n|---|---|---|");
    let mut seconds = [0.0; 4];
    for number in 0..DOCUMENTS {
        let (id, text) = (format!("{number}"), text(number));
        let mut timed = |which: usize, start: Instant| seconds[which] += start.elapsed().as_secs_f64();
        let start = Instant::now();
        store.add(&NewDocument::new(&id, &text))?;
        timed(0, start);
        let work = store.pending(&encoder, Shard::ALL)?.pop().ok_or("nothing is pending")?;
        let start = Instant::now();
        let mut encoding = store.begin(&work, &encoder, &[&tokens(number)])?;
        timed(1, start);
        let start = Instant::now();
        store.put_segment(&mut encoding, &rows)?;
        timed(2, start);
        let start = Instant::now();
        store.commit(&encoding)?;
        timed(3, start);
    }
    let summary = VECTORS * HIDDEN * 2;
    for (which, (verb, bytes)) in
        [("add", TEXT), ("begin", 0), ("put_segment", summary), ("commit", 0)].into_iter().enumerate()
    {
        let rate = DOCUMENTS as f64 / seconds[which];
        let megabytes = if bytes == 0 { "-".into() } else { format!("{:.1}", rate * bytes as f64 / 1e6) };
        println!("| `{verb}` | {rate:.0} | {megabytes} |");
    }
    println!();
    Ok(())
}

/// How a store behaves as it grows. The larger ones are the smaller ones, filled up.
fn by_size(root: &Path) -> Result<()> {
    println!(
        "| documents | `replace_all`, documents/s | `put_summaries`, documents/s | MB/s of both | open to write | open to read | first softprompt | the next | bytes a document token | catalogue, bytes a document | open after a kill | new catalogue from the files |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let path = root.join("library");
    let mut filled = 0;
    for size in SIZES {
        let (add, put) = fill(&path, filled..size)?;
        let count = (size - filled) as f64;
        let bytes = count * (TEXT + VECTORS * HIDDEN * 2) as f64;
        filled = size;
        let id = (size / 2).to_string();
        let write = median(|| timed(|| LocalStore::open(&path)))?;
        let cold = (0..RUNS).map(|_| reader(&path, &id)).collect::<Result<Vec<_>>>()?;
        let [read, first, next] = [0, 1, 2].map(|which| middle(cold.iter().map(|times| times[which]).collect()));
        let stats = LocalStore::open_read_only(&path)?.stats()?;
        let token_bytes = (stats.summary_bytes + stats.catalogue_bytes) as f64 / (size * TOKENS) as f64;
        let killed = after_kill(&path, size)?;
        let recovered = recover(&path)?;
        println!(
            "| {size} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {token_bytes:.1} | {} | {} | {} |",
            count / add.as_secs_f64(),
            count / put.as_secs_f64(),
            bytes / 1e6 / (add + put).as_secs_f64(),
            milliseconds(write),
            milliseconds(read),
            milliseconds(first),
            milliseconds(next),
            stats.catalogue_bytes / size as u64,
            milliseconds(killed),
            milliseconds(recovered),
        );
    }
    Ok(())
}

/// Adds documents with their summaries; the time for texts and for summaries.
fn fill(path: &Path, numbers: std::ops::Range<usize>) -> Result<(Duration, Duration)> {
    let (store, encoder) = (LocalStore::open(path)?, encoder());
    let (mut add, mut put) = (Duration::ZERO, Duration::ZERO);
    let all: Vec<usize> = numbers.collect();
    for batch in all.chunks(BATCH) {
        let texts: Vec<(String, String)> = batch.iter().map(|number| (number.to_string(), text(*number))).collect();
        let documents: Vec<NewDocument<'_>> = texts.iter().map(|(id, text)| NewDocument::new(id, text)).collect();
        let start = Instant::now();
        let stored = store.replace_all(&documents)?;
        add += start.elapsed();
        let tokens: Vec<Vec<u32>> = batch.iter().map(|number| tokens(*number)).collect();
        let segments: Vec<[&[u32]; 1]> = tokens.iter().map(|tokens| [tokens.as_slice()]).collect();
        let rows: Vec<[SummaryRows; 1]> = batch.iter().map(|number| [rows(*number)]).collect();
        let work: Vec<Pending> = stored.iter().map(Pending::of).collect();
        let new = work.iter().zip(&segments).zip(&rows);
        let new: Vec<NewSummary<'_>> =
            new.map(|((work, segments), rows)| NewSummary { work, segments, rows }).collect();
        let start = Instant::now();
        store.put_summaries(&encoder, &new)?;
        put += start.elapsed();
    }
    Ok((add, put))
}

/// Kills a writer in the middle of its work, and opens the store after it.
fn after_kill(path: &Path, size: usize) -> Result<Duration> {
    let mut times = Vec::new();
    for run in 0..3 {
        let mut child = Command::new(env::current_exe()?)
            .args(["writer".as_ref(), path.as_os_str(), (10 * size + run * 1000).to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the writer has no output")?;
        BufReader::new(output).lines().take(20).try_for_each(|line| line.map(drop))?;
        child.kill()?;
        child.wait()?;
        times.push(timed(|| LocalStore::open(path))?);
    }
    // What the killed writers left is no part of the next size.
    let store = LocalStore::open(path)?;
    for document in store.documents(Some("killed"))? {
        store.remove(&document.id)?;
    }
    Ok(middle(times))
}

/// Makes a new catalogue where the old one is lost, and puts the old one back.
fn recover(path: &Path) -> Result<Duration> {
    let (catalogue, aside) = (path.join("catalog.redb"), path.with_extension("catalog"));
    fs::rename(&catalogue, &aside)?;
    let start = Instant::now();
    let recovered = LocalStore::recover(path)?;
    let taken = start.elapsed();
    let found = recovered.map(|found| (found.documents, found.summaries));
    fs::rename(&aside, &catalogue)?;
    let stats = LocalStore::open_read_only(path)?.stats()?;
    match found {
        Some((documents, summaries)) if documents >= stats.documents && summaries >= stats.documents => Ok(taken),
        found => Err(format!("of {} documents were recovered {found:?}", stats.documents).into()),
    }
}

/// A writer that goes on until it is killed.
fn write_on(path: &Path, from: usize) -> Result<()> {
    let store = LocalStore::open(path)?;
    for number in from.. {
        store.add(&NewDocument::new(&number.to_string(), &text(number)).group("killed"))?;
        println!("{number}");
    }
    Ok(())
}

/// Opening and two softprompts in a process of their own, which knows nothing of the store yet.
fn reader(path: &Path, id: &str) -> Result<[Duration; 3]> {
    let output = Command::new(env::current_exe()?).args(["reader".as_ref(), path.as_os_str(), id.as_ref()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let times: Vec<Duration> = text
        .lines()
        .filter_map(|line| line.strip_prefix("times "))
        .flat_map(str::split_whitespace)
        .map(|word| Ok(Duration::from_secs_f64(word.parse()?)))
        .collect::<Result<_>>()?;
    <[Duration; 3]>::try_from(times).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned().into())
}

fn read_one(path: &Path, id: &str) -> Result<()> {
    let (encoder, start) = (encoder(), Instant::now());
    let store = LocalStore::open_read_only(path)?;
    let open = start.elapsed();
    let first = timed(|| store.summary(id, &encoder))?;
    let next = timed(|| store.summary("1", &encoder))?;
    println!("times {} {} {}", open.as_secs_f64(), first.as_secs_f64(), next.as_secs_f64());
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> lloco_core::Result<T>) -> Result<Duration> {
    let start = Instant::now();
    let value = work()?;
    let time = start.elapsed();
    drop(black_box(value));
    Ok(time)
}

fn median(mut work: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    Ok(middle((0..RUNS).map(|_| work()).collect::<Result<_>>()?))
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn encoder() -> EncoderInfo {
    EncoderInfo::new("made-up weights", TOKENS as u32, VECTORS as u32, HIDDEN as u32)
}

fn text(number: usize) -> String {
    format!("{number} ").repeat(TEXT / 2)[..TEXT].to_owned()
}

fn tokens(number: usize) -> Vec<u32> {
    (0..TOKENS).map(|i| (number * TOKENS + i) as u32).collect()
}

fn rows(number: usize) -> SummaryRows {
    let mut state = number as u32;
    let values = (0..VECTORS * HIDDEN).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 32_768.0 - 1.0
    });
    SummaryRows::new(VECTORS, HIDDEN, values.collect()).unwrap_or_default()
}
