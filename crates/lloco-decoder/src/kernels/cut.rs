//! How products are cut into tasks: runs of rows times runs of panels.

use super::crew;
use super::simd::LANES;
use std::ops::Range;

/// Multiplications that make a task worth handing to a thread that sleeps.
const ASLEEP: usize = 1 << 18;

/// As [`ASLEEP`], to a thread that stands ready.
const READY: usize = 1 << 16;

/// How one product is cut.
pub(crate) struct Cut {
    rows: usize,
    row_step: usize,
    panels: usize,
    panel_step: usize,
}

impl Cut {
    /// Tasks of about `at_once` rows and so many panels, multiples of `multiples`, that there are enough to share out evenly
    /// and none is tiny.
    pub(crate) fn new([rows, k, n]: [usize; 3], at_once: usize, multiples: [usize; 2]) -> Self {
        let panels = n.div_ceil(LANES);
        let row_step = at_once.max(1).next_multiple_of(multiples[0]).min(rows);
        let wanted = (4 * rayon::current_num_threads()).div_ceil(rows.div_ceil(row_step));
        let worth = (row_step * k * n).div_ceil(if crew::stands_ready() { READY } else { ASLEEP });
        let panel_step = panels.div_ceil(wanted.min(worth)).next_multiple_of(multiples[1]);
        Self { rows, row_step, panels, panel_step }
    }

    /// The product that `task(rows, panels)` computes piece by piece.
    pub(crate) fn work<'a>(self, task: impl Fn(Range<usize>, Range<usize>) + Sync + 'a) -> Work<'a> {
        let across = self.panels.div_ceil(self.panel_step);
        let tasks = self.rows.div_ceil(self.row_step) * across;
        let run = move |t: usize| {
            let (row, panel) = (t / across * self.row_step, t % across * self.panel_step);
            task(row..self.rows.min(row + self.row_step), panel..self.panels.min(panel + self.panel_step));
        };
        Work { tasks, run: Box::new(run) }
    }
}

/// A product that is still to be computed.
#[must_use]
pub(crate) struct Work<'a> {
    tasks: usize,
    run: Box<dyn Fn(usize) + Sync + 'a>,
}

impl Work<'_> {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self { tasks: 0, run: Box::new(|_| {}) }
    }

    /// Computes it, in parallel if it has several tasks.
    pub(crate) fn run(self) {
        crew::each(self.tasks, self.run);
    }

    /// Computes several as one: between two of them no thread waits for another.
    pub(crate) fn run_together<const N: usize>(all: [Self; N]) {
        let tasks = all.iter().map(|work| work.tasks).sum();
        crew::each(tasks, |mut task| {
            for work in &all {
                if task < work.tasks {
                    return (work.run)(task);
                }
                task -= work.tasks;
            }
        });
    }
}
