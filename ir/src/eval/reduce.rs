//! Sums, products, extremes and the index of the greatest along one axis.

use super::elementwise::Number;
use super::{Args, EvalError};
use crate::attr::NanMode;
use crate::tensor::{Tensor, TensorData};

/// Folds `values`, seen as `[outer, extent, inner]`, over the middle axis, in order of its index.
fn fold<T: Copy>(values: &[T], extent: usize, inner: usize, f: impl Fn(T, T) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len() / extent.max(1));
    for slab in values.chunks(extent * inner) {
        let mut rows = slab.chunks(inner);
        let at = out.len();
        out.extend_from_slice(rows.next().unwrap_or_default());
        for row in rows {
            for (acc, &value) in out[at..].iter_mut().zip(row) {
                *acc = f(*acc, value);
            }
        }
    }
    out
}

/// The extents around `axis`: `(extent, inner)`, neither of them zero.
fn around(args: &Args<'_>, axis: usize) -> Result<(usize, usize), EvalError> {
    let shape = args.operand(0).shape();
    if shape.contains(&0) {
        return Err(args.shape_error(format!("the operand is empty: {shape:?}")));
    }
    Ok((shape[axis], shape[axis + 1..].iter().product()))
}

/// Reduces by `f` for every numeric type.
macro_rules! reduce {
    ($args:expr, $axis:expr, |$a:ident, $b:ident| $body:expr) => {{
        let args: &Args<'_> = $args;
        let axis = args.axis($axis)?;
        let (extent, inner) = around(args, axis)?;
        let data = match args.operand(0).data() {
            TensorData::I8(v) => TensorData::I8(fold(v, extent, inner, |$a, $b| $body)),
            TensorData::I16(v) => TensorData::I16(fold(v, extent, inner, |$a, $b| $body)),
            TensorData::I32(v) => TensorData::I32(fold(v, extent, inner, |$a, $b| $body)),
            TensorData::F32(v) => TensorData::F32(fold(v, extent, inner, |$a, $b| $body)),
            _ => return Err(args.elem_error()),
        };
        let mut shape = args.operand(0).shape().to_vec();
        shape[axis] = 1;
        args.tensor(shape, data)
    }};
}

pub(super) fn sum(args: &Args<'_>, axis: i32) -> Result<Tensor, EvalError> {
    reduce!(args, axis, |a, b| a.plus(b))
}

pub(super) fn product(args: &Args<'_>, axis: i32) -> Result<Tensor, EvalError> {
    reduce!(args, axis, |a, b| a.times(b))
}

pub(super) fn max(args: &Args<'_>, axis: i32, nan_mode: NanMode) -> Result<Tensor, EvalError> {
    reduce!(args, axis, |a, b| a.greater_of(b, nan_mode))
}

pub(super) fn min(args: &Args<'_>, axis: i32, nan_mode: NanMode) -> Result<Tensor, EvalError> {
    reduce!(args, axis, |a, b| a.lesser_of(b, nan_mode))
}

/// The first index of the greatest element along `axis`. By mode, the first NaN is the greatest, or NaN is
/// passed over (index 0 if nothing else is there).
pub(super) fn argmax(args: &Args<'_>, axis: i32, nan_mode: NanMode) -> Result<Tensor, EvalError> {
    /// Whether `value` displaces `best`.
    fn displaces<T: Number>(value: T, best: T, nan_mode: NanMode) -> bool {
        match (value.is_nan(), best.is_nan()) {
            (false, false) => value > best,
            (value_nan, best_nan) => value_nan != best_nan && value_nan == (nan_mode == NanMode::Propagate),
        }
    }
    fn indices<T: Number>(values: &[T], extent: usize, inner: usize, nan_mode: NanMode) -> Vec<i32> {
        let mut out = Vec::with_capacity(values.len() / extent);
        for slab in values.chunks(extent * inner) {
            for i in 0..inner {
                let mut best = 0;
                for index in 1..extent {
                    if displaces(slab[index * inner + i], slab[best * inner + i], nan_mode) {
                        best = index;
                    }
                }
                out.push(best as i32);
            }
        }
        out
    }
    let axis = args.axis(axis)?;
    let (extent, inner) = around(args, axis)?;
    let data = match args.operand(0).data() {
        TensorData::I8(v) => indices(v, extent, inner, nan_mode),
        TensorData::I16(v) => indices(v, extent, inner, nan_mode),
        TensorData::I32(v) => indices(v, extent, inner, nan_mode),
        TensorData::F32(v) => indices(v, extent, inner, nan_mode),
        _ => return Err(args.elem_error()),
    };
    let mut shape = args.operand(0).shape().to_vec();
    shape.remove(axis);
    args.tensor(shape, TensorData::I32(data))
}
