//! Whole files: models, modules, checkpoints and bundles.

use std::collections::BTreeMap;

use strata_frontend::import::{self, ImportError, ImportOptions, Resolved};
use strata_frontend::proto;
use strata_ir::pass::Level;
use strata_ir::{Module, Op, OpId};
use strata_isa_spec::Target;
use strata_isa_spec::bundle::{self, Bundle, Code, Port};

use super::{Counting, Inspection, Kind, Layer, Machine, Part, Runner, SCHEMA, Totals};
use super::{layers, nodes, program};
use crate::compile::checkpoint::{Checkpoint, CheckpointPart};
use crate::ports::{RunError, plain_port, ports};
use crate::stats::Stats;

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A model cannot be imported, not even in parts.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A function's ports are malformed.
    #[error(transparent)]
    Ports(#[from] RunError),
    /// What the host runs is no module of the IR.
    #[error("what the host runs in part {0} is no module of the IR: {1}")]
    Host(usize, String),
}

impl From<&Target> for Machine {
    fn from(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            macs: target.macs(),
            activation_sram_bytes: target.memory.activation,
            weight_sram_bytes: target.memory.weight,
        }
    }
}

impl Inspection {
    fn new(kind: Kind, network: &str, parts: Vec<Part>) -> Self {
        let mut totals = Totals::default();
        parts.iter().for_each(|part| totals.add(part));
        Self {
            schema: SCHEMA,
            kind,
            network: network.to_owned(),
            producer: None,
            level: None,
            target: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            totals,
            parts,
            ops: BTreeMap::new(),
            stats: None,
        }
    }
}

/// An ONNX model: a row a node. Where the import does not take all of it, the rows are the nodes of the file,
/// each with why the host has to run it, if it has.
///
/// # Errors
/// If the graph contradicts itself, or an input has no shape.
pub fn of_model(
    model: &Resolved,
    options: &ImportOptions,
    network: &str,
    counting: Counting,
) -> Result<Inspection, InspectError> {
    match import::import_resolved(model, options) {
        Ok(imported) => of_module(&imported.module, Kind::Onnx, network, counting),
        Err(ImportError::Unsupported(_)) => {
            let layers = nodes::of_graph(&model.model, options, counting)?;
            let takes = import::inputs(model, options)?;
            let takes = takes.iter().map(|port| plain_port(&port.name, &port.shape, port.dtype));
            let inputs: Vec<Port> = takes.collect();
            let outputs = graph_outputs(model, &layers);
            let part = Part { layers, ..part(Runner::Machine, &inputs, &outputs) };
            Ok(Inspection { inputs, outputs, ..Inspection::new(Kind::Onnx, network, vec![part]) })
        }
        Err(error) => Err(error.into()),
    }
}

/// The outputs of a graph as the nodes that give them have them.
fn graph_outputs(model: &Resolved, layers: &[Layer]) -> Vec<Port> {
    let graph = model.model.graph.as_ref();
    let outputs = graph.into_iter().flat_map(|graph| {
        graph.output.iter().map(move |output| {
            let gives = graph.node.iter().find(|node| node.output.contains(&output.name));
            (output, gives.map(|node| import::UnsupportedNode::new(node, String::new()).name))
        })
    });
    let port = |(output, giver): (&proto::ValueInfoProto, Option<String>)| {
        let layer = layers.iter().find(|layer| Some(&layer.name) == giver.as_ref());
        let (shape, dtype) = layer.map_or((&[][..], "unknown"), |layer| (&layer.shape, &layer.dtype));
        Port { varies: dtype == "varies", ..plain_port(&output.name, shape, dtype) }
    };
    outputs.map(port).collect()
}

/// A module: a part a function.
///
/// # Errors
/// If the ports of `@main` are malformed.
pub fn of_module(
    module: &Module,
    kind: Kind,
    network: &str,
    counting: Counting,
) -> Result<Inspection, InspectError> {
    let parts = module_parts(module, counting)?;
    let mut shown = Inspection::new(kind, network, parts);
    shown.level = Some(Level::of(module).name().to_owned());
    shown.ops = op_counts([module].into_iter());
    if let Some(main) = module.function("main") {
        (shown.inputs, shown.outputs) = (ports(module, main, false)?, ports(module, main, true)?);
    }
    if let Some(host) = module.function("host") {
        shown.outputs = ports(module, host, true)?;
    }
    Ok(shown)
}

/// A compile at a level, in all its parts.
///
/// # Errors
/// If ports are malformed, or what the host runs cannot be read.
pub fn of_checkpoint(
    checkpoint: &Checkpoint,
    network: &str,
    counting: Counting,
) -> Result<Inspection, InspectError> {
    let mut parts = Vec::new();
    for (index, part) in checkpoint.parts.iter().enumerate() {
        match part {
            CheckpointPart::Machine { module, .. } => parts.extend(module_parts(module, counting)?),
            CheckpointPart::Host(host) => {
                parts.push(host_part(index, &host.code, &host.inputs, &host.outputs, counting)?);
            }
        }
    }
    let machines = checkpoint.parts.iter().filter_map(|part| match part {
        CheckpointPart::Machine { module, .. } => Some(module),
        CheckpointPart::Host(_) => None,
    });
    let mut shown = Inspection::new(Kind::Ir, network, parts);
    shown.level = Some(checkpoint.level.name().to_owned());
    shown.ops = op_counts(machines);
    if let Some(record) = &checkpoint.record {
        shown.network = record.network.clone();
        shown.target = Some(Machine::from(&record.options.target));
        shown.inputs = record.inputs.clone();
        let gives = |name: &String| output_of(checkpoint, name);
        shown.outputs = record.outputs.iter().filter_map(gives).collect();
    }
    Ok(shown)
}

/// The port of an output of the network, of the part that gives it.
fn output_of(checkpoint: &Checkpoint, name: &str) -> Option<Port> {
    checkpoint.parts.iter().rev().find_map(|part| {
        let outputs = match part {
            CheckpointPart::Host(host) => host.outputs.clone(),
            CheckpointPart::Machine { module, .. } => {
                let functions = ["host", "main"].into_iter().filter_map(|name| module.function(name));
                functions.filter_map(|func| ports(module, func, true).ok()).flatten().collect()
            }
        };
        outputs.into_iter().find(|port| port.name == name)
    })
}

/// A bundle.
///
/// # Errors
/// If what the host runs cannot be read.
pub fn of_bundle(bundle: &Bundle) -> Result<Inspection, InspectError> {
    let mut parts = Vec::new();
    for (index, bundle::Part { inputs, outputs, code }) in bundle.parts.iter().enumerate() {
        parts.push(match code {
            Code::Machine(machine) => Part {
                layers: program::layers(machine),
                phases: program::phases(&machine.program),
                ..part(Runner::Machine, inputs, outputs)
            },
            host => host_part(index, host, inputs, outputs, Counting::default())?,
        });
    }
    let manifest = &bundle.manifest;
    let stats = bundle.stats.clone().and_then(|stats| serde_json::from_value::<Stats>(stats).ok());
    Ok(Inspection {
        producer: Some(manifest.producer.clone()),
        target: Some(Machine::from(&manifest.target)),
        inputs: manifest.inputs.clone(),
        outputs: manifest.outputs.clone(),
        stats,
        ..Inspection::new(Kind::Bundle, &manifest.network, parts)
    })
}

fn part(runner: Runner, inputs: &[Port], outputs: &[Port]) -> Part {
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect();
    let (inputs, outputs) = (names(inputs), names(outputs));
    Part { runner, inputs, outputs, layers: Vec::new(), phases: Vec::new() }
}

/// The functions of a module: what the machine runs, and a tail on the host.
fn module_parts(module: &Module, counting: Counting) -> Result<Vec<Part>, InspectError> {
    let functions = module.functions();
    functions.into_iter().map(|func| function_part(module, func, counting)).collect()
}

fn function_part(module: &Module, func: OpId, counting: Counting) -> Result<Part, InspectError> {
    let is_host = matches!(&module.op(func).op, Op::Func(row) if row.sym_name == "host");
    let runner = if is_host { Runner::Ir } else { Runner::Machine };
    let (inputs, outputs) = (ports(module, func, false)?, ports(module, func, true)?);
    Ok(Part { layers: layers::of_function(module, func, counting), ..part(runner, &inputs, &outputs) })
}

/// A part that the host runs.
fn host_part(
    index: usize,
    code: &Code,
    inputs: &[Port],
    outputs: &[Port],
    counting: Counting,
) -> Result<Part, InspectError> {
    Ok(match code {
        Code::Onnx(bytes) => {
            let options = ImportOptions { file_name: "host.onnx".to_owned(), ..ImportOptions::default() };
            let layers = nodes::of_graph(&proto::decode(bytes)?, &options, counting)?;
            Part { layers, ..part(Runner::Onnx, inputs, outputs) }
        }
        Code::Ir(text) => {
            let module = strata_ir::text::parse(text, None)
                .map_err(|errors| InspectError::Host(index, errors.to_string()))?;
            let functions = module.functions();
            let layers = functions.iter().flat_map(|&func| layers::of_function(&module, func, counting));
            Part { layers: layers.collect(), ..part(Runner::Ir, inputs, outputs) }
        }
        Code::Machine(machine) => {
            Part { layers: program::layers(machine), ..part(Runner::Machine, inputs, outputs) }
        }
    })
}

/// How often each op stands in modules, by name.
fn op_counts<'a>(modules: impl Iterator<Item = &'a Module>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for module in modules {
        for op in module.walk(module.body()) {
            *counts.entry(module.op(op).op.name().to_owned()).or_default() += 1;
        }
    }
    counts
}
