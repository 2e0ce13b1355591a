//! Ports: tensors as a user has them and as functions and programs hold them, and why a network could not be
//! run.

use strata_frontend::host::HostError;
use strata_ir::attr::Attribute;
use strata_ir::dialect::Op;
use strata_ir::{Module, OpId, Tensor, TensorData, eval};
use strata_isa_spec::bundle::{Port, Quantisation};
use strata_isa_spec::interp;

use crate::io::array::{Array, DType};

/// Why a network could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The inputs given are not those that the network has; all problems.
    #[error(
        "the inputs do not fit the network:{}",
        problems.iter().map(|p| format!("\n  {p}")).collect::<String>()
    )]
    Inputs {
        /// What is wrong with each.
        problems: Vec<String>,
    },
    /// The machine refuses the program or its data.
    #[error(transparent)]
    Exec(#[from] interp::ExecError),
    /// The vector instructions asked for cannot be had.
    #[error("`STRATA_SIMD`: {0}")]
    Simd(#[from] interp::SimdError),
    /// A host part of the compiler's IR, or an f32 model, could not be evaluated.
    #[error("evaluation: {0}")]
    Eval(#[from] eval::EvalError),
    /// A host part of ONNX could not be run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The bundle contradicts itself.
    #[error("the bundle is inconsistent: {0}")]
    Bundle(String),
}

/// Elements that a tensor of a port has at most, as in the IR.
const MAX_ELEMENTS: usize = 1 << 40;

/// Why a port that comes from a file, and may have been edited, describes no tensor.
///
/// `outputs` says which way its permutation goes: see [`Port::perm`].
///
/// # Errors
/// The first contradiction, with the port's name, what was found and what is expected.
pub(crate) fn demand_sound(port: &Port, outputs: bool) -> Result<(), String> {
    let Port { name, shape, machine_shape, perm, dtype, machine_dtype, .. } = port;
    for (what, shape) in [("shape", shape), ("machine_shape", machine_shape)] {
        let n = shape.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent.max(1)));
        if n.is_none_or(|n| n > MAX_ELEMENTS) {
            return Err(format!("`{name}`: `{what}` is {shape:?}, more than {MAX_ELEMENTS} elements"));
        }
    }
    let rank = shape.len();
    let mut axes = perm.clone();
    axes.sort_unstable();
    if !axes.iter().copied().eq(0..rank) {
        return Err(format!("`{name}`: `perm` is {perm:?}, expected a permutation of {rank} axes"));
    }
    let (from, to) = if outputs { (machine_shape, shape) } else { (shape, machine_shape) };
    let permuted: Vec<Option<usize>> = perm.iter().map(|&axis| from.get(axis).copied()).collect();
    if !permuted.iter().copied().eq(to.iter().copied().map(Some)) {
        return Err(format!(
            "`{name}`: `perm` {perm:?} does not make `shape` {shape:?} and `machine_shape` {machine_shape:?} \
             of one another"
        ));
    }
    for (what, name_of_type) in [("dtype", dtype), ("machine_dtype", machine_dtype)] {
        if dtype_of(name_of_type).is_err() {
            return Err(format!("`{name}`: `{what}` is `{name_of_type}`, which is no element type"));
        }
    }
    match port.quantisation {
        Some(Quantisation { scale, .. }) if !(scale.is_finite() && scale > 0.0) => {
            Err(format!("`{name}`: its scale is {scale}, expected a positive number"))
        }
        _ => Ok(()),
    }
}

/// A tensor that a part gives as the part after it takes it: its permutation leads the other way, see
/// [`Port::perm`].
pub(crate) fn as_taken(given: &Port) -> Port {
    let mut perm = vec![0; given.perm.len()];
    for (axis, &from) in given.perm.iter().enumerate() {
        perm[from] = axis;
    }
    Port { perm, ..given.clone() }
}

/// An axis of a tensor whose axes are put in another order.
#[derive(Clone, Copy, Debug)]
struct Moved {
    extent: usize,
    /// Distance of neighbours before.
    from: usize,
    /// Distance of neighbours after.
    to: usize,
}

/// The elements of a tensor in another order of its axes: axis `i` of the result is axis `perm[i]` of
/// `shape`.
pub(crate) fn permute<T: Copy + Default>(values: &[T], shape: &[usize], perm: &[usize]) -> Vec<T> {
    /// Elements of a run along the axis that was the last: they stay in the nearest cache.
    const RUN: usize = 64;
    let mut axes = moved_axes(shape, perm);
    let last = axes.iter().position(|axis| axis.from == 1);
    let (Some(last), false) = (last.filter(|_| axes.len() > 1), values.is_empty()) else {
        return values.to_vec();
    };
    // Along the axis that was the last elements are read side by side, along that which is the last written.
    let read = axes.remove(last);
    let written = if read.to == 1 { None } else { axes.pop() };
    let written = written.unwrap_or(Moved { extent: 1, from: 0, to: 0 });
    let mut permuted = vec![T::default(); values.len()];
    for_each_place(&axes, 0, 0, &mut |from, to| {
        if read.to == 1 {
            permuted[to..to + read.extent].copy_from_slice(&values[from..from + read.extent]);
            return;
        }
        for first in (0..read.extent).step_by(RUN) {
            let end = (first + RUN).min(read.extent);
            for index in 0..written.extent {
                let run = &values[from + index * written.from..][first..end];
                let places = permuted[to + index + first * read.to..].iter_mut().step_by(read.to);
                places.zip(run).for_each(|(place, &value)| *place = value);
            }
        }
    });
    permuted
}

/// The axes of a result, outermost first, where those that stay side by side are one.
fn moved_axes(shape: &[usize], perm: &[usize]) -> Vec<Moved> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let mut axes: Vec<Moved> = Vec::new();
    let mut to: usize = perm.iter().map(|&axis| shape[axis]).product();
    for &axis in perm.iter().filter(|&&axis| shape[axis] != 1) {
        to /= shape[axis].max(1);
        let moved = Moved { extent: shape[axis], from: stride(axis), to };
        match axes.last_mut() {
            Some(before) if before.from == moved.extent * moved.from => {
                *before = Moved { extent: before.extent * moved.extent, ..moved };
            }
            _ => axes.push(moved),
        }
    }
    axes
}

/// Tells every place of some axes, before and after.
fn for_each_place(axes: &[Moved], from: usize, to: usize, each: &mut impl FnMut(usize, usize)) {
    match axes.split_first() {
        None => each(from, to),
        Some((axis, inner)) => {
            for index in 0..axis.extent {
                for_each_place(inner, from + index * axis.from, to + index * axis.to, each);
            }
        }
    }
}

pub(crate) fn dtype_of(name: &str) -> Result<DType, RunError> {
    // Files have no arrays of the IR's two odd sizes.
    let name = match name {
        "i1" => "bool",
        "i48" => "i64",
        name => name,
    };
    name.parse().map_err(|_| RunError::Bundle(format!("unknown element type `{name}`")))
}

/// A result of a function as its user sees it.
///
/// # Errors
/// If the port's element type is unknown.
pub fn from_tensor(port: &Port, tensor: &Tensor) -> Result<Array, RunError> {
    let dtype = dtype_of(&port.dtype)?;
    let values: Vec<f64> = match tensor.data() {
        TensorData::F32(v) => v.iter().map(|&x| dtype.round(f64::from(x))).collect(),
        data => data.to_ints().unwrap_or_default().into_iter().map(|v| v as f64).collect(),
    };
    let values = permute(&values, tensor.shape(), &port.perm);
    Ok(Array { shape: port.shape.clone(), dtype, values })
}

/// A tensor that no program holds, as a port.
pub fn plain_port(name: &str, shape: &[usize], dtype: &str) -> Port {
    Port {
        name: name.to_owned(),
        shape: shape.to_vec(),
        dtype: dtype.to_owned(),
        machine_shape: shape.to_vec(),
        machine_dtype: dtype.to_owned(),
        perm: (0..shape.len()).collect(),
        quantisation: None,
        varies: false,
    }
}

/// The inputs or outputs of a function, from its argument or result attributes.
///
/// # Errors
/// If the function has no tensor types or its attributes are not those that the importer and the quantiser
/// write.
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
        // For arguments axis i of the tensor is axis perm[i] of the user's; for results the user's axis i is
        // perm[i].
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
            varies: false,
        })
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::permute;

    /// As it is defined, element by element.
    fn defined(values: &[u32], shape: &[usize], perm: &[usize]) -> Vec<u32> {
        let extents: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
        let element = |mut index: usize| {
            let mut at = vec![0; shape.len()];
            for (&axis, &extent) in perm.iter().zip(&extents).rev() {
                at[axis] = index % extent;
                index /= extent;
            }
            values[at.iter().zip(shape).fold(0, |place, (&at, &extent)| place * extent + at)]
        };
        (0..values.len()).map(element).collect()
    }

    #[test]
    fn axes_are_permuted_as_defined() {
        let shapes: [&[usize]; 10] = [
            &[],
            &[5],
            &[3, 4],
            &[1, 3, 70, 5],
            &[2, 1, 1, 130],
            &[2, 3, 4, 5],
            &[0, 3],
            &[65, 2, 3],
            &[1, 1],
            &[2, 2, 3, 2, 5],
        ];
        for shape in shapes {
            let values: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            for perm in orders(shape.len()) {
                assert_eq!(
                    permute(&values, shape, &perm),
                    defined(&values, shape, &perm),
                    "{shape:?} {perm:?}"
                );
            }
        }
    }

    /// All orders of so many axes.
    fn orders(n: usize) -> Vec<Vec<usize>> {
        let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
        let with = |order: Vec<usize>| {
            (0..n).map(move |at| {
                let mut order = order.clone();
                order.insert(at, last);
                order
            })
        };
        orders(last).into_iter().flat_map(with).collect()
    }
}
