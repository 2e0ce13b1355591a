//! Rules of reductions and of ops that move data.

use super::operands::Operands;
use super::tensor_type;
use crate::diag::{Diagnostic, code};
use crate::types::ElemType::{self, F32, I1, I8, I16, I32};
use crate::types::TensorType;

/// Elements that TOSA moves about.
const MOVABLE: [ElemType; 5] = [I1, I8, I16, I32, F32];

pub(super) fn argmax(cx: &Operands<'_>, axis: i32) -> Result<TensorType, Diagnostic> {
    let mut ty = cx.elem(0, &[I8, I16, F32])?.clone();
    ty.shape.remove(cx.axis(axis)?);
    Ok(ty.with_elem(I32))
}

pub(super) fn reduce(cx: &Operands<'_>, axis: i32, allowed: &[ElemType]) -> Result<TensorType, Diagnostic> {
    let mut ty = cx.elem(0, allowed)?.clone();
    ty.shape[cx.axis(axis)?] = 1;
    Ok(ty)
}

pub(super) fn concat(cx: &Operands<'_>, axis: i32) -> Result<TensorType, Diagnostic> {
    if cx.len() == 0 {
        return Err(cx.error(code::ARITY, "needs at least one operand"));
    }
    let first = cx.elem(0, &MOVABLE)?;
    let axis = cx.axis(axis)?;
    let mut shape: Vec<i128> = first.shape.iter().map(|&e| e as i128).collect();
    for index in 1..cx.len() {
        let ty = cx.elem(index, &[first.elem])?;
        let fits = |i: usize| i == axis || ty.shape[i] == first.shape[i];
        if ty.rank() != first.rank() || !(0..ty.rank()).all(fits) {
            let message = format!("{}: {ty} does not continue {first} along axis {axis}", cx.name(index));
            return Err(cx.error(code::SHAPE, message));
        }
        shape[axis] += ty.shape[axis] as i128;
    }
    tensor_type(cx, &shape, first.elem)
}

pub(super) fn pad(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = cx.elem(0, &MOVABLE)?;
    let padding = cx.shape_values(1, 2 * ty.rank())?;
    if padding.iter().any(|&p| p < 0) {
        return Err(cx.error(code::VALUE_RANGE, format!("padding {padding:?} must not be negative")));
    }
    let value = cx.elem(2, &[ty.elem])?;
    if value.shape != [1] {
        let message = format!("{} must have one element, found {value}", cx.name(2));
        return Err(cx.error(code::SHAPE, message));
    }
    cx.constant(2)?;
    let grown = |(&extent, p): (&usize, &[i64])| extent as i128 + i128::from(p[0]) + i128::from(p[1]);
    let shape: Vec<i128> = ty.shape.iter().zip(padding.chunks_exact(2)).map(grown).collect();
    tensor_type(cx, &shape, ty.elem)
}

pub(super) fn reshape(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = cx.elem(0, &MOVABLE)?;
    let shape = cx.shape_values(1, cx.shape_len(1)?)?;
    let shape: Vec<i128> = shape.into_iter().map(i128::from).collect();
    let out = tensor_type(cx, &shape, ty.elem)?;
    match out.n_elements() == ty.n_elements() {
        true => Ok(out),
        false => Err(cx.error(code::SHAPE, format!("{ty} and {out} differ in their number of elements"))),
    }
}

pub(super) fn reverse(cx: &Operands<'_>, axis: i32) -> Result<TensorType, Diagnostic> {
    cx.axis(axis)?;
    cx.elem(0, &MOVABLE).cloned()
}

pub(super) fn slice(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = cx.elem(0, &MOVABLE)?;
    let (start, size) = (cx.shape_values(1, ty.rank())?, cx.shape_values(2, ty.rank())?);
    for (axis, &extent) in ty.shape.iter().enumerate() {
        let (start, size) = (i128::from(start[axis]), i128::from(size[axis]));
        if start < 0 || size < 1 || start + size > extent as i128 {
            let message = format!("axis {axis}: {size} elements from {start} do not lie within {extent}");
            return Err(cx.error(code::VALUE_RANGE, message));
        }
    }
    let shape: Vec<i128> = size.into_iter().map(i128::from).collect();
    tensor_type(cx, &shape, ty.elem)
}

pub(super) fn tile(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = cx.elem(0, &MOVABLE)?;
    let multiples = cx.shape_values(1, ty.rank())?;
    if multiples.iter().any(|&m| m < 1) {
        return Err(cx.error(code::VALUE_RANGE, format!("multiples {multiples:?} must be at least 1")));
    }
    let shape: Vec<i128> =
        ty.shape.iter().zip(multiples).map(|(&extent, m)| extent as i128 * i128::from(m)).collect();
    tensor_type(cx, &shape, ty.elem)
}

pub(super) fn transpose(cx: &Operands<'_>, perms: &[i32]) -> Result<TensorType, Diagnostic> {
    let ty = cx.elem(0, &MOVABLE)?;
    let mut sorted = perms.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..i32::try_from(ty.rank()).unwrap_or(i32::MAX)) {
        let message = format!("perms {perms:?} must permute the {} axes of {ty}", ty.rank());
        return Err(cx.error(code::VALUE_RANGE, message));
    }
    let shape: Vec<usize> = perms.iter().map(|&axis| ty.shape[axis as usize]).collect();
    Ok(TensorType::new(shape, ty.elem))
}

pub(super) fn gather(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let elem = cx.elem(0, &MOVABLE)?.elem;
    cx.elem(1, &[I32])?;
    let [n, _, c] = cx.dims(0)?;
    let [indices_n, w] = cx.dims(1)?;
    cx.expect_extent(1, "batches", indices_n, n)?;
    tensor_type(cx, &[n, w, c], elem)
}
