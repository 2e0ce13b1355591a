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
use crate::program::{Phase, Program, StageCode, row_address};

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

/// How small what threads share may be, in products of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grain {
    /// Cost of a tile, and of a share of several.
    tile: u64,
    /// Cost of a wave.
    wave: u64,
}

impl Grain {
    /// So small that it is still worth another thread: a wave is some microseconds.
    pub(super) const WORTHWHILE: Self = Self { tile: 1 << 19, wave: 1 << 20 };
    /// As small as may be.
    pub(super) const FINEST: Self = Self { tile: 1, wave: 0 };
}

/// Tiles of a stage that each thread is to have about.
const TILES_PER_THREAD: u64 = 2;
/// Pixels of a convolution that are computed together at least, where there are so many.
const LEAST_PIXELS: usize = 64;
/// Columns that are computed together at least, where there are so many.
const LEAST_COLS: usize = 7;
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

/// The shares of a wave. No two of them write the same bytes.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) all: Vec<Share>,
    /// Those that each thread computes first.
    pub(super) of_threads: Vec<Range<usize>>,
}

impl Shares {
    /// All tiles as one share.
    fn one(tiles: Vec<StageTile>) -> Self {
        Self { all: vec![tiles], of_threads: std::iter::once(0..1).collect() }
    }
}

/// The rows of a wave in shares for so many threads, each worth being computed on another one.
///
/// A thread has the same part of the rows or columns of every stage, so that it finds what it reads in its
/// own cache, about.
pub(super) fn shares(program: &Program, phase: &Phase, wave: &Wave, threads: usize, grain: Grain) -> Shares {
    // Tiles that write the same bytes are one share, in order.
    if threads == 1 || !are_apart(program, phase, wave) {
        return Shares::one(tiles(phase, wave, 1, grain).into_iter().flatten().collect());
    }
    let mut of_threads = vec![Vec::new(); threads];
    let mut costs = vec![0; threads];
    for tiles in tiles(phase, wave, threads, grain) {
        let n = tiles.len();
        for (index, tile) in tiles.into_iter().enumerate() {
            let least = (0..threads).min_by_key(|&thread| costs[thread]).unwrap_or(0);
            let thread = if n < threads { least } else { index * threads / n };
            costs[thread] += tile.cost;
            of_threads[thread].push(tile);
        }
    }
    if costs.iter().sum::<u64>() < grain.wave {
        return Shares::one(of_threads.into_iter().flatten().collect());
    }
    let mut all = Vec::new();
    let of_threads = of_threads.into_iter().map(|tiles| {
        let first = all.len();
        all.extend(in_shares(tiles, grain));
        first..all.len()
    });
    Shares { of_threads: of_threads.collect(), all }
}

/// Tiles in shares that are each worth being computed on another thread.
fn in_shares(tiles: Vec<StageTile>, grain: Grain) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    let mut cost = grain.tile;
    for tile in tiles {
        if cost >= grain.tile {
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

/// Divides the rows of a wave into tiles for so many threads, stage by stage. Rows that DMA moves are a tile
/// each.
fn tiles(phase: &Phase, wave: &Wave, threads: usize, grain: Grain) -> Vec<Vec<StageTile>> {
    let cost = |rows: &Rows| {
        let code = &phase.stages[rows.stage].code;
        let view = made(code);
        rows.rows.len() as u64 * u64::from(view.cols) * u64::from(view.chs) * value_cost(code)
    };
    let divide = |rows: &Rows| {
        let code = &phase.stages[rows.stage].code;
        let parts = (cost(rows) / grain.tile).clamp(1, threads as u64 * TILES_PER_THREAD);
        let parts = if threads == 1 { 1 } else { parts as usize };
        let stage = rows.stage;
        let tiles = divided(code, &rows.rows, parts);
        let cost = cost(rows) / tiles.len().max(1) as u64;
        tiles.into_iter().map(|tile| StageTile { stage, tile, cost }).collect()
    };
    wave.iter().map(divide).collect()
}

/// Bytes that a row of a stage writes, from the first to the last.
struct Written {
    /// In DRAM, or in activation SRAM.
    segment: Option<u32>,
    bytes: Range<u64>,
}

/// Whether no two rows of a wave write the same bytes. Rows that nobody reads may.
fn are_apart(program: &Program, phase: &Phase, wave: &Wave) -> bool {
    let codes = wave.iter().flat_map(|Rows { stage, rows }| {
        let code = &phase.stages[*stage].code;
        rows.clone().map(move |row| (code, row))
    });
    let (mut outs, stores): (Vec<_>, Vec<_>) =
        codes.partition(|(code, _)| !matches!(code.head, Head::DmaOut(_)));
    let place = |(code, row): &(&StageCode, u32)| (code.out.tensor, code.out.row0 + row);
    outs.sort_by_key(place);
    let mut written: Vec<Written> = stores.iter().map(|(code, row)| stored(program, code, *row)).collect();
    for of_row in outs.chunk_by(|a, b| place(a) == place(b)) {
        // Several stages may make the columns or channels of a row.
        let views = || of_row.iter().map(|(code, _)| &code.out);
        if views()
            .enumerate()
            .any(|(index, view)| views().skip(index + 1).any(|other| share_values(view, other)))
        {
            return false;
        }
        let (tensor, row) = place(&of_row[0]);
        let stream = &program.streams[tensor as usize];
        let start = row_address(&program.streams, tensor, row) as u64;
        let len = u64::from(stream.cols) * u64::from(stream.chs) * u64::from(stream.elem.size_bytes());
        written.push(Written { segment: None, bytes: start..start + len });
    }
    written.sort_unstable_by_key(|row| (row.segment, row.bytes.start, row.bytes.end));
    let meet = |two: &[Written]| two[0].segment == two[1].segment && two[1].bytes.start < two[0].bytes.end;
    !written.windows(2).any(meet)
}

/// Whether two views of a row have a value of it in common.
fn share_values(a: &View, b: &View) -> bool {
    let meet = |a: u32, of_a: u32, b: u32, of_b: u32| a < b + of_b && b < a + of_a;
    meet(a.col0, a.cols, b.col0, b.cols) && meet(a.ch0, a.chs, b.ch0, b.chs)
}

/// What a row of a stage that stores to DRAM writes.
fn stored(program: &Program, code: &StageCode, row: u32) -> Written {
    let Head::DmaOut(dma) = &code.head else { return Written { segment: None, bytes: 0..0 } };
    let pixel = u64::from(dma.src.chs * program.streams[dma.src.tensor as usize].elem.size_bytes());
    let start = dma.offset + u64::from(row) * dma.row_pitch_bytes;
    let len = u64::from(dma.src.cols.saturating_sub(1)) * u64::from(dma.pixel_pitch_bytes) + pixel;
    Written { segment: Some(dma.segment), bytes: start..start + len }
}

/// Rows of a stage as so many tiles, or about: of convolutions by pixels while there are many, then by
/// channels, since each tile goes through its weights once for all its pixels; of depthwise ones by rows and
/// columns; of others by rows.
fn divided(code: &StageCode, rows: &Range<u32>, parts: usize) -> Vec<Tile> {
    if matches!(code.head, Head::DmaIn(_) | Head::DmaOut(_)) {
        return rows.clone().map(|row| Tile::of_rows(code, row..row + 1)).collect();
    }
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    let is_conv = matches!(&code.head, Head::Conv2d(h) if h.groups <= 1);
    let has_parts_of_rows = is_conv || matches!(code.head, Head::DepthwiseConv2d(_));
    let most_pixel_parts = if is_conv {
        (rows.len() * cols).div_ceil(LEAST_PIXELS)
    } else if has_parts_of_rows {
        rows.len() * cols.div_ceil(LEAST_COLS)
    } else {
        rows.len()
    };
    let pixel_parts = parts.clamp(1, most_pixel_parts);
    // The same columns of every stage, where there are enough: then a thread reads little that another wrote.
    let col_parts = if has_parts_of_rows { pixel_parts.min(cols / LEAST_COLS).max(1) } else { 1 };
    let most_rows = (MOST_VALUES / (cols * chs).max(1)).max(1);
    let per_tile = rows.len().div_ceil(pixel_parts.div_ceil(col_parts)).min(most_rows);
    let starts = rows.clone().step_by(per_tile);
    let groups: Vec<Range<u32>> =
        starts.map(|first| first..(first + per_tile as u32).min(rows.end)).collect();
    let col_parts = if has_parts_of_rows { col_parts.max(pixel_parts.div_ceil(groups.len())) } else { 1 };
    let ch_parts = if is_conv { parts.div_ceil(pixel_parts) } else { 1 };
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
