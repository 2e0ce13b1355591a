//! Equalised networks against those they came from.

use strata_ir::eval::eval_function;
use strata_ir::verify::verify;
use strata_ir::{Module, Tensor, ValueId};

use super::*;
use crate::quantise::tests::{Net, count, run_quantised, samples};
use crate::quantise::{Calibration, QuantiseOptions, quantise, sqnr};

/// Factors of up to 64 between channels.
fn uneven(channels: usize) -> Vec<f64> {
    (0..channels).map(|c| 2_f64.powi(-((c % 7) as i32))).collect()
}

/// A pointwise convolution whose output channels differ in range.
fn uneven_conv(net: &mut Net, x: ValueId, channels: usize) -> ValueId {
    let y = net.conv(x, channels, 1, 1);
    let conv = net.module.defining_op(y).expect("a convolution made it");
    let channel = pairs::output_channels(&net.module, conv);
    scale_constant(&mut net.module, conv, 1, &channel, &uneven(channels));
    scale_constant(&mut net.module, conv, 2, &(0..channels).collect::<Vec<_>>(), &uneven(channels));
    y
}

/// A depthwise convolution to which all channels of such a range matter alike.
fn levelling_depthwise(net: &mut Net, x: ValueId, channels: usize) -> ValueId {
    let y = net.depthwise(x);
    let conv = net.module.defining_op(y).expect("a convolution made it");
    let channel = pairs::input_channels(&net.module, conv, channels);
    let levelling: Vec<f64> = uneven(channels).iter().map(|f| f.recip()).collect();
    scale_constant(&mut net.module, conv, 1, &channel, &levelling);
    y
}

/// Depthwise between pointwise, with activations of all kinds.
fn network(bound: f64) -> Module {
    let (mut net, x) = Net::new(&[1, 20, 20, 3]);
    let y = uneven_conv(&mut net, x, 16);
    let y = net.clamp(y, 0.0, bound);
    let y = levelling_depthwise(&mut net, y, 16);
    let y = net.leaky(y);
    let y = net.max_pool(y);
    let y = net.conv(y, 8, 1, 1);
    net.finish(&[y])
}

fn evaluate(module: &Module, inputs: &[Arc<Tensor>]) -> Vec<f32> {
    let main = module.function("main").expect("it was made");
    let inputs = inputs.iter().map(|t| (**t).clone()).collect();
    let results = eval_function(module, main, inputs).unwrap_or_else(|e| panic!("{e}"));
    results[0].as_f32().expect("f32").to_vec()
}

/// The least decibels over samples of a quantised network, and how it came out.
fn noise(real: &Module, inputs: &[Vec<Arc<Tensor>>]) -> (f64, Module) {
    let calibration = Calibration::collect(real, inputs).expect("the network runs");
    let mut module = real.clone();
    quantise(&mut module, &calibration, &QuantiseOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let of_sample = |sample: &Vec<Arc<Tensor>>| {
        sqnr(&evaluate(real, sample), run_quantised(&module, sample)[0].as_f32().expect("f32"))
    };
    (inputs.iter().map(of_sample).fold(f64::INFINITY, f64::min), module)
}

#[test]
fn results_stay_and_quantise_better() {
    for bound in [f64::from(f32::MAX), 2.0] {
        let module = network(bound);
        let inputs = samples(&module, 4);
        let statistics = ChannelStatistics::collect(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
        let mut equalised = module.clone();
        let n_scaled = equalise(&mut equalised, Some(&statistics)).unwrap_or_else(|e| panic!("{e}"));
        assert!(n_scaled >= 1, "bound {bound}");
        verify(&equalised).unwrap_or_else(|e| panic!("{e}"));
        for sample in &inputs {
            let db = sqnr(&evaluate(&module, sample), &evaluate(&equalised, sample));
            assert!(db > 110.0, "bound {bound}: {db:.1} dB is more than rounding");
        }
        let (before, plain) = noise(&module, &inputs);
        let (after, scaled) = noise(&equalised, &inputs);
        assert!(after > before + 2.0, "bound {bound}: {before:.1} dB became {after:.1}");
        // A bound a channel costs no op.
        for op in ["tosa.minimum", "tosa.clamp", "tosa.table", "tosa.rescale"] {
            assert_eq!(count(&scaled, op), count(&plain, op), "{op}");
        }
    }
}

#[test]
fn beyond_the_bounds_channels_are_clipped_as_before() {
    let module = network(2.0);
    let inputs = samples(&module, 4);
    let statistics = ChannelStatistics::collect(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
    let mut equalised = module.clone();
    equalise(&mut equalised, Some(&statistics)).unwrap_or_else(|e| panic!("{e}"));
    // Ten times what the statistics saw drives every channel into its bound.
    let far: Vec<Arc<Tensor>> = (inputs[0].iter())
        .map(|t| {
            let data = t.as_f32().expect("f32").iter().map(|x| 10.0 * x).collect();
            Arc::new(Tensor::f32(t.shape(), data))
        })
        .collect();
    let db = sqnr(&evaluate(&module, &far), &evaluate(&equalised, &far));
    assert!(db > 110.0, "{db:.1} dB is more than rounding");
}

#[test]
fn without_statistics_weights_decide_and_bounded_relus_stay() {
    let mut open = network(f64::from(f32::MAX));
    assert!(equalise(&mut open, None).unwrap_or_else(|e| panic!("{e}")) >= 1);
    let mut bounded = network(2.0);
    let before = count(&bounded, "tosa.clamp");
    equalise(&mut bounded, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((count(&bounded, "tosa.clamp"), count(&bounded, "tosa.minimum")), (before, 0));
}

#[test]
fn values_that_others_see_are_left_alone() {
    let (mut net, x) = Net::new(&[1, 20, 20, 3]);
    let y = uneven_conv(&mut net, x, 16);
    let y = net.relu(y);
    let z = net.depthwise(y);
    // The result of the first convolution is a result of the network too.
    let mut module = net.finish(&[y, z]);
    assert_eq!(equalise(&mut module, None).unwrap_or_else(|e| panic!("{e}")), 0);
}

#[test]
fn statistics_of_another_network_are_refused() {
    let module = network(2.0);
    let statistics =
        ChannelStatistics::collect(&module, &samples(&module, 1)).unwrap_or_else(|e| panic!("{e}"));
    let (mut net, x) = Net::new(&[1, 4, 4, 3]);
    let y = net.conv(x, 4, 1, 1);
    let mut other = net.finish(&[y]);
    assert!(equalise(&mut other, Some(&statistics)).is_err());
}

/// Two dense convolutions, or fully connected layers, between which channels differ by a factor of up to 64
/// that the second evens out.
fn dense(image: &[usize]) -> Module {
    let (mut net, x) = Net::new(image);
    let y = uneven_conv(&mut net, x, 32);
    let y = net.relu(y);
    let y = net.conv(y, 8, 1, 1);
    let conv = net.module.defining_op(y).expect("a convolution made it");
    let channel = pairs::input_channels(&net.module, conv, 32);
    let levelling: Vec<f64> = uneven(32).iter().map(|f| f.recip()).collect();
    scale_constant(&mut net.module, conv, 1, &channel, &levelling);
    net.finish(&[y])
}

#[test]
fn channels_between_dense_layers_are_evened_out() {
    // An image, and vectors, of whose channels calibration sees few values.
    for image in [[1, 24, 24, 8], [1, 1, 1, 64]] {
        let module = dense(&image);
        let inputs = samples(&module, 6);
        let statistics = ChannelStatistics::collect(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
        let mut equalised = module.clone();
        assert_eq!(equalise(&mut equalised, Some(&statistics)).unwrap_or_else(|e| panic!("{e}")), 1);
        let (before, after) = (noise(&module, &inputs).0, noise(&equalised, &inputs).0);
        assert!(after > before + 5.0, "{image:?}: {before:.1} dB became {after:.1}");
    }
}

#[test]
fn like_channels_between_dense_layers_stay() {
    let (mut net, x) = Net::new(&[1, 24, 24, 8]);
    let y = net.conv(x, 32, 1, 1);
    let y = net.relu(y);
    let y = net.conv(y, 8, 1, 1);
    let mut module = net.finish(&[y]);
    let statistics =
        ChannelStatistics::collect(&module, &samples(&module, 4)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(equalise(&mut module, Some(&statistics)).unwrap_or_else(|e| panic!("{e}")), 0);
}

/// `x * clamp(x + 3, 0, 6) / 6`.
fn hard_swish(net: &mut Net, x: ValueId) -> ValueId {
    let (three, sixth) = (net.constant(&[1; 4], vec![3.0]), net.constant(&[1; 4], vec![1.0 / 6.0]));
    let shifted = net.add(x, three);
    let gate = net.clamp(shifted, 0.0, 6.0);
    let product = net.mul(x, gate);
    net.mul(product, sixth)
}

/// Depthwise and pointwise convolutions with hard swishes between, of channels that differ; with squeeze and
/// excitation or without.
fn swishes(gated: bool) -> Module {
    let (mut net, x) = Net::new(&[1, 24, 24, 3]);
    let y = uneven_conv(&mut net, x, 16);
    let y = hard_swish(&mut net, y);
    let y = levelling_depthwise(&mut net, y, 16);
    let mut y = hard_swish(&mut net, y);
    if gated {
        let s = net.average(y);
        let s = net.conv(s, 4, 1, 1);
        let s = net.relu(s);
        let s = net.conv(s, 16, 1, 1);
        let s = net.op(strata_ir::dialect::Sigmoid {}, &[s]);
        y = net.mul(y, s);
    }
    let y = net.conv(y, 8, 1, 1);
    net.finish(&[y])
}

#[test]
fn channels_are_scaled_behind_activations_that_let_no_factor_pass() {
    for gated in [false, true] {
        let module = swishes(gated);
        let inputs = samples(&module, 4);
        let statistics = ChannelStatistics::collect(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
        let mut equalised = module.clone();
        let n_scaled = equalise(&mut equalised, Some(&statistics)).unwrap_or_else(|e| panic!("{e}"));
        assert!(n_scaled >= 1, "{n_scaled} with a gate: {gated}");
        verify(&equalised).unwrap_or_else(|e| panic!("{e}"));
        for sample in &inputs {
            let db = sqnr(&evaluate(&module, sample), &evaluate(&equalised, sample));
            assert!(db > 90.0, "{db:.1} dB is more than rounding");
        }
        let (before, after) = (noise(&module, &inputs).0, noise(&equalised, &inputs));
        assert!(after.0 > before + 2.0, "with a gate {gated}: {before:.1} dB became {:.1}", after.0);
        // The factors are part of a rescale: no product of theirs is left.
        assert_eq!(count(&after.1, "tosa.mul"), usize::from(gated));
        verify(&after.1).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn values_that_are_multiplied_with_each_other_are_scaled_once() {
    let (mut net, x) = Net::new(&[1, 24, 24, 3]);
    let (a, b) = (uneven_conv(&mut net, x, 16), uneven_conv(&mut net, x, 16));
    let gate = net.op(strata_ir::dialect::Sigmoid {}, &[b]);
    let y = net.mul(a, gate);
    let y = levelling_depthwise(&mut net, y, 16);
    let module = net.finish(&[y]);
    let inputs = samples(&module, 2);
    let statistics = ChannelStatistics::collect(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
    let mut equalised = module.clone();
    assert_eq!(equalise(&mut equalised, Some(&statistics)).unwrap_or_else(|e| panic!("{e}")), 1);
    let db = sqnr(&evaluate(&module, &inputs[0]), &evaluate(&equalised, &inputs[0]));
    assert!(db > 90.0, "{db:.1} dB is more than rounding");
}
