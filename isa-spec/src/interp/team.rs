//! The threads of a run.
//!
//! Waves are short, some tens of microseconds each, so threads do not go to sleep between them: they watch
//! for the next one for a while. One of them leads: it says what the next wave is and computes shares of it
//! like the others. When all shares are computed, each thread writes what it has made, so that it finds it in
//! its own cache when it reads it. Who is late is not waited for, unless it computes a share; others take its
//! shares.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::crew::Crew;
use super::machine::Machine;
use super::prepared::Prepared;
use super::tile::Scratch;
use super::waves::{Shares, StageTile};
use crate::program::Phase;

/// What a run works in, and who helps: left to the next one.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) activation: Vec<u8>,
    /// A thread each, the leader's first.
    pub(super) seats: Vec<Mutex<Seat>>,
    pub(super) crew: Crew,
}

/// What a thread works with, and the shares that it has computed.
#[derive(Debug, Default)]
pub(super) struct Seat {
    scratch: Scratch,
    taken: Vec<usize>,
    /// The bytes of the shares, one after another.
    made: Vec<u8>,
}

/// Threads that run a program together.
pub(super) struct Team<'a> {
    machine: Machine<'a>,
    /// The wave. Who computes shares of it reads it; while it is written to, the memories may be.
    wave: RwLock<Option<Wave<'a>>>,
    /// The last wave that several threads compute, or [`OVER`].
    call: AtomicUsize,
    /// The wave whose shares may be written.
    writing: AtomicUsize,
    /// How many of them are not written yet.
    unwritten: AtomicUsize,
    has_failed: AtomicBool,
}

/// There are no more waves.
const OVER: usize = usize::MAX;

/// How often a thread looks whether something has changed before it lets others run.
const LOOKS: usize = 4096;

/// A wave that is computed.
struct Wave<'a> {
    work: Work<'a>,
    /// Waves count from 1.
    number: usize,
    /// For each thread, the next of its shares that nobody computes yet.
    next: Vec<AtomicUsize>,
}

/// What is to be computed in a wave.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) phase: &'a Phase,
    pub(super) prepared: &'a [Prepared],
    pub(super) shares: &'a Shares,
}

/// The thread that leads. There are no more waves when it goes, whatever the reason.
pub(super) struct Leader<'t, 'a> {
    team: &'t Team<'a>,
    seat: &'t mut Seat,
    /// How many waves there were.
    waves: usize,
}

impl<'a> Leader<'_, 'a> {
    /// Runs a wave with those who help.
    pub(super) fn run(&mut self, work: Work<'a>) {
        let Self { team, seat, waves } = self;
        *waves += 1;
        let next = work.shares.of_threads.iter().map(|of| AtomicUsize::new(of.start)).collect();
        {
            let mut wave = team.wave_alone();
            team.unwritten.store(work.shares.all.len(), Ordering::Relaxed);
            *wave = Some(Wave { work, number: *waves, next });
        }
        if work.shares.all.len() > 1 {
            team.call.store(*waves, Ordering::Release);
        }
        team.compute(0, seat);
        // Nobody computes any more, and nobody can begin to, until the wave is written.
        let mut wave = team.wave_alone();
        team.writing.store(*waves, Ordering::Release);
        // SAFETY: nobody computes.
        unsafe { team.write(work, seat) };
        team.wait(|| team.unwritten.load(Ordering::Acquire) == 0);
        *wave = None;
    }
}

impl Drop for Leader<'_, '_> {
    fn drop(&mut self) {
        self.team.call.store(OVER, Ordering::Release);
    }
}

/// Tells the others if a thread ends before its share is computed.
struct Alarm<'t>(&'t AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl<'a> Team<'a> {
    pub(super) fn new(machine: Machine<'a>) -> Self {
        Self {
            machine,
            wave: RwLock::new(None),
            call: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Computes shares of all waves until there are no more, as the thread of a number.
    pub(super) fn help(&self, thread: usize, seat: &mut Seat) {
        let mut seen = 0;
        loop {
            self.wait(|| self.call.load(Ordering::Acquire) != seen);
            seen = self.call.load(Ordering::Acquire);
            if seen == OVER {
                return;
            }
            let Some((work, wave)) = self.compute(thread, seat) else { continue };
            if seat.taken.is_empty() {
                continue;
            }
            // The leader ends the wave only when these shares are written, or when it fails.
            self.wait(|| {
                let is_over = self.call.load(Ordering::Acquire) == OVER;
                is_over || self.writing.load(Ordering::Acquire) == wave
            });
            if self.writing.load(Ordering::Acquire) != wave {
                return;
            }
            // SAFETY: the leader has seen that nobody computes, and holds the wave until all is written.
            unsafe { self.write(work, seat) };
        }
    }

    /// The thread that leads: there is one, number 0.
    pub(super) fn leader<'t>(&'t self, seat: &'t mut Seat) -> Leader<'t, 'a> {
        Leader { team: self, seat, waves: 0 }
    }

    pub(super) fn into_machine(self) -> Machine<'a> {
        self.machine
    }

    /// Computes shares of the wave, if there is one, until all are taken: first those of the thread, which
    /// has what they read in its cache. The wave and its number.
    fn compute(&self, thread: usize, seat: &mut Seat) -> Option<(Work<'a>, usize)> {
        let alarm = Alarm(&self.has_failed);
        let Seat { scratch, taken, made } = seat;
        taken.clear();
        let wave = self.wave_with_others();
        let Wave { work, number, next } = wave.as_ref()?;
        let Shares { all, of_threads } = work.shares;
        let mut used = 0;
        let threads = of_threads.len();
        for thread in (thread.min(threads)..threads).chain(0..thread.min(threads)) {
            while let index = next[thread].fetch_add(1, Ordering::Relaxed)
                && index < of_threads[thread].end
            {
                taken.push(index);
                for StageTile { stage, tile, .. } in &all[index] {
                    let code = &work.phase.stages[*stage].code;
                    let len = self.machine.tile_bytes(code, tile);
                    if made.len() < used + len {
                        made.resize(used + len, 0);
                    }
                    let bytes = &mut made[used..used + len];
                    self.machine.make_tile(code, &work.prepared[*stage], tile, scratch, bytes);
                    used += len;
                }
            }
        }
        drop(alarm);
        Some((*work, *number))
    }

    /// Writes the shares that a thread has computed.
    ///
    /// # Safety
    /// Nobody computes shares meanwhile.
    unsafe fn write(&self, work: Work<'a>, seat: &Seat) {
        let alarm = Alarm(&self.has_failed);
        let mut rest = &seat.made[..];
        for &index in &seat.taken {
            for StageTile { stage, tile, .. } in &work.shares.all[index] {
                let stage = &work.phase.stages[*stage];
                let (bytes, others) = rest.split_at(self.machine.tile_bytes(&stage.code, tile));
                // SAFETY: nobody computes, says the caller, and no two shares of a wave write the same bytes.
                unsafe { self.machine.write_beside(stage, tile, bytes) };
                rest = others;
            }
        }
        self.unwritten.fetch_sub(seat.taken.len(), Ordering::Release);
        drop(alarm);
    }

    /// The wave when nobody computes.
    fn wave_alone(&self) -> RwLockWriteGuard<'_, Option<Wave<'a>>> {
        let mut found = None;
        self.wait(|| {
            found = unless_locked(self.wave.try_write());
            found.is_some()
        });
        found.unwrap_or_else(|| self.wave.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The wave, while others may compute, too.
    fn wave_with_others(&self) -> RwLockReadGuard<'_, Option<Wave<'a>>> {
        let mut found = None;
        self.wait(|| {
            found = unless_locked(self.wave.try_read());
            found.is_some()
        });
        found.unwrap_or_else(|| self.wave.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is so; after some looks, others may run.
    ///
    /// # Panics
    /// If another thread has.
    fn wait(&self, mut is_so: impl FnMut() -> bool) {
        let mut looks = 0;
        while !is_so() {
            assert!(!self.has_failed.load(Ordering::Acquire), "a thread of the run has failed");
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// What a lock holds, if it could be taken. What a panic leaves behind is not used: it is passed on.
fn unless_locked<T>(tried: Result<T, TryLockError<T>>) -> Option<T> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
