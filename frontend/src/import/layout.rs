//! How the axes of an ONNX tensor lie in the IR value that holds it.
//!
//! A [`View`] is an ONNX tensor (its *external* shape) over an IR value. Each external axis is a product of
//! *factors*, listed most significant first; the value stores the factors in some physical order. So an ONNX
//! `Transpose` only relabels factors, and a `Reshape` only regroups or splits them: neither emits an op. An
//! op is emitted when a consumer asks, by [`Lowering::materialise`], for an order that the value does not
//! have. Data therefore stay in NHWC from one spatial op to the next whatever an exporter writes between
//! them, a `Flatten` before a fully connected layer permutes that layer's weights, and a channel shuffle is
//! one small transpose.
//!
//! Invariants: factors are greater than 1; the IR value's shape multiplies out to the factors in physical
//! order, cut at any places and with any unit extents; external extents are never 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::ValueId;
use tract_onnx::pb::tensor_proto::DataType;

use super::array::Array;
use super::emit::Emitter;

/// What an ONNX name stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Known while importing.
    Const(Arc<Array>),
    /// Computed at run time.
    View(View),
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Self::Const(Arc::new(array))
    }
}

impl From<View> for Value {
    fn from(view: View) -> Self {
        Self::View(view)
    }
}

impl Value {
    /// The external shape.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Const(array) => &array.shape,
            Self::View(view) => &view.shape,
        }
    }

    /// The ONNX element type.
    pub(super) fn dtype(&self) -> DataType {
        match self {
            Self::Const(array) => array.dtype,
            Self::View(view) => view.dtype,
        }
    }
}

/// A part of an external axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Factor {
    axis: usize,
    extent: usize,
}

/// An ONNX tensor over an IR value.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) value: ValueId,
    /// External extents.
    pub(super) shape: Vec<usize>,
    /// ONNX element type; the IR value's own may be narrower.
    pub(super) dtype: DataType,
    /// Factors in external order.
    factors: Vec<Factor>,
    /// Indices into `factors` in physical order.
    order: Vec<usize>,
}

/// The order that spatial ops want: channels last.
pub(super) fn channels_last(rank: usize) -> Vec<usize> {
    match rank {
        3..=5 => std::iter::once(0).chain(2..rank).chain([1]).collect(),
        _ => (0..rank).collect(),
    }
}

impl View {
    /// A tensor of `shape` whose non-unit axes lie in the order that `perm` lists them. `perm` may leave out
    /// unit axes.
    pub(super) fn plain(value: ValueId, shape: Vec<usize>, perm: &[usize], dtype: DataType) -> Self {
        let factors: Vec<_> = shape
            .iter()
            .enumerate()
            .filter(|&(_, &extent)| extent > 1)
            .map(|(axis, &extent)| Factor { axis, extent })
            .collect();
        let order = perm.iter().filter_map(|&p| factors.iter().position(|f| f.axis == p)).collect();
        Self { value, shape, dtype, factors, order }
    }

    /// The same tensor over another value with the same physical order.
    pub(super) fn with_value(&self, value: ValueId, dtype: DataType) -> Self {
        Self { value, dtype, ..self.clone() }
    }

    /// Whether another view lays out the same external shape in the same way.
    pub(super) fn same_layout(&self, other: &Self) -> bool {
        self.shape == other.shape && self.factors == other.factors && self.order == other.order
    }

    /// Axis `i` of the result is axis `perm[i]` of this.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        let mut new_index = vec![0; self.factors.len()];
        let mut factors = Vec::new();
        for (axis, &old_axis) in perm.iter().enumerate() {
            for (old_index, factor) in self.factors.iter().enumerate().filter(|(_, f)| f.axis == old_axis) {
                new_index[old_index] = factors.len();
                factors.push(Factor { axis, extent: factor.extent });
            }
        }
        let order = self.order.iter().map(|&old| new_index[old]).collect();
        Self { shape: perm.iter().map(|&p| self.shape[p]).collect(), factors, order, ..self.clone() }.merged()
    }

    /// The same elements in another external shape, if the factors can be regrouped or split to make it.
    pub(super) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let mut rest = self.factors.iter().enumerate().map(|(index, f)| (index, f.extent));
        let mut front = rest.next();
        let mut factors = Vec::new();
        // For each old factor, the new ones that it was split into.
        let mut parts = vec![Vec::new(); self.factors.len()];
        for (axis, &extent) in shape.iter().enumerate() {
            let mut wanted = extent;
            while wanted > 1 {
                let (index, available) = front?;
                parts[index].push(factors.len());
                if wanted % available == 0 {
                    factors.push(Factor { axis, extent: available });
                    wanted /= available;
                    front = rest.next();
                } else if available % wanted == 0 {
                    factors.push(Factor { axis, extent: wanted });
                    front = Some((index, available / wanted));
                    wanted = 1;
                } else {
                    return None;
                }
            }
        }
        let order = self.order.iter().flat_map(|&old| parts[old].iter().copied()).collect();
        Some(Self { shape: shape.to_vec(), factors, order, ..self.clone() }.merged())
    }

    /// Joins factors of one axis that also lie side by side.
    fn merged(mut self) -> Self {
        let mut index = 0;
        while index + 1 < self.factors.len() {
            let place = self.order.iter().position(|&f| f == index);
            let next = place.and_then(|p| self.order.get(p + 1)).copied();
            if self.factors[index].axis == self.factors[index + 1].axis && next == Some(index + 1) {
                self.factors[index].extent *= self.factors[index + 1].extent;
                self.factors.remove(index + 1);
                self.order.retain(|&f| f != index + 1);
                for f in &mut self.order {
                    *f -= usize::from(*f > index);
                }
            } else {
                index += 1;
            }
        }
        self
    }

    /// The non-unit axes in physical order, if each lies in one piece.
    fn physical_axes(&self) -> Option<Vec<usize>> {
        let axes: Vec<_> = self.order.iter().map(|&f| self.factors[f].axis).collect();
        let distinct = self.factors.windows(2).all(|w| w[0].axis != w[1].axis);
        distinct.then_some(axes)
    }

    /// The factors in the order that a permutation of the external axes asks for.
    fn target(&self, perm: &[usize]) -> Vec<usize> {
        let of_axis = |&axis: &usize| (0..self.factors.len()).filter(move |&f| self.factors[f].axis == axis);
        perm.iter().flat_map(of_axis).collect()
    }

    /// Whether the value already has its data in the order of `perm`.
    pub(super) fn lies_in(&self, perm: &[usize]) -> bool {
        self.target(perm) == self.order
    }

    /// The factors that make up one axis, most significant first, and the order in which they lie, if no
    /// other axis' factors lie among them.
    pub(super) fn axis_factors(&self, axis: usize) -> Option<(Vec<usize>, Vec<usize>)> {
        let own: Vec<_> = (0..self.factors.len()).filter(|&f| self.factors[f].axis == axis).collect();
        let places: Vec<_> = (0..self.order.len()).filter(|&p| own.contains(&self.order[p])).collect();
        if places.windows(2).any(|w| w[0] + 1 != w[1]) {
            return None;
        }
        let order = places.iter().filter_map(|&p| own.iter().position(|&f| f == self.order[p])).collect();
        Some((own.iter().map(|&f| self.factors[f].extent).collect(), order))
    }

    /// The pieces of the data in the order in which they lie: for each its external axis and its extent.
    pub(super) fn pieces(&self) -> Vec<(usize, usize)> {
        self.order.iter().map(|&f| (self.factors[f].axis, self.factors[f].extent)).collect()
    }

    /// Where the indices of an external axis lie if they are the most significant part of one axis of the IR
    /// value: that axis, and how many of its elements belong to one index.
    pub(super) fn slot(&self, axis: usize, em: &Emitter) -> Option<(usize, usize)> {
        let mut own = (0..self.factors.len()).filter(|&f| self.factors[f].axis == axis);
        let (wanted, None) = (own.next()?, own.next()) else { return None };
        let mut factors = self.order.iter().map(|&f| (f, self.factors[f].extent));
        let mut front = factors.next();
        for (ir_axis, &extent) in em.shape(self.value).iter().enumerate() {
            let mut rest = extent;
            while rest > 1 {
                let (factor, available) = front?;
                let whole = available == self.factors[factor].extent && rest % available == 0;
                if factor == wanted {
                    return (whole && rest == extent).then_some((ir_axis, rest / available));
                }
                if rest % available == 0 {
                    rest /= available;
                    front = factors.next();
                } else if available % rest == 0 {
                    front = Some((factor, available / rest));
                    rest = 1;
                } else {
                    return None;
                }
            }
        }
        None
    }

    /// The same layout over a value that has `extent` indices of an axis which lies in one piece.
    pub(super) fn with_extent(&self, axis: usize, extent: usize, value: ValueId) -> Self {
        let mut out = self.with_value(value, self.dtype);
        out.shape[axis] = extent;
        let Some(own) = out.factors.iter().position(|f| f.axis == axis) else { return out };
        if extent > 1 {
            out.factors[own].extent = extent;
            return out;
        }
        out.factors.remove(own);
        out.order.retain(|&f| f != own);
        out.order.iter_mut().for_each(|f| *f -= usize::from(*f > own));
        out.merged()
    }

    /// The extents of the axes in the order of `perm`.
    pub(super) fn permuted_shape(&self, perm: &[usize]) -> Vec<usize> {
        perm.iter().map(|&axis| self.shape[axis]).collect()
    }

    /// A permutation of all the axes in which the data lie, if there is one. Where unit axes leave a choice:
    /// the one that the IR value's shape spells, else channels last, else ONNX's own.
    pub(super) fn natural_perm(&self, em: &Emitter) -> Option<Vec<usize>> {
        let physical = self.physical_axes()?;
        let rank = self.shape.len();
        let units = (0..rank).filter(|&axis| self.shape[axis] == 1);
        let derived = units.chain(physical.iter().copied()).collect();
        let candidates = [channels_last(rank), (0..rank).collect(), derived];
        let fitting: Vec<_> = candidates.into_iter().filter(|perm: &Vec<usize>| self.lies_in(perm)).collect();
        let spelled = fitting.iter().find(|perm| self.permuted_shape(perm) == em.shape(self.value));
        spelled.or(fitting.first()).cloned()
    }

    /// For each axis of the IR value, the external axis that it holds, or `None` for an extra unit axis; if
    /// every non-unit external axis is one axis of the value.
    pub(super) fn ir_axes(&self, em: &Emitter) -> Option<Vec<Option<usize>>> {
        let perm = self.natural_perm(em)?;
        let shape = em.shape(self.value);
        if self.permuted_shape(&perm) == shape {
            return Some(perm.into_iter().map(Some).collect());
        }
        let mut physical = self.physical_axes()?.into_iter().peekable();
        let mut axes = Vec::new();
        for &extent in shape {
            axes.push(match extent {
                1 => None,
                _ => Some(physical.next_if(|&axis| self.shape[axis] == extent)?),
            });
        }
        physical.peek().is_none().then_some(axes)
    }
}

/// Values that were already brought into another order or shape, so that it is done once.
#[derive(Debug, Default)]
pub(super) struct Relayouts(BTreeMap<(ValueId, Vec<usize>, Vec<usize>), ValueId>);

impl Relayouts {
    /// The tensor with its axes in the order of `perm` (which may leave out unit axes), as an IR value of
    /// `shape`.
    pub(super) fn materialise(
        &mut self,
        em: &mut Emitter,
        view: &View,
        perm: &[usize],
        shape: &[usize],
    ) -> ValueId {
        let target = view.target(perm);
        if target == view.order && em.shape(view.value) == shape {
            return view.value;
        }
        let extents: Vec<_> = view.order.iter().map(|&f| view.factors[f].extent).collect();
        let place = |factor: &usize| view.order.iter().position(|f| f == factor).unwrap_or_default();
        let places: Vec<usize> = target.iter().map(place).collect();
        let mut key = extents;
        key.extend(&places);
        let key = (view.value, key, shape.to_vec());
        if let Some(&value) = self.0.get(&key) {
            return value;
        }
        let value = if target == view.order {
            em.reshape(view.value, shape)
        } else {
            transpose(em, view, perm, shape).unwrap_or_else(|| transpose_factors(em, view, &places, shape))
        };
        self.0.insert(key, value);
        value
    }
}

/// One transpose without reshapes, where the value's axes are the view's.
fn transpose(em: &mut Emitter, view: &View, perm: &[usize], shape: &[usize]) -> Option<ValueId> {
    let from = view.natural_perm(em)?;
    if view.permuted_shape(&from) != em.shape(view.value) || view.permuted_shape(perm) != shape {
        return None;
    }
    let perms: Option<Vec<_>> = perm.iter().map(|axis| from.iter().position(|a| a == axis)).collect();
    Some(em.transpose(view.value, &perms?))
}

/// Reshapes to the runs of factors that stay together, transposes those, and reshapes to `shape`.
fn transpose_factors(em: &mut Emitter, view: &View, places: &[usize], shape: &[usize]) -> ValueId {
    // Runs in the target: a factor that follows its physical predecessor joins that one's run.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &place in places {
        let extent = view.factors[view.order[place]].extent;
        match runs.last_mut() {
            Some((last, product)) if *last + 1 == place => (*last, *product) = (place, *product * extent),
            _ => runs.push((place, extent)),
        }
    }
    let mut physical: Vec<usize> = (0..runs.len()).collect();
    physical.sort_by_key(|&run| runs[run].0);
    let split: Vec<_> = physical.iter().map(|&run| runs[run].1).collect();
    let perm: Vec<_> =
        (0..runs.len()).map(|run| physical.iter().position(|&p| p == run).unwrap_or_default()).collect();
    let split = em.reshape(view.value, &split);
    let transposed = em.transpose(split, &perm);
    em.reshape(transposed, shape)
}
