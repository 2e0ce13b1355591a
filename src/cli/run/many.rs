//! Runs of a bundle on many inputs, one after another on one session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use strata_isa_spec::bundle::Port;

use super::{Args, Pending, RunResult, output_stems, stages};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::model;
use crate::io::batch::{BatchFile, BatchInput, StackedFile};
use crate::io::{self, Array, file_stem};
use crate::session::{RunError, Session};

/// The arrays of one input, by the positions of what the network takes.
type Input = Vec<(String, Array)>;

/// Why there is no result of an input.
enum NoResult {
    /// It cannot be read, or is none.
    Input(Failure),
    /// It cannot be run.
    Run(RunError),
}

impl From<RunError> for NoResult {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl NoResult {
    /// The failure, told of an input.
    fn about(self, input: &str) -> Failure {
        match self {
            Self::Input(failure) => failure,
            Self::Run(error) => Failure::Failed(format!("{input}: {error}")),
        }
    }
}

/// Runs a bundle on every input that a path stands for.
pub(super) fn run(args: &Args, session: &Session, path: &Path, console: &Console) -> Result<(), Failure> {
    let is_npz = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
    if is_npz && path.is_file() {
        let ports = session.inputs();
        let inputs: Vec<BatchInput<'_>> =
            ports.iter().map(|port| BatchInput { name: &port.name, shape: &port.shape }).collect();
        if let Some(batch) = BatchFile::open(path, &inputs)? {
            return run_batch(args, session, path, &batch, console);
        }
    }
    run_files(args, session, path, console)
}

/// Runs a bundle on every file that a path stands for.
fn run_files(args: &Args, session: &Session, path: &Path, console: &Console) -> Result<(), Failure> {
    let files = files(path)?;
    let stems = stems(args, path, &files)?;
    let images = args.images.options();
    let inputs = files.iter().map(|file| {
        let arrays = model::sample(file, session.inputs(), &images, "").map_err(NoResult::Input)?;
        Ok(by_position(arrays))
    });
    let progress = console.progress(Some(files.len() as u64));
    progress.step("inputs");
    let begin = Instant::now();
    let mut failures = Vec::new();
    let ports = ports(args, session);
    // Its folder of stages is for all inputs.
    let _all = Pending::within(args.dump_stages.as_deref().as_slice())?;
    for (at, result) in results(args, session, inputs, stems.iter().cloned()).enumerate() {
        let written = result.map_err(|error| error.about(&io::shown(&files[at]))).and_then(|result| {
            let RunResult { outputs, stages } = result;
            let mut pending = Pending { stages: stages.into_iter().collect(), ..Pending::default() };
            if let Some(folder) = &args.output_dir {
                pending.add_outputs(&folder.join(&stems[at]), &ports, &outputs, false)?;
            }
            pending.place()
        });
        failures.extend(written.err().map(|failure| failure.to_string()));
        progress.done(at as u64 + 1);
    }
    drop(progress);
    tell(files.len() - failures.len(), files.len(), begin, console)?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Failed(failures.join("\nerror: "))) }
}

/// Runs a bundle on the inputs of a batch; writes each output as one array, when there is one of every input.
fn run_batch(
    args: &Args,
    session: &Session,
    path: &Path,
    batch: &BatchFile,
    console: &Console,
) -> Result<(), Failure> {
    let ports = ports(args, session);
    if let Some(port) = ports.iter().find(|port| port.varies && args.output_dir.is_some()) {
        let what = "has another shape for each input, so outputs make no batch; give a folder of inputs";
        return Err(Failure::file(path, format!("output `{}` {what}", port.name)));
    }
    let within: Vec<&Path> =
        [&args.output_dir, &args.dump_stages].into_iter().flatten().map(AsRef::as_ref).collect();
    let mut pending = Pending::within(&within)?;
    let of_output: Vec<Option<PathBuf>> = output_stems(&ports, false)
        .into_iter()
        .map(|stem| args.output_dir.as_ref().map(|folder| folder.join(format!("{stem}.npy"))))
        .collect();
    let width = (batch.n() - 1).to_string().len();
    let numbers = (0..batch.n()).map(move |at| format!("{at:0width$}"));
    let mut archives = batch.archives()?;
    let inputs = batch.samples(&mut archives)?.enumerate().map(|(at, arrays)| {
        let arrays = arrays.map_err(|error| NoResult::Input(error.into()))?;
        let named = session.inputs().iter().map(|port| Some(port.name.clone())).zip(arrays).collect();
        let fitting = model::fitting(named, session.inputs());
        let refused =
            |problem| NoResult::Input(Failure::Failed(format!("{}: {problem}", of_batch(path, at))));
        Ok(by_position(fitting.map_err(refused)?))
    });
    let progress = console.progress(Some(batch.n() as u64));
    progress.step("inputs");
    let begin = Instant::now();
    let mut files: Vec<StackedFile> = Vec::new();
    for (at, result) in results(args, session, inputs, numbers).enumerate() {
        let RunResult { outputs, stages } = result.map_err(|error| error.about(&of_batch(path, at)))?;
        pending.stages.extend(stages);
        for (index, ((name, array), file)) in outputs.iter().zip(&of_output).enumerate() {
            let Some(file) = file else { continue };
            if at == 0 {
                files.push(StackedFile::begin(file, array, &batch.stacked(&array.shape))?);
            }
            let told = |error| Failure::Failed(format!("{}: output `{name}`: {error}", of_batch(path, at)));
            files[index].push(array).map_err(told)?;
        }
        progress.done(at as u64 + 1);
    }
    drop(progress);
    pending.files.extend(files.into_iter().map(StackedFile::into_file));
    pending.place()?;
    tell(batch.n(), batch.n(), begin, console)
}

/// The results of inputs, each of which is run when it is asked for; `stems` are the folders of what their
/// stages made, if that is to be written.
fn results<'s>(
    args: &'s Args,
    session: &'s Session,
    inputs: impl Iterator<Item = Result<Input, NoResult>> + 's,
    stems: impl Iterator<Item = String> + 's,
) -> Box<dyn Iterator<Item = Result<RunResult, NoResult>> + 's> {
    let of_outputs = |outputs: Result<Input, NoResult>| outputs.map(RunResult::of_outputs);
    match &args.dump_stages {
        Some(place) => Box::new(inputs.zip(stems).map(move |(input, stem)| {
            stages::run(args, session, &input?, &place.join(stem), &mut |_| {}).map_err(NoResult::Input)
        })),
        None if args.raw => Box::new(session.run_many_raw(inputs).map(of_outputs)),
        None => Box::new(session.run_many(inputs).map(of_outputs)),
    }
}

/// The outputs that are asked for.
fn ports(args: &Args, session: &Session) -> Vec<Port> {
    if args.raw { session.raw_outputs().cloned().collect() } else { session.outputs().to_vec() }
}

fn by_position(arrays: Vec<Array>) -> Input {
    arrays.into_iter().enumerate().map(|(at, array)| (format!("#{at}"), array)).collect()
}

/// An input of a batch, as messages name it.
fn of_batch(path: &Path, at: usize) -> String {
    format!("{}, input {at}", path.display())
}

fn tell(run: usize, of: usize, begin: Instant, console: &Console) -> Result<(), Failure> {
    let seconds = begin.elapsed().as_secs_f64();
    let rate = run as f64 / seconds;
    console.summary(&format!("{run} of {of} inputs in {seconds:.2} s, {rate:.2} a second\n"))
}

/// The files of a folder, or those that a text file lists, relative to its own folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_dir() || path.extension().is_none_or(|extension| extension != "txt") {
        return Ok(io::array_files(path)?);
    }
    let bytes = io::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::file(path, "a list of files, but no UTF-8"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let files: Vec<PathBuf> = lines.map(|line| folder.join(line)).collect();
    if files.is_empty() {
        return Err(Failure::file(
            path,
            "it lists no file; expected the path of an array or a picture a line",
        ));
    }
    Ok(files)
}

/// The name of the folder of each file's outputs.
///
/// # Errors
/// If something is written and two files of `path` would have one.
fn stems(args: &Args, path: &Path, files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let is_written = args.output_dir.is_some() || args.dump_stages.is_some();
    let mut taken: BTreeMap<String, &PathBuf> = BTreeMap::new();
    let mut stems = Vec::with_capacity(files.len());
    for file in files {
        let stem = file_stem(&file.file_stem().unwrap_or_default().to_string_lossy());
        stems.push(stem.clone());
        if let Some(other) = taken.insert(stem.clone(), file).filter(|_| is_written) {
            let (first, second) = (other.display(), file.display());
            let what = if other == file {
                format!("it lists {first} twice; list it once")
            } else {
                format!(
                    "the outputs of {first} and {second} would both go into the folder `{stem}`; give one of \
                     them another name"
                )
            };
            return Err(Failure::file(path, what));
        }
    }
    Ok(stems)
}
