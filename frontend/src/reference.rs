//! The model as tract runs it in f32: an outside judge of the importer, and nothing that results depend on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use strata_ir::{Tensor, TensorData};
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable};
use tract_onnx::tract_hir::internal::{
    DatumType, InferenceFact, IntoTValue, TVec, Tensor as TractTensor, TractResult, anyhow,
};

use crate::import::{ImportError, decode};

/// Why tract could not run a model.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The file cannot be decoded.
    #[error(transparent)]
    Decode(#[from] ImportError),
    /// tract rejects the model or an input, or fails.
    #[error("tract: {0}")]
    Tract(String),
}

/// Runs a model on `inputs`, which stand in the order of the graph's inputs, in ONNX's layout;
/// their shapes override what the file declares.
///
/// Inputs may be `f32`, `i32`, `i64` or `i1`; outputs of other types than these and `i8` are an error.
///
/// # Errors
/// If the file does not decode, or tract cannot load or run it.
pub fn run_with_tract(bytes: &[u8], inputs: &[Tensor]) -> Result<Vec<Tensor>, ReferenceError> {
    let model = decode(bytes)?;
    let run = || -> TractResult<Vec<Tensor>> {
        let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&model, None)?;
        let mut graph = parsed.model;
        let outlets = graph.input_outlets()?.to_vec();
        let mut values: TVec<_> = TVec::new();
        for (outlet, input) in outlets.into_iter().zip(inputs) {
            let tensor = to_tract(input)?;
            graph.set_outlet_fact(outlet, InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))?;
            values.push(tensor.into_tvalue());
        }
        let runnable = graph.into_typed()?.into_runnable()?;
        runnable.run(values)?.iter().map(|value| from_tract(value)).collect()
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(error)) => Err(ReferenceError::Tract(format!("{error:#}"))),
        Err(_) => Err(ReferenceError::Tract("it panicked".to_owned())),
    }
}

fn to_tract(tensor: &Tensor) -> TractResult<TractTensor> {
    match tensor.data() {
        TensorData::F32(v) => TractTensor::from_shape(tensor.shape(), v),
        TensorData::I32(v) => TractTensor::from_shape(tensor.shape(), v),
        TensorData::I64(v) => TractTensor::from_shape(tensor.shape(), v),
        TensorData::I1(v) => TractTensor::from_shape(tensor.shape(), v),
        other => Err(anyhow!("inputs of type {}", other.elem())),
    }
}

fn from_tract(tensor: &TractTensor) -> TractResult<Tensor> {
    let plain = tensor.try_as_plain_ram()?;
    let data = match tensor.datum_type() {
        DatumType::F32 => TensorData::F32(plain.as_slice::<f32>()?.to_vec()),
        DatumType::I32 => TensorData::I32(plain.as_slice::<i32>()?.to_vec()),
        DatumType::I64 => TensorData::I64(plain.as_slice::<i64>()?.to_vec()),
        DatumType::Bool => TensorData::I1(plain.as_slice::<bool>()?.to_vec()),
        DatumType::I8 => TensorData::I8(plain.as_slice::<i8>()?.to_vec()),
        other => return Err(anyhow!("outputs of type {other:?}")),
    };
    Ok(Tensor::new(tensor.shape().to_vec(), data))
}
