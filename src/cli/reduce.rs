//! `strata reduce`: the smallest module, model, pipeline or program that is found to fail still.

use std::path::{Path, PathBuf};

use strata_frontend::import::ImportOptions;
use strata_frontend::proto::encode;
use strata_ir::pass::{Pipeline, Registry};
use strata_ir::text::file::Header;
use strata_ir::text::file::{RUN, TARGET};
use strata_ir::{Module, verify};
use strata_passes::quantise::TensorRange;
use strata_passes::testing::{self, Trouble};

use super::args::{self, Given, ImageArgs, TargetArgs, Written, demand_outputs, parse_shape};
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use crate::compile::checkpoint::Record;
use crate::compile::{CalibrationData, CompileOptions};
use crate::io::{self, write_atomic};
use crate::ranges::RangeFile;
use crate::reduce::calibration::CandidateCalibration;
use crate::reduce::oracle::{Oracle, Symptom};
use crate::reduce::{Progress, reduce_lines, reduce_module, reduce_onnx, reduce_pipeline};

/// Shrink a module, a model, a pipeline or a program to a small one that fails still
///
/// Passes run on each candidate, and it has to fail as the file does: by a panic, by other results, by an
/// error or as a script says. A module and a model lose layers, results and the values of constants; a
/// pipeline, which
/// --passes or the file's `// RUN:` names, loses passes; the assembly of a program loses lines. The result
/// brings its pipeline, for `strata opt` and `strata test`. Where ranges are given or gathered, those of the
/// values that are left stand beside it, for --ranges of `strata opt`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("symptom").required(true)))]
pub(super) struct Args {
    /// A .mlir file with one module, an ONNX file, a .tosa file, or the assembly of a program (.asm)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the result goes [default: beside the file, as FILE.reduced.mlir and the like]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The passes that run on it [default: those that the file names]
    #[arg(long, value_name = "PIPELINE")]
    passes: Option<String>,
    /// It fails by a panic
    #[arg(long, group = "symptom")]
    panic: bool,
    /// It computes something else after the passes than before, in the evaluator or, once scheduled, on the
    /// interpreter
    #[arg(long, group = "symptom")]
    miscompile: bool,
    /// It fails with an error that has this in its text, such as a code
    #[arg(long, group = "symptom", value_name = "TEXT")]
    error: Option<String>,
    /// This shell command ends with exit code 0 when it is given the file, as $1 or at its end; it has all
    /// the time that it takes
    #[arg(long, group = "symptom", value_name = "COMMAND")]
    script: Option<String>,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// Seed of the noise that candidates in f32 are calibrated on [default: that of the compile, or 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Ranges of activations, which a candidate takes for those of its values that have the names: a file
    /// that `compile` or `opt` wrote with --save-ranges
    #[arg(long, value_name = "FILE.json")]
    ranges: Option<PathBuf>,
    /// Pictures or arrays on which ranges are gathered once, of the whole, and given to candidates by name: a
    /// file or a folder
    #[arg(long, value_name = "PATH")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Which of these were given.
    #[arg(skip)]
    pub(super) given: Given,
}

impl Args {
    fn symptom(&self) -> Symptom {
        match (&self.error, &self.script) {
            (Some(text), _) => Symptom::Error(text.clone()),
            (_, Some(command)) => Symptom::Script(command.clone()),
            _ if self.panic => Symptom::Panic,
            _ => Symptom::Miscompile,
        }
    }

    /// The pipeline that is named here, or by the file.
    fn pipeline(&self, registry: &Registry, header: &Header) -> Result<Pipeline, Failure> {
        match (&self.passes, header.get(RUN)) {
            (Some(text), _) => Ok(registry.parse(text)?),
            (None, None | Some("round-trip" | "verify" | "assemble")) => Ok(Pipeline::default()),
            (None, Some(text)) => {
                registry.parse(text).map_err(|error| Failure::file(&self.file, format!("{RUN}: {error}")))
            }
        }
    }

    fn oracle(
        &self,
        registry: &Registry,
        header: &Header,
        recorded: Option<CompileOptions>,
    ) -> Result<Oracle, Failure> {
        let seed = match recorded.as_ref().map(|options| &options.calibration) {
            Some(CalibrationData::Noise { seed, .. }) => *seed,
            _ => 0,
        };
        let recorded = recorded.map(|options| options.target);
        let calibration =
            CandidateCalibration { seed: self.seed.unwrap_or(seed), ranges: self.given_ranges()? };
        let named = header.get(TARGET).map(testing::target).transpose();
        let named = named.map_err(|error| Failure::file(&self.file, format!("{TARGET}: {error}")))?;
        let target = self.target.target_or(&self.given, named.or(recorded).as_ref())?;
        Ok(Oracle {
            symptom: self.symptom(),
            pipeline: self.pipeline(registry, header)?,
            target,
            input_shapes: self.input_shapes.iter().cloned().collect(),
            calibration,
            only_valid: false,
        })
    }

    fn given_ranges(&self) -> Result<Vec<TensorRange>, Failure> {
        let Some(path) = &self.ranges else { return Ok(Vec::new()) };
        let file = args::ranges(path)?;
        if file.equalised {
            let why = "they are of a network that is equalised, and candidates are not, which takes data";
            return Err(Failure::file(path, why));
        }
        Ok(file.tensors)
    }

    /// Gathers ranges of the whole, if there are data.
    fn gather(&self, module: &Module, oracle: &mut Oracle) -> Result<(), Failure> {
        let Some(path) = &self.calibrate else { return Ok(()) };
        let data = model::calibration(path, &model::main_ports(module)?.0, &self.images.options())?;
        let Oracle { calibration, pipeline, target, .. } = oracle;
        let gathered = calibration.gather(pipeline, target, module, data);
        gathered.map_err(|error| Failure::file(&self.file, format!("--calibrate: {error}")))
    }
}

/// What is written in the end.
struct Reduced {
    bytes: Vec<u8>,
    told: String,
    /// Ranges of its values, if any are given or gathered.
    ranges: Vec<TensorRange>,
}

/// Runs the command.
pub(super) fn run(args: &Args, registry: &Registry, console: &Console) -> Result<(), Failure> {
    // Candidates may panic, which is nobody's concern.
    std::panic::set_hook(Box::new(|_| {}));
    let path = &args.file;
    let output = args.output.clone();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("mlir");
    // What is reduced of a flatbuffer is a module.
    let extension = if extension == "tosa" { "mlir" } else { extension };
    let output = output.unwrap_or_else(|| path.with_extension(format!("reduced.{extension}")));
    demand_outputs(path, &[Written { flag: "--output", path: Some(&output) }])?;
    let progress = console.progress(None);
    let seen = &mut |told: Progress| {
        progress.step(&format!("{} candidates tried, {} left", told.n_tried, told.n_left));
    };
    let is_assembly = path.extension().is_some_and(|extension| extension == "asm");
    let reduced = if is_assembly {
        assembly(args, registry, seen)?
    } else {
        match model::content(path)? {
            Content::Ir(source) => {
                let module = model::module(path, &source, console)?;
                let oracle = args.oracle(registry, &Header::read(&source, "//"), recorded(&module))?;
                module_file(args, &module, oracle, seen)?
            }
            Content::Tosa(bytes) => {
                let module = model::flatbuffer(path, &bytes)?;
                module_file(args, &module, args.oracle(registry, &Header::default(), None)?, seen)?
            }
            Content::Onnx(bytes) => onnx(args, &bytes, registry, seen)?,
            Content::Bundle(_) => {
                let what =
                    "a bundle; `strata disasm` gives the assembly of its program, which can be reduced";
                return Err(Failure::file(path, what));
            }
        }
    };
    drop(progress);
    write_atomic(&output, &reduced.bytes)?;
    if io::is_standard_stream(&output) {
        console.note(&reduced.told);
        return Ok(());
    }
    let mut told = format!("{}\nwrote {}\n", reduced.told, io::shown(&output));
    if !reduced.ranges.is_empty() {
        let beside = output.with_extension("ranges.json");
        let file = RangeFile { equalised: false, tensors: reduced.ranges };
        write_atomic(&beside, file.to_json().as_bytes())?;
        told += &format!("wrote {}, for --ranges\n", io::shown(&beside));
    }
    console.summary(&told)
}

fn recorded(module: &Module) -> Option<CompileOptions> {
    Record::of(module).ok().flatten().map(|record| record.options)
}

fn does_not_fail(path: &Path, symptom: &Symptom, instead: Option<Trouble>) -> Failure {
    let what = match symptom {
        Symptom::Panic => "nothing panics".to_owned(),
        Symptom::Miscompile => "what is computed is the same before and after".to_owned(),
        Symptom::Error(text) => format!("there is no error with `{text}` in it"),
        Symptom::Script(command) => format!("`{command}` does not end with exit code 0"),
    };
    let instead = match instead {
        Some(trouble) => format!("; what is wrong with it is:\n{trouble}"),
        None => String::new(),
    };
    Failure::file(path, format!("it does not fail so: {what}{instead}"))
}

fn module_file(
    args: &Args,
    module: &Module,
    oracle: Oracle,
    seen: &mut dyn FnMut(Progress),
) -> Result<Reduced, Failure> {
    let mut oracle = Oracle { only_valid: verify(module).is_ok(), ..oracle };
    args.gather(module, &mut oracle)?;
    if !oracle.module_fails(module) {
        return Err(does_not_fail(&args.file, &oracle.symptom, oracle.trouble_of(module)));
    }
    let shorter = |oracle: &Oracle, module: &Module| {
        let mut fails = |passes: &Pipeline| oracle.with_pipeline(passes.clone()).module_fails(module);
        reduce_pipeline(&oracle.pipeline, &mut fails)
    };
    let oracle = oracle.with_pipeline(shorter(&oracle, module));
    let reduced = reduce_module(module, &mut |module| oracle.module_fails(module), seen);
    let note = if reduced.is_none() { " (no part of the function `main` fails)" } else { "" };
    let reduced = reduced.unwrap_or_else(|| module.clone());
    let oracle = oracle.with_pipeline(shorter(&oracle, &reduced));
    let told = format!(
        "{} of {} ops are left{note}, and {}",
        n_ops(&reduced),
        n_ops(module),
        passes_left(&oracle.pipeline)
    );
    let ranges = oracle.ranges_of(&reduced);
    Ok(Reduced { bytes: oracle.file_of(&reduced).into_bytes(), told, ranges })
}

fn passes_left(pipeline: &Pipeline) -> String {
    if pipeline.passes().is_empty() { "no pass".to_owned() } else { format!("the passes {pipeline}") }
}

/// Ops of `main` that are no constants.
fn n_ops(module: &Module) -> usize {
    let Some(main) = module.function("main") else { return 0 };
    let ops = module.block_ops(module.entry_block(main)).iter();
    ops.filter(|&&op| !module.op(op).op.is_constant() && !module.op(op).op.is_terminator()).count()
}

fn onnx(
    args: &Args,
    bytes: &[u8],
    registry: &Registry,
    seen: &mut dyn FnMut(Progress),
) -> Result<Reduced, Failure> {
    let mut oracle = args.oracle(registry, &Header::default(), None)?;
    let model = model::resolved(bytes, &args.file, &args.input_shapes)?.model;
    if args.calibrate.is_some() {
        let module = oracle.import(&encode(&model)).map_err(|error| Failure::file(&args.file, error))?;
        args.gather(&module, &mut oracle)?;
    }
    if !oracle.model_fails(&model) {
        return Err(does_not_fail(&args.file, &oracle.symptom, None));
    }
    let mut fails = |passes: &Pipeline| oracle.with_pipeline(passes.clone()).model_fails(&model);
    let oracle = oracle.with_pipeline(reduce_pipeline(&oracle.pipeline, &mut fails));
    let options = ImportOptions {
        input_shapes: args.input_shapes.iter().cloned().collect(),
        ..ImportOptions::default()
    };
    let reduced = reduce_onnx(&model, &options, &mut |model| oracle.model_fails(model), seen);
    let reduced = reduced.map_err(|error| Failure::file(&args.file, error))?.unwrap_or_else(|| model.clone());
    let n_nodes =
        |model: &strata_frontend::proto::ModelProto| model.graph.iter().map(|g| g.node.len()).sum::<usize>();
    let told = format!(
        "{} of {} nodes are left, and {}",
        n_nodes(&reduced),
        n_nodes(&model),
        passes_left(&oracle.pipeline)
    );
    let bytes = encode(&reduced);
    let ranges = oracle.import(&bytes).map_or_else(|_| Vec::new(), |module| oracle.ranges_of(&module));
    Ok(Reduced { bytes, told, ranges })
}

fn assembly(args: &Args, registry: &Registry, seen: &mut dyn FnMut(Progress)) -> Result<Reduced, Failure> {
    let text =
        String::from_utf8(io::read(&args.file)?).map_err(|_| Failure::file(&args.file, "not UTF-8 text"))?;
    if args.miscompile {
        return Err(Failure::Usage(
            "--miscompile is for modules and models: a program has no other form".to_owned(),
        ));
    }
    let oracle = args.oracle(registry, &Header::read(&text, ";"), None)?;
    if !oracle.assembly_fails(&text) {
        return Err(does_not_fail(&args.file, &oracle.symptom, None));
    }
    let reduced = reduce_lines(&text, &mut |text| oracle.assembly_fails(text), seen);
    let told = format!("{} of {} lines are left", reduced.lines().count(), text.lines().count());
    Ok(Reduced { bytes: reduced.into_bytes(), told, ranges: Vec::new() })
}
