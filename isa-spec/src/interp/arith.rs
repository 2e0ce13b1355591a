//! TOSA 1.0 scalar arithmetic.

/// TOSA `apply_scale_32`: `(value * multiplier + round) >> shift` in 64 bits.
///
/// # Source
/// TOSA 1.0, section 1.9, "Integer behavior".
#[inline(always)]
pub(crate) fn apply_scale_32(value: i64, multiplier: i32, shift: u8, double_round: bool) -> i64 {
    let mut round = 1i64 << (shift - 1);
    if double_round && shift > 31 {
        round += if value >= 0 { 1 << 30 } else { -(1 << 30) };
    }
    (value * i64::from(multiplier) + round) >> shift
}

/// TOSA `reciprocal_scale`: multiplier and shift that divide by `count`.
pub(crate) fn reciprocal_scale(count: u32) -> (i32, u8) {
    let k = 32 - (count - 1).leading_zeros();
    let numerator = ((1u64 << 30) + 1) << k;
    ((numerator / u64::from(count)) as i32, (30 + k) as u8)
}

/// Rounds as TOSA MUL does: `(product + (1 << (shift - 1))) >> shift`.
#[inline(always)]
pub(crate) fn shift_product(product: i64, shift: u8) -> i64 {
    if shift == 0 { product } else { (product + (1 << (shift - 1))) >> shift }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_round_half_up() {
        // 3 * 2^30 / 2^31 = 1.5, rounds to 2; -1.5 rounds to -1.
        assert_eq!(apply_scale_32(3, 1 << 30, 31, false), 2);
        assert_eq!(apply_scale_32(-3, 1 << 30, 31, false), -1);
        // Double rounding goes away from zero in the second step: 2^-32 of -(2^31) is -0.5 and becomes -1.
        assert_eq!(apply_scale_32(-(1 << 31), 1, 32, true), -1);
    }

    #[test]
    fn reciprocals_divide() {
        for count in 1..2000u32 {
            let (multiplier, shift) = reciprocal_scale(count);
            for times in [-3i64, 0, 1, 100] {
                let sum = times * i64::from(count);
                assert_eq!(apply_scale_32(sum, multiplier, shift, false), times, "{sum} / {count}");
            }
        }
    }
}
