//! A function to terms, and what an extraction has chosen back to a function.
//!
//! Ops that are kept stay where they are; new ones stand before the first that uses them, in the order of
//! their operands, for selection lets the operand that was made last carry an elementwise op.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use strata_backend::select::made::VALUE;
use strata_ir::attr::ResizeMode;
use strata_ir::dialect::{Reshape, Resize, Tile, Transpose};
use strata_ir::{
    Attribute, BlockId, ElemType, Location, Module, Op, OpId, Tensor, TensorData, TensorType, Type, ValueId,
};

use crate::rewrite::constants::ConstId;
use crate::rewrite::language::{Action, CONST, Graph, Knowledge, Move, Spec, Term};
use crate::rewrite::selection::Selection;

/// A function as an e-graph.
#[derive(Debug)]
pub(crate) struct Function {
    /// The e-graph.
    pub(crate) egraph: Graph,
    /// The ops that are neither constants nor the return, with their classes and terms, in order.
    pub(crate) ops: Vec<(OpId, Id, Term)>,
    /// The classes of the results.
    pub(crate) roots: Vec<Id>,
}

impl Function {
    /// The terms of a block; `None` if it holds an op that has regions, or not one result.
    pub(crate) fn new(module: &Module, block: BlockId) -> Option<Self> {
        let mut egraph = Graph::new(Knowledge::default());
        let mut classes: BTreeMap<ValueId, Id> = BTreeMap::new();
        let mut ops = Vec::new();
        for (index, &arg) in module.args(block).iter().enumerate() {
            let spec =
                Spec { action: Action::Arg(index), ty: module.ty(arg).clone(), loc: Location::unknown() };
            let (kind, spec) = (spec.action.kind(), egraph.analysis.intern(spec));
            classes.insert(arg, egraph.add(Term { kind, spec, children: Vec::new() }));
        }
        for &op in module.block_ops(block) {
            let data = module.op(op);
            if data.op.is_terminator() {
                let roots = data.operands().iter().map(|value| classes.get(value).copied());
                let roots = roots.collect::<Option<Vec<Id>>>()?;
                egraph.rebuild();
                return Some(Self { egraph, ops, roots });
            }
            let &[result] = data.results() else { return None };
            if let Some(elements) = data.op.constant() {
                let id = egraph.analysis.constants.given(result, &elements.tensor);
                classes.insert(result, egraph.add(Term { kind: CONST, spec: id.0, children: Vec::new() }));
                continue;
            }
            if !data.regions().is_empty() {
                return None;
            }
            let action = Action::Op(data.op.clone());
            let spec = Spec { action, ty: module.ty(result).clone(), loc: data.loc.clone() };
            let (kind, spec) = (spec.action.kind(), egraph.analysis.intern(spec));
            let children = data.operands().iter().map(|value| classes.get(value).copied());
            let term = Term { kind, spec, children: children.collect::<Option<_>>()? };
            let class = egraph.add(term.clone());
            classes.insert(result, class);
            ops.push((op, class, term));
        }
        None
    }
}

/// Rewrites a block to what was selected.
pub(crate) fn write_back(module: &mut Module, block: BlockId, function: &Function, selection: &Selection) {
    let egraph = &function.egraph;
    let mut kept: BTreeMap<Term, OpId> = BTreeMap::new();
    for (op, _, term) in &function.ops {
        kept.entry(canonical(egraph, term)).or_insert(*op);
    }
    let before: Vec<OpId> = module.block_ops(block).to_vec();
    let mut meanings = BTreeMap::new();
    for (op, class, _) in &function.ops {
        if let Some(meaning) = module.op(*op).extra.get(VALUE) {
            meanings.entry(egraph.find(*class)).or_insert_with(|| meaning.clone());
        }
    }
    let (made, order) = (BTreeMap::new(), Vec::new());
    let mut writer = Writer { module, block, egraph, selection, kept, meanings, made, order };
    for (_, class, _) in &function.ops {
        let class = egraph.find(*class);
        if selection.is_used(class) {
            writer.class(class);
        }
    }
    let results: Vec<ValueId> = function.roots.iter().map(|&root| writer.class(egraph.find(root))).collect();
    let mut order = writer.order;
    let terminator = before.iter().copied().find(|&op| module.op(op).op.is_terminator());
    if let Some(terminator) = terminator {
        module.set_operands(terminator, &results);
        order.push(terminator);
    }
    let stay: BTreeSet<OpId> = order.iter().copied().collect();
    module.erase_where(block, |op| !stay.contains(&op));
    module.set_block_order(block, order);
}

/// A term with its operands' classes as they are now.
pub(crate) fn canonical(egraph: &Graph, term: &Term) -> Term {
    let children = term.children.iter().map(|&id| egraph.find(id)).collect();
    Term { children, ..term.clone() }
}

struct Writer<'a> {
    module: &'a mut Module,
    block: BlockId,
    egraph: &'a Graph,
    selection: &'a Selection,
    /// The function's own ops by their terms.
    kept: BTreeMap<Term, OpId>,
    /// What the classes of the function's own ops stand for in the model.
    meanings: BTreeMap<Id, Attribute>,
    made: BTreeMap<Id, ValueId>,
    order: Vec<OpId>,
}

impl Writer<'_> {
    /// The value of a class, whose ops are written now if they were not.
    fn class(&mut self, class: Id) -> ValueId {
        let class = self.egraph.find(class);
        if let Some(&value) = self.made.get(&class) {
            return value;
        }
        let value = match self.egraph[class].data.constant {
            Some(constant) => self.constant(constant),
            None => self.term(&self.selection.term(class).clone()),
        };
        self.made.insert(class, value);
        let meaning = self.meanings.get(&class).zip(self.module.defining_op(value));
        if let Some((meaning, op)) = meaning.filter(|(_, op)| !self.module.op(*op).op.is_constant()) {
            self.module.op_mut(op).extra.insert(VALUE.to_owned(), meaning.clone());
        }
        value
    }

    fn constant(&mut self, constant: ConstId) -> ValueId {
        let constants = &self.egraph.analysis.constants;
        if let Some(value) = constants.value(constant) {
            self.order.extend(self.module.defining_op(value));
            return value;
        }
        let tensor = Tensor::clone(&constants.tensor(constant));
        self.append_const(tensor, Location::unknown())
    }

    fn append_const(&mut self, tensor: Tensor, loc: Location) -> ValueId {
        let value = self.module.append_const(self.block, tensor, loc);
        self.order.extend(self.module.defining_op(value));
        value
    }

    fn term(&mut self, term: &Term) -> ValueId {
        let operands: Vec<ValueId> = term.children.iter().map(|&child| self.class(child)).collect();
        let spec = self.egraph.analysis.spec(term).expect("constants are no terms here").clone();
        match spec.action {
            Action::Arg(index) => self.module.args(self.block)[index],
            Action::Op(op) => match self.kept.get(term) {
                Some(&op) => {
                    self.module.set_operands(op, &operands);
                    self.order.push(op);
                    self.module.result(op)
                }
                None => self.append(op, &operands, spec.ty, &spec.loc),
            },
            Action::Move(by) => self.moved(by, operands[0], &spec.ty, &spec.loc),
        }
    }

    fn append(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        ty: impl Into<Type>,
        loc: &Location,
    ) -> ValueId {
        let op = self.module.append(self.block, op, operands, &[ty.into()], loc.clone());
        self.order.push(op);
        self.module.result(op)
    }

    fn extents(&mut self, extents: &[usize], loc: &Location) -> ValueId {
        let data = extents.iter().map(|&extent| extent as i64).collect();
        self.append_const(Tensor::new([extents.len()], TensorData::Index(data)), loc.clone())
    }

    fn reshaped(&mut self, value: ValueId, shape: &[usize], loc: &Location) -> ValueId {
        let ty = TensorType::new(shape, self.module.tensor_ty(value).elem);
        let shape = self.extents(shape, loc);
        self.append(Reshape {}, &[value, shape], ty, loc)
    }

    /// A move as TOSA ops.
    fn moved(&mut self, by: Move, value: ValueId, ty: &Type, loc: &Location) -> ValueId {
        let from = self.module.tensor_ty(value).clone();
        let to = ty.as_tensor().cloned().unwrap_or_else(|| from.clone());
        let ([n, h, w, c], [_, out_h, out_w, out_c]) = (rank4(&from), rank4(&to));
        match by {
            // TOSA resizes narrow integers only.
            Move::Upsample(factors) if matches!(from.elem, ElemType::I8 | ElemType::I16) => {
                let [fy, fx] = factors;
                let scale = self.extents(&[2 * fy, 2, 2 * fx, 2], loc);
                let back = factors.map(|factor| factor as i64 - 1);
                let vector = |values: [i64; 2]| Tensor::new([2], TensorData::Index(values.to_vec()));
                let offset = self.append_const(vector(back.map(|by| -by)), loc.clone());
                let border = self.append_const(vector(back), loc.clone());
                let resize = Resize { mode: ResizeMode::NearestNeighbor };
                self.append(resize, &[value, scale, offset, border], to, loc)
            }
            Move::Upsample([fy, fx]) => {
                let split = self.reshaped(value, &[n * h, 1, w, 1, c], loc);
                let times = self.extents(&[1, fy, 1, fx, 1], loc);
                let tiled = TensorType::new([n * h, fy, w, fx, c], from.elem);
                let tiled = self.append(Tile {}, &[split, times], tiled, loc);
                self.reshaped(tiled, &to.shape, loc)
            }
            Move::SpaceToDepth([by, bx]) => {
                let split = [n, out_h, by, out_w, bx, c];
                self.permuted(value, split, &to, loc)
            }
            Move::DepthToSpace([by, bx]) => {
                let split = [n, h, w, by, bx, out_c];
                self.permuted(value, split, &to, loc)
            }
        }
    }

    /// A tensor split to six axes, of which the third and fourth change places, and joined again.
    fn permuted(&mut self, value: ValueId, split: [usize; 6], to: &TensorType, loc: &Location) -> ValueId {
        let perms = vec![0, 1, 3, 2, 4, 5];
        let axes = self.reshaped(value, &split, loc);
        let shape: Vec<usize> = perms.iter().map(|&axis: &i32| split[axis as usize]).collect();
        let turned = self.append(Transpose { perms }, &[axes], TensorType::new(shape, to.elem), loc);
        self.reshaped(turned, &to.shape, loc)
    }
}

/// The extents of a tensor of rank 4.
fn rank4(ty: &TensorType) -> [usize; 4] {
    ty.shape.as_slice().try_into().expect("moves are made of tensors of rank 4 only")
}
