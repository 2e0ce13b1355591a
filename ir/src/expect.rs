//! Expected diagnostics: what comments of a text say is wrong with it, held against what was found.
//!
//! The comments are MLIR's: `// expected-error {{part of the message}}` is about its own line, `@+2`, `@-1`
//! and the like count lines from it, `@below` and `@above` name the next line and the last before it without
//! such a comment, and `@unknown` is for what has no place. `expected-warning` is for warnings. A line may
//! have several. What is found and not expected is a mismatch, as is what is expected and not found; a part
//! matches a message if it stands in it, with its code in brackets: `no such op [E0102]`.
//!
//! The verifier tells places as the ops have them; [`with_lines`] gives them those of the text. Not supported
//! are regular expressions, notes and remarks.

use std::fmt;

use crate::Module;
use crate::diag::{Diagnostic, Place, Severity};
use crate::module::{Location, OpId};
use crate::pass::{PassError, PassFailure};

/// Something that was found to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How bad it is.
    pub severity: Severity,
    /// Its line, from 1, if it has a place.
    pub line: Option<usize>,
    /// The message, with its code in brackets if it has one.
    pub message: String,
}

impl Found {
    /// An error without a place.
    pub fn placeless(message: impl fmt::Display) -> Self {
        Self { severity: Severity::Error, line: None, message: message.to_string() }
    }

    /// That of a diagnostic.
    pub fn of(diagnostic: &Diagnostic) -> Self {
        let line = match &*diagnostic.location {
            Place::Text { line, .. } => Some(*line),
            Place::Op { file, .. } => file.as_ref().map(|(_, line, _)| *line as usize),
            Place::Unknown => None,
        };
        let message = format!("{} [{}]", diagnostic.message, diagnostic.code);
        Self { severity: diagnostic.severity, line, message }
    }

    /// Those of a pass that failed.
    pub fn of_failure(failure: &PassFailure) -> Vec<Self> {
        match failure {
            PassFailure::InvalidBefore(all) => all.0.iter().map(Self::of).collect(),
            PassFailure::Pass(PassError::Unsupported(ops)) => {
                let line = |line: u32| line as usize;
                ops.iter().map(|op| Self { line: op.line.map(line), ..Self::placeless(op) }).collect()
            }
            PassFailure::Pass(PassError::Invalid(problems)) => problems.iter().map(Self::placeless).collect(),
            other => vec![Self::placeless(other)],
        }
    }
}

/// Something that a comment says is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// How bad it is.
    pub severity: Severity,
    /// The line that it is about, from 1; `None` for what has no place.
    pub line: Option<usize>,
    /// What stands in the message.
    pub part: String,
    /// The line of the comment.
    pub comment: usize,
}

/// What is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It was expected, and not found.
    Missing(Expected),
    /// It was found, and not expected.
    Unexpected(Found),
    /// A comment that says nothing that can be expected.
    BadComment {
        /// Its line.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl Mismatch {
    /// The line that it is about, from 1.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Missing(expected) => Some(expected.line.unwrap_or(expected.comment)),
            Self::Unexpected(found) => found.line,
            Self::BadComment { line, .. } => Some(*line),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(expected) => {
                let name = name_of(expected.severity);
                write!(f, "expected {name} \"{}\" was not found", expected.part)
            }
            Self::Unexpected(found) => write!(f, "unexpected {}: {}", name_of(found.severity), found.message),
            Self::BadComment { what, .. } => f.write_str(what),
        }
    }
}

fn name_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// What is not as the comments of a text say, in the order of the lines. `marker` begins a comment: `//` in
/// the IR, `;` in assembly.
pub fn mismatches(text: &str, marker: &str, found: &[Found]) -> Vec<Mismatch> {
    let (mut expected, mut mismatches) = read(text, marker);
    for found in found {
        let meets = |expected: &Expected| {
            expected.severity == found.severity
                && expected.line == found.line
                && found.message.contains(&expected.part)
        };
        match expected.iter().position(meets) {
            Some(at) => drop(expected.remove(at)),
            None => mismatches.push(Mismatch::Unexpected(found.clone())),
        }
    }
    mismatches.extend(expected.into_iter().map(Mismatch::Missing));
    mismatches.sort_by_key(Mismatch::line);
    mismatches
}

/// What begins every such comment.
const KEY: &str = "expected-";

/// What follows [`KEY`] in a line's comment.
fn comment_of<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let (_, comment) = line.split_once(marker)?;
    comment.trim_start().strip_prefix(KEY)
}

/// Reads the comments of a text, and which of them cannot be read.
fn read(text: &str, marker: &str) -> (Vec<Expected>, Vec<Mismatch>) {
    let lines: Vec<Option<&str>> = text.lines().map(|line| comment_of(line, marker)).collect();
    let (mut expected, mut bad) = (Vec::new(), Vec::new());
    for (index, comment) in lines.iter().enumerate() {
        let mut rest = *comment;
        while let Some(text) = rest {
            match read_one(text, index, &lines) {
                Ok((one, after)) => {
                    expected.push(one);
                    rest = after.trim_start_matches([' ', '/', ';']).strip_prefix(KEY);
                }
                Err(what) => {
                    bad.push(Mismatch::BadComment { line: index + 1, what });
                    rest = None;
                }
            }
        }
    }
    (expected, bad)
}

/// Reads one expectation; gives the rest of the text too. `index` is that of its line.
fn read_one<'a>(text: &'a str, index: usize, lines: &[Option<&str>]) -> Result<(Expected, &'a str), String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    let severity = match &text[..end] {
        "error" => Severity::Error,
        "warning" => Severity::Warning,
        other => return Err(format!("`{KEY}{other}` is unknown; there are {KEY}error and {KEY}warning")),
    };
    let wanted = || format!("`{KEY}{}` is followed by a place, such as @+1, and {{{{text}}}}", &text[..end]);
    let (place, rest) = text[end..].split_once("{{").ok_or_else(wanted)?;
    let (part, rest) = rest.split_once("}}").ok_or_else(wanted)?;
    let line = line_of(place.trim(), index, lines)?;
    Ok((Expected { severity, line, part: part.trim().to_owned(), comment: index + 1 }, rest))
}

/// The line that a place names, seen from the line of an index.
fn line_of(place: &str, index: usize, lines: &[Option<&str>]) -> Result<Option<usize>, String> {
    let is_plain = |at: &usize| lines.get(*at).is_some_and(Option::is_none);
    let line = match place {
        "" => Some(index),
        "@unknown" => return Ok(None),
        "@below" => (index + 1..lines.len()).find(is_plain),
        "@above" => (0..index).rev().find(is_plain),
        _ => {
            let offset = place.strip_prefix('@').filter(|offset| offset.starts_with(['+', '-']));
            let offset: Option<isize> = offset.and_then(|offset| offset.parse().ok());
            let offset = offset.ok_or_else(|| {
                format!("`{place}` is no place; there are @+N, @-N, @below, @above and @unknown")
            })?;
            index.checked_add_signed(offset).filter(|&line| line < lines.len())
        }
    };
    line.map(|line| Some(line + 1)).ok_or_else(|| format!("there is no line `{place}` of this one"))
}

/// A copy in which every op has its line of the text it was read from as its place, and its name if it had
/// one. Ops stand in the text in the order of a walk, each named once before its operands.
pub fn with_lines(module: &Module, text: &str) -> Module {
    let mut module = module.clone();
    let ops: Vec<OpId> = module.walk(module.body());
    let (mut at, mut line) = (0, 1);
    for op in ops {
        let data = module.op(op);
        // What is not found under its name keeps its place: another spelling, which the parser may know.
        let Some(found) = find_name(text, at, data.op.name()) else { continue };
        line += text[at..found].matches('\n').count();
        at = found + 1;
        let name = data.loc.name().unwrap_or_default().to_owned();
        module.op_mut(op).loc = Location::in_file(name, "input", u32::try_from(line).unwrap_or(u32::MAX), 0);
    }
    module
}

/// Where the name of an op stands next, at or after a place: as a whole word and not in a comment.
fn find_name(text: &str, from: usize, name: &str) -> Option<usize> {
    let short = if name == "func.return" { "return" } else { name };
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '-' | '#' | '!');
    let mut at = from;
    loop {
        let found = at + text[at..].find(short)?;
        let before = text[..found].strip_suffix("func.").filter(|_| short != name);
        let before = before.unwrap_or(&text[..found]);
        let after = &text[found + short.len()..];
        let is_whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        let line = before.rsplit('\n').next().unwrap_or_default();
        if is_whole && !line.contains("//") {
            return Some(found);
        }
        at = found + short.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::code;
    use crate::{text, verify};

    fn found(line: Option<usize>, message: &str) -> Found {
        Found { severity: Severity::Error, line, message: message.to_owned() }
    }

    fn shown(text: &str, found: &[Found]) -> Vec<String> {
        let line = |mismatch: &Mismatch| mismatch.line().map_or("?".to_owned(), |line| line.to_string());
        mismatches(text, "//", found).iter().map(|m| format!("{}: {m}", line(m))).collect()
    }

    #[test]
    fn places_count_from_the_comment() {
        let text = "a // expected-error {{one}}\n// expected-error@+2 {{two}} expected-error@-1 {{three}}\n\
                    // expected-error@below {{four}}\nb\n// expected-error@above {{five}}\n\
                    // expected-error@unknown {{six}}";
        let all = [(1, "one"), (4, "two"), (1, "three"), (4, "four"), (4, "five")];
        let mut all: Vec<Found> = all.iter().map(|(line, what)| found(Some(*line), what)).collect();
        all.push(found(None, "and six"));
        assert_eq!(mismatches(text, "//", &all), []);
        let assembly = text.replace("//", ";");
        assert_eq!(mismatches(&assembly, ";", &all), []);
        assert_eq!(shown(text, &all[1..]), ["1: expected error \"one\" was not found"]);
        assert_eq!(shown(text, &all[..5]), ["6: expected error \"six\" was not found"]);
        assert_eq!(mismatches("a // expected {{x}}", "//", &[]), []);
    }

    #[test]
    fn each_expectation_is_met_once() {
        let text = "// expected-error@+1 {{bad}}\nx";
        let twice = [found(Some(2), "bad [E1]"), found(Some(2), "bad [E2]")];
        assert_eq!(shown(text, &twice), ["2: unexpected error: bad [E2]"]);
        let elsewhere = ["2: expected error \"bad\" was not found", "3: unexpected error: bad"];
        assert_eq!(shown(text, &[found(Some(3), "bad")]), elsewhere);
        let warning = Found { severity: Severity::Warning, ..found(Some(2), "bad") };
        assert_eq!(shown(text, &[warning]).len(), 2, "a warning is no error");
    }

    #[test]
    fn comments_that_say_nothing_are_told() {
        let texts = [
            ("// expected-note {{x}}", "is unknown"),
            ("// expected-error-re {{x}}", "is unknown"),
            ("// expected-error x", "is followed by"),
            ("// expected-error {{x}", "is followed by"),
            ("// expected-error@1 {{x}}", "is no place"),
            ("// expected-error@-1 {{x}}", "there is no line"),
            ("// expected-error@below {{x}}", "there is no line"),
        ];
        for (text, what) in texts {
            let shown = shown(text, &[]);
            assert!(shown.len() == 1 && shown[0].contains(what), "{text}: {shown:?}");
        }
    }

    #[test]
    fn diagnostics_have_their_code() {
        let place = Place::in_text("a\nb", 2..3);
        let diagnostic = Diagnostic::error(code::SHAPE, "a shape").at(place);
        assert_eq!(Found::of(&diagnostic), found(Some(2), "a shape [E0302]"));
    }

    /// What is wrong on which line, whatever the form.
    #[test]
    fn ops_are_found_in_their_text() {
        let generic = r#""builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32>, %y: tensor<3xf32>):
    // A "tosa.add"(%x, %y) that fits.
    %0 = "tosa.add"(%x, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %1 = "tosa.add"(%x, %y) : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32> loc("tosa.add")
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) {strata.level = "import"} : () -> ()
"#;
        let own = "module {
  func.func @main(%x: tensor<2xf32>, %y: tensor<3xf32>) -> tensor<2xf32> {
    %0 = tosa.add %x, %x : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %1 = tosa.add %x, %y : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>
    return %y : tensor<3xf32>
  }
}
";
        for (text, lines) in [(generic, &[6][..]), (own, &[4, 5])] {
            let module = text::parse(text, None).expect("it parses");
            let errors = verify(&with_lines(&module, text)).expect_err("shapes differ");
            let mut found: Vec<_> = errors.0.iter().map(|error| Found::of(error).line).collect();
            found.sort_unstable();
            assert_eq!(found, lines.iter().map(|line| Some(*line)).collect::<Vec<_>>(), "{errors}");
        }
    }
}
