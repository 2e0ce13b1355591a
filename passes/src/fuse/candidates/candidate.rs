//! Candidates: sets of stages that may form a phase, each evaluated once.
//!
//! What a set costs as a phase has two parts. What depends on the set alone is here: ring sizes, division of
//! the array, pipeline time, weights. What depends on where its boundary tensors live, the search adds. Ring
//! sizes are computed with every boundary tensor streamed to or from DRAM; a tensor that is whole in SRAM
//! needs no more. A set whose rows are too wide is offered in [`strips`] too: such a variant is one candidate
//! that runs as several phases.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cranelift_entity::PrimaryMap;
use strata_backend::cost::fill_drain::{drain_cycles, fill_cycles};
use strata_backend::cost::mappings::Mappings;
use strata_backend::cost::rings::{Actor, Buffering, OverlapProbe, ring_slots_and_gaps};
use strata_backend::cost::transfers::{Transfer, loads, stores, window};
use strata_backend::cost::{
    Implementation, PipelineTime, Running, StageProfile, align, on_chip_energy, pipeline,
};
use strata_backend::model::graph::{GraphError, StageSet, Topology};
use strata_backend::model::tables::first_uses;
use strata_backend::model::{
    BufferId, BufferRole, BufferView, GrowsInto, StageGraph, StageId, StageTemplate,
};
use strata_isa_spec::Target;

use crate::fuse::candidates::in_place::in_place_targets;
use crate::fuse::candidates::partition::{Division, divisions};
use crate::fuse::strips;

/// The problem, with everything that is asked of it often computed once.
#[derive(Debug)]
pub struct Context<'a> {
    /// The stages and buffers.
    pub graph: &'a StageGraph,
    /// The machine.
    pub target: &'a Target,
    /// Dependences.
    pub topology: Topology,
    /// Each stage's costs.
    pub profiles: PrimaryMap<StageId, StageProfile>,
    /// The buffer in whose bytes each buffer may be written.
    pub in_place_targets: PrimaryMap<BufferId, Option<BufferId>>,
    /// Costs of parts of stages, by the columns of their outputs.
    narrow: RefCell<BTreeMap<(StageId, u32, Method), Arc<StageProfile>>>,
    /// Costs of stages that are not to run as Winograd, where candidates are offered that way too.
    direct: Option<PrimaryMap<StageId, StageProfile>>,
    /// How clusters are divided, as far as it was asked.
    mappings: Rc<Mappings>,
}

impl<'a> Context<'a> {
    /// Tabulates a graph.
    ///
    /// # Errors
    /// If the graph makes no sense.
    pub fn new(graph: &'a StageGraph, target: &'a Target) -> Result<Self, GraphError> {
        Self::knowing(graph, target, Rc::default())
    }

    /// Tabulates a graph that is made of this one's, for the same target.
    ///
    /// # Errors
    /// If the graph makes no sense.
    pub fn of<'b>(&self, graph: &'b StageGraph) -> Result<Context<'b>, GraphError>
    where
        'a: 'b,
    {
        let made = Context::knowing(graph, self.target, Rc::clone(&self.mappings))?;
        Ok(if self.puts_room_first() { made.with_direct() } else { made })
    }

    fn knowing(
        graph: &'a StageGraph,
        target: &'a Target,
        mappings: Rc<Mappings>,
    ) -> Result<Self, GraphError> {
        let topology = Topology::new(graph)?;
        let profile = |node| StageProfile::new(node, target, &mappings);
        let profiles = graph.stages.values().map(profile).collect();
        let in_place_targets = in_place_targets(graph, &topology);
        Ok(Self {
            graph,
            target,
            topology,
            profiles,
            in_place_targets,
            narrow: RefCell::default(),
            direct: None,
            mappings,
        })
    }

    /// The same with candidates that run directly too where they may run as Winograd, which takes more rows
    /// at a time.
    pub fn with_direct(self) -> Self {
        let Self { graph, target, ref mappings, .. } = self;
        let direct = self
            .profiles
            .iter()
            .map(|(stage, profile)| profile.without_winograd(&graph.stages[stage].code, target, mappings));
        Self { direct: Some(direct.collect()), ..self }
    }

    /// Energy in picojoules of candidates, each run as one of its variants, that move so many bytes.
    pub fn energy<'c>(
        &self,
        candidates: impl Iterator<Item = (&'c Candidate, usize)>,
        dram_bytes: u64,
    ) -> f64 {
        let stages = candidates.flat_map(|(candidate, variant)| {
            let options = candidate.variants[variant].implementations.iter();
            candidate.stages.iter().copied().zip(options.map(|i| i.winograd))
        });
        on_chip_energy(self.graph, self.target, stages) + dram_bytes as f64 * self.target.energy.dram_byte_pj
    }

    /// The same on a machine that differs in its memories only: what stages cost stays.
    pub fn with_memory(&self, target: &'a Target) -> Self {
        Self {
            graph: self.graph,
            target,
            topology: self.topology.clone(),
            profiles: self.profiles.clone(),
            in_place_targets: self.in_place_targets.clone(),
            narrow: RefCell::default(),
            direct: self.direct.clone(),
            mappings: Rc::clone(&self.mappings),
        }
    }

    /// Costs of a part of a stage's columns, run by a method.
    pub fn narrow_profile(&self, stage: StageId, code: &StageTemplate, method: Method) -> Arc<StageProfile> {
        let mut narrow = self.narrow.borrow_mut();
        let whole = self.profile_by(stage, method);
        let profile = narrow
            .entry((stage, code.out.cols, method))
            .or_insert_with(|| Arc::new(whole.of_columns(code, self.target, &self.mappings)));
        Arc::clone(profile)
    }

    /// Whether room in SRAM is worth more than time, so that candidates are offered that run directly.
    pub fn puts_room_first(&self) -> bool {
        self.direct.is_some()
    }

    /// Methods by which a set of stages is offered.
    pub fn methods(&self, set: &StageSet) -> &'static [Method] {
        // A stage alone is offered in lockstep too, whatever it computes.
        let is_leaner = |stage: StageId| set.len() == 1 || self.profile(stage).may_winograd();
        let gains = self.puts_room_first() && set.iter().any(is_leaner);
        if gains { &[Method::Fastest, Method::Direct] } else { &[Method::Fastest] }
    }

    /// Costs of a stage that runs by a method.
    pub fn profile_by(&self, stage: StageId, method: Method) -> &StageProfile {
        match (method, &self.direct) {
            (Method::Direct, Some(direct)) => &direct[stage],
            _ => self.profile(stage),
        }
    }

    /// Costs of the stages of a set that run by a method, in order.
    pub fn profiles_by(&self, set: &StageSet, method: Method) -> Vec<&StageProfile> {
        set.iter().map(|stage| self.profile_by(stage, method)).collect()
    }

    /// Divisions of the array among the stages of a set, in order, that run by a method.
    pub fn divisions(&self, set: &StageSet, method: Method) -> Vec<Division> {
        divisions(&self.profiles_by(set, method), self.target, !self.puts_room_first())
    }

    /// Costs of a stage.
    pub fn profile(&self, stage: StageId) -> &StageProfile {
        &self.profiles[stage]
    }

    /// Bytes of activation SRAM that so many rows of a window of a buffer take.
    pub fn ring_bytes(&self, window: &BufferView, slots: u32) -> u64 {
        let elem = self.graph.buffers[window.tensor].elem;
        let row = u64::from(window.cols) * u64::from(window.chs) * u64::from(elem.size_bytes());
        u64::from(slots) * align(self.target, row)
    }

    /// Bytes of activation SRAM that the whole of a buffer takes.
    pub fn whole_bytes(&self, buffer: BufferId) -> u64 {
        let buffer = &self.graph.buffers[buffer];
        u64::from(buffer.rows) * align(self.target, buffer.row_bytes())
    }
}

/// Which ways to compute its convolutions a candidate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Whichever takes the fewest cycles.
    Fastest,
    /// None as Winograd: what makes two rows at a time reads and leaves more of them at once.
    Direct,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fastest, Self::Direct];
}

/// One way to run a candidate.
#[derive(Clone, Debug)]
pub struct Variant {
    /// How its convolutions are computed.
    pub method: Method,
    /// In how many strips it runs, if it does. Everything else is then of the widest strip, or the most of
    /// any.
    pub strips: Option<u32>,
    /// How the array is divided.
    pub division: Division,
    /// How each stage runs.
    pub implementations: Vec<Implementation>,
    /// How rings are sized.
    pub slack: Buffering,
    /// Start of each stage, from the begin of the phase.
    pub starts: Vec<u64>,
    /// Cycles of the pipeline, without DRAM.
    pub cycles: u64,
    /// Cycles that the timed simulation of a plan found it to take beside what was estimated; of all
    /// candidates of its shape.
    pub correction: Cell<i64>,
    /// Rings that only this candidate uses, with what strips leave each other through DRAM.
    pub private: Ring,
    /// Each boundary buffer's ring.
    pub rings: Vec<Ring>,
    /// Boundary buffers that may take the space of others, if those are read here for the last time, the most
    /// saving first.
    pub growths: Vec<MayGrow>,
}

/// A boundary buffer that a candidate writes, and one that it only reads whose space it may take, by their
/// places in [`Candidate::boundary`]. Both must be whole in SRAM.
#[derive(Clone, Copy, Debug)]
pub struct MayGrow {
    /// The one that is written.
    pub growing: usize,
    /// The one that is read.
    pub dying: usize,
    /// How far before it the other begins.
    pub gap_bytes: u64,
    /// Bytes that it saves.
    pub saved_bytes: u64,
}

/// A tensor that takes the space of another.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// The one that is written.
    pub growing: BufferId,
    /// The one that is read, and how far before it the other begins.
    pub into: GrowsInto,
    /// Bytes that it saves.
    pub saved_bytes: u64,
}

impl Growth {
    /// Whether it is about a buffer.
    pub fn uses(&self, buffer: BufferId) -> bool {
        self.growing == buffer || self.into.buffer == buffer
    }

    /// Whether it joins the same two buffers as another.
    pub fn joins_the_same(&self, other: &Self) -> bool {
        (self.growing, self.into.buffer) == (other.growing, other.into.buffer)
    }
}

impl Variant {
    /// Phases that it takes.
    pub fn n_phases(&self) -> u64 {
        self.strips.map_or(1, u64::from)
    }

    /// Bytes of activation SRAM with every boundary tensor streamed.
    pub fn sram_bytes(&self) -> u64 {
        self.private.bytes + self.rings.iter().map(|ring| ring.bytes).sum::<u64>()
    }

    /// Bytes loaded and stored with every boundary tensor streamed.
    pub fn moved_bytes(&self) -> u64 {
        let moved = self.rings.iter().chain([&self.private]).map(|ring| ring.load.bytes + ring.store.bytes);
        moved.sum()
    }
}

/// A buffer that is streamed to or from DRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Bytes of SRAM.
    pub bytes: u64,
    /// What is loaded.
    pub load: Movement,
    /// What is stored.
    pub store: Movement,
    /// Cycles of the busiest stage that works by turns with the transfers, if one does.
    pub turn_cycles: u64,
}

/// A buffer that a candidate shares with other candidates or with the outside.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// The buffer.
    pub buffer: BufferId,
    /// Bytes of SRAM if it is whole.
    pub whole_bytes: u64,
}

/// Transfers of one buffer in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// DMA stages.
    pub stages: u32,
    /// Bytes.
    pub bytes: u64,
    /// Cycles of the longest transfer; its latency is paid once, since rows are asked for ahead.
    pub cycles: u64,
    /// Cycles of a row of everything that is moved.
    pub row_cycles: u64,
    /// Cycles by which it delays the begin or the end of a phase.
    pub edge_cycles: u64,
}

impl Movement {
    /// The cost of some transfers.
    pub fn of(context: &Context<'_>, transfers: &[Transfer]) -> Self {
        let mut movement = Self::default();
        for transfer in transfers {
            let bytes = transfer.bytes(context.graph);
            let rows = u64::from(transfer.view.rows.max(1));
            let dram = &context.target.dram;
            let row = (bytes / rows).div_ceil(u64::from(dram.bytes_per_cycle.max(1)));
            let cycles = rows * row + u64::from(dram.latency_cycles);
            movement.add(Self { stages: 1, bytes, cycles, row_cycles: row, edge_cycles: 0 });
        }
        movement
    }

    /// These loads of a buffer, with what stages wait for the first of its rows.
    pub fn filling(
        self,
        target: &Target,
        stages: &[Running<'_>],
        time: &PipelineTime,
        buffer: BufferId,
    ) -> Self {
        Self { edge_cycles: fill_cycles(target, stages, time, buffer, self.row_cycles), ..self }
    }

    /// These stores of a buffer, with what the phase waits for the last of its rows.
    pub fn draining(self, stages: &[Running<'_>], time: &PipelineTime, buffer: BufferId) -> Self {
        Self { edge_cycles: drain_cycles(stages, time, buffer, self.row_cycles), ..self }
    }

    /// Adds what is moved at the same time.
    pub fn add(&mut self, more: Self) {
        self.stages += more.stages;
        self.bytes += more.bytes;
        self.cycles = self.cycles.max(more.cycles);
        self.row_cycles += more.row_cycles;
        self.edge_cycles += more.edge_cycles;
    }

    /// Adds what is moved in another phase of the same candidate.
    pub fn then(&mut self, next: Self) {
        self.stages = self.stages.max(next.stages);
        self.bytes += next.bytes;
        self.cycles = self.cycles.max(next.cycles);
        self.row_cycles = self.row_cycles.max(next.row_cycles);
        self.edge_cycles = self.edge_cycles.max(next.edge_cycles);
    }
}

/// A set of stages that may form a phase.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The stages.
    pub set: StageSet,
    /// The stages, in order.
    pub stages: Vec<StageId>,
    /// Stages that must have run before.
    pub needs: StageSet,
    /// Aligned bytes of tables that are loaded up to and including each stage.
    pub loads_up_to: Arc<[u64]>,
    /// Bytes of weight SRAM.
    pub weight_bytes: u64,
    /// Bytes of tables loaded.
    pub table_bytes: u64,
    /// Buffers that others use too.
    pub boundary: Vec<Boundary>,
    /// The least bytes of SRAM that it takes at full width, wherever its boundary tensors live, by each
    /// method that it was evaluated by.
    pub full_bytes: [Option<u64>; Method::ALL.len()],
    /// Ways to run it that fit the target if nothing stands in SRAM beside it: those at full width, of which
    /// none costs no more cycles, SRAM and traffic than another, then those in strips, if they were asked
    /// for, of which none costs no more than any.
    pub variants: Rc<[Rc<Variant>]>,
}

/// What a set costs at the least, however it runs at full width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastCost {
    /// Cycles of the pipeline, without DRAM.
    pub cycles: u64,
    /// Bytes of tables loaded.
    pub table_bytes: u64,
}

/// How a phase of a choice runs.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// How convolutions are computed.
    pub method: Method,
    /// How the array is divided.
    pub division: &'a Division,
    /// How rings are sized.
    pub slack: Buffering,
}

/// What a token simulation found, by what it depends on beside the stages: which run as Winograd, and how
/// rings are sized.
type SlotMemo = BTreeMap<(Vec<bool>, Buffering), (BTreeMap<BufferId, u32>, Vec<u64>)>;

/// A candidate's buffers and the transfers that its full-width phase makes.
struct Parts {
    private: Vec<BufferId>,
    dma: Vec<Actor>,
    rings: Vec<Ring>,
}

impl Candidate {
    /// Evaluates a set at full width; `None` if its stages do not fit the target whatever they run as.
    pub fn new(context: &Context<'_>, set: &StageSet) -> Option<Self> {
        Self::divided(context, set, &context.divisions(set, Method::Fastest))
    }

    /// As [`Self::new`], with the divisions of the array among the stages run by the fastest method.
    pub fn divided(context: &Context<'_>, set: &StageSet, divisions: &[Division]) -> Option<Self> {
        let (mut candidate, parts) = Self::bare(context, set, &[], &|_, _| true)?;
        let probes = candidate.probes(context);
        let mut variants = Vec::new();
        for &method in context.methods(set) {
            let of_direct = (method != Method::Fastest).then(|| context.divisions(set, method));
            let divisions = of_direct.as_deref().unwrap_or(divisions);
            let mut memo = SlotMemo::new();
            let make = |how: How<'_>| candidate.variant(context, &parts, &probes, how, &mut memo);
            let mut full = ways(context, divisions, method, make);
            let least = full.iter().map(|variant| candidate.least_bytes(variant)).min().unwrap_or(0);
            candidate.full_bytes[method as usize] = Some(least);
            full.retain(|variant| candidate.least_bytes(variant) <= context.target.memory.activation);
            variants.append(&mut full);
        }
        candidate.variants = Self::undominated(&[], variants);
        Some(candidate)
    }

    /// The same, evaluated in strips too.
    pub fn with_strips(&self, context: &Context<'_>) -> Self {
        let methods = Method::ALL.into_iter().zip(self.full_bytes);
        let strips = methods.filter_map(|(method, full_bytes)| {
            Some(strips::evaluate::variants(context, self, method, full_bytes?))
        });
        Self { variants: Self::undominated(&self.variants, strips.flatten().collect()), ..self.clone() }
    }

    /// What the variants of a set at full width cost at the least, by their pipelines: what [`Self::new`]
    /// finds without the sizes of rings, which take most of its time; `None` where it finds no candidate.
    pub fn least_cost(context: &Context<'_>, set: &StageSet, divisions: &[Division]) -> Option<LeastCost> {
        let (candidate, _) = Self::bare(context, set, &[], &|_, _| true)?;
        let mut least = u64::MAX;
        for &method in context.methods(set) {
            let of_direct = (method != Method::Fastest).then(|| context.divisions(set, method));
            let profiles = context.profiles_by(set, method);
            // In lockstep a phase takes no less, and directly none overlaps.
            let is_lockstep = method == Method::Direct;
            for division in of_direct.as_deref().unwrap_or(divisions) {
                let implementations = implementations(&profiles, division);
                let running = running(context.target, &profiles, &implementations, division);
                least = least.min(pipeline(&running, is_lockstep).end);
            }
        }
        Some(LeastCost { cycles: least, table_bytes: candidate.table_bytes })
    }

    /// Whether it fits the target, if nothing stands in SRAM beside it.
    pub fn fits(&self) -> bool {
        !self.variants.is_empty()
    }

    /// Some ways, and others of which none costs no more of anything, what stages wait for transfers
    /// included.
    fn undominated(some: &[Rc<Variant>], others: Vec<Variant>) -> Rc<[Rc<Variant>]> {
        let turns = |v: &Variant| v.rings.iter().map(|ring| ring.turn_cycles).max().unwrap_or(0);
        let all: Vec<Rc<Variant>> = some.iter().cloned().chain(others.into_iter().map(Rc::new)).collect();
        let costs: Vec<[u64; 4]> = (all.iter())
            .map(|v| [v.cycles * v.n_phases(), v.sram_bytes(), v.moved_bytes(), turns(v)])
            .collect();
        let saved = |at: usize| all[at].growths.iter().map(|may| may.saved_bytes).sum::<u64>();
        let is_dominated = |at: usize| {
            costs.iter().enumerate().any(|(other, cost)| {
                let no_worse = cost.iter().zip(&costs[at]).all(|(a, b)| a <= b);
                // What runs directly for the sake of memory may be there for what can grow into what.
                let saves_as_much = all[at].method == Method::Fastest || saved(other) >= saved(at);
                no_worse && saves_as_much && other != at && (*cost != costs[at] || other < at)
            })
        };
        let kept = all.iter().enumerate().filter(|&(at, _)| at < some.len() || !is_dominated(at));
        kept.map(|(_, variant)| Rc::clone(variant)).collect()
    }

    /// The candidate of a set of the same [`shape`](crate::fuse::candidates::shapes), which costs the same.
    pub fn of_shape(&self, context: &Context<'_>, set: &StageSet) -> Self {
        let Context { graph, topology, .. } = context;
        let touched = topology.touched(set).into_iter();
        let shared = touched.filter(|&buffer| !topology.is_private(graph, set, buffer));
        let boundary = shared.map(|buffer| Boundary { buffer, whole_bytes: context.whole_bytes(buffer) });
        Self {
            set: set.clone(),
            stages: set.iter().collect(),
            needs: topology.needs(set),
            boundary: boundary.collect(),
            loads_up_to: Arc::clone(&self.loads_up_to),
            variants: Rc::clone(&self.variants),
            ..*self
        }
    }

    /// Evaluates a phase of a choice as it is to run. `previous` are the stages of the phase before;
    /// `is_loaded` tells whether a stage reads a buffer from DRAM. `None` if it does not fit the target
    /// whatever stands in SRAM beside it.
    pub fn chosen(
        context: &Context<'_>,
        stages: &[StageId],
        previous: &[StageId],
        how: How<'_>,
        is_loaded: &dyn Fn(BufferId, StageId) -> bool,
    ) -> Option<Self> {
        let set: StageSet = stages.iter().copied().collect();
        let (mut candidate, parts) = Self::bare(context, &set, previous, is_loaded)?;
        let probes = candidate.probes(context);
        let variant = candidate.variant(context, &parts, &probes, how, &mut SlotMemo::new());
        candidate.variants = Rc::new([Rc::new(variant)]);
        Some(candidate)
    }

    /// A set without variants.
    fn bare(
        context: &Context<'_>,
        set: &StageSet,
        previous: &[StageId],
        is_loaded: &dyn Fn(BufferId, StageId) -> bool,
    ) -> Option<(Self, Parts)> {
        let Context { graph, target, topology, .. } = context;
        let stages: Vec<StageId> = set.iter().collect();
        if stages.len() > target.limits.stages as usize {
            return None;
        }
        let mut loads_up_to = Vec::with_capacity(stages.len());
        let (mut loaded, mut weight_bytes, mut table_bytes) = (0, 0, 0);
        for (&stage, first) in stages.iter().zip(first_uses(graph, &stages, previous)) {
            let profile = context.profile(stage);
            if first.is_first {
                weight_bytes += profile.weight_bytes;
            }
            if first.is_loaded {
                loaded += profile.weight_bytes;
                table_bytes += profile.table_bytes;
            }
            loads_up_to.push(loaded);
        }
        if weight_bytes > target.memory.weight {
            return None;
        }
        let touched = topology.touched(set);
        if touched.len() > target.limits.streams as usize {
            return None;
        }
        let (private, shared_buffers): (Vec<BufferId>, Vec<BufferId>) =
            touched.into_iter().partition(|&buffer| topology.is_private(graph, set, buffer));
        let mut parts = Parts { private, dma: Vec::new(), rings: Vec::new() };
        for &buffer in &shared_buffers {
            let ins = loads(graph, topology, set, buffer);
            let outs = stores(graph, topology, set, buffer, |reader| is_loaded(buffer, reader));
            parts.dma.extend(ins.iter().map(|t| Actor::dma_in(t.view)));
            parts.dma.extend(outs.iter().map(|t| Actor::dma_out(t.view)));
            let (load, store) = (Movement::of(context, &ins), Movement::of(context, &outs));
            parts.rings.push(Ring { load, store, ..Ring::default() });
        }
        let boundary = shared_buffers
            .into_iter()
            .map(|buffer| Boundary { buffer, whole_bytes: context.whole_bytes(buffer) });
        let candidate = Self {
            set: set.clone(),
            needs: topology.needs(set),
            loads_up_to: loads_up_to.into(),
            weight_bytes,
            table_bytes,
            boundary: boundary.collect(),
            stages,
            full_bytes: [None; Method::ALL.len()],
            variants: Rc::new([]),
        };
        Some((candidate, parts))
    }

    /// The least activation SRAM that a variant takes, wherever its boundary tensors live.
    pub fn least_bytes(&self, variant: &Variant) -> u64 {
        let rings = variant.rings.iter().zip(&self.boundary).map(|(ring, b)| ring.bytes.min(b.whole_bytes));
        variant.private.bytes + rings.sum::<u64>()
    }

    fn variant(
        &self,
        context: &Context<'_>,
        parts: &Parts,
        probes: &[OverlapProbe],
        How { method, division, slack }: How<'_>,
        memo: &mut SlotMemo,
    ) -> Variant {
        let profiles: Vec<&StageProfile> =
            self.stages.iter().map(|&stage| context.profile_by(stage, method)).collect();
        let implementations = implementations(&profiles, division);
        let running = running(context.target, &profiles, &implementations, division);
        let how = (implementations.iter().map(|i| i.winograd).collect(), slack);
        let (slots, gaps) = memo.entry(how).or_insert_with(|| slots(&running, &parts.dma, slack, probes));
        let time = pipeline(&running, slack == Buffering::Lockstep);
        let ring = |buffer: BufferId| {
            let rows = context.graph.buffers[buffer].rows;
            // A buffer that is read only, and not loaded, is whole; it has no ring.
            let slots = slots.get(&buffer).map(|&slots| slots.min(rows));
            let window = window(&context.topology, &self.set, buffer);
            match (slots, window) {
                (Some(slots), Some(window)) => context.ring_bytes(&window, slots),
                _ => context.whole_bytes(buffer),
            }
        };
        let private = Ring { bytes: parts.private.iter().map(|&b| ring(b)).sum(), ..Ring::default() };
        let rings = self.boundary.iter().zip(&parts.rings);
        let rings = rings.map(|(b, moved)| Ring {
            bytes: ring(b.buffer),
            turn_cycles: turn_cycles(&running, slack, b.buffer),
            load: moved.load.filling(context.target, &running, &time, b.buffer),
            store: moved.store.draining(&running, &time, b.buffer),
        });
        let rings = rings.collect();
        let growths = probes.iter().zip(gaps).filter_map(|(w, gap)| self.may_grow(w, *gap));
        let mut growths: Vec<MayGrow> = growths.collect();
        growths.sort_by_key(|may| (Reverse(may.saved_bytes), may.growing));
        let PipelineTime { starts, end: cycles, .. } = time;
        Variant {
            method,
            strips: None,
            division: division.clone(),
            implementations,
            slack,
            starts,
            cycles,
            correction: Cell::new(0),
            private,
            rings,
            growths,
        }
    }

    /// Pairs of boundary buffers of which one may take the space of the other.
    fn probes(&self, context: &Context<'_>) -> Vec<OverlapProbe> {
        let is_large = |b: &&Boundary| b.whole_bytes >= context.target.memory.activation / LEAST_SHARE;
        let uses = |b: &Boundary| &context.topology.uses[b.buffer];
        let is_written = |b: &Boundary| uses(b).writers.iter().any(|(stage, _)| self.set.contains(*stage));
        let is_read = |b: &Boundary| uses(b).readers.iter().any(|(stage, _)| self.set.contains(*stage));
        let pitch = |b: &Boundary| align(context.target, context.graph.buffers[b.buffer].row_bytes());
        let dying = self.boundary.iter().filter(is_large).filter(|b| is_read(b) && !is_written(b));
        dying
            .flat_map(|dying| {
                let growing = self.boundary.iter().filter(is_large).filter(|b| is_written(b));
                growing.map(|growing| OverlapProbe {
                    dying: dying.buffer,
                    dying_pitch: pitch(dying),
                    growing: growing.buffer,
                    growing_pitch: pitch(growing),
                })
            })
            .collect()
    }

    /// What a probed pair saves, if anything. The gap was seen with transfers at the borders, which a whole
    /// tensor does without; a row more of each makes up for what that changes.
    fn may_grow(&self, probe: &OverlapProbe, gap: u64) -> Option<MayGrow> {
        let at = |buffer: BufferId| self.boundary.iter().position(|b| b.buffer == buffer);
        let (growing, dying) = (at(probe.growing)?, at(probe.dying)?);
        let gap_bytes = gap + probe.dying_pitch + probe.growing_pitch;
        let into = GrowsInto { buffer: self.boundary[dying].buffer, gap_bytes };
        let (before, after) = (self.boundary[dying].whole_bytes, self.boundary[growing].whole_bytes);
        let saved_bytes = (before + after).saturating_sub(into.union_bytes(before, after));
        (saved_bytes > 0).then_some(MayGrow { growing, dying, gap_bytes, saved_bytes })
    }
}

/// A tensor of less than this part of SRAM is not worth growing into, nor letting grow.
const LEAST_SHARE: u64 = 64;

/// Ways to divide the array among stages and to size their rings, as variants that `make` evaluates. Direct
/// convolution is slower than Winograd, so of it only the variants that take the least memory are offered.
pub fn ways(
    context: &Context<'_>,
    divisions: &[Division],
    method: Method,
    mut make: impl FnMut(How<'_>) -> Variant,
) -> Vec<Variant> {
    let mut ways = Vec::new();
    let target = context.target;
    for division in divisions {
        let n_stages = division.of_stage.len();
        let mut with = |slack: Buffering| make(How { method, division, slack });
        let overlapping = (method == Method::Fastest).then(|| with(Buffering::Overlap));
        // Alone, a stage has only transfers to work in lockstep with: worth it only where nothing else fits.
        let is_too_large = |variant: &Variant| variant.sram_bytes() > target.memory.activation;
        let wants_lockstep = n_stages > 1 || overlapping.as_ref().is_none_or(is_too_large);
        let lockstep = wants_lockstep.then(|| with(Buffering::Lockstep));
        // Of ways that cost the same the first is taken.
        let is_leaner_first = division.partitions.len() < n_stages && context.puts_room_first();
        let in_order = if is_leaner_first { [lockstep, overlapping] } else { [overlapping, lockstep] };
        ways.extend(in_order.into_iter().flatten());
    }
    ways
}

/// How each stage runs in a division of the array.
pub fn implementations(profiles: &[&StageProfile], division: &Division) -> Vec<Implementation> {
    let of_stage = profiles.iter().zip(&division.of_stage);
    of_stage.map(|(profile, &p)| *profile.on(division.partitions[p as usize])).collect()
}

/// The stages as they run.
pub fn running<'a>(
    target: &Target,
    profiles: &[&'a StageProfile],
    implementations: &[Implementation],
    division: &Division,
) -> Vec<Running<'a>> {
    let of_stage = profiles.iter().zip(implementations).enumerate();
    let running = of_stage.map(|(stage, (profile, how))| {
        let switch = if division.is_shared(stage) { target.switch.stage_cycles } else { 0 };
        Running {
            actor: profile.actor(how.winograd),
            step_cycles: how.step_cycles + u64::from(switch),
            partition: division.of_stage[stage],
        }
    });
    running.collect()
}

/// Row slots of the rings of stages and transfers, and how far probed tensors must stand apart.
pub fn slots(
    running: &[Running<'_>],
    dma: &[Actor],
    slack: Buffering,
    probes: &[OverlapProbe],
) -> (BTreeMap<BufferId, u32>, Vec<u64>) {
    let mut actors: Vec<Actor> = dma.iter().filter(|actor| actor.out().is_some()).cloned().collect();
    actors.extend(running.iter().map(|r| r.actor.clone()));
    actors.extend(dma.iter().filter(|actor| actor.out().is_none()).cloned());
    ring_slots_and_gaps(&actors, slack, probes)
}

/// Cycles of the busiest stage that has to do with a buffer and works by turns with its transfers: in
/// lockstep a ring has no room for a row that is loaded or stored while a step is under way.
pub fn turn_cycles(running: &[Running<'_>], slack: Buffering, buffer: BufferId) -> u64 {
    if slack != Buffering::Lockstep {
        return 0;
    }
    let uses = |stage: &&Running<'_>| {
        let mut views = stage.actor.edges().map(|edge| edge.view).chain(stage.actor.out());
        views.any(|view| view.tensor == buffer)
    };
    running.iter().filter(uses).map(Running::work).max().unwrap_or(0)
}

/// Whether the role of a buffer puts it in DRAM from the start.
pub fn stands_in_dram(graph: &StageGraph, buffer: BufferId) -> bool {
    matches!(graph.buffers[buffer].role, BufferRole::Input(_))
}
