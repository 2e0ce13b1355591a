//! `strata compare` from outside: what differs, by how much, and with which exit code it ends.

use serde_json::Value;
use strata::io::Array;

use super::{Scratch, decibels, load, with_operator};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn tensors(report: &Value) -> &[Value] {
    report["tensors"].as_array().expect("a list")
}

fn named<'v>(report: &'v Value, name: &str) -> &'v Value {
    let found = tensors(report).iter().find(|tensor| tensor["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {name} in {report}"))
}

/// A network on two machines, and what the stages of one of them made.
fn compiled() -> Scratch {
    let scratch = Scratch::new();
    let (model, input) = scratch.fsrcnn();
    let input = format!("0={input}");
    for target in ["tile", "micro"] {
        let bundle = format!("{target}.strata");
        scratch.ends(0, &["compile", &model, "-o", &bundle, "--target", target, "--quiet"]);
        scratch.ends(0, &["run", &bundle, "--input", &input, "--dump-stages", target, "--quiet"]);
    }
    scratch
}

#[test]
fn what_is_equal_is_equal_and_what_was_changed_is_found() {
    let scratch = compiled();
    let (shown, _) = scratch.ends(0, &["compare", "tile", "micro", "--exit-code"]);
    assert!(shown.starts_with("tile and micro are equal in all "), "{shown}");
    let (shown, _) = scratch.ends(0, &["compare", "tile", "micro", "--format", "json"]);
    let report = json(&shown);
    assert!(report["equal"] == true && report["first"].is_null() && report["schema"] == 1, "{report}");
    assert!(tensors(&report).iter().all(|t| t["status"] == "equal" && t["sqnr_db"].is_null()), "{report}");

    // Plain arrays of the names of its files, such as a simulator writes.
    for golden in ["tile/raw", "tile/float"] {
        scratch.ends(0, &["compare", golden, "micro", "--exit-code"]);
        scratch.ends(0, &["compare", "micro", golden, "--exit-code"]);
    }

    // One integer of a layer in the middle, and the real number that it stands for.
    let index = json(&std::fs::read_to_string(scratch.path("micro/index.json")).expect("an index"));
    let layers: Vec<&Value> = index["tensors"].as_array().expect("a list").iter().collect();
    let (at, scale) = (3, layers[3]["scale"].as_f64().expect("a scale"));
    let raw = load(&scratch.path("micro").join(layers[at]["raw"].as_str().expect("a file")));
    let is_up = raw.values[(2 * raw.shape[2] + 1) * raw.shape[3] + 3] <= 0.0;
    for (key, step) in [("raw", 1.0), ("float", scale)] {
        if key == "float" {
            // Who changes one of the two leaves a folder that says two things.
            let (_, error) = scratch.ends(1, &["compare", "micro", "tile"]);
            let told = "element [0, 2, 1, 3] is ";
            assert!(error.contains("micro/float/") && error.contains(told), "{error}");
            assert!(error.contains("write both, or compare the folders `raw`"), "{error}");
            scratch.ends(4, &["compare", "micro/raw", "tile/raw", "--exit-code"]);
        }
        let file = scratch.path("micro").join(layers[at][key].as_str().expect("a file"));
        let mut array = load(&file);
        // Element 0, 2, 1, 3 of the model's NCHW.
        let place = (2 * array.shape[2] + 1) * array.shape[3] + 3;
        array.values[place] += if is_up { step } else { -step };
        std::fs::write(&file, array.to_npy()).expect("written");
    }
    let name = layers[at]["name"].as_str().expect("a name");
    let (shown, _) = scratch.ends(4, &["compare", "micro", "tile", "--exit-code"]);
    let first = shown.lines().next().expect("a line");
    assert!(
        first.starts_with(&format!("the first that differs: layer `{name}` at [0, 2, 1, 3]: ")),
        "{shown}"
    );
    assert!(first.contains("1 of ") && shown.contains("equal tensors; --all shows them"), "{shown}");
    scratch.ends(0, &["compare", "micro", "tile"]);
    let report = json(&scratch.ends(0, &["compare", "micro", "tile", "--format", "json"]).0);
    let layer = named(&report, name);
    assert_eq!((&layer["status"], &layer["as_integers"]), (&"differs".into(), &true.into()));
    assert_eq!((&layer["n_differing"], &layer["first"]["index"]), (&1.into(), &json("[0,2,1,3]")));
    let most = layer["max_difference"].as_f64().expect("a number");
    assert!((most - scale).abs() < 1e-6 * scale, "{most} and {scale}");
    // A step of one integer in thousands: limits on either side of it.
    let sqnr = layer["sqnr_db"].as_f64().expect("there is noise");
    for (limit, code) in [(sqnr - 0.1, 0), (sqnr + 0.1, 4)] {
        scratch.ends(code, &["compare", "micro", "tile", "--min-sqnr", &limit.to_string()]);
    }
    for (limit, code) in [(1.01 * scale, 0), (0.99 * scale, 4)] {
        let limit = limit.to_string();
        let (shown, _) = scratch.ends(code, &["compare", "micro", "tile", "--max-difference", &limit]);
        let told = if code == 0 { "are within the limits" } else { "is beyond the limits" };
        assert!(shown.lines().next().is_some_and(|line| line.contains(told)), "{shown}");
    }
    let (lines, _) = scratch.ends(0, &["compare", "micro", "tile", "--format", "csv"]);
    let line = lines.lines().find(|line| line.contains(",differs,")).expect("a line of it");
    assert!(line.starts_with(name) && line.contains(",0 2 1 3,"), "{line}");
    let n_cells = lines.lines().next().expect("keys").split(',').count();
    assert_eq!(line.split(',').count(), n_cells);

    // A tensor that is missing, and one of another shape.
    let file = scratch.path("micro").join(layers[at]["raw"].as_str().expect("a file"));
    std::fs::write(&file, Array::f32(vec![2], vec![0.0; 2]).to_npy()).expect("written");
    let (_, error) = scratch.ends(1, &["compare", "micro", "tile"]);
    assert!(error.contains("expected shape [") && error.contains("found [2]"), "{error}");
    std::fs::remove_file(&file).expect("removed");
    let (_, error) = scratch.ends(1, &["compare", "micro", "tile"]);
    assert!(error.contains(&*file.file_name().expect("a name").to_string_lossy()), "{error}");
}

#[test]
fn a_bundle_is_held_against_the_model_that_it_came_from() {
    let scratch = compiled();
    let by_folder = json(&scratch.ends(0, &["compare", "tile", "net.onnx", "--format", "json"]).0);
    let given = ["compare", "tile.strata", "net.onnx", "--input", "0=in.npy", "--format", "json"];
    let by_bundle = json(&scratch.ends(0, &given).0);
    assert_eq!(tensors(&by_folder), tensors(&by_bundle));
    let layers = tensors(&by_bundle).iter().filter(|tensor| tensor["kind"] == "layer");
    let ratios: Vec<f64> = layers.map(|layer| layer["sqnr_db"].as_f64().expect("there is noise")).collect();
    assert!(ratios.len() >= 7 && ratios.iter().all(|&db| db > 15.0), "{ratios:?}");
    // The figure of the output is that of what `run` gives.
    for (what, folder) in [("tile.strata", "ours"), ("net.onnx", "theirs")] {
        scratch.ends(0, &["run", what, "--input", "0=in.npy", "-o", folder, "--quiet"]);
    }
    let [ours, theirs] = ["ours/0.npy", "theirs/0.npy"].map(|file| load(&scratch.path(file)));
    let output = tensors(&by_bundle).iter().find(|t| t["kind"] == "output").expect("an output");
    let told = output["sqnr_db"].as_f64().expect("there is noise");
    assert!((told - decibels(&theirs, &ours)).abs() < 1e-6, "{told}");
    let arrays = json(&scratch.ends(0, &["compare", "ours", "theirs", "--format", "json"]).0);
    assert_eq!(tensors(&arrays)[0]["sqnr_db"], output["sqnr_db"]);

    // Without an input there is noise, the same for both and in every run.
    let (shown, note) = scratch.ends(0, &["compare", "tile.strata", "micro.strata", "--seed", "7"]);
    assert!(shown.contains("are equal in all") && note.contains("noise of seed 7"), "{shown}{note}");
    // What the host runs has no values of nodes, but outputs.
    let model = with_operator(&scratch, "Hardmax");
    scratch.ends(0, &["compile", &model, "-o", "mixed.strata", "--quiet"]);
    let (shown, note) = scratch.ends(0, &["compare", "mixed.strata", &model, "--format", "json"]);
    assert!(note.contains("only its outputs are compared"), "{note}");
    assert!(tensors(&json(&shown)).iter().all(|tensor| tensor["kind"] == "output"), "{shown}");
}

#[test]
fn arrays_are_compared_by_name() {
    let scratch = Scratch::new();
    let save = |file: &str, values: &[f32]| {
        std::fs::create_dir_all(scratch.path(file).parent().expect("a folder")).expect("made");
        scratch.write(file, Array::f32(vec![values.len()], values.to_vec()).to_npy());
    };
    save("a/x.npy", &[1.0, 2.0]);
    save("a/y.npy", &[1.0, f32::NAN]);
    save("a/z.npy", &[1.0]);
    save("b/x.npy", &[1.0, 2.0]);
    save("b/y.npy", &[1.0, 2.0]);
    save("b/w.npy", &[1.0]);
    save("b/z.npy", &[1.0, 2.0, 3.0]);
    let (shown, _) = scratch.ends(4, &["compare", "a", "b", "--exit-code"]);
    assert!(shown.starts_with("the first that differs: `y` at [1]: NaN in A, 2 in B"), "{shown}");
    for told in ["1 NaN or infinite", "other shapes", "in B only", "1 / 3"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    let npz = strata::io::npy::to_npz(&[("x".to_owned(), load(&scratch.path("a/x.npy")))]).expect("bytes");
    scratch.write("x.npz", npz);
    scratch.ends(0, &["compare", "x.npz", "a/x.npy", "--exit-code"]);
    let (shown, _) = scratch.ends(4, &["compare", "x.npz", "b", "--max-difference", "1"]);
    assert!(shown.contains("in B only"), "{shown}");

    // What cannot be compared is told by name.
    std::fs::create_dir(scratch.path("empty")).expect("a folder");
    for (arguments, code, told) in [
        (&["a", "empty"][..], 1, "empty: neither an index.json nor a .npy file"),
        (&["a", "missing"], 1, "missing: "),
        (&["a", "b", "--input", "0=x.npy"], 2, "neither A nor B is a bundle or a model"),
        (&["a", "b", "--max-difference", "-1"], 2, "found -1, expected a number from 0 on"),
        (&["a", "b", "--min-sqnr", "nan"], 2, "expected decibels"),
    ] {
        let (_, error) = scratch.ends(code, &[&["compare"], arguments].concat());
        assert!(error.contains(told), "{told}: {error}");
    }
    scratch.write("a/index.json", "{\"kind\": \"strata.stages\", \"schema\": 9}");
    let (_, error) = scratch.ends(1, &["compare", "a", "b"]);
    assert!(error.contains("index.json: `strata.stages` of schema 9; expected"), "{error}");
}
