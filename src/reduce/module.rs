//! Parts of a module of the IR, and simpler constants.

use std::collections::BTreeMap;

use strata_ir::attr::FunctionType;
use strata_ir::dialect::FuncReturn;
use strata_ir::text::Names;
use strata_ir::{Attribute, BlockId, Location, Module, Op, OpId, Tensor, TensorData, Type, ValueId};

use super::Progress;
use super::slice::{Network, Slice, smallest};
use crate::compile::checkpoint;

/// The smallest module that is found to fail still, with simpler constants where they do; `None` if the
/// function `main` alone does not fail.
pub fn reduce_module(
    module: &Module,
    still_fails: &mut dyn FnMut(&Module) -> bool,
    observer: &mut dyn FnMut(Progress),
) -> Option<Module> {
    let main = MainFunction::of(module)?;
    let mut reduced = smallest(&main, still_fails, observer)?;
    simplify_constants(&mut reduced, still_fails);
    Some(reduced)
}

/// The function `main` of a module. Its values are the results of ops that are no constants.
struct MainFunction<'a> {
    module: &'a Module,
    func: OpId,
    block: BlockId,
    values: Vec<ValueId>,
    numbers: BTreeMap<ValueId, usize>,
    operands: Vec<Vec<usize>>,
    names: Names,
}

impl<'a> MainFunction<'a> {
    fn of(module: &'a Module) -> Option<Self> {
        let func = module.function("main")?;
        let block = module.entry_block(func);
        let (mut values, mut numbers, mut operands) = (Vec::new(), BTreeMap::new(), Vec::new());
        for &op in module.block_ops(block) {
            let data = module.op(op);
            if data.op.is_constant() {
                continue;
            }
            let read: Vec<usize> = data.operands().iter().filter_map(|v| numbers.get(v).copied()).collect();
            for &value in data.results() {
                numbers.insert(value, values.len());
                values.push(value);
                operands.push(read.clone());
            }
        }
        Some(Self { module, func, block, values, numbers, operands, names: Names::of(module) })
    }

    fn returned(&self) -> &[ValueId] {
        self.module.terminator(self.block).map_or(&[], |op| self.module.op(op).operands())
    }

    fn types(&self, values: &[ValueId]) -> Vec<Type> {
        values.iter().map(|&value| self.module.ty(value).clone()).collect()
    }

    /// The attributes of a value as an input of a part: those that it has as an input of the whole, or the
    /// name of the layer that gives it, so that it is called as before.
    fn input_attributes(&self, value: ValueId) -> Attribute {
        let at = self.module.args(self.block).iter().position(|&arg| arg == value);
        let attrs = match &self.module.op(self.func).op {
            Op::Func(row) => row.arg_attrs.as_ref(),
            _ => None,
        };
        if let (Some(at), Some(Attribute::Array(attrs))) = (at, attrs) {
            return attrs.get(at).cloned().unwrap_or(Attribute::Dict(BTreeMap::new()));
        }
        let op = self.module.defining_op(value);
        let named = op.filter(|&op| self.module.op(op).loc.name().is_some());
        let name = named.map(|_| self.names.get(value).trim_start_matches('%').to_owned());
        let entry = name.map(|name| ("strata.name".to_owned(), Attribute::Str(name)));
        Attribute::Dict(entry.into_iter().collect())
    }

    /// The value of the original that stands for a value in a slice.
    fn resolved(&self, value: ValueId, slice: &Slice) -> ValueId {
        self.numbers.get(&value).map_or(value, |&number| self.values[slice.resolved(number)])
    }
}

impl Network for MainFunction<'_> {
    type Part = Module;

    fn results(&self) -> Vec<usize> {
        self.returned().iter().filter_map(|value| self.numbers.get(value).copied()).collect()
    }

    fn operands(&self, value: usize) -> &[usize] {
        &self.operands[value]
    }

    fn can_stand_for(&self, value: usize, other: usize) -> bool {
        self.module.ty(self.values[value]) == self.module.ty(self.values[other])
    }

    fn part(&self, slice: &Slice) -> Option<Module> {
        let reached = slice.reached(self);
        let is_computed = |op: &OpId| {
            let results = self.module.op(*op).results();
            results.iter().any(|v| self.numbers.get(v).is_some_and(|n| reached.computed.contains(n)))
        };
        let ops: Vec<OpId> = self.module.block_ops(self.block).iter().copied().filter(is_computed).collect();
        let read = ops.iter().flat_map(|&op| self.module.op(op).operands());
        let read: Vec<ValueId> = read.map(|&value| self.resolved(value, slice)).collect();
        let args = self.module.args(self.block).iter().copied().filter(|arg| read.contains(arg));
        let taken: Vec<ValueId> =
            args.chain(reached.inputs.iter().map(|&number| self.values[number])).collect();
        let given: Vec<ValueId> =
            slice.outputs.iter().map(|&number| self.values[slice.resolved(number)]).collect();

        let mut part = Module::new();
        let top = part.top();
        part.op_mut(top).extra = self.module.op(self.module.top()).extra.clone();
        checkpoint::forget(&mut part);
        let ty = FunctionType { inputs: self.types(&taken), results: self.types(&given) };
        let (func, block) = part.add_function("main", ty);
        let attrs: Vec<Attribute> = taken.iter().map(|&value| self.input_attributes(value)).collect();
        let says_anything = attrs.iter().any(|attrs| *attrs != Attribute::Dict(BTreeMap::new()));
        if let (true, Op::Func(row)) = (says_anything, &mut part.op_mut(func).op) {
            row.arg_attrs = Some(Attribute::Array(attrs));
        }
        part.op_mut(func).extra = self.module.op(self.func).extra.clone();
        let mut copy = Copy { from: self.module, to: part, done: BTreeMap::new() };
        copy.done.extend(taken.iter().copied().zip(copy.to.args(block).to_vec()));
        for op in ops {
            copy.constants_of(op, block);
            copy.op(op, block, &|value| self.resolved(value, slice));
        }
        let results: Vec<ValueId> =
            given.iter().map(|value| copy.done.get(value).copied()).collect::<Option<_>>()?;
        copy.to.append(block, FuncReturn {}, &results, &[], Location::unknown());
        Some(copy.to)
    }
}

/// Copies ops from one module to another.
struct Copy<'a> {
    from: &'a Module,
    to: Module,
    /// What stands there for values of the original.
    done: BTreeMap<ValueId, ValueId>,
}

impl Copy<'_> {
    /// Copies the constants that an op reads, unless they are there.
    fn constants_of(&mut self, op: OpId, block: BlockId) {
        for &operand in self.from.op(op).operands() {
            let defining = self.from.defining_op(operand).filter(|&op| self.from.op(op).op.is_constant());
            if let (Some(constant), false) = (defining, self.done.contains_key(&operand)) {
                self.op(constant, block, &|value| value);
            }
        }
    }

    /// Copies an op with its regions; `resolved` is what stands for an operand in the original.
    fn op(&mut self, op: OpId, block: BlockId, resolved: &dyn Fn(ValueId) -> ValueId) {
        let data = self.from.op(op);
        let stands = |value: &ValueId| {
            let value = resolved(*value);
            // What is not there makes the part invalid, which its verifier says.
            self.done.get(&value).copied().unwrap_or(value)
        };
        let operands: Vec<ValueId> = data.operands().iter().map(stands).collect();
        let types: Vec<Type> = data.results().iter().map(|&value| self.from.ty(value).clone()).collect();
        let new = self.to.append(block, data.op.clone(), &operands, &types, data.loc.clone());
        self.to.op_mut(new).extra = data.extra.clone();
        let results = self.to.op(new).results().to_vec();
        self.done.extend(data.results().iter().copied().zip(results));
        for &region in data.regions() {
            let new_region = self.to.add_region(new);
            for &inner in self.from.region_blocks(region) {
                let types: Vec<Type> =
                    self.from.args(inner).iter().map(|&v| self.from.ty(v).clone()).collect();
                let new_block = self.to.add_block(new_region, &types);
                let args = self.to.args(new_block).to_vec();
                self.done.extend(self.from.args(inner).iter().copied().zip(args));
                for &op in self.from.block_ops(inner) {
                    self.op(op, new_block, &|value| value);
                }
            }
        }
    }
}

/// Makes constants zeros, or ones, or all like their first element, where the module fails still.
fn simplify_constants(module: &mut Module, still_fails: &mut dyn FnMut(&Module) -> bool) {
    let constants: Vec<OpId> =
        module.walk(module.body()).into_iter().filter(|&op| module.op(op).op.is_constant()).collect();
    for op in constants {
        let Some(tensor) = module.op(op).op.constant().map(|elements| elements.tensor.clone()) else {
            continue;
        };
        for simpler in simpler(&tensor) {
            let mut candidate = module.clone();
            if let Op::Const(constant) = &mut candidate.op_mut(op).op {
                constant.values.tensor = simpler.into();
            }
            if still_fails(&candidate) {
                *module = candidate;
                break;
            }
        }
    }
}

/// Tensors of the same type that say less, the simplest first.
fn simpler(tensor: &Tensor) -> Vec<Tensor> {
    let (shape, n) = (tensor.shape(), tensor.n_elements());
    let of = |data: TensorData| Tensor::new(shape, data);
    let candidates = match tensor.data() {
        TensorData::I8(v) => {
            [0, 1].iter().chain(v.first()).map(|&x| of(TensorData::I8(vec![x; n]))).collect()
        }
        TensorData::I32(v) => {
            [0, 1].iter().chain(v.first()).map(|&x| of(TensorData::I32(vec![x; n]))).collect()
        }
        TensorData::F32(v) => {
            [0.0, 1.0].iter().chain(v.first()).map(|&x| of(TensorData::F32(vec![x; n]))).collect()
        }
        // The others are few and small: shapes, tables, sums of 48 bits.
        _ => Vec::new(),
    };
    let at = candidates.iter().position(|candidate| candidate == tensor).unwrap_or(candidates.len());
    candidates.into_iter().take(at).collect()
}
