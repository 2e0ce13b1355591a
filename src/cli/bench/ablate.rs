//! What each family of rewrites buys: plans with one of them switched the other way, and with none.
//!
//! The families are those of the compiler's table, so that a new one is measured without a change here.

use serde::Serialize;
use strata_isa_spec::Target;
use strata_passes::plan::Objective;
use strata_passes::rewrite::{FAMILIES, Families, FamilyInfo, Tier};

use super::page::{Table, change};
use super::planner::{Case, subject};
use super::subject::Subject;
use crate::cli::console::Progress;
use crate::cli::failure::Failure;
use crate::cli::tables::count;

/// One way to switch the families.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// What it is called in the table.
    name: String,
    /// The families that are on.
    families: Families,
}

/// A network under all settings.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    network: String,
    settings: Vec<Outcome>,
}

#[derive(Clone, Debug, Serialize)]
struct Outcome {
    setting: String,
    /// Predicted cycles of the plan for least latency, and what the timed interpreter finds.
    cycles: u64,
    simulated_cycles: u64,
    /// DRAM bytes of the plan for least traffic.
    bytes: u64,
}

/// The default, each family that can be switched the other way, runs of the file's order alone, and none.
fn settings() -> Vec<Setting> {
    let default = Families::default;
    let switchable = FAMILIES.iter().filter(|family| family.tier != Tier::Stage);
    let mut settings = vec![Setting { name: "default".to_owned(), families: default() }];
    settings.extend(switchable.clone().map(|family| Setting {
        name: format!("{} {}", if family.default { "without" } else { "with" }, family.name),
        families: default().with(family, !family.default),
    }));
    let only = |tier: Tier, of: &[&'static FamilyInfo]| {
        let kept = |family: &FamilyInfo| family.tier == tier && family.default;
        of.iter().fold(Families::none(), |families, family| families.with(family, kept(family)))
    };
    let all: Vec<&'static FamilyInfo> = switchable.collect();
    settings.push(Setting { name: "groups only".to_owned(), families: only(Tier::Group, &all) });
    settings.push(Setting { name: "semantic only".to_owned(), families: only(Tier::Semantic, &all) });
    settings.push(Setting { name: "none".to_owned(), families: Families::none() });
    settings
}

/// Plans every case under every setting.
///
/// # Errors
/// If a network cannot be made or planned.
pub(super) fn lines(cases: &[Case], progress: &Progress<'_>) -> Result<Vec<Line>, Failure> {
    let settings = settings();
    let target = Target::preset("x1", &[])?;
    let line = |case: &Case| {
        let subject = subject(case, progress)?;
        let outcomes = settings.iter().map(|setting| {
            progress.step(&format!("{}: {}", subject.name, setting.name));
            outcome(&subject, &target, setting)
        });
        Ok(Line { settings: outcomes.collect::<Result<_, Failure>>()?, network: subject.name.clone() })
    };
    cases.iter().map(line).collect()
}

fn outcome(subject: &Subject, target: &Target, setting: &Setting) -> Result<Outcome, Failure> {
    let plan = |objective: Objective| subject.plan(target, objective, &setting.families);
    let (latency, traffic) = (plan(Objective::Latency)?, plan(Objective::Traffic)?);
    Ok(Outcome {
        setting: setting.name.clone(),
        cycles: latency.plan.cycles,
        simulated_cycles: latency.simulated_cycles,
        bytes: traffic.plan.dram_bytes.total,
    })
}

/// The section of the page.
pub(super) fn section(lines: &[Line]) -> String {
    let Some(first) = lines.first() else { return String::new() };
    let names = first.settings.iter().map(|outcome| outcome.setting.clone());
    let header: Vec<String> = std::iter::once("network".to_owned()).chain(names).collect();
    let table = |value: &dyn Fn(&Outcome) -> u64| {
        let mut table = Table::new(&header);
        for line in lines {
            let mut cells = vec![line.network.clone()];
            let base = line.settings.first().map_or(0, value);
            for (at, outcome) in line.settings.iter().enumerate() {
                let value = value(outcome);
                cells.push(if at == 0 { count(value) } else { change(base as f64, value as f64) });
            }
            table.row(&cells);
        }
        table.markdown()
    };
    format!(
        "On `x1`; what a setting costs or saves beside the default.\n\
         `none` leaves the same chooser single stages; `groups only` leaves the ops as they were imported.\n\n\
         Simulated cycles of plans for least latency:\n\n{}\n\
         DRAM bytes of plans for least traffic:\n\n{}",
        table(&|outcome| outcome.simulated_cycles),
        table(&|outcome| outcome.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_switch_one_family_at_a_time() {
        let settings = settings();
        let default = Families::default();
        for family in FAMILIES.iter().filter(|family| family.tier != Tier::Stage) {
            let switched = settings.iter().find(|s| s.name.ends_with(&format!(" {}", family.name)));
            let switched = &switched.expect("each family has a setting").families;
            let differ = FAMILIES.iter().filter(|f| switched.has(f.name) != default.has(f.name));
            assert_eq!(differ.map(|f| f.name).collect::<Vec<_>>(), [family.name]);
        }
        let of = |name: &str| &settings.iter().find(|s| s.name == name).expect("it is there").families;
        assert_eq!(*of("none"), Families::none());
        assert!(of("groups only").has("group-merge") && !of("groups only").has("upsample"));
        assert!(of("semantic only").has("upsample") && !of("semantic only").has("group-merge"));
    }
}
