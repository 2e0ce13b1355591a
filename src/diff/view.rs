//! A plan as far as a file tells of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_backend::model::{Plan, StageGraph};
use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::timed::{self, Timing};
use strata_isa_spec::{Head, Phase, Program, Stage, Target};

use super::figures::{self, Figure, Unit};
use crate::inspect::program::latest_load;
use crate::stats::{SimulatedStats, Stats};

/// What is known of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanView {
    /// Its figures, in the order in which they are shown.
    pub figures: Vec<Figure>,
    /// Cycles of each phase, where they are known.
    pub phase_cycles: Vec<u64>,
    /// Its stages, without transfers.
    pub stages: Vec<PlacedStage>,
    /// Its streams, where they have places.
    pub streams: Vec<PlacedStream>,
    /// When the weights of its stages are loaded, where that is decided.
    pub weights: Vec<WeightTime>,
}

/// What tells one stage, stream or op of a plan from the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The layer.
    pub name: String,
    /// What it computes: the head's mnemonic, the op.
    pub op: String,
    /// Which one of those that have the same name and op, in order.
    pub nth: u32,
}

/// A stage and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedStage {
    /// Which stage.
    #[serde(flatten)]
    pub key: Key,
    /// Its phase; those of several programs are counted on.
    pub phase: u32,
    /// Its partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Clusters of its partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<u32>,
    /// Whether it runs as Winograd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winograd: Option<bool>,
}

/// A stream and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedStream {
    /// The stage that writes it, and which of its streams it is.
    #[serde(flatten)]
    pub key: Key,
    /// The first phase that uses it.
    pub first_phase: u32,
    /// The last phase that uses it.
    pub last_phase: u32,
    /// Its address in activation SRAM.
    pub base: u32,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Slots for rows.
    pub slots: u32,
    /// Rows of the tensor.
    pub rows: u32,
    /// First rows that stand in a stream of their own.
    pub prefix_rows: u32,
}

impl PlacedStream {
    /// Whether it stays from one phase to another.
    pub fn is_resident(&self) -> bool {
        self.last_phase > self.first_phase
    }
}

/// When the weights of a stage come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightTime {
    /// The stage.
    #[serde(flatten)]
    pub key: Key,
    /// Bytes of its tables.
    pub bytes: u64,
    /// The phase that loads them.
    pub loaded_in: u32,
    /// The phase that uses them.
    pub used_in: u32,
}

impl WeightTime {
    /// Whether they come in a phase before the one that uses them.
    pub fn is_early(&self) -> bool {
        self.loaded_in < self.used_in
    }
}

/// Numbers what has the same name and op.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<(String, String), u32>);

impl Keys {
    pub(super) fn next(&mut self, name: &str, op: &str) -> Key {
        let n = self.0.entry((name.to_owned(), op.to_owned())).or_default();
        *n += 1;
        Key { name: name.to_owned(), op: op.to_owned(), nth: *n - 1 }
    }
}

/// A program with the names of its source layers.
#[derive(Clone, Copy, Debug)]
pub struct NamedProgram<'a> {
    /// The program, which verifies on the target.
    pub program: &'a Program,
    /// Names of source layers.
    pub names: &'a [String],
}

impl PlanView {
    /// The view of programs that run one after another on a target, on which they verify. What is known of
    /// the plan as a whole stands in `stats`.
    pub fn of_programs(programs: &[NamedProgram], target: &Target, stats: Option<&Stats>) -> Self {
        let timings: Vec<Timing> =
            programs.iter().map(|named| timed::simulate(named.program, target)).collect();
        let compulsory = stats.map_or(0, |stats| stats.plan.dram_bytes.compulsory);
        let simulated = SimulatedStats::of_all(&timings, target.array.clock_hz, compulsory);
        let stream = stats.and_then(|stats| stats.simulated.as_ref()?.stream.clone());
        let simulated = simulated.map(|simulated| SimulatedStats { stream, ..simulated });
        let mut view = Self::default();
        let mut reader = ProgramReader::default();
        for named in programs {
            reader.read(*named, &mut view);
        }
        view.phase_cycles =
            timings.iter().flat_map(|timing| &timing.phases).map(|phase| phase.cycles).collect();
        let stats = Stats { simulated, ..stats.cloned().unwrap_or_default() };
        view.figures = figures::of_statistics(&stats, !programs.is_empty());
        let idle = timings.iter().map(|timing| (timing.cycles * target.macs()).saturating_sub(timing.macs));
        let idle = idle.sum::<u64>() as f64;
        view.figures.push(Figure { key: "idle_macs".to_owned(), unit: Unit::Count, value: idle });
        view.push_placed_bytes();
        view
    }

    /// The view of statistics.
    pub fn of_stats(stats: &Stats) -> Self {
        let mut view = Self { figures: figures::of_statistics(stats, false), ..Self::default() };
        let phases = stats.simulated.iter().flat_map(|simulated| &simulated.phases);
        let mut keys = Keys::default();
        for (phase, index) in phases.zip(0..) {
            view.phase_cycles.push(phase.cycles);
            for stage in &phase.stages {
                // Of a transfer there is no partition.
                let Some(partition) = stage.partition else { continue };
                let clusters = phase.partitions.get(partition as usize).map(|partition| partition.clusters);
                let key = keys.next(&stage.name, &stage.head);
                let partition = Some(partition);
                view.stages.push(PlacedStage { key, phase: index, partition, clusters, winograd: None });
            }
        }
        view
    }

    /// The view of a plan of the IR.
    pub fn of_plan(plan: &Plan, graph: &StageGraph) -> Self {
        let mut view = Self { figures: figures::of_plan(plan), ..Self::default() };
        let mut keys = Keys::default();
        for (phase, index) in plan.phases.iter().zip(0..) {
            view.phase_cycles.push(phase.predicted_cycles);
            for placed in &phase.stages {
                let Some(node) = graph.stages.get(placed.stage) else { continue };
                // The head as a program has it, for its mnemonic; what it names does not matter.
                let head: Head = node.code.head.map(&mut |view| view.of(0), &mut |_| WeightAddr(0));
                view.stages.push(PlacedStage {
                    key: keys.next(&node.name, head.mnemonic()),
                    phase: index,
                    partition: Some(placed.partition),
                    clusters: phase.partitions.get(placed.partition as usize).copied(),
                    winograd: Some(placed.winograd),
                });
            }
        }
        view
    }

    /// Adds the figures that its weights and streams give.
    fn push_placed_bytes(&mut self) {
        let early = self.weights.iter().filter(|weights| weights.is_early());
        let value = early.map(|weights| weights.bytes).sum::<u64>() as f64;
        let resident = self.streams.iter().filter(|stream| stream.is_resident());
        let resident = resident.map(|stream| stream.bytes).sum::<u64>() as f64;
        for (key, value) in [("weights_loaded_early_bytes", value), ("resident_stream_bytes", resident)] {
            self.figures.push(Figure { key: key.to_owned(), unit: Unit::Bytes, value });
        }
    }
}

/// Reads programs one after another.
#[derive(Default)]
struct ProgramReader {
    stages: Keys,
    streams: Keys,
    weights: Keys,
    /// Phases of the programs before.
    n_phases: u32,
}

impl ProgramReader {
    fn read(&mut self, named: NamedProgram, view: &mut PlanView) {
        let program = named.program;
        let name = |stage: &Stage| named.names.get(stage.source as usize).map_or("", String::as_str);
        let loads: Vec<_> = program.phases.iter().flat_map(|phase| &phase.loads).copied().collect();
        let load_phases: Vec<u32> = (program.phases.iter().zip(self.n_phases..))
            .flat_map(|(phase, at)| phase.loads.iter().map(move |_| at))
            .collect();
        for (phase, at) in program.phases.iter().zip(self.n_phases..) {
            for stage in phase.stages.iter().filter(|stage| !is_transfer(stage)) {
                let head = stage.code.head.mnemonic();
                view.stages.push(PlacedStage {
                    key: self.stages.next(name(stage), head),
                    phase: at,
                    partition: Some(stage.partition),
                    clusters: phase.partitions.get(stage.partition as usize).copied(),
                    winograd: Some(is_winograd(stage)),
                });
                let key = self.weights.next(name(stage), head);
                let done = &loads[..(stage.wait_loads as usize).min(loads.len())];
                let tables = stage.code.tables();
                let first = tables.iter().find_map(|(address, _)| latest_load(done, *address));
                if let Some(load) = first {
                    let bytes = tables.iter().map(|(_, bytes)| bytes).sum();
                    let loaded_in = load_phases[load];
                    view.weights.push(WeightTime { key, bytes, loaded_in, used_in: at });
                }
            }
        }
        self.read_streams(named, view);
        self.n_phases += program.phases.len() as u32;
    }

    fn read_streams(&mut self, named: NamedProgram, view: &mut PlanView) {
        let program = named.program;
        let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
        for (phase, at) in program.phases.iter().zip(self.n_phases..) {
            mark(program, named.names, phase, at, &mut spans);
        }
        for (stream, Span { first, last, writer, op }) in spans {
            let Some(placed) = program.streams.get(stream as usize) else { continue };
            view.streams.push(PlacedStream {
                key: self.streams.next(&writer, op),
                first_phase: first,
                last_phase: last,
                base: placed.base,
                bytes: placed.size_bytes(),
                slots: placed.slots,
                rows: placed.rows,
                prefix_rows: placed.prefix.map_or(0, |prefix| prefix.rows),
            });
        }
    }
}

/// From which phase to which a stream is used, and who writes it first.
struct Span {
    first: u32,
    last: u32,
    writer: String,
    op: &'static str,
}

/// Marks the streams that a phase uses.
fn mark(program: &Program, names: &[String], phase: &Phase, at: u32, spans: &mut BTreeMap<u32, Span>) {
    for stage in &phase.stages {
        let writer = names.get(stage.source as usize).cloned().unwrap_or_default();
        let written = (!matches!(stage.code.head, Head::DmaOut(_))).then_some(stage.code.out.tensor);
        let read = stage.code.reads().into_iter().map(|view| view.tensor);
        for stream in read.chain(written).flat_map(|stream| program.chain(stream)) {
            let op = stage.code.head.mnemonic();
            let span =
                spans.entry(stream).or_insert(Span { first: at, last: at, writer: writer.clone(), op });
            span.last = at;
        }
    }
}

fn is_transfer(stage: &Stage) -> bool {
    matches!(stage.code.head, Head::DmaIn(_) | Head::DmaOut(_))
}

fn is_winograd(stage: &Stage) -> bool {
    matches!(&stage.code.head, Head::Conv2d(head) | Head::Conv2dI16(head) if head.winograd)
}
