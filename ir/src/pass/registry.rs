//! What passes declare of themselves, and the registry that lists them.
//!
//! A pass declares its [`PassInfo`] beside its code; whoever composes a compiler makes a [`Registry`] of
//! those of all crates, and of a user's own. The parser of pipelines, the command line's help and
//! `docs/generated/passes.md` derive from it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::{Level, Pass};
use crate::diag::did_you_mean;

/// What a pass declares of itself.
#[derive(Debug)]
pub struct PassInfo {
    /// Its name, a kebab-case imperative.
    pub name: &'static str,
    /// What it does: a first sentence, then details.
    pub doc: &'static str,
    /// The levels at which it may run.
    pub takes: &'static [Level],
    /// The level it gives; `None` if the level stays what it was.
    pub gives: Option<Level>,
    /// The options it takes.
    pub options: &'static [OptionInfo],
    /// Makes the pass from its options.
    pub build: fn(&PassOptions) -> Arc<dyn Pass>,
}

/// One option of a pass.
#[derive(Debug)]
pub struct OptionInfo {
    /// Its key in a pipeline, in kebab-case.
    pub name: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// The value when a pipeline does not give one, as it would be written there.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// What values an option takes.
#[derive(Clone, Copy, Debug)]
pub enum OptionKind {
    /// `true` or `false`; the key alone means `true`.
    Bool,
    /// A whole number in an inclusive range.
    Integer(i64, i64),
    /// A number in an inclusive range.
    Number(f64, f64),
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A text of the pass's own.
    Text {
        /// Whether a text is one.
        accepts: fn(&str) -> bool,
        /// Such texts in words.
        description: &'static str,
    },
}

impl OptionKind {
    /// Whether a text is such a value; the error says what would be.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(self, text: &str) -> Result<(), String> {
        let fits = match self {
            Self::Bool => matches!(text, "true" | "false"),
            Self::Integer(least, greatest) => {
                text.parse().is_ok_and(|value: i64| (least..=greatest).contains(&value))
            }
            Self::Number(least, greatest) => {
                text.parse().is_ok_and(|value: f64| (least..=greatest).contains(&value))
            }
            Self::Choice(words) => words.contains(&text),
            Self::Text { accepts, .. } => accepts(text),
        };
        if fits { Ok(()) } else { Err(self.describe()) }
    }

    /// The values in words.
    pub fn describe(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Integer(least, greatest) => format!("a whole number from {least} to {greatest}"),
            Self::Number(least, greatest) => format!("a number from {least} to {greatest}"),
            Self::Choice(words) => words.join(" | "),
            Self::Text { description, .. } => description.to_owned(),
        }
    }
}

/// The options of one pass in a pipeline: a value for every option that the pass declares, checked against
/// its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassOptions {
    values: BTreeMap<&'static str, String>,
}

impl PassOptions {
    /// The defaults of a pass.
    pub fn defaults(info: &PassInfo) -> Self {
        Self { values: info.options.iter().map(|option| (option.name, option.default.to_owned())).collect() }
    }

    /// These options, with another value of one of them.
    ///
    /// # Panics
    /// If the pass does not declare the option.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        let old = self.values.get_mut(name);
        *old.unwrap_or_else(|| panic!("a pass sets the options it declares, not `{name}`")) =
            value.to_string();
        self
    }

    /// Sets an option that the pass declares.
    pub(super) fn set(&mut self, option: &OptionInfo, value: String) {
        self.values.insert(option.name, value);
    }

    /// Every option with its value, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// An option's value as text.
    ///
    /// # Panics
    /// If the pass does not declare the option.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("a pass reads the options it declares, not `{name}`"))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> T {
        let checked = self.text(name).parse().ok();
        checked.unwrap_or_else(|| panic!("option `{name}` is read as the kind that it declares"))
    }

    /// A [`OptionKind::Bool`]'s value.
    ///
    /// # Panics
    /// If the pass does not declare such an option.
    pub fn flag(&self, name: &str) -> bool {
        self.parsed(name)
    }

    /// An [`OptionKind::Integer`]'s value.
    ///
    /// # Panics
    /// If the pass does not declare such an option.
    pub fn integer(&self, name: &str) -> i64 {
        self.parsed(name)
    }

    /// An [`OptionKind::Number`]'s value.
    ///
    /// # Panics
    /// If the pass does not declare such an option.
    pub fn number(&self, name: &str) -> f64 {
        self.parsed(name)
    }
}

/// All passes of a compiler, by name.
#[derive(Clone, Debug)]
pub struct Registry {
    passes: Vec<&'static PassInfo>,
}

impl Registry {
    /// The registry of some passes, those first that run first: of two that take the same level, the one that
    /// is given first.
    ///
    /// # Panics
    /// If two have one name.
    pub fn new(passes: impl IntoIterator<Item = &'static PassInfo>) -> Self {
        let mut passes: Vec<&'static PassInfo> = passes.into_iter().collect();
        passes.sort_by_key(|info| info.takes.first().copied());
        let mut names: Vec<&str> = passes.iter().map(|info| info.name).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert!(pair[0] != pair[1], "two passes are called `{}`", pair[0]);
        }
        Self { passes }
    }

    /// This registry with more passes, such as a user's own.
    ///
    /// # Panics
    /// If two have one name.
    pub fn with(self, passes: impl IntoIterator<Item = &'static PassInfo>) -> Self {
        Self::new(self.passes.into_iter().chain(passes))
    }

    /// The passes.
    pub fn passes(&self) -> &[&'static PassInfo] {
        &self.passes
    }

    /// The pass of a name.
    pub fn find(&self, name: &str) -> Option<&'static PassInfo> {
        self.passes.iter().copied().find(|info| info.name == name)
    }

    /// The pass whose name is closest to a word that is no pass's, if one is close enough to be meant.
    pub fn closest(&self, word: &str) -> Option<&'static str> {
        did_you_mean(word, self.passes.iter().map(|info| info.name))
    }

    /// A Markdown page of all passes, for `docs/generated/passes.md`.
    pub fn markdown(&self) -> String {
        let mut page = "# Passes\n\nGenerated from the pass registry; do not edit.\n".to_owned();
        for info in &self.passes {
            let takes = info.takes.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
            let gives = info.gives.map_or("the same level", Level::name);
            // Writing to a `String` cannot fail.
            let _ = write!(page, "\n## `{}`\n\n{}\n\nTakes: {takes}. Gives: {gives}.\n", info.name, info.doc);
            if !info.options.is_empty() {
                page.push_str("\n| option | values | default | meaning |\n|---|---|---|---|\n");
            }
            for option in info.options {
                let OptionInfo { name, default, doc, .. } = option;
                let values = option.kind.describe().replace('|', "\\|");
                let _ = writeln!(page, "| `{name}` | {values} | `{default}` | {doc} |");
            }
        }
        page
    }

    /// What is wrong with what passes declare: names that are not kebab-case, defaults that their option does
    /// not take, passes that come of other passes' options or lose their own.
    pub fn faults(&self) -> Vec<String> {
        self.passes.iter().flat_map(|info| faults_of(info)).collect()
    }
}

fn faults_of(info: &'static PassInfo) -> Vec<String> {
    let is_kebab =
        |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let mut faults = Vec::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            faults.push(format!("`{}`: {what}", info.name));
        }
    };
    need(is_kebab(info.name), "its name is not kebab-case".to_owned());
    need(!info.doc.is_empty() && !info.takes.is_empty(), "it has no doc, or takes no level".to_owned());
    let mut tried = vec![PassOptions::defaults(info)];
    for OptionInfo { name, kind, default, .. } in info.options {
        need(is_kebab(name), format!("the name of `{name}` is not kebab-case"));
        need(kind.check(default).is_ok(), format!("`{name}` does not take its default"));
        let others: Vec<String> = match kind {
            OptionKind::Bool => vec!["true".to_owned(), "false".to_owned()],
            OptionKind::Integer(least, greatest) => vec![least.to_string(), greatest.to_string()],
            OptionKind::Number(least, greatest) => vec![least.to_string(), greatest.to_string()],
            OptionKind::Choice(words) => words.iter().map(|&word| word.to_owned()).collect(),
            OptionKind::Text { .. } => Vec::new(),
        };
        tried.extend(others.into_iter().map(|value| PassOptions::defaults(info).with(name, value)));
    }
    for options in tried {
        let pass = (info.build)(&options);
        need(std::ptr::eq(pass.info(), info), "it builds another pass".to_owned());
        need(
            (info.build)(&pass.options()).options() == pass.options(),
            format!("a pass of {options:?} has other options once it is made again"),
        );
    }
    faults
}
