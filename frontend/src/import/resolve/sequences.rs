//! Sequences and optional values whose elements are known by name.
//!
//! A node that makes a sequence stays in the graph, for readers that this module does not replace; it is
//! dropped with all that no result depends on.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::control::MAX_UNROLLED;
use super::expand::{Expander, int, int_attribute, ints_attribute, plain, subgraph};
use crate::import::array::Array;
use crate::import::error::node_name;
use crate::import::graph::resolve_axis;

impl Expander {
    /// Replaces a node that reads sequences or optional values, or keeps track of what it makes. Whether the
    /// node has been dealt with.
    pub(super) fn sequence(&mut self, node: &NodeProto) -> bool {
        match node.op_type.as_str() {
            "SequenceEmpty" => self.made(node, Some(Vec::new())),
            "SequenceConstruct" => self.made(node, Some(node.input.clone())),
            "SequenceInsert" => {
                let list = self.inserted(node);
                self.made(node, list)
            }
            "SequenceErase" => {
                let list = self.erased(node);
                self.made(node, list)
            }
            "SplitToSequence" => {
                let list = self.split(node);
                self.made(node, list)
            }
            "SequenceMap" => self.map(node).is_some(),
            "SequenceAt" => self.at(node).is_some(),
            "SequenceLength" => self.length(node).is_some(),
            "ConcatFromSequence" => self.concat(node).is_some(),
            "Optional" => self.optional(node),
            "OptionalHasElement" => self.has_element(node).is_some(),
            "OptionalGetElement" => self.get_element(node).is_some(),
            "Identity" => self.copied(node).is_some(),
            _ => false,
        }
    }

    /// Adds a node that makes a sequence, of `list` if that is known.
    fn made(&mut self, node: &NodeProto, list: Option<Vec<String>>) -> bool {
        self.emit(node.clone());
        if let (Some(output), Some(list)) = (node.output.first(), list) {
            self.sequences.insert(output.clone(), list);
        }
        true
    }

    fn list(&self, node: &NodeProto, at: usize) -> Option<&Vec<String>> {
        self.sequences.get(node.input.get(at)?)
    }

    /// The place in a sequence of `n` that operand `at` means, `otherwise` if it is absent.
    fn place(&self, node: &NodeProto, at: usize, n: usize, otherwise: usize) -> Option<usize> {
        match node.input.get(at).filter(|name| !name.is_empty()) {
            None => Some(otherwise),
            Some(name) => {
                let position = self.integer(name)?;
                usize::try_from(if position < 0 { position + n as i64 } else { position }).ok()
            }
        }
    }

    fn inserted(&self, node: &NodeProto) -> Option<Vec<String>> {
        let mut list = self.list(node, 0)?.clone();
        let place = self.place(node, 2, list.len(), list.len()).filter(|&place| place <= list.len())?;
        list.insert(place, node.input.get(1)?.clone());
        Some(list)
    }

    fn erased(&self, node: &NodeProto) -> Option<Vec<String>> {
        let mut list = self.list(node, 0)?.clone();
        let last = list.len().checked_sub(1)?;
        let place = self.place(node, 1, list.len(), last).filter(|&place| place < list.len())?;
        list.remove(place);
        Some(list)
    }

    /// The parts of a tensor, which a `Split` gives.
    fn split(&mut self, node: &NodeProto) -> Option<Vec<String>> {
        let (input, output) = (node.input.first()?, node.output.first()?);
        let shape = self.values.get(input)?.shape().to_vec();
        let axis = resolve_axis(int(node, "axis").unwrap_or(0), shape.len()).ok()?;
        let extent = shape[axis];
        let given = node.input.get(1).filter(|name| !name.is_empty());
        let sizes: Vec<i64> = match given {
            None => vec![1; extent],
            Some(name) => {
                let sizes = self.known(name)?;
                match (sizes.shape.is_empty(), sizes.as_ints().ok()?) {
                    // One number is the size of all parts but perhaps the last.
                    (true, &[size]) if size > 0 => {
                        let starts = (0..extent as i64).step_by(usize::try_from(size).ok()?);
                        starts.map(|start| size.min(extent as i64 - start)).collect()
                    }
                    (true, _) => return None,
                    (false, sizes) => sizes.to_vec(),
                }
            }
        };
        if sizes.is_empty() || sizes.len() > MAX_UNROLLED {
            return None;
        }
        let squeezes = given.is_none() && int(node, "keepdims") == Some(0);
        let parts: Vec<String> = sizes.iter().map(|_| self.fresh(&format!("{output}/part"))).collect();
        let mut operands = vec![input.clone()];
        let mut attributes = vec![int_attribute("axis", axis as i64)];
        if self.opset < 13 {
            attributes.push(ints_attribute("split", sizes));
        } else {
            operands.push(self.add_constant(Array::vector(sizes), &format!("{output}/sizes")));
        }
        self.emit(plain("Split", operands, parts.clone(), attributes));
        if !squeezes {
            return Some(parts);
        }
        let mut elements = Vec::new();
        for part in &parts {
            let element = self.fresh(&format!("{output}/element"));
            self.with_axes("Squeeze", part, axis as i64, &element);
            elements.push(element);
        }
        Some(elements)
    }

    fn at(&mut self, node: &NodeProto) -> Option<()> {
        let list = self.list(node, 0)?;
        let place = self.place(node, 1, list.len(), list.len())?;
        let element = list.get(place)?.clone();
        self.alias(&node.output, vec![element]);
        Some(())
    }

    fn length(&mut self, node: &NodeProto) -> Option<()> {
        let n = self.list(node, 0)?.len() as i64;
        self.define(Array::ints([], vec![n], DataType::Int64), node.output.first()?);
        Some(())
    }

    fn concat(&mut self, node: &NodeProto) -> Option<()> {
        let list = self.list(node, 0).filter(|list| !list.is_empty())?.clone();
        let (axis, output) = (int(node, "axis")?, node.output.first()?);
        if int(node, "new_axis") == Some(1) {
            self.stack(&list, axis, output);
        } else {
            self.emit(plain("Concat", list, vec![output.clone()], vec![int_attribute("axis", axis)]));
        }
        Some(())
    }

    /// A copy of the body of a `SequenceMap` for each element.
    fn map(&mut self, node: &NodeProto) -> Option<()> {
        let body = subgraph(node, "body")?;
        let n = self.list(node, 0)?.len();
        if body.input.len() != node.input.len()
            || node.input.iter().any(|name| self.sequences.get(name).is_some_and(|list| list.len() != n))
        {
            return None;
        }
        self.n_unrolled += n * (1 + body.node.len());
        if self.n_unrolled > MAX_UNROLLED {
            return None;
        }
        let mut lists = vec![Vec::new(); node.output.len()];
        for at in 0..n {
            let element = |name: &String| self.sequences.get(name).map_or(name, |list| &list[at]).clone();
            let inputs: Vec<String> = node.input.iter().map(element).collect();
            let outputs = self.inline(body, &inputs, &format!("{}/{at}", node_name(node)));
            lists.iter_mut().zip(outputs).for_each(|(list, output)| list.push(output));
        }
        self.emit(node.clone());
        self.sequences.extend(node.output.iter().cloned().zip(lists));
        Some(())
    }

    fn optional(&mut self, node: &NodeProto) -> bool {
        self.emit(node.clone());
        if let Some(output) = node.output.first() {
            let element = node.input.first().filter(|name| !name.is_empty()).cloned();
            self.optionals.insert(output.clone(), element);
        }
        true
    }

    fn has_element(&mut self, node: &NodeProto) -> Option<()> {
        let has = match node.input.first().filter(|name| !name.is_empty()) {
            None => false,
            Some(name) => self.element(name)?.is_some(),
        };
        self.define(Array::bools([], vec![has]), node.output.first()?);
        Some(())
    }

    fn get_element(&mut self, node: &NodeProto) -> Option<()> {
        let element = self.element(node.input.first()?)??;
        self.alias(&node.output, vec![element]);
        Some(())
    }

    /// What an optional value holds, or the tensor or sequence itself if `name` is one's.
    fn element(&self, name: &str) -> Option<Option<String>> {
        let is_element = self.values.contains_key(name) || self.sequences.contains_key(name);
        self.optionals.get(name).cloned().or_else(|| is_element.then(|| Some(name.to_owned())))
    }

    /// A copy of a sequence or an optional value.
    fn copied(&mut self, node: &NodeProto) -> Option<()> {
        let name = node.input.first()?;
        if !self.sequences.contains_key(name) && !self.optionals.contains_key(name) {
            return None;
        }
        self.alias(&node.output, vec![name.clone()]);
        Some(())
    }
}
