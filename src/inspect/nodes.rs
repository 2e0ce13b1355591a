//! The nodes of an ONNX graph of which the import takes only a part, or none.

use std::collections::BTreeSet;

use strata_frontend::import::{Blocked, Fact, ImportError, ImportOptions, Survey, UnsupportedNode, survey};
use strata_frontend::partition::work;
use strata_frontend::proto::ModelProto;

use super::{Counting, Layer, Step};
use crate::io::DType;

/// The nodes of a graph in an order in which they can run, with what is known of them before they do.
///
/// # Errors
/// If the graph contradicts itself.
pub(super) fn of_graph(
    model: &ModelProto,
    options: &ImportOptions,
    counting: Counting,
) -> Result<Vec<Layer>, ImportError> {
    let survey = survey(model, options)?;
    let Some(graph) = &model.graph else { return Ok(Vec::new()) };
    let constants: BTreeSet<&str> = (graph.initializer.iter().map(|tensor| tensor.name.as_str()))
        .chain(survey.constants.keys().map(String::as_str))
        .collect();
    let reader = Reader { survey: &survey, counting };
    let mut seen = BTreeSet::new();
    let mut weights_so_far = 0;
    let mut layers = Vec::new();
    for &index in &survey.order {
        let Some(node) = graph.node.get(index) else { continue };
        // What does not depend on the inputs is no layer.
        if node.output.iter().all(|name| constants.contains(name.as_str())) {
            continue;
        }
        let named = UnsupportedNode::new(node, String::new());
        let (weights, activations): (BTreeSet<&str>, BTreeSet<&str>) =
            node.input.iter().map(String::as_str).partition(|name| constants.contains(name));
        let new: Vec<&str> = weights.iter().copied().filter(|name| seen.insert(*name)).collect();
        weights_so_far += reader.bytes(new.iter().copied());
        let result = node.output.first().and_then(|name| survey.facts.get(name));
        let source = Some(format!("{}:{index}", options.file_name));
        layers.push(Layer {
            name: named.name.clone(),
            op: node.op_type.clone(),
            shape: result.map(|fact| fact.shape.clone()).unwrap_or_default(),
            dtype: result.map_or("varies", Fact::type_name).to_owned(),
            macs: work(node, &survey.facts).macs,
            input_bytes: reader.bytes(activations.iter().copied()),
            output_bytes: reader.bytes(node.output.iter().map(String::as_str)),
            weight_bytes: reader.bytes(weights.iter().copied()),
            weight_bytes_so_far: weights_so_far,
            host: survey.blocked.get(&index).map(Blocked::to_string),
            ops: vec![Step { op: node.op_type.clone(), node: named.name, source }],
            ..Layer::default()
        });
    }
    Ok(layers)
}

struct Reader<'a> {
    survey: &'a Survey,
    counting: Counting,
}

impl Reader<'_> {
    /// Bytes of tensors, as far as their shapes are known.
    fn bytes<'b>(&self, names: impl Iterator<Item = &'b str>) -> u64 {
        let facts = names.filter_map(|name| self.survey.facts.get(name));
        let of = |fact: &Fact| {
            let each = match fact.type_name().parse::<DType>() {
                Ok(dtype) if dtype.is_float() && self.counting.floats_as_int8 => 1,
                Ok(dtype) => dtype.size_bytes(),
                // Strings and the like have no size to speak of.
                Err(_) => 0,
            };
            (fact.shape.iter().product::<usize>() * each) as u64
        };
        facts.map(of).sum()
    }
}
