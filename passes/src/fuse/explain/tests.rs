//! Explanations are held against the planner itself: on targets that have what was said to be missing, and a
//! byte less.

use strata_backend::model::graph::StageSet;
use strata_backend::model::samples::{Net, mobilenetv2, resnet50, unet, yolov3};
use strata_backend::model::{Objective, StageGraph};
use strata_isa_spec::Target;

use super::account::Account;
use super::borders::{Needs, Reason};
use super::spills::SpillReason;
use super::what_if::{changes, what_ifs};
use super::*;
use crate::fuse::candidates::candidate::{Candidate, Context};
use crate::fuse::{PlanOptions, Planned, plan};

fn target(preset: &str, activation: u64) -> Target {
    let overrides = [("memory.activation".to_owned(), activation.to_string())];
    Target::preset(preset, &overrides).expect("a preset")
}

fn strips_of(planned: &Planned) -> Vec<Strip> {
    let parts = planned.realised.graph.stages.keys().zip(&planned.realised.parts);
    let strips = parts.filter(|(_, part)| part.strip.is_some());
    strips.map(|(stage, part)| Strip { stage, layer: part.origin.as_u32().into() }).collect()
}

fn explained(planned: &Planned, target: &Target, options: &PlanOptions) -> Explained {
    let strips = strips_of(planned);
    let (graph, plan) = (&planned.realised.graph, &planned.plan);
    explain(Subject { graph, plan, target, options, strips: &strips }).expect("its own plan")
}

/// The account of a plan is the search's own: the same cycles and bytes.
#[test]
fn a_plan_costs_what_the_search_said() {
    let graphs = [unet(128, 128), yolov3(416, 416), mobilenetv2(224, 224), resnet50(224, 224)];
    for graph in &graphs {
        for objective in Objective::ALL {
            for activation in [512 << 10, 2 << 20] {
                let target = target("x1", activation);
                let options = PlanOptions { objective, first_rows: false, ..PlanOptions::default() };
                let Ok(planned) = plan(graph, &target, &options) else { continue };
                let (graph, plan) = (&planned.realised.graph, &planned.plan);
                let account = Account::new(graph, &target, plan, &options).expect("its own plan");
                let of_account = (account.estimate.cycles, account.estimate.dram_bytes);
                assert_eq!(of_account, (plan.search_cycles, plan.dram_bytes.total), "{objective:?}");
            }
        }
    }
}

/// What two phases need as one is what they fit in, and not a byte less, as the planner evaluates sets of
/// stages.
#[test]
fn phases_fit_as_one_in_what_they_are_said_to_need() {
    let mut n_tried = 0;
    for graph in [unet(128, 128), yolov3(416, 416), mobilenetv2(224, 224)] {
        let target = target("x1", 512 << 10);
        let options = PlanOptions { first_rows: false, ..PlanOptions::default() };
        let planned = plan(&graph, &target, &options).expect("it fits");
        let (graph, stages) = (&planned.realised.graph, planned.plan.stages());
        for border in explained(&planned, &target, &options).borders {
            let Needs { activation_bytes_alone, weight_bytes, streams, .. } = border.needs;
            let both = &stages[border.after_phase..=border.after_phase + 1];
            let set: StageSet = both.iter().flatten().copied().collect();
            let fits = |activation: u64, weight: u64| {
                let mut target = target.clone();
                (target.memory.activation, target.memory.weight) = (activation, weight);
                target.limits.streams = target.limits.streams.max(streams as u32);
                let context = Context::new(graph, &target).expect("it is a graph");
                Candidate::new(&context, &set).is_some_and(|candidate| candidate.fits())
            };
            assert!(fits(activation_bytes_alone, weight_bytes), "{border:?}");
            assert!(!fits(activation_bytes_alone - 1, weight_bytes), "{border:?}");
            assert!(!fits(activation_bytes_alone, weight_bytes - 1), "{border:?}");
            assert!(border.needs.activation_bytes >= activation_bytes_alone);
            n_tried += 1;
        }
    }
    assert!(n_tried > 20, "{n_tried}");
}

/// Two convolutions, of which the first makes `chs` channels.
fn two_convolutions(size: u32, chs: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([size, size, 64]);
    let first = net.conv(input, chs, 3, 1);
    let second = net.conv(first, 64, 3, 1);
    net.output(second, 0);
    net.finish()
}

/// Least traffic at full width, where what fits is what is done.
fn of_traffic() -> PlanOptions {
    let objective = Objective::Traffic;
    PlanOptions { objective, strips: false, growths: false, first_rows: false, ..PlanOptions::default() }
}

/// Whether the plan of a graph is one phase.
fn is_one_phase(graph: &StageGraph, target: &Target) -> bool {
    plan(graph, target, &of_traffic()).expect("it fits").plan.phases.len() == 1
}

/// Two convolutions whose rows do not fit beside each other are one phase with as many bytes as are said to
/// be missing, and two with one less.
#[test]
fn phases_are_one_with_the_activation_sram_that_is_missing() {
    let (graph, options) = (two_convolutions(32, 512), of_traffic());
    let fits = |bytes: u64| plan(&graph, &target("x1", bytes), &options).is_ok();
    let least = (1..).map(|kib| kib << 10).find(|&bytes| fits(bytes)).expect("some bytes are enough");
    let tight = target("x1", least);
    let planned = plan(&graph, &tight, &options).expect("it fits");
    let explained = explained(&planned, &tight, &options);
    let [border] = &explained.borders[..] else { panic!("{explained:?}") };
    assert_eq!((border.reason, border.after_phase), (Reason::Shortage, 0), "{border:?}");
    let [shortage] = &border.shortages[..] else { panic!("{border:?}") };
    assert_eq!(shortage.field, "memory.activation");
    assert_eq!((shortage.limit, shortage.needed), (least, least + shortage.missing));
    assert!(is_one_phase(&graph, &target("x1", shortage.needed)), "{shortage:?}");
    assert!(!is_one_phase(&graph, &target("x1", shortage.needed - 1)), "{shortage:?}");
    // What passes between them goes through DRAM for it, once each way.
    let [spill] = &explained.spills[..] else { panic!("{explained:?}") };
    let bytes = graph.buffers.values().map(|buffer| buffer.size_bytes()).max().expect("there are some");
    assert_eq!((spill.bytes, spill.written_in, &spill.read_in[..]), (bytes, 0, &[1][..]));
    assert_eq!(spill.spilled.dram_bytes - spill.kept.dram_bytes, 2 * bytes);
    assert_eq!(border.apart.dram_bytes - border.merged.dram_bytes, 2 * bytes);
}

/// Where weights keep two convolutions apart, what passes between them is kept with as many bytes as are said
/// to be missing, and not with one less; and with the weights' bytes they are one phase.
#[test]
fn tensors_are_kept_with_the_bytes_that_are_missing() {
    let (graph, options) = (two_convolutions(16, 256), of_traffic());
    let with = |activation: u64, weight: u64| {
        let mut target = target("x1", activation);
        target.memory.weight = weight;
        target
    };
    let stages = graph.stages.values().map(|node| node.weight_bytes().next_multiple_of(64));
    let weight = stages.max().expect("there are some") + 4096;
    let fits = |bytes: u64| plan(&graph, &with(bytes, weight), &options).is_ok();
    let least = (1..).map(|kib| kib << 10).find(|&bytes| fits(bytes)).expect("some bytes are enough");
    let tight = with(least, weight);
    let planned = plan(&graph, &tight, &options).expect("it fits");
    let explained = explained(&planned, &tight, &options);
    let [spill] = &explained.spills[..] else { panic!("{explained:?}") };
    assert_eq!(spill.reason, SpillReason::NoRoom);
    assert!(spill.full_phases.contains(&spill.fullest_phase) && spill.missing_bytes > 0, "{spill:?}");
    let is_spilled = |activation: u64| {
        let planned = plan(&graph, &with(activation, weight), &options).expect("it fits");
        planned.plan.dram_bytes.spill_write > 0
    };
    assert!(!is_spilled(spill.needed_bytes), "{spill:?}");
    assert!(is_spilled(spill.needed_bytes - 1), "{spill:?}");
    let [border] = &explained.borders[..] else { panic!("{explained:?}") };
    let shortage = border.shortages.iter().find(|shortage| shortage.field == "memory.weight");
    let needed = shortage.expect("the weights of one fit").needed;
    let activation = border.needs.activation_bytes;
    assert!(is_one_phase(&graph, &with(activation, needed)), "{border:?}");
    assert!(!is_one_phase(&graph, &with(activation, needed - 1)), "{border:?}");
}

/// Changes of a machine are ranked by what they save for their size, and what they save is what the planner
/// says.
#[test]
fn changes_of_the_target_are_ranked_by_what_plans_cost() {
    let (graph, target) = (unet(64, 64), target("x1", 128 << 10));
    let options = PlanOptions::default();
    let tried = changes(&target);
    assert!(tried.iter().all(|change| change.target != target && change.target.problems().is_empty()));
    let found = what_ifs(&graph, &target, &tried, &options, &|_| {}).expect("they are planned");
    assert_eq!(found.changes.len(), tried.len());
    assert!(found.changes.windows(2).all(|pair| pair[0].gain >= pair[1].gain));
    let best = &found.changes[0];
    let change = tried.iter().find(|change| (change.field, change.to) == (best.field.as_str(), best.to));
    let target = &change.expect("it is one of those").target;
    let planned = crate::fuse::pass::plan_for(&graph, target, &options).expect("it fits");
    assert_eq!(best.cost, Some(planned.plan.certificate.cost));
    assert!(best.gain > 0.0, "{best:?}");
}
