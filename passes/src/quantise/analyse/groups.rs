//! Values that share a scale.

use std::collections::BTreeMap;

use strata_ir::ValueId;

use crate::quantise::QuantParams;
use crate::quantise::params::Range;

/// Disjoint sets of values, each with the union of their ranges and of all that was seen, or with fixed
/// parameters.
#[derive(Default)]
pub(super) struct Groups {
    parent: BTreeMap<ValueId, ValueId>,
    pub(super) range: BTreeMap<ValueId, Range>,
    pub(super) extreme: BTreeMap<ValueId, Range>,
    pub(super) fixed: BTreeMap<ValueId, QuantParams>,
}

impl Groups {
    pub(super) fn add(&mut self, value: ValueId) {
        self.parent.insert(value, value);
    }

    pub(super) fn root(&mut self, value: ValueId) -> Option<ValueId> {
        let mut root = *self.parent.get(&value)?;
        while self.parent[&root] != root {
            root = self.parent[&root];
        }
        self.parent.insert(value, root);
        Some(root)
    }

    pub(super) fn range(&mut self, value: ValueId) -> Option<Range> {
        let root = self.root(value)?;
        self.range.get(&root).copied()
    }

    pub(super) fn params(&mut self, value: ValueId) -> Option<QuantParams> {
        let root = self.root(value)?;
        self.fixed.get(&root).copied()
    }

    /// Widens the ranges of a value's set.
    pub(super) fn cover(&mut self, value: ValueId, range: Range, extreme: Range) {
        let Some(root) = self.root(value) else { return };
        for (ranges, new) in [(&mut self.range, range), (&mut self.extreme, extreme)] {
            let joint = ranges.get(&root).map_or(new, |own| own.union(new));
            ranges.insert(root, joint);
        }
    }

    pub(super) fn fix(&mut self, value: ValueId, params: QuantParams) {
        if let Some(root) = self.root(value) {
            self.fixed.insert(root, params);
        }
    }

    /// Joins two sets, unless they are fixed in different ways.
    pub(super) fn unite(&mut self, a: ValueId, b: ValueId) {
        let (Some(a), Some(b)) = (self.root(a), self.root(b)) else { return };
        let (fixed_a, fixed_b) = (self.fixed.get(&a).copied(), self.fixed.get(&b).copied());
        if a == b || (fixed_a.is_some() && fixed_b.is_some() && fixed_a != fixed_b) {
            return;
        }
        self.parent.insert(b, a);
        if let Some(params) = fixed_b {
            self.fixed.insert(a, params);
        }
        if let Some(range) = self.range.get(&b).copied() {
            self.cover(a, range, self.extreme[&b]);
        }
    }
}
