//! `thin-input`: a convolution on blocks of pixels that stand in channels.
//!
//! `conv(x, W) = depth_to_space(conv(space_to_depth(x), W'))`, where a block of `b` output pixels reads
//! blocks of `B = b * stride` input pixels, and `W'` is `W` rearranged, zero (the weights' zero point) where
//! a block holds more than the window. The new stride is 1. Padding is the input's zero point on both sides:
//! what does not fill a block is padded with it.
//!
//! It adds products that count for nothing, so it is offered only where the array may gain by it: where the
//! input has so few channels that the reduction is short, and where the new window is 3x3 and the old was
//! not, for Winograd.

use egg::Id;
use strata_ir::dialect::{Conv2d, Pad};
use strata_ir::{ElemType, TensorType};
use strata_isa_spec::timing::WINOGRAD_LEAST_CHANNELS;

use crate::rewrite::constants::{Phases, Recipe};
use crate::rewrite::language::{self, Graph, Move};
use crate::rewrite::make::{Conv, Maker};
use crate::rewrite::rules::{Pointwise, Rule};

/// Input channels up to which an input is thin.
const THIN: usize = 3;

/// Convolutions to convolutions of blocks.
pub(super) static RULE: Rule =
    Rule { families: &["thin-input"], name: "thin-input", kinds: &["tosa.conv2d"], apply };

/// `f(depth_to_space(x)) = depth_to_space(f'(x))`, `f` elementwise, its constants that are one a channel
/// repeated.
pub(super) static SINK: Rule = Rule {
    families: &["thin-input", "transposed"],
    name: "depth-to-space-last",
    kinds: &[
        "tosa.rescale",
        "tosa.clamp",
        "tosa.table",
        "tosa.cast",
        "tosa.add",
        "tosa.sub",
        "tosa.mul",
        "tosa.maximum",
        "tosa.minimum",
    ],
    apply: sink,
};

/// How an axis of a convolution becomes one of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    weights: Phases,
    /// Padding before and after, in blocks.
    pad: [i64; 2],
    /// Input pixels that fill the last block.
    fill: usize,
    /// Blocks of the output.
    out: usize,
}

/// An axis of a convolution.
#[derive(Clone, Copy, Debug)]
struct WindowAxis {
    kernel: usize,
    stride: i64,
    pad: i64,
    input: usize,
    output: usize,
}

/// The axis in blocks of `block` output pixels; `None` if they do not divide the output, or leave input
/// unused.
fn in_blocks(window: WindowAxis, block: usize) -> Option<Axis> {
    let WindowAxis { kernel, stride, pad, input, output } = window;
    if output % block != 0 {
        return None;
    }
    let in_block = block as i64 * stride;
    // Output pixel `block * y + r` reads input pixels `in_block * y + e`, with e in these bounds.
    let (least, most) = (-pad, stride * (block as i64 - 1) - pad + kernel as i64 - 1);
    let (first, last) = (least.div_euclid(in_block), most.div_euclid(in_block));
    let taps = last - first + 1;
    let blocks = (input as i64 + in_block - 1).div_euclid(in_block);
    let out = output / block;
    let after = out as i64 + taps - 1 - blocks + first;
    (first <= 0 && after >= 0).then_some(())?;
    Some(Axis {
        weights: Phases {
            kernel: usize::try_from(taps).ok()?,
            out_block: block,
            in_block: usize::try_from(in_block).ok()?,
            out_step: -stride,
            tap_step: in_block,
            first: in_block * first + pad,
        },
        pad: [-first, after],
        fill: usize::try_from(blocks * in_block).ok()? - input,
        out,
    })
}

fn apply(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut equal = Vec::new();
    for conv in Conv::all(egraph, class) {
        let [_, kh, kw, ic] = conv.kernel;
        let stride = conv.op.stride;
        if !conv.is_narrow() || conv.op.dilation != [1, 1] || [kh, kw] == [1, 1] {
            continue;
        }
        for block in [[1, 1], [2, 2]] {
            let Some(axes) = axes(egraph, &conv, block) else { continue };
            let [y, x] = axes.map(|axis| axis.weights);
            let channels = ic * y.in_block * x.in_block;
            let may_winograd = [y.kernel, x.kernel] == [3, 3] && channels >= WINOGRAD_LEAST_CHANNELS as usize;
            let gains = may_winograd && !([kh, kw] == [3, 3] && stride == [1, 1]);
            let is_thin = ic <= THIN && block == [1, 1] && stride != [1, 1];
            if gains || is_thin {
                equal.extend(convolve(egraph, &conv, axes).map(|new| (class, new)));
            }
        }
    }
    equal
}

fn axes(egraph: &Graph, conv: &Conv, block: [usize; 2]) -> Option<[Axis; 2]> {
    let input = language::nhwc(egraph, conv.operands[0])?;
    let output: [usize; 4] = conv.ty.shape.as_slice().try_into().ok()?;
    let axis = |at: usize| {
        let (kernel, stride, pad) = (conv.kernel[1 + at], conv.op.stride[at], conv.op.pad[2 * at]);
        in_blocks(WindowAxis { kernel, stride, pad, input: input[1 + at], output: output[1 + at] }, block[at])
    };
    let axes = [axis(0)?, axis(1)?];
    // With blocks of one pixel nothing has changed.
    axes.iter().any(|axis| axis.weights.in_block > 1).then_some(axes)
}

fn convolve(egraph: &mut Graph, conv: &Conv, axes: [Axis; 2]) -> Option<Id> {
    let [n, h, w, c] = language::nhwc(egraph, conv.operands[0])?;
    let (elem, zp) = (language::elem(egraph, conv.operands[0])?, language::scalar(egraph, conv.operands[3])?);
    let zero = language::scalar(egraph, conv.operands[4])?;
    let [y, x] = axes;
    let mut make = Maker { egraph, loc: conv.loc.clone() };
    let mut input = conv.operands[0];
    if y.fill + x.fill > 0 {
        let padding = make.shape(&[0, 0, 0, y.fill, 0, x.fill, 0, 0])?;
        let value = make.ints(&[1], elem, vec![zp])?;
        let ty = TensorType::new([n, h + y.fill, w + x.fill, c], elem);
        input = make.op(Pad {}, vec![input, padding, value], ty);
    }
    let input = make.moved(Move::SpaceToDepth([y.weights.in_block, x.weights.in_block]), input)?;
    let weights = make.recipe(Recipe::Blocks { of: conv.weights, axes: [y.weights, x.weights], zero });
    let block = [y.weights.out_block, x.weights.out_block];
    let channels = conv.kernel[0] * block[0] * block[1];
    let bias = conv.bias_vector(&mut make);
    let bias = match make.egraph[bias].data.constant {
        Some(of) if channels > conv.kernel[0] => make.recipe(Recipe::Repeat { of, n: channels }),
        _ => bias,
    };
    let op = Conv2d { pad: [y.pad[0], y.pad[1], x.pad[0], x.pad[1]], stride: [1, 1], ..conv.op.clone() };
    let ty = TensorType::new([n, y.out, x.out, channels], ElemType::I32);
    let blocks = make.op(op, vec![input, weights, bias, conv.operands[3], conv.operands[4]], ty);
    if block == [1, 1] { Some(blocks) } else { make.moved(Move::DepthToSpace(block), blocks) }
}

/// The blocks that a class's channels are spread to, and what it spreads.
pub(super) fn spread(egraph: &Graph, class: Id) -> Option<([usize; 2], Id)> {
    language::moved(egraph, class, |it| match it {
        Move::DepthToSpace(block) => Some(block),
        _ => None,
    })
}

fn sink(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut equal = Vec::new();
    for op in Pointwise::all(egraph, class) {
        let Some((block, source)) = spread(egraph, op.operands[op.at]) else { continue };
        let Some(inner) = op.on(egraph, source, block[0] * block[1]) else { continue };
        let outer = Maker { egraph, loc: op.loc }.moved(Move::DepthToSpace(block), inner);
        equal.extend(outer.map(|outer| (class, outer)));
    }
    equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: i64, pad: i64, output: usize) -> WindowAxis {
        let input = (output - 1) * stride as usize + kernel - 2 * pad as usize;
        WindowAxis { kernel, stride, pad, input, output }
    }

    #[test]
    fn windows_of_five_become_three() {
        // Taps -2..=2 of stride 2 lie in blocks -1..=1 of two, as do taps -2..=3 of two pixels of stride 1.
        for (stride, block) in [(2, 1), (1, 2)] {
            let axis = in_blocks(window(5, stride, 2, 8), block).expect("8 is even");
            assert_eq!((axis.weights.kernel, axis.weights.in_block, axis.pad[0]), (3, 2, 1));
        }
        assert_eq!(in_blocks(window(7, 2, 3, 8), 1).map(|axis| axis.weights.kernel), Some(4));
        assert_eq!(in_blocks(window(5, 1, 2, 7), 2), None, "seven do not divide into twos");
    }
}
