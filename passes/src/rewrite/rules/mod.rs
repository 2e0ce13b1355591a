//! The rewrites, one file a family.
//!
//! A rule is tried on every class that holds a term of one of its kinds. It gives classes that are equal, bit
//! for bit and for every input; what is cheaper is not its concern. Rules end by themselves: each either
//! takes away what it looks for, or makes terms that it does not take again.

mod concat_sum;
mod sibling;
mod thin_input;
mod tidy;
mod transposed;
mod upsample;
mod winograd;

use egg::{Applier, Id, PatternAst, Rewrite, SearchMatches, Searcher, Subst, Symbol, Var};
use strata_ir::dialect::{Op, Rescale};
use strata_ir::{Location, TensorType};

use crate::rewrite::constants::{ConstId, Recipe};
use crate::rewrite::families::Families;
use crate::rewrite::language::{self, Action, Graph, Kind, Knowledge, Term};
use crate::rewrite::make::Maker;

/// A rewrite.
pub(crate) struct Rule {
    /// The families that it belongs to.
    pub(crate) families: &'static [&'static str],
    /// Its own name.
    pub(crate) name: &'static str,
    /// The kinds of terms that it begins with.
    pub(crate) kinds: &'static [Kind],
    /// Pairs of classes that are equal because of the class that it is given.
    pub(crate) apply: fn(&mut Graph, Id) -> Vec<(Id, Id)>,
}

/// Every rewrite.
pub(crate) static RULES: &[&Rule] = &[
    &upsample::RULE,
    &upsample::JOINED,
    &concat_sum::RULE,
    &sibling::RULE,
    &thin_input::RULE,
    &thin_input::SINK,
    &winograd::RULE,
    &transposed::RULE,
    &tidy::RULE,
];

/// The rewrites of the families that are on.
pub(crate) fn rewrites(families: &Families) -> Vec<Rewrite<Term, Knowledge>> {
    let on = RULES.iter().filter(|rule| rule.families.iter().any(|family| families.has(family)));
    // A rule has no variables, so nothing can be unbound.
    on.filter_map(|&rule| Rewrite::new(rule.name, Roots(rule), Roots(rule)).ok()).collect()
}

/// A rule as `egg` wants it: it matches classes, and looks at their terms itself.
#[derive(Clone, Copy)]
struct Roots(&'static Rule);

impl Searcher<Term, Knowledge> for Roots {
    fn search_eclass_with_limit(
        &self,
        egraph: &Graph,
        eclass: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Term>> {
        let holds = egraph[eclass].nodes.iter().any(|term| self.0.kinds.contains(&term.kind));
        holds.then(|| SearchMatches {
            eclass: egraph.find(eclass),
            substs: vec![Subst::default()],
            ast: None,
        })
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

impl Applier<Term, Knowledge> for Roots {
    fn apply_one(
        &self,
        egraph: &mut Graph,
        eclass: Id,
        _: &Subst,
        _: Option<&PatternAst<Term>>,
        name: Symbol,
    ) -> Vec<Id> {
        egraph.analysis.rule = self.0.name;
        let equal = (self.0.apply)(egraph, eclass);
        equal.into_iter().filter(|&(a, b)| egraph.union_trusted(a, b, name)).map(|(a, _)| a).collect()
    }
}

/// An op of one streamed operand that maps pixels to pixels, whatever their place.
#[derive(Clone, Debug)]
struct Pointwise {
    op: Op,
    loc: Location,
    /// The streamed operand and the constant ones after it.
    operands: Vec<Id>,
    /// The place of the streamed operand.
    at: usize,
    ty: TensorType,
}

impl Pointwise {
    /// The ops of a class that are such.
    fn all(egraph: &Graph, class: Id) -> Vec<Self> {
        let found = egraph[class].nodes.iter().filter_map(|term| {
            let spec = egraph.analysis.spec(term)?;
            let Action::Op(op) = &spec.action else { return None };
            let is_const = |id: Id| egraph[id].data.constant.is_some();
            let at = match op {
                Op::Rescale(_) | Op::Clamp(_) | Op::Table(_) | Op::Cast(_) | Op::Negate(_) => 0,
                Op::Add(_)
                | Op::Sub(_)
                | Op::Mul(_)
                | Op::Maximum(_)
                | Op::Minimum(_)
                | Op::GreaterEqual(_) => usize::from(is_const(term.children[0])),
                _ => return None,
            };
            let all_const = term.children.iter().enumerate().all(|(index, &id)| index == at || is_const(id));
            // Constants are the same for every pixel.
            let flat = |&id: &Id| {
                let shape = language::tensor(egraph, id).map_or(&[][..], |ty| &ty.shape);
                let lead = shape.len().saturating_sub(1);
                shape[..lead].iter().all(|&extent| extent == 1)
            };
            let fits = all_const
                && term.children.iter().enumerate().all(|(index, id)| index == at || flat(id))
                && language::nhwc(egraph, term.children[at])? == language::nhwc(egraph, class)?;
            fits.then(|| Self {
                op: op.clone(),
                loc: spec.loc.clone(),
                operands: term.children.clone(),
                at,
                ty: spec
                    .ty
                    .as_tensor()
                    .cloned()
                    .unwrap_or_else(|| TensorType::new([], strata_ir::ElemType::I8)),
            })
        });
        found.collect()
    }

    /// The op on another operand, with constants of `times` as many channels where they are one a channel.
    fn on(&self, egraph: &mut Graph, operand: Id, times: usize) -> Option<Id> {
        let channels = *self.ty.shape.last()?;
        let shape = language::nhwc(egraph, operand)?;
        let mut make = Maker { egraph, loc: self.loc.clone() };
        let mut operands = self.operands.clone();
        operands[self.at] = operand;
        if times > 1 {
            // Only these have constants that are one a channel.
            let varying: &[usize] = match &self.op {
                Op::Rescale(rescale) if rescale.per_channel => &[1, 2],
                Op::Add(_)
                | Op::Sub(_)
                | Op::Mul(_)
                | Op::Maximum(_)
                | Op::Minimum(_)
                | Op::GreaterEqual(_) => &[0, 1],
                _ => &[],
            };
            for &index in varying.iter().filter(|&&index| index != self.at) {
                operands[index] = repeat_channels(&mut make, operands[index], channels, times)?;
            }
        }
        let ty = TensorType::new(shape, self.ty.elem);
        Some(make.op(self.op.clone(), operands, ty))
    }
}

/// A constant whose last axis is one for all channels or one a channel, for `times` as many channels.
fn repeat_channels(make: &mut Maker<'_>, id: Id, channels: usize, times: usize) -> Option<Id> {
    let constant = make.egraph[id].data.constant?;
    let ty = make.egraph.analysis.constants.tensor_ty(constant);
    let mut shape = ty.shape.clone();
    let is_broadcast = channels == 1 && shape.len() > 1;
    let last = shape.last_mut()?;
    if *last != channels || is_broadcast {
        return Some(id);
    }
    *last *= times;
    let values = make.egraph.analysis.constants.small_ints(constant)?;
    let n = values.len() * times;
    make.ints(&shape, ty.elem, values.into_iter().cycle().take(n).collect())
}

/// The multipliers and shifts of a rescale, one a channel.
fn scales(make: &mut Maker<'_>, rescale: &Rescale, ids: [Id; 2], channels: usize) -> Option<[ConstId; 2]> {
    let mut of = |id: Id| {
        let constant = make.egraph[id].data.constant?;
        let n = make.egraph.analysis.constants.tensor_ty(constant).n_elements();
        if rescale.per_channel && n == channels {
            return Some(constant);
        }
        let repeated = Recipe::Repeat { of: constant, n: channels };
        (n == 1).then(|| make.egraph.analysis.constants.recipe(repeated))
    };
    Some([of(ids[0])?, of(ids[1])?])
}
