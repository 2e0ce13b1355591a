//! What a test asks for.

use strata_ir::diag::did_you_mean;
use strata_ir::pass::{Pipeline, Registry};
use strata_ir::text::file::{self, Header};
use strata_isa_spec::Target;

/// The key of the checks that are made.
const CHECKS: &str = "CHECKS";

/// What a test does with its modules.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Prints what was read; it need not verify.
    RoundTrip,
    /// Verifies.
    Verify,
    /// Assembles a program.
    Assemble,
    /// Runs passes.
    Passes(Pipeline),
}

/// Which checks are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    pub round_trip: bool,
    pub results: bool,
    pub program: bool,
}

impl Checks {
    pub(super) const ALL: Self = Self { round_trip: true, results: true, program: true };
    const NONE: Self = Self { round_trip: false, results: false, program: false };

    fn parse(value: &str) -> Result<Self, String> {
        let mut checks = Self::NONE;
        for word in value.split([' ', ',']).filter(|word| !word.is_empty()) {
            match word {
                "round-trip" => checks.round_trip = true,
                "results" => checks.results = true,
                "program" => checks.program = true,
                "none" if value == word => {}
                _ => {
                    let known = "round-trip, results and program, or none";
                    return Err(format!("there is no check `{word}`; there are {known}"));
                }
            }
        }
        Ok(checks)
    }
}

/// What a test asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub action: Action,
    pub target: Option<Target>,
    pub checks: Checks,
}

impl Request {
    /// That of the header of a text, in which `marker` begins comments.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn read(text: &str, marker: &str, registry: &Registry) -> Result<Self, Vec<String>> {
        let (mut action, mut target, mut checks) = (None, None, None);
        let mut problems = Vec::new();
        for entry in Header::read(text, marker).entries() {
            let value = entry.value.as_str();
            let read = match entry.key.as_str() {
                file::RUN => put(&mut action, parse_action(value, registry)),
                file::TARGET => put(&mut target, self::target(value)),
                CHECKS => put(&mut checks, Checks::parse(value)),
                key => Err(unknown_key(key)),
            };
            problems.extend(read.err().map(|what| format!("line {}: {what}", entry.line)));
        }
        match action {
            Some(action) if problems.is_empty() => {
                Ok(Self { action, target, checks: checks.unwrap_or(Checks::ALL) })
            }
            None if problems.is_empty() => Err(vec![format!("no line `{marker} RUN: …` says what to run")]),
            _ => Err(problems),
        }
    }
}

/// Puts what was read in its place, unless something stands there.
fn put<T>(place: &mut Option<T>, read: Result<T, String>) -> Result<(), String> {
    if place.is_some() {
        return Err("the key stands twice".to_owned());
    }
    *place = Some(read?);
    Ok(())
}

fn unknown_key(key: &str) -> String {
    let known = [file::RUN, file::TARGET, CHECKS];
    let meant = did_you_mean(key, known).map_or(String::new(), |key| format!("did you mean {key}? "));
    format!("the key {key} is unknown; {meant}There are {}", known.join(", "))
}

fn parse_action(value: &str, registry: &Registry) -> Result<Action, String> {
    Ok(match value {
        "round-trip" => Action::RoundTrip,
        "verify" => Action::Verify,
        "assemble" => Action::Assemble,
        passes => Action::Passes(registry.parse(passes).map_err(|error| error.to_string())?),
    })
}

/// The machine that a header names: a preset, and overrides of its fields.
///
/// # Errors
/// If there is no such preset or field, or the machine is impossible.
pub fn target(value: &str) -> Result<Target, String> {
    let mut words = value.split_whitespace();
    let preset = words.next().ok_or("no target is named")?;
    let overrides = words.map(|word| {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not FIELD=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let overrides = overrides.collect::<Result<Vec<_>, String>>()?;
    Target::preset(preset, &overrides).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Vec<String>> {
        Request::read(text, "//", &crate::registry())
    }

    #[test]
    fn a_header_is_read() {
        let request = read("// RUN: canonicalise\n// TARGET: x1 memory.activation=64KiB\n// CHECKS: results");
        let request = request.expect("all of it is known");
        assert_eq!(request.target.map(|target| target.memory.activation), Some(64 << 10));
        let Checks { round_trip, results, program } = request.checks;
        assert_eq!([round_trip, results, program], [false, true, false]);
        assert!(matches!(request.action, Action::Passes(passes) if passes.passes().len() == 1));
    }

    #[test]
    fn all_that_is_wrong_with_a_header_is_told() {
        let problems = |text| read(text).expect_err("it is wrong").join("\n");
        assert!(problems("module {}").contains("no line `// RUN: …`"));
        let told = problems("// RUN: canonicalize\n// RUNS: verify\n// TARGET: x1 y\n// CHECKS: result");
        for part in
            ["line 1: column 1: there is no pass", "did you mean RUN?", "`y` is not", "check `result`"]
        {
            assert!(told.contains(part), "{told}");
        }
        assert!(problems("// RUN: verify\n// RUN: verify").contains("line 2: the key stands twice"));
    }
}
