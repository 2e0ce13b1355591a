//! `strata export`: models, plans and programs in forms that other tools read.

use std::path::{Path, PathBuf};

use strata_isa_spec::bundle::Bundle;

use super::console::Console;
use super::failure::Failure;
use super::model;
use crate::export::{self, FORMATS, Format, Kind, Source};
use crate::io::{is_standard_stream, shown, write_atomic};
use crate::session::demand_whole;

/// Write a bundle, a dump or a model in a form that other tools read
#[derive(Debug, clap::Args)]
#[command(after_help = formats())]
pub(super) struct Args {
    /// A bundle (.strata), a module of the IR (.mlir), a TOSA flatbuffer (.tosa) or an ONNX model
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The form
    #[arg(long, value_name = "FORMAT", value_parser = FORMATS.iter().map(|f| f.name).collect::<Vec<_>>())]
    to: String,
    /// Where it goes [default: standard output, if it is text]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn formats() -> String {
    let width = FORMATS.iter().map(|format| format.name.len()).max().unwrap_or(0);
    let line = |format: &Format| {
        let takes: Vec<String> = format.takes.iter().map(ToString::to_string).collect();
        format!("  {:width$}  {}; of {}", format.name, format.summary, takes.join(", "))
    };
    format!("Formats:\n{}", FORMATS.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let path = &args.file;
    let format = Format::named(&args.to).ok_or_else(|| Failure::Usage(format!("no format {}", args.to)))?;
    let output = args.output.as_deref().filter(|output| *output != Path::new("-"));
    if output.is_none() && !format.is_text {
        return Err(Failure::Usage(format!("`{}` is no text: say with -o where it goes", format.name)));
    }
    let source = source(path, console)?;
    let bytes = format.write(&source).map_err(|error| Failure::file(path, error))?;
    match (output, std::str::from_utf8(&bytes)) {
        (Some(output), _) => {
            write_atomic(output, &bytes)?;
            if is_standard_stream(output) {
                return Ok(());
            }
            console.summary(&format!("wrote {}, {} bytes\n", shown(output), bytes.len()))
        }
        (None, Ok(text)) => console.print(text),
        (None, Err(_)) => Err(Failure::Failed(format!("`{}` gave bytes that are no text", format.name))),
    }
}

/// What a file holds.
fn source(path: &Path, console: &Console) -> Result<Source, Failure> {
    let (kind, content) = match model::content(path)? {
        model::Content::Bundle(bytes) => {
            let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::file(path, error))?;
            demand_whole(&bundle).map_err(|error| Failure::file(path, error))?;
            demand_valid(&bundle, path)?;
            (Kind::Bundle, export::Content::Bundle(Box::new(bundle)))
        }
        model::Content::Ir(text) => {
            (Kind::Ir, export::Content::Modules(model::modules(path, &text, console)?))
        }
        model::Content::Tosa(bytes) => {
            (Kind::Tosa, export::Content::Modules(vec![model::flatbuffer(path, &bytes)?]))
        }
        model::Content::Onnx(bytes) => {
            (Kind::Onnx, export::Content::Modules(vec![model::imported(&bytes, path, &[])?]))
        }
    };
    Ok(Source { name: model::file_name(path), kind, content })
}

/// That the machine would run the programs: only then do their figures mean anything.
fn demand_valid(bundle: &Bundle, path: &Path) -> Result<(), Failure> {
    for machine in bundle.machines() {
        let problems = strata_isa_spec::verify::verify(&machine.program, &bundle.manifest.target);
        if let Some(first) = problems.first() {
            let what = format!("the program is not valid: {first}; `strata verify` lists all that is wrong");
            return Err(Failure::file(path, what));
        }
    }
    Ok(())
}
