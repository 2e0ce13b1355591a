//! Constants of an e-graph: those that the function has, and recipes for those that rewrites need.
//!
//! A recipe says how its data come from other constants. Equal recipes are one constant, and none is followed
//! before an extraction has taken it: a network's weights are tens of megabytes, of which most alternatives
//! are never used.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::{ElemType, Tensor, TensorData, TensorType, Type, ValueId};

/// A constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConstId(pub(crate) u32);

/// Up to how many elements rules may look at.
const SMALL: usize = 1 << 14;

/// How one axis of a convolution's weights is rearranged when its input, or its output, stands in blocks.
///
/// Tap `j` of the new kernel, for phase `r` of the output's block and phase `f` of the input's, is tap
/// `first + out_step * r + tap_step * j + f` of the old kernel; where there is no such tap, the weight counts
/// for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Phases {
    /// Extent of the new kernel.
    pub(crate) kernel: usize,
    /// Pixels of a block of the output.
    pub(crate) out_block: usize,
    /// Pixels of a block of the input.
    pub(crate) in_block: usize,
    /// Old taps by a phase of the output.
    pub(crate) out_step: i64,
    /// Old taps by a tap of the new kernel.
    pub(crate) tap_step: i64,
    /// The old tap of the first of everything.
    pub(crate) first: i64,
}

impl Phases {
    /// The old tap, which may be none.
    fn tap(&self, phase: usize, tap: usize, within: usize) -> i64 {
        self.first + self.out_step * phase as i64 + self.tap_step * tap as i64 + within as i64
    }
}

/// How a constant is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recipe {
    /// `n` of the last axis, or of the only one, that begin at `at`.
    Slice {
        /// Of what.
        of: ConstId,
        /// Along which axis.
        axis: usize,
        /// The first.
        at: usize,
        /// How many.
        n: usize,
    },
    /// Parts one after another along an axis.
    Join {
        /// The parts.
        parts: Vec<ConstId>,
        /// The axis.
        axis: usize,
    },
    /// The elements of a vector, each or all, until there are `n`.
    Repeat {
        /// Of what.
        of: ConstId,
        /// How many.
        n: usize,
    },
    /// The last axis with `value` after its elements, up to `n`.
    Widen {
        /// Of what.
        of: ConstId,
        /// How many there are then.
        n: usize,
        /// The new ones.
        value: i64,
    },
    /// Weights `[OC, KH, KW, IC]` of a convolution of blocks, `[by * bx * OC, KH', KW', By * Bx * IC]`.
    Blocks {
        /// Of what.
        of: ConstId,
        /// Along y and x.
        axes: [Phases; 2],
        /// The weight that counts for nothing.
        zero: i64,
    },
}

/// Where the data of a constant are.
#[derive(Clone, Debug)]
enum Source {
    /// The function has it.
    Given(ValueId, Arc<Tensor>),
    /// A rewrite has made it.
    Made(Arc<Tensor>),
    /// It is made when it is asked for.
    Recipe(Recipe),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Data(Type, Vec<u8>),
    Value(ValueId),
    Recipe(Recipe),
}

/// All constants of an e-graph.
#[derive(Debug, Default)]
pub(crate) struct Constants {
    known: Vec<(Type, Source)>,
    numbers: BTreeMap<Key, ConstId>,
}

fn type_of(tensor: &Tensor) -> Type {
    match tensor.elem() {
        ElemType::Index => Type::Shape(tensor.n_elements()),
        _ => tensor.ty().into(),
    }
}

impl Constants {
    fn enter(&mut self, key: Key, ty: Type, source: Source) -> ConstId {
        let known = &mut self.known;
        *self.numbers.entry(key).or_insert_with(|| {
            known.push((ty, source));
            ConstId(known.len() as u32 - 1)
        })
    }

    /// A constant of the function.
    pub(crate) fn given(&mut self, value: ValueId, tensor: &Arc<Tensor>) -> ConstId {
        self.enter(Key::Value(value), type_of(tensor), Source::Given(value, Arc::clone(tensor)))
    }

    /// A constant of few elements.
    pub(crate) fn made(&mut self, tensor: Tensor) -> ConstId {
        let ty = type_of(&tensor);
        let key = Key::Data(ty.clone(), tensor.data().to_bytes());
        self.enter(key, ty, Source::Made(Arc::new(tensor)))
    }

    /// A constant by its recipe, which must fit what it is made of.
    pub(crate) fn recipe(&mut self, recipe: Recipe) -> ConstId {
        let shaped = |of: ConstId, shape: Vec<usize>| TensorType::new(shape, self.tensor_ty(of).elem).into();
        let with_axis = |of: ConstId, axis: usize, n: usize| {
            let mut shape = self.tensor_ty(of).shape;
            shape[axis] = n;
            shaped(of, shape)
        };
        let ty: Type = match &recipe {
            Recipe::Slice { of, axis, n, .. } => with_axis(*of, *axis, *n),
            Recipe::Join { parts, axis } => {
                let n = parts.iter().map(|&part| self.tensor_ty(part).shape[*axis]).sum();
                with_axis(parts[0], *axis, n)
            }
            Recipe::Repeat { of, n } => shaped(*of, vec![*n]),
            Recipe::Widen { of, n, .. } => with_axis(*of, self.tensor_ty(*of).rank() - 1, *n),
            Recipe::Blocks { of, axes: [y, x], .. } => {
                let shape = self.tensor_ty(*of).shape;
                let (outer, inner) = (y.out_block * x.out_block, y.in_block * x.in_block);
                shaped(*of, vec![outer * shape[0], y.kernel, x.kernel, inner * shape[3]])
            }
        };
        self.enter(Key::Recipe(recipe.clone()), ty, Source::Recipe(recipe))
    }

    /// Whether a constant is made of parts along an axis.
    pub(crate) fn is_join(&self, id: ConstId, along: usize) -> bool {
        matches!(&self.known[id.0 as usize].1, Source::Recipe(Recipe::Join { axis, .. }) if *axis == along)
    }

    /// The type of a constant.
    pub(crate) fn ty(&self, id: ConstId) -> Type {
        self.known[id.0 as usize].0.clone()
    }

    /// The type of a constant that is no shape; of a shape, that of a vector of its extents.
    pub(crate) fn tensor_ty(&self, id: ConstId) -> TensorType {
        match &self.known[id.0 as usize].0 {
            Type::Tensor(ty) => ty.clone(),
            Type::Shape(rank) => TensorType::new([*rank], ElemType::Index),
        }
    }

    /// The value of the function that holds a constant.
    pub(crate) fn value(&self, id: ConstId) -> Option<ValueId> {
        match &self.known[id.0 as usize].1 {
            Source::Given(value, _) => Some(*value),
            _ => None,
        }
    }

    /// The integers of a constant of few elements.
    pub(crate) fn small_ints(&self, id: ConstId) -> Option<Vec<i64>> {
        (self.tensor_ty(id).n_elements() <= SMALL).then(|| self.tensor(id).data().to_ints()).flatten()
    }

    /// A constant's data, made now if need be.
    pub(crate) fn tensor(&self, id: ConstId) -> Arc<Tensor> {
        match &self.known[id.0 as usize].1 {
            Source::Given(_, tensor) | Source::Made(tensor) => Arc::clone(tensor),
            Source::Recipe(recipe) => {
                let ty = self.tensor_ty(id);
                let data = self.follow(recipe, &ty);
                // Recipes copy integers of the type they are of, so they fit.
                let data = TensorData::from_ints(ty.elem, data).unwrap_or(TensorData::I8(Vec::new()));
                Arc::new(Tensor::new(ty.shape, data))
            }
        }
    }

    fn follow(&self, recipe: &Recipe, ty: &TensorType) -> Vec<i64> {
        let data = |of: ConstId| self.tensor(of).data().to_ints().unwrap_or_default();
        match recipe {
            Recipe::Slice { of, axis, at, n } => {
                let shape = self.tensor_ty(*of).shape;
                let inner: usize = shape[axis + 1..].iter().product();
                let rows = data(*of);
                let rows = rows.chunks(shape[*axis] * inner);
                rows.flat_map(|row| row[at * inner..(at + n) * inner].iter().copied()).collect()
            }
            Recipe::Join { parts, axis } => {
                let outer: usize = ty.shape[..*axis].iter().product();
                let parts: Vec<Vec<i64>> = parts.iter().map(|&part| data(part)).collect();
                let row = |at: usize, part: &Vec<i64>| {
                    let n = part.len() / outer.max(1);
                    part[at * n..(at + 1) * n].to_vec()
                };
                (0..outer).flat_map(|at| parts.iter().flat_map(move |part| row(at, part))).collect()
            }
            Recipe::Repeat { of, n } => data(*of).into_iter().cycle().take(*n).collect(),
            Recipe::Widen { of, n, value } => {
                let before = self.tensor_ty(*of).shape.last().copied().unwrap_or(1);
                let widen = |row: &[i64]| {
                    let mut row = row.to_vec();
                    row.resize(*n, *value);
                    row
                };
                data(*of).chunks(before).flat_map(widen).collect()
            }
            Recipe::Blocks { of, axes: [y, x], zero } => {
                let [oc, kh, kw, ic] = self.tensor_ty(*of).shape[..] else { return Vec::new() };
                let old = data(*of);
                let mut new = Vec::with_capacity(ty.n_elements());
                for phase in 0..y.out_block * x.out_block {
                    let (py, px) = (phase / x.out_block, phase % x.out_block);
                    for o in 0..oc {
                        for tap in 0..y.kernel * x.kernel {
                            let (ty, tx) = (tap / x.kernel, tap % x.kernel);
                            for within in 0..y.in_block * x.in_block {
                                let ky = y.tap(py, ty, within / x.in_block);
                                let kx = x.tap(px, tx, within % x.in_block);
                                let inside = (0..kh as i64).contains(&ky) && (0..kw as i64).contains(&kx);
                                if inside {
                                    let at = ((o * kh + ky as usize) * kw + kx as usize) * ic;
                                    new.extend_from_slice(&old[at..at + ic]);
                                } else {
                                    new.extend(std::iter::repeat_n(*zero, ic));
                                }
                            }
                        }
                    }
                }
                new
            }
        }
    }
}
