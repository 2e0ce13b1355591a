//! What each family of rewrites buys: plans with one of them switched the other way, with one tier off, and
//! with none.
//!
//! The families are those of the compiler's table, so that a new one is measured without a change here.

use serde::Serialize;
use strata_isa_spec::Target;
use strata_passes::rewrite::Families;
use strata_passes::rewrite::families::{FAMILIES, Tier};

use super::case::{Case, subject};
use super::page::{Table, change};
use super::subject::Subject;
use crate::cli::console::Progress;
use crate::cli::failure::Failure;
use crate::cli::tables::count;
use crate::{Mode, Objective};

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

/// The default; each family switched the other way; a tier off; none.
fn settings() -> Result<Vec<Setting>, Failure> {
    let switchable = || FAMILIES.iter().filter(|family| family.tier != Tier::Stage);
    let without = |tier: Tier| -> String {
        let names =
            switchable().filter(|family| family.tier == tier).map(|family| format!(",-{}", family.name));
        names.fold("default".to_owned(), |list, name| list + &name)
    };
    let mut lists = vec![("default".to_owned(), "default".to_owned())];
    for family in switchable() {
        let (word, sign) = if family.default { ("without", "-") } else { ("with", "") };
        lists.push((format!("{word} {}", family.name), format!("default,{sign}{}", family.name)));
    }
    lists.push(("no semantic".to_owned(), without(Tier::Semantic)));
    lists.push(("no group".to_owned(), without(Tier::Group)));
    lists.push(("none".to_owned(), "none".to_owned()));
    let setting = |(name, list): (String, String)| {
        let families = Families::parse(&list, ',').map_err(Failure::failed)?;
        Ok(Setting { name, families })
    };
    lists.into_iter().map(setting).collect()
}

/// Plans every case under every setting.
///
/// # Errors
/// If a network cannot be made or planned.
pub(super) fn lines(cases: &[Case], progress: &Progress<'_>) -> Result<Vec<Line>, Failure> {
    let settings = settings()?;
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
    let plan = |objective| subject.compile(target, (Mode::Multi, objective), &setting.families);
    let (latency, traffic) = (plan(Objective::Latency)?.stats, plan(Objective::Traffic)?.stats);
    Ok(Outcome {
        setting: setting.name.clone(),
        cycles: latency.plan.cycles,
        simulated_cycles: latency.simulated.map_or(0, |simulated| simulated.cycles),
        bytes: traffic.plan.dram_bytes.total,
    })
}

/// The section of the page: a row a setting, a column a network.
pub(super) fn section(lines: &[Line]) -> String {
    let names = lines.iter().map(|line| line.network.clone());
    let header: Vec<String> = std::iter::once("rewrites".to_owned()).chain(names).collect();
    let table = |value: &dyn Fn(&Outcome) -> u64| {
        let mut table = Table::new(&header);
        for at in 0..lines.iter().map(|line| line.settings.len()).min().unwrap_or(0) {
            let mut cells = vec![lines[0].settings[at].setting.clone()];
            for line in lines {
                let (base, this) = (value(&line.settings[0]), value(&line.settings[at]));
                cells.push(if at == 0 { count(this) } else { change(base as f64, this as f64) });
            }
            table.row(&cells);
        }
        table.markdown()
    };
    format!(
        "On `x1`; what a setting costs or saves beside the default.\n\
         The families are those of [rewrites](generated/rewrites.md).\n\
         `no group` gives the same chooser single stages.\n\n\
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
    fn every_family_is_switched_alone() {
        let settings = settings().expect("every list parses");
        let default = Families::default();
        assert_eq!(settings[0].families, default);
        let switchable: Vec<_> = FAMILIES.iter().filter(|family| family.tier != Tier::Stage).collect();
        for (family, setting) in switchable.iter().zip(&settings[1..]) {
            for other in FAMILIES {
                let differs = setting.families.has(other.name) != default.has(other.name);
                assert_eq!(differs, other.name == family.name, "{}: {}", setting.name, other.name);
            }
        }
        let named =
            |name: &str| &settings.iter().find(|setting| setting.name == name).expect("there").families;
        assert!(!named("no group").has("group-producer-consumer") && named("no group").has("upsample"));
        assert!(!named("no semantic").has("upsample") && named("no semantic").has("group-producer-consumer"));
        assert_eq!(*named("none"), Families::none());
    }
}
