//! Elementwise operators: one TOSA op where there is one, compositions otherwise.

use strata_ir::dialect;
use strata_ir::{ElemType, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::integer::{self, width};
use super::{Lowering, single};
use crate::import::array::{Array, broadcast_shape, elem_of};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::fold::cast_target;
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::Value;

fn want_float(value: &Value) -> Lowered<()> {
    match value.dtype() {
        DataType::Float => Ok(()),
        other => unsupported!("on {other:?}"),
    }
}

/// What emits the ops of a unary operator.
type Emission = Box<dyn FnOnce(&mut Emitter, ValueId) -> ValueId>;

/// Operators of one tensor.
pub(super) fn unary(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op = node.proto.op_type.as_str();
    let x = node.input(0)?;
    if x.shape().contains(&0) {
        let dtype = if matches!(op, "IsInf" | "IsNaN") { DataType::Bool } else { x.dtype() };
        return single(Array::empty(x.shape(), dtype)?);
    }
    match (op, x.dtype()) {
        ("Not", DataType::Bool) => {}
        ("Not", other) => invalid!("`Not` of {other:?}"),
        ("Abs" | "Neg" | "Relu" | "Sign", DataType::Int8 | DataType::Int16 | DataType::Int32) => {}
        _ => want_float(x)?,
    }
    let out = lo.map(x, emission(node, x.dtype())?)?;
    match (op, out) {
        ("IsInf" | "IsNaN", Value::View(view)) => single(view.with_value(view.value, DataType::Bool)),
        (_, out) => single(out),
    }
}

fn emission(node: &Node<'_>, dtype: DataType) -> Lowered<Emission> {
    let op = node.proto.op_type.as_str();
    if let ("Abs" | "Neg" | "Relu", true) = (op, dtype != DataType::Float) {
        return integer_emission(op, dtype);
    }
    if let Some(emit) = emission_with_attributes(node)? {
        return Ok(emit);
    }
    match emission_without_attributes(op) {
        Some(emit) => Ok(Box::new(emit)),
        None => unsupported!("`{op}` has no unary lowering"),
    }
}

fn integer_emission(op: &str, dtype: DataType) -> Lowered<Emission> {
    if op == "Relu" {
        return Ok(Box::new(|em, x| {
            let zero = em.int_like(x, 0);
            em.maximum(x, zero)
        }));
    }
    // Of the least integer both are that integer again.
    let Some(to) = width(dtype) else { unsupported!("on {dtype:?}") };
    let is_abs = op == "Abs";
    Ok(Box::new(move |em, x| {
        let zero = em.int_like(x, 0);
        let exact = if is_abs { em.unary(dialect::Abs {}, x) } else { em.sub(zero, x) };
        integer::wrap(em, exact, to)
    }))
}

fn emission_with_attributes(node: &Node<'_>) -> Lowered<Option<Emission>> {
    let alpha = |default| node.float("alpha", default);
    Ok(Some(match node.proto.op_type.as_str() {
        "Celu" => {
            let alpha = alpha(1.0)?;
            Box::new(move |em, x| exponential_unit(em, x, alpha, 1.0 / alpha, 1.0))
        }
        "Elu" => {
            let alpha = alpha(1.0)?;
            Box::new(move |em, x| exponential_unit(em, x, alpha, 1.0, 1.0))
        }
        "Gelu" if node.string("approximate", "none")? == "tanh" => Box::new(gelu_tanh),
        "Gelu" => Box::new(gelu),
        "HardSigmoid" => {
            let (alpha, beta) = (alpha(0.2)?, node.float("beta", 0.5)?);
            Box::new(move |em, x| hard_sigmoid(em, x, alpha, beta))
        }
        "IsInf" => {
            let (negative, positive) =
                (node.flag("detect_negative", true)?, node.flag("detect_positive", true)?);
            Box::new(move |em, x| is_infinite(em, x, negative, positive))
        }
        "LeakyRelu" => {
            let alpha = alpha(0.01)?;
            Box::new(move |em, x| {
                let slope = em.scalar_like(x, alpha);
                leaky(em, x, slope, (0.0..=1.0).contains(&alpha))
            })
        }
        "Selu" => {
            let (alpha, gamma) = (alpha(1.673_263_2)?, node.float("gamma", 1.050_701)?);
            Box::new(move |em, x| exponential_unit(em, x, alpha, 1.0, gamma))
        }
        "Shrink" => {
            let (bias, bound) = (node.float("bias", 0.0)?, node.float("lambd", 0.5)?);
            Box::new(move |em, x| shrink(em, x, bias, bound))
        }
        "Swish" => {
            let alpha = alpha(1.0)?;
            Box::new(move |em, x| {
                let scaled = if alpha == 1.0 { x } else { em.scale(x, alpha) };
                let gate = em.unary(dialect::Sigmoid {}, scaled);
                em.mul(x, gate)
            })
        }
        "ThresholdedRelu" => {
            let alpha = alpha(1.0)?;
            Box::new(move |em, x| {
                let (threshold, zero) = (em.scalar_like(x, alpha), em.scalar_like(x, 0.0));
                let above = em.compare(dialect::Greater {}, x, threshold);
                em.select(above, x, zero)
            })
        }
        _ => return Ok(None),
    }))
}

fn emission_without_attributes(op: &str) -> Option<fn(&mut Emitter, ValueId) -> ValueId> {
    Some(match op {
        "Abs" => |em, x| em.unary(dialect::Abs {}, x),
        "Ceil" => |em, x| em.unary(dialect::Ceil {}, x),
        "Cos" => |em, x| em.unary(dialect::Cos {}, x),
        "Erf" => |em, x| em.unary(dialect::Erf {}, x),
        "Exp" => |em, x| em.unary(dialect::Exp {}, x),
        "Floor" => |em, x| em.unary(dialect::Floor {}, x),
        "HardSwish" => |em, x| {
            let gate = hard_sigmoid(em, x, 1.0 / 6.0, 0.5);
            em.mul(x, gate)
        },
        "IsNaN" => |em, x| {
            let number = em.compare(dialect::Equal {}, x, x);
            em.unary(dialect::LogicalNot {}, number)
        },
        "Log" => |em, x| em.unary(dialect::Log {}, x),
        "Mish" => |em, x| {
            let soft = softplus(em, x);
            let gate = em.unary(dialect::Tanh {}, soft);
            em.mul(x, gate)
        },
        "Neg" => Emitter::negate,
        "Not" => |em, x| em.unary(dialect::LogicalNot {}, x),
        "Reciprocal" => |em, x| em.unary(dialect::Reciprocal {}, x),
        "Relu" => |em, x| em.clamp(x, 0.0, f32::MAX),
        "Round" => round_half_even,
        "Sigmoid" => |em, x| em.unary(dialect::Sigmoid {}, x),
        "Sign" => sign,
        "Sin" => |em, x| em.unary(dialect::Sin {}, x),
        "Softplus" => softplus,
        "Softsign" => |em, x| {
            let magnitude = em.unary(dialect::Abs {}, x);
            let divisor = em.shift(magnitude, 1.0);
            divide(em, x, divisor)
        },
        "Sqrt" => Emitter::sqrt,
        "Tanh" => |em, x| em.unary(dialect::Tanh {}, x),
        _ => return None,
    })
}

/// 1, 0 or -1.
fn sign(em: &mut Emitter, x: ValueId) -> ValueId {
    let (zero, one, minus) = (em.scalar_like(x, 0.0), em.scalar_like(x, 1.0), em.scalar_like(x, -1.0));
    let positive = em.compare(dialect::Greater {}, x, zero);
    let negative = em.compare(dialect::Greater {}, zero, x);
    let below = em.select(negative, minus, zero);
    em.select(positive, one, below)
}

/// Whether `x` is one of the infinities that are looked for.
fn is_infinite(em: &mut Emitter, x: ValueId, negative: bool, positive: bool) -> ValueId {
    let greatest = em.scalar_like(x, f32::INFINITY);
    match (negative, positive) {
        (true, false) => {
            let negated = em.negate(x);
            em.compare(dialect::Equal {}, negated, greatest)
        }
        (false, true) => em.compare(dialect::Equal {}, x, greatest),
        (true, true) => {
            let magnitude = em.unary(dialect::Abs {}, x);
            em.compare(dialect::Equal {}, magnitude, greatest)
        }
        (false, false) => em.compare(dialect::Greater {}, x, x),
    }
}

/// The nearest whole number, the even one of two: TOSA has only floors.
pub(super) fn round_half_even(em: &mut Emitter, x: ValueId) -> ValueId {
    let floor = em.unary(dialect::Floor {}, x);
    let above = em.shift(floor, 1.0);
    let rest = em.sub(x, floor);
    let half = em.scalar_like(x, 0.5);
    let more = em.compare(dialect::Greater {}, rest, half);
    let tie = em.compare(dialect::Equal {}, rest, half);
    // An odd number is not twice a whole one.
    let halved = em.scale(floor, 0.5);
    let whole = em.unary(dialect::Floor {}, halved);
    let even = em.compare(dialect::Equal {}, halved, whole);
    let odd = em.unary(dialect::LogicalNot {}, even);
    let odd_tie = em.compare(dialect::LogicalAnd {}, tie, odd);
    let up = em.compare(dialect::LogicalOr {}, more, odd_tie);
    em.select(up, above, floor)
}

/// `x` drawn by `bias` towards 0 where it is beyond `bound`, else 0.
fn shrink(em: &mut Emitter, x: ValueId, bias: f32, bound: f32) -> ValueId {
    let (low, high, zero) = (em.scalar_like(x, -bound), em.scalar_like(x, bound), em.scalar_like(x, 0.0));
    let below = em.compare(dialect::Greater {}, low, x);
    let above = em.compare(dialect::Greater {}, x, high);
    let (raised, lowered) = (em.shift(x, bias), em.shift(x, -bias));
    let kept = em.select(above, lowered, zero);
    em.select(below, raised, kept)
}

/// `a / b` in floats.
pub(super) fn divide(em: &mut Emitter, a: ValueId, b: ValueId) -> ValueId {
    let inverse = em.unary(dialect::Reciprocal {}, b);
    em.mul(a, inverse)
}

/// `clamp(alpha * x + beta, 0, 1)`.
pub(super) fn hard_sigmoid(em: &mut Emitter, x: ValueId, alpha: f32, beta: f32) -> ValueId {
    let scaled = em.scale(x, alpha);
    let shifted = em.shift(scaled, beta);
    em.clamp(shifted, 0.0, 1.0)
}

/// `x` where positive, else `slope * x`.
pub(super) fn leaky(em: &mut Emitter, x: ValueId, slope: ValueId, is_fraction: bool) -> ValueId {
    let sloped = em.mul(x, slope);
    if is_fraction {
        return em.maximum(x, sloped);
    }
    let zero = em.scalar_like(x, 0.0);
    let positive = em.compare(dialect::GreaterEqual {}, x, zero);
    em.select(positive, x, sloped)
}

/// `gamma * (max(x, 0) + alpha * (exp(min(x, 0) * steepness) - 1))`: ELU, CELU and SELU.
pub(super) fn exponential_unit(
    em: &mut Emitter,
    x: ValueId,
    alpha: f32,
    steepness: f32,
    gamma: f32,
) -> ValueId {
    let positive = em.clamp(x, 0.0, f32::MAX);
    let negative = em.clamp(x, f32::MIN, 0.0);
    let exponent = if steepness == 1.0 { negative } else { em.scale(negative, steepness) };
    let power = em.unary(dialect::Exp {}, exponent);
    let below = em.shift(power, -1.0);
    let below = if alpha == 1.0 { below } else { em.scale(below, alpha) };
    let sum = em.add(positive, below);
    if gamma == 1.0 { sum } else { em.scale(sum, gamma) }
}

/// `ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))`, which does not overflow.
pub(super) fn softplus(em: &mut Emitter, x: ValueId) -> ValueId {
    let magnitude = em.unary(dialect::Abs {}, x);
    let negated = em.negate(magnitude);
    let power = em.unary(dialect::Exp {}, negated);
    let shifted = em.shift(power, 1.0);
    let log = em.unary(dialect::Log {}, shifted);
    let positive = em.clamp(x, 0.0, f32::MAX);
    em.add(positive, log)
}

/// `x/2 * (1 + erf(x / sqrt(2)))`.
fn gelu(em: &mut Emitter, x: ValueId) -> ValueId {
    let scaled = em.scale(x, std::f32::consts::FRAC_1_SQRT_2);
    let erf = em.unary(dialect::Erf {}, scaled);
    let gate = em.shift(erf, 1.0);
    let half = em.scale(x, 0.5);
    em.mul(half, gate)
}

/// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³)))`.
fn gelu_tanh(em: &mut Emitter, x: ValueId) -> ValueId {
    let square = em.mul(x, x);
    let cube = em.mul(square, x);
    let term = em.scale(cube, 0.044_715);
    let sum = em.add(x, term);
    let scaled = em.scale(sum, (2.0 / std::f32::consts::PI).sqrt());
    let tanh = em.unary(dialect::Tanh {}, scaled);
    let gate = em.shift(tanh, 1.0);
    let half = em.scale(x, 0.5);
    em.mul(half, gate)
}

/// The second operand as operator sets before 7 broadcast it: on request, its first axis at `axis` of the
/// first operand.
fn explicitly_broadcast(node: &Node<'_>, [a, b]: &[Value; 2]) -> Lowered<Value> {
    if !node.flag("broadcast", false)? {
        if a.shape() != b.shape() {
            invalid!("shapes {:?} and {:?} without `broadcast`", a.shape(), b.shape());
        }
        return Ok(b.clone());
    }
    let axis = node.int("axis", i64::MIN)?;
    if axis == i64::MIN {
        return Ok(b.clone());
    }
    let mut shape = b.shape().to_vec();
    let behind = resolve_axis(axis, a.shape().len())? + shape.len();
    let Some(n_trailing) = a.shape().len().checked_sub(behind) else {
        invalid!("{shape:?} does not fit {:?} at axis {axis}", a.shape())
    };
    shape.extend(std::iter::repeat_n(1, n_trailing));
    match b {
        Value::Const(array) => Ok(array.reshaped(shape).into()),
        Value::View(view) => match view.reshaped(&shape) {
            Some(view) => Ok(view.into()),
            None => invalid!("unit axes cannot be added"),
        },
    }
}

/// Operators of two tensors that broadcast.
pub(super) fn binary(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op = node.proto.op_type.as_str();
    let mut operands = [node.input(0)?.clone(), node.input(1)?.clone()];
    if node.opset < 7 {
        operands[1] = explicitly_broadcast(node, &operands)?;
    }
    let dtype = operands[0].dtype();
    if op == "Pow" && dtype == DataType::Float && operands[1].dtype() != DataType::Float {
        // An integer exponent is a float of the same value.
        operands[1] = as_exponent(lo, &operands[1])?;
    }
    let is_float = operands.iter().all(|o| o.dtype() == DataType::Float);
    if operands[1].dtype() != dtype && op != "Pow" {
        invalid!("operands of types {dtype:?} and {:?}", operands[1].dtype());
    }
    let result = match op {
        "Add" | "Sub" | "Mul" | "Div" if is_float || width(dtype).is_some() => dtype,
        "Pow" if is_float => dtype,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" if dtype != DataType::Bool => {
            DataType::Bool
        }
        "And" | "Or" | "Xor" if dtype == DataType::Bool => DataType::Bool,
        _ => unsupported!("on {dtype:?} and {:?}", operands[1].dtype()),
    };
    if operands.iter().any(|o| o.shape().contains(&0)) {
        return single(Array::empty(broadcast_shape(operands.iter().map(Value::shape))?, result)?);
    }
    // A constant divisor or exponent is better known as a factor or as multiplications.
    if let ("Div", true, Value::Const(divisor)) = (op, is_float, &operands[1]) {
        let inverse = divisor.as_floats()?.iter().map(|v| 1.0 / v).collect();
        let factor = Array::floats(divisor.shape.clone(), inverse);
        let aligned = lo.align(&[operands[0].clone(), factor.into()])?;
        let out = lo.em.mul(aligned.values[0], aligned.values[1]);
        return single(aligned.result(out, result));
    }
    let square = matches!(&operands[1], Value::Const(e) if op == "Pow" && e.scalar().is_ok_and(|e| e == 2.0));
    if square && operands[1].shape().len() <= operands[0].shape().len() {
        return single(lo.map(&operands[0], |em, x| em.mul(x, x))?);
    }
    let aligned = lo.align(&operands)?;
    let [a, b] = aligned.values[..] else { unreachable!("two operands were aligned") };
    let em = &mut lo.em;
    let out = match op {
        "Add" | "Sub" | "Mul" | "Div" if !is_float => match width(dtype) {
            Some(width) => integer::arithmetic(em, op, [a, b], width)?,
            None => unsupported!("on {dtype:?}"),
        },
        "Add" => em.add(a, b),
        "Sub" => em.sub(a, b),
        "Mul" => em.mul(a, b),
        "Div" => divide(em, a, b),
        "Pow" => em.binary(dialect::Pow {}, a, b),
        "Equal" => em.compare(dialect::Equal {}, a, b),
        "Greater" => em.compare(dialect::Greater {}, a, b),
        "GreaterOrEqual" => em.compare(dialect::GreaterEqual {}, a, b),
        "Less" => em.compare(dialect::Greater {}, b, a),
        "LessOrEqual" => em.compare(dialect::GreaterEqual {}, b, a),
        "And" => em.compare(dialect::LogicalAnd {}, a, b),
        "Or" => em.compare(dialect::LogicalOr {}, a, b),
        _ => em.compare(dialect::LogicalXor {}, a, b),
    };
    single(aligned.result(out, result))
}

/// An integer exponent as a float.
fn as_exponent(lo: &mut Lowering, exponent: &Value) -> Lowered<Value> {
    let view = match exponent {
        Value::Const(array) => {
            let ints = array.as_ints()?;
            if ints.iter().any(|v| v.unsigned_abs() > 1 << 24) {
                unsupported!("an exponent beyond 24 bits");
            }
            let floats = ints.iter().map(|&v| v as f32).collect();
            return Ok(Array::floats(array.shape.clone(), floats).into());
        }
        Value::View(view) => view,
    };
    if elem_of(view.dtype)? != ElemType::I32 {
        unsupported!("an exponent of type {:?}", view.dtype);
    }
    let float = lo.em.cast(view.value, ElemType::F32);
    Ok(view.with_value(float, DataType::Float).into())
}

/// `Max`, `Min`, `Sum`, `Mean` of any number of tensors.
pub(super) fn variadic(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let op = node.proto.op_type.as_str();
    let operands = node.all_inputs()?;
    let Some(first) = operands.first() else { invalid!("there are no operands") };
    let dtype = first.dtype();
    if operands.iter().any(|o| o.dtype() != dtype) {
        invalid!("the operands differ in type");
    }
    if matches!(op, "Sum" | "Mean") {
        want_float(first)?;
    }
    let mut values = operands.into_iter();
    let Some(mut sofar) = values.next() else { invalid!("there are no operands") };
    let n = node.inputs.len() as f32;
    for next in values {
        let aligned = lo.align(&[sofar, next])?;
        let [a, b] = aligned.values[..] else { unreachable!("two operands were aligned") };
        let out = match op {
            "Max" => lo.em.maximum(a, b),
            "Min" => lo.em.minimum(a, b),
            _ => lo.em.add(a, b),
        };
        sofar = aligned.result(out, dtype);
    }
    if op == "Mean" {
        sofar = lo.map(&sofar, |em, x| em.scale(x, 1.0 / n))?;
    }
    single(sofar)
}

/// `Clip`: bounds are attributes in older operator sets, operands in newer ones.
pub(super) fn clip(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let bound = |index: usize, name: &str, open: f32| -> Lowered<f32> {
        if let Some(value) = node.optional_float(name)? {
            return Ok(value);
        }
        match node.optional_constant(index, "a bound")? {
            None => Ok(open),
            Some(array) if array.dtype == DataType::Float => array.scalar(),
            Some(array) => match array.as_ints()? {
                &[v] if v.unsigned_abs() < 1 << 24 => Ok(v as f32),
                _ => unsupported!("a bound beyond 24 bits"),
            },
        }
    };
    let (min, max) = (bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?);
    if x.dtype() != DataType::Float {
        // A bound that is left out is the type's own.
        let exact = |v: f32| v.abs() < (1 << 24) as f32;
        let (low, high) = (exact(min), exact(max));
        elem_of(x.dtype())?;
        return single(lo.map(x, |em, mut x| {
            if low {
                let bound = em.scalar_like(x, min);
                x = em.maximum(x, bound);
            }
            if high {
                let bound = em.scalar_like(x, max);
                x = em.minimum(x, bound);
            }
            x
        })?);
    }
    // ONNX takes the upper bound where they cross; TOSA forbids that.
    single(lo.map(x, |em, x| em.clamp(x, min.min(max), max))?)
}

/// `Cast` and `CastLike` of a run-time tensor.
pub(super) fn cast(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let to = cast_target(node)?;
    let from = view.dtype;
    if from == to {
        return single(view);
    }
    let (x, elem) = (view.value, elem_of(to)?);
    let out = match (from, elem) {
        (DataType::Bool, ElemType::F32) => {
            let int = lo.em.cast(x, ElemType::I32);
            lo.em.cast(int, ElemType::F32)
        }
        (DataType::Float, ElemType::I32) => {
            let int = truncated(&mut lo.em, x);
            narrowed(lo, int, None, to)
        }
        (DataType::Float, ElemType::I1) => {
            let zero = lo.em.scalar_like(x, 0.0);
            let is_zero = lo.em.compare(dialect::Equal {}, x, zero);
            lo.em.unary(dialect::LogicalNot {}, is_zero)
        }
        (_, ElemType::I32) => {
            let int = lo.em.cast(x, ElemType::I32);
            narrowed(lo, int, width(from), to)
        }
        _ => lo.em.cast(x, elem),
    };
    single(view.with_value(out, to))
}

/// A float's whole part as an integer: TOSA rounds, so it is truncated first.
pub(super) fn truncated(em: &mut Emitter, x: ValueId) -> ValueId {
    let zero = em.scalar_like(x, 0.0);
    let positive = em.compare(dialect::GreaterEqual {}, x, zero);
    let (floor, ceil) = (em.unary(dialect::Floor {}, x), em.unary(dialect::Ceil {}, x));
    let whole = em.select(positive, floor, ceil);
    em.cast(whole, ElemType::I32)
}

/// The integer that a type of fewer bits keeps of one from another type.
fn narrowed(lo: &mut Lowering, x: ValueId, from: Option<integer::Width>, to: DataType) -> ValueId {
    let last = |w: integer::Width| w.least + (1 << w.bits) - 1;
    match (from, width(to)) {
        (Some(from), Some(to)) if to.least <= from.least && last(from) <= last(to) => x,
        (_, Some(to)) => integer::wrap(&mut lo.em, x, to),
        (_, None) => x,
    }
}

/// `PRelu`: the slope broadcasts to the input, and to nothing larger.
pub(super) fn prelu(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (x, slope) = (node.input(0)?, node.input(1)?);
    want_float(x)?;
    let mut slope = slope.clone();
    if let Value::Const(array) = &slope {
        let n = x.shape().get(1).copied().unwrap_or(1);
        let fits = broadcast_shape([x.shape(), &array.shape[..]]).is_ok_and(|s| s == x.shape());
        if (!fits || node.opset < 7) && array.len() == n && x.shape().len() > 1 {
            // Older exporters write one slope a channel as a vector.
            let mut shape = vec![1; x.shape().len()];
            shape[1] = n;
            slope = array.reshaped(shape).into();
        }
    }
    let is_fraction = match &slope {
        Value::Const(array) => array.as_floats()?.iter().all(|a| (0.0..=1.0).contains(a)),
        Value::View(_) => false,
    };
    if broadcast_shape([x.shape(), slope.shape()])? != x.shape() {
        invalid!("slopes of shape {:?} for a tensor of shape {:?}", slope.shape(), x.shape());
    }
    let aligned = lo.align(&[x.clone(), slope])?;
    let out = leaky(&mut lo.em, aligned.values[0], aligned.values[1], is_fraction);
    single(aligned.result(out, DataType::Float))
}

/// `Where`.
pub(super) fn select(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let operands = [node.input(0)?.clone(), node.input(1)?.clone(), node.input(2)?.clone()];
    let dtype = operands[1].dtype();
    if operands[0].dtype() != DataType::Bool || operands[2].dtype() != dtype {
        invalid!("`Where` of {:?}, {dtype:?} and {:?}", operands[0].dtype(), operands[2].dtype());
    }
    let aligned = lo.align(&operands)?;
    let [cond, yes, no] = aligned.values[..] else { unreachable!("three operands were aligned") };
    let out = lo.em.select(cond, yes, no);
    single(aligned.result(out, dtype))
}
