//! Constants that the model itself gives as integers: `mul(sub(cast(integers), zero points), scales)`.
//!
//! Their integers are taken as they are. What of them the machine cannot hold (a zero point for each channel
//! that `i8` has no room for) is left to the quantiser of floats.

use std::sync::Arc;

use strata_ir::{ElemType, Module, Op, Tensor, TensorData, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::weights::{ChannelAxis, QuantWeights};

/// Integers with their scales.
#[derive(Clone, Debug)]
pub(super) struct QuantConstant {
    ints: Arc<Tensor>,
    zero_points: Option<Arc<Tensor>>,
    scales: Arc<Tensor>,
}

impl QuantConstant {
    /// The integers that an f32 value is made of, if it is made so.
    pub(super) fn of(module: &Module, value: ValueId) -> Option<Self> {
        let parts = |value: ValueId| {
            let data = module.op(module.defining_op(value)?);
            Some((&data.op, data.operands()))
        };
        let constant = |value: ValueId| module.constant(value).map(|elements| Arc::clone(&elements.tensor));
        let (Op::Mul(_), &[real, scales, _]) = parts(value)? else { return None };
        let scales = constant(scales)?;
        let (cast, zero_points) = match parts(real)? {
            (Op::Sub(_), &[cast, zero_points]) => (cast, Some(constant(zero_points)?)),
            _ => (real, None),
        };
        let (Op::Cast(_), &[ints]) = parts(cast)? else { return None };
        let ints = constant(ints)?;
        let is_int = matches!(ints.elem(), ElemType::I8 | ElemType::I16 | ElemType::I32);
        (is_int && scales.as_f32().is_some()).then_some(Self { ints, zero_points, scales })
    }

    /// Integers less their zero points.
    fn centred(&self) -> Option<Vec<i64>> {
        let mut ints = self.ints.data().to_ints()?;
        if let Some(zero_points) = &self.zero_points {
            let values = zero_points.as_f32()?;
            for (q, at) in ints.iter_mut().zip(places(self.ints.shape(), zero_points.shape())) {
                *q -= values[at] as i64;
            }
        }
        Some(ints)
    }

    /// As weights of a convolution; biases are rounded to the accumulator's unit. A bias of one element is
    /// repeated.
    pub(super) fn weights(
        &self,
        bias: &Tensor,
        axis: ChannelAxis,
        n_channels: usize,
        input: QuantParams,
    ) -> Option<QuantWeights> {
        let centred = self.centred()?;
        let (stored, zero_point) = as_bytes(&centred)?;
        let is_wide = input.elem == ElemType::I16;
        if is_wide && zero_point != 0 {
            return None;
        }
        let values = self.scales.as_f32()?;
        let per_channel = centred.len() / n_channels.max(1);
        let channel = |at: usize| match axis {
            ChannelAxis::First => at / per_channel.max(1),
            ChannelAxis::Last => at % n_channels,
        };
        let mut scales: Vec<Option<f64>> = vec![None; n_channels];
        let mut bounds = vec![0.0; n_channels];
        for (at, place) in places(self.ints.shape(), self.scales.shape()).into_iter().enumerate() {
            let scale = f64::from(values[place]);
            if *scales[channel(at)].get_or_insert(scale) != scale {
                return None;
            }
            bounds[channel(at)] += centred[at].unsigned_abs() as f64 * input.reach();
        }
        let scales = scales.into_iter().collect::<Option<Vec<f64>>>()?;
        let bias = bias.as_f32()?;
        let mut biases = Vec::with_capacity(n_channels);
        for (channel, scale) in scales.iter().enumerate() {
            let real = f64::from(bias[if bias.len() == 1 { 0 } else { channel }]);
            let steps = (real / (input.scale * scale)).round_ties_even();
            bounds[channel] += steps.abs();
            if bounds[channel] >= 2_f64.powi(if is_wide { 47 } else { 31 }) {
                return None;
            }
            biases.push(steps as i64);
        }
        let acc_type = if is_wide { ElemType::I48 } else { ElemType::I32 };
        let biases = TensorData::from_ints(acc_type, biases)?;
        Some(QuantWeights {
            weight: Tensor::i8(self.ints.shape(), stored),
            zero_point,
            bias: Tensor::new([n_channels], biases),
            scales,
            bounds,
        })
    }

    /// As an operand with one scale.
    pub(super) fn operand(&self) -> Option<(Tensor, QuantParams)> {
        let &[scale] = self.scales.as_f32()? else { return None };
        let (stored, zero_point) = as_bytes(&self.centred()?)?;
        let params = QuantParams::i8(f64::from(scale), zero_point);
        Some((Tensor::i8(self.ints.shape(), stored), params))
    }
}

/// Integers as `i8` and a common zero point, if there is one that makes all fit.
fn as_bytes(centred: &[i64]) -> Option<(Vec<i8>, i64)> {
    let least = centred.iter().copied().min().unwrap_or(0);
    let greatest = centred.iter().copied().max().unwrap_or(0);
    let zero_point = if least >= -128 && greatest <= 127 { 0 } else { (-128 - least).clamp(-128, 127) };
    let stored: Result<Vec<i8>, _> = centred.iter().map(|q| i8::try_from(q + zero_point)).collect();
    Some((stored.ok()?, zero_point))
}

/// For each element of `shape` the place of its value in a tensor of shape `from` that broadcasts to it.
fn places(shape: &[usize], from: &[usize]) -> Vec<usize> {
    let mut step = 1;
    let mut steps = vec![0; shape.len()];
    for axis in (0..shape.len().min(from.len())).rev() {
        if from[axis] > 1 {
            steps[axis] = step;
        }
        step *= from[axis];
    }
    let mut places = vec![0];
    for (&extent, &step) in shape.iter().zip(&steps) {
        places = places.iter().flat_map(|base| (0..extent).map(move |i| base + i * step)).collect();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_find_a_zero_point_where_one_is_needed() {
        assert_eq!(as_bytes(&[-128, 0, 127]), Some((vec![-128, 0, 127], 0)));
        assert_eq!(as_bytes(&[-3, 252]), Some((vec![-128, 127], -125)));
        assert_eq!(as_bytes(&[0, 255]), Some((vec![-128, 127], -128)));
        assert_eq!(as_bytes(&[-200, 100]), None, "301 values do not fit");
    }

    #[test]
    fn scales_find_their_elements() {
        assert_eq!(places(&[2, 1, 3], &[2, 1, 1]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(places(&[2, 2], &[1, 2]), [0, 1, 0, 1]);
        assert_eq!(places(&[2, 2], &[1, 1]), [0; 4]);
    }
}
