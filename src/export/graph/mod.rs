//! A network as a graph of nodes in nested groups, which the formats for viewers of graphs print.
//!
//! Constants are no nodes: they stand among the attributes of what takes them. What runs in phases and stages
//! is grouped by these, else by the scopes that the names of the model's layers have.

mod module;
mod program;

use strata_ir::text;
use strata_isa_spec::bundle::{Bundle, Code, Part};

use super::{Content, ExportError, Source};

/// A graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// What it is called.
    pub(super) name: String,
    /// The nodes; edges lead from any to any.
    pub(super) nodes: Vec<Node>,
}

/// A node.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// What it does.
    pub(super) label: String,
    /// The groups that it stands in, the outermost first.
    pub(super) groups: Vec<String>,
    /// What it takes.
    pub(super) inputs: Vec<Edge>,
    /// What else is known of it.
    pub(super) attributes: Vec<Attribute>,
    /// What it gives: the type of each.
    pub(super) outputs: Vec<String>,
}

/// What a node takes of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The other node, an index into the graph's.
    pub(super) from: usize,
    /// Which of its outputs.
    pub(super) output: usize,
    /// What it is.
    pub(super) label: String,
}

/// A property of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// What it is.
    pub(super) key: String,
    /// Its value as text.
    pub(super) value: String,
}

impl Attribute {
    fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// The graphs of a source: one for each part of a bundle, or each function of a module.
pub(super) fn graphs(source: &Source) -> Result<Vec<Graph>, ExportError> {
    match &source.content {
        Content::Bundle(bundle) => of_bundle(bundle),
        Content::Modules(modules) => Ok(modules.iter().flat_map(module::graphs).collect()),
    }
}

fn of_bundle(bundle: &Bundle) -> Result<Vec<Graph>, ExportError> {
    let mut graphs = Vec::new();
    for (index, part) in bundle.parts.iter().enumerate() {
        match &part.code {
            Code::Machine(machine) => graphs.push(program::graph(machine)),
            Code::Ir(source) => {
                let module = text::parse(source, None).map_err(|errors| {
                    ExportError::Content(format!("part {index}, which the host runs, is no module: {errors}"))
                })?;
                graphs.extend(module::graphs(&module));
            }
            Code::Onnx(_) => graphs.push(of_library(part)),
        }
        if let Some(graph) = graphs.last_mut() {
            graph.name = format!("part {index}: {}", graph.name);
        }
    }
    Ok(graphs)
}

/// A part that the host's library runs, whose nodes are its own.
fn of_library(part: &Part) -> Graph {
    let names = |ports: &[strata_isa_spec::bundle::Port]| {
        ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let attributes =
        vec![Attribute::new("inputs", names(&part.inputs)), Attribute::new("outputs", names(&part.outputs))];
    let node = Node { label: "ONNX model".to_owned(), attributes, ..Node::default() };
    Graph { name: "on the host".to_owned(), nodes: vec![node] }
}
