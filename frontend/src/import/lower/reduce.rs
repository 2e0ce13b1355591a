//! Reductions, softmax and argmax.

use strata_ir::ValueId;
use strata_ir::dialect;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

/// The view with reduced axes, which have become 1, kept or dropped.
fn finish(view: View, axes: &[usize], keep: bool) -> Lowered<Vec<Value>> {
    if keep {
        return single(view);
    }
    let shape: Vec<_> = (0..view.shape.len()).filter(|a| !axes.contains(a)).map(|a| view.shape[a]).collect();
    match view.reshaped(&shape) {
        Some(view) => single(view),
        None => invalid!("reduced axes are not 1"),
    }
}

/// `ReduceMean`, `ReduceSum` and their kin.
pub(super) fn reduce(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op = node.proto.op_type.as_str();
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    let rank = view.shape.len();
    let mut axes = node.axes(1, rank)?.unwrap_or_default();
    if axes.is_empty() {
        if node.flag("noop_with_empty_axes", false)? {
            return single(view);
        }
        axes = (0..rank).collect();
    }
    let (x, perm) = lo.in_natural_order(&view);
    // Inner axes first: they lie side by side.
    let mut places: Vec<_> = (0..rank).filter(|&place| axes.contains(&perm[place])).collect();
    places.reverse();
    let em = &mut lo.em;
    let fold = |em: &mut Emitter, x: ValueId, step: fn(&mut Emitter, ValueId, usize) -> ValueId| {
        places.iter().fold(x, |sofar, &place| step(em, sofar, place))
    };
    let out = match op {
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
        _ => {
            let square = em.mul(x, x);
            let sum = fold(em, square, Emitter::reduce_sum);
            if op == "ReduceSumSquare" {
                sum
            } else {
                let half = em.scalar(rank, 0.5);
                em.binary(dialect::Pow {}, sum, half)
            }
        }
    };
    let mut shape = view.shape.clone();
    axes.iter().for_each(|&axis| shape[axis] = 1);
    finish(View::plain(out, shape, &perm, DataType::Float), &axes, node.flag("keepdims", true)?)
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

/// `ArgMax`, the first of equals.
pub(super) fn argmax(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    if node.flag("select_last_index", false)? {
        unsupported!("select_last_index");
    }
    let rank = view.shape.len();
    let axis = resolve_axis(node.int("axis", 0)?, rank)?;
    let (x, perm) = lo.in_natural_order(&view);
    let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
    let out = lo.em.argmax(x, place);
    let mut shape = view.shape.clone();
    shape[axis] = 1;
    finish(View::plain(out, shape, &perm, DataType::Int64), &[axis], node.flag("keepdims", true)?)
}
