//! Single layers on the interpreter: what a head, its tails and the moves of their rows take.
//!
//! All are of 8 bits; the sizes are those of layers in the middle of networks for pictures.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use strata_isa_spec::interp::{Executable, Level, Simd};

use crate::layer::{self, LayerProgram, Window};

/// All that the CPU has, the slowest first.
fn levels() -> Vec<Level> {
    Simd::available().map(Simd::level).collect()
}

/// Inferences of a layer; prepared once, as a session is. Shows multiply-accumulates a second, or of layers
/// that have none bytes that they read.
fn measure(bencher: Bencher<'_, '_>, layer: &LayerProgram, level: Level) {
    let LayerProgram { lowered, target, inputs } = layer;
    let simd = Simd::new(level).expect("only what the CPU has is measured");
    let executable =
        Executable::new(&lowered.program, target, &lowered.weights, simd).expect("the compiler made it");
    let infer = || executable.run(inputs, &mut |_| {}).expect("inputs are of the program's sizes");
    match layer.macs() {
        0 => bencher.counter(BytesCount::new(layer.input_bytes())).bench_local(infer),
        macs => bencher.counter(ItemsCount::new(macs)).bench_local(infer),
    }
}

#[divan::bench(args = levels())]
fn conv_3x3(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::conv([28, 28, 64], Window { kernel: 3, stride: 1 }, 64), level);
}

#[divan::bench(args = levels())]
fn conv_3x3_stride_2(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::conv([56, 56, 64], Window { kernel: 3, stride: 2 }, 64), level);
}

#[divan::bench(args = levels())]
fn conv_3x3_of_picture(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::conv([96, 96, 3], Window { kernel: 3, stride: 2 }, 32), level);
}

#[divan::bench(args = levels())]
fn conv_1x1(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::conv([28, 28, 128], Window { kernel: 1, stride: 1 }, 128), level);
}

#[divan::bench(args = levels())]
fn matrix_vector(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::conv([1, 1, 1024], Window { kernel: 1, stride: 1 }, 256), level);
}

#[divan::bench(args = levels())]
fn depthwise_3x3(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::depthwise([56, 56, 96], Window { kernel: 3, stride: 1 }), level);
}

#[divan::bench(args = levels())]
fn depthwise_3x3_stride_2(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::depthwise([56, 56, 96], Window { kernel: 3, stride: 2 }), level);
}

#[divan::bench(args = levels())]
fn transposed_2x2(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::transposed([28, 28, 64], 2, 32), level);
}

#[divan::bench(args = levels())]
fn max_pool_2x2(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::max_pool([56, 56, 64], Window { kernel: 2, stride: 2 }), level);
}

#[divan::bench(args = levels())]
fn residual_add(bencher: Bencher<'_, '_>, level: Level) {
    measure(bencher, &layer::add([56, 56, 64]), level);
}
