//! What it means that something fails still.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use strata_frontend::import::{self, ImportError, ImportOptions, NoSideFiles};
use strata_frontend::proto::{ModelProto, encode};
use strata_ir::pass::Pipeline;
use strata_ir::text::file::{RUN, TARGET};
use strata_ir::{Module, text};
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Target, asm};
use strata_passes::quantise::TensorRange;
use strata_passes::testing::{Trouble, try_passes};

use super::calibration::CandidateCalibration;
use crate::io::temporary::TemporaryFile;
use crate::target_line;

/// How something fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// Strata, or a pass, panics.
    Panic,
    /// What is computed after the passes is something else than before, in the evaluator or on the machine.
    Miscompile,
    /// An error has this in its text or code.
    Error(String),
    /// A shell command, given a file, ends with exit code 0.
    Script(String),
}

/// What is done with candidates, and how they have to fail.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// How they fail.
    pub symptom: Symptom,
    /// The passes that run on modules.
    pub pipeline: Pipeline,
    /// The machine that they run for.
    pub target: Target,
    /// Shapes of inputs of models, by name.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// What networks in floats are calibrated on.
    pub calibration: CandidateCalibration,
    /// Whether only modules that verify count: where the first one does.
    pub only_valid: bool,
}

impl Oracle {
    /// The same for other passes.
    pub fn with_pipeline(&self, pipeline: Pipeline) -> Self {
        Self { pipeline, ..self.clone() }
    }

    fn try_passes(&self, module: &Module) -> Result<(), Trouble> {
        try_passes(&self.pipeline, Some(&self.target), module, self.calibration.samples())
    }

    /// Whether a module fails so.
    pub fn module_fails(&self, module: &Module) -> bool {
        match &self.symptom {
            Symptom::Script(command) => {
                let counts = !self.only_valid || strata_ir::verify(module).is_ok();
                counts && script_holds(command, ".mlir", self.file_of(module).as_bytes())
            }
            _ => self.is_shown_by(|| self.try_passes(module)),
        }
    }

    /// What is wrong with a module, or with what the passes make of it. `None` if nothing is, or if a script
    /// tells.
    pub fn trouble_of(&self, module: &Module) -> Option<Trouble> {
        match self.symptom {
            Symptom::Script(_) => None,
            _ => ran(|| self.try_passes(module)).err(),
        }
    }

    /// A file of a module that brings the passes and the machine, for `strata opt` and `strata test`.
    pub fn file_of(&self, module: &Module) -> String {
        format!("{}{}", self.header(), text::to_string(module))
    }

    /// The lines that name the passes and the machine; of a machine that is not of a preset, none.
    fn header(&self) -> String {
        if self.pipeline.passes().is_empty() {
            return String::new();
        }
        let target = target_line::words(&self.target);
        let target = target.map_or_else(String::new, |words| format!("// {TARGET}: {words}\n"));
        format!("// {RUN}: {}\n{target}", self.pipeline)
    }

    /// Whether a model fails so, in its import or in the passes over it.
    pub fn model_fails(&self, model: &ModelProto) -> bool {
        let bytes = encode(model);
        match &self.symptom {
            Symptom::Script(command) => script_holds(command, ".onnx", &bytes),
            _ => self.is_shown_by(|| {
                let module = self.import(&bytes).map_err(|error| Trouble::Broken(error.to_string()))?;
                self.try_passes(&module)
            }),
        }
    }

    /// The import of the bytes of a model.
    ///
    /// # Errors
    /// If it cannot be imported.
    pub fn import(&self, bytes: &[u8]) -> Result<Module, ImportError> {
        let options = ImportOptions { input_shapes: self.input_shapes.clone(), ..ImportOptions::default() };
        let resolved = import::resolve(bytes, &options, &NoSideFiles)?;
        Ok(import::import_resolved(&resolved, &options)?.module)
    }

    /// The ranges that matter to a module.
    pub fn ranges_of(&self, module: &Module) -> Vec<TensorRange> {
        self.calibration.ranges_of(&self.pipeline, &self.target, module)
    }

    /// Whether the assembly of a program fails so: read, and verified for the target.
    pub fn assembly_fails(&self, text: &str) -> bool {
        match &self.symptom {
            Symptom::Script(command) => script_holds(command, ".asm", text.as_bytes()),
            _ => self.is_shown_by(|| {
                let program = asm::parse(text).map_err(|error| Trouble::Broken(error.to_string()))?;
                let errors = verify(&program, &self.target);
                let told: Vec<String> =
                    errors.iter().map(|error| format!("{error} ({:?})", error.rule)).collect();
                if told.is_empty() { Ok(()) } else { Err(Trouble::Broken(told.join("\n"))) }
            }),
        }
    }

    fn is_shown_by(&self, run: impl FnOnce() -> Result<(), Trouble>) -> bool {
        match (&self.symptom, ran(run)) {
            (_, Ok(())) | (Symptom::Script(_), _) => false,
            (Symptom::Panic, Err(trouble)) => matches!(trouble, Trouble::Panicked(_)),
            (Symptom::Miscompile, Err(trouble)) => matches!(trouble, Trouble::Miscompiled(_)),
            (Symptom::Error(part), Err(trouble)) => trouble.to_string().contains(part),
        }
    }
}

/// What comes of something that may panic.
fn ran(run: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
    // What panics is a candidate, which is not used again.
    let panicked = |_| Err(Trouble::Panicked("a panic outside of the passes".to_owned()));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)
}

/// Whether a shell command that is given a file with some bytes ends with exit code 0.
fn script_holds(command: &str, suffix: &str, bytes: &[u8]) -> bool {
    let run = || -> std::io::Result<bool> {
        let mut named = tempfile::Builder::new();
        named.prefix("strata-reduce-").suffix(suffix);
        let mut file = TemporaryFile::new(&named, &std::env::temp_dir())?;
        file.write_all(bytes)?;
        file.flush()?;
        let mut shell = Command::new("sh");
        // Who says where the file goes need not have it at the end.
        let command = if command.contains("$1") { command.to_owned() } else { format!("{command} \"$1\"") };
        // The command erases the file when it is interrupted; a library that does not may leave that to the
        // shell, which an interrupt from the keyboard reaches too.
        let guarded = format!("trap 'rm -f -- \"$1\"; exit 130' HUP INT TERM\n(\n{command}\n)");
        shell.arg("-c").arg(guarded).arg("sh").arg(file.path());
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(shell.status()?.success())
    };
    // A command that cannot be started holds for nothing, so nothing is reduced by it.
    run().unwrap_or(false)
}
