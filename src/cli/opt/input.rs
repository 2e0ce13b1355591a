//! The modules that `strata opt` reads: those of a `.mlir` file, or the import of a model.

use std::collections::BTreeMap;
use std::path::Path;

use strata_frontend::import;
use strata_ir::Module;
use strata_ir::pass::{Pipeline, Registry};
use strata_ir::text::Resources;
use strata_ir::text::file::{self, Header, split_modules};
use strata_isa_spec::Target;
use strata_passes::testing;

use super::Args;
use crate::cli::console::Console;
use crate::cli::dumps;
use crate::cli::failure::Failure;
use crate::cli::model::{self, Content};

/// The file that is read.
pub(super) struct Input<'a> {
    pub path: &'a Path,
    header: Header,
    modules: Modules,
}

enum Modules {
    /// The text of each module; the lines of those before it are empty.
    Texts { texts: Vec<String>, resources: Resources },
    /// A model that is one function.
    Imported {
        module: Box<Module>,
        /// For inputs that number the rows of tables, how many rows there are.
        rows: BTreeMap<String, usize>,
    },
}

impl<'a> Input<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is none of those that have modules, or a model cannot be imported.
    pub(super) fn read(path: &'a Path, args: &Args) -> Result<Self, Failure> {
        let content = model::content(path)?;
        if !args.input_shapes.is_empty() && !matches!(content, Content::Onnx(_)) {
            return Err(Failure::Usage(
                "--input-shape is for ONNX models; other shapes are fixed".to_owned(),
            ));
        }
        let (header, modules) = match content {
            Content::Ir(source) => {
                let (texts, resources) = (split_modules(&source), dumps::side_resources(path)?);
                (Header::read(&source, "//"), Modules::Texts { texts, resources })
            }
            Content::Onnx(bytes) => {
                let model = model::resolved(&bytes, path, &args.input_shapes)?;
                let rows = import::indexed_rows(&model.model);
                let module = Box::new(model::import_of(&model, path, &args.input_shapes)?);
                (Header::default(), Modules::Imported { module, rows })
            }
            Content::Tosa(bytes) => {
                let module = Box::new(model::flatbuffer(path, &bytes)?);
                (Header::default(), Modules::Imported { module, rows: BTreeMap::new() })
            }
            Content::Bundle(_) => return Err(Failure::file(path, "a bundle holds no module, but a program")),
        };
        Ok(Self { path, header, modules })
    }

    /// Whether it is a model that was imported, not text.
    pub(super) fn is_of_model(&self) -> bool {
        matches!(self.modules, Modules::Imported { .. })
    }

    /// How many modules there are.
    pub(super) fn n_modules(&self) -> usize {
        match &self.modules {
            Modules::Texts { texts, .. } => texts.len(),
            Modules::Imported { .. } => 1,
        }
    }

    /// The text of a module, and what its constants are named in; an imported one has none.
    pub(super) fn text(&self, index: usize) -> Option<(&str, &Resources)> {
        match &self.modules {
            Modules::Texts { texts, resources } => Some((texts.get(index)?.as_str(), resources)),
            Modules::Imported { .. } => None,
        }
    }

    /// A module.
    ///
    /// # Errors
    /// If its text cannot be read.
    pub(super) fn module(&self, index: usize, console: &Console) -> Result<Module, Failure> {
        match &self.modules {
            Modules::Texts { texts, resources } => {
                let module = model::parse(self.path, &texts[index], resources, console);
                module.map_err(|error| self.failure(index, error))
            }
            Modules::Imported { module, .. } => Ok((**module).clone()),
        }
    }

    /// For inputs that number the rows of tables, how many rows there are, if the model tells.
    pub(super) fn rows(&self) -> BTreeMap<String, usize> {
        match &self.modules {
            Modules::Texts { .. } => BTreeMap::new(),
            Modules::Imported { rows, .. } => rows.clone(),
        }
    }

    /// The passes that the file names; none, if it names none.
    ///
    /// # Errors
    /// If it names what is none.
    pub(super) fn pipeline(&self, registry: &Registry) -> Result<Pipeline, Failure> {
        match self.header.get(file::RUN) {
            None | Some("round-trip" | "verify") => Ok(Pipeline::default()),
            Some(passes) => {
                let about = |error| Failure::file(self.path, format!("{}: {error}", file::RUN));
                registry.parse(passes).map_err(about)
            }
        }
    }

    /// The machine that the file names.
    ///
    /// # Errors
    /// If it names what is none.
    pub(super) fn target(&self) -> Result<Option<Target>, Failure> {
        let about = |error| Failure::file(self.path, format!("{}: {error}", file::TARGET));
        self.header.get(file::TARGET).map(testing::target).transpose().map_err(about)
    }

    /// A failure of a module, which is named where there are several.
    pub(super) fn failure(&self, index: usize, what: impl std::fmt::Display) -> Failure {
        match self.text(index) {
            Some((text, _)) if self.n_modules() > 1 => {
                let line = text.lines().position(|line| !line.trim().is_empty()).unwrap_or_default() + 1;
                Failure::file(self.path, format!("module {}, from line {line}: {what}", index + 1))
            }
            _ => Failure::file(self.path, what),
        }
    }

    /// What is added to the name of a pass that runs on a module: nothing where there is but one.
    pub(super) fn label(&self, index: usize) -> String {
        if self.n_modules() == 1 { String::new() } else { format!(" on module {}", index + 1) }
    }
}
