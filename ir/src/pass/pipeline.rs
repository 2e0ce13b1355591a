//! Passes in order, and their text.

use std::fmt;
use std::sync::Arc;

use super::Pass;
use super::registry::PassOptions;

/// Passes in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    pub(super) passes: Vec<Arc<dyn Pass>>,
}

impl Pipeline {
    /// A pipeline of one pass.
    pub fn of(pass: impl Pass + 'static) -> Self {
        Self::default().then(pass)
    }

    /// This pipeline, and then a pass.
    pub fn then(mut self, pass: impl Pass + 'static) -> Self {
        self.passes.push(Arc::new(pass));
        self
    }

    /// This pipeline, and then another, such as one that [text](super::Registry::parse) names.
    pub fn and_then(mut self, other: Self) -> Self {
        self.passes.extend(other.passes);
        self
    }

    /// The passes in order.
    pub fn passes(&self) -> &[Arc<dyn Pass>] {
        &self.passes
    }

    /// The first passes of the pipeline, so many at most.
    pub fn first(&self, n: usize) -> Self {
        Self { passes: self.passes.iter().take(n).cloned().collect() }
    }

    /// The part of the pipeline from a pass on.
    pub fn from_pass(&self, at: usize) -> Self {
        Self { passes: self.passes.get(at..).unwrap_or_default().to_vec() }
    }
}

impl fmt::Display for Pipeline {
    /// The text that parses to this pipeline; options at their defaults are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pass) in self.passes.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", pass.info().name)?;
            let (options, defaults) = (pass.options(), PassOptions::defaults(pass.info()));
            let given: Vec<_> = (options.iter().zip(defaults.iter()))
                .filter(|(given, default)| given != default)
                .map(|((name, value), _)| format!("{name}={value}"))
                .collect();
            if !given.is_empty() {
                write!(f, "{{{}}}", given.join(","))?;
            }
        }
        Ok(())
    }
}
