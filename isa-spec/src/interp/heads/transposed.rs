//! Transposed convolutions of bytes: for each phase of the stride a convolution of the taps that reach it.

use super::conv::{Field, WeightZeroPoint};
use crate::inst::TransposeConv2d;
use crate::interp::kernels::{Layout, Out, PackedWeights, multiply};
use crate::interp::sram::Sram;
use crate::interp::tile::Scratch;

/// The weights of a transposed convolution, packed for the kernels.
#[derive(Clone, Debug)]
pub(in crate::interp) struct PackedTransposed {
    /// `[stride_h][stride_w]`: those of the taps that are reached at a distance from the padding, modulo the
    /// stride.
    phases: Vec<Phase>,
}

#[derive(Clone, Debug)]
struct Phase {
    weights: PackedWeights,
    weight_zp: Option<WeightZeroPoint>,
}

/// How many taps of a kernel a phase of the stride has: `phase`, `phase + stride`, and so on.
fn taps_of(phase: usize, stride: usize, kernel: usize) -> usize {
    kernel.saturating_sub(phase).div_ceil(stride)
}

impl PackedTransposed {
    /// Packs `weights`, `[OC][KH][KW][IC]`.
    pub(in crate::interp) fn new(h: &TransposeConv2d, layout: Layout, weights: &[i8], bias: &[i32]) -> Self {
        let [kh, kw, ic, sh, sw] =
            [h.kernel_h, h.kernel_w, h.src.chs, h.stride_h, h.stride_w].map(|v| v as usize);
        let pack = |phase: usize| {
            let (py, px) = (phase / sw, phase % sw);
            let (ny, nx) = (taps_of(py, sh, kh), taps_of(px, sw, kw));
            let mut of_phase = Vec::with_capacity(bias.len() * ny * nx * ic);
            for channel in weights.chunks_exact((kh * kw * ic).max(1)) {
                // The later a tap, the earlier its input: backwards, the inputs of a run are neighbours.
                for y in (0..ny).rev() {
                    for x in (0..nx).rev() {
                        let tap = (py + y * sh) * kw + px + x * sw;
                        of_phase.extend_from_slice(&channel[tap * ic..][..ic]);
                    }
                }
            }
            let weights = PackedWeights::new(layout, &of_phase, bias, ny, h.input_zp);
            let weight_zp = WeightZeroPoint::new(h.weight_zp, layout, ny, ny * nx * ic, h.input_zp);
            Phase { weights, weight_zp }
        };
        Self { phases: (0..sh * sw).map(pack).collect() }
    }
}

/// A row of a transposed convolution.
pub(super) fn transpose_conv2d(
    sram: &Sram<'_>,
    h: &TransposeConv2d,
    packed: &PackedTransposed,
    row: u32,
    cols: usize,
    scratch: &mut Scratch,
) {
    let Scratch { acc, lines, walk, .. } = scratch;
    let [kh, kw, ic, sh, sw] =
        [h.kernel_h, h.kernel_w, h.src.chs, h.stride_h, h.stride_w].map(|v| v as usize);
    let chs = acc.len() / cols.max(1);
    let down = i64::from(row) - i64::from(h.out_pad_top);
    let py = down.rem_euclid(sh as i64) as usize;
    let ny = taps_of(py, sh, kh);
    // The input that the first tap of a phase is at, and the others before it.
    let last_row = (down - py as i64) / sh as i64;
    let across = |x: i64| (x - i64::from(h.out_pad_left)).div_euclid(sw as i64);
    let reach = kw.div_ceil(sw).max(1);
    let first_col = across(0) - (reach as i64 - 1);
    let field = Field {
        row: last_row - (ny as i64 - 1),
        col: first_col,
        rows: ny,
        cols: (across(cols as i64 - 1) - first_col + 1) as usize,
    };
    field.lay_out(sram, &h.src, h.input_zp, |_| true, lines);
    let Some(lines) = lines else { return };
    let line = field.cols * ic;
    walk.runs.clear();
    walk.runs.extend((0..ny).map(|y| (y * line) as u32));
    for x0 in 0..sw.min(cols) {
        let px = (x0 as i64 - i64::from(h.out_pad_left)).rem_euclid(sw as i64) as usize;
        let nx = taps_of(px, sw, kw);
        let Phase { weights, weight_zp } = &packed.phases[py * sw + px];
        walk.pixels.clear();
        // Without a tap there is nothing to read, and an offset that is within the lines.
        let offset = |x: usize| (across(x as i64) - first_col + 1) as usize - nx.max(1);
        walk.pixels.extend((x0..cols).step_by(sw).map(|x| (offset(x) * ic) as u32));
        let acc = &mut acc[x0 * chs..];
        multiply(sram.simd, weights, 0..weights.blocks(), lines, walk, Out::Sums(acc), sw * chs);
        if let Some(zero_point) = weight_zp {
            zero_point.take_off(sram, lines, walk, acc, chs, sw * chs);
        }
    }
}
