//! Streams before they have addresses, and the search for these.

use std::collections::BTreeMap;

use strata_isa_spec::Prefix;

use crate::allocate::{self, Limits, Outcome};
use crate::model::{Buffer, BufferId, BufferView};
use crate::place::{PlacementProblem, ScheduleError};

/// The stream of each buffer in each phase, and what of the buffer it holds.
pub(super) type Numbers = BTreeMap<(BufferId, usize), (u32, BufferView)>;

/// A stream before it has an address.
pub(super) struct Live {
    pub(super) buffer: BufferId,
    /// Columns and channels of the buffer that it holds; its rows are the buffer's, or the first of them.
    pub(super) held: BufferView,
    pub(super) rows: u32,
    pub(super) slots: u32,
    /// The stream that holds its first rows, and how many.
    pub(super) prefix: Option<Prefix>,
    /// Which of the plan's prefixes it is, if it is one.
    pub(super) is_prefix: Option<usize>,
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Live {
    /// A stream of so many rows, all of which have slots but those of the prefix.
    pub(super) fn new(
        problem: &PlacementProblem<'_>,
        buffer: BufferId,
        rows: u32,
        prefix: Option<Prefix>,
        phase: usize,
    ) -> Self {
        let Buffer { rows: all, cols, chs, .. } = problem.graph.buffers[buffer];
        let held = BufferView::whole(buffer, all, cols, chs);
        let slots = rows - prefix.map_or(0, |prefix| prefix.rows);
        Self { buffer, held, rows, slots, prefix, is_prefix: None, first: phase, last: phase }
    }

    /// Bytes from one row to the next.
    pub(super) fn pitch(&self, problem: &PlacementProblem<'_>) -> u64 {
        let elem_bytes = problem.graph.buffers[self.buffer].elem.size_bytes();
        problem.align(u64::from(self.held.cols) * u64::from(self.held.chs) * u64::from(elem_bytes))
    }

    /// Bytes of all slots.
    pub(super) fn bytes(&self, problem: &PlacementProblem<'_>) -> u64 {
        u64::from(self.slots) * self.pitch(problem)
    }

    /// Whether all of its rows have slots, those of its prefix there.
    pub(super) fn has_all_rows(&self) -> bool {
        self.slots + self.prefix.map_or(0, |prefix| prefix.rows) == self.rows
    }

    /// Whether every row of the buffer has a slot of its own.
    pub(super) fn is_whole(&self, problem: &PlacementProblem<'_>) -> bool {
        self.slots == problem.graph.buffers[self.buffer].rows
    }
}

/// Offsets within a capacity, or what is missing when the search has visited so many nodes.
pub(super) fn fit(
    problem: &allocate::AllocationProblem,
    nodes: u64,
    memory: &'static str,
    name: impl Fn(u32) -> String,
) -> Result<Vec<u64>, ScheduleError> {
    let limits = Limits { nodes, looks_for_enough: false };
    let outcome = allocate::allocate(problem, &limits).map_err(|e| ScheduleError::Unsound(e.to_string()))?;
    let names_at = |time: i64| {
        let live = problem.buffers.iter().filter(|b| (b.lower..b.upper).contains(&time));
        live.map(|b| format!("`{}` ({} bytes)", name(b.id), b.size)).collect()
    };
    match outcome {
        Outcome::Placed(plan) => Ok(plan.offsets),
        Outcome::Infeasible(short) => Err(ScheduleError::DoesNotFit {
            memory,
            phase: usize::try_from(short.time).unwrap_or(0),
            names: names_at(short.time),
            missing_bytes: short.missing_bytes,
        }),
        Outcome::Exhausted(plan) => {
            let load = |time: i64| {
                let live = problem.buffers.iter().filter(|b| (b.lower..b.upper).contains(&time));
                live.map(|b| b.size).sum::<u64>()
            };
            let worst = problem.buffers.iter().map(|b| b.lower).max_by_key(|&time| load(time)).unwrap_or(0);
            Err(ScheduleError::DoesNotFit {
                memory,
                phase: usize::try_from(worst).unwrap_or(0),
                names: names_at(worst),
                missing_bytes: plan.peak.saturating_sub(problem.capacity),
            })
        }
    }
}
