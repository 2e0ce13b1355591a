//! Whole numbers, which are to be exact whatever calibration saw.

use strata_ir::TensorData;

use super::*;
use crate::quantise::tests::given::{integer_argument, ints};

impl Net {
    fn whole(&mut self, shape: &[usize], values: Vec<i32>) -> ValueId {
        self.module.append_const(self.block, Tensor::i32(shape, values), Location::unknown())
    }
}

/// What a network of one integer argument gives in floats and quantised, for all integers from `least` on
/// that its shape holds. It is calibrated on small ones.
fn both_on_all(module: &Module, shape: &[usize], least: i32) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
    let n = shape.iter().product::<usize>() as i32;
    let small = Tensor::i32(shape, (0..n).map(|q| q % 3).collect());
    let calibration =
        Calibration::collect(module, &[vec![Arc::new(small)]]).unwrap_or_else(|e| panic!("{e}"));
    let mut quantised = module.clone();
    quantise(&mut quantised, &calibration, &QuantiseOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    verify(&quantised).unwrap_or_else(|e| panic!("{e}"));
    let all: Vec<i32> = (least..least + n).collect();
    let main = module.function("main").expect("it is there");
    let want =
        eval_function(module, main, vec![Tensor::i32(shape, all.clone())]).unwrap_or_else(|e| panic!("{e}"));
    let given = Tensor::f32(shape, all.into_iter().map(|q| q as f32).collect());
    let got = run_quantised(&quantised, &[Arc::new(given)]);
    (want.iter().map(ints).collect(), got.iter().map(ints).collect())
}

#[test]
fn ranges_of_whole_numbers_follow_from_their_types() {
    for (dtype, least) in [("u8", 0), ("i8", -128)] {
        let (mut net, x) = Net::new(&[1, 16, 16, 1]);
        integer_argument(&mut net, x, dtype);
        let ramp = net.whole(&[1, 16, 16, 1], (0..256).rev().collect());
        let sum = net.op_as(Add {}, &[x, ramp], ElemType::I32);
        let three = net.whole(&[1, 1, 1, 1], vec![3]);
        let shift = net.module.append_const(net.block, Tensor::i8([1], vec![0]), Location::unknown());
        let triple = net.op_as(Mul {}, &[x, three, shift], ElemType::I32);
        let (want, got) = both_on_all(&net.finish(&[sum, triple]), &[1, 16, 16, 1], least);
        assert_eq!(want, got, "{dtype}");
    }
}

#[test]
fn comparisons_of_whole_numbers_are_exact() {
    let (mut net, x) = Net::new(&[1, 16, 16, 1]);
    integer_argument(&mut net, x, "u8");
    // As wide as the type, so that its own 256 levels are not the whole numbers.
    let others = net.whole(&[1, 16, 16, 1], (0..256).map(|q| (q + q % 3 - 1).clamp(0, 254)).collect());
    let greater = net.op_as(Greater {}, &[x, others], ElemType::I1);
    let equal = net.op_as(Equal {}, &[x, others], ElemType::I1);
    let (want, got) = both_on_all(&net.finish(&[greater, equal]), &[1, 16, 16, 1], 0);
    assert_eq!(want, got);
}

#[test]
fn an_equality_a_channel_is_no_pair_of_slopes() {
    let (mut net, x) = Net::new(&[1, 1, 1, 60]);
    integer_argument(&mut net, x, "u8");
    let others = net.whole(&[1, 1, 1, 60], (0..60).map(|q| q / 2 * 2).collect());
    let equal = net.op_as(Equal {}, &[x, others], ElemType::I1);
    let (want, got) = both_on_all(&net.finish(&[equal]), &[1, 1, 1, 60], 0);
    assert_eq!(want, got);
}

#[test]
fn truth_values_are_arguments() {
    let (mut net, x) = Net::new(&[1, 4, 4, 1]);
    let ty = net.module.tensor_ty(x).with_elem(ElemType::I1);
    net.module.set_ty(x, ty.clone());
    let func = net.module.function("main").expect("it was made");
    let Op::Func(func) = &mut net.module.op_mut(func).op else { panic!("it is a function") };
    func.function_type.inputs = vec![ty.into()];
    let not = net.op_as(LogicalNot {}, &[x], ElemType::I1);
    let module = net.finish(&[not]);
    let sample = Tensor::new([1, 4, 4, 1], TensorData::I1((0..16).map(|n| n % 3 == 0).collect()));
    let calibration =
        Calibration::collect(&module, &[vec![Arc::new(sample.clone())]]).unwrap_or_else(|e| panic!("{e}"));
    let mut quantised = module.clone();
    quantise(&mut quantised, &calibration, &QuantiseOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let holds: Vec<f32> = (0..16).map(|n| f32::from(u8::from(n % 3 == 0))).collect();
    let got = run_quantised(&quantised, &[Arc::new(Tensor::f32([1, 4, 4, 1], holds))]);
    let due: Vec<f32> = (0..16).map(|n| f32::from(u8::from(n % 3 != 0))).collect();
    assert_eq!(got[0].as_f32(), Some(&due[..]));
}
