//! Weights and biases as integers: symmetric `i8`, a scale for each output channel, and biases in units of
//! input scale times weight scale, `i32` or, where the input is `i16`, `i48`.

use rayon::prelude::*;
use strata_ir::{ElemType, Tensor, TensorData};

use crate::quantise::QuantParams;
use crate::quantise::params::nearest;

/// The greatest magnitude that an accumulator may reach, with room for a sum of two.
fn accumulator_limit(input: QuantParams) -> f64 {
    if input.elem == ElemType::I16 { 2_f64.powi(46) } else { 2_f64.powi(30) }
}

/// Where the output channel stands in a weight tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelAxis {
    /// It is the first axis: `[OC, …]`.
    First,
    /// It is the last one or two: `[KH, KW, C, M]`.
    Last,
}

/// Weights of one convolution.
pub(super) struct QuantWeights {
    pub weight: Tensor,
    /// The integer that stands for a weight of 0.
    pub zero_point: i64,
    pub bias: Tensor,
    /// The real step of a weight, a channel each.
    pub scales: Vec<f64>,
    /// A bound of the accumulator's magnitude, a channel each.
    pub bounds: Vec<f64>,
}

/// What is found of an output channel beside its weights.
struct QuantChannel {
    bias: i64,
    /// The real step of a weight.
    scale: f64,
    /// A bound of the accumulator's magnitude.
    bound: f64,
}

/// Quantises weights of an f32 convolution of an input with the given parameters. A bias of one element is
/// repeated. A channel whose accumulator or bias could overflow gets a greater scale. `None` if data are not
/// f32.
pub(super) fn quantise_weights(
    weight: &Tensor,
    bias: &Tensor,
    axis: ChannelAxis,
    n_channels: usize,
    input: QuantParams,
) -> Option<QuantWeights> {
    let (input_scale, input_limit, limit) = (input.scale, input.reach(), accumulator_limit(input));
    let (data, bias) = (weight.as_f32()?, bias.as_f32()?);
    let per_channel = data.len() / n_channels.max(1);
    let index = |channel: usize, i: usize| match axis {
        ChannelAxis::First => channel * per_channel + i,
        ChannelAxis::Last => i * n_channels + channel,
    };
    // Channel by channel.
    let mut quantised = vec![0; data.len()];
    let mut rows: Vec<&mut [i8]> = quantised.chunks_mut(per_channel.max(1)).take(n_channels).collect();
    rows.resize_with(n_channels, Default::default);
    let channels: Vec<QuantChannel> = rows
        .into_par_iter()
        .enumerate()
        .map(|(channel, row)| {
            let gathered: Vec<f32>;
            let weights = match axis {
                ChannelAxis::First => &data[index(channel, 0)..][..per_channel],
                ChannelAxis::Last => {
                    gathered = (0..per_channel).map(|i| data[index(channel, i)]).collect();
                    &gathered[..]
                }
            };
            let bias = f64::from(bias[if bias.len() == 1 { 0 } else { channel }]);
            let (greatest, sum) = weights.iter().fold((0.0_f64, 0.0), |(max, sum): (f64, f64), &w| {
                (max.max(f64::from(w).abs()), sum + f64::from(w).abs())
            });
            let for_bias = bias.abs() / (input_scale * limit / 2.0);
            let mut scale = (greatest / 127.0).max(for_bias);
            if greatest == 0.0 {
                // No weight to represent: the bias alone decides, with 20 bits.
                scale = if bias == 0.0 { 1.0 } else { bias.abs() / (input_scale * f64::from(1 << 20)) };
            }
            // Rounding adds at most half a step a weight.
            let room = limit - input_limit * 0.5 * per_channel as f64;
            scale = scale.max((sum * input_limit + bias.abs() / input_scale) / room.max(1.0));
            for (q, &w) in row.iter_mut().zip(weights) {
                *q = nearest(f64::from(w) / scale, -127.0, 127.0) as i8;
            }
            let magnitude: u64 = row.iter().map(|q| u64::from(q.unsigned_abs())).sum();
            let bias = (bias / (input_scale * scale)).round();
            let bound = magnitude as f64 * input_limit + bias.abs();
            QuantChannel { bias: bias as i64, scale, bound }
        })
        .collect();
    if axis == ChannelAxis::Last {
        let rows = quantised;
        quantised = vec![0; data.len()];
        for (at, &q) in rows.iter().enumerate().take(n_channels * per_channel) {
            quantised[index(at / per_channel, at % per_channel)] = q;
        }
    }
    let bias = channels.iter().map(|channel| channel.bias);
    let bias = match input.elem {
        ElemType::I16 => Tensor::new([n_channels], TensorData::I48(bias.collect())),
        _ => Tensor::i32([n_channels], bias.map(|b| b as i32).collect()),
    };
    Some(QuantWeights {
        weight: Tensor::i8(weight.shape(), quantised),
        zero_point: 0,
        bias,
        scales: channels.iter().map(|channel| channel.scale).collect(),
        bounds: channels.iter().map(|channel| channel.bound).collect(),
    })
}

/// A bias and what is added to it; one of one element is repeated. `None` if it is not f32.
pub(super) fn corrected(bias: &Tensor, correction: &[f32]) -> Option<Tensor> {
    let data = bias.as_f32()?;
    let at = |i: usize| data[if data.len() == 1 { 0 } else { i }];
    let sums = correction.iter().enumerate().map(|(i, c)| at(i) + c).collect();
    Some(Tensor::f32([correction.len()], sums))
}

impl QuantWeights {
    /// The weights and biases that the integers stand for, in the layout of the originals.
    pub(super) fn dequantised(&self, axis: ChannelAxis, input_scale: f64) -> (Tensor, Tensor) {
        let n_channels = self.scales.len().max(1);
        let weight = self.weight.as_i8().unwrap_or_default();
        let per_channel = (weight.len() / n_channels).max(1);
        let channel = |i: usize| match axis {
            ChannelAxis::First => i / per_channel,
            ChannelAxis::Last => i % n_channels,
        };
        let real = |(i, &w): (usize, &i8)| (f64::from(w) * self.scales[channel(i)]) as f32;
        let data = weight.iter().enumerate().map(real).collect();
        let bias = self.bias.data().to_ints().unwrap_or_default();
        let bias: Vec<f32> = bias
            .iter()
            .zip(&self.scales)
            .map(|(&b, scale)| (b as f64 * scale * input_scale) as f32)
            .collect();
        (Tensor::f32(self.weight.shape(), data), Tensor::f32([bias.len()], bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_use_their_whole_range() {
        let weight = Tensor::f32([2, 1, 1, 2], vec![1.0, -0.5, 0.0004, 0.002]);
        let bias = Tensor::f32([2], vec![0.5, -1.0]);
        let q =
            quantise_weights(&weight, &bias, ChannelAxis::First, 2, QuantParams::i8(0.01, 0)).expect("f32");
        assert_eq!(q.weight.as_i8(), Some(&[127, -64, 25, 127][..]));
        for (channel, real) in [0.5, -1.0].into_iter().enumerate() {
            let back = f64::from(q.bias.as_i32().expect("i32")[channel]) * 0.01 * q.scales[channel];
            assert!((back - real).abs() < 1e-3, "bias {real} came back as {back}");
        }
    }

    #[test]
    fn depthwise_channels_stand_last() {
        let weight = Tensor::f32([1, 2, 2, 1], vec![1.0, 10.0, -0.5, 5.0]);
        let q = quantise_weights(
            &weight,
            &Tensor::f32([1], vec![0.0]),
            ChannelAxis::Last,
            2,
            QuantParams::i8(1.0, 0),
        )
        .expect("f32");
        assert_eq!(q.weight.as_i8(), Some(&[127, 127, -64, 64][..]));
    }

    #[test]
    fn tiny_weights_under_a_large_bias_do_not_overflow() {
        let weight = Tensor::f32([2, 1, 1, 1], vec![1e-20, 0.0]);
        let q = quantise_weights(
            &weight,
            &Tensor::f32([2], vec![3.0, 3.0]),
            ChannelAxis::First,
            2,
            QuantParams::i8(0.1, 0),
        );
        let q = q.expect("f32");
        for channel in 0..2 {
            let bias = f64::from(q.bias.as_i32().expect("i32")[channel]);
            assert!(bias.abs() <= 2_f64.powi(29) && q.bounds[channel] < 2_f64.powi(31));
            assert!((bias * 0.1 * q.scales[channel] - 3.0).abs() < 1e-3);
        }
    }

    #[test]
    fn long_sums_do_not_overflow() {
        let n = 200_000;
        let weight = Tensor::f32([1, 1, 1, n], vec![1.0; n]);
        let q = quantise_weights(
            &weight,
            &Tensor::f32([1], vec![0.0]),
            ChannelAxis::First,
            1,
            QuantParams::i8(1.0, 0),
        )
        .expect("f32");
        assert!(q.bounds[0] < 2_f64.powi(31), "{}", q.bounds[0]);
    }

    #[test]
    fn biases_of_16_bit_inputs_have_48_bits() {
        let weight = Tensor::f32([1, 1, 1, 2], vec![1.0, -0.5]);
        let input = QuantParams { scale: 1e-4, zero_point: 0, elem: ElemType::I16 };
        let q = quantise_weights(&weight, &Tensor::f32([1], vec![5e3]), ChannelAxis::First, 1, input);
        let q = q.expect("f32");
        let TensorData::I48(bias) = q.bias.data() else { panic!("{:?}", q.bias.ty()) };
        assert!(bias[0] > 1 << 32 && (bias[0] as f64 * 1e-4 * q.scales[0] - 5e3).abs() < 1e-3);
        assert!(q.bounds[0] < 2_f64.powi(47));
    }
}
