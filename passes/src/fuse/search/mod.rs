//! The chooser: which candidates, in which order, and where every boundary tensor lives.
//!
//! Exact dynamic programming over cuts. A node is a set of stages that have run (closed under dependence)
//! with a place for each tensor that is still needed; a step runs one candidate as a phase. Costs add up but
//! for one coupling, the weights: those of later phases are loaded into what weight SRAM a phase leaves free,
//! in what DRAM time it leaves free. So a label carries, beside its score, how far ahead its weights can be
//! (`ahead`). What is not loaded ahead can be waited for, so a label is dropped only for one that scores no
//! more even if it has to wait for all that the other has more of. Labels at a node, nodes of one size and
//! placings of one phase are limited in number; if a limit ever drops one, the result is no longer called
//! proven. What binds the least SRAM is never dropped: every tensor in DRAM is the plan that works when no
//! better one does. Work is shared out evenly over the network: a search that has done more of it than it
//! has run of the network goes on, but narrow, and looks at no long candidate that was not evaluated before.
//! Where an answer is known, what is sure to score more is not followed: its score so far, and the least that
//! the stages left cost in work and in bytes.
//!
//! Limits count work, never time; nothing depends on hash order.

mod ahead;
mod cuts;
mod placing;
mod replay;

use std::collections::BTreeMap;

use strata_backend::cost::{ScoreWeights, dram_bound, filled};
use strata_backend::model::BufferId;
use strata_backend::model::graph::StageSet;
use strata_backend::place::FARTHEST_PREFETCH;
use strata_isa_spec::timing::dram_cycles;

use crate::fuse::candidates::candidate::{Candidate, Context, Growth, Variant};
use crate::fuse::search::ahead::{LeftByPhase, WeightPrefetch};
use crate::fuse::search::placing::{Moved, PartialPlacement, Placings, TensorSlot, WayKey};

pub use cuts::choose;
pub use replay::{may_be_in_place, replay};

/// Where a tensor that is still needed lives between phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In DRAM only.
    Dram,
    /// Whole in SRAM only.
    Sram,
    /// In both.
    Both,
    /// Whole in SRAM only, in the bytes of its [host](crate::fuse::candidates::in_place), which still stands
    /// there too.
    InPlace,
}

impl Place {
    /// Whether it is whole in SRAM.
    pub fn in_sram(self) -> bool {
        self != Self::Dram
    }

    /// Whether it is in DRAM.
    pub fn in_dram(self) -> bool {
        matches!(self, Self::Dram | Self::Both)
    }
}

/// Places of the tensors that are alive, by buffer.
pub type Places = Vec<(BufferId, Place)>;

/// Where a tensor is, if it is alive.
fn place_of(places: &Places, buffer: BufferId) -> Option<Place> {
    places.iter().find(|(other, _)| *other == buffer).map(|(_, place)| *place)
}

/// Labels of a cut, by where the tensors are.
type States = BTreeMap<Places, Vec<usize>>;

/// A variant of a candidate that is run next.
#[derive(Clone, Copy)]
struct NextPhase<'c> {
    /// Index of the candidate.
    index: usize,
    candidate: &'c Candidate,
    /// Index of the variant.
    which: usize,
}

impl<'c> NextPhase<'c> {
    fn variant(&self) -> &'c Variant {
        &self.candidate.variants[self.which]
    }
}

/// What a phase finds after a label.
#[derive(Clone, Copy, Debug)]
struct Before {
    label: usize,
    /// Bytes of its weights that are loaded as it begins.
    prefetched: u64,
    /// Cycles by which its stages wait for the others.
    delay: u64,
}

/// Labels of a cut that share the places of their tensors.
struct Sharing<'l> {
    places: &'l Places,
    labels: &'l [usize],
}

/// The cut that a phase leads to.
struct NextCut<'s> {
    /// Stages that have run by then.
    done: &'s StageSet,
    /// Its labels so far.
    states: &'s mut States,
    /// What further labels have to be better than, if it has as many as it keeps.
    full: Option<Full>,
    /// What scores more is not followed.
    most: u128,
}

/// What a search may use, and what it has to beat.
#[derive(Clone, Copy, Debug)]
pub struct SearchBounds {
    /// Bytes of activation SRAM.
    pub capacity: u64,
    /// What is sure to score more is not followed.
    pub most: u128,
    /// Work before the search becomes narrow, in the units of
    /// [`CandidatePool::work`](crate::fuse::candidates::pool::CandidatePool::work).
    pub work: usize,
}

/// A phase of the answer.
#[derive(Clone, Debug)]
pub struct ChosenPhase {
    /// Index of the candidate.
    pub candidate: usize,
    /// Index of its variant.
    pub variant: usize,
    /// Places of tensors during the phase.
    pub places: Places,
    /// Tensors that take the space of others.
    pub growths: Vec<Growth>,
    /// Predicted cycles.
    pub cycles: u64,
    /// Bytes of activation SRAM.
    pub sram_bytes: u64,
    /// Bytes loaded and stored, without weights.
    pub moved_bytes: u64,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Phases in order.
    pub phases: Vec<ChosenPhase>,
    /// Cycles of all.
    pub cycles: u64,
    /// DRAM bytes of all.
    pub bytes: u64,
    /// What all [fill](strata_backend::cost::filled) of SRAM.
    pub filled: u64,
    /// Whether no plan over these candidates scores less, under the planner's cost model, in which all strips
    /// of a candidate cost what the widest does.
    pub proven: bool,
    /// Whether the search had done its share of work before its end, and went on narrow.
    pub narrowed: bool,
}

impl Choice {
    /// What it scores.
    pub fn score(&self, weights: ScoreWeights) -> u128 {
        weights.score(self.cycles, self.bytes) + weights.fill_score(self.filled)
    }
}

#[derive(Clone, Copy, Debug)]
struct Label {
    score: u128,
    cycles: u64,
    bytes: u64,
    filled: u64,
    /// Weights of later phases.
    ahead: WeightPrefetch,
    step: Option<Step>,
}

/// The phase that led to a label. There are many: numbers are as small as they can be.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The label before.
    previous: u32,
    candidate: u32,
    variant: u32,
    /// Number of the placing.
    placing: u32,
}

impl Label {
    /// Nothing has run.
    fn start() -> Self {
        Self { score: 0, cycles: 0, bytes: 0, filled: 0, ahead: WeightPrefetch::default(), step: None }
    }
}

/// Limits of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SearchLimits {
    /// Labels kept for one cut and one set of places.
    pub labels_per_state: usize,
    /// Labels kept for one cut.
    pub labels_per_cut: usize,
    /// Cuts of one number of stages that are followed.
    pub cuts: usize,
    /// Ways to place the tensors of one phase.
    pub placings: usize,
    /// Stages of a candidate, at most.
    pub longest: usize,
    /// Whether tensors may take the space of others that die.
    pub growths: bool,
    /// Whether candidates may run in strips.
    pub strips: bool,
    /// Whether a phase waits for the first rows of what it loads; else the phase before is taken to bring
    /// them.
    pub fills: bool,
    /// By what cuts are ranked.
    pub estimate: Estimate,
}

/// What the stages that are left are thought to take, where only the best cuts of as many stages are
/// followed. No estimate is the better one on every network, so there are searches by each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Estimate {
    /// The time of the array, while DRAM moves the tables.
    Overlap,
    /// The time of the array and that of DRAM, as if each waited for the other, and the price of the bytes.
    Turns,
}

impl Estimate {
    /// Those by which searches for the least score are made, in order. Where bytes come first, time tells
    /// nothing.
    pub fn worth_trying(weights: ScoreWeights) -> &'static [Self] {
        if weights.puts_bytes_first() { &[Self::Overlap] } else { &[Self::Turns, Self::Overlap] }
    }
}

impl SearchLimits {
    /// The limits of a search for a first answer, by which other searches are bounded: it is narrow, and most
    /// candidates are long.
    pub fn quick(self) -> Self {
        Self { longest: self.longest.min(SHORT), ..self.narrow() }
    }

    /// The widths of a search that has done its share of work: what is left of it takes time linear in the
    /// candidates.
    pub fn narrow(self) -> Self {
        Self {
            labels_per_cut: self.labels_per_cut.min(4),
            cuts: self.cuts.min(2),
            placings: self.placings.min(4),
            ..self
        }
    }
}

/// Candidates of so many stages are looked at however much work was done.
const SHORT: usize = 8;

/// A variant of a candidate that is not to be chosen.
pub type Forbidden = (usize, usize);

/// What came of a search without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The largest set of stages that could be run.
    pub reached: StageSet,
}

struct Search<'a> {
    context: &'a Context<'a>,
    weights: ScoreWeights,
    capacity: u64,
    limits: SearchLimits,
    labels: Vec<Label>,
    /// Placings of the labels' phases.
    placings: Placings,
    /// Room for [`Search::slots`] and [`Search::ways`], for what orders them, and for the labels of one and
    /// where they lead, kept.
    slots: Vec<TensorSlot>,
    ways: Vec<PartialPlacement>,
    way_keys: Vec<WayKey>,
    made: Vec<Label>,
    befores: Vec<Before>,
    after: Places,
    /// Placings and labels made.
    work: usize,
    /// Whether more was done than the share of what has run, and whether it ever was.
    is_late: bool,
    was_late: bool,
    proven: bool,
    /// Whether something was not followed because it scores too much, but for what strips might save.
    gave_up: bool,
}

/// What a label has to be better than where a cut has as many labels as it keeps.
#[derive(Clone, Copy, Debug)]
struct Full {
    /// The score of the worst that is kept.
    worst: u128,
    /// Bytes of SRAM that are bound by the one that binds the fewest, and its score.
    freest: (u64, u128),
}

impl Full {
    /// Whether a label of at least this score that binds at least so many bytes may be kept.
    fn may_keep(self, score: u128, bound_bytes: u64) -> bool {
        score <= self.worst || (bound_bytes, score) < self.freest
    }

    /// Whether no label of at least this score is kept, whatever it binds.
    fn keeps_none(self, score: u128) -> bool {
        !self.may_keep(score, 0)
    }
}

impl<'a> Search<'a> {
    fn new(context: &'a Context<'a>, weights: ScoreWeights, capacity: u64, limits: SearchLimits) -> Self {
        Self {
            context,
            weights,
            capacity,
            limits,
            labels: Vec::new(),
            placings: Placings::default(),
            slots: Vec::new(),
            ways: Vec::new(),
            way_keys: Vec::new(),
            made: Vec::new(),
            befores: Vec::new(),
            after: Places::new(),
            work: 0,
            is_late: false,
            was_late: false,
            proven: true,
            gave_up: false,
        }
    }

    /// The widths in force.
    fn widths(&self) -> SearchLimits {
        if self.is_late { self.limits.narrow() } else { self.limits }
    }

    /// Bytes of SRAM that tensors take which stand nowhere else, and so must stay until they are dead.
    fn bound_bytes(&self, places: &Places) -> u64 {
        let only_sram = places.iter().filter(|(_, place)| *place == Place::Sram);
        only_sram.map(|&(buffer, _)| self.context.whole_bytes(buffer)).sum()
    }

    /// Of [`Self::bound_bytes`], those that are still bound when the stages of `done` have run.
    fn least_bound_bytes(&self, places: &Places, done: &StageSet) -> u64 {
        let bound =
            places.iter().filter(|&&(buffer, place)| place == Place::Sram && self.is_live(buffer, done));
        bound.map(|&(buffer, _)| self.context.whole_bytes(buffer)).sum()
    }

    /// Extends labels by a phase, and adds what comes of it to the labels of the cut that it leads to; how
    /// many it did. Of a cut that is full, only labels that it may keep.
    fn extend(&mut self, phase: NextPhase<'_>, from: &Sharing<'_>, to: &mut NextCut<'_>) -> usize {
        let (candidate, variant) = (phase.candidate, phase.variant());
        let mut slots = std::mem::take(&mut self.slots);
        self.slots(phase, from.places, to.done, &mut slots);
        let growths = self.growths(variant, &slots);
        let mut ways = std::mem::take(&mut self.ways);
        let last = self.ways(variant, &slots, &growths, &mut ways);
        let (mut made, mut after) = (std::mem::take(&mut self.made), std::mem::take(&mut self.after));
        let mut befores = std::mem::take(&mut self.befores);
        befores.clear();
        befores.extend(from.labels.iter().map(|&label| self.before(label, phase)));
        let (mut n_made, mut n_kept) = (0, 0);
        for way in last {
            let way = &ways[way];
            let stages = candidate.stages.len() as u32 + way.dma_stages;
            if way.grown_bytes() > self.capacity || stages > self.context.target.limits.stages {
                continue;
            }
            made.clear();
            let run = befores.iter().map(|before| self.run(before, phase, way));
            made.extend(run.filter(|label| label.score <= to.most));
            if made.is_empty() {
                continue;
            }
            if to.full.is_some_and(|full| made.iter().all(|label| full.keeps_none(label.score))) {
                self.proven = false;
                continue;
            }
            n_made += made.len();
            self.places_after(way.places(&ways, &slots), &slots, &mut after);
            // Most lead to where others did.
            if !to.states.contains_key(after.as_slice()) {
                to.states.insert(after.clone(), Vec::new());
            }
            let state = to.states.get_mut(after.as_slice()).expect("it is there now");
            let before = n_kept;
            n_kept += made.drain(..).filter(|label| self.keep(state, *label)).count();
            if n_kept > before {
                self.placings.push(way, &ways, &slots, &growths);
            }
        }
        (self.slots, self.ways, self.made, self.after) = (slots, ways, made, after);
        self.befores = befores;
        self.work += n_made;
        n_kept
    }

    /// What a phase finds after a label, wherever its tensors are placed.
    fn before(&self, label: usize, phase: NextPhase<'_>) -> Before {
        let target = self.context.target;
        let (candidate, variant) = (phase.candidate, phase.variant());
        let loads_up_to = &candidate.loads_up_to;
        let prefetched = self.labels[label].ahead.loaded_of(loads_up_to);
        let rate = u64::from(target.dram.bytes_per_cycle.max(1));
        let latency = u64::from(target.dram.latency_cycles);
        let phase_cycles = u64::from(target.switch.phase_cycles);
        let late = (loads_up_to.iter().zip(&variant.starts)).filter(|(up_to, _)| **up_to > prefetched).map(
            |(up_to, start)| {
                ((up_to - prefetched).div_ceil(rate) + latency).saturating_sub(start + phase_cycles)
            },
        );
        Before { label, prefetched, delay: late.max().unwrap_or(0) }
    }

    /// The label after a phase whose tensors are placed in a way.
    fn run(&self, before: &Before, phase: NextPhase<'_>, way: &PartialPlacement) -> Label {
        let &Before { label: previous, prefetched, delay } = before;
        let before = &self.labels[previous];
        let target = self.context.target;
        let (candidate, variant) = (phase.candidate, phase.variant());
        let loads_up_to = &candidate.loads_up_to;
        let to_load = loads_up_to.last().copied().unwrap_or(0);
        let rate = u64::from(target.dram.bytes_per_cycle.max(1));
        let phase_cycles = u64::from(target.switch.phase_cycles);
        let moved = way.moved;
        let Moved { load, store, turn_cycles } = moved;
        let moved = moved.bytes();
        let n_phases = variant.n_phases();
        let channel = |weights: u64| dram_bound(target, moved / n_phases + weights);
        // A row is loaded while another is stored; by turns is what a stage does in between.
        let transfers = load.cycles.max(store.cycles);
        let by_turns = if turn_cycles == 0 { 0 } else { turn_cycles + transfers.max(channel(0)) };
        let fill = if self.limits.fills { load.edge_cycles } else { 0 };
        let pipeline = (variant.cycles + fill + store.edge_cycles).max(by_turns);
        let dma = transfers + store.edge_cycles;
        let first = phase_cycles + (pipeline + delay).max(dma).max(channel(to_load - prefetched));
        // Strips after the first find the weights loaded.
        let next = phase_cycles + pipeline.max(dma).max(channel(0));
        let cycles = (first + (n_phases - 1) * next).saturating_add_signed(variant.correction.get());
        let bytes = moved + candidate.table_bytes;
        let n_ahead = n_phases.min(FARTHEST_PREFETCH as u64);
        let (spare_cycles, busy) = if n_phases > n_ahead {
            (n_ahead * next, n_ahead * (moved / n_phases))
        } else {
            (cycles, moved + to_load - prefetched)
        };
        let left = LeftByPhase {
            free: target.memory.weight.saturating_sub(candidate.weight_bytes),
            spare: (spare_cycles * rate).saturating_sub(busy),
        };
        let ahead = before.ahead.after(loads_up_to, left);
        let filled = n_phases * filled(way.grown_bytes());
        Label {
            score: before.score + self.weights.score(cycles, bytes) + self.weights.fill_score(filled),
            cycles: before.cycles + cycles,
            bytes: before.bytes + bytes,
            filled: before.filled + filled,
            ahead,
            step: Some(Step {
                previous: previous as u32,
                candidate: phase.index as u32,
                variant: phase.which as u32,
                placing: self.placings.len() as u32,
            }),
        }
    }

    /// What waiting for so many bytes of weights scores.
    fn wait_score(&self, bytes: u64) -> u128 {
        self.weights.score(dram_cycles(self.context.target, bytes), 0)
    }

    /// What labels of a cut are put in order by: their score, if all weights that were loaded ahead save
    /// time.
    fn rank(&self, label: usize) -> u128 {
        let Label { score, ahead, .. } = self.labels[label];
        score.saturating_sub(self.wait_score(ahead.bytes()))
    }

    /// Adds a label to those of a state, unless one of them is no worse in everything; whether it did.
    fn keep(&mut self, state: &mut Vec<usize>, label: Label) -> bool {
        // What is not loaded ahead can be waited for.
        let no_worse = |a: &Label, b: &Label| {
            a.score <= b.score && a.score + self.wait_score(a.ahead.lacks(&b.ahead)) <= b.score
        };
        if state.iter().any(|&other| no_worse(&self.labels[other], &label)) {
            return false;
        }
        state.retain(|&other| !no_worse(&label, &self.labels[other]));
        state.push(self.labels.len());
        self.labels.push(label);
        if state.len() > self.limits.labels_per_state {
            self.proven = false;
            let worst = (0..state.len()).max_by_key(|&i| (self.rank(state[i]), state[i]));
            if let Some(worst) = worst {
                state.remove(worst);
            }
        }
        true
    }

    /// Keeps the best labels of a cut by their scores, a quarter as many by their [`ranks`](Self::rank), and
    /// the best of those that bind the least SRAM; what others have to be better than, if labels were
    /// dropped.
    fn limit(&mut self, states: &mut States) -> Option<Full> {
        let width = self.widths().labels_per_cut;
        let labels: Vec<usize> = states.values().flatten().copied().collect();
        if labels.len() <= width {
            return None;
        }
        self.proven = false;
        let worst_kept = |mut all: Vec<(u128, usize)>, n: usize| *all.select_nth_unstable(n.max(1) - 1).1;
        let by_score = worst_kept(labels.iter().map(|&l| (self.labels[l].score, l)).collect(), width);
        let by_rank = worst_kept(labels.iter().map(|&l| (self.rank(l), l)).collect(), width / 4);
        let freest = states
            .iter()
            .filter_map(|(places, list)| {
                let best = list.iter().map(|&l| (self.labels[l].score, l)).min()?;
                Some((self.bound_bytes(places), best))
            })
            .min();
        for list in states.values_mut() {
            list.retain(|&l| {
                let label = (self.labels[l].score, l);
                let is_freest = freest.is_some_and(|(_, best)| best == label);
                label <= by_score || (self.rank(l), l) <= by_rank || is_freest
            });
        }
        states.retain(|_, list| !list.is_empty());
        let worst = states.values().flatten().map(|&l| self.labels[l].score).max().unwrap_or(0);
        let freest = freest.map_or((0, 0), |(bytes, (score, _))| (bytes, score));
        Some(Full { worst, freest })
    }

    fn answer(&self, last: usize) -> Choice {
        let Label { cycles, bytes, filled, .. } = self.labels[last];
        let mut phases = Vec::new();
        let mut at = last;
        while let Some(step) = self.labels[at].step {
            let before = step.previous as usize;
            phases.push(self.phase(step, self.labels[at].cycles - self.labels[before].cycles));
            at = before;
        }
        phases.reverse();
        Choice { phases, cycles, bytes, filled, proven: self.proven, narrowed: self.was_late }
    }

    fn phase(&self, step: Step, cycles: u64) -> ChosenPhase {
        let placing = self.placings.get(step.placing as usize);
        ChosenPhase {
            candidate: step.candidate as usize,
            variant: step.variant as usize,
            places: placing.places.to_vec(),
            growths: placing.growths.to_vec(),
            cycles,
            sram_bytes: placing.sram_bytes,
            moved_bytes: placing.moved_bytes,
        }
    }
}
