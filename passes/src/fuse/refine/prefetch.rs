//! First rows of what a phase loads, brought by the phase before it.
//!
//! Phases do not overlap. So a phase waits at its begin for as many rows of its inputs as its first steps
//! read, while DRAM has long been idle in the phase before. Those rows can be in SRAM by then: as a
//! [prefix](ResidentPrefix) of the ring that the phase reads. What the phase before writes stays there as it
//! is written; anything else is whole in DRAM, and the phase before loads it. The first costs no traffic but
//! saves some, the second moves as much as without.
//!
//! A ring may grow into its prefix as that is read. The prefix's rows then are just the ring's last slots,
//! filled before the phase begins, so the phase that reads them needs no more SRAM than it did; only the
//! phase before must have room for them at that place. So rings, which live in one phase, are moved: phase by
//! phase, those with a prefix to where there is room for it, the others to where they leave the largest hole.
//! What stays over several phases stays where it is.
//!
//! Deliberately not here: whether it pays. The caller simulates both plans.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use cranelift_entity::SecondaryMap;
use strata_backend::cost::transfers::{self, Transfer, window};
use strata_backend::cost::with_winograd;
use strata_backend::model::graph::{StageSet, Topology, bounding, views_meet};
use strata_backend::model::{
    BufferId, BufferRole, BufferView, Plan, Residency, ResidentPrefix, StageGraph, StageId, StageTemplate,
};
use strata_backend::place::occupancy::{Occupancy, Span};
use strata_backend::place::{Known, ScheduleError, Scheduled, schedule_within};
use strata_isa_spec::timing::{dram_cycles, step_cycles};
use strata_isa_spec::{Program, Target};

use crate::fuse::refine::prefixes::ADDRESS_NODES;
use crate::fuse::refine::{is_within_limits, lives, phases_of};

/// The plan with first rows brought by the phase before wherever there is room in `capacity` bytes, and its
/// schedule; `None` if there is nowhere.
///
/// # Errors
/// If the scheduler has a defect.
pub fn with_prefetch(
    graph: &StageGraph,
    topology: &Topology,
    target: &Target,
    plan: &Plan,
    scheduled: &Scheduled,
    capacity: u64,
) -> Result<Option<(Plan, Scheduled)>, ScheduleError> {
    Case::new(graph, topology, target, plan).prefetch(scheduled, capacity)
}

/// A plan, and what is asked of it over and over.
struct Case<'a> {
    graph: &'a StageGraph,
    topology: &'a Topology,
    target: &'a Target,
    plan: &'a Plan,
    /// Stages of each phase.
    phases: Vec<StageSet>,
    /// Phase of each stage.
    phase_of: SecondaryMap<StageId, usize>,
    /// Buffers that share their bytes with others.
    shared: BTreeSet<BufferId>,
}

/// A ring whose first rows are wanted in the phase before.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    buffer: BufferId,
    /// The program's stream.
    stream: usize,
    /// Rows that are wanted.
    rows: u32,
    /// The fewest that are of use: the phase loads none of those before the last of them.
    least: u32,
    /// Bytes from one of its rows to the next, with a prefix.
    pitch: u64,
    /// The ring through which the phase before writes the tensor, if it does. It has to be as wide.
    written: Option<usize>,
}

impl<'a> Case<'a> {
    fn new(graph: &'a StageGraph, topology: &'a Topology, target: &'a Target, plan: &'a Plan) -> Self {
        let (phases, phase_of) = phases_of(plan);
        let others = |(buffer, residency): (BufferId, &Residency)| {
            let other = residency.in_place_of.or(residency.grows_into.map(|into| into.buffer))?;
            Some([buffer, other])
        };
        let shared = plan.residency.iter().filter_map(others).flatten().collect();
        Self { graph, topology, target, plan, phases, phase_of, shared }
    }

    /// The plan with first rows that come ahead, and its schedule; `None` if there is no room for any.
    fn prefetch(
        &self,
        scheduled: &Scheduled,
        capacity: u64,
    ) -> Result<Option<(Plan, Scheduled)>, ScheduleError> {
        let mut memory = Standings::new(&scheduled.program, capacity);
        let wanted: Vec<Vec<Wanted>> =
            (1..self.phases.len()).map(|phase| self.wanted(phase, &memory, scheduled)).collect();
        let mut found = Vec::new();
        for (before, now) in wanted.iter().enumerate() {
            memory.arrange(before + 1, now, &mut found);
        }
        if found.is_empty() {
            return Ok(None);
        }
        let mut made = self.plan.clone();
        let mut bases = scheduled.bases.clone();
        for (stream, (base, bytes)) in bases.streams.iter_mut().zip(memory.rings()) {
            (stream.base, stream.bytes) = (base, bytes);
        }
        for (prefix, base) in found {
            self.count(&prefix, &mut made);
            made.prefixes.push(prefix);
            bases.prefixes.push(base);
        }
        made.bases = Some(bases);
        let known = Known { address_nodes: ADDRESS_NODES, weights: Some(&scheduled.weights) };
        match schedule_within(self.graph, self.topology, &made, self.target, known) {
            Ok(scheduled) => {
                Ok(is_within_limits(&scheduled.program, self.target).then_some((made, scheduled)))
            }
            Err(ScheduleError::DoesNotFit { .. }) => Ok(None),
            Err(defect) => Err(defect),
        }
    }

    /// Rings of a phase whose first rows the phase before could bring, those of the most bytes first.
    fn wanted(&self, phase: usize, memory: &Standings, scheduled: &Scheduled) -> Vec<Wanted> {
        let streams = &scheduled.bases.streams;
        let rings = memory.rings_of(phase).filter_map(|stream| {
            let buffer = streams[memory.streams[stream].ring?].buffer;
            let held = self.held(phase, buffer)?;
            let row = u64::from(held.cols) * u64::from(held.chs);
            let row = row * u64::from(self.graph.buffers[buffer].elem.size_bytes());
            let pitch = row.next_multiple_of(u64::from(self.target.memory.alignment.max(1)));
            let rows = self.first_rows(phase, buffer).min(memory.streams[stream].slots);
            let rows = rows.min(self.graph.buffers[buffer].rows.saturating_sub(1));
            let mut written = None;
            if self.writes(phase - 1, buffer) {
                let mut rings = memory.rings_of(phase - 1);
                written = Some(
                    rings.find(|&s| memory.streams[s].ring.is_some_and(|at| streams[at].buffer == buffer))?,
                );
            }
            let loads = transfers::loads(self.graph, self.topology, &self.phases[phase], buffer);
            let least = loads.iter().map(|load| load.view.row0 + 1).min()?;
            (least <= rows).then_some(Wanted { buffer, stream, rows, least, pitch, written })
        });
        let mut rings: Vec<Wanted> = rings.collect();
        rings.sort_by_key(|wanted| std::cmp::Reverse(u64::from(wanted.rows) * wanted.pitch));
        rings
    }

    /// Whether a phase writes a buffer.
    fn writes(&self, phase: usize, buffer: BufferId) -> bool {
        let writers = &self.topology.uses[buffer].writers;
        writers.iter().any(|&(stage, _)| self.phase_of[stage] == phase)
    }

    /// The columns and channels of the first rows that a phase reads of a buffer, if these can come in the
    /// phase before.
    fn held(&self, phase: usize, buffer: BufferId) -> Option<BufferView> {
        let before = phase - 1;
        let loads = |phase: usize| transfers::loads(self.graph, self.topology, &self.phases[phase], buffer);
        let residency = &self.plan.residency[buffer];
        let is_whole = residency.kept_until.is_some_and(|until| until as usize >= before);
        let is_input = matches!(self.graph.buffers[buffer].role, BufferRole::Input(_));
        let meets = |prefix: &ResidentPrefix| {
            prefix.buffer == buffer && prefix.until as usize > before && (prefix.from as usize) < phase
        };
        let is_written = self.writes(before, buffer);
        let ends = |prefix: &ResidentPrefix| prefix.buffer == buffer && prefix.until as usize == before;
        // What comes as it is written stands in the ring's way if the phase reads other parts.
        let reads_others = || !loads(before).is_empty() || self.plan.prefixes.iter().any(ends);
        let cannot = is_whole
            || self.shared.contains(&buffer)
            || !(is_input || residency.stored)
            || loads(phase).is_empty()
            || self.writes(phase, buffer)
            || is_written && reads_others()
            || self.plan.prefixes.iter().any(meets);
        if cannot {
            return None;
        }
        let here = window(self.topology, &self.phases[phase], buffer)?;
        let there = window(self.topology, &self.phases[before], buffer).filter(|_| is_written);
        Some(there.map_or(here, |there| bounding(&here, &there)))
    }

    /// How many first rows of a buffer have to be there so that a phase begins as soon as it can and the
    /// others come in time.
    ///
    /// Its stages need so many before the last of them takes its first step. A row is not waited for if it is
    /// loaded by the time at which the step that needs it could begin at the earliest.
    fn first_rows(&self, phase: usize, buffer: BufferId) -> u32 {
        let placed = &self.plan.phases[phase].stages;
        let codes: Vec<StageTemplate> =
            placed.iter().map(|p| with_winograd(&self.graph.stages[p.stage].code, p.winograd)).collect();
        let rows_to = |code: &StageTemplate, rows: u32| -> Vec<u32> {
            let mut ends = vec![0; code.reads().len()];
            for row in 0..rows.min(code.n_rows()) {
                for (end, need) in ends.iter_mut().zip(code.demand(row)) {
                    *end = need.end.max(*end);
                }
            }
            ends
        };
        let mut asked: Vec<u32> = codes.iter().map(StageTemplate::rows_per_step).collect();
        let mut all = 0;
        for reader in (0..codes.len()).rev() {
            let code = &codes[reader];
            for (view, end) in code.reads().into_iter().zip(rows_to(code, asked[reader])) {
                let end = view.row0 + end;
                if view.tensor == buffer {
                    all = end.max(all);
                }
                for writer in 0..reader {
                    let out: &BufferView = &codes[writer].out;
                    if views_meet(out, &view) {
                        asked[writer] = asked[writer].max(end.saturating_sub(out.row0));
                    }
                }
            }
        }
        let load_cycles = self.row_cycles(phase).max(1);
        let latency = u64::from(self.target.dram.latency_cycles);
        let mut rows = 0;
        for (code, placed) in codes.iter().zip(placed) {
            let cycles = step_cycles(self.target, &code.work(), &placed.mapping);
            for (at, view) in code.reads().iter().enumerate().filter(|(_, view)| view.tensor == buffer) {
                for step in 0..code.n_steps() {
                    let end = view.row0 + rows_to(code, (step + 1) * code.rows_per_step())[at];
                    let in_time = (u64::from(step) * cycles).saturating_sub(latency) / load_cycles;
                    rows = rows.max(end.saturating_sub(u32::try_from(in_time).unwrap_or(u32::MAX)));
                    if end >= all {
                        break;
                    }
                }
            }
        }
        rows.min(all)
    }

    /// Cycles of a row of everything that a phase loads.
    fn row_cycles(&self, phase: usize) -> u64 {
        let set = &self.phases[phase];
        let touched = self.topology.touched(set);
        let is_whole = |buffer: &BufferId| {
            let until = self.plan.residency[*buffer].kept_until;
            until.is_some_and(|until| until as usize >= phase)
        };
        let spilled = touched.into_iter().filter(|buffer| !is_whole(buffer));
        let loads = spilled.flat_map(|buffer| transfers::loads(self.graph, self.topology, set, buffer));
        loads
            .map(|load| dram_cycles(self.target, load.bytes(self.graph) / u64::from(load.view.rows.max(1))))
            .sum()
    }

    /// Takes from what a plan moves what it need not move since first rows stay.
    fn count(&self, prefix: &ResidentPrefix, plan: &mut Plan) {
        let (from, until) = (prefix.from as usize, prefix.until as usize);
        let uses = &self.topology.uses[prefix.buffer];
        let phase_of = |stage: StageId| self.phase_of[stage];
        let bytes = |transfers: Vec<Transfer>, rows: u32| -> u64 {
            let spared = transfers.into_iter().filter_map(|transfer| transfer.to_row(rows));
            spared.map(|transfer| transfer.bytes(self.graph)).sum()
        };
        let (graph, topology) = (self.graph, self.topology);
        let role = graph.buffers[prefix.buffer].role;
        let pieces = uses.writers.iter().filter(|(stage, _)| phase_of(*stage) == from);
        let pieces: Vec<BufferView> = pieces.map(|(_, piece)| *piece).collect();
        if pieces.is_empty() {
            return;
        }
        let reads = uses.readers.iter().filter(|(stage, _)| phase_of(*stage) == until);
        let reads: Vec<BufferView> = reads.map(|(_, view)| *view).collect();
        let loads = transfers::loaded(role, &reads, pieces.into_iter());
        let loads = loads.into_iter().map(|view| Transfer { buffer: prefix.buffer, view }).collect();
        let read = bytes(loads, prefix.rows);
        let mut stores = transfers::stores(graph, topology, &self.phases[from], prefix.buffer, |stage| {
            phase_of(stage) > from
        });
        // They are stored if a later phase loads them.
        let later = uses.readers.iter().filter(|(stage, _)| phase_of(*stage) > until);
        let later: Vec<BufferView> = later.map(|(_, view)| *view).collect();
        let is_internal = matches!(role, BufferRole::Internal);
        stores.retain(|stored| is_internal && later.iter().all(|read| !views_meet(read, &stored.view)));
        let written = bytes(stores, prefix.rows);
        plan.dram_bytes.spill_read -= read;
        plan.dram_bytes.spill_write -= written;
        plan.dram_bytes.total -= read + written;
    }
}

/// Where streams stand, in bytes and phases.
struct Standings {
    capacity: u64,
    streams: Vec<Standing>,
}

/// A stream.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// First and last phase.
    life: (usize, usize),
    base: u64,
    bytes: u64,
    pitch: u64,
    slots: u32,
    /// Its number among rings and whole tensors, if it is one and no first rows.
    ring: Option<usize>,
}

impl Standings {
    fn new(program: &Program, capacity: u64) -> Self {
        let lives = lives(program);
        let prefixes: BTreeSet<u32> = program.streams.iter().filter_map(|s| Some(s.prefix?.stream)).collect();
        let mut n_rings = 0;
        let standing = program.streams.iter().enumerate().map(|(number, stream)| {
            let life = lives.get(&(number as u32)).copied();
            let is_prefix = prefixes.contains(&(number as u32));
            let ring = (!is_prefix).then_some(n_rings);
            n_rings += usize::from(!is_prefix);
            Standing {
                // A stream that no phase names takes no room.
                life: life.unwrap_or((usize::MAX, 0)),
                base: u64::from(stream.base),
                bytes: stream.size_bytes(),
                pitch: u64::from(stream.pitch_bytes),
                slots: stream.slots,
                ring,
            }
        });
        Self { capacity, streams: standing.collect() }
    }

    /// The base and bytes of each ring and whole tensor.
    fn rings(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.streams.iter().filter(|s| s.ring.is_some()).map(|s| (s.base, s.bytes))
    }

    /// The streams that live in a phase only, and can be moved.
    fn rings_of(&self, phase: usize) -> impl Iterator<Item = usize> + '_ {
        let streams = self.streams.iter().enumerate();
        let can_move = move |s: &Standing| s.ring.is_some() && s.life == (phase, phase);
        streams.filter(move |(_, s)| can_move(s)).map(|(at, _)| at)
    }

    /// What is taken up to a phase, but by the streams that are still to be placed.
    fn occupancy(&self, phase: usize, moving: &BTreeSet<usize>) -> Occupancy {
        let mut occupancy = Occupancy::new(phase + 1, self.capacity);
        let streams =
            self.streams.iter().enumerate().filter(|(at, s)| s.life.0 <= phase && !moving.contains(at));
        for (_, stream) in streams {
            let phases = stream.life.0..stream.life.1.min(phase) + 1;
            occupancy.take(phases, Span::new(stream.base, stream.bytes));
        }
        occupancy
    }

    /// Places the rings of a phase, first those whose first rows are wanted. What is found is added to
    /// `found`.
    fn arrange(&mut self, phase: usize, wanted: &[Wanted], found: &mut Vec<(ResidentPrefix, u64)>) {
        if wanted.is_empty() {
            return;
        }
        let (before, n_found) = (self.streams.clone(), found.len());
        let mut left: BTreeSet<usize> = self.rings_of(phase).collect();
        for wanted in wanted {
            if let Some(prefix) =
                (wanted.least..=wanted.rows).rev().find_map(|rows| self.bring(phase, wanted, rows, &left))
            {
                left.remove(&wanted.stream);
                found.push(prefix);
            }
        }
        let mut others: Vec<usize> = left.iter().copied().collect();
        others.sort_by_key(|&stream| std::cmp::Reverse(self.streams[stream].bytes));
        for stream in others {
            let Some(base) = self.place(phase, stream, 0, &left) else {
                // The rings stay where they stood, and nothing comes.
                self.streams = before;
                found.truncate(n_found);
                return;
            };
            self.streams[stream].base = base;
            left.remove(&stream);
        }
    }

    /// Places a ring, so many of its last slots in the phase before too, and a ring there that has to become
    /// as wide; the prefix.
    fn bring(
        &mut self,
        phase: usize,
        wanted: &Wanted,
        rows: u32,
        left: &BTreeSet<usize>,
    ) -> Option<(ResidentPrefix, u64)> {
        let before = self.streams.clone();
        self.widen(wanted.stream, wanted.pitch);
        // More rows than the ring has slots are taken together, and the ring is their beginning.
        let ring = self.streams[wanted.stream].bytes;
        self.streams[wanted.stream].bytes = ring.max(u64::from(rows) * wanted.pitch);
        let written = wanted.written.filter(|&ring| self.streams[ring].pitch != wanted.pitch);
        let mut moving: BTreeSet<usize> = left.clone();
        moving.extend(written);
        let mut bring = || {
            self.streams[wanted.stream].base = self.place(phase, wanted.stream, rows, &moving)?;
            let prefix = self.prefix(phase, wanted, rows);
            self.stand(phase, wanted.stream, rows);
            self.streams[wanted.stream].bytes = ring;
            if let Some(ring) = written {
                self.widen(ring, wanted.pitch);
                self.streams[ring].base = self.place(phase - 1, ring, 0, &BTreeSet::from([ring]))?;
            }
            Some(prefix)
        };
        let prefix = bring();
        if prefix.is_none() {
            self.streams = before;
        }
        prefix
    }

    /// Makes the rows of a ring as wide as those of its prefix.
    fn widen(&mut self, stream: usize, pitch: u64) {
        let ring = &mut self.streams[stream];
        (ring.pitch, ring.bytes) = (pitch, u64::from(ring.slots) * pitch);
    }

    /// The bytes of a ring's last slots, were it at `base`.
    fn last_slots(&self, stream: usize, base: u64, slots: u32) -> Span {
        let Standing { bytes, pitch, .. } = self.streams[stream];
        Span { from: base + bytes - u64::from(slots) * pitch, to: base + bytes }
    }

    /// The first rows in a ring's last slots.
    fn prefix(&self, phase: usize, wanted: &Wanted, rows: u32) -> (ResidentPrefix, u64) {
        let (from, until) = (phase as u32 - 1, phase as u32);
        let base = self.last_slots(wanted.stream, self.streams[wanted.stream].base, rows).from;
        (ResidentPrefix { buffer: wanted.buffer, rows, from, until }, base)
    }

    /// Notes that a ring's last slots are taken in the phase before too.
    fn stand(&mut self, phase: usize, stream: usize, slots: u32) {
        let own = self.streams[stream];
        let span = self.last_slots(stream, own.base, slots);
        let (base, bytes) = (span.from, span.bytes());
        self.streams.push(Standing { life: (phase - 1, phase), base, bytes, ring: None, ..own });
    }

    /// Where a ring of a phase, of which so many of its last slots are free in the phase before, leaves the
    /// largest hole in the phase. `moving` have no places yet.
    fn place(&self, phase: usize, stream: usize, slots: u32, moving: &BTreeSet<usize>) -> Option<u64> {
        let Standing { bytes, pitch, .. } = self.streams[stream];
        let occupancy = self.occupancy(phase, moving);
        let before = if slots > 0 { phase - 1..phase } else { 0..0 };
        // As near as can be to an end of memory or to something that is taken, in one of the phases.
        let mut bases: Vec<u64> = vec![0];
        bases.extend(self.capacity.checked_sub(bytes));
        for taken in occupancy.taken(phase..phase + 1) {
            bases.extend(taken.from.checked_sub(bytes));
            bases.push(taken.to);
        }
        for taken in occupancy.taken(before.clone()) {
            bases.extend(taken.from.checked_sub(bytes));
            bases.extend((taken.to + u64::from(slots) * pitch).checked_sub(bytes));
        }
        bases.sort_unstable();
        bases.dedup();
        let fits = |&base: &u64| {
            occupancy.is_free(phase..phase + 1, Span::new(base, bytes))
                && occupancy.is_free(before.clone(), self.last_slots(stream, base, slots))
        };
        let hole = |base: &u64| {
            let mut occupancy = occupancy.clone();
            occupancy.take(phase..phase + 1, Span::new(*base, bytes));
            occupancy.largest_hole(phase..phase + 1, 1).bytes()
        };
        bases.into_iter().filter(fits).max_by_key(|base| (hole(base), std::cmp::Reverse(*base)))
    }
}
