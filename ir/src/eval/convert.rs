//! Ops that map each element alone, by the element type: clamp, cast, negate, table.

use super::elementwise::Number;
use super::parallel::map;
use super::{Args, EvalError, float_to_int};
use crate::attr::Attribute;
use crate::dialect::Clamp;
use crate::tensor::{Tensor, TensorData};
use crate::types::ElemType;

/// `output_zp - (x - input1_zp)`, saturating; floats just change sign.
pub(super) fn negate(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let input = args.operand(0);
    let (input_zp, output_zp) = (args.zero_point(1)?, args.zero_point(2)?);
    let data = match (input.data(), input.elem().int_range()) {
        (TensorData::F32(x), _) => TensorData::F32(map(x, |x| -x)),
        (_, Some((least, greatest)))
            if matches!(input.elem(), ElemType::I8 | ElemType::I16 | ElemType::I32) =>
        {
            let values = args.ints(0)?;
            let negated = map(&values, |x| (output_zp - (x - input_zp)).clamp(least, greatest));
            TensorData::from_ints(input.elem(), negated).ok_or_else(|| args.elem_error())?
        }
        _ => return Err(args.elem_error()),
    };
    args.tensor(input.shape().to_vec(), data)
}

/// `min(max(x, min_val), max_val)`; NaN follows the mode.
pub(super) fn clamp(args: &Args<'_>, op: &Clamp) -> Result<Tensor, EvalError> {
    let input = args.operand(0);
    let bounds_error = || args.shape_error("the bounds are not of the element type, or cross");
    /// `x` between bounds, as `minimum(maximum(x, least), greatest)`.
    fn clip<T: Number>(values: &[T], op: &Clamp, least: T, greatest: T) -> Vec<T> {
        map(values, |x| x.greater_of(least, op.nan_mode).lesser_of(greatest, op.nan_mode))
    }
    let data = match (input.data(), &op.min_val, &op.max_val) {
        (TensorData::F32(x), &Attribute::Float(least, _), &Attribute::Float(greatest, _)) => {
            if least > greatest {
                return Err(bounds_error());
            }
            TensorData::F32(clip(x, op, least as f32, greatest as f32))
        }
        (data, &Attribute::Int(least, _), &Attribute::Int(greatest, _)) => {
            let (lowest, highest) = data.elem().int_range().ok_or_else(bounds_error)?;
            if least > greatest || least < lowest || greatest > highest {
                return Err(bounds_error());
            }
            match data {
                TensorData::I8(x) => TensorData::I8(clip(x, op, least as i8, greatest as i8)),
                TensorData::I16(x) => TensorData::I16(clip(x, op, least as i16, greatest as i16)),
                TensorData::I32(x) => TensorData::I32(clip(x, op, least as i32, greatest as i32)),
                _ => return Err(args.elem_error()),
            }
        }
        _ => return Err(bounds_error()),
    };
    args.tensor(input.shape().to_vec(), data)
}

/// Conversion to the result's element type: floats round to nearest even and saturate (NaN gives 0), integers
/// are truncated or extended, and `i1` is whether the value is not zero.
pub(super) fn cast(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let input = args.operand(0);
    let to = args.result_elem();
    let data = match (input.data(), to) {
        (data, to) if data.elem() == to => data.clone(),
        (TensorData::F32(x), ElemType::I1) => TensorData::I1(map(x, |x| x != 0.0)),
        (TensorData::F32(x), ElemType::I8) => TensorData::I8(map(x, |x| float_to_int(x, to) as i8)),
        (TensorData::F32(x), ElemType::I16) => TensorData::I16(map(x, |x| float_to_int(x, to) as i16)),
        (TensorData::F32(x), ElemType::I32) => TensorData::I32(map(x, |x| float_to_int(x, to) as i32)),
        (TensorData::F32(x), _) => {
            let values = x.iter().map(|&x| float_to_int(x, to));
            TensorData::from_ints(to, values).ok_or_else(|| args.elem_error())?
        }
        (TensorData::I8(x), ElemType::F32) => TensorData::F32(map(x, f32::from)),
        (TensorData::I16(x), ElemType::F32) => TensorData::F32(map(x, f32::from)),
        (TensorData::I32(x), ElemType::F32) => TensorData::F32(map(x, |x| x as f32)),
        (_, ElemType::F32) => TensorData::F32(args.ints(0)?.iter().map(|&x| x as f32).collect()),
        (_, to) => TensorData::from_ints(to, args.ints(0)?).ok_or_else(|| args.elem_error())?,
    };
    args.tensor(input.shape().to_vec(), data)
}

/// `i8`: the entry at `x + 128` of 256. `i16`: between entries `(x + 32768) >> 7` and the next of 513, with
/// the low 7 bits as fraction, to `i32` scaled by 128.
pub(super) fn table(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let (input, table) = (args.operand(0), args.operand(1));
    let n_entries = table.n_elements();
    let data = match (input.data(), table.data()) {
        (TensorData::I8(x), TensorData::I8(table)) if n_entries == 256 => {
            TensorData::I8(map(x, |x| table[(i32::from(x) + 128) as usize]))
        }
        (TensorData::I16(x), TensorData::I16(table)) if n_entries == 513 => TensorData::I32(map(x, |x| {
            let x = i32::from(x);
            let index = ((x + 32768) >> 7) as usize;
            let (base, next) = (i32::from(table[index]), i32::from(table[index + 1]));
            (base << 7) + (next - base) * (x & 0x7f)
        })),
        _ => return Err(args.elem_error()),
    };
    args.tensor(input.shape().to_vec(), data)
}
