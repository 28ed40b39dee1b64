//! The device that benches run on: the argument `--device NAME`, else the variable `LLOCO_DEVICE`, else the CPU.

use std::{
    env,
    process::{Command, ExitCode},
};

use criterion::Criterion;
use lloco_core::Device;

use crate::Result;

const ARGUMENT: &str = "--device";
const VARIABLE: &str = "LLOCO_DEVICE";

/// The device that was asked for.
///
/// # Errors
/// For an unknown name, or a device whose feature is not compiled in.
pub fn device() -> Result<Device> {
    Ok(lloco_core::device(&name()?).map_err(|error| error.to_string())?)
}

/// The arguments of this program without `--device` and its name.
///
/// # Errors
/// When no name follows `--device`.
pub fn arguments() -> Result<Vec<String>> {
    Ok(split(env::args().skip(1))?.1)
}

/// This program with other arguments, on the same device.
///
/// # Errors
/// When no name follows `--device`, or the system does not tell where the program is.
pub fn again(arguments: &[String]) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).env(VARIABLE, name()?);
    Ok(command)
}

/// The `main` of a criterion bench.
///
/// Criterion reads the arguments by itself and refuses those that it does not know: behind `--device` the program starts
/// itself again without it.
///
/// # Errors
/// For a device that is not there.
pub fn run(bench: impl FnOnce(&mut Criterion)) -> Result<ExitCode> {
    device()?;
    if let (Some(_), others) = split(env::args().skip(1))? {
        let code = again(&others)?.status()?.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    bench(&mut Criterion::default().configure_from_args());
    Criterion::default().configure_from_args().final_summary();
    Ok(ExitCode::SUCCESS)
}

fn name() -> Result<String> {
    let (named, _) = split(env::args().skip(1))?;
    Ok(named.or_else(|| env::var(VARIABLE).ok()).unwrap_or_else(|| "cpu".into()))
}

/// The name behind `--device` or `--device=`, the last if there are several, and all other arguments.
fn split(arguments: impl Iterator<Item = String>) -> Result<(Option<String>, Vec<String>)> {
    let (mut name, mut others, mut arguments) = (None, Vec::new(), arguments);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(ARGUMENT) {
            Some("") => name = Some(arguments.next().ok_or("--device: expected a name, such as cpu or cuda")?),
            Some(rest) if rest.starts_with('=') => name = Some(rest[1..].into()),
            _ => others.push(argument),
        }
    }
    Ok((name, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_of(line: &str) -> Result<(Option<String>, Vec<String>)> {
        split(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_device_is_taken_out_and_the_rest_stays_in_order() -> Result<()> {
        for line in ["--bench --device cuda decode", "--bench decode --device=cuda"] {
            assert_eq!(split_of(line)?, (Some("cuda".into()), vec!["--bench".into(), "decode".into()]), "{line}");
        }
        assert_eq!(split_of("--devices 2")?, (None, vec!["--devices".into(), "2".into()]));
        Ok(())
    }

    #[test]
    fn a_device_without_a_name_is_an_error() {
        assert!(split_of("decode --device").is_err());
    }
}
