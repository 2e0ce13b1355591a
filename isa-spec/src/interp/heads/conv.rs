//! Convolutions of bytes, in tiles.

use std::ops::Range;

use super::{Ready, room};
use crate::inst::{Conv2d, View};
use crate::interp::kernels::{Layout, Lines, Out, PackedWeights, Walk, multiply};
use crate::interp::lanes::Sums;
use crate::interp::sram::Sram;
use crate::interp::tails::Place;
use crate::interp::tile::{Scratch, Tile};

/// The weights of a convolution, packed for the kernels.
#[derive(Clone, Debug)]
pub(in crate::interp) struct PackedConv {
    /// Those of each group of channels.
    pub(in crate::interp) groups: Vec<PackedWeights>,
    weight_zp: Option<WeightZeroPoint>,
}

/// A zero point of weights that is not 0: it is taken off the sums, times the sum of the activations.
#[derive(Clone, Debug)]
pub(super) struct WeightZeroPoint {
    value: i32,
    /// A channel whose weights are all 1, for the sum of the activations of a pixel.
    ones: PackedWeights,
}

impl WeightZeroPoint {
    /// That of weights of so many runs of so many values, if it is not 0.
    pub(super) fn new(
        value: i32,
        layout: Layout,
        runs: usize,
        reduction: usize,
        input_zp: i32,
    ) -> Option<Self> {
        let ones = || PackedWeights::new(layout, &vec![1; reduction], &[0], runs, input_zp);
        (value != 0).then(|| Self { value, ones: ones() })
    }

    /// Takes it off sums of `channels` channels, `stride` sums a pixel.
    pub(super) fn take_off(
        &self,
        sram: &Sram<'_>,
        lines: &Lines,
        walk: &Walk,
        sums: &mut [i32],
        channels: usize,
        stride: usize,
    ) {
        let mut activations = vec![0; walk.pixels.len()];
        multiply(sram.simd, &self.ones, 0..1, lines, walk, Out::Sums(&mut activations), 1);
        for (sums, activations) in sums.chunks_mut(stride).zip(activations) {
            let off = activations.wrapping_mul(self.value);
            for sum in &mut sums[..channels] {
                *sum = sum.wrapping_sub(off);
            }
        }
    }
}

/// Runs of neighbouring taps of a pixel: whole kernel rows, unless they are dilated or grouped.
fn has_long_runs(h: &Conv2d) -> bool {
    h.groups <= 1 && (h.window.dilation_w == 1 || h.window.kernel_w == 1)
}

impl PackedConv {
    /// Packs `weights`, `[OC][KH][KW][IC / groups]`.
    pub(in crate::interp) fn new(h: &Conv2d, layout: Layout, weights: &[i8], bias: &[i32]) -> Self {
        let (kh, kw) = (h.window.kernel_h as usize, h.window.kernel_w as usize);
        let runs = if has_long_runs(h) { kh } else { kh * kw };
        let groups = h.groups.max(1) as usize;
        let of_group = (bias.len() / groups).max(1);
        let reduction = weights.len() / bias.len().max(1);
        let parts = weights.chunks_exact((of_group * reduction).max(1)).zip(bias.chunks_exact(of_group));
        let pack =
            |(weights, bias): (&[i8], &[i32])| PackedWeights::new(layout, weights, bias, runs, h.input_zp);
        Self {
            groups: parts.map(pack).collect(),
            weight_zp: WeightZeroPoint::new(h.weight_zp, layout, runs, reduction, h.input_zp),
        }
    }

    /// The sums of each group of channels; none where they are not what a kernel makes.
    pub(super) fn sums(&self) -> Option<Vec<Sums>> {
        let groups = self.groups.iter().enumerate();
        let sums = groups.map(|(group, weights)| weights.sums(group * weights.channels()));
        self.weight_zp.is_none().then(|| sums.collect())
    }
}

/// The rows of the input that a tile reads, as lines of one length.
pub(super) struct Field {
    /// The first row and column, which may lie in the padding.
    pub(super) row: i64,
    pub(super) col: i64,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Field {
    /// Lays it out; what lies outside the view is the zero point. Rows that no tap reads may be left out.
    pub(super) fn lay_out(
        &self,
        sram: &Sram<'_>,
        src: &View,
        zero_point: i32,
        is_read: impl Fn(usize) -> bool,
        lines: &mut Option<Lines>,
    ) {
        let (all, chs) = (sram.stream_chs(src), src.chs as usize);
        let line = self.cols * chs;
        let lines = lines.get_or_insert_with(|| Lines::new(Layout::of(sram.simd), 0));
        lines.resize(self.rows * line);
        let first = self.col.max(0);
        let end = (self.col + self.cols as i64).min(i64::from(src.cols)).max(first);
        let (first, end, skipped) = (first as usize, end as usize, (first - self.col) as usize);
        for index in (0..self.rows).filter(|&index| is_read(index)) {
            let y = self.row + index as i64;
            let (from, to) = (index * line, (index + 1) * line);
            if first == end || !(0..i64::from(src.rows)).contains(&y) {
                lines.fill(from..to, zero_point);
                continue;
            }
            let at = from + skipped * chs;
            lines.fill(from..at, zero_point);
            lines.fill(at + (end - first) * chs..to, zero_point);
            let bytes = &sram.row_bytes(src, y as u32)[first * all..end * all];
            if chs == all {
                lines.put(sram.simd, at, bytes, zero_point);
                continue;
            }
            for (x, pixel) in bytes.chunks_exact(all).enumerate() {
                lines.put(sram.simd, at + x * chs, &pixel[src.ch0 as usize..][..chs], zero_point);
            }
        }
    }
}

/// Sums of a pass over the weights: the more pixels, the less often weights are read, and the fewer, the
/// nearer their sums stay.
const PASS: usize = 1 << 15;

/// Computes a tile of a convolution: all of it in one field, pass by pass.
pub(super) fn conv2d(
    stage: &Ready<'_>,
    h: &Conv2d,
    packed: &PackedConv,
    tile: &Tile,
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let Ready { code, sram, .. } = *stage;
    let Scratch { acc, operand, lines, walk, .. } = scratch;
    let w = &h.window;
    let [kh, kw, sh, sw, dh, dw] =
        [w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w].map(|v| v as usize);
    let (rows, cols, inputs) = (tile.rows.len(), tile.cols.len(), h.src.chs as usize);
    // A kernel of one row is not dilated, whatever its dilation.
    let (reach_h, reach_w) = (if kh > 1 { (kh - 1) * dh } else { 0 }, if kw > 1 { (kw - 1) * dw } else { 0 });
    let field = Field {
        row: i64::from(tile.rows.start) * i64::from(w.stride_h) - i64::from(w.pad_top),
        col: tile.cols.start as i64 * i64::from(w.stride_w) - i64::from(w.pad_left),
        rows: (rows - 1) * sh + reach_h + 1,
        cols: (cols - 1) * sw + reach_w + 1,
    };
    let line = field.cols * inputs;
    let is_read = |index: usize| {
        (0..kh).any(|ky| index.checked_sub(ky * dh).is_some_and(|at| at % sh == 0 && at / sh < rows))
    };
    field.lay_out(sram, &h.src, h.input_zp, is_read, lines);
    let Some(lines) = lines else { return };

    let chs = tile.chs.len();
    let pass = (PASS / chs.max(1)).clamp(24, 240).next_multiple_of(12);
    let pixels = rows * cols;
    let elem = sram.elem(&code.out).size_bytes() as usize;
    let groups = packed.groups.len();
    for first in (0..pixels).step_by(pass) {
        let pixels = first..(first + pass).min(pixels);
        walk.pixels.clear();
        let (mut row, mut col) = (first / cols, first % cols);
        for _ in pixels.clone() {
            walk.pixels.push((row * sh * line + col * sw * inputs) as u32);
            col += 1;
            if col == cols {
                (row, col) = (row + 1, 0);
            }
        }
        let values = pixels.start * chs..pixels.end * chs;
        let acc = room(acc, values.len());
        for (group, weights) in packed.groups.iter().enumerate() {
            walk.runs.clear();
            if has_long_runs(h) {
                walk.runs.extend((0..kh).map(|ky| (ky * dh * line) as u32));
            } else {
                let from = group * (inputs / groups);
                let taps = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
                walk.runs.extend(taps.map(|(ky, kx)| (ky * dh * line + kx * dw * inputs + from) as u32));
            }
            let (blocks, at) = blocks_of(tile, weights, group, groups);
            let channels = weights.channels_of(&blocks).len();
            let to = stage.sums_to(group, &mut acc[at..], &mut out[values.clone()][at..]);
            multiply(sram.simd, weights, blocks, lines, walk, to, chs);
            if let Some(zero_point) = &packed.weight_zp {
                zero_point.take_off(sram, lines, walk, &mut acc[at..], channels, chs);
            }
        }
        // Tails are told row by row.
        let mut done = pixels.start;
        while done < pixels.end {
            let row = done / cols;
            let end = ((row + 1) * cols).min(pixels.end);
            let of_row = |p: usize| tile.cols.start + p - row * cols;
            let place = Place {
                row: tile.rows.start + row as u32,
                cols: of_row(done)..of_row(end),
                chs: tile.chs.clone(),
            };
            let acc = &mut acc[(done - pixels.start) * chs..(end - pixels.start) * chs];
            stage.complete(&place, acc, operand, &mut out[done * chs * elem..end * chs * elem]);
            done = end;
        }
    }
}

/// The blocks of a group's channels that a tile has, and where they stand among its channels. Tiles of
/// grouped convolutions have all channels, other tiles whole blocks.
fn blocks_of(tile: &Tile, weights: &PackedWeights, group: usize, groups: usize) -> (Range<usize>, usize) {
    if groups > 1 {
        return (0..weights.blocks(), group * weights.channels());
    }
    (PackedWeights::blocks_with(&tile.chs), 0)
}
