//! What a phase moves between DRAM and activation SRAM, given where buffers live.
//!
//! The one definition that planner and scheduler share: the scheduler makes a DMA stage of each [`Transfer`]. (The checker
//! counts traffic on its own.)
//!
//! - A *piece* of a buffer is what one stage writes of it. A piece is stored in the phase that writes it if its buffer is
//!   an output, or if it is marked `stored` and a later phase reads the piece when the buffer is no longer whole in SRAM.
//! - A buffer that a phase reads and that is not whole in SRAM is loaded: of an input, the smallest box that holds what is
//!   read; of any other, each piece written by an earlier phase that what is read meets.
//! - An input with `kept_until` is loaded whole in the first phase that reads it.

use strata_isa_spec::View;

use super::graph::{StageSet, Topology, bounding, views_meet};
use super::{BufferId, BufferRole, StageGraph};

/// Rows of a buffer that a phase moves; `view.stream` is the buffer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The buffer.
    pub buffer: BufferId,
    /// What is moved.
    pub view: View,
}

impl Transfer {
    /// Bytes moved.
    pub fn bytes(&self, graph: &StageGraph) -> u64 {
        self.view.n_elements() * u64::from(graph.buffers[self.buffer].elem.size_bytes())
    }
}

/// What the stages of `set` load of a buffer that is not whole in SRAM.
pub fn loads(graph: &StageGraph, topology: &Topology, set: &StageSet, buffer: BufferId) -> Vec<Transfer> {
    let uses = &topology.uses[buffer.as_u32() as usize];
    let reads: Vec<View> =
        uses.readers.iter().filter(|(s, _)| set.contains(*s)).map(|(_, view)| *view).collect();
    if matches!(graph.buffers[buffer].role, BufferRole::Input(_)) {
        let hull = reads.into_iter().reduce(|a, b| bounding(&a, &b));
        return hull.map(|view| Transfer { buffer, view }).into_iter().collect();
    }
    (uses.writers.iter())
        .filter(|(writer, piece)| !set.contains(*writer) && reads.iter().any(|read| views_meet(read, piece)))
        .map(|(_, view)| Transfer { buffer, view: *view })
        .collect()
}

/// What the stages of `set` store of a buffer, if it is to be stored: pieces that stages outside of the set read, and
/// every piece of an output.
pub fn stores(graph: &StageGraph, topology: &Topology, set: &StageSet, buffer: BufferId) -> Vec<Transfer> {
    let uses = &topology.uses[buffer.as_u32() as usize];
    let is_output = matches!(graph.buffers[buffer].role, BufferRole::Output(_));
    (uses.writers.iter())
        .filter(|(writer, piece)| {
            let read_later = |(reader, read): &(_, View)| !set.contains(*reader) && views_meet(read, piece);
            set.contains(*writer) && (is_output || uses.readers.iter().any(read_later))
        })
        .map(|(_, view)| Transfer { buffer, view: *view })
        .collect()
}
