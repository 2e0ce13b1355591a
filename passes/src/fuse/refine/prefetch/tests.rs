//! Rows that come ahead, planned, judged and run.

use strata_backend::check::{PlanFault, check};
use strata_backend::model::graph::Topology;
use strata_backend::model::samples::unet;
use strata_backend::model::{Mode, Objective, Plan, ResidentPrefix, StageGraph};
use strata_backend::place::schedule;
use strata_isa_spec::timed::simulate;
use strata_isa_spec::{Head, Target};

use crate::fuse::PlanOptions;
use crate::fuse::pass::plan_with_addresses;
use crate::fuse::refine::prefetch::with_prefetch;

fn target() -> Target {
    Target::preset("x1", &[("memory.activation".to_owned(), "512KiB".to_owned())]).expect("a preset")
}

/// The fastest plan of U-Net.
fn planned(objective: Objective, mode: Mode) -> (StageGraph, Plan) {
    let options = PlanOptions { objective, mode, tolerance_percent: 0, ..PlanOptions::default() };
    let planned = plan_with_addresses(&unet(512, 512), &target(), &options).expect("it fits");
    (planned.realised.graph, planned.plan)
}

/// Whether a phase writes the tensor whose first rows come in it.
fn is_written(graph: &StageGraph, plan: &Plan, prefix: &ResidentPrefix) -> bool {
    let stages = plan.phases[prefix.from as usize].stages.iter();
    stages
        .map(|placed| &graph.stages[placed.stage])
        .any(|node| node.code.out.stream == prefix.buffer.as_u32())
}

/// Which of a plan's prefixes are loaded ahead.
fn loaded(graph: &StageGraph, plan: &Plan) -> Vec<usize> {
    (0..plan.prefixes.len()).filter(|&at| !is_written(graph, plan, &plan.prefixes[at])).collect()
}

#[test]
fn rows_that_come_ahead_cost_nothing_but_save_time() {
    let target = target();
    let options = PlanOptions { objective: Objective::Latency, mode: Mode::Multi, ..PlanOptions::default() };
    let planned = crate::fuse::plan(&unet(512, 512), &target, &options).expect("it fits");
    let (graph, plain) = (planned.realised.graph, planned.plan);
    let before = schedule(&graph, &plain, &target).expect("it has addresses");
    let topology = Topology::new(&graph).expect("it is a graph");
    let found = with_prefetch(&graph, &topology, &target, &plain, &before, target.memory.activation);
    let (mut plan, after) = found.expect("no defect").expect("there is room");
    let [was, is] = [&before, &after].map(|scheduled| simulate(&scheduled.program, &target));
    assert!(is.cycles + 100_000 < was.cycles, "{} cycles, {} before", is.cycles, was.cycles);
    // What is loaded ahead is moved as it was; what stays is not.
    let stays = plan.prefixes.iter().any(|prefix| is_written(&graph, &plan, prefix));
    assert!(stays && is.dram_bytes.total() < was.dram_bytes.total());
    assert_eq!(is.dram_bytes.total(), plan.dram_bytes.total);
    assert!(loaded(&graph, &plan).len() > 3, "{:?}", plan.prefixes);
    let is_ahead = |stage: &&strata_isa_spec::Stage| {
        let is_prefix =
            |stream: u32| after.program.streams.iter().any(|s| s.prefix.is_some_and(|f| f.stream == stream));
        matches!(stage.code.head, Head::DmaIn(_)) && is_prefix(stage.code.out.stream)
    };
    let stages = after.program.phases.iter().flat_map(|phase| &phase.stages);
    assert!(stages.filter(is_ahead).count() >= loaded(&graph, &plan).len());
    // Each ring that is filled before its phase begins takes no more room than it did.
    assert_eq!(check(&graph, &target, &plan), Ok(()));
    plan.bases = None;
    assert!(
        check(&graph, &target, &plan).is_err(),
        "rings and their prefixes share bytes, by their addresses"
    );
}

#[test]
fn the_judge_refuses_rows_that_cannot_come() {
    let target = target();
    let (graph, plan) = planned(Objective::Latency, Mode::Multi);
    assert_eq!(check(&graph, &target, &plan), Ok(()));
    let ahead = loaded(&graph, &plan);
    assert!(!ahead.is_empty());
    let refuses = |at: usize, change: &dyn Fn(&mut Plan)| {
        let mut wrong = plan.clone();
        change(&mut wrong);
        let faults = check(&graph, &target, &wrong).expect_err("it is wrong");
        let is_prefix = |fault: &PlanFault| matches!(fault, PlanFault::Prefix { .. });
        assert!(faults.iter().any(is_prefix), "{:?}: {faults:?}", plan.prefixes[at]);
    };
    for &at in &ahead {
        let prefix = plan.prefixes[at];
        let writes = |phase: &u32| is_written(&graph, &plan, &ResidentPrefix { from: *phase, ..prefix });
        let first_written = (0..prefix.from).find(writes);
        // Before anything of it is in DRAM.
        if let Some(early) = first_written.and_then(|first| first.checked_sub(1)) {
            refuses(at, &|plan| plan.prefixes[at].from = early);
        }
        // For a phase that does not read it, or not as the next.
        refuses(at, &|plan| plan.prefixes[at].until = plan.phases.len() as u32);
        refuses(at, &|plan| plan.prefixes[at].until = prefix.from);
        // Nowhere to load it from.
        refuses(at, &|plan| plan.residency[prefix.buffer.as_u32() as usize].stored = false);
        // What is stated of traffic is what follows.
        let mut fewer = plan.clone();
        fewer.prefixes[at].rows = graph.buffers[prefix.buffer].rows;
        assert!(check(&graph, &target, &fewer).is_err());
    }
}

#[test]
fn nothing_comes_ahead_where_time_does_not_count() {
    for (objective, mode) in [(Objective::Traffic, Mode::Multi), (Objective::Latency, Mode::Single)] {
        let (graph, plan) = planned(objective, mode);
        assert!(loaded(&graph, &plan).is_empty(), "{objective:?}, {mode:?}");
    }
}
