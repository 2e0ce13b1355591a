//! Bytes that tensors share: growths, and tensors in place of others.

use std::collections::BTreeSet;

use crate::check::{Judge, PlanFault};
use crate::cost::rings::OverlapProbe;
use crate::model::{BufferId, BufferRole, BufferView, StageId};

impl Judge<'_> {
    /// Bytes that tensors share in a phase which are written in place of others. What is wrong with a pair is
    /// said in the phase in which the one is first written.
    pub(super) fn in_place_bytes(&self, phase: usize, faults: &mut Vec<PlanFault>) -> u64 {
        let align = |bytes: u64| bytes.next_multiple_of(u64::from(self.target.memory.alignment.max(1)));
        let mut shared = 0;
        let mut hosts: BTreeSet<BufferId> = BTreeSet::new();
        for (id, buffer) in &self.graph.buffers {
            let residency = self.plan.residency[id];
            let Some(host) = residency.in_place_of else { continue };
            if !self.graph.buffers.is_valid(host) {
                continue;
            }
            if self.is_whole(id, phase) && self.is_whole(host, phase) {
                shared += u64::from(buffer.rows) * align(buffer.row_bytes());
            }
            let is_alone = hosts.insert(host) && residency.grows_into.is_none();
            let birth = self.uses(id).writers.iter().map(|(stage, _)| self.phase_of[stage]).min();
            if birth == Some(phase) && !(is_alone && self.overwrites(id, host, phase)) {
                let problem = "it does not overwrite, element by element, what is read there last".to_owned();
                faults.push(self.no_growth(phase, id, host, problem));
            }
        }
        shared
    }

    /// Whether a buffer that is first written in phase `birth` overwrites, element by element, what is read
    /// of another last.
    fn overwrites(&self, id: BufferId, host: BufferId, birth: usize) -> bool {
        let (own, other) = (self.uses(id), self.uses(host));
        let shape = |id: BufferId| {
            let buffer = &self.graph.buffers[id];
            (buffer.rows, buffer.cols, buffer.chs, buffer.elem.size_bytes())
        };
        let are_whole = birth > 0
            && self.is_whole(id, birth)
            && self.is_whole(host, birth)
            && self.is_whole(host, birth - 1);
        let is_writer = |stage: &StageId| own.writers.iter().any(|(writer, _)| writer == stage);
        // Whoever else has to do with the host has done it before, and who writes reads there only what it
        // overwrites.
        let mut others = other.writers.iter().chain(&other.readers).filter(|(stage, _)| !is_writer(stage));
        let are_done = others.all(|(stage, _)| self.phase_of[stage] < birth);
        let reads_in_place = |(writer, _): &(StageId, BufferView)| {
            let code = &self.graph.stages[*writer].code;
            let in_place = code.in_place_reads();
            let reads = code.reads();
            (0..reads.len()).all(|n| reads[n].tensor != host || in_place.contains(&n))
        };
        shape(id) == shape(host) && are_whole && are_done && own.writers.iter().all(reads_in_place)
    }

    /// The tensors that take the space of others in a phase: what is to be probed, the bytes saved, and the
    /// stated gap.
    pub(super) fn growths(&self, phase: usize, faults: &mut Vec<PlanFault>) -> Vec<(OverlapProbe, u64, u64)> {
        let align = |bytes: u64| bytes.next_multiple_of(u64::from(self.target.memory.alignment.max(1)));
        let phases = |uses: &[(StageId, BufferView)]| -> Vec<usize> {
            uses.iter().map(|(stage, _)| self.phase_of[stage]).collect()
        };
        let mut growths: Vec<(OverlapProbe, u64, u64)> = Vec::new();
        for (id, buffer) in &self.graph.buffers {
            let residency = self.plan.residency[id];
            let Some(into) = residency.grows_into else { continue };
            let Some(dying) = self.graph.buffers.get(into.buffer) else { continue };
            let (own, other) = (self.uses(id), self.uses(into.buffer));
            if phases(&own.writers).into_iter().min() != Some(phase) {
                continue;
            }
            let other_until = self.plan.residency[into.buffer].kept_until;
            let is_born_before = (phases(&other.writers).into_iter().chain(
                matches!(dying.role, BufferRole::Input(_))
                    .then(|| phases(&other.readers))
                    .into_iter()
                    .flatten(),
            ))
            .min()
            .is_some_and(|first| first < phase);
            let dies_here = phases(&other.readers).into_iter().all(|reader| reader <= phase)
                && phases(&other.writers).into_iter().all(|writer| writer < phase)
                && other_until == Some(phase as u32);
            // It may be whole in this phase only: what stands in DRAM too can be dropped before it is read.
            let is_taken = growths.iter().any(|(probe, ..)| probe.dying == into.buffer);
            let problem = if !(is_born_before && dies_here) {
                Some("that is not whole here for the last time")
            } else if !self.is_whole(id, phase) {
                Some("it is not whole itself")
            } else {
                is_taken.then_some("another takes it")
            };
            if let Some(problem) = problem {
                faults.push(self.no_growth(phase, id, into.buffer, problem.to_owned()));
                continue;
            }
            let (dying_pitch, growing_pitch) = (align(dying.row_bytes()), align(buffer.row_bytes()));
            let (before, after) =
                (u64::from(dying.rows) * dying_pitch, u64::from(buffer.rows) * growing_pitch);
            let together = (before + into.gap_bytes).max(after);
            let probe = OverlapProbe { dying: into.buffer, dying_pitch, growing: id, growing_pitch };
            growths.push((probe, (before + after).saturating_sub(together), into.gap_bytes));
        }
        growths
    }

    pub(super) fn no_growth(
        &self,
        phase: usize,
        growing: BufferId,
        dying: BufferId,
        problem: String,
    ) -> PlanFault {
        let name = |id: BufferId| self.graph.buffers[id].name.clone();
        PlanFault::Growth { phase, growing: name(growing), dying: name(dying), problem }
    }
}
