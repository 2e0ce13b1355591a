//! Comparisons of two values, what joins their results, and choices by them. True is 1 and false 0, in `i8`.

use strata_ir::dialect::{Add, Mul, Sub};
use strata_ir::{ElemType, Op, Tensor, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::lower::{Lowering, NOT_EXPECTED, OUT_OF_RANGE, Quantised};
use crate::quantise::params::FixedScale;

/// The integers of what is true or false.
const TRUTH: QuantParams = QuantParams { scale: 1.0, zero_point: 0, elem: ElemType::I8 };

/// How many steps of `i8` a difference of one step of the finer operand becomes: one of less than half of it
/// is none.
const STEPS: f64 = 64.0;

impl Lowering<'_> {
    /// A comparison: the sign of the difference, which saturates, in a table.
    pub(super) fn comparison(
        &mut self,
        op: &Op,
        operands: &[ValueId],
        shape: &[usize],
    ) -> Result<Quantised, &'static str> {
        let [a, b] = self.operands(operands, TRUTH)?;
        let finer = a.params.scale.min(b.params.scale);
        let common = self.common_scale(a, b);
        let (a, b) = (self.widen(a, common)?, self.widen(b, common)?);
        let difference = self.append(Sub {}, &[a.value, b.value], shape, ElemType::I32);
        let scale = FixedScale::new(STEPS * common / finer, a.bound + b.bound).ok_or(OUT_OF_RANGE)?;
        let sign = self.rescale(difference, 0, &[scale], ElemType::I8, 0);
        let holds: fn(i8) -> bool = match op {
            Op::Equal(_) => |sign| sign.unsigned_abs() < STEPS as u8 / 2,
            Op::Greater(_) => |sign| sign > 0,
            Op::GreaterEqual(_) => |sign| sign >= 0,
            _ => return Err(NOT_EXPECTED),
        };
        self.report.n_tables += 1;
        let value = self.table_of(sign, |sign| i8::from(holds(sign)));
        Ok(Quantised { value, params: TRUTH })
    }

    /// And, or, exclusive or: how many of the two hold, in a table.
    pub(super) fn junction(
        &mut self,
        op: &Op,
        operands: &[ValueId],
        shape: &[usize],
    ) -> Result<Quantised, &'static str> {
        let (a, b) = (self.truth(operands[0])?, self.truth(operands[1])?);
        let (a, b) = (self.widen(a, 1.0)?, self.widen(b, 1.0)?);
        let value = self.append(Add {}, &[a.value, b.value], shape, ElemType::I32);
        let one = FixedScale::new(1.0, 2.0).ok_or(OUT_OF_RANGE)?;
        let count = self.rescale(value, 0, &[one], ElemType::I8, 0);
        let holds: fn(i8) -> bool = match op {
            Op::LogicalAnd(_) => |count| count == 2,
            Op::LogicalOr(_) => |count| count >= 1,
            Op::LogicalXor(_) => |count| count == 1,
            _ => return Err(NOT_EXPECTED),
        };
        self.report.n_tables += 1;
        let value = self.table_of(count, |count| i8::from(holds(count)));
        Ok(Quantised { value, params: TRUTH })
    }

    /// A choice between two values: each times 1 where it is chosen and 0 elsewhere, and their sum.
    pub(super) fn choice(
        &mut self,
        operands: &[ValueId],
        shape: &[usize],
        result: ValueId,
    ) -> Result<Quantised, &'static str> {
        let &[condition, on_true, on_false] = operands else { return Err(NOT_EXPECTED) };
        let params = self.params(result)?;
        let condition = self.truth(condition)?;
        let yes = self.chosen(condition, on_true, params)?;
        let opposite = if self.is_zero(on_false) {
            None
        } else {
            self.report.n_tables += 1;
            let value = self.table_of(condition.value, |holds| i8::from(holds == 0));
            self.chosen(Quantised { value, params: TRUTH }, on_false, params)?
        };
        let chosen = match (yes, opposite) {
            (Some(yes), Some(no)) => self.combine(Add {}.into(), yes, no, shape, params)?,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return Err("both sides are 0"),
        };
        if self.new_shape(chosen.value) != shape {
            return Err("what it chooses is stretched by the value that it does not choose");
        }
        Ok(chosen)
    }

    /// A value where a condition holds and 0 elsewhere, with the result's integers; `None` for a value that
    /// is 0 anyway.
    fn chosen(
        &mut self,
        condition: Quantised,
        value: ValueId,
        params: QuantParams,
    ) -> Result<Option<Quantised>, &'static str> {
        if self.is_zero(value) {
            return Ok(None);
        }
        let q = match self.done.get(&value) {
            Some(&q) => q,
            None => self.constant_in(value, params.elem)?,
        };
        let (holds, wide) = (self.widen(condition, 1.0)?, self.widen(q, q.params.scale)?);
        let shift = self.scalar(0, ElemType::I8);
        let shape: Vec<usize> = (self.new_shape(wide.value).into_iter())
            .zip(self.new_shape(holds.value))
            .map(|(own, other)| own.max(other))
            .collect();
        let product = self.append(Mul {}, &[wide.value, holds.value, shift], &shape, ElemType::I32);
        let product = crate::quantise::lower::Wide { value: product, ..wide };
        Ok(Some(self.narrow(product, params)?))
    }

    /// The integers of a condition: those computed, or those of a constant.
    fn truth(&mut self, value: ValueId) -> Result<Quantised, &'static str> {
        if let Some(&q) = self.done.get(&value) {
            return if q.params == TRUTH { Ok(q) } else { Err(NOT_EXPECTED) };
        }
        let tensor = self.plan.constant(value).ok_or(NOT_EXPECTED)?;
        let holds = tensor.data().to_ints().ok_or(NOT_EXPECTED)?;
        let holds = holds.into_iter().map(|holds| i8::from(holds != 0)).collect();
        let value = self.constant(Tensor::i8(tensor.shape(), holds));
        Ok(Quantised { value, params: TRUTH })
    }

    /// Whether a value is a constant of nothing but 0.
    fn is_zero(&self, value: ValueId) -> bool {
        let Some(tensor) = self.plan.constant(value) else { return false };
        match tensor.as_f32() {
            Some(values) => values.iter().all(|&x| x == 0.0),
            None => tensor.data().to_ints().is_some_and(|values| values.iter().all(|&q| q == 0)),
        }
    }
}
