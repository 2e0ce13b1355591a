//! What an import can and cannot take of a graph, for cutting it into parts: the walk goes on past nodes that are not
//! supported, with tract's word for the shapes of what they give.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::Type;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

use super::driver::Walk;
use super::error::{ImportError, LowerError};
use super::layout::{Value, View};
use super::lower::elem_of;
use super::{ImportOptions, witness};

/// A tensor's extents and element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The extents, in ONNX's layout.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: DataType,
}

/// What is known of a graph.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Nodes in an order in which operands come first.
    pub order: Vec<usize>,
    /// Nodes that the import does not take, by index, and why.
    pub blocked: BTreeMap<usize, String>,
    /// Tensors that do not depend on the inputs, without those that are initialisers already.
    pub constants: BTreeMap<String, TensorProto>,
    /// Extents and types of tensors, where they do not depend on the data.
    pub facts: BTreeMap<String, Fact>,
}

/// Surveys a model.
///
/// # Errors
/// If the graph contradicts itself, an input has no shape, or a tensor of the file is of a kind that is not supported.
pub fn survey(model: &ModelProto, options: &ImportOptions) -> Result<Survey, ImportError> {
    let mut walk = Walk::begin(model, options)?;
    let mut survey = Survey { order: walk.order.clone(), ..Survey::default() };
    // tract's analysis costs as much as the rest; most graphs need none.
    let mut derived: Option<BTreeMap<String, Fact>> = None;
    let mut malformed = Vec::new();
    for &index in &survey.order {
        let node = &walk.graph.node[index];
        if !walk.is_ready(index) {
            let why = "the shapes of its operands depend on the data".to_owned();
            survey.blocked.insert(index, why);
            continue;
        }
        match walk.lower(index) {
            Ok(()) => continue,
            Err(LowerError::Unsupported(why)) => survey.blocked.insert(index, why),
            Err(LowerError::Invalid(what)) => {
                let place = format!("{} `{}`", node.op_type, super::graph::node_name(node));
                malformed.push(super::Malformation { place, what });
                continue;
            }
        };
        let derived = derived.get_or_insert_with(|| witness::facts(model, &walk.inputs));
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let Some(fact) = derived.get(name) else { continue };
            // A tensor of a type that the IR lacks stays unknown: its readers are the host's too.
            let Ok(elem) = elem_of(fact.dtype) else {
                survey.facts.insert(name.clone(), fact.clone());
                continue;
            };
            let em = &mut walk.lowering.em;
            let value = em.module.add_arg(em.block, Type::tensor(fact.shape.clone(), elem));
            let identity: Vec<usize> = (0..fact.shape.len()).collect();
            let view = View::plain(value, fact.shape.clone(), &identity, fact.dtype);
            walk.values.insert(name, view.into());
        }
    }
    if !malformed.is_empty() {
        return Err(ImportError::Malformed(malformed));
    }
    let initialisers: BTreeSet<&str> =
        walk.graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    for (&name, value) in &walk.values {
        let (shape, dtype) = match value {
            Value::View(view) => (view.shape.clone(), view.dtype),
            Value::Const(array) => {
                if !initialisers.contains(name) {
                    survey.constants.insert(name.to_owned(), array.encode(name));
                }
                (array.shape.clone(), array.dtype)
            }
        };
        survey.facts.insert(name.to_owned(), Fact { shape, dtype });
    }
    Ok(survey)
}
