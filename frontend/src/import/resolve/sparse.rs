//! Sparse tensors, as initialisers and in `Constant` nodes, made dense.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

use super::visit::{each_graph_mut, each_node_mut};
use crate::import::array::{Array, Data, strides};
use crate::import::error::{Lowered, Problems, invalid, node_name, unsupported};

/// Elements of a dense tensor at most.
const MAX_ELEMENTS: usize = 1 << 31;

/// Makes all sparse tensors of a model dense.
pub(super) fn make_dense(model: &mut ModelProto, problems: &mut Problems) {
    let Some(graph) = &mut model.graph else { return };
    each_node_mut(&mut graph.node, &mut |node| make_constant_dense(node, problems));
    each_graph_mut(graph, &mut |graph| {
        for sparse in std::mem::take(&mut graph.sparse_initializer) {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            match dense(&sparse) {
                Ok(tensor) => graph.initializer.push(tensor),
                Err(error) => problems.lowering(name, "initialiser", "", error),
            }
        }
    });
}

fn make_constant_dense(node: &mut NodeProto, problems: &mut Problems) {
    let (name, op) = (node_name(node).to_owned(), node.op_type.clone());
    for attribute in node.attribute.iter_mut().filter(|a| a.name == "sparse_value") {
        let Some(sparse) = attribute.sparse_tensor.take() else { continue };
        match dense(&sparse) {
            Ok(tensor) => {
                *attribute = AttributeProto {
                    name: "value".to_owned(),
                    r#type: AttributeType::Tensor as i32,
                    t: Some(tensor),
                    ..AttributeProto::default()
                };
            }
            Err(error) => problems.lowering(&name, &op, "", error),
        }
    }
}

/// The dense form of a sparse tensor, whose name is that of its values.
fn dense(sparse: &SparseTensorProto) -> Lowered<TensorProto> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        invalid!("a sparse tensor without values or indices")
    };
    let name = values.name.clone();
    let (values, indices) = (Array::decode(values)?, Array::decode(indices)?);
    let extents = sparse.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let Ok(shape) = extents else { invalid!("extents {:?}", sparse.dims) };
    let n = match shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)) {
        Some(n) if n <= MAX_ELEMENTS => n,
        _ => unsupported!("a sparse tensor of shape {shape:?} is too large"),
    };
    let places = places(&indices, &shape, values.len(), n)?;
    let mut sources: Vec<Option<usize>> = vec![None; n];
    for (source, &place) in places.iter().enumerate() {
        if sources[place].replace(source).is_some() {
            invalid!("a sparse tensor with two values for one element");
        }
    }
    Ok(spread(&values, &shape, &sources).encode(&name))
}

/// Where the values stand in the dense tensor: indices are its linear ones, or a row of one an axis.
fn places(indices: &Array, shape: &[usize], n_values: usize, n: usize) -> Lowered<Vec<usize>> {
    let linear: Vec<Option<i64>> = match indices.shape[..] {
        [rows] if rows == n_values => indices.as_ints()?.iter().map(|&index| Some(index)).collect(),
        [rows, rank] if rows == n_values && rank == shape.len() => {
            let steps = strides(shape);
            let at = |row: &[i64]| {
                let axes = row.iter().zip(shape).zip(&steps);
                let mut inside = axes.clone();
                let fits = inside.all(|((&index, &extent), _)| (0..extent as i64).contains(&index));
                fits.then(|| axes.map(|((&index, _), &step)| index * step as i64).sum())
            };
            match rank {
                0 => vec![Some(0); rows],
                _ => indices.as_ints()?.chunks(rank).map(at).collect(),
            }
        }
        ref other => invalid!("indices of shape {other:?} for {n_values} values of shape {shape:?}"),
    };
    let mut places = Vec::new();
    for index in linear {
        match index.and_then(|index| usize::try_from(index).ok()) {
            Some(place) if place < n => places.push(place),
            _ => invalid!("an index of a sparse tensor is out of its shape {shape:?}"),
        }
    }
    Ok(places)
}

/// The values at the places that have one, zeros elsewhere.
fn spread(values: &Array, shape: &[usize], sources: &[Option<usize>]) -> Array {
    fn filled<T: Copy + Default>(values: &[T], sources: &[Option<usize>]) -> std::sync::Arc<Vec<T>> {
        let value = |source: &Option<usize>| source.map_or(T::default(), |at| values[at]);
        std::sync::Arc::new(sources.iter().map(value).collect())
    }
    let data = match &values.data {
        Data::Float(v) => Data::Float(filled(v, sources)),
        Data::Int(v) => Data::Int(filled(v, sources)),
        Data::Bool(v) => Data::Bool(filled(v, sources)),
    };
    Array { shape: shape.to_vec(), data, dtype: values.dtype, quant: None }
}
