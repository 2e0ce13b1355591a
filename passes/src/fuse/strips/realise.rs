//! The stage graph of a choice: stages of phases in strips become a stage a strip, in the order in which they
//! run.
//!
//! A strip's own buffers are new ones, the first strip's in the place of the whole one; all others stay what
//! they are, and the stages of a strip write and read windows of them.

use std::collections::BTreeMap;

use strata_backend::model::realised::{Part, Realised, StripPart};
use strata_backend::model::{BufferId, BufferView, StageGraph, StageId, StageNode};

use crate::fuse::strips::Strips;

/// A phase of a choice.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Its stages, in order.
    pub stages: &'a [StageId],
    /// How they run in strips, if they do.
    pub strips: Option<&'a Strips>,
}

/// Makes the graph of a choice.
pub fn realise(graph: &StageGraph, chosen: &[Chosen<'_>]) -> Realised {
    let mut realised = Realised {
        graph: StageGraph { buffers: graph.buffers.clone(), ..StageGraph::default() },
        ..Realised::default()
    };
    let mut next_set = graph.stages.values().filter_map(|node| node.table_set).max().map_or(0, |set| set + 1);
    let mut n_groups = 0;
    for (index, phase) in chosen.iter().enumerate() {
        let Some(strips) = phase.strips else {
            let stages = phase.stages.iter().map(|&origin| {
                realised.parts.push(Part { origin, strip: None });
                realised.graph.stages.push(graph.stages[origin].clone())
            });
            let stages = stages.collect();
            realised.phases.push(stages);
            realised.chosen.push(index);
            continue;
        };
        let own = own_buffers(&mut realised.graph, strips);
        let sets: Vec<Option<u32>> = (strips.stages.iter())
            .map(|&stage| {
                let has_tables = !graph.stages[stage].table_bytes.is_empty();
                let set = has_tables.then_some(next_set);
                next_set += u32::from(has_tables);
                set
            })
            .collect();
        for strip in 0..strips.n() {
            let mut stages = Vec::new();
            for (at, &origin) in strips.stages.iter().enumerate() {
                let node = &graph.stages[origin];
                let windowed = &strips.codes[strip][at];
                let code = windowed.code.map_views(|view| match own.get(&view.tensor) {
                    Some(places) => {
                        let (buffer, first) = places[strip];
                        BufferView { col0: view.col0 - first, ..view.of(buffer) }
                    }
                    None => *view,
                });
                let (cols, reads) = (strips.outs[strip][at].clone(), windowed.reads.clone());
                let part = StripPart { group: n_groups, strip, cols, reads };
                realised.parts.push(Part { origin, strip: Some(part) });
                stages.push(realised.graph.stages.push(StageNode {
                    name: format!("{}.strip{strip}", node.name),
                    code,
                    table_set: sets[at],
                    ..node.clone()
                }));
            }
            realised.phases.push(stages);
            realised.chosen.push(index);
        }
        n_groups += 1;
    }
    realised
}

/// Makes each strip's own buffers: their ids and the columns of the whole at which they begin.
fn own_buffers(graph: &mut StageGraph, strips: &Strips) -> BTreeMap<BufferId, Vec<(BufferId, u32)>> {
    let mut places = BTreeMap::new();
    for (&buffer, ranges) in &strips.own {
        let whole = graph.buffers[buffer].clone();
        let mut own = Vec::with_capacity(ranges.len());
        for (strip, range) in ranges.iter().enumerate() {
            let mut part = whole.clone();
            part.name = format!("{}.strip{strip}", whole.name);
            part.cols = range.end - range.start;
            let id = if strip == 0 {
                graph.buffers[buffer] = part;
                buffer
            } else {
                graph.buffers.push(part)
            };
            own.push((id, range.start));
        }
        places.insert(buffer, own);
    }
    places
}
