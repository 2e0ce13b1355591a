//! ONNX files as their protobuf messages.

use prost::Message;
pub use tract_onnx::pb::type_proto::Value as TypeValue;
pub use tract_onnx::pb::{self, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::import::error::{ImportError, Malformation};

/// The bytes of an ONNX file.
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// The model that the bytes of an ONNX file hold.
///
/// # Errors
/// [`ImportError::Malformed`] if they are no such file.
pub fn decode(bytes: &[u8]) -> Result<ModelProto, ImportError> {
    // Not by tract, which copies all bytes first.
    ModelProto::decode(bytes).map_err(|error| {
        let what = format!("not an ONNX protobuf: {error}");
        ImportError::Malformed(vec![Malformation { place: "file".to_owned(), what }])
    })
}
