//! Threads that help with runs, one after another.
//!
//! A run of a small network takes some milliseconds, and so may waking a thread that sleeps, on a virtual CPU
//! that has halted. So threads that have helped with a run watch for the next one for a while, and sleep only
//! then. The thread that asks for help works, too, and waits for none: who wakes when all is done does
//! nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread watches for the next call before it sleeps.
const WATCH: Duration = Duration::from_millis(5);

/// What helpers do, each told its number, from 1.
type Job<'j> = dyn Fn(usize) + Sync + 'j;

/// Threads that wait for calls.
#[derive(Debug, Default)]
pub(super) struct Crew {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a job is handed over.
#[derive(Debug, Default)]
struct Desk {
    /// How many calls there were.
    calls: AtomicUsize,
    is_over: AtomicBool,
    job: Mutex<Option<Handed>>,
    /// How many threads have taken the job and are not done with it. It grows only while `job` is locked.
    busy: AtomicUsize,
    has_failed: AtomicBool,
}

/// A job that lives until nobody is busy with it.
#[derive(Clone, Copy, Debug)]
struct Handed {
    job: *const Job<'static>,
    /// The number of the call that it is of. Who is late for one call may take the job of the next before it
    /// is called out, and must not take it again.
    call: usize,
}

// SAFETY: what it points to is `Sync`, so other threads may call it.
unsafe impl Send for Handed {}

impl Desk {
    fn job(&self) -> MutexGuard<'_, Option<Handed>> {
        // It is put and taken whole, whatever panics.
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a call after the last one that was seen, and gives its number, unless there will be none.
    fn next_call(&self, seen: usize) -> Option<usize> {
        let mut since = Instant::now();
        loop {
            if self.is_over.load(Ordering::Acquire) {
                return None;
            }
            let calls = self.calls.load(Ordering::Acquire);
            if calls > seen {
                return Some(calls);
            }
            if since.elapsed() < WATCH {
                std::hint::spin_loop();
            } else {
                std::thread::park();
                since = Instant::now();
            }
        }
    }

    /// Does the jobs of all calls, as the helper of a number.
    fn serve(&self, number: usize) {
        let mut seen = 0;
        while let Some(call) = self.next_call(seen) {
            seen = call;
            let taken = {
                let job = self.job();
                self.busy.fetch_add(usize::from(job.is_some()), Ordering::Relaxed);
                *job
            };
            if let Some(Handed { job, call }) = taken {
                seen = call;
                let _busy = Busy(self);
                // SAFETY: who handed it over waits until nobody is busy.
                unsafe { (*job)(number) };
            }
        }
    }
}

/// A thread that has taken the job.
struct Busy<'d>(&'d Desk);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.has_failed.fetch_or(std::thread::panicking(), Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

/// A job that is on the desk: nobody takes it or works at it when this is gone.
struct OnDesk<'d>(&'d Desk);

impl Drop for OnDesk<'_> {
    fn drop(&mut self) {
        *self.0.job() = None;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
    }
}

impl Crew {
    /// How many threads it has.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Gives it that many threads, or as many as the system has to give, if it has fewer.
    pub(super) fn grow(&mut self, threads: usize) {
        for number in self.threads.len() + 1..=threads {
            let desk = Arc::clone(&self.desk);
            let thread = std::thread::Builder::new().name(format!("strata-run-{number}"));
            let Ok(thread) = thread.spawn(move || desk.serve(number)) else { return };
            self.threads.push(thread);
        }
    }

    /// Leads, while those threads that are awake in time help.
    ///
    /// # Panics
    /// If a helper has.
    pub(super) fn work(&mut self, help: &Job<'_>, lead: impl FnOnce()) {
        // SAFETY: it is called by threads that are busy only, and there are none when `OnDesk` is gone.
        let job = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(help) };
        let desk = &*self.desk;
        let on_desk = OnDesk(desk);
        let call = desk.calls.load(Ordering::Relaxed) + 1;
        *desk.job() = Some(Handed { job, call });
        desk.calls.store(call, Ordering::Release);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        lead();
        drop(on_desk);
        assert!(!desk.has_failed.load(Ordering::Relaxed), "a thread of the run has failed");
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.desk.is_over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // One that has panicked has told so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_done_when_work_returns() {
        let mut crew = Crew::default();
        crew.grow(3);
        for round in 0..200usize {
            let sums: Vec<_> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            let helped = AtomicUsize::new(0);
            let wants_all = round % 2 == 0;
            crew.work(
                &|number| {
                    sums[number].fetch_add(round, Ordering::Relaxed);
                    helped.fetch_add(1, Ordering::Release);
                },
                || {
                    while wants_all && helped.load(Ordering::Acquire) < 3 {
                        std::thread::yield_now();
                    }
                },
            );
            let sums: Vec<usize> = sums.into_iter().map(AtomicUsize::into_inner).collect();
            let helped = helped.into_inner();
            assert_eq!(sums.iter().sum::<usize>(), helped * round);
            assert!(!wants_all || helped == 3);
            if round % 50 == 0 {
                // Longer than they watch.
                std::thread::sleep(2 * WATCH);
            }
        }
    }

    #[test]
    fn a_helper_that_panics_is_told() {
        let mut crew = Crew::default();
        crew.grow(1);
        let has_begun = AtomicBool::new(false);
        let work = || {
            crew.work(
                &|_| {
                    has_begun.store(true, Ordering::Release);
                    panic!("as the test wants it");
                },
                || {
                    while !has_begun.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                },
            );
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
