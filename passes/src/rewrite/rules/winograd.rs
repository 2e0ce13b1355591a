//! `winograd-channels`: input channels padded to as many as Winograd needs.
//!
//! `conv(x, W) = conv(pad_c(x, zp), pad_c(W, weight_zp))`: a channel that is the zero point everywhere adds
//! nothing. With [`WINOGRAD_LEAST_CHANNELS`] channels a 3x3 convolution takes 16 products where it took
//! `36 / 16` as many, so from half of them on the padding pays, if the stage that pads costs less.

use egg::Id;
use strata_ir::TensorType;
use strata_ir::dialect::Pad;
use strata_isa_spec::timing::WINOGRAD_LEAST_CHANNELS;

use crate::rewrite::constants::Recipe;
use crate::rewrite::language::{self, Graph};
use crate::rewrite::make::{Conv, Maker};
use crate::rewrite::rules::Rule;

/// The rule.
pub(super) static RULE: Rule =
    Rule { families: &["winograd-channels"], name: "winograd-channels", kinds: &["tosa.conv2d"], apply };

fn apply(egraph: &mut Graph, class: Id) -> Vec<(Id, Id)> {
    let wanted = WINOGRAD_LEAST_CHANNELS as usize;
    let mut equal = Vec::new();
    for conv in Conv::all(egraph, class) {
        let [_, kh, kw, ic] = conv.kernel;
        let is_window = [kh, kw] == [3, 3] && conv.op.stride == [1, 1] && conv.op.dilation == [1, 1];
        if is_window && conv.is_narrow() && (wanted / 2..wanted).contains(&ic) {
            equal.extend(padded(egraph, &conv, wanted).map(|new| (class, new)));
        }
    }
    equal
}

fn padded(egraph: &mut Graph, conv: &Conv, channels: usize) -> Option<Id> {
    let [input, _, bias, input_zp, weight_zp] = conv.operands;
    let [n, h, w, c] = language::nhwc(egraph, input)?;
    let elem = language::elem(egraph, input)?;
    let (zp, zero) = (language::scalar(egraph, input_zp)?, language::scalar(egraph, weight_zp)?);
    let mut make = Maker { egraph, loc: conv.loc.clone() };
    let padding = make.shape(&[0, 0, 0, 0, 0, 0, 0, channels - c])?;
    let value = make.ints(&[1], elem, vec![zp])?;
    let wide = make.op(Pad {}, vec![input, padding, value], TensorType::new([n, h, w, channels], elem));
    let weights = make.recipe(Recipe::Widen { of: conv.weights, n: channels, value: zero });
    Some(make.op(conv.op.clone(), vec![wide, weights, bias, input_zp, weight_zp], conv.ty.clone()))
}
