//! Streams that grow into another: the rows of a tensor that is read for the last time make room for those of
//! a new one.

use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, interp, timed};

/// A 6x1x64 input stays whole in SRAM; the second phase adds each two rows of it and keeps the sums where the
/// input stands, `{gap}` bytes before its first row; the third stores them.
const SUMS: &str = include_str!("programs/sums.s");

fn program(base: u32) -> Program {
    asm::parse(&SUMS.replace("{base}", &base.to_string())).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("micro", &[("memory.activation".to_owned(), "512B".to_owned())]).expect("a preset")
}

fn rules(program: &Program) -> Vec<Rule> {
    verify(program, &target()).into_iter().map(|e| e.rule).collect()
}

#[test]
fn a_result_takes_the_place_of_rows_that_are_passed() {
    // 384 and 320 bytes side by side are more than the 512 there are.
    let program = program(64);
    assert_eq!(rules(&program), []);
    let input: Vec<u8> = (0..384u32).map(|i| (i * 7 % 251) as u8).collect();
    let outputs = interp::run(&program, &target(), &[], std::slice::from_ref(&input)).expect("it is valid");
    let most = |a: u8, b: u8| (a as i8).max(b as i8) as u8;
    let expected: Vec<u8> = (0..320).map(|i| most(input[i], input[i + 64])).collect();
    assert_eq!(outputs[0], expected);
    let timing = timed::simulate(&program, &target());
    assert_eq!(timing.phases[1].stages[0].busy, 5 * 2);
}

#[test]
fn a_row_is_not_written_where_the_step_that_makes_it_still_reads() {
    // Row r would stand where row r of the input does, which its own step reads.
    assert_eq!(rules(&program(128)), [Rule::Deadlock]);
    assert_eq!(rules(&program(127)), [Rule::Deadlock]);
}

#[test]
fn what_is_read_again_is_not_grown_into() {
    let mut program = program(64);
    let again = program.phases[1].clone();
    let mut other = program.streams[1];
    other.base = 0;
    other.slots = 1;
    program.streams.push(other);
    program.phases.insert(2, again);
    program.phases[2].stages[0].code.out.tensor = 2;
    assert!(rules(&program).contains(&Rule::Overlap), "{:?}", rules(&program));
}

/// A 6x1x64 input stays whole in SRAM; two phases make each half of the channels of a result in its very
/// place; the last stores that.
const HALVES: &str = include_str!("programs/halves.s");

fn halves(base: u32, second: u32) -> Program {
    let text = HALVES.replace("{base}", &base.to_string()).replace("{second}", &second.to_string());
    asm::parse(&text).expect("the program assembles")
}

#[test]
fn a_result_is_written_in_place_phase_by_phase() {
    let program = halves(64, 32);
    assert_eq!(rules(&program), []);
    let input: Vec<u8> = (0..384u32).map(|i| (i * 7 % 251) as u8).collect();
    let outputs = interp::run(&program, &target(), &[], std::slice::from_ref(&input)).expect("it is valid");
    let expected: Vec<u8> = input.iter().map(|&byte| (byte as i8).clamp(-5, 5) as u8).collect();
    assert_eq!(outputs[0], expected);
    let timing = timed::simulate(&program, &target());
    let stage = &timing.phases[1].stages[0];
    assert_eq!((stage.stalled_input, stage.stalled_output), (0, 0));
}

#[test]
fn what_was_overwritten_in_place_is_not_read_again() {
    assert_eq!(rules(&halves(64, 0)), [Rule::Overlap]);
    assert_eq!(rules(&halves(64, 16)), [Rule::Overlap]);
}

#[test]
fn only_what_is_laid_out_alike_stands_in_place() {
    assert_eq!(rules(&halves(0, 32)), [Rule::Overlap]);
    let mut program = halves(64, 32);
    (program.streams[0].pitch_bytes, program.streams[0].base) = (72, 0);
    assert_eq!(rules(&program), [Rule::Overlap]);
}
