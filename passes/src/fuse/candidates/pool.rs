//! What the chooser chooses among: the sets that were offered, each evaluated when it is first asked for.
//!
//! A search that is limited never comes to most sets of a large graph, and sets of one
//! [`shape`](crate::fuse::candidates::shapes) are evaluated once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_backend::cost::align;
use strata_backend::cost::rings::Actor;
use strata_backend::model::graph::StageSet;
use strata_backend::model::{BufferId, BufferRole, StageId};

use crate::fuse::candidates::candidate::{Candidate, Context, LeastCost, Method};
use crate::fuse::candidates::interchangeable::interchangeable;
use crate::fuse::candidates::partition::Division;
use crate::fuse::candidates::shapes::{Shape, Shapes};
use crate::fuse::strips::evaluate::may_have_strips;

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
    /// What is known of each shape that was asked for.
    known: RefCell<BTreeMap<Shape, Rc<OfShape>>>,
    most_bytes: PrimaryMap<BufferId, MostBytes>,
    has_strips: Cell<bool>,
    work: Cell<usize>,
    is_limited: bool,
    /// Whether sets are evaluated without a look at what is sure of them, to judge a search by.
    #[cfg(test)]
    pub(crate) is_hasty: bool,
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
    needs: StageSet,
    /// Stages that read from none of the set.
    sources: StageSet,
    least: Least,
    /// No phase of it takes fewer cycles on the array, but for what strips save.
    least_cycles: u64,
    of_shape: OnceCell<Rc<OfShape>>,
    at_full_width: OnceCell<Option<Candidate>>,
    with_strips: OnceCell<Option<Candidate>>,
}

/// What was found of one set of a shape, and so of all: each when it was first asked for.
#[derive(Debug, Default)]
struct OfShape {
    divided: OnceCell<Divided>,
    least_cost: OnceCell<Option<LeastCost>>,
    at_full_width: OnceCell<Option<Candidate>>,
    with_strips: OnceCell<Option<Candidate>>,
}

/// How the array may be divided among the stages of a set that run by the fastest method.
#[derive(Debug)]
struct Divided {
    divisions: Vec<Division>,
    /// The cycles of the partition that has the most to do, in the best of them.
    pace: u64,
}

impl Divided {
    fn new(context: &Context<'_>, set: &StageSet) -> Self {
        let profiles = context.profiles_by(set, Method::Fastest);
        let divisions = context.divisions(set, Method::Fastest);
        let paces = divisions.iter().map(|division| division.pace(&profiles, context.target));
        Self { pace: paces.min().unwrap_or(0), divisions }
    }
}

/// What dividing the array among stages takes, for each of them, in units of [`CandidatePool::work`]; these
/// figures are about right for YOLOv3, RegNetX and DenseNet.
const DIVIDING: usize = 2;
/// The same of timing their pipeline.
const TIMING: usize = 1;
/// The same of sizing their rings.
const EVALUATING: usize = 5;
/// The same of doing so in strips.
const EVALUATING_STRIPS: usize = 14;

/// What is sure of a set before it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It is no candidate.
    None,
    /// It costs no less at full width. In strips, if it may run so, it hardly does.
    AtLeast {
        /// What it costs at full width.
        cost: LeastCost,
        /// Whether it may run in strips.
        may_have_strips: bool,
    },
    /// It was evaluated already.
    Known,
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
                needs: needs.without(&set),
                sources: set.iter().filter(is_source).collect(),
                least_cycles: least_cycles(&context, all.work, &set),
                least: all,
                set,
                of_shape: OnceCell::new(),
                at_full_width: OnceCell::new(),
                with_strips: OnceCell::new(),
            });
        }
        let shapes = Shapes::new(context.graph, &context.topology);
        let most_bytes = context.graph.buffers.keys().map(|buffer| MostBytes::of(&context, buffer)).collect();
        Self {
            context,
            strips,
            sets: entries,
            by_first,
            least,
            shapes,
            known: RefCell::default(),
            most_bytes,
            has_strips: Cell::new(false),
            work: Cell::new(0),
            is_limited: false,
            #[cfg(test)]
            is_hasty: false,
        }
    }

    /// The same, of sets of which some may be missing if `is_limited`.
    pub fn limited(self, is_limited: bool) -> Self {
        Self { is_limited, ..self }
    }

    /// Whether sets may be missing since a limit was reached when they were looked for.
    pub fn is_limited(&self) -> bool {
        self.is_limited
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
        self.divided(at).pace
    }

    /// Work that was done on candidates: what was evaluated, in units of about what a label of a search
    /// takes, and the placings and labels that searches made.
    pub fn work(&self) -> usize {
        self.work.get()
    }

    /// Adds work of a search.
    pub fn add_work(&self, work: usize) {
        self.work.set(self.work.get() + work);
    }

    /// How the array may be divided among the stages of a set.
    fn divided(&self, at: usize) -> &Divided {
        let Entry { set, .. } = &self.sets[at];
        self.of_shape(at).divided.get_or_init(|| {
            self.add_work(DIVIDING * set.len());
            Divided::new(&self.context, set)
        })
    }

    /// What is sure of a set before it is evaluated, with strips or without.
    pub fn outlook(&self, at: usize, strips: bool) -> Outlook {
        #[cfg(test)]
        if self.is_hasty {
            return Outlook::Known;
        }
        let set = &self.sets[at].set;
        let of_shape = self.of_shape(at);
        // What was learned of candidates is not part of what they cost at the least.
        if of_shape.at_full_width.get().is_some() {
            return Outlook::Known;
        }
        let least = || {
            self.add_work(TIMING * set.len());
            Candidate::least_cost(&self.context, set, &self.divided(at).divisions)
        };
        let Some(cost) = *of_shape.least_cost.get_or_init(least) else { return Outlook::None };
        Outlook::AtLeast { cost, may_have_strips: strips && self.may_have_strips(set) }
    }

    /// Whether a set may be offered in strips, as far as that can be told without sizing its rings.
    fn may_have_strips(&self, set: &StageSet) -> bool {
        self.strips != WithStrips::Never && may_have_strips(self.most_bytes(set), self.context.target)
    }

    /// Bytes of activation SRAM that a set takes at full width at the most.
    fn most_bytes(&self, set: &StageSet) -> u64 {
        let Context { graph, topology, .. } = &self.context;
        let bytes = topology.touched(set).into_iter().map(|buffer| {
            let most = &self.most_bytes[buffer];
            if topology.is_private(graph, set, buffer) { most.private } else { most.whole }
        });
        bytes.sum()
    }

    /// What is known of the sets of a set's shape.
    fn of_shape(&self, at: usize) -> &OfShape {
        let Entry { set, of_shape, .. } = &self.sets[at];
        of_shape.get_or_init(|| {
            let shape = self.shapes.of(&self.context.topology, set);
            Rc::clone(self.known.borrow_mut().entry(shape).or_default())
        })
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
        let full = at_full_width.get_or_init(|| self.as_set(set, self.full_width_of_shape(at)));
        let full = full.as_ref()?;
        let is_at_full_width = match self.strips {
            WithStrips::Never => true,
            WithStrips::Needed => full.fits(),
            WithStrips::Always => false,
        };
        let candidate = if is_at_full_width || !strips {
            full
        } else {
            let strips = with_strips.get_or_init(|| self.as_set(set, self.in_strips_of_shape(at)));
            strips.as_ref()?
        };
        candidate.fits().then_some(candidate)
    }

    /// Whether a set was evaluated, with strips or without, or another of its shape.
    pub fn is_evaluated(&self, at: usize, strips: bool) -> bool {
        let of_shape = self.of_shape(at);
        if strips { of_shape.with_strips.get().is_some() } else { of_shape.at_full_width.get().is_some() }
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

    /// The candidate of a set of some shape as that of another set of the shape.
    fn as_set(&self, set: &StageSet, of_shape: Option<&Candidate>) -> Option<Candidate> {
        let candidate = of_shape?;
        Some(if candidate.set == *set { candidate.clone() } else { candidate.of_shape(&self.context, set) })
    }

    /// The candidate of a set of one set's shape, at full width.
    fn full_width_of_shape(&self, at: usize) -> Option<&Candidate> {
        let evaluate = || {
            self.add_work(EVALUATING * self.set(at).len());
            Candidate::divided(&self.context, self.set(at), &self.divided(at).divisions)
        };
        self.of_shape(at).at_full_width.get_or_init(evaluate).as_ref()
    }

    /// The same with its strips.
    fn in_strips_of_shape(&self, at: usize) -> Option<&Candidate> {
        let evaluate = || {
            let full = self.full_width_of_shape(at)?;
            if self.may_have_strips(self.set(at)) {
                self.add_work(EVALUATING_STRIPS * self.set(at).len());
            }
            Some(full.with_strips(&self.context))
        };
        let candidate = self.of_shape(at).with_strips.get_or_init(evaluate).as_ref()?;
        let has_strips = candidate.variants.iter().any(|variant| variant.strips.is_some());
        self.has_strips.set(self.has_strips.get() || has_strips);
        Some(candidate)
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
            candidate.needs.is_subset(done) && !candidate.sources.meets(done)
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

/// Bytes of activation SRAM that a buffer takes at the most in any phase.
#[derive(Clone, Copy, Debug)]
struct MostBytes {
    whole: u64,
    /// If all that has to do with it is in the phase.
    private: u64,
}

impl MostBytes {
    fn of(context: &Context<'_>, buffer: BufferId) -> Self {
        let uses = &context.topology.uses[buffer];
        let whole = context.whole_bytes(buffer);
        // Of one that writes and one that reads, the first steps for the sake of the second alone.
        let ([(writer, _)], [(reader, _)]) = (&uses.writers[..], &uses.readers[..]) else {
            return Self { whole, private: whole };
        };
        let methods = [Method::Fastest, Method::Direct];
        let actors = |stage: StageId| {
            methods.into_iter().flat_map(move |method| {
                let profile = context.profile_by(stage, method);
                [false, true].map(|winograd| profile.actor(winograd))
            })
        };
        let step = actors(*writer).map(Actor::rows_per_step).max().unwrap_or(1);
        let between = actors(*reader).map(|actor| actor.most_between(buffer, step)).max().unwrap_or(0);
        let rows = between.min(context.graph.buffers[buffer].rows);
        let row_bytes = align(context.target, context.graph.buffers[buffer].row_bytes());
        Self { whole, private: u64::from(rows) * row_bytes }
    }
}

#[cfg(test)]
mod tests {
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
            n_shared += sets.len() - offered.known.borrow().len();
        }
        assert!(n_shared > 100, "{n_shared} sets had the shape of another");
    }

    #[test]
    fn what_is_sure_of_a_set_holds_when_it_is_evaluated() {
        let target =
            Target::preset("x1", &[("memory.activation".to_owned(), "1MiB".to_owned())]).expect("a preset");
        let (mut n_at_full_width, mut n_in_strips, mut n_exact) = (0, 0, 0);
        for graph in [yolov3(416, 416), resnet50(224, 224), mobilenetv2(224, 224), unet(256, 256)] {
            for puts_room_first in [false, true] {
                let context = Context::new(&graph, &target).expect("it is a graph");
                let context = if puts_room_first { context.with_direct() } else { context };
                let n = graph.stages.len() as u32;
                let intervals =
                    (0..n).flat_map(|first| (first..n.min(first + 9)).map(move |last| first..=last));
                let sets: Vec<StageSet> =
                    intervals.map(|stages| stages.map(StageId::from_u32).collect()).collect();
                let offered = CandidatePool::new(context, sets.clone(), WithStrips::Always);
                for (at, set) in sets.iter().enumerate() {
                    let outlook = offered.outlook(at, true);
                    let full = offered.full_width_of_shape(at);
                    let Outlook::AtLeast { cost, may_have_strips } = outlook else {
                        assert!(outlook == Outlook::Known || full.is_none());
                        continue;
                    };
                    let full = full.expect("it costs something");
                    assert_eq!(cost.table_bytes, full.table_bytes);
                    let cycles = full.variants.iter().map(|variant| variant.cycles).min();
                    assert!(cycles.is_none_or(|cycles| cost.cycles <= cycles), "{set:?}");
                    n_exact += usize::from(cycles == Some(cost.cycles));
                    let bytes = full.full_bytes.iter().flatten().max().expect("it was evaluated");
                    assert!(*bytes <= offered.most_bytes(set), "{set:?}");
                    let in_strips = offered.in_strips_of_shape(at).expect("it is a candidate");
                    let has_strips = in_strips.variants.iter().any(|variant| variant.strips.is_some());
                    assert!(may_have_strips || !has_strips, "{set:?}");
                    (n_in_strips, n_at_full_width) = (
                        n_in_strips + usize::from(has_strips),
                        n_at_full_width + usize::from(!may_have_strips),
                    );
                }
            }
        }
        assert!(n_in_strips > 50 && n_at_full_width > 50 && n_exact > 500);
    }
}
