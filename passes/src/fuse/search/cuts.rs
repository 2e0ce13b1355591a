//! The walk over cuts, from nothing run to everything run.
//!
//! A cut that is come to tells those behind it no more than that they can be reached from it by a candidate,
//! and at what cost at the least. When a cut's turn comes, it makes labels of what leads to it, the most
//! promising first, until none that is left can be among those that it keeps. So of the many candidates that
//! lead to a cut few are looked at closely where labels are few, and of the many cuts of one size those that
//! cannot be among the best are not looked at.
//!
//! The bounds are of the candidate alone, and are made tighter as its turn comes: its work on the whole
//! array, then its slowest stage as the array is divided, then its pipeline, and at last, with the sizes of
//! its rings, its variants. Simulating rings is what takes time, and most candidates do not come to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Range;

use strata_backend::cost::ScoreWeights;
use strata_backend::model::graph::StageSet;
use strata_isa_spec::timing::dram_cycles;

use crate::fuse::candidates::candidate::{Candidate, LeastCost, Variant};
use crate::fuse::candidates::pool::{CandidatePool, Least, Outlook};
use crate::fuse::search::{
    Choice, Estimate, Forbidden, Full, Label, NextCut, NextPhase, Places, SHORT, Search, SearchBounds,
    SearchLimits, Sharing, States, Stuck,
};

/// The order of phases that scores least over the candidates.
///
/// # Errors
/// If no order of the candidates that was followed runs every stage.
pub fn choose(
    offered: &CandidatePool<'_>,
    forbidden: &[Forbidden],
    weights: ScoreWeights,
    SearchBounds { capacity, most, work }: SearchBounds,
    limits: SearchLimits,
) -> Result<Choice, Stuck> {
    let context = offered.context();
    let mut search = Search::new(context, weights, capacity, limits);
    search.labels.push(Label::start());
    let shares = Shares { work, n_stages: context.graph.stages.len(), work_before: offered.work() };
    let mut walk = Walk { offered, forbidden, search, most, shares, visited: Vec::new() };
    let found = walk.walk();
    offered.add_work(walk.search.work);
    found
}

/// At each number of stages, at most `LABELLED` times the width of the search are labelled.
const LABELLED: usize = 2;

/// What leads to cuts that were heard of but not come to, by the number of their stages.
type Open = BTreeMap<usize, Vec<Expansion>>;

/// A way to come to a cut. The one that may score least is least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Expansion {
    /// No label that it makes scores less.
    bound: u128,
    /// The cut that it comes from, by number.
    from: u32,
    /// The candidate that is run.
    candidate: u32,
    seen: Seen,
    /// The [beginning](StageSet::beginning_of_union) of the cut that it leads to.
    beginning: (usize, u64),
}

/// How closely a candidate was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Its work was summed up.
    Work,
    /// The array was divided among its stages.
    Pace,
    /// Its pipeline was timed at full width, and it may run in strips too.
    Time,
    /// Its pipeline was timed, and it runs at full width only.
    TimeOfAll,
    /// One of its variants was evaluated.
    Variant(u32),
}

/// A cut with its labels.
struct Cut {
    done: StageSet,
    /// What other stages cost at the least.
    left: Least,
    /// What the label of it that scores least does.
    score: u128,
    states: States,
}

/// Leads, the most promising first.
type Leads = BinaryHeap<Reverse<Expansion>>;

/// A cut that was not come to yet.
struct Behind {
    /// What leads to it, by place in the list of all leads.
    leads: Range<usize>,
    /// The same, the most promising first, once it was looked at.
    ordered: Option<Leads>,
    /// No label of it scores less.
    bound: u128,
    /// What other stages cost at the least.
    left: Least,
}

/// How much work a search may have done by the time that some stages have run.
#[derive(Clone, Copy, Debug)]
struct Shares {
    work: usize,
    n_stages: usize,
    /// Work that was done on the candidates before.
    work_before: usize,
}

impl Shares {
    /// One part in so many of the work may be done before any stage has run.
    const HEAD_START: usize = 2;

    /// The share of so many stages.
    fn of(self, n_done: usize) -> usize {
        let head_start = self.work / Self::HEAD_START;
        head_start + (self.work - head_start) / self.n_stages.max(1) * n_done
    }
}

struct Walk<'a> {
    offered: &'a CandidatePool<'a>,
    forbidden: &'a [Forbidden],
    search: Search<'a>,
    /// No answer that is looked for scores more.
    most: u128,
    shares: Shares,
    /// Cuts that were come to.
    visited: Vec<Cut>,
}

impl Walk<'_> {
    /// Walks from nothing run to all run.
    fn walk(&mut self) -> Result<Choice, Stuck> {
        let all: StageSet = self.search.context.graph.stages.keys().collect();
        let mut open = Open::new();
        let states = States::from([(Places::new(), vec![0])]);
        let nothing = StageSet::default();
        let left = self.offered.least_after(&nothing);
        let mut cuts = vec![Cut { done: nothing, left, score: 0, states }];
        let mut reached = StageSet::default();
        loop {
            for cut in cuts {
                if cut.done == all {
                    // A guess was as good as sure only if there are no strips.
                    let is_sure =
                        !(self.search.gave_up && self.search.limits.strips && self.offered.has_strips());
                    self.search.proven &= is_sure;
                    return Ok(self.search.answer(self.best(&cut.states)));
                }
                reached.clone_from(&cut.done);
                self.visit(cut, &mut open);
            }
            let Some((_, leads)) = open.pop_first() else { return Err(Stuck { reached }) };
            cuts = self.best_cuts(leads);
        }
    }

    /// The label of a cut that scores least.
    fn best(&self, states: &States) -> usize {
        let best = states.values().flatten().copied().min_by_key(|&l| (self.search.labels[l].score, l));
        best.expect("a cut that is come to has a label")
    }

    /// Tells the cuts behind a cut how they can be come to.
    fn visit(&mut self, cut: Cut, open: &mut Open) {
        let score = cut.score;
        let n_done = cut.done.len();
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let longest = self.search.limits.longest;
        for candidate in self.offered.next(&cut.done) {
            if self.offered.set(candidate).len() > longest {
                self.search.proven = false;
                continue;
            }
            let cycles = phase_cycles + self.offered.least_cycles(candidate);
            let bound = score + self.search.weights.score(cycles, 0);
            let least = self.offered.least(candidate);
            let room = self.room(cut.left.without(least));
            if bound + self.least_bytes(least) > room {
                let cycles = phase_cycles + self.offered.cycles(least);
                let is_sure = score + self.search.weights.score(cycles, least.bytes) > room;
                if is_sure || self.may_guess() {
                    self.search.gave_up |= !is_sure;
                    continue;
                }
            }
            let set = self.offered.set(candidate);
            let beginning = StageSet::beginning_of_union(&cut.done, set);
            let (from, number) = (self.visited.len() as u32, candidate as u32);
            let lead = Expansion { bound, from, candidate: number, seen: Seen::Work, beginning };
            open.entry(n_done + set.len()).or_default().push(lead);
        }
        self.visited.push(cut);
    }

    /// The most that a label may score after which stages are left that cost so much at the least.
    fn room(&self, left: Least) -> u128 {
        let Search { weights, context, .. } = &self.search;
        let phase_cycles = if left == Least::default() { 0 } else { context.target.switch.phase_cycles };
        let cycles = u64::from(phase_cycles) + self.offered.cycles(left);
        self.most.saturating_sub(weights.score(cycles, left.bytes))
    }

    /// Whether a candidate may be left out for the time of its slowest stage, which strips may shorten: where
    /// they cannot, or where the answer will not be called proven anyway.
    fn may_guess(&self) -> bool {
        !(self.search.limits.strips && self.offered.has_strips() && self.search.proven)
    }

    /// What the least bytes of stages score.
    fn least_bytes(&self, least: Least) -> u128 {
        self.search.weights.score(0, least.bytes)
    }

    /// The best cuts of those of one number of stages, in order: by what their labels score, and an estimate
    /// of what is left to run, since one stage is not like another. The first of them in order,
    /// which leaves out no stage that stands before one it has, is among them: groups of neighbours can
    /// always go on from there.
    fn best_cuts(&mut self, mut leads: Vec<Expansion>) -> Vec<Cut> {
        let mut cuts = self.behind(&mut leads);
        let left: Vec<u128> = cuts.iter().map(|cut| self.estimate_of_left(cut.left)).collect();
        let rank = |cut: usize, bound: u128| if cut == 0 { 0 } else { bound + left[cut] };
        let ranks = cuts.iter().enumerate().map(|(at, cut)| Reverse((rank(at, cut.bound), at)));
        let mut ranks: BinaryHeap<Reverse<(u128, usize)>> = ranks.collect();
        let width = self.search.widths().cuts;
        let mut best: BTreeMap<(u128, usize), Cut> = BTreeMap::new();
        let mut n_labelled = 0;
        while let Some(Reverse((bound, at))) = ranks.pop() {
            let worst = best.last_key_value().map(|((rank, _), _)| *rank);
            if best.len() >= width && (Some(bound) > worst || n_labelled >= LABELLED * width) {
                self.search.proven = false;
                break;
            }
            let Behind { leads: range, ordered, left, .. } = &mut cuts[at];
            let lead = leads[range.start];
            let ordered =
                ordered.get_or_insert_with(|| leads[range.clone()].iter().copied().map(Reverse).collect());
            let tighter = rank(at, self.tightened(ordered));
            if tighter > bound {
                ranks.push(Reverse((tighter, at)));
                continue;
            }
            n_labelled += 1;
            let (ordered, left) = (std::mem::take(ordered), *left);
            let done = self.visited[lead.from as usize].done.union(self.offered.set(lead.candidate as usize));
            let states = self.labelled(&done, left, ordered);
            if states.is_empty() {
                continue;
            }
            let score = self.search.labels[self.best(&states)].score;
            best.insert((rank(at, score), at), Cut { done, left, score, states });
            if best.len() > width {
                self.search.proven = false;
                best.pop_last();
            }
        }
        let mut best: Vec<(usize, Cut)> = best.into_iter().map(|((_, at), cut)| (at, cut)).collect();
        best.sort_unstable_by_key(|(at, _)| *at);
        best.into_iter().map(|(_, cut)| cut).collect()
    }

    /// What is thought to be left to score after some stages.
    fn estimate_of_left(&self, left: Least) -> u128 {
        let Search { weights, context, limits, .. } = &self.search;
        let cycles = self.offered.cycles(left);
        match limits.estimate {
            Estimate::Overlap => weights.score(cycles, 0),
            Estimate::Turns => weights.score(cycles + dram_cycles(context.target, left.bytes), left.bytes),
        }
    }

    /// The cuts that leads of as many stages lead to, in order; the leads are sorted by them.
    fn behind(&self, leads: &mut [Expansion]) -> Vec<Behind> {
        let sets = |lead: &Expansion| {
            (&self.visited[lead.from as usize].done, self.offered.set(lead.candidate as usize))
        };
        let compare = |a: &Expansion, b: &Expansion| {
            let beginnings = a.beginning.cmp(&b.beginning);
            beginnings.then_with(|| StageSet::compare_unions(sets(a), sets(b)))
        };
        leads.sort_unstable_by(|a, b| compare(a, b).then_with(|| a.cmp(b)));
        let mut cuts: Vec<Behind> = Vec::new();
        for group in leads.chunk_by(|a, b| compare(a, b).is_eq()) {
            let from = cuts.last().map_or(0, |cut: &Behind| cut.leads.end);
            // The first is the most promising.
            let Expansion { bound, from: before, candidate, .. } = group[0];
            let left = self.visited[before as usize].left.without(self.offered.least(candidate as usize));
            cuts.push(Behind { leads: from..from + group.len(), ordered: None, bound, left });
        }
        cuts
    }

    /// Puts a lead's variants in its place, each with its bound.
    fn push_variants(&self, lead: Expansion, candidate: &Candidate, leads: &mut Leads) {
        let score = self.visited[lead.from as usize].score;
        for (which, variant) in candidate.variants.iter().enumerate() {
            if !self.forbidden.contains(&(lead.candidate as usize, which)) {
                let bound = score + self.least_score(candidate, variant);
                leads.push(Reverse(Expansion { bound, seen: Seen::Variant(which as u32), ..lead }));
            }
        }
    }

    /// Looks at what leads to a cut until the bound of the most promising is as tight as it can be without
    /// evaluating it, or it will be put off; the bound.
    fn tightened(&self, leads: &mut Leads) -> u128 {
        while let Some(Reverse(lead)) = leads.peek().copied().filter(|lead| lead.0.seen == Seen::Work) {
            if self.search.is_late && self.is_long_and_new(lead) {
                break;
            }
            leads.pop();
            leads.push(Reverse(self.paced(lead)));
        }
        leads.peek().map_or(0, |lead| lead.0.bound)
    }

    /// A lead with the bound of its candidate's slowest stage.
    fn paced(&self, lead: Expansion) -> Expansion {
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let cycles = phase_cycles + self.offered.paced_cycles(lead.candidate as usize);
        let bound = self.visited[lead.from as usize].score + self.search.weights.score(cycles, 0);
        Expansion { bound: bound.max(lead.bound), seen: Seen::Pace, ..lead }
    }

    /// A lead with the bound of what its candidate costs at the least at full width: no variant at full width
    /// has a lower one.
    fn timed(&self, lead: Expansion, least: LeastCost, seen: Seen) -> Expansion {
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let least = self.search.weights.score(phase_cycles + least.cycles, least.table_bytes);
        Expansion { bound: self.visited[lead.from as usize].score + least, seen, ..lead }
    }

    /// The labels of a cut that is come to in these ways, and that leaves so much.
    fn labelled(&mut self, done: &StageSet, left: Least, mut leads: Leads) -> States {
        let offered = self.offered;
        let mut states = States::new();
        let (mut full, mut n_labels): (Option<Full>, usize) = (None, 0);
        let room = self.room(left);
        // Leads that are looked at only if no other makes a label, in order.
        let mut put_off: VecDeque<Expansion> = VecDeque::new();
        while let Some(lead) = self.next_lead(done, &mut leads, &mut put_off, !states.is_empty()) {
            let is_sure = matches!(lead.seen, Seen::TimeOfAll | Seen::Variant(_));
            if lead.bound > room && (is_sure || self.may_guess()) {
                self.search.gave_up |= !is_sure;
                continue;
            }
            if full.is_some_and(|full| full.keeps_none(lead.bound)) {
                self.search.proven = false;
                break;
            }
            if lead.seen == Seen::Work {
                leads.push(Reverse(self.paced(lead)));
                continue;
            }
            let least_bytes = self.least_bytes(offered.least(lead.candidate as usize));
            if lead.seen == Seen::Pace && lead.bound + least_bytes > room && self.may_guess() {
                self.search.gave_up = true;
                continue;
            }
            if lead.seen == Seen::Pace {
                match offered.outlook(lead.candidate as usize, self.search.limits.strips) {
                    Outlook::None => continue,
                    Outlook::AtLeast { cost, may_have_strips } if !may_have_strips || self.may_guess() => {
                        let seen = if may_have_strips { Seen::Time } else { Seen::TimeOfAll };
                        leads.push(Reverse(self.timed(lead, cost, seen)));
                        continue;
                    }
                    Outlook::AtLeast { .. } | Outlook::Known => {}
                }
            }
            let Some(candidate) = offered.candidate(lead.candidate as usize, self.search.limits.strips)
            else {
                continue;
            };
            let from = &self.visited[lead.from as usize];
            let Seen::Variant(which) = lead.seen else {
                self.push_variants(lead, candidate, &mut leads);
                continue;
            };
            let which = which as usize;
            let least = self.least_score(candidate, &candidate.variants[which]);
            self.search.work += 1;
            for (places, labels) in &from.states {
                let score = labels.iter().map(|&label| self.search.labels[label].score).min();
                let bound = score.unwrap_or(0) + least;
                if bound > room {
                    continue;
                }
                if full.is_some_and(|full| !full.may_keep(bound, self.search.least_bound_bytes(places, done)))
                {
                    self.search.proven = false;
                    continue;
                }
                let phase = NextPhase { index: lead.candidate as usize, candidate, which };
                let mut to = NextCut { done, states: &mut states, full, most: room };
                n_labels += self.search.extend(phase, &Sharing { places, labels }, &mut to);
                let width = self.search.widths().labels_per_cut;
                if n_labels > width + width / 2 {
                    full = self.search.limit(&mut states);
                    n_labels = states.values().map(Vec::len).sum();
                }
            }
        }
        self.search.proven &= put_off.is_empty();
        self.search.limit(&mut states);
        states
    }

    /// The lead to a cut that is looked at next. When the search is late, leads by long candidates that are
    /// new are put off, and looked at only if no other makes a label.
    fn next_lead(
        &mut self,
        done: &StageSet,
        leads: &mut Leads,
        put_off: &mut VecDeque<Expansion>,
        has_labels: bool,
    ) -> Option<Expansion> {
        self.search.is_late = self.is_late(done);
        self.search.was_late |= self.search.is_late;
        while let Some(Reverse(lead)) = leads.pop() {
            if !self.search.is_late || !self.is_long_and_new(lead) {
                return Some(lead);
            }
            put_off.push_back(lead);
        }
        if has_labels { None } else { put_off.pop_front() }
    }

    /// Whether more work was done than the share of the stages of a cut.
    fn is_late(&self, done: &StageSet) -> bool {
        let work = self.search.work + self.offered.work() - self.shares.work_before;
        work >= self.shares.of(done.len())
    }

    /// Whether a lead is by a candidate that takes long to evaluate.
    fn is_long_and_new(&self, lead: Expansion) -> bool {
        let at = lead.candidate as usize;
        let is_evaluated = || self.offered.is_evaluated(at, self.search.limits.strips);
        self.offered.set(at).len() > SHORT && !matches!(lead.seen, Seen::Variant(_)) && !is_evaluated()
    }

    /// The least that a phase of a variant scores.
    fn least_score(&self, candidate: &Candidate, variant: &Variant) -> u128 {
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let cycles = variant.n_phases() * (phase_cycles + variant.cycles);
        let cycles = cycles.saturating_add_signed(variant.correction.get().min(0));
        let moved = variant.private.load.bytes + variant.private.store.bytes;
        self.search.weights.score(cycles, candidate.table_bytes + moved)
    }
}

#[cfg(test)]
mod tests {
    use strata_backend::model::Objective;
    use strata_backend::model::samples::{mobilenetv2, resnet50, unet, yolov3};
    use strata_isa_spec::Target;

    use super::*;
    use crate::fuse::PlanOptions;
    use crate::fuse::candidates::candidate::Context;
    use crate::fuse::candidates::pool::WithStrips;
    use crate::fuse::egraph::{Offer, offer};

    #[test]
    fn looking_ahead_changes_no_choice() {
        let sizes = ["256KiB", "1MiB", "4MiB"];
        for graph in [yolov3(416, 416), resnet50(224, 224), mobilenetv2(224, 224), unet(256, 256)] {
            for (preset, activation) in sizes.map(|size| ("x1", size)).into_iter().chain([("tile", "512KiB")])
            {
                let sets = [("memory.activation".to_owned(), activation.to_owned())];
                let target = Target::preset(preset, &sets).expect("a preset");
                for (strips, objective) in
                    [(false, Objective::Latency), (true, Objective::Latency), (true, Objective::Traffic)]
                {
                    let chosen = [false, true].map(|is_hasty| {
                        let context = Context::new(&graph, &target).expect("it is a graph");
                        let sets = offer(&context, &Offer::default(), strips).sets;
                        let with_strips = if strips { WithStrips::Always } else { WithStrips::Never };
                        let mut offered = CandidatePool::new(context, sets, with_strips);
                        offered.is_hasty = is_hasty;
                        let limits = PlanOptions { strips, ..PlanOptions::default() }.limits().narrow();
                        let weights = ScoreWeights::of(objective, &target, (0.0, 0.0));
                        let bounds = SearchBounds {
                            capacity: target.memory.activation,
                            most: u128::MAX,
                            work: usize::MAX,
                        };
                        choose(&offered, &[], weights, bounds, limits).map(|choice| format!("{choice:?}"))
                    });
                    let [ahead, hasty] = chosen;
                    assert_eq!(ahead, hasty, "{activation}, {objective:?}, strips {strips}");
                }
            }
        }
    }
}
