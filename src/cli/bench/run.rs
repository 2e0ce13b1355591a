//! `strata bench run`: how long preparing a bundle and an inference of it take on this CPU.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use strata_isa_spec::bundle::{Bundle, Port};

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::{model, tables};
use crate::io::array::Array;
use crate::io::write_atomic;
use crate::ports::dtype_of;
use crate::session::{RunError, Session, simd};

/// Measure the interpreter: what preparing a bundle takes, and an inference of it
///
/// Inputs are noise of a fixed seed; how long an inference takes does not depend on them. The first inference
/// is not counted. `STRATA_SIMD` names the vector instructions to use, `RAYON_NUM_THREADS` the number of
/// threads, of which there are four for each processor at most.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bundles
    #[arg(required = true, value_name = "FILE")]
    bundles: Vec<PathBuf>,
    /// Inferences that are counted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured of a bundle; times in seconds.
#[derive(Clone, Debug, Serialize)]
struct Line {
    bundle: String,
    simd: String,
    threads: usize,
    /// Multiply-accumulates of its programs.
    macs: u64,
    prepare: f64,
    /// Each inference, in order.
    inferences: Vec<f64>,
    median: f64,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for path in &args.bundles {
        let model::Content::Bundle(bytes) = model::content(path)? else {
            return Err(Failure::file(path, "not a bundle"));
        };
        let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::file(path, error))?;
        drop(bytes);
        let line = measure(model::file_name(path), bundle, args.times)
            .map_err(|error| Failure::file(path, error))?;
        lines.push(line);
    }
    console.print(&show(&lines))?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&lines).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    Ok(())
}

/// Prepares a bundle and runs it, once more than is counted.
fn measure(name: String, bundle: Bundle, times: u32) -> Result<Line, RunError> {
    let simd = simd()?;
    let macs = bundle.machines().flat_map(|machine| &machine.program.phases).flat_map(|phase| &phase.stages);
    let macs = macs.map(|stage| stage.code.macs_direct()).sum();
    let begin = Instant::now();
    let session = Session::with_simd(bundle, simd)?;
    let prepare = begin.elapsed().as_secs_f64();
    let inputs: Vec<(String, Array)> = session
        .inputs()
        .iter()
        .map(|port| Ok((port.name.clone(), sample(port)?)))
        .collect::<Result<_, RunError>>()?;
    let mut inferences = Vec::new();
    for _ in 0..=times {
        let begin = Instant::now();
        session.run(&inputs, &mut |_| {})?;
        inferences.push(begin.elapsed().as_secs_f64());
    }
    inferences.remove(0);
    let mut sorted = inferences.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    let threads = rayon::current_num_threads();
    let simd = simd.level().name().to_owned();
    Ok(Line { bundle: name, simd, threads, macs, prepare, inferences, median })
}

/// Values from 0 to 1 for an input of reals, zeros for one of integers.
fn sample(port: &Port) -> Result<Array, RunError> {
    let dtype = dtype_of(&port.dtype)?;
    let n: usize = port.shape.iter().product();
    let value =
        |index: usize| if dtype.is_float() { dtype.round(index as f64 * 0.618_034 % 1.0) } else { 0.0 };
    Ok(Array { shape: port.shape.clone(), dtype, values: (0..n).map(value).collect() })
}

/// The figures as a table.
fn show(lines: &[Line]) -> String {
    let mut table = tables::table(&[
        "bundle",
        "vectors",
        "threads",
        "prepare ms",
        "median ms",
        "fastest",
        "slowest",
        "GMAC/s",
    ]);
    for line in lines {
        let milliseconds = |seconds: f64| format!("{:.1}", seconds * 1e3);
        let extreme =
            |of: fn(f64, f64) -> f64| line.inferences.iter().copied().reduce(of).unwrap_or(f64::NAN);
        let cells = [
            line.bundle.clone(),
            line.simd.clone(),
            line.threads.to_string(),
            milliseconds(line.prepare),
            milliseconds(line.median),
            milliseconds(extreme(f64::min)),
            milliseconds(extreme(f64::max)),
            format!("{:.1}", line.macs as f64 / line.median / 1e9),
        ];
        tables::row(&mut table, &cells);
    }
    tables::show(&table)
}
