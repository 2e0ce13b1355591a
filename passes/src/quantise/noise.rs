//! What quantising costs: the noise in every output and every layer of a quantised network, on sample inputs.
//!
//! Three figures a layer, all signal to noise ratios in decibels:
//!
//! - *cumulative*: its output in the integer network against its output in f32: its own noise and all before
//!   it;
//! - *own*: its output when only this layer is quantised (its weights, biases and result) and its inputs are
//!   f32;
//! - *outputs*: the network's outputs when only this layer is quantised: what it costs in the end.
//!
//! The integer network is run as it is, bit for bit; the network of one quantised layer is simulated in f32,
//! from that layer on. Neither looks at the machine: fusion changes no values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::eval::EvalError;
use strata_ir::pass::PassError;
use strata_ir::{BlockId, Module, Op, OpId, Tensor, TensorData, Type, ValueId};

use crate::quantise::forward::{compute, forward, numbers};
use crate::quantise::weights::{ChannelAxis, quantise_weights};
use crate::quantise::{QuantParams, QuantisedValue};

/// Samples on which layers are quantised alone: each costs about as many runs as there are layers.
const ALONE_SAMPLES: usize = 4;

/// Sums of squares of a signal and of the noise in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Power {
    /// Of the signal.
    pub signal: f64,
    /// Of the noise.
    pub noise: f64,
}

impl Power {
    /// Of a reference and what was got in its place.
    pub fn of(reference: &[f32], got: impl IntoIterator<Item = f64>) -> Self {
        let mut power = Self::default();
        for (&want, got) in reference.iter().zip(got) {
            power.observe(f64::from(want), got);
        }
        power
    }

    /// Adds one value of a reference and what was got in its place.
    pub fn observe(&mut self, want: f64, got: f64) {
        self.signal += want * want;
        self.noise += (want - got) * (want - got);
    }

    /// The ratio of the two in decibels: infinite without noise.
    pub fn decibels(self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// Adds signal and noise of other values.
    pub fn add(&mut self, other: Self) {
        self.signal += other.signal;
        self.noise += other.noise;
    }

    fn noise_to_signal(self) -> f64 {
        if self.noise == 0.0 { 0.0 } else { self.noise / self.signal.max(f64::MIN_POSITIVE) }
    }
}

/// The noise of one layer: a value that is quantised, and the operation that makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNoise {
    /// The name of the layer it came from.
    pub name: String,
    /// The operation, such as `conv2d`, `add` or `argument`; that of the layer, if its activation is part of
    /// it.
    pub op: String,
    /// Signal to noise of its output with all before it quantised too, in decibels.
    pub cumulative_db: f64,
    /// Signal to noise of its output with only this layer quantised, in decibels.
    pub own_db: f64,
    /// Signal to noise of the network's outputs with only this layer quantised, in decibels: of the mean of
    /// the outputs' ratios of noise to signal.
    pub outputs_db: f64,
}

/// The noise in one output of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputNoise {
    /// Signal and noise over all samples.
    pub power: Power,
    /// What the quantised network gave, a tensor each sample; reals, or integers where the output is of
    /// integers.
    pub tensors: Vec<Tensor>,
}

/// A network in f32 and quantised.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    /// The f32 module, as it was given to [`quantise`](crate::quantise::quantise).
    pub real: &'a Module,
    /// The module that came of it.
    pub quantised: &'a Module,
    /// Which values became which.
    pub values: &'a [QuantisedValue],
}

/// One layer: the f32 values that share integers, the last of which those stand for.
struct Layer {
    params: QuantParams,
    integer: ValueId,
    members: Vec<ValueId>,
}

impl Layer {
    fn value(&self) -> ValueId {
        self.members.last().copied().expect("a layer has a member")
    }
}

fn eval(error: EvalError) -> PassError {
    PassError::other(error)
}

fn main_of(module: &Module) -> Result<OpId, PassError> {
    module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))
}

impl<'a> Networks<'a> {
    fn layers(&self) -> Vec<Layer> {
        let mut at: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut layers: Vec<Layer> = Vec::new();
        for &QuantisedValue { real, integer, params } in self.values {
            match at.get(&integer) {
                // A reshape that the lowering passes through is no activation, but has the same integers too.
                Some(&layer) => {
                    layers[layer].members.push(real);
                    layers[layer].params = params;
                }
                None => {
                    at.insert(integer, layers.len());
                    layers.push(Layer { params, integer, members: vec![real] });
                }
            }
        }
        layers
    }

    fn params(&self) -> BTreeMap<ValueId, QuantParams> {
        self.values.iter().map(|v| (v.integer, v.params)).collect()
    }

    /// The inputs of the quantised `@main`.
    pub(super) fn quantised_inputs(&self, inputs: &[Arc<Tensor>]) -> Vec<Arc<Tensor>> {
        let params = self.params();
        let args = self
            .quantised
            .function("main")
            .map(|main| self.quantised.args(self.quantised.entry_block(main)).to_vec());
        (inputs.iter().zip(args.unwrap_or_default()))
            .map(|(input, arg)| match (params.get(&arg), numbers(input)) {
                (Some(params), Some(data)) => Arc::new(integers(&data, *params, self.quantised, arg)),
                _ => Arc::clone(input),
            })
            .collect()
    }

    /// What the quantised network computes for one sample: the results of its `@main`, or of its `@host` if
    /// it has one.
    ///
    /// # Errors
    /// If the inputs do not fit or an op cannot be evaluated.
    pub fn run_quantised(
        &self,
        inputs: &[Arc<Tensor>],
        observer: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Vec<Arc<Tensor>>, PassError> {
        let module = self.quantised;
        let main = main_of(module)?;
        let params = self.params();
        let inputs = self.quantised_inputs(inputs);
        let results = forward(module, main, &inputs, observer).map_err(eval)?;
        let terminator = module.terminator(module.entry_block(main));
        let returned = terminator.map(|op| module.op(op).operands().to_vec()).unwrap_or_default();
        let real: Vec<Arc<Tensor>> = (results.iter().zip(&returned))
            .map(|(tensor, value)| match params.get(value) {
                Some(&params) => Arc::new(reals(tensor, params)),
                None => Arc::clone(tensor),
            })
            .collect();
        match module.function("host") {
            Some(host) => forward(module, host, &real, &mut |_, _| {}).map_err(eval),
            None => Ok(real),
        }
    }

    /// The noise in the network's outputs, over all samples.
    ///
    /// # Errors
    /// As [`run_quantised`](Self::run_quantised).
    pub fn outputs(&self, samples: &[Vec<Arc<Tensor>>]) -> Result<Vec<OutputNoise>, PassError> {
        Ok(self.measure(samples, false)?.0)
    }

    /// The noise in the network's outputs over all samples, and in every layer: cumulative over all samples,
    /// the layer's own on the first few.
    ///
    /// # Errors
    /// As [`run_quantised`](Self::run_quantised).
    pub fn layers_and_outputs(
        &self,
        samples: &[Vec<Arc<Tensor>>],
    ) -> Result<(Vec<OutputNoise>, Vec<LayerNoise>), PassError> {
        self.measure(samples, true)
    }

    fn measure(
        &self,
        samples: &[Vec<Arc<Tensor>>],
        with_layers: bool,
    ) -> Result<(Vec<OutputNoise>, Vec<LayerNoise>), PassError> {
        let main = main_of(self.real)?;
        let layers = if with_layers { self.layers() } else { Vec::new() };
        let at: BTreeMap<ValueId, usize> =
            layers.iter().enumerate().map(|(at, layer)| (layer.integer, at)).collect();
        let mut cumulative = vec![Power::default(); layers.len()];
        let mut outputs: Vec<OutputNoise> = Vec::new();
        let mut alone = vec![(Power::default(), Vec::<Power>::new()); layers.len()];
        for (sample, inputs) in samples.iter().enumerate() {
            let mut kept: SecondaryMap<ValueId, Option<Arc<Tensor>>> = SecondaryMap::new();
            let mut keep = |value: ValueId, tensor: &Tensor| {
                if with_layers {
                    kept[value] = Some(Arc::new(tensor.clone()));
                }
            };
            let want = forward(self.real, main, inputs, &mut keep).map_err(eval)?;
            let mut compare = |value: ValueId, tensor: &Tensor| {
                let Some(&layer) = at.get(&value) else { return };
                let want = kept[layers[layer].value()].as_deref().and_then(Tensor::as_f32);
                let Some(want) = want else { return };
                cumulative[layer].add(Power::of(want, dequantised(tensor, layers[layer].params)));
            };
            let got = self.run_quantised(inputs, &mut compare)?;
            outputs.resize_with(got.len(), || OutputNoise { power: Power::default(), tensors: Vec::new() });
            for ((output, want), got) in outputs.iter_mut().zip(&want).zip(&got) {
                if let (Some(want), Some(got)) = (want.as_f32(), got.as_f32()) {
                    output.power.add(Power::of(want, got.iter().map(|&x| f64::from(x))));
                }
                output.tensors.push(Tensor::clone(got));
            }
            if with_layers && sample < ALONE_SAMPLES {
                let alone_of = Alone { real: self.real, block: self.real.entry_block(main), kept, want };
                for (layer, (own, at_outputs)) in layers.iter().zip(&mut alone) {
                    let (power, powers) = alone_of.run(self, layer)?;
                    own.add(power);
                    at_outputs.resize(powers.len(), Power::default());
                    at_outputs.iter_mut().zip(powers).for_each(|(sum, power)| sum.add(power));
                }
            }
        }
        let noises = layers.iter().zip(&cumulative).zip(alone).map(|((layer, cumulative), (own, powers))| {
            let (name, op) = self.describe(layer);
            let ratios = powers.iter().map(|power| power.noise_to_signal());
            let outputs = ratios.sum::<f64>() / powers.len().max(1) as f64;
            let outputs_db = if outputs == 0.0 { f64::INFINITY } else { -10.0 * outputs.log10() };
            LayerNoise { name, op, cumulative_db: cumulative.decibels(), own_db: own.decibels(), outputs_db }
        });
        Ok((outputs, noises.collect()))
    }

    /// The name and kind of a layer: those of the first op of it that has a name, which does the work.
    fn describe(&self, layer: &Layer) -> (String, String) {
        let ops: Vec<OpId> = layer.members.iter().filter_map(|&v| self.real.defining_op(v)).collect();
        let Some(&first) = ops.first() else { return ("(input)".to_owned(), "argument".to_owned()) };
        let kind = |op: OpId| self.real.op(op).op.name().trim_start_matches("tosa.").to_owned();
        let name = ops.iter().find_map(|&op| self.real.op(op).loc.name());
        (name.unwrap_or("(unnamed)").to_owned(), kind(first))
    }
}

/// The integers of a real tensor, as the port of the quantised function wants them.
fn integers(data: &[f32], params: QuantParams, module: &Module, value: ValueId) -> Tensor {
    let ty = module.tensor_ty(value);
    let (least, greatest) = ty.elem.int_range().unwrap_or((-128, 127));
    let one = |x: f32| {
        // As a session does it at the border of the machine: half to even.
        let scaled = (f64::from(x) / params.scale).round_ties_even() + params.zero_point as f64;
        scaled.clamp(least as f64, greatest as f64) as i64
    };
    let data = TensorData::from_ints(ty.elem, data.iter().map(|&x| one(x)));
    Tensor::new(ty.shape.clone(), data.unwrap_or(TensorData::F32(Vec::new())))
}

fn dequantised(tensor: &Tensor, params: QuantParams) -> impl Iterator<Item = f64> {
    let data = tensor.data();
    (0..data.len()).map(move |i| params.scale * (data.int_at(i).unwrap_or(0) - params.zero_point) as f64)
}

fn reals(tensor: &Tensor, params: QuantParams) -> Tensor {
    Tensor::f32(tensor.shape(), dequantised(tensor, params).map(|x| x as f32).collect())
}

/// Networks of which one layer is quantised and all else f32, on one sample.
struct Alone<'a> {
    real: &'a Module,
    block: BlockId,
    /// The values of the f32 network.
    kept: SecondaryMap<ValueId, Option<Arc<Tensor>>>,
    /// Its results.
    want: Vec<Arc<Tensor>>,
}

impl Alone<'_> {
    /// Signal and noise in the layer's value, and in every output.
    fn run(&self, networks: &Networks<'_>, layer: &Layer) -> Result<(Power, Vec<Power>), PassError> {
        let members: BTreeSet<ValueId> = layer.members.iter().copied().collect();
        let value = layer.value();
        let mut changed: BTreeMap<ValueId, Arc<Tensor>> = BTreeMap::new();
        let mut own = Power::default();
        let quantise = |tensor: &Tensor| -> Option<(Power, Tensor)> {
            let data = tensor.as_f32()?;
            let through = |x: f32| {
                let q = (f64::from(x) / layer.params.scale).round() + layer.params.zero_point as f64;
                let (least, greatest) = networks.quantised.tensor_ty(layer.integer).elem.int_range()?;
                let q = q.clamp(least as f64, greatest as f64);
                Some((layer.params.scale * (q - layer.params.zero_point as f64)) as f32)
            };
            let data: Vec<f32> = data.iter().map(|&x| through(x)).collect::<Option<_>>()?;
            let reference = self.kept[value].as_deref().and_then(Tensor::as_f32)?;
            let power = Power::of(reference, data.iter().map(|&x| f64::from(x)));
            Some((power, Tensor::f32(tensor.shape(), data)))
        };
        if let Some(input) = self.kept[value].as_deref().filter(|_| self.real.defining_op(value).is_none()) {
            let Some((power, tensor)) = quantise(input) else { return Ok((own, Vec::new())) };
            own = power;
            changed.insert(value, Arc::new(tensor));
        }
        for &op in self.real.block_ops(self.block) {
            let data = self.real.op(op);
            let &[result] = data.results() else { continue };
            let is_member = members.contains(&result);
            if data.op.is_constant()
                || (!is_member && !data.operands().iter().any(|v| changed.contains_key(v)))
            {
                continue;
            }
            let operand = |value: &ValueId| {
                let constant = || self.real.constant(*value).map(|c| Arc::clone(&c.tensor));
                changed.get(value).cloned().or_else(|| self.kept[*value].clone()).or_else(constant)
            };
            let mut operands: Vec<Arc<Tensor>> = data.operands().iter().filter_map(operand).collect();
            if is_member && let Some((weight, bias)) = self.coarse_weights(networks, op, &operands) {
                operands[1] = Arc::new(weight);
                operands[2] = Arc::new(bias);
            }
            let refs: Vec<&Tensor> = operands.iter().map(Arc::as_ref).collect();
            let types: Vec<Type> = vec![self.real.ty(result).clone()];
            let mut tensor = compute(&data.op, &refs, &types).map_err(eval)?.swap_remove(0);
            if result == value
                && let Some((power, through)) = quantise(&tensor)
            {
                (own, tensor) = (power, through);
            }
            changed.insert(result, Arc::new(tensor));
        }
        let terminator = self.real.terminator(self.block);
        let returned = terminator.map(|op| self.real.op(op).operands().to_vec()).unwrap_or_default();
        let powers = self.want.iter().zip(&returned).filter_map(|(want, value)| {
            let want = want.as_f32()?;
            let got = changed.get(value).map_or(want, |got| got.as_f32().unwrap_or(want));
            Some(Power::of(want, got.iter().map(|&x| f64::from(x))))
        });
        Ok((own, powers.collect()))
    }

    /// The weights and biases of a convolution as its integers have them, if the op is one.
    fn coarse_weights(
        &self,
        networks: &Networks<'_>,
        op: OpId,
        operands: &[Arc<Tensor>],
    ) -> Option<(Tensor, Tensor)> {
        let data = self.real.op(op);
        let axis = match data.op {
            Op::Conv2d(_) | Op::TransposeConv2d(_) => ChannelAxis::First,
            Op::DepthwiseConv2d(_) => ChannelAxis::Last,
            _ => return None,
        };
        let input = data.operands().first()?;
        let input = networks.values.iter().find(|value| value.real == *input)?.params;
        let n_channels = *self.real.ty(self.real.result(op)).as_tensor()?.shape.last()?;
        let weights = quantise_weights(&operands[1], &operands[2], axis, n_channels, input)?;
        Some(weights.dequantised(axis, input.scale))
    }
}
