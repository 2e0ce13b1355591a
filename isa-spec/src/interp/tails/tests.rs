//! Tails against definitions written anew from TOSA's text, in integers that cannot overflow, on every level
//! of vector instructions that the CPU has.

use super::*;
use crate::inst::{BinaryConst, Clamp, Elem, Table, View, WeightAddr};
use crate::interp::definitions::defined_rescale;
use crate::interp::prepared::Prepared;
use crate::interp::sram::WeightSram;
use crate::program::{Program, StageCode, Stream};

/// A stage with one tail, whose tables stand in weight SRAM; it has one row.
struct Bench {
    program: Program,
    code: StageCode,
    weights: Vec<u8>,
}

impl Bench {
    fn new(tail: impl Into<Tail>, cols: u32, chs: u32, weights: Vec<u8>) -> Self {
        let out = View { tensor: 0, row0: 0, rows: 1, col0: 0, cols, ch0: 0, chs };
        let elem = Elem::I32;
        let stream = Stream { elem, rows: 1, cols, chs, base: 0, pitch_bytes: 0, slots: 1, prefix: None };
        let head = crate::inst::Load { src: out }.into();
        let program = Program { streams: vec![stream], ..Program::default() };
        Self { program, code: StageCode { head, tail: vec![tail.into()], out }, weights }
    }

    /// What the tail makes of values, `[columns][channels]`, at each level: of whole pixels, and of some
    /// channels only.
    fn check(&self, values: &[i32], expected: &[i32]) {
        let chs = self.code.out.chs as usize;
        for simd in Simd::available() {
            let sram = Sram { program: &self.program, activation: &[], shadow: None, simd };
            let prepared = Prepared::new(&self.code, &self.program.streams, WeightSram(&self.weights), simd);
            let (tail, tables) = (&self.code.tail[0], &prepared.tails[0]);
            for part in [0..chs, chs / 3..chs, 0..chs.div_ceil(2)] {
                let of_part = |all: &[i32]| -> Vec<i32> {
                    all.chunks_exact(chs).flat_map(|pixel| pixel[part.clone()].iter().copied()).collect()
                };
                let (mut got, want) = (of_part(values), of_part(expected));
                let place = Place { row: 0, cols: 0..values.len() / chs, chs: part.clone() };
                apply(tail, tables, &sram, &place, &mut Vec::new(), &mut got);
                if let Some(at) = (0..got.len()).find(|&at| got[at] != want[at]) {
                    let (got, want, from) = (got[at], want[at], of_part(values)[at]);
                    panic!("{}: {tail:?} makes {got} of {from}, not {want}", simd.level());
                }
            }
        }
    }
}

/// The bytes of tables, one after another, and where each begins.
fn laid_out<const N: usize>(tables: [Vec<u8>; N]) -> (Vec<u8>, [WeightAddr; N]) {
    let mut bytes = Vec::new();
    let places = tables.map(|table| {
        let at = WeightAddr(bytes.len() as u32);
        bytes.extend(table);
        at
    });
    (bytes, places)
}

/// Random numbers of 32 bits.
fn noise(seed: u64) -> impl FnMut() -> i32 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as i32
    }
}

/// A rescale of some values by some scales, one a channel.
fn check_rescale(values: &[i32], scales: &[(i32, u8)], rule: &Rescale) {
    let multipliers = scales.iter().flat_map(|scale| scale.0.to_le_bytes()).collect();
    let (weights, [multipliers, shifts]) =
        laid_out([multipliers, scales.iter().map(|scale| scale.1).collect()]);
    let per_channel = scales.len() > 1;
    let t = Rescale { multipliers, shifts, per_channel, ..*rule };
    let chs = scales.len();
    // Every value meets every scale.
    let inputs: Vec<i32> = values.iter().flat_map(|&v| std::iter::repeat_n(v, chs)).collect();
    let pairs = inputs.iter().zip(scales.iter().cycle());
    let expected: Vec<i32> = pairs.map(|(&v, &(m, s))| defined_rescale(v, &t, m, s)).collect();
    Bench::new(t, values.len() as u32, chs as u32, weights).check(&inputs, &expected);
}

/// The types that a rescale makes, with zero points that they may have.
const TARGETS: [(Elem, i32); 8] = [
    (Elem::I8, 0),
    (Elem::I8, -128),
    (Elem::I8, 127),
    (Elem::I8, 13),
    (Elem::I16, 0),
    (Elem::I16, 32767),
    (Elem::I16, -32768),
    (Elem::I32, 0),
];

fn rule(input_zp: i32, (to, output_zp): (Elem, i32), double_round: bool) -> Rescale {
    let none = WeightAddr(0);
    Rescale { multipliers: none, shifts: none, per_channel: true, input_zp, output_zp, to, double_round }
}

/// Multipliers at the ends and in the middle of what they may be, each with every shift.
fn all_scales() -> Vec<(i32, u8)> {
    let multipliers = [0, 1, 2, 3, 1 << 14, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 1_518_500_249, i32::MAX];
    multipliers.iter().flat_map(|&m| (2..=62).map(move |s| (m, s))).collect()
}

#[test]
fn rescales_of_all_bytes_are_tosas() {
    let bytes: Vec<i32> = (-128..=127).collect();
    for double in [false, true] {
        for target in TARGETS {
            for input_zp in [0, -128, 127, -7] {
                check_rescale(&bytes, &all_scales(), &rule(input_zp, target, double));
            }
        }
    }
}

#[test]
fn rescales_round_as_tosa_does_at_every_tie() {
    let mut next = noise(7);
    for double in [false, true] {
        for target in TARGETS {
            // For an odd multiplier and a shift, the values whose products are a half step off a whole
            // result, and their neighbours.
            for shift in 2..=62u32 {
                let multipliers: Vec<i32> = (0..6).map(|_| (next() & i32::MAX) | 1).collect();
                for multiplier in multipliers {
                    let inverse = inverse_of(multiplier as u64);
                    let half = 1u64 << (shift - 1);
                    // Lowest bits of a value for which the product ends in the half; more bits come at
                    // random.
                    let ends = half.wrapping_mul(inverse) as u32;
                    let around = [-2i32, -1, 0, 1, 2].map(|d| (ends as i32).wrapping_add(d));
                    let high = (1u64 << shift.min(31)) as i32;
                    let more = around.map(|v| v.wrapping_add(next().wrapping_mul(high)));
                    let values: Vec<i32> = around.into_iter().chain(more).collect();
                    check_rescale(&values, &[(multiplier, shift as u8)], &rule(0, target, double));
                }
            }
            // A multiplier of a power of two: ties are as common as can be.
            let few: Vec<i32> = (-70..=70).collect();
            let scales = [(1 << 30, 31), (1 << 30, 32), (1 << 30, 36), (1, 2), (1, 7)];
            check_rescale(&few, &scales, &rule(0, target, double));
        }
    }
}

/// The inverse of an odd number modulo 2^64.
fn inverse_of(odd: u64) -> u64 {
    (0..6).fold(odd, |inverse, _| inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse))))
}

#[test]
fn rescales_of_extreme_and_random_sums_are_tosas() {
    let mut next = noise(3);
    let extremes = [i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX, 1 << 24, -(1 << 24), 1 << 15];
    for double in [false, true] {
        for target in TARGETS {
            let random: Vec<i32> = (0..40).map(|_| next() >> (next() & 31)).collect();
            let values: Vec<i32> = extremes.into_iter().chain(random).collect();
            check_rescale(&values, &all_scales(), &rule(0, target, double));
            // Zero points that take a sum beyond 32 bits; the machine has none with sums, the arithmetic
            // does.
            check_rescale(&values, &all_scales(), &rule(-128, target, double));
            check_rescale(&values, &[(1 << 30, 40)], &rule(127, target, double));
        }
    }
}

#[test]
fn tables_and_clamps_of_all_bytes_are_exact() {
    let bytes: Vec<i32> = (-128..=127).collect();
    let mut next = noise(11);
    let entries: Vec<u8> = (0..256).map(|_| next() as u8).collect();
    // TOSA: the value of an `i8`, plus 128, is the index.
    let expected: Vec<i32> = (0..256).map(|at| i32::from(entries[at] as i8)).collect();
    Bench::new(Table { table: WeightAddr(0) }, 256, 1, entries).check(&bytes, &expected);
    for (min, max) in [(-128, 127), (0, 0), (-5, 90), (127, 127), (i32::MIN, i32::MAX)] {
        let expected: Vec<i32> = bytes
            .iter()
            .map(|&v| {
                if v < min {
                    min
                } else if v > max {
                    max
                } else {
                    v
                }
            })
            .collect();
        Bench::new(Clamp { min, max }, 256, 1, Vec::new()).check(&bytes, &expected);
    }
}

#[test]
fn products_with_constants_round_as_tosa_does() {
    // TOSA, MUL: `(a * b + (1 << (shift - 1))) >> shift`, in 64 bits.
    let mut next = noise(5);
    let constants: Vec<i32> = (0..37).map(|_| next() >> 8).chain([-1, 0, 1]).collect();
    let values: Vec<i32> = (0..constants.len() * 9).map(|_| next() >> 9).collect();
    let table: Vec<u8> = constants.iter().flat_map(|v| v.to_le_bytes()).collect();
    for shift in [0u8, 1, 2, 7, 20, 31] {
        let pairs = values.iter().zip(constants.iter().cycle());
        let expected: Vec<i32> = pairs
            .map(|(&a, &b)| {
                let product = i128::from(a) * i128::from(b);
                let round = if shift == 0 { 0 } else { 1i128 << (shift - 1) };
                (product + round).div_euclid(1i128 << shift) as i32
            })
            .collect();
        let (elem, kind) = (Elem::I32, BinaryKind::Mul);
        let tail = BinaryConst { kind, table: WeightAddr(0), per_channel: true, elem, shift };
        Bench::new(tail, 9, constants.len() as u32, table.clone()).check(&values, &expected);
    }
}
