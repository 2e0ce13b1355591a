//! What a file tells of a plan, and its modules if it is a dump.

use std::path::Path;

use strata_backend::emit;
use strata_backend::model::{Plan, StageGraph};
use strata_ir::Module;
use strata_ir::pass::Level;
use strata_isa_spec::bundle::Bundle;
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Program, Target};

use crate::cli::console::Console;
use crate::cli::dumps::outline;
use crate::cli::failure::Failure;
use crate::cli::model::{self, Content};
use crate::compile::checkpoint::Record;
use crate::diff::view::{NamedProgram, PlanView};
use crate::io;
use crate::stats::Stats;

/// One of the two files.
pub(super) struct Subject {
    /// The file, as messages name it.
    pub(super) name: String,
    /// What it tells of a plan.
    pub(super) plan: Option<PlanView>,
    /// Its modules, if it is a dump.
    pub(super) modules: Option<Vec<Module>>,
}

impl Subject {
    /// Reads a file.
    pub(super) fn load(path: &Path, console: &Console) -> Result<Self, Failure> {
        let name = io::shown(path);
        if path.extension().is_some_and(|extension| extension == "json") {
            let read = serde_json::from_slice::<Stats>(&io::read(path)?);
            let stats = read.map_err(|error| {
                let what = format!("not the statistics that `strata compile --stats` writes: {error}");
                Failure::file(path, what)
            })?;
            return Ok(Self { name, plan: Some(PlanView::of_stats(&stats)), modules: None });
        }
        match model::content(path)? {
            Content::Bundle(bytes) => {
                let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::file(path, error))?;
                Ok(Self { name, plan: Some(of_bundle(path, &bundle)?), modules: None })
            }
            Content::Ir(source) => {
                let modules = model::modules(path, &source, console)?;
                Ok(Self { name, plan: of_modules(path, &modules)?, modules: Some(modules) })
            }
            Content::Tosa(_) | Content::Onnx(_) => {
                let what = "neither a bundle, statistics nor a dump; expected a .strata, .json or .mlir file";
                Err(Failure::file(path, what))
            }
        }
    }

    /// The text of a dump without its large constants.
    pub(super) fn text(&self) -> Result<String, Failure> {
        match &self.modules {
            Some(modules) => Ok(modules.iter().map(outline).collect()),
            None => Err(Failure::Usage(format!("--text takes two dumps of the IR; {} is none", self.name))),
        }
    }
}

fn of_bundle(path: &Path, bundle: &Bundle) -> Result<PlanView, Failure> {
    let target = &bundle.manifest.target;
    let programs: Vec<NamedProgram> = bundle
        .machines()
        .map(|machine| NamedProgram { program: &machine.program, names: &machine.names })
        .collect();
    for named in &programs {
        demand_valid(path, named.program, target)?;
    }
    let stats = bundle.stats.clone().and_then(|stats| serde_json::from_value::<Stats>(stats).ok());
    Ok(PlanView::of_programs(&programs, target, stats.as_ref()))
}

/// Only what verifies can be simulated.
fn demand_valid(path: &Path, program: &Program, target: &Target) -> Result<(), Failure> {
    match verify(program, target).len() {
        0 => Ok(()),
        n => Err(Failure::file(path, format!("the program breaks {n} rules; see `strata verify`"))),
    }
}

/// The plan of a dump, if it has one: its programs where it is scheduled, else the plan in its attributes.
fn of_modules(path: &Path, modules: &[Module]) -> Result<Option<PlanView>, Failure> {
    let about = |error: &dyn std::fmt::Display| Failure::file(path, error);
    let machines: Vec<&Module> = modules.iter().filter(|module| Level::of(module) >= Level::Phases).collect();
    let record = match modules.first() {
        Some(first) => Record::of(first).map_err(|error| Failure::from(error).about(path))?,
        None => None,
    };
    if let (Some(record), Some(Level::Sched)) = (&record, machines.first().map(|module| Level::of(module))) {
        let lowered = machines.iter().map(|module| emit::lower(module));
        let lowered = lowered.collect::<Result<Vec<_>, _>>().map_err(|error| about(&error))?;
        let target = &record.options.target;
        let programs: Vec<NamedProgram> = lowered
            .iter()
            .map(|lowered| NamedProgram { program: &lowered.program, names: &lowered.names })
            .collect();
        for named in &programs {
            demand_valid(path, named.program, target)?;
        }
        return Ok(Some(PlanView::of_programs(&programs, target, None)));
    }
    // The plans of several parts do not add up without their programs: ops are compared alone.
    let [module] = machines[..] else { return Ok(None) };
    let Some(main) = module.function("main") else { return Ok(None) };
    let plan = Plan::from_module(module, main).map_err(|error| about(&error))?;
    let graph = StageGraph::from_module(module, main).map_err(|error| about(&error))?;
    Ok(Some(PlanView::of_plan(&plan, &graph)))
}
