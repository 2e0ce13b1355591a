//! Fast kernels of convolutions and matrix products, in f32 for reals and in f32 or f64 for integers.
//!
//! Convolutions run as tiled im2col and a packed matrix product. Tiles are cut by shape alone, so that
//! results do not depend on the number of threads.

use rayon::prelude::*;
use strata_ir::dialect::{Conv2d, DepthwiseConv2d, TransposeConv2d};

use crate::quantise::gemm::{Matrix, Real, accumulate};

/// Output pixels of one tile: enough to repay packing the weights.
const TILE_PIXELS: usize = 512;
/// Output channels of one tile when there are few tiles of pixels.
const TILE_CHANNELS: usize = 128;

/// The elements of a tensor, row-major, and its extents.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub data: &'a [T],
    pub shape: &'a [usize],
}

fn extents<const N: usize>(shape: &[usize]) -> Option<[usize; N]> {
    shape.try_into().ok()
}

/// The bias of channel `c`, which may be one for all.
fn bias_row<T: Copy>(bias: &[T], channels: usize) -> Vec<T> {
    if bias.len() == channels { bias.to_vec() } else { vec![bias[0]; channels] }
}

/// A convolution, each tile of output pixels as im2col and a matrix product.
pub(super) fn conv2d<T: Real>(
    op: &Conv2d,
    input: Operand<'_, T>,
    weight: Operand<'_, T>,
    bias: &[T],
    shape: &[usize],
) -> Option<Vec<T>> {
    let [_, height, width, in_channels] = extents(input.shape)?;
    let [_, kernel_h, kernel_w, _] = extents(weight.shape)?;
    let (input, weight) = (input.data, weight.data);
    let [batch, out_h, out_w, out_channels] = extents(shape)?;
    let bias = bias_row(bias, out_channels);
    let depth = kernel_h * kernel_w * in_channels;
    let image = height * width * in_channels;
    let n_pixels = out_h * out_w;
    let pointwise = kernel_h * kernel_w == 1 && op.pad == [0; 4] && op.stride == [1, 1];
    let window = ConvWindow { height, width, out_w, in_channels, kernel: [kernel_h, kernel_w], op };
    let few_tiles = batch * n_pixels.div_ceil(TILE_PIXELS) < 4;

    let mut out = vec![T::default(); batch * n_pixels * out_channels];
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
                let parts: Vec<Vec<T>> = (0..out_channels.div_ceil(TILE_CHANNELS))
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
struct ConvWindow<'a> {
    height: usize,
    width: usize,
    out_w: usize,
    in_channels: usize,
    kernel: [usize; 2],
    op: &'a Conv2d,
}

impl ConvWindow<'_> {
    /// The im2col matrix of `n_rows` output pixels from pixel `first` on: one row a pixel, taps outside are
    /// zero.
    fn columns<T: Real>(&self, input: &[T], first: usize, n_rows: usize) -> Vec<T> {
        let channels = self.in_channels;
        let [kernel_h, kernel_w] = self.kernel;
        let mut columns = vec![T::default(); n_rows * kernel_h * kernel_w * channels];
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

/// A depthwise convolution of multiplier 1.
pub(super) fn depthwise_conv2d<T: Real>(
    op: &DepthwiseConv2d,
    input: Operand<'_, T>,
    weight: Operand<'_, T>,
    bias: &[T],
    shape: &[usize],
) -> Option<Vec<T>> {
    let [_, height, width, channels] = extents(input.shape)?;
    let [kernel_h, kernel_w, _, multiplier] = extents(weight.shape)?;
    let (input, weight) = (input.data, weight.data);
    let [batch, out_h, out_w, _] = extents(shape)?;
    if multiplier != 1 {
        return None;
    }
    let bias = bias_row(bias, channels);
    let mut out = vec![T::default(); batch * out_h * out_w * channels];
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
                        *out += *x * *w;
                    }
                }
            }
        }
    });
    Some(out)
}

/// A transposed convolution: a matrix product a row of the input, then a scattered sum.
pub(super) fn transpose_conv2d<T: Real>(
    op: &TransposeConv2d,
    input: Operand<'_, T>,
    weight: Operand<'_, T>,
    bias: &[T],
    shape: &[usize],
) -> Option<Vec<T>> {
    let [batch, height, width, in_channels] = extents(input.shape)?;
    let [_, kernel_h, kernel_w, _] = extents(weight.shape)?;
    let (input, weight) = (input.data, weight.data);
    let [_, out_h, out_w, out_channels] = extents(shape)?;
    let mut out = bias_row(bias, out_channels).repeat(batch * out_h * out_w);
    let n_taps = out_channels * kernel_h * kernel_w;
    for row in 0..batch * height {
        let (n, y) = (row / height, row % height);
        let mut products = vec![T::default(); width * n_taps];
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

/// A batch of matrix products.
pub(super) fn matmul<T: Real>(a: Operand<'_, T>, b: Operand<'_, T>, shape: &[usize]) -> Option<Vec<T>> {
    let [batch, rows, columns] = extents(shape)?;
    let [_, _, depth] = extents(a.shape)?;
    let (a, b) = (a.data, b.data);
    let mut out = vec![T::default(); batch * rows * columns];
    out.par_chunks_mut((rows * columns).max(1)).enumerate().for_each(|(n, out)| {
        let a = Matrix { data: &a[n * rows * depth..], row_step: depth, column_step: 1 };
        let b = Matrix { data: &b[n * depth * columns..], row_step: columns, column_step: 1 };
        accumulate([rows, depth, columns], a, b, out, columns);
    });
    Some(out)
}
