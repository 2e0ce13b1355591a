//! Inputs whose elements number the rows of tables, as the words of a text do: noise for them has to stay
//! within.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};

/// For each input of the graph that is used as indices of a constant or an input, how many there are to
/// choose from.
///
/// It is followed through operators that keep its elements as they are.
pub fn indexed_rows(model: &ModelProto) -> BTreeMap<String, usize> {
    let Some(graph) = &model.graph else { return BTreeMap::new() };
    let mut readers: BTreeMap<&str, Vec<&NodeProto>> = BTreeMap::new();
    for node in &graph.node {
        for name in &node.input {
            readers.entry(name).or_default().push(node);
        }
    }
    let rows = |info: &ValueInfoProto| Some((info.name.clone(), least_rows(graph, &readers, &info.name)?));
    graph.input.iter().filter_map(rows).collect()
}

/// The fewest rows that a tensor is used to choose from.
fn least_rows(graph: &GraphProto, readers: &BTreeMap<&str, Vec<&NodeProto>>, input: &str) -> Option<usize> {
    let mut least = None;
    let mut seen = BTreeSet::from([input]);
    let mut queue = VecDeque::from([input]);
    while let Some(name) = queue.pop_front() {
        for node in readers.get(name).into_iter().flatten() {
            let at = node.input.iter().position(|operand| operand == name);
            match (node.op_type.as_str(), at) {
                (
                    "Gather" | "GatherElements" | "GatherND" | "Scatter" | "ScatterElements" | "ScatterND",
                    Some(1),
                ) => {
                    least = least.into_iter().chain(rows_of(graph, node)).min();
                }
                (
                    "Cast" | "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose"
                    | "Expand" | "Slice",
                    Some(0),
                ) => {
                    let outputs = node.output.iter().map(String::as_str);
                    queue.extend(outputs.filter(|output| seen.insert(output)));
                }
                _ => {}
            }
        }
    }
    least
}

/// The extent of the axis that the indices of a node count along, of the least one if they are tuples; if the
/// shape of what is indexed is declared.
fn rows_of(graph: &GraphProto, node: &NodeProto) -> Option<usize> {
    let extents = extents(graph, node.input.first()?)?;
    if node.op_type.ends_with("ND") {
        return extents.into_iter().min();
    }
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(0, |a| a.i);
    let from_front = if axis < 0 { axis + extents.len() as i64 } else { axis };
    extents.get(usize::try_from(from_front).ok()?).copied()
}

/// The extents of an initialiser or of an input.
fn extents(graph: &GraphProto, name: &str) -> Option<Vec<usize>> {
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name == name) {
        return tensor.dims.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    }
    let info = graph.input.iter().find(|info| info.name == name)?;
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let extent = |dim: &Dimension| match dim.value {
        Some(dimension::Value::DimValue(extent)) => usize::try_from(extent).ok(),
        _ => None,
    };
    tensor.shape.as_ref()?.dim.iter().map(extent).collect()
}
