//! `strata demo`: what a multi-layer machine saves, shown on a built-in network.

use std::path::PathBuf;

use strata_backend::model::summary::activation_table;
use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooModel, ZooOptions, build};
use strata_ir::eval;

use super::args::{TargetArgs, parse_size};
use super::console::{Console, Progress};
use super::failure::Failure;
use super::tables::{count, plan_lines, row, show, si, table};
use crate::compile::{CompileOptions, Compiled, Compiler, Event, Prepared};
use crate::io::{Array, DType, write_atomic};
use crate::report::human_bytes;
use crate::session::{self, Session, quantise};
use crate::{Mode, Objective};

/// Show the whole way on a built-in network: no files, no download
///
/// Makes the network's ONNX, compiles it layer by layer and multi-layer, compares the two, writes the bundle,
/// and runs the same network at a small size on the interpreter against the evaluator, bit for bit.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The network
    #[arg(long, default_value = "yolov3", value_parser = ZooModel::names())]
    network: String,
    /// Width and height of its input
    #[arg(long, default_value = "2048x1024", value_name = "WxH", value_parser = parse_size)]
    size: (usize, usize),
    /// Width and height at which it is run
    #[arg(long, default_value = "128x96", value_name = "WxH", value_parser = parse_size)]
    small: (usize, usize),
    /// The bundle to write [default: the network's name with .strata]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let target = args.target.target()?;
    let (width, height) = args.size;
    console.print(&format!(
        "{} at {width}x{height} on {}: {} MACs at {:.0} MHz, {} activation SRAM\n\n",
        args.network,
        target.name,
        count(target.macs()),
        target.array.clock_hz as f64 / 1e6,
        human_bytes(target.memory.activation)
    ))?;
    let options = CompileOptions { measure_sqnr: false, ..CompileOptions::new(target.clone()) };
    let progress = console.progress(None);
    let prepared = prepare(&args.network, args.size, &options, &progress)?;
    let single = finish(&prepared, Mode::Single, Objective::Latency, &progress)?;
    drop(progress);
    let model = &single.stats.model;
    console.print(&format!(
        "{} layers, {} MACs ({} with Winograd), {} weights\n\n{}",
        model.layers,
        si(model.macs_direct as f64),
        si(model.macs_winograd as f64),
        count(model.weights),
        activations(&single, target.memory.activation)
    ))?;

    let progress = console.progress(None);
    let multi = finish(&prepared, Mode::Multi, Objective::Latency, &progress)?;
    let traffic = finish(&prepared, Mode::Multi, Objective::Traffic, &progress)?;
    drop(progress);
    let plans = [&single, &multi, &traffic].map(|c| (&c.stats.plan, c.stats.simulated.as_ref()));
    let mut lines = table(&["plan", "layer by layer", "multi-layer", "multi-layer"]);
    for (what, values) in plan_lines(&plans) {
        row(&mut lines, &[&[what.to_owned()], values.as_slice()].concat());
    }
    console.print(&format!("\n{}\n{}", show(&lines), savings(&single, &multi, &traffic)))?;

    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.strata", args.network)));
    write_atomic(&path, &multi.bundle.to_bytes()?)?;
    console.print(&format!("wrote {}\n", path.display()))?;

    let progress = console.progress(None);
    let small = prepare(&args.network, args.small, &options, &progress)?;
    let values = run_small(&small, &progress)?;
    drop(progress);
    let (width, height) = args.small;
    console.print(&format!(
        "ran {} at {width}x{height} on the interpreter: {} output values equal the evaluator's, bit for \
            bit\n",
        args.network,
        count(values)
    ))
}

fn prepare(
    network: &str,
    size: (usize, usize),
    options: &CompileOptions,
    progress: &Progress<'_>,
) -> Result<Prepared, Failure> {
    progress.step("making the ONNX");
    let zoo = ZooOptions { size: Some(size), ..ZooOptions::default() };
    let onnx = encode(&build(network, &zoo).map_err(Failure::failed)?);
    let compiler = Compiler::new(options.clone());
    Ok(compiler.prepare(&onnx, &format!("{network}.onnx"), &mut |event| watch(&event, progress))?)
}

fn finish(
    prepared: &Prepared,
    mode: Mode,
    objective: Objective,
    progress: &Progress<'_>,
) -> Result<Compiled, Failure> {
    Ok(prepared.finish(mode, objective, &mut |event| watch(&event, progress))?)
}

fn watch(event: &Event<'_>, progress: &Progress<'_>) {
    if let Event::Step(step) = event {
        progress.step(step);
    }
}

/// The table that opens an article on layer fusion: how large the outputs of convolutions are.
fn activations(compiled: &Compiled, sram_bytes: u64) -> String {
    let Some((_, graph)) = compiled.plans.first() else { return String::new() };
    let found = activation_table(graph, sram_bytes);
    let mut lines = table(&["outputs of about", "convolutions"]);
    for (&class, n) in found.convolutions.iter().rev() {
        let size = 1u64.checked_shl(class).map_or_else(|| "-".to_owned(), human_bytes);
        row(&mut lines, &[size, n.to_string()]);
    }
    format!(
        "{}\n{} of them are larger than {}: running layer by layer would write {} of activations to DRAM \
            and read them \
         back,\nif nothing else had to be kept; the plans below count what really is alive.\n",
        show(&lines),
        found.spilled,
        human_bytes(sram_bytes),
        human_bytes(found.spilled_bytes)
    )
}

fn savings(single: &Compiled, multi: &Compiled, traffic: &Compiled) -> String {
    let frames = |c: &Compiled| c.stats.simulated.as_ref().map_or(0.0, |s| s.frames_per_second);
    let total = |c: &Compiled| c.stats.plan.dram_bytes.total as f64;
    let energy = |c: &Compiled| c.stats.plan.energy_pj.total;
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    format!(
        "multi-layer: {:.2} times the frames a second, 1/{:.1} of the DRAM traffic (1/{:.1} if planned for \
            traffic), \
         {:.2} of the energy\n",
        ratio(frames(multi), frames(single)),
        ratio(total(single), total(multi)),
        ratio(total(single), total(traffic)),
        ratio(energy(multi), energy(single))
    )
}

/// Runs a network on the interpreter and its integers on the evaluator; the number of values that agree, all
/// of them.
fn run_small(prepared: &Prepared, progress: &Progress<'_>) -> Result<u64, Failure> {
    let [module] = prepared.modules().collect::<Vec<_>>()[..] else {
        return Err(Failure::failed("the network is in several parts"));
    };
    let compiled = finish(prepared, Mode::Multi, Objective::Latency, progress)?;
    let session = Session::new(compiled.bundle)?;
    let (mut real, mut integers) = (Vec::new(), Vec::new());
    for (at, port) in session.inputs().iter().enumerate() {
        let n: usize = port.shape.iter().product();
        let values: Vec<f64> = (0..n).map(|i| f64::from(wave(i))).collect();
        let quantised = values.iter().map(|&value| match &port.quantisation {
            Some(q) => quantise(value, q, i64::from(i8::MIN), i64::from(i8::MAX)) as f64,
            None => value,
        });
        let (shape, quantised) = (port.shape.clone(), quantised.collect());
        integers.push(Array { shape: shape.clone(), dtype: DType::I8, values: quantised });
        real.push((at.to_string(), Array { shape, dtype: DType::F32, values }));
    }
    progress.step("running on the interpreter");
    let machine = session.run_raw(&real, &mut |_| {})?;
    progress.step("evaluating the integers");
    let main = module.function("main").ok_or_else(|| Failure::failed("there is no function `main`"))?;
    let arguments = session::to_arguments(module, &integers)?;
    let expected = eval::eval_function(module, main, arguments).map_err(Failure::failed)?;
    let mut compared = 0;
    for ((port, tensor), (name, found)) in session.raw_outputs().zip(&expected).zip(&machine) {
        let expected = session::from_tensor(port, tensor)?;
        if expected.values != found.values {
            let what = format!(
                "output `{name}`: the interpreter's values are not the evaluator's: a defect of Strata"
            );
            return Err(Failure::Failed(what));
        }
        compared += found.values.len() as u64;
    }
    Ok(compared)
}

/// A pattern between -1 and 1 that repeats too late to matter.
fn wave(index: usize) -> f32 {
    ((index * 7919) % 2003) as f32 / 1001.0 - 1.0
}
