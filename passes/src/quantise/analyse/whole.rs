//! Which whole numbers the machine has as they are, and their ranges as they follow from their types: those
//! of arguments of 8 and 16 bits, and of what is computed of such.
//!
//! A whole number is to be exact whatever the data, so samples say too little of it: where the range is known
//! from the types, it counts instead of what was seen.

use std::collections::BTreeMap;

use strata_ir::{ElemType, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::analyse::{Analysis, keeps_scale};
use crate::quantise::params::Range;

/// The least and the greatest that a value can be.
type Interval = (f64, f64);

impl Analysis<'_> {
    /// Whole numbers that the machine would not have as they are, but rounded or interpolated: those beyond
    /// 16 bits, and functions that take or give more than 8.
    pub(super) fn inexact_integers(&self) -> Vec<ValueId> {
        let results = self.live.iter().map(|&op| self.module.result(op));
        results.filter(|&value| self.is_whole(value) && self.is_inexact(value)).collect()
    }

    /// Whether a value is a whole number that stands for itself.
    fn is_whole(&self, value: ValueId) -> bool {
        let is_number = self.numbers.contains(&value) && !self.fixed.contains_key(&value);
        is_number && self.elem(value) == Some(ElemType::I32)
    }

    fn is_inexact(&self, value: ValueId) -> bool {
        let leaf = self.leaf[value];
        let is_step = |op: &OpId| leaf.is_some() && self.leaf[self.module.result(*op)] == leaf;
        // Within a function any number may be passed through.
        let is_needed = self.returned.contains(&value) || !self.users[value].iter().all(is_step);
        let params = self.whole_range(value).map(QuantParams::of_whole_numbers);
        let fits = |most: ElemType| {
            params.is_none_or(|params| params.is_some_and(|p| p.elem == most || p.elem == ElemType::I8))
        };
        match leaf {
            None => is_needed && !fits(ElemType::I16),
            Some(leaf) => {
                self.integers(leaf).is_some_and(|params| params.elem == ElemType::I16)
                    || is_needed && !fits(ElemType::I8)
            }
        }
    }

    /// The range of a whole number: by the types, or else what was seen.
    pub(super) fn whole_range(&self, value: ValueId) -> Option<Range> {
        self.exact_range(value).or_else(|| self.ranges.seen(value))
    }

    /// The range of a whole number if it follows from the types.
    pub(super) fn exact_range(&self, value: ValueId) -> Option<Range> {
        self.whole.get(&value).copied().filter(|_| self.is_whole(value))
    }

    /// The integers that a value is known to have: those that the model fixes, or the whole numbers of its
    /// range.
    fn integers(&self, value: ValueId) -> Option<QuantParams> {
        match self.elem(value)? {
            ElemType::I32 => self.whole_range(value).and_then(QuantParams::of_whole_numbers),
            ElemType::I1 => Some(QuantParams::i8(1.0, 0)),
            _ => self.fixed.get(&value).copied(),
        }
    }

    /// The ranges of whole numbers as far as they follow from the integers that arguments and rounded values
    /// have, and from constants.
    pub(super) fn whole_ranges(&self) -> BTreeMap<ValueId, Range> {
        let ends = |params: &QuantParams| {
            let (least, greatest) = params.limits();
            (params.dequantise(least), params.dequantise(greatest))
        };
        let mut known: BTreeMap<ValueId, Interval> =
            self.fixed.iter().map(|(&value, params)| (value, ends(params))).collect();
        for &op in &self.live {
            let data = self.module.op(op);
            let [result] = data.results() else { continue };
            if known.contains_key(result) {
                continue;
            }
            let of = |value: ValueId| known.get(&value).copied().or_else(|| span(&*self.constant(value)?));
            let operand = |at: usize| of(*data.operands().get(at)?);
            let table = self.leaf[*result]
                .and_then(|leaf| self.range_of_table(*result, leaf, known.get(&leaf).copied()));
            if let Some(interval) =
                table.or_else(|| interval(self.module, &data.op, data.operands(), &operand))
            {
                known.insert(*result, interval);
            }
        }
        let is_whole =
            |value: ValueId| self.elem(value) == Some(ElemType::I32) && !self.fixed.contains_key(&value);
        let whole = known.into_iter().filter(|&(value, _)| is_whole(value));
        whole.map(|(value, (low, high))| (value, Range { low: low as f32, high: high as f32 })).collect()
    }

    /// All that a function of 8 bits gives, of a leaf whose ends may be known.
    fn range_of_table(&self, value: ValueId, leaf: ValueId, ends: Option<Interval>) -> Option<Interval> {
        let params = match (self.elem(leaf)?, ends) {
            (ElemType::I32, Some((low, high))) => {
                QuantParams::of_whole_numbers(Range { low: low as f32, high: high as f32 })?
            }
            _ => self.integers(leaf)?,
        };
        if params.elem != ElemType::I8 || self.elem(value) != Some(ElemType::I32) {
            return None;
        }
        let function = self.function(leaf, value)?;
        let (least, greatest) = params.limits();
        let all = (least..=greatest).map(|q| function.at(params.dequantise(q), 0));
        ends_of(all)
    }
}

/// The ends of a constant.
fn span(tensor: &Tensor) -> Option<Interval> {
    match tensor.as_f32() {
        Some(values) => ends_of(values.iter().copied().map(f64::from)),
        None => ends_of(tensor.data().to_ints()?.into_iter().map(|value| value as f64)),
    }
}

/// The least and the greatest of some numbers.
fn ends_of(mut numbers: impl Iterator<Item = f64>) -> Option<Interval> {
    let first = numbers.next()?;
    Some(numbers.fold((first, first), |(low, high), x| (low.min(x), high.max(x))))
}

/// The ends of what an op gives, if those of its operands are known.
fn interval(
    module: &Module,
    op: &Op,
    operands: &[ValueId],
    operand: &dyn Fn(usize) -> Option<Interval>,
) -> Option<Interval> {
    let corners = |of: fn(f64, f64) -> f64| {
        let ((a, b), (c, d)) = (operand(0)?, operand(1)?);
        ends_of([of(a, c), of(a, d), of(b, c), of(b, d)].into_iter())
    };
    match op {
        Op::Add(_) => corners(|a, b| a + b),
        Op::Sub(_) => corners(|a, b| a - b),
        Op::Mul(_) => corners(|a, b| a * b),
        Op::Maximum(_) => corners(f64::max),
        Op::Minimum(_) => corners(f64::min),
        // The shifts are by few bits; rounding up adds one at most.
        Op::ArithmeticRightShift(_) => {
            let ((low, high), (least, most)) = (operand(0)?, operand(1)?);
            let shifted = |x: f64, by: f64| (x / by.exp2()).floor();
            Some((
                shifted(low, least).min(shifted(low, most)),
                shifted(high, least).max(shifted(high, most)) + 1.0,
            ))
        }
        Op::Cast(_) => operand(0).map(|(low, high)| (low.round_ties_even(), high.round_ties_even())),
        Op::Abs(_) => operand(0).map(|(low, high)| (0.0, high.max(-low))),
        Op::Negate(_) => operand(0).map(|(low, high)| (-high, -low)),
        Op::Identity(_) => operand(0),
        Op::Select(_) => union(operand(1)?, operand(2)?),
        Op::Concat(_) => (0..operands.len()).map(operand).reduce(|a, b| union(a?, b?))?,
        Op::Pad(_) => union(operand(0)?, operand(2)?),
        Op::ReduceSum(sum) => {
            let (low, high) = operand(0)?;
            let extent = *module.ty(operands[0]).as_tensor()?.shape.get(sum.axis as usize)? as f64;
            Some((low * extent, high * extent))
        }
        op if keeps_scale(op) => operand(0),
        _ => None,
    }
}

fn union(a: Interval, b: Interval) -> Option<Interval> {
    Some((a.0.min(b.0), a.1.max(b.1)))
}
