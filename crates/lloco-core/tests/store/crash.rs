//! Killed and failing writers: what was acknowledged is there, the rest leaves no trace.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lloco_core::store::{EncoderInfo, IoHook, LocalStore, NewDocument, Pending, Shard, Store, StoreOptions};
use lloco_core::{Error, Result};

use crate::open::{child, own_store};
use crate::{Seen, adapter, directory, encoder, rows, seen, tokens};

/// The steps of a writer's life. Each can be repeated if it is not known whether it happened.
const STEPS: usize = 27;

fn step(store: &LocalStore, scratch: &Path, number: usize) -> Result<()> {
    let (document, group) = (format!("doc {}", number / 6 % 3), format!("group {}", number / 12));
    let text = |length: usize| "Some text that is cut into segments.".repeat(2)[..length].to_owned() + &document;
    match number % 6 {
        _ if number == 17 => compress_with(store, &other(), |work| work.id == "doc 2"),
        // The first encoder's summary is still there.
        _ if number == 24 => compress_with(store, &encoder(), |work| work.id == "doc 2"),
        _ if number == 25 => store.forget_encoder(&other().id()).map(drop),
        _ if number == 26 => store.compact().map(drop),
        0 => store.replace(&NewDocument::new(&document, &text(20)).group(&group)).map(drop),
        1 | 3 => compress_with(store, &encoder(), |work| !work.stale),
        2 => store.replace(&NewDocument::new(&document, &text(31)).group(&group)).map(drop),
        4 => store.put_adapter(&group, &adapter(scratch, document.as_bytes())).map(drop),
        _ if number == 11 => store.remove(&document).map(drop),
        _ => store.compact().map(drop),
    }
}

/// Another encoder than [`encoder`].
fn other() -> EncoderInfo {
    EncoderInfo::new("other weights", 8, 2, 3)
}

fn compress_with(store: &LocalStore, encoder: &EncoderInfo, select: impl Fn(&Pending) -> bool) -> Result<()> {
    for work in store.pending(encoder, Shard::ALL)?.into_iter().filter(select) {
        let tokens = tokens(&store.text(&work.text)?);
        let segments: Vec<&[u32]> = tokens.chunks(8).collect();
        let mut encoding = store.begin(&work, encoder, &segments)?;
        while !encoding.is_complete() {
            let rows = rows(encoder, &encoding.segments()[encoding.done()].key);
            store.put_segment(&mut encoding, &rows)?;
        }
        store.commit(&encoding)?;
    }
    Ok(())
}

/// What is seen after each step; first, before any.
fn expected_states(scratch: &Path) -> Vec<Seen> {
    let directory = directory();
    let store = LocalStore::open(directory.path()).unwrap();
    let mut states = vec![seen(&store)];
    for number in 0..STEPS {
        step(&store, scratch, number).unwrap();
        states.push(seen(&store));
    }
    states
}

/// After `done` steps and perhaps one more: all is whole, and the rest of the steps can be made.
/// Within a step, documents compressed one by one may have advanced.
fn check(path: &Path, scratch: &Path, states: &[Seen], done: usize, finish: bool) {
    let store = LocalStore::open(path).unwrap();
    assert!(store.verify().unwrap().is_empty(), "after {done} steps");
    let now = seen(&store);
    assert!(now == states[done] || states.get(done + 1) == Some(&now), "after {done} steps: {now:?}");
    if finish {
        for number in done..STEPS {
            step(&store, scratch, number).unwrap();
        }
        assert_eq!(seen(&store), states[STEPS]);
        let left = std::fs::read_dir(path.join("tmp")).unwrap().count();
        assert_eq!(left, 0, "nothing is left aside");
        assert_eq!(store.compact().unwrap().files, 0, "the last step was to compact");
    }
}

/// Which of many places to try: every one if `LLOCO_TEST_THOROUGH` is set, else a share of them.
fn stride(share: usize) -> usize {
    if std::env::var_os("LLOCO_TEST_THOROUGH").is_some() { 1 } else { share }
}

/// A hook that lets `budget` steps pass and then does something else.
fn limited(budget: usize, then: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> (IoHook, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let hook: IoHook = Arc::new(move |_| if counter.fetch_add(1, Ordering::SeqCst) < budget { Ok(()) } else { then() });
    (hook, count)
}

#[test]
fn a_disk_that_fills_up_at_any_step_loses_nothing() {
    let scratch = directory();
    let states = expected_states(scratch.path());
    let mut full = 0;
    for budget in (0..).step_by(stride(7)) {
        let directory = directory();
        let path = directory.path().join("store");
        let (hook, count) = limited(budget, || Err(io::ErrorKind::StorageFull.into()));
        let mut done = 0;
        let outcome = StoreOptions::new().io_hook(hook).open(&path).and_then(|store| {
            for number in 0..STEPS {
                step(&store, scratch.path(), number)?;
                done += 1;
            }
            Ok(())
        });
        match outcome {
            Err(Error::DiskFull { .. }) => full += 1,
            // The database reports some failures in its own words.
            Err(Error::Catalogue { .. }) | Ok(()) => {}
            Err(other) => panic!("budget {budget}: {other}"),
        }
        check(&path, scratch.path(), &states, done, budget % 5 == 0);
        if count.load(Ordering::SeqCst) <= budget {
            break;
        }
    }
    assert!(full > 30, "{full} runs met a full disk");
}

#[test]
#[ignore = "a child process of other tests"]
fn child_that_works() {
    let Some(path) = own_store() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let scratch = std::env::var_os("LLOCO_TEST_SCRATCH").unwrap();
    let mut options = StoreOptions::new().wait(Duration::from_secs(20));
    if let Some(budget) = number("LLOCO_TEST_BUDGET") {
        options = options.io_hook(limited(budget, || std::process::abort()).0);
    }
    let store = options.open(path).unwrap();
    for done in number("LLOCO_TEST_START").unwrap_or(0)..STEPS {
        step(&store, Path::new(&scratch), done).unwrap();
        println!("did {}", done + 1);
        io::stdout().flush().unwrap();
    }
    println!("did all");
}

/// The number of steps that a child acknowledged, and whether it made all.
fn acknowledged(output: impl io::Read) -> (usize, bool) {
    let lines = BufReader::new(output).lines().map_while(io::Result::ok);
    let words: Vec<String> = lines.filter_map(|line| Some(line.split_once("did ")?.1.to_owned())).collect();
    (words.iter().filter_map(|word| word.parse().ok()).max().unwrap_or(0), words.iter().any(|word| word == "all"))
}

#[test]
fn a_writer_that_dies_at_any_step_loses_nothing() {
    let scratch = directory();
    let states = expected_states(scratch.path());
    let mut deaths = 0;
    for budget in (0..).step_by(stride(7)) {
        let directory = directory();
        let path = directory.path().join("store");
        let mut command = child("crash::child_that_works", &path);
        command.env("LLOCO_TEST_SCRATCH", scratch.path()).env("LLOCO_TEST_BUDGET", budget.to_string());
        let output = command.stderr(Stdio::null()).output().unwrap();
        let (done, all) = acknowledged(output.stdout.as_slice());
        check(&path, scratch.path(), &states, done, budget % 5 == 0);
        if all {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 30, "{deaths} children died");
}

#[test]
fn a_writer_killed_at_random_instants_loses_nothing() {
    let scratch = directory();
    let states = expected_states(scratch.path());
    let wanted: u32 = std::env::var("LLOCO_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut path, mut start) = (directory(), 0);
    let (mut killed_at_work, mut children) = (0, 0);
    let mut lifetime = Duration::from_millis(10);
    while killed_at_work < wanted {
        let mut command = child("crash::child_that_works", path.path());
        command.env("LLOCO_TEST_SCRATCH", scratch.path()).env("LLOCO_TEST_START", start.to_string());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(lifetime.mul_f64((random >> 40) as f64 / (1 << 24) as f64));
        child.kill().unwrap();
        let (done, all) = acknowledged(child.stdout.take().unwrap());
        child.wait().unwrap();
        start = start.max(done);
        // The same store lives through many deaths, until its work is finished.
        check(path.path(), scratch.path(), &states, start, all);
        if all {
            (path, start) = (directory(), 0);
        }
        // Children should live about as long as they have work to do, however fast the machine.
        if done > 0 && !all {
            killed_at_work += 1;
        } else {
            lifetime = lifetime.mul_f64(if all { 0.9 } else { 1.1 });
        }
        children += 1;
        assert!(children < 40 * wanted, "{killed_at_work} of {children} children were killed at work");
    }
}
