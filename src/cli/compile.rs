//! `strata compile`: an ONNX model or a TOSA function to a bundle.

use std::path::{Path, PathBuf};
use std::time::Duration;

use strata_frontend::import::Resolved;
use strata_ir::Module;
use strata_ir::pass::Level;
use strata_isa_spec::bundle::Bundle;
use strata_passes::quantise::TensorRange;
use strata_passes::rewrite::{Families, UnknownFamily};

use super::args::{Given, ImageArgs, PtqArgs, RangeArgs, TargetArgs, Written, demand_outputs, parse_shape};
use super::console::{Console, Progress};
use super::dumps::{self, DumpFolder, PrintArgs};
use super::failure::Failure;
use super::model::{self, Content};
use super::program::program_text;
use super::tables::{
    count, decimal_bytes, host_text, no_stream_text, percent, plan_lines, row, show, si, table,
};
use crate::compile::checkpoint::Checkpoint;
use crate::compile::{
    CalibrationData, CompileOptions, Compiled, Compiler, Event, PrecisionMode, PrecisionOptions,
};
use crate::io::{self, write_atomic};
use crate::ptq::PtqOptions;
use crate::ranges::RangeFile;
use crate::stats::ChannelNoise;
use crate::timings::{Stopwatch, Timings, TotalTime};
use crate::{Mode, Objective};

/// Compile an ONNX model or a TOSA function to a bundle
///
/// A function of TOSA in integers, as other tools quantise it, is compiled as it stands; one in f32 is
/// calibrated and quantised as an ONNX model is.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An ONNX file, a TOSA flatbuffer (.tosa), or MLIR with one function of TOSA (.mlir)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The bundle to write [default: the model's name with .strata]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Several layers at once, or layer by layer
    #[arg(long, value_enum, default_value = "multi")]
    mode: ModeArg,
    /// Families of rewrites that are on, or with `-` before them off, such as `all` or `-upsample,-sibling`;
    /// docs/generated/rewrites.md lists them
    #[arg(
        long,
        value_name = "FAMILIES",
        default_value = "default",
        value_parser = parse_families,
        allow_hyphen_values = true
    )]
    egraph_rules: Families,
    /// What the plan minimises
    #[arg(long, value_enum, default_value = "latency")]
    objective: ObjectiveArg,
    /// For least latency: by how many percent a plan may be slower than the fastest and count as equally
    /// fast; the one of those that moves the fewest DRAM bytes is taken
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    tolerance: u32,
    /// Pictures or arrays that activation ranges are gathered on: a file or a folder [default: seeded noise]
    #[arg(long, value_name = "PATH")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    ranges: RangeArgs,
    /// Bits of activations: 8, 16, or 16 where a search finds that it is worth its time
    #[arg(long, value_enum, default_value = "int8")]
    precision: PrecisionArg,
    /// With --precision mixed: array cycles that 16-bit activations may add
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT", value_parser = parse_percent)]
    precision_budget: f64,
    /// With --precision mixed: signal to noise of the outputs at which the search stops
    #[arg(long, value_name = "DB", value_parser = parse_decibels)]
    target_sqnr: Option<f64>,
    /// A layer (the name of its node) or input with 16-bit values, whatever the precision; may be repeated
    #[arg(long, value_name = "NAME")]
    int16: Vec<String>,
    /// Seed of the noise that stands in for calibration data
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Shape of an input, for dynamic dimensions or another size
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// Write the IR of a level (or the program's text) instead of a bundle
    #[arg(long, value_name = "LEVEL", value_parser = Level::ALL.map(Level::name))]
    emit: Option<String>,
    /// Write the IR of every level to a folder
    #[arg(long, value_name = "DIR")]
    dump_levels: Option<PathBuf>,
    #[command(flatten)]
    print: PrintArgs,
    /// Write statistics as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Do not measure the outputs against f32
    #[arg(long)]
    no_measure: bool,
    /// Tell what each step took, and its memory; with a file, write that too, as a trace for ui.perfetto.dev
    #[arg(long, value_name = "FILE.json", num_args = 0..=1, require_equals = true)]
    timings: Option<Option<PathBuf>>,
    /// Let the host run nothing: nodes that the machine has no form of are an error, which lists them all
    #[arg(long)]
    no_host: bool,
    #[command(flatten)]
    ptq: PtqArgs,
    #[command(flatten)]
    images: ImageArgs,
    /// Which of these were given.
    #[arg(skip)]
    pub(super) given: Given,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeArg {
    /// Several layers at once
    Multi,
    /// Layer by layer
    Single,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum PrecisionArg {
    /// 8 bits
    Int8,
    /// 16 bits where it is worth it
    Mixed,
    /// 16 bits
    Int16,
}

/// A list of families of rewrites.
fn parse_families(text: &str) -> Result<Families, UnknownFamily> {
    Families::parse(text, ',')
}

/// A share of at least nothing, in per cent.
fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok().filter(|p| p.is_finite() && *p >= 0.0);
    percent.ok_or_else(|| "expected a number of per cent from 0".to_owned())
}

/// A ratio in decibels.
fn parse_decibels(text: &str) -> Result<f64, String> {
    let decibels = text.parse::<f64>().ok().filter(|db| db.is_finite());
    decibels.ok_or_else(|| "expected a number of decibels, such as 30".to_owned())
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ObjectiveArg {
    /// Cycles
    Latency,
    /// Picojoules
    Energy,
    /// DRAM bytes
    Traffic,
    /// Energy times delay
    Edp,
    /// Bytes of activation SRAM at the peak
    Sram,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let emit = args.emit.as_deref().and_then(Level::from_name);
    let asked = options(args)?;
    if args.output.is_none() && emit.is_none() && io::is_standard_stream(&args.model) {
        return Err(Failure::Usage("a model from standard input gives a bundle no name: add -o".to_owned()));
    }
    // Told now, not when all is compiled.
    let bundle = emit.is_none().then(|| bundle_path(args));
    let output = Written { flag: "--output", path: args.output.as_deref().or(bundle.as_deref()) };
    let stats = Written { flag: "--stats", path: args.stats.as_deref() };
    let trace =
        Written { flag: "--timings", path: args.timings.iter().flatten().next().map(PathBuf::as_path) };
    demand_outputs(&args.model, &[output, stats, trace, args.ranges.saved()])?;
    let mut stopwatch = Stopwatch::default();
    stopwatch.begin("read");
    let source = source(args, console)?;
    let folder = args.dump_levels.as_deref().map(|path| DumpFolder::create(path, args.print)).transpose()?;
    let options = CompileOptions { calibration: calibration(args, &source)?, ..asked };
    let options = CompileOptions { ranges: args.ranges.given()?, ..options };
    let options = match source.recorded() {
        Some((level, recorded)) => {
            if let Some(note) = too_late(level, &args.given) {
                console.note(&note);
            }
            overridden(args, options, recorded)?
        }
        None => options,
    };
    stopwatch.stop();
    let equalised = options.equalises();
    let compiler = Compiler::new(options);
    let progress = console.progress(None);
    let mut dumps = Dumps {
        folder,
        emit,
        progress: &progress,
        failure: None,
        emitted: None,
        part: 0,
        ranges: RangeFile { equalised, tensors: Vec::new() },
    };
    let file_name = model::file_name(&args.model);
    let observer = &mut |event: Event<'_>| dumps.see(event);
    let compiled = match source {
        Source::Onnx(resolved) => compiler.compile_resolved(&resolved, &file_name, observer),
        Source::Module(module) => compiler.compile_module(module, &file_name, observer),
        Source::Checkpoint(checkpoint) => compiler.compile_checkpoint(*checkpoint, &file_name, observer),
    };
    let Dumps { failure, emitted, ranges, .. } = dumps;
    drop(progress);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let compiled = match compiled {
        Ok(compiled) => compiled,
        // The level that was asked for was reached before what failed.
        Err(error) => match emitted {
            Some(modules) => {
                console.note(&format!("a later level failed: {error}"));
                return write_modules(args, &modules, console);
            }
            None => return Err(Failure::from(error).about(&args.model)),
        },
    };
    stopwatch.begin("write");
    args.ranges.save(&ranges)?;
    if let Some(path) = &args.stats {
        let json = serde_json::to_string_pretty(&compiled.stats).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    if let Some(folder) = &args.dump_levels {
        write_atomic(&folder.join("5-program.asm"), program_text(&compiled.bundle).as_bytes())?;
    }
    match emit {
        Some(Level::Program) => {
            let text = program_text(&compiled.bundle);
            match &args.output {
                Some(path) => write_atomic(path, text.as_bytes())?,
                None => console.print(&text)?,
            }
        }
        Some(level) => {
            let modules =
                emitted.ok_or_else(|| Failure::Failed(format!("level `{level}` was not reached")))?;
            write_modules(args, &modules, console)?;
        }
        None => {
            let path = bundle_path(args);
            write_atomic(&path, &bytes_of(&compiled.bundle)?)?;
            console.summary(&summary(&compiled, &path))?;
        }
    }
    let mut timings = stopwatch.finish();
    timings.extend(compiled.timings);
    tell(args, &timings, console)
}

/// The bytes of a bundle, which are those of a bundle: they are read back, but for the weights.
fn bytes_of(bundle: &Bundle) -> Result<Vec<u8>, Failure> {
    let bytes = bundle.to_bytes()?;
    Bundle::without_weights(&bytes).map_err(|error| {
        Failure::Failed(format!(
            "the compiler made a bundle that cannot be read, a defect of Strata: {error}"
        ))
    })?;
    Ok(bytes)
}

/// Tells of what the steps took, as it was asked for.
fn tell(args: &Args, timings: &Timings, console: &Console) -> Result<(), Failure> {
    let Some(file) = &args.timings else { return Ok(()) };
    if let Some(path) = file {
        let trace = timings.to_trace(&format!("strata compile {}", model::file_name(&args.model)));
        write_atomic(path, format!("{trace}\n").as_bytes())?;
    }
    console.show(&steps(timings));
    Ok(())
}

/// A line for each step: its wall and processor seconds, its share of the wall time, and the most memory that
/// the process had needed when it was done.
fn steps(timings: &Timings) -> String {
    let totals = timings.by_name();
    let wall: Duration = totals.iter().map(|total| total.wall).sum();
    let mut lines = table(&["step", "wall s", "CPU s", "share", "peak memory"]);
    let mut line = |name: &str, time: &TotalTime| {
        let share = if wall.is_zero() { 0.0 } else { time.wall.as_secs_f64() / wall.as_secs_f64() };
        let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
        let (wall, cpu) = (seconds(time.wall), seconds(time.cpu));
        let peak = decimal_bytes(time.peak_rss_bytes);
        row(&mut lines, &[name.to_owned(), wall, cpu, percent(share), peak]);
    };
    totals.iter().for_each(|total| line(&total.name, total));
    let all = TotalTime {
        name: "total".to_owned(),
        wall,
        cpu: totals.iter().map(|total| total.cpu).sum(),
        peak_rss_bytes: totals.iter().map(|total| total.peak_rss_bytes).max().unwrap_or(0),
    };
    line("total", &all);
    show(&lines)
}

/// Where the bundle goes.
fn bundle_path(args: &Args) -> PathBuf {
    args.output.clone().unwrap_or_else(|| args.model.with_extension("strata"))
}

/// What is compiled.
enum Source {
    /// An ONNX model.
    Onnx(Box<Resolved>),
    /// A function of plain TOSA.
    Module(Module),
    /// A dump of a compile, or a function of plain TOSA as text.
    Checkpoint(Box<Checkpoint>),
}

impl Source {
    /// The level of a dump, and the options of the compile that wrote it.
    fn recorded(&self) -> Option<(Level, &CompileOptions)> {
        match self {
            Self::Checkpoint(checkpoint) => Some((checkpoint.level, checkpoint.options()?)),
            Self::Onnx(_) | Self::Module(_) => None,
        }
    }
}

fn source(args: &Args, console: &Console) -> Result<Source, Failure> {
    let path = &args.model;
    let source = match model::content(path)? {
        Content::Onnx(bytes) => {
            let resolved = model::resolved(&bytes, path, &args.input_shapes)?;
            return Ok(Source::Onnx(Box::new(resolved)));
        }
        Content::Bundle(_) => return Err(Failure::file(path, "a bundle is compiled already")),
        Content::Ir(text) => Source::Checkpoint(Box::new(model::checkpoint(path, &text, console)?)),
        Content::Tosa(bytes) => Source::Module(model::flatbuffer(path, &bytes)?),
    };
    if !args.input_shapes.is_empty() {
        let what = "--input-shape is for ONNX models; a TOSA function's shapes are fixed".to_owned();
        return Err(Failure::Usage(what));
    }
    Ok(source)
}

fn options(args: &Args) -> Result<CompileOptions, Failure> {
    Ok(CompileOptions {
        mode: match args.mode {
            ModeArg::Multi => Mode::Multi,
            ModeArg::Single => Mode::Single,
        },
        objective: match args.objective {
            ObjectiveArg::Latency => Objective::Latency,
            ObjectiveArg::Energy => Objective::Energy,
            ObjectiveArg::Traffic => Objective::Traffic,
            ObjectiveArg::Edp => Objective::Edp,
            ObjectiveArg::Sram => Objective::Sram,
        },
        tolerance_percent: args.tolerance,
        ptq: args.ptq.options(),
        precision: precision(args)?,
        input_shapes: args.input_shapes.iter().cloned().collect(),
        measure_sqnr: !args.no_measure,
        host: !args.no_host,
        families: args.egraph_rules.clone(),
        ..CompileOptions::new(args.target.target()?)
    })
}

/// Arguments that decide nothing any more from a level on: what they decide stands in its dumps.
const DECIDED: [(Level, &[&str]); 3] = [
    (Level::Quant, &["calibrate", "ranges", "save_ranges", "seed", "range", "equalise", "bias_correction"]),
    (Level::Stages, &["precision", "precision_budget", "target_sqnr", "int16"]),
    (Level::Phases, &["tolerance", "egraph_rules"]),
];

/// A note of the arguments that come too late for a dump of a level, if any do.
fn too_late(level: Level, given: &Given) -> Option<String> {
    let decided = DECIDED.iter().filter(|(by, _)| *by <= level).flat_map(|(_, names)| *names);
    let flag = |name: &&str| format!("--{}", name.replace('_', "-"));
    let late: Vec<String> = decided.filter(|name| given.has(name)).map(flag).collect();
    (!late.is_empty())
        .then(|| format!("what {} would decide stands in a dump of level `{level}` already", late.join(", ")))
}

/// The options of a checkpoint, but for those that are given anew.
fn overridden(
    args: &Args,
    asked: CompileOptions,
    recorded: &CompileOptions,
) -> Result<CompileOptions, Failure> {
    let given = &args.given;
    let any = |names: &[&str]| names.iter().any(|name| given.has(name));
    let calibration =
        if any(&["calibrate", "seed"]) { asked.calibration } else { recorded.calibration.clone() };
    let precision = if any(&["precision", "precision_budget", "target_sqnr", "int16"]) {
        asked.precision
    } else {
        recorded.precision.clone()
    };
    let ptq = PtqOptions {
        range: given.or("range", asked.ptq.range, recorded.ptq.range),
        equalise: given.or("equalise", asked.ptq.equalise, recorded.ptq.equalise),
        bias_correction: given.or("bias_correction", asked.ptq.bias_correction, recorded.ptq.bias_correction),
    };
    Ok(CompileOptions {
        target: args.target.target_or(given, Some(&recorded.target))?,
        objective: given.or("objective", asked.objective, recorded.objective),
        tolerance_percent: given.or("tolerance", asked.tolerance_percent, recorded.tolerance_percent),
        mode: given.or("mode", asked.mode, recorded.mode),
        calibration,
        ranges: given.or("ranges", asked.ranges, recorded.ranges.clone()),
        ptq,
        precision,
        input_shapes: recorded.input_shapes.clone(),
        measure_sqnr: given.or("no_measure", asked.measure_sqnr, recorded.measure_sqnr),
        host: given.or("no_host", asked.host, recorded.host),
        families: given.or("egraph_rules", asked.families, recorded.families.clone()),
    })
}

/// Which activations are 16-bit.
fn precision(args: &Args) -> Result<PrecisionOptions, Failure> {
    let mode = match args.precision {
        PrecisionArg::Int8 => PrecisionMode::Int8,
        PrecisionArg::Int16 => PrecisionMode::Int16,
        PrecisionArg::Mixed => {
            PrecisionMode::Mixed { budget_percent: args.precision_budget, target_db: args.target_sqnr }
        }
    };
    if args.target_sqnr.is_some() && args.precision != PrecisionArg::Mixed {
        return Err(Failure::Usage("--target-sqnr is for --precision mixed".to_owned()));
    }
    Ok(PrecisionOptions { mode, int16: args.int16.clone() })
}

/// What activations are calibrated on. Samples need the shapes of the inputs, which only the import tells.
fn calibration(args: &Args, source: &Source) -> Result<CalibrationData, Failure> {
    let Some(path) = &args.calibrate else { return Ok(CalibrationData::noise(args.seed)) };
    let inputs = match source {
        Source::Onnx(resolved) => model::onnx_inputs(resolved, &args.model, &args.input_shapes)?,
        Source::Module(module) => model::main_ports(module)?.0,
        Source::Checkpoint(checkpoint) => match (&checkpoint.record, checkpoint.only_module()) {
            (Some(record), _) => record.inputs.clone(),
            (None, Some(module)) => model::main_ports(module)?.0,
            (None, None) => Vec::new(),
        },
    };
    model::calibration(path, &inputs, &args.images.options())
}

/// Watches a compile: shows its steps and keeps or writes the IR that was asked for.
struct Dumps<'a> {
    folder: Option<DumpFolder>,
    emit: Option<Level>,
    progress: &'a Progress<'a>,
    failure: Option<Failure>,
    emitted: Option<Vec<Module>>,
    /// Which part of the model it is.
    part: usize,
    /// The ranges of the parts so far.
    ranges: RangeFile,
}

impl Dumps<'_> {
    fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Step(step) => self.progress.step(step),
            Event::Note(note) => self.progress.note(&note),
            Event::Part { is_planned: true, .. } => {}
            // The model is in parts: what was seen until now was of an attempt to compile it as a whole.
            Event::Part { index, .. } => {
                self.emitted = None;
                if index == 0 {
                    self.ranges.tensors.clear();
                }
                self.part = index;
            }
            Event::Quantised(ranges) => {
                let part = self.part;
                self.ranges.tensors.extend(ranges.iter().map(|range| TensorRange { part, ..range.clone() }));
            }
            Event::Reached(checkpoint) => {
                let kept = self.keep(checkpoint);
                self.failure = self.failure.take().or(kept.err());
            }
        }
    }

    /// Writes a checkpoint to the folder of dumps, and keeps it if it is what was asked for.
    fn keep(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let level = checkpoint.level;
        if self.folder.is_none() && self.emit != Some(level) {
            return Ok(());
        }
        let modules = checkpoint.to_modules()?;
        if let Some(folder) = &mut self.folder {
            let at = Level::ALL.iter().position(|l| *l == level).unwrap_or_default();
            folder.write(&format!("{at}-{level}.mlir"), &modules)?;
        }
        if self.emit == Some(level) {
            self.emitted = Some(modules);
        }
        Ok(())
    }
}

fn write_modules(args: &Args, modules: &[Module], console: &Console) -> Result<(), Failure> {
    dumps::write(args.output.as_deref(), modules, args.print, console)
}

/// Measuring that takes longer and more of a compile than this is told of.
const LONG_MEASURE_SECONDS: f64 = 1.0;
const LONG_MEASURE_SHARE: f64 = 0.25;

/// How a compile that took so many seconds does without those that it measured, if they were many.
fn of_which_measuring(measuring: f64, all: f64) -> String {
    if measuring <= LONG_MEASURE_SECONDS || measuring <= LONG_MEASURE_SHARE * all {
        return String::new();
    }
    format!(", {measuring:.1} s of which measured the outputs: --no-measure leaves that out")
}

fn summary(compiled: &Compiled, path: &Path) -> String {
    let stats = &compiled.stats;
    let model = &stats.model;
    let mut text = format!(
        "{}: {} layers, {} MACs ({} with Winograd), {} weights\n\n",
        compiled.bundle.manifest.network,
        model.layers,
        si(model.macs_direct as f64),
        si(model.macs_winograd as f64),
        count(model.weights)
    );
    if compiled.plans.is_empty() {
        text += "the machine has nothing to run of it\n";
    } else {
        let mut plan = table(&["plan", &stats.plan.mode]);
        for (what, values) in plan_lines(&[(&stats.plan, stats.simulated.as_ref())]) {
            row(&mut plan, &[&[what.to_owned()], values.as_slice()].concat());
        }
        text += &show(&plan);
        let n_programs = compiled.bundle.machines().count();
        text += &stats.simulated.as_ref().map_or_else(String::new, |s| no_stream_text(s, n_programs));
    }
    if let Some(host) = &stats.host {
        text += &format!("\n{}", host_text(host));
    }
    for (name, db) in &stats.sqnr_db {
        text += &match db {
            Some(db) => format!("\noutput `{name}`: {db:.1} dB signal to quantisation noise against f32"),
            None => format!("\noutput `{name}`: no quantisation noise against f32"),
        };
        for weak in stats.weak_channels.get(name).into_iter().flatten() {
            let ChannelNoise { axis, first, last, sqnr_db } = weak;
            text += &format!("\n  but only {sqnr_db:.1} dB in {first} to {last} along axis {axis}");
        }
    }
    if let Some(compile) = &stats.compile {
        let seconds: f64 = compile.seconds_by_pass.values().sum();
        text += &format!("\ncompiled in {seconds:.1} s");
        let measuring = compile.seconds_by_pass.get("measure").copied().unwrap_or(0.0);
        text += &of_which_measuring(measuring, seconds);
    }
    text + &format!("\nwrote {}\n", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_cannot_be_read_is_no_file() {
        let zoo = strata_frontend::zoo::build("fsrcnn", &strata_frontend::zoo::ZooOptions::default());
        let onnx = strata_frontend::proto::encode(&zoo.expect("a network"));
        let target = crate::Target::preset("tile", &[]).expect("a preset");
        let options = CompileOptions { measure_sqnr: false, ..CompileOptions::new(target) };
        let compiled = Compiler::new(options).compile_onnx(&onnx, "net.onnx", &mut |_| {});
        let mut bundle = compiled.expect("it compiles").bundle;
        assert!(bytes_of(&bundle).is_ok());
        // JSON has no NaN.
        let input = bundle.parts.first_mut().and_then(|part| part.inputs.first_mut()).expect("an input");
        input.quantisation.as_mut().expect("it has a scale").scale = f64::NAN;
        let error = bytes_of(&bundle).expect_err("it cannot be read").to_string();
        assert!(error.contains("a defect of Strata"), "{error}");
    }

    #[test]
    fn measuring_that_takes_long_is_told_of() {
        assert_eq!(
            of_which_measuring(2.5, 6.0),
            ", 2.5 s of which measured the outputs: --no-measure leaves that out"
        );
        assert_eq!(of_which_measuring(0.9, 1.0), "", "a second is not long");
        assert_eq!(of_which_measuring(2.5, 20.0), "", "most of the time went elsewhere");
    }
}
