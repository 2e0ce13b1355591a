//! What the array and the DMA queues spend an inference on, as a table and as bars.

use strata_isa_spec::timed::{DmaTime, TimeUse};

use super::tables::{percent, row, show, table};
use crate::stats::SimulatedStats;

/// The queues of the DMA engine, with what they are called.
pub(super) fn queues(dma: &DmaTime) -> [(&'static str, &TimeUse); 3] {
    [("DMA loads", &dma.load), ("DMA stores", &dma.store), ("DMA weights", &dma.weights)]
}

/// The array and the queues, in shares of the time of an inference.
pub(super) fn show_times(simulated: &SimulatedStats) -> String {
    let header = [
        "time",
        "busy",
        "switching",
        "on input",
        "on output",
        "on weights",
        "its turn",
        "configuring",
        "idle",
    ];
    let mut lines = table(&header);
    let array = [("array, by clusters", &simulated.array)];
    for (what, time) in array.into_iter().chain(queues(&simulated.dma)) {
        let all = time.total().max(1) as f64;
        let spent = [
            time.busy,
            time.switching,
            time.stalled_input,
            time.stalled_output,
            time.stalled_weights,
            time.waiting_turn,
            time.configuring,
            time.idle,
        ];
        let shares = spent.map(|cycles| percent(cycles as f64 / all));
        row(&mut lines, &[&[what.to_owned()], shares.as_slice()].concat());
    }
    show(&lines)
}

/// The parts of a bar: the class of each, and its share in percent. What is left is idle.
pub(super) fn parts(time: &TimeUse) -> [(&'static str, f64); 5] {
    let share = |cycles: u64| 100.0 * cycles as f64 / time.total().max(1) as f64;
    [
        ("busy", share(time.busy)),
        ("input", share(time.stalled_input)),
        ("output", share(time.stalled_output)),
        ("weights", share(time.stalled_weights)),
        ("turn", share(time.waiting_turn + time.switching + time.configuring)),
    ]
}
