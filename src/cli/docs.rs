//! `strata docs`: the pages of `docs/generated`, written or checked.
//!
//! Whatever is declared once in a table has its page derived from there; a test keeps the pages from going
//! stale.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use strata_frontend::host::verified;
use strata_frontend::import::{self, supported_ops};
use strata_frontend::zoo::ZooModel;
use strata_ir::diag::{CodeInfo, code};
use strata_isa_spec::{Target, asm, describe};

use super::console::Console;
use super::failure::Failure;
use crate::io::write_atomic;
use crate::registry;

/// Write the generated documentation, or check that it is not stale
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only compare; exit code 1 if a page is stale
    #[arg(long)]
    check: bool,
    /// Where the pages stand
    #[arg(long, default_value = "docs/generated", value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    if args.check {
        let stale = stale(&args.dir);
        return if stale.is_empty() {
            Ok(())
        } else {
            let list = stale.join(", ");
            Err(Failure::Failed(format!("stale in {}: {list}; run `strata docs`", args.dir.display())))
        };
    }
    crate::io::create_folder(&args.dir)?;
    for (name, text) in pages() {
        write_atomic(&args.dir.join(name), text.as_bytes())?;
    }
    console.summary(&format!("wrote {}\n", args.dir.display()))
}

/// Pages of a folder that are missing or not what they should be.
fn stale(folder: &Path) -> Vec<&'static str> {
    let is_current = |(name, text): &(&str, String)| {
        std::fs::read_to_string(folder.join(name)).is_ok_and(|found| found == *text)
    };
    pages().into_iter().filter(|page| !is_current(page)).map(|(name, _)| name).collect()
}

fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("cli.md", command_line()),
        ("codes.md", codes()),
        ("isa.json", describe::json()),
        ("isa.md", asm::manual()),
        ("onnx.md", onnx()),
        ("ops.md", strata_ir::dialect::doc::markdown()),
        ("passes.md", registry().markdown()),
        ("rewrites.md", strata_passes::rewrite::families::markdown()),
        ("targets.md", targets()),
        ("zoo.md", zoo()),
    ]
}

fn command_line() -> String {
    let mut page = "# The command line\n\nGenerated from the command's own help; do not edit.\n".to_owned();
    let mut push = |name: &str, mut command: clap::Command| {
        // Writing to a `String` cannot fail.
        let help = command.render_long_help();
        let help: String = help.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let _ = write!(page, "\n## `{name}`\n\n```text\n{}```\n", help);
    };
    let fixed = |command: clap::Command| command.term_width(100);
    let mut all = fixed(super::command());
    all.build();
    push("strata", all.clone());
    for command in all.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        push(&format!("strata {}", command.get_name()), fixed(command.clone()));
        for nested in command.get_subcommands().filter(|c| c.get_name() != "help") {
            push(&format!("strata {} {}", command.get_name(), nested.get_name()), fixed(nested.clone()));
        }
    }
    page
}

fn codes() -> String {
    let mut page = "# Diagnostics\n\nGenerated from the tables of codes; do not edit.\n\n".to_owned();
    page += "| code | name | meaning |\n|---|---|---|\n";
    for code in code::ALL {
        let doc = code.0.doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let _ = writeln!(page, "| {} | `{}` | {doc} |", code.0.id, code.0.name);
    }
    page += "\n`strata explain CODE` shows an example of each, and what to do about it.\n";
    for CodeInfo { id, name, example, help, .. } in code::ALL.iter().map(|code| code.0) {
        let _ = write!(page, "\n## {id}: {name}\n\n```mlir\n{example}\n```\n\n{help}\n");
    }
    page
}

fn onnx() -> String {
    let mut page = "# ONNX operators\n\nGenerated from the importer's table; do not edit.\n\n".to_owned();
    let _ = writeln!(
        page,
        "Operator sets up to {} are known.\n\n\
         Before any operator is looked at, a model is resolved: data in other files are read, functions of \
         its own put \
         in place of their calls, sparse tensors made dense, half precision, bfloat16 and double precision \
         made `f32`. \
         Control flow that does not depend on the data is decided: `If` by its condition, `Loop` and `Scan` \
         by a copy of \
         the body for each turn (up to {} nodes in all), sequences and optional values by what is in them.\n",
        import::NEWEST_OPSET,
        import::MAX_UNROLLED
    );
    page += "| operator | domain | since opset | notes |\n|---|---|---|---|\n";
    for op in supported_ops() {
        let notes = op.notes.replace('|', "\\|");
        let _ = writeln!(page, "| {} | {} | {} | {notes} |", op.name, op.domain, op.since_opset);
    }
    page += "\n## On the host\n\nWhat the import does not take is handed to the host's library where all of \
        it is \
             verified: the operator set, the element types of the operands (`?`: may be left out, `…`: any \
             number), and \
             the attributes with their values. Any other node is declined.\n\n";
    page += "| operator | operator sets | operands; attributes |\n|---|---|---|\n";
    for op in verified::operators() {
        let [first, last] = op.opsets;
        let _ = writeln!(page, "| `{}` | {first} to {last} | {op} |", op.name);
    }
    page
}

fn targets() -> String {
    let mut page = "# Targets\n\nGenerated from the presets; do not edit. Any field can be overridden with \
                    `--set KEY=VALUE`, and `--target` takes a file of this form.\n\n"
        .to_owned();
    let targets: Vec<Target> = Target::presets().filter_map(|name| Target::preset(name, &[]).ok()).collect();
    let fields = |target: &Target| {
        let mut fields = Vec::new();
        flatten("", &serde_json::to_value(target).unwrap_or_default(), &mut fields);
        fields
    };
    let names: Vec<String> = targets.iter().map(|target| format!("`{}`", target.name)).collect();
    let _ = writeln!(page, "| field | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let columns: Vec<_> = targets.iter().map(fields).collect();
    let keys = columns.first().into_iter().flatten().map(|(key, _)| key).filter(|key| *key != "name");
    for key in keys {
        let value = |column: &Vec<(String, String)>| {
            column.iter().find(|(k, _)| k == key).map_or_else(String::new, |(_, value)| value.clone())
        };
        let _ = writeln!(page, "| `{key}` | {} |", columns.iter().map(value).collect::<Vec<_>>().join(" | "));
    }
    page
}

fn flatten(prefix: &str, value: &serde_json::Value, fields: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, fields);
            }
        }
        serde_json::Value::String(text) => fields.push((prefix.to_owned(), text.clone())),
        other => fields.push((prefix.to_owned(), other.to_string())),
    }
}

fn zoo() -> String {
    let mut page = "# The zoo\n\nGenerated from the zoo's list; do not edit.\n\n".to_owned();
    page += "| network | usual size | classes | what it is |\n|---|---|---|---|\n";
    for model in ZooModel::ALL {
        let (width, height) = model.default_size();
        let classes = model.default_classes().map_or_else(|| "-".to_owned(), |n| n.to_string());
        let _ = writeln!(page, "| `{model}` | {width}x{height} | {classes} | {} |", model.summary());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_pages_are_not_stale() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/generated");
        let stale = stale(&folder);
        assert!(stale.is_empty(), "stale: {stale:?}; run `cargo run --release -- docs`");
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let name = entry.expect("listed").file_name();
            let known = pages().iter().any(|(page, _)| *page == name);
            assert!(known, "{} is no generated page", name.display());
        }
    }
}
