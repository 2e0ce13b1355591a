//! A network under construction: ONNX nodes, the parameters they will need, and what is known of every
//! tensor.
//!
//! The builder methods are the layers that the published networks are made of. A parameter is only
//! *described* here (name, dimensions, distribution); [`Network::into_model`] fills them, so that a network
//! can be counted and checked without making its weights.
//!
//! Beside its shape every tensor carries an estimate of its *power*, the mean of the square of its elements.
//! A convolution's weights are scaled by the estimate of its input, which keeps activations near unit
//! variance through any depth, residual sums included, as training would. The estimates are rough and only
//! ever set a scale.

use tract_onnx::pb::{self, attribute_proto::AttributeType, tensor_proto::DataType};

use super::random::Stream;

/// Range of the batch normalisation's scale and variance; both lie around one, so that it is near an
/// identity.
const NORM_RANGE: (f32, f32) = (0.7, 1.3);
/// `E[scale²] · E[1/variance]` over [`NORM_RANGE`]: what batch normalisation does to the power of its input.
const NORM_GAIN: f64 = 1.0627;
/// Standard deviation of biases, and of batch normalisation's shift and mean.
const SHIFT_STD: f32 = 0.1;

/// A tensor of the network being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tensor(usize);

/// What is known of a tensor.
#[derive(Debug)]
struct TensorFacts {
    name: String,
    /// Dimensions with the batch of one first: `[1, c, h, w]` or `[1, c]`.
    dims: Vec<usize>,
    power: f64,
}

/// Where the values of a parameter come from when no trained weights are given.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fill {
    /// Normal around zero.
    Normal { std: f32 },
    /// Uniform in `[low, high)`.
    Uniform { low: f32, high: f32 },
    /// Not a parameter: part of the architecture, such as the scales of an upsampling.
    Fixed(Vec<f32>),
}

/// An initialiser of the network, not yet filled.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) fill: Fill,
}

impl Parameter {
    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether training sets it, in contrast to constants of the architecture.
    pub(super) fn is_trained(&self) -> bool {
        !matches!(self.fill, Fill::Fixed(_))
    }
}

/// An elementwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    /// None at all.
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` if positive, else `0.1 x`.
    LeakyRelu,
    /// `x` if positive, else `slope[c] x`.
    PRelu,
}

/// A convolution with what habitually follows it. "Same" padding for odd kernels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    out: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    /// Epsilon of the batch normalisation that follows; without one the convolution has a bias.
    norm_epsilon: Option<f32>,
    activation: Activation,
}

impl Conv {
    /// `out` channels from a `kernel` x `kernel` window, stride 1, with bias, linear.
    pub(super) fn new(out: usize, kernel: usize) -> Self {
        Self { out, kernel, stride: 1, groups: 1, norm_epsilon: None, activation: Activation::Linear }
    }

    pub(super) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(super) fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    pub(super) fn batch_norm(self, epsilon: f32) -> Self {
        Self { norm_epsilon: Some(epsilon), ..self }
    }

    pub(super) fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
}

/// An ONNX graph being built, layer by layer.
#[derive(Debug, Default)]
pub(super) struct Network {
    nodes: Vec<pb::NodeProto>,
    parameters: Vec<Parameter>,
    tensors: Vec<TensorFacts>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Network {
    /// Declares an input of `c` channels, whose values have the mean square `power`.
    pub(super) fn input(&mut self, name: &str, (c, h, w): (usize, usize, usize), power: f64) -> Tensor {
        let tensor = self.tensor(name, vec![1, c, h, w], power);
        self.inputs.push(tensor);
        tensor
    }

    /// Declares `tensor`, so far named after its node, as the output `name`.
    pub(super) fn output(&mut self, tensor: Tensor, name: &str) {
        let old = std::mem::replace(&mut self.tensors[tensor.0].name, name.to_owned());
        for node in &mut self.nodes {
            for end in node.input.iter_mut().chain(&mut node.output).filter(|end| **end == old) {
                name.clone_into(end);
            }
        }
        self.outputs.push(tensor);
    }

    /// Number of channels.
    pub(super) fn channels(&self, x: Tensor) -> usize {
        self.tensors[x.0].dims[1]
    }

    /// Height and width of a feature map.
    pub(super) fn extent(&self, x: Tensor) -> (usize, usize) {
        match self.tensors[x.0].dims[..] {
            [_, _, h, w] => (h, w),
            _ => (1, 1),
        }
    }

    /// Convolution, then batch normalisation and activation as `conv` says.
    pub(super) fn conv(&mut self, name: &str, x: Tensor, conv: Conv) -> Tensor {
        let (c, (h, w)) = (self.channels(x), self.extent(x));
        let pad = conv.kernel / 2;
        let reach = |extent: usize| (extent + 2 * pad - conv.kernel) / conv.stride + 1;
        let dims = vec![1, conv.out, reach(h), reach(w)];
        let fan_in = c / conv.groups * conv.kernel * conv.kernel;
        let weight_dims = vec![conv.out, c / conv.groups, conv.kernel, conv.kernel];
        let weight_std = (1.0 / (fan_in as f64 * self.power(x))).sqrt() as f32;

        // The parameters stand in the order of Darknet's weight files: those before the convolution's own
        // weights.
        let bias = conv.norm_epsilon.is_none().then(|| self.shift(name, "bias", conv.out));
        let norm =
            conv.norm_epsilon.map(|epsilon| (epsilon, self.norm_parameters(&format!("{name}/bn"), conv.out)));
        let weight = self.parameter(format!("{name}.weight"), weight_dims, Fill::Normal { std: weight_std });

        let mut inputs = vec![self.name(x), weight];
        inputs.extend(bias);
        let attributes = vec![
            ints("dilations", [1, 1]),
            int("group", conv.groups),
            ints("kernel_shape", [conv.kernel; 2]),
            ints("pads", [pad; 4]),
            ints("strides", [conv.stride; 2]),
        ];
        let mut y = self.node("Conv", name, inputs, attributes, dims, 1.0);
        if let Some((epsilon, [beta, gamma, mean, variance])) = norm {
            y = self.batch_norm(&format!("{name}/bn"), y, epsilon, [gamma, beta, mean, variance]);
        }
        self.activation(name, y, conv.activation)
    }

    /// Transposed convolution with bias, whose output is exactly `stride` times as large as its input.
    ///
    /// # Shapes
    /// Half of `kernel - stride`, rounded up, is padded on every side; `output_padding` takes the excess
    /// back.
    pub(super) fn conv_transpose(
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

    /// Applies `activation`, in a node named after the layer `name`.
    pub(super) fn activation(&mut self, name: &str, x: Tensor, activation: Activation) -> Tensor {
        let dims = self.tensors[x.0].dims.clone();
        // Half of a value spread evenly around zero is on the negative side.
        let power = self.power(x) / 2.0;
        let input = self.name(x);
        match activation {
            Activation::Linear => x,
            Activation::Relu => self.node("Relu", &format!("{name}/relu"), vec![input], vec![], dims, power),
            Activation::Relu6 => {
                let low = self.fixed(format!("{name}/relu6.min"), vec![], vec![0.0]);
                let high = self.fixed(format!("{name}/relu6.max"), vec![], vec![6.0]);
                self.node("Clip", &format!("{name}/relu6"), vec![input, low, high], vec![], dims, power)
            }
            Activation::LeakyRelu => {
                let alpha = vec![float("alpha", 0.1)];
                self.node("LeakyRelu", &format!("{name}/leaky"), vec![input], alpha, dims, power * 1.01)
            }
            Activation::PRelu => {
                let slope = Fill::Uniform { low: 0.0, high: 0.3 };
                let slope = self.parameter(format!("{name}/prelu.slope"), vec![dims[1], 1, 1], slope);
                self.node("PRelu", &format!("{name}/prelu"), vec![input, slope], vec![], dims, power * 1.03)
            }
        }
    }

    /// Elementwise sum of two tensors of one shape.
    pub(super) fn add(&mut self, name: &str, a: Tensor, b: Tensor) -> Tensor {
        let dims = self.tensors[a.0].dims.clone();
        let power = self.power(a) + self.power(b);
        self.node("Add", name, vec![self.name(a), self.name(b)], vec![], dims, power)
    }

    /// ReLU of the sum of a residual branch and of a shortcut that is itself the output of a ReLU.
    ///
    /// Differs from [`Self::activation`] only in the estimate: such a sum is mostly positive already.
    pub(super) fn residual_relu(&mut self, name: &str, sum: Tensor) -> Tensor {
        let dims = self.tensors[sum.0].dims.clone();
        let power = self.power(sum) * 0.75;
        self.node("Relu", &format!("{name}/relu"), vec![self.name(sum)], vec![], dims, power)
    }

    /// Concatenation of feature maps along the channels.
    pub(super) fn concat(&mut self, name: &str, parts: &[Tensor]) -> Tensor {
        let (h, w) = self.extent(parts[0]);
        let channels: usize = parts.iter().map(|&part| self.channels(part)).sum();
        let power = parts.iter().map(|&part| self.power(part) * self.channels(part) as f64).sum::<f64>();
        let inputs = parts.iter().map(|&part| self.name(part)).collect();
        let dims = vec![1, channels, h, w];
        self.node("Concat", name, inputs, vec![int("axis", 1)], dims, power / channels as f64)
    }

    /// Max pooling; `pads` are top, left, bottom, right.
    pub(super) fn max_pool(
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
        let power = self.power(x) * if kernel == 2 { 1.8 } else { 2.3 };
        let attributes =
            vec![ints("kernel_shape", [kernel; 2]), ints("pads", pads), ints("strides", [stride; 2])];
        self.node("MaxPool", name, vec![self.name(x)], attributes, dims, power)
    }

    /// Average pooling to at most `size` x `size`, by the one window and stride that fits; nothing to do for
    /// a map that is no larger.
    pub(super) fn average_pool_to(&mut self, name: &str, x: Tensor, size: usize) -> Tensor {
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
    pub(super) fn global_average_pool(&mut self, name: &str, x: Tensor) -> Tensor {
        let dims = vec![1, self.channels(x), 1, 1];
        // A rectified normal keeps 1/π of the 1/2 that is its power; some noise is left on a small map.
        let power = self.power(x) * 0.7;
        self.node("GlobalAveragePool", name, vec![self.name(x)], vec![], dims, power)
    }

    /// Nearest-neighbour upsampling by 2 in both directions.
    pub(super) fn upsample(&mut self, name: &str, x: Tensor) -> Tensor {
        let (h, w) = self.extent(x);
        let dims = vec![1, self.channels(x), 2 * h, 2 * w];
        let power = self.power(x);
        let scales = self.fixed(format!("{name}.scales"), vec![4], vec![1.0, 1.0, 2.0, 2.0]);
        let attributes = vec![
            string("coordinate_transformation_mode", "asymmetric"),
            string("mode", "nearest"),
            string("nearest_mode", "floor"),
        ];
        self.node("Resize", name, vec![self.name(x), String::new(), scales], attributes, dims, power)
    }

    /// All elements as one vector, channels slowest.
    pub(super) fn flatten(&mut self, name: &str, x: Tensor) -> Tensor {
        let dims = vec![1, self.tensors[x.0].dims.iter().product()];
        let power = self.power(x);
        self.node("Flatten", name, vec![self.name(x)], vec![int("axis", 1)], dims, power)
    }

    /// A fully connected layer with bias.
    pub(super) fn linear(&mut self, name: &str, x: Tensor, out: usize) -> Tensor {
        let features = self.channels(x);
        let std = (1.0 / (features as f64 * self.power(x))).sqrt() as f32;
        let bias = self.shift(name, "bias", out);
        let weight = self.parameter(format!("{name}.weight"), vec![out, features], Fill::Normal { std });
        let inputs = vec![self.name(x), weight, bias];
        self.node("Gemm", name, inputs, vec![int("transB", 1)], vec![1, out], 1.0)
    }

    /// The initialisers, in the order in which they were asked for.
    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The finished model, with random parameters or with `trained` ones, which are the raw little-endian
    /// bytes of all trained parameters one after the other.
    pub(super) fn into_model(self, graph_name: &str, seed: u64, trained: Option<&[u8]>) -> pb::ModelProto {
        let mut rest = trained;
        let initializer = (0u64..)
            .zip(&self.parameters)
            .map(|(index, parameter)| {
                let stream = Stream::new(seed, index);
                let len = parameter.len();
                let raw_data = match (&parameter.fill, &mut rest) {
                    (Fill::Fixed(values), _) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    (_, Some(rest)) => {
                        let (own, others) = rest.split_at(len * size_of::<f32>());
                        *rest = others;
                        own.to_vec()
                    }
                    (&Fill::Normal { std }, None) => stream.fill(len, |s, k| s.normal(k) * std),
                    (&Fill::Uniform { low, high }, None) => {
                        stream.fill(len, |s, k| low + s.unit(k) * (high - low))
                    }
                };
                pb::TensorProto {
                    name: parameter.name.clone(),
                    dims: parameter.dims.iter().map(|&d| d as i64).collect(),
                    data_type: DataType::Float as i32,
                    raw_data,
                    ..pb::TensorProto::default()
                }
            })
            .collect();
        let values = |tensors: &[Tensor]| tensors.iter().map(|&t| self.value_info(t)).collect();
        let graph = pb::GraphProto {
            name: graph_name.to_owned(),
            input: values(&self.inputs),
            output: values(&self.outputs),
            node: self.nodes,
            initializer,
            ..pb::GraphProto::default()
        };
        pb::ModelProto {
            ir_version: 7,
            opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
            producer_name: "strata-zoo".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            ..pb::ModelProto::default()
        }
    }

    fn batch_norm(&mut self, name: &str, x: Tensor, epsilon: f32, parameters: [String; 4]) -> Tensor {
        let dims = self.tensors[x.0].dims.clone();
        let power = self.power(x) * NORM_GAIN + 2.0 * f64::from(SHIFT_STD * SHIFT_STD);
        let mut inputs = vec![self.name(x)];
        inputs.extend(parameters);
        self.node("BatchNormalization", name, inputs, vec![float("epsilon", epsilon)], dims, power)
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

    fn shift(&mut self, node: &str, role: &str, channels: usize) -> String {
        self.parameter(format!("{node}.{role}"), vec![channels], Fill::Normal { std: SHIFT_STD })
    }

    fn fixed(&mut self, name: String, dims: Vec<usize>, values: Vec<f32>) -> String {
        self.parameter(name, dims, Fill::Fixed(values))
    }

    fn parameter(&mut self, name: String, dims: Vec<usize>, fill: Fill) -> String {
        self.parameters.push(Parameter { name: name.clone(), dims, fill });
        name
    }

    /// Appends a node of one output, which has the node's name.
    fn node(
        &mut self,
        op_type: &str,
        name: &str,
        input: Vec<String>,
        attribute: Vec<pb::AttributeProto>,
        dims: Vec<usize>,
        power: f64,
    ) -> Tensor {
        self.nodes.push(pb::NodeProto {
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            input,
            output: vec![name.to_owned()],
            attribute,
            ..pb::NodeProto::default()
        });
        self.tensor(name, dims, power)
    }

    fn tensor(&mut self, name: &str, dims: Vec<usize>, power: f64) -> Tensor {
        self.tensors.push(TensorFacts { name: name.to_owned(), dims, power });
        Tensor(self.tensors.len() - 1)
    }

    fn name(&self, x: Tensor) -> String {
        self.tensors[x.0].name.clone()
    }

    fn power(&self, x: Tensor) -> f64 {
        self.tensors[x.0].power
    }

    fn value_info(&self, x: Tensor) -> pb::ValueInfoProto {
        use pb::tensor_shape_proto::{Dimension, dimension::Value};
        let facts = &self.tensors[x.0];
        let dim = facts
            .dims
            .iter()
            .map(|&d| Dimension { value: Some(Value::DimValue(d as i64)), ..Dimension::default() })
            .collect();
        let tensor = pb::type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: Some(pb::TensorShapeProto { dim }),
        };
        let value = Some(pb::type_proto::Value::TensorType(tensor));
        let r#type = Some(pb::TypeProto { value, ..pb::TypeProto::default() });
        pb::ValueInfoProto { name: facts.name.clone(), r#type, ..pb::ValueInfoProto::default() }
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> &[pb::NodeProto] {
        &self.nodes
    }

    #[cfg(test)]
    pub(super) fn dims_of(&self, name: &str) -> Option<&[usize]> {
        self.tensors.iter().find(|facts| facts.name == name).map(|facts| &facts.dims[..])
    }
}

fn attribute(name: &str, r#type: AttributeType) -> pb::AttributeProto {
    pb::AttributeProto { name: name.to_owned(), r#type: r#type as i32, ..pb::AttributeProto::default() }
}

fn int(name: &str, value: usize) -> pb::AttributeProto {
    pb::AttributeProto { i: value as i64, ..attribute(name, AttributeType::Int) }
}

fn ints<const N: usize>(name: &str, values: [usize; N]) -> pb::AttributeProto {
    pb::AttributeProto { ints: values.map(|v| v as i64).to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn float(name: &str, value: f32) -> pb::AttributeProto {
    pb::AttributeProto { f: value, ..attribute(name, AttributeType::Float) }
}

fn string(name: &str, value: &str) -> pb::AttributeProto {
    pb::AttributeProto { s: value.as_bytes().to_vec(), ..attribute(name, AttributeType::String) }
}
