//! The integers behind a constant that a `DequantizeLinear` made of floats.
//!
//! Weights go through transposes, splits and reshapes before they are emitted. [`QuantData`] goes with them,
//! element by element, so that the module holds the model's own integers, and a cast, a subtraction and a
//! multiplication in place of the floats; a quantiser can then take integers and scales as they are. Whatever
//! computes new floats from the old drops it.

use strata_ir::{ElemType, Tensor, TensorData, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::array::{Array, Data, QuantData, offsets, strides};
use super::emit::Emitter;
use super::error::{Lowered, invalid};

impl QuantData {
    /// The element type of the IR that holds the integers, and what is taken away from each to fit it.
    fn storage(&self) -> (ElemType, i32) {
        match self.dtype {
            DataType::Int8 | DataType::Int4 | DataType::Uint4 => (ElemType::I8, 0),
            DataType::Uint8 => (ElemType::I8, 128),
            DataType::Int16 => (ElemType::I16, 0),
            DataType::Uint16 => (ElemType::I16, 1 << 15),
            _ => (ElemType::I32, 0),
        }
    }
}

/// `(q - zero_point) * scale` as floats that remember `q`; `groups` says which scale and zero point each
/// element has.
pub(super) fn dequantised(
    q: &Array,
    groups: Vec<u32>,
    scales: &[f32],
    zero_points: &[i64],
) -> Lowered<Array> {
    let narrow = |v: i64| i32::try_from(v).map_err(|_| format!("{v} is beyond 32 bits"));
    let narrowed = |values: &[i64]| values.iter().map(|&v| narrow(v)).collect::<Result<Vec<_>, _>>();
    let (ints, zero_points) = match (narrowed(q.as_ints()?), narrowed(zero_points)) {
        (Ok(ints), Ok(zero_points)) => (ints, zero_points),
        (Err(what), _) | (_, Err(what)) => invalid!("{what}"),
    };
    let real = |(&q, &group): (&i32, &u32)| {
        let group = group as usize;
        q.wrapping_sub(zero_points[group]) as f32 * scales[group]
    };
    let data: Vec<f32> = ints.iter().zip(&groups).map(real).collect();
    let quant = QuantData { ints, groups, scales: scales.to_vec(), zero_points, dtype: q.dtype };
    Ok(Array { quant: Some(quant.into()), ..Array::floats(q.shape.clone(), data) })
}

impl Emitter {
    /// A constant; floats that were dequantised are emitted as their integers, cast, shifted and scaled.
    pub(super) fn array(&mut self, array: Array) -> Lowered<ValueId> {
        let (Some(quant), Data::Float(_)) = (&array.quant, &array.data) else {
            return Ok(self.constant(array.into_tensor()?));
        };
        let (elem, offset) = quant.storage();
        let ints = quant.ints.iter().map(|&q| i64::from(q) - i64::from(offset));
        let Some(data) = TensorData::from_ints(elem, ints) else {
            return Ok(self.constant(array.into_tensor()?));
        };
        let stored = self.constant(Tensor::new(array.shape.clone(), data));
        let (shape, groups) = spread(&array.shape, &quant.groups);
        let per_group = |values: &dyn Fn(usize) -> f32| {
            Tensor::f32(shape.clone(), groups.iter().map(|&group| values(group as usize)).collect())
        };
        let mut real = self.cast(stored, ElemType::F32);
        let zero_points = per_group(&|group| (quant.zero_points[group] - offset) as f32);
        if groups.iter().any(|&group| quant.zero_points[group as usize] != offset) {
            let zero_points = self.constant(zero_points);
            real = self.sub(real, zero_points);
        }
        let scales = self.constant(per_group(&|group| quant.scales[group]));
        Ok(self.mul(real, scales))
    }
}

/// The least shape that broadcasts to `shape` in which every element finds its own group, and the groups in
/// it.
fn spread(shape: &[usize], groups: &[u32]) -> (Vec<usize>, Vec<u32>) {
    let strides = strides(shape);
    let varies = |axis: usize| {
        (0..groups.len()).any(|at| {
            !(at / strides[axis]).is_multiple_of(shape[axis]) && groups[at] != groups[at - strides[axis]]
        })
    };
    let kept: Vec<bool> = (0..shape.len()).map(varies).collect();
    let reduced: Vec<usize> = shape.iter().zip(&kept).map(|(&e, &kept)| if kept { e } else { 1 }).collect();
    let steps: Vec<usize> = strides.iter().zip(&kept).map(|(&s, &kept)| if kept { s } else { 0 }).collect();
    let places = offsets(&reduced, &steps);
    (reduced, places.into_iter().map(|at| groups[at]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_spread_along_the_axes_that_they_vary_along() {
        // Two channels of an axis that was moved to the end.
        assert_eq!(spread(&[2, 1, 2], &[0, 1, 0, 1]), (vec![1, 1, 2], vec![0, 1]));
        assert_eq!(spread(&[2, 2], &[0, 0, 0, 0]), (vec![1, 1], vec![0]));
        assert_eq!(spread(&[2, 2], &[0, 1, 2, 3]), (vec![2, 2], vec![0, 1, 2, 3]));
        assert_eq!(spread(&[], &[0]), (vec![], vec![0]));
    }

    #[test]
    fn integers_follow_their_floats() {
        let q = Array::ints([2, 3], vec![0, 128, 255, 3, 4, 5], DataType::Uint8);
        let real = dequantised(&q, vec![0, 0, 0, 1, 1, 1], &[0.5, 2.0], &[128, 3]).expect("in range");
        assert_eq!(real.as_floats().expect("floats"), &[-64.0, 0.0, 63.5, 0.0, 2.0, 4.0]);
        let turned = real.transposed(&[1, 0]);
        let quant = turned.quant.expect("kept");
        assert_eq!((&quant.ints[..2], &quant.groups[..2]), (&[0, 3][..], &[0, 1][..]));
    }
}
