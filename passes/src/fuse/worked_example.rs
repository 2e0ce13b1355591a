//! The worked example of `docs/planner/how-it-works.md`: its figures are computed here and held against the
//! page. With `BLESS` set, the page gets them.

use std::fmt::Write;
use std::path::Path;

use strata_backend::model::graph::StageSet;
use strata_backend::model::samples::Net;
use strata_backend::model::{Mode, Objective, Plan, StageGraph, StageId};
use strata_backend::place::schedule;
use strata_isa_spec::{Target, timed};

use crate::fuse::bound::bounds;
use crate::fuse::candidates::candidate::{Candidate, Context};
use crate::fuse::egraph::{Offer, offer};
use crate::fuse::pass::plan_with_addresses;
use crate::fuse::{PlanOptions, Planned};

const PAGE: &str = "../docs/planner/how-it-works.md";

/// Three convolutions, the last with a shortcut around the second, and a pool.
fn network() -> StageGraph {
    let mut net = Net::default();
    let input = net.input([64, 64, 8]);
    let a = net.conv(input, 32, 3, 1);
    let b = net.conv(a, 32, 3, 1);
    let c = net.conv_add(b, 32, 1, a);
    let out = net.max_pool(c, 2, 2);
    net.output(out, 0);
    net.finish()
}

fn target() -> Target {
    Target::preset("micro", &[("memory.activation".to_owned(), "32KiB".to_owned())]).expect("a preset")
}

fn names(graph: &StageGraph, set: &StageSet) -> String {
    let name = |stage: StageId| graph.stages[stage].name.as_str();
    set.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn stages(graph: &StageGraph, target: &Target) -> String {
    let mut text = String::from("stage     products  array cycles   tables     output\n");
    let array = u64::from(target.array.clusters * target.array.lanes);
    for node in graph.stages.values() {
        let macs = node.code.macs_direct();
        let (tables, out) = (node.weight_bytes(), node.code.out.n_elements());
        writeln!(text, "{:6} {macs:11} {:13} {tables:6} B {out:8} B", node.name, macs.div_ceil(array))
            .expect("written");
    }
    text
}

fn candidates(graph: &StageGraph, context: &Context<'_>) -> String {
    let mut text = String::from("set                              clusters     cycles       SRAM\n");
    for set in offer(context, &Offer::default(), false).sets {
        let name = names(graph, &set);
        let candidate = Candidate::new(context, &set).filter(|candidate| !candidate.variants.is_empty());
        let Some(candidate) = candidate else {
            writeln!(text, "{name:32} does not fit").expect("written");
            continue;
        };
        let fastest = candidate.variants.iter().min_by_key(|variant| variant.cycles);
        let fastest = fastest.expect("it has variants");
        let clusters: Vec<String> = fastest.division.partitions.iter().map(u32::to_string).collect();
        writeln!(
            text,
            "{name:32} {:8} {:10} {:8} B",
            clusters.join("+"),
            fastest.cycles,
            candidate.least_bytes(fastest)
        )
        .expect("written");
    }
    text
}

fn phases(graph: &StageGraph, plan: &Plan) -> String {
    let mut text = String::from("phase  stages                           clusters     cycles\n");
    for (at, phase) in plan.phases.iter().enumerate() {
        let stages: Vec<&str> =
            phase.stages.iter().map(|placed| graph.stages[placed.stage].name.as_str()).collect();
        let clusters: Vec<String> = phase.partitions.iter().map(u32::to_string).collect();
        writeln!(
            text,
            "{at:5}  {:32} {:8} {:10}",
            stages.join(" "),
            clusters.join("+"),
            phase.predicted_cycles
        )
        .expect("written");
    }
    let moved = plan.dram_bytes;
    writeln!(
        text,
        "{} cycles, {} DRAM bytes, {} of them compulsory",
        plan.cycles, moved.total, moved.compulsory
    )
    .expect("written");
    text
}

/// What the page has between two lines of three backquotes after a line `<!-- NAME -->`.
fn block<'t>(page: &'t str, name: &str) -> &'t str {
    let after =
        page.split_once(&format!("<!-- {name} -->\n```text\n")).unwrap_or_else(|| panic!("no {name}")).1;
    after.split_once("```").expect("the block ends").0
}

#[test]
fn the_page_says_what_the_planner_does() {
    let (graph, target) = (network(), target());
    let context = Context::new(&graph, &target).expect("it is a graph");
    let mut texts = vec![("stages", stages(&graph, &target)), ("candidates", candidates(&graph, &context))];
    let bound = bounds(&graph, &context.topology, &target);
    texts.push(("bound", format!("{} cycles, {} DRAM bytes\n", bound.cycles, bound.bytes)));
    for (name, mode) in [("multi", Mode::Multi), ("single", Mode::Single)] {
        let options = PlanOptions { mode, objective: Objective::Latency, ..PlanOptions::default() };
        let Planned { plan, realised, .. } = plan_with_addresses(&graph, &target, &options).expect("it fits");
        let scheduled = schedule(&realised.graph, &plan, &target).expect("it has addresses");
        assert_eq!(timed::simulate(&scheduled.program, &target).cycles, plan.cycles, "as it runs");
        assert!(bound.cycles <= plan.cycles && bound.bytes <= plan.dram_bytes.total);
        texts.push((name, phases(&realised.graph, &plan)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let mut page = std::fs::read_to_string(&path).expect("the page is there");
    for (name, text) in texts {
        if std::env::var_os("BLESS").is_some() {
            let found = block(&page, name).to_owned();
            page = page.replace(
                &format!("<!-- {name} -->\n```text\n{found}```"),
                &format!("<!-- {name} -->\n```text\n{text}```"),
            );
            std::fs::write(&path, &page).expect("written");
        }
        assert_eq!(block(&page, name), text, "{name}: run the test with BLESS=1");
    }
}
