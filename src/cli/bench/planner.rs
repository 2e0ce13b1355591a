//! `strata bench planner`: what planning costs as graphs grow, and what each family of rewrites buys.
//!
//! Each case is measured in a process of its own, because the largest resident set is a figure of the
//! process.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};
use strata_backend::model::BoundArgument;
use strata_isa_spec::Target;

use super::ablate;
use super::case::{Case, parse_case, subject};
use super::gaps::NETWORKS_OF_TODAY;
use super::page::Table;
use super::plot::{self, Series};
use super::subject::{Cost, Size};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::io::write_atomic;
use crate::report::human_bytes;

/// Measure planning: time and memory over the size of the graph; or, with --ablate, what each family of
/// rewrites buys
///
/// Planning is the pass `fuse-layers` and address assignment, for least latency on the target `x1`. Cases are
/// chain:N, a chain of N convolutions; random:N, a random graph of N convolutions and sums; or a network of
/// the zoo, such as unet@512x512.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Models to measure, or to switch families off for, beside the built-in ones: ONNX files or TOSA
    /// flatbuffers
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Only this case; may be repeated
    #[arg(long, value_name = "CASE", value_parser = parse_case)]
    case: Vec<Case>,
    /// How often each case is planned; the median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Plan with each family of rewrites switched the other way, one at a time, and with none
    #[arg(long)]
    ablate: bool,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table as a page of Markdown
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Draw time over size, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "ablate")]
    plot: Option<PathBuf>,
    /// Measure in this process and print JSON: what the command runs for each case
    #[arg(long, hide = true)]
    here: bool,
}

/// The cases of the page.
fn usual_cases() -> Vec<Case> {
    let chains = [50, 100, 200, 500, 1000].map(Case::Chain);
    let graphs = [50, 100, 200, 350, 500].map(Case::Random);
    chains.into_iter().chain(graphs).chain(networks()).chain(zoo(&NETWORKS_OF_TODAY)).collect()
}

/// Networks of the zoo for which families of rewrites are switched off.
fn networks() -> Vec<Case> {
    let networks = [
        ("fsrcnn", (960, 540)),
        ("mobilenetv2", (224, 224)),
        ("resnet50", (224, 224)),
        ("unet", (512, 512)),
        ("vgg16", (224, 224)),
        ("yolov3-tiny", (416, 416)),
        ("yolov3", (416, 416)),
        ("yolov3", (2048, 1024)),
    ];
    zoo(&networks)
}

/// Networks of the zoo at sizes.
fn zoo(networks: &[(&str, Size)]) -> Vec<Case> {
    networks.iter().map(|&(name, size)| Case::Zoo(name.to_owned(), size)).collect()
}

/// What planning a case took.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    case: String,
    stages: usize,
    phases: usize,
    /// The runs' median.
    median: Cost,
    runs: Vec<Cost>,
    /// By how much the resident set grew while planning, in the run in which it grew most.
    grown_bytes: u64,
    gap: f64,
    argument: BoundArgument,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let files = args.models.iter().cloned().map(Case::File);
    let given: Vec<Case> = args.case.iter().cloned().chain(files).collect();
    if args.here {
        let [case] = &given[..] else {
            return Err(Failure::Usage("--here takes one case".to_owned()));
        };
        let json = serde_json::to_string(&measure(case, args.runs, console)?).map_err(Failure::failed)?;
        return console.print(&format!("{json}\n"));
    }
    let (text, json) = if args.ablate {
        let cases = if args.case.is_empty() { networks().into_iter().chain(given).collect() } else { given };
        let lines = ablate::lines(&cases, &console.progress(None))?;
        let json = serde_json::to_string_pretty(&lines).map_err(Failure::failed)?;
        (ablate::section(&lines), json)
    } else {
        let cases =
            if args.case.is_empty() { usual_cases().into_iter().chain(given).collect() } else { given };
        let measured = all(&cases, args.runs, console)?;
        if let Some(path) = &args.plot {
            write_atomic(path, drawing(&measured).as_bytes())?;
        }
        let json = serde_json::to_string_pretty(&measured).map_err(Failure::failed)?;
        (section(&measured, args.runs) + &picture(args), json)
    };
    if let Some(path) = &args.json {
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    match &args.write {
        Some(path) => {
            let preface = if args.ablate { ABLATION_PREFACE } else { PREFACE };
            write_atomic(path, format!("{preface}{text}").as_bytes())?;
            console.summary(&format!("wrote {}\n", path.display()))
        }
        None => console.print(&text),
    }
}

/// Measures each case in a process of its own.
fn all(cases: &[Case], runs: u32, console: &Console) -> Result<Vec<Measured>, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let progress = console.progress(None);
    let one = |case: &Case| -> Result<Measured, Failure> {
        progress.step(&case.to_string());
        let mut command = Command::new(&program);
        command.args(["bench", "planner", "--here", "--runs", &runs.to_string()]);
        match case {
            Case::File(path) => command.arg(path),
            case => command.args(["--case", &case.to_string()]),
        };
        // Notes of a case are no results.
        let output = command.arg("--quiet").output().map_err(Failure::failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Failed(format!("{case}: {}", said.trim().trim_start_matches("error: "))));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| Failure::Failed(format!("{case}: {error}")))
    };
    cases.iter().map(one).collect()
}

fn measure(case: &Case, runs: u32, console: &Console) -> Result<Measured, Failure> {
    let progress = console.progress(None);
    let subject = subject(case, &progress)?;
    let target = Target::preset("x1", &[])?;
    let mut planned = Vec::new();
    for _ in 0..runs {
        planned.push(subject.plan(&target)?);
    }
    let mut costs: Vec<Cost> = planned.iter().map(|one| one.cost).collect();
    costs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let last = planned.last().ok_or_else(|| Failure::failed("nothing was planned"))?;
    Ok(Measured {
        case: subject.name,
        stages: last.stages,
        phases: last.plan.phases.len(),
        median: costs[costs.len() / 2],
        runs: planned.iter().map(|one| one.cost).collect(),
        grown_bytes: planned.iter().map(|one| one.cost.grown_bytes).max().unwrap_or(0),
        gap: last.plan.certificate.gap,
        argument: last.plan.certificate.argument,
    })
}

const PREFACE: &str = "# Planning time\n\n\
    Made by `strata bench planner --write docs/planner.md --plot docs/planner.svg`; do not edit.\n\n";

const ABLATION_PREFACE: &str = "# What the rewrites buy\n\n\
    Made by `strata bench planner --ablate --write docs/ablation.md`; do not edit.\n\n";

fn section(measured: &[Measured], runs: u32) -> String {
    let mut table = Table::new(&[
        "case",
        "stages",
        "phases",
        "seconds",
        "processor seconds",
        "memory",
        "gap",
        "what binds",
    ]);
    for one in measured {
        table.row(&[
            one.case.clone(),
            one.stages.to_string(),
            one.phases.to_string(),
            format!("{:.3}", one.median.wall),
            format!("{:.3}", one.median.cpu),
            human_bytes(one.grown_bytes),
            format!("{:.1} %", one.gap * 100.0),
            one.argument.in_words().to_owned(),
        ]);
    }
    format!(
        "Planning is the pass `fuse-layers` and the assignment of addresses, for least latency on `x1`, the \
            median of {runs} runs.\n\
         Ops are not rewritten before, so that a graph has the size that it was made with.\n\
         Memory is by how much the resident set grows meanwhile.\n\
         `chain:N` is a chain of N convolutions, `random:N` a random graph of N convolutions and sums, all \
         tensors of 1 MiB.\n\n{}",
        table.markdown()
    )
}

/// The plot, in a page that is written beside it.
fn picture(args: &Args) -> String {
    let (Some(page), Some(plot)) = (&args.write, &args.plot) else { return String::new() };
    let name = plot.file_name().filter(|_| page.parent() == plot.parent());
    name.map_or_else(String::new, |name| {
        format!("\n![Processor seconds over stages]({})\n", name.to_string_lossy())
    })
}

fn drawing(measured: &[Measured]) -> String {
    let family = |name: &str, colour, joined, is_member: &dyn Fn(&str) -> bool| Series {
        name: name.to_owned(),
        colour,
        joined,
        points: (measured.iter().filter(|one| is_member(&one.case)))
            .map(|one| (one.stages.max(1) as f64, one.median.cpu.max(1e-6)))
            .collect(),
    };
    let series = [
        family("chains", "#27a", true, &|case| case.starts_with("chain:")),
        family("random graphs", "#e92", true, &|case| case.starts_with("random:")),
        family("networks", "#2a7", false, &|case| !case.contains(':')),
    ];
    plot::growth(&series, "stages", "processor seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_as_they_are_written() {
        for case in usual_cases() {
            assert_eq!(parse_case(&case.to_string()), Ok(case));
        }
        for wrong in ["chain:0", "random:x", "unet", "unet@5", "chain:100001", "tree:5"] {
            assert!(parse_case(wrong).is_err(), "{wrong}");
        }
    }
}
