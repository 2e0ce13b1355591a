//! `tidy`: a pad before a convolution becomes the convolution's own.
//!
//! `conv(pad(x, p, zp), pad q) = conv(x, pad p + q)`: a convolution pads with its input's zero point itself.
//!
//! Chains of reshapes and of transposes are [`canonicalise`](crate::canonicalise)'s.

use egg::Id;
use strata_ir::dialect::{Conv2d, DepthwiseConv2d, Op};

use crate::rewrite::language::{self, Action, Graph};
use crate::rewrite::make::Maker;
use crate::rewrite::rules::Rule;

/// Pads before convolutions.
pub(super) static RULE: Rule = Rule {
    families: &["tidy"],
    name: "pad-into-convolution",
    kinds: &["tosa.conv2d", "tosa.depthwise_conv2d"],
    apply: absorb_pad,
};

/// A pad of rows and columns by one value: how much, `[top, bottom, left, right]`, the value, and what is
/// padded.
fn padded(egraph: &Graph, class: Id) -> Option<([i64; 4], i64, Id)> {
    language::ops(egraph, class, "tosa.pad").find_map(|(term, _)| {
        let by: [i64; 8] = language::ints(egraph, term.children[1])?.try_into().ok()?;
        let value = language::scalar(egraph, term.children[2])?;
        let [0, 0, top, bottom, left, right, 0, 0] = by else { return None };
        Some(([top, bottom, left, right], value, term.children[0]))
    })
}

fn absorb_pad(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let mut found = Vec::new();
    for term in &egraph[class].nodes {
        let Some(spec) = egraph.analysis.spec(term) else { continue };
        let Action::Op(op) = &spec.action else { continue };
        let Some((by, value, source)) = term.children.first().and_then(|&id| padded(egraph, id)) else {
            continue;
        };
        if language::scalar(egraph, term.children[3]) != Some(value) {
            continue;
        }
        let add = |pad: [i64; 4]| std::array::from_fn(|side| pad[side] + by[side]);
        let op: Op = match op {
            Op::Conv2d(conv) => Conv2d { pad: add(conv.pad), ..conv.clone() }.into(),
            Op::DepthwiseConv2d(conv) => DepthwiseConv2d { pad: add(conv.pad), ..conv.clone() }.into(),
            _ => continue,
        };
        let Some(ty) = spec.ty.as_tensor() else { continue };
        let mut operands = term.children.clone();
        operands[0] = source;
        found.push((op, spec.loc.clone(), operands, ty.clone()));
    }
    let mut make = |(op, loc, operands, ty): (Op, _, _, _)| {
        (class, Maker { egraph: &mut *egraph, loc }.op(op, operands, ty))
    };
    found.into_iter().map(&mut make).collect()
}
