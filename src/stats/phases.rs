//! What every stage, partition and DMA queue of a simulated program spends each phase on.

use serde::{Deserialize, Serialize};
use strata_isa_spec::bundle::Machine;
use strata_isa_spec::timed::{DmaTime, TimeUse, Timing};
use strata_isa_spec::{Head, Phase};

/// A phase of a simulated program. The times of each stage, partition and queue add up to its cycles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseStats {
    /// Cycles from its begin to its last row.
    pub cycles: u64,
    /// Each partition of the array.
    pub partitions: Vec<PartitionStats>,
    /// The queues of the DMA engine.
    pub dma: DmaTime,
    /// Each stage.
    pub stages: Vec<StageStats>,
}

/// A partition of the array during a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionStats {
    /// Clusters that it has.
    pub clusters: u32,
    /// What it spends the phase on.
    #[serde(flatten)]
    pub time: TimeUse,
}

/// A stage of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageStats {
    /// The layer that it comes from.
    pub name: String,
    /// The mnemonic of its head.
    pub head: String,
    /// The partition that it runs on; none of a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// What it spends the phase on.
    #[serde(flatten)]
    pub time: TimeUse,
}

impl PhaseStats {
    /// The phases of a program, in order.
    pub fn of(machine: &Machine, timing: &Timing) -> Vec<Self> {
        let phases = machine.program.phases.iter().zip(&timing.phases);
        phases
            .map(|(phase, time)| Self {
                cycles: time.cycles,
                partitions: (phase.partitions.iter().zip(&time.partitions))
                    .map(|(&clusters, &time)| PartitionStats { clusters, time })
                    .collect(),
                dma: time.dma,
                stages: stages(phase, &time.stages, &machine.names),
            })
            .collect()
    }
}

fn stages(phase: &Phase, times: &[TimeUse], names: &[String]) -> Vec<StageStats> {
    let stages = phase.stages.iter().zip(times);
    stages
        .map(|(stage, &time)| {
            let is_dma = matches!(stage.code.head, Head::DmaIn(_) | Head::DmaOut(_));
            StageStats {
                name: names.get(stage.source as usize).cloned().unwrap_or_default(),
                head: stage.code.head.mnemonic().to_owned(),
                partition: (!is_dma).then_some(stage.partition),
                time,
            }
        })
        .collect()
}
