//! `strata opt`: passes on modules of the IR.
//!
//! | module | what it does |
//! |---|---|
//! | `input` | the modules that are read |
//! | `calibration` | what passes calibrate a network on |
//! | `watch` | what is shown and written between passes, and counted over them |
//! | `bisect` | how many passes run under `--bisect-limit` |
//! | `list` | the passes that there are |
//! | `expected` | `--verify-diagnostics` |

mod bisect;
mod calibration;
mod expected;
mod input;
mod list;
mod watch;

use std::path::{Path, PathBuf};

use strata_ir::diag::Diagnostics;
use strata_ir::pass::{self, DriverOptions, PassContext, Pipeline, PipelineFailure, Registry, Reproducer};
use strata_ir::text::file;
use strata_ir::{Module, verify};
use strata_isa_spec::Target;

use self::bisect::Bisect;
use self::calibration::{CalibrationArgs, Calibrator};
use self::input::Input;
use self::watch::{Watch, WatchArgs};
use super::args::{Given, TargetArgs, Written, demand_outputs, parse_shape};
use super::console::Console;
use super::dumps::{self, PrintArgs};
use super::failure::Failure;
use crate::compile::checkpoint::{self, Record};
use crate::target_line;

/// Random inputs of `--verify-each=run`.
const N_INPUTS: usize = 4;

/// Run passes on a module of the IR
///
/// Without a file, lists the passes. Modules are verified before the first pass and after every one. A file
/// test or a reproducer, which begins with `// RUN: …`, brings its own pipeline, and perhaps its own
/// `TARGET`. A file may hold several modules with a line `// -----` between every two. Of a model, an ONNX
/// file or a TOSA flatbuffer, passes run on the import:
/// `canonicalise,quantise,canonicalise,form-stages,fuse-layers,schedule` brings it to the schedule.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module, or an ONNX file; `-` is standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The passes, such as "canonicalise,quantise{range=mse}" [default: those that the file names]
    #[arg(long, value_name = "PIPELINE")]
    passes: Option<String>,
    /// Where the result goes [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    print: PrintArgs,
    /// List the passes with their options
    #[arg(long)]
    list_passes: bool,
    /// What is checked of the module after each pass: that it verifies, or also that it computes the same as
    /// before on random inputs
    #[arg(long, value_enum, default_value = "ir", value_name = "WHAT")]
    verify_each: Check,
    /// With --verify-each=run, which it implies: on so many random inputs [default: 4]
    #[arg(long, value_name = "N")]
    evaluate: Option<usize>,
    /// Where the module before a failing pass goes, with what is left of the pipeline
    #[arg(long, value_name = "FILE")]
    reproducer: Option<PathBuf>,
    /// Run only the first so many passes, over all modules, and say which is the first that does not run
    #[arg(long, value_name = "N")]
    bisect_limit: Option<usize>,
    /// Treat each module by itself: what is wrong with one does not stop the others
    #[arg(long)]
    split_input_file: bool,
    /// Check that what is wrong is what comments such as `// expected-error@+1 {{text}}` say, and nothing
    /// else; prints no module
    #[arg(long, conflicts_with_all = ["output", "reproducer", "bisect_limit"])]
    verify_diagnostics: bool,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Which of these were given.
    #[arg(skip)]
    pub(super) given: Given,
}

/// What is checked after each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// That the module verifies
    Ir,
    /// That it computes the same, too
    Run,
}

/// Runs the command.
pub(super) fn run(args: &Args, registry: &Registry, console: &Console) -> Result<(), Failure> {
    let path = match &args.file {
        Some(path) if !args.list_passes => path,
        _ => return console.print(&list::passes(registry)),
    };
    let input = Input::read(path, args)?;
    let pipeline = match &args.passes {
        Some(text) => registry.parse(text)?,
        None => input.pipeline(registry)?,
    };
    let watch = Watch::new(&args.watch, registry, &pipeline, args.print, console)?;
    let bisect = Bisect::new(args.bisect_limit);
    let calibrator = Calibrator::new(&args.calibration, &pipeline, args.bisect_limit.is_some())?;
    // A module may be written over the one that was read; a model may not.
    let output = args.output.as_deref().filter(|_| input.is_of_model());
    let output = Written { flag: "--output", path: output };
    let reproducer = Written { flag: "--reproducer", path: args.reproducer.as_deref() };
    demand_outputs(path, &[output, reproducer, calibrator.saved()])?;
    let mut run =
        Run { args, input: &input, pipeline: &pipeline, console, watch, bisect, calibrator, target: None };
    if args.verify_diagnostics {
        let found = expected::verify_diagnostics(&mut run);
        run.watch.finish()?;
        return found;
    }
    let modules = run.modules();
    run.watch.finish()?;
    let modules = modules?;
    if let Some(note) = run.calibrator.finish()? {
        console.note(note);
    }
    if let Some(told) = run.bisect.told() {
        console.note(&told);
    }
    if !modules.is_empty() {
        dumps::write(args.output.as_deref(), &modules, args.print, console)?;
    }
    match input.n_modules() - modules.len() {
        0 => Ok(()),
        n => Err(Failure::file(path, format!("{n} of {} modules failed", input.n_modules()))),
    }
}

/// Why the passes of a pipeline did not all run on a module.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    /// The module does not verify.
    #[error("the module does not verify:\n{0}")]
    Invalid(#[from] Diagnostics),
    /// What passes need could not be had.
    #[error(transparent)]
    Calibration(#[from] Failure),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PipelineFailure),
}

impl Stopped {
    fn reproducer(&self) -> Option<&Reproducer> {
        match self {
            Self::Invalid(_) | Self::Calibration(_) => None,
            Self::Pass(failure) => failure.reproducer.as_deref(),
        }
    }
}

/// The passes on their way through the modules of a file.
struct Run<'a> {
    args: &'a Args,
    input: &'a Input<'a>,
    pipeline: &'a Pipeline,
    console: &'a Console,
    watch: Watch<'a>,
    bisect: Bisect,
    calibrator: Calibrator<'a>,
    /// Known once the first module is read, which may record it.
    target: Option<Target>,
}

impl Run<'_> {
    /// Every module as the passes leave it. Those that fail are left out where each is by itself.
    fn modules(&mut self) -> Result<Vec<Module>, Failure> {
        let mut modules = Vec::new();
        for index in 0..self.input.n_modules() {
            match self.module(index) {
                Ok(module) => modules.push(module),
                Err(failure @ Failure::Failed(_)) if self.args.split_input_file => {
                    self.watch.error(&failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(modules)
    }

    fn module(&mut self, index: usize) -> Result<Module, Failure> {
        let input = self.input;
        let mut module = input.module(index, self.console)?;
        self.find_target(&module)?;
        // Of a model in several parts, those of the machine.
        if checkpoint::is_of_host(&module) {
            return Ok(module);
        }
        match self.passes(index, &mut module) {
            Ok(()) => Ok(module),
            Err(stopped) => {
                if let (Some(path), Some(reproducer)) = (&self.args.reproducer, stopped.reproducer()) {
                    self.reproduce(path, reproducer)?;
                }
                Err(input.failure(index, stopped))
            }
        }
    }

    /// The target that is asked for, or that the file names, or that the first module records.
    fn find_target(&mut self, module: &Module) -> Result<(), Failure> {
        if self.target.is_none() {
            let recorded = Record::of(module);
            let recorded = recorded.map_err(|error| Failure::from(error).about(self.input.path))?;
            let recorded = recorded.map(|record| record.options.target);
            // What the file says itself comes before what its module tells of a compile.
            let recorded = self.input.target()?.or(recorded);
            self.target = Some(self.args.target.target_or(&self.args.given, recorded.as_ref())?);
        }
        Ok(())
    }

    /// Verifies a module and runs the passes on it.
    fn passes(&mut self, index: usize, module: &mut Module) -> Result<(), Stopped> {
        let label = self.input.label(index);
        let pipeline = self.bisect.allow(self.pipeline, &label);
        if pipeline.passes().is_empty() {
            return Ok(verify(module)?);
        }
        let args = self.args;
        let options = DriverOptions {
            check_claims: true,
            evaluate: args.evaluate.unwrap_or(if args.verify_each == Check::Run { N_INPUTS } else { 0 }),
            reproducers: args.reproducer.is_some(),
        };
        let mut context = PassContext::new();
        if let Some(target) = &self.target {
            context.insert(target.clone());
        }
        self.calibrator.prepare(index, module, self.input.rows(), &mut context)?;
        self.watch.begin_module(index, label);
        pass::run(module, &pipeline, &mut context, &options, &mut |told| self.watch.see(&told))?;
        self.calibrator.keep(index, &mut context);
        Ok(())
    }

    fn reproduce(&self, path: &Path, reproducer: &Reproducer) -> Result<(), Failure> {
        let modules = std::slice::from_ref(&reproducer.module);
        // The machine that a dump records is not the one that the passes ran for, if that was given.
        let words = self.target.as_ref().and_then(target_line::words);
        let target = words.map_or_else(String::new, |words| format!("// {}: {words}\n", file::TARGET));
        dumps::write_file(path, &(reproducer.header() + &target), modules, self.args.print)?;
        self.watch.note(&format!("wrote {}", path.display()));
        Ok(())
    }
}
