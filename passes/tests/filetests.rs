//! The file tests: every `.mlir` and `.asm` file of `tests/filetests/<level>/` is one test.
//!
//! A file begins with comment lines (`//`, in assembly `;`), of which those of the form `KEY: value` say what
//! to do:
//!
//! | key | value |
//! |---|---|
//! | `RUN` | `round-trip`, `verify`, `assemble`, or a pipeline of passes |
//! | `TARGET` | a preset and overrides of its fields: `x1 memory.activation=64KiB` |
//! | `EXPECT-ERROR` | a part of an error that has no place in the text |
//!
//! Below, an `EXPECT-ERROR` stands on the line of the op that is wrong, or on the lines right above. Any
//! other key, an error that nothing expects and an expectation that nothing meets all fail the test.
//!
//! What the run gives is compared with `snapshots/<file>.snap` beside the file; `INSTA_UPDATE=always` accepts
//! what it gives now, to be read before it is committed. `verify` gives nothing. A scheduled module is shown
//! as the assembly of its program.
//!
//! Every file is also run twice to the same bytes; every module prints to text that parses to an equal module
//! and prints the same again; `@main` is evaluated before and after each pass; and a scheduled module is
//! lowered to a program that the machine's verifier accepts and whose results on the interpreter are the
//! evaluator's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use strata_ir::diag::{Diagnostic, Place};
use strata_ir::equal::difference;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::random_inputs;
use strata_ir::expect::with_lines;
use strata_ir::pass::compare::compare;
use strata_ir::pass::{
    self, DriverOptions, Level, PassContext, PassError, PassFailure, Pipeline, Progress, Registry,
};
use strata_ir::{Module, text, verify};
use strata_isa_spec::{Target, asm, codec, interp};
use strata_passes::quantise::Calibration;

/// Random inputs on which a module is evaluated before and after.
const N_INPUTS: usize = 4;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests");
    let trials = files(&root).into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        Trial::test(name, move || run_file(&path).map_err(Failed::from))
    });
    let mut trials: Vec<Trial> = trials.collect();
    assert!(!trials.is_empty(), "there are no file tests in {}", root.display());
    trials.push(Trial::test("snapshots", move || every_snapshot_has_a_file(&root).map_err(Failed::from)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The test files, in the order of their paths.
fn files(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let read = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        read.map(|entry| entry.expect("the folder is readable").path()).collect()
    };
    let is_test = |path: &PathBuf| path.extension().is_some_and(|e| e == "mlir" || e == "asm");
    let levels = entries(root).into_iter().filter(|path| path.is_dir());
    let mut files: Vec<PathBuf> = levels.flat_map(|level| entries(&level)).filter(is_test).collect();
    files.sort();
    files
}

/// A file that is gone or renamed leaves no snapshot behind.
fn every_snapshot_has_a_file(root: &Path) -> Result<(), String> {
    let tests = files(root);
    let levels: BTreeSet<&Path> = tests.iter().filter_map(|test| test.parent()).collect();
    let mut left = Vec::new();
    for level in levels {
        let Ok(snapshots) = std::fs::read_dir(level.join("snapshots")) else { continue };
        for snapshot in snapshots {
            let path = snapshot.map_err(|e| e.to_string())?.path();
            let is_of =
                |test: &&PathBuf| test.parent() == Some(level) && test.file_stem() == path.file_stem();
            if !tests.iter().any(|test| is_of(&test)) {
                left.push(path.display().to_string());
            }
        }
    }
    if left.is_empty() { Ok(()) } else { Err(format!("snapshots without a test: {left:#?}")) }
}

/// What a file asks for.
struct Case {
    run: Run,
    target: Option<Target>,
    expected: Vec<Expected>,
    text: String,
}

enum Run {
    RoundTrip,
    Verify,
    Assemble,
    Passes(Pipeline),
}

/// An expected error.
struct Expected {
    /// The line it is about, from 1; `None` for the header's.
    line: Option<usize>,
    part: String,
}

/// An error that a run gave.
#[derive(Debug)]
struct Problem {
    line: Option<usize>,
    message: String,
}

impl Problem {
    fn placeless(message: impl ToString) -> Self {
        Self { line: None, message: message.to_string() }
    }

    fn of(diagnostic: &Diagnostic) -> Self {
        let line = match &*diagnostic.location {
            Place::Text { line, .. } => Some(*line),
            Place::Op { file, .. } => file.as_ref().map(|(_, line, _)| *line as usize),
            Place::Unknown => None,
        };
        Self { line, message: format!("{} [{}]", diagnostic.message, diagnostic.code) }
    }
}

type Outcome = Result<Option<String>, Vec<Problem>>;

impl Case {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let marker = if path.extension().is_some_and(|e| e == "asm") { ";" } else { "//" };
        let (mut run, mut target, mut expected) = (None, None, Vec::new());
        let mut in_header = true;
        // Expectations on lines of their own, which are about the next line that is not one.
        let mut pending: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let fail = |what: String| format!("line {number}: {what}");
            let (code, comment) = match line.split_once(marker) {
                Some((code, comment)) => (code.trim(), Some(comment)),
                None => (line.trim(), None),
            };
            in_header &= code.is_empty() && comment.is_some();
            let at = (!code.is_empty()).then_some(number);
            if at.is_some() {
                expected.extend(pending.drain(..).map(|part| Expected { line: at, part }));
            }
            let Some((key, value)) = comment.and_then(key_and_value) else { continue };
            match key {
                "RUN" if in_header && run.is_none() => run = Some(parse_run(value).map_err(fail)?),
                "TARGET" if in_header && target.is_none() => {
                    target = Some(parse_target(value).map_err(fail)?)
                }
                "EXPECT-ERROR" if in_header || at.is_some() => {
                    expected.push(Expected { line: at, part: value.to_owned() });
                }
                "EXPECT-ERROR" => pending.push(value.to_owned()),
                _ => {
                    return Err(fail(format!(
                        "the key {key} is unknown, stands twice, or does not belong here"
                    )));
                }
            }
        }
        if !pending.is_empty() {
            return Err(format!("nothing follows the last expected error: {pending:?}"));
        }
        let run = run.ok_or("the header has no RUN")?;
        Ok(Self { run, target, expected, text })
    }

    fn run(&self) -> Outcome {
        match &self.run {
            Run::Assemble => self.assemble().map(Some),
            Run::RoundTrip => Ok(Some(text::to_string(&self.module()?))),
            Run::Verify => self.module().map(|_| None),
            Run::Passes(pipeline) => self.passes(pipeline).map(Some),
        }
    }

    /// The module of the text, which verifies. Ops are given their line while it is verified.
    fn module(&self) -> Result<Module, Vec<Problem>> {
        let problems = |all: strata_ir::diag::Diagnostics| all.0.iter().map(Problem::of).collect::<Vec<_>>();
        let module = text::parse(&self.text, None).map_err(problems)?;
        must_round_trip(&module);
        if !matches!(self.run, Run::RoundTrip) {
            verify(&with_lines(&module, &self.text)).map_err(problems)?;
        }
        Ok(module)
    }

    fn passes(&self, pipeline: &Pipeline) -> Result<String, Vec<Problem>> {
        let mut module = self.module()?;
        let before = module.clone();
        let mut context = PassContext::new();
        if let Some(calibration) = calibration(&module)? {
            context.insert(calibration);
        }
        if let Some(target) = &self.target {
            context.insert(target.clone());
        }
        let options = DriverOptions { check_claims: true, evaluate: N_INPUTS, ..DriverOptions::default() };
        let mut follow = |told: Progress<'_>| {
            if let Progress::Ended { module, .. } = told {
                must_round_trip(module);
            }
        };
        let reports = pass::run(&mut module, pipeline, &mut context, &options, &mut follow)
            .map_err(|stopped| problems_of(stopped.failure))?;
        if let Some(main) = before.function("main") {
            let inputs = random_inputs(&before, main, 0);
            eval_function(&before, main, inputs).map_err(|e| vec![Problem::placeless(e)])?;
        }
        if Level::of(&before) >= Level::Quant
            && let Some(difference) = compare(&before, &module, N_INPUTS)
        {
            panic!("the pipeline changed what the module computes {difference}");
        }
        let mut output = String::new();
        for report in &reports {
            let counters: String = report.counters.iter().map(|(name, n)| format!(", {name}: {n}")).collect();
            let changed = if report.changed.is_yes() { "changed" } else { "unchanged" };
            let _ = writeln!(output, "// {}: {changed}{counters}", report.name);
        }
        match &self.target {
            Some(target) if Level::of(&module) == Level::Sched => {
                output += &machine_program(&before, &module, target);
            }
            _ => output += &text::to_string(&module),
        }
        Ok(output)
    }

    fn assemble(&self) -> Result<String, Vec<Problem>> {
        let program =
            asm::parse(&self.text).map_err(|e| vec![Problem { line: Some(e.line), message: e.reason }])?;
        let printed = asm::disassemble(&program, &[]);
        assert_eq!(asm::parse(&printed).as_ref(), Ok(&program), "the printed program is another");
        assert_eq!(
            codec::decode(&codec::encode(&program)).as_ref(),
            Ok(&program),
            "the encoding loses something"
        );
        if let Some(target) = &self.target {
            let errors = strata_isa_spec::verify::verify(&program, target);
            if !errors.is_empty() {
                let problem = |e: &strata_isa_spec::verify::VerifyError| {
                    Problem::placeless(format!("{e} ({:?})", e.rule))
                };
                return Err(errors.iter().map(problem).collect());
            }
        }
        Ok(printed)
    }
}

/// The passes of Strata.
fn registry() -> Registry {
    Registry::new(strata_passes::PASSES.iter().chain(strata_backend::PASSES).copied())
}

/// The key and the value of a comment that has them.
fn key_and_value(comment: &str) -> Option<(&str, &str)> {
    let (key, value) = comment.split_once(':')?;
    let key = key.trim();
    let is_key = key.len() > 1 && key.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    is_key.then_some((key, value.trim()))
}

fn parse_run(value: &str) -> Result<Run, String> {
    Ok(match value {
        "round-trip" => Run::RoundTrip,
        "verify" => Run::Verify,
        "assemble" => Run::Assemble,
        passes => Run::Passes(registry().parse(passes).map_err(|e| e.to_string())?),
    })
}

fn parse_target(value: &str) -> Result<Target, String> {
    let mut words = value.split_whitespace();
    let preset = words.next().ok_or("no target is named")?;
    let overrides = words.map(|word| {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not FIELD=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let overrides = overrides.collect::<Result<Vec<_>, String>>()?;
    Target::preset(preset, &overrides).map_err(|e| e.to_string())
}

/// Fails unless the text of a module is a fixpoint of parsing and printing.
fn must_round_trip(module: &Module) {
    let printed = text::to_string(module);
    let again = text::parse(&printed, None)
        .unwrap_or_else(|e| panic!("what is printed does not parse:\n{e}\n{printed}"));
    assert_eq!(difference(module, &again), None, "the printed module is another:\n{printed}");
    assert_eq!(text::to_string(&again), printed, "the module prints otherwise the second time");
}

/// Ranges of an f32 network on random inputs; of any other, nothing.
fn calibration(module: &Module) -> Result<Option<Calibration>, Vec<Problem>> {
    let Some(main) = module.function("main").filter(|_| Level::of(module) == Level::Import) else {
        return Ok(None);
    };
    let sample = |seed| random_inputs(module, main, seed).into_iter().map(Arc::new).collect();
    let samples: Vec<_> = (0..N_INPUTS as u64).map(sample).collect();
    Calibration::collect(module, &samples).map(Some).map_err(|e| vec![Problem::placeless(e)])
}

fn problems_of(failure: PassFailure) -> Vec<Problem> {
    match failure {
        PassFailure::Pass(PassError::Unsupported(ops)) => ops.iter().map(Problem::placeless).collect(),
        PassFailure::Pass(PassError::Invalid(problems)) => problems.iter().map(Problem::placeless).collect(),
        PassFailure::InvalidBefore(all) => all.0.iter().map(Problem::of).collect(),
        // The fault of a pass is never what a test expects.
        PassFailure::InvalidAfter(_)
        | PassFailure::FalseClaim
        | PassFailure::Miscompiled(_)
        | PassFailure::Panicked(_) => {
            panic!("{failure}")
        }
        other => vec![Problem::placeless(other)],
    }
}

/// The assembly of a scheduled module, which the machine accepts and which gives the results of `before`.
fn machine_program(before: &Module, module: &Module, target: &Target) -> String {
    let lowered = strata_backend::emit::lower(module).unwrap_or_else(|e| panic!("{e}"));
    let errors = strata_isa_spec::verify::verify(&lowered.program, target);
    let listing = asm::disassemble(&lowered.program, &lowered.names);
    assert!(errors.is_empty(), "the machine's verifier: {errors:#?}\n{listing}");
    let main = before.function("main").expect("a scheduled module has a @main");
    for seed in (0..N_INPUTS as u64).filter(|_| Level::of(before) >= Level::Quant) {
        let inputs = random_inputs(before, main, seed);
        let bytes: Vec<Vec<u8>> = inputs.iter().map(|tensor| tensor.data().to_bytes()).collect();
        let want = eval_function(before, main, inputs).expect("it was evaluated before");
        let want: Vec<Vec<u8>> = want.iter().map(|tensor| tensor.data().to_bytes()).collect();
        let got = interp::run(&lowered.program, target, &lowered.weights, &bytes);
        assert_eq!(
            got.expect("a verified program runs"),
            want,
            "the machine gives other results, seed {seed}"
        );
    }
    listing
}

fn run_file(path: &Path) -> Result<(), String> {
    let case = Case::read(path)?;
    let outcome = case.run();
    if let (Ok(first), Ok(second)) = (&outcome, case.run()) {
        assert_eq!(*first, second, "two runs give different bytes");
    }
    let output = match outcome {
        Ok(output) => {
            let unmet: Vec<&str> = case.expected.iter().map(|e| e.part.as_str()).collect();
            if !unmet.is_empty() {
                return Err(format!("there is no error, expected: {unmet:#?}"));
            }
            output
        }
        Err(problems) => return match_errors(&case.expected, problems),
    };
    if let Some(output) = output {
        let stem = path.file_stem().and_then(|s| s.to_str()).ok_or("the file has no name")?;
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.with_file_name("snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(stem, output));
    }
    Ok(())
}

/// Pairs every error with an expectation of its line; what is left over on either side is the failure.
fn match_errors(expected: &[Expected], problems: Vec<Problem>) -> Result<(), String> {
    let mut unmet: Vec<&Expected> = expected.iter().collect();
    let mut report = String::new();
    for Problem { line, message } in problems {
        let met = unmet.iter().position(|e| e.line == line && message.contains(&e.part));
        let place = line.map_or_else(|| "no line".to_owned(), |line| format!("line {line}"));
        match met {
            Some(at) => drop(unmet.remove(at)),
            None => {
                let _ = writeln!(report, "unexpected error ({place}): {message}");
            }
        }
    }
    for Expected { line, part } in unmet {
        let place = line.map_or_else(|| "no line".to_owned(), |line| format!("line {line}"));
        let _ = writeln!(report, "expected, but not found ({place}): {part}");
    }
    if report.is_empty() { Ok(()) } else { Err(report) }
}
