//! Stages, the tensors between them, and the plan of how they run: the words that planner, placement and
//! judges share.
//!
//! [`StageGraph`] is read off the `stages` level of the IR; the planner answers with a [`Plan`];
//! [`place`](crate::place) lowers the plan to rings, addresses and DMA. These types are plain data.
//!
//! | module | what it holds |
//! |---|---|
//! | [`graph`] | sets of stages, dependences, convexity |
//! | [`plan`](mod@plan) | which stages run together, on which clusters, and where tensors live |
//! | [`realised`] | a stage graph of which some stages are column strips of others |
//! | [`tables`] | which tables a phase holds and loads |
//! | [`summary`] | the article's table of activation sizes |
//! | [`samples`] | stage graphs of published networks, for tests |

pub mod graph;
pub mod plan;
pub mod realised;
pub mod samples;
pub mod summary;
pub mod tables;

use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};
use strata_ir::OpId;
use strata_isa_spec::inst::Elem;
use strata_isa_spec::{Head, StageCode, Tail, View};

pub use plan::{
    Bases, BoundArgument, Certificate, DramBytes, FrameBound, GrowsInto, Mode, Objective, PhasePlan,
    Placement, Plan, Residency, ResidentPrefix, StreamBase,
};

/// A stage of the graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageId(u32);
entity_impl!(StageId, "stage");

/// A buffer: a `[rows, cols, chs]` activation tensor with storage of its own. Concatenations are one buffer
/// that several stages write; slices are views of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BufferId(u32);
entity_impl!(BufferId, "buffer");

/// A table of a stage: weights, biases, multipliers and the like, in the order in which its code first names
/// them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(u32);
entity_impl!(TableId, "table");

/// A box of a buffer.
pub type BufferView = View<BufferId>;

/// What a stage computes before anything is placed: it names buffers and tables of its own, where the code of
/// a program names streams and addresses.
pub type StageTemplate = StageCode<BufferId, TableId>;
/// The head of a [`StageTemplate`].
pub type TemplateHead = Head<BufferId, TableId>;
/// A tail of a [`StageTemplate`].
pub type TemplateTail = Tail<BufferId, TableId>;

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
    /// What it computes. Winograd is not yet chosen.
    pub code: StageTemplate,
    /// Sizes of its weights, biases and tables.
    pub table_bytes: PrimaryMap<TableId, u32>,
    /// Stages of one number have the same tables, which stand once in DRAM and once in weight SRAM.
    pub table_set: Option<u32>,
    /// Whether its TOSA ops can compute a window of columns, if its code can.
    pub by_columns: bool,
}

impl StageNode {
    /// Bytes of weight SRAM that the stage's tables take, without alignment.
    pub fn weight_bytes(&self) -> u64 {
        self.table_bytes.values().map(|&b| u64::from(b)).sum()
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
    pub fn view_bytes(&self, view: &BufferView) -> u64 {
        let buffer = self.buffers.get(view.tensor);
        view.n_elements() * u64::from(buffer.map_or(1, |buffer| buffer.elem.size_bytes()))
    }
}
