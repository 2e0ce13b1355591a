//! Types of values: tensors with static shapes, and TOSA's shape type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of one element of a tensor. Integers are signless, as in MLIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ElemType {
    /// Boolean, `i1`.
    I1,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 48-bit integer: the accumulator of 16-bit activations.
    I48,
    /// 64-bit integer.
    I64,
    /// MLIR's `index`, the element of `!tosa.shape` constants.
    Index,
    /// IEEE single precision.
    F32,
}

impl ElemType {
    /// Every element type.
    pub const ALL: [Self; 8] =
        [Self::I1, Self::I8, Self::I16, Self::I32, Self::I48, Self::I64, Self::Index, Self::F32];

    /// The MLIR keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::I1 => "i1",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I48 => "i48",
            Self::I64 => "i64",
            Self::Index => "index",
            Self::F32 => "f32",
        }
    }

    /// The type a keyword names.
    pub fn from_keyword(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.keyword() == word)
    }

    /// Bytes of one element in memory (`i1` takes one, `i48` eight, as MLIR's `dense_resource` lays them
    /// out).
    pub fn size_bytes(self) -> usize {
        match self {
            Self::I1 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I48 | Self::I64 | Self::Index => 8,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        self == Self::F32
    }

    /// The least and greatest values of an integer type.
    pub fn int_range(self) -> Option<(i64, i64)> {
        let bits = match self {
            Self::I1 => return Some((0, 1)),
            Self::I8 => 8,
            Self::I16 => 16,
            Self::I32 => 32,
            Self::I48 => 48,
            Self::I64 | Self::Index => 64,
            Self::F32 => return None,
        };
        Some((i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)))
    }
}

impl fmt::Display for ElemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())
    }
}

/// A ranked tensor type with a static shape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorType {
    /// Extents, outermost first. Rank 0 is a scalar.
    pub shape: Vec<usize>,
    /// Element type.
    pub elem: ElemType,
}

impl TensorType {
    /// A tensor type of the given shape and element.
    pub fn new(shape: impl Into<Vec<usize>>, elem: ElemType) -> Self {
        Self { shape: shape.into(), elem }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the tensor, densely packed.
    pub fn size_bytes(&self) -> usize {
        self.n_elements() * self.elem.size_bytes()
    }

    /// The same shape with another element.
    pub fn with_elem(&self, elem: ElemType) -> Self {
        Self { shape: self.shape.clone(), elem }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensor<")?;
        for extent in &self.shape {
            write!(f, "{extent}x")?;
        }
        write!(f, "{}>", self.elem)
    }
}

/// The type of an SSA value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Type {
    /// A ranked tensor.
    Tensor(TensorType),
    /// `!tosa.shape<rank>`: a compile-time list of extents.
    Shape(usize),
}

impl Type {
    /// A tensor type of the given shape and element.
    pub fn tensor(shape: impl Into<Vec<usize>>, elem: ElemType) -> Self {
        Self::Tensor(TensorType::new(shape, elem))
    }

    /// The tensor type, if this is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Shape(_) => None,
        }
    }
}

impl From<TensorType> for Type {
    fn from(tensor: TensorType) -> Self {
        Self::Tensor(tensor)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(tensor) => tensor.fmt(f),
            Self::Shape(rank) => write!(f, "!tosa.shape<{rank}>"),
        }
    }
}
