//! The interpreter from outside: vector instructions, many inputs on one session, what it takes.

use std::process::Command;

use strata::io::Array;
use strata::io::npy::to_npz;
use strata_isa_spec::interp::Simd;

use super::{Scratch, load};

#[test]
fn results_do_not_depend_on_the_vector_instructions() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let run = |level: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(["run", "net.strata", "--input", &format!("0={input}"), "--output-dir", level])
            .current_dir(scratch.0.path())
            .env("STRATA_SIMD", level)
            .output();
        let output = output.expect("the command starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let levels: Vec<&str> = Simd::available().map(|simd| simd.level().name()).collect();
    for level in &levels {
        assert_eq!(run(level).0, Some(0), "{level}");
        let [got, expected] = [level, &levels[0]].map(|level| load(&scratch.path(&format!("{level}/0.npy"))));
        assert_eq!(got, expected, "{level}");
    }
    let (code, err) = run("mmx");
    assert!(code == Some(1) && err.contains("STRATA_SIMD") && err.contains(&levels.join(", ")), "{err}");
}

#[test]
fn many_inputs_run_on_one_session() {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    scratch.ends(0, &["run", "net.strata", "--input", &format!("0={input}"), "--output-dir", "one"]);
    std::fs::create_dir(scratch.path("all")).expect("a folder");
    let other = Array::f32(vec![1, 1, 16, 24], vec![0.25; 24 * 16]);
    scratch.write("all/b.npy", other.to_npy());
    std::fs::copy(scratch.path(&input), scratch.path("all/a.npy")).expect("copied");

    let (out, _) = scratch.ends(0, &["run", "net.strata", "--input-dir", "all", "--output-dir", "many"]);
    assert!(out.contains("2 of 2 inputs in "), "{out}");
    let of = |file: &str| {
        let folder = scratch.path(&format!("many/{file}"));
        let mut outputs = std::fs::read_dir(folder).expect("a folder an input");
        load(&outputs.next().expect("an output").expect("it can be listed").path())
    };
    assert_eq!(of("a"), load(&scratch.path("one/0.npy")));
    assert_ne!(of("a"), of("b"));

    // One that does not fit is told, and the others are run; a list names files beside it.
    scratch.write("all/c.npy", Array::f32(vec![2, 2], vec![0.0; 4]).to_npy());
    scratch.write("list.txt", "all/c.npy\nall/b.npy\n\nall/missing.npy\n");
    let (out, err) =
        scratch.ends(1, &["run", "net.strata", "--input-dir", "list.txt", "--output-dir", "some"]);
    assert!(out.contains("1 of 3 inputs"), "{out}");
    assert!(err.contains("c.npy: input `") && err.contains("expected shape 1x1x16x24, found 2x2"), "{err}");
    assert!(err.contains("missing.npy: "), "{err}");
    assert!(scratch.path("some/b").is_dir() && !scratch.path("some/c").exists());

    // Two files whose outputs would go into one folder.
    scratch.write("list.txt", "all/b.npy\nall/../all/b.npy\n");
    let (_, err) =
        scratch.ends(1, &["run", "net.strata", "--input-dir", "list.txt", "--output-dir", "twice"]);
    assert!(
        err.contains("list.txt: the outputs of ") && err.contains("both go into the folder `b`"),
        "{err}"
    );
    let (out, _) = scratch.ends(0, &["run", "net.strata", "--input-dir", "list.txt"]);
    assert!(out.contains("2 of 2 inputs"), "without results there is nothing to overwrite: {out}");
    scratch.write("list.txt", "all/b.npy\n\nall/b.npy\n");
    let (_, err) =
        scratch.ends(1, &["run", "net.strata", "--input-dir", "list.txt", "--output-dir", "twice"]);
    assert!(err.contains("list.txt: it lists all/b.npy twice"), "{err}");
    scratch.write("list.txt", "\n");
    let (_, err) = scratch.ends(1, &["run", "net.strata", "--input-dir", "list.txt"]);
    assert!(err.contains("list.txt: it lists no file; expected the path of an array"), "{err}");
    let (_, err) =
        scratch.ends(1, &["run", "net.strata", "--input-dir", "all", "--output-dir", "all/b.npy/x"]);
    assert!(err.contains("all/b.npy/x: all/b.npy is a file; expected a folder"), "{err}");
    assert!(!scratch.path("twice").exists(), "a folder is left");
    scratch.ends(2, &["run", &model, "--input-dir", "all"]);
    scratch.ends(2, &["run", "net.strata", "--input-dir", "all", "--input", &format!("0={input}")]);
}

#[test]
fn the_interpreter_is_measured() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let arguments = ["bench", "run", "net.strata", "--times", "3", "--json", "times.json"];
    let (table, _) = scratch.ends(0, &arguments);
    assert!(table.contains("net.strata") && table.contains("median ms"), "{table}");
    let json = std::fs::read_to_string(scratch.path("times.json")).expect("written");
    let figures: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let times = figures[0]["inferences"].as_array().expect("a time each");
    assert!(times.len() == 3 && times.iter().all(|time| time.as_f64().is_some_and(|s| s > 0.0)), "{json}");
    let (_, err) = scratch.ends(1, &["bench", "run", &model]);
    assert!(err.contains("not a bundle"), "{err}");
}

#[test]
fn a_batch_runs_input_by_input() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--quiet"]);
    let input = |n: usize| -> Vec<f32> { (0..24 * 16).map(|i| ((i * (n + 3)) % 97) as f32 / 97.0).collect() };
    let all = |n: usize| (0..n).flat_map(input).collect::<Vec<f32>>();
    let bundle = std::fs::read(scratch.path("net.strata")).expect("it is there");
    let bundle = strata::Bundle::from_bytes(&bundle).expect("a bundle");
    let name = bundle.manifest.inputs[0].name.clone();
    let save = |file: &str, name: &str, array: Array| {
        scratch.write(file, to_npz(&[(name.to_owned(), array)]).expect("an archive"));
    };
    // On an axis more, or on the axis whose extent is 1; the outputs have theirs in the same place.
    save("first.npz", &name, Array::f32(vec![3, 1, 16, 24], all(3)));
    save("extra.npz", "whatever", Array::f32(vec![3, 1, 1, 16, 24], all(3)));
    save("first1.npz", &name, Array::f32(vec![1, 1, 16, 24], all(1)));
    save("extra1.npz", &name, Array::f32(vec![1, 1, 1, 16, 24], all(1)));
    for (file, folder, shape) in [
        ("first.npz", "first", vec![3, 1, 32, 48]),
        ("extra.npz", "extra", vec![3, 1, 1, 32, 48]),
        ("first1.npz", "first1", vec![1, 1, 32, 48]),
        ("extra1.npz", "extra1", vec![1, 1, 1, 32, 48]),
    ] {
        let n = shape[0];
        for raw in [false, true] {
            let more: &[&str] = if raw { &["--raw"] } else { &[] };
            let run = ["run", "net.strata", "--input-dir", file, "--output-dir", folder];
            let (out, _) = scratch.ends(0, &[&run[..], more].concat());
            assert!(out.contains(&format!("{n} of {n} inputs in ")), "{out}");
            let written = std::fs::read_dir(scratch.path(folder)).expect("a folder");
            let written: Vec<_> = written.map(|entry| entry.expect("an entry").path()).collect();
            let stacked = load(&written[0]);
            assert_eq!((written.len(), &stacked.shape), (1, &shape));
            for at in 0..n {
                scratch.write("one.npy", Array::f32(vec![1, 1, 16, 24], input(at)).to_npy());
                let run = ["run", "net.strata", "--input", "0=one.npy", "--output-dir", "one", "--quiet"];
                scratch.ends(0, &[&run[..], more].concat());
                let one = load(&scratch.path("one/0.npy"));
                let n = one.values.len();
                assert_eq!(stacked.values[at * n..][..n], one.values, "{file}, input {at}");
                assert_eq!(stacked.dtype, one.dtype);
            }
        }
    }
    let refused = |file: &str| {
        let run = ["run", "net.strata", "--input-dir", file, "--output-dir", "none"];
        let (_, error) = scratch.ends(1, &run);
        assert!(!scratch.path("none").exists(), "nothing is written: {error}");
        error
    };
    save("shape.npz", &name, Array::f32(vec![3, 16, 24], all(3)));
    let error = refused("shape.npz");
    let expected = "expected shape 1x1x16x24 or Nx1x1x16x24 or Nx1x16x24, found 3x16x24";
    assert!(error.contains("shape.npz: input ") && error.contains(expected), "{error}");
    // The third cannot be run: it is told which, and that nothing was written.
    let mut values = all(3);
    values[2 * 24 * 16 + 5] = f32::NAN;
    save("nan.npz", &name, Array::f32(vec![3, 1, 16, 24], values));
    let error = refused("nan.npz");
    assert!(error.contains("nan.npz, input 2: ") && error.contains("NaN in 1 of 384 elements"), "{error}");
    // One that is cut short, and a huge one that it only promises to be.
    let whole = std::fs::read(scratch.path("first.npz")).expect("it is there");
    let at = whole.windows(10).position(|bytes| bytes == b"'shape': (").expect("a header") + 10;
    let mut huge = whole.clone();
    huge[at..at + 1].copy_from_slice(b"9");
    scratch.write("huge.npz", &huge);
    let error = refused("huge.npz");
    assert!(error.contains("promises 13824 bytes of data, found 4608"), "{error}");
    scratch.write("cut.npz", &whole[..whole.len() / 2]);
    let error = refused("cut.npz");
    assert!(error.contains("cut.npz: not a .npz file"), "{error}");
}
