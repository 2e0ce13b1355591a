//! Functions that a model brings itself, put in place of the nodes that call them.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, FunctionProto, ModelProto, NodeProto, OperatorSetIdProto};

use super::names::{Names, Renaming};
use super::visit::{each_node_mut, subgraphs_mut};
use crate::import::error::{LowerError, Problems, node_name};
use crate::import::graph::OPSET_ATTRIBUTE;
use crate::import::versions;

/// Nodes of a model at most, once all its functions are in place.
const MAX_NODES: usize = 1 << 20;
/// Calls within calls at most.
const MAX_DEPTH: usize = 64;

/// A function's domain and name.
type Key = (String, String);

/// A function with what its protobuf message of tract's lacks.
struct Function {
    proto: FunctionProto,
    defaults: Vec<AttributeProto>,
    opset: Option<i64>,
}

/// Puts the functions of a model in place of the nodes that call them. `defaults` are their default
/// attributes.
pub(super) fn inline(model: &mut ModelProto, defaults: Vec<Vec<AttributeProto>>, problems: &mut Problems) {
    let mut defaults = defaults.into_iter();
    let mut functions = BTreeMap::new();
    for proto in std::mem::take(&mut model.functions) {
        let key = (proto.domain.clone().unwrap_or_default(), proto.name.clone().unwrap_or_default());
        let defaults = defaults.next().unwrap_or_default();
        let opset = own_opset(&proto.opset_import);
        if functions.insert(key.clone(), Function { proto, defaults, opset }).is_some() {
            problems.malformed(format!("function `{}`", key.1), "it is defined twice");
        }
    }
    if functions.is_empty() {
        return;
    }
    let opset = own_opset(&model.opset_import);
    let mut inliner = Inliner {
        names: Names::of(model),
        functions: &functions,
        // A graph of calls alone need not import ONNX's own operators.
        opset: opset.or_else(|| functions.values().find_map(|function| function.opset)),
        stack: Vec::new(),
        n_nodes: 0,
        problems,
    };
    if let Some(graph) = &mut model.graph {
        graph.node = inliner.inlined(std::mem::take(&mut graph.node));
    }
    if let (None, Some(version)) = (opset, inliner.opset) {
        model.opset_import.push(OperatorSetIdProto { domain: String::new(), version });
    }
}

/// The version of ONNX's own operator set.
fn own_opset(imports: &[OperatorSetIdProto]) -> Option<i64> {
    imports.iter().find(|set| set.domain.is_empty()).map(|set| set.version)
}

struct Inliner<'a> {
    functions: &'a BTreeMap<Key, Function>,
    names: Names,
    /// The model's version of ONNX's own operators.
    opset: Option<i64>,
    /// The functions that are being put in place.
    stack: Vec<&'a Key>,
    n_nodes: usize,
    problems: &'a mut Problems,
}

impl<'a> Inliner<'a> {
    /// `nodes` with bodies in place of calls, in subgraphs too.
    fn inlined(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut out = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in node.attribute.iter_mut().flat_map(subgraphs_mut) {
                graph.node = self.inlined(std::mem::take(&mut graph.node));
            }
            let key = (node.domain.clone(), node.op_type.clone());
            match self.functions.get_key_value(&key) {
                Some((key, function)) => out.extend(self.call(&node, key, function)),
                None => {
                    self.n_nodes += 1;
                    out.push(node);
                }
            }
        }
        out
    }

    /// The body of a function in place of `call`, with all calls in it.
    fn call(&mut self, call: &NodeProto, key: &'a Key, function: &'a Function) -> Vec<NodeProto> {
        let name = node_name(call);
        if self.stack.contains(&key) {
            self.problems.malformed(format!("function `{}`", key.1), "it calls itself");
            return Vec::new();
        }
        if self.stack.len() >= MAX_DEPTH || self.n_nodes > MAX_NODES {
            let why = format!("functions of over {MAX_DEPTH} levels or {MAX_NODES} nodes");
            self.problems.lowering(name, &key.1, &key.0, LowerError::Unsupported(why));
            return Vec::new();
        }
        let FunctionProto { input, output, .. } = &function.proto;
        if call.input.len() > input.len() || call.output.len() > output.len() {
            let place = format!("{} `{name}`", key.1);
            self.problems.malformed(place, "it has more operands or results than the function");
            return Vec::new();
        }
        let body = self.body(call, function);
        self.stack.push(key);
        let nodes = self.inlined(body);
        self.stack.pop();
        nodes
    }

    /// A copy of a function's nodes with the names and attributes of a call.
    fn body(&mut self, call: &NodeProto, function: &Function) -> Vec<NodeProto> {
        let FunctionProto { input, output, node: nodes, .. } = &function.proto;
        let prefix = node_name(call);
        let computed: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.output).collect();
        let mut renaming = Renaming::new();
        for (at, formal) in input.iter().enumerate() {
            renaming.insert(formal.clone(), call.input.get(at).cloned().unwrap_or_default());
        }
        // What is given on, or given twice, needs a node that copies it.
        let mut copies = Vec::new();
        for (formal, actual) in output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty()) {
            if computed.contains(formal) && !renaming.contains_key(formal) {
                renaming.insert(formal.clone(), actual.clone());
            } else {
                copies.push((formal, actual));
            }
        }
        let mut body = nodes.clone();
        for node in &mut body {
            each_node_mut(std::slice::from_mut(node), &mut |node| {
                resolve_attributes(node, call, &function.defaults);
                self.state_opset(node, function.opset);
            });
            // What the function does not define is not the model's of that name either.
            for name in super::visit::reads(node).into_iter().chain(node.output.iter().map(String::as_str)) {
                if !name.is_empty() && !renaming.contains_key(name) {
                    renaming.insert(name.to_owned(), self.names.fresh(&format!("{prefix}/{name}")));
                }
            }
        }
        for node in &mut body {
            self.names.rename(node, &renaming, prefix);
            if !node.name.is_empty() {
                node.name = format!("{prefix}/{}", node.name);
            }
        }
        let copy = |(formal, actual): (&String, &String)| NodeProto {
            op_type: "Identity".to_owned(),
            input: vec![renaming.get(formal).cloned().unwrap_or_else(|| format!("{prefix}/{formal}"))],
            output: vec![actual.clone()],
            ..NodeProto::default()
        };
        body.extend(copies.into_iter().map(copy));
        body
    }

    /// Notes on a node which version of ONNX's operators it is of, where that makes a difference.
    fn state_opset(&self, node: &mut NodeProto, opset: Option<i64>) {
        let (Some(own), Some(models)) = (opset, self.opset) else { return };
        let op = &node.op_type;
        let same = own == models || versions::definition(op, own) == versions::definition(op, models);
        let is_stated = node.attribute.iter().any(|a| a.name == OPSET_ATTRIBUTE);
        if !node.domain.is_empty() || same || is_stated {
            return;
        }
        node.attribute.push(AttributeProto {
            name: OPSET_ATTRIBUTE.to_owned(),
            r#type: AttributeType::Int as i32,
            i: own,
            ..AttributeProto::default()
        });
    }
}

/// Attributes that refer to those of the function's call, else to its defaults, become what they refer to;
/// those that refer to none are left out.
fn resolve_attributes(node: &mut NodeProto, call: &NodeProto, defaults: &[AttributeProto]) {
    let attributes = std::mem::take(&mut node.attribute).into_iter().filter_map(|attribute| {
        if attribute.ref_attr_name.is_empty() {
            return Some(attribute);
        }
        let mut known = call.attribute.iter().chain(defaults);
        let found = known.find(|known| known.name == attribute.ref_attr_name)?;
        Some(AttributeProto { name: attribute.name, ..found.clone() })
    });
    node.attribute = attributes.collect();
}
