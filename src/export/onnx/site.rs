//! What the lowerings of all ops share: an op's operands and result, axes in either order, and what becomes
//! of the floats that were computed.

use strata_ir::{ElemType, ValueId};

use super::emitter::{Emitter, Kind, Layout, Real};
use crate::export::ExportError;

/// An op with its only result.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) operands: &'a [ValueId],
    pub(super) result: ValueId,
}

/// Which axis of a tensor in a layout an axis of the module is.
pub(super) fn axis_in(layout: Layout, axis: usize) -> usize {
    match (layout, axis) {
        (Layout::Module, axis) => axis,
        (Layout::Nchw, 1) => 2,
        (Layout::Nchw, 2) => 3,
        (Layout::Nchw, 3) => 1,
        (Layout::Nchw, axis) => axis,
    }
}

/// A list with an entry for each axis of the module, in the order of a layout.
pub(super) fn axes_in<T: Copy>(layout: Layout, of: &[T]) -> Vec<T> {
    match (layout, of) {
        (Layout::Nchw, &[n, h, w, c]) => vec![n, c, h, w],
        _ => of.to_vec(),
    }
}

/// What floats stand for as the op's result: quantised if that is of 8 or 16 bits.
pub(super) fn finish(
    emitter: &mut Emitter<'_>,
    result: ValueId,
    real: Real,
    zero_point: i64,
) -> Result<(), ExportError> {
    let elem = emitter.elem(result);
    match elem {
        ElemType::I8 | ElemType::I16 => {
            let real = with_one_step(emitter, real);
            let step = real.steps[0];
            let name = emitter.quantise(&real.name, step, zero_point, elem);
            emitter.define(result, Kind::Quantised { step }, real.layout, name);
        }
        _ if zero_point != 0 => return Err(emitter.unsupported(&format!("a zero point of {elem}"))),
        _ => emitter.define(result, Kind::Real { steps: real.steps }, real.layout, real.name),
    }
    Ok(())
}

/// Floats whose step is the same in all channels.
pub(super) fn with_one_step(emitter: &mut Emitter<'_>, real: Real) -> Real {
    let first = real.steps[0];
    if real.steps.len() == 1 {
        return real;
    }
    if real.steps.iter().all(|step| (step / first - 1.0).abs() < 1e-9) {
        return Real { steps: vec![first], ..real };
    }
    let greatest = real.steps.iter().copied().fold(first, f64::max);
    emitter.in_steps(real, &[greatest])
}
