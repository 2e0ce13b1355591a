//! A plan as the search sees it: a candidate a phase, with the tensors where the plan has them.
//!
//! A plan is replayed by the very rules by which it was chosen, so whatever is tried on it, such as two
//! phases as one, is costed as the search would have. First rows that stay or come ahead are refinements of a
//! chosen plan, which no search sees: they are not in these costs.

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_backend::cost::ScoreWeights;
use strata_backend::cost::rings::Buffering;
use strata_backend::model::graph::StageSet;
use strata_backend::model::plan::phase_of;
use strata_backend::model::tables::first_uses;
use strata_backend::model::{BufferId, BufferRole, Plan, Residency, StageGraph, StageId};
use strata_isa_spec::Target;

use super::ExplainError;
use crate::fuse::PlanOptions;
use crate::fuse::candidates::candidate::{Candidate, Context, Growth, How, Method, implementations, ways};
use crate::fuse::candidates::partition::Division;
use crate::fuse::plan_of::plan_of;
use crate::fuse::search::{ChosenPhase, Place, Places, replay};
use crate::fuse::solve::{offering, usable_bytes};

/// The phases that use a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedIn {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

/// Where tensors live over the phases of a plan.
#[derive(Clone, Debug)]
pub(super) struct Homes {
    pub residency: PrimaryMap<BufferId, Residency>,
    /// The phases of tensors that more than one phase uses, and of inputs and outputs.
    pub used_in: SecondaryMap<BufferId, Option<UsedIn>>,
}

impl Homes {
    fn new(context: &Context<'_>, plan: &Plan, phase_of: &SecondaryMap<StageId, usize>) -> Self {
        let mut used_in = SecondaryMap::new();
        for (buffer, uses) in &context.topology.uses {
            let phases = uses.writers.iter().chain(&uses.readers).map(|(stage, _)| phase_of[*stage]);
            let (first, last) = (phases.clone().min(), phases.max());
            let is_shared = first != last || context.graph.buffers[buffer].role != BufferRole::Internal;
            used_in[buffer] =
                first.zip(last).filter(|_| is_shared).map(|(first, last)| UsedIn { first, last });
        }
        Self { residency: plan.residency.clone(), used_in }
    }

    /// Where a tensor is during a phase, if it is anywhere.
    pub(super) fn place(&self, graph: &StageGraph, buffer: BufferId, phase: usize) -> Option<Place> {
        let UsedIn { first, last } = self.used_in[buffer].filter(|used| used.first <= phase)?;
        let residency = self.residency[buffer];
        let stays = residency.kept_until.is_some_and(|until| phase <= until as usize);
        if last < phase {
            return None;
        }
        // What is in place of another stands alone when that is dead.
        let host = residency
            .in_place_of
            .filter(|&host| phase == first || self.used_in[host].is_some_and(|used| phase <= used.last));
        let is_in_dram = residency.stored || graph.buffers[buffer].role != BufferRole::Internal;
        Some(match (stays, host) {
            (false, _) => Place::Dram,
            (true, Some(_)) => Place::InPlace,
            (true, None) if is_in_dram => Place::Both,
            (true, None) => Place::Sram,
        })
    }

    /// Where tensors are during phases that are run as one: where they are in the first of them that has
    /// them. What is born there, and is in SRAM for these phases alone, need not be whole.
    fn places(&self, graph: &StageGraph, first: usize, last: usize) -> Places {
        let place_of = |buffer: BufferId| {
            let used = self.used_in[buffer]?;
            let place = self.place(graph, buffer, used.first.max(first)).filter(|_| used.first <= last)?;
            let until = self.residency[buffer].kept_until.map_or(0, |until| until as usize);
            let is_brief = first < last && used.first >= first && until <= last && until < used.last;
            let is_output = matches!(graph.buffers[buffer].role, BufferRole::Output(_));
            let is_given = first < last && used.first >= first && is_output && used.last <= last;
            Some(if place == Place::Both && (is_brief || is_given) { Place::Dram } else { place })
        };
        graph.buffers.keys().filter_map(|buffer| Some((buffer, place_of(buffer)?))).collect()
    }

    /// Tensors that take the space of others in some phases.
    fn growths(&self, first: usize, last: usize) -> Vec<Growth> {
        let born = self.residency.iter().filter(|(buffer, _)| {
            self.used_in[*buffer].is_some_and(|used| (first..=last).contains(&used.first))
        });
        let growths = born.filter_map(|(growing, residency)| {
            // The variant knows what is saved.
            Some(Growth { growing, into: residency.grows_into?, saved_bytes: 0 })
        });
        growths.collect()
    }
}

/// What a plan costs by the search's estimate.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    /// Under the objective.
    pub cost: f64,
    /// Cycles of all phases.
    pub cycles: u64,
    /// DRAM bytes of all phases.
    pub dram_bytes: u64,
    /// Bytes of activation SRAM of each phase.
    pub sram_bytes: Vec<u64>,
}

/// Phases of a plan that are tried in another way: as one phase, whose stages run in some way.
pub(super) struct Tried {
    /// Bytes of activation SRAM beside what the plan keeps there.
    pub sram_bytes: u64,
    /// The plan with it.
    pub estimate: Estimate,
}

/// A plan whose phases are candidates.
pub(super) struct Account<'a> {
    pub context: Context<'a>,
    pub options: &'a PlanOptions,
    /// The stages of each phase, in order.
    pub stages: Vec<Vec<StageId>>,
    pub phase_of: SecondaryMap<StageId, usize>,
    pub homes: Homes,
    hows: Vec<PhaseHow>,
    candidates: Vec<Candidate>,
    /// As the plan is.
    pub estimate: Estimate,
}

/// How a phase of the plan runs.
struct PhaseHow {
    method: Method,
    division: Division,
    slack: Buffering,
}

impl<'a> Account<'a> {
    /// The account of a plan on the target that it was made for.
    ///
    /// # Errors
    /// If the graph makes no sense, or the plan is none of it.
    pub(super) fn new(
        graph: &'a StageGraph,
        target: &'a Target,
        plan: &Plan,
        options: &'a PlanOptions,
    ) -> Result<Self, ExplainError> {
        let context = offering(Context::new(graph, target)?, options);
        let stages: Vec<Vec<StageId>> = (plan.stages().into_iter())
            .map(|stages| stages.into_iter().collect::<StageSet>().iter().collect())
            .collect();
        let phase_of = phase_of(&stages);
        let n_placed: usize = plan.phases.iter().map(|phase| phase.stages.len()).sum();
        let is_whole = n_placed == graph.stages.len()
            && plan.residency.len() == graph.buffers.len()
            && stages.iter().flatten().all(|&stage| graph.stages.is_valid(stage));
        if !is_whole {
            return Err(ExplainError::OtherGraph);
        }
        let hows = (0..stages.len()).map(|phase| how_of(&context, plan, &stages[phase], phase));
        let hows = hows.collect::<Result<Vec<_>, _>>()?;
        let homes = Homes::new(&context, plan, &phase_of);
        let estimate = Estimate { cost: 0.0, cycles: 0, dram_bytes: 0, sram_bytes: Vec::new() };
        let candidates = Vec::new();
        let mut account = Self { context, options, stages, phase_of, homes, hows, candidates, estimate };
        account.candidates = (0..account.stages.len())
            .map(|phase| account.candidate(phase, &account.homes))
            .collect::<Result<_, _>>()?;
        account.estimate = account
            .replayed(&account.context, &account.candidates, &account.chosen(&account.homes))
            .map_err(ExplainError::DoesNotFit)?;
        Ok(account)
    }

    /// The target.
    pub(super) fn target(&self) -> &'a Target {
        self.context.target
    }

    /// Bytes of activation SRAM that phases may fill.
    pub(super) fn capacity(&self) -> u64 {
        usable_bytes(self.target(), 100)
    }

    /// The problem on a target with other clusters.
    ///
    /// # Errors
    /// If the graph makes no sense.
    pub(super) fn on<'t>(&self, target: &'t Target) -> Result<Context<'t>, ExplainError>
    where
        'a: 't,
    {
        Ok(offering(Context::new(self.context.graph, target)?, self.options))
    }

    /// Bytes of weight SRAM that some stages take as a phase.
    pub(super) fn weight_bytes(&self, set: &StageSet) -> u64 {
        let stages: Vec<StageId> = set.iter().collect();
        let firsts = first_uses(self.context.graph, &stages, &[]);
        let held = stages.iter().zip(firsts).filter(|(_, first)| first.is_first);
        held.map(|(&stage, _)| self.context.profile(stage).weight_bytes).sum()
    }

    /// Whether a stage reads a tensor from DRAM.
    fn is_loaded(&self, homes: &Homes, buffer: BufferId, reader: StageId) -> bool {
        let place = homes.place(self.context.graph, buffer, self.phase_of[reader]);
        place.is_none_or(|place| place == Place::Dram)
    }

    /// A phase of the plan with tensors at `homes`.
    fn candidate(&self, phase: usize, homes: &Homes) -> Result<Candidate, ExplainError> {
        let PhaseHow { method, ref division, slack } = self.hows[phase];
        let how = How { method, division, slack };
        let previous = phase.checked_sub(1).map_or(&[][..], |before| &self.stages[before]);
        let is_loaded = |buffer: BufferId, reader: StageId| self.is_loaded(homes, buffer, reader);
        let candidate = Candidate::chosen(&self.context, &self.stages[phase], previous, how, &is_loaded);
        candidate.ok_or(ExplainError::DoesNotFit(phase))
    }

    /// What the phases do with tensors at `homes`.
    fn chosen(&self, homes: &Homes) -> Vec<ChosenPhase> {
        (0..self.stages.len()).map(|phase| self.chosen_as_one(homes, phase, phase)).collect()
    }

    /// What some phases do that run as one.
    fn chosen_as_one(&self, homes: &Homes, first: usize, last: usize) -> ChosenPhase {
        ChosenPhase {
            candidate: 0,
            variant: 0,
            places: homes.places(self.context.graph, first, last),
            growths: homes.growths(first, last),
            cycles: 0,
            sram_bytes: 0,
            moved_bytes: 0,
        }
    }

    /// What phases cost, of which each fits with as much activation SRAM as it asks for; the phase that has
    /// too many stages with its transfers, if one has.
    fn replayed(
        &self,
        context: &Context<'_>,
        candidates: &[Candidate],
        chosen: &[ChosenPhase],
    ) -> Result<Estimate, usize> {
        let weights = ScoreWeights::of(self.options.objective, context.target, (0.0, 0.0));
        let chosen: Vec<&ChosenPhase> = chosen.iter().collect();
        let limits = self.options.limits();
        let choice = replay(context, candidates, &chosen, weights, u64::MAX, limits, false)?;
        let plan = plan_of(context, candidates, &choice, self.options);
        Ok(Estimate {
            cost: plan.certificate.cost,
            cycles: choice.cycles,
            dram_bytes: plan.dram_bytes.total,
            sram_bytes: choice.phases.iter().map(|phase| phase.sram_bytes).collect(),
        })
    }

    /// The plan with tensors at other homes than its own.
    ///
    /// # Errors
    /// If a phase does not fit, whatever activation SRAM there is.
    pub(super) fn at_homes(&self, homes: &Homes) -> Result<Estimate, ExplainError> {
        let candidates = (0..self.stages.len()).map(|phase| self.candidate(phase, homes));
        let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
        self.replayed(&self.context, &candidates, &self.chosen(homes)).map_err(ExplainError::DoesNotFit)
    }

    /// All ways to run some phases as one, with tensors at `homes`, on a target that has as many stages,
    /// streams and bytes of weight SRAM as they need. It may have other clusters than the plan's.
    pub(super) fn as_one(
        &self,
        context: &Context<'_>,
        homes: &Homes,
        first: usize,
        last: usize,
    ) -> Vec<Tried> {
        let set: StageSet = self.stages[first..=last].iter().flatten().copied().collect();
        let stages: Vec<StageId> = set.iter().collect();
        let previous = first.checked_sub(1).map_or(&[][..], |before| &self.stages[before]);
        let is_loaded = |buffer: BufferId, reader: StageId| self.is_loaded(homes, buffer, reader);
        let mut chosen = self.chosen(homes);
        chosen.splice(first..=last, [self.chosen_as_one(homes, first, last)]);
        let mut tried = Vec::new();
        for &method in context.methods(&set) {
            let mut made = Vec::new();
            ways(context, &context.divisions(&set, method), method, |how| {
                let candidate = Candidate::chosen(context, &stages, previous, how, &is_loaded);
                let candidate = candidate.expect("the target has as much as the phase needs");
                let variant = (*candidate.variants[0]).clone();
                made.push(candidate);
                variant
            });
            for candidate in made {
                let mut candidates = self.candidates.clone();
                candidates.splice(first..=last, [candidate]);
                let Ok(estimate) = self.replayed(context, &candidates, &chosen) else { continue };
                let sram_bytes = estimate.sram_bytes[first];
                tried.push(Tried { sram_bytes, estimate });
            }
        }
        tried
    }
}

/// How a phase of a plan runs: as a candidate's variant.
fn how_of(
    context: &Context<'_>,
    plan: &Plan,
    stages: &[StageId],
    phase: usize,
) -> Result<PhaseHow, ExplainError> {
    let placed = &plan.phases[phase];
    let placement = |stage: StageId| placed.stages.iter().find(|placed| placed.stage == stage);
    let of_stage = stages.iter().filter_map(|&stage| Some(placement(stage)?.partition)).collect();
    let division = Division { partitions: placed.partitions.clone(), of_stage };
    let n_partitions = division.partitions.len() as u32;
    if division.of_stage.len() != stages.len() || division.of_stage.iter().any(|&of| of >= n_partitions) {
        return Err(ExplainError::OtherGraph);
    }
    let set: StageSet = stages.iter().copied().collect();
    let winograd: Vec<bool> = stages.iter().filter_map(|&stage| Some(placement(stage)?.winograd)).collect();
    let runs_so = |method: &&Method| {
        let how = implementations(&context.profiles_by(&set, **method), &division);
        how.iter().map(|how| how.winograd).eq(winograd.iter().copied())
    };
    let method = context.methods(&set).iter().find(runs_so).copied().unwrap_or(Method::Fastest);
    Ok(PhaseHow { method, division, slack: placed.slack })
}
