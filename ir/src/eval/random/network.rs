//! Random quantised convolutional networks, as the quantiser would leave them: every activation is `i8` NHWC
//! of batch 1 with some zero point, or `i16` with none, and `i32` or `i48` stands only between an
//! accumulation and its rescale.
//!
//! Every module verifies: windows fit exactly, as TOSA demands, and scales keep values within TOSA's bounds.

use std::collections::BTreeMap;

use super::Rng;
use crate::attr::{Attribute, FunctionType, NanMode, ResizeMode, RoundingMode};
use crate::dialect::*;
use crate::module::{BlockId, Location, Module, ValueId};
use crate::tensor::{Tensor, TensorData};
use crate::types::{ElemType, TensorType};

/// How large a random network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomOptions {
    /// Layers, each of one to about five ops.
    pub n_layers: usize,
    /// Greatest height and width of the input; upsampling may double them.
    pub max_extent: usize,
    /// Greatest number of channels that a layer makes; concatenation may double it.
    pub max_channels: usize,
    /// How often an activation is `i16` rather than `i8`, in per cent.
    pub i16_percent: u8,
    /// Whether rows and columns are cropped, joined, skipped by strides, shuffled and turned too, so that
    /// much of what a layer makes has no reader, or one that comes late.
    pub reshapes: bool,
}

impl Default for RandomOptions {
    fn default() -> Self {
        Self { n_layers: 8, max_extent: 12, max_channels: 16, i16_percent: 0, reshapes: false }
    }
}

/// A module with a function `main` of one or two inputs, made of convolutions of every kind, rescales,
/// clamps, tables, residual additions, concatenations, slices, pools, resizes, squeeze-and-excitation, pads
/// and fully connected layers; with [`RandomOptions::reshapes`] of joins and crops along every axis, strides
/// past the kernel, channel shuffles, depth to space and back, transpositions and reductions too. Values that
/// no layer uses are results, so nothing is dead.
///
/// # Panics
/// If an option is zero.
pub fn random_network(seed: u64, options: &RandomOptions) -> Module {
    assert!(
        options.n_layers > 0 && options.max_extent > 0 && options.max_channels > 0,
        "a network needs extents"
    );
    let mut net = Network::new(seed, options);
    let mut n_layers = 0;
    while n_layers < options.n_layers {
        let layers = if options.reshapes && net.rng.one_in(2) { RESHAPES } else { LAYERS };
        let layer = net.rng.pick(layers);
        n_layers += usize::from(layer(&mut net));
    }
    net.finish()
}

/// An activation: its value, extents, element type and zero point.
#[derive(Clone, Copy)]
struct Act {
    value: ValueId,
    h: usize,
    w: usize,
    c: usize,
    elem: ElemType,
    zp: i64,
}

impl Act {
    /// The type of accumulators of products of it.
    fn accumulator(self) -> ElemType {
        if self.elem == ElemType::I16 { ElemType::I48 } else { ElemType::I32 }
    }

    /// Bits that its values have beyond 8.
    fn extra_bits(self) -> i64 {
        if self.elem == ElemType::I16 { 8 } else { 0 }
    }
}

/// Adds a layer, or nothing if none of its kind fits; says which.
type Layer = fn(&mut Network) -> bool;

/// Convolutions stand several times because networks consist of them.
const LAYERS: &[Layer] = &[
    Network::conv,
    Network::conv,
    Network::conv,
    Network::conv,
    Network::depthwise,
    Network::depthwise,
    Network::transpose_conv,
    Network::clamp,
    Network::table,
    Network::requantise,
    Network::residual,
    Network::residual,
    Network::concat,
    Network::slice,
    Network::max_pool,
    Network::avg_pool,
    Network::resize_nearest,
    Network::resize_bilinear,
    Network::squeeze_excite,
    Network::pad,
    Network::fully_connected,
];

/// Layers that move, join and leave out rows, columns and channels.
const RESHAPES: &[Layer] = &[
    Network::join,
    Network::join,
    Network::join,
    Network::join_of_pieces,
    Network::join_of_pieces,
    Network::crop,
    Network::crop,
    Network::skip_by_stride,
    Network::skip_by_stride,
    Network::shuffle_channels,
    Network::depth_to_space,
    Network::turn,
    Network::reduce,
    Network::fork,
];

struct Network {
    module: Module,
    block: BlockId,
    rng: Rng,
    acts: Vec<Act>,
    args: Vec<Act>,
    limits: RandomOptions,
}

/// Kernel, stride, dilation and padding of one axis, and the extent they give.
struct WindowAxis {
    kernel: usize,
    stride: i64,
    dilation: i64,
    pad: [i64; 2],
    out: usize,
}

impl Network {
    fn new(seed: u64, options: &RandomOptions) -> Self {
        let mut rng = Rng::new(seed);
        let n_inputs = if rng.one_in(4) { 2 } else { 1 };
        let extents: Vec<[usize; 3]> = (0..n_inputs)
            .map(|_| {
                let least = options.max_extent.div_ceil(2);
                let (h, w) = (rng.count(least, options.max_extent), rng.count(least, options.max_extent));
                [h, w, rng.count(1, options.max_channels.min(4))]
            })
            .collect();
        let elems: Vec<ElemType> = extents.iter().map(|_| any_elem(&mut rng, options)).collect();
        let inputs = extents
            .iter()
            .zip(&elems)
            .map(|(&[h, w, c], &elem)| TensorType::new([1, h, w, c], elem).into())
            .collect();
        let mut module = Module::new();
        let (_, block) = module.add_function("main", FunctionType { inputs, results: Vec::new() });
        let values = module.args(block).to_vec();
        let args: Vec<Act> = values
            .into_iter()
            .zip(extents)
            .zip(elems)
            .map(|((value, [h, w, c]), elem)| {
                let zp = any_zero_point(&mut rng, elem);
                Act { value, h, w, c, elem, zp }
            })
            .collect();
        Self { module, block, rng, acts: args.clone(), args, limits: options.clone() }
    }

    /// Ends the function with every value that has no use.
    fn finish(mut self) -> Module {
        // An input is no result: those that no layer has used get one.
        let users = self.module.users(self.block);
        for arg in self.args.clone() {
            if users[arg.value].is_empty() {
                self.clamp_of(arg);
            }
        }
        let users = self.module.users(self.block);
        let results: Vec<Act> = self.acts.iter().copied().filter(|act| users[act.value].is_empty()).collect();
        let values: Vec<ValueId> = results.iter().map(|act| act.value).collect();
        self.module.append(self.block, FuncReturn {}, &values, &[], Location::unknown());
        let function_type = FunctionType {
            inputs: self.args.iter().map(|act| self.module.ty(act.value).clone()).collect(),
            results: values.iter().map(|&value| self.module.ty(value).clone()).collect(),
        };
        let dicts = |stem: &str, acts: &[Act]| {
            Some(Attribute::Array(
                acts.iter().enumerate().map(|(i, act)| describe(stem, i, act.zp)).collect(),
            ))
        };
        let func = Func {
            sym_name: "main".to_owned(),
            function_type,
            arg_attrs: dicts("input", &self.args),
            res_attrs: dicts("output", &results),
        };
        let op = self.module.block_op(self.block);
        self.module.op_mut(op).op = func.into();
        self.module
    }

    /// An activation, rather a late one.
    fn any(&mut self) -> Act {
        let n = self.acts.len();
        let least = if self.rng.one_in(3) { 0 } else { n.saturating_sub(2) };
        self.acts[self.rng.count(least, n - 1)]
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.module.append_const(self.block, tensor, Location::unknown())
    }

    fn shape(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::new([values.len()], TensorData::Index(values.to_vec())))
    }

    fn random_const(&mut self, shape: &[usize], elem: ElemType, least: i64, greatest: i64) -> ValueId {
        let tensor = self.rng.ints(shape, elem, least, greatest);
        self.constant(tensor)
    }

    fn zero_point(&mut self, elem: ElemType, value: i64) -> ValueId {
        self.random_const(&[1], elem, value, value)
    }

    fn op(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        [h, w, c]: [usize; 3],
        elem: ElemType,
    ) -> ValueId {
        let ty = TensorType::new([1, h, w, c], elem).into();
        let op = self.module.append(self.block, op, operands, &[ty], Location::unknown());
        self.module.result(op)
    }

    /// An activation that is of the element type of its value.
    fn push(&mut self, value: ValueId, [h, w, c]: [usize; 3], zp: i64) -> Act {
        let elem = self.module.tensor_ty(value).elem;
        let act = Act { value, h, w, c, elem, zp };
        self.acts.push(act);
        act
    }

    /// `value * m / 2^shift` with `m` of 31 bits, from and to the given element types; of `i48`, and at times
    /// of `i16`, with `m` of 15 bits and a shift as much less.
    fn rescale(
        &mut self,
        value: ValueId,
        extents: [usize; 3],
        (from, input_zp): (ElemType, i64),
        (to, output_zp): (ElemType, i64),
        shift: i64,
    ) -> ValueId {
        let per_channel = self.rng.one_in(2);
        let n_scales = if per_channel { extents[2] } else { 1 };
        let scale32 = from != ElemType::I48 && (from != ElemType::I16 || self.rng.one_in(2));
        let (multiplier, shift) = if scale32 {
            (self.random_const(&[n_scales], ElemType::I32, 1 << 30, (1 << 31) - 1), shift)
        } else {
            (self.random_const(&[n_scales], ElemType::I16, 1 << 14, (1 << 15) - 1), shift - 16)
        };
        let shift = self.random_const(&[n_scales], ElemType::I8, shift, shift + i64::from(per_channel));
        let (input_zp, output_zp) = (self.zero_point(from, input_zp), self.zero_point(to, output_zp));
        let op = Rescale {
            scale32,
            rounding_mode: RoundingMode::SingleRound,
            per_channel,
            input_unsigned: false,
            output_unsigned: false,
        };
        self.op(op, &[value, multiplier, shift, input_zp, output_zp], extents, to)
    }

    /// Brings an accumulator of about `magnitude` to an activation.
    fn narrow(&mut self, acc: ValueId, extents: [usize; 3], magnitude: f64) -> Act {
        let elem = any_elem(&mut self.rng, &self.limits);
        let zp = any_zero_point(&mut self.rng, elem);
        let from = self.module.tensor_ty(acc).elem;
        let shift = if elem == ElemType::I16 {
            31 + (magnitude / 16384.0).log2().round() as i64
        } else {
            31 + (magnitude / 64.0).log2().round().max(0.0) as i64
        };
        let value = self.rescale(acc, extents, (from, 0), (elem, zp), shift);
        self.push(value, extents, zp)
    }

    /// A window over an axis, padded behind until it fits exactly.
    fn window(&mut self, extent: usize, kernel: usize, dilation: i64, max_pad: i64) -> Option<WindowAxis> {
        let stride = if self.rng.one_in(3) { 2 } else { 1 };
        let reach = (kernel as i64 - 1) * dilation;
        let before = self.rng.int(0, max_pad);
        let span = |after: i64| extent as i64 - 1 + before + after - reach;
        let fits: Vec<i64> =
            (0..=max_pad).filter(|&after| span(after) >= 0 && span(after) % stride == 0).collect();
        if fits.is_empty() {
            return None;
        }
        let after = self.rng.pick(&fits);
        let out = (span(after) / stride + 1) as usize;
        Some(WindowAxis { kernel, stride, dilation, pad: [before, after], out })
    }

    /// A convolution's windows over an activation.
    fn windows(&mut self, x: Act) -> Option<(WindowAxis, WindowAxis)> {
        let [kh, kw] = self.rng.pick(&[[1, 1], [3, 3], [3, 3], [5, 5], [1, 3], [3, 2]]);
        let dilation = if self.rng.one_in(5) { 2 } else { 1 };
        let y_axis = self.window(x.h, kh, dilation, (kh as i64 - 1) * dilation)?;
        let x_axis = self.window(x.w, kw, dilation, (kw as i64 - 1) * dilation)?;
        Some((y_axis, x_axis))
    }

    /// Weight, bias and zero points of a convolution of `x`.
    fn parameters(&mut self, x: Act, weight: [usize; 4], oc: usize) -> [ValueId; 5] {
        let weight = self.random_const(&weight, ElemType::I8, -127, 127);
        let most = 4096 << x.extra_bits();
        let bias = self.random_const(&[oc], x.accumulator(), -most, most);
        let (input_zp, weight_zp) = (self.zero_point(x.elem, x.zp), self.zero_point(ElemType::I8, 0));
        [x.value, weight, bias, input_zp, weight_zp]
    }

    fn channels(&mut self) -> usize {
        self.rng.count(1, self.limits.max_channels)
    }

    fn conv(&mut self) -> bool {
        let x = self.any();
        let Some((y_axis, x_axis)) = self.windows(x) else { return false };
        let oc = self.channels();
        self.conv_of(x, &y_axis, &x_axis, oc);
        true
    }

    fn conv_of(&mut self, x: Act, y_axis: &WindowAxis, x_axis: &WindowAxis, oc: usize) -> Act {
        let weight = [oc, y_axis.kernel, x_axis.kernel, x.c];
        let operands = self.parameters(x, weight, oc);
        let op = Conv2d {
            pad: [y_axis.pad[0], y_axis.pad[1], x_axis.pad[0], x_axis.pad[1]],
            stride: [y_axis.stride, x_axis.stride],
            dilation: [y_axis.dilation, x_axis.dilation],
            acc_type: x.accumulator(),
            local_bound: false,
        };
        let extents = [y_axis.out, x_axis.out, oc];
        let acc = self.op(op, &operands, extents, x.accumulator());
        self.narrow(acc, extents, magnitude(x, y_axis.kernel * x_axis.kernel * x.c))
    }

    /// A convolution with a kernel of one pixel.
    fn pointwise(&mut self, x: Act, oc: usize) -> Act {
        let axis = |out| WindowAxis { kernel: 1, stride: 1, dilation: 1, pad: [0, 0], out };
        self.conv_of(x, &axis(x.h), &axis(x.w), oc)
    }

    fn depthwise(&mut self) -> bool {
        let x = self.any();
        let Some((y_axis, x_axis)) = self.windows(x) else { return false };
        let m = if self.rng.one_in(4) && x.c * 2 <= self.limits.max_channels { 2 } else { 1 };
        let operands = self.parameters(x, [y_axis.kernel, x_axis.kernel, x.c, m], x.c * m);
        let op = DepthwiseConv2d {
            pad: [y_axis.pad[0], y_axis.pad[1], x_axis.pad[0], x_axis.pad[1]],
            stride: [y_axis.stride, x_axis.stride],
            dilation: [y_axis.dilation, x_axis.dilation],
            acc_type: x.accumulator(),
            local_bound: false,
        };
        let extents = [y_axis.out, x_axis.out, x.c * m];
        let acc = self.op(op, &operands, extents, x.accumulator());
        self.narrow(acc, extents, magnitude(x, y_axis.kernel * x_axis.kernel));
        true
    }

    fn transpose_conv(&mut self) -> bool {
        let x = self.any();
        let oc = self.channels();
        let [mut out_pad, mut stride] = [[0; 4], [0; 4]];
        let mut extents = [0, 0, oc];
        let mut kernel = [0; 2];
        for (axis, extent) in [x.h, x.w].into_iter().enumerate() {
            kernel[axis] = self.rng.count(1, 4);
            stride[axis] = self.rng.int(1, 2);
            let least = 1 - kernel[axis] as i64;
            out_pad[2 * axis] = self.rng.int(least, 0);
            out_pad[2 * axis + 1] = self.rng.int(least, 1);
            let out = (extent as i64 - 1) * stride[axis]
                + out_pad[2 * axis]
                + out_pad[2 * axis + 1]
                + kernel[axis] as i64;
            if out < 1 || out > 2 * self.limits.max_extent as i64 {
                return false;
            }
            extents[axis] = out as usize;
        }
        let operands = self.parameters(x, [oc, kernel[0], kernel[1], x.c], oc);
        let op = TransposeConv2d {
            out_pad,
            stride: [stride[0], stride[1]],
            acc_type: x.accumulator(),
            local_bound: false,
        };
        let acc = self.op(op, &operands, extents, x.accumulator());
        self.narrow(acc, extents, magnitude(x, kernel[0] * kernel[1] * x.c));
        true
    }

    fn clamp(&mut self) -> bool {
        let x = self.any();
        self.clamp_of(x);
        true
    }

    fn clamp_of(&mut self, x: Act) -> Act {
        let (least, greatest) = (self.rng.int(-128, -1), self.rng.int(0, 127));
        let (least, greatest) = (least << x.extra_bits(), greatest << x.extra_bits());
        let bound = |value| Attribute::Int(value, x.elem);
        let op = Clamp { min_val: bound(least), max_val: bound(greatest), nan_mode: NanMode::Propagate };
        let value = self.op(op, &[x.value], [x.h, x.w, x.c], x.elem);
        self.push(value, [x.h, x.w, x.c], x.zp)
    }

    fn table(&mut self) -> bool {
        let x = self.any();
        self.table_of(x);
        true
    }

    fn table_of(&mut self, x: Act) -> Act {
        let extents = [x.h, x.w, x.c];
        if x.elem == ElemType::I16 {
            // Neighbours may not be farther apart than 16 bits.
            let table = self.random_const(&[513], ElemType::I16, -16383, 16383);
            let value = self.op(Table {}, &[x.value, table], extents, ElemType::I32);
            return self.narrow(value, extents, 64.0 * 16384.0);
        }
        let table = self.random_const(&[256], ElemType::I8, -128, 127);
        let value = self.op(Table {}, &[x.value, table], extents, ElemType::I8);
        let zp = self.rng.int(-128, 127);
        self.push(value, extents, zp)
    }

    fn requantise(&mut self) -> bool {
        let x = self.any();
        let extents = [x.h, x.w, x.c];
        let elem = any_elem(&mut self.rng, &self.limits);
        let zp = any_zero_point(&mut self.rng, elem);
        let narrower = if elem == ElemType::I16 { x.extra_bits() - 8 } else { x.extra_bits() };
        let shift = self.rng.int(29, 32) + narrower;
        let value = self.rescale(x.value, extents, (x.elem, x.zp), (elem, zp), shift);
        self.push(value, extents, zp);
        true
    }

    /// `x - zp` in `i32`, times about `2^20 .. 2^22` (less for `i16`): the common scale of an addition.
    fn widen(&mut self, x: Act) -> ValueId {
        let shift = self.rng.int(10, 11) + x.extra_bits();
        self.rescale(x.value, [x.h, x.w, x.c], (x.elem, x.zp), (ElemType::I32, 0), shift)
    }

    /// `x + f(x)` with `f` a pointwise convolution, or `x + y` of another activation that has its extents.
    fn residual(&mut self) -> bool {
        let x = self.any();
        let same = |y: &Act| (y.h, y.w, y.c) == (x.h, x.w, x.c) && y.value != x.value;
        let partners: Vec<Act> = self.acts.iter().copied().filter(same).collect();
        let y = if partners.is_empty() { self.pointwise(x, x.c) } else { self.rng.pick(&partners) };
        let extents = [x.h, x.w, x.c];
        let operands = [self.widen(x), self.widen(y)];
        let sum = self.op(Add {}, &operands, extents, ElemType::I32);
        self.narrow(sum, extents, 128.0 * f64::from(1 << 20));
        true
    }

    fn concat(&mut self) -> bool {
        let x = self.any();
        let n_most = 2 * self.limits.max_channels;
        let mut parts = vec![x];
        let mut c = x.c;
        for y in self.acts.clone() {
            if (y.h, y.w, y.elem) == (x.h, x.w, x.elem)
                && y.value != x.value
                && c + y.c <= n_most
                && self.rng.one_in(2)
            {
                c += y.c;
                parts.push(y);
            }
        }
        if parts.len() == 1 {
            return false;
        }
        self.join_of(&parts, 2);
        true
    }

    fn slice(&mut self) -> bool {
        let x = self.any();
        let (mut start, mut size) = ([0; 3], [x.h, x.w, x.c]);
        let axis = self.rng.pick(&[0, 1, 2, 2, 2]);
        if size[axis] < 2 {
            return false;
        }
        start[axis] = self.rng.count(0, size[axis] - 1);
        size[axis] = self.rng.count(1, size[axis] - start[axis]);
        self.slice_of(x, start, size);
        true
    }

    /// A part of an activation: `size` elements from `start` on, each `[h, w, c]`.
    fn slice_of(&mut self, x: Act, start: [usize; 3], size: [usize; 3]) -> Act {
        let start = start.map(|at| at as i64);
        let start = self.shape(&[0, start[0], start[1], start[2]]);
        let extents = size.map(|extent| extent as i64);
        let extents = self.shape(&[1, extents[0], extents[1], extents[2]]);
        let value = self.op(Slice {}, &[x.value, start, extents], size, x.elem);
        self.push(value, size, x.zp)
    }

    /// Activations end to end along an axis of `[h, w, c]`.
    fn join_of(&mut self, parts: &[Act], axis: usize) -> Act {
        let values: Vec<ValueId> = parts.iter().map(|part| part.value).collect();
        let mut extents = [parts[0].h, parts[0].w, parts[0].c];
        extents[axis] = parts.iter().map(|part| [part.h, part.w, part.c][axis]).sum();
        let value = self.op(Concat { axis: axis as i32 + 1 }, &values, extents, parts[0].elem);
        self.push(value, extents, parts[0].zp)
    }

    /// Activations that fit end to end along rows, columns or channels.
    fn join(&mut self) -> bool {
        let x = self.any();
        let axis = self.rng.pick(&[0, 0, 0, 1, 2]);
        let others = |act: &Act| {
            let mut extents = [act.h, act.w, act.c];
            extents[axis] = 0;
            (extents, act.elem)
        };
        let most = if axis == 2 { 2 * self.limits.max_channels } else { 2 * self.limits.max_extent };
        let mut parts = vec![x];
        let mut extent = [x.h, x.w, x.c][axis];
        for y in self.acts.clone() {
            let own = [y.h, y.w, y.c][axis];
            let fits = others(&y) == others(&x) && y.value != x.value && extent + own <= most;
            if fits && self.rng.one_in(2) {
                extent += own;
                parts.push(y);
            }
        }
        if parts.len() == 1 {
            return false;
        }
        if self.rng.one_in(2) {
            parts.reverse();
        }
        self.join_of(&parts, axis);
        true
    }

    /// Pieces of one activation, each through a layer of its own or none, end to end in another order: rows
    /// that were made last may be wanted first.
    fn join_of_pieces(&mut self) -> bool {
        let x = self.any();
        let axis = self.rng.pick(&[0, 0, 0, 1]);
        let all = [x.h, x.w, x.c];
        if all[axis] < 3 {
            return false;
        }
        let mut parts = Vec::new();
        for _ in 0..self.rng.count(2, 3) {
            let (mut start, mut size) = ([0; 3], all);
            size[axis] = self.rng.count(1, all[axis] - 1);
            start[axis] = self.rng.count(0, all[axis] - size[axis]);
            let piece = self.slice_of(x, start, size);
            let piece = match self.rng.int(0, 2) {
                0 if x.elem == ElemType::I8 => self.table_of(piece),
                1 => self.clamp_of(piece),
                _ => piece,
            };
            parts.push(piece);
        }
        self.join_of(&parts, axis);
        true
    }

    /// Fewer rows, columns and channels at every side.
    fn crop(&mut self) -> bool {
        let x = self.any();
        let all = [x.h, x.w, x.c];
        let size: [usize; 3] =
            std::array::from_fn(
                |axis| {
                    if self.rng.one_in(2) { self.rng.count(1, all[axis]) } else { all[axis] }
                },
            );
        if size == all {
            return false;
        }
        let start = std::array::from_fn(|axis| self.rng.count(0, all[axis] - size[axis]));
        self.slice_of(x, start, size);
        true
    }

    /// A pool or a convolution whose stride is past its kernel.
    fn skip_by_stride(&mut self) -> bool {
        let x = self.any();
        let kernel = self.rng.count(1, 2);
        let stride = self.rng.count(kernel + 1, kernel + 2) as i64;
        // TOSA's windows fit exactly: what does not is cropped first.
        let fit = |extent: usize| {
            extent.checked_sub(kernel).map(|room| (kernel + room / stride as usize * stride as usize, room))
        };
        let (Some((h, room_h)), Some((w, room_w))) = (fit(x.h), fit(x.w)) else { return false };
        let x = if (h, w) == (x.h, x.w) { x } else { self.slice_of(x, [0; 3], [h, w, x.c]) };
        let axis = |room: usize| WindowAxis {
            kernel,
            stride,
            dilation: 1,
            pad: [0; 2],
            out: room / stride as usize + 1,
        };
        let (y_axis, x_axis) = (axis(room_h), axis(room_w));
        if self.rng.one_in(2) {
            let oc = self.channels();
            self.conv_of(x, &y_axis, &x_axis, oc);
            return true;
        }
        let op = MaxPool2d {
            kernel: [kernel as i64; 2],
            stride: [stride; 2],
            pad: [0; 4],
            nan_mode: NanMode::Propagate,
        };
        let extents = [y_axis.out, x_axis.out, x.c];
        let value = self.op(op, &[x.value], extents, x.elem);
        self.push(value, extents, x.zp);
        true
    }

    /// The elements of an activation as a tensor of `dims`, its axes permuted, as one of `extents`.
    fn permute_of(&mut self, x: Act, dims: &[usize], perms: &[i32], extents: [usize; 3]) -> Act {
        let ints = |dims: &[usize]| dims.iter().map(|&dim| dim as i64).collect::<Vec<_>>();
        let shape = self.shape(&ints(dims));
        let value = self.tensor(Reshape {}, &[x.value, shape], dims, x.elem);
        let permuted: Vec<usize> = perms.iter().map(|&axis| dims[axis as usize]).collect();
        let value = self.tensor(Transpose { perms: perms.to_vec() }, &[value], &permuted, x.elem);
        let shape = self.shape(&ints(&[1, extents[0], extents[1], extents[2]]));
        let value = self.op(Reshape {}, &[value, shape], extents, x.elem);
        self.push(value, extents, x.zp)
    }

    /// An op whose result has any rank.
    fn tensor(&mut self, op: impl Into<Op>, operands: &[ValueId], dims: &[usize], elem: ElemType) -> ValueId {
        let ty = TensorType::new(dims.to_vec(), elem).into();
        let op = self.module.append(self.block, op, operands, &[ty], Location::unknown());
        self.module.result(op)
    }

    /// Channels of two groups in turn, as ShuffleNet has them.
    fn shuffle_channels(&mut self) -> bool {
        let x = self.any();
        if !x.c.is_multiple_of(2) {
            return false;
        }
        self.permute_of(x, &[1, x.h, x.w, 2, x.c / 2], &[0, 1, 2, 4, 3], [x.h, x.w, x.c]);
        true
    }

    /// Four channels as four pixels, or four pixels as four channels.
    fn depth_to_space(&mut self) -> bool {
        let x = self.any();
        if x.c.is_multiple_of(4) && x.h.max(x.w) <= self.limits.max_extent {
            let dims = [1, x.h, x.w, 2, 2, x.c / 4];
            self.permute_of(x, &dims, &[0, 1, 3, 2, 4, 5], [2 * x.h, 2 * x.w, x.c / 4]);
            return true;
        }
        let fits = x.h.is_multiple_of(2) && x.w.is_multiple_of(2) && x.c <= self.limits.max_channels / 2;
        if fits {
            let dims = [1, x.h / 2, 2, x.w / 2, 2, x.c];
            self.permute_of(x, &dims, &[0, 1, 3, 2, 4, 5], [x.h / 2, x.w / 2, 4 * x.c]);
        }
        fits
    }

    /// Rows as columns.
    fn turn(&mut self) -> bool {
        let x = self.any();
        self.permute_of(x, &[1, x.h, x.w, x.c], &[0, 2, 1, 3], [x.w, x.h, x.c]);
        true
    }

    /// The greatest of every column, row or pixel.
    fn reduce(&mut self) -> bool {
        let x = self.any();
        let axis = self.rng.count(0, 2);
        let mut extents = [x.h, x.w, x.c];
        extents[axis] = 1;
        let op = ReduceMax { axis: axis as i32 + 1, nan_mode: NanMode::Propagate };
        let value = self.op(op, &[x.value], extents, x.elem);
        self.push(value, extents, x.zp);
        true
    }

    /// Two layers on one activation, one of which ends there.
    fn fork(&mut self) -> bool {
        let x = self.any();
        self.clamp_of(x);
        let oc = self.channels();
        self.pointwise(x, oc);
        true
    }

    /// Windows of a pool: padding is less than the kernel, so that every window meets the input.
    fn pool_windows(&mut self, x: Act) -> Option<(WindowAxis, WindowAxis)> {
        let kernel = self.rng.count(2, 3);
        let y_axis = self.window(x.h, kernel, 1, kernel as i64 - 1)?;
        let x_axis = self.window(x.w, kernel, 1, kernel as i64 - 1)?;
        Some((y_axis, x_axis))
    }

    fn max_pool(&mut self) -> bool {
        let x = self.any();
        let Some((y_axis, x_axis)) = self.pool_windows(x) else { return false };
        let op = MaxPool2d {
            kernel: [y_axis.kernel as i64, x_axis.kernel as i64],
            stride: [y_axis.stride, x_axis.stride],
            pad: [y_axis.pad[0], y_axis.pad[1], x_axis.pad[0], x_axis.pad[1]],
            nan_mode: NanMode::Propagate,
        };
        let extents = [y_axis.out, x_axis.out, x.c];
        let value = self.op(op, &[x.value], extents, x.elem);
        self.push(value, extents, x.zp);
        true
    }

    fn avg_pool(&mut self) -> bool {
        let x = self.any();
        let Some((y_axis, x_axis)) = self.pool_windows(x) else { return false };
        let pad = [y_axis.pad[0], y_axis.pad[1], x_axis.pad[0], x_axis.pad[1]];
        let kernel = [y_axis.kernel as i64, x_axis.kernel as i64];
        self.avg_pool_of(x, kernel, [y_axis.stride, x_axis.stride], pad, [y_axis.out, x_axis.out, x.c]);
        true
    }

    fn avg_pool_of(
        &mut self,
        x: Act,
        kernel: [i64; 2],
        stride: [i64; 2],
        pad: [i64; 4],
        extents: [usize; 3],
    ) -> Act {
        let (input_zp, output_zp) = (self.zero_point(x.elem, x.zp), self.zero_point(x.elem, x.zp));
        let op = AvgPool2d { kernel, stride, pad, acc_type: ElemType::I32 };
        let value = self.op(op, &[x.value, input_zp, output_zp], extents, x.elem);
        self.push(value, extents, x.zp)
    }

    /// The mean of all pixels.
    fn global_pool(&mut self, x: Act) -> Act {
        self.avg_pool_of(x, [x.h as i64, x.w as i64], [1, 1], [0; 4], [1, 1, x.c])
    }

    fn resize(&mut self, mode: ResizeMode) -> Option<(Act, ValueId, [usize; 3], i64)> {
        let x = self.any();
        if x.h.max(x.w) > self.limits.max_extent {
            return None;
        }
        // Twice as large: from the corner, between pixel centres, or with the corners aligned.
        let (unit, step, offset, border) = self.rng.pick(&[(2, 1, 0, 1), (4, 2, -1, 1), (2, 1, 0, 0)]);
        let out = |extent: usize| ((extent as i64 - 1) * unit - offset + border) / step + 1;
        let extents = [out(x.h) as usize, out(x.w) as usize, x.c];
        let operands = [
            x.value,
            self.shape(&[unit, step, unit, step]),
            self.shape(&[offset, offset]),
            self.shape(&[border, border]),
        ];
        let elem = if mode == ResizeMode::Bilinear { x.accumulator() } else { x.elem };
        let value = self.op(Resize { mode }, &operands, extents, elem);
        Some((x, value, extents, unit))
    }

    fn resize_nearest(&mut self) -> bool {
        let Some((x, value, extents, _)) = self.resize(ResizeMode::NearestNeighbor) else { return false };
        self.push(value, extents, x.zp);
        true
    }

    fn resize_bilinear(&mut self) -> bool {
        let Some((x, value, extents, unit)) = self.resize(ResizeMode::Bilinear) else { return false };
        self.narrow(value, extents, (64 << x.extra_bits()) as f64 * (unit * unit) as f64);
        true
    }

    /// `x * table(conv(mean(x)))`, one factor a channel.
    fn squeeze_excite(&mut self) -> bool {
        let x = self.any();
        let mean = self.global_pool(x);
        let squeezed = self.pointwise(mean, x.c);
        let gate = self.table_of(squeezed);
        let extents = [x.h, x.w, x.c];
        // `m / 2^30` with `m` near `2^30` is about `1 .. 2`; 16 bits are brought to 8, so that the product
        // fits 32.
        let factor = |net: &mut Self, act: Act, extents| {
            let shift = 30 + act.extra_bits();
            net.rescale(act.value, extents, (act.elem, act.zp), (ElemType::I32, 0), shift)
        };
        let wide = factor(self, x, extents);
        let gate = factor(self, gate, [1, 1, x.c]);
        let shift = self.zero_point(ElemType::I8, 0);
        let product = self.op(Mul {}, &[wide, gate, shift], extents, ElemType::I32);
        self.narrow(product, extents, 128.0 * 128.0);
        true
    }

    fn pad(&mut self) -> bool {
        let x = self.any();
        if x.h.max(x.w) > self.limits.max_extent {
            return false;
        }
        let padding: [usize; 4] = std::array::from_fn(|_| self.rng.count(0, 2));
        let [top, bottom, left, right] = padding.map(|extent| extent as i64);
        let extents = [x.h + padding[0] + padding[1], x.w + padding[2] + padding[3], x.c];
        let operands =
            [x.value, self.shape(&[0, 0, top, bottom, left, right, 0, 0]), self.zero_point(x.elem, x.zp)];
        let value = self.op(Pad {}, &operands, extents, x.elem);
        self.push(value, extents, x.zp);
        true
    }

    /// All elements as the channels of one pixel, then a pointwise convolution.
    fn fully_connected(&mut self) -> bool {
        let x = self.any();
        let c = x.h * x.w * x.c;
        if c > 512 {
            return false;
        }
        let extents = [1, 1, c];
        let shape = self.shape(&[1, 1, 1, c as i64]);
        let value = self.op(Reshape {}, &[x.value, shape], extents, x.elem);
        let flat = self.push(value, extents, x.zp);
        let oc = self.channels();
        self.pointwise(flat, oc);
        true
    }
}

/// About how large a sum of `n` products of random activations and `i8` weights gets.
fn magnitude(x: Act, n: usize) -> f64 {
    73.0 * 110.0 * (n as f64).sqrt() * f64::from(1 << x.extra_bits())
}

/// An element type of activations. Networks of `i8` alone draw no number for it.
fn any_elem(rng: &mut Rng, options: &RandomOptions) -> ElemType {
    let is_wide = options.i16_percent > 0 && rng.int(1, 100) <= options.i16_percent.into();
    if is_wide { ElemType::I16 } else { ElemType::I8 }
}

/// A zero point: any of `i8`, none of `i16`.
fn any_zero_point(rng: &mut Rng, elem: ElemType) -> i64 {
    if elem == ElemType::I16 { 0 } else { rng.int(-128, 127) }
}

/// The dictionary of an argument or result.
fn describe(stem: &str, index: usize, zp: i64) -> Attribute {
    let quant = BTreeMap::from([
        ("scale".to_owned(), Attribute::Float(1.0 / 64.0, None)),
        ("zero_point".to_owned(), Attribute::Int(zp, ElemType::I64)),
    ]);
    Attribute::Dict(BTreeMap::from([
        ("strata.name".to_owned(), Attribute::Str(format!("{stem}{index}"))),
        ("strata.quant".to_owned(), Attribute::Dict(quant)),
    ]))
}
