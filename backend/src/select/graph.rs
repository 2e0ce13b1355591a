//! Reading the stage graph off a module, and the attributes that carry it.

use cranelift_entity::PrimaryMap;
use strata_ir::{Attribute, Module, Op, OpId};

use crate::model::{Buffer, StageGraph, StageNode, StageTemplate};
use crate::select::windows::is_by_columns;

/// The function's buffers, on `func.func`.
pub(crate) const BUFFERS: &str = "strata.buffers";
/// Which `tosa.const` of a stage's region, counted from 0, each table of its code is; on `strata.stage`.
pub(crate) const TABLES: &str = "strata.tables";

/// Stages with the same number have the same tables; on `strata.stage`.
pub const TABLE_SET: &str = "strata.table_set";

/// Why a module has no stage graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The function's buffers are missing or malformed.
    #[error("the function has no `{BUFFERS}`: {0}")]
    Buffers(String),
    /// A stage's code or tables are missing or malformed.
    #[error("stage `{stage}`: {problem}")]
    Stage {
        /// Its name.
        stage: String,
        /// What is wrong.
        problem: String,
    },
}

/// The constants of a stage's region that its code names, in the order of their numbers.
///
/// # Errors
/// If the stage's list of tables is missing or does not fit its region.
pub fn stage_tables(module: &Module, stage: OpId) -> Result<Vec<OpId>, GraphError> {
    let data = module.op(stage);
    let problem =
        |problem: &str| GraphError::Stage { stage: stage_name(module, stage), problem: problem.to_owned() };
    let Some(Attribute::I64Array(tables)) = data.extra.get(TABLES) else {
        return Err(problem(&format!("it has no `{TABLES}`")));
    };
    let block = data.regions().first().and_then(|&region| module.region_blocks(region).first());
    let &block = block.ok_or_else(|| problem("it has no region"))?;
    let is_const = |op: &OpId| matches!(module.op(*op).op, Op::Const(_));
    let consts: Vec<OpId> = module.block_ops(block).iter().copied().filter(is_const).collect();
    let at = |&index: &i64| usize::try_from(index).ok().and_then(|index| consts.get(index).copied());
    tables
        .iter()
        .map(|index| at(index).ok_or_else(|| problem(&format!("there is no constant {index}"))))
        .collect()
}

/// Which `tosa.const` of a stage's region, counted from 0, holds a table of its code.
///
/// # Errors
/// If the stage's list of tables is missing or too short.
pub fn table_constant(module: &Module, stage: OpId, table: u32) -> Result<u32, GraphError> {
    let found = match module.op(stage).extra.get(TABLES) {
        Some(Attribute::I64Array(tables)) => {
            tables.get(table as usize).and_then(|&at| u32::try_from(at).ok())
        }
        _ => None,
    };
    found.ok_or_else(|| GraphError::Stage {
        stage: stage_name(module, stage),
        problem: format!("it has no table {table} in `{TABLES}`"),
    })
}

fn stage_name(module: &Module, stage: OpId) -> String {
    if let Op::Stage(row) = &module.op(stage).op { row.name.clone() } else { String::new() }
}

impl StageGraph {
    /// The stage graph of a function at the `stages` level, or at a later one: stages may stand in
    /// `strata.phase` ops.
    ///
    /// # Errors
    /// If an attribute that carries it is missing or malformed, or a stage has a head that no machine runs.
    pub fn from_module(module: &Module, func: OpId) -> Result<Self, GraphError> {
        let attr = module.op(func).extra.get(BUFFERS);
        let attr = attr.ok_or_else(|| GraphError::Buffers("it is missing".to_owned()))?;
        let buffers: Vec<Buffer> = attr.to_serde().map_err(|error| GraphError::Buffers(error.to_string()))?;
        let mut graph = Self { buffers: buffers.into_iter().collect(), stages: PrimaryMap::new() };
        for op in module.walk(module.entry_block(func)) {
            let Op::Stage(row) = &module.op(op).op else { continue };
            let problem = |problem: String| GraphError::Stage { stage: row.name.clone(), problem };
            let code: StageTemplate = row.code.to_serde().map_err(|error| problem(error.to_string()))?;
            if let Some(what) = code.head_problem() {
                return Err(problem(what));
            }
            let bytes = |&table: &OpId| {
                let size = module.tensor_ty(module.result(table)).size_bytes();
                u32::try_from(size).map_err(|_| problem("a table is larger than 4 GiB".to_owned()))
            };
            let table_bytes = stage_tables(module, op)?.iter().map(bytes).collect::<Result<_, _>>()?;
            let table_set = match module.op(op).extra.get(TABLE_SET) {
                None => None,
                Some(Attribute::Int(set, _)) => {
                    let set = u32::try_from(*set).map_err(|_| problem(format!("bad `{TABLE_SET}`")))?;
                    Some(set)
                }
                Some(_) => return Err(problem(format!("bad `{TABLE_SET}`"))),
            };
            let by_columns = is_by_columns(module, op, &code);
            graph.stages.push(StageNode {
                name: row.name.clone(),
                op,
                code,
                table_bytes,
                table_set,
                by_columns,
            });
        }
        Ok(graph)
    }
}
