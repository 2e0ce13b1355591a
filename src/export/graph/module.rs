//! The functions of a module as graphs: an op is a node, a phase or a stage a group.

use std::collections::BTreeMap;

use strata_ir::text::print::attribute_to_string;
use strata_ir::{BlockId, Module, Op, OpId, ValueId};

use super::{Attribute, Edge, Graph, Node};

/// The graph of each function.
pub(super) fn graphs(module: &Module) -> Vec<Graph> {
    module.functions().into_iter().map(|func| graph(module, func)).collect()
}

fn graph(module: &Module, func: OpId) -> Graph {
    let mut builder =
        Builder { module, graph: Graph::default(), values: BTreeMap::new(), n_phases: 0, groups: Vec::new() };
    if let Op::Func(function) = &module.op(func).op {
        builder.graph.name.clone_from(&function.sym_name);
    }
    let body = module.entry_block(func);
    for (index, &argument) in module.args(body).iter().enumerate() {
        let outputs = vec![module.ty(argument).to_string()];
        let label = format!("input {index}");
        builder.push(Node { label, outputs, ..Node::default() }, &[argument]);
    }
    builder.block(body);
    builder.graph
}

/// A value as what a node gives.
#[derive(Clone, Copy)]
struct Given {
    node: usize,
    output: usize,
}

struct Builder<'a> {
    module: &'a Module,
    graph: Graph,
    /// What gives each value; constants are not in it.
    values: BTreeMap<ValueId, Given>,
    /// Phases that have been visited.
    n_phases: usize,
    /// The phases and stages that enclose what is visited.
    groups: Vec<String>,
}

impl Builder<'_> {
    fn block(&mut self, block: BlockId) {
        for &op in self.module.block_ops(block) {
            let data = self.module.op(op);
            match &data.op {
                Op::Phase(_) => {
                    self.wrapper(op, format!("phase {}", self.n_phases));
                    self.n_phases += 1;
                }
                Op::Stage(stage) => self.wrapper(op, stage.name.clone()),
                Op::Yield(_) => {}
                op if op.is_constant() => {}
                _ => self.op(op),
            }
        }
    }

    /// What stands in a phase or a stage: its arguments are its operands, its results what it yields.
    fn wrapper(&mut self, op: OpId, name: String) {
        let data = self.module.op(op);
        let body = self.module.entry_block(op);
        self.alias(self.module.args(body), data.operands());
        self.groups.push(name);
        self.block(body);
        self.groups.pop();
        if let Some(end) = self.module.terminator(body) {
            self.alias(data.results(), self.module.op(end).operands());
        }
    }

    fn alias(&mut self, values: &[ValueId], same: &[ValueId]) {
        for (&value, same) in values.iter().zip(same) {
            if let Some(&given) = self.values.get(same) {
                self.values.insert(value, given);
            }
        }
    }

    fn op(&mut self, op: OpId) {
        let data = self.module.op(op);
        let name = data.op.name();
        let label = name.rsplit_once('.').map_or(name, |(_, short)| short).to_owned();
        let mut attributes = Vec::new();
        attributes.extend(data.loc.name().map(|place| Attribute::new("layer", place)));
        for (key, value) in data.op.attrs() {
            attributes.push(Attribute::new(key, attribute_to_string(&value)));
        }
        let mut inputs = Vec::new();
        for (index, value) in data.operands().iter().enumerate() {
            let ty = self.module.ty(*value).to_string();
            match self.values.get(value) {
                Some(given) => inputs.push(Edge { from: given.node, output: given.output, label: ty }),
                None => attributes.push(Attribute::new(format!("operand {index}"), format!("constant {ty}"))),
            }
        }
        let outputs = data.results().iter().map(|&value| self.module.ty(value).to_string()).collect();
        let groups = if self.groups.is_empty() { scopes(data.loc.name()) } else { self.groups.clone() };
        self.push(Node { label, groups, inputs, attributes, outputs }, data.results());
    }

    fn push(&mut self, node: Node, results: &[ValueId]) {
        let index = self.graph.nodes.len();
        for (output, &value) in results.iter().enumerate() {
            self.values.insert(value, Given { node: index, output });
        }
        self.graph.nodes.push(node);
    }
}

/// The scopes that the name of a layer has, as exporters write them: `/block/conv/Conv` is in two.
fn scopes(layer: Option<&str>) -> Vec<String> {
    let parts: Vec<&str> = layer.unwrap_or_default().split('/').filter(|part| !part.is_empty()).collect();
    let enclosing = parts.split_last().map_or(&[][..], |(_, enclosing)| enclosing);
    enclosing.iter().map(|&scope| scope.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        func.func @main(%x: tensor<1x2x2x1xi8>) -> (tensor<1x2x2x1xi8>) {
          %0 = "strata.phase"() ({
            %1 = "strata.stage"(%x) <{name = "a"}> ({
            ^bb0(%arg: tensor<1x2x2x1xi8>):
              %zero = "tosa.const"() <{values = dense<0> : tensor<1x2x2x1xi8>}> : () -> tensor<1x2x2x1xi8>
              %sum = "tosa.maximum"(%arg, %zero)
                  : (tensor<1x2x2x1xi8>, tensor<1x2x2x1xi8>) -> tensor<1x2x2x1xi8>
              "strata.yield"(%sum) : (tensor<1x2x2x1xi8>) -> ()
            }) : (tensor<1x2x2x1xi8>) -> tensor<1x2x2x1xi8>
            "strata.yield"(%1) : (tensor<1x2x2x1xi8>) -> ()
          }) : () -> tensor<1x2x2x1xi8>
          return %0 : tensor<1x2x2x1xi8>
        }
    "#;

    #[test]
    fn edges_lead_through_stages_and_phases_and_constants_are_attributes() {
        let module = strata_ir::text::parse(TEXT, None).expect("a module");
        let [graph] = &graphs(&module)[..] else { panic!("there is one function") };
        let labels: Vec<&str> = graph.nodes.iter().map(|node| node.label.as_str()).collect();
        assert_eq!(labels, ["input 0", "maximum", "return"]);
        let maximum = &graph.nodes[1];
        assert_eq!(maximum.groups, ["phase 0", "a"]);
        assert_eq!(maximum.inputs.iter().map(|edge| edge.from).collect::<Vec<_>>(), [0]);
        assert_eq!(graph.nodes[2].inputs.iter().map(|edge| edge.from).collect::<Vec<_>>(), [1]);
        let constant = Attribute::new("operand 1", "constant tensor<1x2x2x1xi8>");
        assert!(maximum.attributes.contains(&constant), "{:?}", maximum.attributes);
    }

    #[test]
    fn scopes_are_those_of_the_layers_name() {
        assert_eq!(scopes(Some("/block/conv/Conv")), ["block", "conv"]);
        assert!(scopes(Some("conv")).is_empty() && scopes(None).is_empty());
    }
}
