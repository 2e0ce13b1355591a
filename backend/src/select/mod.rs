//! `form-stages`: from integer TOSA to the stages of the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | `selector` | op sequences to heads and tails |
//! | `buffers` | which values share storage; views; copies where aliasing is impossible |
//! | `shape`, `permute` | tensors of any rank as rows, columns and channels; chains of transposes |
//! | `by_sign` | choices by sign between two rescales, one tail of the machine |
//! | `upsample` | upsamples of sums, which TOSA has no resize for |
//! | [`graph`] | the [`StageGraph`](crate::model::StageGraph) read back from a module |
//! | [`check`] | an independent judge of the result |
//! | [`split`] | `split-channels`: stages whose tables are too large become several |
//! | [`narrow`] | slices of concatenations read the pieces that they meet |
//! | [`split_columns`] | stages of a plan that run in strips become several, by columns |
//! | [`made`] | which tensor of the network each stage makes |
//! | [`erase`] | `erase-wrappers`: any phase as plain TOSA |
//!
//! After the pass, `@main` holds `strata.stage` ops and, between them, ops that move nothing: `tosa.concat`
//! and `tosa.slice` as views, reshapes that the machine does not see. The operands of a stage are, one for
//! one, the views that its code reads; its region holds its TOSA ops with the constants that they use.
//!
//! It does not decide what runs together or where a buffer lives, and does not change arithmetic.

mod buffers;
mod by_sign;
pub mod check;
pub mod erase;
pub mod graph;
pub mod made;
pub mod narrow;
mod normalise;
mod permute;
mod selector;
mod shape;
pub mod split;
pub mod split_columns;
#[cfg(test)]
mod tests;
mod upsample;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::{Attribute, BlockId, Module, Op, OpId, Type, ValueId, dialect};
use strata_isa_spec::View;

use crate::model::StageTemplate;

pub use graph::{GraphError, stage_tables};

use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo};

use crate::model::Buffer;
use buffers::Shell;
use selector::{Draft, DraftCode, Source};

/// The row of [`FormStages`].
pub static FORM_STAGES: PassInfo = PassInfo {
    name: "form-stages",
    doc: "Selects what one hardware stage runs: a convolution, pool or move of data with the elementwise \
        ops that follow \
          it, residual additions among them. Concatenations and slices become views of shared buffers.",
    takes: &[Level::Quant],
    gives: Some(Level::Stages),
    options: &[],
    build: |_| Arc::new(FormStages),
};

/// Wraps what one hardware stage runs in `strata.stage` ops.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormStages;

impl Pass for FormStages {
    fn info(&self) -> &'static PassInfo {
        &FORM_STAGES
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let func = main_function(module)?;
        let block = module.entry_block(func);
        normalise::normalise(module, block);
        let selection = selector::select(module, block).map_err(PassError::Unsupported)?;
        let shells = wrap(module, block, &selection.drafts);
        let placed = buffers::place(module, block, shells);
        for (&op, code) in &placed.codes {
            set_code(module, op, code)?;
        }
        let buffers: Vec<&Buffer> = placed.buffers.values().collect();
        let attr = Attribute::from_serde(&buffers).map_err(PassError::other)?;
        module.op_mut(func).extra.insert(graph::BUFFERS.to_owned(), attr);
        context.count("stages", placed.codes.len() as u64);
        context.count("copies", placed.n_copies);
        context.count("buffers", placed.buffers.len() as u64);
        Level::Stages.mark(module);
        check::check(module, func).map_err(|problems| PassError::Invalid(list(&problems)))?;
        Ok(Changed::Yes)
    }
}

/// Problems as lines of text.
fn list<T: ToString>(problems: &[T]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The function that the machine runs.
pub(crate) fn main_function(module: &Module) -> Result<OpId, PassError> {
    module.function("main").ok_or_else(|| PassError::invalid("there is no function @main"))
}

/// Enters a stage's code.
fn set_code(module: &mut Module, stage: OpId, code: &StageTemplate) -> Result<(), PassError> {
    let attr = Attribute::from_serde(code).map_err(PassError::other)?;
    if let Op::Stage(row) = &mut module.op_mut(stage).op {
        row.code = attr;
    }
    Ok(())
}

/// Replaces the ops of the drafts by `strata.stage` ops; other ops stay.
fn wrap(module: &mut Module, block: BlockId, drafts: &[Draft]) -> BTreeMap<OpId, Shell> {
    let mut shells = BTreeMap::new();
    let mut made: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut dead: Vec<OpId> =
        drafts.iter().flat_map(|draft| draft.steps.iter().map(|step| step.op)).collect();
    dead.sort_unstable();
    dead.dedup();
    // Drafts are placed at their last ops, so that their operands stand before them.
    for draft in drafts {
        let (stage, shell) = build_stage(module, draft);
        made.insert(draft.result, module.result(stage));
        shells.insert(stage, shell);
    }
    module.replace_uses(&made);
    module.erase_where(block, |op| dead.binary_search(&op).is_ok());
    drop_unused_constants(module, block);
    shells
}

/// Builds a draft's stage before its last op.
fn build_stage(module: &mut Module, draft: &Draft) -> (OpId, Shell) {
    let anchor = draft.steps.last().expect("a draft has at least one op").op;
    let first = draft.steps[0].op;
    let name = stage_name(module, draft);
    let loc = module.op(first).loc.clone();
    let operands: Vec<ValueId> = draft.reads.iter().map(|read| read.value).collect();
    let types: Vec<Type> = operands.iter().map(|&value| module.ty(value).clone()).collect();
    let result = module.ty(draft.result).clone();
    let row = dialect::Stage { name, code: Attribute::Unit };
    let stage = module.insert_before(anchor, row, &operands, &[result], loc.clone());
    let region = module.add_region(stage);
    let body = module.add_block(region, &types);

    // Constants first, each once.
    let mut constants: BTreeMap<ValueId, (ValueId, i64)> = BTreeMap::new();
    let mut n_tensors = 0;
    let sources = draft.steps.iter().flat_map(|step| &step.operands);
    for source in sources {
        let Source::Const(value) = *source else { continue };
        if constants.contains_key(&value) {
            continue;
        }
        let elements = module.constant(value).expect("a constant source is a constant").clone();
        let const_loc = module.defining_op(value).map_or_else(|| loc.clone(), |op| module.op(op).loc.clone());
        let at = module.block_ops(body).len();
        let is_tensor = module.ty(value).as_tensor().is_some();
        constants.insert(value, (module.insert_const_at(body, at, elements, const_loc), n_tensors));
        n_tensors += i64::from(is_tensor);
    }
    let mut results: Vec<ValueId> = Vec::new();
    for step in &draft.steps {
        let operands: Vec<ValueId> = (step.operands.iter())
            .map(|source| match *source {
                Source::Read(index) => module.args(body)[index],
                Source::Step(index) => results[index],
                Source::Const(value) => constants[&value].0,
            })
            .collect();
        let data = module.op(step.op);
        let (row, step_loc) = (data.op.clone(), data.loc.clone());
        let ty = module.ty(module.result(step.op)).clone();
        let op = module.append(body, row, &operands, &[ty], step_loc);
        results.push(module.result(op));
    }
    let last = *results.last().expect("a draft has at least one op");
    module.append(body, dialect::Yield {}, &[last], &[], loc);
    if let Some(op) = module.defining_op(draft.result) {
        made::pass_on(module, op, stage);
    }
    let tables = draft.tables.iter().map(|table| constants[table].1).collect();
    module.op_mut(stage).extra.insert(graph::TABLES.to_owned(), Attribute::I64Array(tables));

    let code = DraftCode { head: draft.head, tail: draft.tail.clone(), out: View::default() };
    (stage, Shell { code, reads: draft.reads.iter().map(|read| read.dims).collect(), dims: draft.dims })
}

/// A stage is called by the first of its ops that has a name.
fn stage_name(module: &Module, draft: &Draft) -> String {
    let named = draft.steps.iter().find_map(|step| module.op(step.op).loc.name());
    let kind = module.op(draft.steps[0].op).op.name();
    named.map_or_else(|| kind.trim_start_matches("tosa.").to_owned(), str::to_owned)
}

/// Erases constants that nothing uses any more.
fn drop_unused_constants(module: &mut Module, block: BlockId) {
    let users = module.users(block);
    let unused: Vec<OpId> = (module.block_ops(block).iter().copied())
        .filter(|&op| module.op(op).op.is_constant() && users[module.result(op)].is_empty())
        .collect();
    module.erase_where(block, |op| unused.binary_search(&op).is_ok());
}
