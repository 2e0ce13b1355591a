//! Which values a network computes: a histogram of every value, gathered over sample inputs, and the choice
//! of the range that its integers shall cover.
//!
//! A [`Calibration`] is keyed by the order of the ops, with their names, so that what was gathered on a
//! network at one input size can be applied to the same network at another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;
use strata_ir::eval::EvalError;
use strata_ir::pass::UnsupportedOp;
use strata_ir::{BlockId, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::forward::{forward, numbers};
use crate::quantise::histogram::{Histogram, RangeChoice, Ranges, observe};
use crate::quantise::kinds::keeps_scale;
use crate::quantise::outputs::{self, ChannelRanges};
use crate::quantise::params::Range;

/// Why a calibration could not be gathered or does not apply.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// There is no `@main`.
    #[error("the module has no function `main`")]
    NoMain,
    /// No sample was given.
    #[error("calibration needs at least one sample")]
    NoSamples,
    /// The forward pass failed.
    #[error("calibration sample {sample}: {error}")]
    Forward {
        /// Which sample, from 0.
        sample: usize,
        /// What happened.
        error: EvalError,
    },
    /// Values are infinite or not a number; named are those that do not merely follow from others.
    #[error("the network computes values that are infinite or not a number, which no integers stand for, \
        at: {}", .0.join(", "))]
    NotFinite(Vec<String>),
    /// Ranges are given of values that are not there.
    #[error("ranges are given of what the network does not compute: {}", .0.join(", "))]
    UnknownTensors(Vec<String>),
    /// Ranges are given with which an op has no integer form.
    #[error(
        "ranges are given that cannot be used, by {op}:{}",
        ranges.iter().map(|range| format!("\n  {range}")).collect::<String>()
    )]
    UnusableRanges {
        /// The first such op, and why.
        op: UnsupportedOp,
        /// The ranges, each with what could be used instead.
        ranges: Vec<String>,
    },
    /// It was gathered on another network.
    #[error(
        "the calibration is of another network: value {index} is of `{expected}` here and of `{found}` there"
    )]
    OtherNetwork {
        /// The first value that differs.
        index: usize,
        /// The op here.
        expected: String,
        /// The op there.
        found: String,
    },
}

/// What was seen of one value.
#[derive(Clone, Debug, PartialEq)]
struct Observed {
    /// The op that defines it, or `argument`.
    op: &'static str,
    histogram: Option<Histogram>,
}

/// What was seen of every value of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    values: Vec<Observed>,
    n_samples: usize,
    /// The channels of the parts of outputs, by index.
    channels: BTreeMap<usize, ChannelRanges>,
    /// Ranges in place of those chosen, by index.
    pub(super) given: BTreeMap<usize, Range>,
    /// What to add to the biases of convolutions, by the index of the convolution's result.
    pub(super) corrections: BTreeMap<usize, Vec<f32>>,
}

/// The values that a calibration describes, in its order: arguments, then results of ops that are no
/// constants.
pub(super) fn observed_values(module: &Module, block: BlockId) -> Vec<(ValueId, &'static str)> {
    let args = module.args(block).iter().map(|&arg| (arg, "argument"));
    let ops = module.block_ops(block).iter().map(|&op| module.op(op)).filter(|data| !data.op.is_constant());
    args.chain(ops.flat_map(|data| data.results().iter().map(|&value| (value, data.op.name())))).collect()
}

impl Calibration {
    /// Runs the f32 `@main` on every sample (one tensor an argument) and records what each value holds.
    ///
    /// # Errors
    /// If there are no samples, one does not fit the arguments, or a value is not finite.
    pub fn collect(module: &Module, samples: &[Vec<Arc<Tensor>>]) -> Result<Self, CalibrationError> {
        let func = module.function("main").ok_or(CalibrationError::NoMain)?;
        if samples.is_empty() {
            return Err(CalibrationError::NoSamples);
        }
        let observed = observed_values(module, module.entry_block(func));
        let mut index: cranelift_entity::SecondaryMap<ValueId, Option<usize>> = Default::default();
        for (at, (value, _)) in observed.iter().enumerate() {
            index[*value] = Some(at);
        }
        let mut values: Vec<_> = observed.iter().map(|&(_, op)| Observed { op, histogram: None }).collect();
        let terminator = module.terminator(module.entry_block(func));
        let returned = terminator.map_or(&[][..], |op| module.op(op).operands());
        let with_channels = outputs::with_channels(module, returned);
        let mut channels: BTreeMap<usize, ChannelRanges> = BTreeMap::new();
        let mut not_finite: BTreeSet<ValueId> = BTreeSet::new();
        let padded = infinitely_padded(module, module.entry_block(func));
        for (sample, inputs) in samples.iter().enumerate() {
            let mut observe = |value: ValueId, tensor: &Tensor| {
                let (Some(at), Some(data)) = (index[value], numbers(tensor)) else { return };
                let data: Cow<'_, [f32]> = if padded.contains(&value) { finite(&data) } else { data };
                if !observe(&mut values[at].histogram, &data) {
                    not_finite.insert(value);
                }
                if with_channels.contains(&value) {
                    channels.entry(at).or_default().observe(tensor.shape(), &data);
                }
            };
            forward(module, func, inputs, &mut observe)
                .map_err(|error| CalibrationError::Forward { sample, error })?;
        }
        let follows = |value: &ValueId| {
            let op = module.defining_op(*value);
            op.is_some_and(|op| module.op(op).operands().iter().any(|operand| not_finite.contains(operand)))
        };
        let mut first: Vec<String> =
            not_finite.iter().filter(|value| !follows(value)).map(|&value| place(module, value)).collect();
        first.dedup();
        if not_finite.is_empty() {
            Ok(Self { values, n_samples: samples.len(), channels, ..Self::none() })
        } else {
            Err(CalibrationError::NotFinite(first))
        }
    }

    /// What to add to the biases of convolutions of the same network, by their results.
    pub(super) fn corrections(&self, module: &Module, func: OpId) -> BTreeMap<ValueId, Vec<f32>> {
        let observed = observed_values(module, module.entry_block(func));
        let corrections = self.corrections.iter();
        corrections.filter_map(|(&at, c)| Some((observed.get(at)?.0, c.clone()))).collect()
    }

    /// A calibration for a network that needs none: it has no ranges.
    pub fn none() -> Self {
        Self {
            values: Vec::new(),
            n_samples: 0,
            channels: BTreeMap::new(),
            given: BTreeMap::new(),
            corrections: BTreeMap::new(),
        }
    }

    /// The same with other ranges in place of those chosen, by the index of their value.
    pub(super) fn with_given(&self, given: BTreeMap<usize, Range>) -> Self {
        Self { given, ..self.clone() }
    }

    /// The ranges of the channels of the parts of outputs, in the same network.
    pub(super) fn channels(&self, module: &Module, func: OpId) -> BTreeMap<ValueId, &ChannelRanges> {
        let observed = observed_values(module, module.entry_block(func));
        self.channels.iter().filter_map(|(&at, channels)| Some((observed.get(at)?.0, channels))).collect()
    }

    /// How many samples it saw.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }

    /// The ranges of the f32 values of `func`, which must be the network that was calibrated, at this or
    /// another input size.
    ///
    /// # Errors
    /// If its ops are others.
    pub(super) fn ranges(
        &self,
        module: &Module,
        func: OpId,
        choice: RangeChoice,
    ) -> Result<Ranges<'_>, CalibrationError> {
        if self.n_samples == 0 {
            return Ok(Ranges::default());
        }
        let observed = observed_values(module, module.entry_block(func));
        for index in 0..observed.len().max(self.values.len()) {
            let expected = observed.get(index).map_or("nothing", |(_, op)| op);
            let found = self.values.get(index).map_or("nothing", |value| value.op);
            if expected != found {
                let (expected, found) = (expected.to_owned(), found.to_owned());
                return Err(CalibrationError::OtherNetwork { index, expected, found });
            }
        }
        let mut seen: BTreeMap<ValueId, &Histogram> = (observed.iter().zip(&self.values))
            .filter_map(|((value, _), seen)| Some((*value, seen.histogram.as_ref()?)))
            .collect();
        let mut chosen: BTreeMap<ValueId, Range> =
            seen.par_iter().map(|(&value, histogram)| (value, histogram.range(choice))).collect();
        let mut derived = BTreeMap::new();
        for (&index, &range) in &self.given {
            let value = observed[index].0;
            if chosen.insert(value, range) != Some(range) {
                seen.remove(&value);
                derived.insert(value, range);
            }
        }
        Ok(Ranges { chosen, seen, derived, choice })
    }
}

/// From this magnitude on a padding value is as good as infinite: it only stands for what no maximum may
/// choose.
const AS_GOOD_AS_INFINITE: f32 = 1e30;

/// The values that hold infinities since they are padded with them, and those that are picked or moved from
/// such.
fn infinitely_padded(module: &Module, block: BlockId) -> BTreeSet<ValueId> {
    let mut padded = BTreeSet::new();
    for &op in module.block_ops(block) {
        let data = module.op(op);
        let operands = data.operands();
        let is_padded = match &data.op {
            Op::Pad(_) => {
                let fill = operands.get(2).and_then(|&fill| module.constant(fill)?.tensor.as_f32()?.first());
                fill.is_some_and(|fill| fill.abs() >= AS_GOOD_AS_INFINITE) || padded.contains(&operands[0])
            }
            // A mean of what is infinite is infinite itself.
            Op::AvgPool2d(_) | Op::Resize(_) => false,
            op if keeps_scale(op) || matches!(op, Op::Maximum(_) | Op::Minimum(_) | Op::Concat(_)) => {
                operands.iter().any(|operand| padded.contains(operand))
            }
            _ => false,
        };
        if is_padded {
            padded.extend(data.results());
        }
    }
    padded
}

/// The data that are not as good as infinite.
fn finite<'a>(data: &Cow<'a, [f32]>) -> Cow<'a, [f32]> {
    let is_finite = |x: &f32| x.is_nan() || x.abs() < AS_GOOD_AS_INFINITE;
    if data.iter().all(is_finite) { data.clone() } else { data.iter().copied().filter(is_finite).collect() }
}

/// The location of a value in words.
fn place(module: &Module, value: ValueId) -> String {
    let op = module.defining_op(value).map(|op| module.op(op));
    op.map_or_else(
        || "an argument".to_owned(),
        |data| format!("{} ({})", data.loc.name().unwrap_or("(unnamed)"), data.op.name()),
    )
}
