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

/// An interrupt from the keyboard goes to the whole group of processes.
#[test]
fn an_interrupt_leaves_no_file_behind() {
    use std::os::unix::process::CommandExt;
    let scratch = Scratch::new();
    scratch.write("net.mlir", MODULE);
    let temporary = scratch.path("temporary");
    std::fs::create_dir(&temporary).expect("a folder");
    let files = || std::fs::read_dir(&temporary).expect("the folder is there").count();
    let waits_for = |wanted: usize| {
        (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            files() == wanted
        })
    };
    let mut running = std::process::Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["reduce", "net.mlir", "--script", "sleep 20; test -e"])
        .current_dir(scratch.path(""))
        .env("TMPDIR", &temporary)
        .process_group(0)
        .spawn()
        .expect("it starts");
    assert!(waits_for(1), "a candidate is judged");
    let group = format!("-{}", running.id());
    let killed = std::process::Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    running.wait().expect("it ends");
    assert!(waits_for(0), "the candidate is left");
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

/// What fails with ranges alone fails again: candidates take those of their values, and so does the result.
#[test]
fn ranges_come_along() {
    let scratch = Scratch::new();
    let (model, array) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet", "--save-ranges", "all.json"]);
    let text = std::fs::read_to_string(scratch.path("all.json")).expect("it is there");
    // Of what a convolution within the network takes, a range of which there are no integers.
    let mut ranges: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let tensors = ranges["tensors"].as_array_mut().expect("a list");
    let within = tensors.iter().rposition(|range| range["op"] == "tosa.maximum").expect("an activation");
    (tensors[within]["min"], tensors[within]["max"]) = ((-3e38).into(), 3e38.into());
    let tensor = tensors[within]["tensor"].as_str().expect("a name").to_owned();
    scratch.write("wide.json", ranges.to_string());
    let passes = ["--passes", "canonicalise,quantise", "--error", "cannot be used"];
    scratch.ends(1, &[&["reduce", &model], &passes[..]].concat());
    let (out, _) = scratch
        .ends(0, &[&["reduce", &model, "--ranges", "wide.json", "-o", "small.onnx"], &passes[..]].concat());
    assert!(out.contains("wrote small.ranges.json, for --ranges"), "{out}");
    let rerun = ["opt", "small.onnx", "--passes", "canonicalise,quantise"];
    scratch.ends(0, &rerun);
    let (_, err) = scratch.ends(1, &[&rerun[..], &["--ranges", "small.ranges.json"]].concat());
    assert!(err.contains("cannot be used") && err.contains(&format!("`{tensor}`")), "{err}");

    // Ranges that data show, of the whole: they are those of the values that are left.
    scratch.ends(0, &["opt", &model, "--passes", "canonicalise", "-o", "import.mlir"]);
    let script = ["--passes", "canonicalise,quantise", "--script", "grep -q transpose_conv2d"];
    let gather = ["reduce", "import.mlir", "--calibrate", &array, "-o", "small.mlir"];
    scratch.ends(0, &[&gather[..], &script[..]].concat());
    let gathered = std::fs::read_to_string(scratch.path("small.ranges.json")).expect("it is there");
    assert!(gathered.contains("tosa.transpose_conv2d") && gathered.contains("argument"), "{gathered}");
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
