//! Reductions and softmax.

use strata_ir::{ElemType, ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::array::{Array, elem_of};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

/// The view with reduced axes, which have become 1, kept or dropped.
pub(super) fn finish(view: View, axes: &[usize], keep: bool) -> Lowered<Vec<Value>> {
    if keep {
        return single(view);
    }
    let shape: Vec<_> = (0..view.shape.len()).filter(|a| !axes.contains(a)).map(|a| view.shape[a]).collect();
    match view.reshaped(&shape) {
        Some(view) => single(view),
        None => invalid!("reduced axes are not 1"),
    }
}

/// The axes that a reduction takes. With `noop_with_empty_axes` an empty list is none of them: what the
/// operator does to single elements, such as squaring, is done all the same.
pub(in crate::import) fn reduced_axes(node: &Node<'_>, rank: usize) -> Lowered<Vec<usize>> {
    let axes = node.axes(1, rank)?.unwrap_or_default();
    let none_is_all = axes.is_empty() && !node.flag("noop_with_empty_axes", false)?;
    Ok(if none_is_all { (0..rank).collect() } else { axes })
}

/// `ReduceMean`, `ReduceSum` and their kin.
pub(super) fn reduce(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op = node.proto.op_type.as_str();
    let input = node.input(0)?;
    let rank = input.shape().len();
    let axes = reduced_axes(node, rank)?;
    let keep = node.flag("keepdims", true)?;
    if input.shape().contains(&0) {
        return single(of_nothing(op, input, &axes, keep)?);
    }
    let view = lo.view(input)?;
    let dtype = view.dtype;
    match (op, dtype) {
        (_, DataType::Float) | ("ReduceSum", DataType::Int32) => {}
        ("ReduceMax" | "ReduceMin", dtype) if elem_of(dtype)? != ElemType::F32 => {}
        _ => unsupported!("on {dtype:?}"),
    }
    let (mut x, perm) = lo.in_natural_order(&view);
    // Inner axes first: they lie side by side.
    let mut places: Vec<_> = (0..rank).filter(|&place| axes.contains(&perm[place])).collect();
    places.reverse();
    let em = &mut lo.em;
    let fold = |em: &mut Emitter, x: ValueId, step: fn(&mut Emitter, ValueId, usize) -> ValueId| {
        places.iter().fold(x, |sofar, &place| step(em, sofar, place))
    };
    if dtype == DataType::Bool {
        x = em.cast(x, ElemType::I32);
    }
    let mut out = match op {
        "ReduceMean" => em.mean(x, &places),
        "ReduceSum" => fold(em, x, Emitter::reduce_sum),
        "ReduceMax" => fold(em, x, Emitter::reduce_max),
        "ReduceMin" => fold(em, x, Emitter::reduce_min),
        "ReduceProd" => fold(em, x, Emitter::reduce_product),
        "ReduceL1" => {
            let magnitude = em.unary(dialect::Abs {}, x);
            fold(em, magnitude, Emitter::reduce_sum)
        }
        "ReduceLogSum" => {
            let sum = fold(em, x, Emitter::reduce_sum);
            em.unary(dialect::Log {}, sum)
        }
        "ReduceLogSumExp" => {
            // The greatest is taken out, so that nothing overflows; an infinite one is not, which would leave
            // no number.
            let greatest = fold(em, x, Emitter::reduce_max);
            let greatest = em.clamp(greatest, f32::MIN, f32::MAX);
            let shifted = em.sub(x, greatest);
            let power = em.unary(dialect::Exp {}, shifted);
            let sum = fold(em, power, Emitter::reduce_sum);
            let log = em.unary(dialect::Log {}, sum);
            em.add(log, greatest)
        }
        "ReduceL2" | "ReduceSumSquare" => {
            let square = em.mul(x, x);
            let sum = fold(em, square, Emitter::reduce_sum);
            if op == "ReduceL2" { em.sqrt(sum) } else { sum }
        }
        other => unsupported!("`{other}` has no lowering"),
    };
    if dtype == DataType::Bool {
        out = em.cast(out, ElemType::I1);
    }
    let mut shape = view.shape.clone();
    axes.iter().for_each(|&axis| shape[axis] = 1);
    finish(View::plain(out, shape, &perm, dtype), &axes, keep)
}

/// The reduction of a tensor without elements: the neutral element, if the result has any.
fn of_nothing(op: &str, input: &Value, axes: &[usize], keep: bool) -> Lowered<Array> {
    let kept = |axis: usize| !axes.contains(&axis);
    let extents = input.shape().iter().enumerate();
    let shape: Vec<usize> =
        extents.filter(|&(a, _)| keep || kept(a)).map(|(a, &e)| if kept(a) { e } else { 1 }).collect();
    if shape.contains(&0) {
        return Array::empty(shape, input.dtype());
    }
    let n = shape.iter().product();
    if input.dtype() != DataType::Float {
        unsupported!("on {:?} without elements", input.dtype());
    }
    let neutral = match op {
        "ReduceSum" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" => 0.0,
        "ReduceProd" => 1.0,
        "ReduceMax" | "ReduceLogSum" | "ReduceLogSumExp" => f32::NEG_INFINITY,
        "ReduceMin" => f32::INFINITY,
        _ => f32::NAN,
    };
    Ok(Array::floats(shape, vec![neutral; n]))
}

/// `Softmax` and `LogSoftmax`. Before operator set 13 the tensor is taken as a matrix, split at `axis`.
pub(super) fn softmax(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    let rank = view.shape.len();
    let axis = resolve_axis(node.int("axis", if node.opset < 13 { 1 } else { -1 })?, rank)?;
    let (x, perm) = lo.in_natural_order(&view);
    let takes = |a: usize| if node.opset < 13 { a >= axis } else { a == axis };
    let places: Vec<_> =
        (0..rank).rev().filter(|&place| takes(perm[place]) && view.shape[perm[place]] > 1).collect();
    let em = &mut lo.em;
    let max = places.iter().fold(x, |sofar, &place| em.reduce_max(sofar, place));
    let shifted = em.sub(x, max);
    let power = em.unary(dialect::Exp {}, shifted);
    let sum = places.iter().fold(power, |sofar, &place| em.reduce_sum(sofar, place));
    let out = if node.proto.op_type == "LogSoftmax" {
        let log = em.unary(dialect::Log {}, sum);
        em.sub(shifted, log)
    } else {
        let inverse = em.unary(dialect::Reciprocal {}, sum);
        em.mul(power, inverse)
    };
    single(View::plain(out, view.shape, &perm, DataType::Float))
}
