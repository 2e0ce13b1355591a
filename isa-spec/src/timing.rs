//! Timing formulas. Each stands here once: the timed interpreter and the planner's cost model both call them.
//!
//! A stage advances by steps (one output row, two with Winograd). The tails are pipelined behind the array
//! and take no time of their own. Elementwise, pooling, resize and addressing heads run on the vector lanes
//! of their partition's clusters, one element a lane a cycle. DMA stages take no cluster time.

use serde::{Deserialize, Serialize};

use crate::inst::{Axis, Head, ResizeMode, Window};
use crate::program::{Mapping, StageCode};
use crate::target::Target;

/// Input channels from which Winograd pays: below, the input transform outweighs what it saves.
pub const WINOGRAD_LEAST_CHANNELS: u32 = 16;

/// How much work one step of a stage is, as the array sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Work {
    /// Multiply-accumulates, in three extents that the array divides. With Winograd, pixels are 2x2 tiles of
    /// two rows and the reduction counts 16 products a tile and input channel; with `i16` activations it
    /// counts every product once for each pair of bytes.
    Mac {
        /// Output pixels (tiles) of a step.
        pixels: u64,
        /// Output channels of a group.
        channels: u64,
        /// Products summed into one output.
        reduction: u64,
        /// Groups, run one after another.
        groups: u64,
    },
    /// Elements that pass through the vector lanes.
    Vector {
        /// Elements of a step.
        elements: u64,
    },
    /// A DMA transfer of so many bytes a step.
    Dma {
        /// Bytes of a step.
        bytes: u64,
    },
}

/// Whether a convolution of this geometry may run as Winograd F(2x2,3x3): 3x3, stride 1, dilation 1,
/// ungrouped, at least [`WINOGRAD_LEAST_CHANNELS`] input channels.
pub fn winograd_eligible(window: &Window, groups: u32, input_channels: u32) -> bool {
    let Window { kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, .. } = *window;
    (kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w) == (3, 3, 1, 1, 1, 1)
        && groups == 1
        && input_channels >= WINOGRAD_LEAST_CHANNELS
}

impl<Tensor: Copy + PartialEq, Addr: Copy> StageCode<Tensor, Addr> {
    /// The work of one step.
    pub fn work(&self) -> Work {
        let out = &self.out;
        let (cols, chs) = (u64::from(out.cols), u64::from(out.chs));
        let row = cols * chs;
        let window_taps = |w: &Window| u64::from(w.kernel_h) * u64::from(w.kernel_w);
        let bytes = self.byte_products();
        match &self.head {
            Head::Conv2d(h) | Head::Conv2dI16(h) => {
                let groups = u64::from(h.groups.max(1));
                let inputs = u64::from(h.src.chs) / groups;
                if h.winograd {
                    Work::Mac { pixels: cols.div_ceil(2), channels: chs, reduction: inputs * 16, groups }
                } else {
                    let reduction = inputs * window_taps(&h.window) * bytes;
                    Work::Mac { pixels: cols, channels: chs / groups, reduction, groups }
                }
            }
            Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => {
                let reduction = window_taps(&h.window) * bytes;
                Work::Mac { pixels: cols, channels: chs, reduction, groups: 1 }
            }
            Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => {
                let taps = u64::from(h.kernel_h).div_ceil(u64::from(h.stride_h.max(1)))
                    * u64::from(h.kernel_w).div_ceil(u64::from(h.stride_w.max(1)));
                let reduction = u64::from(h.src.chs) * taps * bytes;
                Work::Mac { pixels: cols, channels: chs, reduction, groups: 1 }
            }
            Head::MatMul(h) | Head::MatMulI16(h) => {
                Work::Mac { pixels: cols, channels: chs, reduction: u64::from(h.a.chs) * bytes, groups: 1 }
            }
            Head::MaxPool2d(h) => Work::Vector { elements: row * window_taps(&h.window) },
            Head::AvgPool2d(h) => Work::Vector { elements: row * window_taps(&h.window) },
            Head::Resize(h) => {
                Work::Vector { elements: row * if h.mode == ResizeMode::Bilinear { 4 } else { 1 } }
            }
            Head::Load(_) | Head::Pad(_) | Head::Permute(_) => Work::Vector { elements: row },
            Head::Reduce(h) => {
                let extent = match h.axis {
                    Axis::H => h.src.rows,
                    Axis::W => h.src.cols,
                    Axis::C => h.src.chs,
                };
                Work::Vector { elements: row * u64::from(extent) }
            }
            Head::Argmax(h) => Work::Vector { elements: u64::from(h.src.cols) * u64::from(h.src.chs) },
            // The element size of a DMA stage is its stream's; bytes are filled in by the caller that knows
            // it.
            Head::DmaIn(_) => Work::Dma { bytes: row },
            Head::DmaOut(h) => Work::Dma { bytes: u64::from(h.src.cols) * u64::from(h.src.chs) },
        }
    }

    /// Int8 products that the array makes for one product of the head: it multiplies bytes, so an `i16` by an
    /// `i8` takes two (the high and the low byte), in which `i16` activations run at half rate, and an `i16`
    /// by an `i16` four.
    pub fn byte_products(&self) -> u64 {
        match &self.head {
            Head::Conv2dI16(_) | Head::DepthwiseConv2dI16(_) | Head::TransposeConv2dI16(_) => 2,
            Head::MatMulI16(_) => 4,
            _ => 1,
        }
    }

    /// Int8 multiply-accumulates that the array performs for the whole stage:
    /// [`byte_products`](Self::byte_products) for each of the head's, of which Winograd leaves 4/9. Energy
    /// counts these, at the price of one int8 MAC.
    pub fn array_macs(&self, winograd: bool) -> u64 {
        let macs = self.macs_direct() * self.byte_products();
        if winograd { macs * 4 / 9 } else { macs }
    }

    /// Multiply-accumulates of the whole stage by the direct method.
    pub fn macs_direct(&self) -> u64 {
        let per_row = |window_inputs: u64| u64::from(self.out.cols) * u64::from(self.out.chs) * window_inputs;
        let a_row = match &self.head {
            Head::Conv2d(h) | Head::Conv2dI16(h) => per_row(
                u64::from(h.window.kernel_h) * u64::from(h.window.kernel_w) * u64::from(h.src.chs)
                    / u64::from(h.groups.max(1)),
            ),
            Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => {
                per_row(u64::from(h.window.kernel_h) * u64::from(h.window.kernel_w))
            }
            Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => {
                // Every input pixel meets every tap once, whatever the stride.
                return h.src.n_elements()
                    * u64::from(h.kernel_h)
                    * u64::from(h.kernel_w)
                    * u64::from(self.out.chs);
            }
            Head::MatMul(h) | Head::MatMulI16(h) => per_row(u64::from(h.a.chs)),
            _ => 0,
        };
        a_row * u64::from(self.out.rows)
    }

    /// Multiply-accumulates where eligible convolutions run Winograd: 4/9 of the direct count, else the
    /// direct count.
    pub fn macs_winograd(&self) -> u64 {
        match &self.head {
            Head::Conv2d(h) if winograd_eligible(&h.window, h.groups, h.src.chs) => {
                self.macs_direct() * 4 / 9
            }
            _ => self.macs_direct(),
        }
    }

    /// Steps that the stage takes.
    pub fn n_steps(&self) -> u32 {
        self.n_rows().div_ceil(self.rows_per_step())
    }
}

/// Array cycles of one step: for MACs
/// `groups * ceil(pixels / clusters_pixels) * ceil(channels / channel_lanes) *
/// ceil(reduction / reduction_lanes)`, where a cluster's `lanes` split as `lanes_reduction` x the rest; for
/// vector work `ceil(elements / (clusters * lanes))`. DMA takes none. At least one cycle otherwise.
pub fn step_cycles(target: &Target, work: &Work, mapping: &Mapping) -> u64 {
    let lanes = u64::from(target.array.lanes);
    match *work {
        Work::Mac { pixels, channels, reduction, groups } => {
            let reduction_lanes = u64::from(mapping.lanes_reduction) * u64::from(mapping.clusters_reduction);
            let channel_lanes =
                lanes / u64::from(mapping.lanes_reduction.max(1)) * u64::from(mapping.clusters_channels);
            groups
                * pixels.div_ceil(u64::from(mapping.clusters_pixels.max(1)))
                * channels.div_ceil(channel_lanes.max(1))
                * reduction.div_ceil(reduction_lanes.max(1))
        }
        Work::Vector { elements } => elements.div_ceil(mapping.clusters().max(1) * lanes).max(1),
        Work::Dma { .. } => 0,
    }
}

/// The mapping of least cycles a step on at most `clusters` clusters, and its cycles. Ties go to fewer
/// clusters over the reduction, then over pixels.
pub fn best_mapping(target: &Target, work: &Work, clusters: u32) -> (Mapping, u64) {
    let clusters = clusters.max(1);
    if !matches!(work, Work::Mac { .. }) {
        let mapping = Mapping { clusters_channels: clusters, ..Mapping::default() };
        return (mapping, step_cycles(target, work, &mapping));
    }
    let mut best: Option<(u64, Mapping)> = None;
    for clusters_reduction in 1..=clusters {
        for clusters_pixels in 1..=clusters / clusters_reduction {
            let clusters_channels = clusters / clusters_reduction / clusters_pixels;
            let mut lanes_reduction = 1;
            while lanes_reduction <= target.array.lanes {
                let mapping =
                    Mapping { lanes_reduction, clusters_reduction, clusters_channels, clusters_pixels };
                let cycles = step_cycles(target, work, &mapping);
                if best.is_none_or(|(least, _)| cycles < least) {
                    best = Some((cycles, mapping));
                }
                lanes_reduction *= 2;
            }
        }
    }
    let (cycles, mapping) = best.expect("one cluster always has a mapping");
    (mapping, cycles)
}

/// Cycles that DRAM is busy with a transfer, without its latency.
pub fn dram_cycles(target: &Target, bytes: u64) -> u64 {
    bytes.div_ceil(u64::from(target.dram.bytes_per_cycle.max(1)))
}
