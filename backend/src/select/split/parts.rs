//! How many parts a stage is split into, and which channels each has.

use std::collections::BTreeMap;
use std::ops::Range;

use strata_isa_spec::timing::{best_mapping, dram_cycles};
use strata_isa_spec::{Head, Target};

use crate::cost::{may_winograd, with_winograd};
use crate::model::{BufferView, StageGraph, StageNode, TableId};
use crate::select::split::part_code;

/// Channels of a part are a multiple of this where the budget allows, so that parts use the array as the
/// whole does.
const CHANNEL_GRAIN: u32 = 64;

/// The parts of a stage for a target; `None` if it fits or cannot be split.
///
/// Parts of half of weight SRAM let the next one's tables be loaded meanwhile. But each part reads the
/// stage's input, and one that does not fit activation SRAM comes from DRAM each time: then parts of all of
/// weight SRAM, whose tables are waited for, can take less time because they are fewer.
pub(super) fn for_target(graph: &StageGraph, stage: &StageNode, target: &Target) -> Option<Vec<Range<u32>>> {
    let alignment = u64::from(target.memory.alignment.max(1));
    let half = within(stage, target.memory.weight / 2, alignment)?;
    let Some(whole) = within(stage, target.memory.weight, alignment) else { return Some(half) };
    let is_faster = whole.len() < half.len()
        && cycles(graph, stage, target, &whole, false) < cycles(graph, stage, target, &half, true);
    Some(if is_faster { whole } else { half })
}

/// The fewest even parts with tables of at most `budget` bytes; `None` if the stage fits or cannot be split.
pub(super) fn within(stage: &StageNode, budget: u64, alignment: u64) -> Option<Vec<Range<u32>>> {
    let chs = stage.code.out.chs;
    let step = match &stage.code.head {
        Head::Conv2d(conv) | Head::Conv2dI16(conv) if conv.groups == 1 => 1,
        Head::TransposeConv2d(_) | Head::TransposeConv2dI16(_) => 1,
        Head::DepthwiseConv2d(conv) | Head::DepthwiseConv2dI16(conv) => conv.multiplier,
        _ => return None,
    };
    let fits = |n: u32| table_bytes(stage, n, alignment) <= budget;
    if fits(chs) {
        return None;
    }
    // Tables grow with the channels: the largest multiple of the step that fits, at least one.
    let (mut least, mut most) = (1, chs / step);
    while least < most {
        let middle = (least + most).div_ceil(2);
        if fits(middle * step) {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    let largest = least * step;
    // Even parts rather than full ones and a rest; then rounded to whole uses of the array.
    let even = chs.div_ceil(chs.div_ceil(largest)).next_multiple_of(step);
    let rounded = even.next_multiple_of(CHANNEL_GRAIN);
    let size = if rounded <= largest && rounded % step == 0 { rounded } else { even.min(largest) };
    let starts = (0..chs).step_by(size as usize);
    Some(starts.map(|start| start..(start + size).min(chs)).collect())
}

/// Bytes of a stage's tables when it makes `n` of its output channels, each table aligned.
fn table_bytes(stage: &StageNode, n: u32, alignment: u64) -> u64 {
    let (part, _) = part_code(&stage.code, &(0..n));
    let tables: BTreeMap<TableId, u64> = part.tables().into_iter().collect();
    tables.values().map(|bytes| bytes.next_multiple_of(alignment)).sum()
}

/// An estimate of the time of parts one after another on the whole array: each computes while its rows are
/// moved, and loads its tables before, or, `ahead`, while the part before it computes.
fn cycles(graph: &StageGraph, stage: &StageNode, target: &Target, parts: &[Range<u32>], ahead: bool) -> u64 {
    let alignment = u64::from(target.memory.alignment.max(1));
    // What takes most of activation SRAM is hardly kept in it while others run.
    let from_dram = |bytes: u64| bytes > target.memory.activation / 2;
    let of_part = |channels: &Range<u32>| {
        let (code, _) = part_code(&stage.code, channels);
        let bytes = |view: &BufferView| graph.view_bytes(view);
        let reads = stage.code.reads().into_iter().zip(code.reads());
        let read: u64 =
            reads.filter(|(whole, _)| from_dram(bytes(whole))).map(|(_, part)| bytes(&part)).sum();
        let share = if from_dram(bytes(&stage.code.out)) { bytes(&code.out) } else { 0 };
        let computing = |winograd: bool| {
            let code = with_winograd(&code, winograd);
            u64::from(code.n_steps()) * best_mapping(target, &code.work(), target.array.clusters).1
        };
        let direct = computing(false);
        let computed = if may_winograd(&code, target) { direct.min(computing(true)) } else { direct };
        let loaded = table_bytes(stage, channels.end - channels.start, alignment);
        if ahead {
            computed.max(dram_cycles(target, read + share + loaded))
        } else {
            dram_cycles(target, loaded) + computed.max(dram_cycles(target, read + share))
        }
    };
    // All parts but the last are alike.
    let [first, .., last] = parts else { return parts.iter().map(of_part).sum() };
    of_part(first) * (parts.len() as u64 - 1) + of_part(last)
}

#[cfg(test)]
mod tests {
    use strata_ir::OpId;
    use strata_isa_spec::inst::{Conv2d, Elem, Window};

    use super::*;
    use crate::model::{Buffer, BufferRole, StageTemplate};

    /// A 3x3 convolution of 1024 to 512 channels on `extent` x `extent` pixels: 9 KiB of weights a channel.
    fn convolution(extent: u32) -> StageGraph {
        let mut graph = StageGraph::default();
        let mut view = |name: &str, chs: u32| {
            let role = BufferRole::Internal;
            let buffer =
                Buffer { name: name.to_owned(), elem: Elem::I8, rows: extent, cols: extent, chs, role };
            BufferView::whole(graph.buffers.push(buffer), extent, extent, chs)
        };
        let (src, out) = (view("src", 1024), view("out", 512));
        let one = [1; 4];
        let [stride_h, stride_w, dilation_h, dilation_w] = one;
        let [pad_top, pad_bottom, pad_left, pad_right] = one;
        let window = Window {
            kernel_h: 3,
            kernel_w: 3,
            stride_h,
            stride_w,
            dilation_h,
            dilation_w,
            pad_top,
            pad_bottom,
            pad_left,
            pad_right,
        };
        let (weights, bias) = (TableId::from_u32(0), TableId::from_u32(1));
        let head =
            Conv2d { src, window, groups: 1, input_zp: 0, weight_zp: 0, weights, bias, winograd: false };
        graph.stages.push(StageNode {
            name: "conv".to_owned(),
            op: OpId::from_u32(0),
            code: StageTemplate { head: head.into(), tail: Vec::new(), out },
            table_bytes: [9 * 1024 * 512, 4 * 512].into_iter().collect(),
            table_set: None,
            by_columns: true,
        });
        graph
    }

    fn parts_on(extent: u32, preset: &str) -> Option<Vec<Range<u32>>> {
        let graph = convolution(extent);
        let target = Target::preset(preset, &[]).expect("a preset");
        let parts = for_target(&graph, graph.stages.values().next()?, &target);
        if let Some(parts) = &parts {
            let mut next = 0;
            assert!(parts.iter().all(|part| std::mem::replace(&mut next, part.end) == part.start));
            assert_eq!(next, 512);
        }
        parts
    }

    #[test]
    fn parts_are_fewer_where_each_reads_a_large_input_from_dram() {
        // 128 KiB hold 14 channels, 64 KiB hold 7. An input of 4 MiB is read by every part, one of 64 KiB
        // stays in SRAM.
        assert_eq!(parts_on(64, "micro").map(|parts| parts.len()), Some(512_usize.div_ceil(14)));
        assert_eq!(parts_on(8, "micro").map(|parts| parts.len()), Some(512_usize.div_ceil(7)));
        // Where tables can be loaded ahead and the input stays, there is nothing to gain.
        assert_eq!(parts_on(64, "x1").map(|parts| parts.len()), Some(3));
    }
}
