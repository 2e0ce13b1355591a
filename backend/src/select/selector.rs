//! Selection: TOSA op sequences to stages of the machine.
//!
//! Ops are looked at in order. A head opens a draft; an elementwise op joins the draft that makes its
//! operand, if nothing else uses that operand, else it opens a draft that loads it. Of the two operands of an
//! elementwise op the one whose draft was opened later carries on, and the other is streamed: so every draft
//! has one result, which nothing inside it depends on through another draft.
//!
//! | module | what it does |
//! |---|---|
//! | [`values`] | what can be streamed, and what constants hold |
//! | [`drafts`] | drafts that are opened and carried on |
//! | [`heads`] | ops that open a draft |
//! | [`tails`] | elementwise ops |
//! | [`moves`] | rearrangements and views |

mod drafts;
mod heads;
mod moves;
mod tails;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use cranelift_entity::SecondaryMap;
use strata_ir::pass::UnsupportedOp;
use strata_ir::{Attribute, BlockId, Module, Op, OpId, ValueId, dialect};
use strata_isa_spec::inst::{AvgPool2d, BinaryKind, Clamp, Elem, MaxPool2d, ReduceKind, Table, TableI16};
use strata_isa_spec::{Head, StageCode, Tail, View};

use crate::model::TableId;
use crate::select::by_sign::ChoiceBySign;
use crate::select::permute::Chain;
use crate::select::selector::heads::pool_window;
use crate::select::shape::Dims;
use crate::select::upsample::Upsample;

/// Where an op of a stage takes an operand from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// Streamed: a read of the draft.
    Read(usize),
    /// An earlier step of the draft.
    Step(usize),
    /// A constant.
    Const(ValueId),
}

/// A TOSA op of a stage.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The op to clone.
    pub(super) op: OpId,
    /// Its operands.
    pub(super) operands: Vec<Source>,
}

/// A streamed operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// The value in the function.
    pub(super) value: ValueId,
    /// The extents in which the stage reads it.
    pub(super) dims: Dims,
}

/// The head of a stage to be: what it reads has no place yet.
pub(super) type DraftHead = Head<(), TableId>;

/// What a stage to be computes, of tensors that have no place yet.
pub(super) type DraftCode = StageCode<(), TableId>;

/// A stage to be.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The machine's head.
    pub(super) head: DraftHead,
    /// The machine's tails.
    pub(super) tail: Vec<Tail<(), TableId>>,
    /// What the views read, in the order of `StageCode::reads`.
    pub(super) reads: Vec<Read>,
    /// Constants in the order of their indices in the code.
    pub(super) tables: Vec<ValueId>,
    /// The ops.
    pub(super) steps: Vec<Step>,
    /// The value that it makes.
    pub(super) result: ValueId,
    /// The extents in which the machine makes it.
    pub(super) dims: Dims,
    /// Reshapes and transposes folded so far, while the draft consists of nothing else.
    chain: Option<Chain>,
}

/// The drafts of a function.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// In the order in which they were opened.
    pub(super) drafts: Vec<Draft>,
    /// Extents in which values stand, where these are not what their shapes collapse to.
    pub(super) natural: BTreeMap<ValueId, Dims>,
}

/// Why an op has no stage.
type Refusal = String;

/// Selects stages for all ops of a block.
///
/// # Errors
/// Every op that the machine cannot run.
pub(super) fn select(module: &Module, block: BlockId) -> Result<Selection, Vec<UnsupportedOp>> {
    let mut selector = Selector {
        module,
        users: module.users(block),
        postponed: BTreeSet::new(),
        open: BTreeMap::new(),
        out: Selection::default(),
    };
    let mut refused = Vec::new();
    for &arg in module.args(block) {
        if let Err(reason) = selector.read(arg) {
            let func = module.block_op(block);
            refused.push(UnsupportedOp::new(module, func, format!("argument {}: {reason}", module.ty(arg))));
        }
    }
    for &op in module.block_ops(block) {
        if let Err(reason) = selector.visit(op) {
            refused.push(UnsupportedOp::new(module, op, reason));
        }
    }
    if refused.is_empty() { Ok(selector.out) } else { Err(refused) }
}

struct Selector<'a> {
    module: &'a Module,
    users: SecondaryMap<ValueId, Vec<OpId>>,
    /// Rescales and casts that are left to the ops that use them.
    postponed: BTreeSet<OpId>,
    /// The draft that a value is the result of.
    open: BTreeMap<ValueId, usize>,
    out: Selection,
}

impl Selector<'_> {
    fn visit(&mut self, op: OpId) -> Result<(), Refusal> {
        let data = self.module.op(op);
        if let Some(upsample) = Upsample::of(self.module, &self.users, op) {
            return if upsample.ops[2] == op { self.upsample(&upsample) } else { Ok(()) };
        }
        if let Some(choice) = ChoiceBySign::of(self.module, &self.users, op) {
            return if choice.select == op { self.rescale_by_sign(&choice) } else { Ok(()) };
        }
        match &data.op {
            Op::Const(_) | Op::ConstShape(_) => Ok(()),
            Op::FuncReturn(_) => data.operands().iter().try_for_each(|&value| self.read(value).map(drop)),
            Op::Concat(concat) => self.concat(op, concat.axis),
            Op::Slice(_) => self.slice(op),
            Op::Reshape(_) | Op::Transpose(_) | Op::Identity(_) => self.rearrange(op),
            Op::Conv2d(conv) => self.conv2d(op, conv),
            Op::DepthwiseConv2d(conv) => self.depthwise(op, conv),
            Op::TransposeConv2d(conv) => self.transpose_conv2d(op, conv),
            Op::MatMul(_) => self.matmul(op),
            Op::MaxPool2d(pool) => self.max_pool2d(op, pool),
            Op::AvgPool2d(pool) => self.avg_pool2d(op, pool),
            Op::Resize(resize) => self.resize(op, resize),
            Op::Pad(_) => self.pad(op),
            Op::ReduceSum(reduce) => self.reduce_sum(op, reduce.axis),
            Op::ReduceMax(reduce) => self.reduce(op, reduce.axis, ReduceKind::Max),
            Op::ReduceMin(reduce) => self.reduce(op, reduce.axis, ReduceKind::Min),
            Op::ReduceProduct(reduce) => self.reduce(op, reduce.axis, ReduceKind::Product),
            Op::Argmax(argmax) => self.argmax(op, argmax.axis),
            Op::Rescale(rescale) => {
                if self.is_postponed(op) {
                    self.postponed.insert(op);
                    return Ok(());
                }
                self.rescale(op, rescale, true).map(drop)
            }
            Op::Cast(_) => {
                if !self.widens(op) {
                    return Err("the machine casts from i8 and i16 to i32 only".to_owned());
                }
                if self.is_postponed(op) {
                    self.postponed.insert(op);
                    return Ok(());
                }
                self.join(op, true).map(drop)
            }
            Op::Clamp(clamp) => self.clamp(op, clamp),
            Op::Table(_) => self.table(op),
            Op::Add(_) => self.binary(op, BinaryKind::Add, 0),
            Op::Sub(_) => self.binary(op, BinaryKind::Sub, 0),
            Op::Maximum(_) => self.binary(op, BinaryKind::Maximum, 0),
            Op::Minimum(_) => self.binary(op, BinaryKind::Minimum, 0),
            Op::Mul(_) => {
                let shift = self.scalar(op, 2)?;
                let shift = u8::try_from(shift).map_err(|_| "the shift is negative".to_owned())?;
                self.binary(op, BinaryKind::Mul, shift)
            }
            other => Err(format!("the machine has no stage for `{}` on integers", other.name())),
        }
    }

    fn max_pool2d(&mut self, op: OpId, pool: &dialect::MaxPool2d) -> Result<(), Refusal> {
        self.one_image(op)?;
        let window = pool_window(pool.kernel, pool.stride, pool.pad)?;
        self.open_head(op, |_, _| Ok(MaxPool2d { src: View::default(), window }.into()), &[0])
    }

    fn avg_pool2d(&mut self, op: OpId, pool: &dialect::AvgPool2d) -> Result<(), Refusal> {
        self.one_image(op)?;
        let window = pool_window(pool.kernel, pool.stride, pool.pad)?;
        let (input_zp, output_zp) = (self.scalar(op, 1)?, self.scalar(op, 2)?);
        let head = AvgPool2d { src: View::default(), window, input_zp, output_zp };
        self.open_head(op, |_, _| Ok(head.into()), &[0])
    }

    fn clamp(&mut self, op: OpId, clamp: &dialect::Clamp) -> Result<(), Refusal> {
        let (&Attribute::Int(min, _), &Attribute::Int(max, _)) = (&clamp.min_val, &clamp.max_val) else {
            return Err("the bounds are no integers".to_owned());
        };
        let bound = |v: i64| i32::try_from(v).map_err(|_| "a bound is beyond i32".to_owned());
        let tail = Clamp { min: bound(min)?, max: bound(max)? };
        let at = self.join(op, true)?;
        self.out.drafts[at].tail.push(tail.into());
        Ok(())
    }

    fn table(&mut self, op: OpId) -> Result<(), Refusal> {
        let elem = self.elem_of(self.module.op(op).operands()[0])?;
        let table = self.constant(op, 1)?;
        let at = self.join(op, true)?;
        let draft = &mut self.out.drafts[at];
        let table = draft.table(table);
        draft.tail.push(match elem {
            Elem::I16 => TableI16 { table }.into(),
            _ => Table { table }.into(),
        });
        Ok(())
    }
}

/// Whether an op is an elementwise one of two streams.
pub(super) fn is_binary(op: &Op) -> bool {
    matches!(op, Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_))
}
