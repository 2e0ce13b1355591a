//! Rescales and what is computed element by element.

use strata_ir::attr::Attribute;
use strata_ir::dialect::{Clamp, Rescale};
use strata_ir::{ElemType, ValueId};

use super::DataType;
use super::emitter::{Emitter, Kind, Layout, Real};
use super::proto::{Data, int};
use super::site::{Site, finish, with_one_step};
use crate::export::ExportError;

/// The factors of a rescale, of its operands: `multiplier / 2^shift`.
pub(super) fn factors_of(emitter: &Emitter<'_>, operands: &[ValueId]) -> Result<Vec<f64>, ExportError> {
    let &[_, multiplier, shift, ..] = operands else {
        return Err(emitter.unsupported("a rescale without a multiplier and a shift"));
    };
    let (multipliers, shifts) = (emitter.integers(multiplier)?, emitter.integers(shift)?);
    let factors = multipliers.iter().zip(&shifts);
    let factors: Vec<f64> = factors.map(|(&m, &shift)| m as f64 * 2f64.powi(-(shift as i32))).collect();
    if factors.is_empty() || factors.contains(&0.0) {
        return Err(emitter.unsupported("a rescale by 0"));
    }
    Ok(factors)
}

/// RESCALE: the floats stay as they are, and their steps are divided by the factors.
pub(super) fn rescale(emitter: &mut Emitter<'_>, site: Site<'_>, op: &Rescale) -> Result<(), ExportError> {
    if op.input_unsigned || op.output_unsigned {
        return Err(emitter.unsupported("a rescale of unsigned integers"));
    }
    let &[input, _, _, input_zp, output_zp] = site.operands else {
        return Err(emitter.unsupported("a rescale without five operands"));
    };
    let factors = factors_of(emitter, site.operands)?;
    let (input_zp, output_zp) = (emitter.integer(input_zp)?, emitter.integer(output_zp)?);
    let layout = emitter.stand(input)?.native();
    let input = emitter.real(input, input_zp, layout)?;
    let n = factors.len().max(input.steps.len());
    let at = |of: &[f64], index: usize| of.get(index).or(of.first()).copied().unwrap_or(1.0);
    let steps = (0..n).map(|index| at(&input.steps, index) / at(&factors, index)).collect();
    finish(emitter, site.result, Real { steps, ..input }, output_zp)
}

/// The order in which an op's operands are taken: that in which one of them was computed.
fn layout_of(emitter: &mut Emitter<'_>, operands: &[ValueId]) -> Result<Layout, ExportError> {
    for &operand in operands {
        if emitter.constant(operand).is_none() && emitter.stand(operand)?.native() == Layout::Nchw {
            return Ok(Layout::Nchw);
        }
    }
    Ok(Layout::Module)
}

/// Two operands as floats of the same step.
struct Pair {
    first: Real,
    second: String,
}

fn matched(emitter: &mut Emitter<'_>, a: ValueId, b: ValueId, layout: Layout) -> Result<Pair, ExportError> {
    // A constant takes the step of what it is combined with.
    let is_constant = emitter.constant(a).is_some();
    let real = emitter.real(if is_constant { b } else { a }, 0, layout)?;
    let known = with_one_step(emitter, real);
    let other = emitter.real(if is_constant { a } else { b }, 0, layout)?;
    let other = emitter.in_steps(other, &known.steps);
    Ok(match is_constant {
        true => Pair { second: known.name, first: other },
        false => Pair { second: other.name, first: known },
    })
}

/// ADD and its like, of operands that have to have the same step.
pub(super) fn sum(emitter: &mut Emitter<'_>, site: Site<'_>, op: &str) -> Result<(), ExportError> {
    let &[a, b] = site.operands else { return Err(emitter.unsupported("an op without two operands")) };
    let layout = layout_of(emitter, site.operands)?;
    let Pair { first, second } = matched(emitter, a, b, layout)?;
    let name = emitter.node(op, vec![first.name.clone(), second], Vec::new());
    finish(emitter, site.result, Real { name, ..first }, 0)
}

/// MUL, whose shift divides the integers but not the floats.
pub(super) fn product(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[a, b, shift] = site.operands else { return Err(emitter.unsupported("a product without a shift")) };
    let shift = emitter.integer(shift)?;
    let layout = layout_of(emitter, &site.operands[..2])?;
    let a = emitter.real(a, 0, layout)?;
    let a = with_one_step(emitter, a);
    let b = emitter.real(b, 0, layout)?;
    let b = with_one_step(emitter, b);
    let steps = vec![a.steps[0] * b.steps[0] * 2f64.powi(shift as i32)];
    let name = emitter.node("Mul", vec![a.name.clone(), b.name], Vec::new());
    finish(emitter, site.result, Real { name, steps, ..a }, 0)
}

/// GREATER and its like.
pub(super) fn comparison(emitter: &mut Emitter<'_>, site: Site<'_>, op: &str) -> Result<(), ExportError> {
    let &[a, b] = site.operands else { return Err(emitter.unsupported("an op without two operands")) };
    let layout = layout_of(emitter, site.operands)?;
    let Pair { first, second } = matched(emitter, a, b, layout)?;
    let name = emitter.node(op, vec![first.name, second], Vec::new());
    emitter.define(site.result, Kind::Truth, layout, name);
    Ok(())
}

/// SELECT.
pub(super) fn select(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[condition, a, b] = site.operands else {
        return Err(emitter.unsupported("a selection without three operands"));
    };
    let layout = layout_of(emitter, site.operands)?;
    let condition = emitter.tensor(condition, layout)?;
    let Pair { first, second } = matched(emitter, a, b, layout)?;
    let name = emitter.node("Where", vec![condition, first.name.clone(), second], Vec::new());
    finish(emitter, site.result, Real { name, ..first }, 0)
}

/// CLAMP.
pub(super) fn clamp(emitter: &mut Emitter<'_>, site: Site<'_>, op: &Clamp) -> Result<(), ExportError> {
    let layout = layout_of(emitter, site.operands)?;
    let input = emitter.real(site.operands[0], 0, layout)?;
    let input = with_one_step(emitter, input);
    let mut inputs = vec![input.name.clone()];
    for bound in [&op.min_val, &op.max_val] {
        let value = match bound {
            Attribute::Int(value, _) => *value as f64,
            Attribute::Float(value, _) => *value,
            _ => return Err(emitter.unsupported("a bound that is no number")),
        };
        let value = Data::F32(vec![(value * input.steps[0]) as f32]);
        inputs.push(emitter.initializer("bound", &[], &value));
    }
    let name = emitter.node("Clip", inputs, Vec::new());
    finish(emitter, site.result, Real { name, ..input }, 0)
}

/// CAST between integers, which has to keep the values.
pub(super) fn same(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let (from, to) = (emitter.elem(site.operands[0]), emitter.elem(site.result));
    let layout = layout_of(emitter, site.operands)?;
    if from == to {
        emitter.alias(site.result, site.operands[0]);
        return Ok(());
    }
    if from.is_float() != to.is_float() || from == ElemType::I1 || to == ElemType::I1 {
        return Err(emitter.unsupported(&format!("a cast from {from} to {to}")));
    }
    let input = emitter.real(site.operands[0], 0, layout)?;
    finish(emitter, site.result, input, 0)
}

/// ABS.
pub(super) fn abs(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let layout = layout_of(emitter, site.operands)?;
    let input = emitter.real(site.operands[0], 0, layout)?;
    let name = emitter.node("Abs", vec![input.name.clone()], Vec::new());
    finish(emitter, site.result, Real { name, ..input }, 0)
}

/// A function of floats, which the host computes.
pub(super) fn of_floats(emitter: &mut Emitter<'_>, site: Site<'_>, op: &str) -> Result<(), ExportError> {
    if !emitter.elem(site.operands[0]).is_float() {
        return Err(emitter.unsupported("a function of integers"));
    }
    let layout = layout_of(emitter, site.operands)?;
    let input = emitter.real(site.operands[0], 0, layout)?;
    let name = emitter.node(op, vec![input.name.clone()], Vec::new());
    finish(emitter, site.result, Real { name, ..input }, 0)
}

/// TABLE: a look-up by the integers themselves.
pub(super) fn table(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[input, table] = site.operands else {
        return Err(emitter.unsupported("a table without two operands"));
    };
    let stand = emitter.stand(input)?;
    let Kind::Quantised { step } = stand.kind else {
        return Err(emitter.unsupported("a table of other than 8 or 16 bits"));
    };
    let layout = stand.native();
    let entries = emitter.integers(table)?;
    let name = emitter.tensor(input, layout)?;
    let index = emitter.node("Cast", vec![name], vec![int("to", DataType::Int32 as i64)]);
    if emitter.elem(input) == ElemType::I16 {
        return interpolated(emitter, site, index, layout, &entries);
    }
    let index = plus(emitter, index, "Add", 128);
    let entries = Data::I8(entries.into_iter().map(|entry| entry as i8).collect());
    let table = emitter.initializer("table", &[256], &entries);
    let name = emitter.node("Gather", vec![table, index], vec![int("axis", 0)]);
    emitter.define(site.result, Kind::Quantised { step }, layout, name);
    Ok(())
}

/// An operation of integers and a number.
fn plus(emitter: &mut Emitter<'_>, name: String, op: &str, number: i32) -> String {
    let number = emitter.initializer("number", &[], &Data::I32(vec![number]));
    emitter.node(op, vec![name, number], Vec::new())
}

/// A table of `i16`: with `at = (x + 32768) / 128` and what is left over as `fraction`,
/// `table[at] * 128 + (table[at + 1] - table[at]) * fraction`.
fn interpolated(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    index: String,
    layout: Layout,
    entries: &[i64],
) -> Result<(), ExportError> {
    let position = plus(emitter, index, "Add", 32768);
    let at = plus(emitter, position.clone(), "Div", 128);
    let begin = plus(emitter, at.clone(), "Mul", 128);
    let fraction = emitter.node("Sub", vec![position, begin], Vec::new());
    let next = plus(emitter, at.clone(), "Add", 1);
    let data = Data::I32(entries.iter().map(|&entry| entry as i32).collect());
    let table = emitter.initializer("table", &[entries.len()], &data);
    let axis = || vec![int("axis", 0)];
    let low = emitter.node("Gather", vec![table.clone(), at], axis());
    let high = emitter.node("Gather", vec![table, next], axis());
    let rise = emitter.node("Sub", vec![high, low.clone()], Vec::new());
    let rise = emitter.node("Mul", vec![rise, fraction], Vec::new());
    let base = plus(emitter, low, "Mul", 128);
    let sum = emitter.node("Add", vec![base, rise], Vec::new());
    let name = emitter.node("Cast", vec![sum], vec![int("to", DataType::Float as i64)]);
    emitter.define(site.result, Kind::Real { steps: vec![1.0] }, layout, name);
    Ok(())
}
