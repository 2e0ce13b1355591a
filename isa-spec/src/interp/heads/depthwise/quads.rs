//! Sums of products of bytes, four taps at once, on CPUs with AVX2.
//!
//! The bytes of four taps are interleaved, so that a lane holds those of one value: the instructions that the
//! kernels of convolutions sum four products with then sum four taps. Interleaving leaves values in an order
//! of its own, in which weights, corrections and scales stand too, and which packing results to bytes undoes.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_and_si256, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_packs_epi16, _mm256_packs_epi32, _mm256_set1_epi16, _mm256_setzero_si256,
    _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_unpackhi_epi8,
    _mm256_unpackhi_epi16, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16, _mm512_dpbusd_epi32,
    _mm512_loadu_si512, _mm512_packs_epi16, _mm512_packs_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

use super::lines::Lines;
use crate::inst::DepthwiseConv2d;
use crate::interp::kernels::Out;
use crate::interp::lanes::{ChannelSum, LANES, LaneScales, Lanes, SumLane, Sums};
use crate::interp::simd::{Level, Simd};

/// Taps of a group.
const TAPS: usize = 4;

/// Weights for so many values of a chunk: the values of a row, pixel by pixel, are cut into chunks, so that a
/// chunk begins at one of some channels.
#[derive(Clone, Debug)]
pub(in crate::interp) struct Quads {
    simd: Simd,
    /// Values of a chunk.
    chunk: usize,
    chs: usize,
    /// Groups of taps; those that are not there have weights of 0.
    groups: usize,
    /// `[starts][groups][chunk][TAPS]`.
    weights: Vec<i8>,
    /// `[starts][chunk]`: what is added to sums.
    corrections: Vec<[i32; LANES]>,
    /// No sum is further from 0, corrected or not.
    greatest: i64,
}

/// Values of a chunk: the bytes of a vector.
fn chunk(simd: Simd) -> Option<usize> {
    match simd.level() {
        Level::Portable => None,
        Level::Avx2 | Level::AvxVnni => Some(32),
        Level::Avx512Vnni => Some(64),
    }
}

/// The value of a chunk that stands at a place once bytes are interleaved: of every 16 bytes, the first four
/// stand in the first vector, the next in the second.
fn value_at(place: usize, chunk: usize) -> usize {
    let (vector, lane) = (place / (chunk / 4), place % (chunk / 4));
    lane / 4 * 16 + vector * 4 + lane % 4
}

/// The channel of a lane of the chunks that begin at each of the starts.
fn channel_of(lane: usize, chunk: usize, chs: usize) -> usize {
    (lane / chunk * chunk + value_at(lane % chunk, chunk)) % chs
}

/// Values that weights are packed for at most, beyond eight times the channels.
const MOST_VALUES: usize = 4096;

impl Quads {
    /// Packs `weights`, `[KH][KW][OC]`; none if they do not fit bytes less their zero point, if chunks begin
    /// at too many channels, or on CPUs without AVX2.
    pub(super) fn new(h: &DepthwiseConv2d, simd: Simd, weights: &[i8], bias: &[i32]) -> Option<Self> {
        let (chunk, chs) = (chunk(simd)?, bias.len());
        let less = |w: &i8| i8::try_from(i32::from(*w) - h.weight_zp).ok();
        let weights: Vec<i8> = weights.iter().map(less).collect::<Option<_>>()?;
        let taps: Vec<&[i8]> = weights.chunks_exact(chs.max(1)).collect();
        let groups = taps.len().div_ceil(TAPS);
        let starts = chs / common_divisor(chs, chunk);
        if starts * chunk > MOST_VALUES.max(8 * chs) {
            return None;
        }
        let lanes: Vec<usize> = (0..starts * chunk).map(|lane| channel_of(lane, chunk, chs)).collect();
        let mut packed = Vec::with_capacity(lanes.len() * groups * TAPS);
        for lanes in lanes.chunks_exact(chunk) {
            for group in taps.chunks(TAPS) {
                let quad =
                    |ch: usize| std::array::from_fn::<_, TAPS, _>(|t| group.get(t).map_or(0, |tap| tap[ch]));
                packed.extend(lanes.iter().flat_map(|&ch| quad(ch)));
            }
        }
        let of_channel =
            |(ch, &bias): (usize, &i32)| ChannelSum::new(taps.iter().map(|tap| tap[ch]), bias, h.input_zp);
        let sums: Vec<ChannelSum> = bias.iter().enumerate().map(of_channel).collect();
        let corrections: Vec<i32> = lanes.iter().map(|&ch| sums[ch].correction).collect();
        let corrections = corrections.as_chunks().0.to_vec();
        let greatest = sums.iter().map(|sum| sum.greatest).max().unwrap_or(0);
        Some(Self { simd, chunk, chs, groups, weights: packed, corrections, greatest })
    }

    /// Its sums.
    pub(super) fn sums(&self) -> Sums {
        let lanes = self.corrections.as_flattened().iter().enumerate();
        let lane = |(lane, &correction): (usize, &i32)| SumLane {
            channel: channel_of(lane, self.chunk, self.chs),
            correction,
        };
        Sums { greatest: self.greatest, lanes: lanes.map(lane).collect() }
    }

    /// Sums row `row`.
    ///
    /// # Panics
    /// If the lines are not of as many channels as this has.
    pub(super) fn sum(&self, lines: &Lines<'_, u8>, row: u32, out: Out<'_>) {
        let mut taps: Vec<usize> = lines.taps(row).collect();
        let values = lines.values;
        let reach = taps.iter().max().map_or(0, |&at| at) + out.len().next_multiple_of(64);
        assert!(reach <= values.len(), "taps stay within the lines: {reach} of {}", values.len());
        assert_eq!(out.len() % self.chs, 0, "a row is whole pixels");
        // Taps that are not there multiply by 0.
        taps.resize(self.groups * TAPS, 0);
        let row = Row { packed: self, values, taps: taps.as_chunks().0 };
        // SAFETY: the weights are packed for the level of a `Simd`, which the CPU has; taps stay within the
        // lines.
        unsafe {
            match self.simd.level() {
                Level::Portable => unreachable!("there is no chunk for {}", self.simd.level()),
                Level::Avx2 => avx2(&row, out),
                Level::AvxVnni => avx_vnni(&row, out),
                Level::Avx512Vnni => avx512_vnni(&row, out),
            }
        }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a.max(1) } else { common_divisor(b, a % b) }
}

/// What a row multiplies.
struct Row<'a> {
    packed: &'a Quads,
    values: &'a [u8],
    /// Where what each tap multiplies begins.
    taps: &'a [[usize; TAPS]],
}

#[target_feature(enable = "avx2")]
unsafe fn avx2(row: &Row<'_>, out: Out<'_>) {
    // SAFETY: the caller's.
    unsafe { row.sum::<Avx2>(out) }
}

#[target_feature(enable = "avx2,avxvnni")]
unsafe fn avx_vnni(row: &Row<'_>, out: Out<'_>) {
    // SAFETY: the caller's.
    unsafe { row.sum::<AvxVnni>(out) }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512_vnni(row: &Row<'_>, out: Out<'_>) {
    // SAFETY: the caller's.
    unsafe { row.sum::<Avx512Vnni>(out) }
}

impl Row<'_> {
    /// Sums all chunks, those that begin at one channel after another.
    ///
    /// # Safety
    /// The CPU has the instructions of the vectors, whose chunks the weights are packed for, and the lines
    /// hold what every tap of every chunk reads.
    #[inline(always)]
    unsafe fn sum<V: Vector>(&self, mut out: Out<'_>) {
        let Quads { groups, weights, corrections, .. } = self.packed;
        let n = out.len();
        let starts = corrections.len() * LANES / V::BYTES;
        for start in 0..starts {
            let weights = &weights[start * groups * V::BYTES * TAPS..][..groups * V::BYTES * TAPS];
            let block = start * V::BYTES / LANES;
            let mut at = start * V::BYTES;
            while at < n {
                // SAFETY: the caller's; the weights are those of all groups.
                unsafe {
                    let mut sums = [V::zero(); TAPS];
                    let mut weights = weights.as_ptr();
                    for taps in self.taps {
                        let mut bytes = [V::zero(); TAPS];
                        for (bytes, tap) in bytes.iter_mut().zip(taps) {
                            *bytes = V::load(self.values.as_ptr().add(tap + at));
                        }
                        let quads = V::interleaved(bytes);
                        for (sum, quads) in sums.iter_mut().zip(quads) {
                            *sum = V::add_products(*sum, quads, V::load(weights.cast()));
                            weights = weights.add(V::BYTES);
                        }
                    }
                    write::<V>(sums, &corrections[block..], &mut out, block, at);
                }
                at += starts * V::BYTES;
            }
        }
    }
}

/// Writes the sums of a chunk, whose first scale is that of a block, from value `at` on.
///
/// # Safety
/// The CPU has the instructions of the vectors.
#[inline(always)]
unsafe fn write<V: Vector>(
    sums: [V; TAPS],
    corrections: &[[i32; LANES]],
    out: &mut Out<'_>,
    block: usize,
    at: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut numbers = V::numbers(sums);
        let lanes = numbers.as_mut();
        match out {
            Out::Sums(out) => {
                for (lanes, correction) in lanes.iter_mut().zip(corrections) {
                    *lanes = lanes.plus(Lanes::load(correction));
                }
                store(lanes, V::BYTES, &mut out[at..]);
            }
            Out::Scaled(scales, limits, out) => {
                scale(lanes, scales, block);
                for lanes in &mut *lanes {
                    *lanes = lanes.held(*limits);
                }
                store(lanes, V::BYTES, &mut out[at..]);
            }
            Out::Bytes(scales, out) => {
                scale(lanes, scales, block);
                let bytes = V::packed(numbers);
                let out = &mut out[at..];
                if out.len() >= V::BYTES {
                    bytes.store(out.as_mut_ptr());
                } else {
                    let mut array = [0; 64];
                    bytes.store(array.as_mut_ptr());
                    out.copy_from_slice(&array[..out.len()]);
                }
            }
        }
    }
}

/// Rescales the numbers of a chunk.
///
/// # Safety
/// The CPU has the instructions of the vectors.
#[inline(always)]
unsafe fn scale<L: Lanes>(lanes: &mut [L], scales: &LaneScales, block: usize) {
    for (index, lanes) in lanes.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *lanes = unsafe { lanes.scaled(L::scale(scales.of(block + index))) };
    }
}

/// Writes as many numbers of a chunk as there is room for.
///
/// # Safety
/// The CPU has the instructions of the vectors.
#[inline(always)]
unsafe fn store<L: Lanes>(lanes: &[L], chunk: usize, out: &mut [i32]) {
    for (index, lanes) in lanes.iter().enumerate() {
        let mut numbers = [0; LANES];
        // SAFETY: the caller's.
        unsafe { lanes.store(&mut numbers) };
        for (lane, number) in numbers.into_iter().enumerate() {
            if let Some(to) = out.get_mut(value_at(index * LANES + lane, chunk)) {
                *to = number;
            }
        }
    }
}

/// A vector of bytes, or of the numbers that are the sums of their products.
///
/// # Safety
/// All functions: the CPU has the instructions of the type.
trait Vector: Copy {
    const BYTES: usize;

    type Lanes: Lanes;
    type Numbers: AsMut<[Self::Lanes]>;

    unsafe fn zero() -> Self;

    /// As many bytes as it has stand there.
    unsafe fn load(from: *const u8) -> Self;

    /// There is room for as many bytes as it has.
    unsafe fn store(self, to: *mut u8);

    /// The bytes of four taps, those of a value side by side, of four times as many values.
    unsafe fn interleaved(taps: [Self; TAPS]) -> [Self; TAPS];

    /// Adds the products of four bytes of `u8` and four of `i8` to each number.
    unsafe fn add_products(sum: Self, quads: Self, weights: Self) -> Self;

    /// The numbers of a chunk, as lanes.
    unsafe fn numbers(sums: [Self; TAPS]) -> Self::Numbers;

    /// The numbers of a chunk as bytes in their own order; what `i8` does not hold saturates.
    unsafe fn packed(numbers: Self::Numbers) -> Self;
}

#[derive(Clone, Copy)]
struct Avx512Vnni(__m512i);

impl Vector for Avx512Vnni {
    const BYTES: usize = 64;

    type Lanes = __m512i;
    type Numbers = [__m512i; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's, here and below.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn interleaved([a, b, c, d]: [Self; TAPS]) -> [Self; TAPS] {
        // SAFETY: as above.
        unsafe {
            let (ab, cd) = (_mm512_unpacklo_epi8(a.0, b.0), _mm512_unpacklo_epi8(c.0, d.0));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a.0, b.0), _mm512_unpackhi_epi8(c.0, d.0));
            [
                Self(_mm512_unpacklo_epi16(ab, cd)),
                Self(_mm512_unpackhi_epi16(ab, cd)),
                Self(_mm512_unpacklo_epi16(ab_high, cd_high)),
                Self(_mm512_unpackhi_epi16(ab_high, cd_high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add_products(sum: Self, quads: Self, weights: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_dpbusd_epi32(sum.0, quads.0, weights.0) })
    }

    #[inline(always)]
    unsafe fn numbers([a, b, c, d]: [Self; TAPS]) -> [__m512i; 4] {
        [a.0, b.0, c.0, d.0]
    }

    #[inline(always)]
    unsafe fn packed([a, b, c, d]: [__m512i; 4]) -> Self {
        // SAFETY: as above.
        unsafe { Self(_mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d))) }
    }
}

/// Declares a vector of 256 bits, of which `$add` adds products.
macro_rules! vector_of_256_bits {
    ($name:ident, $add:path) => {
        #[derive(Clone, Copy)]
        struct $name(__m256i);

        impl Vector for $name {
            const BYTES: usize = 32;

            type Lanes = [__m256i; 2];
            type Numbers = [[__m256i; 2]; 2];

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's, here and below.
                Self(unsafe { _mm256_setzero_si256() })
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: as above.
                Self(unsafe { _mm256_loadu_si256(from.cast()) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn interleaved([a, b, c, d]: [Self; TAPS]) -> [Self; TAPS] {
                // SAFETY: as above.
                unsafe {
                    let (ab, cd) = (_mm256_unpacklo_epi8(a.0, b.0), _mm256_unpacklo_epi8(c.0, d.0));
                    let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a.0, b.0), _mm256_unpackhi_epi8(c.0, d.0));
                    [
                        Self(_mm256_unpacklo_epi16(ab, cd)),
                        Self(_mm256_unpackhi_epi16(ab, cd)),
                        Self(_mm256_unpacklo_epi16(ab_high, cd_high)),
                        Self(_mm256_unpackhi_epi16(ab_high, cd_high)),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn add_products(sum: Self, quads: Self, weights: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $add(sum.0, quads.0, weights.0) })
            }

            #[inline(always)]
            unsafe fn numbers([a, b, c, d]: [Self; TAPS]) -> [[__m256i; 2]; 2] {
                [[a.0, b.0], [c.0, d.0]]
            }

            #[inline(always)]
            unsafe fn packed([[a, b], [c, d]]: [[__m256i; 2]; 2]) -> Self {
                // SAFETY: as above.
                unsafe { Self(_mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d))) }
            }
        }
    };
}

vector_of_256_bits!(AvxVnni, _mm256_dpbusd_avx_epi32);
vector_of_256_bits!(Avx2, add_products_in_pairs);

/// Adds the products of the even bytes and those of the odd ones: `vpmaddubsw`, which does both, saturates.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn add_products_in_pairs(sum: __m256i, quads: __m256i, weights: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let even = _mm256_and_si256(quads, _mm256_set1_epi16(0xff));
        let odd = _mm256_srli_epi16::<8>(quads);
        let even_weights = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
        let odd_weights = _mm256_srai_epi16::<8>(weights);
        let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, even_weights));
        _mm256_add_epi32(sum, _mm256_madd_epi16(odd, odd_weights))
    }
}
