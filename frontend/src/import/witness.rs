//! A second opinion on shapes: tract's own analysis of the same graph, compared tensor by tensor.
//!
//! tract gives up on operators that it does not know; what it derived until then is still compared. It is called
//! behind `catch_unwind`, since a few of its paths panic on odd graphs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::pb::{ModelProto, tensor_proto::DataType};
use tract_onnx::prelude::InferenceModelExt;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DatumType, DimLike, InferenceFact, TractResult};

use super::CrossCheck;
use super::driver::Input;
use super::error::{ImportError, ShapeDisagreement};

/// Extents by tensor name.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Shapes that tract derived, by tensor name, and why it stopped early if it did.
fn analyse(model: &ModelProto, inputs: &[Input]) -> TractResult<(Shapes, Option<String>)> {
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_types(true);
    let mut parsed = onnx.parse(model, None)?;
    for input in inputs {
        let dtype = DataType::try_from(input.dtype as i32).ok().and_then(|d| DatumType::try_from(d).ok());
        if let (Some(dtype), Some(&outlet)) = (dtype, parsed.outlets_by_name.get(&input.name)) {
            parsed.model.set_outlet_fact(outlet, InferenceFact::dt_shape(dtype, &input.shape))?;
        }
    }
    let gave_up = parsed.model.analyse(false).err().map(|error| error.root_cause().to_string());
    let mut shapes = BTreeMap::new();
    let mut names: Vec<_> = parsed.outlets_by_name.iter().collect();
    names.sort();
    for (name, &outlet) in names {
        let Some(shape) = parsed.model.outlet_fact(outlet)?.shape.concretize() else { continue };
        let extents: Option<Vec<usize>> = shape.iter().map(|dim| dim.to_usize().ok()).collect();
        if let Some(extents) = extents {
            shapes.insert(name.clone(), extents);
        }
    }
    Ok((shapes, gave_up))
}

/// Compares the importer's shapes with tract's.
///
/// # Errors
/// If they differ anywhere.
pub(super) fn compare(
    model: &ModelProto,
    inputs: &[Input],
    imported: &BTreeMap<&str, Vec<usize>>,
) -> Result<CrossCheck, ImportError> {
    let (shapes, gave_up) = match catch_unwind(AssertUnwindSafe(|| analyse(model, inputs))) {
        Ok(Ok(analysed)) => analysed,
        Ok(Err(error)) => (BTreeMap::new(), Some(error.root_cause().to_string())),
        Err(_) => (BTreeMap::new(), Some("tract panicked".to_owned())),
    };
    let mut check = CrossCheck { n_agreed: 0, gave_up };
    let mut disagreements = Vec::new();
    for (name, analysed) in shapes {
        match imported.get(name.as_str()) {
            Some(shape) if *shape == analysed => check.n_agreed += 1,
            Some(shape) => {
                disagreements.push(ShapeDisagreement { tensor: name, imported: shape.clone(), analysed })
            }
            None => {}
        }
    }
    if disagreements.is_empty() { Ok(check) } else { Err(ImportError::Shapes(disagreements)) }
}
