//! `tidy`: what moves data to no purpose.
//!
//! - `conv(pad(x, p, zp), pad q) = conv(x, pad p + q)`: a convolution pads with its input's zero point
//!   itself;
//! - `slice(concat(a, b)) = slice(a)` if it lies within `a`, and `a` if it is all of it;
//! - `concat(slice(x, 0..k), slice(x, k..n)) = x`;
//! - `space_to_depth(depth_to_space(x)) = x` and the reverse, of the same blocks.
//!
//! Chains of reshapes and of transposes are [`canonicalise`](crate::canonicalise)'s.

use egg::Id;
use strata_ir::TensorType;
use strata_ir::dialect::{Conv2d, DepthwiseConv2d, Op, Slice};

use crate::rewrite::language::{self, Action, Graph, Move};
use crate::rewrite::make::Maker;
use crate::rewrite::rules::Rule;

/// Pads before convolutions.
pub(super) static PAD: Rule = Rule {
    families: &["tidy"],
    name: "pad-into-convolution",
    kinds: &["tosa.conv2d", "tosa.depthwise_conv2d"],
    apply: absorb_pad,
};

/// Slices of concatenations.
pub(super) static SLICE_OF_CONCAT: Rule =
    Rule { families: &["tidy"], name: "slice-of-concat", kinds: &["tosa.slice"], apply: slice_of_concat };

/// Concatenations of slices.
pub(super) static CONCAT_OF_SLICES: Rule =
    Rule { families: &["tidy"], name: "concat-of-slices", kinds: &["tosa.concat"], apply: concat_of_slices };

/// Blocks there and back.
pub(super) static BLOCKS: Rule = Rule {
    families: &["tidy"],
    name: "blocks-there-and-back",
    kinds: &["space-to-depth", "depth-to-space"],
    apply: blocks,
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

/// The first elements and the extents of a slice, and what is cut.
fn cut(egraph: &Graph, class: Id) -> Option<(Vec<usize>, Vec<usize>, Id)> {
    language::ops(egraph, class, "tosa.slice").find_map(|(term, _)| {
        let start = language::ints(egraph, term.children[1])?;
        let start = start.into_iter().map(|at| usize::try_from(at).ok()).collect::<Option<_>>()?;
        Some((start, language::tensor(egraph, class)?.shape.clone(), term.children[0]))
    })
}

/// The operands of a concatenation and its axis.
fn joined(egraph: &Graph, class: Id) -> Option<(Vec<Id>, usize)> {
    language::ops(egraph, class, "tosa.concat").find_map(|(term, spec)| match &spec.action {
        Action::Op(Op::Concat(concat)) => Some((term.children.clone(), usize::try_from(concat.axis).ok()?)),
        _ => None,
    })
}

fn slice_of_concat(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let new = (|| {
        let (mut start, size, source) = cut(egraph, class)?;
        let (parts, axis) = joined(egraph, source)?;
        for part in parts {
            let shape = language::tensor(egraph, part)?.shape.clone();
            if start[axis] >= shape[axis] {
                start[axis] -= shape[axis];
                continue;
            }
            if start[axis] + size[axis] > shape[axis] {
                return None;
            }
            if shape == size {
                return Some(part);
            }
            let elem = language::elem(egraph, part)?;
            let loc = language::ops(egraph, class, "tosa.slice").next()?.1.loc.clone();
            let mut make = Maker { egraph, loc };
            let (start, extents) = (make.shape(&start)?, make.shape(&size)?);
            return Some(make.op(Slice {}, vec![part, start, extents], TensorType::new(size, elem)));
        }
        None
    })();
    new.map(|new| (class, new)).into_iter().collect()
}

fn concat_of_slices(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let whole = (|| {
        let (parts, axis) = joined(egraph, class)?;
        let mut next = 0;
        let mut whole = None;
        for part in parts {
            let (start, size, source) = cut(egraph, part)?;
            let elsewhere = start.iter().enumerate().any(|(at, &start)| at != axis && start != 0);
            if elsewhere || start[axis] != next || *whole.get_or_insert(source) != source {
                return None;
            }
            next += size[axis];
        }
        whole.filter(|&whole| egraph[whole].data.ty == egraph[class].data.ty)
    })();
    whole.map(|whole| (class, whole)).into_iter().collect()
}

fn blocks(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let outer = |it| match it {
        Move::SpaceToDepth(block) => Some((true, block)),
        Move::DepthToSpace(block) => Some((false, block)),
        Move::Upsample(_) => None,
    };
    let source = language::moved(egraph, class, outer).and_then(|((gathers, block), between)| {
        let back = if gathers { Move::DepthToSpace(block) } else { Move::SpaceToDepth(block) };
        language::moved(egraph, between, |it| (it == back).then_some(())).map(|((), source)| source)
    });
    source.map(|source| (class, source)).into_iter().collect()
}
