//! The `strata` command from outside: what it writes, what it says, and with which exit code it ends.

#[path = "cli/book.rs"]
mod book;
#[path = "cli/checkpoints.rs"]
mod checkpoints;
#[path = "cli/compare.rs"]
mod compare;
#[path = "cli/diff.rs"]
mod diff;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/explain_plan.rs"]
mod explain_plan;
#[path = "cli/filetests.rs"]
mod filetests;
#[path = "cli/inspect.rs"]
mod inspect;
#[path = "cli/interpreter.rs"]
mod interpreter;
#[path = "cli/opt.rs"]
mod opt;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/ranges.rs"]
mod ranges;
#[path = "cli/reduce.rs"]
mod reduce;
#[path = "cli/stages.rs"]
mod stages;
#[path = "cli/timings.rs"]
mod timings;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use strata::io::{Array, DType};
use strata_frontend::proto::pb::TensorProto;
use strata_frontend::proto::{NodeProto, decode, encode};
use strata_frontend::zoo::{ZooOptions, build};

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Runs the command in this folder.
    fn strata(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("the command starts")
    }

    /// Runs the command, which must end with `code`; gives standard output and standard error.
    fn ends(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = self.strata(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "strata {arguments:?}\n{out}\n{err}");
        (out, err)
    }

    /// A small network of the zoo, and an input for it.
    fn fsrcnn(&self) -> (String, String) {
        self.ends(0, &["zoo", "fsrcnn", "--size", "24x16", "-o", "net.onnx", "--quiet"]);
        let values = (0..24 * 16).map(|i| (i % 97) as f32 / 97.0).collect();
        self.write("in.npy", Array::f32(vec![1, 1, 16, 24], values).to_npy());
        ("net.onnx".to_owned(), "in.npy".to_owned())
    }
}

fn load(path: &Path) -> Array {
    Array::from_npy(&std::fs::read(path).expect("the output is there")).expect("the output is an array")
}

/// The largest difference of two arrays over the range of the first.
fn relative_error(expected: &Array, found: &Array) -> f64 {
    assert_eq!(expected.shape, found.shape);
    let range = |values: &[f64]| {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        most - least
    };
    let pairs = expected.values.iter().zip(&found.values);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / range(&expected.values)
}

/// Signal to noise in decibels.
fn decibels(expected: &Array, found: &Array) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let pairs = expected.values.iter().zip(&found.values);
    10.0 * (square(&mut expected.values.iter().copied()) / square(&mut pairs.map(|(a, b)| a - b))).log10()
}

/// That the signal to noise that a compile has told, printed and in `stats.json`, is that of what the bundle
/// gives.
fn told_is_computed(scratch: &Scratch, printed: &str, expected: &Array, found: &Array) {
    let stats = std::fs::read_to_string(scratch.path("stats.json")).expect("statistics are written");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("they are JSON");
    let mut ratios = stats["sqnr_db"].as_object().expect("it was measured").values();
    let told = ratios.next().and_then(|db| db.as_f64()).expect("a ratio");
    let computed = decibels(expected, found);
    assert!((told - computed).abs() < 0.01, "{told} is told, {computed} computed");
    assert!(printed.contains(&format!(": {told:.1} dB signal to quantisation noise")), "{printed}");
}

#[test]
fn activations_of_16_bits_where_they_are_asked_for() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    let compile = |more: &[&str]| {
        let arguments =
            ["compile", &model, "-o", "net.strata", "--calibrate", &input, "--stats", "stats.json"];
        let (_, err) = scratch.ends(0, &[&arguments[..], more].concat());
        let stats = std::fs::read_to_string(scratch.path("stats.json")).expect("statistics are written");
        (serde_json::from_str::<serde_json::Value>(&stats).expect("they are JSON"), err)
    };
    let db = |stats: &serde_json::Value| {
        let each = stats["sqnr_db"].as_object().expect("it was measured").values();
        each.map(|db| db.as_f64().expect("a number")).fold(f64::INFINITY, f64::min)
    };
    let cycles = |stats: &serde_json::Value| stats["simulated"]["cycles"].as_u64().expect("it was simulated");
    let (narrow, _) = compile(&[]);
    let (wide, _) = compile(&["--precision", "int16"]);
    assert!(db(&wide) > db(&narrow) + 3.0 && cycles(&wide) > cycles(&narrow), "{narrow}\n{wide}");
    let (mixed, said) = compile(&["--precision", "mixed", "--precision-budget", "25"]);
    let found = &mixed["precision"][0];
    assert!(
        said.contains("mixed precision") && !found["i16"].as_array().expect("groups").is_empty(),
        "{said}"
    );
    assert!(found["cost_percent"].as_f64().is_some_and(|percent| percent <= 25.0), "{found}");
    assert!(db(&mixed) > db(&narrow), "{narrow}\n{mixed}");
    let layer = found["i16"][0]["layers"][0].as_str().expect("a name").to_owned();
    let (chosen, _) = compile(&["--int16", &layer]);
    assert_ne!(chosen["plan"], narrow["plan"], "{layer} is 16-bit");

    let (_, err) = scratch.ends(1, &["compile", &model, "--int16", &layer, "--int16", "nothing"]);
    assert!(err.contains("`nothing`") && !err.contains(&layer), "{err}");
    scratch.ends(2, &["compile", &model, "--target-sqnr", "30"]);
    scratch.ends(2, &["compile", &model, "--precision", "mixed", "--precision-budget", "-1"]);
}

#[test]
fn a_network_goes_all_the_way() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["run", &model, "--input", &format!("0={input}"), "--output-dir", "f32"]);
    let (out, err) = scratch
        .ends(0, &["compile", &model, "-o", "net.strata", "--calibrate", &input, "--stats", "stats.json"]);
    assert!(out.contains("wrote net.strata"), "{out}\n{err}");
    assert!(err.is_empty(), "nothing to note: {err}");
    let by_position = format!("0={input}");
    scratch.ends(0, &["run", "net.strata", "--input", &by_position, "--output-dir", "int8"]);
    scratch.ends(0, &["run", "net.strata", "--input", &by_position, "--output-dir", "raw", "--raw"]);
    let (expected, found) = (load(&scratch.path("f32/0.npy")), load(&scratch.path("int8/0.npy")));
    assert_eq!((expected.dtype, found.dtype), (DType::F32, DType::F32));
    let error = relative_error(&expected, &found);
    assert!(error > 0.0 && error < 0.1, "int8 is near f32 but not equal to it: {error}");
    assert_eq!(load(&scratch.path("raw/0.npy")).dtype, DType::I8);
    told_is_computed(&scratch, &out, &expected, &found);

    scratch.ends(0, &["verify", "net.strata"]);
    let (text, _) = scratch.ends(0, &["disasm", "net.strata"]);
    assert!(text.contains("end_phase"), "no phase in the text");
    let (text, _) = scratch.ends(0, &["inspect", "net.strata"]);
    assert!(text.contains("net for x1") && text.contains("phase"), "{text}");
    scratch.ends(0, &["report", "net.strata", "-o", "report.html"]);
    let page = std::fs::read_to_string(scratch.path("report.html")).expect("the page is there");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Phase 0"), "{page}");
}

#[test]
fn what_quantise_measures_is_what_the_program_computes() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    for options in [&[][..], &["--equalise", "off", "--bias-correction", "off", "--range", "entropy"]] {
        let common = [&["--calibrate", &input][..], options].concat();
        let reports = ["--report", "noise.html", "--json", "noise.json", "--outputs", "measured"];
        let (table, _) = scratch.ends(0, &[&["quantise", &model][..], &common, &reports].concat());
        scratch.ends(0, &[&["compile", &model, "-o", "net.strata", "--quiet"][..], &common].concat());
        scratch
            .ends(0, &["run", "net.strata", "--input", &format!("0={input}"), "-o", "computed", "--quiet"]);
        let (measured, computed) =
            (load(&scratch.path("measured/in/0.npy")), load(&scratch.path("computed/0.npy")));
        assert_eq!(measured, computed);

        let json = std::fs::read_to_string(scratch.path("noise.json")).expect("written");
        let figures: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let db = figures["outputs"][0]["sqnr_db"].as_f64().expect("some noise");
        assert!(db > 20.0 && table.contains(&format!("{db:.1}")), "{table}");
        let layers = figures["layers"].as_array().expect("layers");
        let page = std::fs::read_to_string(scratch.path("noise.html")).expect("written");
        assert_eq!(page.matches("<rect").count(), layers.len());
        for layer in layers {
            assert!(page.contains(layer["name"].as_str().expect("a name")), "{layer}");
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    for output in ["a.strata", "b.strata"] {
        scratch.ends(0, &["compile", &model, "-o", output, "--quiet"]);
    }
    let read = |name| std::fs::read(scratch.path(name)).expect("the bundle is there");
    assert!(read("a.strata") == read("b.strata"), "two compiles differ");
}

#[test]
fn statistics_have_the_documented_keys() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--stats", "compile.json", "--quiet"]);
    scratch.ends(0, &["run", "net.strata", "--timing", "--stats", "run.json", "--quiet"]);
    let json = |name| -> serde_json::Value {
        let text = std::fs::read_to_string(scratch.path(name)).expect("the statistics are there");
        serde_json::from_str(&text).expect("statistics are JSON")
    };
    let (compile, run) = (json("compile.json"), json("run.json"));
    let traffic = ["weights", "inputs", "outputs", "spill_write", "spill_read", "total", "compulsory"];
    let groups: [(&serde_json::Value, &str, &[&str]); 11] = [
        (&compile, "/model", &["layers", "macs_direct", "macs_winograd", "weights", "parameters"]),
        (&compile, "/plan", &["phases", "stages", "largest_phase_stages", "cycles", "lower_bound_cycles"]),
        (&compile, "/plan", &["gap", "peak_activation_sram_bytes", "peak_weight_sram_bytes"]),
        (&compile, "/plan", &["mac_utilisation", "frames_per_second"]),
        (&compile, "/plan/dram_bytes", &traffic),
        (&compile, "/plan/energy_pj", &["mac", "sram", "dram", "total"]),
        (&run, "/simulated/dram_bytes", &traffic),
        (&run, "/simulated/stream", &["frames", "cycles", "lower_bound_cycles", "gap", "frames_per_second"]),
        (&run, "/simulated/stream/dram_bytes", &traffic),
        (&run, "/simulated/stream/energy_pj", &["mac", "sram", "dram", "total"]),
        (&compile, "/plan/frame_bound", &["cycles", "bytes"]),
    ];
    for (stats, group, keys) in groups {
        for key in keys {
            let found = stats.pointer(&format!("{group}/{key}"));
            assert!(found.is_some_and(serde_json::Value::is_number), "{group}/{key}: {found:?}");
        }
    }
    assert_eq!(compile["plan"]["mode"], "multi");
    assert_eq!(compile["plan"]["objective"], "latency");
    assert!(compile["plan"]["proven_optimal"].is_boolean());
    assert!(compile["compile"]["seconds_by_pass"].is_object());
    assert!(run["simulated"]["cycles"].as_u64().is_some_and(|cycles| cycles > 0));
    assert!(run["simulated"]["mac_utilisation"].is_number());
    assert!(compile["simulated"]["array"].is_object() && compile["simulated"]["phases"].is_null());
    times_add_up(&run["simulated"]);
    // What a bundle is timed to take is what it was when it was compiled, frames of a stream too.
    let stream = &run["simulated"]["stream"];
    assert_eq!(stream, &compile["simulated"]["stream"]);
    assert_eq!(stream["lower_bound_cycles"], compile["plan"]["frame_bound"]["cycles"]);
    // All weights stay, so all that is moved of a frame is the inputs and outputs.
    assert_eq!(stream["dram_bytes"]["weights"], 0);
    assert!(stream["cycles"].as_u64() <= run["simulated"]["cycles"].as_u64(), "{stream}");
    assert!(stream["cycles"].as_u64() >= stream["lower_bound_cycles"].as_u64(), "{stream}");
    // Statistics that an older version wrote know nothing of frames.
    let mut old = compile.clone();
    for (group, key) in [("plan", "frame_bound"), ("simulated", "stream")] {
        assert!(old[group].as_object_mut().and_then(|group| group.remove(key)).is_some(), "{group}");
    }
    scratch.write("old.json", old.to_string().into_bytes());
    scratch.ends(0, &["diff", "old.json", "compile.json"]);
}

/// The times of the array and the queues add up to the whole, and those of each phase to its cycles.
fn times_add_up(simulated: &serde_json::Value) {
    const KEYS: [&str; 8] = [
        "configuring",
        "busy",
        "switching",
        "stalled_input",
        "stalled_output",
        "stalled_weights",
        "waiting_turn",
        "idle",
    ];
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let sum = |times: &serde_json::Value| KEYS.map(|key| number(&times[key])).into_iter().sum::<u64>();
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let cycles = number(&simulated["cycles"]);
    assert_eq!(sum(&simulated["array"]), 64 * cycles);
    let mut all = 0;
    for phase in list(&simulated["phases"]) {
        for times in [list(&phase["stages"]), list(&phase["partitions"])].concat() {
            assert_eq!(sum(&times), number(&phase["cycles"]), "{times}");
        }
        let named =
            list(&phase["stages"]).iter().all(|stage| stage["name"] != "" && stage["head"].is_string());
        assert!(named && list(&phase["partitions"]).iter().all(|part| number(&part["clusters"]) > 0));
        all += number(&phase["cycles"]);
    }
    assert_eq!(all, cycles);
    for queue in ["load", "store", "weights"] {
        assert_eq!(sum(&simulated["dma"][queue]), cycles, "{queue}");
    }
}

#[test]
fn timing_says_what_array_and_queues_wait_for() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let (text, _) = scratch.ends(0, &["run", "net.strata", "--timing"]);
    for row in ["array, by clusters", "DMA loads", "DMA stores", "DMA weights"] {
        let line = text.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row}: {text}"));
        let shares = line[row.len()..].split('%').filter_map(|share| share.trim().parse::<f64>().ok());
        let shares: Vec<f64> = shares.collect();
        assert_eq!(shares.len(), 8, "{line}");
        assert!((shares.iter().sum::<f64>() - 100.0).abs() < 0.5, "{line}");
    }
    scratch.ends(0, &["report", "net.strata", "-o", "page.html"]);
    let page = std::fs::read_to_string(scratch.path("page.html")).expect("the page is there");
    assert!(page.contains("partition 0, clusters:") && page.contains("DMA stores"), "{page}");
}

#[test]
fn every_phase_is_dumped_and_reads_back() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", "dump", "--quiet"]);
    for phase in ["0-import", "1-quant", "2-stages", "3-phases", "4-sched"] {
        scratch.ends(0, &["verify", &format!("dump/{phase}.mlir")]);
    }
    assert!(scratch.path("dump/5-program.asm").is_file());
    let (emitted, _) = scratch.ends(0, &["compile", &model, "--emit", "quant", "--quiet"]);
    assert!(emitted.contains("tosa.rescale"), "{emitted}");
    let import = "dump/0-import.mlir";
    let (text, _) = scratch.ends(0, &["opt", "--passes", "canonicalise", import]);
    scratch.write("again.mlir", text);
    scratch.ends(0, &["verify", "again.mlir"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    let wrong: &[&[&str]] = &[
        &[],
        &["compile"],
        &["frobnicate"],
        &["compile", &model, "--mode", "triple"],
        &["compile", &model, "--target", "x9"],
        &["compile", &model, "--set", "memory.sram=1"],
        &["compile", &model, "--set", "nonsense"],
        &["compile", &model, "--input-shape", "x=1x0"],
        &["run", &model, "--input", &input],
        &["run", &model, "--raw"],
        &["zoo", "alexnet"],
        &["zoo", "fsrcnn", "--size", "large"],
        &["completions", "tcsh-9"],
    ];
    for arguments in wrong {
        let (_, err) = scratch.ends(2, arguments);
        assert!(err.contains("error") || err.contains("Usage"), "{arguments:?}: {err}");
    }
    scratch.write("m.mlir", "");
    scratch.ends(2, &["opt", "m.mlir", "--passes", "no-such-pass"]);
}

#[test]
fn bad_input_ends_with_1_and_says_why() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    let onnx = std::fs::read(scratch.path(&model)).expect("the model is there");
    scratch.write("cut.onnx", &onnx[..onnx.len() / 2]);
    scratch.write("text.png", "no picture");
    scratch.write("bad.mlir", "func.func @main(");
    scratch.write("bad.strata", b"PK\x03\x04 and then nothing");
    scratch.write("small.npy", Array::f32(vec![1, 1, 8, 8], vec![0.0; 64]).to_npy());
    let at_0 = format!("0={input}");
    let cases: &[(&[&str], &str)] = &[
        (&["compile", "none.onnx"], "none.onnx"),
        (&["compile", "cut.onnx"], "malformed"),
        (&["compile", &model, "--set", "array.lanes=48"], "power of two"),
        (&["compile", &model, "--calibrate", "text.png"], "text.png"),
        (&["compile", &model, "--calibrate", "none"], "none"),
        (&["compile", &model, "--calibrate", "small.npy"], "expected shape"),
        (&["compile", &model, "--input-shape", "nobody=1x1x8x8"], "nobody"),
        (&["run", &model], "missing"),
        (&["run", &model, "--input", "0=small.npy"], "expected shape"),
        (&["run", &model, "--input", "nobody=in.npy"], "nobody"),
        (&["run", &model, "--input", &at_0, "--input", &at_0], "twice"),
        (&["run", "bad.strata"], "not a bundle"),
        (&["verify", "bad.strata"], "not a bundle"),
        (&["verify", "bad.mlir"], "bad.mlir"),
        (&["inspect", "text.png"], "text.png"),
        (&["disasm", &model], "not a bundle"),
        (&["zoo", "yolov3", "--size", "100x100"], "multiple of 32"),
        (&["zoo", "yolov3", "--weights", "text.png"], "yolov3"),
    ];
    for (arguments, what) in cases {
        let (_, err) = scratch.ends(1, arguments);
        let first = err.lines().find(|line| line.starts_with("error: "));
        assert!(first.is_some(), "{arguments:?}: {err}");
        assert!(err.contains(what), "{arguments:?} should say `{what}`: {err}");
    }
}

#[test]
fn a_bundle_damaged_anywhere_in_its_head_is_refused() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let bytes = std::fs::read(scratch.path("net.strata")).expect("the bundle is there");
    // Some places; the library's own tests damage every byte.
    for at in (0..bytes.len().min(4000)).step_by(397) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        scratch.write("damaged.strata", &damaged);
        let output = scratch.strata(&["verify", "damaged.strata"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {at}: {:?}", output.status);
    }
    scratch.write("cut.strata", &bytes[..bytes.len() - 100]);
    scratch.ends(1, &["verify", "cut.strata"]);
}

#[test]
fn messages_can_be_json() {
    let scratch = Scratch::new();
    let (_, err) = scratch.ends(1, &["--message-format", "json", "compile", "none.onnx"]);
    let message: serde_json::Value = serde_json::from_str(err.trim()).expect("one JSON object");
    assert_eq!((message["level"].as_str(), message["exit_code"].as_u64()), (Some("error"), Some(1)));
    assert!(message["message"].as_str().is_some_and(|text| text.contains("none.onnx")));
}

#[test]
fn output_is_plain_and_a_closed_pipe_is_no_error() {
    let scratch = Scratch::new();
    let (out, err) = scratch.ends(0, &["zoo"]);
    assert!(out.contains("yolov3-tiny") && err.is_empty());
    assert!(!out.contains('\u{1b}'), "no colours but on a terminal");
    let (script, _) = scratch.ends(0, &["completions", "bash"]);
    assert!(script.contains("strata"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["completions", "zsh"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn addresses_are_allocated_or_refused() {
    let scratch = Scratch::new();
    scratch.write("buffers.csv", "id,lower,upper,size\na,0,2,4\nb,1,3,4\nc,2,4,4\n");
    let at = ["alloc", "--input", "buffers.csv", "--output", "plan.csv"];
    scratch.ends(0, &[&at[..], &["--capacity", "8"]].concat());
    let plan = std::fs::read_to_string(scratch.path("plan.csv")).expect("the plan is there");
    assert!(plan.starts_with("id,lower,upper,size,offset\n"), "{plan}");
    std::fs::remove_file(scratch.path("plan.csv")).expect("removed");
    let (_, err) = scratch.ends(1, &[&at[..], &["--capacity=7"]].concat());
    assert!(err.contains("do not fit"), "{err}");
    assert!(!scratch.path("plan.csv").exists(), "no plan, no file");
    scratch.write("buffers.csv", "id,lower,upper,size\na,0,2,x\n");
    let (_, err) = scratch.ends(1, &at);
    assert!(err.contains("line 2"), "{err}");
}

/// A network with an operator in its middle that only the host knows.
fn with_hardmax(scratch: &Scratch) -> String {
    with_operator(scratch, "Hardmax")
}

/// A network with an operator before its last convolution.
fn with_operator(scratch: &Scratch, operator: &str) -> String {
    let options = ZooOptions { size: Some((24, 16)), ..ZooOptions::default() };
    let mut model = build("fsrcnn", &options).expect("the zoo has it");
    let graph = model.graph.as_mut().expect("it has a graph");
    let is_conv = |node: &NodeProto| node.op_type == "Conv";
    let last = graph.node.iter().rposition(is_conv).expect("it has convolutions");
    let name = graph.node[last].input[0].clone();
    let hardmax = NodeProto {
        op_type: operator.to_owned(),
        name: "pick".to_owned(),
        input: vec![name],
        output: vec!["picked".to_owned()],
        ..NodeProto::default()
    };
    graph.node[last].input[0] = "picked".to_owned();
    graph.node.insert(last, hardmax);
    scratch.write("mixed.onnx", encode(&model));
    "mixed.onnx".to_owned()
}

/// [`with_hardmax`], with scales of the model's own after it.
fn with_own_scales_after_hardmax(scratch: &Scratch) -> String {
    let path = with_hardmax(scratch);
    let bytes = std::fs::read(scratch.path(&path)).expect("it was written");
    let mut model = decode(&bytes).expect("it is a model");
    let graph = model.graph.as_mut().expect("it has a graph");
    let scalar = |name: &str, data_type: i32, raw_data: Vec<u8>| TensorProto {
        name: name.to_owned(),
        data_type,
        raw_data,
        ..TensorProto::default()
    };
    // FLOAT and INT8 of ONNX.
    graph.initializer.push(scalar("scale", 1, 0.01_f32.to_le_bytes().to_vec()));
    graph.initializer.push(scalar("zero", 3, vec![0]));
    let at = graph.node.iter().position(|node| node.input.contains(&"picked".to_owned())).expect("a reader");
    graph.node[at].input[0] = "real".to_owned();
    for (operator, from, to) in [("QuantizeLinear", "picked", "steps"), ("DequantizeLinear", "steps", "real")]
    {
        let at = graph.node.iter().position(|node| node.input[0] == "real").expect("a reader");
        let node = NodeProto {
            op_type: operator.to_owned(),
            name: to.to_owned(),
            input: [from, "scale", "zero"].map(str::to_owned).to_vec(),
            output: vec![to.to_owned()],
            ..NodeProto::default()
        };
        graph.node.insert(at, node);
    }
    scratch.write("own-scales.onnx", encode(&model));
    "own-scales.onnx".to_owned()
}

/// What is chosen for the whole model is not meant for a part of it that leaves no choice.
#[test]
fn a_part_that_brings_its_scales_keeps_its_precision() {
    let scratch = Scratch::new();
    let model = with_own_scales_after_hardmax(&scratch);
    for precision in ["mixed", "int16"] {
        let arguments = ["compile", &model, "-o", "net.strata", "--no-measure", "--precision", precision];
        let (_, err) = scratch.ends(0, &arguments);
        assert!(err.contains("part 2 brings its own scales"), "{precision}: {err}");
    }
}

/// What is planned in parts was quantised in parts before, which is not forgotten.
#[test]
fn ranges_and_levels_of_a_model_in_parts_are_written() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    let compile = ["compile", &model, "--quiet", "--no-measure"];
    scratch.ends(0, &[&compile[..], &["-o", "net.strata", "--save-ranges", "r.json"]].concat());
    let ranges = std::fs::read_to_string(scratch.path("r.json")).expect("it is there");
    assert!(ranges.contains("\"part\":0") && ranges.contains("\"part\":2"), "{ranges}");
    let first = std::fs::read(scratch.path("net.strata")).expect("a bundle");
    scratch.ends(0, &[&compile[..], &["-o", "net.strata", "--ranges", "r.json"]].concat());
    assert_eq!(first, std::fs::read(scratch.path("net.strata")).expect("a bundle"));
    for level in ["import", "quant", "stages", "phases", "sched"] {
        scratch.ends(0, &[&compile[..], &["--emit", level, "-o", "net.mlir"]].concat());
        let text = std::fs::read_to_string(scratch.path("net.mlir")).expect("it is there");
        assert_eq!(text.matches(&format!("strata.level = \"{level}\"")).count(), 2, "{level}");
    }
}

#[test]
fn the_host_runs_what_the_machine_cannot() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    let values = (0..24 * 16).map(|i| (i % 97) as f32 / 97.0).collect();
    scratch.write("in.npy", Array::f32(vec![1, 1, 16, 24], values).to_npy());
    let compile = ["compile", &model, "-o", "mixed.strata", "--calibrate", "in.npy", "--stats", "stats.json"];
    let (out, _) = scratch.ends(0, &[&compile[..], &["--dump-levels", "dump"]].concat());
    assert!(out.contains("the host runs 1 node in 1 part:") && out.contains("Hardmax `pick`"), "{out}");
    for file in ["dump/1-quant.mlir", "dump/4-sched.mlir"] {
        let dump = std::fs::read_to_string(scratch.path(file)).expect("a dump");
        assert_eq!(dump.matches("// -----").count(), 2, "{file} has three parts");
    }
    let (shown, _) = scratch.ends(0, &["inspect", "mixed.strata"]);
    assert!(shown.contains("part 1: the host, an ONNX model"), "{shown}");
    scratch.ends(0, &["verify", "mixed.strata"]);
    let run = ["run", "mixed.strata", "--input", "0=in.npy", "--output-dir", "out", "--timing"];
    let (timed, _) = scratch.ends(0, &run);
    for text in [&out, &shown, &timed] {
        assert!(text.contains("not simulated: the machine runs 2 programs for each"), "{text}");
    }
    let found = load(&scratch.path("out/0.npy"));
    assert!(found.values.iter().all(|v| v.is_finite()) && found.values.iter().any(|&v| v != 0.0));
    scratch.ends(0, &["run", &model, "--input", "0=in.npy", "--output-dir", "f32"]);
    told_is_computed(&scratch, &out, &load(&scratch.path("f32/0.npy")), &found);
    // A program each before and after.
    scratch.ends(0, &["run", "mixed.strata", "--input", "0=in.npy", "--output-dir", "raw", "--raw"]);
    assert!(scratch.path("raw/1.npy").is_file());

    let (_, err) = scratch.ends(3, &["compile", &model, "-o", "none.strata", "--no-host"]);
    assert!(err.contains("Hardmax `pick`"), "{err}");
    assert!(!scratch.path("none.strata").exists());
}

#[test]
fn a_model_runs_in_f32_with_what_the_host_runs_of_it() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    let values = (0..24 * 16).map(|i| (i % 97) as f32 / 97.0).collect();
    scratch.write("in.npy", Array::f32(vec![1, 1, 16, 24], values).to_npy());
    scratch.ends(0, &["run", &model, "--input", "0=in.npy", "--output-dir", "out"]);
    let found = load(&scratch.path("out/0.npy"));
    assert!(found.values.iter().all(|v| v.is_finite()) && found.values.iter().any(|&v| v != 0.0));
}

#[test]
fn what_nobody_runs_is_told_once_and_in_our_words() {
    let scratch = Scratch::new();
    let model = with_operator(&scratch, "Frobnicate");
    scratch.write("in.npy", Array::f32(vec![1, 1, 16, 24], vec![0.0; 384]).to_npy());
    for arguments in [
        &["compile", &model, "-o", "none.strata"][..],
        &["run", &model, "--input", "0=in.npy", "--output-dir", "out"],
    ] {
        let (_, err) = scratch.ends(3, arguments);
        assert!(err.contains("Frobnicate `pick`"), "{err}");
        // What follows it, whose shapes nobody knows, is no cause.
        assert_eq!(err.lines().filter(|line| line.contains("`: ")).count(), 1, "{err}");
        assert!(!err.contains("tract") && !err.contains("panicked"), "{err}");
    }
}

#[test]
fn inputs_that_are_no_numbers_are_refused() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--calibrate", &input]);
    for (value, says) in [(f32::NAN, "NaN in 1 of 384"), (f32::INFINITY, "an infinity in 1 of 384")] {
        let mut values = vec![0.5; 384];
        values[7] = value;
        scratch.write("odd.npy", Array::f32(vec![1, 1, 16, 24], values).to_npy());
        for file in ["net.strata", &model] {
            let (_, err) = scratch.ends(1, &["run", file, "--input", "0=odd.npy", "--output-dir", "out"]);
            assert!(err.contains(says), "{err}");
        }
        let (_, err) = scratch.ends(1, &["compile", &model, "-o", "no.strata", "--calibrate", "odd.npy"]);
        assert!(err.contains(says) && err.contains("odd.npy"), "{err}");
    }
}

/// Folders `a` and `b` hold the same arrays under the same names.
fn same_arrays(scratch: &Scratch, a: &str, b: &str, names: &[&str]) {
    for name in names {
        let [a, b] = [a, b].map(|folder| load(&scratch.path(&format!("{folder}/{name}.npy"))));
        assert_eq!((a.shape, a.values), (b.shape, b.values), "{name}");
    }
}

#[test]
fn functions_of_tosa_are_compiled_and_run_from_either_form() {
    let scratch = Scratch::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend/tests/tosa");
    let values = (0..32).map(|i| f64::from(i * 41 % 251 - 125)).collect();
    let input = Array::new(vec![1, 4, 4, 2], DType::I8, values).expect("fits");
    scratch.write("in.npy", input.to_npy());
    for form in ["mlir", "tosa"] {
        let model = folder.join(format!("small.{form}"));
        let model = model.to_str().expect("UTF-8");
        let (bundle, run, ran) = (format!("{form}.strata"), format!("{form}-eval"), format!("{form}-ran"));
        scratch.ends(0, &["run", model, "--input", "0=in.npy", "--output-dir", &run]);
        scratch.ends(0, &["compile", model, "-o", &bundle, "--target", "micro"]);
        scratch.ends(0, &["run", &bundle, "--input", "0=in.npy", "--output-dir", &ran]);
        same_arrays(&scratch, &run, &ran, &["0", "1"]);
        let (out, _) = scratch.ends(0, &["inspect", model]);
        assert!(out.contains("tosa.conv2d"), "{out}");
    }
    same_arrays(&scratch, "mlir-eval", "tosa-eval", &["0", "1"]);
    assert_eq!(load(&scratch.path("mlir-eval/1.npy")).dtype, DType::I32);
}

#[test]
fn functions_of_floats_are_calibrated_and_those_that_do_not_fit_are_declined_or_refused() {
    let scratch = Scratch::new();
    let conv =
        "func.func @forward(%x: tensor<1x8x8x3xf32> {strata.name = \"image\"}) -> tensor<1x8x8x4xf32> {
        %w = \"tosa.const\"() <{values = dense<0.25> : tensor<4x3x3x3xf32>}> : () -> tensor<4x3x3x3xf32>
        %b = \"tosa.const\"() <{values = dense<1.0> : tensor<4xf32>}> : () -> tensor<4xf32>
        %z = \"tosa.const\"() <{values = dense<0.0> : tensor<1xf32>}> : () -> tensor<1xf32>
        %y = tosa.conv2d %x, %w, %b, %z, %z {acc_type = f32, dilation = array<i64: 1, 1>,
            pad = array<i64: 1, 1, 1, 1>, stride = array<i64: 1, 1>}
            : (tensor<1x8x8x3xf32>, tensor<4x3x3x3xf32>, tensor<4xf32>,
            tensor<1xf32>, tensor<1xf32>) -> tensor<1x8x8x4xf32>
        return %y : tensor<1x8x8x4xf32>
    }";
    scratch.write("net.mlir", conv);
    let values = (0..192).map(|i| (i % 17) as f32 / 17.0).collect();
    scratch.write("in.npy", Array::f32(vec![1, 8, 8, 3], values).to_npy());
    let (out, _) = scratch.ends(0, &["compile", "net.mlir", "-o", "net.strata", "--calibrate", "in.npy"]);
    assert!(out.contains("dB signal to quantisation noise"), "{out}");
    scratch.ends(0, &["run", "net.mlir", "--input", "image=in.npy", "--output-dir", "f32"]);
    scratch.ends(0, &["run", "net.strata", "--input", "image=in.npy", "--output-dir", "int8"]);
    let output = |folder: &str| load(&scratch.path(&format!("{folder}/output0.npy")));
    assert!(relative_error(&output("f32"), &output("int8")) < 0.02);

    let seam = "func.func @f(%a: tensor<4xi8>) -> tensor<4xf32> {
        %0 = tosa.cast %a : (tensor<4xi8>) -> tensor<4xf32>
        return %0 : tensor<4xf32>
    }";
    scratch.write("seam.mlir", seam);
    let (_, err) = scratch.ends(3, &["compile", "seam.mlir"]);
    assert!(err.contains("narrow integers"), "{err}");
    scratch.write(
        "wrong.mlir",
        seam.replace("-> tensor<4xf32>", "-> tensor<5xf32>").replace(": tensor<4xf32>", ": tensor<5xf32>"),
    );
    let (_, err) = scratch.ends(1, &["compile", "wrong.mlir"]);
    assert!(err.contains("the result type is tensor<5xf32>"), "{err}");
    scratch.write("bad.tosa", b"\x10\0\0\0TOSA\xff\xff\xff\xff");
    let (_, err) = scratch.ends(1, &["run", "bad.tosa"]);
    assert!(err.contains("malformed") && err.contains("byte"), "{err}");
    let (_, err) = scratch.ends(1, &["run", "net.mlir", "--input", "image=net.mlir"]);
    assert!(!err.is_empty());
}

#[test]
fn a_quantised_dump_is_a_prefix_door_too() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--calibrate", &input, "--dump-levels", "dump"]);
    scratch.ends(0, &["compile", "dump/1-quant.mlir", "-o", "again.strata"]);
    let by_position = format!("0={input}");
    for (model, folder) in [("net.strata", "a"), ("again.strata", "b"), ("dump/1-quant.mlir", "c")] {
        scratch.ends(0, &["run", model, "--input", &by_position, "--output-dir", folder]);
    }
    same_arrays(&scratch, "a", "b", &["0"]);
    same_arrays(&scratch, "a", "c", &["0"]);
}

#[test]
fn plans_are_held_against_the_reference() {
    let scratch = Scratch::new();
    let only = ["bench", "plans", "--only", "mobilenetv2@224x224", "--sram", "0.5"];
    let (out, _) = scratch.ends(0, &[&only[..], &["--json", "plans.json"]].concat());
    let found = json(&scratch.path("plans.json"));
    let [line] = &found["reference"].as_array().expect("lines")[..] else { panic!("one line: {found}") };
    let ours = &line["ours"]["Ok"];
    let bytes = |key: &str| ours[key].as_u64().expect("bytes");
    assert!(
        bytes("compulsory_bytes") <= bytes("multi_bytes") && bytes("multi_bytes") <= bytes("single_bytes")
    );
    let fps = |key: &str| ours[key].as_f64().expect("frames a second");
    assert!(0.0 < fps("single_fps") && fps("single_fps") < fps("multi_fps"), "{ours}");
    assert_eq!(line["reference"]["best_known_mb"], 3.6);
    assert!(out.contains("| mobilenetv2@224x224 | 0.5 |"), "{out}");
    scratch.ends(0, &[&only[..], &["--write", "plans.md"]].concat());
    let page = std::fs::read_to_string(scratch.path("plans.md")).expect("a page");
    assert!(page.starts_with("# Plans\n") && page.ends_with(&out), "{page}");

    let (_, err) = scratch.ends(2, &["bench", "plans", "--only", "lenet"]);
    assert!(err.contains("mobilenetv2"), "{err}");
}

#[test]
fn planning_is_measured_and_ablated() {
    let scratch = Scratch::new();
    let cases = ["bench", "planner", "--case", "chain:6", "--case", "random:9"];
    let (out, _) = scratch
        .ends(0, &[&cases[..], &["--runs", "2", "--json", "cost.json", "--plot", "growth.svg"]].concat());
    let cost = json(&scratch.path("cost.json"));
    for (at, stages) in [6, 9].into_iter().enumerate() {
        assert_eq!(cost[at]["stages"], stages);
        assert_eq!(cost[at]["runs"].as_array().expect("runs").len(), 2);
        assert!(cost[at]["median"]["wall"].as_f64().is_some_and(|seconds| seconds > 0.0));
    }
    assert!(out.contains("| chain:6 | 6 |"), "{out}");
    let drawing = std::fs::read_to_string(scratch.path("growth.svg")).expect("a drawing");
    assert!(drawing.starts_with("<svg") && drawing.contains("chains"), "{drawing}");

    scratch.ends(0, &[&cases[..4], &["--ablate", "--json", "ablation.json"]].concat());
    let lines = json(&scratch.path("ablation.json"));
    let settings = lines[0]["settings"].as_array().expect("settings");
    let bytes = |name: &str| {
        let setting = settings.iter().find(|setting| setting["setting"] == name).expect("the setting");
        setting["bytes"].as_u64().expect("bytes")
    };
    // Five tensors of a chain are 5 MiB, which fit; what no fusion costs is time.
    assert!(bytes("default") <= bytes("none"), "{lines}");
    let cycles = |at: usize| settings[at]["simulated_cycles"].as_u64().expect("cycles");
    assert!(cycles(0) < cycles(settings.len() - 1), "{lines}");

    let (_, err) = scratch.ends(2, &["bench", "planner", "--case", "tree:5"]);
    assert!(err.contains("chain:N"), "{err}");
    let (_, err) = scratch.ends(1, &["bench", "planner", "--case", "lenet@8x8"]);
    assert!(err.contains("lenet"), "{err}");
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file is there")).expect("it is JSON")
}
