//! The machine's phase that a planned phase becomes: its stages' own code, of the streams and addresses that
//! their tensors and tables have been given.
//!
//! The scheduler makes phases by it, and the emitter those of a module, in which only the places are written
//! down: what a stage computes stands at the stage, how the array is divided in the plan.

use strata_isa_spec::inst::WeightAddr;
use strata_isa_spec::record::{PhasePlacement, TensorPlacement};
use strata_isa_spec::{Phase, Stage, View};

use crate::cost::with_winograd;
use crate::model::plan::PhasePlan;
use crate::model::{BufferView, StageGraph, StageId, TableId};

/// The phase of some stages, of which a plan says where they run.
///
/// A tensor or table without a place gets one that no program has, which the machine's verifier refuses.
///
/// # Errors
/// If there are not as many stages in the plan, or places for them, told as a text.
pub fn machine_phase(
    graph: &StageGraph,
    stages: &[StageId],
    planned: &PhasePlan,
    places: &PhasePlacement,
) -> Result<Phase, String> {
    let numbers = [stages.len(), planned.stages.len(), places.stages.len()];
    if numbers != [stages.len(); 3] {
        let [found, planned, placed] = numbers;
        return Err(format!("the phase has {found} stages, its plan {planned}, and places are of {placed}"));
    }
    let mut phase = Phase {
        partitions: planned.partitions.clone(),
        loads: places.loads.clone(),
        stages: places.before.clone(),
    };
    for ((&stage, placement), place) in stages.iter().zip(&planned.stages).zip(&places.stages) {
        let code = with_winograd(&graph.stages[stage].code, placement.winograd);
        let address = |table: TableId| place.tables.get(table.as_u32() as usize).copied();
        let code = code.map_tables(|table| address(table).unwrap_or(WeightAddr(u32::MAX)));
        phase.stages.push(Stage {
            partition: placement.partition,
            wait_loads: place.wait_loads,
            mapping: placement.mapping,
            code: code.map_views(|view| within(view, &places.tensors)),
            source: stage.as_u32(),
        });
    }
    phase.stages.extend(places.after.iter().cloned());
    Ok(phase)
}

/// A view of a tensor as one of the stream that holds some columns and channels of it.
fn within(view: &BufferView, tensors: &[TensorPlacement]) -> View {
    let place = tensors.iter().find(|place| place.tensor == view.tensor.as_u32());
    let of_stream = |place: &TensorPlacement| {
        let (col0, ch0) = (view.col0.checked_sub(place.col0)?, view.ch0.checked_sub(place.ch0)?);
        Some(View { col0, ch0, ..view.of(place.stream) })
    };
    place.and_then(of_stream).unwrap_or_else(|| view.of(u32::MAX))
}
