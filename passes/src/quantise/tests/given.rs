//! Networks that come quantised: their integers and scales, exactly.

use super::*;

/// Scale and zero point of `u8`.
type Given = (f32, i64);

impl Net {
    pub(super) fn op_as(&mut self, op: impl Into<Op>, operands: &[ValueId], elem: ElemType) -> ValueId {
        Builder::new(&mut self.module, self.block)
            .op_as(op, operands, elem)
            .unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn ints(&mut self, rank: usize, value: i64) -> ValueId {
        self.module.append_const(
            self.block,
            Tensor::i32(vec![1; rank], vec![value as i32]),
            Location::unknown(),
        )
    }

    fn rank(&self, value: ValueId) -> usize {
        self.shape(value).len()
    }

    /// Quantises to `u8`, as the importer writes it.
    fn quantise(&mut self, x: ValueId, (scale, zero_point): Given) -> ValueId {
        let rank = self.rank(x);
        let scale = self.scalar(rank, scale);
        let inverse = self.op(Reciprocal {}, &[scale]);
        let steps = self.mul(x, inverse);
        let bounded = self.clamp(steps, -(zero_point as f64), (255 - zero_point) as f64);
        let rounded = self.op_as(Cast {}, &[bounded], ElemType::I32);
        let zero_point = self.ints(rank, zero_point);
        self.add(rounded, zero_point)
    }

    fn dequantise(&mut self, q: ValueId, (scale, zero_point): Given) -> ValueId {
        let rank = self.rank(q);
        let zero_point = self.ints(rank, zero_point);
        let centred = self.op(Sub {}, &[q, zero_point]);
        let real = self.op_as(Cast {}, &[centred], ElemType::F32);
        let scale = self.scalar(rank, scale);
        self.mul(real, scale)
    }

    fn round(&mut self, x: ValueId, given: Given) -> ValueId {
        let q = self.quantise(x, given);
        self.dequantise(q, given)
    }

    /// Weights of 1x1 `[OC, 1, 1, IC]` from integers less `zero_point`, with a scale for each output channel.
    fn weights(&mut self, ints: &[i8], zero_point: f32, scales: &[f32]) -> ValueId {
        let shape = [scales.len(), 1, 1, ints.len() / scales.len()];
        let stored = Tensor::i8(shape, ints.to_vec());
        let stored = self.module.append_const(self.block, stored, Location::unknown());
        let mut real = self.op_as(Cast {}, &[stored], ElemType::F32);
        if zero_point != 0.0 {
            let zero_point = self.scalar(4, zero_point);
            real = self.op(Sub {}, &[real, zero_point]);
        }
        let scales = self.constant(&[scales.len(), 1, 1, 1], scales.to_vec());
        self.mul(real, scales)
    }

    fn pointwise(&mut self, x: ValueId, weight: ValueId, bias: &[f32]) -> ValueId {
        let bias = self.constant(&[bias.len()], bias.to_vec());
        let (a, b, acc_type) = (self.zero_point(), self.zero_point(), ElemType::F32);
        let (pad, stride, dilation) = ([0; 4], [1, 1], [1, 1]);
        self.op(Conv2d { pad, stride, dilation, acc_type, local_bound: false }, &[x, weight, bias, a, b])
    }
}

/// Quantises without a calibration.
#[track_caller]
fn quantised(module: &Module) -> (Module, QuantReport) {
    let given = given_scales(module);
    assert!(!given.needs_calibration && given.n_fixed > 0, "{given:?}");
    let mut quantised = module.clone();
    let report = quantise(&mut quantised, &Calibration::none(), &QuantiseOptions::default());
    verify(&quantised).unwrap_or_else(|e| panic!("{e}"));
    (quantised, report.unwrap_or_else(|e| panic!("{e}")))
}

/// The integers of the result of either module for an input.
fn both(module: &Module, quantised: &Module, input: &Tensor) -> (Vec<i64>, Vec<i64>) {
    let main = |module: &Module| module.function("main").expect("it is there");
    let want = eval_function(module, main(module), vec![input.clone()]).unwrap_or_else(|e| panic!("{e}"));
    let got = run_quantised(quantised, &[Arc::new(input.clone())]);
    (ints(&want[0]), ints(&got[0]))
}

/// The whole numbers of a tensor.
pub(super) fn ints(tensor: &Tensor) -> Vec<i64> {
    match tensor.as_f32() {
        Some(values) => values.iter().map(|&v| v as i64).collect(),
        None => tensor.data().to_ints().expect("integers"),
    }
}

fn i8_constants(module: &Module) -> Vec<Vec<i8>> {
    let ops = module.walk(module.body());
    let tensors = ops.iter().filter_map(|&op| module.op(op).op.constant().map(|e| e.tensor.clone()));
    tensors.filter_map(|t| t.as_i8().map(<[i8]>::to_vec)).collect()
}

fn close(want: &[i64], got: &[i64]) -> bool {
    want.len() == got.len() && want.iter().zip(got).all(|(a, b)| a.abs_diff(*b) <= 1)
}

#[test]
fn scales_zero_points_and_weights_are_the_models() {
    let (mut net, x) = Net::new(&[1, 5, 4, 2]);
    let x = net.round(x, (0.02, 3));
    // Integers less their zero point need nine bits: the convolution has to take the zero point.
    let weight = net.weights(&[-128, 127, 5, -60, 0, 1], -100.0, &[0.01, 0.02, 0.03]);
    let y = net.pointwise(x, weight, &[0.5, -1.0, 0.25]);
    let y = net.relu(y);
    let y = net.quantise(y, (0.04, 7));
    let module = net.finish(&[y]);
    let (quantised, report) = quantised(&module);
    assert_eq!((report.n_convolutions, report.n_tables, report.n_requantised), (1, 0, 0));
    assert!(i8_constants(&quantised).contains(&vec![-128, 127, 5, -60, 0, 1]));
    assert!(i8_constants(&quantised).contains(&vec![-100]));
    let (arg_attrs, res_attrs) = func_attrs(&quantised, "main");
    let byte = [Type::tensor([1], ElemType::I8)];
    let params = params_of(arg_attrs.as_ref(), &byte)[0].expect("quantised");
    assert_eq!((params.scale, params.zero_point), (f64::from(0.02_f32), 3 - 128));
    // The user sees integers from 0 to 255.
    let params = params_of(res_attrs.as_ref(), &byte)[0].expect("quantised");
    assert_eq!((params.scale, params.zero_point), (1.0, -128));
    for sample in samples(&module, 3) {
        let (want, got) = both(&module, &quantised, &sample[0]);
        assert!(close(&want, &got), "{want:?}\n{got:?}");
        assert!(want.iter().any(|&q| q > 7) && want.iter().all(|q| (7..=255).contains(q)));
    }
}

#[test]
fn scales_that_differ_are_bridged_exactly() {
    let (mut net, x) = Net::new(&[1, 4, 4, 3]);
    let a = net.round(x, (0.05, 128));
    let pooled = net.max_pool(a);
    let pooled = net.round(pooled, (0.03, 100));
    let same = net.max_pool(a);
    let same = net.round(same, (0.05, 128));
    let joined = net.op(Concat { axis: 3 }, &[pooled, same]);
    let out = net.quantise(joined, (0.04, 128));
    let module = net.finish(&[out]);
    let (quantised, report) = quantised(&module);
    // One table from the first scale to the second, and a rescale for each operand of the concatenation.
    assert_eq!((report.n_tables, report.n_rescales), (1, 2));
    for sample in samples(&module, 3) {
        let (want, got) = both(&module, &quantised, &sample[0]);
        assert!(close(&want, &got), "{want:?}\n{got:?}");
    }
}

#[test]
fn a_mean_at_a_scale_of_its_own_is_rounded_once() {
    let (mut net, x) = Net::new(&[1, 4, 4, 3]);
    let a = net.round(x, (0.08, 128));
    let mean = net.average(a);
    let out = net.quantise(mean, (0.005, 128));
    let module = net.finish(&[out]);
    let (quantised, _) = quantised(&module);
    for sample in samples(&module, 3) {
        let (want, got) = both(&module, &quantised, &sample[0]);
        // A mean at the input's scale would be off by up to eight of these steps.
        assert!(close(&want, &got), "{want:?}\n{got:?}");
    }
}

#[test]
fn what_only_moves_is_rounded_before() {
    let (mut net, x) = Net::new(&[1, 4, 4, 2]);
    let a = net.round(x, (0.02, 128));
    let weight = net.weights(&[100, -50, 30, 70], 0.0, &[0.01, 0.02]);
    let y = net.pointwise(a, weight, &[0.0, 0.0]);
    let y = net.leaky(y);
    let y = net.max_pool(y);
    let out = net.quantise(y, (0.04, 40));
    let module = net.finish(&[out]);
    let func = module.function("main").expect("it was made");
    assert!(given_scales(&module).needs_calibration, "the convolution's own result has no scale");
    let calibration = Calibration::collect(&module, &samples(&module, 2)).expect("it runs");
    let mut quantised = module.clone();
    let report = quantise(&mut quantised, &calibration, &QuantiseOptions::default());
    assert_eq!(report.map(|r| r.n_tables).unwrap_or_else(|e| panic!("{e}")), 1, "the table takes the scale");
    assert!(calibration.ranges(&module, func, RangeChoice::MinMax).is_ok());
}

#[test]
fn a_scale_computed_from_the_data_becomes_a_calibrated_one() {
    let (mut net, x) = Net::new(&[1, 4, 4, 2]);
    let most =
        (0..4).fold(x, |sofar, axis| net.op(ReduceMax { axis, nan_mode: NanMode::Propagate }, &[sofar]));
    let (step, one) = (net.scalar(4, 0.004), net.scalar(4, 1.0));
    let step = net.mul(most, step);
    let step = net.op(Maximum { nan_mode: NanMode::Propagate }, &[step, one]);
    let inverse = net.op(Reciprocal {}, &[step]);
    let below = net.clamp(inverse, 0.0, 255.0);
    let zero = net.op_as(Cast {}, &[below], ElemType::I32);
    let steps = net.mul(x, inverse);
    let rounded = net.op_as(Cast {}, &[steps], ElemType::I32);
    let q = net.add(rounded, zero);
    // The integer product, and what it has too much.
    let offset = net.ints(4, -128);
    let (centred, zero) = (net.add(q, offset), net.add(zero, offset));
    let byte = net.op_as(Cast {}, &[centred], ElemType::I8);
    let weight = Tensor::i8([2, 1, 1, 2], vec![100, -50, 30, 70]);
    let weight = net.module.append_const(net.block, weight, Location::unknown());
    let bias = net.module.append_const(net.block, Tensor::i32([1], vec![0]), Location::unknown());
    let none = Builder::new(&mut net.module, net.block).const_i8(&[1], vec![0]);
    let (pad, stride, dilation, acc_type) = ([0; 4], [1, 1], [1, 1], ElemType::I32);
    let op = Conv2d { pad, stride, dilation, acc_type, local_bound: false };
    let sum = net.op(op, &[byte, weight, bias, none, none]);
    let sums = Tensor::i32([1, 1, 1, 2], vec![50, 100]);
    let sums = net.module.append_const(net.block, sums, Location::unknown());
    let excess = net.mul(zero, sums);
    let sum = net.op(Sub {}, &[sum, excess]);
    let sum = net.op_as(Cast {}, &[sum], ElemType::F32);
    let scale = net.constant(&[1, 1, 1, 1], vec![0.02]);
    let scale = net.mul(step, scale);
    let y = net.mul(sum, scale);
    let bias = net.constant(&[1, 1, 1, 2], vec![0.5, -0.5]);
    let y = net.add(y, bias);
    let module = net.finish(&[y]);
    let given = given_scales(&module);
    assert_eq!((given.n_dynamic, given.needs_calibration), (1, true));
    let calibration = Calibration::collect(&module, &samples(&module, 2)).expect("it runs");
    let mut quantised = module.clone();
    let report = quantise(&mut quantised, &calibration, &QuantiseOptions::default());
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    verify(&quantised).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((report.n_convolutions, report.n_tables), (1, 0));
    assert!(i8_constants(&quantised).contains(&vec![100, -50, 30, 70]));
    assert_eq!((count(&quantised, "tosa.reduce_max"), count(&quantised, "tosa.conv2d")), (0, 1));
    assert_eq!((count(&quantised, "tosa.add"), count(&quantised, "tosa.rescale")), (0, 1));
}

#[test]
fn a_tail_on_the_host_rounds_as_the_model_does() {
    let (mut net, x) = Net::new(&[1, 1, 1, 4]);
    let a = net.round(x, (0.03, 128));
    let power = net.op(Exp {}, &[a]);
    let sum = net.op(ReduceSum { axis: 3 }, &[power]);
    let inverse = net.op(Reciprocal {}, &[sum]);
    let share = net.mul(power, inverse);
    let out = net.quantise(share, (1.0 / 256.0, 0));
    let module = net.finish(&[out]);
    let (quantised, report) = quantised(&module);
    assert!(report.host_ops.len() >= 4, "{report:?}");
    for sample in samples(&module, 3) {
        let (want, got) = both(&module, &quantised, &sample[0]);
        assert_eq!(want, got);
    }
}

/// Makes the argument of a network integers of an ONNX type, as the importer does.
pub(super) fn integer_argument(net: &mut Net, x: ValueId, dtype: &str) {
    let ty = net.module.tensor_ty(x).with_elem(ElemType::I32);
    net.module.set_ty(x, ty.clone());
    let func = net.module.function("main").expect("it was made");
    let Op::Func(func) = &mut net.module.op_mut(func).op else { panic!("it is a function") };
    func.function_type.inputs = vec![ty.into()];
    let dtype = ("strata.dtype".to_owned(), Attribute::Str(dtype.to_owned()));
    func.arg_attrs = Some(Attribute::Array(vec![Attribute::Dict([dtype].into())]));
}

/// What a quantised module makes of the integers that its user gives.
fn outputs_for(quantised: &Module, integers: &[i32], shape: &[usize]) -> Vec<Vec<f32>> {
    let input = Tensor::f32(shape, integers.iter().map(|&q| q as f32).collect());
    let results = run_quantised(quantised, &[Arc::new(input)]);
    results.iter().map(|t| t.as_f32().expect("reals").to_vec()).collect()
}

#[test]
fn a_dequantised_argument_is_returned_as_the_real_that_it_is() {
    let (mut net, x) = Net::new(&[1, 1, 2, 2]);
    integer_argument(&mut net, x, "u8");
    let real = net.dequantise(x, (0.25, 3));
    let turned = net.op(Transpose { perms: vec![0, 1, 3, 2] }, &[real]);
    // Beside the reals the integers themselves.
    let module = net.finish(&[real, turned, x]);
    let (quantised, _) = quantised(&module);
    let got = outputs_for(&quantised, &[0, 3, 100, 255], &[1, 1, 2, 2]);
    assert_eq!(got[0], [-0.75, 0.0, 24.25, 63.0]);
    assert_eq!(got[1], [-0.75, 24.25, 0.0, 63.0]);
    assert_eq!(got[2], [0.0, 3.0, 100.0, 255.0]);
}

#[test]
fn integers_without_any_float_are_moved_as_they_are() {
    for (dtype, least) in [("u8", 0), ("i8", -128), ("u16", 0), ("i16", -32768)] {
        let (mut net, x) = Net::new(&[1, 2, 2, 1]);
        integer_argument(&mut net, x, dtype);
        let float = net.op_as(Cast {}, &[x], ElemType::F32);
        let most = net.max_pool(float);
        let most = net.op_as(Cast {}, &[most], ElemType::I32);
        let module = net.finish(&[most]);
        let (quantised, _) = quantised(&module);
        let got = outputs_for(&quantised, &[least, least + 90, least + 7, least + 254], &[1, 2, 2, 1]);
        assert_eq!(got[0], [(least + 254) as f32], "{dtype}");
    }
}

impl Net {
    /// Rounds to `i16` or `u16`, as the importer writes it: `zero_point` is less than the type's least
    /// integer.
    fn round_wide(&mut self, x: ValueId, scale: f32, [least, greatest]: [i32; 2]) -> ValueId {
        let rank = self.rank(x);
        let scale = self.scalar(rank, scale);
        let inverse = self.op(Reciprocal {}, &[scale]);
        let steps = self.mul(x, inverse);
        let bounded = self.clamp(steps, least.into(), greatest.into());
        let rounded = self.op_as(Cast {}, &[bounded], ElemType::I32);
        let real = self.op_as(Cast {}, &[rounded], ElemType::F32);
        self.mul(real, scale)
    }
}

#[test]
fn sixteen_bits_are_within_a_step() {
    // Signed; with a zero point; unsigned after a ReLU; and of which 0 is anywhere.
    for ends in [[-32768, 32767], [-30000, 35535], [0, 65535], [-65535, 0], [-1, 65534]] {
        let (mut net, x) = Net::new(&[1, 5, 4, 2]);
        let scale = 1e-4;
        let a = net.round_wide(x, scale, [-32768, 32767]);
        let weight = net.weights(&[100, -50, 30, 70, -128, 127], 0.0, &[0.003, 0.004, 0.002]);
        let y = net.pointwise(a, weight, &[0.5, -1.0, 0.25]);
        let y = net.round_wide(y, scale, ends);
        let module = net.finish(&[y]);
        let (quantised, report) = quantised(&module);
        assert_eq!((report.n_convolutions, report.n_requantised), (1, 0));
        let main = module.function("main").expect("it is there");
        for sample in samples(&module, 2) {
            let want =
                eval_function(&module, main, vec![(*sample[0]).clone()]).unwrap_or_else(|e| panic!("{e}"));
            let got = run_quantised(&quantised, &sample);
            let pairs = want[0].as_f32().expect("f32").iter().zip(got[0].as_f32().expect("f32"));
            let worst = pairs.map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max);
            assert!(worst < 1.01, "{ends:?}: {worst} steps");
            assert!(want[0].as_f32().is_some_and(|reals| reals.iter().any(|&x| x != 0.0)), "{ends:?}");
        }
    }
}
