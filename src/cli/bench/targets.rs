//! The zoo on every preset: how far plans are from their bounds, and predictions from the timed interpreter.

use serde::Serialize;
use strata_frontend::zoo::ZooModel;
use strata_isa_spec::Target;
use strata_passes::rewrite::Families;

use super::page::{Table, change, mb};
use super::subject::Subject;
use crate::cli::console::Progress;
use crate::cli::failure::Failure;
use crate::cli::tables::count;
use crate::{Mode, Objective};

/// A network on a target.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    target: String,
    network: String,
    /// The plans, or why there are none.
    outcome: Outcome,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Planned { latency: Plan, traffic: Plan },
    Refused(String),
}

#[derive(Clone, Debug, Serialize)]
struct Plan {
    phases: u64,
    predicted_cycles: u64,
    simulated_cycles: u64,
    dram_bytes: u64,
    gap: f64,
    proven_optimal: bool,
}

/// The networks of the zoo that are wanted.
pub(super) fn networks(is_wanted: &dyn Fn(&str, &str) -> bool) -> Vec<ZooModel> {
    let wanted = |model: &ZooModel| {
        let (width, height) = model.default_size();
        is_wanted(model.name(), &format!("{width}x{height}"))
    };
    ZooModel::ALL.into_iter().filter(wanted).collect()
}

/// Plans networks on all presets, for latency and for traffic; target by target.
///
/// # Errors
/// If a network cannot be made. One that does not fit a target is a line that says so.
pub(super) fn lines(networks: &[ZooModel], progress: &Progress<'_>) -> Result<Vec<Line>, Failure> {
    let names: Vec<&str> = Target::presets().collect();
    let mut lines = Vec::new();
    for model in networks {
        let subject = Subject::zoo(model.name(), model.default_size(), progress)?;
        for name in &names {
            progress.step(&format!("{} on {name}", subject.name));
            let target = Target::preset(name, &[])?;
            let outcome = match both(&subject, &target) {
                Ok((latency, traffic)) => Outcome::Planned { latency, traffic },
                Err(failure) => Outcome::Refused(failure.to_string()),
            };
            lines.push(Line { target: (*name).to_owned(), network: subject.name.clone(), outcome });
        }
    }
    lines.sort_by_key(|line| names.iter().position(|name| *name == line.target));
    Ok(lines)
}

fn both(subject: &Subject, target: &Target) -> Result<(Plan, Plan), Failure> {
    let plan = |objective| -> Result<Plan, Failure> {
        let stats = subject.compile(target, (Mode::Multi, objective), &Families::default())?.stats;
        Ok(Plan {
            phases: stats.plan.phases,
            predicted_cycles: stats.plan.cycles,
            simulated_cycles: stats.simulated.map_or(0, |simulated| simulated.cycles),
            dram_bytes: stats.plan.dram_bytes.total,
            gap: stats.plan.gap,
            proven_optimal: stats.plan.proven_optimal,
        })
    };
    Ok((plan(Objective::Latency)?, plan(Objective::Traffic)?))
}

/// The section of the page.
pub(super) fn section(lines: &[Line]) -> String {
    let mut table = Table::new(&[
        "network",
        "target",
        "phases",
        "predicted cycles",
        "simulated cycles",
        "off by",
        "gap, latency",
        "traffic, MB",
        "gap, traffic",
    ]);
    let mut refused = String::new();
    for line in lines {
        let (network, target) = (line.network.clone(), line.target.clone());
        let percent = |plan: &Plan| {
            let proven = if plan.proven_optimal { ", proven" } else { "" };
            format!("{:.1} %{proven}", plan.gap * 100.0)
        };
        match &line.outcome {
            Outcome::Planned { latency, traffic } => table.row(&[
                network,
                target,
                latency.phases.to_string(),
                count(latency.predicted_cycles),
                count(latency.simulated_cycles),
                change(latency.simulated_cycles as f64, latency.predicted_cycles as f64),
                percent(latency),
                mb(traffic.dram_bytes),
                percent(traffic),
            ]),
            Outcome::Refused(why) => {
                let none = std::iter::repeat_n("-".to_owned(), 7);
                table.row(&[network.clone(), target.clone()].into_iter().chain(none).collect::<Vec<_>>());
                let why: Vec<&str> = why.lines().map(str::trim).collect();
                refused += &format!("\n{network} on `{target}`: {}.\n", why.join(" "));
            }
        }
    }
    format!(
        "## The zoo on every target\n\n\
         Phases, cycles and the first gap are of plans for least latency, traffic and the second gap of plans for least traffic.\n\
         `proven` says that no choice among the groups offered is better.\n\n{}{refused}",
        table.markdown()
    )
}
