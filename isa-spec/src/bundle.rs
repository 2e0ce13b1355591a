#![doc = include_str!("bundle_format.md")]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, decode, encode};
use crate::program::Program;
use crate::target::Target;

/// Version of the bundle format.
pub const FORMAT_VERSION: u32 = 2;
/// The entry of a program's weights.
const WEIGHTS_FILE: &str = "weights.safetensors";
/// The one tensor of that.
const WEIGHTS_TENSOR: &str = "weights";
/// Bytes that an archive spends on an entry beside its content, about.
const ENTRY_OVERHEAD_BYTES: usize = 512;
/// Bytes of an entry at most.
const MAX_ENTRY_BYTES: u64 = 1 << 34;

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not a ZIP archive, or a damaged one.
    #[error("not a bundle: {0}")]
    Archive(String),
    /// An entry is missing.
    #[error("the bundle has no `{0}`")]
    Missing(String),
    /// An entry's bytes are not those that the manifest names.
    #[error("`{entry}` is damaged: its hash is {found}, the manifest says {expected}")]
    Hash {
        /// The entry.
        entry: String,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An entry cannot be read as what it should be.
    #[error("`{entry}`: {reason}")]
    Malformed {
        /// The entry.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The program does not decode.
    #[error("`{entry}`: {error}")]
    Program {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        error: DecodeError,
    },
    /// Another version of the format.
    #[error("bundle format {found}, this build reads {FORMAT_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

/// How an integer tensor stands for real numbers: `real = scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantisation {
    /// Step.
    pub scale: f64,
    /// The integer that stands for zero.
    pub zero_point: i32,
}

/// A network input or output as its user sees it, and as the machine holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The ONNX name.
    pub name: String,
    /// The user's shape.
    pub shape: Vec<usize>,
    /// The user's element type: `f32`, `i64`, …
    pub dtype: String,
    /// The machine's shape, dense row-major in the DRAM segment.
    pub machine_shape: Vec<usize>,
    /// The machine's element type: `i8`, `i32`.
    pub machine_dtype: String,
    /// For inputs the permutation from the user's axes to the machine's, for outputs from the machine's to
    /// the user's.
    pub perm: Vec<usize>,
    /// What the integers mean; absent for integers that are meant as such.
    pub quantisation: Option<Quantisation>,
    /// Whether the shape depends on the data, as that of what a detector keeps; `shape` is then only an
    /// example.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub varies: bool,
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// What made it: name and version.
    pub producer: String,
    /// The network's name.
    pub network: String,
    /// The machine it is for.
    pub target: Target,
    /// Inputs of the network.
    pub inputs: Vec<Port>,
    /// Outputs of the network.
    pub outputs: Vec<Port>,
}

/// A stretch of the network with the tensors that it takes and gives, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it takes: inputs of the network, or what earlier parts gave. For a program in the order of its
    /// input segments, for a function in that of its arguments.
    pub inputs: Vec<Port>,
    /// What it gives, in the order of output segments or results.
    pub outputs: Vec<Port>,
    /// What runs.
    pub code: Code,
}

/// What a part runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Code {
    /// A program of the machine.
    Machine(Machine),
    /// A function `@host` of the compiler's IR in f32, as text with its constants inline: the host evaluates
    /// it.
    Ir(String),
    /// An ONNX model, which the host runs.
    Onnx(Vec<u8>),
}

/// A program with its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The program.
    pub program: Program,
    /// The weight segment.
    pub weights: Vec<u8>,
    /// Names of source layers, by `source` index.
    pub names: Vec<String>,
    /// What the stages of a source layer compute, by `source` index; empty where that is not recorded.
    pub ops: Vec<Vec<SourceOp>>,
    /// The tensors of the network that stages make.
    pub tensors: Box<MadeTensors>,
}

/// Which tensors of the network the stages of a program make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MadeTensors {
    /// The tensors, in the order of the stages that first make some of each.
    pub tensors: Vec<MadeTensor>,
    /// What the stage of a source layer makes, by `source` index; none of those that move data between DRAM
    /// and SRAM.
    pub parts: Vec<Option<TensorPart>>,
}

/// A tensor that one stage makes, or several a part each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeTensor {
    /// Its name: the last of its nodes; if it is the result of none, its stage, with `.inner` where the nodes
    /// of others are known.
    pub name: String,
    /// Nodes of the model whose result it is; several where the last of them change no value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Its shape in the compiler's IR, of which images are NHWC.
    pub shape: Vec<usize>,
    /// Rows, columns and channels as which the machine has it, row-major like the shape.
    pub dims: [u32; 3],
    /// Its element type: `i8`, `i16`, `i32`.
    pub dtype: String,
    /// Whether it is an image, whose channels a model may have before its rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_image: bool,
    /// What its integers mean, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
}

/// The part of a tensor that a stage makes, of all its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorPart {
    /// The tensor, an index into those of the program.
    pub tensor: u32,
    /// The first of its columns.
    pub col0: u32,
    /// The first of its channels.
    pub ch0: u32,
}

/// An op of the compiler's IR that a stage computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOp {
    /// Its name, such as `tosa.conv2d`.
    pub op: String,
    /// The node of the model that it comes from.
    pub node: String,
}

/// A compiled network.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The parts in the order in which they run.
    pub parts: Vec<Part>,
    /// The statistics of the plan, as JSON.
    pub stats: Option<serde_json::Value>,
    /// IR dumps by phase name.
    pub dumps: BTreeMap<String, String>,
}

/// Who runs a part, as the manifest spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Runner {
    Machine,
    Ir,
    Onnx,
}

/// A part as the manifest describes it.
#[derive(Serialize, Deserialize)]
struct PartEntry {
    runner: Runner,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// `manifest.json`.
#[derive(Serialize, Deserialize)]
struct ManifestEntry {
    #[serde(flatten)]
    manifest: Manifest,
    parts: Vec<PartEntry>,
    /// blake3 of every other entry.
    hashes: BTreeMap<String, String>,
}

/// `debug.json`.
#[derive(Serialize, Deserialize)]
struct Debug {
    /// Names of source layers of each program.
    names: Vec<Vec<String>>,
    /// What their stages compute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ops: Vec<Vec<Vec<SourceOp>>>,
    /// The tensors that their stages make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<MadeTensors>,
    stats: Option<serde_json::Value>,
}

/// What is said of the source layers of a program.
#[derive(Default)]
struct Sources {
    names: Vec<String>,
    ops: Vec<Vec<SourceOp>>,
    tensors: Box<MadeTensors>,
}

/// An entry to be written, whose bytes stand in two places.
struct Entry<'a> {
    name: String,
    head: Vec<u8>,
    rest: &'a [u8],
}

impl Entry<'_> {
    fn new(name: String, content: Vec<u8>) -> Self {
        Self { name, head: content, rest: &[] }
    }

    fn len(&self) -> usize {
        self.head.len() + self.rest.len()
    }

    fn hash(&self) -> String {
        blake3::Hasher::new().update(&self.head).update(self.rest).finalize().to_hex().to_string()
    }
}

/// The weights as the one tensor of their entry, without their bytes: what `safetensors` makes of it is the
/// head of the entry.
struct WeightsHead<'a> {
    shape: &'a [usize; 1],
}

impl safetensors::View for WeightsHead<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        safetensors::Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    fn data_len(&self) -> usize {
        self.shape[0]
    }
}

/// The folder of part `index`, with its slash; empty for one program and at most a tail.
fn folder(runners: &[Runner], index: usize) -> String {
    match runners {
        [Runner::Machine] | [Runner::Machine, Runner::Ir | Runner::Onnx] => String::new(),
        _ => format!("part{index}/"),
    }
}

fn malformed(entry: &str, error: impl std::fmt::Display) -> BundleError {
    BundleError::Malformed { entry: entry.to_owned(), reason: error.to_string() }
}

fn archive_error(error: impl std::fmt::Display) -> BundleError {
    BundleError::Archive(error.to_string())
}

impl Code {
    fn runner(&self) -> Runner {
        match self {
            Self::Machine(_) => Runner::Machine,
            Self::Ir(_) => Runner::Ir,
            Self::Onnx(_) => Runner::Onnx,
        }
    }

    /// The entries that hold it.
    fn entries(&self, folder: &str) -> Result<Vec<Entry<'_>>, BundleError> {
        Ok(match self {
            Self::Machine(machine) => {
                let name = format!("{folder}{WEIGHTS_FILE}");
                let shape = [machine.weights.len()];
                let head = safetensors::serialize([(WEIGHTS_TENSOR, WeightsHead { shape: &shape })], None)
                    .map_err(|e| malformed(&name, e))?;
                vec![
                    Entry::new(format!("{folder}program.bin"), encode(&machine.program)),
                    Entry { name, head, rest: &machine.weights },
                ]
            }
            Self::Ir(text) => {
                vec![Entry { name: format!("{folder}host.mlir"), head: Vec::new(), rest: text.as_bytes() }]
            }
            Self::Onnx(bytes) => {
                vec![Entry { name: format!("{folder}host.onnx"), head: Vec::new(), rest: bytes }]
            }
        })
    }

    /// The code of a part from its entries, which are taken out; weights that were not read are none.
    /// `sources` are what is said of its program's source layers.
    fn take(
        runner: Runner,
        folder: &str,
        entries: &mut BTreeMap<String, Vec<u8>>,
        unread: &BTreeSet<String>,
        sources: &mut impl Iterator<Item = Sources>,
    ) -> Result<Self, BundleError> {
        let mut take = |file: &str| {
            let name = format!("{folder}{file}");
            match entries.remove(&name) {
                Some(content) => Ok((name, content)),
                None => Err(BundleError::Missing(name)),
            }
        };
        Ok(match runner {
            Runner::Machine => {
                let (entry, program) = take("program.bin")?;
                let program = decode(&program).map_err(|error| BundleError::Program { entry, error })?;
                let weights = if unread.contains(&format!("{folder}{WEIGHTS_FILE}")) {
                    Vec::new()
                } else {
                    let (entry, content) = take(WEIGHTS_FILE)?;
                    weights_of(content).map_err(|e| malformed(&entry, e))?
                };
                let Sources { names, ops, tensors } = sources.next().unwrap_or_default();
                Self::Machine(Machine { program, weights, names, ops, tensors })
            }
            Runner::Ir => {
                let (entry, text) = take("host.mlir")?;
                Self::Ir(String::from_utf8(text).map_err(|e| malformed(&entry, e))?)
            }
            Runner::Onnx => Self::Onnx(take("host.onnx")?.1),
        })
    }
}

impl Bundle {
    /// The machine's programs, in the order in which they run.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.parts.iter().filter_map(|part| match &part.code {
            Code::Machine(machine) => Some(machine),
            Code::Ir(_) | Code::Onnx(_) => None,
        })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// If the archive cannot be written (an entry beyond ZIP's limits).
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let runners: Vec<Runner> = self.parts.iter().map(|part| part.code.runner()).collect();
        let mut entries = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            entries.extend(part.code.entries(&folder(&runners, index))?);
        }
        let names = self.machines().map(|machine| machine.names.clone()).collect();
        let ops = self.machines().map(|machine| machine.ops.clone()).collect();
        let tensors = self.machines().map(|machine| MadeTensors::clone(&machine.tensors)).collect();
        let debug = Debug { names, ops, tensors, stats: self.stats.clone() };
        let debug = serde_json::to_vec_pretty(&debug).map_err(|e| malformed("debug.json", e))?;
        entries.push(Entry::new("debug.json".to_owned(), debug));
        entries.extend(self.dumps.iter().map(|(name, text)| Entry {
            name: format!("ir/{name}.mlir"),
            head: Vec::new(),
            rest: text.as_bytes(),
        }));
        let describe = |(part, runner): (&Part, Runner)| PartEntry {
            runner,
            inputs: part.inputs.clone(),
            outputs: part.outputs.clone(),
        };
        let manifest = ManifestEntry {
            manifest: Manifest { format: FORMAT_VERSION, ..self.manifest.clone() },
            parts: self.parts.iter().zip(runners).map(describe).collect(),
            hashes: entries.iter().map(|entry| (entry.name.clone(), entry.hash())).collect(),
        };
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(|e| malformed("manifest.json", e))?;
        entries.insert(0, Entry::new("manifest.json".to_owned(), manifest));

        // Room for all, so that large weights are not moved while the archive grows.
        let n_bytes: usize = entries.iter().map(|entry| entry.len() + ENTRY_OVERHEAD_BYTES).sum();
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::with_capacity(n_bytes)));
        for entry in entries {
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .with_alignment(64)
                .large_file(entry.len() as u64 >= u64::from(u32::MAX));
            zip.start_file(entry.name, options).map_err(archive_error)?;
            zip.write_all(&entry.head).map_err(archive_error)?;
            zip.write_all(entry.rest).map_err(archive_error)?;
        }
        Ok(zip.finish().map_err(archive_error)?.into_inner())
    }

    /// The bundle that a file's bytes hold. The program is decoded, not yet verified.
    ///
    /// # Errors
    /// If they are not a bundle of this format, or an entry is missing, damaged, malformed or not expected.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::read(bytes, true)
    }

    /// The bundle that a file's bytes hold, but for the weights of its programs: they are not read, so that
    /// nothing is known of whether they are damaged, and each program has none.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn without_weights(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::read(bytes, false)
    }

    fn read(bytes: &[u8], with_weights: bool) -> Result<Self, BundleError> {
        let Entries { read: mut entries, unread } =
            unpack(bytes, &|name| with_weights || !is_of_weights(name))?;
        let missing = |name: &str| BundleError::Missing(name.to_owned());
        let manifest = entries.remove("manifest.json").ok_or_else(|| missing("manifest.json"))?;
        let ManifestEntry { manifest, parts, hashes } = read_manifest(&manifest)?;
        for (name, content) in &entries {
            let found = hash(content);
            let expected = hashes.get(name).cloned().unwrap_or_else(|| "nothing".to_owned());
            if found != expected {
                return Err(BundleError::Hash { entry: name.clone(), expected, found });
            }
        }
        let is_there = |name: &str| entries.contains_key(name) || unread.contains(name);
        if let Some(name) = hashes.keys().find(|&name| !is_there(name)) {
            return Err(archive_error(format!("`{name}`, which the manifest names, is missing")));
        }
        let debug = entries.remove("debug.json").ok_or_else(|| missing("debug.json"))?;
        let debug: Debug = serde_json::from_slice(&debug).map_err(|e| malformed("debug.json", e))?;
        let ops = debug.ops.into_iter().chain(std::iter::repeat_with(Vec::new));
        let tensors = debug.tensors.into_iter().chain(std::iter::repeat_with(MadeTensors::default));
        let sources = debug.names.into_iter().zip(ops).zip(tensors);
        let mut sources =
            sources.map(|((names, ops), tensors)| Sources { names, ops, tensors: Box::new(tensors) });
        let runners: Vec<Runner> = parts.iter().map(|part| part.runner).collect();
        let take = |(index, PartEntry { runner, inputs, outputs }): (usize, PartEntry)| {
            let code = Code::take(runner, &folder(&runners, index), &mut entries, &unread, &mut sources)?;
            Ok(Part { inputs, outputs, code })
        };
        let parts = parts.into_iter().enumerate().map(take).collect::<Result<Vec<_>, BundleError>>()?;
        let mut dumps = BTreeMap::new();
        for (name, content) in entries {
            let phase = name.strip_prefix("ir/").and_then(|n| n.strip_suffix(".mlir"));
            let Some(phase) = phase else {
                return Err(archive_error(format!("unexpected entry `{name}`")));
            };
            dumps.insert(phase.to_owned(), String::from_utf8(content).map_err(|e| malformed(&name, e))?);
        }
        Ok(Self { manifest, parts, stats: debug.stats, dumps })
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Whether an entry holds the weights of a program.
fn is_of_weights(name: &str) -> bool {
    name.rsplit('/').next() == Some(WEIGHTS_FILE)
}

/// The bytes of the one tensor of an entry of weights, in the memory of the entry.
fn weights_of(mut content: Vec<u8>) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let tensors = safetensors::SafeTensors::deserialize(&content)?;
    let tensor = tensors.tensor(WEIGHTS_TENSOR)?;
    // Tensors stand after a header, to the end of the file.
    let (len, first) = (tensor.data().len(), tensor.data().as_ptr().addr() - content.as_ptr().addr());
    content.truncate(first + len);
    content.drain(..first);
    Ok(content)
}

/// The entries of an archive.
struct Entries {
    /// The content of those that were wanted, by name.
    read: BTreeMap<String, Vec<u8>>,
    /// The names of the others.
    unread: BTreeSet<String>,
}

fn unpack(bytes: &[u8], is_wanted: &dyn Fn(&str) -> bool) -> Result<Entries, BundleError> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(archive_error)?;
    let (mut read, mut unread) = (BTreeMap::new(), BTreeSet::new());
    for index in 0..zip.len() {
        let file = zip.by_index(index).map_err(archive_error)?;
        let name = file.name().map_err(archive_error)?.into_owned();
        if !is_wanted(&name) {
            unread.insert(name);
            continue;
        }
        let mut content = Vec::new();
        // A stored entry cannot be larger than the file that holds it, whatever its header claims.
        let limit = MAX_ENTRY_BYTES.min(bytes.len() as u64);
        file.take(limit + 1)
            .read_to_end(&mut content)
            .map_err(|e| archive_error(format!("`{name}`: {e}")))?;
        if content.len() as u64 > limit {
            return Err(archive_error(format!("`{name}` is larger than {limit} bytes")));
        }
        read.insert(name, content);
    }
    Ok(Entries { read, unread })
}

/// The manifest, if it is of this format.
fn read_manifest(bytes: &[u8]) -> Result<ManifestEntry, BundleError> {
    let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| malformed("manifest.json", e))?;
    let format = json.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(u64::from(FORMAT_VERSION)) {
        let found = format.and_then(|f| u32::try_from(f).ok()).unwrap_or(0);
        return Err(BundleError::Version { found });
    }
    serde_json::from_value(json).map_err(|e| malformed("manifest.json", e))
}
