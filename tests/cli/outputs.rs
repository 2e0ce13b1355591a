//! What `strata run` writes: outputs that parts of the network read too, the names of files, and what stays
//! of a run that fails or is interrupted.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strata::io::Array;
use strata::io::npy::to_npz;
use strata_frontend::proto::pb::{AttributeProto, TensorProto};
use strata_frontend::proto::{NodeProto, TypeValue, ValueInfoProto, decode, encode};
use strata_frontend::zoo::{ZooOptions, build};

use super::{Scratch, load};

/// A node of one output.
fn node(op_type: &str, inputs: &[&str], output: &str, axis: Option<i64>) -> NodeProto {
    // INT of ONNX's types of attributes.
    let axis =
        axis.map(|i| AttributeProto { name: "axis".to_owned(), r#type: 2, i, ..AttributeProto::default() });
    NodeProto {
        op_type: op_type.to_owned(),
        name: format!("node of {output}"),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: axis.into_iter().collect(),
        ..NodeProto::default()
    }
}

/// A model that takes `x`, 1x1x16x24. It has the weights `w` of a convolution to five channels, `v` of one
/// from five to four, and `three` and `five`, shapes of as many axes for what `w` gives.
fn model(scratch: &Scratch, file: &str, nodes: Vec<NodeProto>, outputs: &[&str]) {
    let options = ZooOptions { size: Some((24, 16)), ..ZooOptions::default() };
    let zoo = build("fsrcnn", &options).expect("the zoo has it");
    let mut model = decode(&encode(&zoo)).expect("it is a model");
    let graph = model.graph.as_mut().expect("it has a graph");
    let tensor = |name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>| TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type,
        raw_data,
        ..TensorProto::default()
    };
    // FLOAT and INT64 of ONNX.
    let floats = |name: &str, dims: &[i64]| {
        let value = |i: i64| (((i * 37 + 11) % 29) as f32 - 14.0) / 14.0;
        let values = (0..dims.iter().product()).flat_map(|i| value(i).to_le_bytes()).collect();
        tensor(name, dims, 1, values)
    };
    let shape = |name: &str, extents: &[i64]| {
        let values = extents.iter().flat_map(|extent| extent.to_le_bytes()).collect();
        tensor(name, &[extents.len() as i64], 7, values)
    };
    graph.initializer = vec![
        floats("w", &[5, 1, 3, 3]),
        floats("v", &[4, 5, 3, 3]),
        shape("three", &[1, 5, 308]),
        shape("five", &[1, 5, 2, 7, 22]),
    ];
    let mut any_shape = graph.output[0].clone();
    if let Some(TypeValue::TensorType(tensor)) = any_shape.r#type.as_mut().and_then(|ty| ty.value.as_mut()) {
        tensor.shape = None;
    }
    graph.input[0].name = "x".to_owned();
    graph.node = nodes;
    graph.output =
        outputs.iter().map(|&name| ValueInfoProto { name: name.to_owned(), ..any_shape.clone() }).collect();
    scratch.write(file, encode(&model));
}

/// An input of such a model.
fn input() -> Array {
    Array::f32(vec![1, 1, 16, 24], (0..16 * 24).map(|i| ((i * 31) % 97) as f32 / 48.0 - 1.0).collect())
}

fn convolution() -> NodeProto {
    node("Conv", &["x", "w"], "y", None)
}

/// Files and folders in a folder, none if there is no folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn outputs_that_the_host_takes_too_are_those_of_the_evaluator() {
    let softmax = |from: &str, to: &str, axis: i64| node("Softmax", &[from], to, Some(axis));
    let reshaped = |shape: &str, to: &str| node("Reshape", &["y", shape], to, None);
    let cases = [
        (vec![convolution(), softmax("y", "z", 1)], vec!["y", "z"]),
        (vec![convolution(), softmax("y", "z", 1), softmax("y", "u", 2)], vec!["z", "y", "u"]),
        (
            vec![convolution(), softmax("y", "z", 1), node("Conv", &["y", "v"], "t", None)],
            vec!["y", "z", "t"],
        ),
        (vec![convolution(), reshaped("three", "r"), softmax("r", "z", 1)], vec!["r", "y", "z"]),
        (vec![convolution(), reshaped("five", "r"), softmax("r", "z", 2)], vec!["r", "y", "z"]),
    ];
    for (nodes, outputs) in cases {
        for precision in ["int8", "int16"] {
            let scratch = Scratch::new();
            model(&scratch, "net.onnx", nodes.clone(), &outputs);
            scratch.write("x.npy", input().to_npy());
            let compile = ["compile", "net.onnx", "--precision", precision, "--quiet", "-o"];
            scratch.ends(0, &[&compile[..], &["net.strata"]].concat());
            scratch.ends(0, &[&compile[..], &["quant.mlir", "--emit", "quant"]].concat());
            scratch.ends(0, &["verify", "net.strata"]);
            for (what, folder) in [("net.strata", "machine"), ("quant.mlir", "evaluator")] {
                scratch.ends(0, &["run", what, "--input", "x=x.npy", "-o", folder, "--quiet"]);
            }
            for name in &outputs {
                let [found, expected] = ["machine", "evaluator"]
                    .map(|folder| load(&scratch.path(&format!("{folder}/{name}.npy"))));
                assert!(
                    expected.values.iter().any(|&value| value != expected.values[0]),
                    "{outputs:?} {name}"
                );
                assert_eq!(found, expected, "{outputs:?} {precision} {name}");
            }
        }
    }
}

#[test]
fn outputs_that_the_host_and_the_machine_behind_it_take() {
    let scratch = Scratch::new();
    let nodes = vec![
        convolution(),
        node("Hardmax", &["y"], "z", Some(1)),
        node("Conv", &["z", "v"], "a", None),
        node("Conv", &["y", "v"], "b", None),
        node("Add", &["a", "b"], "t", None),
        node("Softmax", &["y"], "u", Some(1)),
    ];
    model(&scratch, "net.onnx", nodes, &["y", "z", "t", "u"]);
    scratch.write("x.npy", input().to_npy());
    scratch.ends(0, &["compile", "net.onnx", "-o", "net.strata", "--quiet"]);
    scratch.ends(0, &["verify", "net.strata"]);
    for (what, folder, more) in
        [("net.strata", "int8", &[][..]), ("net.strata", "raw", &["--raw"]), ("net.onnx", "f32", &[])]
    {
        let run = ["run", what, "--input", "x=x.npy", "-o", folder, "--quiet"];
        scratch.ends(0, &[&run[..], more].concat());
    }
    let of = |folder: &str, name: &str| load(&scratch.path(&format!("{folder}/{name}.npy")));
    let y = of("int8", "y");
    // What the host makes of it is of these numbers: the first largest of five channels.
    let (z, u) = (of("int8", "z"), of("int8", "u"));
    let pixels = y.shape[2] * y.shape[3];
    for pixel in 0..pixels {
        let channel = |array: &Array, c: usize| array.values[c * pixels + pixel];
        let largest = (1..5).fold(0, |best, c| if channel(&y, c) > channel(&y, best) { c } else { best });
        let sum: f64 = (0..5).map(|c| channel(&y, c).exp()).sum();
        for c in 0..5 {
            assert_eq!(channel(&z, c), f64::from(u8::from(c == largest)), "{pixel} {c}");
            assert!((channel(&u, c) - channel(&y, c).exp() / sum).abs() < 1e-6, "{pixel} {c}");
        }
    }
    // And of what the machine made: its integers, each some number.
    let mut meanings = std::collections::BTreeMap::new();
    for (integer, real) in of("raw", "y").values.iter().zip(&y.values) {
        let before = meanings.insert(*integer as i64, *real);
        assert!(before.is_none_or(|before| before == *real));
    }
    assert!(meanings.len() > 20);
    let error = super::relative_error(&of("f32", "t"), &of("int8", "t"));
    assert!(error < 0.2, "{error}");
}

#[test]
fn every_output_has_a_file_of_its_own() {
    let scratch = Scratch::new();
    let outputs = ["a/b", "0", "a_b", "A_b", "a:b"];
    let nodes = outputs.iter().enumerate().flat_map(|(at, name)| {
        let inner = format!("pad {at}");
        // Different numbers, so that no file can stand for another.
        (0..=at)
            .map(|i| {
                let from = if i == 0 { "x".to_owned() } else { format!("{inner} {}", i - 1) };
                let to = if i == at { (*name).to_owned() } else { format!("{inner} {i}") };
                node("Add", &[&from, "x"], &to, None)
            })
            .collect::<Vec<_>>()
    });
    let nodes = [vec![convolution()], nodes.collect()].concat();
    model(&scratch, "net.onnx", nodes, &[&outputs[..], &["y"]].concat());
    scratch.write("x.npy", input().to_npy());
    scratch.ends(0, &["compile", "net.onnx", "-o", "net.strata", "--quiet"]);
    let stems = ["a_b.2", "0", "a_b", "A_b.3", "a_b.4", "y"];
    let files: BTreeSet<String> = stems.iter().map(|stem| format!("{stem}.npy")).collect();
    std::fs::create_dir(scratch.path("all")).expect("a folder");
    scratch.write("all/one.npy", input().to_npy());
    scratch.write("batch.npz", to_npz(&[("x".to_owned(), input())]).expect("an archive"));
    let run = ["run", "net.strata", "--quiet"];
    let by_name = ["--input", "x=x.npy", "-o", "named", "--dump-stages", "dump"];
    scratch.ends(0, &[&run[..], &by_name].concat());
    scratch.ends(0, &[&run[..], &["--input-dir", "all", "-o", "each"]].concat());
    scratch.ends(0, &[&run[..], &["--input-dir", "batch.npz", "-o", "batch"]].concat());
    scratch.ends(0, &["run", "net.onnx", "--input", "x=x.npy", "-o", "f32", "--quiet"]);
    for folder in ["named", "dump/outputs", "each/one", "batch", "f32"] {
        assert_eq!(names(&scratch.path(folder)), files, "{folder}");
        for (at, stem) in stems[..5].iter().enumerate() {
            let array = load(&scratch.path(&format!("{folder}/{stem}.npy")));
            let ratio = array.values.iter().sum::<f64>() / input().values.iter().sum::<f64>();
            assert!((ratio - (at as f64 + 2.0)).abs() < 0.3, "{folder} {stem}: {ratio}");
        }
    }
    // By the names of its files a dump is held against such a folder.
    let (shown, _) = scratch.ends(0, &["compare", "named", "dump", "--exit-code"]);
    assert!(shown.contains("equal in all 6 tensors"), "{shown}");
}

/// A small network that is compiled, and a batch of inputs for it of which the last is no number.
fn with_bad_batch(scratch: &Scratch, n: usize) {
    model(scratch, "net.onnx", vec![convolution()], &["y"]);
    scratch.ends(0, &["compile", "net.onnx", "-o", "net.strata", "--quiet"]);
    let mut values: Vec<f32> = (0..n).flat_map(|_| input().to_f32()).collect();
    *values.last_mut().expect("an input") = f32::NAN;
    let array = Array::f32(vec![n, 1, 16, 24], values);
    scratch.write("batch.npz", to_npz(&[("x".to_owned(), array)]).expect("an archive"));
}

#[test]
fn a_batch_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    with_bad_batch(&scratch, 4);
    let before = names(&scratch.path(""));
    let batch = ["run", "net.strata", "--input-dir", "batch.npz"];
    let (_, error) = scratch.ends(1, &[&batch[..], &["-o", "a/out", "--dump-stages", "b/dump"]].concat());
    assert!(error.contains("batch.npz, input 3: "), "{error}");
    assert_eq!(names(&scratch.path("")), before);
    // Of many files those that can be run are.
    std::fs::create_dir(scratch.path("all")).expect("a folder");
    scratch.write("all/bad.npy", Array::f32(vec![1], vec![0.0]).to_npy());
    let many = ["run", "net.strata", "--input-dir", "all", "-o", "out", "--dump-stages", "dump"];
    scratch.ends(1, &many);
    assert!(!scratch.path("out").exists() && !scratch.path("dump").exists());
    scratch.write("all/good.npy", input().to_npy());
    let (out, error) = scratch.ends(1, &many);
    assert!(out.contains("1 of 2 inputs") && error.contains("bad.npy"), "{out}{error}");
    for folder in ["out", "dump"] {
        assert_eq!(names(&scratch.path(folder)), BTreeSet::from(["good".to_owned()]));
    }
}

#[test]
fn outputs_do_not_go_into_a_dump() {
    let scratch = Scratch::new();
    model(&scratch, "m.onnx", vec![convolution()], &["y"]);
    scratch.ends(0, &["compile", "m.onnx", "-o", "m.strata"]);
    scratch.write("x.npy", input().to_npy());
    let run = |outputs: &str, dump: &str| {
        scratch.ends(2, &["run", "m.strata", "-i", "x=x.npy", "-o", outputs, "--dump-stages", dump]).1
    };
    for (outputs, dump) in [("d", "d"), ("d/outputs", "d"), ("./d/o", "d"), ("d", "./d")] {
        let told = run(outputs, dump);
        assert!(told.contains("holds nothing but the dump"), "{told}");
        assert!(!scratch.path("d").exists());
    }
    scratch.ends(0, &["run", "m.strata", "-i", "x=x.npy", "-o", "o", "--dump-stages", "o/dump"]);
    assert!(scratch.path("o/dump/index.json").exists());
}

/// Whether something temporary stands in a folder or in one in it.
fn has_temporary(folder: &Path) -> bool {
    let is_temporary = |name: &String| name.starts_with(".strata-") || has_temporary(&folder.join(name));
    names(folder).iter().any(is_temporary)
}

/// Whether something temporary comes to stand in a scratch folder within seconds.
fn is_soon_writing(scratch: &Scratch) -> bool {
    (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        has_temporary(&scratch.path(""))
    })
}

fn send(signal: &str, to: &Child) {
    let killed = Command::new("kill").args([signal, &to.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
}

#[test]
fn a_signal_leaves_nothing_that_is_temporary() {
    use std::os::unix::process::ExitStatusExt;
    let scratch = Scratch::new();
    with_bad_batch(&scratch, 6000);
    let before = names(&scratch.path(""));
    let batch = ["run", "net.strata", "--input-dir", "batch.npz"];
    for (signal, number, more) in [
        ("-INT", 2, &["-o", "out"][..]),
        ("-TERM", 15, &["-o", "out"]),
        ("-INT", 2, &["-o", "a/out", "--dump-stages", "b/dump"]),
        ("-HUP", 1, &["--dump-stages", "dump"]),
    ] {
        let mut running = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args([&batch[..], more].concat())
            .current_dir(scratch.0.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        assert!(is_soon_writing(&scratch), "{more:?}");
        std::thread::sleep(Duration::from_millis(20));
        send(signal, &running);
        assert_eq!(running.wait().expect("it ends").signal(), Some(number), "{more:?}");
        assert_eq!(names(&scratch.path("")), before, "{more:?}");
    }
}

#[test]
fn a_signal_that_is_ignored_is_ignored() {
    let scratch = Scratch::new();
    with_bad_batch(&scratch, 2000);
    let run = format!(
        "trap '' HUP; exec {} run net.strata --input-dir batch.npz -o out",
        env!("CARGO_BIN_EXE_strata")
    );
    let running = Command::new("sh")
        .args(["-c", &run])
        .current_dir(scratch.0.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    assert!(is_soon_writing(&scratch));
    send("-HUP", &running);
    let ended = running.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && told.contains("input 1999: "), "{told}");
}

#[test]
fn no_more_threads_run_than_are_of_use() {
    let scratch = Scratch::new();
    with_bad_batch(&scratch, 1);
    scratch.write("x.npy", input().to_npy());
    let output = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["run", "net.strata", "--input", "x=x.npy", "-o", "out"])
        .current_dir(scratch.0.path())
        .env("RAYON_NUM_THREADS", "5000")
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let processors = std::thread::available_parallelism().expect("known").get();
    let expected = format!("RAYON_NUM_THREADS=5000: {} threads run", 4 * processors);
    assert!(output.status.success() && (told.contains(&expected) || processors > 1250), "{told}");
}
