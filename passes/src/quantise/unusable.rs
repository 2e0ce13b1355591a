//! Ranges that are given and that no integers can be made with: so wide, or so narrow, that an op next to
//! their value has no form in the machine's arithmetic, though it has one with the range that the calibration
//! chooses.
//!
//! Without this, such an op would be taken for one that the machine lacks and be left to the host.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::pass::{PassError, UnsupportedOp};
use strata_ir::text::Names;
use strata_ir::{Module, ValueId};

use crate::quantise::calibrate::{Calibration, CalibrationError, observed_values};
use crate::quantise::params::Range;
use crate::quantise::{QuantiseOptions, plan, to_integers};

/// Ranges that are tried alone, the first of those next to what is unsupported; each that does not do takes
/// some more tries.
const MOST_TRIED: usize = 8;

/// What is said of a network in floats that the ranges given leave with unsupported ops: of those ranges, if
/// they are to blame, else of the ops.
pub(super) fn blame(
    module: &Module,
    calibration: &Calibration,
    options: &QuantiseOptions,
    unsupported: Vec<UnsupportedOp>,
) -> PassError {
    let mut network = Given { module, calibration, options, otherwise: Vec::new() };
    network.otherwise = network.unsupported_with(BTreeMap::new());
    let Some(op) = network.first_new(&unsupported).cloned() else {
        return PassError::Unsupported(unsupported);
    };
    match network.faults(&unsupported) {
        ranges if ranges.is_empty() => PassError::Unsupported(unsupported),
        ranges => PassError::other(CalibrationError::UnusableRanges { op, ranges }),
    }
}

/// A network with ranges that are given.
struct Given<'a> {
    module: &'a Module,
    calibration: &'a Calibration,
    options: &'a QuantiseOptions,
    /// The ops that are unsupported with the ranges that the calibration chooses.
    otherwise: Vec<UnsupportedOp>,
}

impl Given<'_> {
    /// The first op that is unsupported with given ranges alone.
    fn first_new<'b>(&self, unsupported: &'b [UnsupportedOp]) -> Option<&'b UnsupportedOp> {
        unsupported.iter().find(|op| !self.otherwise.contains(op))
    }

    /// The ops that are unsupported with other ranges, by the index of their value.
    fn unsupported_with(&self, given: BTreeMap<usize, Range>) -> Vec<UnsupportedOp> {
        let calibration = self.calibration.with_given(given);
        match to_integers(&mut self.module.clone(), &calibration, self.options) {
            Err(PassError::Unsupported(ops)) => ops,
            _ => Vec::new(),
        }
    }

    /// The ranges that are to blame for unsupported ops, each with what could be used instead.
    fn faults(&self, unsupported: &[UnsupportedOp]) -> Vec<String> {
        let Some(func) = self.module.function("main") else { return Vec::new() };
        let as_chosen = self.calibration.with_given(BTreeMap::new());
        let Ok(chosen) = as_chosen.ranges(self.module, func, self.options.range) else { return Vec::new() };
        let observed = observed_values(self.module, self.module.entry_block(func));
        let near = self.values_near(unsupported);
        let mut to_blame: Vec<(usize, Range)> =
            self.calibration.given.iter().map(|(&at, &range)| (at, range)).collect();
        to_blame.retain(|&(at, range)| chosen.chosen(observed[at].0) != Some(range));
        if to_blame.iter().any(|(at, _)| near.contains(&observed[*at].0)) {
            to_blame.retain(|(at, _)| near.contains(&observed[*at].0));
        }
        let is_alone = |&(at, range): &(usize, Range)| self.is_refused(at, range);
        let alone: Vec<(usize, Range)> = to_blame.iter().take(MOST_TRIED).copied().filter(is_alone).collect();
        let names = Names::of(self.module);
        let told = |at: usize, Range { low, high }: Range, usable: &str| {
            format!("`{}` from {low:?} to {high:?}{usable}", names.get(observed[at].0))
        };
        if alone.is_empty() {
            // Only together do they leave the op without a form.
            return to_blame.into_iter().map(|(at, given)| told(at, given, "")).collect();
        }
        let fault = |(at, given): (usize, Range)| {
            let chosen = chosen.chosen(observed[at].0);
            let usable = chosen.map_or_else(String::new, |chosen| self.usable(at, given, chosen));
            told(at, given, &usable)
        };
        alone.into_iter().map(fault).collect()
    }

    /// Whether a range alone leaves an op without a form.
    fn is_refused(&self, at: usize, range: Range) -> bool {
        self.first_new(&self.unsupported_with([(at, range)].into())).is_some()
    }

    /// The values that unsupported ops take and give, and those that share a scale with one.
    fn values_near(&self, unsupported: &[UnsupportedOp]) -> BTreeSet<ValueId> {
        let mut near = BTreeSet::new();
        let mut module = self.module.clone();
        let Some(func) = module.function("main") else { return near };
        for &op in self.module.block_ops(self.module.entry_block(func)) {
            let data = self.module.op(op);
            let here = UnsupportedOp::new(self.module, op, "");
            let is_meant = |told: &&UnsupportedOp| {
                !self.otherwise.contains(told)
                    && (&told.node, told.op, told.line) == (&here.node, here.op, here.line)
            };
            if unsupported.iter().any(|told| is_meant(&told)) {
                near.extend(data.operands().iter().chain(data.results()).copied());
            }
        }
        if let Ok(planned) = plan(&mut module, func, self.calibration, self.options) {
            for group in planned.plan.groups.values() {
                if group.iter().any(|value| near.contains(value)) {
                    near.extend(group.iter().copied());
                }
            }
        }
        near
    }

    /// What the calibration chooses for a value, and which of its multiples by powers of two, on the way to
    /// the range given, is the last that would do.
    fn usable(&self, at: usize, given: Range, chosen: Range) -> String {
        let width = |range: Range| f64::from(range.high) - f64::from(range.low);
        let chosen_text = format!(" (the calibration chooses {:?} to {:?}", chosen.low, chosen.high);
        let ratio = width(given) / width(chosen);
        if !(ratio.is_finite() && ratio > 0.0) {
            return chosen_text + ")";
        }
        let times = |octaves: i32| {
            let factor = 2_f64.powi(octaves);
            let end = |end: f32| (f64::from(end) * factor) as f32;
            Range { low: end(chosen.low), high: end(chosen.high) }
        };
        let does = |octaves: i32| {
            let range = times(octaves);
            let is_range = range.low.is_finite() && range.high.is_finite();
            is_range && !self.is_refused(at, range)
        };
        let (mut good, mut bad) = (0, ratio.log2().abs().ceil() as i32);
        let sign = if ratio > 1.0 { 1 } else { -1 };
        while bad - good > 1 {
            let middle = i32::midpoint(good, bad);
            if does(sign * middle) { good = middle } else { bad = middle }
        }
        let Range { low, high } = times(sign * good);
        let which = if sign > 0 { "wider" } else { "narrower" };
        format!("{chosen_text}; nothing much {which} than {low:?} to {high:?} can be used)")
    }
}
