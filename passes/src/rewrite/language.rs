//! A function's ops as terms of `egg`, and what is known of their e-classes.
//!
//! A [`Term`] is the kind of an op, the number of its interned [`Spec`] (attributes, result type, location)
//! and its operands. Constants are leaves whose data stand in [`Constants`]; weights that a rewrite makes are
//! recipes until an extraction takes them. Three moves of data are terms of their own, [`Move`]: in TOSA they
//! are chains of ops that no rewrite should have to see through. Every member of a class has the class's
//! [`Facts`]: one type, one constant value if any.

use std::collections::BTreeMap;

use egg::{Analysis, DidMerge, EGraph, Id, Language};
use strata_ir::{ElemType, Location, Op, TensorType, Type};

use crate::rewrite::constants::{ConstId, Constants};

/// What kind a term is: an op's MLIR name, or one of the words below.
pub(crate) type Kind = &'static str;

/// An argument of the function.
pub(crate) const ARG: Kind = "arg";
/// A constant.
pub(crate) const CONST: Kind = "const";

/// The e-graph of a function.
pub(crate) type Graph = EGraph<Term, Knowledge>;

/// An op with its operands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Term {
    /// What kind it is.
    pub(crate) kind: Kind,
    /// Its [`Spec`], or its constant.
    pub(crate) spec: u32,
    /// Its operands.
    pub(crate) children: Vec<Id>,
}

impl Language for Term {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        self.kind
    }

    fn matches(&self, other: &Self) -> bool {
        (self.kind, self.spec, self.children.len()) == (other.kind, other.spec, other.children.len())
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

/// Moves of data, in rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// `out[y, x, c] = in[y / f, x / f, c]`: every pixel repeated.
    Upsample([usize; 2]),
    /// `out[y, x, (r * b + s) * C + c] = in[y * b + r, x * b + s, c]`: blocks of pixels to channels.
    SpaceToDepth([usize; 2]),
    /// `out[y * b + r, x * b + s, c] = in[y, x, (r * b + s) * C + c]`: channels to blocks of pixels.
    DepthToSpace([usize; 2]),
}

/// What a term does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A TOSA op.
    Op(Op),
    /// A move of data.
    Move(Move),
    /// An argument, by its index.
    Arg(usize),
}

impl Action {
    /// The kind of its terms.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Op(op) => op.name(),
            Self::Move(Move::Upsample(_)) => "upsample",
            Self::Move(Move::SpaceToDepth(_)) => "space-to-depth",
            Self::Move(Move::DepthToSpace(_)) => "depth-to-space",
            Self::Arg(_) => ARG,
        }
    }
}

/// A term without its operands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    /// What it does.
    pub(crate) action: Action,
    /// The type of its result.
    pub(crate) ty: Type,
    /// Where it came from.
    pub(crate) loc: Location,
}

/// What is true of every member of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its type.
    pub(crate) ty: Type,
    /// Its value, if it is constant.
    pub(crate) constant: Option<ConstId>,
}

/// Several classes that take other terms together, because none pays alone.
pub(crate) type Joint = Vec<(Id, Term)>;

/// Everything that terms refer to by number.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    specs: Vec<Spec>,
    by_text: BTreeMap<String, u32>,
    /// The constants.
    pub(crate) constants: Constants,
    /// Choices that are made together.
    pub(crate) joints: Vec<Joint>,
    /// The rule that is applied now.
    pub(crate) rule: &'static str,
    /// The terms that rules have made, with the first rule of each.
    pub(crate) origins: Vec<(Term, &'static str)>,
    /// Classes of different types that a rewrite has merged: a defect of the rewrite.
    pub(crate) conflicts: Vec<String>,
}

impl Knowledge {
    /// The number of a spec.
    pub(crate) fn intern(&mut self, spec: Spec) -> u32 {
        // Attributes of ops other than constants are short.
        let key = format!("{:?} {} {}", spec.action, spec.ty, spec.loc);
        let specs = &mut self.specs;
        *self.by_text.entry(key).or_insert_with(|| {
            specs.push(spec);
            specs.len() as u32 - 1
        })
    }

    /// A term's spec; `None` for a constant.
    pub(crate) fn spec(&self, term: &Term) -> Option<&Spec> {
        (term.kind != CONST).then(|| &self.specs[term.spec as usize])
    }
}

impl Analysis<Term> for Knowledge {
    type Data = Facts;

    fn make(egraph: &mut Graph, term: &Term, _: Id) -> Facts {
        let known = &egraph.analysis;
        match known.spec(term) {
            Some(spec) => Facts { ty: spec.ty.clone(), constant: None },
            None => Facts { ty: known.constants.ty(ConstId(term.spec)), constant: Some(ConstId(term.spec)) },
        }
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        if a.ty != b.ty {
            self.conflicts.push(format!("{} and {} were merged", a.ty, b.ty));
        }
        let gained =
            (a.constant.is_none() && b.constant.is_some(), a.constant.is_some() && b.constant.is_none());
        a.constant = a.constant.or(b.constant);
        DidMerge(gained.0, gained.1)
    }
}

/// The tensor type of a class, if it is no shape.
pub(crate) fn tensor(egraph: &Graph, class: Id) -> Option<&TensorType> {
    egraph[class].data.ty.as_tensor()
}

/// The extents of a class of rank 4.
pub(crate) fn nhwc(egraph: &Graph, class: Id) -> Option<[usize; 4]> {
    tensor(egraph, class)?.shape.as_slice().try_into().ok()
}

/// The element type of a class.
pub(crate) fn elem(egraph: &Graph, class: Id) -> Option<ElemType> {
    tensor(egraph, class).map(|ty| ty.elem)
}

/// The integers of a small constant.
pub(crate) fn ints(egraph: &Graph, class: Id) -> Option<Vec<i64>> {
    egraph.analysis.constants.small_ints(egraph[class].data.constant?)
}

/// The integer of a constant of one element.
pub(crate) fn scalar(egraph: &Graph, class: Id) -> Option<i64> {
    match ints(egraph, class)?.as_slice() {
        &[value] => Some(value),
        _ => None,
    }
}

/// The terms of a class of a kind, with their ops.
pub(crate) fn ops(egraph: &Graph, class: Id, kind: Kind) -> impl Iterator<Item = (&Term, &Spec)> {
    let terms = egraph[class].nodes.iter().filter(move |term| term.kind == kind);
    terms.filter_map(|term| Some((term, egraph.analysis.spec(term)?)))
}

/// The move of a class that `wanted` accepts, and what it moves.
pub(crate) fn moved<T>(egraph: &Graph, class: Id, wanted: impl Fn(Move) -> Option<T>) -> Option<(T, Id)> {
    egraph[class].nodes.iter().find_map(|term| match &egraph.analysis.spec(term)?.action {
        Action::Move(it) => Some((wanted(*it)?, term.children[0])),
        _ => None,
    })
}
