//! Operators that are others of ONNX's own between changes of layout or type: those are lowered one after
//! another.

use tract_onnx::pb::{AttributeProto, NodeProto};

use super::{Lowering, MICROSOFT_DOMAIN, find};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, channels_last};
use crate::import::versions;

/// Lowers an operator of ONNX's own domain with the attributes of `node` on other operands.
pub(super) fn apply(
    lo: &mut Lowering,
    node: &Node<'_>,
    op_type: &str,
    inputs: impl IntoIterator<Item = Value>,
) -> Lowered<Value> {
    let inputs = inputs.into_iter().map(Some).collect();
    let outputs = apply_with(lo, node, op_type, node.proto.attribute.clone(), inputs)?;
    match outputs.into_iter().next() {
        Some(value) => Ok(value),
        None => invalid!("no result"),
    }
}

/// Lowers an operator of ONNX's own domain with other attributes and operands than `node` has; all its
/// outputs.
pub(super) fn apply_with(
    lo: &mut Lowering,
    node: &Node<'_>,
    op_type: &str,
    attribute: Vec<AttributeProto>,
    inputs: Vec<Option<Value>>,
) -> Lowered<Vec<Value>> {
    // Operators of other domains say themselves which definition they follow, or are like the newest of
    // ONNX's own.
    let newest = || node.int("opset", versions::NEWEST);
    let opset = if node.proto.domain == MICROSOFT_DOMAIN { newest()? } else { node.opset };
    let proto = NodeProto {
        op_type: op_type.to_owned(),
        name: node.proto.name.clone(),
        attribute,
        output: node.proto.output.clone(),
        ..NodeProto::default()
    };
    let inner = Node { proto: &proto, opset, inputs, used: node.used };
    let Some(op) = find("", op_type) else { unsupported!("the operator `{op_type}` is not known") };
    (op.lower)(lo, &inner)
}

/// A value with its channels, which come last, as ONNX's operators have them.
pub(super) fn channels_first(lo: &mut Lowering, value: &Value) -> Lowered<Value> {
    let view = lo.view(value)?;
    let rank = view.shape.len();
    if !(3..=5).contains(&rank) {
        invalid!("a spatial operator on shape {:?}", view.shape);
    }
    let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    Ok(view.transposed(&perm).into())
}

/// A value with its channels last.
pub(super) fn with_channels_last(lo: &mut Lowering, value: &Value) -> Lowered<Value> {
    let view = lo.view(value)?;
    Ok(view.transposed(&channels_last(view.shape.len())).into())
}
