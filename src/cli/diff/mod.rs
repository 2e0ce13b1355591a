//! `strata diff`: what differs between two compiles, and what it costs.

mod load;
mod show;

use std::path::PathBuf;

use serde::Serialize;

use self::load::Subject;
use super::console::Console;
use super::failure::Failure;
use crate::diff::ops::OpChanges;
use crate::diff::plans::PlanChanges;
use crate::diff::text::changes;

/// Show what differs between two bundles, plans or dumps, and what it costs
///
/// Takes bundles, statistics of `--stats` and dumps of the IR, also one of each where both tell of a plan.
/// Phases are matched by the stages that they share, so a phase that is only numbered otherwise is no change.
/// Of two dumps it lists ops that were added, removed, changed or moved too.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first: a .strata, .json or .mlir file
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second
    #[arg(value_name = "B")]
    b: PathBuf,
    /// How it is printed; JSON has everything, with stable keys
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Show what differs between the texts of two dumps, line by line, instead
    #[arg(long, conflicts_with = "format")]
    text: bool,
    /// Print every line of long lists
    #[arg(long)]
    all: bool,
    /// End with exit code 4 if the two differ
    #[arg(long)]
    exit_code: bool,
}

/// How a difference is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Everything, one object
    Json,
}

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// What differs between two files.
#[derive(Serialize)]
struct Difference {
    schema: u32,
    a: String,
    b: String,
    /// Whether nothing differs.
    equal: bool,
    /// The plans, if both tell of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanChanges>,
    /// The ops, of two dumps.
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<OpChanges>,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let [a, b] = [&args.a, &args.b].map(|path| Subject::load(path, console));
    let (a, b) = (a?, b?);
    let is_equal = if args.text {
        let shown = changes(&a.text()?, &b.text()?, console.colours_results());
        console.print(&shown)?;
        shown.is_empty()
    } else {
        let difference = differ(&a, &b)?;
        let text = match args.format {
            Format::Json => serde_json::to_string_pretty(&difference).map_err(Failure::failed)? + "\n",
            Format::Table => show::text(&difference, args.all, console),
        };
        console.print(&text)?;
        difference.equal
    };
    if args.exit_code && !is_equal { Err(Failure::Differs) } else { Ok(()) }
}

fn differ(a: &Subject, b: &Subject) -> Result<Difference, Failure> {
    let plan = a.plan.as_ref().zip(b.plan.as_ref()).map(|(a, b)| PlanChanges::of(a, b));
    let modules = a.modules.as_ref().zip(b.modules.as_ref());
    let ops = modules.map(|(a, b)| OpChanges::of(a, b));
    if plan.is_none() && ops.is_none() {
        let without = if a.plan.is_none() { a } else { b };
        let what = "there is no plan in it, so it can only be held against another dump: expected a bundle, \
                    statistics, or a dump from the level `phases` on";
        return Err(Failure::Failed(format!("{}: {what}", without.name)));
    }
    let equal =
        plan.as_ref().is_none_or(PlanChanges::is_empty) && ops.as_ref().is_none_or(OpChanges::is_empty);
    Ok(Difference { schema: SCHEMA, a: a.name.clone(), b: b.name.clone(), equal, plan, ops })
}
