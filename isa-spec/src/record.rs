//! How a schedule is written down: the attributes that a compiler's scheduler leaves in its IR and its
//! backend reads. Each is the serde form of a type of this crate. They stand here because both sides know the
//! machine and neither knows the other.

use serde::{Deserialize, Serialize};

/// On `func.func`: the DRAM segments, a list of [`Segment`](crate::Segment).
pub const SEGMENTS: &str = "strata.segments";
/// On `func.func`: the streams of all phases, a list of [`Stream`](crate::Stream).
pub const STREAMS: &str = "strata.streams";
/// On `func.func`: names of source layers, by the `source` index of stages.
pub const NAMES: &str = "strata.names";
/// On `func.func`: where each table lies in the weight segment, a list of [`TablePlacement`].
pub const TABLE_PLACES: &str = "strata.weights";
/// On `strata.phase`: the phase with its addresses, a [`Phase`](crate::Phase).
pub const CODE: &str = "strata.code";

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
