//! The int8 inner product: tiles of `pixels x channels` of a convolution in `i32`.
//!
//! The activations of a tile stand as *lines*, rows of the input within their padding, so that the taps of a
//! pixel are a few runs of neighbouring values: one for each kernel row, or for each tap where it is dilated
//! or grouped. A pixel is then an offset into the lines, and no copy of its taps is made.
//!
//! Weights are packed once, in vectors of 16 channels by as many products as one instruction sums: four where
//! the CPU multiplies bytes (lines hold `activation + 128` as `u8`, which is taken back by a correction a
//! channel), two where it multiplies 16-bit numbers (lines hold `activation - zero point` as `i16`). None of
//! the instructions saturates on them: `vpdpbusd` sums in 32 bits, and a pair of products of `vpmaddwd` is
//! below `2 * 255 * 128`. All sums wrap at 32 bits; valid programs do not overflow.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use crate::interp::simd::{Level, Simd, vectorised};

/// Output channels of a block.
pub(crate) const LANES: usize = 16;

/// How activations and weights stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// Two products a lane: `i16` activations.
    Pairs,
    /// Four products a lane: `u8` activations.
    Quads,
}

impl Layout {
    /// The layout of the kernels of a level.
    pub(crate) fn of(simd: Simd) -> Self {
        match simd.level() {
            Level::Portable | Level::Avx2 => Self::Pairs,
            Level::AvxVnni | Level::Avx512Vnni => Self::Quads,
        }
    }

    /// Products of a lane.
    pub(crate) fn products(self) -> usize {
        match self {
            Self::Pairs => 2,
            Self::Quads => 4,
        }
    }
}

/// Rows of activations as kernels read them, with a few values behind the last that runs may reach into.
#[derive(Clone, Debug)]
pub(crate) enum Lines {
    /// `activation - zero point`.
    Pairs(Vec<i16>),
    /// `activation + 128`.
    Quads(Vec<u8>),
}

/// Values behind the last of the lines.
const SLACK: usize = 8;

impl Lines {
    /// Lines of `len` values, which are any.
    pub(crate) fn new(layout: Layout, len: usize) -> Self {
        match layout {
            Layout::Pairs => Self::Pairs(vec![0; len + SLACK]),
            Layout::Quads => Self::Quads(vec![0; len + SLACK]),
        }
    }

    /// Makes lines of at least `len` values of those that were used before; the values are any.
    pub(crate) fn resize(&mut self, len: usize) {
        match self {
            Self::Pairs(values) if values.len() < len + SLACK => values.resize(len + SLACK, 0),
            Self::Quads(values) if values.len() < len + SLACK => values.resize(len + SLACK, 0),
            _ => {}
        }
    }

    /// Fills a range with the zero point.
    pub(crate) fn fill(&mut self, range: Range<usize>, zero_point: i32) {
        match self {
            Self::Pairs(values) => values[range].fill(0),
            Self::Quads(values) => values[range].fill((zero_point + 128) as u8),
        }
    }

    /// Puts activations (bytes of `i8`) at an offset.
    #[inline]
    pub(crate) fn put(&mut self, simd: Simd, at: usize, activations: &[u8], zero_point: i32) {
        match self {
            Self::Pairs(values) => {
                differences(simd, activations, zero_point as i16, &mut values[at..at + activations.len()]);
            }
            Self::Quads(values) => {
                offset(simd, activations, &mut values[at..at + activations.len()]);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Pairs(values) => values.len(),
            Self::Quads(values) => values.len(),
        }
    }
}

vectorised! {
    /// `activation - zero point`.
    fn differences(simd; activations: &[u8], zero_point: i16, to: &mut [i16]) {
        for (to, &a) in to.iter_mut().zip(activations) {
            *to = i16::from(a as i8) - zero_point;
        }
    }

    /// `activation + 128`.
    fn offset(simd; activations: &[u8], to: &mut [u8]) {
        for (to, &a) in to.iter_mut().zip(activations) {
            *to = a ^ 0x80;
        }
    }
}

/// Where the taps of the pixels of a tile stand in lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// Offset of each pixel.
    pub(crate) pixels: Vec<u32>,
    /// Offset of each run of taps from its pixel.
    pub(crate) runs: Vec<u32>,
}

/// Weights packed for [`multiply`].
#[derive(Clone, Debug)]
pub(crate) struct PackedWeights {
    layout: Layout,
    /// `[blocks][runs][groups of a run][LANES][products]`.
    data: Vec<i8>,
    /// What is added to a channel's sum.
    correction: Vec<i32>,
    channels: usize,
    runs: usize,
    /// Lanes' products that a run takes.
    groups: usize,
}

impl PackedWeights {
    /// Packs `weights`, `[channels][runs][run length]` row-major.
    ///
    /// # Panics
    /// If the slices do not have those sizes.
    pub(crate) fn new(layout: Layout, weights: &[i8], bias: &[i32], runs: usize, input_zp: i32) -> Self {
        let channels = bias.len();
        let reduction = weights.len() / channels.max(1);
        assert_eq!(weights.len(), channels * reduction, "weights are channels x reduction");
        let run = reduction / runs.max(1);
        assert_eq!(reduction, run * runs, "a reduction is whole runs");
        let products = layout.products();
        let groups = run.div_ceil(products);
        let block_len = runs * groups * LANES * products;
        let mut data = vec![0i8; channels.div_ceil(LANES) * block_len];
        for (channel, row) in weights.chunks_exact(reduction.max(1)).enumerate() {
            let block = &mut data[channel / LANES * block_len..][..block_len];
            let lane = channel % LANES * products;
            for (r, run) in row.chunks_exact(run.max(1)).enumerate() {
                let vectors = block[r * groups * LANES * products..].chunks_exact_mut(LANES * products);
                for (vector, group) in vectors.zip(run.chunks(products)) {
                    vector[lane..lane + group.len()].copy_from_slice(group);
                }
            }
        }
        let correct = |(row, &bias): (&[i8], &i32)| match layout {
            Layout::Pairs => bias,
            Layout::Quads => {
                let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
                bias.wrapping_sub(sum.wrapping_mul(128 + input_zp))
            }
        };
        let correction = if reduction == 0 {
            bias.to_vec()
        } else {
            weights.chunks_exact(reduction).zip(bias).map(correct).collect()
        };
        Self { layout, data, correction, channels, runs, groups }
    }

    /// Output channels.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Blocks of channels.
    pub(crate) fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Bytes of the weights of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        self.runs * self.groups * LANES * self.layout.products()
    }

    /// The blocks that hold a range of channels, which begins with one of them.
    pub(crate) fn blocks_with(channels: &Range<usize>) -> Range<usize> {
        channels.start / LANES..channels.end.div_ceil(LANES)
    }

    /// The channels of a range of blocks.
    pub(crate) fn channels_of(&self, blocks: &Range<usize>) -> Range<usize> {
        blocks.start * LANES..(blocks.end * LANES).min(self.channels)
    }
}

/// The pixels and channels that a kernel computes, and where they go: a row of `stride` sums a pixel, of
/// which the first is that of the first channel of the first block.
struct Tile<'a> {
    weights: &'a PackedWeights,
    blocks: Range<usize>,
    walk: &'a Walk,
    out: &'a mut [i32],
    stride: usize,
}

impl Tile<'_> {
    /// Adds the corrections of a block to the sums of a pixel and writes the channels that exist.
    #[inline(always)]
    fn store(&mut self, pixel: usize, block: usize, sums: &[i32; LANES]) {
        let correction = &self.weights.correction[block * LANES..];
        let at = pixel * self.stride + (block - self.blocks.start) * LANES;
        let out = self.out[at..].iter_mut();
        for ((out, sum), correction) in out.zip(sums).zip(correction) {
            *out = sum.wrapping_add(*correction);
        }
    }
}

/// `out[pixel][channel] = bias + sum(k) (activation - input_zp) * weight` for the pixels of a walk and the
/// channels of some blocks; `stride` sums a pixel.
///
/// # Panics
/// If the walk leaves the lines, its runs are not those of the weights, `out` is too short, or lines and
/// weights are of another layout than the kernels of `simd`.
pub(crate) fn multiply(
    simd: Simd,
    weights: &PackedWeights,
    blocks: Range<usize>,
    lines: &Lines,
    walk: &Walk,
    out: &mut [i32],
    stride: usize,
) {
    assert_eq!(weights.layout, Layout::of(simd), "weights are packed for the kernels of this level");
    assert_eq!(walk.runs.len(), weights.runs, "a walk has the runs of the weights");
    assert!(blocks.end <= weights.blocks(), "the blocks exist");
    let greatest = |offsets: &[u32]| offsets.iter().max().map_or(0, |&at| at as usize);
    let reach = greatest(&walk.pixels) + greatest(&walk.runs) + weights.groups * weights.layout.products();
    let reads_nothing = walk.pixels.is_empty() || weights.runs * weights.groups == 0;
    assert!(
        reads_nothing || reach <= lines.len(),
        "the walk stays within the lines: {reach} of {}",
        lines.len()
    );
    let channels = weights.channels_of(&blocks).len();
    let room = out.len() + stride.saturating_sub(channels) >= walk.pixels.len() * stride;
    assert!(stride >= channels && room, "there is room for all sums");
    let mut tile = Tile { weights, blocks, walk, out, stride };
    match (lines, simd.level()) {
        (Lines::Pairs(values), Level::Portable) => portable::multiply(&mut tile, values),
        // SAFETY: `simd` shows that the CPU has the features; the assertions above show that runs stay within
        // the lines, and blocks within the packed weights.
        #[cfg(target_arch = "x86_64")]
        (Lines::Pairs(values), Level::Avx2) => unsafe { x86::multiply_avx2(&mut tile, values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Lines::Quads(values), Level::AvxVnni) => unsafe { x86::multiply_avx_vnni(&mut tile, values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Lines::Quads(values), Level::Avx512Vnni) => unsafe { x86::multiply_avx512_vnni(&mut tile, values) },
        (lines, level) => unreachable!("{level} does not read such lines: {} values", lines.len()),
    }
}

#[cfg(test)]
mod tests;
