//! The search for activations that are worth 16 bits.
//!
//! Every group of values that share a scale is judged by the noise that goes from the network's results when
//! it alone is no longer rounded to its `i8`: forward passes in f32, with weights and all other groups
//! rounded. What a group costs is the array time of the layers that multiply it: with `i16` activations they
//! take two products of bytes for one (four, where both factors are activations), and no Winograd. Groups are
//! promoted by noise removed for time spent, as long as the budget lasts or until the target is met. Noises
//! of different groups do not quite add up, so the budget is spent in rounds, and what is left is judged anew
//! in each.
//!
//! The search decides nothing about arithmetic; [`quantise`](crate::quantise::quantise()) does with the
//! [`Precision`] what it would do with one written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_ir::pass::PassError;
use strata_ir::{ElemType, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::analyse::QuantPlan;
use crate::quantise::calibrate::observed_values;
use crate::quantise::forward::{forward, forward_changed};
use crate::quantise::precision::layer_of;
use crate::quantise::weights::{ChannelAxis, quantise_weights};
use crate::quantise::{Calibration, Planned, Precision, QuantParams, QuantiseOptions, plan};

/// Multiply-accumulates that the search may spend, which bounds its samples and rounds. One of each is made
/// in any case.
const SEARCH_MACS: u64 = 400_000_000_000;
/// Samples looked at, at most.
const MOST_SAMPLES: u64 = 4;
/// Rounds at most.
const MOST_ROUNDS: u64 = 4;
/// A group that makes less than this share of the noise is left alone even if it costs nothing.
const LEAST_SHARE: f64 = 1e-3;

/// What the search is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Array cycles that promotions may add, in per cent of those of the network in `i8`.
    pub budget_percent: f64,
    /// Signal to noise, in decibels, at which promoting stops.
    pub target_db: Option<f64>,
    /// Whether convolutions that may run as Winograd do, so that `i16` costs them that too.
    pub winograd: bool,
}

impl Default for Goal {
    fn default() -> Self {
        Self { budget_percent: 10.0, target_db: None, winograd: true }
    }
}

/// A group of values that share a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Layers (or arguments) whose results it holds.
    pub layers: Vec<String>,
    /// The share of the noise of the results in `i8` that went when it was promoted, or would go if it were.
    pub noise_share: f64,
    /// Array cycles that promoting it adds, in per cent of the network's in `i8`.
    pub cost_percent: f64,
    /// Whether it was promoted.
    pub promoted: bool,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The choice.
    pub precision: Precision,
    /// All groups, those that make most noise first.
    pub candidates: Vec<Candidate>,
    /// Array cycles that the choice adds, in per cent of those of the network in `i8`.
    pub cost_percent: f64,
    /// Predicted signal to noise of the results, in decibels, all in `i8`.
    pub before_db: f64,
    /// The same with the choice.
    pub after_db: f64,
}

/// Finds the activations of `@main` that are worth 16 bits, on the samples of a calibration. What `options`
/// chooses to be `i16` is so from the start and costs nothing here.
///
/// # Errors
/// As [`quantise`](crate::quantise::quantise()), or if a sample does not fit the network.
pub fn search(
    module: &Module,
    calibration: &Calibration,
    samples: &[Vec<Arc<Tensor>>],
    options: &QuantiseOptions,
    goal: &Goal,
) -> Result<Search, PassError> {
    let func = module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))?;
    let Planned { plan, fixed, .. } = plan(&mut module.clone(), func, calibration, options)?;
    if fixed.is_rewritten {
        let why = "the model brings its own scales of 8 bits: there is no precision to choose";
        return Err(PassError::invalid(why));
    }
    let costs = Costs::new(module, &plan, goal.winograd);
    let is_narrow = |values: &&Vec<ValueId>| {
        let narrow = |value: &ValueId| plan.params.get(value).is_some_and(|p| p.elem == ElemType::I8);
        values.iter().any(|value| narrow(value) && !plan.is_internal(*value))
    };
    let groups: Vec<&Vec<ValueId>> = plan.groups.values().filter(is_narrow).collect();
    let round = costs.direct_macs.max(1).saturating_mul(groups.len() as u64 + 2);
    let n_samples = (SEARCH_MACS / round / MOST_ROUNDS).clamp(1, MOST_SAMPLES).min(samples.len() as u64);
    let n_rounds = (SEARCH_MACS / (round * n_samples.max(1))).clamp(1, MOST_ROUNDS);
    let mut judge = Judge { func, samples: &samples[..n_samples as usize], references: Vec::new() };
    for sample in judge.samples {
        judge.references.push(forward(module, func, sample, &mut |_, _| {}).map_err(PassError::other)?);
    }
    let mut promotion = Promotion {
        goal,
        plan: &plan,
        costs: &costs,
        judge,
        rounded: with_rounded_weights(module, &plan),
        removed: vec![0.0; groups.len()],
        groups,
        promoted: BTreeSet::new(),
        noise: 0.0,
        spent: 0,
    };
    let before = promotion.noise_with(&BTreeSet::new())?;
    promotion.noise = before;
    for round in 1..=n_rounds {
        if promotion.is_enough(promotion.noise) {
            break;
        }
        let budget = costs.array_macs as f64 * goal.budget_percent / 100.0 * round as f64 / n_rounds as f64;
        promotion.promote(budget)?;
    }

    let chosen = promotion.promoted.iter().map(|&at| promotion.groups[at]);
    // Nothing is less than what f32 can tell.
    let decibels = |noise: f64| -10.0 * noise.max(1e-30).log10();
    Ok(Search {
        precision: with_promoted(module, func, options, chosen),
        candidates: promotion.candidates(module, before),
        cost_percent: costs.percent(promotion.spent),
        before_db: decibels(before),
        after_db: decibels(promotion.noise),
    })
}

/// The groups of a network, of which some are promoted.
struct Promotion<'a> {
    goal: &'a Goal,
    plan: &'a QuantPlan,
    costs: &'a Costs,
    judge: Judge<'a>,
    /// The network with its weights rounded.
    rounded: Module,
    groups: Vec<&'a Vec<ValueId>>,
    /// The noise that went, or would go, with each group, as it was last judged.
    removed: Vec<f64>,
    promoted: BTreeSet<usize>,
    /// The noise with what is promoted.
    noise: f64,
    /// Array time that what is promoted adds.
    spent: u64,
}

impl Promotion<'_> {
    fn noise_with(&self, promoted: &BTreeSet<usize>) -> Result<f64, PassError> {
        let narrow = (0..self.groups.len()).filter(|at| !promoted.contains(at));
        let params = narrow.flat_map(|at| rounding(self.plan, self.groups[at])).collect();
        self.judge.noise(&self.rounded, &params)
    }

    fn is_enough(&self, noise: f64) -> bool {
        self.goal.target_db.is_some_and(|db| noise <= 10_f64.powf(-db / 10.0))
    }

    fn cost(&self, at: usize) -> u64 {
        self.costs.of(self.groups[at])
    }

    /// Judges all groups that are left and promotes those most worth it, within a budget of array time.
    fn promote(&mut self, budget: f64) -> Result<(), PassError> {
        let mut rest: Vec<usize> = (0..self.groups.len()).filter(|at| !self.promoted.contains(at)).collect();
        for &at in &rest {
            let mut more = self.promoted.clone();
            more.insert(at);
            self.removed[at] = self.noise - self.noise_with(&more)?;
        }
        let worth = |at: usize| self.removed[at] / (self.cost(at) as f64 + 1.0);
        rest.sort_by(|&a, &b| worth(b).total_cmp(&worth(a)));
        let known = self.promoted.len();
        let mut left = self.noise;
        for at in rest {
            if self.is_enough(left) {
                break;
            }
            let spent = self.spent + self.cost(at);
            if spent as f64 <= budget && self.removed[at] > LEAST_SHARE * self.noise {
                self.promoted.insert(at);
                left -= self.removed[at];
                self.spent = spent;
            }
        }
        if self.promoted.len() > known {
            self.noise = self.noise_with(&self.promoted)?;
        }
        Ok(())
    }

    /// All groups, those that make most noise first; `before` is the noise when none was promoted.
    fn candidates(&self, module: &Module, before: f64) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = (self.groups.iter().enumerate())
            .map(|(at, values)| Candidate {
                layers: layers(module, self.judge.func, values),
                noise_share: if before > 0.0 { self.removed[at] / before } else { 0.0 },
                cost_percent: self.costs.percent(self.cost(at)),
                promoted: self.promoted.contains(&at),
            })
            .collect();
        candidates.sort_by(|a, b| b.noise_share.total_cmp(&a.noise_share));
        candidates
    }
}

/// The precision of the options with groups added.
fn with_promoted<'a>(
    module: &Module,
    func: OpId,
    options: &QuantiseOptions,
    groups: impl Iterator<Item = &'a Vec<ValueId>>,
) -> Precision {
    let values: BTreeSet<ValueId> = groups.flatten().copied().collect();
    let places = observed_values(module, module.entry_block(func)).into_iter().enumerate();
    let chosen = places.filter(|(_, (value, _))| values.contains(value)).map(|(place, _)| place);
    match &options.precision {
        Precision::Int16 => Precision::Int16,
        Precision::Int8 => Precision::Mixed(chosen.collect()),
        Precision::Mixed(places) => Precision::Mixed(chosen.chain(places.iter().copied()).collect()),
    }
}

/// The names of the layers of a group, each once.
fn layers(module: &Module, func: OpId, values: &[ValueId]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for &value in values {
        let name = layer_of(module, func, value).unwrap_or_else(|| "(unnamed)".to_owned());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The `i8` parameters of the values of a group.
fn rounding(plan: &QuantPlan, values: &[ValueId]) -> BTreeMap<ValueId, QuantParams> {
    let of = |value: &ValueId| {
        let params = *plan.params.get(value)?;
        (params.elem == ElemType::I8).then_some((*value, params))
    };
    values.iter().filter_map(of).collect()
}

/// Measures noise on results.
struct Judge<'a> {
    func: OpId,
    samples: &'a [Vec<Arc<Tensor>>],
    references: Vec<Vec<Arc<Tensor>>>,
}

impl Judge<'_> {
    /// Noise over signal of the results of `module`, the mean of all results and samples, when some values
    /// are rounded.
    fn noise(&self, module: &Module, rounded: &BTreeMap<ValueId, QuantParams>) -> Result<f64, PassError> {
        let (mut sum, mut n) = (0.0, 0);
        for (sample, reference) in self.samples.iter().zip(&self.references) {
            let mut change = |value: ValueId, tensor: &Tensor| {
                let (params, data) = (rounded.get(&value)?, tensor.as_f32()?);
                Some(Tensor::f32(tensor.shape(), params.rounded(data)))
            };
            let results =
                forward_changed(module, self.func, sample, &mut change).map_err(PassError::other)?;
            for (want, got) in reference.iter().zip(&results) {
                let (Some(want), Some(got)) = (want.as_f32(), got.as_f32()) else { continue };
                let signal: f64 = want.iter().map(|&x| f64::from(x).powi(2)).sum();
                let noise: f64 =
                    want.iter().zip(got).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
                if signal > 0.0 {
                    sum += noise / signal;
                    n += 1;
                }
            }
        }
        Ok(sum / f64::from(n.max(1)))
    }
}

/// Where the output channel of an op's constant weights stands, if it has such.
fn weights_axis(op: &Op) -> Option<ChannelAxis> {
    match op {
        Op::Conv2d(_) | Op::TransposeConv2d(_) => Some(ChannelAxis::First),
        Op::DepthwiseConv2d(_) | Op::MatMul(_) => Some(ChannelAxis::Last),
        _ => None,
    }
}

/// The network with the weights of its convolutions rounded to `i8`; ids stay what they are.
fn with_rounded_weights(module: &Module, plan: &QuantPlan) -> Module {
    let mut rounded = module.clone();
    for &op in &plan.ops {
        let data = module.op(op);
        let Some(axis) = weights_axis(&data.op) else { continue };
        let Some(weight) = plan.constant(data.operands()[1]) else { continue };
        let no_bias = Tensor::f32([1], vec![0.0]);
        let n_channels = module.tensor_ty(module.result(op)).shape.last().copied().unwrap_or(1);
        let unit = QuantParams::i8(1.0, 0);
        let Some(q) = quantise_weights(&weight, &no_bias, axis, n_channels, unit) else { continue };
        let per_channel = weight.n_elements() / n_channels.max(1);
        let channel = |at: usize| match axis {
            ChannelAxis::First => at / per_channel.max(1),
            ChannelAxis::Last => at % n_channels,
        };
        let integers = q.weight.as_i8().unwrap_or_default();
        let reals = integers.iter().enumerate().map(|(at, &w)| (f64::from(w) * q.scales[channel(at)]) as f32);
        let real = Tensor::f32(weight.shape(), reals.collect());
        let constant = rounded.insert_const_before(op, real, data.loc.clone());
        rounded.set_operand(op, 1, constant);
    }
    rounded
}

/// Array time of layers, in products of bytes.
struct Costs {
    /// Of the whole network in `i8`.
    array_macs: u64,
    /// Multiply-accumulates of the whole network.
    direct_macs: u64,
    /// What promoting a value adds, by the layers that multiply it.
    added: BTreeMap<ValueId, Vec<u64>>,
}

impl Costs {
    fn new(module: &Module, plan: &QuantPlan, winograd: bool) -> Self {
        let mut costs = Self { array_macs: 0, direct_macs: 0, added: BTreeMap::new() };
        for &op in &plan.ops {
            let data = module.op(op);
            let shape = |index: usize| module.tensor_ty(data.operands()[index]).shape.as_slice();
            let n_outputs: usize = module.tensor_ty(module.result(op)).shape.iter().product();
            let last = |shape: &[usize]| shape.last().copied().unwrap_or(1);
            let is_variable = |index: usize| plan.constant(data.operands()[index]).is_none();
            // Winograd leaves 4 of 9 products; two variables make four byte products of one.
            let (macs, now, then) = match &data.op {
                Op::Conv2d(conv) => {
                    let taps: usize = shape(1)[1..].iter().product();
                    let is_winograd = winograd
                        && shape(1)[1..3] == [3, 3]
                        && conv.stride == [1, 1]
                        && conv.dilation == [1, 1]
                        && last(shape(1)) >= strata_isa_spec::timing::WINOGRAD_LEAST_CHANNELS as usize;
                    (n_outputs * taps, if is_winograd { 4.0 / 9.0 } else { 1.0 }, 2.0)
                }
                Op::DepthwiseConv2d(_) => (n_outputs * shape(1)[..2].iter().product::<usize>(), 1.0, 2.0),
                Op::TransposeConv2d(_) => {
                    let inputs: usize = shape(0).iter().product();
                    (inputs * shape(1)[..3].iter().product::<usize>(), 1.0, 2.0)
                }
                Op::MatMul(_) => {
                    let both = is_variable(0) && is_variable(1);
                    (n_outputs * last(shape(0)), 1.0, if both { 4.0 } else { 2.0 })
                }
                _ => continue,
            };
            let array = |factor: f64| (macs as f64 * factor) as u64;
            costs.direct_macs += macs as u64;
            costs.array_macs += array(now);
            let factors = if matches!(data.op, Op::MatMul(_)) { 2 } else { 1 };
            for &operand in data.operands()[..factors].iter().filter(|v| plan.params.contains_key(v)) {
                costs.added.entry(operand).or_default().push(array(then - now));
            }
        }
        costs
    }

    /// Array time in per cent of that of the network in `i8`.
    fn percent(&self, macs: u64) -> f64 {
        100.0 * macs as f64 / self.array_macs.max(1) as f64
    }

    /// What promoting the values of a group adds.
    fn of(&self, values: &[ValueId]) -> u64 {
        values.iter().filter_map(|value| self.added.get(value)).flatten().sum()
    }
}
