//! Seeded noise, where there is nothing better to calibrate on.
//!
//! Floats are normal with deviation 1. Integers are uniform: over all that their type holds if it has 8 or 16
//! bits, as a picture's bytes do; over the rows of the table that they number, where the model shows one;
//! else 0 or 1.

use strata_isa_spec::bundle::Port;

use crate::io::array::{Array, DType};

/// The greatest of wide integers of which nothing is known: mostly indices and amounts, of which few are
/// valid.
const WIDE_MOST: i64 = 1;

/// How the elements of an input are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Normal,
    Uniform { least: i64, most: i64 },
}

/// An input that noise is made for.
#[derive(Clone, Debug)]
pub(super) struct NoiseInput {
    pub shape: Vec<usize>,
    dtype: DType,
    distribution: Distribution,
}

impl NoiseInput {
    /// An input of a shape and element type. `n_rows` is how many rows its elements number, if they do.
    pub(super) fn new(shape: &[usize], dtype: &str, n_rows: Option<usize>) -> Self {
        let dtype = dtype.parse().unwrap_or(DType::F32);
        let distribution = match (dtype, dtype.int_range()) {
            (_, None) => Distribution::Normal,
            (DType::I32 | DType::I64 | DType::U32 | DType::U64, _) => {
                let most = n_rows.map_or(WIDE_MOST, |n| n.saturating_sub(1) as i64);
                Distribution::Uniform { least: 0, most }
            }
            (_, Some((least, most))) => Distribution::Uniform { least: least as i64, most: most as i64 },
        };
        Self { shape: shape.to_vec(), dtype, distribution }
    }
}

/// Elements that all samples together have at most: some 32 GiB.
const MOST_ELEMENTS: usize = 1 << 32;

/// That memory holds so many samples of noise.
///
/// # Errors
/// If it does not; the largest input is named.
pub(super) fn demand_room(samples: usize, inputs: &[NoiseInput]) -> Result<(), String> {
    let n_elements =
        |input: &NoiseInput| input.shape.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent));
    let total = inputs.iter().try_fold(0_usize, |n, input| n.checked_add(n_elements(input)?));
    if total.and_then(|n| n.checked_mul(samples)).is_some_and(|n| n <= MOST_ELEMENTS) {
        return Ok(());
    }
    let largest = inputs.iter().max_by_key(|input| n_elements(input).unwrap_or(usize::MAX));
    let shape = largest.map(|input| format!("{:?}", input.shape)).unwrap_or_default();
    Err(format!(
        "{samples} samples of noise to calibrate on, with an input of shape {shape}, have more than \
         {MOST_ELEMENTS} elements; give images or arrays with --calibrate"
    ))
}

/// An array of noise for each port.
///
/// # Errors
/// If memory does not hold them.
pub(crate) fn of_ports(seed: u64, ports: &[Port]) -> Result<Vec<Array>, String> {
    let inputs: Vec<NoiseInput> =
        ports.iter().map(|port| NoiseInput::new(&port.shape, &port.dtype, None)).collect();
    demand_room(1, &inputs)?;
    Ok(sample(seed, 0, &inputs))
}

/// Sample `sample`: an array of noise for each input.
pub(super) fn sample(seed: u64, sample: usize, inputs: &[NoiseInput]) -> Vec<Array> {
    let array = |(at, input): (usize, &NoiseInput)| {
        if input.distribution == Distribution::Normal && input.shape.iter().product::<usize>() <= FEW {
            return few(sample, input);
        }
        noise(seed ^ ((sample as u64) << 32) ^ at as u64, input)
    };
    inputs.iter().enumerate().map(array).collect()
}

/// Elements whose range noise would leave to chance.
const FEW: usize = 4;

/// Two standard deviations to either side by turns, from element to element and from sample to sample.
fn few(sample: usize, input: &NoiseInput) -> Array {
    let n = input.shape.iter().product::<usize>();
    let value = |i: usize| if (i + sample).is_multiple_of(2) { 2.0 } else { -2.0 };
    Array { shape: input.shape.clone(), dtype: input.dtype, values: (0..n).map(value).collect() }
}

/// Noise from a seed, by a counter-based generator.
fn noise(seed: u64, input: &NoiseInput) -> Array {
    let uniform = |index: u64| {
        // SplitMix64.
        let mut z =
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let n = input.shape.iter().product::<usize>() as u64;
    let values = match input.distribution {
        // Four uniform deviates have variance 1/3.
        Distribution::Normal => (0..n)
            .map(|i| ((0..4).map(|k| uniform(4 * i + k)).sum::<f64>() - 2.0) * 3f64.sqrt())
            .map(|v| input.dtype.round(v))
            .collect(),
        Distribution::Uniform { least, most } => {
            let n_values = (most - least + 1) as f64;
            (0..n).map(|i| least as f64 + (uniform(i) * n_values).floor()).collect()
        }
    };
    Array { shape: input.shape.clone(), dtype: input.dtype, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(dtype: &str, n_rows: Option<usize>) -> [f64; 2] {
        let input = NoiseInput::new(&[10_000], dtype, n_rows);
        let values = sample(3, 1, &[input]).remove(0).values;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        [least, values.into_iter().fold(f64::NEG_INFINITY, f64::max)]
    }

    #[test]
    fn noise_beyond_memory_is_refused() {
        let input = |shape: &[usize]| NoiseInput::new(shape, "f32", None);
        let inputs = [input(&[1, 3]), input(&[1 << 20, 1 << 11])];
        assert_eq!(demand_room(1, &inputs), Ok(()));
        for (samples, inputs) in [(2, inputs.to_vec()), (1, vec![input(&[usize::MAX, usize::MAX])])] {
            let error = demand_room(samples, &inputs).expect_err("too many");
            let shape = format!("{:?}", inputs[inputs.len() - 1].shape);
            assert!(error.contains(&shape) && error.contains("--calibrate"), "{error}");
        }
    }

    #[test]
    fn a_scalar_has_a_range_too() {
        let scalar = [NoiseInput::new(&[], "f32", None)];
        let values = [0, 1].map(|at| sample(5, at, &scalar)[0].values.clone());
        assert_eq!(values, [[2.0], [-2.0]]);
    }

    #[test]
    fn integers_fill_their_type() {
        assert_eq!(ends("u8", None), [0.0, 255.0]);
        assert_eq!(ends("i8", None), [-128.0, 127.0]);
        assert_eq!(ends("bool", None), [0.0, 1.0]);
        let [least, most] = ends("u16", None);
        assert!(least < 100.0 && most > 65_000.0, "{least} to {most}");
    }

    #[test]
    fn indices_stay_within_their_table() {
        assert_eq!(ends("i64", Some(7)), [0.0, 6.0]);
        assert_eq!(ends("i32", None), [0.0, 1.0]);
    }

    #[test]
    fn floats_are_normal() {
        let [least, most] = ends("f32", None);
        assert!((-4.0..-2.0).contains(&least) && (2.0..4.0).contains(&most), "{least} to {most}");
    }
}
