//! `MaxUnpool` of indices that a `MaxPool` of the graph gives.
//!
//! No index is computed: in each window of the pool the place of the maximum is the first that equals it.
//! Windows that do not overlap are taken apart into one image for each of their places, as small as the
//! pool's result; the values stand in the images where the maximum was found, and the images are laid side by
//! side.

use strata_ir::{ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::conv::{explicit_pads, spatial};
use super::{Lowering, single};
use crate::import::emit::Window;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View, channels_last};

/// What the indices of a max pool were computed from.
#[derive(Clone, Debug)]
pub(super) struct PooledFrom {
    /// The pool's input, `[N,H,W,C]`.
    pub(super) input: ValueId,
    /// Its result.
    pub(super) result: ValueId,
    /// Its window; its trailing padding as it takes to hold the last one.
    pub(super) window: Window,
}

impl PooledFrom {
    /// For each place of a window, row by row, the values that the windows have there.
    fn places(&self, lo: &mut Lowering) -> Vec<ValueId> {
        let Window { kernel, stride, pads, .. } = self.window;
        let &[_, rows, columns, _] = lo.em.shape(self.result) else { unreachable!("pools give images") };
        let mut size = lo.em.shape(self.input).to_vec();
        for axis in 0..2 {
            size[axis + 1] -= (-pads[2 * axis + 1]).max(0) as usize;
        }
        let read = lo.em.slice(self.input, &[0; 4], &size);
        let padded = lo.em.pad_spatial(read, pads.map(|pad| pad.max(0)), f32::MIN);
        let mut places = Vec::new();
        for (y, x) in (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| (y, x))) {
            let mut place = padded;
            for (axis, (first, n_out)) in [(y, rows), (x, columns)].into_iter().enumerate() {
                let step = stride[axis] as usize;
                place = lo.em.slice_axis(place, axis + 1, first as usize, (n_out - 1) * step + 1);
                place = lo.em.every(place, axis + 1, step);
            }
            places.push(place);
        }
        places
    }
}

/// `MaxUnpool`.
pub(super) fn max_unpool(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (values, indices) = (node.input(0)?, node.input(1)?);
    let rank = values.shape().len();
    if values.dtype() != DataType::Float || indices.dtype() != DataType::Int64 {
        unsupported!("{:?} values at indices of {:?}", values.dtype(), indices.dtype());
    }
    let pooled = match indices {
        Value::View(view) => lo.pooled.get(&view.value).cloned(),
        Value::Const(_) => None,
    };
    let Some(pooled) = pooled else { unsupported!("indices that no MaxPool of images in the graph gives") };
    let Window { kernel, stride, pads, .. } = pooled.window;
    let extents = lo.em.shape(pooled.input).to_vec();
    let wanted = wanted_extents(node, values.shape())?;
    let from = [&[extents[0], extents[3]][..], &extents[5 - rank..3]].concat();
    if wanted != from || lo.em.shape(pooled.result) != channels_last_extents(values.shape()) {
        unsupported!(
            "a result of shape {wanted:?}, where the indices are those of a tensor of shape {from:?}"
        );
    }
    if (0..2).any(|axis| kernel[axis] > stride[axis]) {
        unsupported!("windows that overlap");
    }
    let z = lo.nhwc(values)?;
    let &[n, rows, columns, c] = lo.em.shape(z) else { invalid!("shape") };
    let nothing = lo.em.scalar(4, 0.0);
    let mut remaining: Option<ValueId> = None;
    let mut planes = Vec::new();
    for place in pooled.places(lo) {
        let em = &mut lo.em;
        let equal = em.compare(dialect::Equal {}, place, pooled.result);
        let first = remaining.map_or(equal, |free| em.compare(dialect::LogicalAnd {}, equal, free));
        planes.push(em.select(first, z, nothing));
        let not_here = em.unary(dialect::LogicalNot {}, equal);
        remaining =
            Some(remaining.map_or(not_here, |free| em.compare(dialect::LogicalAnd {}, not_here, free)));
    }
    // One window after another, with what the stride leaves between them.
    let [sy, sx] = stride.map(|step| step as usize);
    let [kh, kw] = kernel.map(|extent| extent as usize);
    let empty = lo.em.floats([n, rows, columns, c], vec![0.0; n * rows * columns * c]);
    let at = |y: usize, x: usize| if y < kh && x < kw { planes[y * kw + x] } else { empty };
    let tiles: Vec<ValueId> =
        (0..sy).flat_map(|y| (0..sx).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect();
    let joined = lo.em.concat(&tiles, 3);
    let order = channels_last(4);
    let view = View::plain(joined, vec![n, sy * sx * c, rows, columns], &order, DataType::Float);
    let view = lo.reshaped(&view, &[n, sy, sx, c, rows, columns]).transposed(&[0, 3, 4, 1, 5, 2]);
    let view = lo.reshaped(&view, &[n, c, rows * sy, columns * sx]);
    let mut image = lo.in_order(&view, &order);
    for axis in 0..2 {
        let extent = extents[axis + 1];
        let before = pads[2 * axis] as usize;
        let made = lo.em.shape(image)[axis + 1] - before;
        image = lo.em.slice_axis(image, axis + 1, before, made.min(extent));
        image = lo.em.pad_axis(image, axis + 1, (0, extent.saturating_sub(made)), 0.0);
    }
    single(lo.nhwc_result(image, rank))
}

/// The extents of a tensor with a height, channels last.
fn channels_last_extents(shape: &[usize]) -> Vec<usize> {
    match *shape {
        [n, c, w] => vec![n, 1, w, c],
        [n, c, h, w] => vec![n, h, w, c],
        _ => Vec::new(),
    }
}

/// The extents of the result: those that are asked for, else the least that the windows cover.
fn wanted_extents(node: &Node<'_>, shape: &[usize]) -> Lowered<Vec<usize>> {
    let rank = shape.len();
    if let Some(wanted) = node.optional_constant(2, "the output's shape")? {
        let wanted: Option<Vec<usize>> = wanted.as_ints()?.iter().map(|&e| usize::try_from(e).ok()).collect();
        return match wanted {
            Some(wanted) if wanted.len() == rank => Ok(wanted),
            other => invalid!("an output of shape {other:?} for values of shape {shape:?}"),
        };
    }
    let kernel = match node.ints("kernel_shape")? {
        Some(kernel) if matches!(rank, 3 | 4) => spatial(Some(kernel), rank, 1, "kernel_shape")?,
        _ => unsupported!("on rank {rank}"),
    };
    let stride = spatial(node.ints("strides")?, rank, 1, "strides")?;
    let pads = explicit_pads(node, rank)?;
    let mut wanted = shape.to_vec();
    for axis in 0..2 {
        if rank == 3 && axis == 0 {
            continue;
        }
        let n_in = shape[rank + axis - 2] as i64;
        let extent = (n_in - 1) * stride[axis] + kernel[axis] - pads[2 * axis] - pads[2 * axis + 1];
        wanted[rank + axis - 2] = usize::try_from(extent).unwrap_or(0);
    }
    Ok(wanted)
}
