//! A fast f32 forward pass over the import phase, for calibration.
//!
//! Convolutions and matrix products run as tiled im2col and a packed matrix product; all else is the reference
//! evaluator's. Sums run in another order than the evaluator's, so results agree within rounding, not bit for bit;
//! they do not depend on the number of threads, because tiles are cut by shape alone. A value is dropped after its
//! last use.

use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use rayon::prelude::*;
use strata_ir::dialect::{Conv2d, DepthwiseConv2d, TransposeConv2d};
use strata_ir::eval::{EvalError, eval_op_kind};
use strata_ir::{Module, Op, OpId, Tensor, Type, ValueId};

use super::gemm::{Matrix, accumulate};

/// Output pixels of one tile: enough to repay packing the weights.
const TILE_PIXELS: usize = 512;
/// Output channels of one tile when there are few tiles of pixels.
const TILE_CHANNELS: usize = 128;

/// Runs a function on `inputs` and returns its results, showing every value that is no constant to `observer` when
/// it is defined.
///
/// # Errors
/// As [`strata_ir::eval::eval_function`].
pub fn forward(
    module: &Module,
    func: OpId,
    inputs: &[Arc<Tensor>],
    observer: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Arc<Tensor>>, EvalError> {
    let mut change = |value: ValueId, tensor: &Tensor| {
        observer(value, tensor);
        None
    };
    forward_changed(module, func, inputs, &mut change)
}

/// As [`forward`], with values replaced by what `change` makes of them: all that follows sees the change.
///
/// # Errors
/// As [`forward`].
pub(super) fn forward_changed(
    module: &Module,
    func: OpId,
    inputs: &[Arc<Tensor>],
    change: &mut dyn FnMut(ValueId, &Tensor) -> Option<Tensor>,
) -> Result<Vec<Arc<Tensor>>, EvalError> {
    let block = module.entry_block(func);
    let args = module.args(block);
    let fits = |(&arg, tensor): (&ValueId, &Arc<Tensor>)| module.ty(arg).as_tensor() == Some(&tensor.ty());
    if args.len() != inputs.len() || !args.iter().zip(inputs).all(fits) {
        let types = |types: Vec<String>| format!("({})", types.join(", "));
        return Err(EvalError::Inputs {
            expected: types(args.iter().map(|&arg| module.ty(arg).to_string()).collect()),
            found: types(inputs.iter().map(|tensor| tensor.ty().to_string()).collect()),
        });
    }
    let mut uses_left: SecondaryMap<ValueId, u32> = SecondaryMap::new();
    for &op in module.block_ops(block) {
        for &operand in module.op(op).operands() {
            uses_left[operand] += 1;
        }
    }
    let mut values: SecondaryMap<ValueId, Option<Arc<Tensor>>> = SecondaryMap::new();
    for (&arg, input) in args.iter().zip(inputs) {
        values[arg] = Some(change(arg, input).map_or_else(|| Arc::clone(input), Arc::new));
    }
    for &op in module.block_ops(block) {
        let data = module.op(op);
        if data.op.is_constant() {
            continue;
        }
        let mut operands = Vec::with_capacity(data.operands().len());
        for &value in data.operands() {
            let constant = || module.constant(value).map(|elements| Arc::clone(&elements.tensor));
            operands.push(values[value].clone().or_else(constant).ok_or(EvalError::Undefined { value })?);
        }
        for &value in data.operands() {
            uses_left[value] -= 1;
            if uses_left[value] == 0 {
                values[value] = None;
            }
        }
        if data.op.is_terminator() {
            return Ok(operands);
        }
        let types: Vec<Type> = data.results().iter().map(|&value| module.ty(value).clone()).collect();
        let refs: Vec<&Tensor> = operands.iter().map(Arc::as_ref).collect();
        let results = match fast(&data.op, &refs, &types) {
            Some(tensor) => vec![tensor],
            None => eval_op_kind(&data.op, &refs, &types).map_err(|source| EvalError::At {
                location: data.loc.to_string(),
                source: Box::new(source),
            })?,
        };
        for (&value, tensor) in data.results().iter().zip(results) {
            let changed = change(value, &tensor);
            if uses_left[value] > 0 {
                values[value] = Some(Arc::new(changed.unwrap_or(tensor)));
            }
        }
    }
    Ok(Vec::new())
}

/// The result of an op that has a fast kernel, if its operands are such that the kernel applies.
fn fast(op: &Op, operands: &[&Tensor], results: &[Type]) -> Option<Tensor> {
    let shape = &results.first()?.as_tensor()?.shape;
    let data = match op {
        Op::Conv2d(op) => conv2d(op, operands, shape)?,
        Op::DepthwiseConv2d(op) => depthwise_conv2d(op, operands, shape)?,
        Op::TransposeConv2d(op) => transpose_conv2d(op, operands, shape)?,
        Op::MatMul(_) => matmul(operands, shape)?,
        _ => return None,
    };
    Some(Tensor::f32(shape.clone(), data))
}

fn extents<const N: usize>(shape: &[usize]) -> Option<[usize; N]> {
    shape.try_into().ok()
}

/// The bias of channel `c`, which may be one for all.
fn bias_row(bias: &[f32], channels: usize) -> Vec<f32> {
    if bias.len() == channels { bias.to_vec() } else { vec![bias[0]; channels] }
}

fn conv2d(op: &Conv2d, operands: &[&Tensor], shape: &[usize]) -> Option<Vec<f32>> {
    let [input, weight, bias] = [operands[0].as_f32()?, operands[1].as_f32()?, operands[2].as_f32()?];
    let [_, height, width, in_channels] = extents(operands[0].shape())?;
    let [_, kernel_h, kernel_w, _] = extents(operands[1].shape())?;
    let [batch, out_h, out_w, out_channels] = extents(shape)?;
    let bias = bias_row(bias, out_channels);
    let depth = kernel_h * kernel_w * in_channels;
    let image = height * width * in_channels;
    let n_pixels = out_h * out_w;
    let pointwise = kernel_h * kernel_w == 1 && op.pad == [0; 4] && op.stride == [1, 1];
    let window = Window { height, width, out_w, in_channels, kernel: [kernel_h, kernel_w], op };
    let few_tiles = batch * n_pixels.div_ceil(TILE_PIXELS) < 4;

    let mut out = vec![0.0; batch * n_pixels * out_channels];
    for (n, out) in out.chunks_mut((n_pixels * out_channels).max(1)).enumerate() {
        let input = &input[n * image..(n + 1) * image];
        let tiles = out.par_chunks_mut(TILE_PIXELS * out_channels).enumerate();
        tiles.for_each(|(tile, out)| {
            let first = tile * TILE_PIXELS;
            let n_rows = out.len() / out_channels;
            let columns;
            let a = if pointwise {
                &input[first * depth..(first + n_rows) * depth]
            } else {
                columns = window.columns(input, first, n_rows);
                &columns[..]
            };
            let a = Matrix { data: a, row_step: depth, column_step: 1 };
            if few_tiles && out_channels > TILE_CHANNELS {
                let parts: Vec<Vec<f32>> = (0..out_channels.div_ceil(TILE_CHANNELS))
                    .into_par_iter()
                    .map(|part| {
                        let from = part * TILE_CHANNELS;
                        let to = out_channels.min(from + TILE_CHANNELS);
                        let mut c = bias[from..to].repeat(n_rows);
                        let b = Matrix { data: &weight[from * depth..], row_step: 1, column_step: depth };
                        accumulate([n_rows, depth, to - from], a, b, &mut c, to - from);
                        c
                    })
                    .collect();
                for (row, out) in out.chunks_mut(out_channels).enumerate() {
                    for (part, out) in parts.iter().zip(out.chunks_mut(TILE_CHANNELS)) {
                        out.copy_from_slice(&part[row * out.len()..(row + 1) * out.len()]);
                    }
                }
            } else {
                out.chunks_mut(out_channels).for_each(|row| row.copy_from_slice(&bias));
                let b = Matrix { data: weight, row_step: 1, column_step: depth };
                accumulate([n_rows, depth, out_channels], a, b, out, out_channels);
            }
        });
    }
    Some(out)
}

/// What a convolution reads for one output pixel.
struct Window<'a> {
    height: usize,
    width: usize,
    out_w: usize,
    in_channels: usize,
    kernel: [usize; 2],
    op: &'a Conv2d,
}

impl Window<'_> {
    /// The im2col matrix of `n_rows` output pixels from pixel `first` on: one row a pixel, taps outside are zero.
    fn columns(&self, input: &[f32], first: usize, n_rows: usize) -> Vec<f32> {
        let channels = self.in_channels;
        let [kernel_h, kernel_w] = self.kernel;
        let mut columns = vec![0.0; n_rows * kernel_h * kernel_w * channels];
        let [pad_top, _, pad_left, _] = self.op.pad;
        for (row, out) in columns.chunks_mut(kernel_h * kernel_w * channels).enumerate() {
            let (oy, ox) = ((first + row) / self.out_w, (first + row) % self.out_w);
            for ky in 0..kernel_h {
                let y = tap(oy, self.op.stride[0], pad_top, ky, self.op.dilation[0], self.height);
                let Some(y) = y else { continue };
                for kx in 0..kernel_w {
                    let x = tap(ox, self.op.stride[1], pad_left, kx, self.op.dilation[1], self.width);
                    let Some(x) = x else { continue };
                    let from = (y * self.width + x) * channels;
                    let to = (ky * kernel_w + kx) * channels;
                    out[to..to + channels].copy_from_slice(&input[from..from + channels]);
                }
            }
        }
        columns
    }
}

/// The input position of a kernel tap, if it lies inside the input.
fn tap(out: usize, stride: i64, pad: i64, k: usize, dilation: i64, extent: usize) -> Option<usize> {
    let at = out as i64 * stride - pad + k as i64 * dilation;
    usize::try_from(at).ok().filter(|&at| at < extent)
}

fn depthwise_conv2d(op: &DepthwiseConv2d, operands: &[&Tensor], shape: &[usize]) -> Option<Vec<f32>> {
    let [input, weight, bias] = [operands[0].as_f32()?, operands[1].as_f32()?, operands[2].as_f32()?];
    let [_, height, width, channels] = extents(operands[0].shape())?;
    let [kernel_h, kernel_w, _, multiplier] = extents(operands[1].shape())?;
    let [batch, out_h, out_w, _] = extents(shape)?;
    if multiplier != 1 {
        return None;
    }
    let bias = bias_row(bias, channels);
    let mut out = vec![0.0; batch * out_h * out_w * channels];
    out.par_chunks_mut((out_w * channels).max(1)).enumerate().for_each(|(row, out)| {
        let (n, oy) = (row / out_h, row % out_h);
        for (ox, out) in out.chunks_mut(channels).enumerate() {
            out.copy_from_slice(&bias);
            for ky in 0..kernel_h {
                let Some(y) = tap(oy, op.stride[0], op.pad[0], ky, op.dilation[0], height) else { continue };
                for kx in 0..kernel_w {
                    let Some(x) = tap(ox, op.stride[1], op.pad[2], kx, op.dilation[1], width) else {
                        continue;
                    };
                    let pixel = &input[((n * height + y) * width + x) * channels..][..channels];
                    let taps = &weight[(ky * kernel_w + kx) * channels..][..channels];
                    for ((out, x), w) in out.iter_mut().zip(pixel).zip(taps) {
                        *out += x * w;
                    }
                }
            }
        }
    });
    Some(out)
}

fn transpose_conv2d(op: &TransposeConv2d, operands: &[&Tensor], shape: &[usize]) -> Option<Vec<f32>> {
    let [input, weight, bias] = [operands[0].as_f32()?, operands[1].as_f32()?, operands[2].as_f32()?];
    let [batch, height, width, in_channels] = extents(operands[0].shape())?;
    let [_, kernel_h, kernel_w, _] = extents(operands[1].shape())?;
    let [_, out_h, out_w, out_channels] = extents(shape)?;
    let mut out = bias_row(bias, out_channels).repeat(batch * out_h * out_w);
    let n_taps = out_channels * kernel_h * kernel_w;
    for row in 0..batch * height {
        let (n, y) = (row / height, row % height);
        let mut products = vec![0.0; width * n_taps];
        let a = &input[row * width * in_channels..][..width * in_channels];
        let a = Matrix { data: a, row_step: in_channels, column_step: 1 };
        let b = Matrix { data: weight, row_step: 1, column_step: in_channels };
        accumulate([width, in_channels, n_taps], a, b, &mut products, n_taps);
        for (x, products) in products.chunks(n_taps).enumerate() {
            for ky in 0..kernel_h {
                let Some(oy) = tap(y, op.stride[0], -op.out_pad[0], ky, 1, out_h) else { continue };
                for kx in 0..kernel_w {
                    let Some(ox) = tap(x, op.stride[1], -op.out_pad[2], kx, 1, out_w) else { continue };
                    let pixel = &mut out[((n * out_h + oy) * out_w + ox) * out_channels..][..out_channels];
                    for (o, out) in pixel.iter_mut().enumerate() {
                        *out += products[(o * kernel_h + ky) * kernel_w + kx];
                    }
                }
            }
        }
    }
    Some(out)
}

fn matmul(operands: &[&Tensor], shape: &[usize]) -> Option<Vec<f32>> {
    let [a, b] = [operands[0].as_f32()?, operands[1].as_f32()?];
    let [batch, rows, columns] = extents(shape)?;
    let [_, _, depth] = extents(operands[0].shape())?;
    let mut out = vec![0.0; batch * rows * columns];
    out.par_chunks_mut((rows * columns).max(1)).enumerate().for_each(|(n, out)| {
        let a = Matrix { data: &a[n * rows * depth..], row_step: depth, column_step: 1 };
        let b = Matrix { data: &b[n * depth * columns..], row_step: columns, column_step: 1 };
        accumulate([rows, depth, columns], a, b, out, columns);
    });
    Some(out)
}
