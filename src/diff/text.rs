//! What differs between two texts of a module.
//!
//! Values of one layer are numbered in print order, so a pass that removes one renames others. Lines are
//! therefore matched with names left out, and then held against each other with the names that earlier
//! matched lines have given each other: what was only renamed is no change, another operand is one. Where
//! the op that gave an operand is gone, what stands in its place everywhere is taken for its new name. How
//! far a line is indented does not matter: ops that a stage or a phase is put around stay what they are.

use std::collections::BTreeMap;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices, group_diff_ops};

/// Unchanged lines that are shown around those that changed.
const CONTEXT_LINES: usize = 3;

const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// A unified diff of two texts, empty if they differ in names of values alone.
pub fn changes(before: &str, after: &str, colour: bool) -> String {
    unified(before, after, colour, matched)
}

/// A unified diff of two texts, line by line.
pub fn lines(before: &str, after: &str, colour: bool) -> String {
    unified(before, after, colour, |old, new| capture_diff_slices(Algorithm::Myers, old, new))
}

fn unified(
    before: &str,
    after: &str,
    colour: bool,
    compare: impl FnOnce(&[&str], &[&str]) -> Vec<DiffOp>,
) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut writer = Writer { old: &old, new: &new, colour, out: String::new() };
    for hunk in group_diff_ops(compare(&old, &new), CONTEXT_LINES) {
        writer.hunk(&hunk);
    }
    writer.out
}

/// The operations that make the old lines the new ones, up to names of values.
fn matched(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let masked = |lines: &[&str]| lines.iter().map(|line| mask(line)).collect::<Vec<_>>();
    let ops = capture_diff_slices(Algorithm::Patience, &masked(old), &masked(new));
    let (mut refined, mut numbers) = (Vec::new(), Renumbering::default());
    for op in ops {
        let DiffOp::Equal { old_index, new_index, len } = op else {
            op.old_range().for_each(|at| numbers.forget(old[at]));
            refined.push(op);
            continue;
        };
        for at in 0..len {
            let (old_index, new_index) = (old_index + at, new_index + at);
            let is_same = numbers.agree(old[old_index], new[new_index]);
            push_line(&mut refined, old_index, new_index, is_same);
        }
    }
    refined
}

/// Adds a pair of matched lines, to the last operation if that is of the same kind.
fn push_line(ops: &mut Vec<DiffOp>, old: usize, new: usize, is_same: bool) {
    match ops.last_mut() {
        Some(DiffOp::Equal { old_index, new_index, len })
            if is_same && *old_index + *len == old && *new_index + *len == new =>
        {
            *len += 1;
        }
        Some(DiffOp::Replace { old_index, old_len, new_index, new_len })
            if !is_same && *old_index + *old_len == old && *new_index + *new_len == new =>
        {
            (*old_len, *new_len) = (*old_len + 1, *new_len + 1);
        }
        _ if is_same => ops.push(DiffOp::Equal { old_index: old, new_index: new, len: 1 }),
        _ => ops.push(DiffOp::Replace { old_index: old, old_len: 1, new_index: new, new_len: 1 }),
    }
}

/// The names of values, in the order of a line.
fn names(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = line[at..].find(['%', '"']).map(|start| at + start) {
        let rest = &line[start + 1..];
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '-');
        at = start + 1 + rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        match &line[start..start + 1] {
            "%" => found.push(start + 1..at),
            // Names of layers may hold anything.
            "\"" => at = start + 1 + rest.find('"').map_or(rest.len(), |end| end + 1),
            _ => {}
        }
    }
    found
}

/// A line without the names of values and the blanks before it.
fn mask(line: &str) -> String {
    let (mut masked, mut at) = (String::with_capacity(line.len()), line.len() - line.trim_start().len());
    for name in names(line) {
        masked += &line[at..name.start];
        at = name.end;
    }
    masked + &line[at..]
}

/// Which new name each old one has.
#[derive(Default)]
struct Renumbering<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Renumbering<'a> {
    /// Whether two lines with the same mask say the same. Names that they define stand for each other from
    /// here on.
    fn agree(&mut self, old: &'a str, new: &'a str) -> bool {
        let mut is_same = true;
        for (of_old, of_new) in names(old).into_iter().zip(names(new)) {
            let is_defined = defines(old, &of_old);
            let (old, new) = (&old[of_old], &new[of_new]);
            match self.0.get(old) {
                Some(known) if !is_defined => is_same &= *known == new,
                _ => {
                    self.0.insert(old, new);
                }
            }
        }
        is_same
    }

    /// What a line defines is gone: its names may stand for something else from here on.
    fn forget(&mut self, old: &'a str) {
        for name in names(old).into_iter().filter(|name| defines(old, name)) {
            self.0.remove(&old[name]);
        }
    }
}

/// Whether a name of a line is defined there: a result, or an argument with its type.
fn defines(line: &str, name: &Range<usize>) -> bool {
    line[..name.start].trim_start() == "%" || line[name.end..].starts_with(':')
}

struct Writer<'a> {
    old: &'a [&'a str],
    new: &'a [&'a str],
    colour: bool,
    out: String,
}

impl Writer<'_> {
    fn hunk(&mut self, ops: &[DiffOp]) {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return };
        let span = |first: Range<usize>, last: Range<usize>| {
            let start = if first.start == last.end { first.start } else { first.start + 1 };
            format!("{start},{}", last.end - first.start)
        };
        let (old, new) =
            (span(first.old_range(), last.old_range()), span(first.new_range(), last.new_range()));
        self.line(CYAN, &format!("@@ -{old} +{new} @@"));
        for op in ops {
            if let DiffOp::Equal { .. } = op {
                for at in op.new_range() {
                    self.out += &format!(" {}\n", self.new[at]);
                }
                continue;
            }
            for at in op.old_range() {
                self.line(RED, &format!("-{}", self.old[at]));
            }
            for at in op.new_range() {
                self.line(GREEN, &format!("+{}", self.new[at]));
            }
        }
    }

    fn line(&mut self, colour: &str, text: &str) {
        self.out +=
            &if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m\n") } else { format!("{text}\n") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"func(%arg0: tensor<2xf32>)
%0 = "const"() dense_resource<i8_c0>
%1 = "identity"(%arg0)
%2 = "add"(%1, %0) loc("50% of it")
%3 = "mul"(%2, %2)
"return"(%3)
"#;

    #[test]
    fn what_is_only_renumbered_is_no_change() {
        let after = BEFORE
            .replace("%1 = \"identity\"(%arg0)\n", "")
            .replace("(%1, %0)", "(%arg0, %0)")
            .replace("%2", "%1")
            .replace("%3", "%2");
        let expected = "@@ -1,6 +1,5 @@\n \
                        func(%arg0: tensor<2xf32>)\n \
                        %0 = \"const\"() dense_resource<i8_c0>\n\
                        -%1 = \"identity\"(%arg0)\n \
                        %1 = \"add\"(%arg0, %0) loc(\"50% of it\")\n \
                        %2 = \"mul\"(%1, %1)\n \
                        \"return\"(%2)\n";
        assert_eq!(changes(BEFORE, &after, false), expected);
        assert_eq!(changes(BEFORE, BEFORE, true), "");
        assert_eq!(changes(BEFORE, &BEFORE.replace("%3", "%mul.1"), true), "");
        assert!(!changes(BEFORE, &BEFORE.replace("c0", "c5"), true).is_empty(), "other data");
    }

    #[test]
    fn what_is_wrapped_stays_what_it_is() {
        let add = "%2 = \"add\"(%1, %0)";
        let after = BEFORE.replace(add, &format!("\"stage\"() ({{\n    {add}")).replace("%3 =", "})\n%3 =");
        let shown = changes(BEFORE, &after, false);
        let changed: Vec<&str> = shown.lines().filter(|line| line.starts_with(['-', '+'])).collect();
        assert_eq!(changed, ["+\"stage\"() ({", "+})"], "{shown}");
    }

    #[test]
    fn another_operand_is_a_change() {
        let shown = changes(BEFORE, &BEFORE.replace("(%2, %2)", "(%2, %1)"), true);
        assert!(shown.contains("\u{1b}[31m-%3 = \"mul\"(%2, %2)\u{1b}[0m"), "{shown}");
        assert!(shown.contains("\u{1b}[32m+%3 = \"mul\"(%2, %1)\u{1b}[0m"), "{shown}");
        assert_eq!(shown.matches("\u{1b}[3").count(), 3, "{shown}");
    }
}
