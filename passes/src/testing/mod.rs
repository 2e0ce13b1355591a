//! Tests of passes: files that say what runs and what comes of it, and the same for a test of your own.
//!
//! | module | what it holds |
//! |---|---|
//! | `header` | what a file asks for: its `RUN`, `TARGET` and `CHECKS` |
//! | `run` | runs that on one module, with the checks |
//! | `machine` | programs: assembled, and what scheduled modules become |
//! | `file` | finds test files, runs one, compares or accepts its output |
//! | `trouble` | what is wrong with a module, or with what passes make of it |
//! | `failure` | what is wrong with a test |
//!
//! A test is a `.mlir` or `.asm` file. The comments that it begins with (`//`, in assembly `;`) tell:
//!
//! | key | value |
//! |---|---|
//! | `RUN` | a pipeline of passes, or `round-trip`, `verify` or, of assembly, `assemble` |
//! | `TARGET` | the machine: a preset and overrides of its fields, `x1 memory.activation=64KiB` |
//! | `CHECKS` | which of `round-trip`, `results` and `program` are made, or `none`; all, if it is not there |
//!
//! What is wrong with a module is expected by comments as in [`strata_ir::expect`]; what is found and not
//! expected fails the test, as does what is expected and not found. Several modules stand in a file with a
//! line `// -----` between every two.
//!
//! What the run gives is compared with the file of the same name and `.expected` beside it, or with the
//! comments that follow a line `// OUTPUT:` in the module's text. `verify` gives nothing. A scheduled module
//! of a file with a `TARGET` is shown as the assembly of its program.
//!
//! The checks:
//!
//! - `round-trip`: every module prints to text that parses to an equal module and prints the same again.
//! - `results`: `@main` gives the same on random inputs before and after each pass that keeps them, and from
//!   the first module in integers to the last.
//! - `program`: a scheduled module becomes a program that the machine's verifier accepts and whose results on
//!   the interpreter are the evaluator's.
//!
//! Besides, every file runs twice to the same output. A pass that panics, breaks the module, claims falsely
//! to have changed nothing or changes results always fails the test. An f32 network is calibrated on random
//! inputs before the first pass.
//!
//! Here rather than in `strata_ir`, since the checks of programs need the backend and the interpreter; it
//! needs no importer.

mod failure;
mod file;
mod header;
mod machine;
mod run;
mod trouble;

pub use failure::{Failure, Failures, OutputDiffers};
pub use file::{FileTests, Outcome, Tests, Unreadable};
pub use header::target;
pub use run::try_passes;
pub use trouble::Trouble;

use strata_ir::pass::Registry;

/// Runs a pipeline on a module with every check, and gives what [file tests](self) show of it: the module, or
/// its program, after a line a pass that says what it did.
///
/// ```
/// use strata_passes::testing;
///
/// let text = "module {
///   func.func @main(%x: tensor<2xi32>) -> (tensor<2xi32>) {
///     %y = tosa.identity %x : (tensor<2xi32>) -> tensor<2xi32>
///     return %y : tensor<2xi32>
///   }
/// }";
/// let shown = testing::opt(&strata_passes::registry(), "canonicalise", text)?;
/// assert!(shown.starts_with("// canonicalise: changed"));
/// # Ok::<(), testing::Failures>(())
/// ```
///
/// # Errors
/// All that is wrong: the text, the pipeline, the module, or what a check finds.
pub fn opt(registry: &Registry, pipeline: &str, text: &str) -> Result<String, Failures> {
    file::run_text(registry, pipeline, text)
}
