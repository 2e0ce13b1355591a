//! `Loop` and `Scan` whose number of turns is known: a copy of the body for each.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto, type_proto};

use super::control::MAX_UNROLLED;
use super::expand::{Expander, int, int_attribute, ints, ints_attribute, plain, subgraph};
use super::visit::each_node;
use crate::import::array::Array;
use crate::import::error::node_name;
use crate::import::graph::resolve_axis;

/// How the results of the turns of a loop are put together.
struct Stacked {
    /// The result of each turn.
    turns: Vec<String>,
    /// The new axis along which they stand.
    axis: i64,
}

impl Expander {
    /// Copies of the body of a `Loop`, if its number of turns is known and all is within bounds.
    pub(super) fn unroll(&mut self, node: &NodeProto) -> bool {
        let mark = self.mark();
        let unrolled = self.turns(node);
        let done = unrolled.is_some_and(|(states, stacked)| self.finish_loop(node, states, stacked, "body"));
        if !done {
            self.return_to(&mark);
        }
        done
    }

    /// The states after the last turn of a `Loop`, and what each turn gave.
    fn turns(&mut self, node: &NodeProto) -> Option<(Vec<String>, Vec<Stacked>)> {
        let body = subgraph(node, "body")?;
        let given = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
        let limit = given(0).map(|name| self.integer(name).ok_or(())).transpose().ok()?;
        let mut goes_on = given(1).map_or(Some(true), |name| self.condition(name))?;
        let mut states = node.input.get(2..)?.to_vec();
        let n_stacked = body.output.len().checked_sub(1 + states.len())?;
        if body.input.len() != 2 + states.len() {
            return None;
        }
        // A loop that runs to its limit is known to be too long before it is begun.
        if ends_by_limit(body)
            && limit.is_some_and(|limit| usize::try_from(limit).is_ok_and(|limit| limit > MAX_UNROLLED))
        {
            return None;
        }
        let mut stacked: Vec<_> = (0..n_stacked).map(|_| Stacked { turns: Vec::new(), axis: 0 }).collect();
        let mut turn = 0;
        while goes_on && limit.is_none_or(|limit| turn < limit) {
            self.count(body)?;
            let prefix = format!("{}/{turn}", node_name(node));
            let index = Array::ints(scalar_or_one(body, 0), vec![turn], DataType::Int64);
            let mut inputs = vec![self.add_constant(index, &format!("{prefix}/turn"))];
            let condition = Array::bools(scalar_or_one(body, 1), vec![true]);
            inputs.push(self.add_constant(condition, &format!("{prefix}/condition")));
            inputs.append(&mut states);
            let outputs = self.inline(body, &inputs, &prefix);
            let (condition, results) = outputs.split_first()?;
            goes_on = self.condition(condition)?;
            let (next, gives) = results.split_at_checked(inputs.len() - 2)?;
            states = next.to_vec();
            stacked.iter_mut().zip(gives).for_each(|(all, one)| all.turns.push(one.clone()));
            turn += 1;
        }
        Some((states, stacked))
    }

    /// Copies of the body of a `Scan`, if the extents that it scans are known and all is within bounds.
    pub(super) fn scan(&mut self, node: &NodeProto) -> bool {
        // Before operator set 9 it had a batch.
        if self.opset < 9 {
            return false;
        }
        let mark = self.mark();
        let unrolled = self.steps(node);
        let done = unrolled.is_some_and(|(states, stacked)| self.finish_loop(node, states, stacked, "body"));
        if !done {
            self.return_to(&mark);
        }
        done
    }

    fn steps(&mut self, node: &NodeProto) -> Option<(Vec<String>, Vec<Stacked>)> {
        let body = subgraph(node, "body")?;
        let n_scanned = usize::try_from(int(node, "num_scan_inputs")?).ok().filter(|&n| n > 0)?;
        let n_states = node.input.len().checked_sub(n_scanned)?;
        let n_stacked = body.output.len().checked_sub(n_states)?;
        if body.input.len() != node.input.len() {
            return None;
        }
        let list =
            |name: &str, at: usize| ints(node, name).and_then(|list| list.get(at)).copied().unwrap_or(0);
        let mut extent = None;
        for at in 0..n_scanned {
            let shape = self.values.get(&node.input[n_states + at])?.shape();
            let axis = resolve_axis(list("scan_input_axes", at), shape.len()).ok()?;
            if extent.is_some_and(|extent| extent != shape[axis]) {
                return None;
            }
            extent = Some(shape[axis]);
        }
        let extent = extent?;
        let mut states = node.input[..n_states].to_vec();
        let axis = |at: usize| list("scan_output_axes", at);
        let mut stacked: Vec<_> =
            (0..n_stacked).map(|at| Stacked { turns: Vec::new(), axis: axis(at) }).collect();
        for turn in 0..extent {
            self.count(body)?;
            let prefix = format!("{}/{turn}", node_name(node));
            let mut inputs = std::mem::take(&mut states);
            for at in 0..n_scanned {
                let from_end = list("scan_input_directions", at) == 1;
                let index = if from_end { extent - 1 - turn } else { turn } as i64;
                let index = Array::ints([], vec![index], DataType::Int64);
                let index = self.add_constant(index, &format!("{prefix}/index"));
                let element = self.fresh(&format!("{prefix}/element"));
                let axis = int_attribute("axis", list("scan_input_axes", at));
                let operands = vec![node.input[n_states + at].clone(), index];
                self.emit(plain("Gather", operands, vec![element.clone()], vec![axis]));
                inputs.push(element);
            }
            let outputs = self.inline(body, &inputs, &prefix);
            let (next, gives) = outputs.split_at_checked(n_states)?;
            states = next.to_vec();
            stacked.iter_mut().zip(gives).for_each(|(all, one)| all.turns.push(one.clone()));
        }
        for (at, stacked) in stacked.iter_mut().enumerate() {
            if list("scan_output_directions", at) == 1 {
                stacked.turns.reverse();
            }
        }
        Some((states, stacked))
    }

    /// Counts the nodes of one more copy of a body; `None` if they are too many.
    fn count(&mut self, body: &GraphProto) -> Option<()> {
        let mut n = 1;
        each_node(&body.node, &mut |_| n += 1);
        self.n_unrolled += n;
        (self.n_unrolled <= MAX_UNROLLED).then_some(())
    }

    /// Lets the results of a loop stand for the last states and for what its turns gave, put together.
    fn finish_loop(
        &mut self,
        node: &NodeProto,
        states: Vec<String>,
        stacked: Vec<Stacked>,
        body: &str,
    ) -> bool {
        let Some((last, all)) = node.output.split_at_checked(states.len().min(node.output.len())) else {
            return false;
        };
        let first_stacked = subgraph(node, body).map_or(0, |body| body.output.len() - stacked.len());
        for (at, (output, stacked)) in all.iter().zip(stacked).enumerate() {
            if output.is_empty() {
                continue;
            }
            if stacked.turns.is_empty() {
                let info = subgraph(node, body).and_then(|body| body.output.get(first_stacked + at));
                let Some(empty) = info.and_then(|info| nothing_of(info, stacked.axis)) else { return false };
                self.define(empty, output);
                continue;
            }
            self.stack(&stacked.turns, stacked.axis, output);
        }
        self.alias(last, states);
        true
    }

    /// Puts tensors side by side along a new axis.
    pub(super) fn stack(&mut self, tensors: &[String], axis: i64, output: &str) {
        let mut parts = Vec::new();
        for tensor in tensors {
            let part = self.fresh(&format!("{output}/part"));
            self.with_axes("Unsqueeze", tensor, axis, &part);
            parts.push(part);
        }
        self.emit(plain("Concat", parts, vec![output.to_owned()], vec![int_attribute("axis", axis)]));
    }

    /// A node that takes an axis as an attribute, or from operator set 13 on as an operand.
    pub(super) fn with_axes(&mut self, op: &str, tensor: &str, axis: i64, output: &str) {
        let mut operands = vec![tensor.to_owned()];
        let mut attributes = Vec::new();
        if self.opset < 13 {
            attributes.push(ints_attribute("axes", vec![axis]));
        } else {
            operands.push(self.add_constant(Array::vector(vec![axis]), &format!("{output}/axis")));
        }
        self.emit(plain(op, operands, vec![output.to_owned()], attributes));
    }
}

/// Whether the body of a `Loop` hands its condition on as it is.
fn ends_by_limit(body: &GraphProto) -> bool {
    let (Some(given), Some(result)) = (body.input.get(1), body.output.first()) else { return false };
    let copies = |node: &NodeProto| {
        node.op_type == "Identity"
            && node.input.first() == Some(&given.name)
            && node.output.contains(&result.name)
    };
    given.name == result.name || body.node.iter().any(copies)
}

/// The shape of one element as input `at` of a body declares it: that of a scalar, or of a vector of one.
fn scalar_or_one(body: &GraphProto, at: usize) -> Vec<usize> {
    let rank = body.input.get(at).and_then(|info| match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref().map(|shape| shape.dim.len()),
    });
    vec![1; rank.unwrap_or(0)]
}

/// No tensors of a declared shape, put together along a new axis.
fn nothing_of(info: &ValueInfoProto, axis: i64) -> Option<Array> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let extents = tensor.shape.as_ref()?.dim.iter().map(|dim| match dim.value {
        Some(dimension::Value::DimValue(extent)) => usize::try_from(extent).ok(),
        _ => None,
    });
    let mut shape = extents.collect::<Option<Vec<_>>>()?;
    let axis = resolve_axis(axis, shape.len() + 1).ok()?;
    shape.insert(axis, 0);
    Array::empty(shape, DataType::try_from(tensor.elem_type).ok()?).ok()
}
