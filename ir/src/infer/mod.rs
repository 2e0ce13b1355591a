//! Type inference: the result types of every op from its operands, after TOSA 1.0.
//!
//! [`infer`] is also the per-op part of the verifier: it fails unless the operands' element types, ranks,
//! extents, attributes and required constants are what TOSA allows. Sizes follow TOSA's exact division: a
//! window that does not tile its padded input is an error (importers trim it with `slice` or less padding).
//!
//! What operands and attributes leave open is the element type of `tosa.cast` and `tosa.rescale`; the caller
//! says. Ops whose results follow from their regions (`strata.stage`, `strata.phase`) are the verifier's.
//!
//! | module | what it holds |
//! |---|---|
//! | `operands` | typed access to operands, with the checks and messages that all rules share |
//! | `window` | convolutions, pools, matrix product, resize |
//! | `elementwise` | elementwise ops, table, rescale, cast |
//! | `layout` | reductions and moves of data |

mod elementwise;
mod layout;
mod operands;
mod window;

use crate::diag::{Diagnostic, code};
use crate::dialect::Op;
use crate::module::{Module, ValueId};
use crate::types::{ElemType, TensorType, Type};

use ElemType::{F32, I1, I8, I16, I32};
use operands::Operands;

/// Tensors of more elements than this are refused: their sizes in bits would leave 64 bits.
pub const MAX_ELEMENTS: usize = 1 << 40;

/// Whether all extents are at least 1 and there are at most [`MAX_ELEMENTS`] elements.
pub fn is_sane_shape(shape: &[usize]) -> bool {
    let n = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    n.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n))
}

/// The result types of `op` on `operands`, which are values of `module`; the op need not stand in it.
///
/// `elem` is the result's element type, for casts and rescales.
///
/// # Errors
/// The first thing that TOSA does not allow; the diagnostic has no place yet.
pub fn infer(
    module: &Module,
    op: &Op,
    operands: &[ValueId],
    elem: Option<ElemType>,
) -> Result<Vec<Type>, Diagnostic> {
    let cx = Operands::new(module, op, operands)?;
    let ty = match op {
        Op::BuiltinModule(_) | Op::Func(_) | Op::FuncReturn(_) | Op::Yield(_) => return Ok(Vec::new()),
        Op::Stage(_) | Op::Phase(_) => {
            return Err(cx.error(code::STAGE, "the results follow from the region, not from the operands"));
        }
        // One without elements is allowed: a function can return it, and nothing else takes it.
        Op::Const(op) if op.values.tensor.n_elements() == 0 => return Ok(vec![op.values.tensor.ty().into()]),
        Op::Const(op) => op.values.tensor.ty(),
        Op::ConstShape(op) => {
            let values = &op.values.tensor;
            if values.elem() != ElemType::Index || values.shape().len() != 1 {
                return Err(cx.error(code::OPERAND_TYPE, "the values must be a list of `index`"));
            }
            return Ok(vec![Type::Shape(values.n_elements())]);
        }
        Op::Conv2d(op) => window::conv2d(&cx, op)?,
        Op::DepthwiseConv2d(op) => window::depthwise_conv2d(&cx, op)?,
        Op::TransposeConv2d(op) => window::transpose_conv2d(&cx, op)?,
        Op::MatMul(_) => window::matmul(&cx)?,
        Op::AvgPool2d(op) => window::avg_pool2d(&cx, op)?,
        Op::MaxPool2d(op) => window::max_pool2d(&cx, op)?,
        Op::Resize(op) => window::resize(&cx, op)?,
        Op::Argmax(op) => layout::argmax(&cx, op.axis)?,
        Op::Add(_) | Op::Sub(_) | Op::Maximum(_) | Op::Minimum(_) => elementwise::binary(&cx, &[I32, F32])?,
        Op::Pow(_) => elementwise::binary(&cx, &[F32])?,
        Op::IntDiv(_) => elementwise::binary(&cx, &[I32])?,
        Op::LogicalAnd(_) | Op::LogicalOr(_) | Op::LogicalXor(_) => elementwise::binary(&cx, &[I1])?,
        Op::Equal(_) | Op::Greater(_) | Op::GreaterEqual(_) => {
            elementwise::binary(&cx, &[I32, F32])?.with_elem(I1)
        }
        Op::Mul(_) => elementwise::mul(&cx)?,
        Op::ArithmeticRightShift(_) => elementwise::binary(&cx, &[I8, I16, I32])?,
        Op::Abs(_) => elementwise::unary(&cx, &[I32, F32])?,
        Op::Ceil(_)
        | Op::Floor(_)
        | Op::Exp(_)
        | Op::Log(_)
        | Op::Reciprocal(_)
        | Op::Rsqrt(_)
        | Op::Sigmoid(_)
        | Op::Tanh(_)
        | Op::Erf(_)
        | Op::Sin(_)
        | Op::Cos(_) => elementwise::unary(&cx, &[F32])?,
        Op::LogicalNot(_) => elementwise::unary(&cx, &[I1])?,
        Op::Identity(_) => elementwise::unary(&cx, &ElemType::ALL)?,
        Op::Negate(_) => elementwise::negate(&cx)?,
        Op::Clamp(op) => elementwise::clamp(&cx, op)?,
        Op::Select(_) => elementwise::select(&cx)?,
        Op::Table(_) => elementwise::table(&cx)?,
        Op::Rescale(op) => elementwise::rescale(&cx, op, elem)?,
        Op::Cast(_) => elementwise::cast(&cx, elem)?,
        Op::ReduceSum(op) => layout::reduce(&cx, op.axis, &[I32, F32])?,
        Op::ReduceMax(op) => layout::reduce(&cx, op.axis, &[I8, I16, I32, F32])?,
        Op::ReduceMin(op) => layout::reduce(&cx, op.axis, &[I8, I16, I32, F32])?,
        Op::ReduceProduct(op) => layout::reduce(&cx, op.axis, &[F32])?,
        Op::Concat(op) => layout::concat(&cx, op.axis)?,
        Op::Pad(_) => layout::pad(&cx)?,
        Op::Reshape(_) => layout::reshape(&cx)?,
        Op::Reverse(op) => layout::reverse(&cx, op.axis)?,
        Op::Slice(_) => layout::slice(&cx)?,
        Op::Tile(_) => layout::tile(&cx)?,
        Op::Transpose(op) => layout::transpose(&cx, &op.perms)?,
        Op::Gather(_) => layout::gather(&cx)?,
    };
    if !is_sane_shape(&ty.shape) {
        return Err(cx.error(code::SHAPE, format!("the result {ty} is empty or too large")));
    }
    Ok(vec![ty.into()])
}

/// A tensor type from extents that may not fit.
fn tensor_type(cx: &Operands<'_>, shape: &[i128], elem: ElemType) -> Result<TensorType, Diagnostic> {
    let extents: Option<Vec<usize>> = shape.iter().map(|&e| usize::try_from(e).ok()).collect();
    extents
        .filter(|extents| is_sane_shape(extents))
        .map(|extents| TensorType::new(extents, elem))
        .ok_or_else(|| cx.error(code::SHAPE, format!("the result shape {shape:?} is empty or too large")))
}

#[cfg(test)]
mod tests;
