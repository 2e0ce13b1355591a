//! The arithmetic of ops: how many multiply-accumulates a convolution or a matrix product takes.

use strata_ir::{Module, Op, OpId};

/// Multiply-accumulates of one op by the direct method; 0 of what is neither convolution nor matrix product.
pub fn macs_of(module: &Module, op: OpId) -> u64 {
    direct_macs(module, op).unwrap_or(0)
}

/// Multiply-accumulates of all ops of a module.
pub fn macs(module: &Module) -> u64 {
    module.walk(module.body()).into_iter().map(|op| macs_of(module, op)).sum()
}

/// `None` of an op whose operands are no tensors.
fn direct_macs(module: &Module, op: OpId) -> Option<u64> {
    let data = module.op(op);
    let shape = |at: usize| Some(&module.ty(*data.operands().get(at)?).as_tensor()?.shape);
    let out = module.ty(*data.results().first()?).as_tensor()?.n_elements() as u64;
    Some(match &data.op {
        Op::Conv2d(_) => out * shape(1)?[1..].iter().product::<usize>() as u64,
        Op::DepthwiseConv2d(_) => out * (shape(1)?[0] * shape(1)?[1]) as u64,
        Op::TransposeConv2d(_) => {
            shape(0)?.iter().product::<usize>() as u64 * shape(1)?[..3].iter().product::<usize>() as u64
        }
        Op::MatMul(_) => out * *shape(0)?.last()? as u64,
        _ => 0,
    })
}
