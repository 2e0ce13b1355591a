//! A network as a graph in DOT, which Graphviz draws.
//!
//! Groups are clusters, so that phases and stages stand in boxes.

use std::fmt::Write as _;

use super::graph::{Graph, Node, graphs};
use super::{ExportError, Format, Kind, Source};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "dot",
    summary: "a graph for Graphviz, with phases and stages as clusters",
    takes: &[Kind::Bundle, Kind::Ir, Kind::Tosa, Kind::Onnx],
    is_text: true,
    write,
};

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    let graphs = graphs(source)?;
    let mut printer = Printer { out: String::new(), n_clusters: 0 };
    printer.graphs(&source.name, &graphs);
    Ok(printer.out.into_bytes())
}

struct Printer {
    out: String,
    n_clusters: usize,
}

// Writing to a `String` cannot fail.
impl Printer {
    fn graphs(&mut self, name: &str, graphs: &[Graph]) {
        let _ = writeln!(self.out, "digraph {} {{", quoted(name));
        self.out += "  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n";
        self.out += "  edge [fontname=\"sans-serif\", fontsize=8];\n";
        for (number, graph) in graphs.iter().enumerate() {
            let nodes: Vec<usize> = (0..graph.nodes.len()).collect();
            if graphs.len() > 1 {
                self.begin_cluster(1, &graph.name);
                self.group(graph, number, &nodes, 0);
                self.end_cluster(1);
            } else {
                self.group(graph, number, &nodes, 0);
            }
        }
        for (number, graph) in graphs.iter().enumerate() {
            self.edges(number, graph);
        }
        self.out += "}\n";
    }

    fn begin_cluster(&mut self, depth: usize, label: &str) {
        let indent = "  ".repeat(depth);
        let _ = writeln!(self.out, "{indent}subgraph cluster_{} {{", self.n_clusters);
        let _ = writeln!(self.out, "{indent}  label={};", quoted(label));
        self.n_clusters += 1;
    }

    fn end_cluster(&mut self, depth: usize) {
        let _ = writeln!(self.out, "{}}}", "  ".repeat(depth));
    }

    /// Nodes that share `depth` groups: those that are in no further one, and the rest by the next.
    fn group(&mut self, graph: &Graph, number: usize, nodes: &[usize], depth: usize) {
        let mut inner: Vec<(&str, Vec<usize>)> = Vec::new();
        for &index in nodes {
            let node = &graph.nodes[index];
            let Some(group) = node.groups.get(depth) else {
                self.node(number, index, node, depth);
                continue;
            };
            match inner.iter_mut().find(|(name, _)| name == group) {
                Some((_, members)) => members.push(index),
                None => inner.push((group, vec![index])),
            }
        }
        for (name, members) in inner {
            self.begin_cluster(depth + 2, name);
            self.group(graph, number, &members, depth + 1);
            self.end_cluster(depth + 2);
        }
    }

    fn node(&mut self, number: usize, index: usize, node: &Node, depth: usize) {
        let indent = "  ".repeat(depth + 2);
        let lines: Vec<&str> =
            [node.label.as_str()].into_iter().chain(node.outputs.iter().map(String::as_str)).collect();
        let tooltip: Vec<String> =
            node.attributes.iter().map(|a| format!("{}: {}", a.key, shortened(&a.value))).collect();
        let (label, tooltip) = (quoted(&lines.join("\n")), quoted(&tooltip.join("\n")));
        let _ = writeln!(self.out, "{indent}n{number}_{index} [label={label}, tooltip={tooltip}];");
    }

    fn edges(&mut self, number: usize, graph: &Graph) {
        for (index, node) in graph.nodes.iter().enumerate() {
            for edge in &node.inputs {
                let label = quoted(&edge.label);
                let from = edge.from;
                let _ = writeln!(self.out, "  n{number}_{from} -> n{number}_{index} [tooltip={label}];");
            }
        }
    }
}

/// Characters of an attribute that are shown.
const MAX_CHARS: usize = 200;

fn shortened(value: &str) -> String {
    match value.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// A string as DOT writes it. A backslash would begin an escape of labels, of which only `\n` is meant.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\0'], " ");
    format!("\"{}\"", text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_nested_clusters_and_strings_are_quoted() {
        let node = |groups: &[&str], from: &[usize]| Node {
            label: "a \"b\" \\".to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            inputs: from
                .iter()
                .map(|&from| super::super::graph::Edge { from, output: 0, label: String::new() })
                .collect(),
            ..Node::default()
        };
        let nodes = vec![node(&["p", "s"], &[]), node(&["p"], &[0]), node(&[], &[1])];
        let mut printer = Printer { out: String::new(), n_clusters: 0 };
        printer.graphs("x", &[Graph { name: "main".to_owned(), nodes }]);
        let clusters: Vec<&str> = printer.out.lines().filter(|line| line.contains("subgraph")).collect();
        assert_eq!(clusters, ["    subgraph cluster_0 {", "      subgraph cluster_1 {"]);
        assert!(printer.out.contains(r#"        n0_0 [label="a \"b\" \\", tooltip=""];"#), "{}", printer.out);
        assert!(printer.out.contains("  n0_0 -> n0_1 [") && printer.out.contains("  n0_1 -> n0_2 ["));
    }
}
