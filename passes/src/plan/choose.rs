//! The chooser: which columns, in which order, and where every boundary tensor lives.
//!
//! Exact dynamic programming over cuts. A node is a set of stages that have run (closed under dependence) with a place for
//! each tensor that is still needed; a step runs one column as a phase. Costs add up but for one coupling, the weights: a
//! phase prefetches those of the next into what weight SRAM it leaves free, in what DRAM time it leaves free. So a
//! label carries, beside its score, those two numbers, and a label is dropped only for one that is no worse in all
//! three. Labels at a node, nodes of one size and placings of one phase are limited in number; if a limit ever drops
//! one, the result is no longer called proven. What binds the least SRAM is never dropped: every tensor in DRAM is the plan
//! that works when no better one does. A search that has done its share of work goes on, but narrow.
//!
//! Limits count work, never time; nothing depends on hash order.

mod replay;

use std::collections::BTreeMap;

use super::columns::{Boundary, Column, Context, Growth, Movement, Ring, Variant, stands_in_dram};
use super::cost::{Weights, dram_bound};
use super::graph::StageSet;
use super::{BufferId, BufferRole, StageId};
use crate::schedule::FARTHEST_PREFETCH;

pub use replay::replay;

/// Where a tensor that is still needed lives between phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In DRAM only.
    Dram,
    /// Whole in SRAM only.
    Sram,
    /// In both.
    Both,
    /// Whole in SRAM only, in the bytes of its [host](super::in_place), which still stands there too.
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

/// Labels of a cut, by where the tensors are.
type States = BTreeMap<Places, Vec<usize>>;

/// A phase of the answer.
#[derive(Clone, Debug)]
pub struct ChosenPhase {
    /// Index of the column.
    pub column: usize,
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
    /// Whether no plan over these columns scores less, under the planner's cost model, in which all strips of a column cost
    /// what the widest does.
    pub proven: bool,
}

#[derive(Clone, Debug)]
struct Label {
    score: u128,
    cycles: u64,
    bytes: u64,
    /// Weight SRAM that the last phase leaves free.
    free_weights: u64,
    /// Bytes that DRAM could still have moved during it.
    spare_bytes: u64,
    previous: Option<usize>,
    phase: Option<ChosenPhase>,
}

impl Label {
    /// Nothing has run.
    fn start() -> Self {
        Self { score: 0, cycles: 0, bytes: 0, free_weights: 0, spare_bytes: 0, previous: None, phase: None }
    }
}

/// Limits of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Labels kept for one cut and one set of places.
    pub labels_per_state: usize,
    /// Labels kept for one cut.
    pub labels_per_cut: usize,
    /// Cuts of one number of stages that are followed.
    pub cuts: usize,
    /// Ways to place the tensors of one phase.
    pub placings: usize,
    /// Placings, whole or in part, labels and cuts made before the search becomes narrow.
    pub work: usize,
    /// Whether tensors may take the space of others that die.
    pub growths: bool,
}

impl SearchLimits {
    /// The widths of a search that has done its share of work: what is left of it takes time linear in the columns.
    fn narrow(self) -> Self {
        Self {
            labels_per_cut: self.labels_per_cut.min(4),
            cuts: self.cuts.min(2),
            placings: self.placings.min(4),
            ..self
        }
    }
}

/// What came of a search without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The largest set of stages that could be run.
    pub reached: StageSet,
}

/// The order of phases that scores least over the columns; `capacity` bytes of activation SRAM.
///
/// # Errors
/// If no order of the columns runs every stage.
pub fn choose(
    context: &Context<'_>,
    columns: &[Column],
    weights: Weights,
    capacity: u64,
    limits: SearchLimits,
) -> Result<Choice, Stuck> {
    let all: StageSet = context.graph.stages.keys().collect();
    let mut search =
        Search { context, columns, weights, capacity, limits, labels: Vec::new(), work: 0, proven: true };
    search.labels.push(Label::start());
    let mut open: BTreeMap<(usize, StageSet), States> = BTreeMap::new();
    open.insert((0, StageSet::default()), BTreeMap::from([(Places::new(), vec![0])]));
    let mut reached = StageSet::default();
    let mut level = 0;
    while let Some(((size, done), mut states)) = open.pop_first() {
        if done == all {
            let ends = states.values().flatten().copied();
            let best = ends.min_by_key(|&l| (search.labels[l].score, l));
            return Ok(search.answer(best.expect("a cut that was reached has a label")));
        }
        if size > level {
            level = size;
            search.limit_cuts(&mut open, size);
        }
        reached.clone_from(&done);
        search.limit(&mut states);
        for (at, column) in columns.iter().enumerate() {
            if column.set.meets(&done) || !column.needs.is_subset(&done) {
                continue;
            }
            let after = done.union(&column.set);
            let key = (after.len(), after);
            let live = search.live_after(&key.1);
            let mut found = Vec::new();
            for (places, labels) in &states {
                search.extend(at, places, labels, &live, &mut found);
            }
            search.work += 1 + found.len();
            if found.is_empty() {
                continue;
            }
            let target = open.entry(key).or_default();
            for (places, label) in found {
                search.keep(target.entry(places).or_default(), label);
            }
            // Long before it is visited, a cut has more labels than it will keep.
            if target.len() > 4 * limits.labels_per_cut {
                search.limit(target);
            }
        }
    }
    Err(Stuck { reached })
}

struct Search<'a> {
    context: &'a Context<'a>,
    columns: &'a [Column],
    weights: Weights,
    capacity: u64,
    limits: SearchLimits,
    labels: Vec<Label>,
    /// Placings, labels and cuts made.
    work: usize,
    proven: bool,
}

/// A way to place the boundary tensors of a column.
#[derive(Clone, Debug)]
struct Placing {
    places: Places,
    sram_bytes: u64,
    load: Movement,
    store: Movement,
    dma_stages: u32,
    growths: Vec<Growth>,
}

impl Placing {
    /// No boundary tensor has a place yet.
    fn of(variant: &Variant) -> Self {
        let Ring { bytes, load, store } = variant.private;
        let dma_stages = load.stages + store.stages;
        Self { places: Vec::new(), sram_bytes: bytes, load, store, dma_stages, growths: Vec::new() }
    }
}

/// A tensor that has a place during a phase: one that the phase shares with others, or one that waits for a later phase.
#[derive(Clone, Debug)]
struct Slot<'a> {
    buffer: BufferId,
    /// What the phase does with it, if anything.
    ring: Option<&'a Ring>,
    before: Option<Place>,
    /// Where it can be.
    options: Vec<Place>,
    /// Whether [`Place::Both`] is no worse than [`Place::Dram`] but for its bytes of SRAM: it moves no more now, and can
    /// still be dropped later.
    keeping_is_free: bool,
    whole_bytes: u64,
    ring_bytes: u64,
}

impl Slot<'_> {
    fn sram_bytes(&self, place: Place) -> u64 {
        match place {
            Place::Dram => self.ring_bytes,
            Place::Sram | Place::Both => self.whole_bytes,
            Place::InPlace => 0,
        }
    }
}

impl Search<'_> {
    /// The widths in force.
    fn widths(&self) -> SearchLimits {
        if self.work < self.limits.work { self.limits } else { self.limits.narrow() }
    }

    /// Bytes of SRAM that tensors take which stand nowhere else, and so must stay until they are dead.
    fn bound_bytes(&self, places: &Places) -> u64 {
        let only_sram = places.iter().filter(|(_, place)| *place == Place::Sram);
        only_sram.map(|&(buffer, _)| self.context.whole_bytes(buffer)).sum()
    }

    /// For each buffer, whether stages outside of `done` still use it.
    fn live_after(&self, done: &StageSet) -> Vec<bool> {
        let uses = self.context.topology.uses.iter();
        uses.map(|u| u.readers.iter().chain(&u.writers).any(|(stage, _)| !done.contains(*stage))).collect()
    }

    /// Places after a phase: of the tensors that are needed on, and none in place of one that is not.
    fn places_after(&self, places: &Places, live: &[bool]) -> Places {
        let is_live = |buffer: BufferId| live[buffer.as_u32() as usize];
        let alone = |buffer: BufferId, place: Place| {
            let has_host = self.context.hosts[buffer.as_u32() as usize].is_some_and(is_live);
            if place == Place::InPlace && !has_host { Place::Sram } else { place }
        };
        let living = places.iter().filter(|(buffer, _)| is_live(*buffer));
        living.map(|&(buffer, place)| (buffer, alone(buffer, place))).collect()
    }

    /// Extends labels that share their places by a column.
    fn extend(
        &mut self,
        at: usize,
        places: &Places,
        labels: &[usize],
        live: &[bool],
        found: &mut Vec<(Places, Label)>,
    ) {
        let columns = self.columns;
        let column = &columns[at];
        for (which, variant) in column.variants.iter().enumerate() {
            for placing in self.placings(column, variant, places, live) {
                let stages = column.stages.len() as u32 + placing.dma_stages;
                if placing.sram_bytes > self.capacity || stages > self.context.target.limits.stages {
                    continue;
                }
                let after = self.places_after(&placing.places, live);
                for &previous in labels {
                    let label = self.run(previous, at, which, &placing);
                    found.push((after.clone(), label));
                }
            }
        }
    }

    /// Ways to place the tensors of a phase: all that are not plainly worse than another, or the best of them if they are
    /// more than the beam.
    fn placings(
        &mut self,
        column: &Column,
        variant: &Variant,
        before: &Places,
        live: &[bool],
    ) -> Vec<Placing> {
        let slots = self.slots(column, variant, before, live);
        // What the slots from here on take at the least and at the most.
        let (mut least, mut most) = (vec![0; slots.len() + 1], vec![0; slots.len() + 1]);
        for (at, slot) in slots.iter().enumerate().rev() {
            let bytes = || slot.options.iter().map(|&option| slot.sram_bytes(option));
            least[at] = least[at + 1] + bytes().min().unwrap_or(0);
            most[at] = most[at + 1] + bytes().max().unwrap_or(0);
        }
        let mut ways = vec![Placing::of(variant)];
        // Growing into others comes last, when all places are known: till then there is room for what it may save.
        let growths = self.growths(variant, &slots, live);
        let beam = self.widths().placings;
        for (at, slot) in slots.iter().enumerate() {
            let mut next = Vec::new();
            for way in &ways {
                for &option in &slot.options {
                    let room = self.capacity + may_save(&growths, way, slot.buffer, option);
                    let all_fit = way.sram_bytes + slot.whole_bytes + most[at + 1] <= self.capacity;
                    let is_worse = option == Place::Dram && slot.keeping_is_free && all_fit;
                    let sram_bytes = way.sram_bytes + slot.sram_bytes(option);
                    if !is_worse && sram_bytes + least[at + 1] <= room {
                        next.push(self.placed(way, slot, option));
                    }
                }
            }
            self.work += next.len();
            if next.len() > beam {
                self.proven = false;
                // What binds the least SRAM for later phases stays: it is what still fits when nothing else does.
                next.sort_by_key(|way| (way.load.bytes + way.store.bytes, way.sram_bytes));
                let binds = |way: &Placing| (self.bound_bytes(&way.places), way.sram_bytes);
                let lightest = (0..next.len()).min_by_key(|&at| binds(&next[at]));
                if let Some(at) = lightest.filter(|&at| at >= beam) {
                    next.swap(at, beam - 1);
                }
                next.truncate(beam);
            }
            ways = next;
        }
        for way in &mut ways {
            way.places.sort_unstable();
            self.grow(way, &growths);
        }
        ways.retain(|way| way.sram_bytes <= self.capacity);
        ways
    }

    /// Which growths of a variant this phase may make, the most saving first: the one tensor was whole and is read here for
    /// the last time, the other is written here first and used later.
    fn growths(&self, variant: &Variant, slots: &[Slot<'_>], live: &[bool]) -> Vec<Growth> {
        let is_live = |buffer: BufferId| live[buffer.as_u32() as usize];
        let before = |buffer: BufferId| slots.iter().find(|s| s.buffer == buffer).and_then(|s| s.before);
        let may = |growth: &&Growth| {
            self.limits.growths
                && before(growth.into.buffer).is_some_and(Place::in_sram)
                && !is_live(growth.into.buffer)
                && before(growth.growing).is_none()
                && is_live(growth.growing)
        };
        let mut possible: Vec<Growth> = variant.growths.iter().filter(may).copied().collect();
        possible.sort_by_key(|growth| (std::cmp::Reverse(growth.saved_bytes), growth.growing));
        let mut growths: Vec<Growth> = Vec::new();
        for growth in possible {
            let is_taken =
                |other: &Growth| other.growing == growth.growing || other.into.buffer == growth.into.buffer;
            if !growths.iter().any(is_taken) {
                growths.push(growth);
            }
        }
        growths
    }

    /// Lets tensors of a placing that is complete take the space of others.
    fn grow(&self, way: &mut Placing, growths: &[Growth]) {
        for growth in growths {
            let place = |buffer: BufferId| way.places.iter().find(|(b, _)| *b == buffer).map(|(_, p)| *p);
            let is_whole = |buffer: BufferId| {
                place(buffer).is_some_and(|place| place.in_sram() && place != Place::InPlace)
            };
            let is_in_its_place = |&(other, place): &(BufferId, Place)| {
                place == Place::InPlace
                    && self.context.hosts[other.as_u32() as usize] == Some(growth.into.buffer)
            };
            let is_free = !way.places.iter().any(is_in_its_place);
            if is_whole(growth.growing) && is_whole(growth.into.buffer) && is_free {
                way.sram_bytes -= growth.saved_bytes;
                way.growths.push(*growth);
            }
        }
    }

    /// The tensors that have a place during a phase of this column.
    fn slots<'c>(
        &self,
        column: &'c Column,
        variant: &'c Variant,
        before: &Places,
        live: &[bool],
    ) -> Vec<Slot<'c>> {
        let touched = column.boundary.iter().zip(&variant.rings).map(|(boundary, ring)| {
            let place = before.iter().find(|(b, _)| *b == boundary.buffer).map(|(_, place)| *place);
            let is_live = live[boundary.buffer.as_u32() as usize];
            let mut options = self.options(boundary, place, is_live);
            if self.may_be_in_place(column, before, boundary.buffer, is_live) {
                // Its host stands in SRAM whatever is chosen here, so this is Sram without the bytes.
                options = vec![Place::Dram, Place::InPlace, Place::Both];
            }
            let size = self.context.graph.buffers[boundary.buffer].size_bytes();
            let first_load = place.is_none() && stands_in_dram(self.context.graph, boundary.buffer);
            Slot {
                buffer: boundary.buffer,
                ring: Some(ring),
                before: place,
                keeping_is_free: options.contains(&Place::Both) && (!first_load || ring.load.bytes >= size),
                options,
                whole_bytes: boundary.whole_bytes,
                ring_bytes: ring.bytes.min(boundary.whole_bytes),
            }
        });
        let is_touched = |buffer: BufferId| column.boundary.iter().any(|b| b.buffer == buffer);
        let others = before.iter().filter(|(buffer, _)| !is_touched(*buffer)).map(|&(buffer, place)| Slot {
            buffer,
            ring: None,
            before: Some(place),
            keeping_is_free: place == Place::Both,
            options: if place == Place::Both { vec![Place::Both, Place::Dram] } else { vec![place] },
            whole_bytes: self.context.whole_bytes(buffer),
            ring_bytes: 0,
        });
        touched.chain(others).collect()
    }

    /// Whether a tensor that a phase writes first may be written in place of its host: that is whole, stands nowhere else, and
    /// the phase does nothing with it but to write the tensor.
    fn may_be_in_place(&self, column: &Column, before: &Places, buffer: BufferId, stays: bool) -> bool {
        let Some(host) = self.context.hosts[buffer.as_u32() as usize].filter(|_| self.limits.growths) else {
            return false;
        };
        let place = |buffer: BufferId| before.iter().find(|(b, _)| *b == buffer).map(|(_, place)| *place);
        let uses = |buffer: BufferId| &self.context.topology.uses[buffer.as_u32() as usize];
        let is_written_by = |stage: StageId| uses(buffer).writers.iter().any(|(writer, _)| *writer == stage);
        let mut of_host = uses(host).writers.iter().chain(&uses(host).readers).map(|(stage, _)| *stage);
        stays
            && place(buffer).is_none()
            && place(host) == Some(Place::Sram)
            && of_host.all(|stage| is_written_by(stage) || !column.set.contains(stage))
    }

    /// Places that a tensor can have during and after a phase that touches it.
    fn options(&self, boundary: &Boundary, before: Option<Place>, stays: bool) -> Vec<Place> {
        let role = self.context.graph.buffers[boundary.buffer].role;
        match (before, role) {
            (Some(place @ (Place::Sram | Place::Dram | Place::InPlace)), _) => vec![place],
            // What stands in both may give its SRAM up at any time, even for its last use.
            (Some(Place::Both), _) => vec![Place::Dram, Place::Both],
            (None, BufferRole::Input(_) | BufferRole::Output(_)) if stays => vec![Place::Dram, Place::Both],
            (None, BufferRole::Input(_) | BufferRole::Output(_)) => vec![Place::Dram],
            (None, BufferRole::Internal) => vec![Place::Dram, Place::Sram, Place::Both],
        }
    }

    fn placed(&self, way: &Placing, slot: &Slot<'_>, now: Place) -> Placing {
        let mut way = way.clone();
        way.places.push((slot.buffer, now));
        way.sram_bytes += slot.sram_bytes(now);
        let Some(ring) = slot.ring else { return way };
        let first_load = slot.before.is_none() && stands_in_dram(self.context.graph, slot.buffer);
        if now == Place::Dram || first_load {
            let mut load = ring.load;
            if now.in_sram() {
                load.bytes = self.context.graph.buffers[slot.buffer].size_bytes();
            }
            way.load.add(load);
            way.dma_stages += load.stages;
        }
        if now.in_dram() {
            way.store.add(ring.store);
            way.dma_stages += ring.store.stages;
        }
        way
    }

    /// The label after a phase.
    fn run(&self, previous: usize, column: usize, variant: usize, placing: &Placing) -> Label {
        let before = &self.labels[previous];
        let target = self.context.target;
        let (col, var) = (&self.columns[column], &self.columns[column].variants[variant]);
        // What was prefetched is the front of the weights, in order of stages.
        let to_load = col.loads_up_to.last().copied().unwrap_or(0);
        let prefetched = to_load.min(before.free_weights).min(before.spare_bytes);
        let rate = u64::from(target.dram.bytes_per_cycle.max(1));
        let latency = u64::from(target.dram.latency_cycles);
        let phase_cycles = u64::from(target.switch.phase_cycles);
        let late = (col.loads_up_to.iter().zip(&var.starts)).filter(|(up_to, _)| **up_to > prefetched).map(
            |(up_to, start)| {
                ((up_to - prefetched).div_ceil(rate) + latency).saturating_sub(start + phase_cycles)
            },
        );
        let delay = late.max().unwrap_or(0);
        let moved = placing.load.bytes + placing.store.bytes;
        let n_phases = var.n_phases();
        let pipeline = var.cycles + placing.load.row_cycles + placing.store.row_cycles;
        let dma = placing.load.cycles.max(placing.store.cycles) + placing.store.row_cycles;
        let channel = |weights: u64| dram_bound(target, moved / n_phases + weights);
        let first = phase_cycles + (pipeline + delay).max(dma).max(channel(to_load - prefetched));
        // Strips after the first find the weights loaded.
        let next = phase_cycles + pipeline.max(dma).max(channel(0));
        let cycles = first + (n_phases - 1) * next;
        let bytes = moved + col.table_bytes;
        let ahead = n_phases.min(FARTHEST_PREFETCH as u64);
        let (spare_cycles, busy) = if n_phases > ahead {
            (ahead * next, ahead * (moved / n_phases))
        } else {
            (cycles, moved + to_load - prefetched)
        };
        Label {
            score: before.score + self.weights.score(cycles, bytes),
            cycles: before.cycles + cycles,
            bytes: before.bytes + bytes,
            free_weights: target.memory.weight.saturating_sub(col.weight_bytes),
            spare_bytes: (spare_cycles * rate).saturating_sub(busy),
            previous: Some(previous),
            phase: Some(ChosenPhase {
                column,
                variant,
                places: placing.places.clone(),
                growths: placing.growths.clone(),
                cycles,
                sram_bytes: placing.sram_bytes,
                moved_bytes: moved,
            }),
        }
    }

    /// Adds a label to those of a state, unless one of them is no worse in everything.
    fn keep(&mut self, state: &mut Vec<usize>, label: Label) {
        let no_worse = |a: &Label, b: &Label| {
            a.score <= b.score && a.free_weights >= b.free_weights && a.spare_bytes >= b.spare_bytes
        };
        if state.iter().any(|&other| no_worse(&self.labels[other], &label)) {
            return;
        }
        state.retain(|&other| !no_worse(&label, &self.labels[other]));
        state.push(self.labels.len());
        self.labels.push(label);
        if state.len() > self.limits.labels_per_state {
            self.proven = false;
            let worst = (0..state.len()).max_by_key(|&i| (self.labels[state[i]].score, state[i]));
            if let Some(worst) = worst {
                state.remove(worst);
            }
        }
    }

    /// Keeps the best labels of a cut, and the best of those that bind the least SRAM.
    fn limit(&mut self, states: &mut States) {
        let width = self.widths().labels_per_cut;
        let mut labels: Vec<(u128, usize)> =
            states.values().flatten().map(|&l| (self.labels[l].score, l)).collect();
        if labels.len() <= width {
            return;
        }
        self.proven = false;
        labels.sort_unstable();
        let worst_kept = labels[width - 1];
        let freest = states
            .iter()
            .flat_map(|(places, list)| list.iter().map(move |&l| (places, l)))
            .min_by_key(|&(places, l)| (self.bound_bytes(places), self.labels[l].score, l))
            .map(|(_, l)| l);
        for list in states.values_mut() {
            list.retain(|&l| (self.labels[l].score, l) <= worst_kept || Some(l) == freest);
        }
        states.retain(|_, list| !list.is_empty());
    }

    /// Keeps the best cuts of a number of stages, of which the first was just taken out.
    fn limit_cuts(&mut self, open: &mut BTreeMap<(usize, StageSet), States>, size: usize) {
        let width = self.widths().cuts;
        let best = |states: &States| states.values().flatten().map(|&l| self.labels[l].score).min();
        let mut scores: Vec<(Option<u128>, StageSet)> = (open.iter())
            .take_while(|((n, _), _)| *n == size)
            .map(|((_, done), states)| (best(states), done.clone()))
            .collect();
        if scores.len() < width {
            return;
        }
        self.proven = false;
        scores.sort_unstable();
        for (_, done) in scores.into_iter().skip(width - 1) {
            open.remove(&(size, done));
        }
    }

    fn answer(&self, last: usize) -> Choice {
        let (cycles, bytes) = (self.labels[last].cycles, self.labels[last].bytes);
        let mut phases = Vec::new();
        let mut at = Some(last);
        while let Some(label) = at {
            phases.extend(self.labels[label].phase.clone());
            at = self.labels[label].previous;
        }
        phases.reverse();
        Choice { phases, cycles, bytes, proven: self.proven }
    }
}

/// Bytes that growths may yet save of a placing in which `buffer` is placed next: those of tensors that are whole, or may be.
fn may_save(growths: &[Growth], way: &Placing, buffer: BufferId, place: Place) -> u64 {
    let may_be_whole = |b: BufferId| {
        let mut placed = way.places.iter().copied().chain([(buffer, place)]);
        placed.find(|(other, _)| *other == b).is_none_or(|(_, place)| place.in_sram())
    };
    let may = |growth: &&Growth| may_be_whole(growth.growing) && may_be_whole(growth.into.buffer);
    growths.iter().filter(may).map(|growth| growth.saved_bytes).sum()
}
