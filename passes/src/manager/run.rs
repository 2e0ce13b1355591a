//! Runs a pipeline: phases, verification, times, dumps, checks of claims, panics, reproducers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use strata_ir::diag::Diagnostics;
use strata_ir::verify::verify;
use strata_ir::{Module, text};

use super::compare::{Difference, compare};
use super::pipeline::{Pipeline, Step};
use super::{Changed, PassContext, PassError, Phase};

/// How to run a pipeline. Modules are always verified before the first pass and after every one that changed
/// something.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Whether to compare the printed module before and after passes that claim to have changed nothing.
    pub check_claims: bool,
    /// Evaluates the module before and after each pass on this many random inputs.
    pub evaluate: usize,
    /// Whether a failure carries the module as it was before the failing pass.
    pub reproducers: bool,
}

/// What one pass of a pipeline did.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// The pass.
    pub name: &'static str,
    /// Wall-clock time of the pass alone.
    pub seconds: f64,
    /// Whether it changed the module.
    pub changed: Changed,
    /// What the pass counted.
    pub counters: BTreeMap<&'static str, u64>,
}

/// A module that a pass has left, for whoever dumps it.
#[derive(Debug)]
pub struct Dump<'a> {
    /// Which pass of the pipeline, from 0.
    pub index: usize,
    /// The pass.
    pub name: &'static str,
    /// The phase the module is at now.
    pub phase: Phase,
    /// Whether the pass changed it.
    pub changed: Changed,
    /// The module.
    pub module: &'a Module,
}

/// A pipeline that stopped.
#[derive(Debug, thiserror::Error)]
#[error("pass `{pass}` (number {index} of the pipeline): {failure}")]
pub struct RunError {
    /// The pass.
    pub pass: &'static str,
    /// Which of the pipeline, from 0.
    pub index: usize,
    /// What happened.
    pub failure: RunFailure,
    /// The module before the pass, headed by the rest of the pipeline, if asked for.
    pub reproducer: Option<String>,
}

/// What stops a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// The pass says so.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The pass does not take the phase that the module is at.
    #[error("takes {}, the module is at {found}", phases(.takes))]
    WrongPhase {
        /// The phases it takes.
        takes: &'static [Phase],
        /// The phase of the module.
        found: Phase,
    },
    /// The module did not verify before the pass: the fault is the input's.
    #[error("the module does not verify before the pass:\n{0}")]
    InvalidBefore(Diagnostics),
    /// The module does not verify after the pass: the fault is the pass's.
    #[error("the module does not verify after the pass:\n{0}")]
    InvalidAfter(Diagnostics),
    /// The pass claims to have changed nothing, but the module prints differently.
    #[error("claims to have changed nothing, but did")]
    FalseClaim,
    /// The module computes something else.
    #[error("changed what the module computes: {0}")]
    Miscompiled(Difference),
    /// The pass panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

fn phases(phases: &[Phase]) -> String {
    phases.iter().map(|phase| phase.name()).collect::<Vec<_>>().join(" or ")
}

/// Runs a pipeline on a module, showing it to `dump` after every pass.
///
/// # Errors
/// The first pass that fails, panics, does not take the module's phase, or breaks what `options` checks. The module
/// is then in no particular state.
pub fn run_pipeline(
    module: &mut Module,
    pipeline: &Pipeline,
    context: &mut PassContext,
    options: &RunOptions,
    dump: &mut dyn FnMut(Dump<'_>),
) -> Result<Vec<PassReport>, RunError> {
    let mut reports = Vec::with_capacity(pipeline.steps().len());
    for (index, step) in pipeline.steps().iter().enumerate() {
        let keep = options.reproducers || options.evaluate > 0;
        let before = keep.then(|| module.clone());
        let first = index == 0;
        match run_step(module, step, context, options, before.as_ref(), first) {
            Ok(report) => {
                let changed = report.changed;
                dump(Dump { index, name: step.info.name, phase: Phase::of(module), changed, module });
                reports.push(report);
            }
            Err(failure) => {
                let reproducer = before
                    .filter(|_| options.reproducers)
                    .map(|before| reproducer(&before, &pipeline.from_step(index)));
                return Err(RunError { pass: step.info.name, index, failure, reproducer });
            }
        }
    }
    Ok(reports)
}

/// A module and the pipeline to run on it, in one text.
fn reproducer(module: &Module, pipeline: &Pipeline) -> String {
    format!("// passes: {pipeline}\n{}", text::to_string(module))
}

fn run_step(
    module: &mut Module,
    step: &Step,
    context: &mut PassContext,
    options: &RunOptions,
    before: Option<&Module>,
    first: bool,
) -> Result<PassReport, RunFailure> {
    let found = Phase::of(module);
    if !step.info.takes.contains(&found) {
        return Err(RunFailure::WrongPhase { takes: step.info.takes, found });
    }
    if first {
        verify(module).map_err(RunFailure::InvalidBefore)?;
    }
    let printed = options.check_claims.then(|| text::to_string(module));
    let pass = step.build();
    context.take_counters();
    let start = Instant::now();
    // A pass that panics may leave module and context half-changed; neither is used again.
    let result = catch_unwind(AssertUnwindSafe(|| pass.run(module, context)));
    let seconds = start.elapsed().as_secs_f64();
    let changed = result.map_err(|panic| RunFailure::Panicked(panic_message(&*panic)))??;
    if !changed.is_yes() && printed.is_some_and(|printed| printed != text::to_string(module)) {
        return Err(RunFailure::FalseClaim);
    }
    if let Some(phase) = step.info.gives.filter(|phase| *phase != found) {
        phase.mark(module);
    }
    if changed.is_yes() {
        verify(module).map_err(RunFailure::InvalidAfter)?;
    }
    // Quantisation changes what is computed; all else keeps it.
    let comparable = found >= Phase::Quant || Phase::of(module) == found;
    let before = before.filter(|_| comparable && changed.is_yes());
    if let Some(difference) = before.and_then(|before| compare(before, module, options.evaluate)) {
        return Err(RunFailure::Miscompiled(difference));
    }
    Ok(PassReport { name: step.info.name, seconds, changed, counters: context.take_counters() })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Pass, PassInfo, PassOptions};
    use strata_ir::Attribute;

    /// Declares a pass that does what an expression says to `module`.
    macro_rules! pass {
        ($row:ident, $name:literal, |$module:ident| $body:expr) => {
            static $row: PassInfo = PassInfo {
                name: $name,
                doc: "A pass of the tests.",
                takes: &[Phase::Import],
                gives: None,
                options: &[],
                build: |_: &PassOptions| {
                    struct Made;
                    impl Pass for Made {
                        fn info(&self) -> &'static PassInfo {
                            &$row
                        }
                        fn run(
                            &self,
                            $module: &mut Module,
                            _: &mut PassContext,
                        ) -> Result<Changed, PassError> {
                            $body
                        }
                    }
                    Box::new(Made)
                },
            };
        };
    }

    fn rename(module: &mut Module) {
        let top = module.top();
        module.op_mut(top).extra.insert("test.name".to_owned(), Attribute::Unit);
    }

    pass!(KEEP, "keep", |module| {
        let _ = module;
        Ok(Changed::No)
    });
    pass!(RENAME, "rename", |module| {
        rename(module);
        Ok(Changed::Yes)
    });
    pass!(LIE, "lie", |module| {
        rename(module);
        Ok(Changed::No)
    });
    pass!(PANIC, "panic", |module| panic!("no good: {:?}", module.top()));

    fn run(rows: &[&'static PassInfo], options: &RunOptions) -> Result<Vec<PassReport>, RunError> {
        let mut dumps = 0;
        let mut module = Module::new();
        let pipeline = Pipeline::of(rows);
        let reports =
            run_pipeline(&mut module, &pipeline, &mut PassContext::new(), options, &mut |_| dumps += 1)?;
        assert_eq!(dumps, rows.len());
        Ok(reports)
    }

    #[test]
    fn reports_what_changed() {
        let options = RunOptions { check_claims: true, ..RunOptions::default() };
        let reports = run(&[&KEEP, &RENAME], &options).expect("both work");
        assert_eq!([reports[0].changed, reports[1].changed], [Changed::No, Changed::Yes]);
    }

    #[test]
    fn finds_a_false_claim() {
        let options = RunOptions { check_claims: true, ..RunOptions::default() };
        let error = run(&[&KEEP, &LIE], &options).expect_err("it lies");
        assert!(matches!(error.failure, RunFailure::FalseClaim) && error.index == 1);
    }

    #[test]
    fn a_panic_is_an_error_with_a_reproducer() {
        let options = RunOptions { reproducers: true, ..RunOptions::default() };
        let error = run(&[&KEEP, &PANIC, &RENAME], &options).expect_err("it panics");
        assert!(error.to_string().contains("no good"), "{error}");
        let reproducer = error.reproducer.expect("asked for");
        assert!(reproducer.starts_with("// passes: panic,rename\n"), "{reproducer}");
    }

    pass!(BREAK, "break", |module| {
        // A function without the return that its type promises.
        let ty = strata_ir::attr::FunctionType {
            inputs: Vec::new(),
            results: vec![strata_ir::Type::tensor([1], strata_ir::ElemType::F32)],
        };
        module.add_function("main", ty);
        Ok(Changed::Yes)
    });

    #[test]
    fn a_pass_that_breaks_the_module_is_named() {
        let error = run(&[&KEEP, &BREAK], &RunOptions::default()).expect_err("it breaks the module");
        assert!(matches!(error.failure, RunFailure::InvalidAfter(_)) && error.pass == "break", "{error}");
    }
}
