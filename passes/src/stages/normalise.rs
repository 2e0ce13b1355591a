//! Rewrites that make selection simpler: constants folded, biases of one element spread over the channels, widening
//! casts that no other op takes along turned into rescales by one.

use strata_ir::attr::RoundingMode;
use strata_ir::eval::eval_op;
use strata_ir::{BlockId, ElemType, Module, Op, OpId, Tensor, TensorData, ValueId, dialect};

use super::select;
use crate::manager::PassError;

/// Normalises the ops of a block.
///
/// # Errors
/// If an op of constants cannot be evaluated.
pub(super) fn normalise(module: &mut Module, block: BlockId) -> Result<(), PassError> {
    for op in module.block_ops(block).to_vec() {
        fold(module, op)?;
        spread_bias(module, op);
    }
    let users = module.users(block);
    for op in module.block_ops(block).to_vec() {
        if !matches!(module.op(op).op, Op::Cast(_)) {
            continue;
        }
        // Sums, and elementwise ops, widen their operands themselves; but a cast cannot be left to both.
        let &[result] = module.op(op).results() else { continue };
        let users = &users[result];
        let are_all =
            |is: fn(&Op) -> bool| !users.is_empty() && users.iter().all(|&user| is(&module.op(user).op));
        if !are_all(select::is_binary) && !are_all(|op| matches!(op, Op::ReduceSum(_))) {
            widen_by_rescale(module, op);
        }
    }
    Ok(())
}

/// Replaces the uses of an op of constants by its value.
fn fold(module: &mut Module, op: OpId) -> Result<(), PassError> {
    let data = module.op(op);
    if data.operands().is_empty() || data.results().len() != 1 {
        return Ok(());
    }
    let tensors = data.operands().iter().map(|&value| Some(module.constant(value)?.tensor.clone()));
    let Some(tensors) = tensors.collect::<Option<Vec<_>>>() else { return Ok(()) };
    let loc = data.loc.clone();
    let value = eval_op(module, op, &tensors).map_err(PassError::other)?.swap_remove(0);
    let folded = module.insert_const_before(op, std::sync::Arc::unwrap_or_clone(value), loc);
    let result = module.result(op);
    module.replace_all_uses(result, folded);
    module.erase(op);
    Ok(())
}

/// Replaces a cast of `i8` or `i16` to `i32` by a rescale of the same values.
fn widen_by_rescale(module: &mut Module, op: OpId) {
    let input = module.op(op).operands()[0];
    let (from, to) = (module.tensor_ty(input).elem, module.tensor_ty(module.result(op)).elem);
    if !matches!(from, ElemType::I8 | ElemType::I16) || to != ElemType::I32 {
        return;
    }
    let loc = module.op(op).loc.clone();
    let mut constant = |elem, value| {
        let data = TensorData::from_ints(elem, [value]).expect("these element types are integers");
        module.insert_const_before(op, Tensor::new([1], data), loc.clone())
    };
    const SHIFT: i64 = 30;
    let operands = [
        input,
        constant(ElemType::I32, 1 << SHIFT),
        constant(ElemType::I8, SHIFT),
        constant(from, 0),
        constant(to, 0),
    ];
    module.set_operands(op, &operands);
    module.op_mut(op).op = dialect::Rescale {
        scale32: true,
        rounding_mode: RoundingMode::SingleRound,
        per_channel: false,
        input_unsigned: false,
        output_unsigned: false,
    }
    .into();
}

fn spread_bias(module: &mut Module, op: OpId) {
    if !matches!(module.op(op).op, Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_)) {
        return;
    }
    let bias: ValueId = module.op(op).operands()[2];
    let n_channels = module.tensor_ty(module.result(op)).shape.last().copied().unwrap_or(1);
    let Some(elements) = module.constant(bias) else { return };
    let data = match elements.tensor.data() {
        TensorData::I32(values) if values.len() == 1 => TensorData::I32(vec![values[0]; n_channels]),
        TensorData::I48(values) if values.len() == 1 => TensorData::I48(vec![values[0]; n_channels]),
        _ => return,
    };
    if n_channels != 1 {
        let loc = module.op(op).loc.clone();
        let spread = module.insert_const_before(op, Tensor::new([n_channels], data), loc);
        module.set_operand(op, 2, spread);
    }
}
