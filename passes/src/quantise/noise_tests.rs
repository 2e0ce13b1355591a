//! Noise figures and bias correction on small networks, held against the reference evaluator.

use std::sync::Arc;

use strata_ir::{Module, Tensor};

use super::*;
use crate::quantise::noise::{Networks, Power};
use crate::quantise::tests::{Net, run_quantised, samples};

/// Convolutions with activations, a pool and a residual sum.
fn network() -> Module {
    let (mut net, x) = Net::new(&[1, 16, 16, 3]);
    let y = net.conv(x, 8, 3, 1);
    let y = net.relu(y);
    let z = net.depthwise(y);
    let z = net.leaky(z);
    let z = net.conv(z, 8, 1, 1);
    let y = net.add(y, z);
    let y = net.max_pool(y);
    let y = net.conv(y, 4, 1, 1);
    net.finish(&[y])
}

fn quantised(module: &Module, calibration: &Calibration) -> (Module, QuantReport) {
    let mut quantised = module.clone();
    let report = quantise(&mut quantised, calibration, &QuantiseOptions::default());
    (quantised, report.unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn outputs_are_the_evaluators_and_layers_add_up() {
    let module = network();
    let inputs = samples(&module, 3);
    let calibration = Calibration::collect(&module, &inputs).expect("the network runs");
    let (integers, report) = quantised(&module, &calibration);
    let networks = Networks { real: &module, quantised: &integers, values: &report.values };
    let (outputs, layers) = networks.layers_and_outputs(&inputs).unwrap_or_else(|e| panic!("{e}"));
    let [output] = outputs.as_slice() else { panic!("one output") };
    for (inputs, tensor) in inputs.iter().zip(&output.tensors) {
        assert_eq!(&run_quantised(&integers, inputs)[0], tensor);
    }
    let ops: Vec<&str> = layers.iter().map(|layer| layer.op.as_str()).collect();
    let want = ["argument", "conv2d", "depthwise_conv2d", "maximum", "conv2d", "add", "max_pool2d", "conv2d"];
    assert_eq!(ops, want);
    let last = layers.last().expect("there are layers");
    assert!((last.cumulative_db - output.power.decibels()).abs() < 0.01, "{last:?}");
    for layer in &layers {
        assert!(layer.cumulative_db < layer.own_db + 1.0, "all before adds noise: {layer:?}");
        assert!(
            layer.outputs_db.is_finite() && layer.outputs_db > output.power.decibels() - 1.0,
            "{layer:?}"
        );
    }
    // What the layers add alone adds up to about what they add together, if their noises do not depend on
    // each other.
    let together: f64 = layers.iter().map(|layer| 10_f64.powf(-layer.outputs_db / 10.0)).sum();
    let difference = -10.0 * together.log10() - output.power.decibels();
    assert!(difference.abs() < 4.0, "the sum is off by {difference:.1} dB");
}

/// The sum of squares of the channels' mean errors of the only output.
fn mean_error(module: &Module, integers: &Module, inputs: &[Vec<Arc<Tensor>>]) -> f64 {
    let main = module.function("main").expect("it was made");
    let mut sums: Vec<f64> = Vec::new();
    for inputs in inputs {
        let want = forward(module, main, inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        let (want, got) = (want[0].as_f32().expect("f32"), run_quantised(integers, inputs));
        let n_channels = *got[0].shape().last().expect("it has channels");
        sums.resize(n_channels, 0.0);
        for (i, (want, got)) in want.iter().zip(got[0].as_f32().expect("f32")).enumerate() {
            sums[i % n_channels] += f64::from(got - want);
        }
    }
    sums.iter().map(|sum| sum * sum).sum()
}

#[test]
fn corrected_biases_give_the_means_back() {
    let (mut net, x) = Net::new(&[1, 24, 24, 3]);
    let mut y = x;
    for _ in 0..4 {
        y = net.conv(y, 8, 1, 1);
        y = net.relu(y);
        y = net.depthwise(y);
        y = net.relu(y);
    }
    let y = net.conv(y, 8, 1, 1);
    let module = net.finish(&[y]);
    let inputs = samples(&module, 6);
    let mut calibration = Calibration::collect(&module, &inputs).expect("the network runs");
    let before = mean_error(&module, &quantised(&module, &calibration).0, &inputs);
    let corrected = calibration.correct_biases(&module, &QuantiseOptions::default(), &inputs);
    corrected.unwrap_or_else(|e| panic!("{e}"));
    let after = mean_error(&module, &quantised(&module, &calibration).0, &inputs);
    assert!(after < 0.3 * before, "{after} after {before}");
}

#[test]
fn means_of_few_values_correct_nothing() {
    let (mut net, x) = Net::new(&[1, 2, 2, 3]);
    let y = net.conv(x, 8, 1, 1);
    let module = net.finish(&[y]);
    let inputs = samples(&module, 4);
    let collected = Calibration::collect(&module, &inputs).expect("the network runs");
    let mut corrected = collected.clone();
    let done = corrected.correct_biases(&module, &QuantiseOptions::default(), &inputs);
    done.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(corrected, collected);
}

#[test]
fn power_in_decibels() {
    let power = Power::of(&[3.0, 4.0], [3.0, 3.5]);
    assert!((power.decibels() - 20.0).abs() < 1e-9);
    assert_eq!(Power::of(&[1.0], [1.0]).decibels(), f64::INFINITY);
}

#[test]
fn what_a_pool_leaves_out_takes_no_part_of_the_range() {
    let (mut net, x) = Net::new(&[1, 16, 16, 3]);
    let y = net.conv(x, 8, 3, 1);
    let y = net.max_pool(y);
    let y = net.max_pool(y);
    let z = net.conv(y, 4, 1, 1);
    let module = net.finish(&[z]);
    let inputs = samples(&module, 3);
    let calibration = Calibration::collect(&module, &inputs).expect("the network runs");
    let (_, report) = quantised(&module, &calibration);
    let main = module.function("main").expect("it was made");
    let mut least = std::collections::BTreeMap::new();
    for inputs in &inputs {
        let mut observe = |value, tensor: &Tensor| {
            let low = tensor.as_f32().expect("f32").iter().copied().fold(0.0, f32::min);
            let entry = least.entry(value).or_insert(0.0_f32);
            *entry = entry.min(low);
        };
        forward(&module, main, inputs, &mut observe).unwrap_or_else(|e| panic!("{e}"));
    }
    // The convolution's integers reach as low as the pooled values, not as its own.
    let [_, conv, _, pooled, _] = report.values.as_slice() else { panic!("five values") };
    assert_eq!(conv.params, pooled.params);
    let lowest = conv.params.dequantise(-128);
    assert!(lowest > f64::from(least[&conv.real]) * 0.5, "{lowest} of {least:?}");
    assert!((lowest - f64::from(least[&pooled.real])).abs() < 0.1, "{lowest} of {least:?}");
}
