//! Folds factors and terms, constant for each channel, into the convolution that they follow; removes dead
//! ops.
//!
//! `(conv(x, w) + b) * s + t = conv(x, w * s) + (b * s + t)`: batch normalisation, biases that exporters
//! write as an addition, and scales. A convolution whose result has another use stays as it is, as does one
//! whose padding or shape would change. Weights that are quantised (integers, cast and scaled) take no
//! factor. Grouped convolutions, which are a concatenation of convolutions along the channels, are folded
//! part by part.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::dialect::Op;
use strata_ir::{BlockId, Module, OpId, Tensor, TensorData, ValueId};

/// What is applied to the result of a convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Factor,
    Term,
    NegatedTerm,
}

/// Folds what can be folded in one sweep over a block.
pub(super) fn fold(module: &mut Module, block: BlockId) {
    let users = module.users(block);
    let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut n_uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    let ops = module.block_ops(block).to_vec();
    for &op in &ops {
        for &result in module.op(op).results() {
            n_uses.insert(result, users[result].len());
        }
    }
    for op in ops {
        let step = match module.op(op).op {
            Op::Mul(_) => Step::Factor,
            Op::Add(_) => Step::Term,
            Op::Sub(_) => Step::NegatedTerm,
            _ => continue,
        };
        let resolve = |value: ValueId| replaced.get(&value).copied().unwrap_or(value);
        let operands = module.op(op).operands();
        let (left, right) = (resolve(operands[0]), resolve(operands[1]));
        let (x, constant) = match (module.constant(left), module.constant(right)) {
            (None, Some(_)) => (left, right),
            (Some(_), None) if step != Step::NegatedTerm => (right, left),
            _ => continue,
        };
        let out = module.result(op);
        let Some(values) = channel_values(module, constant, x) else { continue };
        if module.tensor_ty(out) != module.tensor_ty(x) || n_uses.get(&x) != Some(&1) {
            continue;
        }
        let Some(parts) = convolutions(module, x, &n_uses, step) else { continue };
        let mut start = 0;
        for conv in parts {
            let n = module.tensor_ty(module.result(conv)).shape[3];
            let weight = module.op(conv).operands()[1];
            // A constant that was made here is the convolution's own.
            let is_own = n_uses.get(&weight).is_none_or(|&n| n == 1);
            apply(module, conv, &values[start..start + n], step, is_own);
            start += n;
        }
        n_uses.insert(x, n_uses.get(&out).copied().unwrap_or(0));
        replaced.insert(out, x);
    }
    module.replace_uses(&replaced);
}

/// A constant as one number for each channel (last axis) of `x`, if it is that.
fn channel_values(module: &Module, constant: ValueId, x: ValueId) -> Option<Vec<f32>> {
    let n = *module.tensor_ty(x).shape.last()?;
    let tensor = &module.constant(constant)?.tensor;
    let (last, lead) = tensor.shape().split_last()?;
    let values = tensor.as_f32()?;
    match (lead.iter().all(|&e| e == 1), *last) {
        (true, 1) => Some(vec![values[0]; n]),
        (true, extent) if extent == n => Some(values.to_vec()),
        _ => None,
    }
}

/// The convolutions whose results, side by side along the channels, are `x`; none has another use.
fn convolutions(
    module: &Module,
    x: ValueId,
    n_uses: &BTreeMap<ValueId, usize>,
    step: Step,
) -> Option<Vec<OpId>> {
    let op = module.defining_op(x)?;
    let is_conv = |op: OpId| {
        matches!(module.op(op).op, Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_))
            && (step != Step::Factor || module.constant(module.op(op).operands()[1]).is_some())
            && module.constant(module.op(op).operands()[2]).and_then(|bias| bias.tensor.as_f32()).is_some()
    };
    match &module.op(op).op {
        Op::Concat(concat) if concat.axis == 3 => {
            let part = |&value: &ValueId| {
                let op = module.defining_op(value)?;
                (is_conv(op) && n_uses.get(&value) == Some(&1)).then_some(op)
            };
            module.op(op).operands().iter().map(part).collect()
        }
        _ => is_conv(op).then(|| vec![op]),
    }
}

/// Gives a convolution new weights and biases. `is_own` is whether nothing else reads its weights, which are
/// then taken from their constant instead of copied.
fn apply(module: &mut Module, conv: OpId, values: &[f32], step: Step, is_own: bool) {
    let (weight, bias) = (module.op(conv).operands()[1], module.op(conv).operands()[2]);
    let n = values.len();
    let floats = |module: &Module, value: ValueId| {
        let tensor = module.constant(value)?.tensor.clone();
        Some((tensor.shape().to_vec(), tensor.as_f32()?.to_vec()))
    };
    let Some((_, biases)) = floats(module, bias) else { return };
    let mut biases = if biases.len() == n { biases } else { vec![biases[0]; n] };
    for (bias, &value) in biases.iter_mut().zip(values) {
        match step {
            Step::Factor => *bias *= value,
            Step::Term => *bias += value,
            Step::NegatedTerm => *bias -= value,
        }
    }
    let loc = module.op(conv).loc.clone();
    if step == Step::Factor {
        let taken = if is_own { take_floats(module, weight) } else { floats(module, weight) };
        let Some((shape, mut weights)) = taken else { return };
        if matches!(module.op(conv).op, Op::DepthwiseConv2d(_)) {
            // [KH, KW, C, M]: the channels are the last two axes.
            weights.chunks_mut(n).for_each(|tap| tap.iter_mut().zip(values).for_each(|(w, v)| *w *= v));
        } else {
            let len = weights.len() / n;
            weights.chunks_mut(len).zip(values).for_each(|(w, v)| w.iter_mut().for_each(|w| *w *= v));
        }
        let weight = module.insert_const_before(conv, Tensor::f32(shape, weights), loc.clone());
        module.set_operand(conv, 1, weight);
    }
    let bias = module.insert_const_before(conv, Tensor::f32([n], biases), loc);
    module.set_operand(conv, 2, bias);
}

/// The extents and elements of a constant of floats, which has none afterwards: only for one that is dead
/// then.
fn take_floats(module: &mut Module, value: ValueId) -> Option<(Vec<usize>, Vec<f32>)> {
    let op = module.defining_op(value)?;
    let Op::Const(constant) = &mut module.op_mut(op).op else { return None };
    constant.values.tensor.as_f32()?;
    let tensor = std::mem::replace(&mut constant.values.tensor, Arc::new(Tensor::f32([0], Vec::new())));
    let tensor = Arc::unwrap_or_clone(tensor);
    let shape = tensor.shape().to_vec();
    match tensor.into_data() {
        TensorData::F32(data) => Some((shape, data)),
        _ => None,
    }
}

/// Removes ops whose results are not used.
pub(super) fn remove_dead(module: &mut Module, block: BlockId) {
    let users = module.users(block);
    let mut n_uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    let ops = module.block_ops(block).to_vec();
    for &op in &ops {
        for &result in module.op(op).results() {
            n_uses.insert(result, users[result].len());
        }
    }
    let mut dead = std::collections::BTreeSet::new();
    for &op in ops.iter().rev() {
        let data = module.op(op);
        if data.op.is_terminator() || data.results().iter().any(|r| n_uses.get(r).is_some_and(|&n| n > 0)) {
            continue;
        }
        dead.insert(op);
        for operand in data.operands() {
            if let Some(n) = n_uses.get_mut(operand) {
                *n -= 1;
            }
        }
    }
    module.erase_where(block, |op| dead.contains(&op));
}
