//! Post-training quantisation: from f32 (import level) to `i8`, and where chosen `i16`, with exact integer
//! arithmetic (quant level).
//!
//! | module | what it does |
//! |---|---|
//! | [`calibrate`] | which ranges values take on sample inputs |
//! | `histogram`, `entropy` | how a range is chosen from them |
//! | [`forward`](mod@forward), `kernels`, `gemm`, `integer` | the fast forward pass, in f32 and integers |
//! | `fixed` | models that come quantised: their integers as reals with fixed scales |
//! | `fixed::dynamic` | integer products, and scales computed from the data |
//! | `integers` | weights that the model gives as integers |
//! | `kinds` | what ops do to scales |
//! | `analyse` | functions of one value, scales, and what stays on the host |
//! | `bias` | what quantising shifts in means, given back to the biases |
//! | [`noise`] | what quantising costs, output by output and layer by layer |
//! | `function` | elementwise subgraphs of one variable |
//! | `lower` | the rewriting |
//! | [`ranges`] | ranges by name: saved, and given |
//! | `unusable` | given ranges that no integers can be made with |
//! | `precision` | which activations are `i16` |
//! | `outputs` | outputs that 8 bits do not serve |
//! | `thin` | values for which 16 bits cost next to nothing |
//! | [`mixed`] | the search for those that are worth it |
//! | `table16` | functions of `i16` |
//! | `weights`, `params` | integers that stand for weights, biases, ranges and factors |
//! | `host` | the f32 tail |
//!
//! # What it gives
//!
//! Activations are `i8` with a scale and zero point a tensor, or `i16` with a scale; weights symmetric `i8`
//! with a scale a channel. Every elementwise subgraph of one variable becomes the producer's saturation (ReLU
//! and its like), or a table: of 513 entries on the producer's sums rescaled to `i16`, where the function
//! alone uses these and that is closer, else of 256 entries on `i8`. Values that are only moved or selected
//! share a scale; the operands of a concatenation do so where that costs little. What has no integer form,
//! and a softmax, stays in f32 in `@host` if nothing that multiplies and accumulates follows; otherwise it is
//! an error that lists every such op.
//!
//! What a model quantises itself keeps its scales, zero points and integers; the rest is calibrated.
//!
//! Invariants: the result's bits are those of TOSA 1.0, since it is nothing but TOSA ops; RESCALE is
//! `SINGLE_ROUND`, and `scale32` but for sums of 48 bits, its values within what TOSA allows; accumulators
//! cannot overflow, whatever the input.
//!
//! It does not retrain.

mod analyse;
mod bias;
pub mod calibrate;
mod entropy;
mod fixed;
pub mod forward;
mod function;
mod gemm;
mod histogram;
mod host;
mod integer;
mod integers;
mod kernels;
mod kinds;
mod lower;
pub mod mixed;
pub mod noise;
mod outputs;
mod params;
mod precision;
pub mod ranges;
mod table16;
mod thin;
mod unusable;
mod weights;

#[cfg(test)]
mod noise_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use calibrate::{Calibration, CalibrationError};
pub use forward::forward;
pub(crate) use function::{Function, is_elementwise};
pub use histogram::RangeChoice;
pub use params::{QuantParams, Range};
pub use precision::Precision;
pub use ranges::{CalibrationSamples, ChosenRanges, SampleSource, TensorRange};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_ir::attr::FunctionType;
use strata_ir::pass::{
    Changed, Level, OptionInfo, OptionKind, Pass, PassContext, PassError, PassInfo, PassOptions,
    UnsupportedOp,
};
use strata_ir::text::Names;
use strata_ir::{Attribute, ElemType, Module, Op, OpId, Type, ValueId};

/// Why ops at the end of a network are left to the host.
const STAYS_ON_HOST: &str =
    "softmax, or what has no integer form; nothing that multiplies and accumulates follows";

/// How to quantise.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct QuantiseOptions {
    /// How ranges of `i8` are chosen; `i16` covers all that was seen.
    pub range: RangeChoice,
    /// Which activations are `i16`.
    pub precision: Precision,
}

/// What quantisation did.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct QuantReport {
    /// Convolutions and fully connected layers with integer weights.
    pub n_convolutions: usize,
    /// Look-up tables.
    pub n_tables: usize,
    /// Rescales that only change the scale of a value, for a concatenation.
    pub n_rescales: usize,
    /// The layers (or arguments) whose results are `i16`, each once.
    pub i16_layers: Vec<String>,
    /// The layers whose results are returned, and are `i16` since their parts differ so much in range.
    pub uneven_outputs: Vec<String>,
    /// Convolutions whose weights the model gives as integers that the machine cannot hold as they are.
    pub n_requantised: usize,
    /// Values whose scale and zero point are the model's own.
    pub n_fixed: usize,
    /// The ops that stay f32 on the host.
    pub host_ops: Vec<UnsupportedOp>,
    /// The range of every value of the f32 function as it was given, with the op that gives it: what the
    /// calibration chose, or what was given instead.
    pub ranges: Vec<(ValueId, &'static str, Range)>,
    /// Every value that has become integers, in the order in which `@main` computes them.
    pub values: Vec<QuantisedValue>,
}

/// A value of the f32 function and the integers that stand for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantisedValue {
    /// The value of the f32 function.
    pub real: ValueId,
    /// The value of the integer function; the same for several where a producer's saturation does an
    /// activation.
    pub integer: ValueId,
    /// What the integers mean.
    pub params: QuantParams,
}

/// Quantises `@main` with the ranges of a calibration.
///
/// # Errors
/// If the calibration is of another network, ops have no integer form, or they have none with the ranges that
/// are given. The module is then in no particular state.
pub fn quantise(
    module: &mut Module,
    calibration: &Calibration,
    options: &QuantiseOptions,
) -> Result<QuantReport, PassError> {
    if calibration.given.is_empty() {
        return to_integers(module, calibration, options);
    }
    let before = module.clone();
    to_integers(module, calibration, options).map_err(|error| match error {
        PassError::Unsupported(ops) => unusable::blame(&before, calibration, options, ops),
        other => other,
    })
}

/// [`quantise`], whoever is to blame for what is not supported.
fn to_integers(
    module: &mut Module,
    calibration: &Calibration,
    options: &QuantiseOptions,
) -> Result<QuantReport, PassError> {
    let func = module.function("main").ok_or_else(|| PassError::invalid("there is no function `main`"))?;
    let block = module.entry_block(func);
    name_result_types(module, func);
    let Planned { plan, fixed, ranges } = plan(module, func, calibration, options)?;
    let i16_layers = i16_layers(module, func, &plan);
    let name = |&value: &ValueId| precision::layer_of(module, func, value);
    let uneven_outputs = plan.uneven.iter().filter_map(name).collect();

    let old: BTreeSet<OpId> = module.block_ops(block).iter().copied().collect();
    let returned = module.terminator(block).map(|op| module.op(op).operands().to_vec()).unwrap_or_default();
    let res_attrs = match &module.op(func).op {
        Op::Func(func) => func.res_attrs.clone(),
        _ => None,
    };
    let needs_host = plan.results != returned;
    if needs_host {
        host::add_host(module, &plan, &fixed, &returned, res_attrs.clone());
    }
    // What is given is exact: there is nothing to correct.
    let corrections =
        if fixed.is_rewritten { BTreeMap::new() } else { calibration.corrections(module, func) };
    let mut lowering = lower::Lowering::new(module, block, &plan, &corrections);
    lowering.run();
    let meaning = |value: &ValueId| fixed.ports.get(value).copied();
    let results: Vec<(ValueId, Option<QuantParams>)> = (plan.results.iter())
        .map(|&value| {
            let params = lowering.done.get(&value).map(|q| q.params);
            // The host takes an argument as the real that it stands for, whatever its user sees.
            let is_argument = lowering.module.defining_op(value).is_none();
            let seen = meaning(&value).filter(|_| !is_argument);
            (lowering.integer(value), seen.or(params))
        })
        .collect();
    let done = |real: &ValueId| {
        let quantised = lowering.done.get(real)?;
        let real = if fixed.is_rewritten { *fixed.origins.get(real)? } else { *real };
        Some(QuantisedValue { real, integer: quantised.value, params: quantised.params })
    };
    let args = lowering.module.args(block).to_vec();
    let computed = plan.ops.iter().map(|&op| lowering.module.result(op));
    let values = args.into_iter().chain(computed).filter_map(|real| done(&real)).collect();
    let (mut report, unsupported) = (lowering.report, lowering.unsupported);
    report.i16_layers = i16_layers;
    report.uneven_outputs = uneven_outputs;
    report.values = values;
    report.ranges = ranges;
    if !unsupported.is_empty() {
        return Err(PassError::Unsupported(unsupported));
    }
    report.n_fixed = fixed.params.len();
    report.host_ops = plan.host_ops.iter().map(|&op| UnsupportedOp::new(module, op, STAYS_ON_HOST)).collect();
    let result_attrs = result_attributes(module, &plan.results, &returned, res_attrs.as_ref(), &results);
    lower::remove(module, block, &old);
    let params: BTreeMap<_, _> =
        plan.params.iter().map(|(value, params)| (*value, meaning(value).unwrap_or(*params))).collect();
    sign(module, func, &params, &results, result_attrs);
    Level::Quant.mark(module);
    Ok(report)
}

/// Writes down the types of results that are no floats, which their integers do not tell.
fn name_result_types(module: &mut Module, func: OpId) {
    let Op::Func(row) = &mut module.op_mut(func).op else { return };
    let named = row.function_type.results.iter().enumerate().map(|(index, ty)| {
        let mut entries = dictionary(row.res_attrs.as_ref(), index);
        let elem = ty.as_tensor().map(|ty| ty.elem);
        let dtype = match elem {
            Some(ElemType::I1) => Some("bool"),
            Some(ElemType::I32) => Some("i32"),
            _ => None,
        };
        if let Some(dtype) = dtype {
            entries.entry("strata.dtype".to_owned()).or_insert_with(|| Attribute::Str(dtype.to_owned()));
        }
        Attribute::Dict(entries)
    });
    let named: Vec<Attribute> = named.collect();
    let has_any = named.iter().any(|entries| *entries != Attribute::Dict(BTreeMap::new()));
    if has_any {
        row.res_attrs = Some(Attribute::Array(named));
    }
}

/// How a function becomes integers.
struct Planned {
    plan: analyse::QuantPlan,
    fixed: fixed::Fixed,
    /// The ranges of its values.
    ranges: Vec<(ValueId, &'static str, Range)>,
}

/// Decides how a function becomes integers. A model that comes quantised is first rewritten, see [`fixed`].
fn plan(
    module: &mut Module,
    func: OpId,
    calibration: &Calibration,
    options: &QuantiseOptions,
) -> Result<Planned, PassError> {
    let mut ranges = calibration.ranges(module, func, options.range).map_err(PassError::other)?;
    let observed = calibrate::observed_values(module, module.entry_block(func));
    let of_value = |&(value, op): &(ValueId, &'static str)| Some((value, op, ranges.chosen(value)?));
    let chosen = observed.iter().filter_map(of_value).collect();
    let wide = options.precision.wide_values(module, func);
    let fixed = fixed::collapse(module, func, &mut ranges);
    if !fixed.unscaled.is_empty() {
        return Err(PassError::Unsupported(fixed.unscaled));
    }
    if brings_scales(module, &fixed) && !wide.is_empty() {
        let why = "the model brings its own scales: 16-bit activations cannot be chosen for it";
        return Err(PassError::invalid(why));
    }
    // Beside activations that the model gives 16 bits, what it does not round would lose by having 8.
    let brings_wide = fixed.params.values().any(|params| params.elem == ElemType::I16);
    let wishes = analyse::Wishes {
        fixed: &fixed.params,
        ranges: &ranges,
        is_wide: &|value| brings_wide || wide.contains(fixed.origins.get(&value).unwrap_or(&value)),
        channels: calibration.channels(module, func),
    };
    let plan = analyse::analyse(module, module.entry_block(func), &wishes)?;
    Ok(Planned { plan, fixed, ranges: chosen })
}

/// Whether a model brings scales of its own. Integers that arguments have, or that are counted, are none.
fn brings_scales(module: &Module, fixed: &fixed::Fixed) -> bool {
    fixed.params.keys().any(|&value| module.defining_op(value).is_some())
}

/// The layers whose results are `i16`, each once, in order.
fn i16_layers(module: &Module, func: OpId, plan: &analyse::QuantPlan) -> Vec<String> {
    let mut layers = Vec::new();
    let is_wide = |value: &&ValueId| plan.params.get(value).is_some_and(|p| p.elem == ElemType::I16);
    for &value in plan.groups.values().flatten().filter(is_wide) {
        // What only a function takes is no activation, and other values cost next to nothing: they are wide
        // whatever the precision.
        let is_looked_up = plan.lookups.values().any(|lookup| lookup.base == value);
        let name = precision::layer_of(module, func, value).unwrap_or_else(|| "(unnamed)".to_owned());
        let is_known = layers.contains(&name);
        let is_by_design = plan.wide_by_design.contains(&value) || is_looked_up && plan.is_internal(value);
        if !is_known && !is_by_design {
            layers.push(name);
        }
    }
    layers
}

/// What a model says of its own quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenScales {
    /// Values whose scale and zero point the model gives.
    pub n_fixed: usize,
    /// Activations whose scale the model computes from the data, and that get a calibrated one here.
    pub n_dynamic: usize,
    /// Whether some values need the range of a calibration.
    pub needs_calibration: bool,
    /// Whether the scales are of integers that the network computes with, so that there is no precision to
    /// choose.
    pub fix_precision: bool,
}

/// Looks for scales that the model itself gives.
pub fn given_scales(module: &Module) -> GivenScales {
    let mut module = module.clone();
    let Some(func) = module.function("main") else {
        return GivenScales { n_fixed: 0, n_dynamic: 0, needs_calibration: true, fix_precision: false };
    };
    let mut none = histogram::Ranges::default();
    let fixed = fixed::collapse(&mut module, func, &mut none);
    let wishes = analyse::Wishes {
        fixed: &fixed.params,
        ranges: &none,
        is_wide: &|_| false,
        channels: BTreeMap::new(),
    };
    let needs_calibration =
        fixed.params.is_empty() || analyse::analyse(&module, module.entry_block(func), &wishes).is_err();
    let fix_precision = fixed.is_rewritten || brings_scales(&module, &fixed);
    GivenScales { n_fixed: fixed.params.len(), n_dynamic: fixed.n_dynamic, needs_calibration, fix_precision }
}

/// The dictionary of entry `index` of an array of dictionaries.
fn dictionary(attrs: Option<&Attribute>, index: usize) -> BTreeMap<String, Attribute> {
    match attrs {
        Some(Attribute::Array(items)) => match items.get(index) {
            Some(Attribute::Dict(entries)) => entries.clone(),
            _ => BTreeMap::new(),
        },
        _ => BTreeMap::new(),
    }
}

/// The attributes of the new results: those of the old result that it is, or the name of the layer.
fn result_attributes(
    module: &Module,
    values: &[ValueId],
    returned: &[ValueId],
    old: Option<&Attribute>,
    results: &[(ValueId, Option<QuantParams>)],
) -> Attribute {
    let entries = values.iter().zip(results).map(|(value, (_, params))| {
        let mut entries = match returned.iter().position(|v| v == value) {
            Some(index) => dictionary(old, index),
            None => {
                let name =
                    module.defining_op(*value).and_then(|op| module.op(op).loc.name().map(str::to_owned));
                let name = name.map(|name| ("strata.name".to_owned(), Attribute::Str(name)));
                name.into_iter().collect()
            }
        };
        entries.extend(params.map(|params| ("strata.quant".to_owned(), params.to_attr())));
        Attribute::Dict(entries)
    });
    Attribute::Array(entries.collect())
}

/// Gives `@main` its new type and attributes.
fn sign(
    module: &mut Module,
    func: OpId,
    params: &BTreeMap<ValueId, QuantParams>,
    results: &[(ValueId, Option<QuantParams>)],
    result_attrs: Attribute,
) {
    let args = module.args(module.entry_block(func)).to_vec();
    let types = |values: &mut dyn Iterator<Item = ValueId>| -> Vec<Type> {
        values.map(|value| module.ty(value).clone()).collect()
    };
    let inputs = types(&mut args.iter().copied());
    let function_type = FunctionType { inputs, results: types(&mut results.iter().map(|(value, _)| *value)) };
    let Op::Func(func) = &mut module.op_mut(func).op else { return };
    let arg_attrs = args.iter().enumerate().map(|(index, arg)| {
        let mut entries = dictionary(func.arg_attrs.as_ref(), index);
        entries.extend(params.get(arg).map(|params| ("strata.quant".to_owned(), params.to_attr())));
        Attribute::Dict(entries)
    });
    func.arg_attrs = Some(Attribute::Array(arg_attrs.collect()));
    func.res_attrs = Some(result_attrs);
    func.function_type = function_type;
}

/// The parameters of the arguments or results of a quantised function, from their attributes and types.
pub fn params_of(attrs: Option<&Attribute>, types: &[Type]) -> Vec<Option<QuantParams>> {
    let of = |(index, ty): (usize, &Type)| {
        QuantParams::from_attr(dictionary(attrs, index).get("strata.quant")?, ty.as_tensor()?.elem)
    };
    types.iter().enumerate().map(of).collect()
}

/// Signal to quantisation noise: `10 log10(sum(reference^2) / sum((reference - got)^2))`, infinite when
/// equal.
///
/// # Units
/// Decibels.
pub fn sqnr(reference: &[f32], got: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let signal: f64 = reference.iter().map(|&x| square(f64::from(x))).sum();
    let noise: f64 = reference.iter().zip(got).map(|(&x, &y)| square(f64::from(x) - f64::from(y))).sum();
    if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
}

/// The pass: takes the [`Calibration`] from the context, or [`CalibrationSamples`] to make one of, and leaves
/// the [`QuantReport`] and the [`ChosenRanges`] there.
#[derive(Clone, Debug, Default)]
pub struct Quantise {
    /// How; the precision of the context, if there is one, comes before theirs.
    pub options: QuantiseOptions,
}

/// The pass `quantise`.
pub static QUANTISE: PassInfo = PassInfo {
    name: "quantise",
    doc: "Post-training quantisation to 8-bit integers, activations 16-bit where chosen, with ranges from a \
        calibration.",
    takes: &[Level::Import],
    gives: Some(Level::Quant),
    options: &[
        OptionInfo {
            name: "scheme",
            kind: OptionKind::Choice(&["per-channel"]),
            default: "per-channel",
            doc: "Granularity of weight scales; activations have one a tensor.",
        },
        OptionInfo {
            name: "range",
            kind: OptionKind::Choice(&["min-max", "percentile", "mse", "entropy"]),
            default: "mse",
            doc: "How the range of an activation is chosen from its histogram.",
        },
        OptionInfo {
            name: "percentile",
            kind: OptionKind::Number(50.0, 100.0),
            default: "99.99",
            doc: "Per cent of values that `range=percentile` keeps at either end.",
        },
        OptionInfo {
            name: "precision",
            kind: OptionKind::Choice(&["int8", "int16"]),
            default: "int8",
            doc: "Bits of activations, unless the context holds a choice of layers.",
        },
    ],
    build: |options| Arc::new(Quantise { options: QuantiseOptions::of_pass(options) }),
};

impl QuantiseOptions {
    /// What the options of the pass say.
    ///
    /// # Panics
    /// If they are another pass's.
    pub fn of_pass(options: &PassOptions) -> Self {
        let range = RangeChoice::from_name(options.text("range"), options.number("percentile"));
        let precision = if options.text("precision") == "int16" { Precision::Int16 } else { Precision::Int8 };
        Self { range, precision }
    }

    /// The options of the pass that say so; layers that are `i16` by name are for the context to say.
    fn to_pass(&self) -> PassOptions {
        let options = PassOptions::defaults(&QUANTISE).with("range", self.range.name());
        let options = match self.range {
            RangeChoice::Percentile(percent) => options.with("percentile", percent),
            _ => options,
        };
        match self.precision {
            Precision::Int16 => options.with("precision", "int16"),
            Precision::Int8 | Precision::Mixed(_) => options,
        }
    }
}

impl Pass for Quantise {
    fn info(&self) -> &'static PassInfo {
        &QUANTISE
    }

    fn options(&self) -> PassOptions {
        self.options.to_pass()
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let mut options = self.options.clone();
        if let Some(precision) = context.get::<Precision>() {
            options.precision = precision.clone();
        }
        let gathered;
        let calibration = match context.get::<Calibration>() {
            Some(calibration) => calibration,
            None => {
                let what = "a calibration: sample inputs, or seeded noise";
                gathered = context.require::<CalibrationSamples>(what)?.calibrate(module, &options)?;
                &gathered
            }
        };
        let names = Names::of(module);
        let report = quantise(module, calibration, &options)?;
        context.insert(ChosenRanges::of(&report, &names));
        if !report.i16_layers.is_empty() {
            context.count("i16 layers", report.i16_layers.len() as u64);
        }
        context.count("convolutions", report.n_convolutions as u64);
        context.count("tables", report.n_tables as u64);
        if report.n_fixed > 0 {
            context.count("values quantised by the model", report.n_fixed as u64);
            context.count("weights quantised anew", report.n_requantised as u64);
        }
        context.count("host ops", report.host_ops.len() as u64);
        context.insert(report);
        Ok(Changed::Yes)
    }
}
