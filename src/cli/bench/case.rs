//! The graphs that `strata bench planner` plans, as its command line names them.

use std::path::PathBuf;

use super::subject::{Size, Subject};
use super::synthetic;
use crate::cli::args::parse_size;
use crate::cli::console::Progress;
use crate::cli::failure::Failure;

/// A graph to plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// A chain of convolutions.
    Chain(usize),
    /// A random graph.
    Random(usize),
    /// A network of the zoo.
    Zoo(String, Size),
    /// A file.
    File(PathBuf),
}

/// Convolutions that a synthetic graph may have.
const MOST_CONVOLUTIONS: usize = 100_000;

pub(super) fn parse_case(text: &str) -> Result<Case, String> {
    let count = |n: &str| n.parse().ok().filter(|n| (1..=MOST_CONVOLUTIONS).contains(n));
    let case = match (text.split_once(':'), text.split_once('@')) {
        (Some(("chain", n)), _) => count(n).map(Case::Chain),
        (Some(("random", n)), _) => count(n).map(Case::Random),
        (None, Some((name, size))) => parse_size(size).ok().map(|size| Case::Zoo(name.to_owned(), size)),
        _ => None,
    };
    case.ok_or_else(|| {
        format!("expected chain:N, random:N (N up to {MOST_CONVOLUTIONS}), or NETWORK@WIDTHxHEIGHT")
    })
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain(n) => write!(f, "chain:{n}"),
            Self::Random(n) => write!(f, "random:{n}"),
            Self::Zoo(name, (width, height)) => write!(f, "{name}@{width}x{height}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The subject of a case.
pub(super) fn subject(case: &Case, progress: &Progress<'_>) -> Result<Subject, Failure> {
    match case {
        Case::Chain(n) => Subject::module(case.to_string(), synthetic::chain(*n)?, progress),
        Case::Random(n) => Subject::module(case.to_string(), synthetic::random(*n, 1)?, progress),
        Case::Zoo(name, size) => Subject::zoo(name, *size, progress),
        Case::File(path) => Subject::file(path, progress),
    }
}
