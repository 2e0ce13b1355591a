//! Tensors whose data stand in files beside the model's, which exporters write for large models.
//!
//! What a tensor says of its place is checked here; the files are read by whoever has them, through
//! [`SideFiles`].

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{ModelProto, TensorProto};

use super::visit::each_tensor_mut;
use crate::import::error::Problems;

/// Files that stand beside a model's. The import does no IO of its own: this is how it asks for data.
pub trait SideFiles {
    /// The bytes of a file. `name` is relative to the model's folder and has no `..` in it.
    ///
    /// # Errors
    /// If there is no such file, or it leads out of the model's folder.
    fn size_bytes(&self, name: &str) -> Result<u64, String>;

    /// `length` bytes of a file from `offset` on, which it has.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, String>;
}

/// No files at all, for a model that is only bytes.
#[derive(Clone, Copy, Debug)]
pub struct NoSideFiles;

impl SideFiles for NoSideFiles {
    fn size_bytes(&self, _: &str) -> Result<u64, String> {
        Err("the model is given without its folder".to_owned())
    }

    fn read(&self, name: &str, _: u64, _: u64) -> Result<Vec<u8>, String> {
        self.size_bytes(name).map(|_| Vec::new())
    }
}

/// Brings all data that stand in other files into the model.
pub(super) fn load(model: &mut ModelProto, files: &dyn SideFiles, problems: &mut Problems) {
    each_tensor_mut(model, &mut |tensor, place| {
        if tensor.data_location != Some(DataLocation::External as i32) {
            return;
        }
        match bytes(tensor, files) {
            Ok(Some(bytes)) => {
                tensor.raw_data = bytes;
                tensor.data_location = None;
                tensor.external_data.clear();
            }
            Ok(None) => {}
            Err(what) => problems.side_file(place, what),
        }
    });
}

/// The data of a tensor; `None` if its element type is not known, of which decoding it complains.
fn bytes(tensor: &TensorProto, files: &dyn SideFiles) -> Result<Option<Vec<u8>>, String> {
    let entry = |key: &str| {
        let mut entries = tensor.external_data.iter();
        entries.find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    };
    let number = |key: &str| match entry(key).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("its {key} is `{text}`, no number")),
    };
    let location = entry("location").unwrap_or_default();
    check_location(location)?;
    let offset = number("offset")?.unwrap_or(0);
    let Some(length) = length(tensor)? else { return Ok(None) };
    if let Some(stated) = number("length")?.filter(|&stated| stated != length) {
        return Err(format!("{stated} bytes of `{location}`, where its type and extents ask for {length}"));
    }
    let about = |what: String| format!("its data in `{location}`: {what}");
    let size = files.size_bytes(location).map_err(about)?;
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(about(format!("{length} bytes from byte {offset} on, but the file has {size}")));
    }
    files.read(location, offset, length).map(Some).map_err(about)
}

/// Bytes that a tensor's elements take, if its element type is known.
fn length(tensor: &TensorProto) -> Result<Option<u64>, String> {
    let bits = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64) => 64,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 32,
        Ok(DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16) => 16,
        Ok(DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1) => 4,
        Ok(DataType::Complex128) => 128,
        Ok(DataType::Undefined | DataType::String) | Err(_) => return Ok(None),
        Ok(_) => 8,
    };
    let n = tensor.dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(u64::try_from(dim).ok()?));
    match n.and_then(|n| n.checked_mul(bits)) {
        Some(n_bits) => Ok(Some(n_bits.div_ceil(8))),
        None => Err(format!("extents {:?}", tensor.dims)),
    }
}

/// That a location names a file below the model's folder.
fn check_location(location: &str) -> Result<(), String> {
    if location.is_empty() {
        return Err("its data stand in another file, which it does not name".to_owned());
    }
    let is_absolute = location.starts_with(['/', '\\']) || location.as_bytes().get(1) == Some(&b':');
    if is_absolute || location.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("its data stand in `{location}`, which leads out of the model's folder"));
    }
    Ok(())
}
