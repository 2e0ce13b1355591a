//! Two rescales of one value, of which its sign selects: `greater_equal`, `rescale`, `rescale`, `select`, as
//! the quantiser writes PReLU. To the machine they are one tail.

use cranelift_entity::SecondaryMap;
use strata_ir::{ElemType, Module, Op, OpId, ValueId, dialect};

/// The four ops of a choice between two rescales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChoiceBySign {
    /// The comparison with 0.
    pub(super) compare: OpId,
    /// The rescale from 0 on.
    pub(super) above: OpId,
    /// The rescale below 0.
    pub(super) below: OpId,
    /// The choice between them.
    pub(super) select: OpId,
}

impl ChoiceBySign {
    /// The choice that an op is one of the four ops of.
    pub(super) fn of(module: &Module, users: &SecondaryMap<ValueId, Vec<OpId>>, op: OpId) -> Option<Self> {
        let only_user = |op: OpId| match users[module.result(op)].as_slice() {
            &[user] => Some(user),
            _ => None,
        };
        let is_select = |op: &OpId| matches!(module.op(*op).op, Op::Select(_));
        let select = match &module.op(op).op {
            Op::Select(_) => op,
            Op::GreaterEqual(_) | Op::Rescale(_) => only_user(op).filter(is_select)?,
            _ => return None,
        };
        let &[condition, on_true, on_false] = module.op(select).operands() else { return None };
        let [compare, above, below] =
            [module.defining_op(condition)?, module.defining_op(on_true)?, module.defining_op(on_false)?];
        let is_used_once = [compare, above, below].iter().all(|&op| only_user(op) == Some(select));
        let (Op::GreaterEqual(_), Op::Rescale(row), Op::Rescale(row_below)) =
            (&module.op(compare).op, &module.op(above).op, &module.op(below).op)
        else {
            return None;
        };
        let operand = |op: OpId, index: usize| module.op(op).operands()[index];
        let value = operand(compare, 0);
        let ints = |value: ValueId| module.constant(value)?.tensor.data().to_ints();
        let scalar = |value: ValueId| ints(value).filter(|ints| ints.len() == 1).map(|ints| ints[0]);
        let is_of_i32 = module.tensor_ty(value).elem == ElemType::I32;
        let is_of_value = operand(above, 0) == value && operand(below, 0) == value;
        let n_scales = |op: OpId| ints(operand(op, 1)).map(|ints| ints.len());
        let is_signed = |row: &dialect::Rescale| !row.input_unsigned && !row.output_unsigned;
        let fits = is_used_once
            && is_of_i32
            && is_of_value
            && scalar(operand(compare, 1)) == Some(0)
            && row == row_below
            && row.scale32
            && is_signed(row)
            && n_scales(above).is_some()
            && n_scales(above) == n_scales(below)
            && [above, below].iter().all(|&op| scalar(operand(op, 3)) == Some(0))
            && scalar(operand(above, 4)).is_some()
            && scalar(operand(above, 4)) == scalar(operand(below, 4));
        fits.then_some(Self { compare, above, below, select })
    }
}
