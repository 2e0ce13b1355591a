//! Fixed-point scaling: multiply by an integer, shift right, round.

use super::parallel::filled;
use super::{Args, EvalError};
use crate::attr::RoundingMode;
use crate::dialect::Rescale;
use crate::tensor::{Tensor, TensorData};
use crate::types::ElemType;

/// A positive factor `multiplier / 2^shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Numerator; a 16-bit scale uses 15 bits of it.
    pub multiplier: i32,
    /// Binary logarithm of the denominator, `2..=62`.
    pub shift: u32,
}

/// TOSA's `apply_scale_32`: `(value * multiplier + 2^(shift-1)) >> shift` in 64 bits. With `double_round`,
/// shifts above 31 also round away from zero at bit 30, as TFLite does.
///
/// TOSA requires `-2^(shift-1) <= value < 2^(shift-1)`, so that the result fits 32 bits; beyond, what takes
/// it saturates, here as on the machine.
///
/// # Source
/// TOSA 1.0, "Scaling operations".
pub fn apply_scale_32(value: i32, scale: Scale, double_round: bool) -> i64 {
    let mut round = 1_i64 << (scale.shift - 1);
    if double_round && scale.shift > 31 {
        round += if value >= 0 { 1 << 30 } else { -(1 << 30) };
    }
    let product = i64::from(value) * i64::from(scale.multiplier);
    product.wrapping_add(round) >> scale.shift
}

/// TOSA's `apply_scale_16`: `(value * multiplier + 2^(shift-1)) >> shift` for a 48-bit `value` and a 15-bit
/// multiplier.
///
/// # Source
/// TOSA 1.0, "Scaling operations".
pub fn apply_scale_16(value: i64, scale: Scale) -> i64 {
    let round = 1_i64 << (scale.shift - 1);
    value.wrapping_mul(i64::from(scale.multiplier)).wrapping_add(round) >> scale.shift
}

/// TOSA's `reciprocal_scale`: the scale nearest above `1 / value`, as AVG_POOL2D divides.
///
/// `k = ceil(log2(value))`, `multiplier = ((2^30 + 1) * 2^k) / value`, `shift = 30 + k`; `None` if `value` is
/// 0.
///
/// # Source
/// TOSA 1.0, "Scaling operations".
pub fn reciprocal_scale(value: u32) -> Option<Scale> {
    let k = 32 - value.checked_sub(1)?.leading_zeros();
    let numerator = ((1_u64 << 30) + 1) << k;
    Some(Scale { multiplier: (numerator / u64::from(value)) as i32, shift: 30 + k })
}

/// The integer at `index`, zero-extended if `unsigned`.
fn int_at(data: &TensorData, index: usize, unsigned: bool) -> Option<i64> {
    let value = data.int_at(index)?;
    Some(match data.elem() {
        ElemType::I8 if unsigned => i64::from(value as u8),
        ElemType::I16 if unsigned => i64::from(value as u16),
        _ => value,
    })
}

pub(super) fn rescale(args: &Args<'_>, op: &Rescale) -> Result<Tensor, EvalError> {
    let input = args.operand(0);
    let scales = checked_scales(args, op)?;
    let scaling = Scaling::new(args, op)?;
    let out_elem = args.result_elem();
    macro_rules! to {
        ($values:expr, |$v:ident| $widen:expr) => {
            match out_elem {
                ElemType::I8 => {
                    TensorData::I8(each($values, &scales, |$v, s| scaling.apply($widen, s) as i8))
                }
                ElemType::I16 => {
                    TensorData::I16(each($values, &scales, |$v, s| scaling.apply($widen, s) as i16))
                }
                _ => TensorData::I32(each($values, &scales, |$v, s| scaling.apply($widen, s) as i32)),
            }
        };
    }
    let data = match input.data() {
        TensorData::I8(x) if op.input_unsigned => to!(x, |v| i64::from(v as u8)),
        TensorData::I8(x) => to!(x, |v| i64::from(v)),
        TensorData::I16(x) if op.input_unsigned => to!(x, |v| i64::from(v as u16)),
        TensorData::I16(x) => to!(x, |v| i64::from(v)),
        TensorData::I32(x) => to!(x, |v| i64::from(v)),
        TensorData::I48(x) => to!(x, |v| v),
        _ => return Err(args.elem_error()),
    };
    args.tensor(input.shape().to_vec(), data)
}

/// `f` of each element, with the scale of its channel.
fn each<A: Copy + Sync, T: Clone + Default + Send>(
    values: &[A],
    scales: &[Scale],
    f: impl Fn(A, Scale) -> T + Sync,
) -> Vec<T> {
    let len = scales.len().max(1) * 1024;
    filled(values.len(), len, &|chunk, out| {
        let values = values[chunk * len..].iter().zip(scales.iter().cycle());
        for (out, (&value, &scale)) in out.iter_mut().zip(values) {
            *out = f(value, scale);
        }
    })
}

/// What a rescale does to an element, but for its scale.
struct Scaling {
    input_zp: i64,
    output_zp: i64,
    least: i64,
    greatest: i64,
    scale32: bool,
    double_round: bool,
}

impl Scaling {
    fn new(args: &Args<'_>, op: &Rescale) -> Result<Self, EvalError> {
        for index in [3, 4] {
            args.zero_point(index)?;
        }
        let zero_point = |index: usize, unsigned| {
            int_at(args.operand(index).data(), 0, unsigned).ok_or_else(|| args.elem_error())
        };
        let (input_zp, output_zp) = (zero_point(3, op.input_unsigned)?, zero_point(4, op.output_unsigned)?);
        let (least, greatest) = match (args.result_elem(), op.output_unsigned) {
            (ElemType::I8, true) => (0, i64::from(u8::MAX)),
            (ElemType::I16, true) => (0, i64::from(u16::MAX)),
            (elem @ (ElemType::I8 | ElemType::I16 | ElemType::I32), false) => {
                elem.int_range().ok_or_else(|| args.elem_error())?
            }
            _ => return Err(args.elem_error()),
        };
        let input_fits = match args.operand(0).elem() {
            ElemType::I8 | ElemType::I16 => true,
            ElemType::I32 => !op.input_unsigned,
            ElemType::I48 => !op.scale32 && !op.input_unsigned,
            ElemType::I1 | ElemType::I64 | ElemType::Index | ElemType::F32 => false,
        };
        let (scale32, double_round) = (op.scale32, op.rounding_mode == RoundingMode::DoubleRound);
        if !input_fits || (double_round && !scale32) {
            return Err(args.elem_error());
        }
        Ok(Self { input_zp, output_zp, least, greatest, scale32, double_round })
    }

    fn apply(&self, value: i64, scale: Scale) -> i64 {
        let value = value - self.input_zp;
        let scaled = if self.scale32 {
            apply_scale_32(value as i32, scale, self.double_round)
        } else {
            apply_scale_16(value, scale)
        };
        (scaled + self.output_zp).clamp(self.least, self.greatest)
    }
}

/// The scale of the tensor, or of each channel.
fn checked_scales(args: &Args<'_>, op: &Rescale) -> Result<Vec<Scale>, EvalError> {
    let (multipliers, shifts) = (args.ints(1)?, args.ints(2)?);
    let n_scales = if op.per_channel { args.operand(0).shape().last().copied().unwrap_or(1) } else { 1 };
    if multipliers.len() != n_scales || shifts.len() != n_scales {
        let found = format!("{} multipliers and {} shifts", multipliers.len(), shifts.len());
        return Err(args.shape_error(format!("needs {n_scales} of each, found {found}")));
    }
    let scales =
        multipliers.iter().zip(&shifts).map(|(&multiplier, &shift)| checked_scale(multiplier, shift));
    let error = || args.shape_error("multipliers must not be negative and shifts be 2 to 62");
    scales.collect::<Option<Vec<Scale>>>().ok_or_else(error)
}

fn checked_scale(multiplier: i64, shift: i64) -> Option<Scale> {
    let multiplier = i32::try_from(multiplier).ok().filter(|&m| m >= 0)?;
    let shift = u32::try_from(shift).ok().filter(|s| (2..=62).contains(s))?;
    Some(Scale { multiplier, shift })
}
