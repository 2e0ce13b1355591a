//! The rows. See the [module above](super).
//!
//! Opcode ranges: `0x00__` structure of a program, `0x01__` stage heads, `0x02__` stage tails, `0x03__` DMA.

use super::*;

define_instructions! {
    /// Structure of a program: declarations, and the begin and end of phases and stages.
    Control {
        /// Ends the program.
        0x0001 "halt" Halt(Halt) {}
        /// Declares a DRAM segment.
        0x0002 "segment" DeclareSegment(DeclareSegment) {
            /// Its number, counted from 0.
            imm segment: u32,
            /// What it is for.
            imm kind: SegmentKind,
            /// Its size.
            imm bytes: u64,
        }
        /// Declares a stream: a ring of `slots` rows of `pitch_bytes` at `base` in activation SRAM, holding
        /// rows of a `[rows, cols, chs]` tensor; row `r` lies at `base + (r mod slots) * pitch_bytes`, unless
        /// the stream has a prefix.
        0x0003 "stream" DeclareStream(DeclareStream) {
            /// Its number, counted from 0.
            imm stream: u32,
            /// Element type.
            imm elem: Elem,
            /// Rows of the tensor.
            imm rows: u32,
            /// Columns of the tensor.
            imm cols: u32,
            /// Channels of the tensor.
            imm chs: u32,
            /// Address of slot 0 in activation SRAM.
            write base: u32,
            /// Distance of slots; at least a row.
            imm pitch_bytes: u32,
            /// Row slots; `slots == rows` makes a whole resident tensor.
            imm slots: u32,
        }
        /// Declares the prefix of the last stream: rows `r < rows` lie where row `r` of the stream `prefix`
        /// lies, others at `base + ((r - rows) mod slots) * pitch_bytes`.
        0x0004 "prefix" DeclarePrefix(DeclarePrefix) {
            /// The stream that holds them, of the same columns, channels and element type; no phase names
            /// both.
            imm prefix: u32,
            /// The rows of that stream, fewer than of this one.
            imm rows: u32,
        }
        /// Begins a phase. The stages up to `end_phase` run at once; the phase ends when each has written its
        /// last row.
        0x0010 "phase" BeginPhase(BeginPhase) {
            /// Its number, counted from 0.
            imm phase: u32,
        }
        /// Declares a partition of the phase: a set of MAC clusters that its stages share by turns.
        0x0011 "partition" DeclarePartition(DeclarePartition) {
            /// Its number in the phase, counted from 0.
            imm partition: u32,
            /// Clusters it owns; the partitions of a phase add up to at most the machine's.
            imm clusters: u32,
        }
        /// Begins a stage: the head and the tails up to the next `stage` or `end_phase` belong to it.
        0x0012 "stage" BeginStage(BeginStage) {
            /// The partition that it runs on.
            imm partition: u32,
            /// Weight loads, counted over the whole program, that must be complete before its first row.
            imm wait_loads: u32,
            /// How the MAC array is divided.
            imm mapping: Mapping,
            /// Where its rows go; a DMA-out stage has an empty view.
            write out: View,
            /// The source layer, an index into the debug names.
            imm source: u32,
        }
        /// Ends a phase.
        0x0013 "end_phase" EndPhase(EndPhase) {}
        /// Queues a DMA of `bytes` from the weight segment at `src` to weight SRAM at `dst`. Loads are
        /// numbered over the program and run in order, in the background, from the moment that their phase
        /// begins.
        0x0300 "load_weights" LoadWeights(LoadWeights) {
            /// Destination in weight SRAM.
            write dst: WeightAddr,
            /// Byte offset in the weight segment.
            read src: u64,
            /// Length.
            imm bytes: u32,
        }
    }
}

define_instructions! {
    /// Stage heads: each computes one row of the accumulator.
    Head<Tensor = u32, Addr = WeightAddr> {
        /// `acc = src`, extents of 1 broadcast to the output.
        0x0100 "load" Load(Load<Tensor>) {
            /// The tensor.
            tensor src: View<Tensor>,
        }
        /// TOSA CONV2D to `i32` (`i8` inputs). With `groups > 1`, output channel `o` of group `g` sums only
        /// input channels of group `g`. Weights `[OC][KH][KW][IC/groups]`, bias `[OC]`.
        0x0101 "conv2d" Conv2d(Conv2d<Tensor, Addr>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, dilation, padding.
            imm window: Window,
            /// Groups of channels.
            imm groups: u32,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the weights.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i32` biases.
            table bias: Addr,
            /// Whether the array runs F(2x2,3x3): changes time, never values.
            imm winograd: bool,
        }
        /// TOSA DEPTHWISE_CONV2D to `i32`. Weights `[KH][KW][C][M]`, bias `[C*M]`.
        0x0102 "depthwise_conv2d" DepthwiseConv2d(DepthwiseConv2d<Tensor, Addr>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, dilation, padding.
            imm window: Window,
            /// Output channels an input channel.
            imm multiplier: u32,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the weights.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i32` biases.
            table bias: Addr,
        }
        /// TOSA TRANSPOSE_CONV2D to `i32`. Weights `[OC][KH][KW][IC]`, bias `[OC]`.
        0x0103 "transpose_conv2d" TransposeConv2d(TransposeConv2d<Tensor, Addr>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel rows.
            imm kernel_h: u32,
            /// Kernel columns.
            imm kernel_w: u32,
            /// Row step in the output.
            imm stride_h: u32,
            /// Column step in the output.
            imm stride_w: u32,
            /// Output padding above; negative crops.
            imm out_pad_top: i32,
            /// Output padding on the left; negative crops.
            imm out_pad_left: i32,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the weights.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i32` biases.
            table bias: Addr,
        }
        /// TOSA MATMUL to `i32`: `acc[h, c] = sum(k) (a[h, k] - a_zp) * (b[k, c] - b_zp)`; `a` is
        /// `[H, 1, K]`, `b` is `[K, 1, C]`. With `batches > 1`, rows are split evenly over batches: `a` is
        /// `[B*H, 1, K]` and `b` is `[B*K, 1, C]`.
        0x0104 "matmul" MatMul(MatMul<Tensor>) {
            /// Left operand.
            tensor a: View<Tensor>,
            /// Right operand.
            tensor b: View<Tensor>,
            /// Batches stacked in rows.
            imm batches: u32,
            /// Zero point of `a`.
            imm a_zp: i32,
            /// Zero point of `b`.
            imm b_zp: i32,
        }
        /// TOSA CONV2D of an `i16` input with `i8` weights to `i48`; else as `conv2d`.
        0x0105 "conv2d_i16" Conv2dI16(Conv2d<Tensor, Addr>) shared {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, dilation, padding.
            imm window: Window,
            /// Groups of channels.
            imm groups: u32,
            /// Zero point of the input: 0.
            imm input_zp: i32,
            /// Zero point of the weights: 0.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i48` biases, 8 bytes each.
            table bias: Addr,
            /// Must be false: the array runs F(2x2,3x3) on `i8` only.
            imm winograd: bool,
        }
        /// TOSA DEPTHWISE_CONV2D of an `i16` input with `i8` weights to `i48`; else as `depthwise_conv2d`.
        0x0106 "depthwise_conv2d_i16" DepthwiseConv2dI16(DepthwiseConv2d<Tensor, Addr>) shared {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, dilation, padding.
            imm window: Window,
            /// Output channels an input channel.
            imm multiplier: u32,
            /// Zero point of the input: 0.
            imm input_zp: i32,
            /// Zero point of the weights: 0.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i48` biases, 8 bytes each.
            table bias: Addr,
        }
        /// TOSA TRANSPOSE_CONV2D of an `i16` input with `i8` weights to `i48`; else as `transpose_conv2d`.
        0x0107 "transpose_conv2d_i16" TransposeConv2dI16(TransposeConv2d<Tensor, Addr>) shared {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel rows.
            imm kernel_h: u32,
            /// Kernel columns.
            imm kernel_w: u32,
            /// Row step in the output.
            imm stride_h: u32,
            /// Column step in the output.
            imm stride_w: u32,
            /// Output padding above; negative crops.
            imm out_pad_top: i32,
            /// Output padding on the left; negative crops.
            imm out_pad_left: i32,
            /// Zero point of the input: 0.
            imm input_zp: i32,
            /// Zero point of the weights: 0.
            imm weight_zp: i32,
            /// `i8` weights.
            table weights: Addr,
            /// `i48` biases, 8 bytes each.
            table bias: Addr,
        }
        /// TOSA MATMUL of two `i16` operands to `i48`; else as `matmul`.
        0x0108 "matmul_i16" MatMulI16(MatMul<Tensor>) shared {
            /// Left operand.
            tensor a: View<Tensor>,
            /// Right operand.
            tensor b: View<Tensor>,
            /// Batches stacked in rows.
            imm batches: u32,
            /// Zero point of `a`: 0.
            imm a_zp: i32,
            /// Zero point of `b`: 0.
            imm b_zp: i32,
        }
        /// TOSA MAX_POOL2D.
        0x0110 "max_pool2d" MaxPool2d(MaxPool2d<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, padding; dilation is 1.
            imm window: Window,
        }
        /// TOSA AVG_POOL2D of `i8` or `i16`; zero points of `i16` are 0.
        0x0111 "avg_pool2d" AvgPool2d(AvgPool2d<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Kernel, stride, padding; dilation is 1.
            imm window: Window,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the output.
            imm output_zp: i32,
        }
        /// TOSA RESIZE; bilinear, it makes `i32` of `i8` and `i48` of `i16`. Nearest, it takes `i32` too.
        0x0120 "resize" Resize(Resize<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Interpolation.
            imm mode: ResizeMode,
            /// Row scale, numerator.
            imm scale_y_n: i32,
            /// Row scale, denominator.
            imm scale_y_d: i32,
            /// Column scale, numerator.
            imm scale_x_n: i32,
            /// Column scale, denominator.
            imm scale_x_d: i32,
            /// Row offset.
            imm offset_y: i32,
            /// Column offset.
            imm offset_x: i32,
        }
        /// TOSA PAD: the source stands at (`top`, `left`, `front`) of the output, the rest is `value`.
        0x0130 "pad" Pad(Pad<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Rows before.
            imm top: u32,
            /// Columns before.
            imm left: u32,
            /// Channels before.
            imm front: u32,
            /// The fill.
            imm value: i32,
        }
        /// Reads the source, row-major, as a tensor of six extents `dims`, permutes its axes (axis `i` of the
        /// result is axis `perm[i]` of `dims`), and reads the result, row-major, as the output shape:
        /// transpose, reshape, space-to-depth and depth-to-space.
        0x0131 "permute" Permute(Permute<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// Extents; leading ones are 1.
            imm dims: [u32; 6],
            /// Permutation.
            imm perm: [u8; 6],
        }
        /// TOSA REDUCE_*: along `axis`, whose extent becomes 1. Sums and products accumulate in `i32`.
        0x0140 "reduce" Reduce(Reduce<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
            /// The axis.
            imm axis: Axis,
            /// What is computed.
            imm kind: ReduceKind,
        }
        /// TOSA ARGMAX over channels: `acc[h, w, 0]`, `i32`, the first of equals.
        0x0141 "argmax" Argmax(Argmax<Tensor>) {
            /// Input.
            tensor src: View<Tensor>,
        }
        /// Moves rows from a DRAM segment into the stage's output view: row `r`, column `x` begins at
        /// `offset + r * row_pitch_bytes + x * pixel_pitch_bytes`.
        0x0301 "dma_in" DmaIn(DmaIn) {
            /// The segment.
            read segment: u32,
            /// Byte offset of the first row.
            imm offset: u64,
            /// Distance of rows.
            imm row_pitch_bytes: u64,
            /// Distance of pixels; equal to a pixel when rows are contiguous.
            imm pixel_pitch_bytes: u32,
        }
        /// Moves rows of the source view to a DRAM segment, addressed as in `dma_in`.
        0x0302 "dma_out" DmaOut(DmaOut<Tensor>) {
            /// The rows.
            tensor src: View<Tensor>,
            /// The segment.
            write segment: u32,
            /// Byte offset of the first row.
            imm offset: u64,
            /// Distance of rows.
            imm row_pitch_bytes: u64,
            /// Distance of pixels.
            imm pixel_pitch_bytes: u32,
        }
    }
}

define_instructions! {
    /// Stage tails: each transforms the accumulator row elementwise.
    Tail<Tensor = u32, Addr = WeightAddr> {
        /// TOSA RESCALE with 32-bit multipliers:
        /// `acc = saturate(((acc - input_zp) * multiplier + 2^(shift-1)) >> shift + output_zp)`.
        0x0200 "rescale" Rescale(Rescale<Addr>) {
            /// `i32` multipliers: one, or one an output channel.
            table multipliers: Addr,
            /// `i8` shifts: as many.
            table shifts: Addr,
            /// Whether there is one an output channel.
            imm per_channel: bool,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the output.
            imm output_zp: i32,
            /// Type of the result.
            imm to: Elem,
            /// Whether to round twice, as TOSA's DOUBLE_ROUND.
            imm double_round: bool,
        }
        /// TOSA CLAMP: `acc = min(max(acc, min), max)`.
        0x0201 "clamp" Clamp(Clamp) {
            /// Least value.
            imm min: i32,
            /// Greatest value.
            imm max: i32,
        }
        /// TOSA TABLE on `i8`: `acc = table[acc + 128]`.
        0x0202 "table" Table(Table<Addr>) {
            /// 256 entries of `i8`.
            table table: Addr,
        }
        /// TOSA RESCALE with 16-bit multipliers (`scale32` false), of an accumulator of any type and the only
        /// tail of `i48`:
        /// `acc = saturate(((acc - input_zp) * multiplier + 2^(shift-1)) >> shift + output_zp)`.
        0x0203 "rescale16" Rescale16(Rescale16<Addr>) {
            /// `i16` multipliers: one, or one an output channel.
            table multipliers: Addr,
            /// `i8` shifts: as many.
            table shifts: Addr,
            /// Whether there is one an output channel.
            imm per_channel: bool,
            /// Zero point of the input.
            imm input_zp: i32,
            /// Zero point of the output.
            imm output_zp: i32,
            /// Type of the result.
            imm to: Elem,
        }
        /// TOSA TABLE on `i16`, to `i32`: with `at = (acc + 32768) >> 7` and `fraction = acc & 127`,
        /// `acc = (table[at] << 7) + (table[at + 1] - table[at]) * fraction`.
        0x0204 "table_i16" TableI16(TableI16<Addr>) {
            /// 513 entries of `i16`.
            table table: Addr,
        }
        /// TOSA SELECT of two RESCALEs with 32-bit multipliers, by GREATER_EQUAL to 0, as PReLU is computed:
        /// of `acc >= 0` with `multipliers` and `shifts`, of the rest with those below:
        /// `acc = saturate((acc * multiplier + 2^(shift-1)) >> shift + output_zp)`.
        0x0205 "rescale_by_sign" RescaleBySign(RescaleBySign<Addr>) {
            /// `i32` multipliers from 0 on: one, or one an output channel.
            table multipliers: Addr,
            /// `i8` shifts: as many.
            table shifts: Addr,
            /// `i32` multipliers below 0: as many.
            table multipliers_below: Addr,
            /// `i8` shifts: as many.
            table shifts_below: Addr,
            /// Whether there is one an output channel.
            imm per_channel: bool,
            /// Zero point of the output.
            imm output_zp: i32,
            /// Type of the result.
            imm to: Elem,
            /// Whether to round twice, as TOSA's DOUBLE_ROUND.
            imm double_round: bool,
        }
        /// `acc = kind(acc, rescale(operand))` with a streamed operand, whose extents of 1 broadcast.
        0x0210 "binary" Binary(Binary<Tensor>) {
            /// What is computed.
            imm kind: BinaryKind,
            /// The operand.
            tensor src: View<Tensor>,
            /// Its rescale to `i32`, if any.
            imm rescale: Option<OperandRescale>,
            /// Right shift of a product.
            imm shift: u8,
        }
        /// `acc = kind(acc, operand)` with a constant operand.
        0x0211 "binary_const" BinaryConst(BinaryConst<Addr>) {
            /// What is computed.
            imm kind: BinaryKind,
            /// The operand: one element, or one an output channel.
            table table: Addr,
            /// Whether there is one an output channel.
            imm per_channel: bool,
            /// Type of the operand.
            imm elem: Elem,
            /// Right shift of a product.
            imm shift: u8,
        }
    }
}
