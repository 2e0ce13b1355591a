//! Building ops without spelling out their result types: [`Builder`] appends to a block and infers.

use crate::Tensor;
use crate::diag::{Diagnostic, Place};
use crate::dialect::Op;
use crate::infer::infer;
use crate::module::{BlockId, Location, Module, OpId, ValueId};
use crate::tensor::TensorData;
use crate::types::ElemType;

/// Appends ops to a block, or inserts them before an op of it, with inferred result types.
///
/// Constants are made where they are asked for; equal ones are not shared.
pub struct Builder<'m> {
    /// The module.
    pub module: &'m mut Module,
    block: BlockId,
    before: Option<OpId>,
    /// The place given to the ops that are made.
    pub loc: Location,
}

impl<'m> Builder<'m> {
    /// Appends to `block`.
    pub fn new(module: &'m mut Module, block: BlockId) -> Self {
        Self { module, block, before: None, loc: Location::unknown() }
    }

    /// Inserts before `anchor`, with its place.
    ///
    /// # Panics
    /// If `anchor` is erased.
    pub fn before(module: &'m mut Module, anchor: OpId) -> Self {
        let (block, _) = module.position(anchor);
        let loc = module.op(anchor).loc.clone();
        Self { module, block, before: Some(anchor), loc }
    }

    /// The block that ops go to.
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Makes an op of one result.
    ///
    /// # Errors
    /// If TOSA does not allow the op on these operands, or it has no result.
    pub fn op(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result<ValueId, Diagnostic> {
        self.make(op.into(), operands, None)
    }

    /// Makes an op whose result element the operands leave open: a cast or a rescale.
    ///
    /// # Errors
    /// As [`op`](Self::op).
    pub fn op_as(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        elem: ElemType,
    ) -> Result<ValueId, Diagnostic> {
        self.make(op.into(), operands, Some(elem))
    }

    fn make(&mut self, op: Op, operands: &[ValueId], elem: Option<ElemType>) -> Result<ValueId, Diagnostic> {
        let name = op.name();
        let place = |loc: &Location| Place::of_op(format!("\"{name}\""), loc);
        let types = infer(self.module, &op, operands, elem).map_err(|d| d.at(place(&self.loc)))?;
        if types.is_empty() {
            let error = Diagnostic::error(crate::diag::code::ARITY, format!("`{name}` has no result"));
            return Err(error.at(place(&self.loc)));
        }
        let loc = self.loc.clone();
        let at = self.at();
        let id = self.module.insert_at(self.block, at, op, operands, &types, loc);
        Ok(self.module.result(id))
    }

    /// Makes an op without results: a terminator.
    pub fn terminator(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> OpId {
        let (at, loc) = (self.at(), self.loc.clone());
        self.module.insert_at(self.block, at, op, operands, &[], loc)
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let (at, loc) = (self.at(), self.loc.clone());
        self.module.insert_const_at(self.block, at, tensor.into(), loc)
    }

    /// An `f32` constant.
    ///
    /// # Panics
    /// If `data` do not fill `shape`.
    pub fn const_f32(&mut self, shape: &[usize], data: Vec<f32>) -> ValueId {
        self.constant(Tensor::f32(shape, data))
    }

    /// An `i8` constant.
    ///
    /// # Panics
    /// If `data` do not fill `shape`.
    pub fn const_i8(&mut self, shape: &[usize], data: Vec<i8>) -> ValueId {
        self.constant(Tensor::i8(shape, data))
    }

    /// An `i32` constant.
    ///
    /// # Panics
    /// If `data` do not fill `shape`.
    pub fn const_i32(&mut self, shape: &[usize], data: Vec<i32>) -> ValueId {
        self.constant(Tensor::i32(shape, data))
    }

    /// A constant of any integer type; values that do not fit wrap.
    ///
    /// # Panics
    /// If `elem` is a float or `data` do not fill `shape`.
    pub fn const_ints(&mut self, elem: ElemType, shape: &[usize], data: &[i64]) -> ValueId {
        let data = TensorData::from_ints(elem, data.iter().copied()).expect("an integer element type");
        self.constant(Tensor::new(shape, data))
    }

    /// A `!tosa.shape` constant.
    pub fn shape(&mut self, extents: &[i64]) -> ValueId {
        self.constant(Tensor::new(vec![extents.len()], TensorData::Index(extents.to_vec())))
    }

    fn at(&self) -> usize {
        match self.before {
            Some(anchor) => self.module.position(anchor).1,
            None => self.module.block_ops(self.block).len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::FunctionType;
    use crate::dialect::{Abs, Add, FuncReturn, Sub};
    use crate::types::Type;

    #[test]
    fn ops_are_placed_typed_and_located() {
        let mut module = Module::new();
        let ty = Type::tensor([2, 2], ElemType::F32);
        let (_, block) =
            module.add_function("f", FunctionType { inputs: vec![ty.clone()], results: vec![ty] });
        let x = module.args(block)[0];
        let mut b = Builder::new(&mut module, block);
        b.loc = Location::named("node");
        let bias = b.const_f32(&[1, 2], vec![1.0, 2.0]);
        let sum = b.op(Add {}, &[x, bias]).expect("shapes broadcast");
        let end = b.terminator(FuncReturn {}, &[sum]);
        let abs = Builder::before(&mut module, end).op(Abs {}, &[sum]).expect("abs takes f32");
        let names: Vec<_> = module.block_ops(block).iter().map(|&op| module.op(op).op.name()).collect();
        assert_eq!(names, ["tosa.const", "tosa.add", "tosa.abs", "func.return"]);
        let abs_op = module.defining_op(abs).expect("an op");
        assert_eq!(module.op(abs_op).loc.name(), Some("node"));
        assert_eq!(module.ty(abs).to_string(), "tensor<2x2xf32>");
    }

    #[test]
    fn an_error_names_the_node_and_makes_nothing() {
        let mut module = Module::new();
        let (_, block) = module.add_function("f", FunctionType::default());
        let mut b = Builder::new(&mut module, block);
        b.loc = Location::named("node");
        let (x, y) = (b.const_f32(&[2], vec![1.0, 2.0]), b.const_f32(&[3], vec![0.0; 3]));
        let error = b.op(Sub {}, &[x, y]).expect_err("2 and 3 do not broadcast");
        assert_eq!(
            error.to_string(),
            "`node`: \"tosa.sub\": `tosa.sub`: extents 2 and 3 of axis 0 do not broadcast [E0302]"
        );
        assert_eq!(module.block_ops(block).len(), 2);
    }
}
