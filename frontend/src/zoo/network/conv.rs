//! Convolutions with what habitually follows them.

use super::attribute::{float, int, ints};
use super::{Activation, Fill, NORM_GAIN, NORM_RANGE, Network, SHIFT_STD, Tensor};

/// A convolution with what habitually follows it. Windows are padded to stand around their centre ("same"
/// for odd kernels) unless they are told to be [`Self::valid`].
#[derive(Debug, Clone, Copy)]
pub(in crate::zoo) struct Conv {
    out: usize,
    /// Height and width.
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    groups: usize,
    is_padded: bool,
    has_bias: bool,
    /// Epsilon of the batch normalisation that follows.
    norm_epsilon: Option<f32>,
    activation: Activation,
}

impl Conv {
    /// `out` channels from a `kernel` x `kernel` window, stride 1, with bias, linear.
    pub(in crate::zoo) fn new(out: usize, kernel: usize) -> Self {
        Self::rectangular(out, kernel, kernel)
    }

    /// As [`Self::new`], from a window `height` rows high and `width` columns wide.
    pub(in crate::zoo) fn rectangular(out: usize, height: usize, width: usize) -> Self {
        Self {
            out,
            kernel: [height, width],
            stride: 1,
            dilation: 1,
            groups: 1,
            is_padded: true,
            has_bias: true,
            norm_epsilon: None,
            activation: Activation::Linear,
        }
    }

    pub(in crate::zoo) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(in crate::zoo) fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The distance of a window's taps; those of a single tap have none.
    pub(in crate::zoo) fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Without padding.
    pub(in crate::zoo) fn valid(self) -> Self {
        Self { is_padded: false, ..self }
    }

    pub(in crate::zoo) fn without_bias(self) -> Self {
        Self { has_bias: false, ..self }
    }

    /// With batch normalisation, whose shift takes the place of a bias.
    pub(in crate::zoo) fn batch_norm(self, epsilon: f32) -> Self {
        Self { has_bias: false, ..self.bias_and_batch_norm(epsilon) }
    }

    /// With batch normalisation after a bias, as it is where nobody took the trouble to leave the bias out.
    pub(in crate::zoo) fn bias_and_batch_norm(self, epsilon: f32) -> Self {
        Self { norm_epsilon: Some(epsilon), ..self }
    }

    pub(in crate::zoo) fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
}

impl Network {
    /// Convolution, then batch normalisation and activation as `conv` says.
    pub(in crate::zoo) fn conv(&mut self, name: &str, x: Tensor, conv: Conv) -> Tensor {
        let (c, (h, w)) = (self.channels(x), self.extent(x));
        let [kernel_h, kernel_w] = conv.kernel;
        let [pad_h, pad_w] =
            conv.kernel.map(|taps| if conv.is_padded { taps / 2 * conv.dilation } else { 0 });
        let reach = |extent: usize, taps: usize, pad: usize| {
            (extent + 2 * pad - (taps - 1) * conv.dilation - 1) / conv.stride + 1
        };
        let dims = vec![1, conv.out, reach(h, kernel_h, pad_h), reach(w, kernel_w, pad_w)];
        let fan_in = c / conv.groups * kernel_h * kernel_w;
        let weight_dims = vec![conv.out, c / conv.groups, kernel_h, kernel_w];
        let weight_std = (1.0 / (fan_in as f64 * self.power(x))).sqrt() as f32;

        // The parameters stand in the order of Darknet's weight files: those before the convolution's own
        // weights.
        let bias = conv.has_bias.then(|| self.shift(name, "bias", conv.out));
        let norm =
            conv.norm_epsilon.map(|epsilon| (epsilon, self.norm_parameters(&format!("{name}/bn"), conv.out)));
        let weight = self.parameter(format!("{name}.weight"), weight_dims, Fill::Normal { std: weight_std });

        let mut inputs = vec![self.name(x), weight];
        inputs.extend(bias);
        let attributes = vec![
            ints("dilations", [conv.dilation; 2]),
            int("group", conv.groups),
            ints("kernel_shape", conv.kernel),
            ints("pads", [pad_h, pad_w, pad_h, pad_w]),
            ints("strides", [conv.stride; 2]),
        ];
        let mut y = self.node("Conv", name, inputs, attributes, dims, 1.0);
        if let Some((epsilon, parameters)) = norm {
            y = self.normalise(&format!("{name}/bn"), y, epsilon, parameters);
        }
        self.activation(name, y, conv.activation)
    }

    /// Transposed convolution with bias, whose output is exactly `stride` times as large as its input.
    ///
    /// # Shapes
    /// Half of `kernel - stride`, rounded up, is padded on every side; `output_padding` takes the excess
    /// back.
    pub(in crate::zoo) fn conv_transpose(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        kernel: usize,
        stride: usize,
    ) -> Tensor {
        let (c, (h, w)) = (self.channels(x), self.extent(x));
        let pad = (kernel - stride).div_ceil(2);
        let output_padding = stride + 2 * pad - kernel;
        let fan_in = (c * kernel * kernel) as f64 / (stride * stride) as f64;
        let weight_std = (1.0 / (fan_in * self.power(x))).sqrt() as f32;
        let bias = self.shift(name, "bias", out);
        let fill = Fill::Normal { std: weight_std };
        let weight = self.parameter(format!("{name}.weight"), vec![c, out, kernel, kernel], fill);
        let attributes = vec![
            ints("kernel_shape", [kernel; 2]),
            ints("output_padding", [output_padding; 2]),
            ints("pads", [pad; 4]),
            ints("strides", [stride; 2]),
        ];
        let inputs = vec![self.name(x), weight, bias];
        self.node("ConvTranspose", name, inputs, attributes, vec![1, out, h * stride, w * stride], 1.0)
    }

    /// Batch normalisation that follows no convolution.
    pub(in crate::zoo) fn batch_norm(&mut self, name: &str, x: Tensor, epsilon: f32) -> Tensor {
        let parameters = self.norm_parameters(name, self.channels(x));
        self.normalise(name, x, epsilon, parameters)
    }

    fn normalise(
        &mut self,
        name: &str,
        x: Tensor,
        epsilon: f32,
        [beta, gamma, mean, variance]: [String; 4],
    ) -> Tensor {
        let power = self.power(x) * NORM_GAIN + 2.0 * f64::from(SHIFT_STD * SHIFT_STD);
        let inputs = vec![self.name(x), gamma, beta, mean, variance];
        let attributes = vec![float("epsilon", epsilon)];
        self.node("BatchNormalization", name, inputs, attributes, self.dims(x), power)
    }

    /// Shift, scale, mean and variance of a batch normalisation, in this order.
    fn norm_parameters(&mut self, name: &str, channels: usize) -> [String; 4] {
        let (low, high) = NORM_RANGE;
        let near_one = Fill::Uniform { low, high };
        let beta = self.shift(name, "beta", channels);
        let gamma = self.parameter(format!("{name}.gamma"), vec![channels], near_one.clone());
        let mean = self.shift(name, "mean", channels);
        let variance = self.parameter(format!("{name}.variance"), vec![channels], near_one);
        [beta, gamma, mean, variance]
    }
}
