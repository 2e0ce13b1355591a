//! The rows. See the [module above](super) for what a row declares.
//!
//! TOSA rows follow the TOSA 1.0 specification: the names, operands and attributes are those of MLIR's TOSA
//! dialect, so that `tosa-opt` reads what the printer writes.

use super::*;

define_ops! {
    /// The top of a module: one region of one block of functions.
    BuiltinModule = "builtin.module" [] -> 0, regions 1, syntax Module, {
    }
    /// A function: one region of one block, whose arguments are the inputs.
    Func = "func.func" [] -> 0, regions 1, syntax Function, {
        /// Its name.
        sym_name: String,
        /// Its inputs and results.
        function_type: FunctionType,
        /// An array of dictionaries, one an argument.
        arg_attrs: Option<Attribute> = None,
        /// An array of dictionaries, one a result.
        res_attrs: Option<Attribute> = None,
    }
    /// Ends a function with its results.
    FuncReturn = "func.return" [; values ...] -> 0, regions 0, syntax Terminator, {
    }
    /// `out[n,y,x,o] = bias[o] + sum(ky,kx,i) (in[n, y*sy-top+ky*dy, x*sx-left+kx*dx, i] - input_zp) *
    /// (weight[o,ky,kx,i] - weight_zp)`; taps outside the input add nothing. Input `[N,H,W,IC]`, weight
    /// `[OC,KH,KW,IC]`, bias `[OC]` or `[1]`.
    Conv2d = "tosa.conv2d" [input, weight, bias, input_zp, weight_zp] -> 1, regions 0, {
        /// Padding `[top, bottom, left, right]`.
        pad: [i64; 4],
        /// Step `[y, x]`.
        stride: [i64; 2],
        /// Distance of taps `[y, x]`.
        dilation: [i64; 2],
        /// Accumulator type.
        acc_type: ElemType,
        /// Whether accumulation stays within the bounds of the local window.
        local_bound: bool = false,
    }
    /// `out[n,y,x,c*M+m] = bias[c*M+m] + sum(ky,kx) (in[n, y*sy-top+ky*dy, x*sx-left+kx*dx, c] - input_zp) *
    /// (weight[ky,kx,c,m] - weight_zp)`. Input `[N,H,W,C]`, weight `[KH,KW,C,M]`, bias `[C*M]` or `[1]`.
    DepthwiseConv2d = "tosa.depthwise_conv2d" [input, weight, bias, input_zp, weight_zp] -> 1, regions 0, {
        /// Padding `[top, bottom, left, right]`.
        pad: [i64; 4],
        /// Step `[y, x]`.
        stride: [i64; 2],
        /// Distance of taps `[y, x]`.
        dilation: [i64; 2],
        /// Accumulator type.
        acc_type: ElemType,
        /// Whether accumulation stays within the bounds of the local window.
        local_bound: bool = false,
    }
    /// Starts from `out = bias` and adds, for every input pixel and tap,
    /// `out[n, y*sy+top+ky, x*sx+left+kx, o] += (in[n,y,x,i] - input_zp) * (weight[o,ky,kx,i] - weight_zp)`
    /// where the output pixel exists. Weight `[OC,KH,KW,IC]`; output height `(IH-1)*sy + top + bottom + KH`.
    TransposeConv2d = "tosa.transpose_conv2d" [input, weight, bias, input_zp, weight_zp] -> 1, regions 0, {
        /// Output padding `[top, bottom, left, right]`, negative to crop; each is greater than minus the
        /// kernel extent.
        out_pad: [i64; 4],
        /// Step `[y, x]` in the output.
        stride: [i64; 2],
        /// Accumulator type.
        acc_type: ElemType,
        /// Whether accumulation stays within the bounds of the local window.
        local_bound: bool = false,
    }
    /// `out[n,h,w] = sum(c) (a[n,h,c] - a_zp) * (b[n,c,w] - b_zp)`; an `i8` product accumulates in `i32`.
    MatMul = "tosa.matmul" [a, b, a_zp, b_zp] -> 1, regions 0, {
    }
    /// Mean of the window over the taps inside the input; integer means use the reciprocal of TOSA AVG_POOL2D
    /// and then add `output_zp`.
    AvgPool2d = "tosa.avg_pool2d" [input, input_zp, output_zp] -> 1, regions 0, {
        /// Window `[height, width]`.
        kernel: [i64; 2],
        /// Step `[y, x]`.
        stride: [i64; 2],
        /// Padding `[top, bottom, left, right]`.
        pad: [i64; 4],
        /// Accumulator type.
        acc_type: ElemType,
    }
    /// Maximum of the window over the taps inside the input.
    MaxPool2d = "tosa.max_pool2d" [input] -> 1, regions 0, {
        /// Window `[height, width]`.
        kernel: [i64; 2],
        /// Step `[y, x]`.
        stride: [i64; 2],
        /// Padding `[top, bottom, left, right]`.
        pad: [i64; 4],
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// Index (`i32`) of the greatest element along `axis`, the first of equals; the axis is dropped.
    Argmax = "tosa.argmax" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// Elementwise `a + b`, with extents of 1 broadcast; ranks are equal. Integers do not overflow in valid
    /// programs.
    Add = "tosa.add" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a - b`, with extents of 1 broadcast; ranks are equal.
    Sub = "tosa.sub" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `max(a, b)`, with extents of 1 broadcast; ranks are equal.
    Maximum = "tosa.maximum" [input1, input2] -> 1, regions 0, {
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// Elementwise `min(a, b)`, with extents of 1 broadcast; ranks are equal.
    Minimum = "tosa.minimum" [input1, input2] -> 1, regions 0, {
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// Elementwise `a ^ b`, with extents of 1 broadcast; ranks are equal. Floats only.
    Pow = "tosa.pow" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a / b`, with extents of 1 broadcast; ranks are equal. `i32`, truncating.
    IntDiv = "tosa.intdiv" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a && b`, with extents of 1 broadcast; ranks are equal.
    LogicalAnd = "tosa.logical_and" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a || b`, with extents of 1 broadcast; ranks are equal.
    LogicalOr = "tosa.logical_or" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a != b`, with extents of 1 broadcast; ranks are equal.
    LogicalXor = "tosa.logical_xor" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a == b`, with extents of 1 broadcast; ranks are equal. Result `i1`.
    Equal = "tosa.equal" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a > b`, with extents of 1 broadcast; ranks are equal. Result `i1`.
    Greater = "tosa.greater" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a >= b`, with extents of 1 broadcast; ranks are equal. Result `i1`.
    GreaterEqual = "tosa.greater_equal" [input1, input2] -> 1, regions 0, {
    }
    /// Elementwise `a * b` with broadcast; `i8` and `i16` give `i32`, and an `i32` product is shifted right
    /// by `shift` (an `i8` constant) with rounding when it is not zero.
    Mul = "tosa.mul" [input1, input2, shift] -> 1, regions 0, {
    }
    /// Elementwise `a >> b` with broadcast.
    ArithmeticRightShift = "tosa.arithmetic_right_shift" [input1, input2] -> 1, regions 0, {
        /// Whether to round.
        round: bool,
    }
    /// Elementwise `|x|`.
    Abs = "tosa.abs" [input1] -> 1, regions 0, {
    }
    /// Elementwise `ceil(x)`.
    Ceil = "tosa.ceil" [input1] -> 1, regions 0, {
    }
    /// Elementwise `floor(x)`.
    Floor = "tosa.floor" [input1] -> 1, regions 0, {
    }
    /// Elementwise `e^x`.
    Exp = "tosa.exp" [input1] -> 1, regions 0, {
    }
    /// Elementwise `ln(x)`.
    Log = "tosa.log" [input1] -> 1, regions 0, {
    }
    /// Elementwise `1 / x`.
    Reciprocal = "tosa.reciprocal" [input1] -> 1, regions 0, {
    }
    /// Elementwise `1 / sqrt(x)`.
    Rsqrt = "tosa.rsqrt" [input1] -> 1, regions 0, {
    }
    /// Elementwise `1 / (1 + e^-x)`.
    Sigmoid = "tosa.sigmoid" [input1] -> 1, regions 0, {
    }
    /// Elementwise `tanh(x)`.
    Tanh = "tosa.tanh" [input1] -> 1, regions 0, {
    }
    /// Elementwise `erf(x)`.
    Erf = "tosa.erf" [input1] -> 1, regions 0, {
    }
    /// Elementwise `sin(x)`.
    Sin = "tosa.sin" [input1] -> 1, regions 0, {
    }
    /// Elementwise `cos(x)`.
    Cos = "tosa.cos" [input1] -> 1, regions 0, {
    }
    /// Elementwise `!x`.
    LogicalNot = "tosa.logical_not" [input1] -> 1, regions 0, {
    }
    /// Elementwise `x`.
    Identity = "tosa.identity" [input1] -> 1, regions 0, {
    }
    /// Elementwise `output_zp - (x - input1_zp)`, saturating for integers.
    Negate = "tosa.negate" [input1, input1_zp, output_zp] -> 1, regions 0, {
    }
    /// Elementwise `min(max(x, min_val), max_val)`.
    Clamp = "tosa.clamp" [input] -> 1, regions 0, {
        /// Least value, of the element type.
        min_val: Attribute,
        /// Greatest value, of the element type.
        max_val: Attribute,
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// Elementwise `cond ? on_true : on_false`, with broadcast.
    Select = "tosa.select" [cond, on_true, on_false] -> 1, regions 0, {
    }
    /// Look-up: for `i8`, `table[x + 128]` with 256 entries of `i8`; for `i16`, linear interpolation in 513
    /// entries of `i16` to `i32`.
    Table = "tosa.table" [input, table] -> 1, regions 0, {
    }
    /// `out = saturate(apply_scale(x - input_zp, multiplier, shift) + output_zp)` with
    /// `apply_scale(v, m, s) = (v * m + 2^(s-1)) >> s` in 64 bits.
    Rescale = "tosa.rescale" [input, multiplier, shift, input_zp, output_zp] -> 1, regions 0, {
        /// 32-bit multipliers, else 16-bit.
        scale32: bool,
        /// How to round.
        rounding_mode: RoundingMode,
        /// One multiplier and shift for each index of the last axis.
        per_channel: bool,
        /// Whether the input is unsigned.
        input_unsigned: bool = false,
        /// Whether the output is unsigned.
        output_unsigned: bool = false,
    }
    /// Elementwise conversion; floats round to nearest even and saturate.
    Cast = "tosa.cast" [input] -> 1, regions 0, {
    }
    /// The sum along `axis`, whose extent becomes 1.
    ReduceSum = "tosa.reduce_sum" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
    }
    /// The maximum along `axis`, whose extent becomes 1.
    ReduceMax = "tosa.reduce_max" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// The minimum along `axis`, whose extent becomes 1.
    ReduceMin = "tosa.reduce_min" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
        /// What NaN inputs do.
        nan_mode: NanMode = NanMode::Propagate,
    }
    /// The product along `axis`, whose extent becomes 1.
    ReduceProduct = "tosa.reduce_product" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
    }
    /// The inputs one after another along `axis`.
    Concat = "tosa.concat" [; inputs ...] -> 1, regions 0, {
        /// The axis.
        axis: i32,
    }
    /// Adds `padding` (`[before, after]` an axis, `!tosa.shape<2*rank>`) of the value `pad_const` (one
    /// element).
    Pad = "tosa.pad" [input, padding, pad_const] -> 1, regions 0, {
    }
    /// The same elements, row-major, in another shape.
    Reshape = "tosa.reshape" [input, shape] -> 1, regions 0, {
    }
    /// Reverses `axis`.
    Reverse = "tosa.reverse" [input] -> 1, regions 0, {
        /// The axis.
        axis: i32,
    }
    /// The box of extents `size` that begins at `start`.
    Slice = "tosa.slice" [input, start, size] -> 1, regions 0, {
    }
    /// Repeats the input `multiples` times along each axis.
    Tile = "tosa.tile" [input, multiples] -> 1, regions 0, {
    }
    /// Permutes axes.
    Transpose = "tosa.transpose" [input] -> 1, regions 0, {
        /// Axis `i` of the output is axis `perms[i]` of the input.
        perms: Vec<i32>,
    }
    /// `out[n,w,c] = values[n, indices[n,w], c]`.
    Gather = "tosa.gather" [values, indices] -> 1, regions 0, {
    }
    /// Output pixel `(oy, ox)` samples input position `(oy*scale_y_d + offset_y) / scale_y_n`, likewise x,
    /// with `scale = [y_n, y_d, x_n, x_d]`; the output height is
    /// `((IH-1)*scale_y_n - offset_y + border_y) / scale_y_d + 1`. Bilinear `i8` gives `i32` scaled by
    /// `scale_y_n * scale_x_n`.
    Resize = "tosa.resize" [input, scale, offset, border] -> 1, regions 0, {
        /// Interpolation.
        mode: ResizeMode,
    }
    /// A constant tensor.
    Const = "tosa.const" [] -> 1, regions 0, syntax Generic, {
        /// The data.
        values: Elements,
    }
    /// A constant list of extents.
    ConstShape = "tosa.const_shape" [] -> 1, regions 0, syntax Generic, {
        /// The extents, `tensor<Nxindex>`.
        values: Elements,
    }
    /// One hardware stage: runs the TOSA ops of its region on the streamed inputs (its block arguments);
    /// constants stand inside. Erasing the wrapper leaves the same function.
    Stage = "strata.stage" [; inputs ...] -> 1, regions 1, syntax Stage, {
        /// The stage's name: the layer it came from.
        name: String,
        /// The machine operation it was selected for: a serde value of the stage template.
        code: Attribute = Attribute::Unit,
    }
    /// Stages that run together. The region captures values from above and yields those that are used after
    /// the phase.
    Phase = "strata.phase" [] -> any, regions 1, syntax Region, {
        /// What was decided of the phase: a serde value.
        plan: Attribute = Attribute::Unit,
    }
    /// Ends a region of `strata.stage` or `strata.phase` with its results.
    Yield = "strata.yield" [; values ...] -> 0, regions 0, syntax Terminator, {
    }
}
