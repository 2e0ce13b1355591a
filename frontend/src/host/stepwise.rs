//! Running the nodes of a model one by one, each prepared for the shapes that it is given: for models that
//! tract does not prepare as a whole, since shapes in them depend on the data, and to find the node that it
//! fails at.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_proto::DataType};

use super::{HostError, HostTensor, quietly, run_on_shapes};
use crate::import::resolve::reads;
use crate::import::{Fact, node_name};
use crate::partition::{tensor_type, undeclared};

/// The inputs of a graph that are no initialisers.
pub(super) fn free_inputs(model: &ModelProto) -> impl Iterator<Item = &str> {
    let graph = model.graph.as_ref();
    let filled: BTreeSet<&str> =
        graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.name.as_str()).collect();
    let names = graph.into_iter().flat_map(|graph| &graph.input).map(|info| info.name.as_str());
    names.filter(move |name| !filled.contains(name))
}

/// Runs the nodes of a model one by one, in the order in which they stand; operands come first there.
///
/// # Errors
/// If tract fails at a node, which is named.
pub(super) fn run(model: &ModelProto, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, HostError> {
    let mut known: BTreeMap<String, HostTensor> =
        free_inputs(model).map(str::to_owned).zip(inputs.iter().cloned()).collect();
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    for node in nodes {
        run_node(model, node, &mut known)?;
    }
    let outputs = model.graph.iter().flat_map(|graph| &graph.output);
    let mut output = |info: &ValueInfoProto| -> Result<HostTensor, HostError> {
        if !known.contains_key(&info.name) {
            // A constant is what a node that hands it on gives.
            run_node(model, &identity(&info.name), &mut known)?;
        }
        let given = known.get(&info.name).or_else(|| known.get(&copy_of(&info.name)));
        given.cloned().ok_or_else(|| node_error(&identity(&info.name), &[], "it is not there".to_owned()))
    };
    outputs.map(&mut output).collect()
}

/// Runs a node on what is known, which what it gives joins.
fn run_node(
    model: &ModelProto,
    node: &NodeProto,
    known: &mut BTreeMap<String, HostTensor>,
) -> Result<(), HostError> {
    let takes: Vec<&str> = reads(node).into_iter().filter(|name| known.contains_key(*name)).collect();
    let operands: Vec<HostTensor> = takes.iter().filter_map(|name| known.get(*name)).cloned().collect();
    let alone = alone(model, node, &takes, &operands);
    match quietly(|| run_on_shapes(&alone, &operands)) {
        Ok(results) => {
            let names = node.output.iter().filter(|name| !name.is_empty()).cloned();
            known.extend(names.zip(results));
            Ok(())
        }
        Err(detail) => Err(node_error(node, &operands, detail)),
    }
}

/// The name of what hands a constant on.
fn copy_of(name: &str) -> String {
    format!("{name}#constant")
}

fn identity(name: &str) -> NodeProto {
    NodeProto {
        op_type: "Identity".to_owned(),
        input: vec![name.to_owned()],
        output: vec![copy_of(name)],
        ..NodeProto::default()
    }
}

fn node_error(node: &NodeProto, operands: &[HostTensor], detail: String) -> HostError {
    let described: Vec<String> =
        operands.iter().map(|operand| format!("{} {:?}", operand.dtype, operand.shape)).collect();
    let on = if described.is_empty() { String::new() } else { format!(" on {}", described.join(", ")) };
    HostError::Node { name: node_name(node).to_owned(), op: node.op_type.clone(), on, detail }
}

/// A model of one node that takes the operands `takes`.
fn alone(model: &ModelProto, node: &NodeProto, takes: &[&str], operands: &[HostTensor]) -> ModelProto {
    let read: BTreeSet<&str> = reads(node).into_iter().collect();
    let initializer = model.graph.iter().flat_map(|graph| &graph.initializer);
    let graph = GraphProto {
        name: "node".to_owned(),
        node: vec![node.clone()],
        initializer: initializer.filter(|tensor| read.contains(tensor.name.as_str())).cloned().collect(),
        input: takes.iter().zip(operands).map(|(name, operand)| declared(name, operand)).collect(),
        output: node.output.iter().filter(|name| !name.is_empty()).map(|name| undeclared(name)).collect(),
        ..GraphProto::default()
    };
    ModelProto { graph: Some(graph), ..model.clone() }
}

fn declared(name: &str, tensor: &HostTensor) -> ValueInfoProto {
    let fact = Fact { shape: tensor.shape.clone(), dtype: elem_type(&tensor.dtype) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(tensor_type(&fact)), ..ValueInfoProto::default() }
}

/// ONNX's code of an element type.
fn elem_type(name: &str) -> DataType {
    match name {
        "bool" => DataType::Bool,
        "u8" => DataType::Uint8,
        "u16" => DataType::Uint16,
        "u32" => DataType::Uint32,
        "u64" => DataType::Uint64,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "f64" => DataType::Double,
        _ => DataType::Float,
    }
}
