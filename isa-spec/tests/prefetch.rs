//! Rows that come ahead: a phase loads the first rows of what the next one reads, which finds them in its
//! ring's prefix.

use strata_isa_spec::timed::simulate;
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, interp};

/// A 12x1x64 input is clamped and stored. Then a 6x1x64 one is moved to an output of its own, while rows 0 to
/// 3 of the clamped are loaded into stream 5. The phase after takes the maximum of each row and the next, of
/// those three and of those that follow.
const MAX_OF_CLAMPED: &str = include_str!("programs/max_of_clamped.s");

/// The phase that loads the first rows.
#[derive(Clone, Copy, PartialEq)]
enum Loads {
    Early,
    Ahead,
    Late,
}

/// The program with rows loaded ahead into bytes from `prefix` on, and the ring of the others at `ring`.
fn program(loads: Loads, prefix: u32, ring: u32) -> Program {
    let stage = "stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 \
        clusters_channels:1 \
                 clusters_pixels:1)";
    let dma = "{stage} out=s5[0+3,0+1,0+64] source=9\n    dma_in segment=4 offset=0 row_pitch_bytes=64 \
        pixel_pitch_bytes=64";
    let when = |phase: Loads| if loads == phase { dma } else { "" };
    let first = if loads == Loads::Late { 0 } else { 3 };
    let text = MAX_OF_CLAMPED
        .replace("{early}", when(Loads::Early))
        .replace("{ahead}", when(Loads::Ahead))
        .replace("{stage}", stage)
        .replace("{prefix}", &prefix.to_string())
        .replace("{ring}", &ring.to_string())
        .replace("{first}", &first.to_string())
        .replace("{rest}", &(12 - first).to_string())
        .replace("{offset}", &(64 * first).to_string());
    asm::parse(&text).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("micro", &[("memory.activation".to_owned(), "640B".to_owned())]).expect("a preset")
}

fn assert_computes(program: &Program) {
    assert_eq!(verify(program, &target()), []);
    let bytes = |n: usize, step: usize| -> Vec<u8> { (0..n).map(|i| (i * step % 251) as u8).collect() };
    let inputs = [bytes(768, 7), bytes(384, 5)];
    let outputs = interp::run(program, &target(), &[], &inputs).expect("it is valid");
    let clamped = |i: usize| (inputs[0][i] as i8).clamp(-90, 90);
    let expected: Vec<u8> = (0..704).map(|i| clamped(i).max(clamped(i + 64)) as u8).collect();
    assert_eq!(outputs, [expected, inputs[1].clone()]);
}

#[test]
fn first_rows_come_ahead() {
    // Beside the ring, and as its last three slots: the ring is then just filled before its phase begins.
    for (prefix, ring) in [(128, 320), (128, 64), (192, 192), (320, 64)] {
        assert_computes(&program(Loads::Ahead, prefix, ring));
    }
}

#[test]
fn a_phase_whose_first_rows_are_there_does_not_wait_for_them() {
    let cycles = |loads: Loads| {
        let program = program(loads, 128, 320);
        assert_computes(&program);
        simulate(&program, &target()).phases[2].cycles
    };
    assert!(cycles(Loads::Ahead) < cycles(Loads::Late), "{} {}", cycles(Loads::Ahead), cycles(Loads::Late));
}

#[test]
fn what_is_loaded_ahead_is_whole_in_dram() {
    // The phase that stores the tensor may not load of it: nothing there waits for what is stored.
    let rules: Vec<Rule> =
        verify(&program(Loads::Early, 128, 320), &target()).into_iter().map(|error| error.rule).collect();
    assert_eq!(rules, [Rule::Unwritten]);
}

#[test]
fn rows_that_come_ahead_are_not_overwritten_by_the_phase_that_loads_them() {
    let rules: Vec<Rule> =
        verify(&program(Loads::Ahead, 64, 320), &target()).into_iter().map(|error| error.rule).collect();
    assert_eq!(rules, [Rule::Overlap]);
}
