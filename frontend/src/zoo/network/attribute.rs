//! Attributes of ONNX nodes.

use tract_onnx::pb::{self, attribute_proto::AttributeType};

fn attribute(name: &str, r#type: AttributeType) -> pb::AttributeProto {
    pb::AttributeProto { name: name.to_owned(), r#type: r#type as i32, ..pb::AttributeProto::default() }
}

pub(super) fn int(name: &str, value: usize) -> pb::AttributeProto {
    pb::AttributeProto { i: value as i64, ..attribute(name, AttributeType::Int) }
}

/// The attribute that names the last axis.
pub(super) fn last_axis() -> pb::AttributeProto {
    pb::AttributeProto { i: -1, ..attribute("axis", AttributeType::Int) }
}

pub(super) fn ints<const N: usize>(name: &str, values: [usize; N]) -> pb::AttributeProto {
    pb::AttributeProto { ints: values.map(|v| v as i64).to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub(super) fn float(name: &str, value: f32) -> pb::AttributeProto {
    pb::AttributeProto { f: value, ..attribute(name, AttributeType::Float) }
}

pub(super) fn string(name: &str, value: &str) -> pb::AttributeProto {
    pb::AttributeProto { s: value.as_bytes().to_vec(), ..attribute(name, AttributeType::String) }
}
