//! TOSA as a format: functions that other frontends wrote, as flatbuffers or as MLIR, and functions written
//! as flatbuffers for others.
//!
//! | module | what it holds |
//! |---|---|
//! | `flatbuffer` | tables, vectors and strings of a flatbuffer, each access checked |
//! | `schema` | TOSA's schema: slots, enums, and a row an operator |
//! | `read` | a file's graph to a function of the IR |
//! | `builder`, `write` | a function of the IR to a file |
//! | [`entry`] | which function of a module is compiled, and whether it is of integers |
//!
//! MLIR text is read by `ir` itself. What comes out of either door is a verified module whose function `main`
//! is either all f32, to be calibrated and quantised as an ONNX model is, or all integers, to be compiled as
//! it stands.
//!
//! Invariants: no bytes make it panic; memory is bounded by a multiple of the file's length; all independent
//! problems are told at once. It does no IO.

mod builder;
pub mod entry;
mod flatbuffer;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use strata_ir::Module;

pub use self::write::WriteError;
use crate::import::ImportError;

/// Whether bytes claim to be a TOSA flatbuffer.
pub fn is_flatbuffer(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(schema::IDENTIFIER.as_slice())
}

/// Reads the bytes of a TOSA flatbuffer (`.tosa`). `file_name` stands in locations.
///
/// # Errors
/// [`ImportError::Malformed`] if the bytes are no such file or TOSA does not allow what it says;
/// [`ImportError::Unsupported`] with every operator and type that the IR lacks.
pub fn read(bytes: &[u8], file_name: &str) -> Result<Module, ImportError> {
    let mut module = read::read(bytes, file_name)?;
    entry::prepare(&mut module)?;
    Ok(module)
}

/// The bytes of a TOSA flatbuffer with a module's function `main`, of plain TOSA.
///
/// # Errors
/// If the module has no such function or more than it, or an op or a type that TOSA lacks.
pub fn write(module: &Module) -> Result<Vec<u8>, WriteError> {
    write::write(module)
}
