//! Compiles a model for many sizes of activation SRAM, from the least in which it runs, and every objective;
//! finds what no compile should end in.
//!
//! ```text
//! cargo run --release --example memory -- model.onnx --input-shape x=1x3x320x320 --sizes 12 --seconds 60
//! ```
//!
//! A compile either succeeds, and verifies, or says that the target is too small. Where it names sizes that
//! would do, a compile for these sizes succeeds. No refinement of a plan is one that the judge of plans
//! refuses. Prints a line for everything that is otherwise, then a line of what was compiled; exits with 1 if
//! anything is.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use strata::{CompileError, CompileOptions, Compiler, Mode, Objective, Prepared, Target};

const USAGE: &str = "\
usage: memory MODEL.onnx [--input-shape NAME=1x3x32x32]... [--target NAME] [--sizes N] [--only BYTES]...
    [--seconds S]

  --target NAME    the preset whose activation SRAM is replaced (default x1)
  --sizes N        sizes from the least on, each a third more than the one before (default 12)
  --only BYTES     this size and no others; may be repeated
  --seconds S      begin no compile after so many seconds (default: no limit)";

/// The size from which the least that works is looked for.
const FIRST_BYTES: u64 = 1024;

/// Times that sizes may be named that do not do yet: a part of a model that goes before another is told of
/// first.
const MOST_HINTS: usize = 8;

/// What is asked for: one phase a layer, and several layers for every objective.
const AIMS: [(Mode, Objective); 6] = [
    (Mode::Single, Objective::Latency),
    (Mode::Multi, Objective::Latency),
    (Mode::Multi, Objective::Traffic),
    (Mode::Multi, Objective::Energy),
    (Mode::Multi, Objective::Edp),
    (Mode::Multi, Objective::Sram),
];

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    model: String,
    input_shapes: BTreeMap<String, Vec<usize>>,
    target: String,
    sizes: u32,
    only: Vec<u64>,
    seconds: Option<u64>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            model: String::new(),
            input_shapes: BTreeMap::new(),
            target: "x1".to_owned(),
            sizes: 12,
            only: Vec::new(),
            seconds: None,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--input-shape" => {
                    let given = words.next()?;
                    let (name, shape) = given.rsplit_once('=')?;
                    let shape = shape.split('x').map(|extent| extent.parse().ok()).collect::<Option<_>>()?;
                    options.input_shapes.insert(name.to_owned(), shape);
                }
                "--target" => options.target = words.next()?,
                "--sizes" => options.sizes = words.next()?.parse().ok()?,
                "--only" => options.only.push(words.next()?.parse().ok()?),
                "--seconds" => options.seconds = Some(words.next()?.parse().ok()?),
                flag if flag.starts_with("--") => return None,
                _ if options.model.is_empty() => options.model = word,
                _ => return None,
            }
        }
        (!options.model.is_empty()).then_some(options)
    }
}

/// What came of a compile.
#[derive(Debug)]
enum Outcome {
    /// There is a program, which verifies.
    Done,
    /// The target is too small; the largest size that is said to do, if one is.
    TooSmall(Option<u64>, String),
    /// What should not be.
    Wrong(String),
}

/// A model for many sizes of memory.
#[derive(Debug)]
struct Sweep {
    prepared: Prepared,
    target: Target,
    until: Option<Instant>,
    n_compiled: usize,
    n_too_small: usize,
    problems: Vec<String>,
}

impl Sweep {
    fn new(options: &Options) -> Result<Self, Box<dyn std::error::Error>> {
        let target = Target::preset(&options.target, &[])?;
        let until = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let compile = CompileOptions {
            input_shapes: options.input_shapes.clone(),
            measure_sqnr: false,
            ..CompileOptions::new(target.clone())
        };
        let bytes = std::fs::read(&options.model)?;
        let prepared = Compiler::new(compile).prepare(&bytes, &options.model, &mut |_| {})?;
        Ok(Self { prepared, target, until, n_compiled: 0, n_too_small: 0, problems: Vec::new() })
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    /// Compiles for a size and an aim, and notes what is wrong.
    fn compile(&mut self, bytes: u64, (mode, objective): (Mode, Objective)) -> Outcome {
        let mut target = self.target.clone();
        target.memory.activation = bytes;
        let compiled = self.prepared.on(target).and_then(|on| on.finish(mode, objective, &mut |_| {}));
        self.n_compiled += 1;
        let outcome = match compiled {
            Ok(compiled) if compiled.stats.plan.refused.is_empty() => Outcome::Done,
            Ok(compiled) => Outcome::Wrong(format!("refused: {}", compiled.stats.plan.refused.join("; "))),
            Err(error) if error.is_capacity_error() => Outcome::TooSmall(would_do(&error), error.to_string()),
            Err(error) => Outcome::Wrong(error.to_string()),
        };
        match &outcome {
            Outcome::Done => {}
            Outcome::TooSmall(..) => self.n_too_small += 1,
            Outcome::Wrong(text) => {
                let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                self.problems.push(format!("{bytes} bytes, {mode:?} {objective:?}: {text}"));
            }
        }
        outcome
    }

    /// The least size in which the model runs, by what compiles say would do.
    fn least(&mut self) -> Option<u64> {
        let mut bytes = FIRST_BYTES;
        for _ in 0..MOST_HINTS {
            match self.compile(bytes, AIMS[1]) {
                Outcome::Done | Outcome::Wrong(_) => return Some(bytes),
                Outcome::TooSmall(Some(more), _) if more > bytes => bytes = more,
                Outcome::TooSmall(_, text) => {
                    self.problems.push(format!("{bytes} bytes were said to do: {text}"));
                    return None;
                }
            }
        }
        self.problems.push(format!("{bytes} bytes were said to do, and do not"));
        None
    }

    /// Compiles for every size and aim; whether the first size was said to do, whatever is aimed at.
    fn all(&mut self, sizes: &[u64], first_does: bool) {
        for (at, &bytes) in sizes.iter().enumerate() {
            for aim in AIMS {
                if self.is_late() {
                    return;
                }
                let outcome = self.compile(bytes, aim);
                if let (Outcome::TooSmall(_, text), true, 0) = (outcome, first_does, at) {
                    self.problems.push(format!("{bytes} bytes were said to do, {aim:?}: {text}"));
                }
            }
        }
    }
}

/// The largest size of activation SRAM that an error says would do.
fn would_do(error: &CompileError) -> Option<u64> {
    let of_activation = |(field, bytes): (&'static str, u64)| (field == "memory.activation").then_some(bytes);
    error.would_do().into_iter().filter_map(of_activation).max()
}

/// Sizes from the least on, each a third more than the one before, in steps of 16 bytes.
fn sizes_from(least: u64, n: u32) -> Vec<u64> {
    let next = |bytes: &u64| Some((bytes + bytes / 3).next_multiple_of(16));
    std::iter::successors(Some(least), next).take(n as usize).collect()
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut sweep = match Sweep::new(&options) {
        Ok(sweep) => sweep,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let sizes = match options.only.as_slice() {
        [] => sweep.least().map(|least| sizes_from(least, options.sizes)).unwrap_or_default(),
        only => only.to_vec(),
    };
    sweep.all(&sizes, options.only.is_empty());
    for problem in &sweep.problems {
        println!("{problem}");
    }
    let (n, too_small) = (sweep.n_compiled, sweep.n_too_small);
    println!("{n} compiles, {too_small} of them for too little SRAM, {} problems", sweep.problems.len());
    ExitCode::from(u8::from(!sweep.problems.is_empty()))
}
