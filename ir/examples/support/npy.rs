//! Tensors as NumPy files.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use npyz::{AutoSerialize, WriterBuilder};
use strata_ir::{Tensor, TensorData};

/// Writes a tensor; `i48` and `index` are stored as `i64`, as the TOSA reference model does.
pub(crate) fn write(path: &Path, tensor: &Tensor) -> Result<(), Box<dyn Error>> {
    fn write_as<T: AutoSerialize + Copy>(
        path: &Path,
        shape: &[usize],
        values: &[T],
    ) -> Result<(), Box<dyn Error>> {
        let shape: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
        let file = BufWriter::new(File::create(path)?);
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
        writer.extend(values.iter().copied())?;
        Ok(writer.finish()?)
    }
    let shape = tensor.shape();
    match tensor.data() {
        TensorData::I1(v) => write_as(path, shape, v),
        TensorData::I8(v) => write_as(path, shape, v),
        TensorData::I16(v) => write_as(path, shape, v),
        TensorData::I32(v) => write_as(path, shape, v),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => write_as(path, shape, v),
        TensorData::F32(v) => write_as(path, shape, v),
    }
}
