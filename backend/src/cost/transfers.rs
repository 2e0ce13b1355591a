//! What a phase moves between DRAM and activation SRAM, given where buffers live, and how much of a buffer
//! its rings hold.
//!
//! The one definition that planner and scheduler share: the scheduler makes a DMA stage of each [`Transfer`].
//! (The checker counts traffic on its own.)
//!
//! - A *piece* of a buffer is what one stage writes of it. Of a piece, a phase stores all if the buffer is an
//!   output; else the smallest box that holds what later phases read of it when the buffer is no longer whole
//!   in SRAM, if it is marked `stored`.
//! - A buffer that a phase reads and that is not whole in SRAM is loaded: of an input, the smallest box that
//!   holds what is read; of any other, of each piece written by an earlier phase, the smallest box that holds
//!   what is read of it. Boxes that adjoin are loaded as one: a layer whose weights were split may have made
//!   its tensor in hundreds of pieces.
//! - An input with `kept_until` is loaded whole in the first phase that reads it.
//! - Of a tensor whose first rows stay in SRAM, these are neither loaded while they do nor stored if they
//!   always do: [`Transfer::from_row`]. First rows that are loaded a phase ahead are those that the later
//!   phase would load: [`Transfer::to_row`].
//! - A buffer that is not whole in SRAM is a ring as wide as the [`window`] of columns and channels that the
//!   phase uses.

use crate::model::graph::{StageSet, Topology, bounding, intersection};
use crate::model::{BufferId, BufferRole, BufferView, StageGraph};

/// Rows of a buffer that a phase moves; `view.stream` is the buffer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The buffer.
    pub buffer: BufferId,
    /// What is moved.
    pub view: BufferView,
}

impl Transfer {
    /// Bytes moved.
    pub fn bytes(&self, graph: &StageGraph) -> u64 {
        graph.view_bytes(&self.view)
    }

    /// What it moves of the rows from one on, if anything.
    pub fn from_row(mut self, row: u32) -> Option<Self> {
        let passed = row.saturating_sub(self.view.row0);
        self.view.row0 += passed;
        self.view.rows = self.view.rows.checked_sub(passed).filter(|&rows| rows > 0)?;
        Some(self)
    }

    /// What it moves of the rows before one, if anything.
    pub fn to_row(mut self, row: u32) -> Option<Self> {
        self.view.rows = self.view.rows.min(row.checked_sub(self.view.row0).filter(|&rows| rows > 0)?);
        Some(self)
    }
}

/// The smallest box that holds what some reads share with a piece; `None` if that is nothing.
pub fn part_read(reads: impl Iterator<Item = BufferView>, piece: &BufferView) -> Option<BufferView> {
    reads.filter_map(|read| intersection(&read, piece)).reduce(|a, b| bounding(&a, &b))
}

/// What is loaded of a buffer of which a phase reads `reads`, and of which earlier phases wrote `pieces`.
pub fn loaded(
    role: BufferRole,
    reads: &[BufferView],
    pieces: impl Iterator<Item = BufferView>,
) -> Vec<BufferView> {
    if matches!(role, BufferRole::Input(_)) {
        return reads.iter().copied().reduce(|a, b| bounding(&a, &b)).into_iter().collect();
    }
    joined(pieces.filter_map(|piece| part_read(reads.iter().copied(), &piece)).collect())
}

/// The fewest boxes of the same rows that hold just what `boxes` hold: those that lie side by side in
/// channels or in columns become one.
fn joined(mut boxes: Vec<BufferView>) -> Vec<BufferView> {
    loop {
        let before = boxes.len();
        join_channels(&mut boxes);
        boxes.iter_mut().for_each(turn);
        join_channels(&mut boxes);
        boxes.iter_mut().for_each(turn);
        if boxes.len() == before {
            return boxes;
        }
    }
}

/// Makes one of boxes that lie side by side in channels.
fn join_channels(boxes: &mut Vec<BufferView>) {
    boxes.sort_unstable_by_key(|b| (b.row0, b.rows, b.col0, b.cols, b.ch0));
    boxes.dedup_by(|next, last| {
        let is_next = (last.row0, last.rows, last.col0, last.cols, last.ch0 + last.chs)
            == (next.row0, next.rows, next.col0, next.cols, next.ch0);
        last.chs += if is_next { next.chs } else { 0 };
        is_next
    });
}

/// Exchanges columns and channels.
fn turn(view: &mut BufferView) {
    std::mem::swap(&mut view.col0, &mut view.ch0);
    std::mem::swap(&mut view.cols, &mut view.chs);
}

/// What the stages of `set` load of a buffer that is not whole in SRAM.
pub fn loads(graph: &StageGraph, topology: &Topology, set: &StageSet, buffer: BufferId) -> Vec<Transfer> {
    let uses = &topology.uses[buffer];
    let reads: Vec<BufferView> =
        uses.readers.iter().filter(|(s, _)| set.contains(*s)).map(|(_, view)| *view).collect();
    let earlier = uses.writers.iter().filter(|(writer, _)| !set.contains(*writer)).map(|(_, piece)| *piece);
    let views = loaded(graph.buffers[buffer].role, &reads, earlier);
    views.into_iter().map(|view| Transfer { buffer, view }).collect()
}

/// What the stages of `set` store of a buffer, if it is to be stored: every piece of an output, and of other
/// pieces what `is_loaded` readers outside of the set read.
pub fn stores(
    graph: &StageGraph,
    topology: &Topology,
    set: &StageSet,
    buffer: BufferId,
    is_loaded: impl Fn(crate::model::StageId) -> bool,
) -> Vec<Transfer> {
    let uses = &topology.uses[buffer];
    let is_output = matches!(graph.buffers[buffer].role, BufferRole::Output(_));
    (uses.writers.iter())
        .filter(|(writer, _)| set.contains(*writer))
        .filter_map(|(_, piece)| {
            let later =
                uses.readers.iter().filter(|(reader, _)| !set.contains(*reader) && is_loaded(*reader));
            let part = if is_output { Some(*piece) } else { part_read(later.map(|(_, read)| *read), piece) };
            part.map(|view| Transfer { buffer, view })
        })
        .collect()
}

/// The smallest box that holds what the stages of `set` read and write of a buffer; `None` if they do not
/// touch it.
pub fn window(topology: &Topology, set: &StageSet, buffer: BufferId) -> Option<BufferView> {
    let uses = &topology.uses[buffer];
    let here = uses.writers.iter().chain(&uses.readers).filter(|(stage, _)| set.contains(*stage));
    here.map(|(_, view)| *view).reduce(|a, b| bounding(&a, &b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view((row0, rows): (u32, u32), (col0, cols): (u32, u32), (ch0, chs): (u32, u32)) -> BufferView {
        BufferView { tensor: BufferId::from_u32(0), row0, rows, col0, cols, ch0, chs }
    }

    #[test]
    fn boxes_side_by_side_are_one() {
        let rows = (2, 5);
        let channels: Vec<BufferView> = [(12, 4), (0, 7), (7, 5)].map(|chs| view(rows, (0, 9), chs)).to_vec();
        assert_eq!(joined(channels), [view(rows, (0, 9), (0, 16))]);
        // Strips that are split by channels, each at other channels.
        let grid = [((0, 3), (0, 8)), ((0, 3), (8, 8)), ((3, 6), (0, 4)), ((3, 6), (4, 12))];
        assert_eq!(
            joined(grid.map(|(cols, chs)| view(rows, cols, chs)).to_vec()),
            [view(rows, (0, 9), (0, 16))]
        );
    }

    #[test]
    fn other_boxes_stay_what_they_are() {
        let apart = [
            // Neither of as many columns as the next, nor of the same rows, nor without a gap, nor without a
            // common part.
            vec![view((0, 4), (0, 9), (0, 8)), view((0, 4), (0, 8), (8, 8))],
            vec![view((0, 4), (0, 9), (0, 8)), view((1, 4), (0, 9), (8, 8))],
            vec![view((0, 4), (0, 9), (0, 8)), view((0, 4), (0, 9), (9, 8))],
            vec![view((0, 4), (0, 9), (0, 8)), view((0, 4), (0, 9), (7, 8))],
        ];
        for boxes in apart {
            let mut kept = joined(boxes.clone());
            kept.sort_unstable_by_key(|b| b.ch0);
            assert_eq!(kept, boxes);
        }
    }
}
