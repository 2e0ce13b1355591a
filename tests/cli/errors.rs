//! The gallery of messages, `docs/generated/errors.md`: every message on it is what the command says now.
//!
//! `BLESS=1 cargo test --release --workspace --test cli errors` writes the page anew.

use std::path::Path;

use strata::io::{Array, DType};
use strata_ir::diag::code;

use crate::Scratch;

/// A message on the page.
struct Case {
    /// What goes wrong, as the heading says it.
    title: &'static str,
    /// What a user typed after `strata`.
    arguments: &'static [&'static str],
    code: i32,
    /// What the user can do.
    advice: &'static str,
}

const fn case(
    title: &'static str,
    code: i32,
    arguments: &'static [&'static str],
    advice: &'static str,
) -> Case {
    Case { title, arguments, code, advice }
}

const CASES: [Case; 27] = [
    case(
        "A picture in place of a model",
        1,
        &["compile", "picture.png"],
        "Give the model, and the picture with `--calibrate`.",
    ),
    case("Text in place of a model", 1, &["inspect", "notes.txt"], "Give one of the files that it names."),
    case("A model that is cut short", 1, &["compile", "cut.onnx"], "Fetch or export the file once more."),
    case(
        "A file that is not there",
        1,
        &["compile", "none.onnx"],
        "Look at the path; it is relative to here.",
    ),
    case(
        "An input whose shape the model leaves open",
        1,
        &["compile", "open.onnx"],
        "Give the shape; the message says how.",
    ),
    case(
        "A node that Strata does not run",
        3,
        &["compile", "strange.onnx"],
        "Export the model with other operators, or cut it before them.",
    ),
    case(
        "A machine that is not known",
        2,
        &["compile", "net.onnx", "--target", "x9"],
        "Take a preset, or a file that ends in `.toml`.",
    ),
    case(
        "A negative size in a target file",
        1,
        &["compile", "net.onnx", "--target", "negative.toml"],
        "Sizes are bytes, or texts with `KiB`, `MiB` or `GiB`.",
    ),
    case(
        "A misspelt field in a target file",
        1,
        &["compile", "net.onnx", "--target", "misspelt.toml"],
        "The message lists the fields of the table; [targets](targets.md) says what each means.",
    ),
    case(
        "A machine that cannot be",
        1,
        &["compile", "net.onnx", "--target", "lanes.toml"],
        "All fields that are wrong are listed at once.",
    ),
    case(
        "An override of a field that is not there",
        2,
        &["compile", "net.onnx", "--set", "memory.sram=1MiB"],
        "The message lists the fields of the table.",
    ),
    case(
        "An output that cannot be written",
        1,
        &["compile", "net.onnx", "-o", "nowhere/net.strata"],
        "This is told before anything is compiled.",
    ),
    case(
        "Too little activation SRAM",
        1,
        &["compile", "net.onnx", "--quiet", "--set", "memory.activation=64"],
        "The message says which size would do.",
    ),
    case(
        "NaN in calibration data",
        1,
        &["compile", "net.onnx", "--calibrate", "nan.npy"],
        "Look at how the sample was made.",
    ),
    case(
        "Calibration data of another shape",
        1,
        &["compile", "net.onnx", "--calibrate", "small.npy"],
        "Give arrays of the input's shape, or pictures, which are brought to it.",
    ),
    case(
        "An input that is not given",
        1,
        &["run", "net.onnx"],
        "Give it with `--input NAME=FILE`; `strata inspect` lists the inputs.",
    ),
    case(
        "An input of another name",
        1,
        &["run", "net.onnx", "--input", "picture=in.npy"],
        "The message lists the inputs.",
    ),
    case(
        "Results in place of a folder that holds something else",
        1,
        &["run", "small.strata", "--input", "0=in.npy", "--dump-stages", "mine"],
        "Name another folder: one that holds more than a dump is never replaced.",
    ),
    case(
        "A file in place of a folder",
        1,
        &["run", "small.strata", "--input", "0=in.npy", "--output-dir", "in.npy"],
        "Name another folder; this is told before anything is run.",
    ),
    case(
        "An integer that no double holds",
        1,
        &["compare", "large.npy", "in.npy"],
        "Save such integers as two arrays of 32 bits, or as reals.",
    ),
    case("A bundle that is damaged", 1, &["verify", "damaged.strata"], "Compile it once more."),
    case(
        "A text of the IR that does not parse",
        1,
        &["opt", "typo.mlir"],
        "`strata explain` and the code say more.",
    ),
    case(
        "A pass that is not known",
        2,
        &["opt", "--passes", "canonicalize", "small.mlir"],
        "`strata opt` lists the passes.",
    ),
    case(
        "Two files that cannot be compared",
        1,
        &["diff", "net.onnx", "small.mlir"],
        "Give bundles, statistics or dumps.",
    ),
    case(
        "A code that is not known",
        2,
        &["explain", "unknown-ops"],
        "`strata explain` without a code lists them all.",
    ),
    case(
        "An option that is not known",
        2,
        &["compile", "net.onnx", "--modus", "single"],
        "`strata compile --help` lists the options.",
    ),
    case(
        "The same for a program that reads messages",
        2,
        &["compile", "net.onnx", "--mode", "dual", "--message-format", "json"],
        "With `--message-format json` every message is an object on a line of its own, with the exit code.",
    ),
];

/// The files that the cases name.
fn files(scratch: &Scratch) {
    let (model, _) = scratch.fsrcnn();
    let bytes = std::fs::read(scratch.path(&model)).expect("the model is there");
    scratch.write("cut.onnx", &bytes[..bytes.len() / 2]);
    scratch.write("picture.png", b"\x89PNG\r\n\x1a\n");
    scratch.write("notes.txt", "Ask about the second head.\n");
    let strange = crate::with_hardmax(scratch);
    let mut strange = strata_frontend::proto::decode(&std::fs::read(scratch.path(&strange)).expect("there"))
        .expect("decodes");
    let graph = strange.graph.as_mut().expect("a graph");
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Hardmax") {
        node.op_type = "Blur".to_owned();
    }
    scratch.write("strange.onnx", strata_frontend::proto::encode(&strange));
    let mut open = strata_frontend::proto::decode(&bytes).expect("decodes");
    let graph = open.graph.as_mut().expect("a graph");
    if let Some(ty) = graph.input.first_mut().and_then(|input| input.r#type.as_mut())
        && let Some(strata_frontend::proto::TypeValue::TensorType(tensor)) = &mut ty.value
        && let Some(shape) = &mut tensor.shape
    {
        shape.dim.iter_mut().skip(2).for_each(|dim| dim.value = None);
    }
    scratch.write("open.onnx", strata_frontend::proto::encode(&open));
    let x1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("isa-spec/targets/x1.toml");
    let x1 = std::fs::read_to_string(x1).expect("a preset");
    scratch.write("negative.toml", x1.replacen("\"8MiB\"", "-4", 1));
    scratch.write("misspelt.toml", x1.replacen("clusters", "clustres", 1));
    scratch.write(
        "lanes.toml",
        x1.replacen("lanes = 64", "lanes = 48", 1).replacen("dram_byte_pj = ", "dram_byte_pj = -", 1),
    );
    let mut values = vec![0.5; 24 * 16];
    values[7] = f32::NAN;
    scratch.write("nan.npy", Array::f32(vec![1, 1, 16, 24], values).to_npy());
    let small = Array::new(vec![1, 1, 4, 4], DType::F32, vec![0.0; 16]).expect("fits");
    scratch.write("small.npy", small.to_npy());
    scratch.ends(0, &["compile", &model, "-o", "damaged.strata", "--quiet"]);
    std::fs::copy(scratch.path("damaged.strata"), scratch.path("small.strata")).expect("copied");
    std::fs::create_dir(scratch.path("mine")).expect("a folder");
    scratch.write("mine/notes.txt", "mine");
    let zeros = Array::new(vec![1], DType::I64, vec![0.0]).expect("fits").to_npy();
    let large = ((1i64 << 53) + 1).to_le_bytes();
    scratch.write("large.npy", [&zeros[..zeros.len() - large.len()], &large].concat());
    let mut damaged = std::fs::read(scratch.path("damaged.strata")).expect("the bundle is there");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    scratch.write("damaged.strata", &damaged);
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend/tests/tosa/small.mlir");
    let small = std::fs::read_to_string(small).expect("a module");
    scratch.write("typo.mlir", small.replacen("tosa.conv2d", "tosa.conv2", 1));
    scratch.write("small.mlir", small);
}

fn page(scratch: &Scratch) -> String {
    let mut page =
        "# Messages\n\nMade by running the command; do not edit. What goes wrong most often, what \
                    is said of it, and what to do. A message names the file or the node, what was found and \
                    what was expected; it goes to standard error, and the exit code says of which kind it \
                    is.\n[Diagnostics](codes.md) of the IR have codes.\n"
            .to_owned();
    for Case { title, arguments, code, advice } in &CASES {
        let (_, err) = scratch.ends(*code, arguments);
        let said: String = err.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        page += &format!(
            "\n## {title}\n\n```console\n$ strata {}\n{said}```\n\nExit code {code}. {advice}\n",
            arguments.join(" ")
        );
    }
    page
}

#[test]
fn the_gallery_of_messages_is_not_stale() {
    let scratch = Scratch::new();
    files(&scratch);
    let page = page(&scratch);
    // The folder of the test is another each time, and none of the user's business.
    let folder = scratch.0.path().display().to_string();
    assert!(!page.contains(&folder) && !page.contains(".strata-"), "{page}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/generated/errors.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/generated/errors.md is stale: run this test with BLESS=1");
}

#[test]
fn every_code_that_the_gallery_shows_is_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/generated/errors.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let shown = page.split("error[").skip(1).filter_map(|rest| rest.split(']').next());
    let shown: Vec<&str> = shown.collect();
    assert!(!shown.is_empty(), "{page}");
    for id in shown {
        assert!(code::ALL.iter().any(|code| code.id() == id), "{id} is no code");
    }
}
