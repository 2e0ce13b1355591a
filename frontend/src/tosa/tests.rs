//! A file that `tosa-opt` wrote, its text, and what becomes of damaged copies.

use std::panic::{AssertUnwindSafe, catch_unwind};

use strata_ir::eval::eval_function;
use strata_ir::verify::verify;
use strata_ir::{Module, Tensor, text};

use super::{entry, read, write};
use crate::import::ImportError;

const SMALL: &[u8] = include_bytes!("../../tests/tosa/small.tosa");
const TEXT: &str = include_str!("../../tests/tosa/small.mlir");

fn from_text(source: &str) -> Module {
    let mut module = text::parse(source, None).expect("the text parses");
    entry::prepare(&mut module).expect("the function is prepared");
    module
}

fn outputs(module: &Module) -> Vec<Tensor> {
    let input = (0..32).map(|i: i32| (i * 41 % 251 - 125) as i8).collect();
    let main = module.function("main").expect("there is a main");
    eval_function(module, main, vec![Tensor::i8([1, 4, 4, 2], input)]).expect("it evaluates")
}

#[test]
fn a_file_means_what_its_text_means() {
    let (file, text) = (read(SMALL, "small.tosa").expect("it reads"), from_text(TEXT));
    let names = |module: &Module| -> Vec<&str> {
        let mut names: Vec<_> =
            module.walk(module.body()).into_iter().map(|op| module.op(op).op.name()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&file), names(&text));
    assert_eq!(outputs(&file), outputs(&text));
    assert_eq!(entry::of(&file), Ok(entry::Entry::Integer));
}

#[test]
fn what_is_written_is_read_again() {
    let text = from_text(TEXT);
    let bytes = write(&text).expect("it has a form");
    let again = read(&bytes, "again.tosa").expect("it reads");
    assert_eq!(outputs(&again), outputs(&text));
    assert_eq!(write(&again), Ok(bytes), "what was read is written as before");
}

#[test]
fn results_that_no_op_of_their_own_makes_are_copied() {
    let source = "func.func @main(%x: tensor<1x2xi8>) -> (tensor<1x2xi8>, tensor<1x2xi8>) {\n  \
                  return %x, %x : tensor<1x2xi8>, tensor<1x2xi8>\n}";
    let bytes = write(&from_text(source)).expect("it has a form");
    let module = read(&bytes, "copies.tosa").expect("it reads");
    let main = module.function("main").expect("there is a main");
    let results = eval_function(&module, main, vec![Tensor::i8([1, 2], vec![3, -4])]).expect("it evaluates");
    assert_eq!(results, [Tensor::i8([1, 2], vec![3, -4]), Tensor::i8([1, 2], vec![3, -4])]);
}

#[test]
fn a_function_beside_main_is_refused() {
    let one = |name: &str| {
        format!("func.func @{name}(%x: tensor<1xi8>) -> (tensor<1xi8>) {{\n  return %x : tensor<1xi8>\n}}\n")
    };
    let module = text::parse(&(one("main") + &one("host")), None).expect("the text parses");
    let error = write(&module).expect_err("a file has one graph").to_string();
    assert!(error.contains("beside `main`"), "{error}");
}

/// What reading damaged bytes gives: never a panic, and only modules that verify.
fn survives(bytes: &[u8], what: &str) -> Option<ImportError> {
    let result = catch_unwind(AssertUnwindSafe(|| read(bytes, "damaged.tosa")));
    match result.unwrap_or_else(|_| panic!("{what}: reading panicked")) {
        Ok(module) => {
            verify(&module).unwrap_or_else(|e| panic!("{what}: read, but does not verify: {e}"));
            None
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Some(error)
        }
    }
}

/// The end of the file: the name of its block, which nothing reads, between paddings.
const UNREAD: usize = 16;

#[test]
fn every_truncation_is_an_error() {
    for len in 0..SMALL.len() {
        let error = survives(&SMALL[..len], &format!("{len} bytes"));
        assert!(error.is_some() || SMALL.len() - len <= UNREAD, "{len} of {} bytes read", SMALL.len());
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut damaged = SMALL.to_vec();
    let mut n_errors = 0;
    for at in 0..SMALL.len() {
        for flip in [0x01, 0x02, 0x04, 0x10, 0x40, 0x80, 0xFF] {
            damaged[at] ^= flip;
            n_errors += usize::from(survives(&damaged, &format!("byte {at} ^ {flip:#x}")).is_some());
            damaged[at] ^= flip;
        }
    }
    assert!(n_errors > SMALL.len(), "only {n_errors} of {} flips were noticed", 7 * SMALL.len());
}

#[test]
fn many_bytes_at_once_never_panic() {
    // A counter-based generator: SplitMix64.
    let mut state = 0u64;
    let mut random = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) as usize
    };
    for round in 0..5_000 {
        let mut damaged = SMALL.to_vec();
        for _ in 0..1 + random() % 8 {
            let (from, to) = (random() % damaged.len(), random() % damaged.len());
            match random() % 3 {
                0 => damaged[to] = random() as u8,
                1 => damaged[to] = damaged[from],
                _ => {
                    let word = damaged.get(from..from + 4).map(<[u8]>::to_vec).unwrap_or_default();
                    if let Some(place) = damaged.get_mut(to..to + word.len()) {
                        place.copy_from_slice(&word);
                    }
                }
            }
        }
        survives(&damaged, &format!("round {round}"));
    }
}

#[test]
fn what_is_no_tosa_says_so() {
    let error = read(b"\x08\0\0\0ONNX    ", "x.tosa").expect_err("no identifier");
    assert_eq!(
        error.to_string(),
        "the model is malformed:\n  file: not a TOSA flatbuffer: the identifier `TOSA` is missing"
    );
}

fn refused(source: &str) -> String {
    let mut module = text::parse(source, None).expect("the text parses");
    entry::prepare(&mut module).expect_err("it is refused").to_string()
}

#[test]
fn the_only_function_is_meant_whatever_its_name() {
    let function = |name: &str| {
        format!("func.func @{name}(%a: tensor<4xi8>) -> tensor<4xi8> {{ return %a : tensor<4xi8> }}\n")
    };
    assert!(from_text(&function("forward")).function("main").is_some());
    let two = function("first") + &function("second");
    assert_eq!(
        refused(&two),
        "the model is malformed:\n  module: there are 2 functions and none is called @main: which is the \
            network?"
    );
    let beside = function("main") + &function("helper");
    assert_eq!(
        refused(&beside),
        "the model is malformed:\n  module: functions beside @main have no use: @helper"
    );
}

#[test]
fn a_function_is_of_floats_or_of_integers() {
    let of = |source: &str| entry::of(&from_text(source));
    let float = "func.func @f(%a: tensor<4xf32>) -> tensor<4xf32> {
        %0 = tosa.exp %a : (tensor<4xf32>) -> tensor<4xf32>
        return %0 : tensor<4xf32>
    }";
    assert_eq!(of(float), Ok(entry::Entry::Float));
    let mixed = "func.func @f(%a: tensor<4xi8>) -> tensor<4xf32> {
        %0 = tosa.cast %a : (tensor<4xi8>) -> tensor<4xf32> loc(\"seam\")
        return %0 : tensor<4xf32>
    }";
    let error = of(mixed).expect_err("a seam").to_string();
    assert!(error.contains("tosa.cast `seam`: it computes with narrow integers"), "{error}");
}

#[test]
fn operands_that_are_no_constants_are_declined_and_wrong_types_refused() {
    let source = |zp: &str, out: &str| {
        format!(
            "func.func @f(%a: tensor<1x2x2x1xi8>, %z: tensor<1xi8>) -> tensor<{out}> {{
            %c = \"tosa.const\"() <{{values = dense<0> : tensor<1xi8>}}> : () -> tensor<1xi8>
            %0 = tosa.negate %a, {zp}, %c : (tensor<1x2x2x1xi8>, tensor<1xi8>, tensor<1xi8>) -> tensor<{out}>
            return %0 : tensor<{out}>
        }}"
        )
    };
    let parsed = |source: &str| text::parse(source, None).expect("the text parses");
    let dynamic = entry::prepare(&mut parsed(&source("%z", "1x2x2x1xi8"))).expect_err("not a constant");
    assert!(matches!(dynamic, ImportError::Unsupported(_)), "{dynamic}");
    let wrong = entry::prepare(&mut parsed(&source("%c", "1x2x2x2xi8"))).expect_err("another shape");
    assert!(matches!(wrong, ImportError::Malformed(_)), "{wrong}");
}
