//! Ranges of activations as files: saved, given again, edited; from `compile` and from `opt`.

use super::Scratch;

/// What `opt` and `compile` take alike: a network of 24x16, quantised on noise.
const PASSES: &str = "canonicalise,quantise,canonicalise,rewrite-tosa,form-stages,fuse-layers,schedule";

impl Scratch {
    fn compiled(&self, arguments: &[&str]) -> Vec<u8> {
        let fixed = ["compile", "net.onnx", "-o", "net.strata", "--no-measure", "--quiet"];
        self.ends(0, &[&fixed, arguments].concat());
        std::fs::read(self.path("net.strata")).expect("the bundle is there")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file is there")
    }
}

#[test]
fn saved_ranges_change_nothing_and_edited_ones_do() {
    let scratch = Scratch::new();
    scratch.fsrcnn();
    let bundle = scratch.compiled(&["--save-ranges", "r.json"]);
    let text = scratch.read("r.json");
    assert!(text.lines().nth(1).expect("a tensor a line").starts_with(r#"{"part":0,"tensor":"%"#), "{text}");
    assert_eq!(scratch.compiled(&["--ranges", "r.json"]), bundle);

    // Of the input alone, and a wider one.
    let mut input: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    input["tensors"].as_array_mut().expect("a list").truncate(1);
    input["tensors"][0]["max"] = 100.0.into();
    scratch.write("edited.json", input.to_string());
    let wider = scratch.compiled(&["--ranges", "edited.json", "--save-ranges", "taken.json"]);
    assert_ne!(wider, bundle);
    assert_eq!(scratch.read("taken.json").lines().nth(2), text.lines().nth(2), "all else is as before");

    // A dump of the import is calibrated anew, and needs them again.
    scratch.compiled(&["--ranges", "edited.json", "--dump-levels", "dump"]);
    let (_, err) = scratch.ends(1, &["compile", "dump/0-import.mlir", "-o", "again.strata"]);
    assert!(err.contains("give them again with --ranges"), "{err}");
    scratch.ends(0, &["compile", "dump/0-import.mlir", "-o", "again.strata", "--ranges", "edited.json"]);
    assert_eq!(std::fs::read(scratch.path("again.strata")).expect("it is there"), wider);
}

#[test]
fn ranges_that_do_not_fit_are_refused() {
    let scratch = Scratch::new();
    let (_, array) = scratch.fsrcnn();
    scratch.compiled(&["--save-ranges", "noise.json"]);
    scratch.compiled(&["--save-ranges", "data.json", "--calibrate", &array]);
    let refused = |name: &str, text: &str, what: &str| {
        scratch.write(name, text);
        for command in
            [&["compile", "net.onnx"][..], &["opt", "net.onnx", "--passes", "canonicalise,quantise"]]
        {
            let (_, err) = scratch.ends(1, &[command, &["--ranges", name]].concat());
            assert!(err.contains(what), "{err}");
        }
    };
    let text = scratch.read("noise.json");
    refused("name.json", &text.replacen("\"%", "\"%x", 1), "did you mean");
    refused("part.json", &text.replacen("\"part\":0", "\"part\":1", 1), "ranges are given of what");
    refused("order.json", &text.replacen("\"min\":", "\"min\":1e9, \"x\":", 1), "at line 2");
    refused("range.json", &text.replacen("\"max\":", "\"max\":-1e9}, {\"max\":", 1), "missing field");
    // Ranges that are there, but of which no integers can be made: the range is told, not its layers.
    let mut input: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    input["tensors"].as_array_mut().expect("a list").truncate(1);
    let tensor = input["tensors"][0]["tensor"].as_str().expect("a name").to_owned();
    (input["tensors"][0]["min"], input["tensors"][0]["max"]) = ((-3e38).into(), 3e38.into());
    refused("wide.json", &input.to_string(), "ranges are given that cannot be used, by ");
    let (_, err) = scratch.ends(1, &["compile", "net.onnx", "--ranges", "wide.json"]);
    let range = format!("`{tensor}` from -3e38 to 3e38 (the calibration chooses ");
    assert!(err.contains(&range) && err.contains("; nothing much wider than "), "{err}");
    refused("data2.json", &scratch.read("data.json"), "equalised, and this one is not");
}

#[test]
fn a_model_goes_to_its_schedule_in_one_pipeline() {
    let scratch = Scratch::new();
    scratch.fsrcnn();
    scratch.compiled(&["--save-ranges", "compile.json"]);
    let arguments = ["opt", "net.onnx", "--passes", PASSES, "-o", "sched.mlir", "--verify-each", "run"];
    let (_, err) = scratch.ends(0, &[&arguments[..], &["--save-ranges", "opt.json"]].concat());
    assert!(err.contains("ranges come from seeded noise"), "{err}");
    assert_eq!(scratch.read("opt.json"), scratch.read("compile.json"));
    assert!(scratch.read("sched.mlir").contains("strata.level = \"sched\""));
    let (_, err) =
        scratch.ends(1, &["opt", "net.onnx", "--passes", "canonicalise", "--save-ranges", "no.json"]);
    assert!(err.contains("no ranges were chosen"), "{err}");
}

/// What is read is not written over, nor what is written.
#[test]
fn files_are_not_lost() {
    let scratch = Scratch::new();
    scratch.fsrcnn();
    let model = std::fs::read(scratch.path("net.onnx")).expect("it is there");
    let cases = [
        &["compile", "net.onnx", "-o", "net.strata", "--save-ranges", "./net.onnx"][..],
        &["compile", "net.onnx", "-o", "same", "--save-ranges", "same"],
        &["opt", "net.onnx", "--passes", "canonicalise", "-o", "./net.onnx"],
        &["reduce", "net.onnx", "--script", "true", "-o", "./net.onnx"],
    ];
    for arguments in cases {
        let (_, err) = scratch.ends(2, arguments);
        assert!(err.contains("names"), "{err}");
    }
    assert_eq!(std::fs::read(scratch.path("net.onnx")).expect("it is there"), model);
}
