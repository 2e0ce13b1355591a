//! The kernels for AVX2, AVX-VNNI and AVX-512 VNNI: the same walk over pixels and blocks, each with its own
//! register tile.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16,
    _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
};

use super::{LANES, Tile};

/// A register tile of so many pixels, and of so many blocks where it may have several.
macro_rules! register_tile {
    ($tile:ident $p:literal ()) => {
        $tile::<$p>
    };
    ($tile:ident $p:literal ($b:literal)) => {
        $tile::<$p, $b>
    };
}

/// Declares how a kernel goes over all pixels of some blocks: in register tiles of at most so many pixels, as
/// few and as even as may be.
macro_rules! across {
    (
        $name:ident, $tile:ident, $value:ty, $features:literal, $blocks:tt by $most:literal [$($p:literal)*]
    ) => {
        /// Computes all pixels of some blocks.
        ///
        /// # Safety
        /// The CPU has the features; the blocks from `block` on are the tile's, and `lines` hold every run of
        /// every pixel of the tile's walk.
        #[target_feature(enable = $features)]
        unsafe fn $name(tile: &mut Tile<'_>, lines: &[$value], block: usize) {
            let mut pixel = 0;
            while pixel < tile.walk.pixels.len() {
                let left = tile.walk.pixels.len() - pixel;
                let n = left.div_ceil(left.div_ceil($most));
                // SAFETY: the pixels are the tile's.
                unsafe {
                    match n {
                        $($p => register_tile!($tile $p $blocks)(tile, lines, pixel, block),)*
                        _ => unreachable!("a register tile has {} pixels at most, not {n}", $most),
                    }
                }
                pixel += n;
            }
        }
    };
}

across!(avx2_by_1, tile_avx2, i16, "avx2", () by 6 [1 2 3 4 5 6]);
across!(avx_vnni_by_1, tile_avx_vnni, u8, "avx2,avxvnni", () by 6 [1 2 3 4 5 6]);
across!(
    avx512_vnni_by_4, tile_avx512_vnni, u8, "avx512bw,avx512dq,avx512vl,avx512vnni",
    (4) by 6 [1 2 3 4 5 6]
);
across!(
    avx512_vnni_by_2, tile_avx512_vnni, u8, "avx512bw,avx512dq,avx512vl,avx512vnni",
    (2) by 12 [1 2 3 4 5 6 7 8 9 10 11 12]
);
across!(
    avx512_vnni_by_1, tile_avx512_vnni, u8, "avx512bw,avx512dq,avx512vl,avx512vnni",
    (1) by 12 [1 2 3 4 5 6 7 8 9 10 11 12]
);

/// Computes a tile.
///
/// # Safety
/// The CPU has AVX2; `lines` hold every run of every pixel of the tile's walk.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn multiply_avx2(tile: &mut Tile<'_>, lines: &[i16]) {
    for block in tile.blocks.clone() {
        // SAFETY: the block is the tile's.
        unsafe { avx2_by_1(tile, lines, block) };
    }
}

/// Computes a tile.
///
/// # Safety
/// The CPU has AVX-VNNI; `lines` hold every run of every pixel of the tile's walk.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn multiply_avx_vnni(tile: &mut Tile<'_>, lines: &[u8]) {
    for block in tile.blocks.clone() {
        // SAFETY: the block is the tile's.
        unsafe { avx_vnni_by_1(tile, lines, block) };
    }
}

/// Computes a tile.
///
/// # Safety
/// The CPU has AVX-512 and AVX-512 VNNI; `lines` hold every run of every pixel of the tile's walk.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply_avx512_vnni(tile: &mut Tile<'_>, lines: &[u8]) {
    let mut block = tile.blocks.start;
    while block < tile.blocks.end {
        // SAFETY: the blocks are the tile's.
        let n = unsafe {
            match tile.blocks.end - block {
                4.. => {
                    avx512_vnni_by_4(tile, lines, block);
                    4
                }
                2.. => {
                    avx512_vnni_by_2(tile, lines, block);
                    2
                }
                _ => {
                    avx512_vnni_by_1(tile, lines, block);
                    1
                }
            }
        };
        block += n;
    }
}

/// Where the taps of some pixels begin in lines.
#[inline(always)]
fn pixel_starts<T, const P: usize>(tile: &Tile<'_>, lines: &[T], pixel: usize) -> [*const T; P] {
    let mut starts = [lines.as_ptr(); P];
    for (start, &offset) in starts.iter_mut().zip(&tile.walk.pixels[pixel..pixel + P]) {
        *start = start.wrapping_add(offset as usize);
    }
    starts
}

/// The taps of pixels in a run.
#[inline(always)]
fn moved<T, const P: usize>(mut taps: [*const T; P], run: u32) -> [*const T; P] {
    for taps in &mut taps {
        *taps = taps.wrapping_add(run as usize);
    }
    taps
}

/// Declares the register tile of a kernel of 256 bits, in which two vectors hold a block: `$load` gives half
/// of a block's weights for a group, `$add` adds the products of them with a pixel's values.
macro_rules! tile_of_halves {
    ($name:ident, $value:ty, $features:literal, $products:literal, $load:expr, $add:expr) => {
        /// # Safety
        /// The CPU has the features; pixels `pixel..pixel + P` and block `block` are the tile's, and `lines`
        /// hold every run of theirs.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $name<const P: usize>(tile: &mut Tile<'_>, lines: &[$value], pixel: usize, block: usize) {
            let weights = tile.weights;
            let mut acc = [[_mm256_setzero_si256(); 2]; P];
            let pixels = pixel_starts::<_, P>(tile, lines, pixel);
            let mut packed = weights.data.as_ptr().wrapping_add(block * weights.block_bytes());
            for &run in &tile.walk.runs {
                let taps = moved(pixels, run);
                for group in 0..weights.groups {
                    // SAFETY: a block holds the weights of every group of every run.
                    let w = unsafe {
                        let half = packed.wrapping_add(LANES / 2 * $products);
                        [$load(packed), $load(half)]
                    };
                    packed = packed.wrapping_add(LANES * $products);
                    for (sums, taps) in acc.iter_mut().zip(&taps) {
                        // SAFETY: the lines hold the values of every group of the run.
                        let values =
                            unsafe { taps.wrapping_add(group * $products).cast::<i32>().read_unaligned() };
                        let values = _mm256_set1_epi32(values);
                        for (sum, w) in sums.iter_mut().zip(&w) {
                            *sum = $add(*sum, values, *w);
                        }
                    }
                }
            }
            // SAFETY: the pixels and the block are the tile's.
            unsafe { put_halves(tile, pixel, block, &acc) };
        }
    };
}

tile_of_halves!(tile_avx2, i16, "avx2", 2, load_pairs, add_pairs);
tile_of_halves!(tile_avx_vnni, u8, "avx2,avxvnni", 4, load_quads, _mm256_dpbusd_avx_epi32);

/// # Safety
/// 16 bytes stand there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_pairs(weights: *const i8) -> __m256i {
    // SAFETY: the caller's.
    let bytes: __m128i = unsafe { _mm_loadu_si128(weights.cast()) };
    _mm256_cvtepi8_epi16(bytes)
}

/// # Safety
/// 32 bytes stand there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_quads(weights: *const i8) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_si256(weights.cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_pairs(sum: __m256i, values: __m256i, weights: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights))
}

/// Writes the sums of some pixels and a block. It is not inlined, so that sums are in registers before.
///
/// # Safety
/// The CPU has AVX2; pixels `pixel..pixel + P` and block `block` are the tile's.
#[target_feature(enable = "avx2")]
#[inline(never)]
unsafe fn put_halves<const P: usize>(
    tile: &mut Tile<'_>,
    pixel: usize,
    block: usize,
    sums: &[[__m256i; 2]; P],
) {
    // SAFETY: the CPU has AVX2.
    unsafe { tile.put(pixel, block, sums) };
}

/// # Safety
/// The CPU has AVX-512 and AVX-512 VNNI; pixels `pixel..pixel + P` and blocks `block..block + B` are the
/// tile's, and `lines` hold every run of theirs.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile_avx512_vnni<const P: usize, const B: usize>(
    tile: &mut Tile<'_>,
    lines: &[u8],
    pixel: usize,
    block: usize,
) {
    let weights = tile.weights;
    let mut acc: [[__m512i; B]; P] = [[_mm512_setzero_si512(); B]; P];
    let pixels = pixel_starts::<_, P>(tile, lines, pixel);
    let mut packed = [weights.data.as_ptr(); B];
    for (b, start) in packed.iter_mut().enumerate() {
        *start = start.wrapping_add((block + b) * weights.block_bytes());
    }
    for &run in &tile.walk.runs {
        let taps = moved(pixels, run);
        for group in 0..weights.groups {
            let mut w = [_mm512_setzero_si512(); B];
            for (vector, from) in w.iter_mut().zip(&mut packed) {
                // SAFETY: a block holds 64 bytes for every group of every run.
                *vector = unsafe { _mm512_loadu_si512(from.cast()) };
                *from = from.wrapping_add(LANES * 4);
            }
            for (sums, taps) in acc.iter_mut().zip(&taps) {
                // SAFETY: the lines hold the four values of every group of the run.
                let quad = unsafe { taps.wrapping_add(group * 4).cast::<i32>().read_unaligned() };
                let quad = _mm512_set1_epi32(quad);
                for (sum, w) in sums.iter_mut().zip(&w) {
                    *sum = _mm512_dpbusd_epi32(*sum, quad, *w);
                }
            }
        }
    }
    let mut of_blocks = [[_mm512_setzero_si512(); P]; B];
    for (p, sums) in acc.iter().enumerate() {
        for (b, sums) in sums.iter().enumerate() {
            of_blocks[b][p] = *sums;
        }
    }
    // SAFETY: the pixels and the blocks are the tile's.
    unsafe { put_avx512(tile, pixel, block, &of_blocks) };
}

/// Writes the sums of some pixels and blocks. It is not inlined, so that sums are in registers before.
///
/// # Safety
/// The CPU has AVX-512; pixels `pixel..pixel + P` and blocks `block..block + B` are the tile's.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline(never)]
unsafe fn put_avx512<const P: usize, const B: usize>(
    tile: &mut Tile<'_>,
    pixel: usize,
    block: usize,
    sums: &[[__m512i; P]; B],
) {
    for (b, sums) in sums.iter().enumerate() {
        // SAFETY: the CPU has AVX-512.
        unsafe { tile.put(pixel, block + b, sums) };
    }
}
