//! A program as a graph for Graphviz: a cluster a phase, a node a stage, an edge a stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use petgraph::dot::{Config, Dot};
use petgraph::graph::{DiGraph, NodeIndex};
use strata_isa_spec::Program;

/// The dataflow graph of a program: nodes are `(phase, label)`, edges name the stream between two stages.
pub fn graph(program: &Program, names: &[String]) -> DiGraph<(usize, String), String> {
    let mut graph = DiGraph::new();
    let mut writers: BTreeMap<u32, Vec<NodeIndex>> = BTreeMap::new();
    for (number, phase) in program.phases.iter().enumerate() {
        let mut nodes = Vec::with_capacity(phase.stages.len());
        for stage in &phase.stages {
            let name = names.get(stage.source as usize).map_or("", String::as_str);
            let node = graph.add_node((number, format!("{} {name}", stage.code.head.mnemonic())));
            nodes.push(node);
            if stage.code.out.rows > 0 {
                writers.entry(stage.code.out.stream).or_default().push(node);
            }
        }
        for (stage, &node) in phase.stages.iter().zip(&nodes) {
            for view in stage.code.reads() {
                for &writer in writers.get(&view.stream).into_iter().flatten() {
                    graph.update_edge(writer, node, format!("s{}", view.stream));
                }
            }
        }
    }
    graph
}

/// The graph in Graphviz's language, stages of a phase grouped in a box.
pub fn dot(program: &Program, names: &[String]) -> String {
    let graph = graph(program, names);
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let label =
        |_: &_, (_, (_, label)): (NodeIndex, &(usize, String))| format!("label=\"{}\"", escape(label));
    let config = [Config::GraphContentOnly, Config::NodeNoLabel, Config::EdgeNoLabel];
    let edge =
        |_: &_, edge: petgraph::graph::EdgeReference<'_, String>| format!("label=\"{}\"", edge.weight());
    let content = Dot::with_attr_getters(&graph, &config, &edge, &label);
    let mut text = format!("digraph program {{\n    node [shape=box]\n{content:?}");
    for phase in 0..program.phases.len() {
        let nodes = graph.node_indices().filter(|&n| graph[n].0 == phase).map(|n| n.index().to_string());
        let nodes = nodes.collect::<Vec<_>>().join("; ");
        let _ = writeln!(text, "    subgraph cluster_{phase} {{ label=\"phase {phase}\"; {nodes} }}");
    }
    text.push_str("}\n");
    text
}
