//! Whole networks on the interpreter, with the fastest vector instructions of the CPU, on all its cores.

use divan::Bencher;
use strata::Session;
use strata::io::array::{Array, DType};

use crate::network::{MOBILENET_V2, Network, RESNET_50};

fn prepare(bencher: Bencher<'_, '_>, network: &Network) {
    bencher
        .with_inputs(|| network.bundle.clone())
        .bench_local_values(|bundle| Session::new(bundle).expect("the compiler made it"));
}

fn infer(bencher: Bencher<'_, '_>, network: &Network) {
    let session = Session::new(network.bundle.clone()).expect("the compiler made it");
    let inputs: Vec<(String, Array)> = session
        .inputs()
        .iter()
        .map(|port| {
            let n: usize = port.shape.iter().product();
            let values = (0..n).map(|index| f64::from((index as f64 * 0.618_034 % 1.0) as f32)).collect();
            (port.name.clone(), Array { shape: port.shape.clone(), dtype: DType::F32, values })
        })
        .collect();
    bencher.bench_local(|| session.run(&inputs, &mut |_| {}).expect("inputs are those of the bundle"));
}

#[divan::bench]
fn prepare_mobilenet_v2(bencher: Bencher<'_, '_>) {
    prepare(bencher, &MOBILENET_V2);
}

#[divan::bench]
fn prepare_resnet_50(bencher: Bencher<'_, '_>) {
    prepare(bencher, &RESNET_50);
}

#[divan::bench]
fn mobilenet_v2(bencher: Bencher<'_, '_>) {
    infer(bencher, &MOBILENET_V2);
}

#[divan::bench]
fn resnet_50(bencher: Bencher<'_, '_>) {
    infer(bencher, &RESNET_50);
}
