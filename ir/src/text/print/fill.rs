//! Statements broken over lines.
//!
//! A statement is written as one text in which [`BREAK`] or [`SPLIT`] stands wherever a line may end, and a
//! line feed where one must. Lines that it takes after the first are indented twice as far as a region's ops.

/// A space, or the end of a line.
pub(super) const BREAK: char = '\u{1}';

/// Nothing, or the end of a line.
pub(super) const SPLIT: char = '\u{2}';

/// Columns that a line takes, if it can be broken.
const WIDTH: usize = 100;

/// Columns by which the lines of a statement after its first are indented.
const CONTINUED: usize = 4;

/// Appends a statement that stands `indent` columns from the left, and a line feed.
pub(super) fn push_filled(out: &mut String, statement: &str, indent: usize) {
    for (index, line) in statement.split('\n').enumerate() {
        let own = indent + if index == 0 { 0 } else { CONTINUED };
        push_line(out, line, own, indent + CONTINUED + if index == 0 { 0 } else { CONTINUED });
    }
}

/// Appends a line from column `indent` on, and what does not fit from column `rest` on.
fn push_line(out: &mut String, line: &str, indent: usize, rest: usize) {
    push_spaces(out, indent);
    let mut column = indent;
    // What stands between the piece before and this one.
    let mut mark = None;
    for piece in line.split_inclusive([BREAK, SPLIT]) {
        let text = piece.trim_end_matches([BREAK, SPLIT]);
        let blank = usize::from(mark == Some(BREAK));
        if mark.is_some() && column + blank + text.len() > WIDTH {
            out.push('\n');
            push_spaces(out, rest);
            column = rest;
        } else {
            push_spaces(out, blank);
            column += blank;
        }
        out.push_str(text);
        column += text.len();
        mark = piece.chars().last().filter(|last| [BREAK, SPLIT].contains(last));
    }
    out.push('\n');
}

fn push_spaces(out: &mut String, n: usize) {
    out.extend(std::iter::repeat_n(' ', n));
}

/// A text on one line.
pub(super) fn on_one_line(text: &str) -> String {
    text.replace([BREAK, '\n'], " ").replace(SPLIT, "")
}
