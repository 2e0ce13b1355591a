//! The offer: an e-graph whose group tier finds the sets of stages that may form a phase.
//!
//! A term is an order of phases: `(then GROUP REST)` runs a group, then the rest; `end` runs nothing. `GROUP`
//! is one leaf whose payload is an interned canonical set of stages, so that however a set came about it is
//! one node, and the e-class of a rest is shared by all that leads to it. Associativity never arises; a chain
//! of `n` stages saturates at `n * n / 2` groups.
//!
//! | family | rewrite |
//! |---|---|
//! | wrap | each stage alone is a group: the term that the e-graph starts from |
//! | merge | `(then A (then B rest))` = `(then AB rest)` |
//! | sibling | `(then A (then B (then C rest)))` = `(then AC (then B rest))`, `C` not reading from `B` |
//! | diamond | a group that ends in a fork takes all up to the join at once, as nothing between need fit |
//!
//! A group is made only if it is convex and if lower bounds that never fall as a group grows are within the
//! target: tables in weight SRAM, the rows that each reader holds at once in activation SRAM, stages. Whether
//! a group fits exactly is for [`Candidate`](crate::fuse::candidates::candidate::Candidate) to find. The
//! e-graph offers; it never chooses: its extractor sees no sharing.
//!
//! Limits count nodes and iterations, never time; groups come out in the order of their sets.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cranelift_entity::PrimaryMap;
use egg::{
    Applier, EGraph, Id, PatternAst, Rewrite, RewriteScheduler, Runner, SearchMatches, Searcher, StopReason,
    Subst, Symbol, Var, define_language,
};
use serde::{Deserialize, Serialize};
use strata_backend::cost::align;
use strata_backend::model::graph::StageSet;
use strata_backend::model::{BufferId, StageId};

use crate::fuse::candidates::candidate::Context;
use crate::fuse::strips::evaluate::MOST_STRIPS;

define_language! {
    /// Orders of phases.
    enum Order {
        "then" = Then([Id; 2]),
        "end" = End,
        Group(u32),
    }
}

/// Which families of rewrites are on, and limits of the e-graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Merge neighbours.
    pub merge: bool,
    /// Take in a stage that runs later beside one that runs between.
    pub sibling: bool,
    /// Take in everything from a fork to its join.
    pub diamond: bool,
    /// Nodes, at most.
    pub nodes: usize,
    /// Iterations, at most.
    pub iterations: usize,
    /// Stages of a group, at most.
    pub longest: usize,
}

impl Default for Offer {
    fn default() -> Self {
        Self { merge: true, sibling: false, diamond: true, nodes: 100_000, iterations: 256, longest: 64 }
    }
}

/// What the e-graph offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Groups, each once, in order.
    pub sets: Vec<StageSet>,
    /// Whether a limit of the e-graph was reached, so that there may be more.
    pub is_limited: bool,
}

/// The groups that the e-graph offers.
///
/// `with_strips` lets sets in that fit only in strips.
pub fn offer(context: &Context<'_>, options: &Offer, with_strips: bool) -> Offered {
    let limits = Arc::new(Limits::new(context, options, with_strips));
    let mut egraph: EGraph<Order, ()> = EGraph::default();
    let mut rest = egraph.add(Order::End);
    for stage in context.graph.stages.keys().rev() {
        let group = limits.intern(StageSet::of(stage));
        let group = egraph.add(Order::Group(group));
        rest = egraph.add(Order::Then([group, rest]));
    }
    let mut rules: Vec<Rewrite<Order, ()>> = Vec::new();
    let variables = Variables::new();
    let applier = |family: Family| Grow { limits: Arc::clone(&limits), variables, family };
    let fresh =
        |family: Family| Fresh { limits: Arc::clone(&limits), variables, family, by_one: !options.sibling };
    if options.merge {
        rules.extend(Rewrite::new("merge", fresh(Family::Merge), applier(Family::Merge)));
    }
    if options.sibling
        && let Ok(searcher) = "(then ?a (then ?b (then ?c ?rest)))".parse::<egg::Pattern<Order>>()
    {
        rules.extend(Rewrite::new("sibling", searcher, applier(Family::Sibling)));
    }
    if options.diamond {
        rules.extend(Rewrite::new("diamond", fresh(Family::Diamond), applier(Family::Diamond)));
    }
    let runner = Runner::<Order, ()>::default()
        .with_egraph(egraph)
        .with_scheduler(FewMatches { limits: Arc::clone(&limits) })
        .with_node_limit(options.nodes)
        .with_iter_limit(options.iterations)
        .with_time_limit(Duration::from_secs(1 << 32))
        .run(&rules);
    let Interner { ref sets, is_limited, .. } = *limits.lock();
    let mut sets = sets.clone();
    sets.sort_unstable();
    let is_saturated = matches!(runner.stop_reason, Some(StopReason::Saturated));
    Offered { sets, is_limited: is_limited || !is_saturated }
}

/// Finds no more matches of a family in one iteration than the e-graph may have nodes: each takes memory, and
/// of most comes a node. The others are found in the next, if there is room then.
struct FewMatches {
    limits: Arc<Limits>,
}

impl RewriteScheduler<Order, ()> for FewMatches {
    fn search_rewrite<'a>(
        &mut self,
        _: usize,
        egraph: &EGraph<Order, ()>,
        rewrite: &'a Rewrite<Order, ()>,
    ) -> Vec<SearchMatches<'a, Order>> {
        let found = rewrite.search_with_limit(egraph, self.limits.nodes);
        if found.iter().map(|matches| matches.substs.len()).sum::<usize>() >= self.limits.nodes {
            self.limits.lock().is_limited = true;
        }
        found
    }
}

/// The runner looks at its limit of nodes when all matches of a family were applied. Those of one iteration
/// may take the e-graph to so many times the limit.
const OVERSHOOT: usize = 2;

#[derive(Default)]
struct Interner {
    sets: Vec<StageSet>,
    numbers: BTreeMap<StageSet, u32>,
    /// Matches that need not be looked at again. Never iterated.
    settled: HashSet<Match>,
    /// Whether matches were left out.
    is_limited: bool,
    /// Bytes of rows by buffer; zero but while a set is looked at.
    held: PrimaryMap<BufferId, u64>,
}

/// What decides whether a group may be made, without borrowing the problem: rules must own their data.
struct Limits {
    nodes: usize,
    longest: usize,
    weight: u64,
    activation: u64,
    weights: PrimaryMap<StageId, u64>,
    /// For each stage, the buffers that it touches with the bytes of the rows that it holds at once.
    rows: PrimaryMap<StageId, Vec<(BufferId, u64)>>,
    /// For each stage, whether it may be run in strips: rows of a set of such stages can be as much narrower
    /// as strips are many.
    in_strips: PrimaryMap<StageId, bool>,
    preds: PrimaryMap<StageId, StageSet>,
    ancestors: PrimaryMap<StageId, StageSet>,
    descendants: PrimaryMap<StageId, StageSet>,
    /// For each stage that forks, all stages after it up to the join.
    diamonds: PrimaryMap<StageId, Option<StageSet>>,
    interner: Mutex<Interner>,
}

impl Limits {
    fn new(context: &Context<'_>, options: &Offer, with_strips: bool) -> Self {
        let Context { graph, target, topology, profiles, .. } = context;
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
        let n = graph.stages.len();
        let diamonds = graph.stages.keys().map(|fork| {
            let succs = &topology.succs[fork];
            (succs.len() > 1).then_some(()).and_then(|()| {
                let below = &topology.descendants[fork];
                below.iter().find_map(|join| {
                    let mut inside = StageSet::of(join);
                    let above = &topology.ancestors[join];
                    for stage in below.iter().filter(|stage| above.contains(*stage)) {
                        inside.insert(stage);
                    }
                    let closed = |stage: StageId| topology.succs[stage].is_subset(&inside);
                    let all = succs.is_subset(&inside) && inside.iter().all(|s| s == join || closed(s));
                    (all && inside.len() > 1).then_some(inside)
                })
            })
        });
        let diamonds = diamonds.collect();
        Self {
            nodes: options.nodes,
            longest: options.longest.min(target.limits.stages as usize).min(n.max(1)),
            weight: target.memory.weight,
            activation: target.memory.activation,
            weights: profiles.values().map(|profile| profile.weight_bytes).collect(),
            rows: rows.collect(),
            in_strips: graph.stages.values().map(|node| with_strips && node.by_columns).collect(),
            preds: topology.preds.clone(),
            ancestors: topology.ancestors.clone(),
            descendants: topology.descendants.clone(),
            diamonds,
            interner: Mutex::new(Interner {
                held: graph.buffers.keys().map(|_| 0).collect(),
                ..Interner::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Interner> {
        self.interner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn intern(&self, set: StageSet) -> u32 {
        let mut interner = self.lock();
        if let Some(&number) = interner.numbers.get(&set) {
            return number;
        }
        let number = interner.sets.len() as u32;
        interner.sets.push(set.clone());
        interner.numbers.insert(set, number);
        number
    }

    fn set(&self, number: u32) -> StageSet {
        self.lock().sets.get(number as usize).cloned().unwrap_or_default()
    }

    /// Whether the lower bounds of a set are within the target, and it is convex.
    fn admits(&self, set: &StageSet) -> bool {
        if set.len() > self.longest {
            return false;
        }
        let weights: u64 = set.iter().map(|stage| self.weights[stage]).sum();
        if weights > self.weight {
            return false;
        }
        let narrowing = if set.iter().all(|s| self.in_strips[s]) { MOST_STRIPS } else { 1 };
        if self.held_bytes(set) / u64::from(narrowing) > self.activation {
            return false;
        }
        let (mut above, mut below) = (StageSet::default(), StageSet::default());
        for stage in set.iter() {
            above.extend(&self.ancestors[stage]);
            below.extend(&self.descendants[stage]);
        }
        !above.without(set).meets(&below.without(set))
    }

    /// Bytes of the rows that the stages of a set hold at once, each buffer's counted where it is most.
    fn held_bytes(&self, set: &StageSet) -> u64 {
        let held = &mut self.lock().held;
        let rows = || set.iter().flat_map(|stage| &self.rows[stage]);
        let mut total = 0;
        for &(buffer, bytes) in rows() {
            let most = &mut held[buffer];
            total += bytes.saturating_sub(*most);
            *most = bytes.max(*most);
        }
        for (buffer, _) in rows() {
            held[*buffer] = 0;
        }
        total
    }

    /// The group of a set, if it may be made.
    fn group(&self, set: StageSet) -> Option<u32> {
        if let Some(&number) = self.lock().numbers.get(&set) {
            return Some(number);
        }
        self.admits(&set).then(|| self.intern(set))
    }

    fn is_single(&self, number: u32) -> bool {
        self.lock().sets.get(number as usize).is_some_and(|set| set.len() == 1)
    }

    fn is_settled(&self, found: &Match) -> bool {
        self.lock().settled.contains(found)
    }

    fn reads_from(&self, later: &StageSet, earlier: &StageSet) -> bool {
        later.iter().any(|stage| self.preds[stage].meets(earlier))
    }
}

/// Where a family's rewrite applies: groups that stand in a row, by number, and the class of what comes after
/// them.
type Match = (Family, u32, Option<u32>, Id);

/// The number of the group that a class stands for.
fn number(egraph: &EGraph<Order, ()>, class: Id) -> Option<u32> {
    egraph[class].nodes.iter().find_map(|node| match node {
        Order::Group(number) => Some(*number),
        _ => None,
    })
}

/// The groups with which the orders of a class begin, each with the class of the rest.
fn beginnings(egraph: &EGraph<Order, ()>, class: Id) -> impl Iterator<Item = (Id, u32, Id)> + '_ {
    egraph[class].nodes.iter().filter_map(move |node| match *node {
        Order::Then([group, rest]) => Some((group, number(egraph, group)?, egraph.find(rest))),
        _ => None,
    })
}

/// Finds where merging or a diamond applies, in places that are not settled: patterns would find all places
/// in every iteration.
struct Fresh {
    limits: Arc<Limits>,
    variables: Variables,
    family: Family,
    /// Whether groups are merged with single stages only. What can be made of longer neighbours is made of
    /// their stages one by one, as long as the e-graph holds these in a row.
    by_one: bool,
}

impl Searcher<Order, ()> for Fresh {
    fn search_eclass_with_limit(
        &self,
        egraph: &EGraph<Order, ()>,
        eclass: Id,
        limit: usize,
    ) -> Option<SearchMatches<'_, Order>> {
        let mut substs = Vec::new();
        let mut add = |found: Match, classes: &[(Var, Id)]| {
            if substs.len() < limit && !self.limits.is_settled(&found) {
                let mut subst = Subst::with_capacity(classes.len());
                for &(variable, class) in classes {
                    subst.insert(variable, class);
                }
                substs.push(subst);
            }
        };
        let variables = self.variables;
        for (a, first, next) in beginnings(egraph, eclass) {
            if let Family::Diamond = self.family {
                add((self.family, first, None, next), &[(variables.a, a), (variables.rest, next)]);
                continue;
            }
            // If only single stages are merged, the stages stand in one order, and there is one that comes
            // next.
            if self.by_one && self.limits.is_settled(&(self.family, first, None, next)) {
                continue;
            }
            for (b, second, rest) in beginnings(egraph, next) {
                if !self.by_one || self.limits.is_single(second) {
                    let found = (self.family, first, Some(second), rest);
                    add(found, &[(variables.a, a), (variables.b, b), (variables.rest, rest)]);
                }
            }
        }
        (!substs.is_empty()).then_some(SearchMatches { eclass, substs, ast: None })
    }

    fn vars(&self) -> Vec<Var> {
        self.variables.of(self.family)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    Merge,
    Sibling,
    Diamond,
}

/// Makes the larger group of a family's rewrite.
struct Grow {
    limits: Arc<Limits>,
    variables: Variables,
    family: Family,
}

/// The variables of matches.
#[derive(Clone, Copy)]
struct Variables {
    a: Var,
    b: Var,
    c: Var,
    rest: Var,
}

impl Variables {
    fn new() -> Self {
        let variable = |name: &str| name.parse().expect("a question mark and a name is a variable");
        Self { a: variable("?a"), b: variable("?b"), c: variable("?c"), rest: variable("?rest") }
    }

    fn of(self, family: Family) -> Vec<Var> {
        let Self { a, b, c, rest } = self;
        match family {
            Family::Merge => vec![a, b, rest],
            Family::Sibling => vec![a, b, c, rest],
            Family::Diamond => vec![a, rest],
        }
    }
}

impl Grow {
    /// The rest after running `wanted` one stage at a time, if the e-graph holds that order.
    fn after(&self, egraph: &EGraph<Order, ()>, mut rest: Id, mut wanted: StageSet) -> Option<Id> {
        while !wanted.is_empty() {
            let next = egraph[rest].nodes.iter().find_map(|node| {
                let Order::Then([group, after]) = *node else { return None };
                let set = self.limits.set(number(egraph, group)?);
                (set.len() == 1 && set.is_subset(&wanted)).then_some((set, after))
            });
            let (set, after) = next?;
            wanted = wanted.without(&set);
            rest = after;
        }
        Some(rest)
    }

    fn grown(&self, egraph: &mut EGraph<Order, ()>, subst: &Subst) -> Option<Id> {
        let class = |variable: Var| subst.get(variable).copied();
        let (a, rest) = (class(self.variables.a)?, class(self.variables.rest)?);
        let first = number(egraph, a)?;
        let last = egraph.find(rest);
        let settle = |second: Option<u32>| {
            self.limits.lock().settled.insert((self.family, first, second, last));
        };
        let set = self.limits.set(first);
        let (group, rest) = match self.family {
            Family::Merge => {
                let second = number(egraph, class(self.variables.b)?)?;
                settle(Some(second));
                let next = egraph.add(Order::Then([class(self.variables.b)?, rest]));
                self.limits.lock().settled.insert((self.family, first, None, egraph.find(next)));
                (self.limits.group(set.union(&self.limits.set(second)))?, rest)
            }
            Family::Sibling => {
                let b = class(self.variables.b)?;
                let second = self.limits.set(number(egraph, b)?);
                let third = self.limits.set(number(egraph, class(self.variables.c)?)?);
                // Only single stages move past others; larger groups come of merging. It keeps orders few.
                if third.len() > 1 || self.limits.reads_from(&third, &second) {
                    return None;
                }
                (self.limits.group(set.union(&third))?, egraph.add(Order::Then([b, rest])))
            }
            Family::Diamond => {
                let last = set.iter().last()?;
                let diamond = self.limits.diamonds[last].as_ref();
                let Some(diamond) = diamond.map(|diamond| diamond.without(&set)) else {
                    settle(None);
                    return None;
                };
                let Some(group) = self.limits.group(set.union(&diamond)) else {
                    settle(None);
                    return None;
                };
                // Stages that do not follow yet may do so later.
                let after = self.after(egraph, rest, diamond)?;
                settle(None);
                (group, after)
            }
        };
        let group = egraph.add(Order::Group(group));
        Some(egraph.add(Order::Then([group, rest])))
    }
}

impl Applier<Order, ()> for Grow {
    fn apply_one(
        &self,
        egraph: &mut EGraph<Order, ()>,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Order>>,
        name: Symbol,
    ) -> Vec<Id> {
        if egraph.total_size() >= OVERSHOOT * self.limits.nodes {
            self.limits.lock().is_limited = true;
            return Vec::new();
        }
        let Some(grown) = self.grown(egraph, subst) else { return Vec::new() };
        if egraph.union_trusted(class, grown, name) { vec![class] } else { Vec::new() }
    }

    fn vars(&self) -> Vec<Var> {
        self.variables.of(self.family)
    }
}
