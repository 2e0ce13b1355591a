//! The planner: tabulate stages, offer candidates, choose among them, make stages of strips, and write the
//! plan down.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_backend::check::{PlanFault, check};
use strata_backend::cost::ScoreWeights;
use strata_backend::model::graph::{GraphError, StageSet};
use strata_backend::model::plan::phase_of;
use strata_backend::model::realised::Realised;
use strata_backend::model::{BufferId, Certificate, Mode, Objective, Plan, StageGraph, StageId};
use strata_backend::place::growth_gaps;
use strata_isa_spec::Target;

use crate::fuse::bound::{Bounds, bounds};
use crate::fuse::candidates::candidate::{Candidate, Context, How};
use crate::fuse::candidates::pool::{CandidatePool, WithStrips};
use crate::fuse::egraph::{self, Offer, Offered};
use crate::fuse::plan_of::plan_of;
use crate::fuse::search::{
    Choice, ChosenPhase, Estimate, Forbidden, Place, SearchBounds, SearchLimits, Stuck, choose,
    may_be_in_place, replay,
};
use crate::fuse::strips::Strips;
use crate::fuse::strips::realise::{Chosen, realise};
use crate::fuse::too_large::{self, TooLarge};

/// What is asked of the planner. Limits count work, never time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// What is least.
    pub objective: Objective,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// For [`Objective::Latency`]: by how many percent a plan may be slower than the fastest and count as
    /// equally fast. Among equals the one that moves the fewest DRAM bytes is taken. The default is within
    /// what the cost model is held to against the timed interpreter.
    pub tolerance_percent: u32,
    /// For [`Objective::Traffic`]: whether of plans that move as many bytes the one is taken that leaves the
    /// most of activation SRAM free, where [first rows](crate::fuse::refine::prefixes) may stay, and not the
    /// fastest.
    pub prefer_free_sram: bool,
    /// What the e-graph offers.
    pub offer: Offer,
    /// Labels that the chooser keeps for one cut and one set of places.
    pub labels_per_state: usize,
    /// Labels that it keeps for one cut.
    pub labels_per_cut: usize,
    /// Cuts of one number of stages that it follows.
    pub cuts: usize,
    /// Ways to place the tensors of one phase that it follows.
    pub placings: usize,
    /// Work of all its searches, in placings and labels made and candidates evaluated: each has a quarter of
    /// what is left before it becomes narrow. Where DRAM bytes come first there is eight times as much.
    pub work: usize,
    /// Whether sets of stages may run in column strips. Layer by layer, only stages do whose rows do not fit.
    pub strips: bool,
    /// Whether a tensor may take the space of another as that is read for the last time.
    pub growths: bool,
    /// Whether first rows of tensors may [stay](crate::fuse::refine::prefixes) where the rest does not, or
    /// [come ahead](crate::fuse::refine::prefetch).
    pub first_rows: bool,
    /// How much of activation SRAM it may fill. Less than all leaves addresses room where lifetimes
    /// interlock.
    pub capacity_percent: u32,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            objective: Objective::Latency,
            mode: Mode::Multi,
            tolerance_percent: 1,
            prefer_free_sram: false,
            offer: Offer::default(),
            labels_per_state: 16,
            labels_per_cut: 256,
            cuts: 256,
            placings: 64,
            work: 800_000,
            strips: true,
            growths: true,
            first_rows: true,
            capacity_percent: 100,
        }
    }
}

impl PlanOptions {
    pub(super) fn limits(&self) -> SearchLimits {
        SearchLimits {
            labels_per_state: self.labels_per_state,
            labels_per_cut: self.labels_per_cut,
            cuts: self.cuts,
            placings: self.placings,
            longest: usize::MAX,
            growths: self.growths,
            strips: self.strips,
            fills: !self.prefetches(),
            estimate: Estimate::Overlap,
        }
    }

    /// The same with one thing less that a planner may get wrong, if it asks for any.
    fn simpler(&self) -> Option<Self> {
        if self.growths {
            return Some(Self { growths: false, ..*self });
        }
        self.strips.then_some(Self { strips: false, ..*self })
    }

    /// By how many percent a plan may be slower than another and count as equally fast.
    pub(super) fn tolerance(&self) -> u32 {
        if self.objective == Objective::Latency { self.tolerance_percent } else { 0 }
    }

    /// Whether first rows may be anywhere but where the whole tensor is.
    pub(super) fn has_first_rows(&self) -> bool {
        self.first_rows && self.mode == Mode::Multi && self.objective != Objective::Sram
    }

    /// Whether first rows of what a phase loads come [in the phase before](crate::fuse::refine::prefetch),
    /// where there is room.
    pub(super) fn prefetches(&self) -> bool {
        self.first_rows
            && self.mode == Mode::Multi
            && matches!(self.objective, Objective::Latency | Objective::Edp)
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Stages that do not fit the target even alone.
    #[error("{} stage(s) do not fit the target:{}", .0.len(), lines(.0))]
    StageTooLarge(Vec<TooLarge>),
    /// The planner's fault: the judge refused its plan.
    #[error("internal error, the plan is not valid:{}", lines(.0))]
    Unsound(Vec<PlanFault>),
    /// Every stage fits alone, but no sequence was found.
    #[error(
        "no sequence of phases fits the target: {stages} of {all} stages can be run, then `{stuck}` cannot"
    )]
    Stuck {
        /// Stages that can be run.
        stages: usize,
        /// All of them.
        all: usize,
        /// The first that cannot.
        stuck: String,
    },
}

/// The items of an error, one a line.
fn lines<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

impl PlanError {
    /// Whether the target is too small, and nothing is wrong.
    pub fn is_capacity_error(&self) -> bool {
        matches!(self, Self::StageTooLarge(_) | Self::Stuck { .. })
    }
}

/// Lagrange multipliers for DRAM bytes, in 1024ths of a cycle a byte: from nothing to what the channel's time
/// costs.
const BYTE_PRICES: [u128; 7] = [2, 5, 10, 20, 50, 100, 400];

/// A plan, and the graph whose stages it places: that which was asked about, or one made of it by splitting
/// stages into strips.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// The graph, and what its stages are of the one that was asked about.
    pub realised: Realised,
    /// What the chooser chose and by what estimate; `realised.chosen` has the one that each phase is of.
    pub picks: Vec<Pick>,
    /// What judges refused of plans that were made for it, each a defect of the planner: it is without what
    /// they found fault with.
    pub refused: Vec<String>,
}

/// A variant of a candidate that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    /// Index of the candidate.
    pub candidate: usize,
    /// Index of its variant.
    pub variant: usize,
    /// Cycles that it was thought to take.
    pub cycles: u64,
}

impl Pick {
    fn of(phase: &ChosenPhase) -> Self {
        Self { candidate: phase.candidate, variant: phase.variant, cycles: phase.cycles }
    }
}

/// Plans a graph for a target.
///
/// # Errors
/// If a stage does not fit the target, or the graph makes no sense.
pub fn plan(graph: &StageGraph, target: &Target, options: &PlanOptions) -> Result<Planned, PlanError> {
    Planner::new(graph, target, options)?.plan(options)
}

/// Stages of a graph that do not fit a target even alone.
///
/// # Errors
/// If the graph makes no sense.
pub fn too_large(
    graph: &StageGraph,
    target: &Target,
    options: &PlanOptions,
) -> Result<Vec<TooLarge>, PlanError> {
    match Planner::new(graph, target, &PlanOptions { offer: options.offer.none(), ..*options }) {
        Ok(_) => Ok(Vec::new()),
        Err(PlanError::StageTooLarge(stages)) => Ok(stages),
        Err(error) => Err(error),
    }
}

/// A graph on a target with the candidates that it was offered, to be planned more than once. What the
/// chooser answered to a question is remembered.
#[derive(Debug)]
pub struct Planner<'a> {
    offered: CandidatePool<'a>,
    bounds: Bounds,
    /// Work of all searches: [`PlanOptions::work`].
    work: usize,
    answers: BTreeMap<Question, Result<Choice, Stuck>>,
    /// The dearest price of a byte, of [`BYTE_PRICES`], at which a plan was still as fast as the fastest.
    price: Option<usize>,
    /// Cycles of the fastest plan that was found.
    fastest: Option<u64>,
    /// Whether any search came to the end of its share of work.
    narrowed: Cell<bool>,
    /// What judges refused of plans that were made.
    pub(super) refused: Vec<String>,
}

/// A search has one part in so many of the work that is left,
const SHARES: usize = 4;

/// and at least one part in so many of all.
const LEAST_SHARES: usize = 64;

/// Where DRAM bytes come first there is so much more work: few of its candidates are long, and where every
/// byte counts a narrow search loses some.
const OF_BYTES: usize = 8;

/// What the chooser is asked about all candidates.
type Question = (ScoreWeights, u64, SearchLimits);

impl<'a> Planner<'a> {
    /// Offers candidates as the options tell: their mode, their offer, and whether sets may run in strips.
    ///
    /// # Errors
    /// If a stage does not fit the target, or the graph makes no sense.
    pub fn new(graph: &'a StageGraph, target: &'a Target, options: &PlanOptions) -> Result<Self, PlanError> {
        let offered = offer(offering(Context::new(graph, target)?, options), options)?;
        let bounds = bounds(graph, &offered.context().topology, target);
        let weights = ScoreWeights::of(options.objective, target, (0.0, 0.0));
        Ok(Self {
            offered,
            bounds,
            work: if weights.puts_bytes_first() { OF_BYTES * options.work } else { options.work },
            answers: BTreeMap::new(),
            price: None,
            fastest: None,
            narrowed: Cell::new(false),
            refused: Vec::new(),
        })
    }

    /// Stages of the graph.
    pub fn n_stages(&self) -> usize {
        self.graph().stages.len()
    }

    /// A plan of the candidates that were offered. The options may differ from those in anything that only
    /// narrows them or is the chooser's: no strips, no growths, another objective, less SRAM.
    ///
    /// # Errors
    /// If no sequence of candidates fits.
    pub fn plan(&mut self, options: &PlanOptions) -> Result<Planned, PlanError> {
        let target = self.offered.context().target;
        let capacity = usable_bytes(target, options.capacity_percent);
        let mut forbidden = Vec::new();
        loop {
            let choice = self.search(options, capacity, &forbidden)?;
            let realised = realised(&self.offered, &choice);
            let picks = choice.phases.iter().map(Pick::of).collect();
            let made = self.offered.context().of(&realised.graph)?;
            let weights = ScoreWeights::of(options.objective, target, (0.0, 0.0));
            let replayed = match phases(&made, &realised, &self.offered, &choice) {
                Ok((phases, chosen)) => {
                    let choice =
                        replay(&made, &phases, &chosen, weights, capacity, options.limits(), choice.proven);
                    choice.map(|choice| (phases, choice))
                }
                Err(at) => Err(at),
            };
            // What strips were thought to take and what they take can differ where several of them feed one
            // load.
            let (phases, choice) = match replayed {
                Ok(found) => found,
                Err(_) if options.growths && !keeps_places(&made, &choice) => {
                    return self.plan(&PlanOptions { growths: false, ..*options });
                }
                Err(at) => {
                    forbidden.extend(to_forbid(&self.offered, &choice, realised.chosen[at]));
                    continue;
                }
            };
            let mut plan = plan_of(&made, &phases, &choice, options);
            let is_proven = choice.proven && options.capacity_percent >= 100;
            certify(&mut plan, self.bounds, is_proven);
            plan.certificate.offer_limited = self.offered.is_limited();
            plan.certificate.search_limited = self.narrowed.get();
            let gaps = growth_gaps(&realised.graph, &made.topology, &plan, target);
            if !close_gaps(&mut plan, &gaps) {
                // More room is needed than the candidates saw: the plan is made again without such pairs.
                return self.plan(&PlanOptions { growths: false, ..*options });
            }
            return match check(&realised.graph, target, &plan) {
                Ok(()) => Ok(Planned { plan, realised, picks, refused: Vec::new() }),
                Err(faults) => self.plan_simpler(options, faults),
            };
        }
    }

    /// A plan with less of what may be wrong with one that the judge refused.
    fn plan_simpler(&mut self, options: &PlanOptions, faults: Vec<PlanFault>) -> Result<Planned, PlanError> {
        let Some(simpler) = options.simpler() else { return Err(PlanError::Unsound(faults)) };
        self.refused.extend(faults.iter().map(PlanFault::to_string));
        match self.plan(&simpler) {
            // That it does not fit is not what went wrong.
            Err(error) if error.is_capacity_error() => Err(PlanError::Unsound(faults)),
            made => made,
        }
    }

    /// Takes what the phases of a plan were found to take for what their candidates do, where that is not
    /// what was estimated; plans that are made from here on go by it. Whether there was anything to learn.
    pub fn learn(&mut self, planned: &Planned) -> bool {
        let mut found = vec![0; planned.picks.len()];
        for (phase, &chosen) in planned.plan.phases.iter().zip(&planned.realised.chosen) {
            found[chosen] += phase.predicted_cycles;
        }
        // A variant may have been chosen more than once: what it is off by on average is what it is corrected
        // by.
        let mut off: BTreeMap<(usize, usize), (i64, i64)> = BTreeMap::new();
        for (pick, found) in planned.picks.iter().zip(found) {
            let (sum, n) = off.entry((pick.candidate, pick.variant)).or_default();
            *sum += found as i64 - pick.cycles as i64;
            *n += 1;
        }
        let mut learned = false;
        for ((candidate, variant), (sum, n)) in off {
            if sum / n != 0 {
                self.offered.correct(candidate, variant, sum / n);
                learned = true;
            }
        }
        if learned {
            self.answers.clear();
        }
        learned
    }

    /// What the chooser answers to a question, without the variants that are forbidden.
    ///
    /// The search follows nothing that is sure to be worse than what is known to be an answer: the best of
    /// what other questions were answered, or else what a narrow search finds, which is quick. Where bytes
    /// come first and there can be no fewer, that is the answer.
    fn answer(&mut self, question: Question, forbidden: &[Forbidden]) -> Result<Choice, Stuck> {
        if let Some(answer) = self.answers.get(&question).filter(|_| forbidden.is_empty()) {
            return answer.clone();
        }
        let (weights, capacity, limits) = question;
        let search =
            |most: u128, limits: SearchLimits| self.choose((weights, capacity, limits), most, forbidden);
        let is_least = |choice: &Choice| weights.puts_bytes_first() && choice.bytes <= self.bounds.bytes;
        let narrow = || {
            let at_full_width = SearchLimits { strips: false, ..limits };
            let fewest = weights.puts_bytes_first().then(|| search(u128::MAX, at_full_width.narrow()).ok());
            if let Some(fewest) = fewest.flatten().filter(is_least) {
                return Ok(fewest);
            }
            // What moves few bytes may take long candidates, and what short ones move bounds little.
            let quick = (!weights.puts_bytes_first()).then(|| search(u128::MAX, limits.quick()).ok());
            match quick.flatten() {
                Some(quick) => Ok(search(quick.score(weights), limits.narrow()).unwrap_or(quick)),
                None => search(u128::MAX, limits.narrow()),
            }
        };
        let known = self.known(question, forbidden).cloned().map_or_else(narrow, Ok);
        let answer = match known {
            Ok(known) if is_least(&known) => Ok(known),
            Ok(known) => {
                let mut best = Choice { proven: false, ..known };
                for &estimate in Estimate::worth_trying(weights) {
                    if !best.proven {
                        let limits = SearchLimits { estimate, ..limits };
                        best = search(best.score(weights), limits).unwrap_or(best);
                    }
                }
                Ok(best)
            }
            Err(_) => search(u128::MAX, limits),
        };
        if forbidden.is_empty() {
            self.answers.insert(question, answer.clone());
        }
        answer
    }

    /// What the chooser finds that scores no more than `most`, with its share of the work that is left.
    fn choose(
        &self,
        (weights, capacity, limits): Question,
        most: u128,
        forbidden: &[Forbidden],
    ) -> Result<Choice, Stuck> {
        let left = self.work.saturating_sub(self.offered.work());
        let work = (left / SHARES).max(self.work / LEAST_SHARES);
        let chosen =
            choose(&self.offered, forbidden, weights, SearchBounds { capacity, most, work }, limits)?;
        self.narrowed.set(self.narrowed.get() || chosen.narrowed);
        Ok(chosen)
    }

    /// Whether there is work left for questions that need no answer.
    fn has_work(&self) -> bool {
        self.offered.work() < self.work
    }

    /// An answer to a question that scores less than `score`, if one is found.
    fn better(&self, question: Question, forbidden: &[Forbidden], score: u128) -> Option<Choice> {
        let (weights, ..) = question;
        let answer = self.answers.get(&question).filter(|_| forbidden.is_empty()).cloned();
        let most = score.saturating_sub(1);
        let search = || self.choose(question, most, forbidden);
        answer.unwrap_or_else(search).ok().filter(|choice| choice.score(weights) < score)
    }

    /// The best answer to other questions that is one to this question too.
    fn known(&self, (weights, capacity, limits): Question, forbidden: &[Forbidden]) -> Option<&Choice> {
        let is_answer = |&(_, other_capacity, other): &Question| {
            let SearchLimits { growths, strips, fills, .. } = other;
            let is_narrower = growths <= limits.growths && strips <= limits.strips;
            other_capacity <= capacity && is_narrower && fills == limits.fills
        };
        let answers = self.answers.iter().filter(|(question, _)| is_answer(question));
        let choices = answers.filter_map(|(_, answer)| answer.as_ref().ok());
        let is_allowed = |choice: &&Choice| {
            choice.phases.iter().all(|phase| !forbidden.contains(&(phase.candidate, phase.variant)))
        };
        choices.filter(is_allowed).min_by_key(|choice| choice.score(weights))
    }

    /// The choice that scores least.
    fn solve(
        &mut self,
        weights: ScoreWeights,
        options: &PlanOptions,
        capacity: u64,
        forbidden: &[Forbidden],
    ) -> Result<Choice, PlanError> {
        let limits = options.limits();
        let found = self.answer((weights, capacity, limits), forbidden);
        // What strips add to the offer can crowd what is best out of a search that is limited: without them
        // it is searched too.
        let is_limited = found.as_ref().map_or(true, |choice| !choice.proven);
        let least = found.as_ref().map_or(u128::MAX, |choice| choice.score(weights));
        let full = (limits.strips && is_limited && self.offered.has_strips() && self.has_work())
            .then(|| {
                let question = (weights, capacity, SearchLimits { strips: false, ..limits });
                self.better(question, forbidden, least)
            })
            .flatten();
        match (found, full) {
            (_, Some(full)) => Ok(Choice { proven: false, ..full }),
            (Ok(found), None) => Ok(found),
            (Err(stuck), None) => Err(PlanError::Stuck {
                stages: stuck.reached.len(),
                all: self.graph().stages.len(),
                stuck: (self.graph().stages.iter())
                    .find(|(stage, _)| !stuck.reached.contains(*stage))
                    .map_or_else(String::new, |(_, node)| node.name.clone()),
            }),
        }
    }

    /// The choice that the objective asks for.
    fn search(
        &mut self,
        options: &PlanOptions,
        capacity: u64,
        forbidden: &[Forbidden],
    ) -> Result<Choice, PlanError> {
        let target = self.offered.context().target;
        match options.objective {
            Objective::Edp => self.least_product(options, capacity, forbidden),
            Objective::Latency if options.tolerance_percent > 0 => {
                self.fewest_bytes_among_fast(options, capacity, forbidden)
            }
            Objective::Traffic if options.prefer_free_sram => {
                self.solve(ScoreWeights::prefer_free_sram(), options, capacity, forbidden)
            }
            objective => {
                self.solve(ScoreWeights::of(objective, target, (0.0, 0.0)), options, capacity, forbidden)
            }
        }
    }

    /// What moves the fewest bytes of what is slower than the fastest by the tolerance at most: with a price
    /// on each byte, found by bisection. The dearer a byte, the slower the plan and the less it moves.
    fn fewest_bytes_among_fast(
        &mut self,
        options: &PlanOptions,
        capacity: u64,
        forbidden: &[Forbidden],
    ) -> Result<Choice, PlanError> {
        let slowest_of = |cycles: u64| {
            cycles.saturating_add(cycles.saturating_mul(options.tolerance_percent.into()) / 100)
        };
        // With less SRAM it is mostly the same price, and nothing is faster: what is as fast as the fastest
        // with more will do.
        if let (Some(price), Some(fastest)) = (self.price, self.fastest) {
            let priced =
                self.solve(ScoreWeights::priced(BYTE_PRICES[price]), options, capacity, forbidden)?;
            if priced.cycles <= slowest_of(fastest) {
                return Ok(priced);
            }
        }
        // A search for speed alone does not see that what is stored must be loaded again: it is bounded by
        // what one finds that does.
        let first = self.price.unwrap_or(BYTE_PRICES.len() / 2);
        self.solve(ScoreWeights::priced(BYTE_PRICES[first]), options, capacity, forbidden)?;
        let weights = ScoreWeights::of(options.objective, self.offered.context().target, (0.0, 0.0));
        let mut within = self.solve(weights, options, capacity, forbidden)?;
        self.fastest = Some(self.fastest.map_or(within.cycles, |fastest| fastest.min(within.cycles)));
        let slowest = slowest_of(within.cycles);
        let (mut low, mut high) = (0, BYTE_PRICES.len());
        let mut next = self.price;
        while low < high && within.bytes > self.bounds.bytes && self.has_work() {
            let middle = next.take().unwrap_or(usize::midpoint(low, high));
            let priced =
                self.solve(ScoreWeights::priced(BYTE_PRICES[middle]), options, capacity, forbidden)?;
            if priced.cycles > slowest {
                high = middle;
                continue;
            }
            low = middle + 1;
            if priced.bytes < within.bytes {
                within = priced;
            }
            if self.price.replace(middle) == Some(middle) {
                break;
            }
        }
        Ok(within)
    }

    /// The least product of energy and cycles: its gradient is followed from both ends until it stops
    /// falling.
    fn least_product(
        &mut self,
        options: &PlanOptions,
        capacity: u64,
        forbidden: &[Forbidden],
    ) -> Result<Choice, PlanError> {
        let target = self.offered.context().target;
        let mut best: Option<(f64, Choice)> = None;
        for from in [Objective::Latency, Objective::Energy] {
            let mut at =
                self.solve(ScoreWeights::of(from, target, (0.0, 0.0)), options, capacity, forbidden)?;
            let mut product = self.product(&at);
            for _ in 0..4 {
                let around = (self.energy(&at), at.cycles as f64);
                let weights = ScoreWeights::of(Objective::Edp, target, around);
                let next = self.solve(weights, options, capacity, forbidden)?;
                let next_product = self.product(&next);
                if next_product >= product {
                    break;
                }
                (product, at) = (next_product, next);
            }
            if best.as_ref().is_none_or(|(least, _)| product < *least) {
                best = Some((product, at));
            }
        }
        let (_, best) = best.expect("the loop above ran");
        Ok(Choice { proven: false, ..best })
    }

    fn graph(&self) -> &'a StageGraph {
        self.offered.context().graph
    }

    /// Energy of a choice in picojoules.
    fn energy(&self, choice: &Choice) -> f64 {
        let candidates =
            choice.phases.iter().map(|phase| (self.offered.chosen(phase.candidate), phase.variant));
        self.offered.context().energy(candidates, choice.bytes)
    }

    /// Energy times delay of a choice.
    fn product(&self, choice: &Choice) -> f64 {
        self.energy(choice) * choice.cycles as f64
    }
}

/// The graph of a choice.
fn realised(offered: &CandidatePool<'_>, choice: &Choice) -> Realised {
    let Context { graph, ref topology, .. } = *offered.context();
    let candidates = choice.phases.iter().map(|phase| (offered.chosen(phase.candidate), phase.variant));
    let strips: Vec<Option<Strips>> = (candidates.clone())
        .map(|(candidate, variant)| {
            Strips::new(graph, topology, &candidate.set, candidate.variants[variant].strips?)
        })
        .collect();
    let chosen: Vec<Chosen<'_>> = (candidates.zip(&strips))
        .map(|((candidate, _), strips)| Chosen { stages: &candidate.stages, strips: strips.as_ref() })
        .collect();
    realise(graph, &chosen)
}

/// The phases of a choice as candidates of the graph that was made of it, and the phase of the choice that
/// each is of; the first phase that does not fit if there is one.
fn phases<'c>(
    context: &Context<'_>,
    realised: &Realised,
    offered: &CandidatePool<'_>,
    choice: &'c Choice,
) -> Result<(Vec<Candidate>, Vec<&'c ChosenPhase>), usize> {
    let phase_of = phase_of(&realised.phases);
    let chosen_of: Vec<&ChosenPhase> = realised.chosen.iter().map(|&chosen| &choice.phases[chosen]).collect();
    let is_loaded = |buffer: BufferId, reader: StageId| {
        let places = &chosen_of[phase_of[reader]].places;
        places.iter().all(|&(other, place)| other != buffer || place == Place::Dram)
    };
    let mut made = Vec::with_capacity(realised.phases.len());
    for (phase, stages) in realised.phases.iter().enumerate() {
        let chosen = chosen_of[phase];
        let variant = &offered.chosen(chosen.candidate).variants[chosen.variant];
        let how = How { method: variant.method, division: &variant.division, slack: variant.slack };
        let previous = phase.checked_sub(1).map_or(&[][..], |before| &realised.phases[before]);
        made.push(Candidate::chosen(context, stages, previous, how, &is_loaded).ok_or(phase)?);
    }
    Ok((made, chosen_of))
}

/// Ways to run candidates that are out of the offer when a chosen phase does not fit: the phase's own; if it
/// has no strips but others do, theirs, since what they hand it is what was misjudged.
fn to_forbid(offered: &CandidatePool<'_>, choice: &Choice, at: usize) -> Vec<Forbidden> {
    let has_strips =
        |phase: &ChosenPhase| offered.chosen(phase.candidate).variants[phase.variant].strips.is_some();
    let way = |phase: &ChosenPhase| (phase.candidate, phase.variant);
    if has_strips(&choice.phases[at]) {
        return vec![way(&choice.phases[at])];
    }
    let in_strips: Vec<Forbidden> = choice.phases.iter().filter(|phase| has_strips(phase)).map(way).collect();
    if in_strips.is_empty() { vec![way(&choice.phases[at])] } else { in_strips }
}

/// Whether all tensors that a choice has in place of others may be so in the graph that was made of it.
fn keeps_places(made: &Context<'_>, choice: &Choice) -> bool {
    let mut places = choice.phases.iter().flat_map(|phase| &phase.places);
    places.all(|&(buffer, place)| place != Place::InPlace || may_be_in_place(made, buffer))
}

/// Moves tensors as close to those whose space they take as they may stand; whether they did not stand too
/// close. The candidates saw their rows with transfers at the borders: without them tensors may mostly stand
/// closer.
fn close_gaps(plan: &mut Plan, gaps: &[(BufferId, u64)]) -> bool {
    let mut is_room = true;
    for &(buffer, gap_bytes) in gaps {
        if let Some(into) = &mut plan.residency[buffer].grows_into {
            is_room &= gap_bytes <= into.gap_bytes;
            into.gap_bytes = into.gap_bytes.min(gap_bytes);
        }
    }
    is_room
}

/// Enters the bounds of a plan.
fn certify(plan: &mut Plan, bounds: Bounds, proven_optimal: bool) {
    plan.dram_bytes.compulsory = bounds.once_bytes;
    let cost = plan.certificate.cost;
    let lower_bound = bounds.of(plan.objective);
    plan.certificate = Certificate {
        cost,
        lower_bound,
        argument: bounds.argument(plan.objective),
        lower_bound_cycles: bounds.cycles,
        frame_bound: bounds.frame,
        gap: if lower_bound > 0.0 { cost / lower_bound - 1.0 } else { 0.0 },
        proven_optimal: proven_optimal || cost <= lower_bound,
        ..Certificate::default()
    };
}

/// So many percent of a target's activation SRAM, as far as something aligned can end there.
pub(super) fn usable_bytes(target: &Target, percent: u32) -> u64 {
    let memory = &target.memory;
    let alignment = u64::from(memory.alignment.max(1));
    let bytes = (u128::from(memory.activation) * u128::from(percent.min(100)) / 100) as u64;
    bytes / alignment * alignment
}

/// A problem with the methods that options ask for: what is asked for is bytes, not time, if candidates are
/// to take the least SRAM that they can.
pub(super) fn offering<'a>(context: Context<'a>, options: &PlanOptions) -> Context<'a> {
    let is_of_bytes = matches!(options.objective, Objective::Traffic | Objective::Sram);
    if is_of_bytes && options.mode == Mode::Multi { context.with_direct() } else { context }
}

/// What a mode offers.
fn offer<'a>(context: Context<'a>, options: &PlanOptions) -> Result<CandidatePool<'a>, PlanError> {
    let Offered { sets, is_limited } = match options.mode {
        Mode::Single => {
            Offered { sets: context.graph.stages.keys().map(StageSet::of).collect(), is_limited: false }
        }
        Mode::Multi => egraph::offer(&context, &options.offer, options.strips),
    };
    let strips = match options.mode {
        _ if !options.strips => WithStrips::Never,
        Mode::Single => WithStrips::Needed,
        Mode::Multi => WithStrips::Always,
    };
    let offered = CandidatePool::new(context, sets, strips).limited(is_limited);
    let alone = offered.sets().filter(|(_, set)| set.len() == 1);
    let too_large = alone.filter(|&(at, _)| offered.candidate(at, options.strips).is_none());
    let too_large: Vec<TooLarge> = too_large
        .flat_map(|(_, set)| set.iter())
        .flat_map(|stage| too_large::reasons(offered.context(), stage, options.strips))
        .collect();
    if too_large.is_empty() { Ok(offered) } else { Err(PlanError::StageTooLarge(too_large)) }
}
