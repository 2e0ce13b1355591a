//! The rows of the input that rows of a depthwise convolution read.
//!
//! They are laid out within their padding, every channel as often as it has outputs, and column by column of
//! each phase of the stride: then what a tap multiplies stands side by side for all pixels of a row.

use std::ops::Range;

use crate::inst::{DepthwiseConv2d, Window};
use crate::interp::simd::{Simd, vectorised};
use crate::interp::sram::Sram;

/// Values behind the last line that vectors may reach into.
const SLACK: usize = 64;

/// What lines hold of an activation.
pub(super) trait Value: Copy + Default {
    /// What stands for the zero point.
    fn zero(zero_point: i32) -> Self;

    /// Puts each channel of pixels as often as it has outputs.
    fn spread(simd: Simd, pixels: &[u8], multiplier: usize, zero_point: i32, to: &mut [Self]);
}

/// `activation - zero point`.
impl Value for i16 {
    fn zero(_: i32) -> Self {
        0
    }

    fn spread(simd: Simd, pixels: &[u8], multiplier: usize, zero_point: i32, to: &mut [Self]) {
        spread_words(simd, pixels, multiplier, zero_point as i16, to);
    }
}

/// `activation + 128`.
impl Value for u8 {
    fn zero(zero_point: i32) -> Self {
        (zero_point + 128) as u8
    }

    fn spread(simd: Simd, pixels: &[u8], multiplier: usize, _: i32, to: &mut [Self]) {
        spread_bytes(simd, pixels, multiplier, to);
    }
}

/// The rows that a tile reads.
pub(super) struct Lines<'a, T> {
    h: &'a DepthwiseConv2d,
    chs: usize,
    columns: Columns,
    /// The input row that the first line holds; it may lie in the padding.
    first: i64,
    pub(super) values: &'a [T],
}

impl<'a, T: Value> Lines<'a, T> {
    /// Lays out what columns `cols` and all `chs` channels of output rows `rows` read.
    pub(super) fn new(
        sram: &Sram<'_>,
        h: &'a DepthwiseConv2d,
        rows: Range<u32>,
        cols: Range<usize>,
        chs: usize,
        values: &'a mut Vec<T>,
    ) -> Self {
        let (w, src) = (&h.window, &h.src);
        let columns = Columns::new(w, cols.len());
        let line = columns.line(chs);
        let first = i64::from(rows.start) * i64::from(w.stride_h) - i64::from(w.pad_top);
        let n = (rows.len() - 1) * w.stride_h as usize + reach(w.kernel_h, w.dilation_h) + 1;
        if values.len() < n * line + SLACK {
            values.resize(n * line + SLACK, T::default());
        }
        let (all, from) = (sram.stream_chs(src), src.ch0 as usize);
        let multiplier = h.multiplier.max(1) as usize;
        let zero = T::zero(h.input_zp);
        // A run of columns that stand side by side in the input as in the line.
        let whole = columns.stride == 1 && multiplier == 1 && src.chs as usize == all;
        // Input columns that stand in the lines, and the padding before them.
        let left = (cols.start * columns.stride) as i64 - i64::from(w.pad_left);
        let within = |col: i64| col.clamp(0, src.cols.into()) as usize;
        let (skipped, end) = (within(left), within(left + columns.padded as i64));
        let (pad, inputs) = (((-left).max(0) as usize).min(columns.padded), end - skipped);
        for (index, line) in values.chunks_exact_mut(line).take(n).enumerate() {
            let y = first + index as i64;
            if !(0..i64::from(src.rows)).contains(&y) {
                line.fill(zero);
                continue;
            }
            let bytes = &sram.row_bytes(src, y as u32)[skipped * all..(skipped + inputs) * all];
            if whole {
                line[..pad * chs].fill(zero);
                line[(pad + inputs) * chs..].fill(zero);
                let to = &mut line[pad * chs..(pad + inputs) * chs];
                T::spread(sram.simd, bytes, 1, h.input_zp, to);
                continue;
            }
            for col in (0..pad).chain(pad + inputs..columns.of_phase * columns.stride) {
                line[columns.place(col) * chs..][..chs].fill(zero);
            }
            for (col, pixel) in bytes.chunks_exact(all).enumerate() {
                let to = &mut line[columns.place(pad + col) * chs..][..chs];
                T::spread(sram.simd, &pixel[from..][..src.chs as usize], multiplier, h.input_zp, to);
            }
        }
        Self { h, chs, columns, first, values }
    }

    /// Where what each tap of row `row` multiplies begins.
    pub(super) fn taps(&self, row: u32) -> impl Iterator<Item = usize> {
        let (w, line) = (&self.h.window, self.columns.line(self.chs));
        let top = i64::from(row) * i64::from(w.stride_h) - i64::from(w.pad_top) - self.first;
        let taps = (0..w.kernel_h as usize).flat_map(|ky| (0..w.kernel_w as usize).map(move |kx| (ky, kx)));
        taps.map(move |(ky, kx)| {
            let (y, x) = (top as usize + ky * w.dilation_h as usize, kx * w.dilation_w as usize);
            y * line + self.columns.place(x) * self.chs
        })
    }
}

/// How far the last tap of a kernel is from its first.
fn reach(kernel: u32, dilation: u32) -> usize {
    if kernel > 1 { (kernel as usize - 1) * dilation as usize } else { 0 }
}

/// How the columns of a line, padding included, are ordered: those of each phase of the stride side by side.
struct Columns {
    stride: usize,
    /// Columns of a phase.
    of_phase: usize,
    /// Columns that taps read, padding included.
    padded: usize,
}

impl Columns {
    fn new(w: &Window, cols: usize) -> Self {
        let stride = w.stride_w.max(1) as usize;
        let padded = (cols - 1) * stride + reach(w.kernel_w, w.dilation_w) + 1;
        Self { stride, of_phase: padded.div_ceil(stride), padded }
    }

    fn place(&self, col: usize) -> usize {
        col % self.stride * self.of_phase + col / self.stride
    }

    /// Values of a line of `chs` channels.
    fn line(&self, chs: usize) -> usize {
        self.of_phase * self.stride * chs
    }
}

vectorised! {
    fn spread_words(simd; pixels: &[u8], multiplier: usize, zero_point: i16, to: &mut [i16]) {
        if multiplier == 1 {
            for (to, &a) in to.iter_mut().zip(pixels) {
                *to = i16::from(a as i8) - zero_point;
            }
            return;
        }
        for (to, &a) in to.chunks_exact_mut(multiplier).zip(pixels) {
            to.fill(i16::from(a as i8) - zero_point);
        }
    }

    fn spread_bytes(simd; pixels: &[u8], multiplier: usize, to: &mut [u8]) {
        if multiplier == 1 {
            for (to, &a) in to.iter_mut().zip(pixels) {
                *to = a ^ 0x80;
            }
            return;
        }
        for (to, &a) in to.chunks_exact_mut(multiplier).zip(pixels) {
            to.fill(a ^ 0x80);
        }
    }
}
