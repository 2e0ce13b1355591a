//! What is planned: a network that is imported and quantised once, then brought to stages and planned for any
//! target.
//!
//! Plans do not depend on the values of weights, so ranges come from seeded noise.

use std::path::Path;
use std::time::Instant;

use strata_backend::model::Plan;
use strata_backend::place::Schedule;
use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooOptions, build};
use strata_ir::Module;
use strata_ir::pass::{self, DriverOptions, Level, PassContext, Pipeline};
use strata_isa_spec::Target;
use strata_isa_spec::verify::verify;
use strata_passes::fuse::FuseLayers;
use strata_passes::rewrite::Families;

use crate::cli::console::Progress;
use crate::cli::failure::Failure;
use crate::cli::model::{self, Content};
use crate::compile::{CompileOptions, Compiled, Compiler, Event, select};
use crate::{Mode, Objective, io, stats};

/// Width and height.
pub(super) type Size = (usize, usize);

/// A network at one input size, quantised.
#[derive(Debug)]
pub(super) struct Subject {
    /// What it is called in tables.
    pub(super) name: String,
    /// Plain TOSA in integers.
    module: Module,
}

/// What the passes from stages on made of a subject.
#[derive(Debug)]
pub(super) struct Planned {
    /// The plan.
    pub(super) plan: Plan,
    /// Stages of the graph.
    pub(super) stages: usize,
    /// What planning and address assignment took.
    pub(super) cost: Cost,
}

/// What work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Cost {
    /// Seconds of wall time.
    pub(super) wall: f64,
    /// Seconds that this thread ran, where the system tells; else the wall time.
    pub(super) cpu: f64,
    /// By how much the resident set grew at most; 0 where the system does not tell.
    pub(super) grown_bytes: u64,
}

impl Subject {
    /// A network of the zoo.
    pub(super) fn zoo(name: &str, (width, height): Size, progress: &Progress<'_>) -> Result<Self, Failure> {
        let title = format!("{name}@{width}x{height}");
        progress.step(&format!("{title}: making the ONNX"));
        let options = ZooOptions { size: Some((width, height)), ..ZooOptions::default() };
        let onnx = encode(&build(name, &options).map_err(Failure::failed)?);
        Self::quantised(title, progress, |compiler, observer| {
            compiler.prepare(&onnx, &format!("{name}.onnx"), observer).map(drop)
        })
    }

    /// A model of a file: ONNX, or a function of TOSA.
    pub(super) fn file(path: &Path, progress: &Progress<'_>) -> Result<Self, Failure> {
        let name = io::file_stem(&model::file_name(path));
        match model::content(path)? {
            Content::Onnx(bytes) => {
                let resolved = model::resolved(&bytes, path, &[])?;
                Self::quantised(name, progress, |compiler, observer| {
                    compiler.prepare_resolved(&resolved, &model::file_name(path), observer).map(drop)
                })
            }
            Content::Tosa(bytes) => Self::module(name, model::flatbuffer(path, &bytes)?, progress),
            Content::Ir(_) | Content::Bundle(_) => {
                Err(Failure::file(path, "expected an ONNX file or a TOSA flatbuffer"))
            }
        }
        .map_err(|failure| failure.about(path))
    }

    /// A function of plain TOSA.
    pub(super) fn module(name: String, module: Module, progress: &Progress<'_>) -> Result<Self, Failure> {
        Self::quantised(name, progress, |compiler, observer| {
            compiler.prepare_module(module, "main.mlir", observer).map(drop)
        })
    }

    /// Prepares a network and keeps what it was when its arithmetic was fixed.
    fn quantised(
        name: String,
        progress: &Progress<'_>,
        prepare: impl FnOnce(&Compiler, &mut dyn FnMut(Event<'_>)) -> Result<(), crate::CompileError>,
    ) -> Result<Self, Failure> {
        let options = CompileOptions { host: false, ..options(&Target::preset("x1", &[])?) };
        let mut reached = None;
        prepare(&Compiler::new(options), &mut |event| match event {
            Event::Step(step) => progress.step(&format!("{name}: {step}")),
            Event::Reached(checkpoint) if checkpoint.level == Level::Quant => {
                reached = checkpoint.only_module().cloned();
            }
            _ => {}
        })?;
        let module = reached.ok_or_else(|| Failure::failed(format!("{name} was never quantised")))?;
        Ok(Self { name, module })
    }

    /// Compiles, verifies and simulates for a target, as `strata compile` does; the fastest plan where it is
    /// to be fast, whatever it moves.
    pub(super) fn compile(
        &self,
        target: &Target,
        aim: (Mode, Objective),
        families: &Families,
    ) -> Result<Compiled, Failure> {
        let (mode, objective) = aim;
        let families = families.clone();
        let tolerance_percent = 0;
        let options = CompileOptions { mode, objective, tolerance_percent, families, ..options(target) };
        Ok(Compiler::new(options).compile_module(self.module.clone(), "main.mlir", &mut |_| {})?)
    }

    /// Runs the passes of a compile for least latency, and takes their time from stages on. Ops are not
    /// rewritten before, so that a graph has the size that it was made with.
    pub(super) fn plan(&self, target: &Target) -> Result<Planned, Failure> {
        let mut module = self.module.clone();
        let mut context = PassContext::new();
        context.insert(target.clone());
        run(&select(), &mut module, &mut context)?;
        let watch = Stopwatch::start();
        run(&Pipeline::of(FuseLayers::default()).then(Schedule), &mut module, &mut context)?;
        let cost = watch.stop();
        let plan = context.take::<Plan>().ok_or_else(|| Failure::failed("no plan was left"))?;
        let program = strata_backend::emit::lower(&module).map_err(Failure::failed)?.program;
        if let Some(error) = verify(&program, target).first() {
            return Err(Failure::failed(format!("the compiler made an invalid program: {error}")));
        }
        Ok(Planned { stages: plan.phases.iter().map(|phase| phase.stages.len()).sum(), plan, cost })
    }
}

fn options(target: &Target) -> CompileOptions {
    CompileOptions { measure_sqnr: false, ..CompileOptions::new(target.clone()) }
}

fn run(pipeline: &Pipeline, module: &mut Module, context: &mut PassContext) -> Result<(), Failure> {
    let ran = pass::run(module, pipeline, context, &DriverOptions::default(), &mut |_| {});
    ran.map(|_| ()).map_err(Failure::failed)
}

/// Takes the time of what this thread does.
#[derive(Debug)]
struct Stopwatch {
    since: Instant,
    cpu: Option<u64>,
    resident_bytes: u64,
}

impl Stopwatch {
    fn start() -> Self {
        // Linux forgets the largest resident set so far when told to.
        let forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        let resident_bytes = if forgotten { stats::rss_bytes() } else { u64::MAX };
        Self { since: Instant::now(), cpu: thread_nanoseconds(), resident_bytes }
    }

    fn stop(&self) -> Cost {
        let wall = self.since.elapsed().as_secs_f64();
        let cpu = self.cpu.zip(thread_nanoseconds()).map(|(from, to)| (to - from) as f64 / 1e9);
        let grown_bytes = stats::peak_rss_bytes().saturating_sub(self.resident_bytes);
        Cost { wall, cpu: cpu.unwrap_or(wall), grown_bytes }
    }
}

/// How long this thread has run, as Linux tells it.
fn thread_nanoseconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok()
}
