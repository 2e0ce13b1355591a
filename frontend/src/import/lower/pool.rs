//! Pooling.

use strata_ir::{ElemType, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::conv::{spatial, window};
use super::{Lowering, single};
use crate::import::emit::Window;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::Value;

/// The window of a pool. With `ceil_mode` a last, partial window counts if it begins inside the input or its
/// leading padding; the trailing padding grows to hold it. The second value is the declared trailing padding.
fn pool_window(node: &Node<'_>, rank: usize, input: [usize; 2]) -> Lowered<(Window, [i64; 2])> {
    let Some(kernel) = node.ints("kernel_shape")? else { invalid!("kernel_shape is missing") };
    if rank == 5 {
        unsupported!("3-D pooling");
    }
    let kernel = spatial(Some(kernel), rank, 1, "kernel_shape")?;
    let mut window = window(node, rank, kernel, input)?;
    if window.pads.iter().any(|&p| p < 0) {
        unsupported!("negative padding of a pool");
    }
    let declared = [window.pads[1], window.pads[3]];
    if node.flag("ceil_mode", false)? {
        for axis in 0..2 {
            let (before, after) = (window.pads[2 * axis], window.pads[2 * axis + 1]);
            let reach = (kernel[axis] - 1) * window.dilation[axis];
            let span = input[axis] as i64 - 1 + before + after - reach;
            let stride = window.stride[axis];
            if span >= 0 {
                let mut last = (span + stride - 1) / stride;
                if last * stride >= input[axis] as i64 + before {
                    last -= 1;
                }
                window.pads[2 * axis + 1] = (after + last * stride - span).max(0);
            }
        }
    }
    Ok((window, declared))
}

fn spatial_extents(value: &Value) -> Lowered<[usize; 2]> {
    match value.shape()[..] {
        [_, _, h, w] => Ok([h, w]),
        [_, _, w] => Ok([1, w]),
        [_, _, _, _, _] => unsupported!("3-D pooling"),
        ref other => invalid!("pooling of shape {other:?}"),
    }
}

/// `MaxPool`.
pub(super) fn max(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    if node.has_output(1) {
        unsupported!("the output of indices");
    }
    let input = node.input(0)?;
    let rank = input.shape().len();
    let (window, _) = pool_window(node, rank, spatial_extents(input)?)?;
    if !matches!(input.dtype(), DataType::Float | DataType::Int8 | DataType::Uint8) {
        unsupported!("on {:?}", input.dtype());
    }
    // Integers of 8 bits pass through floats exactly.
    let dtype = input.dtype();
    let mut view = lo.view(input)?;
    if dtype != DataType::Float {
        let float = lo.em.cast(view.value, ElemType::F32);
        view = view.with_value(float, DataType::Float);
    }
    let x = lo.nhwc(&view.into())?;
    let (x, window) = lo.fit_window(x, window)?;
    let out = if window.dilation != [1, 1] {
        dilated_max(lo, x, window)
    } else {
        let (x, window) = pad_beyond_kernel(lo, x, window, f32::MIN);
        lo.em.max_pool(x, window)
    };
    let pooled = lo.from_nhwc(out, rank);
    if dtype == DataType::Float {
        return single(pooled);
    }
    let view = lo.view(&pooled)?;
    let int = lo.em.cast(view.value, ElemType::I32);
    single(view.with_value(int, dtype))
}

/// TOSA's pools want padding below the kernel's extent: larger padding becomes an op of its own.
fn pad_beyond_kernel(lo: &mut Lowering, x: ValueId, mut window: Window, value: f32) -> (ValueId, Window) {
    if (0..4).all(|side| window.pads[side] < window.kernel[side / 2]) {
        return (x, window);
    }
    let padded = lo.em.pad_spatial(x, window.pads, value);
    window.pads = [0; 4];
    (padded, window)
}

/// The maximum over taps that lie apart: of shifted slices, along y and then along x.
fn dilated_max(lo: &mut Lowering, x: ValueId, window: Window) -> ValueId {
    let mut out = lo.em.pad_spatial(x, window.pads, f32::MIN);
    for axis in 0..2 {
        let (kernel, dilation) = (window.kernel[axis] as usize, window.dilation[axis] as usize);
        let n_out = lo.em.shape(out)[axis + 1] - (kernel - 1) * dilation;
        let mut taps = (0..kernel).map(|tap| tap * dilation);
        let first = taps.next().map_or(0, |start| start);
        let mut sofar = lo.em.slice_axis(out, axis + 1, first, n_out);
        for start in taps {
            let tap = lo.em.slice_axis(out, axis + 1, start, n_out);
            sofar = lo.em.maximum(sofar, tap);
        }
        out = lo.em.every(sofar, axis + 1, window.stride[axis] as usize);
    }
    out
}

/// `AveragePool`. TOSA counts only taps inside the input; with `count_include_pad` the declared padding is made
/// part of the input first.
pub(super) fn average(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let rank = input.shape().len();
    let (mut window, declared) = pool_window(node, rank, spatial_extents(input)?)?;
    if window.dilation != [1, 1] {
        unsupported!("dilations");
    }
    let mut x = lo.nhwc(input)?;
    if node.flag("count_include_pad", false)? {
        let [top, bottom, left, right] = window.pads;
        x = lo.em.pad_spatial(x, [top, declared[0], left, declared[1]], 0.0);
        window.pads = [0, bottom - declared[0], 0, right - declared[1]];
    }
    let (x, window) = lo.fit_window(x, window)?;
    if (0..4).any(|side| window.pads[side] >= window.kernel[side / 2]) {
        unsupported!("padding as large as the kernel");
    }
    let out = lo.em.avg_pool(x, window);
    single(lo.from_nhwc(out, rank))
}

/// The window that covers all of an NHWC value.
fn whole(lo: &Lowering, x: ValueId) -> Window {
    let shape = lo.em.shape(x);
    Window { kernel: [shape[1] as i64, shape[2] as i64], stride: [1, 1], dilation: [1, 1], pads: [0; 4] }
}

/// `GlobalAveragePool`.
pub(super) fn global_average(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let x = lo.nhwc(input)?;
    let out = lo.em.avg_pool(x, whole(lo, x));
    single(lo.from_nhwc(out, input.shape().len()))
}

/// `GlobalMaxPool`.
pub(super) fn global_max(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let x = lo.nhwc(input)?;
    let out = lo.em.max_pool(x, whole(lo, x));
    single(lo.from_nhwc(out, input.shape().len()))
}
