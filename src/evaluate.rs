//! Running a function of plain TOSA on the reference evaluator, with its ports as a user sees them.
//!
//! A port that says what its integers stand for (`strata.quant`) takes and gives reals, as a compiled
//! bundle's does; any other takes and gives its own elements. A value that the port's type cannot hold is an
//! error, never wrapped.

use strata_ir::{ElemType, Module, OpId, Tensor, TensorData, eval};
use strata_isa_spec::bundle::{Port, Quantisation};

use crate::inputs::match_inputs;
use crate::io::Array;
use crate::session::{self, RunError};

fn function(module: &Module, name: &str) -> Result<OpId, RunError> {
    module.function(name).ok_or_else(|| RunError::Bundle(format!("no function `{name}`")))
}

/// The inputs and outputs of a module: those of `@main` and, unless only the machine's part is asked for
/// (`raw`), the outputs of a `@host` that stands beside it.
///
/// # Errors
/// If the functions have no tensor types, or their attributes are malformed.
pub fn ports(module: &Module, raw: bool) -> Result<(Vec<Port>, Vec<Port>), RunError> {
    let main = function(module, "main")?;
    let host = module.function("host").filter(|_| !raw);
    Ok((session::ports(module, main, false)?, session::ports(module, host.unwrap_or(main), true)?))
}

/// Evaluates a module's `@main` and the `@host` beside it, if there is one. With `raw`, gives the integers
/// that `@main` computes. Inputs go by name or by position; outputs come in the function's order.
///
/// # Errors
/// If the inputs do not fit, or an op cannot be evaluated on them.
pub fn evaluate(
    module: &Module,
    inputs: &[(String, Array)],
    raw: bool,
) -> Result<Vec<(String, Array)>, RunError> {
    let main = function(module, "main")?;
    let (takes, gives) = (session::ports(module, main, false)?, session::ports(module, main, true)?);
    let arrays = match_inputs(&takes, inputs)?;
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(arrays.len());
    for (port, array) in takes.iter().zip(&arrays) {
        match argument(port, array) {
            Ok(tensor) => tensors.push(tensor),
            Err(problem) => problems.push(format!("input `{}`: {problem}", port.name)),
        }
    }
    if !problems.is_empty() {
        return Err(RunError::Inputs { problems });
    }
    let results = eval::eval_function(module, main, tensors)?;
    if let Some(host) = module.function("host").filter(|_| !raw) {
        let reals = gives.iter().zip(&results).map(|(port, tensor)| real(port, tensor)).collect();
        let gives = session::ports(module, host, true)?;
        let results = eval::eval_function(module, host, reals)?;
        return gives
            .iter()
            .zip(&results)
            .map(|(p, t)| Ok((p.name.clone(), session::from_tensor(p, t)?)))
            .collect();
    }
    let outputs = gives.iter().zip(&results).map(|(port, tensor)| {
        let array = match &port.quantisation {
            Some(_) if tensor.data().elem().int_range().is_some() => {
                session::to_user(port, tensor.data(), !raw)?
            }
            _ => session::from_tensor(port, tensor)?,
        };
        Ok((port.name.clone(), array))
    });
    outputs.collect()
}

/// What a port takes, of what a user gave.
fn argument(port: &Port, array: &Array) -> Result<Tensor, String> {
    let values = session::permute(&array.values, &port.shape, &port.perm);
    let elem = ElemType::from_keyword(&port.machine_dtype);
    let elem = elem.ok_or_else(|| format!("unknown element type `{}`", port.machine_dtype))?;
    let Some((least, most)) = elem.int_range() else {
        let floats = values.into_iter().map(|v| v as f32).collect();
        return Ok(Tensor::f32(port.machine_shape.clone(), floats));
    };
    let integer = |value: f64| match &port.quantisation {
        Some(q) => Some(session::quantise(value, q, least, most)),
        None => {
            let fits = value.fract() == 0.0 && least as f64 <= value && value <= most as f64;
            fits.then_some(value as i64)
        }
    };
    let mut integers = Vec::with_capacity(values.len());
    for value in values {
        integers.push(integer(value).ok_or_else(|| format!("{value} is no {elem}"))?);
    }
    let data = TensorData::from_ints(elem, integers).ok_or("not of integers")?;
    Ok(Tensor::new(port.machine_shape.clone(), data))
}

/// What a result of `@main` stands for, as `@host` takes it.
fn real(port: &Port, tensor: &Tensor) -> Tensor {
    let Some(integers) = tensor.data().to_ints() else { return tensor.clone() };
    let q = port.quantisation.unwrap_or(Quantisation { scale: 1.0, zero_point: 0 });
    let reals = integers.into_iter().map(|v| (q.scale * (v as f64 - f64::from(q.zero_point))) as f32);
    Tensor::f32(port.machine_shape.clone(), reals.collect())
}
