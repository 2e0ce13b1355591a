use super::*;
use crate::inst::{Elem, WeightAddr};
use crate::interp::definitions::defined_rescale;
use crate::interp::order::Random;
use crate::interp::simd::Simd;

laned! {
    fn rescale<V>(
        simd; scales: &LaneScales, limits: Limits, values: &[[i32; LANES]], to: &mut Vec<Rescaled>,
    ) {
        for (index, values) in values.iter().enumerate() {
            let mut rescaled = Rescaled { numbers: [0; LANES], held: [0; LANES], bytes: [0; LANES] };
            // SAFETY: the CPU has the instructions of the type.
            unsafe {
                let scaled = V::load(values).scaled(V::scale(scales.of(index)));
                scaled.store(&mut rescaled.numbers);
                scaled.held(limits).store(&mut rescaled.held);
                rescaled.bytes = scaled.to_bytes();
            }
            to.push(rescaled);
        }
    }
}

/// What a vector is rescaled to.
#[derive(Debug)]
struct Rescaled {
    numbers: [i32; LANES],
    /// Within limits.
    held: [i32; LANES],
    bytes: [u8; LANES],
}

fn rule(input_zp: i32, output_zp: i32, to: Elem) -> crate::inst::Rescale {
    let none = WeightAddr(0);
    let (per_channel, double_round) = (true, false);
    crate::inst::Rescale {
        multipliers: none,
        shifts: none,
        per_channel,
        input_zp,
        output_zp,
        to,
        double_round,
    }
}

/// Rescales values, one a lane, on every level that the CPU has, if they may be.
fn check(lanes: &[Rescale], values: &[i32], output_zp: i32) -> bool {
    let differences = values.iter().zip(lanes).map(|(&v, lane)| i64::from(v) - i64::from(lane.zero_point));
    let greatest = differences.map(i64::abs).max().unwrap_or(0);
    let Some(scales) = LaneScales::new(lanes, greatest, output_zp) else { return false };
    let limits = Limits { least: -32768, most: 32767 };
    for simd in Simd::available() {
        let mut got = Vec::new();
        rescale(simd, &scales, limits, values.as_chunks().0, &mut got);
        for (index, (&value, lane)) in values.iter().zip(lanes).enumerate() {
            let got = &got[index / LANES];
            let defined = |to| {
                defined_rescale(value, &rule(lane.zero_point, output_zp, to), lane.multiplier, lane.shift)
            };
            let at = index % LANES;
            let got = [got.numbers[at], got.held[at], i32::from(got.bytes[at] as i8)];
            let defined = [Elem::I32, Elem::I16, Elem::I8].map(defined);
            assert_eq!(got, defined, "{}: {value} by {lane:?}, plus {output_zp}", simd.level());
        }
    }
    true
}

/// The greatest difference that a scale may be applied to, on both sides, and numbers between.
#[test]
fn scales_are_tosas_up_to_the_greatest_number() {
    let multipliers = [0, 1, 3, 1 << 14, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 1_518_500_249, i32::MAX];
    let mut random = Random::new(1);
    let mut checked = 0;
    for shift in 2..=62u8 {
        let greatest = (1i64 << shift.min(31)) - 1;
        for zero_point in [0, -128, 127, 70_000, -2_000_000_000, i32::MAX] {
            for output_zp in [0, -128, 127] {
                let mut lanes = Vec::new();
                let mut values = Vec::new();
                for multiplier in multipliers {
                    for part in [1i64, -1, 2, -2, 3, 1000, 0] {
                        let difference = if part == 0 { 0 } else { greatest / part };
                        let random = random.next() as i64 % (greatest + 1);
                        for difference in [difference, random] {
                            // Sums are of 32 bits before what is taken off them, too.
                            if let Ok(value) = i32::try_from(i64::from(zero_point) + difference) {
                                lanes.push(Rescale { multiplier, shift, zero_point });
                                values.push(value);
                            }
                        }
                    }
                }
                let whole = values.len() / LANES * LANES;
                if check(&lanes[..whole], &values[..whole], output_zp) {
                    checked += 1;
                }
                // Without the greatest multipliers, whose results may not fit 32 bits with a zero point.
                let small: Vec<usize> = (0..whole).filter(|&at| lanes[at].multiplier < 1 << 30).collect();
                let small = &small[..small.len() / LANES * LANES];
                let (lanes, values): (Vec<_>, Vec<_>) =
                    small.iter().map(|&at| (lanes[at], values[at])).unzip();
                assert!(
                    check(&lanes, &values, output_zp),
                    "shift {shift}, zero points {zero_point}, {output_zp}"
                );
            }
        }
    }
    assert!(checked > 100, "{checked} of all scales were within 32 bits");
}

/// A half step between two results, and its neighbours, for random scales.
#[test]
fn ties_round_as_tosa_does() {
    let mut random = Random::new(2);
    for shift in 2..=62u32 {
        for round in 0..40 {
            let multiplier = (random.next() as i32 & i32::MAX) | 1;
            // The lowest bits of a value whose product ends in the half.
            let inverse = (0..6).fold(multiplier as u64, |inverse, _| {
                inverse.wrapping_mul(2u64.wrapping_sub((multiplier as u64).wrapping_mul(inverse)))
            });
            let ends = (1u64 << (shift - 1)).wrapping_mul(inverse) as i32;
            let most = ((1u64 << shift.min(31)) - 1) as i32;
            let positive = ends & most;
            let tie = if round % 2 == 0 { positive } else { positive.wrapping_sub(most).wrapping_sub(1) };
            let values: [i32; LANES] =
                std::array::from_fn(|lane| tie.saturating_add(lane as i32 - 8).clamp(-most, most));
            let lane = Rescale { multiplier, shift: shift as u8, zero_point: 0 };
            assert!(check(&[lane; LANES], &values, 0), "shift {shift}");
        }
    }
}

#[test]
fn scales_that_32_bits_do_not_hold_are_refused() {
    let scale = |multiplier, shift, greatest| {
        LaneScales::new(&[Rescale { multiplier, shift, zero_point: 0 }], greatest, 0).is_some()
    };
    assert!(scale(i32::MAX, 8, 255));
    assert!(!scale(i32::MAX, 8, 256), "a result of 33 bits");
    assert!(!scale(-1, 30, 1), "a negative multiplier");
    assert!(!scale(1 << 30, 1, 0) && !scale(1 << 30, 63, 0), "shifts are 2 to 62");
    assert!(!scale(1 << 30, 40, 1 << 31), "sums that may wrap");
    let with_zero_point = |zero_point| {
        LaneScales::new(&[Rescale { multiplier: i32::MAX, shift: 8, zero_point: 0 }], 255, zero_point)
            .is_some()
    };
    assert!(with_zero_point(127) && !with_zero_point(i32::MAX), "zero points count too");
}

/// A lane may be of any channel: no scale is taken for its neighbour's.
#[test]
fn every_lane_has_its_own_scale() {
    let lanes: Vec<Rescale> = (0..3 * LANES as i32)
        .map(|lane| Rescale {
            multiplier: 1000 + 77 * lane,
            shift: 8 + lane as u8 % 13,
            zero_point: lane - 20,
        })
        .collect();
    let values: Vec<i32> = (0..3 * LANES as i32).map(|lane| lane * 5 - 100).collect();
    assert!(check(&lanes, &values, -3));
}
