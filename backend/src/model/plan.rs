//! Which stages run together, on which clusters, and where every tensor that crosses phases lives.

use cranelift_entity::{PrimaryMap, SecondaryMap};
use serde::{Deserialize, Serialize};
use strata_ir::pass::PassError;
use strata_ir::{Attribute, Module, Op, OpId};
use strata_isa_spec::{Mapping, timed};

use super::{BufferId, StageId};
use crate::cost::rings::Buffering;

/// What a plan minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Cycles of one inference.
    #[default]
    Latency,
    /// Energy of one inference.
    Energy,
    /// DRAM bytes of one inference.
    Traffic,
    /// Energy times delay.
    Edp,
    /// Bytes of activation SRAM at the peak; among equals, DRAM bytes.
    Sram,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Self; 5] = [Self::Latency, Self::Energy, Self::Traffic, Self::Edp, Self::Sram];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Energy => "energy",
            Self::Traffic => "traffic",
            Self::Edp => "edp",
            Self::Sram => "sram",
        }
    }

    /// The objective of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|objective| objective.name() == name)
    }
}

/// Whether phases may hold more than one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Multi-layer.
    #[default]
    Multi,
    /// The layer-at-a-time machine: one stage a phase.
    Single,
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multi => "multi",
            Self::Single => "single",
        }
    }

    /// The mode of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Multi, Self::Single].into_iter().find(|mode| mode.name() == name)
    }
}

/// A stage's place in a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The stage.
    pub stage: StageId,
    /// Its partition, an index into the phase's.
    pub partition: u32,
    /// How the array is divided.
    pub mapping: Mapping,
    /// Whether it runs as Winograd.
    pub winograd: bool,
}

/// A phase of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasePlan {
    /// Clusters of each partition.
    pub partitions: Vec<u32>,
    /// Its stages, in topological order.
    pub stages: Vec<Placement>,
    /// How its rings are sized: what [`ring_slots`](crate::cost::rings::ring_slots) is to be called with.
    pub slack: Buffering,
    /// What the planner predicts of it, in cycles.
    pub predicted_cycles: u64,
}

/// Where a buffer that crosses phases lives. [`transfers`](crate::cost::transfers) says what is moved for it.
/// A buffer used in one phase only (and neither input nor output) has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Last phase up to which the whole tensor stays in activation SRAM, from the phase that first writes (or
    /// loads) it: the last that uses it there. `None` if it is never whole in SRAM.
    pub kept_until: Option<u32>,
    /// Whether it is stored to DRAM as it is written (always so for outputs; inputs stand there already).
    pub stored: bool,
    /// The tensor whose space it takes as that is read for the last time, in the phase that first writes this
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grows_into: Option<GrowsInto>,
    /// The tensor in whose very bytes it is written, element by element, as that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place_of: Option<BufferId>,
}

/// How a tensor shares bytes with one that dies in the phase in which it is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowsInto {
    /// The one that dies.
    pub buffer: BufferId,
    /// How many bytes before it the new one begins: far enough that no row is written before those that stand
    /// there are passed.
    pub gap_bytes: u64,
}

impl GrowsInto {
    /// Bytes that both take together, for their own sizes.
    pub fn union_bytes(&self, dying: u64, growing: u64) -> u64 {
        (dying + self.gap_bytes).max(growing)
    }
}

/// First rows of a tensor that are in activation SRAM where the tensor as a whole is not. Those that stay
/// from the phase that first writes the tensor are moved less often; those of a later phase are loaded by it,
/// ahead of the phase that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentPrefix {
    /// The tensor.
    pub buffer: BufferId,
    /// How many of its rows.
    pub rows: u32,
    /// The phase in which they come: it writes them, or else loads them.
    pub from: u32,
    /// The last phase that reads them there.
    pub until: u32,
}

/// Where streams stand in activation SRAM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bases {
    /// Rings and whole tensors, by buffer and phase.
    pub streams: Vec<StreamBase>,
    /// First rows that stay, in the order of [`Plan::prefixes`]: the first byte of those beyond the next that
    /// stay longer.
    pub prefixes: Vec<u64>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBase {
    /// The tensor that it holds, or the part of it that a phase uses.
    pub buffer: BufferId,
    /// The first phase in which it does.
    pub phase: u32,
    /// The first byte.
    pub base: u64,
    /// Bytes that it may take.
    pub bytes: u64,
}

/// DRAM bytes of one inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DramBytes {
    /// Weights, biases and tables read.
    pub weights: u64,
    /// Network inputs read.
    pub inputs: u64,
    /// Network outputs written.
    pub outputs: u64,
    /// Activations stored.
    pub spill_write: u64,
    /// Activations loaded back (and inputs read more than once).
    pub spill_read: u64,
    /// All of these.
    pub total: u64,
    /// Weights, inputs and outputs once, which no plan can avoid.
    pub compulsory: u64,
}

/// Why no plan costs less than a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoundArgument {
    /// No bound is known.
    #[default]
    None,
    /// The array has so much to compute.
    Array,
    /// DRAM has so many bytes to move.
    Dram,
    /// Weight SRAM holds so little that loads and products wait for each other.
    WeightMemory,
    /// Weights, inputs and outputs are moved once.
    Bytes,
    /// They are, and activation SRAM holds less than is alive at once.
    ActivationMemory,
    /// The fewest products, and bytes moved once.
    Energy,
    /// The least energy in the least time.
    EnergyTimesCycles,
}

impl BoundArgument {
    /// The argument in a few words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::None => "no bound is known",
            Self::Array => "the array's work",
            Self::Dram => "DRAM's rate",
            Self::WeightMemory => "weight SRAM: loads and products wait for each other",
            Self::Bytes => "weights, inputs and outputs once",
            Self::ActivationMemory => "activation SRAM holds less than is alive at once",
            Self::Energy => "the fewest products and bytes",
            Self::EnergyTimesCycles => "the least energy times the fewest cycles",
        }
    }
}

/// What no frame of a long stream takes less of, on average; zero where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameBound {
    /// Cycles.
    pub cycles: u64,
    /// Why none takes fewer.
    pub argument: BoundArgument,
    /// DRAM bytes.
    pub bytes: u64,
}

/// Why a plan is as good as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Predicted cost under the objective, in its unit (cycles, picojoules, bytes, picojoule-cycles).
    pub cost: f64,
    /// No plan costs less; 0 where no bound is known, as for [`Objective::Sram`].
    pub lower_bound: f64,
    /// Why none does.
    #[serde(default)]
    pub argument: BoundArgument,
    /// No plan takes fewer cycles.
    pub lower_bound_cycles: u64,
    /// What no frame takes less of where one follows another.
    #[serde(default)]
    pub frame_bound: FrameBound,
    /// `cost / lower_bound - 1`.
    pub gap: f64,
    /// Whether the chooser proved the plan optimal over the groups it was offered.
    pub proven_optimal: bool,
    /// Whether a limit of the e-graph was reached, so that there are groups that the chooser was not offered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offer_limited: bool,
    /// Whether the chooser had done its share of work before the end of a search, and went on looking at
    /// fewer groups and fewer ways to place tensors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub search_limited: bool,
}

/// A whole plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it minimises.
    pub objective: Objective,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// Phases in order.
    pub phases: Vec<PhasePlan>,
    /// Where each buffer lives.
    #[serde(with = "as_list")]
    pub residency: PrimaryMap<BufferId, Residency>,
    /// First rows that are in SRAM longer or earlier than the rest of their tensors. Of one tensor, prefixes
    /// that begin in one phase are nested: longer ones end earlier. Those that begin in a later phase begin
    /// after these have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<ResidentPrefix>,
    /// Addresses, if they are not the scheduler's to find: prefixes were fitted between those that it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<Bases>,
    /// Bytes of activation SRAM in which it was planned; the scheduler uses no more.
    pub activation_bytes: u64,
    /// Predicted cycles: those of its phases.
    pub cycles: u64,
    /// Cycles by the closed form with which the search compared plans. Once a plan has addresses, `cycles`
    /// and those of its phases are the timed simulation's of what was scheduled.
    pub search_cycles: u64,
    /// Predicted traffic.
    pub dram_bytes: DramBytes,
    /// Bounds.
    pub certificate: Certificate,
}

/// The function's plan, on `func.func`, but for its phases: each of these is the `plan` of its
/// `strata.phase`.
pub const PLAN: &str = "strata.plan";
/// The field of a plan that holds its phases.
const PHASES: &str = "phases";

impl Plan {
    /// The stages of each phase.
    pub fn stages(&self) -> Vec<Vec<StageId>> {
        self.phases.iter().map(|phase| phase.stages.iter().map(|placed| placed.stage).collect()).collect()
    }

    /// The plan of a function at the `phases` level or a later one, whose stages it numbers in the order in
    /// which they stand.
    ///
    /// # Errors
    /// If the function has none, or it or that of a phase is malformed.
    pub fn from_module(module: &Module, func: OpId) -> Result<Self, PassError> {
        let attr = module.op(func).extra.get(PLAN);
        let mut attr = attr.cloned().ok_or_else(|| {
            PassError::Missing(format!("a plan: the function has no `{PLAN}`; run `fuse-layers` first"))
        })?;
        if let Attribute::Dict(fields) = &mut attr {
            let plan_of = |&op: &OpId| match &module.op(op).op {
                Op::Phase(phase) => Some(phase.plan.clone()),
                _ => None,
            };
            let phases = module.block_ops(module.entry_block(func)).iter().filter_map(plan_of);
            fields.insert(PHASES.to_owned(), Attribute::Array(phases.collect()));
        }
        attr.to_serde().map_err(|error| PassError::invalid(format!("`{PLAN}` is no plan: {error}")))
    }

    /// Writes the plan down at its function, but for its phases, which stand at theirs.
    ///
    /// # Errors
    /// If it cannot be written as an attribute.
    pub fn attach(&self, module: &mut Module, func: OpId) -> Result<(), PassError> {
        let mut attr = Attribute::from_serde(self).map_err(PassError::other)?;
        if let Attribute::Dict(fields) = &mut attr {
            fields.remove(PHASES);
        }
        module.op_mut(func).extra.insert(PLAN.to_owned(), attr);
        Ok(())
    }

    /// How many first rows of a tensor are in activation SRAM as a phase begins, if not all are.
    pub fn prefix_rows(&self, buffer: BufferId, phase: usize) -> u32 {
        phase.checked_sub(1).map_or(0, |before| self.staying_rows(buffer, before, phase))
    }

    /// How many first rows of a tensor stay in activation SRAM from one phase, or before it, to a later one,
    /// if not all do.
    pub fn staying_rows(&self, buffer: BufferId, since: usize, phase: usize) -> u32 {
        let stays =
            |prefix: &&ResidentPrefix| prefix.from as usize <= since && phase <= prefix.until as usize;
        let prefixes = self.prefixes.iter().filter(|prefix| prefix.buffer == buffer);
        prefixes.filter(stays).map(|prefix| prefix.rows).max().unwrap_or(0)
    }

    /// Takes the cycles of its phases, and its cost if that is of time, from a simulation of its program.
    pub fn take_times(&mut self, timing: &timed::Timing) {
        for (phase, time) in self.phases.iter_mut().zip(&timing.phases) {
            phase.predicted_cycles = time.cycles;
        }
        self.cycles = timing.cycles;
        let certificate = &mut self.certificate;
        certificate.cost = match self.objective {
            Objective::Latency => timing.cycles as f64,
            Objective::Edp => timing.energy_pj.total * timing.cycles as f64,
            // Rows that stay are not moved.
            Objective::Traffic => self.dram_bytes.total as f64,
            Objective::Energy | Objective::Sram => certificate.cost,
        };
        if certificate.lower_bound > 0.0 {
            certificate.gap = certificate.cost / certificate.lower_bound - 1.0;
        }
    }
}

/// The phase that each stage runs in, given the stages of each phase.
pub fn phase_of(phases: &[Vec<StageId>]) -> SecondaryMap<StageId, usize> {
    let mut phase_of = SecondaryMap::new();
    for (phase, stages) in phases.iter().enumerate() {
        for &stage in stages {
            phase_of[stage] = phase;
        }
    }
    phase_of
}

/// The serde form of an entity map: the list of its values.
mod as_list {
    use cranelift_entity::{EntityRef, PrimaryMap};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: EntityRef, V: Serialize, S: Serializer>(
        map: &PrimaryMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.values())
    }

    pub(super) fn deserialize<'de, K: EntityRef, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PrimaryMap<K, V>, D::Error> {
        Vec::deserialize(deserializer).map(PrimaryMap::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use strata_ir::Attribute;

    use super::Certificate;

    #[test]
    fn a_certificate_of_an_older_dump_knows_nothing_of_frames() {
        let certificate = Certificate { lower_bound_cycles: 7, ..Certificate::default() };
        let mut old = Attribute::from_serde(&certificate).expect("it is written");
        let Attribute::Dict(fields) = &mut old else { panic!("it has fields: {old:?}") };
        assert!(fields.remove("frame_bound").is_some());
        assert_eq!(old.to_serde::<Certificate>().ok(), Some(certificate));
    }
}
