//! What tails read from weight SRAM.

use crate::inst::{Binary, Tail, WeightAddr};
use crate::interp::scales::{Channels, Scales};
use crate::interp::simd::Simd;
use crate::interp::sram::{WeightSram, widen};

/// What a tail reads.
#[derive(Clone, Debug)]
pub(in crate::interp) enum TailTables {
    None,
    Rescale(Scales<i32>),
    Rescale16(Scales<i16>),
    /// Those from 0 on, and those below.
    RescaleBySign([Scales<i32>; 2]),
    Table(Box<[i8; 256]>),
    TableI16(Vec<i16>),
    Operand(Channels<i32>),
    /// The scale of an operand from another stream, which stands in the instruction.
    OperandRescale(Scales<i32>),
}

impl TailTables {
    /// The tables of a tail on rows of `chs` channels.
    pub(in crate::interp) fn new(tail: &Tail, chs: usize, weights: WeightSram<'_>, simd: Simd) -> Self {
        let entries = |per_channel: bool| if per_channel { chs } else { 1 };
        match tail {
            Tail::Rescale(t) => {
                let n = entries(t.per_channel);
                Self::Rescale(Scales::new(weights.i32s(t.multipliers, n), shifts(weights, t.shifts, n)))
            }
            Tail::Rescale16(t) => {
                let n = entries(t.per_channel);
                Self::Rescale16(Scales::new(weights.i16s(t.multipliers, n), shifts(weights, t.shifts, n)))
            }
            Tail::RescaleBySign(t) => {
                let n = entries(t.per_channel);
                let side =
                    |multipliers, at| Scales::new(weights.i32s(multipliers, n), shifts(weights, at, n));
                Self::RescaleBySign([
                    side(t.multipliers, t.shifts),
                    side(t.multipliers_below, t.shifts_below),
                ])
            }
            Tail::Table(t) => {
                let mut table = Box::new([0i8; 256]);
                table.copy_from_slice(&weights.i8s(t.table, 256));
                Self::Table(table)
            }
            Tail::TableI16(t) => Self::TableI16(weights.i16s(t.table, 513)),
            Tail::BinaryConst(t) => {
                let mut values = vec![0; entries(t.per_channel)];
                let bytes = weights.bytes(t.table, values.len() * t.elem.size_bytes() as usize);
                widen(simd, t.elem, bytes, &mut values);
                Self::Operand(Channels::new(values))
            }
            Tail::Binary(Binary { rescale: Some(r), .. }) => {
                Self::OperandRescale(Scales::new(vec![r.multiplier], vec![r.shift.clamp(2, 62)]))
            }
            Tail::Clamp(_) | Tail::Binary(_) => Self::None,
        }
    }
}

/// The shifts of a scale, within what a scale can shift by.
fn shifts(weights: WeightSram<'_>, at: WeightAddr, n: usize) -> Vec<u8> {
    weights.i8s(at, n).into_iter().map(|s| s.clamp(2, 62) as u8).collect()
}
