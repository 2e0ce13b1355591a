//! Pooling. Windows are products of one axis each, so 3-D pools are a 2-D pool of the planes and one along
//! the depth.

use strata_ir::{ElemType, ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::conv::{depth_first, inverse, spatial_list, spatial_perm};
use super::unpool::PooledFrom;
use super::{Lowering, single};
use crate::import::array::{Array, strides};
use crate::import::emit::{Emitter, Window};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View, channels_last};

/// A pool's window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AxisWindow {
    kernel: i64,
    stride: i64,
    dilation: i64,
    before: i64,
    /// Trailing padding, as it takes to hold the last window; negative where the input's end is not read.
    after: i64,
    /// Trailing padding as the node declares it.
    declared_after: i64,
}

/// The window of an axis that is not pooled.
const POINT: AxisWindow =
    AxisWindow { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0, declared_after: 0 };

impl AxisWindow {
    /// With `ceil_mode` a last, partial window counts if it begins inside the input or its leading padding.
    fn new(
        [kernel, stride, dilation]: [i64; 3],
        [before, after]: [i64; 2],
        extent: usize,
        ceil: bool,
    ) -> Lowered<Self> {
        let reach = (kernel - 1) * dilation;
        let span = extent as i64 - 1 + before + after - reach;
        if span < 0 && !(ceil && span > -stride) {
            invalid!("the window is larger than the padded input");
        }
        let mut n_steps = span.max(0) / stride;
        if ceil {
            n_steps = (span + stride - 1).max(0) / stride;
            if n_steps * stride >= extent as i64 + before {
                n_steps -= 1;
            }
        }
        let needed = n_steps * stride + reach + 1 - before - extent as i64;
        Ok(Self { kernel, stride, dilation, before, after: needed, declared_after: after })
    }

    /// How many windows there are on an input of `extent`.
    fn n_out(&self, extent: usize) -> usize {
        let reach = (self.kernel - 1) * self.dilation;
        ((extent as i64 - 1 + self.before + self.after - reach) / self.stride + 1) as usize
    }
}

/// The windows of all spatial axes of an input.
fn axis_windows(node: &Node<'_>, extents: &[usize]) -> Lowered<Vec<AxisWindow>> {
    let n = extents.len();
    if node.ints("kernel_shape")?.is_none() {
        invalid!("kernel_shape is missing");
    }
    let kernels = spatial_list(node, "kernel_shape", n, 1)?;
    let strides = spatial_list(node, "strides", n, 1)?;
    let dilations = spatial_list(node, "dilations", n, 1)?;
    let pads = spatial_list(node, "pads", 2 * n, 0)?;
    let auto = node.string("auto_pad", "NOTSET")?;
    let ceil = node.flag("ceil_mode", false)?;
    let mut windows = Vec::new();
    for axis in 0..n {
        let shape = [kernels[axis], strides[axis], dilations[axis]];
        let pads = match auto.as_str() {
            "NOTSET" | "" => [pads[axis], pads[axis + n]],
            "VALID" => [0, 0],
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                let extent = extents[axis] as i64;
                let n_out = (extent as u64).div_ceil(shape[1] as u64) as i64;
                let total = ((n_out - 1) * shape[1] + (shape[0] - 1) * shape[2] + 1 - extent).max(0);
                let half = total / 2;
                if same == "SAME_UPPER" { [half, total - half] } else { [total - half, half] }
            }
            other => invalid!("auto_pad `{other}`"),
        };
        windows.push(AxisWindow::new(shape, pads, extents[axis], ceil)?);
    }
    Ok(windows)
}

/// Pools an NHWC value over two axes.
type Pool<'a> = dyn FnMut(&mut Lowering, ValueId, [AxisWindow; 2]) -> Lowered<ValueId> + 'a;

/// Pools an input of one to three spatial axes by a pool of two.
fn pooled(lo: &mut Lowering, view: &View, windows: &[AxisWindow], pool: &mut Pool<'_>) -> Lowered<Value> {
    let rank = view.shape.len();
    if rank == 5 {
        let order = depth_first(&view.shape[2..]);
        let turned = view.transposed(&spatial_perm(order));
        let &[n, c, depth, h, w] = &turned.shape[..] else { invalid!("shape {:?}", turned.shape) };
        let [along, y, x] = order.map(|axis| windows[axis]);
        let last = channels_last(5);
        let planes = lo.in_order_as(&turned, &last, &[n * depth, h, w, c]);
        let planes = pool(lo, planes, [y, x])?;
        let &[_, h, w, _] = lo.em.shape(planes) else { invalid!("shape") };
        let columns = lo.em.reshape(planes, &[n, depth, h * w, c]);
        let out = pool(lo, columns, [along, POINT])?;
        let shape = vec![n, c, lo.em.shape(out)[1], h, w];
        let out = View::plain(out, shape, &last, DataType::Float);
        return Ok(out.transposed(&spatial_perm(inverse(order))).into());
    }
    let x = lo.nhwc(&view.clone().into())?;
    let both = if let [w] = windows { [POINT, *w] } else { [windows[0], windows[1]] };
    let out = pool(lo, x, both)?;
    Ok(lo.nhwc_result(out, rank))
}

/// The spatial extents of a pool's input.
fn spatial_extents(value: &Value) -> Lowered<&[usize]> {
    match value.shape() {
        shape if (3..=5).contains(&shape.len()) => Ok(&shape[2..]),
        other => invalid!("pooling of shape {other:?}"),
    }
}

/// The window as TOSA's pools take it.
fn window([y, x]: [AxisWindow; 2]) -> Window {
    Window {
        kernel: [y.kernel, x.kernel],
        stride: [y.stride, x.stride],
        dilation: [y.dilation, x.dilation],
        pads: [y.before, y.after, x.before, x.after],
    }
}

/// `MaxPool`.
pub(super) fn max(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let windows = axis_windows(node, spatial_extents(input)?)?;
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
    let out = pooled(lo, &view, &windows, &mut |lo, x, both| {
        let (x, window) = lo.fit_window(x, window(both), Some(f32::MIN))?;
        if window.dilation != [1, 1] {
            return Ok(dilated(lo, x, window, f32::MIN, Emitter::maximum));
        }
        let (x, window) = pad_beyond_kernel(lo, x, window, f32::MIN);
        Ok(lo.em.max_pool(x, window))
    })?;
    let mut outputs = vec![out];
    if node.has_output(1) {
        let column_major = node.flag("storage_order", false)?;
        let indices = indices(lo, &view, &windows, column_major)?;
        if !column_major && windows.iter().all(|axis| axis.dilation == 1) && windows.len() < 3 {
            let both = if let [w] = windows[..] { [POINT, w] } else { [windows[0], windows[1]] };
            let (input, result) = (lo.nhwc(&view.clone().into())?, lo.nhwc(&outputs[0])?);
            lo.pooled.insert(indices.value, PooledFrom { input, result, window: window(both) });
        }
        outputs.push(indices.into());
    }
    if dtype != DataType::Float {
        let view = lo.view(&outputs[0])?;
        let int = lo.em.cast(view.value, ElemType::I32);
        outputs[0] = view.with_value(int, dtype).into();
    }
    Ok(outputs)
}

/// The places of the maxima in the flattened input: the first of equals in each window, tap by tap. With
/// `column_major` the spatial axes count in the opposite order.
fn indices(lo: &mut Lowering, view: &View, windows: &[AxisWindow], column_major: bool) -> Lowered<View> {
    let rank = view.shape.len();
    let order = channels_last(rank);
    let x = lo.in_order(view, &order);
    let extents = &view.shape[2..];
    let outs: Vec<usize> = windows.iter().zip(extents).map(|(axis, &extent)| axis.n_out(extent)).collect();
    let mut padding = vec![(0, 0); rank];
    let mut start = vec![0; rank];
    let mut size = lo.em.shape(x).to_vec();
    for (at, axis) in windows.iter().enumerate() {
        padding[at + 1] = (axis.before as usize, axis.after.max(0) as usize);
        size[at + 1] -= (-axis.after).max(0) as usize;
    }
    let read = lo.em.slice(x, &start, &size);
    let padded = lo.em.pad(read, &padding, f32::NEG_INFINITY);
    let mut spatial = vec![1; rank];
    spatial[1..rank - 1].copy_from_slice(&outs);
    let strides = if column_major {
        let reversed: Vec<_> = extents.iter().rev().copied().collect();
        strides(&reversed).into_iter().rev().collect()
    } else {
        strides(extents)
    };
    let taps: Vec<_> = windows.iter().map(|axis| axis.kernel as usize).collect();
    let n_outs: usize = outs.iter().product();
    // Where no tap is greater than minus infinity, the first one inside the input counts.
    let mut first_inside: Vec<Option<i64>> = vec![None; n_outs];
    let mut steps = Vec::new();
    for tap in offsets_of(&taps) {
        let mut places = Vec::with_capacity(n_outs);
        for out in offsets_of(&outs) {
            let mut place = Some(0);
            for (at, axis) in windows.iter().enumerate() {
                let index = out[at] as i64 * axis.stride - axis.before + tap[at] as i64 * axis.dilation;
                let inside = (0..extents[at] as i64).contains(&index);
                place = place.filter(|_| inside).map(|sum| sum + index * strides[at] as i64);
            }
            places.push(place);
        }
        first_inside.iter_mut().zip(&places).for_each(|(first, place)| *first = first.or(*place));
        steps.push((tap, places.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>()));
    }
    let Some(first_inside) = first_inside.into_iter().collect::<Option<Vec<_>>>() else {
        unsupported!("indices of windows that lie outside of the input")
    };
    let constant = |lo: &mut Lowering, shape: &[usize], data: Vec<i64>| -> Lowered<ValueId> {
        Ok(lo.em.constant(Array::ints(shape, data, DataType::Int32).into_tensor()?))
    };
    let mut best = lo.em.scalar(rank, f32::NEG_INFINITY);
    let mut best_at = constant(lo, &spatial, first_inside)?;
    for (tap, places) in steps {
        let mut shifted = padded;
        for (at, axis) in windows.iter().enumerate() {
            (start[at + 1], size[at + 1]) =
                (tap[at] * axis.dilation as usize, (outs[at] - 1) * axis.stride as usize + 1);
        }
        shifted = lo.em.slice(shifted, &start, &size);
        for (at, axis) in windows.iter().enumerate() {
            shifted = lo.em.every(shifted, at + 1, axis.stride as usize);
        }
        let at = constant(lo, &spatial, places)?;
        let better = lo.em.compare(dialect::Greater {}, shifted, best);
        best_at = lo.em.select(better, at, best_at);
        best = lo.em.maximum(shifted, best);
    }
    // Batch and channel count above the spatial axes.
    let (n, c) = (view.shape[0], view.shape[1]);
    let plane = extents.iter().product::<usize>();
    let bases = (0..n * c).map(|at| (at * plane) as i64).collect();
    let mut shape = vec![1; rank];
    (shape[0], shape[rank - 1]) = (n, c);
    let bases = constant(lo, &shape, bases)?;
    let out = lo.em.add(best_at, bases);
    let shape = [&view.shape[..2], &outs].concat();
    Ok(View::plain(out, shape, &order, DataType::Int64))
}

/// All index tuples below `extents`, row-major.
fn offsets_of(extents: &[usize]) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new()];
    for &extent in extents {
        let longer = |tuple: Vec<usize>| (0..extent).map(move |i| [&tuple[..], &[i]].concat());
        out = out.into_iter().flat_map(longer).collect();
    }
    out
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

/// Combines taps that lie apart: shifted slices of the padded input, along y and then along x.
fn dilated(
    lo: &mut Lowering,
    x: ValueId,
    window: Window,
    padding: f32,
    combine: fn(&mut Emitter, ValueId, ValueId) -> ValueId,
) -> ValueId {
    let mut out = lo.em.pad_spatial(x, window.pads, padding);
    for axis in 0..2 {
        let (kernel, dilation) = (window.kernel[axis] as usize, window.dilation[axis] as usize);
        let n_out = lo.em.shape(out)[axis + 1] - (kernel - 1) * dilation;
        let mut sofar = lo.em.slice_axis(out, axis + 1, 0, n_out);
        for tap in 1..kernel {
            let shifted = lo.em.slice_axis(out, axis + 1, tap * dilation, n_out);
            sofar = combine(&mut lo.em, sofar, shifted);
        }
        out = lo.em.every(sofar, axis + 1, window.stride[axis] as usize);
    }
    out
}

/// `AveragePool`. TOSA counts only taps inside the input; with `count_include_pad` the declared padding is
/// made part of the input first.
pub(super) fn average(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let windows = axis_windows(node, spatial_extents(input)?)?;
    let include_pad = node.flag("count_include_pad", false)?;
    let view = lo.view(input)?;
    let out = pooled(lo, &view, &windows, &mut |lo, mut x, mut both| {
        if include_pad {
            let [top, left] = both.map(|axis| axis.before);
            let [bottom, right] = both.map(|axis| axis.declared_after);
            x = lo.em.pad_spatial(x, [top, bottom, left, right], 0.0);
            for axis in &mut both {
                (axis.before, axis.after) = (0, axis.after - axis.declared_after);
            }
        }
        let n_in = [lo.em.shape(x)[1], lo.em.shape(x)[2]];
        let (fitted, window) = lo.fit_window(x, window(both), Some(0.0))?;
        if window.dilation == [1, 1] && (0..4).all(|side| window.pads[side] < window.kernel[side / 2]) {
            return Ok(lo.em.avg_pool(fitted, window));
        }
        let sum = dilated(lo, fitted, window, 0.0, Emitter::add);
        let &[_, h, w, _] = lo.em.shape(sum) else { invalid!("shape") };
        let rows = inverse_counts(both[0], n_in[0], h);
        let columns = inverse_counts(both[1], n_in[1], w);
        let rows = lo.em.floats([1, h, 1, 1], rows);
        let columns = lo.em.floats([1, 1, w, 1], columns);
        let mean = lo.em.mul(sum, rows);
        Ok(lo.em.mul(mean, columns))
    })?;
    single(out)
}

/// `LpPool`: the p-norm of each window.
pub(super) fn lp(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let windows = axis_windows(node, spatial_extents(input)?)?;
    let p = match node.int("p", 2)? {
        p @ 1..=64 => p as f32,
        p => invalid!("p = {p}"),
    };
    let view = lo.view(input)?;
    let out = pooled(lo, &view, &windows[..], &mut |lo, x, both| {
        let (x, window) = lo.fit_window(x, window(both), Some(0.0))?;
        let magnitude = lo.em.unary(dialect::Abs {}, x);
        let exponent = lo.em.scalar(4, p);
        let power = if p == 1.0 { magnitude } else { lo.em.binary(dialect::Pow {}, magnitude, exponent) };
        let sum = dilated(lo, power, window, 0.0, Emitter::add);
        let root = lo.em.scalar(4, 1.0 / p);
        Ok(if p == 1.0 { sum } else { lo.em.binary(dialect::Pow {}, sum, root) })
    })?;
    single(out)
}

/// One over the number of taps inside an input of `n_in`, for each output.
fn inverse_counts(axis: AxisWindow, n_in: usize, n_out: usize) -> Vec<f32> {
    let inside = |o: i64| {
        let places = (0..axis.kernel).map(|tap| o * axis.stride - axis.before + tap * axis.dilation);
        places.filter(|place| (0..n_in as i64).contains(place)).count().max(1)
    };
    (0..n_out as i64).map(|o| 1.0 / inside(o) as f32).collect()
}

/// The window that covers all of an NHWC value.
fn whole(lo: &Lowering, x: ValueId) -> Window {
    let shape = lo.em.shape(x);
    Window { kernel: [shape[1] as i64, shape[2] as i64], stride: [1, 1], dilation: [1, 1], pads: [0; 4] }
}

/// Pools over all spatial axes.
fn globally(
    lo: &mut Lowering,
    node: &Node<'_>,
    pool: fn(&mut Emitter, ValueId, Window) -> ValueId,
) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let rank = view.shape.len();
    if rank < 3 {
        invalid!("pooling of shape {:?}", view.shape);
    }
    let (n, c) = (view.shape[0], view.shape[1]);
    let planar = if rank > 4 {
        // More axes than two are two: windows are products of one axis each.
        lo.reshaped(&view, &[n, c, view.shape[2], view.shape[3..].iter().product()])
    } else {
        view
    };
    let x = lo.nhwc(&planar.into())?;
    let window = whole(lo, x);
    let out = pool(&mut lo.em, x, window);
    let mut shape = vec![1; rank];
    (shape[0], shape[1]) = (n, c);
    single(View::plain(out, shape, &channels_last(rank), DataType::Float))
}

/// `GlobalAveragePool`.
pub(super) fn global_average(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    globally(lo, node, Emitter::avg_pool)
}

/// `GlobalLpPool`.
pub(super) fn global_lp(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    if view.shape.len() < 3 {
        invalid!("a spatial operator on shape {:?}", view.shape);
    }
    let p = match node.int("p", 2)? {
        p @ 1..=64 => p as f32,
        p => invalid!("p = {p}"),
    };
    let (x, perm) = lo.in_natural_order(&view);
    let spatial: Vec<_> = (0..perm.len()).rev().filter(|&place| perm[place] >= 2).collect();
    let em = &mut lo.em;
    let magnitude = em.unary(dialect::Abs {}, x);
    let rank = perm.len();
    let exponent = em.scalar(rank, p);
    let power = if p == 1.0 { magnitude } else { em.binary(dialect::Pow {}, magnitude, exponent) };
    let sum = spatial.iter().fold(power, |sum, &place| em.reduce_sum(sum, place));
    let root = em.scalar(rank, 1.0 / p);
    let out = if p == 1.0 { sum } else { em.binary(dialect::Pow {}, sum, root) };
    let mut shape = view.shape.clone();
    shape[2..].fill(1);
    single(View::plain(out, shape, &perm, DataType::Float))
}

/// `GlobalMaxPool`.
pub(super) fn global_max(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    globally(lo, node, Emitter::max_pool)
}
