//! A program as a graph: a stage is a node in the group of its phase, a stream an edge from a stage that
//! writes rows of it to one that reads rows. DRAM segments are nodes too, but for the weights.

use strata_backend::model::graph::views_meet;
use strata_isa_spec::bundle::Machine;
use strata_isa_spec::program::Program;
use strata_isa_spec::{Head, SegmentKind, Stage, View};

use super::{Attribute, Edge, Graph, Node};

/// The graph of a program.
pub(super) fn graph(machine: &Machine) -> Graph {
    let program = &machine.program;
    let mut builder = Builder { machine, nodes: Vec::new(), segments: Vec::new(), writes: Vec::new() };
    for (index, segment) in program.segments.iter().enumerate() {
        let node = (segment.kind != SegmentKind::Weights).then(|| {
            let label = format!("segment {index}: {}", kind(segment.kind));
            let attributes = vec![Attribute::new("bytes", segment.bytes.to_string())];
            let outputs = vec![format!("{} bytes", segment.bytes)];
            builder.nodes.push(Node { label, attributes, outputs, ..Node::default() });
            builder.nodes.len() - 1
        });
        builder.segments.push(node);
    }
    for (index, phase) in program.phases.iter().enumerate() {
        let first = builder.nodes.len();
        for (at, stage) in phase.stages.iter().enumerate() {
            builder.write(first + at, stage);
            builder.nodes.push(builder.node(index, stage));
        }
        for (at, stage) in phase.stages.iter().enumerate() {
            builder.read(first + at, stage);
        }
    }
    Graph { name: "program".to_owned(), nodes: builder.nodes }
}

fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Weights => "weights",
        SegmentKind::Input => "input",
        SegmentKind::Output => "output",
        SegmentKind::Scratch => "scratch",
    }
}

/// Rows of a stream that a stage writes.
struct Write {
    node: usize,
    view: View,
}

struct Builder<'a> {
    machine: &'a Machine,
    nodes: Vec<Node>,
    /// The node of each segment that has one.
    segments: Vec<Option<usize>>,
    /// What the stages up to the phase that is visited write.
    writes: Vec<Write>,
}

impl Builder<'_> {
    fn node(&self, phase: usize, stage: &Stage) -> Node {
        let name = self.machine.names.get(stage.source as usize).map_or("", String::as_str);
        let mut attributes = vec![Attribute::new("layer", name)];
        let is_dma = matches!(stage.code.head, Head::DmaIn(_) | Head::DmaOut(_));
        if !is_dma {
            attributes.push(Attribute::new("partition", stage.partition.to_string()));
        }
        for tail in &stage.code.tail {
            attributes.push(Attribute::new("tail", tail.mnemonic()));
        }
        let out = &stage.code.out;
        let outputs = if out.rows > 0 { vec![described(&self.machine.program, out)] } else { Vec::new() };
        Node {
            label: if is_dma { name.to_owned() } else { format!("{name} ({})", stage.code.head.mnemonic()) },
            groups: vec![format!("phase {phase}")],
            attributes,
            outputs,
            ..Node::default()
        }
    }

    fn write(&mut self, node: usize, stage: &Stage) {
        if stage.code.out.rows > 0 {
            let views = self.machine.program.parts(&stage.code.out).into_iter();
            self.writes.extend(views.map(|view| Write { node, view }));
        }
    }

    /// Adds the edges to a stage from whatever gives what it reads, and to the segment that it stores to.
    fn read(&mut self, node: usize, stage: &Stage) {
        let program = &self.machine.program;
        let mut edges: Vec<Edge> = Vec::new();
        for view in stage.code.reads() {
            let label = described(program, &view);
            let parts = program.parts(&view);
            let gives = |write: &&Write| parts.iter().any(|part| views_meet(part, &write.view));
            for from in self.writes.iter().filter(gives).map(|write| write.node) {
                let edge = Edge { from, output: 0, label: label.clone() };
                if !edges.contains(&edge) {
                    edges.push(edge);
                }
            }
        }
        let segment = |number: u32| self.segments.get(number as usize).copied().flatten();
        match &stage.code.head {
            Head::DmaIn(dma) => edges.extend(segment(dma.segment).map(|from| {
                let label = described(program, &stage.code.out);
                Edge { from, output: 0, label }
            })),
            Head::DmaOut(dma) => {
                let label = described(program, &dma.src);
                if let Some(to) = segment(dma.segment) {
                    self.nodes[node].outputs = vec![label.clone()];
                    self.nodes[to].inputs.push(Edge { from: node, output: 0, label });
                }
            }
            _ => {}
        }
        self.nodes[node].inputs = edges;
    }
}

/// A view as the stream and the extents that are moved.
fn described(program: &Program, view: &View) -> String {
    let elem = program.streams.get(view.tensor as usize).map(|stream| match stream.elem.size_bytes() {
        1 => "i8",
        2 => "i16",
        _ => "i32",
    });
    format!("stream {}: {}x{}x{}x{}", view.tensor, view.rows, view.cols, view.chs, elem.unwrap_or("?"))
}
