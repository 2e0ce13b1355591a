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

use crate::interp::lanes::{ChannelSum, LaneScales, Lanes, Limits, SumLane, Sums};
use crate::interp::simd::{Level, Simd, vectorised};

/// Output channels of a block.
pub(crate) use crate::interp::lanes::LANES;

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
    /// What is added to the sums of each block.
    corrections: Vec<[i32; LANES]>,
    /// No sum is further from 0, corrected or not.
    greatest: i64,
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
        let mut corrections = vec![[0; LANES]; channels.div_ceil(LANES)];
        let mut greatest = 0;
        for (channel, &bias) in bias.iter().enumerate() {
            let row = weights[channel * reduction..][..reduction].iter();
            let of_weights = ChannelSum::new(row.copied(), bias, input_zp);
            corrections[channel / LANES][channel % LANES] = match layout {
                Layout::Pairs => bias,
                Layout::Quads => of_weights.correction,
            };
            greatest = greatest.max(of_weights.greatest);
        }
        Self { layout, data, corrections, greatest, channels, runs, groups }
    }

    /// The sums of its channels, which follow on each other from `first` on.
    pub(crate) fn sums(&self, first: usize) -> Sums {
        let lanes = self.corrections.as_flattened()[..self.channels].iter().enumerate();
        let lane = |(ch, &correction): (usize, &i32)| SumLane { channel: first + ch, correction };
        Sums { greatest: self.greatest, lanes: lanes.map(lane).collect() }
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

/// What is done with sums, and where they go.
///
/// Scales are of the sums as they stand in registers, of which [`Sums`] tell.
pub(crate) enum Out<'a> {
    /// The corrections are added.
    Sums(&'a mut [i32]),
    /// They are rescaled, and held within limits.
    Scaled(&'a LaneScales, Limits, &'a mut [i32]),
    /// They are rescaled to bytes of `i8`, saturating.
    Bytes(&'a LaneScales, &'a mut [u8]),
}

impl Out<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Sums(out) | Self::Scaled(_, _, out) => out.len(),
            Self::Bytes(_, out) => out.len(),
        }
    }
}

/// The pixels and channels that a kernel computes, and where they go: a row of `stride` values a pixel, of
/// which the first is that of the first channel of the first block.
struct Tile<'a> {
    weights: &'a PackedWeights,
    blocks: Range<usize>,
    walk: &'a Walk,
    out: Out<'a>,
    stride: usize,
}

impl Tile<'_> {
    /// Writes the channels that exist of the sums of some pixels and a block.
    ///
    /// # Safety
    /// The CPU has the instructions of the vectors.
    #[inline(always)]
    unsafe fn put<V: Lanes, const P: usize>(&mut self, pixel: usize, block: usize, sums: &[V; P]) {
        let stride = self.stride;
        let first = pixel * stride + (block - self.blocks.start) * LANES;
        let channels = (self.weights.channels - block * LANES).min(LANES);
        // SAFETY: the caller's.
        unsafe {
            match &mut self.out {
                Out::Sums(out) => {
                    let correction = V::load(&self.weights.corrections[block]);
                    for (p, sums) in sums.iter().enumerate() {
                        store(sums.plus(correction), &mut out[first + p * stride..], channels);
                    }
                }
                Out::Scaled(scales, limits, out) => {
                    let (scale, limits) = (V::scale(scales.of(block)), *limits);
                    for (p, sums) in sums.iter().enumerate() {
                        let scaled = sums.scaled(scale).held(limits);
                        store(scaled, &mut out[first + p * stride..], channels);
                    }
                }
                Out::Bytes(scales, out) => {
                    let scale = V::scale(scales.of(block));
                    for (p, sums) in sums.iter().enumerate() {
                        let bytes = sums.scaled(scale).to_bytes();
                        put(&bytes, &mut out[first + p * stride..], channels);
                    }
                }
            }
        }
    }
}

/// Writes the first so many numbers of a vector.
///
/// # Safety
/// The CPU has the instructions of the vector.
#[inline(always)]
unsafe fn store<V: Lanes>(values: V, out: &mut [i32], n: usize) {
    let mut array = [0; LANES];
    // SAFETY: the caller's.
    unsafe { values.store(&mut array) };
    put(&array, out, n);
}

/// Writes the first so many values of a vector.
#[inline(always)]
fn put<T: Copy>(values: &[T; LANES], out: &mut [T], n: usize) {
    match out.first_chunk_mut() {
        Some(out) if n == LANES => *out = *values,
        _ => out[..n].copy_from_slice(&values[..n]),
    }
}

/// `bias + sum(k) (activation - input_zp) * weight` for the pixels of a walk and the channels of some blocks;
/// `stride` values of `out` a pixel.
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
    out: Out<'_>,
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
