//! What moves or gathers elements, and reductions.
//!
//! Integers of 8 and 16 bits are moved as they are; nothing is dequantised for that.

use super::DataType;
use super::emitter::{Emitter, Kind, Layout, Real};
use super::proto::{Data, int, ints};
use super::site::{Site, axes_in, axis_in, finish, with_one_step};
use crate::export::ExportError;
use strata_ir::{ElemType, ValueId};

/// A tensor that is moved: the same integers, or floats of one step.
struct Moved {
    kind: Kind,
    name: String,
}

fn moved(emitter: &mut Emitter<'_>, value: ValueId, layout: Layout) -> Result<Moved, ExportError> {
    let kind = emitter.stand(value)?.kind;
    if let Kind::Real { .. } = kind {
        let real = emitter.real(value, 0, layout)?;
        let real = with_one_step(emitter, real);
        return Ok(Moved { kind: Kind::Real { steps: real.steps }, name: real.name });
    }
    Ok(Moved { kind, name: emitter.tensor(value, layout)? })
}

fn indices(emitter: &mut Emitter<'_>, what: &str, values: Vec<i64>) -> String {
    let dims = [values.len()];
    emitter.initializer(what, &dims, &Data::I64(values))
}

fn axis_of(emitter: &Emitter<'_>, axis: i32) -> Result<usize, ExportError> {
    usize::try_from(axis).map_err(|_| emitter.unsupported("a negative axis"))
}

/// CONCAT.
pub(super) fn concat(emitter: &mut Emitter<'_>, site: Site<'_>, axis: i32) -> Result<(), ExportError> {
    let axis = axis_of(emitter, axis)?;
    let &first = site.operands.first().ok_or_else(|| emitter.unsupported("nothing to concatenate"))?;
    let layout = emitter.stand(first)?.native();
    let parts = site.operands.iter().map(|&operand| moved(emitter, operand, layout));
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    let kind = parts[0].kind.clone();
    if let Kind::Real { steps } = &kind {
        for part in &mut parts {
            let Kind::Real { steps: own } = part.kind.clone() else { continue };
            let rank = emitter.shape(site.result).len();
            let real = Real { name: part.name.clone(), steps: own, layout, rank };
            part.name = emitter.in_steps(real, steps).name;
        }
    }
    let names = parts.into_iter().map(|part| part.name).collect();
    let name = emitter.node("Concat", names, vec![int("axis", axis_in(layout, axis) as i64)]);
    emitter.define(site.result, kind, layout, name);
    Ok(())
}

/// PAD.
pub(super) fn pad(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[input, padding, value] = site.operands else {
        return Err(emitter.unsupported("a pad without three operands"));
    };
    let (padding, value) = (emitter.integers(padding)?, emitter.integer(value)?);
    let layout = emitter.stand(input)?.native();
    let (before, after): (Vec<i64>, Vec<i64>) =
        padding.as_chunks::<2>().0.iter().map(|&[before, after]| (before, after)).unzip();
    let pads = [axes_in(layout, &before), axes_in(layout, &after)].concat();
    let pads = indices(emitter, "pads", pads);
    if emitter.elem(input) == ElemType::I8 {
        let Moved { kind, name } = moved(emitter, input, layout)?;
        let fill = emitter.initializer("fill", &[], &Data::I8(vec![value as i8]));
        let name = emitter.node("Pad", vec![name, pads, fill], Vec::new());
        emitter.define(site.result, kind, layout, name);
        return Ok(());
    }
    let real = emitter.real(input, 0, layout)?;
    let real = with_one_step(emitter, real);
    let fill = Data::F32(vec![(value as f64 * real.steps[0]) as f32]);
    let fill = emitter.initializer("fill", &[], &fill);
    let name = emitter.node("Pad", vec![real.name.clone(), pads, fill], Vec::new());
    finish(emitter, site.result, Real { name, ..real }, 0)
}

/// RESHAPE, of the elements in the module's order.
pub(super) fn reshape(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let Moved { kind, name } = moved(emitter, site.operands[0], Layout::Module)?;
    let shape = emitter.shape(site.result).iter().map(|&extent| extent as i64).collect();
    let shape = indices(emitter, "shape", shape);
    let name = emitter.node("Reshape", vec![name, shape], Vec::new());
    emitter.define(site.result, kind, Layout::Module, name);
    Ok(())
}

/// SLICE.
pub(super) fn slice(emitter: &mut Emitter<'_>, site: Site<'_>) -> Result<(), ExportError> {
    let &[input, start, size] = site.operands else {
        return Err(emitter.unsupported("a slice without three operands"));
    };
    let (start, size) = (emitter.integers(start)?, emitter.integers(size)?);
    let layout = emitter.stand(input)?.native();
    let Moved { kind, name } = moved(emitter, input, layout)?;
    let ends: Vec<i64> = start.iter().zip(&size).map(|(start, size)| start + size).collect();
    let starts = indices(emitter, "starts", axes_in(layout, &start));
    let ends = indices(emitter, "ends", axes_in(layout, &ends));
    let name = emitter.node("Slice", vec![name, starts, ends], Vec::new());
    emitter.define(site.result, kind, layout, name);
    Ok(())
}

/// TRANSPOSE.
pub(super) fn transpose(emitter: &mut Emitter<'_>, site: Site<'_>, perms: &[i32]) -> Result<(), ExportError> {
    let Moved { kind, name } = moved(emitter, site.operands[0], Layout::Module)?;
    let perm = ints("perm", perms.iter().map(|&axis| i64::from(axis)));
    let name = emitter.node("Transpose", vec![name], vec![perm]);
    emitter.define(site.result, kind, Layout::Module, name);
    Ok(())
}

/// REDUCE_SUM and its like.
pub(super) fn reduce(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    op: &str,
    axis: i32,
) -> Result<(), ExportError> {
    let axis = axis_of(emitter, axis)?;
    let layout = emitter.stand(site.operands[0])?.native();
    let real = emitter.real(site.operands[0], 0, layout)?;
    let real = with_one_step(emitter, real);
    let axes = indices(emitter, "axes", vec![axis_in(layout, axis) as i64]);
    let name = emitter.node(op, vec![real.name.clone(), axes], Vec::new());
    finish(emitter, site.result, Real { name, ..real }, 0)
}

/// ARGMAX.
pub(super) fn argmax(emitter: &mut Emitter<'_>, site: Site<'_>, axis: i32) -> Result<(), ExportError> {
    let axis = axis_of(emitter, axis)?;
    let real = emitter.real(site.operands[0], 0, Layout::Module)?;
    let real = with_one_step(emitter, real);
    let attributes = vec![int("axis", axis as i64), int("keepdims", 0)];
    let index = emitter.node("ArgMax", vec![real.name], attributes);
    let name = emitter.node("Cast", vec![index], vec![int("to", DataType::Float as i64)]);
    emitter.define(site.result, Kind::Real { steps: vec![1.0] }, Layout::Module, name);
    Ok(())
}
