//! ONNX models that the host runs, with tract: what of a network neither the machine nor our own evaluator
//! takes.
//!
//! tract looks operators up without their domain, accepts some that it cannot run, and runs some wrongly.
//! [`verified`] therefore says, operator by operator, which nodes it was seen to run right; no other is
//! handed to it.
//!
//! A model is prepared once if its inputs declare all their extents, else anew for every run, with the shapes
//! that it is given. Where tract does not prepare or run it as a whole, its nodes are run one by one.

mod stepwise;
pub mod verified;

use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable};
use tract_onnx::tract_hir::internal::{
    DatumType, Factoid, InferenceFact, InferenceModel, IntoTValue, TVec, Tensor as TractTensor, TractResult,
    anyhow,
};
use tract_onnx::tract_hir::tract_core::model::TypedRunnableModel;

use crate::import::ImportError;
use crate::proto::decode;
use crate::quiet::{Panicked, guarded};

/// The greatest integer up to which `f64` holds every integer: 2^53.
const EXACT: i64 = 1 << 53;

/// Why the host could not run a model.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The bytes are no ONNX file.
    #[error(transparent)]
    Decode(#[from] ImportError),
    /// The inputs are not as many as the model has.
    #[error("the model takes {expected} inputs, {found} were given")]
    Inputs {
        /// How many it takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A node that the host cannot run.
    #[error("{op} `{name}`: the host cannot run it{on}")]
    Node {
        /// The node's name.
        name: String,
        /// Its operator.
        op: String,
        /// On what, if it has operands.
        on: String,
        /// What the host's library said.
        detail: String,
    },
}

/// A tensor that goes into a host model or comes out of it, in ONNX's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its element type: `f32`, `f64`, `bool`, or an integer such as `u8` and `i64`.
    pub dtype: String,
    /// Its elements, row-major; those of 64-bit integers up to 2^53.
    pub values: Vec<f64>,
}

/// A model that is ready to run.
#[derive(Clone, Debug)]
pub struct HostModel {
    proto: ModelProto,
    /// The prepared model, if its shapes are known beforehand.
    prepared: Option<Arc<TypedRunnableModel>>,
}

impl HostModel {
    /// Prepares the bytes of an ONNX file.
    ///
    /// # Errors
    /// If they are none. What tract cannot run is told by [`run`](Self::run), which can name the node.
    pub fn load(bytes: &[u8]) -> Result<Self, HostError> {
        let proto = decode(bytes)?;
        // What cannot be prepared is run node by node.
        let prepared = quietly(|| prepare(&proto)).unwrap_or_default();
        Ok(Self { proto, prepared })
    }

    /// Runs the model on `inputs`, in the order of the graph's inputs; gives its outputs in theirs.
    ///
    /// # Errors
    /// If the inputs do not fit, or tract fails.
    pub fn run(&self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, HostError> {
        let expected = stepwise::free_inputs(&self.proto).count();
        if inputs.len() != expected {
            return Err(HostError::Inputs { expected, found: inputs.len() });
        }
        let ran = quietly(|| match &self.prepared {
            Some(model) => run_prepared(model, inputs),
            None => run_on_shapes(&self.proto, inputs),
        });
        match ran {
            Ok(outputs) => Ok(outputs),
            Err(_) => stepwise::run(&self.proto, inputs),
        }
    }
}

/// A model whose inputs all declare their extents, ready to run.
fn prepare(proto: &ModelProto) -> TractResult<Option<Arc<TypedRunnableModel>>> {
    let graph = parse(proto)?;
    for outlet in graph.input_outlets()? {
        let shape = graph.outlet_fact(*outlet)?.shape.concretize();
        if !shape.is_some_and(|shape| shape.iter().all(|dim| dim.to_i64().is_ok())) {
            return Ok(None);
        }
    }
    Ok(Some(graph.into_typed()?.into_runnable()?))
}

/// Prepares a model for the shapes of `inputs` and runs it.
fn run_on_shapes(proto: &ModelProto, inputs: &[HostTensor]) -> TractResult<Vec<HostTensor>> {
    let mut graph = parse(proto)?;
    for (outlet, tensor) in graph.input_outlets()?.to_vec().into_iter().zip(inputs) {
        let tensor = to_tract(tensor)?;
        graph.set_outlet_fact(outlet, InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))?;
    }
    run_prepared(&graph.into_typed()?.into_runnable()?, inputs)
}

fn run_prepared(model: &Arc<TypedRunnableModel>, inputs: &[HostTensor]) -> TractResult<Vec<HostTensor>> {
    let tensors = inputs.iter().map(to_tract).collect::<TractResult<Vec<_>>>()?;
    let values: TVec<_> = tensors.into_iter().map(IntoTValue::into_tvalue).collect();
    model.run(values)?.iter().map(|value| from_tract(value)).collect()
}

fn parse(proto: &ModelProto) -> TractResult<InferenceModel> {
    Ok(tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_types(true)
        .parse(proto, None)?
        .model)
}

/// What tract gives, or what it says.
fn quietly<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match guarded(run) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(Panicked) => Err("it panicked".to_owned()),
    }
}

fn to_tract(tensor: &HostTensor) -> TractResult<TractTensor> {
    let dtype = datum_type(&tensor.dtype).ok_or_else(|| anyhow!("inputs of type {}", tensor.dtype))?;
    let wide = TractTensor::from_shape(&tensor.shape, &tensor.values)?;
    if dtype == DatumType::Bool {
        let bools: Vec<bool> = tensor.values.iter().map(|&v| v != 0.0).collect();
        return TractTensor::from_shape(&tensor.shape, &bools);
    }
    Ok(wide.cast_to_dt(dtype)?.into_owned())
}

fn from_tract(tensor: &TractTensor) -> TractResult<HostTensor> {
    let dtype = match tensor.datum_type() {
        // tract computes shapes in symbolic extents, which stand for ONNX's `i64`.
        DatumType::TDim => "i64",
        dtype => DTYPES
            .iter()
            .find(|(_, known)| *known == dtype)
            .map(|(name, _)| *name)
            .ok_or_else(|| anyhow!("outputs of type {dtype:?}"))?,
    };
    if matches!(dtype, "i64" | "u64") {
        let integers = tensor.cast_to::<i64>()?;
        let integers = integers.try_as_plain_ram()?;
        if integers.as_slice::<i64>()?.iter().any(|v| v.unsigned_abs() > EXACT.unsigned_abs()) {
            return Err(anyhow!("an integer beyond 2^53"));
        }
    }
    let wide = tensor.cast_to::<f64>()?;
    let values = wide.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
    Ok(HostTensor { shape: tensor.shape().to_vec(), dtype: dtype.to_owned(), values })
}

const DTYPES: [(&str, DatumType); 11] = [
    ("bool", DatumType::Bool),
    ("u8", DatumType::U8),
    ("u16", DatumType::U16),
    ("u32", DatumType::U32),
    ("u64", DatumType::U64),
    ("i8", DatumType::I8),
    ("i16", DatumType::I16),
    ("i32", DatumType::I32),
    ("i64", DatumType::I64),
    ("f32", DatumType::F32),
    ("f64", DatumType::F64),
];

fn datum_type(name: &str) -> Option<DatumType> {
    DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}
