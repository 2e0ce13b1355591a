//! Heads: the ops that make an accumulator row of what they read.

use strata_ir::{ElemType, Op, OpId, ValueId, dialect};
use strata_isa_spec::demand::MAX_WINDOW;
use strata_isa_spec::inst::{
    Argmax, Conv2d, DepthwiseConv2d, Elem, MatMul, Pad, Reduce, ReduceKind, Rescale, Resize, ResizeMode,
    TransposeConv2d, Window,
};
use strata_isa_spec::{Head, View};

use crate::select::selector::drafts::enter;
use crate::select::selector::{Draft, Read, Refusal, Selector, Source, Step};
use crate::select::shape;
use crate::select::upsample::Upsample;

impl Selector<'_> {
    pub(super) fn conv2d(&mut self, op: OpId, conv: &dialect::Conv2d) -> Result<(), Refusal> {
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

    pub(super) fn depthwise(&mut self, op: OpId, conv: &dialect::DepthwiseConv2d) -> Result<(), Refusal> {
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

    pub(super) fn transpose_conv2d(
        &mut self,
        op: OpId,
        conv: &dialect::TransposeConv2d,
    ) -> Result<(), Refusal> {
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

    pub(super) fn matmul(&mut self, op: OpId) -> Result<(), Refusal> {
        let is_wide = self.is_wide(op)?;
        let batches = u32::try_from(self.shape(self.operand(op, 0)).first().copied().unwrap_or(1));
        let batches = batches.map_err(|_| "too many batches".to_owned())?;
        let (a_zp, b_zp) = (self.scalar(op, 2)?, self.scalar(op, 3)?);
        let (a, b) = (View::default(), View::default());
        let product = MatMul { a, b, batches, a_zp, b_zp };
        let head = if is_wide { Head::MatMulI16(product) } else { product.into() };
        self.open_head(op, |_, _| Ok(head), &[0, 1])
    }

    pub(super) fn resize(&mut self, op: OpId, resize: &dialect::Resize) -> Result<(), Refusal> {
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
    pub(super) fn upsample(&mut self, upsample: &Upsample) -> Result<(), Refusal> {
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

    pub(super) fn pad(&mut self, op: OpId) -> Result<(), Refusal> {
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

    pub(super) fn reduce(&mut self, op: OpId, axis: i32, kind: ReduceKind) -> Result<(), Refusal> {
        let axis = shape::axis_name(self.reduced_axis(op, axis)?);
        self.open_head(op, |_, _| Ok(Reduce { src: View::default(), axis, kind }.into()), &[0])
    }

    /// A sum takes a widening of its operand along: the sum of `x - zp` is the sum of `x` less the number of
    /// summands times `zp`, and the widening's own scale, which is one, subtracts that.
    pub(super) fn reduce_sum(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
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

    pub(super) fn argmax(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
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
}

pub(super) fn pool_window(kernel: [i64; 2], stride: [i64; 2], pad: [i64; 4]) -> Result<Window, Refusal> {
    let kernel = kernel.map(|extent| usize::try_from(extent).unwrap_or(0));
    window(kernel, stride, [1, 1], pad)
}

/// The machine's window. Taps of an axis with one of them have no distance: it is 1 there.
///
/// # Errors
/// If the machine has no such window.
fn window(
    kernel: [usize; 2],
    stride: [i64; 2],
    dilation: [i64; 2],
    pad: [i64; 4],
) -> Result<Window, Refusal> {
    let checked = |v: i64| {
        let fits = u32::try_from(v).ok().filter(|&v| v <= MAX_WINDOW);
        fits.ok_or_else(|| format!("{v} is beyond what a window of the machine can have, 2^20"))
    };
    let kernel = kernel.map(|extent| i64::try_from(extent).unwrap_or(-1));
    let dilation = [0, 1].map(|axis| if kernel[axis] == 1 { 1 } else { dilation[axis] });
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
