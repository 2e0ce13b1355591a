//! Diagnostics: what is wrong with an input, where, and what would help.
//!
//! The parser and the verifier return [`Diagnostic`]s, as many as they find. Every one has a [`Code`]; a code
//! is declared once, with its explanation and an example, by [`codes!`](crate::codes); other crates declare
//! their own tables with the same macro. [`render`] writes diagnostics for people, with the offending source
//! line where there is one; `Diagnostic` serialises for programs. Nothing here prints.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::{Serialize, Serializer};

use crate::module::Location;

/// One row of a table of codes.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// What is printed, such as `E0101`.
    pub id: &'static str,
    /// Its meaning in a few words, kebab-case.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// A text that has this error.
    pub example: &'static str,
    /// What to do about it.
    pub help: &'static str,
}

/// The kind of a diagnostic. Codes compare by their row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub &'static CodeInfo);

impl Code {
    /// What is printed, such as `E0101`.
    pub fn id(self) -> &'static str {
        self.0.id
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.id)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.id)
    }
}

/// Declares a table of codes: one constant a row, and `ALL`.
///
/// ```
/// strata_ir::codes! {
///     /// The cat sat on it.
///     CAT = "E9001", "cat" { example: "the cat", help: "Lift it." }
/// }
/// assert_eq!(CAT.id(), "E9001");
/// ```
#[macro_export]
macro_rules! codes {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $id:literal, $text:literal { example: $example:expr, help: $help:expr $(,)? }
    )+) => {
        $(
            $(#[doc = $doc])+
            pub const $name: $crate::diag::Code = $crate::diag::Code(&$crate::diag::CodeInfo {
                id: $id,
                name: $text,
                doc: concat!($($doc, "\n"),+),
                example: $example,
                help: $help,
            });
        )+
        /// Every code of this table.
        pub const ALL: &[$crate::diag::Code] = &[$($name),+];
    };
}

pub mod code;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input is not accepted.
    Error,
    /// It is accepted, and probably not what was meant.
    Warning,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Nowhere in particular.
    Unknown,
    /// In a text.
    Text {
        /// Bytes.
        span: Range<usize>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// At an op of a module.
    Op {
        /// The op as it would be printed, shortened: `%4 = "tosa.add"(%1, %2) in @main`.
        op: String,
        /// The source node's name, if known.
        name: Option<String>,
        /// The source file, line (for ONNX, the node's index) and column, if known.
        file: Option<(String, u32, u32)>,
    },
}

impl Place {
    /// The place of an op, given how it is printed.
    pub fn of_op(op: impl Into<String>, loc: &Location) -> Self {
        Self::Op {
            op: op.into(),
            name: loc.name().map(str::to_owned),
            file: loc.file().map(|(file, line, column)| (file.to_owned(), line, column)),
        }
    }

    /// The place of bytes of a text.
    pub fn in_text(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self::Text {
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Text { line, column, .. } => write!(f, "{line}:{column}"),
            Self::Op { op, name, file } => {
                match (name, file) {
                    (Some(name), Some((file, line, _))) => write!(f, "`{name}` ({file}:{line}): ")?,
                    (Some(name), None) => write!(f, "`{name}`: ")?,
                    (None, Some((file, line, column))) => write!(f, "{file}:{line}:{column}: ")?,
                    (None, None) => {}
                }
                f.write_str(op)
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub location: Box<Place>,
    /// What is wrong, in one line.
    pub message: String,
    /// More to know.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            location: Box::new(Place::Unknown),
            message: message.into(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.location = Box::new(place);
        self
    }

    /// The same with a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.location {
            Place::Unknown => write!(f, "{} [{}]", self.message, self.code),
            place => write!(f, "{place}: {} [{}]", self.message, self.code),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// One or more diagnostics as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "\n" })?;
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The closest of `candidates` to `word`, if one is close enough to be what was meant.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance; words of more than 64 characters are as far apart as can be.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(65).collect();
    if b.len() > 64 || a.chars().take(65).count() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Lines longer than this are cut around the place that a message points at.
const MAX_SNIPPET_CHARS: usize = 160;

/// Diagnostics for people: with the line of `source` (its name and text) that each points at, if it does; in
/// colour if `color`.
pub fn render(diagnostics: &[Diagnostic], source: Option<(&str, &str)>, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let blocks: Vec<String> =
        diagnostics.iter().map(|diagnostic| renderer.render(&[group(diagnostic, source)])).collect();
    blocks.join("\n\n")
}

fn group<'a>(diagnostic: &'a Diagnostic, source: Option<(&'a str, &'a str)>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.id());
    let mut group = match (&*diagnostic.location, source) {
        (Place::Text { span, line, .. }, Some((name, text))) => {
            let (window, span) = excerpt(text, span);
            title.element(
                Snippet::source(window)
                    .line_start(*line)
                    .path(name)
                    .annotation(AnnotationKind::Primary.span(span)),
            )
        }
        (Place::Unknown, Some((name, _))) => title.element(Origin::path(name)),
        (Place::Unknown, None) => Group::with_title(title),
        (place, _) => title.element(Origin::path(place.to_string())),
    };
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The line of `text` on which `span` starts, cut if it is long, and the span in it.
fn excerpt<'a>(text: &'a str, span: &Range<usize>) -> (&'a str, Range<usize>) {
    let start = text.floor_char_boundary(span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let from = line_start.max(text.floor_char_boundary(start.saturating_sub(MAX_SNIPPET_CHARS / 2)));
    let to = line_end.min(text.ceil_char_boundary(start.saturating_add(MAX_SNIPPET_CHARS / 2)));
    let end = text.floor_char_boundary(span.end).clamp(start, to);
    (&text[from..to], start - from..end - from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{text, verify};

    #[test]
    fn codes_are_unique_and_explained() {
        let ids: BTreeSet<_> = code::ALL.iter().map(|c| c.id()).collect();
        let names: BTreeSet<_> = code::ALL.iter().map(|c| c.0.name).collect();
        assert_eq!((ids.len(), names.len()), (code::ALL.len(), code::ALL.len()));
        assert!(code::ALL.iter().all(|c| c.0.doc.trim().len() > 20 && c.0.help.len() > 20));
    }

    /// An example of a code has that error first.
    #[test]
    fn examples_have_their_error() {
        for code in code::ALL {
            let checked = text::parse(code.0.example, None).and_then(|module| verify(&module));
            let errors = checked.expect_err(code.id());
            assert_eq!(errors.0[0].code, *code, "{errors}");
        }
    }

    #[test]
    fn close_words_are_suggested() {
        assert_eq!(did_you_mean("tosa.conv2", ["tosa.conv2d", "tosa.concat"]), Some("tosa.conv2d"));
        assert_eq!(did_you_mean("tosa.variable", ["tosa.add"]), None);
    }

    #[test]
    fn text_places_count_lines_and_characters() {
        let place = Place::in_text("ab\né x", 6..7);
        assert_eq!(place.to_string(), "2:3");
    }

    #[test]
    fn rendering_points_at_the_source() {
        let text = "first\n  second third\n";
        let diagnostic = Diagnostic::error(code::SYNTAX, "no such word")
            .at(Place::in_text(text, 8..14))
            .note("words are numbers")
            .help("write `2`");
        insta::assert_snapshot!(render(&[diagnostic], Some(("a.mlir", text)), false), @r"
        error[E0101]: no such word
         --> a.mlir:2:3
          |
        2 |   second third
          |   ^^^^^^
          |
          = note: words are numbers
          = help: write `2`
        ");
    }

    #[test]
    fn rendering_names_the_node() {
        let loc = Location::in_file("conv1", "m.onnx", 12, 0);
        let diagnostic =
            Diagnostic::error(code::SHAPE, "a shape").at(Place::of_op("%4 = \"tosa.add\" in @main", &loc));
        insta::assert_snapshot!(render(&[diagnostic], None, false), @r#"
        error[E0302]: a shape
        --> `conv1` (m.onnx:12): %4 = "tosa.add" in @main
        "#);
    }

    #[test]
    fn a_giant_line_is_cut() {
        let text = format!("{}X{}", "é".repeat(5000), "b".repeat(5000));
        let diagnostic = Diagnostic::error(code::SYNTAX, "m").at(Place::in_text(&text, 10_000..10_001));
        assert!(render(&[diagnostic], Some(("f", &text)), false).chars().count() < 1000);
    }

    #[test]
    fn diagnostics_serialise() {
        let diagnostic = Diagnostic::error(code::SYNTAX, "m").at(Place::in_text("ab", 1..2));
        let json = serde_json::to_value(&diagnostic).expect("plain data serialises");
        let want = serde_json::json!({
            "code": "E0101", "severity": "error", "message": "m", "notes": [], "help": null,
            "location": {"text": {"span": {"start": 1, "end": 2}, "line": 1, "column": 2}},
        });
        assert_eq!(json, want);
    }
}
