//! `strata zoo`: well-known networks as ONNX files.

use std::path::PathBuf;

use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooError, ZooModel, ZooOptions, build};

use super::args::parse_size;
use super::console::Console;
use super::failure::Failure;
use super::tables::{row, show, words};
use crate::io::{self, write_atomic};

/// Write a well-known network as an ONNX file
///
/// Without a name, lists the networks. Weights are random but seeded and of sane scale, unless a file of
/// Darknet's trained weights is given.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The network
    #[arg(value_parser = ZooModel::names())]
    name: Option<String>,
    /// Width and height of the input [default: the network's usual size]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// The file to write [default: the name with .onnx]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Darknet's trained weights, for the YOLOs
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Number of classes [default: that of the network's usual data set]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let Some(name) = &args.name else {
        return console.print(&list());
    };
    let weights = args.weights.as_deref().map(io::read).transpose()?;
    let options = ZooOptions { size: args.size, seed: args.seed, classes: args.classes, weights };
    let model = build(name, &options).map_err(|error| match error {
        ZooError::UnknownModel { .. } => Failure::Usage(error.to_string()),
        ZooError::Options { .. } => Failure::failed(error),
    })?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.onnx")));
    write_atomic(&path, &encode(&model))?;
    console.summary(&format!("wrote {}\n", path.display()))
}

fn list() -> String {
    let mut lines = words(&["network", "usual size", ""]);
    for model in ZooModel::ALL {
        let (width, height) = model.default_size();
        row(&mut lines, &[model.name(), &format!("{width}x{height}"), model.summary()]);
    }
    show(&lines)
}
