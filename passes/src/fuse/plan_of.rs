//! The plan that a choice is: where each tensor lives, and what is moved.

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_backend::model::{
    BufferId, BufferRole, Certificate, DramBytes, Objective, PhasePlan, Placement, Plan, Residency,
};

use crate::fuse::PlanOptions;
use crate::fuse::candidates::candidate::{Candidate, Context, Ring};
use crate::fuse::search::{Choice, ChosenPhase, Place};

/// The plan of a choice whose phases are candidates of the graph that was made of it, one variant each.
pub(super) fn plan_of(
    context: &Context<'_>,
    candidates: &[Candidate],
    choice: &Choice,
    options: &PlanOptions,
) -> Plan {
    let mut ledger = Ledger::new(context);
    let mut phases = Vec::with_capacity(choice.phases.len());
    for (index, chosen) in choice.phases.iter().enumerate() {
        let candidate = &candidates[chosen.candidate];
        ledger.enter(index as u32, chosen, candidate);
        phases.push(phase_of(chosen, candidate));
    }
    let Ledger { residency, mut dram, .. } = ledger;
    dram.total = dram.weights + dram.inputs + dram.outputs + dram.spill_write + dram.spill_read;
    let run = choice.phases.iter().map(|chosen| (&candidates[chosen.candidate], chosen.variant));
    let energy_pj = context.energy(run, choice.bytes);
    let cost = match options.objective {
        Objective::Latency => choice.cycles as f64,
        Objective::Traffic => dram.total as f64,
        Objective::Energy => energy_pj,
        Objective::Edp => energy_pj * choice.cycles as f64,
        Objective::Sram => choice.phases.iter().map(|phase| phase.sram_bytes).max().unwrap_or(0) as f64,
    };
    Plan {
        objective: options.objective,
        mode: options.mode,
        phases,
        residency,
        prefixes: Vec::new(),
        bases: None,
        activation_bytes: context.target.memory.activation,
        cycles: choice.cycles,
        search_cycles: choice.cycles,
        dram_bytes: dram,
        certificate: Certificate { cost, ..Certificate::default() },
    }
}

/// How the stages of a phase run.
fn phase_of(chosen: &ChosenPhase, candidate: &Candidate) -> PhasePlan {
    let variant = &candidate.variants[chosen.variant];
    let stages = candidate.stages.iter().zip(&variant.implementations).zip(&variant.division.of_stage);
    let placed = stages.map(|((&stage, how), &partition)| Placement {
        stage,
        partition,
        mapping: how.mapping,
        winograd: how.winograd,
    });
    PhasePlan {
        partitions: variant.division.partitions.clone(),
        stages: placed.collect(),
        slack: variant.slack,
        predicted_cycles: chosen.cycles,
    }
}

/// Where tensors live over the phases so far, and what was moved.
struct Ledger<'a> {
    context: &'a Context<'a>,
    residency: PrimaryMap<BufferId, Residency>,
    dram: DramBytes,
    /// Bytes of each input that were loaded once.
    seen_inputs: SecondaryMap<BufferId, u64>,
}

impl<'a> Ledger<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        let residency = context.graph.buffers.keys().map(|_| Residency::default()).collect();
        Self { context, residency, dram: DramBytes::default(), seen_inputs: SecondaryMap::new() }
    }

    /// Enters a phase.
    fn enter(&mut self, phase: u32, chosen: &ChosenPhase, candidate: &Candidate) {
        let variant = &candidate.variants[chosen.variant];
        self.dram.weights += candidate.table_bytes;
        for growth in &chosen.growths {
            self.residency[growth.growing].grows_into = Some(growth.into);
        }
        for &(buffer, place) in &chosen.places {
            let was_kept = self.residency[buffer].kept_until.is_some();
            if place == Place::InPlace {
                self.residency[buffer].in_place_of = self.context.in_place_targets[buffer];
            }
            let ring = candidate.boundary.iter().position(|b| b.buffer == buffer);
            let Some(ring) = ring.map(|ring| &variant.rings[ring]) else { continue };
            // What is in DRAM too may be dropped before it is read again. It then stays no longer than it is
            // of use.
            if place.in_sram() {
                self.residency[buffer].kept_until = Some(phase);
            }
            self.load(buffer, place, was_kept, ring);
            self.store(buffer, place, ring);
        }
    }

    fn role(&self, buffer: BufferId) -> BufferRole {
        self.context.graph.buffers[buffer].role
    }

    /// Counts what a phase loads of a tensor.
    fn load(&mut self, buffer: BufferId, place: Place, was_kept: bool, ring: &Ring) {
        let in_dram = place == Place::Dram;
        match self.role(buffer) {
            BufferRole::Input(_) if in_dram || !was_kept => {
                let size = self.context.graph.buffers[buffer].size_bytes();
                let bytes = if in_dram { ring.load.bytes } else { size };
                let first = bytes.min(size - self.seen_inputs[buffer]);
                self.seen_inputs[buffer] += first;
                self.dram.inputs += first;
                self.dram.spill_read += bytes - first;
            }
            _ if in_dram => self.dram.spill_read += ring.load.bytes,
            _ => {}
        }
    }

    /// Counts what a phase stores of a tensor.
    fn store(&mut self, buffer: BufferId, place: Place, ring: &Ring) {
        if place.in_dram() {
            let is_output = matches!(self.role(buffer), BufferRole::Output(_));
            let dram = &mut self.dram;
            *if is_output { &mut dram.outputs } else { &mut dram.spill_write } += ring.store.bytes;
            self.residency[buffer].stored |= ring.store.stages > 0;
        }
    }
}
