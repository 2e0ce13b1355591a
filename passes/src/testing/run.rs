//! Runs what a test asks for on one module.

use std::fmt::Write as _;
use std::sync::Arc;

use strata_ir::equal::difference;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::random_inputs;
use strata_ir::expect::{Found, with_lines};
use strata_ir::pass::compare::compare;
use strata_ir::pass::{self, DriverOptions, Level, PassContext, PassError, PassReport, Pipeline, Progress};
use strata_ir::{Module, Tensor, text, verify};
use strata_isa_spec::Target;

use super::header::{Action, Checks, Request};
use super::machine;
use super::trouble::{N_INPUTS, Trouble};
use crate::quantise::{CalibrationSamples, SampleSource};

/// Runs passes on a module, with the checks of [tests](super) but that of its text. A network in floats is
/// calibrated on `samples`.
///
/// # Errors
/// What is wrong with the module, or with what passes make of it.
pub fn try_passes(
    pipeline: &Pipeline,
    target: Option<&Target>,
    module: &Module,
    samples: CalibrationSamples,
) -> Result<(), Trouble> {
    verify(module)?;
    let checks = Checks { round_trip: false, ..Checks::ALL };
    let request = Request { action: Action::Passes(pipeline.clone()), target: target.cloned(), checks };
    request.passes_on(module, pipeline, samples).map(drop)
}

/// Random inputs to calibrate a test on.
fn random_samples() -> CalibrationSamples {
    CalibrationSamples { source: Box::new(RandomInputs), ranges: Vec::new(), by_name: false }
}

impl Request {
    /// What comes of a text; `None` if nothing is shown.
    pub(super) fn run(&self, text: &str) -> Result<Option<String>, Trouble> {
        match &self.action {
            Action::Assemble => machine::assemble(text, self.target.as_ref()).map(Some),
            Action::RoundTrip => Ok(Some(text::to_string(&self.module(text)?))),
            Action::Verify => self.module(text).map(|_| None),
            Action::Passes(pipeline) => self.passes(text, pipeline).map(Some),
        }
    }

    /// The module of a text, which verifies unless the text alone is looked at. Ops are given their line
    /// while it is verified.
    fn module(&self, text: &str) -> Result<Module, Trouble> {
        let module = text::parse(text, None)?;
        if self.checks.round_trip {
            round_trips(&module).map_err(Trouble::Broken)?;
        }
        if !matches!(self.action, Action::RoundTrip) {
            verify(&with_lines(&module, text))?;
        }
        Ok(module)
    }

    fn passes(&self, text: &str, pipeline: &Pipeline) -> Result<String, Trouble> {
        let module = self.module(text)?;
        // Errors tell of an op by its place: once more, with the lines of the text as places.
        let again = |trouble| {
            self.passes_on(&with_lines(&module, text), pipeline, random_samples()).and(Err(trouble))
        };
        self.passes_on(&module, pipeline, random_samples()).or_else(again)
    }

    /// What is shown of a module after passes.
    fn passes_on(
        &self,
        before: &Module,
        pipeline: &Pipeline,
        samples: CalibrationSamples,
    ) -> Result<String, Trouble> {
        let mut module = before.clone();
        let reports = self.run_passes(&mut module, pipeline, samples)?;
        if self.checks.results {
            keeps_results(before, &module)?;
        }
        let shown = match &self.target {
            Some(target) if Level::of(&module) == Level::Sched => {
                machine::program(before, &module, target, self.checks.program)?
            }
            _ => text::to_string(&module),
        };
        Ok(summary(&reports) + &shown)
    }

    fn run_passes(
        &self,
        module: &mut Module,
        pipeline: &Pipeline,
        samples: CalibrationSamples,
    ) -> Result<Vec<PassReport>, Trouble> {
        let mut context = PassContext::new();
        context.insert(samples);
        if let Some(target) = &self.target {
            context.insert(target.clone());
        }
        let evaluate = if self.checks.results { N_INPUTS } else { 0 };
        let options = DriverOptions { check_claims: true, evaluate, ..DriverOptions::default() };
        let mut lost = None;
        let mut follow = |told: Progress<'_>| {
            if let Progress::Ended { report, module, .. } = told
                && self.checks.round_trip
                && lost.is_none()
            {
                lost = round_trips(module).err().map(|what| format!("after `{}`: {what}", report.name));
            }
        };
        let reports = pass::run(module, pipeline, &mut context, &options, &mut follow)
            .map_err(|stopped| Trouble::from(stopped.failure))?;
        lost.map_or(Ok(reports), |what| Err(Trouble::Broken(what)))
    }
}

/// A line a pass: whether it changed the module, and what it counted.
fn summary(reports: &[PassReport]) -> String {
    let mut lines = String::new();
    for report in reports {
        let counters: String = report.counters.iter().map(|(name, n)| format!(", {name}: {n}")).collect();
        let changed = if report.changed.is_yes() { "changed" } else { "unchanged" };
        // Writing to a `String` cannot fail.
        let _ = writeln!(lines, "// {}: {changed}{counters}", report.name);
    }
    lines
}

/// That the text of a module is a fixpoint of parsing and printing.
fn round_trips(module: &Module) -> Result<(), String> {
    let printed = text::to_string(module);
    let again = text::parse(&printed, None)
        .map_err(|errors| format!("what is printed does not parse:\n{errors}\n{printed}"))?;
    if let Some(what) = difference(module, &again) {
        return Err(format!("what is printed parses to another module: {what}\n{printed}"));
    }
    if text::to_string(&again) != printed {
        return Err(format!("the module prints otherwise the second time:\n{printed}"));
    }
    Ok(())
}

/// That `@main` can be evaluated, and computes the same after all passes if it was in integers before.
fn keeps_results(before: &Module, module: &Module) -> Result<(), Trouble> {
    let Some(main) = before.function("main") else { return Ok(()) };
    if let Err(error) = eval_function(before, main, random_inputs(before, main, 0)) {
        return Err(Trouble::Found(vec![Found::placeless(error)]));
    }
    let difference = (Level::of(before) >= Level::Quant).then(|| compare(before, module, N_INPUTS)).flatten();
    let miscompiled = |what| Trouble::Miscompiled(format!("the passes changed the results {what}"));
    difference.map_or(Ok(()), |what| Err(miscompiled(what)))
}

/// Random inputs, for an f32 network to be calibrated on.
#[derive(Debug)]
struct RandomInputs;

impl SampleSource for RandomInputs {
    fn samples(&self, module: &Module) -> Result<Vec<Vec<Arc<Tensor>>>, PassError> {
        let main =
            module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))?;
        let sample = |seed| random_inputs(module, main, seed).into_iter().map(Arc::new).collect();
        Ok((0..N_INPUTS as u64).map(sample).collect())
    }

    fn are_data(&self) -> bool {
        false
    }
}
