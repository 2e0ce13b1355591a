//! The tail that rescales by one scale from 0 on and by another below, from outside.

use strata_isa_spec::inst::Tail;
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, codec, interp};

/// A 1x3x2 input of `i32`, rescaled to `i8` by two scales a channel.
const PROGRAM: &str = include_str!("programs/rescale_by_sign.s");

fn program() -> Program {
    asm::parse(PROGRAM).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("x1", &[]).expect("x1 is a preset")
}

/// Of channel 0 a half and an eighth, of channel 1 a quarter and nothing.
fn weights() -> Vec<u8> {
    let scales = |multipliers: [i32; 2], shifts: [u8; 2]| {
        let mut bytes: Vec<u8> = multipliers.into_iter().flat_map(i32::to_le_bytes).collect();
        bytes.extend(shifts);
        bytes.resize(16, 0);
        bytes
    };
    let mut bytes = scales([1 << 30; 2], [31, 32]);
    bytes.extend(scales([1 << 30, 0], [33, 32]));
    bytes.resize(64, 0);
    bytes
}

#[test]
fn the_sign_selects_the_scale() {
    assert_eq!(verify(&program(), &target()), []);
    let input: Vec<u8> = [100i32, 100, -100, -100, 0, 4000].into_iter().flat_map(i32::to_le_bytes).collect();
    let outputs = interp::run(&program(), &target(), &weights(), &[input]).expect("the program is valid");
    let got: Vec<i8> = outputs[0].iter().map(|&byte| byte as i8).collect();
    // -100 / 8 is -12.5, which rounds up to -12.
    assert_eq!(got, [53, 28, -9, 3, 3, 127]);
}

#[test]
fn it_survives_text_and_binary() {
    let program = program();
    assert_eq!(asm::parse(&asm::disassemble(&program, &[])).as_ref(), Ok(&program));
    assert_eq!(codec::decode(&codec::encode(&program)).as_ref(), Ok(&program));
}

#[test]
fn its_tables_are_loaded_and_in_bounds_and_it_takes_an_i32() {
    let broken = |edit: &dyn Fn(&mut Program)| {
        let mut program = program();
        edit(&mut program);
        let mut rules: Vec<Rule> = verify(&program, &target()).into_iter().map(|e| e.rule).collect();
        rules.dedup();
        rules
    };
    fn tail(program: &mut Program) -> &mut Tail {
        &mut program.phases[0].stages[1].code.tail[0]
    }
    assert_eq!(broken(&|p| p.phases[0].loads[0].bytes = 25), [Rule::Load]);
    let far = broken(&|p| {
        if let Tail::RescaleBySign(sides) = tail(p) {
            sides.multipliers_below.0 = u32::MAX - 3;
        }
    });
    assert!(far.contains(&Rule::Bounds), "{far:?}");
    assert!(broken(&|p| p.streams[0].elem = strata_isa_spec::inst::Elem::I8).contains(&Rule::Shape));
}
