//! Explanations are held against the planner itself: on targets that have what was said to be missing, and a
//! byte less.

use strata_backend::model::Objective;
use strata_backend::model::graph::StageSet;
use strata_backend::model::samples::{mobilenetv2, resnet50, unet, yolov3};
use strata_isa_spec::Target;

use super::account::Account;
use super::borders::Needs;
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
