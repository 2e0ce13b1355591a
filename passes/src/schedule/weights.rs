//! Tables in weight SRAM: where each stage's stand, when they are loaded, and what is prefetched.
//!
//! The tables of a stage stand together, each aligned. A stage's block lives from the phase in which its load is queued
//! to the phase that runs it. Loads are queued as many phases ahead as fit, so that they run in the background; if the
//! blocks then have no addresses, all are queued one phase later, and so on down to no prefetch at all.

use std::collections::BTreeMap;

use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::record::TablePlacement;
use strata_isa_spec::{Head, StageCode, Tail, WeightLoad};

use super::streams::fit;
use super::{Problem, ScheduleError};
use crate::allocate;
use crate::plan::StageId;

/// Phases ahead of its use that a load is queued, at most.
const FARTHEST_PREFETCH: usize = 4;

/// What [`place`] decides.
pub(super) struct Weights {
    /// Loads of each phase.
    pub(super) loads: Vec<Vec<WeightLoad>>,
    /// Loads that each stage waits for, by stage index.
    pub(super) waits: Vec<u32>,
    /// Places in the weight segment; `constant` is still 0.
    pub(super) tables: Vec<TablePlacement>,
    /// Size of the weight segment.
    pub(super) segment_bytes: u64,
    /// Addresses of each stage's tables.
    addresses: BTreeMap<StageId, Vec<u32>>,
}

impl Weights {
    /// Makes the tables of a stage's code name addresses instead of indices.
    pub(super) fn address(&self, stage: StageId, code: &mut StageCode) {
        let Some(addresses) = self.addresses.get(&stage) else { return };
        for table in tables_mut(code) {
            table.0 = addresses.get(table.0 as usize).copied().unwrap_or(u32::MAX);
        }
    }
}

/// The table addresses of a code.
fn tables_mut(code: &mut StageCode) -> Vec<&mut WeightAddr> {
    let mut tables = match &mut code.head {
        Head::Conv2d(h) | Head::Conv2dI16(h) => vec![&mut h.weights, &mut h.bias],
        Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => vec![&mut h.weights, &mut h.bias],
        Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => vec![&mut h.weights, &mut h.bias],
        Head::Load(_)
        | Head::MatMul(_)
        | Head::MatMulI16(_)
        | Head::MaxPool2d(_)
        | Head::AvgPool2d(_)
        | Head::Resize(_)
        | Head::Pad(_)
        | Head::Permute(_)
        | Head::Reduce(_)
        | Head::Argmax(_)
        | Head::DmaIn(_)
        | Head::DmaOut(_) => Vec::new(),
    };
    for tail in &mut code.tail {
        match tail {
            Tail::Rescale(t) => tables.extend([&mut t.multipliers, &mut t.shifts]),
            Tail::Rescale16(t) => tables.extend([&mut t.multipliers, &mut t.shifts]),
            Tail::Table(t) => tables.push(&mut t.table),
            Tail::TableI16(t) => tables.push(&mut t.table),
            Tail::BinaryConst(t) => tables.push(&mut t.table),
            Tail::Clamp(_) | Tail::Binary(_) => {}
        }
    }
    tables
}

/// The tables of one stage.
struct Block {
    stage: StageId,
    phase: usize,
    queued: usize,
    bytes: u64,
}

pub(super) fn place(problem: &Problem<'_>) -> Result<Weights, ScheduleError> {
    let mut failure = None;
    for ahead in (0..=FARTHEST_PREFETCH).rev() {
        let blocks = queue(problem, ahead);
        match addresses(problem, &blocks) {
            Ok(bases) => return Ok(write_down(problem, &blocks, &bases)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("the loop above ran"))
}

/// Every stage's block, in order of use, queued up to `ahead` phases early where the sum of what is live allows.
fn queue(problem: &Problem<'_>, ahead: usize) -> Vec<Block> {
    let capacity = problem.target.memory.weight;
    let mut live = vec![0u64; problem.phases.len()];
    let mut blocks = Vec::new();
    for (phase, stages) in problem.phases.iter().enumerate() {
        for &stage in stages {
            let tables = &problem.graph.stages[stage].table_bytes;
            let bytes = tables.iter().map(|&b| problem.align(u64::from(b))).sum();
            if bytes > 0 {
                live[phase] += bytes;
                blocks.push(Block { stage, phase, queued: phase, bytes });
            }
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

fn addresses(problem: &Problem<'_>, blocks: &[Block]) -> Result<Vec<u64>, ScheduleError> {
    let buffers = blocks.iter().enumerate().map(|(id, block)| allocate::Buffer {
        id: id as u32,
        lower: block.queued as i64,
        upper: block.phase as i64 + 1,
        size: block.bytes,
        alignment: u64::from(problem.target.memory.alignment.max(1)),
        fixed: None,
    });
    let to_place = allocate::Problem { buffers: buffers.collect(), capacity: problem.target.memory.weight };
    fit(&to_place, "weight SRAM", |id| problem.graph.stages[blocks[id as usize].stage].name.clone())
}

fn write_down(problem: &Problem<'_>, blocks: &[Block], bases: &[u64]) -> Weights {
    let mut weights = Weights {
        loads: vec![Vec::new(); problem.phases.len()],
        waits: vec![0; problem.graph.stages.len()],
        tables: Vec::new(),
        segment_bytes: 0,
        addresses: BTreeMap::new(),
    };
    let mut n_loads = 0;
    for (block, &base) in blocks.iter().zip(bases) {
        let mut at = base;
        let mut addresses = Vec::new();
        for (table, &bytes) in problem.graph.stages[block.stage].table_bytes.iter().enumerate() {
            weights.loads[block.queued].push(WeightLoad {
                dst: WeightAddr(at as u32),
                src: weights.segment_bytes,
                bytes,
            });
            weights.tables.push(TablePlacement {
                stage: block.stage.as_u32(),
                table: table as u32,
                constant: 0,
                offset: weights.segment_bytes,
            });
            addresses.push(at as u32);
            at += problem.align(u64::from(bytes));
            weights.segment_bytes += u64::from(bytes);
            n_loads += 1;
        }
        weights.addresses.insert(block.stage, addresses);
        weights.waits[block.stage.as_u32() as usize] = n_loads;
    }
    weights
}
