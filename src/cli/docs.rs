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
    /// Write the manual pages of all commands into a folder instead: strata.1, strata-compile.1, …
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    man: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    if let Some(folder) = &args.man {
        crate::io::create_folder(folder)?;
        for (name, page) in manual_pages().map_err(Failure::failed)? {
            write_atomic(&folder.join(name), &page)?;
        }
        return console.summary(&format!("wrote {}\n", folder.display()));
    }
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

/// A manual page for the command and one for each command of it, by file name.
fn manual_pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = super::command();
    all.build();
    let mut pages = Vec::new();
    push_manual_pages(all, &mut pages)?;
    Ok(pages)
}

fn push_manual_pages(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let is_shown = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    for nested in command.get_subcommands().filter(is_shown) {
        push_manual_pages(nested.clone(), pages)?;
    }
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((page.get_filename(), text));
    Ok(())
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
    page += "\nSizes are numbers of bytes, or texts with a unit: `B`, `KiB`, `MiB` or `GiB`.\n\n\
             | field | meaning |\n|---|---|\n";
    let mut table = "";
    for field in fields_of_target() {
        match field.ty {
            // A table of the file: its fields follow.
            "Array" | "Memory" | "Dram" | "Switch" | "Energy" | "Limits" => {}
            _ => {
                table = TABLES.iter().find(|(name, _)| *name == field.of).map_or(table, |(_, table)| table);
                let _ = writeln!(page, "| `{table}{}` | {} |", field.name, field.doc);
            }
        }
    }
    page
}

/// The structs of a target, and the tables of the file that they are.
const TABLES: [(&str, &str); 7] = [
    ("Target", ""),
    ("Array", "array."),
    ("Memory", "memory."),
    ("Dram", "dram."),
    ("Switch", "switch."),
    ("Energy", "energy."),
    ("Limits", "limits."),
];

/// A field of a target as its source declares it.
struct Field {
    of: &'static str,
    name: &'static str,
    ty: &'static str,
    doc: String,
}

/// The fields of targets with their documentation, read off the source, where alone it stands.
fn fields_of_target() -> Vec<Field> {
    let source = include_str!("../../isa-spec/src/target.rs");
    let (mut fields, mut of, mut doc) = (Vec::new(), "", Vec::new());
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            of = name.trim_end_matches([' ', '{']);
            doc.clear();
        } else if let Some((name, ty)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
            let is_field = TABLES.iter().any(|(table, _)| *table == of) && !name.contains('(');
            if is_field {
                let ty = ty.trim_end_matches(',');
                fields.push(Field { of, name, ty, doc: doc.join(" ") });
            }
            doc.clear();
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    fields
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
    fn every_field_of_a_target_is_explained() {
        let mut keys = Vec::new();
        let target = Target::preset("x1", &[]).expect("a preset");
        flatten("", &serde_json::to_value(target).expect("JSON"), &mut keys);
        let page = targets();
        for (key, _) in keys {
            let row = page.lines().rev().find(|line| line.starts_with(&format!("| `{key}` | ")));
            let row = row.unwrap_or_else(|| panic!("`{key}` is explained"));
            assert!(row.ends_with(". |"), "a sentence: {row}");
        }
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let pages = manual_pages().expect("pages");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["strata.1", "strata-compile.1", "strata-diff.1", "strata-bench-plans.1"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        let compile = &pages.iter().find(|(name, _)| name == "strata-compile.1").expect("found").1;
        let compile = String::from_utf8_lossy(compile);
        assert!(compile.contains(".TH") && compile.contains("calibrate"), "{compile}");
    }

    #[test]
    fn generated_pages_are_not_stale() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/generated");
        let stale = stale(&folder);
        assert!(stale.is_empty(), "stale: {stale:?}; run `cargo run --release -- docs`");
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let name = entry.expect("listed").file_name();
            // That of messages is made by running the command: `tests/cli/errors.rs`.
            let known = name == "errors.md" || pages().iter().any(|(page, _)| *page == name);
            assert!(known, "{} is no generated page", name.display());
        }
    }
}
