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
    let lead = &branches[0];
    let zero_points: Option<Vec<i64>> =
        branches.iter().map(|branch| language::scalar(egraph, branch.scale[3])).collect();
    let zero_points = zero_points?;
    let is_uniform = zero_points.iter().all(|zp| *zp == zero_points[0])
        && branches.iter().all(|branch| branch.bounds == lead.bounds);
    let mut make = Maker { egraph, loc: lead.conv.loc.clone() };
    let channels: Vec<usize> = branches.iter().map(|branch| branch.conv.kernel[0]).collect();
    let n: usize = channels.iter().sum();
    let widened = |ty: &TensorType, elem| {
        let mut shape = ty.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        TensorType::new(shape, elem)
    };
    let join = |make: &mut Maker<'_>, parts: Vec<ConstId>| make.recipe(Recipe::Join { parts, axis: 0 });

    let weights = join(&mut make, branches.iter().map(|branch| branch.conv.weights).collect());
    let biases = branches.iter().map(|branch| {
        let bias = branch.conv.bias_vector(&mut make);
        make.egraph[bias].data.constant
    });
    let biases = biases.collect::<Option<Vec<_>>>()?;
    let bias = join(&mut make, biases);
    let [input, _, _, input_zp, weight_zp] = lead.conv.operands;
    let operands = vec![input, weights, bias, input_zp, weight_zp];
    let sums = make.op(lead.conv.op.clone(), operands, widened(&lead.conv.ty, ElemType::I32));

    let mut parts: [Vec<ConstId>; 2] = [Vec::new(), Vec::new()];
    for branch in branches {
        let found =
            scales(&mut make, &branch.rescale, [branch.scale[0], branch.scale[1]], branch.conv.kernel[0])?;
        for (list, id) in parts.iter_mut().zip(found) {
            list.push(id);
        }
    }
    let factors = parts.clone();
    let [multipliers, shifts] = parts.map(|parts| join(&mut make, parts));
    let rescale = Rescale { per_channel: true, ..lead.rescale.clone() };
    let elem = lead.ty.elem;
    let whole = if is_uniform {
        let operands = vec![sums, multipliers, shifts, lead.scale[2], lead.scale[3]];
        let narrow = make.op(rescale, operands, widened(&lead.ty, elem));
        match lead.bounds {
            None => narrow,
            Some([least, most]) => {
                let bound = |value| Attribute::Int(value, elem);
                let clamp =
                    Clamp { min_val: bound(least), max_val: bound(most), nan_mode: NanMode::Propagate };
                make.op(clamp, vec![narrow], widened(&lead.ty, elem))
            }
        }
    } else {
        let roomy = branches.iter().all(|branch| branch.conv.has_headroom(make.egraph))
            && rescale.scale32
            && factors[0].iter().zip(&factors[1]).all(|(&m, &s)| at_most_one(make.egraph, m, s));
        if !roomy {
            return None;
        }
        let wide = widened(&lead.ty, ElemType::I32);
        let zero = make.ints(&[1], ElemType::I32, vec![0])?;
        let mut value = make.op(rescale, vec![sums, multipliers, shifts, lead.scale[2], zero], wide.clone());
        let per_channel = |make: &mut Maker<'_>, values: &[i64]| {
            let spread = values.iter().zip(&channels).flat_map(|(&value, &n)| std::iter::repeat_n(value, n));
            make.ints(&[1, 1, 1, n], ElemType::I32, spread.collect())
        };
        let offsets = per_channel(&mut make, &zero_points)?;
        value = make.op(Add {}, vec![value, offsets], wide.clone());
        if branches.iter().any(|branch| branch.bounds.is_some()) {
            let (least, most) = elem.int_range()?;
            let bounds: Vec<[i64; 2]> =
                branches.iter().map(|branch| branch.bounds.unwrap_or([least, most])).collect();
            let side = |at: usize| bounds.iter().map(|bound| bound[at]).collect::<Vec<_>>();
            let (least, most) = (per_channel(&mut make, &side(0))?, per_channel(&mut make, &side(1))?);
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
        make.op(narrow, vec![value, one, shift, zero, narrow_zero], widened(&lead.ty, elem))
    };

    let (mut equal, mut joint, mut at) = (Vec::new(), Vec::new(), 0);
    for branch in branches {
        let n = branch.conv.kernel[0];
        let part = make.channels(whole, at, n)?;
        let slice = language::ops(make.egraph, part, "tosa.slice").map(|(term, _)| term.clone()).next()?;
        joint.push((branch.end, slice));
        equal.push((branch.end, part));
        at += n;
    }
    make.egraph.analysis.joints.push(joint);
    Some(equal)
}

/// Whether no scale is above one: what is scaled stays in its range.
fn at_most_one(egraph: &Graph, multipliers: ConstId, shifts: ConstId) -> bool {
    let ints = |id| egraph.analysis.constants.small_ints(id);
    let (Some(multipliers), Some(shifts)) = (ints(multipliers), ints(shifts)) else { return false };
    multipliers.iter().zip(shifts).all(|(&m, s)| (0..=62).contains(&s) && m <= 1 << s)
}
