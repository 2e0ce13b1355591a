//! Why a tensor is written to DRAM and read back.

use serde::{Deserialize, Serialize};
use strata_backend::model::{BufferId, BufferRole, Plan, Residency};

use super::account::{Account, Homes, UsedIn};
use super::{ExplainError, PlanCost};
use crate::fuse::search::Place;

/// A tensor that goes through DRAM, or an input that is read from there more than once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spill {
    /// The tensor: the layer that makes it.
    pub tensor: String,
    /// Its bytes.
    pub bytes: u64,
    /// The first phase that writes it, or loads it if it is an input.
    pub written_in: usize,
    /// Phases that read it from DRAM.
    pub read_in: Vec<usize>,
    /// Its rows.
    pub rows: u32,
    /// First rows that stay in activation SRAM, or come ahead of the phase that reads them.
    pub resident_rows: u32,
    /// Bytes of activation SRAM that the whole tensor takes.
    pub keep_bytes: u64,
    /// Bytes of activation SRAM that phases may fill.
    pub capacity_bytes: u64,
    /// Phases from the writer to the last reader that have too little room for it.
    pub full_phases: Vec<usize>,
    /// The phase that lacks most with the tensor kept.
    pub fullest_phase: usize,
    /// Bytes of activation SRAM that this phase needs then.
    pub needed_bytes: u64,
    /// Bytes that it lacks; 0 if there is room.
    pub missing_bytes: u64,
    /// Why it goes through DRAM.
    pub reason: SpillReason,
    /// What the plan costs as it is.
    pub spilled: PlanCost,
    /// What it costs with the tensor kept.
    pub kept: PlanCost,
}

/// Why a tensor goes through DRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpillReason {
    /// Activation SRAM is too small in some phase.
    NoRoom,
    /// There is room only if phases run in another way, with smaller rings.
    NoRoomAsPhasesRun,
    /// There is room by bytes, and keeping it saves nothing of what the plan minimises.
    SavesNothing,
    /// There is room by bytes and keeping it would save something by the estimate: there were no addresses,
    /// what is within the tolerance is as good, or the search did not come across it.
    PassedOver,
}

/// The tensors that a plan spills, those that move the most bytes first.
pub(super) fn spills(account: &Account<'_>, plan: &Plan) -> Result<Vec<Spill>, ExplainError> {
    let mut spills = Vec::new();
    let spare_bytes = spare_bytes(account);
    for buffer in account.context.graph.buffers.keys() {
        let Some(used) = account.homes.used_in[buffer] else { continue };
        let read_in = loaded_in(account, buffer, used);
        let is_input = matches!(account.context.graph.buffers[buffer].role, BufferRole::Input(_));
        if read_in.len() > usize::from(is_input) {
            spills.push(spill(account, plan, &spare_bytes, buffer, read_in)?);
        }
    }
    spills.sort_by_key(|spill: &Spill| {
        let saved = spill.spilled.dram_bytes.saturating_sub(spill.kept.dram_bytes);
        (std::cmp::Reverse(saved), spill.written_in)
    });
    Ok(spills)
}

/// The least bytes of activation SRAM that a phase takes with tensors at `homes`, however it runs.
fn leanest(account: &Account<'_>, homes: &Homes, phase: usize) -> Option<u64> {
    let tried = account.as_one(&account.context, homes, phase, phase);
    tried.iter().map(|tried| tried.sram_bytes).min()
}

/// Bytes of activation SRAM that each phase would save if it ran another way.
fn spare_bytes(account: &Account<'_>) -> Vec<u64> {
    let of_plan = account.estimate.sram_bytes.iter().enumerate();
    let spare = of_plan.map(|(phase, &bytes)| {
        leanest(account, &account.homes, phase).map_or(0, |least| bytes.saturating_sub(least))
    });
    spare.collect()
}

/// Phases that read a tensor from DRAM.
fn loaded_in(account: &Account<'_>, buffer: BufferId, used: UsedIn) -> Vec<usize> {
    let graph = account.context.graph;
    let readers = &account.context.topology.uses[buffer].readers;
    let reads = |&phase: &usize| readers.iter().any(|(stage, _)| account.phase_of[*stage] == phase);
    let is_input = matches!(graph.buffers[buffer].role, BufferRole::Input(_));
    let is_loaded = |&phase: &usize| {
        let place = account.homes.place(graph, buffer, phase);
        // What a phase writes and reads itself it does not load.
        place == Some(Place::Dram) && (is_input || phase > used.first)
    };
    (used.first..=used.last).filter(reads).filter(is_loaded).collect()
}

fn spill(
    account: &Account<'_>,
    plan: &Plan,
    spare_bytes: &[u64],
    buffer: BufferId,
    read_in: Vec<usize>,
) -> Result<Spill, ExplainError> {
    let graph = account.context.graph;
    let used = account.homes.used_in[buffer].expect("phases use what is spilled");
    let mut homes = account.homes.clone();
    let stored = homes.residency[buffer].stored && graph.buffers[buffer].role != BufferRole::Internal;
    let kept_until = Some(used.last as u32);
    homes.residency[buffer] = Residency { kept_until, stored, ..Residency::default() };
    let kept = account.at_homes(&homes)?;
    let capacity = account.capacity();
    let phases = used.first..=used.last;
    let uses = &account.context.topology.uses[buffer];
    let touches = |phase: usize| {
        uses.writers.iter().chain(&uses.readers).any(|(stage, _)| account.phase_of[*stage] == phase)
    };
    let needs = |phase: usize| match kept.sram_bytes[phase] {
        bytes if bytes <= capacity => bytes,
        bytes if touches(phase) => leanest(account, &homes, phase).unwrap_or(bytes),
        bytes => bytes.saturating_sub(spare_bytes[phase]),
    };
    let needed: Vec<u64> = phases.clone().map(needs).collect();
    let full = phases.zip(&needed);
    let full_phases = full.clone().filter(|(_, bytes)| **bytes > capacity).map(|(phase, _)| phase).collect();
    let (fullest_phase, needed_bytes) =
        full.max_by_key(|(_, bytes)| **bytes).map_or((used.first, 0), |(phase, bytes)| (phase, *bytes));
    let missing_bytes = needed_bytes.saturating_sub(capacity);
    let reason = if missing_bytes > 0 {
        SpillReason::NoRoom
    } else if (used.first..=used.last).any(|phase| kept.sram_bytes[phase] > capacity) {
        SpillReason::NoRoomAsPhasesRun
    } else if kept.cost >= account.estimate.cost {
        SpillReason::SavesNothing
    } else {
        SpillReason::PassedOver
    };
    let prefixes = plan.prefixes.iter().filter(|prefix| prefix.buffer == buffer);
    Ok(Spill {
        tensor: graph.buffers[buffer].name.clone(),
        bytes: graph.buffers[buffer].size_bytes(),
        written_in: used.first,
        read_in,
        rows: graph.buffers[buffer].rows,
        resident_rows: prefixes.map(|prefix| prefix.rows).max().unwrap_or(0),
        keep_bytes: account.context.whole_bytes(buffer),
        capacity_bytes: capacity,
        full_phases,
        fullest_phase,
        needed_bytes,
        missing_bytes,
        reason,
        spilled: PlanCost::from(&account.estimate),
        kept: PlanCost::from(&kept),
    })
}
