//! Whether two modules compute the same: both are evaluated on random inputs.
//!
//! Integers must be equal; f32 results may differ by rounding, since passes over the import level may reorder
//! sums.

use std::fmt;

use crate::eval::eval_function;
use crate::eval::random::random_inputs;
use crate::{Module, Tensor};

/// The greatest difference of f32 results, as a part of the greatest magnitude.
const TOLERANCE: f32 = 1e-4;

/// Where two modules differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which random input, from 0.
    pub seed: u64,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on random input {}: {}", self.seed, self.what)
    }
}

/// The first difference of `@main` of two modules on `n` random inputs.
pub fn compare(before: &Module, after: &Module, n: usize) -> Option<Difference> {
    (0..n as u64).find_map(|seed| compare_on(before, after, seed).map(|what| Difference { seed, what }))
}

fn compare_on(before: &Module, after: &Module, seed: u64) -> Option<String> {
    // A module without a `@main` computes nothing that could differ.
    let func = before.function("main")?;
    let Some(after_func) = after.function("main") else { return Some("`@main` is gone".to_owned()) };
    let inputs = random_inputs(before, func, seed);
    // What the evaluator refuses has no value to keep.
    let want = eval_function(before, func, inputs.clone()).ok()?;
    let got = match eval_function(after, after_func, inputs) {
        Ok(got) => got,
        Err(error) => return Some(format!("it can no longer be evaluated: {error}")),
    };
    if want.len() != got.len() {
        return Some(format!("{} results became {}", want.len(), got.len()));
    }
    want.iter().zip(&got).enumerate().find_map(|(index, (want, got))| {
        first_difference(want, got).map(|what| format!("result {index}: {what}"))
    })
}

fn first_difference(want: &Tensor, got: &Tensor) -> Option<String> {
    if want.ty() != got.ty() {
        return Some(format!("{} became {}", want.ty(), got.ty()));
    }
    let at = first_differing(want, got)?;
    let element = |tensor: &Tensor| match tensor.as_f32() {
        Some(values) => values[at].to_string(),
        None => tensor.data().int_at(at).unwrap_or_default().to_string(),
    };
    Some(format!("element {at} was {}, is {}", element(want), element(got)))
}

/// The first element, row-major, in which two tensors of one type differ.
pub fn first_differing(want: &Tensor, got: &Tensor) -> Option<usize> {
    match (want.as_f32(), got.as_f32()) {
        (Some(want), Some(got)) => {
            let greatest = want.iter().filter(|x| x.is_finite()).fold(0.0_f32, |max, x| max.max(x.abs()));
            let same = |a: f32, b: f32| {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * greatest
            };
            want.iter().zip(got).position(|(&a, &b)| !same(a, b))
        }
        _ => (0..want.n_elements()).find(|&at| want.data().int_at(at) != got.data().int_at(at)),
    }
}
