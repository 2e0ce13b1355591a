//! Bounds held against the best plans of small random graphs: on machines whose weight SRAM is small, with
//! every convex set of stages offered, and timed by the simulator. Bytes are held against plans for the
//! fewest, on machines whose activation SRAM is small too.

use strata_backend::model::graph::Topology;
use strata_backend::model::samples::Net;
use strata_backend::model::{BoundArgument, BufferView, Objective, StageGraph};
use strata_backend::place::schedule;
use strata_ir::eval::random::Rng;
use strata_isa_spec::{Program, Target, frames, timed};

use super::bounds;
use crate::fuse::PlanOptions;
use crate::fuse::egraph::Offer;
use crate::fuse::pass::{does_not_fit, plan_with_addresses};

/// A graph of a few stages with forks, joins, strides and crops, whose maps become smaller and deeper.
pub(super) fn graph(rng: &mut Rng) -> StageGraph {
    let mut net = Net::default();
    let mut made: Vec<BufferView> = vec![net.input([rng.pick(&[9, 16, 24]), rng.pick(&[9, 16]), 4])];
    let mut unread = Vec::new();
    for _ in 0..rng.count(3, 8) {
        let at = if rng.one_in(4) { rng.count(0, made.len() - 1) } else { made.len() - 1 };
        let src = made[at];
        let alike = made.iter().copied().find(|view| {
            view.tensor != src.tensor && (view.rows, view.cols, view.chs) == (src.rows, src.cols, src.chs)
        });
        let crops = src.cols > 3 && rng.one_in(8);
        let view = if crops { BufferView { cols: src.cols - 1, ..src } } else { src };
        let out = match (rng.count(0, 8), alike) {
            (0, _) => net.depthwise(view, 1),
            (1, _) if src.rows > 2 => net.max_pool(view, 2, 2),
            (2 | 3, _) => net.conv(view, 2 * src.chs, 3, 2),
            (4 | 5, Some(other)) if !crops => net.conv_add(src, src.chs, rng.pick(&[1, 3]), other),
            (6, _) => net.conv(view, rng.pick(&[8, 32]), 1, rng.pick(&[1, 2])),
            _ => net.conv(view, src.chs, 3, 1),
        };
        unread.retain(|view: &BufferView| view.tensor != src.tensor);
        unread.push(out);
        made.push(out);
    }
    for (index, view) in unread.into_iter().enumerate() {
        net.output(view, index as u32);
    }
    net.finish()
}

/// A machine on which nothing takes time but products and DRAM, about as much each, and on which most stages
/// have just room.
fn target(graph: &StageGraph, rng: &mut Rng) -> Target {
    let mut target = Target::preset("micro", &[]).expect("a preset");
    let tables = graph.stages.values().map(|node| node.weight_bytes());
    let (most, all) = (tables.clone().max().unwrap_or(0), tables.sum::<u64>());
    target.memory.alignment = 1;
    target.memory.weight = most + most * rng.count(0, 4) as u64 / 8;
    target.memory.activation = 1 << 16;
    target.dram.bytes_per_cycle = rng.pick(&[1, 2, 4]);
    target.dram.latency_cycles = 0;
    (target.switch.stage_cycles, target.switch.phase_cycles) = (0, 0);
    let products: u64 = graph.stages.values().map(|node| node.code.macs_direct()).sum();
    let even = products * u64::from(target.dram.bytes_per_cycle) / all.max(1);
    target.array.clusters = 1;
    target.array.lanes = (even as u32 * rng.pick(&[2, 3, 4, 5, 6]) / 4).max(1);
    target
}

/// What the trials have shown.
#[derive(Debug, Default)]
struct Found {
    plans: u64,
    /// Bounded by the room of weight SRAM.
    by_weights: u64,
    /// Of these, the one that comes nearest to its bound, in percent of that.
    nearest: u64,
    /// Whose frames in a stream are bounded by the room of weight SRAM.
    frames_by_weights: u64,
    /// Of all, the frame that comes nearest to its bound, in percent of that.
    nearest_frame: u64,
}

/// The program of the best plan that is found among every convex set of stages; none if nothing fits.
fn program(graph: &StageGraph, target: &Target, objective: Objective, seed: u64) -> Option<Program> {
    let offer = Offer { alike: 64, groups: usize::MAX, ..Offer::default() };
    let options = PlanOptions { objective, offer, ..PlanOptions::default() };
    match plan_with_addresses(graph, target, &options) {
        Ok(planned) => {
            let scheduled = schedule(&planned.realised.graph, &planned.plan, target);
            Some(scheduled.expect("it has addresses").program)
        }
        Err(error) if does_not_fit(&error) => None,
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

fn trials(seeds: std::ops::Range<u64>) -> Found {
    let mut found = Found { nearest: u64::MAX, nearest_frame: u64::MAX, ..Found::default() };
    for seed in seeds {
        let rng = &mut Rng::new(seed);
        let graph = graph(rng);
        let target = target(&graph, rng);
        let topology = Topology::new(&graph).expect("it is a graph");
        let least = bounds(&graph, &topology, &target);
        let Some(program) = program(&graph, &target, Objective::Latency, seed) else { continue };
        let timing = timed::simulate(&program, &target);
        assert!(timing.cycles >= least.cycles, "seed {seed}: {} for {least:?}", timing.cycles);
        found.plans += 1;
        let frame = frames::simulate_unverified(&program, &target);
        let moved = frame.dram_bytes.total();
        assert!(frame.cycles >= least.frame.cycles, "seed {seed}: {frame:?} for {least:?}");
        assert!(moved >= least.frame.bytes, "seed {seed}: {frame:?} for {least:?}");
        assert!(moved <= timing.dram_bytes.total(), "seed {seed}: {frame:?} for {timing:?}");
        found.frames_by_weights += u64::from(least.frame.argument == BoundArgument::WeightMemory);
        found.nearest_frame = found.nearest_frame.min(100 * frame.cycles / least.frame.cycles);
        if least.cycles_argument == BoundArgument::WeightMemory {
            found.by_weights += 1;
            found.nearest = found.nearest.min(100 * timing.cycles / least.cycles);
        }
    }
    found
}

#[test]
fn no_plan_of_a_small_graph_beats_its_bound() {
    let found = trials(0..600);
    assert!(found.plans > 500 && found.by_weights > 10 && found.nearest < 140, "{found:?}");
    assert!(found.frames_by_weights > 0 && found.nearest_frame < 140, "{found:?}");
}

#[test]
#[ignore = "takes a minute: `tests/slow/run soundness/plans`"]
fn no_plan_of_many_small_graphs_beats_its_bound() {
    let found = trials(600..20_600);
    assert!(found.plans > 12_000 && found.by_weights > 400 && found.nearest < 110, "{found:?}");
    assert!(found.frames_by_weights > 0 && found.nearest_frame < 110, "{found:?}");
}

/// What trials of least traffic have shown.
#[derive(Debug, Default)]
struct Moved {
    plans: u64,
    /// Bounded by the room of activation SRAM.
    by_activations: u64,
    /// Of what these spill, the least over their bounds of it, in percent.
    nearest: u64,
}

fn trials_of_traffic(seeds: std::ops::Range<u64>) -> Moved {
    let mut found = Moved { nearest: u64::MAX, ..Moved::default() };
    for seed in seeds {
        let rng = &mut Rng::new(seed);
        let graph = graph(rng);
        let mut target = target(&graph, rng);
        let largest = graph.buffers.values().map(|buffer| buffer.size_bytes()).max().unwrap_or(0);
        target.memory.activation = largest * rng.count(1, 12) as u64 / 4;
        let topology = Topology::new(&graph).expect("it is a graph");
        let least = bounds(&graph, &topology, &target);
        for objective in [Objective::Traffic, Objective::Latency] {
            let Some(program) = program(&graph, &target, objective, seed) else { continue };
            let moved = timed::traffic(&program).total();
            assert!(moved >= least.bytes, "seed {seed}, {objective:?}: {moved} for {least:?}");
            if objective == Objective::Traffic {
                found.plans += 1;
                let ours = 100 * (moved - least.once_bytes);
                if let Some(percent) = ours.checked_div(least.bytes - least.once_bytes) {
                    found.by_activations += 1;
                    found.nearest = found.nearest.min(percent);
                }
            }
        }
    }
    found
}

#[test]
fn no_plan_of_a_small_graph_moves_less_than_its_bound() {
    let found = trials_of_traffic(0..400);
    assert!(found.plans > 200 && found.by_activations > 20 && found.nearest < 200, "{found:?}");
}

#[test]
#[ignore = "takes a minute: `tests/slow/run soundness/plans`"]
fn no_plan_of_many_small_graphs_moves_less_than_its_bound() {
    let found = trials_of_traffic(400..20_400);
    assert!(found.plans > 10_000 && found.by_activations > 1_000 && found.nearest < 110, "{found:?}");
}
