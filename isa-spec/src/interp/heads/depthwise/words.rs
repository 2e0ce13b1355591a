//! Sums of products of 16-bit numbers, on every CPU and for all weights.

use super::lines::Lines;
use crate::inst::DepthwiseConv2d;
use crate::interp::simd::{Simd, vectorised};

/// Sums that are held at once.
const CHUNK: usize = 64;

/// Weights less their zero point.
#[derive(Clone, Debug)]
pub(in crate::interp) struct Words {
    bias: Vec<i32>,
    /// Those of each tap, repeated over [`CHUNK`] more values, so that a chunk may begin at any channel.
    taps: Vec<Vec<i16>>,
}

/// Where what a tap multiplies begins in the lines, and its weights.
struct Tap<'a> {
    at: usize,
    weights: &'a [i16],
}

impl Words {
    /// Packs `weights`, `[KH][KW][OC]`.
    pub(super) fn new(h: &DepthwiseConv2d, weights: &[i8], bias: &[i32]) -> Self {
        let chs = bias.len();
        let less = |w: &i8| i16::from(*w) - h.weight_zp as i16;
        let repeat = |tap: &[i8]| tap.iter().map(less).cycle().take(chs + CHUNK).collect();
        let bias = bias.iter().copied().cycle().take(chs + CHUNK).collect();
        Self { bias, taps: weights.chunks_exact(chs.max(1)).map(repeat).collect() }
    }

    pub(super) fn channels(&self) -> usize {
        self.bias.len() - CHUNK
    }

    /// Sums row `row`.
    pub(super) fn sum(&self, simd: Simd, lines: &Lines<'_, i16>, row: u32, acc: &mut [i32]) {
        let taps = lines.taps(row).zip(&self.taps).map(|(at, weights)| Tap { at, weights });
        let taps: Vec<_> = taps.collect();
        sum_taps(simd, &self.bias, lines.values, &taps, self.channels(), acc);
    }
}

vectorised! {
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
