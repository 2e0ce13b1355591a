//! `sibling`: convolutions of one input in the same geometry as one, whose channels are cut apart again.
//!
//! `f_i(conv(x, W_i)) = slice_i(f(conv(x, [W_1; W_2; …])))` with `f_i` the rescale, and the clamp after it if
//! there is one. The rescale of the whole is one a channel. Where zero points or bounds differ, which are one
//! a tensor, the rescale stays in `i32` with zero point 0, and the zero points and bounds are added and taken
//! a channel each; the narrowing saturates as before. That needs sums which leave room for a zero point, and
//! scales of at most one.
//!
//! All branches are exchanged together: one alone would compute the rest in vain.

use std::collections::BTreeMap;

use egg::Id;
use strata_ir::attr::{NanMode, RoundingMode};
use strata_ir::dialect::{Add, Clamp, Maximum, Minimum, Op, Rescale};
use strata_ir::{Attribute, ElemType, TensorType};

use crate::rewrite::constants::{ConstId, Recipe};
use crate::rewrite::language::{self, Action, Graph};
use crate::rewrite::make::{Conv, Maker};
use crate::rewrite::rules::{Rule, scales};

/// The rule.
pub(super) static RULE: Rule =
    Rule { families: &["sibling"], name: "sibling", kinds: &["tosa.conv2d"], apply };

/// A convolution with what follows it.
#[derive(Clone, Debug)]
struct Branch {
    conv: Conv,
    rescale: Rescale,
    /// Multiplier, shift, and the zero points of input and output.
    scale: [Id; 4],
    /// Bounds, if a clamp follows.
    bounds: Option<[i64; 2]>,
    /// The type of its result.
    ty: TensorType,
    /// Its result.
    end: Id,
}

/// The classes that hold a term that uses `class`.
fn users(egraph: &Graph, class: Id) -> Vec<Id> {
    let mut users: Vec<Id> = egraph[class].parents().map(|id| egraph.find(id)).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// The only class that uses `class`.
fn only_user(egraph: &Graph, class: Id) -> Option<Id> {
    match users(egraph, class).as_slice() {
        &[user] => Some(user),
        _ => None,
    }
}

impl Branch {
    fn new(egraph: &Graph, class: Id, conv: Conv) -> Option<Self> {
        let end = only_user(egraph, class)?;
        let (term, spec) = language::ops(egraph, end, "tosa.rescale").next()?;
        let Action::Op(Op::Rescale(rescale)) = &spec.action else { return None };
        if egraph.find(term.children[0]) != egraph.find(class) || rescale.output_unsigned {
            return None;
        }
        let mut branch = Self {
            conv,
            rescale: rescale.clone(),
            scale: [term.children[1], term.children[2], term.children[3], term.children[4]],
            bounds: None,
            ty: spec.ty.as_tensor()?.clone(),
            end,
        };
        let clamp = only_user(egraph, end).and_then(|user| {
            let (term, spec) = language::ops(egraph, user, "tosa.clamp").next()?;
            let Action::Op(Op::Clamp(clamp)) = &spec.action else { return None };
            let (Attribute::Int(least, _), Attribute::Int(most, _)) = (&clamp.min_val, &clamp.max_val) else {
                return None;
            };
            (egraph.find(term.children[0]) == egraph.find(end)).then_some((user, [*least, *most]))
        });
        if let Some((user, bounds)) = clamp {
            (branch.end, branch.bounds) = (user, Some(bounds));
        }
        matches!(branch.ty.elem, ElemType::I8 | ElemType::I16).then_some(branch)
    }

    /// What branches that become one have in common.
    fn key(&self, egraph: &Graph) -> Option<String> {
        let Self { conv, rescale, .. } = self;
        let [_, kh, kw, _] = conv.kernel;
        let zero_points =
            [language::scalar(egraph, conv.operands[3])?, language::scalar(egraph, conv.operands[4])?];
        let input_zp = language::scalar(egraph, self.scale[2])?;
        let how = (rescale.scale32, rescale.rounding_mode, input_zp, self.ty.elem);
        Some(format!("{:?} {kh}x{kw} {zero_points:?} {how:?}", conv.op))
    }
}

fn apply(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let inputs: Vec<Id> = Conv::all(egraph, class).iter().map(|conv| egraph.find(conv.operands[0])).collect();
    inputs.into_iter().flat_map(|input| merge_users(egraph, input, class)).collect()
}

/// Merges the convolutions of an input of which that of `first` is the first.
fn merge_users(egraph: &mut Graph, input: Id, first: Id) -> Vec<(Id, Id)> {
    let mut groups: BTreeMap<String, Vec<(Id, Branch)>> = BTreeMap::new();
    for class in users(egraph, input) {
        // What has been merged is not merged again.
        let convs = Conv::all(egraph, class).into_iter().filter(|conv| {
            conv.is_narrow()
                && egraph.find(conv.operands[0]) == input
                && !egraph.analysis.constants.is_join(conv.weights, 0)
        });
        let branch = convs.filter_map(|conv| Branch::new(egraph, class, conv)).next();
        if let Some(branch) = branch
            && let Some(key) = branch.key(egraph)
        {
            groups.entry(key).or_default().push((class, branch));
        }
    }
    let wanted = groups.into_values().find(|group| group.len() > 1 && group[0].0 == egraph.find(first));
    let branches: Vec<Branch> = wanted.into_iter().flatten().map(|(_, branch)| branch).collect();
    if branches.is_empty() { Vec::new() } else { merge(egraph, &branches).unwrap_or_default() }
}

fn merge(egraph: &mut Graph, branches: &[Branch]) -> Option<Vec<(Id, Id)>> {
    let output_zps: Option<Vec<i64>> =
        branches.iter().map(|branch| language::scalar(egraph, branch.scale[3])).collect();
    let n_channels = branches.iter().map(|branch| branch.conv.kernel[0]).sum();
    let siblings = Siblings { branches, lead: &branches[0], output_zps: output_zps?, n_channels };
    let mut make = Maker { egraph, loc: siblings.lead.conv.loc.clone() };
    let sums = siblings.sums(&mut make)?;
    let factors = siblings.factors(&mut make)?;
    let [multipliers, shifts] = factors.clone().map(|parts| join(&mut make, parts));
    let scaled = Scaled { sums, multipliers, shifts };
    let whole = if siblings.are_uniform() {
        siblings.narrowed_as_one(&mut make, &scaled)
    } else if siblings.have_room(make.egraph, &factors) {
        siblings.narrowed_by_channel(&mut make, &scaled)?
    } else {
        return None;
    };
    siblings.cut_apart(&mut make, whole)
}

fn join(make: &mut Maker<'_>, parts: Vec<ConstId>) -> Id {
    make.recipe(Recipe::Join { parts, axis: 0 })
}

/// The sums of all branches with the scale of each channel.
struct Scaled {
    sums: Id,
    multipliers: Id,
    shifts: Id,
}

/// Branches that are to become one.
struct Siblings<'b> {
    branches: &'b [Branch],
    /// The first.
    lead: &'b Branch,
    /// The zero point of each result.
    output_zps: Vec<i64>,
    /// Channels of all results.
    n_channels: usize,
}

impl Siblings<'_> {
    /// Whether zero points and bounds are the same in all branches.
    fn are_uniform(&self) -> bool {
        self.output_zps.iter().all(|zp| *zp == self.output_zps[0])
            && self.branches.iter().all(|branch| branch.bounds == self.lead.bounds)
    }

    /// Whether zero points may be added to what is scaled, in `i32`.
    fn have_room(&self, egraph: &Graph, [multipliers, shifts]: &[Vec<ConstId>; 2]) -> bool {
        self.branches.iter().all(|branch| branch.conv.has_headroom(egraph))
            && self.lead.rescale.scale32
            && multipliers.iter().zip(shifts).all(|(&m, &s)| at_most_one(egraph, m, s))
    }

    /// The type of the whole of which the leading branch has a part.
    fn widened(&self, elem: ElemType) -> TensorType {
        let mut shape = self.lead.ty.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = self.n_channels;
        }
        TensorType::new(shape, elem)
    }

    /// The convolution with the kernels of all.
    fn sums(&self, make: &mut Maker<'_>) -> Option<Id> {
        let weights = join(make, self.branches.iter().map(|branch| branch.conv.weights).collect());
        let biases = self.branches.iter().map(|branch| {
            let bias = branch.conv.bias_vector(make);
            make.egraph[bias].data.constant
        });
        let biases = biases.collect::<Option<Vec<_>>>()?;
        let bias = join(make, biases);
        let conv = &self.lead.conv;
        let [input, _, _, input_zp, weight_zp] = conv.operands;
        let operands = vec![input, weights, bias, input_zp, weight_zp];
        Some(make.op(conv.op.clone(), operands, self.widened(ElemType::I32)))
    }

    /// The multipliers and the shifts of each branch, one a channel.
    fn factors(&self, make: &mut Maker<'_>) -> Option<[Vec<ConstId>; 2]> {
        let (mut multipliers, mut shifts) = (Vec::new(), Vec::new());
        for branch in self.branches {
            let [multiplier, shift, ..] = branch.scale;
            let [multiplier, shift] =
                scales(make, &branch.rescale, [multiplier, shift], branch.conv.kernel[0])?;
            multipliers.push(multiplier);
            shifts.push(shift);
        }
        Some([multipliers, shifts])
    }

    fn rescaled(&self, make: &mut Maker<'_>, scaled: &Scaled, output_zp: Id, elem: ElemType) -> Id {
        let rescale = Rescale { per_channel: true, ..self.lead.rescale.clone() };
        let operands = vec![scaled.sums, scaled.multipliers, scaled.shifts, self.lead.scale[2], output_zp];
        make.op(rescale, operands, self.widened(elem))
    }

    /// The results of all, which have the same zero point and bounds.
    fn narrowed_as_one(&self, make: &mut Maker<'_>, scaled: &Scaled) -> Id {
        let elem = self.lead.ty.elem;
        let narrow = self.rescaled(make, scaled, self.lead.scale[3], elem);
        let Some(bounds) = self.lead.bounds else { return narrow };
        let [min_val, max_val] = bounds.map(|bound| Attribute::Int(bound, elem));
        let clamp = Clamp { min_val, max_val, nan_mode: NanMode::Propagate };
        make.op(clamp, vec![narrow], self.widened(elem))
    }

    /// A number of each branch, once for each of its channels.
    fn per_channel(&self, make: &mut Maker<'_>, values: impl Iterator<Item = i64>) -> Option<Id> {
        let spread = values
            .zip(self.branches)
            .flat_map(|(value, branch)| std::iter::repeat_n(value, branch.conv.kernel[0]));
        make.ints(&[1, 1, 1, self.n_channels], ElemType::I32, spread.collect())
    }

    /// The results of all, where zero points and bounds are of the channels.
    fn narrowed_by_channel(&self, make: &mut Maker<'_>, scaled: &Scaled) -> Option<Id> {
        let (elem, wide) = (self.lead.ty.elem, self.widened(ElemType::I32));
        let zero = make.ints(&[1], ElemType::I32, vec![0])?;
        let mut value = self.rescaled(make, scaled, zero, ElemType::I32);
        let offsets = self.per_channel(make, self.output_zps.iter().copied())?;
        value = make.op(Add {}, vec![value, offsets], wide.clone());
        if self.branches.iter().any(|branch| branch.bounds.is_some()) {
            let (least, most) = elem.int_range()?;
            let bounds = self.branches.iter().map(|branch| branch.bounds.unwrap_or([least, most]));
            let least = self.per_channel(make, bounds.clone().map(|[least, _]| least))?;
            let most = self.per_channel(make, bounds.map(|[_, most]| most))?;
            let nan_mode = NanMode::Propagate;
            value = make.op(Maximum { nan_mode }, vec![value, least], wide.clone());
            value = make.op(Minimum { nan_mode }, vec![value, most], wide);
        }
        let one = make.ints(&[1], ElemType::I32, vec![1 << 30])?;
        let shift = make.ints(&[1], ElemType::I8, vec![30])?;
        let narrow_zero = make.ints(&[1], elem, vec![0])?;
        let narrow = Rescale {
            scale32: true,
            rounding_mode: RoundingMode::SingleRound,
            per_channel: false,
            input_unsigned: false,
            output_unsigned: false,
        };
        Some(make.op(narrow, vec![value, one, shift, zero, narrow_zero], self.widened(elem)))
    }

    /// Each branch's result with its channels of the whole, which replace it together.
    fn cut_apart(&self, make: &mut Maker<'_>, whole: Id) -> Option<Vec<(Id, Id)>> {
        let (mut equal, mut joint, mut at) = (Vec::new(), Vec::new(), 0);
        for branch in self.branches {
            let n = branch.conv.kernel[0];
            let part = make.channels(whole, at, n)?;
            let slice =
                language::ops(make.egraph, part, "tosa.slice").map(|(term, _)| term.clone()).next()?;
            joint.push((branch.end, slice));
            equal.push((branch.end, part));
            at += n;
        }
        make.egraph.analysis.joints.push(joint);
        Some(equal)
    }
}

/// Whether no scale is above one: what is scaled stays in its range.
fn at_most_one(egraph: &Graph, multipliers: ConstId, shifts: ConstId) -> bool {
    let ints = |id| egraph.analysis.constants.small_ints(id);
    let (Some(multipliers), Some(shifts)) = (ints(multipliers), ints(shifts)) else { return false };
    multipliers.iter().zip(shifts).all(|(&m, s)| (0..=62).contains(&s) && m <= 1 << s)
}
