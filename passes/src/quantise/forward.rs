//! A fast forward pass: over the import level in f32, for calibration, and over the quant level in integers,
//! to measure what quantising costs.
//!
//! Convolutions and matrix products have fast kernels; all else is the reference evaluator's. In f32, sums
//! run in another order than the evaluator's, so results agree within rounding, not bit for bit; integers are
//! the evaluator's bits. Results do not depend on the number of threads. A value is dropped after its last
//! use.

use std::borrow::Cow;
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::eval::{EvalError, eval_op_kind};
use strata_ir::{Module, Op, OpId, Tensor, TensorData, Type, ValueId};

use crate::quantise::integer;
use crate::quantise::kernels::{Operand, conv2d, depthwise_conv2d, matmul, transpose_conv2d};

/// The numbers of a tensor of floats, of whole numbers, or of what is true (1) and false (0).
pub(super) fn numbers(tensor: &Tensor) -> Option<Cow<'_, [f32]>> {
    match tensor.data() {
        TensorData::F32(values) => Some(values.into()),
        TensorData::I32(values) => Some(values.iter().map(|&value| value as f32).collect()),
        TensorData::I1(values) => Some(values.iter().map(|&holds| f32::from(u8::from(holds))).collect()),
        _ => None,
    }
}

/// Runs a function on `inputs` and returns its results, showing every value that is no constant to `observer`
/// when it is defined.
///
/// # Errors
/// As [`strata_ir::eval::eval_function`].
pub fn forward(
    module: &Module,
    func: OpId,
    inputs: &[Arc<Tensor>],
    observer: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Arc<Tensor>>, EvalError> {
    let mut change = |value: ValueId, tensor: &Tensor| {
        observer(value, tensor);
        None
    };
    forward_changed(module, func, inputs, &mut change)
}

/// As [`forward`], with values replaced by what `change` makes of them: all that follows sees the change.
///
/// # Errors
/// As [`forward`].
pub(super) fn forward_changed(
    module: &Module,
    func: OpId,
    inputs: &[Arc<Tensor>],
    change: &mut dyn FnMut(ValueId, &Tensor) -> Option<Tensor>,
) -> Result<Vec<Arc<Tensor>>, EvalError> {
    let block = module.entry_block(func);
    let args = module.args(block);
    let fits = |(&arg, tensor): (&ValueId, &Arc<Tensor>)| module.ty(arg).as_tensor() == Some(&tensor.ty());
    if args.len() != inputs.len() || !args.iter().zip(inputs).all(fits) {
        let types = |types: Vec<String>| format!("({})", types.join(", "));
        return Err(EvalError::Inputs {
            expected: types(args.iter().map(|&arg| module.ty(arg).to_string()).collect()),
            found: types(inputs.iter().map(|tensor| tensor.ty().to_string()).collect()),
        });
    }
    let mut uses_left: SecondaryMap<ValueId, u32> = SecondaryMap::new();
    for &op in module.block_ops(block) {
        for &operand in module.op(op).operands() {
            uses_left[operand] += 1;
        }
    }
    let mut values: SecondaryMap<ValueId, Option<Arc<Tensor>>> = SecondaryMap::new();
    for (&arg, input) in args.iter().zip(inputs) {
        values[arg] = Some(change(arg, input).map_or_else(|| Arc::clone(input), Arc::new));
    }
    for &op in module.block_ops(block) {
        let data = module.op(op);
        if data.op.is_constant() {
            continue;
        }
        let mut operands = Vec::with_capacity(data.operands().len());
        for &value in data.operands() {
            let constant = || module.constant(value).map(|elements| Arc::clone(&elements.tensor));
            operands.push(values[value].clone().or_else(constant).ok_or(EvalError::Undefined { value })?);
        }
        for &value in data.operands() {
            uses_left[value] -= 1;
            if uses_left[value] == 0 {
                values[value] = None;
            }
        }
        if data.op.is_terminator() {
            return Ok(operands);
        }
        let types: Vec<Type> = data.results().iter().map(|&value| module.ty(value).clone()).collect();
        let refs: Vec<&Tensor> = operands.iter().map(Arc::as_ref).collect();
        let results = compute(&data.op, &refs, &types)
            .map_err(|source| EvalError::At { location: data.loc.to_string(), source: Box::new(source) })?;
        for (&value, tensor) in data.results().iter().zip(results) {
            let changed = change(value, &tensor);
            if uses_left[value] > 0 {
                values[value] = Some(Arc::new(changed.unwrap_or(tensor)));
            }
        }
    }
    Ok(Vec::new())
}

/// What an op computes, by a fast kernel if it has one and by the reference evaluator else.
///
/// # Errors
/// As [`strata_ir::eval::eval_op_kind`].
pub(super) fn compute(op: &Op, operands: &[&Tensor], results: &[Type]) -> Result<Vec<Tensor>, EvalError> {
    match fast(op, operands, results).or_else(|| integer::fast(op, operands, results)) {
        Some(tensor) => Ok(vec![tensor]),
        None => eval_op_kind(op, operands, results),
    }
}

/// The result of an f32 op that has a fast kernel, if its operands are such that the kernel applies.
fn fast(op: &Op, operands: &[&Tensor], results: &[Type]) -> Option<Tensor> {
    let shape = &results.first()?.as_tensor()?.shape;
    let real = |at: usize| Some(Operand { data: operands.get(at)?.as_f32()?, shape: operands[at].shape() });
    let data = match op {
        Op::Conv2d(op) => conv2d(op, real(0)?, real(1)?, real(2)?.data, shape)?,
        Op::DepthwiseConv2d(op) => depthwise_conv2d(op, real(0)?, real(1)?, real(2)?.data, shape)?,
        Op::TransposeConv2d(op) => transpose_conv2d(op, real(0)?, real(1)?, real(2)?.data, shape)?,
        Op::MatMul(_) => matmul(real(0)?, real(1)?, shape)?,
        _ => return None,
    };
    Some(Tensor::f32(shape.clone(), data))
}
