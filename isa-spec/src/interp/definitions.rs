//! Operations written anew from TOSA's text, in integers that cannot overflow: what tests hold the others
//! against.

use crate::inst::{Elem, Rescale};

/// TOSA 1.0, RESCALE with 32-bit multipliers: "the value minus the input zero point, scaled by
/// `apply_scale_32`, plus the output zero point, clipped to the output type". What does not fit 32 bits in
/// between is left open there; it saturates here.
pub(super) fn defined_rescale(value: i32, t: &Rescale, multiplier: i32, shift: u8) -> i32 {
    let value = i128::from(value) - i128::from(t.input_zp);
    let mut round = 1i128 << (shift - 1);
    if t.double_round && shift > 31 {
        round += if value >= 0 { 1 << 30 } else { -(1 << 30) };
    }
    // The division rounds down, as a shift of a number without end does.
    let scaled = (value * i128::from(multiplier) + round).div_euclid(1i128 << shift);
    let (least, most) = match t.to {
        Elem::I8 => (-128, 127),
        Elem::I16 => (-32768, 32767),
        Elem::I32 => (-(1i128 << 31), (1i128 << 31) - 1),
    };
    (scaled + i128::from(t.output_zp)).clamp(least, most) as i32
}
