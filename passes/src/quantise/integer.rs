//! Integer convolutions and matrix products on floating-point kernels, bit for bit what the reference
//! evaluator gives.
//!
//! An accumulator whose terms add up to less than 2^24 in magnitude is exact in single precision whatever the
//! order of its sum, and one below 2^53 in double precision. The bound of every op is computed from its
//! operands; where neither holds, or 32 bits would wrap, there is no fast result and the evaluator does it.

use strata_ir::{ElemType, Op, Tensor, TensorData, Type};

use crate::quantise::gemm::Real;
use crate::quantise::kernels::{Operand, conv2d, depthwise_conv2d, matmul, transpose_conv2d};

/// Magnitudes below which every integer is exact in single and in double precision.
const EXACT_SINGLE: f64 = (1_u64 << 24) as f64;
const EXACT_DOUBLE: f64 = (1_u64 << 53) as f64;

/// A number type that holds small integers.
trait Holds: Real {
    fn of(integer: i64) -> Self;
    fn integer(self) -> i64;
}

impl Holds for f32 {
    fn of(integer: i64) -> Self {
        integer as Self
    }
    fn integer(self) -> i64 {
        self as i64
    }
}

impl Holds for f64 {
    fn of(integer: i64) -> Self {
        integer as Self
    }
    fn integer(self) -> i64 {
        self as i64
    }
}

/// The result of an integer op that has a fast kernel, if its operands are such that the kernel is exact.
pub(super) fn fast(op: &Op, operands: &[&Tensor], results: &[Type]) -> Option<Tensor> {
    let ty = results.first()?.as_tensor()?;
    let limit = match ty.elem {
        ElemType::I32 => 2_f64.powi(31),
        ElemType::I48 => 2_f64.powi(47),
        _ => return None,
    };
    let bias_at = match op {
        Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_) => Some(2),
        Op::MatMul(_) => None,
        _ => return None,
    };
    let first_zero_point = if bias_at.is_some() { 3 } else { 2 };
    let zero_point = |at: usize| operands.get(first_zero_point + at)?.data().int_at(0);
    let (input, weight) = (*operands.first()?, *operands.get(1)?);
    let zero_points = [zero_point(0)?, zero_point(1)?];
    // What one accumulator sums: the terms of an output, for a transposed convolution at most all taps.
    let depth = match op {
        Op::Conv2d(_) | Op::TransposeConv2d(_) => weight.shape().get(1..)?.iter().product::<usize>(),
        Op::DepthwiseConv2d(_) => weight.shape().get(..2)?.iter().product(),
        _ => *input.shape().last()?,
    };
    let bias = match bias_at {
        Some(at) => Some(*operands.get(at)?),
        None => None,
    };
    let reach = |tensor: &Tensor, zero_point: i64| -> Option<f64> {
        let least_greatest = |values: &mut dyn Iterator<Item = i64>| {
            values.fold((0, 0), |(low, high): (i64, i64), v| (low.min(v), high.max(v)))
        };
        let (low, high) = match tensor.data() {
            TensorData::I8(v) => least_greatest(&mut v.iter().map(|&v| i64::from(v) - zero_point)),
            TensorData::I16(v) => least_greatest(&mut v.iter().map(|&v| i64::from(v) - zero_point)),
            TensorData::I32(v) => least_greatest(&mut v.iter().map(|&v| i64::from(v))),
            TensorData::I48(v) => least_greatest(&mut v.iter().copied()),
            _ => return None,
        };
        Some((-low).max(high) as f64)
    };
    let products = reach(input, zero_points[0])? * reach(weight, zero_points[1])? * depth as f64;
    let bound = products + bias.map_or(Some(0.0), |bias| reach(bias, 0))?;
    let run = Run { op, input, weight, bias, zero_points, shape: &ty.shape };
    let sums = if bound < EXACT_SINGLE.min(limit) {
        run.sums::<f32>()?
    } else if bound < EXACT_DOUBLE.min(limit) {
        run.sums::<f64>()?
    } else {
        return None;
    };
    Some(Tensor::new(ty.shape.clone(), TensorData::from_ints(ty.elem, sums)?))
}

/// One op and its operands.
struct Run<'a> {
    op: &'a Op,
    input: &'a Tensor,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    zero_points: [i64; 2],
    shape: &'a [usize],
}

impl Run<'_> {
    fn sums<T: Holds>(&self) -> Option<Vec<i64>> {
        let input = widened::<T>(self.input, self.zero_points[0])?;
        let weight = widened::<T>(self.weight, self.zero_points[1])?;
        let bias = self.bias.map_or(Some(Vec::new()), |bias| widened::<T>(bias, 0))?;
        let input = Operand { data: &input, shape: self.input.shape() };
        let weight = Operand { data: &weight, shape: self.weight.shape() };
        let sums = match self.op {
            Op::Conv2d(op) => conv2d(op, input, weight, &bias, self.shape)?,
            Op::DepthwiseConv2d(op) => depthwise_conv2d(op, input, weight, &bias, self.shape)?,
            Op::TransposeConv2d(op) => transpose_conv2d(op, input, weight, &bias, self.shape)?,
            Op::MatMul(_) => matmul(input, weight, self.shape)?,
            _ => return None,
        };
        Some(sums.into_iter().map(Holds::integer).collect())
    }
}

fn widened<T: Holds>(tensor: &Tensor, zero_point: i64) -> Option<Vec<T>> {
    Some(match tensor.data() {
        TensorData::I8(v) => v.iter().map(|&v| T::of(i64::from(v) - zero_point)).collect(),
        TensorData::I16(v) => v.iter().map(|&v| T::of(i64::from(v) - zero_point)).collect(),
        TensorData::I32(v) => v.iter().map(|&v| T::of(i64::from(v))).collect(),
        TensorData::I48(v) => v.iter().map(|&v| T::of(v)).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use strata_ir::dialect::{Conv2d, DepthwiseConv2d, MatMul, TransposeConv2d};
    use strata_ir::eval::eval_op_kind;

    use super::*;

    fn noise(seed: u32, n: usize) -> impl Iterator<Item = i8> {
        (0..n as u32).map(move |i| ((i.wrapping_add(seed).wrapping_mul(2_654_435_761)) >> 23) as i8)
    }

    fn judge(op: impl Into<Op>, operands: &[Tensor], shape: [usize; 4]) {
        let op = op.into();
        let operands: Vec<&Tensor> = operands.iter().collect();
        let shape = if matches!(op, Op::MatMul(_)) { shape[1..].to_vec() } else { shape.to_vec() };
        let types = [Type::tensor(shape.as_slice(), ElemType::I32)];
        let want = eval_op_kind(&op, &operands, &types).expect("the operands fit");
        assert_eq!(fast(&op, &operands, &types).as_ref(), want.first(), "{}", op.name());
    }

    #[test]
    fn equals_the_evaluator() {
        let i8s = |seed, shape: &[usize]| Tensor::i8(shape, noise(seed, shape.iter().product()).collect());
        let zp = |v| Tensor::i8([1], vec![v]);
        let bias = |n: usize, large: i32| Tensor::i32([n], (0..n as i32).map(|i| (i - 2) * large).collect());
        let conv = Conv2d {
            pad: [1, 1, 0, 2],
            stride: [2, 1],
            dilation: [1, 2],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        // The first bias keeps the sums exact in single precision, the second needs double.
        for large in [7, 90_000_000] {
            let operands = [i8s(1, &[1, 9, 8, 5]), i8s(2, &[4, 3, 3, 5]), bias(4, large), zp(-7), zp(0)];
            judge(conv.clone(), &operands, [1, 5, 6, 4]);
        }
        let depthwise = DepthwiseConv2d {
            pad: [1; 4],
            stride: [1, 2],
            dilation: [1, 1],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        let operands = [i8s(3, &[1, 6, 7, 3]), i8s(4, &[3, 3, 3, 1]), bias(3, 11), zp(5), zp(0)];
        judge(depthwise, &operands, [1, 6, 4, 3]);
        let transposed = TransposeConv2d {
            out_pad: [-1, -1, 0, 0],
            stride: [2, 2],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        let operands = [i8s(5, &[1, 3, 4, 2]), i8s(6, &[5, 3, 3, 2]), bias(5, 1), zp(1), zp(0)];
        judge(transposed, &operands, [1, 5, 9, 5]);
        let operands = [i8s(7, &[2, 3, 4]), i8s(8, &[2, 4, 5]), zp(3), zp(-128)];
        judge(MatMul {}, &operands, [0, 2, 3, 5]);
    }

    #[test]
    fn sums_that_might_wrap_are_left_to_the_evaluator() {
        let operands = [
            Tensor::i8([1, 1, 1, 1], vec![1]),
            Tensor::i8([1, 1, 1, 1], vec![1]),
            Tensor::i32([1], vec![i32::MAX]),
        ];
        let zero = Tensor::i8([1], vec![0]);
        let all: Vec<&Tensor> = operands.iter().chain([&zero, &zero]).collect();
        let conv = Conv2d {
            pad: [0; 4],
            stride: [1, 1],
            dilation: [1, 1],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        assert_eq!(fast(&conv.into(), &all, &[Type::tensor([1, 1, 1, 1], ElemType::I32)]), None);
    }
}
