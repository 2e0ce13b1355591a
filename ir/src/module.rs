//! The arenas that hold a module, and the primitives that build, read and rewrite it.
//!
//! Ids are `cranelift-entity` newtypes. Erased ops stay in their arena, detached, and are never printed or
//! visited; arenas are not compacted. Definition order is dominance
//! order: an operand is defined earlier in the same block, or in a block that encloses it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cranelift_entity::{PrimaryMap, SecondaryMap, entity_impl};

use crate::attr::{Attribute, Elements, FunctionType};
use crate::dialect::{BuiltinModule, Func, Op};
use crate::tensor::Tensor;
use crate::text::syntax::quoted;
use crate::types::{TensorType, Type};

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u32);
entity_impl!(OpId, "op");

/// An SSA value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(u32);
entity_impl!(ValueId, "%");

/// A block: arguments and a list of ops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u32);
entity_impl!(BlockId, "^bb");

/// A region of one op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(u32);
entity_impl!(RegionId, "region");

/// Where an op came from: the ONNX node's name and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Location(Option<Arc<LocationData>>);

#[derive(Debug, PartialEq, Eq)]
struct LocationData {
    name: String,
    file: Option<(String, u32, u32)>,
}

impl Location {
    /// No known place.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// `loc("name")`: a named place, such as an ONNX node.
    pub fn named(name: impl Into<String>) -> Self {
        Self(Some(Arc::new(LocationData { name: name.into(), file: None })))
    }

    /// `loc("name"("file":line:column))`: a named place in a file; for ONNX the line is the node's index.
    pub fn in_file(name: impl Into<String>, file: impl Into<String>, line: u32, column: u32) -> Self {
        Self(Some(Arc::new(LocationData { name: name.into(), file: Some((file.into(), line, column)) })))
    }

    /// `loc("file":line:column)`: a place in a file without a name.
    pub fn at(file: impl Into<String>, line: u32, column: u32) -> Self {
        Self::in_file("", file, line, column)
    }

    /// Whether anything is known of the place.
    pub fn is_known(&self) -> bool {
        self.name().is_some() || self.file().is_some()
    }

    /// The name, if known.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|l| l.name.as_str()).filter(|name| !name.is_empty())
    }

    /// File, line and column, if known.
    pub fn file(&self) -> Option<(&str, u32, u32)> {
        self.0.as_ref()?.file.as_ref().map(|(f, l, c)| (f.as_str(), *l, *c))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.file()) {
            (Some(name), Some((file, line, column))) => {
                write!(f, "loc({}({}:{line}:{column}))", quoted(name), quoted(file))
            }
            (None, Some((file, line, column))) => write!(f, "loc({}:{line}:{column})", quoted(file)),
            (Some(name), None) => write!(f, "loc({})", quoted(name)),
            (None, None) => f.write_str("loc(unknown)"),
        }
    }
}

/// An operation: its kind with inherent attributes, operands, results, regions and place.
#[derive(Clone, Debug)]
pub struct OpData {
    /// Kind and inherent attributes.
    pub op: Op,
    /// Discardable attributes.
    pub extra: BTreeMap<String, Attribute>,
    /// Where it came from.
    pub loc: Location,
    operands: Vec<ValueId>,
    results: Vec<ValueId>,
    regions: Vec<RegionId>,
    parent: Option<BlockId>,
}

impl OpData {
    /// Operands in order.
    pub fn operands(&self) -> &[ValueId] {
        &self.operands
    }

    /// Results in order.
    pub fn results(&self) -> &[ValueId] {
        &self.results
    }

    /// Regions in order.
    pub fn regions(&self) -> &[RegionId] {
        &self.regions
    }

    /// The block that the op stands in; `None` for the module op and for erased ops.
    pub fn parent(&self) -> Option<BlockId> {
        self.parent
    }
}

/// What defines a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueDef {
    /// Result `index` of an op.
    Result {
        /// The op.
        op: OpId,
        /// Which result.
        index: usize,
    },
    /// Argument `index` of a block.
    Arg {
        /// The block.
        block: BlockId,
        /// Which argument.
        index: usize,
    },
}

#[derive(Clone, Debug)]
struct ValueData {
    ty: Type,
    def: ValueDef,
}

#[derive(Clone, Debug, Default)]
struct BlockData {
    args: Vec<ValueId>,
    ops: Vec<OpId>,
    region: Option<RegionId>,
}

#[derive(Clone, Debug)]
struct RegionData {
    blocks: Vec<BlockId>,
    op: OpId,
}

/// A whole module: one `builtin.module` op and everything in it.
#[derive(Clone, Debug)]
pub struct Module {
    ops: PrimaryMap<OpId, OpData>,
    values: PrimaryMap<ValueId, ValueData>,
    blocks: PrimaryMap<BlockId, BlockData>,
    regions: PrimaryMap<RegionId, RegionData>,
    top: OpId,
}

impl Default for Module {
    fn default() -> Self {
        Self::new()
    }
}

impl Module {
    /// An empty module.
    pub fn new() -> Self {
        let mut ops = PrimaryMap::new();
        let top = ops.push(OpData {
            op: BuiltinModule {}.into(),
            extra: BTreeMap::new(),
            loc: Location::unknown(),
            operands: Vec::new(),
            results: Vec::new(),
            regions: Vec::new(),
            parent: None,
        });
        let mut module = Self {
            ops,
            values: PrimaryMap::new(),
            blocks: PrimaryMap::new(),
            regions: PrimaryMap::new(),
            top,
        };
        let region = module.add_region(top);
        module.add_block(region, &[]);
        module
    }

    /// The `builtin.module` op.
    pub fn top(&self) -> OpId {
        self.top
    }

    /// The block that holds the functions.
    pub fn body(&self) -> BlockId {
        self.entry_block(self.top)
    }

    /// An op.
    pub fn op(&self, op: OpId) -> &OpData {
        &self.ops[op]
    }

    /// An op, to change its attributes or place.
    pub fn op_mut(&mut self, op: OpId) -> &mut OpData {
        &mut self.ops[op]
    }

    /// A value's type.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value].ty
    }

    /// A value's tensor type.
    ///
    /// # Panics
    /// If the value is a `!tosa.shape`; verified ops have those only where their rows say so.
    pub fn tensor_ty(&self, value: ValueId) -> &TensorType {
        self.ty(value).as_tensor().expect("a verified op's tensor operand has a tensor type")
    }

    /// Changes a value's type.
    pub fn set_ty(&mut self, value: ValueId, ty: impl Into<Type>) {
        self.values[value].ty = ty.into();
    }

    /// What defines a value.
    pub fn def(&self, value: ValueId) -> ValueDef {
        self.values[value].def
    }

    /// The op that defines a value, if it is not a block argument.
    pub fn defining_op(&self, value: ValueId) -> Option<OpId> {
        match self.values[value].def {
            ValueDef::Result { op, .. } => Some(op),
            ValueDef::Arg { .. } => None,
        }
    }

    /// The constant a value holds, if a constant op defines it.
    pub fn constant(&self, value: ValueId) -> Option<&Elements> {
        self.defining_op(value).and_then(|op| self.ops[op].op.constant())
    }

    /// The only result of an op.
    ///
    /// # Panics
    /// If it has none.
    pub fn result(&self, op: OpId) -> ValueId {
        self.ops[op].results[0]
    }

    /// Arguments of a block.
    pub fn args(&self, block: BlockId) -> &[ValueId] {
        &self.blocks[block].args
    }

    /// Ops of a block in order.
    pub fn block_ops(&self, block: BlockId) -> &[OpId] {
        &self.blocks[block].ops
    }

    /// The last op of a block.
    pub fn terminator(&self, block: BlockId) -> Option<OpId> {
        self.blocks[block].ops.last().copied()
    }

    /// Blocks of a region.
    pub fn region_blocks(&self, region: RegionId) -> &[BlockId] {
        &self.regions[region].blocks
    }

    /// The op that owns a region.
    pub fn region_op(&self, region: RegionId) -> OpId {
        self.regions[region].op
    }

    /// The op whose region a block stands in.
    pub fn block_op(&self, block: BlockId) -> OpId {
        let region = self.blocks[block].region.expect("every block stands in a region");
        self.regions[region].op
    }

    /// The first block of the first region of an op.
    ///
    /// # Panics
    /// If the op has no region or it is empty.
    pub fn entry_block(&self, op: OpId) -> BlockId {
        self.regions[self.ops[op].regions[0]].blocks[0]
    }

    /// The functions, in order.
    pub fn functions(&self) -> Vec<OpId> {
        let is_func = |op: &OpId| matches!(self.ops[*op].op, Op::Func(_));
        self.block_ops(self.body()).iter().copied().filter(is_func).collect()
    }

    /// The function of a name.
    pub fn function(&self, name: &str) -> Option<OpId> {
        self.functions().into_iter().find(|&op| matches!(&self.ops[op].op, Op::Func(f) if f.sym_name == name))
    }

    /// Ops of a block and of all regions below it, in order, parents first.
    pub fn walk(&self, block: BlockId) -> Vec<OpId> {
        let mut out = Vec::new();
        self.walk_into(block, &mut out);
        out
    }

    fn walk_into(&self, block: BlockId, out: &mut Vec<OpId>) {
        for &op in &self.blocks[block].ops {
            out.push(op);
            for &region in &self.ops[op].regions {
                for &inner in &self.regions[region].blocks {
                    self.walk_into(inner, out);
                }
            }
        }
    }

    /// For every value, the ops below `block` that use it, in walk order; an op that uses it twice stands
    /// twice.
    pub fn users(&self, block: BlockId) -> SecondaryMap<ValueId, Vec<OpId>> {
        let mut users: SecondaryMap<ValueId, Vec<OpId>> = SecondaryMap::new();
        for op in self.walk(block) {
            for &operand in &self.ops[op].operands {
                users[operand].push(op);
            }
        }
        users
    }

    /// Adds a function with one block and its arguments; returns the op and the block.
    pub fn add_function(&mut self, name: &str, ty: FunctionType) -> (OpId, BlockId) {
        let inputs = ty.inputs.clone();
        let func = Func { sym_name: name.to_owned(), function_type: ty, arg_attrs: None, res_attrs: None };
        let op = self.append(self.body(), func, &[], &[], Location::unknown());
        let region = self.add_region(op);
        (op, self.add_block(region, &inputs))
    }

    /// Appends an op to a block.
    pub fn append(
        &mut self,
        block: BlockId,
        op: impl Into<Op>,
        operands: &[ValueId],
        results: &[Type],
        loc: Location,
    ) -> OpId {
        let at = self.blocks[block].ops.len();
        self.insert_at(block, at, op, operands, results, loc)
    }

    /// Inserts an op before another in the same block.
    ///
    /// # Panics
    /// If `anchor` is erased.
    pub fn insert_before(
        &mut self,
        anchor: OpId,
        op: impl Into<Op>,
        operands: &[ValueId],
        results: &[Type],
        loc: Location,
    ) -> OpId {
        let (block, at) = self.position(anchor);
        self.insert_at(block, at, op, operands, results, loc)
    }

    /// Inserts an op at a position of a block.
    pub fn insert_at(
        &mut self,
        block: BlockId,
        at: usize,
        op: impl Into<Op>,
        operands: &[ValueId],
        results: &[Type],
        loc: Location,
    ) -> OpId {
        let id = self.ops.push(OpData {
            op: op.into(),
            extra: BTreeMap::new(),
            loc,
            operands: operands.to_vec(),
            results: Vec::new(),
            regions: Vec::new(),
            parent: Some(block),
        });
        let results = results
            .iter()
            .enumerate()
            .map(|(index, ty)| {
                self.values.push(ValueData { ty: ty.clone(), def: ValueDef::Result { op: id, index } })
            })
            .collect();
        self.ops[id].results = results;
        self.blocks[block].ops.insert(at, id);
        id
    }

    /// Appends a tensor constant and returns its value.
    pub fn append_const(&mut self, block: BlockId, tensor: Tensor, loc: Location) -> ValueId {
        let at = self.blocks[block].ops.len();
        self.insert_const_at(block, at, tensor.into(), loc)
    }

    /// Inserts a constant before an op and returns its value.
    pub fn insert_const_before(&mut self, anchor: OpId, tensor: Tensor, loc: Location) -> ValueId {
        let (block, at) = self.position(anchor);
        self.insert_const_at(block, at, tensor.into(), loc)
    }

    /// Inserts a constant at a position of a block and returns its value. `index` data make a
    /// `tosa.const_shape`.
    pub fn insert_const_at(&mut self, block: BlockId, at: usize, values: Elements, loc: Location) -> ValueId {
        let ty = values.tensor.ty();
        let op = if ty.elem == crate::ElemType::Index {
            let shape = Type::Shape(ty.n_elements());
            self.insert_at(block, at, crate::dialect::ConstShape { values }, &[], &[shape], loc)
        } else {
            self.insert_at(block, at, crate::dialect::Const { values }, &[], &[ty.into()], loc)
        };
        self.result(op)
    }

    /// Adds an empty region to an op.
    pub fn add_region(&mut self, op: OpId) -> RegionId {
        let region = self.regions.push(RegionData { blocks: Vec::new(), op });
        self.ops[op].regions.push(region);
        region
    }

    /// Adds a block with arguments to a region.
    pub fn add_block(&mut self, region: RegionId, args: &[Type]) -> BlockId {
        let block = self.blocks.push(BlockData { region: Some(region), ..BlockData::default() });
        self.regions[region].blocks.push(block);
        for ty in args {
            self.add_arg(block, ty.clone());
        }
        block
    }

    /// Adds an argument to a block.
    pub fn add_arg(&mut self, block: BlockId, ty: Type) -> ValueId {
        let index = self.blocks[block].args.len();
        let value = self.values.push(ValueData { ty, def: ValueDef::Arg { block, index } });
        self.blocks[block].args.push(value);
        value
    }

    /// Adds a result to an op.
    pub fn add_result(&mut self, op: OpId, ty: Type) -> ValueId {
        let index = self.ops[op].results.len();
        let value = self.values.push(ValueData { ty, def: ValueDef::Result { op, index } });
        self.ops[op].results.push(value);
        value
    }

    /// An op's block and its place in it.
    ///
    /// # Panics
    /// If the op is erased.
    pub fn position(&self, op: OpId) -> (BlockId, usize) {
        let block = self.ops[op].parent.expect("an op that is positioned stands in a block");
        let at = self.blocks[block].ops.iter().position(|&o| o == op).expect("a block lists its ops");
        (block, at)
    }

    /// Replaces an op's operand.
    pub fn set_operand(&mut self, op: OpId, index: usize, value: ValueId) {
        self.ops[op].operands[index] = value;
    }

    /// Replaces all of an op's operands.
    pub fn set_operands(&mut self, op: OpId, operands: &[ValueId]) {
        self.ops[op].operands = operands.to_vec();
    }

    /// Makes every op that uses `from` use `to` instead. Looks at the whole module.
    pub fn replace_all_uses(&mut self, from: ValueId, to: ValueId) {
        for op in self.ops.values_mut() {
            for operand in &mut op.operands {
                if *operand == from {
                    *operand = to;
                }
            }
        }
    }

    /// Makes every op use `map[v]` instead of `v`, in one sweep; chains are followed.
    pub fn replace_uses(&mut self, map: &BTreeMap<ValueId, ValueId>) {
        for op in self.ops.values_mut() {
            for operand in &mut op.operands {
                while let Some(&to) = map.get(operand) {
                    *operand = to;
                }
            }
        }
    }

    /// Takes an op out of its block and drops its operands. Its results must have no uses left.
    pub fn erase(&mut self, op: OpId) {
        if let Some(block) = self.ops[op].parent.take() {
            self.blocks[block].ops.retain(|&o| o != op);
        }
        self.ops[op].operands.clear();
    }

    /// Takes all the ops that `dead` holds out of a block in one sweep.
    pub fn erase_where(&mut self, block: BlockId, dead: impl Fn(OpId) -> bool) {
        let (gone, kept): (Vec<_>, Vec<_>) = self.blocks[block].ops.iter().copied().partition(|&op| dead(op));
        self.blocks[block].ops = kept;
        for op in gone {
            self.ops[op].parent = None;
            self.ops[op].operands.clear();
        }
    }

    /// Moves an op to the end of another block.
    pub fn move_to_end(&mut self, op: OpId, block: BlockId) {
        if let Some(old) = self.ops[op].parent.replace(block) {
            self.blocks[old].ops.retain(|&o| o != op);
        }
        self.blocks[block].ops.push(op);
    }

    /// Gives a block's ops a new order, which must be a permutation of the present one.
    ///
    /// # Panics
    /// If it is not.
    pub fn set_block_order(&mut self, block: BlockId, order: Vec<OpId>) {
        let sorted = |ops: &[OpId]| {
            let mut ops = ops.to_vec();
            ops.sort_unstable();
            ops
        };
        assert_eq!(sorted(&order), sorted(&self.blocks[block].ops), "a new order holds the same ops");
        self.blocks[block].ops = order;
    }
}
