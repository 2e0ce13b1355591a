//! What is computed at once: a part of the rows of a stage.

use std::ops::Range;

use crate::interp::kernels::{Lines, Walk};
use crate::program::StageCode;

/// A box of rows, columns and channels of a stage's output view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: Range<u32>,
    pub(super) cols: Range<usize>,
    pub(super) chs: Range<usize>,
}

impl Tile {
    /// Whole rows of a stage.
    pub(super) fn of_rows(code: &StageCode, rows: Range<u32>) -> Self {
        Self { rows, cols: 0..code.out.cols as usize, chs: 0..code.out.chs as usize }
    }

    /// How many values it has.
    pub(super) fn len(&self) -> usize {
        self.rows.len() * self.cols.len() * self.chs.len()
    }
}

/// What a thread computes in, kept from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Accumulators, `[pixels][channels]`.
    pub(super) acc: Vec<i32>,
    /// Those of 48 bits.
    pub(super) sums: Vec<i64>,
    /// The other operand of a tail.
    pub(super) operand: Vec<i32>,
    /// Rows of the input as integers.
    pub(super) rows: Vec<Vec<i32>>,
    /// Rows of the input as kernels read them.
    pub(super) lines: Option<Lines>,
    pub(super) walk: Walk,
    /// Rows of the input of a depthwise convolution, as its kernel reads them.
    pub(super) words: Vec<i16>,
    pub(super) bytes: Vec<u8>,
}
