//! `upsample`: what maps pixel to pixel runs before pixels are repeated.
//!
//! `f(upsample(x)) = upsample(f(x))` for a 1x1 convolution, a rescale, a clamp, a table, and elementwise ops
//! with a constant or with another upsample by as much; the zero point of a convolution is the same on both
//! sides, and padding there is none. Of a nearest resize only those are such that repeat every pixel as often
//! as every other.

use egg::Id;
use strata_ir::TensorType;
use strata_ir::attr::ResizeMode;
use strata_ir::dialect::Op;

use crate::rewrite::language::{self, Action, Graph, Move};
use crate::rewrite::make::{Conv, Maker};
use crate::rewrite::rules::{Pointwise, Rule};

/// Ops of one operand.
pub(super) static RULE: Rule = Rule {
    families: &["upsample"],
    name: "upsample",
    kinds: &[
        "tosa.conv2d",
        "tosa.rescale",
        "tosa.clamp",
        "tosa.table",
        "tosa.cast",
        "tosa.negate",
        "tosa.add",
        "tosa.sub",
        "tosa.mul",
        "tosa.maximum",
        "tosa.minimum",
        "tosa.greater_equal",
    ],
    apply: apply_one,
};

/// Ops of several operands, all of which are upsampled.
pub(super) static JOINED: Rule = Rule {
    families: &["upsample"],
    name: "upsample-joined",
    kinds: &[
        "tosa.add",
        "tosa.sub",
        "tosa.mul",
        "tosa.maximum",
        "tosa.minimum",
        "tosa.select",
        "tosa.concat",
    ],
    apply: apply_joined,
};

/// How often a class repeats the pixels of another, and that other.
pub(super) fn upsampled(egraph: &Graph, class: Id) -> Option<([usize; 2], Id)> {
    let by_move = language::moved(egraph, class, |it| match it {
        Move::Upsample(factors) => Some(factors),
        _ => None,
    });
    by_move.or_else(|| {
        language::ops(egraph, class, "tosa.resize").find_map(|(term, spec)| {
            let Action::Op(Op::Resize(resize)) = &spec.action else { return None };
            if resize.mode != ResizeMode::NearestNeighbor {
                return None;
            }
            let [_, in_h, in_w, _] = language::nhwc(egraph, term.children[0])?;
            let [_, out_h, out_w, _] = language::nhwc(egraph, class)?;
            let (scale, offset) =
                (language::ints(egraph, term.children[1])?, language::ints(egraph, term.children[2])?);
            let y = repeats(in_h, out_h, [*scale.first()?, *scale.get(1)?], *offset.first()?)?;
            let x = repeats(in_w, out_w, [*scale.get(2)?, *scale.get(3)?], *offset.get(1)?)?;
            Some(([y, x], term.children[0]))
        })
    })
}

/// How often a nearest resize repeats every position of an axis, if each as often.
fn repeats(from: usize, to: usize, [unit, step]: [i64; 2], offset: i64) -> Option<usize> {
    if from == 0 || !to.is_multiple_of(from) || unit <= 0 {
        return None;
    }
    let factor = to / from;
    let nearest = |position: usize| {
        let at = position as i64 * step + offset;
        let up = i64::from(2 * at.rem_euclid(unit) >= unit);
        (at.div_euclid(unit) + up).clamp(0, from as i64 - 1)
    };
    (0..to).all(|position| nearest(position) == (position / factor) as i64).then_some(factor)
}

/// The class, upsampled.
fn after(egraph: &mut Graph, factors: [usize; 2], moved: Id, class: Id) -> Option<(Id, Id)> {
    // The upsample is called like the op that it now follows, which says where in the network it is.
    let loc = language::ops(egraph, moved, egraph[moved].nodes.first()?.kind)
        .next()
        .map(|(_, spec)| spec.loc.clone());
    let up = Maker { egraph, loc: loc.unwrap_or_default() }.moved(Move::Upsample(factors), moved)?;
    Some((class, up))
}

fn apply_one(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut equal = Vec::new();
    for conv in Conv::all(egraph, class) {
        let Some((factors, source)) = upsampled(egraph, conv.operands[0]) else { continue };
        let Some([n, h, w, _]) = language::nhwc(egraph, source).filter(|_| conv.is_pointwise()) else {
            continue;
        };
        let ty = TensorType::new([n, h, w, conv.kernel[0]], conv.ty.elem);
        let mut operands = conv.operands.to_vec();
        operands[0] = source;
        let before = Maker { egraph, loc: conv.loc.clone() }.op(conv.op.clone(), operands, ty);
        equal.extend(after(egraph, factors, before, class));
    }
    for op in Pointwise::all(egraph, class) {
        let Some((factors, source)) = upsampled(egraph, op.operands[op.at]) else { continue };
        let before = op.on(egraph, source, 1);
        equal.extend(before.and_then(|before| after(egraph, factors, before, class)));
    }
    equal
}

fn apply_joined(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut found = Vec::new();
    for term in &egraph[class].nodes {
        let Some(spec) = egraph.analysis.spec(term) else { continue };
        let Action::Op(op) = &spec.action else { continue };
        let n_streamed = match op {
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_) => 2,
            Op::Select(_) => 3,
            Op::Concat(concat) if concat.axis == 3 => term.children.len(),
            _ => continue,
        };
        let streamed: Option<Vec<_>> =
            term.children[..n_streamed].iter().map(|&id| upsampled(egraph, id)).collect();
        let Some(streamed) = streamed else { continue };
        let (factors, first) = streamed[0];
        if streamed.iter().any(|(other, _)| *other != factors) {
            continue;
        }
        let Some([n, h, w, _]) = language::nhwc(egraph, first) else { continue };
        let Some([.., c]) = language::nhwc(egraph, class) else { continue };
        // A broadcast along rows or columns is of a single pixel, which is no upsample by as much.
        let same =
            streamed.iter().all(|&(_, id)| language::nhwc(egraph, id).map(|s| [s[1], s[2]]) == Some([h, w]));
        if !same {
            continue;
        }
        let operands: Vec<Id> =
            streamed.iter().map(|it| it.1).chain(term.children[n_streamed..].iter().copied()).collect();
        let Some(ty) = spec.ty.as_tensor() else { continue };
        found.push((factors, op.clone(), spec.loc.clone(), operands, TensorType::new([n, h, w, c], ty.elem)));
    }
    let make = |(factors, op, loc, operands, ty): (_, Op, _, _, _)| {
        let before = Maker { egraph: &mut *egraph, loc }.op(op, operands, ty);
        after(egraph, factors, before, class)
    };
    found.into_iter().filter_map(make).collect()
}

#[cfg(test)]
mod tests {
    use crate::rewrite::rules::upsample::repeats;

    #[test]
    fn only_whole_repeats_count() {
        // As ONNX's asymmetric coordinates come in, for factors 2 and 3.
        assert_eq!(repeats(8, 16, [2, 1], -1), Some(2));
        assert_eq!(repeats(5, 15, [6, 2], -2), Some(3));
        // Half a pixel off, and an extent that is no multiple.
        assert_eq!(repeats(8, 16, [2, 1], 0), None);
        assert_eq!(repeats(8, 12, [3, 2], 0), None);
    }
}
