//! Evaluates nodes whose operands are all constant: shape arithmetic, and what exporters leave of weight
//! preparation.
//!
//! Integers and moves of data are computed here, in 64 bits. Float arithmetic has no second implementation:
//! such a node is lowered alone into a scratch function, which the IR's evaluator runs (see [`super::walk`]).

use tract_onnx::pb::tensor_proto::DataType;

use super::array::{Array, Data, broadcast_shape, offsets, strides};
use super::error::{Lowered, invalid};
use super::graph::{Node, resolve_axis};
use super::layout::Value;
use super::lower::{dequantise, reduced_axes};
use super::shapes;

/// What the node computes, or `None` if that is not known while importing, or not from here.
pub(super) fn fold(node: &Node<'_>) -> Lowered<Option<Vec<Array>>> {
    // Shapes are known whether or not the data are.
    match node.proto.op_type.as_str() {
        "Shape" => return shape_of(node).map(|shape| Some(vec![shape])),
        "Size" => {
            let size = node.input(0)?.shape().iter().product::<usize>() as i64;
            return Ok(Some(vec![Array::ints([], vec![size], DataType::Int64)]));
        }
        "Constant" => return constant(node).map(|array| Some(vec![array])),
        _ => {}
    }
    let mut inputs = Vec::new();
    for input in &node.inputs {
        match input {
            Some(Value::View(_)) => return Ok(None),
            Some(Value::Const(array)) => inputs.push(array.as_ref()),
            None => {}
        }
    }
    let Some(&first) = inputs.first() else { return Ok(None) };
    let one = |array: Array| Ok(Some(vec![array]));
    match node.proto.op_type.as_str() {
        "Identity" => one(first.clone()),
        "DequantizeLinear" => dequantise(node).and_then(one),
        "ConstantOfShape" => constant_of_shape(node).and_then(one),
        "Cast" | "CastLike" => cast(node, first),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            one(first.reshaped(shapes::reshaped(node, &first.shape)?))
        }
        "Transpose" => one(first.transposed(&shapes::transpose_perm(node, first.shape.len())?)),
        "Concat" => concat(node, &inputs).and_then(one),
        "Slice" => {
            let ranges = shapes::slice_ranges(node, &first.shape)?;
            let steps = strides(&first.shape);
            let shape: Vec<_> = ranges.iter().map(|r| r.n).collect();
            let mut places = vec![0usize];
            for (range, step) in ranges.iter().zip(steps) {
                let along = move |i: usize| (range.start as i64 + i as i64 * range.step) as usize * step;
                places = places.iter().flat_map(|&base| (0..range.n).map(move |i| base + along(i))).collect();
            }
            one(first.gathered(shape, &places))
        }
        "Split" => {
            let (axis, sizes) = shapes::split_sizes(node, &first.shape)?;
            let steps = strides(&first.shape);
            let mut start = 0;
            let part = |size: usize| {
                let mut shape = first.shape.clone();
                shape[axis] = size;
                let places: Vec<_> =
                    offsets(&shape, &steps).iter().map(|at| at + start * steps[axis]).collect();
                start += size;
                first.gathered(shape, &places)
            };
            Ok(Some(sizes.into_iter().map(part).collect()))
        }
        "Gather" => gather(node, first).and_then(one),
        "Expand" => {
            let target = shapes::shape_operand(node, 1)?;
            let shape = broadcast_shape([&first.shape[..], &target[..]])?;
            one(first.broadcast_to(&shape))
        }
        "Range" => range(&inputs),
        "Where" => select(&inputs),
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(node, first),
        op => match inputs[..] {
            [a] => unary(op, a),
            [a, b] => binary(op, a, b),
            _ => Ok(None),
        },
    }
}

fn shape_of(node: &Node<'_>) -> Lowered<Array> {
    let shape = node.input(0)?.shape();
    let rank = shape.len() as i64;
    let bound = |value: i64| (if value < 0 { value + rank } else { value }).clamp(0, rank) as usize;
    let (start, end) = (bound(node.int("start", 0)?), bound(node.int("end", rank)?));
    Ok(Array::vector(shape[start..end.max(start)].iter().map(|&e| e as i64).collect()))
}

fn constant(node: &Node<'_>) -> Lowered<Array> {
    if let Some(tensor) = node.tensor("value")? {
        return Array::decode(tensor);
    }
    if let Some(values) = node.floats("value_floats")? {
        return Ok(Array::floats([values.len()], values.to_vec()));
    }
    if let Some(values) = node.ints("value_ints")? {
        return Ok(Array::vector(values.to_vec()));
    }
    if let Some(value) = node.optional_float("value_float")? {
        return Ok(Array::floats([], vec![value]));
    }
    if node.proto.attribute.iter().any(|a| a.name == "value_int") {
        return Ok(Array::ints([], vec![node.int("value_int", 0)?], DataType::Int64));
    }
    super::error::unsupported!("a constant that is neither a dense tensor nor a number")
}

fn constant_of_shape(node: &Node<'_>) -> Lowered<Array> {
    let shape = shapes::shape_operand(node, 0)?;
    let value = match node.tensor("value")? {
        Some(tensor) => Array::decode(tensor)?,
        None => Array::floats([1], vec![0.0]),
    };
    if value.len() != 1 {
        invalid!("the value has {} elements", value.len());
    }
    let n = shape.iter().product();
    Ok(value.gathered(shape, &vec![0; n]))
}

/// The ONNX type that a `Cast` or `CastLike` casts to.
pub(super) fn cast_target(node: &Node<'_>) -> Lowered<DataType> {
    if node.proto.op_type == "CastLike" {
        return Ok(node.input(1)?.dtype());
    }
    if node.opset < 6 {
        // A name, in capitals.
        let name = node.string("to", "")?;
        let named =
            (0..64).filter_map(|code| DataType::try_from(code).ok()).find(|t| t.as_str_name() == name);
        return match named {
            Some(to) => Ok(to),
            None => invalid!("attribute `to` is `{name}`, no element type"),
        };
    }
    match i32::try_from(node.int("to", 0)?).map(DataType::try_from) {
        Ok(Ok(to)) => Ok(to),
        // A type that later versions of ONNX have.
        _ => super::error::unsupported!("a cast to element type {}", node.int("to", 0)?),
    }
}

fn cast(node: &Node<'_>, x: &Array) -> Lowered<Option<Vec<Array>>> {
    let to = cast_target(node)?;
    let wrap = |v: i64| match to {
        DataType::Int8 => i64::from(v as i8),
        DataType::Uint8 => i64::from(v as u8),
        DataType::Int16 => i64::from(v as i16),
        DataType::Uint16 => i64::from(v as u16),
        DataType::Int32 => i64::from(v as i32),
        DataType::Uint32 => i64::from(v as u32),
        _ => v,
    };
    let float = matches!(to, DataType::Float | DataType::Double);
    let int = matches!(
        to,
        DataType::Int8
            | DataType::Uint8
            | DataType::Int16
            | DataType::Uint16
            | DataType::Int32
            | DataType::Uint32
            | DataType::Int64
    );
    let shape = x.shape.clone();
    let out = match &x.data {
        Data::Float(v) if float => Array::floats(shape, v.to_vec()),
        Data::Float(v) if int => Array::ints(shape, v.iter().map(|&f| wrap(f as i64)).collect(), to),
        Data::Float(v) if to == DataType::Bool => Array::bools(shape, v.iter().map(|&f| f != 0.0).collect()),
        Data::Int(v) if float => Array::floats(shape, v.iter().map(|&i| i as f32).collect()),
        Data::Int(v) if int => Array::ints(shape, v.iter().map(|&i| wrap(i)).collect(), to),
        Data::Int(v) if to == DataType::Bool => Array::bools(shape, v.iter().map(|&i| i != 0).collect()),
        Data::Bool(v) if float => Array::floats(shape, v.iter().map(|&b| f32::from(u8::from(b))).collect()),
        Data::Bool(v) if int => Array::ints(shape, v.iter().map(|&b| i64::from(b)).collect(), to),
        Data::Bool(_) if to == DataType::Bool => x.clone(),
        _ => return Ok(None),
    };
    Ok(Some(vec![Array { dtype: to, ..out }]))
}

fn concat(node: &Node<'_>, inputs: &[&Array]) -> Lowered<Array> {
    let rank = inputs[0].shape.len();
    let axis = resolve_axis(node.int("axis", 1)?, rank)?;
    let n_inner: usize = inputs[0].shape[axis + 1..].iter().product();
    let n_outer: usize = inputs[0].shape[..axis].iter().product();
    for array in inputs {
        let fits = array.shape.len() == rank
            && (0..rank).all(|a| a == axis || array.shape[a] == inputs[0].shape[a])
            && std::mem::discriminant(&array.data) == std::mem::discriminant(&inputs[0].data);
        if !fits {
            invalid!("{:?} cannot be joined to {:?} along axis {axis}", array.shape, inputs[0].shape);
        }
    }
    let mut shape = inputs[0].shape.clone();
    shape[axis] = inputs.iter().map(|a| a.shape[axis]).sum();
    fn join<T: Copy>(parts: &[(&[T], usize)], n_outer: usize) -> Vec<T> {
        (0..n_outer)
            .flat_map(|o| parts.iter().flat_map(move |(p, n)| p[o * n..(o + 1) * n].iter().copied()))
            .collect()
    }
    let chunk = |a: &Array| a.shape[axis] * n_inner;
    Ok(match &inputs[0].data {
        Data::Float(_) => {
            let parts: Vec<_> =
                inputs.iter().map(|a| Ok((a.as_floats()?, chunk(a)))).collect::<Lowered<_>>()?;
            Array { dtype: inputs[0].dtype, ..Array::floats(shape, join(&parts, n_outer)) }
        }
        Data::Int(_) => {
            let parts: Vec<_> =
                inputs.iter().map(|a| Ok((a.as_ints()?, chunk(a)))).collect::<Lowered<_>>()?;
            Array::ints(shape, join(&parts, n_outer), inputs[0].dtype)
        }
        Data::Bool(_) => {
            let as_bools = |a: &&Array| if let Data::Bool(v) = &a.data { v.to_vec() } else { Vec::new() };
            let owned: Vec<Vec<bool>> = inputs.iter().map(as_bools).collect();
            let parts: Vec<_> = owned.iter().zip(inputs).map(|(v, a)| (&v[..], chunk(a))).collect();
            Array::bools(shape, join(&parts, n_outer))
        }
    })
}

fn gather(node: &Node<'_>, data: &Array) -> Lowered<Array> {
    let axis = resolve_axis(node.int("axis", 0)?, data.shape.len())?;
    let indices = node.constant(1, "the indices")?;
    let mut places = Vec::new();
    let n_inner: usize = data.shape[axis + 1..].iter().product();
    let n_outer: usize = data.shape[..axis].iter().product();
    let resolved = resolve_indices(indices, data.shape[axis])?;
    for outer in 0..n_outer {
        for &index in &resolved {
            let base = (outer * data.shape[axis] + index) * n_inner;
            places.extend(base..base + n_inner);
        }
    }
    let shape = [&data.shape[..axis], &indices.shape[..], &data.shape[axis + 1..]].concat();
    Ok(data.gathered(shape, &places))
}

/// Indices counted from the front, all below `extent`.
pub(super) fn resolve_indices(indices: &Array, extent: usize) -> Lowered<Vec<usize>> {
    let mut out = Vec::new();
    for &index in indices.as_ints()? {
        let from_front = if index < 0 { index + extent as i64 } else { index };
        match usize::try_from(from_front) {
            Ok(i) if i < extent => out.push(i),
            _ => invalid!("index {index} of an axis of extent {extent}"),
        }
    }
    Ok(out)
}

fn range(inputs: &[&Array]) -> Lowered<Option<Vec<Array>>> {
    let [start, limit, delta] = inputs else { invalid!("start, limit and delta are needed") };
    if let Data::Float(_) = start.data {
        let [s, l, d] = [start.scalar()?, limit.scalar()?, delta.scalar()?].map(f64::from);
        let n = ((l - s) / d).ceil().max(0.0);
        if n.is_nan() || n > f64::from(1 << 24) {
            super::error::unsupported!("a range of {n} numbers");
        }
        let numbers = (0..n as usize).map(|i| (s + i as f64 * d) as f32).collect::<Vec<_>>();
        return Ok(Some(vec![Array { dtype: start.dtype, ..Array::floats([numbers.len()], numbers) }]));
    }
    let (Data::Int(s), Data::Int(l), Data::Int(d)) = (&start.data, &limit.data, &delta.data) else {
        return Ok(None);
    };
    let (&[s], &[l], &[d]) = (&s[..], &l[..], &d[..]) else { invalid!("start, limit and delta are scalars") };
    let span = if d > 0 { l.saturating_sub(s) } else { s.saturating_sub(l) };
    let n = match d {
        0 => invalid!("delta is zero"),
        _ => span.max(0).unsigned_abs().div_ceil(d.unsigned_abs()),
    };
    if n > 1 << 24 {
        super::error::unsupported!("a range of {n} numbers");
    }
    Ok(Some(vec![Array::ints([n as usize], (0..n as i64).map(|i| s + i * d).collect(), start.dtype)]))
}

fn select(inputs: &[&Array]) -> Lowered<Option<Vec<Array>>> {
    let [cond, yes, no] = inputs else { invalid!("a condition and two values are needed") };
    let shape = broadcast_shape(inputs.iter().map(|a| &a.shape[..]))?;
    let Data::Bool(cond) = &cond.broadcast_to(&shape).data else { invalid!("the condition is not boolean") };
    let (yes, no) = (yes.broadcast_to(&shape), no.broadcast_to(&shape));
    let pick = |i: usize| cond[i];
    Ok(Some(vec![match (&yes.data, &no.data) {
        (Data::Int(y), Data::Int(n)) => {
            let data = (0..y.len()).map(|i| if pick(i) { y[i] } else { n[i] }).collect();
            Array::ints(shape, data, yes.dtype)
        }
        (Data::Float(y), Data::Float(n)) => {
            let data = (0..y.len()).map(|i| if pick(i) { y[i] } else { n[i] }).collect();
            Array { dtype: yes.dtype, ..Array::floats(shape, data) }
        }
        _ => return Ok(None),
    }]))
}

fn reduce(node: &Node<'_>, x: &Array) -> Lowered<Option<Vec<Array>>> {
    let Data::Int(data) = &x.data else { return Ok(None) };
    let rank = x.shape.len();
    let axes = reduced_axes(node, rank)?;
    let keep = node.flag("keepdims", true)?;
    let kept: Vec<_> = (0..rank).map(|a| if axes.contains(&a) { 1 } else { x.shape[a] }).collect();
    let own = strides(&kept);
    let step: Vec<_> = (0..rank).map(|a| if axes.contains(&a) { 0 } else { own[a] }).collect();
    let mut out: Vec<Option<i64>> = vec![None; kept.iter().product()];
    for (at, &value) in offsets(&x.shape, &step).into_iter().zip(data.iter()) {
        out[at] = Some(match (out[at], node.proto.op_type.as_str()) {
            (None, _) => value,
            (Some(sofar), "ReduceProd") => sofar.wrapping_mul(value),
            (Some(sofar), "ReduceSum") => sofar.wrapping_add(value),
            (Some(sofar), "ReduceMax") => sofar.max(value),
            (Some(sofar), _) => sofar.min(value),
        });
    }
    let Some(out) = out.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let shape = (0..rank).filter(|a| keep || !axes.contains(a)).map(|a| kept[a]).collect::<Vec<_>>();
    Ok(Some(vec![Array::ints(shape, out, x.dtype)]))
}

fn unary(op: &str, x: &Array) -> Lowered<Option<Vec<Array>>> {
    let shape = x.shape.clone();
    Ok(match (op, &x.data) {
        ("Neg", Data::Int(v)) => {
            Some(vec![Array::ints(shape, v.iter().map(|i| i.wrapping_neg()).collect(), x.dtype)])
        }
        ("Abs", Data::Int(v)) => {
            Some(vec![Array::ints(shape, v.iter().map(|i| i.wrapping_abs()).collect(), x.dtype)])
        }
        ("Not", Data::Bool(v)) => Some(vec![Array::bools(shape, v.iter().map(|b| !b).collect())]),
        _ => None,
    })
}

fn binary(op: &str, a: &Array, b: &Array) -> Lowered<Option<Vec<Array>>> {
    let dtype = a.dtype;
    // Narrow types would have to wrap at their own width; shape arithmetic has none of them.
    if !matches!(dtype, DataType::Int64 | DataType::Int32 | DataType::Bool) {
        return Ok(None);
    }
    let shape = broadcast_shape([&a.shape[..], &b.shape[..]])?;
    let (a, b) = (a.broadcast_to(&shape), b.broadcast_to(&shape));
    let arithmetic: Option<fn(i64, i64) -> Option<i64>> = match op {
        "Add" => Some(i64::checked_add),
        "Sub" => Some(i64::checked_sub),
        "Mul" => Some(i64::checked_mul),
        "Div" => Some(i64::checked_div),
        "Mod" => Some(|a, b| a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })),
        "Min" => Some(|a, b| Some(a.min(b))),
        "Max" => Some(|a, b| Some(a.max(b))),
        "Pow" => Some(|a, b| a.checked_pow(u32::try_from(b).ok()?)),
        _ => None,
    };
    let comparison: Option<fn(i64, i64) -> bool> = match op {
        "Equal" => Some(|a, b| a == b),
        "Less" => Some(|a, b| a < b),
        "LessOrEqual" => Some(|a, b| a <= b),
        "Greater" => Some(|a, b| a > b),
        "GreaterOrEqual" => Some(|a, b| a >= b),
        _ => None,
    };
    Ok(match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let pairs = x.iter().copied().zip(y.iter().copied());
            if let Some(f) = arithmetic {
                let Some(data) = pairs.map(|(x, y)| f(x, y)).collect::<Option<Vec<_>>>() else {
                    invalid!("integer constants overflow or are divided by zero")
                };
                Some(vec![Array::ints(shape, data, dtype)])
            } else {
                comparison.map(|f| vec![Array::bools(shape, pairs.map(|(x, y)| f(x, y)).collect())])
            }
        }
        (Data::Bool(x), Data::Bool(y)) => {
            let f: fn(bool, bool) -> bool = match op {
                "And" => |a, b| a && b,
                "Or" => |a, b| a || b,
                "Xor" => |a, b| a ^ b,
                "Equal" => |a, b| a == b,
                _ => return Ok(None),
            };
            Some(vec![Array::bools(shape, x.iter().zip(y.iter()).map(|(&a, &b)| f(a, b)).collect())])
        }
        _ => None,
    })
}
