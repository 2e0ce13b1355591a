//! What the chooser chooses among: the sets that were offered, each evaluated when it is first asked for.
//!
//! A search that is limited never comes to most sets of a large graph, and sets of one
//! [`shape`](crate::fuse::candidates::shapes) are evaluated once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_backend::cost::StageProfile;
use strata_backend::model::graph::StageSet;
use strata_backend::model::{BufferRole, StageId};

use crate::fuse::candidates::candidate::{Candidate, Context};
use crate::fuse::candidates::interchangeable::interchangeable;
use crate::fuse::candidates::partition::divisions;
use crate::fuse::candidates::shapes::{Shape, Shapes};

/// Sets of stages, numbered, and the candidates that they are.
#[derive(Debug)]
pub struct CandidatePool<'a> {
    context: Context<'a>,
    strips: WithStrips,
    sets: Vec<Entry>,
    /// Sets by the first of their stages.
    by_first: SecondaryMap<StageId, Vec<usize>>,
    /// What each stage costs at the least, wherever it runs.
    least: PrimaryMap<StageId, Least>,
    shapes: Shapes,
    /// One set of each shape that was asked for.
    evaluated: RefCell<BTreeMap<Shape, Evaluated>>,
    has_strips: Cell<bool>,
}

/// Which sets are evaluated in strips too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithStrips {
    /// None.
    Never,
    /// Those that do not fit without.
    Needed,
    /// All.
    Always,
}

/// What some stages cost at the least, whatever phases they run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Least {
    /// Cycles that clusters work on them together, but for what strips save.
    pub work: u64,
    /// DRAM bytes: tables that no other stage has, and what they write of the network's outputs.
    pub bytes: u64,
}

impl Least {
    /// What one stage costs.
    fn of(context: &Context<'_>, stage: StageId) -> Self {
        let graph = context.graph;
        let node = &graph.stages[stage];
        let out = graph.buffers.get(node.code.out.tensor);
        let is_output = out.is_some_and(|buffer| matches!(buffer.role, BufferRole::Output(_)));
        let outputs = if is_output { graph.view_bytes(&node.code.out) } else { 0 };
        let tables = if node.table_set.is_none() { node.weight_bytes() } else { 0 };
        Self { work: context.profile(stage).least_work(), bytes: tables + outputs }
    }

    /// What these stages and others cost.
    fn and(self, other: Self) -> Self {
        Self { work: self.work + other.work, bytes: self.bytes + other.bytes }
    }

    /// What is left of these stages without some of them.
    pub fn without(self, some: Self) -> Self {
        Self { work: self.work - some.work, bytes: self.bytes - some.bytes }
    }
}

/// A set of the pool.
#[derive(Debug)]
struct Entry {
    set: StageSet,
    /// Stages that must have run before: those that the set reads from, and interchangeable that run no
    /// later.
    needs: Vec<StageId>,
    /// Stages that read from none of the set.
    sources: Vec<StageId>,
    least: Least,
    /// No phase of it takes fewer cycles on the array, but for what strips save.
    least_cycles: u64,
    paced_cycles: OnceCell<u64>,
    at_full_width: OnceCell<Option<Candidate>>,
    with_strips: OnceCell<Option<Candidate>>,
}

/// A candidate, if a set can be one: at full width, and with its strips once these were asked for.
#[derive(Debug)]
struct Evaluated {
    at_full_width: Option<Candidate>,
    with_strips: Option<Option<Candidate>>,
}

impl<'a> CandidatePool<'a> {
    /// Offers sets.
    pub fn new(context: Context<'a>, sets: Vec<StageSet>, strips: WithStrips) -> Self {
        let preds = &context.topology.preds;
        let mut by_first: SecondaryMap<StageId, Vec<usize>> = SecondaryMap::new();
        let least: PrimaryMap<StageId, Least> =
            context.graph.stages.keys().map(|stage| Least::of(&context, stage)).collect();
        let interchangeable = interchangeable(context.graph, &context.topology);
        let mut entries = Vec::with_capacity(sets.len());
        for set in sets {
            if let Some(first) = set.iter().next() {
                by_first[first].push(entries.len());
            }
            let is_source = |stage: &StageId| !preds[*stage].meets(&set);
            let mut needs = context.topology.needs(&set);
            needs.extend(&set.iter().filter_map(|stage| interchangeable[stage]).collect());
            let all = set.iter().map(|stage| least[stage]);
            let all = all.fold(Least::default(), Least::and);
            entries.push(Entry {
                needs: needs.without(&set).iter().collect(),
                sources: set.iter().filter(is_source).collect(),
                least_cycles: least_cycles(&context, all.work, &set),
                least: all,
                set,
                paced_cycles: OnceCell::new(),
                at_full_width: OnceCell::new(),
                with_strips: OnceCell::new(),
            });
        }
        let shapes = Shapes::new(context.graph, &context.topology);
        Self {
            context,
            strips,
            sets: entries,
            by_first,
            least,
            shapes,
            evaluated: RefCell::default(),
            has_strips: Cell::new(false),
        }
    }

    /// The problem.
    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    /// Numbers of sets, and the sets.
    pub fn sets(&self) -> impl Iterator<Item = (usize, &StageSet)> + '_ {
        self.sets.iter().enumerate().map(|(at, candidate)| (at, &candidate.set))
    }

    /// A set.
    pub fn set(&self, at: usize) -> &StageSet {
        &self.sets[at].set
    }

    /// No phase of a set takes fewer cycles on the array, but for what strips save.
    pub fn least_cycles(&self, at: usize) -> u64 {
        self.sets[at].least_cycles
    }

    /// As [`Self::least_cycles`], with the array divided among the stages as phases do.
    pub fn paced_cycles(&self, at: usize) -> u64 {
        let candidate = &self.sets[at];
        *candidate.paced_cycles.get_or_init(|| paced_cycles(&self.context, &candidate.set))
    }

    /// What the stages of a set cost at the least.
    pub fn least(&self, at: usize) -> Least {
        self.sets[at].least
    }

    /// What the stages outside of `done` cost at the least.
    pub fn least_after(&self, done: &StageSet) -> Least {
        let stages = self.context.graph.stages.keys().filter(|stage| !done.contains(*stage));
        stages.map(|stage| self.least[stage]).fold(Least::default(), Least::and)
    }

    /// The cycles of stages if the whole array does their work without a gap.
    pub fn cycles(&self, least: Least) -> u64 {
        least.work / u64::from(self.context.target.array.clusters.max(1))
    }

    /// The candidate of a set, with strips or without; `None` if it fits the target in no way.
    pub fn candidate(&self, at: usize, strips: bool) -> Option<&Candidate> {
        let Entry { set, at_full_width, with_strips, .. } = &self.sets[at];
        let full =
            at_full_width.get_or_init(|| self.evaluate(set, |evaluated| evaluated.at_full_width.clone()));
        let full = full.as_ref()?;
        let is_at_full_width = match self.strips {
            WithStrips::Never => true,
            WithStrips::Needed => full.fits(),
            WithStrips::Always => false,
        };
        let candidate = if is_at_full_width || !strips {
            full
        } else {
            let strips =
                with_strips.get_or_init(|| self.evaluate(set, |evaluated| self.in_strips(evaluated)));
            strips.as_ref()?
        };
        candidate.fits().then_some(candidate)
    }

    /// The candidate of a set that was chosen, with all the ways to run it that were asked for.
    pub fn chosen(&self, at: usize) -> &Candidate {
        let Entry { at_full_width, with_strips, .. } = &self.sets[at];
        let candidate = with_strips.get().or_else(|| at_full_width.get()).and_then(Option::as_ref);
        candidate.expect("only candidates are chosen")
    }

    /// Whether any set that was asked for so far may run in strips.
    pub fn has_strips(&self) -> bool {
        self.has_strips.get()
    }

    /// What is known of a set's shape, as its own candidate.
    fn evaluate(
        &self,
        set: &StageSet,
        of: impl FnOnce(&mut Evaluated) -> Option<Candidate>,
    ) -> Option<Candidate> {
        let context = &self.context;
        let shape = self.shapes.of(&context.topology, set);
        let mut known = self.evaluated.borrow_mut();
        let evaluated = known
            .entry(shape)
            .or_insert_with(|| Evaluated { at_full_width: Candidate::new(context, set), with_strips: None });
        of(evaluated)
            .map(|candidate| if candidate.set == *set { candidate } else { candidate.of_shape(context, set) })
    }

    /// A candidate with its strips.
    fn in_strips(&self, evaluated: &mut Evaluated) -> Option<Candidate> {
        let Evaluated { at_full_width, with_strips } = evaluated;
        let candidate = with_strips.get_or_insert_with(|| {
            at_full_width.as_ref().map(|candidate| candidate.with_strips(&self.context))
        });
        let has_strips =
            candidate.iter().any(|candidate| candidate.variants.iter().any(|v| v.strips.is_some()));
        self.has_strips.set(self.has_strips.get() || has_strips);
        candidate.clone()
    }

    /// Adds to the estimate of a variant of a candidate, and of every candidate of its shape.
    pub fn correct(&self, candidate: usize, variant: usize, cycles: i64) {
        let correction = &self.chosen(candidate).variants[variant].correction;
        correction.set(correction.get() + cycles);
    }

    /// Sets that can run when the stages of `done` have, in order. `done` must be closed under dependence.
    pub fn next(&self, done: &StageSet) -> Vec<usize> {
        let preds = &self.context.topology.preds;
        let is_ready = |stage: &StageId| !done.contains(*stage) && preds[*stage].is_subset(done);
        let ready = self.context.graph.stages.keys().filter(is_ready);
        let firsts = ready.flat_map(|stage| &self.by_first[stage]).copied();
        // If any stage of a set had run, then so had one that reads from none of it.
        let may_run = |&at: &usize| {
            let candidate = &self.sets[at];
            candidate.needs.iter().all(|&stage| done.contains(stage))
                && !candidate.sources.iter().any(|&stage| done.contains(stage))
        };
        let mut next: Vec<usize> = firsts.filter(may_run).collect();
        next.sort_unstable();
        next
    }
}

/// The cycles of a set if the whole array did its work without a gap, or its slowest stage had it for itself.
fn least_cycles(context: &Context<'_>, work: u64, set: &StageSet) -> u64 {
    let clusters = context.target.array.clusters;
    let slowest = set.iter().map(|stage| context.profile(stage).on(clusters).cycles).max();
    work.div_ceil(u64::from(clusters.max(1))).max(slowest.unwrap_or(0))
}

/// The cycles of the partition that has the most to do, in the best division of the array.
fn paced_cycles(context: &Context<'_>, set: &StageSet) -> u64 {
    let profiles: Vec<&StageProfile> = set.iter().map(|stage| context.profile(stage)).collect();
    let divisions = divisions(&profiles, context.target, !context.puts_room_first());
    divisions.iter().map(|division| division.pace(&profiles, context.target)).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use strata_backend::model::samples::{mobilenetv2, resnet50, unet, yolov3};
    use strata_isa_spec::Target;

    use super::*;
    use crate::fuse::candidates::candidate::Variant;

    /// What a variant costs.
    fn costs(variant: &Rc<Variant>) -> String {
        format!("{variant:?}")
    }

    #[test]
    fn a_set_costs_what_its_shape_does() {
        let target =
            Target::preset("x1", &[("memory.activation".to_owned(), "1MiB".to_owned())]).expect("a preset");
        let mut n_shared = 0;
        for graph in [yolov3(416, 416), resnet50(224, 224), mobilenetv2(224, 224), unet(256, 256)] {
            let context = Context::new(&graph, &target).expect("it is a graph");
            let n = graph.stages.len() as u32;
            let intervals = (0..n).flat_map(|first| (first..n.min(first + 6)).map(move |last| first..=last));
            let sets: Vec<StageSet> =
                intervals.map(|stages| stages.map(StageId::from_u32).collect()).collect();
            let offered = CandidatePool::new(context, sets.clone(), WithStrips::Always);
            let context = Context::new(&graph, &target).expect("it is a graph");
            for (at, set) in sets.iter().enumerate() {
                let alone = Candidate::new(&context, set).map(|candidate| candidate.with_strips(&context));
                let alone = alone.filter(Candidate::fits);
                let shared = offered.candidate(at, true);
                assert_eq!(shared.is_some(), alone.is_some());
                let (Some(shared), Some(alone)) = (shared, alone) else { continue };
                assert_eq!(format!("{shared:?}"), format!("{alone:?}"));
                assert!(shared.variants.iter().map(costs).eq(alone.variants.iter().map(costs)));
            }
            n_shared += sets.len() - offered.evaluated.borrow().len();
        }
        assert!(n_shared > 100, "{n_shared} sets had the shape of another");
    }
}
