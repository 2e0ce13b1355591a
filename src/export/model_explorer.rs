//! A network as a graph for Google's Model Explorer, in its own JSON.
//!
//! Groups are namespaces, which the viewer folds.
//!
//! # Source
//! `src/server/package/src/model_explorer/graph_builder.py` of google-ai-edge/model-explorer: a file is
//! `{"graphs": [{"id", "nodes": [NODE, …]}]}`, a node being
//! `{"id", "label", "namespace", "attrs", "incomingEdges", "outputsMetadata"}`.

use serde::Serialize;

use super::graph::{self, graphs};
use super::{ExportError, Format, Kind, Source};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "model-explorer",
    summary: "a graph for Google's Model Explorer (JSON), with phases and stages as groups",
    takes: &[Kind::Bundle, Kind::Ir, Kind::Tosa, Kind::Onnx],
    is_text: true,
    write,
};

#[derive(Serialize)]
struct Collection {
    label: String,
    graphs: Vec<Graph>,
}

#[derive(Serialize)]
struct Graph {
    id: String,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    id: String,
    label: String,
    namespace: String,
    attrs: Vec<KeyValue>,
    incoming_edges: Vec<Edge>,
    outputs_metadata: Vec<Metadata>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Edge {
    source_node_id: String,
    source_node_output_id: String,
    target_node_input_id: String,
}

#[derive(Serialize)]
struct Metadata {
    id: String,
    attrs: Vec<KeyValue>,
}

#[derive(Serialize)]
struct KeyValue {
    key: String,
    value: String,
}

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    let graphs = graphs(source)?.into_iter().map(described).collect();
    let collection = Collection { label: source.name.clone(), graphs };
    let json = serde_json::to_string_pretty(&collection).map_err(|e| ExportError::Content(e.to_string()))?;
    Ok((json + "\n").into_bytes())
}

fn described(graph: graph::Graph) -> Graph {
    let nodes = graph.nodes.into_iter().enumerate().map(|(index, node)| Node {
        id: index.to_string(),
        label: node.label,
        // A slash would open another group.
        namespace: node.groups.iter().map(|group| group.replace('/', "_")).collect::<Vec<_>>().join("/"),
        attrs: node.attributes.into_iter().map(|a| KeyValue { key: a.key, value: a.value }).collect(),
        incoming_edges: edges(&node.inputs),
        outputs_metadata: node.outputs.into_iter().enumerate().map(metadata).collect(),
    });
    Graph { id: graph.name, nodes: nodes.collect() }
}

fn edges(inputs: &[graph::Edge]) -> Vec<Edge> {
    let edge = |(index, edge): (usize, &graph::Edge)| Edge {
        source_node_id: edge.from.to_string(),
        source_node_output_id: edge.output.to_string(),
        target_node_input_id: index.to_string(),
    };
    inputs.iter().enumerate().map(edge).collect()
}

fn metadata((output, ty): (usize, String)) -> Metadata {
    let attrs = vec![KeyValue { key: "tensor_shape".to_owned(), value: ty }];
    Metadata { id: output.to_string(), attrs }
}
