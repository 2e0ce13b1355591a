//! Elementwise nonlinearities.

use super::attribute::float;
use super::{Fill, Network, Tensor};

/// An elementwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::zoo) enum Activation {
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
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x sigmoid(x)`, which exporters write as two nodes.
    Silu,
    /// `min(max(x / 6 + 1 / 2, 0), 1)`.
    HardSigmoid,
    /// `x hard_sigmoid(x)`.
    HardSwish,
    /// `x` times the normal distribution of `x`, in five nodes around the error function.
    Gelu,
}

impl Network {
    /// Applies `activation`, in a node named after the layer `name`.
    pub(in crate::zoo) fn activation(&mut self, name: &str, x: Tensor, activation: Activation) -> Tensor {
        let dims = self.dims(x);
        // Half of a value spread evenly around zero is on the negative side.
        let power = self.power(x) / 2.0;
        let input = self.name(x);
        // A sigmoid, and what is gated by one, keeps more of large inputs than of small ones. The estimates
        // are those for large inputs, so that nothing grows with depth; shifts keep it from fading.
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
            Activation::Sigmoid => {
                self.node("Sigmoid", &format!("{name}/sigmoid"), vec![input], vec![], dims, 0.5)
            }
            Activation::Silu => {
                let gate = self.activation(name, x, Activation::Sigmoid);
                let inputs = vec![input, self.name(gate)];
                self.node("Mul", &format!("{name}/silu"), inputs, vec![], dims, power)
            }
            Activation::HardSigmoid => {
                let alpha = vec![float("alpha", 1.0 / 6.0)];
                self.node("HardSigmoid", &format!("{name}/hardsigmoid"), vec![input], alpha, dims, 0.5)
            }
            Activation::HardSwish => {
                let name = format!("{name}/hardswish");
                self.node("HardSwish", &name, vec![input], vec![], dims, power)
            }
            Activation::Gelu => self.gelu(&format!("{name}/gelu"), x),
        }
    }

    /// `x (erf(x / sqrt(2)) + 1) / 2`, node by node.
    fn gelu(&mut self, name: &str, x: Tensor) -> Tensor {
        let (dims, input, power) = (self.dims(x), self.name(x), self.power(x));
        let root = self.fixed(format!("{name}.root"), vec![], vec![std::f32::consts::SQRT_2]);
        let one = self.fixed(format!("{name}.one"), vec![], vec![1.0]);
        let half = self.fixed(format!("{name}.half"), vec![], vec![0.5]);
        let mut elementwise = |op: &str, step: &str, inputs: Vec<String>, power: f64| {
            let y = self.node(op, &format!("{name}/{step}"), inputs, vec![], dims.clone(), power);
            (y, self.name(y))
        };
        let (_, scaled) = elementwise("Div", "div", vec![input.clone(), root], power / 2.0);
        let (_, erf) = elementwise("Erf", "erf", vec![scaled], 0.33);
        let (_, share) = elementwise("Add", "add", vec![erf, one], 1.33);
        let (_, twice) = elementwise("Mul", "gate", vec![input, share], power * 1.7);
        elementwise("Mul", "half", vec![twice, half], power * 0.425).0
    }

    /// ReLU of the sum of a residual branch and of a shortcut that is itself the output of a ReLU.
    ///
    /// Differs from [`Self::activation`] only in the estimate: such a sum is mostly positive already.
    pub(in crate::zoo) fn residual_relu(&mut self, name: &str, sum: Tensor) -> Tensor {
        let dims = self.tensors[sum.0].dims.clone();
        let power = self.power(sum) * 0.75;
        self.node("Relu", &format!("{name}/relu"), vec![self.name(sum)], vec![], dims, power)
    }
}
