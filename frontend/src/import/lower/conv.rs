//! Convolutions and transposed convolutions.

use strata_ir::ValueId;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::array::Array;
use crate::import::emit::{Pads, Window};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View, channels_last};

/// A spatial attribute as `[y, x]`; 1-D ones get `default` for y.
pub(super) fn spatial(values: Option<&[i64]>, rank: usize, default: i64, what: &str) -> Lowered<[i64; 2]> {
    let out = match (values, rank) {
        (None, _) => [default; 2],
        (Some(&[x]), 3) => [1, x],
        (Some(&[y, x]), 4) => [y, x],
        (Some(other), _) => invalid!("{what} {other:?} for a tensor of rank {rank}"),
    };
    if out.iter().any(|v| !(1..=1 << 20).contains(v)) {
        invalid!("{what} {out:?}");
    }
    Ok(out)
}

/// The explicit padding of a node as `[top, bottom, left, right]`, before `auto_pad`.
pub(super) fn explicit_pads(node: &Node<'_>, rank: usize) -> Lowered<Pads> {
    let pads = match (node.ints("pads")?, rank) {
        (None, _) => [0; 4],
        (Some(&[left, right]), 3) => [0, 0, left, right],
        (Some(&[top, left, bottom, right]), 4) => [top, bottom, left, right],
        (Some(other), _) => invalid!("padding {other:?} for a tensor of rank {rank}"),
    };
    if pads.iter().any(|p| p.abs() > 1 << 20) {
        invalid!("padding {pads:?}");
    }
    Ok(pads)
}

/// The window of a convolution or pool over an input of extents `[y, x]`, `auto_pad` resolved.
pub(super) fn window(node: &Node<'_>, rank: usize, kernel: [i64; 2], input: [usize; 2]) -> Lowered<Window> {
    let stride = spatial(node.ints("strides")?, rank, 1, "strides")?;
    let dilation = spatial(node.ints("dilations")?, rank, 1, "dilations")?;
    let mut window = Window { kernel, stride, dilation, pads: [0; 4] };
    match node.string("auto_pad", "NOTSET")?.as_str() {
        "NOTSET" | "" => window.pads = explicit_pads(node, rank)?,
        auto => {
            for axis in 0..2 {
                (window.pads[2 * axis], window.pads[2 * axis + 1]) =
                    auto_padding(auto, input[axis], kernel[axis], stride[axis], dilation[axis])?;
            }
        }
    }
    Ok(window)
}

/// The padding of one axis, before and after, that an `auto_pad` other than `NOTSET` stands for.
fn auto_padding(auto: &str, extent: usize, kernel: i64, stride: i64, dilation: i64) -> Lowered<(i64, i64)> {
    let n_out = (extent as u64).div_ceil(stride as u64) as i64;
    let reach = (kernel - 1) * dilation + 1;
    let total = ((n_out - 1) * stride + reach - extent as i64).max(0);
    let (small, large) = (total / 2, total - total / 2);
    match auto {
        "VALID" => Ok((0, 0)),
        "SAME_UPPER" => Ok((small, large)),
        "SAME_LOWER" => Ok((large, small)),
        other => invalid!("auto_pad `{other}`"),
    }
}

impl Lowering {
    /// Makes the window fit as TOSA wants it: no negative padding, and steps that end exactly at the padded
    /// edge. What no tap reads is trimmed from the padding, or cut off the input; where that is all of the
    /// input, the padding, of `fill`, is made part of it.
    pub(super) fn fit_window(
        &mut self,
        x: ValueId,
        mut window: Window,
        fill: Option<f32>,
    ) -> Lowered<(ValueId, Window)> {
        let whole = window;
        let mut shape = self.em.shape(x).to_vec();
        let mut start = vec![0; shape.len()];
        for axis in 0..2 {
            for side in [2 * axis, 2 * axis + 1] {
                let cut = (-window.pads[side]).max(0) as usize;
                if cut >= shape[axis + 1] {
                    invalid!("padding crops the whole input");
                }
                shape[axis + 1] -= cut;
                if side == 2 * axis {
                    start[axis + 1] = cut;
                }
                window.pads[side] = window.pads[side].max(0);
            }
            let (before, after) = (window.pads[2 * axis], window.pads[2 * axis + 1]);
            let reach = (window.kernel[axis] - 1) * window.dilation[axis];
            let span = shape[axis + 1] as i64 - 1 + before + after - reach;
            if span < 0 {
                invalid!("the kernel is larger than the padded input");
            }
            let excess = span % window.stride[axis];
            let trimmed = excess.min(after);
            if excess - trimmed >= shape[axis + 1] as i64 {
                let Some(value) = fill else { unsupported!("windows that meet nothing but padding") };
                let padded = self.em.pad_spatial(x, whole.pads.map(|pad| pad.max(0)), value);
                let cropped = Window { pads: whole.pads.map(|pad| pad.min(0)), ..whole };
                return self.fit_window(padded, cropped, fill);
            }
            window.pads[2 * axis + 1] -= trimmed;
            shape[axis + 1] -= (excess - trimmed) as usize;
        }
        Ok((self.em.slice(x, &start, &shape), window))
    }
}

/// Weights with their spatial extents: `[a, b, kh, kw]`.
pub(super) fn weight_4d(node: &Node<'_>, rank: usize) -> Lowered<Array> {
    let weight = node.constant(1, "the weight")?;
    weight.as_floats()?;
    Ok(match weight.shape[..] {
        [a, b, w] if rank == 3 => weight.reshaped([a, b, 1, w]),
        [_, _, _, _] if rank == 4 => weight.clone(),
        ref other if other.len() > 4 => unsupported!("3-D convolution"),
        ref other => invalid!("a weight of shape {other:?} for a tensor of rank {rank}"),
    })
}

pub(super) fn bias(node: &Node<'_>, n_channels: usize) -> Lowered<Vec<f32>> {
    let Some(bias) = node.optional_constant(2, "the bias")? else { return Ok(vec![0.0; n_channels]) };
    match bias.as_floats()? {
        values if values.len() == n_channels => Ok(values.to_vec()),
        values => invalid!("a bias of {} elements for {n_channels} channels", values.len()),
    }
}

pub(super) fn check_kernel(node: &Node<'_>, rank: usize, kernel: [i64; 2]) -> Lowered<()> {
    if let Some(declared) = node.ints("kernel_shape")?
        && spatial(Some(declared), rank, 1, "kernel_shape")? != kernel
    {
        invalid!("kernel_shape {declared:?} does not fit a weight of {kernel:?}");
    }
    Ok(())
}

pub(super) fn n_groups(node: &Node<'_>, n_in: usize, n_out: usize) -> Lowered<usize> {
    match usize::try_from(node.int("group", 1)?) {
        Ok(group) if group > 0 && n_in.is_multiple_of(group) && n_out.is_multiple_of(group) => Ok(group),
        _ => invalid!("`group` does not divide {n_in} and {n_out} channels"),
    }
}

/// `Conv`: one convolution; with as many groups as channels a depthwise one; with other groups one each.
pub(super) fn conv(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let rank = input.shape().len();
    if rank == 5 {
        return volumetric(lo, node);
    }
    let x = lo.nhwc(input)?;
    let weight = weight_4d(node, rank)?;
    let &[n_out, n_per_group, kh, kw] = &weight.shape[..] else { invalid!("weight shape") };
    let &[_, h, w, n_in] = lo.em.shape(x) else { invalid!("input shape") };
    let group = n_groups(node, n_in, n_out)?;
    if n_per_group * group != n_in {
        invalid!("a weight for {} channels on an input of {n_in}", n_per_group * group);
    }
    let kernel = [kh as i64, kw as i64];
    check_kernel(node, rank, kernel)?;
    let window = window(node, rank, kernel, [h, w])?;
    let (x, window) = lo.fit_window(x, window, Some(0.0))?;
    let out = grouped(lo, x, &weight, &bias(node, n_out)?, group, &window)?;
    single(lo.nhwc_result(out, rank))
}

/// A convolution of NHWC `x` with a weight `[OC, IC/group, KH, KW]`.
fn grouped(
    lo: &mut Lowering,
    x: ValueId,
    weight: &Array,
    bias: &[f32],
    group: usize,
    window: &Window,
) -> Lowered<ValueId> {
    let &[n_out, n_per_group, kh, kw] = &weight.shape[..] else { invalid!("weight shape") };
    if weight.shape.contains(&0) {
        invalid!("the weight is of shape {:?}, without an element", weight.shape);
    }
    if n_per_group == 1 && group > 1 {
        // [C*M, 1, KH, KW] -> [KH, KW, C, M]
        let weight = weight.reshaped([group, n_out / group, kh, kw]).transposed(&[2, 3, 0, 1]);
        let weight = lo.em.array(weight)?;
        let bias = lo.em.floats([n_out], bias.to_vec());
        return Ok(lo.em.depthwise(x, weight, bias, window));
    }
    let weight = weight.transposed(&[0, 2, 3, 1]);
    let weights = match group {
        1 => vec![weight],
        _ => (0..group).map(|index| part_of(&weight, index, group)).collect(),
    };
    let mut parts = Vec::new();
    for ((index, bias), weight) in bias.chunks(n_out / group).enumerate().zip(weights) {
        let part = if group == 1 { x } else { lo.em.slice_axis(x, 3, index * n_per_group, n_per_group) };
        let weight = lo.em.array(weight)?;
        let bias = lo.em.floats([bias.len()], bias.to_vec());
        parts.push(lo.em.conv2d(part, weight, bias, window));
    }
    Ok(lo.em.concat(&parts, 3))
}

/// An attribute with one number for each of `n` spatial axes (`2 * n` for padding).
pub(super) fn spatial_list(node: &Node<'_>, name: &str, n: usize, default: i64) -> Lowered<Vec<i64>> {
    match node.ints(name)? {
        None => Ok(vec![default; n]),
        Some(values) if values.len() == n && values.iter().all(|&v| v >= default && v < 1 << 20) => {
            Ok(values.to_vec())
        }
        Some(other) => unsupported!("{name} {other:?}"),
    }
}

/// A 3-D convolution, one of its spatial axes taken for the depth: one of extent 1, if there is one, since it
/// is a 2-D convolution then.
fn volumetric(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let weight = node.constant(1, "the weight")?;
    weight.as_floats()?;
    if view.shape.len() != 5 || weight.shape.len() != 5 || weight.shape.contains(&0) {
        invalid!("a weight of shape {:?} for an input of shape {:?}", weight.shape, view.shape)
    }
    let (n_in, n_out, n_per_group) = (view.shape[1], weight.shape[0], weight.shape[1]);
    let group = n_groups(node, n_in, n_out)?;
    if n_per_group * group != n_in || view.dtype != DataType::Float {
        invalid!("a weight for {} channels on an input of {n_in}", n_per_group * group);
    }
    if let Some(declared) = node.ints("kernel_shape")?
        && !declared.iter().copied().eq(weight.shape[2..].iter().map(|&k| k as i64))
    {
        invalid!("kernel_shape {declared:?} does not fit a weight of shape {:?}", weight.shape);
    }
    let strides = spatial_list(node, "strides", 3, 1)?;
    let dilations = spatial_list(node, "dilations", 3, 1)?;
    let pads = spatial_list(node, "pads", 6, 0)?;
    let auto = node.string("auto_pad", "NOTSET")?;
    let mut axes = Vec::new();
    for axis in 0..3 {
        let (extent, kernel) = (view.shape[axis + 2], weight.shape[axis + 2] as i64);
        let (stride, dilation) = (strides[axis], dilations[axis]);
        let (before, after) = match auto.as_str() {
            "NOTSET" | "" => (pads[axis], pads[axis + 3]),
            auto => auto_padding(auto, extent, kernel, stride, dilation)?,
        };
        axes.push(ConvAxis { kernel, stride, dilation, before, after });
    }
    let order = depth_first(&view.shape[2..]);
    let turned = Volume {
        x: view.transposed(&spatial_perm(order)),
        weight: weight.transposed(&spatial_perm(order)),
        bias: bias(node, n_out)?,
        group,
        axes: order.map(|axis| axes[axis]),
    };
    let out = turned.convolved(lo)?;
    single(out.transposed(&spatial_perm(inverse(order))))
}

/// The order of three spatial axes with one of extent 1 first, if there is one.
pub(super) fn depth_first(extents: &[usize]) -> [usize; 3] {
    match extents.iter().position(|&extent| extent == 1) {
        Some(1) => [1, 0, 2],
        Some(2) => [2, 0, 1],
        _ => [0, 1, 2],
    }
}

/// The order of the spatial axes that undoes another.
pub(super) fn inverse(order: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|axis| order.iter().position(|&from| from == axis).unwrap_or(axis))
}

/// An order of the spatial axes as a permutation of all five.
pub(super) fn spatial_perm([a, b, c]: [usize; 3]) -> [usize; 5] {
    [0, 1, a + 2, b + 2, c + 2]
}

/// How a kernel slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConvAxis {
    kernel: i64,
    stride: i64,
    dilation: i64,
    before: i64,
    after: i64,
}

impl ConvAxis {
    /// How many outputs there are on an input of `extent`.
    fn n_out(&self, extent: usize) -> Lowered<usize> {
        let span = extent as i64 + self.before + self.after - (self.kernel - 1) * self.dilation - 1;
        if span < 0 {
            invalid!("the kernel is larger than the padded input");
        }
        Ok((span / self.stride + 1) as usize)
    }
}

/// The operands of a 3-D convolution.
struct Volume {
    x: View,
    weight: Array,
    bias: Vec<f32>,
    group: usize,
    axes: [ConvAxis; 3],
}

impl Volume {
    /// The sum of 2-D convolutions, one for each tap along the depth, the depth counted to the batch. Of an
    /// input without depth only one tap meets anything.
    fn convolved(&self, lo: &mut Lowering) -> Lowered<View> {
        let Self { x, weight, bias, group, axes: [along, y_axis, x_axis] } = self;
        let (&[n, n_in, depth, h, w], &[n_out, n_per_group, kd, kh, kw]) = (&x.shape[..], &weight.shape[..])
        else {
            invalid!("a weight of shape {:?} for an input of shape {:?}", weight.shape, x.shape)
        };
        let n_depth = along.n_out(depth)?;
        let window = Window {
            kernel: [kh as i64, kw as i64],
            stride: [y_axis.stride, x_axis.stride],
            dilation: [y_axis.dilation, x_axis.dilation],
            pads: [y_axis.before, y_axis.after, x_axis.before, x_axis.after],
        };
        let order = channels_last(5);
        let planes = weight.transposed(&[2, 0, 1, 3, 4]);
        let plane = |tap: usize| part_of(&planes, tap, kd).reshaped([n_out, n_per_group, kh, kw]);
        let out = if depth == 1 && n_depth == 1 {
            let images = lo.in_order_as(x, &order, &[n, h, w, n_in]);
            let (images, window) = lo.fit_window(images, window, Some(0.0))?;
            let tap = (0..kd).find(|&tap| tap as i64 * along.dilation == along.before);
            let nothing =
                || Array::floats([n_out, n_per_group, kh, kw], vec![0.0; n_out * n_per_group * kh * kw]);
            let plane = tap.map_or_else(nothing, plane);
            grouped(lo, images, &plane, bias, *group, &window)?
        } else {
            let x = lo.in_order(x, &order);
            let padding = (along.before as usize, along.after as usize);
            let x = lo.em.pad_axis(x, 1, padding, 0.0);
            let (stride, dilation) = (along.stride as usize, along.dilation as usize);
            let mut bias = bias.clone();
            let mut sum = None;
            for tap in 0..kd {
                let slab = lo.em.slice_axis(x, 1, tap * dilation, (n_depth - 1) * stride + 1);
                let slab = lo.em.every(slab, 1, stride);
                let images = lo.em.reshape(slab, &[n * n_depth, h, w, n_in]);
                let (images, window) = lo.fit_window(images, window, Some(0.0))?;
                let part = grouped(lo, images, &plane(tap), &bias, *group, &window)?;
                bias.fill(0.0);
                sum = Some(sum.map_or(part, |sum| lo.em.add(sum, part)));
            }
            let Some(sum) = sum else { invalid!("a weight without taps") };
            sum
        };
        let &[_, h, w, c] = lo.em.shape(out) else { invalid!("shape") };
        Ok(View::plain(out, vec![n, c, n_depth, h, w], &order, DataType::Float))
    }
}

/// Part `index` of `n` equal ones along the first axis.
pub(super) fn part_of(array: &Array, index: usize, n: usize) -> Array {
    if n == 1 {
        return array.clone();
    }
    let mut shape = array.shape.clone();
    shape[0] /= n;
    let len: usize = shape.iter().product();
    let places: Vec<_> = (index * len..(index + 1) * len).collect();
    array.gathered(shape, &places)
}
