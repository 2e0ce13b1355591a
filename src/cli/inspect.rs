//! `strata inspect`: what a file holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strata_ir::Module;
use strata_ir::pass::Level;
use strata_isa_spec::bundle::{Bundle, Code, Machine, Part, Port};
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Head, timed};

use super::args::parse_shape;
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use super::tables::{count, host_text, megabytes, plan_lines, row, show, si, table, words};
use crate::compile::f32_macs;
use crate::io::array::show_shape;
use crate::report::human_bytes;
use crate::stats::Stats;

/// Show what a bundle, an ONNX or TOSA model or a module of the IR holds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A .strata, .onnx, .tosa or .mlir file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Shape of an input of an ONNX model
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// List the stages of every phase too
    #[arg(long)]
    stages: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let path = &args.file;
    let text = match model::content(path)? {
        Content::Bundle(bytes) => {
            let bundle = Bundle::from_bytes(&bytes).map_err(|e| Failure::file(path, e))?;
            let target = &bundle.manifest.target;
            let refused: usize =
                bundle.machines().map(|machine| verify(&machine.program, target).len()).sum();
            if refused > 0 {
                console.note(&format!("the program breaks {refused} rules; see `strata verify`"));
            }
            bundle_text(&bundle, args.stages)
        }
        Content::Ir(source) => module_text(path, &model::module(path, &source, console)?),
        Content::Tosa(bytes) => module_text(path, &model::flatbuffer(path, &bytes)?),
        Content::Onnx(bytes) => module_text(path, &model::imported(&bytes, path, &args.input_shapes)?),
    };
    console.print(&text)
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

fn bundle_text(bundle: &Bundle, stages: bool) -> String {
    let manifest = &bundle.manifest;
    let target = &manifest.target;
    let mut text = format!(
        "{} for {} ({} MACs, {} activation and {} weight SRAM), by {}\n\n",
        manifest.network,
        target.name,
        count(target.macs()),
        human_bytes(target.memory.activation),
        human_bytes(target.memory.weight),
        manifest.producer
    );
    text += &ports_text(&manifest.inputs, &manifest.outputs);
    for (index, part) in bundle.parts.iter().enumerate() {
        if bundle.parts.len() > 1 {
            text += &format!("\npart {index}: {}", runner_text(part));
        }
        if let Code::Machine(machine) = &part.code {
            text += &machine_text(machine, stages);
        }
    }
    let stats = bundle.stats.clone().and_then(|stats| serde_json::from_value::<Stats>(stats).ok());
    if let Some(stats) = stats {
        let mut lines = table(&["plan", &stats.plan.mode]);
        for (what, values) in plan_lines(&[(&stats.plan, stats.simulated.as_ref())]) {
            row(&mut lines, &[&[what.to_owned()], values.as_slice()].concat());
        }
        text += &format!("\n{}", show(&lines));
        if let Some(host) = &stats.host {
            text += &format!("\n{}", host_text(host));
        }
    }
    text
}

/// Who runs a part, and what passes in and out.
fn runner_text(part: &Part) -> String {
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    let runner = match &part.code {
        Code::Machine(_) => "the machine".to_owned(),
        Code::Ir(_) => "the host, a function of the IR in f32".to_owned(),
        Code::Onnx(bytes) => format!("the host, an ONNX model of {}", human_bytes(bytes.len() as u64)),
    };
    format!("{runner}; {} -> {}\n", names(&part.inputs), names(&part.outputs))
}

fn machine_text(machine: &Machine, stages: bool) -> String {
    let Machine { program, weights, names } = machine;
    let traffic = timed::traffic(program);
    let text = format!(
        "\n{} phases, {} stages, {} streams, {} of weights; {} over DRAM an inference\n\n",
        program.phases.len(),
        program.phases.iter().map(|phase| phase.stages.len()).sum::<usize>(),
        program.streams.len(),
        human_bytes(weights.len() as u64),
        megabytes(traffic.total())
    );
    let mut lines = table(&["phase", "stages", "DMA", "partitions", "MACs", "weights loaded"]);
    for (at, phase) in program.phases.iter().enumerate() {
        let dma =
            phase.stages.iter().filter(|s| matches!(s.code.head, Head::DmaIn(_) | Head::DmaOut(_))).count();
        let macs: u64 = phase.stages.iter().map(|stage| stage.code.macs_direct()).sum();
        let loaded: u64 = phase.loads.iter().map(|load| u64::from(load.bytes)).sum();
        row(
            &mut lines,
            &[
                at.to_string(),
                (phase.stages.len() - dma).to_string(),
                dma.to_string(),
                phase.partitions.len().to_string(),
                si(macs as f64),
                human_bytes(loaded),
            ],
        );
        if stages {
            for stage in &phase.stages {
                let name = names.get(stage.source as usize).map_or("", String::as_str);
                row(&mut lines, &[format!("  {} {name}", stage.code.head.mnemonic())]);
            }
        }
    }
    text + &show(&lines)
}

fn module_text(path: &Path, module: &Module) -> String {
    let mut text = format!("{}: level {}\n", model::file_name(path), Level::of(module));
    if let Ok((inputs, outputs)) = model::main_ports(module) {
        text += &format!("\n{}", ports_text(&inputs, &outputs));
    }
    let macs = f32_macs(module);
    if macs > 0 {
        text += &format!("\n{} MACs\n", si(macs as f64));
    }
    let counts: BTreeMap<&str, u64> = model::op_counts(module);
    let mut lines = table(&["op", "count"]);
    for (name, n) in counts {
        row(&mut lines, &[name.to_owned(), count(n)]);
    }
    text + &format!("\n{}", show(&lines))
}
