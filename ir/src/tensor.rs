//! Tensors of data: constants in the IR, and the values that the evaluator computes.

use std::borrow::Cow;

use crate::types::{ElemType, TensorType};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// `i1`.
    I1(Vec<bool>),
    /// `i8`.
    I8(Vec<i8>),
    /// `i16`.
    I16(Vec<i16>),
    /// `i32`.
    I32(Vec<i32>),
    /// `i48`, sign-extended.
    I48(Vec<i64>),
    /// `i64`.
    I64(Vec<i64>),
    /// `index`.
    Index(Vec<i64>),
    /// `f32`.
    F32(Vec<f32>),
}

impl TensorData {
    /// The element type.
    pub fn elem(&self) -> ElemType {
        match self {
            Self::I1(_) => ElemType::I1,
            Self::I8(_) => ElemType::I8,
            Self::I16(_) => ElemType::I16,
            Self::I32(_) => ElemType::I32,
            Self::I48(_) => ElemType::I48,
            Self::I64(_) => ElemType::I64,
            Self::Index(_) => ElemType::Index,
            Self::F32(_) => ElemType::F32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::I1(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I48(v) | Self::I64(v) | Self::Index(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index` as an integer, or `None` for floats.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn int_at(&self, index: usize) -> Option<i64> {
        Some(match self {
            Self::I1(v) => i64::from(v[index]),
            Self::I8(v) => i64::from(v[index]),
            Self::I16(v) => i64::from(v[index]),
            Self::I32(v) => i64::from(v[index]),
            Self::I48(v) | Self::I64(v) | Self::Index(v) => v[index],
            Self::F32(_) => return None,
        })
    }

    /// All elements as integers, or `None` for floats.
    pub fn to_ints(&self) -> Option<Vec<i64>> {
        Some(match self {
            Self::I1(v) => v.iter().map(|&b| b.into()).collect(),
            Self::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I48(v) | Self::I64(v) | Self::Index(v) => v.to_vec(),
            Self::F32(_) => return None,
        })
    }

    /// Integers stored as `elem`, wrapping those that do not fit; `None` if `elem` is a float.
    pub fn from_ints(elem: ElemType, values: impl IntoIterator<Item = i64>) -> Option<Self> {
        let values = values.into_iter();
        Some(match elem {
            ElemType::I1 => Self::I1(values.map(|v| v != 0).collect()),
            ElemType::I8 => Self::I8(values.map(|v| v as i8).collect()),
            ElemType::I16 => Self::I16(values.map(|v| v as i16).collect()),
            ElemType::I32 => Self::I32(values.map(|v| v as i32).collect()),
            ElemType::I48 => Self::I48(values.map(|v| (v << 16) >> 16).collect()),
            ElemType::I64 => Self::I64(values.collect()),
            ElemType::Index => Self::Index(values.collect()),
            ElemType::F32 => return None,
        })
    }

    /// The elements as little-endian bytes, laid out as MLIR's `dense_resource` blobs are.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::I1(v) => v.iter().map(|&b| u8::from(b)).collect(),
            Self::I8(v) => v.iter().map(|&b| b as u8).collect(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I48(v) | Self::I64(v) | Self::Index(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The same bytes, without a copy where the elements stand so in memory.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "big") {
            return self.to_bytes().into();
        }
        Cow::Borrowed(match self {
            Self::I1(v) => bytemuck::cast_slice(v),
            Self::I8(v) => bytemuck::cast_slice(v),
            Self::I16(v) => bytemuck::cast_slice(v),
            Self::I32(v) => bytemuck::cast_slice(v),
            Self::I48(v) | Self::I64(v) | Self::Index(v) => bytemuck::cast_slice(v),
            Self::F32(v) => bytemuck::cast_slice(v),
        })
    }

    /// The inverse of [`to_bytes`](Self::to_bytes); `None` if the length is not a whole number of elements.
    pub fn from_bytes(elem: ElemType, bytes: &[u8]) -> Option<Self> {
        fn split<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
            let (chunks, rest) = bytes.as_chunks::<N>();
            rest.is_empty().then(|| chunks.iter().map(|c| read(*c)).collect())
        }
        Some(match elem {
            ElemType::I1 => Self::I1(bytes.iter().map(|&b| b != 0).collect()),
            ElemType::I8 => Self::I8(bytes.iter().map(|&b| b as i8).collect()),
            ElemType::I16 => Self::I16(split(bytes, i16::from_le_bytes)?),
            ElemType::I32 => Self::I32(split(bytes, i32::from_le_bytes)?),
            ElemType::I48 => Self::I48(split(bytes, i64::from_le_bytes)?),
            ElemType::I64 => Self::I64(split(bytes, i64::from_le_bytes)?),
            ElemType::Index => Self::Index(split(bytes, i64::from_le_bytes)?),
            ElemType::F32 => Self::F32(split(bytes, f32::from_le_bytes)?),
        })
    }
}

/// A dense tensor: a shape and its elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
}

impl Tensor {
    /// A tensor of `shape` with `data`.
    ///
    /// # Panics
    /// If the number of elements is not the product of the extents.
    pub fn new(shape: impl Into<Vec<usize>>, data: TensorData) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor data does not fill its shape");
        Self { shape, data }
    }

    /// An `f32` tensor.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self::new(shape, TensorData::F32(data))
    }

    /// An `i8` tensor.
    pub fn i8(shape: impl Into<Vec<usize>>, data: Vec<i8>) -> Self {
        Self::new(shape, TensorData::I8(data))
    }

    /// An `i32` tensor.
    pub fn i32(shape: impl Into<Vec<usize>>, data: Vec<i32>) -> Self {
        Self::new(shape, TensorData::I32(data))
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The elements, to change in place.
    pub fn data_mut(&mut self) -> &mut TensorData {
        &mut self.data
    }

    /// Gives up the elements.
    pub fn into_data(self) -> TensorData {
        self.data
    }

    /// Element type.
    pub fn elem(&self) -> ElemType {
        self.data.elem()
    }

    /// The tensor's type.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.shape.clone(), self.elem())
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.data.len()
    }

    /// The elements as `f32`, if they are.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let TensorData::F32(v) = &self.data { Some(v) } else { None }
    }

    /// The elements as `i8`, if they are.
    pub fn as_i8(&self) -> Option<&[i8]> {
        if let TensorData::I8(v) = &self.data { Some(v) } else { None }
    }

    /// The elements as `i32`, if they are.
    pub fn as_i32(&self) -> Option<&[i32]> {
        if let TensorData::I32(v) = &self.data { Some(v) } else { None }
    }

    /// The same elements in another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Self {
        Self::new(shape, self.data)
    }
}

/// An axis along which elements are read: how many, and how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Elements.
    pub extent: usize,
    /// From one to the next.
    pub step: usize,
}

/// The elements along some axes, the last of which runs fastest, row-major.
///
/// # Panics
/// If the axes lead beyond the elements.
pub fn elements_along<T: Copy>(data: &[T], axes: &[Axis]) -> Vec<T> {
    let n_elements = axes.iter().map(|axis| axis.extent).product();
    let mut out = Vec::with_capacity(n_elements);
    let Some((inner, outer)) = axes.split_last() else { return data.to_vec() };
    let mut place = vec![0; outer.len()];
    let mut base = 0;
    while out.len() < n_elements {
        if inner.step == 1 {
            out.extend_from_slice(&data[base..base + inner.extent]);
        } else {
            out.extend(data[base..].iter().step_by(inner.step).take(inner.extent));
        }
        for (at, axis) in place.iter_mut().zip(outer).rev() {
            *at += 1;
            base += axis.step;
            if *at < axis.extent {
                break;
            }
            base -= axis.step * axis.extent;
            *at = 0;
        }
    }
    out
}

/// [`elements_along`] of floats, for crates that are not compiled for speed.
///
/// # Panics
/// If the axes lead beyond the elements.
pub fn floats_along(data: &[f32], axes: &[Axis]) -> Vec<f32> {
    elements_along(data, axes)
}
