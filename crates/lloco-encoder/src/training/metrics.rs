//! What a run has measured: `metrics.jsonl`, a line a step, and the curves in `curves.svg`.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use plotters::prelude::*;
use serde_json::Value;

use crate::{Error, Result};

/// Most points of a curve; each is the mean of the steps that it stands for.
const POINTS: usize = 400;

/// The metrics of a run's directory.
#[derive(Debug)]
pub(crate) struct Metrics {
    dir: PathBuf,
}

impl Metrics {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    /// Adds a line.
    pub(crate) fn append(&self, line: &Value) -> Result<()> {
        let path = self.path();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|source| Error::Io { path, source })
    }

    /// Drops what lies behind `step`: steps that a killed run did after its last checkpoint, and a line cut short.
    pub(crate) fn rewind(&self, step: usize) -> Result<()> {
        let path = self.path();
        if !path.exists() {
            return Ok(());
        }
        let kept: String =
            self.lines()?.into_iter().filter(|line| step_of(line) <= step).map(|line| format!("{line}\n")).collect();
        let io = |source| Error::Io { path: path.clone(), source };
        let mut temporary = tempfile::NamedTempFile::new_in(&self.dir).map_err(io)?;
        temporary.write_all(kept.as_bytes()).map_err(io)?;
        temporary.persist(&path).map_err(|e| io(e.error))?;
        Ok(())
    }

    /// The complete lines.
    fn lines(&self) -> Result<Vec<Value>> {
        let path = self.path();
        let text = fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Draws every loss over the steps.
    pub(crate) fn draw(&self) -> Result<()> {
        let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for line in self.lines()? {
            let losses = line.get("losses").and_then(Value::as_object).into_iter().flatten();
            for (name, value) in losses {
                if let Some(value) = value.as_f64() {
                    curves.entry(name.clone()).or_default().push((step_of(&line) as f64, value));
                }
            }
        }
        let path = self.dir.join("curves.svg");
        let mut svg = String::new();
        plot(&mut svg, &curves).map_err(|detail| Error::Malformed { path: path.clone(), detail })?;
        fs::write(&path, svg).map_err(|source| Error::Io { path, source })
    }
}

fn step_of(line: &Value) -> usize {
    line.get("step").and_then(Value::as_u64).unwrap_or(0) as usize
}

fn plot(svg: &mut String, curves: &BTreeMap<String, Vec<(f64, f64)>>) -> Result<(), String> {
    let curves: Vec<(&String, Vec<(f64, f64)>)> = curves.iter().map(|(name, curve)| (name, thinned(curve))).collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve.iter());
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) = points().fold((0.0f64, 1e-3f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let root = SVGBackend::with_string(svg, (960, 540)).into_drawing_area();
    let text = |error: DrawingAreaErrorKind<_>| format!("{error:?}");
    root.fill(&WHITE).map_err(text)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..last, low..high * 1.05)
        .map_err(text)?;
    chart.configure_mesh().x_desc("step").y_desc("nats a token").draw().map_err(text)?;
    for (index, (name, curve)) in curves.into_iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let series = chart.draw_series(LineSeries::new(curve, &colour)).map_err(text)?;
        series.label(name.as_str()).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw().map_err(text)?;
    root.present().map_err(text)
}

/// Means of equally many neighbours.
fn thinned(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = curve.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|point| point.0).sum::<f64>() / n, part.iter().map(|point| point.1).sum::<f64>() / n)
    };
    curve.chunks(each).map(mean).collect()
}
