//! The planning problem and its answer: which stages run together, on which clusters, and where every boundary
//! tensor lives.
//!
//! [`StageGraph`] is read off the `stages` phase of the IR; a planner answers with a [`Plan`]; the scheduler lowers
//! the plan to rings, addresses and DMA. These types are the seam between the three, and plain data.
//!
//! | module | what it holds |
//! |---|---|
//! | [`graph`] | sets of stages, dependences, convexity |
//! | [`rings`] | row slots of every ring, by token simulation |
//! | [`transfers`] | what a phase loads and stores, given where buffers live |
//! | [`cost`] | a stage's cycles by clusters, a pipeline's time, weights of objectives |
//! | [`edges`] | what a phase waits for at its begin and its end |
//! | [`mappings`] | the best ways to divide clusters among a stage's work, remembered |
//! | [`partition`] | division of the array among stages |
//! | [`egraph`] | the e-graph that offers sets of stages |
//! | [`in_place`] | which tensors may be written in the very bytes of others |
//! | [`fronts`] | first rows of tensors that stay in SRAM where the rest of them does not |
//! | [`prefetch`] | first rows of what a phase loads, brought by the phase before |
//! | [`strips`] | sets of stages run a window of columns at a time |
//! | [`tables`] | which tables a phase holds and loads |
//! | [`twins`] | stages whose order makes no difference |
//! | [`columns`] | sets of stages evaluated as phases |
//! | [`shapes`] | sets that cost the same |
//! | [`offered`] | sets as columns, evaluated when they are asked for |
//! | [`choose`] | exact choice among columns by dynamic programming over cuts |
//! | [`solve`] | [`solve::plan`]: all of it, in order |
//! | [`too_large`] | stages that do not fit a target even alone, and what would do |
//! | [`bound`] | what no plan can beat |
//! | [`check`] | an independent judge of plans |
//! | [`pass`] | the pass `fuse-layers` |
//! | [`summary`] | the article's table of activation sizes |

pub mod bound;
pub mod check;
pub mod choose;
pub mod columns;
pub mod cost;
pub mod edges;
pub mod egraph;
pub mod fronts;
pub mod graph;
pub mod in_place;
pub mod mappings;
pub mod offered;
pub mod partition;
pub mod pass;
pub mod prefetch;
pub mod rings;
pub mod shapes;
pub mod solve;
pub mod strips;
pub mod summary;
pub mod tables;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod too_large;
pub mod transfers;
pub mod twins;

pub use pass::{FUSE_LAYERS, FuseLayers};
pub use solve::{PlanError, PlanOptions, Planned, plan};

use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};
use strata_ir::OpId;
use strata_isa_spec::inst::Elem;
use strata_isa_spec::{Mapping, StageCode, View};

/// A stage of the graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageId(u32);
entity_impl!(StageId, "stage");

/// A buffer: a `[rows, cols, chs]` activation tensor with storage of its own. Concatenations are one buffer that several
/// stages write; slices are views of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BufferId(u32);
entity_impl!(BufferId, "buffer");

/// What fills a buffer from outside, or takes it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferRole {
    /// Written and read by stages only.
    Internal,
    /// Argument `0` of the function: stands in DRAM at the start.
    Input(u32),
    /// Result `0` of the function: must stand in DRAM at the end. Stages may read it too.
    Output(u32),
}

/// An activation tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// The layer that makes it.
    pub name: String,
    /// Element type.
    pub elem: Elem,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// Channels.
    pub chs: u32,
    /// Whether it is an input or an output.
    pub role: BufferRole,
}

impl Buffer {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.cols) * u64::from(self.chs) * u64::from(self.elem.size_bytes())
    }

    /// Bytes of the whole tensor.
    pub fn size_bytes(&self) -> u64 {
        u64::from(self.rows) * self.row_bytes()
    }
}

/// One hardware stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageNode {
    /// The layer it came from.
    pub name: String,
    /// The `strata.stage` op.
    pub op: OpId,
    /// What it computes. Views name buffers (`view.stream` is a [`BufferId`]'s index); weight addresses are indices into
    /// `table_bytes`. Winograd is not yet chosen.
    pub code: StageCode,
    /// Sizes of its weights, biases and tables.
    pub table_bytes: Vec<u32>,
    /// Stages of one number have the same tables, which stand once in DRAM and once in weight SRAM.
    pub table_set: Option<u32>,
    /// Whether its TOSA ops can compute a window of columns, if its code can.
    pub by_columns: bool,
}

impl StageNode {
    /// Bytes of weight SRAM that the stage's tables take, without alignment.
    pub fn weight_bytes(&self) -> u64 {
        self.table_bytes.iter().map(|&b| u64::from(b)).sum()
    }
}

/// The stages of a function in topological order, and the buffers between them.
#[derive(Clone, Debug, Default)]
pub struct StageGraph {
    /// Buffers.
    pub buffers: PrimaryMap<BufferId, Buffer>,
    /// Stages; the order is topological.
    pub stages: PrimaryMap<StageId, StageNode>,
}

impl StageGraph {
    /// Bytes of a view of a buffer.
    pub fn view_bytes(&self, view: &View) -> u64 {
        let buffer = self.buffers.get(BufferId::from_u32(view.stream));
        view.n_elements() * u64::from(buffer.map_or(1, |buffer| buffer.elem.size_bytes()))
    }
}

/// What a plan minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Cycles of one inference.
    #[default]
    Latency,
    /// Energy of one inference.
    Energy,
    /// DRAM bytes of one inference.
    Traffic,
    /// Energy times delay.
    Edp,
    /// Bytes of activation SRAM at the peak; among equals, DRAM bytes.
    Sram,
}

/// Whether phases may hold more than one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Multi-layer.
    #[default]
    Multi,
    /// The layer-at-a-time machine: one stage a phase.
    Single,
}

/// A stage's place in a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The stage.
    pub stage: StageId,
    /// Its partition, an index into the phase's.
    pub partition: u32,
    /// How the array is divided.
    pub mapping: Mapping,
    /// Whether it runs as Winograd.
    pub winograd: bool,
}

/// A phase of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasePlan {
    /// Clusters of each partition.
    pub partitions: Vec<u32>,
    /// Its stages, in topological order.
    pub stages: Vec<Placement>,
    /// How its rings are sized: what [`rings::ring_slots`] is to be called with.
    pub slack: rings::Slack,
    /// What the planner predicts of it, in cycles.
    pub predicted_cycles: u64,
}

/// Where a buffer that crosses phases lives. [`transfers`] says what is moved for it. A buffer used in one phase only (and neither input nor output) has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Last phase up to which the whole tensor stays in activation SRAM, from the phase that first writes (or loads) it:
    /// the last that uses it there. `None` if it is never whole in SRAM.
    pub kept_until: Option<u32>,
    /// Whether it is stored to DRAM as it is written (always so for outputs; inputs stand there already).
    pub stored: bool,
    /// The tensor whose space it takes as that is read for the last time, in the phase that first writes this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grows_into: Option<GrowsInto>,
    /// The tensor in whose very bytes it is written, element by element, as that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place_of: Option<BufferId>,
}

/// How a tensor shares bytes with one that dies in the phase in which it is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowsInto {
    /// The one that dies.
    pub buffer: BufferId,
    /// How many bytes before it the new one begins: far enough that no row is written before those that stand there are
    /// passed.
    pub gap_bytes: u64,
}

impl GrowsInto {
    /// Bytes that both take together, for their own sizes.
    pub fn union_bytes(&self, dying: u64, growing: u64) -> u64 {
        (dying + self.gap_bytes).max(growing)
    }
}

/// First rows of a tensor that are in activation SRAM where the tensor as a whole is not. Those that stay from the phase that first
/// writes the tensor are moved less often; those of a later phase are loaded by it, ahead of the phase that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontRows {
    /// The tensor.
    pub buffer: BufferId,
    /// How many of its rows.
    pub rows: u32,
    /// The phase in which they come: it writes them, or else loads them.
    pub from: u32,
    /// The last phase that reads them there.
    pub until: u32,
}

/// Where streams stand in activation SRAM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bases {
    /// Rings and whole tensors, by buffer and phase.
    pub streams: Vec<StreamBase>,
    /// First rows that stay, in the order of [`Plan::fronts`]: the first byte of those beyond the next that stay longer.
    pub fronts: Vec<u64>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBase {
    /// The tensor that it holds, or the part of it that a phase uses.
    pub buffer: BufferId,
    /// The first phase in which it does.
    pub phase: u32,
    /// The first byte.
    pub base: u64,
    /// Bytes that it may take.
    pub bytes: u64,
}

/// DRAM bytes of one inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DramBytes {
    /// Weights, biases and tables read.
    pub weights: u64,
    /// Network inputs read.
    pub inputs: u64,
    /// Network outputs written.
    pub outputs: u64,
    /// Activations stored.
    pub spill_write: u64,
    /// Activations loaded back (and inputs read more than once).
    pub spill_read: u64,
    /// All of these.
    pub total: u64,
    /// What no plan can avoid: weights, inputs and outputs once.
    pub compulsory: u64,
}

/// Why a plan is as good as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Predicted cost under the objective, in its unit (cycles, picojoules, bytes, picojoule-cycles).
    pub cost: f64,
    /// No plan costs less; 0 where no bound is known, as for [`Objective::Sram`].
    pub lower_bound: f64,
    /// No plan takes fewer cycles.
    pub lower_bound_cycles: u64,
    /// `cost / lower_bound - 1`.
    pub gap: f64,
    /// Whether the chooser proved the plan optimal over the groups it was offered.
    pub proven_optimal: bool,
}

/// A whole plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it minimises.
    pub objective: Objective,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// Phases in order.
    pub phases: Vec<PhasePlan>,
    /// Where each buffer lives, by buffer index.
    pub residency: Vec<Residency>,
    /// First rows that are in SRAM longer or earlier than the tensors that they are of. Of one tensor, those that come in one phase
    /// stay the less long the more they are, and those that come in another come after these are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fronts: Vec<FrontRows>,
    /// Addresses, if they are not the scheduler's to find: fronts were fitted between those that it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<Bases>,
    /// Bytes of activation SRAM in which it was planned; the scheduler uses no more.
    pub activation_bytes: u64,
    /// Predicted cycles: those of its phases.
    pub cycles: u64,
    /// Cycles by the closed form with which the search compared plans. Once a plan has addresses, `cycles` and those of its
    /// phases are the timed simulation's of what was scheduled.
    pub search_cycles: u64,
    /// Predicted traffic.
    pub dram_bytes: DramBytes,
    /// Bounds.
    pub certificate: Certificate,
}

impl Plan {
    /// How many first rows of a tensor are in activation SRAM as a phase begins, if not all are.
    pub fn front_rows(&self, buffer: BufferId, phase: usize) -> u32 {
        phase.checked_sub(1).map_or(0, |before| self.staying_rows(buffer, before, phase))
    }

    /// How many first rows of a tensor stay in activation SRAM from one phase, or before it, to a later one, if not all do.
    pub fn staying_rows(&self, buffer: BufferId, since: usize, phase: usize) -> u32 {
        let stays = |front: &&FrontRows| front.from as usize <= since && phase <= front.until as usize;
        let fronts = self.fronts.iter().filter(|front| front.buffer == buffer);
        fronts.filter(stays).map(|front| front.rows).max().unwrap_or(0)
    }
}
