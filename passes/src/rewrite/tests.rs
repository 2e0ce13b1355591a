//! Rewritten networks against the evaluator and the machine.
//!
//! Exactness is tested with cost ignored: every rewrite is taken, and random ones are. Each family has
//! networks on which its rules must apply, with random weights, zero points, scales and extents; then
//! networks of all kinds.

use std::collections::BTreeSet;

use strata_ir::attr::{FunctionType, NanMode, ResizeMode, RoundingMode};
use strata_ir::build::Builder;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{RandomOptions, Rng, random_inputs, random_network};
use strata_ir::pass::Level;
use strata_ir::{Attribute, ElemType, Module, OpId, Tensor, TensorData, Type, ValueId, dialect, verify};
use strata_isa_spec::{Target, interp};

use crate::rewrite::convert::Function;
use crate::rewrite::extract::{Choice, ExtractionProblem};
use crate::rewrite::{Families, Outcome, rewrite, saturate};
use crate::tests::run_passes;

fn target(name: &str) -> Target {
    Target::preset(name, &[]).expect("a preset")
}

fn main_of(module: &Module) -> OpId {
    module.function("main").expect("there is a @main")
}

fn only(family: &str) -> Families {
    Families::parse(family, ',').expect("a family")
}

fn take(module: &mut Module, families: &Families, choice: Choice) -> Outcome {
    let block = module.entry_block(main_of(module));
    match rewrite(module, block, &target("x1"), families, choice) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error}"),
    }
}

fn results(module: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    match eval_function(module, main_of(module), inputs.to_vec()) {
        Ok(results) => results,
        Err(error) => panic!("{error}\n{}", strata_ir::text::to_string(module)),
    }
}

/// Rewrites a copy of a module, and holds that it verifies and gives the same results. Gives the rules that
/// were taken.
fn holds(
    module: &Module,
    families: &Families,
    choice: Choice,
    what: &str,
) -> (Module, BTreeSet<&'static str>) {
    let mut after = module.clone();
    let outcome = take(&mut after, families, choice);
    if let Err(problems) = verify(&after) {
        panic!("{what}: {problems}\n{}", strata_ir::text::to_string(&after));
    }
    for seed in 0..2 {
        let inputs = random_inputs(module, main_of(module), seed);
        assert_eq!(results(module, &inputs), results(&after, &inputs), "{what}, inputs {seed}");
    }
    (
        after,
        outcome.counts.into_iter().map(|(rule, _)| rule).filter(|rule| !rule.starts_with("cycles")).collect(),
    )
}

/// The machine's results.
fn run_program(module: &Module, inputs: &[Tensor], target: &Target) -> Vec<Vec<u8>> {
    let mut module = module.clone();
    Level::Quant.mark(&mut module);
    if let Err(failure) = run_passes(&mut module, "form-stages,split-channels,fuse-layers,schedule", target) {
        panic!("{failure}\n{}", strata_ir::text::to_string(&module));
    }
    let lowered = strata_backend::emit::lower(&module).expect("scheduled modules are lowered");
    let errors = strata_isa_spec::verify::verify(&lowered.program, target);
    assert!(errors.is_empty(), "{errors:?}");
    let bytes: Vec<Vec<u8>> = inputs.iter().map(|tensor| tensor.data().to_bytes()).collect();
    interp::run(&lowered.program, target, &lowered.weights, &bytes).expect("a valid program runs")
}

/// A network under construction, with random weights, zero points and scales.
struct Net {
    module: Module,
    rng: Rng,
    block: strata_ir::BlockId,
}

fn no_unsigned(per_channel: bool) -> dialect::Rescale {
    dialect::Rescale {
        scale32: true,
        rounding_mode: RoundingMode::SingleRound,
        per_channel,
        input_unsigned: false,
        output_unsigned: false,
    }
}

impl Net {
    /// A network of inputs `[1, h, w, c]`.
    fn new(seed: u64, inputs: &[[usize; 3]]) -> Self {
        let types = inputs.iter().map(|&[h, w, c]| Type::tensor([1, h, w, c], ElemType::I8)).collect();
        let mut module = Module::new();
        let (_, block) = module.add_function("main", FunctionType { inputs: types, results: Vec::new() });
        Self { module, rng: Rng::new(seed), block }
    }

    fn input(&self, index: usize) -> ValueId {
        self.module.args(self.block)[index]
    }

    fn op(&mut self, op: impl Into<dialect::Op>, operands: &[ValueId]) -> ValueId {
        Builder::new(&mut self.module, self.block).op(op, operands).expect("a valid op")
    }

    fn ints(&mut self, elem: ElemType, shape: &[usize], least: i64, most: i64) -> ValueId {
        let n = shape.iter().product();
        let data: Vec<i64> = (0..n).map(|_| self.rng.int(least, most)).collect();
        Builder::new(&mut self.module, self.block).const_ints(elem, shape, &data)
    }

    fn one(&mut self, elem: ElemType, value: i64) -> ValueId {
        self.ints(elem, &[1], value, value)
    }

    fn shape(&mut self, extents: &[i64]) -> ValueId {
        let tensor = Tensor::new([extents.len()], TensorData::Index(extents.to_vec()));
        Builder::new(&mut self.module, self.block).constant(tensor)
    }

    fn extents(&self, value: ValueId) -> [usize; 4] {
        self.module.tensor_ty(value).shape.as_slice().try_into().expect("rank 4")
    }

    fn zero_point(&mut self) -> i64 {
        self.rng.int(-128, 127)
    }

    fn conv(&mut self, x: ValueId, oc: usize, kernel: usize, stride: i64, zp: i64) -> ValueId {
        let c = self.extents(x)[3];
        let w = self.ints(ElemType::I8, &[oc, kernel, kernel, c], -127, 127);
        let bias = self.ints(ElemType::I32, &[oc], -4000, 4000);
        let (zx, zw) = (self.one(ElemType::I8, zp), self.one(ElemType::I8, 0));
        // As much padding as makes the output `extent / stride`.
        let before = (kernel as i64 - 1) / 2;
        let after = kernel as i64 - stride - before;
        let op = dialect::Conv2d {
            pad: [before, after.max(0), before, after.max(0)],
            stride: [stride, stride],
            dilation: [1, 1],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        self.op(op, &[x, w, bias, zx, zw])
    }

    /// A rescale to `i8`; the products summed are about `terms`.
    fn rescale(&mut self, x: ValueId, terms: usize, zp: i64) -> ValueId {
        let per_channel = self.rng.one_in(2);
        let n = if per_channel { self.extents(x)[3] } else { 1 };
        let m = self.ints(ElemType::I32, &[n], 1 << 30, (1 << 31) - 1);
        let shift = 31 + 6 + (terms as f64).log2() as i64 / 2;
        let s = self.ints(ElemType::I8, &[n], shift, shift + 1);
        let (zi, zo) = (self.one(ElemType::I32, 0), self.one(ElemType::I8, zp));
        let op = no_unsigned(per_channel);
        let mut builder = Builder::new(&mut self.module, self.block);
        builder.op_as(op, &[x, m, s, zi, zo], ElemType::I8).expect("a valid rescale")
    }

    /// PReLU, as the quantiser writes it.
    fn prelu(&mut self, x: ValueId) -> ValueId {
        let (zero_point, channels) = (self.one(ElemType::I8, 3), self.extents(x)[3]);
        let rescale = |net: &mut Self, x: ValueId, scales: [ValueId; 2], ends: [ValueId; 2], elem| {
            let [multiplier, shift] = scales;
            let op = no_unsigned(net.module.tensor_ty(multiplier).n_elements() > 1);
            let mut builder = Builder::new(&mut net.module, net.block);
            builder.op_as(op, &[x, multiplier, shift, ends[0], ends[1]], elem).expect("a valid rescale")
        };
        let (zero, result_zero_point) = (self.one(ElemType::I32, 0), self.one(ElemType::I8, -5));
        let as_is = [self.ints(ElemType::I32, &[1], 1 << 30, 1 << 30), self.one(ElemType::I8, 30)];
        let wide = rescale(self, x, as_is, [zero_point, zero], ElemType::I32);
        let zeros = self.ints(ElemType::I32, &[1, 1, 1, 1], 0, 0);
        let mut builder = Builder::new(&mut self.module, self.block);
        let positive = builder.op_as(dialect::GreaterEqual {}, &[wide, zeros], ElemType::I1).expect("valid");
        let side = |net: &mut Self, least: i64| {
            let multiplier = net.ints(ElemType::I32, &[channels], least, (1 << 31) - 1);
            let shift = net.ints(ElemType::I8, &[channels], 31, 33);
            rescale(net, wide, [multiplier, shift], [zero, result_zero_point], ElemType::I8)
        };
        let sides = [side(self, 1 << 30), side(self, 1 << 30)];
        self.op(dialect::Select {}, &[positive, sides[0], sides[1]])
    }

    fn clamp(&mut self, x: ValueId, least: i64, most: i64) -> ValueId {
        let bound = |value| Attribute::Int(value, ElemType::I8);
        let nan_mode = NanMode::Propagate;
        self.op(dialect::Clamp { min_val: bound(least), max_val: bound(most), nan_mode }, &[x])
    }

    fn table(&mut self, x: ValueId) -> ValueId {
        let table = self.ints(ElemType::I8, &[256], -128, 127);
        self.op(dialect::Table {}, &[x, table])
    }

    fn upsample(&mut self, x: ValueId, factor: i64) -> ValueId {
        let scale = self.shape(&[2 * factor, 2, 2 * factor, 2]);
        let (offset, border) = (self.shape(&[1 - factor; 2]), self.shape(&[factor - 1; 2]));
        self.op(dialect::Resize { mode: ResizeMode::NearestNeighbor }, &[x, scale, offset, border])
    }

    fn concat(&mut self, parts: &[ValueId]) -> ValueId {
        self.op(dialect::Concat { axis: 3 }, parts)
    }

    fn pad(&mut self, x: ValueId, by: [i64; 4], value: i64) -> ValueId {
        let [top, bottom, left, right] = by;
        let padding = self.shape(&[0, 0, top, bottom, left, right, 0, 0]);
        let value = self.one(ElemType::I8, value);
        self.op(dialect::Pad {}, &[x, padding, value])
    }

    fn transposed(&mut self, x: ValueId, oc: usize, kernel: usize, stride: i64, zp: i64) -> ValueId {
        let c = self.extents(x)[3];
        let w = self.ints(ElemType::I8, &[oc, kernel, kernel, c], -127, 127);
        let bias = self.ints(ElemType::I32, &[oc], -4000, 4000);
        let (zx, zw) = (self.one(ElemType::I8, zp), self.one(ElemType::I8, 0));
        // The output is `extent * stride`.
        let crop = kernel as i64 - stride;
        let (front, back) = (crop / 2, crop - crop / 2);
        let op = dialect::TransposeConv2d {
            out_pad: [-front, -back, -front, -back],
            stride: [stride, stride],
            acc_type: ElemType::I32,
            local_bound: false,
        };
        self.op(op, &[x, w, bias, zx, zw])
    }

    fn finish(mut self, results: &[ValueId]) -> Module {
        Builder::new(&mut self.module, self.block).terminator(dialect::FuncReturn {}, results);
        let types = |values: &[ValueId]| values.iter().map(|&value| self.module.ty(value).clone()).collect();
        let inputs = types(self.module.args(self.block));
        let function_type = FunctionType { inputs, results: types(results) };
        let func = main_of(&self.module);
        if let dialect::Op::Func(row) = &mut self.module.op_mut(func).op {
            row.function_type = function_type;
        }
        verify(&self.module).expect("the network is valid");
        self.module
    }
}

/// Holds that a family applies to networks of a kind, by each of `rules`, keeps their results, and that the
/// machine gives them.
fn family_holds(family: &str, rules: &[&str], network: impl Fn(u64) -> Module) {
    let mut taken = BTreeSet::new();
    for seed in 0..24 {
        let module = network(seed);
        let what = format!("{family}, seed {seed}");
        let (after, by_every) = holds(&module, &only(family), Choice::Every, &what);
        let (_, at_random) = holds(&module, &only(family), Choice::Random(seed), &what);
        let (_, by_cost) = holds(&module, &only(family), Choice::Cost, &what);
        taken.extend(by_every.into_iter().chain(at_random).chain(by_cost));
        if seed % 6 == 0 {
            let inputs = random_inputs(&module, main_of(&module), seed);
            let want: Vec<Vec<u8>> =
                results(&module, &inputs).iter().map(|tensor| tensor.data().to_bytes()).collect();
            assert_eq!(run_program(&after, &inputs, &target("x1")), want, "{what}: the machine");
        }
    }
    for rule in rules {
        assert!(taken.contains(rule), "`{rule}` never applied; {taken:?} did");
    }
}

#[test]
fn upsample_keeps_results() {
    family_holds("upsample", &["upsample", "upsample-joined"], |seed| {
        let mut net = Net::new(seed, &[[3, 4, 3], [3, 4, 2]]);
        let factor = net.rng.int(2, 3);
        let zp = net.zero_point();
        let a = net.upsample(net.input(0), factor);
        let b = net.upsample(net.input(1), factor);
        let both = net.concat(&[a, b]);
        let sums = net.conv(both, 6, 1, 1, zp);
        let narrow = net.rescale(sums, 5, 3);
        let bounded = net.clamp(narrow, -100, 90);
        let looked = net.table(bounded);
        let two_sided = net.prelu(looked);
        net.finish(&[two_sided])
    });
}

#[test]
fn concat_sum_keeps_results() {
    family_holds("concat-sum", &["concat-sum"], |seed| {
        let mut net = Net::new(seed, &[[5, 4, 3], [5, 4, 2], [5, 4, 4]]);
        let (zp, kernel) = (net.zero_point(), [1, 3][net.rng.count(0, 1)]);
        let parts: Vec<ValueId> = (0..net.rng.count(2, 3)).map(|index| net.input(index)).collect();
        let joined = net.concat(&parts);
        let sums = net.conv(joined, 5, kernel, 1, zp);
        let narrow = net.rescale(sums, 40, -7);
        // Every input has a use.
        let rest = net.table(net.input(2));
        let spare = net.table(net.input(1));
        net.finish(&[narrow, rest, spare])
    });
}

#[test]
fn a_sum_over_an_upsample_moves_before_it() {
    for seed in 0..6 {
        let mut net = Net::new(seed, &[[4, 4, 8], [8, 8, 6]]);
        let zp = net.zero_point();
        let up = net.upsample(net.input(0), 2);
        let joined = net.concat(&[up, net.input(1)]);
        let sums = net.conv(joined, 7, 1, 1, zp);
        let narrow = net.rescale(sums, 14, 5);
        let module = net.finish(&[narrow]);
        let families = Families::parse("upsample,concat-sum", ',').expect("families");
        let (after, rules) = holds(&module, &families, Choice::Every, "both");
        assert!(rules.contains("concat-sum") && rules.contains("upsample"), "{rules:?}");
        let text = strata_ir::text::to_string(&after);
        assert!(text.contains("tosa.tile") && !text.contains("tosa.resize"), "sums are upsampled:\n{text}");
        let inputs = random_inputs(&module, main_of(&module), seed);
        let want: Vec<Vec<u8>> =
            results(&module, &inputs).iter().map(|tensor| tensor.data().to_bytes()).collect();
        assert_eq!(run_program(&after, &inputs, &target("x1")), want, "seed {seed}: the machine");
    }
}

#[test]
fn sibling_keeps_results() {
    family_holds("sibling", &["sibling"], |seed| {
        let mut net = Net::new(seed, &[[5, 6, 4]]);
        let (zp, kernel) = (net.zero_point(), [1, 3][net.rng.count(0, 1)]);
        let same = net.rng.one_in(2);
        let outputs: Vec<ValueId> = (0..net.rng.count(2, 3))
            .map(|branch| {
                let oc = net.rng.count(1, 5);
                let sums = net.conv(net.input(0), oc, kernel, 1, zp);
                let out_zp = if same { -9 } else { net.zero_point() };
                let narrow = net.rescale(sums, 20, out_zp);
                match branch {
                    _ if same => narrow,
                    0 => net.clamp(narrow, -50, 60),
                    _ => narrow,
                }
            })
            .collect();
        net.finish(&outputs)
    });
}

#[test]
fn thin_input_keeps_results() {
    family_holds("thin-input", &["thin-input", "depth-to-space-last"], |seed| {
        let mut net = Net::new(seed, &[[8, 12, 3], [8, 12, 5]]);
        let zp = net.zero_point();
        let kernel = net.rng.count(2, 7);
        let thin = net.conv(net.input(0), 4, kernel, 2, zp);
        let thin = net.rescale(thin, 3 * kernel * kernel, 1);
        let wide = net.conv(net.input(1), 3, 5, 1, zp);
        let wide = net.rescale(wide, 125, -20);
        let wide = net.clamp(wide, -90, 100);
        let wide = net.prelu(wide);
        net.finish(&[thin, wide])
    });
}

#[test]
fn transposed_keeps_results() {
    family_holds("transposed", &["transposed", "depth-to-space-last"], |seed| {
        let mut net = Net::new(seed, &[[4, 5, 6]]);
        let zp = net.zero_point();
        let stride = net.rng.int(2, 3);
        let kernel = net.rng.count(stride as usize, 9);
        let sums = net.transposed(net.input(0), 2, kernel, stride, zp);
        let narrow = net.rescale(sums, 6 * kernel, 11);
        let two_sided = net.prelu(narrow);
        net.finish(&[two_sided])
    });
}

#[test]
fn winograd_channels_keeps_results() {
    family_holds("winograd-channels", &["winograd-channels"], |seed| {
        let mut net = Net::new(seed, &[[5, 4, 0]].map(|[h, w, _]| [h, w, 8 + seed as usize % 8]));
        let zp = net.zero_point();
        let sums = net.conv(net.input(0), 4, 3, 1, zp);
        let narrow = net.rescale(sums, 90, 4);
        net.finish(&[narrow])
    });
}

#[test]
fn tidy_keeps_results() {
    family_holds("tidy", &["pad-into-convolution"], |seed| {
        let mut net = Net::new(seed, &[[6, 5, 4]]);
        let zp = net.zero_point();
        // A pad of another value stays.
        let value = if net.rng.one_in(3) { zp / 2 + 1 } else { zp };
        let padded = net.pad(net.input(0), [1, 2, 0, 1], value);
        let sums = net.conv(padded, 3, 3, 1, zp);
        let narrow = net.rescale(sums, 36, 2);
        net.finish(&[narrow])
    });
}

#[test]
fn random_networks_keep_results() {
    let mut taken = BTreeSet::new();
    for seed in 0..160 {
        let i16_percent = [0, 0, 40, 100][seed as usize % 4];
        let options = RandomOptions { i16_percent, max_channels: 18, ..RandomOptions::default() };
        let module = random_network(seed, &options);
        let choice = if seed % 2 == 0 { Choice::Every } else { Choice::Random(seed) };
        let (after, rules) = holds(&module, &Families::all(), choice, &format!("seed {seed}"));
        taken.extend(rules);
        let inputs = random_inputs(&module, main_of(&module), seed);
        let want: Vec<Vec<u8>> =
            results(&module, &inputs).iter().map(|tensor| tensor.data().to_bytes()).collect();
        assert_eq!(run_program(&after, &inputs, &target("x1")), want, "seed {seed}: the machine");
    }
    assert!(taken.len() >= 4, "random networks exercise too little: {taken:?}");
}

#[test]
fn nothing_is_rewritten_with_every_family_off() {
    for seed in 0..20 {
        let module = random_network(seed, &RandomOptions::default());
        let mut after = module.clone();
        assert!(!take(&mut after, &Families::none(), Choice::Cost).changed, "seed {seed}");
        assert_eq!(strata_ir::equal::difference(&module, &after), None);
    }
}

#[test]
fn small_choices_are_optimal() {
    let (mut seen, mut optimal) = (0, 0);
    for seed in 0..400 {
        let options = RandomOptions { max_channels: 18, ..RandomOptions::default() };
        let module = random_network(seed, &options);
        for preset in ["x1", "micro"] {
            let target = target(preset);
            let function = Function::new(&module, module.entry_block(main_of(&module))).expect("one block");
            let function = saturate(function, &Families::all());
            let problem = ExtractionProblem::new(&function, &target);
            let Some(least) = problem.least(20_000) else { continue };
            let found = problem.solve(Choice::Cost);
            assert!(found.after >= least && found.after <= found.before, "seed {seed} on {preset}");
            seen += 1;
            optimal += usize::from(found.after == least);
        }
    }
    assert!(seen > 100, "only {seen} networks have few choices");
    assert!(optimal * 100 >= seen * 99, "{optimal} of {seen} are optimal");
}

#[test]
fn the_types_of_a_class_agree() {
    for seed in 0..60 {
        let module = random_network(seed, &RandomOptions { max_channels: 18, ..RandomOptions::default() });
        let function = Function::new(&module, module.entry_block(main_of(&module))).expect("one block");
        let function = saturate(function, &Families::all());
        assert_eq!(function.egraph.analysis.conflicts, Vec::<String>::new(), "seed {seed}");
        for class in function.egraph.classes() {
            let known = &function.egraph.analysis;
            for term in class.nodes.iter().filter_map(|term| known.spec(term)) {
                assert_eq!(term.ty, class.data.ty, "seed {seed}");
            }
        }
    }
}
