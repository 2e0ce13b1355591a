//! The figures of a plan, each under a stable key: from statistics, or from a plan in the IR.

use serde::{Deserialize, Serialize};
use strata_backend::model::{DramBytes, Plan};

use crate::stats::{EnergyStats, Stats};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// Clock cycles.
    Cycles,
    /// Clock cycles of a cluster.
    ClusterCycles,
    /// Bytes.
    Bytes,
    /// Picojoules.
    Picojoules,
    /// A part of a whole, from 0 to 1.
    Share,
    /// Inferences a second.
    Rate,
}

/// A figure of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its stable name; those of statistics have their keys.
    pub key: String,
    /// What it counts.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// Collects figures under their keys.
struct Figures(Vec<Figure>);

impl Figures {
    fn push(&mut self, key: &str, unit: Unit, value: f64) {
        self.0.push(Figure { key: key.to_owned(), unit, value });
    }

    fn push_dram(&mut self, bytes: &DramBytes) {
        let DramBytes { weights, inputs, outputs, spill_write, spill_read, total, compulsory: _ } = *bytes;
        for (kind, bytes) in [
            ("total", total),
            ("weights", weights),
            ("inputs", inputs),
            ("outputs", outputs),
            ("spill_write", spill_write),
            ("spill_read", spill_read),
        ] {
            self.push(&format!("dram_bytes.{kind}"), Unit::Bytes, bytes as f64);
        }
    }

    fn push_energy(&mut self, energy: &EnergyStats) {
        let EnergyStats { mac, sram, dram, total } = *energy;
        for (part, picojoules) in [("total", total), ("mac", mac), ("sram", sram), ("dram", dram)] {
            self.push(&format!("energy_pj.{part}"), Unit::Picojoules, picojoules);
        }
    }
}

/// The figures of statistics: those of the simulation where there is one. Of a program that has no statistics
/// the plan says nothing.
pub(super) fn of_statistics(stats: &Stats, has_program: bool) -> Vec<Figure> {
    let mut figures = Figures(Vec::new());
    let plan = &stats.plan;
    if !has_program || plan.phases > 0 {
        figures.push("phases", Unit::Count, plan.phases as f64);
        figures.push("stages", Unit::Count, plan.stages as f64);
        figures.push("largest_phase_stages", Unit::Count, plan.largest_phase_stages as f64);
        figures.push("lower_bound_cycles", Unit::Cycles, plan.lower_bound_cycles as f64);
        figures.push("gap", Unit::Share, plan.gap);
        figures.push("peak_activation_sram_bytes", Unit::Bytes, plan.peak_activation_sram_bytes as f64);
        figures.push("peak_weight_sram_bytes", Unit::Bytes, plan.peak_weight_sram_bytes as f64);
        figures.push("macs_direct", Unit::Count, stats.model.macs_direct as f64);
    }
    match &stats.simulated {
        Some(simulated) => {
            figures.push("cycles", Unit::Cycles, simulated.cycles as f64);
            figures.push("frames_per_second", Unit::Rate, simulated.frames_per_second);
            figures.push("idle_mac_share", Unit::Share, 1.0 - simulated.mac_utilisation);
            figures.push_dram(&simulated.dram_bytes);
            figures.push_energy(&simulated.energy_pj);
            if let Some(stream) = &simulated.stream {
                figures.push("stream.cycles", Unit::Cycles, stream.cycles as f64);
                figures.push("stream.frames_per_second", Unit::Rate, stream.frames_per_second);
                figures.push("stream.dram_bytes.total", Unit::Bytes, stream.dram_bytes.total as f64);
            }
            let array = simulated.array;
            for (what, cycles) in [
                ("busy", array.busy),
                ("idle", array.idle),
                ("stalled_input", array.stalled_input),
                ("stalled_output", array.stalled_output),
                ("stalled_weights", array.stalled_weights),
                ("waiting_turn", array.waiting_turn),
                ("switching", array.switching),
                ("configuring", array.configuring),
            ] {
                figures.push(&format!("array.{what}"), Unit::ClusterCycles, cycles as f64);
            }
        }
        None => {
            figures.push("cycles", Unit::Cycles, plan.cycles as f64);
            figures.push("frames_per_second", Unit::Rate, plan.frames_per_second);
            figures.push("idle_mac_share", Unit::Share, 1.0 - plan.mac_utilisation);
            figures.push_dram(&plan.dram_bytes);
            figures.push_energy(&plan.energy_pj);
        }
    }
    figures.0
}

/// The figures that a plan in the IR tells.
pub(super) fn of_plan(plan: &Plan) -> Vec<Figure> {
    let mut figures = Figures(Vec::new());
    figures.push("phases", Unit::Count, plan.phases.len() as f64);
    figures.push(
        "stages",
        Unit::Count,
        plan.phases.iter().map(|phase| phase.stages.len()).sum::<usize>() as f64,
    );
    figures.push("lower_bound_cycles", Unit::Cycles, plan.certificate.lower_bound_cycles as f64);
    figures.push("gap", Unit::Share, plan.certificate.gap);
    figures.push("cycles", Unit::Cycles, plan.cycles as f64);
    figures.push_dram(&plan.dram_bytes);
    figures.0
}
