//! Host parts of a model: what runs them, and what they give for the calibration samples.

use std::collections::BTreeMap;

use strata_frontend::host::HostModel;
use strata_frontend::host::verified::{self, Known};
use strata_frontend::import::{Blocked, ImportOptions, import_proto};
use strata_frontend::partition::{GraphPart, Runner, partition};
use strata_frontend::proto::{NodeProto, encode};
use strata_ir::dialect::Op;
use strata_ir::text::to_string;
use strata_isa_spec::bundle::{Code, Part, Port};

use super::checkpoint::HostCode;
use super::model::{Model, Tensors};
use super::{CompileError, missing};
use crate::host::HostPart;
use crate::io::array::Array;
use crate::session::{self, RunError};

/// A host part that is ready to run, with its ports as far as they are known before it has run.
pub(crate) struct ReadyPart<'a> {
    part: &'a GraphPart,
    engine: HostPart,
    ports: Option<Ports>,
}

/// What a part takes and gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

impl<'a> ReadyPart<'a> {
    /// Prepares a part that the host runs.
    pub(crate) fn new(part: &'a GraphPart, file_name: &str) -> Result<Self, CompileError> {
        if part.runner == Runner::Library {
            let model = HostModel::load(&encode(&part.model)).map_err(CompileError::Host)?;
            return Ok(Self { part, engine: HostPart::Onnx(Box::new(model)), ports: None });
        }
        let options =
            ImportOptions { file_name: file_name.to_owned(), plain_layout: true, ..ImportOptions::default() };
        let mut module = import_proto(&part.model, &options)?.module;
        let func = module.function("main").ok_or_else(|| missing("main"))?;
        if let Op::Func(function) = &mut module.op_mut(func).op {
            function.sym_name = "host".to_owned();
        }
        let ports =
            |outputs: bool| session::ports(&module, func, outputs).map_err(CompileError::CalibrationData);
        let ports = Ports { inputs: ports(false)?, outputs: ports(true)? };
        Ok(Self { part, engine: HostPart::Ir(Box::new(module)), ports: Some(ports) })
    }

    /// Runs the part; what it gives joins the tensors that it takes from.
    pub(crate) fn run(&mut self, tensors: &mut Tensors) -> Result<(), RunError> {
        let (takes, gives) = (self.part.inputs(), self.part.outputs());
        let take = |name: &&str| {
            let array = tensors.get(*name).cloned();
            array.ok_or_else(|| RunError::Bundle(format!("nothing gives `{name}`")))
        };
        let inputs = takes.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        let Ports { inputs: takes_ports, outputs: gives_ports } = self.ports.clone().unwrap_or_default();
        let outputs = self.engine.run(&takes_ports, &gives_ports, inputs.clone())?;
        if self.ports.is_none() {
            self.ports = Some(Ports {
                inputs: self.seen(&takes, &inputs, false),
                outputs: self.seen(&gives, &outputs, true),
            });
        }
        tensors.extend(gives.into_iter().map(str::to_owned).zip(outputs));
        Ok(())
    }

    /// Ports of tensors as they were seen.
    fn seen(&self, names: &[&str], arrays: &[Array], is_output: bool) -> Vec<Port> {
        let port = |(&name, array): (&&str, &Array)| Port {
            varies: !self.part.is_declared(name, is_output),
            ..session::plain_port(name, &array.shape, array.dtype.name())
        };
        names.iter().zip(arrays).map(port).collect()
    }

    /// The part as a bundle holds it, once it has run.
    fn prepared(self) -> HostCode {
        let code = match &self.engine {
            HostPart::Ir(module) => Code::Ir(to_string(module)),
            HostPart::Onnx(_) => Code::Onnx(encode(&self.part.model)),
        };
        let Ports { inputs, outputs } = self.ports.unwrap_or_default();
        HostCode { code, inputs, outputs }
    }
}

/// The code and the ports of a host part, which has given what it does for every sample.
pub(super) fn host_part(
    part: &GraphPart,
    file_name: &str,
    samples: &mut [Tensors],
) -> Result<HostCode, CompileError> {
    let mut ready = ReadyPart::new(part, file_name)?;
    for sample in samples {
        ready.run(sample).map_err(not_run)?;
    }
    Ok(ready.prepared())
}

/// Runs the host's part of a checkpoint for every sample.
pub(super) fn run_host_code(host: &HostCode, samples: &mut [Tensors]) -> Result<(), CompileError> {
    let engine = HostPart::load(&host.code).map_err(CompileError::Checkpoint)?;
    let engine = engine.ok_or_else(|| missing("what the host runs"))?;
    let HostCode { code, inputs, outputs } = host.clone();
    engine.demand_ports(&Part { inputs, outputs, code }).map_err(CompileError::Checkpoint)?;
    for tensors in samples {
        let take = |port: &Port| {
            let array = tensors.get(&port.name).cloned();
            array.ok_or_else(|| not_run(RunError::Bundle(format!("nothing gives `{}`", port.name))))
        };
        let inputs = host.inputs.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        let outputs = engine.run(&host.inputs, &host.outputs, inputs).map_err(not_run)?;
        tensors.extend(host.outputs.iter().map(|port| port.name.clone()).zip(outputs));
    }
    Ok(())
}

fn not_run(error: RunError) -> CompileError {
    match error {
        RunError::Host(error) => CompileError::Host(error),
        error => CompileError::CalibrationData(error),
    }
}

/// Steps of all recurrent layers together up to which they are unrolled for the machine; planning takes some
/// tenths of a second a step.
const MACHINE_STEPS: usize = 64;

impl Model<'_> {
    /// The recurrent layers, if they are so long together that the host evaluates them.
    pub(super) fn long_recurrences(&self) -> Result<BTreeMap<usize, Blocked>, CompileError> {
        let nodes = self.proto().graph.iter().flat_map(|graph| &graph.node).enumerate();
        let is_recurrent = |node: &NodeProto| {
            node.domain.is_empty() && matches!(node.op_type.as_str(), "GRU" | "LSTM" | "RNN")
        };
        let recurrent: Vec<(usize, &NodeProto)> = nodes.filter(|(_, node)| is_recurrent(node)).collect();
        if recurrent.is_empty() {
            return Ok(BTreeMap::new());
        }
        let survey = self.survey()?;
        let steps = |node: &NodeProto| {
            let layout = node.attribute.iter().find(|a| a.name == "layout").map_or(0, |a| a.i);
            let time = if layout == 0 { 0 } else { 1 };
            let n_steps = survey.facts.get(node.input.first()?)?.shape.get(time)?;
            let n_directions = survey.facts.get(node.input.get(1)?)?.shape.first()?;
            Some(n_steps * n_directions)
        };
        let total: usize = recurrent.iter().filter_map(|(_, node)| steps(node)).sum();
        if total <= MACHINE_STEPS {
            return Ok(BTreeMap::new());
        }
        let why = format!("{total} steps of recurrent layers; up to {MACHINE_STEPS} go to the machine");
        let blocked = |(index, _): (usize, &NodeProto)| (index, Blocked::Unsupported(why.clone()));
        Ok(recurrent.into_iter().map(blocked).collect())
    }

    /// Whether the machine would have nothing to do if these nodes and those that the import does not take
    /// were left to the host.
    pub(super) fn leaves_nothing(&self, blocked: &BTreeMap<usize, Blocked>) -> Result<bool, CompileError> {
        if blocked.is_empty() {
            return Ok(false);
        }
        let survey = self.survey()?;
        let host = blocked.keys().chain(survey.blocked.keys()).copied().collect();
        Ok(partition(self.proto(), survey, &host).iter().all(GraphPart::on_host))
    }

    /// That the host runs right what is left to its library.
    pub(crate) fn demand_runner(
        &self,
        cut: &[GraphPart],
        blocked: &BTreeMap<usize, Blocked>,
    ) -> Result<(), CompileError> {
        let survey = self.survey()?;
        let known = |name: &str| Known {
            dtype: survey.types.get(name).copied(),
            is_constant: survey.constants.contains_key(name) || self.is_initialiser(name),
        };
        let mut homeless = BTreeMap::new();
        for &index in cut.iter().filter(|part| part.runner == Runner::Library).flat_map(|part| &part.nodes) {
            let Some(node) = self.node(index) else { continue };
            let Err(problem) = verified::check(node, self.opset(&node.domain), &known) else { continue };
            let why = match blocked.get(&index) {
                Some(Blocked::Unsupported(why)) => {
                    Blocked::Unsupported(format!("{why}; and the host does not run it: {problem}"))
                }
                // What follows a node that nobody runs needs no word of its own.
                _ => Blocked::Follows,
            };
            homeless.insert(index, why);
        }
        if homeless.is_empty() { Ok(()) } else { Err(self.unsupported(&homeless)) }
    }
}
