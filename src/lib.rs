//! Strata: a compiler and reference machine for multi-layer neural-network inference.
//!
//! A multi-layer machine configures several layers in hardware at once and streams the rows of each into the
//! next, so that the large activations between them never exist as a whole. This crate is the library that a
//! user calls; the `strata` command is a thin layer over it.
//!
//! ```no_run
//! use strata::{Compiler, CompileOptions, Session, Target};
//!
//! let target = Target::preset("x1", &[])?;
//! let onnx = std::fs::read("model.onnx")?;
//! let compiled = Compiler::new(CompileOptions::new(target)).compile_onnx(&onnx, "model.onnx", &mut |_| {})?;
//! println!("{} cycles, {} DRAM bytes", compiled.stats.plan.cycles, compiled.stats.plan.dram_bytes.total);
//! let session = Session::new(compiled.bundle)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`compile`] | ONNX and TOSA to bundle, through every phase |
//! | [`diff`] | what differs between two plans, programs or dumps |
//! | [`explain_plan`] | why a plan is as it is |
//! | [`evaluate`] | functions of plain TOSA, run on the reference evaluator |
//! | [`export`] | models, plans and programs in forms that other tools read |
//! | [`float`](mod@float) | ONNX models in f32, with what the host runs of them |
//! | [`ranges`] | files of calibrated ranges |
//! | [`ptq`] | post-training quantisation, and what it costs |
//! | [`session`] | bundles and f32 imports, run on named tensors |
//! | [`made`] | what the stages of a bundle make on an inference |
//! | [`dump`] | that, as a folder of arrays with an index: golden vectors |
//! | [`compare`](mod@compare) | how far two sets of arrays are from each other |
//! | [`inspect`] | what a file holds, layer by layer |
//! | [`stats`] | the statistics, with stable keys |
//! | [`timings`] | what the steps of a compile take |
//! | [`reduce`](mod@reduce) | small networks, pipelines and programs that fail as large ones do |
//! | [`report`] | figures as people read them |
//! | [`io`] | arrays, images, files written atomically |

pub mod cli;
pub mod compare;
pub mod compile;
pub mod diff;
pub mod dump;
pub mod evaluate;
pub mod explain_plan;
pub mod export;
pub mod float;
mod host;
mod inputs;
pub mod inspect;
pub mod io;
pub mod made;
mod ports;
pub mod ptq;
pub mod ranges;
pub mod reduce;
pub mod report;
mod results;
pub mod session;
pub mod stats;
mod target_line;
pub mod timings;
pub mod work;

pub use compile::{CalibrationData, CompileError, CompileOptions, Compiled, Compiler, Event, Prepared};
pub use float::FloatModel;
pub use session::{RunError, Session};
pub use stats::Stats;
pub use strata_backend::model::{Mode, Objective};
pub use strata_isa_spec::Target;
pub use strata_isa_spec::bundle::Bundle;
pub use strata_passes::{registry, testing};
