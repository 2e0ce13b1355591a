//! `strata explain`: what a code of a diagnostic means, and what to do.

use strata_ir::diag::{Code, CodeInfo, code, did_you_mean};

use super::console::Console;
use super::failure::Failure;

/// Say what a code such as E0102 means, with an example and what to do
///
/// Without a code, lists them all.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The code, or its name: E0102 or unknown-op
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match &args.code {
        Some(word) => console.print(&explained(find(word)?)),
        None => console
            .print(&code::ALL.iter().map(|code| format!("{code}  {}\n", code.0.name)).collect::<String>()),
    }
}

/// The code of an id or a name, in whatever case.
fn find(word: &str) -> Result<Code, Failure> {
    let is_it = |code: &&Code| code.id().eq_ignore_ascii_case(word) || code.0.name.eq_ignore_ascii_case(word);
    if let Some(code) = code::ALL.iter().find(is_it) {
        return Ok(*code);
    }
    let words = code::ALL.iter().flat_map(|code| [code.id(), code.0.name]);
    let (upper, lower) = (word.to_uppercase(), word.to_lowercase());
    let closest = did_you_mean(&upper, words.clone()).or_else(|| did_you_mean(&lower, words));
    let advice = match closest {
        Some(closest) => format!("did you mean `{closest}`?"),
        None => "`strata explain` lists them".to_owned(),
    };
    Err(Failure::Usage(format!("there is no code `{word}`; {advice}")))
}

fn explained(code: Code) -> String {
    let CodeInfo { id, name, doc, example, help } = code.0;
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let example: String = example.lines().map(|line| format!("    {line}\n")).collect();
    format!("{id}: {name}\n\n{doc}\n\nFor example:\n\n{example}\n{help}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_id_and_name() {
        for word in ["E0102", "e0102", "unknown-op", "Unknown-Op"] {
            assert_eq!(find(word).expect(word), code::UNKNOWN_OP);
        }
        let refused = |word: &str| find(word).expect_err(word).to_string();
        assert!(refused("unknown-ops").contains("did you mean `unknown-op`?"));
        assert!(refused("e010").contains("did you mean `E01"));
        assert!(refused("nonsense").contains("lists them"));
    }

    #[test]
    fn every_code_is_explained_in_lines_that_fit() {
        for code in code::ALL {
            let text = explained(*code);
            assert!(text.contains(code.0.example.lines().next().expect("an example")), "{text}");
        }
    }
}
