//! The table of all passes. A pass declares its row beside its code; [`REGISTRY`] lists the rows. The pipeline
//! parser, the command line's help and `docs/generated/passes.md` derive from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Pass, Phase};
use crate::rewrite::Families;

/// What a pass declares of itself.
#[derive(Debug)]
pub struct PassInfo {
    /// Its name, a kebab-case imperative.
    pub name: &'static str,
    /// What it does: a first sentence, then details.
    pub doc: &'static str,
    /// The phases at which it may run.
    pub takes: &'static [Phase],
    /// The phase it gives; `None` if the phase stays what it was.
    pub gives: Option<Phase>,
    /// The options it takes.
    pub options: &'static [OptionInfo],
    /// Makes the pass from its options.
    pub build: fn(&PassOptions) -> Box<dyn Pass>,
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptionKind {
    /// `true` or `false`; the key alone means `true`.
    Bool,
    /// A whole number in an inclusive range.
    Integer(i64, i64),
    /// A number in an inclusive range.
    Number(f64, f64),
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Names of [families](crate::rewrite::FAMILIES) of rewrites, joined by `+`.
    Families,
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
            Self::Families => Families::parse(text, '+').is_ok(),
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
            Self::Families => {
                "families joined by `+`, with `-` before those to leave out; `all`, `none` or `default`"
                    .to_owned()
            }
        }
    }
}

/// The options of one pass in a pipeline: a value for every option that the pass declares, checked against its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassOptions {
    values: BTreeMap<&'static str, String>,
}

impl PassOptions {
    /// The defaults of a pass.
    pub fn defaults(info: &PassInfo) -> Self {
        Self { values: info.options.iter().map(|option| (option.name, option.default.to_owned())).collect() }
    }

    /// Sets an option that the pass declares.
    pub(crate) fn set(&mut self, option: &OptionInfo, value: String) {
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

/// Every pass, in the order in which a compile runs them.
pub static REGISTRY: &[&PassInfo] = &[
    &crate::canonicalise::CANONICALISE,
    &crate::equalise::EQUALISE,
    &crate::quantise::QUANTISE,
    &crate::rewrite::REWRITE_TOSA,
    &crate::stages::FORM_STAGES,
    &crate::stages::split::SPLIT_CHANNELS,
    &crate::plan::FUSE_LAYERS,
    &crate::schedule::SCHEDULE,
    &crate::stages::erase::ERASE_WRAPPERS,
];

/// The pass of a name.
pub fn find(name: &str) -> Option<&'static PassInfo> {
    REGISTRY.iter().copied().find(|info| info.name == name)
}

/// The registry as a Markdown page, for `docs/generated/passes.md`.
pub fn markdown() -> String {
    let mut page = "# Passes\n\nGenerated from the pass registry; do not edit.\n".to_owned();
    for info in REGISTRY {
        let takes = info.takes.iter().map(|phase| phase.name()).collect::<Vec<_>>().join(", ");
        let gives = info.gives.map_or("the same phase", Phase::name);
        // Writing to a `String` cannot fail.
        let _ = write!(page, "\n## `{}`\n\n{}\n\nTakes: {takes}. Gives: {gives}.\n", info.name, info.doc);
        if !info.options.is_empty() {
            page.push_str("\n| option | values | default | meaning |\n|---|---|---|---|\n");
        }
        for option in info.options {
            let values = option.kind.describe().replace('|', "\\|");
            let _ =
                writeln!(page, "| `{}` | {values} | `{}` | {} |", option.name, option.default, option.doc);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        let kebab =
            |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        for (at, info) in REGISTRY.iter().enumerate() {
            assert!(kebab(info.name), "{}", info.name);
            assert!(!info.doc.is_empty() && !info.takes.is_empty(), "{}", info.name);
            assert!(
                REGISTRY[..at].iter().all(|other| other.name != info.name),
                "{} is there twice",
                info.name
            );
            for option in info.options {
                assert!(kebab(option.name), "{}", option.name);
                assert_eq!(option.kind.check(option.default), Ok(()), "default of {}", option.name);
            }
            let pass = (info.build)(&PassOptions::defaults(info));
            assert!(std::ptr::eq(pass.info(), *info), "{} builds another pass", info.name);
        }
    }

    #[test]
    fn page_names_every_pass() {
        let page = markdown();
        for info in REGISTRY {
            assert!(page.contains(&format!("## `{}`", info.name)));
        }
    }
}
