//! Outputs whose parts differ so much in range that 8 bits with one scale are too few for some of them.
//!
//! A detector hands out boxes in pixels and scores up to 1 in one tensor. At one scale of 8 bits the boxes
//! take all the levels, and scores are left with a few or none. Such an output is made of 16 bits, which
//! costs bytes of the output but no products: what multiplies and accumulates reads other values.
//!
//! A *part* of an output is a value whose elements come into it unchanged, through concatenations and ops
//! that move or pick, or a channel of such a value. Channels count where the part is computed by an op
//! without a bend: those of a sigmoid or a ReLU are of one kind, and small where they saw nothing.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::{Module, Op, ValueId};

use crate::quantise::histogram::Ranges;
use crate::quantise::kinds::{keeps_scale, rescales};
use crate::quantise::params::Range;

/// Of an output's 256 levels, those that a part spans at least to be served by 8 bits.
const FEWEST_LEVELS: f32 = 16.0;
/// What spans less than this part of the output is as good as constant.
const CONSTANT: f32 = 1e-6;
/// Of fewer elements the range of a channel says too little.
const FEWEST_ELEMENTS: usize = 64;

/// The ranges of each index along one or several axes of a value, one axis after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ChannelRanges(Vec<Range>);

impl ChannelRanges {
    /// Widens the ranges by a tensor. The machine's images have their channels last; tensors of fewer axes
    /// may have them anywhere.
    pub(super) fn observe(&mut self, shape: &[usize], data: &[f32]) {
        let mut at = 0;
        let first = if shape.len() > 3 { shape.len() - 1 } else { 1 };
        for axis in first..shape.len() {
            let (extent, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            if extent < 2 || data.len() / extent < FEWEST_ELEMENTS {
                continue;
            }
            let empty = Range { low: f32::INFINITY, high: f32::NEG_INFINITY };
            self.0.resize(self.0.len().max(at + extent), empty);
            let ranges = &mut self.0[at..at + extent];
            for (run, values) in data.chunks(inner).enumerate() {
                let range = &mut ranges[run % extent];
                *range = values.iter().fold(*range, |range, &x| range.union(Range { low: x, high: x }));
            }
            at += extent;
        }
    }
}

/// What integers have to span to hold a range.
fn span(range: Range) -> f32 {
    range.high.max(0.0) - range.low.min(0.0)
}

/// The values whose elements come into `value` unchanged, with which ops that only move, pick or join them
/// end.
fn parts(module: &Module, value: ValueId) -> BTreeSet<ValueId> {
    let mut parts = BTreeSet::new();
    let mut pending = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = pending.pop() {
        if !seen.insert(value) {
            continue;
        }
        let Some(data) = module.defining_op(value).map(|op| module.op(op)) else { continue };
        match &data.op {
            Op::Concat(_) => pending.extend(data.operands()),
            op if keeps_scale(op) => pending.extend(data.operands().first()),
            op if op.is_constant() => continue,
            _ => {}
        }
        parts.insert(value);
    }
    parts
}

/// The values of which a calibration gathers the ranges of channels: the parts of what a function returns
/// that an op without a bend computes.
pub(super) fn with_channels(module: &Module, returned: &[ValueId]) -> BTreeSet<ValueId> {
    let parts = returned.iter().flat_map(|&value| parts(module, value));
    let is_straight = |value: &ValueId| {
        module.defining_op(*value).is_some_and(|op| {
            let op = &module.op(op).op;
            rescales(op) && !matches!(op, Op::Maximum(_) | Op::Minimum(_))
        })
    };
    parts.filter(is_straight).collect()
}

/// The results with parts that 8 bits do not serve, of which 16 do more.
pub(super) fn uneven(
    module: &Module,
    results: &[ValueId],
    ranges: &Ranges<'_>,
    channels: &BTreeMap<ValueId, &ChannelRanges>,
) -> BTreeSet<ValueId> {
    let is_uneven = |result: &ValueId| {
        let Some(whole) = ranges.seen(*result).map(span) else { return false };
        let too_small = |part: Range| {
            let span = span(part);
            span < whole / 256.0 * FEWEST_LEVELS && span > whole * CONSTANT
        };
        parts(module, *result).into_iter().any(|part| {
            let mut of_channels = channels.get(&part).into_iter().flat_map(|channels| &channels.0);
            ranges.seen(part).is_some_and(too_small) || of_channels.any(|&range| too_small(range))
        })
    };
    results.iter().copied().filter(is_uneven).collect()
}
