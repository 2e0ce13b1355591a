//! `strata inspect`: its figures are those of a compile, and its forms say the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Scratch;

/// A network of the zoo, and a size at which it compiles in no time.
const NETWORKS: [(&str, &str); 6] = [
    ("fsrcnn", "24x16"),
    ("yolov3", "64x64"),
    ("yolov3-tiny", "64x64"),
    ("resnet50", "32x32"),
    ("mobilenetv2", "64x64"),
    ("unet", "64x64"),
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn inspected(scratch: &Scratch, file: &str) -> Value {
    json(&scratch.ends(0, &["inspect", file, "--format", "json"]).0)
}

fn layers(shown: &Value) -> impl Iterator<Item = &Value> {
    let parts = shown["parts"].as_array().expect("parts").iter();
    parts.flat_map(|part| part["layers"].as_array().expect("layers"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The multiply-accumulates of each node of the model. A node may be several stages, whose first op it is.
fn macs(shown: &Value) -> BTreeMap<&str, u64> {
    let mut macs = BTreeMap::new();
    for layer in layers(shown).filter(|layer| number(&layer["macs"]) > 0) {
        *macs.entry(layer["ops"][0]["node"].as_str().expect("a node")).or_default() += number(&layer["macs"]);
    }
    macs
}

#[test]
fn layers_add_up_to_what_statistics_say_at_every_level() {
    for (name, size) in NETWORKS {
        let scratch = Scratch::new();
        scratch.ends(0, &["zoo", name, "--size", size, "-o", "net.onnx", "--quiet"]);
        let compile = ["compile", "net.onnx", "-o", "net.strata", "--stats", "stats.json", "--quiet"];
        scratch.ends(0, &[&compile[..], &["--dump-levels", "dump"]].concat());
        let stats = json(&std::fs::read_to_string(scratch.path("stats.json")).expect("written"));
        let expected = number(&stats["model"]["macs_direct"]);
        let onnx = inspected(&scratch, "net.onnx");
        for file in ["net.onnx", "net.strata", "dump/0-import.mlir", "dump/1-quant.mlir"] {
            let shown = inspected(&scratch, file);
            assert_eq!(number(&shown["totals"]["macs"]), expected, "{name}, {file}");
            assert_eq!(layers(&shown).map(|layer| number(&layer["macs"])).sum::<u64>(), expected, "{file}");
            assert_eq!(macs(&shown), macs(&onnx), "{name}, {file}");
        }
        // Every op comes from a node of the model, and every stage stands in a phase and says so.
        let sched = inspected(&scratch, "dump/4-sched.mlir");
        for layer in layers(&sched).filter(|layer| layer["stage"].is_u64()) {
            assert!(layer["phase"].is_u64(), "{layer}");
            for step in layer["ops"].as_array().expect("ops") {
                let source = step["source"].as_str().unwrap_or_default();
                assert!(source.starts_with("net.onnx:"), "{name}: {layer}");
            }
        }
        for layer in layers(&inspected(&scratch, "net.strata")).filter(|layer| layer["is_transfer"].is_null())
        {
            let ops = layer["ops"].as_array().expect("ops");
            let is_known = |op: &Value| op["node"].as_str().is_some_and(|node| !node.is_empty());
            assert!(!ops.is_empty() && ops.iter().all(is_known), "{name}: {layer}");
        }
        let phases = &inspected(&scratch, "net.strata")["parts"][0]["phases"];
        let moved =
            |key: &str| phases.as_array().expect("phases").iter().map(|p| number(&p[key])).sum::<u64>();
        let dram = &stats["simulated"]["dram_bytes"];
        assert_eq!(moved("weight_load_bytes"), number(&dram["weights"]), "{name}");
        let total = moved("dram_read_bytes") + moved("dram_write_bytes") + moved("weight_load_bytes");
        assert_eq!(total, number(&dram["total"]), "{name}");
    }
}

#[test]
fn a_small_network_is_shown_as_a_table() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    let (table, _) = scratch.ends(0, &["inspect", &model]);
    insta::assert_snapshot!("inspect_table", table);
    let (markdown, _) = scratch.ends(0, &["inspect", &model, "--int8", "--format", "markdown"]);
    insta::assert_snapshot!("inspect_markdown", markdown);
}

/// A change here is a change of what scripts rely on: keys are added, never renamed.
#[test]
fn keys_are_stable() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--calibrate", &input, "--quiet"]);
    let mut shown = inspected(&scratch, "net.strata");
    let part = &mut shown["parts"][0];
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let (layer, phase) = (keys(&part["layers"][1]), keys(&part["phases"][0]));
    let told = [("layer", layer), ("phase", phase), ("part", keys(part)), ("file", keys(&shown))];
    insta::assert_snapshot!("inspect_keys", format!("{told:#?}"));
    assert_eq!(shown["schema"], 1);
    let (csv, _) = scratch.ends(0, &["inspect", "net.strata", "--format", "csv"]);
    insta::assert_snapshot!("inspect_csv_keys", csv.lines().next().expect("a header"));
    let shown = inspected(&scratch, "net.strata");
    assert_eq!(csv.lines().count(), 1 + layers(&shown).count());
}

#[test]
fn what_is_printed_fits_the_page() {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "mobilenetv2", "--size", "64x64", "-o", "net.onnx", "--quiet"]);
    scratch.ends(0, &["compile", "net.onnx", "-o", "net.strata", "--quiet"]);
    let (shown, _) = scratch.ends(0, &["inspect", "net.strata"]);
    let widest = shown.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|columns| columns <= 140), "{shown}");
    assert!(!shown.contains("0.0 MB") && !shown.contains(" 0.00 mJ"), "{shown}");
    let (short, _) = scratch.ends(0, &["inspect", "net.strata", "--summary"]);
    assert!(!short.contains("depthwise_conv2d") && short.contains("weights loaded"), "{short}");
}

#[test]
fn a_model_that_is_not_imported_whole_is_shown_by_its_nodes() {
    let scratch = Scratch::new();
    let model = crate::with_hardmax(&scratch);
    let shown = inspected(&scratch, &model);
    let hosts: Vec<&Value> = layers(&shown).filter(|layer| layer["host"].is_string()).collect();
    assert_eq!(hosts.len(), 1, "{shown}");
    assert_eq!(hosts[0]["op"], "Hardmax");
    scratch.ends(0, &["compile", &model, "-o", "mixed.strata", "--quiet"]);
    let bundle = inspected(&scratch, "mixed.strata");
    let runners: Vec<&Value> =
        bundle["parts"].as_array().expect("parts").iter().map(|p| &p["runner"]).collect();
    assert_eq!(runners, ["machine", "onnx", "machine"]);
    assert_eq!(number(&bundle["totals"]["macs"]), number(&shown["totals"]["macs"]));
}
