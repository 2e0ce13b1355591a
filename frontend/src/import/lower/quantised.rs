//! Quantised models: `QuantizeLinear` and `DequantizeLinear`, operators on quantised tensors, and integer
//! products.
//!
//! Integers are `i32` at run time, whatever their type in the file. Quantising is
//! `cast(clamp(x / scale, least - zero_point, greatest - zero_point)) + zero_point`; `tosa.cast` rounds half
//! to even, as ONNX does, and the quotient is that of IEEE division (see [`quotient`]). Dequantising is
//! `cast(q - zero_point) * scale`. What is dequantised while importing keeps its integers
//! ([`quant_data`](super::super::quant_data)).
//!
//! `QLinear…` operators are defined by dequantising, computing in reals and quantising, and are lowered so,
//! by the lowering of the operator on floats. Products of integers stand in [`super::integer_product`].

use strata_ir::dialect;
use strata_ir::{ElemType, Tensor, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::compose::{apply, channels_first, with_channels_last};
use super::{Lowering, single};
use crate::import::array::{Array, offsets, strides};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};
use crate::import::quant_data::dequantised;

/// The least and greatest integer of a type that activations are quantised to.
fn int_range(dtype: DataType) -> Lowered<(i64, i64)> {
    Ok(match dtype {
        DataType::Int4 => (-8, 7),
        DataType::Uint4 => (0, 15),
        DataType::Int8 => (-128, 127),
        DataType::Uint8 => (0, 255),
        DataType::Int16 => (-32768, 32767),
        DataType::Uint16 => (0, 65535),
        other => unsupported!("quantised numbers of type {other:?}"),
    })
}

/// Scales and zero points: one for a whole tensor, one for each index of an axis, or one for each block.
struct Steps {
    scales: Array,
    zero_points: Vec<i64>,
    /// The integers' type, if a zero point tells it.
    dtype: Option<DataType>,
    axis: usize,
    block: usize,
}

impl Steps {
    /// Those of a tensor of `shape` from two operands of a node; a zero point that is left out is 0.
    fn of_node(
        node: &Node<'_>,
        [scale, zero_point]: [usize; 2],
        shape: &[usize],
        axis: i64,
    ) -> Lowered<Self> {
        let scales = node.constant(scale, "a scale")?.clone();
        if scales.as_floats()?.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            invalid!("a scale that is not positive");
        }
        let (zero_points, dtype) = match node.optional_constant(zero_point, "a zero point")? {
            None => (vec![0; scales.len()], None),
            Some(array) => (array.as_ints()?.to_vec(), Some(array.dtype)),
        };
        if zero_points.len() != scales.len() {
            invalid!("{} zero points for {} scales", zero_points.len(), scales.len());
        }
        if scales.len() == 1 {
            return Ok(Self { scales, zero_points, dtype, axis: 0, block: 0 });
        }
        let axis = resolve_axis(axis, shape.len())?;
        if scales.shape.len() > 1 && scales.shape.len() == shape.len() {
            let n_blocks = scales.shape[axis];
            let fits = (0..shape.len()).all(|a| a == axis || scales.shape[a] == shape[a]);
            let block = match usize::try_from(node.int("block_size", 0)?) {
                Ok(0) => shape[axis].div_ceil(n_blocks.max(1)),
                Ok(block) => block,
                Err(_) => invalid!("a negative block size"),
            };
            if !fits || shape[axis].div_ceil(block) != n_blocks {
                invalid!("scales of shape {:?} for a tensor of shape {shape:?}", scales.shape);
            }
            return Ok(Self { scales, zero_points, dtype, axis, block });
        }
        if scales.len() != shape[axis] {
            invalid!("{} scales for an axis of extent {}", scales.len(), shape[axis]);
        }
        Ok(Self { scales, zero_points, dtype, axis, block: 0 })
    }

    /// The scale and zero point, if there is one for all.
    fn single(&self) -> Option<(f32, i64)> {
        match (self.scales.as_floats(), &self.zero_points[..]) {
            (Ok(&[scale]), &[zero_point]) => Some((scale, zero_point)),
            _ => None,
        }
    }

    /// For each element of a tensor, which scale it has.
    fn groups(&self, shape: &[usize]) -> Vec<u32> {
        let n = shape.iter().product();
        if self.scales.len() == 1 {
            return vec![0; n];
        }
        if self.block == 0 {
            let step: Vec<_> = (0..shape.len()).map(|axis| usize::from(axis == self.axis)).collect();
            return offsets(shape, &step).into_iter().map(|at| at as u32).collect();
        }
        let (own, steps) = (strides(shape), strides(&self.scales.shape));
        let index = |at: usize| {
            (0..shape.len())
                .map(|axis| {
                    let along = (at / own[axis]) % shape[axis];
                    (if axis == self.axis { along / self.block } else { along }) * steps[axis]
                })
                .sum::<usize>() as u32
        };
        (0..n).map(index).collect()
    }

    /// Values, one for each scale, as an operand that broadcasts to a tensor of `shape`.
    fn spread(&self, shape: &[usize], values: &Array) -> Value {
        if self.block > 0 {
            let places: Vec<usize> = self.groups(shape).into_iter().map(|group| group as usize).collect();
            return values.gathered(shape.to_vec(), &places).into();
        }
        let mut along = vec![1; shape.len()];
        along[self.axis] = values.len();
        values.reshaped(along).into()
    }

    /// `(q - zero_point) * scale`.
    fn to_reals(&self, lo: &mut Lowering, q: &Value) -> Lowered<Value> {
        let dtype = q.dtype();
        if dtype != DataType::Int32 {
            int_range(dtype)?;
        }
        if self.dtype.is_some_and(|own| own != dtype) {
            invalid!("a zero point of {:?} for {dtype:?}", self.dtype.unwrap_or(dtype));
        }
        if let Value::Const(array) = q {
            let groups = self.groups(&array.shape);
            return Ok(dequantised(array, groups, self.scales.as_floats()?, &self.zero_points)?.into());
        }
        if let Some((scale, zero_point)) = self.single() {
            let view = lo.view(q)?;
            let em = &mut lo.em;
            let centred = if zero_point == 0 { view.value } else { shifted(em, view.value, -zero_point) };
            let real = em.cast(centred, ElemType::F32);
            let real = em.scale(real, scale);
            return Ok(view.with_value(real, DataType::Float).into());
        }
        let zero_points = Array::ints([self.zero_points.len()], self.zero_points.clone(), dtype);
        let operands =
            [q.clone(), self.spread(q.shape(), &zero_points), self.spread(q.shape(), &self.scales)];
        let aligned = lo.align(&operands)?;
        let [q, zero_points, scales] = aligned.values[..] else {
            unreachable!("three operands were aligned")
        };
        let centred = lo.em.sub(q, zero_points);
        let real = lo.em.cast(centred, ElemType::F32);
        let real = lo.em.mul(real, scales);
        Ok(aligned.result(real, DataType::Float))
    }

    /// `saturate(round(x / scale) + zero_point)` as integers of `dtype`.
    fn to_integers(&self, lo: &mut Lowering, x: &Value, dtype: DataType) -> Lowered<Value> {
        let (least, greatest) = int_range(dtype)?;
        if self.zero_points.iter().any(|zp| !(least..=greatest).contains(zp)) {
            invalid!("a zero point beyond {dtype:?}");
        }
        let x = match x.dtype() {
            DataType::Float => x.clone(),
            DataType::Int32 => {
                let view = lo.view(x)?;
                let real = lo.em.cast(view.value, ElemType::F32);
                view.with_value(real, DataType::Float).into()
            }
            other => unsupported!("quantising {other:?}"),
        };
        if let Some((scale, zero_point)) = self.single() {
            let view = lo.view(&x)?;
            let em = &mut lo.em;
            let is_power = scale.to_bits() & 0x7f_ffff == 0;
            let scale = em.scalar_like(view.value, scale);
            let steps =
                if is_power { approximate(em, view.value, scale) } else { quotient(em, view.value, scale) };
            let bounded = em.clamp(steps, (least - zero_point) as f32, (greatest - zero_point) as f32);
            let rounded = em.cast(bounded, ElemType::I32);
            let q = if zero_point == 0 { rounded } else { shifted(em, rounded, zero_point) };
            return Ok(view.with_value(q, dtype).into());
        }
        let shape = x.shape().to_vec();
        let bound = |bound: i64| {
            let steps = self.zero_points.iter().map(|zp| (bound - zp) as f32).collect();
            self.spread(&shape, &Array::floats([self.zero_points.len()], steps))
        };
        let zero_points = Array::ints([self.zero_points.len()], self.zero_points.clone(), dtype);
        let operands = [
            x,
            self.spread(&shape, &self.scales),
            bound(least),
            bound(greatest),
            self.spread(&shape, &zero_points),
        ];
        let aligned = lo.align(&operands)?;
        let [x, scales, least, greatest, zero_points] = aligned.values[..] else {
            unreachable!("five operands were aligned")
        };
        let em = &mut lo.em;
        let steps = quotient(em, x, scales);
        let raised = em.maximum(steps, least);
        let bounded = em.minimum(raised, greatest);
        let rounded = em.cast(bounded, ElemType::I32);
        let q = em.add(rounded, zero_points);
        Ok(aligned.result(q, dtype))
    }
}

/// `x * (1 / divisor)`: the quotient but for two roundings; exact for a power of two.
fn approximate(em: &mut Emitter, x: ValueId, divisor: ValueId) -> ValueId {
    let inverse = em.unary(dialect::Reciprocal {}, divisor);
    em.mul(x, inverse)
}

/// The upper and the lower half of the digits of floats that are not huge, exactly.
///
/// # Source
/// T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
fn halves(em: &mut Emitter, x: ValueId) -> [ValueId; 2] {
    let scaled = em.scale(x, 4097.0);
    let rest = em.sub(scaled, x);
    let upper = em.sub(scaled, rest);
    let lower = em.sub(x, upper);
    [upper, lower]
}

/// `x / divisor` as IEEE division gives it, where the quotient is below 2^17 (beyond, it is as large): TOSA
/// has no division of floats, and a product with the reciprocal may fall to either side of the middle between
/// two integers, which is where quotients of quantised values like to lie. What the product leaves over is
/// computed exactly and divided in turn.
fn quotient(em: &mut Emitter, x: ValueId, divisor: ValueId) -> ValueId {
    let inverse = em.unary(dialect::Reciprocal {}, divisor);
    let product = em.mul(x, inverse);
    let near = em.clamp(product, -131_072.0, 131_072.0);
    let ([upper, lower], [high, low]) = (halves(em, near), halves(em, divisor));
    let mut rest = x;
    for (a, b) in [(upper, high), (upper, low), (lower, high), (lower, low)] {
        let part = em.mul(a, b);
        rest = em.sub(rest, part);
    }
    let more = em.mul(rest, inverse);
    em.add(near, more)
}

/// `x + term` for integers.
pub(super) fn shifted(em: &mut Emitter, x: ValueId, term: i64) -> ValueId {
    let shape = vec![1; em.shape(x).len()];
    let term = em.constant(Tensor::i32(shape, vec![term as i32]));
    em.add(x, term)
}

/// `QuantizeLinear`.
pub(super) fn quantize_linear(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let steps = Steps::of_node(node, [1, 2], x.shape(), node.int("axis", 1)?)?;
    let declared = match node.int("output_dtype", 0)? {
        0 => None,
        code => i32::try_from(code).ok().and_then(|code| DataType::try_from(code).ok()),
    };
    let dtype = steps.dtype.or(declared).unwrap_or(DataType::Uint8);
    single(steps.to_integers(lo, x, dtype)?)
}

/// `DequantizeLinear` of a tensor that is computed at run time.
pub(super) fn dequantize_linear(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let q = node.input(0)?;
    let steps = Steps::of_node(node, [1, 2], q.shape(), node.int("axis", 1)?)?;
    single(steps.to_reals(lo, q)?)
}

/// `DequantizeLinear` of a constant.
pub(in crate::import) fn dequantise(node: &Node<'_>) -> Lowered<Array> {
    let q = node.constant(0, "the integers")?;
    let steps = Steps::of_node(node, [1, 2], &q.shape, node.int("axis", 1)?)?;
    dequantised(q, steps.groups(&q.shape), steps.scales.as_floats()?, &steps.zero_points)
}

/// Operand `at` with its scale and zero point right behind it, as reals.
fn operand(lo: &mut Lowering, node: &Node<'_>, at: usize, axis: i64) -> Lowered<Value> {
    let q = node.input(at)?;
    Steps::of_node(node, [at + 1, at + 2], q.shape(), axis)?.to_reals(lo, q)
}

/// Quantises the result of a node with the scale and zero point at `at`; without a zero point to the type of
/// `like`.
fn quantise_result(
    lo: &mut Lowering,
    node: &Node<'_>,
    real: &Value,
    at: usize,
    like: DataType,
) -> Lowered<Vec<Value>> {
    let steps = Steps::of_node(node, [at, at + 1], real.shape(), 0)?;
    if steps.single().is_none() {
        unsupported!("a result with more than one scale");
    }
    single(steps.to_integers(lo, real, steps.dtype.unwrap_or(like))?)
}

/// A bias of integers in units of input scale times weight scale, as reals.
fn real_bias(bias: &Array, x_scale: &Array, w_scale: &Array, alpha: f32) -> Lowered<Array> {
    let (q, x_scale, w_scales) = (bias.as_ints()?, x_scale.scalar()?, w_scale.as_floats()?);
    if w_scales.len() != 1 && w_scales.len() != q.len() {
        invalid!("a bias of {} elements for {} scales", q.len(), w_scales.len());
    }
    let real = |(at, &q): (usize, &i64)| {
        let w_scale = w_scales[if w_scales.len() == 1 { 0 } else { at }];
        (q as f64 * f64::from(x_scale) * f64::from(w_scale) * f64::from(alpha)) as f32
    };
    Ok(Array::floats(bias.shape.clone(), q.iter().enumerate().map(real).collect()))
}

/// Puts channels first if a node's come last.
fn input_layout(lo: &mut Lowering, node: &Node<'_>, x: Value) -> Lowered<Value> {
    if node.flag("channels_last", false)? { channels_first(lo, &x) } else { Ok(x) }
}

/// Puts channels last if a node's do.
fn output_layout(lo: &mut Lowering, node: &Node<'_>, out: Value) -> Lowered<Value> {
    if node.flag("channels_last", false)? { with_channels_last(lo, &out) } else { Ok(out) }
}

/// `QLinearConv`. onnxruntime's own may have channels last.
pub(super) fn conv(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = operand(lo, node, 0, 0)?;
    let mut inputs = vec![input_layout(lo, node, x)?, operand(lo, node, 3, 0)?];
    if let Some(bias) = node.optional_constant(8, "the bias")? {
        let (x_scale, w_scale) = (node.constant(1, "a scale")?, node.constant(4, "a scale")?);
        inputs.push(real_bias(bias, x_scale, w_scale, 1.0)?.into());
    }
    let real = apply(lo, node, "Conv", inputs)?;
    let real = output_layout(lo, node, real)?;
    quantise_result(lo, node, &real, 6, node.input(0)?.dtype())
}

/// `QLinearMatMul`: rows of the left side and columns of the right may each have a scale.
pub(super) fn matmul(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let inputs = [operand(lo, node, 0, -2)?, operand(lo, node, 3, -1)?];
    let real = apply(lo, node, "MatMul", inputs)?;
    quantise_result(lo, node, &real, 6, node.input(0)?.dtype())
}

/// `QGemm`: without an output scale the result is of floats.
pub(super) fn gemm(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let axis = if node.flag("transB", false)? { 0 } else { 1 };
    let mut inputs = vec![operand(lo, node, 0, 0)?, operand(lo, node, 3, axis)?];
    if let Some(bias) = node.optional_constant(6, "the bias")? {
        let (a_scale, b_scale) = (node.constant(1, "a scale")?, node.constant(4, "a scale")?);
        inputs.push(real_bias(bias, a_scale, b_scale, node.float("alpha", 1.0)?)?.into());
    }
    let real = apply(lo, node, "Gemm", inputs)?;
    if node.optional_input(7).is_none() {
        return single(real);
    }
    quantise_result(lo, node, &real, 7, node.input(0)?.dtype())
}

/// `QLinearAdd` and `QLinearMul`.
pub(super) fn binary(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op_type = node.proto.op_type.trim_start_matches("QLinear").to_owned();
    let inputs = [operand(lo, node, 0, 0)?, operand(lo, node, 3, 0)?];
    let real = apply(lo, node, &op_type, inputs)?;
    quantise_result(lo, node, &real, 6, node.input(0)?.dtype())
}

/// `QLinearSigmoid`, `QLinearLeakyRelu`, `QLinearReduceMean` and `QLinearSoftmax`.
pub(super) fn unary(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op_type = node.proto.op_type.trim_start_matches("QLinear").to_owned();
    let input = operand(lo, node, 0, 0)?;
    let real = apply(lo, node, &op_type, [input])?;
    quantise_result(lo, node, &real, 3, node.input(0)?.dtype())
}

/// `QLinearAveragePool` and `QLinearGlobalAveragePool`.
pub(super) fn pool(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op_type = node.proto.op_type.trim_start_matches("QLinear").to_owned();
    let x = operand(lo, node, 0, 0)?;
    let x = input_layout(lo, node, x)?;
    let real = apply(lo, node, &op_type, [x])?;
    let real = output_layout(lo, node, real)?;
    quantise_result(lo, node, &real, 3, node.input(0)?.dtype())
}

/// `QLinearWhere`: the condition comes first, then either side with its scale and zero point.
pub(super) fn select(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let inputs = [node.input(0)?.clone(), operand(lo, node, 1, 0)?, operand(lo, node, 4, 0)?];
    let real = apply(lo, node, "Where", inputs)?;
    quantise_result(lo, node, &real, 7, node.input(1)?.dtype())
}

/// `MatMulIntegerToFloat`: integers, scales, zero points and a bias of floats; the result is of floats.
pub(super) fn matmul_to_float(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let mut side = |at: usize, axis: i64| -> Lowered<Value> {
        let q = node.input(at)?;
        Steps::of_node(node, [at + 2, at + 4], q.shape(), axis)?.to_reals(lo, q)
    };
    let inputs = [side(0, -2)?, side(1, -1)?];
    let product = apply(lo, node, "MatMul", inputs)?;
    match node.optional_input(6) {
        Some(bias) => single(apply(lo, node, "Add", [product, bias.clone()])?),
        None => single(product),
    }
}

/// `QLinearConcat`: the scale and zero point of the result come first, then each operand with its own.
pub(super) fn concat(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    if node.inputs.len() < 5 || !(node.inputs.len() - 2).is_multiple_of(3) {
        invalid!("{} operands", node.inputs.len());
    }
    let places = (2..node.inputs.len()).step_by(3);
    let inputs = places.map(|at| operand(lo, node, at, 0)).collect::<Lowered<Vec<_>>>()?;
    let real = apply(lo, node, "Concat", inputs)?;
    quantise_result(lo, node, &real, 0, node.input(2)?.dtype())
}

/// `DynamicQuantizeLinear`: the range of the data, with 0, becomes 0 to 255.
pub(super) fn dynamic_quantize_linear(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    if view.dtype != DataType::Float {
        unsupported!("on {:?}", view.dtype);
    }
    let (em, x) = (&mut lo.em, view.value);
    let rank = em.shape(x).len();
    let zero = em.scalar(rank, 0.0);
    let greatest = (0..rank).fold(x, |sofar, axis| em.reduce_max(sofar, axis));
    let greatest = em.maximum(greatest, zero);
    let least = (0..rank).fold(x, |sofar, axis| em.reduce_min(sofar, axis));
    let least = em.minimum(least, zero);
    let span = em.sub(greatest, least);
    let levels = em.scalar(rank, 255.0);
    let scale = quotient(em, span, levels);
    // Data that are all 0 have any scale.
    let is_empty = em.compare(dialect::Equal {}, scale, zero);
    let one = em.scalar(rank, 1.0);
    let scale = em.select(is_empty, one, scale);
    let below = quotient(em, least, scale);
    let below = em.negate(below);
    let below = em.clamp(below, 0.0, 255.0);
    let zero_point = em.cast(below, ElemType::I32);
    let steps = quotient(em, x, scale);
    let rounded = em.cast(steps, ElemType::I32);
    let sum = em.add(rounded, zero_point);
    let (low, high) = (em.scalar_like(sum, 0.0), em.scalar_like(sum, 255.0));
    let raised = em.maximum(sum, low);
    let q = em.minimum(raised, high);
    let mut scalar = |value: ValueId, dtype: DataType| -> Value {
        View::plain(em.reshape(value, &[]), Vec::new(), &[], dtype).into()
    };
    let (scale, zero_point) = (scalar(scale, DataType::Float), scalar(zero_point, DataType::Uint8));
    Ok(vec![view.with_value(q, DataType::Uint8).into(), scale, zero_point])
}
