//! Convolutions and matrix products.
//!
//! Weights and biases are quantised tensors. Where a product is rescaled and nothing else reads it, the
//! scales of its weights are those of the rescale, so that its result has the step that the rescale gives.

use strata_frontend::proto::pb::AttributeProto;
use strata_ir::dialect::{Conv2d, DepthwiseConv2d, TransposeConv2d};
use strata_ir::{Op, ValueId};

use super::elementwise::factors_of;
use super::emitter::{Emitter, Layout, Real};
use super::proto::{Data, int, ints};
use super::site::{Site, finish};
use crate::export::ExportError;
use crate::session::permute;

/// The operands of a convolution.
struct Operands {
    input: Real,
    /// The step of the products of each output channel, or of all.
    steps: Vec<f64>,
    bias: String,
}

/// The order of the axes of weights in ONNX, and which of them has the output channels.
struct WeightOrder<'a> {
    /// The shape of the module's weights.
    shape: &'a [usize],
    perm: [usize; 4],
    /// The shape in ONNX.
    dims: [usize; 4],
    channel_axis: i64,
}

fn operands(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<Operands, ExportError> {
    let &[input, _, bias, input_zp, _] = site.operands else {
        return Err(emitter.unsupported("a convolution without five operands"));
    };
    let zero_point = emitter.integer(input_zp)?;
    let input = emitter.real(input, zero_point, Layout::Nchw)?;
    let n_channels = emitter.shape(site.result).last().copied().unwrap_or(1);
    let step = input.steps[0];
    let weight_steps: Vec<f64> = match rescaled(emitter, site.result) {
        // In the steps of the input, as any would do.
        Some(factors) => factors,
        None => vec![1.0],
    };
    let steps: Vec<f64> = weight_steps.iter().map(|weight| weight * step).collect();
    let bias = bias_of(emitter, bias, &steps, n_channels)?;
    Ok(Operands { input, steps, bias })
}

/// The factors by which a value is rescaled, if nothing else is made of it.
fn rescaled(emitter: &Emitter<'_>, value: ValueId) -> Option<Vec<f64>> {
    let module = emitter.module;
    let block = module.op(module.defining_op(value)?).parent()?;
    let mut readers = Vec::new();
    for &op in module.block_ops(block) {
        if module.op(op).operands().contains(&value) {
            readers.push(op);
        }
    }
    let &[reader] = &readers[..] else { return None };
    match &module.op(reader).op {
        Op::Rescale(_) => factors_of(emitter, module.op(reader).operands()).ok(),
        _ => None,
    }
}

fn bias_of(
    emitter: &mut Emitter<'_>,
    bias: ValueId,
    steps: &[f64],
    n_channels: usize,
) -> Result<String, ExportError> {
    let mut integers = emitter.integers(bias)?;
    if integers.len() == 1 {
        integers = vec![integers[0]; n_channels];
    }
    let step = |channel: usize| steps.get(channel).or(steps.first()).copied().unwrap_or(1.0);
    let narrow: Option<Vec<i32>> = integers.iter().map(|&v| i32::try_from(v).ok()).collect();
    let Some(narrow) = narrow else {
        // A bias of 48 bits, which ONNX does not quantise to.
        let reals = integers.iter().enumerate().map(|(c, &v)| (v as f64 * step(c)) as f32);
        return Ok(emitter.initializer("bias", &[n_channels], &Data::F32(reals.collect())));
    };
    let quantised = emitter.initializer("bias", &[n_channels], &Data::I32(narrow));
    let scale = scales(emitter, "bias_scale", steps);
    Ok(emitter.node("DequantizeLinear", vec![quantised, scale], vec![int("axis", 0)]))
}

fn scales(emitter: &mut Emitter<'_>, what: &str, steps: &[f64]) -> String {
    let data = Data::F32(steps.iter().map(|&step| step as f32).collect());
    let dims = [steps.len()];
    emitter.initializer(what, if steps.len() == 1 { &[] } else { &dims }, &data)
}

/// The weights, dequantised, in ONNX's order.
fn weights(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    order: &WeightOrder<'_>,
    operands: &Operands,
) -> Result<String, ExportError> {
    let integers = emitter.integers(site.operands[1])?;
    let zero_point = emitter.integer(site.operands[4])?;
    let integers = permute(&integers, order.shape, &order.perm);
    let integers = Data::I8(integers.into_iter().map(|weight| weight as i8).collect());
    let quantised = emitter.initializer("weight", &order.dims, &integers);
    let steps: Vec<f64> = operands.steps.iter().map(|step| step / operands.input.steps[0]).collect();
    let mut inputs = vec![quantised, scales(emitter, "weight_scale", &steps)];
    if zero_point != 0 {
        let zero_points = Data::I8(vec![zero_point as i8; steps.len()]);
        let dims = [steps.len()];
        let dims = if steps.len() == 1 { &[][..] } else { &dims[..] };
        inputs.push(emitter.initializer("weight_zero_point", dims, &zero_points));
    }
    Ok(emitter.node("DequantizeLinear", inputs, vec![int("axis", order.channel_axis)]))
}

/// ONNX's order of paddings: both before, then both after.
fn pads([top, bottom, left, right]: [i64; 4]) -> [i64; 4] {
    [top, left, bottom, right]
}

fn weight_shape<'a>(emitter: &Emitter<'a>, site: Site<'_>) -> Result<[usize; 4], ExportError> {
    let &[_, weights, ..] = site.operands else {
        return Err(emitter.unsupported("a convolution without five operands"));
    };
    let shape = emitter.shape(weights);
    <[usize; 4]>::try_from(shape).map_err(|_| emitter.unsupported("weights that are not of four axes"))
}

/// CONV2D.
pub(super) fn conv(emitter: &mut Emitter<'_>, site: Site<'_>, conv: &Conv2d) -> Result<(), ExportError> {
    let shape @ [oc, kh, kw, ic] = weight_shape(emitter, site)?;
    let order = WeightOrder { shape: &shape, perm: [0, 3, 1, 2], dims: [oc, ic, kh, kw], channel_axis: 0 };
    let attributes = vec![
        ints("kernel_shape", [kh as i64, kw as i64]),
        ints("strides", conv.stride),
        ints("dilations", conv.dilation),
        ints("pads", pads(conv.pad)),
    ];
    product(emitter, site, "Conv", &order, attributes)
}

/// DEPTHWISE_CONV2D, as a convolution with as many groups as channels.
pub(super) fn depthwise(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    conv: &DepthwiseConv2d,
) -> Result<(), ExportError> {
    let shape @ [kh, kw, channels, multiplier] = weight_shape(emitter, site)?;
    let dims = [channels * multiplier, 1, kh, kw];
    let order = WeightOrder { shape: &shape, perm: [2, 3, 0, 1], dims, channel_axis: 0 };
    let attributes = vec![
        ints("kernel_shape", [kh as i64, kw as i64]),
        ints("strides", conv.stride),
        ints("dilations", conv.dilation),
        ints("pads", pads(conv.pad)),
        int("group", channels as i64),
    ];
    product(emitter, site, "Conv", &order, attributes)
}

/// TRANSPOSE_CONV2D. Its padding is of the output, and negative where ONNX's is positive.
pub(super) fn transpose_conv(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    conv: &TransposeConv2d,
) -> Result<(), ExportError> {
    let shape @ [oc, kh, kw, ic] = weight_shape(emitter, site)?;
    let order = WeightOrder { shape: &shape, perm: [3, 0, 1, 2], dims: [ic, oc, kh, kw], channel_axis: 1 };
    let [top, bottom, left, right] = conv.out_pad;
    let [stride_h, stride_w] = conv.stride;
    if top > 0 || left > 0 || bottom >= stride_h.max(1) || right >= stride_w.max(1) {
        return Err(emitter.unsupported("an output padded beyond what the kernel reaches"));
    }
    let attributes = vec![
        ints("kernel_shape", [kh as i64, kw as i64]),
        ints("strides", conv.stride),
        ints("pads", [-top, -left, (-bottom).max(0), (-right).max(0)]),
        ints("output_padding", [bottom.max(0), right.max(0)]),
    ];
    product(emitter, site, "ConvTranspose", &order, attributes)
}

/// The node of a convolution of any kind.
fn product(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    operator: &'static str,
    order: &WeightOrder<'_>,
    attributes: Vec<AttributeProto>,
) -> Result<(), ExportError> {
    let operands = operands(emitter, site)?;
    let weight = weights(emitter, site, order, &operands)?;
    let inputs = vec![operands.input.name.clone(), weight, operands.bias.clone()];
    let name = emitter.node(operator, inputs, attributes);
    finish(emitter, site.result, Real { name, steps: operands.steps, ..operands.input }, 0)
}

/// MATMUL.
pub(super) fn matmul(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[a, b, a_zp, b_zp] = site.operands else {
        return Err(emitter.unsupported("a matrix product without four operands"));
    };
    let (a_zp, b_zp) = (emitter.integer(a_zp)?, emitter.integer(b_zp)?);
    let a = emitter.real(a, a_zp, Layout::Module)?;
    let b = emitter.real(b, b_zp, Layout::Module)?;
    let steps = vec![a.steps[0] * b.steps[0]];
    let name = emitter.node("MatMul", vec![a.name.clone(), b.name], Vec::new());
    finish(emitter, site.result, Real { name, steps, ..a }, 0)
}
