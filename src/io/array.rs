//! A tensor as a user hands it in and gets it back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The greatest integer up to which `f64` holds every integer: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// `false` or `true`, as 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits; values up to 2^53.
    U64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits; values from -2^53 to 2^53.
    I64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl DType {
    /// Every type.
    pub const ALL: [Self; 12] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
    ];

    /// Its name: `f32`, `i64`, `bool`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// The type of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of an element in a file.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether it is `f16`, `f32` or `f64`.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// The value of this float type that is nearest to a number; of another type the number itself.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F16 => npyz::half::f16::from_f64(value).to_f64(),
            Self::F32 => f64::from(value as f32),
            _ => value,
        }
    }

    /// The least and greatest values of an integer type that an [`Array`] can hold.
    pub fn int_range(self) -> Option<(f64, f64)> {
        Some(match self {
            Self::Bool => (0.0, 1.0),
            Self::U8 => (0.0, f64::from(u8::MAX)),
            Self::U16 => (0.0, f64::from(u16::MAX)),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::U64 => (0.0, EXACT),
            Self::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            Self::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::I64 => (-EXACT, EXACT),
            Self::F16 | Self::F32 | Self::F64 => return None,
        })
    }

    /// Whether an array of this type can hold a value without changing it. Floats hold any number, rounded.
    pub fn holds(self, value: f64) -> bool {
        match self.int_range() {
            Some((least, greatest)) => (least..=greatest).contains(&value) && value.fract() == 0.0,
            None => true,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = ArrayError;

    fn from_str(name: &str) -> Result<Self, ArrayError> {
        Self::from_name(name).ok_or_else(|| ArrayError::UnknownType(name.to_owned()))
    }
}

/// Why numbers do not make an array.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ArrayError {
    /// No element type has this name.
    #[error("there is no element type `{0}`")]
    UnknownType(String),
    /// The extents do not multiply to the number of values.
    #[error("shape {} has {expected} elements, found {found}", show_shape(shape))]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Its number of elements, saturated.
        expected: usize,
        /// How many values there are.
        found: usize,
    },
    /// A 64-bit integer that a double does not hold, or that others are rounded to.
    #[error("element {index} is {value}: of {dtype} {INEXACT}")]
    Inexact {
        /// Where it stands.
        index: usize,
        /// The integer.
        value: i128,
        /// The type.
        dtype: DType,
    },
    /// A value is not one of the type.
    #[error("element {index} is {value}, which is no {dtype}{}", exactness(*dtype))]
    Value {
        /// Where it stands.
        index: usize,
        /// The value.
        value: f64,
        /// The type.
        dtype: DType,
    },
}

/// What an integer of more bits would not be.
const INEXACT: &str = "only integers of less than 2^53 are taken, of which a double holds each";

fn exactness(dtype: DType) -> &'static str {
    match dtype {
        DType::I64 | DType::U64 => " of at most 53 bits",
        _ => "",
    }
}

/// A shape for people: `1x3x416x416`, `scalar` for none.
pub fn show_shape(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "scalar".to_owned();
    }
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A dense array, row-major.
///
/// Values of all types are held as `f64`, which is exact for every one but 64-bit integers beyond 2^53 in
/// absolute value: loading refuses those. Arrays of `f16` and `f32` hold values of these types.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents, outermost first; none for a scalar.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: DType,
    /// The elements.
    pub values: Vec<f64>,
}

impl Array {
    /// An array whose values all fit its shape and type. Floats are rounded to their type.
    ///
    /// # Errors
    /// If the number of values or one of them does not fit.
    pub fn new(shape: Vec<usize>, dtype: DType, mut values: Vec<f64>) -> Result<Self, ArrayError> {
        let expected = n_elements(&shape).unwrap_or(usize::MAX);
        if expected != values.len() {
            return Err(ArrayError::Length { shape, expected, found: values.len() });
        }
        values.iter_mut().for_each(|value| *value = dtype.round(*value));
        match values.iter().position(|&value| !dtype.holds(value)) {
            Some(index) => Err(ArrayError::Value { index, value: values[index], dtype }),
            None => Ok(Self { shape, dtype, values }),
        }
    }

    /// An `f32` array.
    ///
    /// # Panics
    /// If the number of values is not that of the shape.
    pub fn f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        assert_eq!(n_elements(&shape), Some(values.len()), "the values fill the shape");
        Self { shape, dtype: DType::F32, values: values.into_iter().map(f64::from).collect() }
    }

    /// The same numbers as elements of another type: floats rounded, all others as they are.
    ///
    /// # Errors
    /// If an integer type or `bool` does not hold one of them.
    pub fn cast(self, dtype: DType) -> Result<Self, ArrayError> {
        Self::new(self.shape, dtype, self.values)
    }

    /// Whether the values fill the shape and are all of the type.
    pub(crate) fn is_of_its_type(&self) -> bool {
        let are_held = match self.dtype {
            DType::F32 => self.all(|v| (f64::from(v as f32) == v) | v.is_nan()),
            dtype => self.all(|v| dtype.round(v).to_bits() == v.to_bits() && dtype.holds(v)),
        };
        are_held && n_elements(&self.shape) == Some(self.values.len())
    }

    /// Whether something is so of all values; it is asked of many at a time, so that vectors can.
    fn all(&self, is_so: impl Fn(f64) -> bool) -> bool {
        self.values.chunks(256).all(|values| values.iter().fold(true, |all, &v| all & is_so(v)))
    }

    /// What it holds that is no finite number, in words; `None` if all its elements are.
    pub fn not_finite(&self) -> Option<String> {
        if self.all(f64::is_finite) {
            return None;
        }
        let count = |is: fn(f64) -> bool| self.values.iter().filter(|&&value| is(value)).count();
        let (n_nan, n_infinite) = (count(f64::is_nan), count(f64::is_infinite));
        let of = self.values.len();
        match (n_nan, n_infinite) {
            (0, 0) => None,
            (0, n) => Some(format!("an infinity in {n} of {of} elements")),
            (n, 0) => Some(format!("NaN in {n} of {of} elements")),
            (n, m) => Some(format!("NaN in {n} and an infinity in {m} of {of} elements")),
        }
    }

    /// A number that it holds which is beyond single precision, in which networks are computed.
    pub fn beyond_f32(&self) -> Option<f64> {
        let is_beyond = |value: f64| value.is_finite() && value.abs() > f64::from(f32::MAX);
        if self.all(|value| !is_beyond(value)) {
            return None;
        }
        self.values.iter().copied().find(|&value| is_beyond(value))
    }

    /// The values as `f32`, rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// The product of extents, if it is a number.
pub(crate) fn n_elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_must_fit_shape_and_type() {
        assert!(Array::new(vec![2, 2], DType::I8, vec![-128.0, 0.0, 1.0, 127.0]).is_ok());
        let long = Array::new(vec![2], DType::I8, vec![0.0; 3]);
        assert_eq!(long.expect_err("refused").to_string(), "shape 2 has 2 elements, found 3");
        let large = Array::new(vec![1], DType::I64, vec![2f64.powi(54)]);
        assert_eq!(
            large.expect_err("refused").to_string(),
            "element 0 is 18014398509481984, which is no i64 of at most 53 bits"
        );
        assert!(Array::new(vec![1], DType::Bool, vec![2.0]).is_err());
        assert!(Array::new(vec![1], DType::U8, vec![f64::NAN]).is_err());
        assert!(Array::new(vec![1], DType::F32, vec![f64::NAN]).is_ok());
        assert!(Array::new(vec![usize::MAX, 2], DType::F32, vec![0.0]).is_err());
    }

    #[test]
    fn single_precision_is_single_precision() {
        let array = Array::new(vec![], DType::F32, vec![0.1]).expect("a scalar");
        assert_eq!(array.values, [f64::from(0.1f32)]);
        assert_eq!(show_shape(&array.shape), "scalar");
    }

    #[test]
    fn arrays_are_cast_only_to_what_holds_them() {
        let array = Array::f32(vec![3], vec![0.0, 1.0, 3.0]);
        assert_eq!(array.clone().cast(DType::U8).expect("small").values, [0.0, 1.0, 3.0]);
        assert!(array.clone().cast(DType::Bool).is_err());
        assert!(Array::f32(vec![1], vec![0.5]).cast(DType::I64).is_err());
        let halves = Array::f32(vec![3], vec![1.000_1, 1e6, -3e-9]).cast(DType::F16).expect("floats");
        assert_eq!(halves.values, [1.0, f64::INFINITY, 0.0]);
    }

    #[test]
    fn names_read_back() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
        }
        assert!("bf16".parse::<DType>().is_err());
    }
}
