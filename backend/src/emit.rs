//! Code generation: the `sched` level of the IR to a program and its weight segment.
//!
//! All decisions stand in the IR by now: what stages compute in their code, how the array is divided in the
//! plan, and addresses in the attributes that [`record`] declares. They are gathered here to an
//! [`isa_spec`](strata_isa_spec) program, and the constants of the stages packed into the weight segment.
//! Nothing is decided here, and it is checked only that what is gathered is complete; whether the program is
//! valid is for the machine's verifier to say.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use strata_ir::module::OpData;
use strata_ir::{Module, Op, OpId};
use strata_isa_spec::bundle::{MadeTensors, SourceOp};
use strata_isa_spec::record::{self, PhasePlacement, TablePlacement};
use strata_isa_spec::{Phase, Program, Segment, SegmentKind, Stream};

use crate::model::{Plan, StageGraph, StageId};
use crate::place::phase::machine_phase;
use crate::select::graph::GraphError;
use crate::select::made::made_tensors;

/// Why a module could not be lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// There is no function to lower.
    #[error("there is no function @main")]
    NoMain,
    /// An attribute of the schedule is missing or malformed.
    #[error("the module is not scheduled: `{attr}` of {op}: {problem}")]
    Attribute {
        /// The attribute.
        attr: &'static str,
        /// The op that should carry it.
        op: String,
        /// What is wrong.
        problem: String,
    },
    /// The plan is missing or malformed.
    #[error("the module is not scheduled: {0}")]
    Plan(String),
    /// The stages are not what they should be.
    #[error(transparent)]
    Stages(#[from] GraphError),
    /// A table's place does not fit the stage or the segment.
    #[error("table {table} of stage {stage}: {problem}")]
    Table {
        /// Which stage, in the order of the IR.
        stage: u32,
        /// Which table of it.
        table: u32,
        /// What is wrong.
        problem: String,
    },
}

/// What a scheduled module becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// The content of its weight segment.
    pub weights: Vec<u8>,
    /// Names of source layers, by `source` index.
    pub names: Vec<String>,
    /// What the stage of a source layer computes, by `source` index.
    pub ops: Vec<Vec<SourceOp>>,
    /// The tensors of the network that the stages make.
    pub tensors: MadeTensors,
}

/// Lowers `@main` of a module at the `sched` level.
///
/// # Errors
/// If an attribute of the schedule is missing or malformed.
pub fn lower(module: &Module) -> Result<Lowered, LowerError> {
    let func = module.function("main").ok_or(LowerError::NoMain)?;
    let segments: Vec<Segment> = attribute(module, func, record::SEGMENTS)?;
    let streams: Vec<Stream> = attribute(module, func, record::STREAMS)?;
    let names: Vec<String> = attribute(module, func, record::NAMES)?;
    let placements: Vec<TablePlacement> = attribute(module, func, record::TABLE_PLACES)?;
    let graph = StageGraph::from_module(module, func)?;
    let phases = phases(module, func, &graph)?;
    let bytes = segments.iter().find(|s| s.kind == SegmentKind::Weights).map_or(0, |s| s.bytes);
    let weights = pack(module, func, &placements, bytes)?;
    let ops = stages(module, func).into_iter().map(|stage| source_ops(module, stage)).collect();
    let tensors = made_tensors(module, func, &graph);
    Ok(Lowered { program: Program { segments, streams, phases }, weights, names, ops, tensors })
}

/// The phases of a function: its stages' code and the plan, of the places that the schedule gives.
fn phases(module: &Module, func: OpId, graph: &StageGraph) -> Result<Vec<Phase>, LowerError> {
    let plan = Plan::from_module(module, func).map_err(|error| LowerError::Plan(error.to_string()))?;
    let ops = module.block_ops(module.entry_block(func)).iter().copied();
    let ops: Vec<OpId> = ops.filter(|&op| matches!(module.op(op).op, Op::Phase(_))).collect();
    if ops.len() != plan.phases.len() {
        let (found, planned) = (ops.len(), plan.phases.len());
        return Err(LowerError::Plan(format!("there are {found} phases, {planned} in its plan")));
    }
    let mut stages = graph.stages.keys();
    let mut phases = Vec::with_capacity(ops.len());
    for (op, planned) in ops.into_iter().zip(&plan.phases) {
        let places: PhasePlacement = attribute(module, op, record::PLACES)?;
        let n_stages = module.walk(module.entry_block(op)).into_iter().filter(|&op| is_stage(module, op));
        let here: Vec<StageId> = stages.by_ref().take(n_stages.count()).collect();
        let phase = machine_phase(graph, &here, planned, &places);
        let name = module.op(op).op.name().to_owned();
        phases.push(phase.map_err(|problem| LowerError::Attribute {
            attr: record::PLACES,
            op: name,
            problem,
        })?);
    }
    Ok(phases)
}

fn is_stage(module: &Module, op: OpId) -> bool {
    matches!(module.op(op).op, Op::Stage(_))
}

/// The stages of a function, in their order; names of source layers begin with theirs.
fn stages(module: &Module, func: OpId) -> Vec<OpId> {
    module.walk(module.entry_block(func)).into_iter().filter(|&op| is_stage(module, op)).collect()
}

/// The ops that a stage computes, each with the node that it comes from.
fn source_ops(module: &Module, stage: OpId) -> Vec<SourceOp> {
    let ops = module.block_ops(module.entry_block(stage)).iter().map(|&op| module.op(op));
    let computes =
        ops.filter(|data| !matches!(data.op, Op::Const(_) | Op::ConstShape(_)) && !data.results().is_empty());
    let source = |data: &OpData| SourceOp {
        op: data.op.name().to_owned(),
        node: data.loc.name().unwrap_or_default().to_owned(),
    };
    computes.map(source).collect()
}

fn attribute<T: DeserializeOwned>(module: &Module, op: OpId, attr: &'static str) -> Result<T, LowerError> {
    let data = module.op(op);
    let problem = |problem: String| LowerError::Attribute { attr, op: data.op.name().to_owned(), problem };
    let value = data.extra.get(attr).ok_or_else(|| problem("it is missing".to_owned()))?;
    value.to_serde().map_err(|e| problem(e.to_string()))
}

/// Lays every placed table into a segment of `bytes`; what lies between is zero.
fn pack(
    module: &Module,
    func: OpId,
    placements: &[TablePlacement],
    bytes: u64,
) -> Result<Vec<u8>, LowerError> {
    let stages = stages(module, func);
    let mut segment = vec![0u8; usize::try_from(bytes).unwrap_or(0)];
    let mut constants: BTreeMap<u32, Vec<OpId>> = BTreeMap::new();
    for &TablePlacement { stage, table, constant, offset } in placements {
        let problem = |problem: &str| LowerError::Table { stage, table, problem: problem.to_owned() };
        let &op = stages.get(stage as usize).ok_or_else(|| problem("there is no such stage"))?;
        let consts = constants.entry(stage).or_insert_with(|| {
            let is_const = |op: &OpId| matches!(module.op(*op).op, Op::Const(_));
            module.block_ops(module.entry_block(op)).iter().copied().filter(is_const).collect()
        });
        let &op = consts.get(constant as usize).ok_or_else(|| problem("the stage has no such constant"))?;
        let elements = module.op(op).op.constant().ok_or_else(|| problem("it is no constant"))?;
        let data = elements.tensor.data().to_bytes();
        let from = usize::try_from(offset).map_err(|_| problem("its offset is beyond memory"))?;
        let to = from.checked_add(data.len()).filter(|&to| to <= segment.len());
        let to = to.ok_or_else(|| problem("it does not fit the weight segment"))?;
        segment[from..to].copy_from_slice(&data);
    }
    Ok(segment)
}
