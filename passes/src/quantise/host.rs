//! The part of a network that stays f32: `@host`, which takes the dequantised results of `@main` and computes the
//! network's results.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::attr::FunctionType;
use strata_ir::dialect::FuncReturn;
use strata_ir::{Attribute, Elements, Location, Module, Type, ValueId};

use super::analyse::Plan;

/// Adds `@host`: its arguments are the plan's results as they were before quantisation, its results those that the
/// function had. Call it while the f32 ops still stand.
pub(super) fn add_host(module: &mut Module, plan: &Plan, returned: &[ValueId], res_attrs: Option<Attribute>) {
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
        let elements = Elements { tensor: Arc::clone(&tensor), name: None };
        let constant = module.insert_const_at(block, end, elements, Location::unknown());
        known.insert(value, constant);
        constant
    };
    for &op in &plan.host_ops {
        let data = module.op(op);
        let (kind, loc) = (data.op.clone(), data.loc.clone());
        let (operands, results) = (data.operands().to_vec(), data.results().to_vec());
        let operands: Vec<_> = operands.iter().map(|&v| get(module, &mut known, v)).collect();
        let types = types(module, &results);
        let copy = module.append(block, kind, &operands, &types, loc);
        known.extend(results.into_iter().zip(module.op(copy).results().to_vec()));
    }
    let results: Vec<_> = returned.iter().map(|&v| get(module, &mut known, v)).collect();
    module.append(block, FuncReturn {}, &results, &[], Location::unknown());
}
