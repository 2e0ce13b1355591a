//! The kernel for every CPU, over one small vector: pairs of products of four channels.

#[cfg(not(target_arch = "x86_64"))]
use plain::Sums;
#[cfg(target_arch = "x86_64")]
use sse2::Sums;

use super::{LANES, Tile};

/// Pixels of a register tile.
const PIXELS: usize = 4;
/// Channels of a vector.
const CHANNELS: usize = 4;
/// Vectors of a register tile; a block is done in parts of so many.
const VECTORS: usize = 2;

/// Four sums of 32 bits, to which products of 16-bit pairs are added, with what every CPU of x86-64 has: the
/// compiler does not find it in the plain ones.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_cvtsi64_si128, _mm_madd_epi16, _mm_set1_epi32, _mm_setzero_si128,
        _mm_srai_epi16, _mm_storeu_si128, _mm_unpacklo_epi8,
    };

    /// Weights of four channels, a pair each.
    pub(super) type Pairs = __m128i;

    #[derive(Clone, Copy)]
    pub(super) struct Sums(__m128i);

    impl Sums {
        #[inline(always)]
        pub(super) fn zero() -> Self {
            // SAFETY: x86-64 has SSE2.
            Self(unsafe { _mm_setzero_si128() })
        }

        #[inline(always)]
        pub(super) fn widen(weights: &[i8; 8]) -> Pairs {
            let bytes = i64::from_le_bytes(weights.map(|w| w as u8));
            // SAFETY: x86-64 has SSE2.
            unsafe {
                let bytes = _mm_cvtsi64_si128(bytes);
                _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8)
            }
        }

        #[inline(always)]
        pub(super) fn add(self, pair: [i16; 2], weights: Pairs) -> Self {
            let pair = i32::from(pair[0] as u16) | i32::from(pair[1]) << 16;
            // SAFETY: x86-64 has SSE2.
            Self(unsafe { _mm_add_epi32(self.0, _mm_madd_epi16(_mm_set1_epi32(pair), weights)) })
        }

        #[inline(always)]
        pub(super) fn to_array(self) -> [i32; 4] {
            let mut sums = [0; 4];
            // SAFETY: the array is 16 bytes, and x86-64 has SSE2.
            unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), self.0) };
            sums
        }
    }
}

/// Four sums of 32 bits, to which products of 16-bit pairs are added.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod plain {
    /// Weights of four channels, a pair each.
    pub(super) type Pairs = [i16; 8];

    #[derive(Clone, Copy)]
    pub(super) struct Sums([i32; 4]);

    impl Sums {
        #[inline(always)]
        pub(super) fn zero() -> Self {
            Self([0; 4])
        }

        #[inline(always)]
        pub(super) fn widen(weights: &[i8; 8]) -> Pairs {
            weights.map(i16::from)
        }

        #[inline(always)]
        pub(super) fn add(self, pair: [i16; 2], weights: Pairs) -> Self {
            let [first, second] = pair.map(i32::from);
            let product = |lane: usize| {
                first * i32::from(weights[lane * 2]) + second * i32::from(weights[lane * 2 + 1])
            };
            Self(std::array::from_fn(|lane| self.0[lane].wrapping_add(product(lane))))
        }

        #[inline(always)]
        pub(super) fn to_array(self) -> [i32; 4] {
            self.0
        }
    }
}

pub(super) fn multiply(tile: &mut Tile<'_>, lines: &[i16]) {
    for block in tile.blocks.clone() {
        let mut pixel = 0;
        while pixel + PIXELS <= tile.walk.pixels.len() {
            several::<PIXELS>(tile, lines, pixel, block);
            pixel += PIXELS;
        }
        for pixel in pixel..tile.walk.pixels.len() {
            several::<1>(tile, lines, pixel, block);
        }
    }
}

/// The sums of some pixels and a block.
fn several<const P: usize>(tile: &mut Tile<'_>, lines: &[i16], pixel: usize, block: usize) {
    let weights = tile.weights;
    let block_bytes = weights.block_bytes();
    let packed = &weights.data[block * block_bytes..][..block_bytes];
    let run_bytes = (weights.groups * LANES * 2).max(1);
    let mut sums = [[0i32; LANES]; P];
    for part in 0..LANES / (CHANNELS * VECTORS) {
        let mut acc = [[Sums::zero(); VECTORS]; P];
        for (&run, packed) in tile.walk.runs.iter().zip(packed.chunks_exact(run_bytes)) {
            let taps: [&[[i16; 2]]; P] = std::array::from_fn(|p| {
                let at = tile.walk.pixels[pixel + p] as usize + run as usize;
                lines[at..][..weights.groups * 2].as_chunks::<2>().0
            });
            let (groups, _) = packed.as_chunks::<{ LANES * 2 }>();
            for (group, weights) in groups.iter().enumerate() {
                let (vectors, _) = weights.as_chunks::<{ CHANNELS * 2 }>();
                let w: [_; VECTORS] = std::array::from_fn(|v| Sums::widen(&vectors[part * VECTORS + v]));
                for (acc, taps) in acc.iter_mut().zip(&taps) {
                    for (sum, w) in acc.iter_mut().zip(w) {
                        *sum = sum.add(taps[group], w);
                    }
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(&acc) {
            for (v, sum) in acc.iter().enumerate() {
                sums[(part * VECTORS + v) * CHANNELS..][..CHANNELS].copy_from_slice(&sum.to_array());
            }
        }
    }
    // SAFETY: arrays take no instructions that a CPU may lack.
    unsafe { tile.put(pixel, block, &sums) };
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    /// The kernel runs on one of them here, and on the other elsewhere.
    #[test]
    fn both_vectors_add_the_same() {
        let extremes = [i16::from(i8::MIN), -255, -1, 0, 1, 127, 255];
        let weights =
            [[-128i8; 8], [127; 8], [-128, 127, 1, -1, 0, -128, 127, 5], [3, 0, -7, 9, 100, -100, 64, -64]];
        for first in extremes {
            for second in extremes {
                for weights in &weights {
                    let pair = [first, second];
                    let (plain, sse2) = (super::plain::Sums::zero(), super::sse2::Sums::zero());
                    let plain = plain.add(pair, super::plain::Sums::widen(weights));
                    let sse2 = sse2.add(pair, super::sse2::Sums::widen(weights));
                    assert_eq!(plain.to_array(), sse2.to_array(), "{pair:?} by {weights:?}");
                }
            }
        }
    }
}
