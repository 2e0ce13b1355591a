//! Sums, concatenations, pools, changes of size and fully connected layers.

use super::attribute::{int, ints, string};
use super::{Fill, Network, Tensor};

impl Network {
    /// Elementwise sum of two tensors of one shape.
    pub(in crate::zoo) fn add(&mut self, name: &str, a: Tensor, b: Tensor) -> Tensor {
        let dims = self.tensors[a.0].dims.clone();
        let power = self.power(a) + self.power(b);
        self.node("Add", name, vec![self.name(a), self.name(b)], vec![], dims, power)
    }

    /// A feature map times a gate for each of its channels, in the order of operands that is asked for.
    pub(in crate::zoo) fn gated(&mut self, name: &str, x: Tensor, gate: Tensor, gate_first: bool) -> Tensor {
        let power = self.power(x) * self.power(gate);
        let inputs = if gate_first {
            vec![self.name(gate), self.name(x)]
        } else {
            vec![self.name(x), self.name(gate)]
        };
        self.node("Mul", name, inputs, vec![], self.dims(x), power)
    }

    /// Concatenation of feature maps along the channels.
    pub(in crate::zoo) fn concat(&mut self, name: &str, parts: &[Tensor]) -> Tensor {
        let (h, w) = self.extent(parts[0]);
        let channels: usize = parts.iter().map(|&part| self.channels(part)).sum();
        let power = parts.iter().map(|&part| self.power(part) * self.channels(part) as f64).sum::<f64>();
        let inputs = parts.iter().map(|&part| self.name(part)).collect();
        let dims = vec![1, channels, h, w];
        self.node("Concat", name, inputs, vec![int("axis", 1)], dims, power / channels as f64)
    }

    /// The two halves of a feature map's channels.
    pub(in crate::zoo) fn halves(&mut self, name: &str, x: Tensor) -> [Tensor; 2] {
        let (channels, (h, w), power) = (self.channels(x) / 2, self.extent(x), self.power(x));
        let sizes = self.fixed_ints(format!("{name}.sizes"), vec![channels as i64; 2]);
        let names = [0, 1].map(|half| format!("{name}.{half}"));
        self.push("Split", name, vec![self.name(x), sizes], names.to_vec(), vec![int("axis", 1)]);
        names.map(|name| self.tensor(&name, vec![1, channels, h, w], power))
    }

    /// Max pooling; `pads` are top, left, bottom, right.
    pub(in crate::zoo) fn max_pool(
        &mut self,
        name: &str,
        x: Tensor,
        kernel: usize,
        stride: usize,
        pads: [usize; 4],
    ) -> Tensor {
        let (h, w) = self.extent(x);
        let reach = |extent: usize| (extent - kernel) / stride + 1;
        let dims = vec![1, self.channels(x), reach(h + pads[0] + pads[2]), reach(w + pads[1] + pads[3])];
        let attributes =
            vec![ints("kernel_shape", [kernel; 2]), ints("pads", pads), ints("strides", [stride; 2])];
        let power = self.power_of_largest(x, kernel);
        self.node("MaxPool", name, vec![self.name(x)], attributes, dims, power)
    }

    /// Max pooling without padding whose last window may reach over the end of the map.
    pub(in crate::zoo) fn max_pool_over_end(
        &mut self,
        name: &str,
        x: Tensor,
        kernel: usize,
        stride: usize,
    ) -> Tensor {
        let (h, w) = self.extent(x);
        let reach = |extent: usize| (extent - kernel).div_ceil(stride) + 1;
        let dims = vec![1, self.channels(x), reach(h), reach(w)];
        let attributes = vec![
            int("ceil_mode", 1),
            ints("kernel_shape", [kernel; 2]),
            ints("pads", [0; 4]),
            ints("strides", [stride; 2]),
        ];
        let power = self.power_of_largest(x, kernel);
        self.node("MaxPool", name, vec![self.name(x)], attributes, dims, power)
    }

    fn power_of_largest(&self, x: Tensor, kernel: usize) -> f64 {
        self.power(x) * if kernel == 2 { 1.8 } else { 2.3 }
    }

    /// Average pooling with as much padding as keeps an odd window around its centre; what is padded counts.
    pub(in crate::zoo) fn average_pool(
        &mut self,
        name: &str,
        x: Tensor,
        kernel: usize,
        stride: usize,
    ) -> Tensor {
        let (h, w) = self.extent(x);
        let pad = (kernel - 1) / 2;
        let reach = |extent: usize| (extent + 2 * pad - kernel) / stride + 1;
        let dims = vec![1, self.channels(x), reach(h), reach(w)];
        let attributes = vec![
            int("count_include_pad", 1),
            ints("kernel_shape", [kernel; 2]),
            ints("pads", [pad; 4]),
            ints("strides", [stride; 2]),
        ];
        let power = self.power(x) * 0.7;
        self.node("AveragePool", name, vec![self.name(x)], attributes, dims, power)
    }

    /// Average pooling to at most `size` x `size`, by the one window and stride that fits; nothing to do for
    /// a map that is no larger.
    pub(in crate::zoo) fn average_pool_to(&mut self, name: &str, x: Tensor, size: usize) -> Tensor {
        let (h, w) = self.extent(x);
        if h <= size && w <= size {
            return x;
        }
        let (out_h, out_w) = (h.min(size), w.min(size));
        let strides = [h / out_h, w / out_w];
        let kernel = [h - (out_h - 1) * strides[0], w - (out_w - 1) * strides[1]];
        let dims = vec![1, self.channels(x), out_h, out_w];
        let power = self.power(x) * 0.7;
        let attributes = vec![ints("kernel_shape", kernel), ints("pads", [0; 4]), ints("strides", strides)];
        self.node("AveragePool", name, vec![self.name(x)], attributes, dims, power)
    }

    /// Mean over the whole map, to one value a channel.
    pub(in crate::zoo) fn global_average_pool(&mut self, name: &str, x: Tensor) -> Tensor {
        let dims = vec![1, self.channels(x), 1, 1];
        // A rectified normal keeps 1/π of the 1/2 that is its power; some noise is left on a small map.
        let power = self.power(x) * 0.7;
        self.node("GlobalAveragePool", name, vec![self.name(x)], vec![], dims, power)
    }

    /// As [`Self::global_average_pool`], by the operator for any reduction.
    pub(in crate::zoo) fn spatial_mean(&mut self, name: &str, x: Tensor) -> Tensor {
        let dims = vec![1, self.channels(x), 1, 1];
        let attributes = vec![ints("axes", [2, 3]), int("keepdims", 1)];
        let power = self.power(x) * 0.7;
        self.node("ReduceMean", name, vec![self.name(x)], attributes, dims, power)
    }

    /// Nearest-neighbour upsampling by `factor` in both directions.
    pub(in crate::zoo) fn upsample(&mut self, name: &str, x: Tensor, factor: usize) -> Tensor {
        let (h, w) = self.extent(x);
        let dims = vec![1, self.channels(x), factor * h, factor * w];
        let power = self.power(x);
        let scale = factor as f32;
        let scales = self.fixed(format!("{name}.scales"), vec![4], vec![1.0, 1.0, scale, scale]);
        let attributes = vec![
            string("coordinate_transformation_mode", "asymmetric"),
            string("mode", "nearest"),
            string("nearest_mode", "floor"),
        ];
        self.node("Resize", name, vec![self.name(x), String::new(), scales], attributes, dims, power)
    }

    /// Bilinear interpolation to a map `h` rows high and `w` columns wide, `transformation` being how ONNX
    /// calls the way in which samples of the two maps lie over each other.
    pub(in crate::zoo) fn bilinear(
        &mut self,
        name: &str,
        x: Tensor,
        (h, w): (usize, usize),
        transformation: &str,
    ) -> Tensor {
        let dims = vec![1, self.channels(x), h, w];
        let sizes = self.fixed_ints(format!("{name}.sizes"), dims.iter().map(|&d| d as i64).collect());
        let attributes =
            vec![string("coordinate_transformation_mode", transformation), string("mode", "linear")];
        let inputs = vec![self.name(x), String::new(), String::new(), sizes];
        self.node("Resize", name, inputs, attributes, dims, self.power(x))
    }

    /// All elements as one vector, channels slowest.
    pub(in crate::zoo) fn flatten(&mut self, name: &str, x: Tensor) -> Tensor {
        let dims = vec![1, self.tensors[x.0].dims.iter().product()];
        let power = self.power(x);
        self.node("Flatten", name, vec![self.name(x)], vec![int("axis", 1)], dims, power)
    }

    /// A fully connected layer with bias.
    pub(in crate::zoo) fn linear(&mut self, name: &str, x: Tensor, out: usize) -> Tensor {
        let features = self.channels(x);
        let std = (1.0 / (features as f64 * self.power(x))).sqrt() as f32;
        let bias = self.shift(name, "bias", out);
        let weight = self.parameter(format!("{name}.weight"), vec![out, features], Fill::Normal { std });
        let inputs = vec![self.name(x), weight, bias];
        self.node("Gemm", name, inputs, vec![int("transB", 1)], vec![1, out], 1.0)
    }
}
