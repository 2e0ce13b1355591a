//! Targets: what a machine has.
//!
//! A target is a TOML file; the presets in `targets/` are compiled in. Sizes are numbers of bytes or strings
//! such as `"8MiB"`. Any field can be overridden by its dotted name ([`Target::preset`]).

use std::fmt;

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

/// Reads a size. A visitor, not an untagged enum, so that an error says where it is and what was found.
struct SizeVisitor;

impl serde::de::Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size in bytes, such as 8388608 or \"8MiB\"")
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        parse_bytes(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
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
        let malformed = |error: toml::de::Error| TargetError::Malformed {
            name: name.to_owned(),
            reason: error.to_string(),
        };
        // The text by itself first: only then do errors know their lines.
        toml::from_str::<Self>(text).map_err(malformed)?;
        let table = text.parse().map_err(malformed)?;
        Self::from_table(name, table, overrides).map_err(|error| match error {
            TargetError::Impossible { name, problems } => {
                let problems = problems.into_iter().map(|problem| with_line(text, overrides, problem));
                TargetError::Impossible { name, problems: problems.collect() }
            }
            other => other,
        })
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
        let Self { array, memory, dram, energy, limits, .. } = self;
        let mut problems = Problems::default();
        let power_of_two = |number: u32| number.is_power_of_two() && number <= 4096;
        let below_4_gib = |bytes: u64| (1..1 << 32).contains(&bytes);
        let clusters = (1..=4096).contains(&array.clusters);
        problems.need(clusters, "array.clusters", "must be 1 to 4096", array.clusters);
        let lanes = power_of_two(array.lanes);
        problems.need(lanes, "array.lanes", "must be a power of two up to 4096", array.lanes);
        problems.need(array.clock_hz > 0, "array.clock_hz", "must be positive", array.clock_hz);
        let alignment = power_of_two(memory.alignment);
        problems.need(alignment, "memory.alignment", "must be a power of two up to 4096", memory.alignment);
        let size = "must be at least 1 byte and less than 4 GiB";
        problems.need(below_4_gib(memory.activation), "memory.activation", size, memory.activation);
        problems.need(below_4_gib(memory.weight), "memory.weight", size, memory.weight);
        let port = memory.port_bytes_per_cycle;
        problems.need(port > 0, "memory.port_bytes_per_cycle", "must be positive", port);
        let bandwidth = dram.bytes_per_cycle;
        problems.need(bandwidth > 0, "dram.bytes_per_cycle", "must be positive", bandwidth);
        let stages = "must be at least 3: a stage and its two DMA stages";
        problems.need(limits.stages >= 3, "limits.stages", stages, limits.stages);
        problems.need(limits.streams >= 2, "limits.streams", "must be at least 2", limits.streams);
        for (field, picojoules) in [
            ("energy.mac_pj", energy.mac_pj),
            ("energy.activation_byte_pj", energy.activation_byte_pj),
            ("energy.weight_byte_pj", energy.weight_byte_pj),
            ("energy.dram_byte_pj", energy.dram_byte_pj),
        ] {
            let is_energy = picojoules.is_finite() && picojoules >= 0.0;
            problems.need(is_energy, field, "must be finite and not negative", picojoules);
        }
        problems.0
    }

    /// int8 MACs of the whole array.
    pub fn macs(&self) -> u64 {
        u64::from(self.array.clusters) * u64::from(self.array.lanes)
    }
}

/// What is wrong with a target: each begins with the field.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn need(&mut self, holds: bool, field: &str, what: &str, found: impl fmt::Display) {
        if !holds {
            self.0.push(format!("{field} {what}, found {found}"));
        }
    }
}

/// A problem of a field with the line of the text that sets it, unless an override does.
fn with_line(text: &str, overrides: &[(String, String)], problem: String) -> String {
    let field = problem.split(' ').next().unwrap_or_default();
    if overrides.iter().any(|(key, _)| key == field) {
        return problem;
    }
    match line_of(text, field) {
        Some(line) => format!("line {line}: {problem}"),
        None => problem,
    }
}

/// The line of a TOML text, counted from 1, that sets a field of a table.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let (table, key) = field.split_once('.')?;
    let mut inside = false;
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.split(']').next().map(str::trim) == Some(table);
        } else if inside && line.split('=').next().map(str::trim) == Some(key) {
            return Some(number);
        }
    }
    None
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

    #[test]
    fn errors_of_a_file_say_where_what_was_found_and_what_was_expected() {
        let (_, x1) = PRESETS[0];
        let refused = |from: &str, to: &str| {
            let text = x1.replacen(from, to, 1);
            Target::from_toml("my.toml", &text, &[]).expect_err(to).to_string()
        };
        let size = refused("activation = \"8MiB\"", "activation = -4");
        assert!(
            size.contains("line 11") && size.contains("`-4`") && size.contains("size in bytes"),
            "{size}"
        );
        let unit = refused("activation = \"8MiB\"", "activation = \"8MB\"");
        assert!(unit.contains("line 11") && unit.contains("\"8MB\""), "{unit}");
        let lanes = refused("lanes = 64", "lanes = 48");
        assert!(lanes.contains("line 6: array.lanes must be a power of two up to 4096, found 48"), "{lanes}");
        let missing = refused("lanes = 64", "");
        assert!(missing.contains("missing field `lanes`") && missing.contains("line"), "{missing}");
        let set = ("array.lanes".to_owned(), "48".to_owned());
        let overridden = Target::preset("x1", &[set]).expect_err("48").to_string();
        assert!(!overridden.contains("line") && overridden.contains("found 48"), "{overridden}");
    }
}
