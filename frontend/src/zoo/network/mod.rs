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

mod activation;
mod attribute;
mod conv;
mod fusion;
mod layers;
mod tokens;

use tract_onnx::pb::{self, tensor_proto::DataType};

use super::random::Stream;
pub(super) use activation::Activation;
pub(super) use conv::Conv;

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
    /// Dimensions as ONNX has them; those of a feature map are `[1, c, h, w]`.
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
    /// Not a parameter either: sizes, shapes and axes.
    FixedInts(Vec<i64>),
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
        !matches!(self.fill, Fill::Fixed(_) | Fill::FixedInts(_))
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

    fn dims(&self, x: Tensor) -> Vec<usize> {
        self.tensors[x.0].dims.clone()
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
                    (Fill::FixedInts(values), _) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
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
                    data_type: match parameter.fill {
                        Fill::FixedInts(_) => DataType::Int64 as i32,
                        _ => DataType::Float as i32,
                    },
                    raw_data,
                    ..pb::TensorProto::default()
                }
            })
            .collect();
        let opset_import = vec![pb::OperatorSetIdProto { domain: String::new(), version: self.opset() }];
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
            opset_import,
            producer_name: "strata-zoo".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            ..pb::ModelProto::default()
        }
    }

    /// The least operator set, 13 or later, that has all nodes.
    fn opset(&self) -> i64 {
        let since = |node: &pb::NodeProto| match &*node.op_type {
            "HardSwish" => 14,
            "LayerNormalization" => 17,
            _ => 13,
        };
        self.nodes.iter().map(since).max().unwrap_or(13)
    }

    fn shift(&mut self, node: &str, role: &str, channels: usize) -> String {
        self.parameter(format!("{node}.{role}"), vec![channels], Fill::Normal { std: SHIFT_STD })
    }

    fn fixed(&mut self, name: String, dims: Vec<usize>, values: Vec<f32>) -> String {
        self.parameter(name, dims, Fill::Fixed(values))
    }

    /// Sizes, shapes or axes, as a vector.
    fn fixed_ints(&mut self, name: String, values: Vec<i64>) -> String {
        self.parameter(name, vec![values.len()], Fill::FixedInts(values))
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
        self.push(op_type, name, input, vec![name.to_owned()], attribute);
        self.tensor(name, dims, power)
    }

    fn push(
        &mut self,
        op_type: &str,
        name: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<pb::AttributeProto>,
    ) {
        self.nodes.push(pb::NodeProto {
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            input,
            output,
            attribute,
            ..pb::NodeProto::default()
        });
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
