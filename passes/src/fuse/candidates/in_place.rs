//! Tensors that may be written in the very bytes of another, element by element, as that is read: sums with a
//! shortcut, most of all, also where a layer was split by output channels and its parts run phases apart.
//!
//! A tensor's *host* has the same shape, and every stage that writes some of the tensor reads of the host
//! that same part, in place, and no more; everything else that writes or reads the host comes before all of
//! them. So while the tensor is written, what is overwritten of its host is needed no more, in whichever
//! phases that happens.

use cranelift_entity::PrimaryMap;
use strata_backend::model::graph::Topology;
use strata_backend::model::{Buffer, BufferId, BufferRole, BufferView, StageGraph, StageId};

/// The buffer in whose bytes each buffer may be written, if there is one.
pub fn in_place_targets(graph: &StageGraph, topology: &Topology) -> PrimaryMap<BufferId, Option<BufferId>> {
    graph.buffers.keys().map(|buffer| host(graph, topology, buffer)).collect()
}

fn host(graph: &StageGraph, topology: &Topology, buffer: BufferId) -> Option<BufferId> {
    let shape = |b: &Buffer| (b.rows, b.cols, b.chs, b.elem.size_bytes());
    let writers = &topology.uses[buffer].writers;
    let code = &graph.stages[writers.first()?.0].code;
    let reads = code.reads();
    let mut candidates = code.in_place_reads().into_iter().map(|which| reads[which].tensor);
    candidates.find(|&candidate| {
        let is_internal = graph.buffers[buffer].role == BufferRole::Internal;
        let is_alike = shape(&graph.buffers[buffer]) == shape(&graph.buffers[candidate]);
        candidate != buffer && is_internal && is_alike && is_host(graph, topology, writers, candidate)
    })
}

fn is_host(
    graph: &StageGraph,
    topology: &Topology,
    writers: &[(StageId, BufferView)],
    candidate: BufferId,
) -> bool {
    let reads_in_place = |&(stage, _): &(StageId, BufferView)| {
        let code = &graph.stages[stage].code;
        let in_place = code.in_place_reads();
        let reads = code.reads();
        let mut of_host = (0..reads.len()).filter(|&which| reads[which].tensor == candidate).peekable();
        of_host.peek().is_some() && of_host.all(|which| in_place.contains(&which))
    };
    let uses = &topology.uses[candidate];
    let others = uses.writers.iter().chain(&uses.readers).map(|(stage, _)| *stage);
    let mut others = others.filter(|stage| writers.iter().all(|(writer, _)| writer != stage));
    let is_before_all =
        |stage: StageId| writers.iter().all(|(writer, _)| topology.ancestors[*writer].contains(stage));
    writers.iter().all(reads_in_place) && others.all(is_before_all)
}
