//! The part of a network that stays f32: `@host`, which takes the dequantised results of `@main` and computes
//! the network's results.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::attr::{FunctionType, NanMode};
use strata_ir::dialect::{Add, Cast, Clamp, FuncReturn, Mul, Reciprocal};
use strata_ir::{Attribute, BlockId, ElemType, Elements, Location, Module, Op, Tensor, Type, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::analyse::QuantPlan;
use crate::quantise::fixed::Fixed;

/// Adds `@host`: its arguments are the plan's results as they were before quantisation, its results those
/// that the function had. Call it while the f32 ops still stand.
///
/// Values that the model rounds are rounded on the host too, in f32 as the model does.
pub(super) fn add_host(
    module: &mut Module,
    plan: &QuantPlan,
    fixed: &Fixed,
    returned: &[ValueId],
    res_attrs: Option<Attribute>,
) {
    let types = |module: &Module, values: &[ValueId]| -> Vec<Type> {
        values.iter().map(|&value| module.ty(value).clone()).collect()
    };
    let ty = FunctionType { inputs: types(module, &plan.results), results: types(module, returned) };
    let (func, block) = module.add_function("host", ty);
    if let strata_ir::Op::Func(func) = &mut module.op_mut(func).op {
        func.res_attrs = res_attrs;
    }
    let args = module.args(block).to_vec();
    let mut known: BTreeMap<ValueId, ValueId> = plan.results.iter().copied().zip(args).collect();
    let get = |module: &mut Module, known: &mut BTreeMap<ValueId, ValueId>, value: ValueId| {
        if let Some(&value) = known.get(&value) {
            return value;
        }
        let Some(tensor) = plan.constant(value) else { return value };
        let end = module.block_ops(block).len();
        let elements = Elements { tensor: Arc::clone(&tensor) };
        let constant = module.insert_const_at(block, end, elements, Location::unknown());
        known.insert(value, constant);
        constant
    };
    for &op in &plan.host_ops {
        let data = module.op(op);
        let (kind, loc) = (data.op.clone(), data.loc.clone());
        let (operands, results) = (data.operands().to_vec(), data.results().to_vec());
        let operands: Vec<_> = operands.iter().map(|&v| get(module, &mut known, v)).collect();
        // What moves rounded values, or clamps them, has their integers too, and stays what it is.
        if let (Op::Identity(_), Some(&params), [result]) =
            (&kind, fixed.params.get(&results[0]), &results[..])
        {
            let value = match fixed.ports.get(result) {
                Some(&port) => integers(module, block, operands[0], params, port),
                None => rounded(module, block, operands[0], params),
            };
            known.insert(*result, value);
            continue;
        }
        let types = types(module, &results);
        let copy = module.append(block, kind, &operands, &types, loc);
        known.extend(results.into_iter().zip(module.op(copy).results().to_vec()));
    }
    let results: Vec<_> = returned.iter().map(|&v| get(module, &mut known, v)).collect();
    module.append(block, FuncReturn {}, &results, &[], Location::unknown());
}

/// Appends an op whose result has the shape of `like`.
fn elementwise(
    module: &mut Module,
    block: BlockId,
    op: impl Into<Op>,
    operands: &[ValueId],
    elem: ElemType,
) -> ValueId {
    let ty = module.tensor_ty(operands[0]).with_elem(elem);
    let op = module.append(block, op, operands, &[ty.into()], Location::unknown());
    module.result(op)
}

/// A constant that broadcasts to `like`.
fn number(module: &mut Module, block: BlockId, like: ValueId, value: f64) -> ValueId {
    let shape = vec![1; module.tensor_ty(like).rank()];
    module.append_const(block, Tensor::f32(shape, vec![value as f32]), Location::unknown())
}

fn times(module: &mut Module, block: BlockId, x: ValueId, factor: ValueId) -> ValueId {
    let shift = module.append_const(block, Tensor::i8([1], vec![0]), Location::unknown());
    elementwise(module, block, Mul {}, &[x, factor, shift], ElemType::F32)
}

/// `round(x / scale)` within the ends of the type, as a float.
fn steps(module: &mut Module, block: BlockId, x: ValueId, params: QuantParams) -> ValueId {
    let scale = number(module, block, x, params.scale);
    let inverse = elementwise(module, block, Reciprocal {}, &[scale], ElemType::F32);
    let steps = times(module, block, x, inverse);
    let bound = |q: i64| Attribute::Float((q - params.zero_point) as f64, Some(ElemType::F32));
    let (least, greatest) = params.limits();
    let clamp = Clamp { min_val: bound(least), max_val: bound(greatest), nan_mode: NanMode::Propagate };
    let bounded = elementwise(module, block, clamp, &[steps], ElemType::F32);
    let rounded = elementwise(module, block, Cast {}, &[bounded], ElemType::I32);
    elementwise(module, block, Cast {}, &[rounded], ElemType::F32)
}

/// The real that is left of `x` after rounding.
fn rounded(module: &mut Module, block: BlockId, x: ValueId, params: QuantParams) -> ValueId {
    let steps = steps(module, block, x, params);
    let scale = number(module, block, x, params.scale);
    times(module, block, steps, scale)
}

/// The user's integers of a rounded value, as floats: `port` says how the machine's stand for them.
fn integers(
    module: &mut Module,
    block: BlockId,
    x: ValueId,
    params: QuantParams,
    port: QuantParams,
) -> ValueId {
    let steps = steps(module, block, x, params);
    let term = number(module, block, x, (params.zero_point - port.zero_point) as f64);
    elementwise(module, block, Add {}, &[steps, term], ElemType::F32)
}
