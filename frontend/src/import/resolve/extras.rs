//! What ONNX's protobuf has and tract's messages of it lack: overloads and default attributes of functions,
//! types of inputs other than tensors.
//!
//! The bytes are decoded a second time, into messages of these fields alone; all others are skipped. An
//! overload becomes part of the name, `op:overload`, of the function and of the nodes that call it.

use prost::Message;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};

use super::visit::subgraphs_mut;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Info>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Info>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
    #[prost(string, tag = "8")]
    overload: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "6")]
    g: Option<Graph>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "11")]
    attribute_proto: Vec<AttributeProto>,
    #[prost(string, tag = "13")]
    overload: String,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Kind>,
}

/// The types of values that are no dense tensors; their contents do not matter.
#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "4")]
    sequence: Option<()>,
    #[prost(message, optional, tag = "5")]
    map: Option<()>,
    #[prost(message, optional, tag = "8")]
    sparse_tensor: Option<()>,
    #[prost(message, optional, tag = "9")]
    optional: Option<()>,
}

impl Kind {
    fn name(&self) -> Option<&'static str> {
        let kinds = [
            (&self.sequence, "sequence"),
            (&self.map, "map"),
            (&self.sparse_tensor, "sparse tensor"),
            (&self.optional, "optional value"),
        ];
        kinds.into_iter().find(|(kind, _)| kind.is_some()).map(|(_, name)| name)
    }
}

/// What tract's messages lack.
#[derive(Default)]
pub(super) struct Extras {
    /// The default attributes of each function.
    pub(super) defaults: Vec<Vec<AttributeProto>>,
    /// Inputs of the graph that are no dense tensors, by name, and what they are.
    pub(super) inputs: Vec<(String, &'static str)>,
    /// Outputs likewise.
    pub(super) outputs: Vec<(String, &'static str)>,
}

/// Reads the extras of a file, whose `model` was decoded by tract's messages; names of functions get their
/// overloads.
pub(super) fn read(bytes: &[u8], model: &mut ModelProto) -> Extras {
    // What tract's decoder took is well formed; a message that differs all the same has no extras.
    let Ok(extras) = Model::decode(bytes) else { return Extras::default() };
    let kinds = |infos: &[Info]| -> Vec<(String, &'static str)> {
        let kind = |info: &Info| Some((info.name.clone(), info.r#type.as_ref()?.name()?));
        infos.iter().filter_map(kind).collect()
    };
    let mut read = Extras::default();
    if let (Some(graph), Some(extra)) = (&mut model.graph, &extras.graph) {
        name_overloads(&mut graph.node, &extra.node);
        (read.inputs, read.outputs) = (kinds(&extra.input), kinds(&extra.output));
    }
    for (function, extra) in model.functions.iter_mut().zip(extras.functions) {
        name_overloads(&mut function.node, &extra.node);
        if let Some(name) = function.name.as_mut().filter(|_| !extra.overload.is_empty()) {
            *name = format!("{name}:{}", extra.overload);
        }
        read.defaults.push(extra.attribute_proto);
    }
    read
}

fn name_overloads(nodes: &mut [NodeProto], extras: &[Node]) {
    for (node, extra) in nodes.iter_mut().zip(extras) {
        if !extra.overload.is_empty() {
            node.op_type = format!("{}:{}", node.op_type, extra.overload);
        }
        for (attribute, extra) in node.attribute.iter_mut().zip(&extra.attribute) {
            let graphs: Vec<&Graph> = extra.g.iter().chain(&extra.graphs).collect();
            for (graph, extra) in subgraphs_mut(attribute).zip(graphs) {
                let graph: &mut GraphProto = graph;
                name_overloads(&mut graph.node, &extra.node);
            }
        }
    }
}
