//! Names of ONNX element types.

use tract_onnx::pb::tensor_proto::DataType;

/// The name of an ONNX element type, as NumPy's are shortened; `None` for those that no array holds.
pub(crate) fn name(dtype: DataType) -> Option<&'static str> {
    Some(match dtype {
        DataType::Float => "f32",
        DataType::Double => "f64",
        DataType::Float16 => "f16",
        DataType::Bool => "bool",
        DataType::Int8 => "i8",
        DataType::Uint8 => "u8",
        DataType::Int16 => "i16",
        DataType::Uint16 => "u16",
        DataType::Int32 => "i32",
        DataType::Uint32 => "u32",
        DataType::Int64 => "i64",
        DataType::Uint64 => "u64",
        _ => return None,
    })
}

/// The name of any ONNX element type, to be read.
pub(crate) fn told(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Bfloat16 => "bf16",
        DataType::String => "string",
        _ => name(dtype).unwrap_or("of another type"),
    }
}
