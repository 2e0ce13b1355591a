//! The whole way down: random networks through stages, plan and schedule to a program, which the machine's
//! verifier accepts and whose results are the evaluator's.

use strata_backend::emit::Lowered;
use strata_backend::select::erase::EraseWrappers;
use strata_backend::select::graph::TABLE_SET;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{RandomOptions, random_inputs, random_network};
use strata_ir::pass::{self, DriverOptions, Pass, PassContext, PipelineFailure, Registry};
use strata_ir::verify::verify as verify_module;
use strata_ir::{Module, Tensor};
use strata_isa_spec::{Head, Phase, Program, Target, interp, verify};

/// The passes of this crate and of the backend.
fn registry() -> Registry {
    Registry::new(crate::PASSES.iter().chain(strata_backend::PASSES).copied())
}

/// Runs a textual pipeline for a target.
pub(crate) fn run_passes(module: &mut Module, passes: &str, target: &Target) -> Result<(), PipelineFailure> {
    let pipeline = registry().parse(passes).expect("a pipeline");
    let mut context = PassContext::new();
    context.insert(target.clone());
    pass::run(module, &pipeline, &mut context, &DriverOptions::default(), &mut |_| {}).map(|_| ())
}

#[test]
fn what_passes_declare_is_well_formed() {
    assert_eq!(registry().faults(), Vec::<String>::new());
    let page = registry().markdown();
    for info in registry().passes() {
        assert!(page.contains(&format!("## `{}`", info.name)));
    }
}

fn bytes(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    tensors.iter().map(|tensor| tensor.data().to_bytes()).collect()
}

/// The network of a seed. Half are of i8 alone, a third mixed, and the rest of i16 alone.
fn network(seed: u64, max_extent: usize) -> Module {
    let n_layers = 3 + seed as usize % 8;
    let i16_percent = [0, 0, 30, 60, 0, 100][seed as usize % 6];
    random_network(seed, &RandomOptions { n_layers, i16_percent, max_extent, ..RandomOptions::default() })
}

/// What is wrong with a seed's program, if anything is.
fn fault(seed: u64, target: &Target, mode: &str) -> Option<String> {
    let mut module = network(seed, RandomOptions::default().max_extent);
    let func = module.function("main").expect("random networks have a @main");
    let inputs = random_inputs(&module, func, seed);
    difference(&mut module, &inputs, target, mode)
}

/// What is wrong with the program of an integer network, if anything is: it does not exist, is not valid, or
/// gives other results than the evaluator.
pub(crate) fn difference(
    module: &mut Module,
    inputs: &[Tensor],
    target: &Target,
    mode: &str,
) -> Option<String> {
    let func = module.function("main").expect("there is a @main");
    let expected = match eval_function(module, func, inputs.to_vec()) {
        Ok(results) => results,
        Err(error) => return Some(error.to_string()),
    };
    let passes =
        format!("form-stages,split-channels{{budget-bytes=3000}},fuse-layers{{mode={mode}}},schedule");
    if let Err(failure) = run_passes(module, &passes, target) {
        return Some(failure.to_string());
    }
    let Lowered { program, weights, .. } = match strata_backend::emit::lower(module) {
        Ok(lowered) => lowered,
        Err(error) => return Some(error.to_string()),
    };
    GROWN.with(|grown| grown.set(grown.get() + n_grown(&program)));
    let n_prefixes = program.streams.iter().filter(|stream| stream.prefix.is_some()).count();
    PREFIXES.with(|prefixes| prefixes.set(prefixes.get() + n_prefixes));
    AHEAD.with(|ahead| ahead.set(ahead.get() + n_ahead(&program)));
    GROWN_PREFIXES.with(|prefixes| prefixes.set(prefixes.get() + n_grown_prefixes(&program)));
    let errors = verify::verify(&program, target);
    if !errors.is_empty() {
        return Some(errors.iter().map(|e| format!("\n    {e}")).collect());
    }
    let inputs = bytes(inputs);
    let plain = interp::run(&program, target, &weights, &inputs);
    let checked = interp::run_checked(&program, target, &weights, &inputs, 1, &mut |_| {});
    match plain.and_then(|plain| Ok((plain, checked?))) {
        Ok((plain, checked)) => {
            let expected = bytes(&expected);
            (plain != expected || checked != expected).then(|| "the results differ".to_owned())
        }
        Err(error) => Some(error.to_string()),
    }
}

thread_local! {
    /// Streams that grow into others, of all programs of a test.
    static GROWN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// Streams that have prefixes, likewise.
    static PREFIXES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// Loads of first rows for the next phase, likewise.
    static AHEAD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// Prefixes that grow into other streams, likewise.
    static GROWN_PREFIXES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Loads of a program into streams that are prefixes of others.
fn n_ahead(program: &Program) -> usize {
    let prefixes: Vec<u32> = program.streams.iter().filter_map(|s| Some(s.prefix?.stream)).collect();
    let stages = program.phases.iter().flat_map(|phase| &phase.stages);
    let loads = stages.filter(|stage| matches!(stage.code.head, Head::DmaIn(_)));
    loads.filter(|stage| prefixes.contains(&stage.code.out.tensor)).count()
}

/// Prefixes of a program that share bytes with a stream that is read as they are written.
fn n_grown_prefixes(program: &Program) -> usize {
    let range = |stream: u32| {
        let s = &program.streams[stream as usize];
        u64::from(s.base)..u64::from(s.base) + s.size_bytes()
    };
    let grown = |phase: &Phase| {
        let written = phase.stages.iter().map(|stage| stage.code.out).filter(|out| out.rows > 0);
        let prefixes: std::collections::BTreeSet<u32> =
            written.flat_map(|out| program.chain(out.tensor).skip(1)).collect();
        let read: Vec<u32> = phase.stages.iter().flat_map(|s| s.code.reads()).map(|v| v.tensor).collect();
        let shares =
            |a: u32, b: u32| range(a).start < range(b).end && range(b).start < range(a).end && a != b;
        prefixes.into_iter().filter(|&prefix| read.iter().any(|&other| shares(prefix, other))).count()
    };
    program.phases.iter().map(grown).sum()
}

/// Pairs of streams of a program that share bytes in a phase.
fn n_grown(program: &Program) -> usize {
    let shared = |phase: &Phase| {
        let views = phase.stages.iter().flat_map(|s| s.code.reads().into_iter().chain([s.code.out]));
        let mut streams: Vec<u32> = views.filter(|v| v.rows > 0).map(|v| v.tensor).collect();
        streams.sort_unstable();
        streams.dedup();
        let range = |stream: u32| {
            let s = &program.streams[stream as usize];
            u64::from(s.base)..u64::from(s.base) + s.size_bytes()
        };
        let pairs =
            streams.iter().flat_map(|a| streams.iter().filter(move |b| a < *b).map(move |b| (*a, *b)));
        pairs.filter(|&(a, b)| range(a).start < range(b).end && range(b).start < range(a).end).count()
    };
    program.phases.iter().map(shared).sum()
}

fn hold(preset: &str, overrides: &[(String, String)], mode: &str, seeds: std::ops::Range<u64>) {
    let target = Target::preset(preset, overrides).expect("a preset");
    let faults: Vec<String> =
        seeds.filter_map(|seed| Some(format!("seed {seed}: {}", fault(seed, &target, mode)?))).collect();
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// Memories so small that rows of a dozen columns do not fit: much runs in strips, with halos recomputed and
/// kept, and the results are the evaluator's. Networks with a stage that fits in no way are left out, and are
/// few.
#[test]
fn strips_compute_what_the_evaluator_does() {
    for (activation, weight, mode, least) in
        [("1KiB", "12KiB", "multi", 150), ("2KiB", "12KiB", "multi", 50), ("1KiB", "12KiB", "single", 20)]
    {
        let overrides = [("memory.activation", activation), ("memory.weight", weight)];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let target = Target::preset("micro", &overrides).expect("a preset");
        let (mut n_strips, mut n_unfit, mut faults) = (0, 0, Vec::new());
        for seed in 200..260 {
            let mut module = network(seed, 24);
            let func = module.function("main").expect("random networks have a @main");
            let inputs = random_inputs(&module, func, seed);
            match difference(&mut module, &inputs, &target, mode) {
                Some(fault) if fault.contains("do not fit the target") => n_unfit += 1,
                Some(fault) => faults.push(format!("seed {seed}: {fault}")),
                None => {}
            }
            let ops = module.walk(module.entry_block(func));
            // What strips make of the ops is still TOSA, and the same function.
            if let Err(error) = verify_module(&module) {
                faults.push(format!("seed {seed}: {error}"));
            }
            let mut plain = module.clone();
            EraseWrappers.run(&mut plain, &mut PassContext::new()).expect("any level can be erased");
            let results = |module: &Module| eval_function(module, func, inputs.clone()).expect("it is valid");
            let original = results(&network(seed, 24));
            if results(&module) != original || results(&plain) != original {
                faults.push(format!("seed {seed}: the module computes something else"));
            }
            n_strips += ops.iter().filter(|&&op| module.op(op).extra.contains_key(TABLE_SET)).count();
        }
        assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
        assert!(n_unfit < 30, "{n_unfit} networks do not fit");
        assert!(n_strips >= least, "{n_strips} stages of strips in {activation}");
    }
}

#[test]
fn small_memories_spill_and_still_compute_the_same() {
    let small = |activation: &str| {
        [
            ("memory.activation".to_owned(), activation.to_owned()),
            ("memory.weight".to_owned(), "12KiB".to_owned()),
        ]
    };
    for activation in ["4KiB", "5KiB", "6KiB", "8KiB"] {
        hold("micro", &small(activation), "multi", 100..115);
    }
    hold("micro", &small("12KiB"), "multi", 160..170);
    hold("micro", &small("4KiB"), "single", 100..120);
    let grown = GROWN.with(std::cell::Cell::get);
    assert!(grown > 5, "tensors share bytes in {grown} phases only");
}

/// Tensors of more rows, of which some stay where the others do not, or are loaded ahead.
#[test]
fn prefixes_stay_and_still_compute_the_same() {
    for activation in ["5KiB", "8KiB", "12KiB"] {
        let overrides = [("memory.activation", activation), ("memory.weight", "12KiB")];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let target = Target::preset("micro", &overrides).expect("a preset");
        for seed in 300..312 {
            let mut module = network(seed, 32);
            let func = module.function("main").expect("random networks have a @main");
            let inputs = random_inputs(&module, func, seed);
            let fault = difference(&mut module, &inputs, &target, "multi");
            let fault = fault.filter(|fault| !fault.contains("do not fit the target"));
            assert_eq!(fault, None, "seed {seed}");
        }
    }
    let prefixes = PREFIXES.with(std::cell::Cell::get);
    assert!(prefixes > 5, "first rows of {prefixes} tensors stay only");
    let ahead = AHEAD.with(std::cell::Cell::get);
    assert!(ahead > 5, "first rows are loaded ahead {ahead} times only");
}

/// Plans of least traffic: convolutions run directly where their rows are dear, and first rows stay of
/// tensors that grew into others.
#[test]
fn plans_of_least_traffic_compute_the_same() {
    for activation in ["3KiB"] {
        let overrides = [("memory.activation", activation), ("memory.weight", "6KiB")];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let target = Target::preset("micro", &overrides).expect("a preset");
        for seed in 0..100 {
            let options = RandomOptions { n_layers: 16, max_extent: 32, ..RandomOptions::default() };
            let mut module = random_network(seed, &options);
            let func = module.function("main").expect("random networks have a @main");
            let inputs = random_inputs(&module, func, seed);
            let fault = difference(&mut module, &inputs, &target, "multi,objective=traffic");
            let fault = fault.filter(|fault| !fault.contains("do not fit the target"));
            assert_eq!(fault, None, "seed {seed}");
        }
    }
    let grown = GROWN_PREFIXES.with(std::cell::Cell::get);
    assert!(grown > 0, "first rows of no tensor that grew stay");
}
