//! Selection: TOSA op sequences to stages of the machine.
//!
//! Ops are looked at in order. A head opens a draft; an elementwise op joins the draft that makes its operand, if
//! nothing else uses that operand, else it opens a draft that loads it. Of the two operands of an elementwise op
//! the one whose draft was opened later carries on, and the other is streamed: so every draft has one result, which
//! nothing inside it depends on through another draft.

use std::collections::{BTreeMap, BTreeSet};

use cranelift_entity::SecondaryMap;
use strata_ir::attr::RoundingMode;
use strata_ir::{Attribute, BlockId, ElemType, Module, Op, OpId, Tensor, ValueId, dialect};
use strata_isa_spec::inst::{
    Argmax, AvgPool2d, Binary, BinaryConst, BinaryKind, Clamp, Conv2d, DepthwiseConv2d, Elem, Load, MatMul,
    MaxPool2d, OperandRescale, Pad, Reduce, ReduceKind, Rescale, Rescale16, Resize, ResizeMode, Table,
    TableI16, TransposeConv2d, WeightAddr, Window,
};
use strata_isa_spec::{Head, Tail, View};

use super::permute::Chain;
use super::shape::{self, Dims};
use super::upsample::Upsample;
use crate::manager::UnsupportedOp;

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

/// A stage to be.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The machine's head; its views are empty still.
    pub(super) head: Head,
    /// The machine's tails; their views are empty still.
    pub(super) tail: Vec<Tail>,
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
            Op::MaxPool2d(pool) => {
                self.one_image(op)?;
                let window = pool_window(pool.kernel, pool.stride, pool.pad)?;
                self.open_head(op, |_, _| Ok(MaxPool2d { src: View::default(), window }.into()), &[0])
            }
            Op::AvgPool2d(pool) => {
                self.one_image(op)?;
                let window = pool_window(pool.kernel, pool.stride, pool.pad)?;
                let (input_zp, output_zp) = (self.scalar(op, 1)?, self.scalar(op, 2)?);
                let head = AvgPool2d { src: View::default(), window, input_zp, output_zp };
                self.open_head(op, |_, _| Ok(head.into()), &[0])
            }
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
            Op::Clamp(clamp) => {
                let (Attribute::Int(min, _), Attribute::Int(max, _)) = (&clamp.min_val, &clamp.max_val)
                else {
                    return Err("the bounds are no integers".to_owned());
                };
                let bound = |v: i64| i32::try_from(v).map_err(|_| "a bound is beyond i32".to_owned());
                let tail = Clamp { min: bound(*min)?, max: bound(*max)? };
                let at = self.join(op, true)?;
                self.out.drafts[at].tail.push(tail.into());
                Ok(())
            }
            Op::Table(_) => {
                let elem = self.elem_of(data.operands()[0])?;
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

    // What the heads and tails share.

    fn operand(&self, op: OpId, index: usize) -> ValueId {
        self.module.op(op).operands()[index]
    }

    fn shape(&self, value: ValueId) -> &[usize] {
        self.module.ty(value).as_tensor().map_or(&[], |ty| &ty.shape)
    }

    fn elem_of(&self, value: ValueId) -> Result<Elem, Refusal> {
        let ty = self.module.tensor_ty(value);
        shape::elem(ty).ok_or_else(|| format!("the machine has no streams of {}", ty.elem))
    }

    /// Whether a head can make a value: one that can be streamed, or sums of 48 bits on their way to a rescale.
    fn makes(&self, value: ValueId) -> Result<(), Refusal> {
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
    fn dims(&self, value: ValueId) -> Result<Dims, Refusal> {
        let natural = self.out.natural.get(&value).copied();
        natural.map_or_else(|| self.collapsed(value), Ok)
    }

    /// The extents that a value's shape collapses to.
    fn collapsed(&self, value: ValueId) -> Result<Dims, Refusal> {
        let shape = self.shape(value);
        shape::dims(shape).ok_or_else(|| format!("the machine has no streams of shape {shape:?}"))
    }

    /// A constant operand.
    fn constant(&self, op: OpId, index: usize) -> Result<ValueId, Refusal> {
        let value = self.operand(op, index);
        let name = self.module.op(op).op.info().operands[index];
        let is_const = self.module.constant(value).is_some();
        is_const.then_some(value).ok_or_else(|| format!("operand `{name}` must be a constant"))
    }

    fn constant_tensor(&self, op: OpId, index: usize) -> Result<&Tensor, Refusal> {
        let value = self.constant(op, index)?;
        Ok(&self.module.constant(value).expect("just seen to be constant").tensor)
    }

    /// A constant operand of one integer.
    fn scalar(&self, op: OpId, index: usize) -> Result<i32, Refusal> {
        let tensor = self.constant_tensor(op, index)?;
        let value = (tensor.n_elements() == 1).then(|| tensor.data().int_at(0)).flatten();
        value
            .and_then(|v| i32::try_from(v).ok())
            .ok_or_else(|| format!("operand {index} is no 32-bit integer"))
    }

    /// A constant operand of integers.
    fn ints<const N: usize>(&self, op: OpId, index: usize) -> Result<[i32; N], Refusal> {
        let values = self.constant_tensor(op, index)?.data().to_ints().unwrap_or_default();
        let values: Vec<i32> = values.into_iter().filter_map(|v| i32::try_from(v).ok()).collect();
        values.try_into().map_err(|_| format!("operand {index} must be {N} 32-bit integers"))
    }

    fn single_use(&self, value: ValueId) -> bool {
        self.users[value].len() == 1
    }

    /// Windowed heads see one image: the machine's rows are of one.
    fn one_image(&self, op: OpId) -> Result<(), Refusal> {
        let shape = self.shape(self.operand(op, 0));
        let single = shape.len() == 4 && shape[0] == 1;
        single
            .then_some(())
            .ok_or_else(|| format!("the machine slides windows over one image, not {shape:?}"))
    }

    /// Checks that `value` can be streamed and makes the read of it.
    fn read(&self, value: ValueId) -> Result<Read, Refusal> {
        if self.module.constant(value).is_some() {
            return Err(
                "the machine streams no constants; only operands of one element or one a channel".to_owned()
            );
        }
        self.elem_of(value)?;
        Ok(Read { value, dims: self.collapsed(value)? })
    }

    /// Sources of an op's operands, of which those in `reads` are the given reads, in order.
    fn sources(&self, op: OpId, streamed: &[usize], first_read: usize) -> Vec<Source> {
        let operands = self.module.op(op).operands().iter().enumerate();
        operands
            .map(|(index, &value)| match streamed.iter().position(|&s| s == index) {
                Some(at) => Source::Read(first_read + at),
                None => Source::Const(value),
            })
            .collect()
    }

    /// Opens a draft with an op that is a head; `make` gets the draft to enter tables in, and the reads.
    fn open_head(
        &mut self,
        op: OpId,
        make: impl FnOnce(&mut Vec<ValueId>, &[Read]) -> Result<Head, Refusal>,
        streamed: &[usize],
    ) -> Result<(), Refusal> {
        let reads = streamed
            .iter()
            .map(|&index| self.read(self.operand(op, index)))
            .collect::<Result<Vec<_>, _>>()?;
        let result = self.module.result(op);
        self.makes(result)?;
        let dims = self.collapsed(result)?;
        let mut tables = Vec::new();
        let head = make(&mut tables, &reads)?;
        let steps = vec![Step { op, operands: self.sources(op, streamed, 0) }];
        self.push(Draft { head, tail: Vec::new(), reads, tables, steps, result, dims, chain: None });
        Ok(())
    }

    fn push(&mut self, draft: Draft) {
        self.open.insert(draft.result, self.out.drafts.len());
        self.note_dims(draft.result, draft.dims);
        self.out.drafts.push(draft);
    }

    fn note_dims(&mut self, value: ValueId, dims: Dims) {
        if self.collapsed(value) != Ok(dims) {
            self.out.natural.insert(value, dims);
        }
    }

    /// The draft that may go on from `value`: it makes it, and nothing else uses it.
    fn extendable(&self, value: ValueId) -> Option<usize> {
        self.open.get(&value).copied().filter(|_| self.single_use(value))
    }

    /// The draft in which elementwise `op` may follow `value`: the one that makes `value`, if `may_extend` and it can go on
    /// with the extents of the op's result, else a new one that loads `value`. The op's result becomes the draft's.
    fn follow(&mut self, op: OpId, value: ValueId, may_extend: bool) -> Result<usize, Refusal> {
        let result = self.module.result(op);
        self.elem_of(result)?;
        let dims = self.collapsed(result)?;
        let goes_on = |at: &usize| {
            let draft = &self.out.drafts[*at];
            draft.dims == dims || matches!(draft.head, Head::Load(_)) && shape::broadcasts(draft.dims, dims)
        };
        let at = match self.extendable(value).filter(|_| may_extend).filter(goes_on) {
            Some(at) => at,
            None => {
                let read = self.read(value)?;
                if !shape::broadcasts(read.dims, dims) {
                    return Err(no_stretch(read.dims, dims));
                }
                self.out.drafts.push(Draft {
                    head: Load { src: View::default() }.into(),
                    tail: Vec::new(),
                    reads: vec![read],
                    tables: Vec::new(),
                    steps: Vec::new(),
                    result: value,
                    dims,
                    chain: None,
                });
                self.out.drafts.len() - 1
            }
        };
        self.carry_on(at, result, dims);
        Ok(at)
    }

    /// Makes `result` the result of a draft.
    fn carry_on(&mut self, at: usize, result: ValueId, dims: Dims) {
        let draft = &mut self.out.drafts[at];
        if self.open.get(&draft.result) == Some(&at) {
            self.open.remove(&draft.result);
        }
        self.open.insert(result, at);
        (draft.result, draft.dims, draft.chain) = (result, dims, None);
    }

    /// Lets an elementwise op whose operand 0 is streamed follow the draft of that.
    fn join(&mut self, op: OpId, may_extend: bool) -> Result<usize, Refusal> {
        let at = self.follow(op, self.operand(op, 0), may_extend)?;
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let operands = self.module.op(op).operands().iter().enumerate();
        let operands =
            operands.map(|(index, &value)| if index == 0 { last } else { Source::Const(value) }).collect();
        draft.steps.push(Step { op, operands });
        Ok(at)
    }

    // Heads.

    fn conv2d(&mut self, op: OpId, conv: &dialect::Conv2d) -> Result<(), Refusal> {
        let weights = self.constant(op, 1)?;
        let shape = self.shape(weights).to_vec();
        let [_, kernel_h, kernel_w, _] = shape[..] else {
            return Err("the weights must have rank 4".to_owned());
        };
        let window = window([kernel_h, kernel_w], conv.stride, conv.dilation, conv.pad)?;
        let pointwise = Window { kernel_h: 1, kernel_w: 1, stride_h: 1, stride_w: 1, ..window };
        let is_pointwise = Window { dilation_h: 1, dilation_w: 1, ..window }
            == Window {
                pad_top: 0,
                pad_bottom: 0,
                pad_left: 0,
                pad_right: 0,
                dilation_h: 1,
                dilation_w: 1,
                ..pointwise
            };
        if !is_pointwise {
            self.one_image(op)?;
        }
        let is_wide = self.is_wide(op)?;
        let bias = self.constant(op, 2)?;
        let (input_zp, weight_zp) = (self.scalar(op, 3)?, self.scalar(op, 4)?);
        let make = |tables: &mut Vec<ValueId>, _: &[Read]| {
            let (weights, bias) = (enter(tables, weights), enter(tables, bias));
            let src = View::default();
            let groups = 1;
            let conv = Conv2d { src, window, groups, input_zp, weight_zp, weights, bias, winograd: false };
            Ok(if is_wide { Head::Conv2dI16(conv) } else { conv.into() })
        };
        self.open_head(op, make, &[0])
    }

    fn depthwise(&mut self, op: OpId, conv: &dialect::DepthwiseConv2d) -> Result<(), Refusal> {
        self.one_image(op)?;
        let is_wide = self.is_wide(op)?;
        let weights = self.constant(op, 1)?;
        let shape = self.shape(weights).to_vec();
        let [kernel_h, kernel_w, _, multiplier] = shape[..] else {
            return Err("the weights must have rank 4".to_owned());
        };
        let window = window([kernel_h, kernel_w], conv.stride, conv.dilation, conv.pad)?;
        let multiplier = u32::try_from(multiplier).map_err(|_| "too many channels".to_owned())?;
        let bias = self.constant(op, 2)?;
        let (input_zp, weight_zp) = (self.scalar(op, 3)?, self.scalar(op, 4)?);
        let make = |tables: &mut Vec<ValueId>, _: &[Read]| {
            let (weights, bias) = (enter(tables, weights), enter(tables, bias));
            let src = View::default();
            let conv = DepthwiseConv2d { src, window, multiplier, input_zp, weight_zp, weights, bias };
            Ok(if is_wide { Head::DepthwiseConv2dI16(conv) } else { conv.into() })
        };
        self.open_head(op, make, &[0])
    }

    fn transpose_conv2d(&mut self, op: OpId, conv: &dialect::TransposeConv2d) -> Result<(), Refusal> {
        self.one_image(op)?;
        let is_wide = self.is_wide(op)?;
        let weights = self.constant(op, 1)?;
        let shape = self.shape(weights).to_vec();
        let [_, kernel_h, kernel_w, _] = shape[..] else {
            return Err("the weights must have rank 4".to_owned());
        };
        let kernel = window([kernel_h, kernel_w], conv.stride, [1, 1], [0; 4])?;
        let pad = |v: i64| i32::try_from(v).map_err(|_| "the padding is beyond i32".to_owned());
        let (out_pad_top, out_pad_left) = (pad(conv.out_pad[0])?, pad(conv.out_pad[2])?);
        let bias = self.constant(op, 2)?;
        let (input_zp, weight_zp) = (self.scalar(op, 3)?, self.scalar(op, 4)?);
        let make = |tables: &mut Vec<ValueId>, _: &[Read]| {
            let conv = TransposeConv2d {
                src: View::default(),
                kernel_h: kernel.kernel_h,
                kernel_w: kernel.kernel_w,
                stride_h: kernel.stride_h,
                stride_w: kernel.stride_w,
                out_pad_top,
                out_pad_left,
                input_zp,
                weight_zp,
                weights: enter(tables, weights),
                bias: enter(tables, bias),
            };
            Ok(if is_wide { Head::TransposeConv2dI16(conv) } else { conv.into() })
        };
        self.open_head(op, make, &[0])
    }

    /// Whether a convolution or matrix product sums in 48 bits, that is, whether its input is `i16`.
    fn is_wide(&self, op: OpId) -> Result<bool, Refusal> {
        let elem = |index: usize| self.module.tensor_ty(self.operand(op, index)).elem;
        let is_product = matches!(self.module.op(op).op, Op::MatMul(_));
        match (elem(0), elem(1)) {
            (ElemType::I8, ElemType::I8) => Ok(false),
            (ElemType::I16, ElemType::I8) if !is_product => Ok(true),
            (ElemType::I16, ElemType::I16) if is_product => Ok(true),
            (a, b) => Err(format!("the machine does not multiply {a} by {b}")),
        }
    }

    fn matmul(&mut self, op: OpId) -> Result<(), Refusal> {
        let is_wide = self.is_wide(op)?;
        let batches = u32::try_from(self.shape(self.operand(op, 0)).first().copied().unwrap_or(1));
        let batches = batches.map_err(|_| "too many batches".to_owned())?;
        let (a_zp, b_zp) = (self.scalar(op, 2)?, self.scalar(op, 3)?);
        let (a, b) = (View::default(), View::default());
        let product = MatMul { a, b, batches, a_zp, b_zp };
        let head = if is_wide { Head::MatMulI16(product) } else { product.into() };
        self.open_head(op, |_, _| Ok(head), &[0, 1])
    }

    fn resize(&mut self, op: OpId, resize: &dialect::Resize) -> Result<(), Refusal> {
        self.one_image(op)?;
        let [scale_y_n, scale_y_d, scale_x_n, scale_x_d] = self.ints(op, 1)?;
        let [offset_y, offset_x] = self.ints(op, 2)?;
        let mode = match resize.mode {
            strata_ir::attr::ResizeMode::NearestNeighbor => ResizeMode::Nearest,
            strata_ir::attr::ResizeMode::Bilinear => ResizeMode::Bilinear,
        };
        let src = View::default();
        let head = Resize { src, mode, scale_y_n, scale_y_d, scale_x_n, scale_x_d, offset_y, offset_x };
        self.open_head(op, |_, _| Ok(head.into()), &[0])
    }

    /// An upsample by ops that move data, as one stage.
    fn upsample(&mut self, upsample: &Upsample) -> Result<(), Refusal> {
        let [first, tile, last] = upsample.ops;
        let read = self.read(self.operand(first, 0))?;
        let result = self.module.result(last);
        self.elem_of(result)?;
        let after = |at: usize, op: OpId| Step {
            op,
            operands: vec![Source::Step(at), Source::Const(self.operand(op, 1))],
        };
        let steps =
            vec![Step { op: first, operands: self.sources(first, &[0], 0) }, after(0, tile), after(1, last)];
        let (head, dims) = (upsample.head().into(), self.collapsed(result)?);
        let (tail, tables) = (Vec::new(), Vec::new());
        self.push(Draft { head, tail, reads: vec![read], tables, steps, result, dims, chain: None });
        Ok(())
    }

    fn pad(&mut self, op: OpId) -> Result<(), Refusal> {
        let shape = self.shape(self.operand(op, 0)).to_vec();
        let padding = self.constant_tensor(op, 1)?.data().to_ints().unwrap_or_default();
        let value = self.scalar(op, 2)?;
        let mut before = [0u32; 3];
        for (axis, pair) in padding.chunks(2).enumerate() {
            let front = usize::try_from(pair[0]).map_err(|_| "the padding is negative".to_owned())?;
            if pair.iter().all(|&n| n == 0) {
                continue;
            }
            let cut = shape::cut(&shape, axis, front, shape[axis]);
            let (at, front, _) =
                cut.ok_or_else(|| format!("the machine does not pad axis {axis} of {shape:?}"))?;
            before[at] += front;
        }
        let [top, left, front] = before;
        let head = Pad { src: View::default(), top, left, front, value };
        self.open_head(op, |_, _| Ok(head.into()), &[0])
    }

    fn reduced_axis(&self, op: OpId, axis: i32) -> Result<usize, Refusal> {
        let shape = self.shape(self.operand(op, 0));
        let at = usize::try_from(axis).ok().filter(|&at| at < shape.len());
        at.and_then(|at| shape::lone_axis(shape, at))
            .ok_or_else(|| format!("the machine does not reduce axis {axis} of {shape:?}"))
    }

    fn reduce(&mut self, op: OpId, axis: i32, kind: ReduceKind) -> Result<(), Refusal> {
        let axis = shape::axis_name(self.reduced_axis(op, axis)?);
        self.open_head(op, |_, _| Ok(Reduce { src: View::default(), axis, kind }.into()), &[0])
    }

    /// A sum takes a widening of its operand along: the sum of `x - zp` is the sum of `x` less the number of summands
    /// times `zp`, and the widening's own scale, which is one, subtracts that.
    fn reduce_sum(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
        let widening =
            self.module.defining_op(self.operand(op, 0)).filter(|def| self.postponed.contains(def));
        let Some(widening) = widening else { return self.reduce(op, axis, ReduceKind::Sum) };
        let at = self.reduced_axis(op, axis)?;
        let source = self.operand(widening, 0);
        let read = self.read(source)?;
        let zp =
            if matches!(self.module.op(widening).op, Op::Rescale(_)) { self.scalar(widening, 3)? } else { 0 };
        let n_summands = i32::try_from(read.dims[at]).map_err(|_| "too many summands".to_owned())?;
        let input_zp = n_summands.checked_mul(zp).ok_or_else(|| "too many summands".to_owned())?;
        let result = self.module.result(op);
        let mut draft = Draft {
            head: Reduce { src: View::default(), axis: shape::axis_name(at), kind: ReduceKind::Sum }.into(),
            tail: Vec::new(),
            reads: vec![read],
            tables: Vec::new(),
            steps: vec![
                Step { op: widening, operands: self.sources(widening, &[0], 0) },
                Step { op, operands: vec![Source::Step(0)] },
            ],
            result,
            dims: self.collapsed(result)?,
            chain: None,
        };
        if zp != 0 {
            let (multipliers, shifts) = (self.operand(widening, 1), self.operand(widening, 2));
            let tail = Rescale {
                multipliers: draft.table(multipliers),
                shifts: draft.table(shifts),
                per_channel: false,
                input_zp,
                output_zp: 0,
                to: Elem::I32,
                double_round: false,
            };
            draft.tail.push(tail.into());
        }
        self.push(draft);
        Ok(())
    }

    fn argmax(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
        let shape = self.shape(self.operand(op, 0));
        if usize::try_from(axis).ok().map(|axis| axis + 1) != Some(shape.len()) {
            return Err(format!(
                "the machine takes the argmax of the last axis only, not of axis {axis} of {shape:?}"
            ));
        }
        let read = self.read(self.operand(op, 0))?;
        let result = self.module.result(op);
        self.collapsed(result)?;
        self.push(Draft {
            head: Argmax { src: View::default() }.into(),
            tail: Vec::new(),
            reads: vec![read],
            tables: Vec::new(),
            steps: vec![Step { op, operands: self.sources(op, &[0], 0) }],
            result,
            dims: [read.dims[0], read.dims[1], 1],
            chain: None,
        });
        Ok(())
    }

    /// Reshapes, transposes and identities: nothing at all where the machine sees no difference, else `permute`.
    fn rearrange(&mut self, op: OpId) -> Result<(), Refusal> {
        let (value, result) = (self.operand(op, 0), self.module.result(op));
        self.elem_of(result)?;
        let shape = self.shape(value).to_vec();
        let dims = self.collapsed(result)?;
        let apply = |chain: &Chain| match &self.module.op(op).op {
            Op::Transpose(transpose) => {
                let perms: Vec<usize> =
                    transpose.perms.iter().filter_map(|&p| usize::try_from(p).ok()).collect();
                chain.transpose(&shape, &perms)
            }
            _ => Some(chain.clone()),
        };
        let alone = apply(&Chain::identity(shape.iter().product())).ok_or("the transpose is malformed")?;
        let only_returned =
            self.users[result].iter().all(|&user| matches!(self.module.op(user).op, Op::FuncReturn(_)));
        let free = alone.is_identity() && (self.dims(value)? == dims || only_returned);
        let extendable = self.extendable(value);
        // A stage that moves data may as well make the extents that are asked for.
        let moves = extendable
            .is_some_and(|at| self.out.drafts[at].chain.is_some() && self.out.drafts[at].dims != dims);
        if free && !moves {
            // The bytes stay where they are; a draft just changes what it calls its result.
            match extendable.filter(|&at| self.out.drafts[at].dims == dims) {
                Some(at) => {
                    let made = self.out.drafts[at].dims;
                    self.follow_free(op, at, result);
                    self.note_dims(result, made);
                }
                None => {
                    self.read(value)?;
                    let made = self.dims(value)?;
                    self.note_dims(result, made);
                }
            }
            return Ok(());
        }
        if let Some(at) = extendable {
            let chain = self.out.drafts[at].chain.as_ref().and_then(apply);
            if let Some((chain, head)) = chain.and_then(|c| c.head(View::default()).map(|head| (c, head))) {
                self.follow_free(op, at, result);
                let draft = &mut self.out.drafts[at];
                (draft.head, draft.chain, draft.dims) = (head.into(), Some(chain), dims);
                return Ok(());
            }
        }
        let read = Read { dims: self.dims(value)?, ..self.read(value)? };
        let head = alone.head(View::default()).ok_or("the transpose has more than six independent axes")?;
        self.push(Draft {
            head: head.into(),
            tail: Vec::new(),
            reads: vec![read],
            tables: Vec::new(),
            steps: vec![Step { op, operands: self.sources(op, &[0], 0) }],
            result,
            dims,
            chain: Some(alone),
        });
        Ok(())
    }

    /// Adds an op that moves no data to a draft.
    fn follow_free(&mut self, op: OpId, at: usize, result: ValueId) {
        let operands = self.module.op(op).operands();
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let source = |(index, &value)| if index == 0 { last } else { Source::Const(value) };
        draft.steps.push(Step { op, operands: operands.iter().enumerate().map(source).collect() });
        self.open.remove(&draft.result);
        draft.result = result;
        self.open.insert(result, at);
    }

    // Views.

    fn concat(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
        let result = self.module.result(op);
        let out = self.shape(result);
        let axis =
            usize::try_from(axis).ok().filter(|&axis| axis < out.len()).ok_or("the axis does not exist")?;
        self.collapsed(result)?;
        for &operand in self.module.op(op).operands() {
            self.read(operand)?;
            if shape::cut(out, axis, 0, self.shape(operand)[axis]).is_none() {
                return Err(format!("the machine does not join axis {axis} of {out:?}"));
            }
        }
        Ok(())
    }

    fn slice(&mut self, op: OpId) -> Result<(), Refusal> {
        let value = self.operand(op, 0);
        self.read(value)?;
        self.constant(op, 1)?;
        super::buffers::slice_cuts(self.module, op).map(drop).ok_or_else(|| {
            format!(
                "the machine does not cut {:?} to {:?}",
                self.shape(value),
                self.shape(self.module.result(op))
            )
        })
    }

    // Tails.

    fn is_supported_rescale(rescale: &dialect::Rescale) -> Result<(), Refusal> {
        if rescale.input_unsigned || rescale.output_unsigned {
            return Err("the machine has signed integers only".to_owned());
        }
        Ok(())
    }

    fn rescale(&mut self, op: OpId, rescale: &dialect::Rescale, may_extend: bool) -> Result<usize, Refusal> {
        Self::is_supported_rescale(rescale)?;
        let (multipliers, shifts) = (self.constant(op, 1)?, self.constant(op, 2)?);
        let (input_zp, output_zp) = (self.scalar(op, 3)?, self.scalar(op, 4)?);
        let to = self.elem_of(self.module.result(op))?;
        let n_scales = self.constant_tensor(op, 1)?.n_elements();
        let at = self.join(op, may_extend)?;
        let draft = &mut self.out.drafts[at];
        let (multipliers, shifts) = (draft.table(multipliers), draft.table(shifts));
        let per_channel = n_scales > 1;
        let double_round = rescale.rounding_mode == RoundingMode::DoubleRound;
        draft.tail.push(if rescale.scale32 {
            Rescale { multipliers, shifts, per_channel, input_zp, output_zp, to, double_round }.into()
        } else {
            Rescale16 { multipliers, shifts, per_channel, input_zp, output_zp, to }.into()
        });
        Ok(at)
    }

    /// The draft in which elementwise `op` goes on from one of its operands, doing first the rescale that was left to it;
    /// one that other ops share too is done anew for each.
    fn carry(&mut self, op: OpId, side: Side, index: usize) -> Result<usize, Refusal> {
        let Some(rescale) = side.rescale else { return self.follow(op, self.operand(op, index), true) };
        let (result, dims) = (self.module.result(op), self.collapsed(self.module.result(op))?);
        let may_extend = self.single_use(self.module.result(rescale));
        let module = self.module;
        let at = match &module.op(rescale).op {
            Op::Rescale(row) => self.rescale(rescale, row, may_extend)?,
            _ => self.join(rescale, may_extend)?,
        };
        let draft = &self.out.drafts[at];
        let fits =
            draft.dims == dims || matches!(draft.head, Head::Load(_)) && shape::broadcasts(draft.dims, dims);
        if !fits {
            return Err(no_stretch(draft.dims, dims));
        }
        self.carry_on(at, result, dims);
        Ok(at)
    }

    /// Whether a cast widens an integer to `i32`.
    fn widens(&self, op: OpId) -> bool {
        let elem = |value: ValueId| self.module.tensor_ty(value).elem;
        matches!(elem(self.operand(op, 0)), ElemType::I8 | ElemType::I16)
            && elem(self.module.result(op)) == ElemType::I32
    }

    /// Whether a rescale or cast is left to the ops that use it: sums that take it along (if it only widens), and
    /// elementwise ops that rescale a streamed operand on its way in.
    fn is_postponed(&self, op: OpId) -> bool {
        let users = &self.users[self.module.result(op)];
        let is_sum = |&user: &OpId| matches!(self.module.op(user).op, Op::ReduceSum(_));
        if !users.is_empty() && users.iter().all(is_sum) {
            return self.is_widening(op);
        }
        !users.is_empty()
            && users.iter().all(|&user| is_binary(&self.module.op(user).op))
            && self.operand_rescale(op).is_some()
    }

    /// Whether an op gives `x - zp` in `i32`.
    fn is_widening(&self, op: OpId) -> bool {
        if !self.widens(op) {
            return false;
        }
        let Op::Rescale(_) = &self.module.op(op).op else { return true };
        let Some(OperandRescale { multiplier, shift, double_round, .. }) = self.operand_rescale(op).flatten()
        else {
            return false;
        };
        shift < 31 && multiplier == 1 << shift && !double_round
    }

    /// A rescale or cast as the rescale of a streamed operand: `Some(None)` if there is nothing to do, `None` if the
    /// machine cannot do it there.
    fn operand_rescale(&self, op: OpId) -> Option<Option<OperandRescale>> {
        if !self.widens(op) || self.module.constant(self.operand(op, 0)).is_some() {
            return None;
        }
        let Op::Rescale(rescale) = &self.module.op(op).op else { return Some(None) };
        Self::is_supported_rescale(rescale).ok().filter(|()| rescale.scale32)?;
        let ([multiplier], [shift]) = (self.ints(op, 1).ok()?, self.ints(op, 2).ok()?);
        if self.scalar(op, 4).ok()? != 0 {
            return None;
        }
        Some(Some(OperandRescale {
            multiplier,
            shift: u8::try_from(shift).ok()?,
            input_zp: self.scalar(op, 3).ok()?,
            double_round: rescale.rounding_mode == RoundingMode::DoubleRound,
        }))
    }

    /// What an operand of an elementwise op is before a rescale that was left to it.
    fn side(&self, op: OpId, index: usize) -> Side {
        let value = self.operand(op, index);
        match self.module.defining_op(value).filter(|def| self.postponed.contains(def)) {
            Some(rescale) => Side { value: self.operand(rescale, 0), rescale: Some(rescale) },
            None => Side { value, rescale: None },
        }
    }

    fn binary(&mut self, op: OpId, kind: BinaryKind, shift: u8) -> Result<(), Refusal> {
        let result = self.module.result(op);
        self.elem_of(result)?;
        for index in [0, 1] {
            if self.module.constant(self.operand(op, index)).is_some() {
                return self.binary_const(op, kind, shift, index);
            }
        }
        let sides = [self.side(op, 0), self.side(op, 1)];
        let dims = self.collapsed(result)?;
        // The later draft carries on; with none to carry on, an operand of the full extents is loaded.
        let draft_of = |side: &Side| {
            let free = side.rescale.is_none_or(|rescale| self.single_use(self.module.result(rescale)));
            let at = if free { self.extendable(side.value) } else { None };
            at.filter(|&at| self.out.drafts[at].dims == dims)
        };
        let drafts = [draft_of(&sides[0]), draft_of(&sides[1])];
        let spine = match (drafts[0], drafts[1]) {
            (None, None) => usize::from(self.collapsed(sides[0].value)? != dims),
            (first, second) => usize::from(second > first),
        };
        let (carried, streamed) = (sides[spine], sides[1 - spine]);
        let read = self.read(streamed.value)?;
        if !shape::broadcasts(read.dims, dims) {
            return Err(no_stretch(read.dims, dims));
        }
        let operand_rescale = streamed.rescale.and_then(|rescale| self.operand_rescale(rescale).flatten());
        let widening = streamed.rescale.map(|rescale| (rescale, self.sources(rescale, &[0], 0)));
        let at = self.carry(op, carried, spine)?;
        let n_operands = self.module.op(op).operands().len();
        let shift_operand = (n_operands == 3).then(|| self.operand(op, 2));
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let index = draft.reads.len();
        draft.reads.push(read);
        let mut other = Source::Read(index);
        if let Some((rescale, mut operands)) = widening {
            operands[0] = Source::Read(index);
            draft.steps.push(Step { op: rescale, operands });
            other = Source::Step(draft.steps.len() - 1);
        }
        let mut operands = if spine == 0 { vec![last, other] } else { vec![other, last] };
        operands.extend(shift_operand.map(Source::Const));
        draft.steps.push(Step { op, operands });
        let kind = if spine == 1 { reversed(kind) } else { kind };
        draft.tail.push(Binary { kind, src: View::default(), rescale: operand_rescale, shift }.into());
        Ok(())
    }

    fn binary_const(&mut self, op: OpId, kind: BinaryKind, shift: u8, index: usize) -> Result<(), Refusal> {
        let constant = self.operand(op, index);
        let (dims, elem) = (self.collapsed(constant)?, self.elem_of(constant)?);
        if dims[0] != 1 || dims[1] != 1 {
            return Err(format!("the machine takes constants of one element or one a channel, not {dims:?}"));
        }
        let at = self.carry(op, self.side(op, 1 - index), 1 - index)?;
        let n_operands = self.module.op(op).operands().len();
        let shift_operand = (n_operands == 3).then(|| self.operand(op, 2));
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let mut operands = if index == 1 {
            vec![last, Source::Const(constant)]
        } else {
            vec![Source::Const(constant), last]
        };
        operands.extend(shift_operand.map(Source::Const));
        draft.steps.push(Step { op, operands });
        let table = draft.table(constant);
        let kind = if index == 0 { reversed(kind) } else { kind };
        draft.tail.push(BinaryConst { kind, table, per_channel: dims[2] > 1, elem, shift }.into());
        Ok(())
    }
}

/// An operand of an elementwise op.
#[derive(Clone, Copy)]
struct Side {
    /// The value, before the rescale.
    value: ValueId,
    /// A rescale or cast that was left to the op.
    rescale: Option<OpId>,
}

impl Draft {
    /// The index of a constant among the tables.
    fn table(&mut self, value: ValueId) -> WeightAddr {
        enter(&mut self.tables, value)
    }

    /// What the latest op made, or the loaded operand.
    fn last(&self) -> Source {
        self.steps.len().checked_sub(1).map_or(Source::Read(0), Source::Step)
    }
}

/// The index of a constant among tables, which it joins if it is not there.
fn enter(tables: &mut Vec<ValueId>, value: ValueId) -> WeightAddr {
    let at = tables.iter().position(|&table| table == value).unwrap_or_else(|| {
        tables.push(value);
        tables.len() - 1
    });
    WeightAddr(at as u32)
}

fn no_stretch(from: Dims, to: Dims) -> Refusal {
    format!("{from:?} (rows, columns, channels) does not stretch to {to:?}")
}

/// The kind with its operands exchanged.
fn reversed(kind: BinaryKind) -> BinaryKind {
    match kind {
        BinaryKind::Sub => BinaryKind::ReverseSub,
        BinaryKind::ReverseSub => BinaryKind::Sub,
        BinaryKind::Add | BinaryKind::Mul | BinaryKind::Maximum | BinaryKind::Minimum => kind,
    }
}

/// Whether an op is an elementwise one of two streams.
pub(super) fn is_binary(op: &Op) -> bool {
    matches!(op, Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_))
}

fn pool_window(kernel: [i64; 2], stride: [i64; 2], pad: [i64; 4]) -> Result<Window, Refusal> {
    let kernel = kernel.map(|extent| usize::try_from(extent).unwrap_or(0));
    window(kernel, stride, [1, 1], pad)
}

fn window(
    kernel: [usize; 2],
    stride: [i64; 2],
    dilation: [i64; 2],
    pad: [i64; 4],
) -> Result<Window, Refusal> {
    let checked = |v: i64| u32::try_from(v).map_err(|_| format!("{v} is no extent of a window"));
    let kernel = kernel.map(|extent| i64::try_from(extent).unwrap_or(-1));
    Ok(Window {
        kernel_h: checked(kernel[0])?,
        kernel_w: checked(kernel[1])?,
        stride_h: checked(stride[0])?,
        stride_w: checked(stride[1])?,
        dilation_h: checked(dilation[0])?,
        dilation_w: checked(dilation[1])?,
        pad_top: checked(pad[0])?,
        pad_bottom: checked(pad[1])?,
        pad_left: checked(pad[2])?,
        pad_right: checked(pad[3])?,
    })
}
