//! Empirical bias correction: what quantising shifts in the mean of a convolution's channels, given back to
//! its biases.
//!
//! Rounded weights and clipped activations do not err evenly: the mean of an output channel moves, and what
//! follows sees a different distribution. On the calibration samples the shift of every channel is measured
//! and taken off the bias, layer by layer, each with all before it corrected already.
//!
//! A mean over few values is itself uncertain; what the spread between samples cannot tell from chance is not
//! corrected: a shift `d` with standard error `e` is shrunk by `max(0, 1 - (2 e / d)^2)`, and layers of few
//! values are left alone.
//!
//! # Source
//! Nagel et al. 2019 (see [`equalise`](crate::equalise)), section 4.2 and appendix D, with the samples for
//! the expectation.

use std::collections::BTreeMap;
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::pass::PassError;
use strata_ir::{Module, Op, OpId, Tensor, TensorData, Type, ValueId};

use crate::quantise::calibrate::{Calibration, CalibrationError, observed_values};
use crate::quantise::forward::{compute, forward};
use crate::quantise::noise::Networks;
use crate::quantise::{QuantiseOptions, quantise};

/// Values of a channel, over all samples, below which their mean says too little to correct by.
const FEW: usize = 1024;
/// Standard errors of a mean within which it may be chance: samples are fewer than they look, being much
/// alike.
const DOUBT: f64 = 2.0;

/// Corrections of the biases of convolutions, by the convolution's result: what to add, a channel each.
type Corrections = BTreeMap<ValueId, Vec<f32>>;

/// A convolution of the integer network and what its accumulators stand for.
struct Site {
    /// The result of the f32 convolution.
    real: ValueId,
    /// The real step of an accumulator, a channel each.
    steps: Vec<f64>,
}

impl Calibration {
    /// Adds corrections of biases for the mean shift that quantising `module`, which must be the network that
    /// was calibrated, makes on samples. A network of which ops have no integer form gets none: that is for
    /// the quantiser to say, which comes to it next.
    ///
    /// # Errors
    /// If the network cannot be quantised otherwise, or a sample does not fit.
    pub fn correct_biases(
        &mut self,
        module: &Module,
        options: &QuantiseOptions,
        samples: &[Vec<Arc<Tensor>>],
    ) -> Result<(), PassError> {
        self.corrections.clear();
        let mut corrections = match corrections(module, self, options, samples) {
            Err(PassError::Unsupported(_)) => return Ok(()),
            corrections => corrections?,
        };
        let func = module.function("main").ok_or_else(|| PassError::other(CalibrationError::NoMain))?;
        for (index, (value, _)) in observed_values(module, module.entry_block(func)).iter().enumerate() {
            if let Some(correction) = corrections.remove(value) {
                self.corrections.insert(index, correction);
            }
        }
        Ok(())
    }
}

/// Measures the corrections of a calibrated network on samples.
///
/// # Errors
/// If the network cannot be quantised, or a sample does not fit.
fn corrections(
    real: &Module,
    calibration: &Calibration,
    options: &QuantiseOptions,
    samples: &[Vec<Arc<Tensor>>],
) -> Result<Corrections, PassError> {
    let mut quantised = real.clone();
    let report = quantise(&mut quantised, calibration, options)?;
    let networks = Networks { real, quantised: &quantised, values: &report.values };
    let sites = sites(&networks);
    let means = real_means(real, &sites, samples)?;
    let main = main_of(&quantised)?;
    let block = quantised.entry_block(main);
    let mut values: Vec<SecondaryMap<ValueId, Option<Arc<Tensor>>>> = Vec::with_capacity(samples.len());
    for sample in samples {
        let mut map: SecondaryMap<ValueId, Option<Arc<Tensor>>> = SecondaryMap::new();
        for (&arg, input) in quantised.args(block).iter().zip(networks.quantised_inputs(sample)) {
            map[arg] = Some(input);
        }
        values.push(map);
    }
    let mut uses_left: SecondaryMap<ValueId, u32> = SecondaryMap::new();
    for &op in quantised.block_ops(block) {
        for &operand in quantised.op(op).operands() {
            uses_left[operand] += 1;
        }
    }
    let mut corrections = Corrections::new();
    for &op in quantised.block_ops(block) {
        let data = quantised.op(op);
        if data.op.is_constant() || data.op.is_terminator() {
            continue;
        }
        let types: Vec<Type> = data.results().iter().map(|&value| quantised.ty(value).clone()).collect();
        let mut results = Vec::with_capacity(samples.len());
        for values in &values {
            results.push(run(&quantised, op, values, &types)?);
        }
        if let Some(site) = sites.get(&quantised.result(op)) {
            let shifts = shifts(&results, &means[&site.real], &site.steps);
            for tensor in &mut results {
                add(tensor, &shifts, &site.steps);
            }
            if shifts.iter().any(|&shift| shift != 0.0) {
                corrections.insert(site.real, shifts.into_iter().map(|shift| shift as f32).collect());
            }
        }
        for &operand in data.operands() {
            uses_left[operand] -= 1;
        }
        for (values, tensor) in values.iter_mut().zip(results) {
            values[quantised.result(op)] = Some(Arc::new(tensor));
            for &operand in data.operands().iter().filter(|v| uses_left[**v] == 0) {
                values[operand] = None;
            }
        }
    }
    Ok(corrections)
}

fn main_of(module: &Module) -> Result<OpId, PassError> {
    module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))
}

fn run(
    module: &Module,
    op: OpId,
    values: &SecondaryMap<ValueId, Option<Arc<Tensor>>>,
    types: &[Type],
) -> Result<Tensor, PassError> {
    let data = module.op(op);
    let operand = |value: &ValueId| {
        let constant = || module.constant(*value).map(|elements| Arc::clone(&elements.tensor));
        values[*value].clone().or_else(constant)
    };
    let operands: Vec<Arc<Tensor>> = data.operands().iter().filter_map(operand).collect();
    let refs: Vec<&Tensor> = operands.iter().map(Arc::as_ref).collect();
    let mut results = compute(&data.op, &refs, types).map_err(PassError::other)?;
    results.pop().ok_or_else(|| PassError::invalid(format!("{} has no result", data.op.name())))
}

/// The integer convolutions, by their accumulators: those whose result a rescale takes to the integers of the
/// f32 one's.
fn sites(networks: &Networks<'_>) -> BTreeMap<ValueId, Site> {
    let module = networks.quantised;
    let mut sites = BTreeMap::new();
    for value in networks.values {
        let is_convolution =
            |op: &Op| matches!(op, Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_));
        if !networks.real.defining_op(value.real).is_some_and(|op| is_convolution(&networks.real.op(op).op)) {
            continue;
        }
        let Some(rescale) = module.defining_op(value.integer) else { continue };
        let data = module.op(rescale);
        let &[sums, multiplier, shift, ..] = data.operands() else { continue };
        let from_convolution = module.defining_op(sums).is_some_and(|op| is_convolution(&module.op(op).op));
        if !matches!(data.op, Op::Rescale(_)) || !from_convolution {
            continue;
        }
        let ints = |value| module.constant(value).and_then(|c| c.tensor.data().to_ints());
        let (Some(multipliers), Some(shifts)) = (ints(multiplier), ints(shift)) else { continue };
        let factor = |(m, s): (&i64, &i64)| *m as f64 * 2_f64.powi(-(*s as i32)) * value.params.scale;
        let mut steps: Vec<f64> = multipliers.iter().zip(&shifts).map(factor).collect();
        if let ([step], Some(&n)) = (steps.as_slice(), module.tensor_ty(sums).shape.last()) {
            steps = vec![*step; n];
        }
        sites.insert(sums, Site { real: value.real, steps });
    }
    sites
}

/// The mean of every channel of the f32 convolutions, for each sample.
fn real_means(
    real: &Module,
    sites: &BTreeMap<ValueId, Site>,
    samples: &[Vec<Arc<Tensor>>],
) -> Result<BTreeMap<ValueId, Vec<Vec<f64>>>, PassError> {
    let n_channels: BTreeMap<ValueId, usize> =
        sites.values().map(|site| (site.real, site.steps.len())).collect();
    let mut means: BTreeMap<ValueId, Vec<Vec<f64>>> = BTreeMap::new();
    for sample in samples {
        let mut observe = |value: ValueId, tensor: &Tensor| {
            if let (Some(&n), Some(data)) = (n_channels.get(&value), tensor.as_f32()) {
                let mean = channel_means(data.iter().map(|&x| f64::from(x)), n, data.len());
                means.entry(value).or_default().push(mean);
            }
        };
        forward(real, main_of(real)?, sample, &mut observe).map_err(PassError::other)?;
    }
    Ok(means)
}

fn channel_means(values: impl Iterator<Item = f64>, n_channels: usize, len: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n_channels];
    let mut channel = 0;
    for x in values {
        sums[channel] += x;
        channel = if channel + 1 == n_channels { 0 } else { channel + 1 };
    }
    let n_pixels = (len / n_channels.max(1)).max(1) as f64;
    sums.into_iter().map(|sum| sum / n_pixels).collect()
}

/// What to add to every channel, from what the accumulators of all samples hold and the f32 means of each.
fn shifts(accumulators: &[Tensor], means: &[Vec<f64>], steps: &[f64]) -> Vec<f64> {
    let n_channels = steps.len();
    let mut n_pixels = 0;
    let errors: Vec<Vec<f64>> = (accumulators.iter().zip(means))
        .map(|(tensor, want)| {
            let data = tensor.data();
            n_pixels += data.len() / n_channels.max(1);
            let ints = (0..data.len()).map(|i| data.int_at(i).unwrap_or(0) as f64);
            let got = channel_means(ints, n_channels, data.len());
            want.iter().zip(got).zip(steps).map(|((want, got), step)| want - got * step).collect()
        })
        .collect();
    if n_pixels < FEW {
        return vec![0.0; n_channels];
    }
    let n = errors.len() as f64;
    let of_channel = |channel: usize| {
        let mean = errors.iter().map(|e| e[channel]).sum::<f64>() / n;
        if errors.len() == 1 {
            return mean;
        }
        let variance = errors.iter().map(|e| (e[channel] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let certain = 1.0 - DOUBT * DOUBT * variance / n / (mean * mean).max(f64::MIN_POSITIVE);
        mean * certain.max(0.0)
    };
    (0..n_channels).map(of_channel).collect()
}

/// Adds real shifts to accumulators, as a corrected bias will.
fn add(tensor: &mut Tensor, shifts: &[f64], steps: &[f64]) {
    let integers: Vec<i64> =
        shifts.iter().zip(steps).map(|(shift, step)| (shift / step).round() as i64).collect();
    let shape = tensor.shape().to_vec();
    let n = integers.len().max(1);
    let Some(data) = tensor.data().to_ints() else { return };
    let moved = data.into_iter().enumerate().map(|(i, x)| x + integers[i % n]);
    if let Some(data) = TensorData::from_ints(tensor.data().elem(), moved) {
        *tensor = Tensor::new(shape, data);
    }
}
