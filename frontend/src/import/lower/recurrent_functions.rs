//! The functions that the gates of recurrent layers pass through, with the parameters that a layer gives
//! them.

use strata_ir::{ValueId, dialect};

use super::elementwise::{divide, exponential_unit, hard_sigmoid, leaky, softplus};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;

/// What ONNX calls a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Affine,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    ScaledTanh,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parameter {
    /// The function has none such.
    Absent,
    /// The layer has to give it.
    Needed,
    /// What it is if the layer gives none.
    Usually(f32),
}

/// A function as ONNX describes it.
struct Described {
    name: &'static str,
    kind: Kind,
    alpha: Parameter,
    beta: Parameter,
}

const FUNCTIONS: [Described; 11] = {
    use Parameter::{Absent, Needed, Usually};
    const fn row(name: &'static str, kind: Kind, alpha: Parameter, beta: Parameter) -> Described {
        Described { name, kind, alpha, beta }
    }
    [
        row("Affine", Kind::Affine, Needed, Needed),
        row("Elu", Kind::Elu, Usually(1.0), Absent),
        row("HardSigmoid", Kind::HardSigmoid, Usually(0.2), Usually(0.5)),
        row("LeakyRelu", Kind::LeakyRelu, Usually(0.01), Absent),
        row("Relu", Kind::Relu, Absent, Absent),
        row("ScaledTanh", Kind::ScaledTanh, Needed, Needed),
        row("Sigmoid", Kind::Sigmoid, Absent, Absent),
        row("Softplus", Kind::Softplus, Absent, Absent),
        row("Softsign", Kind::Softsign, Absent, Absent),
        row("Tanh", Kind::Tanh, Absent, Absent),
        row("ThresholdedRelu", Kind::ThresholdedRelu, Usually(1.0), Absent),
    ]
};

/// A function with its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    kind: Kind,
    alpha: f32,
    beta: f32,
}

/// The functions of direction `index` of a layer, each direction of which usually has those of `usual`.
///
/// Parameters are listed for those functions that have them, in the order of the functions of all directions.
pub(super) fn functions(node: &Node<'_>, index: usize, usual: &[&str]) -> Lowered<Vec<Function>> {
    let named = node.strings("activations")?;
    let names: Vec<&str> = match &named {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => usual.repeat(index + 1),
    };
    if !names.len().is_multiple_of(usual.len()) || names.len() < (index + 1) * usual.len() {
        invalid!("{} activation functions where every direction has {}", names.len(), usual.len());
    }
    let mut alphas = node.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = node.floats("activation_beta")?.unwrap_or_default().iter();
    let mut functions = Vec::new();
    for name in names {
        let Some(described) = FUNCTIONS.iter().find(|f| f.name.eq_ignore_ascii_case(name)) else {
            unsupported!("the activation function `{name}`")
        };
        functions.push(Function {
            kind: described.kind,
            alpha: parameter(described.alpha, &mut alphas, name)?,
            beta: parameter(described.beta, &mut betas, name)?,
        });
    }
    Ok(functions.split_off(index * usual.len()).into_iter().take(usual.len()).collect())
}

/// The value of a parameter, the next of those that the layer gives.
fn parameter(parameter: Parameter, given: &mut std::slice::Iter<'_, f32>, function: &str) -> Lowered<f32> {
    match parameter {
        Parameter::Absent => Ok(0.0),
        Parameter::Usually(usual) => Ok(given.next().copied().unwrap_or(usual)),
        Parameter::Needed => match given.next() {
            Some(&value) => Ok(value),
            None => unsupported!("the activation function `{function}` without its parameters"),
        },
    }
}

impl Function {
    /// Emits the function of `x`.
    pub(super) fn emit(self, em: &mut Emitter, x: ValueId) -> ValueId {
        let Self { kind, alpha, beta } = self;
        match kind {
            Kind::Affine => {
                let scaled = em.scale(x, alpha);
                em.shift(scaled, beta)
            }
            Kind::Elu => exponential_unit(em, x, alpha, 1.0, 1.0),
            Kind::HardSigmoid => hard_sigmoid(em, x, alpha, beta),
            Kind::LeakyRelu => {
                let slope = em.scalar_like(x, alpha);
                leaky(em, x, slope, (0.0..=1.0).contains(&alpha))
            }
            Kind::Relu => em.clamp(x, 0.0, f32::MAX),
            Kind::ScaledTanh => {
                let scaled = em.scale(x, beta);
                let tanh = em.unary(dialect::Tanh {}, scaled);
                em.scale(tanh, alpha)
            }
            Kind::Sigmoid => em.unary(dialect::Sigmoid {}, x),
            Kind::Softplus => softplus(em, x),
            Kind::Softsign => {
                let magnitude = em.unary(dialect::Abs {}, x);
                let divisor = em.shift(magnitude, 1.0);
                divide(em, x, divisor)
            }
            Kind::Tanh => em.unary(dialect::Tanh {}, x),
            Kind::ThresholdedRelu => {
                let (threshold, zero) = (em.scalar_like(x, alpha), em.scalar_like(x, 0.0));
                let above = em.compare(dialect::Greater {}, x, threshold);
                em.select(above, x, zero)
            }
        }
    }
}
