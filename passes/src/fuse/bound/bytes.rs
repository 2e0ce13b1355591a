//! The DRAM bytes that every plan moves.

use cranelift_entity::PrimaryMap;
use strata_backend::model::tables::first_uses;
use strata_backend::model::{BufferRole, BufferView, StageGraph, StageId};

use super::needed::Needed;

/// Bytes of the tables of each stage, unless an earlier stage has the same.
pub(super) fn table_bytes(graph: &StageGraph) -> PrimaryMap<StageId, u64> {
    let stages: Vec<StageId> = graph.stages.keys().collect();
    let firsts = first_uses(graph, &stages, &[]);
    let bytes = graph.stages.values().zip(firsts);
    bytes.map(|(node, first)| if first.is_first { node.weight_bytes() } else { 0 }).collect()
}

/// Bytes that every plan moves: tables, the needed parts of inputs, and outputs, once.
pub(super) fn compulsory_bytes(needed: &Needed) -> u64 {
    let graph = &needed.graph;
    let tables: u64 = table_bytes(graph).values().sum();
    let outside = graph.buffers.iter().map(|(id, buffer)| match buffer.role {
        BufferRole::Internal => 0,
        BufferRole::Input(_) => {
            let reads = needed.reads.values().flatten().filter(|view| view.tensor == id);
            n_elements(reads.copied().collect()) * u64::from(buffer.elem.size_bytes())
        }
        BufferRole::Output(_) => buffer.size_bytes(),
    });
    tables + outside.sum::<u64>()
}

/// Elements that views of one buffer hold together.
pub(super) fn n_elements(mut views: Vec<BufferView>) -> u64 {
    views.sort_unstable_by_key(|v| (v.row0, v.rows, v.col0, v.cols, v.ch0, v.chs));
    views.dedup();
    // Between two neighbouring ends of views along an axis, all elements are in the same views.
    let cuts = |ends: &dyn Fn(&BufferView) -> [u32; 2]| {
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
        let in_row: Vec<&BufferView> = views.iter().filter(|v| holds(v.row0, v.rows, row[0])).collect();
        for col in cols.windows(2) {
            let in_col: Vec<&BufferView> =
                in_row.iter().copied().filter(|v| holds(v.col0, v.cols, col[0])).collect();
            for ch in chs.windows(2) {
                if in_col.iter().any(|v| holds(v.ch0, v.chs, ch[0])) {
                    let extents = [row, col, ch].map(|ends| u64::from(ends[1] - ends[0]));
                    sum += extents.iter().product::<u64>();
                }
            }
        }
    }
    sum
}
