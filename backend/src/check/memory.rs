//! What phases hold and move: both memories, DMA stages, streams and DRAM bytes, replayed phase by phase.

use std::collections::{BTreeMap, BTreeSet};

use super::prefixes::below;
use super::{Judge, PlanFault, common, hull, row_bytes, tiles, whole};
use crate::cost::rings::{Actor, OverlapProbe, ring_slots_and_gaps};
use crate::cost::with_winograd;
use crate::model::{Buffer, BufferId, BufferRole, BufferView, DramBytes, StageId};

/// Whose tables they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TableOwner {
    Set(u32),
    Stage(StageId),
}

/// What the phases up to one have moved and loaded.
#[derive(Default)]
struct Replay {
    /// All that is moved.
    moved: DramBytes,
    /// Bytes of each input that were loaded once.
    seen: BTreeMap<BufferId, u64>,
    /// The tables of the phase before.
    tables: BTreeSet<TableOwner>,
}

impl Replay {
    /// Notes a load. What is loaded of an input again counts as a spill.
    fn load(&mut self, id: BufferId, buffer: &Buffer, view: &BufferView) {
        let bytes = bytes_of(buffer, view);
        let mut fresh = 0;
        if matches!(buffer.role, BufferRole::Input(_)) {
            let seen = self.seen.entry(id).or_default();
            fresh = bytes.min(buffer.size_bytes() - *seen);
            *seen += fresh;
        }
        self.moved.inputs += fresh;
        self.moved.spill_read += bytes - fresh;
    }
}

/// What one phase takes.
#[derive(Default)]
struct Taken {
    /// Bytes of activation SRAM.
    activation: u64,
    /// Bytes of weight SRAM.
    weights: u64,
    n_dma: u64,
    n_streams: u64,
    /// Loads, as the token simulation sees them.
    loads: Vec<Actor>,
    /// Stores, likewise.
    stores: Vec<Actor>,
    /// Tensors that are rings in the phase, and the columns and channels that these hold.
    rings: Vec<(BufferId, BufferView)>,
}

/// Bytes of a box of a tensor.
fn bytes_of(buffer: &Buffer, view: &BufferView) -> u64 {
    view.n_elements() * u64::from(buffer.elem.size_bytes())
}

impl Judge<'_> {
    /// Walks the phases and replays where every tensor is.
    pub(super) fn memory_and_traffic(&mut self) {
        let mut replay = Replay::default();
        for phase in 0..self.plan.phases.len() {
            let mut taken = Taken::default();
            self.take_tables(phase, &mut taken, &mut replay);
            for id in self.graph.buffers.keys() {
                self.take_tensor(id, phase, &mut taken);
                self.take_loads(id, phase, &mut taken, &mut replay);
                self.take_stores(id, phase, &mut taken, &mut replay);
            }
            self.take_rings(phase, &mut taken);
            self.within_limits(phase, &taken);
        }
        self.totals(&replay.moved);
    }

    /// Tables that stages share stand once in weight SRAM, and stay there from a phase to the next.
    fn take_tables(&self, phase: usize, taken: &mut Taken, replay: &mut Replay) {
        let mut tables: BTreeSet<TableOwner> = BTreeSet::new();
        for placed in &self.plan.phases[phase].stages {
            let node = &self.graph.stages[placed.stage];
            let owner = match node.table_set {
                Some(set) => TableOwner::Set(set),
                None => TableOwner::Stage(placed.stage),
            };
            if tables.insert(owner) {
                let aligned = node.table_bytes.values().map(|&bytes| self.align(u64::from(bytes)));
                taken.weights += aligned.sum::<u64>();
                replay.moved.weights += if replay.tables.contains(&owner) { 0 } else { node.weight_bytes() };
            }
        }
        replay.tables = tables;
    }

    /// What a tensor takes of SRAM in a phase, but for its ring.
    fn take_tensor(&self, id: BufferId, phase: usize, taken: &mut Taken) {
        let (buffer, uses) = (&self.graph.buffers[id], self.uses(id));
        let touched = uses.writers.iter().chain(&uses.readers);
        let touched = touched.filter(|(stage, _)| self.phase_of[stage] == phase);
        let touched: Vec<BufferView> = touched.map(|(_, view)| *view).collect();
        if self.first_use(id).is_none() {
            return;
        }
        let standing = self.standing(id, phase);
        taken.n_streams += u64::from(!touched.is_empty()) + self.n_prefixes(id, phase, !touched.is_empty());
        taken.activation += self.bytes_ahead(id, phase);
        if self.is_whole(id, phase) {
            taken.activation += u64::from(buffer.rows) * self.align(buffer.row_bytes());
            return;
        }
        taken.activation +=
            standing.map_or(0, |s| u64::from(s.rows) * self.align(row_bytes(buffer, &s.part)));
        // The ring of the rest is as wide as what stays.
        if !touched.is_empty() {
            taken.rings.push((id, standing.map_or_else(|| hull(id, &touched), |standing| standing.part)));
        }
    }

    /// What a phase loads of a tensor. Rings are of the size that they have if all rows are moved.
    fn take_loads(&mut self, id: BufferId, phase: usize, taken: &mut Taken, replay: &mut Replay) {
        let Some(first) = self.first_use(id) else { return };
        let buffer = &self.graph.buffers[id];
        let (is_whole, there) = (self.is_whole(id, phase), self.standing(id, phase).map_or(0, |s| s.there));
        let reads: Vec<BufferView> = self.reads(id, phase).collect();
        let mut loads = Vec::new();
        if !matches!(buffer.role, BufferRole::Input(_)) {
            loads = if is_whole { loads } else { self.earlier_pieces(id, phase, &reads) };
        } else if !reads.is_empty() && (!is_whole || phase == first) {
            loads.push(if is_whole { whole(id, buffer) } else { hull(id, &reads) });
        }
        for load in loads {
            taken.loads.push(Actor::dma_in(load));
            if let Some(load) = below(load, there) {
                replay.load(id, buffer, &load);
                taken.n_dma += 1;
            }
        }
        // What is loaded for a later phase, which no ring of this one waits for.
        for load in self.ahead(id, phase) {
            replay.load(id, buffer, &load);
            taken.n_dma += 1;
        }
    }

    /// What the stages of a phase read of a tensor.
    fn reads(&self, id: BufferId, phase: usize) -> impl Iterator<Item = BufferView> + '_ {
        let readers = self.uses(id).readers.iter();
        readers.filter(move |(stage, _)| self.phase_of[stage] == phase).map(|(_, view)| *view)
    }

    /// What is read in a phase of pieces that earlier phases wrote: they have to be in DRAM.
    fn earlier_pieces(&mut self, id: BufferId, phase: usize, reads: &[BufferView]) -> Vec<BufferView> {
        let mut pieces = Vec::new();
        for (writer, piece) in &self.uses(id).writers {
            let wanted: Vec<BufferView> = reads.iter().filter_map(|read| common(read, piece)).collect();
            if self.phase_of[writer] < phase && !wanted.is_empty() {
                pieces.push(hull(id, &wanted));
            }
        }
        if !pieces.is_empty() && !self.plan.residency[id].stored {
            let buffer = self.graph.buffers[id].name.clone();
            self.faults.push(PlanFault::Lost { phase, buffer });
        }
        tiles(pieces)
    }

    /// What a phase stores of a tensor.
    fn take_stores(&mut self, id: BufferId, phase: usize, taken: &mut Taken, replay: &mut Replay) {
        let buffer = &self.graph.buffers[id];
        let is_output = matches!(buffer.role, BufferRole::Output(_));
        let is_stored = self.plan.residency[id].stored;
        for (_, piece) in self.uses(id).writers.iter().filter(|(stage, _)| self.phase_of[stage] == phase) {
            let read_later = self.read_later(id, phase, piece);
            if !is_output && (!is_stored || read_later.is_empty()) {
                continue;
            }
            let part = if is_output { *piece } else { hull(id, &read_later) };
            taken.stores.push(Actor::dma_out(part));
            let part = if is_output { Some(part) } else { self.stored(id, phase, part) };
            let Some(part) = part else { continue };
            let moved = &mut replay.moved;
            *if is_output { &mut moved.outputs } else { &mut moved.spill_write } += bytes_of(buffer, &part);
            taken.n_dma += 1;
        }
        if is_output && self.first_use(id) == Some(phase) && !is_stored {
            self.faults.push(PlanFault::NotStored(buffer.name.clone()));
        }
    }

    /// What later phases read of a piece of a tensor when it is no longer whole.
    fn read_later(&self, id: BufferId, phase: usize, piece: &BufferView) -> Vec<BufferView> {
        let until = self.plan.residency[id].kept_until.map(|until| until as usize);
        let is_later = |reader: usize| reader > phase && until.is_none_or(|until| reader > until);
        let readers = self.uses(id).readers.iter().filter(|(reader, _)| is_later(self.phase_of[reader]));
        readers.filter_map(|(_, read)| common(read, piece)).collect()
    }

    /// What rings take of SRAM, by token simulation, less what tensors share.
    fn take_rings(&mut self, phase: usize, taken: &mut Taken) {
        let planned = &self.plan.phases[phase];
        let mut faults = Vec::new();
        let mut actors = std::mem::take(&mut taken.loads);
        actors.extend(planned.stages.iter().map(|placed| {
            Actor::new(&with_winograd(&self.graph.stages[placed.stage].code, placed.winograd))
        }));
        actors.append(&mut taken.stores);
        taken.activation -= self.in_place_bytes(phase, &mut faults);
        let growths = self.growths(phase, &mut faults);
        let probes: Vec<OverlapProbe> = growths.iter().map(|(probe, ..)| *probe).collect();
        let (slots, gaps) = ring_slots_and_gaps(&actors, planned.slack, &probes);
        for ((probe, saved, stated), gap) in growths.iter().zip(gaps) {
            taken.activation -= saved;
            if gap > *stated {
                let problem = format!("it begins {stated} bytes before, {gap} are needed");
                faults.push(self.no_growth(phase, probe.growing, probe.dying, problem));
            }
        }
        for &(id, part) in &taken.rings {
            let buffer = &self.graph.buffers[id];
            // What stays has slots of its own, which the others may overwrite.
            let standing = self.standing(id, phase).map_or(0, |standing| standing.rows);
            let most = buffer.rows.saturating_sub(standing);
            let n = slots.get(&id).copied().unwrap_or(most).min(most);
            let row = self.align(row_bytes(buffer, &part));
            let ring = u64::from(n) * row;
            taken.activation += ring - self.overwritten(id, phase, ring, row).min(ring);
        }
        self.faults.extend(faults);
    }

    /// Whether a phase takes no more than the target has.
    fn within_limits(&mut self, phase: usize, taken: &Taken) {
        let (memory, limits) = (&self.target.memory, &self.target.limits);
        for (name, needed, limit) in [
            ("activation SRAM", taken.activation, memory.activation),
            ("weight SRAM", taken.weights, memory.weight),
        ] {
            if needed > limit {
                self.faults.push(PlanFault::Capacity { phase, memory: name, needed, limit });
            }
        }
        let n_stages = self.plan.phases[phase].stages.len() as u64 + taken.n_dma;
        for (name, n, most) in
            [("stages", n_stages, limits.stages), ("streams", taken.n_streams, limits.streams)]
        {
            if n > u64::from(most) {
                self.faults.push(PlanFault::Array { phase, problem: format!("{n} {name} of {most}") });
            }
        }
    }

    /// Whether the plan states what its phases move and how long they take.
    fn totals(&mut self, moved: &DramBytes) {
        let stated = &self.plan.dram_bytes;
        let total = moved.weights + moved.inputs + moved.outputs + moved.spill_write + moved.spill_read;
        let cycles = self.plan.phases.iter().map(|phase| phase.predicted_cycles).sum();
        for (what, stated, implied) in [
            ("weights", stated.weights, moved.weights),
            ("inputs", stated.inputs, moved.inputs),
            ("outputs", stated.outputs, moved.outputs),
            ("spill writes", stated.spill_write, moved.spill_write),
            ("spill reads", stated.spill_read, moved.spill_read),
            ("DRAM bytes", stated.total, total),
            ("cycles", self.plan.cycles, cycles),
        ] {
            if stated != implied {
                self.faults.push(PlanFault::Miscount { what, stated, implied });
            }
        }
        let stated = self.plan.certificate.lower_bound_cycles;
        if cycles < stated {
            self.faults.push(PlanFault::Miscount { what: "the least cycles", stated, implied: cycles });
        }
    }
}
