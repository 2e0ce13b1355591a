//! Models that come quantised: turns the integers of the import level back into reals that have their scale
//! and zero point fixed.
//!
//! The importer writes quantising and dequantising as arithmetic on `i32`. [`collapse`] rewrites the body of
//! `@main` so that it is f32 throughout again, as if the model had never been quantised, but for a
//! `tosa.identity` where a value was rounded; [`Fixed`] says which integers the identity's result has. From
//! there on a quantised model is lowered like any other: an identity that follows a convolution is that
//! convolution's rescale, one between two scales a table.
//!
//! While rewriting, each integer value of the old body is a [`Raw`]: an affine function of a real value of
//! the new one. A `cast`, a sum with a constant and a product with a constant only change that function, so
//! the usual chain of dequantising comes out as the real itself; ops that move or select elements are applied
//! to it. An integer that is used in any other way is computed from the real, and the quantiser says what it
//! thinks of the result.
//!
//! A body without integers is left as it is.

mod dynamic;

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::attr::{FunctionType, NanMode, ResizeMode};
use strata_ir::dialect::{Add, Cast, Clamp, FuncReturn, Identity, Mul, Sub};
use strata_ir::pass::UnsupportedOp;
use strata_ir::{Attribute, BlockId, ElemType, Elements, Location, Module, Op, OpId, Tensor, Type, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::fixed::dynamic::{Product, Scaled};
use crate::quantise::histogram::Ranges;
use crate::quantise::params::Range;

/// What the model says about integers.
#[derive(Clone, Debug, Default)]
pub(super) struct Fixed {
    /// Whether the body held integers, so that its values are others now.
    pub is_rewritten: bool,
    /// The values of the old body that values of the new one are.
    pub origins: BTreeMap<ValueId, ValueId>,
    /// The integers of values that the model quantises.
    pub params: BTreeMap<ValueId, QuantParams>,
    /// Activations whose scale the model computes from the data.
    pub n_dynamic: usize,
    /// Products of integers that are needed as they are, which 16 bits do not hold.
    pub unscaled: Vec<UnsupportedOp>,
    /// How arguments and results that are integers for the user stand for what he sees.
    pub ports: BTreeMap<ValueId, QuantParams>,
}

/// The step of an integer's real.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// A number.
    Known(f64),
    /// Computed from the data: a value of the old body.
    Dynamic(ValueId),
}

/// The integer that stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Zero {
    /// A number.
    Known(i64),
    /// Computed from the data: a value of the old body, and what was added.
    Dynamic(ValueId, i64),
}

/// An integer value (or the same as a float): `real / step + zero`.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub real: Real,
    pub step: Step,
    pub zero: Zero,
}

/// Where the real of a [`Raw`] comes from.
#[derive(Clone, Debug)]
pub(super) enum Real {
    /// It is a value of the new body.
    Value(ValueId),
    /// An integer product that is not emitted yet: what it is multiplied with becomes its weights' scale.
    Product(Box<Product>),
}

/// The reals that a model rounds to: all steps from the least to the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    step: f64,
    least: i64,
    greatest: i64,
}

/// A grid as a key: the bits of its step, and its ends.
type GridKey = (u64, i64, i64);

impl Grid {
    /// A grid of up to 16 bits that has 0.
    fn new(step: f64, least: f64, greatest: f64) -> Option<Self> {
        let is_whole = least.fract() == 0.0 && greatest.fract() == 0.0;
        let fits = is_whole && least <= 0.0 && greatest >= 0.0 && greatest - least <= 65535.0;
        fits.then_some(Self { step, least: least as i64, greatest: greatest as i64 })
    }

    fn key(self) -> GridKey {
        (self.step.to_bits(), self.least, self.greatest)
    }

    /// The machine's integers for it: from the least of their type on.
    fn params(self) -> QuantParams {
        let elem = if self.greatest - self.least <= 255 { ElemType::I8 } else { ElemType::I16 };
        let (least, _) = QuantParams { scale: 1.0, zero_point: 0, elem }.limits();
        QuantParams { scale: self.step, zero_point: least - self.least, elem }
    }
}

/// The body under rewriting.
pub(super) struct Rewriting<'a, 'r> {
    pub module: &'a mut Module,
    block: BlockId,
    /// Values of the old body in the new one.
    pub reals: BTreeMap<ValueId, ValueId>,
    pub raws: BTreeMap<ValueId, Raw>,
    /// How often a value of the old body is used.
    pub n_uses: BTreeMap<ValueId, usize>,
    /// Products as emitted.
    pub scaled_products: BTreeMap<ValueId, Scaled>,
    /// Identities by what they round and how.
    rounded: BTreeMap<(ValueId, GridKey), ValueId>,
    /// Values of the old body that are computed as they were.
    recomputed: BTreeMap<ValueId, ValueId>,
    pub loc: Location,
    pub ranges: &'a mut Ranges<'r>,
    fixed: Fixed,
}

/// Rewrites the body of `func` without integers. The ranges of old values are carried over to the new.
pub(super) fn collapse(module: &mut Module, func: OpId, ranges: &mut Ranges<'_>) -> Fixed {
    let block = module.entry_block(func);
    if !holds_integers(module, block) && !takes_narrow_integers(module, func) {
        return Fixed::default();
    }
    let old: std::collections::BTreeSet<OpId> = module.block_ops(block).iter().copied().collect();
    let mut n_uses = BTreeMap::new();
    for &op in &old {
        for &operand in module.op(op).operands() {
            *n_uses.entry(operand).or_insert(0) += 1;
        }
    }
    let mut rewriting = Rewriting {
        module,
        block,
        reals: BTreeMap::new(),
        raws: BTreeMap::new(),
        n_uses,
        scaled_products: BTreeMap::new(),
        rounded: BTreeMap::new(),
        recomputed: BTreeMap::new(),
        loc: Location::unknown(),
        ranges,
        fixed: Fixed { is_rewritten: true, ..Fixed::default() },
    };
    rewriting.arguments(func);
    for &op in &rewriting.module.block_ops(block).to_vec() {
        rewriting.loc = rewriting.module.op(op).loc.clone();
        rewriting.rewrite(op);
    }
    let mut fixed = rewriting.fixed;
    fixed.origins = rewriting.reals.into_iter().map(|(old, new)| (new, old)).collect();
    module.erase_where(block, |op| old.contains(&op));
    let results = module.terminator(block).map(|op| module.op(op).operands().to_vec()).unwrap_or_default();
    let types = |module: &Module, values: &[ValueId]| -> Vec<Type> {
        values.iter().map(|&value| module.ty(value).clone()).collect()
    };
    let inputs = types(module, module.args(block));
    let results = types(module, &results);
    if let Op::Func(func) = &mut module.op_mut(func).op {
        func.function_type = FunctionType { inputs, results };
    }
    fixed
}

/// The least integer and the machine's type for an argument of 8 or 16 bits.
fn narrow_integers(arg_attrs: Option<&Attribute>, index: usize) -> Option<(i64, ElemType)> {
    match crate::quantise::dictionary(arg_attrs, index).get("strata.dtype")? {
        Attribute::Str(dtype) => match dtype.as_str() {
            "u8" => Some((0, ElemType::I8)),
            "i8" => Some((i64::from(i8::MIN), ElemType::I8)),
            "u16" => Some((0, ElemType::I16)),
            "i16" => Some((i64::from(i16::MIN), ElemType::I16)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether an argument is of 8 or 16 bits.
fn takes_narrow_integers(module: &Module, func: OpId) -> bool {
    let Op::Func(row) = &module.op(func).op else { return false };
    let n_args = module.args(module.entry_block(func)).len();
    (0..n_args).any(|index| narrow_integers(row.arg_attrs.as_ref(), index).is_some())
}

/// Whether a body casts to integers or from an argument of 8 bits.
fn holds_integers(module: &Module, block: BlockId) -> bool {
    module.block_ops(block).iter().any(|&op| {
        let data = module.op(op);
        let is_i32 = |value: ValueId| elem(module, value) == Some(ElemType::I32);
        match &data.op {
            Op::Cast(_) => {
                let constant = module.constant(data.operands()[0]).is_some();
                !constant && (is_i32(data.operands()[0]) || is_i32(module.result(op)))
            }
            _ => false,
        }
    })
}

fn elem(module: &Module, value: ValueId) -> Option<ElemType> {
    module.ty(value).as_tensor().map(|ty| ty.elem)
}

/// The only element of a constant, or of one computed from a constant by `reciprocal`, in which case the
/// constant's.
fn divisor(module: &Module, value: ValueId) -> Option<f64> {
    if let Some(factor) = scalar(module, value) {
        return Some(f64::from((1.0 / factor) as f32));
    }
    let data = module.op(module.defining_op(value)?);
    matches!(data.op, Op::Reciprocal(_)).then(|| scalar(module, data.operands()[0]))?
}

/// The only element of a constant.
pub(super) fn scalar(module: &Module, value: ValueId) -> Option<f64> {
    let tensor = &module.constant(value)?.tensor;
    match (tensor.n_elements(), tensor.as_f32()) {
        (1, Some(values)) => Some(f64::from(values[0])),
        (1, None) => tensor.data().int_at(0).map(|q| q as f64),
        _ => None,
    }
}

/// The only element of a constant, if it is a whole number.
fn whole(module: &Module, value: ValueId) -> Option<i64> {
    scalar(module, value).filter(|v| v.fract() == 0.0).map(|v| v as i64)
}

/// Whether an op only moves or selects elements of its first operand, so that it does the same to integers
/// and reals.
fn moves(op: &Op) -> bool {
    if let Op::Resize(resize) = op {
        return resize.mode == ResizeMode::NearestNeighbor;
    }
    matches!(
        op,
        Op::MaxPool2d(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Tile(_)
            | Op::Reverse(_)
            | Op::ReduceMax(_)
            | Op::ReduceMin(_)
            | Op::Gather(_)
            | Op::Identity(_)
    )
}

impl Rewriting<'_, '_> {
    /// The definition of an old value.
    pub(super) fn def(&self, value: ValueId) -> Option<(&Op, &[ValueId])> {
        let data = self.module.op(self.module.defining_op(value)?);
        Some((&data.op, data.operands()))
    }

    pub(super) fn append(
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

    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.module.append_const(self.block, tensor, self.loc.clone())
    }

    pub(super) fn shape(&self, value: ValueId) -> Vec<usize> {
        self.module.tensor_ty(value).shape.clone()
    }

    fn scalar_for(&mut self, value: ValueId, number: f64) -> ValueId {
        let shape = vec![1; self.shape(value).len()];
        self.constant(Tensor::f32(shape, vec![number as f32]))
    }

    /// `x * factor`.
    fn scaled(&mut self, x: ValueId, factor: f64) -> ValueId {
        let factor = self.scalar_for(x, factor);
        let shift = self.constant(Tensor::i8([1], vec![0]));
        let shape = self.shape(x);
        self.append(Mul {}, &[x, factor, shift], &shape, ElemType::F32)
    }

    /// A value rounded to a grid: bounded first where the machine's integers go beyond the model's.
    fn round(&mut self, x: ValueId, grid: Grid) -> ValueId {
        if let Some(&value) = self.rounded.get(&(x, grid.key())) {
            return value;
        }
        let shape = self.shape(x);
        let params = grid.params();
        let mut bounded = x;
        if params.limits().1 != grid.greatest + params.zero_point {
            let bound = |steps: i64| Attribute::Float(steps as f64 * grid.step, Some(ElemType::F32));
            let (min_val, max_val) = (bound(grid.least), bound(grid.greatest));
            let clamp = Clamp { min_val, max_val, nan_mode: NanMode::Propagate };
            bounded = self.append(clamp, &[x], &shape, ElemType::F32);
        }
        let value = self.append(Identity {}, &[bounded], &shape, ElemType::F32);
        self.rounded.insert((x, grid.key()), value);
        self.fixed.params.insert(value, params);
        value
    }

    /// Arguments of 8 and 16 bits become reals: with the scale that their dequantisation gives them, else 1.
    fn arguments(&mut self, func: OpId) {
        let attrs = match &self.module.op(func).op {
            Op::Func(func) => func.arg_attrs.clone(),
            _ => None,
        };
        for (index, arg) in self.module.args(self.block).to_vec().into_iter().enumerate() {
            self.reals.insert(arg, arg);
            let Some((least, elem)) = narrow_integers(attrs.as_ref(), index) else { continue };
            // The user's integer for the machine's 0.
            let centre = least + if elem == ElemType::I8 { 128 } else { 1 << 15 };
            let (scale, zero) = self.dequantisation(arg).unwrap_or((1.0, 0));
            let params = QuantParams { scale, zero_point: zero - centre, elem };
            let (low, high) = params.limits();
            if !(low..=high).contains(&params.zero_point) {
                continue;
            }
            let ty = self.module.tensor_ty(arg).with_elem(ElemType::F32);
            self.module.set_ty(arg, ty);
            self.fixed.params.insert(arg, params);
            self.fixed.ports.insert(arg, QuantParams { scale: 1.0, zero_point: -centre, elem });
            let raw = Raw { real: Real::Value(arg), step: Step::Known(scale), zero: Zero::Known(zero) };
            self.raws.insert(arg, raw);
        }
    }

    /// Scale and zero point with which an integer value is dequantised, by the first op that does.
    fn dequantisation(&self, value: ValueId) -> Option<(f64, i64)> {
        let users = |value: ValueId| {
            let ops = self.module.block_ops(self.block).iter().map(|&op| self.module.op(op));
            ops.filter(move |data| data.operands().contains(&value))
        };
        users(value).find_map(|data| {
            let result = *data.results().first()?;
            match &data.op {
                Op::Sub(_) => {
                    let (scale, zero) = self.dequantisation(result)?;
                    Some((scale, zero + whole(self.module, data.operands()[1])?))
                }
                Op::Add(_) => {
                    let (scale, zero) = self.dequantisation(result)?;
                    Some((scale, zero - whole(self.module, data.operands()[1])?))
                }
                Op::Cast(_) => self.scaling(result).map(|scale| (scale, 0)),
                op if moves(op) => self.dequantisation(result),
                _ => None,
            }
        })
    }

    /// The positive number that a float is multiplied with, by the first op that does, perhaps once it was
    /// moved.
    fn scaling(&self, value: ValueId) -> Option<f64> {
        let ops = self.module.block_ops(self.block).iter().map(|&op| self.module.op(op));
        ops.filter(|data| data.operands().first() == Some(&value)).find_map(|data| match &data.op {
            Op::Mul(_) => scalar(self.module, data.operands()[1]).filter(|&scale| scale > 0.0),
            op if moves(op) => self.scaling(*data.results().first()?),
            _ => None,
        })
    }

    /// Emits what an op of the old body is in the new one.
    fn rewrite(&mut self, op: OpId) {
        let data = self.module.op(op);
        let (kind, operands, results) = (data.op.clone(), data.operands().to_vec(), data.results().to_vec());
        if kind.is_terminator() {
            let results: Vec<_> = operands.iter().map(|&value| self.result(value)).collect();
            self.module.append(self.block, FuncReturn {}, &results, &[], Location::unknown());
            return;
        }
        let [result] = results[..] else {
            return self.copy(&kind, &operands, &results);
        };
        if let Some(raw) = self.raw(&kind, &operands, result) {
            self.raws.insert(result, raw);
        } else if let Some(real) = self.real_result(&kind, &operands, result) {
            self.take_range(result, real);
            self.reals.insert(result, real);
        } else {
            self.copy(&kind, &operands, &results);
        }
    }

    /// Gives a new value, and what it is a reshape of, the range of an old one, unless they have one.
    fn take_range(&mut self, old: ValueId, new: ValueId) {
        let mut next = Some(new);
        while let Some(value) = next {
            self.ranges.copy(old, value);
            next = match self.def(value) {
                Some((Op::Reshape(_), operands)) => Some(operands[0]),
                _ => None,
            };
        }
    }

    fn copy(&mut self, kind: &Op, operands: &[ValueId], results: &[ValueId]) {
        if let Some(Elements { tensor }) = kind.constant() {
            let elements = Elements { tensor: Arc::clone(tensor) };
            let end = self.module.block_ops(self.block).len();
            let value = self.module.insert_const_at(self.block, end, elements, self.loc.clone());
            self.reals.insert(results[0], value);
            return;
        }
        let operands: Vec<_> = operands.iter().map(|&value| self.value(value)).collect();
        let types: Vec<_> = results.iter().map(|&value| self.module.ty(value).clone()).collect();
        let op = self.module.append(self.block, kind.clone(), &operands, &types, self.loc.clone());
        let copies = self.module.op(op).results().to_vec();
        for (&old, new) in results.iter().zip(copies) {
            self.ranges.copy(old, new);
            self.reals.insert(old, new);
        }
    }

    /// An old value in the new body, of its own type.
    fn value(&mut self, old: ValueId) -> ValueId {
        let Some(raw) = self.raws.get(&old).cloned() else {
            return self.reals.get(&old).copied().unwrap_or(old);
        };
        let (Step::Known(step), Zero::Known(zero)) = (raw.step, raw.zero) else {
            return self.computed(old);
        };
        if let (Real::Product(_), Some(op)) = (&raw.real, self.module.defining_op(old)) {
            let why = "sums of integer products are quantised by what scales them; nothing does";
            self.fixed.unscaled.push(UnsupportedOp::new(self.module, op, why));
        }
        let float = self.number(&raw, step, zero);
        self.ranges.copy(old, float);
        if elem(self.module, old) != Some(ElemType::F32) || self.module.args(self.block).contains(&old) {
            let shape = self.shape(float);
            let whole = self.append(Cast {}, &[float], &shape, ElemType::I32);
            self.ranges.copy(float, whole);
            return whole;
        }
        float
    }

    /// An old value whose scale depends on the data, computed as the model does.
    fn computed(&mut self, old: ValueId) -> ValueId {
        if let Some(&value) = self.recomputed.get(&old) {
            return value;
        }
        let Some((kind, operands)) = self.def(old).map(|(kind, operands)| (kind.clone(), operands.to_vec()))
        else {
            return old;
        };
        let operands: Vec<_> = operands.into_iter().map(|operand| self.value(operand)).collect();
        let ty = self.module.ty(old).clone();
        let op = self.module.append(self.block, kind, &operands, &[ty], self.loc.clone());
        let value = self.module.result(op);
        self.ranges.copy(old, value);
        self.recomputed.insert(old, value);
        value
    }

    /// The integers of a raw value as floats, computed from its real.
    fn number(&mut self, raw: &Raw, step: f64, zero: i64) -> ValueId {
        let real = self.real(raw);
        let steps = if step == 1.0 { real } else { self.scaled(real, 1.0 / step) };
        let bounds = self.ends(real).map(|[low, high]| Range {
            low: (f64::from(low) / step) as f32,
            high: (f64::from(high) / step) as f32,
        });
        if let Some(range) = bounds {
            self.ranges.derive(steps, range);
        }
        if zero == 0 {
            return steps;
        }
        let term = self.scalar_for(steps, zero as f64);
        let shape = self.shape(steps);
        let sum = self.append(Add {}, &[steps, term], &shape, ElemType::F32);
        let bounds = bounds.map(|r| Range { low: r.low + zero as f32, high: r.high + zero as f32 });
        if let Some(range) = bounds {
            self.ranges.derive(sum, range);
        }
        sum
    }

    /// The least and the greatest real of a value that is rounded.
    fn ends(&self, value: ValueId) -> Option<[f32; 2]> {
        let params = self.fixed.params.get(&value)?;
        let (least, greatest) = params.limits();
        Some([params.dequantise(least) as f32, params.dequantise(greatest) as f32])
    }

    /// The real of a raw value as a value of the new body.
    pub(super) fn real(&mut self, raw: &Raw) -> ValueId {
        match &raw.real {
            Real::Value(value) => *value,
            Real::Product(product) => self.product(product),
        }
    }

    /// What the function returns for an old value.
    fn result(&mut self, old: ValueId) -> ValueId {
        let Some(raw) = self.raws.get(&old).cloned() else {
            let value = self.value(old);
            // An argument that the user sees as integers is returned as the real that it stands for.
            return if self.fixed.ports.contains_key(&value) { self.named_again(value) } else { value };
        };
        let (Real::Value(real), Zero::Known(zero)) = (&raw.real, raw.zero) else { return self.value(old) };
        let Some(&params) = self.fixed.params.get(real) else { return self.value(old) };
        let value = self.named_again(*real);
        let port = QuantParams { scale: 1.0, zero_point: params.zero_point - zero, ..params };
        self.fixed.ports.insert(value, port);
        value
    }

    /// A value of its own with the integers of another, which may be a result or an argument with another
    /// meaning.
    fn named_again(&mut self, value: ValueId) -> ValueId {
        let shape = self.shape(value);
        let copy = self.append(Identity {}, &[value], &shape, ElemType::F32);
        self.same_integers(value, copy);
        copy
    }

    /// The result of an op as a raw value, if it is one.
    fn raw(&mut self, kind: &Op, operands: &[ValueId], result: ValueId) -> Option<Raw> {
        let first = operands.first().and_then(|value| self.raws.get(value)).cloned();
        let Some(raw) = first else { return self.rounding(kind, operands, result) };
        if let Some(raw) = self.product_of(kind, operands, &raw, result) {
            return Some(raw);
        }
        let shifted = |term: i64| match raw.zero {
            Zero::Known(zero) => Zero::Known(zero + term),
            Zero::Dynamic(value, sofar) => Zero::Dynamic(value, sofar + term),
        };
        match kind {
            Op::Cast(_) if elem(self.module, result) != Some(ElemType::I1) => Some(raw),
            Op::Add(Add {}) => match whole(self.module, operands[1]) {
                Some(term) => Some(Raw { zero: shifted(term), ..raw }),
                None => self.dynamic_zero(&raw, operands[1]),
            },
            Op::Sub(Sub {}) => {
                if let Some(term) = whole(self.module, operands[1]) {
                    return Some(Raw { zero: shifted(-term), ..raw });
                }
                self.without_zero(&raw, operands[1])
            }
            // Saturation at the ends of the type, which rounding to 256 levels brings anyway.
            Op::Maximum(_) | Op::Minimum(_) if matches!(raw.zero, Zero::Dynamic(..)) => Some(raw),
            Op::Maximum(_) | Op::Minimum(_) => {
                let (Step::Known(step), Zero::Known(zero)) = (raw.step, raw.zero) else { return None };
                let bound = (scalar(self.module, operands[1])? - zero as f64) * step;
                let real = self.real(&raw);
                let bound = self.scalar_for(real, bound);
                self.moved(kind, &[real, bound], raw)
            }
            Op::Pad(_) => {
                let Zero::Known(zero) = raw.zero else { return None };
                let value = match (scalar(self.module, operands[2])? - zero as f64, raw.step) {
                    (0.0, _) => 0.0,
                    (steps, Step::Known(step)) => steps * step,
                    _ => return None,
                };
                let real = self.real(&raw);
                let value = self.constant(Tensor::f32([1], vec![value as f32]));
                let padding = self.value(operands[1]);
                let shape = self.shape(result);
                self.moved_to(kind, &[real, padding, value], &shape, raw)
            }
            Op::Concat(_) => {
                let mut reals = Vec::new();
                for value in operands {
                    let other = self.raws.get(value)?.clone();
                    if (other.step, other.zero) != (raw.step, raw.zero) {
                        return None;
                    }
                    reals.push(self.real(&other));
                }
                let shape = self.shape(result);
                self.moved_to(kind, &reals, &shape, raw)
            }
            kind if moves(kind) => {
                let mut inputs = vec![self.real(&raw)];
                inputs.extend(
                    operands[1..].iter().map(|&value| self.reals.get(&value).copied().unwrap_or(value)),
                );
                let shape = self.shape(result);
                self.moved_to(kind, &inputs, &shape, raw)
            }
            _ => None,
        }
    }

    fn moved(&mut self, kind: &Op, operands: &[ValueId], raw: Raw) -> Option<Raw> {
        let shape = self.shape(operands[0]);
        self.moved_to(kind, operands, &shape, raw)
    }

    /// A raw value whose real is `kind` of the reals: it has their integers.
    fn moved_to(&mut self, kind: &Op, operands: &[ValueId], shape: &[usize], raw: Raw) -> Option<Raw> {
        let value = self.append(kind.clone(), operands, shape, ElemType::F32);
        self.same_integers(operands[0], value);
        Some(Raw { real: Real::Value(value), ..raw })
    }

    /// Gives a value of the new body the integers and the range of another.
    pub(super) fn same_integers(&mut self, from: ValueId, to: ValueId) {
        self.ranges.copy(from, to);
        if let Some(&params) = self.fixed.params.get(&from) {
            self.fixed.params.insert(to, params);
        }
    }

    /// The dividend of a quotient as the importer writes it, and the reciprocal of its divisor: a product,
    /// which may be corrected by what it leaves over times the reciprocal.
    pub(super) fn quotient(&self, value: ValueId) -> Option<(ValueId, ValueId)> {
        match self.def(value)? {
            (Op::Mul(_), &[x, inverse, _]) => Some((x, inverse)),
            (Op::Add(_), &[near, more]) => {
                let (Op::Clamp(_), &[product]) = self.def(near)? else { return None };
                let (Op::Mul(_), &[x, inverse, _]) = self.def(product)? else { return None };
                let (Op::Mul(_), &[mut rest, again, _]) = self.def(more)? else { return None };
                for _ in 0..4 {
                    let (Op::Sub(_), &[before, part]) = self.def(rest)? else { return None };
                    let (Op::Mul(_), _) = self.def(part)? else { return None };
                    rest = before;
                }
                (rest == x && again == inverse).then_some((x, inverse))
            }
            _ => None,
        }
    }

    /// A cast to integers that rounds a real: quantisation.
    fn rounding(&mut self, kind: &Op, operands: &[ValueId], result: ValueId) -> Option<Raw> {
        if !matches!(kind, Op::Cast(_)) || elem(self.module, result) != Some(ElemType::I32) {
            return None;
        }
        if let Some(raw) = self.dynamic_rounding(operands[0]) {
            self.fixed.n_dynamic += 1;
            return Some(raw);
        }
        let (Op::Clamp(Clamp { min_val, max_val, nan_mode: NanMode::Propagate }), &[steps]) =
            self.def(operands[0])?
        else {
            return None;
        };
        let (&Attribute::Float(least, _), &Attribute::Float(greatest, _)) = (min_val, max_val) else {
            return None;
        };
        let (x, inverse) = self.quotient(steps)?;
        let scale = divisor(self.module, inverse).filter(|scale| *scale > 0.0)?;
        let grid = Grid::new(scale, least, greatest)?;
        let x = self.value(x);
        let real = self.round(x, grid);
        Some(Raw { real: Real::Value(real), step: Step::Known(scale), zero: Zero::Known(0) })
    }

    /// The result of an op on raw values that is no integer: dequantisation, above all.
    fn real_result(&mut self, kind: &Op, operands: &[ValueId], result: ValueId) -> Option<ValueId> {
        if let Some(value) = self.folded(kind, operands) {
            return Some(value);
        }
        match kind {
            Op::Mul(_) => {
                let (raw, factor) = match (self.raws.get(&operands[0]), self.raws.get(&operands[1])) {
                    (Some(raw), None) => (raw.clone(), operands[1]),
                    (None, Some(raw)) => (raw.clone(), operands[0]),
                    _ => return None,
                };
                if let Real::Product(product) = &raw.real {
                    return self.scaled_product(product, raw.step, factor, result);
                }
                let scale = scalar(self.module, factor)?;
                let is_step = raw.step == Step::Known(scale) && raw.zero == Zero::Known(0);
                is_step.then(|| self.real(&raw))
            }
            // The place of the greatest integer is that of the greatest real.
            Op::Argmax(_) => {
                let raw = self.raws.get(&operands[0])?.clone();
                let real = self.real(&raw);
                let shape = self.shape(result);
                Some(self.append(kind.clone(), &[real], &shape, ElemType::I32))
            }
            _ => None,
        }
    }
}
