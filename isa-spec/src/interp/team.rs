//! The threads of a run.
//!
//! Waves are short, some tens of microseconds each, so threads do not go to sleep between them: they watch
//! for the next one for a while. One of them leads: it says what the next wave is, computes shares of it like
//! the others, and writes what all have made. Who is late is not waited for, unless it computes a share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockWriteGuard};

use super::machine::Machine;
use super::prepared::Prepared;
use super::tile::Scratch;
use super::waves::{Share, StageTile};
use crate::program::Phase;

/// Memory that a run works in and leaves to the next one.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) activation: Vec<u8>,
    pub(super) scratches: Vec<Scratch>,
    made: Vec<Mutex<Vec<u8>>>,
}

/// Threads that run a program together.
pub(super) struct Team<'a> {
    state: RwLock<State<'a>>,
    /// How many waves there were, or [`OVER`].
    turn: AtomicUsize,
}

/// There are no more waves.
const OVER: usize = usize::MAX;

/// How often a thread looks whether something has changed before it lets others run.
const LOOKS: usize = 4096;

struct State<'a> {
    machine: Machine<'a>,
    wave: Option<Work<'a>>,
    /// The next share of the wave that nobody computes yet.
    next: AtomicUsize,
    /// The bytes of each share.
    made: Vec<Mutex<Vec<u8>>>,
}

/// A wave.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) phase: &'a Phase,
    pub(super) prepared: &'a [Prepared],
    pub(super) shares: &'a [Share],
}

/// The thread that leads. There are no more waves when it goes, whatever the reason.
pub(super) struct Leader<'t, 'a> {
    team: &'t Team<'a>,
    scratch: &'t mut Scratch,
}

impl<'a> Leader<'_, 'a> {
    /// Runs a wave with those who help.
    pub(super) fn run(&mut self, wave: Work<'a>) {
        self.team.state_alone().begin(wave);
        if wave.shares.len() > 1 {
            self.team.turn.fetch_add(1, Ordering::Release);
        }
        self.team.compute(self.scratch);
        self.team.state_alone().end();
    }
}

impl Drop for Leader<'_, '_> {
    fn drop(&mut self) {
        self.team.turn.store(OVER, Ordering::Release);
    }
}

impl<'a> Team<'a> {
    pub(super) fn new(machine: Machine<'a>, room: &mut Room) -> Self {
        let state =
            State { machine, wave: None, next: AtomicUsize::new(0), made: std::mem::take(&mut room.made) };
        Self { state: RwLock::new(state), turn: AtomicUsize::new(0) }
    }

    /// Computes shares of all waves until there are no more.
    pub(super) fn help(&self, scratch: &mut Scratch) {
        let mut seen = 0;
        loop {
            let mut looks = 0;
            let mut turn = self.turn.load(Ordering::Acquire);
            while turn == seen {
                rest(&mut looks);
                turn = self.turn.load(Ordering::Acquire);
            }
            if turn == OVER {
                return;
            }
            seen = turn;
            self.compute(scratch);
        }
    }

    /// The thread that leads: there is one.
    pub(super) fn leader<'t>(&'t self, scratch: &'t mut Scratch) -> Leader<'t, 'a> {
        Leader { team: self, scratch }
    }

    /// The machine, and the room for another run.
    pub(super) fn into_machine(self, room: &mut Room) -> Machine<'a> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        room.made = state.made;
        state.machine
    }

    /// Computes shares of the wave until all are taken.
    fn compute(&self, scratch: &mut Scratch) {
        // What a panic leaves behind is not used: it is passed on when all threads have ended.
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(wave) = state.wave else { return };
        loop {
            let index = state.next.fetch_add(1, Ordering::Relaxed);
            let (Some(share), Some(made)) = (wave.shares.get(index), state.made.get(index)) else { return };
            let made = &mut *made.lock().unwrap_or_else(PoisonError::into_inner);
            made.clear();
            for StageTile { stage, tile, .. } in share {
                let code = &wave.phase.stages[*stage].code;
                state.machine.make_tile(code, &wave.prepared[*stage], tile, scratch, made);
            }
        }
    }

    /// The state when nobody computes.
    fn state_alone(&self) -> RwLockWriteGuard<'_, State<'a>> {
        let mut looks = 0;
        loop {
            match self.state.try_write() {
                Ok(state) => return state,
                Err(std::sync::TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => rest(&mut looks),
            }
        }
    }
}

/// Waits a moment; after some, others may run.
fn rest(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl<'a> State<'a> {
    fn begin(&mut self, wave: Work<'a>) {
        if self.made.len() < wave.shares.len() {
            self.made.resize_with(wave.shares.len(), Mutex::default);
        }
        *self.next.get_mut() = 0;
        self.wave = Some(wave);
    }

    /// Writes what was made.
    fn end(&mut self) {
        let Some(wave) = self.wave.take() else { return };
        for (share, made) in wave.shares.iter().zip(&mut self.made) {
            let made = made.get_mut().unwrap_or_else(PoisonError::into_inner);
            let mut rest = &made[..];
            for StageTile { stage, tile, .. } in share {
                let stage = &wave.phase.stages[*stage];
                let (bytes, others) = rest.split_at(self.machine.tile_bytes(&stage.code, tile));
                self.machine.write(stage, tile, bytes);
                rest = others;
            }
        }
    }
}
