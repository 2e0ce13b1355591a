//! Stages that are alike in all but which channels of a buffer they write, as parts of a layer are that was
//! split by output channels: whatever plan runs one before the other, there is one that costs the same with
//! the two exchanged. So of interchangeable the earlier may be taken to run no later, and of the many orders
//! of many parts one is looked at.

use strata_backend::model::graph::{BufferUses, Topology};
use strata_backend::model::{StageGraph, StageId};
use strata_isa_spec::{StageCode, View};

/// For each stage, by index, the one before it that is its twin, if it has one.
pub fn interchangeable(graph: &StageGraph, topology: &Topology) -> Vec<Option<StageId>> {
    let mut before = vec![None; graph.stages.len()];
    for uses in &topology.uses {
        for pair in uses.writers.windows(2) {
            let [(first, _), (second, _)] = *pair else { continue };
            if are_twins(graph, uses, first, second) {
                before[second.as_u32() as usize] = Some(first);
            }
        }
    }
    before
}

fn are_twins(graph: &StageGraph, uses: &BufferUses, first: StageId, second: StageId) -> bool {
    let (a, b) = (&graph.stages[first], &graph.stages[second]);
    let elsewhere = |code: &StageCode| StageCode { out: View { ch0: 0, ..code.out }, ..code.clone() };
    // Who reads one of them reads both, whole.
    let reads_alike = |(_, read): &(StageId, View)| {
        let holds = |out: &View| read.ch0 <= out.ch0 && out.ch0 + out.chs <= read.ch0 + read.chs;
        let misses = |out: &View| read.ch0 + read.chs <= out.ch0 || out.ch0 + out.chs <= read.ch0;
        let (a, b) = (&a.code.out, &b.code.out);
        holds(a) && holds(b) || misses(a) && misses(b)
    };
    a.table_bytes == b.table_bytes
        && (a.table_set, b.table_set) == (None, None)
        && a.by_columns == b.by_columns
        && elsewhere(&a.code) == elsewhere(&b.code)
        && uses.readers.iter().all(reads_alike)
}
