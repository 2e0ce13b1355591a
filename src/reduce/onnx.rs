//! Parts of an ONNX model.

use std::collections::{BTreeMap, BTreeSet};

use strata_frontend::import::{self, ImportError, ImportOptions, Survey};
use strata_frontend::partition::{NodeSlice, slice_model};
use strata_frontend::proto::{ModelProto, NodeProto};

use super::Progress;
use super::slice::{Network, Slice, smallest};

/// The smallest part of a model of plain nodes, as [`import::resolve`] gives it, that is found to fail still;
/// `None` if no part does, not even the whole taken out anew.
///
/// # Errors
/// If the graph cannot be surveyed.
pub fn reduce_onnx(
    model: &ModelProto,
    options: &ImportOptions,
    still_fails: &mut dyn FnMut(&ModelProto) -> bool,
    observer: &mut dyn FnMut(Progress),
) -> Result<Option<ModelProto>, ImportError> {
    let survey = import::survey(model, options)?;
    Ok(smallest(&Graph::of(model, &survey), still_fails, observer))
}

/// The graph of a model. Its values are the outputs of nodes that depend on the inputs.
struct Graph<'a> {
    model: &'a ModelProto,
    survey: &'a Survey,
    /// The names of the values.
    names: Vec<&'a str>,
    /// The node that gives each.
    nodes: Vec<usize>,
    operands: Vec<Vec<usize>>,
    numbers: BTreeMap<&'a str, usize>,
}

impl<'a> Graph<'a> {
    fn of(model: &'a ModelProto, survey: &'a Survey) -> Self {
        let (names, nodes, operands) = (Vec::new(), Vec::new(), Vec::new());
        let mut graph = Self { model, survey, names, nodes, operands, numbers: BTreeMap::new() };
        let all: &[NodeProto] = model.graph.as_ref().map_or(&[], |graph| &graph.node);
        for (index, node) in survey.order.iter().filter_map(|&index| Some((index, all.get(index)?))) {
            let read: Vec<usize> =
                node.input.iter().filter_map(|name| graph.numbers.get(name.as_str()).copied()).collect();
            let varies = |name: &&String| !name.is_empty() && !survey.constants.contains_key(*name);
            for name in node.output.iter().filter(varies) {
                graph.numbers.insert(name, graph.names.len());
                graph.names.push(name);
                graph.nodes.push(index);
                graph.operands.push(read.clone());
            }
        }
        graph
    }
}

impl Network for Graph<'_> {
    type Part = ModelProto;

    fn results(&self) -> Vec<usize> {
        let outputs = self.model.graph.iter().flat_map(|graph| &graph.output);
        outputs.filter_map(|output| self.numbers.get(output.name.as_str()).copied()).collect()
    }

    fn operands(&self, value: usize) -> &[usize] {
        &self.operands[value]
    }

    fn can_stand_for(&self, value: usize, other: usize) -> bool {
        let fact = |value: usize| self.survey.facts.get(self.names[value]);
        fact(value).is_some_and(|fact_of| Some(fact_of) == fact(other))
    }

    fn part(&self, slice: &Slice) -> Option<ModelProto> {
        let reached = slice.reached(self);
        let computed: BTreeSet<usize> = reached.computed.iter().map(|&value| self.nodes[value]).collect();
        let name = |value: usize| self.names[value].to_owned();
        let renamed = slice.replaced.keys().map(|&value| (name(value), name(slice.resolved(value))));
        let part = NodeSlice {
            nodes: self.survey.order.iter().copied().filter(|node| computed.contains(node)).collect(),
            inputs: reached.inputs.iter().map(|&value| name(value)).collect(),
            outputs: slice.outputs.iter().map(|&value| name(slice.resolved(value))).collect(),
            renamed: renamed.collect(),
        };
        slice_model(self.model, self.survey, &part)
    }
}
