//! From a model to its parts: what the machine runs, as modules at the stages phase, and what it leaves to the host.
//!
//! A model that the machine can run as a whole is one part. Else the nodes that are in the way go to the host, the
//! rest is tried again part by part, and so on: the set of host nodes only grows. What a part is calibrated on is
//! what the parts before it give for the samples, in f32.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_frontend::host::{self, HostModel, HostTensor};
use strata_frontend::import::{
    self, ImportError, ImportOptions, Imported, Resolved, Survey, UnsupportedNode, import_proto,
    import_resolved, survey,
};
use strata_frontend::partition::{GraphPart, Work, partition, work};
use strata_frontend::proto::{ModelProto, ValueInfoProto, encode};
use strata_ir::Module;
use strata_isa_spec::bundle::Port;
use strata_passes::manager::{PassError, Phase, UnsupportedOp};
use strata_passes::quantise;

use super::forms::Forms;
use super::{CalibrationData, Clock, CompileError, Compiler, Event, SQNR_MACS, f32_macs, missing, noise};
use crate::io::array::Array;
use crate::ptq::Samples;
use crate::session::{self, RunError};
use crate::stats::{HostNode, HostStats, PrecisionStats};

/// A part of a model that is ready to be planned, or to be run by the host.
#[derive(Clone, Debug)]
pub(super) enum PreparedPart {
    /// A module at the stages phase.
    Machine(Box<Forms>),
    /// An ONNX model.
    Host {
        /// The file's bytes.
        onnx: Vec<u8>,
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
    pub sqnr_db: BTreeMap<String, f64>,
    /// What a search for 16-bit activations found, a machine part each.
    pub precision: Vec<PrecisionStats>,
}

/// Tensors of one sample by name.
type Tensors = BTreeMap<String, Array>;

/// Why parts could not be prepared.
enum Obstacle {
    /// Nodes that the machine cannot run, by index, and why.
    Nodes(BTreeMap<usize, String>),
    /// Anything else.
    Error(CompileError),
}

impl<E: Into<CompileError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// The ONNX nodes that ops of a module stand for; `None` if an op's origin is not known.
fn origins(ops: &[UnsupportedOp], nodes: &[usize]) -> Option<BTreeMap<usize, String>> {
    let origin = |op: &UnsupportedOp| {
        let line = usize::try_from(op.line?).ok()?;
        Some((*nodes.get(line)?, format!("{}: {}", op.op, op.reason)))
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
        let model = Model::new(self, model, file_name);
        let mut blocked = match self.whole(&model, clock, observer) {
            Ok(parts) => return Ok(parts),
            Err(Obstacle::Error(error)) => return Err(error),
            Err(Obstacle::Nodes(blocked)) => blocked,
        };
        blocked.extend(model.survey()?.blocked.clone());
        let mut samples = None;
        loop {
            let host: BTreeSet<usize> = blocked.keys().copied().collect();
            let cut = partition(model.proto(), model.survey()?, &host);
            if cut.iter().all(|part| part.on_host) {
                return Err(model.unsupported(&blocked));
            }
            model.demand_runner(&cut, &blocked)?;
            let samples = match &samples {
                Some(samples) => samples,
                None => samples.insert(self.samples(&model, observer)?),
            };
            match self.cut((&model, samples.clone()), &cut, &mut blocked, clock, observer) {
                Ok(parts) if self.options.host => return Ok(parts),
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
        observer(Event::Reached(Phase::Import, &imported.module));
        clock.begin("calibrate", observer);
        let calibrated = self.calibrate(model, &mut imported, observer)?;
        let chosen = calibrated.chosen.clone();
        let Imported { module, n_parameters, n_nodes, .. } = imported;
        let nodes: Vec<usize> = (0..n_nodes).collect();
        let ranges = (calibrated.calibration.clone(), chosen.precision);
        let staged = self.to_stages(module, ranges, clock, observer);
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
        if self.options.measure_sqnr && calibrated.macs <= SQNR_MACS {
            clock.begin("measure", observer);
            prepared.sqnr_db = self.measure_calibrated(calibrated, &prepared)?;
        } else if self.options.measure_sqnr {
            observer(Event::Note("the network is too large to measure its outputs against f32".to_owned()));
        }
        Ok(prepared)
    }

    /// The parts of a cut, calibrated on `samples` of the model's inputs. Nodes that turn out to be of an f32 tail are added to those that are blocked.
    fn cut(
        &self,
        (model, mut samples): (&Model<'_>, Vec<Tensors>),
        cut: &[GraphPart],
        blocked: &mut BTreeMap<usize, String>,
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
            observer(Event::Part { index, of: cut.len(), on_host: part.on_host });
            if part.on_host {
                prepared.parts.push(host_part(part, &mut samples)?);
                continue;
            }
            let options = ImportOptions { file_name: model.file_name.to_owned(), ..ImportOptions::default() };
            let Imported { mut module, n_parameters, .. } = import_proto(&part.model, &options)?;
            observer(Event::Reached(Phase::Import, &module));
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
        if self.options.measure_sqnr && macs <= SQNR_MACS {
            clock.begin("measure", observer);
            let (inputs, reference) = model.ends(samples.swap_remove(0));
            prepared.sqnr_db = self.measure(&prepared, &inputs, &reference)?;
        }
        Ok(prepared)
    }

    /// The calibration samples, with a tensor for each of the model's inputs.
    fn samples(
        &self,
        model: &Model<'_>,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Tensors>, CompileError> {
        let ports = import::inputs(model.resolved, &model.options)?;
        let named = |arrays: Vec<Array>| -> Tensors {
            let names = ports.iter().map(|port| port.name.clone());
            names.zip(arrays.into_iter().map(session::to_internal)).collect()
        };
        Ok(match &self.options.calibration {
            CalibrationData::Samples(samples) => samples.iter().cloned().map(named).collect(),
            CalibrationData::Noise { seed, samples } => {
                let shapes: Vec<&[usize]> = ports.iter().map(|port| &port.shape[..]).collect();
                observer(Event::noise(*samples, &shapes));
                let plain = |port: &import::Port| session::plain_port(&port.name, &port.shape, port.dtype);
                let inputs: Vec<Port> = ports.iter().map(plain).collect();
                let noise = (0..*samples).map(|sample| noise::sample(*seed, sample, &inputs));
                let noise = noise.map(|sample| sample.map(named).map_err(CompileError::CalibrationData));
                noise.collect::<Result<_, _>>()?
            }
        })
    }
}

/// What stops a pass: nodes of the model that can go to the host, if that is what it says.
fn obstacle(error: CompileError, nodes: &[usize]) -> Obstacle {
    if let CompileError::Pass { error: PassError::Unsupported(ops), .. } = &error
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

/// A host part, and what it gives for every sample.
fn host_part(part: &GraphPart, samples: &mut [Tensors]) -> Result<PreparedPart, CompileError> {
    let onnx = encode(&part.model);
    let model = HostModel::load(&onnx).map_err(|e| CompileError::CalibrationData(RunError::Host(e)))?;
    let (takes, gives) = (part.inputs(), part.outputs());
    let mut ports = None;
    for sample in samples.iter_mut() {
        let tensor = |name: &&str| {
            let array = sample.get(*name).ok_or_else(|| missing(name))?;
            Ok(session::to_host(array.clone()))
        };
        let inputs = takes.iter().map(tensor).collect::<Result<Vec<_>, CompileError>>()?;
        let outputs = model.run(&inputs).map_err(|e| CompileError::CalibrationData(RunError::Host(e)))?;
        let declared = |name: &str, outputs: bool| part.is_declared(name, outputs);
        ports.get_or_insert_with(|| {
            let port = |names: &[&str], tensors: &[HostTensor], is_output: bool| -> Vec<Port> {
                let each = names.iter().zip(tensors);
                each.map(|(name, t)| Port {
                    varies: !declared(name, is_output),
                    ..session::plain_port(name, &t.shape, &t.dtype)
                })
                .collect()
            };
            (port(&takes, &inputs, false), port(&gives, &outputs, true))
        });
        for (name, tensor) in gives.iter().zip(outputs) {
            let array = session::from_host(tensor).map_err(CompileError::CalibrationData)?;
            sample.insert((*name).to_owned(), array);
        }
    }
    let (inputs, outputs) = ports.unwrap_or_default();
    Ok(PreparedPart::Host { onnx, inputs, outputs })
}

/// The model that is compiled.
pub(super) struct Model<'a> {
    resolved: &'a Resolved,
    file_name: &'a str,
    options: ImportOptions,
    survey: OnceCell<Survey>,
}

impl<'a> Model<'a> {
    fn new(compiler: &Compiler, resolved: &'a Resolved, file_name: &'a str) -> Self {
        let options = ImportOptions {
            input_shapes: compiler.options.input_shapes.clone(),
            file_name: file_name.to_owned(),
            ..ImportOptions::default()
        };
        Self { resolved, file_name, options, survey: OnceCell::new() }
    }

    fn proto(&self) -> &'a ModelProto {
        &self.resolved.model
    }

    /// Whether another size of its inputs may make another graph of it.
    pub(super) fn depends_on_shapes(&self) -> bool {
        self.resolved.depends_on_shapes
    }

    /// Its survey, made when it is first asked for: most models need none.
    fn survey(&self) -> Result<&Survey, ImportError> {
        if let Some(survey) = self.survey.get() {
            return Ok(survey);
        }
        let survey = survey(self.proto(), &self.options)?;
        Ok(self.survey.get_or_init(|| survey))
    }

    fn node(&self, index: usize) -> Option<&strata_frontend::proto::NodeProto> {
        self.proto().graph.as_ref()?.node.get(index)
    }

    fn described(&self, nodes: &BTreeMap<usize, String>) -> Vec<UnsupportedNode> {
        let describe = |(&index, why): (&usize, &String)| {
            self.node(index).map(|node| UnsupportedNode::new(node, why.clone()))
        };
        nodes.iter().filter_map(describe).collect()
    }

    fn unsupported(&self, nodes: &BTreeMap<usize, String>) -> CompileError {
        ImportError::Unsupported(self.described(nodes)).into()
    }

    /// That the host can run what is left to it.
    fn demand_runner(
        &self,
        cut: &[GraphPart],
        blocked: &BTreeMap<usize, String>,
    ) -> Result<(), CompileError> {
        let on_host = cut.iter().filter(|part| part.on_host).flat_map(|part| &part.nodes);
        let knows = host::operators();
        let homeless = on_host.filter(|&&index| self.node(index).is_some_and(|node| !knows(node)));
        let why = |index: usize| {
            blocked.get(&index).cloned().unwrap_or_else(|| "it is between host nodes".to_owned())
        };
        let homeless: BTreeMap<usize, String> = homeless
            .map(|&index| (index, format!("{}; and the host cannot run it either", why(index))))
            .collect();
        if homeless.is_empty() { Ok(()) } else { Err(self.unsupported(&homeless)) }
    }

    /// What `nodes`, and the host parts of a cut, leave to the host.
    fn host_stats(&self, survey: &Survey, nodes: &BTreeMap<usize, String>, cut: &[GraphPart]) -> HostStats {
        let mut nodes = nodes.clone();
        for &index in cut.iter().filter(|part| part.on_host).flat_map(|part| &part.nodes) {
            nodes.entry(index).or_insert_with(|| {
                "it stands between nodes of the host, without a convolution or matrix product beside it"
                    .to_owned()
            });
        }
        let work = |index: usize| self.node(index).map_or(Work::default(), |node| work(node, &survey.facts));
        let on_host: Work = nodes.keys().map(|&index| work(index)).sum();
        let all: Work = survey.order.iter().map(|&index| work(index)).sum();
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        HostStats {
            nodes: self
                .described(&nodes)
                .into_iter()
                .map(|n| HostNode { name: n.name, op: n.op, why: n.why })
                .collect(),
            parts: 0,
            macs_share: share(on_host.macs, all.macs),
            elements_share: share(on_host.elements, all.elements),
        }
    }

    /// The inputs and the outputs of the model among the tensors of a sample.
    fn ends(&self, tensors: Tensors) -> (Vec<(String, Array)>, Tensors) {
        let Some(graph) = &self.proto().graph else { return Default::default() };
        let is_input = |name: &str| graph.input.iter().any(|info| info.name == name);
        let is_output = |name: &str| graph.output.iter().any(|info| info.name == name);
        let inputs =
            tensors.iter().filter(|(name, _)| is_input(name)).map(|(n, a)| (n.clone(), a.clone())).collect();
        (inputs, tensors.into_iter().filter(|(name, _)| is_output(name)).collect())
    }

    /// Its inputs and outputs, without parts as yet.
    fn no_parts(&self) -> Result<PreparedParts, ImportError> {
        let port = |port: &import::Port| session::plain_port(&port.name, &port.shape, port.dtype);
        let outputs = self.proto().graph.iter().flat_map(|graph| &graph.output);
        let seen = |info: &ValueInfoProto| Some((info.name.clone(), self.resolved.user_dtype(&info.name)?));
        Ok(PreparedParts {
            output_types: outputs.clone().filter_map(seen).collect(),
            parts: Vec::new(),
            inputs: import::inputs(self.resolved, &self.options)?.iter().map(port).collect(),
            outputs: outputs.map(|info| info.name.clone()).collect(),
            host: None,
            n_parameters: 0,
            sqnr_db: BTreeMap::new(),
            precision: Vec::new(),
        })
    }

    /// Its import, with some inputs of other shapes.
    pub(super) fn import(
        &self,
        other_shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Imported, ImportError> {
        let mut options = self.options.clone();
        options.input_shapes.extend(other_shapes.clone());
        import_resolved(self.resolved, &options)
    }
}
