//! The timed interpreter: the same program as a discrete-event simulation, row by row.
//!
//! Modelled: array cycles of every step ([`crate::timing::step_cycles`]); partitions that their stages share
//! by turns, with the target's switch cost at each change; rings that are full or empty, and so pipeline
//! fill, drain and stalls; one DRAM channel that weight loads and DMA stages share, with its latency;
//! reconfiguration between phases.
//!
//! DRAM serves requests in the order in which they are made; activation rows go before background weight
//! loads that have not begun, so that prefetching does not stall the phase that runs. A weight load is served
//! in bursts of [`BURST_BYTES`], so that it does not block the channel.
//!
//! The time of every stage, partition and DMA queue is accounted for to the cycle; see [`TimeUse`].
//!
//! Not modelled: bank conflicts, refresh, and the row-buffer state of DRAM.

mod account;
mod trace;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::{Deserialize, Serialize};

pub use self::account::{Activity, DmaTime, Slice, TimeUse};
use self::account::{Meter, Queue};
pub use self::trace::{ActivationUse, PhaseTrace, Traced, activation_use};
use crate::dataflow::{Blocked, Flow};
use crate::inst::Head;
use crate::program::{Program, SegmentKind, Stage};
use crate::target::Target;
use crate::timing::{Work, dram_cycles, step_cycles};

/// Bytes of a weight load that the DRAM channel serves before it looks for rows again.
pub const BURST_BYTES: u64 = 4096;

/// A phase's times. What is said of each stage, partition and queue adds up to the phase's cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Cycle at which the phase begins.
    pub start: u64,
    /// Cycles from begin to the last row, reconfiguration included.
    pub cycles: u64,
    /// Each stage.
    pub stages: Vec<TimeUse>,
    /// Each partition of the array.
    pub partitions: Vec<TimeUse>,
    /// The queues of the DMA engine.
    pub dma: DmaTime,
}

/// DRAM bytes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Weight loads.
    pub weights: u64,
    /// Network inputs read, the first time.
    pub inputs: u64,
    /// Network outputs written.
    pub outputs: u64,
    /// Activations stored.
    pub spill_write: u64,
    /// Activations loaded back, and inputs read again.
    pub spill_read: u64,
}

impl Traffic {
    /// All bytes.
    pub fn total(&self) -> u64 {
        self.weights + self.inputs + self.outputs + self.spill_write + self.spill_read
    }
}

/// Energy in picojoules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnergyUse {
    /// Multiply-accumulates.
    pub mac: f64,
    /// On-chip memories.
    pub sram: f64,
    /// DRAM.
    pub dram: f64,
    /// All of these.
    pub total: f64,
}

/// What the simulation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Cycles of one inference.
    pub cycles: u64,
    /// Multiply-accumulates that the array performed (Winograd counted as performed).
    pub macs: u64,
    /// `macs / (cycles * array)`.
    pub mac_utilisation: f64,
    /// DRAM bytes.
    pub dram_bytes: Traffic,
    /// Energy.
    pub energy_pj: EnergyUse,
    /// The whole array, in cycles of a cluster: partitions by their clusters, clusters of none as idle. Adds
    /// up to `cycles` times the target's clusters.
    pub array: TimeUse,
    /// The queues of the DMA engine, of all phases. Each adds up to `cycles`.
    pub dma: DmaTime,
    /// Each phase.
    pub phases: Vec<PhaseTime>,
}

/// DRAM bytes that a program moves, by purpose; needs no simulation.
pub fn traffic(program: &Program) -> Traffic {
    let mut traffic = Traffic::default();
    let mut seen = vec![0u64; program.segments.len()];
    for phase in &program.phases {
        traffic.weights += phase.loads.iter().map(|l| u64::from(l.bytes)).sum::<u64>();
        for stage in &phase.stages {
            let (segment, view) = match &stage.code.head {
                Head::DmaIn(dma) => (dma.segment as usize, stage.code.out),
                Head::DmaOut(dma) => (dma.segment as usize, dma.src),
                _ => continue,
            };
            let elem = program.streams.get(view.tensor as usize).map_or(1, |s| s.elem.size_bytes());
            let bytes = view.n_elements() * u64::from(elem);
            let Some(declared) = program.segments.get(segment) else { continue };
            match (declared.kind, &stage.code.head) {
                (SegmentKind::Input, _) => {
                    let first = bytes.min(declared.bytes - seen[segment].min(declared.bytes));
                    seen[segment] += first;
                    traffic.inputs += first;
                    traffic.spill_read += bytes - first;
                }
                (SegmentKind::Output, Head::DmaOut(_)) => traffic.outputs += bytes,
                (_, Head::DmaOut(_)) => traffic.spill_write += bytes,
                _ => traffic.spill_read += bytes,
            }
        }
    }
    traffic
}

/// Int8 multiply-accumulates that the array performs: Winograd convolutions count 16 products a 2x2 tile,
/// products of `i16` one for each pair of bytes.
pub fn performed_macs(program: &Program) -> u64 {
    let stages = program.phases.iter().flat_map(|p| &p.stages);
    stages.map(|stage| stage.code.array_macs(matches!(&stage.code.head, Head::Conv2d(h) if h.winograd))).sum()
}

/// Energy of one inference: `macs * mac + bytes * byte` for each memory. Activation SRAM is read once a row
/// and reader and written once a row; weight SRAM is written once a load and read once a step; Winograd pays
/// for the products it makes.
pub fn energy(program: &Program, target: &Target) -> EnergyUse {
    let e = &target.energy;
    let (mut activation, mut weight) = (0u64, 0u64);
    for phase in &program.phases {
        weight += phase.loads.iter().map(|l| u64::from(l.bytes)).sum::<u64>();
        for stage in &phase.stages {
            let bytes = |stream: u32| {
                program.streams.get(stream as usize).map_or(0, |s| u64::from(s.elem.size_bytes()))
            };
            for view in stage.code.reads() {
                activation += view.n_elements() * bytes(view.tensor);
            }
            activation += stage.code.out.n_elements() * bytes(stage.code.out.tensor);
            let table: u64 = stage.code.tables().iter().map(|(_, len)| len).sum();
            weight += table * u64::from(stage.code.n_steps());
        }
    }
    let mac = performed_macs(program) as f64 * e.mac_pj;
    let sram = activation as f64 * e.activation_byte_pj + weight as f64 * e.weight_byte_pj;
    let dram = traffic(program).total() as f64 * e.dram_byte_pj;
    EnergyUse { mac, sram, dram, total: mac + sram + dram }
}

/// What ends at a moment of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A stage's step.
    Step(usize),
    /// A transfer of the DRAM channel leaves it free.
    DramFree,
    /// A stage's DMA row has arrived.
    Row(usize),
    /// A burst of the weight queue has arrived.
    Burst(u64),
}

/// Simulates a verified program.
pub fn simulate(program: &Program, target: &Target) -> Timing {
    let mut now = 0;
    let mut queue = LoadQueue::default();
    let mut phases = Vec::with_capacity(program.phases.len());
    for index in 0..program.phases.len() {
        let (phase, _) = Simulation::new(program, target, index, now, false).run(&mut queue);
        now = phase.start + phase.cycles;
        phases.push(phase);
    }
    summary(program, target, phases)
}

/// Simulates a verified program, and tells what every stage, partition and queue does when.
pub fn simulate_traced(program: &Program, target: &Target) -> Traced {
    let mut now = 0;
    let mut queue = LoadQueue::default();
    let (mut phases, mut traces) = (Vec::new(), Vec::new());
    for index in 0..program.phases.len() {
        let (phase, trace) = Simulation::new(program, target, index, now, true).run(&mut queue);
        now = phase.start + phase.cycles;
        phases.push(phase);
        traces.push(trace);
    }
    Traced { timing: summary(program, target, phases), phases: traces }
}

/// The figures of a program of the times of its phases.
fn summary(program: &Program, target: &Target, phases: Vec<PhaseTime>) -> Timing {
    let now = phases.last().map_or(0, |phase| phase.start + phase.cycles);
    let clusters = u64::from(target.array.clusters);
    let (mut array, mut dma) = (TimeUse::default(), DmaTime::default());
    for (phase, time) in program.phases.iter().zip(&phases) {
        for (&owned, spent) in phase.partitions.iter().zip(&time.partitions) {
            array.add(spent, u64::from(owned));
        }
        let owned: u64 = phase.partitions.iter().map(|&owned| u64::from(owned)).sum();
        array.idle += clusters.saturating_sub(owned) * time.cycles;
        dma.add(&time.dma);
    }
    let macs = performed_macs(program);
    let room = now as f64 * target.macs() as f64;
    Timing {
        cycles: now,
        macs,
        mac_utilisation: if now == 0 { 0.0 } else { macs as f64 / room },
        dram_bytes: traffic(program),
        energy_pj: energy(program, target),
        array,
        dma,
        phases,
    }
}

/// The background queue of weight loads, which outlives phases.
#[derive(Default)]
struct LoadQueue {
    /// Bytes of each queued load that are still to be requested, in order.
    requested: VecDeque<u64>,
    /// Loads whose last byte has arrived.
    complete: u32,
    /// Cycle from which the DRAM channel is free.
    dram_free: u64,
    /// Arrival of bursts that are under way when a phase ends: cycle, and whether it ends a load.
    in_flight: Vec<(u64, bool)>,
}

/// What the DRAM channel transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    queue: Queue,
    /// The stage whose row it is; none of weights.
    stage: Option<usize>,
}

impl Transfer {
    const WEIGHTS: Self = Self { queue: Queue::Weights, stage: None };
}

struct Simulation<'a> {
    program: &'a Program,
    target: &'a Target,
    index: usize,
    flow: Flow,
    now: u64,
    start: u64,
    /// Last stage that each partition ran.
    turned_to: Vec<Option<usize>>,
    partition_busy: Vec<bool>,
    /// Stages that are in a step.
    running: Vec<bool>,
    /// DMA rows that wait for the channel, in request order.
    rows: VecDeque<usize>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    cycles: Vec<u64>,
    row_bytes: Vec<u64>,
    /// Each stage, partition and queue.
    stages: Vec<Meter>,
    partitions: Vec<Meter>,
    queues: [Meter; 3],
    /// The stages that each partition and each queue runs.
    of_partition: Vec<Vec<usize>>,
    of_queue: [Vec<usize>; 3],
    /// Rows and bursts of each queue that were asked for and have not arrived.
    under_way: [usize; 3],
    /// The queue that the DRAM channel serves; it is busy without one while a transfer of the phase before
    /// ends.
    serving: Option<Transfer>,
    dram_busy: bool,
}

impl<'a> Simulation<'a> {
    fn new(program: &'a Program, target: &'a Target, index: usize, now: u64, traced: bool) -> Self {
        let phase = &program.phases[index];
        let n = phase.stages.len();
        let configuring = u64::from(target.switch.phase_cycles);
        let queue_of = |stage: &Stage| Queue::of(&stage.code.head);
        let of_partition = (0..phase.partitions.len()).map(|partition| {
            let owned = |&s: &usize| {
                queue_of(&phase.stages[s]).is_none() && phase.stages[s].partition as usize == partition
            };
            (0..n).filter(owned).collect()
        });
        let of_queue =
            |queue| (0..n).filter(|&s| queue_of(&phase.stages[s]) == Some(queue)).collect::<Vec<_>>();
        let cycles = phase.stages.iter().map(|s| step_cycles(target, &s.code.work(), &s.mapping)).collect();
        let row_bytes = phase.stages.iter().map(|s| {
            let stream = match &s.code.head {
                Head::DmaOut(dma) => dma.src.tensor,
                _ => s.code.out.tensor,
            };
            let size = program.streams.get(stream as usize).map_or(1, |s| u64::from(s.elem.size_bytes()));
            if let Work::Dma { bytes } = s.code.work() { bytes * size } else { 0 }
        });
        Self {
            program,
            target,
            index,
            flow: Flow::new(program, phase),
            now,
            start: now,
            turned_to: vec![None; phase.partitions.len()],
            partition_busy: vec![false; phase.partitions.len()],
            running: vec![false; n],
            rows: VecDeque::new(),
            events: BinaryHeap::new(),
            order: 0,
            cycles,
            row_bytes: row_bytes.collect(),
            stages: vec![Meter::new(now, configuring, traced); n],
            partitions: vec![Meter::new(now, configuring, traced); phase.partitions.len()],
            // Reconfiguration does not stop the DMA engine: what was queued goes on in it.
            queues: Queue::ALL
                .map(|queue| Meter::new(now, if queue == Queue::Weights { 0 } else { configuring }, traced)),
            of_partition: of_partition.collect(),
            of_queue: Queue::ALL.map(of_queue),
            under_way: [0; 3],
            serving: None,
            dram_busy: false,
        }
    }

    fn at(&mut self, cycle: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((cycle, self.order, event)));
    }

    /// Simulates the phase.
    fn run(mut self, queue: &mut LoadQueue) -> (PhaseTime, PhaseTrace) {
        self.begin(queue);
        let begin = self.start + u64::from(self.target.switch.phase_cycles);
        let mut dirty: Vec<usize> = (0..self.running.len()).collect();
        let mut began = false;
        loop {
            if began {
                self.wake(&mut dirty, queue);
            }
            self.observe(queue);
            if self.flow.finished() && !self.running.iter().any(|&r| r) {
                break;
            }
            let next = self.events.peek().map(|Reverse((cycle, ..))| *cycle);
            if !began && next.is_none_or(|cycle| cycle >= begin) {
                // The phase's stages start once it is configured, before what else happens then or later.
                began = true;
                self.now = begin;
                continue;
            }
            let Some(Reverse((cycle, _, event))) = self.events.pop() else { break };
            self.now = cycle;
            self.handle(event, &mut dirty, queue);
        }
        let end = self.now.max(begin);
        self.finish(end, queue)
    }

    /// Queues the phase's weight loads and takes over what the DRAM channel still does for the phase before.
    fn begin(&mut self, queue: &mut LoadQueue) {
        let phase = &self.program.phases[self.index];
        queue.requested.extend(phase.loads.iter().map(|l| u64::from(l.bytes)));
        for (cycle, last) in std::mem::take(&mut queue.in_flight) {
            self.at(cycle.max(self.start), Event::Burst(u64::from(last)));
            self.under_way[Queue::Weights as usize] += 1;
        }
        // Only a burst can still be in transfer: all rows of a phase arrive in it.
        let free = queue.dram_free.max(self.start);
        self.serving = (free > self.start).then_some(Transfer::WEIGHTS);
        self.dram_busy = true;
        self.at(free, Event::DramFree);
    }

    /// Takes note of an event, and marks as dirty the stages that may start for it.
    fn handle(&mut self, event: Event, dirty: &mut Vec<usize>, queue: &mut LoadQueue) {
        let stages = &self.program.phases[self.index].stages;
        match event {
            Event::Step(stage) | Event::Row(stage) => {
                let partition = stages[stage].partition;
                self.running[stage] = false;
                match Queue::of(&stages[stage].code.head) {
                    Some(queue) => self.under_way[queue as usize] -= 1,
                    None => self.partition_busy[partition as usize] = false,
                }
                self.flow.advance(stage);
                dirty.push(stage);
                dirty.extend(self.flow.neighbours(stage));
                dirty.extend((0..stages.len()).filter(|&s| stages[s].partition == partition));
            }
            Event::DramFree => {
                (self.dram_busy, self.serving) = (false, None);
                self.serve(queue);
            }
            Event::Burst(last) => {
                self.under_way[Queue::Weights as usize] -= 1;
                if last == 1 {
                    queue.complete += 1;
                    dirty.extend(0..stages.len());
                }
            }
        }
    }

    /// Leaves bursts under way to the next phase, and sums up this one.
    fn finish(mut self, end: u64, queue: &mut LoadQueue) -> (PhaseTime, PhaseTrace) {
        while let Some(Reverse((cycle, _, event))) = self.events.pop() {
            match event {
                Event::Burst(last) => queue.in_flight.push((cycle, last == 1)),
                Event::DramFree => queue.dram_free = cycle,
                Event::Step(_) | Event::Row(_) => {}
            }
        }
        let meters = self.stages.iter_mut().chain(&mut self.partitions).chain(&mut self.queues);
        meters.for_each(|meter| meter.finish(end));
        let times = |meters: &[Meter]| meters.iter().map(Meter::time).collect();
        let [load, store, weights] = [0, 1, 2].map(|queue| self.queues[queue].time());
        let time = PhaseTime {
            start: self.start,
            cycles: end - self.start,
            stages: times(&self.stages),
            partitions: times(&self.partitions),
            dma: DmaTime { load, store, weights },
        };
        (time, PhaseTrace::of(self.stages, self.partitions, self.queues))
    }

    /// Starts every step that can start now.
    fn wake(&mut self, dirty: &mut Vec<usize>, queue: &mut LoadQueue) {
        dirty.sort_unstable();
        dirty.dedup();
        let phase = &self.program.phases[self.index];
        let n = phase.stages.len();
        // A partition turns first to stages after the one that it ran, so that none is starved.
        let mut ready: Vec<usize> = dirty.drain(..).filter(|&s| !self.running[s]).collect();
        ready.sort_by_key(|&s| {
            let last = self.turned_to.get(phase.stages[s].partition as usize).copied().flatten();
            let distance = last.map_or(s, |last| (s + n - last) % n);
            (distance, s)
        });
        for stage in ready {
            let blocked = self.flow.blocked(stage);
            let weights = phase.stages[stage].wait_loads > queue.complete;
            let dma = Queue::of(&phase.stages[stage].code.head);
            let partition = phase.stages[stage].partition as usize;
            let waits_for = match blocked {
                Some(Blocked::Finished) => Some(Activity::Idle),
                Some(Blocked::Input { .. }) => Some(Activity::Input),
                Some(Blocked::Output { .. }) => Some(Activity::Output),
                None if weights => Some(Activity::Weights),
                None if dma.is_none() && self.partition_busy[partition] => Some(Activity::Turn),
                None => None,
            };
            if let Some(activity) = waits_for {
                self.stages[stage].turn_to(self.now, activity);
                continue;
            }
            self.running[stage] = true;
            if let Some(dma) = dma {
                self.stages[stage].turn_to(self.now, Activity::Turn);
                self.under_way[dma as usize] += 1;
                self.rows.push_back(stage);
                self.serve(queue);
                continue;
            }
            let switching = match self.turned_to[partition] {
                Some(last) if last != stage => u64::from(self.target.switch.stage_cycles),
                _ => 0,
            };
            self.turned_to[partition] = Some(stage);
            self.partition_busy[partition] = true;
            let step = TimeUse { busy: self.cycles[stage], switching, ..TimeUse::default() };
            self.stages[stage].spend(self.now, &step, stage);
            self.partitions[partition].spend(self.now, &step, stage);
            self.at(self.now + step.total(), Event::Step(stage));
        }
    }

    /// Tells partitions and queues what they do now.
    fn observe(&mut self, queue: &LoadQueue) {
        for (partition, stages) in self.of_partition.iter().enumerate() {
            if !self.partition_busy[partition] {
                let activity = waits_for(&self.stages, stages);
                self.partitions[partition].turn_to(self.now, activity);
            }
        }
        for kind in Queue::ALL {
            let asked = kind == Queue::Weights && !queue.requested.is_empty();
            let served = self.serving.filter(|transfer| transfer.queue == kind);
            let activity = if served.is_some() {
                Activity::Busy
            } else if asked || self.under_way[kind as usize] > 0 {
                Activity::Turn
            } else {
                waits_for(&self.stages, &self.of_queue[kind as usize])
            };
            let stage = served.and_then(|transfer| transfer.stage);
            self.queues[kind as usize].turn_to_stage(self.now, activity, stage);
        }
    }

    /// Gives the free DRAM channel its next transfer: a row if one waits, else a burst of weights.
    fn serve(&mut self, queue: &mut LoadQueue) {
        if self.dram_busy {
            return;
        }
        let latency = u64::from(self.target.dram.latency_cycles);
        let took = if let Some(stage) = self.rows.pop_front() {
            let busy = dram_cycles(self.target, self.row_bytes[stage]);
            // The engine asks for a stream's rows ahead, so that the latency is paid once a stage.
            let waiting_turn = if self.flow.done(stage) == 0 { latency } else { 0 };
            let row = TimeUse { busy, waiting_turn, ..TimeUse::default() };
            self.stages[stage].spend(self.now, &row, stage);
            let queue = Queue::of(&self.program.phases[self.index].stages[stage].code.head);
            self.serving = queue.map(|queue| Transfer { queue, stage: Some(stage) });
            self.at(self.now + row.total(), Event::Row(stage));
            busy
        } else if let Some(left) = queue.requested.front_mut() {
            let bytes = (*left).min(BURST_BYTES);
            *left -= bytes;
            let last = *left == 0;
            if last {
                queue.requested.pop_front();
            }
            let took = dram_cycles(self.target, bytes);
            self.serving = Some(Transfer::WEIGHTS);
            self.under_way[Queue::Weights as usize] += 1;
            self.at(self.now + took + latency, Event::Burst(u64::from(last)));
            took
        } else {
            return;
        };
        self.dram_busy = true;
        self.at(self.now + took, Event::DramFree);
    }
}

/// What stages none of which is in a step wait for together; see [`TimeUse`].
fn waits_for(meters: &[Meter], stages: &[usize]) -> Activity {
    let activities = || stages.iter().map(|&stage| meters[stage].activity());
    if activities().any(|activity| activity == Activity::Weights) {
        return Activity::Weights;
    }
    activities().rev().find(|activity| *activity != Activity::Idle).unwrap_or(Activity::Idle)
}
