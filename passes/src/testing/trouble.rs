//! What is wrong with a module, or with what passes make of it.

use std::fmt;

use strata_ir::diag::Diagnostics;
use strata_ir::expect::Found;
use strata_ir::pass::PassFailure;

/// Random inputs on which modules are evaluated before and after, and networks calibrated.
pub(super) const N_INPUTS: usize = 4;

/// What is wrong with a module, or with what passes make of it.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// What is wrong with the module, or not supported of it.
    Found(Vec<Found>),
    /// A pass panicked.
    Panicked(String),
    /// What is computed is something else than before.
    Miscompiled(String),
    /// Another check found something: the fault is of a pass, or of Strata.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(found) => {
                let messages: Vec<&str> = found.iter().map(|found| found.message.as_str()).collect();
                f.write_str(&messages.join("\n"))
            }
            Self::Panicked(what) | Self::Miscompiled(what) | Self::Broken(what) => f.write_str(what),
        }
    }
}

impl Trouble {
    pub(super) fn broken(what: impl fmt::Display) -> Self {
        Self::Broken(what.to_string())
    }
}

impl From<Diagnostics> for Trouble {
    fn from(all: Diagnostics) -> Self {
        Self::Found(all.0.iter().map(Found::of).collect())
    }
}

impl From<PassFailure> for Trouble {
    fn from(failure: PassFailure) -> Self {
        match failure {
            // The fault of a pass is never what a test expects.
            PassFailure::Panicked(_) => Self::Panicked(failure.to_string()),
            PassFailure::Miscompiled(_) => Self::Miscompiled(failure.to_string()),
            PassFailure::InvalidAfter(_) | PassFailure::FalseClaim => Self::broken(failure),
            other => Self::Found(Found::of_failure(&other)),
        }
    }
}
