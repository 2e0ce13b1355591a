//! Prefixes: the first rows of a tensor stay in SRAM from one phase to the next, the others go through DRAM.

use strata_isa_spec::program::Prefix;
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, codec, interp};

/// A 12x1x64 input is clamped; of the result, rows 0 to 4 stay in stream 1, the others are stored and loaded
/// back by the phase that takes the maximum of each row and the next.
const CLAMP_THEN_MAX: &str = include_str!("programs/clamp_then_max.s");

/// The program with the prefix and the second phase's ring at these addresses, and rows from `stored` on in
/// DRAM.
fn program(prefix: u32, ring: u32, stored: u32) -> Program {
    let text = CLAMP_THEN_MAX
        .replace("{prefix}", &prefix.to_string())
        .replace("{ring}", &ring.to_string())
        .replace("{stored}", &stored.to_string())
        .replace("{offset}", &(64 * stored).to_string());
    asm::parse(&text).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("micro", &[("memory.activation".to_owned(), "448B".to_owned())]).expect("a preset")
}

fn rules(program: &Program) -> Vec<Rule> {
    verify(program, &target()).into_iter().map(|e| e.rule).collect()
}

fn assert_computes(program: &Program) {
    assert_eq!(verify(program, &target()), []);
    let input: Vec<u8> = (0..768u32).map(|i| (i * 7 % 251) as u8).collect();
    let outputs = interp::run(program, &target(), &[], std::slice::from_ref(&input)).expect("it is valid");
    let clamped = |i: usize| (input[i] as i8).clamp(-90, 90);
    let expected: Vec<u8> = (0..704).map(|i| clamped(i).max(clamped(i + 64)) as u8).collect();
    assert_eq!(outputs[0], expected);
}

#[test]
fn the_first_rows_stay_and_the_others_return() {
    let program = program(192, 0, 4);
    assert_computes(&program);
    assert_eq!(codec::decode(&codec::encode(&program)).as_ref(), Ok(&program));
    assert_eq!(asm::parse(&asm::disassemble(&program, &[])).as_ref(), Ok(&program));
}

#[test]
fn the_ring_of_the_rest_may_take_the_space_of_rows_that_are_passed() {
    // The ring's two slots are the prefix's first two: rows 4 and 5 wait for rows 0 and 1 to be passed.
    assert_computes(&program(192, 192, 4));
    // A prefix may have a prefix.
    let mut program = program(192, 0, 4);
    let mut first = program.streams[1];
    (first.rows, first.slots, first.base) = (1, 1, 384);
    program.streams.push(first);
    let rest = &mut program.streams[1];
    (rest.slots, rest.prefix) = (3, Some(Prefix { stream: 5, rows: 1 }));
    assert_computes(&program);
    // Slots at the prefix's last rows wait for those.
    assert_computes(&self::program(192, 320, 4));
}

#[test]
fn rows_that_neither_stay_nor_return_are_missed() {
    // Rows 3 to 11 are stored, row 11 is not, and loaded.
    assert_eq!(rules(&program(192, 0, 3)), [Rule::Unwritten]);
    // Without a prefix, rows 0 to 4 are written by no one in the second phase.
    let mut program = program(192, 0, 4);
    program.streams[3].prefix = None;
    assert_eq!(rules(&program), [Rule::Unwritten]);
}

#[test]
fn a_prefix_is_the_first_rows_of_the_same_tensor() {
    let with = |change: fn(&mut Program)| {
        let mut program = program(192, 0, 4);
        change(&mut program);
        rules(&program)
    };
    assert_eq!(with(|p| p.streams[2].prefix = Some(Prefix { stream: 9, rows: 4 })), [Rule::Bounds]);
    assert_eq!(with(|p| p.streams[2].prefix = Some(Prefix { stream: 1, rows: 3 })), [Rule::Shape]);
    assert_eq!(with(|p| (p.streams[1].chs, p.streams[1].cols) = (32, 2)), [Rule::Shape; 2]);
    assert_eq!(with(|p| p.streams[3].slots = 9), [Rule::Shape, Rule::Bounds]);
    // As long as the tensor itself, or a ring of its own: a stream that would be its own prefix.
    let loops = with(|p| {
        p.streams[2].prefix = Some(Prefix { stream: 3, rows: 12 });
        p.streams[3].prefix = Some(Prefix { stream: 2, rows: 12 });
    });
    assert!(loops.contains(&Rule::Shape), "{loops:?}");
}

#[test]
fn a_prefix_is_named_through_one_stream_of_a_phase() {
    let mut program = program(192, 0, 4);
    // The maximum is taken of rows of the prefix itself, which nothing waits for.
    let stage = &mut program.phases[0].stages[1];
    stage.code.out.tensor = 1;
    stage.code.out.rows = 4;
    assert!(rules(&program).contains(&Rule::Shape));
}

#[test]
fn what_stays_is_not_overwritten_in_between() {
    // The ring of the first phase stands in the prefix.
    assert!(rules(&program(64, 0, 4)).contains(&Rule::Overlap));
    // So does that of the last, which is not of the tensor's own rows.
    let mut program = program(192, 0, 4);
    program.streams[0].base = 192;
    assert!(rules(&program).contains(&Rule::Overlap));
}
