//! ONNX messages: tensors, attributes, nodes and ports.

use strata_frontend::proto::pb::attribute_proto::AttributeType;
use strata_frontend::proto::pb::tensor_proto::DataType;
use strata_frontend::proto::pb::tensor_shape_proto::{Dimension, dimension};
use strata_frontend::proto::pb::type_proto;
use strata_frontend::proto::pb::{
    AttributeProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use crate::session::permute;

/// A node of the standard's own operators.
pub(super) fn node(op: &str, inputs: Vec<String>, outputs: Vec<String>) -> NodeProto {
    let name = outputs.first().cloned().unwrap_or_default();
    NodeProto { input: inputs, output: outputs, name, op_type: op.to_owned(), ..NodeProto::default() }
}

/// An attribute of integers.
pub(super) fn ints(name: &str, ints: impl IntoIterator<Item = i64>) -> AttributeProto {
    let ints = ints.into_iter().collect();
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints,
        ..AttributeProto::default()
    }
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

/// An attribute that is a string.
pub(super) fn string(name: &str, text: &str) -> AttributeProto {
    let s = text.as_bytes().to_vec();
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::String as i32,
        s,
        ..AttributeProto::default()
    }
}

/// Elements of an initialiser.
pub(super) enum Data {
    F32(Vec<f32>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Data {
    fn data_type(&self) -> DataType {
        match self {
            Self::F32(_) => DataType::Float,
            Self::I8(_) => DataType::Int8,
            Self::I16(_) => DataType::Int16,
            Self::I32(_) => DataType::Int32,
            Self::I64(_) => DataType::Int64,
        }
    }

    /// The same elements with their axes in another order.
    pub(super) fn permuted(&self, shape: &[usize], perm: &[usize]) -> Self {
        match self {
            Self::F32(v) => Self::F32(permute(v, shape, perm)),
            Self::I8(v) => Self::I8(permute(v, shape, perm)),
            Self::I16(v) => Self::I16(permute(v, shape, perm)),
            Self::I32(v) => Self::I32(permute(v, shape, perm)),
            Self::I64(v) => Self::I64(permute(v, shape, perm)),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// An initialiser.
pub(super) fn tensor(name: &str, dims: &[usize], data: &Data) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&extent| extent as i64).collect(),
        data_type: data.data_type() as i32,
        raw_data: data.bytes(),
        ..TensorProto::default()
    }
}

/// An input or output of a graph.
pub(super) fn port(name: &str, elem: DataType, shape: &[usize]) -> ValueInfoProto {
    let dim = |&extent: &usize| Dimension {
        value: Some(dimension::Value::DimValue(extent as i64)),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: elem as i32, shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
