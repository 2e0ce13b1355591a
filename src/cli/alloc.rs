//! `strata alloc`: the address allocator on a file of buffers.

use std::path::PathBuf;

use strata_backend::allocate;
use strata_backend::allocate::{AllocationProblem, Limits, Outcome, Proof, Shortfall, csv};

use super::console::Console;
use super::failure::Failure;
use super::tables::count;
use crate::io::{self, write_atomic};

/// Give buffers with live ranges their addresses
///
/// The input is a CSV file with the columns id, lower, upper and size, and optionally alignment and fixed;
/// the output adds the column offset. Exit code 1 means that there is no plan, or that none was found.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes there are [default: as few as possible]
    #[arg(long, value_name = "BYTES")]
    capacity: Option<u64>,
    /// The buffers
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the plan goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Nodes that the exact search may visit
    #[arg(long, default_value_t = Limits::default().nodes, value_name = "N")]
    nodes: u64,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let bytes = io::read(&args.input)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::file(&args.input, "not UTF-8 text"))?;
    let sheet = csv::parse_csv(&text).map_err(|errors| {
        let list: String = errors.iter().map(|error| format!("\n  {error}")).collect();
        Failure::file(&args.input, format!("not a list of buffers:{list}"))
    })?;
    let limits = Limits { nodes: args.nodes, ..Limits::default() };
    let problem = |capacity| AllocationProblem { buffers: sheet.buffers.clone(), capacity };
    let outcome = match args.capacity {
        Some(capacity) => allocate::allocate(&problem(capacity), &limits),
        None => allocate::minimise(&problem(u64::MAX), &limits),
    };
    match outcome.map_err(|e| Failure::file(&args.input, e))? {
        Outcome::Placed(plan) => {
            let text = csv::to_csv(&sheet, &plan.offsets);
            match &args.output {
                Some(path) => write_atomic(path, text.as_bytes())?,
                None => console.print(&text)?,
            }
            let bound = if plan.is_optimal() {
                "no plan has a lower one".to_owned()
            } else {
                format!("no plan has one below {}", count(plan.lower_bound))
            };
            console.note(&format!("peak {} bytes; {bound}", count(plan.peak)));
            Ok(())
        }
        Outcome::Infeasible(shortfall) => Err(Failure::Failed(does_not_fit(&shortfall, &sheet.names))),
        Outcome::Exhausted(plan) => Err(Failure::Failed(format!(
            "no plan found in {} search nodes; the best needs {} bytes",
            count(args.nodes),
            count(plan.peak)
        ))),
    }
}

fn does_not_fit(shortfall: &Shortfall, names: &[String]) -> String {
    let how = match shortfall.proof {
        Proof::Load => "more bytes are live at once than there are",
        Proof::FixedBeyondCapacity => "a fixed buffer ends beyond the capacity",
        Proof::FixedOverlap => "two fixed buffers share bytes while both are live",
        Proof::Search => "every plan was looked at",
    };
    let mut text = format!("the buffers do not fit: {how}");
    if shortfall.missing_bytes > 0 {
        let (time, missing) = (shortfall.time, count(shortfall.missing_bytes));
        text += &format!("; at least {missing} bytes are missing at time {time}");
    }
    let culprits: Vec<&str> =
        shortfall.buffers.iter().filter_map(|&id| names.get(id as usize)).map(String::as_str).collect();
    if !culprits.is_empty() {
        text += &format!("; these would not fit if there were no others: {}", culprits.join(", "));
    }
    if let Some(enough) = shortfall.sufficient_bytes {
        text += &format!("; {} bytes more would do", count(enough));
    }
    text
}
