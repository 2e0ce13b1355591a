//! The one driver of passes: levels, verification, times, counters, checks of claims, panics, reproducers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::compare::{Difference, compare};
use super::{Changed, Level, Pass, PassContext, PassError, PassInfo, Pipeline};
use crate::Module;
use crate::diag::Diagnostics;
use crate::equal::difference;
use crate::text::file::RUN;
use crate::verify::verify;

/// How to run a pipeline. The level of the module is checked before every pass in any case, and the module is
/// verified before the first and after every one that changed something.
#[derive(Clone, Debug, Default)]
pub struct DriverOptions {
    /// Whether to compare the module before and after passes that claim to have changed nothing.
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
    /// The level that the module is at now.
    pub level: Level,
    /// What the pass counted.
    pub counters: BTreeMap<&'static str, u64>,
}

/// What the observer of a run is told.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A pass begins.
    Begins {
        /// Which pass of the pipeline, from 0.
        index: usize,
        /// The pass.
        pass: &'static PassInfo,
        /// The module as it finds it.
        module: &'a Module,
    },
    /// A pass has done its work, and the module verifies.
    Ended {
        /// Which pass of the pipeline, from 0.
        index: usize,
        /// What it did.
        report: &'a PassReport,
        /// The module as it left it.
        module: &'a Module,
    },
}

/// A pipeline that stopped.
#[derive(Debug, thiserror::Error)]
#[error("pass `{pass}` (number {} of the pipeline): {failure}", .index + 1)]
pub struct PipelineFailure {
    /// The pass.
    pub pass: &'static str,
    /// Which of the pipeline, from 0.
    pub index: usize,
    /// What happened.
    pub failure: PassFailure,
    /// What makes the pass fail again, if asked for.
    pub reproducer: Option<Box<Reproducer>>,
}

/// A module as it was before a pass that fails, and what is left of the pipeline.
#[derive(Debug)]
pub struct Reproducer {
    /// The module.
    pub module: Module,
    /// The failing pass, and those after it.
    pub pipeline: Pipeline,
}

impl Reproducer {
    /// The line that a file with the module begins with: its [header](crate::text::file::Header).
    pub fn header(&self) -> String {
        format!("// {RUN}: {}\n", self.pipeline)
    }
}

/// What stops a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PassFailure {
    /// The pass says so.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The pass does not take the level that the module is at.
    #[error("takes {}, the module is at {found}", levels(.takes))]
    WrongLevel {
        /// The levels it takes.
        takes: &'static [Level],
        /// The level of the module.
        found: Level,
    },
    /// The module did not verify before the pass: the fault is the input's.
    #[error("the module does not verify before the pass:\n{0}")]
    InvalidBefore(Diagnostics),
    /// The module does not verify after the pass: the fault is the pass's.
    #[error("the module does not verify after the pass:\n{0}")]
    InvalidAfter(Diagnostics),
    /// The pass claims to have changed nothing, but the module is another.
    #[error("claims to have changed nothing, but did")]
    FalseClaim,
    /// The module computes something else.
    #[error("changed what the module computes: {0}")]
    Miscompiled(Difference),
    /// The pass panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

fn levels(levels: &[Level]) -> String {
    levels.iter().map(|level| level.name()).collect::<Vec<_>>().join(" or ")
}

/// Runs a pipeline on a module.
///
/// # Errors
/// The first pass that fails, panics, does not take the module's level, or breaks what `options` checks. The
/// module is then in no particular state.
pub fn run(
    module: &mut Module,
    pipeline: &Pipeline,
    context: &mut PassContext,
    options: &DriverOptions,
    observer: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PassReport>, PipelineFailure> {
    let mut reports = Vec::with_capacity(pipeline.passes().len());
    for (index, pass) in pipeline.passes().iter().enumerate() {
        let info = pass.info();
        observer(Progress::Begins { index, pass: info, module });
        let keep = options.reproducers || options.evaluate > 0;
        let before = keep.then(|| module.clone());
        let done = demand_valid(module, info, index == 0)
            .and_then(|()| run_pass(module, &**pass, context, options, before.as_ref()));
        match done {
            Ok(report) => {
                observer(Progress::Ended { index, report: &report, module });
                reports.push(report);
            }
            Err(failure) => {
                let reproducer = before
                    .filter(|_| options.reproducers)
                    .map(|module| Box::new(Reproducer { module, pipeline: pipeline.from_pass(index) }));
                return Err(PipelineFailure { pass: info.name, index, failure, reproducer });
            }
        }
    }
    Ok(reports)
}

/// That a module is at a level that a pass takes, and verifies.
fn demand_valid(module: &Module, info: &PassInfo, is_first: bool) -> Result<(), PassFailure> {
    let found = Level::of(module);
    if !info.takes.contains(&found) {
        return Err(PassFailure::WrongLevel { takes: info.takes, found });
    }
    if is_first { verify(module).map_err(PassFailure::InvalidBefore) } else { Ok(()) }
}

fn run_pass(
    module: &mut Module,
    pass: &dyn Pass,
    context: &mut PassContext,
    options: &DriverOptions,
    before: Option<&Module>,
) -> Result<PassReport, PassFailure> {
    let (info, found) = (pass.info(), Level::of(module));
    let kept = options.check_claims.then(|| module.clone());
    context.take_counters();
    let start = Instant::now();
    // A pass that panics may leave module and context half-changed; neither is used again.
    let result = catch_unwind(AssertUnwindSafe(|| pass.run(module, context)));
    let seconds = start.elapsed().as_secs_f64();
    let changed = result.map_err(|panic| PassFailure::Panicked(panic_message(&*panic)))??;
    if !changed.is_yes() && kept.is_some_and(|kept| difference(&kept, module).is_some()) {
        return Err(PassFailure::FalseClaim);
    }
    if let Some(level) = info.gives.filter(|level| *level != found) {
        level.mark(module);
    }
    if changed.is_yes() {
        verify(module).map_err(PassFailure::InvalidAfter)?;
    }
    let level = Level::of(module);
    // Quantisation changes what is computed; all else keeps it.
    let comparable = found >= Level::Quant || level == found;
    let before = before.filter(|_| comparable && changed.is_yes());
    if let Some(difference) = before.and_then(|before| compare(before, module, options.evaluate)) {
        return Err(PassFailure::Miscompiled(difference));
    }
    Ok(PassReport { name: info.name, seconds, changed, level, counters: context.take_counters() })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{PassOptions, Registry};
    use super::*;
    use crate::attr::FunctionType;
    use crate::{Attribute, ElemType, Type};

    /// Declares a pass that does what an expression says to `module`.
    macro_rules! pass {
        ($row:ident, $name:literal, |$module:ident| $body:expr) => {
            static $row: PassInfo = PassInfo {
                name: $name,
                doc: "A pass of the tests.",
                takes: &[Level::Import],
                gives: None,
                options: &[],
                build: |_: &PassOptions| {
                    #[derive(Debug)]
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
                    Arc::new(Made)
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

    fn ran(
        passes: &[&'static PassInfo],
        options: &DriverOptions,
    ) -> Result<Vec<PassReport>, PipelineFailure> {
        let names: Vec<&str> = passes.iter().map(|info| info.name).collect();
        let registry = Registry::new(passes.iter().copied());
        let pipeline = registry.parse(&names.join(",")).expect("their names");
        let (mut n_begun, mut n_ended) = (0, 0);
        let mut observer = |progress: Progress<'_>| match progress {
            Progress::Begins { .. } => n_begun += 1,
            Progress::Ended { .. } => n_ended += 1,
        };
        let ran = run(&mut Module::new(), &pipeline, &mut PassContext::new(), options, &mut observer);
        let failed = ran.as_ref().err().map(|failure| failure.index);
        assert_eq!([n_begun, n_ended], failed.map_or([passes.len(); 2], |at| [at + 1, at]));
        ran
    }

    #[test]
    fn reports_what_changed() {
        let options = DriverOptions { check_claims: true, ..DriverOptions::default() };
        let reports = ran(&[&KEEP, &RENAME], &options).expect("both work");
        assert_eq!([reports[0].changed, reports[1].changed], [Changed::No, Changed::Yes]);
    }

    #[test]
    fn the_observer_sees_the_module_before_and_after() {
        let registry = Registry::new([&KEEP, &RENAME]);
        let pipeline = registry.parse("keep,rename,keep").expect("their names").first(2);
        assert_eq!(pipeline.to_string(), "keep,rename");
        let is_renamed = |module: &Module| module.op(module.top()).extra.contains_key("test.name");
        let mut seen = Vec::new();
        let mut observer = |progress: Progress<'_>| match progress {
            Progress::Begins { pass, module, .. } => seen.push((pass.name, is_renamed(module))),
            Progress::Ended { report, module, .. } => seen.push((report.name, is_renamed(module))),
        };
        let (mut module, mut context) = (Module::new(), PassContext::new());
        let ran = run(&mut module, &pipeline, &mut context, &DriverOptions::default(), &mut observer);
        assert_eq!(ran.expect("both work").len(), 2);
        assert_eq!(seen, [("keep", false), ("keep", false), ("rename", false), ("rename", true)]);
    }

    #[test]
    fn finds_a_false_claim() {
        let options = DriverOptions { check_claims: true, ..DriverOptions::default() };
        let error = ran(&[&KEEP, &LIE], &options).expect_err("it lies");
        assert!(matches!(error.failure, PassFailure::FalseClaim) && error.index == 1);
    }

    #[test]
    fn a_panic_is_an_error_with_a_reproducer() {
        let options = DriverOptions { reproducers: true, ..DriverOptions::default() };
        let error = ran(&[&KEEP, &PANIC, &RENAME], &options).expect_err("it panics");
        assert!(error.to_string().contains("no good"), "{error}");
        let reproducer = error.reproducer.expect("asked for");
        assert_eq!(reproducer.header(), "// RUN: panic,rename\n");
        assert_eq!(difference(&reproducer.module, &Module::new()), None);
    }

    pass!(BREAK, "break", |module| {
        // A function without the return that its type promises.
        let ty = FunctionType { inputs: Vec::new(), results: vec![Type::tensor([1], ElemType::F32)] };
        module.add_function("main", ty);
        Ok(Changed::Yes)
    });

    #[test]
    fn a_pass_that_breaks_the_module_is_named() {
        let error = ran(&[&KEEP, &BREAK], &DriverOptions::default()).expect_err("it breaks the module");
        assert!(matches!(error.failure, PassFailure::InvalidAfter(_)) && error.pass == "break", "{error}");
    }
}
