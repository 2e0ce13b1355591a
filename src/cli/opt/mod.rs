//! `strata opt`: passes on a module of the IR.

use std::path::PathBuf;

use strata_ir::pass::{self, DriverOptions, PassContext, Progress};
use strata_ir::text;

use super::args::{Given, TargetArgs};
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use super::tables::{row, show, words};
use crate::compile::checkpoint::{self, Record};
use crate::io::write_atomic;
use crate::registry;

/// Run passes on a module of the IR
///
/// Without a file, lists the passes. Modules are verified before the first pass and after every one. A
/// reproducer, whose first line is `// passes: …`, brings its own pipeline.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module
    #[arg(value_name = "FILE.mlir")]
    file: Option<PathBuf>,
    /// The passes, such as "canonicalise,quantise{range=mse}" [default: those that the file names]
    #[arg(long, value_name = "PIPELINE")]
    passes: Option<String>,
    /// Where the result goes [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Evaluate the module before and after each pass on so many random inputs
    #[arg(long, default_value_t = 0, value_name = "N")]
    evaluate: usize,
    /// Where the module before a failing pass goes, with what is left of the pipeline
    #[arg(long, value_name = "FILE")]
    reproducer: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Which of these were given.
    #[arg(skip)]
    pub(super) given: Given,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let Some(path) = &args.file else {
        return console.print(&list());
    };
    let Content::Ir(source) = model::content(path)? else {
        return Err(Failure::file(path, "not a .mlir file"));
    };
    let own = source.lines().next().and_then(|line| line.strip_prefix("// passes: "));
    let pipeline = registry().parse(args.passes.as_deref().or(own).unwrap_or_default())?;
    let mut modules = model::modules(path, &source, console)?;
    let recorded = modules.first().map_or(Ok(None), Record::of);
    let recorded = recorded.map_err(|error| Failure::from(error).about(path))?;
    let recorded = recorded.map(|record| record.options.target);
    let target = args.target.target_or(&args.given, recorded.as_ref())?;
    let options =
        DriverOptions { check_claims: true, evaluate: args.evaluate, reproducers: args.reproducer.is_some() };
    let progress = console.progress(Some(pipeline.passes().len() as u64));
    let mut follow = |told: Progress<'_>| match told {
        Progress::Begins { pass, .. } => progress.step(pass.name),
        Progress::Ended { index, .. } => progress.done(index as u64 + 1),
    };
    // Of a model in several parts, those of the machine.
    for module in modules.iter_mut().filter(|module| !checkpoint::is_of_host(module)) {
        let mut context = PassContext::new();
        context.insert(target.clone());
        if let Err(error) = pass::run(module, &pipeline, &mut context, &options, &mut follow) {
            if let (Some(path), Some(text)) = (&args.reproducer, &error.reproducer) {
                write_atomic(path, text.as_bytes())?;
                console.note(&format!("wrote {}", path.display()));
            }
            return Err(Failure::file(path, error));
        }
    }
    drop(progress);
    let texts: Vec<String> = modules.iter().map(text::to_string).collect();
    let text = texts.join(&format!("{}\n", model::BETWEEN_MODULES));
    match &args.output {
        Some(path) => Ok(write_atomic(path, text.as_bytes())?),
        None => console.print(&text),
    }
}

fn list() -> String {
    let mut lines = words(&["pass", "takes", "gives", ""]);
    for info in registry().passes() {
        let takes = info.takes.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
        let gives = info.gives.map_or("the same", |level| level.name());
        row(&mut lines, &[info.name, &takes, gives, first_sentence(info.doc)]);
    }
    show(&lines)
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive(". ").next().unwrap_or_default().trim_end()
}
