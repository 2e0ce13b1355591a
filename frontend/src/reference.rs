//! A whole model as tract runs it in f32: an outside judge of the importer, and nothing that results depend
//! on.

use strata_ir::{Tensor, TensorData};

use crate::host::{HostError, HostModel, HostTensor};

/// Runs a model on `inputs`, which stand in the order of the graph's inputs, in ONNX's layout.
///
/// Outputs of types that the IR lacks come as `i64`.
///
/// # Errors
/// If the file does not decode, or tract cannot load or run it.
pub fn run_with_tract(bytes: &[u8], inputs: &[Tensor]) -> Result<Vec<Tensor>, HostError> {
    let inputs: Vec<HostTensor> = inputs.iter().map(to_host).collect();
    let outputs = HostModel::load(bytes)?.run(&inputs)?;
    Ok(outputs.iter().map(from_host).collect())
}

fn to_host(tensor: &Tensor) -> HostTensor {
    let (dtype, values) = match tensor.data() {
        TensorData::F32(v) => ("f32", v.iter().map(|&x| f64::from(x)).collect()),
        TensorData::I1(v) => ("bool", v.iter().map(|&x| f64::from(u8::from(x))).collect()),
        data => {
            let ints = data.to_ints().unwrap_or_default();
            (data.elem().keyword(), ints.into_iter().map(|x| x as f64).collect())
        }
    };
    HostTensor { shape: tensor.shape().to_vec(), dtype: dtype.to_owned(), values }
}

fn from_host(tensor: &HostTensor) -> Tensor {
    let values = &tensor.values;
    let data = match tensor.dtype.as_str() {
        "f32" | "f64" => TensorData::F32(values.iter().map(|&x| x as f32).collect()),
        "bool" => TensorData::I1(values.iter().map(|&x| x != 0.0).collect()),
        "i8" => TensorData::I8(values.iter().map(|&x| x as i8).collect()),
        "i32" => TensorData::I32(values.iter().map(|&x| x as i32).collect()),
        _ => TensorData::I64(values.iter().map(|&x| x as i64).collect()),
    };
    Tensor::new(tensor.shape.clone(), data)
}
