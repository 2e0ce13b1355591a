//! How a schedule is written down: the attributes that a compiler's scheduler leaves in its IR and its
//! backend reads. Each is the serde form of a type of this crate. They stand here because both sides know the
//! machine and neither knows the other.

use serde::{Deserialize, Serialize};

use crate::inst::WeightAddr;
use crate::program::{Stage, WeightLoad};

/// On `func.func`: the DRAM segments, a list of [`Segment`](crate::Segment).
pub const SEGMENTS: &str = "strata.segments";
/// On `func.func`: the streams of all phases, a list of [`Stream`](crate::Stream).
pub const STREAMS: &str = "strata.streams";
/// On `func.func`: names of source layers, by the `source` index of stages.
pub const NAMES: &str = "strata.names";
/// On `func.func`: where each table lies in the weight segment, a list of [`TablePlacement`].
pub const TABLE_PLACES: &str = "strata.weights";
/// On `strata.phase`: what the phase has beside the code of its stages and what its plan says of them, a
/// [`PhasePlacement`].
pub const PLACES: &str = "strata.places";

/// What makes a phase of the stages that stand in it and of its plan: where their tensors and tables are, and
/// what moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasePlacement {
    /// The weight loads that begin with it, for its own stages and for later ones.
    pub loads: Vec<WeightLoad>,
    /// Which stream holds each tensor.
    pub tensors: Vec<TensorPlacement>,
    /// Its stages, in their order.
    pub stages: Vec<StagePlacement>,
    /// The transfers that stand before its stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Stage>,
    /// The transfers that stand after them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Stage>,
}

/// The stream that holds a tensor in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorPlacement {
    /// The tensor, as the code of stages numbers it.
    pub tensor: u32,
    /// The stream.
    pub stream: u32,
    /// The first column of the tensor that the stream holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub col0: u32,
    /// The first channel of the tensor that the stream holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ch0: u32,
}

/// What a stage has beside its code and its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePlacement {
    /// The address of each of its tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<WeightAddr>,
    /// Weight loads, counted over the program, that must be complete before its first row.
    pub wait_loads: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where a table of a stage lies in the weight segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlacement {
    /// Which stage, in the order in which they stand in the IR.
    pub stage: u32,
    /// Which table of its code.
    pub table: u32,
    /// Which `tosa.const` of its region holds it.
    pub constant: u32,
    /// Byte offset in the segment.
    pub offset: u64,
}
