//! What a stage costs on a number of clusters, and what a phase costs given its stages.
//!
//! All cycles come from [`strata_isa_spec::timing`]. [`StageProfile`] tabulates a stage once for every
//! cluster count; [`pipeline`] turns a division of clusters into the time of a phase: each stage starts when
//! the first rows it needs are there and ends at the earliest when it has worked through its steps, and at
//! least its last steps after the stages that it reads from. That is exact for a pipeline whose rings never
//! run full before they run dry, which is what [`Buffering::Overlap`](crate::cost::rings::Buffering) buys;
//! DRAM is a bound beside it; the first and last rows, by [`fill_drain`], and weights are a delay before and
//! after it.

pub mod fill_drain;
pub mod mappings;
pub mod rings;
pub mod transfers;

use std::collections::BTreeSet;
use std::sync::Arc;

use strata_isa_spec::inst::Head;
use strata_isa_spec::timing::{dram_cycles, winograd_eligible};
use strata_isa_spec::{Mapping, Target};

use crate::cost::mappings::Mappings;
use crate::cost::rings::Actor;
use crate::model::graph::views_meet;
use crate::model::tables::table_key;
use crate::model::{Objective, StageGraph, StageId, StageNode, StageTemplate};

/// The best way to run a stage on a number of clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Implementation {
    /// Cycles of all steps.
    pub cycles: u64,
    /// Cycles of one step.
    pub step_cycles: u64,
    /// How many steps there are.
    pub n_steps: u32,
    /// How the array is divided.
    pub mapping: Mapping,
    /// Whether it runs as Winograd.
    pub winograd: bool,
}

/// A stage's code with Winograd chosen or not; other heads than convolutions are left alone.
pub fn with_winograd(code: &StageTemplate, winograd: bool) -> StageTemplate {
    let mut code = code.clone();
    if let Head::Conv2d(conv) = &mut code.head {
        conv.winograd = winograd;
    }
    code
}

/// Whether a stage may run as Winograd on a target.
pub fn may_winograd(code: &StageTemplate, target: &Target) -> bool {
    target.array.winograd
        && matches!(&code.head, Head::Conv2d(c) if winograd_eligible(&c.window, c.groups, c.src.chs))
}

/// A stage, tabulated.
#[derive(Clone, Debug)]
pub struct StageProfile {
    /// Best implementation by clusters, from one cluster on; more clusters never cost more.
    by_clusters: Arc<[Implementation]>,
    direct: Actor,
    winograd: Option<Actor>,
    /// The least that clusters work on the stage together, in cycles, over all numbers of clusters.
    least_work: u64,
    /// Bytes of its tables in weight SRAM, each aligned.
    pub weight_bytes: u64,
    /// Bytes of its tables in DRAM.
    pub table_bytes: u64,
    /// Int8 multiply-accumulates of the cheapest allowed method.
    pub least_macs: u64,
}

impl Implementation {
    /// Cycles of switches if the stage takes turns with others: one a step, since its next step mostly waits
    /// for a step of another.
    pub fn switch_cycles(&self, target: &Target) -> u64 {
        u64::from(self.n_steps) * u64::from(target.switch.stage_cycles)
    }
}

/// The least that clusters work together under the best implementations by their number.
fn least_work(by_clusters: &[Implementation]) -> u64 {
    (1..).zip(by_clusters).map(|(clusters, option)| clusters * option.cycles).min().unwrap_or(0)
}

/// Rounds up to the target's alignment.
pub fn align(target: &Target, bytes: u64) -> u64 {
    bytes.next_multiple_of(u64::from(target.memory.alignment.max(1)))
}

impl StageProfile {
    /// Tabulates a stage.
    pub fn new(node: &StageNode, target: &Target, mappings: &Mappings) -> Self {
        let direct = with_winograd(&node.code, false);
        let winograd = may_winograd(&node.code, target).then(|| with_winograd(&node.code, true));
        let by_clusters = mappings.best(&node.code, winograd.is_some(), target);
        Self {
            least_work: least_work(&by_clusters),
            by_clusters,
            direct: Actor::new(&direct),
            winograd: winograd.as_ref().map(Actor::new),
            weight_bytes: node.table_bytes.values().map(|&b| align(target, u64::from(b))).sum(),
            table_bytes: node.weight_bytes(),
            least_macs: node.code.array_macs(may_winograd(&node.code, target)),
        }
    }

    /// The profile of a part of the columns of this one's stage.
    pub fn of_columns(&self, code: &StageTemplate, target: &Target, mappings: &Mappings) -> Self {
        let winograd = self.winograd.is_some();
        let by_clusters = mappings.best(code, winograd, target);
        Self {
            least_work: least_work(&by_clusters),
            by_clusters,
            direct: self.direct.of_columns(code),
            winograd: self.winograd.as_ref().map(|actor| actor.of_columns(code)),
            weight_bytes: self.weight_bytes,
            table_bytes: self.table_bytes,
            least_macs: code.array_macs(winograd),
        }
    }

    /// The profile of the same stage, run as code `code`, where it is not to run as Winograd.
    pub fn without_winograd(&self, code: &StageTemplate, target: &Target, mappings: &Mappings) -> Self {
        let by_clusters = mappings.best(code, false, target);
        Self { least_work: least_work(&by_clusters), by_clusters, winograd: None, ..self.clone() }
    }

    /// Whether it may run as Winograd.
    pub fn may_winograd(&self) -> bool {
        self.winograd.is_some()
    }

    /// This profile for another part of as many columns.
    pub fn moved_to(&self, code: &StageTemplate) -> Self {
        Self {
            by_clusters: Arc::clone(&self.by_clusters),
            direct: self.direct.of_columns(code),
            winograd: self.winograd.as_ref().map(|actor| actor.of_columns(code)),
            ..*self
        }
    }

    /// The best implementation on at most so many clusters.
    pub fn on(&self, clusters: u32) -> &Implementation {
        let last = self.by_clusters.len() - 1;
        &self.by_clusters[(clusters.max(1) as usize - 1).min(last)]
    }

    /// The fewest clusters on which the stage takes at most `cycles`.
    pub fn clusters_for(&self, cycles: u64) -> Option<u32> {
        let at = self.by_clusters.partition_point(|option| option.cycles > cycles);
        (at < self.by_clusters.len()).then_some(at as u32 + 1)
    }

    /// The least that clusters work on the stage together, in cycles, over all numbers of clusters.
    pub fn least_work(&self) -> u64 {
        self.least_work
    }

    /// The stage as the token simulation sees it.
    pub fn actor(&self, winograd: bool) -> &Actor {
        if winograd { self.winograd.as_ref().unwrap_or(&self.direct) } else { &self.direct }
    }
}

/// A stage in a phase, for [`pipeline`].
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// The stage as the token simulation sees it.
    pub actor: &'a Actor,
    /// Cycles of one step, with the switch if the stage takes turns with others.
    pub step_cycles: u64,
    /// The partition that it runs on.
    pub partition: u32,
}

impl Running<'_> {
    /// Cycles of all steps.
    pub fn work(&self) -> u64 {
        u64::from(self.actor.n_steps()) * self.step_cycles
    }
}

/// When stages start and when the last is done, in cycles from the begin of the phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineTime {
    /// Start of each stage's first step.
    pub starts: Vec<u64>,
    /// End of each stage's last step.
    pub ends: Vec<u64>,
    /// End of the last stage.
    pub end: u64,
}

/// Time of stages in topological order. Those on different partitions work at once; a partition is done when
/// it has worked through the steps of all of its stages. In lockstep a stage and each stage that it reads
/// from work by turns, so the pair takes the sum.
pub fn pipeline(stages: &[Running<'_>], lockstep: bool) -> PipelineTime {
    let mut starts = Vec::with_capacity(stages.len());
    let mut ends: Vec<u64> = Vec::with_capacity(stages.len());
    for (index, stage) in stages.iter().enumerate() {
        let work = stage.work();
        let (mut start, mut least_end) = (0, 0);
        for edge in stage.actor.edges() {
            for (earlier, writer) in stages[..index].iter().enumerate() {
                let Some(out) = writer.actor.out().filter(|out| views_meet(out, &edge.view)) else {
                    continue;
                };
                let rows = edge.first_end.saturating_sub(out.row0).min(writer.actor.n_rows());
                let steps = u64::from(rows.div_ceil(writer.actor.rows_per_step()));
                start = start.max(starts[earlier] + steps * writer.step_cycles);
                // What waits for any row of the last step comes after it, but not what waits for none.
                let before = writer.actor.n_steps().saturating_sub(1) * writer.actor.rows_per_step();
                let last_steps = edge.steps_from(out.row0 + before);
                least_end = least_end.max(ends[earlier] + u64::from(last_steps) * stage.step_cycles);
                if lockstep {
                    least_end = least_end.max(starts[earlier] + work + writer.work());
                }
            }
        }
        let others = || (0..index).filter(|&other| stages[other].partition == stage.partition);
        if let Some(first) = others().next() {
            let all = work + others().map(|other| stages[other].work()).sum::<u64>();
            least_end = least_end.max(starts[first] + all);
        }
        starts.push(start);
        ends.push((start + work).max(least_end));
    }
    let end = ends.iter().copied().max().unwrap_or(0);
    PipelineTime { starts, ends, end }
}

/// Cycles that DRAM needs for bytes of a phase: the channel's rate, and its latency once.
pub fn dram_bound(target: &Target, bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { dram_cycles(target, bytes) + u64::from(target.dram.latency_cycles) }
}

/// Energy of everything in an inference but DRAM, in picojoules, by the timed interpreter's counting: the
/// products that the array makes, activation SRAM read once a row and reader and written once a row, weight
/// SRAM written once and read once a step.
pub fn on_chip_energy(
    graph: &StageGraph,
    target: &Target,
    stages: impl Iterator<Item = (StageId, bool)>,
) -> f64 {
    let (mut macs, mut activation, mut weight) = (0u64, 0u64, 0u64);
    let mut loaded = BTreeSet::new();
    for (stage, winograd) in stages {
        let node = &graph.stages[stage];
        let code = with_winograd(&node.code, winograd);
        macs += code.array_macs(winograd);
        for view in code.reads().into_iter().chain([code.out]) {
            activation += graph.view_bytes(&view);
        }
        let n_loads = u64::from(loaded.insert(table_key(graph, stage)));
        weight += node.weight_bytes() * (u64::from(code.n_steps()) + n_loads);
    }
    let energy = &target.energy;
    macs as f64 * energy.mac_pj
        + activation as f64 * energy.activation_byte_pj
        + weight as f64 * energy.weight_byte_pj
}

/// A cost of two parts, cycles and DRAM bytes, as one number: least score is least cost, and ties go to the
/// other part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScoreWeights {
    /// Score of a cycle.
    pub per_cycle: u128,
    /// Score of a DRAM byte.
    pub per_byte: u128,
    /// Score of what phases [fill](filled) of activation SRAM.
    pub per_fill: u128,
}

/// What a phase fills of activation SRAM, as weights count it: the square, so that peaks count most.
pub fn filled(sram_bytes: u64) -> u64 {
    (sram_bytes / 1024).saturating_pow(2)
}

/// How much more what comes first counts than what comes second.
const UNIT: u128 = 1 << 40;

impl ScoreWeights {
    /// The weights of an objective. For the product of energy and delay, which does not add up over phases,
    /// they are its gradient at a plan of `around = (picojoules, cycles)`: the product is least on the convex
    /// hull of what plans cost, so some such weights find it.
    pub fn of(objective: Objective, target: &Target, around: (f64, f64)) -> Self {
        match objective {
            Objective::Latency => Self { per_cycle: UNIT, per_byte: 1, per_fill: 0 },
            Objective::Traffic | Objective::Energy | Objective::Sram => {
                Self { per_cycle: 1, per_byte: UNIT, per_fill: 0 }
            }
            Objective::Edp => {
                let (energy, delay) = (around.0.max(1.0), around.1.max(1.0));
                // d(E*D) = E dD + D dE, in units that keep both integers large.
                let ratio = delay * target.energy.dram_byte_pj / energy;
                Self { per_cycle: UNIT, per_byte: ((ratio * UNIT as f64) as u128).max(1), per_fill: 0 }
            }
        }
    }

    /// Cycles count, and a DRAM byte costs so many 1024ths of one.
    pub fn priced(byte: u128) -> Self {
        Self { per_cycle: UNIT, per_byte: byte * UNIT / 1024, per_fill: 0 }
    }

    /// Whether a byte less is worth any number of cycles.
    pub fn puts_bytes_first(&self) -> bool {
        self.per_byte >= UNIT * self.per_cycle
    }

    /// DRAM bytes count, and of plans that move as many, what leaves the most of SRAM free.
    pub fn prefer_free_sram() -> Self {
        Self { per_cycle: 1, per_byte: UNIT * UNIT, per_fill: UNIT }
    }

    /// The score of what is filled.
    pub fn fill_score(&self, filled: u64) -> u128 {
        self.per_fill * u128::from(filled)
    }

    /// The score of a cost, without what is filled.
    pub fn score(&self, cycles: u64, bytes: u64) -> u128 {
        self.per_cycle * u128::from(cycles) + self.per_byte * u128::from(bytes)
    }
}
