//! Strata's intermediate representation: MLIR-like operations in SSA form, with operands, results, typed
//! attributes, regions and locations, held in `cranelift-entity` arenas.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | element, tensor and shape types |
//! | [`tensor`] | tensors of data: constants, and the evaluator's values |
//! | [`attr`] | attributes, and how typed Rust fields and serde values become them |
//! | [`build`](mod@build) | building ops with inferred types |
//! | [`diag`] | diagnostics, their codes and their rendering |
//! | [`dialect`] | the op tables, one row an op: every op that exists |
//! | [`equal`] | whether two modules are the same but for ids |
//! | [`eval`] | the reference evaluator: what every op computes |
//! | [`expect`] | expected diagnostics, held against those that were found |
//! | [`infer`](mod@infer) | result types from operands, and what TOSA allows of them |
//! | [`module`] | arenas, insertion, rewriting and traversal |
//! | [`pass`] | what a pass is, registries and pipelines of passes, and the driver that runs them |
//! | [`text`] | the text form: printer and parser |
//! | [`verify`](mod@verify) | what is wrong with a module: all of it |
//!
//! Invariants: the op set is closed (a `match` over [`dialect::Op`] is exhaustive); all tensor shapes are
//! static; a [`Module`]'s text form parses back to an equal module; nothing here does IO.

pub mod attr;
pub mod build;
pub mod diag;
pub mod dialect;
pub mod equal;
pub mod eval;
pub mod expect;
pub mod fold;
pub mod infer;
pub mod module;
pub mod pass;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;

pub use attr::{Attribute, Elements};
pub use build::Builder;
pub use diag::Diagnostic;
pub use dialect::Op;
pub use module::{BlockId, Location, Module, OpId, RegionId, ValueDef, ValueId};
pub use tensor::{Tensor, TensorData};
pub use types::{ElemType, TensorType, Type};
pub use verify::verify;
