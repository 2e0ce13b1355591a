//! Vectors of AVX2 and AVX-512.
//!
//! A product of 32-bit numbers takes 64 bits, so those of the even and of the odd lanes are calculated apart.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm_packs_epi16, _mm_srli_si128, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_add_epi64, _mm256_blend_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi32,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_max_epi32, _mm256_min_epi32, _mm256_mul_epi32,
    _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_slli_epi64,
    _mm256_srli_epi64, _mm256_srlv_epi64, _mm256_storeu_si256, _mm256_sub_epi32, _mm512_add_epi32,
    _mm512_add_epi64, _mm512_cvtepi8_epi32, _mm512_cvtsepi32_epi8, _mm512_loadu_si512,
    _mm512_mask_shuffle_epi32, _mm512_max_epi32, _mm512_min_epi32, _mm512_mul_epi32, _mm512_mullo_epi32,
    _mm512_set1_epi32, _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi32,
};

use super::{LANES, LaneScale, Lanes, Limits};

/// Scales in registers: of the even lanes, and of the odd ones.
#[derive(Clone, Copy)]
pub(in crate::interp) struct Registers {
    multipliers: [__m512i; 2],
    rounds: [__m512i; 2],
    shifts: [__m512i; 2],
    drops: __m512i,
}

impl Lanes for __m512i {
    type Scale<'a> = Registers;

    #[inline(always)]
    unsafe fn load(from: &[i32; LANES]) -> Self {
        // SAFETY: the array is 64 bytes; the CPU has AVX-512, says the caller, here and below.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [i32; LANES]) {
        // SAFETY: the array is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn from_bytes(bytes: &[u8; LANES]) -> Self {
        // SAFETY: the array is 16 bytes.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn to_bytes(self) -> [u8; LANES] {
        // SAFETY: the caller's.
        stored(unsafe { _mm512_cvtsepi32_epi8(self) })
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn scale(scale: &LaneScale) -> Registers {
        // SAFETY: the arrays are of 64 bytes each.
        unsafe {
            let even = Self::load(&scale.multipliers);
            Registers {
                multipliers: [even, _mm512_srli_epi64::<32>(even)],
                rounds: [load_wide(&scale.rounds[0]), load_wide(&scale.rounds[1])],
                shifts: [load_wide(&scale.shifts[0]), load_wide(&scale.shifts[1])],
                drops: Self::load(&scale.drops),
            }
        }
    }

    #[inline(always)]
    unsafe fn scaled(self, scale: Registers) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let even = _mm512_mul_epi32(self, scale.multipliers[0]);
            let even = _mm512_srlv_epi64(_mm512_add_epi64(even, scale.rounds[0]), scale.shifts[0]);
            let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(self), scale.multipliers[1]);
            let odd = _mm512_srlv_epi64(_mm512_add_epi64(odd, scale.rounds[1]), scale.shifts[1]);
            // The low halves of `odd` in the odd lanes.
            let raised = _mm512_mask_shuffle_epi32::<0b10_10_00_00>(even, 0xaaaa, odd);
            _mm512_sub_epi32(raised, scale.drops)
        }
    }

    #[inline(always)]
    unsafe fn held(self, limits: Limits) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let held = _mm512_max_epi32(self, _mm512_set1_epi32(limits.least));
            _mm512_min_epi32(held, _mm512_set1_epi32(limits.most))
        }
    }
}

/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn load_wide<T>(from: &[T; LANES / 2]) -> __m512i {
    const { assert!(size_of::<T>() == 8, "numbers of 64 bits") };
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline(always)]
fn stored(bytes: __m128i) -> [u8; LANES] {
    let mut to = [0; LANES];
    // SAFETY: the array is 16 bytes, and x86-64 has SSE2.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
    to
}

impl Lanes for [__m256i; 2] {
    type Scale<'a> = &'a LaneScale;

    #[inline(always)]
    unsafe fn load(from: &[i32; LANES]) -> Self {
        // SAFETY: the array is twice 32 bytes; the CPU has AVX2, says the caller, here and below.
        unsafe { [load_half(from, 0), load_half(from, 1)] }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [i32; LANES]) {
        for (to, half) in to.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().zip(self) {
            // SAFETY: the half is 32 bytes.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), half) };
        }
    }

    #[inline(always)]
    unsafe fn from_bytes(bytes: &[u8; LANES]) -> Self {
        // SAFETY: the array is 16 bytes.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))]
        }
    }

    #[inline(always)]
    unsafe fn to_bytes(self) -> [u8; LANES] {
        // SAFETY: the caller's.
        stored(unsafe {
            let words = _mm256_packs_epi32(self[0], self[1]);
            // Packing takes the halves of both in turn.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        })
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { [_mm256_add_epi32(self[0], other[0]), _mm256_add_epi32(self[1], other[1])] }
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { [_mm256_mullo_epi32(self[0], other[0]), _mm256_mullo_epi32(self[1], other[1])] }
    }

    #[inline(always)]
    unsafe fn scale(scale: &LaneScale) -> &LaneScale {
        scale
    }

    #[inline(always)]
    unsafe fn scaled(self, scale: &LaneScale) -> Self {
        // SAFETY: the caller's.
        unsafe { [scaled_half(self[0], 0, scale), scaled_half(self[1], 1, scale)] }
    }

    #[inline(always)]
    unsafe fn held(self, limits: Limits) -> Self {
        // SAFETY: the caller's.
        unsafe { [held_half(self[0], limits), held_half(self[1], limits)] }
    }
}

/// # Safety
/// The CPU has AVX2, and `half` is 0 or 1.
#[inline(always)]
unsafe fn load_half(from: &[i32; LANES], half: usize) -> __m256i {
    // SAFETY: a half is 32 bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().add(half * LANES / 2).cast()) }
}

/// # Safety
/// The CPU has AVX2, and `half` is 0 or 1.
#[inline(always)]
unsafe fn scaled_half(values: __m256i, half: usize, scale: &LaneScale) -> __m256i {
    // SAFETY: a quarter of an array is 32 bytes.
    unsafe {
        let multipliers = load_half(&scale.multipliers, half);
        let even = raised_half(_mm256_mul_epi32(values, multipliers), half, scale, 0);
        let (values, multipliers) = (_mm256_srli_epi64::<32>(values), _mm256_srli_epi64::<32>(multipliers));
        let odd = raised_half(_mm256_mul_epi32(values, multipliers), half, scale, 1);
        let raised = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
        _mm256_sub_epi32(raised, load_half(&scale.drops, half))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn held_half(values: __m256i, limits: Limits) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let held = _mm256_max_epi32(values, _mm256_set1_epi32(limits.least));
        _mm256_min_epi32(held, _mm256_set1_epi32(limits.most))
    }
}

/// As [`raised`], of half of the lanes.
///
/// # Safety
/// The CPU has AVX2, `half` is 0 or 1.
#[inline(always)]
unsafe fn raised_half(products: __m256i, half: usize, scale: &LaneScale, side: usize) -> __m256i {
    let at = half * LANES / 4;
    // SAFETY: a quarter of 16 numbers of 64 bits is 32 bytes.
    unsafe {
        let round = _mm256_loadu_si256(scale.rounds[side].as_ptr().add(at).cast());
        let shift = _mm256_loadu_si256(scale.shifts[side].as_ptr().add(at).cast());
        _mm256_srlv_epi64(_mm256_add_epi64(products, round), shift)
    }
}
