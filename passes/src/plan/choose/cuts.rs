//! The walk over cuts, from nothing run to everything run.
//!
//! A cut that is come to tells those behind it no more than that they can be reached from it by a column, and at what cost at the
//! least. When a cut's turn comes, it makes labels of what leads to it, the most promising first, until none that is left can be
//! among those that it keeps. So of the many columns that lead to a cut few are looked at closely where labels are few, and of the
//! many cuts of one size those that cannot be among the best are not looked at.
//!
//! The bounds are of the column alone, and are made tighter as its turn comes: its work on the whole array, then its slowest stage as
//! the array is divided, at last its pipeline.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Choice, Forbidden, Full, Label, Places, Search, SearchLimits, States, Stuck};
use crate::plan::columns::{Column, Variant};
use crate::plan::cost::Weights;
use crate::plan::graph::StageSet;
use crate::plan::offered::{Least, Offered};

/// The order of phases that scores least over the columns; `capacity` bytes of activation SRAM. What is sure to score more than
/// `most` is not followed.
///
/// # Errors
/// If no order of the columns that was followed runs every stage.
pub fn choose(
    offered: &Offered<'_>,
    forbidden: &[Forbidden],
    weights: Weights,
    (capacity, most): (u64, u128),
    limits: SearchLimits,
) -> Result<Choice, Stuck> {
    let context = offered.context();
    let all: StageSet = context.graph.stages.keys().collect();
    let mut search = Search::new(context, weights, capacity, limits);
    search.labels.push(Label::start());
    let mut walk = Walk { offered, forbidden, search, most, visited: Vec::new() };
    let mut open = Open::new();
    let mut cuts = vec![Cut { done: StageSet::default(), states: States::from([(Places::new(), vec![0])]) }];
    let mut reached = StageSet::default();
    loop {
        for cut in cuts {
            if cut.done == all {
                // What was not followed is sure to score more, but for what strips save of it.
                let is_sure = !(walk.search.gave_up && limits.strips && offered.has_strips());
                walk.search.proven &= is_sure;
                return Ok(walk.search.answer(walk.best(&cut)));
            }
            reached.clone_from(&cut.done);
            walk.visit(cut, &mut open);
        }
        let Some((_, behind)) = open.pop_first() else { return Err(Stuck { reached }) };
        cuts = walk.best_cuts(behind);
    }
}

/// Of cuts of one number of stages, so many times as many are labelled as are followed.
const LABELLED: usize = 2;

/// Cuts that were heard of but not come to, by their number of stages, with what leads to them.
type Open = BTreeMap<usize, BTreeMap<StageSet, Vec<Lead>>>;

/// A way to come to a cut. The one that may score least is least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lead {
    /// No label that it makes scores less.
    bound: u128,
    /// The cut that it comes from, by number.
    from: usize,
    /// The column that is run.
    column: usize,
    seen: Seen,
}

/// How closely a column was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Its work was summed up.
    Work,
    /// The array was divided among its stages.
    Pace,
    /// One of its variants was evaluated.
    Variant(usize),
}

/// A cut with its labels.
struct Cut {
    done: StageSet,
    states: States,
}

/// Leads, the most promising first.
type Leads = BinaryHeap<Reverse<Lead>>;

/// A cut that was not come to yet.
struct Behind {
    done: StageSet,
    leads: Leads,
}

impl Behind {
    fn new(done: StageSet, leads: Vec<Lead>) -> Self {
        Self { done, leads: leads.into_iter().map(Reverse).collect() }
    }

    /// No label of it scores less.
    fn bound(&self) -> u128 {
        self.leads.peek().map_or(0, |lead| lead.0.bound)
    }
}

struct Walk<'a> {
    offered: &'a Offered<'a>,
    forbidden: &'a [Forbidden],
    search: Search<'a>,
    /// No answer that is looked for scores more.
    most: u128,
    /// Cuts that were come to.
    visited: Vec<Cut>,
}

impl Walk<'_> {
    /// The label of a cut that scores least.
    fn best(&self, cut: &Cut) -> usize {
        let best = cut.states.values().flatten().copied().min_by_key(|&l| (self.search.labels[l].score, l));
        best.expect("a cut that is come to has a label")
    }

    fn best_score(&self, cut: &Cut) -> u128 {
        self.search.labels[self.best(cut)].score
    }

    /// Tells the cuts behind a cut how they can be come to.
    fn visit(&mut self, cut: Cut, open: &mut Open) {
        let score = self.best_score(&cut);
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let left = self.offered.least_after(&cut.done);
        for column in self.offered.next(&cut.done) {
            let cycles = phase_cycles + self.offered.least_cycles(column);
            let bound = score + self.search.weights.score(cycles, 0);
            let least = self.offered.least(column);
            if bound + self.least_bytes(least) > self.room(left.without(least)) {
                self.search.gave_up = true;
                continue;
            }
            let after = cut.done.union(self.offered.set(column));
            let leads = open.entry(after.len()).or_default().entry(after).or_default();
            leads.push(Lead { bound, from: self.visited.len(), column, seen: Seen::Work });
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

    /// What the least bytes of stages score.
    fn least_bytes(&self, least: Least) -> u128 {
        self.search.weights.score(0, least.bytes)
    }

    /// The best cuts of those of one number of stages, in order: by what their labels score, and the least that what is left to run
    /// scores, since one stage is not like another. The first of them in order, which leaves out no stage that stands before one
    /// it has, is among them: groups of neighbours can always go on from there.
    fn best_cuts(&mut self, cuts: BTreeMap<StageSet, Vec<Lead>>) -> Vec<Cut> {
        let mut cuts: Vec<Behind> = cuts.into_iter().map(|(done, leads)| Behind::new(done, leads)).collect();
        let left = |done: &StageSet| {
            let cycles = self.offered.cycles(self.offered.least_after(done));
            self.search.weights.score(cycles, 0)
        };
        let left: Vec<u128> = cuts.iter().map(|cut| left(&cut.done)).collect();
        let rank = |cut: usize, bound: u128| if cut == 0 { 0 } else { bound + left[cut] };
        let ranks = cuts.iter().enumerate().map(|(at, cut)| Reverse((rank(at, cut.bound()), at)));
        let mut ranks: BinaryHeap<Reverse<(u128, usize)>> = ranks.collect();
        let width = self.search.widths().cuts;
        let mut best: BTreeMap<(u128, usize), States> = BTreeMap::new();
        let mut n_labelled = 0;
        while let Some(Reverse((bound, at))) = ranks.pop() {
            let worst = best.last_key_value().map(|((rank, _), _)| *rank);
            if best.len() >= width && (Some(bound) > worst || n_labelled >= LABELLED * width) {
                self.search.proven = false;
                break;
            }
            let tighter = rank(at, self.tightened(&mut cuts[at]));
            if tighter > bound {
                ranks.push(Reverse((tighter, at)));
                continue;
            }
            n_labelled += 1;
            let leads = std::mem::take(&mut cuts[at].leads);
            let cut = Cut { states: self.labelled(&cuts[at].done, leads), done: StageSet::default() };
            if cut.states.is_empty() {
                continue;
            }
            best.insert((rank(at, self.best_score(&cut)), at), cut.states);
            if best.len() > width {
                self.search.proven = false;
                best.pop_last();
            }
        }
        let mut best: Vec<(usize, States)> = best.into_iter().map(|((_, at), states)| (at, states)).collect();
        best.sort_unstable_by_key(|(at, _)| *at);
        best.into_iter().map(|(at, states)| Cut { done: cuts[at].done.clone(), states }).collect()
    }

    /// Looks at what leads to a cut until the bound of the most promising is as tight as it can be without evaluating it; the bound.
    fn tightened(&self, cut: &mut Behind) -> u128 {
        while let Some(Reverse(lead)) = cut.leads.peek().copied().filter(|lead| lead.0.seen == Seen::Work) {
            cut.leads.pop();
            cut.leads.push(Reverse(self.paced(lead)));
        }
        cut.bound()
    }

    /// A lead with the bound of its column's slowest stage.
    fn paced(&self, lead: Lead) -> Lead {
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let cycles = phase_cycles + self.offered.paced_cycles(lead.column);
        let bound = self.best_score(&self.visited[lead.from]) + self.search.weights.score(cycles, 0);
        Lead { bound: bound.max(lead.bound), seen: Seen::Pace, ..lead }
    }

    /// The labels of a cut that is come to in these ways.
    fn labelled(&mut self, done: &StageSet, mut leads: Leads) -> States {
        let offered = self.offered;
        let mut states = States::new();
        let (mut full, mut n_labels): (Option<Full>, usize) = (None, 0);
        let room = self.room(offered.least_after(done));
        while let Some(Reverse(lead)) = leads.pop() {
            if lead.bound > room {
                self.search.gave_up = true;
                break;
            }
            if full.is_some_and(|full| full.keeps_none(lead.bound)) {
                self.search.proven = false;
                break;
            }
            if lead.seen == Seen::Work {
                leads.push(Reverse(self.paced(lead)));
                continue;
            }
            if lead.seen == Seen::Pace && lead.bound + self.least_bytes(offered.least(lead.column)) > room {
                self.search.gave_up = true;
                continue;
            }
            let Some(column) = offered.column(lead.column) else { continue };
            let from = &self.visited[lead.from];
            let Seen::Variant(which) = lead.seen else {
                let score = self.best_score(from);
                for (which, variant) in column.variants.iter().enumerate() {
                    let is_out = !self.search.limits.strips && variant.strips.is_some();
                    if !is_out && !self.forbidden.contains(&(lead.column, which)) {
                        let bound = score + self.least_score(column, variant);
                        leads.push(Reverse(Lead { bound, seen: Seen::Variant(which), ..lead }));
                    }
                }
                continue;
            };
            let least = self.least_score(column, &column.variants[which]);
            self.search.work += 1;
            for (places, labels) in &from.states {
                let score = labels.iter().map(|&label| self.search.labels[label].score).min();
                let bound = score.unwrap_or(0) + least;
                if bound > room {
                    self.search.gave_up = true;
                    continue;
                }
                if full.is_some_and(|full| !full.may_keep(bound, self.search.least_bound_bytes(places, done)))
                {
                    self.search.proven = false;
                    continue;
                }
                let step = (lead.column, column, which);
                for found in self.search.extend(step, (places, labels), done, (full, room)) {
                    n_labels += self.search.keep_all(&mut states, found);
                }
                let width = self.search.widths().labels_per_cut;
                if n_labels > width + width / 2 {
                    full = self.search.limit(&mut states);
                    n_labels = states.values().map(Vec::len).sum();
                }
            }
        }
        self.search.limit(&mut states);
        states
    }

    /// The least that a phase of a variant scores.
    fn least_score(&self, column: &Column, variant: &Variant) -> u128 {
        let phase_cycles = u64::from(self.search.context.target.switch.phase_cycles);
        let cycles = variant.n_phases() * (phase_cycles + variant.cycles);
        let moved = variant.private.load.bytes + variant.private.store.bytes;
        self.search.weights.score(cycles, column.table_bytes + moved)
    }
}
