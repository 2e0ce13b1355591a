//! ONNX import and the model zoo of Strata.
//!
//! | module | what it holds |
//! |---|---|
//! | [`import`] | an ONNX file to the IR's `import` phase: f32 TOSA in NHWC |
//! | [`reference`](mod@reference) | the same file run by tract, as an outside judge in tests |
//! | [`zoo`] | published networks written as ONNX files |

pub mod import;
pub mod reference;
pub mod zoo;
