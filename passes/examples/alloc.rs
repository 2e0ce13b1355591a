//! Runs the allocator on one file: `alloc --capacity=N --input=F --output=G [--nodes=N]`.
//!
//! The input has the columns `id,lower,upper,size`; the output adds `offset`. Without a capacity the smallest peak is
//! looked for. Exit code 1 means that no plan was found; the reason is printed.

#![expect(clippy::print_stderr, reason = "a command-line program talks to its user")]

use std::error::Error;
use std::process::ExitCode;

use strata_passes::allocate::{self, Limits, Outcome, Problem, csv};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut capacity = None;
    let mut limits = Limits::default();
    let (mut input, mut output) = (None, None);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--capacity", value)) => capacity = Some(value.parse()?),
            Some(("--nodes", value)) => limits.nodes = value.parse()?,
            Some(("--input", value)) => input = Some(value.to_owned()),
            Some(("--output", value)) => output = Some(value.to_owned()),
            _ => return Err(format!("unknown argument `{argument}`").into()),
        }
    }
    let text = std::fs::read_to_string(input.ok_or("--input=FILE is missing")?)?;
    let sheet = csv::parse_csv(&text)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let problem = Problem { buffers: sheet.buffers.clone(), capacity: capacity.unwrap_or(u64::MAX) };
    let outcome = match capacity {
        Some(_) => allocate::allocate(&problem, &limits)?,
        None => allocate::minimise(&problem, &limits)?,
    };
    match outcome {
        Outcome::Placed(plan) => {
            eprintln!("peak {} bytes, at least {} are needed", plan.peak, plan.lower_bound);
            if let Some(output) = output {
                std::fs::write(output, csv::to_csv(&sheet, &plan.offsets))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Infeasible(shortfall) => {
            let names: Vec<&str> =
                shortfall.buffers.iter().map(|&id| sheet.names[id as usize].as_str()).collect();
            eprintln!(
                "does not fit: at {} buffers {} lack {} bytes ({:?})",
                shortfall.time,
                names.join(", "),
                shortfall.missing_bytes,
                shortfall.proof
            );
            Ok(ExitCode::FAILURE)
        }
        Outcome::Exhausted(plan) => {
            eprintln!("no plan found within the limits; the best so far needs {} bytes", plan.peak);
            Ok(ExitCode::FAILURE)
        }
    }
}
