//! Stages that do not fit a target even alone, and how much of it would do.

use std::fmt;

use strata_backend::model::StageId;
use strata_backend::model::graph::StageSet;
use strata_isa_spec::Target;

use crate::fuse::candidates::candidate::{Candidate, Context};

/// What a target has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of activation SRAM.
    ActivationSram,
    /// Bytes of weight SRAM.
    WeightSram,
    /// Streams of a phase.
    Streams,
    /// Stages of a phase, transfers among them.
    Stages,
}

impl Resource {
    /// The field of the target that says how much of it there is.
    pub fn field(self) -> &'static str {
        match self {
            Self::ActivationSram => "memory.activation",
            Self::WeightSram => "memory.weight",
            Self::Streams => "limits.streams",
            Self::Stages => "limits.stages",
        }
    }

    /// How much of it a target has.
    pub fn of(self, target: &Target) -> u64 {
        match self {
            Self::ActivationSram => target.memory.activation,
            Self::WeightSram => target.memory.weight,
            Self::Streams => u64::from(target.limits.streams),
            Self::Stages => u64::from(target.limits.stages),
        }
    }

    /// Gives a target at least so much of it.
    pub fn raise(self, target: &mut Target, least: u64) {
        let raised = self.of(target).max(least);
        match self {
            Self::ActivationSram => target.memory.activation = raised,
            Self::WeightSram => target.memory.weight = raised,
            Self::Streams => target.limits.streams = u32::try_from(raised).unwrap_or(u32::MAX),
            Self::Stages => target.limits.stages = u32::try_from(raised).unwrap_or(u32::MAX),
        }
    }
}

/// A stage that does not fit the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The stage's name.
    pub stage: String,
    /// What there is too little of.
    pub resource: Resource,
    /// How much there is.
    pub limit: u64,
    /// The least with which the stage runs.
    pub needed: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, resource, limit, needed } = self;
        let (what, unit) = match resource {
            Resource::ActivationSram => ("bytes of activation SRAM", "B"),
            Resource::WeightSram => ("bytes of weight SRAM", "B"),
            Resource::Streams => ("streams", ""),
            Resource::Stages => ("stages", ""),
        };
        let (more, field) = (needed - limit, resource.field());
        write!(f, "`{stage}` needs {needed} {what}, {more} more than the {limit} there are: ")?;
        write!(f, "{field}={needed}{unit} would do")
    }
}

/// What there is too little of for a stage to run alone.
pub(super) fn reasons(context: &Context<'_>, stage: StageId, with_strips: bool) -> Vec<TooLarge> {
    let needs = [
        (Resource::WeightSram, context.profile(stage).weight_bytes),
        (Resource::Streams, n_streams(context, stage)),
        (Resource::ActivationSram, least_activation(context, stage, with_strips)),
    ];
    let too_large = needs.into_iter().map(|(resource, needed)| {
        let (stage, limit) = (context.graph.stages[stage].name.clone(), resource.of(context.target));
        TooLarge { stage, resource, limit, needed }
    });
    too_large.filter(|stage| stage.needed > stage.limit).collect()
}

/// Streams that a stage names.
fn n_streams(context: &Context<'_>, stage: StageId) -> u64 {
    context.topology.touched(&StageSet::of(stage)).len() as u64
}

/// Bytes of activation SRAM in which a stage runs alone, with room for its weights and its streams: the least
/// of them, or what there is.
fn least_activation(context: &Context<'_>, stage: StageId, with_strips: bool) -> u64 {
    let memory = &context.target.memory;
    let fits = |bytes: u64| {
        let mut roomy = context.target.clone();
        Resource::ActivationSram.raise(&mut roomy, bytes);
        Resource::WeightSram.raise(&mut roomy, context.profile(stage).weight_bytes);
        Resource::Streams.raise(&mut roomy, n_streams(context, stage));
        let context = context.with_memory(&roomy);
        let candidate = Candidate::new(&context, &StageSet::of(stage));
        candidate.is_some_and(|candidate| {
            candidate.fits() || with_strips && candidate.with_strips(&context).fits()
        })
    };
    if fits(memory.activation) {
        return memory.activation;
    }
    let (mut too_little, mut needed) = (memory.activation, memory.activation.max(1) * 2);
    while !fits(needed) && needed < MOST_SRAM {
        (too_little, needed) = (needed, needed * 2);
    }
    // Rings are of aligned rows, so the least is a multiple of the alignment.
    let step = u64::from(memory.alignment.max(1));
    while too_little + step < needed {
        let middle = u64::midpoint(too_little, needed).next_multiple_of(step).min(needed - 1);
        if fits(middle) { needed = middle } else { too_little = middle }
    }
    needed
}

/// Bytes of SRAM beyond which no stage is looked at.
const MOST_SRAM: u64 = 1 << 40;
