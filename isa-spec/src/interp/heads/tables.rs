//! What heads read from weight SRAM.

use std::sync::Arc;

use super::{PackedConv, PackedDepthwise, PackedTransposed};
use crate::inst::{Conv2d, DepthwiseConv2d, Head, TransposeConv2d};
use crate::interp::kernels::Layout;
use crate::interp::lanes::Sums;
use crate::interp::simd::Simd;
use crate::interp::sram::WeightSram;
use crate::interp::wide::WideTables;
use crate::program::StageCode;

/// What a head reads.
#[derive(Clone, Debug)]
pub(in crate::interp) enum HeadTables {
    None,
    Conv(Arc<PackedConv>),
    Transposed(Arc<PackedTransposed>),
    Depthwise(Arc<PackedDepthwise>),
    /// Weights and biases of sums in 48 bits.
    Wide(Arc<WideTables>),
}

impl HeadTables {
    /// The sums of each group of channels, where tails may be done with them as a kernel makes them.
    pub(in crate::interp) fn sums(&self) -> Option<Vec<Sums>> {
        match self {
            Self::Conv(packed) => packed.sums(),
            Self::Depthwise(packed) => packed.sums().map(|sums| vec![sums]),
            _ => None,
        }
    }

    /// The tables of a stage's head.
    pub(in crate::interp) fn new(code: &StageCode, weights: WeightSram<'_>, simd: Simd) -> Self {
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
                let packed =
                    PackedDepthwise::new(h, simd, &weights.i8s(h.weights, n), &weights.i32s(h.bias, chs));
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
