//! The chooser: which columns, in which order, and where every boundary tensor lives.
//!
//! Exact dynamic programming over cuts. A node is a set of stages that have run (closed under dependence) with a place for
//! each tensor that is still needed; a step runs one column as a phase. Costs add up but for one coupling, the weights: a
//! phase prefetches those of the next into what weight SRAM it leaves free, in what DRAM time it leaves free. So a
//! label carries, beside its score, those two numbers, and a label is dropped only for one that is no worse in all
//! three. Labels at a node are limited in number; if that limit ever drops one, the result is no longer called proven.
//!
//! Limits count labels, never time; nothing depends on hash order.

use std::collections::BTreeMap;

use super::columns::{Boundary, Column, Context, Movement, Variant, stands_in_dram};
use super::cost::{Weights, dram_bound};
use super::graph::StageSet;
use super::{BufferId, BufferRole};

/// Where a tensor that is still needed lives between phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In DRAM only.
    Dram,
    /// Whole in SRAM only.
    Sram,
    /// In both.
    Both,
}

impl Place {
    fn in_sram(self) -> bool {
        self != Self::Dram
    }
}

/// Places of the tensors that are alive, by buffer.
type Places = Vec<(BufferId, Place)>;

/// A phase of the answer.
#[derive(Clone, Debug)]
pub struct ChosenPhase {
    /// Index of the column.
    pub column: usize,
    /// Index of its variant.
    pub variant: usize,
    /// Places of tensors during the phase.
    pub places: Places,
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
    /// Whether no plan over these columns scores less, under the planner's cost model.
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

/// Limits of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Labels kept for one cut and one set of places.
    pub labels_per_state: usize,
    /// Labels kept for one cut.
    pub labels_per_cut: usize,
    /// Cuts visited.
    pub cuts: usize,
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
    let mut search = Search { context, columns, weights, capacity, limits, labels: Vec::new(), proven: true };
    search.labels.push(Label {
        score: 0,
        cycles: 0,
        bytes: 0,
        free_weights: 0,
        spare_bytes: 0,
        previous: None,
        phase: None,
    });
    let mut open: BTreeMap<(usize, StageSet), BTreeMap<Places, Vec<usize>>> = BTreeMap::new();
    open.insert((0, StageSet::default()), BTreeMap::from([(Places::new(), vec![0])]));
    let mut reached = StageSet::default();
    let mut visited = 0;
    while let Some(((_, done), mut states)) = open.pop_first() {
        if done == all {
            let ends = states.values().flatten().copied();
            let best = ends.min_by_key(|&l| (search.labels[l].score, l));
            return Ok(search.answer(best.expect("a cut that was reached has a label")));
        }
        reached.clone_from(&done);
        visited += 1;
        if visited > limits.cuts {
            break;
        }
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
            if found.is_empty() {
                continue;
            }
            let target = open.entry(key).or_default();
            for (places, label) in found {
                search.keep(target.entry(places).or_default(), label);
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
}

impl Search<'_> {
    /// For each buffer, whether stages outside of `done` still use it.
    fn live_after(&self, done: &StageSet) -> Vec<bool> {
        let uses = self.context.topology.uses.iter();
        uses.map(|u| u.readers.iter().chain(&u.writers).any(|(stage, _)| !done.contains(*stage))).collect()
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
                let after: Places =
                    placing.places.iter().copied().filter(|(b, _)| live[b.as_u32() as usize]).collect();
                for &previous in labels {
                    let label = self.run(previous, at, which, &placing);
                    found.push((after.clone(), label));
                }
            }
        }
    }

    /// Every way to place the tensors of a phase.
    fn placings(&self, column: &Column, variant: &Variant, before: &Places, live: &[bool]) -> Vec<Placing> {
        let start = Placing {
            places: Vec::new(),
            sram_bytes: variant.private_bytes,
            load: Movement::default(),
            store: Movement::default(),
            dma_stages: 0,
        };
        let mut ways = vec![start];
        for (boundary, &ring) in column.boundary.iter().zip(&variant.ring_bytes) {
            let place = before.iter().find(|(b, _)| *b == boundary.buffer).map(|(_, place)| *place);
            let stays = live[boundary.buffer.as_u32() as usize];
            let options = self.options(boundary, place, stays);
            ways = (ways.iter())
                .flat_map(|way| options.iter().map(|&option| self.placed(way, boundary, ring, place, option)))
                .filter(|way| way.sram_bytes <= self.capacity)
                .collect();
        }
        for &(buffer, place) in before {
            if column.boundary.iter().any(|b| b.buffer == buffer) {
                continue;
            }
            let options: &[Place] = if place == Place::Both { &[Place::Both, Place::Dram] } else { &[place] };
            let bytes = self.context.whole_bytes(buffer);
            ways = (ways.iter())
                .flat_map(|way| {
                    options.iter().map(|&option| {
                        let mut way = way.clone();
                        way.places.push((buffer, option));
                        way.sram_bytes += if option.in_sram() { bytes } else { 0 };
                        way
                    })
                })
                .filter(|way| way.sram_bytes <= self.capacity)
                .collect();
        }
        for way in &mut ways {
            way.places.sort_unstable();
        }
        ways
    }

    /// Places that a tensor can have during and after a phase that touches it.
    fn options(&self, boundary: &Boundary, before: Option<Place>, stays: bool) -> Vec<Place> {
        let role = self.context.graph.buffers[boundary.buffer].role;
        match (before, role) {
            (Some(Place::Sram), _) => vec![Place::Sram],
            (Some(Place::Dram), _) => vec![Place::Dram],
            (Some(Place::Both), _) | (None, BufferRole::Input(_) | BufferRole::Output(_)) if stays => {
                vec![Place::Dram, Place::Both]
            }
            (Some(Place::Both), _) => vec![Place::Both],
            (None, BufferRole::Input(_) | BufferRole::Output(_)) => vec![Place::Dram],
            (None, BufferRole::Internal) => vec![Place::Dram, Place::Sram, Place::Both],
        }
    }

    fn placed(
        &self,
        way: &Placing,
        boundary: &Boundary,
        ring: u64,
        before: Option<Place>,
        now: Place,
    ) -> Placing {
        let mut way = way.clone();
        way.places.push((boundary.buffer, now));
        way.sram_bytes += if now.in_sram() { boundary.whole_bytes } else { ring.min(boundary.whole_bytes) };
        let first_load = before.is_none() && stands_in_dram(self.context.graph, boundary.buffer);
        if now == Place::Dram || first_load {
            let mut load = boundary.load;
            if now.in_sram() {
                load.bytes = self.context.graph.buffers[boundary.buffer].size_bytes();
            }
            add(&mut way.load, load);
            way.dma_stages += load.stages;
        }
        if now != Place::Sram {
            add(&mut way.store, boundary.store);
            way.dma_stages += boundary.store.stages;
        }
        way
    }

    /// The label after a phase.
    fn run(&self, previous: usize, column: usize, variant: usize, placing: &Placing) -> Label {
        let before = &self.labels[previous];
        let target = self.context.target;
        let (col, var) = (&self.columns[column], &self.columns[column].variants[variant]);
        // What was prefetched is the front of the weights, in order of stages.
        let weight_bytes = col.weight_bytes();
        let prefetched = weight_bytes.min(before.free_weights).min(before.spare_bytes);
        let rate = u64::from(target.dram.bytes_per_cycle.max(1));
        let latency = u64::from(target.dram.latency_cycles);
        let phase_cycles = u64::from(target.switch.phase_cycles);
        let late = (col.weights_up_to.iter().zip(&var.starts)).filter(|(up_to, _)| **up_to > prefetched).map(
            |(up_to, start)| {
                ((up_to - prefetched).div_ceil(rate) + latency).saturating_sub(start + phase_cycles)
            },
        );
        let delay = late.max().unwrap_or(0);
        let moved = placing.load.bytes + placing.store.bytes;
        let pipeline = var.cycles + placing.load.row_cycles + placing.store.row_cycles + delay;
        let dma = placing.load.cycles.max(placing.store.cycles) + placing.store.row_cycles;
        let channel = dram_bound(target, moved + weight_bytes - prefetched);
        let cycles = phase_cycles + pipeline.max(dma).max(channel);
        let busy = moved + weight_bytes - prefetched;
        let bytes = moved + col.table_bytes;
        Label {
            score: before.score + self.weights.score(cycles, bytes),
            cycles: before.cycles + cycles,
            bytes: before.bytes + bytes,
            free_weights: target.memory.weight.saturating_sub(weight_bytes),
            spare_bytes: (cycles * rate).saturating_sub(busy),
            previous: Some(previous),
            phase: Some(ChosenPhase {
                column,
                variant,
                places: placing.places.clone(),
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

    /// Keeps the best labels of a cut.
    fn limit(&mut self, states: &mut BTreeMap<Places, Vec<usize>>) {
        let mut labels: Vec<(u128, usize)> =
            states.values().flatten().map(|&l| (self.labels[l].score, l)).collect();
        if labels.len() <= self.limits.labels_per_cut {
            return;
        }
        self.proven = false;
        labels.sort_unstable();
        let worst_kept = labels[self.limits.labels_per_cut - 1];
        for list in states.values_mut() {
            list.retain(|&l| (self.labels[l].score, l) <= worst_kept);
        }
        states.retain(|_, list| !list.is_empty());
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

fn add(total: &mut Movement, more: Movement) {
    total.stages += more.stages;
    total.bytes += more.bytes;
    total.cycles = total.cycles.max(more.cycles);
    total.row_cycles = total.row_cycles.max(more.row_cycles);
}
