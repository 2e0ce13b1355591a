//! Quantised networks against the f32 ones they came from.

use std::sync::Arc;

use strata_ir::attr::{FunctionType, NanMode, ResizeMode};
use strata_ir::build::Builder;
use strata_ir::dialect::*;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{Rng, random_inputs};
use strata_ir::verify::verify;
use strata_ir::{Attribute, ElemType, Location, Module, Op, Tensor, Type, ValueId};

use super::*;

mod choices;
mod given;
mod ranges;
mod whole;

/// A network under construction: one f32 argument, seeded weights.
pub(crate) struct Net {
    pub(crate) module: Module,
    block: strata_ir::BlockId,
    rng: Rng,
    n_layers: usize,
}

impl Net {
    /// A network of one argument; returns it too.
    pub(crate) fn new(shape: &[usize]) -> (Self, ValueId) {
        let mut module = Module::new();
        let ty = FunctionType { inputs: vec![Type::tensor(shape, ElemType::F32)], results: Vec::new() };
        let (_, block) = module.add_function("main", ty);
        let arg = module.args(block)[0];
        (Self { module, block, rng: Rng::new(7), n_layers: 0 }, arg)
    }

    pub(crate) fn op(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.n_layers += 1;
        let mut builder = Builder::new(&mut self.module, self.block);
        builder.loc = Location::named(format!("layer{}", self.n_layers));
        builder.op(op, operands).unwrap_or_else(|e| panic!("{e:?}"))
    }

    pub(crate) fn constant(&mut self, shape: &[usize], data: Vec<f32>) -> ValueId {
        Builder::new(&mut self.module, self.block).const_f32(shape, data)
    }

    fn scalar(&mut self, rank: usize, value: f32) -> ValueId {
        self.constant(&vec![1; rank], vec![value])
    }

    fn extents(&mut self, extents: &[i64]) -> ValueId {
        Builder::new(&mut self.module, self.block).shape(extents)
    }

    pub(crate) fn zero_point(&mut self) -> ValueId {
        self.constant(&[1], vec![0.0])
    }

    pub(crate) fn noise(&mut self, shape: &[usize], scale: f32) -> ValueId {
        let n = shape.iter().product();
        let data = (0..n).map(|_| gaussian(&mut self.rng) * scale).collect();
        self.constant(shape, data)
    }

    pub(crate) fn shape(&self, value: ValueId) -> Vec<usize> {
        self.module.tensor_ty(value).shape.clone()
    }

    pub(crate) fn conv(&mut self, x: ValueId, channels: usize, k: usize, stride: i64) -> ValueId {
        let depth = self.shape(x)[3];
        let weight = self.noise(&[channels, k, k, depth], (1.5 / (k * k * depth) as f32).sqrt());
        let bias = self.noise(&[channels], 0.1);
        let (a, b) = (self.zero_point(), self.zero_point());
        let (p, e) = ((k / 2) as i64, ElemType::F32);
        // TOSA wants strides to divide: take the far padding away where one is left over.
        let far = if stride == 2 && self.shape(x)[1].is_multiple_of(2) { p - 1 } else { p };
        let pad = [p, far, p, far];
        let op = Conv2d { pad, stride: [stride; 2], dilation: [1, 1], acc_type: e, local_bound: false };
        self.op(op, &[x, weight, bias, a, b])
    }

    pub(crate) fn depthwise(&mut self, x: ValueId) -> ValueId {
        let channels = self.shape(x)[3];
        let weight = self.noise(&[3, 3, channels, 1], 0.4);
        let bias = self.noise(&[channels], 0.1);
        let (a, b) = (self.zero_point(), self.zero_point());
        let acc_type = ElemType::F32;
        let op =
            DepthwiseConv2d { pad: [1; 4], stride: [1, 1], dilation: [1, 1], acc_type, local_bound: false };
        self.op(op, &[x, weight, bias, a, b])
    }

    pub(crate) fn clamp(&mut self, x: ValueId, low: f64, high: f64) -> ValueId {
        let bound = |v| Attribute::Float(v, Some(ElemType::F32));
        self.op(Clamp { min_val: bound(low), max_val: bound(high), nan_mode: NanMode::Propagate }, &[x])
    }

    pub(crate) fn relu(&mut self, x: ValueId) -> ValueId {
        self.clamp(x, 0.0, f64::from(f32::MAX))
    }

    pub(crate) fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op(Add {}, &[a, b])
    }

    pub(crate) fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let shift = Builder::new(&mut self.module, self.block).const_i8(&[1], vec![0]);
        self.op(Mul {}, &[a, b, shift])
    }

    pub(crate) fn leaky(&mut self, x: ValueId) -> ValueId {
        let alpha = self.scalar(4, 0.1);
        let scaled = self.mul(x, alpha);
        self.op(Maximum { nan_mode: NanMode::Propagate }, &[x, scaled])
    }

    pub(crate) fn max_pool(&mut self, x: ValueId) -> ValueId {
        let op = MaxPool2d { kernel: [2, 2], stride: [2, 2], pad: [0; 4], nan_mode: NanMode::Propagate };
        self.op(op, &[x])
    }

    pub(crate) fn average(&mut self, x: ValueId) -> ValueId {
        let shape = self.shape(x);
        let kernel = [shape[1] as i64, shape[2] as i64];
        let (a, b) = (self.zero_point(), self.zero_point());
        self.op(AvgPool2d { kernel, stride: [1, 1], pad: [0; 4], acc_type: ElemType::F32 }, &[x, a, b])
    }

    /// Ends the network.
    pub(crate) fn finish(mut self, results: &[ValueId]) -> Module {
        self.module.append(self.block, FuncReturn {}, results, &[], Location::unknown());
        let types = results.iter().map(|&v| self.module.ty(v).clone()).collect();
        let names = (0..results.len())
            .map(|i| Attribute::Dict([("strata.name".to_owned(), Attribute::Str(format!("out{i}")))].into()));
        let names = Attribute::Array(names.collect());
        let func = self.module.function("main").expect("it was made");
        if let Op::Func(func) = &mut self.module.op_mut(func).op {
            func.function_type.results = types;
            func.res_attrs = Some(names);
        }
        self.module
    }
}

/// A normally distributed number, from twelve uniform ones.
fn gaussian(rng: &mut Rng) -> f32 {
    (0..12).map(|_| rng.float(0.0, 1.0)).sum::<f32>() - 6.0
}

pub(crate) fn samples(module: &Module, n: usize) -> Vec<Vec<Arc<Tensor>>> {
    let func = module.function("main").expect("it was made");
    let mut rng = Rng::new(11);
    let args = module.args(module.entry_block(func));
    let mut sample = || -> Vec<Arc<Tensor>> {
        let tensor = |&arg: &ValueId| {
            let ty = module.tensor_ty(arg);
            let data = (0..ty.n_elements()).map(|_| gaussian(&mut rng)).collect();
            Arc::new(Tensor::f32(ty.shape.clone(), data))
        };
        args.iter().map(tensor).collect()
    };
    (0..n).map(|_| sample()).collect()
}

fn func_attrs(module: &Module, name: &str) -> (Option<Attribute>, Option<Attribute>) {
    let func = module.function(name).expect("there is such a function");
    let Op::Func(func) = &module.op(func).op else { panic!("it is a function") };
    (func.arg_attrs.clone(), func.res_attrs.clone())
}

/// Runs a quantised module on f32 inputs: quantises, runs `@main`, dequantises, runs `@host` if there is one.
pub(crate) fn run_quantised(module: &Module, inputs: &[Arc<Tensor>]) -> Vec<Tensor> {
    let func = module.function("main").expect("it is there");
    let Op::Func(signature) = &module.op(func).op else { panic!("it is a function") };
    let (arg_attrs, res_attrs) = func_attrs(module, "main");
    let params = params_of(arg_attrs.as_ref(), &signature.function_type.inputs);
    let quantised = inputs.iter().zip(params).map(|(tensor, params)| {
        let params = params.expect("f32 arguments are quantised");
        let data = tensor.as_f32().expect("f32").iter();
        params.quantise_all(tensor.shape(), data.map(|&x| f64::from(x)))
    });
    let results = eval_function(module, func, quantised.collect()).unwrap_or_else(|e| panic!("{e}"));
    let params = params_of(res_attrs.as_ref(), &signature.function_type.results);
    let real =
        results.into_iter().zip(params).map(|(tensor, params)| match (params, tensor.data().to_ints()) {
            (Some(params), Some(data)) => {
                Tensor::f32(tensor.shape(), data.iter().map(|&q| params.dequantise(q) as f32).collect())
            }
            _ => tensor,
        });
    let real: Vec<Tensor> = real.collect();
    match module.function("host") {
        Some(host) => {
            let takes = module.args(module.entry_block(host)).iter().map(|&arg| module.tensor_ty(arg).elem);
            let as_taken = |(tensor, elem): (Tensor, ElemType)| match (elem, tensor.as_f32()) {
                (ElemType::I32, Some(data)) => {
                    Tensor::i32(tensor.shape(), data.iter().map(|&x| x as i32).collect())
                }
                _ => tensor,
            };
            let real = real.into_iter().zip(takes).map(as_taken).collect();
            eval_function(module, host, real).unwrap_or_else(|e| panic!("{e}"))
        }
        None => real,
    }
}

/// Quantises a network to `i8` and to `i16` and checks the noise of every result, in decibels, and that the
/// machine computes what the evaluator does; returns what came out in `i8`.
#[track_caller]
fn check(module: Module, least_db: f64) -> (Module, QuantReport) {
    let (narrow, report, narrow_db) = check_in(&module, Precision::Int8, least_db);
    let (_, _, wide_db) = check_in(&module, Precision::Int16, least_db);
    // The rest is the noise of the weights, which stay i8.
    assert!(
        wide_db.iter().zip(&narrow_db).all(|(w, n)| w > &(n + 1.0)),
        "{wide_db:?} against {narrow_db:?} dB"
    );
    (narrow, report)
}

/// [`check`] in one precision; returns the least decibels of every result too.
#[track_caller]
fn check_in(module: &Module, precision: Precision, least_db: f64) -> (Module, QuantReport, Vec<f64>) {
    let inputs = samples(module, 4);
    let calibration = Calibration::collect(module, &inputs).expect("the network runs");
    let mut quantised = module.clone();
    let options = QuantiseOptions { precision, ..QuantiseOptions::default() };
    let report = quantise(&mut quantised, &calibration, &options);
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    let main = module.function("main").expect("it was made");
    let mut all_db: Vec<f64> = Vec::new();
    for inputs in &inputs {
        let owned = inputs.iter().map(|t| (**t).clone()).collect();
        let reference = eval_function(module, main, owned).unwrap_or_else(|e| panic!("{e}"));
        let got = run_quantised(&quantised, inputs);
        assert_eq!(reference.len(), got.len());
        for (index, (want, got)) in reference.iter().zip(&got).enumerate() {
            assert_eq!(want.ty(), got.ty());
            let (Some(want), Some(got)) = (want.as_f32(), got.as_f32()) else { continue };
            let db = sqnr(want, got);
            assert!(db > least_db, "result {index}: {db:.1} dB\n{}", strata_ir::text::to_string(&quantised));
            all_db.resize(reference.len(), f64::INFINITY);
            all_db[index] = all_db[index].min(db);
        }
    }
    verify(&quantised).unwrap_or_else(|e| panic!("{e}"));
    let integers = random_inputs(&quantised, main, 3);
    let target = strata_isa_spec::Target::preset("x1", &[]).expect("a preset");
    let fault = crate::tests::difference(&mut quantised.clone(), &integers, &target, "multi");
    assert_eq!(fault, None, "{}", strata_ir::text::to_string(&quantised));
    all_db.retain(|db| db.is_finite());
    (quantised, report, all_db)
}

pub(crate) fn count(module: &Module, name: &str) -> usize {
    module.walk(module.body()).iter().filter(|&&op| module.op(op).op.name() == name).count()
}

#[test]
fn relu_is_the_saturation_of_the_rescale() {
    let (mut net, x) = Net::new(&[1, 10, 12, 3]);
    let y = net.conv(x, 16, 3, 1);
    let y = net.relu(y);
    let y = net.conv(y, 8, 3, 2);
    let y = net.clamp(y, 0.0, 6.0);
    let (module, report) = check(net.finish(&[y]), 30.0);
    assert_eq!((count(&module, "tosa.clamp"), count(&module, "tosa.table")), (0, 0));
    assert_eq!((report.n_convolutions, report.n_tables), (2, 0));
    assert_eq!(count(&module, "tosa.rescale"), 2);
}

#[test]
fn compositions_become_one_table() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 16, 3, 1);
    let y = net.leaky(y);
    let y = net.conv(y, 16, 3, 1);
    let gate = net.op(Sigmoid {}, &[y]);
    let y = net.mul(y, gate);
    let y = net.conv(y, 8, 1, 1);
    // Hard swish: x * clamp(x + 3, 0, 6) / 6.
    let (three, sixth) = (net.scalar(4, 3.0), net.scalar(4, 1.0 / 6.0));
    let shifted = net.add(y, three);
    let gate = net.clamp(shifted, 0.0, 6.0);
    let product = net.mul(y, gate);
    let y = net.mul(product, sixth);
    let (module, report) = check(net.finish(&[y]), 30.0);
    assert_eq!(report.n_tables, 3);
    assert_eq!(count(&module, "tosa.mul"), 0);
    // Sums go to i16, through the table, and only then to i8: a rescale before and one after each.
    assert_eq!(count(&module, "tosa.rescale"), 6);
    assert!(report.i16_layers.is_empty(), "no activation is i16: {:?}", report.i16_layers);
}

#[test]
fn residual_add() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 8, 3, 1);
    let y = net.relu(y);
    let z = net.conv(y, 8, 3, 1);
    let sum = net.add(y, z);
    let out = net.relu(sum);
    let (module, _) = check(net.finish(&[out]), 30.0);
    // One for each convolution, two for the operands of the sum and one after it, which also clamps.
    assert_eq!((count(&module, "tosa.rescale"), count(&module, "tosa.clamp")), (5, 0));
}

#[test]
fn subtraction_and_extremes() {
    let (mut net, x) = Net::new(&[1, 6, 6, 4]);
    let a = net.conv(x, 8, 3, 1);
    let b = net.conv(x, 8, 1, 1);
    let difference = net.op(Sub {}, &[a, b]);
    let greatest = net.op(Maximum { nan_mode: NanMode::Propagate }, &[a, b]);
    let least = net.op(Minimum { nan_mode: NanMode::Propagate }, &[a, b]);
    let vector = net.noise(&[1, 1, 1, 8], 1.0);
    let shifted = net.add(greatest, vector);
    check(net.finish(&[difference, greatest, least, shifted]), 30.0);
}

#[test]
fn concatenation_pools_and_moves_share_a_scale() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let a = net.conv(x, 8, 3, 1);
    let a = net.leaky(a);
    let b = net.max_pool(a);
    let up = Resize { mode: ResizeMode::NearestNeighbor };
    let (scale, offset, border) = (net.extents(&[4, 2, 4, 2]), net.extents(&[0, 0]), net.extents(&[2, 2]));
    let b = net.op(up, &[b, scale, offset, border]);
    let c = net.op(Concat { axis: 3 }, &[a, b]);
    let d = net.conv(c, 8, 1, 1);
    let (padding, zero) = (net.extents(&[0, 0, 1, 1, 1, 1, 0, 0]), net.zero_point());
    let d = net.op(Pad {}, &[d, padding, zero]);
    let d = net.op(Transpose { perms: vec![0, 2, 1, 3] }, &[d]);
    let (module, report) = check(net.finish(&[d]), 30.0);
    assert_eq!(report.n_rescales, 0);
    // One for each convolution, and one after the table of the first.
    assert_eq!(count(&module, "tosa.rescale"), 3);
}

#[test]
fn bilinear_resize_keeps_the_scale() {
    let (mut net, x) = Net::new(&[1, 5, 6, 4]);
    let a = net.conv(x, 8, 3, 1);
    let up = Resize { mode: ResizeMode::Bilinear };
    let (scale, offset, border) = (net.extents(&[4, 2, 4, 2]), net.extents(&[-1, -1]), net.extents(&[1, 1]));
    let b = net.op(up, &[a, scale, offset, border]);
    check(net.finish(&[b]), 30.0);
}

#[test]
fn squeeze_and_excitation() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 16, 3, 1);
    let y = net.relu(y);
    let s = net.average(y);
    let s = net.conv(s, 4, 1, 1);
    let s = net.relu(s);
    let s = net.conv(s, 16, 1, 1);
    let s = net.op(Sigmoid {}, &[s]);
    let y = net.mul(y, s);
    let y = net.depthwise(y);
    check(net.finish(&[y]), 28.0);
}

#[test]
fn mean_of_two_sums_stays_wide_between_them() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 16, 3, 1);
    let y = net.relu(y);
    let y = net.op(ReduceSum { axis: 1 }, &[y]);
    let y = net.op(ReduceSum { axis: 2 }, &[y]);
    let k = net.scalar(4, 1.0 / 64.0);
    let y = net.mul(y, k);
    let (module, report) = check(net.finish(&[y]), 30.0);
    assert_eq!(report.n_tables, 0, "a positive factor is a matter of scale");
    assert_eq!(count(&module, "tosa.rescale"), 3);
}

#[test]
fn slopes_of_any_sign_a_channel() {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 6, 3, 1);
    let alpha = net.constant(&[1, 1, 1, 6], vec![0.25, -0.5, 0.0, 1.0, 0.1, -0.02]);
    let zero = net.scalar(4, 0.0);
    let positive = net.op(GreaterEqual {}, &[y, zero]);
    let scaled = net.mul(y, alpha);
    let y = net.op(Select {}, &[positive, y, scaled]);
    check(net.finish(&[y]), 30.0);
}

#[test]
fn fully_connected_head_with_softmax_on_the_host() {
    let (mut net, x) = Net::new(&[1, 6, 6, 4]);
    let y = net.conv(x, 16, 3, 1);
    let y = net.relu(y);
    let y = net.average(y);
    let extents = net.extents(&[1, 1, 16]);
    let y = net.op(Reshape {}, &[y, extents]);
    let weight = net.noise(&[1, 16, 10], 1.0);
    let (a, b) = (net.zero_point(), net.zero_point());
    let y = net.op(MatMul {}, &[y, weight, a, b]);
    let logits = y;
    let greatest = net.op(ReduceMax { axis: 2, nan_mode: NanMode::Propagate }, &[y]);
    let y = net.op(Sub {}, &[y, greatest]);
    let y = net.op(Exp {}, &[y]);
    let sum = net.op(ReduceSum { axis: 2 }, &[y]);
    let inverse = net.op(Reciprocal {}, &[sum]);
    let y = net.mul(y, inverse);
    let class = net.op(Argmax { axis: 2, nan_mode: NanMode::Propagate }, &[logits]);
    let (module, report) = check(net.finish(&[y, class, logits]), 25.0);
    assert_eq!(report.host_ops.len(), 6, "{:?}", report.host_ops);
    let host = module.function("host").expect("softmax stays");
    assert_eq!(module.args(module.entry_block(host)).len(), 2, "class and logits; softmax needs the logits");
    let (_, names) = func_attrs(&module, "host");
    assert!(format!("{names:?}").contains("out2"));
}

#[test]
fn softmax_in_the_middle_runs_in_integers() {
    let (mut net, x) = Net::new(&[1, 4, 4, 8]);
    let y = net.conv(x, 8, 1, 1);
    let greatest = net.op(ReduceMax { axis: 3, nan_mode: NanMode::Propagate }, &[y]);
    let y = net.op(Sub {}, &[y, greatest]);
    let y = net.op(Exp {}, &[y]);
    let sum = net.op(ReduceSum { axis: 3 }, &[y]);
    let inverse = net.op(Reciprocal {}, &[sum]);
    let y = net.mul(y, inverse);
    let y = net.conv(y, 4, 1, 1);
    let (module, report) = check(net.finish(&[y]), 20.0);
    assert!(report.host_ops.is_empty());
    assert!(module.function("host").is_none());
}

#[test]
fn transposed_convolution_and_product_of_activations() {
    let (mut net, x) = Net::new(&[1, 5, 5, 4]);
    let weight = net.noise(&[6, 3, 3, 4], 0.3);
    let bias = net.noise(&[6], 0.1);
    let (a, b) = (net.zero_point(), net.zero_point());
    let acc_type = ElemType::F32;
    let op = TransposeConv2d { out_pad: [-1, -1, 0, -1], stride: [2, 2], acc_type, local_bound: false };
    let y = net.op(op, &[x, weight, bias, a, b]);
    let shape = net.shape(y);
    let rows = (shape[1] * shape[2]) as i64;
    let (left, right) = (net.extents(&[1, rows, 6]), net.extents(&[1, 6, rows]));
    let p = net.op(Reshape {}, &[y, left]);
    let q = net.op(Reshape {}, &[y, right]);
    let product = net.op(MatMul {}, &[p, q, a, b]);
    check(net.finish(&[y, product]), 30.0);
}

/// Two layers of which the second takes numbers far smaller than most of what its `i8` must hold.
fn lopsided() -> Module {
    let (mut net, x) = Net::new(&[1, 8, 8, 4]);
    let y = net.conv(x, 8, 3, 1);
    // Seven channels are a hundred times the eighth, which alone counts in what follows.
    let gains = net.constant(&[1, 1, 1, 8], vec![100.0, 90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 1.0]);
    let y = net.mul(y, gains);
    let weight = net.constant(&[8, 1, 1, 8], (0..64).map(|i| if i % 8 == 7 { 1.0 } else { 1e-3 }).collect());
    let bias = net.noise(&[8], 0.1);
    let (a, b) = (net.zero_point(), net.zero_point());
    let (p, e) = ([0; 4], ElemType::F32);
    let op = Conv2d { pad: p, stride: [1; 2], dilation: [1, 1], acc_type: e, local_bound: false };
    let y = net.op(op, &[y, weight, bias, a, b]);
    let y = net.relu(y);
    let y = net.conv(y, 4, 3, 1);
    net.finish(&[y])
}

#[test]
fn the_search_finds_what_makes_the_noise() {
    let module = lopsided();
    let inputs = samples(&module, 4);
    let calibration = Calibration::collect(&module, &inputs).expect("the network runs");
    let goal = mixed::Goal { budget_percent: 40.0, target_db: None, winograd: true };
    let options = QuantiseOptions::default();
    let found = mixed::search(&module, &calibration, &inputs, &options, &goal).expect("it searches");
    let worst = &found.candidates[0];
    assert!(worst.promoted && worst.noise_share > 0.3, "{worst:?}");
    assert!(found.cost_percent <= 40.0 && found.after_db > found.before_db + 3.0, "{found:?}");
    let (_, _, before) = check_in(&module, Precision::Int8, 0.0);
    let (quantised, report, after) = check_in(&module, found.precision.clone(), 0.0);
    assert!(after[0] > before[0] + 3.0, "{before:?} became {after:?}");
    assert_eq!(worst.layers, ["layer2"]);
    assert_eq!(report.i16_layers.first(), worst.layers.first());
    let is_wide =
        |op: &&OpId| matches!(&quantised.op(**op).op, Op::Conv2d(conv) if conv.acc_type == ElemType::I48);
    assert_eq!(
        quantised.walk(quantised.body()).iter().filter(is_wide).count(),
        1,
        "one layer of three is i16"
    );

    let none = mixed::Goal { target_db: Some(found.before_db - 1.0), ..goal };
    let none = mixed::search(&module, &calibration, &inputs, &options, &none).expect("it searches");
    assert_eq!(none.precision, Precision::Mixed(Default::default()), "the target is met without");
    let free = mixed::Goal { budget_percent: 0.0, ..goal };
    let free = mixed::search(&module, &calibration, &inputs, &options, &free).expect("it searches");
    assert_eq!(free.cost_percent, 0.0);
}

#[test]
fn layers_are_chosen_by_name() {
    let module = lopsided();
    let main = module.function("main").expect("it was made");
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Precision::Int8.with_layers(&module, main, &names)
    };
    assert_eq!(named(&["layer1", "nothing", "none"]), Err(vec!["nothing".to_owned(), "none".to_owned()]));
    let (_, report, _) = check_in(&module, named(&["layer2"]).expect("there is such a layer"), 0.0);
    assert_eq!(report.i16_layers, ["layer2"]);
}

#[test]
fn long_means_of_16_bits_do_not_overflow() {
    let (mut net, x) = Net::new(&[1, 300, 260, 1]);
    let y = net.op(ReduceSum { axis: 1 }, &[x]);
    let y = net.op(ReduceSum { axis: 2 }, &[y]);
    check_in(&net.finish(&[y]), Precision::Int16, 30.0);
}

#[test]
fn all_ops_without_an_integer_form_are_listed() {
    let (mut net, x) = Net::new(&[1, 4, 4, 8]);
    let y = net.conv(x, 8, 1, 1);
    let y = net.op(Abs {}, &[y]);
    let product = net.op(ReduceProduct { axis: 3 }, &[y]);
    let power = net.op(Pow {}, &[y, product]);
    let y = net.conv(power, 4, 1, 1);
    let mut module = net.finish(&[y]);
    let calibration =
        Calibration::collect(&module, &samples(&module, 1)).expect("powers of positive numbers are finite");
    match quantise(&mut module, &calibration, &QuantiseOptions::default()) {
        Err(PassError::Unsupported(ops)) => {
            let ops: Vec<_> = ops.iter().map(|op| op.op).collect();
            assert_eq!(ops, ["tosa.reduce_product", "tosa.pow"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_calibration_serves_another_size_but_not_another_network() {
    let build = |size: usize, layers: usize| {
        let (mut net, mut y) = Net::new(&[1, size, size, 3]);
        for _ in 0..layers {
            y = net.conv(y, 4, 3, 1);
            y = net.leaky(y);
        }
        net.finish(&[y])
    };
    let small = build(6, 2);
    let calibration = Calibration::collect(&small, &samples(&small, 2)).expect("it runs");
    let mut large = build(16, 2);
    assert!(quantise(&mut large, &calibration, &QuantiseOptions::default()).is_ok());
    let mut other = build(6, 3);
    assert!(quantise(&mut other, &calibration, &QuantiseOptions::default()).is_err());
}

#[test]
fn forward_agrees_with_the_evaluator() {
    let (mut net, x) = Net::new(&[1, 30, 31, 3]);
    let y = net.conv(x, 150, 3, 1);
    let y = net.relu(y);
    let y = net.depthwise(y);
    let y = net.conv(y, 200, 1, 1);
    let z = net.average(y);
    let z = net.conv(z, 300, 1, 1);
    let module = net.finish(&[y, z]);
    let main = module.function("main").expect("it was made");
    let inputs = samples(&module, 1).remove(0);
    let fast = forward(&module, main, &inputs, &mut |_, _| {}).expect("it runs");
    let slow = eval_function(&module, main, vec![(*inputs[0]).clone()]).expect("it runs");
    for (fast, slow) in fast.iter().zip(&slow) {
        let db = sqnr(slow.as_f32().expect("f32"), fast.as_f32().expect("f32"));
        assert!(db > 110.0, "{db} dB");
    }
}
