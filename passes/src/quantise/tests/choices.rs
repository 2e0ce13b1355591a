//! Comparisons, choices, bounds a channel, and what only picks elements.

use super::*;

impl Net {
    fn maximum(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op(Maximum { nan_mode: NanMode::Propagate }, &[a, b])
    }

    /// `x` with a border of one pixel on all sides.
    fn padded(&mut self, x: ValueId, fill: f32) -> ValueId {
        let amounts = self.extents(&[0, 0, 1, 1, 1, 1, 0, 0]);
        let fill = self.constant(&[1], vec![fill]);
        self.op(Pad {}, &[x, amounts, fill])
    }

    /// The maxima of windows of three by three.
    fn peaks(&mut self, x: ValueId) -> ValueId {
        let op = MaxPool2d { kernel: [3, 3], stride: [1, 1], pad: [0; 4], nan_mode: NanMode::Propagate };
        self.op(op, &[x])
    }
}

#[track_caller]
fn check_narrow(module: &Module, least_db: f64) -> (Module, QuantReport) {
    let (quantised, report, _) = check_in(module, Precision::Int8, least_db);
    assert!(report.host_ops.is_empty(), "{report:?}");
    (quantised, report)
}

#[test]
fn bounds_that_differ_from_channel_to_channel_stay_apart() {
    for is_upper in [false, true] {
        let (mut net, x) = Net::new(&[1, 6, 6, 3]);
        let y = net.conv(x, 4, 3, 1);
        let bounds = net.constant(&[1, 1, 1, 4], vec![-0.8, 0.0, 0.4, 1.5]);
        let y = if is_upper {
            net.op(Minimum { nan_mode: NanMode::Propagate }, &[y, bounds])
        } else {
            net.maximum(y, bounds)
        };
        check_narrow(&net.finish(&[y]), 30.0);
    }
}

#[test]
fn padding_with_infinity_does_not_widen_a_range() {
    for fill in [f32::NEG_INFINITY, f32::MIN] {
        let (mut net, x) = Net::new(&[1, 8, 8, 3]);
        let y = net.conv(x, 4, 3, 1);
        let y = net.padded(y, fill);
        let y = net.peaks(y);
        let y = net.conv(y, 4, 3, 1);
        check_narrow(&net.finish(&[y]), 30.0);
    }
}

#[test]
fn a_choice_by_a_comparison_runs_on_the_machine() {
    let (mut net, x) = Net::new(&[1, 6, 6, 3]);
    let (a, b) = (net.conv(x, 4, 3, 1), net.conv(x, 4, 3, 1));
    let greater = net.op(Greater {}, &[a, b]);
    let half = net.scalar(4, 0.5);
    let above = net.op(GreaterEqual {}, &[a, half]);
    let both = net.op(LogicalAnd {}, &[greater, above]);
    let c = net.conv(x, 4, 1, 1);
    let y = net.op(Select {}, &[both, c, b]);
    let z = net.conv(y, 4, 3, 1);
    let (module, _) = check_narrow(&net.finish(&[z]), 12.0);
    assert_eq!(count(&module, "tosa.select"), 0);
}

#[test]
fn what_equals_its_maximum_is_kept() {
    // As heatmaps of key points are thinned out; the values are far enough apart to stay apart in 8 bits.
    let (mut net, x) = Net::new(&[1, 7, 7, 2]);
    let padded = net.padded(x, f32::NEG_INFINITY);
    let most = net.peaks(padded);
    let is_peak = net.op(Equal {}, &[most, x]);
    let is_peak = Builder::new(&mut net.module, net.block).op_as(Cast {}, &[is_peak], ElemType::I32);
    let is_peak = is_peak.unwrap_or_else(|e| panic!("{e:?}"));
    let is_peak = Builder::new(&mut net.module, net.block).op_as(Cast {}, &[is_peak], ElemType::F32);
    let y = net.mul(x, is_peak.unwrap_or_else(|e| panic!("{e:?}")));
    let y = net.conv(y, 3, 1, 1);
    let module = net.finish(&[y]);
    let shuffled = |shift: usize| {
        let data = (0..98).map(|at| ((at + shift) * 37 % 98) as f32 - 40.0).collect();
        vec![Arc::new(Tensor::f32([1, 7, 7, 2], data))]
    };
    let inputs = [shuffled(0), shuffled(5)];
    let calibration = Calibration::collect(&module, &inputs).expect("it runs");
    let mut quantised = module.clone();
    let report = quantise(&mut quantised, &calibration, &QuantiseOptions::default());
    assert!(report.unwrap_or_else(|e| panic!("{e}")).host_ops.is_empty());
    let main = module.function("main").expect("it was made");
    for inputs in &inputs {
        let want = eval_function(&module, main, vec![(*inputs[0]).clone()]).unwrap_or_else(|e| panic!("{e}"));
        let got = run_quantised(&quantised, inputs);
        let db = sqnr(want[0].as_f32().expect("f32"), got[0].as_f32().expect("f32"));
        assert!(db > 30.0, "{db:.1} dB");
    }
}

#[test]
fn whole_numbers_are_exact() {
    let (mut net, x) = Net::new(&[1, 5, 5, 2]);
    let ten = net.scalar(4, 10.0);
    let y = net.mul(x, ten);
    let as_ints = Builder::new(&mut net.module, net.block).op_as(Cast {}, &[y], ElemType::I32);
    let ints = as_ints.unwrap_or_else(|e| panic!("{e:?}"));
    let other = net.op(Reverse { axis: 3 }, &[ints]);
    let sum = net.op(Add {}, &[ints, other]);
    let module = net.finish(&[sum]);
    let inputs = samples(&module, 3);
    let calibration = Calibration::collect(&module, &inputs).expect("it runs");
    let mut quantised = module.clone();
    quantise(&mut quantised, &calibration, &QuantiseOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    for inputs in &inputs {
        let got = run_quantised(&quantised, inputs);
        let got = got[0].as_f32().expect("integers as reals");
        assert!(got.iter().all(|x| x.fract() == 0.0), "{got:?}");
    }
}

#[test]
fn reversals_and_gathers_run_on_the_machine() {
    // Few indices are joined, many are picked by a product.
    for extent in [5, 20] {
        for axis in 1..4 {
            let mut shape = [1, 4, 4, 4];
            shape[axis] = extent;
            let (mut net, x) = Net::new(&[1, shape[1], shape[2], 3]);
            let y = net.conv(x, shape[3], 3, 1);
            let y = net.op(Reverse { axis: axis as i32 }, &[y]);
            let y = net.conv(y, 3, 3, 1);
            check_narrow(&net.finish(&[y]), 30.0);
        }
    }
    let (mut net, x) = Net::new(&[1, 30, 1, 3]);
    let y = net.conv(x, 4, 1, 1);
    let rows = net.extents(&[1, 30, 4]);
    let y = net.op(Reshape {}, &[y, rows]);
    let order = (0..60).map(|at| at * 7 % 30).collect();
    let order = net.module.append_const(net.block, Tensor::i32([1, 60], order), Location::unknown());
    let y = net.op(Gather {}, &[y, order]);
    let image = net.extents(&[1, 60, 1, 4]);
    let y = net.op(Reshape {}, &[y, image]);
    let y = net.conv(y, 3, 1, 1);
    check_narrow(&net.finish(&[y]), 30.0);
}
