//! Plans with the stages that they place: from dumps, and from compiles.
//!
//! A dump at level `stages` is planned with the options that it records, as the compile that wrote it did;
//! one at level `phases` or `sched` has its plan. A plan in column strips places strips, which are stages of
//! their own from the level `phases` on, so what would be planned anew stands at the level `stages` only.

use strata_backend::model::{Plan, StageGraph};
use strata_backend::select::made::strip_of;
use strata_ir::Module;
use strata_ir::pass::{Level, Pass, PassContext, PassError};
use strata_isa_spec::Target;
use strata_passes::fuse::explain::Strip;
use strata_passes::fuse::{FuseLayers, PlanOptions};

use crate::compile::CompileOptions;
use crate::compile::checkpoint::{Checkpoint, CheckpointPart};

/// The plan of a part that the machine runs.
#[derive(Debug)]
pub struct PlannedPart {
    /// The stages that it places.
    pub graph: StageGraph,
    /// It.
    pub plan: Plan,
    /// What was asked of the planner.
    pub options: PlanOptions,
    /// Stages that compute a strip of the columns of a layer.
    pub strips: Vec<Strip>,
    /// The stages before any was split into strips, if they are known.
    pub unsplit: Option<StageGraph>,
}

/// The plans of a network.
#[derive(Debug)]
pub struct PlannedNetwork {
    /// The network's name.
    pub network: String,
    /// The machine that they were made for.
    pub target: Target,
    /// Those of the parts that the machine runs, in order.
    pub parts: Vec<PlannedPart>,
}

/// Why there are no plans.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The dump is of a level without plans.
    #[error(
        "a dump at level `{0}`, where nothing is planned yet; expected one at level `stages`, `phases` or \
         `sched`, as `strata compile --emit LEVEL` writes"
    )]
    Level(Level),
    /// The dump does not say what it was compiled for.
    #[error(
        "a module at level `{0}` without a record of its compile, which says for which machine it is; \
         expected a dump as `strata compile --emit {0}` writes"
    )]
    Record(Level),
    /// The host runs all of it.
    #[error("the host runs all of the network, so there is no plan")]
    Host,
    /// Its plan cannot be read, or made.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl PlannedNetwork {
    /// The plans of a dump.
    ///
    /// # Errors
    /// If it is of a level before `stages`, has no record of its compile, or no part for the machine.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, SourceError> {
        let Checkpoint { level, record, parts, .. } = checkpoint;
        if *level < Level::Stages {
            return Err(SourceError::Level(*level));
        }
        let record = record.as_ref().ok_or(SourceError::Record(*level))?;
        let machines = parts.iter().filter_map(|part| match part {
            CheckpointPart::Machine { module, .. } => Some(module),
            CheckpointPart::Host(_) => None,
        });
        let made = machines.map(|module| match *level {
            Level::Stages => planned(module, &record.options),
            _ => read(module, None, &record.options),
        });
        let parts = made.collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err(SourceError::Host);
        }
        Ok(Self { network: record.network.clone(), target: record.options.target.clone(), parts })
    }
}

/// A part at the level `stages`, planned.
fn planned(module: &Module, options: &CompileOptions) -> Result<PlannedPart, SourceError> {
    let unsplit = graph_of(module)?;
    let mut planned = module.clone();
    let mut context = PassContext::new();
    context.insert(options.target.clone());
    FuseLayers { options: options.plan_options() }.run(&mut planned, &mut context)?;
    read(&planned, Some(unsplit), options)
}

/// A part from the level `phases` on.
fn read(
    module: &Module,
    unsplit: Option<StageGraph>,
    options: &CompileOptions,
) -> Result<PlannedPart, SourceError> {
    let plan = Plan::from_module(module, main_of(module)?)?;
    let graph = graph_of(module)?;
    let strip = |(stage, node)| Some(Strip { stage, layer: strip_of(module, node)? });
    let strips: Vec<Strip> = graph.stages.iter().filter_map(strip).collect();
    let unsplit = unsplit.or_else(|| strips.is_empty().then(|| graph.clone()));
    let options = PlanOptions { objective: plan.objective, mode: plan.mode, ..options.plan_options() };
    Ok(PlannedPart { graph, plan, options, strips, unsplit })
}

fn graph_of(module: &Module) -> Result<StageGraph, PassError> {
    StageGraph::from_module(module, main_of(module)?).map_err(PassError::other)
}

fn main_of(module: &Module) -> Result<strata_ir::OpId, PassError> {
    module.function("main").ok_or_else(|| PassError::invalid("there is no function @main"))
}
