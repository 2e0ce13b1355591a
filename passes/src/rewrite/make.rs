//! Making terms: ops with their types, moves, constants.

use egg::Id;
use strata_ir::dialect::{Conv2d, Slice};
use strata_ir::{ElemType, Location, Op, Tensor, TensorData, TensorType};

use crate::rewrite::constants::{ConstId, Recipe};
use crate::rewrite::language::{self, Action, CONST, Graph, Move, Spec, Term};

/// Makes terms that come from one place of the network.
pub(crate) struct Maker<'a> {
    /// The e-graph.
    pub(crate) egraph: &'a mut Graph,
    /// The place.
    pub(crate) loc: Location,
}

impl Maker<'_> {
    fn term(&mut self, action: Action, children: Vec<Id>, ty: TensorType) -> Id {
        let kind = action.kind();
        let spec = Spec { action, ty: ty.into(), loc: self.loc.clone() };
        let spec = self.egraph.analysis.intern(spec);
        let term = Term { kind, spec, children };
        if self.egraph.lookup(term.clone()).is_none() {
            let rule = self.egraph.analysis.rule;
            self.egraph.analysis.origins.push((term.clone(), rule));
        }
        self.egraph.add(term)
    }

    /// An op, whose result is of type `ty`.
    pub(crate) fn op(&mut self, op: impl Into<Op>, children: Vec<Id>, ty: TensorType) -> Id {
        self.term(Action::Op(op.into()), children, ty)
    }

    /// A move of a tensor `[1, H, W, C]`; `None` if it is no such tensor or does not divide into blocks.
    pub(crate) fn moved(&mut self, by: Move, of: Id) -> Option<Id> {
        let [n, h, w, c] = language::nhwc(self.egraph, of)?;
        let shape = match by {
            Move::Upsample([fy, fx]) => [n, h * fy, w * fx, c],
            Move::SpaceToDepth([by, bx]) if h % by == 0 && w % bx == 0 => [n, h / by, w / bx, c * by * bx],
            Move::DepthToSpace([by, bx]) if c % (by * bx) == 0 => [n, h * by, w * bx, c / (by * bx)],
            _ => return None,
        };
        let ty = TensorType::new(shape, language::elem(self.egraph, of)?);
        Some(self.term(Action::Move(by), vec![of], ty))
    }

    /// The leaf of a constant.
    pub(crate) fn constant(&mut self, id: ConstId) -> Id {
        self.egraph.add(Term { kind: CONST, spec: id.0, children: Vec::new() })
    }

    /// A constant by its recipe.
    pub(crate) fn recipe(&mut self, recipe: Recipe) -> Id {
        let id = self.egraph.analysis.constants.recipe(recipe);
        self.constant(id)
    }

    /// A constant of few integers, which are of the element type.
    pub(crate) fn ints(&mut self, shape: &[usize], elem: ElemType, values: Vec<i64>) -> Option<Id> {
        let data = TensorData::from_ints(elem, values)?;
        let id = self.egraph.analysis.constants.made(Tensor::new(shape, data));
        Some(self.constant(id))
    }

    /// A vector of one integer, `n` times.
    pub(crate) fn fill(&mut self, n: usize, elem: ElemType, value: i64) -> Option<Id> {
        self.ints(&[n], elem, vec![value; n])
    }

    /// A list of extents.
    pub(crate) fn shape(&mut self, extents: &[usize]) -> Option<Id> {
        self.ints(&[extents.len()], ElemType::Index, extents.iter().map(|&e| e as i64).collect())
    }

    /// `n` channels from `at` on.
    pub(crate) fn channels(&mut self, of: Id, at: usize, n: usize) -> Option<Id> {
        let [batch, h, w, _] = language::nhwc(self.egraph, of)?;
        let (start, size) = (self.shape(&[0, 0, 0, at])?, self.shape(&[batch, h, w, n])?);
        let ty = TensorType::new([batch, h, w, n], language::elem(self.egraph, of)?);
        Some(self.op(Slice {}, vec![of, start, size], ty))
    }
}

/// A convolution with a constant kernel.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    /// Its attributes.
    pub(crate) op: Conv2d,
    /// Where it came from.
    pub(crate) loc: Location,
    /// Its operands: input, weights, bias and the zero points of input and weights.
    pub(crate) operands: [Id; 5],
    /// The constant that holds its weights.
    pub(crate) weights: ConstId,
    /// The constant that holds its bias.
    pub(crate) bias: ConstId,
    /// `[OC, KH, KW, IC]`.
    pub(crate) kernel: [usize; 4],
    /// The type of its result.
    pub(crate) ty: TensorType,
}

impl Conv {
    /// The convolutions of a class whose kernel, bias and zero points are constant.
    pub(crate) fn all(egraph: &Graph, class: Id) -> Vec<Self> {
        let found = language::ops(egraph, class, "tosa.conv2d").filter_map(|(term, spec)| {
            let Action::Op(Op::Conv2d(op)) = &spec.action else { return None };
            let operands: [Id; 5] = term.children.clone().try_into().ok()?;
            let [_, weights, bias, ..] = operands;
            Some(Self {
                op: op.clone(),
                loc: spec.loc.clone(),
                operands,
                weights: egraph[weights].data.constant?,
                bias: egraph[bias].data.constant?,
                kernel: language::nhwc(egraph, weights)?,
                ty: spec.ty.as_tensor()?.clone(),
            })
        });
        found.collect()
    }

    /// Whether it is of `i8` and sums in `i32`.
    pub(crate) fn is_narrow(&self) -> bool {
        self.op.acc_type == ElemType::I32
    }

    /// Whether it maps single pixels to single pixels.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel[1..3] == [1, 1] && self.op.stride == [1, 1] && self.op.pad == [0; 4]
    }

    /// Whether the sums over any subset of its products stay within 31 bits, so that they may be taken apart,
    /// or moved by a zero point, without overflow.
    pub(crate) fn has_headroom(&self, egraph: &Graph) -> bool {
        let [_, kh, kw, ic] = self.kernel;
        let most = (kh * kw * ic) as i64 * 255 * 255;
        let bias = egraph.analysis.constants.small_ints(self.bias);
        bias.is_some_and(|bias| bias.iter().all(|b| b.abs() + most < (1 << 31) - (1 << 16)))
    }

    /// The same bias, one a channel; `None` if it cannot be looked at.
    pub(crate) fn bias_vector(&self, make: &mut Maker<'_>) -> Id {
        make.recipe(Recipe::Repeat { of: self.bias, n: self.kernel[0] })
    }
}
