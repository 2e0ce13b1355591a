//! The activation table: how large the outputs of a network's convolutions are, and what the naive rule spills.
//!
//! The naive rule is the one that a first estimate uses: an output larger than activation SRAM goes to DRAM and is
//! read back, and everything else is free. It ignores that a layer's inputs and the tensors that skip layers are alive
//! too; plans count true lifetimes instead.

use serde::{Deserialize, Serialize};
use strata_isa_spec::Head;
use strata_passes::plan::StageGraph;

/// The outputs of convolutions by size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivationTable {
    /// Size classes, largest first: log2 of the bytes, rounded to the nearest whole number, and how many
    /// convolutions have such an output. A shortcut add is part of the convolution before it.
    pub classes: Vec<(i32, usize)>,
    /// Convolutions whose output is larger than activation SRAM, by name and bytes, largest first.
    pub spilled: Vec<(String, u64)>,
}

impl ActivationTable {
    /// The table of a network for a machine with so many bytes of activation SRAM.
    pub fn new(graph: &StageGraph, sram_bytes: u64) -> Self {
        let mut outputs: Vec<(String, u64)> = Vec::new();
        for node in graph.stages.values() {
            let convolution =
                matches!(node.code.head, Head::Conv2d(_) | Head::DepthwiseConv2d(_) | Head::TransposeConv2d(_));
            if !convolution {
                continue;
            }
            let elem = graph.buffers.values().nth(node.code.out.stream as usize).map_or(1, |b| b.elem.size_bytes());
            let bytes = node.code.out.n_elements() * u64::from(elem);
            // The parts of a layer that was split by output channels follow each other under one name.
            match outputs.last_mut() {
                Some((name, sum)) if *name == node.name => *sum += bytes,
                _ => outputs.push((node.name.clone(), bytes)),
            }
        }
        let mut classes: Vec<(i32, usize)> = Vec::new();
        for (_, bytes) in &outputs {
            let class = (*bytes as f64).log2().round() as i32;
            match classes.iter_mut().find(|(c, _)| *c == class) {
                Some((_, n)) => *n += 1,
                None => classes.push((class, 1)),
            }
        }
        classes.sort_by_key(|&(class, _)| std::cmp::Reverse(class));
        let mut spilled: Vec<_> = outputs.into_iter().filter(|(_, bytes)| *bytes > sram_bytes).collect();
        spilled.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Self { classes, spilled }
    }

    /// Bytes that the naive rule writes to DRAM, and then reads back.
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// A number of bytes as people write it: `64 MiB`, `512 KiB`, `192.5 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) if bytes.is_multiple_of(*size) => format!("{} {unit}", bytes / size),
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}
