//! Transposed convolutions of one to three spatial axes.
//!
//! In two dimensions: TOSA's own for one group or few; with as many groups as channels, a depthwise
//! convolution for each phase of the stride. A third dimension is the sum over the taps along the depth, each
//! a transposed convolution of the planes whose results are spread along the depth.

use strata_ir::ValueId;
use tract_onnx::pb::tensor_proto::DataType;

use super::conv::{bias, depth_first, inverse, part_of, spatial_list, spatial_perm};
use super::{Lowering, single};
use crate::import::array::Array;
use crate::import::emit::{Pads, Window};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View, channels_last};

/// How one axis of the output follows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    stride: i64,
    dilation: i64,
    kernel: i64,
    /// Samples added before and after the full result: negative where padding crops it.
    added: [i64; 2],
}

impl Axis {
    /// The axis of an input of extent 1 that a tensor of fewer dimensions lacks.
    const POINT: Self = Self { stride: 1, dilation: 1, kernel: 1, added: [0; 2] };
}

/// The axes of an input of these spatial extents, by a kernel of those.
fn axes(node: &Node<'_>, extents: &[usize], kernels: &[usize]) -> Lowered<Vec<Axis>> {
    let n = extents.len();
    let strides = spatial_list(node, "strides", n, 1)?;
    let dilations = spatial_list(node, "dilations", n, 1)?;
    let pads = spatial_list(node, "pads", 2 * n, 0)?;
    let extra = spatial_list(node, "output_padding", n, 0)?;
    let wanted = match node.ints("output_shape")? {
        None => None,
        // Some exporters give batch and channels too.
        Some(shape) if shape.len() == n || shape.len() == n + 2 => Some(&shape[shape.len() - n..]),
        Some(other) => invalid!("output_shape {other:?}"),
    };
    if let Some(declared) = node.ints("kernel_shape")?
        && !declared.iter().copied().eq(kernels.iter().map(|&k| k as i64))
    {
        invalid!("kernel_shape {declared:?} does not fit a weight of {kernels:?}");
    }
    let auto = node.string("auto_pad", "NOTSET")?;
    if !["NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"].contains(&auto.as_str()) {
        invalid!("auto_pad `{auto}`");
    }
    let axis = |at: usize| {
        let (stride, dilation, kernel) = (strides[at], dilations[at], kernels[at] as i64);
        let full = (extents[at] as i64 - 1) * stride + (kernel - 1) * dilation + 1;
        let same = auto.starts_with("SAME");
        let goal = wanted.map(|w| w[at]).or_else(|| same.then_some(extents[at] as i64 * stride));
        let (before, after) = match goal {
            Some(goal) => {
                let total = full + extra[at] - goal;
                let half = total.div_euclid(2);
                if auto == "SAME_UPPER" { (half, total - half) } else { (total - half, half) }
            }
            None if auto == "VALID" => (0, 0),
            None => (pads[at], pads[at + n]),
        };
        let added = [-before, extra[at] - after];
        if full + added[0] + added[1] < 1 {
            invalid!("padding crops the whole output");
        }
        Ok(Axis { stride, dilation, kernel, added })
    };
    (0..n).map(axis).collect()
}

/// `ConvTranspose`.
pub(super) fn conv_transpose(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let weight = node.constant(1, "the weight")?;
    weight.as_floats()?;
    let (shape, rank) = (input.shape(), input.shape().len());
    if !(3..=5).contains(&rank) || weight.shape.len() != rank || weight.shape.contains(&0) {
        invalid!("a weight of shape {:?} for an input of shape {shape:?}", weight.shape);
    }
    let (n_in, n_per_group) = (shape[1], weight.shape[1]);
    if weight.shape[0] != n_in {
        invalid!("a weight for {} channels on an input of {n_in}", weight.shape[0]);
    }
    let group = usize::try_from(node.int("group", 1)?).unwrap_or(0);
    if group == 0 || n_in % group != 0 {
        invalid!("`group` does not divide {n_in} channels");
    }
    let n_out = n_per_group * group;
    let axes = axes(node, &shape[2..], &weight.shape[2..])?;
    let bias = bias(node, n_out)?;
    if axes.len() == 3 {
        // An axis of extent 1 is taken for the depth.
        let order = depth_first(&shape[2..]);
        let turned = lo.view(input)?.transposed(&spatial_perm(order));
        let weight = weight.transposed(&spatial_perm(order));
        let out = volumetric(lo, &turned, &weight, &bias, group, order.map(|axis| axes[axis]))?;
        return single(out.transposed(&spatial_perm(inverse(order))));
    }
    let x = lo.nhwc(input)?;
    let (both, weight) = match axes[..] {
        [x] => ([Axis::POINT, x], weight.reshaped([n_in, n_per_group, 1, weight.shape[2]])),
        [y, x] => ([y, x], weight.clone()),
        _ => invalid!("shape {shape:?}"),
    };
    let out = planar(lo, x, &weight, &bias, group, both)?;
    single(lo.nhwc_result(out, rank))
}

/// The transposed convolution of NHWC `x` with a weight `[IC, OC/group, KH, KW]`.
fn planar(
    lo: &mut Lowering,
    x: ValueId,
    weight: &Array,
    bias: &[f32],
    group: usize,
    [y_axis, x_axis]: [Axis; 2],
) -> Lowered<ValueId> {
    let (n_in, n_per_group) = (weight.shape[0], weight.shape[1]);
    let weight = dilated(weight, [y_axis.dilation, x_axis.dilation])?;
    let stride = [y_axis.stride, x_axis.stride];
    let [[top, bottom], [left, right]] = [y_axis.added, x_axis.added];
    let out_pad = [top, bottom, left, right];
    if group == n_in && group > 1 {
        return depthwise_transpose(lo, x, &weight, bias, stride, out_pad);
    }
    // [IC, OC/g, KH, KW]: groups lie along the input channels.
    let mut parts = Vec::new();
    let n_part = n_in / group;
    for (index, bias) in bias.chunks(n_per_group).enumerate() {
        let part = if group == 1 { x } else { lo.em.slice_axis(x, 3, index * n_part, n_part) };
        let weight = part_of(&weight, index, group).transposed(&[1, 2, 3, 0]);
        let weight = lo.em.array(weight)?;
        let bias = lo.em.floats([bias.len()], bias.to_vec());
        parts.push(cropped_transpose(lo, part, weight, bias, stride, out_pad)?);
    }
    Ok(lo.em.concat(&parts, 3))
}

/// A transposed convolution over depth, height and width.
fn volumetric(
    lo: &mut Lowering,
    view: &View,
    weight: &Array,
    bias: &[f32],
    group: usize,
    [depth_axis, y, x]: [Axis; 3],
) -> Lowered<View> {
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    let (&[n, c, depth, h, w], &[n_in, n_per_group, kd, kh, kw]) = (&view.shape[..], &weight.shape[..])
    else {
        invalid!("a weight of shape {:?} for an input of shape {:?}", weight.shape, view.shape)
    };
    let order = channels_last(5);
    let planes = lo.in_order_as(view, &order, &[n * depth, h, w, c]);
    let taps = weight.transposed(&[2, 0, 1, 3, 4]);
    let (stride, dilation) = (depth_axis.stride as usize, depth_axis.dilation as usize);
    let reach = (kd - 1) * dilation;
    let [front, back] = depth_axis.added;
    let seen = (0..kd).find(|&tap| (tap * dilation) as i64 == -front);
    if let (1, Some(tap), 1) = (depth, seen, reach as i64 + 1 + front + back) {
        // One plane in and one out: they meet by one tap.
        let plane = part_of(&taps, tap, kd).reshaped([n_in, n_per_group, kh, kw]);
        let out = planar(lo, planes, &plane, bias, group, [y, x])?;
        let &[_, h, w, c] = lo.em.shape(out) else { invalid!("shape") };
        return Ok(View::plain(out, vec![n, c, 1, h, w], &order, DataType::Float));
    }
    let no_bias = vec![0.0; bias.len()];
    let mut sum: Option<ValueId> = None;
    for tap in 0..kd {
        let plane = part_of(&taps, tap, kd).reshaped([n_in, n_per_group, kh, kw]);
        let part = planar(lo, planes, &plane, &no_bias, group, [y, x])?;
        let &[_, h, w, c] = lo.em.shape(part) else { invalid!("shape") };
        // `stride - 1` planes of zeros between two, then those before and behind this tap.
        let volume = lo.em.reshape(part, &[n, depth, 1, h * w * c]);
        let spread = lo.em.pad_axis(volume, 2, (0, stride - 1), 0.0);
        let spread = lo.em.reshape(spread, &[n, depth * stride, h * w * c]);
        let spread = lo.em.slice_axis(spread, 1, 0, (depth - 1) * stride + 1);
        let placed = lo.em.pad_axis(spread, 1, (tap * dilation, reach - tap * dilation), 0.0);
        let placed = lo.em.reshape(placed, &[n, (depth - 1) * stride + 1 + reach, h, w, c]);
        sum = Some(sum.map_or(placed, |sum| lo.em.add(sum, placed)));
    }
    let Some(sum) = sum else { invalid!("a weight without taps") };
    let cut = [front, back].map(|added| (-added).max(0) as usize);
    let full = lo.em.shape(sum)[1];
    let kept = lo.em.slice_axis(sum, 1, cut[0], full - cut[0] - cut[1]);
    let out = lo.em.pad_axis(kept, 1, (front.max(0) as usize, back.max(0) as usize), 0.0);
    let bias = lo.em.floats([1, 1, 1, 1, bias.len()], bias.to_vec());
    let out = lo.em.add(out, bias);
    let &[n, depth, h, w, c] = lo.em.shape(out) else { invalid!("shape") };
    Ok(View::plain(out, vec![n, c, depth, h, w], &order, DataType::Float))
}

/// Spreads the taps of a `[a, b, kh, kw]` weight apart, with zeros between.
fn dilated(weight: &Array, dilation: [i64; 2]) -> Lowered<Array> {
    if dilation == [1, 1] {
        return Ok(weight.clone());
    }
    let &[a, b, kh, kw] = &weight.shape[..] else { invalid!("weight shape") };
    let [dy, dx] = dilation.map(|d| d as usize);
    let (wide_h, wide_w) = ((kh - 1) * dy + 1, (kw - 1) * dx + 1);
    let mut out = vec![0.0; a * b * wide_h * wide_w];
    for (index, &value) in weight.as_floats()?.iter().enumerate() {
        let (plane, y, x) = (index / (kh * kw), index / kw % kh, index % kw);
        out[(plane * wide_h + y * dy) * wide_w + x * dx] = value;
    }
    Ok(Array::floats([a, b, wide_h, wide_w], out))
}

/// A transposed convolution whose padding may crop more than TOSA's bound, the kernel's extent.
fn cropped_transpose(
    lo: &mut Lowering,
    x: ValueId,
    weight: ValueId,
    bias: ValueId,
    stride: [i64; 2],
    out_pad: Pads,
) -> Lowered<ValueId> {
    let kernel = lo.em.shape(weight).to_vec();
    let mut within = out_pad;
    for side in 0..4 {
        within[side] = out_pad[side].max(1 - kernel[1 + side / 2] as i64);
    }
    let out = lo.em.transpose_conv2d(x, weight, bias, stride, within);
    let mut shape = lo.em.shape(out).to_vec();
    let mut start = vec![0; 4];
    for side in 0..4 {
        let cut = (within[side] - out_pad[side]) as usize;
        shape[1 + side / 2] -= cut;
        if side % 2 == 0 {
            start[1 + side / 2] = cut;
        }
    }
    Ok(lo.em.slice(out, &start, &shape))
}

/// Each channel by a kernel of its own. The outputs of one phase, those as far from a multiple of the stride,
/// are a convolution by every so-manieth tap; all phases are one depthwise convolution with as many outputs a
/// channel, which are then laid side by side in the image.
fn depthwise_transpose(
    lo: &mut Lowering,
    x: ValueId,
    weight: &Array,
    bias: &[f32],
    stride: [i64; 2],
    out_pad: Pads,
) -> Lowered<ValueId> {
    let (&[n, h, w, c], &[_, m, kh, kw]) = (lo.em.shape(x), &weight.shape[..]) else { invalid!("shape") };
    let [y, x_phases] = [0, 1].map(|axis| {
        Phases::new([h, w][axis], [kh, kw][axis], stride[axis], out_pad[2 * axis], out_pad[2 * axis + 1])
    });
    let (taps_y, taps_x, sy, sx) = (y.taps, x_phases.taps, y.stride, x_phases.stride);
    let source = weight.as_floats()?;
    let mut taps = Vec::with_capacity(taps_y * taps_x * c * m * sy * sx);
    for (jy, jx, channel) in
        (0..taps_y).flat_map(|jy| (0..taps_x).flat_map(move |jx| (0..c * m).map(move |o| (jy, jx, o))))
    {
        for (ry, rx) in (0..sy).flat_map(|ry| (0..sx).map(move |rx| (ry, rx))) {
            let (ky, kx) = ((taps_y - 1 - jy) * sy + ry, (taps_x - 1 - jx) * sx + rx);
            let inside = ky < kh && kx < kw;
            taps.push(if inside { source[(channel * kh + ky) * kw + kx] } else { 0.0 });
        }
    }
    let n_phases = sy * sx;
    let taps = lo.em.floats([taps_y, taps_x, c, m * n_phases], taps);
    let bias: Vec<_> = bias.iter().flat_map(|&b| std::iter::repeat_n(b, n_phases)).collect();
    let bias = lo.em.floats([bias.len()], bias);
    let window = Window {
        kernel: [taps_y as i64, taps_x as i64],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [y.before, y.after, x_phases.before, x_phases.after],
    };
    let (x, window) = lo.fit_window(x, window, Some(0.0))?;
    let phases = lo.em.depthwise(x, taps, bias, &window);
    let &[_, rows, columns, _] = lo.em.shape(phases) else { invalid!("shape") };
    let order = channels_last(4);
    let view = View::plain(phases, vec![n, c * m * n_phases, rows, columns], &order, DataType::Float);
    let view = lo.reshaped(&view, &[n, c * m, sy, sx, rows, columns]).transposed(&[0, 1, 4, 2, 5, 3]);
    let view = lo.reshaped(&view, &[n, c * m, rows * sy, columns * sx]);
    let whole = lo.in_order(&view, &order);
    Ok(lo.em.slice(whole, &[0, y.start, x_phases.start, 0], &[n, y.n_out, x_phases.n_out, c * m]))
}

/// How the phases of one axis are computed, and which of their outputs are wanted.
struct Phases {
    stride: usize,
    /// Taps of each phase.
    taps: usize,
    /// Padding of the input.
    before: i64,
    after: i64,
    /// The first wanted output among those computed, and how many are.
    start: usize,
    n_out: usize,
}

impl Phases {
    fn new(n_in: usize, kernel: usize, stride: i64, added_before: i64, added_after: i64) -> Self {
        let taps = (kernel as u64).div_ceil(stride as u64) as i64;
        let full = (n_in as i64 - 1) * stride + kernel as i64;
        let (first, end) = (-added_before, full + added_after);
        let (first_group, end_group) = (first.div_euclid(stride), (end + stride - 1).div_euclid(stride));
        Self {
            stride: stride as usize,
            taps: taps as usize,
            before: taps - 1 - first_group,
            after: end_group - n_in as i64,
            start: (first - first_group * stride) as usize,
            n_out: (end - first) as usize,
        }
    }
}
