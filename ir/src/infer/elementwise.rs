//! Rules of elementwise ops.

use super::operands::Operands;
use crate::attr::{Attribute, RoundingMode};
use crate::diag::{Diagnostic, code};
use crate::dialect::{Clamp, Rescale};
use crate::types::ElemType::{self, F32, I1, I8, I16, I32, I48};
use crate::types::TensorType;

/// The shape of operands `first..` broadcast together: equal ranks, extents of 1 stretch.
fn broadcast(cx: &Operands<'_>, indices: &[usize]) -> Result<Vec<usize>, Diagnostic> {
    let mut shape = cx.tensor(indices[0])?.shape.clone();
    for &index in &indices[1..] {
        let other = cx.tensor(index)?;
        if other.rank() != shape.len() {
            let message = format!(
                "{} has rank {}, the operands before it {}: ranks must be equal",
                cx.name(index),
                other.rank(),
                shape.len()
            );
            return Err(cx
                .error(code::SHAPE, message)
                .help("give it leading extents of 1 with `tosa.reshape`"));
        }
        for (axis, (extent, &other)) in shape.iter_mut().zip(&other.shape).enumerate() {
            match (*extent, other) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *extent = b,
                (a, b) => {
                    let message = format!("extents {a} and {b} of axis {axis} do not broadcast");
                    return Err(cx.error(code::SHAPE, message));
                }
            }
        }
    }
    Ok(shape)
}

pub(super) fn unary(cx: &Operands<'_>, allowed: &[ElemType]) -> Result<TensorType, Diagnostic> {
    cx.elem(0, allowed).cloned()
}

pub(super) fn binary(cx: &Operands<'_>, allowed: &[ElemType]) -> Result<TensorType, Diagnostic> {
    let elem = cx.elem(0, allowed)?.elem;
    cx.elem(1, &[elem])?;
    Ok(TensorType::new(broadcast(cx, &[0, 1])?, elem))
}

pub(super) fn mul(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = binary(cx, &[I8, I16, I32, F32])?;
    let shift_ty = cx.elem(2, &[I8])?;
    if shift_ty.shape != [1] {
        return Err(cx.error(code::SHAPE, format!("{} must be tensor<1xi8>, found {shift_ty}", cx.name(2))));
    }
    let shift = cx.ints(2)?[0];
    let most = if ty.elem == I32 { 63 } else { 0 };
    if !(0..=most).contains(&shift) {
        let message = format!("shift {shift} must lie in 0..={most} for {}", ty.elem);
        return Err(cx.error(code::VALUE_RANGE, message));
    }
    Ok(if ty.elem == F32 { ty } else { ty.with_elem(I32) })
}

pub(super) fn negate(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = unary(cx, &[I8, I16, I32, F32])?;
    cx.zero_point(1, ty.elem, false)?;
    cx.zero_point(2, ty.elem, false)?;
    Ok(ty)
}

pub(super) fn clamp(cx: &Operands<'_>, op: &Clamp) -> Result<TensorType, Diagnostic> {
    let ty = unary(cx, &[I8, I16, F32])?;
    let ordered = match (&op.min_val, &op.max_val) {
        (Attribute::Int(min, a), Attribute::Int(max, b)) if *a == ty.elem && *b == ty.elem => {
            let (least, greatest) = ty.elem.int_range().unwrap_or((0, 0));
            least <= *min && min <= max && *max <= greatest
        }
        (Attribute::Float(min, Some(F32)), Attribute::Float(max, Some(F32))) if ty.elem == F32 => min <= max,
        _ => {
            let message = format!("min_val and max_val must be numbers of {}", ty.elem);
            return Err(cx.error(code::OPERAND_TYPE, message));
        }
    };
    match ordered {
        true => Ok(ty),
        false => Err(cx.error(code::VALUE_RANGE, "min_val must not be above max_val, and both must fit")),
    }
}

pub(super) fn select(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    cx.elem(0, &[I1])?;
    let elem = cx.elem(1, &[I1, I8, I16, I32, F32])?.elem;
    cx.elem(2, &[elem])?;
    Ok(TensorType::new(broadcast(cx, &[0, 1, 2])?, elem))
}

pub(super) fn table(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let ty = unary(cx, &[I8, I16])?;
    cx.elem(1, &[ty.elem])?;
    let (entries, elem) = if ty.elem == I8 { (256, I8) } else { (513, I32) };
    let [n] = cx.dims(1)?;
    cx.expect_extent(1, "entries", n, entries)?;
    Ok(ty.with_elem(elem))
}

pub(super) fn rescale(
    cx: &Operands<'_>,
    op: &Rescale,
    elem: Option<ElemType>,
) -> Result<TensorType, Diagnostic> {
    let ty = unary(cx, &[I8, I16, I32, I48])?;
    let out = match elem {
        Some(elem @ (I8 | I16 | I32)) => elem,
        Some(elem) => {
            return Err(
                cx.error(code::OPERAND_TYPE, format!("the result must be of i8, i16 or i32, not {elem}"))
            );
        }
        None => return Err(cx.error(code::RESULT_TYPE, "the result's element type must be given")),
    };
    let bad = |message: &str| Err(cx.error(code::VALUE_RANGE, message));
    if op.scale32 && ty.elem == I48 {
        return bad("an i48 input needs scale32 = false");
    }
    if op.rounding_mode == RoundingMode::DoubleRound && !op.scale32 {
        return bad("DOUBLE_ROUND needs scale32 = true");
    }
    if op.input_unsigned && op.output_unsigned {
        return bad("input and output cannot both be unsigned");
    }
    if op.input_unsigned && matches!(ty.elem, I32 | I48) || op.output_unsigned && out == I32 {
        return bad("only i8 and i16 can be unsigned");
    }
    if op.input_unsigned && out == I32 || op.output_unsigned && matches!(ty.elem, I32 | I48) {
        return bad("an unsigned side is rescaled from or to i8 and i16 only");
    }
    cx.zero_point(3, ty.elem, op.input_unsigned)?;
    cx.zero_point(4, out, op.output_unsigned)?;
    let channels = match (op.per_channel, ty.shape.last()) {
        (false, _) => 1,
        (true, Some(&channels)) => channels as i128,
        (true, None) => return Err(cx.error(code::SHAPE, "per_channel needs an input of rank 1 or more")),
    };
    cx.elem(1, &[if op.scale32 { I32 } else { I16 }])?;
    cx.elem(2, &[I8])?;
    for index in [1, 2] {
        let [n] = cx.dims(index)?;
        cx.expect_extent(index, "elements", n, channels)?;
    }
    if let Some(multiplier) = cx.ints(1)?.into_iter().find(|&m| m < 0) {
        return bad(&format!("multiplier {multiplier} must not be negative"));
    }
    if let Some(shift) = cx.ints(2)?.into_iter().find(|s| !(2..=62).contains(s)) {
        return bad(&format!("shift {shift} must lie in 2..=62"));
    }
    Ok(ty.with_elem(out))
}

pub(super) fn cast(cx: &Operands<'_>, elem: Option<ElemType>) -> Result<TensorType, Diagnostic> {
    let ty = unary(cx, &[I1, I8, I16, I32, F32])?;
    let Some(out) = elem else {
        return Err(cx.error(code::RESULT_TYPE, "the result's element type must be given"));
    };
    let allowed = match ty.elem {
        I1 => [I8, I16, I32].as_slice(),
        I8 => &[I1, I16, I32, F32],
        I16 => &[I1, I8, I32, F32],
        I32 => &[I1, I8, I16, F32],
        _ => &[I8, I16, I32],
    };
    match allowed.contains(&out) {
        true => Ok(ty.with_elem(out)),
        false => Err(cx.error(code::OPERAND_TYPE, format!("TOSA does not convert {} to {out}", ty.elem))),
    }
}
