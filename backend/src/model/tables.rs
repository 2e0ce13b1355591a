//! Which tables a phase holds in weight SRAM, and which of them it loads.
//!
//! Stages of one [`table_set`](crate::model::StageNode::table_set) share their tables. A set that two
//! consecutive phases use stays in weight SRAM from the one to the other; after a phase that does not use it,
//! it is loaded again.

use crate::model::{StageGraph, StageId};

/// What tables are told apart by: the set, or the stage that alone has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKey {
    /// Tables of several stages.
    Set(u32),
    /// Tables of one stage.
    Stage(StageId),
}

/// The tables of a stage.
pub fn table_key(graph: &StageGraph, stage: StageId) -> TableKey {
    graph.stages[stage].table_set.map_or(TableKey::Stage(stage), TableKey::Set)
}

/// For each stage of a phase whether it is the first there to use its tables, and whether these must be
/// loaded because the `previous` phase did not hold them.
pub fn first_uses(graph: &StageGraph, stages: &[StageId], previous: &[StageId]) -> Vec<FirstUse> {
    let held: Vec<TableKey> = previous.iter().map(|&stage| table_key(graph, stage)).collect();
    let mut seen = Vec::new();
    let uses = stages.iter().map(|&stage| {
        let key = table_key(graph, stage);
        let is_first = !seen.contains(&key);
        seen.push(key);
        FirstUse { is_first, is_loaded: is_first && !held.contains(&key) }
    });
    uses.collect()
}

/// How a stage of a phase comes by its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstUse {
    /// No stage before it in the phase has the same tables.
    pub is_first: bool,
    /// It is the first, and the phase before did not hold them.
    pub is_loaded: bool,
}
