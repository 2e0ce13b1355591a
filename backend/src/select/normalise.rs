//! Rewrites that make selection simpler: constants folded, biases of one element spread over the channels,
//! global pools taken apart into reductions, widening casts that no other op takes along turned into rescales
//! by one.

use strata_ir::attr::{NanMode, RoundingMode};
use strata_ir::eval::{Scale, reciprocal_scale};
use strata_ir::fold::fold;
use strata_ir::{BlockId, ElemType, Location, Module, Op, OpId, Tensor, TensorData, Type, ValueId, dialect};

use crate::select::selector;

/// Normalises the ops of a block.
pub(super) fn normalise(module: &mut Module, block: BlockId) {
    for op in module.block_ops(block).to_vec() {
        replace_by_constant(module, op);
        spread_bias(module, op);
        take_apart_global_pool(module, op);
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
        if !are_all(selector::is_binary) && !are_all(|op| matches!(op, Op::ReduceSum(_))) {
            widen_by_rescale(module, op);
        }
    }
}

/// Replaces an op of constants by its value.
fn replace_by_constant(module: &mut Module, op: OpId) {
    let constant = |value| module.constant(value).map(|elements| &*elements.tensor);
    let Some(value) = fold(module, op, constant) else { return };
    let (result, loc) = (module.result(op), module.op(op).loc.clone());
    let folded = module.insert_const_before(op, value, loc);
    module.replace_all_uses(result, folded);
    module.erase(op);
}

/// Replaces a cast of `i8` or `i16` to `i32` by a rescale of the same values.
fn widen_by_rescale(module: &mut Module, op: OpId) {
    let input = module.op(op).operands()[0];
    let (from, to) = (module.tensor_ty(input).elem, module.tensor_ty(module.result(op)).elem);
    if !matches!(from, ElemType::I8 | ElemType::I16) || to != ElemType::I32 {
        return;
    }
    let by_one = RescaleBy { scale: UNIT, zero_point: 0, to, output_zp: 0 };
    let operands = by_one.operands(module, op, input);
    module.set_operands(op, &operands);
    module.op_mut(op).op = PER_TENSOR.into();
}

/// A scale of one.
const UNIT: Scale = Scale { multiplier: 1 << 30, shift: 30 };

/// A rescale of all channels alike.
const PER_TENSOR: dialect::Rescale = dialect::Rescale {
    scale32: true,
    rounding_mode: RoundingMode::SingleRound,
    per_channel: false,
    input_unsigned: false,
    output_unsigned: false,
};

/// What a [`PER_TENSOR`] rescale computes.
struct RescaleBy {
    scale: Scale,
    zero_point: i64,
    to: ElemType,
    output_zp: i64,
}

impl RescaleBy {
    /// The operands of the rescale of `input`, made before `op`.
    fn operands(&self, module: &mut Module, op: OpId, input: ValueId) -> [ValueId; 5] {
        let from = module.tensor_ty(input).elem;
        [
            input,
            constant(module, op, ElemType::I32, i64::from(self.scale.multiplier)),
            constant(module, op, ElemType::I8, i64::from(self.scale.shift)),
            constant(module, op, from, self.zero_point),
            constant(module, op, self.to, self.output_zp),
        ]
    }

    /// The rescale of `input`, made before `op`.
    fn before(&self, module: &mut Module, op: OpId, input: ValueId, loc: &Location) -> ValueId {
        let operands = self.operands(module, op, input);
        let ty = Type::tensor(module.tensor_ty(input).shape.clone(), self.to);
        let rescale = module.insert_before(op, PER_TENSOR, &operands, &[ty], loc.clone());
        module.result(rescale)
    }
}

/// A constant of one element, made before `op`.
fn constant(module: &mut Module, op: OpId, elem: ElemType, value: i64) -> ValueId {
    let data = TensorData::from_ints(elem, [value]).expect("these element types are integers");
    let loc = module.op(op).loc.clone();
    module.insert_const_before(op, Tensor::new([1], data), loc)
}

/// Replaces a pool whose only window is the whole image by reductions over columns and then rows. A window
/// needs all the rows of the image at once; a sum over columns leaves one pixel of each, as soon as it comes.
/// A few narrow columns are smaller than their sum in `i32`, and stay a window.
///
/// AVG_POOL2D of `n` taps is the sum of `x - input_zp` times `reciprocal_scale(n)`, plus `output_zp`: bit for
/// bit the same.
fn take_apart_global_pool(module: &mut Module, op: OpId) {
    let data = module.op(op);
    let (kernel, pad) = match &data.op {
        Op::AvgPool2d(pool) => (pool.kernel, pool.pad),
        Op::MaxPool2d(pool) => (pool.kernel, pool.pad),
        _ => return,
    };
    let (loc, operands) = (data.loc.clone(), data.operands().to_vec());
    let is_average = matches!(data.op, Op::AvgPool2d(_));
    let ty = module.tensor_ty(operands[0]).clone();
    let [_, rows, cols, _] = ty.shape[..] else { return };
    let is_narrow = matches!(ty.elem, ElemType::I8 | ElemType::I16);
    if pad != [0; 4] || kernel != [rows as i64, cols as i64] || rows * cols == 1 || !is_narrow {
        return;
    }
    let pixels_of_a_sum = if ty.elem == ElemType::I16 { 2 } else { 4 };
    if is_average && cols <= pixels_of_a_sum {
        return;
    }
    let mut value = operands[0];
    if is_average {
        // Sums of so many stay within `i32`.
        let most = if ty.elem == ElemType::I16 { 1 << 15 } else { 1 << 22 };
        let taps = u32::try_from(rows * cols).ok().filter(|&n| n <= most);
        let Some(scale) = taps.and_then(reciprocal_scale) else { return };
        let scalar = |module: &Module, value| module.constant(value)?.tensor.data().int_at(0);
        let zero_points = scalar(module, operands[1]).zip(scalar(module, operands[2]));
        let Some((zero_point, output_zp)) = zero_points else { return };
        let widen = RescaleBy { scale: UNIT, zero_point, to: ElemType::I32, output_zp: 0 };
        value = widen.before(module, op, value, &loc);
        value = reduce(module, op, value, &loc, |axis| dialect::ReduceSum { axis }.into());
        value = RescaleBy { scale, zero_point: 0, to: ty.elem, output_zp }.before(module, op, value, &loc);
    } else {
        let max = |axis| dialect::ReduceMax { axis, nan_mode: NanMode::Propagate }.into();
        value = reduce(module, op, value, &loc, max);
    }
    let result = module.result(op);
    module.replace_all_uses(result, value);
    module.erase(op);
}

/// Reduces an image over its columns and then over its rows, before `op`.
fn reduce(
    module: &mut Module,
    op: OpId,
    mut value: ValueId,
    loc: &Location,
    over: impl Fn(i32) -> Op,
) -> ValueId {
    for axis in [2, 1] {
        let mut ty = module.tensor_ty(value).clone();
        if ty.shape[axis] > 1 {
            ty.shape[axis] = 1;
            let row = over(axis as i32);
            let reduced =
                module.insert_before(op, row, &[value], &[Type::tensor(ty.shape, ty.elem)], loc.clone());
            value = module.result(reduced);
        }
    }
    value
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
