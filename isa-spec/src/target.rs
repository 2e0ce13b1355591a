//! Targets: what a machine has.
//!
//! A target is a TOML file; the presets in `targets/` are compiled in. Sizes are numbers of bytes or strings
//! such as `"8MiB"`. Any field can be overridden by its dotted name ([`Target::preset`]).

use serde::{Deserialize, Deserializer, Serialize};

/// Why a target could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No preset has this name.
    #[error("unknown target `{name}`: the presets are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The text is not a target.
    #[error("target `{name}`: {reason}")]
    Malformed {
        /// The preset or file.
        name: String,
        /// What is wrong, with its line.
        reason: String,
    },
    /// An override names no field, or its value is of another kind.
    #[error("override `{key}={value}`: {reason}")]
    BadOverride {
        /// The dotted field.
        key: String,
        /// The value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A field has a value that no machine can have. All of them are listed.
    #[error("target `{name}` is impossible: {}", problems.join("; "))]
    Impossible {
        /// The target.
        name: String,
        /// Every offending field, with what it may be.
        problems: Vec<String>,
    },
}

const PRESETS: [(&str, &str); 4] = [
    ("x1", include_str!("../targets/x1.toml")),
    ("cascade", include_str!("../targets/cascade.toml")),
    ("tile", include_str!("../targets/tile.toml")),
    ("micro", include_str!("../targets/micro.toml")),
];

/// A number of bytes, or a string with a unit: `B`, `KiB`, `MiB` or `GiB`.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = digits.trim().replace('_', "").parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number * unit) as u64)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Number(n) => Ok(n),
        Size::Text(text) => parse_bytes(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a size: expected bytes, such as 8388608 or 8MiB"
            ))
        }),
    }
}

impl Target {
    /// Names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// A preset with overrides (`memory.activation=4MiB`), checked.
    ///
    /// # Errors
    /// If there is no such preset, an override is wrong, or the machine is impossible.
    pub fn preset(name: &str, overrides: &[(String, String)]) -> Result<Self, TargetError> {
        let (_, text) =
            PRESETS.iter().find(|(preset, _)| *preset == name).ok_or_else(|| TargetError::Unknown {
                name: name.to_owned(),
                known: Self::presets().collect::<Vec<_>>().join(", "),
            })?;
        Self::from_toml(name, text, overrides)
    }

    /// A target from TOML text with overrides, checked. `name` stands in errors.
    ///
    /// # Errors
    /// If the text is not a target, an override is wrong, or the machine is impossible.
    pub fn from_toml(name: &str, text: &str, overrides: &[(String, String)]) -> Result<Self, TargetError> {
        let table = text.parse().map_err(|e: toml::de::Error| TargetError::Malformed {
            name: name.to_owned(),
            reason: e.to_string(),
        })?;
        Self::from_table(name, table, overrides)
    }

    /// The same target with overrides, checked.
    ///
    /// # Errors
    /// If an override is wrong, or the machine is impossible.
    pub fn with(&self, overrides: &[(String, String)]) -> Result<Self, TargetError> {
        let table = toml::Table::try_from(self)
            .map_err(|e| TargetError::Malformed { name: self.name.clone(), reason: e.to_string() })?;
        Self::from_table(&self.name, table, overrides)
    }

    fn from_table(
        name: &str,
        mut table: toml::Table,
        overrides: &[(String, String)],
    ) -> Result<Self, TargetError> {
        let malformed = |reason: String| TargetError::Malformed { name: name.to_owned(), reason };
        for (key, value) in overrides {
            let bad =
                |reason: String| TargetError::BadOverride { key: key.clone(), value: value.clone(), reason };
            let mut parts: Vec<&str> = key.split('.').collect();
            let last = parts.pop().unwrap_or_default();
            let mut at = &mut table;
            for part in parts {
                at = at
                    .get_mut(part)
                    .and_then(toml::Value::as_table_mut)
                    .ok_or_else(|| bad(format!("the target has no table `{part}`")))?;
            }
            let fields = at.keys().cloned().collect::<Vec<_>>().join(", ");
            let slot = at.get_mut(last).ok_or_else(|| bad(format!("no such field; there are {fields}")))?;
            if slot.is_table() {
                return Err(bad(format!("`{last}` is a table; name one of its fields")));
            }
            *slot = toml::from_str::<toml::Table>(&format!("v = {value}"))
                .ok()
                .and_then(|mut t| t.remove("v"))
                .unwrap_or_else(|| toml::Value::String(value.clone()));
            toml::Value::Table(table.clone()).try_into::<Self>().map_err(|e| bad(e.message().to_owned()))?;
        }
        let target: Self = toml::Value::Table(table).try_into().map_err(|e| malformed(e.to_string()))?;
        let problems = target.problems();
        if problems.is_empty() {
            Ok(target)
        } else {
            Err(TargetError::Impossible { name: name.to_owned(), problems })
        }
    }

    /// Everything about the target that no machine can have.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |ok: bool, what: &str| {
            if !ok {
                problems.push(what.to_owned());
            }
        };
        need((1..=4096).contains(&self.array.clusters), "array.clusters must be 1 to 4096");
        need(
            self.array.lanes.is_power_of_two() && self.array.lanes <= 4096,
            "array.lanes must be a power of two up to 4096",
        );
        need(self.array.clock_hz > 0, "array.clock_hz must be positive");
        need(
            self.memory.alignment.is_power_of_two() && self.memory.alignment <= 4096,
            "memory.alignment must be a power of two up to 4096",
        );
        need(
            (1..1 << 32).contains(&self.memory.activation),
            "memory.activation must be at least 1 byte and less than 4 GiB",
        );
        need(
            (1..1 << 32).contains(&self.memory.weight),
            "memory.weight must be at least 1 byte and less than 4 GiB",
        );
        need(self.memory.port_bytes_per_cycle > 0, "memory.port_bytes_per_cycle must be positive");
        need(self.dram.bytes_per_cycle > 0, "dram.bytes_per_cycle must be positive");
        need(self.limits.stages >= 3, "limits.stages must be at least 3: a stage and its two DMA stages");
        need(self.limits.streams >= 2, "limits.streams must be at least 2");
        let energies = [
            self.energy.mac_pj,
            self.energy.activation_byte_pj,
            self.energy.weight_byte_pj,
            self.energy.dram_byte_pj,
        ];
        need(energies.iter().all(|e| e.is_finite() && *e >= 0.0), "energies must be finite and not negative");
        problems
    }

    /// int8 MACs of the whole array.
    pub fn macs(&self) -> u64 {
        u64::from(self.array.clusters) * u64::from(self.array.lanes)
    }
}

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
    /// int8 MACs of a cluster, a power of two; with an `i16` activation each is half a MAC.
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
    #[serde(deserialize_with = "bytes")]
    pub activation: u64,
    /// Bytes of weight SRAM.
    #[serde(deserialize_with = "bytes")]
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
    /// One int8 MAC; with an `i16` activation two are performed, and four where both factors are `i16`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_parse_and_can_be_overridden() {
        for name in Target::presets() {
            assert_eq!(Target::preset(name, &[]).map(|t| t.name), Ok(name.to_owned()));
        }
        let set = |k: &str, v: &str| Target::preset("x1", &[(k.to_owned(), v.to_owned())]);
        assert_eq!(set("memory.activation", "4MiB").map(|t| t.memory.activation), Ok(4 << 20));
        assert_eq!(set("array.winograd", "false").map(|t| t.array.winograd), Ok(false));
        assert!(matches!(set("memory.sram", "1"), Err(TargetError::BadOverride { .. })));
        assert!(matches!(set("array.clusters", "many"), Err(TargetError::BadOverride { .. })));
        assert!(matches!(set("array.lanes", "48"), Err(TargetError::Impossible { .. })));
        assert!(matches!(Target::preset("x9", &[]), Err(TargetError::Unknown { .. })));
    }
}
