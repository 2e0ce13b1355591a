//! The figures that the planner is held against, on published networks.

use strata_isa_spec::Target;

use super::testing::{mobilenetv2, resnet50, unet, vgg16, yolov3};
use super::{Mode, Objective, Plan, PlanOptions, StageGraph, plan};

fn x1(activation: &str) -> Target {
    Target::preset("x1", &[("memory.activation".to_owned(), activation.to_owned())]).expect("a preset")
}

fn planned(graph: &StageGraph, target: &Target, mode: Mode, objective: Objective) -> Plan {
    plan(graph, target, &PlanOptions { mode, objective, ..PlanOptions::default() }).expect("it fits")
}

/// `shared/reference/traffic.md`: layer by layer 926.4 MB, fused 121.1 MB; compulsory 79.2 MB, to which tables are added.
#[test]
fn yolov3_moves_as_little_as_the_reference() {
    let (graph, target) = (yolov3(1024, 2048), x1("8MiB"));
    let single = planned(&graph, &target, Mode::Single, Objective::Traffic);
    let multi = planned(&graph, &target, Mode::Multi, Objective::Traffic);
    assert!((900..=950).contains(&(single.dram_bytes.total / 1_000_000)), "{:?}", single.dram_bytes);
    assert!(multi.dram_bytes.total <= 122_000_000, "{:?}", multi.dram_bytes);
    assert_eq!(multi.phases[0].stages.len(), 26);
}

/// 17 frames a second at 1,067 MHz, and a quarter more than layer by layer.
#[test]
fn yolov3_runs_at_the_rate_asked_for() {
    let (graph, target) = (yolov3(1024, 2048), x1("8MiB"));
    let single = planned(&graph, &target, Mode::Single, Objective::Latency);
    let multi = planned(&graph, &target, Mode::Multi, Objective::Latency);
    assert!(multi.cycles <= 62_700_000, "{} cycles", multi.cycles);
    assert!(multi.cycles * 5 <= single.cycles * 4, "{} against {}", multi.cycles, single.cycles);
}

/// The reference's fused totals in MB, within 6 %: tables of rescales, which it leaves out, are 5 % of MobileNetV2's weights.
/// VGG-16 is without its fully connected layers here.
#[test]
fn other_networks_move_as_little_as_the_reference() {
    let cases: [(&str, StageGraph, &str, f64); 5] = [
        ("mobilenetv2", mobilenetv2(224, 224), "1MiB", 3.6),
        ("resnet50", resnet50(224, 224), "1MiB", 25.7),
        ("resnet50", resnet50(224, 224), "8MiB", 25.7),
        ("vgg16", vgg16(224, 224), "1MiB", 15.0),
        ("unet", unet(512, 512), "8MiB", 91.1),
    ];
    for (name, graph, sram, reference) in cases {
        let plan = planned(&graph, &x1(sram), Mode::Multi, Objective::Traffic);
        let moved = plan.dram_bytes.total as f64 / 1e6;
        assert!(moved <= reference * 1.06, "{name} {sram}: {moved:.1} against {reference}");
    }
}
