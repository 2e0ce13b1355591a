//! Dumps are checkpoints: a compile that goes on from one gives the bundle of the compile that wrote it.

use super::{Scratch, with_hardmax};

const LEVELS: [&str; 5] = ["0-import", "1-quant", "2-stages", "3-phases", "4-sched"];

/// Compiles a model both ways of running it with dumps, goes on from every dump with no other option than
/// `again`, and holds the bundles against each other.
fn every_dump_goes_on(scratch: &Scratch, model: &str, flags: &[&str], again: &[&str]) {
    for mode in ["multi", "single"] {
        let whole = ["compile", model, "-o", "whole.strata", "--dump-levels", "dump", "--mode", mode];
        scratch.ends(0, &[&whole[..], flags].concat());
        let bundle = |name: &str| std::fs::read(scratch.path(name)).expect("a bundle");
        for level in LEVELS {
            let dump = format!("dump/{level}.mlir");
            let resumed = ["compile", &dump, "-o", "resumed.strata"];
            let again = if level == "0-import" { again } else { &[] };
            scratch.ends(0, &[&resumed[..], again].concat());
            assert!(bundle("whole.strata") == bundle("resumed.strata"), "{model}, {mode}, from {level}");
            // `opt` takes it too, with all its parts.
            scratch.ends(0, &["opt", &dump, "--passes", "", "-o", "same.mlir"]);
            scratch.ends(0, &[&["compile", "same.mlir", "-o", "resumed.strata"], again].concat());
            assert!(bundle("whole.strata") == bundle("resumed.strata"), "{model}, {mode}, opt, {level}");
        }
    }
}

#[test]
fn a_compile_goes_on_from_every_dump() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    let flags = ["--target", "micro", "--set", "memory.activation=24KiB", "--objective", "traffic"];
    let more = ["--range", "min-max", "--seed", "18446744073709551615", "--egraph-rules=-upsample"];
    every_dump_goes_on(&scratch, &model, &[&flags[..], &more].concat(), &[]);
}

#[test]
fn a_compile_with_parts_of_the_host_goes_on_from_every_dump() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    every_dump_goes_on(&scratch, &model, &["--precision", "mixed"], &[]);
}

/// A picture of three bytes a pixel as a PNG file.
fn png_of(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(pixels).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

#[test]
fn a_compile_that_was_calibrated_on_pictures_goes_on_from_every_dump() {
    let scratch = Scratch::new();
    scratch.ends(0, &["zoo", "mobilenetv2", "--size", "32x32", "-o", "net.onnx", "--quiet"]);
    std::fs::create_dir(scratch.path("pictures")).expect("a folder");
    for n in 0..3_u32 {
        let pixels: Vec<u8> =
            (0..32 * 32).flat_map(|at| [at % 32 * 7, at / 32 * 5, n * 80].map(|value| value as u8)).collect();
        scratch.write(&format!("pictures/{n}.png"), png_of(32, 32, &pixels));
    }
    let calibrate = ["--calibrate", "pictures"];
    every_dump_goes_on(&scratch, "net.onnx", &calibrate, &calibrate);
    let (_, err) = scratch.ends(1, &["compile", "dump/0-import.mlir", "-o", "none.strata"]);
    assert!(err.contains("--calibrate"), "{err}");
}

#[test]
fn options_of_a_dump_give_way_to_those_that_are_given() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    let compile = |model: &str, flags: &[&str]| {
        scratch.ends(0, &[&["compile", model, "-o", "net.strata"], flags].concat());
        std::fs::read(scratch.path("net.strata")).expect("a bundle")
    };
    compile(&model, &["--dump-levels", "dump", "--target", "micro"]);
    let others: &[&[&str]] = &[
        &["--mode", "single"],
        &["--objective", "energy"],
        &["--set", "memory.activation=20KiB"],
        &["--target", "x1"],
    ];
    for flags in others {
        let target: &[&str] = if flags[0] == "--target" { &[] } else { &["--target", "micro"] };
        let whole = compile(&model, &[target, flags].concat());
        assert!(whole == compile("dump/1-quant.mlir", flags), "{flags:?}");
    }
    // What is decided already is told.
    let late = ["--seed", "3", "--range", "entropy", "--tolerance", "5", "-o", "late.strata"];
    let (_, err) = scratch.ends(0, &[&["compile", "dump/2-stages.mlir"], &late[..]].concat());
    assert!(err.contains("--seed, --range would decide") && !err.contains("--tolerance"), "{err}");
    let (_, err) = scratch.ends(0, &[&["compile", "dump/3-phases.mlir"], &late[..]].concat());
    assert!(err.contains("--seed, --range, --tolerance would decide"), "{err}");
    // A plan is of one machine, and for one end.
    let (_, err) = scratch.ends(1, &["compile", "dump/3-phases.mlir", "-o", "none.strata", "--target", "x1"]);
    assert!(err.contains("another target") && !scratch.path("none.strata").exists(), "{err}");
    let planned = compile("dump/3-phases.mlir", &[]);
    assert!(planned == compile("dump/3-phases.mlir", &["--mode", "single"]), "the plan stays");
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", "dump", "--inline-constants"]);
    let read =
        |level: &str| std::fs::read_to_string(scratch.path(&format!("dump/{level}.mlir"))).expect("a dump");
    let [quant, stages, phases] = ["1-quant", "2-stages", "3-phases"].map(read);
    let first_of = |text: &str| text.split("// -----").next().expect("a module").to_owned();
    let rest_of = |text: &str| text.split_once("// -----").expect("parts").1.to_owned();
    let (before, view) = stages.split_once("to {chs = ").expect("where a stage writes");
    let (_, after) = view.split_once(',').expect("its columns");
    let empty_view = format!("{before}to {{chs = 0,{after}");
    let wrong = [
        ("two levels", format!("{}// -----{}", first_of(&stages), rest_of(&phases)), "several levels"),
        ("no record", rest_of(&quant).trim_start().to_owned(), "has no `strata.compile`"),
        ("a wrong record", quant.replacen("network = \"mixed\"", "network = 1", 1), "strata.compile"),
        ("no bytes", quant.replacen("onnx = dense", "onnx = true, m = dense", 1), "strata.host"),
        ("another stage", stages.replacen("groups = 1,", "groups = 2,", 1), "not what their ops say"),
        ("an empty view", empty_view, "not what their ops say"),
        ("another type", stages.replacen("tensor<1x16x24x", "tensor<1x16x25x", 1), "tensor<1x16x25x"),
    ];
    for (what, text, says) in wrong {
        assert!(![&quant, &stages, &phases].contains(&&text), "{what}: nothing was changed");
        scratch.write("wrong.mlir", text);
        let (_, err) = scratch.ends(1, &["compile", "wrong.mlir", "-o", "wrong.strata"]);
        assert!(err.contains(says) && err.contains("wrong.mlir"), "{what}: {err}");
        assert!(!scratch.path("wrong.strata").exists(), "{what}");
    }
    for level in LEVELS {
        let dump = format!("dump/{level}.mlir");
        let (_, err) = scratch.ends(1, &["compile", &dump, "--no-host", "-o", "wrong.strata"]);
        assert!(err.contains("--no-host") && err.contains(&dump), "{level}: {err}");
    }
}

/// Where a text first stands in another, in which any space may stand for a space.
fn find_words(text: &str, words: &str) -> Option<std::ops::Range<usize>> {
    let mut words = words.split(' ');
    let first = words.next()?;
    let words: Vec<&str> = words.collect();
    let mut starts = text.match_indices(first).map(|(at, _)| at);
    starts.find_map(|start| {
        let mut end = start + first.len();
        for word in &words {
            let rest = text[end..].trim_start();
            let is_next = rest.len() < text.len() - end && rest.starts_with(word);
            end = is_next.then(|| text.len() - rest.len() + word.len())?;
        }
        Some(start..end)
    })
}

/// What a dump records of the whole compile may have been edited too.
#[test]
fn what_a_dump_records_is_checked() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", "dump", "--inline-constants"]);
    let import = std::fs::read_to_string(scratch.path("dump/0-import.mlir")).expect("a dump");
    let record = import.find("strata.compile = ").expect("a record");
    let host = import.find("strata.host = ").expect("a part of the host");
    assert!(record < host, "the record stands first");
    let edited = |from: usize, old: &str, new: &str| {
        let found = find_words(&import[from..], old).expect(old);
        format!("{}{new}{}", &import[..from + found.start], &import[from + found.end..])
    };
    let shape = "machine_shape = [1, ";
    let user_shape = "quantisation, shape = [1, ";
    let wrong = [
        (record, "perm = [0, 1, 2, 3]", "perm = [0, 1, 2, 4]", "expected a permutation of 4 axes"),
        (record, "perm = [0, 1, 2, 3]", "perm = [0, 1, 1, 3]", "expected a permutation of 4 axes"),
        (record, "perm = [0, 1, 2, 3]", "perm = []", "expected a permutation of 4 axes"),
        (record, "perm = [0, 1, 2, 3]", "perm = [0, 3, 1, 2]", "does not make `shape`"),
        (record, user_shape, "quantisation, shape = [7, ", "does not make `shape`"),
        (record, shape, "machine_shape = [4611686018427387904, ", "more than 1099511627776 elements"),
        (record, "dtype = \"f32\"", "dtype = \"f33\"", "`f33`, which is no element type"),
        (record, "samples = 2", "samples = 0", "`samples` is 0, expected 1 to 1024"),
        (record, "samples = 2", "samples = 9000000000000000000", "expected 1 to 1024"),
        (record, "clusters = 64", "clusters = 0", "array.clusters must be 1 to 4096, found 0"),
        (host, "perm = [0, 1, 2, 3]", "perm = [9, 1, 2, 3]", "expected a permutation of 4 axes"),
        (host, shape, "machine_shape = [2, ", "does not make `shape`"),
    ];
    for (part, from, to, says) in wrong {
        scratch.write("wrong.mlir", edited(part, from, to));
        let (_, err) = scratch.ends(1, &["compile", "wrong.mlir", "-o", "wrong.strata"]);
        let told = err.contains(says) && err.contains("wrong.mlir") && err.contains("strata.");
        assert!(told && !scratch.path("wrong.strata").exists(), "{to}: {err}");
    }
}

/// A head that no machine runs: whoever reads the stages says so, be it a pass or a compile.
#[test]
fn stages_that_no_machine_runs_are_refused() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    let flags = ["--dump-levels", "dump", "--inline-constants"];
    scratch.ends(0, &[&["compile", &model, "-o", "net.strata"], &flags[..]].concat());
    let text = std::fs::read_to_string(scratch.path("dump/2-stages.mlir")).expect("a dump");
    let code = text.find("\n        runs conv2d {").expect("a convolution");
    let end = code + text[code..].find("\n        -> ").expect("its tail");
    let wrong = [
        ("permute {dims = [1, 1, 1, 1, 1, 1], perm = [0, 1, 2, 3, 4, 9]", "do not rearrange"),
        ("permute {dims = [0, 4294967295, 1, 1, 1, 1], perm = [0, 1, 2, 3, 4, 5]", "do not rearrange"),
    ];
    for (head, says) in wrong {
        let view = "src = {chs = 1, cols = 24, rows = 16, tensor = 0}}";
        scratch.write("wrong.mlir", format!("{}\nruns {head}, {view}{}", &text[..code], &text[end..]));
        for command in [
            &["compile", "wrong.mlir", "-o", "wrong.strata"][..],
            &["opt", "wrong.mlir", "--passes", "fuse-layers"],
            &["opt", "wrong.mlir", "--passes", "split-channels"],
        ] {
            let (_, err) = scratch.ends(1, command);
            assert!(err.contains(says) && err.contains("wrong.mlir"), "{command:?}: {err}");
        }
    }
}

/// A stage says twice what it computes: as ops, and as the machine's code.
#[test]
fn code_that_is_not_what_its_ops_say_is_refused() {
    let scratch = Scratch::new();
    let (model, _) = scratch.fsrcnn();
    let flags = ["--dump-levels", "dump", "--inline-constants"];
    scratch.ends(0, &[&["compile", &model, "-o", "net.strata"], &flags[..]].concat());
    for (level, field) in [("2-stages", "input_zp = -"), ("3-phases", "output_zp = -")] {
        let text = std::fs::read_to_string(scratch.path(&format!("dump/{level}.mlir"))).expect("a dump");
        let (before, after) = text.split_once(field).expect("a zero point below zero");
        let (zero_point, after) = after.split_once([',', ' ', '\n']).expect("more fields");
        let zero_point: u32 = zero_point.parse().expect("a number");
        let edited = format!("{before}{field}{}, {after}", zero_point.abs_diff(9));
        scratch.write("edited.mlir", edited);
        let (_, err) = scratch.ends(1, &["compile", "edited.mlir", "-o", "edited.strata"]);
        assert!(err.contains("not what their ops say") && err.contains("edited.mlir"), "{level}: {err}");
        assert!(err.contains("result 0: ") && !scratch.path("edited.strata").exists(), "{level}: {err}");
    }
}

#[test]
fn parts_of_a_checkpoint_that_do_not_fit_together_are_refused() {
    let scratch = Scratch::new();
    let model = with_hardmax(&scratch);
    scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", "dump", "--inline-constants"]);
    let text = std::fs::read_to_string(scratch.path("dump/3-phases.mlir")).expect("a dump");
    let modules: Vec<&str> = text.split("// -----\n").collect();
    assert!(modules.len() > 2, "a record, and parts");
    scratch.write("fewer.mlir", modules[..modules.len() - 1].join("// -----\n"));
    let (_, err) = scratch.ends(1, &["compile", "fewer.mlir", "-o", "fewer.strata"]);
    assert!(err.contains("fewer.mlir") && err.contains("checkpoint"), "{err}");
    assert!(!scratch.path("fewer.strata").exists());
}
