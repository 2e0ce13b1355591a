//! Windows of single stages against the taps of the whole, and ranges of small nets against figures by hand.

use std::ops::Range;

use strata_backend::model::graph::{StageSet, Topology};
use strata_backend::model::samples::Net;
use strata_backend::model::{
    BufferId, BufferView, StageGraph, StageId, StageTemplate, TableId, TemplateHead,
};
use strata_isa_spec::inst::{
    Axis, Load, MaxPool2d, Pad, Reduce, ReduceKind, Resize, ResizeMode, TransposeConv2d, Window,
};
use strata_isa_spec::{Head, Target};

use crate::fuse::candidates::candidate::{Candidate, Context, How, Variant};
use crate::fuse::strips::Strips;
use crate::fuse::strips::realise::{Chosen, realise};
use crate::fuse::strips::window::windowed;

fn of(head: TemplateHead, out_cols: u32) -> StageTemplate {
    StageTemplate { head, tail: Vec::new(), out: BufferView::whole(BufferId::from_u32(1), 1, out_cols, 1) }
}

fn src(cols: u32) -> BufferView {
    BufferView::whole(BufferId::from_u32(0), 1, cols, 1)
}

/// The input columns, counted in the buffer, that make column `col` of the output, each with the tap or
/// weight it meets, by the heads' own definitions.
fn taps(code: &StageTemplate, col: u32) -> Vec<(i64, i64)> {
    let col = i64::from(col);
    let within = |view: &BufferView, x: i64| (0..i64::from(view.cols)).contains(&x);
    let absolute = |view: &BufferView, x: i64| i64::from(view.col0) + x;
    match &code.head {
        Head::Load(h) => vec![(absolute(&h.src, col), 0)],
        Head::MaxPool2d(h) => (0..i64::from(h.window.kernel_w))
            .map(|k| {
                let first = col * i64::from(h.window.stride_w) - i64::from(h.window.pad_left);
                (first + k * i64::from(h.window.dilation_w), k)
            })
            .filter(|(x, _)| within(&h.src, *x))
            .map(|(x, k)| (absolute(&h.src, x), k))
            .collect(),
        Head::TransposeConv2d(h) => (0..i64::from(h.src.cols))
            .map(|x| (x, col - x * i64::from(h.stride_w) - i64::from(h.out_pad_left)))
            .filter(|(_, k)| (0..i64::from(h.kernel_w)).contains(k))
            .map(|(x, k)| (absolute(&h.src, x), k))
            .collect(),
        Head::Resize(h) => {
            let position = col * i64::from(h.scale_x_d) + i64::from(h.offset_x);
            let (n, last) = (i64::from(h.scale_x_n), i64::from(h.src.cols) - 1);
            let (floor, rest) = (position.div_euclid(n), position.rem_euclid(n));
            let clamp = |x: i64| absolute(&h.src, x.clamp(0, last));
            match h.mode {
                ResizeMode::Nearest => vec![(clamp(floor + i64::from(rest * 2 >= n)), 0)],
                ResizeMode::Bilinear => vec![(clamp(floor), n - rest), (clamp(floor + 1), rest)],
            }
        }
        Head::Pad(h) => {
            let x = col - i64::from(h.left);
            if within(&h.src, x) { vec![(absolute(&h.src, x), 0)] } else { Vec::new() }
        }
        other => unreachable!("no taps of {other:?}"),
    }
}

/// Every window of a stage that is granted makes each of its columns of the taps of the whole; at least
/// `least` are.
fn holds(code: &StageTemplate, least: usize) {
    let mut granted = 0;
    for start in 0..code.out.cols {
        for end in start + 1..=code.out.cols {
            let Some(part) = windowed(code, &(start..end)) else { continue };
            granted += 1;
            assert_eq!((part.code.out.col0, part.code.out.cols), (code.out.col0 + start, end - start));
            for col in start..end {
                assert_eq!(taps(&part.code, col - start), taps(code, col), "{start}..{end} of {code:?}");
            }
            let view = part.code.reads()[0];
            assert_eq!(part.reads[0], Some(view.col0..view.col0 + view.cols));
        }
    }
    assert!(granted >= least, "{granted} windows of {code:?}");
}

#[test]
fn windows_have_the_taps_of_the_whole() {
    for (kernel, stride, dilation, pad, cols) in [
        (1, 1, 1, 0, 9),
        (3, 1, 1, 1, 9),
        (3, 2, 1, 1, 10),
        (5, 1, 2, 4, 9),
        (2, 2, 1, 0, 8),
        (3, 1, 1, 2, 6),
    ] {
        let window = Window {
            kernel_h: 1,
            kernel_w: kernel,
            stride_h: 1,
            stride_w: stride,
            dilation_h: 1,
            dilation_w: dilation,
            pad_left: pad,
            pad_right: pad,
            ..Window::default()
        };
        let out = (cols + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
        // The outermost columns of wide padding see nothing but padding; windows of these alone are not
        // granted.
        holds(&of(Head::MaxPool2d(MaxPool2d { src: src(cols), window }), out), 10);
    }
    for (kernel, stride, pad, out) in
        [(2, 2, 0, 12), (4, 2, -1, 12), (3, 1, -1, 6), (3, 2, 0, 13), (3, 2, -1, 12)]
    {
        let head = TransposeConv2d {
            src: src(6),
            kernel_h: 1,
            kernel_w: kernel,
            stride_h: 1,
            stride_w: stride,
            out_pad_top: 0,
            out_pad_left: pad,
            input_zp: 0,
            weight_zp: 0,
            weights: TableId::from_u32(0),
            bias: TableId::from_u32(1),
        };
        holds(&of(Head::TransposeConv2d(head), out), 21);
    }
    for (mode, n, d, offset, out) in [
        (ResizeMode::Nearest, 4, 2, -1, 12),
        (ResizeMode::Nearest, 2, 1, 0, 11),
        (ResizeMode::Bilinear, 4, 2, -1, 12),
        (ResizeMode::Bilinear, 2, 4, 1, 3),
        (ResizeMode::Bilinear, 6, 2, -2, 18),
    ] {
        let head = Resize {
            src: src(6),
            mode,
            scale_y_n: 1,
            scale_y_d: 1,
            scale_x_n: n,
            scale_x_d: d,
            offset_y: 0,
            offset_x: offset,
        };
        holds(&of(Head::Resize(head), out), (out * (out + 1) / 2) as usize);
    }
    holds(&of(Head::Pad(Pad { src: src(6), top: 0, left: 2, front: 0, value: 7 }), 9), 30);
    holds(&of(Head::Load(Load { src: src(6) }), 6), 21);
}

#[test]
fn what_mixes_columns_has_no_window() {
    let sum = Head::Reduce(Reduce { src: src(6), axis: Axis::W, kind: ReduceKind::Sum });
    assert_eq!(windowed(&of(sum, 1), &(0..1)), None);
    assert_eq!(windowed(&of(Head::Load(Load { src: src(6) }), 6), &(4..4)), None);
    assert_eq!(windowed(&of(Head::Load(Load { src: src(6) }), 6), &(4..7)), None);
    // An operand of one column goes into all of them, and is read whole.
    let part = windowed(&of(Head::Load(Load { src: src(1) }), 6), &(2..4)).expect("a broadcast");
    assert_eq!(part.reads, [None]);
}

fn divided(graph: &StageGraph, n: u32) -> Option<Strips> {
    let topology = Topology::new(graph).expect("it is a graph");
    Strips::new(graph, &topology, &graph.stages.keys().collect(), n)
}

fn ranges(strips: &Strips, stage: usize) -> Vec<Range<u32>> {
    strips.outs.iter().map(|outs| outs[stage].clone()).collect()
}

#[test]
fn halos_grow_backwards() {
    let mut net = Net::default();
    let input = net.input([8, 16, 4]);
    let a = net.conv(input, 8, 3, 1);
    let b = net.max_pool(a, 2, 2);
    let c = net.conv(b, 8, 3, 1);
    net.output(c, 0);
    let strips = divided(&net.finish(), 2).expect("convolutions and pools have windows");
    assert_eq!(ranges(&strips, 2), [0..4, 4..8]);
    assert_eq!(ranges(&strips, 1), [0..5, 3..8]);
    assert_eq!(ranges(&strips, 0), [0..10, 6..16]);
    assert_eq!(strips.own.len(), 2);
    let read = |strip: usize| strips.codes[strip][0].reads.clone();
    assert_eq!((read(0), read(1)), (vec![Some(0..11)], vec![Some(5..16)]));
}

/// The outermost strips have a halo on one side only, so they have more columns of their own.
#[test]
fn strips_are_as_wide_with_their_halos() {
    let mut net = Net::default();
    let mut x = net.input([8, 96, 4]);
    for _ in 0..5 {
        x = net.conv(x, 8, 3, 1);
    }
    net.output(x, 0);
    let strips = divided(&net.finish(), 3).expect("convolutions have windows");
    let widths: Vec<u32> = ranges(&strips, 4).iter().map(|range| range.end - range.start).collect();
    // Each of the four tensors between them reaches 4, 3, 2 and 1 columns over a cut, 2.5 on average.
    assert_eq!(widths, [33, 30, 33]);
    let own = |strip: usize| {
        let buffers = strips.own.values();
        buffers.map(|ranges| ranges[strip].end - ranges[strip].start).sum::<u32>()
    };
    let together = [own(0), own(1), own(2)];
    let spread = together.iter().max().expect("three") - together.iter().min().expect("three");
    assert!(spread <= 4, "{together:?}");
}

/// What others read too is computed once: a strip computes what the one before has not, though it needs more.
#[test]
fn a_halo_of_what_others_read_is_kept() {
    let mut net = Net::default();
    let input = net.input([8, 16, 4]);
    let a = net.conv(input, 8, 3, 1);
    let b = net.conv(a, 8, 3, 1);
    net.output(a, 0);
    net.output(b, 1);
    let strips = divided(&net.finish(), 2).expect("convolutions have windows");
    assert_eq!(ranges(&strips, 1), [0..8, 8..16]);
    assert_eq!(ranges(&strips, 0), [0..9, 9..16]);
    assert_eq!(strips.codes[1][1].reads, [Some(7..16)]);
    assert!(strips.own.is_empty());
}

/// Strips cover every tensor that others read, each column once, whatever their number.
#[test]
fn strips_cover_what_others_read() {
    for graph in
        [strata_backend::model::samples::resnet50(64, 64), strata_backend::model::samples::unet(64, 64)]
    {
        let topology = Topology::new(&graph).expect("it is a graph");
        let mut n_divided = 0;
        for first in 0..graph.stages.len() as u32 {
            for last in first..graph.stages.len().min(first as usize + 9) as u32 {
                let set: StageSet = (first..=last).map(StageId::from_u32).collect();
                for n in [2, 3, 5] {
                    let Some(strips) = Strips::new(&graph, &topology, &set, n) else { continue };
                    n_divided += 1;
                    for (at, &stage) in strips.stages.iter().enumerate() {
                        let out = graph.stages[stage].code.out;
                        let ranges = ranges(&strips, at);
                        assert_eq!((ranges[0].start, ranges[n as usize - 1].end), (0, out.cols));
                        let is_own = strips.own.contains_key(&out.tensor);
                        for pair in ranges.windows(2) {
                            let disjoint = pair[0].end == pair[1].start;
                            assert!(disjoint || is_own && pair[1].start < pair[0].end, "{ranges:?}");
                        }
                    }
                }
            }
        }
        assert!(n_divided > 100, "{n_divided} sets were divided");
    }
}

#[test]
fn means_over_columns_have_no_strips() {
    let mut net = Net::default();
    let input = net.input([8, 16, 4]);
    let a = net.conv(input, 8, 3, 1);
    let b = net.mean(a);
    net.output(b, 0);
    assert_eq!(divided(&net.finish(), 2), None);
}

/// The parts of a stage share its tables; the second strip loads none.
#[test]
fn strips_load_tables_once() {
    let mut net = Net::default();
    let input = net.input([8, 64, 4]);
    let a = net.conv(input, 8, 3, 1);
    let b = net.conv(a, 8, 3, 1);
    net.output(b, 0);
    let graph = net.finish();
    let strips = divided(&graph, 2).expect("convolutions have windows");
    let stages: Vec<StageId> = graph.stages.keys().collect();
    let made = realise(&graph, &[Chosen { stages: &stages, strips: Some(&strips) }]);
    assert_eq!(made.phases.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(made.graph.buffers.len(), graph.buffers.len() + 1);
    let sets: Vec<Option<u32>> = made.graph.stages.values().map(|node| node.table_set).collect();
    assert_eq!(sets, [Some(0), Some(1), Some(0), Some(1)]);
    let target = Target::preset("x1", &[]).expect("a preset");
    let context = Context::new(&made.graph, &target).expect("it is a graph");
    let whole = Context::new(&graph, &target).expect("it is a graph");
    let column = Candidate::new(&whole, &stages.iter().copied().collect()).expect("it fits");
    let Variant { method, ref division, slack, .. } = *column.variants[0];
    let how = How { method, division, slack };
    let first = Candidate::chosen(&context, &made.phases[0], &[], how, &|_, _| true).expect("it fits");
    let second =
        Candidate::chosen(&context, &made.phases[1], &made.phases[0], how, &|_, _| true).expect("it fits");
    assert_eq!((first.table_bytes, second.table_bytes), (column.table_bytes, 0));
    assert_eq!((first.weight_bytes, second.weight_bytes), (column.weight_bytes, column.weight_bytes));
    let again = Candidate::chosen(&context, &made.phases[1], &[], how, &|_, _| true).expect("it fits");
    assert_eq!(again.table_bytes, column.table_bytes);
}
