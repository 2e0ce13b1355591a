//! Runs of a bundle on many inputs, one after another on one session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Args, write_arrays};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::model;
use crate::io::{self, file_stem};
use crate::session::Session;

/// Runs a bundle on every file that a path stands for.
pub(super) fn run(args: &Args, session: &Session, path: &Path, console: &Console) -> Result<(), Failure> {
    let files = files(path)?;
    let folders = args.output_dir.as_ref().map(|to| folders(&files, to)).transpose()?;
    let progress = console.progress(Some(files.len() as u64));
    progress.step("inputs");
    let begin = Instant::now();
    let mut failures = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let folder = folders.as_ref().map(|folders| &folders[at]);
        if let Err(failure) = run_file(args, session, file, folder) {
            failures.push(failure.to_string());
        }
        progress.done(at as u64 + 1);
    }
    drop(progress);
    let seconds = begin.elapsed().as_secs_f64();
    let run = files.len() - failures.len();
    let rate = run as f64 / seconds;
    console.summary(&format!("{run} of {} inputs in {seconds:.2} s, {rate:.2} a second\n", files.len()))?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Failed(failures.join("\nerror: "))) }
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
    if files.is_empty() { Err(Failure::file(path, "lists no file")) } else { Ok(files) }
}

/// The folder of each file's outputs.
///
/// # Errors
/// If two files would have one.
fn folders(files: &[PathBuf], to: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut taken: BTreeMap<String, &PathBuf> = BTreeMap::new();
    let mut folders = Vec::with_capacity(files.len());
    for file in files {
        let stem = file_stem(&file.file_stem().unwrap_or_default().to_string_lossy());
        folders.push(to.join(&stem));
        if let Some(other) = taken.insert(stem, file) {
            let (first, second) = (other.display(), file.display());
            let what = format!("the outputs of {first} and {second} would go into one folder");
            return Err(Failure::Failed(what));
        }
    }
    Ok(folders)
}

fn run_file(args: &Args, session: &Session, file: &Path, folder: Option<&PathBuf>) -> Result<(), Failure> {
    let arrays = model::sample(file, session.inputs(), &args.images.options(), "input")?;
    let inputs: Vec<_> =
        arrays.into_iter().enumerate().map(|(at, array)| (format!("#{at}"), array)).collect();
    let about = |error: crate::RunError| Failure::file(file, error);
    let raw: Vec<_>;
    let (outputs, ports) = if args.raw {
        raw = session.raw_outputs().cloned().collect();
        (session.run_raw(&inputs, &mut |_| {}).map_err(about)?, &raw[..])
    } else {
        (session.run(&inputs, &mut |_| {}).map_err(about)?, session.outputs())
    };
    folder.map_or(Ok(()), |folder| write_arrays(folder, ports, &outputs, false))
}
