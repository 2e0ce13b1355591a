//! Operators that move data without computing.

use std::sync::Arc;

use strata_ir::ValueId;
use strata_ir::attr::ResizeMode;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::array::{Array, Data, broadcast_shape, elem_of};
use crate::import::emit::{MAX_COPIES, ResizeAxis};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};
use crate::import::shapes::{self, Range};

/// Operators that are always evaluated while importing; one that is not has operands known only at run time.
pub(super) fn folded(_: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    unsupported!("`{}` of values that are known only at run time", node.proto.op_type)
}

/// `Identity`, and `Dropout` in inference.
pub(super) fn identity(_: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    if node.proto.op_type == "Dropout" && node.opset < 7 && !node.flag("is_test", false)? {
        unsupported!("training");
    }
    if let Some(training) = node.optional_constant(2, "the training mode")?
        && training.data != Data::Bool(Arc::new(vec![false]))
    {
        unsupported!("training");
    }
    let x = node.input(0)?;
    let mut outputs = vec![x.clone()];
    if node.has_output(1) {
        // The mask of a dropout that drops nothing.
        let n = x.shape().iter().product();
        outputs.push(Array::bools(x.shape().to_vec(), vec![true; n]).into());
    }
    Ok(outputs)
}

/// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`: a new reading of the same data; data that lie in another
/// order than their axes are brought into that order only where the new shape cannot be read off them.
pub(super) fn reshape(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let shape = shapes::reshaped(node, &view.shape)?;
    single(lo.reshaped(&view, &shape))
}

impl Lowering {
    /// The same elements in another external shape.
    pub(super) fn reshaped(&mut self, view: &View, shape: &[usize]) -> View {
        if let Some(view) = view.reshaped(shape) {
            return view;
        }
        let external = self.external(view);
        let value = self.em.reshape(external, shape);
        let identity: Vec<_> = (0..shape.len()).collect();
        View::plain(value, shape.to_vec(), &identity, view.dtype)
    }
}

/// `Transpose`: a relabelling.
pub(super) fn transpose(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    single(view.transposed(&shapes::transpose_perm(node, view.shape.len())?))
}

/// `Concat`, in the layout of the largest operand.
pub(super) fn concat(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let operands: Vec<Value> =
        node.all_inputs()?.into_iter().filter(|o| o.shape().iter().all(|&e| e > 0)).collect();
    let Some(first) = operands.first() else { unsupported!("only empty operands") };
    let rank = first.shape().len();
    let axis = resolve_axis(node.int("axis", 1)?, rank)?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    for operand in &operands {
        let other = operand.shape();
        let fits = other.len() == rank && (0..rank).all(|a| a == axis || other[a] == shape[a]);
        if !fits || operand.dtype() != first.dtype() {
            invalid!("{other:?} cannot be joined to {:?} along axis {axis}", first.shape());
        }
        shape[axis] += other[axis];
    }
    let dtype = first.dtype();
    elem_of(dtype)?;
    let largest = operands
        .iter()
        .filter_map(|o| if let Value::View(view) = o { Some(view) } else { None })
        .max_by_key(|v| v.shape.iter().product::<usize>());
    let perm = largest
        .and_then(|v| v.natural_perm(&lo.em))
        .unwrap_or_else(|| crate::import::layout::channels_last(rank));
    let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
    let values = padded_parts(lo, &operands, axis, place, &perm)?;
    let out = lo.em.concat(&values, place);
    single(View::plain(out, shape, &perm, dtype))
}

/// The operands of a concatenation in the order of `perm`. A constant of one repeated value, as TensorFlow
/// writes the padding of channels, becomes padding of the run-time operand beside it.
fn padded_parts(
    lo: &mut Lowering,
    operands: &[Value],
    axis: usize,
    place: usize,
    perm: &[usize],
) -> Lowered<Vec<ValueId>> {
    let is_view = |at: Option<usize>| at.is_some_and(|at| matches!(operands.get(at), Some(Value::View(_))));
    let mut values: Vec<ValueId> = Vec::new();
    // Padding that awaits the next operand.
    let mut before: Option<(usize, f32)> = None;
    for (index, operand) in operands.iter().enumerate() {
        match operand {
            Value::View(view) => {
                let mut x = lo.in_order(view, perm);
                if let Some((n, value)) = before.take() {
                    x = lo.em.pad_axis(x, place, (n, 0), value);
                }
                values.push(x);
            }
            Value::Const(array) => {
                let repeated = repeated_number(array);
                match (repeated, values.last_mut()) {
                    (Some(value), Some(last)) if is_view(index.checked_sub(1)) => {
                        *last = lo.em.pad_axis(*last, place, (0, array.shape[axis]), value);
                    }
                    (Some(value), _) if is_view(Some(index + 1)) => {
                        before = Some((array.shape[axis], value));
                    }
                    _ => values.push(lo.em.array(array.transposed(perm))?),
                }
            }
        }
    }
    Ok(values)
}

/// The number that all elements of a constant are, if `f32` holds it.
fn repeated_number(array: &Array) -> Option<f32> {
    match &array.data {
        Data::Float(v) => v.iter().all(|x| *x == v[0]).then(|| v[0]),
        Data::Int(v) => (v.iter().all(|x| *x == v[0]) && v[0].unsigned_abs() < 1 << 24).then(|| v[0] as f32),
        Data::Bool(_) => None,
    }
}

/// `Split`.
pub(super) fn split(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let (axis, sizes) = shapes::split_sizes(node, &view.shape)?;
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let mut ranges = shapes::whole_ranges(&view.shape);
        ranges[axis] = Range { start, step: 1, n: size };
        start += size;
        parts.push(lo.sliced(&view, &ranges)?);
    }
    Ok(parts)
}

/// `Slice`.
pub(super) fn slice(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let ranges = shapes::slice_ranges(node, &view.shape)?;
    single(lo.sliced(&view, &ranges)?)
}

impl Lowering {
    /// What `ranges` take of each axis: a slice, a reversal where a step is negative, and then every
    /// so-manieth index. Data stay as they lie if their axes are cut between whole runs; else they are
    /// brought into some order of the axes.
    pub(super) fn sliced(&mut self, view: &View, ranges: &[Range]) -> Lowered<Value> {
        let shape: Vec<_> = ranges.iter().map(|r| r.n).collect();
        if shape.contains(&0) {
            return Ok(Array::empty(shape, view.dtype)?.into());
        }
        if let Some(cut) = self.cut(view, ranges) {
            return Ok(cut.into());
        }
        let (x, perm) = self.in_natural_order(view);
        let (mut start, mut size) = (vec![0; perm.len()], vec![0; perm.len()]);
        for (place, &axis) in perm.iter().enumerate() {
            (start[place], size[place]) = ranges[axis].span();
        }
        let mut out = self.em.slice(x, &start, &size);
        for (place, &axis) in perm.iter().enumerate() {
            let range = ranges[axis];
            if range.step < 0 && range.n > 1 {
                out = self.em.reverse(out, place);
            }
            if range.n > 1 {
                out = self.em.every(out, place, range.step.unsigned_abs() as usize);
            }
        }
        Ok(View::plain(out, shape, &perm, view.dtype).into())
    }

    /// A slice of the value as it lies, if steps are 1 and each axis that is cut is the most significant part
    /// of an axis of the value.
    fn cut(&mut self, view: &View, ranges: &[Range]) -> Option<View> {
        let mut size = self.em.shape(view.value).to_vec();
        let mut start = vec![0; size.len()];
        let mut out = view.clone();
        for (axis, range) in ranges.iter().enumerate().filter(|&(axis, range)| range.n != view.shape[axis]) {
            let (place, inner) = view.slot(axis, &self.em).filter(|_| range.step == 1 || range.n == 1)?;
            (start[place], size[place]) = (range.start * inner, range.n * inner);
        }
        if ranges
            .iter()
            .enumerate()
            .any(|(axis, range)| range.n == view.shape[axis] && range.n > 1 && range.step < 0)
        {
            return None;
        }
        let value = self.em.slice(view.value, &start, &size);
        for (axis, range) in ranges.iter().enumerate().filter(|&(axis, range)| range.n != view.shape[axis]) {
            out = out.with_extent(axis, range.n, value);
        }
        out.value = value;
        Some(out)
    }

    /// The runs `(start, extent)` of indices of one axis, one after another.
    pub(super) fn joined_runs(&mut self, view: &View, axis: usize, runs: &[(usize, usize)]) -> View {
        let n = runs.iter().map(|run| run.1).sum();
        if let Some((place, inner)) = view.slot(axis, &self.em) {
            let cut = |&(start, n): &(usize, usize)| {
                self.em.slice_axis(view.value, place, start * inner, n * inner)
            };
            let parts: Vec<_> = runs.iter().map(cut).collect();
            let value = self.em.concat(&parts, place);
            return view.with_extent(axis, n, value);
        }
        let (x, perm) = self.in_natural_order(view);
        let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
        let parts: Vec<_> = runs.iter().map(|&(start, n)| self.em.slice_axis(x, place, start, n)).collect();
        let value = self.em.concat(&parts, place);
        let mut shape = view.shape.clone();
        shape[axis] = n;
        View::plain(value, shape, &perm, view.dtype)
    }
}

/// `Pad`. Negative amounts crop.
pub(super) fn pad(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let rank = view.shape.len();
    // The first operator set called them otherwise.
    let amounts: Vec<i64> = match node.ints(if node.opset < 2 { "paddings" } else { "pads" })? {
        Some(pads) => pads.to_vec(),
        None => node.constant(1, "the padding")?.as_ints()?.to_vec(),
    };
    let axes = match node.optional_constant(3, "the list of axes")? {
        Some(axes) => axes.as_ints()?.iter().map(|&a| resolve_axis(a, rank)).collect::<Lowered<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if amounts.len() != 2 * axes.len() || amounts.iter().any(|a| a.abs() > 1 << 20) {
        invalid!("padding {amounts:?} for {} axes", axes.len());
    }
    let value = match (node.optional_float("value")?, node.optional_constant(2, "the padding value")?) {
        (Some(value), _) => value,
        (None, None) => 0.0,
        (None, Some(array)) if array.dtype == DataType::Float => array.scalar()?,
        (None, Some(array)) => match array.as_ints()? {
            &[v] if v.abs() < 1 << 24 => v as f32,
            other => unsupported!("a padding value of {other:?}"),
        },
    };
    let (mut x, perm) = lo.in_natural_order(&view);
    let mut padding = vec![(0, 0); rank];
    let mut shape = view.shape.clone();
    for (index, &axis) in axes.iter().enumerate() {
        let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
        let (before, after) = (amounts[index], amounts[index + axes.len()]);
        let crop = |amount: i64| (-amount).max(0) as usize;
        let (front, back) = (crop(before), crop(after));
        if front + back >= shape[axis] {
            unsupported!("padding that crops a whole axis");
        }
        x = lo.em.slice_axis(x, place, front, shape[axis] - front - back);
        padding[place] = (before.max(0) as usize, after.max(0) as usize);
        shape[axis] = (shape[axis] as i64 + before + after) as usize;
    }
    let out = match node.string("mode", "constant")?.as_str() {
        "constant" => lo.em.pad(x, &padding, value),
        "reflect" => mirror(lo, x, &padding, true)?,
        "edge" => mirror(lo, x, &padding, false)?,
        "wrap" => wrapped(lo, x, &padding)?,
        other => unsupported!("mode `{other}`"),
    };
    single(View::plain(out, shape, &perm, view.dtype))
}

/// Padding by reflection, or by repeating the edge.
fn mirror(lo: &mut Lowering, mut x: ValueId, padding: &[(usize, usize)], reflect: bool) -> Lowered<ValueId> {
    for (axis, &(before, after)) in padding.iter().enumerate() {
        let extent = lo.em.shape(x)[axis];
        let mut parts = Vec::new();
        if reflect {
            // The indices go to and fro, however far: 2 1 [0 1 2] 1 0 1.
            let period = (2 * (extent - 1)).max(1) as i64;
            let folded = |at: i64| {
                let at = at.rem_euclid(period);
                at.min(period - at) as usize
            };
            parts.extend(indexed(lo, x, axis, &(-(before as i64)..0).map(folded).collect::<Vec<_>>()));
            parts.push(x);
            let behind = extent as i64..(extent + after) as i64;
            parts.extend(indexed(lo, x, axis, &behind.map(folded).collect::<Vec<_>>()));
        } else {
            let edge = |lo: &mut Lowering, at: usize, n: usize| {
                let part = lo.em.slice_axis(x, axis, at, 1);
                lo.em.copies(part, axis, n)
            };
            parts.extend((before > 0).then(|| edge(lo, 0, before)));
            parts.push(x);
            parts.extend((after > 0).then(|| edge(lo, extent - 1, after)));
        }
        x = lo.em.concat(&parts, axis);
    }
    Ok(x)
}

/// Pieces of `x` that make up the given indices of an axis, of which neighbours differ by at most one.
fn indexed(lo: &mut Lowering, x: ValueId, axis: usize, indices: &[usize]) -> Vec<ValueId> {
    let mut pieces = Vec::new();
    let mut rest = indices;
    while let Some(&first) = rest.first() {
        let rises = |n: &usize| rest[*n] == first + n;
        let falls = |n: &usize| first >= *n && rest[*n] == first - n;
        let n_up = (0..rest.len()).take_while(rises).count();
        let n_down = (0..rest.len()).take_while(falls).count();
        if n_up >= n_down {
            pieces.push(lo.em.slice_axis(x, axis, first, n_up));
        } else if n_down <= MAX_COPIES {
            // The machine turns nothing around, but it joins slices.
            pieces.extend((0..n_down).map(|at| lo.em.slice_axis(x, axis, first - at, 1)));
        } else {
            let part = lo.em.slice_axis(x, axis, first + 1 - n_down, n_down);
            pieces.push(lo.em.reverse(part, axis));
        }
        rest = &rest[n_up.max(n_down)..];
    }
    pieces
}

/// Padding by the other end of the axis, again and again.
fn wrapped(lo: &mut Lowering, mut x: ValueId, padding: &[(usize, usize)]) -> Lowered<ValueId> {
    for (axis, &(before, after)) in padding.iter().enumerate() {
        let extent = lo.em.shape(x)[axis] as i64;
        let around = |range: std::ops::Range<i64>| -> Vec<usize> {
            range.map(|at| at.rem_euclid(extent) as usize).collect()
        };
        let mut parts = indexed(lo, x, axis, &around(-(before as i64)..0));
        parts.push(x);
        parts.extend(indexed(lo, x, axis, &around(extent..extent + after as i64)));
        x = lo.em.concat(&parts, axis);
    }
    Ok(x)
}

/// `Expand`.
pub(super) fn expand(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let target = shapes::shape_operand(node, 1)?;
    let shape = broadcast_shape([&view.shape[..], &target[..]])?;
    let mut lead = vec![1; shape.len() - view.shape.len()];
    lead.extend(&view.shape);
    let view = lo.reshaped(&view, &lead);
    let multiples: Vec<_> = shape.iter().zip(&lead).map(|(want, have)| want / have).collect();
    tiled(lo, &view, &multiples)
}

/// `Tile`.
pub(super) fn tile(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let multiples = shapes::shape_operand(node, 1)?;
    if multiples.len() != view.shape.len() {
        invalid!("{} repeats for rank {}", multiples.len(), view.shape.len());
    }
    tiled(lo, &view, &multiples)
}

fn tiled(lo: &mut Lowering, view: &View, multiples: &[usize]) -> Lowered<Vec<Value>> {
    if multiples.contains(&0) {
        unsupported!("a result without elements");
    }
    let (mut x, perm) = lo.in_natural_order(view);
    let shape: Vec<_> = view.shape.iter().zip(multiples).map(|(e, m)| e * m).collect();
    let spreads = |axis: usize| multiples[axis] == 1 || axis >= 2 && view.shape[axis] == 1;
    if perm == [0, 2, 3, 1] && view.dtype == DataType::Float && (0..4).all(spreads) {
        // One pixel spread over an image: the nearest neighbour of all others.
        let spread = |axis: usize| ResizeAxis::spread(multiples[axis], view.shape[axis]);
        x = lo.em.resize(x, [spread(2), spread(3)], ResizeMode::NearestNeighbor);
        return single(View::plain(x, shape, &perm, view.dtype));
    }
    for (place, &axis) in perm.iter().enumerate() {
        x = lo.em.copies(x, place, multiples[axis]);
    }
    single(View::plain(x, shape, &perm, view.dtype))
}

/// `DepthToSpace`: a reshape, a transpose and a reshape of external axes.
pub(super) fn depth_to_space(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let (block, [n, c, h, w]) = block_and_shape(node, &view)?;
    if c % (block * block) != 0 {
        invalid!("{c} channels in blocks of {block}x{block}");
    }
    let c_out = c / (block * block);
    let (split, perm) = match node.string("mode", "DCR")?.as_str() {
        "DCR" => ([n, block, block, c_out, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, c_out, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        other => invalid!("mode `{other}`"),
    };
    let view = lo.reshaped(&view, &split).transposed(&perm);
    single(lo.reshaped(&view, &[n, c_out, h * block, w * block]))
}

/// `SpaceToDepth`.
pub(super) fn space_to_depth(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    let (block, [n, c, h, w]) = block_and_shape(node, &view)?;
    if h % block != 0 || w % block != 0 {
        invalid!("{h}x{w} in blocks of {block}x{block}");
    }
    let split = [n, c, h / block, block, w / block, block];
    // The order of the channels, which only operator set 28 has as an attribute.
    let perm = match node.string("mode", "DCR")?.as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => invalid!("mode `{other}`"),
    };
    let view = lo.reshaped(&view, &split).transposed(&perm);
    single(lo.reshaped(&view, &[n, c * block * block, h / block, w / block]))
}

fn block_and_shape(node: &Node<'_>, view: &View) -> Lowered<(usize, [usize; 4])> {
    let block = match usize::try_from(node.int("blocksize", 0)?) {
        Ok(block @ 1..=1024) => block,
        _ => invalid!("blocksize"),
    };
    match view.shape[..] {
        [n, c, h, w] => Ok((block, [n, c, h, w])),
        ref other => invalid!("a tensor of shape {other:?}"),
    }
}
