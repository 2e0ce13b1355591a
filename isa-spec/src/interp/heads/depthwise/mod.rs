//! Depthwise convolutions of bytes.

mod lines;
#[cfg(target_arch = "x86_64")]
mod quads;
mod words;

use self::lines::Lines;
#[cfg(target_arch = "x86_64")]
use self::quads::Quads;
use self::words::Words;
use super::{Ready, room};
use crate::inst::DepthwiseConv2d;
use crate::interp::lanes::Sums;
use crate::interp::simd::Simd;
use crate::interp::tails::Place;
use crate::interp::tile::{Scratch, Tile};

/// The weights of a depthwise convolution, packed.
#[derive(Clone, Debug)]
pub(in crate::interp) enum PackedDepthwise {
    /// For four taps at once.
    #[cfg(target_arch = "x86_64")]
    Quads(Quads),
    Words(Words),
}

impl PackedDepthwise {
    /// Packs `weights`, `[KH][KW][OC]`.
    pub(in crate::interp) fn new(h: &DepthwiseConv2d, simd: Simd, weights: &[i8], bias: &[i32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(quads) = Quads::new(h, simd, weights, bias) {
            return Self::Quads(quads);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = simd;
        Self::Words(Words::new(h, weights, bias))
    }

    /// The sums; none where tails are not done with them.
    pub(super) fn sums(&self) -> Option<Sums> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Quads(quads) => Some(quads.sums()),
            Self::Words(_) => None,
        }
    }
}

/// Computes a tile of a depthwise convolution, which has all channels.
pub(super) fn depthwise_conv2d(
    stage: &Ready<'_>,
    h: &DepthwiseConv2d,
    packed: &PackedDepthwise,
    tile: &Tile,
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let sram = stage.sram;
    let Scratch { acc, operand, words, bytes, .. } = scratch;
    let chs = tile.chs.len();
    let row_bytes = out.len() / tile.rows.len().max(1);
    let rows = tile.rows.clone().zip(out.chunks_exact_mut(row_bytes.max(1)));
    let place = |row: u32| Place { row, cols: tile.cols.clone(), chs: tile.chs.clone() };
    let acc = room(acc, tile.cols.len() * chs);
    match packed {
        PackedDepthwise::Words(packed) => {
            let lines = Lines::new(sram, h, tile.rows.clone(), tile.cols.clone(), chs, words);
            for (row, out) in rows {
                packed.sum(sram.simd, &lines, row, acc);
                stage.complete(&place(row), acc, operand, out);
            }
        }
        #[cfg(target_arch = "x86_64")]
        PackedDepthwise::Quads(packed) => {
            let lines = Lines::new(sram, h, tile.rows.clone(), tile.cols.clone(), chs, bytes);
            for (row, out) in rows {
                packed.sum(&lines, row, stage.sums_to(0, acc, out));
                stage.complete(&place(row), acc, operand, out);
            }
        }
    }
}
