//! Cleans a TOSA function without changing what it computes: `canonicalise`.
//!
//! One pass over the ops in order, then a removal of dead ops:
//!
//! - an op of constants becomes a constant (unless the result is large and was not before);
//! - equal small constants become one;
//! - `identity`, a reshape, slice, transpose, pad or tile that changes nothing, and a concatenation of one go
//!   away;
//! - a reshape of a reshape, and a transpose of a transpose, become one;
//! - a sum over tensors that are stacked along an axis of their own becomes additions.
//!
//! Every rule looks at values defined earlier, which are in their final form already, so one pass reaches the
//! fixpoint of these rules. It does not reorder sums or touch ops within `strata` regions, nor the import of
//! a model that comes quantised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_ir::dialect::{Add, Reshape, Transpose};
use strata_ir::fold::fold;
use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo, PassOptions};
use strata_ir::{BlockId, ElemType, Module, Op, OpId, Tensor, TensorData, TensorType, Type, ValueId};

use crate::quantise::given_scales;

/// Constants of more elements than this are not made from smaller ones.
const LARGE: usize = 1 << 16;
/// Constants of up to this many elements are merged when equal.
const SMALL: usize = 64;

/// The pass `canonicalise`.
pub static CANONICALISE: PassInfo = PassInfo {
    name: "canonicalise",
    doc: "Folds constants and removes what changes nothing: identities, chains of reshapes and transposes, \
        sums over stacks, dead ops. Leaves the import of a model that comes quantised as it is.",
    takes: &[Level::Import, Level::Quant],
    gives: None,
    options: &[],
    build: |_: &PassOptions| Arc::new(Canonicalise),
};

/// Canonicalises every function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Canonicalise;

impl Pass for Canonicalise {
    fn info(&self) -> &'static PassInfo {
        &CANONICALISE
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let (mut replaced, mut erased) = (0, 0);
        let is_quantised = Level::of(module) == Level::Import && comes_quantised(module);
        let funcs = if is_quantised { Vec::new() } else { module.functions() };
        for func in funcs {
            let block = module.entry_block(func);
            replaced += simplify(module, block);
            erased += eliminate_dead(module, block);
        }
        context.count("replaced", replaced);
        context.count("erased", erased);
        Ok((replaced + erased > 0).into())
    }
}

/// Whether an import is of a model that comes quantised. What its integers stand for is said by ops of
/// constants, which `quantise` reads: without them it chose scales of its own, and plans of five such models
/// moved up to 3 % more bytes.
fn comes_quantised(module: &Module) -> bool {
    let given = given_scales(module);
    given.n_fixed + given.n_dynamic > 0
}

/// Applies the rules to the ops of a block in order; returns how often one applied.
fn simplify(module: &mut Module, block: BlockId) -> u64 {
    let mut n = 0;
    let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut constants = Constants::new();
    for op in module.block_ops(block).to_vec() {
        let operands: Vec<ValueId> =
            module.op(op).operands().iter().map(|v| replaced.get(v).copied().unwrap_or(*v)).collect();
        module.set_operands(op, &operands);
        if module.op(op).op.is_terminator() || module.op(op).results().len() != 1 {
            continue;
        }
        let result = module.result(op);
        let instead = match known_constant(module, op, &constants) {
            Known::Same(value) => Some(value),
            Known::New(tensor) => {
                let loc = module.op(op).loc.clone();
                Some(module.insert_const_before(op, tensor, loc))
            }
            Known::Unknown => {
                n += u64::from(shorten(module, op));
                bypass(module, op).or_else(|| added(module, op))
            }
        };
        match instead {
            Some(value) => {
                n += 1;
                replaced.insert(result, value);
                note_constant(module, value, &mut constants);
            }
            None => note_constant(module, result, &mut constants),
        }
    }
    n
}

/// Small constants by type and bytes: numbers that compare equal, such as 0 and -0, are not the same
/// constant.
type Constants = BTreeMap<(Type, Vec<u8>), ValueId>;

fn constant_key(module: &Module, value: ValueId) -> Option<(Type, Vec<u8>)> {
    let tensor = &module.constant(value)?.tensor;
    (tensor.n_elements() <= SMALL).then(|| (module.ty(value).clone(), tensor.data().to_bytes()))
}

fn note_constant(module: &Module, value: ValueId, constants: &mut Constants) {
    if let Some(key) = constant_key(module, value) {
        constants.entry(key).or_insert(value);
    }
}

/// What constant an op is.
enum Known {
    Same(ValueId),
    New(Tensor),
    Unknown,
}

fn known_constant(module: &Module, op: OpId, constants: &Constants) -> Known {
    let data = module.op(op);
    let result = module.result(op);
    if data.op.is_constant() {
        let same = constant_key(module, result).and_then(|key| constants.get(&key));
        return same.map_or(Known::Unknown, |value| Known::Same(*value));
    }
    let n_elements = |value: &ValueId| module.ty(*value).as_tensor().map_or(0, TensorType::n_elements);
    let before = data.operands().iter().map(n_elements).max().unwrap_or(0);
    let after = n_elements(&result);
    if after > LARGE && after > before {
        return Known::Unknown;
    }
    let constant = |value| module.constant(value).map(|elements| &*elements.tensor);
    fold(module, op, constant).map_or(Known::Unknown, Known::New)
}

/// The operand that an op only passes on.
fn bypass(module: &Module, op: OpId) -> Option<ValueId> {
    let data = module.op(op);
    let input = *data.operands().first()?;
    let same_type = module.ty(input) == module.ty(module.result(op));
    let passes_on = match &data.op {
        Op::Identity(_) => true,
        Op::Concat(_) => data.operands().len() == 1,
        // With the type unchanged there is nothing left out, added or repeated.
        Op::Reshape(_) | Op::Slice(_) | Op::Pad(_) | Op::Tile(_) => same_type,
        Op::Transpose(op) => is_identity(&op.perms),
        _ => false,
    };
    (passes_on && same_type).then_some(input)
}

fn is_identity(perms: &[i32]) -> bool {
    perms.iter().enumerate().all(|(axis, &from)| from as usize == axis)
}

/// Makes a reshape of a reshape, or a transpose of a transpose, read the first's input; tells whether it did.
fn shorten(module: &mut Module, op: OpId) -> bool {
    let Some(&input) = module.op(op).operands().first() else { return false };
    let Some(producer) = module.defining_op(input) else { return false };
    let Some(&source) = module.op(producer).operands().first() else { return false };
    let perms = match (&module.op(producer).op, &module.op(op).op) {
        (Op::Reshape(_), Op::Reshape(_)) => None,
        (Op::Transpose(first), Op::Transpose(second)) => {
            let composed = second.perms.iter().map(|&axis| first.perms.get(axis as usize).copied());
            let Some(perms) = composed.collect::<Option<Vec<_>>>() else { return false };
            Some(perms)
        }
        _ => return false,
    };
    module.set_operand(op, 0, source);
    if let Some(perms) = perms {
        module.op_mut(op).op = Transpose { perms }.into();
    }
    true
}

/// What a sum in f32 over stacked tensors is by additions: exporters write so what is a sum of several terms
/// in Python, and no machine joins tensors along an axis of rows only to add them.
fn added(module: &mut Module, op: OpId) -> Option<ValueId> {
    let Op::ReduceSum(sum) = &module.op(op).op else { return None };
    let axis = sum.axis;
    let ty = module.ty(module.result(op)).as_tensor()?.clone();
    let stack = module.defining_op(*module.op(op).operands().first()?)?;
    let is_stack = matches!(&module.op(stack).op, Op::Concat(concat) if concat.axis == axis);
    let layers = module.op(stack).operands().to_vec();
    let is_layer = |value: &ValueId| module.ty(*value).as_tensor() == Some(&ty);
    if !is_stack || ty.elem != ElemType::F32 || !layers.iter().all(is_layer) {
        return None;
    }
    let terms = without_own_axis(module, &layers).unwrap_or(layers);
    let (first, others) = terms.split_first()?;
    let loc = module.op(op).loc.clone();
    let mut total = *first;
    for term in others {
        let ty = module.ty(total).clone();
        let add = module.insert_before(op, Add {}, &[total, *term], &[ty], loc.clone());
        total = module.result(add);
    }
    let result = Type::from(ty.clone());
    if *module.ty(total) == result {
        return Some(total);
    }
    let extents = ty.shape.iter().map(|&extent| extent as i64).collect();
    let shape = Tensor::new(vec![ty.rank()], TensorData::Index(extents));
    let shape = module.insert_const_before(op, shape, loc.clone());
    let reshape = module.insert_before(op, Reshape {}, &[total, shape], &[result], loc);
    Some(module.result(reshape))
}

/// The tensors of one type that all layers of a stack are reshapes of.
fn without_own_axis(module: &Module, layers: &[ValueId]) -> Option<Vec<ValueId>> {
    let source = |layer: &ValueId| {
        let producer = module.op(module.defining_op(*layer)?);
        matches!(producer.op, Op::Reshape(_)).then(|| producer.operands()[0])
    };
    let sources = layers.iter().map(source).collect::<Option<Vec<_>>>()?;
    let first = module.ty(*sources.first()?);
    sources.iter().all(|value| module.ty(*value) == first).then_some(sources)
}

/// Removes ops whose results nobody uses; returns how many.
fn eliminate_dead(module: &mut Module, block: BlockId) -> u64 {
    let mut used: BTreeSet<ValueId> = BTreeSet::new();
    let mut dead: BTreeSet<OpId> = BTreeSet::new();
    for &op in module.block_ops(block).iter().rev() {
        let data = module.op(op);
        if data.op.is_terminator() || data.results().iter().any(|v| used.contains(v)) {
            used.extend(data.operands());
            for inner in data.regions().iter().flat_map(|&region| module.region_blocks(region)) {
                used.extend(module.walk(*inner).iter().flat_map(|&op| module.op(op).operands()));
            }
        } else {
            dead.insert(op);
        }
    }
    module.erase_where(block, |op| dead.contains(&op));
    dead.len() as u64
}

#[cfg(test)]
mod tests;
