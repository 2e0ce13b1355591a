//! Layers over tokens, whose channels stand last: what transformers and ConvNeXt are made of.

use super::attribute::{float, int, ints, last_axis};
use super::{Fill, NORM_RANGE, Network, SHIFT_STD, Tensor};

/// Layer scale: trained networks end between hundredths and one, however small they begin.
const LAYER_SCALE: (f32, f32) = (0.1, 0.5);

impl Network {
    pub(in crate::zoo) fn transpose<const N: usize>(
        &mut self,
        name: &str,
        x: Tensor,
        permutation: [usize; N],
    ) -> Tensor {
        let dims = self.dims(x);
        let dims = permutation.iter().map(|&axis| dims[axis]).collect();
        let attributes = vec![ints("perm", permutation)];
        self.node("Transpose", name, vec![self.name(x)], attributes, dims, self.power(x))
    }

    pub(in crate::zoo) fn reshape(&mut self, name: &str, x: Tensor, dims: &[usize]) -> Tensor {
        let shape = self.fixed_ints(format!("{name}.shape"), dims.iter().map(|&d| d as i64).collect());
        let inputs = vec![self.name(x), shape];
        self.node("Reshape", name, inputs, vec![], dims.to_vec(), self.power(x))
    }

    /// Normalisation of each token over its channels, with trained scale and shift.
    pub(in crate::zoo) fn layer_norm(&mut self, name: &str, x: Tensor, epsilon: f32) -> Tensor {
        let channels = self.features(x);
        let (low, high) = NORM_RANGE;
        let gamma = self.parameter(format!("{name}.gamma"), vec![channels], Fill::Uniform { low, high });
        let beta = self.shift(name, "beta", channels);
        let inputs = vec![self.name(x), gamma, beta];
        let attributes = vec![last_axis(), float("epsilon", epsilon)];
        let power = 1.03 + f64::from(SHIFT_STD * SHIFT_STD);
        self.node("LayerNormalization", name, inputs, attributes, self.dims(x), power)
    }

    /// Layer normalisation over the channels of a feature map, which is transposed for it and back.
    pub(in crate::zoo) fn layer_norm_of_map(&mut self, name: &str, x: Tensor, epsilon: f32) -> Tensor {
        let x = self.transpose(&format!("{name}/channels_last"), x, [0, 2, 3, 1]);
        let x = self.layer_norm(name, x, epsilon);
        self.transpose(&format!("{name}/channels_first"), x, [0, 3, 1, 2])
    }

    /// A fully connected layer with bias over each token: a product, and a sum with the bias.
    pub(in crate::zoo) fn linear_of_tokens(&mut self, name: &str, x: Tensor, out: usize) -> Tensor {
        let features = self.features(x);
        let std = (1.0 / (features as f64 * self.power(x))).sqrt() as f32;
        let bias = self.shift(name, "bias", out);
        let weight = self.parameter(format!("{name}.weight"), vec![features, out], Fill::Normal { std });
        let mut dims = self.dims(x);
        *dims.last_mut().expect("tokens have channels") = out;
        let inputs = vec![self.name(x), weight];
        let product = self.node("MatMul", &format!("{name}/matmul"), inputs, vec![], dims.clone(), 1.0);
        let inputs = vec![bias, self.name(product)];
        self.node("Add", name, inputs, vec![], dims, 1.0)
    }

    /// A trained scale for each channel of a feature map.
    pub(in crate::zoo) fn layer_scale(&mut self, name: &str, x: Tensor) -> Tensor {
        let (low, high) = LAYER_SCALE;
        let channels = vec![self.channels(x), 1, 1];
        let gamma = self.parameter(format!("{name}.gamma"), channels, Fill::Uniform { low, high });
        let inputs = vec![gamma, self.name(x)];
        self.node("Mul", name, inputs, vec![], self.dims(x), self.power(x) * 0.1)
    }

    /// Self-attention of `heads` heads over the tokens of each of several groups.
    ///
    /// # Shapes
    /// `[groups, tokens, channels]` to the same.
    pub(in crate::zoo) fn self_attention(&mut self, name: &str, x: Tensor, heads: usize) -> Tensor {
        let [groups, tokens, channels] = self.dims(x)[..] else {
            panic!("attention is over groups of tokens");
        };
        let depth = channels / heads;
        let x = self.linear_of_tokens(&format!("{name}/qkv"), x, 3 * channels);
        let x = self.reshape(&format!("{name}/heads"), x, &[groups, tokens, 3, heads, depth]);
        let x = self.transpose(&format!("{name}/heads_first"), x, [2, 0, 3, 1, 4]);
        let [q, k, v] = self.unbound(&format!("{name}/split"), x);
        let scale = self.fixed(format!("{name}.scale"), vec![], vec![1.0 / (depth as f32).sqrt()]);
        let inputs = vec![self.name(q), scale];
        let power = self.power(q) / depth as f64;
        let q = self.node("Mul", &format!("{name}/scale"), inputs, vec![], self.dims(q), power);
        let k = self.transpose(&format!("{name}/keys"), k, [0, 1, 3, 2]);
        let dims = vec![groups, heads, tokens, tokens];
        let inputs = vec![self.name(q), self.name(k)];
        let scores = self.node("MatMul", &format!("{name}/scores"), inputs, vec![], dims.clone(), 1.0);
        let softmax = vec![last_axis()];
        let power = 1.0 / (tokens * tokens) as f64;
        let shares =
            self.node("Softmax", &format!("{name}/softmax"), vec![self.name(scores)], softmax, dims, power);
        let inputs = vec![self.name(shares), self.name(v)];
        // Sums of many tokens with small shares: what they have in common is left.
        let power = self.power(v) * (0.1 + 2.7 / tokens as f64).min(1.0);
        let x = self.node("MatMul", &format!("{name}/values"), inputs, vec![], self.dims(v), power);
        let x = self.transpose(&format!("{name}/tokens_first"), x, [0, 2, 1, 3]);
        let x = self.reshape(&format!("{name}/joined"), x, &[groups, tokens, channels]);
        self.linear_of_tokens(&format!("{name}/proj"), x, channels)
    }

    /// The three tensors along the first axis.
    fn unbound(&mut self, name: &str, x: Tensor) -> [Tensor; 3] {
        let dims = self.dims(x);
        let sizes = self.fixed_ints(format!("{name}.sizes"), vec![1; 3]);
        let axes = self.fixed_ints(format!("{name}.axes"), vec![0]);
        let names = [0, 1, 2].map(|part| format!("{name}.{part}"));
        self.push("Split", name, vec![self.name(x), sizes], names.to_vec(), vec![int("axis", 0)]);
        [0, 1, 2].map(|part| {
            let squeezed = format!("{name}/squeeze_{part}");
            let inputs = vec![names[part].clone(), axes.clone()];
            self.node("Squeeze", &squeezed, inputs, vec![], dims[1..].to_vec(), self.power(x))
        })
    }

    /// How many channels a token has.
    pub(in crate::zoo) fn features(&self, x: Tensor) -> usize {
        *self.tensors[x.0].dims.last().expect("tokens have channels")
    }
}
