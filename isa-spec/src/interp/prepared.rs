//! The tables of a stage, as they stand ready for its rows.

use crate::inst::{Conv2d, Head, Tail, WeightAddr};
use crate::interp::kernels::PackedWeights;
use crate::interp::sram::{Sram, widen};
use crate::interp::wide::WideTables;
use crate::program::StageCode;

/// Tables of a stage, read from weight SRAM once, at its first row.
pub(super) struct Prepared {
    pub(super) head: HeadTables,
    pub(super) tails: Vec<TailTables>,
}

/// What a head reads.
pub(super) enum HeadTables {
    None,
    /// Packed weights, one a group of channels.
    Packed(Vec<PackedWeights>),
    /// Raw weights and biases.
    Raw(Vec<i8>, Vec<i32>),
    /// Weights and biases of sums in 48 bits.
    Wide(WideTables),
}

/// What a tail reads.
pub(super) enum TailTables {
    None,
    Rescale(Vec<i32>, Vec<u8>),
    Rescale16(Vec<i16>, Vec<u8>),
    /// Those from 0 on, and those below.
    RescaleBySign([(Vec<i32>, Vec<u8>); 2]),
    Table(Vec<i8>),
    TableI16(Vec<i16>),
    Operand(Vec<i32>),
}

impl Prepared {
    pub(super) fn new(code: &StageCode, sram: &Sram<'_>) -> Self {
        let chs = code.out.chs as usize;
        let tails = code.tail.iter().map(|tail| TailTables::new(tail, chs, sram));
        Self { head: HeadTables::new(&code.head, chs, sram), tails: tails.collect() }
    }
}

impl HeadTables {
    /// The tables of a head that makes `chs` channels.
    fn new(head: &Head, chs: usize, sram: &Sram<'_>) -> Self {
        match head {
            Head::Conv2d(h) if h.weight_zp == 0 => Self::Packed(pack_groups(h, chs, sram)),
            Head::Conv2d(h) => {
                let reduction =
                    (h.window.kernel_h * h.window.kernel_w * h.src.chs / h.groups.max(1)) as usize;
                Self::Raw(sram.i8s(h.weights, chs * reduction), sram.i32s(h.bias, chs))
            }
            Head::DepthwiseConv2d(h) => {
                let n = (h.window.kernel_h * h.window.kernel_w) as usize * chs;
                Self::Raw(sram.i8s(h.weights, n), sram.i32s(h.bias, chs))
            }
            Head::TransposeConv2d(h) => {
                let reduction = (h.kernel_h * h.kernel_w * h.src.chs) as usize;
                let (weights, bias) = (sram.i8s(h.weights, chs * reduction), sram.i32s(h.bias, chs));
                if h.weight_zp == 0 {
                    Self::Packed(vec![PackedWeights::new(&weights, &bias, reduction, h.input_zp)])
                } else {
                    Self::Raw(weights, bias)
                }
            }
            Head::Conv2dI16(h) => {
                let inputs = h.src.chs / h.groups.max(1);
                let reduction = (h.window.kernel_h * h.window.kernel_w * inputs) as usize;
                Self::Wide(WideTables::new(sram, h.weights, chs * reduction, h.bias, chs))
            }
            Head::DepthwiseConv2dI16(h) => {
                let taps = (h.window.kernel_h * h.window.kernel_w) as usize;
                Self::Wide(WideTables::new(sram, h.weights, taps * chs, h.bias, chs))
            }
            Head::TransposeConv2dI16(h) => {
                let reduction = (h.kernel_h * h.kernel_w * h.src.chs) as usize;
                Self::Wide(WideTables::new(sram, h.weights, chs * reduction, h.bias, chs))
            }
            _ => Self::None,
        }
    }
}

/// The packed weights of each group of a convolution.
fn pack_groups(h: &Conv2d, chs: usize, sram: &Sram<'_>) -> Vec<PackedWeights> {
    let groups = h.groups.max(1) as usize;
    let reduction = (h.window.kernel_h * h.window.kernel_w * h.src.chs) as usize / groups;
    let weights = sram.i8s(h.weights, chs * reduction);
    let bias = sram.i32s(h.bias, chs);
    let of_group = chs / groups;
    let pack = |group: usize| {
        let weights = &weights[group * of_group * reduction..][..of_group * reduction];
        PackedWeights::new(weights, &bias[group * of_group..][..of_group], reduction, h.input_zp)
    };
    (0..groups).map(pack).collect()
}

impl TailTables {
    /// The tables of a tail on rows of `chs` channels.
    fn new(tail: &Tail, chs: usize, sram: &Sram<'_>) -> Self {
        let entries = |per_channel: bool| if per_channel { chs } else { 1 };
        match tail {
            Tail::Rescale(t) => {
                let n = entries(t.per_channel);
                Self::Rescale(sram.i32s(t.multipliers, n), shifts(sram, t.shifts, n))
            }
            Tail::Rescale16(t) => {
                let n = entries(t.per_channel);
                Self::Rescale16(sram.i16s(t.multipliers, n), shifts(sram, t.shifts, n))
            }
            Tail::RescaleBySign(t) => {
                let n = entries(t.per_channel);
                let side = |multipliers, at| (sram.i32s(multipliers, n), shifts(sram, at, n));
                Self::RescaleBySign([
                    side(t.multipliers, t.shifts),
                    side(t.multipliers_below, t.shifts_below),
                ])
            }
            Tail::Table(t) => Self::Table(sram.i8s(t.table, 256)),
            Tail::TableI16(t) => Self::TableI16(sram.i16s(t.table, 513)),
            Tail::BinaryConst(t) => {
                let n = entries(t.per_channel);
                let mut values = Vec::with_capacity(n);
                let size = t.elem.size_bytes() as usize;
                widen(t.elem, &sram.weight[t.table.0 as usize..][..n * size], &mut values);
                Self::Operand(values)
            }
            Tail::Clamp(_) | Tail::Binary(_) => Self::None,
        }
    }
}

/// The shifts of a scale, within what a scale can shift by.
fn shifts(sram: &Sram<'_>, at: WeightAddr, n: usize) -> Vec<u8> {
    sram.i8s(at, n).into_iter().map(|s| s.clamp(2, 62) as u8).collect()
}
