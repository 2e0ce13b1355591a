//! Values of 16 bits with a zero point, as models that come quantised have them. TOSA's operations on `i16`
//! know none: it is taken off where such a value is read, and added where one is made.

use strata_ir::dialect::{Add, Maximum, Minimum, NanMode, Pad, Sub};
use strata_ir::{ElemType, Op, Tensor, TensorData, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::lower::{Lowering, NOT_EXPECTED, Quantised};
use crate::quantise::params::FixedScale;
use crate::quantise::weights::QuantWeights;

/// From this magnitude on an integer saturates in 16 bits, with any zero point.
const BEYOND: i64 = 1 << 17;

/// Whether a value of an element type carries a zero point that TOSA does not know.
pub(super) fn is_offset(elem: ElemType, zero_point: i64) -> bool {
    elem == ElemType::I16 && zero_point != 0
}

impl Lowering<'_> {
    /// An integer constant that broadcasts to `like`.
    fn whole(&mut self, like: ValueId, value: i64) -> ValueId {
        let shape = vec![1; self.new_shape(like).len()];
        self.constant(Tensor::new(shape, TensorData::I32(vec![value as i32])))
    }

    fn with_whole(&mut self, op: impl Into<Op>, value: ValueId, number: i64) -> ValueId {
        let shape = self.new_shape(value);
        let number = self.whole(value, number);
        self.append(op, &[value, number], &shape, ElemType::I32)
    }

    /// The integers of an `i16` value less its zero point, in `i32`.
    pub(super) fn without_offset(&mut self, value: ValueId, zero_point: i64) -> ValueId {
        let wide = self.rescale(value, 0, &[FixedScale::ONE], ElemType::I32, 0);
        self.with_whole(Sub {}, wide, zero_point)
    }

    /// Integers in `i32` as `i16` with a zero point.
    pub(super) fn with_offset(&mut self, value: ValueId, zero_point: i64) -> ValueId {
        let nan_mode = NanMode::Propagate;
        let raised = self.with_whole(Maximum { nan_mode }, value, -BEYOND);
        let bounded = self.with_whole(Minimum { nan_mode }, raised, BEYOND);
        let moved = self.with_whole(Add {}, bounded, zero_point);
        self.rescale(moved, 0, &[FixedScale::ONE], ElemType::I16, 0)
    }

    /// A convolution's input, op and weights without the input's zero point: what it adds to every sum goes
    /// into the bias, and padding, which stands for 0, becomes an op of its own.
    pub(super) fn convolve_without_offset(
        &mut self,
        op: &mut Op,
        input: Quantised,
        weights: &mut QuantWeights,
    ) -> Result<Quantised, &'static str> {
        let pad = match op {
            Op::Conv2d(op) => &mut op.pad,
            Op::DepthwiseConv2d(op) => &mut op.pad,
            _ => return Err(NOT_EXPECTED),
        };
        let amounts = std::mem::take(pad);
        let is_depthwise = matches!(op, Op::DepthwiseConv2d(_));
        let zero_point = input.params.zero_point;
        let data = weights.weight.as_i8().ok_or(NOT_EXPECTED)?;
        let n = weights.scales.len();
        let per_channel = (data.len() / n.max(1)).max(1);
        let mut sums = vec![0; n];
        for (at, &weight) in data.iter().enumerate() {
            sums[if is_depthwise { at % n } else { at / per_channel }] += i64::from(weight);
        }
        let bias = weights.bias.data().to_ints().ok_or(NOT_EXPECTED)?;
        let moved = bias.iter().zip(&sums).map(|(bias, sum)| bias - zero_point * sum);
        let moved = TensorData::from_ints(ElemType::I48, moved).ok_or(NOT_EXPECTED)?;
        weights.bias = Tensor::new([n], moved);
        for (bound, sum) in weights.bounds.iter_mut().zip(&sums) {
            *bound += (zero_point * sum).unsigned_abs() as f64;
        }
        let params = QuantParams { zero_point: 0, ..input.params };
        if amounts == [0; 4] {
            return Ok(Quantised { params, ..input });
        }
        let mut shape = self.new_shape(input.value);
        let [top, bottom, left, right] = amounts;
        (shape[1], shape[2]) = (shape[1] + (top + bottom) as usize, shape[2] + (left + right) as usize);
        let amounts = TensorData::Index(vec![0, 0, top, bottom, left, right, 0, 0]);
        let amounts = self.constant(Tensor::new([8], amounts));
        let fill = self.scalar(zero_point, ElemType::I16);
        let value = self.append(Pad {}, &[input.value, amounts, fill], &shape, ElemType::I16);
        Ok(Quantised { value, params })
    }

    /// A value without a zero point, in steps twice as great where it has one.
    pub(super) fn without_zero_point(&mut self, q: Quantised) -> Result<Quantised, &'static str> {
        if !is_offset(q.params.elem, q.params.zero_point) {
            return Ok(q);
        }
        let params = QuantParams { scale: 2.0 * q.params.scale, zero_point: 0, ..q.params };
        self.rescaled(q, params)
    }
}
