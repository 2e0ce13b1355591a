//! `strata reduce`: from a file that fails to a small one that does.

use super::Scratch;

/// Layers of which one has no form on the machine.
const MODULE: &str = r#"// RUN: canonicalise,form-stages
module attributes {strata.level = "quant"} {
  func.func @main(%x: tensor<1x4x4x2xi8>) -> (tensor<1x4x4x2xi8>) {
    %0 = tosa.clamp %x {max_val = 100 : i8, min_val = -100 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    %1 = tosa.reverse %0 {axis = 1 : i32} : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    %2 = tosa.clamp %1 {max_val = 90 : i8, min_val = -90 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    return %2 : tensor<1x4x4x2xi8>
  }
}
"#;

#[test]
fn a_module_loses_what_is_not_needed() {
    let scratch = Scratch::new();
    scratch.write("net.mlir", MODULE);
    let (_, err) = scratch.ends(1, &["opt", "net.mlir"]);
    assert!(err.contains("no stage for `tosa.reverse`"), "{err}");
    let (out, _) = scratch.ends(0, &["reduce", "net.mlir", "--error", "no stage for"]);
    assert_eq!(out, "1 of 3 ops are left, and the passes form-stages\nwrote net.reduced.mlir\n");
    let text = std::fs::read_to_string(scratch.path("net.reduced.mlir")).expect("it is there");
    assert!(text.starts_with("// RUN: form-stages\n// TARGET: x1\n") && !text.contains("clamp"), "{text}");
    let (_, err) = scratch.ends(1, &["opt", "net.reduced.mlir"]);
    assert!(err.contains("no stage for `tosa.reverse`"), "{err}");
}

#[test]
fn a_script_judges_a_model() {
    let scratch = Scratch::new();
    scratch.fsrcnn();
    let (out, _) =
        scratch.ends(0, &["reduce", "net.onnx", "--script", "grep -q ConvTranspose", "-o", "small.onnx"]);
    assert!(out.starts_with("1 of "), "{out}");
    scratch.ends(0, &["compile", "small.onnx", "--quiet"]);
}

#[test]
fn what_does_not_fail_is_told() {
    let scratch = Scratch::new();
    scratch.write("net.mlir", MODULE);
    let cases = [
        (&["--panic"][..], "nothing panics"),
        (&["--miscompile"], "what is computed is the same"),
        (&["--error", "nowhere"], "there is no error with `nowhere` in it"),
        (&["--script", "false"], "`false` does not end with exit code 0"),
    ];
    for (symptom, what) in cases {
        let (_, err) = scratch.ends(1, &[&["reduce", "net.mlir"], symptom].concat());
        assert!(err.contains(what), "{err}");
    }
    assert!(!scratch.path("net.reduced.mlir").exists());
    scratch.ends(2, &["reduce", "net.mlir"]);
    scratch.ends(2, &["reduce", "net.mlir", "--panic", "--miscompile"]);
    scratch.ends(2, &["reduce", "net.mlir", "--error", "no stage for", "-o", "net.mlir"]);
    let (_, err) = scratch.ends(1, &["reduce", "nowhere.mlir", "--panic"]);
    assert!(err.contains("nowhere.mlir: "), "{err}");
}

/// What fails on one machine alone fails again: the result names it, and so does a reproducer.
#[test]
fn the_machine_comes_along() {
    let scratch = Scratch::new();
    scratch.fsrcnn();
    scratch.ends(0, &["opt", "net.onnx", "--passes", "canonicalise,quantise", "-o", "quant.mlir"]);
    let small = ["--passes", "form-stages,fuse-layers", "--set", "memory.activation=256B"];
    let (_, err) =
        scratch.ends(1, &[&["opt", "quant.mlir", "--reproducer", "again.mlir"], &small[..]].concat());
    assert!(err.contains("do not fit"), "{err}");
    scratch.ends(
        0,
        &[&["reduce", "quant.mlir", "--error", "do not fit", "-o", "small.mlir"], &small[..]].concat(),
    );
    for file in ["again.mlir", "small.mlir"] {
        let (_, err) = scratch.ends(1, &["opt", file]);
        assert!(err.contains("do not fit"), "{file}: {err}");
    }
}
