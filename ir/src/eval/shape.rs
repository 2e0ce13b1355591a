//! Ops that move data and compute nothing: concat, pad, reshape, reverse, slice, tile, transpose, gather.

use super::{Args, EvalError, map_elements, zip_elements};
use crate::tensor::{Tensor, TensorData};

/// Steps between neighbours along each axis of a row-major tensor.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Calls `row(offset)` for each row (innermost axis) of a box of extents `shape`, in row-major order, where
/// `offset` is the sum of `at(axis, index)` over the axes but the last.
fn for_each_row(shape: &[usize], at: impl Fn(usize, usize) -> isize, mut row: impl FnMut(isize)) {
    let Some((_, outer)) = shape.split_last() else {
        return row(0);
    };
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; outer.len()];
    loop {
        row(index.iter().enumerate().map(|(axis, &i)| at(axis, i)).sum());
        let Some(axis) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else {
            return;
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Elements of `values` in a new order: each row begins where [`for_each_row`] says, plus `base`, and steps
/// by `step`.
fn gather_rows<T: Copy>(
    values: &[T],
    shape: &[usize],
    at: impl Fn(usize, usize) -> isize,
    base: isize,
    step: isize,
) -> Vec<T> {
    let n_columns = shape.last().copied().unwrap_or(1) as isize;
    let mut out = Vec::with_capacity(shape.iter().product());
    for_each_row(shape, at, |offset| {
        let first = base + offset;
        match step {
            1 => out.extend_from_slice(&values[first as usize..(first + n_columns) as usize]),
            step => out.extend((0..n_columns).map(|i| values[(first + i * step) as usize])),
        }
    });
    out
}

pub(super) fn concat(args: &Args<'_>, axis: i32) -> Result<Tensor, EvalError> {
    let Some(first) = args.operands.first() else {
        return Err(args.shape_error("needs at least one operand"));
    };
    let axis = args.axis(axis)?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    for operand in args.operands {
        let other = operand.shape();
        let fits = |i: usize| i == axis || other[i] == shape[i];
        if other.len() != shape.len() || !(0..other.len()).all(fits) {
            return Err(args.shape_error(format!("{other:?} does not continue {:?}", first.shape())));
        }
        shape[axis] += other[axis];
    }
    let n_outer: usize = shape[..axis].iter().product();
    let empty = map_elements!(first.data(), v => Vec::with_capacity(v.len() * args.operands.len()));
    let mut data = empty;
    for outer in 0..n_outer {
        for operand in args.operands {
            let run: usize = operand.shape()[axis..].iter().product();
            data = zip_elements!(data, operand.data(), |out, v| {
                let mut out = out;
                out.extend_from_slice(&v[outer * run..(outer + 1) * run]);
                out
            })
            .ok_or_else(|| args.elem_error())?;
        }
    }
    args.tensor(shape, data)
}

pub(super) fn pad(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let input = args.operand(0);
    let padding = args.extents(1)?;
    let rank = input.shape().len();
    if padding.len() != 2 * rank || args.operand(2).n_elements() != 1 {
        return Err(args.shape_error(format!("needs {} extents and one value", 2 * rank)));
    }
    let grown = |axis: usize| {
        let extent = input.shape()[axis].checked_add(padding[2 * axis])?;
        extent.checked_add(padding[2 * axis + 1])
    };
    let shape: Option<Vec<usize>> = (0..rank).map(grown).collect();
    let n_elements = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent));
    let limit = isize::MAX as usize / 8;
    let shape = shape.filter(|shape| n_elements(shape).is_some_and(|n| n <= limit));
    let shape = shape.ok_or_else(|| args.shape_error("the result is too large"))?;
    let steps = strides(&shape);
    let base: usize = (0..rank).map(|axis| padding[2 * axis] * steps[axis]).sum();
    let n_columns = input.shape().last().copied().unwrap_or(1);
    let data = zip_elements!(input.data(), args.operand(2).data(), |v, constant| {
        let mut out = vec![constant[0]; shape.iter().product()];
        let mut rows = v.chunks(n_columns.max(1));
        for_each_row(
            input.shape(),
            |axis, i| (i * steps[axis]) as isize,
            |offset| {
                let at = base + offset as usize;
                if let Some(row) = rows.next() {
                    out[at..at + n_columns].copy_from_slice(row);
                }
            },
        );
        out
    });
    args.tensor(shape, data.ok_or_else(|| args.elem_error())?)
}

pub(super) fn reshape(args: &Args<'_>) -> Result<Tensor, EvalError> {
    args.tensor(args.extents(1)?, args.operand(0).data().clone())
}

pub(super) fn reverse(args: &Args<'_>, axis: i32) -> Result<Tensor, EvalError> {
    let axis = args.axis(axis)?;
    let shape = args.operand(0).shape();
    let steps: Vec<isize> = strides(shape).iter().map(|&s| s as isize).collect();
    let turned = |a: usize, i: usize| if a == axis { shape[a] - 1 - i } else { i };
    let last = shape.len() - 1;
    let (base, step) = if axis == last { (shape[last] as isize - 1, -1) } else { (0, 1) };
    let data = map_elements!(args.operand(0).data(), v => {
        gather_rows(v, shape, |a, i| turned(a, i) as isize * steps[a], base, step)
    });
    args.tensor(shape.to_vec(), data)
}

pub(super) fn slice(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let shape = args.operand(0).shape();
    let (start, size) = (args.extents(1)?, args.extents(2)?);
    let inside = |axis: usize| start[axis].checked_add(size[axis]).is_some_and(|end| end <= shape[axis]);
    if start.len() != shape.len() || size.len() != shape.len() || !(0..shape.len()).all(inside) {
        return Err(args.shape_error(format!("the box at {start:?} of {size:?} is not inside {shape:?}")));
    }
    let steps = strides(shape);
    let base: usize = start.iter().zip(&steps).map(|(at, step)| at * step).sum();
    let data = map_elements!(args.operand(0).data(), v => {
        gather_rows(v, &size, |axis, i| (i * steps[axis]) as isize, base as isize, 1)
    });
    args.tensor(size, data)
}

pub(super) fn tile(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let shape = args.operand(0).shape();
    let multiples = args.extents(1)?;
    if multiples.len() != shape.len() {
        return Err(args.shape_error(format!("needs {} multiples", shape.len())));
    }
    // An axis of extent e repeated m times is the axes [m, e], of which the first does not move.
    let tiled: Option<Vec<usize>> = shape.iter().zip(&multiples).map(|(&e, &m)| e.checked_mul(m)).collect();
    let limit = isize::MAX as usize / 8;
    let n_elements = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent));
    let tiled = tiled.filter(|shape| n_elements(shape).is_some_and(|n| n <= limit));
    let tiled = tiled.ok_or_else(|| args.shape_error("the result is too large"))?;
    let split: Vec<usize> = multiples.iter().zip(shape).flat_map(|(&m, &e)| [m, e]).collect();
    let steps = strides(shape);
    let at = |axis: usize, i: usize| if axis % 2 == 1 { (i * steps[axis / 2]) as isize } else { 0 };
    let data = map_elements!(args.operand(0).data(), v => gather_rows(v, &split, at, 0, 1));
    args.tensor(tiled, data)
}

pub(super) fn transpose(args: &Args<'_>, perms: &[i32]) -> Result<Tensor, EvalError> {
    let shape = args.operand(0).shape();
    let axes: Vec<usize> = perms.iter().filter_map(|&p| usize::try_from(p).ok()).collect();
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) || perms.len() != shape.len() {
        return Err(args.shape_error(format!("{perms:?} does not permute {} axes", shape.len())));
    }
    let in_steps = strides(shape);
    let out_shape: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let steps: Vec<isize> = axes.iter().map(|&axis| in_steps[axis] as isize).collect();
    let step = steps.last().copied().unwrap_or(1);
    let data = map_elements!(args.operand(0).data(), v => {
        gather_rows(v, &out_shape, |axis, i| i as isize * steps[axis], 0, step)
    });
    args.tensor(out_shape, data)
}

pub(super) fn gather(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let [n, k, c] = args.dims(0)?;
    let [n_indices, w] = args.dims(1)?;
    if n != n_indices {
        return Err(args.shape_error(format!("{n} batches of values, {n_indices} of indices")));
    }
    let indices = args.operand(1).as_i32().ok_or_else(|| args.elem_error())?;
    let inside = |&&index: &&i32| usize::try_from(index).map_or(true, |index| index >= k);
    if let Some(index) = indices.iter().find(inside) {
        return Err(args.data_error(format!("index {index} is not among {k} values")));
    }
    let data = map_elements!(args.operand(0).data(), v => {
        let mut out = Vec::with_capacity(n * w * c);
        for (i, &index) in indices.iter().enumerate() {
            let at = (i / w * k + index as usize) * c;
            out.extend_from_slice(&v[at..at + c]);
        }
        out
    });
    args.tensor(vec![n, w, c], data)
}
