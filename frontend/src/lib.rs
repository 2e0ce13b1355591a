//! ONNX import and the model zoo of Strata.
//!
//! | module | what it holds |
//! |---|---|
//! | [`import`] | an ONNX file to the IR's `import` phase: f32 TOSA in NHWC |
//! | [`host`] | ONNX models that the host runs with tract, and what of them it was seen to run right |
//! | [`partition`](mod@partition) | cuts a graph into parts for the machine and parts for the host |
//! | [`proto`] | ONNX files as protobuf messages |
//! | [`reference`](mod@reference) | the same file run by tract, as an outside judge in tests |
//! | [`tosa`] | TOSA flatbuffers, and functions of TOSA that other tools wrote, to the IR |
//! | [`zoo`] | published networks written as ONNX files |

mod dtype;
pub mod host;
pub mod import;
pub mod partition;
pub mod proto;
mod quiet;
pub mod reference;
pub mod tosa;
pub mod zoo;
