//! Why a command ends with another exit code than 0.

use std::fmt;

use strata_ir::pass::PipelineError;
use strata_isa_spec::bundle::BundleError;
use strata_isa_spec::target::TargetError;

use crate::compare::CompareError;
use crate::compile::CompileError;
use crate::dump::DumpError;
use crate::io::batch::BatchError;
use crate::io::{self, IoError};
use crate::session::RunError;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The input or the compile failed.
    Failed(String),
    /// The command line asks for what makes no sense.
    Usage(String),
    /// A valid model that Strata does not support.
    Unsupported(String),
    /// Two files differ, and the exit code was to tell.
    Differs,
    /// Nobody reads what is printed any more: no failure of ours.
    ClosedPipe,
}

impl Failure {
    /// A failed input or compile.
    pub(super) fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    /// A failed input or compile, about a file.
    pub(super) fn file(path: &std::path::Path, what: impl fmt::Display) -> Self {
        Self::Failed(format!("{}: {what}", io::shown(path)))
    }

    /// The same failure, told of a file unless the usage was wrong.
    pub(super) fn about(self, path: &std::path::Path) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(format!("{}: {text}", io::shown(path))),
            Self::Unsupported(text) => Self::Unsupported(format!("{}: {text}", io::shown(path))),
            other => other,
        }
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unsupported(_) => 3,
            Self::Differs => 4,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Unsupported(text) => f.write_str(text),
            Self::Differs => f.write_str("the two differ"),
            Self::ClosedPipe => f.write_str("the reader of the output has gone"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        if error.is_unsupported() { Self::Unsupported(error.to_string()) } else { Self::failed(error) }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Unknown { .. } | TargetError::BadOverride { .. } => Self::Usage(error.to_string()),
            TargetError::Malformed { .. } | TargetError::Impossible { .. } => Self::failed(error),
        }
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        Self::Usage(format!("--passes: {error}"))
    }
}

macro_rules! failed {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::failed(error)
            }
        })+
    };
}
failed!(IoError, RunError, BundleError, DumpError, BatchError, CompareError);
