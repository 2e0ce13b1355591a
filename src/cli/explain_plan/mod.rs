//! `strata explain-plan`: why a plan is as it is.

mod load;
mod text;

use std::path::PathBuf;
use std::sync::Mutex;

use strata_passes::fuse::explain::what_if::{TargetChange, changes};

use super::console::Console;
use super::failure::Failure;
use crate::explain_plan::source::PlannedNetwork;
use crate::explain_plan::{Explanation, SCHEMA, Trials, explain_part};

/// Say why a plan is as it is: why phases end where they do, and why tensors go through DRAM
///
/// Takes a dump of `strata compile --emit stages`, `phases` or `sched`, or a bundle with its model: a bundle
/// holds the program of a plan, but not the stages that it was made of. For each border between two phases it
/// tries both as one phase, with as much of what there is too little of as they need; for each tensor that
/// goes through DRAM it tries to keep it. Last, it plans for a few changed machines, and tells which change
/// helps most for its size.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A dump at level stages, phases or sched (.mlir), or a bundle (.strata) with --model
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The model of a bundle: it is compiled for the bundle's machine and objective, and what it gives has to
    /// be the bundle's plan
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// How it is printed; JSON has everything, with stable keys
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Do not plan for changed machines, which takes as long as a dozen plans
    #[arg(long)]
    no_what_if: bool,
}

/// How an explanation is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Everything, one object
    Json,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let planned = load::planned(args, console)?;
    let shown = explained(args, &planned, console)?;
    let text = match args.format {
        Format::Table => text::text(&shown, !args.no_what_if, console),
        Format::Json => serde_json::to_string_pretty(&shown).map_err(Failure::failed)? + "\n",
    };
    console.print(&text)
}

fn explained(args: &Args, planned: &PlannedNetwork, console: &Console) -> Result<Explanation, Failure> {
    let n_changes = if args.no_what_if { 0 } else { changes(&planned.target).len() };
    let n_plans = n_changes * planned.parts.len();
    let progress = console.progress((n_plans > 0).then_some(n_plans as u64));
    progress.step("explaining the plan");
    if n_plans > 0 {
        progress.note(&format!("planning for {n_plans} changed machines; --no-what-if leaves this out"));
    }
    let n_done = Mutex::new(0);
    let tried = |change: &TargetChange| {
        let mut n_done = n_done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *n_done += 1;
        progress.step(&format!("{}={}", change.field, change.to));
        progress.done(*n_done);
    };
    let trials = Trials { tried: &tried };
    let trials = (!args.no_what_if).then_some(&trials);
    let parts = planned.parts.iter().map(|part| explain_part(part, &planned.target, trials));
    let parts = parts.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::file(&args.file, error))?;
    let (network, target) = (planned.network.clone(), planned.target.name.clone());
    Ok(Explanation { schema: SCHEMA, network, target, parts })
}
