//! The plans of the file that is named.

use std::path::Path;

use strata_backend::model::{Mode, Objective};
use strata_ir::pass::Level;
use strata_isa_spec::bundle::Bundle;

use super::Args;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::model::{self, Content};
use crate::compile::checkpoint::Checkpoint;
use crate::compile::{CompileError, CompileOptions, Compiler, Event};
use crate::diff::plans::PlanChanges;
use crate::diff::view::{NamedProgram, PlanView};
use crate::explain_plan::source::PlannedNetwork;
use crate::io;
use crate::stats::Stats;

/// The plans of a dump, or of a bundle and its model.
pub(super) fn planned(args: &Args, console: &Console) -> Result<PlannedNetwork, Failure> {
    let path = &args.file;
    match model::content(path)? {
        Content::Bundle(bytes) => {
            let Some(model) = &args.model else {
                return Err(Failure::Usage(format!(
                    "{}: a bundle holds the program of a plan, but not the stages that it was made of: name \
                     its model with --model, or give a dump that `strata compile --emit phases -o FILE` \
                     writes",
                    io::shown(path)
                )));
            };
            let bundle = Bundle::without_weights(&bytes).map_err(|error| Failure::file(path, error))?;
            of_model(model, path, &bundle, console)
        }
        Content::Ir(source) => {
            if args.model.is_some() {
                return Err(Failure::Usage("--model is for bundles; a dump has its stages".to_owned()));
            }
            let modules = model::modules(path, &source, console)?;
            let about = |error: CompileError| Failure::from(error).about(path);
            of_checkpoint(path, &Checkpoint::from_modules(modules).map_err(about)?)
        }
        Content::Tosa(_) | Content::Onnx(_) => {
            let what = "a model, which has no plan; expected a dump, as `strata compile MODEL --emit phases \
                        -o FILE` writes, or a bundle with --model";
            Err(Failure::file(path, what))
        }
    }
}

fn of_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<PlannedNetwork, Failure> {
    PlannedNetwork::of_checkpoint(checkpoint).map_err(|error| Failure::file(path, error))
}

/// Compiles the model of a bundle as the bundle says; that the plan is the bundle's.
fn of_model(
    path: &Path,
    bundle_path: &Path,
    bundle: &Bundle,
    console: &Console,
) -> Result<PlannedNetwork, Failure> {
    let stats = bundle.stats.clone().and_then(|stats| serde_json::from_value::<Stats>(stats).ok());
    let plan = stats.map(|stats| stats.plan).unwrap_or_default();
    let asked = Objective::from_name(&plan.objective).zip(Mode::from_name(&plan.mode));
    let (objective, mode) =
        asked.ok_or_else(|| Failure::file(bundle_path, "the bundle does not say for what it was planned"))?;
    let shape = |shape: &[usize]| shape.to_vec();
    let input_shapes: Vec<(String, Vec<usize>)> =
        bundle.manifest.inputs.iter().map(|port| (port.name.clone(), shape(&port.shape))).collect();
    let options = CompileOptions {
        objective,
        mode,
        input_shapes: input_shapes.iter().cloned().collect(),
        measure_sqnr: false,
        ..CompileOptions::new(bundle.manifest.target.clone())
    };
    let (mut stages, mut phases) = (None, None);
    let progress = console.progress(None);
    let observer = &mut |event: Event<'_>| match event {
        Event::Step(step) => progress.step(step),
        Event::Reached(checkpoint) if checkpoint.level == Level::Stages => stages = Some(checkpoint.clone()),
        Event::Reached(checkpoint) if checkpoint.level == Level::Phases => phases = Some(checkpoint.clone()),
        _ => {}
    };
    let compiler = Compiler::new(options);
    let name = model::file_name(path);
    let compiled = match model::content(path)? {
        Content::Onnx(bytes) => {
            let resolved = model::resolved(&bytes, path, &input_shapes)?;
            compiler.compile_resolved(&resolved, &name, observer)
        }
        Content::Tosa(bytes) => compiler.compile_module(model::flatbuffer(path, &bytes)?, &name, observer),
        Content::Ir(text) => {
            compiler.compile_checkpoint(model::checkpoint(path, &text, console)?, &name, observer)
        }
        Content::Bundle(_) => return Err(Failure::file(path, "a bundle; expected the model of one")),
    };
    let compiled = compiled.map_err(|error| Failure::from(error).about(path))?;
    drop(progress);
    demand_same_plan(path, bundle_path, bundle, &compiled.bundle)?;
    // Of a dump from the level `phases` on nothing is planned.
    let planned = stages.or(phases).ok_or_else(|| Failure::file(path, "nothing of it was planned"))?;
    of_checkpoint(path, &planned)
}

/// That two bundles have the same plan: what is calibrated otherwise has other numbers in its stages, but
/// the same places.
fn demand_same_plan(path: &Path, of: &Path, bundle: &Bundle, made: &Bundle) -> Result<(), Failure> {
    let view = |bundle: &Bundle| {
        let programs: Vec<NamedProgram<'_>> = bundle
            .machines()
            .map(|machine| NamedProgram { program: &machine.program, names: &machine.names })
            .collect();
        PlanView::of_programs(&programs, &bundle.manifest.target, None)
    };
    if PlanChanges::of(&view(bundle), &view(made)).is_empty() {
        return Ok(());
    }
    Err(Failure::file(
        path,
        format!(
            "compiled for the machine and the objective of {}, it has another plan than that: the bundle is \
             of another model, or was compiled with other options; give a dump of that compile instead \
             (`--emit phases -o FILE`)",
            io::shown(of)
        ),
    ))
}
