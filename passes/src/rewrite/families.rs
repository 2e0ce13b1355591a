//! The families of rewrites of a compile, in one table: of this e-graph, of the planner's, and of the pass
//! that splits stages.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a family is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// On TOSA ops in integers, by [`rewrite-tosa`](crate::rewrite::REWRITE_TOSA): the ops change, what they
    /// compute does not.
    Semantic,
    /// On sets of stages, by `fuse-layers`: what may run together.
    Group,
    /// On stages that are too large for the target, by `split-channels`; not to be switched off, for without
    /// it they do not run.
    Stage,
}

impl Tier {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Semantic => "semantic",
            Self::Group => "group",
            Self::Stage => "stage",
        }
    }
}

/// A family of rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyInfo {
    /// Its name on the command line.
    pub name: &'static str,
    /// Where it is applied.
    pub tier: Tier,
    /// The equation.
    pub equation: &'static str,
    /// What it is for, in a sentence.
    pub doc: &'static str,
    /// Whether it is on unless switched off.
    pub default: bool,
}

/// Every family.
pub static FAMILIES: &[FamilyInfo] = &[
    FamilyInfo {
        name: "upsample",
        tier: Tier::Semantic,
        equation: "f(upsample(x)) = upsample(f(x)), f a 1x1 convolution or elementwise",
        doc: "What maps pixel to pixel runs before a nearest upsample repeats the pixels: a quarter of the \
            work at a factor of two.",
        default: true,
    },
    FamilyInfo {
        name: "concat-sum",
        tier: Tier::Semantic,
        equation: "conv(concat(a, b), [Wa | Wb]) + bias = conv(a, Wa) + (conv(b, Wb) + bias), in i32",
        doc: "A convolution over joined channels as a sum of convolutions, so that `upsample` can move the \
            part over an upsampled tensor.",
        default: true,
    },
    FamilyInfo {
        name: "sibling",
        tier: Tier::Semantic,
        equation: "f_i(conv(x, W_i)) = slice_i(f(conv(x, [W_1; W_2; ...]))), f_i a rescale and a clamp",
        doc: "Convolutions of one input in the same geometry as one: the input is read once, and the array \
            sees more output channels.",
        default: true,
    },
    FamilyInfo {
        name: "thin-input",
        tier: Tier::Semantic,
        equation: "conv(x, W) = depth_to_space(conv(space_to_depth(x), W')), W' the weights rearranged, \
            zero where a block holds more",
        doc: "Blocks of pixels as channels, for an input of few channels and for windows that become 3x3, \
            as Winograd wants them.",
        default: true,
    },
    FamilyInfo {
        name: "transposed",
        tier: Tier::Semantic,
        equation: "transpose_conv(x, W, s) = depth_to_space(conv(x, W'), s), W' the weights rearranged by \
            phase",
        doc: "A transposed convolution as a dense one of all its phases, which may then run as Winograd.",
        default: true,
    },
    FamilyInfo {
        name: "winograd-channels",
        tier: Tier::Semantic,
        equation: "conv(x, W) = conv(pad_c(x, zp), pad_c(W, 0)), up to as many channels as Winograd needs",
        doc: "Input channels that are the zero point everywhere, for a 3x3 convolution that just misses \
            Winograd.",
        default: true,
    },
    FamilyInfo {
        name: "tidy",
        tier: Tier::Semantic,
        equation: "conv(pad(x, p, zp), q) = conv(x, p + q)",
        doc: "A pad by the zero point before a convolution as the convolution's own.",
        default: true,
    },
    FamilyInfo {
        name: "group-producer-consumer",
        tier: Tier::Group,
        equation: "(feeds A B) = (fuse A B)",
        doc: "A group and a stage that reads from it, or that it reads from, as one phase.",
        default: true,
    },
    FamilyInfo {
        name: "group-sequence",
        tier: Tier::Group,
        equation: "(then A B) = (fuse A B)",
        doc: "Stages that are next to one another in the order of the data flow as one phase.",
        default: true,
    },
    FamilyInfo {
        name: "group-sibling",
        tier: Tier::Group,
        equation: "(shares A B) = (fuse A B)",
        doc: "A group and a stage that reads what it does as one phase.",
        default: true,
    },
    FamilyInfo {
        name: "channel-split",
        tier: Tier::Stage,
        equation: "conv(x, [W_1; W_2]) = concat(conv(x, W_1), conv(x, W_2))",
        doc: "Output channels of a stage whose tables are too large for weight SRAM over several stages \
            (`split-channels`).",
        default: true,
    },
];

/// The family of a name.
pub fn family(name: &str) -> Option<&'static FamilyInfo> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// Which families are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Families(BTreeSet<&'static str>);

impl Default for Families {
    fn default() -> Self {
        Self(FAMILIES.iter().filter(|family| family.default).map(|family| family.name).collect())
    }
}

/// A word that names no family, or one that cannot be switched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no family of rewrites `{0}` to switch; there are: {known}", known = switchable())]
pub struct UnknownFamily(pub String);

fn switchable() -> String {
    let switchable = FAMILIES.iter().filter(|family| family.tier != Tier::Stage);
    switchable.map(|family| family.name).collect::<Vec<_>>().join(", ")
}

impl Families {
    /// None but those that nothing runs without.
    pub fn none() -> Self {
        Self(FAMILIES.iter().filter(|family| family.tier == Tier::Stage).map(|family| family.name).collect())
    }

    /// All of them.
    pub fn all() -> Self {
        Self(FAMILIES.iter().map(|family| family.name).collect())
    }

    /// The families that a list names: `all`, `none` and `default` stand for sets, a name is added, and a
    /// name with `-` before it is taken away, from left to right. A list that begins by taking away begins
    /// with the default.
    ///
    /// # Errors
    /// If a word is no family.
    pub fn parse(text: &str, separator: char) -> Result<Self, UnknownFamily> {
        let mut words = text.split(separator).map(str::trim).filter(|word| !word.is_empty()).peekable();
        let begins = words.peek().is_none_or(|word| word.starts_with('-'));
        let mut families = if begins { Self::default() } else { Self::none() };
        for word in words {
            match word {
                "all" => families = Self::all(),
                "none" => families = Self::none(),
                "default" => families = Self::default(),
                _ => {
                    let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
                    let found = family(name).filter(|family| family.tier != Tier::Stage);
                    let found = found.ok_or_else(|| UnknownFamily(name.to_owned()))?;
                    families.set(found.name, on);
                }
            }
        }
        Ok(families)
    }

    /// The families of some names; a name that is none is passed over.
    pub fn of_names(names: &[&str]) -> Self {
        let mut families = Self::none();
        for family in FAMILIES.iter().filter(|family| names.contains(&family.name)) {
            families.set(family.name, true);
        }
        families
    }

    fn set(&mut self, name: &'static str, on: bool) {
        if on {
            self.0.insert(name);
        } else {
            self.0.remove(name);
        }
    }

    /// The same with one family on or off.
    #[must_use]
    pub fn with(mut self, family: &FamilyInfo, on: bool) -> Self {
        // The name of the table lives as long as the program.
        if let Some(known) = self::family(family.name) {
            self.set(known.name, on);
        }
        self
    }

    /// Whether a family is on.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names of a tier's that are on, in the order of the table.
    pub fn of(&self, tier: Tier) -> impl Iterator<Item = &'static str> + '_ {
        FAMILIES.iter().filter(move |f| f.tier == tier && self.has(f.name)).map(|family| family.name)
    }
}

impl From<Families> for String {
    fn from(families: Families) -> Self {
        families.to_string()
    }
}

impl TryFrom<String> for Families {
    type Error = UnknownFamily;

    fn try_from(text: String) -> Result<Self, UnknownFamily> {
        Self::parse(&text, ',')
    }
}

impl fmt::Display for Families {
    /// As [`parse`](Self::parse) reads it with `,`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<&str> =
            [Tier::Semantic, Tier::Group].into_iter().flat_map(|tier| self.of(tier)).collect();
        if on.is_empty() { f.write_str("none") } else { f.write_str(&on.join(",")) }
    }
}

/// The table as a Markdown page, for `docs/generated/rewrites.md`.
pub fn markdown() -> String {
    let mut page = "# Families of rewrites\n\nGenerated from the table of families; do not edit.\n\n\
                    Every family keeps results bit for bit.\n\
                    `strata compile --egraph-rules` switches those of the tiers `semantic` and `group`.\n\n\
                    | family | tier | on | equation | what for |\n|---|---|---|---|---|\n"
        .to_owned();
    for family in FAMILIES {
        let on = if family.default { "yes" } else { "no" };
        let equation = family.equation.replace('|', "\\|");
        page += &format!(
            "| `{}` | {} | {on} | `{equation}` | {} |\n",
            family.name,
            family.tier.name(),
            family.doc
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_add_and_take_away() {
        let parse = |text: &str| Families::parse(text, ',').map(|families| families.to_string());
        assert_eq!(parse("none").as_deref(), Ok("none"));
        assert_eq!(parse("upsample, tidy").as_deref(), Ok("upsample,tidy"));
        assert_eq!(
            parse("all,-tidy,-group-sibling").map(|s| s.contains("tidy") || s.contains("group-sibling")),
            Ok(false)
        );
        assert_eq!(parse("").as_deref(), Ok(Families::default().to_string().as_str()));
        assert!(parse("-sibling").is_ok_and(|s| s.contains("upsample") && !s.contains(",sibling,")));
        assert_eq!(parse("banana"), Err(UnknownFamily("banana".to_owned())));
        assert!(parse("-channel-split").is_err(), "nothing runs without it");
    }

    #[test]
    fn every_rule_has_its_family() {
        for rule in crate::rewrite::rules::RULES {
            for name in rule.families {
                assert_eq!(family(name).map(|f| f.tier), Some(Tier::Semantic), "{}", rule.name);
            }
        }
        for name in Families::all().of(Tier::Semantic) {
            assert!(crate::rewrite::rules::RULES.iter().any(|rule| rule.families.contains(&name)), "{name}");
        }
    }
}
