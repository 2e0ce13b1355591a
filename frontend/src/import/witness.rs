//! A second opinion on shapes: tract's own analysis of the same graph, compared tensor by tensor.
//!
//! tract gives up on operators that it does not know; what it derived until then is still compared.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::InferenceModelExt;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DatumType, DimLike, InferenceFact, TractResult};

use super::CrossCheck;
use super::error::{ImportError, ShapeDisagreement};
use super::graph::OPSET_ATTRIBUTE;
use super::layout::Value;
use super::walk::Input;
use crate::dtype;
use crate::quiet::{Panicked, guarded};

/// A tensor's extents and element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The extents, in ONNX's layout.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: DataType,
}

impl Fact {
    /// The name of the element type, to be read: `f32`, `i64`, `string`, …
    pub fn type_name(&self) -> &'static str {
        dtype::told(self.dtype)
    }
}

/// What tract derived of a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Analysis {
    /// Tensors whose extents are known, by name.
    pub(super) facts: BTreeMap<String, Fact>,
    /// The element types of tensors, known extents or not.
    pub(super) types: BTreeMap<String, DataType>,
    /// Why it stopped early, if it did.
    pub(super) gave_up: Option<String>,
}

/// Of fewer bytes an initialiser stays one.
const LARGE_BYTES: usize = 1 << 16;

/// A model with its large initialisers of floats as inputs: their elements decide no shape, and tract would
/// copy them all.
fn without_large_data(model: &ModelProto) -> ModelProto {
    let Some(graph) = &model.graph else { return model.clone() };
    let (mut initializer, mut input) = (Vec::new(), graph.input.clone());
    for tensor in &graph.initializer {
        if tensor.data_type == DataType::Float as i32 && tensor.raw_data.len() >= LARGE_BYTES {
            input.retain(|info| info.name != tensor.name);
            input.push(input_like(tensor));
        } else {
            initializer.push(tensor.clone());
        }
    }
    let graph = GraphProto {
        node: graph.node.clone(),
        name: graph.name.clone(),
        initializer,
        sparse_initializer: graph.sparse_initializer.clone(),
        input,
        output: graph.output.clone(),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        functions: model.functions.clone(),
        ..ModelProto::default()
    }
}

/// An input of the name, the extents and the element type of a tensor.
fn input_like(tensor: &TensorProto) -> ValueInfoProto {
    let extent =
        |&dim: &i64| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: tensor.dims.iter().map(extent).collect() };
    let tensor_type = type_proto::Tensor { elem_type: tensor.data_type, shape: Some(shape) };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor_type)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn analyse(model: &ModelProto, inputs: &[Input<'_>]) -> TractResult<Analysis> {
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_types(true);
    let mut parsed = onnx.parse(model, None)?;
    for input in inputs {
        let dtype = DataType::try_from(input.dtype as i32).ok().and_then(|d| DatumType::try_from(d).ok());
        if let (Some(dtype), Some(&outlet)) = (dtype, parsed.outlets_by_name.get(input.name)) {
            parsed.model.set_outlet_fact(outlet, InferenceFact::dt_shape(dtype, &input.shape))?;
        }
    }
    let gave_up = parsed.model.analyse(false).err().map(|error| error.root_cause().to_string());
    let mut analysis = Analysis { gave_up, ..Analysis::default() };
    let mut names: Vec<_> = parsed.outlets_by_name.iter().collect();
    names.sort();
    for (name, &outlet) in names {
        let fact = parsed.model.outlet_fact(outlet)?;
        let dtype = fact.datum_type.concretize().map_or(DataType::Undefined, onnx_type);
        if dtype != DataType::Undefined {
            analysis.types.insert(name.clone(), dtype);
        }
        let Some(shape) = fact.shape.concretize() else { continue };
        let shape: Option<Vec<usize>> = shape.iter().map(|dim| dim.to_usize().ok()).collect();
        if let Some(shape) = shape {
            analysis.facts.insert(name.clone(), Fact { shape, dtype });
        }
    }
    Ok(analysis)
}

/// The element type of ONNX for one of tract's, `Undefined` where there is none.
fn onnx_type(dtype: DatumType) -> DataType {
    match dtype {
        DatumType::Bool => DataType::Bool,
        DatumType::U8 => DataType::Uint8,
        DatumType::U16 => DataType::Uint16,
        DatumType::U32 => DataType::Uint32,
        DatumType::U64 => DataType::Uint64,
        DatumType::I8 => DataType::Int8,
        DatumType::I16 => DataType::Int16,
        DatumType::I32 => DataType::Int32,
        // tract computes with symbolic extents where ONNX has `i64`.
        DatumType::I64 | DatumType::TDim => DataType::Int64,
        DatumType::F16 => DataType::Float16,
        DatumType::F32 => DataType::Float,
        DatumType::F64 => DataType::Double,
        _ => DataType::Undefined,
    }
}

/// What tract knows of the tensors of a graph, as far as it gets.
pub(super) fn analysis(model: &ModelProto, inputs: &[Input<'_>]) -> Analysis {
    let stopped = |why: String| Analysis { gave_up: Some(why), ..Analysis::default() };
    match guarded(|| analyse(model, inputs)) {
        Ok(Ok(analysis)) => analysis,
        Ok(Err(error)) => stopped(error.root_cause().to_string()),
        Err(Panicked) => stopped("tract panicked".to_owned()),
    }
}

/// Tensors whose shapes tract is known to derive wrongly, and those that follow from them: a `Slice` that is
/// empty, or that goes backwards from or to beyond an end; a `ConvTranspose` with both automatic and output
/// padding; a node of another version of the operator set than the model's.
fn misread<'m>(model: &'m ModelProto, imported: &BTreeMap<&str, Value>) -> BTreeSet<&'m str> {
    let mut names = BTreeSet::new();
    for node in model.graph.iter().flat_map(|graph| &graph.node) {
        let value = |name: &str| imported.get(name);
        let backwards = || match node.input.get(4).and_then(|name| value(name)) {
            Some(Value::Const(steps)) => steps.as_ints().is_ok_and(|steps| steps.iter().any(|&s| s < 0)),
            _ => false,
        };
        let empty = || node.output.iter().any(|name| value(name).is_some_and(|v| v.shape().contains(&0)));
        let has = |name: &str| node.attribute.iter().any(|a| a.name == name);
        let known = match node.op_type.as_str() {
            "Slice" => backwards() || empty(),
            "ConvTranspose" => has("auto_pad") && has("output_padding"),
            _ => false,
        };
        let wrong = known || has(OPSET_ATTRIBUTE);
        let follows = node.input.iter().any(|name| names.contains(name.as_str()));
        if follows || wrong {
            names.extend(node.output.iter().map(String::as_str));
        }
    }
    names
}

/// Compares the importer's shapes with tract's.
///
/// # Errors
/// If they differ anywhere.
pub(super) fn compare(
    model: &ModelProto,
    inputs: &[Input<'_>],
    imported: &BTreeMap<&str, Value>,
) -> Result<CrossCheck, ImportError> {
    let Analysis { facts, gave_up, .. } = analysis(&without_large_data(model), inputs);
    let misread = misread(model, imported);
    let mut check = CrossCheck { n_agreed: 0, gave_up };
    let mut disagreements = Vec::new();
    for (name, Fact { shape: analysed, .. }) in facts {
        match imported.get(name.as_str()).map(Value::shape) {
            Some(shape) if *shape == analysed => check.n_agreed += 1,
            Some(shape) if !misread.contains(name.as_str()) => {
                disagreements.push(ShapeDisagreement { tensor: name, imported: shape.to_vec(), analysed })
            }
            _ => {}
        }
    }
    if disagreements.is_empty() { Ok(check) } else { Err(ImportError::Shapes(disagreements)) }
}
