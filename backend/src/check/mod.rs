//! An independent judge of plans: re-derives from the graph, the target and the plan's own words what a plan
//! must keep, and what it moves. It shares with the planner the definitions of the machine (row demand,
//! timing, transfers' meaning) and the token simulation of rings, and none of the planner's bookkeeping.
//!
//! Checked: every stage runs exactly once, after those that it reads from; partitions exist and fit the
//! array, mappings fit their partitions; Winograd only where it is allowed; tables fit weight SRAM, rings,
//! whole tensors and first rows that stay or are loaded ahead fit activation SRAM in each phase, shared
//! tables once, and so bytes of a ring and of rows that it overwrites; a tensor that is read in a later phase
//! is in SRAM or was stored, and is in DRAM before the phase that loads rows of it ahead; outputs are stored;
//! the traffic that the plan states is what its residencies imply; its cycles are the sum of its phases' and
//! not below the bound.
//!
//! Not checked: addresses (the allocator's judge), values (the program's verifier), and whether predicted
//! cycles are true (the timed interpreter's to say).

mod faults;
mod fronts;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use strata_isa_spec::{Target, View};

pub use crate::check::faults::PlanFault;
use crate::check::fronts::below;
use crate::cost::rings::{Actor, OverlapProbe, ring_slots_watching};
use crate::cost::{may_winograd, with_winograd};
use crate::model::{Buffer, BufferId, BufferRole, Plan, StageGraph, StageId};

/// Judges a plan.
///
/// # Errors
/// All faults found.
pub fn check(graph: &StageGraph, target: &Target, plan: &Plan) -> Result<(), Vec<PlanFault>> {
    let mut judge = Judge {
        graph,
        target,
        plan,
        faults: Vec::new(),
        phase_of: BTreeMap::new(),
        uses: uses(graph),
        first_uses: Vec::new(),
    };
    judge.coverage();
    if judge.faults.is_empty() {
        judge.first_uses = judge.uses.iter().map(|uses| uses.first(&judge.phase_of)).collect();
        judge.order();
        judge.array();
        judge.fronts();
        judge.memory_and_traffic();
    }
    if judge.faults.is_empty() { Ok(()) } else { Err(judge.faults) }
}

struct Judge<'a> {
    graph: &'a StageGraph,
    target: &'a Target,
    plan: &'a Plan,
    faults: Vec<PlanFault>,
    phase_of: BTreeMap<StageId, usize>,
    /// Uses of each buffer, by index.
    uses: Vec<Uses>,
    /// The phase that first writes or reads each buffer, by index.
    first_uses: Vec<Option<usize>>,
}

/// Whether two boxes of one tensor share an element.
fn share(a: &View, b: &View) -> bool {
    let disjoint = a.row0 + a.rows <= b.row0
        || b.row0 + b.rows <= a.row0
        || a.col0 + a.cols <= b.col0
        || b.col0 + b.cols <= a.col0
        || a.ch0 + a.chs <= b.ch0
        || b.ch0 + b.chs <= a.ch0;
    a.stream == b.stream && !disjoint
}

/// What two boxes of one tensor share.
fn common(a: &View, b: &View) -> Option<View> {
    let to = |first: u32, extent: u32| first + extent;
    let (row0, col0, ch0) = (a.row0.max(b.row0), a.col0.max(b.col0), a.ch0.max(b.ch0));
    share(a, b).then(|| View {
        stream: a.stream,
        row0,
        rows: to(a.row0, a.rows).min(to(b.row0, b.rows)) - row0,
        col0,
        cols: to(a.col0, a.cols).min(to(b.col0, b.cols)) - col0,
        ch0,
        chs: to(a.ch0, a.chs).min(to(b.ch0, b.chs)) - ch0,
    })
}

/// Whose tables they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TableOwner {
    Set(u32),
    Stage(StageId),
}

impl Judge<'_> {
    fn name(&self, stage: StageId) -> String {
        self.graph.stages.get(stage).map_or_else(|| stage.to_string(), |node| node.name.clone())
    }

    fn coverage(&mut self) {
        let mut times: BTreeMap<StageId, usize> = self.graph.stages.keys().map(|stage| (stage, 0)).collect();
        for (index, phase) in self.plan.phases.iter().enumerate() {
            for placed in &phase.stages {
                *times.entry(placed.stage).or_default() += 1;
                self.phase_of.insert(placed.stage, index);
            }
        }
        for (stage, n) in times {
            if n != 1 || !self.graph.stages.is_valid(stage) {
                self.faults.push(PlanFault::Coverage { stage: self.name(stage), times: n });
            }
        }
        let (stated, implied) = (self.plan.residency.len() as u64, self.graph.buffers.len() as u64);
        if stated != implied {
            self.faults.push(PlanFault::Miscount { what: "residencies", stated, implied });
        }
    }

    fn order(&mut self) {
        for (reader, node) in &self.graph.stages {
            for (writer, earlier) in &self.graph.stages {
                let reads = node.code.reads().iter().any(|view| share(view, &earlier.code.out));
                if reads && reader != writer && self.phase_of[&writer] > self.phase_of[&reader] {
                    let (stage, needs) = (node.name.clone(), earlier.name.clone());
                    self.faults.push(PlanFault::Order { stage, phase: self.phase_of[&reader], needs });
                }
            }
        }
    }

    fn array(&mut self) {
        for (phase, planned) in self.plan.phases.iter().enumerate() {
            let mut fault = |problem: String| self.faults.push(PlanFault::Array { phase, problem });
            let clusters: u64 = planned.partitions.iter().map(|&c| u64::from(c)).sum();
            if clusters > u64::from(self.target.array.clusters) {
                fault(format!("{clusters} clusters of {}", self.target.array.clusters));
            }
            for placed in &planned.stages {
                let node = &self.graph.stages[placed.stage];
                let mapping = &placed.mapping;
                match planned.partitions.get(placed.partition as usize) {
                    None => fault(format!("`{}` is on partition {}", node.name, placed.partition)),
                    Some(&owned) if mapping.clusters() > u64::from(owned) || mapping.clusters() == 0 => {
                        fault(format!(
                            "`{}` is mapped on {} clusters of {owned}",
                            node.name,
                            mapping.clusters()
                        ));
                    }
                    Some(_) => {}
                }
                let lanes = mapping.lanes_reduction;
                if !lanes.is_power_of_two() || lanes > self.target.array.lanes {
                    fault(format!("`{}` splits a cluster's lanes by {lanes}", node.name));
                }
                if placed.winograd && !may_winograd(&node.code, self.target) {
                    fault(format!("`{}` cannot run as Winograd", node.name));
                }
            }
        }
    }

    /// Walks the phases and replays where every tensor is.
    fn memory_and_traffic(&mut self) {
        let memory = &self.target.memory;
        let align = |bytes: u64| self.align(bytes);
        let mut implied = crate::model::DramBytes::default();
        let mut input_seen: BTreeMap<BufferId, u64> = BTreeMap::new();
        let mut faults = Vec::new();
        let mut tables_before: BTreeSet<TableOwner> = BTreeSet::new();
        for (index, planned) in self.plan.phases.iter().enumerate() {
            let mut actors = Vec::new();
            let mut stores = Vec::new();
            let (mut weights, mut n_dma, mut n_streams) = (0, 0, 0);
            let mut sram = 0;
            let mut rings: Vec<(BufferId, View)> = Vec::new();
            // Tables that stages share stand once in weight SRAM, and stay there from a phase to the next.
            let mut tables: BTreeSet<TableOwner> = BTreeSet::new();
            for placed in &planned.stages {
                let node = &self.graph.stages[placed.stage];
                let owner = match node.table_set {
                    Some(set) => TableOwner::Set(set),
                    None => TableOwner::Stage(placed.stage),
                };
                if tables.insert(owner) {
                    weights += node.table_bytes.iter().map(|&b| align(u64::from(b))).sum::<u64>();
                    implied.weights += if tables_before.contains(&owner) { 0 } else { node.weight_bytes() };
                }
            }
            tables_before = tables;
            for (id, buffer) in &self.graph.buffers {
                let uses = self.uses(id);
                let here = |stage: &StageId| self.phase_of[stage] == index;
                let residency = self.plan.residency[id.as_u32() as usize];
                let is_input = matches!(buffer.role, BufferRole::Input(_));
                let Some(first) = self.first_use(id) else { continue };
                let kept_until = residency.kept_until.map(|until| until as usize);
                let is_whole = self.is_whole(id, index);
                let touched = uses.writers.iter().chain(&uses.readers).filter(|(stage, _)| here(stage));
                let touched: Vec<View> = touched.map(|(_, view)| *view).collect();
                let size = u64::from(buffer.rows) * align(buffer.row_bytes());
                let standing = self.standing(id, index);
                let there = standing.map_or(0, |standing| standing.there);
                n_streams += u64::from(!touched.is_empty()) + self.n_fronts(id, index, !touched.is_empty());
                if is_whole {
                    sram += size;
                } else {
                    sram += standing.map_or(0, |s| u64::from(s.rows) * align(row_bytes(buffer, &s.part)));
                    // The ring of the rest is as wide as what stays.
                    if !touched.is_empty() {
                        rings.push((id, standing.map_or_else(|| hull(&touched), |standing| standing.part)));
                    }
                }
                let bytes = |view: &View| view.n_elements() * u64::from(buffer.elem.size_bytes());
                let reads: Vec<View> =
                    uses.readers.iter().filter(|(s, _)| here(s)).map(|(_, v)| *v).collect();
                // What is loaded.
                if is_input && !reads.is_empty() && (!is_whole || index == first) {
                    let view = if is_whole { whole(id, buffer) } else { hull(&reads) };
                    actors.push(Actor::dma_in(view));
                    if let Some(view) = below(view, there) {
                        let seen = input_seen.entry(id).or_default();
                        let fresh = bytes(&view).min(buffer.size_bytes() - *seen);
                        *seen += fresh;
                        implied.inputs += fresh;
                        implied.spill_read += bytes(&view) - fresh;
                        n_dma += 1;
                    }
                }
                let mut loads = Vec::new();
                for (writer, piece) in &uses.writers {
                    let wanted: Vec<View> = reads.iter().filter_map(|read| common(read, piece)).collect();
                    if self.phase_of[writer] < index && !wanted.is_empty() && !is_whole && !is_input {
                        loads.push(hull(&wanted));
                        if !residency.stored {
                            faults.push(PlanFault::Lost { phase: index, buffer: buffer.name.clone() });
                        }
                    }
                }
                // What is loaded for a later phase, which no ring of this one waits for.
                for load in self.ahead(id, index) {
                    let seen = input_seen.entry(id).or_default();
                    let fresh = bytes(&load).min(buffer.size_bytes() - *seen) * u64::from(is_input);
                    *seen += fresh;
                    implied.inputs += fresh;
                    implied.spill_read += bytes(&load) - fresh;
                    n_dma += 1;
                }
                sram += self.bytes_ahead(id, index);
                // Rings are of the size that they have if all rows are moved.
                for load in tiles(loads) {
                    actors.push(Actor::dma_in(load));
                    if let Some(load) = below(load, there) {
                        implied.spill_read += bytes(&load);
                        n_dma += 1;
                    }
                }
                // What is stored.
                let is_output = matches!(buffer.role, BufferRole::Output(_));
                for (_, piece) in uses.writers.iter().filter(|(writer, _)| here(writer)) {
                    let read_later = uses.readers.iter().filter_map(|(reader, read)| {
                        let gone = kept_until.is_none_or(|until| self.phase_of[reader] > until);
                        (self.phase_of[reader] > index && gone).then(|| common(read, piece)).flatten()
                    });
                    let read_later: Vec<View> = read_later.collect();
                    if is_output || (residency.stored && !read_later.is_empty()) {
                        let part = if is_output { *piece } else { hull(&read_later) };
                        stores.push(Actor::dma_out(part));
                        let part = if is_output { Some(part) } else { self.stored(id, index, part) };
                        let Some(part) = part else { continue };
                        let counter = if is_output { &mut implied.outputs } else { &mut implied.spill_write };
                        *counter += bytes(&part);
                        n_dma += 1;
                    }
                }
                if is_output && index == first && !residency.stored {
                    faults.push(PlanFault::NotStored(buffer.name.clone()));
                }
            }
            for placed in &planned.stages {
                let node = &self.graph.stages[placed.stage];
                actors.push(Actor::new(&with_winograd(&node.code, placed.winograd)));
            }
            actors.extend(stores);
            sram -= self.in_place_bytes(index, &mut faults);
            let growths = self.growths(index, &mut faults);
            let watches: Vec<OverlapProbe> = growths.iter().map(|(watch, ..)| *watch).collect();
            let (slots, gaps) = ring_slots_watching(&actors, planned.slack, &watches);
            for ((watch, saved, stated), gap) in growths.iter().zip(gaps) {
                sram -= saved;
                if gap > *stated {
                    let problem = format!("it begins {stated} bytes before, {gap} are needed");
                    faults.push(self.no_growth(index, watch.growing, watch.dying, problem));
                }
            }
            for (id, part) in rings {
                let buffer = &self.graph.buffers[id];
                // What stays has slots of its own, which the others may overwrite.
                let standing = self.standing(id, index).map_or(0, |standing| standing.rows);
                let most = buffer.rows.saturating_sub(standing);
                let n = slots.get(&id.as_u32()).copied().unwrap_or(most).min(most);
                let row = align(row_bytes(buffer, &part));
                let ring = u64::from(n) * row;
                sram += ring - self.overwritten(id, index, (ring, row)).min(ring);
            }
            let mut within = |name: &'static str, needed: u64, limit: u64| {
                if needed > limit {
                    faults.push(PlanFault::Capacity { phase: index, memory: name, needed, limit });
                }
            };
            within("activation SRAM", sram, memory.activation);
            within("weight SRAM", weights, memory.weight);
            let (n_stages, limits) = (planned.stages.len() as u64 + n_dma, &self.target.limits);
            for (name, n, most) in
                [("stages", n_stages, limits.stages), ("streams", n_streams, limits.streams)]
            {
                if n > u64::from(most) {
                    faults.push(PlanFault::Array { phase: index, problem: format!("{n} {name} of {most}") });
                }
            }
        }
        self.faults.extend(faults);
        let stated = &self.plan.dram_bytes;
        let total =
            implied.weights + implied.inputs + implied.outputs + implied.spill_write + implied.spill_read;
        let cycles = self.plan.phases.iter().map(|phase| phase.predicted_cycles).sum();
        for (what, stated, implied) in [
            ("weights", stated.weights, implied.weights),
            ("inputs", stated.inputs, implied.inputs),
            ("outputs", stated.outputs, implied.outputs),
            ("spill writes", stated.spill_write, implied.spill_write),
            ("spill reads", stated.spill_read, implied.spill_read),
            ("DRAM bytes", stated.total, total),
            ("cycles", self.plan.cycles, cycles),
        ] {
            if stated != implied {
                self.faults.push(PlanFault::Miscount { what, stated, implied });
            }
        }
        let bound = self.plan.certificate.lower_bound_cycles;
        if cycles < bound {
            self.faults.push(PlanFault::Miscount {
                what: "the least cycles",
                stated: bound,
                implied: cycles,
            });
        }
    }

    /// Rounds up to the target's alignment.
    fn align(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(u64::from(self.target.memory.alignment.max(1)))
    }

    /// The phase that first writes or reads a buffer.
    fn first_use(&self, buffer: BufferId) -> Option<usize> {
        self.first_uses[buffer.as_u32() as usize]
    }

    /// Whether a buffer is whole in SRAM in a phase: the plan says until when, its first use since when.
    fn is_whole(&self, buffer: BufferId, phase: usize) -> bool {
        let first = self.first_use(buffer);
        let until = self.plan.residency[buffer.as_u32() as usize].kept_until;
        first.is_some_and(|first| first <= phase) && until.is_some_and(|until| phase <= until as usize)
    }

    fn uses(&self, buffer: BufferId) -> &Uses {
        &self.uses[buffer.as_u32() as usize]
    }
}

/// Uses of each buffer, by index; what names no buffer is for others to find.
fn uses(graph: &StageGraph) -> Vec<Uses> {
    let mut uses: Vec<Uses> = graph.buffers.keys().map(|_| Uses::default()).collect();
    for (stage, node) in &graph.stages {
        for view in node.code.reads() {
            if let Some(uses) = uses.get_mut(view.stream as usize) {
                uses.readers.push((stage, view));
            }
        }
        let out = node.code.out;
        if let Some(uses) = uses.get_mut(out.stream as usize) {
            uses.writers.push((stage, out));
        }
    }
    uses
}

#[derive(Default)]
struct Uses {
    writers: Vec<(StageId, View)>,
    readers: Vec<(StageId, View)>,
}

impl Uses {
    /// The first phase that uses the buffer.
    fn first(&self, phase_of: &BTreeMap<StageId, usize>) -> Option<usize> {
        self.writers.iter().chain(&self.readers).map(|(stage, _)| phase_of[stage]).min()
    }
}

/// Bytes of one row of a part of a buffer.
fn row_bytes(buffer: &Buffer, part: &View) -> u64 {
    u64::from(part.cols) * u64::from(part.chs) * u64::from(buffer.elem.size_bytes())
}

fn whole(id: BufferId, buffer: &Buffer) -> View {
    View::whole(id.as_u32(), buffer.rows, buffer.cols, buffer.chs)
}

/// Boxes of which none makes a larger one with the next, by columns and then by channels, or the other way
/// round: a box of two that do not meet has their elements and no others if it has as many.
fn tiles(mut boxes: Vec<View>) -> Vec<View> {
    let mut n = 0;
    while n != boxes.len() {
        n = boxes.len();
        for by_columns in [false, true] {
            boxes.sort_by_key(|b| if by_columns { (b.row0, b.ch0, b.col0) } else { (b.row0, b.col0, b.ch0) });
            let mut kept: Vec<View> = Vec::with_capacity(n);
            for next in boxes {
                let together = kept.last().map(|last| (hull(&[*last, next]), last));
                match together {
                    Some((both, last))
                        if last.rows == next.rows
                            && !share(last, &next)
                            && both.n_elements() == last.n_elements() + next.n_elements() =>
                    {
                        kept.pop();
                        kept.push(both);
                    }
                    _ => kept.push(next),
                }
            }
            boxes = kept;
        }
    }
    boxes
}

/// The smallest box that holds all views, of which there is at least one.
fn hull(views: &[View]) -> View {
    let least = |of: fn(&View) -> u32| views.iter().map(of).min().unwrap_or(0);
    let most = |of: fn(&View) -> u32| views.iter().map(of).max().unwrap_or(0);
    let (row0, col0, ch0) = (least(|v| v.row0), least(|v| v.col0), least(|v| v.ch0));
    View {
        stream: least(|v| v.stream),
        row0,
        rows: most(|v| v.row0 + v.rows) - row0,
        col0,
        cols: most(|v| v.col0 + v.cols) - col0,
        ch0,
        chs: most(|v| v.ch0 + v.chs) - ch0,
    }
}
