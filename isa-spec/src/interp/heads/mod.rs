//! What every head computes, and a tile of a stage: its head, its tails, its bytes.
//!
//! A head fills accumulators, `[pixels][channels]` of `i32`; each tail transforms them in place. Heads that
//! sum in 48 bits are [`wide`]'s. Reads go through [`Sram`], which turns a view's row into bytes of a ring
//! slot.

mod conv;
mod depthwise;
mod moves;
mod pool;
mod tables;
mod transposed;

pub(super) use self::conv::PackedConv;
use self::conv::conv2d;
pub(super) use self::depthwise::PackedDepthwise;
use self::depthwise::depthwise_conv2d;
pub(super) use self::tables::HeadTables;
pub(super) use self::transposed::PackedTransposed;
use self::transposed::transpose_conv2d;
use crate::inst::{Head, MatMul, Tail};
use crate::interp::fused::{Fused, Rescaled};
use crate::interp::kernels::Out;
use crate::interp::simd::vectorised;
use crate::interp::sram::{Sram, narrow};
use crate::interp::tails::{self, Place, TailTables};
use crate::interp::tile::{Scratch, Tile};
use crate::interp::wide;
use crate::program::StageCode;

/// Accumulators that tails transform at once: they stay in the nearest cache.
const CHUNK: usize = 4096;

/// A stage whose rows can be computed.
#[derive(Clone, Copy)]
pub(super) struct Ready<'a> {
    pub(super) code: &'a StageCode,
    pub(super) head: &'a HeadTables,
    pub(super) tails: &'a [TailTables],
    pub(super) fused: Option<&'a Fused>,
    pub(super) sram: &'a Sram<'a>,
}

impl Ready<'_> {
    /// What a kernel does with the sums of a group of channels: they go into the accumulators, or rescaled to
    /// bytes into `out`.
    fn sums_to<'o>(&'o self, group: usize, acc: &'o mut [i32], out: &'o mut [u8]) -> Out<'o> {
        match self.fused {
            None => Out::Sums(acc),
            Some(Fused { scales, rescaled: Rescaled::Numbers { limits } }) => {
                Out::Scaled(&scales[group], *limits, acc)
            }
            Some(Fused { scales, rescaled: Rescaled::Bytes(_) }) => Out::Bytes(&scales[group], out),
        }
    }

    /// Applies the tails that are left when a kernel has done [`sums_to`](Self::sums_to) at a place, and
    /// writes its bytes.
    fn complete(&self, place: &Place, acc: &mut [i32], operand: &mut Vec<i32>, out: &mut [u8]) {
        match self.fused {
            Some(Fused { rescaled: Rescaled::Bytes(tails), .. }) => {
                tails.iter().for_each(|tail| tail.apply(self.sram, place, out));
            }
            Some(Fused { rescaled: Rescaled::Numbers { .. }, .. }) => {
                finish(self, 1, place, acc, operand, out)
            }
            None => finish(self, 0, place, acc, operand, out),
        }
    }
}

/// The first so many accumulators, of any values.
fn room(acc: &mut Vec<i32>, n: usize) -> &mut [i32] {
    if acc.len() < n {
        acc.resize(n, 0);
    }
    &mut acc[..n]
}

/// Computes a tile of a stage's output (rows counted from the first of its view) into `out`, its values'
/// bytes, `[rows][columns][channels]`. DMA heads are the caller's. Only convolutions are computed in parts of
/// rows, of channels where they are dense: tiles of other heads are whole rows.
pub(super) fn compute(stage: &Ready<'_>, tile: &Tile, scratch: &mut Scratch, out: &mut [u8]) {
    let code = stage.code;
    if let (Head::Conv2d(h), HeadTables::Conv(packed)) = (&code.head, stage.head) {
        return conv2d(stage, h, packed, tile, scratch, out);
    }
    if let (Head::DepthwiseConv2d(h), HeadTables::Depthwise(packed)) = (&code.head, stage.head) {
        return depthwise_conv2d(stage, h, packed, tile, scratch, out);
    }
    let row_bytes = out.len() / tile.rows.len().max(1);
    let rows = tile.rows.clone().zip(out.chunks_exact_mut(row_bytes.max(1)));
    if let (Head::Load(h), Some(_)) = (&code.head, stage.fused) {
        for (row, out) in rows {
            stage.sram.copy_row(&h.src, row, out);
            let place = Place { row, cols: tile.cols.clone(), chs: tile.chs.clone() };
            stage.complete(&place, &mut [], &mut scratch.operand, out);
        }
        return;
    }
    for (row, out) in rows {
        let done = compute_head(stage, row, scratch);
        let place = Place { row, cols: tile.cols.clone(), chs: tile.chs.clone() };
        let Scratch { acc, operand, .. } = &mut *scratch;
        finish(stage, done, &place, acc, operand, out);
    }
}

/// Computes row `row` of a head into the accumulators; how many of the tails are done with it.
fn compute_head(stage: &Ready<'_>, row: u32, scratch: &mut Scratch) -> usize {
    let Ready { code, sram, .. } = *stage;
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    let Scratch { acc, sums, .. } = &mut *scratch;
    acc.clear();
    acc.resize(cols * chs, 0);
    if !wide::is_wide(&code.head, sram) {
        head(code, stage.head, sram, row, scratch);
        return 0;
    }
    let tables = if let HeadTables::Wide(tables) = stage.head { Some(&**tables) } else { None };
    sums.clear();
    sums.resize(cols * chs, 0);
    wide::head(&code.head, tables, sram, row, chs, sums);
    match (code.tail.first(), stage.tails.first()) {
        (Some(Tail::Rescale16(t)), Some(TailTables::Rescale16(scales))) => {
            wide::rescale(t, scales, chs, sums, acc);
            1
        }
        _ => 0,
    }
}

/// Applies the tails of a stage but for the first `done` to the accumulators of a place, and writes their
/// bytes.
fn finish(
    stage: &Ready<'_>,
    done: usize,
    place: &Place,
    acc: &mut [i32],
    operand: &mut Vec<i32>,
    out: &mut [u8],
) {
    let Ready { code, sram, .. } = *stage;
    let elem = sram.elem(&code.out);
    let (tails, tables) = (&code.tail[done..], &stage.tails[done..]);
    let pixel = place.chs.len();
    let cols = (CHUNK / pixel.max(1)).clamp(1, place.cols.len().max(1));
    let size = elem.size_bytes() as usize;
    let chunks = acc.chunks_mut((cols * pixel).max(1)).zip(out.chunks_mut((cols * pixel * size).max(1)));
    for (index, (acc, out)) in chunks.enumerate() {
        let first = place.cols.start + index * cols;
        let cols = first..(first + cols).min(place.cols.end);
        let place = Place { row: place.row, cols, chs: place.chs.clone() };
        for (tail, tables) in tails.iter().zip(tables) {
            tails::apply(tail, tables, sram, &place, operand, acc);
        }
        narrow(sram.simd, elem, acc, out);
    }
}

/// Computes row `row` of a head that is neither wide nor a convolution in tiles.
fn head(code: &StageCode, tables: &HeadTables, sram: &Sram<'_>, row: u32, scratch: &mut Scratch) {
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    let Scratch { acc, rows, .. } = &mut *scratch;
    match (&code.head, tables) {
        (Head::Load(h), _) => sram.broadcast(&h.src, row, 0..cols, 0..chs, acc),
        (Head::TransposeConv2d(h), HeadTables::Transposed(packed)) => {
            transpose_conv2d(sram, h, packed, row, cols, scratch);
        }
        (Head::MatMul(h), _) => matmul(sram, h, row, acc),
        (Head::MaxPool2d(h), _) => pool::max_pool2d(sram, h, row, chs, rows, acc),
        (Head::AvgPool2d(h), _) => pool::avg_pool2d(sram, h, row, chs, rows, acc),
        (Head::Resize(h), _) => moves::resize(sram, h, row, chs, acc),
        (Head::Pad(h), _) => moves::pad(sram, h, row, chs, acc),
        (Head::Permute(h), _) => moves::permute(sram, h, row, cols * chs, acc),
        (Head::Reduce(h), _) => moves::reduce(sram, h, row, acc),
        (Head::Argmax(h), _) => moves::argmax(sram, h, row, acc),
        // The caller moves DMA rows and computes convolutions; the rest is as `Prepared` makes it.
        (
            Head::DmaIn(_)
            | Head::DmaOut(_)
            | Head::Conv2d(_)
            | Head::DepthwiseConv2d(_)
            | Head::TransposeConv2d(_)
            | Head::Conv2dI16(_)
            | Head::DepthwiseConv2dI16(_)
            | Head::TransposeConv2dI16(_)
            | Head::MatMulI16(_),
            _,
        ) => {}
    }
}

/// A row of a matrix product, summed row by row of `b`.
fn matmul(sram: &Sram<'_>, h: &MatMul, row: u32, acc: &mut [i32]) {
    sram.factors(h, row, |a, b| add_multiple(sram.simd, acc, b, a - h.a_zp, h.b_zp));
}

vectorised! {
    /// Adds `factor * (value - zero point)`.
    fn add_multiple(simd; sums: &mut [i32], values: &[i32], factor: i32, zero_point: i32) {
        for (sum, &v) in sums.iter_mut().zip(values) {
            *sum = sum.wrapping_add(factor.wrapping_mul(v - zero_point));
        }
    }
}

#[cfg(test)]
mod tests;
