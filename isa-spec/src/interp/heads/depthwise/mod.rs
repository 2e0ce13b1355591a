//! Depthwise convolutions of bytes.

mod lines;
#[cfg(target_arch = "x86_64")]
mod quads;
mod words;

use self::lines::Lines;
#[cfg(target_arch = "x86_64")]
use self::quads::Quads;
use self::words::Words;
use super::{Ready, finish};
use crate::inst::DepthwiseConv2d;
use crate::interp::fused::{Fused, Rescaled};
use crate::interp::kernels::Out;
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
    let Ready { sram, fused, .. } = *stage;
    let Scratch { acc, operand, words, bytes, .. } = scratch;
    let (cols, chs) = (tile.cols.len(), tile.chs.len());
    let row_bytes = out.len() / tile.rows.len().max(1);
    let rows = tile.rows.clone().zip(out.chunks_exact_mut(row_bytes.max(1)));
    let place = |row: u32| Place { row, cols: tile.cols.clone(), chs: tile.chs.clone() };
    acc.resize(cols * chs, 0);
    match packed {
        PackedDepthwise::Words(packed) => {
            let lines = Lines::new(sram, h, tile.rows.clone(), tile.cols.clone(), chs, words);
            for (row, out) in rows {
                packed.sum(sram.simd, &lines, row, acc);
                finish(stage, 0, &place(row), acc, operand, out);
            }
        }
        #[cfg(target_arch = "x86_64")]
        PackedDepthwise::Quads(packed) => {
            let lines = Lines::new(sram, h, tile.rows.clone(), tile.cols.clone(), chs, bytes);
            for (row, out) in rows {
                let place = place(row);
                match fused {
                    None => {
                        packed.sum(&lines, row, Out::Sums(acc));
                        finish(stage, 0, &place, acc, operand, out);
                    }
                    Some(Fused { scales, rescaled: Rescaled::Numbers { limits } }) => {
                        packed.sum(&lines, row, Out::Scaled(&scales[0], *limits, acc));
                        finish(stage, 1, &place, acc, operand, out);
                    }
                    Some(Fused { scales, rescaled: Rescaled::Bytes(tails) }) => {
                        packed.sum(&lines, row, Out::Bytes(&scales[0], out));
                        for tail in tails {
                            tail.apply(sram, &place, out);
                        }
                    }
                }
            }
        }
    }
}
