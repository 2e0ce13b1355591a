//! The order of a run, which is the same whatever it runs on: *waves* of rows that are computed side by side.
//!
//! A wave holds, of every stage of a phase, the rows that it may make next. All of them are computed from
//! what the memories hold when the wave begins, and only then written. So a row of a wave is never an input
//! of another row of it, while a row may take the slot of one that the same wave reads: that is why a step
//! counts as taken for those who wait for its reads as soon as it is in the wave, but for those who wait for
//! its rows only when the wave has ended. Phases are Kahn process networks: that order gives the values of
//! any other.

use std::ops::Range;

use crate::dataflow::Flow;
use crate::inst::{AvgPool2d, Head, MaxPool2d, View};
use crate::interp::kernels::LANES;
use crate::interp::tile::Tile;
use crate::program::{Phase, Program, StageCode};

/// Rows of a stage, counted from the first of its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) stage: usize,
    pub(super) rows: Range<u32>,
}

/// Rows that are computed side by side, those of a stage in order.
pub(super) type Wave = Vec<Rows>;

/// Bytes of rows that a stage makes in a wave, unless one step makes more.
const STAGE_BYTES: u64 = 1 << 20;

/// The waves of a phase.
pub(super) fn waves(program: &Program, phase: &Phase) -> Vec<Wave> {
    let mut flow = Flow::new(program, phase);
    let mut waves = Vec::new();
    while !flow.finished() {
        let mut wave = Wave::new();
        // Readers first: what they pass makes room for writers in the same wave.
        for (stage, of) in phase.stages.iter().enumerate().rev() {
            let row_bytes = output_row_bytes(program, &of.code);
            let from = flow.next_rows(stage).start;
            let mut end = from;
            while flow.blocked(stage).is_none()
                && (end == from || u64::from(end - from) * row_bytes < STAGE_BYTES)
            {
                end = flow.next_rows(stage).end;
                flow.begin(stage);
            }
            if end > from {
                wave.push(Rows { stage, rows: from..end });
            }
        }
        // The verifier has shown that some stage can always step.
        debug_assert!(!wave.is_empty(), "a phase does not stop before its end");
        if wave.is_empty() {
            break;
        }
        wave.reverse();
        flow.end_all();
        waves.push(wave);
    }
    waves
}

/// The view that shows what a stage makes: of those that store to DRAM, what they read.
fn made(code: &StageCode) -> &View {
    match &code.head {
        Head::DmaOut(dma) => &dma.src,
        _ => &code.out,
    }
}

/// Bytes of a row that a stage makes.
fn output_row_bytes(program: &Program, code: &StageCode) -> u64 {
    let view = made(code);
    let size = program.streams[view.tensor as usize].elem.size_bytes();
    u64::from(view.cols) * u64::from(view.chs) * u64::from(size)
}

/// About how long a value of a head takes, in products of bytes.
fn value_cost(code: &StageCode) -> u64 {
    /// What a value costs that is only moved, rescaled and the like.
    const MOVE: u64 = 32;
    let values = u64::from(code.out.rows) * u64::from(code.out.cols) * u64::from(code.out.chs);
    let products = code.macs_direct() / values.max(1);
    let products = match &code.head {
        Head::Conv2dI16(_) | Head::TransposeConv2dI16(_) => 4 * products,
        Head::DepthwiseConv2d(_) | Head::DepthwiseConv2dI16(_) => 8 * products,
        Head::MatMul(_) | Head::MatMulI16(_) => 16 * products,
        Head::MaxPool2d(MaxPool2d { window, .. }) | Head::AvgPool2d(AvgPool2d { window, .. }) => {
            8 * u64::from(window.kernel_h) * u64::from(window.kernel_w)
        }
        Head::Reduce(_) => 64,
        _ => products,
    };
    products + MOVE * (1 + code.tail.len() as u64)
}

/// Cost of a tile below which it is not worth being shared out.
const LEAST_TILE: u64 = 1 << 18;
/// Tiles of a wave that each thread is to have about.
const TILES_PER_THREAD: u64 = 4;
/// Pixels of a convolution that are computed together at least, where there are so many.
const LEAST_PIXELS: usize = 64;
/// Values of a tile at most, where it can be divided.
const MOST_VALUES: usize = 1 << 18;

/// A tile of a stage.
#[derive(Clone, Debug)]
pub(super) struct StageTile {
    pub(super) stage: usize,
    pub(super) tile: Tile,
    /// About how long it takes, in products of bytes.
    cost: u64,
}

/// Tiles that a thread computes one after another.
pub(super) type Share = Vec<StageTile>;

/// The rows of a wave in shares for so many threads, each worth being computed on another one.
pub(super) fn shares(phase: &Phase, wave: &Wave, threads: usize) -> Vec<Share> {
    let mut shares = vec![Share::new()];
    let mut cost = 0;
    for tile in tiles(phase, wave, threads) {
        if cost >= LEAST_TILE {
            shares.push(Share::new());
            cost = 0;
        }
        cost += tile.cost;
        if let Some(share) = shares.last_mut() {
            share.push(tile);
        }
    }
    shares
}

/// Divides the rows of a wave into tiles for so many threads. Rows that DMA moves are a tile a row.
fn tiles(phase: &Phase, wave: &Wave, threads: usize) -> Vec<StageTile> {
    let cost = |rows: &Rows| {
        let code = &phase.stages[rows.stage].code;
        let view = made(code);
        rows.rows.len() as u64 * u64::from(view.cols) * u64::from(view.chs) * value_cost(code)
    };
    let all: u64 = wave.iter().map(cost).sum();
    let most = (all / (threads as u64 * TILES_PER_THREAD)).max(LEAST_TILE);
    let divide = |rows: &Rows| {
        let code = &phase.stages[rows.stage].code;
        let parts = if threads == 1 { 1 } else { cost(rows).div_ceil(most) as usize };
        let stage = rows.stage;
        let tiles = divided(code, &rows.rows, parts);
        let cost = cost(rows) / tiles.len().max(1) as u64;
        tiles.into_iter().map(move |tile| StageTile { stage, tile, cost })
    };
    wave.iter().flat_map(divide).collect()
}

/// Rows of a stage as so many tiles, or about: of convolutions by pixels while there are many, then by
/// channels, since each tile goes through its weights once for all its pixels; of others by rows.
fn divided(code: &StageCode, rows: &Range<u32>, parts: usize) -> Vec<Tile> {
    if matches!(code.head, Head::DmaIn(_) | Head::DmaOut(_)) {
        return rows.clone().map(|row| Tile::of_rows(code, row..row + 1)).collect();
    }
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    let is_conv = matches!(&code.head, Head::Conv2d(h) if h.groups <= 1);
    let most_pixel_parts = if is_conv { (rows.len() * cols).div_ceil(LEAST_PIXELS) } else { rows.len() };
    let pixel_parts = parts.clamp(1, most_pixel_parts);
    let per_tile = rows.len().div_ceil(pixel_parts).min(MOST_VALUES / (cols * chs).max(1)).max(1);
    let starts = rows.clone().step_by(per_tile);
    let groups: Vec<Range<u32>> =
        starts.map(|first| first..(first + per_tile as u32).min(rows.end)).collect();
    let (col_parts, ch_parts) =
        if is_conv { (pixel_parts.div_ceil(groups.len()), parts.div_ceil(pixel_parts)) } else { (1, 1) };
    let col_step = cols.div_ceil(col_parts);
    let ch_step = chs.div_ceil(ch_parts).next_multiple_of(2 * LANES);
    let ranges =
        |n: usize, step: usize| (0..n).step_by(step.max(1)).map(move |first| first..(first + step).min(n));
    let boxes = groups.iter().flat_map(|rows| {
        ranges(cols, col_step).flat_map(move |cols| {
            ranges(chs, ch_step).map(move |chs| Tile { rows: rows.clone(), cols: cols.clone(), chs })
        })
    });
    boxes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inst::{Conv2d, WeightAddr, Window};

    fn conv(cols: u32, chs: u32) -> StageCode {
        let view = View { tensor: 0, row0: 0, rows: 40, col0: 0, cols, ch0: 0, chs };
        let window = Window { kernel_h: 1, kernel_w: 1, stride_h: 1, stride_w: 1, ..Window::default() };
        let (weights, bias) = (WeightAddr(0), WeightAddr(0));
        let head = Conv2d {
            src: view,
            window,
            groups: 1,
            weights,
            bias,
            input_zp: 0,
            weight_zp: 0,
            winograd: false,
        };
        StageCode { head: head.into(), tail: Vec::new(), out: view }
    }

    #[test]
    fn tiles_cover_every_value_once() {
        for (cols, chs, rows, parts) in
            [(1, 1000, 0..1, 8), (7, 512, 3..10, 4), (416, 32, 0..1, 3), (13, 17, 5..9, 1), (1, 3, 0..2, 100)]
        {
            let mut seen = vec![0; rows.len() * cols * chs];
            for tile in divided(&conv(cols as u32, chs as u32), &rows, parts) {
                assert!(tile.len() > 0);
                for row in tile.rows.clone() {
                    for col in tile.cols.clone() {
                        for ch in tile.chs.clone() {
                            seen[((row - rows.start) as usize * cols + col) * chs + ch] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{cols} columns, {chs} channels, {rows:?}");
        }
    }
}
