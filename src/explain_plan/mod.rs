//! Why a plan is as it is: the data behind `strata explain-plan`.
//!
//! A plan is explained from the stages that it places, which stand in dumps and not in bundles. What the
//! borders between phases and the spilled tensors have to say comes from the planner
//! ([`strata_passes::fuse::explain`]), times from the simulation of the scheduled plan. JSON is stable: keys
//! are added, never renamed, and [`SCHEMA`] rises if one goes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`source`] | plans with their stages, from dumps and from compiles |

pub mod source;

use serde::{Deserialize, Serialize};
use strata_backend::model::{BoundArgument, Mode, Objective};
use strata_backend::place::schedule;
use strata_ir::pass::PassError;
use strata_isa_spec::timed::{TimeUse, Timing, simulate};
use strata_isa_spec::{Phase, Target};
use strata_passes::fuse::explain::what_if::{TargetChange, WhatIfs, changes, what_ifs};
use strata_passes::fuse::explain::{Explained, Subject, explain};

use self::source::PlannedPart;
use crate::stats::SimulatedStats;

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// Why the plan of a network is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The network's name.
    pub network: String,
    /// The name of the machine.
    pub target: String,
    /// The parts that the machine runs, in order.
    pub parts: Vec<PartExplanation>,
}

/// Why the plan of a part is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartExplanation {
    /// What it costs, and what no plan can beat.
    pub plan: PlanSummary,
    /// The simulation of the scheduled plan: what the array and DRAM spend an inference on.
    pub simulated: SimulatedStats,
    /// The phases.
    pub phases: Vec<PhaseSummary>,
    /// Why phases end where they do, and why tensors go through DRAM.
    #[serde(flatten)]
    pub explained: Explained,
    /// Plans for changed targets, if they were asked for and the stages are known of which they are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_if: Option<WhatIfs>,
}

/// What a plan costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// What it minimises.
    pub objective: Objective,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// Its cost under the objective.
    pub cost: f64,
    /// No plan costs less; 0 where no bound is known.
    pub lower_bound: f64,
    /// Why none does.
    pub bound_argument: BoundArgument,
    /// The cost over the bound, minus one.
    pub gap: f64,
    /// Cycles of one inference.
    pub cycles: u64,
    /// DRAM bytes of one inference.
    pub dram_bytes: u64,
}

/// A phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// Stages, without transfers.
    pub stages: usize,
    /// Its first stage.
    pub first_stage: String,
    /// Its last stage.
    pub last_stage: String,
    /// Simulated cycles.
    pub cycles: u64,
    /// What the array spends it on, in cycles of a cluster.
    pub array: TimeUse,
}

/// Why a plan could not be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainPlanError {
    /// The plan is not one of these stages or this target.
    #[error(transparent)]
    Plan(#[from] strata_passes::fuse::explain::ExplainError),
    /// It has no schedule.
    #[error("the plan cannot be scheduled: {0}")]
    Schedule(#[from] strata_backend::place::ScheduleError),
    /// Planning for another target failed, a defect.
    #[error("planning for a changed target failed: {0}")]
    WhatIf(PassError),
}

/// Changes of targets that are to be tried.
pub struct Trials<'a> {
    /// Told of each change as its plan is made, from any thread.
    pub tried: &'a (dyn Fn(&TargetChange) + Sync),
}

/// Explains the plan of a part for a target; `trials` if changes of the target are to be tried too.
///
/// # Errors
/// If the plan was made of other stages or for another target; if planning for a changed target fails for
/// another reason than that it is too small.
pub fn explain_part(
    part: &PlannedPart,
    target: &Target,
    trials: Option<&Trials<'_>>,
) -> Result<PartExplanation, ExplainPlanError> {
    let PlannedPart { graph, plan, options, strips, .. } = part;
    let explained = explain(Subject { graph, plan, target, options, strips })?;
    let scheduled = schedule(graph, plan, target)?;
    let timing = simulate(&scheduled.program, target);
    let certificate = &plan.certificate;
    let summary = PlanSummary {
        objective: plan.objective,
        mode: plan.mode,
        cost: certificate.cost,
        lower_bound: certificate.lower_bound,
        bound_argument: certificate.argument,
        gap: certificate.gap,
        cycles: plan.cycles,
        dram_bytes: plan.dram_bytes.total,
    };
    let what_if = match (trials, &part.unsplit) {
        (Some(trials), Some(unsplit)) => {
            let made = what_ifs(unsplit, target, &changes(target), options, trials.tried);
            Some(made.map_err(ExplainPlanError::WhatIf)?)
        }
        _ => None,
    };
    Ok(PartExplanation {
        plan: summary,
        simulated: SimulatedStats::new(&timing, target.array.clock_hz, plan.dram_bytes.compulsory),
        phases: phases(part, &scheduled.program.phases, &timing),
        explained,
        what_if,
    })
}

fn phases(part: &PlannedPart, phases: &[Phase], timing: &Timing) -> Vec<PhaseSummary> {
    let name = |stage| part.graph.stages[stage].name.clone();
    let planned = part.plan.phases.iter().zip(phases).zip(&timing.phases);
    let summaries = planned.map(|((planned, phase), time)| {
        let mut array = TimeUse::default();
        for (&clusters, spent) in phase.partitions.iter().zip(&time.partitions) {
            array.add(spent, clusters.into());
        }
        let stages = &planned.stages;
        PhaseSummary {
            stages: stages.len(),
            first_stage: stages.first().map_or_else(String::new, |placed| name(placed.stage)),
            last_stage: stages.last().map_or_else(String::new, |placed| name(placed.stage)),
            cycles: time.cycles,
            array,
        }
    });
    summaries.collect()
}
