//! `strata bench targets`: the zoo on every preset, how far plans are from their bounds, and predictions from
//! the timed interpreter.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strata_frontend::zoo::ZooModel;
use strata_isa_spec::Target;
use strata_passes::rewrite::Families;

use super::gaps::{COLUMNS, Gap, cells};
use super::page::{Table, change};
use super::subject::Subject;
use crate::cli::console::{Console, Progress};
use crate::cli::failure::Failure;
use crate::cli::tables::count;
use crate::io::{self, write_atomic};
use crate::{Mode, Objective};

/// Plan the zoo on every preset target, at the networks' usual sizes
///
/// For each network and target: a plan for least latency and one for least traffic, their gaps to their
/// bounds, and how far predicted cycles are from the timed interpreter's. A network that has no plan on a
/// target is a row that says why. Files are written anew after each row, so that what was found stays when
/// the command is stopped; `--resume` goes on from there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this network, such as unet; may be repeated
    #[arg(long, value_name = "NET")]
    only: Vec<String>,
    /// Only this target; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take over the rows that the JSON file has already, and plan what it lacks
    #[arg(long, requires = "json")]
    resume: bool,
    /// Write the table as a page of Markdown
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// A network on a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    target: String,
    network: String,
    /// The plans, or why there are none.
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Planned { latency: Plan, traffic: Plan },
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    phases: u64,
    predicted_cycles: u64,
    simulated_cycles: u64,
    /// What the search went by.
    estimated_cycles: u64,
    frames_per_second: f64,
    dram_bytes: u64,
    bound: Gap,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let networks = wanted(&args.only, &ZooModel::names()).map_err(Failure::Usage)?;
    let targets = wanted(&args.target, &Target::presets().collect::<Vec<_>>()).map_err(Failure::Usage)?;
    let progress = console.progress(None);
    let mut lines = match &args.json {
        Some(path) if args.resume && path.exists() => {
            serde_json::from_slice(&io::read(path)?).map_err(|error| Failure::file(path, error))?
        }
        _ => Vec::new(),
    };
    for network in networks {
        let model = ZooModel::ALL.into_iter().find(|model| model.name() == network);
        let (width, height) = model.expect("the name is one of the zoo's").default_size();
        let title = format!("{network}@{width}x{height}");
        let has = |lines: &[Line], target: &str| {
            lines.iter().any(|line| line.network == title && line.target == target)
        };
        let mut subject: Option<Result<Subject, Failure>> = None;
        for &name in &targets {
            if has(&lines, name) {
                continue;
            }
            let subject = subject.get_or_insert_with(|| Subject::zoo(network, (width, height), &progress));
            lines.push(match subject {
                Ok(subject) => line(subject, name, &progress)?,
                // What the host has to run has no plan.
                Err(failure) => Line {
                    target: name.to_owned(),
                    network: title.clone(),
                    outcome: Outcome::Refused(first_lines(failure)),
                },
            });
            sort(&mut lines);
            write(args, &lines)?;
        }
    }
    write(args, &lines)?;
    drop(progress);
    match &args.write {
        Some(path) => console.summary(&format!("wrote {}\n", path.display())),
        None => console.print(&section(&lines)),
    }
}

/// The first lines of a failure: it may name every node that the host would run.
fn first_lines(failure: &Failure) -> String {
    let text = failure.to_string();
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().saturating_sub(2) {
        0 => text,
        more => format!("{}\nand {more} more", lines[..2].join("\n")),
    }
}

/// Puts lines in the order of targets, and of networks within each.
fn sort(lines: &mut [Line]) {
    let target_at = |line: &Line| Target::presets().position(|name| name == line.target);
    let network_at = |line: &Line| {
        let name = line.network.split('@').next();
        ZooModel::names().iter().position(|&other| Some(other) == name)
    };
    lines.sort_by_key(|line| (target_at(line), network_at(line)));
}

/// Those of some names that were asked for, in their own order; all if none was.
fn wanted<'a>(asked: &[String], known: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let unknown: Vec<&str> = asked.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if !unknown.is_empty() {
        return Err(format!("there is no {}; there are {}", unknown.join(", "), known.join(", ")));
    }
    let is_asked = |name: &&&str| asked.is_empty() || asked.iter().any(|other| other == **name);
    Ok(known.iter().filter(is_asked).copied().collect())
}

/// Plans a network on a preset.
fn line(subject: &Subject, name: &str, progress: &Progress<'_>) -> Result<Line, Failure> {
    progress.step(&format!("{} on {name}", subject.name));
    let target = Target::preset(name, &[])?;
    let outcome = match both(subject, &target) {
        Ok((latency, traffic)) => Outcome::Planned { latency, traffic },
        Err(failure) => Outcome::Refused(failure.to_string()),
    };
    Ok(Line { target: name.to_owned(), network: subject.name.clone(), outcome })
}

fn write(args: &Args, lines: &[Line]) -> Result<(), Failure> {
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(lines).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    if let Some(path) = &args.write {
        write_atomic(path, format!("{PREFACE}{}", section(lines)).as_bytes())?;
    }
    Ok(())
}

fn both(subject: &Subject, target: &Target) -> Result<(Plan, Plan), Failure> {
    let plan = |objective| -> Result<Plan, Failure> {
        let compiled = subject.compile(target, (Mode::Multi, objective), &Families::default())?;
        let estimated_cycles = compiled.plans.iter().map(|(plan, _)| plan.search_cycles).sum();
        let stats = compiled.stats;
        let simulated = stats.simulated.unwrap_or_default();
        Ok(Plan {
            phases: stats.plan.phases,
            predicted_cycles: stats.plan.cycles,
            simulated_cycles: simulated.cycles,
            estimated_cycles,
            frames_per_second: simulated.frames_per_second,
            dram_bytes: stats.plan.dram_bytes.total,
            bound: Gap::of(&stats.plan),
        })
    };
    Ok((plan(Objective::Latency)?, plan(Objective::Traffic)?))
}

const PREFACE: &str = "# The zoo on every target\n\n\
    Made by `strata bench targets --write docs/targets.md`; do not edit.\n\n";

/// The page below its title.
fn section(lines: &[Line]) -> String {
    let of_plan = [
        "network",
        "target",
        "phases",
        "predicted cycles",
        "simulated cycles",
        "off by",
        "search off by",
        "frames/s",
    ];
    let mut table = Table::new(&[&of_plan[..], &COLUMNS].concat());
    let mut refused = String::new();
    for line in lines {
        let (network, target) = (line.network.clone(), line.target.clone());
        match &line.outcome {
            Outcome::Planned { latency, traffic } => {
                let of_plan = [
                    network,
                    target,
                    latency.phases.to_string(),
                    count(latency.predicted_cycles),
                    count(latency.simulated_cycles),
                    change(latency.simulated_cycles as f64, latency.predicted_cycles as f64),
                    change(latency.simulated_cycles as f64, latency.estimated_cycles as f64),
                    format!("{:.2}", latency.frames_per_second),
                ];
                let of_bounds = cells(&latency.bound, traffic.dram_bytes, &traffic.bound);
                table.row(&[&of_plan[..], &of_bounds].concat());
            }
            Outcome::Refused(why) => {
                let none = std::iter::repeat_n("-".to_owned(), 11);
                table.row(&[network.clone(), target.clone()].into_iter().chain(none).collect::<Vec<_>>());
                let why: Vec<&str> = why.lines().map(str::trim).collect();
                refused += &format!("\n{network} on `{target}`: {}.\n", why.join(" "));
            }
        }
    }
    format!(
        "Phases, cycles and the first gap are of plans for least latency, traffic and the second gap of \
            plans for least traffic.\n\
         Predicted are the cycles that a plan states; the search goes by an estimate in closed form, whose \
         error stands beside.\n\
         `proven` says that no choice among the groups offered is better.\n\n{}{refused}",
        table.markdown()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(cycles: u64) -> Plan {
        Plan {
            phases: 3,
            predicted_cycles: cycles,
            simulated_cycles: 1000,
            estimated_cycles: 1100,
            frames_per_second: 12.5,
            dram_bytes: 2_000_000,
            bound: Gap { gap: 0.25, ..Gap::default() },
        }
    }

    #[test]
    fn a_network_without_a_plan_is_a_row_that_says_why() {
        let line = |outcome| Line { target: "micro".to_owned(), network: "net@8x8".to_owned(), outcome };
        let lines = [
            line(Outcome::Planned { latency: plan(1010), traffic: plan(900) }),
            line(Outcome::Refused("no plan:\n  too wide".to_owned())),
        ];
        let text = section(&lines);
        let wanted = "| net@8x8 | micro | 3 | 1,010 | 1,000 | +1.0 % | +10.0 % | 12.50 | 25.0 % | \
            no bound is known | 2.0 | 25.0 % | no bound is known |\n\
                      | net@8x8 | micro | - | - | - | - | - | - | - | - | - | - | - |\n\n\
                      net@8x8 on `micro`: no plan: too wide.\n";
        assert!(text.ends_with(wanted), "{text}");
    }

    #[test]
    fn lines_are_taken_over_and_put_in_order() {
        let line = |target: &str, network: &str| {
            let outcome = Outcome::Planned { latency: plan(1), traffic: plan(2) };
            Line { target: target.to_owned(), network: network.to_owned(), outcome }
        };
        let sorted = [line("x1", "yolov3@1x1"), line("x1", "unet@1x1"), line("micro", "yolov3@1x1")];
        let text = serde_json::to_string(&[&sorted[2], &sorted[1], &sorted[0]]).expect("JSON");
        let mut lines: Vec<Line> = serde_json::from_str(&text).expect("what was written is read");
        sort(&mut lines);
        assert_eq!(lines, sorted);
    }

    #[test]
    fn names_that_do_not_exist_are_told() {
        let known = ["a", "b"];
        assert_eq!(wanted(&[], &known), Ok(vec!["a", "b"]));
        assert_eq!(wanted(&["b".to_owned()], &known), Ok(vec!["b"]));
        assert_eq!(wanted(&["c".to_owned()], &known), Err("there is no c; there are a, b".to_owned()));
    }
}
