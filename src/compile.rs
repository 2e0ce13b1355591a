//! Compiling: an ONNX model to a bundle, through every phase of the IR.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use strata_frontend::import::{ImportError, ImportOptions, Imported};
use strata_ir::dialect::Op;
use strata_ir::text::to_string;
use strata_ir::{Module, Tensor};
use strata_isa_spec::bundle::{Bundle, FORMAT_VERSION, Manifest};
use strata_isa_spec::verify::{VerifyError, verify};
use strata_isa_spec::{Program, Target, timed};
use strata_passes::manager::{PassContext, PassError, Phase, Pipeline, PipelineError};
use strata_passes::plan::summary::activation_table;
use strata_passes::plan::{Mode, Objective, Plan, StageGraph};
use strata_passes::quantise::{self, Calibration, CalibrationError};

use crate::io::array::{Array, DType};
use crate::session::{self, RunError, Session};
use crate::stats::{self, CompileStats, EnergyStats, ModelStats, PlanStats, SimulatedStats, Stats};

/// Multiply-accumulates of an f32 forward pass up to which a network is calibrated on noise at its own input size;
/// larger ones are calibrated at a smaller one.
const NOISE_CALIBRATION_MACS: u64 = 12_000_000_000;
/// Multiply-accumulates up to which outputs are measured against f32.
const SQNR_MACS: u64 = 24_000_000_000;

/// What activations are calibrated on.
#[derive(Clone, Debug, PartialEq)]
pub enum CalibrationData {
    /// Seeded noise, normal with deviation 1, where no data are at hand: ranges are then only plausible.
    Noise {
        /// The seed.
        seed: u64,
        /// How many samples.
        samples: usize,
    },
    /// Samples, each with one tensor an input, in the model's order of inputs.
    Samples(Vec<Vec<Array>>),
}

impl Default for CalibrationData {
    fn default() -> Self {
        Self::Noise { seed: 0, samples: 2 }
    }
}

/// How to compile.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The machine.
    pub target: Target,
    /// What the plan minimises.
    pub objective: Objective,
    /// Multi-layer or layer by layer.
    pub mode: Mode,
    /// What activations are calibrated on.
    pub calibration: CalibrationData,
    /// How activation ranges are chosen: `min-max`, `percentile` or `mse`.
    pub range: String,
    /// Shapes of inputs by name, for dynamic dimensions or another size.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// Whether to measure every output against f32 (skipped for networks too large to run in seconds).
    pub measure_sqnr: bool,
}

impl CompileOptions {
    /// The defaults for a target: latency, multi-layer, noise calibration.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            objective: Objective::default(),
            mode: Mode::default(),
            calibration: CalibrationData::default(),
            range: "mse".to_owned(),
            input_shapes: BTreeMap::new(),
            measure_sqnr: true,
        }
    }
}

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file is not a model that can be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Calibration failed.
    #[error("calibration: {0}")]
    Calibration(#[from] CalibrationError),
    /// The calibration data do not fit the inputs.
    #[error("calibration data: {0}")]
    CalibrationData(#[source] RunError),
    /// A pass failed.
    #[error("{pass}: {error}")]
    Pass {
        /// The pass.
        pass: String,
        /// Why.
        #[source]
        error: PassError,
    },
    /// A textual pipeline is wrong.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The scheduled module could not be lowered.
    #[error("emit: {0}")]
    Emit(#[from] strata_backend::LowerError),
    /// The compiler made a program that the machine refuses: a defect of Strata.
    #[error("the compiler made an invalid program, which is a defect of Strata: {}", list(.0))]
    Invalid(Vec<VerifyError>),
    /// The compiled network could not be run to measure it.
    #[error("measuring the outputs: {0}")]
    Measure(#[source] RunError),
}

fn list(errors: &[VerifyError]) -> String {
    errors.iter().map(|e| format!("\n  {e}")).collect()
}

impl CompileError {
    /// Whether the model is valid but not supported.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::Import(ImportError::Unsupported { .. })
                | Self::Pass { error: PassError::Unsupported(_), .. }
        )
    }
}

/// What an observer of a compile is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Step(&'a str),
    /// The module has reached a phase.
    Reached(Phase, &'a Module),
    /// Something that the user should know.
    Note(String),
}

/// A compiled network with its statistics.
#[derive(Debug)]
pub struct Compiled {
    /// The bundle.
    pub bundle: Bundle,
    /// The statistics.
    pub stats: Stats,
    /// The plan.
    pub plan: Plan,
    /// The stages that were planned.
    pub graph: StageGraph,
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
    module: Module,
    network: String,
    n_parameters: u64,
    sqnr_db: BTreeMap<String, f64>,
    clock: Clock,
}

impl Prepared {
    /// The module, at the stages phase.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Plans, schedules and emits.
    ///
    /// # Errors
    /// If no plan fits the target.
    pub fn finish(
        &self,
        mode: Mode,
        objective: Objective,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let mut clock = self.clock.clone();
        let module = self.module.clone();
        let mut compiled =
            self.compiler.to_bundle(module, &self.network, (mode, objective), &mut clock, observer)?;
        compiled.stats.model.parameters = self.n_parameters;
        compiled.stats.sqnr_db = self.sqnr_db.clone();
        compiled.bundle.stats = serde_json::to_value(&compiled.stats).ok();
        let seconds_by_pass = clock.finish();
        compiled.stats.compile =
            Some(CompileStats { seconds_by_pass, peak_rss_bytes: stats::peak_rss_bytes() });
        Ok(compiled)
    }
}

/// A model at one input size, calibrated.
struct Calibrated {
    calibration: Calibration,
    /// The network at the size of calibration, and a sample, to measure outputs on.
    module: Module,
    sample: Vec<Array>,
    macs: u64,
}

impl Compiler {
    /// A compiler with the given options.
    pub fn new(options: CompileOptions) -> Self {
        Self { options }
    }

    /// Compiles an ONNX file's bytes. `file_name` stands in locations and messages.
    ///
    /// # Errors
    /// If the model cannot be imported, quantised, planned or emitted for the target.
    pub fn compile_onnx(
        &self,
        bytes: &[u8],
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let CompileOptions { mode, objective, .. } = self.options;
        self.prepare(bytes, file_name, observer)?.finish(mode, objective, observer)
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
        let mut clock = Clock::default();
        clock.begin("import", observer);
        let imported = self.import(bytes, file_name, &BTreeMap::new())?;
        observer(Event::Reached(Phase::Import, &imported.module));
        clock.begin("calibrate", observer);
        let calibrated = self.calibrate(bytes, file_name, &imported, observer)?;
        let Imported { mut module, n_parameters, .. } = imported;
        self.to_stages(&mut module, calibrated.calibration.clone(), &mut clock, observer)?;
        let mut sqnr_db = BTreeMap::new();
        if self.options.measure_sqnr && calibrated.macs <= SQNR_MACS {
            clock.begin("measure", observer);
            sqnr_db = self.measure(calibrated)?;
        } else if self.options.measure_sqnr {
            observer(Event::Note("the network is too large to measure its outputs against f32".to_owned()));
        }
        clock.stop();
        let network = network_name(file_name);
        Ok(Prepared { compiler: self.clone(), module, network, n_parameters, sqnr_db, clock })
    }

    fn import(
        &self,
        bytes: &[u8],
        file_name: &str,
        other_shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Imported, ImportError> {
        let mut input_shapes = self.options.input_shapes.clone();
        input_shapes.extend(other_shapes.clone());
        let options =
            ImportOptions { input_shapes, file_name: file_name.to_owned(), ..ImportOptions::default() };
        strata_frontend::import::import(bytes, &options)
    }

    /// Gathers ranges on the given data, or on noise, at the model's size or, for large networks on noise, a smaller.
    fn calibrate(
        &self,
        bytes: &[u8],
        file_name: &str,
        imported: &Imported,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Calibrated, CompileError> {
        let macs = f32_macs(&imported.module);
        let (module, samples) = match &self.options.calibration {
            CalibrationData::Samples(samples) => (imported.module.clone(), samples.clone()),
            CalibrationData::Noise { seed, samples } => {
                let module = self.smaller(bytes, file_name, &imported.module, macs);
                let ports = main_ports(&module)?;
                let shapes: Vec<String> = ports.iter().map(|p| format!("{:?}", p.shape)).collect();
                observer(Event::Note(format!(
                    "no calibration data: ranges come from {samples} samples of seeded noise of shape {}; give images or \
                     arrays with --calibrate",
                    shapes.join(", ")
                )));
                let noise = (0..*samples).map(|sample| {
                    let port = |(at, p): (usize, &strata_isa_spec::bundle::Port)| {
                        noise(seed ^ ((sample as u64) << 32) ^ at as u64, &p.shape)
                    };
                    ports.iter().enumerate().map(port).collect()
                });
                let samples = noise.collect();
                (module, samples)
            }
        };
        let tensors = samples
            .iter()
            .map(|sample| session::to_arguments(&module, sample))
            .collect::<Result<Vec<_>, _>>()
            .map_err(CompileError::CalibrationData)?;
        let tensors: Vec<Vec<Arc<Tensor>>> =
            tensors.into_iter().map(|s| s.into_iter().map(Arc::new).collect()).collect();
        let calibration = Calibration::collect(&module, &tensors)?;
        let macs = f32_macs(&module);
        let sample = samples.into_iter().next().unwrap_or_default();
        Ok(Calibrated { calibration, module, sample, macs })
    }

    /// The network at a smaller input size, if it is large and its spatial extents may shrink; else as it is.
    fn smaller(&self, bytes: &[u8], file_name: &str, module: &Module, macs: u64) -> Module {
        let Ok(ports) = main_ports(module) else { return module.clone() };
        let mut shrink = 1;
        while macs / (shrink * shrink) as u64 > NOISE_CALIBRATION_MACS {
            shrink *= 2;
        }
        while shrink > 1 {
            let shapes = ports.iter().map(|port| {
                // The two axes after batch and channels in the machine's order are height and width.
                let mut shape = port.shape.clone();
                for machine_axis in [1, 2] {
                    if let (4, Some(&axis)) = (shape.len(), port.perm.get(machine_axis)) {
                        shape[axis] = (shape[axis] / shrink).next_multiple_of(32).min(shape[axis]);
                    }
                }
                (port.name.clone(), shape)
            });
            // A network whose layers depend on the size (a reshape to fully connected layers) does not shrink.
            if let Ok(small) = self.import(bytes, file_name, &shapes.collect())
                && small.module.walk(small.module.body()).len() == module.walk(module.body()).len()
            {
                return small.module;
            }
            shrink /= 2;
        }
        module.clone()
    }

    /// Runs a pipeline, telling the observer of each phase that it reaches.
    fn run_passes(
        &self,
        pipeline: &str,
        module: &mut Module,
        context: &mut PassContext,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), CompileError> {
        let mut phase = Phase::of(module);
        for step in Pipeline::parse(pipeline)?.steps() {
            let pass = step.build();
            clock.begin(pass.name(), observer);
            pass.run(module, context)
                .map_err(|error| CompileError::Pass { pass: pass.name().to_owned(), error })?;
            let reached = Phase::of(module);
            if reached != phase {
                phase = reached;
                observer(Event::Reached(phase, module));
            }
        }
        Ok(())
    }

    /// From the import phase to stages: quantises, selects, splits.
    fn to_stages(
        &self,
        module: &mut Module,
        calibration: Calibration,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), CompileError> {
        let mut context = PassContext::new();
        context.insert(self.options.target.clone());
        context.insert(calibration);
        let pipeline = format!("quantise{{range={}}},form-stages,split-channels", self.options.range);
        self.run_passes(&pipeline, module, &mut context, clock, observer)
    }

    /// From stages to a verified bundle.
    fn to_bundle(
        &self,
        mut module: Module,
        network: &str,
        (mode, objective): (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let target = &self.options.target;
        let mut context = PassContext::new();
        context.insert(target.clone());
        let pipeline = format!("fuse-layers{{objective={},mode={}}},schedule", word(&objective), word(&mode));
        self.run_passes(&pipeline, &mut module, &mut context, clock, observer)?;
        clock.begin("emit", observer);
        let lowered = strata_backend::lower(&module)?;
        clock.begin("verify", observer);
        let errors = verify(&lowered.program, target);
        if !errors.is_empty() {
            return Err(CompileError::Invalid(errors));
        }
        clock.begin("simulate", observer);
        let timing = timed::simulate(&lowered.program, target);
        let func = module.function("main").ok_or_else(|| missing("main"))?;
        let graph = StageGraph::from_module(&module, func)
            .map_err(|e| CompileError::Pass { pass: "emit".to_owned(), error: PassError::other(e) })?;
        let plan = context.take::<Plan>().ok_or_else(|| missing("a plan"))?;
        let mut stats = Stats {
            model: model_stats(&graph),
            plan: plan_stats(&plan, timing.macs, target, objective, mode),
            simulated: Some(SimulatedStats::new(&timing, target.array.clock_hz, plan.dram_bytes.compulsory)),
            ..Stats::default()
        };
        stats.plan.energy_pj = EnergyStats::from(timing.energy_pj);
        (stats.plan.peak_activation_sram_bytes, stats.plan.peak_weight_sram_bytes) = peaks(&lowered.program);
        let ports = |func: &str, outputs: bool| {
            let func = module.function(func).ok_or_else(|| missing(func))?;
            session::ports(&module, func, outputs).map_err(CompileError::CalibrationData)
        };
        let has_host = module.function("host").is_some();
        let host = has_host.then(|| to_string(&module_of(&module, "host")));
        let bundle = Bundle {
            manifest: Manifest {
                format: FORMAT_VERSION,
                producer: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
                network: network.to_owned(),
                target: target.clone(),
                inputs: ports("main", false)?,
                outputs: ports("main", true)?,
                host_outputs: has_host.then(|| ports("host", true)).transpose()?,
                hashes: BTreeMap::new(),
            },
            program: lowered.program,
            weights: lowered.weights,
            names: lowered.names,
            // The time that a compile took is no part of what it made: the same input gives the same bytes.
            stats: serde_json::to_value(&stats).ok(),
            host,
            dumps: BTreeMap::new(),
        };
        Ok(Compiled { bundle, stats, plan, graph })
    }

    /// Signal-to-noise ratio of every output on the calibration's first sample, through a compiled program.
    fn measure(&self, calibrated: Calibrated) -> Result<BTreeMap<String, f64>, CompileError> {
        let Calibrated { calibration, mut module, sample, .. } = calibrated;
        let func = module.function("main").ok_or_else(|| missing("main"))?;
        let arguments = session::to_arguments(&module, &sample).map_err(CompileError::Measure)?;
        let arguments: Vec<_> = arguments.into_iter().map(Arc::new).collect();
        let reference = quantise::forward(&module, func, &arguments, &mut |_, _| {})
            .map_err(|e| CompileError::Measure(RunError::Eval(e)))?;
        let ports = session::ports(&module, func, true).map_err(CompileError::Measure)?;
        let reference: Vec<Array> = ports
            .iter()
            .zip(&reference)
            .map(|(port, tensor)| session::from_tensor(port, tensor))
            .collect::<Result<_, _>>()
            .map_err(CompileError::Measure)?;
        let mut clock = Clock::default();
        self.to_stages(&mut module, calibration, &mut clock, &mut |_| {})?;
        let layer_by_layer = (Mode::Single, self.options.objective);
        let compiled = self.to_bundle(module, "measured", layer_by_layer, &mut clock, &mut |_| {})?;
        let session = Session::new(compiled.bundle).map_err(CompileError::Measure)?;
        let inputs: Vec<_> = sample.into_iter().enumerate().map(|(at, a)| (at.to_string(), a)).collect();
        let outputs = session.run(&inputs, &mut |_| {}).map_err(CompileError::Measure)?;
        let f32s = |array: &Array| array.values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        Ok(outputs
            .iter()
            .zip(&reference)
            .filter(|((_, array), _)| array.dtype == DType::F32)
            .map(|((name, got), want)| (name.clone(), quantise::sqnr(&f32s(want), &f32s(got))))
            .collect())
    }
}

fn missing(what: &str) -> CompileError {
    CompileError::Pass { pass: "emit".to_owned(), error: PassError::Missing(what.to_owned()) }
}

/// The kebab-case word of a plain enum, as serde writes it.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn network_name(file_name: &str) -> String {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    base.strip_suffix(".onnx").unwrap_or(base).to_owned()
}

fn main_ports(module: &Module) -> Result<Vec<strata_isa_spec::bundle::Port>, CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    session::ports(module, func, false).map_err(CompileError::CalibrationData)
}

/// A module with one function of another, for printing it alone.
fn module_of(module: &Module, func: &str) -> Module {
    let mut alone = module.clone();
    let keep = alone.function(func);
    let body = alone.body();
    alone.erase_where(body, |op| Some(op) != keep);
    alone
}

/// Multiply-accumulates of the f32 network: convolutions and matrix products.
pub fn f32_macs(module: &Module) -> u64 {
    let macs = |op| -> Option<u64> {
        let data = module.op(op);
        let shape = |at: usize| Some(&module.ty(*data.operands().get(at)?).as_tensor()?.shape);
        let out = module.ty(*data.results().first()?).as_tensor()?.n_elements() as u64;
        Some(match &data.op {
            Op::Conv2d(_) => out * shape(1)?[1..].iter().product::<usize>() as u64,
            Op::DepthwiseConv2d(_) => out * (shape(1)?[0] * shape(1)?[1]) as u64,
            Op::TransposeConv2d(_) => {
                shape(0)?.iter().product::<usize>() as u64 * shape(1)?[..3].iter().product::<usize>() as u64
            }
            Op::MatMul(_) => out * *shape(0)?.last()? as u64,
            _ => 0,
        })
    };
    module.walk(module.body()).into_iter().filter_map(macs).sum()
}

/// Normal noise from a seed: a sum of uniform deviates of a counter-based generator.
fn noise(seed: u64, shape: &[usize]) -> Array {
    let uniform = |index: u64| {
        // SplitMix64.
        let mut z =
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let n = shape.iter().product::<usize>() as u64;
    // Four uniform deviates have variance 1/3.
    let normal = |i: u64| ((0..4).map(|k| uniform(4 * i + k)).sum::<f64>() - 2.0) * 3f64.sqrt();
    Array { shape: shape.to_vec(), dtype: DType::F32, values: (0..n).map(normal).collect() }
}

fn model_stats(graph: &StageGraph) -> ModelStats {
    use strata_isa_spec::Head;
    // A layer that was split by output channels is one entry of the activation table.
    let layers = activation_table(graph, 0).convolutions.values().map(|&n| u64::from(n)).sum();
    let mut stats = ModelStats { layers, ..ModelStats::default() };
    for node in graph.stages.values() {
        stats.macs_direct += node.code.macs_direct();
        stats.macs_winograd += node.code.macs_winograd();
        match node.code.head {
            Head::MatMul(_) | Head::MatMulI16(_) => stats.layers += 1,
            Head::Conv2d(_)
            | Head::DepthwiseConv2d(_)
            | Head::TransposeConv2d(_)
            | Head::Conv2dI16(_)
            | Head::DepthwiseConv2dI16(_)
            | Head::TransposeConv2dI16(_) => {
                stats.weights +=
                    strata_isa_spec::interp::tables(&node.code).first().map_or(0, |(_, len)| *len);
            }
            _ => {}
        }
    }
    stats
}

fn plan_stats(plan: &Plan, macs: u64, target: &Target, objective: Objective, mode: Mode) -> PlanStats {
    let clock = target.array.clock_hz;
    PlanStats {
        mode: word(&mode),
        objective: word(&objective),
        phases: plan.phases.len() as u64,
        stages: plan.phases.iter().map(|p| p.stages.len() as u64).sum(),
        largest_phase_stages: plan.phases.iter().map(|p| p.stages.len() as u64).max().unwrap_or(0),
        cycles: plan.cycles,
        lower_bound_cycles: plan.certificate.lower_bound_cycles,
        gap: plan.certificate.gap,
        proven_optimal: plan.certificate.proven_optimal,
        dram_bytes: plan.dram_bytes,
        mac_utilisation: if plan.cycles == 0 {
            0.0
        } else {
            macs as f64 / (plan.cycles as f64 * target.macs() as f64)
        },
        frames_per_second: stats::frames_per_second(clock, plan.cycles),
        ..PlanStats::default()
    }
}

/// Most bytes of activation and of weight SRAM in use: the ends of the highest stream and the highest load.
fn peaks(program: &Program) -> (u64, u64) {
    let streams = program.streams.iter().map(|s| u64::from(s.base) + s.size_bytes());
    let loads = program.phases.iter().flat_map(|p| &p.loads).map(|l| u64::from(l.dst.0) + u64::from(l.bytes));
    (streams.max().unwrap_or(0), loads.max().unwrap_or(0))
}

/// Wall seconds of each step.
#[derive(Clone, Debug, Default)]
struct Clock {
    running: Option<(String, Instant)>,
    seconds: BTreeMap<String, f64>,
}

impl Clock {
    fn begin(&mut self, step: &str, observer: &mut dyn FnMut(Event<'_>)) {
        self.stop();
        observer(Event::Step(step));
        self.running = Some((step.to_owned(), Instant::now()));
    }

    fn stop(&mut self) {
        if let Some((step, since)) = self.running.take() {
            *self.seconds.entry(step).or_default() += since.elapsed().as_secs_f64();
        }
    }

    fn finish(mut self) -> BTreeMap<String, f64> {
        self.stop();
        self.seconds
    }
}
