//! `transposed`: a transposed convolution as a convolution and a move of channels to pixels.
//!
//! `transpose_conv(x, W, s) = depth_to_space(conv(x, W'), s)`: the output pixels of each phase modulo the
//! stride come of one dense convolution of the input, whose kernel has every `s`-th tap. `W'` is `W`
//! rearranged, zero (the weights' zero point) where a phase has one tap less than others.

use egg::Id;
use strata_ir::dialect::{Conv2d, Op};
use strata_ir::{ElemType, TensorType};

use crate::rewrite::constants::{Phases, Recipe};
use crate::rewrite::language::{self, Action, Graph, Move};
use crate::rewrite::make::Maker;
use crate::rewrite::rules::Rule;

/// The rule.
pub(super) static RULE: Rule =
    Rule { families: &["transposed"], name: "transposed", kinds: &["tosa.transpose_conv2d"], apply };

/// How an axis becomes one of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    weights: Phases,
    pad: [i64; 2],
    out: usize,
}

/// Output pixel `s * y + r` is the sum over `d` of input pixel `y + d` times tap `r - front - s * d`.
fn in_phases(kernel: usize, stride: i64, front: i64, input: usize, output: usize) -> Option<Axis> {
    let phases = usize::try_from(stride).ok().filter(|&phases| output.is_multiple_of(phases))?;
    // The least tap distance is that of phase 0 and the last tap, the greatest that of the last phase and tap
    // 0.
    let first = -(kernel as i64 - 1 + front).div_euclid(stride);
    let last = (stride - 1 - front).div_euclid(stride);
    let taps = last - first + 1;
    let out = output / phases;
    let pad = [-first, out as i64 + taps - 1 - input as i64 + first];
    if taps < 1 || pad.iter().any(|&pad| pad < 0) {
        return None;
    }
    let weights = Phases {
        kernel: usize::try_from(taps).ok()?,
        out_block: phases,
        in_block: 1,
        out_step: 1,
        tap_step: -stride,
        first: -front - stride * first,
    };
    Some(Axis { weights, pad, out })
}

fn apply(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let found: Vec<_> = language::ops(egraph, class, "tosa.transpose_conv2d")
        .map(|(term, spec)| (term.children.clone(), spec.clone()))
        .collect();
    let mut equal = Vec::new();
    for (operands, spec) in found {
        let Action::Op(Op::TransposeConv2d(op)) = &spec.action else { continue };
        if op.acc_type != ElemType::I32 || op.stride == [1, 1] {
            continue;
        }
        let new = (|| {
            let [n, in_h, in_w, _] = language::nhwc(egraph, operands[0])?;
            let [_, out_h, out_w, _] = language::nhwc(egraph, class)?;
            let [oc, kh, kw, _] = language::nhwc(egraph, operands[1])?;
            let y = in_phases(kh, op.stride[0], op.out_pad[0], in_h, out_h)?;
            let x = in_phases(kw, op.stride[1], op.out_pad[2], in_w, out_w)?;
            let zero = language::scalar(egraph, operands[4])?;
            let (weights, bias) = (egraph[operands[1]].data.constant?, egraph[operands[2]].data.constant?);
            let mut make = Maker { egraph, loc: spec.loc.clone() };
            let weights = make.recipe(Recipe::Blocks { of: weights, axes: [y.weights, x.weights], zero });
            let block = [y.weights.out_block, x.weights.out_block];
            let channels = oc * block[0] * block[1];
            let bias = make.recipe(Recipe::Repeat { of: bias, n: channels });
            let conv = Conv2d {
                pad: [y.pad[0], y.pad[1], x.pad[0], x.pad[1]],
                stride: [1, 1],
                dilation: [1, 1],
                acc_type: op.acc_type,
                local_bound: op.local_bound,
            };
            let ty = TensorType::new([n, y.out, x.out, channels], ElemType::I32);
            let conv = make.op(conv, vec![operands[0], weights, bias, operands[3], operands[4]], ty);
            make.moved(Move::DepthToSpace(block), conv)
        })();
        equal.extend(new.map(|new| (class, new)));
    }
    equal
}

#[cfg(test)]
mod tests {
    use crate::rewrite::rules::transposed::in_phases;

    #[test]
    fn phases_share_the_taps() {
        // 2x2 with stride 2: every output pixel has one tap.
        let axis = in_phases(2, 2, 0, 8, 16).expect("even");
        assert_eq!((axis.weights.kernel, axis.pad), (1, [0, 0]));
        // 9 taps with stride 2, 4 cropped in front and 3 behind: five taps or four.
        let axis = in_phases(9, 2, -4, 8, 16).expect("even");
        assert_eq!((axis.weights.kernel, axis.pad), (5, [2, 2]));
    }
}
