//! ONNX to the `import` phase: `func.func @main` of f32 TOSA ops in NHWC.
//!
//! The protobuf graph is walked node by node. Shapes are static, known from the inputs on; what is constant
//! is evaluated while importing, so no shape arithmetic is left. Each operator is lowered by its row in
//! `lower`; transposes and reshapes mostly vanish in `layout`; constants that scale and shift the result of a
//! convolution (batch normalisation above all) are folded into it by `affine`. tract analyses the same graph
//! on its own and has to derive the same shapes (`witness`).
//!
//! | module | what it holds |
//! |---|---|
//! | `resolve` | what a file says indirectly: other files, functions, branches, loops |
//! | `versions` | which definition of an operator a version of the operator set holds |
//! | `walk` | inputs and nodes in order, all problems at once |
//! | `driver` | the whole import: the walk, then outputs and signature |
//! | `graph`, `array` | typed access to nodes, attributes and constants of the file |
//! | `quant_data` | the integers behind dequantised constants |
//! | `shapes`, `fold` | what shape operands mean; evaluation of constant nodes |
//! | `layout` | how ONNX axes lie in IR values |
//! | `emit` | TOSA ops with their result types |
//! | `lower` | the operator table and the lowerings |
//! | `affine` | folding factors and terms into convolutions; dead code |
//! | `indexed` | inputs that number the rows of tables |
//! | `survey` | what can be imported of a graph and what cannot |
//! | `witness` | the comparison with tract's shape analysis |
//!
//! Invariants: the module holds no op that the operator set of the import phase lacks; no input makes it
//! panic; the same file and options give the same module. It does no IO of its own: [`SideFiles`] gives it
//! data that stand in other files. Declared shapes of intermediate tensors (`value_info`) are ignored: they
//! are often stale.

mod affine;
mod array;
mod driver;
mod emit;
pub(crate) mod error;
mod fold;
mod graph;
mod indexed;
mod layout;
mod lower;
#[cfg(test)]
mod operator_tests;
mod quant_data;
#[cfg(test)]
mod quantised_tests;
#[cfg(test)]
mod recurrent_tests;
pub(crate) mod resolve;
mod shapes;
mod survey;
#[cfg(test)]
mod tests;
mod versions;
mod walk;
mod witness;

use std::collections::BTreeMap;

use strata_ir::Module;
use tract_onnx::pb::ModelProto;

use self::resolve::FloatTypes;
pub(crate) use error::node_name;
pub use error::{ImportError, Malformation, ShapeDisagreement, UnsupportedNode};
pub use indexed::indexed_rows;
pub use lower::{OpSupport, supported_ops};
pub use resolve::{MAX_UNROLLED, NoSideFiles, Resolved, SideFiles, resolve};
pub use survey::{Blocked, Survey, survey};
pub use versions::NEWEST as NEWEST_OPSET;
pub use witness::Fact;

/// How to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Shapes of inputs by name, in ONNX's own axis order; they override what the file declares. Needed for
    /// inputs with dynamic extents other than the batch.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// The file's name, for locations.
    pub file_name: String,
    /// Whether tract analyses the shapes too.
    pub cross_check: bool,
    /// Whether the function takes and gives tensors in ONNX's own layout, rather than in that of the layers
    /// that they reach first or come from.
    pub plain_layout: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            input_shapes: BTreeMap::new(),
            file_name: "model.onnx".to_owned(),
            cross_check: true,
            plain_layout: false,
        }
    }
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// ONNX's name of it.
    pub name: String,
    /// Its shape in ONNX's axis order.
    pub shape: Vec<usize>,
    /// The permutation between ONNX's axis order and the function's: see `strata.perm`.
    pub perm: Vec<usize>,
    /// ONNX's element type, such as `f32` or `i64`.
    pub dtype: &'static str,
}

/// How the comparison with tract's analysis went.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CrossCheck {
    /// How many tensors' shapes agreed.
    pub n_agreed: usize,
    /// Why tract did not analyse the whole graph, if it did not.
    pub gave_up: Option<String>,
}

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The module, with one function `main`.
    pub module: Module,
    /// Inputs, in the order of the function's arguments.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of the function's results.
    pub outputs: Vec<Port>,
    /// Nodes of the ONNX graph.
    pub n_nodes: usize,
    /// Trained parameters: elements of the initialisers that convolutions, matrix products and normalisations
    /// read.
    pub n_parameters: u64,
    /// The outcome of the comparison with tract's analysis.
    pub cross_check: CrossCheck,
}

/// Imports the bytes of an ONNX file that holds all its data.
///
/// # Errors
/// See [`ImportError`]; each variant lists all problems of its kind.
pub fn import(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    import_resolved(&resolve(bytes, options, &NoSideFiles)?, options)
}

/// Imports a resolved model.
///
/// # Errors
/// See [`import`].
pub fn import_resolved(model: &Resolved, options: &ImportOptions) -> Result<Imported, ImportError> {
    driver::import(&model.model, &model.float_types, options)
}

/// Imports a model of plain nodes, such as a part of a resolved one.
///
/// # Errors
/// See [`import`].
pub fn import_proto(model: &ModelProto, options: &ImportOptions) -> Result<Imported, ImportError> {
    driver::import(model, &FloatTypes::default(), options)
}

/// The inputs of a resolved model, in ONNX's layout.
///
/// # Errors
/// See [`ImportError`]; nodes are not looked at.
pub fn inputs(model: &Resolved, options: &ImportOptions) -> Result<Vec<Port>, ImportError> {
    driver::inputs(&model.model, &model.float_types, options)
}
