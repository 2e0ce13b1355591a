//! Post-training quantisation as the compiler and `strata quantise` do it: what happens to a network between
//! its import and its integers, and what that costs.
//!
//! 1. The f32 network is equalised, if asked to: the same function, easier to quantise.
//! 2. The calibration samples are run, which gives the range of every value.
//! 3. The biases are corrected, if asked to, for the mean shift that quantising makes on those samples.
//! 4. The pass `quantise` rewrites the network.
//!
//! [`study`] runs all of it and measures the noise; it needs no target and makes no program, since a
//! program's bits are those of the quantised network.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strata_ir::pass::{self, DriverOptions, Level, Pass, PassContext, PassError, Pipeline};
use strata_ir::{Module, Tensor};
use strata_passes::canonicalise::Canonicalise;
use strata_passes::equalise::{ChannelStatistics, Equalise};
use strata_passes::quantise::noise::{LayerNoise, Networks, OutputNoise};
use strata_passes::quantise::{Calibration, Precision, QuantReport, Quantise, QuantiseOptions, RangeChoice};

use crate::compile::error::CompileError;
use crate::io::Array;
use crate::session::{self, RunError};

/// How a network is quantised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PtqOptions {
    /// How activation ranges are chosen.
    pub range: RangeChoice,
    /// Whether the f32 network is equalised first; a compile without calibration data does not.
    pub equalise: bool,
    /// Whether biases are corrected on the calibration samples; likewise.
    pub bias_correction: bool,
}

impl Default for PtqOptions {
    fn default() -> Self {
        Self { range: RangeChoice::MeanSquareError, equalise: true, bias_correction: true }
    }
}

/// Samples of a network: each a tensor for every argument of its `@main`.
pub type Samples = Vec<Vec<Arc<Tensor>>>;

/// Arrays in the order of the model's inputs as arguments of its `@main`.
///
/// # Errors
/// If one does not fit.
pub fn arguments(module: &Module, samples: &[Vec<Array>]) -> Result<Samples, RunError> {
    let one = |sample: &Vec<Array>| {
        let tensors = session::to_arguments(module, sample)?;
        Ok(tensors.into_iter().map(Arc::new).collect())
    };
    samples.iter().map(one).collect()
}

fn failed(pass: &'static str, error: PassError) -> CompileError {
    CompileError::of_pass(pass, error)
}

/// Runs one pass.
fn run(
    pass: impl Pass + 'static,
    module: &mut Module,
    context: &mut PassContext,
) -> Result<(), CompileError> {
    let options = DriverOptions::default();
    pass::run(module, &Pipeline::of(pass), context, &options, &mut |_| {})?;
    Ok(())
}

/// Folds the constants of what was imported, and takes away what changes nothing.
pub(crate) fn canonicalise(module: &mut Module) -> Result<(), CompileError> {
    run(Canonicalise, module, &mut PassContext::new())
}

impl PtqOptions {
    /// The options of the pass `quantise`.
    pub fn quantise(&self, precision: Precision) -> QuantiseOptions {
        QuantiseOptions { range: self.range, precision }
    }

    /// Prepares f32 networks for calibration: one that the samples fit, and perhaps the same at another input
    /// size.
    ///
    /// # Errors
    /// If a sample does not fit or a pass fails.
    pub fn prepare(&self, modules: &mut [&mut Module], samples: &Samples) -> Result<(), CompileError> {
        let Some(first) = modules.first().filter(|_| self.equalise) else { return Ok(()) };
        let statistics = ChannelStatistics::collect(first, samples)
            .map_err(|error| failed("equalise", PassError::other(error)))?;
        for module in modules {
            let mut context = PassContext::new();
            context.insert(statistics.clone());
            run(Equalise, module, &mut context)?;
        }
        Ok(())
    }

    /// Corrects the biases of a calibrated network of which some activations are wider, if asked to.
    ///
    /// # Errors
    /// If the samples do not fit.
    pub fn correct(
        &self,
        calibration: &mut Calibration,
        module: &Module,
        precision: &Precision,
        samples: &Samples,
    ) -> Result<(), CompileError> {
        if !self.bias_correction {
            return Ok(());
        }
        let options = self.quantise(precision.clone());
        let corrected = calibration.correct_biases(module, &options, samples);
        corrected.map_err(|error| failed("bias correction", error))
    }
}

/// What quantising a network costs.
#[derive(Clone, Debug)]
pub struct Study {
    /// Every output of the model, with its name.
    pub outputs: Vec<(String, OutputNoise)>,
    /// The outputs of the quantised network as the model's user sees them: of every sample, by name.
    pub arrays: Vec<Vec<(String, Array)>>,
    /// Every layer in order, if it was asked for.
    pub layers: Vec<LayerNoise>,
    /// What quantisation did.
    pub report: QuantReport,
}

/// Quantises an imported network, calibrated on some samples, and measures the noise on others.
///
/// # Errors
/// If samples do not fit, or the network cannot be quantised.
pub fn study(
    mut module: Module,
    options: &PtqOptions,
    calibrate: &[Vec<Array>],
    measure: &[Vec<Array>],
    with_layers: bool,
    step: &mut dyn FnMut(&str),
) -> Result<Study, CompileError> {
    if Level::of(&module) != Level::Import {
        return Err(failed("quantise", PassError::invalid("the module is quantised already")));
    }
    canonicalise(&mut module)?;
    let original = module.clone();
    let samples = |arrays| arguments(&original, arrays).map_err(CompileError::CalibrationData);
    let calibrate = samples(calibrate)?;
    step("equalise");
    options.prepare(&mut [&mut module], &calibrate)?;
    step("calibrate");
    let mut calibration = Calibration::collect(&module, &calibrate)?;
    step("correct biases");
    options.correct(&mut calibration, &module, &Precision::Int8, &calibrate)?;
    step("quantise");
    let real = module.clone();
    let mut context = PassContext::new();
    context.insert(calibration);
    run(Quantise { options: options.quantise(Precision::Int8) }, &mut module, &mut context)?;
    let report = context.take::<QuantReport>().unwrap_or_default();
    step("measure");
    let networks = Networks { real: &real, quantised: &module, values: &report.values };
    let samples = samples(measure)?;
    let (outputs, layers) = if with_layers {
        networks.layers_and_outputs(&samples)
    } else {
        networks.outputs(&samples).map(|outputs| (outputs, Vec::new()))
    }
    .map_err(|error| failed("measure", error))?;

    let func = original.function("main").ok_or_else(|| failed("measure", PassError::invalid("no `main`")))?;
    let ports = session::ports(&original, func, true).map_err(CompileError::Measure)?;
    let arrays = (0..samples.len()).map(|sample| {
        let named = ports.iter().zip(&outputs).map(|(port, output)| {
            let array = session::from_tensor(port, &output.tensors[sample])?;
            Ok((port.name.clone(), array))
        });
        named.collect::<Result<Vec<_>, RunError>>()
    });
    let arrays = arrays.collect::<Result<_, _>>().map_err(CompileError::Measure)?;
    let outputs = ports.into_iter().map(|port| port.name).zip(outputs).collect();
    Ok(Study { outputs, arrays, layers, report })
}
