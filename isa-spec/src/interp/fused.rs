//! Tails that are done while numbers are still in the registers of a kernel, or are bytes already.
//!
//! They give what [`tails`](super::tails) give: a rescale of sums, of which the weights show how great they
//! may be, and on its bytes tables, and sums and products with the bytes of another stream, as residual
//! connections and gates have them.

use crate::inst::{Binary, BinaryKind, Clamp, Elem, Load, OperandRescale, Rescale, Tail, View};
use crate::interp::arith::apply_scale_32;
use crate::interp::lanes::{self, LANES, LaneScales, Lanes, Limits, SumLane, Sums, laned};
use crate::interp::lookup::look_up;
use crate::interp::scales::Scales;
use crate::interp::sram::{Sram, limits};
use crate::interp::tails::{Place, TailTables};
use crate::program::{StageCode, Stream};

/// The tails of a stage that are done so: the first, which is a rescale, and those that go with it.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    /// The scales of each group of channels of the head.
    pub(super) scales: Vec<LaneScales>,
    pub(super) rescaled: Rescaled,
}

/// What sums are rescaled to.
#[derive(Clone, Debug)]
pub(super) enum Rescaled {
    /// Bytes, which go through these tails and are the output.
    Bytes(Vec<ByteTail>),
    /// Numbers within limits, for the tails after the first.
    Numbers { limits: Limits },
}

/// One tail, or several, from bytes to bytes.
#[derive(Clone, Debug)]
pub(super) enum ByteTail {
    /// A value for each byte of `i8`, by its bits.
    Table(Box<[u8; 256]>),
    Pair(Box<ScaledPair>),
}

/// Both bytes are rescaled, added or multiplied, and rescaled to a byte again.
#[derive(Clone, Debug)]
pub(super) struct ScaledPair {
    is_product: bool,
    /// Where the other bytes stand.
    src: View,
    own: LaneScales,
    other: LaneScales,
    result: LaneScales,
}

impl Fused {
    /// What is done so of a stage that loads bytes of a stream, all tails of which are from bytes to bytes.
    pub(super) fn of_load(
        h: &Load,
        code: &StageCode,
        tables: &[TailTables],
        streams: &[Stream],
    ) -> Option<Self> {
        let (src, out) = (&h.src, &code.out);
        let is_alike = (src.rows, src.cols, src.chs) == (out.rows, out.cols, out.chs);
        let are_bytes = [src, out].iter().all(|view| streams[view.tensor as usize].elem == Elem::I8);
        if !is_alike || !are_bytes {
            return None;
        }
        let tails = byte_tails(code, &code.tail, tables, streams)?;
        Some(Self { scales: Vec::new(), rescaled: Rescaled::Bytes(tails) })
    }

    /// What is done so of a stage whose head makes such sums, group by group; none if its first tail is not a
    /// rescale of them to numbers of 32 bits.
    pub(super) fn new(
        code: &StageCode,
        tables: &[TailTables],
        streams: &[Stream],
        groups: &[Sums],
    ) -> Option<Self> {
        let (Some(Tail::Rescale(t)), Some(TailTables::Rescale(scales))) = (code.tail.first(), tables.first())
        else {
            return None;
        };
        if t.double_round {
            return None;
        }
        let (multipliers, shifts) = (scales.multipliers.all(), scales.shifts.all());
        let scales = groups.iter().map(|sums| {
            let rescale = |lane: &SumLane| {
                let index = if t.per_channel { lane.channel } else { 0 };
                // What is to be added to a sum is taken off with the zero point.
                let zero_point = t.input_zp.checked_sub(lane.correction)?;
                let (multiplier, shift) = (*multipliers.get(index)?, *shifts.get(index)?);
                Some(lanes::Rescale { multiplier, shift, zero_point })
            };
            let lanes = sums.lanes.iter().map(rescale).collect::<Option<Vec<_>>>()?;
            LaneScales::new(&lanes, sums.greatest + i64::from(t.input_zp).abs(), t.output_zp)
        });
        let scales = scales.collect::<Option<Vec<_>>>()?;
        let is_bytes = t.to == Elem::I8 && streams[code.out.tensor as usize].elem == Elem::I8;
        let tails = if is_bytes { byte_tails(code, &code.tail[1..], &tables[1..], streams) } else { None };
        let (least, most) = limits(t.to);
        let limits = Limits { least: least as i32, most: most as i32 };
        Some(Self { scales, rescaled: tails.map_or(Rescaled::Numbers { limits }, Rescaled::Bytes) })
    }
}

/// All of some tails as tails of bytes, if they are.
fn byte_tails(
    code: &StageCode,
    mut tails: &[Tail],
    mut tables: &[TailTables],
    streams: &[Stream],
) -> Option<Vec<ByteTail>> {
    let mut found = Vec::new();
    while !tails.is_empty() {
        let (tail, n) = match (tails, tables) {
            ([Tail::Table(_), ..], [TailTables::Table(table), ..]) => {
                (ByteTail::table(|byte| table[(i32::from(byte) + 128) as usize]), 1)
            }
            ([Tail::Clamp(Clamp { min, max }), ..], _) => {
                let clamp = |byte: i8| i8::try_from(i32::from(byte).max(*min).min(*max));
                // One that leaves the bytes is one of numbers.
                (i8::MIN..=i8::MAX).all(|byte| clamp(byte).is_ok()).then_some(())?;
                (ByteTail::table(|byte| clamp(byte).unwrap_or(byte)), 1)
            }
            (
                [Tail::Rescale(own), Tail::Binary(other), Tail::Rescale(result), ..],
                [TailTables::Rescale(of_own), _, TailTables::Rescale(of_result), ..],
            ) if own.to == Elem::I32 => {
                let own = OneScale::new(own, of_own)?;
                let result = OneScale::new(result, of_result)?;
                (ByteTail::Pair(Box::new(ScaledPair::new(code, &own, other, &result, streams)?)), 3)
            }
            ([Tail::Rescale(t), ..], [TailTables::Rescale(scales), ..]) if t.to == Elem::I8 => {
                let (&[multiplier], &[shift]) = (scales.multipliers.all(), scales.shifts.all()) else {
                    return None;
                };
                let rescaled = |byte: i8| {
                    let value = i64::from(byte) - i64::from(t.input_zp);
                    let scaled = apply_scale_32(value, multiplier, shift, t.double_round);
                    (scaled + i64::from(t.output_zp)).clamp(-128, 127) as i8
                };
                (ByteTail::table(rescaled), 1)
            }
            _ => return None,
        };
        found.push(tail);
        (tails, tables) = (&tails[n..], &tables[n..]);
    }
    Some(found)
}

/// A rescale by one scale, with single rounding.
struct OneScale<'a> {
    rescale: &'a Rescale,
    multiplier: i32,
    shift: u8,
}

impl<'a> OneScale<'a> {
    fn new(rescale: &'a Rescale, scales: &Scales<i32>) -> Option<Self> {
        let (&[multiplier], &[shift]) = (scales.multipliers.all(), scales.shifts.all()) else { return None };
        (!rescale.double_round).then_some(Self { rescale, multiplier, shift })
    }

    /// It, for numbers that are at most so far from their zero point.
    fn scales(&self, greatest: i64) -> Option<LaneScales> {
        let Self { rescale, multiplier, shift } = *self;
        let scale = lanes::Rescale { multiplier, shift, zero_point: rescale.input_zp };
        LaneScales::new(&[scale], greatest, rescale.output_zp)
    }
}

/// How far a byte is from a zero point, that is one, at most.
const FURTHEST: i64 = 255;

impl ScaledPair {
    fn new(
        code: &StageCode,
        own: &OneScale<'_>,
        other: &Binary,
        result: &OneScale<'_>,
        streams: &[Stream],
    ) -> Option<Self> {
        let (src, out) = (&other.src, &code.out);
        let is_alike = src.cols == out.cols && src.chs == out.chs && (src.rows == out.rows || src.rows == 1);
        let are_bytes = streams[src.tensor as usize].elem == Elem::I8 && result.rescale.to == Elem::I8;
        let is_wide = own.rescale.to == Elem::I32 && own.rescale.output_zp == 0;
        let of_other = other.rescale.filter(|r| !r.double_round)?;
        let is_product = match other.kind {
            BinaryKind::Add => false,
            BinaryKind::Mul if other.shift == 0 => true,
            _ => return None,
        };
        if !is_alike || !are_bytes || !is_wide {
            return None;
        }
        let is_zero_of_bytes = |zero_point: i32| i8::try_from(zero_point).is_ok();
        if !is_zero_of_bytes(own.rescale.input_zp) || !is_zero_of_bytes(of_other.input_zp) {
            return None;
        }
        let own = own.scales(FURTHEST)?;
        let OperandRescale { multiplier, shift, input_zp: zero_point, .. } = of_other;
        let other = LaneScales::new(&[lanes::Rescale { multiplier, shift, zero_point }], FURTHEST, 0)?;
        let greatest = if is_product {
            own.greatest().checked_mul(other.greatest())?
        } else {
            own.greatest() + other.greatest()
        };
        let greatest = greatest + i64::from(result.rescale.input_zp).abs();
        Some(Self { is_product, src: *src, result: result.scales(greatest)?, own, other })
    }

    /// Combines bytes with what stands at their place of the other stream.
    fn apply(&self, sram: &Sram<'_>, place: &Place, bytes: &mut [u8]) {
        let row = if self.src.rows == 1 { 0 } else { place.row };
        let all = sram.stream_chs(&self.src);
        let others = &sram.row_bytes(&self.src, row)[place.cols.start * all..place.cols.end * all];
        let pixel = place.chs.len();
        if pixel == all {
            return combine(sram.simd, self, bytes, others);
        }
        let from = self.src.ch0 as usize + place.chs.start;
        for (bytes, others) in bytes.chunks_exact_mut(pixel.max(1)).zip(others.chunks_exact(all)) {
            combine(sram.simd, self, bytes, &others[from..][..pixel]);
        }
    }
}

impl ByteTail {
    fn table(value: impl Fn(i8) -> i8) -> Self {
        Self::Table(Box::new(std::array::from_fn(|bits| value(bits as u8 as i8) as u8)))
    }

    /// Transforms the bytes of a place.
    pub(super) fn apply(&self, sram: &Sram<'_>, place: &Place, bytes: &mut [u8]) {
        match self {
            Self::Table(table) => look_up(sram.simd, table, bytes),
            Self::Pair(pair) => pair.apply(sram, place, bytes),
        }
    }
}

laned! {
    fn combine<V>(simd; pair: &ScaledPair, bytes: &mut [u8], others: &[u8]) {
        // SAFETY: the CPU has the instructions of the type, here and below.
        let scales = unsafe {
            PairScales::<V> {
                is_product: pair.is_product,
                own: V::scale(pair.own.of(0)),
                other: V::scale(pair.other.of(0)),
                result: V::scale(pair.result.of(0)),
            }
        };
        let (vectors, rest) = bytes.as_chunks_mut::<LANES>();
        let (of_others, rest_of_others) = others.as_chunks::<LANES>();
        for (bytes, others) in vectors.iter_mut().zip(of_others) {
            // SAFETY: as above.
            unsafe { scales.combine(bytes, others) };
        }
        if !rest.is_empty() {
            let (mut bytes, mut others) = ([0; LANES], [0; LANES]);
            bytes[..rest.len()].copy_from_slice(rest);
            others[..rest.len()].copy_from_slice(&rest_of_others[..rest.len()]);
            // SAFETY: as above.
            unsafe { scales.combine(&mut bytes, &others) };
            rest.copy_from_slice(&bytes[..rest.len()]);
        }
    }
}

/// The scales of a pair, as vectors read them.
struct PairScales<'a, V: Lanes> {
    is_product: bool,
    own: V::Scale<'a>,
    other: V::Scale<'a>,
    result: V::Scale<'a>,
}

impl<V: Lanes> PairScales<'_, V> {
    /// # Safety
    /// The CPU has the instructions of the type.
    #[inline(always)]
    unsafe fn combine(&self, bytes: &mut [u8; LANES], others: &[u8; LANES]) {
        // SAFETY: the caller's.
        unsafe {
            let own = V::from_bytes(bytes).scaled(self.own);
            let other = V::from_bytes(others).scaled(self.other);
            let both = if self.is_product { own.times(other) } else { own.plus(other) };
            *bytes = both.scaled(self.result).to_bytes();
        }
    }
}
