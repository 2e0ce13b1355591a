//! The int8 inner product, `i8` activations by `i8` weights in `i32`, of whole panels.
//!
//! Weights are packed once a stage as `[ceil(channels / 16)][ceil(reduction / 4)][16][4]`, activations are
//! laid out a pixel a row and offset by 128 to be unsigned, as the VNNI instruction wants them; the offset
//! and the zero point are taken back by one correction a channel. The portable path computes the same sums
//! from the same panels and is what the fast path is tested against. All sums wrap at 32 bits; valid programs
//! do not overflow.

/// Output channels of a vector.
const LANES: usize = 16;
/// Products that one instruction sums.
const QUAD: usize = 4;

/// Weights packed for [`multiply`].
#[derive(Clone, Debug)]
pub(crate) struct PackedWeights {
    data: Vec<i8>,
    /// `bias - (128 + input_zp) * sum(weights)`, a channel.
    correction: Vec<i32>,
    channels: usize,
    reduction: usize,
}

impl PackedWeights {
    /// Packs `weights`, `[channels][reduction]` row-major.
    ///
    /// # Panics
    /// If the slices do not have those sizes.
    pub(crate) fn new(weights: &[i8], bias: &[i32], reduction: usize, input_zp: i32) -> Self {
        let channels = bias.len();
        assert_eq!(weights.len(), channels * reduction, "weights are channels x reduction");
        let quads = reduction.div_ceil(QUAD);
        let mut data = vec![0i8; channels.div_ceil(LANES) * quads * LANES * QUAD];
        let mut correction = Vec::with_capacity(channels);
        for (channel, row) in weights.chunks_exact(reduction.max(1)).enumerate() {
            let base = channel / LANES * quads * LANES * QUAD + channel % LANES * QUAD;
            let mut sum = 0i32;
            for (k, &w) in row.iter().enumerate() {
                data[base + k / QUAD * LANES * QUAD + k % QUAD] = w;
                sum = sum.wrapping_add(i32::from(w));
            }
            correction.push(bias[channel].wrapping_sub(sum.wrapping_mul(128 + input_zp)));
        }
        Self { data, correction, channels, reduction }
    }

    /// Bytes of a pixel's row in the activation panel.
    pub(crate) fn panel_stride(&self) -> usize {
        self.reduction.div_ceil(QUAD) * QUAD
    }

    /// Output channels.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }
}

/// `out[pixel][channel] = bias + sum(k) (activation - input_zp) * weight`, where `panel` holds
/// `activation + 128` as bytes, [`PackedWeights::panel_stride`] a pixel (what lies beyond the reduction is
/// multiplied by zero).
///
/// # Panics
/// If `panel` and `out` are not of the same number of pixels.
pub(crate) fn multiply(weights: &PackedWeights, panel: &[u8], out: &mut [i32]) {
    let stride = weights.panel_stride();
    let pixels = out.len() / weights.channels.max(1);
    assert!(panel.len() >= pixels * stride, "the panel has a row for every pixel");
    assert_eq!(out.len(), pixels * weights.channels, "the output has a row for every pixel");
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: the features that the function is compiled for were just detected, and the sizes that it
        // relies on were asserted above.
        unsafe { x86::multiply(weights, panel, out, pixels) };
        return;
    }
    portable(weights, panel, out, pixels);
}

fn portable(weights: &PackedWeights, panel: &[u8], out: &mut [i32], pixels: usize) {
    let quads = weights.reduction.div_ceil(QUAD);
    let stride = quads * QUAD;
    for pixel in 0..pixels {
        let row = &panel[pixel * stride..][..stride];
        for (block, packed) in weights.data.chunks_exact((quads * LANES * QUAD).max(1)).enumerate() {
            let mut acc = [0i32; LANES];
            for (quad, w) in row.chunks_exact(QUAD).zip(packed.chunks_exact(LANES * QUAD)) {
                for (lane, w) in w.chunks_exact(QUAD).enumerate() {
                    for (&a, &w) in quad.iter().zip(w) {
                        acc[lane] = acc[lane].wrapping_add(i32::from(a) * i32::from(w));
                    }
                }
            }
            store(weights, &acc, block, &mut out[pixel * weights.channels..][..weights.channels]);
        }
    }
}

/// Adds the correction of block `block` and writes the channels that exist.
fn store(weights: &PackedWeights, acc: &[i32; LANES], block: usize, out: &mut [i32]) {
    let first = block * LANES;
    let n = LANES.min(weights.channels - first);
    for lane in 0..n {
        out[first + lane] = acc[lane].wrapping_add(weights.correction[first + lane]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::{LANES, PackedWeights, QUAD, store};

    /// Pixels of a register tile.
    const PIXELS: usize = 8;
    /// Channel vectors of a register tile.
    const BLOCKS: usize = 3;

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
    }

    /// # Safety
    /// The CPU has AVX-512F and AVX-512 VNNI; `panel` holds `pixels` rows of the panel stride, `out` `pixels`
    /// rows of the channels.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn multiply(weights: &PackedWeights, panel: &[u8], out: &mut [i32], pixels: usize) {
        let blocks = weights.channels.div_ceil(LANES);
        let mut block = 0;
        while block < blocks {
            let n_blocks = BLOCKS.min(blocks - block);
            let mut pixel = 0;
            while pixel < pixels {
                let n_pixels = PIXELS.min(pixels - pixel);
                // SAFETY: the tile lies inside the blocks and pixels that the caller vouches for.
                unsafe {
                    match (n_pixels, n_blocks) {
                        (PIXELS, 3) => tile::<PIXELS, 3>(weights, panel, out, pixel, block),
                        (PIXELS, 2) => tile::<PIXELS, 2>(weights, panel, out, pixel, block),
                        (PIXELS, _) => tile::<PIXELS, 1>(weights, panel, out, pixel, block),
                        (_, 3) => single::<3>(weights, panel, out, pixel, n_pixels, block),
                        (_, 2) => single::<2>(weights, panel, out, pixel, n_pixels, block),
                        _ => single::<1>(weights, panel, out, pixel, n_pixels, block),
                    }
                }
                pixel += n_pixels;
            }
            block += n_blocks;
        }
    }

    /// # Safety
    /// As [`multiply`], for the `n` pixels from `pixel` on.
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn single<const B: usize>(
        weights: &PackedWeights,
        panel: &[u8],
        out: &mut [i32],
        pixel: usize,
        n: usize,
        block: usize,
    ) {
        for p in pixel..pixel + n {
            // SAFETY: pixel `p` is one of the caller's.
            unsafe { tile::<1, B>(weights, panel, out, p, block) };
        }
    }

    /// # Safety
    /// As [`multiply`]; pixels `pixel..pixel + P` and channel blocks `block..block + B` exist.
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn tile<const P: usize, const B: usize>(
        weights: &PackedWeights,
        panel: &[u8],
        out: &mut [i32],
        pixel: usize,
        block: usize,
    ) {
        let quads = weights.reduction.div_ceil(QUAD);
        let block_bytes = quads * LANES * QUAD;
        let mut acc: [[__m512i; B]; P] = [[_mm512_setzero_si512(); B]; P];
        for quad in 0..quads {
            let mut w = [_mm512_setzero_si512(); B];
            for (b, vector) in w.iter_mut().enumerate() {
                let at = (block + b) * block_bytes + quad * LANES * QUAD;
                // SAFETY: `data` holds `block_bytes` for every block, and quad < quads, so 64 bytes lie at
                // `at`.
                *vector = unsafe { _mm512_loadu_si512(weights.data.as_ptr().add(at).cast()) };
            }
            for (p, row) in acc.iter_mut().enumerate() {
                let at = (pixel + p) * quads * QUAD + quad * QUAD;
                // SAFETY: the panel holds `quads * QUAD` bytes for every pixel.
                let a = unsafe { panel.as_ptr().add(at).cast::<i32>().read_unaligned() };
                let a = _mm512_set1_epi32(a);
                for (sum, w) in row.iter_mut().zip(&w) {
                    *sum = _mm512_dpbusd_epi32(*sum, a, *w);
                }
            }
        }
        for (p, row) in acc.iter().enumerate() {
            for (b, sum) in row.iter().enumerate() {
                let mut lanes = [0i32; LANES];
                // SAFETY: `lanes` is 64 bytes.
                unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), *sum) };
                let at = (pixel + p) * weights.channels;
                store(weights, &lanes, block + b, &mut out[at..at + weights.channels]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> impl FnMut() -> u8 {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        }
    }

    #[test]
    fn both_paths_equal_the_definition() {
        for (pixels, channels, reduction, zp) in
            [(1, 1, 1, 0), (9, 17, 5, -128), (8, 48, 64, 3), (19, 70, 147, 127), (3, 255, 33, -5)]
        {
            let mut next = noise(pixels as u64 * 31 + channels as u64);
            let weights: Vec<i8> = (0..channels * reduction).map(|_| next() as i8).collect();
            let bias: Vec<i32> = (0..channels).map(|_| i32::from(next()) * 1000 - 128_000).collect();
            let packed = PackedWeights::new(&weights, &bias, reduction, zp);
            let stride = packed.panel_stride();
            let panel: Vec<u8> = (0..pixels * stride).map(|_| next()).collect();
            let mut want = vec![0; pixels * channels];
            for p in 0..pixels {
                for c in 0..channels {
                    want[p * channels + c] = bias[c]
                        + (0..reduction)
                            .map(|k| {
                                let a = i32::from(panel[p * stride + k]) - 128;
                                (a - zp) * i32::from(weights[c * reduction + k])
                            })
                            .sum::<i32>();
                }
            }
            let mut got = vec![0; want.len()];
            multiply(&packed, &panel, &mut got);
            assert_eq!(got, want);
            portable(&packed, &panel, &mut got, pixels);
            assert_eq!(got, want);
        }
    }
}
