//! The reference of operations, generated from the op tables.

use std::fmt::Write;

use super::{Arity, Op, OpInfo};

/// The reference as Markdown: what stands in `docs/generated/ops.md`.
pub fn markdown() -> String {
    let infos = Op::all_infos();
    let mut out = String::from(
        "# Operations\n\nGenerated from the op tables of `strata-ir`; do not edit.\n\
         Optional attributes have a default.\n",
    );
    let mut dialects: Vec<&str> = Vec::new();
    for info in &infos {
        let dialect = dialect(info);
        if !dialects.contains(&dialect) {
            dialects.push(dialect);
        }
    }
    for name in dialects {
        push(&mut out, format_args!("\n## `{name}`\n"));
        for info in infos.iter().filter(|info| dialect(info) == name) {
            push_op(&mut out, info);
        }
    }
    out
}

fn dialect(info: &OpInfo) -> &'static str {
    info.name.split('.').next().unwrap_or_default()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

/// What an attribute holds, its type in backticks where Markdown would take it for a tag of HTML:
/// `` `array<i64>` of 2 ``.
fn kind(text: &str) -> String {
    let word = |word: &str| if word.contains('<') { format!("`{word}`") } else { word.to_owned() };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A doc comment's lines without the space that follows `///`.
fn prose(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

fn push_op(out: &mut String, info: &OpInfo) {
    push(out, format_args!("\n### `{}`\n\n{}\n\n", info.name, prose(info.doc)));
    let operands: Vec<String> = info.operands.iter().map(|name| format!("`{name}`")).collect();
    let variadic =
        if matches!(info.n_operands, Arity::AtLeast(_)) { " (the last any number of times)" } else { "" };
    match operands.is_empty() {
        true => push(out, format_args!("- Operands: none\n")),
        false => push(out, format_args!("- Operands: {}{variadic}\n", operands.join(", "))),
    }
    let results = match info.n_results {
        Arity::Exactly(n) => n.to_string(),
        Arity::Any => "any number".to_owned(),
        Arity::AtLeast(n) => format!("at least {n}"),
    };
    push(out, format_args!("- Results: {results}\n"));
    push(out, format_args!("- Pretty form: `{}`\n", info.syntax.template(info.name)));
    if info.n_regions > 0 {
        push(out, format_args!("- Regions: {}\n", info.n_regions));
    }
    if info.attrs.is_empty() {
        return;
    }
    push(out, format_args!("\n| attribute | type | optional | meaning |\n|---|---|---|---|\n"));
    for attr in &info.attrs {
        let optional = if attr.optional { "yes" } else { "" };
        let meaning = prose(attr.doc).replace('\n', " ");
        push(out, format_args!("| `{}` | {} | {optional} | {meaning} |\n", attr.name, kind(&attr.kind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_and_attribute_is_described() {
        let text = markdown();
        for info in Op::all_infos() {
            assert!(text.contains(&format!("### `{}`\n", info.name)), "{}", info.name);
            assert!(!prose(info.doc).is_empty(), "{}", info.name);
            for attr in info.attrs {
                let row = format!("| `{}` | {} |", attr.name, kind(&attr.kind));
                assert!(text.contains(&row), "{row}");
                // Outside of backticks Markdown takes it for a tag of HTML.
                assert!(
                    !row.replace("`", " ` ").split(" ` ").step_by(2).any(|part| part.contains('<')),
                    "{row}"
                );
            }
        }
    }
}
