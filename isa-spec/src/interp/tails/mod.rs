//! What every tail does to accumulators.

mod tables;

use std::ops::Range;

pub(super) use self::tables::TailTables;
use crate::inst::{BinaryKind, Elem, Rescale, RescaleBySign, Tail};
use crate::interp::arith::{apply_scale_32, shift_product};
use crate::interp::scales::{NearSlices, Scales};
use crate::interp::simd::{Simd, vectorised};
use crate::interp::sram::{Sram, limits};
use crate::interp::wide;

/// Where accumulators stand in the output view of their stage: columns and channels of one row.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) row: u32,
    pub(super) cols: Range<usize>,
    pub(super) chs: Range<usize>,
}

/// Transforms the accumulators of a place in place; `operand` is room for another operand.
pub(super) fn apply(
    tail: &Tail,
    tables: &TailTables,
    sram: &Sram<'_>,
    place: &Place,
    operand: &mut Vec<i32>,
    acc: &mut [i32],
) {
    let (simd, chs) = (sram.simd, &place.chs);
    match (tail, tables) {
        (Tail::Rescale(t), TailTables::Rescale(scales)) => rescale(simd, t, scales, chs, acc),
        (Tail::Rescale16(t), TailTables::Rescale16(scales)) => {
            let (multipliers, shifts) = (scales.multipliers.of(chs), scales.shifts.of(chs));
            for acc in acc.chunks_mut(multipliers.len()) {
                for ((v, &m), &s) in acc.iter_mut().zip(multipliers).zip(shifts) {
                    *v = wide::rescale16(t, i64::from(*v), m, s);
                }
            }
        }
        (Tail::RescaleBySign(t), TailTables::RescaleBySign(sides)) => rescale_by_sign(t, sides, chs, acc),
        (Tail::TableI16(_), TailTables::TableI16(table)) => interpolate(table, acc),
        (Tail::Clamp(t), _) => clamp(simd, acc, t.min, t.max),
        (Tail::Table(_), TailTables::Table(table)) => {
            for v in acc {
                *v = i32::from(table[((*v).clamp(-128, 127) + 128) as u8 as usize]);
            }
        }
        (Tail::Binary(t), _) => {
            sram.broadcast(&t.src, place.row, place.cols.clone(), chs.clone(), operand);
            if let (Some(r), TailTables::OperandRescale(scales)) = (t.rescale, tables) {
                let rule = Rounding { input_zp: r.input_zp, double: r.double_round, output_zp: 0 };
                rescale_all(simd, &rule, scales, chs, limits(Elem::I32), operand);
            }
            combine_with(simd, t.kind, t.shift, acc, operand);
        }
        (Tail::BinaryConst(t), TailTables::Operand(values)) => {
            let values = values.of(chs);
            for acc in acc.chunks_mut(values.len()) {
                combine_with(simd, t.kind, t.shift, acc, &values[..acc.len()]);
            }
        }
        (
            Tail::Rescale(_)
            | Tail::Rescale16(_)
            | Tail::RescaleBySign(_)
            | Tail::Table(_)
            | Tail::TableI16(_)
            | Tail::BinaryConst(_),
            _,
        ) => {}
    }
}

/// Rescales values to the type that the tail names, by one scale or by one a channel.
fn rescale(simd: Simd, t: &Rescale, scales: &Scales<i32>, chs: &Range<usize>, acc: &mut [i32]) {
    let rule = Rounding { input_zp: t.input_zp, double: t.double_round, output_zp: t.output_zp };
    rescale_all(simd, &rule, scales, chs, limits(t.to), acc);
}

/// What a rescale does but for its scales and its limits.
#[derive(Clone, Copy)]
struct Rounding {
    input_zp: i32,
    double: bool,
    output_zp: i32,
}

/// What scaled values are held within before the zero point of the output is added.
#[derive(Clone, Copy)]
struct Limits {
    least: i32,
    most: i32,
}

/// Rescales values, by 32-bit numbers where no result can leave them, else as it is defined.
fn rescale_all(
    simd: Simd,
    rule: &Rounding,
    scales: &Scales<i32>,
    chs: &Range<usize>,
    (least, most): (i64, i64),
    acc: &mut [i32],
) {
    let (multipliers, shifts) = (scales.multipliers.of(chs), scales.shifts.of(chs));
    let zp = i64::from(rule.output_zp);
    let bounds = (i32::try_from(least - zp), i32::try_from(most - zp));
    if let Some(near) = &scales.near
        && let (Ok(least), Ok(most)) = bounds
        && are_within(simd, acc, rule.input_zp, near.least_shift)
    {
        let near = near.of(chs);
        let limits = Limits { least, most };
        for acc in acc.chunks_mut(near.multipliers.len()) {
            if rule.double {
                rescale_doubly(simd, acc, &near, rule, limits);
            } else {
                rescale_near(simd, acc, &near, rule, limits);
            }
        }
        return;
    }
    for acc in acc.chunks_mut(multipliers.len()) {
        rescale_far(simd, acc, multipliers, shifts, rule, (least, most));
    }
}

/// Whether no value less a zero point has more bits than a shift takes away.
fn are_within(simd: Simd, values: &[i32], zero_point: i32, shift: u8) -> bool {
    (shift >= 31 && zero_point == 0) || have_bits(simd, values, zero_point, shift.min(31))
}

vectorised! {
    /// Whether all values less a zero point are of no more bits, the sign aside.
    fn have_bits(simd; values: &[i32], zero_point: i32, bits: u8) -> bool {
        let (mut leaves, mut greatest) = (0, 0);
        for &v in values {
            let difference = v.wrapping_sub(zero_point);
            // The sign bit says whether the difference left 32 bits.
            leaves |= (v ^ zero_point) & (v ^ difference);
            greatest |= difference ^ (difference >> 31);
        }
        leaves >= 0 && greatest >> bits == 0
    }

    /// `apply_scale_32` where the scaled values fit 32 bits.
    fn rescale_near(simd; acc: &mut [i32], scales: &NearSlices<'_>, rule: &Rounding, limits: Limits) {
        let Rounding { input_zp, output_zp, .. } = *rule;
        let scales = scales.multipliers.iter().zip(scales.rounds).zip(scales.shifts);
        for (v, ((&multiplier, &round), &shift)) in acc.iter_mut().zip(scales) {
            let product = i64::from(v.wrapping_sub(input_zp)) * i64::from(multiplier as i32);
            let scaled = ((product + round) >> (shift & 63)) as i32;
            *v = scaled.max(limits.least).min(limits.most) + output_zp;
        }
    }

    /// As `rescale_near`, with double rounding.
    fn rescale_doubly(simd; acc: &mut [i32], scales: &NearSlices<'_>, rule: &Rounding, limits: Limits) {
        let Rounding { input_zp, output_zp, .. } = *rule;
        let scales = scales.multipliers.iter().zip(scales.rounds).zip(scales.shifts).zip(scales.doubles);
        for (v, (((&multiplier, &round), &shift), &double)) in acc.iter_mut().zip(scales) {
            let value = v.wrapping_sub(input_zp);
            let round = if value >= 0 { round + double } else { round - double };
            let product = i64::from(value) * i64::from(multiplier as i32);
            let scaled = ((product + round) >> (shift & 63)) as i32;
            *v = scaled.max(limits.least).min(limits.most) + output_zp;
        }
    }

    /// `apply_scale_32` as it is defined.
    fn rescale_far(
        simd; acc: &mut [i32], multipliers: &[i32], shifts: &[u8], rule: &Rounding, limits: (i64, i64),
    ) {
        let Rounding { input_zp, double, output_zp } = *rule;
        for ((v, &multiplier), &shift) in acc.iter_mut().zip(multipliers).zip(shifts) {
            let value = i64::from(*v) - i64::from(input_zp);
            let scaled = apply_scale_32(value, multiplier, shift, double) + i64::from(output_zp);
            *v = scaled.clamp(limits.0, limits.1) as i32;
        }
    }

    fn clamp(simd; acc: &mut [i32], min: i32, max: i32) {
        for v in acc {
            *v = (*v).max(min).min(max);
        }
    }

    /// Combines each value with its operand.
    fn combine_with(simd; kind: BinaryKind, shift: u8, acc: &mut [i32], operand: &[i32]) {
        let pairs = acc.iter_mut().zip(operand);
        match kind {
            BinaryKind::Add => pairs.for_each(|(x, &y)| *x = x.wrapping_add(y)),
            BinaryKind::Sub => pairs.for_each(|(x, &y)| *x = x.wrapping_sub(y)),
            BinaryKind::ReverseSub => pairs.for_each(|(x, &y)| *x = y.wrapping_sub(*x)),
            BinaryKind::Mul => {
                pairs.for_each(|(x, &y)| *x = shift_product(i64::from(*x) * i64::from(y), shift) as i32);
            }
            BinaryKind::Maximum => pairs.for_each(|(x, &y)| *x = (*x).max(y)),
            BinaryKind::Minimum => pairs.for_each(|(x, &y)| *x = (*x).min(y)),
        }
    }
}

/// Rescales values from 0 on by the first side, those below by the second.
fn rescale_by_sign(t: &RescaleBySign, sides: &[Scales<i32>; 2], chs: &Range<usize>, acc: &mut [i32]) {
    let (least, most) = limits(t.to);
    let [above, below] = sides.each_ref().map(|side| (side.multipliers.of(chs), side.shifts.of(chs)));
    for acc in acc.chunks_mut(above.0.len()) {
        for (index, v) in acc.iter_mut().enumerate() {
            let (multipliers, shifts) = if *v < 0 { below } else { above };
            let scaled = apply_scale_32(i64::from(*v), multipliers[index], shifts[index], t.double_round);
            *v = (scaled + i64::from(t.output_zp)).clamp(least, most) as i32;
        }
    }
}

/// Looks values up in a table of every 128th, linear between them.
fn interpolate(table: &[i16], acc: &mut [i32]) {
    for v in acc {
        let x = (*v).clamp(i16::MIN.into(), i16::MAX.into());
        let at = ((x + 32768) >> 7) as usize;
        let (base, next) = (i32::from(table[at]), i32::from(table[at + 1]));
        *v = (base << 7) + (next - base) * (x & 127);
    }
}

#[cfg(test)]
mod tests;
