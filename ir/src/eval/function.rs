//! Functions and regions: an environment of values, each dropped after its last use.

use std::sync::Arc;

use cranelift_entity::SecondaryMap;

use super::{EvalError, eval_op_kind, has_type};
use crate::dialect::Op;
use crate::module::{BlockId, Module, OpId, ValueId};
use crate::tensor::Tensor;
use crate::types::Type;

/// What one op of a module computes from its operands. `strata.stage` and `strata.phase` run their regions;
/// of the values that a region captures from above only constants are known here.
///
/// # Errors
/// See [`eval_op_kind`]; and if a region captures a value that is no constant.
pub fn eval_op(module: &Module, op: OpId, operands: &[Arc<Tensor>]) -> Result<Vec<Arc<Tensor>>, EvalError> {
    let data = module.op(op);
    let expected = data.operands().len();
    if operands.len() != expected {
        return Err(EvalError::Operands { op: data.op.name(), expected, found: operands.len() });
    }
    let mut ignore = |_: ValueId, _: &Tensor| {};
    let mut env = Env::new(module, &[op], &mut ignore);
    for (&value, tensor) in data.operands().iter().zip(operands) {
        env.values[value] = Some(Arc::clone(tensor));
    }
    for &value in data.results() {
        env.uses_left[value] += 1;
    }
    env.run_op(op)?;
    data.results().iter().map(|&value| env.get(value)).collect()
}

/// Runs a function on `inputs`, one an argument, and returns its results. An intermediate value is dropped
/// after its last use, so memory is that of the values alive at once.
///
/// # Errors
/// If `func` is no function with a body, the inputs do not have the types of its arguments, or an op fails;
/// the error names the op's location.
pub fn eval_function(module: &Module, func: OpId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EvalError> {
    eval_function_with(module, func, inputs, &mut |_, _| {})
}

/// As [`eval_function`], showing every value to `observer` when it is defined: arguments, constants, results
/// of ops, and arguments of regions.
///
/// # Errors
/// See [`eval_function`].
pub fn eval_function_with(
    module: &Module,
    func: OpId,
    inputs: Vec<Tensor>,
    observer: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    let name = module.op(func).op.name();
    let block = match &module.op(func).op {
        Op::Func(_) => first_block(module, func).ok_or(EvalError::NoValue { op: name })?,
        _ => return Err(EvalError::NoValue { op: name }),
    };
    let args = module.args(block);
    if inputs.len() != args.len() || args.iter().zip(&inputs).any(|(&arg, t)| !has_type(t, module.ty(arg))) {
        let expected: Vec<_> = args.iter().map(|&arg| module.ty(arg).to_string()).collect();
        let found: Vec<_> = inputs.iter().map(|t| Type::from(t.ty()).to_string()).collect();
        return Err(EvalError::Inputs { expected: list(&expected), found: list(&found) });
    }
    let mut env = Env::new(module, module.block_ops(block), observer);
    for (&arg, input) in args.iter().zip(inputs) {
        env.define(arg, Arc::new(input));
    }
    let results = env.run_block(block)?;
    drop(env);
    Ok(results.into_iter().map(Arc::unwrap_or_clone).collect())
}

fn list(types: &[String]) -> String {
    format!("({})", types.join(", "))
}

fn first_block(module: &Module, op: OpId) -> Option<BlockId> {
    let region = module.op(op).regions().first()?;
    module.region_blocks(*region).first().copied()
}

/// The values known so far, and how many uses of each are still to come.
struct Env<'a> {
    module: &'a Module,
    values: SecondaryMap<ValueId, Option<Arc<Tensor>>>,
    uses_left: SecondaryMap<ValueId, u32>,
    observer: &'a mut dyn FnMut(ValueId, &Tensor),
}

impl<'a> Env<'a> {
    /// An environment to run `ops` and what is below them, each once.
    fn new(module: &'a Module, ops: &[OpId], observer: &'a mut dyn FnMut(ValueId, &Tensor)) -> Self {
        let mut uses_left = SecondaryMap::new();
        let mut pending = ops.to_vec();
        while let Some(op) = pending.pop() {
            for &operand in module.op(op).operands() {
                uses_left[operand] += 1;
            }
            for &region in module.op(op).regions() {
                for &block in module.region_blocks(region) {
                    pending.extend(module.block_ops(block));
                }
            }
        }
        Self { module, values: SecondaryMap::new(), uses_left, observer }
    }

    fn define(&mut self, value: ValueId, tensor: Arc<Tensor>) {
        (self.observer)(value, &tensor);
        if self.uses_left[value] > 0 {
            self.values[value] = Some(tensor);
        }
    }

    fn get(&self, value: ValueId) -> Result<Arc<Tensor>, EvalError> {
        if let Some(tensor) = &self.values[value] {
            return Ok(Arc::clone(tensor));
        }
        let constant = self.module.constant(value).map(|elements| Arc::clone(&elements.tensor));
        constant.ok_or(EvalError::Undefined { value })
    }

    /// The operands of an op, of which this is one use.
    fn take_operands(&mut self, op: OpId) -> Result<Vec<Arc<Tensor>>, EvalError> {
        let operands = self.module.op(op).operands();
        let tensors = operands.iter().map(|&value| self.get(value)).collect::<Result<Vec<_>, _>>()?;
        for &value in operands {
            self.uses_left[value] -= 1;
            if self.uses_left[value] == 0 {
                self.values[value] = None;
            }
        }
        Ok(tensors)
    }

    /// Runs a block's ops and returns the operands of its terminator.
    fn run_block(&mut self, block: BlockId) -> Result<Vec<Arc<Tensor>>, EvalError> {
        for &op in self.module.block_ops(block) {
            if self.module.op(op).op.is_terminator() {
                return self.take_operands(op);
            }
            self.run_op(op)?;
        }
        Ok(Vec::new())
    }

    fn run_op(&mut self, op: OpId) -> Result<(), EvalError> {
        let data = self.module.op(op);
        let results = self.results_of(op).map_err(|error| error.at(&data.loc))?;
        for (&value, tensor) in data.results().iter().zip(results) {
            self.define(value, tensor);
        }
        Ok(())
    }

    fn results_of(&mut self, op: OpId) -> Result<Vec<Arc<Tensor>>, EvalError> {
        let data = self.module.op(op);
        let operands = self.take_operands(op)?;
        let types: Vec<Type> = data.results().iter().map(|&value| self.module.ty(value).clone()).collect();
        match &data.op {
            Op::Const(_) | Op::ConstShape(_) => {
                let constant = data.op.constant().map(|elements| Arc::clone(&elements.tensor));
                Ok(constant.into_iter().collect())
            }
            Op::Stage(_) | Op::Phase(_) => {
                let block = first_block(self.module, op).ok_or(EvalError::NoValue { op: data.op.name() })?;
                let args = self.module.args(block);
                if args.len() != operands.len() {
                    let (expected, found) = (args.len(), operands.len());
                    return Err(EvalError::Operands { op: data.op.name(), expected, found });
                }
                for (&arg, tensor) in args.iter().zip(operands) {
                    self.define(arg, tensor);
                }
                let results = self.run_block(block)?;
                if results.len() != types.len() {
                    let (expected, found) = (results.len(), types.len());
                    return Err(EvalError::Results { op: data.op.name(), expected, found });
                }
                for (tensor, ty) in results.iter().zip(&types) {
                    if !has_type(tensor, ty) {
                        let (op, expected, found) = (data.op.name(), ty.clone(), tensor.ty());
                        return Err(EvalError::ResultType { op, expected, found });
                    }
                }
                Ok(results)
            }
            kind => {
                let operands: Vec<&Tensor> = operands.iter().map(Arc::as_ref).collect();
                Ok(eval_op_kind(kind, &operands, &types)?.into_iter().map(Arc::new).collect())
            }
        }
    }
}
