//! `strata explain-plan`: what it names is what another machine changes.

use serde_json::Value;

use crate::Scratch;

/// A network, and how it is compiled so that two of its phases would be one with a little more SRAM.
const COMPILE: [&str; 8] =
    ["compile", "net.onnx", "--target", "micro", "--tolerance", "0", "--no-measure", "--quiet"];

fn small() -> Scratch {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "fsrcnn", "--size", "48x32", "-o", "net.onnx", "--quiet"]);
    scratch
}

fn compiled(scratch: &Scratch, activation: u64, more: &[&str]) {
    let set = format!("memory.activation={activation}");
    scratch.ends(0, &[&COMPILE[..], &["--set", &set], more].concat());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// The phase of a layer in a bundle.
fn phase_of(scratch: &Scratch, file: &str, layer: &str) -> u64 {
    let shown = json(&scratch.ends(0, &["inspect", file, "--format", "json"]).0);
    let layers = shown["parts"][0]["layers"].as_array().expect("layers");
    let found = layers.iter().find(|row| row["name"] == layer && row["is_transfer"] != true);
    found.and_then(|row| row["phase"].as_u64()).unwrap_or_else(|| panic!("no {layer} in {shown}"))
}

/// The bytes that are said to be missing between two phases make them one, and a byte less does not.
#[test]
fn the_limit_that_it_names_is_the_one_that_binds() {
    let scratch = small();
    compiled(&scratch, 16 << 10, &["--emit", "phases", "-o", "phases.mlir"]);
    let flags = ["explain-plan", "phases.mlir", "--no-what-if", "--format", "json"];
    let shown = json(&scratch.ends(0, &flags).0);
    let borders = shown["parts"][0]["borders"].as_array().expect("borders");
    let border =
        borders.iter().find(|border| border["reason"] == "shortage").expect("one is for lack of SRAM");
    let shortage = &border["shortages"][0];
    assert_eq!(shortage["field"], "memory.activation");
    let needed = shortage["needed"].as_u64().expect("a number");
    let [before, after] = ["ends_with", "begins_with"].map(|key| border[key].as_str().expect("a layer"));
    let is_one_phase = |activation: u64| {
        compiled(&scratch, activation, &["-o", "net.strata"]);
        phase_of(&scratch, "net.strata", before) == phase_of(&scratch, "net.strata", after)
    };
    assert!(is_one_phase(needed) && !is_one_phase(needed - 1), "{border}");
}

/// A dump before its plan, with it and scheduled, and a bundle with its model, tell the same.
#[test]
fn it_reads_a_plan_off_whatever_has_its_stages() {
    let scratch = small();
    compiled(&scratch, 16 << 10, &["--dump-levels", "dump", "-o", "net.strata"]);
    let explained = |file: &str, more: &[&str]| {
        let flags = [&["explain-plan", file, "--no-what-if", "--format", "json"], more].concat();
        json(&scratch.ends(0, &flags).0)
    };
    let shown = explained("dump/2-stages.mlir", &[]);
    assert_eq!(explained("dump/3-phases.mlir", &[]), shown);
    assert_eq!(explained("dump/4-sched.mlir", &[]), shown);
    assert_eq!(explained("net.strata", &["--model", "dump/2-stages.mlir"]), shown);
}

#[test]
fn what_has_no_stages_or_no_plan_is_refused() {
    let scratch = small();
    compiled(&scratch, 16 << 10, &["--dump-levels", "dump", "-o", "net.strata"]);
    let refused =
        |code: i32, arguments: &[&str]| scratch.ends(code, &[&["explain-plan"], arguments].concat()).1;
    let bundle = refused(2, &["net.strata"]);
    assert!(bundle.contains("--model") && bundle.contains("--emit phases"), "{bundle}");
    let model = refused(1, &["net.onnx"]);
    assert!(model.contains("a model, which has no plan; expected a dump"), "{model}");
    let early = refused(1, &["dump/1-quant.mlir"]);
    assert!(early.contains("level `quant`") && early.contains("`stages`, `phases` or `sched`"), "{early}");
    let dump = refused(2, &["dump/3-phases.mlir", "--model", "net.onnx"]);
    assert!(dump.contains("--model is for bundles"), "{dump}");
    // Activations of 16 bits make other stages than the model has by default.
    compiled(&scratch, 64 << 10, &["--precision", "int16", "-o", "wide.strata"]);
    let other = refused(1, &["wide.strata", "--model", "net.onnx"]);
    assert!(
        other.contains("net.onnx: compiled for the machine") && other.contains("another plan"),
        "{other}"
    );
}

#[test]
fn explanations_look_the_same() {
    let scratch = small();
    compiled(&scratch, 16 << 10, &["--emit", "phases", "-o", "phases.mlir"]);
    let (text, notes) = scratch.ends(0, &["explain-plan", "phases.mlir"]);
    insta::assert_snapshot!("explain_plan", text);
    assert!(notes.contains("--no-what-if leaves this out"), "{notes}");
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    let shown = json(&scratch.ends(0, &["explain-plan", "phases.mlir", "--format", "json"]).0);
    let part = &shown["parts"][0];
    let told = [
        ("file", keys(&shown)),
        ("part", keys(part)),
        ("plan", keys(&part["plan"])),
        ("phase", keys(&part["phases"][0])),
        ("border", keys(&part["borders"][0])),
        ("spill", keys(&part["spills"][0])),
        ("what_if", keys(&part["what_if"]["changes"][0])),
    ];
    insta::assert_snapshot!("explain_plan_keys", format!("{told:#?}"));
    assert_eq!(shown["schema"], 1);
}
