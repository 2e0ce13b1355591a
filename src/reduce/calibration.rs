//! What candidates are calibrated on, where passes quantise them: seeded noise, and ranges of values by name.
//!
//! A candidate takes what the network computes somewhere within, so data of the network's inputs are nothing
//! for it. Ranges are: a value is called in a candidate as in the network, and what the network's data say of
//! it holds there too. Where there are data, ranges are therefore gathered once, on the whole network.

use std::collections::BTreeMap;

use strata_ir::Module;
use strata_ir::pass::{self, DriverOptions, PassContext, PassError, Pipeline};
use strata_isa_spec::Target;
use strata_passes::quantise::ranges::of_values_in;
use strata_passes::quantise::{
    Calibration, CalibrationError, CalibrationSamples, QUANTISE, RangeChoice, SampleSource, TensorRange,
};

use crate::compile::CalibrationData;
use crate::compile::calibrate::GivenSamples;

/// What candidates are calibrated on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CandidateCalibration {
    /// The seed of noise.
    pub seed: u64,
    /// Ranges of values by their names, in place of those that the noise shows.
    pub ranges: Vec<TensorRange>,
}

impl CandidateCalibration {
    /// What passes are given.
    pub fn samples(&self) -> CalibrationSamples {
        let data = CalibrationData::noise(self.seed);
        let source = Box::new(GivenSamples { data, rows: BTreeMap::new() });
        CalibrationSamples { source, ranges: self.ranges.clone(), by_name: true }
    }

    /// The module that the first `quantise` of a pipeline would get; `None` if there is none, or what stands
    /// before fails.
    fn before_quantise(&self, pipeline: &Pipeline, target: &Target, module: &Module) -> Option<Module> {
        let at = pipeline.passes().iter().position(|pass| pass.info().name == QUANTISE.name)?;
        let mut module = module.clone();
        let mut context = PassContext::new();
        context.insert(target.clone());
        context.insert(self.samples());
        let options = DriverOptions::default();
        pass::run(&mut module, &pipeline.first(at), &mut context, &options, &mut |_| {}).ok()?;
        Some(module)
    }

    /// The ranges that matter to a module: those of values that it has where it is quantised.
    pub fn ranges_of(&self, pipeline: &Pipeline, target: &Target, module: &Module) -> Vec<TensorRange> {
        let module = self.before_quantise(pipeline, target, module);
        module.map_or_else(Vec::new, |module| of_values_in(&module, &self.ranges))
    }

    /// Gathers ranges of a network on data of its inputs; those that are given stay.
    ///
    /// # Errors
    /// If no pass quantises the network, the data do not fit it, or a value is not finite.
    pub fn gather(
        &mut self,
        pipeline: &Pipeline,
        target: &Target,
        module: &Module,
        data: CalibrationData,
    ) -> Result<(), PassError> {
        let Some(module) = self.before_quantise(pipeline, target, module) else {
            return Err(PassError::invalid("no pass quantises it, so there is nothing to calibrate"));
        };
        let samples = GivenSamples { data, rows: BTreeMap::new() }.samples(&module)?;
        let calibration = Calibration::collect(&module, &samples).map_err(PassError::other)?;
        let chosen = calibration.chosen_ranges(&module, RangeChoice::default());
        let chosen = chosen.map_err(|error: CalibrationError| PassError::other(error))?;
        let is_given = |range: &TensorRange| self.ranges.iter().any(|given| given.tensor == range.tensor);
        let more: Vec<TensorRange> = chosen.into_iter().filter(|range| !is_given(range)).collect();
        self.ranges.extend(more);
        Ok(())
    }
}
