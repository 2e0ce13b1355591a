//! First rows that stay: what a plan leaves of activation SRAM keeps the *prefixes* of tensors that go
//! through DRAM.
//!
//! The chooser keeps a tensor whole or streams it; what neither takes is filled here. A row of a prefix is
//! not loaded in the phases up to the last for which it stays, and not stored if that is the last of all that
//! load it. How many rows of which tensors stay how long is a linear program: as many bytes as can be are not
//! moved, within what each phase leaves free. Rows are many, so its answer, rounded down, is close to the
//! best. Bytes that are free need not adjoin: where a plan with prefixes has no addresses, less of them is
//! filled. What then is left between addresses takes more prefixes, one by one.
//!
//! First rows that are in SRAM for the sake of time are for
//! [`prefetch`](crate::fuse::refine::prefetch), which comes after.

use std::cmp::Reverse;

use cranelift_entity::SecondaryMap;
use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem, Variable};
use strata_backend::cost::transfers::{self, Transfer, window};
use strata_backend::model::graph::{StageSet, Topology, views_meet};
use strata_backend::model::{
    Bases, BufferId, BufferRole, Plan, Residency, ResidentPrefix, StageGraph, StageId,
};
use strata_backend::place::occupancy::Span;
use strata_backend::place::{Known, ScheduleError, Scheduled, Weights, growth_gaps, schedule_within};
use strata_isa_spec::Target;

use crate::fuse::refine::{is_within_limits, occupancy, phases_of};

/// Percents of what is free that are filled with prefixes, until a plan has addresses.
const FILLS: [u64; 10] = [100, 97, 94, 90, 85, 80, 70, 60, 45, 30];

/// Nodes that the search for addresses of one plan with prefixes may visit: there is a plan without them.
pub(super) const ADDRESS_NODES: u64 = 2_000;

/// Prefixes that are put into holes between addresses, at most.
const MOST_HOLES: usize = 64;

/// The plan with prefixes in what its schedule leaves of `capacity` bytes, and the schedule of that; `None`
/// if nothing can stay.
///
/// # Errors
/// If the scheduler has a defect.
pub fn with_prefixes(
    graph: &StageGraph,
    topology: &Topology,
    target: &Target,
    plan: &Plan,
    scheduled: &Scheduled,
    capacity: u64,
) -> Result<Option<(Plan, Scheduled)>, ScheduleError> {
    let case = Case::new(graph, topology, target, plan, &scheduled.weights, capacity);
    let spilled: Vec<Spilled> = graph.buffers.keys().filter_map(|buffer| case.spilled(buffer)).collect();
    if spilled.is_empty() {
        return Ok(None);
    }
    let used = occupancy(&scheduled.program, capacity).bytes_in_use();
    let free: Vec<u64> = used.into_iter().map(|used| capacity.saturating_sub(used)).collect();
    let mut filled = None;
    for percent in FILLS {
        let room: Vec<u64> = free.iter().map(|bytes| bytes * percent / 100).collect();
        let prefixes = most_saving(graph, &spilled, &room);
        if prefixes.is_empty() {
            break;
        }
        filled = case.schedule(&spilled, prefixes, None)?;
        if filled.is_some() {
            break;
        }
    }
    // New addresses may leave fewer holes than those that there were.
    let mut found = vec![case.fill_holes(&spilled, plan, scheduled)?];
    if let Some((plan, scheduled)) = filled {
        found.push(case.fill_holes(&spilled, &plan, &scheduled)?.or(Some((plan, scheduled))));
    }
    Ok(found.into_iter().flatten().min_by_key(|(plan, _)| plan.dram_bytes.total))
}

/// A tensor of which rows can stay.
#[derive(Debug)]
struct Spilled {
    buffer: BufferId,
    rows: u32,
    /// Bytes of SRAM that a row takes.
    pitch: u64,
    /// The phase that first writes it.
    birth: usize,
    /// The first phase in which what stays takes SRAM that the tensor did not: its birth, or the one after
    /// the last in which it is whole.
    from: usize,
    /// The phases that load of it, in order, and the bytes that each loads.
    loads: Vec<(usize, Vec<Transfer>)>,
    /// What is stored of it, but for an output.
    stored: Vec<Stored>,
    /// For how many of the loads rows can stay without any ring becoming wider than it is.
    n_as_wide: usize,
}

impl Spilled {
    /// DRAM bytes saved for each byte of SRAM, on average, in which rows stay for the loads up to number
    /// `last`.
    fn saved_bytes(&self, graph: &StageGraph, last: usize) -> f64 {
        let loads = self.loads[..=last].iter().flat_map(|(_, loads)| loads);
        let spared = self.stored.iter().filter(|stored| stored.last_load <= self.loads[last].0);
        let moved = loads.chain(spared.map(|stored| &stored.transfer));
        let bytes: u64 = moved.map(|transfer| transfer.bytes(graph)).sum();
        bytes as f64 / (u64::from(self.rows) * self.pitch) as f64
    }
}

/// What a phase stores of a tensor.
#[derive(Debug)]
struct Stored {
    /// The phase that stores it.
    phase: usize,
    transfer: Transfer,
    /// The last phase that loads of it.
    last_load: usize,
}

/// A plan, as far as tensors that go through DRAM are concerned.
struct Case<'a> {
    graph: &'a StageGraph,
    topology: &'a Topology,
    target: &'a Target,
    plan: &'a Plan,
    /// Where its tables stand.
    weights: &'a Weights,
    /// Bytes of activation SRAM that may be filled.
    capacity: u64,
    /// Stages of each phase.
    phases: Vec<StageSet>,
    /// Phase of each stage.
    phase_of: SecondaryMap<StageId, usize>,
    alignment: u64,
}

impl<'a> Case<'a> {
    fn new(
        graph: &'a StageGraph,
        topology: &'a Topology,
        target: &'a Target,
        plan: &'a Plan,
        weights: &'a Weights,
        capacity: u64,
    ) -> Self {
        let (phases, phase_of) = phases_of(plan);
        let alignment = u64::from(target.memory.alignment.max(1));
        Self { graph, topology, target, plan, weights, capacity, phases, phase_of, alignment }
    }

    /// What can stay of a buffer; `None` if it is never loaded, or shares its bytes with another but as one
    /// that grew into it.
    fn spilled(&self, buffer: BufferId) -> Option<Spilled> {
        let declared = &self.graph.buffers[buffer];
        let residency = self.plan.residency[buffer];
        let shares = |with: &Residency| {
            with.in_place_of == Some(buffer) || with.grows_into.is_some_and(|into| into.buffer == buffer)
        };
        let is_alone = residency.in_place_of.is_none() && !self.plan.residency.values().any(shares);
        if declared.rows < 2 || !residency.stored || !is_alone {
            return None;
        }
        let uses = &self.topology.uses[buffer];
        let phase_of = |stage: StageId| self.phase_of[stage];
        let birth = uses.writers.iter().map(|&(stage, _)| phase_of(stage)).min()?;
        let is_whole = |phase: usize| residency.kept_until.is_some_and(|until| phase <= until as usize);
        let is_loaded = |stage: StageId| phase_of(stage) > birth && !is_whole(phase_of(stage));
        let mut loads: Vec<(usize, Vec<Transfer>)> = Vec::new();
        let mut stored = Vec::new();
        let mut n_as_wide = None;
        let phases = self.phases.iter().enumerate();
        for (phase, set) in phases.skip(birth).filter(|(phase, _)| !is_whole(*phase)) {
            let Some(window) = window(self.topology, set, buffer) else { continue };
            if (window.cols, window.chs) != (declared.cols, declared.chs) {
                n_as_wide.get_or_insert(loads.len());
            }
            let loaded = transfers::loads(self.graph, self.topology, set, buffer);
            if phase > birth && !loaded.is_empty() {
                loads.push((phase, loaded));
            }
        }
        let may_be_spared = matches!(declared.role, BufferRole::Internal);
        for (phase, set) in self.phases.iter().enumerate().filter(|_| may_be_spared) {
            for transfer in transfers::stores(self.graph, self.topology, set, buffer, is_loaded) {
                let readers = uses.readers.iter().filter(|(_, read)| views_meet(read, &transfer.view));
                let last_load = readers.map(|&(reader, _)| phase_of(reader)).max()?;
                stored.push(Stored { phase, transfer, last_load });
            }
        }
        let spilled = Spilled {
            buffer,
            rows: declared.rows,
            pitch: declared.row_bytes().next_multiple_of(self.alignment),
            birth,
            from: residency.kept_until.map_or(birth, |until| until as usize + 1),
            n_as_wide: n_as_wide.unwrap_or(loads.len()),
            loads,
            stored,
        };
        (!spilled.loads.is_empty()).then_some(spilled)
    }

    /// The plan with prefixes, and its schedule; `None` if there are no addresses, or a phase would have too
    /// many streams.
    fn schedule(
        &self,
        spilled: &[Spilled],
        prefixes: Vec<ResidentPrefix>,
        bases: Option<Bases>,
    ) -> Result<Option<(Plan, Scheduled)>, ScheduleError> {
        let mut plan = Plan { prefixes, bases, activation_bytes: self.capacity, ..self.plan.clone() };
        self.count(spilled, &mut plan);
        let known = Known { address_nodes: ADDRESS_NODES, weights: Some(self.weights) };
        match schedule_within(self.graph, self.topology, &plan, self.target, known) {
            Ok(scheduled) => {
                plan.bases = Some(scheduled.bases.clone());
                let has_room = is_within_limits(&scheduled.program, self.target) && self.keeps_gaps(&plan);
                Ok(has_room.then_some((plan, scheduled)))
            }
            Err(ScheduleError::DoesNotFit { .. }) => Ok(None),
            Err(defect) => Err(defect),
        }
    }

    /// Whether tensors that grow into others are still far enough before them. With a prefix, less is stored,
    /// and what is asked of a phase is asked in another order.
    fn keeps_gaps(&self, plan: &Plan) -> bool {
        let stated = |buffer: BufferId| plan.residency[buffer].grows_into;
        let gaps = growth_gaps(self.graph, self.topology, plan, self.target);
        gaps.into_iter().all(|(buffer, gap)| stated(buffer).is_none_or(|into| gap <= into.gap_bytes))
    }

    /// Makes what the case's plan moves what another moves that differs from it by the rows that stay.
    fn count(&self, spilled: &[Spilled], plan: &mut Plan) {
        let of = |plan: &Plan, tensor: &Spilled| -> (u64, u64) {
            let spared = |transfer: &Transfer, since: usize, load: usize| -> u64 {
                let rows = plan.staying_rows(tensor.buffer, since, load);
                transfer.to_row(rows).map_or(0, |spared| spared.bytes(self.graph))
            };
            let loads = tensor
                .loads
                .iter()
                .flat_map(|(phase, loads)| loads.iter().map(|load| spared(load, tensor.birth, *phase)));
            let stores =
                tensor.stored.iter().map(|stored| spared(&stored.transfer, stored.phase, stored.last_load));
            (loads.sum(), stores.sum())
        };
        for tensor in spilled {
            let ((was_read, was_written), (read, written)) = (of(self.plan, tensor), of(plan, tensor));
            plan.dram_bytes.spill_read += was_read;
            plan.dram_bytes.spill_read -= read;
            plan.dram_bytes.spill_write += was_written;
            plan.dram_bytes.spill_write -= written;
            plan.dram_bytes.total += was_read + was_written;
            plan.dram_bytes.total -= read + written;
        }
    }

    /// More prefixes in what is left between addresses, the one that saves the most first; `None` if nothing
    /// more fits.
    fn fill_holes(
        &self,
        spilled: &[Spilled],
        plan: &Plan,
        scheduled: &Scheduled,
    ) -> Result<Option<(Plan, Scheduled)>, ScheduleError> {
        let mut occupancy = occupancy(&scheduled.program, self.capacity);
        let mut bands: Vec<Vec<Band>> =
            spilled.iter().map(|tensor| bands(plan, tensor, &scheduled.bases)).collect();
        let n_before: usize = bands.iter().map(Vec::len).sum();
        for _ in 0..MOST_HOLES {
            let mut best: Option<(f64, usize, Band)> = None;
            for (at, tensor) in spilled.iter().enumerate() {
                let staying: u32 = bands[at].iter().map(|band| band.rows).sum();
                for last in 0..tensor.n_as_wide {
                    let until = tensor.loads[last].0;
                    let hole = occupancy.largest_hole(tensor.birth..until + 1, self.alignment);
                    let fitting = u32::try_from(hole.bytes() / tensor.pitch).unwrap_or(u32::MAX);
                    let rows = fitting.min(tensor.rows - 1 - staying);
                    let saved =
                        (u64::from(rows) * tensor.pitch) as f64 * tensor.saved_bytes(self.graph, last);
                    if rows > 0 && best.as_ref().is_none_or(|(most, ..)| saved > *most) {
                        best = Some((saved, at, Band { rows, until, base: hole.from }));
                    }
                }
            }
            let Some((_, at, band)) = best else { break };
            let tensor = &spilled[at];
            let span = Span::new(band.base, u64::from(band.rows) * tensor.pitch);
            occupancy.take(tensor.birth..band.until + 1, span);
            bands[at].push(band);
        }
        if bands.iter().map(Vec::len).sum::<usize>() == n_before {
            return Ok(None);
        }
        let mut bases = Bases { prefixes: Vec::new(), ..scheduled.bases.clone() };
        let mut prefixes = Vec::new();
        for (tensor, mut bands) in spilled.iter().zip(bands) {
            bands.sort_by_key(|band| Reverse(band.until));
            let mut rows = 0;
            for band in bands {
                rows += band.rows;
                let (from, until) = (tensor.birth as u32, band.until as u32);
                prefixes.push(ResidentPrefix { buffer: tensor.buffer, rows, from, until });
                bases.prefixes.push(band.base);
            }
        }
        self.schedule(spilled, prefixes, Some(bases))
    }
}

/// Rows of a prefix beyond those of the next that stays longer.
#[derive(Clone, Copy, Debug)]
struct Band {
    rows: u32,
    until: usize,
    /// Where they stand.
    base: u64,
}

/// The bands of a tensor's rows that stay in a plan.
fn bands(plan: &Plan, tensor: &Spilled, bases: &Bases) -> Vec<Band> {
    let mut prefixes: Vec<(&ResidentPrefix, u64)> =
        plan.prefixes.iter().zip(bases.prefixes.iter().copied()).collect();
    prefixes.retain(|(prefix, _)| prefix.buffer == tensor.buffer && prefix.from as usize == tensor.birth);
    prefixes.sort_unstable_by_key(|(prefix, _)| prefix.rows);
    let mut below = 0;
    let band = |(prefix, base): (&ResidentPrefix, u64)| {
        let rows = prefix.rows - std::mem::replace(&mut below, prefix.rows);
        Band { rows, until: prefix.until as usize, base }
    };
    prefixes.into_iter().map(band).collect()
}

/// The prefixes that save the most bytes within what each phase has room for.
fn most_saving(graph: &StageGraph, spilled: &[Spilled], room: &[u64]) -> Vec<ResidentPrefix> {
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let mut taken: Vec<LinearExpr> = room.iter().map(|_| LinearExpr::empty()).collect();
    let mut kept: Vec<Vec<Variable>> = Vec::with_capacity(spilled.len());
    for tensor in spilled {
        let most = u64::from(tensor.rows - 1) as f64 * tensor.pitch as f64 / UNIT;
        let mut of_tensor = LinearExpr::empty();
        let variables = (0..tensor.loads.len()).map(|last| {
            let units = problem.add_var(tensor.saved_bytes(graph, last), (0.0, most));
            of_tensor.add(units, 1.0);
            for phase in &mut taken[tensor.from..=tensor.loads[last].0] {
                phase.add(units, 1.0);
            }
            units
        });
        kept.push(variables.collect());
        problem.add_constraint(of_tensor, ComparisonOp::Le, most);
    }
    for (taken, &room) in taken.into_iter().zip(room) {
        problem.add_constraint(taken, ComparisonOp::Le, room as f64 / UNIT);
    }
    // That nothing stays is a solution, and no more than all can: without an answer, the solver's floats gave
    // out.
    let solution = problem.solve().ok().and_then(|outcome| outcome.into_solution().ok());
    let Some(solution) = solution else { return Vec::new() };
    let mut prefixes = Vec::new();
    for (tensor, kept) in spilled.iter().zip(kept) {
        // What stays longest comes first.
        let mut below = 0;
        for ((until, _), units) in tensor.loads.iter().zip(kept).rev() {
            let rows = solution.var_value(units) * UNIT / tensor.pitch as f64;
            let own = ((rows + ROUNDING) as u32).min(tensor.rows - 1 - below);
            if own > 0 {
                below += own;
                let (from, until) = (tensor.birth as u32, *until as u32);
                prefixes.push(ResidentPrefix { buffer: tensor.buffer, rows: below, from, until });
            }
        }
    }
    prefixes
}

/// Bytes in which the linear program counts, so that its numbers are of like size.
const UNIT: f64 = 1024.0;

/// By how much less than a whole row the solver's answer counts as one.
const ROUNDING: f64 = 1e-6;
