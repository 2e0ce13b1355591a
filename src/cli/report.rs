//! `strata report`: bundles side by side, as a page of their own.

use std::path::PathBuf;

use maud::{DOCTYPE, html};
use strata_isa_spec::bundle::Bundle;
use strata_isa_spec::timed::TimeUse;
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Head, timed};

use super::console::Console;
use super::failure::Failure;
use super::model;
use super::tables::{count, decimal_bytes, host_text, percent, plan_lines, row, show, table};
use super::times::{parts, queues};
use crate::io::{demand_writable, write_atomic};
use crate::stats::{SimulatedStats, Stats};

/// Compare bundles: plans, phases and what stages wait for
///
/// Prints a table, and writes a page of HTML that needs nothing else if asked to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundles
    #[arg(required = true, value_name = "FILE.strata")]
    bundles: Vec<PathBuf>,
    /// Write a page of HTML
    #[arg(long, short, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

/// A bundle and its times.
struct Subject {
    title: String,
    bundle: Bundle,
    stats: Stats,
    /// Of each program.
    timings: Vec<timed::Timing>,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    if let Some(path) = &args.output {
        demand_writable(path)?;
    }
    let progress = console.progress(Some(args.bundles.len() as u64));
    let mut subjects = Vec::with_capacity(args.bundles.len());
    for path in &args.bundles {
        let title = model::file_name(path);
        progress.step(&title);
        let bundle = model::bundle(path)?;
        let target = &bundle.manifest.target;
        if bundle.machines().any(|machine| !verify(&machine.program, target).is_empty()) {
            return Err(Failure::file(path, "the program is not valid; see `strata verify`"));
        }
        let stats = bundle.stats.clone().and_then(|stats| serde_json::from_value::<Stats>(stats).ok());
        let mut stats = stats.ok_or_else(|| Failure::file(path, "the bundle has no statistics"))?;
        let timings: Vec<_> =
            bundle.machines().map(|machine| timed::simulate(&machine.program, target)).collect();
        let clock = target.array.clock_hz;
        let stream = stats.simulated.and_then(|simulated| simulated.stream);
        let simulated = SimulatedStats::of_all(&timings, clock, stats.plan.dram_bytes.compulsory);
        stats.simulated = simulated.map(|simulated| SimulatedStats { stream, ..simulated });
        subjects.push(Subject { title, bundle, stats, timings });
        progress.done(subjects.len() as u64);
    }
    drop(progress);
    if let Some(path) = &args.output {
        write_atomic(path, page(&subjects).as_bytes())?;
        console.note(&format!("wrote {}", path.display()));
    }
    let titles: Vec<&str> = subjects.iter().map(|subject| subject.title.as_str()).collect();
    let mut lines = table(&[&["plan"], titles.as_slice()].concat());
    for (what, values) in comparison(&subjects) {
        row(&mut lines, &[&[what.to_owned()], values.as_slice()].concat());
    }
    console.summary(&show(&lines))
}

fn comparison(subjects: &[Subject]) -> Vec<(&'static str, Vec<String>)> {
    let mut lines = vec![
        ("machine", subjects.iter().map(|s| s.bundle.manifest.target.name.clone()).collect()),
        ("mode", subjects.iter().map(|s| s.stats.plan.mode.clone()).collect()),
    ];
    lines.extend(plan_lines(
        &subjects.iter().map(|s| (&s.stats.plan, s.stats.simulated.as_ref())).collect::<Vec<_>>(),
    ));
    lines
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 \
    1em;color:#222}\
    table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;text-align:right;border-bottom:1px \
    solid #ddd}\
    td:first-child,th:first-child{text-align:left}.bar{display:flex;height:.8em;width:16em;background:#eee}\
    .busy{background:#2a7}.input{background:#e92}.output{background:#c52}.weights{background:#85c}\
.turn{background:#7ac}\
    .key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}";

fn page(subjects: &[Subject]) -> String {
    let title = subjects.iter().map(|s| s.title.as_str()).collect::<Vec<_>>().join(", ");
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Strata: " (title) } style { (STYLE) } }
            body {
                h1 { "Strata report" }
                table {
                    tr { th { "plan" } @for subject in subjects { th { (subject.title) } } }
                    @for (what, values) in comparison(subjects) {
                        tr { td { (what) } @for value in values { td { (value) } } }
                    }
                }
                @for subject in subjects { (phases(subject)) }
            }
        }
    }
    .into_string()
}

fn phases(subject: &Subject) -> maud::Markup {
    let Subject { title, bundle, timings, .. } = subject;
    let cycles: u64 = timings.iter().map(|timing| timing.cycles).sum();
    let programs = bundle.machines().zip(timings);
    let phases = programs.flat_map(|(machine, timing)| {
        machine.program.phases.iter().zip(&timing.phases).map(|(phase, time)| (&machine.names, phase, time))
    });
    html! {
        h2 { (title) }
        @if let Some(host) = &subject.stats.host { pre { (host_text(host)) } }
        p.key {
            "What stages, partitions and queues spend a phase on:"
            span.busy {} "busy" span.input {} "waiting for input"
                span.output {} "for room" span.weights {} "for weights"
            span.turn {} "for their turn, changing over and being configured"
        }
        @for (at, (names, phase, time)) in phases.enumerate() {
            h3 { "Phase " (at) ": " (count(time.cycles)) " cycles, "
                (percent(time.cycles as f64 / cycles.max(1) as f64)) " of the inference" }
            @let loaded: u64 = phase.loads.iter().map(|load| u64::from(load.bytes)).sum();
            p { "Loads " (decimal_bytes(loaded)) " of weights; DRAM is busy for "
                (percent(time.dma.dram_busy() as f64 / time.cycles.max(1) as f64)) " of the phase." }
            table {
                tr { th { "of the machine" } th { "time" } th { "busy" } }
                @for (at, (clusters, spent)) in phase.partitions.iter().zip(&time.partitions).enumerate() {
                    tr { td { "partition " (at) ", clusters: " (clusters) } (spent_on(spent)) }
                }
                @for (what, spent) in queues(&time.dma) {
                    tr { td { (what) } (spent_on(spent)) }
                }
            }
            table {
                tr { th { "stage" } th { "what" } th { "rows" } th { "MACs" } th { "time" } th { "busy" } }
                @for (stage, spent) in phase.stages.iter().zip(&time.stages) {
                    @let is_dma = matches!(stage.code.head, Head::DmaIn(_) | Head::DmaOut(_));
                    tr {
                        td { (names.get(stage.source as usize).map_or("", String::as_str)) }
                        td { (stage.code.head.mnemonic()) }
                        td { @if !is_dma { (stage.code.out.rows) } }
                        td { @if !is_dma { (count(stage.code.macs_direct())) } }
                        (spent_on(spent))
                    }
                }
            }
        }
    }
}

/// Two cells: a bar of what something spends a phase on, and how much of it it is busy.
fn spent_on(spent: &TimeUse) -> maud::Markup {
    html! {
        td { div.bar {
            @for (class, share) in parts(spent) { div class=(class) style=(format!("width:{share:.1}%")) {} }
        } }
        td { (percent(spent.busy as f64 / spent.total().max(1) as f64)) }
    }
}
