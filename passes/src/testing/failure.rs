//! What is wrong with a test.

use std::fmt;
use std::path::PathBuf;

use similar::TextDiff;
use strata_ir::expect::Mismatch;

/// One thing that is wrong with a test.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The test is none: what its header asks for cannot be done, or a file cannot be read.
    Malformed(String),
    /// Something is wrong with the module and not expected, or the other way round.
    Diagnostic(Mismatch),
    /// The output is another, or none is there to compare it with.
    Output(Box<OutputDiffers>),
    /// A check found something.
    Check(String),
}

/// An output that is not as expected.
#[derive(Clone, Debug)]
pub struct OutputDiffers {
    /// The file that says what is expected, or would.
    pub file: PathBuf,
    /// What is expected; `None` if nothing says so.
    pub expected: Option<String>,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) | Self::Check(what) => f.write_str(what),
            Self::Diagnostic(mismatch) => match mismatch.line() {
                Some(line) => write!(f, "line {line}: {mismatch}"),
                None => mismatch.fmt(f),
            },
            Self::Output(output) => output.fmt(f),
        }
    }
}

impl fmt::Display for OutputDiffers {
    /// The difference as a unified diff.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(expected) = &self.expected else {
            return write!(f, "{}: no output is expected yet, found:\n{}", self.file.display(), self.found);
        };
        let diff = TextDiff::from_lines(expected, &self.found);
        write!(f, "{}: another output:\n{}", self.file.display(), diff.unified_diff())
    }
}

/// All that is wrong with a test.
#[derive(Clone, Default)]
pub struct Failures(pub Vec<Failure>);

impl Failures {
    /// One test that is none.
    pub(super) fn malformed(what: impl fmt::Display) -> Self {
        Self(vec![Failure::Malformed(what.to_string())])
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, failure) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{failure}")?;
        }
        Ok(())
    }
}

/// As people read it: a test that ends with `unwrap` or `?` shows this.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failures {}
