//! Seeded noise, where there is nothing better to calibrate on.

use strata_isa_spec::bundle::Port;

use crate::io::array::{Array, DType};
use crate::session::{RunError, dtype_of};

/// Sample `sample`: an array of noise for each input, of its shape and type.
///
/// # Errors
/// If the type of an input is not known.
pub(super) fn sample(seed: u64, sample: usize, inputs: &[Port]) -> Result<Vec<Array>, RunError> {
    let array = |(at, port): (usize, &Port)| {
        let dtype = dtype_of(&port.dtype)?;
        if dtype.is_float() && port.shape.iter().product::<usize>() <= FEW {
            return Ok(few(sample, &port.shape, dtype));
        }
        Ok(noise(seed ^ ((sample as u64) << 32) ^ at as u64, &port.shape, dtype))
    };
    inputs.iter().enumerate().map(array).collect()
}

/// Elements whose range noise would leave to chance.
const FEW: usize = 4;

/// Two standard deviations to either side by turns, from element to element and from sample to sample.
fn few(sample: usize, shape: &[usize], dtype: DType) -> Array {
    let n = shape.iter().product::<usize>();
    let value = |i: usize| if (i + sample).is_multiple_of(2) { 2.0 } else { -2.0 };
    Array { shape: shape.to_vec(), dtype, values: (0..n).map(value).collect() }
}

/// A uniform deviate in 0 to 1 of a counter-based generator, SplitMix64.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Noise from a seed. Floats are normal, a sum of uniform deviates. Integers of up to 16 bits, such as
/// pictures, are uniform over their type; larger ones are 0 or 1, as they are mostly indices and amounts, of
/// which few are valid.
fn noise(seed: u64, shape: &[usize], dtype: DType) -> Array {
    let value = |i: u64| match dtype {
        // Four uniform deviates have variance 1/3.
        DType::F16 | DType::F32 | DType::F64 => {
            dtype.round(((0..4).map(|k| uniform(seed, 4 * i + k)).sum::<f64>() - 2.0) * 3f64.sqrt())
        }
        DType::U8 | DType::I8 | DType::U16 | DType::I16 => {
            let (least, greatest) = dtype.int_range().unwrap_or((0.0, 1.0));
            (least + uniform(seed, i) * (greatest - least + 1.0)).floor()
        }
        _ => (2.0 * uniform(seed, i)).floor(),
    };
    let n = shape.iter().product::<usize>() as u64;
    Array { shape: shape.to_vec(), dtype, values: (0..n).map(value).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_has_a_range_too() {
        let scalar = [crate::session::plain_port("k", &[], "f32")];
        let values = [0, 1].map(|at| sample(5, at, &scalar).expect("a known type")[0].values.clone());
        assert_eq!(values, [[2.0], [-2.0]]);
    }

    #[test]
    fn noise_is_of_its_type_and_spans_it() {
        for dtype in DType::ALL {
            let noise = noise(7, &[1000], dtype);
            assert!(noise.values.iter().all(|&value| dtype.holds(value)), "{dtype}");
            let sum: f64 = noise.values.iter().sum();
            let (least, greatest) = match dtype {
                DType::U8 | DType::I8 | DType::U16 | DType::I16 => dtype.int_range().expect("integers"),
                _ if dtype.is_float() => (-1.0, 1.0),
                _ => (0.0, 1.0),
            };
            let middle = (least + greatest) / 2.0;
            assert!((sum / 1000.0 - middle).abs() < 0.05 * (greatest - least + 1.0), "{dtype}: {sum}");
        }
    }
}
