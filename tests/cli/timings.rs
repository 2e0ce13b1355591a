//! What the steps of a compile take: `compile --timings`, and what commands that need no weights do without.

use super::Scratch;

/// Steps that every compile of an ONNX model has.
const STEPS: [&str; 14] = [
    "read",
    "import",
    "canonicalise",
    "samples",
    "calibrate",
    "quantise",
    "form-stages",
    "measure",
    "fuse-layers",
    "schedule",
    "emit",
    "verify",
    "simulate",
    "write",
];

#[test]
fn a_compile_tells_what_its_steps_took() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "plain.strata", "--quiet"]);
    let (_, err) = scratch.ends(0, &["compile", &model, "-o", "timed.strata", "--quiet", "--timings"]);
    let named = |step: &str| err.lines().any(|line| line.starts_with(&format!("{step} ")));
    for step in STEPS.into_iter().chain(["step", "total"]) {
        assert!(named(step), "no line of `{step}`:\n{err}");
    }
    let bytes = |name| std::fs::read(scratch.path(name)).expect("the bundle is there");
    assert!(bytes("plain.strata") == bytes("timed.strata"), "timings are no part of a bundle");
}

#[test]
fn timings_are_a_trace_too() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet", "--timings=trace.json"]);
    let text = std::fs::read_to_string(scratch.path("trace.json")).expect("the trace is there");
    let trace: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let events = trace["traceEvents"].as_array().expect("a list of events");
    let steps: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    for step in STEPS {
        assert!(steps.iter().any(|event| event["name"] == step), "no event of `{step}`: {text}");
    }
    let number = |event: &serde_json::Value, key: &str| event[key].as_f64().expect("a number");
    for pair in steps.windows(2) {
        let (end, next) = (number(pair[0], "ts") + number(pair[0], "dur"), number(pair[1], "ts"));
        assert!(end <= next + 1.0, "one step at a time: {text}");
    }
    // It is not written over the bundle.
    let (_, err) = scratch.ends(2, &["compile", &model, "-o", "net.strata", "--timings=net.strata"]);
    assert!(err.contains("--timings names --output"), "{err}");
}

#[test]
fn what_needs_no_weights_reads_none() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let mut bytes = std::fs::read(scratch.path("net.strata")).expect("the bundle is there");
    let whole = ["inspect", "disasm"].map(|command| scratch.ends(0, &[command, "net.strata"]));
    // Somewhere in the weights, which stand after the head of their entry.
    let head = br#"{"weights":{"dtype":"U8""#;
    let at = bytes.windows(head.len()).position(|window| window == head).expect("the bundle has weights");
    bytes[at + 200] ^= 0x55;
    scratch.write("net.strata", &bytes);
    let damaged = ["inspect", "disasm"].map(|command| scratch.ends(0, &[command, "net.strata"]));
    assert_eq!(damaged, whole);
    for command in ["verify", "report"] {
        let (_, err) = scratch.ends(1, &[command, "net.strata"]);
        assert!(err.contains("`weights.safetensors`"), "{command}: {err}");
    }
}
