//! `strata quantise`: what quantising a model costs, output by output and layer by layer.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{ImageArgs, PtqArgs, parse_shape};
use super::console::Console;
use super::failure::Failure;
use super::model::{self, Content};
use super::noise_page::{self, decibels, ranked};
use super::tables::{count, row, show, table};
use crate::compile::CalibrationData;
use crate::io::{array_files, demand_writable, file_stem, write_atomic};
use crate::ptq::{self, Study};

/// Measure what quantising a model costs, layer by layer
///
/// Quantises a model as `compile` does and compares it with f32: the signal to noise ratio of every output,
/// and of every layer, worst first. Needs no target: a program computes the same bits on every machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Pictures or arrays that activation ranges are gathered on: a file or a folder
    #[arg(long, value_name = "PATH")]
    calibrate: PathBuf,
    /// Pictures or arrays that noise is measured on [default: those of --calibrate]
    #[arg(long, value_name = "PATH")]
    measure: Option<PathBuf>,
    #[command(flatten)]
    ptq: PtqArgs,
    /// Shape of an input, for dynamic dimensions or another size
    #[arg(long = "input-shape", value_name = "NAME=1x3x416x416", value_parser = parse_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
    /// Write a page of HTML with every layer
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the outputs of the quantised model: DIR/SAMPLE/0.npy, 1.npy, …
    #[arg(long, value_name = "DIR")]
    outputs: Option<PathBuf>,
    /// How many layers the table shows, worst first; 0 measures the outputs alone
    #[arg(long, default_value_t = 20, value_name = "N")]
    layers: usize,
    #[command(flatten)]
    images: ImageArgs,
}

/// The figures, as `--json` writes them. A ratio that is infinite, because nothing differs, is null.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    model: String,
    range: &'static str,
    equalise: bool,
    bias_correction: bool,
    n_calibration_samples: usize,
    n_measured_samples: usize,
    outputs: Vec<OutputFigures<'a>>,
    layers: Vec<LayerFigures<'a>>,
}

#[derive(Debug, Serialize)]
struct OutputFigures<'a> {
    name: &'a str,
    sqnr_db: Option<f64>,
}

#[derive(Debug, Serialize)]
struct LayerFigures<'a> {
    name: &'a str,
    op: &'a str,
    cumulative_db: Option<f64>,
    own_db: Option<f64>,
    outputs_db: Option<f64>,
}

fn finite(db: f64) -> Option<f64> {
    db.is_finite().then_some(db)
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    for path in args.report.iter().chain(&args.json) {
        demand_writable(path)?;
    }
    let Content::Onnx(bytes) = model::content(&args.model)? else {
        return Err(Failure::file(&args.model, "not an ONNX model"));
    };
    let module = model::imported(&bytes, &args.model, &args.input_shapes)?;
    let (inputs, _) = model::main_ports(&module)?;
    let samples = |path: &PathBuf| match model::calibration(path, &inputs, &args.images.options())? {
        CalibrationData::Samples(samples) => Ok(samples),
        CalibrationData::Noise { .. } => Err(Failure::file(path, "no samples")),
    };
    let calibrate = samples(&args.calibrate)?;
    let measured_on = args.measure.as_ref().unwrap_or(&args.calibrate);
    let measure = args.measure.as_ref().map_or(Ok(calibrate.clone()), samples)?;
    let options = args.ptq.options();
    let progress = console.progress(None);
    let with_layers = args.layers > 0 || args.report.is_some();
    let study = ptq::study(module, &options, &calibrate, &measure, with_layers, &mut |s| progress.step(s))
        .map_err(|error| Failure::from(error).about(&args.model))?;
    drop(progress);

    let figures = Figures {
        model: model::file_name(&args.model),
        range: options.range.name(),
        equalise: options.equalise,
        bias_correction: options.bias_correction,
        n_calibration_samples: calibrate.len(),
        n_measured_samples: measure.len(),
        outputs: (study.outputs.iter())
            .map(|(name, noise)| OutputFigures { name, sqnr_db: finite(noise.power.decibels()) })
            .collect(),
        layers: (study.layers.iter())
            .map(|layer| LayerFigures {
                name: &layer.name,
                op: &layer.op,
                cumulative_db: finite(layer.cumulative_db),
                own_db: finite(layer.own_db),
                outputs_db: finite(layer.outputs_db),
            })
            .collect(),
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figures).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    if let Some(folder) = &args.outputs {
        for (file, arrays) in array_files(measured_on)?.iter().zip(&study.arrays) {
            let folder = folder.join(file_stem(&model::file_name(&file.with_extension(""))));
            crate::io::create_folder(&folder)?;
            for (at, (_, array)) in arrays.iter().enumerate() {
                write_atomic(&folder.join(format!("{at}.npy")), &array.to_npy())?;
            }
        }
    }
    if let Some(path) = &args.report {
        let about = noise_page::About {
            model: &figures.model,
            options: &options,
            n_calibration_samples: calibrate.len(),
            n_measured_samples: measure.len(),
        };
        write_atomic(path, noise_page::page(&about, &study).as_bytes())?;
        console.note(&format!("wrote {}", path.display()));
    }
    console.print(&summary(args, &study))
}

fn summary(args: &Args, study: &Study) -> String {
    let mut outputs = table(&["output", "SQNR dB"]);
    for (name, noise) in &study.outputs {
        row(&mut outputs, &[name.clone(), decibels(noise.power.decibels())]);
    }
    let mut text = show(&outputs);
    if args.layers == 0 {
        return text;
    }
    let mut layers = table(&["layer", "what", "alone, at the outputs", "alone", "with all before"]);
    for layer in ranked(&study.layers).into_iter().take(args.layers) {
        let figures = [layer.outputs_db, layer.own_db, layer.cumulative_db].map(decibels);
        row(&mut layers, &[&[layer.name.clone(), layer.op.clone()], figures.as_slice()].concat());
    }
    text += &format!("\n{}", show(&layers));
    let hidden = study.layers.len().saturating_sub(args.layers);
    if hidden > 0 {
        text += &format!("and {} more\n", count(hidden as u64));
    }
    text
}
