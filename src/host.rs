//! What the host runs of a network: functions of the compiler's IR on the evaluator, ONNX nodes on the host's
//! library.

use std::sync::Arc;

use strata_frontend::host::{HostModel, HostTensor};
use strata_ir::{ElemType, Module, Op, Tensor, TensorData, Type};
use strata_isa_spec::bundle::{Code, Part, Port};
use strata_passes::quantise;

use crate::io::array::Array;
use crate::ports::{RunError, dtype_of, from_tensor, permute};

/// A host part that is ready to run.
#[derive(Clone, Debug)]
pub(crate) enum HostPart {
    /// A module with a function `host`.
    Ir(Box<Module>),
    /// An ONNX model.
    Onnx(Box<HostModel>),
}

impl HostPart {
    /// Prepares the code of a part; `None` if the machine runs it.
    ///
    /// # Errors
    /// If it is damaged, told as a text.
    pub(crate) fn load(code: &Code) -> Result<Option<Self>, String> {
        Ok(Some(match code {
            Code::Machine(_) => return Ok(None),
            Code::Ir(text) => {
                let module = strata_ir::text::parse(text, None).map_err(|error| error.to_string())?;
                strata_ir::verify(&module).map_err(|error| error.to_string())?;
                Self::Ir(Box::new(module))
            }
            Code::Onnx(bytes) => {
                let model = HostModel::load(bytes).map_err(|error| error.to_string())?;
                Self::Onnx(Box::new(model))
            }
        }))
    }

    /// That a part's ports, each of which is sound, are those of the function that it evaluates. What the
    /// library takes and gives it checks itself.
    ///
    /// # Errors
    /// If they are not, told as a text.
    pub(crate) fn demand_ports(&self, part: &Part) -> Result<(), String> {
        let Self::Ir(module) = self else { return Ok(()) };
        let Some(Op::Func(func)) = module.function("host").map(|func| &module.op(func).op) else {
            return Err("no function `host`".to_owned());
        };
        let types = &func.function_type;
        for (ports, types, what) in
            [(&part.inputs, &types.inputs, "takes"), (&part.outputs, &types.results, "gives")]
        {
            if ports.len() != types.len() {
                let (found, expected) = (ports.len(), types.len());
                return Err(format!("the function `host` {what} {expected} tensors, the part {found}"));
            }
            for (port, ty) in ports.iter().zip(types) {
                let fits = ty.as_tensor().is_some_and(|ty| ty.shape == port.machine_shape);
                if !fits {
                    let shape = &port.machine_shape;
                    let name = &port.name;
                    return Err(format!(
                        "the function `host` {what} `{name}` as {ty}, the part as {shape:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Runs a part that takes `arrays` and whose outputs are `outputs`, each in its order.
    ///
    /// # Errors
    /// If an op cannot be evaluated, or the library fails.
    pub(crate) fn run(
        &self,
        inputs: &[Port],
        outputs: &[Port],
        arrays: Vec<Array>,
    ) -> Result<Vec<Array>, RunError> {
        match self {
            Self::Ir(module) => run_ir(module, inputs, outputs, &arrays),
            Self::Onnx(model) => {
                let outputs = model.run(&arrays.into_iter().map(to_host).collect::<Vec<_>>())?;
                outputs.into_iter().map(from_host).collect()
            }
        }
    }
}

/// Evaluates the function `host`.
fn run_ir(
    module: &Module,
    inputs: &[Port],
    outputs: &[Port],
    arrays: &[Array],
) -> Result<Vec<Array>, RunError> {
    let func = module.function("host").ok_or_else(|| RunError::Bundle("no function `host`".to_owned()))?;
    let args = module.args(module.entry_block(func));
    if args.len() != inputs.len() || inputs.len() != arrays.len() {
        let (n_args, n_ports) = (args.len(), inputs.len());
        let what = format!("the function `host` takes {n_args} tensors, the manifest has {n_ports}");
        return Err(RunError::Bundle(what));
    }
    let arguments = args.iter().zip(inputs).zip(arrays).map(|((&arg, port), array)| {
        let elem = match module.ty(arg) {
            Type::Tensor(ty) => ty.elem,
            _ => ElemType::F32,
        };
        argument(port, array, elem).map(Arc::new)
    });
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let results = quantise::forward(module, func, &arguments, &mut |_, _| {})?;
    outputs.iter().zip(&results).map(|(port, tensor)| from_tensor(port, tensor)).collect()
}

/// A tensor of the function. What a program gave stands in the user's axes; the function takes the machine's,
/// to which `perm` leads.
fn argument(port: &Port, array: &Array, elem: ElemType) -> Result<Tensor, RunError> {
    if array.shape != port.shape {
        let (name, expected, found) = (&port.name, &port.shape, &array.shape);
        return Err(RunError::Bundle(format!("`{name}` is {found:?}, the host takes it as {expected:?}")));
    }
    let values = permute(&array.values, &array.shape, &port.perm);
    let Some((least, greatest)) = elem.int_range() else {
        let floats = values.iter().map(|&v| v as f32).collect();
        return Ok(Tensor::f32(port.machine_shape.clone(), floats));
    };
    if let Some(v) = values.iter().find(|&&v| v < least as f64 || v > greatest as f64) {
        return Err(RunError::Bundle(format!("`{}` holds {v}, which does not fit in {elem}", port.name)));
    }
    let data = TensorData::from_ints(elem, values.iter().map(|&v| v as i64));
    let data = data.ok_or_else(|| RunError::Bundle(format!("`{}` is not of integers", port.name)))?;
    Ok(Tensor::new(port.machine_shape.clone(), data))
}

/// An array as the host's library takes it.
pub(crate) fn to_host(Array { shape, dtype, values }: Array) -> HostTensor {
    HostTensor { shape, dtype: dtype.name().to_owned(), values }
}

/// What the host's library gives, as an array.
pub(crate) fn from_host(HostTensor { shape, dtype, values }: HostTensor) -> Result<Array, RunError> {
    Ok(Array { shape, dtype: dtype_of(&dtype)?, values })
}
