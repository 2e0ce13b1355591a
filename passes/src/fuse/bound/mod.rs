//! Lower bounds that hold for every plan of the machine, whatever the planner offers or chooses.
//!
//! A plan runs each stage of the graph once, as a whole or in strips of its columns, and each stage or strip
//! on the clusters of one partition, step by step, in the time that [`strata_isa_spec::timing`] says.
//!
//! *Columns*: a strip computes at least what its readers need, so a column of a stage is in every plan only
//! if some reader needs it for one of the columns that every plan has of that reader. An output is needed as
//! a whole, and so is what is read by a stage that cannot run in strips. What the windows of needed columns
//! step over is not: strips of one column each leave it out. What is needed of a stage, every plan computes
//! at least once and reads at least once.
//!
//! *Cycles*: with whatever mapping, a step takes at least its work over the lanes of its partition, which
//! runs one step at a time, and partitions share no cluster. So the array takes at least all work over all
//! lanes. Work is what steps are charged for, which is not what energy counts: an element of a transposed
//! convolution is charged for the taps that can meet it, and those that padding cuts off for nothing. A step
//! of Winograd is charged for two rows, also where the last has but one, since rows are never divided; of its
//! tiles of two columns the last counts by half where it has but one, since a strip of one column may run
//! directly. Of the lanes of a cluster as many as divide the channels and the reduction best count: what the
//! best split leaves idle, every plan does. DRAM moves at most its rate, one thing at a time, so it takes at
//! least the least bytes over that. And weight SRAM holds so little that loads and products wait for
//! each other, as `order.rs` argues. The largest of the three. It can be raised: the first phase's first
//! weights have to arrive before any product, and phases are at least one.
//!
//! *Frames*: where one frame follows another, what DRAM moves for a frame it may move while the one before
//! runs, and a table that stays in weight SRAM is not loaded again; but the stages of a frame, all phases of
//! them, run after those of the one before. So the array takes all work over all lanes for each frame. When a
//! frame begins, no more bytes of its tables are in weight SRAM, or on the way there, than it holds: the
//! others are moved after that, and before the frame ends, since each table is used in it. So `n` frames move
//! their inputs and outputs, what each spills, and `n - 1` times what the tables have beyond weight SRAM. The
//! argument of
//! `order.rs` holds from the beginning of a frame to its end, if the stock with which it begins is all that
//! weight SRAM holds. A frame of a long stream takes at least the largest of the three, on average. That is
//! not a bound of batches: where the stages of two frames take turns, tables are loaded for both at once.
//!
//! *Bytes*: tables, needed columns of inputs, and outputs, once; and what activation SRAM cannot hold of what
//! is alive between phases, as `spilled.rs` argues. *Energy*: these bytes, and the energy on
//! chip that every plan has: the fewest products, needed columns written once and read once by each reader,
//! weights read once a step (two rows a step at most).

mod bytes;
mod needed;
mod order;
#[cfg(test)]
mod small;
mod spilled;
#[cfg(test)]
mod tests;
mod work;

use strata_backend::cost::{may_winograd, on_chip_energy};
use strata_backend::model::graph::Topology;
use strata_backend::model::{BoundArgument, FrameBound, Objective, StageGraph};
use strata_isa_spec::Target;
use strata_isa_spec::timing::dram_cycles;

use self::bytes::{compulsory_bytes, table_bytes};
use self::needed::Needed;
use self::order::{Demands, last_end};
use self::spilled::spilled_bytes;
use self::work::least_work;

/// Bounds of a graph on a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// No plan takes fewer cycles.
    pub cycles: u64,
    /// Why not.
    pub cycles_argument: BoundArgument,
    /// No plan moves fewer DRAM bytes.
    pub bytes: u64,
    /// Of these, tables, inputs and outputs once.
    pub once_bytes: u64,
    /// No plan takes less energy, in picojoules.
    pub energy_pj: f64,
    /// What no frame of a long stream takes less of, on average.
    pub frame: FrameBound,
}

impl Bounds {
    /// Why the bound under an objective is as high as it is.
    pub fn argument(&self, objective: Objective) -> BoundArgument {
        match objective {
            Objective::Latency => self.cycles_argument,
            Objective::Traffic if self.bytes > self.once_bytes => BoundArgument::ActivationMemory,
            Objective::Traffic => BoundArgument::Bytes,
            Objective::Energy => BoundArgument::Energy,
            Objective::Edp => BoundArgument::EnergyTimesCycles,
            Objective::Sram => BoundArgument::None,
        }
    }

    /// The bound under an objective, in its unit.
    pub fn of(&self, objective: Objective) -> f64 {
        match objective {
            Objective::Latency => self.cycles as f64,
            Objective::Traffic => self.bytes as f64,
            Objective::Energy => self.energy_pj,
            Objective::Edp => self.energy_pj * self.cycles as f64,
            Objective::Sram => 0.0,
        }
    }
}

/// Bounds of a graph on a target.
pub fn bounds(graph: &StageGraph, topology: &Topology, target: &Target) -> Bounds {
    let needed = Needed::new(graph, topology);
    let once_bytes = compulsory_bytes(&needed);
    let work = needed.graph.stages.values().map(|node| least_work(&node.code, target)).collect();
    let demands = Demands { work, tables: table_bytes(&needed.graph) };
    let bytes = once_bytes + spilled_bytes(graph, &needed, topology, &demands, target);
    let tables: u64 = demands.tables.values().sum();
    let lanes = u64::from(target.array.clusters) * u64::from(target.array.lanes);
    let array = demands.work.values().sum::<u64>().div_ceil(lanes.max(1));
    let held = target.memory.weight;
    let ends = |there| last_end(graph, &needed, topology, &demands, target, there);
    // Of equals the last is taken, which is the simplest.
    let largest = |ends: u64, bytes: u64| {
        let arguments = [
            (ends, BoundArgument::WeightMemory),
            (dram_cycles(target, bytes), BoundArgument::Dram),
            (array, BoundArgument::Array),
        ];
        arguments.into_iter().max_by_key(|(cycles, _)| *cycles).unwrap_or_default()
    };
    let (cycles, cycles_argument) = largest(ends(0), bytes);
    // Winograd halves the steps and makes fewer products, so it takes the least energy wherever it is
    // allowed.
    let least = needed.graph.stages.iter().map(|(stage, node)| (stage, may_winograd(&node.code, target)));
    let on_chip = on_chip_energy(&needed.graph, target, least);
    let energy_pj = on_chip + bytes as f64 * target.energy.dram_byte_pj;
    let frame_bytes = bytes - tables.min(held);
    let (frame_cycles, argument) = largest(ends(held), frame_bytes);
    let frame = FrameBound { cycles: frame_cycles, argument, bytes: frame_bytes };
    Bounds { cycles, cycles_argument, bytes, once_bytes, energy_pj, frame }
}
