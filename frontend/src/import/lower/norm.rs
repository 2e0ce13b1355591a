//! Normalisations.

use strata_ir::ValueId;
use strata_ir::dialect;
use tract_onnx::pb::tensor_proto::DataType;

use super::elementwise::divide;
use super::{Lowering, per_channel, single};
use crate::import::array::Array;
use crate::import::emit::{Emitter, Window};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View, channels_last};

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

/// `BatchNormalization`: in inference a factor and a term for each channel.
pub(super) fn batch(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 2)?;
    if node.opset < 7 && !node.flag("is_test", false)? {
        unsupported!("training");
    }
    // From operator set 14 on an attribute says so, before that the number of outputs did.
    let has_moments = node.proto.output.iter().skip(1).any(|name| !name.is_empty());
    if node.opset < 14 && (1..node.n_outputs()).any(|i| node.has_output(i)) {
        unsupported!("the moments of training before operator set 14");
    }
    if node.flag("training_mode", false)? || (7..14).contains(&node.opset) && has_moments {
        return super::batch_training::batch(lo, node, &view);
    }
    if node.opset < 9 && !node.flag("spatial", true)? {
        unsupported!("moments for each pixel");
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

/// A standardised tensor and its moments.
struct Standardised {
    out: ValueId,
    mean: ValueId,
    /// One over the standard deviation.
    inverse: ValueId,
}

/// `(x - mean) / sqrt(variance + epsilon)`, moments along `axes`.
fn standardise(em: &mut Emitter, x: ValueId, axes: &[usize], epsilon: f32) -> Standardised {
    let mean = em.mean(x, axes);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = em.mean(square, axes);
    let shifted = em.shift(variance, epsilon);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    Standardised { out: em.mul(centred, inverse), mean, inverse }
}

/// `x * scale + bias` with constants of external shape; factors of one and terms of zero are left out.
fn affine(lo: &mut Lowering, x: Value, scale: &Array, bias: Option<&Array>) -> Lowered<Value> {
    let mut product = x;
    if scale.as_floats()?.iter().any(|&s| s != 1.0) {
        let scaled = lo.align(&[product, scale.clone().into()])?;
        let out = lo.em.mul(scaled.values[0], scaled.values[1]);
        product = scaled.result(out, DataType::Float);
    }
    let Some(bias) = bias else { return Ok(product) };
    if bias.as_floats()?.iter().all(|&b| b == 0.0) {
        return Ok(product);
    }
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

/// `(x - mean) / sqrt(variance + epsilon)` for each group of channels, which come last in `x`: moments of
/// each channel along `axes`, then of the group by a 1x1 convolution with a constant matrix, which the
/// machine has a stage for.
fn standardise_groups(
    em: &mut Emitter,
    x: ValueId,
    axes: &[usize],
    n_groups: usize,
    epsilon: f32,
) -> Lowered<ValueId> {
    let shape = em.shape(x).to_vec();
    let (n, c) = (shape[0], shape[shape.len() - 1]);
    let size = c / n_groups;
    let same = |at: usize| at / c / size == at % c / size;
    let weights = (0..c * c).map(|at| if same(at) { 1.0 / size as f32 } else { 0.0 }).collect();
    let weights = em.floats([c, 1, 1, c], weights);
    let bias = em.floats([c], vec![0.0; c]);
    let point = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4] };
    let average = |em: &mut Emitter, value: ValueId| {
        let channels = em.mean(value, axes);
        let moments = em.shape(channels).to_vec();
        let flat = em.reshape(channels, &[n, 1, 1, c]);
        let groups = em.conv2d(flat, weights, bias, &point);
        em.reshape(groups, &moments)
    };
    let mean = average(em, x);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = average(em, square);
    let shifted = em.shift(variance, epsilon);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    Ok(em.mul(centred, inverse))
}

/// The groups of channels that the instances of a view `[n, groups, rest]` are, if the value has channels
/// last and the rest is the spatial axes and the channels of a group: as PyTorch exports group normalisation.
fn grouped_channels(em: &Emitter, view: &View) -> Option<usize> {
    let shape = em.shape(view.value);
    let pieces = view.pieces();
    let (&(last, size), mut before) = pieces.split_last()?;
    let n_channels = *shape.last()?;
    let mut n_groups = 1;
    if let Some((&(1, n), spatial)) = before.split_last() {
        (n_groups, before) = (n, spatial);
    }
    let fits = shape.len() >= 3
        && last == 2
        && size * n_groups == n_channels
        && shape[0] == view.shape[0]
        && n_groups == view.shape[1]
        && before.iter().all(|&(axis, _)| axis == 0 || axis == 2);
    fits.then_some(n_groups)
}

/// `InstanceNormalization`. Groups of channels that are instances here are normalised as they lie.
pub(super) fn instance(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 3)?;
    let rank = view.shape.len();
    let n = view.shape[1];
    let epsilon = node.float("epsilon", 1e-5)?;
    let out = if let Some(n_groups) = grouped_channels(&lo.em, &view).filter(|_| rank == 3) {
        let axes: Vec<_> = (1..lo.em.shape(view.value).len() - 1).collect();
        let out = standardise_groups(&mut lo.em, view.value, &axes, n_groups, epsilon)?;
        view.with_value(out, DataType::Float)
    } else {
        let (x, perm) = lo.in_natural_order(&view);
        let axes: Vec<_> = (0..rank).filter(|&place| perm[place] >= 2).collect();
        let out = standardise(&mut lo.em, x, &axes, epsilon).out;
        View::plain(out, view.shape.clone(), &perm, DataType::Float)
    };
    let scale = channel_constant(node, 1, n, rank, "the scale")?;
    let bias = channel_constant(node, 2, n, rank, "the bias")?;
    single(affine(lo, out.into(), &scale, Some(&bias))?)
}

/// `x` standardised along all axes from `axis` on, with constant scale and bias; its mean and the inverse of
/// its deviation.
pub(super) fn layer_normalised(
    lo: &mut Lowering,
    x: &Value,
    axis: i64,
    epsilon: f32,
    [scale, bias]: [Option<&Array>; 2],
) -> Lowered<[Value; 3]> {
    let view = lo.view(x)?;
    let first = resolve_axis(axis, view.shape.len())?;
    let (x, perm) = lo.in_natural_order(&view);
    let axes: Vec<_> = (0..perm.len()).filter(|&place| perm[place] >= first).collect();
    let done = standardise(&mut lo.em, x, &axes, epsilon);
    let mut moments = view.shape.clone();
    moments[first..].fill(1);
    let out = View::plain(done.out, view.shape, &perm, DataType::Float);
    let moment = |value| Value::from(View::plain(value, moments.clone(), &perm, DataType::Float));
    let (mean, inverse) = (moment(done.mean), moment(done.inverse));
    let one = Array::floats([], vec![1.0]);
    Ok([affine(lo, out.into(), scale.unwrap_or(&one), bias)?, mean, inverse])
}

/// `LayerNormalization`.
pub(super) fn layer(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 1)?;
    let epsilon = node.float("epsilon", 1e-5)?;
    let affine = [Some(node.constant(1, "the scale")?), node.optional_constant(2, "the bias")?];
    Ok(layer_normalised(lo, &view.into(), node.int("axis", -1)?, epsilon, affine)?.into())
}

/// `x / sqrt(mean(x²) + epsilon) * scale` with the mean along all axes from `axis` on; and what it was
/// multiplied with.
pub(super) fn rms_normalised(
    lo: &mut Lowering,
    x: &Value,
    axis: i64,
    epsilon: f32,
    scale: &Array,
) -> Lowered<[Value; 2]> {
    let view = lo.view(x)?;
    let first = resolve_axis(axis, view.shape.len())?;
    let (x, perm) = lo.in_natural_order(&view);
    let axes: Vec<_> = (0..perm.len()).filter(|&place| perm[place] >= first).collect();
    let em = &mut lo.em;
    let square = em.mul(x, x);
    let mean = em.mean(square, &axes);
    let shifted = em.shift(mean, epsilon);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    let out = em.mul(x, inverse);
    let mut moments = view.shape.clone();
    moments[first..].fill(1);
    let out = View::plain(out, view.shape, &perm, DataType::Float);
    let inverse = View::plain(inverse, moments, &perm, DataType::Float);
    Ok([affine(lo, out.into(), scale, None)?, inverse.into()])
}

/// `RMSNormalization`, and what onnxruntime calls `SimplifiedLayerNormalization`, which gives the inverse of
/// the quadratic mean too.
pub(super) fn rms(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 1)?;
    let epsilon = node.float("epsilon", 1e-5)?;
    let scale = node.constant(1, "the scale")?;
    Ok(rms_normalised(lo, &view.into(), node.int("axis", -1)?, epsilon, scale)?.into())
}

/// `MeanVarianceNormalization`: `(x - mean) / (deviation + 1e-9)`.
pub(super) fn mean_variance(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 1)?;
    let rank = view.shape.len();
    let axes = match node.ints("axes")? {
        Some(axes) => axes.iter().map(|&a| resolve_axis(a, rank)).collect::<Lowered<Vec<_>>>()?,
        None => [0, 2, 3].into_iter().map(|a| resolve_axis(a, rank)).collect::<Lowered<Vec<_>>>()?,
    };
    let (x, perm) = lo.in_natural_order(&view);
    let places: Vec<_> = (0..rank).filter(|&place| axes.contains(&perm[place])).collect();
    let em = &mut lo.em;
    let mean = em.mean(x, &places);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = em.mean(square, &places);
    let deviation = em.sqrt(variance);
    let shifted = em.shift(deviation, 1e-9);
    let out = divide(em, centred, shifted);
    single(View::plain(out, view.shape, &perm, DataType::Float))
}

/// `LpNormalization`.
pub(super) fn lp(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 1)?;
    let axis = resolve_axis(node.int("axis", -1)?, view.shape.len())?;
    let (x, perm) = lo.in_natural_order(&view);
    let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
    let em = &mut lo.em;
    let norm = match node.int("p", 2)? {
        1 => {
            let magnitude = em.unary(dialect::Abs {}, x);
            em.reduce_sum(magnitude, place)
        }
        2 => {
            let square = em.mul(x, x);
            let sum = em.reduce_sum(square, place);
            em.sqrt(sum)
        }
        p => unsupported!("p = {p}"),
    };
    // A vector of zeros stays one.
    let least = em.scalar_like(norm, f32::MIN_POSITIVE);
    let norm = em.maximum(norm, least);
    let out = divide(em, x, norm);
    single(View::plain(out, view.shape, &perm, DataType::Float))
}

/// `GroupNormalization`, whose scale and bias are per channel; before operator set 21 per group.
pub(super) fn group(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = float_view(lo, node, 3)?;
    if view.shape.len() > 5 {
        unsupported!("on rank {}", view.shape.len());
    }
    let c = view.shape[1];
    let n_groups = match usize::try_from(node.int("num_groups", 0)?) {
        Ok(g) if g > 0 && c % g == 0 => g,
        _ => invalid!("`num_groups` does not divide {c} channels"),
    };
    let rank = view.shape.len();
    let order = channels_last(rank);
    let x = lo.in_order(&view, &order);
    let axes: Vec<_> = (1..rank - 1).collect();
    let out = standardise_groups(&mut lo.em, x, &axes, n_groups, node.float("epsilon", 1e-5)?)?;
    let out = View::plain(out, view.shape.clone(), &order, DataType::Float);
    let n_given = if node.opset < 21 { n_groups } else { c };
    let per_channel = |index: usize, what: &str| -> Lowered<Array> {
        let given = channel_constant(node, index, n_given, rank, what)?;
        let values = given.as_floats()?.iter().flat_map(|&v| std::iter::repeat_n(v, c / n_given)).collect();
        let mut shape = given.shape;
        shape[1] = c;
        Ok(Array::floats(shape, values))
    };
    let (scale, bias) = (per_channel(1, "the scale")?, per_channel(2, "the bias")?);
    single(affine(lo, out.into(), &scale, Some(&bias))?)
}

/// `LRN`: `x / (bias + alpha/size * sum(x² over neighbouring channels))^beta`. The mean over neighbours is an
/// average pool along the channels, explicitly padded.
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
