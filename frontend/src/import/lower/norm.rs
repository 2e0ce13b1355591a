//! Normalisations.

use strata_ir::ValueId;
use strata_ir::dialect;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, per_channel, single};
use crate::import::array::Array;
use crate::import::emit::{Emitter, Window};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

fn float_view(lo: &mut Lowering, node: &Node<'_>, least_rank: usize) -> Lowered<View> {
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    if view.shape.len() < least_rank {
        invalid!("a tensor of shape {:?}", view.shape);
    }
    Ok(view)
}

/// `BatchNormalization` in inference: a factor and a term for each channel.
pub(super) fn batch(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 2)?;
    if node.opset < 7 && !node.flag("is_test", false)? {
        unsupported!("training");
    }
    if node.flag("training_mode", false)? || (1..node.n_outputs()).any(|i| node.has_output(i)) {
        unsupported!("training");
    }
    let n = view.shape[1];
    let scale = per_channel(node, 1, n, "the scale")?;
    let shift = per_channel(node, 2, n, "the bias")?;
    let mean = per_channel(node, 3, n, "the mean")?;
    let variance = per_channel(node, 4, n, "the variance")?;
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    let factor: Vec<f64> =
        scale.iter().zip(variance).map(|(&s, &v)| f64::from(s) / (f64::from(v) + epsilon).sqrt()).collect();
    let term = (0..n).map(|c| (f64::from(shift[c]) - f64::from(mean[c]) * factor[c]) as f32).collect();
    let mut shape = vec![1; view.shape.len()];
    shape[1] = n;
    let factor = Array::floats(shape.clone(), factor.iter().map(|&f| f as f32).collect());
    let term = Array::floats(shape, term);
    let scaled = lo.align(&[view.into(), factor.into()])?;
    let product = lo.em.mul(scaled.values[0], scaled.values[1]);
    let shifted = lo.align(&[scaled.result(product, DataType::Float), term.into()])?;
    let sum = lo.em.add(shifted.values[0], shifted.values[1]);
    single(shifted.result(sum, DataType::Float))
}

/// `(x - mean) / sqrt(variance + epsilon)`, moments along `axes`.
fn standardise(em: &mut Emitter, x: ValueId, axes: &[usize], epsilon: f32) -> ValueId {
    let mean = em.mean(x, axes);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = em.mean(square, axes);
    let shifted = em.shift(variance, epsilon);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    em.mul(centred, inverse)
}

/// `x * scale + bias` with constants of external shape.
fn affine(lo: &mut Lowering, x: Value, scale: &Array, bias: Option<&Array>) -> Lowered<Value> {
    let scaled = lo.align(&[x, scale.clone().into()])?;
    let product = lo.em.mul(scaled.values[0], scaled.values[1]);
    let product = scaled.result(product, DataType::Float);
    let Some(bias) = bias else { return Ok(product) };
    let shifted = lo.align(&[product, bias.clone().into()])?;
    let sum = lo.em.add(shifted.values[0], shifted.values[1]);
    Ok(shifted.result(sum, DataType::Float))
}

/// A vector over the channels, of rank `rank`.
fn channel_constant(node: &Node<'_>, index: usize, n: usize, rank: usize, what: &str) -> Lowered<Array> {
    let values = per_channel(node, index, n, what)?.to_vec();
    let mut shape = vec![1; rank];
    shape[1] = n;
    Ok(Array::floats(shape, values))
}

/// `InstanceNormalization`.
pub(super) fn instance(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 3)?;
    let rank = view.shape.len();
    let n = view.shape[1];
    let (x, perm) = lo.in_natural_order(&view);
    let axes: Vec<_> = (0..rank).filter(|&place| perm[place] >= 2).collect();
    let out = standardise(&mut lo.em, x, &axes, node.float("epsilon", 1e-5)?);
    let out = View::plain(out, view.shape, &perm, DataType::Float);
    let scale = channel_constant(node, 1, n, rank, "the scale")?;
    let bias = channel_constant(node, 2, n, rank, "the bias")?;
    single(affine(lo, out.into(), &scale, Some(&bias))?)
}

/// `LayerNormalization`.
pub(super) fn layer(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 1)?;
    if node.has_output(1) || node.has_output(2) {
        unsupported!("the outputs of moments");
    }
    let first = resolve_axis(node.int("axis", -1)?, view.shape.len())?;
    let (x, perm) = lo.in_natural_order(&view);
    let axes: Vec<_> = (0..perm.len()).filter(|&place| perm[place] >= first).collect();
    let out = standardise(&mut lo.em, x, &axes, node.float("epsilon", 1e-5)?);
    let out = View::plain(out, view.shape, &perm, DataType::Float);
    let scale = node.constant(1, "the scale")?;
    let bias = node.optional_constant(2, "the bias")?;
    single(affine(lo, out.into(), scale, bias)?)
}

/// `GroupNormalization`, whose scale and bias are per channel.
pub(super) fn group(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 3)?;
    let (n, c) = (view.shape[0], view.shape[1]);
    let n_groups = match usize::try_from(node.int("num_groups", 0)?) {
        Ok(g) if g > 0 && c % g == 0 => g,
        _ => invalid!("`num_groups` does not divide {c} channels"),
    };
    let mut split = vec![n, n_groups, c / n_groups];
    split.extend(&view.shape[2..]);
    let Some(grouped) = view.reshaped(&split) else { unsupported!("channels that cannot be split") };
    let (x, perm) = lo.in_natural_order(&grouped);
    let axes: Vec<_> = (0..perm.len()).filter(|&place| perm[place] >= 2).collect();
    let out = standardise(&mut lo.em, x, &axes, node.float("epsilon", 1e-5)?);
    let out = View::plain(out, split, &perm, DataType::Float);
    let Some(out) = out.reshaped(&view.shape) else { unsupported!("channels that cannot be joined") };
    let rank = view.shape.len();
    let scale = channel_constant(node, 1, c, rank, "the scale")?;
    let bias = channel_constant(node, 2, c, rank, "the bias")?;
    single(affine(lo, out.into(), &scale, Some(&bias))?)
}

/// `LRN`: `x / (bias + alpha/size * sum(x² over neighbouring channels))^beta`. The mean over neighbours is an average
/// pool along the channels, explicitly padded.
pub(super) fn lrn(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let rank = input.shape().len();
    let x = lo.nhwc(input)?;
    let size = match node.int("size", 0)? {
        size @ 1..=1024 => size,
        other => invalid!("size {other}"),
    };
    let &[n, h, w, c] = lo.em.shape(x) else { invalid!("shape") };
    let (before, after) = ((size - 1) / 2, size / 2);
    let em = &mut lo.em;
    let square = em.mul(x, x);
    let rows = em.reshape(square, &[n, h * w, c, 1]);
    let padded = em.pad_spatial(rows, [0, 0, before, after], 0.0);
    let window = Window { kernel: [1, size], stride: [1, 1], dilation: [1, 1], pads: [0; 4] };
    let mean = em.avg_pool(padded, window);
    let mean = em.reshape(mean, &[n, h, w, c]);
    let scaled = em.scale(mean, node.float("alpha", 1e-4)?);
    let shifted = em.shift(scaled, node.float("bias", 1.0)?);
    let exponent = em.scalar(4, -node.float("beta", 0.75)?);
    let factor = em.binary(dialect::Pow {}, shifted, exponent);
    let out = em.mul(x, factor);
    single(lo.nhwc_result(out, rank))
}
