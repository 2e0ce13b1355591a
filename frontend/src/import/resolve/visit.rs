//! Walks over all graphs, nodes and tensors of a model, those of subgraphs too.

use std::collections::BTreeSet;

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// The subgraphs of an attribute.
pub(super) fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

/// As [`subgraphs`], to be changed.
pub(super) fn subgraphs_mut(attribute: &mut AttributeProto) -> impl Iterator<Item = &mut GraphProto> {
    attribute.g.iter_mut().chain(&mut attribute.graphs)
}

/// The names that a node reads, and those that its subgraphs read from outside, each once.
pub(crate) fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> =
        node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for graph in node.attribute.iter().flat_map(subgraphs) {
        let own = defined(graph);
        let outputs = graph.output.iter().map(|info| info.name.as_str());
        let read = graph.node.iter().flat_map(reads).chain(outputs);
        names.extend(read.filter(|name| !own.contains(name)));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

/// The names that a graph itself defines, without those of its subgraphs.
pub(super) fn defined(graph: &GraphProto) -> BTreeSet<&str> {
    let inputs = graph.input.iter().map(|info| info.name.as_str());
    let dense = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref());
    let computed = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let names = inputs.chain(dense).chain(sparse.map(|values| values.name.as_str())).chain(computed);
    names.filter(|name| !name.is_empty()).collect()
}

/// Calls `visit` on nodes and those of their subgraphs.
pub(super) fn each_node<'a>(nodes: &'a [NodeProto], visit: &mut dyn FnMut(&'a NodeProto)) {
    for node in nodes {
        visit(node);
        for graph in node.attribute.iter().flat_map(subgraphs) {
            each_node(&graph.node, visit);
        }
    }
}

/// Calls `visit` on nodes and those of their subgraphs.
pub(super) fn each_node_mut(nodes: &mut [NodeProto], visit: &mut dyn FnMut(&mut NodeProto)) {
    for node in nodes {
        visit(node);
        for graph in node.attribute.iter_mut().flat_map(subgraphs_mut) {
            each_node_mut(&mut graph.node, visit);
        }
    }
}

/// Calls `visit` on a graph and its subgraphs.
pub(super) fn each_graph_mut(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut GraphProto)) {
    visit(graph);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for subgraph in subgraphs_mut(attribute) {
            each_graph_mut(subgraph, visit);
        }
    }
}

/// Calls `visit` on every tensor of a model with what it is called.
pub(super) fn each_tensor_mut(model: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto, &str)) {
    if let Some(graph) = &mut model.graph {
        each_graph_mut(graph, &mut |graph| {
            for tensor in &mut graph.initializer {
                let place = format!("initialiser `{}`", tensor.name);
                visit(tensor, &place);
            }
            graph.sparse_initializer.iter_mut().for_each(|sparse| each_part(sparse, visit));
        });
        each_node_mut(&mut graph.node, &mut |node| each_attribute_tensor(node, visit));
    }
    for function in &mut model.functions {
        each_node_mut(&mut function.node, &mut |node| {
            each_attribute_tensor(node, visit);
            let graphs = node.attribute.iter_mut().flat_map(subgraphs_mut);
            for tensor in graphs.flat_map(|graph| &mut graph.initializer) {
                let place = format!("initialiser `{}`", tensor.name);
                visit(tensor, &place);
            }
        });
    }
}

fn each_attribute_tensor(node: &mut NodeProto, visit: &mut dyn FnMut(&mut TensorProto, &str)) {
    let place = format!("{} `{}`", node.op_type, crate::import::error::node_name(node));
    for attribute in &mut node.attribute {
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(|tensor| visit(tensor, &place));
        let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        sparse.for_each(|sparse| each_part(sparse, visit));
    }
}

/// The two tensors of a sparse one.
fn each_part(sparse: &mut SparseTensorProto, visit: &mut dyn FnMut(&mut TensorProto, &str)) {
    let name = sparse.values.as_ref().map_or_else(String::new, |values| values.name.clone());
    let place = format!("sparse tensor `{name}`");
    sparse.values.iter_mut().chain(&mut sparse.indices).for_each(|tensor| visit(tensor, &place));
}
