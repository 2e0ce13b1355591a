//! The rows: what the host's library was seen to run right.

use DataType::{Bool, Float, Int8, Int16, Int32, Int64, Uint8};
use tract_onnx::pb::tensor_proto::DataType;

use super::Operand::{Constant, Many, Needed, Optional, OptionalConstant};
use super::Values::{Int, Ints, OneOf};
use super::{Attribute, HostOp, Operand, Values};

/// The newest operator set that was looked at.
const NEWEST: i64 = 24;

const F32: &[DataType] = &[Float];
const I64: &[DataType] = &[Int64];
const BOOL: &[DataType] = &[Bool];
const INDEX: &[DataType] = &[Int32, Int64];
const NUMBER: &[DataType] = &[Float, Int32, Int64];
const ANY: &[DataType] = &[Float, Int32, Int64, Bool];
const BITS: &[DataType] = &[Int8, Int16, Int32, Uint8];

const fn op(
    name: &'static str,
    opsets: [i64; 2],
    operands: &'static [Operand],
    attributes: &'static [Attribute],
) -> HostOp {
    HostOp { name, domain: "", opsets, operands, attributes, n_outputs: 1 }
}

const fn attr(name: &'static str, values: Values) -> Attribute {
    Attribute { name, values }
}

/// By domain and name.
pub(super) const OPERATORS: &[HostOp] = &[
    op("Abs", [13, NEWEST], &[Needed(F32)], &[]),
    op("Acos", [7, NEWEST], &[Needed(F32)], &[]),
    op("Acosh", [9, NEWEST], &[Needed(F32)], &[]),
    op("Add", [7, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("And", [7, NEWEST], &[Needed(BOOL), Needed(BOOL)], &[]),
    op("Asin", [7, NEWEST], &[Needed(F32)], &[]),
    op("Asinh", [9, NEWEST], &[Needed(F32)], &[]),
    op("Atan", [7, NEWEST], &[Needed(F32)], &[]),
    op("Atanh", [9, NEWEST], &[Needed(F32)], &[]),
    op("BitwiseAnd", [18, NEWEST], &[Needed(BITS), Needed(BITS)], &[]),
    op("BitwiseOr", [18, NEWEST], &[Needed(BITS), Needed(BITS)], &[]),
    op("BitwiseXor", [18, NEWEST], &[Needed(BITS), Needed(BITS)], &[]),
    op("Cast", [9, NEWEST], &[Needed(ANY)], &[attr("to", OneOf(&[1, 6, 7, 9]))]),
    op("Ceil", [6, NEWEST], &[Needed(F32)], &[]),
    op("Concat", [4, NEWEST], &[Many(ANY)], &[attr("axis", Int)]),
    op("Cosh", [9, NEWEST], &[Needed(F32)], &[]),
    op("Div", [7, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("Equal", [11, NEWEST], &[Needed(ANY), Needed(ANY)], &[]),
    op("Exp", [6, NEWEST], &[Needed(F32)], &[]),
    op("Expand", [8, NEWEST], &[Needed(ANY), Constant(I64)], &[]),
    op("Flatten", [9, NEWEST], &[Needed(ANY)], &[attr("axis", Int)]),
    op("Floor", [6, NEWEST], &[Needed(F32)], &[]),
    op("Gather", [1, NEWEST], &[Needed(ANY), Needed(INDEX)], &[attr("axis", Int)]),
    op("GatherElements", [11, NEWEST], &[Needed(ANY), Needed(INDEX)], &[attr("axis", Int)]),
    op("GatherND", [12, NEWEST], &[Needed(ANY), Needed(I64)], &[attr("batch_dims", Int)]),
    op("Greater", [9, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("GreaterOrEqual", [12, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("Hardmax", [13, NEWEST], &[Needed(F32)], &[attr("axis", Int)]),
    op("Identity", [1, NEWEST], &[Needed(ANY)], &[]),
    op("Less", [9, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("LessOrEqual", [12, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("Log", [6, NEWEST], &[Needed(F32)], &[]),
    op("Max", [8, NEWEST], &[Many(NUMBER)], &[]),
    op("Min", [8, NEWEST], &[Many(NUMBER)], &[]),
    op("Mul", [7, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("Neg", [6, NEWEST], &[Needed(NUMBER)], &[]),
    op(
        "NonMaxSuppression",
        [10, NEWEST],
        &[Needed(F32), Needed(F32), Optional(I64), Optional(F32), Optional(F32)],
        &[attr("center_point_box", OneOf(&[0, 1]))],
    ),
    op("NonZero", [9, NEWEST], &[Needed(ANY)], &[]),
    op("Not", [1, NEWEST], &[Needed(BOOL)], &[]),
    op("Or", [7, NEWEST], &[Needed(BOOL), Needed(BOOL)], &[]),
    op("ReduceMax", [18, NEWEST], &[Needed(F32), OptionalConstant(I64)], &[attr("keepdims", OneOf(&[0, 1]))]),
    op("ReduceMin", [18, NEWEST], &[Needed(F32), OptionalConstant(I64)], &[attr("keepdims", OneOf(&[0, 1]))]),
    op("Relu", [6, NEWEST], &[Needed(F32)], &[]),
    op("Reshape", [5, NEWEST], &[Needed(ANY), Constant(I64)], &[attr("allowzero", OneOf(&[0]))]),
    op(
        "RotaryEmbedding",
        [23, NEWEST],
        &[Needed(F32), Needed(F32), Needed(F32), Optional(I64)],
        &[attr("interleaved", OneOf(&[0, 1])), attr("num_heads", Int), attr("rotary_embedding_dim", Int)],
    ),
    op("Scatter", [9, 10], &[Needed(F32), Needed(INDEX), Needed(F32)], &[attr("axis", Int)]),
    op("Shape", [1, NEWEST], &[Needed(ANY)], &[attr("start", Int), attr("end", Int)]),
    op("Sigmoid", [6, NEWEST], &[Needed(F32)], &[]),
    op("Sinh", [9, NEWEST], &[Needed(F32)], &[]),
    op(
        "Slice",
        [10, NEWEST],
        &[Needed(ANY), Constant(INDEX), Constant(INDEX), OptionalConstant(INDEX), OptionalConstant(INDEX)],
        &[],
    ),
    op("Softmax", [13, NEWEST], &[Needed(F32)], &[attr("axis", Int)]),
    HostOp { n_outputs: 8, ..op("Split", [13, NEWEST], &[Needed(ANY), Constant(I64)], &[attr("axis", Int)]) },
    op("Sqrt", [6, NEWEST], &[Needed(F32)], &[]),
    op("Squeeze", [1, 12], &[Needed(ANY)], &[attr("axes", Ints)]),
    op("Squeeze", [13, NEWEST], &[Needed(ANY), Constant(I64)], &[]),
    op("Sub", [7, NEWEST], &[Needed(NUMBER), Needed(NUMBER)], &[]),
    op("Tan", [7, NEWEST], &[Needed(F32)], &[]),
    op("Tanh", [6, NEWEST], &[Needed(F32)], &[]),
    op("Tile", [6, NEWEST], &[Needed(ANY), Constant(I64)], &[]),
    op("Transpose", [1, NEWEST], &[Needed(ANY)], &[attr("perm", Ints)]),
    op("Unsqueeze", [1, 12], &[Needed(ANY)], &[attr("axes", Ints)]),
    op("Unsqueeze", [13, NEWEST], &[Needed(ANY), Constant(I64)], &[]),
    op("Where", [9, NEWEST], &[Needed(BOOL), Needed(ANY), Needed(ANY)], &[]),
    op("Xor", [7, NEWEST], &[Needed(BOOL), Needed(BOOL)], &[]),
];
