//! The analysis of the e-graph: the stages of a class, and what a group of them takes at the least.

use std::collections::{BTreeSet, HashMap};

use cranelift_entity::PrimaryMap;
use egg::{Analysis, DidMerge, EGraph, Id};
use strata_backend::cost::align;
use strata_backend::model::graph::StageSet;
use strata_backend::model::{BufferId, StageId};

use crate::fuse::candidates::candidate::Context;
use crate::fuse::egraph::terms::{Offer, Run};
use crate::fuse::strips::evaluate::MOST_STRIPS;

/// What decides whether stages may be a group, without borrowing the problem: rules must own their data.
#[derive(Debug)]
pub(super) struct Groups {
    longest: usize,
    weight: u64,
    activation: u64,
    weights: PrimaryMap<StageId, u64>,
    /// For each stage, the buffers that it touches with the bytes of the rows that it holds at once.
    rows: PrimaryMap<StageId, Vec<(BufferId, u64)>>,
    /// For each stage, whether it may be run in strips: rows of a set of such stages can be as much narrower
    /// as strips are many.
    in_strips: PrimaryMap<StageId, bool>,
    /// The sets of leaves, by number.
    leaves: Vec<StageSet>,
    /// The class of each set. Never iterated.
    classes: HashMap<StageSet, Id>,
    /// Groups that were fused.
    made: BTreeSet<StageSet>,
}

impl Groups {
    pub(super) fn new(context: &Context<'_>, options: &Offer, with_strips: bool) -> Self {
        let Context { graph, target, profiles, .. } = context;
        let rows = graph.stages.values().zip(profiles.values()).map(|(node, profile)| {
            let mut rows: Vec<(BufferId, u64)> = Vec::new();
            let mut hold = |buffer: BufferId, n: u32| {
                let row = align(target, graph.buffers[buffer].row_bytes());
                rows.push((buffer, u64::from(n.min(graph.buffers[buffer].rows)) * row));
            };
            for (view, n) in profile.actor(false).widest() {
                hold(view.tensor, n);
            }
            hold(node.code.out.tensor, 1);
            rows
        });
        Self {
            longest: options.longest.min(target.limits.stages as usize).min(graph.stages.len().max(1)),
            weight: target.memory.weight,
            activation: target.memory.activation,
            weights: profiles.values().map(|profile| profile.weight_bytes).collect(),
            rows: rows.collect(),
            in_strips: graph.stages.values().map(|node| with_strips && node.by_columns).collect(),
            leaves: Vec::new(),
            classes: HashMap::new(),
            made: BTreeSet::new(),
        }
    }

    /// Whether the e-graph has a class of a set.
    pub(super) fn has(&self, set: &StageSet) -> bool {
        self.classes.contains_key(set)
    }

    /// The class of a set, as a leaf if there was none.
    pub(super) fn leaf(egraph: &mut EGraph<Run, Self>, set: &StageSet) -> Id {
        if let Some(&class) = egraph.analysis.classes.get(set) {
            return class;
        }
        let number = egraph.analysis.leaves.len() as u32;
        egraph.analysis.leaves.push(set.clone());
        egraph.add(Run::Group(number))
    }

    /// The groups that were fused, in order; nothing stays of the e-graph.
    pub(super) fn take_made(&mut self) -> Vec<StageSet> {
        self.leaves.clear();
        self.classes.clear();
        std::mem::take(&mut self.made).into_iter().collect()
    }

    /// Whether the lower bounds of a set are within the target.
    pub(super) fn fits(&self, set: &StageSet) -> bool {
        if set.len() > self.longest {
            return false;
        }
        let weights: u64 = set.iter().map(|stage| self.weights[stage]).sum();
        let narrowing = if set.iter().all(|stage| self.in_strips[stage]) { MOST_STRIPS } else { 1 };
        weights <= self.weight && self.held_bytes(set) / u64::from(narrowing) <= self.activation
    }

    /// Bytes of the rows that the stages of a set hold at once, each buffer's counted where it is most.
    fn held_bytes(&self, set: &StageSet) -> u64 {
        let mut rows: Vec<(BufferId, u64)> =
            set.iter().flat_map(|stage| &self.rows[stage]).copied().collect();
        rows.sort_unstable();
        // Of each buffer the last is the most.
        let of_buffer = rows.chunk_by(|(a, _), (b, _)| a == b);
        of_buffer.filter_map(|rows| rows.last()).map(|(_, bytes)| bytes).sum()
    }
}

impl Analysis<Run> for Groups {
    type Data = StageSet;

    fn make(egraph: &mut EGraph<Run, Self>, term: &Run, _: Id) -> StageSet {
        match *term {
            Run::Group(number) => egraph.analysis.leaves[number as usize].clone(),
            Run::Feeds([a, b]) | Run::Shares([a, b]) | Run::Then([a, b]) => {
                egraph[a].data.union(&egraph[b].data)
            }
            Run::Fuse([a, b]) => {
                let set = egraph[a].data.union(&egraph[b].data);
                egraph.analysis.made.insert(set.clone());
                set
            }
        }
    }

    fn merge(&mut self, a: &mut StageSet, b: StageSet) -> DidMerge {
        debug_assert_eq!(*a, b, "a class is a set of stages");
        DidMerge(false, false)
    }

    /// What runs the same stages is the same.
    fn modify(egraph: &mut EGraph<Run, Self>, id: Id) {
        let set = egraph[id].data.clone();
        let class = *egraph.analysis.classes.entry(set).or_insert(id);
        if egraph.find(class) != egraph.find(id) {
            egraph.union(class, id);
        }
    }
}
