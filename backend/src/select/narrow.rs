//! Slices of concatenations read the pieces that they meet, and no others.
//!
//! Neither moves anything; but in the IR a slice stands behind everything that its operand is made of, while
//! a plan may run a stage as soon as what it reads is there. Without this, a stage that reads some channels
//! of a tensor could not stand before the stages that make the others.

use strata_ir::{BlockId, Location, Module, Op, OpId, Type, ValueId, dialect};

use crate::select::split_columns::slice;

/// Narrows the slices of a block, and says how many; operands that nothing uses any more stay.
pub(super) fn narrow_slices(module: &mut Module, block: BlockId) -> usize {
    let mut n_narrowed = 0;
    for op in module.block_ops(block).to_vec() {
        let data = module.op(op);
        if !matches!(data.op, Op::Slice(_)) || pieces_of(module, data.operands()[0]).is_none() {
            continue;
        }
        let (input, result, loc) = (data.operands()[0], module.result(op), data.loc.clone());
        let start = module.constant(data.operands()[1]).and_then(|c| c.tensor.data().to_ints());
        let Some(start) = start else { continue };
        let shape = module.tensor_ty(result).shape.clone();
        let narrowed = window(module, op, input, &Window { start, shape }, &loc);
        module.replace_all_uses(result, narrowed);
        module.erase(op);
        n_narrowed += 1;
    }
    n_narrowed
}

/// A box of a value.
struct Window {
    start: Vec<i64>,
    shape: Vec<usize>,
}

/// A window of a value, made before an op: of a concatenation whose axis it cuts, of the pieces that it
/// meets.
fn window(module: &mut Module, before: OpId, value: ValueId, wanted: &Window, loc: &Location) -> ValueId {
    let ty = module.tensor_ty(value).clone();
    let cuts = |axis: usize| wanted.shape[axis] < ty.shape[axis];
    let Some((axis, pieces)) = pieces_of(module, value).filter(|&(axis, _)| cuts(axis)) else {
        let ty = Type::tensor(wanted.shape.clone(), ty.elem);
        return slice(module, before, value, wanted.start.clone(), ty, loc);
    };
    let (from, to) = (wanted.start[axis], wanted.start[axis] + wanted.shape[axis] as i64);
    let mut first = 0;
    let mut met = Vec::new();
    for piece in pieces {
        let extent = module.tensor_ty(piece).shape[axis] as i64;
        let (begin, end) = (from.max(first), to.min(first + extent));
        if begin < end {
            let mut part = Window { start: wanted.start.clone(), shape: wanted.shape.clone() };
            (part.start[axis], part.shape[axis]) = (begin - first, (end - begin) as usize);
            met.push(window(module, before, piece, &part, loc));
        }
        first += extent;
    }
    if let [value] = met[..] {
        return value;
    }
    let row = dialect::Concat { axis: axis as i32 };
    let joined =
        module.insert_before(before, row, &met, &[Type::tensor(wanted.shape.clone(), ty.elem)], loc.clone());
    module.result(joined)
}

/// The axis and the operands of the concatenation that makes a value.
fn pieces_of(module: &Module, value: ValueId) -> Option<(usize, Vec<ValueId>)> {
    let data = module.op(module.defining_op(value)?);
    let Op::Concat(concat) = &data.op else { return None };
    Some((usize::try_from(concat.axis).ok()?, data.operands().to_vec()))
}
