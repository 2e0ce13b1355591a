//! Control flow that is decided while importing: branches, loops, sequences and optional values become plain
//! nodes.
//!
//! Nodes are taken in order and lowered into a module that is thrown away, which tells shapes and constants.
//! An `If` whose condition is constant is replaced by its branch, a loop whose conditions are by copies of
//! its body. Sequences and optional values are kept track of by the names of the tensors in them. What
//! depends on the data stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::control::CONTROL;
use super::names::{Names, Renaming};
use super::visit::{each_node, reads};
use crate::import::ImportOptions;
use crate::import::array::{Array, Data};
use crate::import::error::{ImportError, Problems, node_name};
use crate::import::graph::{Node, opset_of};
use crate::import::layout::Value;
use crate::import::lower::Lowering;
use crate::import::walk::{Walk, check_operator, lower_node};

/// Expands the control flow of a model. Whether there was any.
///
/// # Errors
/// As [`Walk::begin`].
pub(super) fn expand(model: &mut ModelProto, options: &ImportOptions) -> Result<bool, ImportError> {
    let Some(graph) = &model.graph else { return Ok(false) };
    let is_control = |node: &NodeProto| node.domain.is_empty() && CONTROL.contains(&node.op_type.as_str());
    if !graph.node.iter().any(is_control) {
        return Ok(false);
    }
    let walk = Walk::begin(model, options)?;
    let order = walk.order.clone();
    let mut expander = Expander::new(model, walk);
    for index in order {
        expander.node(graph.node[index].clone());
    }
    let expanded = expander.finish(graph)?;
    model.graph = Some(expanded);
    Ok(true)
}

pub(super) struct Expander {
    /// The version of ONNX's own operator set.
    pub(super) opset: i64,
    lowering: Lowering,
    /// What is known of tensors.
    pub(super) values: BTreeMap<String, Value>,
    /// The tensors in sequences.
    pub(super) sequences: BTreeMap<String, Vec<String>>,
    /// What optional values hold.
    pub(super) optionals: BTreeMap<String, Option<String>>,
    /// Names that stand for others.
    aliases: Renaming,
    names: Names,
    /// Names that some node or output reads.
    read: BTreeSet<String>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Nodes that loops were unrolled to.
    pub(super) n_unrolled: usize,
}

/// How far an expansion has come, to return to if it fails.
pub(super) struct Mark {
    nodes: usize,
    initializers: usize,
}

impl Expander {
    fn new(model: &ModelProto, walk: Walk<'_>) -> Self {
        let mut read: BTreeSet<String> = walk.graph.output.iter().map(|info| info.name.clone()).collect();
        each_node(&walk.graph.node, &mut |node| read.extend(reads(node).into_iter().map(str::to_owned)));
        Self {
            opset: walk.opset,
            lowering: walk.lowering,
            values: walk.values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            sequences: BTreeMap::new(),
            optionals: BTreeMap::new(),
            aliases: Renaming::new(),
            names: Names::of(model),
            read,
            nodes: Vec::new(),
            initializers: Vec::new(),
            n_unrolled: 0,
        }
    }

    /// Takes a node, or what it stands for.
    pub(super) fn node(&mut self, mut node: NodeProto) {
        if reads(&node).iter().any(|name| self.aliases.contains_key(*name)) {
            let aliases = std::mem::take(&mut self.aliases);
            let prefix = node_name(&node).to_owned();
            self.names.rename(&mut node, &aliases, &prefix);
            self.aliases = aliases;
        }
        let is_replaced = node.domain.is_empty()
            && match node.op_type.as_str() {
                "If" => self.branch(&node),
                "Loop" => self.unroll(&node),
                "Scan" => self.scan(&node),
                _ => self.sequence(&node),
            };
        if !is_replaced {
            self.emit(node);
        }
    }

    /// Adds a node as it is, and learns of its results.
    pub(super) fn emit(&mut self, node: NodeProto) {
        if let Some(outputs) = self.lowered(&node) {
            let named = node.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty());
            self.values.extend(named.map(|(name, value)| (name.clone(), value)));
        }
        self.nodes.push(node);
    }

    /// The results of a node, if they can be told. What is wrong with it the import will say.
    fn lowered(&mut self, proto: &NodeProto) -> Option<Vec<Value>> {
        let is_known = |name: &String| name.is_empty() || self.values.contains_key(name);
        let opset = opset_of(proto, self.opset);
        if check_operator(proto, opset).is_err() || !proto.input.iter().all(is_known) {
            return None;
        }
        let inputs = proto.input.iter().map(|name| self.values.get(name).cloned()).collect();
        let read = proto.output.iter().filter(|name| self.read.contains(*name));
        let used: BTreeSet<&str> = read.map(String::as_str).collect();
        let node = Node { proto, opset, inputs, used: &used };
        lower_node(&mut self.lowering, &node).ok()
    }

    /// The branch of an `If` whose condition is known.
    fn branch(&mut self, node: &NodeProto) -> bool {
        let Some(condition) = node.input.first().and_then(|name| self.condition(name)) else { return false };
        let taken = if condition { "then_branch" } else { "else_branch" };
        let Some(graph) = subgraph(node, taken) else { return false };
        if graph.output.len() < node.output.len() {
            return false;
        }
        let results = self.inline(graph, &[], node_name(node));
        self.alias(&node.output, results);
        true
    }

    /// Adds the nodes of a graph whose inputs are `inputs`; gives the names of its outputs.
    pub(super) fn inline(&mut self, graph: &GraphProto, inputs: &[String], prefix: &str) -> Vec<String> {
        let formal = graph.input.iter().map(|info| info.name.clone());
        let mut renaming: Renaming = formal.zip(inputs.iter().cloned()).collect();
        self.names.extend(&mut renaming, graph, prefix);
        let mut copy = graph.clone();
        self.names.rename_graph(&mut copy, &renaming, prefix);
        for tensor in &copy.initializer {
            self.constant(tensor);
        }
        let outputs: Vec<String> = copy.output.iter().map(|info| info.name.clone()).collect();
        self.read.extend(outputs.iter().cloned());
        let mut read = BTreeSet::new();
        each_node(&copy.node, &mut |node| read.extend(reads(node).into_iter().map(str::to_owned)));
        self.read.append(&mut read);
        for mut node in copy.node {
            if !node.name.is_empty() {
                node.name = format!("{prefix}/{}", node.name);
            }
            self.node(node);
        }
        outputs.into_iter().map(|name| self.resolved(&name)).collect()
    }

    fn constant(&mut self, tensor: &TensorProto) {
        if let Ok(array) = Array::decode(tensor) {
            self.values.insert(tensor.name.clone(), array.into());
        }
        self.initializers.push(tensor.clone());
    }

    /// Adds a constant; gives its name, which is `name` unless that is taken.
    pub(super) fn add_constant(&mut self, array: Array, name: &str) -> String {
        let name = self.fresh(name);
        self.define(array, &name);
        name
    }

    /// Adds a constant in place of a node's result.
    pub(super) fn define(&mut self, array: Array, name: &str) {
        self.initializers.push(array.encode(name));
        self.values.insert(name.to_owned(), array.into());
    }

    pub(super) fn fresh(&mut self, base: &str) -> String {
        let name = self.names.fresh(base);
        self.read.insert(name.clone());
        name
    }

    /// The tensor that a name stands for.
    fn resolved(&self, name: &str) -> String {
        self.aliases.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Lets results of a node stand for other tensors.
    pub(super) fn alias(&mut self, outputs: &[String], tensors: Vec<String>) {
        let named = outputs.iter().cloned().zip(tensors).filter(|(output, _)| !output.is_empty());
        self.aliases.extend(named);
    }

    /// A constant, if a name is one's.
    pub(super) fn known(&self, name: &str) -> Option<&Array> {
        match self.values.get(name) {
            Some(Value::Const(array)) => Some(array),
            _ => None,
        }
    }

    /// The only element of a constant as a condition.
    pub(super) fn condition(&self, name: &str) -> Option<bool> {
        match &self.known(name)?.data {
            Data::Bool(values) => Some(*values.first().filter(|_| values.len() == 1)?),
            _ => None,
        }
    }

    /// The only element of a constant as an integer.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.known(name)?.as_ints().ok()? {
            &[only] => Some(only),
            _ => None,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { nodes: self.nodes.len(), initializers: self.initializers.len() }
    }

    /// Forgets all that was added since.
    pub(super) fn return_to(&mut self, mark: &Mark) {
        self.nodes.truncate(mark.nodes);
        self.initializers.truncate(mark.initializers);
    }

    /// The graph of what results depend on.
    ///
    /// # Errors
    /// If an output is a sequence or an optional value.
    fn finish(mut self, graph: &GraphProto) -> Result<GraphProto, ImportError> {
        let mut problems = Problems::default();
        for info in &graph.output {
            let tensor = self.resolved(&info.name);
            if self.sequences.contains_key(&tensor) || self.optionals.contains_key(&tensor) {
                problems.unsupported(&info.name, "output", "a sequence or an optional value");
            } else if tensor != info.name {
                self.nodes.push(plain("Identity", vec![tensor], vec![info.name.clone()], Vec::new()));
            }
        }
        problems.check()?;
        let mut needed: BTreeSet<&str> = graph.output.iter().map(|info| info.name.as_str()).collect();
        let mut live = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.output.iter().any(|name| needed.contains(name.as_str())) {
                needed.extend(reads(node));
                live.push(node.clone());
            }
        }
        live.reverse();
        let initializers = graph.initializer.iter().chain(&self.initializers);
        let is_needed = |tensor: &&TensorProto| needed.contains(tensor.name.as_str());
        Ok(GraphProto {
            node: live,
            initializer: initializers.filter(is_needed).cloned().collect(),
            value_info: Vec::new(),
            ..graph.clone()
        })
    }
}

/// A node of ONNX's own operators without a name.
pub(super) fn plain(
    op: &str,
    input: Vec<String>,
    output: Vec<String>,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto { op_type: op.to_owned(), input, output, attribute, ..NodeProto::default() }
}

/// An attribute of one integer.
pub(super) fn int_attribute(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

/// An attribute of integers.
pub(super) fn ints_attribute(name: &str, ints: Vec<i64>) -> AttributeProto {
    let r#type = AttributeType::Ints as i32;
    AttributeProto { name: name.to_owned(), r#type, ints, ..AttributeProto::default() }
}

/// A graph among a node's attributes.
pub(super) fn subgraph<'a>(node: &'a NodeProto, name: &str) -> Option<&'a GraphProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)?.g.as_ref()
}

/// An integer among a node's attributes.
pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

/// Integers among a node's attributes.
pub(super) fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| &attribute.ints[..])
}
