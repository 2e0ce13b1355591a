//! `BatchNormalization` in training mode: by the moments of the batch itself, as reductions.
//!
//! Exporters write it for weights that are standardised, which folds, and where a model was left in training mode.

use strata_ir::{ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::Lowering;
use crate::import::error::{Lowered, invalid};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// The normalised tensor and, if they are used, the running mean and variance.
pub(super) fn batch(lo: &mut Lowering, node: &Node<'_>, view: &View) -> Lowered<Vec<Value>> {
    let rank = view.shape.len();
    let (x, perm) = lo.in_natural_order(view);
    let em = &mut lo.em;
    let is_reduced = |&place: &usize| perm[place] != 1 && em.shape(x)[place] > 1;
    let axes: Vec<usize> = (0..perm.len()).filter(is_reduced).collect();
    let mean = em.mean(x, &axes);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = em.mean(square, &axes);
    let shifted = em.shift(variance, node.float("epsilon", 1e-5)?);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    let out = em.mul(centred, inverse);
    let out = View::plain(out, view.shape.clone(), &perm, DataType::Float);

    let n = view.shape[1];
    let mut aligned_shape = vec![1; rank];
    aligned_shape[1] = n;
    let scale = channels(lo, node, 1, n, &aligned_shape)?;
    let bias = channels(lo, node, 2, n, &aligned_shape)?;
    let scaled = lo.align(&[out.into(), scale])?;
    let product = lo.em.mul(scaled.values[0], scaled.values[1]);
    let terms = lo.align(&[scaled.result(product, DataType::Float), bias])?;
    let sum = lo.em.add(terms.values[0], terms.values[1]);
    let mut outputs = vec![terms.result(sum, DataType::Float)];

    let moment = |value: ValueId| View::plain(value, aligned_shape.clone(), &perm, DataType::Float);
    for (index, moment) in [(1, moment(mean)), (2, moment(variance))] {
        // Nothing is made of a moment that nobody reads; the others need their places.
        if (index..3).any(|output| node.has_output(output)) {
            outputs.push(running(lo, node, index + 2, &moment, n)?);
        }
    }
    Ok(outputs)
}

/// `given * momentum + moment * (1 - momentum)` a channel, with operand `index` as what is given.
fn running(lo: &mut Lowering, node: &Node<'_>, index: usize, moment: &View, n: usize) -> Lowered<Value> {
    let momentum = node.float("momentum", 0.9)?;
    let given = channels(lo, node, index, n, &[n])?;
    let moment = lo.reshaped(moment, &[n]);
    let aligned = lo.align(&[given, moment.into()])?;
    let [given, moment] = aligned.values[..] else { unreachable!("two operands were aligned") };
    let old = lo.em.scale(given, momentum);
    let new = lo.em.scale(moment, 1.0 - momentum);
    let sum = lo.em.add(old, new);
    Ok(aligned.result(sum, DataType::Float))
}

/// Operand `index`, one number a channel, in another shape.
fn channels(lo: &mut Lowering, node: &Node<'_>, index: usize, n: usize, shape: &[usize]) -> Lowered<Value> {
    let value = node.input(index)?;
    if value.shape() != [n] {
        invalid!("operand {index} has shape {:?} for {n} channels", value.shape());
    }
    Ok(match value {
        Value::Const(array) => array.reshaped(shape).into(),
        Value::View(view) => lo.reshaped(view, shape).into(),
    })
}
