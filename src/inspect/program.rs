//! The stages and phases of a program.

use std::collections::BTreeSet;

use strata_isa_spec::bundle::{Machine, SourceOp};
use strata_isa_spec::inst::{Elem, View, WeightAddr};
use strata_isa_spec::program::WeightLoad;
use strata_isa_spec::{Head, Phase as MachinePhase, Program, Stage, Tail};

use super::{Layer, Phase, Step, joined};

/// The stages of every phase of a program, transfers among them.
pub(super) fn layers(machine: &Machine) -> Vec<Layer> {
    let loads: Vec<WeightLoad> =
        machine.program.phases.iter().flat_map(|phase| &phase.loads).copied().collect();
    let mut layers = Vec::new();
    let mut seen = BTreeSet::new();
    let mut weights_so_far = 0;
    for (phase, at) in machine.program.phases.iter().zip(0..) {
        for (stage, index) in phase.stages.iter().zip(0..) {
            let mut layer = row(machine, stage);
            let done = &loads[..(stage.wait_loads as usize).min(loads.len())];
            for (address, bytes) in tables(stage) {
                // Strips of one layer read the same bytes of the weight segment.
                if seen.insert((source_of(done, address), bytes)) {
                    weights_so_far += bytes;
                }
            }
            layer.weight_bytes_so_far = weights_so_far;
            layer.phase = Some(at);
            layer.stage = Some(index);
            layer.partition = (!layer.is_transfer).then_some(stage.partition);
            layers.push(layer);
        }
    }
    layers
}

/// The tables that a stage reads, each once.
fn tables(stage: &Stage) -> BTreeSet<(WeightAddr, u64)> {
    stage.code.tables().into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

/// Where in the weight segment the bytes come from that stand at an address of weight SRAM after some loads.
fn source_of(loads: &[WeightLoad], address: WeightAddr) -> Option<u64> {
    let load = loads[latest_load(loads, address)?];
    Some(load.src + u64::from(address.0 - load.dst.0))
}

/// The last of some loads that wrote to an address of weight SRAM.
pub(crate) fn latest_load(loads: &[WeightLoad], address: WeightAddr) -> Option<usize> {
    let covers = |load: &WeightLoad| {
        let within = address.0.checked_sub(load.dst.0);
        within.is_some_and(|within| within < load.bytes)
    };
    loads.iter().rposition(covers)
}

/// The phases of a program.
pub(super) fn phases(program: &Program) -> Vec<Phase> {
    program.phases.iter().map(|phase| sums(program, phase)).collect()
}

fn sums(program: &Program, phase: &MachinePhase) -> Phase {
    let mut sums = Phase {
        partitions: phase.partitions.clone(),
        weight_load_bytes: phase.loads.iter().map(|load| u64::from(load.bytes)).sum(),
        ..Phase::default()
    };
    for stage in &phase.stages {
        match &stage.code.head {
            Head::DmaIn(_) => sums.dram_read_bytes += view_bytes(program, &stage.code.out),
            Head::DmaOut(dma) => sums.dram_write_bytes += view_bytes(program, &dma.src),
            _ => sums.stages += 1,
        }
        sums.macs += stage.code.macs_direct();
    }
    sums
}

fn view_bytes(program: &Program, view: &View) -> u64 {
    let stream = program.streams.get(view.tensor as usize);
    view.n_elements() * stream.map_or(0, |stream| u64::from(stream.elem.size_bytes()))
}

fn row(machine: &Machine, stage: &Stage) -> Layer {
    let (program, code) = (&machine.program, &stage.code);
    let name = machine.names.get(stage.source as usize).cloned().unwrap_or_default();
    let is_transfer = matches!(code.head, Head::DmaIn(_) | Head::DmaOut(_));
    // A store writes to DRAM what it reads.
    let out = if let Head::DmaOut(dma) = &code.head { &dma.src } else { &code.out };
    let elem = program.streams.get(out.tensor as usize).map(|stream| stream.elem);
    let mnemonics = std::iter::once(code.head.mnemonic()).chain(code.tail.iter().map(Tail::mnemonic));
    let ops = machine.ops.get(stage.source as usize).map_or(&[][..], Vec::as_slice);
    let step = |op: &SourceOp| Step { op: op.op.clone(), node: op.node.clone(), source: None };
    let bytes = view_bytes(program, out);
    Layer {
        op: joined(mnemonics),
        name,
        shape: [out.rows, out.cols, out.chs].map(|extent| extent as usize).to_vec(),
        dtype: elem.map_or("", name_of).to_owned(),
        macs: code.macs_direct(),
        input_bytes: if is_transfer {
            bytes
        } else {
            code.reads().iter().map(|view| view_bytes(program, view)).sum()
        },
        output_bytes: bytes,
        weight_bytes: tables(stage).iter().map(|(_, bytes)| bytes).sum(),
        is_transfer,
        ops: ops.iter().map(step).collect(),
        ..Layer::default()
    }
}

fn name_of(elem: Elem) -> &'static str {
    match elem {
        Elem::I8 => "i8",
        Elem::I16 => "i16",
        Elem::I32 => "i32",
    }
}
