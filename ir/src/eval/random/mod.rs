//! Random data and networks for tests: the same seed gives the same bytes everywhere.
//!
//! [`random_network`] makes quantised convolutional networks that exercise the whole integer op set of the
//! machine; [`random_inputs`] fills the arguments of any function. Nothing here is used when a model is
//! compiled.

mod network;

pub use network::{RandomOptions, random_network};

use crate::module::{Module, OpId};
use crate::tensor::{Tensor, TensorData};
use crate::types::{ElemType, TensorType};

/// A small random number generator: splitmix64.
///
/// # Source
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer of `least..=greatest`.
    ///
    /// # Panics
    /// If `least > greatest`.
    pub fn int(&mut self, least: i64, greatest: i64) -> i64 {
        assert!(least <= greatest, "no integer between {least} and {greatest}");
        let span = u128::from(greatest.abs_diff(least)) + 1;
        let offset = (u128::from(self.bits()) * span) >> 64;
        (i128::from(least) + offset as i128) as i64
    }

    /// A count of `least..=greatest`.
    ///
    /// # Panics
    /// If `least > greatest`.
    pub fn count(&mut self, least: usize, greatest: usize) -> usize {
        self.int(least as i64, greatest as i64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: i64) -> bool {
        self.int(1, n) == 1
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.count(0, items.len() - 1)]
    }

    /// A float of `least..greatest`.
    pub fn float(&mut self, least: f32, greatest: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1_u32 << 24) as f32;
        least + unit * (greatest - least)
    }

    /// A tensor of integers of `least..=greatest`, wrapped to `elem`; floats if `elem` is a float.
    pub fn ints(&mut self, shape: &[usize], elem: ElemType, least: i64, greatest: i64) -> Tensor {
        let values: Vec<i64> = (0..shape.iter().product()).map(|_| self.int(least, greatest)).collect();
        let floats = || TensorData::F32(values.iter().map(|&v| v as f32).collect());
        let data = TensorData::from_ints(elem, values.iter().copied()).unwrap_or_else(floats);
        Tensor::new(shape, data)
    }

    /// A tensor of any values: integers of the full range up to 8 bits and within 20 bits beyond, floats of
    /// `-4..4`.
    pub fn tensor(&mut self, ty: &TensorType) -> Tensor {
        match ty.elem.int_range() {
            Some((least, greatest)) => {
                let bound = 1 << 20;
                self.ints(&ty.shape, ty.elem, least.max(-bound), greatest.min(bound))
            }
            None => {
                Tensor::f32(ty.shape.clone(), (0..ty.n_elements()).map(|_| self.float(-4.0, 4.0)).collect())
            }
        }
    }
}

/// A random tensor for each tensor argument of a function.
///
/// # Panics
/// If `func` has no body.
pub fn random_inputs(module: &Module, func: OpId, seed: u64) -> Vec<Tensor> {
    let mut rng = Rng::new(seed);
    let args = module.args(module.entry_block(func)).iter();
    args.filter_map(|&arg| module.ty(arg).as_tensor()).map(|ty| rng.tensor(ty)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::eval_function;

    #[test]
    fn the_stream_of_a_seed_is_fixed() {
        // The first outputs of splitmix64 for seed 0, as published with its source.
        let mut rng = Rng::new(0);
        assert_eq!(rng.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn integers_reach_both_ends() {
        let mut rng = Rng::new(1);
        let drawn: Vec<i64> = (0..200).map(|_| rng.int(-2, 2)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&-2), Some(&2)));
        assert_eq!(rng.int(i64::MAX, i64::MAX), i64::MAX);
    }

    #[test]
    fn networks_evaluate_and_do_not_die_out() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..90 {
            let i16_percent = if seed < 60 { 0 } else { 50 };
            let module = random_network(seed, &RandomOptions { i16_percent, ..RandomOptions::default() });
            let func = module.function("main").expect("the generator makes `main`");
            let inputs = random_inputs(&module, func, seed);
            let results = eval_function(&module, func, inputs).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(!results.is_empty(), "seed {seed}");
            kinds.extend(module.walk(module.body()).into_iter().map(|op| module.op(op).op.name()));
            let n_flat = results.iter().filter(|t| t.n_elements() > 16).filter(|t| is_constant(t)).count();
            assert!(
                2 * n_flat <= results.len(),
                "seed {seed}: {n_flat} of {} results are flat",
                results.len()
            );
        }
        assert!(kinds.len() >= 19, "only {kinds:?}");
    }

    fn is_constant(tensor: &Tensor) -> bool {
        tensor.data().to_ints().is_some_and(|v| v.iter().all(|&x| x == v[0]))
    }

    #[test]
    fn a_seed_gives_one_network() {
        let text = |seed| crate::text::to_string(&random_network(seed, &RandomOptions::default()));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
