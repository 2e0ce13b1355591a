//! First rows of tensors that are in SRAM where the rest is not.
//!
//! | module | what it holds |
//! |---|---|
//! | [`prefixes`] | first rows that stay where the rest of a tensor does not |
//! | [`prefetch`] | first rows of what a phase loads, brought by the phase before |

pub mod prefetch;
pub mod prefixes;

use std::collections::{BTreeMap, BTreeSet};

use cranelift_entity::SecondaryMap;
use strata_backend::model::graph::StageSet;
use strata_backend::model::plan::phase_of;
use strata_backend::model::{Plan, StageId};
use strata_backend::place::occupancy::{Occupancy, Span};
use strata_isa_spec::{Program, Target};

/// The stages of each phase of a plan, and the phase of each stage.
fn phases_of(plan: &Plan) -> (Vec<StageSet>, SecondaryMap<StageId, usize>) {
    let phases = plan.stages();
    let phase_of = phase_of(&phases);
    (phases.into_iter().map(|stages| stages.into_iter().collect()).collect(), phase_of)
}

/// First and last phase of each stream that a phase names.
fn lives(program: &Program) -> BTreeMap<u32, (usize, usize)> {
    let mut lives = BTreeMap::new();
    for phase in 0..program.phases.len() {
        for stream in streams_of(program, phase) {
            lives.entry(stream).or_insert((phase, phase)).1 = phase;
        }
    }
    lives
}

/// What the streams of a program take of activation SRAM.
fn occupancy(program: &Program, capacity: u64) -> Occupancy {
    let mut occupancy = Occupancy::new(program.phases.len(), capacity);
    for (stream, (first, last)) in lives(program) {
        let stream = &program.streams[stream as usize];
        occupancy.take(first..last + 1, Span::new(u64::from(stream.base), stream.size_bytes()));
    }
    occupancy
}

/// Whether no phase has more stages or streams than the target allows.
fn is_within_limits(program: &Program, target: &Target) -> bool {
    program.phases.iter().enumerate().all(|(index, phase)| {
        phase.stages.len() <= target.limits.stages as usize
            && streams_of(program, index).len() <= target.limits.streams as usize
    })
}

/// The streams that a phase names, and their prefixes.
pub(crate) fn streams_of(program: &Program, phase: usize) -> BTreeSet<u32> {
    let stages = program.phases[phase].stages.iter();
    let views = stages.flat_map(|stage| stage.code.reads().into_iter().chain([stage.code.out]));
    views.filter(|view| view.rows > 0).flat_map(|view| program.chain(view.tensor)).collect()
}
