//! A few nodes of a model as a model of their own.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::tensor_type;
use crate::import::Survey;

/// Which nodes, and where they begin and end.
#[derive(Clone, Debug, Default)]
pub struct NodeSlice {
    /// The nodes by their indices, in an order in which operands come first.
    pub nodes: Vec<usize>,
    /// Tensors that are inputs now.
    pub inputs: Vec<String>,
    /// Tensors that are outputs now.
    pub outputs: Vec<String>,
    /// Tensors in place of which nodes read others.
    pub renamed: BTreeMap<String, String>,
}

/// The model of a few nodes, with the inputs and constants of the whole that they read. `None` if the shape
/// or type of a tensor where they begin or end is not known before the model runs.
pub fn slice_model(model: &ModelProto, survey: &Survey, slice: &NodeSlice) -> Option<ModelProto> {
    let graph = model.graph.as_ref()?;
    let new_name = |name: &String| slice.renamed.get(name).unwrap_or(name).clone();
    let node = |&index: &usize| {
        let node = graph.node.get(index)?;
        Some(NodeProto { input: node.input.iter().map(new_name).collect(), ..node.clone() })
    };
    let nodes: Vec<NodeProto> = slice.nodes.iter().map(node).collect::<Option<_>>()?;
    let read: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.input).collect();
    let of_graph = graph.initializer.iter().filter(|tensor| read.contains(&tensor.name));
    let is_new = |name: &&String| read.contains(name) && !graph.initializer.iter().any(|t| t.name == **name);
    let computed = survey.constants.iter().filter(|(name, _)| is_new(name));
    let computed = computed.map(|(name, tensor)| TensorProto { name: name.clone(), ..tensor.clone() });
    let initializer: Vec<TensorProto> = of_graph.cloned().chain(computed).collect();

    let known = |name: &String| {
        let fact = survey.facts.get(name)?;
        let r#type = Some(tensor_type(fact));
        Some(ValueInfoProto { name: name.clone(), r#type, doc_string: String::new() })
    };
    let has_data = |name: &String| initializer.iter().any(|tensor| tensor.name == *name);
    let kept = graph.input.iter().filter(|input| read.contains(&input.name) && !has_data(&input.name));
    let new = slice.inputs.iter().map(known).collect::<Option<Vec<_>>>()?;
    let given = |name: &String| {
        let declared = graph.output.iter().find(|output| output.name == *name).cloned();
        declared.or_else(|| known(name))
    };
    let output: Vec<ValueInfoProto> = slice.outputs.iter().map(given).collect::<Option<_>>()?;
    let part = GraphProto {
        name: graph.name.clone(),
        input: kept.cloned().chain(new).collect(),
        node: nodes,
        initializer,
        output,
        ..GraphProto::default()
    };
    Some(ModelProto { graph: Some(part), ..model.clone() })
}
