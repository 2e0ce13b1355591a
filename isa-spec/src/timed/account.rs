//! Where the cycles of a phase go, for each of its stages, partitions and DMA queues.
//!
//! A [`Meter`] stands beside each of them in the simulation. It is always in one state, and told when that
//! changes, so that its times add up to the phase's cycles by construction.

use serde::{Deserialize, Serialize};

use crate::inst::Head;

/// What a stage, a partition or a DMA queue spent a phase on, in cycles. They add up to the cycles of the
/// phase.
///
/// A partition, or a queue, that does nothing waits for what its stages wait for: for weights if one of them
/// lacks nothing else, else for what the last of them that is not finished waits for, since what those before
/// it wait for reaches it as missing rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeUse {
    /// Before stages start: the machine is reconfigured.
    pub configuring: u64,
    /// Computing or transferring.
    pub busy: u64,
    /// Changing over from one stage to another.
    pub switching: u64,
    /// Waiting for input rows.
    pub stalled_input: u64,
    /// Waiting for room in the output ring.
    pub stalled_output: u64,
    /// Waiting for weights.
    pub stalled_weights: u64,
    /// Waiting for its turn: a stage on the partition, a transfer on DRAM and for its latency.
    pub waiting_turn: u64,
    /// Nothing left to do.
    pub idle: u64,
}

impl TimeUse {
    /// All cycles.
    pub fn total(&self) -> u64 {
        let Self { configuring, busy, switching, .. } = self;
        configuring + busy + switching + self.stalled() + self.waiting_turn + self.idle
    }

    /// Cycles of waiting for rows, room or weights.
    pub fn stalled(&self) -> u64 {
        self.stalled_input + self.stalled_output + self.stalled_weights
    }

    /// Adds so many times what another spent.
    pub fn add(&mut self, more: &Self, times: u64) {
        self.configuring += times * more.configuring;
        self.busy += times * more.busy;
        self.switching += times * more.switching;
        self.stalled_input += times * more.stalled_input;
        self.stalled_output += times * more.stalled_output;
        self.stalled_weights += times * more.stalled_weights;
        self.waiting_turn += times * more.waiting_turn;
        self.idle += times * more.idle;
    }
}

/// What the queues of the DMA engine spent a phase on. They share one DRAM channel, so no two are busy at
/// once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaTime {
    /// Rows from DRAM to activation SRAM.
    pub load: TimeUse,
    /// Rows from activation SRAM to DRAM.
    pub store: TimeUse,
    /// Weights, which go on while the machine is reconfigured.
    pub weights: TimeUse,
}

impl DmaTime {
    /// Cycles that the DRAM channel transfers.
    pub fn dram_busy(&self) -> u64 {
        self.load.busy + self.store.busy + self.weights.busy
    }

    /// Adds what was spent later.
    pub fn add(&mut self, next: &Self) {
        self.load.add(&next.load, 1);
        self.store.add(&next.store, 1);
        self.weights.add(&next.weights, 1);
    }
}

/// A queue of the DMA engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Load,
    Store,
    Weights,
}

impl Queue {
    pub(super) const ALL: [Self; 3] = [Self::Load, Self::Store, Self::Weights];

    /// The queue of a stage's rows; `None` of a stage of the array.
    pub(super) fn of(head: &Head) -> Option<Self> {
        match head {
            Head::DmaIn(_) => Some(Self::Load),
            Head::DmaOut(_) => Some(Self::Store),
            _ => None,
        }
    }
}

/// What something does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Busy,
    Input,
    Output,
    Weights,
    Turn,
    Idle,
}

/// Books the time of a stage, a partition or a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    time: TimeUse,
    /// Up to when time is booked.
    booked: u64,
    state: State,
}

impl Meter {
    /// At the start of a phase, of which the first cycles pass in reconfiguration.
    pub(super) fn new(start: u64, configuring: u64) -> Self {
        let time = TimeUse { configuring, ..TimeUse::default() };
        Self { time, booked: start + configuring, state: State::Idle }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// From now on it does this.
    pub(super) fn turn_to(&mut self, now: u64, state: State) {
        if state != self.state {
            self.book(now);
            self.state = state;
        }
    }

    /// From now on it spends just this, and is not to be told of anything before that is over.
    pub(super) fn spend(&mut self, now: u64, spent: &TimeUse) {
        self.book(now);
        self.time.add(spent, 1);
        self.booked = now + spent.total();
        self.state = State::Busy;
    }

    /// What it spent until the end.
    pub(super) fn until(mut self, end: u64) -> TimeUse {
        self.book(end);
        self.time
    }

    fn book(&mut self, now: u64) {
        let spent = now.saturating_sub(self.booked);
        *match self.state {
            State::Busy => &mut self.time.busy,
            State::Input => &mut self.time.stalled_input,
            State::Output => &mut self.time.stalled_output,
            State::Weights => &mut self.time.stalled_weights,
            State::Turn => &mut self.time.waiting_turn,
            State::Idle => &mut self.time.idle,
        } += spent;
        self.booked += spent;
    }
}
