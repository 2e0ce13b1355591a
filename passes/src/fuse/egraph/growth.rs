//! Which terms the e-graph is given: every group that goes on growing, with its neighbours on the data flow.

use std::collections::BTreeMap;

use cranelift_entity::PrimaryMap;
use egg::{EGraph, Id};
use strata_backend::model::StageId;
use strata_backend::model::graph::{StageSet, Topology};

use crate::fuse::candidates::candidate::Context;
use crate::fuse::egraph::groups::Groups;
use crate::fuse::egraph::terms::{Offer, Offered, Run};

/// Neighbours of one kind that a group is tried with, at most: the nearest.
const NEIGHBOURS: usize = 8;

/// Which groups grow and are offered.
pub(super) struct Growth<'a> {
    context: &'a Context<'a>,
    options: &'a Offer,
    /// How many stages stand before each on the longest path to it.
    depths: PrimaryMap<StageId, u32>,
    /// Groups of as many stages that begin at one stage, at most, but for those in sequence.
    alike: usize,
    /// Nodes that all e-graphs had.
    nodes: usize,
    offered: Offered,
}

impl<'a> Growth<'a> {
    pub(super) fn new(context: &'a Context<'a>, options: &'a Offer) -> Self {
        let n_stages = context.graph.stages.len();
        let mut depths: PrimaryMap<StageId, u32> = PrimaryMap::with_capacity(n_stages);
        for preds in context.topology.preds.values() {
            depths.push(preds.iter().map(|pred| depths[pred] + 1).max().unwrap_or(0));
        }
        // If sequences of all lengths begin at each stage, there is room for so many groups of each length.
        let at_each = options.groups / (options.longest * n_stages).max(1);
        let alike = options.alike.min(at_each.saturating_sub(usize::from(options.sequence)));
        let offered = Offered { sets: Vec::new(), is_limited: alike < options.alike };
        Self { context, options, depths, alike, nodes: 0, offered }
    }

    /// Offers of some groups of as many stages those that are kept, and adds the terms of these with their
    /// neighbours; the classes of the terms.
    pub(super) fn terms(&mut self, groups: Vec<StageSet>, egraph: &mut EGraph<Run, Groups>) -> Vec<Id> {
        let kept = self.kept(groups);
        let mut terms = Vec::new();
        for set in &kept {
            if self.nodes + egraph.total_size() >= self.options.nodes {
                self.offered.is_limited = true;
                break;
            }
            self.add_terms(egraph, set, &mut terms);
        }
        self.nodes += egraph.total_size();
        self.offered.sets.extend(kept);
        terms
    }

    /// The groups in order.
    pub(super) fn offered(mut self) -> Offered {
        self.offered.sets.sort_unstable();
        self.offered
    }

    /// Of some groups of as many stages, of those that begin at each stage, the ones in sequence, and of the
    /// others the ones with the least bytes at their borders.
    fn kept(&mut self, groups: Vec<StageSet>) -> Vec<StageSet> {
        let mut by_first: BTreeMap<(u32, StageId), Vec<StageSet>> = BTreeMap::new();
        for set in groups {
            let first = set.iter().map(|stage| (self.depths[stage], stage)).min();
            by_first.entry(first.expect("a group has stages")).or_default().push(set);
        }
        let mut kept = Vec::new();
        for alike in by_first.into_values() {
            let is_sequence = |set: &StageSet| self.options.sequence && next_in_sequence(set).is_some();
            let (sequences, mut alike): (Vec<_>, Vec<_>) = alike.into_iter().partition(is_sequence);
            kept.extend(sequences);
            if alike.len() > self.alike {
                self.offered.is_limited = true;
                alike.sort_by_cached_key(|set| self.border_bytes(set));
                alike.truncate(self.alike);
            }
            kept.append(&mut alike);
        }
        kept
    }

    /// Bytes of all tensors that a group has to do with, but for those that it alone has.
    fn border_bytes(&self, set: &StageSet) -> u64 {
        let Context { graph, topology, .. } = self.context;
        let touched = topology.touched(set).into_iter();
        let crossing = touched.filter(|&buffer| !topology.is_private(graph, set, buffer));
        crossing.map(|buffer| self.context.whole_bytes(buffer)).sum()
    }

    /// Adds the terms of a group with its neighbours that make sets which are new; their classes.
    fn add_terms(&self, egraph: &mut EGraph<Run, Groups>, set: &StageSet, terms: &mut Vec<Id>) {
        let group = Groups::leaf(egraph, set);
        let mut add = |stage: StageId, term: &dyn Fn(Id) -> Run| {
            let alone = StageSet::of(stage);
            if !egraph.analysis.has(&set.union(&alone)) {
                let alone = Groups::leaf(egraph, &alone);
                terms.push(egraph.add(term(alone)));
            }
        };
        if self.options.sequence
            && let Some(next) = next_in_sequence(set).filter(|&next| self.depths.is_valid(next))
        {
            add(next, &|next| Run::Then([group, next]));
        }
        if self.alike == 0 {
            return;
        }
        let around = Around::new(&self.context.topology, set);
        if self.options.producer_consumer {
            for stage in self.nearest(set, around.consumers()) {
                add(stage, &|consumer| Run::Feeds([group, consumer]));
            }
            for stage in self.nearest(set, around.producers()) {
                add(stage, &|producer| Run::Feeds([producer, group]));
            }
        }
        if self.options.sibling {
            for stage in self.nearest(set, around.siblings()) {
                add(stage, &|sibling| Run::Shares([group, sibling]));
            }
        }
    }

    /// Those of some stages that stand nearest to a group, at most [`NEIGHBOURS`].
    fn nearest(&self, group: &StageSet, stages: StageSet) -> Vec<StageId> {
        let depths = || group.iter().map(|stage| self.depths[stage]);
        let (first, last) = (depths().min().unwrap_or(0), depths().max().unwrap_or(0));
        let distance = |stage: StageId| {
            let depth = self.depths[stage];
            first.saturating_sub(depth).max(depth.saturating_sub(last))
        };
        let mut nearest: Vec<StageId> = stages.iter().collect();
        nearest.sort_by_key(|&stage| (distance(stage), stage));
        nearest.truncate(NEIGHBOURS);
        nearest
    }
}

/// What stands around a group on the data flow.
struct Around<'a> {
    topology: &'a Topology,
    set: &'a StageSet,
    /// All that some stages of the group depend on.
    above: StageSet,
    /// All that depend on some of them.
    below: StageSet,
}

impl<'a> Around<'a> {
    fn new(topology: &'a Topology, set: &'a StageSet) -> Self {
        let (above, below) = (beside(set, &topology.ancestors), beside(set, &topology.descendants));
        Self { topology, set, above, below }
    }

    /// Stages that read from the group, with nothing between.
    fn consumers(&self) -> StageSet {
        let readers = beside(self.set, &self.topology.succs);
        let is_next = |stage: &StageId| !self.topology.preds[*stage].without(self.set).meets(&self.below);
        readers.iter().filter(is_next).collect()
    }

    /// Stages that the group reads from, with nothing between.
    fn producers(&self) -> StageSet {
        let writers = self.topology.needs(self.set);
        let is_next = |stage: &StageId| !self.topology.succs[*stage].without(self.set).meets(&self.above);
        writers.iter().filter(is_next).collect()
    }

    /// Stages that read what the group does, of which neither needs the other.
    fn siblings(&self) -> StageSet {
        let writers = self.topology.needs(self.set);
        let readers = beside(&writers, &self.topology.succs).without(self.set);
        readers.without(&self.above).without(&self.below)
    }
}

/// What a map tells of the stages of a set, without these.
fn beside(set: &StageSet, map: &PrimaryMap<StageId, StageSet>) -> StageSet {
    let mut beside = StageSet::default();
    for stage in set.iter() {
        beside.extend(&map[stage]);
    }
    beside.without(set)
}

/// The stage after those of a set that are next to one another in the order of the graph; `None` of others.
fn next_in_sequence(set: &StageSet) -> Option<StageId> {
    let (first, last) = (set.iter().next()?.as_u32(), set.iter().last()?.as_u32());
    (last - first + 1 == set.len() as u32).then(|| StageId::from_u32(last + 1))
}
