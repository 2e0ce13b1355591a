//! Whether two modules are the same but for ids, the names of resources and erased ops.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attr::{Attribute, Elements};
use crate::module::{BlockId, Module, OpId, ValueId};

/// The first op of `a` that `b` does not have alike, as a sentence; `None` if the modules are structurally
/// equal.
///
/// Floats are compared by their bits, and constants by their data whatever their resources are called.
pub fn difference(a: &Module, b: &Module) -> Option<String> {
    Compare { a, b, values: BTreeMap::new() }.op(a.top(), b.top()).err()
}

struct Compare<'m> {
    a: &'m Module,
    b: &'m Module,
    /// Values of `b` by those of `a`.
    values: BTreeMap<ValueId, ValueId>,
}

type Same = Result<(), String>;

impl Compare<'_> {
    fn op(&mut self, a: OpId, b: OpId) -> Same {
        let (x, y) = (self.a.op(a), self.b.op(b));
        let differ =
            |what: &str| Err(format!("`{}` ({a}) and `{}` ({b}) differ in {what}", x.op.name(), y.op.name()));
        if x.op.name() != y.op.name() {
            return differ("kind");
        }
        let (props, other_props) = (x.op.attrs(), y.op.attrs());
        if !props.iter().all(|(name, value)| other_props.get(name).is_some_and(|other| same(value, other))) {
            return differ("properties");
        }
        let keys_agree = x.extra.keys().eq(y.extra.keys());
        if !keys_agree || !x.extra.values().zip(y.extra.values()).all(|(v, w)| same(v, w)) {
            return differ("attributes");
        }
        if x.loc != y.loc {
            return differ("location");
        }
        let operands_agree = x.operands().len() == y.operands().len()
            && x.operands().iter().zip(y.operands()).all(|(v, w)| self.values.get(v) == Some(w));
        if !operands_agree {
            return differ("operands");
        }
        if !self.pair(x.results(), y.results()) {
            return differ("results");
        }
        if x.regions().len() != y.regions().len() {
            return differ("regions");
        }
        for (&r, &s) in x.regions().iter().zip(y.regions()) {
            let (blocks, others) = (self.a.region_blocks(r), self.b.region_blocks(s));
            if blocks.len() != others.len() {
                return differ("blocks");
            }
            for (&block, &other) in blocks.iter().zip(others) {
                self.block(block, other)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, a: BlockId, b: BlockId) -> Same {
        let (ops, others) = (self.a.block_ops(a), self.b.block_ops(b));
        if !self.pair(self.a.args(a), self.b.args(b)) {
            return Err(format!("blocks {a} and {b} differ in arguments"));
        }
        if ops.len() != others.len() {
            return Err(format!("blocks {a} and {b} hold {} and {} ops", ops.len(), others.len()));
        }
        ops.iter().zip(others).try_for_each(|(&op, &other)| self.op(op, other))
    }

    /// Makes values correspond, if their types agree.
    fn pair(&mut self, a: &[ValueId], b: &[ValueId]) -> bool {
        self.values.extend(a.iter().copied().zip(b.iter().copied()));
        a.len() == b.len() && a.iter().zip(b).all(|(&v, &w)| self.a.ty(v) == self.b.ty(w))
    }
}

fn same(a: &Attribute, b: &Attribute) -> bool {
    match (a, b) {
        (Attribute::Float(x, s), Attribute::Float(y, t)) => x.to_bits() == y.to_bits() && s == t,
        (Attribute::Elements(x), Attribute::Elements(y)) => same_elements(x, y),
        (Attribute::Array(x), Attribute::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w))
        }
        (Attribute::Dict(x), Attribute::Dict(y)) => {
            x.keys().eq(y.keys()) && x.values().zip(y.values()).all(|(v, w)| same(v, w))
        }
        _ => a == b,
    }
}

fn same_elements(a: &Elements, b: &Elements) -> bool {
    let is_same = || a.tensor.data().bytes() == b.tensor.data().bytes();
    Arc::ptr_eq(&a.tensor, &b.tensor) || a.tensor.ty() == b.tensor.ty() && is_same()
}
