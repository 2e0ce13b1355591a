//! Ranges by the names of values: those that were chosen, to be saved, and those that are given instead.
//!
//! Names are those of the text of a module ([`Names`]), so that what a dump calls `%conv1` is `%conv1` in a
//! file of ranges.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strata_ir::diag::did_you_mean;
use strata_ir::pass::PassError;
use strata_ir::text::Names;
use strata_ir::{Module, Tensor, ValueId};

use crate::quantise::calibrate::{Calibration, CalibrationError, observed_values};
use crate::quantise::params::Range;
use crate::quantise::{QuantReport, QuantiseOptions, RangeChoice};

/// The range of real numbers that the integers of a tensor cover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRange {
    /// Of a model in several parts: which, from 0.
    #[serde(default)]
    pub part: usize,
    /// The name of the value in the f32 network, such as `%conv1`.
    pub tensor: String,
    /// The op that gives it, or `argument`.
    pub op: String,
    /// The least number.
    pub min: f32,
    /// The greatest number.
    pub max: f32,
}

/// The range of every value, as `quantise` leaves them in the context: those chosen by the calibration, or
/// given instead.
#[derive(Clone, Debug, Default)]
pub struct ChosenRanges(pub Vec<TensorRange>);

impl ChosenRanges {
    /// Those of a report, with the names that values had before the network was quantised.
    pub(super) fn of(report: &QuantReport, names: &Names) -> Self {
        let range = |&(value, op, range): &(ValueId, &str, Range)| TensorRange {
            part: 0,
            tensor: names.get(value),
            op: op.to_owned(),
            min: range.low,
            max: range.high,
        };
        Self(report.ranges.iter().map(range).collect())
    }
}

impl Calibration {
    /// Takes ranges in place of those chosen for the network that was calibrated. One that is just what was
    /// chosen changes nothing; of another, what was seen of its value no longer counts.
    ///
    /// Gives the ranges of values that the network does not have, each with what may have been meant.
    pub fn set_ranges(&mut self, module: &Module, ranges: &[TensorRange]) -> Vec<String> {
        let Some(func) = module.function("main").filter(|_| !ranges.is_empty()) else {
            return ranges.iter().map(|range| format!("`{}`", range.tensor)).collect();
        };
        let names = Names::of(module);
        let observed = observed_values(module, module.entry_block(func));
        let places: BTreeMap<String, usize> =
            observed.iter().enumerate().map(|(at, (value, _))| (names.get(*value), at)).collect();
        let mut unknown = Vec::new();
        for TensorRange { tensor, op, min, max, .. } in ranges {
            match places.get(tensor) {
                Some(&at) if observed[at].1 == op => {
                    self.given.insert(at, Range { low: *min, high: *max });
                }
                Some(&at) => {
                    unknown.push(format!("`{tensor}` of `{op}` (here it is of `{}`)", observed[at].1));
                }
                None => {
                    let closest = did_you_mean(tensor, places.keys().map(String::as_str));
                    let meant = closest.map_or(String::new(), |name| format!(" (did you mean `{name}`?)"));
                    unknown.push(format!("`{tensor}`{meant}"));
                }
            }
        }
        unknown
    }
}

/// The ranges of those values that a module has, whatever op gives them there: of a part of a network, of
/// which inputs are results of the whole.
pub fn of_values_in(module: &Module, ranges: &[TensorRange]) -> Vec<TensorRange> {
    let Some(func) = module.function("main").filter(|_| !ranges.is_empty()) else { return Vec::new() };
    let names = Names::of(module);
    let by_name: BTreeMap<&str, &TensorRange> =
        ranges.iter().map(|range| (range.tensor.as_str(), range)).collect();
    let of_value = |(value, op): (ValueId, &str)| {
        let range = by_name.get(names.get(value).as_str()).copied()?;
        Some(TensorRange { part: 0, op: op.to_owned(), ..range.clone() })
    };
    observed_values(module, module.entry_block(func)).into_iter().filter_map(of_value).collect()
}

impl Calibration {
    /// The range of every value of the network that was calibrated, as a way of choosing has it.
    ///
    /// # Errors
    /// If its ops are others.
    pub fn chosen_ranges(
        &self,
        module: &Module,
        choice: RangeChoice,
    ) -> Result<Vec<TensorRange>, CalibrationError> {
        let func = module.function("main").ok_or(CalibrationError::NoMain)?;
        let chosen = self.ranges(module, func, choice)?;
        let names = Names::of(module);
        let range = |(value, op): (ValueId, &str)| {
            let Range { low: min, high: max } = chosen.chosen(value)?;
            Some(TensorRange { part: 0, tensor: names.get(value), op: op.to_owned(), min, max })
        };
        let observed = observed_values(module, module.entry_block(func));
        Ok(observed.into_iter().filter_map(range).collect())
    }
}

/// Samples of a network's inputs, made when a pass asks for them.
pub trait SampleSource: fmt::Debug + Send + Sync {
    /// Samples for a network, each a tensor for every argument of its `@main`.
    ///
    /// # Errors
    /// If there are none that fit.
    fn samples(&self, module: &Module) -> Result<Vec<Vec<Arc<Tensor>>>, PassError>;

    /// Whether they are data, not noise: only then do means and single channels tell something, so that
    /// channels are equalised by them and biases corrected.
    fn are_data(&self) -> bool;
}

/// What passes calibrate a network on themselves, where nobody did it for them.
#[derive(Debug)]
pub struct CalibrationSamples {
    /// Where the samples come from.
    pub source: Box<dyn SampleSource>,
    /// Ranges in place of those that would be chosen.
    pub ranges: Vec<TensorRange>,
    /// Whether ranges are meant by the names of values alone, and those of values that are not there for
    /// nothing: of a part of the network that they are of.
    pub by_name: bool,
}

impl CalibrationSamples {
    /// Calibrates a network.
    ///
    /// # Errors
    /// If the samples do not fit, a value is not finite, or a range is of a value that is not there.
    pub(super) fn calibrate(
        &self,
        module: &Module,
        options: &QuantiseOptions,
    ) -> Result<Calibration, PassError> {
        let samples = self.source.samples(module)?;
        let mut calibration = Calibration::collect(module, &samples).map_err(PassError::other)?;
        let unknown = match self.by_name {
            true => calibration.set_ranges(module, &of_values_in(module, &self.ranges)),
            false => calibration.set_ranges(module, &self.ranges),
        };
        if !unknown.is_empty() {
            return Err(PassError::other(CalibrationError::UnknownTensors(unknown)));
        }
        if self.source.are_data() {
            calibration.correct_biases(module, options, &samples)?;
        }
        Ok(calibration)
    }
}

#[cfg(test)]
mod tests {
    use strata_ir::eval::random::random_inputs;
    use strata_ir::text;

    use super::*;
    use crate::quantise::quantise;

    const TEXT: &str = "module attributes {strata.level = \"import\"} {
  func.func @main(%x: tensor<1x4x4x8xf32>) -> (tensor<1x4x4x8xf32>) {
    %y = tosa.add %x, %x : (tensor<1x4x4x8xf32>, tensor<1x4x4x8xf32>) -> tensor<1x4x4x8xf32>
    return %y : tensor<1x4x4x8xf32>
  }
}";

    /// The module, its calibration, and what is chosen.
    fn calibrated() -> (Module, Calibration, Vec<TensorRange>) {
        let module = text::parse(TEXT, None).expect("it parses");
        let main = module.function("main").expect("it is there");
        let samples = vec![random_inputs(&module, main, 0).into_iter().map(Arc::new).collect()];
        let calibration = Calibration::collect(&module, &samples).expect("it runs");
        let chosen = quantised(&module, &calibration).0;
        (module, calibration, chosen)
    }

    fn quantised(module: &Module, calibration: &Calibration) -> (Vec<TensorRange>, String) {
        let mut quantised = module.clone();
        let report =
            quantise(&mut quantised, calibration, &QuantiseOptions::default()).expect("it has a form");
        (ChosenRanges::of(&report, &Names::of(module)).0, text::to_string(&quantised))
    }

    #[test]
    fn ranges_that_were_chosen_change_nothing() {
        let (module, calibration, chosen) = calibrated();
        let names: Vec<[&str; 2]> = chosen.iter().map(|r| [r.tensor.as_str(), r.op.as_str()]).collect();
        assert_eq!(names, [["%arg0", "argument"], ["%add", "tosa.add"]]);
        let mut again = calibration.clone();
        assert_eq!(again.set_ranges(&module, &chosen), [] as [String; 0]);
        assert_eq!(quantised(&module, &again), quantised(&module, &calibration));
    }

    #[test]
    fn ranges_that_are_given_are_taken() {
        let (module, mut calibration, mut chosen) = calibrated();
        (chosen[1].min, chosen[1].max) = (-1.0, 300.0);
        let before = quantised(&module, &calibration).1;
        calibration.set_ranges(&module, &chosen[1..]);
        let (taken, text) = quantised(&module, &calibration);
        assert_eq!(taken, chosen);
        assert_ne!(text, before);
    }

    #[test]
    fn ranges_of_nothing_are_told() {
        let (module, mut calibration, mut chosen) = calibrated();
        chosen[0].tensor = "%arg1".to_owned();
        chosen[1].op = "tosa.sub".to_owned();
        let unknown = calibration.set_ranges(&module, &chosen);
        let told = ["`%arg1` (did you mean `%arg0`?)", "`%add` of `tosa.sub` (here it is of `tosa.add`)"];
        assert_eq!(unknown, told);
    }
}
