//! A child process that is killed, or whose files cannot grow: an ignored test of the same program, by itself.

use std::{
    env,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Names the test's directory to the child.
const DIR: &str = "LLOCO_TEST_DIR";

/// The directory of the test that started this process; `None` where none did.
pub(crate) fn dir() -> Option<PathBuf> {
    env::var_os(DIR).map(PathBuf::from)
}

/// Where the child writes down a line a step, the step and the bits of its loss.
pub(crate) fn log(dir: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(dir.join("losses")).unwrap()
}

/// Steps and losses so far; a line cut short by the kill is left out.
pub(crate) fn losses(dir: &Path) -> Vec<(usize, u64)> {
    let text = fs::read_to_string(dir.join("losses")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| line.split_once(' ').map(|(step, loss)| (step.parse().unwrap(), loss.parse().unwrap()));
    whole.lines().filter_map(parse).collect()
}

/// Starts the test `child` until `end` is there and kills it `kills` times, each time some `steps` further, at a moment
/// that differs from one round to the next.
pub(crate) fn killed(child: &str, dir: &Path, end: &Path, kills: u64, steps: usize) {
    let mut done = 0;
    while !end.exists() {
        let before = losses(dir).len();
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", child, "--ignored"])
            .env(DIR, dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while losses(dir).len() < before + steps && process.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "the child does nothing");
            thread::sleep(Duration::from_millis(1));
        }
        if done < kills {
            thread::sleep(Duration::from_micros(3100 * done));
            process.kill().unwrap();
            process.wait().unwrap();
            done += 1;
        } else {
            assert!(process.wait().unwrap().success() && end.exists());
        }
    }
    assert_eq!(done, kills);
}

/// Runs the test `child`, which must succeed, where no file can grow beyond so many blocks of 512 bytes, or of 1,024 as some
/// shells count. Returns what it printed.
#[cfg(unix)]
pub(crate) fn on_a_full_disk(child: &str, dir: &Path, blocks: u64) -> String {
    let shell = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$0" "$@""#);
    let mut command = Command::new("sh");
    command.args(["-c", &shell]).arg(env::current_exe().unwrap());
    command.args(["--exact", child, "--ignored", "--nocapture"]).env(DIR, dir).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}
