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
mod memory;
mod prefixes;
mod sharing;

use std::collections::BTreeMap;

use cranelift_entity::PrimaryMap;
use strata_isa_spec::Target;

pub use crate::check::faults::PlanFault;
use crate::cost::may_winograd;
use crate::model::{Buffer, BufferId, BufferView, Plan, StageGraph, StageId};

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
        first_uses: PrimaryMap::new(),
    };
    judge.coverage();
    if judge.faults.is_empty() {
        judge.first_uses = judge.uses.values().map(|uses| uses.first(&judge.phase_of)).collect();
        judge.order();
        judge.array();
        judge.prefixes();
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
    /// Uses of each buffer.
    uses: PrimaryMap<BufferId, Uses>,
    /// The phase that first writes or reads each buffer.
    first_uses: PrimaryMap<BufferId, Option<usize>>,
}

/// Whether two boxes of one tensor share an element.
fn share(a: &BufferView, b: &BufferView) -> bool {
    let disjoint = a.row0 + a.rows <= b.row0
        || b.row0 + b.rows <= a.row0
        || a.col0 + a.cols <= b.col0
        || b.col0 + b.cols <= a.col0
        || a.ch0 + a.chs <= b.ch0
        || b.ch0 + b.chs <= a.ch0;
    a.tensor == b.tensor && !disjoint
}

/// What two boxes of one tensor share.
fn common(a: &BufferView, b: &BufferView) -> Option<BufferView> {
    let to = |first: u32, extent: u32| first + extent;
    let (row0, col0, ch0) = (a.row0.max(b.row0), a.col0.max(b.col0), a.ch0.max(b.ch0));
    share(a, b).then(|| BufferView {
        tensor: a.tensor,
        row0,
        rows: to(a.row0, a.rows).min(to(b.row0, b.rows)) - row0,
        col0,
        cols: to(a.col0, a.cols).min(to(b.col0, b.cols)) - col0,
        ch0,
        chs: to(a.ch0, a.chs).min(to(b.ch0, b.chs)) - ch0,
    })
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

    /// Rounds up to the target's alignment.
    fn align(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(u64::from(self.target.memory.alignment.max(1)))
    }

    /// The phase that first writes or reads a buffer.
    fn first_use(&self, buffer: BufferId) -> Option<usize> {
        self.first_uses[buffer]
    }

    /// Whether a buffer is whole in SRAM in a phase: the plan says until when, its first use since when.
    fn is_whole(&self, buffer: BufferId, phase: usize) -> bool {
        let first = self.first_use(buffer);
        let until = self.plan.residency[buffer].kept_until;
        first.is_some_and(|first| first <= phase) && until.is_some_and(|until| phase <= until as usize)
    }

    fn uses(&self, buffer: BufferId) -> &Uses {
        &self.uses[buffer]
    }
}

/// Uses of each buffer; what names no buffer is for others to find.
fn uses(graph: &StageGraph) -> PrimaryMap<BufferId, Uses> {
    let mut uses: PrimaryMap<BufferId, Uses> = graph.buffers.keys().map(|_| Uses::default()).collect();
    for (stage, node) in &graph.stages {
        for view in node.code.reads() {
            if let Some(uses) = uses.get_mut(view.tensor) {
                uses.readers.push((stage, view));
            }
        }
        let out = node.code.out;
        if let Some(uses) = uses.get_mut(out.tensor) {
            uses.writers.push((stage, out));
        }
    }
    uses
}

#[derive(Default)]
struct Uses {
    writers: Vec<(StageId, BufferView)>,
    readers: Vec<(StageId, BufferView)>,
}

impl Uses {
    /// The first phase that uses the buffer.
    fn first(&self, phase_of: &BTreeMap<StageId, usize>) -> Option<usize> {
        self.writers.iter().chain(&self.readers).map(|(stage, _)| phase_of[stage]).min()
    }
}

/// Bytes of one row of a part of a buffer.
fn row_bytes(buffer: &Buffer, part: &BufferView) -> u64 {
    u64::from(part.cols) * u64::from(part.chs) * u64::from(buffer.elem.size_bytes())
}

fn whole(id: BufferId, buffer: &Buffer) -> BufferView {
    BufferView::whole(id, buffer.rows, buffer.cols, buffer.chs)
}

/// Boxes of which none makes a larger one with the next, by columns and then by channels, or the other way
/// round: a box of two that do not meet has their elements and no others if it has as many.
fn tiles(mut boxes: Vec<BufferView>) -> Vec<BufferView> {
    let mut n = 0;
    while n != boxes.len() {
        n = boxes.len();
        for by_columns in [false, true] {
            boxes.sort_by_key(|b| if by_columns { (b.row0, b.ch0, b.col0) } else { (b.row0, b.col0, b.ch0) });
            let mut kept: Vec<BufferView> = Vec::with_capacity(n);
            for next in boxes {
                let together = kept.last().map(|last| (hull(next.tensor, &[*last, next]), last));
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

/// The smallest box of a buffer that holds all views of it; an empty one if there are none.
fn hull(buffer: BufferId, views: &[BufferView]) -> BufferView {
    let least = |of: fn(&BufferView) -> u32| views.iter().map(of).min().unwrap_or(0);
    let most = |of: fn(&BufferView) -> u32| views.iter().map(of).max().unwrap_or(0);
    let (row0, col0, ch0) = (least(|v| v.row0), least(|v| v.col0), least(|v| v.ch0));
    BufferView {
        tensor: buffer,
        row0,
        rows: most(|v| v.row0 + v.rows) - row0,
        col0,
        cols: most(|v| v.col0 + v.cols) - col0,
        ch0,
        chs: most(|v| v.ch0 + v.chs) - ch0,
    }
}
