//! From a model to its parts: what the machine runs, as modules at the stages level, and what it leaves to
//! the host.
//!
//! A model that the machine can run as a whole is one part. Else the nodes that are in the way go to the
//! host, the rest is tried again part by part, and so on: the set of host nodes only grows. What a part is
//! calibrated on is what the parts before it give for the samples, in f32.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_frontend::import::{self, Blocked, ImportError, ImportOptions, Imported, Resolved, import_proto};
use strata_frontend::partition::{GraphPart, partition};
use strata_frontend::proto::ValueInfoProto;
use strata_ir::Module;
use strata_ir::pass::{Level, PassError, PassFailure, UnsupportedOp};
use strata_isa_spec::bundle::{Code, Port};
use strata_passes::quantise;

use super::calibrate::Calibrated;
use super::forms::Forms;
use super::host::{Ports, host_part};
use super::measure::Yardstick;
use super::model::{Model, Tensors};
use super::noise::{self, NoiseInput};
use super::{CalibrationData, Clock, CompileError, Compiler, Event, f32_macs, missing};
use crate::io::array::Array;
use crate::ptq::Samples;
use crate::session::{self, RunError};
use crate::stats::{HostStats, PrecisionStats};

/// A part of a model that is ready to be planned, or to be run by the host.
#[derive(Clone, Debug)]
pub(super) enum PreparedPart {
    /// A module at the stages level.
    Machine(Box<Forms>),
    /// What the host runs.
    Host {
        /// A function of the IR, or an ONNX model.
        code: Code,
        /// What it takes.
        inputs: Vec<Port>,
        /// What it gives.
        outputs: Vec<Port>,
    },
}

/// All parts of a model.
#[derive(Clone, Debug)]
pub(super) struct PreparedParts {
    /// In the order in which they run.
    pub parts: Vec<PreparedPart>,
    /// The model's inputs, as they are outside any part.
    pub inputs: Vec<Port>,
    /// The names of the model's outputs.
    pub outputs: Vec<String>,
    /// Element types that a user sees of outputs, where the parts hand on another.
    pub output_types: BTreeMap<String, &'static str>,
    /// What the host has to do.
    pub host: Option<HostStats>,
    pub n_parameters: u64,
    /// What the bundle is measured by, if it is.
    pub yardstick: Option<Yardstick>,
    /// What a search for 16-bit activations found, a machine part each.
    pub precision: Vec<PrecisionStats>,
}

/// Why parts could not be prepared.
enum Obstacle {
    /// Nodes that the machine cannot run, by index, and why.
    Nodes(BTreeMap<usize, Blocked>),
    /// Anything else.
    Error(CompileError),
}

impl<E: Into<CompileError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// The ONNX nodes that ops of a module stand for; `None` if an op's origin is not known.
fn origins(ops: &[UnsupportedOp], nodes: &[usize]) -> Option<BTreeMap<usize, Blocked>> {
    let origin = |op: &UnsupportedOp| {
        let line = usize::try_from(op.line?).ok()?;
        Some((*nodes.get(line)?, Blocked::Unsupported(format!("{}: {}", op.op, op.reason))))
    };
    ops.iter().map(origin).collect()
}

impl Compiler {
    /// Imports, calibrates and quantises a model, in as many parts as it takes.
    pub(super) fn parts(
        &self,
        model: &Resolved,
        file_name: &str,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        let model = Model::new(model, file_name, &self.options.input_shapes);
        let mut blocked = model.long_recurrences()?;
        if !self.options.host || model.leaves_nothing(&blocked)? {
            blocked.clear();
        }
        if blocked.is_empty() {
            match self.whole(&model, clock, observer) {
                Ok(parts) => return Ok(parts),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Nodes(nodes)) => blocked = nodes,
            }
        }
        blocked.extend(model.survey()?.blocked.clone());
        let mut samples = None;
        loop {
            let host: BTreeSet<usize> = blocked.keys().copied().collect();
            let cut = partition(model.proto(), model.survey()?, &host);
            if !self.options.host && cut.iter().all(GraphPart::on_host) {
                return Err(model.unsupported(&blocked));
            }
            model.demand_runner(&cut, &blocked)?;
            let samples = match &samples {
                Some(samples) => samples,
                None => samples.insert(self.samples(&model, observer)?),
            };
            match self.cut((&model, samples.clone()), &cut, &mut blocked, clock, observer) {
                Ok(parts) if self.options.host => {
                    if cut.iter().all(GraphPart::on_host) {
                        let what = "the machine can run nothing of the model: the host runs all of it";
                        observer(Event::Note(what.to_owned()));
                    }
                    return Ok(parts);
                }
                Ok(_) => return Err(model.unsupported(&blocked)),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Nodes(more)) => {
                    let known = blocked.len();
                    blocked.extend(more);
                    // Each round has to bring news, or it would go on for ever.
                    if blocked.len() == known {
                        return Err(model.unsupported(&blocked));
                    }
                }
            }
        }
    }

    /// The model as one machine part.
    fn whole(
        &self,
        model: &Model<'_>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, Obstacle> {
        let mut imported = match model.import(&BTreeMap::new()) {
            Ok(imported) => imported,
            // Which nodes, and whether it is nodes at all, the survey says.
            Err(ImportError::Unsupported(_)) => return Err(Obstacle::Nodes(BTreeMap::new())),
            Err(error) => return Err(CompileError::from(error).into()),
        };
        observer(Event::Reached(Level::Import, &imported.module));
        clock.begin("calibrate", observer);
        let calibrated = self.calibrate(model, &mut imported, observer)?;
        let Calibrated { calibration, chosen, sample } = calibrated;
        let Imported { module, n_parameters, n_nodes, .. } = imported;
        let nodes: Vec<usize> = (0..n_nodes).collect();
        let ranges = (calibration, chosen.precision);
        let staged = self.to_stages(module.clone(), ranges, clock, observer);
        let (forms, tail) = staged.map_err(|error| obstacle(error, &nodes))?;
        demand_known(chosen.unknown)?;
        let tail = origins(&tail, &nodes).unwrap_or_default();
        if !self.options.host && !tail.is_empty() {
            return Err(Obstacle::Error(model.unsupported(&tail)));
        }
        let mut prepared = PreparedParts {
            parts: vec![PreparedPart::Machine(Box::new(forms))],
            host: None,
            n_parameters,
            precision: chosen.stats.into_iter().collect(),
            ..model.no_parts()?
        };
        if !tail.is_empty() {
            prepared.host = Some(model.host_stats(model.survey()?, &tail, &[]));
        }
        prepared.yardstick = self.yardstick(&module, sample, clock, observer);
        Ok(prepared)
    }

    /// The parts of a cut, calibrated on `samples` of the model's inputs. Nodes that turn out to be of an f32
    /// tail are added to those that are blocked.
    fn cut(
        &self,
        (model, mut samples): (&Model<'_>, Vec<Tensors>),
        cut: &[GraphPart],
        blocked: &mut BTreeMap<usize, Blocked>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, Obstacle> {
        clock.begin("calibrate", observer);
        let mut prepared = model.no_parts()?;
        let mut tails = BTreeMap::new();
        let mut new = BTreeMap::new();
        let mut macs = 0;
        let mut unknown: BTreeSet<String> = self.options.precision.int16.iter().cloned().collect();
        for (index, part) in cut.iter().enumerate() {
            observer(Event::Part { index, of: cut.len(), on_host: part.on_host() });
            if part.on_host() {
                let (code, Ports { inputs, outputs }) = host_part(part, model.file_name, &mut samples)?;
                prepared.parts.push(PreparedPart::Host { code, inputs, outputs });
                continue;
            }
            let options = ImportOptions { file_name: model.file_name.to_owned(), ..ImportOptions::default() };
            let Imported { mut module, n_parameters, .. } = import_proto(&part.model, &options)?;
            observer(Event::Reached(Level::Import, &module));
            let tensors = part_arguments(&module, &mut samples)?;
            let (calibration, chosen) = self.choose(&mut [&mut module], &tensors, observer)?;
            unknown.retain(|name| chosen.unknown.contains(name));
            prepared.precision.extend(chosen.stats);
            let ranges = (calibration, chosen.precision);
            prepared.n_parameters += n_parameters;
            macs += f32_macs(&module);
            match self.to_stages(module, ranges, clock, observer) {
                Ok((forms, tail)) => {
                    tails.extend(origins(&tail, &part.nodes).unwrap_or_default());
                    prepared.parts.push(PreparedPart::Machine(Box::new(forms)));
                }
                // Other parts may have more to say.
                Err(error) => match obstacle(error, &part.nodes) {
                    Obstacle::Nodes(nodes) => new.extend(nodes),
                    error @ Obstacle::Error(_) => return Err(error),
                },
            }
        }
        if !new.is_empty() {
            return Err(Obstacle::Nodes(new));
        }
        demand_known(unknown)?;
        blocked.extend(tails);
        prepared.host = Some(model.host_stats(model.survey()?, blocked, cut));
        if self.measures(macs, observer) {
            let sample = samples.into_iter().next();
            prepared.yardstick =
                sample.map(|tensors| Yardstick::of_parts(&prepared.inputs, &prepared.outputs, tensors));
        }
        Ok(prepared)
    }

    /// The calibration samples, with a tensor for each of the model's inputs.
    fn samples(
        &self,
        model: &Model<'_>,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Tensors>, CompileError> {
        let ports = import::inputs(model.resolved, model.options())?;
        let named = |arrays: Vec<Array>| -> Tensors {
            let names = ports.iter().map(|port| port.name.clone());
            names.zip(arrays.into_iter().map(session::to_internal)).collect()
        };
        Ok(match &self.options.calibration {
            CalibrationData::Samples(samples) => samples.iter().cloned().map(named).collect(),
            CalibrationData::Noise { seed, samples } => {
                let rows = model.indexed_rows();
                let input = |port: &import::Port| {
                    NoiseInput::new(&port.shape, port.dtype, rows.get(&port.name).copied())
                };
                let inputs: Vec<NoiseInput> = ports.iter().map(input).collect();
                observer(Event::noise(*samples, &inputs));
                (0..*samples).map(|sample| named(noise::sample(*seed, sample, &inputs))).collect()
            }
        })
    }
}

/// What stops a pass: nodes of the model that can go to the host, if that is what it says.
fn obstacle(error: CompileError, nodes: &[usize]) -> Obstacle {
    if let CompileError::Pass { failure: PassFailure::Pass(PassError::Unsupported(ops)), .. } = &error
        && let Some(nodes) = origins(ops, nodes)
    {
        return Obstacle::Nodes(nodes);
    }
    Obstacle::Error(error)
}

/// That every layer asked for is there.
pub(super) fn demand_known(unknown: BTreeSet<String>) -> Result<(), CompileError> {
    if unknown.is_empty() { Ok(()) } else { Err(CompileError::UnknownLayers(unknown.into_iter().collect())) }
}

/// The arguments of a machine part for every sample; the samples get what it gives.
fn part_arguments(module: &Module, samples: &mut [Tensors]) -> Result<Samples, CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    let wrong = CompileError::CalibrationData;
    let (takes, gives) = (
        session::ports(module, func, false).map_err(wrong)?,
        session::ports(module, func, true).map_err(CompileError::CalibrationData)?,
    );
    let mut tensors = Samples::new();
    for sample in samples.iter() {
        let arrays: Vec<Array> = takes.iter().filter_map(|port| sample.get(&port.name)).cloned().collect();
        let arguments = session::to_arguments(module, &arrays).map_err(CompileError::CalibrationData)?;
        tensors.push(arguments.into_iter().map(Arc::new).collect());
    }
    for (sample, arguments) in samples.iter_mut().zip(&tensors) {
        let results = quantise::forward(module, func, arguments, &mut |_, _| {})
            .map_err(|error| CompileError::CalibrationData(RunError::Eval(error)))?;
        for (port, tensor) in gives.iter().zip(&results) {
            let array = session::from_tensor(port, tensor).map_err(CompileError::CalibrationData)?;
            sample.insert(port.name.clone(), array);
        }
    }
    Ok(tensors)
}

impl Model<'_> {
    /// Its inputs and outputs, without parts as yet.
    fn no_parts(&self) -> Result<PreparedParts, ImportError> {
        let port = |port: &import::Port| session::plain_port(&port.name, &port.shape, port.dtype);
        let outputs = self.proto().graph.iter().flat_map(|graph| &graph.output);
        let seen = |info: &ValueInfoProto| Some((info.name.clone(), self.resolved.user_dtype(&info.name)?));
        Ok(PreparedParts {
            output_types: outputs.clone().filter_map(seen).collect(),
            parts: Vec::new(),
            inputs: import::inputs(self.resolved, self.options())?.iter().map(port).collect(),
            outputs: outputs.map(|info| info.name.clone()).collect(),
            host: None,
            n_parameters: 0,
            yardstick: None,
            precision: Vec::new(),
        })
    }
}
