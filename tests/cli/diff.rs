//! `strata diff`: what differs is said, what does not is not.

use serde_json::Value;

use crate::Scratch;

/// A network that is compiled twice, otherwise than the first time.
fn compiled(scratch: &Scratch, name: &str, more: &[&str]) {
    let (bundle, stats) = (format!("{name}.strata"), format!("{name}.json"));
    let compile = ["compile", "net.onnx", "-o", &bundle, "--stats", &stats, "--dump-levels", name, "--quiet"];
    scratch.ends(0, &[&compile[..], more].concat());
}

fn pair() -> Scratch {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "yolov3-tiny", "--size", "320x320", "-o", "net.onnx", "--quiet"]);
    compiled(&scratch, "a", &["--set", "memory.activation=512KiB"]);
    compiled(&scratch, "b", &["--set", "memory.activation=128KiB"]);
    scratch
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is a list"))
}

fn figure(plan: &Value, key: &str) -> (f64, f64) {
    let found = list(plan, "figures").iter().find(|figure| figure["key"] == key);
    let figure = found.unwrap_or_else(|| panic!("there is a figure {key}"));
    (figure["a"].as_f64().expect("a number"), figure["b"].as_f64().expect("a number"))
}

#[test]
fn two_plans_are_told_apart_by_what_moved_and_what_it_cost() {
    let scratch = pair();
    let (shown, _) = scratch.ends(0, &["diff", "a.strata", "b.strata", "--format", "json"]);
    let shown = json(&shown);
    let plan = &shown["plan"];
    assert_eq!((&shown["schema"], &shown["equal"]), (&Value::from(1), &Value::from(false)));
    let stats = ["a.json", "b.json"]
        .map(|name| json(&std::fs::read_to_string(scratch.path(name)).expect("statistics were written")));
    for key in ["cycles", "dram_bytes.total", "dram_bytes.spill_write", "energy_pj.total"] {
        let pointer = format!("/simulated/{}", key.replace('.', "/"));
        let told = |at: usize| stats[at].pointer(&pointer).and_then(Value::as_f64).expect("a figure");
        assert_eq!(figure(plan, key), (told(0), told(1)), "{key}");
    }
    let (a, b) = figure(plan, "dram_bytes.total");
    assert!(b > a, "less SRAM moves more: {a} and {b}");
    // Every stage that moved is where the inspection of each bundle has it.
    let moved = list(plan, "moved");
    assert!(moved.iter().any(|stage| list(stage, "what").contains(&"phase".into())), "{plan}");
    assert!(!list(plan, "streams").is_empty(), "{plan}");
    for (file, side) in [("a.strata", "a"), ("b.strata", "b")] {
        let inspected = json(&scratch.ends(0, &["inspect", file, "--format", "json"]).0);
        let layers = list(&inspected["parts"][0], "layers");
        for stage in moved {
            let place = &stage[side];
            let is_it = |layer: &&Value| layer["name"] == place["name"] && layer["phase"] == place["phase"];
            let found = layers.iter().filter(is_it).any(|layer| layer["partition"] == place["partition"]);
            assert!(found, "{file}: {place}");
        }
    }
    let (table, _) = scratch.ends(0, &["diff", "a.strata", "b.strata"]);
    for title in ["dram_bytes.total", "energy_pj.total", "idle_mac_share", "stages that moved:"] {
        assert!(table.contains(title), "{title}: {table}");
    }
    let (stats, _) = scratch.ends(0, &["diff", "a.json", "b.json", "--format", "json"]);
    assert_eq!(figure(&json(&stats)["plan"], "cycles"), figure(plan, "cycles"));
}

#[test]
fn the_same_plan_is_the_same_from_a_bundle_and_from_its_dump() {
    let scratch = pair();
    for other in ["a.strata", "a/4-sched.mlir"] {
        let (shown, _) = scratch.ends(0, &["diff", "a.strata", other, "--exit-code"]);
        assert!(shown.contains("are the same"), "{shown}");
    }
    scratch.ends(0, &["diff", "a.strata", "b.strata"]);
    scratch.ends(4, &["diff", "a.strata", "b.strata", "--exit-code"]);
    scratch.ends(4, &["diff", "a/3-phases.mlir", "b/3-phases.mlir", "--exit-code"]);
}

#[test]
fn two_dumps_are_told_apart_op_by_op() {
    let scratch = pair();
    let text = std::fs::read_to_string(scratch.path("a/0-import.mlir")).expect("a dump");
    scratch.write(
        "a/edited.mlir",
        text.replacen("pad = array<i64: 1, 1, 1, 1>", "pad = array<i64: 0, 2, 0, 2>", 1),
    );
    let (shown, _) = scratch.ends(0, &["diff", "a/0-import.mlir", "a/edited.mlir", "--format", "json"]);
    let ops = &json(&shown)["ops"];
    let [changed] = list(ops, "changed") else { panic!("one op changed: {ops}") };
    assert_eq!((&changed["op"], &changed["what"]), (&"tosa.conv2d".into(), &Value::from(vec!["pad"])));
    assert!(list(ops, "added").is_empty() && list(ops, "removed").is_empty(), "{ops}");
    let (text, _) = scratch.ends(4, &["diff", "a/0-import.mlir", "a/edited.mlir", "--text", "--exit-code"]);
    let lines = |sign: char| text.lines().filter(|line| line.starts_with(sign)).count();
    assert!(lines('-') > 0 && lines('-') == lines('+'), "{text}");
    let (shown, _) = scratch.ends(0, &["diff", "a/0-import.mlir", "a/1-quant.mlir", "--format", "json"]);
    let ops = &json(&shown)["ops"];
    let is_rescale = |op: &Value| op["op"] == "tosa.rescale";
    assert!(list(ops, "added").iter().any(is_rescale), "{ops}");
    let (shown, _) = scratch.ends(0, &["diff", "a/3-phases.mlir", "b/3-phases.mlir", "--format", "json"]);
    assert!(!list(&json(&shown)["ops"], "moved").is_empty(), "stages stand in other phases");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", "dump", "--quiet"]);
    scratch.write("other.json", "{\"plan\": 3}");
    let cases: [(i32, &[&str], &str); 4] = [
        (1, &["diff", &model, "net.strata"], "neither a bundle"),
        (1, &["diff", "dump/1-quant.mlir", "net.strata"], "no plan in it"),
        (1, &["diff", "net.strata", "other.json"], "not the statistics"),
        (2, &["diff", "net.strata", "net.strata", "--text"], "--text takes two dumps"),
    ];
    for (code, arguments, what) in cases {
        let (_, err) = scratch.ends(code, arguments);
        assert!(err.contains(what), "{arguments:?} should say `{what}`: {err}");
    }
}
