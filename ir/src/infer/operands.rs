//! Typed access to an op's operands, with the checks and messages that all rules share.

use std::fmt::Display;

use crate::attr::Elements;
use crate::diag::{Code, Diagnostic, code};
use crate::dialect::Op;
use crate::module::{Module, ValueId};
use crate::tensor::Tensor;
use crate::types::{ElemType, TensorType, Type};

/// The operands of one op.
pub(super) struct Operands<'a> {
    module: &'a Module,
    op: &'a Op,
    values: &'a [ValueId],
}

impl<'a> Operands<'a> {
    /// Checks their number.
    pub(super) fn new(module: &'a Module, op: &'a Op, values: &'a [ValueId]) -> Result<Self, Diagnostic> {
        let cx = Self { module, op, values };
        let info = op.info();
        if info.n_operands.allows(values.len()) {
            Ok(cx)
        } else {
            let message = format!("takes {} operands, found {}", info.n_operands, values.len());
            Err(cx.error(code::ARITY, message).note(format!("operands: {}", info.operands.join(", "))))
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// A diagnostic about the op.
    pub(super) fn error(&self, code: Code, message: impl Display) -> Diagnostic {
        Diagnostic::error(code, format!("`{}`: {message}", self.op.name()))
    }

    /// What operand `index` is called: the last name of a row with a variadic operand serves for all the
    /// rest.
    pub(super) fn name(&self, index: usize) -> String {
        let names = self.op.info().operands;
        match names.get(index).or(names.last()) {
            Some(name) => format!("operand {index} ({name})"),
            None => format!("operand {index}"),
        }
    }

    /// The tensor type of operand `index`, which has a sane shape.
    pub(super) fn tensor(&self, index: usize) -> Result<&'a TensorType, Diagnostic> {
        match self.module.ty(self.values[index]) {
            Type::Tensor(ty) if super::is_sane_shape(&ty.shape) => Ok(ty),
            Type::Tensor(ty) => {
                Err(self.error(code::SHAPE, format!("{}: {ty} is empty or too large", self.name(index))))
            }
            Type::Shape(_) => {
                Err(self.error(code::OPERAND_TYPE, format!("{} must be a tensor", self.name(index))))
            }
        }
    }

    /// The tensor type of operand `index`, whose element must be one of `allowed`.
    pub(super) fn elem(&self, index: usize, allowed: &[ElemType]) -> Result<&'a TensorType, Diagnostic> {
        let ty = self.tensor(index)?;
        if allowed.contains(&ty.elem) {
            return Ok(ty);
        }
        let list: Vec<_> = allowed.iter().map(|e| e.keyword()).collect();
        let message = format!("{} must be of {}, found {ty}", self.name(index), list.join(" or "));
        Err(self.error(code::OPERAND_TYPE, message))
    }

    /// The extents of operand `index`, which must have rank `N`.
    pub(super) fn dims<const N: usize>(&self, index: usize) -> Result<[i128; N], Diagnostic> {
        let ty = self.tensor(index)?;
        let extents: Vec<i128> = ty.shape.iter().map(|&e| e as i128).collect();
        extents.try_into().map_err(|_| {
            self.error(code::SHAPE, format!("{} must have rank {N}, found {ty}", self.name(index)))
        })
    }

    /// Fails unless `extent`, an extent of operand `index`, is `want`.
    pub(super) fn expect_extent(
        &self,
        index: usize,
        what: &str,
        extent: i128,
        want: i128,
    ) -> Result<(), Diagnostic> {
        if extent == want {
            return Ok(());
        }
        let message = format!("{} has {extent} {what}, must have {want}", self.name(index));
        Err(self.error(code::SHAPE, message))
    }

    /// `axis` as an index into the shape of operand 0.
    pub(super) fn axis(&self, axis: i32) -> Result<usize, Diagnostic> {
        let ty = self.tensor(0)?;
        usize::try_from(axis)
            .ok()
            .filter(|&axis| axis < ty.rank())
            .ok_or_else(|| self.error(code::VALUE_RANGE, format!("{ty} has no axis {axis}")))
    }

    /// The constant that operand `index` must be.
    pub(super) fn constant(&self, index: usize) -> Result<&'a Tensor, Diagnostic> {
        let value = self.values[index];
        match self.module.constant(value) {
            Some(Elements { tensor }) => {
                // A constant of another type than its op says is told there.
                let n = self.module.ty(value).as_tensor().map_or(tensor.n_elements(), TensorType::n_elements);
                if tensor.n_elements() == n {
                    return Ok(tensor);
                }
                let message = format!("{} holds {} elements, not {n}", self.name(index), tensor.n_elements());
                Err(self.error(code::SHAPE, message))
            }
            None => Err(self
                .error(code::NOT_CONSTANT, format!("{} must be a constant", self.name(index)))
                .help("define it with `tosa.const` or `tosa.const_shape`")),
        }
    }

    /// The integers that operand `index`, a constant, holds.
    pub(super) fn ints(&self, index: usize) -> Result<Vec<i64>, Diagnostic> {
        self.constant(index)?
            .data()
            .to_ints()
            .ok_or_else(|| self.error(code::OPERAND_TYPE, format!("{} must hold integers", self.name(index))))
    }

    /// The list that operand `index`, a `!tosa.shape` constant of `len` numbers, holds.
    pub(super) fn shape_values(&self, index: usize, len: usize) -> Result<Vec<i64>, Diagnostic> {
        match self.module.ty(self.values[index]) {
            Type::Shape(found) if *found == len => {}
            found => {
                let message = format!("{} must be !tosa.shape<{len}>, found {found}", self.name(index));
                return Err(self.error(code::OPERAND_TYPE, message));
            }
        }
        let values = self.ints(index)?;
        if values.len() == len {
            Ok(values)
        } else {
            Err(self.error(code::BAD_CONSTANT, format!("{} must hold {len} numbers", self.name(index))))
        }
    }

    /// The length of a `!tosa.shape` operand.
    pub(super) fn shape_len(&self, index: usize) -> Result<usize, Diagnostic> {
        match self.module.ty(self.values[index]) {
            Type::Shape(len) => Ok(*len),
            Type::Tensor(ty) => Err(self.error(
                code::OPERAND_TYPE,
                format!("{} must be a !tosa.shape, found {ty}", self.name(index)),
            )),
        }
    }

    /// Checks operand `index` as the zero point of values of `elem`: a constant of one element of that type,
    /// zero unless `elem` is `i8`, or `i16` that is unsigned (then 0 or 32768).
    pub(super) fn zero_point(&self, index: usize, elem: ElemType, unsigned: bool) -> Result<(), Diagnostic> {
        let ty = self.elem(index, &[elem])?;
        if ty.shape != [1] {
            let message = format!("{} must be tensor<1x{elem}>, found {ty}", self.name(index));
            return Err(self.error(code::SHAPE, message));
        }
        let tensor = self.constant(index)?;
        let (is_zero, value) = match tensor.data().int_at(0) {
            Some(value) => (value == 0, value.to_string()),
            None => {
                let value = tensor.as_f32().map_or(0.0, |v| v[0]);
                (value == 0.0, value.to_string())
            }
        };
        let allowed = match elem {
            ElemType::I8 => true,
            ElemType::I16 if unsigned => is_zero || value == i16::MIN.to_string(),
            _ => is_zero,
        };
        if allowed {
            Ok(())
        } else {
            let message = format!("{}: zero point {value} of {elem} must be 0", self.name(index));
            Err(self.error(code::VALUE_RANGE, message))
        }
    }
}
