//! Each rule on a small function, and that nothing else changes.

use strata_ir::attr::FunctionType;
use strata_ir::build::Builder;
use strata_ir::dialect::{Add, Concat, FuncReturn, Identity, ReduceSum, Reshape, Slice, Transpose};
use strata_ir::pass::compare::compare;
use strata_ir::{ElemType, Module, Type, ValueId};

use super::*;

/// Canonicalises a function of one f32 argument of `[1, 2, 3, 4]` and returns the names of the ops that are
/// left.
#[track_caller]
fn left(build: impl FnOnce(&mut Builder<'_>, ValueId) -> ValueId) -> Vec<&'static str> {
    let mut module = Module::new();
    let input = Type::tensor([1, 2, 3, 4], ElemType::F32);
    let ty = FunctionType { inputs: vec![input], results: Vec::new() };
    let (func, block) = module.add_function("main", ty);
    let arg = module.args(block)[0];
    let mut builder = Builder::new(&mut module, block);
    let result = build(&mut builder, arg);
    builder.terminator(FuncReturn {}, &[result]);
    let result_ty = module.ty(result).clone();
    if let Op::Func(func) = &mut module.op_mut(func).op {
        func.function_type.results = vec![result_ty];
    }
    let before = module.clone();
    let changed = Canonicalise.run(&mut module, &mut PassContext::new()).expect("it cannot fail");
    assert_eq!(compare(&before, &module, 2), None);
    let text = strata_ir::text::to_string(&module);
    assert_eq!(changed.is_yes(), text != strata_ir::text::to_string(&before));
    let again = Canonicalise.run(&mut module, &mut PassContext::new()).expect("it cannot fail");
    assert_eq!(again, Changed::No, "{text}");
    module.block_ops(block).iter().map(|&op| module.op(op).op.name()).collect()
}

#[test]
fn what_passes_on_its_input_goes_away() {
    let ops = left(|b, x| {
        let y = b.op(Identity {}, &[x]).expect("valid");
        let (start, size) = (b.shape(&[0, 0, 0, 0]), b.shape(&[1, 2, 3, 4]));
        let y = b.op(Slice {}, &[y, start, size]).expect("valid");
        let y = b.op(Concat { axis: 1 }, &[y]).expect("valid");
        b.op(Transpose { perms: vec![0, 1, 2, 3] }, &[y]).expect("valid")
    });
    assert_eq!(ops, ["func.return"]);
}

#[test]
fn transposes_compose_and_cancel() {
    let ops = left(|b, x| {
        let y = b.op(Transpose { perms: vec![0, 3, 1, 2] }, &[x]).expect("valid");
        b.op(Transpose { perms: vec![0, 2, 3, 1] }, &[y]).expect("valid")
    });
    assert_eq!(ops, ["func.return"]);
    let ops = left(|b, x| {
        let y = b.op(Transpose { perms: vec![0, 3, 1, 2] }, &[x]).expect("valid");
        b.op(Transpose { perms: vec![1, 0, 2, 3] }, &[y]).expect("valid")
    });
    assert_eq!(ops, ["tosa.transpose", "func.return"]);
}

#[test]
fn reshapes_compose() {
    let ops = left(|b, x| {
        let (first, second) = (b.shape(&[6, 4]), b.shape(&[2, 12]));
        let y = b.op(Reshape {}, &[x, first]).expect("valid");
        b.op(Reshape {}, &[y, second]).expect("valid")
    });
    assert_eq!(ops, ["tosa.const_shape", "tosa.reshape", "func.return"]);
}

/// The sum of three tensors that are stacked along `axis`, which has the extents `layer`.
fn stacked(b: &mut Builder<'_>, x: ValueId, layer: &[i64], axis: i32) -> ValueId {
    let layers: Vec<ValueId> = [1.0, 2.0, 3.0]
        .map(|addend| {
            let addend = b.const_f32(&[1, 1, 1, 1], vec![addend]);
            let y = b.op(Add {}, &[x, addend]).expect("valid");
            let shape = b.shape(layer);
            b.op(Reshape {}, &[y, shape]).expect("valid")
        })
        .to_vec();
    let stack = b.op(Concat { axis }, &layers).expect("valid");
    let sum = b.op(ReduceSum { axis }, &[stack]).expect("valid");
    let shape = b.shape(&[1, 2, 3, 4]);
    b.op(Reshape {}, &[sum, shape]).expect("valid")
}

#[test]
fn a_sum_over_a_stack_becomes_additions() {
    let ops = left(|b, x| stacked(b, x, &[1, 2, 3, 1, 4], 3));
    let n = |name: &str| ops.iter().filter(|op| **op == name).count();
    assert_eq!((n("tosa.add"), n("tosa.const"), ops.len()), (5, 3, 9), "{ops:?}");
    // What is joined along an axis that its parts have already is no stack.
    let ops = left(|b, x| {
        let y = b.op(Concat { axis: 1 }, &[x, x]).expect("valid");
        b.op(ReduceSum { axis: 1 }, &[y]).expect("valid")
    });
    assert_eq!(ops, ["tosa.concat", "tosa.reduce_sum", "func.return"]);
}

#[test]
fn constants_fold_and_merge_and_dead_ops_go() {
    let ops = left(|b, x| {
        let one = b.const_f32(&[1, 1, 1, 1], vec![1.0]);
        let same = b.const_f32(&[1, 1, 1, 1], vec![1.0]);
        let two = b.op(Add {}, &[one, same]).expect("valid");
        let _unused = b.op(Add {}, &[x, one]).expect("valid");
        let y = b.op(Add {}, &[x, two]).expect("valid");
        b.op(Add {}, &[y, two]).expect("valid")
    });
    assert_eq!(ops, ["tosa.const", "tosa.add", "tosa.add", "func.return"]);
}

#[test]
fn what_has_nothing_to_clean_is_left_alone() {
    let ops = left(|b, x| b.op(Add {}, &[x, x]).expect("valid"));
    assert_eq!(ops, ["tosa.add", "func.return"]);
}
