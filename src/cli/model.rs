//! Files that commands take: models, bundles, IR; and arrays for their inputs.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use strata_frontend::import::{self, ImportOptions, Resolved};
use strata_frontend::tosa;
use strata_ir::pass::Level;
use strata_ir::text::file::split_modules;
use strata_ir::text::resources::Resources;
use strata_ir::{Module, diag, text};
use strata_isa_spec::bundle::{Bundle, BundleError, Port};

use super::console::Console;
use super::dumps::side_resources;
use super::failure::Failure;
use crate::compile::checkpoint::{Checkpoint, CheckpointPart};
use crate::compile::{CalibrationData, CompileError};
use crate::inputs;
use crate::io::array::show_shape;
use crate::io::{self, Array, DType, ImageOptions, ModelFolder};
use crate::session;

/// The bytes of a file: in memory, or mapped, so that only what is looked at is read.
pub(super) enum FileBytes {
    Read(Vec<u8>),
    Mapped(Mmap),
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

/// What a file holds, told by its first bytes and its name.
pub(super) enum Content {
    /// A `.strata` file's bytes.
    Bundle(FileBytes),
    /// The text of a module.
    Ir(String),
    /// A TOSA flatbuffer's bytes.
    Tosa(Vec<u8>),
    /// An ONNX file's bytes.
    Onnx(Vec<u8>),
}

/// The first bytes of a bundle, which is a ZIP archive.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// Reads a file and tells what it is.
pub(super) fn content(path: &Path) -> Result<Content, Failure> {
    let named = |extension: &str| path.extension().is_some_and(|e| e == extension);
    if named("strata")
        && let Ok(bytes) = io::map(path)
    {
        return Ok(Content::Bundle(FileBytes::Mapped(bytes)));
    }
    let bytes = io::read(path)?;
    if bytes.starts_with(ARCHIVE) || named("strata") {
        return Ok(Content::Bundle(FileBytes::Read(bytes)));
    }
    if named("mlir") || io::is_standard_stream(path) && is_text(&bytes) {
        let text = String::from_utf8(bytes).map_err(|_| Failure::file(path, "not UTF-8 text"))?;
        return Ok(Content::Ir(text));
    }
    if named("tosa") || tosa::is_flatbuffer(&bytes) && !named("onnx") {
        return Ok(Content::Tosa(bytes));
    }
    match other_kind(&bytes) {
        Some(kind) => Err(Failure::file(path, format!("{kind}; expected {EXPECTED}"))),
        None => Ok(Content::Onnx(bytes)),
    }
}

/// What commands take that take a model.
const EXPECTED: &str =
    "an ONNX model, a TOSA flatbuffer (.tosa), a module of the IR (.mlir) or a bundle (.strata)";

/// What a file is that is no model, told by its first bytes.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 6] = [
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x1f\x8b", "a gzip archive, to be unpacked first"),
        (b"\x89HDF", "an HDF5 file, such as Keras writes; export it to ONNX"),
        (b"\x80\x02", "a Python pickle, such as PyTorch writes; export it to ONNX"),
    ];
    if bytes.is_empty() {
        return Some("an empty file");
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some("a TensorFlow Lite model; export the original to ONNX");
    }
    let known = kinds.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind);
    known.or_else(|| is_text(bytes).then_some("text"))
}

/// Whether bytes are text, which no ONNX file and no flatbuffer is: they have bytes below a blank.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    !bytes.iter().any(is_control) && std::str::from_utf8(bytes).is_ok()
}

/// The bundle of a file, without its weights.
pub(super) fn bundle_without_weights(path: &Path) -> Result<Bundle, Failure> {
    read_bundle(path, Bundle::without_weights)
}

/// The bundle of a file.
pub(super) fn bundle(path: &Path) -> Result<Bundle, Failure> {
    read_bundle(path, Bundle::from_bytes)
}

fn read_bundle(path: &Path, read: fn(&[u8]) -> Result<Bundle, BundleError>) -> Result<Bundle, Failure> {
    match content(path)? {
        Content::Bundle(bytes) => read(&bytes).map_err(|e| Failure::file(path, e)),
        Content::Ir(_) | Content::Tosa(_) | Content::Onnx(_) => {
            Err(Failure::file(path, "not a bundle: expected a file that `strata compile` wrote"))
        }
    }
}

/// The only module of a `.mlir` file, with the constants of its side file if there is one.
pub(super) fn module(path: &Path, source: &str, console: &Console) -> Result<Module, Failure> {
    let mut modules = modules(path, source, console)?;
    match (modules.pop(), modules.len()) {
        (Some(module), 0) => Ok(module),
        (_, n) => {
            let what = format!("{} modules, one for each part of a model; this command takes one", n + 1);
            Err(Failure::file(path, what))
        }
    }
}

/// The modules of a `.mlir` file, with the constants of its side file if there is one.
pub(super) fn modules(path: &Path, source: &str, console: &Console) -> Result<Vec<Module>, Failure> {
    let resources = side_resources(path)?;
    let texts = split_modules(source);
    let read =
        |text: &String| parse(path, text, &resources, console).map_err(|error| Failure::file(path, error));
    texts.iter().map(read).collect()
}

/// One module of a file; an error shows the lines that are wrong.
pub(super) fn parse(
    path: &Path,
    text: &str,
    resources: &Resources,
    console: &Console,
) -> Result<Module, String> {
    text::parse(text, Some(resources)).map_err(|errors| {
        let shown = diag::render(&errors.0, Some((&io::shown(path), text)), console.colour());
        format!("not a module of the IR\n{shown}")
    })
}

/// The checkpoint or the function of plain TOSA that a `.mlir` file holds, ready to be compiled.
pub(super) fn checkpoint(path: &Path, source: &str, console: &Console) -> Result<Checkpoint, Failure> {
    let about = |error: CompileError| Failure::from(error).about(path);
    let mut checkpoint = Checkpoint::from_modules(modules(path, source, console)?).map_err(about)?;
    if let (None, [CheckpointPart::Machine { module, .. }]) = (&checkpoint.record, &mut checkpoint.parts[..])
        && checkpoint.level <= Level::Quant
    {
        tosa::entry::prepare(module).map_err(|error| about(error.into()))?;
    }
    Ok(checkpoint)
}

/// The function of plain TOSA that a `.mlir` file holds, ready to be compiled or evaluated.
pub(super) fn function(path: &Path, source: &str, console: &Console) -> Result<Module, Failure> {
    let mut module = module(path, source, console)?;
    let level = Level::of(&module);
    if level > Level::Quant {
        let what = format!("a module at level `{level}`; `strata opt` takes those, this command plain TOSA");
        return Err(Failure::file(path, what));
    }
    let prepared = tosa::entry::prepare(&mut module);
    prepared.map_err(|error| Failure::from(CompileError::from(error)).about(path))?;
    Ok(module)
}

/// The function of a TOSA flatbuffer.
pub(super) fn flatbuffer(path: &Path, bytes: &[u8]) -> Result<Module, Failure> {
    let read = tosa::read(bytes, &file_name(path));
    read.map_err(|error| Failure::from(CompileError::from(error)).about(path))
}

/// An ONNX file with what stands in files beside it, as a model of plain nodes.
pub(super) fn resolved(
    bytes: &[u8],
    path: &Path,
    input_shapes: &[(String, Vec<usize>)],
) -> Result<Resolved, Failure> {
    let resolved = import::resolve(bytes, &import_options(path, input_shapes), &ModelFolder::of(path));
    resolved.map_err(|error| Failure::from(CompileError::from(error)).about(path))
}

/// The f32 import of a model.
pub(super) fn imported(
    bytes: &[u8],
    path: &Path,
    input_shapes: &[(String, Vec<usize>)],
) -> Result<Module, Failure> {
    import_of(&resolved(bytes, path, input_shapes)?, path, input_shapes)
}

/// The f32 import of a model of plain nodes.
pub(super) fn import_of(
    model: &Resolved,
    path: &Path,
    input_shapes: &[(String, Vec<usize>)],
) -> Result<Module, Failure> {
    let imported = import::import_resolved(model, &import_options(path, input_shapes));
    Ok(imported.map_err(|error| Failure::from(CompileError::from(error)).about(path))?.module)
}

/// The inputs of a model, whatever its nodes.
pub(super) fn onnx_inputs(
    model: &Resolved,
    path: &Path,
    input_shapes: &[(String, Vec<usize>)],
) -> Result<Vec<Port>, Failure> {
    let inputs = import::inputs(model, &import_options(path, input_shapes));
    let inputs = inputs.map_err(|error| Failure::from(CompileError::from(error)).about(path))?;
    Ok(inputs.iter().map(|port| session::plain_port(&port.name, &port.shape, port.dtype)).collect())
}

/// How an ONNX model is imported.
pub(super) fn import_options(path: &Path, input_shapes: &[(String, Vec<usize>)]) -> ImportOptions {
    ImportOptions {
        input_shapes: input_shapes.iter().cloned().collect(),
        file_name: file_name(path),
        ..ImportOptions::default()
    }
}

/// The last part of a path, for locations and messages.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The inputs and outputs of a module's `@main`.
pub(super) fn main_ports(module: &Module) -> Result<(Vec<Port>, Vec<Port>), Failure> {
    let main = module.function("main").ok_or_else(|| Failure::failed("there is no function `main`"))?;
    Ok((session::ports(module, main, false)?, session::ports(module, main, true)?))
}

/// The arrays of `NAME=FILE` arguments, by their positions as `#N`; pictures are brought to the shapes of the
/// inputs.
pub(super) fn inputs(
    given: &[(String, PathBuf)],
    ports: &[Port],
    images: &ImageOptions,
) -> Result<Vec<(String, Array)>, Failure> {
    let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    let assigned = inputs::assign(ports, &names).map_err(Failure::Usage)?;
    let mut arrays = Vec::with_capacity(given.len());
    for ((name, path), at) in given.iter().zip(assigned) {
        // What else is wrong is for the session to complain of.
        let Some((at, port)) = at.and_then(|at| Some((at, ports.get(at)?))) else {
            let names: Vec<String> = ports.iter().map(|port| format!("`{}`", port.name)).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::Failed(format!("there is no input `{name}`; the inputs are {names}")));
        };
        arrays.push((format!("#{at}"), io::load_array(path, &port.shape, images)?));
    }
    Ok(arrays)
}

/// The arrays of a file for the inputs of a model, in their order: a `.npz` gives them by name; a model with
/// one input takes the one array or picture of any file. Errors begin with `what`, which says what they are
/// for.
pub(super) fn sample(
    file: &Path,
    ports: &[Port],
    images: &ImageOptions,
    what: &str,
) -> Result<Vec<Array>, Failure> {
    let shape = |_: Option<&str>| ports.first().map(|port| port.shape.clone()).unwrap_or_default();
    let arrays = io::load_named(file, shape, images)?;
    fitting(arrays, ports).map_err(|problem| Failure::file(file, format!("{what}{problem}")))
}

/// Arrays of a file as the inputs of a model, in their order; what is wrong with them.
pub(super) fn fitting(
    mut arrays: Vec<(Option<String>, Array)>,
    ports: &[Port],
) -> Result<Vec<Array>, String> {
    let mut sample = Vec::with_capacity(ports.len());
    let mut problems = Vec::new();
    for input in ports {
        let at = arrays.iter().position(|(name, _)| name.as_deref() == Some(input.name.as_str()));
        let at = at.or_else(|| (ports.len() == 1 && arrays.len() == 1).then_some(0));
        match at.map(|at| arrays.swap_remove(at).1) {
            Some(array) if array.shape == input.shape => match fault(&array, &input.dtype) {
                Some(what) => problems.push(format!("input `{}` {what}", input.name)),
                None => sample.push(array),
            },
            Some(array) => problems.push(format!(
                "input `{}`: expected shape {}, found {}",
                input.name,
                show_shape(&input.shape),
                show_shape(&array.shape)
            )),
            None => problems.push(format!("there is no array for input `{}`", input.name)),
        }
    }
    if problems.is_empty() { Ok(sample) } else { Err(problems.join("; ")) }
}

/// Calibration samples of a file or folder: each picture, `.npy` or `.npz` is one sample. A model with
/// several inputs takes `.npz` files whose arrays have the inputs' names.
pub(super) fn calibration(
    path: &Path,
    ports: &[Port],
    images: &ImageOptions,
) -> Result<CalibrationData, Failure> {
    let mut samples = Vec::new();
    for file in io::array_files(path)? {
        samples.push(sample(&file, ports, images, "calibration sample: ")?);
    }
    Ok(CalibrationData::Samples(samples))
}

/// Why an array cannot be a sample of an input of element type `dtype`.
fn fault(array: &Array, dtype: &str) -> Option<String> {
    if let Some(what) = array.not_finite() {
        return Some(format!("holds {what}"));
    }
    if let Some(value) = array.beyond_f32() {
        return Some(format!("holds {value}, beyond f32, in which networks are computed"));
    }
    let dtype: DType = dtype.parse().ok()?;
    let value = array.values.iter().find(|&&value| !dtype.holds(value))?;
    Some(format!("is of {dtype} and cannot hold {value}"))
}
