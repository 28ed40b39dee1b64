//! Curves over the steps of a run, as an SVG.

use std::collections::BTreeMap;

use plotters::prelude::*;

/// Most points of a curve; each is the mean of the steps that it stands for.
const POINTS: usize = 400;

/// Draws curves of points (step, value) under their names.
pub(super) fn plot(curves: &BTreeMap<String, Vec<(f64, f64)>>) -> Result<String, String> {
    let curves: Vec<(&String, Vec<(f64, f64)>)> = curves.iter().map(|(name, curve)| (name, thinned(curve))).collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve.iter());
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) = points().fold((0.0f64, 1e-3f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (960, 540)).into_drawing_area();
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
        root.present().map_err(text)?;
    }
    Ok(svg)
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
