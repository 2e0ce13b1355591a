//! Constant folding: what an op computes whose operands are all constants.

use crate::eval::eval_op_kind;
use crate::module::{Module, OpId, ValueId};
use crate::tensor::Tensor;
use crate::types::Type;

/// The result of an op that has one, and whose operands are all constant by `constant`. `None` if one is not,
/// if the op has no operands or holds regions, or if it cannot be evaluated, which is for others to report.
pub fn fold<'a>(
    module: &Module,
    op: OpId,
    constant: impl Fn(ValueId) -> Option<&'a Tensor>,
) -> Option<Tensor> {
    let data = module.op(op);
    let &[result] = data.results() else { return None };
    if data.operands().is_empty() || !data.regions().is_empty() {
        return None;
    }
    let operands: Vec<&Tensor> = data.operands().iter().map(|&v| constant(v)).collect::<Option<_>>()?;
    let types: [Type; 1] = [module.ty(result).clone()];
    eval_op_kind(&data.op, &operands, &types).ok()?.pop()
}
