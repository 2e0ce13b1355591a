//! `erase-wrappers`: a module of any level as plain TOSA.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo};
use strata_ir::{BlockId, Module, Op, OpId, ValueId};

/// The row of [`EraseWrappers`].
pub static ERASE_WRAPPERS: PassInfo = PassInfo {
    name: "erase-wrappers",
    doc: "Puts the TOSA ops of stages and phases back into their function, so that any TOSA tool can run it.",
    takes: &[Level::Quant, Level::Stages, Level::Phases, Level::Sched],
    gives: Some(Level::Quant),
    options: &[],
    build: |_| Arc::new(EraseWrappers),
};

/// Erases `strata.stage` and `strata.phase` ops and every attribute of the levels after `quant`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EraseWrappers;

impl Pass for EraseWrappers {
    fn info(&self) -> &'static PassInfo {
        &ERASE_WRAPPERS
    }

    fn run(&self, module: &mut Module, _: &mut PassContext) -> Result<Changed, PassError> {
        if Level::of(module) <= Level::Quant {
            return Ok(Changed::No);
        }
        for func in module.functions() {
            let block = module.entry_block(func);
            erase_wrappers(module, block);
            // External names, scales and layouts are the function's own; all else describes the wrappers.
            module.op_mut(func).extra.retain(|name, _| !name.starts_with("strata."));
        }
        Level::Quant.mark(module);
        Ok(Changed::Yes)
    }
}

/// Moves the ops of all wrappers of a block into the block.
fn erase_wrappers(module: &mut Module, block: BlockId) {
    let mut order = Vec::new();
    let mut alias = BTreeMap::new();
    let mut wrappers = Vec::new();
    flatten(module, block, &mut order, &mut alias, &mut wrappers);
    wrappers.sort_unstable();
    for &op in &order {
        module.move_to_end(op, block);
    }
    module.replace_uses(&alias);
    module.erase_where(block, |op| wrappers.binary_search(&op).is_ok());
}

/// Lists the ops of a block in order, those in wrappers in place of these, and what stands for which value.
fn flatten(
    module: &Module,
    block: BlockId,
    order: &mut Vec<OpId>,
    alias: &mut BTreeMap<ValueId, ValueId>,
    wrappers: &mut Vec<OpId>,
) {
    for &op in module.block_ops(block) {
        let data = module.op(op);
        if !matches!(data.op, Op::Stage(_) | Op::Phase(_)) {
            order.push(op);
            continue;
        }
        wrappers.push(op);
        let body = module.entry_block(op);
        alias.extend(module.args(body).iter().copied().zip(data.operands().iter().copied()));
        let from = order.len();
        flatten(module, body, order, alias, wrappers);
        // The terminator of the body is the last that was listed.
        if let Some(end) = order.get(from..).and_then(<[_]>::last).copied() {
            order.pop();
            alias.extend(data.results().iter().copied().zip(module.op(end).operands().iter().copied()));
        }
    }
}
