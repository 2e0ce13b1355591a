//! Phases as functions of the model.

use std::collections::BTreeSet;

use super::emitter::Placed;
use super::pb::FunctionProto;
use super::{DOMAIN, NodeProto, OPSET, OperatorSetIdProto};

/// The nodes of the graph, and the functions that some of them call.
pub(super) struct Split {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) functions: Vec<FunctionProto>,
}

/// Puts the nodes of each phase, which follow each other, into a function that takes all that they read, the
/// weights included, and gives what others read.
pub(super) fn split(placed: Vec<Placed>, outputs: &[String]) -> Split {
    let mut split = Split { nodes: Vec::new(), functions: Vec::new() };
    // Which phase reads a tensor; what is read in no phase is read by the graph.
    let mut readers: BTreeSet<(String, Option<usize>)> =
        outputs.iter().map(|output| (output.clone(), None)).collect();
    for Placed { node, phase } in &placed {
        readers.extend(node.input.iter().map(|input| (input.clone(), *phase)));
    }
    let mut rest = placed.into_iter().peekable();
    while let Some(Placed { node, phase }) = rest.next() {
        let Some(phase) = phase else {
            split.nodes.push(node);
            continue;
        };
        let mut body = vec![node];
        while let Some(next) = rest.next_if(|next| next.phase == Some(phase)) {
            body.push(next.node);
        }
        let is_read_outside = |name: &&String| {
            let of = readers.range(((*name).clone(), None)..).take_while(|(read, _)| read == *name);
            of.into_iter().any(|(_, reader)| *reader != Some(phase))
        };
        let made: BTreeSet<&String> = body.iter().flat_map(|node| &node.output).collect();
        let mut seen = BTreeSet::new();
        let read = body.iter().flat_map(|node| &node.input);
        let input: Vec<String> =
            read.filter(|name| !made.contains(name) && seen.insert(*name)).cloned().collect();
        let output: Vec<String> =
            body.iter().flat_map(|node| &node.output).filter(is_read_outside).cloned().collect();
        let name = format!("phase_{phase}");
        split.nodes.push(NodeProto {
            domain: DOMAIN.to_owned(),
            ..super::proto::node(&name, input.clone(), output.clone())
        });
        split.functions.push(FunctionProto {
            name: Some(name),
            domain: Some(DOMAIN.to_owned()),
            input,
            output,
            node: body,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            ..FunctionProto::default()
        });
    }
    split
}
