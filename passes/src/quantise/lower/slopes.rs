//! Functions of one slope below 0 and one above, a channel each: PReLU, and multiplication by a constant a
//! channel.

use strata_ir::dialect::{Add, DepthwiseConv2d, GreaterEqual, Select};
use strata_ir::{ElemType, Op, Tensor, TensorData};

use crate::quantise::QuantParams;
use crate::quantise::lower::{Lowering, OUT_OF_RANGE, Quantised, accumulator};
use crate::quantise::params::{FixedScale, Range};
use crate::quantise::weights::QuantWeights;

impl Lowering<'_> {
    /// `x < 0 ? below[c] * x : above[c] * x`: two rescales, of which the sign of `x` selects; with slopes of
    /// any sign, which RESCALE does not have, a depthwise convolution of each side and their sum.
    pub(super) fn two_slopes(
        &mut self,
        input: Quantised,
        slopes: &[[f64; 2]],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        if slopes.iter().all(|[below, above]| below == above) {
            let gains: Vec<f64> = slopes.iter().map(|s| s[0]).collect();
            return self.channel_gains(input, &gains, params);
        }
        if slopes.iter().flatten().all(|&slope| slope >= 0.0) {
            return self.rescaled_by_sign(input, slopes, params);
        }
        let (least, most) = (input.params.limits(), params.limits());
        let (least, most, lowest, highest) = (least.0, least.1, most.0, most.1);
        let end = |q| input.params.dequantise(q) as f32;
        let whole = Range { low: params.dequantise(lowest) as f32, high: params.dequantise(highest) as f32 };
        let mut side = |below: bool| -> Result<Quantised, &'static str> {
            let (range, index) = if below { ((end(least), 0.0), 0) } else { ((0.0, end(most)), 1) };
            // On the input's own scale a side is exact.
            let value = self.clamp(input, f64::from(range.0), f64::from(range.1));
            let part = Quantised { value, params: input.params };
            let gains: Vec<f64> = slopes.iter().map(|s| s[index]).collect();
            if gains.iter().all(|&gain| gain == 1.0) {
                return Ok(part);
            }
            // Where a side is not 0 it is the whole result, so the result's range bounds it.
            let ends = gains.iter().flat_map(|&gain| [range.0, range.1].map(|x| x * gain as f32));
            let reach = ends.fold(Range { low: 0.0, high: 0.0 }, |r, x| r.union(Range { low: x, high: x }));
            let reach = Range { low: reach.low.max(whole.low), high: reach.high.min(whole.high) };
            self.channel_gains(part, &gains, QuantParams::of_range_in(reach, input.params.elem))
        };
        let (above, below) = (side(false)?, side(true)?);
        self.combine(Add {}.into(), above, below, &self.new_shape(input.value), params)
    }

    fn rescaled_by_sign(
        &mut self,
        input: Quantised,
        slopes: &[[f64; 2]],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let wide = self.widen(input, input.params.scale)?;
        let scales = |side: usize| -> Option<Vec<FixedScale>> {
            let factors = slopes.iter().map(|slopes| slopes[side] * wide.scale / params.scale);
            factors.map(|factor| FixedScale::of_slope(factor, wide.bound)).collect()
        };
        let (below, above) = (scales(0).ok_or(OUT_OF_RANGE)?, scales(1).ok_or(OUT_OF_RANGE)?);
        let shape = self.new_shape(wide.value);
        let zero = self.constant(Tensor::new(vec![1; shape.len()], TensorData::I32(vec![0])));
        let is_above = self.append(GreaterEqual {}, &[wide.value, zero], &shape, ElemType::I1);
        let above = self.rescale(wide.value, 0, &above, params.elem, params.zero_point);
        let below = self.rescale(wide.value, 0, &below, params.elem, params.zero_point);
        let value = self.append(Select {}, &[is_above, above, below], &shape, params.elem);
        Ok(Quantised { value, params })
    }

    /// Multiplies every channel by its own factor, exactly up to the rescale: weights are 0, 127 or -127.
    fn channel_gains(
        &mut self,
        input: Quantised,
        gains: &[f64],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let shape = self.new_shape(input.value);
        let n = gains.len();
        let pixels = shape.iter().product::<usize>() / n.max(1);
        let as_image = [1, 1, pixels, n];
        let image = if shape.len() == 4 { input.value } else { self.reshape(input.value, &as_image) };
        let (op, weights) = gain_weights(input.params, gains);
        let image_shape = self.new_shape(image);
        let input = Quantised { value: image, params: input.params };
        let out = self.accumulate(op, input, weights, &image_shape, params)?;
        let value = if shape.len() == 4 { out.value } else { self.reshape(out.value, &shape) };
        Ok(Quantised { value, params })
    }
}

/// The depthwise convolution that multiplies every channel by its own factor, and its weights.
fn gain_weights(input: QuantParams, gains: &[f64]) -> (Op, QuantWeights) {
    let n = gains.len();
    let reach = input.reach();
    let no_bias = match input.elem {
        ElemType::I16 => TensorData::I48(vec![0; n]),
        _ => TensorData::I32(vec![0; n]),
    };
    let unit = |gain: f64| if gain == 0.0 { 0 } else { 127 * gain.signum() as i8 };
    let weights = QuantWeights {
        weight: Tensor::i8([1, 1, n, 1], gains.iter().map(|&gain| unit(gain)).collect()),
        zero_point: 0,
        bias: Tensor::new([n], no_bias),
        scales: gains.iter().map(|&gain| if gain == 0.0 { 1.0 } else { gain.abs() / 127.0 }).collect(),
        bounds: gains.iter().map(|&gain| f64::from(unit(gain).unsigned_abs()) * reach).collect(),
    };
    let op = DepthwiseConv2d {
        pad: [0; 4],
        stride: [1, 1],
        dilation: [1, 1],
        acc_type: accumulator(input),
        local_bound: false,
    };
    (op.into(), weights)
}
