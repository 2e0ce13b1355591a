//! Operators that pick elements by their indices: gathers, scatters, one-hot, masks by position.
//!
//! Indices that are constant become slices and concatenations where they fall into few runs, which the
//! machine takes as views; other indices become TOSA's GATHER over rows of the flattened data.

use strata_ir::{ElemType, ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::elementwise::truncated;
use super::integer::{self, width};
use super::{Lowering, single};
use crate::import::array::{Array, Data, elem_of, offsets, strides};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::fold::resolve_indices;
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

/// Runs of indices up to which data are cut and joined rather than gathered.
const MAX_RUNS: usize = 64;
/// How often one element may be written by a reducing scatter.
const MAX_WRITES: usize = 16;

/// Maximal runs `(start, extent)` of consecutive indices.
fn runs_of(indices: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some((start, n)) if *start + *n == index => *n += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

/// A list of row numbers, `[1, n]`.
fn rows_constant(lo: &mut Lowering, rows: &[usize]) -> Lowered<ValueId> {
    let data = rows.iter().map(|&r| r as i64).collect();
    Ok(lo.em.constant(Array::ints([1, rows.len()], data, DataType::Int32).into_tensor()?))
}

impl Lowering {
    /// Run-time indices of an axis of `extent`, those that count from the end turned to count from the front.
    fn counted_from_front(&mut self, indices: ValueId, extent: usize) -> ValueId {
        let zero = self.em.scalar_like(indices, 0.0);
        let end = self.em.int_like(indices, extent as i64);
        let from_end = self.em.add(indices, end);
        let negative = self.em.compare(dialect::Greater {}, zero, indices);
        self.em.select(negative, from_end, indices)
    }

    /// Rows of `table`, `[1, K, C]`, by their numbers, `[1, W]`.
    fn rows(&mut self, table: ValueId, numbers: ValueId) -> ValueId {
        if self.em.elem(table) != ElemType::I1 {
            return self.em.gather(table, numbers);
        }
        let wide = self.em.cast(table, ElemType::I32);
        let picked = self.em.gather(wide, numbers);
        self.em.cast(picked, ElemType::I1)
    }

    /// The elements of a tensor, in ONNX's order, as rows of `width`.
    fn as_table(&mut self, value: &Value, width: usize) -> Lowered<ValueId> {
        let view = self.view(value)?;
        let identity: Vec<_> = (0..view.shape.len()).collect();
        let n = view.shape.iter().product::<usize>();
        Ok(self.in_order_as(&view, &identity, &[1, n / width, width]))
    }
}

/// A tensor in ONNX's own order.
fn external(value: ValueId, shape: Vec<usize>, dtype: DataType) -> View {
    let identity: Vec<_> = (0..shape.len()).collect();
    View::plain(value, shape, &identity, dtype)
}

fn want_integers(indices: &Value) -> Lowered<()> {
    match indices.dtype() {
        DataType::Int32 | DataType::Int64 => Ok(()),
        other => invalid!("indices of type {other:?}"),
    }
}

/// `Gather`.
pub(super) fn gather(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (data, indices) = (node.input(0)?, node.input(1)?);
    want_integers(indices)?;
    let rank = data.shape().len();
    let axis = resolve_axis(node.int("axis", 0)?, rank)?;
    let extent = data.shape()[axis];
    let shape = [&data.shape()[..axis], indices.shape(), &data.shape()[axis + 1..]].concat();
    if shape.contains(&0) {
        return single(Array::empty(shape, data.dtype())?);
    }
    let numbers = match indices {
        Value::Const(indices) => {
            let wanted = resolve_indices(indices, extent)?;
            let runs = runs_of(&wanted);
            if runs.len() <= MAX_RUNS {
                let view = lo.view(data)?;
                let view = lo.joined_runs(&view, axis, &runs);
                return single(lo.reshaped(&view, &shape));
            }
            rows_constant(lo, &wanted)?
        }
        Value::View(indices) => {
            let n: usize = indices.shape.iter().product();
            let identity: Vec<_> = (0..indices.shape.len()).collect();
            let flat = lo.in_order_as(indices, &identity, &[1, n]);
            lo.counted_from_front(flat, extent)
        }
    };
    // The axis becomes the rows of a table.
    let view = lo.view(data)?;
    let mut perm = vec![axis];
    perm.extend((0..rank).filter(|&a| a != axis));
    let width = view.shape.iter().product::<usize>() / extent;
    let table = lo.in_order_as(&view, &perm, &[1, extent, width]);
    let picked = lo.rows(table, numbers);
    let mut gathered = indices.shape().to_vec();
    gathered.extend(perm[1..].iter().map(|&a| view.shape[a]));
    let value = lo.em.reshape(picked, &gathered);
    let n_new = indices.shape().len();
    let order: Vec<_> = (n_new..n_new + axis).chain(0..n_new).chain(n_new + axis..gathered.len()).collect();
    single(external(value, gathered, view.dtype).transposed(&order))
}

/// `GatherElements`: a look-up in the flattened data.
pub(super) fn gather_elements(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (data, indices) = (node.input(0)?, node.input(1)?);
    want_integers(indices)?;
    let shape = indices.shape().to_vec();
    let (axis, base, step) = element_places(node, data.shape(), &shape)?;
    if shape.contains(&0) {
        return single(Array::empty(shape, data.dtype())?);
    }
    let numbers = match indices {
        Value::Const(indices) => {
            let along = resolve_indices(indices, data.shape()[axis])?;
            rows_constant(lo, &base.iter().zip(along).map(|(b, i)| b + i * step).collect::<Vec<_>>())?
        }
        Value::View(view) => {
            let identity: Vec<_> = (0..shape.len()).collect();
            let flat = lo.in_order_as(view, &identity, &[1, base.len()]);
            let along = lo.counted_from_front(flat, data.shape()[axis]);
            let step = lo.em.int_like(along, step as i64);
            let offset = lo.em.mul(along, step);
            let base = rows_constant(lo, &base)?;
            lo.em.add(offset, base)
        }
    };
    let table = lo.as_table(data, 1)?;
    let picked = lo.rows(table, numbers);
    let value = lo.em.reshape(picked, &shape);
    single(external(value, shape, data.dtype()))
}

/// For operators that address single elements of `data` along one axis: the axis, the flat place of each
/// element of the indices but for that axis, and the step of that axis.
fn element_places(node: &Node<'_>, data: &[usize], indices: &[usize]) -> Lowered<(usize, Vec<usize>, usize)> {
    let axis = resolve_axis(node.int("axis", 0)?, data.len())?;
    let fits = indices.len() == data.len() && (0..data.len()).all(|a| a == axis || indices[a] <= data[a]);
    if !fits {
        invalid!("indices of shape {indices:?} into {data:?} along axis {axis}");
    }
    let mut steps = strides(data);
    let step = std::mem::replace(&mut steps[axis], 0);
    Ok((axis, offsets(indices, &steps), step))
}

/// `GatherND`: rows of the flattened data.
pub(super) fn gather_nd(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (data, indices) = (node.input(0)?, node.input(1)?);
    want_integers(indices)?;
    let n_batch = usize::try_from(node.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let rows = NdRows::new(data.shape(), indices.shape(), n_batch)?;
    let shape =
        [&indices.shape()[..indices.shape().len() - 1], &data.shape()[n_batch + rows.depth..]].concat();
    if shape.contains(&0) {
        return single(Array::empty(shape, data.dtype())?);
    }
    let numbers = match indices {
        Value::Const(indices) => rows_constant(lo, &rows.constant(indices)?)?,
        Value::View(view) => {
            let identity: Vec<_> = (0..view.shape.len()).collect();
            let tuples = lo.in_order_as(view, &identity, &[rows.base.len(), rows.depth]);
            let base = rows.base.iter().map(|&b| b as i64).collect();
            let base = Array::ints([rows.base.len(), 1], base, DataType::Int32).into_tensor()?;
            let mut sum = lo.em.constant(base);
            for (k, (&extent, &step)) in rows.extents.iter().zip(&rows.steps).enumerate() {
                let along = lo.em.slice_axis(tuples, 1, k, 1);
                let along = lo.counted_from_front(along, extent);
                let step = lo.em.int_like(along, step as i64);
                let offset = lo.em.mul(along, step);
                sum = lo.em.add(sum, offset);
            }
            lo.em.reshape(sum, &[1, rows.base.len()])
        }
    };
    let table = lo.as_table(data, rows.width)?;
    let picked = lo.rows(table, numbers);
    let value = lo.em.reshape(picked, &shape);
    single(external(value, shape, data.dtype()))
}

/// How tuples of indices address rows of flattened data.
struct NdRows {
    /// Indices a tuple.
    depth: usize,
    /// Extents of the axes that a tuple indexes, and how many rows a step along each is.
    extents: Vec<usize>,
    steps: Vec<usize>,
    /// For each tuple, the row where its batch begins.
    base: Vec<usize>,
    /// Elements of a row.
    width: usize,
}

impl NdRows {
    fn new(data: &[usize], indices: &[usize], n_batch: usize) -> Lowered<Self> {
        let Some((&depth, lead)) = indices.split_last() else { invalid!("the indices are a scalar") };
        let fits = depth > 0
            && n_batch <= lead.len()
            && n_batch.checked_add(depth).is_some_and(|n| n <= data.len())
            && lead[..n_batch] == data[..n_batch];
        if !fits {
            invalid!("indices of shape {indices:?} into {data:?} with {n_batch} axes of batches");
        }
        let rows = &data[..n_batch + depth];
        let steps = strides(rows);
        let mut lead_steps = vec![0; lead.len()];
        lead_steps[..n_batch].copy_from_slice(&steps[..n_batch]);
        Ok(Self {
            depth,
            extents: rows[n_batch..].to_vec(),
            steps: steps[n_batch..].to_vec(),
            base: offsets(lead, &lead_steps),
            width: data[n_batch + depth..].iter().product(),
        })
    }

    /// The rows that constant tuples address.
    fn constant(&self, indices: &Array) -> Lowered<Vec<usize>> {
        let row = |(tuple, &base): (&[i64], &usize)| -> Lowered<usize> {
            let mut row = base;
            for (k, &index) in tuple.iter().enumerate() {
                let extent = self.extents[k] as i64;
                let from_front = if index < 0 { index + extent } else { index };
                if !(0..extent).contains(&from_front) {
                    invalid!("index {index} of an axis of extent {extent}");
                }
                row += from_front as usize * self.steps[k];
            }
            Ok(row)
        };
        indices.as_ints()?.chunks(self.depth).zip(&self.base).map(row).collect()
    }
}

/// `ScatterElements` and its older name `Scatter`, at constant indices.
pub(super) fn scatter_elements(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (data, updates) = (node.input(0)?, node.input(2)?);
    let indices = node.constant(1, "the list of indices")?;
    if updates.shape() != indices.shape {
        invalid!("{:?} updates at {:?} indices", updates.shape(), indices.shape);
    }
    let (axis, base, step) = element_places(node, data.shape(), &indices.shape)?;
    let along = resolve_indices(indices, data.shape()[axis])?;
    let targets: Vec<_> = base.iter().zip(along).map(|(b, i)| b + i * step).collect();
    scattered(lo, node, data, updates, &targets, 1)
}

/// `ScatterND`, at constant indices.
pub(super) fn scatter_nd(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (data, updates) = (node.input(0)?, node.input(2)?);
    let indices = node.constant(1, "the list of indices")?;
    let rows = NdRows::new(data.shape(), &indices.shape, 0)?;
    let lead = &indices.shape[..indices.shape.len() - 1];
    let shape = [lead, &data.shape()[rows.depth..]].concat();
    if updates.shape() != shape {
        invalid!("updates of shape {:?}, not {shape:?}", updates.shape());
    }
    scattered(lo, node, data, updates, &rows.constant(indices)?, rows.width)
}

/// `data` with rows of `width` elements replaced by, or combined with, those of `updates`.
fn scattered(
    lo: &mut Lowering,
    node: &Node<'_>,
    data: &Value,
    updates: &Value,
    targets: &[usize],
    width: usize,
) -> Lowered<Vec<Value>> {
    let (shape, dtype) = (data.shape().to_vec(), data.dtype());
    elem_of(dtype)?;
    if updates.dtype() != dtype {
        invalid!("updates of type {:?} of data of type {dtype:?}", updates.dtype());
    }
    if targets.is_empty() || shape.contains(&0) {
        return single(data.clone());
    }
    let n_rows = shape.iter().product::<usize>() / width;
    let table = lo.as_table(data, width)?;
    let new = lo.as_table(updates, width)?;
    let reduction = node.string("reduction", "none")?;
    let out = if reduction == "none" {
        // For each row of the result, its row in the data with the updates after them.
        let mut sources: Vec<_> = (0..n_rows).collect();
        for (update, &target) in targets.iter().enumerate() {
            sources[target] = n_rows + update;
        }
        pick(lo, [table, new], &sources)?
    } else {
        if !matches!(dtype, DataType::Float) {
            unsupported!("reduction `{reduction}` of {dtype:?}");
        }
        // Each round combines at most one update with each row.
        let mut n_written = vec![0; n_rows];
        let mut rounds: Vec<Vec<(usize, usize)>> = Vec::new();
        for (update, &target) in targets.iter().enumerate() {
            let round = n_written[target];
            n_written[target] += 1;
            if round == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[round].push((target, update));
        }
        if rounds.len() > MAX_WRITES {
            unsupported!("{} updates of one element", rounds.len());
        }
        let mut sofar = table;
        for round in rounds {
            let mut sources = (0..n_rows).collect::<Vec<_>>();
            let mut written = vec![false; n_rows];
            for (target, update) in round {
                (sources[target], written[target]) = (n_rows + update, true);
            }
            let operand = pick(lo, [sofar, new], &sources)?;
            let combined = match reduction.as_str() {
                "add" => lo.em.add(sofar, operand),
                "mul" => lo.em.mul(sofar, operand),
                "max" => lo.em.maximum(sofar, operand),
                "min" => lo.em.minimum(sofar, operand),
                other => invalid!("reduction `{other}`"),
            };
            let mask = lo.em.constant(Array::bools([1, n_rows, 1], written).into_tensor()?);
            sofar = lo.em.select(mask, combined, sofar);
        }
        sofar
    };
    let value = lo.em.reshape(out, &shape);
    single(external(value, shape, dtype))
}

/// Rows of two tables, one after the other, by number: slices of each where there are few runs.
fn pick(lo: &mut Lowering, tables: [ValueId; 2], sources: &[usize]) -> Lowered<ValueId> {
    let n_first = lo.em.shape(tables[0])[1];
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (start, n) in runs_of(sources) {
        // No run goes from one table on into the other.
        let in_first = n_first.saturating_sub(start).min(n);
        runs.extend([(start, in_first), (start + in_first, n - in_first)].iter().filter(|run| run.1 > 0));
    }
    if runs.len() <= MAX_RUNS {
        let part = |lo: &mut Lowering, (start, n): (usize, usize)| match start.checked_sub(n_first) {
            Some(start) => lo.em.slice_axis(tables[1], 1, start, n),
            None => lo.em.slice_axis(tables[0], 1, start, n),
        };
        let parts: Vec<_> = runs.into_iter().map(|run| part(lo, run)).collect();
        return Ok(lo.em.concat(&parts, 1));
    }
    let both = lo.em.concat(&tables, 1);
    let numbers = rows_constant(lo, sources)?;
    Ok(lo.rows(both, numbers))
}

/// `OneHot`: indices beyond the depth give no one.
pub(super) fn one_hot(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (indices, values) = (node.input(0)?, node.input(2)?);
    let mut indices = lo.view(indices)?;
    match lo.em.elem(indices.value) {
        ElemType::F32 => {
            let whole = truncated(&mut lo.em, indices.value);
            indices = indices.with_value(whole, DataType::Int64);
        }
        ElemType::I32 => {}
        _ => invalid!("indices of type {:?}", indices.dtype),
    }
    let depth = node.constant(1, "the depth")?;
    let depth = match &depth.data {
        Data::Int(v) if v.len() == 1 => v[0],
        Data::Float(v) if v.len() == 1 => v[0] as i64,
        _ => invalid!("the depth is no number"),
    };
    let Ok(depth @ 1..=0x10_0000) = usize::try_from(depth) else { invalid!("a depth of {depth}") };
    if values.shape() != [2] {
        invalid!("the values are of shape {:?}", values.shape());
    }
    let rank = indices.shape.len() + 1;
    let axis = resolve_axis(node.int("axis", -1)?, rank)?;
    let mut spread = indices.shape.clone();
    spread.insert(axis, 1);
    let identity: Vec<_> = (0..rank - 1).collect();
    let x = lo.in_order_as(&indices, &identity, &spread);
    let x = lo.counted_from_front(x, depth);
    let mut along = vec![1; rank];
    along[axis] = depth;
    let counts = Array::ints(along, (0..depth as i64).collect(), DataType::Int32).into_tensor()?;
    let counts = lo.em.constant(counts);
    let hit = lo.em.compare(dialect::Equal {}, x, counts);
    let pair = lo.view(values)?;
    let pair = lo.external(&pair);
    let [off, on] = [0, 1].map(|at| {
        let value = lo.em.slice_axis(pair, 0, at, 1);
        lo.em.reshape(value, &vec![1; rank])
    });
    let out = lo.em.select(hit, on, off);
    spread[axis] = depth;
    single(external(out, spread, values.dtype()))
}

/// `Trilu`: zeros on one side of a diagonal.
pub(super) fn trilu(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let &[.., h, w] = x.shape() else { invalid!("a tensor of shape {:?}", x.shape()) };
    let k = match node.optional_constant(1, "the diagonal")? {
        None => 0,
        Some(k) => match k.as_ints()? {
            &[k] => k.clamp(-(1 << 40), 1 << 40),
            other => invalid!("{} diagonals", other.len()),
        },
    };
    if x.shape().contains(&0) {
        return single(x.clone());
    }
    let upper = node.flag("upper", true)?;
    let kept = |row: usize, column: usize| {
        let above = column as i64 - row as i64;
        if upper { above >= k } else { above <= k }
    };
    let mask = (0..h).flat_map(|row| (0..w).map(move |column| kept(row, column))).collect();
    let zero = match elem_of(x.dtype())? {
        ElemType::F32 => Array { dtype: x.dtype(), ..Array::floats([], vec![0.0]) },
        ElemType::I1 => Array::bools([], vec![false]),
        _ => Array::ints([], vec![0], x.dtype()),
    };
    let aligned = lo.align(&[Array::bools([h, w], mask).into(), x.clone(), zero.into()])?;
    let [mask, value, zero] = aligned.values[..] else { unreachable!("three operands were aligned") };
    let out = lo.em.select(mask, value, zero);
    single(aligned.result(out, x.dtype()))
}

/// `EyeLike`: known from the shape.
pub(super) fn eye_like(_: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = node.input(0)?;
    let &[h, w] = x.shape() else { invalid!("a tensor of shape {:?}", x.shape()) };
    let dtype = match node.int("dtype", 0)? {
        0 => x.dtype(),
        code => match i32::try_from(code).map(DataType::try_from) {
            Ok(Ok(dtype)) => dtype,
            _ => invalid!("element type {code}"),
        },
    };
    let k = node.int("k", 0)?;
    let one = |at: usize| ((at % w) as i64 - (at / w) as i64) == k;
    let ones = (0..h * w).map(one);
    single(match elem_of(dtype)? {
        ElemType::F32 => {
            Array { dtype, ..Array::floats([h, w], ones.map(|b| f32::from(u8::from(b))).collect()) }
        }
        ElemType::I1 => Array::bools([h, w], ones.collect()),
        _ => Array::ints([h, w], ones.map(i64::from).collect(), dtype),
    })
}

/// `CumSum`: a product with a triangle of ones.
pub(super) fn cumulative_sum(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let x = lo.view(node.input(0)?)?;
    let rank = x.shape.len();
    let axis = match node.constant(1, "the axis")?.as_ints()? {
        &[axis] => resolve_axis(axis, rank)?,
        other => invalid!("{} axes", other.len()),
    };
    let (exclusive, reverse) = (node.flag("exclusive", false)?, node.flag("reverse", false)?);
    let n = x.shape[axis];
    if let Some(width) = width(x.dtype).filter(|_| n <= MAX_RUNS) {
        return single(integer_sums(lo, &x, axis, width, exclusive, reverse)?);
    }
    if x.dtype != DataType::Float || n > 1 << 12 {
        unsupported!("on {:?} along an axis of {n}", x.dtype);
    }
    let counts = |from: usize, to: usize| {
        let (from, to) = if reverse { (to, from) } else { (from, to) };
        from < to || from == to && !exclusive
    };
    let weights = (0..n * n).map(|at| f32::from(u8::from(counts(at / n, at % n)))).collect();
    let mut perm: Vec<_> = (0..rank).filter(|&a| a != axis).collect();
    perm.push(axis);
    let inverse: Vec<_> = (0..rank).map(|a| perm.iter().position(|&p| p == a).unwrap_or_default()).collect();
    let product = lo.linear(&x.transposed(&perm), &Array::floats([n, n], weights), vec![0.0; n])?;
    single(lo.view(&product)?.transposed(&inverse))
}

/// Cumulative sums of integers, index after index.
fn integer_sums(
    lo: &mut Lowering,
    view: &View,
    axis: usize,
    width: integer::Width,
    exclusive: bool,
    reverse: bool,
) -> Lowered<View> {
    let (x, perm) = lo.in_natural_order(view);
    let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
    let mut order: Vec<_> = (0..view.shape[axis]).collect();
    if reverse {
        order.reverse();
    }
    let mut parts = vec![x; order.len()];
    let mut sum: Option<ValueId> = None;
    for at in order {
        let next = lo.em.slice_axis(x, place, at, 1);
        let before = match sum {
            Some(sum) => sum,
            None => lo.em.sub(next, next),
        };
        let after = integer::arithmetic(&mut lo.em, "Add", [before, next], width)?;
        parts[at] = if exclusive { before } else { after };
        sum = Some(after);
    }
    let out = lo.em.concat(&parts, place);
    Ok(View::plain(out, view.shape.clone(), &perm, view.dtype))
}
