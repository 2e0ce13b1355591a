//! Attributes: compile-time values on operations.
//!
//! An op's inherent attributes are typed Rust fields of its row in [`crate::dialect`]; [`AttrValue`] turns
//! each field into an [`Attribute`] for the printer and back for the parser. Structured data of later phases
//! (plans, schedules) are serde values; [`Attribute::from_serde`] and [`Attribute::to_serde`] carry them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tensor::Tensor;
use crate::types::{ElemType, Type};

/// A constant tensor held by an attribute; clones share the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Elements {
    /// The data.
    pub tensor: Arc<Tensor>,
}

impl From<Tensor> for Elements {
    fn from(tensor: Tensor) -> Self {
        Self { tensor: Arc::new(tensor) }
    }
}

/// The inputs and results of a function.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FunctionType {
    /// Argument types.
    pub inputs: Vec<Type>,
    /// Result types.
    pub results: Vec<Type>,
}

/// A compile-time value.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Present or absent.
    Unit,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of a type: `1 : i32`.
    Int(i64, ElemType),
    /// A float of a type: `1.0 : f32`. MLIR's `f64` is the type when the element is `None`.
    Float(f64, Option<ElemType>),
    /// A string.
    Str(String),
    /// `[a, b]`.
    Array(Vec<Attribute>),
    /// `{a = 1, b = 2}`.
    Dict(BTreeMap<String, Attribute>),
    /// `array<i32: 1, 2>`.
    I32Array(Vec<i32>),
    /// `array<i64: 1, 2>`.
    I64Array(Vec<i64>),
    /// A type.
    Type(Type),
    /// An element type alone, such as an accumulator type: `i32`.
    Elem(ElemType),
    /// A function type.
    Function(FunctionType),
    /// `dense<…>` or `dense_resource<…>`.
    Elements(Elements),
    /// A dialect's enum case: `#tosa.rounding_mode<SINGLE_ROUND>`; the mnemonic (`tosa.rounding_mode`) and
    /// the case.
    Enum(String, String),
}

/// Why an attribute could not be taken as the type an op wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct AttrError {
    /// What the op's table row asks for.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Attribute {
    fn mismatch(&self, expected: &str) -> AttrError {
        let found = match self {
            Self::Unit => "unit",
            Self::Bool(_) => "a boolean",
            Self::Int(..) => "an integer",
            Self::Float(..) => "a float",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
            Self::Dict(_) => "a dictionary",
            Self::I32Array(_) => "array<i32>",
            Self::I64Array(_) => "array<i64>",
            Self::Type(_) | Self::Elem(_) => "a type",
            Self::Function(_) => "a function type",
            Self::Elements(_) => "dense elements",
            Self::Enum(..) => "an enum case",
        };
        AttrError { expected: expected.to_owned(), found: found.to_owned() }
    }

    /// A serde value as an attribute: maps become dictionaries, sequences arrays, integers `i64`, floats
    /// `f64`; `null` becomes unit.
    ///
    /// # Errors
    /// If `value` does not serialise to JSON's data model, or holds an integer beyond `i64`.
    pub fn from_serde<T: Serialize>(value: &T) -> Result<Self, AttrError> {
        let json = serde_json::to_value(value)
            .map_err(|e| AttrError { expected: "a serialisable value".to_owned(), found: e.to_string() })?;
        Self::from_json(json)
    }

    fn from_json(json: serde_json::Value) -> Result<Self, AttrError> {
        use serde_json::Value;
        Ok(match json {
            Value::Null => Self::Unit,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i, ElemType::I64),
                (None, Some(f)) if !n.is_u64() => Self::Float(f, None),
                _ => {
                    return Err(AttrError {
                        expected: "an integer within i64".to_owned(),
                        found: n.to_string(),
                    });
                }
            },
            Value::String(s) => Self::Str(s),
            Value::Array(items) => {
                Self::Array(items.into_iter().map(Self::from_json).collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => {
                Self::Dict(entries.into_iter().map(|(k, v)| Ok((k, Self::from_json(v)?))).collect::<Result<
                    _,
                    AttrError,
                >>(
                )?)
            }
        })
    }

    /// The inverse of [`from_serde`](Self::from_serde).
    ///
    /// # Errors
    /// If the attribute has no JSON form, or it is not a `T`.
    pub fn to_serde<T: DeserializeOwned>(&self) -> Result<T, AttrError> {
        serde_json::from_value(self.to_json()?).map_err(|e| {
            // The names of types without the modules that they stand in.
            let pieces = std::any::type_name::<T>().split_inclusive(['<', ' ', '(', '[']);
            let expected = pieces.map(|piece| piece.rsplit("::").next().unwrap_or(piece)).collect();
            AttrError { expected, found: e.to_string() }
        })
    }

    fn to_json(&self) -> Result<serde_json::Value, AttrError> {
        use serde_json::Value;
        Ok(match self {
            Self::Unit => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i, _) => Value::from(*i),
            Self::Float(f, _) => Value::from(*f),
            Self::Str(s) => Value::String(s.clone()),
            Self::Array(items) => Value::Array(items.iter().map(Self::to_json).collect::<Result<_, _>>()?),
            Self::Dict(entries) => {
                Value::Object(entries.iter().map(|(k, v)| Ok((k.clone(), v.to_json()?))).collect::<Result<
                    _,
                    AttrError,
                >>(
                )?)
            }
            _ => return Err(self.mismatch("a value with a JSON form")),
        })
    }
}

/// A Rust type that is the field of an op's attribute.
pub trait AttrValue: Sized {
    /// What the field is called in errors and in the generated reference.
    fn describe() -> String;
    /// The attribute that holds this value.
    fn to_attr(&self) -> Attribute;
    /// The value an attribute holds.
    ///
    /// # Errors
    /// If the attribute is of another kind.
    fn from_attr(attr: &Attribute) -> Result<Self, AttrError>;
}

macro_rules! attr_value {
    ($ty:ty, $what:literal, $value:ident => $to:expr, $pattern:pat $(if $guard:expr)? => $from:expr) => {
        impl AttrValue for $ty {
            fn describe() -> String {
                $what.to_owned()
            }
            fn to_attr(&self) -> Attribute {
                let $value = self;
                $to
            }
            fn from_attr(attr: &Attribute) -> Result<Self, AttrError> {
                match attr {
                    $pattern $(if $guard)? => Ok($from),
                    _ => Err(attr.mismatch($what)),
                }
            }
        }
    };
}

attr_value!(bool, "a boolean", v => Attribute::Bool(*v), Attribute::Bool(v) => *v);
attr_value!(i32, "i32", v => Attribute::Int(i64::from(*v), ElemType::I32),
    Attribute::Int(v, ElemType::I32) if i32::try_from(*v).is_ok() => *v as i32);
attr_value!(i64, "i64", v => Attribute::Int(*v, ElemType::I64), Attribute::Int(v, ElemType::I64) => *v);
attr_value!(String, "a string", v => Attribute::Str(v.clone()), Attribute::Str(v) => v.clone());
attr_value!(ElemType, "an element type", v => Attribute::Elem(*v), Attribute::Elem(v) => *v);
attr_value!(
    FunctionType, "a function type",
    v => Attribute::Function(v.clone()),
    Attribute::Function(v) => v.clone()
);
attr_value!(
    Elements, "dense elements",
    v => Attribute::Elements(v.clone()),
    Attribute::Elements(v) => v.clone()
);
attr_value!(Vec<i32>, "array<i32>", v => Attribute::I32Array(v.clone()), Attribute::I32Array(v) => v.clone());
attr_value!(Vec<i64>, "array<i64>", v => Attribute::I64Array(v.clone()), Attribute::I64Array(v) => v.clone());

impl<const N: usize> AttrValue for [i64; N] {
    fn describe() -> String {
        format!("array<i64> of {N}")
    }
    fn to_attr(&self) -> Attribute {
        Attribute::I64Array(self.to_vec())
    }
    fn from_attr(attr: &Attribute) -> Result<Self, AttrError> {
        match attr {
            Attribute::I64Array(v) => v
                .as_slice()
                .try_into()
                .map_err(|_| AttrError { expected: Self::describe(), found: format!("{} numbers", v.len()) }),
            _ => Err(attr.mismatch(&Self::describe())),
        }
    }
}

impl AttrValue for Attribute {
    fn describe() -> String {
        "any attribute".to_owned()
    }
    fn to_attr(&self) -> Attribute {
        self.clone()
    }
    fn from_attr(attr: &Attribute) -> Result<Self, AttrError> {
        Ok(attr.clone())
    }
}

impl<T: AttrValue> AttrValue for Option<T> {
    fn describe() -> String {
        format!("optional {}", T::describe())
    }
    fn to_attr(&self) -> Attribute {
        self.as_ref().map_or(Attribute::Unit, AttrValue::to_attr)
    }
    fn from_attr(attr: &Attribute) -> Result<Self, AttrError> {
        if *attr == Attribute::Unit { Ok(None) } else { T::from_attr(attr).map(Some) }
    }
}

/// Declares an enum whose cases are an MLIR dialect's enum attribute.
macro_rules! enum_attr {
    ($(#[$doc:meta])* $name:ident = $mnemonic:literal {
        $($(#[$case_doc:meta])* $case:ident = $text:literal),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$case_doc])* $case),+ }
        impl AttrValue for $name {
            fn describe() -> String {
                concat!("#", $mnemonic).to_owned()
            }
            fn to_attr(&self) -> Attribute {
                let case = match self { $(Self::$case => $text),+ };
                Attribute::Enum($mnemonic.to_owned(), case.to_owned())
            }
            fn from_attr(attr: &Attribute) -> Result<Self, AttrError> {
                match attr {
                    Attribute::Enum(m, c) if m == $mnemonic => match c.as_str() {
                        $($text => Ok(Self::$case),)+
                        other => Err(AttrError { expected: Self::describe(), found: format!("unknown case \
                            {other}") }),
                    },
                    _ => Err(attr.mismatch(&Self::describe())),
                }
            }
        }
    };
}

enum_attr! {
    /// How RESCALE rounds.
    RoundingMode = "tosa.rounding_mode" {
        /// Round half up, once.
        SingleRound = "SINGLE_ROUND",
        /// As the hardware likes; never produced by Strata.
        InexactRound = "INEXACT_ROUND",
        /// Round twice, as TFLite does.
        DoubleRound = "DOUBLE_ROUND",
    }
}
enum_attr! {
    /// What a comparison does with a NaN.
    NanMode = "tosa.nan_mode" {
        /// NaN wins.
        Propagate = "PROPAGATE",
        /// NaN loses.
        Ignore = "IGNORE",
    }
}
enum_attr! {
    /// How RESIZE interpolates.
    ResizeMode = "tosa.resize_mode" {
        /// The nearest sample.
        NearestNeighbor = "NEAREST_NEIGHBOR",
        /// Linear in both axes.
        Bilinear = "BILINEAR",
    }
}
