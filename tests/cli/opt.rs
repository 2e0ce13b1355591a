//! `strata opt`: what it shows between passes, where constants go, and what it says of several modules.

use std::process::{Command, Output, Stdio};

use super::Scratch;

/// A function that `canonicalise` changes: it loses an identity.
const SMALL: &str = r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.identity"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  %1 = "tosa.exp"(%0) : (tensor<2xf32>) -> tensor<2xf32>
  %2 = "tosa.abs"(%1) : (tensor<2xf32>) -> tensor<2xf32>
  return %2 : tensor<2xf32>
}
"#;

/// A function that does not verify, in its second line.
const WRONG: &str = r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.exp"(%x) : (tensor<2xf32>) -> tensor<3xf32>
  return %x : tensor<2xf32>
}
"#;

/// Elements of a constant that is not printed unasked.
const LARGE: u32 = 20_000;

/// A function with a constant of so many elements, inline.
fn with_table(n_elements: u32) -> String {
    let bytes: String = (0..n_elements).map(|n| format!("{:08X}", n.swap_bytes())).collect();
    let ty = format!("tensor<{n_elements}xi32>");
    format!(
        "func.func @main() -> {ty} {{
  %0 = \"tosa.const\"() <{{values = dense_resource<table> : {ty}}}> : () -> {ty}
  return %0 : {ty}
}}
{{-#
  dialect_resources: {{
    builtin: {{
      table: \"0x04000000{bytes}\"
    }}
  }}
#-}}
"
    )
}

impl Scratch {
    /// Runs the command with a text as its standard input.
    fn fed(&self, text: &str, arguments: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that is wrongly used reads nothing.
        let _ = std::io::Write::write_all(&mut stdin, text.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file is there")
    }
}

#[test]
fn modules_are_read_from_standard_input() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    let (of_file, _) = scratch.ends(0, &["opt", "m.mlir", "--passes", "canonicalise"]);
    // A file that happens to be called like the side file of `-` is none.
    scratch.write("-.resources", "no resources");
    for name in ["-", "/dev/stdin"] {
        let output = scratch.fed(SMALL, &["opt", name, "--passes", "canonicalise"]);
        assert!(output.status.success() && output.stdout == of_file.as_bytes(), "{name}: {output:?}");
    }
    let output = scratch.fed(SMALL, &["verify", "-"]);
    assert!(output.status.success(), "{output:?}");
    let output = scratch.fed(SMALL, &["compile", "-"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("add -o"), "{said}");
    let output = scratch.fed("func.func @main(", &["opt", "-"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("standard input:1:"), "{said}");
}

#[test]
fn modules_are_shown_between_passes() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    let opt = |flags: &[&str]| {
        let all = ["opt", "m.mlir", "--passes", "canonicalise,equalise,canonicalise", "-o", "out.mlir"];
        scratch.ends(0, &[&all[..], flags].concat()).1
    };
    let headers = |said: &str| {
        let lines = said.lines().filter(|line| line.starts_with("// ----- "));
        lines.map(|line| line.replace(" -----", "")).collect::<Vec<_>>()
    };
    assert_eq!(opt(&[]), "");
    let said = opt(&["--print-ir-before=equalise", "--print-ir-after=changed"]);
    assert_eq!(headers(&said), ["// IR after canonicalise (1 of 3)", "// IR before equalise (2 of 3)"]);
    assert!(!said.contains("tosa.identity") && said.matches("tosa.exp").count() == 2, "{said}");
    assert_eq!(headers(&opt(&["--print-ir-before=all", "--print-ir-after=canonicalise"])).len(), 5);
    assert_eq!(headers(&opt(&["--print-ir-after=all"])).len(), 3);
    let (_, said) = scratch.ends(2, &["opt", "m.mlir", "--print-ir-after=canonicalize"]);
    assert!(said.contains("did you mean `canonicalise`?"), "{said}");
}

#[test]
fn what_passes_change_is_shown_as_a_diff() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    let (_, said) = scratch.ends(0, &["opt", "m.mlir", "--passes", "canonicalise,canonicalise", "--diff"]);
    let changed: Vec<&str> = said.lines().filter(|line| line.starts_with(['-', '+'])).collect();
    assert!(
        changed.len() == 1 && changed[0].contains("- ") && changed[0].contains("tosa.identity"),
        "{said}"
    );
    assert!(said.contains("// ----- changes of canonicalise (2 of 2) -----\n// nothing\n"), "{said}");
    assert!(!said.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn the_module_after_each_pass_is_written() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", with_table(LARGE));
    let flags = ["--passes", "canonicalise,canonicalise", "--dump-dir", "dumps", "-o", "out.mlir"];
    scratch.ends(0, &[&["opt", "m.mlir"], &flags[..]].concat());
    let mut names: Vec<_> = std::fs::read_dir(scratch.path("dumps"))
        .expect("the folder is made")
        .map(|entry| entry.expect("listed").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names, ["01-canonicalise.mlir", "02-canonicalise.mlir", "constants.resources"]);
    scratch.ends(0, &["verify", "dumps/02-canonicalise.mlir"]);
    assert_eq!(scratch.text("dumps/02-canonicalise.mlir"), scratch.text("out.mlir"));
    scratch.write("two.mlir", format!("{SMALL}// -----\n{SMALL}"));
    scratch.ends(0, &["opt", "two.mlir", "--passes", "canonicalise", "--dump-dir", "two"]);
    for name in ["module1-01-canonicalise.mlir", "module2-01-canonicalise.mlir"] {
        scratch.ends(0, &["verify", &format!("two/{name}")]);
    }
}

/// The dumps of a folder share a side file, whoever writes them.
#[test]
fn a_folder_keeps_the_constants_of_its_dumps() {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "fsrcnn", "--size", "24x16", "-o", "net.onnx", "--quiet"]);
    scratch.ends(0, &["compile", "net.onnx", "--dump-levels", "dumps", "-o", "net.strata"]);
    scratch.write("m.mlir", with_table(LARGE));
    scratch.ends(0, &["opt", "m.mlir", "--passes", "canonicalise", "--dump-dir", "dumps", "-o", "out.mlir"]);
    for dump in ["0-import", "1-quant", "4-sched", "01-canonicalise"] {
        scratch.ends(0, &["verify", &format!("dumps/{dump}.mlir")]);
    }
    let before = std::fs::read(scratch.path("dumps/constants.resources")).expect("it is there");
    for name in ["dumps/constants.mlir", "dumps/x.resources"] {
        let (_, said) = scratch.ends(2, &["opt", "m.mlir", "-o", name]);
        assert!(said.contains("choose another"), "{said}");
    }
    scratch.write("dumps/constants.resources", "junk");
    let (_, said) = scratch.ends(1, &["opt", "m.mlir", "--passes", "canonicalise", "--dump-dir", "dumps"]);
    assert!(said.contains("constants.resources"), "{said}");
    scratch.write("dumps/constants.resources", before);
    scratch.ends(0, &["verify", "dumps/1-quant.mlir"]);
}

#[test]
fn times_and_counters_are_told_at_the_end() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    let flags = ["--timing", "--pass-stats"];
    let (_, said) = scratch.ends(0, &[&["opt", "m.mlir", "--passes", "canonicalise"], &flags[..]].concat());
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["pass", "seconds", "share"], "{said}");
    assert!(lines[2][0] == "total" && lines[2][2..] == ["100.0", "%"], "{said}");
    assert!(lines.contains(&vec!["canonicalise", "replaced", "1"]), "{said}");
    // Also of what ran before a pass that fails.
    let (_, said) = scratch.ends(1, &["opt", "m.mlir", "--passes", "canonicalise,schedule", "--timing"]);
    assert!(said.contains("total") && said.contains("schedule"), "{said}");
}

#[test]
fn passes_are_bisected() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    let passes = ["opt", "m.mlir", "--passes", "canonicalise,schedule", "--bisect-limit"];
    let (text, said) = scratch.ends(0, &[&passes[..], &["1"]].concat());
    assert!(!text.contains("tosa.identity"), "the first pass ran: {text}");
    let told = "the last pass that ran is `canonicalise` (number 1); `schedule` (number 2) did not run";
    assert!(said.contains(told), "{said}");
    let (text, said) = scratch.ends(0, &[&passes[..], &["0"]].concat());
    assert!(text.contains("tosa.identity") && said.contains("no pass ran"), "{text}\n{said}");
    scratch.ends(1, &[&passes[..], &["2"]].concat());
}

#[test]
fn passes_are_listed_with_their_options() {
    let scratch = Scratch::new();
    let (list, _) = scratch.ends(0, &["opt", "--list-passes"]);
    assert_eq!(list, scratch.ends(0, &["opt"]).0);
    assert!(
        list.contains("\n  range=mse") && list.contains("(min-max | percentile | mse | entropy)"),
        "{list}"
    );
    scratch.write("m.mlir", SMALL);
    let wrong = [
        ("canonicalize", "`canonicalise`"),
        ("quantise{rangé=mse}", "column"),
        ("quantise{rang=mse}", "`range`"),
    ];
    for (passes, meant) in wrong {
        let (_, said) = scratch.ends(2, &["opt", "m.mlir", "--passes", passes]);
        assert!(said.contains(meant), "{said}");
    }
}

#[test]
fn constants_are_never_lost_unsaid() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", with_table(LARGE));
    let (inline, said) = scratch.ends(0, &["opt", "m.mlir", "--inline-constants"]);
    assert!(said.is_empty() && inline.len() > 160_000, "{said}");
    let (outline, said) = scratch.ends(0, &["opt", "m.mlir"]);
    assert!(outline.len() < 1000 && said.contains("78.1 KiB of constants are left out"), "{outline}\n{said}");
    // Handles are hashes of the data: a side file either has just these or does not.
    scratch.ends(0, &["opt", "m.mlir", "-o", "out.mlir"]);
    assert!(scratch.text("out.mlir").len() < 1000 && scratch.path("out.resources").is_file());
    let (again, _) = scratch.ends(0, &["opt", "out.mlir", "--inline-constants"]);
    assert_eq!(again, inline);
    scratch.write("out.mlir", &outline);
    assert_eq!(scratch.ends(0, &["opt", "out.mlir", "--inline-constants"]).0, inline);
    scratch.write("alone.mlir", &outline);
    let (_, said) = scratch.ends(1, &["opt", "alone.mlir"]);
    assert!(said.contains("E0108") && said.contains("i32_") && !said.contains("E0103"), "{said}");
    // A pipe has no file beside it.
    let (to_pipe, said) = scratch.ends(0, &["opt", "m.mlir", "-o", "/dev/stdout"]);
    assert!(to_pipe == outline && said.contains("left out"), "{said}");
    // Few bytes are printed as they are.
    scratch.write("few.mlir", with_table(17));
    let (few, said) = scratch.ends(0, &["opt", "few.mlir"]);
    assert!(said.is_empty() && few.contains("dialect_resources"), "{few}\n{said}");
}

#[test]
fn reproducers_have_their_constants_beside_them() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", with_table(LARGE));
    let arguments = ["opt", "m.mlir", "--passes", "canonicalise,schedule", "--reproducer", "again.mlir"];
    let (_, said) = scratch.ends(1, &arguments);
    assert!(said.contains("wrote again.mlir"), "{said}");
    let text = scratch.text("again.mlir");
    assert!(text.starts_with("// RUN: schedule\n") && text.len() < 1000, "{text}");
    let (_, said) = scratch.ends(1, &["opt", "again.mlir"]);
    assert!(said.contains("pass `schedule`"), "{said}");
}

#[test]
fn one_module_does_not_stop_the_others() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", format!("{SMALL}// -----\n{WRONG}// -----\nnonsense\n// -----\n{SMALL}"));
    let passes = ["opt", "m.mlir", "--passes", "canonicalise"];
    let (text, said) = scratch.ends(1, &passes);
    assert!(text.is_empty() && said.contains("m.mlir: module 2, from line 8: "), "{said}");
    assert!(!said.contains("module 3"), "{said}");
    let (text, said) = scratch.ends(1, &[&passes[..], &["--split-input-file"]].concat());
    assert_eq!(text.matches("tosa.exp").count(), 2, "{text}");
    assert!(text.contains("\n// -----\n") && !text.contains("tosa.identity"), "{text}");
    for part in
        ["module 2, from line 8: ", "module 3, from line 13: ", "m.mlir:13:1", "2 of 4 modules failed"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn diagnostics_are_held_against_comments() {
    let scratch = Scratch::new();
    let wrong = WRONG.replace("  %0", "  // expected-error@below {{[E0303]}}\n  %0");
    let unknown = SMALL
        .replace("tosa.exp\"(%0)", "tosa.expo\"(%0)")
        .replace("\n  %2", " // expected-error {{tosa.expo}}\n  %2");
    let too_early = format!("// expected-error@unknown {{{{takes phases}}}}\n{SMALL}");
    scratch.write("m.mlir", [wrong.as_str(), &unknown, &too_early].join("// -----\n"));
    let flags = ["--passes", "schedule", "--verify-diagnostics"];
    let (text, _) = scratch.ends(0, &[&["opt", "m.mlir"], &flags[..]].concat());
    assert_eq!(text, "");
    let missing = SMALL.replace("\n  %1", " // expected-error {{no such thing}}\n  %1");
    scratch.write("m.mlir", [SMALL, &missing, WRONG].join("// -----\n"));
    let (_, said) = scratch.ends(1, &["opt", "m.mlir", "--verify-diagnostics"]);
    let lines: Vec<&str> = said.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines[0], "m.mlir:9: expected error \"no such thing\" was not found", "{said}");
    assert!(lines[1].starts_with("m.mlir:16: unexpected error: ") && lines[1].ends_with("[E0303]"), "{said}");
    assert_eq!(lines.len(), 2, "{said}");
}

#[test]
fn passes_are_checked_by_running_the_module() {
    let scratch = Scratch::new();
    scratch.write("m.mlir", SMALL);
    for flags in [&["--verify-each=run"][..], &["--evaluate", "2"], &["--verify-each=ir"]] {
        scratch.ends(0, &[&["opt", "m.mlir", "--passes", "canonicalise"], flags].concat());
    }
    scratch.ends(2, &["opt", "m.mlir", "--verify-each=never"]);
}

#[test]
fn codes_are_explained() {
    let scratch = Scratch::new();
    let (text, _) = scratch.ends(0, &["explain", "e0302"]);
    assert!(text.starts_with("E0302: shape\n") && text.contains("tosa.add"), "{text}");
    let (list, _) = scratch.ends(0, &["explain"]);
    assert!(list.contains("E0102  unknown-op\n"), "{list}");
    let (_, said) = scratch.ends(2, &["explain", "shap"]);
    assert!(said.contains("did you mean `shape`?"), "{said}");
}

#[test]
fn a_level_is_printed_as_opt_prints_it() {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "mobilenetv2", "--size", "32x32", "-o", "net.onnx", "--quiet"]);
    let compile = ["compile", "net.onnx", "--emit", "quant", "--no-measure"];
    let (outline, said) = scratch.ends(0, &compile);
    assert!(
        said.contains("MiB of constants are left out") && outline.contains("dense_resource<i8_"),
        "{said}"
    );
    let (_, said) = scratch.ends(0, &[&compile[..], &["-o", "net.mlir"]].concat());
    assert!(!said.contains("left out"), "{said}");
    assert_eq!(scratch.ends(0, &["opt", "net.mlir", "--quiet"]).0, outline);
}
