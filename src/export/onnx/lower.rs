//! Ops to nodes.

use strata_ir::{BlockId, Op, OpId};

use super::emitter::Emitter;
use super::site::Site;
use super::{elementwise, moves, products, windows};
use crate::export::ExportError;

/// The ops of a block, those of the phases and stages in it too.
pub(super) fn block(emitter: &mut Emitter<'_>, block: BlockId) -> Result<(), ExportError> {
    let module = emitter.module;
    let mut n_phases = 0;
    for &op in module.block_ops(block) {
        let data = module.op(op);
        match &data.op {
            Op::Phase(_) => {
                emitter.phase = Some(n_phases);
                wrapper(emitter, op)?;
                emitter.phase = None;
                n_phases += 1;
            }
            Op::Stage(_) => wrapper(emitter, op)?,
            op if op.is_constant() || op.is_terminator() => {}
            _ => lower(emitter, op)?,
        }
    }
    Ok(())
}

/// What stands in a phase or a stage: its arguments are its operands, its results what it yields.
fn wrapper(emitter: &mut Emitter<'_>, op: OpId) -> Result<(), ExportError> {
    let module = emitter.module;
    let body = module.entry_block(op);
    for (&argument, &operand) in module.args(body).iter().zip(module.op(op).operands()) {
        emitter.alias(argument, operand);
    }
    block(emitter, body)?;
    if let Some(end) = module.terminator(body) {
        for (&result, &yielded) in module.op(op).results().iter().zip(module.op(end).operands()) {
            emitter.alias(result, yielded);
        }
    }
    Ok(())
}

fn lower(emitter: &mut Emitter<'_>, op: OpId) -> Result<(), ExportError> {
    let module = emitter.module;
    let data = module.op(op);
    let name = data.op.name();
    emitter.label = data.loc.name().map_or_else(|| name.to_owned(), str::to_owned);
    let site = Site { operands: data.operands(), result: module.result(op) };
    match &data.op {
        Op::Conv2d(conv) => products::conv(emitter, site, conv),
        Op::DepthwiseConv2d(conv) => products::depthwise(emitter, site, conv),
        Op::TransposeConv2d(conv) => products::transpose_conv(emitter, site, conv),
        Op::MatMul(_) => products::matmul(emitter, site),
        Op::AvgPool2d(pool) => windows::average(emitter, site, pool),
        Op::MaxPool2d(pool) => windows::maximum(emitter, site, pool),
        Op::Resize(resize) => windows::resize(emitter, site, resize),
        Op::Rescale(rescale) => elementwise::rescale(emitter, site, rescale),
        Op::Clamp(clamp) => elementwise::clamp(emitter, site, clamp),
        Op::Table(_) => elementwise::table(emitter, site),
        Op::Add(_) => elementwise::sum(emitter, site, "Add"),
        Op::Sub(_) => elementwise::sum(emitter, site, "Sub"),
        Op::Maximum(_) => elementwise::sum(emitter, site, "Max"),
        Op::Minimum(_) => elementwise::sum(emitter, site, "Min"),
        Op::Mul(_) => elementwise::product(emitter, site),
        Op::Greater(_) => elementwise::comparison(emitter, site, "Greater"),
        Op::GreaterEqual(_) => elementwise::comparison(emitter, site, "GreaterOrEqual"),
        Op::Equal(_) => elementwise::comparison(emitter, site, "Equal"),
        Op::Select(_) => elementwise::select(emitter, site),
        Op::Cast(_) | Op::Identity(_) => elementwise::same(emitter, site),
        Op::Abs(_) => elementwise::abs(emitter, site),
        Op::Exp(_) => elementwise::of_floats(emitter, site, "Exp"),
        Op::Reciprocal(_) => elementwise::of_floats(emitter, site, "Reciprocal"),
        Op::Sigmoid(_) => elementwise::of_floats(emitter, site, "Sigmoid"),
        Op::Tanh(_) => elementwise::of_floats(emitter, site, "Tanh"),
        Op::Log(_) => elementwise::of_floats(emitter, site, "Log"),
        Op::ReduceSum(reduce) => moves::reduce(emitter, site, "ReduceSum", reduce.axis),
        Op::ReduceMax(reduce) => moves::reduce(emitter, site, "ReduceMax", reduce.axis),
        Op::ReduceMin(reduce) => moves::reduce(emitter, site, "ReduceMin", reduce.axis),
        Op::Argmax(argmax) => moves::argmax(emitter, site, argmax.axis),
        Op::Concat(concat) => moves::concat(emitter, site, concat.axis),
        Op::Pad(_) => moves::pad(emitter, site),
        Op::Reshape(_) => moves::reshape(emitter, site),
        Op::Slice(_) => moves::slice(emitter, site),
        Op::Transpose(transpose) => moves::transpose(emitter, site, &transpose.perms),
        _ => Err(emitter.unsupported(name)),
    }
}
