//! Opening: creation, versions, locks between handles and processes, read-only directories.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lloco_core::Error;
use lloco_core::store::{FORMAT_VERSION, LocalStore, NewDocument, Store, StoreOptions};

use crate::{compress, encoder, files, seen};

#[test]
fn directories_that_are_no_store_are_left_alone() {
    let directory = crate::directory();
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "mine").unwrap();
    let error = LocalStore::open(&other).unwrap_err();
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert_eq!(files(&other), ["thesis.txt"]);
    for path in [directory.path().join("missing"), other] {
        let error = StoreOptions::new().create(false).open(&path).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        assert!(matches!(LocalStore::open_read_only(&path), Err(Error::NotAStore { .. })));
    }
    assert!(!directory.path().join("missing").exists());
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(LocalStore::open(&file).is_err());
}

#[test]
fn a_lost_catalogue_is_not_replaced_by_an_empty_one() {
    let directory = crate::directory();
    LocalStore::open(directory.path()).unwrap().add(&NewDocument::new("a", "text")).unwrap();
    fs::remove_file(directory.path().join("catalog.redb")).unwrap();
    let error = LocalStore::open(directory.path()).unwrap_err();
    assert!(matches!(&error, Error::Catalogue { reason, .. } if reason.contains("missing")), "{error}");
}

#[test]
fn a_store_from_the_future_is_refused() {
    let directory = crate::directory();
    let path = directory.path();
    drop(LocalStore::open(path).unwrap());
    let future = FORMAT_VERSION + 1;
    let refused = |place: &str| {
        for error in [LocalStore::open(path).unwrap_err(), LocalStore::open_read_only(path).unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(error, Error::FutureFormat { found, supported: FORMAT_VERSION, .. } if found == future));
            assert!(text.contains(place) && text.contains("upgrade"), "{text}");
        }
    };
    // In the catalogue.
    {
        let mut builder = redb::Builder::new();
        builder.set_concurrency_mode(redb::ConcurrencyMode::SingleWriter);
        let catalogue = builder.open(path.join("catalog.redb")).unwrap();
        let write = catalogue.begin_write().unwrap();
        write.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("version", future).unwrap();
        write.commit().unwrap();
    }
    refused("catalog.redb");
    // In the file that says what the directory is, whatever else lies there.
    let stamp = format!(r#"{{"format":"lloco-store","version":{future},"more":[1]}}"#);
    fs::write(path.join("format.json"), stamp).unwrap();
    refused("format.json");
    for stamp in ["", "{}", r#"{"format":"other","version":1}"#, r#"{"format":"lloco-store","version":0}"#] {
        fs::write(path.join("format.json"), stamp).unwrap();
        assert!(matches!(LocalStore::open(path), Err(Error::Damaged { .. })), "{stamp}");
    }
}

#[test]
fn one_writer_and_readers_beside_it() {
    let directory = crate::directory();
    let (path, encoder) = (directory.path(), encoder());
    let writer = LocalStore::open(path).unwrap();
    writer.add(&NewDocument::new("a", "First text")).unwrap();
    let error = LocalStore::open(path).unwrap_err();
    assert!(matches!(&error, Error::StoreLocked { path: named, .. } if named == path), "{error}");

    let reader = LocalStore::open_read_only(path).unwrap();
    let second_reader = LocalStore::open_read_only(path).unwrap();
    assert_eq!(seen(&reader), seen(&writer));
    compress(&writer, &encoder);
    writer.add(&NewDocument::new("b", "Second text")).unwrap();
    for reader in [&reader, &second_reader] {
        assert_eq!(seen(reader), seen(&writer), "readers follow the writer");
        for error in [
            reader.add(&NewDocument::new("c", "x")).unwrap_err(),
            reader.remove("a").unwrap_err(),
            reader.compact().unwrap_err(),
            reader.put_index("x", b"x").unwrap_err(),
            reader.put_adapter("g", &crate::adapter(&std::env::temp_dir(), b"w")).unwrap_err(),
        ] {
            assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        }
    }

    // A second writer may wait.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| StoreOptions::new().wait(Duration::from_secs(20)).open(path).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        drop(writer);
        assert_eq!(waiting.join().unwrap().stats().unwrap().documents, 2);
    });
}

#[test]
fn many_may_create_the_same_store() {
    let directory = crate::directory();
    let path = directory.path().join("store");
    std::thread::scope(|scope| {
        for i in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let store = StoreOptions::new().wait(Duration::from_secs(20)).open(path).unwrap();
                store.add(&NewDocument::new(&format!("{i}"), "text")).unwrap();
            });
        }
    });
    assert_eq!(LocalStore::open(&path).unwrap().stats().unwrap().documents, 4);
}

/// Runs the ignored test `name` of this file in a process of its own, on the store at `path`.
pub(crate) fn child(name: &str, path: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture"]).env("LLOCO_TEST_STORE", path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The store that this process works on as a child, if it is one.
pub(crate) fn own_store() -> Option<std::path::PathBuf> {
    std::env::var_os("LLOCO_TEST_STORE").map(Into::into)
}

/// Waits until a child says a word.
pub(crate) fn wait_for(child: &mut Child, word: &str) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with(word)), "the child never said {word}");
}

#[test]
#[ignore = "a child process of other tests"]
fn child_that_holds_the_store() {
    let Some(path) = own_store() else { return };
    let store = LocalStore::open(path).unwrap();
    store.add(&NewDocument::new("of the child", "text")).unwrap();
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn another_process_locks_until_it_is_killed() {
    let directory = crate::directory();
    let mut child = child("open::child_that_holds_the_store", directory.path()).spawn().unwrap();
    wait_for(&mut child, "ready");
    assert!(matches!(LocalStore::open(directory.path()), Err(Error::StoreLocked { .. })));
    let reader = LocalStore::open_read_only(directory.path()).unwrap();
    assert_eq!(reader.stats().unwrap().documents, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reader.stats().unwrap().documents, 1, "an open reader goes on");
    // A new reader cannot repair anything, and says who can.
    let error = LocalStore::open_read_only(directory.path()).unwrap_err();
    assert!(matches!(error, Error::NotClosed { .. }) && error.to_string().contains("once for writing"), "{error}");
    let started = Instant::now();
    let writer = LocalStore::open(directory.path()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(writer.stats().unwrap().documents, 1);
    drop(writer);
    assert_eq!(LocalStore::open_read_only(directory.path()).unwrap().stats().unwrap().documents, 1);
}

#[cfg(unix)]
#[test]
#[ignore = "a child process of other tests"]
fn child_without_the_right_to_write() {
    let Some(path) = own_store() else { return };
    let encoder = encoder();
    let store = LocalStore::open_read_only(&path).unwrap();
    assert_eq!(store.summary("a", &encoder).unwrap().rows(), 4);
    assert!(store.verify().unwrap().is_empty());
    drop(store);
    let error = LocalStore::open(&path).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    println!("finished");
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_can_be_read() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let directory = crate::directory();
    let root = directory.path().join("store");
    {
        let store = LocalStore::open(&root).unwrap();
        store.add(&NewDocument::new("a", "Eight!!!")).unwrap();
        compress(&store, &encoder());
    }
    let mode = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(directory.path(), 0o755);
    let mut queue = vec![root.clone()];
    let mut all = queue.clone();
    while let Some(path) = queue.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            all.push(path.clone());
            if path.is_dir() {
                queue.push(path);
            }
        }
    }
    all.iter().for_each(|path| mode(path, if path.is_dir() { 0o555 } else { 0o444 }));

    // The superuser writes anywhere: then the child is somebody else, with a copy of this program.
    let superuser = fs::write(root.join("probe"), "x").is_ok();
    let mut command = child("open::child_without_the_right_to_write", &root);
    if superuser {
        fs::remove_file(root.join("probe")).unwrap();
        let program = directory.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        mode(&program, 0o755);
        let mut other = Command::new(&program);
        other.args(command.get_args()).env("LLOCO_TEST_STORE", &root).current_dir("/");
        other.stdout(Stdio::piped()).stderr(Stdio::piped()).uid(65534);
        command = other;
    }
    let output = command.output().unwrap();
    all.iter().for_each(|path| mode(path, if path.is_dir() { 0o755 } else { 0o644 }));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("finished"), "{text}");
}

#[test]
fn readers_see_whole_states_while_a_writer_works() {
    let directory = crate::directory();
    let encoder = encoder();
    let texts = ["A first text of some length", "A first text of other length, longer", "Quite another"];
    let states: Vec<Vec<f32>> = texts.iter().map(|text| crate::expected(&encoder, text)).collect();
    let writer = LocalStore::open(directory.path()).unwrap();
    writer.add(&NewDocument::new("a", texts[0])).unwrap();
    compress(&writer, &encoder);
    let finished = std::sync::atomic::AtomicBool::new(false);
    let followed = std::sync::atomic::AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let reader = LocalStore::open_read_only(directory.path()).unwrap();
                let mut seen = std::collections::BTreeSet::new();
                while !finished.load(std::sync::atomic::Ordering::SeqCst) {
                    match reader.summary("a", &encoder) {
                        Ok(rows) => {
                            let state = states.iter().position(|state| state == rows.data());
                            if seen.insert(state.expect("the summary of one text, not of two")) && seen.len() == 2 {
                                followed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            }
                        }
                        Err(Error::DocumentNotFound { .. } | Error::NotCompressed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        // As long as it takes until both readers have followed: on a busy machine they may come late.
        let all = || followed.load(std::sync::atomic::Ordering::SeqCst) == 2;
        for i in (1..).take_while(|&i| i < 60 || (!all() && begun.elapsed() < Duration::from_secs(60))) {
            writer.replace(&NewDocument::new("a", texts[i % 3])).unwrap();
            compress(&writer, &encoder);
            if i % 10 == 0 {
                writer.remove("a").unwrap();
            }
        }
        finished.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(all(), "the readers followed the writer");
    });
}
