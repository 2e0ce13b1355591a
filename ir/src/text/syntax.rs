//! What printer and parser share of MLIR's lexical rules.

use std::fmt::Write;

/// Appends `text` as an MLIR string literal: `\`, `"` and control characters are escaped as two hex digits a
/// byte (`\\` for the backslash); other characters stand for themselves.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\22"),
            c if c.is_ascii_control() => push_hex_escape(out, c as u8),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_hex_escape(out: &mut String, byte: u8) {
    write!(out, "\\{byte:02X}").expect("writing to a string does not fail");
}

/// [`push_quoted`] as a new string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Whether `text` may stand unquoted as an attribute's or a resource's name.
pub(crate) fn is_bare_id(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.'))
}

/// Appends a name, quoted unless it is a bare identifier.
pub(crate) fn push_name(out: &mut String, name: &str) {
    if is_bare_id(name) {
        out.push_str(name);
    } else {
        push_quoted(out, name);
    }
}

/// Appends a float in the shortest decimal form that reads back to the same bits, or in hex if it is infinite
/// or not a number.
pub(crate) fn push_f64(out: &mut String, value: f64) {
    if value.is_finite() {
        push_decimal(out, &format!("{value:?}"));
    } else {
        write!(out, "0x{:016X}", value.to_bits()).expect("writing to a string does not fail");
    }
}

/// [`push_f64`] for single precision. MLIR reads decimals as doubles and then rounds to single, so a shortest
/// form that this double rounding would change is written with the digits of the exact value instead.
pub(crate) fn push_f32(out: &mut String, value: f32) {
    if !value.is_finite() {
        write!(out, "0x{:08X}", value.to_bits()).expect("writing to a string does not fail");
        return;
    }
    let shortest = format!("{value:?}");
    let rounds_back = shortest.parse::<f64>().is_ok_and(|v| (v as f32).to_bits() == value.to_bits());
    if rounds_back {
        push_decimal(out, &shortest);
    } else {
        push_decimal(out, &format!("{:?}", f64::from(value)));
    }
}

/// MLIR wants a point before an exponent: `1e-7` becomes `1.0e-7`.
fn push_decimal(out: &mut String, digits: &str) {
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => {
            write!(out, "{mantissa}.0e{exponent}").expect("writing to a string does not fail");
        }
        _ => out.push_str(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32_text(value: f32) -> String {
        let mut out = String::new();
        push_f32(&mut out, value);
        out
    }

    #[test]
    fn floats_always_have_a_point_or_are_hex() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-7, "1.0e-7"),
            (1.5e30, "1.5e30"),
            (f32::INFINITY, "0x7F800000"),
            (f32::NEG_INFINITY, "0xFF800000"),
            (f32::from_bits(0x7FC0_1234), "0x7FC01234"),
        ];
        for (value, want) in cases {
            assert_eq!(f32_text(value), want);
        }
    }

    #[test]
    fn strings_escape_what_mlir_escapes() {
        assert_eq!(quoted("a\"b\\c\n\u{1}é"), "\"a\\22b\\\\c\\0A\\01é\"");
    }

    #[test]
    fn names_are_quoted_when_they_must_be() {
        assert!(is_bare_id("strata.name_1$"));
        for odd in ["", "1x", "a b", "a-b", "é", ".a"] {
            assert!(!is_bare_id(odd), "{odd:?}");
        }
    }
}
