//! Passes: what a pass is, how a registry lists them, how a textual pipeline names them, and the driver that
//! runs them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`level`] | the named levels of the IR |
//! | [`registry`] | what passes declare of themselves, and the registry that lists them |
//! | [`pipeline`] | passes in order, and their text: `name{key=value,…},name,…` |
//! | [`parse`] | the parser of that text |
//! | [`driver`] | runs a pipeline: verifies, times, checks claims, catches panics, writes reproducers |
//! | [`compare`](mod@compare) | whether a pass kept the module's results, by evaluating it before and after |
//!
//! The contract of a pass in one sentence: given a module that verifies at a level the pass takes, it leaves
//! a module that verifies at the level it gives, and says truthfully whether it changed anything. Passes do
//! no IO, hold no state between runs and never read the clock; the driver's times are for reports only and
//! decide nothing.

pub mod compare;
pub mod driver;
pub mod level;
pub mod parse;
pub mod pipeline;
pub mod registry;

pub use driver::{DriverOptions, PassFailure, PassReport, PipelineFailure, Progress, Reproducer, run};
pub use level::Level;
pub use parse::PipelineError;
pub use pipeline::Pipeline;
pub use registry::{OptionInfo, OptionKind, PassInfo, PassOptions, Registry};

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;

use crate::{Module, OpId};

/// Whether a pass changed the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It may print differently now.
    Yes,
    /// It prints as it did before.
    No,
}

impl Changed {
    /// Whether the module changed.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

impl std::ops::BitOr for Changed {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        (self.is_yes() || other.is_yes()).into()
    }
}

/// A transformation of a module, with its options.
pub trait Pass: fmt::Debug + Send + Sync {
    /// What it declares of itself: name, doc, options and levels.
    fn info(&self) -> &'static PassInfo;

    /// Its options as text, from which [`PassInfo::build`] makes an equal pass.
    fn options(&self) -> PassOptions {
        PassOptions::defaults(self.info())
    }

    /// Transforms `module`, taking what else it needs (a calibration, a target) from `context` and leaving
    /// there what is not part of the IR (reports, plans).
    ///
    /// # Errors
    /// If the module holds something that the pass cannot handle. The module is then in no particular state.
    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError>;
}

/// What passes need beside the IR and what they leave beside it: at most one value of each type, and
/// counters.
#[derive(Default)]
pub struct PassContext {
    values: BTreeMap<TypeId, Box<dyn Any + Send + Sync>>,
    counters: BTreeMap<&'static str, u64>,
}

impl PassContext {
    /// An empty context.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value in, in place of the one of that type.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        self.values.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// The value of type `T`, if there is one.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.values.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The value of type `T`.
    ///
    /// # Errors
    /// [`PassError::Missing`] if there is none; `what` says what a caller should have provided.
    pub fn require<T: Any + Send + Sync>(&self, what: &str) -> Result<&T, PassError> {
        self.get().ok_or_else(|| PassError::Missing(what.to_owned()))
    }

    /// Takes the value of type `T` out.
    pub fn take<T: Any + Send + Sync>(&mut self) -> Option<T> {
        self.values.remove(&TypeId::of::<T>())?.downcast().ok().map(|value| *value)
    }

    /// Adds `n` to a counter of the pass that runs now; the driver reports it.
    pub fn count(&mut self, counter: &'static str, n: u64) {
        *self.counters.entry(counter).or_default() += n;
    }

    /// Gives up the counters of the pass that ran last.
    pub(crate) fn take_counters(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.counters)
    }
}

impl fmt::Debug for PassContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassContext")
            .field("n_values", &self.values.len())
            .field("counters", &self.counters)
            .finish()
    }
}

/// One operation that a pass cannot handle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnsupportedOp {
    /// The name of the layer it came from, if known.
    pub node: String,
    /// The operation, such as `tosa.erf`.
    pub op: &'static str,
    /// Why, and what would be needed.
    pub reason: String,
    /// The line of its location: for an imported model, the index of the ONNX node that it came from.
    pub line: Option<u32>,
}

impl UnsupportedOp {
    /// The report of one op of `module`.
    pub fn new(module: &Module, op: OpId, reason: impl Into<String>) -> Self {
        let data = module.op(op);
        let node = data.loc.name().unwrap_or("(unnamed)").to_owned();
        let line = data.loc.file().map(|(_, line, _)| line);
        Self { node, op: data.op.name(), reason: reason.into(), line }
    }
}

impl fmt::Display for UnsupportedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.op, self.reason)
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A valid model that Strata does not support; every operation that stands in the way.
    #[error("{} operation(s) are not supported:{}", .0.len(), list(.0))]
    Unsupported(Vec<UnsupportedOp>),
    /// The caller did not provide what the pass needs.
    #[error("needs {0}")]
    Missing(String),
    /// The module is not what the pass was promised.
    #[error("the module is not as expected:{}", list(.0))]
    Invalid(Vec<String>),
    /// A failure with its own error type.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl PassError {
    /// Wraps an error of a pass's own.
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    /// One thing that is not as promised.
    pub fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid(vec![problem.into()])
    }
}

/// The items of an error, one a line.
fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
