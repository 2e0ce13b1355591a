//! The machine from outside: codec, assembler, bundle, verifier and both interpreters on a small hand-written
//! program.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use strata_isa_spec::bundle::{Bundle, Code, Machine, MadeTensor, Manifest, Part, Quantisation, SourceOp};
use strata_isa_spec::timed::{DmaTime, TimeUse};
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, Target, asm, codec, interp, timed};

/// A 4x4x2 input, doubled channel by channel by a 1x1 convolution to 3 channels, then its 2x2 maximum: two
/// stages that stream through a ring of two rows.
const TWO_STAGES: &str = include_str!("programs/two_stages.s");

fn program() -> Program {
    asm::parse(TWO_STAGES).expect("the program assembles")
}

fn target() -> Target {
    Target::preset("x1", &[]).expect("x1 is a preset")
}

fn weights() -> Vec<u8> {
    let mut bytes: Vec<u8> = [2i8, 0, 0, 2, 1, -1].iter().map(|&w| w as u8).collect();
    bytes.resize(8, 0);
    for bias in [0i32, 10, -10] {
        bytes.extend(bias.to_le_bytes());
    }
    bytes.extend((1i32 << 30).to_le_bytes());
    bytes.push(30);
    bytes.resize(64, 0);
    bytes
}

#[test]
fn a_program_survives_text_and_binary() {
    let program = program();
    let text = asm::disassemble(&program, &[]);
    assert_eq!(asm::parse(&text).as_ref(), Ok(&program));
    assert_eq!(codec::decode(&codec::encode(&program)).as_ref(), Ok(&program));
}

#[test]
fn rows_stream_through_rings() {
    let input: Vec<u8> = (0..32u8).collect();
    let outputs = interp::run(&program(), &target(), &weights(), &[input]).expect("the program is valid");
    // Channel 0: 2 * (even - 1) - 3; channel 1: 2 * (odd - 1) + 10 - 3; channel 2: even - odd - 10 - 3 = -14.
    let want = |pixel: i32| [2 * (2 * pixel - 1) - 3, 2 * (2 * pixel) + 7, -14];
    let got: Vec<i32> = outputs[0].iter().map(|&b| i32::from(b as i8)).collect();
    let maxima: Vec<i32> = [5, 7, 13, 15].into_iter().flat_map(want).collect();
    assert_eq!(got, maxima);
}

#[test]
fn time_and_traffic_are_those_of_the_formulas() {
    let timing = timed::simulate(&program(), &target());
    assert_eq!(timing.dram_bytes.weights, 64);
    assert_eq!((timing.dram_bytes.inputs, timing.dram_bytes.outputs), (32, 12));
    assert_eq!(timing.dram_bytes.total(), 64 + 32 + 12);
    assert_eq!(timing.macs, 4 * 4 * 2 * 3);
    let stages = &timing.phases[0].stages;
    // The convolution: 4 rows of 4 pixels, one channel block, one reduction step.
    assert_eq!(stages[1].busy, 4 * 4);
    assert_eq!(timing.phases.iter().map(|p| p.cycles).sum::<u64>(), timing.cycles);
}

/// The phase takes 1067 cycles of configuration and 227 of work: a row arrives after a cycle of transfer and
/// 107 of latency.
#[test]
fn every_cycle_is_accounted_for() {
    let timing = timed::simulate(&program(), &target());
    let [phase] = &timing.phases[..] else { panic!("there is one phase") };
    let configured = TimeUse { configuring: 1067, ..TimeUse::default() };
    let convolution = TimeUse { busy: 16, stalled_input: 108, stalled_output: 1, idle: 102, ..configured };
    let pool = TimeUse { busy: 2, stalled_input: 124, stalled_output: 100, idle: 1, ..configured };
    assert_eq!(phase.partitions, [convolution, pool]);
    assert_eq!((phase.stages[1], phase.stages[2]), (convolution, pool));
    let load = TimeUse { busy: 4, stalled_output: 6, waiting_turn: 107, idle: 110, ..configured };
    let store = TimeUse { busy: 2, stalled_input: 118, waiting_turn: 107, ..configured };
    assert_eq!((phase.dma.load, phase.dma.store), (load, store));
    assert_eq!((phase.stages[0], phase.stages[3]), (load, store));
    // The weights come while the machine is configured.
    let weights = TimeUse { busy: 4, waiting_turn: 107, idle: 1294 - 111, ..TimeUse::default() };
    assert_eq!(phase.dma.weights, weights);
    assert_eq!((phase.cycles, timing.dma, phase.dma.dram_busy()), (1294, phase.dma, 4 + 2 + 4));
    // Two of 64 clusters are in use.
    let array = TimeUse {
        configuring: 2 * 1067,
        busy: 16 + 2,
        stalled_input: 108 + 124,
        stalled_output: 1 + 100,
        idle: 102 + 1 + 62 * 1294,
        ..TimeUse::default()
    };
    assert_eq!(timing.array, array);
}

/// A row of 64 bytes is loaded, and in the next phase clamped and stored. Beside it, tables are loaded that
/// nothing waits for, in two bursts: the second is under way when the second phase begins.
const LOAD_LEFT_BEHIND: &str = include_str!("programs/load_left_behind.s");

#[test]
fn a_transfer_of_the_phase_before_keeps_dram_busy_until_it_ends() {
    let target = Target::preset("micro", &[]).expect("a preset");
    let program = asm::parse(LOAD_LEFT_BEHIND).expect("the program assembles");
    assert_eq!(verify(&program, &target), []);
    let timing = timed::simulate(&program, &target);
    let moved = timing.dram_bytes.total();
    assert_eq!((moved, timing.dma.dram_busy()), (200 + 1000 + 64 + 64, moved / 2));
    // All is moved, the row that is stored after all else, and after a burst there is no more than latency.
    let latency = u64::from(target.dram.latency_cycles);
    assert_eq!(timing.cycles, moved / 2 + latency);
    for phase in &timing.phases {
        let DmaTime { load, store, weights } = phase.dma;
        assert_eq!([load, store, weights].map(|queue| queue.total()), [phase.cycles; 3]);
        assert!(phase.dma.dram_busy() <= phase.cycles, "{phase:?}");
    }
}

fn broken(edit: impl FnOnce(&mut Program)) -> Vec<Rule> {
    let mut program = program();
    edit(&mut program);
    let mut rules: Vec<_> = verify(&program, &target()).into_iter().map(|e| e.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn the_verifier_finds_each_kind_of_fault() {
    assert_eq!(broken(|_| {}), []);
    assert_eq!(broken(|p| p.phases[0].partitions[0] = 64), [Rule::Limit]);
    assert_eq!(broken(|p| p.streams[2].base = 8 << 20), [Rule::Bounds]);
    assert_eq!(broken(|p| drop(p.phases[0].stages.remove(0))), [Rule::Unwritten]);
    assert_eq!(broken(|p| p.streams[1].base = 8), [Rule::Overlap]);
    assert_eq!(broken(|p| p.streams[1].slots = 1), [Rule::Deadlock]);
    assert_eq!(broken(|p| p.phases[0].stages[1].wait_loads = 0), [Rule::Load]);
    assert_eq!(broken(|p| p.phases[0].stages[1].wait_loads = 2), [Rule::Load]);
    assert_eq!(broken(|p| p.phases[0].loads[0].bytes = 20), [Rule::Load]);
    assert_eq!(broken(|p| p.segments[2].bytes = 16), [Rule::Unwritten]);
    assert_eq!(broken(|p| p.phases[0].stages[1].code.out.rows = 3), [Rule::Shape]);
}

fn bundle() -> Bundle {
    Bundle {
        manifest: Manifest {
            format: 0,
            producer: "test".to_owned(),
            network: "two-stages".to_owned(),
            target: target(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        },
        parts: vec![machine_part()],
        stats: None,
        dumps: Default::default(),
    }
}

fn machine_part() -> Part {
    let names = vec!["in".to_owned(), "conv".to_owned(), "pool".to_owned()];
    let ops = vec![vec![SourceOp { op: "tosa.conv2d".to_owned(), node: "conv".to_owned() }]];
    let machine = Machine { program: program(), weights: weights(), names, ops, tensors: Box::default() };
    Part { inputs: Vec::new(), outputs: Vec::new(), code: Code::Machine(machine) }
}

#[test]
fn bundles_are_reproducible_and_round_trip() {
    let bytes = bundle().to_bytes().expect("a bundle is written");
    assert_eq!(bytes, bundle().to_bytes().expect("a bundle is written"));
    let read = Bundle::from_bytes(&bytes).expect("a bundle is read");
    assert_eq!(read.parts, bundle().parts);
}

#[test]
fn scales_read_back_to_the_last_bit() {
    let mut bundle = bundle();
    let scales = [6.0 / 255.0, 0.013581205816829907, 1.0 / 3.0, f64::MIN_POSITIVE];
    let Code::Machine(machine) = &mut bundle.parts[0].code else { panic!("the first part is a program") };
    let tensor = |&scale: &f64| MadeTensor {
        name: "conv".to_owned(),
        nodes: Vec::new(),
        shape: vec![1],
        dims: [1; 3],
        dtype: "i8".to_owned(),
        is_image: false,
        quantisation: Some(Quantisation { scale, zero_point: -1 }),
    };
    machine.tensors.tensors = scales.iter().map(tensor).collect();
    let bytes = bundle.to_bytes().expect("a bundle is written");
    assert_eq!(Bundle::from_bytes(&bytes).expect("a bundle is read").parts, bundle.parts);
}

#[test]
fn bundles_are_read_without_their_weights() {
    let without = |bytes: &[u8]| Bundle::without_weights(bytes).map(|bundle| bundle.parts);
    let mut bytes = bundle().to_bytes().expect("a bundle is written");
    let mut want = machine_part();
    if let Code::Machine(machine) = &mut want.code {
        machine.weights.clear();
    }
    assert_eq!(without(&bytes).expect("a bundle is read"), [want.clone()]);
    let at = bytes.windows(weights().len()).position(|window| window == weights()).expect("they are there");
    bytes[at] ^= 0x41;
    assert_eq!(without(&bytes).expect("a bundle is read"), [want], "weights are not looked at");
    assert!(Bundle::from_bytes(&bytes).is_err());
    let at = bytes.windows(4).rposition(|window| window == b"conv").expect("a name is there");
    bytes[at] ^= 0x01;
    assert!(without(&bytes).is_err(), "all else is");
}

/// The entry of the weights is what the library for it writes.
#[test]
fn weights_are_a_tensor_of_safetensors() {
    let (bytes, weights) = (bundle().to_bytes().expect("a bundle is written"), weights());
    let view = TensorView::new(Dtype::U8, vec![weights.len()], &weights).expect("a tensor");
    let entry = safetensors::serialize([("weights", view)], None).expect("it is written");
    assert!(bytes.windows(entry.len()).any(|window| window == entry));
}

#[test]
fn bundles_of_several_parts_round_trip() {
    let host = |code: Code| Part { inputs: Vec::new(), outputs: Vec::new(), code };
    let parts = vec![
        host(Code::Onnx(vec![8, 3])),
        machine_part(),
        host(Code::Ir("module {}".to_owned())),
        machine_part(),
    ];
    let bundle = Bundle { parts, ..bundle() };
    let bytes = bundle.to_bytes().expect("a bundle is written");
    assert_eq!(Bundle::from_bytes(&bytes).expect("a bundle is read").parts, bundle.parts);
    assert_eq!(bundle.machines().count(), 2);
}

/// Every single-byte damage of program and bundle is an error or another valid program; nothing panics.
#[test]
fn damage_at_every_byte_is_survived() {
    let target = target();
    let bytes = codec::encode(&program());
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(program) = codec::decode(&damaged) {
                let _ = verify(&program, &target);
            }
        }
        assert!(codec::decode(&bytes[..at]).is_err(), "a truncated program decodes");
    }
    let bytes = bundle().to_bytes().expect("a bundle is written");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        if let Ok(bundle) = Bundle::from_bytes(&damaged) {
            assert_eq!(bundle.parts, [machine_part()], "damage at {at} went unseen");
        }
        assert!(Bundle::from_bytes(&bytes[..at]).is_err(), "a truncated bundle is read");
    }
}
