//! What every tail does to the accumulator row.

use crate::inst::{Binary, BinaryKind, Rescale, RescaleBySign, Tail};
use crate::interp::arith::{apply_scale_32, shift_product};
use crate::interp::prepared::TailTables;
use crate::interp::sram::{Sram, limits, load};
use crate::interp::wide;

fn binary(kind: BinaryKind, shift: u8, x: i32, y: i32) -> i32 {
    match kind {
        BinaryKind::Add => x.wrapping_add(y),
        BinaryKind::Sub => x.wrapping_sub(y),
        BinaryKind::ReverseSub => y.wrapping_sub(x),
        BinaryKind::Mul => shift_product(i64::from(x) * i64::from(y), shift) as i32,
        BinaryKind::Maximum => x.max(y),
        BinaryKind::Minimum => x.min(y),
    }
}

/// Transforms a row of `cols * chs` in place.
pub(super) fn apply(
    tail: &Tail,
    tables: &TailTables,
    sram: &Sram<'_>,
    row: u32,
    cols: usize,
    chs: usize,
    acc: &mut [i32],
) {
    match (tail, tables) {
        (Tail::Rescale(t), TailTables::Rescale(multipliers, shifts)) => {
            rescale(t, multipliers, shifts, chs, acc);
        }
        (Tail::Rescale16(t), TailTables::Rescale16(multipliers, shifts)) => {
            for (index, v) in acc.iter_mut().enumerate() {
                let at = if t.per_channel { index % chs } else { 0 };
                *v = wide::rescale16(t, i64::from(*v), multipliers[at], shifts[at]);
            }
        }
        (Tail::RescaleBySign(t), TailTables::RescaleBySign(sides)) => {
            rescale_by_sign(t, sides, chs, acc);
        }
        (Tail::TableI16(_), TailTables::TableI16(table)) => interpolate(table, acc),
        (Tail::Clamp(t), _) => {
            for v in acc {
                *v = (*v).max(t.min).min(t.max);
            }
        }
        (Tail::Table(_), TailTables::Table(table)) => {
            for v in acc {
                *v = i32::from(table[(*v + 128).clamp(0, 255) as usize]);
            }
        }
        (Tail::Binary(t), _) => {
            let mut operand = vec![0; cols * chs];
            load(sram, &t.src, row, cols, chs, &mut operand);
            binary_stream(t, operand, acc);
        }
        (Tail::BinaryConst(t), TailTables::Operand(values)) => {
            for (index, x) in acc.iter_mut().enumerate() {
                *x = binary(t.kind, t.shift, *x, values[if t.per_channel { index % chs } else { 0 }]);
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
fn rescale(t: &Rescale, multipliers: &[i32], shifts: &[u8], chs: usize, acc: &mut [i32]) {
    let (least, most) = limits(t.to);
    let scale = |v: i32, m: i32, s: u8| {
        let value = i64::from(v) - i64::from(t.input_zp);
        let scaled = apply_scale_32(value, m, s, t.double_round) + i64::from(t.output_zp);
        scaled.clamp(least, most) as i32
    };
    if !t.per_channel {
        for v in acc {
            *v = scale(*v, multipliers[0], shifts[0]);
        }
        return;
    }
    for pixel in acc.chunks_exact_mut(chs) {
        for ((v, &m), &s) in pixel.iter_mut().zip(multipliers).zip(shifts) {
            *v = scale(*v, m, s);
        }
    }
}

/// Rescales values from 0 on by the first side, those below by the second.
fn rescale_by_sign(t: &RescaleBySign, sides: &[(Vec<i32>, Vec<u8>); 2], chs: usize, acc: &mut [i32]) {
    let (least, most) = limits(t.to);
    for (index, v) in acc.iter_mut().enumerate() {
        let (multipliers, shifts) = &sides[usize::from(*v < 0)];
        let at = if t.per_channel { index % chs } else { 0 };
        let scaled = apply_scale_32(i64::from(*v), multipliers[at], shifts[at], t.double_round);
        *v = (scaled + i64::from(t.output_zp)).clamp(least, most) as i32;
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

/// Combines the row with a row of another stream, rescaled first if the tail says so.
fn binary_stream(t: &Binary, mut operand: Vec<i32>, acc: &mut [i32]) {
    if let Some(r) = t.rescale {
        for v in &mut operand {
            let value = i64::from(*v) - i64::from(r.input_zp);
            let shift = r.shift.clamp(2, 62);
            let scaled = apply_scale_32(value, r.multiplier, shift, r.double_round);
            *v = scaled.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        }
    }
    for (x, y) in acc.iter_mut().zip(operand) {
        *x = binary(t.kind, t.shift, *x, y);
    }
}
