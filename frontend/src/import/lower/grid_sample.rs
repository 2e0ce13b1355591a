//! `GridSample`: a picture, or a volume, read at places that a grid gives.
//!
//! Each output is a weighted sum of the elements around its place, its taps: one an axis for `nearest`, two
//! for `linear`, four for `cubic`. A tap is a gather of whole rows of channels. What stands outside depends
//! on the padding: taps are masked (`zeros`), moved to the border (`border`), or the place and then its taps
//! are reflected (`reflection`). With `border` the place itself is not moved, as PyTorch and onnxruntime have
//! it.

use strata_ir::{ElemType, ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::elementwise::round_half_even;
use super::{Lowering, single};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View, channels_last};

/// The steepness of cubic interpolation.
const CUBIC: f32 = -0.75;

/// Elements of a channel up to which floats count them exactly.
const MAX_ELEMENTS: usize = 1 << 24;

/// How elements around a place are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What stands outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// An element that a place reads along one axis.
#[derive(Clone, Copy)]
struct Tap {
    /// Its index as a whole float.
    index: ValueId,
    /// Its weight; `None` is 1.
    weight: Option<ValueId>,
}

/// An axis that is read.
#[derive(Clone, Copy)]
struct Axis {
    extent: usize,
    align_corners: bool,
    padding: Padding,
}

/// `GridSample`.
pub(super) fn grid_sample(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let mode = match node.string("mode", if node.opset < 20 { "bilinear" } else { "linear" })?.as_str() {
        "nearest" => Mode::Nearest,
        "bilinear" | "linear" => Mode::Linear,
        "bicubic" | "cubic" => Mode::Cubic,
        other => invalid!("mode `{other}`"),
    };
    let padding = match node.string("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => invalid!("padding mode `{other}`"),
    };
    let align_corners = node.flag("align_corners", false)?;
    let (x, grid) = (lo.view(node.input(0)?)?, lo.view(node.input(1)?)?);
    if let Some(other) = [&x, &grid].into_iter().find(|view| view.dtype != DataType::Float) {
        unsupported!("on {:?}", other.dtype);
    }
    let rank = x.shape.len();
    let n_axes = rank.saturating_sub(2);
    if !(4..=5).contains(&rank) || mode == Mode::Cubic && rank != 4 {
        unsupported!("{mode:?} interpolation on rank {rank}");
    }
    if grid.shape.len() != rank || grid.shape[0] != x.shape[0] || grid.shape[rank - 1] != n_axes {
        invalid!("a grid of shape {:?} for {:?}", grid.shape, x.shape);
    }
    let n_places: usize = grid.shape[1..rank - 1].iter().product();
    let (n, c) = (x.shape[0], x.shape[1]);
    let n_elements: usize = x.shape[2..].iter().product();
    if n_elements > MAX_ELEMENTS {
        unsupported!("{n_elements} elements a channel; up to {MAX_ELEMENTS} are addressed");
    }
    let table = lo.in_order_as(&x, &channels_last(rank), &[n, n_elements, c]);
    let identity: Vec<usize> = (0..rank).collect();
    let places = lo.in_order_as(&grid, &identity, &[n, n_places, n_axes]);
    let em = &mut lo.em;
    let mut taps = Vec::new();
    for (place, &extent) in x.shape[2..].iter().enumerate() {
        // The grid counts axes from the last.
        let coordinate = em.slice_axis(places, 2, n_axes - 1 - place, 1);
        let coordinate = em.reshape(coordinate, &[n, n_places]);
        taps.push(Axis { extent, align_corners, padding }.taps(em, coordinate, mode));
    }
    let value = weighted_sum(em, table, &taps, &x.shape[2..]);
    let mut shape = vec![n, c];
    shape.extend(&grid.shape[1..rank - 1]);
    let order = channels_last(rank);
    let extents: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
    let value = em.reshape(value, &extents);
    single(View::plain(value, shape, &order, DataType::Float))
}

impl Axis {
    /// The least and the greatest place that is not reflected.
    fn ends(self) -> [f32; 2] {
        let last = self.extent as f32 - 1.0;
        if self.align_corners { [0.0, last] } else { [-0.5, last + 0.5] }
    }

    /// The place of each element of a grid, from -1 and 1 at the ends to elements.
    fn place(self, em: &mut Emitter, grid: ValueId) -> ValueId {
        let extent = self.extent as f32;
        let from_zero = em.shift(grid, 1.0);
        if self.align_corners {
            let half = em.scale(from_zero, 0.5);
            return em.scale(half, extent - 1.0);
        }
        let scaled = em.scale(from_zero, extent);
        let shifted = em.shift(scaled, -1.0);
        em.scale(shifted, 0.5)
    }

    /// `x` reflected at the ends of the axis as often as it takes: a triangle wave.
    fn reflected(self, em: &mut Emitter, x: ValueId) -> ValueId {
        let [least, greatest] = self.ends();
        let range = greatest - least;
        if range == 0.0 {
            return em.scale(x, 0.0);
        }
        let from_end = em.shift(x, -least);
        let periods = em.scale(from_end, 0.5 / range);
        let whole = em.unary(dialect::Floor {}, periods);
        let whole = em.scale(whole, 2.0 * range);
        let rest = em.sub(from_end, whole);
        let from_middle = em.shift(rest, -range);
        let distance = em.unary(dialect::Abs {}, from_middle);
        let negated = em.negate(distance);
        em.shift(negated, greatest)
    }

    /// What a coordinate of the grid reads along the axis.
    fn taps(self, em: &mut Emitter, grid: ValueId, mode: Mode) -> Vec<Tap> {
        let mut place = self.place(em, grid);
        if mode == Mode::Nearest {
            place = round_half_even(em, place);
        }
        if self.padding == Padding::Reflection {
            place = self.reflected(em, place);
        }
        if mode == Mode::Nearest {
            return vec![self.tap(em, place, None)];
        }
        let first = em.unary(dialect::Floor {}, place);
        let rest = em.sub(place, first);
        let offsets: &[f32] = if mode == Mode::Linear { &[0.0, 1.0] } else { &[-1.0, 0.0, 1.0, 2.0] };
        let taps = offsets.iter().map(|&offset| {
            let away = em.shift(rest, -offset);
            let distance = em.unary(dialect::Abs {}, away);
            let weight = match mode {
                Mode::Cubic => cubic(em, distance, (-0.5..1.5).contains(&offset)),
                _ => {
                    let negated = em.negate(distance);
                    em.shift(negated, 1.0)
                }
            };
            let index = em.shift(first, offset);
            self.tap(em, index, Some(weight))
        });
        taps.collect()
    }

    /// A tap with its index brought inside.
    fn tap(self, em: &mut Emitter, index: ValueId, weight: Option<ValueId>) -> Tap {
        let index = if self.padding == Padding::Reflection { self.reflected(em, index) } else { index };
        let inside = em.clamp(index, 0.0, self.extent as f32 - 1.0);
        if self.padding != Padding::Zeros {
            return Tap { index: inside, weight };
        }
        let is_inside = em.compare(dialect::Equal {}, inside, index);
        let zero = em.scalar_like(inside, 0.0);
        let kept = weight.unwrap_or_else(|| em.scalar_like(inside, 1.0));
        Tap { index: inside, weight: Some(em.select(is_inside, kept, zero)) }
    }
}

/// The cubic weight of a tap at a distance of at most 1 (`is_inner`), or from 1 to 2.
fn cubic(em: &mut Emitter, distance: ValueId, is_inner: bool) -> ValueId {
    let coefficients = if is_inner {
        [CUBIC + 2.0, -(CUBIC + 3.0), 0.0, 1.0]
    } else {
        [CUBIC, -5.0 * CUBIC, 8.0 * CUBIC, -4.0 * CUBIC]
    };
    let mut sum = em.scale(distance, coefficients[0]);
    sum = em.shift(sum, coefficients[1]);
    for &coefficient in &coefficients[2..] {
        sum = em.mul(sum, distance);
        sum = em.shift(sum, coefficient);
    }
    sum
}

/// The sum over all combinations of the axes' taps, of rows of `table`, `[n, elements, channels]`.
fn weighted_sum(em: &mut Emitter, table: ValueId, taps: &[Vec<Tap>], extents: &[usize]) -> ValueId {
    // Combinations of the axes so far: the row that they address, and the product of their weights.
    let mut combined: Vec<Tap> = taps[0].clone();
    for (axis, &extent) in taps.iter().zip(extents).skip(1) {
        let mut next = Vec::new();
        for outer in &combined {
            for inner in axis {
                let row = em.scale(outer.index, extent as f32);
                let index = em.add(row, inner.index);
                let weight = match (outer.weight, inner.weight) {
                    (Some(a), Some(b)) => Some(em.mul(a, b)),
                    (a, b) => a.or(b),
                };
                next.push(Tap { index, weight });
            }
        }
        combined = next;
    }
    let mut sum: Option<ValueId> = None;
    for Tap { index, weight } in combined {
        let [n, n_places] = em.shape(index)[..] else { unreachable!("places are of rank 2") };
        let index = em.cast(index, ElemType::I32);
        let mut term = em.gather(table, index);
        if let Some(weight) = weight {
            let weight = em.reshape(weight, &[n, n_places, 1]);
            term = em.mul(term, weight);
        }
        sum = Some(sum.map_or(term, |sum| em.add(sum, term)));
    }
    sum.expect("every axis has a tap")
}
