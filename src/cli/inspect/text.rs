//! An inspection as people read it.

use comfy_table::Table;
use strata_isa_spec::bundle::Port;

use super::columns::{Column, runner};
use crate::cli::console::Console;
use crate::cli::tables::{count, host_text, no_stream_text, plan_lines, row, show, si, table, words};
use crate::inspect::{Inspection, Layer, Part, Runner, Totals};
use crate::io::array::show_shape;
use crate::report::human_bytes;

/// All of it: the network, its ports, its layers, its phases, sums, and the plan.
pub(super) fn text(shown: &Inspection, ops: bool, console: &Console) -> String {
    let mut text = heading(shown) + "\n" + &ports_text(&shown.inputs, &shown.outputs);
    for (index, part) in shown.parts.iter().enumerate() {
        if shown.parts.len() > 1 {
            let (inputs, outputs) = (part.inputs.join(", "), part.outputs.join(", "));
            text += &format!("\npart {index}: {}; {inputs} -> {outputs}\n", runner_text(part));
        }
        if !part.layers.is_empty() {
            text += &format!("\n{}", layers_text(part, ops, console));
        }
        if !part.phases.is_empty() {
            text += &format!("\n{}", phases_text(part));
        }
    }
    text += &format!("\n{}", totals_text(&shown.totals));
    if !shown.ops.is_empty() {
        let counts: Vec<String> = shown.ops.iter().map(|(op, n)| format!("{} {op}", count(*n))).collect();
        text += &format!("\nops: {}\n", counts.join(", "));
    }
    if let Some(stats) = &shown.stats {
        let mut lines = table(&["plan", &stats.plan.mode]);
        for (what, values) in plan_lines(&[(&stats.plan, stats.simulated.as_ref())]) {
            row(&mut lines, &[&[what.to_owned()], values.as_slice()].concat());
        }
        text += &format!("\n{}", show(&lines));
        let n_programs = shown.parts.iter().filter(|part| part.runner == Runner::Machine).count();
        text += &stats.simulated.as_ref().map_or_else(String::new, |s| no_stream_text(s, n_programs));
        if let Some(host) = &stats.host {
            text += &format!("\n{}", host_text(host));
        }
    }
    text
}

fn heading(shown: &Inspection) -> String {
    let mut text = shown.network.clone();
    if let Some(target) = &shown.target {
        text += &format!(
            " for {} ({} MACs, {} activation and {} weight SRAM)",
            target.name,
            count(target.macs),
            human_bytes(target.activation_sram_bytes),
            human_bytes(target.weight_sram_bytes)
        );
    }
    if let Some(producer) = &shown.producer {
        text += &format!(", by {producer}");
    }
    match &shown.level {
        Some(level) => format!("{text}: level {level}\n"),
        None => text + "\n",
    }
}

fn ports_text(inputs: &[Port], outputs: &[Port]) -> String {
    let mut lines = words(&["port", "name", "shape", "type", "on the machine"]);
    let both = inputs.iter().map(|p| ("input", p)).chain(outputs.iter().map(|p| ("output", p)));
    for (kind, port) in both {
        let quantised = port
            .quantisation
            .map_or_else(String::new, |q| format!(" = {:.4e} * (q - {})", q.scale, q.zero_point));
        let machine = format!("{} {}{quantised}", show_shape(&port.machine_shape), port.machine_dtype);
        let shape = if port.varies { "varies".to_owned() } else { show_shape(&port.shape) };
        row(&mut lines, &[kind, &port.name, &shape, &port.dtype, &machine]);
    }
    show(&lines)
}

/// Who runs a part.
fn runner_text(part: &Part) -> &'static str {
    match runner(part) {
        "host (IR)" => "the host, a function of the IR in f32",
        "host (ONNX)" => "the host, an ONNX model",
        _ => "the machine",
    }
}

fn layers_text(part: &Part, ops: bool, console: &Console) -> String {
    let columns = Column::of(&part.layers);
    let mut lines = table(&columns.iter().map(|column| column.title()).collect::<Vec<_>>());
    for (column, shown) in lines.column_iter_mut().zip(&columns) {
        if shown.is_words() || *shown == Column::Output {
            column.set_cell_alignment(comfy_table::CellAlignment::Left);
        }
        if !shown.is_words() {
            column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
        }
    }
    for layer in &part.layers {
        row(&mut lines, &columns.iter().map(|column| column.cell(layer)).collect::<Vec<_>>());
        if ops {
            push_ops(&mut lines, &columns, layer);
        }
    }
    lines.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    lines.set_width(console.width());
    show(&lines)
}

/// A row each for the ops of a layer.
fn push_ops(lines: &mut Table, columns: &[Column], layer: &Layer) {
    for step in &layer.ops {
        let cell = |column: &Column| match column {
            Column::Name => format!("  {}", step.node),
            Column::Op => step.op.clone(),
            Column::Output => step.source.clone().unwrap_or_default(),
            _ => String::new(),
        };
        row(lines, &columns.iter().map(cell).collect::<Vec<_>>());
    }
}

fn phases_text(part: &Part) -> String {
    let mut lines =
        table(&["phase", "stages", "partitions", "MACs", "DRAM in", "DRAM out", "weights loaded"]);
    for (at, phase) in part.phases.iter().enumerate() {
        row(
            &mut lines,
            &[
                at.to_string(),
                phase.stages.to_string(),
                phase.partitions.len().to_string(),
                si(phase.macs as f64),
                human_bytes(phase.dram_read_bytes),
                human_bytes(phase.dram_write_bytes),
                human_bytes(phase.weight_load_bytes),
            ],
        );
    }
    show(&lines)
}

fn totals_text(totals: &Totals) -> String {
    let mut text = format!(
        "{} layers, {} MACs, {} of results, {} of weights",
        count(totals.layers),
        si(totals.macs as f64),
        human_bytes(totals.output_bytes),
        human_bytes(totals.weight_bytes)
    );
    if let Some(peak) = totals.peak_live_bytes {
        text += &format!("; at most {} alive at once, layer by layer", human_bytes(peak));
    }
    if totals.host_macs > 0 {
        text += &format!("; the host does {} of the MACs", si(totals.host_macs as f64));
    }
    text + "\n"
}
