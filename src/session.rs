//! Running: a bundle on the machine's interpreter, or the f32 import of a model on the reference evaluator.
//!
//! A user sees tensors by name, in the model's own layout and element type. [`Session`] permutes and quantises what
//! goes in, runs the program, runs the host tail if the bundle has one, and dequantises and permutes what comes out.

use strata_ir::attr::Attribute;
use strata_ir::dialect::Op;
use strata_ir::{ElemType, Module, OpId, Tensor, TensorData, eval};
use strata_isa_spec::bundle::{Bundle, Port, Quantisation};
use strata_isa_spec::{Program, interp};

use crate::io::array::{Array, DType};

/// Why a network could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The inputs given are not those that the network has; all problems.
    #[error("the inputs do not fit the network:{}", problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Inputs {
        /// What is wrong with each.
        problems: Vec<String>,
    },
    /// The machine refuses the program or its data.
    #[error(transparent)]
    Exec(#[from] interp::ExecError),
    /// The host tail, or an f32 model, could not be evaluated.
    #[error("evaluation: {0}")]
    Eval(#[from] eval::EvalError),
    /// The bundle contradicts itself.
    #[error("the bundle is inconsistent: {0}")]
    Bundle(String),
}

/// The tensors of `ports`, from what a user gave by name or by position.
///
/// # Errors
/// If one is missing, unknown, given twice or of another shape; all problems at once.
fn match_inputs(ports: &[Port], given: &[(String, Array)]) -> Result<Vec<Array>, RunError> {
    let mut problems = Vec::new();
    let mut found: Vec<Option<&Array>> = vec![None; ports.len()];
    let names = || ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    for (name, array) in given {
        let by_name = ports.iter().position(|p| p.name == *name);
        let by_position = || name.parse::<usize>().ok().filter(|&at| at < ports.len());
        let Some(at) = by_name.or_else(by_position) else {
            problems.push(format!("there is no input `{name}`; the inputs are {}", names()));
            continue;
        };
        if found[at].replace(array).is_some() {
            problems.push(format!("input `{}` is given twice", ports[at].name));
        }
        if array.shape != ports[at].shape {
            let (name, want) = (&ports[at].name, &ports[at].shape);
            problems.push(format!("input `{name}`: expected shape {want:?}, found {:?}", array.shape));
        }
    }
    for (port, array) in ports.iter().zip(&found) {
        if array.is_none() {
            problems.push(format!("input `{}` of shape {:?} is missing", port.name, port.shape));
        }
    }
    if problems.is_empty() {
        Ok(found.into_iter().flatten().cloned().collect())
    } else {
        Err(RunError::Inputs { problems })
    }
}

/// Where each element of the permuted tensor comes from: axis `i` of the result is axis `perm[i]` of `shape`.
fn permuted_indices(shape: &[usize], perm: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut indices = vec![0];
    for &axis in perm {
        indices = indices
            .into_iter()
            .flat_map(|base| (0..shape[axis]).map(move |i| (base, i)))
            .map(|(base, i)| base + i * strides[axis])
            .collect();
    }
    indices
}

fn permute<T: Copy>(values: &[T], shape: &[usize], perm: &[usize]) -> Vec<T> {
    let identity = perm.iter().enumerate().all(|(i, &p)| i == p);
    if identity {
        values.to_vec()
    } else {
        permuted_indices(shape, perm).into_iter().map(|i| values[i]).collect()
    }
}

/// The integer that stands for a real number, rounded half to even and saturated.
pub fn quantise(real: f64, q: &Quantisation, least: i64, most: i64) -> i64 {
    let scaled = (real / q.scale).round_ties_even() + f64::from(q.zero_point);
    scaled.clamp(least as f64, most as f64) as i64
}

fn elem_of(name: &str) -> Result<ElemType, RunError> {
    ElemType::from_keyword(name).ok_or_else(|| RunError::Bundle(format!("unknown element type `{name}`")))
}

fn dtype_of(name: &str) -> Result<DType, RunError> {
    name.parse().map_err(|_| RunError::Bundle(format!("unknown element type `{name}`")))
}

/// A compiled network that is ready to run.
#[derive(Clone, Debug)]
pub struct Session {
    bundle: Bundle,
    host: Option<Module>,
}

impl Session {
    /// Prepares a bundle: reads its host tail, if it has one.
    ///
    /// # Errors
    /// If the host tail is not valid IR, or the ports do not fit the program.
    pub fn new(bundle: Bundle) -> Result<Self, RunError> {
        let host = bundle.host.as_deref().map(parse_host).transpose()?;
        check_ports(&bundle)?;
        Ok(Self { bundle, host })
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The inputs that [`run`](Self::run) takes.
    pub fn inputs(&self) -> &[Port] {
        &self.bundle.manifest.inputs
    }

    /// The outputs that [`run`](Self::run) gives.
    pub fn outputs(&self) -> &[Port] {
        let manifest = &self.bundle.manifest;
        manifest.host_outputs.as_deref().unwrap_or(&manifest.outputs)
    }

    /// Runs the network. Inputs go by name or by position; outputs come in the model's order, dequantised.
    ///
    /// # Errors
    /// If the inputs do not fit, or the machine refuses the program.
    pub fn run(
        &self,
        inputs: &[(String, Array)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<(String, Array)>, RunError> {
        let machine = self.run_machine(inputs, progress)?;
        let ports = &self.bundle.manifest.outputs;
        let Some(host) = &self.host else {
            return ports
                .iter()
                .zip(machine)
                .map(|(port, values)| Ok((port.name.clone(), to_user(port, &values, true)?)))
                .collect();
        };
        let tensors = ports
            .iter()
            .zip(machine)
            .map(|(port, values)| {
                let q = port.quantisation.unwrap_or(Quantisation { scale: 1.0, zero_point: 0 });
                let real = |v: &i64| (q.scale * (*v as f64 - f64::from(q.zero_point))) as f32;
                Tensor::f32(port.machine_shape.clone(), values.iter().map(real).collect())
            })
            .collect();
        let func = host.function("host").ok_or_else(|| RunError::Bundle("no function `host`".to_owned()))?;
        let results = eval::eval_function(host, func, tensors)?;
        self.outputs()
            .iter()
            .zip(results)
            .map(|(port, t)| Ok((port.name.clone(), from_tensor(port, &t)?)))
            .collect()
    }

    /// Runs the machine's part alone and gives its integers, in the machine's order of outputs and the user's axes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_raw(
        &self,
        inputs: &[(String, Array)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<(String, Array)>, RunError> {
        let machine = self.run_machine(inputs, progress)?;
        self.bundle
            .manifest
            .outputs
            .iter()
            .zip(machine)
            .map(|(port, values)| Ok((port.name.clone(), to_user(port, &values, false)?)))
            .collect()
    }

    fn run_machine(
        &self,
        inputs: &[(String, Array)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<i64>>, RunError> {
        let manifest = &self.bundle.manifest;
        let arrays = match_inputs(&manifest.inputs, inputs)?;
        let mut bytes = Vec::with_capacity(arrays.len());
        for (port, array) in manifest.inputs.iter().zip(&arrays) {
            let elem = elem_of(&port.machine_dtype)?;
            let (least, most) = elem
                .int_range()
                .ok_or_else(|| RunError::Bundle(format!("input `{}` is not of integers", port.name)))?;
            let values = permute(&array.values, &port.shape, &port.perm);
            let integers = values.into_iter().map(|v| match &port.quantisation {
                Some(q) => quantise(v, q, least, most),
                None => (v as i64).clamp(least, most),
            });
            let data = TensorData::from_ints(elem, integers)
                .ok_or_else(|| RunError::Bundle(format!("input `{}` is not of integers", port.name)))?;
            bytes.push(data.to_bytes());
        }
        let Bundle { program, weights, .. } = &self.bundle;
        let outputs = interp::run_with(program, &manifest.target, weights, &bytes, progress)?;
        let outputs = manifest.outputs.iter().zip(outputs).map(|(port, bytes)| {
            TensorData::from_bytes(elem_of(&port.machine_dtype)?, &bytes)
                .and_then(|data| data.to_ints())
                .ok_or_else(|| RunError::Bundle(format!("output `{}` is not of integers", port.name)))
        });
        outputs.collect()
    }
}

fn parse_host(text: &str) -> Result<Module, RunError> {
    strata_ir::text::parse(text, None).map_err(|errors| RunError::Bundle(format!("host tail: {errors}")))
}

/// Shapes, permutations and element types of all ports against the segments of the program.
fn check_ports(bundle: &Bundle) -> Result<(), RunError> {
    use strata_isa_spec::SegmentKind;
    let Program { segments, .. } = &bundle.program;
    for (kind, ports) in
        [(SegmentKind::Input, &bundle.manifest.inputs), (SegmentKind::Output, &bundle.manifest.outputs)]
    {
        let sizes: Vec<u64> = segments.iter().filter(|s| s.kind == kind).map(|s| s.bytes).collect();
        if sizes.len() != ports.len() {
            let (n, have) = (sizes.len(), ports.len());
            return Err(RunError::Bundle(format!(
                "the program has {n} {kind:?} segments, the manifest {have}"
            )));
        }
        for (port, bytes) in ports.iter().zip(sizes) {
            let (from, to) = match kind {
                SegmentKind::Input => (&port.shape, &port.machine_shape),
                _ => (&port.machine_shape, &port.shape),
            };
            let mut axes = port.perm.clone();
            axes.sort_unstable();
            let permutes = axes.iter().copied().eq(0..from.len())
                && port.perm.iter().map(|&p| from[p]).eq(to.iter().copied());
            let want = elem_of(&port.machine_dtype)?.size_bytes() as u128
                * port.machine_shape.iter().map(|&e| e as u128).product::<u128>();
            if !permutes || want != u128::from(bytes) {
                return Err(RunError::Bundle(format!(
                    "`{}` does not fit its segment of {bytes} bytes",
                    port.name
                )));
            }
        }
    }
    Ok(())
}

fn to_user(port: &Port, values: &[i64], dequantise: bool) -> Result<Array, RunError> {
    let values = permute(values, &port.machine_shape, &port.perm);
    let (dtype, values) = match &port.quantisation {
        Some(q) if dequantise => {
            let real = |v: i64| f64::from((q.scale * (v as f64 - f64::from(q.zero_point))) as f32);
            (DType::F32, values.into_iter().map(real).collect())
        }
        _ => {
            let name = if dequantise { &port.dtype } else { &port.machine_dtype };
            let dtype = dtype_of(name)?;
            (dtype, values.into_iter().map(|v| v as f64).collect())
        }
    };
    Ok(Array { shape: port.shape.clone(), dtype, values })
}

/// A result of a function as its user sees it.
///
/// # Errors
/// If the port's element type is unknown.
pub fn from_tensor(port: &Port, tensor: &Tensor) -> Result<Array, RunError> {
    let dtype = dtype_of(&port.dtype)?;
    let values: Vec<f64> = match tensor.data() {
        TensorData::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        data => data.to_ints().unwrap_or_default().into_iter().map(|v| v as f64).collect(),
    };
    let values = permute(&values, tensor.shape(), &port.perm);
    Ok(Array { shape: port.shape.clone(), dtype, values })
}

/// The inputs or outputs of a function, from its argument or result attributes.
///
/// # Errors
/// If the function has no tensor types or its attributes are not those that the importer and the quantiser write.
pub fn ports(module: &Module, func: OpId, outputs: bool) -> Result<Vec<Port>, RunError> {
    let Op::Func(function) = &module.op(func).op else {
        return Err(RunError::Bundle("not a function".to_owned()));
    };
    let (types, attrs) = if outputs {
        (&function.function_type.results, &function.res_attrs)
    } else {
        (&function.function_type.inputs, &function.arg_attrs)
    };
    let empty = Attribute::Unit;
    let ports = types.iter().enumerate().map(|(index, ty)| {
        let tensor =
            ty.as_tensor().ok_or_else(|| RunError::Bundle(format!("port {index} is not a tensor")))?;
        let dict = match attrs {
            Some(Attribute::Array(dicts)) => dicts.get(index).unwrap_or(&empty),
            _ => &empty,
        };
        let get = |key: &str| if let Attribute::Dict(d) = dict { d.get(key) } else { None };
        let text = |key: &str| if let Some(Attribute::Str(s)) = get(key) { Some(s.clone()) } else { None };
        let rank = tensor.rank();
        let perm: Vec<usize> = match get("strata.perm") {
            Some(Attribute::I64Array(p)) => p.iter().map(|&a| a as usize).collect(),
            _ => (0..rank).collect(),
        };
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank) {
            return Err(RunError::Bundle(format!("port {index}: {perm:?} is no permutation of {rank} axes")));
        }
        // For arguments axis i of the tensor is axis perm[i] of the user's; for results the user's axis i is perm[i].
        let mut shape = vec![0; rank];
        for (i, &axis) in perm.iter().enumerate() {
            if outputs {
                shape[i] = tensor.shape[axis];
            } else {
                shape[axis] = tensor.shape[i];
            }
        }
        let quantisation = match get("strata.quant") {
            Some(Attribute::Dict(q)) => match (q.get("scale"), q.get("zero_point")) {
                (Some(Attribute::Float(scale, _)), Some(Attribute::Int(zp, _))) => {
                    Some(Quantisation { scale: *scale, zero_point: *zp as i32 })
                }
                _ => return Err(RunError::Bundle(format!("port {index}: malformed `strata.quant`"))),
            },
            _ => None,
        };
        let machine_dtype = tensor.elem.keyword().to_owned();
        let meant = if quantisation.is_some() { "f32".to_owned() } else { machine_dtype.clone() };
        Ok(Port {
            name: text("strata.name").unwrap_or_else(|| index.to_string()),
            shape,
            dtype: text("strata.dtype").unwrap_or(meant),
            machine_shape: tensor.shape.clone(),
            machine_dtype,
            perm,
            quantisation,
        })
    });
    ports.collect()
}

/// Arrays in the order and layout of `@main`'s inputs as its arguments.
///
/// # Errors
/// If there are not as many as arguments, or one is of another shape.
pub fn to_arguments(module: &Module, arrays: &[Array]) -> Result<Vec<Tensor>, RunError> {
    let func = module.function("main").ok_or_else(|| RunError::Bundle("no function `main`".to_owned()))?;
    let takes = ports(module, func, false)?;
    let given: Vec<_> = arrays.iter().enumerate().map(|(at, a)| (at.to_string(), a.clone())).collect();
    // Positions are names that no input has taken, unless a model names its inputs by other numbers.
    let by_position =
        |(at, a): (usize, (String, Array))| (takes.get(at).map_or(a.0, |p| p.name.clone()), a.1);
    let arrays = match_inputs(&takes, &given.into_iter().enumerate().map(by_position).collect::<Vec<_>>())?;
    let tensors = takes.iter().zip(&arrays).map(|(port, array)| {
        let values = permute(&array.values, &port.shape, &port.perm);
        let elem = elem_of(&port.machine_dtype)?;
        if let Some((least, greatest)) = elem.int_range()
            && let Some(v) = values.iter().find(|&&v| v < least as f64 || v > greatest as f64)
        {
            let problem = format!("input `{}` holds {v}, which does not fit in {elem}", port.name);
            return Err(RunError::Inputs { problems: vec![problem] });
        }
        let data = match TensorData::from_ints(elem, values.iter().map(|&v| v as i64)) {
            Some(data) => data,
            None => TensorData::F32(values.iter().map(|&v| v as f32).collect()),
        };
        Ok(Tensor::new(port.machine_shape.clone(), data))
    });
    tensors.collect()
}

/// Evaluates the f32 import of a model on the reference evaluator.
///
/// # Errors
/// If the inputs do not fit, or an op cannot be evaluated.
pub fn evaluate(module: &Module, inputs: &[(String, Array)]) -> Result<Vec<(String, Array)>, RunError> {
    let func = module.function("main").ok_or_else(|| RunError::Bundle("no function `main`".to_owned()))?;
    let (takes, gives) = (ports(module, func, false)?, ports(module, func, true)?);
    let tensors = to_arguments(module, &match_inputs(&takes, inputs)?)?;
    let results = eval::eval_function(module, func, tensors)?;
    gives.iter().zip(results).map(|(port, t)| Ok((port.name.clone(), from_tensor(port, &t)?))).collect()
}
