//! `strata completions`: what shells need to complete our command line.

use clap_complete::{Shell, generate};

use super::console::Console;
use super::failure::Failure;

/// Print shell completions
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut super::command(), "strata", &mut script);
    console.print(&String::from_utf8_lossy(&script))
}
