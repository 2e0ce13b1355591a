//! A pass of one's own: `merge-clamps`, which makes one clamp of two that follow each other.
//!
//! `tests/merge_clamps.rs` tests it from Rust, `tests/filetests/` in files, and `src/main.rs` is a `strata`
//! command that knows it.

use std::sync::Arc;

use strata_ir::dialect::{Clamp, NanMode, Op};
use strata_ir::pass::{
    Changed, Level, OptionInfo, OptionKind, Pass, PassContext, PassError, PassInfo, PassOptions,
};
use strata_ir::{Attribute, Module, OpId};

/// The pass `merge-clamps`.
pub static MERGE_CLAMPS: PassInfo = PassInfo {
    name: "merge-clamps",
    doc: "Merges a clamp of a clamp into one: clamp(clamp(x, a, b), c, d) is \
          clamp(x, clamp(a, c, d), clamp(b, c, d)).",
    takes: &[Level::Import, Level::Quant],
    gives: None,
    options: &[OptionInfo {
        name: "most",
        kind: OptionKind::Integer(0, i64::MAX),
        default: "1000000",
        doc: "Merges at most so many, to find the one that breaks something.",
    }],
    build: |options: &PassOptions| Arc::new(MergeClamps { most: options.integer("most") as u64 }),
};

/// Merges clamps in every function.
#[derive(Clone, Copy, Debug)]
pub struct MergeClamps {
    /// At most so many.
    pub most: u64,
}

impl Pass for MergeClamps {
    fn info(&self) -> &'static PassInfo {
        &MERGE_CLAMPS
    }

    fn options(&self) -> PassOptions {
        PassOptions::defaults(self.info()).with("most", self.most)
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let mut n_merged = 0;
        for func in module.functions() {
            // In order: of three clamps, the third finds the first two merged.
            for op in module.block_ops(module.entry_block(func)).to_vec() {
                if n_merged < self.most && merge(module, op).is_some() {
                    n_merged += 1;
                }
            }
        }
        context.count("merged", n_merged);
        Ok((n_merged > 0).into())
    }
}

/// Makes a clamp of a clamp one of what the first clamps; `None` if it is not such a one. The first stays,
/// for `canonicalise` to remove if nothing else reads it.
fn merge(module: &mut Module, second: OpId) -> Option<()> {
    let of_first = *module.op(second).operands().first()?;
    let first = module.defining_op(of_first)?;
    let (Op::Clamp(inner), Op::Clamp(outer)) = (&module.op(first).op, &module.op(second).op) else {
        return None;
    };
    // What ignores NaN gives a bound for it, and its follower never sees one.
    if inner.nan_mode != outer.nan_mode || inner.nan_mode != NanMode::Propagate {
        return None;
    }
    let merged = Clamp {
        min_val: clamped(&inner.min_val, outer)?,
        max_val: clamped(&inner.max_val, outer)?,
        nan_mode: NanMode::Propagate,
    };
    let input = *module.op(first).operands().first()?;
    module.op_mut(second).op = Op::Clamp(merged);
    module.set_operand(second, 0, input);
    Some(())
}

/// A bound as a clamp leaves it.
fn clamped(bound: &Attribute, by: &Clamp) -> Option<Attribute> {
    let (value, least, greatest) = (number(bound)?, number(&by.min_val)?, number(&by.max_val)?);
    let clamped = if value < least {
        &by.min_val
    } else if value > greatest {
        &by.max_val
    } else {
        bound
    };
    Some(clamped.clone())
}

fn number(bound: &Attribute) -> Option<f64> {
    match bound {
        Attribute::Float(value, _) => Some(*value),
        // Bounds have at most 16 bits.
        Attribute::Int(value, _) => Some(*value as f64),
        _ => None,
    }
}
