//! The steps of a compile, each from what the step before it left of MobileNetV2.
//!
//! A pass is run by the driver that runs it in every compile, which verifies the module after it.

use std::sync::Arc;

use divan::Bencher;
use strata_backend::allocate::{AllocationProblem, Buffer, Limits, minimise};
use strata_backend::emit;
use strata_frontend::import::{ImportOptions, import};
use strata_ir::Module;
use strata_ir::eval::random::random_inputs;
use strata_ir::pass::{self, DriverOptions, Level, PassContext};
use strata_isa_spec::program::Program;
use strata_isa_spec::timed;
use strata_isa_spec::verify::verify;
use strata_passes::quantise::Calibration;

use crate::network::{MOBILENET_V2, Network};

/// Runs passes on the network at a level.
fn passes(bencher: Bencher<'_, '_>, text: &str, level: Level) {
    let network: &Network = &MOBILENET_V2;
    let pipeline = strata::registry().parse(text).expect("these are passes");
    let calibration = (level == Level::Import).then(|| calibrated(network.at(level)));
    let given = || {
        let mut context = PassContext::new();
        context.insert(network.target.clone());
        if let Some(calibration) = &calibration {
            context.insert(calibration.clone());
        }
        (network.at(level).clone(), context)
    };
    bencher.with_inputs(given).bench_local_values(|(mut module, mut context)| {
        pass::run(&mut module, &pipeline, &mut context, &DriverOptions::default(), &mut |_| {})
            .expect("the compile ran them too");
        module
    });
}

/// What the values of the network hold on one input.
fn calibrated(module: &Module) -> Calibration {
    let func = module.function("main").expect("an import has a @main");
    let sample = random_inputs(module, func, 0).into_iter().map(Arc::new).collect();
    Calibration::collect(module, &[sample]).expect("the sample is the function's")
}

/// The program of the network.
fn program() -> &'static Program {
    &MOBILENET_V2.bundle.machines().next().expect("the machine runs it").program
}

#[divan::bench]
fn import_onnx(bencher: Bencher<'_, '_>) {
    let onnx = &MOBILENET_V2.onnx;
    let options = ImportOptions::default();
    bencher.bench_local(|| import(onnx, &options).expect("the compile imported it too"));
}

#[divan::bench]
fn canonicalise_import(bencher: Bencher<'_, '_>) {
    passes(bencher, "canonicalise", Level::Import);
}

#[divan::bench]
fn calibrate(bencher: Bencher<'_, '_>) {
    let module = MOBILENET_V2.at(Level::Import);
    bencher.bench_local(|| calibrated(module));
}

#[divan::bench]
fn quantise(bencher: Bencher<'_, '_>) {
    passes(bencher, "quantise", Level::Import);
}

#[divan::bench]
fn rewrite_tosa(bencher: Bencher<'_, '_>) {
    passes(bencher, "rewrite-tosa", Level::Quant);
}

#[divan::bench]
fn form_stages(bencher: Bencher<'_, '_>) {
    passes(bencher, "form-stages,split-channels", Level::Quant);
}

#[divan::bench]
fn fuse_layers(bencher: Bencher<'_, '_>) {
    passes(bencher, "fuse-layers", Level::Stages);
}

#[divan::bench]
fn fuse_single_layers(bencher: Bencher<'_, '_>) {
    passes(bencher, "fuse-layers{mode=single}", Level::Stages);
}

#[divan::bench]
fn schedule(bencher: Bencher<'_, '_>) {
    passes(bencher, "schedule", Level::Phases);
}

/// Addresses of a hundred buffers, in as few bytes as are found.
#[divan::bench]
fn allocate(bencher: Bencher<'_, '_>) {
    let mut state = 1_u32;
    let mut drawn = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let buffer = |id| {
        let lower = i64::from(drawn(100));
        let upper = lower + 1 + i64::from(drawn(12));
        let size = 64 * u64::from(1 + drawn(64));
        Buffer { id, lower, upper, size, alignment: 64, fixed: None }
    };
    let problem = AllocationProblem { buffers: (0..100).map(buffer).collect(), capacity: u64::MAX };
    bencher.bench_local(|| minimise(&problem, &Limits::default()).expect("the problem is well formed"));
}

#[divan::bench]
fn emit_program(bencher: Bencher<'_, '_>) {
    let module = MOBILENET_V2.at(Level::Sched);
    bencher.bench_local(|| emit::lower(module).expect("the compile emitted it too"));
}

#[divan::bench]
fn verify_program(bencher: Bencher<'_, '_>) {
    let program = program();
    bencher.bench_local(|| verify(program, &MOBILENET_V2.target));
}

#[divan::bench]
fn simulate(bencher: Bencher<'_, '_>) {
    let program = program();
    bencher.bench_local(|| timed::simulate(program, &MOBILENET_V2.target));
}
