//! One row of a stage: what every head and tail computes.
//!
//! A head fills the accumulator row, `cols * chs` values of `i32`; each tail transforms it in place. Heads
//! that sum in 48 bits are [`wide`]'s. Reads go through [`Sram`], which turns a view's row into bytes of a
//! ring slot.

use std::ops::Range;

use crate::inst::{
    Argmax, AvgPool2d, Axis, Conv2d, DepthwiseConv2d, Head, MatMul, MaxPool2d, Pad, Permute, Reduce,
    ReduceKind, Resize, ResizeMode, Tail, TransposeConv2d, View, Window,
};
use crate::interp::arith::{apply_scale_32, reciprocal_scale};
use crate::interp::prepared::{HeadTables, Prepared, TailTables};
use crate::interp::sram::{Sram, limits, load};
use crate::interp::taps::{sample, tap, tap_transposed};
use crate::interp::{kernels, tails, wide};
use crate::program::StageCode;

/// Computes output row `row` (counted from the first of the output view) of a stage into `acc`. DMA heads are
/// the caller's.
pub(super) fn compute(code: &StageCode, prepared: &Prepared, sram: &Sram<'_>, row: u32, acc: &mut Vec<i32>) {
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    acc.clear();
    acc.resize(cols * chs, 0);
    let mut remaining = code.tail.iter().zip(&prepared.tails);
    if wide::is_wide(&code.head, sram) {
        let tables = if let HeadTables::Wide(tables) = &prepared.head { Some(tables) } else { None };
        let mut sums = vec![0; cols * chs];
        wide::head(&code.head, tables, sram, row, chs, &mut sums);
        if let Some((Tail::Rescale16(t), TailTables::Rescale16(multipliers, shifts))) = remaining.next() {
            for (index, (to, &sum)) in acc.iter_mut().zip(&sums).enumerate() {
                let at = if t.per_channel { index % chs } else { 0 };
                *to = wide::rescale16(t, sum, multipliers[at], shifts[at]);
            }
        }
    } else {
        head(code, &prepared.head, sram, row, acc);
    }
    for (tail, tables) in remaining {
        tails::apply(tail, tables, sram, row, cols, chs, acc);
    }
}

/// Computes row `row` of a head that is not wide into `acc`.
fn head(code: &StageCode, tables: &HeadTables, sram: &Sram<'_>, row: u32, acc: &mut Vec<i32>) {
    let (cols, chs) = (code.out.cols as usize, code.out.chs as usize);
    match (&code.head, tables) {
        (Head::Load(h), _) => load(sram, &h.src, row, cols, chs, acc),
        (Head::Conv2d(h), tables) => conv2d(sram, h, tables, row, cols, acc),
        (Head::TransposeConv2d(h), tables) => transpose_conv2d(sram, h, tables, row, cols, acc),
        (Head::DepthwiseConv2d(h), HeadTables::Raw(weights, bias)) => {
            depthwise_conv2d(sram, h, weights, bias, row, acc);
        }
        (Head::MatMul(h), _) => matmul(sram, h, row, acc),
        (Head::MaxPool2d(h), _) => max_pool2d(sram, h, row, chs, acc),
        (Head::AvgPool2d(h), _) => avg_pool2d(sram, h, row, chs, acc),
        (Head::Resize(h), _) => resize(sram, h, row, chs, acc),
        (Head::Pad(h), _) => pad(sram, h, row, chs, acc),
        (Head::Permute(h), _) => permute(sram, h, row, cols * chs, acc),
        (Head::Reduce(h), _) => reduce(sram, h, row, acc),
        (Head::Argmax(h), _) => argmax(sram, h, row, acc),
        // The caller moves DMA rows; the rest is as `Prepared` makes it.
        (
            Head::DmaIn(_)
            | Head::DmaOut(_)
            | Head::DepthwiseConv2d(_)
            | Head::Conv2dI16(_)
            | Head::DepthwiseConv2dI16(_)
            | Head::TransposeConv2dI16(_)
            | Head::MatMulI16(_),
            _,
        ) => {}
    }
}

/// A row of a convolution, by panels of its taps.
fn conv2d(sram: &Sram<'_>, h: &Conv2d, tables: &HeadTables, row: u32, cols: usize, acc: &mut [i32]) {
    let groups = h.groups.max(1) as usize;
    let panel = |ch0: usize, chs: usize| {
        let window = Taps { window: &h.window, src: &h.src, ch0, chs, row };
        move |pixels: Range<usize>, stride: usize, panel: &mut Vec<u8>| {
            window.panel(sram, pixels, stride, h.input_zp, panel);
        }
    };
    convolve(tables, groups, h.src.chs as usize, (h.input_zp, h.weight_zp), cols, acc, panel);
}

/// A row of a transposed convolution, by panels of the taps that reach it.
fn transpose_conv2d(
    sram: &Sram<'_>,
    h: &TransposeConv2d,
    tables: &HeadTables,
    row: u32,
    cols: usize,
    acc: &mut [i32],
) {
    let panel = |_: usize, _: usize| {
        move |pixels: Range<usize>, stride: usize, panel: &mut Vec<u8>| {
            transposed_panel(h, sram, row, pixels, stride, panel);
        }
    };
    convolve(tables, 1, h.src.chs as usize, (h.input_zp, h.weight_zp), cols, acc, panel);
}

/// A row of a depthwise convolution, summed tap by tap on the biases.
fn depthwise_conv2d(
    sram: &Sram<'_>,
    h: &DepthwiseConv2d,
    weights: &[i8],
    bias: &[i32],
    row: u32,
    acc: &mut [i32],
) {
    let (w, chs) = (&h.window, bias.len());
    let (inputs, multiplier) = (h.src.chs as usize, h.multiplier.max(1) as usize);
    for pixel in acc.chunks_exact_mut(chs) {
        pixel.copy_from_slice(bias);
    }
    let mut input = Vec::new();
    for ky in 0..w.kernel_h {
        let Some(y) = tap(row, ky, w.stride_h, w.dilation_h, w.pad_top, h.src.rows) else { continue };
        sram.row(&h.src, y, &mut input);
        for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
            for kx in 0..w.kernel_w {
                let Some(ix) = tap(x as u32, kx, w.stride_w, w.dilation_w, w.pad_left, h.src.cols) else {
                    continue;
                };
                let input = &input[ix as usize * inputs..][..inputs];
                let at = (ky * w.kernel_w + kx) as usize * chs;
                let weights = &weights[at..at + chs];
                if multiplier == 1 {
                    for ((sum, &a), &w) in pixel.iter_mut().zip(input).zip(weights) {
                        *sum = sum.wrapping_add((a - h.input_zp) * (i32::from(w) - h.weight_zp));
                    }
                } else {
                    for (c, (sum, &w)) in pixel.iter_mut().zip(weights).enumerate() {
                        let a = input[c / multiplier] - h.input_zp;
                        *sum = sum.wrapping_add(a * (i32::from(w) - h.weight_zp));
                    }
                }
            }
        }
    }
}

/// A row of a matrix product, summed row by row of `b`.
fn matmul(sram: &Sram<'_>, h: &MatMul, row: u32, acc: &mut [i32]) {
    let batches = h.batches.max(1);
    let batch = row / (h.a.rows / batches).max(1);
    let k = h.b.rows / batches;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    sram.row(&h.a, row, &mut a);
    for (index, &a) in a.iter().enumerate().take(k as usize) {
        sram.row(&h.b, batch * k + index as u32, &mut b);
        for (sum, &b) in acc.iter_mut().zip(&b) {
            *sum = sum.wrapping_add((a - h.a_zp).wrapping_mul(b - h.b_zp));
        }
    }
}

/// The taps of a convolution's output row over a range of channels.
struct Taps<'a> {
    window: &'a Window,
    src: &'a View,
    ch0: usize,
    chs: usize,
    row: u32,
}

impl Taps<'_> {
    /// Lays out `pixels` as rows of `stride` bytes, `[KH][KW][IC]`, offset by 128; taps outside hold the zero
    /// point.
    fn panel(&self, sram: &Sram<'_>, pixels: Range<usize>, stride: usize, zp: i32, panel: &mut Vec<u8>) {
        let w = self.window;
        let fill = (zp + 128) as u8;
        panel.clear();
        panel.resize(pixels.len() * stride, fill);
        let stream = sram.stream(self.src);
        let (all, from) = (stream.chs as usize, self.src.ch0 as usize + self.ch0);
        for ky in 0..w.kernel_h {
            let Some(y) = tap(self.row, ky, w.stride_h, w.dilation_h, w.pad_top, self.src.rows) else {
                continue;
            };
            let input = sram.row_bytes(self.src, y);
            for (x, to) in pixels.clone().zip(panel.chunks_exact_mut(stride)) {
                for kx in 0..w.kernel_w {
                    let Some(ix) = tap(x as u32, kx, w.stride_w, w.dilation_w, w.pad_left, self.src.cols)
                    else {
                        continue;
                    };
                    let at = (ky * w.kernel_w + kx) as usize * self.chs;
                    let input = &input[ix as usize * all + from..][..self.chs];
                    for (to, &a) in to[at..at + self.chs].iter_mut().zip(input) {
                        *to = a ^ 0x80;
                    }
                }
            }
        }
    }
}

fn transposed_panel(
    h: &TransposeConv2d,
    sram: &Sram<'_>,
    row: u32,
    pixels: Range<usize>,
    stride: usize,
    panel: &mut Vec<u8>,
) {
    panel.clear();
    panel.resize(pixels.len() * stride, (h.input_zp + 128) as u8);
    let stream = sram.stream(&h.src);
    let (all, from, chs) = (stream.chs as usize, h.src.ch0 as usize, h.src.chs as usize);
    for ky in 0..h.kernel_h {
        let Some(y) = tap_transposed(row, ky, h.out_pad_top, h.stride_h, h.src.rows) else { continue };
        let input = sram.row_bytes(&h.src, y);
        for (x, to) in pixels.clone().zip(panel.chunks_exact_mut(stride)) {
            for kx in 0..h.kernel_w {
                let Some(ix) = tap_transposed(x as u32, kx, h.out_pad_left, h.stride_w, h.src.cols) else {
                    continue;
                };
                let at = (ky * h.kernel_w + kx) as usize * chs;
                let input = &input[ix as usize * all + from..][..chs];
                for (to, &a) in to[at..at + chs].iter_mut().zip(input) {
                    *to = a ^ 0x80;
                }
            }
        }
    }
}

/// Products of a row below which it is not worth sharing out.
const PARALLEL_LEAST_PRODUCTS: usize = 1 << 20;

/// Multiplies the panels that `panel_of(first channel, channels)` lays out by each group's weights.
fn convolve<F, P>(
    tables: &HeadTables,
    groups: usize,
    inputs: usize,
    (input_zp, weight_zp): (i32, i32),
    cols: usize,
    acc: &mut [i32],
    panel_of: F,
) where
    F: Fn(usize, usize) -> P,
    P: Fn(Range<usize>, usize, &mut Vec<u8>) + Sync,
{
    use rayon::prelude::*;
    let chs = acc.len() / cols.max(1);
    match tables {
        HeadTables::Packed(packed) => {
            for (group, weights) in packed.iter().enumerate() {
                let fill = panel_of(group * (inputs / groups), inputs / groups);
                let (stride, channels) = (weights.panel_stride(), weights.channels());
                let block = if cols * stride * channels < PARALLEL_LEAST_PRODUCTS {
                    cols
                } else {
                    cols.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(8)
                };
                let run = |index: usize, acc: &mut [i32]| {
                    let from = index * block;
                    let mut panel = Vec::new();
                    fill(from..from + acc.len() / chs, stride, &mut panel);
                    if groups == 1 {
                        kernels::multiply(weights, &panel, acc);
                        return;
                    }
                    let mut part = vec![0; acc.len() / chs * channels];
                    kernels::multiply(weights, &panel, &mut part);
                    for (to, from) in acc.chunks_exact_mut(chs).zip(part.chunks_exact(channels)) {
                        to[group * channels..][..channels].copy_from_slice(from);
                    }
                };
                if block >= cols {
                    run(0, acc);
                } else {
                    acc.par_chunks_mut(block * chs).enumerate().for_each(|(index, acc)| run(index, acc));
                }
            }
        }
        HeadTables::Raw(weights, bias) => {
            let reduction = weights.len() / chs.max(1);
            let mut panel = Vec::new();
            for group in 0..groups {
                let of_group = chs / groups;
                panel_of(group * (inputs / groups), inputs / groups)(0..cols, reduction, &mut panel);
                for (pixel, taps) in acc.chunks_exact_mut(chs).zip(panel.chunks_exact(reduction)) {
                    for c in group * of_group..(group + 1) * of_group {
                        pixel[c] = weights[c * reduction..][..reduction].iter().zip(taps).fold(
                            bias[c],
                            |sum, (&w, &a)| {
                                let a = i32::from(a) - 128 - input_zp;
                                sum.wrapping_add(a * (i32::from(w) - weight_zp))
                            },
                        );
                    }
                }
            }
        }
        HeadTables::None | HeadTables::Wide(_) => {}
    }
}

/// A row of the greatest values of each window.
fn max_pool2d(sram: &Sram<'_>, h: &MaxPool2d, row: u32, chs: usize, acc: &mut [i32]) {
    pool(sram, &h.src, &h.window, row, chs, acc, |pixel, taps| {
        pixel.fill(i32::MIN);
        for input in taps {
            for (best, &v) in pixel.iter_mut().zip(*input) {
                *best = (*best).max(v);
            }
        }
    });
}

/// A row of the means of each window.
fn avg_pool2d(sram: &Sram<'_>, h: &AvgPool2d, row: u32, chs: usize, acc: &mut [i32]) {
    let (least, most) = limits(sram.elem(&h.src));
    pool(sram, &h.src, &h.window, row, chs, acc, |pixel, taps| {
        let (multiplier, shift) = reciprocal_scale(taps.len().max(1) as u32);
        for (c, mean) in pixel.iter_mut().enumerate() {
            let sum: i64 = taps.iter().map(|input| i64::from(input[c] - h.input_zp)).sum();
            let value = apply_scale_32(sum, multiplier, shift, false) + i64::from(h.output_zp);
            *mean = value.clamp(least, most) as i32;
        }
    });
}

/// Gathers the taps inside the input for every pixel of a row, and lets `reduce` fill the pixel.
fn pool(
    sram: &Sram<'_>,
    src: &View,
    window: &Window,
    row: u32,
    chs: usize,
    acc: &mut [i32],
    reduce: impl Fn(&mut [i32], &[&[i32]]),
) {
    let mut rows = Vec::new();
    for ky in 0..window.kernel_h {
        if let Some(y) = tap(row, ky, window.stride_h, 1, window.pad_top, src.rows) {
            let mut input = Vec::new();
            sram.row(src, y, &mut input);
            rows.push(input);
        }
    }
    let mut taps: Vec<&[i32]> = Vec::new();
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        taps.clear();
        for input in &rows {
            for kx in 0..window.kernel_w {
                if let Some(ix) = tap(x as u32, kx, window.stride_w, 1, window.pad_left, src.cols) {
                    taps.push(&input[ix as usize * chs..][..chs]);
                }
            }
        }
        reduce(pixel, &taps);
    }
}

fn resize(sram: &Sram<'_>, h: &Resize, row: u32, chs: usize, acc: &mut [i32]) {
    let (y0, y1, ry) = sample(i64::from(row), h.scale_y_d, h.scale_y_n, h.offset_y, h.src.rows);
    let (mut top, mut bottom) = (Vec::new(), Vec::new());
    let nearest = h.mode == ResizeMode::Nearest;
    let below = ry * 2 >= h.scale_y_n;
    sram.row(&h.src, if nearest && below { y1 } else { y0 } as u32, &mut top);
    if !nearest {
        sram.row(&h.src, y1 as u32, &mut bottom);
    }
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        let (x0, x1, rx) = sample(x as i64, h.scale_x_d, h.scale_x_n, h.offset_x, h.src.cols);
        if nearest {
            let ix = if rx * 2 >= h.scale_x_n { x1 } else { x0 };
            pixel.copy_from_slice(&top[ix * chs..][..chs]);
            continue;
        }
        for (c, value) in pixel.iter_mut().enumerate() {
            let at = |row: &[i32], x: usize| row[x * chs + c];
            let upper = at(&top, x0) * (h.scale_x_n - rx) + at(&top, x1) * rx;
            let lower = at(&bottom, x0) * (h.scale_x_n - rx) + at(&bottom, x1) * rx;
            *value = upper * (h.scale_y_n - ry) + lower * ry;
        }
    }
}

/// A row of the source within its padding.
fn pad(sram: &Sram<'_>, h: &Pad, row: u32, chs: usize, acc: &mut [i32]) {
    acc.fill(h.value);
    let y = i64::from(row) - i64::from(h.top);
    if !(0..i64::from(h.src.rows)).contains(&y) {
        return;
    }
    let mut input = Vec::new();
    sram.row(&h.src, y as u32, &mut input);
    for (x, pixel) in input.chunks_exact(h.src.chs as usize).enumerate() {
        let at = (x + h.left as usize) * chs + h.front as usize;
        acc[at..at + pixel.len()].copy_from_slice(pixel);
    }
}

fn permute(sram: &Sram<'_>, h: &Permute, row: u32, per_row: usize, acc: &mut [i32]) {
    let mut strides = [1usize; 6];
    for axis in (0..5).rev() {
        strides[axis] = strides[axis + 1] * h.dims[axis + 1] as usize;
    }
    let extents = h.perm.map(|p| (h.dims[usize::from(p)] as usize).max(1));
    let strides = h.perm.map(|p| strides[usize::from(p)]);
    let source_row = (h.src.cols * h.src.chs) as usize;
    let mut cached: std::collections::BTreeMap<usize, Vec<i32>> = std::collections::BTreeMap::new();
    for (index, value) in acc.iter_mut().enumerate() {
        let (mut rest, mut source) = (row as usize * per_row + index, 0);
        for axis in (0..6).rev() {
            source += rest % extents[axis] * strides[axis];
            rest /= extents[axis];
        }
        let y = source / source_row;
        let input = cached.entry(y).or_insert_with(|| {
            let mut input = Vec::new();
            sram.row(&h.src, y as u32, &mut input);
            input
        });
        *value = input[source % source_row];
    }
}

/// A row folded along an axis.
fn reduce(sram: &Sram<'_>, h: &Reduce, row: u32, acc: &mut [i32]) {
    let fold = |acc: i32, v: i32| match h.kind {
        ReduceKind::Sum => acc.wrapping_add(v),
        ReduceKind::Product => acc.wrapping_mul(v),
        ReduceKind::Max => acc.max(v),
        ReduceKind::Min => acc.min(v),
    };
    acc.fill(match h.kind {
        ReduceKind::Sum => 0,
        ReduceKind::Product => 1,
        ReduceKind::Max => i32::MIN,
        ReduceKind::Min => i32::MAX,
    });
    let rows = if h.axis == Axis::H { 0..h.src.rows } else { row..row + 1 };
    let chs = h.src.chs as usize;
    let mut input = Vec::new();
    for y in rows {
        sram.row(&h.src, y, &mut input);
        for (index, &v) in input.iter().enumerate() {
            let at = match h.axis {
                Axis::H => index,
                Axis::W => index % chs,
                Axis::C => index / chs,
            };
            acc[at] = fold(acc[at], v);
        }
    }
}

/// A row of the channels that hold the greatest value, the first of equals.
fn argmax(sram: &Sram<'_>, h: &Argmax, row: u32, acc: &mut [i32]) {
    let mut input = Vec::new();
    sram.row(&h.src, row, &mut input);
    for (best, pixel) in acc.iter_mut().zip(input.chunks_exact(h.src.chs as usize)) {
        let mut at = 0;
        for (c, &v) in pixel.iter().enumerate() {
            if v > pixel[at] {
                at = c;
            }
        }
        *best = at as i32;
    }
}
