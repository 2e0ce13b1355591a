//! How tensors of any rank stand in the machine's `[rows, cols, chs]`.
//!
//! The last axis is channels; of four axes the third is columns; all others are rows, outermost first.
//! Row-major order is kept, so bytes in DRAM do not depend on the rank. An axis can be cut (sliced, padded,
//! concatenated) by the machine if no axis before it in the same machine axis has an extent above one.

use strata_ir::{ElemType, TensorType};
use strata_isa_spec::inst::{Axis, Elem};

use crate::model::BufferView;

/// Rows, columns and channels.
pub(super) type Dims = [u32; 3];

/// The machine axis of an axis of a tensor of rank `rank`.
pub(super) fn machine_axis(rank: usize, axis: usize) -> usize {
    match (rank, axis) {
        (_, axis) if axis + 1 == rank => 2,
        (4, 2) => 1,
        _ => 0,
    }
}

/// The machine axis by its number.
pub(super) fn axis_name(axis: usize) -> Axis {
    [Axis::H, Axis::W, Axis::C][axis]
}

/// The extents that `shape` collapses to; `None` if it is empty or too large for the machine.
pub(super) fn dims(shape: &[usize]) -> Option<Dims> {
    let mut dims = [1u32; 3];
    for (axis, &extent) in shape.iter().enumerate() {
        let at = machine_axis(shape.len(), axis);
        dims[at] = dims[at].checked_mul(u32::try_from(extent).ok()?)?;
    }
    let bytes = dims.iter().try_fold(8u32, |product, &extent| product.checked_mul(extent));
    (bytes? > 0).then_some(dims)
}

/// Product of the extents that share the machine axis of `axis`, before and after it.
fn around(shape: &[usize], axis: usize) -> (usize, usize) {
    let at = machine_axis(shape.len(), axis);
    let shares = |other: &usize| machine_axis(shape.len(), *other) == at;
    let product = |axes: std::ops::Range<usize>| axes.filter(shares).map(|other| shape[other]).product();
    (product(0..axis), product(axis + 1..shape.len()))
}

/// A cut of one axis of a tensor, `offset` and `extent` in its own units, as a machine axis with offset and
/// extent; `None` if the machine axis cannot be cut there.
pub(super) fn cut(shape: &[usize], axis: usize, offset: usize, extent: usize) -> Option<(usize, u32, u32)> {
    let (outer, inner) = around(shape, axis);
    let scaled = |n: usize| u32::try_from(n.checked_mul(inner)?).ok();
    if outer != 1 {
        return None;
    }
    Some((machine_axis(shape.len(), axis), scaled(offset)?, scaled(extent)?))
}

/// The machine axis that holds `axis` and nothing else above one.
pub(super) fn lone_axis(shape: &[usize], axis: usize) -> Option<usize> {
    (around(shape, axis) == (1, 1)).then(|| machine_axis(shape.len(), axis))
}

/// A part of a view: `offset` and `extent` along one machine axis.
pub(super) fn subview(view: BufferView, axis: usize, offset: u32, extent: u32) -> BufferView {
    match axis {
        0 => BufferView { row0: view.row0 + offset, rows: extent, ..view },
        1 => BufferView { col0: view.col0 + offset, cols: extent, ..view },
        _ => BufferView { ch0: view.ch0 + offset, chs: extent, ..view },
    }
}

/// The machine's element type for the IR's, if it has one.
pub(super) fn elem(ty: &TensorType) -> Option<Elem> {
    match ty.elem {
        ElemType::I8 => Some(Elem::I8),
        ElemType::I16 => Some(Elem::I16),
        ElemType::I32 => Some(Elem::I32),
        ElemType::I1 | ElemType::I48 | ElemType::I64 | ElemType::Index | ElemType::F32 => None,
    }
}

/// Whether `from` stretches to `to` where its extents are one.
pub(super) fn broadcasts(from: Dims, to: Dims) -> bool {
    from.iter().zip(to).all(|(&from, to)| from == to || from == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_collapse_row_major() {
        assert_eq!(dims(&[1, 4, 5, 6]), Some([4, 5, 6]));
        assert_eq!(dims(&[2, 4, 5, 6]), Some([8, 5, 6]));
        assert_eq!(dims(&[2, 3, 4]), Some([6, 1, 4]));
        assert_eq!(dims(&[3, 4]), Some([3, 1, 4]));
        assert_eq!(dims(&[7]), Some([1, 1, 7]));
        assert_eq!(dims(&[]), Some([1, 1, 1]));
        assert_eq!(dims(&[2, 3, 4, 5, 6]), Some([120, 1, 6]));
        assert_eq!(dims(&[1, 0, 4, 4]), None);
    }

    #[test]
    fn cuts_need_the_outermost_axis() {
        assert_eq!(cut(&[1, 4, 5, 6], 1, 1, 2), Some((0, 1, 2)));
        assert_eq!(cut(&[2, 4, 5, 6], 0, 1, 1), Some((0, 4, 4)));
        assert_eq!(cut(&[2, 4, 5, 6], 1, 1, 1), None);
        assert_eq!(cut(&[1, 4, 6], 1, 2, 2), Some((0, 2, 2)));
        assert_eq!(lone_axis(&[1, 4, 6], 1), Some(0));
        assert_eq!(lone_axis(&[2, 4, 6], 1), None);
        assert_eq!(lone_axis(&[2, 4, 6], 2), Some(2));
    }
}
