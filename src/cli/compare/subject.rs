//! What is compared: arrays that are there, or a bundle or model that makes them.

use std::path::{Path, PathBuf};

use strata_isa_spec::bundle::{Bundle, Port};

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::model::{self, Content};
use crate::compare::{self, Arrays};
use crate::compile::CompileError;
use crate::compile::noise;
use crate::dump::{DumpError, DumpFolder, Index};
use crate::float::FloatModel;
use crate::io::temporary::TemporaryFolder;
use crate::io::{self, Array, ImageOptions};
use crate::made::MadeIn;
use crate::session::Session;

/// One of the two.
pub(super) struct Subject {
    path: PathBuf,
    form: Form,
}

enum Form {
    Arrays(Arrays),
    Bundle(Box<Session>),
    Model(Box<FloatModel>),
}

/// Where inputs come from.
pub(super) struct Inputs<'a> {
    /// Those that are given, by name or position.
    pub files: &'a [(String, PathBuf)],
    /// How pictures become inputs.
    pub images: ImageOptions,
    /// The seed of noise.
    pub seed: u64,
}

/// Arrays, and the folder that they stand in while they are needed.
pub(super) struct Made {
    pub arrays: Arrays,
    /// Erased when it is dropped.
    _folder: Option<TemporaryFolder>,
}

impl Subject {
    /// Reads a file or a folder.
    pub(super) fn load(path: &Path, input_shapes: &[(String, Vec<usize>)]) -> Result<Self, Failure> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_array = ["npy", "npz"].iter().any(|kind| extension.eq_ignore_ascii_case(kind));
        let form = if is_array || path.is_dir() {
            Form::Arrays(compare::read(path)?)
        } else {
            match model::content(path)? {
                Content::Bundle(bytes) => {
                    let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::file(path, error))?;
                    let session = Session::new(bundle).map_err(|error| Failure::file(path, error))?;
                    Form::Bundle(Box::new(session))
                }
                Content::Onnx(bytes) => {
                    let resolved = model::resolved(&bytes, path, input_shapes)?;
                    let shapes = input_shapes.iter().cloned().collect();
                    let model = FloatModel::new(resolved, &model::file_name(path), &shapes);
                    Form::Model(Box::new(model.map_err(|error| Failure::from(error).about(path))?))
                }
                Content::Ir(_) | Content::Tosa(_) => {
                    let what = "a function of TOSA; expected a bundle, an ONNX model, .npz, .npy or a folder \
                                of arrays";
                    return Err(Failure::file(path, what));
                }
            }
        };
        Ok(Self { path: path.to_owned(), form })
    }

    /// The inputs that it is run on, if it is to be run.
    fn ports(&self) -> Option<&[Port]> {
        match &self.form {
            Form::Arrays(_) => None,
            Form::Bundle(session) => Some(session.inputs()),
            Form::Model(model) => Some(model.inputs()),
        }
    }

    /// The inputs that its arrays were made of, if it has an index that tells.
    fn recorded(&self, ports: &[Port]) -> Result<Option<Vec<Array>>, Failure> {
        let Form::Arrays(Arrays::Dump { folder, index }) = &self.form else { return Ok(None) };
        let mut arrays = Vec::with_capacity(ports.len());
        for port in ports {
            let is_it = |name: &str, made_in| name == port.name && made_in == MadeIn::Input;
            let Some(entry) = index.tensors.iter().find(|entry| is_it(&entry.name, entry.made_in)) else {
                return Ok(None);
            };
            let Some(file) = &entry.float else { return Ok(None) };
            arrays.push(io::load_array(&folder.join(file), &port.shape, &ImageOptions::default())?);
        }
        Ok(Some(arrays))
    }

    /// Its arrays; those of a bundle or a model are made from inputs.
    pub(super) fn run(self, inputs: &[Array], console: &Console) -> Result<Made, Failure> {
        let path = &self.path;
        let given: Vec<_> =
            inputs.iter().enumerate().map(|(at, array)| (format!("#{at}"), array.clone())).collect();
        let made = |place: Place, index: Index| Made {
            arrays: Arrays::Dump { folder: place.path, index: Box::new(index) },
            _folder: Some(place.folder),
        };
        match self.form {
            Form::Arrays(arrays) => Ok(Made { arrays, _folder: None }),
            Form::Bundle(session) => {
                let place = Place::new()?;
                let progress = console.progress(Some(session.n_phases() as u64));
                progress.step("phases");
                let mut folder = DumpFolder::begin(&place.path, &session)?;
                let done = &mut |phases: usize| progress.done(phases as u64);
                let mut each = |tensor| Ok::<_, Failure>(folder.add(tensor)?);
                let outputs = session.run_stages(&given, done, &mut each);
                let outputs = outputs.map_err(|failure| failure.about(path))?;
                let index = folder.finish(&outputs)?;
                Ok(made(place, index))
            }
            Form::Model(model) => {
                let place = Place::new()?;
                let progress = console.progress(None);
                progress.step("evaluating in f32");
                if !model.has_layers() {
                    let what = "the host runs some nodes of it, so only its outputs are compared";
                    progress.note(&format!("{}: {what}", io::shown(path)));
                }
                let about = |error: CompileError| Failure::from(error).about(path);
                let names = model.layer_names().map_err(about)?;
                let mut folder = DumpFolder::of_floats(&place.path, &model::file_name(path), &names)?;
                let mut each =
                    |name: &str, tensor: &strata_ir::Tensor| Ok::<_, Failed>(folder.add_value(name, tensor)?);
                let outputs = model.run_layers(&given, &mut each).map_err(|failed| match failed {
                    Failed::Model(error) => about(error),
                    Failed::Folder(error) => error.into(),
                })?;
                let index = folder.finish(&outputs)?;
                Ok(made(place, index))
            }
        }
    }
}

/// Why a model's values could not be had.
enum Failed {
    Model(CompileError),
    Folder(DumpError),
}

impl From<CompileError> for Failed {
    fn from(error: CompileError) -> Self {
        Self::Model(error)
    }
}

impl From<DumpError> for Failed {
    fn from(error: DumpError) -> Self {
        Self::Folder(error)
    }
}

/// A place for a folder that is there for the time of a comparison.
struct Place {
    folder: TemporaryFolder,
    path: PathBuf,
}

impl Place {
    fn new() -> Result<Self, Failure> {
        let within = std::env::temp_dir();
        let folder = TemporaryFolder::new(tempfile::Builder::new().prefix("strata-"), &within);
        let folder = folder.map_err(|error| {
            Failure::Failed(format!("{}: no folder can be made there: {error}", within.display()))
        })?;
        let path = folder.path().join("stages");
        Ok(Self { folder, path })
    }
}

/// The inputs that both are run on, in the order in which they take them; none if neither is to be run.
pub(super) fn inputs(
    subjects: [&Subject; 2],
    given: &Inputs<'_>,
    console: &Console,
) -> Result<Vec<Array>, Failure> {
    let [a, b] = subjects;
    let Some(ports) = a.ports().or_else(|| b.ports()) else {
        return match given.files {
            [] => Ok(Vec::new()),
            _ => Err(Failure::Usage(
                "--input: neither A nor B is a bundle or a model that takes one".to_owned(),
            )),
        };
    };
    if let (Some(of_a), Some(of_b)) = (a.ports(), b.ports()) {
        let shapes = |ports: &[Port]| ports.iter().map(|port| port.shape.clone()).collect::<Vec<_>>();
        if shapes(of_a) != shapes(of_b) {
            let [a, b] = [(a, of_a), (b, of_b)].map(|(subject, ports)| {
                let told = ports
                    .iter()
                    .map(|port| format!("`{}` {}", port.name, io::array::show_shape(&port.shape)));
                format!("{} takes {}", io::shown(&subject.path), told.collect::<Vec<_>>().join(", "))
            });
            return Err(Failure::Failed(format!("{a}, but {b}; expected the same inputs (--input-shape)")));
        }
    }
    if !given.files.is_empty() {
        let named = model::inputs(given.files, ports, &given.images)?;
        let mut arrays: Vec<Option<Array>> = vec![None; ports.len()];
        for (name, array) in named {
            let at = name.trim_start_matches('#').parse::<usize>().ok();
            if let Some(place) = at.and_then(|at| arrays.get_mut(at)) {
                *place = Some(array);
            }
        }
        let missing =
            |port: &Port| Failure::Failed(format!("input `{}` is missing: give it by --input", port.name));
        let arrays = arrays.into_iter().zip(ports);
        return arrays.map(|(array, port)| array.ok_or_else(|| missing(port))).collect();
    }
    for subject in subjects {
        if let Some(arrays) = subject.recorded(ports)? {
            return Ok(arrays);
        }
    }
    console.note(&format!("no --input: the inputs are noise of seed {}", given.seed));
    noise::of_ports(given.seed, ports).map_err(|problem| Failure::file(&a.path, problem))
}
