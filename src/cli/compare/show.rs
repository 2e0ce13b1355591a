//! A comparison as people read it, and as CSV.

use super::Report;
use crate::cli::console::Console;
use crate::cli::tables::{count, row, show, words};
use crate::compare::{Kind, Limits, Status, TensorComparison};
use crate::io::array::show_shape;

/// All of it, what matters most in the first line.
pub(super) fn text(report: &Report, all: bool, console: &Console) -> String {
    let tensors = &report.comparison.tensors;
    let n = tensors.len();
    let mut text = match report.beyond().next() {
        None if report.comparison.equal => {
            format!("{} and {} are equal in all {n} tensors\n", report.a, report.b)
        }
        None => format!("all {n} tensors are within the limits\n"),
        Some(first) => format!("the first that {}: {}\n", beyond(report), told(first)),
    };
    let is_shown = |tensor: &&TensorComparison| all || tensor.status != Status::Equal;
    let shown: Vec<&TensorComparison> = tensors.iter().filter(is_shown).collect();
    if !shown.is_empty() {
        text += &format!("\nA: {}\nB: {} (the reference)\n\n", report.a, report.b);
        let mut lines =
            words(&["tensor", "shape", "as", "differ", "largest", "SQNR dB", "first at", "A", "B", ""]);
        for tensor in &shown {
            row(&mut lines, &cells(tensor, &report.limits));
        }
        for at in [3, 4, 5, 7, 8] {
            if let Some(column) = lines.column_mut(at) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        lines.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        lines.set_width(console.width());
        text += &show(&lines);
    }
    let n_equal = n - tensors.iter().filter(|tensor| tensor.status != Status::Equal).count();
    if !all && n_equal > 0 && !shown.is_empty() {
        text += &format!("and {} equal tensors; --all shows them\n", count(n_equal as u64));
    }
    let without = report.comparison.n_without_reference;
    if without > 0 {
        text += &format!("{} layers of A have no value in B and were not compared\n", count(without as u64));
    }
    text
}

/// What is wrong with a tensor that is not near enough.
fn beyond(report: &Report) -> &'static str {
    if report.limits == Limits::default() { "differs" } else { "is beyond the limits" }
}

/// A tensor that is not near enough, in a line.
fn told(tensor: &TensorComparison) -> String {
    let name = match tensor.kind {
        Kind::Input => format!("input `{}`", tensor.name),
        Kind::Layer => format!("layer `{}`", tensor.name),
        Kind::Output => format!("output `{}`", tensor.name),
        Kind::Array => format!("`{}`", tensor.name),
    };
    match (tensor.status, &tensor.first) {
        (Status::OnlyA, _) => format!("{name} is in A only"),
        (Status::OnlyB, _) => format!("{name} is in B only"),
        (Status::Shapes, _) => {
            let reference = tensor.reference_shape.as_deref().unwrap_or_default();
            format!("{name} is {} in A, {} in B", show_shape(&tensor.shape), show_shape(reference))
        }
        (_, Some(first)) => {
            let (differing, n) = (count(tensor.n_differing as u64), count(tensor.n_elements as u64));
            format!(
                "{name} at {:?}: {} in A, {} in B; {differing} of {n} elements differ",
                first.index,
                number(first.a),
                number(first.b)
            )
        }
        (_, None) => name,
    }
}

fn cells(tensor: &TensorComparison, limits: &Limits) -> [String; 10] {
    let first = tensor.first.as_ref();
    let of_first = |value: fn(&crate::compare::Difference) -> String| first.map_or_else(String::new, value);
    let index = |first: &crate::compare::Difference| {
        first.index.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let kind = match tensor.kind {
        Kind::Input => "input ",
        Kind::Output => "output ",
        Kind::Layer | Kind::Array => "",
    };
    let shape = match &tensor.reference_shape {
        Some(reference) => format!("{} / {}", show_shape(&tensor.shape), show_shape(reference)),
        None => show_shape(&tensor.shape),
    };
    let note = match tensor.status {
        Status::OnlyA => "in A only".to_owned(),
        Status::OnlyB => "in B only".to_owned(),
        Status::Shapes => "other shapes".to_owned(),
        Status::Equal | Status::Differs => {
            let mut notes = Vec::new();
            if tensor.n_not_finite > 0 {
                notes.push(format!("{} NaN or infinite", tensor.n_not_finite));
            }
            if *limits != Limits::default() && !tensor.is_within(limits) {
                notes.push("beyond the limits".to_owned());
            }
            notes.join(", ")
        }
    };
    let is_compared = matches!(tensor.status, Status::Equal | Status::Differs);
    let if_compared = |text: String| if is_compared { text } else { String::new() };
    [
        format!("{kind}{}", tensor.name),
        shape,
        if_compared(if tensor.as_integers { "integers" } else { "floats" }.to_owned()),
        if_compared(format!("{} of {}", count(tensor.n_differing as u64), count(tensor.n_elements as u64))),
        if_compared(largest(tensor)),
        if_compared(match tensor.sqnr_db {
            Some(db) => format!("{db:.1}"),
            None if tensor.n_not_finite > 0 => NOT_FINITE.to_owned(),
            None => "-".to_owned(),
        }),
        of_first(index),
        of_first(|first| number(first.a)),
        of_first(|first| number(first.b)),
        note,
    ]
}

/// What stands for a figure of numbers of which one is a NaN or an infinity.
const NOT_FINITE: &str = "not finite";

/// The largest difference.
fn largest(tensor: &TensorComparison) -> String {
    match tensor.n_not_finite {
        0 => number(tensor.max_difference.unwrap_or(0.0)),
        _ => NOT_FINITE.to_owned(),
    }
}

/// A number in few digits.
fn number(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-3..1e6).contains(&number.abs());
    match () {
        () if !number.is_finite() || number.fract() == 0.0 && is_plain => number.to_string(),
        () if is_plain => {
            let text = format!("{number:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        () => format!("{number:.3e}"),
    }
}

/// The keys of a line.
const KEYS: &str = "name,kind,status,as,shape,reference_shape,n_elements,n_differing,max_difference,sqnr_db,\
                    n_not_finite,first_index,first_a,first_b\n";

/// A line a tensor; what is not known, and a ratio without noise, is empty.
pub(super) fn csv(report: &Report) -> String {
    let mut text = KEYS.to_owned();
    for tensor in &report.comparison.tensors {
        let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
        let first = tensor.first.as_ref();
        let index = first.map(|first| first.index.iter().map(ToString::to_string).collect::<Vec<_>>());
        let cells = [
            quoted(&tensor.name),
            key(&tensor.kind),
            key(&tensor.status),
            if tensor.as_integers { "integers" } else { "floats" }.to_owned(),
            show_shape(&tensor.shape),
            tensor.reference_shape.as_deref().map(show_shape).unwrap_or_default(),
            tensor.n_elements.to_string(),
            tensor.n_differing.to_string(),
            number(tensor.max_difference),
            number(tensor.sqnr_db),
            tensor.n_not_finite.to_string(),
            index.map(|index| index.join(" ")).unwrap_or_default(),
            number(first.map(|first| first.a)),
            number(first.map(|first| first.b)),
        ];
        text += &(cells.join(",") + "\n");
    }
    text
}

/// A word as JSON has it.
fn key<T: serde::Serialize>(word: &T) -> String {
    serde_json::to_value(word).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A cell of CSV.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
