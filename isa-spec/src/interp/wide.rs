//! Heads that sum `i16` in 48 bits: one row of a stage as `i64`, and the rescale that every such row goes
//! through first.
//!
//! Zero points are 0 here, which the verifier shows, so what a window takes from outside its input is 0 too.
//! Sums are held in 64 bits and wrap there; valid programs keep them within 48.

use crate::inst::{Elem, Head, MatMul, Rescale16, Resize, ResizeMode, TransposeConv2d, View, Window};
use crate::interp::scales::Scales;
use crate::interp::simd::{Simd, vectorised};
use crate::interp::sram::{Sram, limits};
use crate::interp::taps::{sample, tap, tap_transposed};

/// Products whose sum surely fits 32 bits: each is below `2^22`.
const SHORT_SUM: usize = 256;
/// Weights and biases of a convolution, weights widened once so that a product of rows is one of equal types.
#[derive(Clone, Debug)]
pub(super) struct WideTables {
    pub(super) weights: Vec<i16>,
    pub(super) bias: Vec<i64>,
}

impl WideTables {
    /// `i8` weights and `i48` biases.
    pub(super) fn new(weights: Vec<i8>, bias: Vec<i64>) -> Self {
        Self { weights: weights.into_iter().map(i16::from).collect(), bias }
    }
}

/// Whether a head sums in 48 bits.
pub(super) fn is_wide(head: &Head, sram: &Sram<'_>) -> bool {
    match head {
        Head::Conv2dI16(_)
        | Head::DepthwiseConv2dI16(_)
        | Head::TransposeConv2dI16(_)
        | Head::MatMulI16(_) => true,
        Head::Resize(h) => h.mode == ResizeMode::Bilinear && sram.elem(&h.src) == Elem::I16,
        _ => false,
    }
}

/// Computes row `row` of a wide head into `sums`, `cols * chs` of them.
pub(super) fn head(
    head: &Head,
    tables: Option<&WideTables>,
    sram: &Sram<'_>,
    row: u32,
    chs: usize,
    sums: &mut [i64],
) {
    match (head, tables) {
        (Head::Conv2dI16(h), Some(tables)) => {
            let groups = h.groups.max(1) as usize;
            let inputs = h.src.chs as usize / groups;
            for group in 0..groups {
                let patch = |x: usize, patch: &mut [i16]| {
                    gather(sram, &h.src, &h.window, row, x, group * inputs, inputs, patch);
                };
                let taps = (h.window.kernel_h * h.window.kernel_w) as usize;
                products(sram.simd, tables, (group, groups), taps * inputs, chs, sums, &patch);
            }
        }
        (Head::TransposeConv2dI16(h), Some(tables)) => {
            let reduction = (h.kernel_h * h.kernel_w * h.src.chs) as usize;
            let patch = |x: usize, patch: &mut [i16]| gather_transposed(sram, h, row, x, patch);
            products(sram.simd, tables, (0, 1), reduction, chs, sums, &patch);
        }
        (Head::DepthwiseConv2dI16(h), Some(tables)) => {
            for pixel in sums.chunks_exact_mut(chs) {
                pixel.copy_from_slice(&tables.bias);
            }
            let (w, m) = (&h.window, h.multiplier.max(1) as usize);
            let mut input = Vec::new();
            for ky in 0..w.kernel_h {
                let Some(y) = tap(row, ky, w.stride_h, w.dilation_h, w.pad_top, h.src.rows) else { continue };
                sram.row(&h.src, y, &mut input);
                for (x, pixel) in sums.chunks_exact_mut(chs).enumerate() {
                    for kx in 0..w.kernel_w {
                        let Some(ix) = tap(x as u32, kx, w.stride_w, w.dilation_w, w.pad_left, h.src.cols)
                        else {
                            continue;
                        };
                        let input = &input[ix as usize * h.src.chs as usize..][..h.src.chs as usize];
                        let weights = &tables.weights[(ky * w.kernel_w + kx) as usize * chs..][..chs];
                        for (c, (sum, &w)) in pixel.iter_mut().zip(weights).enumerate() {
                            *sum = sum.wrapping_add(i64::from(input[c / m] * i32::from(w)));
                        }
                    }
                }
            }
        }
        (Head::MatMulI16(h), _) => matmul(sram, h, row, sums),
        (Head::Resize(h), _) => resize(sram, h, row, chs, sums),
        _ => {}
    }
}

/// `sums = bias + patch . weights` for every pixel of a row and every channel of a group, where `patch_of(x)`
/// lays out the taps of pixel `x`.
fn products(
    simd: Simd,
    tables: &WideTables,
    (group, groups): (usize, usize),
    reduction: usize,
    chs: usize,
    sums: &mut [i64],
    patch_of: &impl Fn(usize, &mut [i16]),
) {
    let channels = group * (chs / groups)..(group + 1) * (chs / groups);
    let mut patch = Vec::new();
    for (x, pixel) in sums.chunks_exact_mut(chs).enumerate() {
        patch.clear();
        patch.resize(reduction, 0);
        patch_of(x, &mut patch);
        for channel in channels.clone() {
            let weights = &tables.weights[channel * reduction..][..reduction];
            pixel[channel] = tables.bias[channel].wrapping_add(dot(simd, &patch, weights));
        }
    }
}

vectorised! {
    /// The sum of products of `i16` by widened `i8`, in runs that fit 32 bits.
    fn dot(simd; a: &[i16], w: &[i16]) -> i64 {
        let mut total = 0;
        for (a, w) in a.chunks(SHORT_SUM).zip(w.chunks(SHORT_SUM)) {
            let mut sum = 0i32;
            for (&a, &w) in a.iter().zip(w) {
                sum += i32::from(a) * i32::from(w);
            }
            total += i64::from(sum);
        }
        total
    }
}

/// Copies channels `ch0..ch0 + chs` of a pixel of a row's bytes.
fn copy_pixel(bytes: &[u8], pixel: usize, ch0: usize, to: &mut [i16], all: usize) {
    let from = &bytes[(pixel * all + ch0) * 2..][..to.len() * 2];
    for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = i16::from_le_bytes(*from);
    }
}

/// Lays out the taps of output pixel `x` as `[KH][KW][chs]`; those outside the input stay as they are.
#[allow(clippy::too_many_arguments)]
fn gather(
    sram: &Sram<'_>,
    src: &View,
    w: &Window,
    row: u32,
    x: usize,
    ch0: usize,
    chs: usize,
    patch: &mut [i16],
) {
    let (all, from) = (sram.stream_chs(src), src.ch0 as usize + ch0);
    for ky in 0..w.kernel_h {
        let Some(y) = tap(row, ky, w.stride_h, w.dilation_h, w.pad_top, src.rows) else { continue };
        let bytes = sram.row_bytes(src, y);
        for kx in 0..w.kernel_w {
            let Some(ix) = tap(x as u32, kx, w.stride_w, w.dilation_w, w.pad_left, src.cols) else {
                continue;
            };
            let at = (ky * w.kernel_w + kx) as usize * chs;
            copy_pixel(bytes, ix as usize, from, &mut patch[at..at + chs], all);
        }
    }
}

fn gather_transposed(sram: &Sram<'_>, h: &TransposeConv2d, row: u32, x: usize, patch: &mut [i16]) {
    let (all, from, chs) = (sram.stream_chs(&h.src), h.src.ch0 as usize, h.src.chs as usize);
    for ky in 0..h.kernel_h {
        let Some(y) = tap_transposed(row, ky, h.out_pad_top, h.stride_h, h.src.rows) else { continue };
        let bytes = sram.row_bytes(&h.src, y);
        for kx in 0..h.kernel_w {
            let Some(ix) = tap_transposed(x as u32, kx, h.out_pad_left, h.stride_w, h.src.cols) else {
                continue;
            };
            let at = (ky * h.kernel_w + kx) as usize * chs;
            copy_pixel(bytes, ix as usize, from, &mut patch[at..at + chs], all);
        }
    }
}

fn matmul(sram: &Sram<'_>, h: &MatMul, row: u32, sums: &mut [i64]) {
    sram.factors(h, row, |a, b| {
        for (sum, &b) in sums.iter_mut().zip(b) {
            *sum = sum.wrapping_add(i64::from(a) * i64::from(b));
        }
    });
}

/// Bilinear interpolation.
fn resize(sram: &Sram<'_>, h: &Resize, row: u32, chs: usize, sums: &mut [i64]) {
    let (y0, y1, ry) = sample(row.into(), h.scale_y_d, h.scale_y_n, h.offset_y, h.src.rows);
    let (mut top, mut bottom) = (Vec::new(), Vec::new());
    sram.row(&h.src, y0 as u32, &mut top);
    sram.row(&h.src, y1 as u32, &mut bottom);
    let [y_n, x_n, ry] = [h.scale_y_n, h.scale_x_n, ry].map(i64::from);
    for (x, pixel) in sums.chunks_exact_mut(chs).enumerate() {
        let (x0, x1, rx) = sample(x as i64, h.scale_x_d, h.scale_x_n, h.offset_x, h.src.cols);
        let rx = i64::from(rx);
        for (c, value) in pixel.iter_mut().enumerate() {
            let between =
                |row: &[i32]| i64::from(row[x0 * chs + c]) * (x_n - rx) + i64::from(row[x1 * chs + c]) * rx;
            *value = between(&top) * (y_n - ry) + between(&bottom) * ry;
        }
    }
}

/// The first rescale of a row of sums.
pub(super) fn rescale(t: &Rescale16, scales: &Scales<i16>, chs: usize, sums: &[i64], acc: &mut [i32]) {
    let (multipliers, shifts) = (scales.multipliers.of(&(0..chs)), scales.shifts.of(&(0..chs)));
    let period = multipliers.len();
    for (acc, sums) in acc.chunks_mut(period).zip(sums.chunks(period)) {
        for (((to, &sum), &m), &s) in acc.iter_mut().zip(sums).zip(multipliers).zip(shifts) {
            *to = rescale16(t, sum, m, s);
        }
    }
}

/// TOSA RESCALE with 16-bit multipliers of one value.
pub(super) fn rescale16(t: &Rescale16, value: i64, multiplier: i16, shift: u8) -> i32 {
    let (least, most) = limits(t.to);
    let product = (value - i64::from(t.input_zp)).wrapping_mul(i64::from(multiplier));
    let scaled = product.wrapping_add(1 << (shift - 1)) >> shift;
    (scaled + i64::from(t.output_zp)).clamp(least, most) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sums_of_the_greatest_products_do_not_wrap() {
        for n in [1, 255, 256, 257, 5000] {
            let (a, w) = (vec![i16::MIN; n], vec![-128i16; n]);
            for simd in Simd::available() {
                assert_eq!(dot(simd, &a, &w), n as i64 * 32768 * 128);
            }
        }
    }

    #[test]
    fn rescales_of_48_bits_round_half_up_and_saturate() {
        let to_i8 = Rescale16 {
            multipliers: Default::default(),
            shifts: Default::default(),
            per_channel: false,
            input_zp: 0,
            output_zp: 5,
            to: Elem::I8,
        };
        // 3 * 2^40 * 2^14 / 2^55 = 1.5, rounds to 2; -1.5 rounds to -1.
        assert_eq!(rescale16(&to_i8, 3 << 40, 1 << 14, 55), 7);
        assert_eq!(rescale16(&to_i8, -(3 << 40), 1 << 14, 55), 4);
        assert_eq!(rescale16(&to_i8, 1 << 46, 1 << 14, 40), 127);
        assert_eq!(rescale16(&Rescale16 { to: Elem::I16, ..to_i8 }, -(1 << 46), 1 << 14, 40), -32768);
    }
}
