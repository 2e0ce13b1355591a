//! Operators of onnxruntime's own domain: what its optimiser makes of ONNX's when a model is saved after
//! optimising.
//!
//! Most of them are an operator of ONNX with another before or behind it, and are lowered as these, one after
//! another, by [`apply`] and [`apply_with`]. Operators with channels last are the same between two
//! transposes, which cost nothing here.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, tensor_proto::DataType};

use super::compose::{apply, apply_with, channels_first, with_channels_last};
use super::{Lowering, OpSupport, norm, quantised, single, table};
use crate::import::array::Array;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::Value;

/// The operators of the domain, by name.
pub(super) const OPERATORS: &[OpSupport] = table! {
    super::MICROSOFT_DOMAIN,
    BiasGelu since 1, gelu, "exact";
    DequantizeLinear since 1, quantised::dequantize_linear, "as ONNX's";
    FastGelu since 1, gelu, "by tanh";
    FusedConv since 1, fused_conv, "as Conv, a sum with a fourth operand and an activation";
    FusedGemm since 1, fused_gemm, "as Gemm and an activation";
    FusedMatMul since 1, fused_matmul, "as MatMul, transposed and scaled";
    Gelu since 1, gelu, "exact";
    MatMulIntegerToFloat since 1, quantised::matmul_to_float, "constant scales";
    NhwcMaxPool since 1, nhwc_max_pool, "as MaxPool";
    QGemm since 1, quantised::gemm, "as Gemm";
    QLinearAdd since 1, quantised::binary, "";
    QLinearAveragePool since 1, quantised::pool, "";
    QLinearConcat since 1, quantised::concat, "";
    QLinearConv since 1, quantised::conv, "as ONNX's";
    QLinearGlobalAveragePool since 1, quantised::pool, "";
    QLinearLeakyRelu since 1, quantised::unary, "";
    QLinearMul since 1, quantised::binary, "";
    QLinearReduceMean since 1, quantised::unary, "";
    QLinearSigmoid since 1, quantised::unary, "";
    QLinearSoftmax since 1, quantised::unary, "";
    QLinearWhere since 1, quantised::select, "";
    QuantizeLinear since 1, quantised::quantize_linear, "as ONNX's";
    QuickGelu since 1, quick_gelu, "";
    SkipLayerNormalization since 1, skip_layer_normalization, "constant scale and biases";
    SkipSimplifiedLayerNormalization since 1, skip_layer_normalization, "constant scale and biases";
    TransposeMatMul since 1, fused_matmul, "as FusedMatMul";
};

/// An attribute of a real number.
fn float_attribute(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }
}

/// An attribute of a text.
fn text_attribute(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::String as i32,
        s: value.as_bytes().to_vec(),
        ..AttributeProto::default()
    }
}

/// A unary operator of ONNX's with other attributes than `node` has.
fn unary(
    lo: &mut Lowering,
    node: &Node<'_>,
    op_type: &str,
    attributes: Vec<AttributeProto>,
    x: Value,
) -> Lowered<Value> {
    match apply_with(lo, node, op_type, attributes, vec![Some(x)])?.into_iter().next() {
        Some(value) => Ok(value),
        None => invalid!("no result"),
    }
}

/// The sum of two values.
fn sum(lo: &mut Lowering, a: Value, b: Value) -> Lowered<Value> {
    if a.dtype() != DataType::Float || b.dtype() != DataType::Float {
        unsupported!("on {:?} and {:?}", a.dtype(), b.dtype());
    }
    let aligned = lo.align(&[a, b])?;
    let out = lo.em.add(aligned.values[0], aligned.values[1]);
    Ok(aligned.result(out, DataType::Float))
}

/// `Gelu`, `BiasGelu` and `FastGelu`: of a sum with a bias, if there is one.
fn gelu(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let mut x = node.input(0)?.clone();
    if let Some(bias) = node.optional_input(1) {
        x = sum(lo, x, bias.clone())?;
    }
    let approximate = if node.proto.op_type == "FastGelu" { "tanh" } else { "none" };
    single(unary(lo, node, "Gelu", vec![text_attribute("approximate", approximate)], x)?)
}

/// `QuickGelu`: `x * sigmoid(alpha * x)`.
fn quick_gelu(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let alpha = float_attribute("alpha", node.float("alpha", 1.702)?);
    single(unary(lo, node, "Swish", vec![alpha], node.input(0)?.clone())?)
}

/// The activation that is fused into a convolution.
fn activated(lo: &mut Lowering, node: &Node<'_>, x: Value) -> Lowered<Value> {
    let name = node.string("activation", "")?;
    let params = node.floats("activation_params")?.unwrap_or_default();
    let named = |names: &[&str]| -> Vec<AttributeProto> {
        names.iter().zip(params).map(|(name, &value)| float_attribute(name, value)).collect()
    };
    let (op_type, attributes): (&str, &[&str]) = match name.as_str() {
        "" => return Ok(x),
        "Relu" | "Sigmoid" | "Tanh" => (name.as_str(), &[]),
        "Silu" => ("Swish", &[]),
        "LeakyRelu" => ("LeakyRelu", &["alpha"]),
        "HardSigmoid" => ("HardSigmoid", &["alpha", "beta"]),
        "Clip" => ("Clip", &["min", "max"]),
        other => unsupported!("the activation `{other}`"),
    };
    if params.len() != attributes.len() {
        invalid!("{} parameters of the activation `{name}`", params.len());
    }
    unary(lo, node, op_type, named(attributes), x)
}

/// `FusedConv`.
fn fused_conv(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let inputs = (0..3).map(|at| node.optional_input(at).cloned()).collect();
    let outputs = apply_with(lo, node, "Conv", node.proto.attribute.clone(), inputs)?;
    let Some(mut out) = outputs.into_iter().next() else { invalid!("no result") };
    if let Some(term) = node.optional_input(3) {
        out = sum(lo, out, term.clone())?;
    }
    single(activated(lo, node, out)?)
}

/// `FusedGemm`: the activation's attributes have its name before them.
fn fused_gemm(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let out = apply_with(lo, node, "Gemm", node.proto.attribute.clone(), node.inputs.clone())?;
    let Some(out) = out.into_iter().next() else { invalid!("no result") };
    let name = node.string("activation", "")?;
    if name.is_empty() {
        return single(out);
    }
    const ACTIVATIONS: [&str; 10] = [
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    ];
    if !ACTIVATIONS.contains(&name.as_str()) {
        unsupported!("the activation `{name}`");
    }
    let own = node.proto.attribute.iter().filter_map(|attribute| {
        let name = attribute.name.strip_prefix("activation_")?;
        Some(AttributeProto { name: name.to_owned(), ..attribute.clone() })
    });
    single(unary(lo, node, &name, own.collect(), out)?)
}

/// `FusedMatMul`: `alpha * A' · B'`.
fn fused_matmul(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let side = |at: usize, flag: &str, batch_flag: &str| -> Lowered<Value> {
        let value = node.input(at)?;
        let rank = value.shape().len();
        if node.flag(batch_flag, false)? {
            unsupported!("`{batch_flag}`");
        }
        // Vectors are not transposed.
        if !node.flag(flag, false)? || rank < 2 {
            return Ok(value.clone());
        }
        let perm: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
        Ok(match value {
            Value::Const(array) => array.transposed(&perm).into(),
            Value::View(view) => view.transposed(&perm).into(),
        })
    };
    let inputs = [side(0, "transA", "transBatchA")?, side(1, "transB", "transBatchB")?];
    let alpha = node.float("alpha", 1.0)?;
    let product = apply(lo, node, "MatMul", inputs)?;
    if alpha == 1.0 {
        return single(product);
    }
    single(lo.map(&product, |em, x| em.scale(x, alpha))?)
}

/// `NhwcMaxPool`: a max pool with channels last.
fn nhwc_max_pool(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = channels_first(lo, node.input(0)?)?;
    let out = apply(lo, node, "MaxPool", [x])?;
    single(with_channels_last(lo, &out)?)
}

/// `SkipLayerNormalization` and `SkipSimplifiedLayerNormalization`: of a sum of two tensors and perhaps a
/// bias, which is the last output too.
fn skip_layer_normalization(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let is_simple = node.proto.op_type == "SkipSimplifiedLayerNormalization";
    let (shift, bias) = if is_simple { (None, 3) } else { (node.optional_input(3).cloned(), 4) };
    let mut total = sum(lo, node.input(0)?.clone(), node.input(1)?.clone())?;
    if total.shape() != node.input(0)?.shape() {
        invalid!("a skip of shape {:?} for {:?}", node.input(1)?.shape(), node.input(0)?.shape());
    }
    if let Some(bias) = node.optional_input(bias) {
        total = sum(lo, total, bias.clone())?;
    }
    let epsilon = node.float("epsilon", 1e-12)?;
    let scale: &Array = node.constant(2, "the scale")?;
    let shift = match &shift {
        Some(Value::View(_)) => unsupported!("a bias that is computed at run time"),
        Some(Value::Const(array)) => Some(array.as_ref()),
        None => None,
    };
    if is_simple {
        if node.has_output(1) {
            unsupported!("the mean as an output");
        }
        let [out, inverse] = norm::rms_normalised(lo, &total, -1, epsilon, scale)?;
        return Ok(vec![out, inverse.clone(), inverse, total]);
    }
    let [out, mean, inverse] = norm::layer_normalised(lo, &total, -1, epsilon, [Some(scale), shift])?;
    Ok(vec![out, mean, inverse, total])
}
