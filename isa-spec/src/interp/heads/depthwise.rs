//! Depthwise convolutions of bytes.
//!
//! The input rows of a row are laid out as 16-bit numbers within their padding, every channel as often as it
//! has outputs, and column by column of each phase of the stride: then what a tap multiplies stands side by
//! side for all pixels of the row, and the weights of a tap repeat with the channels.

use std::ops::Range;

use crate::inst::{DepthwiseConv2d, Window};
use crate::interp::simd::{Simd, vectorised};
use crate::interp::sram::Sram;

/// Sums that are held at once.
const CHUNK: usize = 64;

/// The weights of a depthwise convolution, less their zero point.
#[derive(Clone, Debug)]
pub(in crate::interp) struct PackedDepthwise {
    bias: Vec<i32>,
    /// Those of each tap, repeated over [`CHUNK`] more values, so that a chunk may begin at any channel.
    taps: Vec<Vec<i16>>,
}

impl PackedDepthwise {
    /// Packs `weights`, `[KH][KW][OC]`.
    pub(in crate::interp) fn new(h: &DepthwiseConv2d, weights: &[i8], bias: Vec<i32>) -> Self {
        let chs = bias.len();
        let less = |w: &i8| i16::from(*w) - h.weight_zp as i16;
        let repeat = |tap: &[i8]| tap.iter().map(less).cycle().take(chs + CHUNK).collect();
        let bias = bias.iter().copied().cycle().take(chs + CHUNK).collect();
        Self { bias, taps: weights.chunks_exact(chs.max(1)).map(repeat).collect() }
    }

    fn channels(&self) -> usize {
        self.bias.len() - CHUNK
    }
}

/// The rows that a tile of a depthwise convolution reads.
pub(super) struct Lines<'a> {
    h: &'a DepthwiseConv2d,
    packed: &'a PackedDepthwise,
    columns: Columns,
    /// The input row that the first line holds; it may lie in the padding.
    first: i64,
    values: &'a [i16],
}

/// Values behind the last line that chunks may reach into.
const SLACK: usize = CHUNK;

impl<'a> Lines<'a> {
    /// Lays out what output rows `rows` read.
    pub(super) fn new(
        sram: &Sram<'_>,
        h: &'a DepthwiseConv2d,
        packed: &'a PackedDepthwise,
        rows: Range<u32>,
        cols: usize,
        values: &'a mut Vec<i16>,
    ) -> Self {
        let (w, chs, src) = (&h.window, packed.channels(), &h.src);
        let columns = Columns::new(w, cols);
        let line = columns.line(chs);
        let first = i64::from(rows.start) * i64::from(w.stride_h) - i64::from(w.pad_top);
        let n = (rows.len() - 1) * w.stride_h as usize + reach(w.kernel_h, w.dilation_h) + 1;
        if values.len() < n * line + SLACK {
            values.resize(n * line + SLACK, 0);
        }
        let (all, from) = (sram.stream_chs(src), src.ch0 as usize);
        let multiplier = h.multiplier.max(1) as usize;
        // A run of columns that stand side by side in the input as in the line.
        let whole = columns.stride == 1 && multiplier == 1 && src.chs as usize == all;
        for (index, line) in values.chunks_exact_mut(line).take(n).enumerate() {
            let y = first + index as i64;
            if !(0..i64::from(src.rows)).contains(&y) {
                line.fill(0);
                continue;
            }
            let bytes = sram.row_bytes(src, y as u32);
            let pad = (w.pad_left as usize).min(columns.padded);
            let cols = (src.cols as usize).min(columns.padded - pad);
            if whole {
                line[..pad * chs].fill(0);
                line[(pad + cols) * chs..].fill(0);
                let to = &mut line[pad * chs..(pad + cols) * chs];
                spread(sram.simd, &bytes[..cols * chs], 1, h.input_zp as i16, to);
                continue;
            }
            for col in (0..pad).chain(pad + cols..columns.of_phase * columns.stride) {
                line[columns.place(col) * chs..][..chs].fill(0);
            }
            for (col, pixel) in bytes.chunks_exact(all).take(cols).enumerate() {
                let to = &mut line[columns.place(pad + col) * chs..][..chs];
                spread(sram.simd, &pixel[from..][..src.chs as usize], multiplier, h.input_zp as i16, to);
            }
        }
        Self { h, packed, columns, first, values }
    }

    /// Sums row `row`.
    pub(super) fn sum(&self, simd: Simd, row: u32, acc: &mut [i32]) {
        let (w, chs) = (&self.h.window, self.packed.channels());
        let line = self.columns.line(chs);
        let top = i64::from(row) * i64::from(w.stride_h) - i64::from(w.pad_top) - self.first;
        let taps = self.packed.taps.iter().enumerate().map(|(tap, weights)| {
            let (ky, kx) = (tap / w.kernel_w as usize, tap % w.kernel_w as usize);
            let (y, x) = (top as usize + ky * w.dilation_h as usize, kx * w.dilation_w as usize);
            Tap { at: y * line + self.columns.place(x) * chs, weights }
        });
        let taps: Vec<_> = taps.collect();
        sum_taps(simd, &self.packed.bias, self.values, &taps, chs, acc);
    }
}

/// How far the last tap of a kernel is from its first.
fn reach(kernel: u32, dilation: u32) -> usize {
    if kernel > 1 { (kernel as usize - 1) * dilation as usize } else { 0 }
}

/// Where what a tap multiplies begins in the lines, and its weights.
struct Tap<'a> {
    at: usize,
    weights: &'a [i16],
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
    /// Puts each channel of pixels, less the zero point, as often as it has outputs.
    fn spread(simd; pixel: &[u8], multiplier: usize, zero_point: i16, to: &mut [i16]) {
        if multiplier == 1 {
            for (to, &a) in to.iter_mut().zip(pixel) {
                *to = i16::from(a as i8) - zero_point;
            }
            return;
        }
        for (to, &a) in to.chunks_exact_mut(multiplier).zip(pixel) {
            to.fill(i16::from(a as i8) - zero_point);
        }
    }

    /// Sums all taps of a row on the biases, a chunk of sums at a time.
    fn sum_taps(simd; bias: &[i32], lines: &[i16], taps: &[Tap<'_>], chs: usize, acc: &mut [i32]) {
        let mut channel = 0;
        let mut first = 0;
        let (chunks, rest) = acc.as_chunks_mut::<CHUNK>();
        for sums in chunks {
            let mut held = [0i32; CHUNK];
            held.copy_from_slice(&bias[channel..channel + CHUNK]);
            for tap in taps {
                let values = &lines[tap.at + first..][..CHUNK];
                let weights = &tap.weights[channel..][..CHUNK];
                for lane in 0..CHUNK {
                    held[lane] = held[lane].wrapping_add(i32::from(values[lane]) * i32::from(weights[lane]));
                }
            }
            *sums = held;
            first += CHUNK;
            channel = (channel + CHUNK) % chs;
        }
        for (lane, sum) in rest.iter_mut().enumerate() {
            let channel = (channel + lane) % chs;
            *sum = taps.iter().fold(bias[channel], |sum, tap| {
                sum.wrapping_add(i32::from(lines[tap.at + first + lane]) * i32::from(tap.weights[channel]))
            });
        }
    }
}
