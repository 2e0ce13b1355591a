//! Plans for targets that have more of something: which change of the target helps most.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use strata_backend::model::StageGraph;
use strata_ir::pass::PassError;
use strata_isa_spec::Target;

use crate::fuse::PlanOptions;
use crate::fuse::pass::{does_not_fit, plan_for};

/// A change of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetChange {
    /// The field that changes, such as `memory.activation`.
    pub field: &'static str,
    /// What it was.
    pub from: u64,
    /// What it becomes.
    pub to: u64,
    /// The target with it.
    pub target: Target,
}

/// A target that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// The field that changes, such as `memory.activation`.
    pub field: String,
    /// What it was.
    pub from: u64,
    /// What it is here.
    pub to: u64,
    /// By how much it changed, as a share of what it was.
    pub relative_change: f64,
    /// What the plan for this target costs under the objective; none if no plan was found.
    pub cost: Option<f64>,
    /// What it costs less than the plan for the target as it is; negative if it costs more.
    pub saved: f64,
    /// `saved`, as a share of the cost of the plan for the target as it is.
    pub relative_saved: f64,
    /// `relative_saved` over `relative_change`: what the changes are ranked by.
    pub gain: f64,
}

/// A field of a target, and factors in percent by which it is tried.
struct Field {
    name: &'static str,
    percent: &'static [u64],
    get: fn(&Target) -> u64,
    set: fn(&mut Target, u64),
}

/// A number as a field of 32 bits.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

const FIELDS: [Field; 6] = [
    Field {
        name: "memory.activation",
        percent: &[125, 150, 200],
        get: |target| target.memory.activation,
        set: |target, value| target.memory.activation = value,
    },
    Field {
        name: "memory.weight",
        percent: &[125, 150, 200],
        get: |target| target.memory.weight,
        set: |target, value| target.memory.weight = value,
    },
    Field {
        name: "array.clusters",
        percent: &[125, 200],
        get: |target| target.array.clusters.into(),
        set: |target, value| target.array.clusters = narrow(value),
    },
    Field {
        name: "dram.bytes_per_cycle",
        percent: &[125, 200],
        get: |target| target.dram.bytes_per_cycle.into(),
        set: |target, value| target.dram.bytes_per_cycle = narrow(value),
    },
    Field {
        name: "switch.stage_cycles",
        percent: &[0],
        get: |target| target.switch.stage_cycles.into(),
        set: |target, value| target.switch.stage_cycles = narrow(value),
    },
    Field {
        name: "switch.phase_cycles",
        percent: &[0],
        get: |target| target.switch.phase_cycles.into(),
        set: |target, value| target.switch.phase_cycles = narrow(value),
    },
];

/// The changes of a target that are tried: those that change something and leave a machine that can be.
/// Numbers are rounded up, so of a small one two factors may be the same change, which is tried once.
pub fn changes(target: &Target) -> Vec<TargetChange> {
    let mut changes: Vec<TargetChange> = Vec::new();
    for Field { name, percent, get, set } in &FIELDS {
        let from = get(target);
        for percent in *percent {
            let to = from.saturating_mul(*percent).div_ceil(100);
            let mut changed = target.clone();
            set(&mut changed, to);
            let is_known = changes.iter().any(|change| change.field == *name && change.to == to);
            if to != from && !is_known && changed.problems().is_empty() {
                changes.push(TargetChange { field: name, from, to, target: changed });
            }
        }
    }
    changes
}

/// What came of changes of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhatIfs {
    /// What the plan for the target as it is costs, made in the same way.
    pub cost: f64,
    /// The changes, the most saved for the least change first.
    pub changes: Vec<WhatIf>,
}

/// Plans a graph for a target and for changed ones, with the same options, and ranks the changes. `tried` is
/// told of each as it is done, from any thread.
///
/// # Errors
/// If planning fails, but for changed targets that are too small.
pub fn what_ifs(
    graph: &StageGraph,
    target: &Target,
    changes: &[TargetChange],
    options: &PlanOptions,
    tried: &(dyn Fn(&TargetChange) + Sync),
) -> Result<WhatIfs, PassError> {
    // The order of stages can decide what a limited search finds: the plan at hand may be of another order.
    let cost = plan_for(graph, target, options)?.plan.certificate.cost;
    let plan = |change: &TargetChange| {
        let found = match plan_for(graph, &change.target, options) {
            Ok(planned) => Some(planned.plan.certificate.cost),
            Err(error) if does_not_fit(&error) => None,
            Err(error) => return Err(error),
        };
        tried(change);
        Ok(what_if(change, found, cost))
    };
    let mut found = changes.par_iter().map(plan).collect::<Result<Vec<WhatIf>, PassError>>()?;
    // Of equals, the first stays first.
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    Ok(WhatIfs { cost, changes: found })
}

fn what_if(change: &TargetChange, found: Option<f64>, cost: f64) -> WhatIf {
    let TargetChange { field, from, to, .. } = change;
    let relative_change = to.abs_diff(*from) as f64 / (*from).max(1) as f64;
    let saved = found.map_or(0.0, |found| cost - found);
    let relative_saved = if cost > 0.0 { saved / cost } else { 0.0 };
    WhatIf {
        field: (*field).to_owned(),
        from: *from,
        to: *to,
        relative_change,
        cost: found,
        saved,
        relative_saved,
        gain: relative_saved / relative_change,
    }
}
