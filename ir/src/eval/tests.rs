//! Values computed by hand. `tests/judges` covers breadth; these say what the ops mean.

use std::sync::Arc;

use super::*;
use crate::attr::{Attribute, FunctionType, NanMode, ResizeMode, RoundingMode};
use crate::dialect::*;
use crate::eval::random::{RandomOptions, random_inputs, random_network};
use crate::module::{Module, OpId};

fn i8s(shape: &[usize], values: &[i8]) -> Tensor {
    Tensor::i8(shape, values.to_vec())
}

fn i32s(shape: &[usize], values: &[i32]) -> Tensor {
    Tensor::i32(shape, values.to_vec())
}

fn shape(values: &[i64]) -> Tensor {
    Tensor::new([values.len()], TensorData::Index(values.to_vec()))
}

#[track_caller]
fn check(op: impl Into<Op>, operands: &[&Tensor], want: &Tensor) {
    assert_eq!(eval_op_kind(&op.into(), operands, &[want.ty().into()]), Ok(vec![want.clone()]));
}

#[track_caller]
fn check_error(op: impl Into<Op>, operands: &[&Tensor], result: TensorType, want: &str) {
    let error = eval_op_kind(&op.into(), operands, &[result.into()]).expect_err("the op has no value here");
    assert_eq!(error.to_string(), want);
}

fn conv(pad: [i64; 4], stride: [i64; 2]) -> Conv2d {
    Conv2d { pad, stride, dilation: [1, 1], acc_type: ElemType::I32, local_bound: false }
}

#[test]
fn conv2d_subtracts_zero_points_and_skips_padding() {
    // One row [3, 5], zero point 1, kernel [10, 20] with zero point 2, one column of padding on the left:
    // the padded tap adds nothing, so 7 + (3-1)*(20-2) = 43; then 7 + 2*(10-2) + (5-1)*18 = 95.
    let (input, weight) = (i8s(&[1, 1, 2, 1], &[3, 5]), i8s(&[1, 1, 2, 1], &[10, 20]));
    let (bias, input_zp, weight_zp) = (i32s(&[1], &[7]), i8s(&[1], &[1]), i8s(&[1], &[2]));
    let want = i32s(&[1, 1, 2, 1], &[43, 95]);
    check(conv([0, 0, 1, 0], [1, 1]), &[&input, &weight, &bias, &input_zp, &weight_zp], &want);
}

#[test]
fn accumulators_wrap() {
    // i32::MAX + 127*127 = 2^31 - 1 + 16129 wraps to -2^31 + 16128.
    let (input, zero) = (i8s(&[1, 1, 1, 1], &[127]), i8s(&[1], &[0]));
    let bias = i32s(&[1], &[i32::MAX]);
    let want = i32s(&[1, 1, 1, 1], &[i32::MIN + 16128]);
    check(conv([0; 4], [1, 1]), &[&input, &input, &bias, &zero, &zero], &want);
}

#[test]
fn depthwise_multiplies_channels() {
    // Channels [2, 3], two outputs each: 2*[1, 10], 3*[100, -1], plus the bias 5.
    let op = DepthwiseConv2d {
        pad: [0; 4],
        stride: [1, 1],
        dilation: [1, 1],
        acc_type: ElemType::I32,
        local_bound: false,
    };
    let (input, weight) = (i8s(&[1, 1, 1, 2], &[2, 3]), i8s(&[1, 1, 2, 2], &[1, 10, 100, -1]));
    let (bias, zero) = (i32s(&[1], &[5]), i8s(&[1], &[0]));
    check(op, &[&input, &weight, &bias, &zero, &zero], &i32s(&[1, 1, 1, 4], &[7, 25, 305, 2]));
}

#[test]
fn transpose_conv_crops_by_negative_padding() {
    // Inputs [1, 2], stride 2, kernel [1, 10, 100]: 1 at 0, 10 at 1, 100+2 at 2, 20 at 3, 200 at 4.
    // out_pad -1 on the left drops the first: (2 - 1) * 2 - 1 + 3 = 4 outputs.
    let op = TransposeConv2d {
        out_pad: [0, 0, -1, 0],
        stride: [1, 2],
        acc_type: ElemType::I32,
        local_bound: false,
    };
    let (input, weight) = (i8s(&[1, 1, 2, 1], &[1, 2]), i8s(&[1, 1, 3, 1], &[1, 10, 100]));
    let (bias, zero) = (i32s(&[1], &[0]), i8s(&[1], &[0]));
    check(op, &[&input, &weight, &bias, &zero, &zero], &i32s(&[1, 1, 4, 1], &[10, 102, 20, 200]));
}

#[test]
fn matmul_subtracts_zero_points() {
    // [1-1, 2-1] . [[3], [4]] = 0*3 + 1*4.
    let (a, b) = (i8s(&[1, 1, 2], &[1, 2]), i8s(&[1, 2, 1], &[3, 4]));
    check(MatMul {}, &[&a, &b, &i8s(&[1], &[1]), &i8s(&[1], &[0])], &i32s(&[1, 1, 1], &[4]));
}

#[test]
fn avg_pool_divides_by_the_taps_inside() {
    // Window 3, padding 1 on both sides of [1, 2, 6]: (1+2)/2 = 1.5 rounds up to 2, 9/3 = 3, 8/2 = 4.
    let op = AvgPool2d { kernel: [1, 3], stride: [1, 1], pad: [0, 0, 1, 1], acc_type: ElemType::I32 };
    let (input, zero) = (i8s(&[1, 1, 3, 1], &[1, 2, 6]), i8s(&[1], &[0]));
    check(op, &[&input, &zero, &zero], &i8s(&[1, 1, 3, 1], &[2, 3, 4]));
}

#[test]
fn max_pool_sees_no_padding() {
    let op = MaxPool2d { kernel: [1, 2], stride: [1, 2], pad: [0, 0, 1, 0], nan_mode: NanMode::Propagate };
    check(op, &[&i8s(&[1, 1, 3, 1], &[-7, -9, -8])], &i8s(&[1, 1, 2, 1], &[-7, -8]));
}

#[test]
fn the_reciprocal_of_three() {
    // k = 2, multiplier = (2^30 + 1) * 4 / 3 = 1431655766, shift 32; 9 * that / 2^32 = 3.0000000021.
    let scale = Scale { multiplier: 1_431_655_766, shift: 32 };
    assert_eq!(reciprocal_scale(3), Some(scale));
    assert_eq!(apply_scale_32(9, scale, false), 3);
    assert_eq!(reciprocal_scale(1), Some(Scale { multiplier: (1 << 30) + 1, shift: 30 }));
    assert_eq!(reciprocal_scale(0), None);
}

#[test]
fn what_a_scale_takes_beyond_32_bits_does_not_wrap() {
    let double = Scale { multiplier: 1 << 30, shift: 29 };
    assert_eq!(apply_scale_32(i32::MAX, double, false), 2 * i64::from(i32::MAX));
    assert_eq!(apply_scale_32(i32::MIN, double, false), 2 * i64::from(i32::MIN));
}

#[test]
fn double_rounding_goes_away_from_zero() {
    // Half of -1 is -0.5: rounding half up gives 0. With shift 32 the second rounding subtracts 2^30:
    // (-1 * 2^31 + 2^31 - 2^30) >> 32 = -2^30 >> 32 = -1.
    let half = Scale { multiplier: i32::MAX, shift: 32 };
    assert_eq!(apply_scale_32(-1, half, false), 0);
    assert_eq!(apply_scale_32(-1, half, true), -1);
    assert_eq!(apply_scale_32(1, half, true), 1);
}

fn rescale(per_channel: bool, input_unsigned: bool, output_unsigned: bool) -> Rescale {
    let rounding_mode = RoundingMode::SingleRound;
    Rescale { scale32: true, rounding_mode, per_channel, input_unsigned, output_unsigned }
}

#[test]
fn rescale_by_channel_saturates() {
    // Channel 0 by 2^30 / 2^31 = 1/2: 5/2 = 2.5 rounds up to 3, plus zero point -3 = 0; -5/2 = -2.5 rounds up
    // to -2, that is -5. Channel 1 by 1: 200 - 3 saturates to 127, -200 - 3 to -128.
    let input = i32s(&[2, 2], &[5, 200, -5, -200]);
    let (multiplier, shift) = (i32s(&[2], &[1 << 30, 1 << 30]), i8s(&[2], &[31, 30]));
    let (input_zp, output_zp) = (i32s(&[1], &[0]), i8s(&[1], &[-3]));
    let want = i8s(&[2, 2], &[0, 127, -5, -128]);
    check(rescale(true, false, false), &[&input, &multiplier, &shift, &input_zp, &output_zp], &want);
}

#[test]
fn rescale_reads_and_writes_unsigned() {
    // The byte -1 is 255 unsigned, less its zero point 128 (the byte -128) is 127; signed zero points stay
    // signed.
    let (multiplier, shift, zero) = (i32s(&[1], &[1 << 30]), i8s(&[1], &[30]), i8s(&[1], &[0]));
    let unsigned_zp = i8s(&[1], &[-128]);
    let signed = i8s(&[2], &[127, -128]);
    let unsigned = i8s(&[2], &[-1, 0]);
    check(rescale(false, true, false), &[&unsigned, &multiplier, &shift, &unsigned_zp, &zero], &signed);
    check(rescale(false, false, true), &[&signed, &multiplier, &shift, &zero, &unsigned_zp], &unsigned);
}

#[test]
fn mul_rounds_its_shift() {
    // 3 * 5 = 15; (15 + 2) >> 2 = 4; -15: (-15 + 2) >> 2 = -4 (floor of -3.25).
    let (a, b) = (i32s(&[2], &[3, -3]), i32s(&[1], &[5]));
    check(Mul {}, &[&a, &b, &i8s(&[1], &[2])], &i32s(&[2], &[4, -4]));
    check(Mul {}, &[&i8s(&[1], &[-128]), &i8s(&[1], &[-128]), &i8s(&[1], &[0])], &i32s(&[1], &[16384]));
}

#[test]
fn shifts_round_by_the_last_bit_out() {
    // 5 >> 1 = 2 with 1 out; -5 >> 1 = -3 with 1 out; 4 >> 1 = 2 with 0 out.
    let (a, b) = (i32s(&[3], &[5, -5, 4]), i32s(&[1], &[1]));
    check(ArithmeticRightShift { round: true }, &[&a, &b], &i32s(&[3], &[3, -2, 2]));
    check(ArithmeticRightShift { round: false }, &[&a, &b], &i32s(&[3], &[2, -3, 2]));
}

#[test]
fn elementwise_broadcasts_ones() {
    let (a, b) = (i32s(&[2, 1], &[10, 20]), i32s(&[1, 3], &[1, 2, 3]));
    check(Add {}, &[&a, &b], &i32s(&[2, 3], &[11, 12, 13, 21, 22, 23]));
    check(Sub {}, &[&a, &b], &i32s(&[2, 3], &[9, 8, 7, 19, 18, 17]));
    let cond = Tensor::new([1, 3], TensorData::I1(vec![true, false, true]));
    check(Select {}, &[&cond, &a, &b], &i32s(&[2, 3], &[10, 2, 10, 20, 2, 20]));
    check_error(
        Add {},
        &[&i32s(&[2], &[1, 2]), &i32s(&[3], &[1, 2, 3])],
        TensorType::new([3], ElemType::I32),
        "`tosa.add`: the operand shapes [[2], [3]] do not broadcast",
    );
}

#[test]
fn negate_saturates() {
    // 0 - (-128 - 0) = 128 saturates to 127; with zero points 1 and 2: 2 - (5 - 1) = -2.
    check(Negate {}, &[&i8s(&[1], &[-128]), &i8s(&[1], &[0]), &i8s(&[1], &[0])], &i8s(&[1], &[127]));
    check(Negate {}, &[&i8s(&[1], &[5]), &i8s(&[1], &[1]), &i8s(&[1], &[2])], &i8s(&[1], &[-2]));
}

#[test]
fn clamp_treats_nan_by_mode() {
    let bound = |value| Attribute::Float(value, Some(ElemType::F32));
    let clamp = |nan_mode| Clamp { min_val: bound(0.0), max_val: bound(6.0), nan_mode };
    let input = Tensor::f32([3], vec![-1.0, 9.0, f32::NAN]);
    check(clamp(NanMode::Ignore), &[&input], &Tensor::f32([3], vec![0.0, 6.0, 0.0]));
    let propagated = eval_op_kind(&clamp(NanMode::Propagate).into(), &[&input], &[input.ty().into()]);
    let propagated = propagated.expect("clamp is defined on floats");
    assert!(propagated[0].as_f32().is_some_and(|v| v[2].is_nan()));
}

#[test]
fn casts_round_to_even_and_saturate() {
    let input = Tensor::f32([6], vec![0.5, 1.5, -2.5, 127.5, -1e9, f32::NAN]);
    check(Cast {}, &[&input], &i8s(&[6], &[0, 2, -2, 127, -128, 0]));
    // Integers lose their high bits: 257 = 0x101.
    check(Cast {}, &[&i32s(&[1], &[257])], &i8s(&[1], &[1]));
}

#[test]
fn tables_look_up_and_interpolate() {
    let identity: Vec<i8> = (-128..=127).collect();
    check(Table {}, &[&i8s(&[3], &[-128, 0, 127]), &i8s(&[256], &identity)], &i8s(&[3], &[-128, 0, 127]));
    // Entry 256 is 10 and entry 257 is 20; x = 64 is half way: 10*128 + 10*64 = 1920.
    let mut entries = vec![0_i16; 513];
    (entries[256], entries[257]) = (10, 20);
    let table = Tensor::new([513], TensorData::I16(entries));
    let input = Tensor::new([2], TensorData::I16(vec![0, 64]));
    check(Table {}, &[&input, &table], &i32s(&[2], &[1280, 1920]));
}

#[test]
fn resize_by_two_between_centres() {
    // scale 4/2, offset -1: positions -1/4, 1/4, 3/4, 5/4 of [0, 8]. Nearest: 0, 0, 1, 1. Bilinear in 4 units
    // along x and 1 along y: the border repeats, so 0*4, 8*1, 8*3, 8*4.
    let input = i8s(&[1, 1, 2, 1], &[0, 8]);
    let (scale, offset, border) = (shape(&[1, 1, 4, 2]), shape(&[0, -1]), shape(&[0, 1]));
    let operands = [&input, &scale, &offset, &border];
    check(Resize { mode: ResizeMode::NearestNeighbor }, &operands, &i8s(&[1, 1, 4, 1], &[0, 0, 8, 8]));
    check(Resize { mode: ResizeMode::Bilinear }, &operands, &i32s(&[1, 1, 4, 1], &[0, 8, 24, 32]));
}

#[test]
fn argmax_takes_the_first_of_equals() {
    let op = Argmax { axis: 1, nan_mode: NanMode::Propagate };
    check(op, &[&i8s(&[2, 3], &[1, 7, 7, -1, -2, -1])], &i32s(&[2], &[1, 0]));
}

#[test]
fn reductions_keep_the_axis() {
    let input = i32s(&[2, 2], &[1, 2, 3, 4]);
    check(ReduceSum { axis: 0 }, &[&input], &i32s(&[1, 2], &[4, 6]));
    check(ReduceSum { axis: 1 }, &[&input], &i32s(&[2, 1], &[3, 7]));
    check(ReduceMax { axis: 1, nan_mode: NanMode::Propagate }, &[&input], &i32s(&[2, 1], &[2, 4]));
    check(ReduceMin { axis: 0, nan_mode: NanMode::Propagate }, &[&input], &i32s(&[1, 2], &[1, 2]));
    check(ReduceProduct { axis: 0 }, &[&input], &i32s(&[1, 2], &[3, 8]));
}

#[test]
fn moves_of_data() {
    let input = i8s(&[2, 2], &[1, 2, 3, 4]);
    check(Concat { axis: 1 }, &[&input, &i8s(&[2, 1], &[9, 8])], &i8s(&[2, 3], &[1, 2, 9, 3, 4, 8]));
    check(Reverse { axis: 0 }, &[&input], &i8s(&[2, 2], &[3, 4, 1, 2]));
    check(Reverse { axis: 1 }, &[&input], &i8s(&[2, 2], &[2, 1, 4, 3]));
    check(Transpose { perms: vec![1, 0] }, &[&input], &i8s(&[2, 2], &[1, 3, 2, 4]));
    check(Slice {}, &[&input, &shape(&[0, 1]), &shape(&[2, 1])], &i8s(&[2, 1], &[2, 4]));
    check(Tile {}, &[&i8s(&[1, 2], &[1, 2]), &shape(&[2, 2])], &i8s(&[2, 4], &[1, 2, 1, 2, 1, 2, 1, 2]));
    check(Reshape {}, &[&input, &shape(&[4])], &i8s(&[4], &[1, 2, 3, 4]));
    let padded = i8s(&[2, 4], &[7, 1, 2, 7, 7, 3, 4, 7]);
    check(Pad {}, &[&input, &shape(&[0, 0, 1, 1]), &i8s(&[1], &[7])], &padded);
    let values = i8s(&[1, 3, 1], &[10, 20, 30]);
    check(Gather {}, &[&values, &i32s(&[1, 2], &[2, 0])], &i8s(&[1, 2, 1], &[30, 10]));
}

#[test]
fn data_without_meaning_is_an_error() {
    let result = TensorType::new([1], ElemType::I32);
    check_error(
        IntDiv {},
        &[&i32s(&[1], &[1]), &i32s(&[1], &[0])],
        result,
        "`tosa.intdiv`: division by zero, or of the least integer by -1",
    );
    check_error(
        Gather {},
        &[&i8s(&[1, 2, 1], &[1, 2]), &i32s(&[1, 1], &[2])],
        TensorType::new([1, 1, 1], ElemType::I8),
        "`tosa.gather`: index 2 is not among 2 values",
    );
}

#[test]
fn results_have_the_declared_type() {
    check_error(
        Reshape {},
        &[&i8s(&[2], &[1, 2]), &shape(&[2, 1])],
        TensorType::new([1, 2], ElemType::I8),
        "`tosa.reshape` computes tensor<2x1xi8>, its result type is tensor<1x2xi8>",
    );
}

/// Wraps each op of `func` that is no constant and no terminator into a `strata.stage` of its own, all of
/// them in one `strata.phase`.
fn wrap_in_stages(module: &Module, func: OpId) -> (Module, OpId) {
    let mut out = Module::new();
    let from = module.entry_block(func);
    let Op::Func(kind) = &module.op(func).op else { panic!("a function") };
    let (new_func, block) = out.add_function("main", kind.function_type.clone());
    let mut map: std::collections::BTreeMap<ValueId, ValueId> =
        module.args(from).iter().copied().zip(out.args(block).to_vec()).collect();
    let returned = module.terminator(from).map(|op| module.op(op).operands().to_vec()).expect("a return");
    let types: Vec<Type> = kind.function_type.results.clone();
    let phase = out.append(block, Phase { plan: Attribute::Unit }, &[], &types, Location::unknown());
    let region = out.add_region(phase);
    let body = out.add_block(region, &[]);
    for &op in module.block_ops(from) {
        let data = module.op(op);
        if data.op.is_terminator() {
            continue;
        }
        let result = module.ty(module.result(op)).clone();
        let operands: Vec<ValueId> = data.operands().iter().map(|v| map[v]).collect();
        let new = if data.op.is_constant() {
            out.append(body, data.op.clone(), &operands, &[result], Location::unknown())
        } else {
            let stage = Stage { name: data.op.name().to_owned(), code: Attribute::Unit };
            let inputs: Vec<Type> = operands.iter().map(|&v| out.ty(v).clone()).collect();
            let stage =
                out.append(body, stage, &operands, std::slice::from_ref(&result), Location::unknown());
            let region = out.add_region(stage);
            let inner = out.add_block(region, &inputs);
            let args = out.args(inner).to_vec();
            let op = out.append(inner, data.op.clone(), &args, &[result], Location::unknown());
            let value = out.result(op);
            out.append(inner, Yield {}, &[value], &[], Location::unknown());
            stage
        };
        map.insert(module.result(op), out.result(new));
    }
    let yielded: Vec<ValueId> = returned.iter().map(|v| map[v]).collect();
    out.append(body, Yield {}, &yielded, &[], Location::unknown());
    let results = out.op(phase).results().to_vec();
    out.append(block, FuncReturn {}, &results, &[], Location::unknown());
    (out, new_func)
}

#[test]
fn stages_and_phases_change_nothing() {
    for seed in 0..12 {
        let module = random_network(seed, &RandomOptions::default());
        let func = module.function("main").expect("the generator makes `main`");
        let inputs = random_inputs(&module, func, seed);
        let (wrapped, wrapped_func) = wrap_in_stages(&module, func);
        let plain = eval_function(&module, func, inputs.clone());
        assert!(plain.is_ok(), "seed {seed}: {plain:?}");
        assert_eq!(eval_function(&wrapped, wrapped_func, inputs), plain, "seed {seed}");
    }
}

#[test]
fn the_observer_sees_every_value_once() {
    let module = random_network(3, &RandomOptions::default());
    let func = module.function("main").expect("the generator makes `main`");
    let block = module.entry_block(func);
    let mut seen = Vec::new();
    let mut observe = |value: ValueId, tensor: &Tensor| {
        assert!(has_type(tensor, module.ty(value)));
        seen.push(value);
    };
    let inputs = random_inputs(&module, func, 3);
    eval_function_with(&module, func, inputs, &mut observe).expect("the network evaluates");
    let mut want = module.args(block).to_vec();
    want.extend(module.block_ops(block).iter().flat_map(|&op| module.op(op).results()));
    assert_eq!(seen, want);
}

#[test]
fn errors_name_the_place() {
    let mut module = Module::new();
    let ty = Type::tensor([1], ElemType::I32);
    let signature = FunctionType { inputs: vec![ty.clone()], results: vec![ty.clone()] };
    let (func, block) = module.add_function("main", signature);
    let arg = module.args(block)[0];
    let zero = module.append_const(block, i32s(&[1], &[0]), Location::unknown());
    let op = module.append(block, IntDiv {}, &[arg, zero], &[ty], Location::named("quotient"));
    let result = module.result(op);
    module.append(block, FuncReturn {}, &[result], &[], Location::unknown());
    let error = eval_function(&module, func, vec![i32s(&[1], &[4])]).expect_err("division by zero");
    let message = "loc(\"quotient\"): `tosa.intdiv`: division by zero, or of the least integer by -1";
    assert_eq!(error.to_string(), message);
    let error = eval_function(&module, func, vec![i8s(&[1], &[4])]).expect_err("an input of another type");
    assert_eq!(error.to_string(), "the function takes (tensor<1xi32>), found (tensor<1xi8>)");
    let operands = [Arc::new(i32s(&[1], &[9])), Arc::new(i32s(&[1], &[-2]))];
    let quotient = eval_op(&module, op, &operands).expect("9 / -2");
    assert_eq!(*quotient[0], i32s(&[1], &[-4]));
}
