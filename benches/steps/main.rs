//! What the steps of a compile and of an inference take, each by itself.
//!
//! | module | what it measures |
//! |---|---|
//! | [`kernels`] | single layers on the interpreter, on every level of vector instructions that the CPU has |
//! | [`interpreter`] | whole networks on the interpreter: preparing them, and inferences |
//! | [`compile`] | import, quantising, the planner, addresses, emission, and the timed run |
//!
//! What they run stands in [`network`] (networks of the zoo, at every level of the IR) and [`layer`] (a layer
//! as a function of TOSA). `cargo bench --workspace --bench steps` measures all of them in half a minute;
//! words after `--` choose some, and `--test` runs each once.
//!
//! These are times, for people who look into a step. What may not become slower unseen is counted in
//! instructions, which do not depend on the machine: `benches/instructions`.

mod compile;
mod interpreter;
mod kernels;
mod layer;
mod network;

use std::time::Duration;

/// What one benchmark takes at most, if a single run does not take longer.
const MOST: Duration = Duration::from_millis(500);

fn main() {
    divan::Divan::default().max_time(MOST).config_with_args().main();
}
