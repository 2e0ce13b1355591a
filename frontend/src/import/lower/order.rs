//! Operators that order the elements of an axis: the place of its greatest or least, its first few.

use strata_ir::{ElemType, ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::Lowering;
use super::reduce::finish;
use crate::import::array::{Array, elem_of};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

/// Extents up to which elements are ranked by comparing each with each.
const MAX_RANKED: usize = 512;

impl Lowering {
    /// An operand whose elements are compared by ARGMAX, as floats: integers of up to 16 bits become floats
    /// exactly.
    fn comparable(&mut self, value: &Value) -> Lowered<View> {
        let view = self.view(value)?;
        match view.dtype {
            DataType::Float => Ok(view),
            DataType::Int8 | DataType::Uint8 | DataType::Int16 | DataType::Uint16 => {
                let float = self.em.cast(view.value, ElemType::F32);
                Ok(view.with_value(float, view.dtype))
            }
            other => unsupported!("on {other:?}"),
        }
    }

    /// The place of the greatest element of an axis, counted from the end where `last` of equals is wanted.
    fn place_of_greatest(&mut self, x: ValueId, axis: usize, last: bool) -> ValueId {
        if !last {
            return self.em.argmax(x, axis);
        }
        let reversed = self.em.reverse(x, axis);
        let from_end = self.em.argmax(reversed, axis);
        let end = self.em.int_like(from_end, self.em.shape(x)[axis] as i64 - 1);
        self.em.sub(end, from_end)
    }
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg_extreme(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.comparable(node.input(0)?)?;
    let axis = resolve_axis(node.int("axis", 0)?, view.shape.len())?;
    let (mut x, perm) = lo.in_natural_order(&view);
    let place = perm.iter().position(|&a| a == axis).unwrap_or_default();
    if node.proto.op_type == "ArgMin" {
        x = lo.em.negate(x);
    }
    let out = lo.place_of_greatest(x, place, node.flag("select_last_index", false)?);
    let mut shape = view.shape.clone();
    shape[axis] = 1;
    finish(View::plain(out, shape, &perm, DataType::Int64), &[axis], node.flag("keepdims", true)?)
}

/// The numbers from 0 on, in a shape with one axis of more than one element.
fn counts(lo: &mut Lowering, shape: Vec<usize>) -> Lowered<ValueId> {
    let n = shape.iter().product::<usize>() as i64;
    Ok(lo.em.constant(Array::ints(shape, (0..n).collect(), DataType::Int32).into_tensor()?))
}

/// `TopK`: an element's rank is how many others go before it; the first is found without comparing all with
/// all.
pub(super) fn top_k(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let view = lo.view(node.input(0)?)?;
    if elem_of(view.dtype)? == ElemType::I1 {
        invalid!("on {:?}", view.dtype);
    }
    let rank = view.shape.len();
    let axis = resolve_axis(node.int("axis", -1)?, rank)?;
    let n = view.shape[axis];
    let k = if node.opset < 10 {
        node.int("k", 0)?
    } else {
        match node.constant(1, "the number of elements")?.as_ints()? {
            &[k] => k,
            other => invalid!("{} numbers of elements", other.len()),
        }
    };
    let k = match usize::try_from(k) {
        Ok(k) if (1..=n).contains(&k) => k,
        _ => unsupported!("{k} of {n} elements"),
    };
    let largest = node.flag("largest", true)?;
    let mut perm: Vec<_> = (0..rank).filter(|&a| a != axis).collect();
    perm.push(axis);
    let n_rows = view.shape.iter().product::<usize>() / n;
    let x = lo.in_order_as(&view, &perm, &[n_rows, n, 1]);
    let (values, places) = if k == 1 && view.dtype == DataType::Float {
        let signed = if largest { x } else { lo.em.negate(x) };
        let at = lo.em.argmax(signed, 1);
        let at = lo.em.reshape(at, &[n_rows, 1, 1]);
        (if largest { lo.em.reduce_max(x, 1) } else { lo.em.reduce_min(x, 1) }, at)
    } else if n <= MAX_RANKED {
        first_ranks(lo, x, k, largest)?
    } else {
        unsupported!("{k} of {n} elements, more than {MAX_RANKED}")
    };
    let mut shape = view.shape.clone();
    shape[axis] = k;
    let permuted: Vec<_> = perm.iter().map(|&a| shape[a]).collect();
    let output = |lo: &mut Lowering, value, dtype| {
        let value = lo.em.reshape(value, &permuted);
        View::plain(value, shape.clone(), &perm, dtype).into()
    };
    Ok(vec![output(lo, values, view.dtype), output(lo, places, DataType::Int64)])
}

/// The first `k` of each row of `[rows, n, 1]`, greatest or least first, and their places; of equals the
/// first comes first.
fn first_ranks(lo: &mut Lowering, x: ValueId, k: usize, largest: bool) -> Lowered<(ValueId, ValueId)> {
    let &[n_rows, n, _] = lo.em.shape(x) else { invalid!("shape") };
    let across = lo.em.reshape(x, &[n_rows, 1, n]);
    let (winner, loser) = if largest { (across, x) } else { (x, across) };
    let better = lo.em.compare(dialect::Greater {}, winner, loser);
    let equal = lo.em.compare(dialect::Equal {}, across, x);
    let earlier = (0..n * n).map(|at| at % n < at / n).collect();
    let earlier = lo.em.constant(Array::bools([1, n, n], earlier).into_tensor()?);
    let tied = lo.em.compare(dialect::LogicalAnd {}, equal, earlier);
    let before = lo.em.compare(dialect::LogicalOr {}, better, tied);
    let before = lo.em.cast(before, ElemType::I32);
    let ranks = lo.em.reduce_sum(before, 2);
    let wanted = counts(lo, vec![1, 1, k])?;
    let hit = lo.em.compare(dialect::Equal {}, ranks, wanted);
    let along = counts(lo, vec![1, n, 1])?;
    let nothing = lo.em.int_like(along, 0);
    let kept = lo.em.select(hit, along, nothing);
    let places = lo.em.reduce_sum(kept, 1);
    // Row by row, the elements at those places.
    let places_flat = lo.em.reshape(places, &[n_rows, k]);
    let values = lo.em.gather(x, places_flat);
    let values = lo.em.reshape(values, &[n_rows, 1, k]);
    Ok((values, places))
}
