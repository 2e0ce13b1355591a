//! A choice, phase by phase: what it costs where an estimate was good enough to choose by.
//!
//! Strips are chosen by what the widest of them costs; once they are stages of a graph of their own, every phase is costed
//! for itself, by the same rules and in the same order, with the tensors where the choice put them.

use super::{Label, Place, Places, Placing, Search, SearchLimits};
use crate::plan::columns::{Column, Context};
use crate::plan::cost::Weights;
use crate::plan::graph::StageSet;

/// What the phases of a choice cost, one column of one variant each, with the tensors in given places; what has none is
/// streamed.
///
/// # Errors
/// The first phase that does not fit.
pub fn replay(
    context: &Context<'_>,
    phases: &[Column],
    places: &[Places],
    weights: Weights,
    capacity: u64,
    limits: SearchLimits,
    proven: bool,
) -> Result<super::Choice, usize> {
    let mut search =
        Search { context, columns: phases, weights, capacity, limits, labels: Vec::new(), work: 0, proven };
    search.labels.push(Label::start());
    let mut done = StageSet::default();
    let mut before = Places::new();
    for (at, column) in phases.iter().enumerate() {
        done.extend(&column.set);
        let live = search.live_after(&done);
        let variant = &column.variants[0];
        let mut way = Placing::of(variant);
        let slots = search.slots(column, variant, &before, &live);
        for slot in &slots {
            let place = places[at].iter().find(|(buffer, _)| *buffer == slot.buffer);
            way = search.placed(&way, slot, place.map_or(Place::Dram, |(_, place)| *place));
        }
        way.places.sort_unstable();
        search.grow(&mut way, &search.growths(variant, &slots, &live));
        let stages = column.stages.len() as u32 + way.dma_stages;
        if way.sram_bytes > capacity || stages > context.target.limits.stages {
            return Err(at);
        }
        let label = search.run(at, at, 0, &way);
        search.labels.push(label);
        before = search.places_after(&way.places, &live);
    }
    Ok(search.answer(phases.len()))
}
