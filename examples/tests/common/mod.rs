//! Running the example programs as a user does.
#![allow(clippy::unwrap_used, dead_code, reason = "a test fails by panicking, and not every test uses all of this")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// Runs an example to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    start(program, arguments).wait_with_output().unwrap()
}

/// Starts an example that was built with this test; `cargo test` and `cargo nextest run` build both.
pub(crate) fn start(program: &str, arguments: &[&str]) -> Child {
    let tests = env::current_exe().unwrap();
    let path =
        tests.parent().unwrap().with_file_name("examples").join(program).with_extension(env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is missing: cargo build -p lloco-examples --examples", path.display());
    let mut command = Command::new(path);
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The one line of JSON that an example prints; it must succeed.
pub(crate) fn json(program: &str, arguments: &[&str]) -> Value {
    let output = run(program, &[arguments, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{program} printed: {text}");
    serde_json::from_str(&text).unwrap()
}

/// What an example says when it fails: with code 1, on the standard error stream alone, without a panic.
pub(crate) fn failure(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{program} {arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{program} printed something besides: {text}");
    assert!(text.contains("error: ") && !text.contains("panicked"), "{text}");
    text
}

/// A path below the repository's root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A directory with a tiny model that has a tokenizer, of one token a byte.
pub(crate) fn model_with_tokenizer(directory: &Path) -> PathBuf {
    let (golden, model) = (repository("testdata/goldens/smollm-gqa-tied"), directory.join("model"));
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), model.join(name)).unwrap();
    }
    fs::copy(repository("examples/tests/data/byte-tokenizer.json"), model.join("tokenizer.json")).unwrap();
    model
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
