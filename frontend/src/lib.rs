//! ONNX import and the model zoo of Strata.

pub mod zoo;
