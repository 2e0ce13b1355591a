//! Consecutive frames: what is loaded again, when that is queued, and that every frame computes the same.

use strata_isa_spec::frames::{Ahead, FRAMES, FirstRows, of_frames, repeated, simulate};
use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Head, Program, Target, WeightLoad, asm, interp, timed};

/// A 4x1x64 input is looked up in a table and stored, loaded back, looked up in a second table, and in a
/// third one; each phase has one of the tables, which it loads as it begins.
const THREE_TABLES: &str = include_str!("programs/three_tables.s");

/// Of a clamped input, rows 0 to 4 stay in a stream that is the prefix of the second phase's.
const CLAMP_THEN_MAX: &str = include_str!("programs/clamp_then_max.s");

/// The program with its tables at these addresses of weight SRAM.
fn program(tables: [u32; 3]) -> Program {
    let [a, b, c] = tables.map(|at| format!("{at:#x}"));
    let text = THREE_TABLES.replace("{a}", &a).replace("{b}", &b).replace("{c}", &c);
    asm::parse(&text).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("micro", &[]).expect("a preset")
}

fn load(dst: u32, src: u64, bytes: u32) -> WeightLoad {
    WeightLoad { dst: WeightAddr(dst), src, bytes }
}

/// The loads of each phase.
fn loads(program: &Program) -> Vec<&[WeightLoad]> {
    program.phases.iter().map(|phase| &phase.loads[..]).collect()
}

/// Three tables of 256 bytes.
fn weights() -> Vec<u8> {
    (0..768u32).map(|i| (i * 89 % 253) as u8).collect()
}

/// The inputs of frames that all differ.
fn inputs(n: u32) -> Vec<Vec<u8>> {
    (0..n).map(|frame| (0..256u32).map(|i| (i * 7 + frame * 31) as u8).collect()).collect()
}

/// Weights that come as early as they may.
const EARLY: Ahead = Ahead { weights: true, rows: None };

/// That each frame gives what the program gives of its input, in whatever order.
fn assert_computes(program: &Program, n: u32, ahead: &Ahead) {
    let (target, weights, inputs) = (target(), weights(), inputs(n));
    let frames = of_frames(program, n, ahead);
    assert_eq!(verify(&frames, &target), []);
    let expected: Vec<Vec<u8>> = (inputs.iter())
        .flat_map(|input| {
            interp::run(program, &target, &weights, std::slice::from_ref(input)).expect("it runs")
        })
        .collect();
    assert_ne!(expected[0], expected[1], "the frames differ");
    assert_eq!(interp::run(&frames, &target, &weights, &inputs).as_ref(), Ok(&expected));
    for seed in 0..20 {
        let found = interp::run_checked(&frames, &target, &weights, &inputs, seed, &mut |_| {});
        assert_eq!(found.as_ref(), Ok(&expected), "order {seed}");
    }
}

#[test]
fn weights_that_all_fit_are_loaded_once() {
    let program = program([0, 256, 512]);
    assert_computes(&program, 4, &EARLY);
    let (first, rest) = (loads(&program), [[].as_slice(); 6]);
    let frames = of_frames(&program, 3, &EARLY);
    assert_eq!(loads(&frames), [first.as_slice(), &rest].concat());
    let timing = simulate(&program, &target()).expect("it verifies");
    assert_eq!((timing.frames, timing.dram_bytes.weights), (FRAMES, 0));
    let once = timed::simulate(&program, &target());
    assert!(timing.cycles < once.cycles && timing.energy_pj.total < once.energy_pj.total);
    let moved = once.dram_bytes.total() - timing.dram_bytes.total();
    assert_eq!((moved, once.dram_bytes.spill_read), (768, timing.dram_bytes.spill_read));
}

#[test]
fn what_is_overwritten_is_loaded_again_as_early_as_its_bytes_are_free() {
    // The first table stays. The second and the third take turns: the second is free to come from the first
    // phase on, the third once the second has been used.
    let program = program([0, 256, 256]);
    let late = Ahead::default();
    [EARLY, late].iter().for_each(|ahead| assert_computes(&program, 4, ahead));
    let (a, b, c) = (load(0, 0, 256), load(256, 256, 256), load(256, 512, 256));
    let frames = of_frames(&program, 2, &late);
    assert_eq!(loads(&frames), [&[a][..], &[b], &[c], &[], &[b], &[c]]);
    let frames = of_frames(&program, 3, &EARLY);
    assert_eq!(loads(&frames), [&[a][..], &[b], &[c], &[b], &[], &[c], &[b], &[], &[c]]);
    let waits = |frame: usize| frames.phases[3 * frame + 2].stages[0].wait_loads;
    assert_eq!([waits(0), waits(1), waits(2)], [3, 5, 7]);
}

#[test]
fn the_first_loads_of_a_frame_come_in_the_last_phases_of_the_one_before() {
    // The second table takes the space of the first, which is free again once the second was used.
    let program = program([0, 0, 256]);
    assert_computes(&program, 4, &EARLY);
    let (a, b, c) = (load(0, 0, 256), load(0, 256, 256), load(256, 512, 256));
    let frames = of_frames(&program, 3, &EARLY);
    assert_eq!(loads(&frames), [&[a][..], &[b], &[c, a], &[], &[b], &[a], &[], &[b], &[]]);
}

#[test]
fn first_rows_come_in_a_phase_of_the_frame_before() {
    let program = program([0, 256, 512]);
    let cycles = |ahead: &Ahead| -> u64 {
        let timing = timed::simulate(&of_frames(&program, 4, ahead), &target());
        timing.phases[6..9].iter().map(|phase| phase.cycles).sum()
    };
    for (rows, phase) in [(1, 0), (2, 1), (3, 2), (3, 0)] {
        let ahead = Ahead { weights: false, rows: Some(FirstRows { stage: 0, rows, phase, base: 512 }) };
        assert_computes(&program, 4, &ahead);
        let frames = of_frames(&program, 3, &ahead);
        let n = program.streams.len();
        let moved = |frame: usize| frames.streams[frame * n].prefix.map(|prefix| prefix.rows);
        assert_eq!([moved(0), moved(1), moved(2)], [None, Some(rows), Some(rows)]);
        let inputs = |program: &Program| timed::traffic(program).inputs;
        assert_eq!(inputs(&frames), 3 * inputs(&program));
        assert_eq!(frames.phases[phase].stages.len(), program.phases[phase].stages.len() + 1);
    }
    let found = simulate(&program, &target()).expect("it verifies");
    assert!(found.ahead.rows.is_some() && found.cycles < cycles(&Ahead::default()), "{found:?}");
    assert_eq!(found.cycles, cycles(&found.ahead));
    assert_computes(&program, 4, &found.ahead);
}

#[test]
fn first_rows_do_not_come_where_there_is_no_room_for_them() {
    let program = program([0, 256, 512]);
    let with = |key: &str, value: &str| {
        let target = Target::preset("micro", &[(key.to_owned(), value.to_owned())]).expect("a preset");
        simulate(&program, &target).expect("it verifies").ahead.rows
    };
    // All streams end at byte 384.
    assert_eq!(with("memory.activation", "384B"), None);
    assert_eq!(with("memory.activation", "448B").map(|rows| (rows.rows, rows.base)), Some((1, 384)));
    // The first phase names two streams.
    assert_eq!(with("limits.streams", "2"), None);
    // What is loaded into a part of a stream that another stage writes too comes when it did.
    let mut parts = self::program([0, 256, 512]);
    let mut second = parts.phases[0].stages[0].clone();
    (parts.phases[0].stages[0].code.out.chs, second.code.out.chs, second.code.out.ch0) = (32, 32, 32);
    if let Head::DmaIn(dma) = &mut second.code.head {
        dma.offset = 32;
    }
    parts.phases[0].stages.push(second);
    assert_eq!(verify(&parts, &target()), []);
    assert_eq!(simulate(&parts, &target()).expect("it verifies").ahead.rows, None);
}

#[test]
fn only_the_overwritten_part_of_a_load_is_loaded_again() {
    let program = program([0, 192, 512]);
    assert_computes(&program, 3, &EARLY);
    let again = repeated(&program);
    assert_eq!(loads(&again), [&[load(192, 192, 64)][..], &[load(192, 256, 64)], &[]]);
    // Of the same bytes at the same addresses nothing is overwritten.
    let mut same = program;
    same.phases[2].loads.push(load(0, 0, 100));
    assert_eq!(loads(&repeated(&same)), [&[load(192, 192, 64)][..], &[load(192, 256, 64)], &[]]);
}

#[test]
fn a_frame_of_a_stream_takes_as_long_however_many_there_are() {
    for tables in [[0, 256, 512], [0, 256, 256], [0, 0, 256], [0, 0, 0], [0, 192, 512]] {
        let program = program(tables);
        let n = 8;
        let steady = simulate(&program, &target()).expect("it verifies");
        let timing = timed::simulate(&of_frames(&program, n, &steady.ahead), &target());
        let frames = timing.phases.chunks(3).map(|frame| frame.iter().map(|phase| phase.cycles).sum::<u64>());
        let frames: Vec<u64> = frames.collect();
        assert_eq!(frames[2..7], [steady.cycles; 5], "{tables:?}: {frames:?}");
    }
}

#[test]
fn prefixes_are_of_their_own_frame() {
    let mut text = CLAMP_THEN_MAX.to_owned();
    for (what, value) in [("{prefix}", "192"), ("{ring}", "192"), ("{stored}", "4"), ("{offset}", "256")] {
        text = text.replace(what, value);
    }
    let program = asm::parse(&text).expect("the program assembles");
    let frames = of_frames(&program, 3, &EARLY);
    assert_eq!(verify(&frames, &target()), []);
    let input = |frame: usize| (0..768).map(|i| (i * 7 + frame * 31) as u8).collect::<Vec<u8>>();
    let run = |program: &Program, inputs: &[Vec<u8>]| {
        interp::run(program, &target(), &[], inputs).expect("it runs")
    };
    let expected: Vec<Vec<u8>> = (0..3).flat_map(|frame| run(&program, &[input(frame)])).collect();
    assert_eq!(run(&frames, &[input(0), input(1), input(2)]), expected);
    let prefix = |stream: usize| frames.streams[stream].prefix.map(|prefix| prefix.stream);
    let with = program.streams.iter().position(|stream| stream.prefix.is_some()).expect("there is one");
    let n = program.streams.len();
    assert_eq!(prefix(with + 2 * n), prefix(with).map(|stream| stream + 2 * n as u32));
}

#[test]
fn no_frames_and_no_phases_are_no_program() {
    assert_eq!(of_frames(&program([0, 0, 0]), 0, &EARLY), Program::default());
    assert_eq!(simulate(&Program::default(), &target()).map(|timing| timing.cycles), Ok(0));
}

#[test]
fn frames_that_take_more_dram_than_there_is_are_told() {
    let mut program = program([0, 256, 512]);
    program.segments[3].bytes = 12 << 30;
    assert_eq!(verify(&program, &target()), []);
    let errors = simulate(&program, &target()).expect_err("there is no room for four");
    assert_eq!(errors.iter().map(|error| error.rule).collect::<Vec<_>>(), [Rule::Limit]);
}
