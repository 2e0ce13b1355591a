//! The verifier against a proof by exhaustion: on small random programs, valid and invalid ones, every order
//! of ready stages is run on a machine whose bytes remember what was written to them.
//!
//! [`model`] is a second, plain definition of the machine: when a stage may step, what a step reads and
//! writes, and what is wrong. It calls nothing of the crate but the structs of a program. A program that the
//! verifier accepts must be right in every order. One that it refuses must be wrong in some order, or break a
//! rule that is stricter than need be (`Rule::Overlap`, which is decided by lifetimes in whole phases), and
//! those are counted.
//!
//! `STRATA_PROGRAMS` sets how many programs are tried, `STRATA_SEED` the first seed.

mod generate;
mod model;

use std::collections::BTreeMap;

use strata_isa_spec::interp::{Executable, Rings, Simd};
use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Program, SegmentKind, Target, asm, interp};

use generate::random_program;
use model::{Verdict, explore};

/// Programs that a plain run of the test tries.
const PROGRAMS: u64 = 4_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// What came of the programs.
#[derive(Debug, Default)]
struct Count {
    /// Accepted, and right in every order.
    valid: u64,
    /// Refused, and wrong in some order.
    invalid: u64,
    /// Refused by a rule that is stricter than need be, by rule.
    strict: BTreeMap<String, u64>,
    /// With more orders than are looked at.
    skipped: u64,
    /// Accepted programs in which streams share bytes, a ring has several writers, a stream has a prefix.
    sharing: u64,
    joined: u64,
    prefixes: u64,
    /// States of all programs.
    states: u64,
}

/// Runs an accepted program on the interpreter, checked, in some random orders.
fn checked(program: &Program, target: &Target, seed: u64) -> Result<(), String> {
    let bytes = |kind: SegmentKind| program.segments.iter().filter(move |s| s.kind == kind).map(|s| s.bytes);
    let weights: Vec<u8> = bytes(SegmentKind::Weights).flat_map(|n| vec![3; n as usize]).collect();
    let inputs: Vec<Vec<u8>> =
        bytes(SegmentKind::Input).map(|n| (0..n).map(|i| (i * 37 % 251) as u8).collect()).collect();
    let plain = interp::run(program, target, &weights, &inputs).map_err(|e| e.to_string())?;
    // Programs this small are not shared out unless one asks for it.
    for (threads, rings) in [1, 2, 3].into_iter().flat_map(|n| [(n, Rings::AsWritten), (n, Rings::Larger)]) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
        let found = pool.install(|| {
            let executable = Executable::finely_divided(program, target, &weights, Simd::best(), rings)?;
            executable.run(&inputs, &mut |_| {})
        });
        if found.as_ref().map_err(ToString::to_string)? != &plain {
            return Err(format!("{threads} threads give other results, rings {rings:?}"));
        }
    }
    for order in 0..3 {
        let found = interp::run_checked(program, target, &weights, &inputs, seed ^ order, &mut |_| {});
        if found.as_ref().map_err(ToString::to_string)? != &plain {
            return Err(format!("order {order} gives other results"));
        }
    }
    Ok(())
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are what the named command reports")]
fn the_verifier_agrees_with_every_order() {
    let target =
        Target::preset("micro", &[("memory.activation".to_owned(), "16KiB".to_owned())]).expect("a preset");
    let (first, n) = (number("STRATA_SEED", 0), number("STRATA_PROGRAMS", PROGRAMS));
    let mut count = Count::default();
    for seed in first..first + n {
        let program = random_program(seed);
        let errors = verify(&program, &target);
        let exploration = explore(&program);
        count.states += exploration.states;
        let tell = |what: &str| {
            let errors: Vec<String> = errors.iter().map(|e| format!("{:?}: {e}", e.rule)).collect();
            format!("seed {seed}: {what}\nverifier: {errors:#?}\n{}", asm::disassemble(&program, &[]))
        };
        match (exploration.verdict, errors.is_empty()) {
            (Verdict::TooLarge, _) => count.skipped += 1,
            (Verdict::Wrong(what), true) => panic!("{}", tell(&format!("accepted, but {what}"))),
            (Verdict::Wrong(_), false) => count.invalid += 1,
            (Verdict::Right, false) => {
                let rules: Vec<Rule> = errors.iter().map(|e| e.rule).collect();
                assert!(rules.contains(&Rule::Overlap), "{}", tell("refused, but right in every order"));
                *count.strict.entry(format!("{:?}", rules[0])).or_default() += 1;
            }
            (Verdict::Right, true) => {
                count.valid += 1;
                count.sharing += u64::from(generate::shares_bytes(&program));
                count.joined += u64::from(generate::joins(&program));
                count.prefixes += u64::from(program.streams.iter().any(|s| s.prefix.is_some()));
                if let Err(what) = checked(&program, &target, seed) {
                    panic!("{}", tell(&format!("the checked run says: {what}")));
                }
            }
        }
    }
    println!("{n} programs from seed {first}: {count:?}");
    let enough = |part: u64, one_in: u64| part * one_in >= n;
    assert!(enough(count.valid, 5) && enough(count.invalid, 5), "{count:?}");
    assert!(
        enough(count.sharing, 200) && enough(count.joined, 50) && enough(count.prefixes, 200),
        "{count:?}"
    );
    assert!(!enough(count.skipped, 20), "{count:?}");
}
