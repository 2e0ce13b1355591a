//! `fuse-layers`: plans the stages of `@main` and wraps them in `strata.phase` ops, in the order of the plan.
//!
//! A phase op's `plan` is its [`PhasePlan`](strata_backend::model::PhasePlan); the function's `strata.plan`
//! is the rest of the [`Plan`], whose stages are numbered in the order in which they stand in the module
//! afterwards. Ops that move nothing (concat, slice, reshape) go into the first phase that uses them;
//! constants stand before all phases, what only the results use after them.
//!
//! Stages are numbered [by the data flow](by_data_flow).
//!
//! What the plan runs in column strips becomes a stage a strip first, by [`split_columns`], and is then like
//! any other.
//!
//! A plan counts bytes; whether they have addresses only the scheduler can tell. The pass asks it, and plans
//! again for less SRAM until they have. The cycles of the plan that is returned are those of the machine's
//! timed simulation of what was scheduled, so that what is predicted is what runs; the search itself compares
//! plans by the closed form of [`strata_backend::cost`], which is kept beside. Where that is off, the search
//! is repeated with what simulation found.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_backend::check::{PlanFault, check};
use strata_backend::model::graph::Topology;
use strata_backend::model::{Mode, Objective, Plan, StageGraph, StageId};
use strata_backend::place::{ScheduleError, Scheduled, schedule};
use strata_backend::select::narrow::narrow_slices;
use strata_backend::select::split_columns::{erase_dead_views, split_columns};
use strata_ir::pass::{
    Changed, Level, OptionInfo, OptionKind, Pass, PassContext, PassError, PassInfo, PassOptions,
};
use strata_ir::{Attribute, BlockId, Module, Op, OpId, Type, ValueId, dialect};
use strata_isa_spec::{Target, timed};

use crate::fuse::egraph::Offer;
use crate::fuse::order::by_data_flow;
use crate::fuse::refine::prefetch::with_prefetch;
use crate::fuse::refine::prefixes::with_prefixes;
use crate::fuse::solve::{PlanError, PlanOptions, Planned, Planner, usable_bytes};

/// The row of [`FuseLayers`].
pub static FUSE_LAYERS: PassInfo = PassInfo {
    name: "fuse-layers",
    doc: "Chooses which stages run together, on which clusters, and where every boundary tensor lives.",
    takes: &[Level::Stages],
    gives: Some(Level::Phases),
    options: &[
        OptionInfo {
            name: "objective",
            kind: OptionKind::Choice(&["latency", "energy", "traffic", "edp", "sram"]),
            default: "latency",
            doc: "What is least: cycles, energy, DRAM bytes, energy times delay, or the peak of activation \
                SRAM.",
        },
        OptionInfo {
            name: "mode",
            kind: OptionKind::Choice(&["multi", "single"]),
            default: "multi",
            doc: "Whether phases may hold more than one stage.",
        },
        OptionInfo {
            name: "tolerance-percent",
            kind: OptionKind::Integer(0, 100),
            default: "1",
            doc: "For `latency`: how much slower than the fastest a plan may be and count as equally fast; \
                among equals, the one \
                  that moves the fewest DRAM bytes is taken.",
        },
        OptionInfo {
            name: "producer-consumer",
            kind: OptionKind::Bool,
            default: "true",
            doc: "E-graph: fuse a group with a stage that reads from it, or that it reads from.",
        },
        OptionInfo {
            name: "sibling",
            kind: OptionKind::Bool,
            default: "true",
            doc: "E-graph: fuse a group with a stage that reads what it does.",
        },
        OptionInfo {
            name: "sequence",
            kind: OptionKind::Bool,
            default: "true",
            doc: "E-graph: fuse stages that are next to one another in the order of the data flow.",
        },
        OptionInfo {
            name: "strips",
            kind: OptionKind::Bool,
            default: "true",
            doc: "Whether stages whose rows are too wide may run in column strips; in mode `single` only \
                those do whose rows do \
                  not fit at all.",
        },
        OptionInfo {
            name: "refine",
            kind: OptionKind::Bool,
            default: "true",
            doc: "Whether a tensor may take the space of one that dies, and first rows may stay or come \
                ahead where the rest of a \
                  tensor does not.",
        },
        OptionInfo {
            name: "longest-phase",
            kind: OptionKind::Integer(1, 4096),
            default: "64",
            doc: "Stages of a phase, at most.",
        },
    ],
    build: |options| Arc::new(FuseLayers::of(options)),
};

/// What judges refused of plans on the way to one, each a defect of the planner. The plan is without what
/// they found fault with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused(pub Vec<String>);

/// Wraps stages that run together in `strata.phase` ops.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseLayers {
    /// What is asked of the planner.
    pub options: PlanOptions,
}

impl FuseLayers {
    /// The pass of textual options.
    fn of(options: &PassOptions) -> Self {
        let refine = options.flag("refine");
        let offer = Offer {
            producer_consumer: options.flag("producer-consumer"),
            sibling: options.flag("sibling"),
            sequence: options.flag("sequence"),
            longest: usize::try_from(options.integer("longest-phase")).unwrap_or(1),
            ..Offer::default()
        };
        let options = PlanOptions {
            objective: Objective::from_name(options.text("objective")).unwrap_or_default(),
            mode: Mode::from_name(options.text("mode")).unwrap_or_default(),
            tolerance_percent: u32::try_from(options.integer("tolerance-percent")).unwrap_or(0),
            offer,
            strips: options.flag("strips"),
            growths: refine,
            first_rows: refine,
            ..PlanOptions::default()
        };
        Self { options }
    }
}

impl Pass for FuseLayers {
    fn info(&self) -> &'static PassInfo {
        &FUSE_LAYERS
    }

    fn options(&self) -> PassOptions {
        let PlanOptions { objective, mode, tolerance_percent, offer, strips, growths, .. } = self.options;
        PassOptions::defaults(&FUSE_LAYERS)
            .with("objective", objective.name())
            .with("mode", mode.name())
            .with("tolerance-percent", tolerance_percent)
            .with("producer-consumer", offer.producer_consumer)
            .with("sibling", offer.sibling)
            .with("sequence", offer.sequence)
            .with("longest-phase", offer.longest)
            .with("strips", strips)
            .with("refine", growths)
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let target = &context.require::<Target>("a target")?.clone();
        let func = module.function("main").ok_or_else(|| PassError::invalid("there is no function @main"))?;
        let block = module.entry_block(func);
        module.set_block_order(block, by_data_flow(module, block));
        let graph = StageGraph::from_module(module, func).map_err(PassError::other)?;
        let with = |options: PlanOptions| plan_for(&graph, target, &options);
        let mut planned = with(self.options)?;
        let mut n_strips = planned.realised.parts.iter().filter(|part| part.strip.is_some()).count();
        if n_strips > 0 {
            let mut split = module.clone();
            match split_columns(&mut split, func, &graph, &planned.realised) {
                Ok(()) => *module = split,
                // Channels that several stages make are joined by a concat that its readers stand behind,
                // whichever of them they read. Where a plan runs a strip before a stage whose part it does
                // not read, the IR has no such order.
                Err(_) => {
                    let before = planned.refused;
                    planned = with(PlanOptions { strips: false, ..self.options })?;
                    planned.refused.splice(0..0, before);
                    context.count("stages of strips given up", n_strips as u64);
                    n_strips = 0;
                }
            }
        }
        let Planned { mut plan, realised, refused, .. } = planned;
        // A plan goes by what is read: its order need not be one of whole concatenations.
        narrow_slices(module, block);
        erase_dead_views(module, block);
        if n_strips > 0 {
            let split = StageGraph::from_module(module, func).map_err(PassError::other)?;
            wrap(module, func, &split, &mut plan)?;
        } else {
            wrap(module, func, &realised.graph, &mut plan)?;
        }
        Level::Phases.mark(module);
        let largest = plan.phases.iter().map(|phase| phase.stages.len()).max().unwrap_or(0);
        context.count("phases", plan.phases.len() as u64);
        context.count("largest phase", largest as u64);
        if n_strips > 0 {
            context.count("stages of strips", n_strips as u64);
        }
        if !refused.is_empty() {
            context.count("faults found by the judge", refused.len() as u64);
        }
        context.insert(Refused(refused));
        context.insert(plan);
        Ok(Changed::Yes)
    }
}

/// Shares of activation SRAM, in percent, that plans are made for until one has addresses: tensors that fit
/// by their sizes may still not stand side by side when their lifetimes interlock.
const SHARES: [u32; 9] = [100, 97, 94, 90, 85, 80, 70, 60, 50];

/// The plan of a graph that `fuse-layers` makes, before the ops of strips are split.
///
/// # Errors
/// If there is none, because the target is too small ([`does_not_fit`]) or by a defect.
pub fn plan_for(graph: &StageGraph, target: &Target, options: &PlanOptions) -> Result<Planned, PassError> {
    match options.objective {
        Objective::Sram => plan_in_least_sram(graph, target, options),
        _ => plan_with_addresses(graph, target, options),
    }
}

/// The best plan whose streams have addresses, its time by simulation. Where strips were taken for the sake
/// of time, a plan without them is made too, and for least traffic one that leaves SRAM free for first rows;
/// the one that costs less is returned.
pub(super) fn plan_with_addresses(
    graph: &StageGraph,
    target: &Target,
    options: &PlanOptions,
) -> Result<Planned, PassError> {
    let mut planner = Planner::new(graph, target, options).map_err(PassError::other)?;
    let mut best = plan_in_a_share(&mut planner, target, options)?;
    let is_of_time = matches!(options.objective, Objective::Latency | Objective::Edp);
    if is_of_time {
        best = learned(&mut planner, target, options, best)?;
    }
    let mut others = Vec::new();
    if is_of_time && best.realised.parts.iter().any(|part| part.strip.is_some()) {
        others.push(PlanOptions { strips: false, ..*options });
    }
    let is_spilled = best.plan.dram_bytes.total > best.plan.dram_bytes.compulsory;
    if options.objective == Objective::Traffic && options.mode == Mode::Multi && is_spilled {
        others.push(PlanOptions { prefer_free_sram: true, ..*options });
    }
    for other in &others {
        match plan_in_a_share(&mut planner, target, other) {
            Ok(other) if price(&other) < price(&best) => best = other,
            // An alternative that does not fit is none: there is a plan already.
            Err(error) if !does_not_fit(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    let mut refused = planner.refused;
    // A search among more groups may lose what one among fewer finds, where every byte counts.
    let in_sequence = options.offer.in_sequence();
    if options.objective == Objective::Traffic && is_spilled && in_sequence != options.offer {
        let options = PlanOptions { offer: in_sequence, ..*options };
        let mut other = plan_with_addresses(graph, target, &options)?;
        refused.append(&mut other.refused);
        if price(&other) < price(&best) {
            best = other;
        }
    }
    Ok(Planned { refused, ..best })
}

/// Whether all that an error of planning says is that the target is too small for what was asked: not a
/// defect of the planner or the scheduler, nor of the module.
pub fn does_not_fit(error: &PassError) -> bool {
    let PassError::Other(error) = error else { return false };
    error.downcast_ref::<PlanError>().is_some_and(PlanError::is_capacity_error)
        || matches!(error.downcast_ref(), Some(ScheduleError::DoesNotFit { .. }))
}

/// Times that a search is repeated with what simulation found, at most.
const ROUNDS: usize = 6;

/// Stages that are planned again in all of them together, at most: a large graph takes long to search.
const STAGES_AGAIN: usize = 400;

/// The planner stops when its estimate is within one part in so many of the simulated time.
const GOOD_ENOUGH: u64 = 10_000;

/// The best plan that is found when the search goes by what simulation found of its plans before, that of
/// `first` to begin with.
fn learned(
    planner: &mut Planner<'_>,
    target: &Target,
    options: &PlanOptions,
    first: Planned,
) -> Result<Planned, PassError> {
    let (mut best, mut last) = (first.clone(), first);
    let rounds = (STAGES_AGAIN / planner.n_stages().max(1)).min(ROUNDS);
    for _ in 0..rounds {
        let thought: u64 = last.picks.iter().map(|pick| pick.cycles).sum();
        let is_good = thought.abs_diff(last.plan.cycles) <= last.plan.cycles / GOOD_ENOUGH;
        if is_good || !planner.learn(&last) {
            break;
        }
        let next = match plan_in_a_share(planner, target, options) {
            Ok(next) => next,
            Err(error) if does_not_fit(&error) => break,
            Err(error) => return Err(error),
        };
        if next.plan.phases == last.plan.phases {
            break;
        }
        if price(&next) < price(&best) {
            best = next.clone();
        }
        last = next;
    }
    Ok(best)
}

/// What a plan costs; of equals, the one that moves less is better.
fn price(planned: &Planned) -> (f64, u64) {
    (planned.plan.certificate.cost, planned.plan.dram_bytes.total)
}

/// The plan of the largest share of SRAM in which it has addresses.
fn plan_in_a_share(
    planner: &mut Planner<'_>,
    target: &Target,
    options: &PlanOptions,
) -> Result<Planned, PassError> {
    let mut failure = None;
    for share in SHARES {
        let capacity_percent = options.capacity_percent * share / 100;
        let mut found = match planner.plan(&PlanOptions { capacity_percent, ..*options }) {
            Ok(found) => found,
            // Less SRAM than this is too little for any plan; what the larger share lacked is what there is
            // to say.
            Err(error) if error.is_capacity_error() => {
                return Err(failure.unwrap_or_else(|| PassError::other(error)));
            }
            Err(error) => return Err(PassError::other(error)),
        };
        match schedule(&found.realised.graph, &found.plan, target) {
            Ok(mut scheduled) => {
                if options.has_first_rows() {
                    let plain = (found.plan, scheduled);
                    let refined =
                        refined(&found.realised.graph, target, plain, options, &mut planner.refused);
                    (found.plan, scheduled) = refined.map_err(PassError::other)?;
                }
                let timing = timed::simulate(&scheduled.program, target);
                found.plan.take_times(&timing);
                return Ok(found);
            }
            Err(error @ ScheduleError::DoesNotFit { .. }) => failure = Some(PassError::other(error)),
            Err(error) => return Err(PassError::other(error)),
        }
    }
    Err(failure.expect("the loop above ran"))
}

/// A plan and its schedule.
type Made = (Plan, Scheduled);

/// A sound plan with first rows of tensors in SRAM, if that is better. What the judge refuses is passed over,
/// and `refused` tells of it.
fn refined(
    graph: &StageGraph,
    target: &Target,
    plain: Made,
    options: &PlanOptions,
    refused: &mut Vec<String>,
) -> Result<Made, ScheduleError> {
    let topology = Topology::new(graph)?;
    let mut made = with_first_rows(graph, &topology, target, &plain, options).unwrap_or_else(|defect| {
        refused.push(defect.to_string());
        Vec::new()
    });
    made.retain(|(plan, _)| match check(graph, target, plan) {
        Ok(()) => true,
        Err(faults) => {
            refused.extend(faults.iter().map(PlanFault::to_string));
            false
        }
    });
    if made.is_empty() {
        made.push(plain);
    }
    Ok(if options.prefetches() { fastest(made, target, options.tolerance()) } else { made.swap_remove(0) })
}

/// A plan with first rows of tensors in what it leaves of activation SRAM: those that save traffic, and if it
/// is of time also those that phases would wait for, in the room that is left then.
fn with_first_rows(
    graph: &StageGraph,
    topology: &Topology,
    target: &Target,
    plain: &Made,
    options: &PlanOptions,
) -> Result<Vec<Made>, ScheduleError> {
    let capacity = usable_bytes(target, options.capacity_percent);
    let saving = with_prefixes(graph, topology, target, &plain.0, &plain.1, capacity)?;
    if !options.prefetches() {
        return Ok(saving.into_iter().collect());
    }
    let (plan, scheduled) = saving.as_ref().unwrap_or(plain);
    let both = with_prefetch(graph, topology, target, plan, scheduled, capacity)?;
    let saving = saving.unwrap_or_else(|| plain.clone());
    Ok([Some(saving), both].into_iter().flatten().collect())
}

/// The fastest of some plans, of which there is at least one; of those that are slower by no more than so
/// many percent, the one that moves least.
fn fastest(made: Vec<Made>, target: &Target, tolerance_percent: u32) -> Made {
    let timed = |made: Made| (timed::simulate(&made.1.program, target).cycles, made);
    let made: Vec<(u64, Made)> = made.into_iter().map(timed).collect();
    let fastest = made.iter().map(|(cycles, _)| *cycles).min().unwrap_or(0);
    let slowest = fastest + (u128::from(fastest) * u128::from(tolerance_percent) / 100) as u64;
    let equal = made.into_iter().filter(|(cycles, _)| *cycles <= slowest);
    let best = equal.min_by_key(|(cycles, (plan, _))| match tolerance_percent {
        0 => (*cycles, plan.dram_bytes.total),
        _ => (plan.dram_bytes.total, *cycles),
    });
    best.expect("the fastest is one").1
}

/// Steps by which the least SRAM is searched, in bytes.
const SRAM_STEP: u64 = 1024;

/// The plan of least DRAM traffic in the least activation SRAM for which one is found, to a step of
/// [`SRAM_STEP`]. More SRAM than one plan needs is always enough for another, but what the chooser finds need
/// not be monotone: the search bisects, and what it returns is a plan that stands.
pub(super) fn plan_in_least_sram(
    graph: &StageGraph,
    target: &Target,
    options: &PlanOptions,
) -> Result<Planned, PassError> {
    let within = |bytes: u64| {
        let mut smaller = target.clone();
        smaller.memory.activation = bytes;
        plan_with_addresses(graph, &smaller, options)
    };
    let mut best = within(target.memory.activation)?;
    let mut refused = std::mem::take(&mut best.refused);
    let (mut too_little, mut enough) = (0, (best.plan.certificate.cost as u64).div_ceil(SRAM_STEP));
    while too_little + 1 < enough {
        let middle = u64::midpoint(too_little, enough);
        match within(middle * SRAM_STEP) {
            Ok(mut found) => {
                refused.append(&mut found.refused);
                let bytes = found.plan.certificate.cost as u64;
                enough = middle.min(bytes.div_ceil(SRAM_STEP)).max(too_little + 1);
                best = found;
            }
            Err(error) if does_not_fit(&error) => too_little = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(Planned { refused, ..best })
}

/// Moves the ops of a function's block into phases, and renumbers the plan's stages to the order that
/// results.
fn wrap(module: &mut Module, func: OpId, graph: &StageGraph, plan: &mut Plan) -> Result<(), PassError> {
    let block = module.entry_block(func);
    let phase_of = assign(module, block, graph, plan);
    let terminator = module.terminator(block);
    let end = terminator.ok_or_else(|| PassError::invalid("@main has no terminator"))?;
    let order: Vec<OpId> = module.block_ops(block).to_vec();
    let users = module.users(block);

    let mut position: BTreeMap<StageId, u32> = BTreeMap::new();
    for phase in &plan.phases {
        for placed in &phase.stages {
            let next = position.len() as u32;
            position.insert(placed.stage, next);
        }
    }
    for placed in plan.phases.iter_mut().flat_map(|phase| &mut phase.stages) {
        placed.stage = StageId::from_u32(position[&placed.stage]);
    }
    for (index, phase) in plan.phases.iter().enumerate() {
        let inside: Vec<OpId> = order.iter().copied().filter(|op| phase_of.get(op) == Some(&index)).collect();
        let is_outside = |user: &OpId| phase_of.get(user) != Some(&index);
        let yielded: Vec<ValueId> = (inside.iter())
            .flat_map(|&op| module.op(op).results().iter().copied())
            .filter(|&value| users[value].iter().any(is_outside))
            .collect();
        let types: Vec<Type> = yielded.iter().map(|&value| module.ty(value).clone()).collect();
        let loc = inside.first().map(|&op| module.op(op).loc.clone()).unwrap_or_default();
        let row = dialect::Phase { plan: Attribute::from_serde(phase).map_err(PassError::other)? };
        let op = module.insert_before(end, row, &[], &types, loc.clone());
        let region = module.add_region(op);
        let body = module.add_block(region, &[]);
        for &inner in &inside {
            module.move_to_end(inner, body);
        }
        module.append(body, dialect::Yield {}, &yielded, &[], loc);
        let results = module.op(op).results().to_vec();
        for (value, result) in yielded.into_iter().zip(results) {
            for &user in users[value].iter().filter(|user| is_outside(user)) {
                let operands: Vec<ValueId> = module.op(user).operands().to_vec();
                for (at, _) in operands.iter().enumerate().filter(|(_, operand)| **operand == value) {
                    module.set_operand(user, at, result);
                }
            }
        }
    }
    // What belongs to no phase and is no constant is used by the results alone.
    let is_phase = |op: &OpId| matches!(module.op(*op).op, Op::Phase(_));
    let is_constant = |op: &OpId| module.op(*op).op.is_constant();
    let now: Vec<OpId> = module.block_ops(block).to_vec();
    let mut sorted: Vec<OpId> = now.iter().copied().filter(is_constant).collect();
    sorted.extend(now.iter().copied().filter(is_phase));
    sorted.extend(now.iter().copied().filter(|op| !is_constant(op) && !is_phase(op)));
    module.set_block_order(block, sorted);
    plan.attach(module, func)
}

/// The phase of each op that goes into one: a stage's by the plan, another op's the first that uses it.
fn assign(module: &Module, block: BlockId, graph: &StageGraph, plan: &Plan) -> BTreeMap<OpId, usize> {
    let mut phase_of: BTreeMap<OpId, usize> = BTreeMap::new();
    for (index, phase) in plan.phases.iter().enumerate() {
        phase_of.extend(phase.stages.iter().map(|placed| (graph.stages[placed.stage].op, index)));
    }
    let users = module.users(block);
    for &op in module.block_ops(block).iter().rev() {
        let data = module.op(op);
        if matches!(data.op, Op::Stage(_)) || data.op.is_constant() {
            continue;
        }
        let uses = data.results().iter().flat_map(|&value| &users[value]);
        if let Some(first) = uses.filter_map(|user| phase_of.get(user)).min().copied() {
            phase_of.insert(op, first);
        }
    }
    phase_of
}
