//! Seeded noise, where there is nothing better to calibrate on.

use crate::io::array::{Array, DType};

/// Sample `sample`: an array of noise for each shape.
pub(super) fn sample(seed: u64, sample: usize, shapes: &[&[usize]]) -> Vec<Array> {
    let array = |(at, shape): (usize, &&[usize])| noise(seed ^ ((sample as u64) << 32) ^ at as u64, shape);
    shapes.iter().enumerate().map(array).collect()
}

/// Normal noise from a seed: a sum of uniform deviates of a counter-based generator.
fn noise(seed: u64, shape: &[usize]) -> Array {
    let uniform = |index: u64| {
        // SplitMix64.
        let mut z =
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let n = shape.iter().product::<usize>() as u64;
    // Four uniform deviates have variance 1/3.
    let normal = |i: u64| ((0..4).map(|k| uniform(4 * i + k)).sum::<f64>() - 2.0) * 3f64.sqrt();
    Array { shape: shape.to_vec(), dtype: DType::F32, values: (0..n).map(normal).collect() }
}
