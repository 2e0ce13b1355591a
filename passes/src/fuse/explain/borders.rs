//! Why two phases that follow each other are not one.

use serde::{Deserialize, Serialize};
use strata_backend::model::graph::StageSet;
use strata_backend::model::{Mode, StageId};

use super::account::{Account, Tried};
use super::{PlanCost, Shortage, Strip};
use crate::fuse::candidates::candidate::{Candidate, Context};
use crate::fuse::too_large::Resource;

/// A border between two phases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Border {
    /// The phase before it; the next is the one after it.
    pub after_phase: usize,
    /// Stages of the phase before it.
    pub stages_before: usize,
    /// Stages of the phase after it.
    pub stages_after: usize,
    /// The last stage of the phase before it.
    pub ends_with: String,
    /// The first stage of the phase after it.
    pub begins_with: String,
    /// Tensors that the one phase makes and the other reads.
    pub tensors: Vec<String>,
    /// Why it is there.
    pub reason: Reason,
    /// What the target has too little of for both as one phase that costs less, or, where none does, for any.
    pub shortages: Vec<Shortage>,
    /// What both need as one phase.
    pub needs: Needs,
    /// What the plan costs as it is.
    pub apart: PlanCost,
    /// What it costs with both as one phase, on a target with as much as they need.
    pub merged: PlanCost,
    /// What a little more of the target saves here, if only these two phases may change.
    pub margins: Margins,
}

/// Why a border is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It was asked for: the plan is layer by layer.
    LayerByLayer,
    /// Both are column strips of the same stages.
    Strips,
    /// It was asked for: phases have a largest number of stages.
    LongestPhase,
    /// As one phase they cost more, whatever the target has of memory, streams and stages.
    CostsMore,
    /// As one phase they cost the same, so nothing is lost.
    CostsTheSame,
    /// As one phase they cost less, but the target has too little of something for that.
    Shortage,
    /// As one phase they fit and cost less by the estimate: within the tolerance less traffic was preferred,
    /// the simulation did not confirm the estimate, there were no addresses, or the search did not come
    /// across it.
    PassedOver,
}

/// What a set of stages needs as one phase, at full width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Stages, without transfers.
    pub stages: u64,
    /// Bytes of activation SRAM beside the tensors that the plan keeps there.
    pub activation_bytes: u64,
    /// As many bytes as it needs to cost less than two phases; none if it never does.
    pub activation_bytes_to_pay: Option<u64>,
    /// Bytes of activation SRAM if nothing else were there.
    pub activation_bytes_alone: u64,
    /// Bytes of weight SRAM.
    pub weight_bytes: u64,
    /// Streams.
    pub streams: u64,
}

/// What a little more of the target saves at a border, in the objective's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// One more KiB of activation SRAM.
    pub activation_kib: f64,
    /// One more KiB of weight SRAM.
    pub weight_kib: f64,
    /// One more cluster.
    pub cluster: f64,
}

/// The borders of a plan, in order.
pub(super) fn borders(account: &Account<'_>, strips: &[Strip]) -> Vec<Border> {
    let mut wider = account.target().clone();
    wider.array.clusters += 1;
    let wider = account.on(&wider).ok();
    (1..account.stages.len()).map(|phase| border(account, wider.as_ref(), strips, phase - 1)).collect()
}

/// The border after a phase.
fn border(account: &Account<'_>, wider: Option<&Context<'_>>, strips: &[Strip], before: usize) -> Border {
    let (first, second) = (&account.stages[before], &account.stages[before + 1]);
    let target = account.target();
    let AsOne { needs, least_stages, tried } = AsOne::new(account, before);
    let activation_bytes = least(&tried, |tried| tried.sram_bytes);
    let apart = PlanCost::from(&account.estimate);
    let paying = tried.iter().filter(|tried| tried.estimate.cost < apart.cost);
    let activation_bytes_to_pay = paying.map(|tried| tried.sram_bytes).min();
    // What never costs less is shown at its best.
    let room = activation_bytes_to_pay.map_or(u64::MAX, |bytes| bytes.max(account.capacity()));
    let merged = cheapest(&tried, room).map_or_else(PlanCost::default, |tried| (&tried.estimate).into());
    let needs = Needs { activation_bytes, activation_bytes_to_pay, ..needs };
    let shortages: Vec<Shortage> = [
        (Resource::ActivationSram, activation_bytes_to_pay.unwrap_or(activation_bytes)),
        (Resource::WeightSram, needs.weight_bytes),
        (Resource::Streams, needs.streams),
        (Resource::Stages, least_stages),
    ]
    .into_iter()
    .filter_map(|(resource, needed)| Shortage::of(resource, target, needed))
    .collect();
    let is_of_sram = |shortage: &Shortage| shortage.field == Resource::ActivationSram.field();
    let may_fit = shortages.iter().all(is_of_sram);
    let saved = (apart.cost - merged.cost).max(0.0);
    let margins = Margins {
        activation_kib: if is_within_a_kib(&shortages, Resource::ActivationSram) { saved } else { 0.0 },
        weight_kib: if is_within_a_kib(&shortages, Resource::WeightSram) { saved } else { 0.0 },
        cluster: wider.map_or(0.0, |wider| saved_by_a_cluster(account, wider, before, may_fit)),
    };
    let graph = account.context.graph;
    let name = |stage: Option<&StageId>| stage.map_or_else(String::new, |&s| graph.stages[s].name.clone());
    Border {
        after_phase: before,
        stages_before: first.len(),
        stages_after: second.len(),
        ends_with: name(first.last()),
        begins_with: name(second.first()),
        tensors: handed_on(account, before),
        reason: reason(account, strips, before, &shortages, &apart, &merged),
        shortages,
        needs,
        apart,
        merged,
        margins,
    }
}

/// What stands in the way of two phases as one, the first thing that does.
fn reason(
    account: &Account<'_>,
    strips: &[Strip],
    before: usize,
    shortages: &[Shortage],
    apart: &PlanCost,
    merged: &PlanCost,
) -> Reason {
    let (first, second) = (&account.stages[before], &account.stages[before + 1]);
    let layers = |stages: &[StageId]| -> Vec<i64> {
        strips.iter().filter(|strip| stages.contains(&strip.stage)).map(|strip| strip.layer).collect()
    };
    let of_second = layers(second);
    let n_stages = first.len() + second.len();
    if account.options.mode == Mode::Single {
        Reason::LayerByLayer
    } else if layers(first).iter().any(|layer| of_second.contains(layer)) {
        Reason::Strips
    } else if n_stages > account.options.offer.longest {
        Reason::LongestPhase
    } else if merged.cost > apart.cost {
        Reason::CostsMore
    } else if merged.cost >= apart.cost {
        Reason::CostsTheSame
    } else if !shortages.is_empty() {
        Reason::Shortage
    } else {
        Reason::PassedOver
    }
}

/// Tensors that a phase makes and the next reads.
fn handed_on(account: &Account<'_>, before: usize) -> Vec<String> {
    let Context { graph, topology, .. } = &account.context;
    let is_in =
        |uses: &[(StageId, _)], phase: usize| uses.iter().any(|(stage, _)| account.phase_of[*stage] == phase);
    let handed = topology
        .uses
        .iter()
        .filter(|(_, uses)| is_in(&uses.writers, before) && is_in(&uses.readers, before + 1));
    handed.map(|(buffer, _)| graph.buffers[buffer].name.clone()).collect()
}

/// Two phases as one on a target that has enough of all but activation SRAM.
struct AsOne {
    /// What they need, but for activation SRAM.
    needs: Needs,
    /// Stages that the target must have: with those of transfers.
    least_stages: u64,
    /// The ways to run them.
    tried: Vec<Tried>,
}

impl AsOne {
    /// The phase after which the border is, and the next.
    fn new(account: &Account<'_>, before: usize) -> Self {
        let target = account.target();
        let set: StageSet = account.stages[before..=before + 1].iter().flatten().copied().collect();
        let touched = account.context.topology.touched(&set);
        let needs = Needs {
            stages: set.len() as u64,
            streams: touched.len() as u64,
            weight_bytes: account.weight_bytes(&set),
            ..Needs::default()
        };
        let needs = Needs { activation_bytes_alone: bytes_alone(account, &set, &needs), ..needs };
        let on = |stages: u64| {
            let mut enough = target.clone();
            Resource::WeightSram.raise(&mut enough, needs.weight_bytes);
            Resource::Streams.raise(&mut enough, needs.streams);
            Resource::Stages.raise(&mut enough, stages);
            account.as_one(&account.context.with_memory(&enough), &account.homes, before, before + 1)
        };
        let tried = on(needs.stages);
        if !tried.is_empty() {
            return Self { needs, least_stages: needs.stages, tried };
        }
        let mut too_few = u64::from(target.limits.stages).max(needs.stages);
        let mut least_stages = too_few * 2;
        while on(least_stages).is_empty() {
            (too_few, least_stages) = (least_stages, least_stages * 2);
        }
        while too_few + 1 < least_stages {
            let middle = u64::midpoint(too_few, least_stages);
            if on(middle).is_empty() { too_few = middle } else { least_stages = middle }
        }
        Self { needs, least_stages, tried: on(least_stages) }
    }
}

/// Bytes of activation SRAM that stages take as a phase, wherever the tensors at its border live, on a target
/// that has enough of all else.
fn bytes_alone(account: &Account<'_>, set: &StageSet, needs: &Needs) -> u64 {
    let mut enough = account.target().clone();
    Resource::WeightSram.raise(&mut enough, needs.weight_bytes);
    Resource::Streams.raise(&mut enough, needs.streams);
    Resource::Stages.raise(&mut enough, needs.stages);
    let candidate = Candidate::new(&account.context.with_memory(&enough), set);
    let bytes = candidate.into_iter().flat_map(|candidate| candidate.full_bytes);
    bytes.flatten().min().unwrap_or(0)
}

fn least(tried: &[Tried], of: impl Fn(&Tried) -> u64) -> u64 {
    tried.iter().map(of).min().unwrap_or(0)
}

/// Of what was tried and takes no more activation SRAM than `room`, what costs least.
fn cheapest(tried: &[Tried], room: u64) -> Option<&Tried> {
    let fitting = tried.iter().filter(|tried| tried.sram_bytes <= room);
    fitting.min_by(|a, b| a.estimate.cost.total_cmp(&b.estimate.cost))
}

/// Whether all that is missing is up to a KiB of something.
fn is_within_a_kib(shortages: &[Shortage], resource: Resource) -> bool {
    matches!(shortages, [only] if only.field == resource.field() && only.missing <= 1024)
}

/// What one more cluster saves if it is given to the two phases, as one where they fit.
fn saved_by_a_cluster(account: &Account<'_>, wider: &Context<'_>, before: usize, may_fit: bool) -> f64 {
    let now = account.estimate.cost;
    let with = |first: usize, last: usize| {
        let tried = account.as_one(wider, &account.homes, first, last);
        cheapest(&tried, account.capacity()).map_or(now, |tried| tried.estimate.cost)
    };
    // Phases add up, so what each saves does.
    let apart = now - (now - with(before, before)).max(0.0) - (now - with(before + 1, before + 1)).max(0.0);
    let merged = if may_fit { with(before, before + 1) } else { now };
    (now - apart.min(merged)).max(0.0)
}
