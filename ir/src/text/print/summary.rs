//! What a stage runs, in a few words: a comment before its code, which says all of it but nothing at a
//! glance.
//!
//! ```text
//! // runs depthwise_conv2d 3x3 s2 -> rescale i8 -> clamp
//! ```
//!
//! A word that says nothing is left out: a stride or distance of taps of 1, one group.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::attr::Attribute;

/// Appends a step of a stage: its mnemonic, and those of its fields that tell steps of a kind apart.
pub(super) fn push_step(out: &mut String, mnemonic: &str, fields: &Attribute) {
    out.push_str(mnemonic);
    let fields = Fields::of(Some(fields));
    let window = Fields::of(fields.get("window"));
    let extent = |name: &str| window.int(name).or_else(|| fields.int(name));
    if let (Some(rows), Some(cols)) = (extent("kernel_h"), extent("kernel_w")) {
        push(out, format_args!(" {rows}x{cols}"));
    }
    let steps = |names: [&str; 2]| names.map(|name| extent(name).unwrap_or(1));
    for (letter, [rows, cols]) in
        [('s', steps(["stride_h", "stride_w"])), ('d', steps(["dilation_h", "dilation_w"]))]
    {
        match (rows, cols) {
            (1, 1) => {}
            (rows, cols) if rows == cols => push(out, format_args!(" {letter}{rows}")),
            (rows, cols) => push(out, format_args!(" {letter}{rows}x{cols}")),
        }
    }
    for (letter, name) in [('g', "groups"), ('m', "multiplier")] {
        if let Some(number) = fields.int(name).filter(|&number| number != 1) {
            push(out, format_args!(" {letter}{number}"));
        }
    }
    if fields.get("winograd") == Some(&Attribute::Bool(true)) {
        out.push_str(" winograd");
    }
    for name in ["kind", "mode", "axis", "to"] {
        if let Some(Attribute::Str(word)) = fields.get(name) {
            push(out, format_args!(" {word}"));
        }
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

/// The fields of an instruction, by name.
struct Fields<'a>(Option<&'a BTreeMap<String, Attribute>>);

impl<'a> Fields<'a> {
    fn of(attr: Option<&'a Attribute>) -> Self {
        match attr {
            Some(Attribute::Dict(entries)) => Self(Some(entries)),
            _ => Self(None),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Attribute> {
        self.0?.get(name)
    }

    fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Attribute::Int(value, _) => Some(*value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ElemType;

    fn dict(entries: &[(&str, Attribute)]) -> Attribute {
        Attribute::Dict(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn int(value: i64) -> Attribute {
        Attribute::Int(value, ElemType::I64)
    }

    fn told(mnemonic: &str, fields: &[(&str, Attribute)]) -> String {
        let mut out = String::new();
        push_step(&mut out, mnemonic, &dict(fields));
        out
    }

    #[test]
    fn what_tells_steps_apart_is_said_and_nothing_else() {
        let square = [("kernel_h", int(3)), ("kernel_w", int(3)), ("stride_h", int(2)), ("stride_w", int(2))];
        let dilated = [("kernel_h", int(1)), ("kernel_w", int(5)), ("dilation_w", int(2))];
        let word = |text: &str| Attribute::Str(text.to_owned());
        assert_eq!(told("clamp", &[("least", int(0))]), "clamp");
        assert_eq!(
            told(
                "conv2d",
                &[("window", dict(&square)), ("groups", int(32)), ("winograd", Attribute::Bool(false))]
            ),
            "conv2d 3x3 s2 g32"
        );
        assert_eq!(told("conv2d", &[("window", dict(&dilated)), ("groups", int(1))]), "conv2d 1x5 d1x2");
        // A transposed convolution has no window.
        assert_eq!(told("transpose_conv2d", &square), "transpose_conv2d 3x3 s2");
        assert_eq!(told("conv2d", &[("winograd", Attribute::Bool(true))]), "conv2d winograd");
        assert_eq!(told("rescale", &[("to", word("i8")), ("shifts", int(3))]), "rescale i8");
        assert_eq!(told("reduce", &[("axis", word("h")), ("kind", word("sum"))]), "reduce sum h");
        assert_eq!(told("binary", &[("kind", int(1))]), "binary");
    }
}
