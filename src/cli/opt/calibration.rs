//! What passes calibrate a network on, and the ranges that come of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strata_ir::Module;
use strata_ir::pass::{Level, PassContext, Pipeline};
use strata_passes::quantise::{CalibrationSamples, ChosenRanges, TensorRange};

use crate::cli::args::{ImageArgs, RangeArgs, Written};
use crate::cli::failure::Failure;
use crate::cli::model;
use crate::compile::calibrate::GivenSamples;
use crate::compile::checkpoint::Record;
use crate::compile::{CalibrationData, GivenRanges};
use crate::ranges::RangeFile;

/// What passes that need samples are given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Calibration, for passes over networks in f32")]
pub(super) struct CalibrationArgs {
    /// Pictures or arrays that activation ranges are gathered on: a file or a folder [default: seeded noise]
    #[arg(long, value_name = "PATH")]
    calibrate: Option<PathBuf>,
    /// Seed of the noise that stands in for calibration data [default: that of the compile, or 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    ranges: RangeArgs,
    #[command(flatten)]
    images: ImageArgs,
}

/// Calibrates the modules of a file, one after the other.
#[derive(Debug)]
pub(super) struct Calibrator<'a> {
    args: &'a CalibrationArgs,
    given: Option<GivenRanges>,
    /// What was chosen for the modules so far.
    chosen: RangeFile,
    /// Whether it was chosen on noise.
    on_noise: bool,
    /// Whether only the first passes run.
    is_partial: bool,
}

impl<'a> Calibrator<'a> {
    /// One for a pipeline, of which perhaps only the first passes run.
    ///
    /// # Errors
    /// If given ranges cannot be read, or are of a network that is equalised where this one is not, or the
    /// other way round.
    pub(super) fn new(
        args: &'a CalibrationArgs,
        pipeline: &Pipeline,
        is_partial: bool,
    ) -> Result<Self, Failure> {
        let given = args.ranges.given()?;
        let has_equalise = pipeline.passes().iter().any(|pass| pass.info().name == "equalise");
        let equalised = has_equalise && args.calibrate.is_some();
        if given.as_ref().is_some_and(|given| given.file.equalised != equalised) {
            let which =
                if equalised { "not equalised, and this one is" } else { "equalised, and this one is not" };
            let why =
                format!("--ranges: they are of a network that is {which}: by `equalise` with --calibrate");
            return Err(Failure::Failed(why));
        }
        let chosen = RangeFile { equalised, tensors: Vec::new() };
        Ok(Self { args, given, chosen, on_noise: false, is_partial })
    }

    /// Puts what passes need to calibrate a module into the context.
    ///
    /// # Errors
    /// If calibration data cannot be read, or do not fit the module's inputs.
    pub(super) fn prepare(
        &self,
        part: usize,
        module: &Module,
        rows: BTreeMap<String, usize>,
        context: &mut PassContext,
    ) -> Result<(), Failure> {
        if Level::of(module) != Level::Import || module.function("main").is_none() {
            return Ok(());
        }
        let recorded = Record::of(module).ok().flatten();
        let rows = recorded.as_ref().map_or(rows, |record| record.table_rows.clone());
        let data = match (&self.args.calibrate, recorded.map(|record| record.options.calibration)) {
            (Some(path), _) => self.data(path, module)?,
            (None, Some(noise @ CalibrationData::Noise { .. })) if self.args.seed.is_none() => noise,
            (None, _) => CalibrationData::noise(self.args.seed.unwrap_or_default()),
        };
        let given = self.given.as_ref();
        let ranges = given.map_or_else(Vec::new, |given| given.file.of_part(part));
        let source = Box::new(GivenSamples { data, rows });
        context.insert(CalibrationSamples { source, ranges, by_name: false });
        Ok(())
    }

    fn data(&self, path: &Path, module: &Module) -> Result<CalibrationData, Failure> {
        model::calibration(path, &model::main_ports(module)?.0, &self.args.images.options())
    }

    /// Where ranges are to be saved.
    pub(super) fn saved(&self) -> Written<'_> {
        self.args.ranges.saved()
    }

    /// Keeps the ranges that a pass chose for a module, if one did.
    pub(super) fn keep(&mut self, part: usize, context: &mut PassContext) {
        let Some(ChosenRanges(ranges)) = context.take() else { return };
        self.on_noise |= self.args.calibrate.is_none();
        self.chosen.tensors.extend(ranges.into_iter().map(|range| TensorRange { part, ..range }));
    }

    /// Saves the ranges, if that is asked for. Gives what should be said of them.
    ///
    /// # Errors
    /// If no pass chose any, or of another part than ranges are given of, or they cannot be written.
    pub(super) fn finish(&self) -> Result<Option<&'static str>, Failure> {
        if self.is_partial {
            // What was to choose ranges did not run.
            return Ok(None);
        }
        let is_chosen = |part: usize| self.chosen.tensors.iter().any(|range| range.part == part);
        let given = self.given.iter().flat_map(|given| &given.file.tensors);
        let unused: Vec<String> = given
            .filter(|range| !is_chosen(range.part))
            .map(|range| format!("`{}` of part {}", range.tensor, range.part))
            .collect();
        if !unused.is_empty() {
            let what = "--ranges: ranges are given of what no pass chose ranges for";
            return Err(Failure::Failed(format!("{what}: {}", unused.join(", "))));
        }
        self.args.ranges.save(&self.chosen)?;
        let note =
            "no calibration data: ranges come from seeded noise; give images or arrays with --calibrate";
        Ok(self.on_noise.then_some(note))
    }
}
