//! Disks that are really full, and files that really cannot grow.
#![cfg(unix)]

use std::process::{Command, Stdio};

use lloco_core::Error;
use lloco_core::store::{LocalStore, NewDocument, Store};

use crate::open::{child, own_store};
use crate::{compress, directory, encoder};

/// The same child, run by a shell that first does something.
fn through_shell(shell: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", shell]).arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.stdin(Stdio::null());
    wrapped
}

/// Adds documents until one does not fit; the store goes on with those that do.
#[test]
#[ignore = "a child process of other tests"]
fn child_that_runs_out_of_space() {
    let Some(path) = own_store() else { return };
    let (store, encoder) = (LocalStore::open(path).unwrap(), encoder());
    store.add(&NewDocument::new("first", "A short text")).unwrap();
    compress(&store, &encoder);
    let large = |i: usize| format!("{i} {}", "and so on ".repeat(700_000));
    let error = (0..100).find_map(|i| store.add(&NewDocument::new(&format!("{i}"), &large(i))).err()).unwrap();
    println!("error: {error}");
    let kind = if matches!(error, Error::DiskFull { .. }) { "full" } else { "other" };
    assert!(matches!(error, Error::DiskFull { .. } | Error::Io { .. }), "{error}");
    let stored = store.documents(None).unwrap();
    for document in stored.iter().filter(|document| document.id != "first") {
        assert!(store.remove(&document.id).unwrap());
    }
    assert!(store.verify().unwrap().is_empty());
    store.add(&NewDocument::new("last", "Another short text")).unwrap();
    compress(&store, &encoder);
    assert_eq!(store.stats().unwrap().compressed, 2);
    assert_eq!(store.compact().unwrap().files, 0, "the text that did not fit left nothing");
    println!("finished after {kind}");
}

#[test]
fn a_file_that_cannot_grow_is_an_error_and_the_store_goes_on() {
    let directory = directory();
    let command = child("disk::child_that_runs_out_of_space", &directory.path().join("store"));
    // A limit on the size of files, above the catalogue's and below the text's.
    let shell = r#"trap "" XFSZ; ulimit -f 6000; exec "$0" "$@""#;
    let output = through_shell(shell, &command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("finished"), "{text}");
}

#[test]
fn a_full_disk_is_an_error_and_the_store_goes_on() {
    let directory = directory();
    let command = child("disk::child_that_runs_out_of_space", &directory.path().join("store"));
    let mount = format!("mount -t tmpfs -o size=12m none '{}'", directory.path().display());
    let mut probe = Command::new("unshare");
    let allowed = probe.args(["-m", "sh", "-c", &mount]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this user may not mount a small file system to fill up");
        return;
    }
    let shell = format!(r#"exec unshare -m sh -c '{} && exec "$0" "$@"' "$0" "$@""#, mount.replace('\'', "\""));
    let output = through_shell(&shell, &command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("finished after full"), "{text}");
}
