//! What an inference made, stage by stage, as a folder of arrays: golden vectors for those who build the
//! machine or a model of it.
//!
//! | in the folder | what it is |
//! |---|---|
//! | `index.json` | an entry a tensor, in the order of the network: [`Index`] |
//! | `raw/NAME.npy` | the integers that the machine holds |
//! | `float/NAME.npy` | the real numbers that they stand for, as `f32`; what the host made |
//! | `made/NAME.npy` | which elements were made, of tensors of which not all were |
//! | `outputs/NAME.npy` | the network's outputs, as `strata run` writes them |
//!
//! A folder is written beside its place and takes it whole. What it replaces is an earlier folder of the same
//! kind, with no other file in it than its index names, or an empty one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strata_ir::Tensor;
use strata_isa_spec::bundle::Quantisation;

use crate::io::temporary::{Replaced, Steady, TemporaryFolder};
use crate::io::{Array, FileStems, IoError, OutputFolders, create_output_folder, file_stem, read};
use crate::made::{MadeBy, MadeIn, StageTensor};
use crate::ports::{from_tensor, plain_port};
use crate::session::{Session, StageName};

/// The version of the index.
pub const SCHEMA: u32 = 1;
/// What an index says that it is.
pub const KIND: &str = "strata.stages";
/// The file of a folder's index.
pub const INDEX: &str = "index.json";
/// The folders in it.
const FOLDERS: [&str; 4] = ["raw", "float", "made", "outputs"];

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// [`KIND`].
    pub kind: String,
    /// [`SCHEMA`].
    pub schema: u32,
    /// What made it: name and version.
    pub producer: String,
    /// The network's name.
    pub network: String,
    /// The machine that the network was compiled for; none of a model in floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was made, in the order of the network.
    pub tensors: Vec<Entry>,
    /// The network's outputs.
    pub outputs: Vec<OutputEntry>,
}

/// A tensor of a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The node of the model whose result it is; the stage, if it is no node's; the tensor's name in the
    /// model, of inputs and of what the host makes.
    pub name: String,
    /// The nodes of the model whose result it is, in order: those before the last have the same integers.
    pub nodes: Vec<String>,
    /// Whether it is an input of a program, or a stage or the host made it.
    pub made_in: MadeIn,
    /// Which part of the bundle.
    pub part: usize,
    /// The stages that made it.
    pub stages: Vec<StageEntry>,
    /// The shape of the arrays.
    pub shape: Vec<usize>,
    /// What the axes of the arrays are: `NCHW` or `NHWC` of an image; else `plain`, those of the model.
    pub layout: String,
    /// The shape on the machine, whose images are NHWC.
    pub machine_shape: Vec<usize>,
    /// The axis of the machine's that each axis of the arrays is.
    pub perm: Vec<usize>,
    /// The element type on the machine: `i8`, `i16`, `i32`; of the host that of its array.
    pub dtype: String,
    /// The real number that one step of the integers is: `real = scale * (raw - zero_point)`. Without it
    /// nothing is known of what the integers mean.
    pub scale: Option<f64>,
    /// The integer that stands for zero.
    pub zero_point: Option<i32>,
    /// The file of the integers, in the folder.
    pub raw: Option<String>,
    /// The file of the real numbers.
    pub float: Option<String>,
    /// The file that says which elements were made; none if all were.
    pub made: Option<String>,
}

/// A stage that made a tensor, or a part of one, of all its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageEntry {
    /// The stage's name, as `strata inspect` has it.
    pub stage: String,
    /// Its phase in the program of its part, from 0.
    pub phase: usize,
    /// Its number in the phase, from 0.
    pub index: usize,
    /// The first of the columns that it made, and the one after the last.
    pub columns: [u32; 2],
    /// The first of the channels, and the one after the last.
    pub channels: [u32; 2],
}

/// An output of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEntry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: String,
    /// Its file.
    pub file: String,
}

impl From<MadeBy> for StageEntry {
    fn from(by: MadeBy) -> Self {
        let MadeBy { stage, phase, index, col0, cols, ch0, chs } = by;
        Self { stage, phase, index, columns: [col0, col0 + cols], channels: [ch0, ch0 + chs] }
    }
}

/// Why a folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// A file of it could not be had.
    #[error(transparent)]
    Io(#[from] IoError),
    /// There is something else in its place.
    #[error(
        "{}: {found}; expected a new folder, an empty one, or one with nothing in it but what \
         `--dump-stages` wrote",
        path.display()
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// Its index is not one.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A folder that is being written. If it is dropped, nothing of it stays.
#[derive(Debug)]
pub struct DumpFolder {
    place: PathBuf,
    beside: TemporaryFolder,
    /// The folder that both stand in, if it was made for them, and those above it.
    parents: OutputFolders,
    /// The name of each tensor's files, by its number.
    stems: Vec<String>,
    index: Index,
}

impl DumpFolder {
    /// A folder for an inference of a bundle.
    ///
    /// # Errors
    /// If there is something else in its place, or nothing can be written there.
    pub fn begin(place: &Path, session: &Session) -> Result<Self, DumpError> {
        let manifest = &session.bundle().manifest;
        let target = Some(manifest.target.name.clone());
        Self::new(place, &manifest.network, target, stems(&session.stage_names()))
    }

    /// A folder for the values of a model in floats, whose names are given.
    pub(crate) fn of_floats(place: &Path, network: &str, names: &[String]) -> Result<Self, DumpError> {
        let names: Vec<StageName<'_>> =
            names.iter().map(|name| StageName { name, is_result: true }).collect();
        Self::new(place, network, None, stems(&names))
    }

    fn new(
        place: &Path,
        network: &str,
        target: Option<String>,
        stems: Vec<String>,
    ) -> Result<Self, DumpError> {
        demand_free(place)?;
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut parents = OutputFolders::default();
        create_output_folder(&mut parents, parent)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".strata-");
        // Those of any new folder, which the user's mask narrows; a temporary one would be for its owner
        // alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let beside = TemporaryFolder::new(&builder, parent).map_err(|error| {
            let what = format!("no folder can be made in {}: {}", parent.display(), error.kind());
            let source = std::io::Error::new(error.kind(), what);
            IoError::System { path: place.to_owned(), source }
        })?;
        let index = Index {
            kind: KIND.to_owned(),
            schema: SCHEMA,
            producer: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
            network: network.to_owned(),
            target,
            tensors: Vec::new(),
            outputs: Vec::new(),
        };
        Ok(Self { place: place.to_owned(), beside, parents, stems, index })
    }

    /// Adds the result of a node of a model in floats, in the axes of the compiler's IR.
    pub(crate) fn add_value(&mut self, name: &str, tensor: &Tensor) -> Result<(), DumpError> {
        let (shape, elem) = (tensor.shape().to_vec(), tensor.ty().elem);
        let port = plain_port(name, &shape, elem.keyword());
        // Of other types than those of arrays there is nothing to compare.
        let Ok(array) = from_tensor(&port, tensor) else { return Ok(()) };
        let number = self.index.tensors.len();
        let nodes = vec![name.to_owned()];
        let made_in = MadeIn::Stage;
        self.add(StageTensor { number, nodes, made_in, ..StageTensor::of_host(0, &port, &array) })
    }

    /// Adds what a stage or the host made.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn add(&mut self, tensor: StageTensor) -> Result<(), DumpError> {
        let StageTensor { number, name, raw, real, made, quantisation, .. } = &tensor;
        let stem =
            self.stems.get(*number).cloned().unwrap_or_else(|| format!("{}.{number}", file_stem(name)));
        let raw_file = self.write("raw", &stem, raw.as_ref())?;
        let float_file = self.write("float", &stem, real.as_ref())?;
        let made_file = self.write("made", &stem, made.as_ref())?;
        let array = raw.as_ref().or(real.as_ref());
        let is_permuted = !tensor.perm.is_sorted();
        let layout = match (tensor.is_image, is_permuted) {
            (true, true) => "NCHW",
            (true, false) => "NHWC",
            (false, _) => "plain",
        };
        self.index.tensors.push(Entry {
            name: name.clone(),
            nodes: tensor.nodes.clone(),
            made_in: tensor.made_in,
            part: tensor.part,
            shape: array.map_or_else(Vec::new, |array| array.shape.clone()),
            layout: layout.to_owned(),
            dtype: array.map_or_else(String::new, |array| array.dtype.name().to_owned()),
            scale: quantisation.map(|Quantisation { scale, .. }| scale),
            zero_point: quantisation.map(|Quantisation { zero_point, .. }| zero_point),
            raw: raw_file,
            float: float_file,
            made: made_file,
            stages: tensor.stages.into_iter().map(StageEntry::from).collect(),
            machine_shape: tensor.machine_shape,
            perm: tensor.perm,
        });
        Ok(())
    }

    /// Adds the network's outputs and lets the folder take its place.
    ///
    /// # Errors
    /// If the system refuses; nothing of it is left then.
    pub fn finish(self, outputs: &[(String, Array)]) -> Result<Index, DumpError> {
        let whole = self.seal(outputs)?;
        let index = whole.index.clone();
        let steady = Steady::begin();
        let replaced = whole.place(&steady)?;
        drop(steady);
        drop(replaced);
        Ok(index)
    }

    /// Adds the network's outputs, with which the folder is whole.
    ///
    /// # Errors
    /// If the system refuses; nothing of it is left then.
    pub(crate) fn seal(mut self, outputs: &[(String, Array)]) -> Result<WholeFolder, DumpError> {
        let names: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        for ((name, array), stem) in outputs.iter().zip(FileStems::default().add(&names)) {
            let file = self.write("outputs", &stem, Some(array))?.unwrap_or_default();
            let (shape, dtype) = (array.shape.clone(), array.dtype.name().to_owned());
            self.index.outputs.push(OutputEntry { name: name.clone(), shape, dtype, file });
        }
        let path = self.place.join(INDEX);
        let json = serde_json::to_string_pretty(&self.index)
            .map_err(|error| DumpError::Index { path: path.clone(), reason: error.to_string() })?;
        std::fs::write(self.beside.path().join(INDEX), format!("{json}\n"))
            .map_err(|source| IoError::System { path, source })?;
        let Self { place, beside, parents, index, .. } = self;
        Ok(WholeFolder { place, beside, parents, index })
    }

    /// Writes an array, if there is one; its file.
    fn write(&self, folder: &str, stem: &str, array: Option<&Array>) -> Result<Option<String>, DumpError> {
        let Some(array) = array else { return Ok(None) };
        let file = format!("{folder}/{stem}.npy");
        // Messages name the folder that was asked for.
        let named = |error| match error {
            IoError::System { source, .. } => IoError::System { path: self.place.join(&file), source },
            other => other,
        };
        let within = self.beside.path().join(folder);
        if !within.is_dir() {
            // Not those above it: when it is erased, it stays so.
            std::fs::create_dir(&within)
                .map_err(|source| named(IoError::System { path: within.clone(), source }))?;
        }
        let path = self.beside.path().join(&file);
        std::fs::write(&path, array.to_npy())
            .map_err(|source| named(IoError::System { path: path.clone(), source }))?;
        Ok(Some(file))
    }
}

/// A folder with all that it holds, beside its place. If it is dropped, nothing of it stays.
#[derive(Debug)]
pub(crate) struct WholeFolder {
    place: PathBuf,
    beside: TemporaryFolder,
    parents: OutputFolders,
    index: Index,
}

impl WholeFolder {
    /// Lets the folder take its place; gives what stood there, to be dropped after the steady section.
    ///
    /// # Errors
    /// If the system refuses, or there is something else in its place by now.
    pub(crate) fn place(self, steady: &Steady) -> Result<Option<Replaced>, DumpError> {
        let Self { place, beside, parents: _parents, .. } = self;
        demand_free(&place)?;
        let replaced = beside.replace(&place, steady);
        Ok(replaced.map_err(|source| IoError::System { path: place, source })?)
    }
}

/// That a folder can be written in a place.
fn demand_free(place: &Path) -> Result<(), DumpError> {
    let taken = |found: &str| Err(DumpError::Taken { path: place.to_owned(), found: found.to_owned() });
    let Ok(meta) = std::fs::symlink_metadata(place) else { return Ok(()) };
    if !meta.is_dir() {
        return taken(if meta.is_symlink() { "it is a link" } else { "it is a file" });
    }
    if std::fs::read_dir(place).map_err(|source| system(place, source))?.next().is_none() {
        return Ok(());
    }
    let Some(index) = Index::is_in(place).then(|| Index::read(place).ok()).flatten() else {
        return taken("the folder holds something else");
    };
    match other_file(place, Path::new(""), &index.files())? {
        None => Ok(()),
        Some(other) => taken(&format!(
            "the folder holds {}, which is not of the dump in it and would be lost",
            other.display()
        )),
    }
}

/// The first file, in the order of names, in the folder `within` of `place` that is none of `files`; all are
/// paths from `place`.
fn other_file(place: &Path, within: &Path, files: &BTreeSet<PathBuf>) -> Result<Option<PathBuf>, IoError> {
    let folder = place.join(within);
    let entries = std::fs::read_dir(&folder).map_err(|source| system(&folder, source))?;
    let entries: Result<Vec<_>, _> = entries.collect();
    let mut entries = entries.map_err(|source| system(&folder, source))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = within.join(entry.file_name());
        let is_folder = entry.file_type().map_err(|source| system(&folder, source))?.is_dir();
        let other = match is_folder {
            true if FOLDERS.iter().any(|name| path == Path::new(name)) => other_file(place, &path, files)?,
            true => Some(path),
            false => Some(path).filter(|path| !files.contains(path)),
        };
        if other.is_some() {
            return Ok(other);
        }
    }
    Ok(None)
}

fn system(path: &Path, source: std::io::Error) -> IoError {
    IoError::System { path: path.to_owned(), source }
}

impl Index {
    /// Whether a folder has an index.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(INDEX).is_file()
    }

    /// The files of a folder, the index among them.
    fn files(&self) -> BTreeSet<PathBuf> {
        let of_tensors = self.tensors.iter().flat_map(|entry| [&entry.raw, &entry.float, &entry.made]);
        let files = of_tensors.flatten().chain(self.outputs.iter().map(|output| &output.file));
        files.map(PathBuf::from).chain([PathBuf::from(INDEX)]).collect()
    }

    /// The index of a folder.
    ///
    /// # Errors
    /// If it cannot be read, or is another one.
    pub fn read(folder: &Path) -> Result<Self, DumpError> {
        let path = folder.join(INDEX);
        let wrong = |reason: String| DumpError::Index { path: path.clone(), reason };
        let value: serde_json::Value = serde_json::from_slice(&read(&path)?)
            .map_err(|error| wrong(format!("not JSON: {error}; expected what `--dump-stages` writes")))?;
        let (kind, schema) = (value["kind"].as_str(), value["schema"].as_u64());
        if kind != Some(KIND) || schema != Some(u64::from(SCHEMA)) {
            let kind = kind.unwrap_or("(no kind)");
            let schema = schema.map_or_else(|| "(no schema)".to_owned(), |schema| schema.to_string());
            return Err(wrong(format!("`{kind}` of schema {schema}; expected `{KIND}` of schema {SCHEMA}")));
        }
        serde_json::from_value(value).map_err(|error| wrong(format!("malformed: {error}")))
    }
}

/// A name for the files of each tensor: different ones. Results of nodes have theirs before others.
fn stems(names: &[StageName<'_>]) -> Vec<String> {
    let mut given = FileStems::default();
    let mut stems = vec![String::new(); names.len()];
    for is_result in [true, false] {
        let of_kind = |at: &usize| names[*at].is_result == is_result;
        let places: Vec<usize> = (0..names.len()).filter(of_kind).collect();
        let named: Vec<&str> = places.iter().map(|&at| names[at].name).collect();
        for (at, stem) in places.into_iter().zip(given.add(&named)) {
            stems[at] = stem;
        }
    }
    stems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_names_of_their_own() {
        let name = |name, is_result| StageName { name, is_result };
        let names = [
            name("pool", false),
            name("a/conv", true),
            name("a_conv", true),
            name("A_conv", true),
            name("pool", true),
            name("..", true),
        ];
        assert_eq!(stems(&names), ["pool.2", "a_conv.2", "a_conv", "A_conv.3", "pool", "_.."]);
    }
}
