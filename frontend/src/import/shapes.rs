//! What the operands and attributes of ONNX's shape ops mean, worked out once for constants and run-time
//! values.

use super::error::{Lowered, invalid, unsupported};
use super::graph::{Node, resolve_axis};

/// The indices `start, start + step, …` of one axis, `n` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: usize,
    pub(super) step: i64,
    pub(super) n: usize,
}

impl Range {
    /// The first index that is taken, and the extent from it through the last one.
    pub(super) fn span(self) -> (usize, usize) {
        let span = self.n.saturating_sub(1) * self.step.unsigned_abs() as usize;
        (if self.step < 0 { self.start - span } else { self.start }, span + 1)
    }
}

/// The ranges that take all of every axis.
pub(super) fn whole_ranges(shape: &[usize]) -> Vec<Range> {
    shape.iter().map(|&n| Range { start: 0, step: 1, n }).collect()
}

/// The external shape that a data-free reshaping op gives.
pub(super) fn reshaped(node: &Node<'_>, shape: &[usize]) -> Lowered<Vec<usize>> {
    let out = match node.proto.op_type.as_str() {
        "Flatten" => {
            let axis = match node.int("axis", 1)? {
                axis if axis == shape.len() as i64 => shape.len(),
                axis => resolve_axis(axis, shape.len())?,
            };
            vec![shape[..axis].iter().product(), shape[axis..].iter().product()]
        }
        "Squeeze" => {
            let axes = node.axes(1, shape.len())?;
            if let Some(&axis) = axes.iter().flatten().find(|&&axis| shape[axis] != 1) {
                invalid!("axis {axis} of extent {} cannot be squeezed", shape[axis]);
            }
            let gone = |axis| axes.as_ref().map_or(shape[axis] == 1, |axes| axes.contains(&axis));
            (0..shape.len()).filter(|&axis| !gone(axis)).map(|axis| shape[axis]).collect()
        }
        "Unsqueeze" => {
            let n_new = match (node.ints("axes")?, node.optional_constant(1, "the list of axes")?) {
                (Some(axes), _) => axes.len(),
                (None, Some(axes)) => axes.len(),
                (None, None) => invalid!("the axes are missing"),
            };
            let rank = shape.len() + n_new;
            let mut axes = node.axes(1, rank)?.unwrap_or_default();
            axes.sort_unstable();
            axes.dedup();
            if axes.len() != n_new {
                invalid!("an axis is listed twice");
            }
            let mut old = shape.iter().copied();
            (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { old.next().unwrap_or(1) }).collect()
        }
        _ => reshape_target(node, shape)?,
    };
    if out.iter().product::<usize>() != shape.iter().product::<usize>() {
        invalid!("shape {shape:?} cannot be reshaped to {out:?}");
    }
    Ok(out)
}

fn reshape_target(node: &Node<'_>, shape: &[usize]) -> Lowered<Vec<usize>> {
    let target = match node.ints("shape")? {
        Some(target) => target,
        None => node.constant(1, "the target shape")?.as_ints()?,
    };
    let keep_zero = node.flag("allowzero", false)?;
    let mut out = Vec::new();
    let mut inferred = None;
    for (axis, &extent) in target.iter().enumerate() {
        out.push(match extent {
            -1 if inferred.is_some() => invalid!("target shape {target:?} leaves two extents open"),
            -1 => {
                inferred = Some(axis);
                1
            }
            0 if keep_zero => 0,
            0 => match shape.get(axis) {
                Some(&extent) => extent,
                None => invalid!("target shape {target:?} copies axis {axis} of {shape:?}"),
            },
            _ => match usize::try_from(extent) {
                Ok(extent) => extent,
                Err(_) => invalid!("target shape {target:?} has a negative extent"),
            },
        });
    }
    if let Some(axis) = inferred {
        let (total, known): (usize, usize) = (shape.iter().product(), out.iter().product());
        if known == 0 || total % known != 0 {
            invalid!("shape {shape:?} cannot be reshaped to {target:?}");
        }
        out[axis] = total / known;
    }
    Ok(out)
}

/// The permutation of a `Transpose`.
pub(super) fn transpose_perm(node: &Node<'_>, rank: usize) -> Lowered<Vec<usize>> {
    let Some(perm) = node.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let perm = perm.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Lowered<Vec<_>>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        invalid!("{perm:?} is no permutation of {rank} axes");
    }
    Ok(perm)
}

/// What a `Slice` takes of each axis.
pub(super) fn slice_ranges(node: &Node<'_>, shape: &[usize]) -> Lowered<Vec<Range>> {
    let list = |name: &str, index: usize| -> Lowered<Option<Vec<i64>>> {
        Ok(match node.ints(name)? {
            Some(values) => Some(values.to_vec()),
            None => match node.optional_constant(index, "a bound of the slice")? {
                Some(array) => Some(array.as_ints()?.to_vec()),
                None => None,
            },
        })
    };
    let (Some(starts), Some(ends)) = (list("starts", 1)?, list("ends", 2)?) else {
        invalid!("the bounds are missing")
    };
    let axes = match list("axes", 3)? {
        Some(axes) => {
            axes.iter().map(|&axis| resolve_axis(axis, shape.len())).collect::<Lowered<Vec<_>>>()?
        }
        None => (0..starts.len()).collect(),
    };
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > shape.len() {
        invalid!("starts, ends, axes and steps differ in number");
    }
    let mut ranges = whole_ranges(shape);
    for (place, &axis) in axes.iter().enumerate() {
        let extent = shape[axis] as i64;
        let step = steps[place];
        let resolve = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
        let (least, greatest) = if step < 0 { (-1, extent - 1) } else { (0, extent) };
        let start = resolve(starts[place]).clamp(least.max(0), greatest.max(0));
        let end = match ends[place] {
            // The least integers mean "through the first index" when going backwards.
            bound if step < 0 && bound < -extent => -1,
            bound => resolve(bound).clamp(least, greatest),
        };
        let n = match step {
            0 => invalid!("a step is zero"),
            step if step > 0 => ((end - start).max(0) as u64).div_ceil(step as u64),
            step => ((start - end).max(0) as u64).div_ceil(step.unsigned_abs()),
        };
        ranges[axis] = Range { start: start as usize, step, n: n as usize };
    }
    Ok(ranges)
}

/// The axis of a `Split` and the sizes of its parts.
pub(super) fn split_sizes(node: &Node<'_>, shape: &[usize]) -> Lowered<(usize, Vec<usize>)> {
    let axis = resolve_axis(node.int("axis", 0)?, shape.len())?;
    let given = match node.ints("split")? {
        Some(sizes) => Some(sizes.to_vec()),
        None => match node.optional_constant(1, "the list of sizes")? {
            Some(array) => Some(array.as_ints()?.to_vec()),
            None => None,
        },
    };
    let extent = shape[axis];
    let n_parts = node.n_outputs();
    if n_parts == 0 {
        invalid!("a split into no parts");
    }
    let sizes = match given {
        Some(sizes) => sizes.iter().map(|&s| usize::try_from(s).unwrap_or(usize::MAX)).collect(),
        None => {
            let size = extent.div_ceil(n_parts);
            let rest = |part: usize| extent.saturating_sub(part * size).min(size);
            (0..n_parts).map(rest).collect::<Vec<_>>()
        }
    };
    let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if sizes.len() != n_parts || total != Some(extent) {
        invalid!("an extent of {extent} cannot be split into {sizes:?} for {n_parts} outputs");
    }
    Ok((axis, sizes))
}

/// The shape that a constant operand spells.
pub(super) fn shape_operand(node: &Node<'_>, index: usize) -> Lowered<Vec<usize>> {
    let extents = node.constant(index, "a shape")?.as_ints()?;
    let mut out = Vec::new();
    for &extent in extents {
        let Ok(extent) = usize::try_from(extent) else { invalid!("a shape holds the extent {extent}") };
        out.push(extent);
    }
    if out.iter().try_fold(1usize, |n, &e| n.checked_mul(e)).is_none_or(|n| n > 1 << 31) {
        unsupported!("a tensor of shape {out:?} is too large");
    }
    Ok(out)
}
