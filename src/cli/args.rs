//! Arguments that several commands share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use strata_isa_spec::Target;
use strata_passes::quantise::RangeChoice;

use super::failure::Failure;
use crate::compile::GivenRanges;
use crate::io::{self, ChannelOrder, Fit, ImageOptions, Layout};
use crate::ptq::PtqOptions;
use crate::ranges::RangeFile;

/// The machine.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// The machine: a preset or a .toml file
    #[arg(long, default_value = "x1", value_name = "NAME|FILE")]
    target: String,
    /// Overrides a field of the machine, such as memory.activation=4MiB
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    overrides: Vec<(String, String)>,
}

/// The names of the arguments that stand on the command line, which those of a checkpoint give way to.
#[derive(Clone, Debug, Default)]
pub(super) struct Given(BTreeSet<String>);

impl Given {
    /// Those of a command's matches.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let is_given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Self(matches.ids().filter(is_given).map(ToString::to_string).collect())
    }

    /// Whether an argument was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// What was asked for if the argument was given, else what is recorded.
    pub(super) fn or<T>(&self, name: &str, asked: T, recorded: T) -> T {
        if self.has(name) { asked } else { recorded }
    }
}

impl TargetArgs {
    /// The machine asked for; where none is named, the recorded one with what is overridden of it.
    pub(super) fn target_or(&self, given: &Given, recorded: Option<&Target>) -> Result<Target, Failure> {
        match recorded.filter(|_| !given.has("target")) {
            Some(recorded) => Ok(recorded.with(&self.overrides)?),
            None => self.target(),
        }
    }

    /// The machine asked for.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let path = Path::new(&self.target);
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = String::from_utf8(io::read(path)?).map_err(|_| Failure::file(path, "not UTF-8"))?;
            return Ok(Target::from_toml(&self.target, &text, &self.overrides)?);
        }
        Ok(Target::preset(&self.target, &self.overrides)?)
    }
}

/// How pictures become inputs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pictures as inputs")]
pub(super) struct ImageArgs {
    /// Subtracted from each sample of 0 to 255: one number, or one a channel [default: 0]
    #[arg(long, value_name = "M[,M…]", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Vec<f32>,
    /// The difference is multiplied by it: one number, or one a channel [default: 1/255]
    #[arg(long, value_name = "S[,S…]", value_delimiter = ',', allow_negative_numbers = true)]
    scale: Vec<f32>,
    /// Order of colours: rgb or bgr
    #[arg(long, default_value = "rgb", value_name = "ORDER")]
    channels: ChannelOrder,
    /// Where the channels stand in the input's shape: auto, nchw or nhwc
    #[arg(long, default_value = "auto", value_name = "LAYOUT")]
    layout: Layout,
    /// How other proportions are dealt with: stretch, letterbox or crop
    #[arg(long, default_value = "stretch", value_name = "HOW")]
    fit: Fit,
}

impl ImageArgs {
    /// The options asked for.
    pub(super) fn options(&self) -> ImageOptions {
        let default = ImageOptions::default();
        let or = |given: &Vec<f32>, default| if given.is_empty() { default } else { given.clone() };
        ImageOptions {
            mean: or(&self.mean, default.mean),
            scale: or(&self.scale, default.scale),
            order: self.channels,
            layout: self.layout,
            fit: self.fit,
        }
    }
}

/// A file that a command writes, with the argument that names it.
pub(super) struct Written<'a> {
    /// The argument, such as `--output`.
    pub flag: &'static str,
    /// The file, if one is named.
    pub path: Option<&'a Path>,
}

/// That files can be written, and that none is what the command reads or writes otherwise: told before the
/// work, since what is written over is lost.
pub(super) fn demand_outputs(input: &Path, outputs: &[Written<'_>]) -> Result<(), Failure> {
    let mut taken = vec![("the file that is read", place(input))];
    for Written { flag, path } in outputs {
        let Some(path) = path.filter(|path| !io::is_standard_stream(path)) else { continue };
        let at = place(path);
        if let Some((what, _)) = taken.iter().find(|(_, other)| at.is_some() && *other == at) {
            return Err(Failure::Usage(format!("{flag} names {what}: {}", io::shown(path))));
        }
        io::demand_writable(path)?;
        taken.push((flag, at));
    }
    Ok(())
}

/// Where a path leads, if its folder is there.
fn place(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().or_else(|| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    })
}

/// Ranges of activations as files.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct RangeArgs {
    /// Ranges of activations in place of those that calibration chooses: a file that --save-ranges wrote, of
    /// which lines may be changed or taken out
    #[arg(long, value_name = "FILE.json")]
    ranges: Option<PathBuf>,
    /// Write the ranges of all activations, a tensor a line
    #[arg(long, value_name = "FILE.json")]
    save_ranges: Option<PathBuf>,
}

/// The ranges of a file.
pub(super) fn ranges(path: &Path) -> Result<RangeFile, Failure> {
    let text = String::from_utf8(io::read(path)?).map_err(|_| Failure::file(path, "not UTF-8"))?;
    RangeFile::from_json(&text).map_err(|error| Failure::file(path, error))
}

impl RangeArgs {
    /// The ranges that are given.
    pub(super) fn given(&self) -> Result<Option<GivenRanges>, Failure> {
        self.ranges.as_ref().map(|path| Ok(GivenRanges { file: ranges(path)? })).transpose()
    }

    /// Where ranges are to be saved.
    pub(super) fn saved(&self) -> Written<'_> {
        Written { flag: "--save-ranges", path: self.save_ranges.as_deref() }
    }

    /// Saves ranges, if that is asked for.
    pub(super) fn save(&self, ranges: &RangeFile) -> Result<(), Failure> {
        match &self.save_ranges {
            Some(_) if ranges.tensors.is_empty() => {
                let what = "--save-ranges: no ranges were chosen, so none are saved: nothing was quantised";
                Err(Failure::Failed(what.to_owned()))
            }
            Some(path) => Ok(io::write_atomic(path, ranges.to_json().as_bytes())?),
            None => Ok(()),
        }
    }
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// How a network is quantised.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Quantisation")]
pub(super) struct PtqArgs {
    /// How the range of an activation is chosen
    #[arg(long, default_value = "mse", value_parser = ["min-max", "percentile", "mse", "entropy"])]
    range: String,
    /// Equalise the channels of convolutions first, which changes nothing in f32; needs calibration data
    #[arg(long, value_enum, default_value = "on", value_name = "on|off")]
    equalise: Switch,
    /// Correct biases for the mean shift that quantising makes on the calibration data
    #[arg(long, value_enum, default_value = "on", value_name = "on|off")]
    bias_correction: Switch,
}

impl PtqArgs {
    /// The options asked for.
    pub(super) fn options(&self) -> PtqOptions {
        PtqOptions {
            range: RangeChoice::from_name(&self.range, PERCENTILE),
            equalise: self.equalise == Switch::On,
            bias_correction: self.bias_correction == Switch::On,
        }
    }
}

/// Per cent of values that the range `percentile` keeps at either end.
const PERCENTILE: f64 = 99.99;

/// `KEY=VALUE`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `NAME=FILE`.
pub(super) fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    // Names of tensors may hold `=`, paths seldom do.
    match text.rsplit_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE, or a position such as 0=FILE".to_owned()),
    }
}

/// `NAME=1x3x416x416`.
pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let problem = || "expected NAME=1x3x416x416".to_owned();
    let (name, shape) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(problem)?;
    let extents = shape.split(['x', ',']).map(|e| e.trim().parse::<usize>().ok().filter(|&e| e > 0));
    let extents: Option<Vec<usize>> = if shape == "scalar" { Some(Vec::new()) } else { extents.collect() };
    Ok((name.to_owned(), extents.ok_or_else(problem)?))
}

/// `1280x720`: width and height.
pub(super) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT, such as 416x416".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_languages_are_read() {
        assert_eq!(parse_input("a/b=c=x.npy"), Ok(("a/b=c".to_owned(), PathBuf::from("x.npy"))));
        assert!(
            parse_input("x.npy").is_err() && parse_input("=x.npy").is_err() && parse_input("x=").is_err()
        );
        assert_eq!(parse_shape("data:0=1x3x8x8"), Ok(("data:0".to_owned(), vec![1, 3, 8, 8])));
        assert!(
            parse_shape("data=1x0x8").is_err() && parse_shape("1x3").is_err() && parse_shape("d=").is_err()
        );
        assert_eq!(parse_size("2048x1024"), Ok((2048, 1024)));
        assert!(parse_size("2048").is_err() && parse_size("axb").is_err());
        assert_eq!(parse_pair("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
    }
}
