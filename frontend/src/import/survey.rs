//! What an import can and cannot take of a graph, for cutting it into parts: the walk goes on past nodes that
//! are not supported, with tract's word for the shapes of what they give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use strata_ir::Type;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

use super::ImportOptions;
use super::array::elem_of;
use super::error::{ImportError, LowerError, Malformation, node_name};
use super::layout::{Value, View};
use super::walk::Walk;
use super::witness::{self, Fact};

/// Why the import does not take a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It is not supported, or not so.
    Unsupported(String),
    /// What it reads comes from nodes that are not supported, and nothing is known of its shape.
    Follows,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(why) => f.write_str(why),
            Self::Follows => f.write_str("the shapes of its operands are not known before the network runs"),
        }
    }
}

/// What is known of a graph.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Nodes in an order in which operands come first.
    pub order: Vec<usize>,
    /// Nodes that the import does not take, by index, and why.
    pub blocked: BTreeMap<usize, Blocked>,
    /// Tensors that do not depend on the inputs, without those that are initialisers already.
    pub constants: BTreeMap<String, TensorProto>,
    /// Extents and types of tensors, where they do not depend on the data.
    pub facts: BTreeMap<String, Fact>,
    /// Element types of tensors, those of unknown extents too.
    pub types: BTreeMap<String, DataType>,
}

/// Surveys a model.
///
/// # Errors
/// If the graph contradicts itself, an input has no shape, or a tensor of the file is of a kind that is not
/// supported.
pub fn survey(model: &ModelProto, options: &ImportOptions) -> Result<Survey, ImportError> {
    let mut walk = Walk::begin(model, options)?;
    let mut survey = Survey { order: walk.order.clone(), ..Survey::default() };
    // tract's analysis costs as much as the rest; most graphs need none.
    let mut derived: Option<witness::Analysis> = None;
    let mut malformed = Vec::new();
    for &index in &survey.order {
        let node = &walk.graph.node[index];
        if !walk.is_ready(index) {
            // It may be one that is not supported whatever it reads.
            let blocked = match walk.lower(index) {
                Err(LowerError::Unsupported(why)) => Blocked::Unsupported(why),
                _ => Blocked::Follows,
            };
            survey.blocked.insert(index, blocked);
            continue;
        }
        match walk.lower(index) {
            Ok(()) => continue,
            Err(LowerError::Unsupported(why)) => survey.blocked.insert(index, Blocked::Unsupported(why)),
            Err(LowerError::Invalid(what)) => {
                let place = format!("{} `{}`", node.op_type, node_name(node));
                malformed.push(Malformation { place, what });
                continue;
            }
        };
        let derived = derived.get_or_insert_with(|| witness::analysis(model, &walk.inputs));
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let Some(fact) = derived.facts.get(name) else { continue };
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
    survey.types = derived.map(|derived| derived.types).unwrap_or_default();
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
        survey.types.insert(name.to_owned(), dtype);
        survey.facts.insert(name.to_owned(), Fact { shape, dtype });
    }
    Ok(survey)
}
