//! From the bytes of a file to a model of plain nodes, before anything else looks at its graph.
//!
//! ONNX lets a file say things indirectly. Each step here takes one such way out:
//!
//! | module | what it resolves |
//! |---|---|
//! | `extras` | fields of the protobuf that tract's messages lack |
//! | `external` | data that stand in other files |
//! | `functions` | functions of the model's own |
//! | `floats` | float types other than `f32` |
//! | `sparse` | sparse tensors |
//! | `control`, `expand`, `loops`, `sequences` | branches, loops, sequences, optional values that fold |
//!
//! `visit` and `names` serve them: walks over graphs with their subgraphs, and names for what is copied.
//!
//! Invariants: a name stands for one tensor, before and after; what a step does not take it leaves as it was,
//! for the import or the host to judge. The number of nodes stays bounded whatever the file says.

pub(super) mod control;
mod expand;
mod external;
mod extras;
mod floats;
mod functions;
mod loops;
mod names;
mod sequences;
mod sparse;
#[cfg(test)]
mod tests;
pub(super) mod visit;

use tract_onnx::pb::{FunctionProto, GraphProto, ModelProto};

pub use self::control::MAX_UNROLLED;
pub use self::external::{NoSideFiles, SideFiles};
pub(super) use self::floats::FloatTypes;
pub(crate) use self::visit::reads;
use super::ImportOptions;
use super::error::{ImportError, Problems};
use crate::proto;

/// A model of plain nodes and `f32` floats, and what it was before where a user sees that.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The model.
    pub model: ModelProto,
    /// What its inputs and outputs were.
    pub(super) float_types: FloatTypes,
    /// Whether branches or loops were decided, which may hang on the shapes of the inputs.
    pub depends_on_shapes: bool,
}

impl Resolved {
    /// The element type of an output as a user sees it, where it is not that of the resolved model.
    pub fn user_dtype(&self, name: &str) -> Option<&'static str> {
        self.float_types.user_dtype(name)
    }
}

/// Resolves the bytes of an ONNX file; `files` are those beside it.
///
/// # Errors
/// See [`ImportError`]; nodes are not judged.
pub fn resolve(
    bytes: &[u8],
    options: &ImportOptions,
    files: &dyn SideFiles,
) -> Result<Resolved, ImportError> {
    let mut model = proto::decode(bytes)?;
    let extras = extras::read(bytes, &mut model);
    let mut problems = Problems::default();
    for (what, values) in [("input", &extras.inputs), ("output", &extras.outputs)] {
        for (name, kind) in values {
            problems.unsupported(name, what, format!("a {kind}; only dense tensors are supported"));
        }
    }
    spell_domain(&mut model);
    external::load(&mut model, files, &mut problems);
    functions::inline(&mut model, extras.defaults, &mut problems);
    let float_types = floats::unify(&mut model, &mut problems);
    sparse::make_dense(&mut model, &mut problems);
    problems.check()?;
    let depends_on_shapes = expand::expand(&mut model, options)?;
    Ok(Resolved { model, float_types, depends_on_shapes })
}

/// ONNX's own domain is the empty one; `ai.onnx` is another spelling of it.
fn spell_domain(model: &mut ModelProto) {
    let spell = |domain: &mut String| {
        if domain == "ai.onnx" {
            domain.clear();
        }
    };
    model.opset_import.iter_mut().for_each(|set| spell(&mut set.domain));
    let each = &mut |node: &mut crate::proto::NodeProto| spell(&mut node.domain);
    if let Some(GraphProto { node, .. }) = &mut model.graph {
        visit::each_node_mut(node, each);
    }
    for FunctionProto { node, domain, opset_import, .. } in &mut model.functions {
        domain.iter_mut().for_each(spell);
        opset_import.iter_mut().for_each(|set| spell(&mut set.domain));
        visit::each_node_mut(node, each);
    }
}
