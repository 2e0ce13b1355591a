//! `strata run --dump-stages` from outside: what it writes is what the evaluator computes of the quantised
//! network, tensor by tensor, whatever the machine and however layers are split.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use strata::io::Array;
use strata::{CompileOptions, Compiler, Event, Target};
use strata_backend::select::made::ModelValue;
use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooOptions, build};
use strata_ir::eval::eval_function_with;
use strata_ir::pass::Level;
use strata_ir::{Module, Tensor, TensorData, ValueId};

use super::{Scratch, load, with_operator};

/// The index of a folder.
fn index(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("index.json")).expect("there is an index");
    serde_json::from_str(&text).expect("it is JSON")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is a list in {value}"))
}

fn extents(value: &Value) -> Vec<usize> {
    value.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number") as usize).collect()
}

/// Writes a bundle of a model and gives the module in integers of which it was made.
fn compiled(scratch: &Scratch, onnx: &[u8], options: CompileOptions) -> Module {
    let mut reached = None;
    let observer = &mut |event: Event<'_>| {
        if let Event::Reached(checkpoint) = event
            && checkpoint.level == Level::Quant
            && let Some(module) = checkpoint.only_module()
        {
            reached = Some(module.clone());
        }
    };
    let compiled = Compiler::new(options).compile_onnx(onnx, "net.onnx", observer).expect("it compiles");
    scratch.write("net.strata", compiled.bundle.to_bytes().expect("a bundle has bytes"));
    reached.expect("the level is reached")
}

fn options(target: &str, overrides: &[(&str, &str)]) -> CompileOptions {
    let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let target = Target::preset(target, &overrides).expect("a preset");
    CompileOptions { measure_sqnr: false, ..CompileOptions::new(target) }
}

fn noise(shape: &[usize]) -> Array {
    let n = shape.iter().product::<usize>() as u64;
    let value = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    Array::f32(shape.to_vec(), (0..n).map(value).collect())
}

/// An array with the axes of the machine, of one with those of the model.
fn on_machine(array: &Array, perm: &[usize], shape: &[usize]) -> Vec<i64> {
    let strides = |shape: &[usize]| -> Vec<usize> {
        (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
    };
    let (from, to) = (strides(&array.shape), strides(shape));
    let n: usize = shape.iter().product();
    let mut values = vec![0; n];
    for (at, &value) in array.values.iter().enumerate() {
        let axes = (0..perm.len()).map(|axis| (perm[axis], at / from[axis] % array.shape[axis]));
        values[axes.map(|(axis, index)| to[axis] * index).sum::<usize>()] = value as i64;
    }
    values
}

/// What the evaluator computes of the values of the model's nodes, by the nodes.
fn evaluated(module: &Module, input: Tensor) -> BTreeMap<Vec<String>, (Tensor, ModelValue)> {
    let func = module.function("main").expect("there is a function");
    let mut values = BTreeMap::new();
    let observer = &mut |value: ValueId, tensor: &Tensor| {
        let Some(known) = module.defining_op(value).and_then(|op| ModelValue::of(module, op)) else { return };
        if !known.nodes.is_empty() {
            values.insert(known.nodes.clone(), (tensor.clone(), known));
        }
    };
    eval_function_with(module, func, vec![input], observer).expect("it can be evaluated");
    values
}

/// What stages have made, held against the evaluator.
struct Judged {
    /// Tensors that were compared.
    n_compared: usize,
    /// Those of them that several stages made, some columns each.
    n_strips: usize,
    /// Those that several stages made, some channels each.
    n_channels: usize,
    /// Stages' tensors that are the result of no node.
    n_inner: usize,
}

/// Runs the bundle on an input, and compares every tensor that the quantised module has too.
fn judge(scratch: &Scratch, module: &Module, input: &Array, more: &[&str]) -> Judged {
    scratch.write("x.npy", input.to_npy());
    let run = ["run", "net.strata", "--input", "0=x.npy", "--quiet"];
    scratch.ends(0, &[&run[..], &["--dump-stages", "dump", "--output-dir", "out"], more].concat());
    scratch.ends(0, &[&run[..], &["--output-dir", "plain"]].concat());
    let folder = scratch.path("dump");
    let index = index(&folder);
    for (at, output) in list(&index, "outputs").iter().enumerate() {
        let dumped = load(&folder.join(output["file"].as_str().expect("a file")));
        for other in ["out", "plain"] {
            assert_eq!(dumped, load(&scratch.path(other).join(format!("{at}.npy"))), "{output}");
        }
    }
    let tensors = list(&index, "tensors");
    let raw = |entry: &Value| load(&folder.join(entry["raw"].as_str().expect("integers")));
    let machine =
        |entry: &Value| on_machine(&raw(entry), &extents(&entry["perm"]), &extents(&entry["machine_shape"]));
    let given = &tensors[0];
    assert_eq!(given["made_in"], "input", "{given}");
    let port = strata::session::ports(module, module.function("main").expect("a function"), false);
    let port = &port.expect("it has ports")[0];
    let taken = on_machine(&raw(given), &inverse(&port.perm), &port.machine_shape);
    let elem = strata_ir::ElemType::from_keyword(&port.machine_dtype).expect("a type");
    let taken = TensorData::from_ints(elem, taken).expect("integers");
    let values = evaluated(module, Tensor::new(port.machine_shape.clone(), taken));

    let mut judged = Judged { n_compared: 0, n_strips: 0, n_channels: 0, n_inner: 0 };
    for entry in tensors.iter().filter(|entry| entry["made_in"] == "stage") {
        let nodes: Vec<String> = serde_json::from_value(entry["nodes"].clone()).expect("names");
        let Some((expected, known)) = values.get(&nodes) else {
            assert!(nodes.is_empty(), "the module has no {nodes:?}");
            judged.n_inner += 1;
            continue;
        };
        let stages = list(entry, "stages");
        let differ = |key: &str| stages.iter().any(|stage| stage[key] != stages[0][key]);
        judged.n_compared += 1;
        judged.n_strips += usize::from(differ("columns"));
        judged.n_channels += usize::from(differ("channels"));
        assert_eq!(entry["name"], nodes[nodes.len() - 1].as_str());
        assert_eq!(extents(&entry["machine_shape"]), expected.shape(), "{nodes:?}");
        assert_eq!(Some(entry["dtype"].as_str().expect("a type")), Some(expected.ty().elem.keyword()));
        let quantisation = known.quantisation.expect("its scale is known");
        assert_eq!(entry["scale"].as_f64(), Some(quantisation.scale), "{nodes:?}");
        assert_eq!(entry["zero_point"].as_i64(), Some(i64::from(quantisation.zero_point)), "{nodes:?}");
        let expected = expected.data().to_ints().expect("integers");
        let (found, made) = (machine(entry), &entry["made"]);
        let made = made.as_str().map(|file| {
            on_machine(&load(&folder.join(file)), &extents(&entry["perm"]), &extents(&entry["machine_shape"]))
        });
        let is_made = |at: usize| made.as_ref().is_none_or(|made| made[at] == 1);
        let wrong = (0..found.len()).find(|&at| is_made(at) && found[at] != expected[at]);
        assert_eq!((found.len(), wrong), (expected.len(), None), "{nodes:?}");
        // The floats are what the integers stand for.
        let floats = load(&folder.join(entry["float"].as_str().expect("floats")));
        for (real, raw) in floats.values.iter().zip(&raw(entry).values) {
            let stands_for = (quantisation.scale * (raw - f64::from(quantisation.zero_point))) as f32;
            assert!(real.is_nan() || *real == f64::from(stands_for), "{nodes:?}: {raw} and {real}");
        }
    }
    judged
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    (0..perm.len()).map(|axis| perm[axis]).enumerate().fold(vec![0; perm.len()], |mut inverse, (at, from)| {
        inverse[from] = at;
        inverse
    })
}

fn zoo(name: &str, size: (usize, usize)) -> Vec<u8> {
    let options = ZooOptions { size: Some(size), ..ZooOptions::default() };
    encode(&build(name, &options).expect("a network of the zoo"))
}

#[test]
fn mobilenet_on_three_machines_and_in_strips() {
    let onnx = zoo("mobilenetv2", (96, 96));
    let input = noise(&[1, 3, 96, 96]);
    let machines: [(&str, &[(&str, &str)]); 4] =
        [("x1", &[]), ("tile", &[]), ("micro", &[]), ("micro", &[("memory.activation", "48KiB")])];
    for (target, overrides) in machines {
        let scratch = Scratch::new();
        let module = compiled(&scratch, &onnx, options(target, overrides));
        let judged = judge(&scratch, &module, &input, &[]);
        // A mean is two stages.
        assert_eq!((judged.n_compared, judged.n_inner), (54, 1), "{target} {overrides:?}");
        assert_eq!(judged.n_strips > 0, !overrides.is_empty(), "{target} {overrides:?}");
        assert!(judged.n_channels > 0 || target != "micro", "{target} {overrides:?}");
    }
}

#[test]
fn resnet_in_parts_of_channels() {
    let scratch = Scratch::new();
    let module = compiled(&scratch, &zoo("resnet50", (64, 64)), options("micro", &[]));
    let judged = judge(&scratch, &module, &noise(&[1, 3, 64, 64]), &[]);
    assert!(judged.n_compared == 56 && judged.n_channels > 20, "{} of channels", judged.n_channels);
}

#[test]
fn detector_and_segmenter_in_strips() {
    for (name, size, activation) in
        [("yolov3-tiny", (128, 128), "44KiB"), ("unet", (128, 64), "128KiB"), ("fsrcnn", (128, 32), "32KiB")]
    {
        let scratch = Scratch::new();
        let module =
            compiled(&scratch, &zoo(name, size), options("micro", &[("memory.activation", activation)]));
        let channels = if name == "fsrcnn" { 1 } else { 3 };
        let run = ["--checked", "--seed", "3"];
        let more = if name == "fsrcnn" { &run[..] } else { &[] };
        let judged = judge(&scratch, &module, &noise(&[1, channels, size.1, size.0]), more);
        assert!(judged.n_strips > 0 && judged.n_compared > 6, "{name}: {} in strips", judged.n_strips);
    }
}

#[test]
fn models_that_come_quantised_and_wide_activations() {
    // The zoo's network as an exporter quantises it.
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "mobilenetv2", "--size", "64x64", "-o", "net.onnx", "--quiet"]);
    scratch.ends(0, &["compile", "net.onnx", "--emit", "quant", "-o", "quant.mlir", "--quiet"]);
    scratch.ends(0, &["export", "quant.mlir", "--to", "onnx", "-o", "qdq.onnx", "--quiet"]);
    let onnx = std::fs::read(scratch.path("qdq.onnx")).expect("it is exported");
    let module = compiled(&scratch, &onnx, options("tile", &[]));
    let judged = judge(&scratch, &module, &noise(&[1, 3, 64, 64]), &[]);
    assert!(judged.n_compared > 40, "{} compared", judged.n_compared);

    let scratch = Scratch::new();
    let mut wide = options("micro", &[]);
    wide.precision.mode = strata::compile::PrecisionMode::Int16;
    let module = compiled(&scratch, &zoo("fsrcnn", (32, 24)), wide);
    let judged = judge(&scratch, &module, &noise(&[1, 1, 24, 32]), &[]);
    assert!(judged.n_compared > 6, "{} compared", judged.n_compared);
}

#[test]
fn what_the_host_makes_stands_between_what_the_machine_makes() {
    let scratch = Scratch::new();
    let model = with_operator(&scratch, "Hardmax");
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    scratch.write("x.npy", noise(&[1, 1, 16, 24]).to_npy());
    scratch.ends(0, &["run", "net.strata", "-i", "0=x.npy", "--dump-stages", "dump", "-o", "out", "--quiet"]);
    let folder = scratch.path("dump");
    let index = index(&folder);
    let made_in: Vec<&str> =
        list(&index, "tensors").iter().map(|entry| entry["made_in"].as_str().expect("a word")).collect();
    assert_eq!((made_in[0], made_in[made_in.len() - 1]), ("input", "stage"), "{made_in:?}");
    let hosted = list(&index, "tensors").iter().find(|entry| entry["made_in"] == "host");
    let hosted = hosted.expect("the host made something");
    assert!(hosted["raw"].is_null() && hosted["scale"].is_null(), "{hosted}");
    let picked = load(&folder.join(hosted["float"].as_str().expect("floats")));
    assert!(picked.values.iter().all(|&value| value == 0.0 || value == 1.0), "a choice is 0 or 1");
    let parts: Vec<u64> = list(&index, "tensors").iter().filter_map(|entry| entry["part"].as_u64()).collect();
    assert!(parts.is_sorted() && parts[parts.len() - 1] == 2, "{parts:?}");
    assert_eq!(
        load(&folder.join(index["outputs"][0]["file"].as_str().expect("a file"))),
        load(&scratch.path("out/0.npy"))
    );
    // The two inputs of programs that the network has inside have files of their own.
    let files: Vec<&Value> = list(&index, "tensors").iter().map(|entry| &entry["float"]).collect();
    let distinct: std::collections::BTreeSet<String> = files.iter().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), files.len(), "{files:?}");
}

#[test]
fn a_folder_is_written_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let input = format!("0={input}");
    let run = |code: i32, place: &str| {
        scratch.ends(code, &["run", "net.strata", "--input", &input, "--dump-stages", place]).1
    };
    // An earlier folder is replaced, unless there is more in it than its index names.
    run(0, "dump");
    run(0, "dump");
    for other in ["dump/raw/mine.npy", "dump/notes.txt", "dump/mine"] {
        if other == "dump/mine" {
            std::fs::create_dir(scratch.path(other)).expect("a folder");
        } else {
            scratch.write(other, "mine");
        }
        let error = run(1, "dump");
        let told = format!("dump: the folder holds {}, which is not of the dump", &other[5..]);
        assert!(error.contains(&told) && scratch.path(other).exists(), "{error}");
        let gone = std::fs::remove_file(scratch.path(other));
        gone.or_else(|_| std::fs::remove_dir(scratch.path(other))).expect("removed");
    }
    run(0, "dump");
    std::fs::create_dir(scratch.path("mine")).expect("a folder");
    scratch.write("mine/notes.txt", "mine");
    let error = run(1, "mine");
    assert!(error.contains("mine: the folder holds something else; expected a new folder"), "{error}");
    let error = run(1, "net.onnx");
    assert!(error.contains("net.onnx: it is a file; expected a new folder"), "{error}");
    scratch.write("mine/index.json", "{\"kind\": \"other\"}");
    run(1, "mine");
    assert_eq!(std::fs::read_dir(scratch.path("mine")).expect("a folder").count(), 2);
    // A run that fails leaves what was there, and nothing beside it.
    scratch.write("bad.npy", Array::f32(vec![1], vec![0.0]).to_npy());
    let bad = ["run", "net.strata", "--input", "0=bad.npy", "--dump-stages"];
    scratch.ends(1, &[&bad[..], &["dump"]].concat());
    scratch.ends(1, &[&bad[..], &["never"]].concat());
    assert!(scratch.path("dump/index.json").exists() && !scratch.path("never").exists());
    let left = std::fs::read_dir(scratch.0.path()).expect("a folder");
    let left: Vec<String> =
        left.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(left.iter().all(|name| !name.starts_with(".strata")), "{left:?}");
    let (_, error) = scratch.ends(2, &["run", &model, "--input", &input, "--dump-stages", "dump"]);
    assert!(error.contains("--dump-stages"), "{error}");
    // Many inputs have a folder each.
    std::fs::create_dir(scratch.path("all")).expect("a folder");
    for name in ["a", "b"] {
        std::fs::copy(scratch.path("in.npy"), scratch.path(&format!("all/{name}.npy"))).expect("copied");
    }
    scratch.ends(0, &["run", "net.strata", "--input-dir", "all", "--dump-stages", "each"]);
    for name in ["a", "b"] {
        assert_eq!(index(&scratch.path(&format!("each/{name}"))), index(&scratch.path("dump")));
    }
}

#[test]
fn a_bundle_that_contradicts_itself_is_told() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let bytes = std::fs::read(scratch.path("net.strata")).expect("it is there");
    let bundle = strata::Bundle::from_bytes(&bytes).expect("a bundle");
    let refused = |change: &dyn Fn(&mut strata_isa_spec::bundle::MadeTensors)| {
        let mut bundle = bundle.clone();
        for part in &mut bundle.parts {
            if let strata_isa_spec::bundle::Code::Machine(machine) = &mut part.code {
                change(&mut machine.tensors);
            }
        }
        scratch.write("other.strata", bundle.to_bytes().expect("bytes"));
        let input = format!("0={input}");
        scratch.ends(1, &["run", "other.strata", "--input", &input, "--dump-stages", "dump"]).1
    };
    for (change, told) in [
        (&|made: &mut _| *made = Default::default(), "compile the model anew"),
        (&|made: &mut _| made.tensors[0].dims[0] += 1, "rows, columns and channels"),
        (&|made: &mut _| made.tensors[0].dtype = "f32".to_owned(), "expected i8, i16 or i32"),
        (&|made: &mut _| made.tensors[0].shape = vec![usize::MAX, 2], "rows, columns and channels"),
        (
            &|made: &mut _| {
                let first = made.parts[0].as_mut().expect("a stage makes it");
                first.col0 = 7;
            },
            "from column 7",
        ),
        (
            &|made: &mut _| {
                let first = made.parts[0].as_mut().expect("a stage makes it");
                first.tensor = 1000;
            },
            "tensor 1000, which there is not",
        ),
    ] as [(&dyn Fn(&mut strata_isa_spec::bundle::MadeTensors), &str); 6]
    {
        let error = refused(change);
        assert!(error.contains(told), "{error}");
    }
    assert!(!scratch.path("dump").exists());
}
