//! `concat-sum`: a convolution over channels of several tensors as a sum of convolutions over each.
//!
//! `conv(concat(a, b), [Wa | Wb]) + bias = conv(a, Wa) + (conv(b, Wb) + bias)` in `i32`, before any rescale.
//! The zero points are those of the concatenation, for each part. The part without bias is an operand of the
//! sum that is streamed, so it is the one that comes from an upsample, if one does:
//! [`upsample`](crate::rewrite::rules::upsample) then moves that before its pixels are repeated.

use egg::Id;
use strata_ir::dialect::{Add, Concat, Op};
use strata_ir::{ElemType, TensorType};

use crate::rewrite::constants::Recipe;
use crate::rewrite::language::{self, Action, Graph};
use crate::rewrite::make::{Conv, Maker};
use crate::rewrite::rules::Rule;
use crate::rewrite::rules::upsample::upsampled;

/// The rule.
pub(super) static RULE: Rule =
    Rule { families: &["concat-sum"], name: "concat-sum", kinds: &["tosa.conv2d"], apply };

fn apply(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut equal = Vec::new();
    for conv in Conv::all(egraph, class) {
        if !conv.is_narrow() || !conv.has_headroom(egraph) {
            continue;
        }
        let parts = language::ops(egraph, conv.operands[0], "tosa.concat").find_map(|(term, spec)| {
            let is_channels = matches!(&spec.action, Action::Op(Op::Concat(concat)) if concat.axis == 3);
            (is_channels && term.children.len() > 1).then(|| term.children.clone())
        });
        let Some(parts) = parts else { continue };
        let mut apart: Vec<usize> =
            (0..parts.len()).filter(|&part| upsampled(egraph, parts[part]).is_some()).collect();
        if apart.is_empty() {
            apart.push(0);
        }
        for part in apart {
            equal.extend(split(egraph, &conv, &parts, part).map(|sum| (class, sum)));
        }
    }
    equal
}

/// The convolution with one part of its input on its own.
fn split(egraph: &mut Graph, conv: &Conv, parts: &[Id], apart: usize) -> Option<Id> {
    let widths: Option<Vec<usize>> = parts.iter().map(|&id| Some(language::nhwc(egraph, id)?[3])).collect();
    let widths = widths?;
    let starts: Vec<usize> = widths.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
    let mut make = Maker { egraph, loc: conv.loc.clone() };
    let weights = |make: &mut Maker<'_>, part: usize| {
        let slice = Recipe::Slice { of: conv.weights, axis: 3, at: starts[part], n: widths[part] };
        make.egraph.analysis.constants.recipe(slice)
    };
    let lone = weights(&mut make, apart);
    let rest: Vec<usize> = (0..parts.len()).filter(|&part| part != apart).collect();
    let mut others: Vec<_> = rest.iter().map(|&part| weights(&mut make, part)).collect();
    let others = if others.len() == 1 {
        others.remove(0)
    } else {
        make.egraph.analysis.constants.recipe(Recipe::Join { parts: others, axis: 3 })
    };
    let (lone, others) = (make.constant(lone), make.constant(others));
    let input = match rest.as_slice() {
        [only] => parts[*only],
        _ => {
            let [n, h, w, _] = language::nhwc(make.egraph, parts[0])?;
            let c = rest.iter().map(|&part| widths[part]).sum();
            let ty = TensorType::new([n, h, w, c], language::elem(make.egraph, parts[0])?);
            make.op(Concat { axis: 3 }, rest.iter().map(|&part| parts[part]).collect(), ty)
        }
    };
    let no_bias = make.fill(conv.kernel[0], ElemType::I32, 0)?;
    let [_, _, bias, input_zp, weight_zp] = conv.operands;
    let first =
        make.op(conv.op.clone(), vec![parts[apart], lone, no_bias, input_zp, weight_zp], conv.ty.clone());
    let second = make.op(conv.op.clone(), vec![input, others, bias, input_zp, weight_zp], conv.ty.clone());
    // The sum goes on from the convolution that is made last.
    Some(make.op(Add {}, vec![first, second], conv.ty.clone()))
}
