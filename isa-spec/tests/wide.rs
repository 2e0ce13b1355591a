//! 16-bit activations from outside: a hand-written program of an `i16` convolution, a 16-bit table and
//! rescales.

use strata_isa_spec::inst::{Conv2d, Head, Rescale16, Tail};
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, codec, interp, timed};

/// A 2x2x2 input of `i16`, a 1x1 convolution to 1 channel, rescaled to `i16`, looked up, and rescaled to
/// `i8`.
const LOOK_UP: &str = include_str!("programs/look_up.s");

fn program() -> Program {
    asm::parse(LOOK_UP).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("x1", &[]).expect("x1 is a preset")
}

const BIAS: i64 = 1 << 40;

/// Weights -128 and 127; a bias beyond 32 bits; the scale `2^-26`; the table of `|x|` at half its scale.
fn weights() -> Vec<u8> {
    let mut bytes = vec![-128i8 as u8, 127];
    bytes.resize(8, 0);
    bytes.extend(BIAS.to_le_bytes());
    bytes.extend((1i16 << 14).to_le_bytes());
    bytes.push(40);
    bytes.resize(20, 0);
    bytes.extend((1i32 << 30).to_le_bytes());
    bytes.push(44);
    bytes.resize(32, 0);
    bytes.extend((0..513i16).flat_map(|i| ((i - 256).abs() * 64).to_le_bytes()));
    bytes.resize(1088, 0);
    bytes
}

fn inputs() -> [[i16; 2]; 4] {
    [[-32768, 32767], [32767, -32768], [0, 0], [-5, 3]]
}

#[test]
fn sums_beyond_32_bits_are_looked_up() {
    let input = inputs().as_flattened().iter().flat_map(|v| v.to_le_bytes()).collect();
    let outputs = interp::run(&program(), &target(), &weights(), &[input]).expect("the program is valid");
    let round = |value: i64, shift: u32| (value + (1 << (shift - 1))) >> shift;
    let want = inputs().map(|[a, b]| {
        let x = round((BIAS - 128 * i64::from(a) + 127 * i64::from(b)) << 14, 40).min(32767);
        // Entries are 64 times the distance from 0 in steps of 128, so the interpolated value is 64 times
        // |x|.
        let y = 64 * x.abs();
        (round(y << 30, 44) - 5).clamp(-128, 127) as i8
    });
    let got: Vec<i8> = outputs[0].iter().map(|&b| b as i8).collect();
    assert_eq!(got, want);
}

#[test]
fn the_new_rows_survive_text_and_binary() {
    let program = program();
    assert_eq!(asm::parse(&asm::disassemble(&program, &[])).as_ref(), Ok(&program));
    assert_eq!(codec::decode(&codec::encode(&program)).as_ref(), Ok(&program));
}

#[test]
fn bytes_of_a_product_take_time_and_energy() {
    let timing = timed::simulate(&program(), &target());
    // Four pixels, two products of two bytes by one; the two reduction lanes make two of them a cycle.
    assert_eq!(timing.macs, 4 * 2 * 2);
    assert_eq!(timing.phases[0].stages[1].busy, 4 * 2);
}

fn conv(program: &mut Program) -> &mut Conv2d {
    match &mut program.phases[0].stages[1].code.head {
        Head::Conv2dI16(conv) => conv,
        other => panic!("stage 1 is a convolution, not {other:?}"),
    }
}

fn broken(edit: impl FnOnce(&mut Program)) -> Vec<Rule> {
    let mut program = program();
    edit(&mut program);
    let mut rules: Vec<_> = verify(&program, &target()).into_iter().map(|e| e.rule).collect();
    rules.dedup();
    rules
}

/// What is wrong without one of the tails.
fn without(tail: usize) -> Vec<Rule> {
    broken(|p| {
        p.phases[0].stages[1].code.tail.remove(tail);
    })
}

#[test]
fn the_verifier_holds_16_bits_to_their_rules() {
    assert_eq!(broken(|_| {}), []);
    let narrow = |p: &mut Program| {
        let conv = *conv(p);
        p.phases[0].stages[1].code.head = conv.into();
    };
    assert_eq!(broken(narrow), [Rule::Shape], "an i8 convolution of i16");
    assert_eq!(broken(|p| conv(p).input_zp = 1), [Rule::Shape]);
    assert_eq!(broken(|p| conv(p).weight_zp = 1), [Rule::Shape]);
    assert_eq!(broken(|p| conv(p).winograd = true), [Rule::Shape]);
    assert_eq!(without(0), [Rule::Shape], "48 bits looked up");
    assert_eq!(broken(|p| p.phases[0].stages[1].code.tail.clear()), [Rule::Shape], "48 bits stored");
    assert_eq!(without(1), [], "rescaled twice");
    assert_eq!(without(2), [Rule::Shape], "32 bits stored");
    // The bias is 8 bytes, the table 1026: both are looked for in what was loaded.
    assert_eq!(broken(|p| p.phases[0].loads[0].bytes = 15), [Rule::Load]);
    assert_eq!(broken(|p| p.phases[0].loads[0].bytes = 32 + 1025), [Rule::Load]);
    assert_eq!(broken(|p| p.phases[0].loads[0].bytes = 32 + 1026), []);
    let to_i8 = |p: &mut Program| {
        if let Tail::Rescale16(Rescale16 { to, .. }) = &mut p.phases[0].stages[1].code.tail[0] {
            *to = strata_isa_spec::inst::Elem::I8;
        }
    };
    assert_eq!(broken(to_i8), [Rule::Shape], "an i8 in the 16-bit table");
}
