//! The reference evaluator: what every op of the IR computes, written for clarity.
//!
//! It is the meaning of the IR. The compiled program must equal it bit for bit, passes fold constants with
//! it, the quantiser calibrates with it, and `tests/judges` compares it with the TOSA project's own reference
//! model.
//!
//! | module | what it holds |
//! |---|---|
//! | [`function`](self) | functions and regions: environments, last uses, observers |
//! | `conv`, `pool` | windows that slide over NHWC tensors, and the matrix product |
//! | `elementwise`, `broadcast` | elementwise ops, and how extents of 1 stretch |
//! | `convert` | clamp, cast, negate, table |
//! | `rescale` | fixed-point scaling |
//! | `resize`, `reduce`, `shape` | interpolation; sums, extremes and argmax; moves of data |
//!
//! # Arithmetic
//!
//! Integers follow TOSA 1.0 exactly, saturating where it says so. Where TOSA requires that a value fits (an
//! `i32` accumulator, the sum of an `add`) and it does not, the program has no meaning in TOSA; here such
//! `i8` to `i32` arithmetic wraps, and an `i48` accumulator is held in 64 bits and wraps to 48 when stored.
//! What TOSA calls an error that depends on data (division by zero, a gather index out of range) is an
//! [`EvalError`].
//!
//! Floats are IEEE single precision. Sums run in a fixed order and transcendental functions come from a
//! portable library, so results do not depend on the number of threads or on the machine.
//!
//! Invariants: no input makes it panic, whether or not the module verifies; every result has the type that
//! the IR says. It does no IO and is no fast kernel: about a billion multiplications a second and core.

mod broadcast;
mod conv;
mod convert;
mod elementwise;
mod function;
mod parallel;
mod pool;
pub mod random;
mod reduce;
mod rescale;
mod resize;
mod shape;

pub use function::{eval_function, eval_function_with, eval_op};
pub use rescale::{Scale, apply_scale_16, apply_scale_32, reciprocal_scale};

use crate::dialect::Op;
use crate::module::{Location, ValueId};
use crate::tensor::{Tensor, TensorData};
use crate::types::{ElemType, TensorType, Type};

/// Why an op could not be evaluated. All but [`Data`](Self::Data) mean that the module does not verify, or
/// that the inputs are not those of the function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The op has another number of operands.
    #[error("`{op}` takes {expected} operands, found {found}")]
    Operands {
        /// The op.
        op: &'static str,
        /// How many it takes.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The op has another number of results.
    #[error("`{op}` gives {expected} results, the caller expects {found}")]
    Results {
        /// The op.
        op: &'static str,
        /// How many it gives.
        expected: usize,
        /// How many the caller expects.
        found: usize,
    },
    /// The op is not defined on these element types.
    #[error("`{op}` is not defined on {found}")]
    Elem {
        /// The op.
        op: &'static str,
        /// The element types of operands and results.
        found: String,
    },
    /// Ranks, extents or attributes do not fit together.
    #[error("`{op}`: {message}")]
    Shape {
        /// The op.
        op: &'static str,
        /// What does not fit.
        message: String,
    },
    /// The result is not of the type that the IR says.
    #[error("`{op}` computes {found}, its result type is {expected}")]
    ResultType {
        /// The op.
        op: &'static str,
        /// The type in the IR.
        expected: Type,
        /// The type of what was computed.
        found: TensorType,
    },
    /// The data have no meaning in TOSA: division by zero, an index out of range.
    #[error("`{op}`: {message}")]
    Data {
        /// The op.
        op: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The op computes nothing by itself: a function, a module, a terminator, a region op without its region.
    #[error("`{op}` has no value by itself")]
    NoValue {
        /// The op.
        op: &'static str,
    },
    /// An operand is used before it is defined, or captured by a region that is evaluated alone.
    #[error("value {value} is not defined here")]
    Undefined {
        /// The value.
        value: ValueId,
    },
    /// The inputs are not those of the function.
    #[error("the function takes {expected}, found {found}")]
    Inputs {
        /// The argument types.
        expected: String,
        /// The types of the inputs.
        found: String,
    },
    /// Where another error happened.
    #[error("{location}: {source}")]
    At {
        /// The location of the op.
        location: String,
        /// What happened.
        source: Box<EvalError>,
    },
}

impl EvalError {
    fn at(self, location: &Location) -> Self {
        match self {
            located @ Self::At { .. } => located,
            source => Self::At { location: location.to_string(), source: Box::new(source) },
        }
    }
}

/// What one op computes from its operands: constants need none, region ops and terminators have no value
/// alone.
///
/// `!tosa.shape` operands are tensors of `index`. `results` are the result types in the IR; they decide what
/// the operands leave open (the target of a cast or a rescale), and the computed types must equal them.
///
/// # Errors
/// If the op has no value by itself, operands and attributes do not fit, or the data have no meaning in TOSA.
pub fn eval_op_kind(op: &Op, operands: &[&Tensor], results: &[Type]) -> Result<Vec<Tensor>, EvalError> {
    let info = op.info();
    let args = Args { op: op.name(), operands, results };
    if !info.n_operands.allows(operands.len()) {
        let (op, expected, found) = (args.op, info.operands.len(), operands.len());
        return Err(EvalError::Operands { op, expected, found });
    }
    let [result] = results else {
        return Err(EvalError::Results { op: args.op, expected: 1, found: results.len() });
    };
    let tensor = match op {
        Op::BuiltinModule(_)
        | Op::Func(_)
        | Op::FuncReturn(_)
        | Op::Stage(_)
        | Op::Phase(_)
        | Op::Yield(_) => return Err(EvalError::NoValue { op: args.op }),
        Op::Const(op) => (*op.values.tensor).clone(),
        Op::ConstShape(op) => (*op.values.tensor).clone(),
        Op::Conv2d(op) => conv::conv2d(&args, op)?,
        Op::DepthwiseConv2d(op) => conv::depthwise_conv2d(&args, op)?,
        Op::TransposeConv2d(op) => conv::transpose_conv2d(&args, op)?,
        Op::MatMul(_) => conv::matmul(&args)?,
        Op::AvgPool2d(op) => pool::avg_pool2d(&args, op)?,
        Op::MaxPool2d(op) => pool::max_pool2d(&args, op)?,
        Op::Argmax(op) => reduce::argmax(&args, op.axis, op.nan_mode)?,
        Op::Add(_) => elementwise::add(&args)?,
        Op::Sub(_) => elementwise::sub(&args)?,
        Op::Maximum(op) => elementwise::maximum(&args, op.nan_mode)?,
        Op::Minimum(op) => elementwise::minimum(&args, op.nan_mode)?,
        Op::Pow(_) => elementwise::pow(&args)?,
        Op::IntDiv(_) => elementwise::intdiv(&args)?,
        Op::LogicalAnd(_) => elementwise::logical(&args, |a, b| a & b)?,
        Op::LogicalOr(_) => elementwise::logical(&args, |a, b| a | b)?,
        Op::LogicalXor(_) => elementwise::logical(&args, |a, b| a ^ b)?,
        Op::Equal(_) => elementwise::equal(&args)?,
        Op::Greater(_) => elementwise::greater(&args)?,
        Op::GreaterEqual(_) => elementwise::greater_equal(&args)?,
        Op::Mul(_) => elementwise::mul(&args)?,
        Op::ArithmeticRightShift(op) => elementwise::arithmetic_right_shift(&args, op.round)?,
        Op::Abs(_) => elementwise::abs(&args)?,
        Op::Ceil(_) => elementwise::float_map(&args, f32::ceil)?,
        Op::Floor(_) => elementwise::float_map(&args, f32::floor)?,
        Op::Exp(_) => elementwise::float_map(&args, libm::expf)?,
        Op::Log(_) => elementwise::float_map(&args, libm::logf)?,
        Op::Reciprocal(_) => elementwise::float_map(&args, f32::recip)?,
        Op::Rsqrt(_) => elementwise::float_map(&args, |x| x.sqrt().recip())?,
        Op::Sigmoid(_) => elementwise::float_map(&args, |x| (1.0 + libm::expf(-x)).recip())?,
        Op::Tanh(_) => elementwise::float_map(&args, libm::tanhf)?,
        Op::Erf(_) => elementwise::float_map(&args, libm::erff)?,
        Op::Sin(_) => elementwise::float_map(&args, libm::sinf)?,
        Op::Cos(_) => elementwise::float_map(&args, libm::cosf)?,
        Op::LogicalNot(_) => elementwise::logical_not(&args)?,
        Op::Identity(_) => operands[0].clone(),
        Op::Negate(_) => convert::negate(&args)?,
        Op::Clamp(op) => convert::clamp(&args, op)?,
        Op::Select(_) => elementwise::select(&args)?,
        Op::Table(_) => convert::table(&args)?,
        Op::Rescale(op) => rescale::rescale(&args, op)?,
        Op::Cast(_) => convert::cast(&args)?,
        Op::ReduceSum(op) => reduce::sum(&args, op.axis)?,
        Op::ReduceMax(op) => reduce::max(&args, op.axis, op.nan_mode)?,
        Op::ReduceMin(op) => reduce::min(&args, op.axis, op.nan_mode)?,
        Op::ReduceProduct(op) => reduce::product(&args, op.axis)?,
        Op::Concat(op) => shape::concat(&args, op.axis)?,
        Op::Pad(_) => shape::pad(&args)?,
        Op::Reshape(_) => shape::reshape(&args)?,
        Op::Reverse(op) => shape::reverse(&args, op.axis)?,
        Op::Slice(_) => shape::slice(&args)?,
        Op::Tile(_) => shape::tile(&args)?,
        Op::Transpose(op) => shape::transpose(&args, &op.perms)?,
        Op::Gather(_) => shape::gather(&args)?,
        Op::Resize(op) => resize::resize(&args, op.mode)?,
    };
    if !has_type(&tensor, result) {
        return Err(EvalError::ResultType { op: args.op, expected: result.clone(), found: tensor.ty() });
    }
    Ok(vec![tensor])
}

/// Whether a value of type `ty` may hold `tensor`; a shape is a list of `index`.
fn has_type(tensor: &Tensor, ty: &Type) -> bool {
    match ty {
        Type::Tensor(ty) => tensor.shape() == ty.shape && tensor.elem() == ty.elem,
        Type::Shape(rank) => tensor.elem() == ElemType::Index && tensor.n_elements() == *rank,
    }
}

/// The operands and result types of one op, and the checks that all kernels share.
struct Args<'a> {
    op: &'static str,
    operands: &'a [&'a Tensor],
    results: &'a [Type],
}

impl<'a> Args<'a> {
    /// Operand `index`; the row's arity was checked.
    fn operand(&self, index: usize) -> &'a Tensor {
        self.operands[index]
    }

    /// The element type of the result in the IR.
    fn result_elem(&self) -> ElemType {
        self.results[0].as_tensor().map_or(ElemType::Index, |t| t.elem)
    }

    fn shape_error(&self, message: impl Into<String>) -> EvalError {
        EvalError::Shape { op: self.op, message: message.into() }
    }

    fn data_error(&self, message: impl Into<String>) -> EvalError {
        EvalError::Data { op: self.op, message: message.into() }
    }

    /// The op is not defined on the element types it has.
    fn elem_error(&self) -> EvalError {
        let operands: Vec<_> = self.operands.iter().map(|t| t.elem().keyword()).collect();
        let results: Vec<_> = self.results.iter().map(Type::to_string).collect();
        EvalError::Elem { op: self.op, found: format!("({}) -> {}", operands.join(", "), results.join(", ")) }
    }

    /// Extents of operand `index`, which must have rank `N`.
    fn dims<const N: usize>(&self, index: usize) -> Result<[usize; N], EvalError> {
        let shape = self.operand(index).shape();
        shape.try_into().map_err(|_| {
            self.shape_error(format!("operand {index} must have rank {N}, its shape is {shape:?}"))
        })
    }

    /// The elements of operand `index` as integers.
    fn ints(&self, index: usize) -> Result<Vec<i64>, EvalError> {
        self.operand(index).data().to_ints().ok_or_else(|| self.elem_error())
    }

    /// The elements of operand `index` as extents or offsets that are not negative.
    fn extents(&self, index: usize) -> Result<Vec<usize>, EvalError> {
        let values = self.ints(index)?;
        let extents = values.iter().map(|&v| usize::try_from(v)).collect::<Result<_, _>>();
        extents.map_err(|_| self.shape_error(format!("operand {index} holds a negative extent: {values:?}")))
    }

    /// The zero point that operand `index` holds: its only element, 0 for floats.
    fn zero_point(&self, index: usize) -> Result<i64, EvalError> {
        let tensor = self.operand(index);
        if tensor.n_elements() != 1 {
            return Err(self.shape_error(format!("operand {index} must hold one element")));
        }
        Ok(tensor.data().int_at(0).unwrap_or(0))
    }

    /// `axis` as an index into the shape of operand 0.
    fn axis(&self, axis: i32) -> Result<usize, EvalError> {
        let rank = self.operand(0).shape().len();
        usize::try_from(axis)
            .ok()
            .filter(|&axis| axis < rank)
            .ok_or_else(|| self.shape_error(format!("axis {axis} of a tensor of rank {rank}")))
    }

    /// A result tensor, if `data` fill `shape`.
    fn tensor(&self, shape: Vec<usize>, data: TensorData) -> Result<Tensor, EvalError> {
        if shape.iter().product::<usize>() == data.len() {
            Ok(Tensor::new(shape, data))
        } else {
            Err(self.shape_error(format!("{} elements do not fill the shape {shape:?}", data.len())))
        }
    }
}

/// Applies `body` to the elements of any type and keeps the type.
macro_rules! map_elements {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            TensorData::I1($v) => TensorData::I1($body),
            TensorData::I8($v) => TensorData::I8($body),
            TensorData::I16($v) => TensorData::I16($body),
            TensorData::I32($v) => TensorData::I32($body),
            TensorData::I48($v) => TensorData::I48($body),
            TensorData::I64($v) => TensorData::I64($body),
            TensorData::Index($v) => TensorData::Index($body),
            TensorData::F32($v) => TensorData::F32($body),
        }
    };
}
use map_elements;

/// Applies `body` to the elements of two operands of one type and keeps the type; `None` if the types differ.
macro_rules! zip_elements {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $body:expr) => {
        match ($a, $b) {
            (TensorData::I1($x), TensorData::I1($y)) => Some(TensorData::I1($body)),
            (TensorData::I8($x), TensorData::I8($y)) => Some(TensorData::I8($body)),
            (TensorData::I16($x), TensorData::I16($y)) => Some(TensorData::I16($body)),
            (TensorData::I32($x), TensorData::I32($y)) => Some(TensorData::I32($body)),
            (TensorData::I48($x), TensorData::I48($y)) => Some(TensorData::I48($body)),
            (TensorData::I64($x), TensorData::I64($y)) => Some(TensorData::I64($body)),
            (TensorData::Index($x), TensorData::Index($y)) => Some(TensorData::Index($body)),
            (TensorData::F32($x), TensorData::F32($y)) => Some(TensorData::F32($body)),
            _ => None,
        }
    };
}
use zip_elements;

/// Rounds half to even and saturates; NaN gives 0.
fn float_to_int(value: f32, elem: ElemType) -> i64 {
    let (least, greatest) = elem.int_range().unwrap_or((i64::MIN, i64::MAX));
    (value.round_ties_even() as i64).clamp(least, greatest)
}

#[cfg(test)]
mod tests;
