//! Threads that stand ready between the kernels of a pass, or of the way back.
//!
//! A decoding step is some three hundred products of a few dozen microseconds each: waking sleeping threads for every
//! one takes longer than the work. [`ready`] wakes rayon's threads once; until it ends they ask for work in a loop, and
//! [`each`] hands it to them without a system call.

use rayon::prelude::*;
use std::any::Any;
use std::cell::Cell;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

thread_local! {
    /// The crew that waits for this thread's work; null where there is none. Set by [`Held`] alone.
    static CREW: Cell<*const Crew> = const { Cell::new(ptr::null()) };
}

/// Whether there is a crew.
static STANDING: AtomicBool = AtomicBool::new(false);

/// Runs `work(0)` to `work(tasks - 1)`, in parallel if there are several.
pub(crate) fn each(tasks: usize, work: impl Fn(usize) + Sync) {
    match (tasks, CREW.get()) {
        (0, _) => {}
        (1, _) => work(0),
        (_, crew) if crew.is_null() && rayon::current_num_threads() == 1 => (0..tasks).for_each(work),
        (_, crew) if crew.is_null() => (0..tasks).into_par_iter().for_each(&work),
        // SAFETY: `Held` keeps the crew alive for as long as the pointer is there.
        (_, crew) => unsafe { &*crew }.share(tasks, &work),
    }
}

/// Whether threads stand ready for this one: sharing out a few microseconds' work pays then.
pub(crate) fn stands_ready() -> bool {
    !CREW.get().is_null()
}

/// Runs `work` on this thread with rayon's other threads standing ready, all but one if this is not one of them, unless they
/// are more than the cores or stand ready for somebody else. What else uses rayon gets on meanwhile only as far as there is
/// a thread left, or no work here for [`PATIENCE`].
pub(crate) fn ready<R>(work: impl FnOnce() -> R) -> R {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get));
    // More threads than cores would wait in each other's way.
    if rayon::current_num_threads() > cores { work() } else { stand_ready(work) }
}

fn stand_ready<R>(work: impl FnOnce() -> R) -> R {
    let threads = rayon::current_num_threads();
    // With one thread nothing is handed over. And two crews at a time would take each other's threads.
    if stands_ready() || threads == 1 || STANDING.swap(true, Ordering::Acquire) {
        return work();
    }
    let crew = Arc::new(Crew::new(threads - 1));
    let serving = Arc::clone(&crew);
    let _held = Held::new(&crew);
    rayon::spawn_broadcast(move |_| serving.serve());
    work()
}

/// Not there yet.
const ABSENT: u8 = 0;
/// Asking for work.
const IDLE: u8 = 1;
/// At work.
const WORK: u8 = 2;
/// No longer wanted.
const CLOSED: u8 = 3;

/// The place of one thread. Only a thread that serves goes from [`ABSENT`] or [`WORK`] to [`IDLE`], and from there away for
/// good when nothing comes; all else is done by the owner.
struct Seat {
    state: AtomicU8,
    job: AtomicPtr<Job<'static>>,
}

struct Crew {
    seats: Vec<Seat>,
}

impl Crew {
    fn new(threads: usize) -> Self {
        let seat = || Seat { state: AtomicU8::new(ABSENT), job: AtomicPtr::new(ptr::null_mut()) };
        Self { seats: (0..threads).map(|_| seat()).collect() }
    }

    /// Takes a free place, if there is one, and works until the owner has no more.
    fn serve(&self) {
        // The owner may come by while it waits for something else of rayon's.
        if CREW.get() == ptr::from_ref(self) {
            return;
        }
        let take =
            |seat: &&Seat| seat.state.compare_exchange(ABSENT, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let Some(seat) = self.seats.iter().find(take) else { return };
        let (mut waited, mut since) = (0, Instant::now());
        loop {
            match seat.state.load(Ordering::Acquire) {
                WORK => {
                    // SAFETY: `share` set the job before the state, and keeps it until the state is `IDLE` again.
                    unsafe { &*seat.job.load(Ordering::Relaxed) }.run();
                    seat.state.store(IDLE, Ordering::Release);
                    (waited, since) = (0, Instant::now());
                }
                CLOSED => return,
                // This thread may stand in the way of what the owner waits for.
                _ if waited > SPINS && since.elapsed() > PATIENCE => {
                    if seat.state.compare_exchange(IDLE, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        return;
                    }
                }
                _ => wait(&mut waited),
            }
        }
    }

    /// Shares tasks out among this thread and all that stand ready.
    fn share(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let job = Job { work, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        {
            let _done = Done(self);
            let pointer = ptr::from_ref(&job).cast_mut().cast();
            for seat in &self.seats {
                if seat.state.load(Ordering::Acquire) == IDLE {
                    seat.job.store(pointer, Ordering::Relaxed);
                    // It may just be leaving.
                    let _ = seat.state.compare_exchange(IDLE, WORK, Ordering::AcqRel, Ordering::Acquire);
                }
            }
            job.run();
        }
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

/// Tasks that several threads take one by one.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn run(&self) {
        let all = || {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= self.tasks {
                    return;
                }
                (self.work)(task);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            self.next.store(self.tasks, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

/// Waits, in the end, until no thread is at work: then nothing refers to the job any more.
struct Done<'a>(&'a Crew);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut waited = 0;
        while self.0.seats.iter().any(|seat| seat.state.load(Ordering::Acquire) == WORK) {
            wait(&mut waited);
        }
    }
}

/// Makes a crew this thread's own, and sends it away in the end.
struct Held<'a>(&'a Crew);

impl<'a> Held<'a> {
    fn new(crew: &'a Crew) -> Self {
        CREW.set(crew);
        Self(crew)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        CREW.set(ptr::null());
        self.0.seats.iter().for_each(|seat| seat.state.store(CLOSED, Ordering::Release));
        STANDING.store(false, Ordering::Release);
    }
}

/// Looks for work before the system is asked what it has to do for others.
const SPINS: u32 = 4096;

/// Without work for so long, a thread leaves.
const PATIENCE: Duration = Duration::from_millis(10);

/// A moment: short at first, then whatever the system has to do for others.
fn wait(waited: &mut u32) {
    *waited = waited.saturating_add(1);
    if *waited < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                stand_ready(|| {
                    for tasks in 0..300 {
                        let seen: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                        each(tasks, |task| {
                            seen[task].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
                    }
                });
            });
        }
    }

    #[test]
    fn within_each_other_and_beside_each_other() {
        let pool = pool(3);
        let sum = |_| {
            let total = AtomicUsize::new(0);
            stand_ready(|| {
                stand_ready(|| {
                    each(8, |a| {
                        each(8, |b| {
                            total.fetch_add(a * b, Ordering::Relaxed);
                        });
                    });
                });
            });
            total.into_inner()
        };
        assert_eq!(pool.install(|| (0..64).into_par_iter().map(sum).collect::<Vec<_>>()), [28 * 28; 64]);
        let threads: Vec<usize> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..4).map(|i| scope.spawn(move || sum(i))).collect();
            started.into_iter().map(|thread| thread.join().expect("a sum")).collect()
        });
        assert_eq!(threads, [28 * 28; 4]);
    }

    #[test]
    fn more_threads_than_cores_do_not_stand_ready() {
        let cores = available_parallelism().map_or(1, NonZero::get);
        assert!(!pool(cores + 1).install(|| ready(stands_ready)));
        // Another test's crew may be in the way for a moment.
        let started = Instant::now();
        let tries = || (0..).take_while(|_| started.elapsed() < Duration::from_secs(20));
        let found = cores > 1 && pool(cores).install(|| tries().any(|_| ready(stands_ready)));
        assert_eq!(found, cores > 1);
    }

    #[test]
    fn a_panic_reaches_the_owner_when_all_are_done() {
        let caught = catch_unwind(|| stand_ready(|| each(100, |task| assert_ne!(task, 50, "fifty"))));
        assert!(caught.is_err() && !stands_ready());
    }

    #[test]
    fn threads_leave_an_owner_without_work() {
        let pool = pool(2);
        // The owner waits for what only the thread that serves it can do.
        let done = pool.install(|| {
            stand_ready(|| {
                let (to, from) = std::sync::mpsc::channel();
                rayon::spawn(move || to.send(()).expect("somebody waits"));
                from.recv_timeout(Duration::from_secs(20)).is_ok()
            })
        });
        assert!(done);
    }
}
