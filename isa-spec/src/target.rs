//! Targets: what a machine has.

use serde::{Deserialize, Serialize};

/// A machine. Written as TOML; any field can be overridden by its dotted name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// The MAC array.
    pub array: Array,
    /// On-chip memories.
    pub memory: Memory,
    /// DRAM and its DMA engine.
    pub dram: Dram,
    /// Costs of changing what the array does.
    pub switch: Switch,
    /// Energies.
    pub energy: Energy,
    /// Limits of a phase.
    pub limits: Limits,
}

/// The MAC array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// MAC clusters.
    pub clusters: u32,
    /// int8 MACs of a cluster, a power of two.
    pub lanes: u32,
    /// Clock in hertz.
    pub clock_hz: u64,
    /// Whether the array runs Winograd F(2x2,3x3).
    pub winograd: bool,
}

/// On-chip memories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Bytes of activation SRAM.
    pub activation: u64,
    /// Bytes of weight SRAM.
    pub weight: u64,
    /// Alignment of rings and tables in bytes, a power of two.
    pub alignment: u32,
    /// Bytes a cycle that one cluster can read from activation SRAM.
    pub port_bytes_per_cycle: u32,
}

/// DRAM and its DMA engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dram {
    /// Bytes a cycle, over all queues together.
    pub bytes_per_cycle: u32,
    /// Cycles from a request to its first byte.
    pub latency_cycles: u32,
}

/// Costs of changing what the array does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// Cycles a partition loses when it turns from one stage to another.
    pub stage_cycles: u32,
    /// Cycles between two phases.
    pub phase_cycles: u32,
}

/// Energies in picojoules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// One int8 MAC.
    pub mac_pj: f64,
    /// One byte of activation SRAM.
    pub activation_byte_pj: f64,
    /// One byte of weight SRAM.
    pub weight_byte_pj: f64,
    /// One byte of DRAM.
    pub dram_byte_pj: f64,
}

/// Limits of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Stages, DMA stages among them.
    pub stages: u32,
    /// Streams.
    pub streams: u32,
}
