//! `strata test`: what passes, what fails and how it is told, what is accepted.

use super::Scratch;

/// A module that `canonicalise` changes, after a header.
fn with_identity(header: &str) -> String {
    format!(
        "{header}\nfunc.func @main(%x: tensor<2xi32>) -> tensor<2xi32> {{
  %0 = tosa.identity %x : (tensor<2xi32>) -> tensor<2xi32>
  return %0 : tensor<2xi32>
}}
"
    )
}

#[test]
fn outputs_are_accepted_and_held_against() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("tests")).expect("a folder");
    let text = with_identity("// RUN: canonicalise");
    scratch.write("tests/beside.mlir", &text);
    scratch.write("tests/within.mlir", format!("{text}// OUTPUT:\n"));
    scratch.write("tests/two.mlir", format!("{text}// -----\n{}", with_identity("")));
    scratch.write("tests/no_test.mlir", with_identity(""));

    let (out, err) = scratch.ends(1, &["test", "tests"]);
    assert_eq!(out, "3 failed, 1 files without a RUN\n");
    assert!(err.contains("no output is expected yet; --bless accepts this one"), "{err}");
    assert!(err.contains("  +// canonicalise: changed"), "{err}");

    let (out, _) = scratch.ends(0, &["test", "tests", "--bless"]);
    assert_eq!(out, "3 accepted, 1 files without a RUN\n");
    let read = |name: &str| std::fs::read_to_string(scratch.path(name)).expect("it is there");
    let beside = read("tests/beside.mlir.expected");
    assert!(beside.starts_with("// canonicalise: changed") && !beside.contains("identity"), "{beside}");
    assert_eq!(read("tests/two.mlir.expected"), format!("{beside}// -----\n{beside}"));
    let comments: String = beside.lines().map(|line| format!("// {line}\n")).collect();
    assert_eq!(read("tests/within.mlir"), format!("{text}// OUTPUT:\n{comments}"));
    assert!(!scratch.path("tests/within.mlir.expected").exists());
    scratch.ends(0, &["test", "tests"]);

    scratch.write("tests/beside.mlir.expected", beside.replace("return", "retorn"));
    let (_, err) = scratch.ends(1, &["test", "tests"]);
    assert!(err.contains("  -    retorn %arg0") && err.contains("  +    return %arg0"), "{err}");
    assert_eq!(scratch.ends(0, &["test", "tests", "--filter", "within"]).0, "1 passed\n");
    let (_, err) = scratch.ends(1, &["test", "tests", "--filter", "nowhere"]);
    assert!(err.contains("none of 3 tests has `nowhere`"), "{err}");
    std::fs::remove_file(scratch.path("tests/beside.mlir")).expect("it is there");
    let (_, err) = scratch.ends(1, &["test", "tests"]);
    assert!(err.contains("stale: tests/beside.mlir.expected"), "{err}");
}

#[test]
fn what_is_wrong_has_to_be_expected() {
    let scratch = Scratch::new();
    let unused = "  %1 = tosa.abs %x : (tensor<2xi32>) -> tensor<3xi32>\n";
    let text =
        |line: &str| with_identity("// RUN: verify").replace("  return", &format!("{line}{unused}  return"));
    scratch.write("wrong.mlir", text(""));
    let (_, err) = scratch.ends(1, &["test", "wrong.mlir"]);
    assert!(err.contains("line 4: unexpected error: the result type is tensor<3xi32>"), "{err}");
    scratch.write("wrong.mlir", text("  // expected-error@below {{it must be tensor<2xi32>}}\n"));
    scratch.ends(0, &["test", "wrong.mlir"]);
    scratch.write("wrong.mlir", with_identity("// RUN: verify\n// expected-error@unknown {{nothing}}"));
    let (_, err) = scratch.ends(1, &["test", "wrong.mlir"]);
    assert!(err.contains("expected error \"nothing\" was not found"), "{err}");
}

#[test]
fn tests_that_are_none_say_why() {
    let scratch = Scratch::new();
    let cases = [
        ("no.mlir", with_identity(""), "no line `// RUN: …` says what to run"),
        ("pass.mlir", with_identity("// RUN: canonicalize"), "did you mean `canonicalise`?"),
        ("key.mlir", with_identity("// RUN: verify\n// TARGTE: x1"), "did you mean TARGET?"),
        (
            "size.mlir",
            with_identity("// RUN: verify\n// TARGET: x1 memory.activation=64Kb"),
            "line 2: override `memory.activation=64Kb`: invalid value: string \"64Kb\", expected a size in",
        ),
        ("check.mlir", with_identity("// RUN: verify\n// CHECKS: all"), "there is no check `all`"),
        ("kind.mlir", with_identity("// RUN: assemble"), "assembly, and nothing else, is run by `assemble`"),
        ("text.txt", String::new(), "expected a name that ends in .mlir or .asm"),
    ];
    for (name, text, what) in cases {
        scratch.write(name, text);
        let (_, err) = scratch.ends(1, &["test", name]);
        assert!(err.contains(what), "{name}: {err}");
    }
    let (_, err) = scratch.ends(1, &["test", "nowhere"]);
    assert!(err.contains("nowhere: "), "{err}");

    std::fs::create_dir(scratch.path("tests")).expect("a folder");
    scratch.write("tests/good.mlir", with_identity("// RUN: verify"));
    std::os::unix::fs::symlink("nowhere.mlir", scratch.path("tests/link.mlir")).expect("a link");
    let (_, err) = scratch.ends(1, &["test", "tests"]);
    assert!(err.contains("tests/link.mlir: No such file"), "{err}");
}

/// A test and `strata opt` read the same header.
#[test]
fn a_header_is_that_of_opt_too() {
    let scratch = Scratch::new();
    scratch.write("header.mlir", with_identity("// RUN: canonicalise"));
    let (out, _) = scratch.ends(0, &["opt", "header.mlir"]);
    assert!(!out.contains("identity"), "{out}");
    scratch.write("header.mlir", with_identity("// RUN: nothing"));
    let (_, err) = scratch.ends(1, &["opt", "header.mlir"]);
    assert!(err.contains("header.mlir: RUN: column 1: there is no pass `nothing`"), "{err}");
    scratch.write("header.mlir", with_identity("// TARGET: x2"));
    let (_, err) = scratch.ends(1, &["opt", "header.mlir"]);
    assert!(err.contains("header.mlir: TARGET: unknown target `x2`"), "{err}");
}

/// What follows the comments of an output is the test's, and is never lost.
#[test]
fn an_output_stands_at_the_end() {
    let scratch = Scratch::new();
    let text = with_identity("// RUN: canonicalise").replace("  return", "// OUTPUT:\n  return");
    scratch.write("middle.mlir", &text);
    for arguments in [&["test", "middle.mlir"][..], &["test", "middle.mlir", "--bless"]] {
        let (_, err) = scratch.ends(1, arguments);
        assert!(err.contains("line 5: comments alone follow `// OUTPUT:`"), "{err}");
    }
    assert_eq!(std::fs::read_to_string(scratch.path("middle.mlir")).expect("it is there"), text);
}
