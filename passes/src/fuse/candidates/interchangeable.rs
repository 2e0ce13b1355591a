//! Stages that are alike in all but which channels of a buffer they write, as parts of a layer are that was
//! split by output channels: whatever plan runs one before the other, there is one that costs the same with
//! the two exchanged. So interchangeable stages run in the order of their numbers, and the search looks at
//! one
//! of their orders (symmetry breaking).

use cranelift_entity::PrimaryMap;
use strata_backend::model::graph::{BufferUses, Topology};
use strata_backend::model::{BufferView, StageGraph, StageId, StageTemplate};

/// For each stage the one before it that it is interchangeable with, if there is one.
pub fn interchangeable(graph: &StageGraph, topology: &Topology) -> PrimaryMap<StageId, Option<StageId>> {
    let mut before: PrimaryMap<StageId, Option<StageId>> = graph.stages.keys().map(|_| None).collect();
    for uses in topology.uses.values() {
        for pair in uses.writers.windows(2) {
            let [(first, _), (second, _)] = *pair else { continue };
            if are_interchangeable(graph, uses, first, second) {
                before[second] = Some(first);
            }
        }
    }
    before
}

fn are_interchangeable(graph: &StageGraph, uses: &BufferUses, first: StageId, second: StageId) -> bool {
    let (a, b) = (&graph.stages[first], &graph.stages[second]);
    let elsewhere =
        |code: &StageTemplate| StageTemplate { out: BufferView { ch0: 0, ..code.out }, ..code.clone() };
    // Who reads one of them reads both, whole.
    let reads_alike = |(_, read): &(StageId, BufferView)| {
        let holds = |out: &BufferView| read.ch0 <= out.ch0 && out.ch0 + out.chs <= read.ch0 + read.chs;
        let misses = |out: &BufferView| read.ch0 + read.chs <= out.ch0 || out.ch0 + out.chs <= read.ch0;
        let (a, b) = (&a.code.out, &b.code.out);
        holds(a) && holds(b) || misses(a) && misses(b)
    };
    a.table_bytes == b.table_bytes
        && (a.table_set, b.table_set) == (None, None)
        && a.by_columns == b.by_columns
        && elsewhere(&a.code) == elsewhere(&b.code)
        && uses.readers.iter().all(reads_alike)
}
