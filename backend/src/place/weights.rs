//! Tables in weight SRAM: where each stage's stand, when they are loaded, and what is prefetched.
//!
//! The tables of a stage stand together, each aligned. A stage's block lives from the phase in which its load
//! is queued to the phase that runs it; stages that share their tables share the block, which lives to the
//! last of consecutive phases that use it. Loads are queued as many phases ahead as fit, so that they run in
//! the background; if the blocks then have no addresses, all are queued half as many phases ahead, and so on
//! down to no prefetch at all.

use std::collections::BTreeMap;

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_isa_spec::WeightLoad;
use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::record::{StagePlacement, TablePlacement};

use crate::allocate;
use crate::model::tables::{TableKey, table_key};
use crate::model::{StageId, TableId};
use crate::place::live::fit;
use crate::place::{PlacementProblem, ScheduleError};

/// Phases ahead of its use that a load is queued, at most. Small layers pass in less time than a large one's
/// weights take, so it is to be more than a few.
pub const FARTHEST_PREFETCH: usize = 32;

/// Where tables stand, in both memories, and which loads each phase makes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Loads of each phase.
    pub(super) loads: Vec<Vec<WeightLoad>>,
    /// Loads that each stage waits for.
    pub(super) waits: SecondaryMap<StageId, u32>,
    /// Places in the weight segment; `constant` is still 0.
    pub(super) tables: Vec<TablePlacement>,
    /// Size of the weight segment.
    pub(super) segment_bytes: u64,
    /// Addresses of each stage's tables.
    addresses: BTreeMap<StageId, PrimaryMap<TableId, u32>>,
}

impl Weights {
    /// Where the tables of a stage are, and which loads it waits for.
    pub(super) fn of_stage(&self, stage: StageId) -> StagePlacement {
        let addresses = self.addresses.get(&stage).into_iter().flat_map(PrimaryMap::values);
        let tables = addresses.map(|&address| WeightAddr(address)).collect();
        StagePlacement { tables, wait_loads: self.waits[stage] }
    }
}

/// The tables of a stage, or of several that share theirs.
struct WeightBlock {
    key: TableKey,
    /// Stages that use it, in order.
    stages: Vec<StageId>,
    /// First and last phase that uses it.
    phase: usize,
    last: usize,
    queued: usize,
    bytes: u64,
}

pub(super) fn place(problem: &PlacementProblem<'_>) -> Result<Weights, ScheduleError> {
    let mut failure = None;
    let halves = std::iter::successors(Some(FARTHEST_PREFETCH), |&ahead| (ahead > 0).then_some(ahead / 2));
    for ahead in halves {
        let blocks = queue(problem, ahead);
        match addresses(problem, &blocks) {
            Ok(bases) => return Ok(write_down(problem, &blocks, &bases)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("the loop above ran"))
}

/// Every stage's block, in order of use, queued up to `ahead` phases early where the sum of what is live
/// allows.
fn queue(problem: &PlacementProblem<'_>, ahead: usize) -> Vec<WeightBlock> {
    let capacity = problem.target.memory.weight;
    let mut live = vec![0u64; problem.phases.len()];
    let mut blocks: Vec<WeightBlock> = Vec::new();
    let mut block_of: BTreeMap<TableKey, usize> = BTreeMap::new();
    for (phase, stages) in problem.phases.iter().enumerate() {
        for &stage in stages {
            let tables = &problem.graph.stages[stage].table_bytes;
            let bytes = tables.values().map(|&b| problem.align(u64::from(b))).sum();
            if bytes == 0 {
                continue;
            }
            let key = table_key(problem.graph, stage);
            let held = block_of.get(&key).copied();
            if let Some(at) = held.filter(|&at: &usize| blocks[at].last + 1 >= phase) {
                let block: &mut WeightBlock = &mut blocks[at];
                live[phase] += if block.last < phase { bytes } else { 0 };
                block.last = phase;
                block.stages.push(stage);
                continue;
            }
            live[phase] += bytes;
            block_of.insert(key, blocks.len());
            blocks.push(WeightBlock { key, stages: vec![stage], phase, last: phase, queued: phase, bytes });
        }
    }
    // Loads run in the order in which they are queued, so one that is needed later is never queued earlier.
    let mut earliest = 0;
    for block in &mut blocks {
        while block.queued > earliest
            && block.phase - block.queued < ahead
            && live[block.queued - 1] + block.bytes <= capacity
        {
            block.queued -= 1;
            live[block.queued] += block.bytes;
        }
        earliest = block.queued;
    }
    blocks
}

fn addresses(problem: &PlacementProblem<'_>, blocks: &[WeightBlock]) -> Result<Vec<u64>, ScheduleError> {
    let buffers = blocks.iter().enumerate().map(|(id, block)| allocate::Buffer {
        id: id as u32,
        lower: block.queued as i64,
        upper: block.last as i64 + 1,
        size: block.bytes,
        alignment: u64::from(problem.target.memory.alignment.max(1)),
        fixed: None,
    });
    let to_place =
        allocate::AllocationProblem { buffers: buffers.collect(), capacity: problem.target.memory.weight };
    fit(&to_place, problem.address_nodes, "weight SRAM", |id| {
        problem.graph.stages[blocks[id as usize].stages[0]].name.clone()
    })
}

fn write_down(problem: &PlacementProblem<'_>, blocks: &[WeightBlock], bases: &[u64]) -> Weights {
    let mut weights = Weights {
        loads: vec![Vec::new(); problem.phases.len()],
        waits: SecondaryMap::new(),
        tables: Vec::new(),
        segment_bytes: 0,
        addresses: BTreeMap::new(),
    };
    let mut n_loads = 0;
    let mut offsets: BTreeMap<TableKey, u64> = BTreeMap::new();
    for (block, &base) in blocks.iter().zip(bases) {
        let mut at = base;
        let mut addresses = PrimaryMap::new();
        let first = block.stages[0];
        // Tables that are loaded more than once stand once in the segment.
        let is_new = !offsets.contains_key(&block.key);
        let mut src = *offsets.entry(block.key).or_insert(weights.segment_bytes);
        for (table, &bytes) in &problem.graph.stages[first].table_bytes {
            weights.loads[block.queued].push(WeightLoad { dst: WeightAddr(at as u32), src, bytes });
            if is_new {
                weights.tables.push(TablePlacement {
                    stage: first.as_u32(),
                    table: table.as_u32(),
                    constant: 0,
                    offset: src,
                });
                weights.segment_bytes += u64::from(bytes);
            }
            addresses.push(at as u32);
            at += problem.align(u64::from(bytes));
            src += u64::from(bytes);
            n_loads += 1;
        }
        for &stage in &block.stages {
            weights.addresses.insert(stage, addresses.clone());
            weights.waits[stage] = n_loads;
        }
    }
    weights
}
