//! Typed access to the nodes of the protobuf graph.

use std::collections::BTreeSet;

use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType};

use super::array::Array;
use super::error::{Lowered, invalid, unsupported};
use super::layout::Value;

/// One node with its operands resolved.
pub(super) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    /// Version of ONNX's own operator set that the node is of.
    pub(super) opset: i64,
    /// Operands in order; `None` for optional ones that are left out.
    pub(super) inputs: Vec<Option<Value>>,
    /// Names of all tensors that a node or an output of the graph uses.
    pub(super) used: &'a BTreeSet<&'a str>,
}

/// The attribute that states of which version of ONNX's own operator set a node is, where that is not the
/// model's: what comes out of a function may be older or newer.
pub(super) const OPSET_ATTRIBUTE: &str = "strata.opset";

/// The version of ONNX's own operator set that a node is of, in a model of version `models`.
pub(crate) fn opset_of(proto: &NodeProto, models: i64) -> i64 {
    proto.attribute.iter().find(|attribute| attribute.name == OPSET_ATTRIBUTE).map_or(models, |a| a.i)
}

impl<'a> Node<'a> {
    /// Operand `index`, which must be there.
    pub(super) fn input(&self, index: usize) -> Lowered<&Value> {
        match self.optional_input(index) {
            Some(value) => Ok(value),
            None => invalid!("operand {index} is missing"),
        }
    }

    /// Operand `index`, if it is there.
    pub(super) fn optional_input(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// Operand `index`, which must be constant.
    pub(super) fn constant(&self, index: usize, what: &str) -> Lowered<&Array> {
        match self.input(index)? {
            Value::Const(array) => Ok(array),
            Value::View(_) => unsupported!("{what} is computed at run time; it has to be constant"),
        }
    }

    /// Operand `index`, which must be constant if it is there.
    pub(super) fn optional_constant(&self, index: usize, what: &str) -> Lowered<Option<&Array>> {
        match self.optional_input(index) {
            Some(_) => self.constant(index, what).map(Some),
            None => Ok(None),
        }
    }

    /// All operands, none of which may be left out.
    pub(super) fn all_inputs(&self) -> Lowered<Vec<Value>> {
        (0..self.inputs.len()).map(|i| self.input(i).cloned()).collect()
    }

    /// How many outputs are named.
    pub(super) fn n_outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Whether anything uses output `index`.
    pub(super) fn has_output(&self, index: usize) -> bool {
        self.proto.output.get(index).is_some_and(|name| self.used.contains(name.as_str()))
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Lowered<Option<&'a AttributeProto>> {
        let Some(attr) = self.proto.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        if attr.r#type != kind as i32 && attr.r#type != AttributeType::Undefined as i32 {
            invalid!("attribute `{name}` is not of type {kind:?}");
        }
        Ok(Some(attr))
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Lowered<i64> {
        Ok(self.attribute(name, AttributeType::Int)?.map_or(default, |a| a.i))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Lowered<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Lowered<f32> {
        Ok(self.attribute(name, AttributeType::Float)?.map_or(default, |a| a.f))
    }

    pub(super) fn optional_float(&self, name: &str) -> Lowered<Option<f32>> {
        Ok(self.attribute(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub(super) fn ints(&self, name: &str) -> Lowered<Option<&'a [i64]>> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|a| &a.ints[..]))
    }

    pub(super) fn floats(&self, name: &str) -> Lowered<Option<&'a [f32]>> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|a| &a.floats[..]))
    }

    pub(super) fn string(&self, name: &str, default: &str) -> Lowered<String> {
        match self.attribute(name, AttributeType::String)? {
            None => Ok(default.to_owned()),
            Some(attr) => match String::from_utf8(attr.s.clone()) {
                Ok(text) => Ok(text),
                Err(_) => invalid!("attribute `{name}` is not UTF-8"),
            },
        }
    }

    pub(super) fn strings(&self, name: &str) -> Lowered<Option<Vec<String>>> {
        let Some(attr) = self.attribute(name, AttributeType::Strings)? else { return Ok(None) };
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone());
        match attr.strings.iter().map(text).collect::<Result<Vec<_>, _>>() {
            Ok(texts) => Ok(Some(texts)),
            Err(_) => invalid!("attribute `{name}` is not UTF-8"),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Lowered<Option<&'a TensorProto>> {
        match self.attribute(name, AttributeType::Tensor)? {
            None => Ok(None),
            Some(AttributeProto { t: Some(tensor), .. }) => Ok(Some(tensor)),
            Some(_) => invalid!("attribute `{name}` holds no tensor"),
        }
    }

    /// Axes given as an attribute in older operator sets and as operand `index` in newer ones.
    pub(super) fn axes(&self, index: usize, rank: usize) -> Lowered<Option<Vec<usize>>> {
        let given = match self.ints("axes")? {
            Some(axes) => Some(axes.to_vec()),
            None => match self.optional_constant(index, "the list of axes")? {
                Some(array) => Some(array.as_ints()?.to_vec()),
                None => None,
            },
        };
        given.map(|axes| axes.iter().map(|&axis| resolve_axis(axis, rank)).collect()).transpose()
    }
}

/// An axis counted from the front; negative ones count from the back.
pub(super) fn resolve_axis(axis: i64, rank: usize) -> Lowered<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(resolved) if resolved < rank => Ok(resolved),
        _ => invalid!("axis {axis} of a tensor of rank {rank}"),
    }
}
