//! The article's view of a network: how large each convolution's output is, and what a naive layer-by-layer
//! machine spills.
//!
//! One entry a convolution, its shortcut added; sizes are rounded to the nearest power of two MiB. The naive
//! rule spills an output that is larger than activation SRAM and takes everything else for free: it forgets
//! that inputs and skips are alive too. True lifetimes are the planner's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_isa_spec::inst::Head;

use crate::model::{BufferId, StageGraph, TemplateHead};

/// Outputs by size, and the naive spill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationTable {
    /// Convolutions by output size: exponent `k` of the nearest `2^k` bytes, and how many.
    pub convolutions: BTreeMap<u32, u32>,
    /// Convolutions whose output is larger than activation SRAM.
    pub spilled: u32,
    /// Bytes of these outputs.
    pub spilled_bytes: u64,
}

/// Reads the table off a graph. Stages that write parts of one output's channels, as a split layer's do,
/// count once.
pub fn activation_table(graph: &StageGraph, activation_sram_bytes: u64) -> ActivationTable {
    // A layer is what stages of one input, kernel and output buffer make of adjoining channels.
    let mut layers: Vec<(BufferId, TemplateHead, u32, u64)> = Vec::new();
    let is_convolution = |head: &TemplateHead| {
        matches!(
            head,
            Head::Conv2d(_)
                | Head::DepthwiseConv2d(_)
                | Head::TransposeConv2d(_)
                | Head::Conv2dI16(_)
                | Head::DepthwiseConv2dI16(_)
                | Head::TransposeConv2dI16(_)
        )
    };
    // A plan may have moved the parts of a layer apart; by buffer and channel they stand together.
    let mut nodes: Vec<_> = graph.stages.values().filter(|node| is_convolution(&node.code.head)).collect();
    nodes.sort_by_key(|node| (node.code.out.tensor, node.code.out.ch0));
    for node in nodes {
        let out = &node.code.out;
        let buffer = out.tensor;
        let bytes = out.n_elements() * u64::from(graph.buffers[buffer].elem.size_bytes());
        match layers.last_mut() {
            Some((last, head, next, sum))
                if *last == buffer && *next == out.ch0 && continues(head, &node.code.head) =>
            {
                *next += out.chs;
                *sum += bytes;
            }
            _ => layers.push((buffer, node.code.head, out.ch0 + out.chs, bytes)),
        }
    }
    let mut table = ActivationTable::default();
    for (_, _, _, bytes) in layers {
        *table.convolutions.entry(nearest_power(bytes)).or_default() += 1;
        if bytes > activation_sram_bytes {
            table.spilled += 1;
            table.spilled_bytes += bytes;
        }
    }
    table
}

/// Whether a head is the next part of a layer that was split by output channels.
fn continues(first: &TemplateHead, next: &TemplateHead) -> bool {
    match (first, next) {
        (Head::Conv2d(a), Head::Conv2d(b)) | (Head::Conv2dI16(a), Head::Conv2dI16(b)) => {
            a.src == b.src && a.window == b.window && a.groups == 1
        }
        (Head::DepthwiseConv2d(a), Head::DepthwiseConv2d(b))
        | (Head::DepthwiseConv2dI16(a), Head::DepthwiseConv2dI16(b)) => {
            a.src.tensor == b.src.tensor && a.window == b.window && a.src.ch0 + a.src.chs <= b.src.ch0
        }
        (Head::TransposeConv2d(a), Head::TransposeConv2d(b))
        | (Head::TransposeConv2dI16(a), Head::TransposeConv2dI16(b)) => a.src == b.src,
        _ => false,
    }
}

/// The exponent of the power of two that is nearest to a positive number.
fn nearest_power(bytes: u64) -> u32 {
    let below = bytes.max(1).ilog2();
    let midpoint = (1u128 << below) + (1u128 << below) / 2;
    below + u32::from(u128::from(bytes) >= midpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::yolov3;

    /// The counts of the article (23 where it has 24), and its 192 MiB in seven layers.
    #[test]
    fn yolov3_at_two_megapixels() {
        let table = activation_table(&yolov3(1024, 2048), 8 << 20);
        let by_size: Vec<(u32, u32)> = table.convolutions.into_iter().rev().collect();
        let expected = [(26, 1), (25, 2), (24, 4), (23, 15), (22, 23), (21, 20), (20, 8), (19, 2)];
        assert_eq!(by_size, expected);
        assert_eq!((table.spilled, table.spilled_bytes), (7, 192 << 20));
    }
}
