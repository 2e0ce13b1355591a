//! `schedule`: a plan to a program with every address.
//!
//! | module | what it decides |
//! |---|---|
//! | `blocks` | addresses of resident tensors of which some take the space of others |
//! | `packing` | the same, where choosing between the ends of memory is not enough |
//! | `streams` | rings and resident tensors of every phase, their DMA stages, and their addresses |
//! | `weights` | where each stage's tables stand in weight SRAM, and which loads each phase makes |
//! | `load_queue` | when each load is queued |
//! | `phase` | a phase of the machine, from a plan and such places |
//! | `check` | an independent count of what the result moves and holds |
//!
//! The pass takes a module whose stages stand in `strata.phase` ops, in the plan's order, and leaves what it
//! adds to them and to the plan in the attributes of [`strata_isa_spec::record`]. It changes no op,
//! and decides neither what runs together nor where a tensor lives: that is the plan's.

mod blocks;
mod check;
mod live;
mod load_queue;
pub mod occupancy;
mod packing;
pub mod phase;
mod streams;
mod weights;

use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo};
use strata_ir::{Attribute, Module, Op, OpId};
use strata_isa_spec::record::{self, PhasePlacement, TablePlacement};
use strata_isa_spec::{Mapping, Program, Segment, SegmentKind, Stage, Target};
use streams::Piece;

use crate::cost::transfers::Transfer;
use crate::model::graph::{GraphError, Topology, views_meet};
use crate::model::plan::phase_of;
use crate::model::{Bases, BufferId, BufferRole, Plan, StageGraph, StageId};
use crate::place::phase::machine_phase;
use crate::select::{self, main_function};
pub use weights::{FARTHEST_PREFETCH, Weights};

/// The row of [`Schedule`].
pub static SCHEDULE: PassInfo = PassInfo {
    name: "schedule",
    doc: "Gives every ring, resident tensor and table an address, adds the DMA stages, and orders weight \
        loads so that \
          they run in the background of earlier phases.",
    takes: &[Level::Phases],
    gives: Some(Level::Sched),
    options: &[],
    build: |_| Arc::new(Schedule),
};

/// Lowers a plan to addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule;

/// Why a plan has no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The phases of the module are not those of the plan.
    #[error("the module has {module} phases and stages, the plan {plan}")]
    OtherPlan {
        /// Phases and stages of the module.
        module: String,
        /// Phases and stages of the plan.
        plan: String,
    },
    /// Streams or tables have no addresses.
    #[error("phase {phase} needs at least {missing_bytes} bytes more of {memory}, for {}", names.join(", "))]
    DoesNotFit {
        /// The memory.
        memory: &'static str,
        /// The phase in which the most is live.
        phase: usize,
        /// What is live there.
        names: Vec<String>,
        /// Bytes that are missing at the least.
        missing_bytes: u64,
    },
    /// What was made does not do what the plan says: a defect of the scheduler.
    #[error("the schedule is not what was planned: {0}")]
    Unsound(String),
}

/// A schedule: the program, the places of tables, and the names that stages refer to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduled {
    /// The program.
    pub program: Program,
    /// What the phases of the program have beside the code of stages and the plan.
    pub placements: Vec<PhasePlacement>,
    /// Where each table lies in the weight segment. `constant` is filled by the pass, which knows the IR.
    pub tables: Vec<TablePlacement>,
    /// Names of source layers.
    pub names: Vec<String>,
    /// Where streams stand.
    pub bases: Bases,
    /// Where tables stand, which depends on the plan's phases only.
    pub weights: Weights,
}

/// What all parts of the scheduler read.
struct PlacementProblem<'a> {
    graph: &'a StageGraph,
    topology: &'a Topology,
    plan: &'a Plan,
    target: &'a Target,
    /// Stages of each phase, in order.
    phases: Vec<Vec<StageId>>,
    /// Phase of each stage.
    phase_of: SecondaryMap<StageId, usize>,
    /// Nodes that one search for addresses may visit.
    address_nodes: u64,
}

/// Nodes that a search for addresses may visit.
const ADDRESS_NODES: u64 = 400_000;

impl<'a> PlacementProblem<'a> {
    /// The problem of a plan whose phases hold these stages.
    fn new(
        graph: &'a StageGraph,
        topology: &'a Topology,
        plan: &'a Plan,
        target: &'a Target,
        phases: Vec<Vec<StageId>>,
    ) -> Self {
        let phase_of = phase_of(&phases);
        Self { graph, topology, plan, target, phases, phase_of, address_nodes: ADDRESS_NODES }
    }

    /// Whether a buffer is whole in activation SRAM during a phase.
    fn is_whole(&self, buffer: BufferId, phase: usize) -> bool {
        let until = self.plan.residency.get(buffer).and_then(|r| r.kept_until);
        until.is_some_and(|until| phase <= until as usize)
            && self.birth(buffer).is_some_and(|first| first <= phase)
    }

    /// The phase that first writes a buffer, or reads it if none writes it.
    fn birth(&self, buffer: BufferId) -> Option<usize> {
        let uses = &self.topology.uses[buffer];
        let users = if uses.writers.is_empty() { &uses.readers } else { &uses.writers };
        users.iter().map(|(stage, _)| self.phase_of[*stage]).min()
    }

    /// The first row that some later phase loads of what a phase writes and stores.
    fn first_loaded_later(&self, stored: &Transfer, phase: usize) -> u32 {
        let readers = self.topology.uses[stored.buffer].readers.iter();
        let readers = readers.filter(|(_, read)| views_meet(read, &stored.view));
        let later = readers.map(|(reader, _)| self.phase_of[*reader]);
        let loading = later.filter(|&later| later > phase && !self.is_whole(stored.buffer, later));
        loading.map(|later| self.plan.staying_rows(stored.buffer, phase, later)).min().unwrap_or(0)
    }

    /// Bytes of activation SRAM that streams may take: as far as an aligned one can end.
    fn activation_bytes(&self) -> u64 {
        let alignment = u64::from(self.target.memory.alignment.max(1));
        self.target.memory.activation.min(self.plan.activation_bytes) / alignment * alignment
    }

    /// Rounds up to the target's alignment.
    fn align(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(u64::from(self.target.memory.alignment.max(1)))
    }
}

/// Schedules a plan whose phases hold the stages of `graph` in order: phase 0 has the first stages, and so
/// on.
///
/// # Errors
/// If the plan is of another graph, or there are no addresses.
pub fn schedule(graph: &StageGraph, plan: &Plan, target: &Target) -> Result<Scheduled, ScheduleError> {
    scheduled(
        graph,
        &Topology::new(graph)?,
        plan,
        target,
        Known { address_nodes: ADDRESS_NODES, weights: None },
    )
}

/// What is known of a schedule before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Nodes that the search for addresses of streams may visit.
    pub address_nodes: u64,
    /// Where tables stand, and when they are loaded, if a schedule of the same phases told.
    pub weights: Option<&'a Weights>,
}

/// [`schedule`] of a plan of the same phases as one whose tables have addresses, with a search for those of
/// streams that is limited.
///
/// # Errors
/// If the plan is of another graph, or no addresses were found.
pub fn schedule_within(
    graph: &StageGraph,
    topology: &Topology,
    plan: &Plan,
    target: &Target,
    known: Known<'_>,
) -> Result<Scheduled, ScheduleError> {
    scheduled(graph, topology, plan, target, known)
}

/// The schedule of a plan, with tables where they are known to be.
fn scheduled(
    graph: &StageGraph,
    topology: &Topology,
    plan: &Plan,
    target: &Target,
    Known { address_nodes, weights }: Known<'_>,
) -> Result<Scheduled, ScheduleError> {
    let n_planned: usize = plan.phases.iter().map(|p| p.stages.len()).sum();
    if n_planned != graph.stages.len() {
        let module = format!("{} stages", graph.stages.len());
        return Err(ScheduleError::OtherPlan { module, plan: format!("{n_planned} stages") });
    }
    let mut stages = graph.stages.keys();
    let phases: Vec<Vec<StageId>> =
        plan.phases.iter().map(|phase| stages.by_ref().take(phase.stages.len()).collect()).collect();
    let problem =
        PlacementProblem { address_nodes, ..PlacementProblem::new(graph, topology, plan, target, phases) };
    let mut segments = outside_segments(graph);
    let streams = streams::place(&problem, &mut segments)?;
    let weights = weights.map_or_else(|| weights::place(&problem), |known| Ok(known.clone()))?;
    segments.push(Segment { kind: SegmentKind::Weights, bytes: weights.segment_bytes });

    let mut names: Vec<String> = graph.stages.values().map(|node| node.name.clone()).collect();
    let mut machine_phases = Vec::with_capacity(problem.phases.len());
    let mut placements = Vec::with_capacity(problem.phases.len());
    for (index, stages) in problem.phases.iter().enumerate() {
        let planned = &plan.phases[index];
        let places = PhasePlacement {
            loads: weights.loads[index].clone(),
            tensors: streams.of_phase(index),
            stages: stages.iter().map(|&stage| weights.of_stage(stage)).collect(),
            before: transfers(&streams.loads[index], &mut names),
            after: transfers(&streams.stores[index], &mut names),
        };
        let phase = machine_phase(graph, stages, planned, &places).map_err(ScheduleError::Unsound)?;
        machine_phases.push(phase);
        placements.push(places);
    }
    let program = Program { segments, streams: streams.streams, phases: machine_phases };
    check::check(&program, plan).map_err(ScheduleError::Unsound)?;
    let tables = weights.tables.clone();
    Ok(Scheduled { program, placements, tables, names, bases: streams.bases, weights })
}

/// How many bytes before the tensor whose space it takes each growing tensor of a plan has to begin, by the
/// row tokens of its phase as it will be scheduled.
pub fn growth_gaps(
    graph: &StageGraph,
    topology: &Topology,
    plan: &Plan,
    target: &Target,
) -> Vec<(BufferId, u64)> {
    let phases: Vec<Vec<StageId>> =
        plan.phases.iter().map(|phase| phase.stages.iter().map(|placed| placed.stage).collect()).collect();
    let problem = PlacementProblem::new(graph, topology, plan, target, phases);
    (0..problem.phases.len()).flat_map(|phase| streams::growth_gaps(&problem, phase)).collect()
}

/// DMA stages. They take no clusters, so their partition does not matter.
fn transfers(pieces: &[Piece], names: &mut Vec<String>) -> Vec<Stage> {
    let mut stages = Vec::with_capacity(pieces.len());
    for piece in pieces {
        stages.push(Stage {
            partition: 0,
            wait_loads: 0,
            mapping: Mapping::default(),
            code: piece.code.clone(),
            source: names.len() as u32,
        });
        names.push(piece.name.clone());
    }
    stages
}

/// One segment an input and an output, in the order of the function's arguments and results.
fn outside_segments(graph: &StageGraph) -> Vec<Segment> {
    let mut inputs: Vec<(u32, u64)> = Vec::new();
    let mut outputs: Vec<(u32, u64)> = Vec::new();
    for buffer in graph.buffers.values() {
        match buffer.role {
            BufferRole::Input(at) => inputs.push((at, buffer.size_bytes())),
            BufferRole::Output(at) => outputs.push((at, buffer.size_bytes())),
            BufferRole::Internal => {}
        }
    }
    inputs.sort_unstable();
    outputs.sort_unstable();
    let of = |kind: SegmentKind| move |(_, bytes): (u32, u64)| Segment { kind, bytes };
    let outputs = outputs.into_iter().map(of(SegmentKind::Output));
    inputs.into_iter().map(of(SegmentKind::Input)).chain(outputs).collect()
}

impl Pass for Schedule {
    fn info(&self) -> &'static PassInfo {
        &SCHEDULE
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let func = main_function(module)?;
        let target = context.require::<Target>("a target")?.clone();
        let plan = Plan::from_module(module, func)?;
        let graph = StageGraph::from_module(module, func).map_err(PassError::other)?;
        // A plan that comes from a file may be of anything.
        if let Err(faults) = crate::check::check(&graph, &target, &plan) {
            return Err(PassError::Invalid(faults.iter().map(ToString::to_string).collect()));
        }
        let phases: Vec<OpId> = (module.block_ops(module.entry_block(func)).iter().copied())
            .filter(|&op| matches!(module.op(op).op, Op::Phase(_)))
            .collect();
        let mut scheduled = schedule(&graph, &plan, &target).map_err(PassError::other)?;
        if phases.len() != scheduled.program.phases.len() {
            let (found, expected) = (phases.len(), scheduled.program.phases.len());
            return Err(PassError::invalid(format!("{found} phases in the module, {expected} in the plan")));
        }
        for table in &mut scheduled.tables {
            let stage = graph.stages[StageId::from_u32(table.stage)].op;
            table.constant =
                select::graph::table_constant(module, stage, table.table).map_err(PassError::other)?;
        }
        let entry = |value: Result<Attribute, _>| value.map_err(PassError::other);
        let program = &scheduled.program;
        let extra = &mut module.op_mut(func).extra;
        extra.insert(record::SEGMENTS.to_owned(), entry(Attribute::from_serde(&program.segments))?);
        extra.insert(record::STREAMS.to_owned(), entry(Attribute::from_serde(&program.streams))?);
        extra.insert(record::NAMES.to_owned(), entry(Attribute::from_serde(&scheduled.names))?);
        extra.insert(record::TABLE_PLACES.to_owned(), entry(Attribute::from_serde(&scheduled.tables))?);
        for (&op, places) in phases.iter().zip(&scheduled.placements) {
            module.op_mut(op).extra.insert(record::PLACES.to_owned(), entry(Attribute::from_serde(places))?);
        }
        Level::Sched.mark(module);
        Ok(Changed::Yes)
    }
}
