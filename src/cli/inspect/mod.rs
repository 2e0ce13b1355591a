//! `strata inspect`: what a file holds, layer by layer.

mod columns;
mod text;

use std::path::{Path, PathBuf};

use strata_isa_spec::bundle::Bundle;
use strata_isa_spec::verify::verify;

use super::args::parse_shape;
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use crate::compile::CompileError;
use crate::compile::checkpoint::Checkpoint;
use crate::inspect::{self, Counting, InspectError, Inspection, Kind};

/// Show what a bundle, an ONNX or TOSA model or a module of the IR holds, layer by layer
///
/// A row is a layer: an ONNX node, or a stage of the machine from the level `stages` on and in a bundle.
/// Bytes are those of the tensors as the file has them. `live` is what a machine holds that runs one layer at
/// a time in this order: inputs, outputs and whatever is read later.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A .strata, .onnx, .tosa or .mlir file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// How it is printed; JSON and CSV have plain numbers and stable keys
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Leave the layers out
    #[arg(long)]
    summary: bool,
    /// List the ops of every layer too, each with the ONNX node that it comes from
    #[arg(long)]
    ops: bool,
    /// Count a float as the one byte that it becomes in int8
    #[arg(long)]
    int8: bool,
}

/// How an inspection is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Everything, one object
    Json,
    /// The layers, a line each
    Csv,
    /// The layers, as a table of Markdown
    Markdown,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let mut shown = inspect(args, console)?;
    if args.summary {
        shown.parts.iter_mut().for_each(|part| part.layers.clear());
    }
    let text = match args.format {
        Format::Table => text::text(&shown, args.ops, console),
        Format::Json => serde_json::to_string_pretty(&shown).map_err(Failure::failed)? + "\n",
        Format::Csv => columns::csv(&shown),
        Format::Markdown => columns::markdown(&shown),
    };
    console.print(&text)
}

fn inspect(args: &Args, console: &Console) -> Result<Inspection, Failure> {
    let path = &args.file;
    let counting = Counting { floats_as_int8: args.int8 };
    let name = model::file_name(path);
    let about = |error: InspectError| match error {
        InspectError::Import(error) => Failure::from(CompileError::from(error)).about(path),
        other => Failure::file(path, other),
    };
    match model::content(path)? {
        Content::Bundle(bytes) => {
            let bundle = Bundle::without_weights(&bytes).map_err(|e| Failure::file(path, e))?;
            warn_of_rules(&bundle, console);
            inspect::of_bundle(&bundle).map_err(about)
        }
        Content::Ir(source) => {
            let modules = model::modules(path, &source, console)?;
            let checkpoint =
                Checkpoint::from_modules(modules).map_err(|error| Failure::from(error).about(path))?;
            inspect::of_checkpoint(&checkpoint, &name, counting).map_err(about)
        }
        Content::Tosa(bytes) => {
            let module = model::flatbuffer(path, &bytes)?;
            inspect::of_module(&module, Kind::Tosa, &name, counting).map_err(about)
        }
        Content::Onnx(bytes) => of_onnx(args, &bytes, path, counting).map_err(|error| match error {
            OnnxError::Failure(failure) => failure,
            OnnxError::Inspect(error) => about(error),
        }),
    }
}

/// Why an ONNX model cannot be shown.
enum OnnxError {
    Failure(Failure),
    Inspect(InspectError),
}

fn of_onnx(args: &Args, bytes: &[u8], path: &Path, counting: Counting) -> Result<Inspection, OnnxError> {
    let resolved = model::resolved(bytes, path, &args.input_shapes).map_err(OnnxError::Failure)?;
    let options = model::import_options(path, &args.input_shapes);
    inspect::of_model(&resolved, &options, &model::file_name(path), counting).map_err(OnnxError::Inspect)
}

/// Notes that programs break rules of the machine.
fn warn_of_rules(bundle: &Bundle, console: &Console) {
    let target = &bundle.manifest.target;
    let refused: usize = bundle.machines().map(|machine| verify(&machine.program, target).len()).sum();
    if refused > 0 {
        console.note(&format!("the program breaks {refused} rules; see `strata verify`"));
    }
}
