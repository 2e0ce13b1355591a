//! Compiling: an ONNX model or a TOSA function to a bundle, through every level of the IR.
//!
//! | module | what it does |
//! |---|---|
//! | `model` | the model that is compiled, and what a survey says of it |
//! | `parts` | import and quantisation, in as many parts as the machine and the host need |
//! | `host` | the parts that the host runs |
//! | `calibrate`, `noise` | what activations are calibrated on |
//! | `precision` | which activations are 16-bit |
//! | [`checkpoint`] | a compile at a level of the IR, as dumps hold it |
//! | `resume` | compiles that go on from a checkpoint, or from a function of TOSA |
//! | `hints` | sizes of memories that would do where the target is too small |
//! | `assemble` | plans, programs, and the bundle of all parts |
//! | `measure` | what the written program's outputs are worth |
//! | `error` | why a model could not be compiled |

mod assemble;
pub(crate) mod calibrate;
pub mod checkpoint;
pub(crate) mod error;
mod forms;
mod given;
mod hints;
pub(crate) mod host;
mod measure;
pub(crate) mod model;
pub(crate) mod noise;
mod parts;
mod precision;
mod resume;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_backend::model::{Mode, Objective, Plan, StageGraph};
use strata_backend::select::made::ModelValue;
use strata_frontend::import::{self, ImportOptions, NoSideFiles, Resolved, SideFiles};
use strata_ir::pass::{
    self, Changed, DriverOptions, PassContext, PassError, Pipeline, Progress, UnsupportedOp,
};
use strata_ir::{Module, OpId, ValueId};
use strata_isa_spec::Target;
use strata_isa_spec::bundle::{Bundle, Quantisation};
use strata_passes::canonicalise::Canonicalise;
use strata_passes::fuse::PlanOptions;
use strata_passes::quantise::{
    Calibration, ChosenRanges, Precision, QuantParams, QuantReport, Quantise, TensorRange,
};
use strata_passes::rewrite::Families;

use self::checkpoint::Checkpoint;
pub use self::error::CompileError;
pub(crate) use self::forms::select;
use self::noise::NoiseInput;
use self::parts::{PreparedPart, PreparedParts};
pub use self::precision::{PrecisionMode, PrecisionOptions};
use crate::io::array::Array;
use crate::ptq::PtqOptions;
use crate::ranges::RangeFile;
use crate::results::node_results;
use crate::session;
use crate::stats::{self, CompileStats, Stats};
use crate::timings::{Stopwatch, Timings};

/// What activations are calibrated on. As a value of serde it is without its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationData {
    /// Seeded noise where no data are at hand, normal with deviation 1 for floats and uniform for integers:
    /// ranges are then only plausible.
    Noise {
        /// The seed.
        #[serde(with = "seed_text")]
        seed: u64,
        /// How many samples.
        samples: usize,
    },
    /// Samples, each with one tensor an input, in the model's order of inputs.
    Samples(#[serde(skip)] Vec<Vec<Array>>),
}

/// Ranges that are given. As a value of serde it is without them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GivenRanges {
    /// Them.
    #[serde(skip)]
    pub file: RangeFile,
}

/// Seeds as text: attributes have no integers beyond 63 bits.
mod seed_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(seed)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl CalibrationData {
    /// Noise of a seed, as much as is enough.
    pub fn noise(seed: u64) -> Self {
        Self::Noise { seed, samples: 2 }
    }

    /// Whether they are data, not noise.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Samples(_))
    }
}

impl Default for CalibrationData {
    fn default() -> Self {
        Self::noise(0)
    }
}

/// How to compile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompileOptions {
    /// The machine.
    pub target: Target,
    /// What the plan minimises.
    pub objective: Objective,
    /// For [`Objective::Latency`]: by how many percent a plan may be slower than the fastest and count as
    /// equally fast; among equals the one that moves the fewest DRAM bytes is taken.
    pub tolerance_percent: u32,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// What activations are calibrated on.
    pub calibration: CalibrationData,
    /// Ranges of activations in place of those that calibration chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<GivenRanges>,
    /// How the network is quantised.
    pub ptq: PtqOptions,
    /// Which activations are 16-bit.
    pub precision: PrecisionOptions,
    /// Shapes of inputs by name, for dynamic dimensions or another size.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// Whether to run the program and measure every output against f32; networks too large to run in seconds
    /// are not measured.
    pub measure_sqnr: bool,
    /// Whether the host may run what the machine has no form of; else that is an error.
    pub host: bool,
    /// Which families of rewrites are on.
    pub families: Families,
}

impl CompileOptions {
    /// Whether channels are equalised: on data only.
    pub fn equalises(&self) -> bool {
        self.ptq.equalise && self.calibration.is_data()
    }

    /// The defaults for a target: latency, multi-layer, noise calibration.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            objective: Objective::default(),
            tolerance_percent: PlanOptions::default().tolerance_percent,
            mode: Mode::default(),
            calibration: CalibrationData::default(),
            ranges: None,
            ptq: PtqOptions::default(),
            precision: PrecisionOptions::default(),
            input_shapes: BTreeMap::new(),
            measure_sqnr: true,
            host: true,
            families: Families::default(),
        }
    }
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aim {
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// What is least.
    pub objective: Objective,
}

/// What an observer of a compile is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Step(&'a str),
    /// The model is in parts, and what follows is about this one.
    Part {
        /// Which, from 0.
        index: usize,
        /// How many parts there are.
        of: usize,
        /// Whether the host runs it.
        on_host: bool,
        /// Whether it is in integers by now, and is planned.
        is_planned: bool,
    },
    /// A part was quantised, with these ranges of its values.
    Quantised(&'a [TensorRange]),
    /// All parts have reached a level.
    Reached(&'a Checkpoint),
    /// Something that the user should know.
    Note(String),
}

impl Event<'_> {
    /// That ranges come from noise.
    fn noise(samples: usize, inputs: &[NoiseInput]) -> Self {
        let shapes: Vec<String> = inputs.iter().map(|input| format!("{:?}", input.shape)).collect();
        Self::Note(format!(
            "no calibration data: ranges come from {samples} samples of seeded noise of shape {}; give \
                images or arrays \
             with --calibrate",
            shapes.join(", ")
        ))
    }
}

/// A compiled network with its statistics.
#[derive(Debug)]
pub struct Compiled {
    /// The bundle.
    pub bundle: Bundle,
    /// The statistics.
    pub stats: Stats,
    /// The plan of every program, and the stages that were planned.
    pub plans: Vec<(Plan, StageGraph)>,
    /// What its steps took.
    pub timings: Timings,
}

/// Compiles models with fixed options.
#[derive(Clone, Debug)]
pub struct Compiler {
    options: CompileOptions,
}

/// A model that is ready to be planned, once or for several modes and objectives.
#[derive(Clone, Debug)]
pub struct Prepared {
    compiler: Compiler,
    parts: PreparedParts,
    clock: Clock,
}

impl Prepared {
    /// The modules that the machine runs, at the stages level, before any rewrite.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.parts.parts.iter().filter_map(|part| match part {
            PreparedPart::Machine(forms) => Some(&forms.as_imported),
            PreparedPart::Host(_) => None,
        })
    }

    /// The same network for another machine: its integers stay, its stages are formed anew.
    ///
    /// # Errors
    /// If stages cannot be formed for it.
    pub fn on(&self, target: Target) -> Result<Self, CompileError> {
        let mut other = self.clone();
        other.compiler.options.target = target;
        for part in &mut other.parts.parts {
            if let PreparedPart::Machine(forms) = part {
                **forms = other.compiler.formed_anew(forms, &mut other.clock)?;
            }
        }
        Ok(other)
    }

    /// Plans, schedules and emits.
    ///
    /// # Errors
    /// If no plan fits the target; if what was made cannot be run, a defect of Strata.
    pub fn finish(
        &self,
        mode: Mode,
        objective: Objective,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let mut clock = self.clock.clone();
        let aim = Aim { mode, objective };
        let mut compiled = self.compiler.assemble(&self.parts, aim, &mut clock, observer)?;
        // As those who run it will ask; its programs were verified when they were made.
        clock.begin("verify", observer);
        let hosts = session::demand_whole(&compiled.bundle).map_err(CompileError::Unsound)?;
        if let Some(yardstick) = &self.parts.yardstick {
            clock.begin("measure", observer);
            yardstick.measure(&mut compiled, hosts, observer);
        }
        compiled.timings = clock.finish();
        let seconds_by_pass = compiled.timings.seconds();
        compiled.stats.compile =
            Some(CompileStats { seconds_by_pass, peak_rss_bytes: stats::peak_rss_bytes() });
        Ok(compiled)
    }
}

impl CompileOptions {
    /// The same for another aim, without calibration samples.
    fn to_record(&self, aim: Aim) -> Self {
        let calibration = match &self.calibration {
            noise @ CalibrationData::Noise { .. } => noise.clone(),
            CalibrationData::Samples(_) => CalibrationData::Samples(Vec::new()),
        };
        Self {
            target: self.target.clone(),
            objective: aim.objective,
            tolerance_percent: self.tolerance_percent,
            mode: aim.mode,
            calibration,
            ranges: self.ranges.as_ref().map(|_| GivenRanges::default()),
            ptq: self.ptq.clone(),
            precision: self.precision.clone(),
            input_shapes: self.input_shapes.clone(),
            measure_sqnr: self.measure_sqnr,
            host: self.host,
            families: self.families.clone(),
        }
    }

    fn aim(&self) -> Aim {
        Aim { mode: self.mode, objective: self.objective }
    }
}

impl Compiler {
    /// A compiler with the given options.
    pub fn new(options: CompileOptions) -> Self {
        Self { options }
    }

    /// Compiles the bytes of an ONNX file that holds all its data. `file_name` stands in locations and
    /// messages.
    ///
    /// # Errors
    /// If the model cannot be imported, quantised, planned or emitted for the target.
    pub fn compile_onnx(
        &self,
        bytes: &[u8],
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        self.compile_resolved(&self.resolve(bytes, file_name, &NoSideFiles)?, file_name, observer)
    }

    /// Resolves an ONNX file for [`compile_resolved`](Self::compile_resolved), with the files that stand
    /// beside it.
    ///
    /// # Errors
    /// If it is malformed, or its data in other files cannot be had.
    pub fn resolve(
        &self,
        bytes: &[u8],
        file_name: &str,
        files: &dyn SideFiles,
    ) -> Result<Resolved, CompileError> {
        let options = ImportOptions {
            input_shapes: self.options.input_shapes.clone(),
            file_name: file_name.to_owned(),
            ..ImportOptions::default()
        };
        Ok(import::resolve(bytes, &options, files)?)
    }

    /// Compiles a resolved model. `file_name` stands in locations and messages.
    ///
    /// # Errors
    /// As [`compile_onnx`](Self::compile_onnx).
    pub fn compile_resolved(
        &self,
        model: &Resolved,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        self.prepare_resolved(model, file_name, observer)?.finish_as_asked(observer)
    }

    /// Imports, calibrates and quantises a model and selects its stages: all that planning does not change.
    ///
    /// # Errors
    /// If the model cannot be imported or quantised.
    pub fn prepare(
        &self,
        bytes: &[u8],
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Prepared, CompileError> {
        self.prepare_resolved(&self.resolve(bytes, file_name, &NoSideFiles)?, file_name, observer)
    }

    /// As [`prepare`](Self::prepare), of a resolved model.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_resolved(
        &self,
        model: &Resolved,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Prepared, CompileError> {
        let mut clock = Clock::default();
        clock.begin("import", observer);
        self.demand_finite_samples()?;
        let parts = self.parts(model, file_name, &mut clock, observer)?;
        clock.stop();
        Ok(Prepared { compiler: self.clone(), parts, clock })
    }

    /// That calibration samples hold numbers only: a range of anything else is none.
    fn demand_finite_samples(&self) -> Result<(), CompileError> {
        let CalibrationData::Samples(samples) = &self.options.calibration else { return Ok(()) };
        let all = samples.iter().enumerate().flat_map(|(n, arrays)| {
            arrays.iter().enumerate().map(move |(at, array)| (format!("{at} of sample {n}"), array))
        });
        session::demand_finite(all).map_err(CompileError::CalibrationData)
    }

    /// Runs a pipeline for the target. Whether anything changed.
    fn run_passes(
        &self,
        pipeline: &Pipeline,
        module: &mut Module,
        context: &mut PassContext,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Changed, CompileError> {
        context.insert(self.options.target.clone());
        let mut follow = |progress: Progress<'_>| {
            if let Progress::Begins { pass, .. } = progress {
                clock.begin(pass.name, observer);
            }
        };
        let reports = pass::run(module, pipeline, context, &DriverOptions::default(), &mut follow)?;
        Ok(reports.iter().fold(Changed::No, |changed, report| changed | report.changed))
    }

    /// From the import level to integers. Gives the ops at the end that stay on the host too.
    fn quantise(
        &self,
        module: &mut Module,
        ranges: Ranges,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<UnsupportedOp>, CompileError> {
        let results = module.function("main").map(|func| node_results(module, func)).unwrap_or_default();
        let mut context = PassContext::new();
        context.insert(ranges.calibration);
        context.insert(ranges.precision);
        let quantise = Quantise { options: self.options.ptq.quantise(Precision::Int8) };
        let quantise = Pipeline::of(quantise).then(Canonicalise);
        self.run_passes(&quantise, module, &mut context, clock, observer)?;
        let report = context.take::<QuantReport>().unwrap_or_default();
        mark_values(module, &report, &results);
        let ranges = context.take::<ChosenRanges>().unwrap_or_default();
        observer(Event::Quantised(&ranges.0));
        if !report.uneven_outputs.is_empty() {
            observer(Event::Note(format!(
                "results of {} are 16-bit: parts of them are too small for 8 bits at one scale",
                report.uneven_outputs.join(", ")
            )));
        }
        Ok(report.host_ops)
    }
}

/// Writes down which values of the model the integers of a quantised function stand for, whose own values
/// were results of nodes.
fn mark_values(module: &mut Module, report: &QuantReport, results: &BTreeMap<ValueId, String>) {
    let mut found: BTreeMap<OpId, ModelValue> = BTreeMap::new();
    for value in &report.values {
        let Some(op) = module.defining_op(value.integer) else { continue };
        let QuantParams { scale, zero_point, .. } = value.params;
        let zero_point = i32::try_from(zero_point).ok();
        let quantisation = zero_point.map(|zero_point| Quantisation { scale, zero_point });
        let known = found.entry(op).or_insert_with(|| ModelValue { nodes: Vec::new(), quantisation });
        known.nodes.extend(results.get(&value.real).cloned());
        // Of values that have the same integers, the last is what others read.
        known.quantisation = quantisation;
    }
    for (op, value) in found {
        value.mark(module, op);
    }
}

/// What quantising needs to know of a network.
struct Ranges {
    calibration: Calibration,
    precision: Precision,
}

fn missing(what: &str) -> CompileError {
    CompileError::of_pass("emit", PassError::Missing(what.to_owned()))
}

fn network_name(file_name: &str) -> String {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    let known = [".onnx", ".mlir", ".tosa"].iter().find_map(|extension| base.strip_suffix(extension));
    known.unwrap_or(base).to_owned()
}

fn main_ports(module: &Module) -> Result<Vec<strata_isa_spec::bundle::Port>, CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    session::ports(module, func, false).map_err(CompileError::CalibrationData)
}

/// What each step takes.
#[derive(Clone, Debug, Default)]
struct Clock {
    stopwatch: Stopwatch,
}

impl Clock {
    fn begin(&mut self, step: &str, observer: &mut dyn FnMut(Event<'_>)) {
        self.stop();
        observer(Event::Step(step));
        self.stopwatch.begin(step);
    }

    fn stop(&mut self) {
        self.stopwatch.stop();
    }

    fn finish(self) -> Timings {
        self.stopwatch.finish()
    }
}
