//! Emits TOSA ops into the function under construction, with their result types.
//!
//! One method an op. Lowerings guarantee by construction that ranks are equal and axes in range; whether TOSA
//! allows the op is asked of the IR's own inference, and [`Emitter::check`] says what it refused. Constants
//! are shared by content when they are scalars or shapes.

use std::collections::BTreeMap;

use strata_ir::attr::{NanMode, ResizeMode};
use strata_ir::diag::Diagnostic;
use strata_ir::dialect::{self, Op};
use strata_ir::infer::infer;
use strata_ir::{Attribute, BlockId, ElemType, Location, Module, Tensor, TensorData, Type, ValueId};

use super::error::{Lowered, unsupported};

/// Padding `[top, bottom, left, right]`.
pub(super) type Pads = [i64; 4];

/// Copies up to which a repetition is a concatenation, which the machine takes as views.
pub(super) const MAX_COPIES: usize = 16;

/// The module under construction and the place in it.
pub(super) struct Emitter {
    pub(super) module: Module,
    pub(super) block: BlockId,
    /// The location of the ONNX node that is being lowered.
    pub(super) loc: Location,
    /// What TOSA does not allow of the ops emitted since the last check.
    refused: Vec<Diagnostic>,
    /// Small constants by element type, shape and bytes.
    shared: BTreeMap<(ElemType, Vec<usize>, Vec<u8>), ValueId>,
}

/// How a window slides: kernel, stride, dilation (each `[y, x]`) and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) kernel: [i64; 2],
    pub(super) stride: [i64; 2],
    pub(super) dilation: [i64; 2],
    pub(super) pads: Pads,
}

impl Window {
    /// Output extent along `axis` (0 = y, 1 = x) of an input of `extent`, which TOSA wants to be exact.
    pub(super) fn output_extent(&self, axis: usize, extent: usize) -> usize {
        let reach = (self.kernel[axis] - 1) * self.dilation[axis];
        let span = extent as i64 - 1 + self.pads[2 * axis] + self.pads[2 * axis + 1] - reach;
        debug_assert!(span >= 0 && span % self.stride[axis] == 0, "{self:?} over {extent}");
        (span / self.stride[axis] + 1) as usize
    }
}

/// One axis of a RESIZE: see `tosa.resize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResizeAxis {
    pub(super) numerator: i64,
    pub(super) denominator: i64,
    pub(super) offset: i64,
    pub(super) border: i64,
    pub(super) n_out: usize,
}

impl ResizeAxis {
    /// An axis that keeps its `n` samples, or whose one sample is repeated `n_out` times.
    pub(super) fn spread(n_out: usize, n: usize) -> Self {
        if n == 1 {
            let n_out_signed = n_out as i64;
            return Self {
                numerator: n_out_signed,
                denominator: 1,
                offset: 0,
                border: n_out_signed - 1,
                n_out,
            };
        }
        Self { numerator: 1, denominator: 1, offset: 0, border: 0, n_out: n }
    }
}

impl Emitter {
    pub(super) fn new(module: Module, block: BlockId) -> Self {
        Self { module, block, loc: Location::unknown(), refused: Vec::new(), shared: BTreeMap::new() }
    }

    pub(super) fn shape(&self, value: ValueId) -> &[usize] {
        &self.module.tensor_ty(value).shape
    }

    pub(super) fn elem(&self, value: ValueId) -> ElemType {
        self.module.tensor_ty(value).elem
    }

    /// An op with one result of the given type, which inference has to confirm.
    pub(super) fn op(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        shape: Vec<usize>,
        elem: ElemType,
    ) -> ValueId {
        let op = op.into();
        let ty = Type::tensor(shape, elem);
        match infer(&self.module, &op, operands, Some(elem)) {
            Ok(types) => debug_assert_eq!(types.first(), Some(&ty), "{}", op.name()),
            Err(refusal) => self.refused.push(refusal),
        }
        let id = self.module.append(self.block, op, operands, &[ty], self.loc.clone());
        self.module.result(id)
    }

    /// Whether TOSA allows all that was emitted since the last check: a lowering may reach one of its bounds.
    pub(super) fn check(&mut self) -> Lowered<()> {
        let refused = std::mem::take(&mut self.refused);
        if refused.is_empty() {
            return Ok(());
        }
        let reasons: Vec<_> = refused.iter().map(|d| d.message.clone()).collect();
        unsupported!("{}", reasons.join("; "))
    }

    // ---- constants

    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        if tensor.n_elements() > 16 {
            return self.module.append_const(self.block, tensor, self.loc.clone());
        }
        let key = (tensor.elem(), tensor.shape().to_vec(), tensor.data().to_bytes());
        if let Some(&value) = self.shared.get(&key) {
            return value;
        }
        let value = self.module.append_const(self.block, tensor, Location::unknown());
        self.shared.insert(key, value);
        value
    }

    pub(super) fn floats(&mut self, shape: impl Into<Vec<usize>>, data: Vec<f32>) -> ValueId {
        self.constant(Tensor::f32(shape, data))
    }

    /// A float scalar as a tensor of `rank` unit extents.
    pub(super) fn scalar(&mut self, rank: usize, value: f32) -> ValueId {
        self.floats(vec![1; rank], vec![value])
    }

    /// A scalar of the element type of `like` (floats truncate to integers), of `like`'s rank.
    pub(super) fn scalar_like(&mut self, like: ValueId, value: f32) -> ValueId {
        let shape = vec![1; self.shape(like).len()];
        let data =
            TensorData::from_ints(self.elem(like), [value as i64]).unwrap_or(TensorData::F32(vec![value]));
        self.constant(Tensor::new(shape, data))
    }

    /// An integer scalar of the element type of `like`, of `like`'s rank.
    pub(super) fn int_like(&mut self, like: ValueId, value: i64) -> ValueId {
        let shape = vec![1; self.shape(like).len()];
        let data = TensorData::from_ints(self.elem(like), [value]);
        self.constant(Tensor::new(shape, data.unwrap_or(TensorData::F32(vec![value as f32]))))
    }

    fn extents(&mut self, extents: impl IntoIterator<Item = usize>) -> ValueId {
        let data: Vec<i64> = extents.into_iter().map(|e| e as i64).collect();
        self.constant(Tensor::new([data.len()], TensorData::Index(data)))
    }

    fn zero_point(&mut self, elem: ElemType) -> ValueId {
        let data = TensorData::from_ints(elem, [0]).unwrap_or(TensorData::F32(vec![0.0]));
        self.constant(Tensor::new([1], data))
    }

    // ---- elementwise

    /// An op that keeps shape and element type.
    pub(super) fn unary(&mut self, op: impl Into<Op>, x: ValueId) -> ValueId {
        let ty = self.module.tensor_ty(x).clone();
        self.op(op, &[x], ty.shape, ty.elem)
    }

    fn broadcast(&self, values: &[ValueId]) -> Vec<usize> {
        let mut shape = self.shape(values[0]).to_vec();
        for &value in &values[1..] {
            for (extent, &other) in shape.iter_mut().zip(self.shape(value)) {
                *extent = if *extent == 1 { other } else { *extent };
            }
        }
        shape
    }

    /// A broadcasting op whose result has the element type of its operands.
    pub(super) fn binary(&mut self, op: impl Into<Op>, a: ValueId, b: ValueId) -> ValueId {
        let shape = self.broadcast(&[a, b]);
        self.op(op, &[a, b], shape, self.elem(a))
    }

    /// A broadcasting comparison.
    pub(super) fn compare(&mut self, op: impl Into<Op>, a: ValueId, b: ValueId) -> ValueId {
        let shape = self.broadcast(&[a, b]);
        self.op(op, &[a, b], shape, ElemType::I1)
    }

    pub(super) fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(dialect::Add {}, a, b)
    }

    pub(super) fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(dialect::Sub {}, a, b)
    }

    pub(super) fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let shift = self.zero_point(ElemType::I8);
        let shape = self.broadcast(&[a, b]);
        self.op(dialect::Mul {}, &[a, b, shift], shape, self.elem(a))
    }

    pub(super) fn maximum(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(dialect::Maximum { nan_mode: NanMode::Propagate }, a, b)
    }

    pub(super) fn minimum(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(dialect::Minimum { nan_mode: NanMode::Propagate }, a, b)
    }

    /// `x * factor`.
    pub(super) fn scale(&mut self, x: ValueId, factor: f32) -> ValueId {
        let factor = self.scalar_like(x, factor);
        self.mul(x, factor)
    }

    /// `x + term`.
    pub(super) fn shift(&mut self, x: ValueId, term: f32) -> ValueId {
        let term = self.scalar_like(x, term);
        self.add(x, term)
    }

    pub(super) fn negate(&mut self, x: ValueId) -> ValueId {
        let ty = self.module.tensor_ty(x).clone();
        let zero = self.zero_point(ty.elem);
        self.op(dialect::Negate {}, &[x, zero, zero], ty.shape, ty.elem)
    }

    pub(super) fn clamp(&mut self, x: ValueId, min: f32, max: f32) -> ValueId {
        let bound = |v: f32, elem: ElemType| match elem.int_range() {
            Some((least, greatest)) => Attribute::Int((v as i64).clamp(least, greatest), elem),
            None => Attribute::Float(f64::from(v), Some(elem)),
        };
        let elem = self.elem(x);
        let (min_val, max_val) = (bound(min, elem), bound(max, elem));
        self.unary(dialect::Clamp { min_val, max_val, nan_mode: NanMode::Propagate }, x)
    }

    pub(super) fn select(&mut self, cond: ValueId, yes: ValueId, no: ValueId) -> ValueId {
        let shape = self.broadcast(&[cond, yes, no]);
        self.op(dialect::Select {}, &[cond, yes, no], shape, self.elem(yes))
    }

    pub(super) fn cast(&mut self, x: ValueId, elem: ElemType) -> ValueId {
        if self.elem(x) == elem {
            return x;
        }
        let shape = self.shape(x).to_vec();
        self.op(dialect::Cast {}, &[x], shape, elem)
    }

    // ---- data movement

    pub(super) fn reshape(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        if self.shape(x) == shape {
            return x;
        }
        let extents = self.extents(shape.iter().copied());
        self.op(dialect::Reshape {}, &[x, extents], shape.to_vec(), self.elem(x))
    }

    pub(super) fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        let shape = perm.iter().map(|&axis| self.shape(x)[axis]).collect();
        let perms = perm.iter().map(|&axis| axis as i32).collect();
        self.op(dialect::Transpose { perms }, &[x], shape, self.elem(x))
    }

    pub(super) fn slice(&mut self, x: ValueId, start: &[usize], size: &[usize]) -> ValueId {
        if self.shape(x) == size {
            return x;
        }
        let (begin, extents) = (self.extents(start.iter().copied()), self.extents(size.iter().copied()));
        self.op(dialect::Slice {}, &[x, begin, extents], size.to_vec(), self.elem(x))
    }

    /// The part `start..start + size` of one axis.
    pub(super) fn slice_axis(&mut self, x: ValueId, axis: usize, start: usize, size: usize) -> ValueId {
        let mut extents = self.shape(x).to_vec();
        let mut begin = vec![0; extents.len()];
        (begin[axis], extents[axis]) = (start, size);
        self.slice(x, &begin, &extents)
    }

    /// Every `step`th index of one axis from the first on.
    pub(super) fn every(&mut self, x: ValueId, axis: usize, step: usize) -> ValueId {
        let shape = self.shape(x).to_vec();
        if step == 1 || shape[axis] == 1 {
            return x;
        }
        let n_out = shape[axis].div_ceil(step);
        if shape.len() == 4 && (axis == 1 || axis == 2) && self.elem(x) == ElemType::F32 {
            // A stride belongs to the machine's windows: a window of one element takes it there.
            let exact = self.slice_axis(x, axis, 0, (n_out - 1) * step + 1);
            let mut stride = [1, 1];
            stride[axis - 1] = step as i64;
            return self.max_pool(exact, Window { kernel: [1, 1], stride, dilation: [1, 1], pads: [0; 4] });
        }
        let mut padding = vec![(0, 0); shape.len()];
        padding[axis].1 = n_out * step - shape[axis];
        let whole = self.pad(x, &padding, 0.0);
        let mut split = shape.clone();
        split.splice(axis..=axis, [n_out, step]);
        let split = self.reshape(whole, &split);
        let first = self.slice_axis(split, axis + 1, 0, 1);
        let mut out = shape;
        out[axis] = n_out;
        self.reshape(first, &out)
    }

    pub(super) fn concat(&mut self, values: &[ValueId], axis: usize) -> ValueId {
        if let [only] = values {
            return *only;
        }
        let mut shape = self.shape(values[0]).to_vec();
        shape[axis] = values.iter().map(|&v| self.shape(v)[axis]).sum();
        self.op(dialect::Concat { axis: axis as i32 }, values, shape, self.elem(values[0]))
    }

    /// Adds `(before, after)` elements of `value` along each axis.
    pub(super) fn pad(&mut self, x: ValueId, padding: &[(usize, usize)], value: f32) -> ValueId {
        if padding.iter().all(|&p| p == (0, 0)) {
            return x;
        }
        let elem = self.elem(x);
        let shape = self.shape(x).iter().zip(padding).map(|(e, (a, b))| e + a + b).collect();
        let amounts = self.extents(padding.iter().flat_map(|&(a, b)| [a, b]));
        let data = TensorData::from_ints(elem, [value as i64]).unwrap_or(TensorData::F32(vec![value]));
        let value = self.constant(Tensor::new([1], data));
        self.op(dialect::Pad {}, &[x, amounts, value], shape, elem)
    }

    /// Adds `(before, after)` elements of `value` along one axis.
    pub(super) fn pad_axis(
        &mut self,
        x: ValueId,
        axis: usize,
        amount: (usize, usize),
        value: f32,
    ) -> ValueId {
        let mut padding = vec![(0, 0); self.shape(x).len()];
        padding[axis] = amount;
        self.pad(x, &padding, value)
    }

    /// Adds spatial padding `[top, bottom, left, right]` to an NHWC value.
    pub(super) fn pad_spatial(&mut self, x: ValueId, pads: Pads, value: f32) -> ValueId {
        let [top, bottom, left, right] = pads.map(|p| p as usize);
        self.pad(x, &[(0, 0), (top, bottom), (left, right), (0, 0)], value)
    }

    pub(super) fn reverse(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.unary(dialect::Reverse { axis: axis as i32 }, x)
    }

    pub(super) fn tile(&mut self, x: ValueId, multiples: &[usize]) -> ValueId {
        if multiples.iter().all(|&m| m == 1) {
            return x;
        }
        let shape = self.shape(x).iter().zip(multiples).map(|(e, m)| e * m).collect();
        let extents = self.extents(multiples.iter().copied());
        self.op(dialect::Tile {}, &[x, extents], shape, self.elem(x))
    }

    /// The value `n` times along one axis.
    pub(super) fn copies(&mut self, x: ValueId, axis: usize, n: usize) -> ValueId {
        if n <= MAX_COPIES {
            return self.concat(&vec![x; n], axis);
        }
        let mut multiples = vec![1; self.shape(x).len()];
        multiples[axis] = n;
        self.tile(x, &multiples)
    }

    /// `out[n,w,c] = values[n, indices[n,w], c]`.
    pub(super) fn gather(&mut self, values: ValueId, indices: ValueId) -> ValueId {
        let (v, i) = (self.shape(values), self.shape(indices));
        let shape = vec![v[0], i[1], v[2]];
        self.op(dialect::Gather {}, &[values, indices], shape, self.elem(values))
    }

    // ---- reductions

    fn reduce(&mut self, op: impl Into<Op>, x: ValueId, axis: usize) -> ValueId {
        let mut shape = self.shape(x).to_vec();
        shape[axis] = 1;
        self.op(op, &[x], shape, self.elem(x))
    }

    pub(super) fn reduce_sum(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.reduce(dialect::ReduceSum { axis: axis as i32 }, x, axis)
    }

    pub(super) fn reduce_product(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.reduce(dialect::ReduceProduct { axis: axis as i32 }, x, axis)
    }

    pub(super) fn reduce_max(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.reduce(dialect::ReduceMax { axis: axis as i32, nan_mode: NanMode::Propagate }, x, axis)
    }

    pub(super) fn reduce_min(&mut self, x: ValueId, axis: usize) -> ValueId {
        self.reduce(dialect::ReduceMin { axis: axis as i32, nan_mode: NanMode::Propagate }, x, axis)
    }

    /// Elementwise square root.
    pub(super) fn sqrt(&mut self, x: ValueId) -> ValueId {
        let half = self.scalar_like(x, 0.5);
        self.binary(dialect::Pow {}, x, half)
    }

    /// The mean along several axes, whose extents become 1.
    pub(super) fn mean(&mut self, x: ValueId, axes: &[usize]) -> ValueId {
        let n: usize = axes.iter().map(|&axis| self.shape(x)[axis]).product();
        let sum = axes.iter().fold(x, |sum, &axis| self.reduce_sum(sum, axis));
        if n == 1 { sum } else { self.scale(sum, 1.0 / n as f32) }
    }

    pub(super) fn argmax(&mut self, x: ValueId, axis: usize) -> ValueId {
        let mut shape = self.shape(x).to_vec();
        shape.remove(axis);
        self.op(
            dialect::Argmax { axis: axis as i32, nan_mode: NanMode::Propagate },
            &[x],
            shape,
            ElemType::I32,
        )
    }

    // ---- windows and products

    /// The extents that a window makes of an NHWC value, with `n_channels` of them.
    pub(super) fn windowed(&self, x: ValueId, window: &Window, n_channels: usize) -> Vec<usize> {
        let shape = self.shape(x);
        vec![shape[0], window.output_extent(0, shape[1]), window.output_extent(1, shape[2]), n_channels]
    }

    /// Convolves NHWC `x` with a weight `[OC,KH,KW,IC]`.
    pub(super) fn conv2d(&mut self, x: ValueId, weight: ValueId, bias: ValueId, window: &Window) -> ValueId {
        let shape = self.windowed(x, window, self.shape(weight)[0]);
        let zero = self.zero_point(ElemType::F32);
        let op = dialect::Conv2d {
            pad: window.pads,
            stride: window.stride,
            dilation: window.dilation,
            acc_type: ElemType::F32,
            local_bound: false,
        };
        self.op(op, &[x, weight, bias, zero, zero], shape, ElemType::F32)
    }

    /// Convolves each channel of NHWC `x` with a weight `[KH,KW,C,M]`.
    pub(super) fn depthwise(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: ValueId,
        window: &Window,
    ) -> ValueId {
        let n_channels = self.shape(weight)[2] * self.shape(weight)[3];
        let shape = self.windowed(x, window, n_channels);
        let zero = self.zero_point(ElemType::F32);
        let op = dialect::DepthwiseConv2d {
            pad: window.pads,
            stride: window.stride,
            dilation: window.dilation,
            acc_type: ElemType::F32,
            local_bound: false,
        };
        self.op(op, &[x, weight, bias, zero, zero], shape, ElemType::F32)
    }

    /// Transposed convolution of NHWC `x` with a weight `[OC,KH,KW,IC]`.
    pub(super) fn transpose_conv2d(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: ValueId,
        stride: [i64; 2],
        out_pad: Pads,
    ) -> ValueId {
        let (input, kernel) = (self.shape(x), self.shape(weight));
        let extent = |axis: usize| {
            (input[axis + 1] as i64 - 1) * stride[axis]
                + out_pad[2 * axis]
                + out_pad[2 * axis + 1]
                + kernel[axis + 1] as i64
        };
        let shape = vec![input[0], extent(0) as usize, extent(1) as usize, kernel[0]];
        let zero = self.zero_point(ElemType::F32);
        let op = dialect::TransposeConv2d { out_pad, stride, acc_type: ElemType::F32, local_bound: false };
        self.op(op, &[x, weight, bias, zero, zero], shape, ElemType::F32)
    }

    /// `[B,M,K] x [B,K,N]`.
    pub(super) fn matmul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let shape = vec![self.shape(a)[0], self.shape(a)[1], self.shape(b)[2]];
        let zero = self.zero_point(ElemType::F32);
        self.op(dialect::MatMul {}, &[a, b, zero, zero], shape, ElemType::F32)
    }

    pub(super) fn max_pool(&mut self, x: ValueId, window: Window) -> ValueId {
        let shape = self.windowed(x, &window, self.shape(x)[3]);
        let Window { kernel, stride, pads, .. } = window;
        let op = dialect::MaxPool2d { kernel, stride, pad: pads, nan_mode: NanMode::Propagate };
        self.op(op, &[x], shape, self.elem(x))
    }

    pub(super) fn avg_pool(&mut self, x: ValueId, window: Window) -> ValueId {
        let shape = self.windowed(x, &window, self.shape(x)[3]);
        let Window { kernel, stride, pads, .. } = window;
        let zero = self.zero_point(ElemType::F32);
        let op = dialect::AvgPool2d { kernel, stride, pad: pads, acc_type: ElemType::F32 };
        self.op(op, &[x, zero, zero], shape, ElemType::F32)
    }

    pub(super) fn resize(&mut self, x: ValueId, [y, x_axis]: [ResizeAxis; 2], mode: ResizeMode) -> ValueId {
        let shape = vec![self.shape(x)[0], y.n_out, x_axis.n_out, self.shape(x)[3]];
        let signed = |values: Vec<i64>| Tensor::new([values.len()], TensorData::Index(values));
        let scale =
            self.constant(signed(vec![y.numerator, y.denominator, x_axis.numerator, x_axis.denominator]));
        let offset = self.constant(signed(vec![y.offset, x_axis.offset]));
        let border = self.constant(signed(vec![y.border, x_axis.border]));
        self.op(dialect::Resize { mode }, &[x, scale, offset, border], shape, self.elem(x))
    }
}
