//! Values of few elements that many others hang on: what sums and means over an axis or an image give, and
//! what is computed from these alone.
//!
//! The gates of squeeze and excitation, the divisors of a softmax, mean and deviation of a normalisation:
//! each is a factor or a term of a whole row, channel or image, so that its rounding is not averaged away as
//! that of single pixels is. They have a fraction of the elements of what they come from, so 16 bits cost
//! next to nothing.
//!
//! The exponents of a softmax are as many as what they come from, but they are only looked up: 16 bits cost
//! bytes, no products.

use std::collections::BTreeSet;

use strata_ir::{Module, Op, OpId, ValueId};

use crate::quantise::function::is_elementwise;
use crate::quantise::kinds::keeps_scale;
use crate::quantise::params::Range;

/// A reduction by at least this factor gives a thin value.
const REDUCTION: usize = 8;
/// By how much a mean of inputs to come may be greater than those that were seen, which are few.
const HEADROOM: f32 = 2.0;

fn shape(module: &Module, value: ValueId) -> &[usize] {
    module.ty(value).as_tensor().map_or(&[], |ty| &ty.shape)
}

fn n_elements(module: &Module, value: ValueId) -> usize {
    shape(module, value).iter().product()
}

/// Whether a value is one pixel: a vector of channels.
fn is_pixel(module: &Module, value: ValueId) -> bool {
    shape(module, value).split_last().is_some_and(|(_, pixels)| pixels.iter().all(|&extent| extent == 1))
}

/// The thin values that `ops` compute; `is_constant` says whether a value is constant. Convolutions stay thin
/// where they make one pixel of one pixel. What a product of two variables reads is not thin: it would take
/// the other with it.
pub(super) fn thin_values(
    module: &Module,
    ops: &[OpId],
    is_constant: &dyn Fn(ValueId) -> bool,
) -> BTreeSet<ValueId> {
    let products = ops.iter().map(|&op| module.op(op)).filter(|data| matches!(data.op, Op::MatMul(_)));
    let of_variables = products.filter(|data| !data.operands()[..2].iter().any(|&v| is_constant(v)));
    let multiplied: BTreeSet<ValueId> = of_variables.flat_map(|d| d.operands().iter().copied()).collect();
    let mut thin = BTreeSet::new();
    for &op in ops {
        let data = module.op(op);
        let (Some(&input), Some(&result)) = (data.operands().first(), data.results().first()) else {
            continue;
        };
        let n = n_elements(module, result);
        let variables: Vec<ValueId> = data.operands().iter().copied().filter(|&v| !is_constant(v)).collect();
        let greatest = variables.iter().map(|&v| n_elements(module, v)).max().unwrap_or(0);
        let of_thin = !variables.is_empty() && variables.iter().all(|v| thin.contains(v));
        let is_thin = match &data.op {
            Op::ReduceSum(_) => of_thin || n * REDUCTION <= n_elements(module, input),
            Op::AvgPool2d(_) => is_pixel(module, result) && n * REDUCTION <= n_elements(module, input),
            Op::Conv2d(_) | Op::MatMul(_) => of_thin && is_pixel(module, result),
            Op::Concat(_) => of_thin,
            op if is_elementwise(op) || keeps_scale(op) => of_thin && n <= greatest,
            _ => false,
        };
        if is_thin && !multiplied.contains(&result) {
            thin.insert(result);
        }
    }
    thin
}

/// The values of which a softmax takes the exponential: from what they are off, their exponentials are off by
/// as many parts of themselves.
pub(super) fn exponents(module: &Module, ops: &[OpId]) -> BTreeSet<ValueId> {
    let greatest_of = |mut value: ValueId| loop {
        let data = module.op(module.defining_op(value)?);
        match data.op {
            Op::Reshape(_) | Op::Identity(_) => value = data.operands()[0],
            Op::ReduceMax(_) => break data.operands().first().copied(),
            _ => break None,
        }
    };
    let exponent = |&op: &OpId| {
        let data = module.op(op);
        let &[value, greatest] = data.operands() else { return None };
        (matches!(data.op, Op::Sub(_)) && greatest_of(greatest) == Some(value)).then_some(value)
    };
    ops.iter().filter_map(exponent).collect()
}

/// The range of a thin mean with room for greater ones.
pub(super) fn with_headroom(range: Range) -> Range {
    Range { low: HEADROOM * range.low, high: HEADROOM * range.high }
}
