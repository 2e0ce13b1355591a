//! `strata opt`: passes on modules of the IR.
//!
//! | module | what it does |
//! |---|---|
//! | `watch` | what is shown and written between passes, and counted over them |
//! | `bisect` | how many passes run under `--bisect-limit` |
//! | `list` | the passes that there are |
//! | `expected` | `--verify-diagnostics` |

mod bisect;
mod expected;
mod list;
mod watch;

use std::path::{Path, PathBuf};

use strata_ir::diag::Diagnostics;
use strata_ir::pass::{
    self, DriverOptions, PIPELINE_LINE, PassContext, Pipeline, PipelineFailure, Reproducer,
};
use strata_ir::text::Resources;
use strata_ir::{Module, verify};
use strata_isa_spec::Target;

use self::bisect::Bisect;
use self::watch::{Watch, WatchArgs};
use super::args::{Given, TargetArgs};
use super::console::Console;
use super::dumps::{self, PrintArgs};
use super::failure::Failure;
use super::model::{self, Content};
use crate::compile::checkpoint::{self, Record};
use crate::registry;

/// Random inputs of `--verify-each=run`.
const N_INPUTS: usize = 4;

/// Run passes on a module of the IR
///
/// Without a file, lists the passes. Modules are verified before the first pass and after every one. A
/// reproducer, whose first line is `// passes: …`, brings its own pipeline. A file may hold several modules
/// with a line `// -----` between every two.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module; `-` is standard input
    #[arg(value_name = "FILE.mlir")]
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
    #[command(flatten)]
    target: TargetArgs,
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
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let path = match &args.file {
        Some(path) if !args.list_passes => path,
        _ => return console.print(&list::passes(&registry())),
    };
    let Content::Ir(source) = model::content(path)? else {
        return Err(Failure::file(path, "not a .mlir file"));
    };
    let own = source.lines().next().and_then(|line| line.strip_prefix(PIPELINE_LINE));
    let pipeline = registry().parse(args.passes.as_deref().or(own).unwrap_or_default())?;
    let input = Input::new(path, &source)?;
    let mut run = Run::new(args, &input, &pipeline, console)?;
    if args.verify_diagnostics {
        let found = expected::verify_diagnostics(&mut run);
        run.watch.finish()?;
        return found;
    }
    let modules = run.modules();
    run.watch.finish()?;
    let modules = modules?;
    if let Some(told) = run.bisect.told() {
        console.note(&told);
    }
    if !modules.is_empty() {
        dumps::write(args.output.as_deref(), &modules, args.print, console)?;
    }
    match input.texts.len() - modules.len() {
        0 => Ok(()),
        n => Err(Failure::file(path, format!("{n} of {} modules failed", input.texts.len()))),
    }
}

/// The file that is read.
struct Input<'a> {
    path: &'a Path,
    /// The text of each module; the lines of those before it are empty.
    texts: Vec<String>,
    resources: Resources,
}

impl<'a> Input<'a> {
    fn new(path: &'a Path, source: &str) -> Result<Self, Failure> {
        let texts = model::texts_of_modules(source);
        Ok(Self { path, texts, resources: dumps::side_resources(path)? })
    }

    /// A failure of a module, which is named where there are several.
    fn failure(&self, index: usize, what: impl std::fmt::Display) -> Failure {
        if self.texts.len() == 1 {
            return Failure::file(self.path, what);
        }
        let text = &self.texts[index];
        let line = text.lines().position(|line| !line.trim().is_empty()).unwrap_or_default() + 1;
        Failure::file(self.path, format!("module {}, from line {line}: {what}", index + 1))
    }

    /// What is added to the name of a pass that runs on a module: nothing where there is but one.
    fn label(&self, index: usize) -> String {
        if self.texts.len() == 1 { String::new() } else { format!(" on module {}", index + 1) }
    }
}

/// Why the passes of a pipeline did not all run on a module.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    /// The module does not verify.
    #[error("the module does not verify:\n{0}")]
    Invalid(#[from] Diagnostics),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PipelineFailure),
}

impl Stopped {
    fn reproducer(&self) -> Option<&Reproducer> {
        match self {
            Self::Invalid(_) => None,
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
    /// Known once the first module is read, which may record it.
    target: Option<Target>,
}

impl<'a> Run<'a> {
    fn new(
        args: &'a Args,
        input: &'a Input<'a>,
        pipeline: &'a Pipeline,
        console: &'a Console,
    ) -> Result<Self, Failure> {
        let n_passes = pipeline.passes().len();
        let watch = Watch::new(&args.watch, n_passes, args.print, console)?;
        let bisect = Bisect::new(args.bisect_limit);
        Ok(Self { args, input, pipeline, console, watch, bisect, target: None })
    }

    /// Every module as the passes leave it. Those that fail are left out where each is by itself.
    fn modules(&mut self) -> Result<Vec<Module>, Failure> {
        let mut modules = Vec::new();
        for index in 0..self.input.texts.len() {
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
        let module = model::parse(input.path, &input.texts[index], &input.resources, self.console);
        let mut module = module.map_err(|error| input.failure(index, error))?;
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

    /// The target that is asked for, or that the first module records.
    fn find_target(&mut self, module: &Module) -> Result<(), Failure> {
        if self.target.is_none() {
            let recorded = Record::of(module);
            let recorded = recorded.map_err(|error| Failure::from(error).about(self.input.path))?;
            let recorded = recorded.map(|record| record.options.target);
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
        self.watch.begin_module(index, label);
        pass::run(module, &pipeline, &mut context, &options, &mut |told| self.watch.see(&told))?;
        Ok(())
    }

    fn reproduce(&self, path: &Path, reproducer: &Reproducer) -> Result<(), Failure> {
        let modules = std::slice::from_ref(&reproducer.module);
        dumps::write_file(path, &reproducer.header(), modules, self.args.print)?;
        self.watch.note(&format!("wrote {}", path.display()));
        Ok(())
    }
}
