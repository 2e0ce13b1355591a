//! ONNX models that the host runs, with tract: the parts of a network that the machine has no form of.
//!
//! A model is prepared once if its inputs declare all their extents, else anew for every run, with the shapes that it
//! is given. It stays what it is in the file: nothing here interprets a node. tract looks operators up without their
//! domain and accepts some that it cannot run, so [`operators`] says beforehand which it has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb::{ModelProto, NodeProto};
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable};
use tract_onnx::tract_hir::internal::{
    DatumType, Factoid, InferenceFact, InferenceModel, IntoTValue, TVec, Tensor as TractTensor, TractResult,
    anyhow,
};
use tract_onnx::tract_hir::tract_core::model::TypedRunnableModel;

use crate::import::ImportError;
use crate::proto::decode;

/// Domains whose operators tract's table holds: ONNX's own, and what onnxruntime's exporters add.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

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
    /// tract rejects the model or an input, or fails.
    #[error("tract: {0}")]
    Tract(String),
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

/// A test of whether tract has an operator of a node's name and domain.
pub fn operators() -> impl Fn(&NodeProto) -> bool {
    let register = tract_onnx::onnx().op_register;
    move |node| DOMAINS.contains(&node.domain.as_str()) && register.0.contains_key(&node.op_type)
}

/// A model that is ready to run.
#[derive(Clone, Debug)]
pub struct HostModel {
    proto: ModelProto,
    /// The prepared model, if its shapes are known beforehand.
    prepared: Option<Arc<TypedRunnableModel>>,
    n_inputs: usize,
}

impl HostModel {
    /// Prepares the bytes of an ONNX file.
    ///
    /// # Errors
    /// If they are none, or tract cannot run the model.
    pub fn load(bytes: &[u8]) -> Result<Self, HostError> {
        let proto = decode(bytes)?;
        let (n_inputs, prepared) = guarded(|| {
            let graph = parse(&proto)?;
            let outlets = graph.input_outlets()?.to_vec();
            let mut is_static = true;
            for outlet in &outlets {
                let shape = graph.outlet_fact(*outlet)?.shape.concretize();
                is_static &= shape.is_some_and(|shape| shape.iter().all(|dim| dim.to_i64().is_ok()));
            }
            let prepared = if is_static { Some(graph.into_typed()?.into_runnable()?) } else { None };
            Ok((outlets.len(), prepared))
        })?;
        Ok(Self { proto, prepared, n_inputs })
    }

    /// Runs the model on `inputs`, in the order of the graph's inputs; gives its outputs in theirs.
    ///
    /// # Errors
    /// If the inputs do not fit, or tract fails.
    pub fn run(&self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, HostError> {
        if inputs.len() != self.n_inputs {
            return Err(HostError::Inputs { expected: self.n_inputs, found: inputs.len() });
        }
        guarded(|| {
            let tensors = inputs.iter().map(to_tract).collect::<TractResult<Vec<_>>>()?;
            let model = match &self.prepared {
                Some(model) => Arc::clone(model),
                None => {
                    let mut graph = parse(&self.proto)?;
                    for (outlet, tensor) in graph.input_outlets()?.to_vec().into_iter().zip(&tensors) {
                        let fact = InferenceFact::dt_shape(tensor.datum_type(), tensor.shape());
                        graph.set_outlet_fact(outlet, fact)?;
                    }
                    graph.into_typed()?.into_runnable()?
                }
            };
            let values: TVec<_> = tensors.into_iter().map(IntoTValue::into_tvalue).collect();
            model.run(values)?.iter().map(|value| from_tract(value)).collect()
        })
    }
}

fn parse(proto: &ModelProto) -> TractResult<InferenceModel> {
    Ok(tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_types(true)
        .parse(proto, None)?
        .model)
}

/// What tract gives; a panic of its is an error too, since a few of its paths panic on odd graphs.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, HostError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(HostError::Tract(format!("{error:#}"))),
        Err(_) => Err(HostError::Tract("it panicked".to_owned())),
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
