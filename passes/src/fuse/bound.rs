//! Lower bounds that hold for every plan of the machine, whatever the planner offers or chooses.
//!
//! *Cycles*: the array makes at most `clusters * lanes` products a cycle, so a network takes at least its
//! products (4/9 of the direct count where Winograd is allowed) over that; DRAM moves at most its rate, so it
//! takes at least the compulsory bytes over that. The larger of both. It can be raised: the first phase's
//! first weights have to arrive before any product, and phases are at least one.
//!
//! *Bytes*: weights, inputs and outputs once. *Energy*: these bytes, and the energy on chip that every plan
//! has: the fewest products, each row written once and read once by each reader, weights read once a step
//! (two rows a step at most).
//!
//! What a stage computes that nobody reads does not count: a plan in column strips leaves such columns out.

use std::ops::Range;

use strata_backend::cost::{may_winograd, on_chip_energy};
use strata_backend::model::graph::{Topology, views_meet};
use strata_backend::model::tables::first_uses;
use strata_backend::model::{BufferId, BufferRole, Objective, StageGraph, StageId};
use strata_isa_spec::timing::dram_cycles;
use strata_isa_spec::{Target, View};

use crate::fuse::strips::window::windowed;

/// Bounds of a graph on a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// No plan takes fewer cycles.
    pub cycles: u64,
    /// No plan moves fewer DRAM bytes.
    pub bytes: u64,
    /// No plan takes less energy, in picojoules.
    pub energy_pj: f64,
}

impl Bounds {
    /// The bound under an objective, in its unit.
    pub fn of(&self, objective: Objective) -> f64 {
        match objective {
            Objective::Latency => self.cycles as f64,
            Objective::Traffic => self.bytes as f64,
            Objective::Energy => self.energy_pj,
            Objective::Edp => self.energy_pj * self.cycles as f64,
            Objective::Sram => 0.0,
        }
    }
}

/// The graph with each stage's code for columns that some plan has to compute. Of columns that are read
/// apart, only the widest run counts: strips may leave out what lies between.
fn needed(graph: &StageGraph, topology: &Topology) -> StageGraph {
    let mut needed = graph.clone();
    // Stages stand in topological order: those that read a tensor are narrow before those that write it.
    for stage in graph.stages.keys().collect::<Vec<StageId>>().into_iter().rev() {
        let node = &needed.stages[stage];
        let out = node.code.out;
        let is_output = matches!(graph.buffers[BufferId::from_u32(out.stream)].role, BufferRole::Output(_));
        if !node.by_columns || is_output {
            continue;
        }
        let readers = &topology.uses[out.stream as usize].readers;
        let reads = readers.iter().flat_map(|(reader, _)| needed.stages[*reader].code.reads());
        let read = reads.filter(|read| views_meet(read, &out)).map(|read| {
            let end = (read.col0 + read.cols).min(out.col0 + out.cols);
            read.col0.max(out.col0) - out.col0..end - out.col0
        });
        let widest = runs(read.collect()).into_iter().max_by_key(|run| run.end - run.start);
        if let Some(part) = widest.and_then(|run| windowed(&node.code, &run)) {
            needed.stages[stage].code = part.code;
        }
    }
    needed
}

/// Ranges, joined where they meet.
fn runs(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut runs: Vec<Range<u32>> = Vec::new();
    for range in ranges {
        match runs.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => runs.push(range),
        }
    }
    runs
}

/// Bytes that every plan moves: tables, the parts of inputs that are read, and outputs, once.
fn compulsory_bytes(graph: &StageGraph) -> u64 {
    let stages: Vec<StageId> = graph.stages.keys().collect();
    let firsts = first_uses(graph, &stages, &[]);
    let loaded = graph.stages.values().zip(firsts).filter(|(_, first)| first.is_first);
    let tables: u64 = loaded.map(|(node, _)| node.weight_bytes()).sum();
    let outside = graph.buffers.iter().map(|(id, buffer)| match buffer.role {
        BufferRole::Internal => 0,
        BufferRole::Input(_) => {
            let reads = graph.stages.values().flat_map(|node| node.code.reads());
            let reads = reads.filter(|view| view.stream == id.as_u32());
            n_elements(reads.collect()) * u64::from(buffer.elem.size_bytes())
        }
        BufferRole::Output(_) => buffer.size_bytes(),
    });
    tables + outside.sum::<u64>()
}

/// Elements that views of one buffer hold together.
fn n_elements(mut views: Vec<View>) -> u64 {
    views.sort_unstable_by_key(|v| (v.row0, v.rows, v.col0, v.cols, v.ch0, v.chs));
    views.dedup();
    // Between two neighbouring ends of views along an axis, all elements are in the same views.
    let cuts = |ends: &dyn Fn(&View) -> [u32; 2]| {
        let mut cuts: Vec<u32> = views.iter().flat_map(ends).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    };
    let rows = cuts(&|v| [v.row0, v.row0 + v.rows]);
    let cols = cuts(&|v| [v.col0, v.col0 + v.cols]);
    let chs = cuts(&|v| [v.ch0, v.ch0 + v.chs]);
    let holds = |from: u32, len: u32, at: u32| (from..from + len).contains(&at);
    let mut sum = 0;
    for row in rows.windows(2) {
        for col in cols.windows(2) {
            for ch in chs.windows(2) {
                let is_in = |v: &View| {
                    holds(v.row0, v.rows, row[0])
                        && holds(v.col0, v.cols, col[0])
                        && holds(v.ch0, v.chs, ch[0])
                };
                if views.iter().any(is_in) {
                    let extents = [row, col, ch].map(|ends| u64::from(ends[1] - ends[0]));
                    sum += extents.iter().product::<u64>();
                }
            }
        }
    }
    sum
}

/// Bounds of a graph on a target.
pub fn bounds(graph: &StageGraph, topology: &Topology, target: &Target) -> Bounds {
    let graph = &needed(graph, topology);
    let bytes = compulsory_bytes(graph);
    let macs: u64 =
        (graph.stages.values()).map(|node| node.code.array_macs(may_winograd(&node.code, target))).sum();
    let array = macs.div_ceil((u64::from(target.array.clusters) * u64::from(target.array.lanes)).max(1));
    // Winograd halves the steps and makes fewer products, so it takes the least energy wherever it is
    // allowed.
    let least = graph.stages.iter().map(|(stage, node)| (stage, may_winograd(&node.code, target)));
    let on_chip = on_chip_energy(graph, target, least);
    Bounds {
        cycles: array.max(dram_cycles(target, bytes)),
        bytes,
        energy_pj: on_chip + bytes as f64 * target.energy.dram_byte_pj,
    }
}

#[cfg(test)]
mod tests {
    use strata_backend::model::samples::Net;

    use super::*;

    #[test]
    fn elements_in_several_views_count_once_and_those_in_none_not() {
        let view =
            |row0: u32, col0: u32, ch0: u32| View { stream: 0, row0, rows: 2, col0, cols: 3, ch0, chs: 4 };
        assert_eq!(n_elements(vec![]), 0);
        assert_eq!(n_elements(vec![view(0, 0, 0), view(0, 0, 0)]), 24);
        assert_eq!(n_elements(vec![view(0, 0, 0), view(7, 0, 0)]), 48, "the rows between are not read");
        assert_eq!(n_elements(vec![view(0, 0, 0), view(1, 2, 3)]), 47, "they share one element");
    }

    #[test]
    fn columns_that_nobody_reads_do_not_count() {
        assert_eq!(runs(vec![4..6, 0..2, 1..3]), [0..3, 4..6]);
        let target = Target::preset("micro", &[]).expect("a preset");
        let bytes = |cropped: u32| {
            let mut net = Net::default();
            let input = net.input([4, 16, 8]);
            let wide = net.conv(input, 8, 1, 1);
            let out = net.conv(View { cols: 16 - cropped, ..wide }, 8, 1, 1);
            net.output(out, 0);
            let graph = net.finish();
            bounds(&graph, &Topology::new(&graph).expect("it is a graph"), &target)
        };
        let (whole, cropped) = (bytes(0), bytes(6));
        // Of the input and of the output.
        assert_eq!(whole.bytes - cropped.bytes, 2 * 6 * 4 * 8);
        assert!(cropped.cycles < whole.cycles && cropped.energy_pj < whole.energy_pj);
    }
}
