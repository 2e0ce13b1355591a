//! Test files: which there are, what one gives, and what is expected of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use strata_ir::expect::mismatches;
use strata_ir::pass::Registry;
use strata_ir::text::file::{self, Header, RUN};

use super::failure::{Failure, Failures, OutputDiffers};
use super::header::{Action, Checks, Request};
use super::trouble::Trouble;

/// What the name of a file ends in that holds the output expected of the test beside it.
const EXPECTED: &str = "expected";

/// The line after which comments say what output is expected.
const OUTPUT: &str = "OUTPUT:";

/// Test files, and files of a folder that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// The tests, in the order of their paths.
    pub files: Vec<PathBuf>,
    /// `.mlir` and `.asm` files without a `RUN`, which are not tests.
    pub others: Vec<PathBuf>,
    /// Expected outputs whose test is gone.
    pub stale: Vec<PathBuf>,
}

/// A test, or a folder of tests, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct Unreadable {
    /// It.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl Unreadable {
    /// What makes one of what the system says of a path.
    fn of(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self { path: path.to_owned(), source }
    }
}

impl Tests {
    /// Those of a folder and the folders in it, or a file alone, which then has to be one.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn find(path: &Path) -> Result<Self, Unreadable> {
        let mut tests = Self::default();
        if fs::metadata(path).map_err(Unreadable::of(path))?.is_dir() {
            tests.add_folder(path)?;
        } else {
            tests.files.push(path.to_owned());
        }
        Ok(tests)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), Unreadable> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(Unreadable::of(folder))? {
            paths.push(entry.map_err(Unreadable::of(folder))?.path());
        }
        paths.sort();
        // Names that begin so are not for people, such as an editor's locks.
        let is_hidden =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        for path in paths.into_iter().filter(|path| !is_hidden(path)) {
            if path.is_dir() {
                // Links to folders may lead back here.
                if !path.is_symlink() {
                    self.add_folder(&path)?;
                }
            } else if let Some(marker) = marker_of(&path).filter(|_| path.is_file() || path.is_symlink()) {
                // A link that leads nowhere is told of, since it may have been a test.
                let bytes = fs::read(&path).map_err(Unreadable::of(&path))?;
                let is_test = Header::read(&String::from_utf8_lossy(&bytes), marker).get(RUN).is_some();
                if is_test { &mut self.files } else { &mut self.others }.push(path);
            } else if path.extension().is_some_and(|extension| extension == EXPECTED)
                && !path.with_extension("").exists()
            {
                self.stale.push(path);
            }
        }
        Ok(())
    }

    /// With other tests.
    pub fn extend(&mut self, other: Self) {
        self.files.extend(other.files);
        self.others.extend(other.others);
        self.stale.extend(other.stale);
    }
}

/// What begins a comment in a file, by its name; `None` if it can be no test.
fn marker_of(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "mlir" => Some("//"),
        "asm" => Some(";"),
        _ => None,
    }
}

/// How a test ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as expected.
    Passed,
    /// What it gives was another, and is what is expected from now on.
    Accepted,
}

/// Runs test files.
#[derive(Clone, Debug)]
pub struct FileTests {
    registry: Registry,
    accept: bool,
}

impl FileTests {
    /// Tests that know the passes of a registry.
    pub fn new(registry: Registry) -> Self {
        Self { registry, accept: false }
    }

    /// Whether what tests give is written as what is expected of them, instead of held against it.
    pub fn accepting(self, accept: bool) -> Self {
        Self { accept, ..self }
    }

    /// Runs a test.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn run(&self, path: &Path) -> Result<Outcome, Failures> {
        let source = fs::read_to_string(path).map_err(Failures::malformed)?;
        let marker = marker_of(path)
            .ok_or_else(|| Failures::malformed("not a test: expected a name that ends in .mlir or .asm"))?;
        let request = Request::read(&source, marker, &self.registry)
            .map_err(|problems| Failures(problems.into_iter().map(Failure::Malformed).collect()))?;
        if (marker == ";") != matches!(request.action, Action::Assemble) {
            return Err(Failures::malformed("assembly, and nothing else, is run by `assemble`"));
        }
        if let Some(line) = Inline::broken_at(&source, marker) {
            let what =
                format!("line {line}: comments alone follow `{marker} {OUTPUT}` up to the next module");
            return Err(Failures::malformed(what));
        }
        let given = Given::of(&request, &source, marker);
        if !given.failures.0.is_empty() {
            return Err(given.failures);
        }
        self.hold(path, &source, Inlined::of(path, &source, marker, given.outputs))
    }

    /// Holds outputs against what is expected of them, or accepts them.
    fn hold(&self, path: &Path, source: &str, inlined: Inlined) -> Result<Outcome, Failures> {
        let Inlined { mut differences, text, beside } = inlined;
        let file = expected_file(path);
        let expected = read_if_there(&file).map_err(Failures::malformed)?;
        let found = (!beside.is_empty()).then(|| file::join_modules(&beside));
        if expected != found {
            let found = found.clone().unwrap_or_default();
            differences.push(OutputDiffers { file: file.clone(), expected, found });
        }
        if differences.is_empty() {
            return Ok(Outcome::Passed);
        }
        if !self.accept {
            let failure = |difference| Failure::Output(Box::new(difference));
            return Err(Failures(differences.into_iter().map(failure).collect()));
        }
        let written = if text == source { Ok(()) } else { replace(path, &text) };
        let beside = match &found {
            Some(found) => replace(&file, found),
            None if file.exists() => fs::remove_file(&file),
            None => Ok(()),
        };
        written.and(beside).map_err(Failures::malformed)?;
        Ok(Outcome::Accepted)
    }
}

/// What outputs make of the texts of modules that say themselves what is expected of them.
struct Inlined {
    /// Where another output is expected.
    differences: Vec<OutputDiffers>,
    /// The file with the outputs found.
    text: String,
    /// The outputs of the other modules.
    beside: Vec<String>,
}

impl Inlined {
    fn of(path: &Path, source: &str, marker: &str, outputs: Vec<Option<String>>) -> Self {
        let (mut differences, mut texts, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        for (text, output) in file::split_modules(source).iter().zip(outputs) {
            let own = own_lines(text);
            let Some(inline) = Inline::of(own, marker) else {
                beside.extend(output);
                texts.push(own.to_owned());
                continue;
            };
            let found = output.unwrap_or_default();
            texts.push(inline.with(&found, marker));
            if inline.expected != found {
                let expected = Some(inline.expected);
                differences.push(OutputDiffers { file: path.to_owned(), expected, found });
            }
        }
        Self { differences, text: file::join_modules(&texts), beside }
    }
}

/// Writes a file beside its place, and then puts it there, with the rights of the one that it replaces. A
/// link stays one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let write = || {
        let mut file = fs::File::create_new(&beside)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        if let Ok(before) = fs::metadata(&path) {
            file.set_permissions(before.permissions())?;
        }
        fs::rename(&beside, &path)
    };
    let written = write();
    if written.is_err() {
        // There is nothing to be done about what cannot be removed.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The file beside a test that holds what is expected of it.
fn expected_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(EXPECTED);
    name.into()
}

fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.replace("\r\n", "\n"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of a module without the empty lines that stand for those before it.
fn own_lines(text: &str) -> &str {
    text.trim_start_matches('\n')
}

/// Comments that say what output is expected: the rest of the text from their first line on.
struct Inline<'a> {
    before: &'a str,
    expected: String,
}

impl<'a> Inline<'a> {
    /// The line, from 1, at which something else than the comments of an output follows it.
    fn broken_at(source: &str, marker: &str) -> Option<usize> {
        let mut is_output = false;
        for (index, line) in source.lines().enumerate() {
            let comment = line.strip_prefix(marker);
            if line.trim_end() == file::SEPARATOR {
                is_output = false;
            } else if line.trim().strip_prefix(marker).map(str::trim) == Some(OUTPUT) {
                if is_output || comment.is_none() {
                    return Some(index + 1);
                }
                is_output = true;
            } else if is_output && comment.is_none() && !line.trim().is_empty() {
                return Some(index + 1);
            }
        }
        None
    }

    fn of(text: &'a str, marker: &str) -> Option<Self> {
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            at += line.len();
            let comment = line.trim().strip_prefix(marker).map(str::trim);
            if comment != Some(OUTPUT) {
                continue;
            }
            let expected = text[at..].lines().filter_map(|line| line.strip_prefix(marker));
            let expected =
                expected.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
            return Some(Self { before: &text[..at], expected });
        }
        None
    }

    /// The text with another output.
    fn with(&self, output: &str, marker: &str) -> String {
        let comment = |line: &str| match line {
            "" => format!("{marker}\n"),
            line => format!("{marker} {line}\n"),
        };
        let newline = if self.before.ends_with('\n') { "" } else { "\n" };
        format!("{}{newline}{}", self.before, output.lines().map(comment).collect::<String>())
    }
}

/// What a file gives: an output a module, and all that is wrong.
struct Given {
    outputs: Vec<Option<String>>,
    failures: Failures,
}

impl Given {
    fn of(request: &Request, source: &str, marker: &str) -> Self {
        let mut given = Self { outputs: Vec::new(), failures: Failures::default() };
        for text in file::split_modules(source) {
            given.add(request, &text, marker);
        }
        given
    }

    fn add(&mut self, request: &Request, text: &str, marker: &str) {
        let failures = &mut self.failures.0;
        let (output, found) = match request.run(text) {
            Ok(output) => {
                if !matches!(request.run(text), Ok(again) if again == output) {
                    failures.push(Failure::Check("two runs give different outputs".to_owned()));
                }
                (output, Vec::new())
            }
            Err(Trouble::Found(found)) => (None, found),
            Err(broken) => {
                failures.push(Failure::Check(broken.to_string()));
                self.outputs.push(None);
                return;
            }
        };
        failures.extend(mismatches(text, marker, &found).into_iter().map(Failure::Diagnostic));
        self.outputs.push(output);
    }
}

/// Runs a pipeline on the text of a module with every check.
pub(super) fn run_text(registry: &Registry, pipeline: &str, text: &str) -> Result<String, Failures> {
    let pipeline = registry.parse(pipeline).map_err(Failures::malformed)?;
    let target = Header::read(text, "//").get(file::TARGET).map(super::target).transpose();
    let target = target.map_err(Failures::malformed)?;
    let request = Request { action: Action::Passes(pipeline), target, checks: Checks::ALL };
    let mut given = Given::of(&request, text, "//");
    match (given.outputs.pop().flatten(), given.outputs.len(), given.failures) {
        (Some(output), 0, failures) if failures.0.is_empty() => Ok(output),
        (_, 0, failures) => Err(failures),
        (_, n, _) => Err(Failures::malformed(format!("{} modules, expected one", n + 1))),
    }
}
