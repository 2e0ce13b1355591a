//! Tables of a value for each byte.

use crate::interp::simd::Simd;

/// Replaces each byte by what a table holds for its bits.
pub(super) fn look_up(simd: Simd, table: &[u8; 256], bytes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    let bytes = {
        use crate::interp::simd::Level;
        // Not every CPU with AVX-512 VNNI permutes bytes.
        if simd.level() == Level::Avx512Vnni && is_x86_feature_detected!("avx512vbmi") {
            let (vectors, rest) = bytes.as_chunks_mut();
            // SAFETY: the CPU has AVX-512, as its level shows, and the instructions on bytes.
            unsafe { x86::look_up(table, vectors) };
            rest
        } else {
            bytes
        }
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = simd;
    for byte in bytes {
        *byte = table[usize::from(*byte)];
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_movepi8_mask, _mm512_permutex2var_epi8,
        _mm512_storeu_si512,
    };

    /// The halves of the table are looked up by the low bits, the high bit picks one.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn look_up(table: &[u8; 256], vectors: &mut [[u8; 64]]) {
        let (quarters, _) = table.as_chunks::<64>();
        // SAFETY: a vector is 64 bytes, here and below.
        let load = |bytes: &[u8; 64]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let [a, b, c, d] = [&quarters[0], &quarters[1], &quarters[2], &quarters[3]].map(load);
        for bytes in vectors {
            let at = load(bytes);
            let (low, high) = (_mm512_permutex2var_epi8(a, at, b), _mm512_permutex2var_epi8(c, at, d));
            let found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), low, high);
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), found) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_looked_up() {
        let table: [u8; 256] = std::array::from_fn(|bits| (bits * 167 + 13) as u8);
        // Every byte in vectors and behind the last.
        for first in 0..256usize {
            for len in [0, 1, 63, 64, 65, 200, 256] {
                let bytes: Vec<u8> = (first..first + len).map(|bits| bits as u8).collect();
                let expected: Vec<u8> = bytes.iter().map(|&byte| table[usize::from(byte)]).collect();
                for simd in Simd::available() {
                    let mut found = bytes.clone();
                    look_up(simd, &table, &mut found);
                    assert_eq!(found, expected, "{}", simd.level());
                }
            }
        }
    }
}
