//! Progress bars on the standard error stream; none where that is no terminal.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use lloco_core::{Event, Resolver};

const COUNT: &str = "{prefix:>12} {bar:30} {human_pos}/{human_len} {wide_msg} {eta:>4}";
const BYTES: &str = "{prefix:>12} {bar:30} {bytes}/{total_bytes} {wide_msg} {eta:>4}";

/// Finds models, with a bar for what has to be fetched.
pub fn resolver() -> Resolver {
    let bars = Bars::default();
    Resolver::new().on_progress(move |p| bars.show("fetching", BYTES, p.model, p.done, p.total))
}

/// Shows what the long verbs do, and stops them once `stop` is set.
pub fn observer(stop: Arc<AtomicBool>) -> impl Fn(&Event<'_>) -> ControlFlow<()> + Send + Sync + 'static {
    let (bars, pace) = (Bars::default(), Mutex::new(Pace::default()));
    move |event| {
        match *event {
            Event::Compressed { document, done, total } => bars.show("compressing", BYTES, document, done, Some(total)),
            Event::Embedded { done, total } => bars.show("embedding", COUNT, "", done as u64, Some(total as u64)),
            Event::Studied { document, done, total } => bars.show("studying", BYTES, document, done, Some(total)),
            Event::Taught { done, total } => bars.show("reading", COUNT, "", done as u64, Some(total as u64)),
            Event::Evaluated { done, total } => bars.show("asking", COUNT, "", done as u64, Some(total as u64)),
            Event::Finetuned { step, of, loss, positions } => {
                let rate = pace.lock().unwrap_or_else(PoisonError::into_inner).step(Instant::now(), positions);
                let rate = rate.map_or_else(String::new, |rate| format!(", {rate:.0} tokens/s"));
                bars.show("finetuning", COUNT, &format!("loss {loss:.3}{rate}"), step as u64, Some(of as u64));
            }
            Event::HeldOut { step, loss, best } => {
                pace.lock().unwrap_or_else(PoisonError::into_inner).pause(Instant::now());
                bars.say(&format!(
                    "step {step}: held-out loss {loss:.3}{}",
                    if best { ", the best so far" } else { "" }
                ));
            }
            _ => {}
        }
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// A bar for something that is counted in `total` steps.
pub fn bar(what: &'static str, total: u64) -> ProgressBar {
    ProgressBar::new(total).with_style(style(COUNT)).with_prefix(what)
}

/// Positions a second over all steps whose time is known; what happens between them does not count.
#[derive(Default)]
struct Pace {
    /// When the last step, or what came behind it, was done.
    last: Option<Instant>,
    time: Duration,
    positions: usize,
}

impl Pace {
    /// A step of so many positions is done. `None` where its beginning was not seen, as that of the first.
    fn step(&mut self, now: Instant, positions: usize) -> Option<f64> {
        let begun = self.last.replace(now)?;
        self.time += now - begun;
        self.positions += positions;
        Some(self.positions as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// Something other than a step is done.
    fn pause(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

/// One bar at a time, which gives way to the next.
#[derive(Default)]
struct Bars(Mutex<Option<ProgressBar>>);

impl Bars {
    /// A line above the bar.
    fn say(&self, line: &str) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            bar.println(line);
        }
    }

    fn show(&self, what: &'static str, template: &str, message: &str, done: u64, total: Option<u64>) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|bar| bar.prefix() != what)
            && let Some(bar) = current.take()
        {
            bar.finish_and_clear();
        }
        let bar = current.get_or_insert_with(|| bar(what, 0).with_style(style(template)));
        bar.set_message(message.to_owned());
        bar.set_length(total.unwrap_or(done));
        bar.set_position(done);
        if total == Some(done) {
            bar.finish_and_clear();
            *current = None;
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_steps_alone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.step(at(100), 500), None, "nobody knows how long the first step took");
        assert_eq!(pace.step(at(102), 300), Some(150.0));
        pace.pause(at(150));
        assert_eq!(pace.step(at(152), 500), Some(200.0), "looking at held-out questions is no training");
    }
}
