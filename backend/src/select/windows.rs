//! Which stages can compute a window of their columns.

use std::collections::BTreeSet;

use strata_ir::{Module, Op, OpId, ValueDef, ValueId};

use crate::model::{BufferView, StageTemplate};

/// The axis of columns in tensors of the IR.
pub(super) const W: usize = 2;

/// Whether a stage can be split by columns as far as the IR goes: all its tensors are images whose columns
/// are the machine's, its ops are known to compute columns on their own, and nothing but slices and
/// concatenations lies between it and what it reads.
pub(super) fn is_by_columns(module: &Module, stage: OpId, code: &StageTemplate) -> bool {
    let is_image = |value: ValueId, view: &BufferView| {
        module.ty(value).as_tensor().is_some_and(|ty| ty.rank() == 4 && ty.shape[W] == view.cols as usize)
    };
    let operands = module.op(stage).operands();
    let reads = code.reads();
    let are_images = operands.len() == reads.len()
        && operands.iter().zip(&reads).all(|(&value, view)| is_image(value, view))
        && is_image(module.result(stage), &code.out);
    are_images
        && module.block_ops(module.entry_block(stage)).iter().all(|&op| is_windowed_op(module, op))
        && operands.iter().all(|&value| is_view(module, value))
}

/// Whether an op of a stage's region can be given a window of columns.
fn is_windowed_op(module: &Module, op: OpId) -> bool {
    let data = module.op(op);
    let known = matches!(
        data.op,
        Op::Conv2d(_)
            | Op::DepthwiseConv2d(_)
            | Op::TransposeConv2d(_)
            | Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::Resize(_)
            | Op::Pad(_)
            | Op::ReduceSum(_)
            | Op::ReduceMax(_)
            | Op::ReduceMin(_)
            | Op::ReduceProduct(_)
            | Op::Rescale(_)
            | Op::Cast(_)
            | Op::Clamp(_)
            | Op::Table(_)
            | Op::Add(_)
            | Op::Sub(_)
            | Op::Mul(_)
            | Op::Maximum(_)
            | Op::Minimum(_)
            | Op::GreaterEqual(_)
            | Op::Select(_)
            | Op::Identity(_)
    );
    let is_image = |&value: &ValueId| module.ty(value).as_tensor().is_some_and(|ty| ty.rank() == 4);
    data.op.is_constant() || matches!(data.op, Op::Yield(_)) || known && data.results().iter().all(is_image)
}

/// Whether nothing but slices, concatenations and identities of images lies between a value and the stages or
/// arguments that make it.
fn is_view(module: &Module, value: ValueId) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let ValueDef::Result { op, .. } = module.def(value) else { continue };
        if !seen.insert(op) {
            continue;
        }
        let data = module.op(op);
        match &data.op {
            Op::Stage(_) | Op::Phase(_) => continue,
            Op::Slice(_) => open.push(data.operands()[0]),
            Op::Concat(_) | Op::Identity(_) => open.extend(data.operands()),
            _ => return false,
        }
        if !matches!(module.ty(value).as_tensor(), Some(ty) if ty.rank() == 4) {
            return false;
        }
    }
    true
}
