//! Integer arithmetic in `i32`: types of up to 16 bits wrap at their own width, as ONNX's do.
//!
//! Operands are reduced so that no intermediate result leaves 32 bits. Sums and products of 64-bit integers
//! are not supported: their overflow could not be told.

use strata_ir::{ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::array::Array;
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::Value;

/// Bits and least value of an integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    pub(super) bits: u32,
    pub(super) least: i64,
}

/// The width of an integer type whose values all fit in `i32`.
pub(super) fn width(dtype: DataType) -> Option<Width> {
    let (bits, signed) = match dtype {
        DataType::Int8 => (8, true),
        DataType::Uint8 => (8, false),
        DataType::Int16 => (16, true),
        DataType::Uint16 => (16, false),
        DataType::Int32 => (32, true),
        _ => return None,
    };
    Some(Width { bits, least: if signed { -(1 << (bits - 1)) } else { 0 } })
}

/// The value of the type that is congruent to `x`.
pub(super) fn wrap(em: &mut Emitter, x: ValueId, to: Width) -> ValueId {
    if to.bits >= 32 {
        return x;
    }
    let least = em.int_like(x, to.least);
    let above = if to.least == 0 { x } else { em.sub(x, least) };
    let bits = em.int_like(x, i64::from(to.bits));
    let turns = em.binary(dialect::ArithmeticRightShift { round: false }, above, bits);
    let turn = em.int_like(x, 1 << to.bits);
    let turned = em.mul(turns, turn);
    let rest = em.sub(above, turned);
    if to.least == 0 { rest } else { em.add(rest, least) }
}

/// Sum, difference, product, quotient or remainder of two integers of one type.
pub(super) fn arithmetic(em: &mut Emitter, op: &str, [a, b]: [ValueId; 2], width: Width) -> Lowered<ValueId> {
    let exact = match op {
        "Add" => em.add(a, b),
        "Sub" => em.sub(a, b),
        "Mul" => {
            // The product of numbers below 2^15 in magnitude fits, whatever the sign of the type.
            let signed = Width { bits: width.bits, least: -(1 << (width.bits - 1)) };
            let (a, b) = (wrap(em, a, signed), wrap(em, b, signed));
            em.mul(a, b)
        }
        "Div" => em.binary(dialect::IntDiv {}, a, b),
        other => unsupported!("`{other}` of integers"),
    };
    Ok(wrap(em, exact, width))
}

/// `a - b * trunc(a / b)`; with `floored`, of the sign of the divisor.
pub(super) fn remainder(em: &mut Emitter, a: ValueId, b: ValueId, floored: bool) -> ValueId {
    let quotient = em.binary(dialect::IntDiv {}, a, b);
    let whole = em.mul(quotient, b);
    let rest = em.sub(a, whole);
    if !floored {
        return rest;
    }
    let zero = em.int_like(rest, 0);
    let negative = em.compare(dialect::Greater {}, zero, rest);
    let divisor_negative = em.compare(dialect::Greater {}, zero, b);
    let differ = em.compare(dialect::LogicalXor {}, negative, divisor_negative);
    let none = em.compare(dialect::Equal {}, rest, zero);
    let some = em.unary(dialect::LogicalNot {}, none);
    let off = em.compare(dialect::LogicalAnd {}, differ, some);
    let moved = em.add(rest, b);
    em.select(off, moved, rest)
}

/// `Mod` of integers.
pub(super) fn modulo(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let operands = [node.input(0)?.clone(), node.input(1)?.clone()];
    let dtype = operands[0].dtype();
    if operands[1].dtype() != dtype {
        invalid!("operands of types {dtype:?} and {:?}", operands[1].dtype());
    }
    // Remainders of 64-bit integers are no larger than their operands.
    if width(dtype).is_none() && dtype != DataType::Int64 {
        unsupported!("on {dtype:?}");
    }
    let floored = !node.flag("fmod", false)?;
    let aligned = lo.align(&operands)?;
    let out = remainder(&mut lo.em, aligned.values[0], aligned.values[1], floored);
    single(aligned.result(out, dtype))
}

/// `BitShift` by constant amounts.
pub(super) fn bit_shift(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let Some(to @ Width { bits: 8 | 16, least: 0 }) = width(x.dtype()) else {
        unsupported!("on {:?}", x.dtype())
    };
    let amounts = node.constant(1, "the amount")?;
    let left = match node.string("direction", "")?.as_str() {
        "LEFT" => true,
        "RIGHT" => false,
        other => invalid!("direction `{other}`"),
    };
    let operand = |&amount: &i64| match (left, u32::try_from(amount)) {
        (true, Ok(amount)) if amount < to.bits => 1 << amount,
        (true, _) => 0,
        (false, _) => amount.clamp(0, 31),
    };
    let data = amounts.as_ints()?.iter().map(operand).collect();
    let amounts = Array::ints(amounts.shape.clone(), data, x.dtype());
    let aligned = lo.align(&[x.clone(), amounts.into()])?;
    let [a, b] = aligned.values[..] else { unreachable!("two operands were aligned") };
    let out = if left {
        // Below 2^15 in magnitude, so that no product leaves 32 bits.
        let signed = wrap(&mut lo.em, a, Width { bits: to.bits, least: -(1 << (to.bits - 1)) });
        let shifted = lo.em.mul(signed, b);
        wrap(&mut lo.em, shifted, to)
    } else {
        lo.em.binary(dialect::ArithmeticRightShift { round: false }, a, b)
    };
    single(aligned.result(out, x.dtype()))
}

/// `BitwiseNot`: as far from one end of the type's range as the operand from the other.
pub(super) fn bitwise_not(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let Some(Width { bits, least }) = width(x.dtype()) else { unsupported!("on {:?}", x.dtype()) };
    let sum = if least == 0 { (1 << bits) - 1 } else { -1 };
    single(lo.map(x, |em, x| {
        let sum = em.int_like(x, sum);
        em.sub(sum, x)
    })?)
}
