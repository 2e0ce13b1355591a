//! Rewrites the body of `@main` from f32 to integers, op by op, as the [plan](crate::quantise::analyse) says.
//!
//! New ops are appended after the old ones and the old ones then removed. What stands between a convolution
//! (or a sum, a product, …) and its successor is always `tosa.rescale` from the accumulator to the
//! activation, then a `tosa.table` (with a rescale of its own, if it is of `i16`) or `tosa.clamp` if there is
//! a function; stage selection relies on that order.

mod choices;
mod offset;
mod picks;
mod slopes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_ir::attr::RoundingMode;
use strata_ir::dialect::{
    AvgPool2d, Clamp, Concat, Conv2d, DepthwiseConv2d, FuncReturn, MatMul, Mul, NanMode, Pad, ReduceSum,
    Rescale, Reshape, ResizeMode, Table,
};
use strata_ir::pass::UnsupportedOp;
use strata_ir::{
    Attribute, BlockId, ElemType, Elements, Location, Module, Op, OpId, Tensor, TensorData, Type, ValueId,
};

use crate::quantise::analyse::{Lookup, QuantPlan};
use crate::quantise::function::Function;
use crate::quantise::integers::QuantConstant;
use crate::quantise::kinds::keeps_scale;
use crate::quantise::lower::offset::is_offset;
use crate::quantise::params::{FixedScale, Range};
use crate::quantise::table16::Table16;
use crate::quantise::weights::{ChannelAxis, QuantWeights, corrected, quantise_weights};
use crate::quantise::{QuantParams, QuantReport};

/// An integer value and what it stands for.
#[derive(Clone, Copy)]
pub(super) struct Quantised {
    pub value: ValueId,
    pub params: QuantParams,
}

/// A value of `i32` with zero point 0.
#[derive(Clone, Copy)]
struct Wide {
    value: ValueId,
    scale: f64,
    /// A bound of its magnitude.
    bound: f64,
}

/// The body under rewriting.
pub(super) struct Lowering<'a> {
    pub module: &'a mut Module,
    block: BlockId,
    plan: &'a QuantPlan,
    /// What to add to the biases of convolutions, by their results.
    corrections: &'a BTreeMap<ValueId, Vec<f32>>,
    /// The integers of the f32 values computed so far.
    pub done: BTreeMap<ValueId, Quantised>,
    /// Results that are integers from the start (`argmax`).
    pub plain: BTreeMap<ValueId, ValueId>,
    wide: BTreeMap<ValueId, Wide>,
    loc: Location,
    pub unsupported: Vec<UnsupportedOp>,
    pub report: QuantReport,
}

type Lowered = Result<(), &'static str>;

const OUT_OF_RANGE: &str = "the ratio of its scales is beyond what RESCALE can apply";
const NOT_EXPECTED: &str = "its operands are not as the import level promises";

impl<'a> Lowering<'a> {
    pub(super) fn new(
        module: &'a mut Module,
        block: BlockId,
        plan: &'a QuantPlan,
        corrections: &'a BTreeMap<ValueId, Vec<f32>>,
    ) -> Self {
        Self {
            module,
            block,
            plan,
            corrections,
            done: BTreeMap::new(),
            plain: BTreeMap::new(),
            wide: BTreeMap::new(),
            loc: Location::unknown(),
            unsupported: Vec::new(),
            report: QuantReport::default(),
        }
    }

    /// Appends the integer form of every op and the new return.
    pub(super) fn run(&mut self) {
        for arg in self.module.args(self.block).to_vec() {
            let Some(&params) = self.plan.params.get(&arg) else { continue };
            let ty = self.module.tensor_ty(arg).with_elem(params.elem);
            self.module.set_ty(arg, ty);
            self.done.insert(arg, Quantised { value: arg, params });
        }
        for &op in &self.plan.ops {
            self.loc = self.module.op(op).loc.clone();
            if let Err(reason) = self.lower(op) {
                self.unsupported.push(UnsupportedOp::new(self.module, op, reason));
                self.stand_in(op);
            }
        }
        let results: Vec<ValueId> = self.plan.results.iter().map(|v| self.integer(*v)).collect();
        self.module.append(self.block, FuncReturn {}, &results, &[], Location::unknown());
    }

    /// The integers of a value that is computed.
    pub(super) fn integer(&self, value: ValueId) -> ValueId {
        self.done.get(&value).map(|q| q.value).or_else(|| self.plain.get(&value).copied()).unwrap_or(value)
    }

    /// Gives the result of an op that failed some value, so that what depends on it can be looked at too.
    fn stand_in(&mut self, op: OpId) {
        let result = self.module.result(op);
        let shape = self.shape(result);
        let n = shape.iter().product();
        let value = self.constant(Tensor::i8(shape, vec![0; n]));
        let params = self.params(result).unwrap_or(QuantParams::i8(1.0, 0));
        self.done.insert(result, Quantised { value, params });
    }

    fn shape(&self, value: ValueId) -> Vec<usize> {
        self.module.ty(value).as_tensor().map(|ty| ty.shape.clone()).unwrap_or_default()
    }

    fn params(&self, value: ValueId) -> Result<QuantParams, &'static str> {
        self.plan.params.get(&value).copied().ok_or(NOT_EXPECTED)
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.module.append_const(self.block, tensor, self.loc.clone())
    }

    /// A zero point, a padding value or a shift: one integer of an element type.
    fn scalar(&mut self, value: i64, elem: ElemType) -> ValueId {
        let data = match elem {
            ElemType::I16 => TensorData::I16(vec![value as i16]),
            ElemType::I32 => TensorData::I32(vec![value as i32]),
            ElemType::I48 => TensorData::I48(vec![value]),
            _ => TensorData::I8(vec![value as i8]),
        };
        self.constant(Tensor::new([1], data))
    }

    /// The zero point of a value with these parameters.
    fn zero_point(&mut self, params: QuantParams) -> ValueId {
        self.scalar(params.zero_point, params.elem)
    }

    fn append(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        shape: &[usize],
        elem: ElemType,
    ) -> ValueId {
        let ty = Type::tensor(shape, elem);
        let op = self.module.append(self.block, op, operands, &[ty], self.loc.clone());
        self.module.result(op)
    }

    /// Shape of a value that was appended.
    fn new_shape(&self, value: ValueId) -> Vec<usize> {
        self.shape(value)
    }

    /// `saturate(apply_scale(input - input_zp) + output_zp)`, a scale for all or one a channel; of 15 bits
    /// for `i48`.
    fn rescale(
        &mut self,
        input: ValueId,
        input_zp: i64,
        scales: &[FixedScale],
        elem: ElemType,
        output_zp: i64,
    ) -> ValueId {
        let input_elem = self.module.tensor_ty(input).elem;
        if is_offset(input_elem, input_zp) {
            let centred = self.without_offset(input, input_zp);
            return self.rescale(centred, 0, scales, elem, output_zp);
        }
        if is_offset(elem, output_zp) {
            let wide = self.rescale(input, input_zp, scales, ElemType::I32, 0);
            return self.with_offset(wide, output_zp);
        }
        let scale32 = input_elem != ElemType::I48;
        let multipliers = scales.iter().map(|s| s.multiplier);
        let multipliers = match scale32 {
            true => TensorData::I32(multipliers.collect()),
            false => TensorData::I16(multipliers.map(|m| m as i16).collect()),
        };
        let shifts = scales.iter().map(|s| s.shift).collect();
        let operands = [
            input,
            self.constant(Tensor::new([scales.len()], multipliers)),
            self.constant(Tensor::i8([scales.len()], shifts)),
            self.scalar(input_zp, input_elem),
            self.scalar(output_zp, elem),
        ];
        let op = Rescale {
            scale32,
            rounding_mode: RoundingMode::SingleRound,
            per_channel: scales.len() > 1,
            input_unsigned: false,
            output_unsigned: false,
        };
        let shape = self.new_shape(input);
        self.append(op, &operands, &shape, elem)
    }

    /// Rescales an `i32` value to the given parameters.
    fn narrow(&mut self, wide: Wide, params: QuantParams) -> Result<Quantised, &'static str> {
        let scale = FixedScale::new(wide.scale / params.scale, wide.bound).ok_or(OUT_OF_RANGE)?;
        let value = self.rescale(wide.value, 0, &[scale], params.elem, params.zero_point);
        Ok(Quantised { value, params })
    }

    /// Rescales a value to `i32` with zero point 0 in units of `scale`.
    fn widen(&mut self, q: Quantised, scale: f64) -> Result<Wide, &'static str> {
        let factor = q.params.scale / scale;
        let fixed = FixedScale::new(factor, q.params.reach()).ok_or(OUT_OF_RANGE)?;
        let value = self.rescale(q.value, q.params.zero_point, &[fixed], ElemType::I32, 0);
        Ok(Wide { value, scale, bound: q.params.reach() * factor + 1.0 })
    }

    /// The integers of an operand: those computed, or those of a constant with a scale of its own.
    fn operand(&mut self, value: ValueId) -> Result<Quantised, &'static str> {
        if let Some(&q) = self.done.get(&value) {
            return Ok(q);
        }
        self.constant_in(value, ElemType::I8)
    }

    /// A constant with a scale of its own.
    fn constant_in(&mut self, value: ValueId, elem: ElemType) -> Result<Quantised, &'static str> {
        let given = QuantConstant::of(self.module, value).filter(|_| elem == ElemType::I8);
        if let Some((tensor, params)) = given.and_then(|q| q.operand()) {
            return Ok(Quantised { value: self.constant(tensor), params });
        }
        let tensor = self.plan.constant(value).ok_or(NOT_EXPECTED)?;
        let data: Vec<f32> = match tensor.as_f32() {
            Some(values) => values.to_vec(),
            None => tensor.data().to_ints().ok_or(NOT_EXPECTED)?.into_iter().map(|q| q as f32).collect(),
        };
        if !data.iter().all(|x| x.is_finite()) {
            return Err("an operand is infinite or not a number");
        }
        let low = data.iter().copied().fold(0.0, f32::min);
        let high = data.iter().copied().fold(0.0, f32::max);
        let range = Range { low, high };
        let params = match tensor.as_f32() {
            Some(_) => QuantParams::of_range_in(range, elem),
            None => {
                QuantParams::of_whole_numbers(range).ok_or("an operand holds whole numbers beyond 16 bits")?
            }
        };
        let value = self.constant(params.quantise_all(tensor.shape(), data.iter().map(|&x| f64::from(x))));
        Ok(Quantised { value, params })
    }

    /// The integers of both operands of an op; a constant is `i16` if anything about the op is.
    fn operands(
        &mut self,
        operands: &[ValueId],
        params: QuantParams,
    ) -> Result<[Quantised; 2], &'static str> {
        let is_wide = |q: &Quantised| q.params.elem == ElemType::I16;
        let any_wide = operands.iter().filter_map(|v| self.done.get(v)).any(is_wide);
        let elem = if any_wide { ElemType::I16 } else { params.elem };
        let mut get = |value: ValueId| match self.done.get(&value) {
            Some(&q) => Ok(q),
            None => self.constant_in(value, elem),
        };
        Ok([get(operands[0])?, get(operands[1])?])
    }

    /// A value as `i16`: exactly, the same steps, if it was `i8`.
    fn as_i16(&mut self, q: Quantised) -> Result<Quantised, &'static str> {
        if q.params.elem == ElemType::I16 {
            return Ok(q);
        }
        let params = QuantParams { scale: q.params.scale, zero_point: 0, elem: ElemType::I16 };
        self.rescaled(q, params)
    }

    /// A value with other parameters.
    fn rescaled(&mut self, q: Quantised, params: QuantParams) -> Result<Quantised, &'static str> {
        let factor = q.params.scale / params.scale;
        let scale = FixedScale::new(factor, q.params.reach()).ok_or(OUT_OF_RANGE)?;
        let value = self.rescale(q.value, q.params.zero_point, &[scale], params.elem, params.zero_point);
        Ok(Quantised { value, params })
    }

    /// The integers of an operand with the given parameters.
    fn operand_as(&mut self, value: ValueId, params: QuantParams) -> Result<ValueId, &'static str> {
        if let Some(tensor) = self.plan.constant(value) {
            let data: Vec<f64> = match tensor.as_f32() {
                Some(values) => values.iter().map(|&x| f64::from(x)).collect(),
                None => tensor.data().to_ints().ok_or(NOT_EXPECTED)?.into_iter().map(|q| q as f64).collect(),
            };
            return Ok(self.constant(params.quantise_all(tensor.shape(), data)));
        }
        let q = self.operand(value)?;
        if q.params == params {
            return Ok(q.value);
        }
        self.report.n_rescales += 1;
        Ok(self.rescaled(q, params)?.value)
    }

    fn constant_operand(&mut self, value: ValueId) -> Result<ValueId, &'static str> {
        let tensor = self.plan.constant(value).ok_or(NOT_EXPECTED)?;
        let end = self.module.block_ops(self.block).len();
        let elements = Elements { tensor };
        Ok(self.module.insert_const_at(self.block, end, elements, self.loc.clone()))
    }

    fn lower(&mut self, op: OpId) -> Lowered {
        let result = self.module.result(op);
        if let Some(lookup) = self.plan.lookups.get(&result) {
            return self.look_up(result, lookup);
        }
        if self.plan.inner.contains(&result) {
            return Ok(());
        }
        let operands = self.module.op(op).operands().to_vec();
        let kind = self.module.op(op).op.clone();
        let shape = self.shape(result);
        let quantised = match &kind {
            Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_) => {
                self.convolution(kind, &operands, &shape, result)?
            }
            Op::MatMul(_) => self.matmul(&operands, &shape, result)?,
            Op::Add(_) | Op::Sub(_) | Op::Maximum(_) | Op::Minimum(_) => {
                self.binary(kind, &operands, &shape, result)?
            }
            Op::Mul(_) => self.product(&operands, &shape, result)?,
            Op::Equal(_) | Op::Greater(_) | Op::GreaterEqual(_) => {
                self.comparison(&kind, &operands, &shape)?
            }
            Op::LogicalAnd(_) | Op::LogicalOr(_) | Op::LogicalXor(_) => {
                self.junction(&kind, &operands, &shape)?
            }
            Op::Select(_) => self.choice(&operands, &shape, result)?,
            Op::ReduceSum(_) => {
                let sum = self.sum(kind, &operands, &shape)?;
                if self.plan.wide.contains(&result) {
                    self.wide.insert(result, sum);
                    return Ok(());
                }
                let params = self.params(result)?;
                self.narrow(sum, params)?
            }
            Op::Concat(Concat { axis }) => {
                let params = self.params(result)?;
                let inputs: Vec<_> =
                    operands.iter().map(|&v| self.operand_as(v, params)).collect::<Result<_, _>>()?;
                let value = self.append(Concat { axis: *axis }, &inputs, &shape, params.elem);
                Quantised { value, params }
            }
            Op::Argmax(_) => {
                let input = self.operand(operands[0])?;
                let value = self.append(kind, &[input.value], &shape, ElemType::I32);
                self.plain.insert(result, value);
                return Ok(());
            }
            other if keeps_scale(other) => self.move_or_select(kind, &operands, &shape, result)?,
            _ => return Err("there is no integer form of it"),
        };
        self.done.insert(result, quantised);
        Ok(())
    }

    /// A function of one value: nothing, if the producer's saturation does it; a clamp; a table.
    fn look_up(&mut self, result: ValueId, lookup: &Lookup) -> Lowered {
        let base = self.operand(lookup.base)?;
        let params = self.params(result)?;
        let function = &lookup.function;
        let clamp = function.as_clamp();
        if function.n_channels > 1 && clamp.is_none() {
            let quantised = match function.as_two_slopes() {
                Some(slopes) => self.two_slopes(base, &slopes, params)?,
                None => self.gained(base, function, params)?,
            };
            self.done.insert(result, quantised);
            return Ok(());
        }
        let gain = function.as_gain().filter(|gain| base.params.scale * gain == params.scale);
        if gain.is_some() && base.params.zero_point == params.zero_point {
            self.done.insert(result, Quantised { value: base.value, params });
            return Ok(());
        }
        let is_wide = ElemType::I16 == base.params.elem || ElemType::I16 == params.elem;
        let value = match clamp {
            Some((low, high)) if base.params == params => self.clamp(base, low, high),
            Some((low, high)) if is_wide => {
                let base = self.rescaled(base, params)?;
                self.clamp(base, low, high)
            }
            _ if !is_wide && self.plan.rounded.contains(&result) => {
                self.report.n_tables += 1;
                self.table_of(base.value, |q| {
                    let y = function.at_single(base.params.dequantise(q.into()) as f32);
                    if y.is_nan() { params.zero_point as i8 } else { params.quantise_single(y) }
                })
            }
            Some((low, high)) => self.table(base, params, |x| x.max(low).min(high))?,
            None => self.table(base, params, |x| function.at(x, 0))?,
        };
        self.done.insert(result, Quantised { value, params });
        Ok(())
    }

    /// Clamps to real bounds; nothing if all integers lie within.
    fn clamp(&mut self, q: Quantised, low: f64, high: f64) -> ValueId {
        let (low, high) = (q.params.quantise(low), q.params.quantise(high));
        if (low, high) == q.params.limits() {
            return q.value;
        }
        let bound = |v| Attribute::Int(v, q.params.elem);
        let op = Clamp { min_val: bound(low), max_val: bound(high), nan_mode: NanMode::Propagate };
        let shape = self.new_shape(q.value);
        self.append(op, &[q.value], &shape, q.params.elem)
    }

    /// A function by looking it up: all 256 values of an `i8`; where either side is `i16`, 512 pieces of it.
    fn table(
        &mut self,
        input: Quantised,
        params: QuantParams,
        function: impl Fn(f64) -> f64,
    ) -> Result<ValueId, &'static str> {
        let shape = self.new_shape(input.value);
        self.report.n_tables += 1;
        if ElemType::I16 == input.params.elem || ElemType::I16 == params.elem {
            let input = if input.params.elem == ElemType::I16 { input } else { self.spread(input)? };
            let table = Table16::new(function, input.params, params);
            let scale = FixedScale::new(table.scale / params.scale, Table16::BOUND).ok_or(OUT_OF_RANGE)?;
            let entries = self.constant(Tensor::new([Table16::N], TensorData::I16(table.entries)));
            let value = self.append(Table {}, &[input.value, entries], &shape, ElemType::I32);
            return Ok(self.rescale(value, 0, &[scale], params.elem, params.zero_point));
        }
        // A pole of the function (1/x at 0) saturates towards the end it tends to; an undefined value is 0.
        Ok(self.table_of(input.value, |q| {
            let y = function(input.params.dequantise(q.into()));
            if y.is_nan() { params.zero_point as i8 } else { params.quantise(y) as i8 }
        }))
    }

    /// A function that is the same for all channels, times a factor a channel: a table of `i16`, and a
    /// rescale a channel.
    fn gained(
        &mut self,
        base: Quantised,
        function: &Function,
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let (function, gains) = function.as_gained().ok_or(NOT_EXPECTED)?;
        let base = if base.params.elem == ElemType::I16 { base } else { self.spread(base)? };
        let least = gains.iter().copied().fold(f64::INFINITY, f64::min);
        // No channel is cut that its factor brings into reach.
        let reach = QuantParams { scale: params.scale / least, ..params };
        let table = Table16::new(|x| function.at(x, 0), base.params, reach);
        let scales =
            gains.iter().map(|gain| FixedScale::new(table.scale * gain / params.scale, Table16::BOUND));
        let scales = scales.collect::<Option<Vec<_>>>().ok_or(OUT_OF_RANGE)?;
        let entries = self.constant(Tensor::new([Table16::N], TensorData::I16(table.entries)));
        let shape = self.new_shape(base.value);
        let value = self.append(Table {}, &[base.value, entries], &shape, ElemType::I32);
        self.report.n_tables += 1;
        let value = self.rescale(value, 0, &scales, params.elem, params.zero_point);
        Ok(Quantised { value, params })
    }

    /// Looks all 256 values of an `i8` up.
    fn table_of(&mut self, input: ValueId, entry: impl Fn(i8) -> i8) -> ValueId {
        let entries: Vec<i8> = (i8::MIN..=i8::MAX).map(entry).collect();
        let shape = self.new_shape(input);
        let table = self.constant(Tensor::i8([256], entries));
        self.append(Table {}, &[input, table], &shape, ElemType::I8)
    }

    /// An `i8` value as `i16` over all of its range, so that all pieces of a table serve it.
    fn spread(&mut self, q: Quantised) -> Result<Quantised, &'static str> {
        let (least, most) = q.params.limits();
        let end = |q: i64, params: QuantParams| params.dequantise(q) as f32;
        let range = Range { low: end(least, q.params), high: end(most, q.params) };
        self.rescaled(q, QuantParams::of_range_in(range, ElemType::I16))
    }

    /// Means of whole windows at a scale of their own, with one rounding: sums over columns and rows if the
    /// window is the image, else a depthwise convolution with weights of 1.
    fn average(
        &mut self,
        kernel: [i64; 2],
        stride: [i64; 2],
        input: Quantised,
        shape: &[usize],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let n = shape.last().copied().ok_or(NOT_EXPECTED)?;
        let taps = (kernel[0] * kernel[1]) as usize;
        let image = self.new_shape(input.value);
        let is_global = image.len() == 4 && image[1..3] == [kernel[0] as usize, kernel[1] as usize];
        let bound = input.params.reach() * taps as f64;
        if is_global && bound < 2_f64.powi(30) {
            let mut sum = self.widen(input, input.params.scale)?.value;
            for (axis, shape) in [(2, [image[0], image[1], 1, n]), (1, [image[0], 1, 1, n])] {
                sum = self.append(ReduceSum { axis }, &[sum], &shape, ElemType::I32);
            }
            let scale = input.params.scale / taps as f64;
            return self.narrow(Wide { value: sum, scale, bound }, params);
        }
        let acc_type = accumulator(input.params);
        let no_bias = TensorData::from_ints(acc_type, vec![0; n]).ok_or(NOT_EXPECTED)?;
        let weights = QuantWeights {
            weight: Tensor::i8([kernel[0] as usize, kernel[1] as usize, n, 1], vec![1; taps * n]),
            zero_point: 0,
            bias: Tensor::new([n], no_bias),
            scales: vec![1.0 / taps as f64; n],
            bounds: vec![input.params.reach() * taps as f64; n],
        };
        let local_bound = false;
        let op = DepthwiseConv2d { pad: [0; 4], stride, dilation: [1, 1], acc_type, local_bound };
        self.accumulate(op.into(), input, weights, shape, params)
    }

    /// Means of windows that reach into padding, which count what is inside, at a scale of their own: in
    /// `i16` with steps so fine that rounding them counts for nothing, and then rescaled.
    fn padded_average(
        &mut self,
        mut pool: AvgPool2d,
        input: Quantised,
        shape: &[usize],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let fine = if input.params.elem == ElemType::I16 { input } else { self.finest_i16(input)? };
        pool.acc_type = ElemType::I32;
        let zero_points = [self.zero_point(fine.params), self.zero_point(fine.params)];
        let operands = [fine.value, zero_points[0], zero_points[1]];
        let value = self.append(pool, &operands, shape, ElemType::I16);
        self.rescaled(Quantised { value, params: fine.params }, params)
    }

    /// An `i8` value as `i16`, exactly: its step is a power of two of the new ones.
    fn finest_i16(&mut self, q: Quantised) -> Result<Quantised, &'static str> {
        let scale = q.params.scale / 128.0;
        self.rescaled(q, QuantParams { scale, zero_point: 0, elem: ElemType::I16 })
    }

    fn reshape(&mut self, input: ValueId, shape: &[usize]) -> ValueId {
        let extents = shape.iter().map(|&extent| extent as i64).collect();
        let extents = self.constant(Tensor::new([shape.len()], TensorData::Index(extents)));
        let elem = self.module.tensor_ty(input).elem;
        self.append(Reshape {}, &[input, extents], shape, elem)
    }

    fn convolution(
        &mut self,
        mut op: Op,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let mut input = self.operand(operands[0])?;
        if matches!(op, Op::TransposeConv2d(_)) {
            // How many taps meet an output differs from place to place, so no bias makes up for a zero point.
            input = self.without_zero_point(input)?;
        }
        let weight = self.plan.constant(operands[1]).ok_or(NOT_EXPECTED)?;
        let bias = self.plan.constant(operands[2]).ok_or(NOT_EXPECTED)?;
        let axis = match &mut op {
            Op::Conv2d(op) => {
                op.acc_type = accumulator(input.params);
                ChannelAxis::First
            }
            Op::TransposeConv2d(op) => {
                op.acc_type = accumulator(input.params);
                ChannelAxis::First
            }
            Op::DepthwiseConv2d(op) => {
                op.acc_type = accumulator(input.params);
                ChannelAxis::Last
            }
            _ => return Err(NOT_EXPECTED),
        };
        let n_channels = shape.last().copied().ok_or(NOT_EXPECTED)?;
        let bias = match self.corrections.get(&result) {
            Some(correction) => Arc::new(corrected(&bias, correction).ok_or(NOT_EXPECTED)?),
            None => bias,
        };
        let given = QuantConstant::of(self.module, operands[1]);
        let exact = given.as_ref().and_then(|q| q.weights(&bias, axis, n_channels, input.params));
        if given.is_some() && exact.is_none() {
            self.report.n_requantised += 1;
        }
        let weights = exact.or_else(|| quantise_weights(&weight, &bias, axis, n_channels, input.params));
        let params = self.params(result)?;
        self.accumulate(op, input, weights.ok_or(NOT_EXPECTED)?, shape, params)
    }

    /// A convolution and the rescale of its accumulators.
    fn accumulate(
        &mut self,
        mut op: Op,
        input: Quantised,
        mut weights: QuantWeights,
        shape: &[usize],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let input = if is_offset(input.params.elem, input.params.zero_point) {
            self.convolve_without_offset(&mut op, input, &mut weights)?
        } else {
            input
        };
        let factors: Vec<f64> =
            weights.scales.iter().map(|scale| input.params.scale * scale / params.scale).collect();
        let bounds = std::mem::take(&mut weights.bounds);
        let operands = [
            input.value,
            self.constant(weights.weight),
            self.constant(weights.bias),
            self.zero_point(input.params),
            self.scalar(weights.zero_point, ElemType::I8),
        ];
        self.report.n_convolutions += 1;
        let sums = self.append(op, &operands, shape, accumulator(input.params));
        let value = if accumulator(input.params) == ElemType::I48 && !self.plan.rounded.is_empty() {
            self.rescale_finely(sums, &factors, &bounds, params)?
        } else {
            let scales: Option<Vec<_>> = (factors.iter().zip(&bounds))
                .map(|(&factor, &bound)| sum_scale(input.params, factor, bound))
                .collect();
            self.rescale(sums, 0, &scales.ok_or(OUT_OF_RANGE)?, params.elem, params.zero_point)
        };
        Ok(Quantised { value, params })
    }

    /// Rescales sums of 48 bits where a model gives scales of 16 bits: factors of 15 bits, as TOSA has them
    /// for such sums, could be a step off, so a power of two brings the sums to 32 bits first.
    fn rescale_finely(
        &mut self,
        sums: ValueId,
        factors: &[f64],
        bounds: &[f64],
        params: QuantParams,
    ) -> Result<ValueId, &'static str> {
        let greatest = bounds.iter().copied().fold(1.0, f64::max);
        let excess = (greatest.log2().ceil() as i32 - 29).max(0);
        let first = FixedScale { multiplier: 1 << 14, shift: (14 + excess) as i8 };
        let wide = self.rescale(sums, 0, &[first], ElemType::I32, 0);
        let unit = 2_f64.powi(excess);
        let scales: Option<Vec<_>> = (factors.iter().zip(bounds))
            .map(|(factor, bound)| FixedScale::new(factor * unit, bound / unit + 1.0))
            .collect();
        Ok(self.rescale(wide, 0, &scales.ok_or(OUT_OF_RANGE)?, params.elem, params.zero_point))
    }

    fn matmul(
        &mut self,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let params = self.params(result)?;
        let &[batch, rows, columns] = shape else { return Err(NOT_EXPECTED) };
        if let (Some(b), 1) = (self.plan.constant(operands[1]), batch) {
            return self.fully_connected(operands[0], &b, rows, columns, params);
        }
        let [mut a, mut b] = self.operands(operands, QuantParams::i8(1.0, 0))?;
        if ElemType::I16 == a.params.elem || ElemType::I16 == b.params.elem {
            (a, b) = (self.as_i16(a)?, self.as_i16(b)?);
            (a, b) = (self.without_zero_point(a)?, self.without_zero_point(b)?);
        }
        let depth = self.new_shape(a.value).last().copied().unwrap_or(1);
        let zero_points = [self.zero_point(a.params), self.zero_point(b.params)];
        let inputs = [a.value, b.value, zero_points[0], zero_points[1]];
        let sums = self.append(MatMul {}, &inputs, shape, accumulator(a.params));
        let bound = depth as f64 * a.params.reach() * b.params.reach();
        let most = if a.params.elem == ElemType::I16 { 47 } else { 31 };
        if bound >= 2_f64.powi(most) {
            return Err("its sums could overflow the accumulator");
        }
        let factor = a.params.scale * b.params.scale / params.scale;
        let value = if accumulator(a.params) == ElemType::I48 && !self.plan.rounded.is_empty() {
            self.rescale_finely(sums, &[factor], &[bound], params)?
        } else {
            let scale = sum_scale(a.params, factor, bound).ok_or(OUT_OF_RANGE)?;
            self.rescale(sums, 0, &[scale], params.elem, params.zero_point)
        };
        Ok(Quantised { value, params })
    }

    /// A product with a constant matrix: a pointwise convolution, so that weights have a scale for each
    /// column.
    fn fully_connected(
        &mut self,
        a: ValueId,
        b: &Tensor,
        rows: usize,
        columns: usize,
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let input = self.operand(a)?;
        let data = b.as_f32().ok_or(NOT_EXPECTED)?;
        let depth = data.len() / columns.max(1);
        let mut transposed = vec![0.0; data.len()];
        for (k, row) in data.chunks(columns.max(1)).enumerate() {
            for (column, &w) in row.iter().enumerate() {
                transposed[column * depth + k] = w;
            }
        }
        let weight = Tensor::f32([columns, 1, 1, depth], transposed);
        let bias = Tensor::f32([1], vec![0.0]);
        let weights = quantise_weights(&weight, &bias, ChannelAxis::First, columns, input.params);
        let image = self.reshape(input.value, &[1, rows, 1, depth]);
        let op = Conv2d {
            pad: [0; 4],
            stride: [1, 1],
            dilation: [1, 1],
            acc_type: accumulator(input.params),
            local_bound: false,
        };
        let image = Quantised { value: image, params: input.params };
        let shape = [1, rows, 1, columns];
        let out = self.accumulate(op.into(), image, weights.ok_or(NOT_EXPECTED)?, &shape, params)?;
        Ok(Quantised { value: self.reshape(out.value, &[1, rows, columns]), params })
    }

    fn binary(
        &mut self,
        op: Op,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let params = self.params(result)?;
        let [a, b] = self.operands(operands, params)?;
        self.combine(op, a, b, shape, params)
    }

    /// The scale at which two values are compared or added.
    fn common_scale(&self, a: Quantised, b: Quantised) -> f64 {
        match (a.params.elem, b.params.elem) {
            (ElemType::I8, ElemType::I8) => 2.0 * a.params.scale.max(b.params.scale) / f64::from(1 << 20),
            _ => {
                (a.params.scale * a.params.reach()).max(b.params.scale * b.params.reach())
                    / f64::from(1 << 27)
            }
        }
    }

    /// A sum, difference or extreme: both sides are brought to a common scale, of `i8` with 20 bits below the
    /// greater step, and where there are more bits, with what leaves room for the sum.
    fn combine(
        &mut self,
        op: Op,
        a: Quantised,
        b: Quantised,
        shape: &[usize],
        params: QuantParams,
    ) -> Result<Quantised, &'static str> {
        let common = self.common_scale(a, b);
        let (a, b) = (self.widen(a, common)?, self.widen(b, common)?);
        let value = self.append(op, &[a.value, b.value], shape, ElemType::I32);
        self.narrow(Wide { value, scale: common, bound: a.bound + b.bound }, params)
    }

    fn product(
        &mut self,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let params = self.params(result)?;
        let [a, b] = self.operands(operands, params)?;
        // Without a zero point the product fits 32 bits.
        let (a, b) = (self.without_zero_point(a)?, self.without_zero_point(b)?);
        let (wide_a, wide_b) = (self.widen(a, a.params.scale)?, self.widen(b, b.params.scale)?);
        let shift = self.scalar(0, ElemType::I8);
        let value = self.append(Mul {}, &[wide_a.value, wide_b.value, shift], shape, ElemType::I32);
        let bound = a.params.reach() * b.params.reach();
        self.narrow(Wide { value, scale: a.params.scale * b.params.scale, bound }, params)
    }

    /// A sum in `i32`. One so long that it could overflow is of coarser summands.
    fn sum(&mut self, op: Op, operands: &[ValueId], shape: &[usize]) -> Result<Wide, &'static str> {
        let narrow = self.wide.get(&operands[0]).copied();
        let (from, bound) = match narrow {
            Some(wide) => (wide.value, wide.bound),
            None => {
                let q = self.operand(operands[0])?;
                (q.value, q.params.reach())
            }
        };
        let n_summands: usize =
            self.new_shape(from).iter().product::<usize>() / shape.iter().product::<usize>().max(1);
        let coarser = (bound * n_summands as f64 / 2_f64.powi(30)).max(1.0);
        let input = match narrow {
            Some(wide) if coarser == 1.0 => wide,
            Some(Wide { value, scale, bound }) => {
                let fixed = FixedScale::new(1.0 / coarser, bound).ok_or(OUT_OF_RANGE)?;
                let value = self.rescale(value, 0, &[fixed], ElemType::I32, 0);
                Wide { value, scale: scale * coarser, bound: bound / coarser + 1.0 }
            }
            None => {
                let q = self.operand(operands[0])?;
                self.widen(q, q.params.scale * coarser)?
            }
        };
        let value = self.append(op, &[input.value], shape, ElemType::I32);
        Ok(Wide { value, scale: input.scale, bound: input.bound * n_summands as f64 })
    }

    /// Ops whose result has the scale of their input.
    fn move_or_select(
        &mut self,
        mut op: Op,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let params = self.params(result)?;
        if let Op::AvgPool2d(pool) = &op {
            let input = self.operand(operands[0])?;
            if input.params != params && pool.pad == [0; 4] {
                return self.average(pool.kernel, pool.stride, input, shape, params);
            }
            if input.params != params {
                return self.padded_average(pool.clone(), input, shape, params);
            }
        }
        let input = self.operand_as(operands[0], params)?;
        if let Some((axis, indices)) = self.picks(&op, operands) {
            return self.picked(Quantised { value: input, params }, axis, &indices);
        }
        let mut inputs = vec![input];
        match &mut op {
            Op::AvgPool2d(pool) => {
                pool.acc_type = ElemType::I32;
                // A mean of 16 bits is as far from any zero point as its elements are on average.
                let zero_point = if params.elem == ElemType::I16 { 0 } else { params.zero_point };
                inputs.extend([0; 2].map(|_| self.scalar(zero_point, params.elem)));
            }
            Op::Pad(Pad {}) => {
                inputs.push(self.constant_operand(operands[1])?);
                let value = self.plan.constant(operands[2]).ok_or(NOT_EXPECTED)?;
                let value = value.as_f32().and_then(|v| v.first().copied()).ok_or(NOT_EXPECTED)?;
                inputs.push(self.scalar(params.quantise(f64::from(value)), params.elem));
            }
            Op::Resize(resize) => {
                for &operand in &operands[1..] {
                    inputs.push(self.constant_operand(operand)?);
                }
                if resize.mode == ResizeMode::Bilinear {
                    let scale = self.plan.constant(operands[1]).and_then(|t| t.data().to_ints());
                    let &[y_n, _, x_n, _] = scale.as_deref().ok_or(NOT_EXPECTED)? else {
                        return Err(NOT_EXPECTED);
                    };
                    let unit = (y_n * x_n) as f64;
                    let value = self.append(op, &inputs, shape, accumulator(params));
                    // Weights add up to `unit`, so the zero point is scaled with the data and comes out
                    // again.
                    let bound = (params.limits().0.abs() as f64) * unit;
                    let scale = sum_scale(params, 1.0 / unit, bound).ok_or(OUT_OF_RANGE)?;
                    let value = self.rescale(value, 0, &[scale], params.elem, 0);
                    return Ok(Quantised { value, params });
                }
            }
            _ => {
                for &operand in &operands[1..] {
                    inputs.push(self.constant_operand(operand)?);
                }
            }
        }
        let value = self.append(op, &inputs, shape, params.elem);
        Ok(Quantised { value, params })
    }
}

/// What TOSA sums products, or weighted means, of such activations in.
fn accumulator(input: QuantParams) -> ElemType {
    if input.elem == ElemType::I16 { ElemType::I48 } else { ElemType::I32 }
}

/// The scale of such sums of magnitude up to `bound`.
fn sum_scale(input: QuantParams, factor: f64, bound: f64) -> Option<FixedScale> {
    if input.elem == ElemType::I16 {
        FixedScale::of_15_bits(factor, bound)
    } else {
        FixedScale::new(factor, bound)
    }
}

/// Takes ops out of a block and gives up the data of the constants among them, which the arena would else
/// keep.
pub(super) fn remove(module: &mut Module, block: BlockId, ops: &BTreeSet<OpId>) {
    module.erase_where(block, |op| ops.contains(&op));
    for &op in ops {
        if let Op::Const(constant) = &mut module.op_mut(op).op {
            constant.values.tensor = Arc::new(Tensor::f32([0], Vec::new()));
        }
    }
}
