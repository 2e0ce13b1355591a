//! Lower bounds that hold for every plan of the machine, whatever the planner offers or chooses.
//!
//! A plan runs each stage of the graph once, as a whole or in strips of its columns, and each stage or strip
//! on the clusters of one partition, step by step, in the time that [`strata_isa_spec::timing`] says.
//!
//! *Columns*: a strip computes at least what its readers need, so a column of a stage is in every plan only
//! if some reader needs it for one of the columns that every plan has of that reader. An output is needed as
//! a whole, and so is what is read by a stage that cannot run in strips. What the windows of needed columns
//! step over is not: strips of one column each leave it out. What is needed of a stage, every plan computes
//! at least once and reads at least once.
//!
//! *Cycles*: with whatever mapping, a step takes at least its [`Work`] over the lanes of its partition, which
//! runs one step at a time, and partitions share no cluster. So the array takes at least all work over all
//! lanes. Work is what steps are charged for, which is not what energy counts: an element of a transposed
//! convolution is charged for the taps that can meet it, and those that padding cuts off for nothing. A step
//! of Winograd is charged for two rows, also where the last has but one, since rows are never divided; of its
//! tiles of two columns the last counts by half where it has but one, since a strip of one column may run
//! directly. DRAM moves at most its rate, one thing at a time, so it takes at least the compulsory bytes over
//! that. The larger of both. It can be raised: the first phase's first weights have to arrive before any
//! product, and phases are at least one.
//!
//! *Bytes*: tables, needed columns of inputs, and outputs, once. *Energy*: these bytes, and the energy on
//! chip that every plan has: the fewest products, needed columns written once and read once by each reader,
//! weights read once a step (two rows a step at most).

use std::ops::Range;

use cranelift_entity::PrimaryMap;
use strata_backend::cost::{may_winograd, on_chip_energy};
use strata_backend::model::graph::{Topology, views_meet};
use strata_backend::model::tables::first_uses;
use strata_backend::model::{
    BufferRole, BufferView, Objective, StageGraph, StageId, StageNode, StageTemplate,
};
use strata_isa_spec::Target;
use strata_isa_spec::timing::{Work, dram_cycles};

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

/// What every plan has of a graph.
struct Needed {
    /// The graph with as many columns in the views of each stage as every plan has of them. How many they
    /// are is all that counts: where they begin is still said of the whole.
    graph: StageGraph,
    /// What each stage reads, a view for each run of columns.
    reads: PrimaryMap<StageId, Vec<BufferView>>,
}

impl Needed {
    fn new(graph: &StageGraph, topology: &Topology) -> Self {
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
            let mut widths = reads.iter().map(|read| n_columns(&read.runs)).chain([n_columns(&cols)]);
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
        let reads = readers.iter().flat_map(|(reader, _)| &self.reads[*reader]);
        let ranges = reads.filter(|read| views_meet(read, &out)).map(|read| {
            let end = (read.col0 + read.cols).min(out.col0 + out.cols);
            read.col0.max(out.col0) - out.col0..end - out.col0
        });
        joined(ranges.collect())
    }
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

/// Columns of ranges that share none.
fn n_columns(ranges: &[Range<u32>]) -> u32 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Ranges, joined where they meet.
fn joined(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
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

/// Bytes that every plan moves: tables, the needed parts of inputs, and outputs, once.
fn compulsory_bytes(needed: &Needed) -> u64 {
    let graph = &needed.graph;
    let stages: Vec<StageId> = graph.stages.keys().collect();
    let firsts = first_uses(graph, &stages, &[]);
    let loaded = graph.stages.values().zip(firsts).filter(|(_, first)| first.is_first);
    let tables: u64 = loaded.map(|(node, _)| node.weight_bytes()).sum();
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
fn n_elements(mut views: Vec<BufferView>) -> u64 {
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

/// The least lanes times cycles that a stage keeps busy, in strips or not.
fn least_work(code: &StageTemplate, may_winograd: bool) -> u64 {
    let step = match code.work() {
        Work::Mac { pixels, channels, reduction, groups } => pixels * channels * reduction * groups,
        Work::Vector { elements } => elements,
        Work::Dma { .. } => 0,
    };
    let n_rows = u64::from(code.n_rows());
    // A tile of Winograd is 16 products for two pixels in each of two rows; directly a pixel takes 9. So two
    // rows, or the last one alone, are 8/9 of one that runs directly.
    if may_winograd { step * 8 / 9 * n_rows.div_ceil(2) } else { step * n_rows }
}

/// Bounds of a graph on a target.
pub fn bounds(graph: &StageGraph, topology: &Topology, target: &Target) -> Bounds {
    let needed = Needed::new(graph, topology);
    let graph = &needed.graph;
    let bytes = compulsory_bytes(&needed);
    let work = graph.stages.values().map(|node| least_work(&node.code, may_winograd(&node.code, target)));
    let lanes = u64::from(target.array.clusters) * u64::from(target.array.lanes);
    let array = work.sum::<u64>().div_ceil(lanes.max(1));
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
    use strata_backend::cost::with_winograd;
    use strata_backend::model::graph::StageSet;
    use strata_backend::model::samples::Net;
    use strata_backend::model::{BufferId, TableId};
    use strata_isa_spec::inst::TransposeConv2d;
    use strata_isa_spec::{Head, Mapping, timing};

    use super::*;
    use crate::fuse::strips::Strips;
    use crate::fuse::strips::realise::{Chosen, realise};

    fn bounds_of(graph: &StageGraph, target: &Target) -> Bounds {
        bounds(graph, &Topology::new(graph).expect("it is a graph"), target)
    }

    /// A target of one lane, which wastes none, on which DRAM takes no time worth counting.
    fn one_lane() -> Target {
        let mut target = Target::preset("micro", &[]).expect("a preset");
        (target.array.clusters, target.array.lanes) = (1, 1);
        target.dram.bytes_per_cycle = 1 << 20;
        target
    }

    /// Cycles that the one lane of a target works on all stages, each by the faster method, or directly where
    /// a strip is an odd column.
    fn cycles_of(graph: &StageGraph, target: &Target) -> u64 {
        let of = |code: &StageTemplate, winograd: bool| {
            let code = with_winograd(code, winograd);
            u64::from(code.n_steps()) * timing::step_cycles(target, &code.work(), &Mapping::default())
        };
        let fastest = |code: &StageTemplate| match may_winograd(code, target) {
            true => of(code, true).min(of(code, false)),
            false => of(code, false),
        };
        graph.stages.values().map(|node| fastest(&node.code)).sum()
    }

    /// Bytes of the inputs that stages read, each stage and each strip of it for itself.
    fn bytes_read(graph: &StageGraph) -> u64 {
        let reads = graph.stages.values().flat_map(|node| node.code.reads());
        let is_input = |view: &BufferView| matches!(graph.buffers[view.tensor].role, BufferRole::Input(_));
        reads.filter(is_input).map(|view| graph.view_bytes(&view)).sum()
    }

    /// The graph in so many strips, all stages together.
    fn in_strips(graph: &StageGraph, n: u32) -> StageGraph {
        let topology = Topology::new(graph).expect("it is a graph");
        let stages: Vec<StageId> = graph.stages.keys().collect();
        let set: StageSet = stages.iter().copied().collect();
        let strips = Strips::new(graph, &topology, &set, n).expect("it has strips");
        realise(graph, &[Chosen { stages: &stages, strips: Some(&strips) }]).graph
    }

    #[test]
    fn elements_in_several_views_count_once_and_those_in_none_not() {
        let view = |row0: u32, col0: u32, ch0: u32| BufferView {
            tensor: BufferId::from_u32(0),
            row0,
            rows: 2,
            col0,
            cols: 3,
            ch0,
            chs: 4,
        };
        assert_eq!(n_elements(vec![]), 0);
        assert_eq!(n_elements(vec![view(0, 0, 0), view(0, 0, 0)]), 24);
        assert_eq!(n_elements(vec![view(0, 0, 0), view(7, 0, 0)]), 48, "the rows between are not read");
        assert_eq!(n_elements(vec![view(0, 0, 0), view(1, 2, 3)]), 47, "they share one element");
    }

    #[test]
    fn columns_that_nobody_reads_do_not_count() {
        assert_eq!(joined(vec![4..6, 0..2, 1..3]), [0..3, 4..6]);
        let target = Target::preset("micro", &[]).expect("a preset");
        let bytes = |cropped: u32| {
            let mut net = Net::default();
            let input = net.input([4, 16, 8]);
            let wide = net.conv(input, 8, 1, 1);
            let out = net.conv(BufferView { cols: 16 - cropped, ..wide }, 8, 1, 1);
            net.output(out, 0);
            bounds_of(&net.finish(), &target)
        };
        let (whole, cropped) = (bytes(0), bytes(6));
        // Of the input and of the output.
        assert_eq!(whole.bytes - cropped.bytes, 2 * 6 * 4 * 8);
        assert!(cropped.cycles < whole.cycles && cropped.energy_pj < whole.energy_pj);
    }
    #[test]
    fn columns_that_windows_step_over_do_not_count() {
        let target = one_lane();
        let mut net = Net::default();
        let input = net.input([4, 16, 8]);
        let wide = net.conv(input, 8, 1, 1);
        let out = net.conv(wide, 8, 1, 3);
        net.output(out, 0);
        let graph = net.finish();
        let (least, whole) = (bounds_of(&graph, &target), graph.clone());
        // Strips of one column compute six of the sixteen columns, and read as many.
        let strips = in_strips(&graph, 6);
        assert_eq!(least.cycles, cycles_of(&strips, &target));
        assert_eq!(cycles_of(&whole, &target) - least.cycles, 10 * 4 * 8 * 8);
        let tables = graph.stages.values().map(StageNode::weight_bytes).sum::<u64>();
        assert_eq!(least.bytes, bytes_read(&strips) + tables + 2 * 6 * 8);
        assert_eq!(bytes_read(&whole) - bytes_read(&strips), 10 * 4 * 8);
    }

    #[test]
    fn a_transposed_convolution_counts_the_taps_that_meet_its_output() {
        let target = one_lane();
        let mut net = Net::default();
        let input = net.input([3, 3, 4]);
        let out = net.conv(input, 8, 3, 1);
        net.output(out, 0);
        let mut graph = net.finish();
        let stage = graph.stages.keys().next().expect("there is one");
        // Of the five rows and columns that it makes, the middle three are left.
        let head = TransposeConv2d {
            src: input,
            kernel_h: 3,
            kernel_w: 3,
            stride_h: 2,
            stride_w: 2,
            out_pad_top: -2,
            out_pad_left: -2,
            input_zp: 0,
            weight_zp: 0,
            weights: TableId::from_u32(0),
            bias: TableId::from_u32(1),
        };
        graph.stages[stage].code.head = Head::TransposeConv2d(head);
        let least = bounds_of(&graph, &target).cycles;
        assert_eq!(least, cycles_of(&graph, &target));
        assert!(least < graph.stages[stage].code.array_macs(false), "{least}");
    }

    /// In strips of any number, a graph takes no less than its bounds.
    #[test]
    fn strips_do_not_take_less() {
        let target = one_lane();
        for (rows, cols, chs) in [(1, 3, 16), (5, 7, 16), (6, 9, 4), (7, 11, 20)] {
            let mut net = Net::default();
            let input = net.input([rows, cols, chs]);
            let a = net.conv(input, 16, 3, 1);
            let b = net.conv(a, 24, 3, 1);
            let pool = net.max_pool(b, 1, 2);
            let out = net.depthwise(pool, 1);
            net.output(out, 0);
            let graph = net.finish();
            let least = bounds_of(&graph, &target);
            assert!(least.cycles <= cycles_of(&graph, &target));
            let outputs = u64::from(out.rows * out.cols * out.chs);
            let tables = graph.stages.values().map(StageNode::weight_bytes).sum::<u64>();
            for n in 2..=out.cols {
                let strips = in_strips(&graph, n);
                let what = format!("{rows}x{cols}x{chs} in {n} strips");
                assert!(least.cycles <= cycles_of(&strips, &target), "{what}");
                assert!(least.bytes <= bytes_read(&strips) + tables + outputs, "{what}");
                let stages = strips.stages.iter();
                let methods = stages.map(|(stage, node)| (stage, may_winograd(&node.code, &target)));
                let energy = on_chip_energy(&strips, &target, methods);
                let dram = least.bytes as f64 * target.energy.dram_byte_pj;
                assert!(least.energy_pj <= energy + dram, "{what}");
            }
        }
    }
}
