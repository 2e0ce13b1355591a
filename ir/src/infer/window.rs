//! Rules of ops whose output extents follow from sliding windows: convolutions, pools, resize; and the matrix
//! product, which shares their types.

use super::operands::Operands;
use super::tensor_type;
use crate::attr::ResizeMode;
use crate::diag::{Diagnostic, code};
use crate::dialect::{AvgPool2d, Conv2d, DepthwiseConv2d, MaxPool2d, Resize, TransposeConv2d};
use crate::types::ElemType::{self, F32, I8, I16, I32, I48};
use crate::types::TensorType;

/// The weight's element type for an input's, and the accumulator's, which is also the bias's and the
/// result's.
fn conv_types(input: ElemType) -> (ElemType, ElemType) {
    match input {
        I8 => (I8, I32),
        I16 => (I8, I48),
        _ => (F32, F32),
    }
}

/// `numerator / denominator`, which TOSA wants to be exact, plus 1.
fn steps(
    cx: &Operands<'_>,
    axis: &str,
    numerator: i128,
    denominator: i128,
    formula: &str,
) -> Result<i128, Diagnostic> {
    if numerator < 0 {
        let message = format!("{axis}: the window is larger than its padded input ({formula} = {numerator})");
        return Err(cx.error(code::SHAPE, message));
    }
    if numerator % denominator != 0 {
        let message =
            format!("{axis}: {formula} = {numerator} is not divisible by {denominator}, as TOSA requires");
        return Err(cx.error(code::SHAPE, message).help("trim the input with `tosa.slice`, or pad less"));
    }
    Ok(numerator / denominator + 1)
}

fn at_least(cx: &Operands<'_>, what: &str, values: &[i64], least: i64) -> Result<(), Diagnostic> {
    match values.iter().all(|&v| v >= least) {
        true => Ok(()),
        false => {
            Err(cx.error(code::VALUE_RANGE, format!("{what} {values:?} must be at least {least} everywhere")))
        }
    }
}

fn wide<const N: usize>(values: [i64; N]) -> [i128; N] {
    values.map(i128::from)
}

/// Checks element types of input, weight, bias and zero points, and the accumulator; gives the result's
/// element.
fn conv_operands(cx: &Operands<'_>, acc: ElemType) -> Result<ElemType, Diagnostic> {
    let input = cx.elem(0, &[I8, I16, F32])?.elem;
    let (weight, want_acc) = conv_types(input);
    cx.elem(1, &[weight])?;
    cx.elem(2, &[want_acc])?;
    cx.zero_point(3, input, false)?;
    cx.zero_point(4, weight, false)?;
    accumulator(cx, acc, want_acc)?;
    Ok(want_acc)
}

fn accumulator(cx: &Operands<'_>, found: ElemType, want: ElemType) -> Result<(), Diagnostic> {
    match found == want {
        true => Ok(()),
        false => {
            Err(cx.error(code::VALUE_RANGE, format!("acc_type must be {want} for this input, found {found}")))
        }
    }
}

fn bias(cx: &Operands<'_>, channels: i128) -> Result<(), Diagnostic> {
    let [n] = cx.dims(2)?;
    if n == 1 { Ok(()) } else { cx.expect_extent(2, "elements", n, channels) }
}

/// Extents of a convolution's output.
fn conv_extents(
    cx: &Operands<'_>,
    input: [i128; 2],
    kernel: [i128; 2],
    pad: [i64; 4],
    stride: [i64; 2],
    dilation: [i64; 2],
) -> Result<[i128; 2], Diagnostic> {
    at_least(cx, "pad", &pad, 0)?;
    at_least(cx, "stride", &stride, 1)?;
    at_least(cx, "dilation", &dilation, 1)?;
    let ([top, bottom, left, right], [sy, sx], [dy, dx]) = (wide(pad), wide(stride), wide(dilation));
    let formula = "extent - 1 + padding - (kernel - 1) * dilation";
    let height = input[0] - 1 + top + bottom - (kernel[0] - 1) * dy;
    let width = input[1] - 1 + left + right - (kernel[1] - 1) * dx;
    Ok([steps(cx, "height", height, sy, formula)?, steps(cx, "width", width, sx, formula)?])
}

pub(super) fn conv2d(cx: &Operands<'_>, op: &Conv2d) -> Result<TensorType, Diagnostic> {
    let elem = conv_operands(cx, op.acc_type)?;
    let [n, ih, iw, ic] = cx.dims(0)?;
    let [oc, kh, kw, weight_ic] = cx.dims(1)?;
    cx.expect_extent(1, "input channels", weight_ic, ic)?;
    bias(cx, oc)?;
    let [oh, ow] = conv_extents(cx, [ih, iw], [kh, kw], op.pad, op.stride, op.dilation)?;
    tensor_type(cx, &[n, oh, ow, oc], elem)
}

pub(super) fn depthwise_conv2d(cx: &Operands<'_>, op: &DepthwiseConv2d) -> Result<TensorType, Diagnostic> {
    let elem = conv_operands(cx, op.acc_type)?;
    let [n, ih, iw, c] = cx.dims(0)?;
    let [kh, kw, weight_c, multiplier] = cx.dims(1)?;
    cx.expect_extent(1, "channels", weight_c, c)?;
    bias(cx, c * multiplier)?;
    let [oh, ow] = conv_extents(cx, [ih, iw], [kh, kw], op.pad, op.stride, op.dilation)?;
    tensor_type(cx, &[n, oh, ow, c * multiplier], elem)
}

pub(super) fn transpose_conv2d(cx: &Operands<'_>, op: &TransposeConv2d) -> Result<TensorType, Diagnostic> {
    let elem = conv_operands(cx, op.acc_type)?;
    let [n, ih, iw, ic] = cx.dims(0)?;
    let [oc, kh, kw, weight_ic] = cx.dims(1)?;
    cx.expect_extent(1, "input channels", weight_ic, ic)?;
    bias(cx, oc)?;
    at_least(cx, "stride", &op.stride, 1)?;
    let [top, bottom, left, right] = wide(op.out_pad);
    if top <= -kh || bottom <= -kh || left <= -kw || right <= -kw {
        let message = format!("out_pad {:?} must be greater than minus the kernel extents", op.out_pad);
        return Err(cx.error(code::VALUE_RANGE, message));
    }
    let [sy, sx] = wide(op.stride);
    let oh = (ih - 1) * sy + top + bottom + kh;
    let ow = (iw - 1) * sx + left + right + kw;
    tensor_type(cx, &[n, oh, ow, oc], elem)
}

pub(super) fn matmul(cx: &Operands<'_>) -> Result<TensorType, Diagnostic> {
    let elem = cx.elem(0, &[I8, I16, F32])?.elem;
    cx.elem(1, &[elem])?;
    cx.zero_point(2, elem, false)?;
    cx.zero_point(3, elem, false)?;
    let [n, h, c] = cx.dims(0)?;
    let [b_n, b_c, w] = cx.dims(1)?;
    cx.expect_extent(1, "batches", b_n, n)?;
    cx.expect_extent(1, "rows", b_c, c)?;
    let acc = match elem {
        I8 => I32,
        I16 => I48,
        _ => F32,
    };
    tensor_type(cx, &[n, h, w], acc)
}

fn pool_shape(
    cx: &Operands<'_>,
    kernel: [i64; 2],
    stride: [i64; 2],
    pad: [i64; 4],
) -> Result<[i128; 4], Diagnostic> {
    let [n, ih, iw, c] = cx.dims(0)?;
    at_least(cx, "kernel", &kernel, 1)?;
    at_least(cx, "stride", &stride, 1)?;
    at_least(cx, "pad", &pad, 0)?;
    let ([kh, kw], [sy, sx], [top, bottom, left, right]) = (wide(kernel), wide(stride), wide(pad));
    if top >= kh || bottom >= kh || left >= kw || right >= kw {
        let message = format!("pad {pad:?} must be less than the kernel {kernel:?}");
        return Err(cx.error(code::VALUE_RANGE, message));
    }
    let formula = "extent + padding - kernel";
    let oh = steps(cx, "height", ih + top + bottom - kh, sy, formula)?;
    let ow = steps(cx, "width", iw + left + right - kw, sx, formula)?;
    Ok([n, oh, ow, c])
}

pub(super) fn avg_pool2d(cx: &Operands<'_>, op: &AvgPool2d) -> Result<TensorType, Diagnostic> {
    let elem = cx.elem(0, &[I8, I16, F32])?.elem;
    cx.zero_point(1, elem, false)?;
    cx.zero_point(2, elem, false)?;
    accumulator(cx, op.acc_type, if elem == F32 { F32 } else { I32 })?;
    tensor_type(cx, &pool_shape(cx, op.kernel, op.stride, op.pad)?, elem)
}

pub(super) fn max_pool2d(cx: &Operands<'_>, op: &MaxPool2d) -> Result<TensorType, Diagnostic> {
    let elem = cx.elem(0, &[I8, I16, F32])?.elem;
    tensor_type(cx, &pool_shape(cx, op.kernel, op.stride, op.pad)?, elem)
}

pub(super) fn resize(cx: &Operands<'_>, op: &Resize) -> Result<TensorType, Diagnostic> {
    /// TOSA's bound on extents and on the numerator of a scale.
    const MAX_EXTENT: i128 = 16384;
    const MAX_SCALE: i128 = 1 << 11;
    let input = cx.elem(0, &[I8, I16, F32])?.elem;
    let [n, ih, iw, c] = cx.dims(0)?;
    let (scale, offset, border) = (cx.shape_values(1, 4)?, cx.shape_values(2, 2)?, cx.shape_values(3, 2)?);
    let extent = |axis: &str, extent: i128, i: usize| -> Result<i128, Diagnostic> {
        let (numerator, denominator) = (i128::from(scale[2 * i]), i128::from(scale[2 * i + 1]));
        let (offset, border) = (i128::from(offset[i]), i128::from(border[i]));
        let fits = (1..=MAX_SCALE).contains(&numerator)
            && (1..16 * numerator).contains(&denominator)
            && (-numerator..16 * numerator).contains(&offset)
            && (-16 * numerator..numerator).contains(&border);
        if !fits {
            let message = format!(
                "{axis}: scale {numerator}/{denominator}, offset {offset} or border {border} is out of \
                    TOSA's range"
            );
            return Err(cx.error(code::VALUE_RANGE, message));
        }
        let formula = "(extent - 1) * scale_n - offset + border";
        let out = steps(cx, axis, (extent - 1) * numerator - offset + border, denominator, formula)?;
        if extent >= MAX_EXTENT || out >= MAX_EXTENT {
            let message = format!("{axis}: extents {extent} and {out} must be below {MAX_EXTENT}");
            return Err(cx.error(code::SHAPE, message));
        }
        Ok(out)
    };
    let elem = match (op.mode, input) {
        (ResizeMode::Bilinear, I8) => I32,
        (ResizeMode::Bilinear, I16) => I48,
        _ => input,
    };
    tensor_type(cx, &[n, extent("height", ih, 0)?, extent("width", iw, 1)?, c], elem)
}
