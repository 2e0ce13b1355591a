//! The text form: MLIR's generic syntax, so that any MLIR tool reads a dump.
//!
//! | module | what it does |
//! |---|---|
//! | [`print`](mod@print) | module to text |
//! | `lex`, [`parse`](mod@parse) | text to module |
//! | [`resources`] | the side file of large constants |
//! | [`file`](mod@file) | what stands between the modules of a file, and in its header |
//! | `syntax` | what both directions share: string escapes, bare identifiers, floats |
//!
//! Invariants: printing is deterministic; a module printed, parsed and printed again gives the same text.

pub mod file;
mod lex;
pub mod parse;
pub mod print;
pub mod resources;
pub(crate) mod syntax;

pub use parse::parse;
pub use print::{Form, Names, PrintOptions, Printed, ResourcePlacement, print, to_string};
pub use resources::{ResourceError, Resources};
