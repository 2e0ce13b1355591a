//! One float type inside: half precision, bfloat16 and double precision become single precision everywhere in
//! a model.
//!
//! The machine computes in integers, and the IR's only floats are `f32`. So constants are converted, casts
//! between floats become casts to `f32`, and inputs and outputs are declared as `f32`; what they were is
//! remembered, for whoever hands tensors in and out. What a half-precision model rounds or overflows on the
//! way is therefore not reproduced: results are those of the same network in single precision.

use std::collections::BTreeMap;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::visit::{each_graph_mut, each_node_mut, each_tensor_mut};
use crate::import::array::Array;
use crate::import::error::{Lowered, Problems, node_name};

/// Attributes that name the element type of a result.
const TYPE_ATTRIBUTES: [&str; 4] = ["to", "dtype", "output_dtype", "output_datatype"];

/// Element types of inputs and outputs that were floats other than `f32`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::import) struct FloatTypes(BTreeMap<String, DataType>);

impl FloatTypes {
    /// The element type of an input or output as a user sees it, where it is not that of the resolved model.
    ///
    /// NumPy has no bfloat16, so tensors of that type are seen as `f32`, which holds all its values.
    pub(in crate::import) fn user_dtype(&self, name: &str) -> Option<&'static str> {
        match self.0.get(name)? {
            DataType::Float16 => Some("f16"),
            DataType::Double => Some("f64"),
            _ => None,
        }
    }
}

fn is_other_float(dtype: i32) -> bool {
    let floats = [DataType::Float16, DataType::Bfloat16, DataType::Double];
    floats.iter().any(|&float| float as i32 == dtype)
}

/// Makes all floats of a model `f32`; gives the element types of inputs and outputs that were others.
pub(super) fn unify(model: &mut ModelProto, problems: &mut Problems) -> FloatTypes {
    each_tensor_mut(model, &mut |tensor, place| {
        if is_other_float(tensor.data_type)
            && tensor.data_location != Some(DataLocation::External as i32)
            && let Err(error) = convert(tensor)
        {
            problems.lowering(place, "tensor", "", error);
        }
    });
    let mut types = BTreeMap::new();
    let Some(graph) = &mut model.graph else { return FloatTypes(types) };
    for info in graph.input.iter().chain(&graph.output) {
        if let Some(dtype) = element_type(info).filter(|&dtype| is_other_float(dtype))
            && let Ok(dtype) = DataType::try_from(dtype)
        {
            types.insert(info.name.clone(), dtype);
        }
    }
    each_node_mut(&mut graph.node, &mut |node| retype(node, problems));
    each_graph_mut(graph, &mut |graph| {
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.for_each(redeclare);
    });
    FloatTypes(types)
}

fn convert(tensor: &mut TensorProto) -> Lowered<()> {
    let name = std::mem::take(&mut tensor.name);
    *tensor = Array { dtype: DataType::Float, ..Array::decode(tensor)? }.encode(&name);
    Ok(())
}

/// Makes a node give `f32` where it is told to give another float.
fn retype(node: &mut NodeProto, problems: &mut Problems) {
    let (name, op) = (node_name(node).to_owned(), node.op_type.clone());
    for attribute in &mut node.attribute {
        if !TYPE_ATTRIBUTES.contains(&attribute.name.as_str()) {
            continue;
        }
        // Up to operator set 5 types were named.
        if attribute.r#type == AttributeType::String as i32 && op == "Cast" {
            if matches!(&attribute.s[..], b"FLOAT16" | b"BFLOAT16" | b"DOUBLE") {
                attribute.s = b"FLOAT".to_vec();
            }
            continue;
        }
        if !i32::try_from(attribute.i).is_ok_and(is_other_float) {
            continue;
        }
        if op == "BitCast" {
            problems.unsupported(&name, &op, "bits of floats other than f32");
        }
        attribute.i = DataType::Float as i64;
    }
}

fn element_type(info: &ValueInfoProto) -> Option<i32> {
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor.elem_type),
    }
}

fn redeclare(info: &mut ValueInfoProto) {
    let value = info.r#type.as_mut().and_then(|ty| ty.value.as_mut());
    if let Some(type_proto::Value::TensorType(tensor)) = value
        && is_other_float(tensor.elem_type)
    {
        tensor.elem_type = DataType::Float as i32;
    }
}
