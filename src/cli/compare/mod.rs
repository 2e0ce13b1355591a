//! `strata compare`: how far two sets of tensors are from each other.

mod show;
mod subject;

use std::path::PathBuf;

use serde::Serialize;

use self::subject::{Inputs, Subject};
use super::args::{ImageArgs, parse_input, parse_shape};
use super::console::Console;
use super::failure::Failure;
use crate::compare::{Comparison, Limits, TensorComparison, compare};
use crate::io;

/// Tell how far tensors are from others, layer by layer: signal to noise, differences, the first of them
///
/// A and B are each a folder that `run --dump-stages` wrote, a folder of .npy files, a .npz, a .npy, a bundle
/// or an ONNX model. B is the reference, such as the golden vectors or the model in f32. Bundles and models
/// are run on the same input: the one given; else that of the other side's folder; else seeded noise. Layers
/// are matched by the ONNX nodes whose results they are, and listed in the order of the network. Integers of
/// one scale are compared as integers, all else as real numbers. Channels that a compile with --calibrate
/// equalises differ by a factor from those of the model: compile with --equalise off to compare such layers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is judged
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The reference
    #[arg(value_name = "B")]
    b: PathBuf,
    /// An input of the bundle or model, by name or position, as `run` takes it
    #[arg(long = "input", short, value_name = "NAME=FILE", value_parser = parse_input)]
    inputs: Vec<(String, PathBuf)>,
    /// The seed of the noise that stands in for inputs
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "inputs")]
    seed: u64,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// Signal to noise that a tensor has to have; if one has less, the exit code is 4
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    min_sqnr: Option<f64>,
    /// Difference that an element may have; if one has a larger one, the exit code is 4
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    max_difference: Option<f64>,
    /// How it is printed; JSON and CSV have plain numbers and stable keys
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Show the tensors that are equal too
    #[arg(long)]
    all: bool,
    /// End with exit code 4 if anything differs; by more than the limits, where some are set
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    images: ImageArgs,
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Everything, one object
    Json,
    /// The tensors, a line each
    Csv,
}

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// A comparison as it is printed.
#[derive(Serialize)]
struct Report {
    schema: u32,
    a: String,
    b: String,
    /// Whether every tensor is within the limits.
    within_limits: bool,
    /// The first tensor that is not.
    first: Option<String>,
    #[serde(flatten)]
    comparison: Comparison,
    #[serde(skip)]
    limits: Limits,
}

impl Report {
    /// The tensors that are not near enough.
    fn beyond(&self) -> impl Iterator<Item = &TensorComparison> {
        self.comparison.tensors.iter().filter(|tensor| !tensor.is_within(&self.limits))
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let limits = Limits { min_sqnr_db: args.min_sqnr, max_difference: args.max_difference };
    if let Some(found) = args.min_sqnr.filter(|db| db.is_nan()) {
        return Err(Failure::Usage(format!("--min-sqnr: found {found}, expected decibels")));
    }
    if let Some(found) = args.max_difference.filter(|most| most.is_nan() || *most < 0.0) {
        return Err(Failure::Usage(format!("--max-difference: found {found}, expected a number from 0 on")));
    }
    let [a, b] = [&args.a, &args.b].map(|path| Subject::load(path, &args.input_shapes));
    let (a, b) = (a?, b?);
    let given = Inputs { files: &args.inputs, images: args.images.options(), seed: args.seed };
    let inputs = subject::inputs([&a, &b], &given, console)?;
    let (a, b) = (a.run(&inputs, console)?, b.run(&inputs, console)?);
    let progress = console.progress(None);
    progress.step("comparing");
    let comparison = compare(&a.arrays, &b.arrays, &mut |_, _| {})?;
    drop(progress);
    if comparison.tensors.is_empty() {
        let what = "no tensor of A has a name that one of B has, so nothing was compared";
        return Err(Failure::Failed(format!("{} and {}: {what}", io::shown(&args.a), io::shown(&args.b))));
    }
    let mut report = Report {
        schema: SCHEMA,
        a: io::shown(&args.a),
        b: io::shown(&args.b),
        within_limits: true,
        first: None,
        comparison,
        limits,
    };
    let first = report.beyond().next().map(|tensor| tensor.name.clone());
    report.first = first;
    report.within_limits = report.first.is_none();
    let text = match args.format {
        Format::Table => show::text(&report, args.all, console),
        Format::Json => serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n",
        Format::Csv => show::csv(&report),
    };
    console.print(&text)?;
    let decides = args.exit_code || limits != Limits::default();
    if decides && !report.within_limits { Err(Failure::Differs) } else { Ok(()) }
}
