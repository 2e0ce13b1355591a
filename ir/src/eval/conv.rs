//! Convolutions and the matrix product.
//!
//! Operands are widened and their zero points subtracted once; a tap outside the input is then a zero.
//! Convolution gathers the taps of an output pixel into one contiguous patch `[KH*KW*IC]`, so that an output
//! is the dot product of a patch with a row of the weights. Output rows are computed in parallel.

use super::parallel::image_rows;
use super::{Args, EvalError};
use crate::dialect::{Conv2d, DepthwiseConv2d, TransposeConv2d};
use crate::tensor::{Tensor, TensorData};

/// Output pixels whose patches are kept at once, so that a row of weights serves them all.
const BLOCK: usize = 16;

/// A widened operand, and how products of two accumulate.
trait Factor: Copy + Default + Send + Sync {
    /// Accumulator.
    type Acc: Copy + Default + Send + Sync;
    /// `acc + a * b`.
    fn mul_add(acc: Self::Acc, a: Self, b: Self) -> Self::Acc;
    /// `acc + sum(i) a[i] * b[i]`.
    fn dot(acc: Self::Acc, a: &[Self], b: &[Self]) -> Self::Acc;
}

/// `i8` less a zero point; accumulates in `i32`.
impl Factor for i16 {
    type Acc = i32;
    fn mul_add(acc: i32, a: Self, b: Self) -> i32 {
        acc.wrapping_add(i32::from(a).wrapping_mul(i32::from(b)))
    }
    fn dot(acc: i32, a: &[Self], b: &[Self]) -> i32 {
        a.iter().zip(b).fold(acc, |acc, (&a, &b)| Self::mul_add(acc, a, b))
    }
}

/// `i16` less a zero point; accumulates in `i48`, held in 64 bits.
impl Factor for i32 {
    type Acc = i64;
    fn mul_add(acc: i64, a: Self, b: Self) -> i64 {
        acc.wrapping_add(i64::from(a) * i64::from(b))
    }
    fn dot(acc: i64, a: &[Self], b: &[Self]) -> i64 {
        a.iter().zip(b).fold(acc, |acc, (&a, &b)| Self::mul_add(acc, a, b))
    }
}

/// Lanes of a float dot product: sixteen partial sums, added up at the end in order.
const LANES: usize = 16;

impl Factor for f32 {
    type Acc = f32;
    fn mul_add(acc: f32, a: Self, b: Self) -> f32 {
        acc + a * b
    }
    fn dot(acc: f32, a: &[Self], b: &[Self]) -> f32 {
        let (a_chunks, a_rest) = a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = b.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for i in 0..LANES {
                lanes[i] += a[i] * b[i];
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        acc + lanes.iter().sum::<f32>() + rest
    }
}

/// A window that slides over an NHWC input.
pub(super) struct Window {
    /// Batch.
    pub n: usize,
    /// Channels of the input.
    pub c: usize,
    /// Vertically.
    pub y: WindowAxis,
    /// Horizontally.
    pub x: WindowAxis,
}

/// One axis of a [`Window`].
pub(super) struct WindowAxis {
    /// Extent of the input.
    pub in_extent: usize,
    /// Extent of the output.
    pub out_extent: usize,
    /// Taps.
    pub kernel: usize,
    stride: i64,
    dilation: i64,
    before: i64,
}

impl WindowAxis {
    fn new(
        in_extent: usize,
        kernel: i64,
        stride: i64,
        dilation: i64,
        before: i64,
        after: i64,
    ) -> Option<Self> {
        if kernel < 1 || stride < 1 || dilation < 1 || before < 0 || after < 0 || in_extent == 0 {
            return None;
        }
        let reach = (kernel - 1).checked_mul(dilation)?;
        let padded = i64::try_from(in_extent).ok()?.checked_add(before)?.checked_add(after)?;
        let span = padded.checked_sub(1)?.checked_sub(reach)?;
        let out_extent = usize::try_from(span / stride).ok().filter(|_| span >= 0)? + 1;
        let kernel = usize::try_from(kernel).ok()?;
        Some(Self { in_extent, out_extent, kernel, stride, dilation, before })
    }

    /// The input index of a tap of the window at an output index, if it is inside the input.
    pub(super) fn tap(&self, at: usize, tap: usize) -> Option<usize> {
        let index = at as i64 * self.stride - self.before + tap as i64 * self.dilation;
        usize::try_from(index).ok().filter(|&index| index < self.in_extent)
    }
}

impl Window {
    /// The window over operand 0, with `pad = [top, bottom, left, right]`.
    pub(super) fn new(
        args: &Args<'_>,
        kernel: [i64; 2],
        stride: [i64; 2],
        dilation: [i64; 2],
        pad: [i64; 4],
    ) -> Result<Self, EvalError> {
        let [n, in_h, in_w, c] = args.dims(0)?;
        let [top, bottom, left, right] = pad;
        let y = WindowAxis::new(in_h, kernel[0], stride[0], dilation[0], top, bottom);
        let x = WindowAxis::new(in_w, kernel[1], stride[1], dilation[1], left, right);
        match (y, x) {
            (Some(y), Some(x)) => Ok(Self { n, c, y, x }),
            _ => Err(args.shape_error("the window does not fit into the padded input")),
        }
    }
}

/// The operands of a convolution, widened: input, weights, and a bias for each of `oc` channels.
enum Widened {
    Int8 { input: Vec<i16>, weight: Vec<i16>, bias: Vec<i32> },
    Int16 { input: Vec<i32>, weight: Vec<i32>, bias: Vec<i64> },
    Float { input: Vec<f32>, weight: Vec<f32>, bias: Vec<f32> },
}

impl Widened {
    fn new(args: &Args<'_>, oc: usize) -> Result<Self, EvalError> {
        fn spread<T: Copy>(bias: &[T], oc: usize) -> Option<Vec<T>> {
            match bias {
                [one] => Some(vec![*one; oc]),
                all => (all.len() == oc).then(|| all.to_vec()),
            }
        }
        let bias_error = || args.shape_error(format!("the bias must have 1 or {oc} elements"));
        let (input_zp, weight_zp) = (args.zero_point(3)?, args.zero_point(4)?);
        let data = (args.operand(0).data(), args.operand(1).data(), args.operand(2).data());
        Ok(match data {
            (TensorData::I8(input), TensorData::I8(weight), TensorData::I32(bias)) => Self::Int8 {
                input: input.iter().map(|&v| i16::from(v).wrapping_sub(input_zp as i16)).collect(),
                weight: weight.iter().map(|&v| i16::from(v).wrapping_sub(weight_zp as i16)).collect(),
                bias: spread(bias, oc).ok_or_else(bias_error)?,
            },
            (TensorData::I16(input), TensorData::I8(weight), TensorData::I48(bias)) => Self::Int16 {
                input: input.iter().map(|&v| i32::from(v).wrapping_sub(input_zp as i32)).collect(),
                weight: weight.iter().map(|&v| i32::from(v).wrapping_sub(weight_zp as i32)).collect(),
                bias: spread(bias, oc).ok_or_else(bias_error)?,
            },
            (TensorData::F32(input), TensorData::F32(weight), TensorData::F32(bias)) => Self::Float {
                input: input.clone(),
                weight: weight.clone(),
                bias: spread(bias, oc).ok_or_else(bias_error)?,
            },
            _ => return Err(args.elem_error()),
        })
    }
}

/// Runs a kernel, generic over [`Factor`], on widened operands.
macro_rules! accumulate {
    ($widened:expr, |$input:ident, $weight:ident, $bias:ident| $body:expr) => {
        match &$widened {
            Widened::Int8 { input: $input, weight: $weight, bias: $bias } => TensorData::I32($body),
            Widened::Int16 { input: $input, weight: $weight, bias: $bias } => {
                TensorData::I48($body.into_iter().map(wrap_48).collect())
            }
            Widened::Float { input: $input, weight: $weight, bias: $bias } => TensorData::F32($body),
        }
    };
}

/// An `i48`, sign-extended from its low 48 bits.
fn wrap_48(value: i64) -> i64 {
    (value << 16) >> 16
}

/// `out[p, o] = bias[o] + dot(patches[p], weight[o])` for patches of `k` elements.
fn multiply<F: Factor>(patches: &[F], weight: &[F], bias: &[F::Acc], k: usize, out: &mut [F::Acc]) {
    let oc = bias.len();
    for (o, &bias) in bias.iter().enumerate() {
        let weight = &weight[o * k..(o + 1) * k];
        for (out, patch) in out.chunks_mut(oc).zip(patches.chunks(k)) {
            out[o] = F::dot(bias, patch, weight);
        }
    }
}

pub(super) fn conv2d(args: &Args<'_>, op: &Conv2d) -> Result<Tensor, EvalError> {
    let [oc, kh, kw, ic] = args.dims(1)?;
    let window = Window::new(args, [kh as i64, kw as i64], op.stride, op.dilation, op.pad)?;
    if window.c != ic || ic == 0 {
        return Err(args.shape_error(format!("input has {} channels, weight takes {ic}", window.c)));
    }
    /// The taps of an output pixel, `[KH, KW, IC]`, zero outside the input.
    fn fill_patch<F: Factor>(
        window: &Window,
        input: &[F],
        image: usize,
        at: (usize, usize),
        patch: &mut [F],
    ) {
        let (y_axis, x_axis, ic) = (&window.y, &window.x, window.c);
        for (tap_y, row) in patch.chunks_mut(x_axis.kernel * ic).enumerate() {
            let Some(y) = y_axis.tap(at.0, tap_y) else {
                row.fill(F::default());
                continue;
            };
            for (tap_x, pixel) in row.chunks_mut(ic).enumerate() {
                match x_axis.tap(at.1, tap_x) {
                    Some(x) => {
                        let from = ((image * y_axis.in_extent + y) * x_axis.in_extent + x) * ic;
                        pixel.copy_from_slice(&input[from..from + ic]);
                    }
                    None => pixel.fill(F::default()),
                }
            }
        }
    }
    fn kernel<F: Factor>(window: &Window, input: &[F], weight: &[F], bias: &[F::Acc]) -> Vec<F::Acc> {
        let k = window.y.kernel * window.x.kernel * window.c;
        let oc = bias.len();
        image_rows(window.n, window.y.out_extent, window.x.out_extent * oc, |image, y, out| {
            let mut patches = vec![F::default(); BLOCK * k];
            for (block, out) in out.chunks_mut(BLOCK * oc).enumerate() {
                let n_pixels = out.len() / oc;
                for (pixel, patch) in patches.chunks_mut(k).take(n_pixels).enumerate() {
                    fill_patch(window, input, image, (y, block * BLOCK + pixel), patch);
                }
                multiply(&patches[..n_pixels * k], weight, bias, k, out);
            }
        })
    }
    let widened = Widened::new(args, oc)?;
    let data = accumulate!(widened, |input, weight, bias| kernel(&window, input, weight, bias));
    args.tensor(vec![window.n, window.y.out_extent, window.x.out_extent, oc], data)
}

pub(super) fn depthwise_conv2d(args: &Args<'_>, op: &DepthwiseConv2d) -> Result<Tensor, EvalError> {
    let [kh, kw, c, m] = args.dims(1)?;
    let window = Window::new(args, [kh as i64, kw as i64], op.stride, op.dilation, op.pad)?;
    if window.c != c || c == 0 || m == 0 {
        return Err(args.shape_error(format!("input has {} channels, weight takes {c}", window.c)));
    }
    fn kernel<F: Factor>(
        window: &Window,
        m: usize,
        input: &[F],
        weight: &[F],
        bias: &[F::Acc],
    ) -> Vec<F::Acc> {
        let (y_axis, x_axis, c) = (&window.y, &window.x, window.c);
        image_rows(window.n, y_axis.out_extent, x_axis.out_extent * c * m, |image, y, out| {
            for (x, out) in out.chunks_mut(c * m).enumerate() {
                out.copy_from_slice(bias);
                for tap_y in 0..y_axis.kernel {
                    let Some(in_y) = y_axis.tap(y, tap_y) else { continue };
                    for tap_x in 0..x_axis.kernel {
                        let Some(in_x) = x_axis.tap(x, tap_x) else { continue };
                        let at = ((image * y_axis.in_extent + in_y) * x_axis.in_extent + in_x) * c;
                        let pixel = &input[at..at + c];
                        let tap = (tap_y * x_axis.kernel + tap_x) * c * m;
                        let weight = &weight[tap..tap + c * m];
                        if m == 1 {
                            for ((acc, &a), &b) in out.iter_mut().zip(pixel).zip(weight) {
                                *acc = F::mul_add(*acc, a, b);
                            }
                            continue;
                        }
                        for ((accs, &a), weights) in out.chunks_mut(m).zip(pixel).zip(weight.chunks(m)) {
                            for (acc, &b) in accs.iter_mut().zip(weights) {
                                *acc = F::mul_add(*acc, a, b);
                            }
                        }
                    }
                }
            }
        })
    }
    let widened = Widened::new(args, c * m)?;
    let data = accumulate!(widened, |input, weight, bias| kernel(&window, m, input, weight, bias));
    args.tensor(vec![window.n, window.y.out_extent, window.x.out_extent, c * m], data)
}

/// One axis of a transposed convolution: input `i` and tap `t` meet at output `i * stride + before + t`.
struct TransposeAxis {
    in_extent: usize,
    out_extent: usize,
    kernel: usize,
    stride: i64,
    before: i64,
}

impl TransposeAxis {
    fn new(in_extent: usize, kernel: usize, stride: i64, before: i64, after: i64) -> Option<Self> {
        let taps = i64::try_from(kernel).ok()?;
        if stride < 1 || taps < 1 || before <= -taps || after <= -taps || in_extent == 0 {
            return None;
        }
        let span = (i64::try_from(in_extent).ok()? - 1).checked_mul(stride)?;
        let extent = span.checked_add(before)?.checked_add(after)?.checked_add(taps)?;
        let out_extent = usize::try_from(extent).ok().filter(|&extent| extent > 0)?;
        Some(Self { in_extent, out_extent, kernel, stride, before })
    }

    /// The input that meets tap `tap` at an output index.
    fn input(&self, at: usize, tap: usize) -> Option<usize> {
        let scaled = at as i64 - self.before - tap as i64;
        let index = usize::try_from(scaled / self.stride).ok()?;
        (scaled >= 0 && scaled % self.stride == 0 && index < self.in_extent).then_some(index)
    }
}

pub(super) fn transpose_conv2d(args: &Args<'_>, op: &TransposeConv2d) -> Result<Tensor, EvalError> {
    let [n, in_h, in_w, in_c] = args.dims(0)?;
    let [oc, kh, kw, ic] = args.dims(1)?;
    if in_c != ic || ic == 0 {
        return Err(args.shape_error(format!("input has {in_c} channels, weight takes {ic}")));
    }
    let [top, bottom, left, right] = op.out_pad;
    let y_axis = TransposeAxis::new(in_h, kh, op.stride[0], top, bottom);
    let x_axis = TransposeAxis::new(in_w, kw, op.stride[1], left, right);
    let (Some(y_axis), Some(x_axis)) = (y_axis, x_axis) else {
        return Err(args.shape_error("the output is empty, or its padding crops more than a kernel"));
    };
    fn kernel<F: Factor>(
        (y_axis, x_axis): (&TransposeAxis, &TransposeAxis),
        [n, ic]: [usize; 2],
        input: &[F],
        weight: &[F],
        bias: &[F::Acc],
    ) -> Vec<F::Acc> {
        let oc = bias.len();
        image_rows(n, y_axis.out_extent, x_axis.out_extent * oc, |image, y, out| {
            for (x, out) in out.chunks_mut(oc).enumerate() {
                out.copy_from_slice(bias);
                for tap_y in 0..y_axis.kernel {
                    let Some(in_y) = y_axis.input(y, tap_y) else { continue };
                    for tap_x in 0..x_axis.kernel {
                        let Some(in_x) = x_axis.input(x, tap_x) else { continue };
                        let at = ((image * y_axis.in_extent + in_y) * x_axis.in_extent + in_x) * ic;
                        let pixel = &input[at..at + ic];
                        for (o, acc) in out.iter_mut().enumerate() {
                            let tap = ((o * y_axis.kernel + tap_y) * x_axis.kernel + tap_x) * ic;
                            *acc = F::dot(*acc, pixel, &weight[tap..tap + ic]);
                        }
                    }
                }
            }
        })
    }
    let widened = Widened::new(args, oc)?;
    let axes = (&y_axis, &x_axis);
    let data = accumulate!(widened, |input, weight, bias| kernel(axes, [n, ic], input, weight, bias));
    args.tensor(vec![n, y_axis.out_extent, x_axis.out_extent, oc], data)
}

/// `out[n, h, w] = sum(c) (a[n, h, c] - a_zp) * (b[n, c, w] - b_zp)`.
pub(super) fn matmul(args: &Args<'_>) -> Result<Tensor, EvalError> {
    let [n, h, c] = args.dims(0)?;
    let [b_n, b_c, w] = args.dims(1)?;
    if (b_n, b_c) != (n, c) || c == 0 {
        return Err(args.shape_error(format!("[{n}, {h}, {c}] times [{b_n}, {b_c}, {w}]")));
    }
    /// `b` with its columns contiguous: `[N, W, C]`.
    fn columns<F: Factor>(b: &[F], [c, w]: [usize; 2]) -> Vec<F> {
        let matrices = b.chunks((c * w).max(1));
        matrices.flat_map(|b| (0..w).flat_map(move |x| (0..c).map(move |i| b[i * w + x]))).collect()
    }
    fn kernel<F: Factor>(a: &[F], b: &[F], [n, h, c, w]: [usize; 4]) -> Vec<F::Acc> {
        let b = columns(b, [c, w]);
        let zeros = vec![F::Acc::default(); w];
        image_rows(n, h, w, |matrix, y, out| {
            let row = (matrix * h + y) * c;
            multiply(&a[row..row + c], &b[matrix * c * w..(matrix + 1) * c * w], &zeros, c, out);
        })
    }
    let (a_zp, b_zp) = (args.zero_point(2)?, args.zero_point(3)?);
    let extents = [n, h, c, w];
    let data = match (args.operand(0).data(), args.operand(1).data()) {
        (TensorData::I8(a), TensorData::I8(b)) => {
            let widen = |v: &[i8], zp: i64| -> Vec<i16> {
                v.iter().map(|&v| i16::from(v).wrapping_sub(zp as i16)).collect()
            };
            TensorData::I32(kernel(&widen(a, a_zp), &widen(b, b_zp), extents))
        }
        (TensorData::I16(a), TensorData::I16(b)) => {
            let widen = |v: &[i16], zp: i64| -> Vec<i32> {
                v.iter().map(|&v| i32::from(v).wrapping_sub(zp as i32)).collect()
            };
            TensorData::I48(
                kernel(&widen(a, a_zp), &widen(b, b_zp), extents).into_iter().map(wrap_48).collect(),
            )
        }
        (TensorData::F32(a), TensorData::F32(b)) => TensorData::F32(kernel(a, b, extents)),
        _ => return Err(args.elem_error()),
    };
    args.tensor(vec![n, h, w], data)
}
