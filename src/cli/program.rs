//! `strata disasm` and `strata verify`: programs.

use std::path::{Path, PathBuf};

use strata_ir::pass::Level;
use strata_isa_spec::asm::disassemble;
use strata_isa_spec::bundle::{Bundle, Code, Machine, Part};
use strata_isa_spec::verify::verify as verify_program;

use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use crate::compile::checkpoint;
use crate::io::write_atomic;
use crate::session::demand_whole;

/// Print a bundle's program as text
#[derive(Debug, clap::Args)]
pub(super) struct DisasmArgs {
    /// The bundle
    #[arg(value_name = "FILE.strata")]
    bundle: PathBuf,
    /// Where the text goes [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `strata disasm`.
pub(super) fn disasm(args: &DisasmArgs, console: &Console) -> Result<(), Failure> {
    let text = program_text(&model::bundle_without_weights(&args.bundle)?);
    match &args.output {
        Some(path) => Ok(write_atomic(path, text.as_bytes())?),
        None => console.print(&text),
    }
}

/// The text of a bundle's programs; where there are several, each under the number of its part.
pub(super) fn program_text(bundle: &Bundle) -> String {
    let several = bundle.machines().count() > 1;
    let text = |(index, part): (usize, &Part)| match &part.code {
        Code::Machine(Machine { program, names, .. }) => {
            let title = if several { format!("; part {index}\n") } else { String::new() };
            Some(title + &disassemble(program, names))
        }
        Code::Ir(_) | Code::Onnx(_) => None,
    };
    bundle.parts.iter().enumerate().filter_map(text).collect()
}

/// Check a bundle or a module of the IR, and list all that is wrong
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// A .strata or .mlir file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `strata verify`.
pub(super) fn verify(args: &VerifyArgs, console: &Console) -> Result<(), Failure> {
    let path = &args.file;
    let bundle = match model::content(path)? {
        Content::Bundle(bytes) => Bundle::from_bytes(&bytes).map_err(|e| Failure::file(path, e))?,
        Content::Ir(source) => return verify_module(path, &source, console),
        Content::Tosa(_) | Content::Onnx(_) => {
            return Err(Failure::file(path, "neither a bundle nor a .mlir file"));
        }
    };
    let target = &bundle.manifest.target;
    let mut problems: Vec<String> = target.problems();
    let (mut phases, mut stages) = (0, 0);
    for Machine { program, .. } in bundle.machines() {
        problems.extend(verify_program(program, target).iter().map(ToString::to_string));
        phases += program.phases.len();
        stages += program.phases.iter().map(|phase| phase.stages.len()).sum::<usize>();
    }
    if let Err(error) = demand_whole(&bundle) {
        problems.push(error.to_string());
    }
    if problems.is_empty() {
        console.summary(&format!("{}: valid, {phases} phases of {stages} stages\n", path.display()))
    } else {
        let list: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Err(Failure::file(path, format!("the program is not valid:{list}")))
    }
}

fn verify_module(path: &Path, source: &str, console: &Console) -> Result<(), Failure> {
    let modules = model::modules(path, source, console)?;
    for module in &modules {
        if let Err(errors) = strata_ir::verify(module) {
            let list: String = errors.0.iter().map(|error| format!("\n  {error}")).collect();
            return Err(Failure::file(path, format!("the module is not valid:{list}")));
        }
    }
    let of_machine = modules.iter().find(|module| !checkpoint::is_of_host(module));
    let level = of_machine.map_or(String::new(), |module| format!(", level {}", Level::of(module)));
    console.summary(&format!("{}: valid{level}\n", path.display()))
}
