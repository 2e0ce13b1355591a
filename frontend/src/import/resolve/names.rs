//! Names of tensors: which are taken, and new ones for what is copied into a graph.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::visit::{defined, each_node, subgraphs, subgraphs_mut};

/// What tensors are called where nodes are copied to, by what they were called; an empty name is an absent
/// operand.
pub(super) type Renaming = BTreeMap<String, String>;

/// All names of tensors in a model.
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    pub(super) fn of(model: &ModelProto) -> Self {
        let mut taken = BTreeSet::new();
        if let Some(graph) = &model.graph {
            taken.extend(defined(graph).into_iter().map(str::to_owned));
            each_node(&graph.node, &mut |node| {
                taken.extend(node.input.iter().cloned());
                for graph in node.attribute.iter().flat_map(subgraphs) {
                    taken.extend(defined(graph).into_iter().map(str::to_owned));
                }
            });
        }
        Self { taken }
    }

    /// A name that nothing has, `base` if that is so of it.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        let mut n = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{base}#{n}");
            n += 1;
        }
        name
    }

    /// Gives new names to all that `graph` defines, but for those that `renaming` has already.
    pub(super) fn extend(&mut self, renaming: &mut Renaming, graph: &GraphProto, prefix: &str) {
        for name in defined(graph) {
            if !renaming.contains_key(name) {
                renaming.insert(name.to_owned(), self.fresh(&format!("{prefix}/{name}")));
            }
        }
    }

    /// Renames what a node and its subgraphs read and define. All that subgraphs define gets a name that is
    /// new in the model, so that no name from outside is taken for one from inside.
    pub(super) fn rename(&mut self, node: &mut NodeProto, renaming: &Renaming, prefix: &str) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(new) = renaming.get(name) {
                *name = new.clone();
            }
        }
        for graph in node.attribute.iter_mut().flat_map(subgraphs_mut) {
            let mut inside = renaming.clone();
            defined(graph).into_iter().for_each(|name| drop(inside.remove(name)));
            self.extend(&mut inside, graph, prefix);
            self.rename_graph(graph, &inside, prefix);
        }
    }

    /// Renames all that a graph reads and defines; `renaming` has the names of what it defines.
    pub(super) fn rename_graph(&mut self, graph: &mut GraphProto, renaming: &Renaming, prefix: &str) {
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|tensor| tensor.values.as_mut());
        let tensors = graph.initializer.iter_mut().chain(sparse).map(|tensor| &mut tensor.name);
        let infos = graph.input.iter_mut().chain(&mut graph.output).map(|info| &mut info.name);
        for name in tensors.chain(infos) {
            if let Some(new) = renaming.get(name) {
                *name = new.clone();
            }
        }
        graph.value_info.clear();
        graph.node.iter_mut().for_each(|node| self.rename(node, renaming, prefix));
    }
}
