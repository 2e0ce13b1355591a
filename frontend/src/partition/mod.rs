//! Cuts an ONNX graph into parts that the machine runs and parts that the host runs.
//!
//! Nodes get levels, odd ones for the machine and even ones for the host, each the least that is not below
//! those of the nodes that it reads; the nodes of a level are one part. There are then as few parts as the
//! longest chain of changes between machine and host asks for, each as large as it can be. What would be a
//! machine part without a convolution or a matrix product goes to the host with the rest: it would be rounded
//! to integers and back for nothing.
//!
//! The nodes of a host level are cut once more in the same way: those that the import takes are evaluated in
//! f32 as we import them, only the others go to the host's ONNX library.
//!
//! A part is an ONNX model of its own. Tensors that do not depend on the network's inputs are its
//! initialisers.

mod slice;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use crate::import::resolve::reads;
use crate::import::{Fact, Survey};
pub use slice::{NodeSlice, slice_model};
pub use work::{Work, work};

/// Who runs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runner {
    /// The machine, in integers.
    Machine,
    /// The host, which evaluates the import in f32.
    Evaluator,
    /// The host, with its ONNX library.
    Library,
}

/// A stretch of the graph.
#[derive(Clone, Debug)]
pub struct GraphPart {
    /// Who runs it.
    pub runner: Runner,
    /// The indices of its nodes in the whole graph, in order; node `i` of `model` is node `nodes[i]` there.
    pub nodes: Vec<usize>,
    /// It as a model. Its inputs are inputs of the network or what other parts give.
    pub model: ModelProto,
}

impl GraphPart {
    /// Whether the host runs it.
    pub fn on_host(&self) -> bool {
        self.runner != Runner::Machine
    }

    /// Whether the shape of an input or output is known before anything runs.
    pub fn is_declared(&self, name: &str, is_output: bool) -> bool {
        let graph = self.model.graph.as_ref();
        let infos = graph.map_or(&[][..], |graph| if is_output { &graph.output } else { &graph.input });
        let info = infos.iter().find(|info| info.name == name);
        let ty = info.and_then(|info| info.r#type.as_ref()?.value.as_ref());
        let Some(type_proto::Value::TensorType(tensor)) = ty else { return false };
        let is_known = |dim: &Dimension| matches!(dim.value, Some(dimension::Value::DimValue(_)));
        tensor.shape.as_ref().is_some_and(|shape| shape.dim.iter().all(is_known))
    }

    /// The names of the tensors that it takes.
    pub fn inputs(&self) -> Vec<&str> {
        names(self.model.graph.as_ref().map_or(&[], |graph| &graph.input))
    }

    /// The names of the tensors that it gives.
    pub fn outputs(&self) -> Vec<&str> {
        names(self.model.graph.as_ref().map_or(&[], |graph| &graph.output))
    }
}

fn names(infos: &[ValueInfoProto]) -> Vec<&str> {
    infos.iter().map(|info| info.name.as_str()).collect()
}

/// Cuts `model` so that the host runs `host`, in the order in which the parts have to run.
pub fn partition(model: &ModelProto, survey: &Survey, host: &BTreeSet<usize>) -> Vec<GraphPart> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let cutter = Cutter::new(graph, survey);
    let mut host = host.clone();
    let levels = loop {
        let levels = cutter.levels(&host);
        let idle = cutter.idle(&levels);
        if idle.is_empty() {
            break levels;
        }
        host.extend(idle);
    };
    cutter.parts(model, &cutter.places(&levels))
}

/// The place of a node in the order of parts: its level and, on the host, that within the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    level: usize,
    step: usize,
}

impl Place {
    fn runner(self) -> Runner {
        match (self.level % 2, self.step % 2) {
            (1, _) => Runner::Machine,
            (_, 0) => Runner::Evaluator,
            _ => Runner::Library,
        }
    }
}

struct Cutter<'a> {
    graph: &'a GraphProto,
    survey: &'a Survey,
    /// What each node reads, those of its subgraphs too.
    reads: Vec<Vec<&'a str>>,
    producer: BTreeMap<&'a str, usize>,
    /// Nodes that results depend on and that are not folded, in order.
    live: Vec<usize>,
}

impl<'a> Cutter<'a> {
    fn new(graph: &'a GraphProto, survey: &'a Survey) -> Self {
        let reads: Vec<Vec<&str>> = graph.node.iter().map(reads).collect();
        let mut producer = BTreeMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            producer.extend(node.output.iter().filter(|name| !name.is_empty()).map(|o| (o.as_str(), index)));
        }
        let mut needed: BTreeSet<&str> = graph.output.iter().map(|info| info.name.as_str()).collect();
        let mut live = Vec::new();
        for &index in survey.order.iter().rev() {
            let is_wanted = |name: &String| {
                needed.contains(name.as_str()) && !survey.constants.contains_key(name.as_str())
            };
            if graph.node[index].output.iter().any(is_wanted) {
                needed.extend(&reads[index]);
                live.push(index);
            }
        }
        live.reverse();
        Self { graph, survey, reads, producer, live }
    }

    /// The live nodes that a node reads.
    fn operands(&self, index: usize) -> impl Iterator<Item = usize> {
        let names = self.reads[index].iter();
        let names = names.filter(|&&name| !self.survey.constants.contains_key(name));
        names.filter_map(|name| self.producer.get(name).copied())
    }

    fn levels(&self, host: &BTreeSet<usize>) -> BTreeMap<usize, usize> {
        let mut levels = BTreeMap::new();
        for &index in &self.live {
            let parity = usize::from(!host.contains(&index));
            let least = self
                .operands(index)
                .filter_map(|operand| levels.get(&operand))
                .max()
                .map_or(0, |&l: &usize| l);
            levels.insert(index, least + usize::from(least % 2 != parity));
        }
        levels
    }

    /// Cuts host levels between the evaluator and the library.
    fn places(&self, levels: &BTreeMap<usize, usize>) -> BTreeMap<usize, Place> {
        let mut places: BTreeMap<usize, Place> = BTreeMap::new();
        for &index in &self.live {
            let level = levels[&index];
            let operands = self.operands(index).filter_map(|operand| places.get(&operand));
            let least = operands.filter(|place| place.level == level).map(|place| place.step).max();
            let least = least.unwrap_or(0);
            let is_odd = usize::from(level.is_multiple_of(2) && self.survey.blocked.contains_key(&index));
            places.insert(index, Place { level, step: least + usize::from(least % 2 != is_odd) });
        }
        places
    }

    /// The nodes of machine parts, or pieces of them that hang together, that do not multiply and accumulate.
    fn idle(&self, levels: &BTreeMap<usize, usize>) -> BTreeSet<usize> {
        let mut piece: BTreeMap<usize, usize> = self.live.iter().map(|&index| (index, index)).collect();
        fn root(piece: &BTreeMap<usize, usize>, mut at: usize) -> usize {
            while piece[&at] != at {
                at = piece[&at];
            }
            at
        }
        for &index in &self.live {
            for operand in self.operands(index).filter(|operand| levels.get(operand) == levels.get(&index)) {
                let (a, b) = (root(&piece, operand), root(&piece, index));
                piece.insert(a.max(b), a.min(b));
            }
        }
        let on_machine = |index: &&usize| levels[*index] % 2 == 1;
        let multiplies = |index: &&usize| work::multiplies(&self.graph.node[**index]);
        let busy: BTreeSet<usize> =
            self.live.iter().filter(on_machine).filter(multiplies).map(|&i| root(&piece, i)).collect();
        let idle = self.live.iter().filter(on_machine).filter(|&&i| !busy.contains(&root(&piece, i)));
        idle.copied().collect()
    }

    fn parts(&self, model: &ModelProto, places: &BTreeMap<usize, Place>) -> Vec<GraphPart> {
        let mut by_place: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for &index in &self.live {
            by_place.entry(places[&index]).or_default().push(index);
        }
        let results: BTreeSet<&str> = self.graph.output.iter().map(|info| info.name.as_str()).collect();
        let initialisers: BTreeSet<&str> =
            self.graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        // The places of the nodes that read a tensor.
        let mut read_at: BTreeMap<&str, BTreeSet<Place>> = BTreeMap::new();
        for &index in &self.live {
            for &name in &self.reads[index] {
                read_at.entry(name).or_default().insert(places[&index]);
            }
        }
        // Results that are constant have no part of their own.
        let mut constant_results: Vec<&str> =
            results.iter().copied().filter(|name| self.survey.constants.contains_key(*name)).collect();
        let mut parts = Vec::new();
        for (place, nodes) in by_place {
            let is_here =
                |name: &str| self.producer.get(name).is_some_and(|index| places.get(index) == Some(&place));
            let is_read_elsewhere = |at: &BTreeSet<Place>| at.iter().any(|&other| other != place);
            let leaves =
                |name: &str| results.contains(name) || read_at.get(name).is_some_and(is_read_elsewhere);
            let mut takes = Vec::new();
            let mut constants = BTreeSet::new();
            let mut gives = std::mem::take(&mut constant_results);
            constants.extend(gives.iter().copied());
            for &index in &nodes {
                for &name in &self.reads[index] {
                    if initialisers.contains(name) || self.survey.constants.contains_key(name) {
                        constants.insert(name);
                    } else if !is_here(name) && !takes.contains(&name) {
                        takes.push(name);
                    }
                }
                let outputs = self.graph.node[index].output.iter().map(String::as_str);
                gives.extend(outputs.filter(|name| !name.is_empty() && leaves(name)));
            }
            let initializer = self.graph.initializer.iter().filter(|t| constants.contains(t.name.as_str()));
            let folded = self.survey.constants.iter().filter(|(name, _)| constants.contains(name.as_str()));
            let graph = GraphProto {
                name: format!("{}, part {}", self.graph.name, parts.len()),
                node: nodes.iter().map(|&index| self.node(index)).collect(),
                initializer: initializer.chain(folded.map(|(_, tensor)| tensor)).cloned().collect(),
                input: takes.iter().map(|name| self.value_info(name)).collect(),
                output: gives.iter().map(|name| self.value_info(name)).collect(),
                ..GraphProto::default()
            };
            let model = ModelProto {
                ir_version: model.ir_version,
                opset_import: model.opset_import.clone(),
                functions: model.functions.clone(),
                graph: Some(graph),
                ..ModelProto::default()
            };
            parts.push(GraphPart { runner: place.runner(), nodes, model });
        }
        parts
    }

    /// A node as a part has it: what it gives that is known beforehand is an initialiser there, and no
    /// output.
    fn node(&self, index: usize) -> NodeProto {
        let mut node = self.graph.node[index].clone();
        let known = |name: &&mut String| self.survey.constants.contains_key(name.as_str());
        node.output.iter_mut().filter(known).for_each(String::clear);
        node
    }

    /// The declaration of a tensor, with what is known of it.
    fn value_info(&self, name: &str) -> ValueInfoProto {
        let mut declared = self.graph.input.iter().chain(&self.graph.output).filter(|info| info.name == name);
        let known = self.survey.facts.get(name).filter(|fact| fact.dtype != DataType::Undefined);
        match known {
            Some(fact) => ValueInfoProto {
                name: name.to_owned(),
                r#type: Some(tensor_type(fact)),
                doc_string: String::new(),
            },
            // Nothing is known of the shape; the type may be.
            None => declared.next().cloned().unwrap_or_else(|| undeclared(name)),
        }
    }
}

/// The declaration of a tensor of which nothing is known.
pub(crate) fn undeclared(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor::default())),
            ..TypeProto::default()
        }),
        doc_string: String::new(),
    }
}

/// The type of a tensor of which all is known.
pub(crate) fn tensor_type(fact: &Fact) -> TypeProto {
    let dim = |&extent: &usize| Dimension {
        value: Some(dimension::Value::DimValue(extent as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: fact.dtype as i32,
        shape: Some(TensorShapeProto { dim: fact.shape.iter().map(dim).collect() }),
    };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }
}

#[cfg(test)]
mod tests;
