//! Constants known while importing: initialisers, `Constant` nodes, and what is folded from them.
//!
//! Numbers are kept in one wide form for each kind (`f32`, `i64`, `bool`) beside the ONNX type they came as.
//! `f64` and `f16` constants become `f32`, the only float type of the IR. Tensors are decoded here rather
//! than by `tract_onnx::tensor::load_tensor`, which panics on element types that it does not know and copies
//! once more.

use std::sync::Arc;

use strata_ir::tensor::{Axis, elements_along, floats_along};
use strata_ir::{ElemType, Tensor, TensorData};
use tract_onnx::pb::{TensorProto, tensor_proto::DataLocation, tensor_proto::DataType};

use super::error::{LowerError, Lowered, invalid, unsupported};

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Float(Arc<Vec<f32>>),
    Int(Arc<Vec<i64>>),
    Bool(Arc<Vec<bool>>),
}

/// A constant tensor in ONNX's own layout.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
    pub(super) dtype: DataType,
    /// The integers that floats were dequantised from; lost by any arithmetic.
    pub(super) quant: Option<Arc<QuantData>>,
}

/// The integers behind floats: `real = (ints[i] - zero_points[g]) * scales[g]` with `g = groups[i]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QuantData {
    pub(super) ints: Vec<i32>,
    /// Which scale and zero point an element has.
    pub(super) groups: Vec<u32>,
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<i32>,
    /// The integers' type in the file.
    pub(super) dtype: DataType,
}

impl QuantData {
    /// The elements at `offsets`.
    pub(super) fn gathered(&self, offsets: &[usize]) -> Self {
        Self {
            ints: offsets.iter().map(|&at| self.ints[at]).collect(),
            groups: offsets.iter().map(|&at| self.groups[at]).collect(),
            scales: self.scales.clone(),
            zero_points: self.zero_points.clone(),
            dtype: self.dtype,
        }
    }
}

/// The IR's element type for an ONNX one. Integers are `i32`; whoever feeds the function checks that they
/// fit.
pub(super) fn elem_of(dtype: DataType) -> Lowered<ElemType> {
    Ok(match dtype {
        DataType::Float => ElemType::F32,
        DataType::Bool => ElemType::I1,
        DataType::Int8
        | DataType::Uint8
        | DataType::Int16
        | DataType::Uint16
        | DataType::Int32
        | DataType::Int64 => ElemType::I32,
        other => unsupported!("run-time tensors of type {other:?}"),
    })
}

/// Row-major strides of a shape.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// For each element of `shape`, row-major, the offset `sum(index[axis] * step[axis])`.
pub(super) fn offsets(shape: &[usize], step: &[usize]) -> Vec<usize> {
    let mut out = vec![0];
    for (&extent, &step) in shape.iter().zip(step) {
        out = out.iter().flat_map(|base| (0..extent).map(move |i| base + i * step)).collect();
    }
    out
}

/// Of fewer elements a tensor is decoded at once.
const DEFERRED_ELEMENTS: usize = 1 << 12;

/// The axes of `shape` with these steps, those of one element left out, and those that follow one another in
/// memory as one.
fn merged_axes(shape: &[usize], step: &[usize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (&extent, &step) in shape.iter().zip(step).filter(|(extent, _)| **extent != 1) {
        match axes.last_mut() {
            Some(last) if last.step == step * extent => *last = Axis { extent: last.extent * extent, step },
            _ => axes.push(Axis { extent, step }),
        }
    }
    axes
}

/// The shape that `shapes` broadcast to, aligned at their last axes.
pub(super) fn broadcast_shape<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Lowered<Vec<usize>> {
    let mut out: Vec<usize> = Vec::new();
    for shape in shapes {
        let rank = out.len().max(shape.len());
        let mut merged = vec![1; rank];
        for (place, extent) in merged.iter_mut().enumerate() {
            let at = |s: &[usize]| (place + s.len()).checked_sub(rank).map_or(1, |axis| s[axis]);
            *extent = match (at(&out), at(shape)) {
                (a, 1) => a,
                (1, b) => b,
                (a, b) if a == b => a,
                _ => invalid!("shapes {out:?} and {shape:?} do not broadcast"),
            };
        }
        out = merged;
    }
    Ok(out)
}

impl Array {
    pub(super) fn floats(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self { shape: shape.into(), data: Data::Float(Arc::new(data)), dtype: DataType::Float, quant: None }
    }

    pub(super) fn ints(shape: impl Into<Vec<usize>>, data: Vec<i64>, dtype: DataType) -> Self {
        Self { shape: shape.into(), data: Data::Int(Arc::new(data)), dtype, quant: None }
    }

    pub(super) fn bools(shape: impl Into<Vec<usize>>, data: Vec<bool>) -> Self {
        Self { shape: shape.into(), data: Data::Bool(Arc::new(data)), dtype: DataType::Bool, quant: None }
    }

    /// A tensor of a shape that has no elements.
    pub(super) fn empty(shape: impl Into<Vec<usize>>, dtype: DataType) -> Lowered<Self> {
        let data = match elem_of(dtype)? {
            ElemType::F32 => Data::Float(Arc::default()),
            ElemType::I1 => Data::Bool(Arc::default()),
            _ => Data::Int(Arc::default()),
        };
        let shape = shape.into();
        debug_assert!(shape.contains(&0));
        Ok(Self { shape, data, dtype, quant: None })
    }

    /// A one-dimensional `i64` tensor, as shapes are.
    pub(super) fn vector(data: Vec<i64>) -> Self {
        Self::ints([data.len()], data, DataType::Int64)
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The floats, or why there are none.
    pub(super) fn as_floats(&self) -> Lowered<&[f32]> {
        match &self.data {
            Data::Float(v) => Ok(v),
            _ => invalid!("a float constant is needed, not {:?}", self.dtype),
        }
    }

    /// The integers, or why there are none.
    pub(super) fn as_ints(&self) -> Lowered<&[i64]> {
        match &self.data {
            Data::Int(v) => Ok(v),
            _ => invalid!("an integer constant is needed, not {:?}", self.dtype),
        }
    }

    /// The only element as a float.
    pub(super) fn scalar(&self) -> Lowered<f32> {
        match self.as_floats()? {
            [only] => Ok(*only),
            many => invalid!("a scalar is needed, not {} elements", many.len()),
        }
    }

    /// The elements at `offsets`, in a new shape.
    pub(super) fn gathered(&self, shape: Vec<usize>, offsets: &[usize]) -> Self {
        let data = match &self.data {
            Data::Float(v) => Data::Float(Arc::new(offsets.iter().map(|&at| v[at]).collect())),
            Data::Int(v) => Data::Int(Arc::new(offsets.iter().map(|&at| v[at]).collect())),
            Data::Bool(v) => Data::Bool(Arc::new(offsets.iter().map(|&at| v[at]).collect())),
        };
        let quant = self.quant.as_ref().map(|quant| Arc::new(quant.gathered(offsets)));
        Self { shape, data, dtype: self.dtype, quant }
    }

    /// The same elements in another shape of as many.
    pub(super) fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Self { shape, ..self.clone() }
    }

    /// Axis `i` of the result is axis `perm[i]` of this.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        if perm.iter().enumerate().all(|(i, &axis)| i == axis) {
            return self.clone();
        }
        let steps = strides(&self.shape);
        let shape: Vec<_> = perm.iter().map(|&axis| self.shape[axis]).collect();
        let step: Vec<_> = perm.iter().map(|&axis| steps[axis]).collect();
        if self.quant.is_some() {
            let offsets = offsets(&shape, &step);
            return self.gathered(shape, &offsets);
        }
        let axes = merged_axes(&shape, &step);
        // Only axes of one element moved.
        if let [] | [Axis { step: 1, .. }] = axes[..] {
            return self.reshaped(shape);
        }
        let data = match &self.data {
            Data::Float(v) => Data::Float(Arc::new(floats_along(v, &axes))),
            Data::Int(v) => Data::Int(Arc::new(elements_along(v, &axes))),
            Data::Bool(v) => Data::Bool(Arc::new(elements_along(v, &axes))),
        };
        Self { shape, data, dtype: self.dtype, quant: None }
    }

    /// This array broadcast to `shape`, which it must fit.
    pub(super) fn broadcast_to(&self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self.clone();
        }
        let lead = shape.len() - self.shape.len();
        let own = strides(&self.shape);
        let step: Vec<_> = (0..shape.len())
            .map(|axis| if axis < lead || self.shape[axis - lead] == 1 { 0 } else { own[axis - lead] })
            .collect();
        let offsets = offsets(shape, &step);
        self.gathered(shape.to_vec(), &offsets)
    }

    /// The tensor of the IR that holds the same elements; integers as `i32`. Floats that nothing else shares
    /// are not copied.
    pub(super) fn into_tensor(self) -> Lowered<Tensor> {
        let data = match self.data {
            Data::Float(v) => TensorData::F32(Arc::unwrap_or_clone(v)),
            Data::Bool(v) => TensorData::I1(Arc::unwrap_or_clone(v)),
            Data::Int(v) => {
                let narrow = v.iter().map(|&x| i32::try_from(x)).collect::<Result<Vec<_>, _>>();
                match narrow {
                    Ok(narrow) => TensorData::I32(narrow),
                    Err(_) => unsupported!("an integer constant does not fit in 32 bits"),
                }
            }
        };
        Ok(Tensor::new(self.shape, data))
    }

    /// As [`reshaped`](Self::reshaped), without another owner of the elements.
    pub(super) fn into_shape(self, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Self { shape, ..self }
    }

    /// An array of which only the shape and the type are known: it stands for elements that nothing reads.
    pub(super) fn unread(shape: Vec<usize>, dtype: DataType) -> Self {
        Self { shape, data: Data::Float(Arc::default()), dtype, quant: None }
    }

    /// Whether it holds so many floats that it is worth it to let go of them.
    pub(super) fn has_many_floats(&self) -> bool {
        matches!(&self.data, Data::Float(floats) if floats.len() >= DEFERRED_ELEMENTS)
    }

    /// The extents of a tensor of many floats that is sure to decode, so that this may wait until it is read.
    pub(super) fn deferred_shape(proto: &TensorProto) -> Option<Vec<usize>> {
        let in_other_file = proto.data_location == Some(DataLocation::External as i32);
        if proto.data_type != DataType::Float as i32 || in_other_file {
            return None;
        }
        let shape: Vec<usize> =
            proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<_>>()?;
        let n_elements = shape.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent))?;
        let is_whole = n_elements.checked_mul(4) == Some(proto.raw_data.len());
        (is_whole && n_elements >= DEFERRED_ELEMENTS).then_some(shape)
    }

    /// The tensor as a file holds it. Half-precision numbers, which are kept as `f32`, are written so.
    pub(super) fn encode(&self, name: &str) -> TensorProto {
        let mut proto = TensorProto {
            name: name.to_owned(),
            dims: self.shape.iter().map(|&extent| extent as i64).collect(),
            data_type: self.dtype as i32,
            ..TensorProto::default()
        };
        match (&self.data, self.dtype) {
            (Data::Float(v), DataType::Double) => {
                proto.double_data = v.iter().map(|&x| f64::from(x)).collect();
            }
            (Data::Float(v), _) => {
                proto.data_type = DataType::Float as i32;
                proto.float_data = v.to_vec();
            }
            (Data::Bool(v), _) => proto.int32_data = v.iter().map(|&x| i32::from(x)).collect(),
            (Data::Int(v), DataType::Int64) => proto.int64_data = v.to_vec(),
            (Data::Int(v), DataType::Uint32 | DataType::Uint64) => {
                proto.uint64_data = v.iter().map(|&x| x as u64).collect();
            }
            (Data::Int(v), DataType::Int4 | DataType::Uint4) => {
                let nibble = |v: Option<&i64>| v.map_or(0, |&v| v as u8 & 15);
                proto.raw_data =
                    v.chunks(2).map(|pair| nibble(pair.first()) | nibble(pair.get(1)) << 4).collect();
            }
            (Data::Int(v), _) => proto.int32_data = v.iter().map(|&x| x as i32).collect(),
        }
        proto
    }

    /// Decodes a tensor of the file.
    pub(super) fn decode(proto: &TensorProto) -> Lowered<Self> {
        let Ok(dtype) = DataType::try_from(proto.data_type) else {
            unsupported!("constants of element type {}", proto.data_type)
        };
        let mut n_elements = 1usize;
        let mut shape = Vec::new();
        for &dim in &proto.dims {
            let Ok(extent) = usize::try_from(dim) else { invalid!("negative extent {dim}") };
            n_elements = match n_elements.checked_mul(extent) {
                Some(n) => n,
                None => invalid!("extents {:?} overflow", proto.dims),
            };
            shape.push(extent);
        }
        if proto.data_location == Some(DataLocation::External as i32) {
            unsupported!("the tensor's data stand in another file; store them in the model itself");
        }
        let data = match dtype {
            DataType::Int4 | DataType::Uint4 => Data::Int(decode_nibbles(proto, dtype, n_elements)?),
            _ => decode_data(proto, dtype)?,
        };
        let found = match &data {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Bool(v) => v.len(),
        };
        if found != n_elements {
            invalid!("{found} elements where extents {shape:?} ask for {n_elements}");
        }
        Ok(Self { shape, data, dtype, quant: None })
    }
}

/// Integers of four bits, two in a byte, the first in the lower half.
fn decode_nibbles(proto: &TensorProto, dtype: DataType, n_elements: usize) -> Lowered<Arc<Vec<i64>>> {
    let bytes: Vec<u8> = match proto.raw_data.is_empty() {
        true => proto.int32_data.iter().map(|&pair| pair as u8).collect(),
        false => proto.raw_data.clone(),
    };
    if bytes.len() != n_elements.div_ceil(2) {
        invalid!("{} bytes for {n_elements} elements of four bits", bytes.len());
    }
    let number = |nibble: u8| match dtype {
        DataType::Int4 => i64::from((nibble << 4) as i8 >> 4),
        _ => i64::from(nibble),
    };
    let pairs = bytes.iter().flat_map(|&byte| [number(byte & 15), number(byte >> 4)]);
    Ok(Arc::new(pairs.take(n_elements).collect()))
}

fn decode_data(proto: &TensorProto, dtype: DataType) -> Lowered<Data> {
    fn read<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Lowered<Arc<Vec<T>>> {
        let (chunks, rest) = raw.as_chunks::<N>();
        if !rest.is_empty() {
            return Err(LowerError::Invalid(format!("{} bytes are no whole number of elements", raw.len())));
        }
        Ok(Arc::new(chunks.iter().map(|c| convert(*c)).collect()))
    }
    let raw = &proto.raw_data[..];
    let from_raw = !raw.is_empty();
    let from_i32 = |wrap: fn(i32) -> i64| Arc::new(proto.int32_data.iter().map(|&v| wrap(v)).collect());
    Ok(match dtype {
        // Most of a model's bytes are these.
        DataType::Float if from_raw => match TensorData::from_bytes(ElemType::F32, raw) {
            Some(TensorData::F32(values)) => Data::Float(Arc::new(values)),
            _ => Data::Float(read(raw, f32::from_le_bytes)?),
        },
        DataType::Float => Data::Float(Arc::new(proto.float_data.clone())),
        DataType::Double if from_raw => Data::Float(read(raw, |b| f64::from_le_bytes(b) as f32)?),
        DataType::Double => Data::Float(Arc::new(proto.double_data.iter().map(|&v| v as f32).collect())),
        DataType::Float16 if from_raw => Data::Float(read(raw, |b| half_to_f32(u16::from_le_bytes(b)))?),
        DataType::Float16 => {
            Data::Float(Arc::new(proto.int32_data.iter().map(|&v| half_to_f32(v as u16)).collect()))
        }
        DataType::Bfloat16 if from_raw => Data::Float(read(raw, |b| bfloat_to_f32(u16::from_le_bytes(b)))?),
        DataType::Bfloat16 => {
            Data::Float(Arc::new(proto.int32_data.iter().map(|&v| bfloat_to_f32(v as u16)).collect()))
        }
        DataType::Bool if from_raw => Data::Bool(read(raw, |[b]: [u8; 1]| b != 0)?),
        DataType::Bool => Data::Bool(Arc::new(proto.int32_data.iter().map(|&v| v != 0).collect())),
        DataType::Int8 if from_raw => Data::Int(read(raw, |b| i64::from(i8::from_le_bytes(b)))?),
        DataType::Int8 => Data::Int(from_i32(|v| i64::from(v as i8))),
        DataType::Uint8 if from_raw => Data::Int(read(raw, |b| i64::from(u8::from_le_bytes(b)))?),
        DataType::Uint8 => Data::Int(from_i32(|v| i64::from(v as u8))),
        DataType::Int16 if from_raw => Data::Int(read(raw, |b| i64::from(i16::from_le_bytes(b)))?),
        DataType::Int16 => Data::Int(from_i32(|v| i64::from(v as i16))),
        DataType::Uint16 if from_raw => Data::Int(read(raw, |b| i64::from(u16::from_le_bytes(b)))?),
        DataType::Uint16 => Data::Int(from_i32(|v| i64::from(v as u16))),
        DataType::Int32 if from_raw => Data::Int(read(raw, |b| i64::from(i32::from_le_bytes(b)))?),
        DataType::Int32 => Data::Int(from_i32(i64::from)),
        DataType::Uint32 if from_raw => Data::Int(read(raw, |b| i64::from(u32::from_le_bytes(b)))?),
        DataType::Uint32 => Data::Int(Arc::new(proto.uint64_data.iter().map(|&v| v as i64).collect())),
        DataType::Int64 if from_raw => Data::Int(read(raw, i64::from_le_bytes)?),
        DataType::Int64 => Data::Int(Arc::new(proto.int64_data.clone())),
        other => unsupported!("constants of type {other:?}"),
    })
}

/// IEEE half precision to single; exact.
fn half_to_f32(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(half >> 10 & 0x1f);
    let fraction = f32::from(half & 0x3ff);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// bfloat16 to single precision, whose upper half it is.
fn bfloat_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_are_those_of_single_elements() {
        let array = Array::vector((0..2 * 3 * 4 * 5).collect()).reshaped([2, 3, 4, 5]);
        let steps = strides(&array.shape);
        for perm in [[0, 2, 3, 1], [3, 2, 1, 0], [0, 1, 3, 2], [2, 3, 0, 1], [1, 0, 2, 3], [0, 3, 1, 2]] {
            let shape = perm.map(|axis| array.shape[axis]);
            let step = perm.map(|axis| steps[axis]);
            let want = array.gathered(shape.to_vec(), &offsets(&shape, &step));
            assert_eq!(array.transposed(&perm), want, "{perm:?}");
        }
        let empty = Array::vector(Vec::new()).reshaped([2, 0, 3]).transposed(&[2, 1, 0]);
        assert_eq!((empty.shape, empty.data), (vec![3, 0, 2], Data::Int(Arc::default())));
    }

    #[test]
    fn axes_of_one_element_move_without_a_copy() {
        let array = Array::floats([4, 3, 1, 1], vec![0.5; 12]);
        let turned = array.transposed(&[0, 2, 3, 1]);
        assert_eq!(turned.shape, [4, 1, 1, 3]);
        let (Data::Float(before), Data::Float(after)) = (&array.data, &turned.data) else { panic!("floats") };
        assert!(Arc::ptr_eq(before, after));
    }

    #[test]
    fn many_raw_floats_may_wait() {
        let tensor = |n: usize, n_bytes: usize, dtype: DataType| TensorProto {
            dims: vec![2, n as i64],
            data_type: dtype as i32,
            raw_data: vec![0; n_bytes],
            ..TensorProto::default()
        };
        let n = DEFERRED_ELEMENTS;
        let shape = |n, bytes, dtype| Array::deferred_shape(&tensor(n, bytes, dtype));
        assert_eq!(shape(n, 8 * n, DataType::Float), Some(vec![2, n]));
        assert_eq!(shape(n, 8 * n - 4, DataType::Float), None, "it does not decode");
        assert_eq!(shape(n, 8 * n, DataType::Int32), None);
        assert_eq!(shape(4, 32, DataType::Float), None, "they are few");
    }

    #[test]
    fn transposes_and_broadcasts() {
        let array = Array::vector((0..6).collect()).reshaped([2, 3]);
        assert_eq!(array.transposed(&[1, 0]).as_ints().expect("ints"), &[0, 3, 1, 4, 2, 5]);
        let row = Array::vector(vec![7, 8, 9]).broadcast_to(&[2, 3]);
        assert_eq!(row.as_ints().expect("ints"), &[7, 8, 9, 7, 8, 9]);
        assert_eq!(broadcast_shape([&[2, 1, 3][..], &[4, 1][..]]).expect("fits"), [2, 4, 3]);
        assert!(broadcast_shape([&[2][..], &[3][..]]).is_err());
    }

    #[test]
    fn half_precision_is_exact() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in cases {
            assert_eq!(half_to_f32(bits), value);
        }
        for (bits, value) in [(0x3f80, 1.0), (0xc040, -3.0), (0x7f80, f32::INFINITY), (0x3dcd, 0.100_097_656)]
        {
            assert_eq!(bfloat_to_f32(bits), value);
        }
    }

    #[test]
    fn encoded_arrays_decode_to_themselves() {
        let cases = [
            Array::floats([2, 1], vec![0.5, -1.5]),
            Array::bools([2], vec![true, false]),
            Array::vector(vec![i64::MIN, 7]),
            Array::ints([1], vec![-3], DataType::Int8),
            Array::ints([1], vec![200], DataType::Uint8),
            Array::ints([1], vec![1 << 31], DataType::Uint32),
            Array::ints([3], vec![-8, 7, -1], DataType::Int4),
            Array::ints([2], vec![15, 1], DataType::Uint4),
        ];
        for array in cases {
            assert_eq!(Array::decode(&array.encode("x")).expect("it decodes"), array);
        }
    }

    #[test]
    fn decoding_rejects_wrong_lengths() {
        let proto = TensorProto {
            dims: vec![2, 2],
            data_type: DataType::Float as i32,
            raw_data: vec![0; 12],
            ..Default::default()
        };
        assert!(matches!(Array::decode(&proto), Err(LowerError::Invalid(_))));
        let negative =
            TensorProto { dims: vec![-1], data_type: DataType::Int64 as i32, ..Default::default() };
        assert!(matches!(Array::decode(&negative), Err(LowerError::Invalid(_))));
        let huge =
            TensorProto { dims: vec![i64::MAX, 4], data_type: DataType::Int64 as i32, ..Default::default() };
        assert!(matches!(Array::decode(&huge), Err(LowerError::Invalid(_))));
    }
}
