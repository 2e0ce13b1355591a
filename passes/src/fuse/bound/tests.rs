use strata_backend::cost::with_winograd;
use strata_backend::model::graph::StageSet;
use strata_backend::model::samples::Net;
use strata_backend::model::{BufferId, BufferRole, TableId};
use strata_isa_spec::inst::TransposeConv2d;
use strata_isa_spec::{Head, Mapping, timing};

use super::bytes::n_elements;
use super::needed::joined;
use super::*;
use crate::fuse::strips::Strips;
use crate::fuse::strips::realise::{Chosen, realise};
use strata_backend::cost::may_winograd;
use strata_backend::model::{BufferView, StageGraph, StageId, StageNode, StageTemplate};

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
