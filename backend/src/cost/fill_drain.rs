//! The edges of a phase: what it waits for before its first step and after its last one.
//!
//! While a phase is under way, rows are loaded and stored beside the stages' work. At its begin the first
//! stages wait for as many rows as a first step reads, and at its end the rows of the last step are still to
//! be stored. Neither overlaps with anything, so they add to the time of the
//! [`pipeline`](crate::cost::pipeline). Transfers share one channel: edges of several buffers add up. Where
//! first rows come in the phase before (`fuse/refine/prefetch.rs` of the passes), the chooser leaves out the
//! begin.

use strata_isa_spec::Target;

use crate::cost::{PipelineTime, Running};
use crate::model::BufferId;

/// Cycles by which loading a buffer, `row_cycles` a row, delays the stages that read it.
pub fn fill_cycles(
    target: &Target,
    stages: &[Running<'_>],
    time: &PipelineTime,
    buffer: BufferId,
    row_cycles: u64,
) -> u64 {
    if row_cycles == 0 {
        return 0;
    }
    let waits = stages.iter().zip(&time.starts).flat_map(|(stage, &start)| {
        let reads = stage.actor.edges().filter(|edge| edge.view.tensor == buffer);
        reads.map(move |edge| {
            let rows = u64::from(edge.first_end.saturating_sub(edge.view.row0));
            (rows * row_cycles + u64::from(target.dram.latency_cycles)).saturating_sub(start)
        })
    });
    waits.max().unwrap_or(0)
}

/// Cycles from the end of the last stage to that of the last row that is stored of a buffer, `row_cycles` a
/// row.
pub fn drain_cycles(stages: &[Running<'_>], time: &PipelineTime, buffer: BufferId, row_cycles: u64) -> u64 {
    let waits = stages.iter().zip(&time.ends).map(|(stage, &end)| {
        let actor = stage.actor;
        if actor.out().is_none_or(|out| out.tensor != buffer) {
            return 0;
        }
        let before = u64::from(actor.n_steps().saturating_sub(1)) * u64::from(actor.rows_per_step());
        let rows = u64::from(actor.n_rows()).saturating_sub(before);
        (end + rows * row_cycles).saturating_sub(time.end)
    });
    waits.max().unwrap_or(0)
}
