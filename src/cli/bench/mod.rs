//! `strata bench`: what plans are worth and what planning costs, in tables that one command remakes.
//!
//! | module | what it does |
//! |---|---|
//! | [`subject`] | networks, quantised once and planned many times |
//! | [`reference`] | figures of an independent model |
//! | [`plans`] | `strata bench plans`: networks at many sizes of SRAM beside those figures |
//! | [`targets`] | `strata bench targets`: the zoo on every preset |
//! | [`planner`] | `strata bench planner`: time and memory of planning as graphs grow |
//! | [`run`] | `strata bench run`: what the interpreter takes |
//! | [`case`] | the graphs that it plans |
//! | [`synthetic`] | graphs of any size |
//! | [`plot`] | drawings of growth |
//! | [`ablate`] | what each family of rewrites buys |
//! | [`page`] | Markdown |
//!
//! Nothing here decides how a network is compiled: the passes run are those of every compile.

mod ablate;
mod case;
mod gaps;
mod page;
mod planner;
mod plans;
mod plot;
mod reference;
mod run;
mod subject;
mod synthetic;
mod targets;

use super::console::Console;
use super::failure::Failure;

/// Measure plans and the planner
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Plans(plans::Args),
    Targets(targets::Args),
    Planner(planner::Args),
    Run(run::Args),
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match &args.what {
        What::Plans(args) => plans::run(args, console),
        What::Targets(args) => targets::run(args, console),
        What::Planner(args) => planner::run(args, console),
        What::Run(args) => run::run(args, console),
    }
}
