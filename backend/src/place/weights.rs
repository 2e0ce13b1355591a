//! Tables in weight SRAM: where each stage's stand, when they are loaded, and what is prefetched.
//!
//! The tables of a stage stand together, each aligned. A stage's block lives from the phase in which its load
//! is queued to the phase that runs it; stages that share their tables share the block, which lives to the
//! last of consecutive phases that use it. Loads are queued as many phases ahead as fit, so that they run in
//! the background. Short searches look for addresses of all blocks together, and beside them each block gets
//! one after another, and is queued as early as one is free ([`load_queue`](crate::place::load_queue)). Where
//! that brings much less ahead than fits by size, a longer search is made. If all that comes to an end,
//! blocks are queued at most half as many phases ahead, and so on down to no prefetch at all.

use std::collections::BTreeMap;

use cranelift_entity::{PrimaryMap, SecondaryMap};
use strata_isa_spec::WeightLoad;
use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::record::{StagePlacement, TablePlacement};

use crate::allocate;
use crate::model::tables::TableKey;
use crate::model::{StageId, TableId};
use crate::place::live::fit;
use crate::place::load_queue::{Placed, WeightBlock, blocks, bytes_ahead, queued_by_size, queued_one_by_one};
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

/// Nodes of a short search for addresses of blocks that are queued ahead. Where blocks leave a little of
/// weight SRAM free, most addresses are found within a few hundred.
const SHORT_NODES: u64 = 500;

/// How much of weight SRAM blocks may fill in short searches, in percent. Where no addresses are found for
/// blocks that fill it all, there may be some for blocks that leave a little.
const FILLS: [u64; 4] = [100, 99, 98, 97];

/// If so many percent of the bytes ahead that fit by their sizes have addresses, no longer search is made.
const ENOUGH_PERCENT: u64 = 98;

/// Work of a longer search, in nodes times the square of the blocks, as what a node takes grows: 20,000 nodes
/// for 80 blocks.
const PREFETCH_WORK: u64 = 128_000_000;

pub(super) fn place(problem: &PlacementProblem<'_>) -> Result<Weights, ScheduleError> {
    let needed = blocks(problem);
    let most_nodes = PREFETCH_WORK / (needed.len() * needed.len()).max(1) as u64;
    let searched = |queued: Vec<WeightBlock>, nodes: u64| {
        let bases = addresses(problem, &queued, problem.address_nodes.min(nodes)).ok()?;
        Some(Placed { blocks: queued, bases })
    };
    let halves = std::iter::successors(Some(FARTHEST_PREFETCH), |&ahead| Some(ahead / 2));
    for ahead in halves.take_while(|&ahead| ahead > 0) {
        let by_size = |percent: u64| queued_by_size(problem, &needed, ahead, percent);
        let most_ahead = bytes_ahead(&by_size(100));
        let is_enough =
            |placed: &Placed| bytes_ahead(&placed.blocks) * 100 >= most_ahead * u128::from(ENOUGH_PERCENT);
        let together = FILLS.into_iter().find_map(|percent| searched(by_size(percent), SHORT_NODES));
        let apart = queued_one_by_one(problem, &needed, ahead);
        let quick = together.into_iter().chain(apart).max_by_key(|placed| bytes_ahead(&placed.blocks));
        let placed = match quick {
            Some(quick) if is_enough(&quick) => Some(quick),
            quick => searched(by_size(100), most_nodes).or(quick),
        };
        if let Some(Placed { blocks, bases }) = placed {
            return Ok(write_down(problem, &blocks, &bases));
        }
    }
    let bases = addresses(problem, &needed, problem.address_nodes)?;
    Ok(write_down(problem, &needed, &bases))
}

/// Addresses of blocks, looked for together.
fn addresses(
    problem: &PlacementProblem<'_>,
    blocks: &[WeightBlock],
    nodes: u64,
) -> Result<Vec<u64>, ScheduleError> {
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
    fit(&to_place, nodes, "weight SRAM", |id| {
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
