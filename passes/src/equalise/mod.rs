//! Cross-layer equalisation: `equalise` scales the channels between convolutions so that one scale a tensor
//! serves them all. A pass from f32 to f32 that changes no result beyond rounding.
//!
//! Where the result of a convolution goes, through ops that let a positive factor of a channel pass (ReLU,
//! leaky ReLU, PReLU, pools, resizes), only into other convolutions, channel `c` of the first may be divided
//! by any `s[c] > 0` and the weights that read it multiplied by it. With a scale for every output channel of
//! the weights, the first convolution's integers do not change at all; what changes is how well one scale
//! suits all channels of the activation, against how well one scale of an output channel suits the weights of
//! all its inputs.
//!
//! An activation that lets no factor pass (swish, hard swish, GELU) has its result multiplied by `1 / s[c]`
//! instead; quantised, that is part of the rescale that ends the activation's table.
//!
//! | module | what it does |
//! |---|---|
//! | `pairs` | finds the convolutions between which channels may be scaled |
//! | `scales` | chooses the factors |
//!
//! A ReLU6 lets no factor pass, since its bound would have to move. It is rewritten as a ReLU and a minimum
//! with a bound a channel, which is the same function. Quantised, that costs nothing as long as no channel's
//! range lies beyond the least of the bounds; factors are chosen so, which takes statistics. Without them
//! ReLU6 ends the search.
//!
//! # Source
//! Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias
//! Correction, 2019. There the factors balance the ranges of two weight tensors with one scale each; here,
//! with statistics, they minimise the expected noise of the second convolution's result under a scale for
//! each of its output channels.

mod pairs;
mod scales;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use pairs::{Pair, find_pairs};
use strata_ir::dialect::{Clamp, Minimum, Mul, NanMode};
use strata_ir::eval::EvalError;
use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo, PassOptions};
use strata_ir::{Attribute, ElemType, Module, Op, OpId, Tensor, Type, ValueId};

use crate::quantise::{CalibrationSamples, forward};

/// What the samples show of the channels between convolutions.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// One for each place at which channels may be scaled, in order.
    places: Vec<Channels>,
}

/// The channels of one value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Channels {
    /// The greatest magnitude seen.
    greatest: Vec<f64>,
    /// The least value seen, if it is below 0.
    low: Vec<f64>,
    /// The greatest value seen, if it is above 0.
    high: Vec<f64>,
    /// The mean of the squares.
    mean_square: Vec<f64>,
    /// Over how many values.
    n_pixels: usize,
}

impl ChannelStatistics {
    /// Runs the f32 `@main` on samples and gathers what [`equalise`] can use.
    ///
    /// # Errors
    /// If a sample does not fit or an op cannot be evaluated.
    pub fn collect(module: &Module, samples: &[Vec<Arc<Tensor>>]) -> Result<Self, EvalError> {
        let Some(func) = module.function("main") else { return Ok(Self { places: Vec::new() }) };
        let pairs = find_pairs(module, module.entry_block(func));
        let mut places: Vec<Channels> = pairs.iter().map(|pair| Channels::new(pair.n_channels)).collect();
        for inputs in samples {
            let mut observe = |value: ValueId, tensor: &Tensor| {
                let at = pairs.iter().position(|pair| pair.value == value);
                if let (Some(at), Some(data)) = (at, tensor.as_f32()) {
                    places[at].add(data, samples.len());
                }
            };
            forward(module, func, inputs, &mut observe)?;
        }
        Ok(Self { places })
    }
}

impl Channels {
    fn new(n_channels: usize) -> Self {
        let zero = vec![0.0; n_channels];
        Self { greatest: zero.clone(), low: zero.clone(), high: zero.clone(), mean_square: zero, n_pixels: 0 }
    }

    fn add(&mut self, data: &[f32], n_samples: usize) {
        let n_channels = self.greatest.len().max(1);
        let share = n_channels as f64 / (data.len() * n_samples).max(1) as f64;
        self.n_pixels += data.len() / n_channels;
        for pixel in data.chunks(n_channels) {
            for (channel, &x) in pixel.iter().enumerate() {
                let x = f64::from(x);
                self.low[channel] = self.low[channel].min(x);
                self.high[channel] = self.high[channel].max(x);
                self.mean_square[channel] += share * x * x;
            }
        }
        for (greatest, (low, high)) in self.greatest.iter_mut().zip(self.low.iter().zip(&self.high)) {
            *greatest = high.max(-low);
        }
    }
}

/// Equalises `@main`; returns at how many places it scaled channels.
///
/// # Errors
/// If the statistics are of another network.
pub fn equalise(module: &mut Module, statistics: Option<&ChannelStatistics>) -> Result<usize, PassError> {
    let func = module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))?;
    let pairs = find_pairs(module, module.entry_block(func));
    if let Some(statistics) = statistics {
        let same = statistics.places.len() == pairs.len()
            && statistics.places.iter().zip(&pairs).all(|(s, pair)| s.greatest.len() == pair.n_channels);
        if !same {
            return Err(PassError::invalid("the channel statistics are of another network"));
        }
    }
    let mut n_scaled = 0;
    for (at, pair) in pairs.iter().enumerate() {
        let channels = statistics.map(|statistics| &statistics.places[at]);
        if let Some(factors) = scales::choose(module, pair, channels) {
            apply(module, pair, &factors);
            n_scaled += 1;
        }
    }
    Ok(n_scaled)
}

/// Divides the producer's channels by the factors and multiplies the weights that read them.
fn apply(module: &mut Module, pair: &Pair, factors: &[f64]) {
    let inverse: Vec<f64> = factors.iter().map(|s| s.recip()).collect();
    match pair.bend {
        Some(value) => scale_value(module, value, &inverse),
        None => {
            let output_channel = pairs::output_channels(module, pair.producer);
            scale_constant(module, pair.producer, 1, &output_channel, &inverse);
            let one_each: Vec<usize> = (0..pair.n_channels).collect();
            scale_constant(module, pair.producer, 2, &one_each, &inverse);
        }
    }
    for &consumer in pair.consumers.iter().chain(&pair.others) {
        let input_channel = pairs::input_channels(module, consumer, pair.n_channels);
        scale_constant(module, consumer, 1, &input_channel, factors);
    }
    for &clamp in &pair.clamps {
        split_clamp(module, clamp, factors);
    }
}

/// Multiplies the channels of a value by factors, for all that uses it.
fn scale_value(module: &mut Module, value: ValueId, factors: &[f64]) {
    let Some(def) = module.defining_op(value) else { return };
    let uses = |&&op: &&OpId| module.op(op).operands().contains(&value);
    let Some(&first) = module.block_ops(module.position(def).0).iter().find(uses) else { return };
    let (ty, loc) = (module.tensor_ty(value).clone(), module.op(def).loc.clone());
    let mut shape = vec![1; ty.shape.len()];
    if let Some(last) = shape.last_mut() {
        *last = factors.len();
    }
    let data = factors.iter().map(|&factor| factor as f32).collect();
    let gains = module.insert_const_before(first, Tensor::f32(shape, data), loc.clone());
    let shift = module.insert_const_before(first, Tensor::i8([1], vec![0]), loc.clone());
    let product = module.insert_before(first, Mul {}, &[value, gains, shift], &[Type::Tensor(ty)], loc);
    let scaled = module.result(product);
    module.replace_all_uses(value, scaled);
    module.set_operand(product, 0, value);
}

/// Replaces a constant operand by its elements times the factors of their channels; a bias of one element is
/// repeated.
fn scale_constant(module: &mut Module, op: OpId, operand: usize, channel: &[usize], factors: &[f64]) {
    let value = module.op(op).operands()[operand];
    let Some(elements) = module.constant(value) else { return };
    let Some(data) = elements.tensor.as_f32() else { return };
    let repeated = data.len() == 1 && channel.len() > 1;
    let at = |i: usize| f64::from(data[if repeated { 0 } else { i }]);
    let scaled = channel.iter().enumerate().map(|(i, &c)| (at(i) * factors[c]) as f32).collect();
    let shape = if repeated { vec![channel.len()] } else { elements.tensor.shape().to_vec() };
    let loc = module.op(op).loc.clone();
    let constant = module.insert_const_before(op, Tensor::f32(shape, scaled), loc);
    module.set_operand(op, operand, constant);
}

/// Makes `clamp(x, 0, high)` of values that are divided by the factors:
/// `minimum(clamp(x, 0, ∞), high / factors)`.
fn split_clamp(module: &mut Module, clamp: OpId, factors: &[f64]) {
    let (result, loc) = (module.result(clamp), module.op(clamp).loc.clone());
    let input = module.op(clamp).operands()[0];
    let Op::Clamp(row) = &module.op(clamp).op else { return };
    let Attribute::Float(high, _) = row.max_val else { return };
    let relu = Clamp { max_val: Attribute::Float(f64::from(f32::MAX), Some(ElemType::F32)), ..row.clone() };
    let shape = module.tensor_ty(result).shape.clone();
    let mut bound_shape = vec![1; shape.len()];
    if let Some(last) = bound_shape.last_mut() {
        *last = factors.len();
    }
    let bounds = factors.iter().map(|s| (high / s) as f32).collect();
    let bounds = module.insert_const_before(clamp, Tensor::f32(bound_shape, bounds), loc.clone());
    let ty = Type::tensor(shape, ElemType::F32);
    let relu = module.insert_before(clamp, relu, &[input], &[ty], loc);
    let relu = module.result(relu);
    module.op_mut(clamp).op = Minimum { nan_mode: NanMode::Propagate }.into();
    module.set_operands(clamp, &[relu, bounds]);
}

/// The pass `equalise`.
pub static EQUALISE: PassInfo = PassInfo {
    name: "equalise",
    doc: "Cross-layer equalisation: scales channels between convolutions so that one scale a tensor suits \
          them all. Changes no result beyond rounding. Uses channel statistics of sample inputs if it is \
          given some, else the weights alone.",
    takes: &[Level::Import],
    gives: None,
    options: &[],
    build: |_: &PassOptions| Arc::new(Equalise),
};

/// Equalises `@main`, with the [`ChannelStatistics`] of the context if there are some, or those of its
/// [`CalibrationSamples`] if they are data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Equalise;

impl Pass for Equalise {
    fn info(&self) -> &'static PassInfo {
        &EQUALISE
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let gathered;
        let statistics = match (context.get::<ChannelStatistics>(), context.get::<CalibrationSamples>()) {
            (None, Some(given)) if given.source.are_data() => {
                let samples = given.source.samples(module)?;
                gathered = ChannelStatistics::collect(module, &samples).map_err(PassError::other)?;
                Some(&gathered)
            }
            (statistics, _) => statistics,
        };
        let n_scaled = equalise(module, statistics)?;
        context.count("places", n_scaled as u64);
        Ok((n_scaled > 0).into())
    }
}
