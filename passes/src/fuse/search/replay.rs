//! A choice, phase by phase: what it costs where an estimate was good enough to choose by.
//!
//! Strips are chosen by what the widest of them costs; once they are stages of a graph of their own, every
//! phase is costed for itself, by the same rules and in the same order, with the tensors where the choice put
//! them.

use strata_backend::cost::ScoreWeights;
use strata_backend::model::BufferId;
use strata_backend::model::graph::StageSet;

use crate::fuse::candidates::candidate::{Candidate, Context};
use crate::fuse::search::{ChosenPhase, Label, NextPhase, Place, Places, Search, SearchLimits, place_of};

/// Whether a tensor has a host in a graph. Where stages became strips it may have lost it: a strip is no
/// ancestor of another.
pub fn may_be_in_place(context: &Context<'_>, buffer: BufferId) -> bool {
    context.in_place_targets[buffer].is_some()
}

/// What the phases of a choice cost, one candidate of one variant each, with the tensors where `chosen` puts
/// them in each phase, and grown into the same others; what has no place is streamed, and what cannot be in
/// place of another has its own.
///
/// # Errors
/// The first phase that does not fit.
pub fn replay(
    context: &Context<'_>,
    phases: &[Candidate],
    chosen: &[&ChosenPhase],
    weights: ScoreWeights,
    capacity: u64,
    limits: SearchLimits,
    proven: bool,
) -> Result<crate::fuse::search::Choice, usize> {
    let mut search = Search::new(context, weights, capacity, limits);
    search.proven = proven;
    search.labels.push(Label::start());
    let mut done = StageSet::default();
    let (mut before, mut slots) = (Places::new(), Vec::new());
    for (at, candidate) in phases.iter().enumerate() {
        done.extend(&candidate.set);
        let phase = NextPhase { index: at, candidate, which: 0 };
        let variant = phase.variant();
        search.slots(phase, &before, &done, &mut slots);
        let place = |buffer: BufferId| {
            let place = place_of(&chosen[at].places, buffer).unwrap_or(Place::Dram);
            if place == Place::InPlace && !may_be_in_place(context, buffer) { Place::Sram } else { place }
        };
        let (ways, growths) = search.placed(variant, &slots, place, &chosen[at].growths);
        let way = ways[slots.len()];
        let stages = candidate.stages.len() as u32 + way.dma_stages;
        if way.grown_bytes() > capacity || stages > context.target.limits.stages {
            return Err(at);
        }
        let label = search.run(&search.before(at, phase), phase, &way);
        search.labels.push(label);
        search.places_after(way.places(&ways, &slots), &slots, &mut before);
        search.placings.push(&way, &ways, &slots, &growths);
    }
    Ok(search.answer(phases.len()))
}
