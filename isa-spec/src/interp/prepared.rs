//! The tables of a stage, as they stand ready for its rows.

use std::ops::Range;
use std::sync::Arc;

use crate::inst::{Conv2d, DepthwiseConv2d, Head, Tail, TransposeConv2d, WeightAddr};
use crate::interp::heads::{PackedConv, PackedDepthwise, PackedTransposed};
use crate::interp::kernels::Layout;
use crate::interp::simd::Simd;
use crate::interp::sram::{WeightSram, widen};
use crate::interp::wide::WideTables;
use crate::program::StageCode;

/// Tables of a stage, read from weight SRAM once.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) head: HeadTables,
    pub(super) tails: Vec<TailTables>,
}

/// What a head reads.
#[derive(Clone, Debug)]
pub(super) enum HeadTables {
    None,
    Conv(Arc<PackedConv>),
    Transposed(Arc<PackedTransposed>),
    Depthwise(Arc<PackedDepthwise>),
    /// Weights and biases of sums in 48 bits.
    Wide(Arc<WideTables>),
}

/// What a tail reads.
#[derive(Clone, Debug)]
pub(super) enum TailTables {
    None,
    Rescale(Scales<i32>),
    Rescale16(Scales<i16>),
    /// Those from 0 on, and those below.
    RescaleBySign([Scales<i32>; 2]),
    Table(Box<[i8; 256]>),
    TableI16(Vec<i16>),
    Operand(Channels<i32>),
}

/// A value for every channel, or one for all, repeated so that loops over them are long.
#[derive(Clone, Debug)]
pub(super) struct Channels<T> {
    repeated: Vec<T>,
    channels: usize,
}

/// Values that a loop runs over at least, unless it is of some channels only.
const LEAST_LOOP: usize = 512;

impl<T: Copy> Channels<T> {
    fn new(values: Vec<T>) -> Self {
        let times = LEAST_LOOP.div_ceil(values.len().max(1));
        Self { channels: values.len(), repeated: values.repeat(times) }
    }

    /// The values of neighbouring accumulators, from the first of a pixel on, whose pixels have channels
    /// `chs`: whole pixels of them, to be begun again at the end.
    pub(super) fn of(&self, chs: &Range<usize>) -> &[T] {
        if self.channels == 1 || (chs.start == 0 && chs.len() == self.channels) {
            &self.repeated
        } else {
            &self.repeated[chs.clone()]
        }
    }
}

/// Multipliers and shifts of a rescale.
#[derive(Clone, Debug)]
pub(super) struct Scales<M> {
    pub(super) multipliers: Channels<M>,
    pub(super) shifts: Channels<u8>,
    pub(super) near: Option<NearScales>,
}

/// Scales none of whose multipliers is negative: what they give of values of no more bits than the least
/// shift fits 32 bits. All are of 64 bits, as they are calculated with.
#[derive(Clone, Debug)]
pub(super) struct NearScales {
    pub(super) multipliers: Channels<i64>,
    /// Half of what a shift divides by.
    pub(super) rounds: Channels<i64>,
    pub(super) shifts: Channels<u64>,
    /// What double rounding adds to a product, or takes off it.
    pub(super) doubles: Channels<i64>,
    pub(super) least_shift: u8,
}

/// Scales of neighbouring accumulators, whole pixels of them.
pub(super) struct NearSlices<'a> {
    pub(super) multipliers: &'a [i64],
    pub(super) rounds: &'a [i64],
    pub(super) shifts: &'a [u64],
    pub(super) doubles: &'a [i64],
}

impl NearScales {
    /// As [`Channels::of`].
    pub(super) fn of(&self, chs: &Range<usize>) -> NearSlices<'_> {
        NearSlices {
            multipliers: self.multipliers.of(chs),
            rounds: self.rounds.of(chs),
            shifts: self.shifts.of(chs),
            doubles: self.doubles.of(chs),
        }
    }
}

impl<M: Copy + Into<i64>> Scales<M> {
    pub(super) fn new(multipliers: Vec<M>, shifts: Vec<u8>) -> Self {
        let wide: Vec<i64> = multipliers.iter().map(|&m| m.into()).collect();
        let near = wide.iter().all(|&m| m >= 0).then(|| NearScales {
            multipliers: Channels::new(wide),
            rounds: Channels::new(shifts.iter().map(|&s| 1 << (s - 1)).collect()),
            shifts: Channels::new(shifts.iter().map(|&s| s.into()).collect()),
            doubles: Channels::new(shifts.iter().map(|&s| if s > 31 { 1 << 30 } else { 0 }).collect()),
            least_shift: shifts.iter().copied().min().unwrap_or(0),
        });
        Self { multipliers: Channels::new(multipliers), shifts: Channels::new(shifts), near }
    }
}

impl Prepared {
    /// Reads the tables of a stage.
    pub(super) fn new(code: &StageCode, weights: WeightSram<'_>, simd: Simd) -> Self {
        Self::with_head(code, HeadTables::new(code, weights, simd), weights, simd)
    }

    /// As [`new`](Self::new), with the tables of the head at hand.
    pub(super) fn with_head(code: &StageCode, head: HeadTables, weights: WeightSram<'_>, simd: Simd) -> Self {
        let chs = code.out.chs as usize;
        let tails = code.tail.iter().map(|tail| TailTables::new(tail, chs, weights, simd));
        Self { head, tails: tails.collect() }
    }
}

impl HeadTables {
    /// The tables of a stage's head.
    pub(super) fn new(code: &StageCode, weights: WeightSram<'_>, simd: Simd) -> Self {
        let (chs, layout) = (code.out.chs as usize, Layout::of(simd));
        let wide =
            |at, n, bias| Self::Wide(Arc::new(WideTables::new(weights.i8s(at, n), weights.i64s(bias, chs))));
        match &code.head {
            Head::Conv2d(h) => {
                let n = chs * reduction(h);
                let packed =
                    PackedConv::new(h, layout, &weights.i8s(h.weights, n), &weights.i32s(h.bias, chs));
                Self::Conv(Arc::new(packed))
            }
            Head::DepthwiseConv2d(h) => {
                let n = taps(h) * chs;
                let packed = PackedDepthwise::new(h, &weights.i8s(h.weights, n), weights.i32s(h.bias, chs));
                Self::Depthwise(Arc::new(packed))
            }
            Head::TransposeConv2d(h) => {
                let n = chs * reduction_transposed(h);
                let packed =
                    PackedTransposed::new(h, layout, &weights.i8s(h.weights, n), &weights.i32s(h.bias, chs));
                Self::Transposed(Arc::new(packed))
            }
            Head::Conv2dI16(h) => wide(h.weights, chs * reduction(h), h.bias),
            Head::DepthwiseConv2dI16(h) => wide(h.weights, taps(h) * chs, h.bias),
            Head::TransposeConv2dI16(h) => wide(h.weights, chs * reduction_transposed(h), h.bias),
            _ => Self::None,
        }
    }
}

/// Products of a sum of a convolution.
fn reduction(h: &Conv2d) -> usize {
    (h.window.kernel_h * h.window.kernel_w * (h.src.chs / h.groups.max(1))) as usize
}

fn reduction_transposed(h: &TransposeConv2d) -> usize {
    (h.kernel_h * h.kernel_w * h.src.chs) as usize
}

fn taps(h: &DepthwiseConv2d) -> usize {
    (h.window.kernel_h * h.window.kernel_w) as usize
}

impl TailTables {
    /// The tables of a tail on rows of `chs` channels.
    fn new(tail: &Tail, chs: usize, weights: WeightSram<'_>, simd: Simd) -> Self {
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
            Tail::Clamp(_) | Tail::Binary(_) => Self::None,
        }
    }
}

/// The shifts of a scale, within what a scale can shift by.
fn shifts(weights: WeightSram<'_>, at: WeightAddr, n: usize) -> Vec<u8> {
    weights.i8s(at, n).into_iter().map(|s| s.clamp(2, 62) as u8).collect()
}
