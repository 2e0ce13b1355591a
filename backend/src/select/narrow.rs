//! Slices of concatenations read the pieces that they meet, and no others.
//!
//! Neither moves anything; but in the IR a slice stands behind everything that its operand is made of, while
//! a plan may run a stage as soon as what it reads is there. Without this, a stage that reads some channels
//! of a tensor could not stand before the stages that make the others.

use strata_ir::{BlockId, Location, Module, Op, OpId, Type, ValueId, dialect};

use crate::select::split_columns::slice;

/// Narrows the slices of a block that read no part of some piece, and says how many; operands that nothing
/// uses any more stay.
pub fn narrow_slices(module: &mut Module, block: BlockId) -> usize {
    let mut n_narrowed = 0;
    for op in module.block_ops(block).to_vec() {
        let Op::Slice(_) = &module.op(op).op else { continue };
        let (result, loc) = (module.result(op), module.op(op).loc.clone());
        let shape = module.tensor_ty(result).shape.clone();
        let read = SliceRead { of: result, start: vec![0; shape.len()], shape };
        if leaves_out(module, &read) {
            let narrowed = read_before(module, op, &read, &loc);
            module.replace_all_uses(result, narrowed);
            module.erase(op);
            n_narrowed += 1;
        }
    }
    n_narrowed
}

/// A box of a value.
#[derive(Clone)]
struct SliceRead {
    of: ValueId,
    start: Vec<i64>,
    shape: Vec<usize>,
}

/// What a window is of: the operand of a slice, or some operands of a concatenation.
enum Source {
    Slice(SliceRead),
    Concat {
        axis: usize,
        /// A window a piece; none of a piece of which nothing is read.
        parts: Vec<Option<SliceRead>>,
    },
}

/// What the op that makes a value has a window of it from, if it is a slice or a concatenation.
fn source(module: &Module, read: &SliceRead) -> Option<Source> {
    let data = module.op(module.defining_op(read.of)?);
    match &data.op {
        Op::Slice(_) => {
            let first = module.constant(data.operands()[1])?.tensor.data().to_ints()?;
            let start = read.start.iter().zip(first).map(|(at, first)| at + first).collect();
            Some(Source::Slice(SliceRead { of: data.operands()[0], start, shape: read.shape.clone() }))
        }
        Op::Concat(concat) => {
            let axis = usize::try_from(concat.axis).ok()?;
            let (from, to) = (read.start[axis], read.start[axis] + read.shape[axis] as i64);
            let mut first = 0;
            let part = |&piece: &ValueId| {
                let begins = first;
                first += module.tensor_ty(piece).shape[axis] as i64;
                let (begin, end) = (from.max(begins), to.min(first));
                (begin < end).then(|| {
                    let mut part = SliceRead { of: piece, ..read.clone() };
                    (part.start[axis], part.shape[axis]) = (begin - begins, (end - begin) as usize);
                    part
                })
            };
            Some(Source::Concat { axis, parts: data.operands().iter().map(part).collect() })
        }
        _ => None,
    }
}

/// Whether there is a piece of some concatenation behind a window of which nothing is read.
fn leaves_out(module: &Module, read: &SliceRead) -> bool {
    match source(module, read) {
        Some(Source::Slice(inner)) => leaves_out(module, &inner),
        Some(Source::Concat { parts, .. }) => {
            parts.iter().any(|part| part.as_ref().is_none_or(|part| leaves_out(module, part)))
        }
        None => false,
    }
}

/// A window, made before an op of the pieces that it meets.
fn read_before(module: &mut Module, before: OpId, read: &SliceRead, loc: &Location) -> ValueId {
    let ty = Type::tensor(read.shape.clone(), module.tensor_ty(read.of).elem);
    match source(module, read).filter(|_| leaves_out(module, read)) {
        Some(Source::Slice(inner)) => read_before(module, before, &inner, loc),
        Some(Source::Concat { axis, parts }) => {
            let met: Vec<ValueId> =
                parts.iter().flatten().map(|part| read_before(module, before, part, loc)).collect();
            if let [value] = met[..] {
                return value;
            }
            let row = dialect::Concat { axis: axis as i32 };
            let joined = module.insert_before(before, row, &met, &[ty], loc.clone());
            module.result(joined)
        }
        None => slice(module, before, read.of, read.start.clone(), ty, loc),
    }
}
