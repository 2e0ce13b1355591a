//! What selection asks of values: whether the machine can stream them, in which extents, and what constants
//! hold.

use strata_ir::{ElemType, Op, OpId, Tensor, ValueId};
use strata_isa_spec::inst::Elem;

use crate::select::by_sign::ChoiceBySign;
use crate::select::selector::{Read, Refusal, Selector};
use crate::select::shape::{self, Dims};

impl Selector<'_> {
    pub(super) fn operand(&self, op: OpId, index: usize) -> ValueId {
        self.module.op(op).operands()[index]
    }

    pub(super) fn shape(&self, value: ValueId) -> &[usize] {
        self.module.ty(value).as_tensor().map_or(&[], |ty| &ty.shape)
    }

    pub(super) fn elem_of(&self, value: ValueId) -> Result<Elem, Refusal> {
        let ty = self.module.tensor_ty(value);
        shape::elem(ty).ok_or_else(|| format!("the machine has no streams of {}", ty.elem))
    }

    /// Whether a head can make a value: one that can be streamed, or sums of 48 bits on their way to a
    /// rescale.
    pub(super) fn makes(&self, value: ValueId) -> Result<(), Refusal> {
        if self.module.tensor_ty(value).elem != ElemType::I48 {
            return self.elem_of(value).map(drop);
        }
        let is_rescale = |&user: &OpId| matches!(self.module.op(user).op, Op::Rescale(_));
        match self.users[value].as_slice() {
            [user] if is_rescale(user) => Ok(()),
            _ => Err("the machine keeps sums of 48 bits for one rescale only".to_owned()),
        }
    }

    /// The extents in which a value stands.
    pub(super) fn dims(&self, value: ValueId) -> Result<Dims, Refusal> {
        let natural = self.out.natural.get(&value).copied();
        natural.map_or_else(|| self.collapsed(value), Ok)
    }

    /// The extents that a value's shape collapses to.
    pub(super) fn collapsed(&self, value: ValueId) -> Result<Dims, Refusal> {
        let shape = self.shape(value);
        shape::dims(shape).ok_or_else(|| format!("the machine has no streams of shape {shape:?}"))
    }

    /// A constant operand.
    pub(super) fn constant(&self, op: OpId, index: usize) -> Result<ValueId, Refusal> {
        let value = self.operand(op, index);
        let name = self.module.op(op).op.info().operands[index];
        let is_const = self.module.constant(value).is_some();
        is_const.then_some(value).ok_or_else(|| format!("operand `{name}` must be a constant"))
    }

    pub(super) fn constant_tensor(&self, op: OpId, index: usize) -> Result<&Tensor, Refusal> {
        let value = self.constant(op, index)?;
        Ok(&self.module.constant(value).expect("just seen to be constant").tensor)
    }

    /// A constant operand of one integer.
    pub(super) fn scalar(&self, op: OpId, index: usize) -> Result<i32, Refusal> {
        let tensor = self.constant_tensor(op, index)?;
        let value = (tensor.n_elements() == 1).then(|| tensor.data().int_at(0)).flatten();
        value
            .and_then(|v| i32::try_from(v).ok())
            .ok_or_else(|| format!("operand {index} is no 32-bit integer"))
    }

    /// A constant operand of integers.
    pub(super) fn ints<const N: usize>(&self, op: OpId, index: usize) -> Result<[i32; N], Refusal> {
        let values = self.constant_tensor(op, index)?.data().to_ints().unwrap_or_default();
        let values: Vec<i32> = values.into_iter().filter_map(|v| i32::try_from(v).ok()).collect();
        values.try_into().map_err(|_| format!("operand {index} must be {N} 32-bit integers"))
    }

    /// Whether one stage may take a value over: one op uses it, or the ops of one choice by its sign do.
    pub(super) fn single_use(&self, value: ValueId) -> bool {
        match self.users[value].as_slice() {
            [_] => true,
            users => {
                let mut choices = users.iter().map(|&user| ChoiceBySign::of(self.module, &self.users, user));
                let first = choices.next().flatten();
                first.is_some() && choices.all(|other| other == first)
            }
        }
    }

    /// Windowed heads see one image: the machine's rows are of one.
    pub(super) fn one_image(&self, op: OpId) -> Result<(), Refusal> {
        let shape = self.shape(self.operand(op, 0));
        let single = shape.len() == 4 && shape[0] == 1;
        single
            .then_some(())
            .ok_or_else(|| format!("the machine slides windows over one image, not {shape:?}"))
    }

    /// Checks that `value` can be streamed and makes the read of it.
    pub(super) fn read(&self, value: ValueId) -> Result<Read, Refusal> {
        if self.module.constant(value).is_some() {
            return Err(
                "the machine streams no constants; only operands of one element or one a channel".to_owned()
            );
        }
        self.elem_of(value)?;
        Ok(Read { value, dims: self.collapsed(value)? })
    }
}
