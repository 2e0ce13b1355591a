//! Checkpoints: a compile at a level of the IR, as one or several modules.
//!
//! A checkpoint holds all that the rest of a compile needs, but the pictures or arrays that a network is
//! calibrated on: compiling it gives the bundle that the compile which wrote it gives, byte for byte. It is
//! written as a module of the IR for every part of the model. The first has the [`Record`] as
//! `strata.compile`; a part of the machine has its [`ModelStats`] as `strata.model` from the stages on; a
//! part of the host has its ports, and the ONNX model that the host's library runs, if it does, as
//! `strata.host`. A network that is too large to be calibrated on noise is there at a smaller size too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_ir::attr::Elements;
use strata_ir::pass::Level;
use strata_ir::verify::verify;
use strata_ir::{Attribute, Module, Tensor, TensorData, text};
use strata_isa_spec::bundle::{Code, Port};

use super::{CalibrationData, CompileError, CompileOptions, network_name};
use crate::ports::demand_sound;
use crate::session;
use crate::stats::{HostStats, ModelStats, PrecisionStats};

/// The attribute of the first module that holds the [`Record`].
const RECORD: &str = "strata.compile";
/// The attribute of a part of the machine that holds its [`ModelStats`].
const MODEL: &str = "strata.model";
/// The attribute of a part of the host.
const HOST: &str = "strata.host";
/// The attribute of the module that is the network at the size that it is calibrated at.
const SMALLER: &str = "strata.calibration";
/// Samples of noise that a compile may be calibrated on.
const MAX_NOISE_SAMPLES: usize = 1 << 10;
/// The entry of [`HOST`] that holds an ONNX model.
const ONNX: &str = "onnx";

/// Takes away what a module tells of a compile, of which it is no longer a part.
pub(crate) fn forget(module: &mut Module) {
    let top = module.top();
    for name in [RECORD, SMALLER, HOST, MODEL] {
        module.op_mut(top).extra.remove(name);
    }
}

/// What a compile knows of the whole model beside its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The name of the network.
    pub network: String,
    /// How it is compiled.
    pub options: CompileOptions,
    /// The model's inputs, as they are outside any part.
    pub inputs: Vec<Port>,
    /// The names of the model's outputs.
    pub outputs: Vec<String>,
    /// Element types that a user sees of outputs, where the parts hand on another.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output_types: BTreeMap<String, String>,
    /// How many rows the tables have whose rows inputs number, by the names of the inputs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub table_rows: BTreeMap<String, usize>,
    /// Parameters of the model.
    pub parameters: u64,
    /// What a search for 16-bit activations found, an entry a part; from the quant level on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub precision: Vec<PrecisionStats>,
    /// What the host has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStats>,
}

impl Record {
    /// That of a module, if it has one.
    ///
    /// # Errors
    /// If its attribute is something else, or tells of what cannot be.
    pub fn of(module: &Module) -> Result<Option<Self>, CompileError> {
        let record: Option<Self> = read(module, RECORD)?;
        let problem = record.as_ref().and_then(Self::problem);
        let malformed = |problem| CompileError::Checkpoint(format!("`{RECORD}`: {problem}"));
        problem.map_or(Ok(record), |problem| Err(malformed(problem)))
    }

    /// What is wrong with it: a dump may have been edited.
    fn problem(&self) -> Option<String> {
        let ports = self.inputs.iter().find_map(|port| demand_sound(port, false).err());
        let target = || {
            let problems = self.options.target.problems();
            (!problems.is_empty()).then(|| format!("no machine is like its target: {}", problems.join("; ")))
        };
        let samples = || match self.options.calibration {
            CalibrationData::Noise { samples, .. } if !(1..=MAX_NOISE_SAMPLES).contains(&samples) => {
                Some(format!("`samples` is {samples}, expected 1 to {MAX_NOISE_SAMPLES}"))
            }
            _ => None,
        };
        ports.map(|problem| format!("input {problem}")).or_else(target).or_else(samples)
    }

    /// That of a function of TOSA in a file.
    pub(super) fn of_function(
        module: &Module,
        file_name: &str,
        options: &CompileOptions,
    ) -> Result<Self, CompileError> {
        let ports = |name: &str, outputs: bool| match module.function(name) {
            Some(func) => {
                session::ports(module, func, outputs).map(Some).map_err(CompileError::CalibrationData)
            }
            None => Ok(None),
        };
        let missing = || super::missing("main");
        let results = match ports("host", true)? {
            Some(results) => results,
            None => ports("main", true)?.ok_or_else(missing)?,
        };
        Ok(Self {
            network: network_name(file_name),
            options: options.clone(),
            inputs: ports("main", false)?.ok_or_else(missing)?,
            outputs: results.into_iter().map(|port| port.name).collect(),
            output_types: BTreeMap::new(),
            table_rows: BTreeMap::new(),
            parameters: 0,
            precision: Vec::new(),
            host: None,
        })
    }
}

/// A part of a model at a level.
#[derive(Clone, Debug)]
pub enum CheckpointPart {
    /// What the machine runs.
    Machine {
        /// It, at the level of the checkpoint.
        module: Module,
        /// Its size, known from the stages on.
        model: Option<ModelStats>,
    },
    /// What the host runs.
    Host(HostCode),
}

/// What the host runs, and what that takes and gives.
#[derive(Clone, Debug)]
pub struct HostCode {
    /// A function of the IR, or an ONNX model.
    pub code: Code,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// A compile at a level.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The level of the parts that the machine runs.
    pub level: Level,
    /// What is known of the whole; nothing of a function that no compile wrote.
    pub record: Option<Record>,
    /// The parts, in the order in which they run.
    pub parts: Vec<CheckpointPart>,
    /// The network at the smaller size that it is calibrated at, where its own is too large for noise.
    pub smaller: Option<Module>,
}

/// The ports of a part of the host.
#[derive(Serialize, Deserialize)]
struct HostPorts {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Checkpoint {
    /// That of a network that is one part of the machine.
    pub(super) fn of_one(level: Level, record: &Record, module: Module) -> Self {
        Self::of_parts(level, record.clone(), vec![CheckpointPart::Machine { module, model: None }])
    }

    /// That of a network in parts.
    pub(super) fn of_parts(level: Level, record: Record, parts: Vec<CheckpointPart>) -> Self {
        Self { level, record: Some(record), parts, smaller: None }
    }

    /// The modules of the parts, as they are written.
    ///
    /// # Errors
    /// If the record has no form as an attribute.
    pub fn to_modules(&self) -> Result<Vec<Module>, CompileError> {
        let mut modules = self.parts.iter().map(CheckpointPart::to_module).collect::<Result<Vec<_>, _>>()?;
        if let (Some(first), Some(record)) = (modules.first_mut(), &self.record) {
            annotate(first, RECORD, record)?;
        }
        if let Some(smaller) = &self.smaller {
            let mut smaller = smaller.clone();
            let top = smaller.top();
            smaller.op_mut(top).extra.insert(SMALLER.to_owned(), Attribute::Unit);
            modules.push(smaller);
        }
        Ok(modules)
    }

    /// The checkpoint that modules are.
    ///
    /// # Errors
    /// If an attribute is not what it should be, parts are of several levels, or the first of several has no
    /// record.
    pub fn from_modules(mut modules: Vec<Module>) -> Result<Self, CompileError> {
        let malformed = |what: String| CompileError::Checkpoint(what);
        let record = match modules.first() {
            Some(first) => Record::of(first)?,
            None => return Err(malformed("there is no module".to_owned())),
        };
        if record.is_none() && modules.len() > 1 {
            return Err(malformed(format!("the first of {} modules has no `{RECORD}`", modules.len())));
        }
        let is_smaller = |module: &mut Module| module.op(module.top()).extra.contains_key(SMALLER);
        let smaller = modules.pop_if(is_smaller);
        let parts = modules.into_iter().map(CheckpointPart::from_module).collect::<Result<Vec<_>, _>>()?;
        let mut levels: Vec<Level> = parts
            .iter()
            .filter_map(|part| match part {
                CheckpointPart::Machine { module, .. } => Some(Level::of(module)),
                CheckpointPart::Host(_) => None,
            })
            .collect();
        levels.dedup();
        match levels[..] {
            // What the host runs alone is at every level.
            [] => Ok(Self { level: Level::Sched, record, parts, smaller }),
            [level] => Ok(Self { level, record, parts, smaller }),
            _ => {
                let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
                Err(malformed(format!("its modules are at several levels: {}", names.join(", "))))
            }
        }
    }

    /// The module of a network that is one part of the machine.
    pub fn only_module(&self) -> Option<&Module> {
        match &self.parts[..] {
            [CheckpointPart::Machine { module, .. }] => Some(module),
            _ => None,
        }
    }

    /// The options that are recorded.
    pub fn options(&self) -> Option<&CompileOptions> {
        self.record.as_ref().map(|record| &record.options)
    }
}

impl CheckpointPart {
    fn to_module(&self) -> Result<Module, CompileError> {
        match self {
            Self::Machine { module, model } => {
                let mut module = module.clone();
                if let Some(model) = model {
                    annotate(&mut module, MODEL, model)?;
                }
                Ok(module)
            }
            Self::Host(HostCode { code, inputs, outputs }) => {
                let mut module = match code {
                    Code::Ir(text) => text::parse(text, None)
                        .map_err(|errors| CompileError::Checkpoint(errors.to_string()))?,
                    Code::Onnx(_) | Code::Machine(_) => Module::new(),
                };
                let ports = HostPorts { inputs: inputs.clone(), outputs: outputs.clone() };
                annotate(&mut module, HOST, &ports)?;
                let top = module.top();
                if let (Code::Onnx(bytes), Some(Attribute::Dict(host))) =
                    (code, module.op_mut(top).extra.get_mut(HOST))
                {
                    let bytes: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
                    let tensor = Tensor::new([bytes.len()], TensorData::I8(bytes));
                    host.insert(ONNX.to_owned(), Attribute::Elements(Elements::from(tensor)));
                }
                Ok(module)
            }
        }
    }

    fn from_module(mut module: Module) -> Result<Self, CompileError> {
        let top = module.top();
        module.op_mut(top).extra.remove(RECORD);
        let Some(Attribute::Dict(mut host)) = module.op_mut(top).extra.remove(HOST) else {
            verify(&module).map_err(|errors| CompileError::Checkpoint(errors.to_string()))?;
            let model = read(&module, MODEL)?;
            module.op_mut(top).extra.remove(MODEL);
            return Ok(Self::Machine { module, model });
        };
        let code = match host.remove(ONNX) {
            None => Code::Ir(text::to_string(&module)),
            Some(Attribute::Elements(elements)) => match elements.tensor.data() {
                TensorData::I8(bytes) => Code::Onnx(bytes.iter().map(|byte| byte.cast_unsigned()).collect()),
                _ => return Err(CompileError::Checkpoint(format!("`{HOST}` has no bytes of a model"))),
            },
            Some(_) => return Err(CompileError::Checkpoint(format!("`{HOST}` has no bytes of a model"))),
        };
        let HostPorts { inputs, outputs } = Attribute::Dict(host)
            .to_serde()
            .map_err(|error| CompileError::Checkpoint(format!("`{HOST}`: {error}")))?;
        let sound = |outputs: bool| move |port: &Port| demand_sound(port, outputs);
        let is_sound = inputs.iter().try_for_each(sound(false));
        is_sound
            .and_then(|()| outputs.iter().try_for_each(sound(true)))
            .map_err(|problem| CompileError::Checkpoint(format!("`{HOST}`: {problem}")))?;
        Ok(Self::Host(HostCode { code, inputs, outputs }))
    }
}

/// Whether a module of a checkpoint is what the host runs.
pub fn is_of_host(module: &Module) -> bool {
    module.op(module.top()).extra.contains_key(HOST)
}

/// Sets an attribute of a module to a value.
fn annotate<T: Serialize>(module: &mut Module, name: &str, value: &T) -> Result<(), CompileError> {
    let attr = Attribute::from_serde(value);
    let attr = attr.map_err(|error| CompileError::Checkpoint(format!("`{name}`: {error}")))?;
    let top = module.top();
    module.op_mut(top).extra.insert(name.to_owned(), attr);
    Ok(())
}

/// The value of an attribute of a module, if it has it.
fn read<T: for<'de> Deserialize<'de>>(module: &Module, name: &str) -> Result<Option<T>, CompileError> {
    let attr = module.op(module.top()).extra.get(name);
    attr.map(Attribute::to_serde)
        .transpose()
        .map_err(|error| CompileError::Checkpoint(format!("`{name}`: {error}")))
}
