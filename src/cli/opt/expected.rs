//! `--verify-diagnostics`: what is wrong with each module is held against its comments.

use strata_ir::expect::{Found, mismatches, with_lines};
use strata_ir::text::Resources;
use strata_ir::{Module, text, verify};

use super::{Run, Stopped};
use crate::cli::failure::Failure;
use crate::compile::checkpoint;
use crate::io;

/// Reads, verifies and runs the passes on every module by itself.
///
/// # Errors
/// All that is wrong and not expected, or expected and not so, each with its line.
pub(super) fn verify_diagnostics(run: &mut Run<'_>) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for index in 0..run.input.n_modules() {
        let Some((text, resources)) = run.input.text(index) else {
            return Err(Failure::Usage("--verify-diagnostics is for .mlir files".to_owned()));
        };
        let found = found(run, index, text, resources)?;
        for mismatch in mismatches(text, "//", &found) {
            let line = mismatch.line().map_or_else(String::new, |line| format!(":{line}"));
            lines.push(format!("\n  {}{line}: {mismatch}", io::shown(run.input.path)));
        }
    }
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Failure::file(run.input.path, format!("other diagnostics than expected:{}", lines.concat())))
    }
}

/// All that is wrong with a module of the file.
fn found(
    run: &mut Run<'_>,
    index: usize,
    source: &str,
    resources: &Resources,
) -> Result<Vec<Found>, Failure> {
    let of_all = |errors: strata_ir::diag::Diagnostics| errors.0.iter().map(Found::of).collect();
    let module: Module = match text::parse(source, Some(resources)) {
        Ok(module) => module,
        Err(errors) => return Ok(of_all(errors)),
    };
    run.find_target(&module)?;
    if checkpoint::is_of_host(&module) {
        return Ok(Vec::new());
    }
    let mut module = with_lines(&module, source);
    if let Err(errors) = verify(&module) {
        return Ok(of_all(errors));
    }
    Ok(match run.passes(index, &mut module) {
        Ok(()) => Vec::new(),
        Err(Stopped::Invalid(errors)) => of_all(errors),
        Err(Stopped::Calibration(failure)) => return Err(failure),
        Err(Stopped::Pass(stopped)) => Found::of_failure(&stopped.failure),
    })
}
