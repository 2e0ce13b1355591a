//! Explanations are held against the planner itself: on targets that have what was said to be missing, and a
//! byte less.

use strata_backend::model::samples::{mobilenetv2, resnet50, unet, yolov3};
use strata_backend::model::{Objective, StageId};
use strata_isa_spec::Target;

use super::account::Account;
use super::*;
use crate::fuse::{PlanOptions, Planned, plan};

fn target(preset: &str, activation: u64) -> Target {
    let overrides = [("memory.activation".to_owned(), activation.to_string())];
    Target::preset(preset, &overrides).expect("a preset")
}

fn strips_of(planned: &Planned) -> Vec<StageId> {
    let parts = planned.realised.graph.stages.keys().zip(&planned.realised.parts);
    parts.filter(|(_, part)| part.strip.is_some()).map(|(stage, _)| stage).collect()
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
