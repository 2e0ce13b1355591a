//! What was chosen of an e-graph.

use std::collections::BTreeMap;

use egg::Id;

use crate::rewrite::language::Term;

/// A term for every class that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(super) terms: BTreeMap<Id, Term>,
}

impl Selection {
    /// Whether a class is used.
    pub(crate) fn is_used(&self, class: Id) -> bool {
        self.terms.contains_key(&class)
    }

    /// The term of a class that is used.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn term(&self, class: Id) -> &Term {
        &self.terms[&class]
    }

    /// The terms.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (Id, &Term)> {
        self.terms.iter().map(|(&class, term)| (class, term))
    }
}
