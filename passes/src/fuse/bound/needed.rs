//! What every plan has of a graph: the columns that some reader needs.

use std::ops::Range;

use cranelift_entity::PrimaryMap;
use strata_backend::model::graph::{Topology, views_meet};
use strata_backend::model::{BufferRole, BufferView, StageGraph, StageId, StageNode, StageTemplate};

use crate::fuse::strips::window::windowed;

/// What every plan has of a graph.
pub(super) struct Needed {
    /// The graph with as many columns in the views of each stage as every plan has of them. How many they
    /// are is all that counts: where they begin is still said of the whole.
    pub(super) graph: StageGraph,
    /// What each stage reads, a view for each run of columns.
    pub(super) reads: PrimaryMap<StageId, Vec<BufferView>>,
}

impl Needed {
    pub(super) fn new(graph: &StageGraph, topology: &Topology) -> Self {
        let mut needed =
            Self { graph: graph.clone(), reads: graph.stages.keys().map(|_| Vec::new()).collect() };
        // Stages stand in topological order: what is needed of those that read a tensor is known before
        // those that write it are looked at.
        for stage in graph.stages.keys().collect::<Vec<StageId>>().into_iter().rev() {
            let node = &graph.stages[stage];
            let cols = needed.columns(graph, topology, stage);
            let reads = if may_split(node) { reads_for(&node.code, &cols) } else { whole_reads(&node.code) };
            needed.reads[stage] =
                reads.iter().flat_map(|read| read.runs.iter().map(|run| part(&read.view, run))).collect();
            let mut widths = reads.iter().map(|read| total(&read.runs)).chain([total(&cols)]);
            let code = node.code.map_views(|view| BufferView {
                cols: widths.next().expect("as many views as reads, and the output"),
                ..*view
            });
            needed.graph.stages[stage].code = code;
        }
        needed
    }

    /// The columns that every plan computes of a stage's output, counted from its first. Its readers are
    /// known.
    fn columns(&self, graph: &StageGraph, topology: &Topology, stage: StageId) -> Vec<Range<u32>> {
        let node = &graph.stages[stage];
        let out = node.code.out;
        let readers = &topology.uses[out.tensor].readers;
        let is_output = matches!(graph.buffers[out.tensor].role, BufferRole::Output(_));
        let is_read = readers.iter().any(|(_, read)| views_meet(read, &out));
        // What nobody reads runs all the same.
        if !may_split(node) || is_output || !is_read {
            return all_columns(&out);
        }
        columns_read(&out, readers.iter().flat_map(|(reader, _)| &self.reads[*reader]))
    }
}

/// The columns of a view that others read, counted from its first.
pub(super) fn columns_read<'v>(
    view: &BufferView,
    reads: impl IntoIterator<Item = &'v BufferView>,
) -> Vec<Range<u32>> {
    let reads = reads.into_iter().filter(|read| views_meet(read, view));
    let ranges = reads.map(|read| {
        let end = (read.col0 + read.cols).min(view.col0 + view.cols);
        read.col0.max(view.col0) - view.col0..end - view.col0
    });
    joined(ranges.collect())
}

/// Whether a stage may run in strips, whatever else runs in them.
fn may_split(node: &StageNode) -> bool {
    node.by_columns && windowed(&node.code, &(0..node.code.out.cols)).is_some()
}

/// What a stage reads of a view.
struct Read {
    view: BufferView,
    /// Columns, counted from the view's first.
    runs: Vec<Range<u32>>,
}

/// What a stage reads that runs as a whole.
fn whole_reads(code: &StageTemplate) -> Vec<Read> {
    code.reads().into_iter().map(|view| Read { runs: all_columns(&view), view }).collect()
}

/// What a stage that may run in strips reads at least if each of some columns of its output is computed.
fn reads_for(code: &StageTemplate, cols: &[Range<u32>]) -> Vec<Read> {
    let mut reads = whole_reads(code);
    let mut ranges = vec![Vec::new(); reads.len()];
    for col in cols.iter().cloned().flatten() {
        // A column all of whose windows lie in the padding has no code of its own: it reads nothing.
        let Some(column) = windowed(code, &(col..col + 1)) else { continue };
        for ((ranges, read), range) in ranges.iter_mut().zip(&reads).zip(column.reads) {
            ranges.push(range.unwrap_or(0..read.view.cols));
        }
    }
    for (read, ranges) in reads.iter_mut().zip(ranges) {
        read.runs = joined(ranges);
    }
    reads
}

/// Columns of a view, counted from its first.
fn part(view: &BufferView, cols: &Range<u32>) -> BufferView {
    BufferView { col0: view.col0 + cols.start, cols: cols.end - cols.start, ..*view }
}

/// All columns of a view, counted from its first.
fn all_columns(view: &BufferView) -> Vec<Range<u32>> {
    std::iter::once(0..view.cols).collect()
}

/// How many rows or columns ranges have that share none.
pub(super) fn total(ranges: &[Range<u32>]) -> u32 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Ranges, joined where they meet.
pub(super) fn joined(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
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
