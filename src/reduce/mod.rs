//! Reduction: the smallest network, pipeline or program that is found to fail still.
//!
//! | module | what it does |
//! |---|---|
//! | `slice` | the search: which results to compute, from which values on |
//! | `module` | parts of a module of the IR, and simpler constants |
//! | `onnx` | parts of an ONNX model |
//! | `pipeline` | fewer passes |
//! | `lines` | fewer lines of a text, for programs |
//! | [`oracle`] | what it means that something fails still |
//! | [`calibration`] | what candidates are calibrated on |
//!
//! A reduction tries candidates and keeps each that an oracle says fails still, until none is left that is
//! smaller. It is greedy: what it gives cannot be made smaller by one more step of those that it knows, which
//! does not make it the smallest there is. Candidates that are not valid do not fail as the original does, so
//! an oracle refuses them.

pub mod calibration;
mod lines;
mod module;
mod onnx;
pub mod oracle;
mod pipeline;
mod slice;

pub use lines::reduce_lines;
pub use module::reduce_module;
pub use onnx::reduce_onnx;
pub use pipeline::reduce_pipeline;

/// How far a reduction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Candidates that were tried.
    pub n_tried: usize,
    /// Ops, nodes, passes or lines that are left.
    pub n_left: usize,
}
