//! Products of integers, `ConvInteger` and `MatMulInteger`, as TOSA's of `i8` with zero points, exactly.
//!
//! TOSA's zero points are constants. One that is computed at run time (by `DynamicQuantizeLinear`) is left in
//! the left side, its padding too, and what that adds to the product, the zero point times the sums of the
//! weights, is taken away afterwards.

use strata_ir::dialect;
use strata_ir::{ElemType, Tensor, TensorData, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::quantised::shifted;
use super::{Lowering, single};
use crate::import::array::Array;
use crate::import::emit::Pads;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// What is taken away from an 8-bit integer to make it an `i8`.
fn offset(dtype: DataType) -> Lowered<i64> {
    match dtype {
        DataType::Int8 => Ok(0),
        DataType::Uint8 => Ok(128),
        other => unsupported!("an integer product of {other:?}"),
    }
}

/// The zero point of an operand of an integer product.
enum ZeroPoint {
    /// An `i8` constant of one element.
    Constant(ValueId),
    /// Computed at run time: an `i32` of one element, of the operand's own type.
    Computed(ValueId),
}

/// The zero point at `at` of an operand of `dtype`; 0 if it is left out.
fn zero_point(lo: &mut Lowering, node: &Node<'_>, at: usize, dtype: DataType) -> Lowered<ZeroPoint> {
    let offset = offset(dtype)?;
    let zero_point = match node.optional_input(at) {
        Some(Value::View(view)) if view.shape.iter().product::<usize>() == 1 => {
            return Ok(ZeroPoint::Computed(lo.em.reshape(view.value, &[1])));
        }
        Some(Value::View(_)) => unsupported!("a zero point for each channel"),
        Some(Value::Const(array)) => match array.as_ints()? {
            [first, rest @ ..] if rest.iter().all(|zp| zp == first) => *first,
            _ => unsupported!("a zero point for each channel"),
        },
        None => 0,
    };
    match i8::try_from(zero_point - offset) {
        Ok(zero_point) => Ok(ZeroPoint::Constant(lo.em.constant(Tensor::i8([1], vec![zero_point])))),
        Err(_) => invalid!("a zero point of {zero_point} for {dtype:?}"),
    }
}

/// The left side of an integer product, ready to be multiplied: `i8` with a constant zero point, and what the
/// sum of the weights has to be multiplied with and taken away afterwards, since TOSA's zero points are
/// constants.
struct Left {
    value: ValueId,
    zero_point: ValueId,
    correction: Option<ValueId>,
}

/// Makes the left side of `i32` integers in the layout of the product. Padding `[top, bottom, left, right]`
/// holds the zero point, and is left to the product where that is constant.
fn left(
    lo: &mut Lowering,
    x: ValueId,
    dtype: DataType,
    zero_point: &ZeroPoint,
    pads: &mut Pads,
) -> Lowered<Left> {
    let offset = offset(dtype)?;
    let em = &mut lo.em;
    match *zero_point {
        ZeroPoint::Constant(zero_point) => {
            let centred = if offset == 0 { x } else { shifted(em, x, -offset) };
            Ok(Left { value: em.cast(centred, ElemType::I8), zero_point, correction: None })
        }
        ZeroPoint::Computed(zero_point) => {
            let rank = em.shape(x).len();
            let zero_point = em.reshape(zero_point, &vec![1; rank]);
            let mut centred = em.sub(x, zero_point);
            if rank == 4 {
                centred = em.pad_spatial(centred, std::mem::take(pads), 0.0);
            }
            let zero_point = if offset == 0 { zero_point } else { shifted(em, zero_point, -offset) };
            let stored = em.add(centred, zero_point);
            let zero = em.constant(Tensor::i8([1], vec![0]));
            Ok(Left { value: em.cast(stored, ElemType::I8), zero_point: zero, correction: Some(zero_point) })
        }
    }
}

/// The right side of an integer product as `i8`, in the order of its axes; a constant.
fn right(lo: &mut Lowering, array: &Array) -> Lowered<ValueId> {
    let offset = offset(array.dtype)?;
    let ints = array.as_ints()?.iter().map(|q| q - offset);
    let Some(data) = TensorData::from_ints(ElemType::I8, ints) else { invalid!("not of 8 bits") };
    Ok(lo.em.constant(Tensor::new(array.shape.clone(), data)))
}

/// Takes the zero point of the left side out of a product: `out - correction * sums`, with the sums of the
/// weights that each channel, the last axis, multiplies.
fn corrected(lo: &mut Lowering, out: ValueId, correction: Option<ValueId>, sums: Vec<i64>) -> ValueId {
    let Some(correction) = correction else { return out };
    let mut shape = vec![1; lo.em.shape(out).len()];
    if let Some(last) = shape.last_mut() {
        *last = sums.len();
    }
    let sums = lo.em.constant(Tensor::i32(shape, sums.into_iter().map(|sum| sum as i32).collect()));
    let excess = lo.em.mul(correction, sums);
    lo.em.sub(out, excess)
}

/// The zero point of the weights: it has to be constant.
fn weight_zero_point(zero_point: ZeroPoint) -> Lowered<ValueId> {
    match zero_point {
        ZeroPoint::Constant(value) => Ok(value),
        ZeroPoint::Computed(_) => unsupported!("a zero point of weights that is computed at run time"),
    }
}

/// The number that a constant zero point holds.
fn number(lo: &Lowering, zero_point: ValueId) -> i64 {
    lo.em.module.constant(zero_point).and_then(|e| e.tensor.data().int_at(0)).unwrap_or(0)
}

/// `ConvInteger`: taps outside the input count as its zero point.
pub(super) fn conv_integer(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (input, weight) = (node.input(0)?, node.constant(1, "the weight")?);
    let (rank, dtype) = (input.shape().len(), input.dtype());
    let zero = zero_point(lo, node, 2, dtype)?;
    let weight_zero = weight_zero_point(zero_point(lo, node, 3, weight.dtype)?)?;
    let weight = match weight.shape[..] {
        [a, b, w] if rank == 3 => weight.reshaped([a, b, 1, w]),
        [_, _, _, _] if rank == 4 => weight.clone(),
        ref other => unsupported!("a weight of shape {other:?} for a tensor of rank {rank}"),
    };
    let &[n_out, n_per_group, kh, kw] = &weight.shape[..] else { invalid!("weight shape") };
    // The layout is that of floats; only the elements differ.
    let view = lo.view(input)?;
    let x = lo.nhwc(&view.with_value(view.value, DataType::Float).into())?;
    let &[_, h, w, n_in] = lo.em.shape(x) else { invalid!("input shape") };
    let group = super::conv::n_groups(node, n_in, n_out)?;
    if n_per_group * group != n_in {
        invalid!("a weight for {} channels on an input of {n_in}", n_per_group * group);
    }
    let window = super::conv::window(node, rank, [kh as i64, kw as i64], [h, w])?;
    let (x, mut window) = lo.fit_window(x, window, None)?;
    let x = left(lo, x, dtype, &zero, &mut window.pads)?;
    let (pad, stride, dilation) = (window.pads, window.stride, window.dilation);
    let (acc_type, local_bound) = (ElemType::I32, false);
    let bias = lo.em.constant(Tensor::i32([1], vec![0]));
    let weight_offset = offset(weight.dtype)? + number(lo, weight_zero);
    let per_channel = n_per_group * kh * kw;
    let sums = weight.as_ints()?.chunks(per_channel.max(1));
    let sums = sums.map(|taps| taps.iter().map(|q| q - weight_offset).sum()).collect();
    let out = if n_per_group == 1 && group > 1 {
        let taps = weight.reshaped([group, n_out / group, kh, kw]).transposed(&[2, 3, 0, 1]);
        let taps = right(lo, &taps)?;
        let shape = lo.em.windowed(x.value, &window, n_out);
        let op = dialect::DepthwiseConv2d { pad, stride, dilation, acc_type, local_bound };
        lo.em.op(op, &[x.value, taps, bias, x.zero_point, weight_zero], shape, ElemType::I32)
    } else {
        let taps = weight.transposed(&[0, 2, 3, 1]);
        let mut parts = Vec::new();
        for index in 0..group {
            let start = index * n_per_group;
            let part = if group == 1 { x.value } else { lo.em.slice_axis(x.value, 3, start, n_per_group) };
            let taps = right(lo, &super::conv::part_of(&taps, index, group))?;
            let shape = lo.em.windowed(part, &window, n_out / group);
            let op = dialect::Conv2d { pad, stride, dilation, acc_type, local_bound };
            let operands = [part, taps, bias, x.zero_point, weight_zero];
            parts.push(lo.em.op(op, &operands, shape, ElemType::I32));
        }
        lo.em.concat(&parts, 3)
    };
    let out = corrected(lo, out, x.correction, sums);
    match lo.nhwc_result(out, rank) {
        Value::View(view) => single(view.with_value(out, DataType::Int32)),
        Value::Const(_) => unreachable!("a run-time value"),
    }
}

/// `MatMulInteger`.
pub(super) fn matmul_integer(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.constant(1, "the right side")?);
    let (a_shape, b_shape) = (a.shape().to_vec(), b.shape.clone());
    let ([lead @ .., rows, k], &[b_rows, columns]) = (&a_shape[..], &b_shape[..]) else {
        unsupported!("{a_shape:?} times {b_shape:?}")
    };
    if *k != b_rows {
        invalid!("{a_shape:?} times {b_shape:?}");
    }
    let zero = zero_point(lo, node, 2, a.dtype())?;
    let weight_zero = weight_zero_point(zero_point(lo, node, 3, b.dtype)?)?;
    let n_rows = lead.iter().product::<usize>() * rows;
    let view = lo.view(a)?;
    let identity: Vec<_> = (0..a_shape.len()).collect();
    let x = lo.in_order_as(&view, &identity, &[1, n_rows, *k]);
    let x = left(lo, x, a.dtype(), &zero, &mut [0; 4])?;
    let weight_offset = offset(b.dtype)? + number(lo, weight_zero);
    let mut sums = vec![0; columns];
    for row in b.as_ints()?.chunks(columns.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, q)| *sum += q - weight_offset);
    }
    let b = right(lo, &b.reshaped([1, *k, columns]))?;
    let operands = [x.value, b, x.zero_point, weight_zero];
    let out = lo.em.op(dialect::MatMul {}, &operands, vec![1, n_rows, columns], ElemType::I32);
    let out = corrected(lo, out, x.correction, sums);
    let shape = [lead, &[*rows, columns]].concat();
    let identity: Vec<_> = (0..shape.len()).collect();
    single(View::plain(out, shape, &identity, DataType::Int32))
}
