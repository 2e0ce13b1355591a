//! `Einsum`: transposes and batched matrix products, two operands at a time.
//!
//! An index that is repeated within one operand (a diagonal) is not supported.

use std::collections::BTreeMap;

use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// An index: a letter, or an axis that an ellipsis stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Index {
    Broadcast(usize),
    Letter(char),
}

/// An operand with the index of each of its axes.
struct Term {
    view: View,
    indices: Vec<Index>,
}

/// The indices that `text` names for a tensor of `rank`; an ellipsis takes those that are left.
fn indices_of(text: &str, rank: usize) -> Lowered<Vec<Index>> {
    let n_letters = text.chars().filter(char::is_ascii_alphabetic).count();
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            let Some(n) = rank.checked_sub(n_letters) else { invalid!("`{text}` names too many axes") };
            // Broadcast axes align at the last of them.
            out.extend((0..n).rev().map(Index::Broadcast));
            rest = after;
        } else if first.is_ascii_alphabetic() {
            out.push(Index::Letter(first));
            rest = &rest[1..];
        } else {
            invalid!("`{text}` holds `{first}`");
        }
    }
    if out.len() != rank {
        invalid!("`{text}` names {} axes of {rank}", out.len());
    }
    let mut sorted = out.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        unsupported!("the diagonal `{text}`");
    }
    Ok(out)
}

/// `Einsum`.
pub(super) fn einsum(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let equation: String = node.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let operands = node.all_inputs()?;
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (&equation[..], None),
    };
    let texts: Vec<_> = left.split(',').collect();
    if texts.len() != operands.len() || operands.is_empty() {
        invalid!("`{equation}` of {} operands", operands.len());
    }
    let mut terms = Vec::new();
    let mut extents: BTreeMap<Index, usize> = BTreeMap::new();
    for (text, operand) in texts.iter().zip(&operands) {
        if operand.dtype() != DataType::Float {
            unsupported!("on {:?}", operand.dtype());
        }
        let view = lo.view(operand)?;
        let indices = indices_of(text, view.shape.len())?;
        for (&index, &extent) in indices.iter().zip(&view.shape) {
            match extents.insert(index, extent) {
                Some(other) if other != extent => unsupported!("extents {other} and {extent} of one index"),
                _ => {}
            }
        }
        terms.push(Term { view, indices });
    }
    let output = match right {
        Some(text) => {
            let n_broadcast = extents.keys().filter(|i| matches!(i, Index::Broadcast(_))).count();
            let n_letters = text.chars().filter(char::is_ascii_alphabetic).count();
            let rank = n_letters + if text.contains("...") { n_broadcast } else { 0 };
            indices_of(text, rank)?
        }
        None => {
            // Without an output: broadcast axes, then the letters that occur once, sorted.
            let once = |i: &&Index| {
                let occurs = terms.iter().flat_map(|t| &t.indices).filter(|j| j == i).count();
                matches!(i, Index::Letter(_)) && occurs == 1
            };
            let broadcast = extents.keys().rev().filter(|i| matches!(i, Index::Broadcast(_)));
            broadcast.chain(extents.keys().filter(once)).copied().collect()
        }
    };
    if let Some(unknown) = output.iter().find(|i| !extents.contains_key(i)) {
        invalid!("the output's {unknown:?} is no operand's");
    }
    terms.reverse();
    let Some(mut sofar) = terms.pop() else { invalid!("there are no operands") };
    while let Some(next) = terms.pop() {
        let later: Vec<Index> = terms.iter().flat_map(|t| &t.indices).chain(&output).copied().collect();
        sofar = product(lo, sofar, next, &later)?;
    }
    let sofar = summed(lo, sofar, &output);
    let perm: Vec<_> =
        output.iter().filter_map(|index| sofar.indices.iter().position(|i| i == index)).collect();
    single(sofar.view.transposed(&perm))
}

/// The sum over the indices that are not among `kept`.
fn summed(lo: &mut Lowering, term: Term, kept: &[Index]) -> Term {
    let gone: Vec<_> = (0..term.indices.len()).filter(|&a| !kept.contains(&term.indices[a])).collect();
    if gone.is_empty() {
        return term;
    }
    let (mut x, perm) = lo.in_natural_order(&term.view);
    for place in (0..perm.len()).filter(|&place| gone.contains(&perm[place])) {
        x = lo.em.reduce_sum(x, place);
    }
    let mut shape = term.view.shape.clone();
    gone.iter().for_each(|&axis| shape[axis] = 1);
    let view = View::plain(x, shape, &perm, DataType::Float);
    let axes: Vec<_> = (0..term.indices.len()).filter(|a| !gone.contains(a)).collect();
    let shape: Vec<_> = axes.iter().map(|&a| view.shape[a]).collect();
    Term { view: lo.reshaped(&view, &shape), indices: axes.iter().map(|&a| term.indices[a]).collect() }
}

/// The product of two operands, summed over the indices that only they have.
fn product(lo: &mut Lowering, a: Term, b: Term, later: &[Index]) -> Lowered<Term> {
    let (in_b, in_a) = (b.indices.clone(), a.indices.clone());
    let a = summed(lo, a, &[&in_b[..], later].concat());
    let b = summed(lo, b, &[&in_a[..], later].concat());
    let shared: Vec<Index> = a.indices.iter().filter(|i| b.indices.contains(i)).copied().collect();
    let batch: Vec<_> = shared.iter().filter(|i| later.contains(i)).copied().collect();
    let inner: Vec<_> = shared.iter().filter(|i| !later.contains(i)).copied().collect();
    let own = |term: &Term| term.indices.iter().filter(|i| !shared.contains(i)).copied().collect::<Vec<_>>();
    let (rows, columns) = (own(&a), own(&b));
    let extent = |term: &Term, index: &Index| {
        term.indices.iter().position(|i| i == index).map_or(1, |at| term.view.shape[at])
    };
    let matrix = |lo: &mut Lowering, term: &Term, groups: [&[Index]; 3]| -> View {
        let perm: Vec<_> =
            groups.concat().iter().filter_map(|i| term.indices.iter().position(|j| j == i)).collect();
        let shape = groups.map(|group| group.iter().map(|i| extent(term, i)).product::<usize>());
        let view = term.view.transposed(&perm);
        lo.reshaped(&view, &shape)
    };
    let left = matrix(lo, &a, [&batch, &rows, &inner]);
    let right = matrix(lo, &b, [&batch, &inner, &columns]);
    let out = lo.batched(&left, &right)?;
    let view = lo.view(&out)?;
    let indices = [&batch[..], &rows, &columns].concat();
    let shape: Vec<_> =
        indices.iter().map(|i| if a.indices.contains(i) { extent(&a, i) } else { extent(&b, i) }).collect();
    Ok(Term { view: lo.reshaped(&view, &shape), indices })
}
