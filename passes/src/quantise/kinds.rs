//! What ops do to scales.

use strata_ir::Op;

/// Whether an op multiplies and accumulates: work that the host must not be left with.
pub(super) fn is_mac(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_) | Op::MatMul(_))
}

/// Whether an op ends in a rescale, so that it can give its result any scale.
pub(super) fn rescales(op: &Op) -> bool {
    is_mac(op)
        || matches!(
            op,
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_) | Op::ReduceSum(_)
        )
}

/// Whether an op only moves or selects elements (or averages them), so that its result has its input's scale.
pub(super) fn keeps_scale(op: &Op) -> bool {
    matches!(
        op,
        Op::AvgPool2d(_)
            | Op::MaxPool2d(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Tile(_)
            | Op::Reverse(_)
            | Op::Gather(_)
            | Op::ReduceMax(_)
            | Op::ReduceMin(_)
            | Op::Resize(_)
    )
}
