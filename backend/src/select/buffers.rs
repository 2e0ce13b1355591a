//! Buffers: which values share storage, and the views that stages read and write.
//!
//! Every stage result and every concatenation claims one place: a buffer of its own, an output of the
//! function, or a part of a concatenation. Who comes second gets a copy. Slices and free reshapes are views.

use std::collections::BTreeMap;

use cranelift_entity::PrimaryMap;
use strata_ir::{Attribute, BlockId, Module, Op, OpId, ValueDef, ValueId, dialect};
use strata_isa_spec::inst::Load;
use strata_isa_spec::{Head, View};

use crate::model::{Buffer, BufferId, BufferRole, BufferView, StageTemplate};
use crate::select::graph::TABLES;
use crate::select::made::ModelValue;
use crate::select::permute::Chain;
use crate::select::selector::DraftCode;
use crate::select::shape::{self, Dims};

/// What a stage of the function computes, of tensors that have no place yet.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    /// Head and tails.
    pub(super) code: DraftCode,
    /// The extents in which it reads its operands.
    pub(super) reads: Vec<Dims>,
    /// The extents in which it makes its result.
    pub(super) dims: Dims,
}

/// Stages of a function in which every value has a place.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// The buffers.
    pub(super) buffers: PrimaryMap<BufferId, Buffer>,
    /// The stages' codes, with their views.
    pub(super) codes: BTreeMap<OpId, StageTemplate>,
    /// Copies that were inserted.
    pub(super) n_copies: u64,
}

/// Where the result of a stage or of a concatenation goes.
#[derive(Clone, Copy, Debug)]
enum Claim {
    /// Result of the function.
    Output(u32),
    /// Operand of a concatenation, with its offset along a machine axis.
    Part { concat: ValueId, axis: usize, offset: u32 },
}

/// Gives every value of `@main`'s block a place, inserting copies where two need the same.
pub(super) fn place(module: &mut Module, block: BlockId, shells: BTreeMap<OpId, Shell>) -> Placed {
    let mut placer = Placer { module, block, shells, claims: BTreeMap::new(), n_copies: 0 };
    placer.claim_outputs();
    placer.claim_parts();
    placer.conform_reads();
    placer.assign()
}

struct Placer<'a> {
    module: &'a mut Module,
    block: BlockId,
    shells: BTreeMap<OpId, Shell>,
    claims: BTreeMap<ValueId, Claim>,
    n_copies: u64,
}

impl Placer<'_> {
    /// What a value is before reshapes that move nothing.
    fn root(&self, value: ValueId) -> ValueId {
        root(self.module, value)
    }

    /// The extents in which a value stands.
    fn dims(&self, value: ValueId) -> Dims {
        let root = self.root(value);
        let shell = self.module.defining_op(root).and_then(|op| self.shells.get(&op));
        shell.map_or_else(|| collapsed(self.module, root), |shell| shell.dims)
    }

    /// Whether a value may be given a place: a stage or a concatenation makes it, and it has none yet.
    fn may_claim(&self, root: ValueId) -> bool {
        let made = self.module.defining_op(root).map(|op| &self.module.op(op).op);
        matches!(made, Some(Op::Stage(_) | Op::Concat(_))) && !self.claims.contains_key(&root)
    }

    fn claim_outputs(&mut self) {
        let Some(ret) = self.module.terminator(self.block) else { return };
        for index in 0..self.module.op(ret).operands().len() {
            let value = self.module.op(ret).operands()[index];
            let mut root = self.root(value);
            if !self.may_claim(root) {
                let dims = self.dims(value);
                root = self.copy_before(ret, index, dims);
            }
            self.claims.insert(root, Claim::Output(index as u32));
        }
    }

    /// Outer concatenations stand later, so going backwards they take inner ones as their parts.
    fn claim_parts(&mut self) {
        let is_concat = |op: &OpId| matches!(self.module.op(*op).op, Op::Concat(_));
        let concats: Vec<OpId> =
            self.module.block_ops(self.block).iter().copied().filter(is_concat).collect();
        for &concat in concats.iter().rev() {
            let result = self.module.result(concat);
            let mut offset = 0;
            for index in 0..self.module.op(concat).operands().len() {
                let value = self.module.op(concat).operands()[index];
                let (axis, extent) = concat_part(self.module, concat, value);
                let wanted = collapsed(self.module, value);
                let mut root = self.root(value);
                if !self.may_claim(root) || self.dims(value) != wanted {
                    root = self.copy_before(concat, index, wanted);
                }
                self.claims.insert(root, Claim::Part { concat: result, axis, offset });
                offset += extent;
            }
        }
    }

    /// Copies values that stand in other extents than a stage reads them in.
    fn conform_reads(&mut self) {
        let stages: Vec<OpId> = self.shells.keys().copied().collect();
        for stage in stages {
            for index in 0..self.module.op(stage).operands().len() {
                let value = self.module.op(stage).operands()[index];
                let wanted = self.shells[&stage].reads[index];
                if self.dims(value) != wanted {
                    self.copy_before(stage, index, wanted);
                }
            }
        }
    }

    /// Inserts before `user` a stage that copies its operand `index` to extents `dims`, and lets it use that.
    fn copy_before(&mut self, user: OpId, index: usize, dims: Dims) -> ValueId {
        let value = self.module.op(user).operands()[index];
        let from = self.dims(value);
        let ty = self.module.ty(value).clone();
        let loc = self.module.op(user).loc.clone();
        let name = format!("{}.copy", loc.name().unwrap_or("stage"));
        let row = dialect::Stage { name, code: Attribute::Unit };
        let stage = self.module.insert_before(user, row, &[value], std::slice::from_ref(&ty), loc.clone());
        let no_tables = Attribute::I64Array(Vec::new());
        self.module.op_mut(stage).extra.insert(TABLES.to_owned(), no_tables);
        let source = self.module.defining_op(self.root(value));
        if let Some(value) = source.and_then(|op| ModelValue::of(self.module, op)) {
            ModelValue { nodes: Vec::new(), ..value }.mark(self.module, stage);
        }
        let region = self.module.add_region(stage);
        let body = self.module.add_block(region, std::slice::from_ref(&ty));
        let arg = self.module.args(body)[0];
        let identity = self.module.append(body, dialect::Identity {}, &[arg], &[ty], loc.clone());
        let made = self.module.result(identity);
        self.module.append(body, dialect::Yield {}, &[made], &[], loc);
        let head = if from == dims {
            Head::Load(Load { src: View::default() })
        } else {
            let n_elements = from.iter().map(|&extent| extent as usize).product();
            let permute = Chain::identity(n_elements).head();
            permute.expect("nothing to permute takes one axis").into()
        };
        let code = DraftCode { head, tail: Vec::new(), out: View::default() };
        self.shells.insert(stage, Shell { code, reads: vec![from], dims });
        self.n_copies += 1;
        let result = self.module.result(stage);
        self.module.set_operand(user, index, result);
        result
    }

    fn assign(self) -> Placed {
        let mut placed = Placed { n_copies: self.n_copies, ..Placed::default() };
        let mut views: BTreeMap<ValueId, BufferView> = BTreeMap::new();
        let names = argument_names(self.module, self.block);
        for (index, (&value, name)) in self.module.args(self.block).iter().zip(names).enumerate() {
            let (dims, role) = (collapsed(self.module, value), BufferRole::Input(index as u32));
            views.insert(value, self.new_buffer(&mut placed, value, name, dims, role));
        }
        let ops = self.module.block_ops(self.block);
        for &op in ops.iter().filter(|&&op| matches!(self.module.op(op).op, Op::Stage(_) | Op::Concat(_))) {
            self.give_buffer(op, &mut placed, &mut views);
        }
        // Concatenations are used after they stand, their parts before: numbers are given forwards, places
        // backwards.
        for &op in ops.iter().rev() {
            let Some(&value) = self.module.op(op).results().first() else { continue };
            if let Some(&Claim::Part { concat, axis, offset }) = self.claims.get(&value) {
                let view = shape::subview(views[&concat], axis, offset, self.dims(value)[axis]);
                views.insert(value, view);
            }
        }
        for &op in ops {
            let data = self.module.op(op);
            match &data.op {
                Op::Stage(_) => {
                    let reads = data.operands().iter().map(|&value| views[&root(self.module, value)]);
                    let mut places = reads.chain([views[&self.module.result(op)]]);
                    let code = &self.shells[&op].code;
                    let place = |_: &View<()>| places.next().expect("an operand for each view");
                    placed.codes.insert(op, code.map_views(place));
                }
                Op::Slice(_) => {
                    let whole = views[&root(self.module, data.operands()[0])];
                    let cuts = slice_cuts(self.module, op).expect("selection accepted the slice");
                    let cut = |view, (axis, offset, extent)| shape::subview(view, axis, offset, extent);
                    views.insert(self.module.result(op), cuts.into_iter().fold(whole, cut));
                }
                _ => {}
            }
        }
        placed
    }

    /// Gives the result of a stage or a concatenation a buffer of its own, unless it is a part of another.
    fn give_buffer(&self, op: OpId, placed: &mut Placed, views: &mut BTreeMap<ValueId, BufferView>) {
        let data = self.module.op(op);
        let value = self.module.result(op);
        let role = match self.claims.get(&value) {
            Some(Claim::Part { .. }) => return,
            Some(Claim::Output(index)) => BufferRole::Output(*index),
            None => BufferRole::Internal,
        };
        let name = match &data.op {
            Op::Stage(stage) => stage.name.clone(),
            _ => data.loc.name().unwrap_or("concat").to_owned(),
        };
        views.insert(value, self.new_buffer(placed, value, name, self.dims(value), role));
    }

    fn new_buffer(
        &self,
        placed: &mut Placed,
        value: ValueId,
        name: String,
        [rows, cols, chs]: Dims,
        role: BufferRole,
    ) -> BufferView {
        let elem = shape::elem(self.module.tensor_ty(value)).expect("selection accepted the type");
        let buffer = placed.buffers.push(Buffer { name, elem, rows, cols, chs, role });
        BufferView::whole(buffer, rows, cols, chs)
    }
}

/// What a value is before reshapes, transposes and identities that stand outside of stages and move nothing.
fn root(module: &Module, mut value: ValueId) -> ValueId {
    while let ValueDef::Result { op, .. } = module.def(value) {
        match &module.op(op).op {
            Op::Reshape(_) | Op::Transpose(_) | Op::Identity(_) => value = module.op(op).operands()[0],
            _ => break,
        }
    }
    value
}

fn collapsed(module: &Module, value: ValueId) -> Dims {
    shape::dims(&module.tensor_ty(value).shape).expect("selection accepted the shape")
}

/// The machine axis of a concatenation, and the extent along it of one of its operands.
fn concat_part(module: &Module, concat: OpId, value: ValueId) -> (usize, u32) {
    let Op::Concat(row) = &module.op(concat).op else { unreachable!("only concatenations have parts") };
    let out = &module.tensor_ty(module.result(concat)).shape;
    let axis = row.axis as usize;
    let cut = shape::cut(out, axis, 0, module.tensor_ty(value).shape[axis]);
    let (axis, _, extent) = cut.expect("selection accepted the axis");
    (axis, extent)
}

/// A slice as cuts of machine axes: axis, offset and extent; `None` if the machine cannot cut so.
pub(super) fn slice_cuts(module: &Module, op: OpId) -> Option<Vec<(usize, u32, u32)>> {
    let operands = module.op(op).operands();
    let input = &module.tensor_ty(operands[0]).shape;
    let size = &module.tensor_ty(module.result(op)).shape;
    let start = module.constant(operands[1])?.tensor.data().to_ints()?;
    let mut cuts = Vec::new();
    for (axis, (&start, &size)) in start.iter().zip(size).enumerate() {
        if size != input[axis] {
            cuts.push(shape::cut(input, axis, usize::try_from(start).ok()?, size)?);
        }
    }
    Some(cuts)
}

/// External names of a function's arguments, as its attributes give them.
fn argument_names(module: &Module, block: BlockId) -> Vec<String> {
    let n_args = module.args(block).len();
    let attrs = match &module.op(module.block_op(block)).op {
        Op::Func(func) => func.arg_attrs.clone(),
        _ => None,
    };
    let dicts = if let Some(Attribute::Array(dicts)) = attrs { dicts } else { Vec::new() };
    let name = |index: usize| match dicts.get(index) {
        Some(Attribute::Dict(dict)) => match dict.get("strata.name") {
            Some(Attribute::Str(name)) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    (0..n_args).map(|index| name(index).unwrap_or_else(|| format!("input{index}"))).collect()
}
