//! `strata test`: files that test passes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use strata_ir::pass::Registry;
use strata_passes::testing::{Failure as TestFailure, Failures, FileTests, Outcome, Tests};

use super::console::Console;
use super::failure::Failure;
use crate::diff::text;
use crate::io;

/// Run file tests: modules with the passes to run on them and what comes of it
///
/// A test is a .mlir file that begins with `// RUN: PIPELINE`, or a .asm file with `; RUN: assemble`. What it
/// gives is compared with the file of its name and `.expected`, or with the comments after `// OUTPUT:` in
/// it; what is wrong with a module has to be expected by comments such as `// expected-error@below {{text}}`.
/// `// TARGET: x1 memory.activation=64KiB` names the machine; `// CHECKS: round-trip results program` which
/// checks are made besides, or `none`: all, if it says nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tests, and folders with tests
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Accept what the tests give as what is expected from now on
    #[arg(long)]
    bless: bool,
    /// Only tests with this in their path
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, registry: &Registry, console: &Console) -> Result<(), Failure> {
    let mut tests = Tests::default();
    for path in &args.paths {
        tests.extend(Tests::find(path).map_err(|error| Failure::file(&error.path, &error.source))?);
    }
    // A test that is named twice runs once: it may be accepted.
    let mut seen = BTreeSet::new();
    tests.files.retain(|path| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    let n_all = tests.files.len();
    if let Some(text) = &args.filter {
        tests.files.retain(|path| path.to_string_lossy().contains(text.as_str()));
    }
    if tests.files.is_empty() {
        return Err(Failure::Failed(match (&args.filter, n_all) {
            (Some(text), 1..) => format!("none of {n_all} tests has `{text}` in its path"),
            _ => "there are no tests: expected .mlir files that begin with `// RUN: PIPELINE`".to_owned(),
        }));
    }
    let runner = FileTests::new(registry.clone()).accepting(args.bless);
    let ran: Vec<_> = tests.files.par_iter().map(|path| (path, runner.run(path))).collect();
    // What the filter leaves out is nothing to tell of.
    let n_others = if args.filter.is_none() { tests.others.len() } else { 0 };
    let mut tally = Tally { n_others, ..Tally::default() };
    for (path, outcome) in &ran {
        tally.add(path, outcome, console);
    }
    let stale = if args.filter.is_none() { tests.stale } else { Vec::new() };
    for path in &stale {
        console.show(&format!("stale: {}: there is no test of this name\n", io::shown(path)));
    }
    console.summary(&tally.text(stale.len()))?;
    match (tally.n_failed, stale.len()) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::Failed(format!("{n} expected outputs without a test"))),
        (n, _) => Err(Failure::Failed(format!("{n} of {} tests failed", ran.len()))),
    }
}

/// How many tests ended how.
#[derive(Default)]
struct Tally {
    n_passed: usize,
    n_accepted: usize,
    n_failed: usize,
    n_others: usize,
}

impl Tally {
    /// Adds a test, and shows it unless it passed.
    fn add(&mut self, path: &Path, outcome: &Result<Outcome, Failures>, console: &Console) {
        match outcome {
            Ok(Outcome::Passed) => self.n_passed += 1,
            Ok(Outcome::Accepted) => {
                self.n_accepted += 1;
                console.show(&format!("accepted: {}\n", io::shown(path)));
            }
            Err(Failures(failures)) => {
                self.n_failed += 1;
                console.show(&format!("failed: {}\n", io::shown(path)));
                for failure in failures {
                    console.show(&shown(failure, console.colour()));
                }
            }
        }
    }

    fn text(&self, n_stale: usize) -> String {
        let counts = [
            (self.n_passed, "passed"),
            (self.n_accepted, "accepted"),
            (self.n_failed, "failed"),
            (n_stale, "stale"),
            (self.n_others, "files without a RUN"),
        ];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        format!("{}\n", counts.join(", "))
    }
}

/// What is wrong with a test, a few blanks from the margin.
fn shown(failure: &TestFailure, colour: bool) -> String {
    let text = match failure {
        TestFailure::Output(output) => match &output.expected {
            Some(expected) => {
                let lines = text::lines(expected, &output.found, colour);
                format!("another output than in {} (- expected, + found):\n{lines}", io::shown(&output.file))
            }
            None => format!("no output is expected yet; --bless accepts this one:\n{}", output.found),
        },
        other => other.to_string(),
    };
    text.lines().map(|line| format!("  {line}\n")).collect()
}
