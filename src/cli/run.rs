//! `strata run`: a bundle on the machine's interpreter, or an ONNX model or a TOSA function on the evaluator.

mod many;
mod stages;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use strata_ir::Module;
use strata_isa_spec::bundle::{Bundle, Port};
use strata_isa_spec::interp::ExecError;
use strata_isa_spec::timed;

use super::args::{ImageArgs, parse_input, parse_shape};
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use super::tables::{count, decimal_bytes, joules, no_stream_text, percent, row, show, table, words};
use super::times::show_times;
use crate::compile::CompileError;
use crate::dump::WholeFolder;
use crate::evaluate;
use crate::float::FloatModel;
use crate::inputs;
use crate::io::atomic::WrittenFile;
use crate::io::temporary::Steady;
use crate::io::{
    Array, AtomicFile, FileStems, IoError, OutputFolders, create_output_folder, demand_folder, shown,
    write_atomic,
};
use crate::session::{self, Session};
use crate::stats::{PhaseStats, SimulatedStats, StreamStats};

/// Run a bundle on the interpreter, or a model on the evaluator
///
/// A bundle runs bit-exactly on the machine's interpreter. An ONNX model is imported and evaluated in f32,
/// with what the import does not take on the host as in a bundle; a TOSA function in its own arithmetic.
/// Outputs are written as NAME.npy, or as 0.npy, 1.npy, … when all inputs are named by position. What a file
/// name cannot have is _ in it, and where two names would be one file, also on a disk that does not tell
/// capitals, the output whose name it is keeps it and the others have .2, .3, … added. Outputs are written
/// when all of them are there: who fails or is interrupted leaves no file, and no folder that it made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundle, an ONNX model, a TOSA flatbuffer (.tosa) or MLIR with one function of TOSA (.mlir)
    #[arg(value_name = "FILE")]
    model: PathBuf,
    /// An input by name or position: .npy, .npz with one array, PNG or JPEG
    ///
    /// A number is the name of an input that is called so, or a position from 0 on, whichever gives every
    /// input one file; if both do, it is an error. #N is always a position. An array is taken as the model's
    /// type: floats are rounded to it (bfloat16, which NumPy lacks, is f32), integers have to be of it.
    #[arg(long = "input", short, value_name = "NAME=FILE", value_parser = parse_input)]
    inputs: Vec<(String, PathBuf)>,
    /// Run a bundle on many inputs: the arrays and pictures of a folder, those that a text file lists, one a
    /// line, or the batch of an .npz
    ///
    /// A network with one input takes the one array or picture of each file; one with several takes .npz
    /// files whose arrays have the inputs' names. The outputs of FILE.npy go into the folder FILE of
    /// --output-dir. A file that cannot be run is told, and the others are run all the same: what they gave
    /// stays.
    ///
    /// The arrays of a batch have the inputs' names too, and the inputs' shapes with an axis of N more before
    /// them; where an input's first extent is 1, N may stand there instead. Each output is one NAME.npy with
    /// N in the same place, also where N is 1. Inputs are read, run and written one by one. If one cannot be
    /// run, nothing is written, and no --dump-stages either.
    #[arg(long, value_name = "DIR|LIST.txt|BATCH.npz", conflicts_with_all = ["inputs", "checked"])]
    input_dir: Option<PathBuf>,
    /// Where the outputs go
    #[arg(long, short = 'o', value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Write what every stage made, as arrays named by layer, with an index (bundles only)
    ///
    /// DIR/raw has the machine's integers, DIR/float the real numbers that they stand for, DIR/outputs the
    /// network's outputs; DIR/index.json says of each tensor which nodes, stages and phases it is of, its
    /// shape and layout, element type, scale and zero point. The values are those that the machine wrote to
    /// its memory, also of tensors that are never whole there. With --input-dir each input has a folder in
    /// DIR: that of its file's name, or its number in a batch. An earlier dump is replaced; a folder with any
    /// other file in it is refused.
    #[arg(long, value_name = "DIR")]
    dump_stages: Option<PathBuf>,
    /// Write the machine's integers, not what they stand for (bundles and quantised TOSA functions)
    #[arg(long)]
    raw: bool,
    /// Check that every read of the machine's memories finds the row that it names, with ready stages in
    /// random order (bundles only; several times slower, same results)
    #[arg(long)]
    checked: bool,
    /// The seed of that order
    #[arg(long, value_name = "N", default_value_t = 0, requires = "checked")]
    seed: u64,
    /// Simulate the program's time too (bundles only)
    #[arg(long)]
    timing: bool,
    /// Write statistics as JSON (bundles only)
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    #[command(flatten)]
    images: ImageArgs,
}

impl Args {
    /// Whether what only a bundle has is asked for.
    fn is_of_machine(&self) -> bool {
        let paths = [&self.stats, &self.input_dir, &self.dump_stages];
        self.checked || self.timing || paths.iter().any(|path| path.is_some())
    }

    /// That outputs go nowhere into the folder of a dump, which holds nothing else.
    fn demand_apart(&self) -> Result<(), Failure> {
        let (Some(outputs), Some(dump)) = (&self.output_dir, &self.dump_stages) else { return Ok(()) };
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Failure::file(path, error));
        if !absolute(outputs)?.starts_with(absolute(dump)?) {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "--output-dir {} lies in --dump-stages {}, which holds nothing but the dump and has the outputs \
             in its folder `outputs`; name another folder, or leave --output-dir out",
            shown(outputs),
            shown(dump)
        )))
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    // Told now, not when all is run.
    if let Some(folder) = &args.output_dir {
        demand_folder(folder)?;
    }
    args.demand_apart()?;
    match model::content(&args.model)? {
        Content::Bundle(bytes) => {
            if !args.input_shapes.is_empty() {
                return Err(Failure::Usage(
                    "--input-shape is for ONNX models; a bundle's shapes are fixed".to_owned(),
                ));
            }
            let bundle = Bundle::from_bytes(&bytes).map_err(|e| Failure::file(&args.model, e))?;
            run_bundle(args, bundle, console)
        }
        Content::Onnx(bytes) => {
            if args.raw || args.is_of_machine() {
                return Err(Failure::Usage(for_bundles("model")));
            }
            run_onnx(args, &bytes, console)
        }
        Content::Ir(text) => run_module(args, &model::function(&args.model, &text, console)?, console),
        Content::Tosa(bytes) => run_module(args, &model::flatbuffer(&args.model, &bytes)?, console),
    }
}

/// What to tell who asks of another input what only bundles have.
fn for_bundles(what: &str) -> String {
    format!(
        "--raw, --checked, --timing, --stats, --input-dir and --dump-stages are for bundles; compile the \
         {what} first"
    )
}

fn run_bundle(args: &Args, bundle: Bundle, console: &Console) -> Result<(), Failure> {
    let mut session = Session::new(bundle).map_err(|e| Failure::file(&args.model, e))?;
    if args.checked {
        session = session.checked(args.seed);
    }
    // Timing alone needs no inputs: the machine's time does not depend on them.
    let writes = args.output_dir.is_some() || args.dump_stages.is_some();
    let time_only = args.timing && args.inputs.is_empty() && !writes;
    if let Some(path) = &args.input_dir {
        many::run(args, &session, path, console)?;
    } else if !time_only {
        let inputs = model::inputs(&args.inputs, session.inputs(), &args.images.options())?;
        let progress = console.progress(Some(session.n_phases() as u64));
        progress.step("phases");
        let done = &mut |phases: usize| progress.done(phases as u64);
        let within = args.dump_stages.as_deref().and_then(Path::parent);
        let pending = Pending::within(within.as_slice())?;
        let result = if let Some(place) = &args.dump_stages {
            stages::run(args, &session, &inputs, place, done)?
        } else if args.raw {
            RunResult::of_outputs(session.run_raw(&inputs, done)?)
        } else {
            RunResult::of_outputs(session.run(&inputs, done)?)
        };
        drop(progress);
        let raw_ports: Vec<Port> = session.raw_outputs().cloned().collect();
        let ports = if args.raw { &raw_ports[..] } else { session.outputs() };
        write_outputs(args, session.inputs(), ports, result, pending, console)?;
    }
    let Bundle { manifest, stats, .. } = session.bundle();
    let mut written = match stats {
        Some(serde_json::Value::Object(stats)) => stats.clone(),
        _ => serde_json::Map::new(),
    };
    written.remove("simulated");
    if args.timing {
        let progress = console.progress(None);
        progress.step("simulating");
        let machines = || session.bundle().machines();
        let timings: Vec<_> =
            machines().map(|machine| timed::simulate(&machine.program, &manifest.target)).collect();
        drop(progress);
        let compulsory = written.get("plan").and_then(|p| p.pointer("/dram_bytes/compulsory")?.as_u64());
        let clock = manifest.target.array.clock_hz;
        let simulated = SimulatedStats::of_all(&timings, clock, compulsory.unwrap_or_default());
        let mut simulated = simulated.ok_or_else(|| Failure::failed("the bundle holds no program"))?;
        if let [machine] = machines().collect::<Vec<_>>()[..] {
            let bound = written.get("plan").and_then(|plan| plan.get("frame_bound")).cloned();
            let bound = bound.and_then(|bound| serde_json::from_value(bound).ok()).unwrap_or_default();
            let stream = StreamStats::of(&machine.program, &manifest.target, bound);
            simulated.stream = stream.map_err(|errors| Failure::failed(ExecError::Invalid(errors)))?;
        }
        simulated.phases =
            machines().zip(&timings).flat_map(|(machine, timing)| PhaseStats::of(machine, timing)).collect();
        let no_stream = no_stream_text(&simulated, machines().count());
        let shown = format!("{}{no_stream}\n{}", show_timing(&simulated), show_times(&simulated));
        console.summary(&shown)?;
        written.insert("simulated".to_owned(), serde_json::to_value(&simulated).map_err(Failure::failed)?);
    }
    if let Some(path) = &args.stats {
        let json = serde_json::to_string_pretty(&written).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    Ok(())
}

fn run_onnx(args: &Args, bytes: &[u8], console: &Console) -> Result<(), Failure> {
    let progress = console.progress(None);
    progress.step("importing");
    let about = |error: CompileError| Failure::from(error).about(&args.model);
    let shapes = args.input_shapes.iter().cloned().collect();
    let resolved = model::resolved(bytes, &args.model, &args.input_shapes)?;
    let model = FloatModel::new(resolved, &model::file_name(&args.model), &shapes).map_err(about)?;
    let inputs = model::inputs(&args.inputs, model.inputs(), &args.images.options())?;
    progress.step("evaluating in f32");
    let outputs = model.run(&inputs).map_err(about)?;
    drop(progress);
    let port = |(name, array): &(String, Array)| session::plain_port(name, &array.shape, array.dtype.name());
    let gives: Vec<Port> = outputs.iter().map(port).collect();
    write_outputs(args, model.inputs(), &gives, RunResult::of_outputs(outputs), Pending::default(), console)
}

/// Evaluates a function of plain TOSA.
fn run_module(args: &Args, module: &Module, console: &Console) -> Result<(), Failure> {
    if args.is_of_machine() {
        return Err(Failure::Usage(for_bundles("function")));
    }
    if !args.input_shapes.is_empty() {
        let what = "--input-shape is for ONNX models; a TOSA function's shapes are fixed".to_owned();
        return Err(Failure::Usage(what));
    }
    let (takes, gives) = evaluate::ports(module, args.raw)?;
    let inputs = model::inputs(&args.inputs, &takes, &args.images.options())?;
    let progress = console.progress(None);
    progress.step("evaluating");
    let outputs = evaluate::evaluate(module, &inputs, args.raw)?;
    drop(progress);
    write_outputs(args, &takes, &gives, RunResult::of_outputs(outputs), Pending::default(), console)
}

/// What a run gave.
struct RunResult {
    /// The outputs, by name.
    outputs: Vec<(String, Array)>,
    /// What its stages made, which waits to take its place.
    stages: Option<WholeFolder>,
}

impl RunResult {
    fn of_outputs(outputs: Vec<(String, Array)>) -> Self {
        Self { outputs, stages: None }
    }
}

/// What is written and waits to take its place with the rest. If it is dropped, nothing of it stays.
#[derive(Default)]
struct Pending {
    files: Vec<AtomicFile>,
    stages: Vec<WholeFolder>,
    /// The folders that they are in.
    folders: OutputFolders,
}

impl Pending {
    /// Nothing yet, in folders that are there.
    fn within(folders: &[&Path]) -> Result<Self, Failure> {
        let mut pending = Self::default();
        for folder in folders {
            create_output_folder(&mut pending.folders, folder)?;
        }
        Ok(pending)
    }

    /// Adds a file for each output in a folder, under its name or under its position.
    fn add_outputs(
        &mut self,
        folder: &Path,
        ports: &[Port],
        outputs: &[(String, Array)],
        by_position: bool,
    ) -> Result<(), Failure> {
        create_output_folder(&mut self.folders, folder)?;
        for ((_, array), stem) in outputs.iter().zip(output_stems(ports, by_position)) {
            let path = folder.join(format!("{stem}.npy"));
            let mut file = AtomicFile::begin(&path)?;
            file.write_all(&array.to_npy()).map_err(|source| IoError::System { path, source })?;
            self.files.push(file);
        }
        Ok(())
    }

    /// Lets all take their places, which no signal cuts.
    fn place(self) -> Result<(), Failure> {
        let files = AtomicFile::all_written(self.files)?;
        let mut replaced = Vec::new();
        let steady = Steady::begin();
        WrittenFile::place_all(files, &steady)?;
        for folder in self.stages {
            replaced.extend(folder.place(&steady)?);
        }
        drop(steady);
        // To erase them may take long.
        drop(replaced);
        Ok(())
    }
}

/// Writes each output under its name, or under its position if the inputs go by theirs, and what stages made.
fn write_outputs(
    args: &Args,
    takes: &[Port],
    ports: &[Port],
    result: RunResult,
    mut pending: Pending,
    console: &Console,
) -> Result<(), Failure> {
    let RunResult { outputs, stages } = result;
    pending.stages.extend(stages);
    if let Some(folder) = &args.output_dir {
        let names: Vec<&str> = args.inputs.iter().map(|(name, _)| name.as_str()).collect();
        pending.add_outputs(folder, ports, &outputs, inputs::are_positions(takes, &names))?;
        return pending.place();
    }
    pending.place()?;
    let mut lines = words(&["output", "shape", "type"]);
    for (name, array) in &outputs {
        let shape = crate::io::array::show_shape(&array.shape);
        row(&mut lines, &[name.as_str(), &shape, array.dtype.name()]);
    }
    let told = match &args.dump_stages {
        Some(place) => format!("stages written to {}", place.display()),
        None => "nothing written: no --output-dir".to_owned(),
    };
    console.summary(&format!("{}\n{told}\n", show(&lines)))
}

/// What the file of each output is called: after its name, or its position.
fn output_stems(ports: &[Port], by_position: bool) -> Vec<String> {
    if by_position {
        return (0..ports.len()).map(|at| at.to_string()).collect();
    }
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    FileStems::default().add(&names)
}

fn show_timing(simulated: &SimulatedStats) -> String {
    let mut lines = table(&["simulated", ""]);
    let dram = &simulated.dram_bytes;
    for (what, value) in [
        ("cycles", count(simulated.cycles)),
        ("frames a second", format!("{:.2}", simulated.frames_per_second)),
        ("MAC use", percent(simulated.mac_utilisation)),
        ("DRAM traffic", decimal_bytes(dram.total)),
        ("  weights", decimal_bytes(dram.weights)),
        ("  inputs and outputs", decimal_bytes(dram.inputs + dram.outputs)),
        ("  activations spilled", decimal_bytes(dram.spill_write)),
        ("  activations read back", decimal_bytes(dram.spill_read)),
        ("energy of an inference", joules(simulated.energy_pj.total)),
    ] {
        row(&mut lines, &[what.to_owned(), value]);
    }
    if let Some(stream) = &simulated.stream {
        for (what, value) in [
            ("cycles of a frame in a stream", count(stream.cycles)),
            ("  lower bound", count(stream.lower_bound_cycles)),
            ("  gap to it", percent(stream.gap)),
            ("  DRAM traffic", decimal_bytes(stream.dram_bytes.total)),
            ("  energy", joules(stream.energy_pj.total)),
            ("frames a second of a stream", format!("{:.2}", stream.frames_per_second)),
        ] {
            row(&mut lines, &[what.to_owned(), value]);
        }
    }
    show(&lines)
}
