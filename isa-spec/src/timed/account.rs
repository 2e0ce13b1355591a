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

/// What something does at a moment: which of the times of [`TimeUse`] passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// [`TimeUse::configuring`].
    Configuring,
    /// [`TimeUse::switching`].
    Switching,
    /// [`TimeUse::busy`].
    Busy,
    /// [`TimeUse::stalled_input`].
    Input,
    /// [`TimeUse::stalled_output`].
    Output,
    /// [`TimeUse::stalled_weights`].
    Weights,
    /// [`TimeUse::waiting_turn`].
    Turn,
    /// [`TimeUse::idle`].
    Idle,
}

impl Activity {
    /// All of them, in the order in which a step passes through them.
    pub const ALL: [Self; 8] = [
        Self::Configuring,
        Self::Switching,
        Self::Busy,
        Self::Input,
        Self::Output,
        Self::Weights,
        Self::Turn,
        Self::Idle,
    ];
}

impl TimeUse {
    /// The cycles of an activity.
    pub fn of(&self, activity: Activity) -> u64 {
        match activity {
            Activity::Configuring => self.configuring,
            Activity::Switching => self.switching,
            Activity::Busy => self.busy,
            Activity::Input => self.stalled_input,
            Activity::Output => self.stalled_output,
            Activity::Weights => self.stalled_weights,
            Activity::Turn => self.waiting_turn,
            Activity::Idle => self.idle,
        }
    }

    fn of_mut(&mut self, activity: Activity) -> &mut u64 {
        match activity {
            Activity::Configuring => &mut self.configuring,
            Activity::Switching => &mut self.switching,
            Activity::Busy => &mut self.busy,
            Activity::Input => &mut self.stalled_input,
            Activity::Output => &mut self.stalled_output,
            Activity::Weights => &mut self.stalled_weights,
            Activity::Turn => &mut self.waiting_turn,
            Activity::Idle => &mut self.idle,
        }
    }
}

/// A stretch of time in which a stage, a partition or a queue does one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its first cycle.
    pub start: u64,
    /// How long it is.
    pub cycles: u64,
    /// What is done.
    pub activity: Activity,
    /// The stage that a partition works for, or whose rows a queue transfers.
    pub stage: Option<usize>,
}

impl Slice {
    /// One past its last cycle.
    pub fn end(&self) -> u64 {
        self.start + self.cycles
    }
}

/// Books the time of a stage, a partition or a queue.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    time: TimeUse,
    /// Up to when time is booked.
    booked: u64,
    activity: Activity,
    /// Whom it does that for.
    stage: Option<usize>,
    /// What was booked, in order, if that is asked for.
    slices: Option<Vec<Slice>>,
}

impl Meter {
    /// At the start of a phase, of which the first cycles pass in reconfiguration.
    pub(super) fn new(start: u64, configuring: u64, traced: bool) -> Self {
        let slices = traced.then(Vec::new);
        let time = TimeUse::default();
        let mut meter = Self { time, booked: start, activity: Activity::Idle, stage: None, slices };
        meter.add(Activity::Configuring, configuring);
        meter
    }

    pub(super) fn activity(&self) -> Activity {
        self.activity
    }

    /// From now on it does this.
    pub(super) fn turn_to(&mut self, now: u64, activity: Activity) {
        self.turn_to_stage(now, activity, None);
    }

    /// From now on it does this for a stage.
    pub(super) fn turn_to_stage(&mut self, now: u64, activity: Activity, stage: Option<usize>) {
        if (activity, stage) != (self.activity, self.stage) {
            self.book(now);
            (self.activity, self.stage) = (activity, stage);
        }
    }

    /// From now on it spends just this for a stage, and is not to be told of anything before that is over.
    pub(super) fn spend(&mut self, now: u64, spent: &TimeUse, stage: usize) {
        self.book(now);
        self.stage = Some(stage);
        for activity in Activity::ALL {
            self.add(activity, spent.of(activity));
        }
        self.activity = Activity::Busy;
    }

    /// Books the rest of the phase.
    pub(super) fn finish(&mut self, end: u64) {
        self.book(end);
    }

    /// What it spent.
    pub(super) fn time(&self) -> TimeUse {
        self.time
    }

    /// What was booked; empty if that was not asked for.
    pub(super) fn into_slices(self) -> Vec<Slice> {
        self.slices.unwrap_or_default()
    }

    fn book(&mut self, now: u64) {
        self.add(self.activity, now.saturating_sub(self.booked));
    }

    /// Adds cycles to what is booked; a slice that goes on becomes longer.
    fn add(&mut self, activity: Activity, cycles: u64) {
        *self.time.of_mut(activity) += cycles;
        let start = self.booked;
        self.booked += cycles;
        let Some(slices) = self.slices.as_mut().filter(|_| cycles > 0) else { return };
        let stage = self.stage;
        match slices.last_mut() {
            Some(last) if (last.activity, last.stage, last.end()) == (activity, stage, start) => {
                last.cycles += cycles;
            }
            _ => slices.push(Slice { start, cycles, activity, stage }),
        }
    }
}
