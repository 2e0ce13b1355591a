//! Elementwise ops of one, two and three operands.

use super::broadcast::Broadcast;
use super::parallel::map;
use super::{Args, EvalError, zip_elements};
use crate::attr::NanMode;
use crate::tensor::{Tensor, TensorData};

/// The element types that elementwise arithmetic knows. Integers wrap; NaN follows `nan_mode`.
pub(super) trait Number: Copy + Default + Send + Sync + PartialOrd {
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
    /// `self - other`.
    fn minus(self, other: Self) -> Self;
    /// `self * other`.
    fn times(self, other: Self) -> Self;
    /// `|self|`.
    fn magnitude(self) -> Self;
    /// Whether this is a NaN.
    fn is_nan(self) -> bool;

    /// The greater; a NaN wins or loses by `nan_mode`.
    fn greater_of(self, other: Self, nan_mode: NanMode) -> Self {
        self.pick(other, nan_mode, |a, b| a >= b)
    }

    /// The lesser; a NaN wins or loses by `nan_mode`.
    fn lesser_of(self, other: Self, nan_mode: NanMode) -> Self {
        self.pick(other, nan_mode, |a, b| a <= b)
    }

    /// `self` if it is preferred to `other`, with NaN apart.
    fn pick(self, other: Self, nan_mode: NanMode, prefer: impl Fn(Self, Self) -> bool) -> Self {
        let take_self = match (self.is_nan(), other.is_nan()) {
            (false, false) => prefer(self, other),
            (self_nan, _) => self_nan == (nan_mode == NanMode::Propagate),
        };
        if take_self { self } else { other }
    }
}

macro_rules! integer_number {
    ($($ty:ty),*) => {$(
        impl Number for $ty {
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn magnitude(self) -> Self {
                self.wrapping_abs()
            }
            fn is_nan(self) -> bool {
                false
            }
        }
    )*};
}
integer_number!(i8, i16, i32, i64);

impl Number for f32 {
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn minus(self, other: Self) -> Self {
        self - other
    }
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn magnitude(self) -> Self {
        self.abs()
    }
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

/// Applies `f` to two operands of the same numeric type.
macro_rules! zip_numbers {
    ($args:expr, |$a:ident, $b:ident| $body:expr) => {{
        let args: &Args<'_> = $args;
        let broadcast = Broadcast::<2>::of(args, 0)?;
        macro_rules! zip {
            ($variant:ident, $x:expr, $y:expr) => {
                TensorData::$variant(broadcast.zip($x, $y, |$a, $b| $body))
            };
        }
        let data = match (args.operand(0).data(), args.operand(1).data()) {
            (TensorData::I8(x), TensorData::I8(y)) => zip!(I8, x, y),
            (TensorData::I16(x), TensorData::I16(y)) => zip!(I16, x, y),
            (TensorData::I32(x), TensorData::I32(y)) => zip!(I32, x, y),
            (TensorData::I64(x), TensorData::I64(y)) => zip!(I64, x, y),
            (TensorData::F32(x), TensorData::F32(y)) => zip!(F32, x, y),
            _ => return Err(args.elem_error()),
        };
        args.tensor(broadcast.shape.clone(), data)
    }};
}

pub(super) fn add(args: &Args<'_>) -> Result<Tensor, EvalError> {
    zip_numbers!(args, |a, b| a.plus(b))
}

pub(super) fn sub(args: &Args<'_>) -> Result<Tensor, EvalError> {
    zip_numbers!(args, |a, b| a.minus(b))
}

pub(super) fn maximum(args: &Args<'_>, nan_mode: NanMode) -> Result<Tensor, EvalError> {
    zip_numbers!(args, |a, b| a.greater_of(b, nan_mode))
}

pub(super) fn minimum(args: &Args<'_>, nan_mode: NanMode) -> Result<Tensor, EvalError> {
    zip_numbers!(args, |a, b| a.lesser_of(b, nan_mode))
}

pub(super) fn pow(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<2>::of(args, 0)?;
    let (Some(a), Some(b)) = (args.operand(0).as_f32(), args.operand(1).as_f32()) else {
        return Err(args.elem_error());
    };
    let data = TensorData::F32(broadcast.map(|[i, j]| libm::powf(a[i], b[j])));
    args.tensor(broadcast.shape, data)
}

/// Truncating division of `i32`.
pub(super) fn intdiv(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<2>::of(args, 0)?;
    let (Some(a), Some(b)) = (args.operand(0).as_i32(), args.operand(1).as_i32()) else {
        return Err(args.elem_error());
    };
    let quotients = broadcast.map(|[i, j]| a[i].checked_div(b[j]));
    let data: Option<Vec<i32>> = quotients.into_iter().collect();
    let data = data.ok_or_else(|| args.data_error("division by zero, or of the least integer by -1"))?;
    args.tensor(broadcast.shape, TensorData::I32(data))
}

pub(super) fn logical(args: &Args<'_>, f: fn(bool, bool) -> bool) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<2>::of(args, 0)?;
    let (TensorData::I1(a), TensorData::I1(b)) = (args.operand(0).data(), args.operand(1).data()) else {
        return Err(args.elem_error());
    };
    let data = TensorData::I1(broadcast.map(|[i, j]| f(a[i], b[j])));
    args.tensor(broadcast.shape, data)
}

pub(super) fn logical_not(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let TensorData::I1(a) = args.operand(0).data() else {
        return Err(args.elem_error());
    };
    args.tensor(args.operand(0).shape().to_vec(), TensorData::I1(map(a, |a| !a)))
}

/// Applies a comparison to two operands of the same numeric type.
macro_rules! compare {
    ($args:expr, $op:tt) => {{
        let args: &Args<'_> = $args;
        let broadcast = Broadcast::<2>::of(args, 0)?;
        let bits = match (args.operand(0).data(), args.operand(1).data()) {
            (TensorData::I1(a), TensorData::I1(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            (TensorData::I8(a), TensorData::I8(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            (TensorData::I16(a), TensorData::I16(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            (TensorData::I32(a), TensorData::I32(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            (TensorData::I64(a), TensorData::I64(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            (TensorData::F32(a), TensorData::F32(b)) => broadcast.map(|[i, j]| a[i] $op b[j]),
            _ => return Err(args.elem_error()),
        };
        args.tensor(broadcast.shape, TensorData::I1(bits))
    }};
}

pub(super) fn equal(args: &Args<'_>) -> Result<Tensor, EvalError> {
    compare!(args, ==)
}

pub(super) fn greater(args: &Args<'_>) -> Result<Tensor, EvalError> {
    compare!(args, >)
}

pub(super) fn greater_equal(args: &Args<'_>) -> Result<Tensor, EvalError> {
    compare!(args, >=)
}

/// `a * b`: `i8` and `i16` widen to `i32`; an `i32` product is `(a * b + 2^(shift-1)) >> shift` in 64 bits.
pub(super) fn mul(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<2>::of(args, 0)?;
    let shift = args.zero_point(2)?;
    if !(0..=63).contains(&shift) {
        return Err(args.shape_error(format!("a shift of {shift}")));
    }
    let scaled = |a: i32, b: i32| {
        let product = i64::from(a) * i64::from(b);
        let round = if shift > 0 { 1 << (shift - 1) } else { 0 };
        (product.wrapping_add(round) >> shift) as i32
    };
    let data = match (args.operand(0).data(), args.operand(1).data()) {
        (TensorData::I8(a), TensorData::I8(b)) => {
            TensorData::I32(broadcast.map(|[i, j]| i32::from(a[i]) * i32::from(b[j])))
        }
        (TensorData::I16(a), TensorData::I16(b)) => {
            TensorData::I32(broadcast.map(|[i, j]| i32::from(a[i]) * i32::from(b[j])))
        }
        (TensorData::I32(a), TensorData::I32(b)) => {
            TensorData::I32(broadcast.map(|[i, j]| scaled(a[i], b[j])))
        }
        (TensorData::F32(a), TensorData::F32(b)) => TensorData::F32(broadcast.zip(a, b, |a, b| a * b)),
        _ => return Err(args.elem_error()),
    };
    args.tensor(broadcast.shape, data)
}

/// `a >> b`, plus the last bit shifted out when it rounds.
pub(super) fn arithmetic_right_shift(args: &Args<'_>, round: bool) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<2>::of(args, 0)?;
    let elem = args.operand(0).elem();
    if args.operand(1).elem() != elem {
        return Err(args.elem_error());
    }
    let (a, b) = (args.ints(0)?, args.ints(1)?);
    let bits = 8 * elem.size_bytes() as i64;
    if let Some(shift) = b.iter().find(|&&shift| !(0..bits).contains(&shift)) {
        return Err(args.data_error(format!("a shift of {shift} in {bits} bits")));
    }
    let values = broadcast.map(|[i, j]| {
        let (value, shift) = (a[i], b[j]);
        let last_bit_out = shift > 0 && (value >> (shift - 1)) & 1 == 1;
        (value >> shift) + i64::from(round && last_bit_out)
    });
    let data = TensorData::from_ints(elem, values).ok_or_else(|| args.elem_error())?;
    args.tensor(broadcast.shape, data)
}

pub(super) fn abs(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let data = match args.operand(0).data() {
        TensorData::I8(a) => TensorData::I8(map(a, Number::magnitude)),
        TensorData::I16(a) => TensorData::I16(map(a, Number::magnitude)),
        TensorData::I32(a) => TensorData::I32(map(a, Number::magnitude)),
        TensorData::I64(a) => TensorData::I64(map(a, Number::magnitude)),
        TensorData::F32(a) => TensorData::F32(map(a, Number::magnitude)),
        TensorData::I1(_) | TensorData::I48(_) | TensorData::Index(_) => return Err(args.elem_error()),
    };
    args.tensor(args.operand(0).shape().to_vec(), data)
}

/// A function of one float.
pub(super) fn float_map(args: &Args<'_>, f: impl Fn(f32) -> f32 + Sync) -> Result<Tensor, EvalError> {
    let values = args.operand(0).as_f32().ok_or_else(|| args.elem_error())?;
    args.tensor(args.operand(0).shape().to_vec(), TensorData::F32(map(values, f)))
}

/// `cond ? on_true : on_false`.
pub(super) fn select(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let broadcast = Broadcast::<3>::of(args, 0)?;
    let (on_true, on_false) = (args.operand(1), args.operand(2));
    let TensorData::I1(cond) = args.operand(0).data() else {
        return Err(args.elem_error());
    };
    let data = zip_elements!(on_true.data(), on_false.data(), |t, f| broadcast
        .map(|[c, i, j]| { if cond[c] { t[i] } else { f[j] } }));
    args.tensor(broadcast.shape, data.ok_or_else(|| args.elem_error())?)
}
