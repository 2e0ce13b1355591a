//! Why a model could not be compiled or quantised.

use strata_frontend::host::HostError;
use strata_frontend::import::ImportError;
use strata_ir::pass::{PassError, PassFailure, PipelineFailure};
use strata_isa_spec::verify::VerifyError;
use strata_passes::fuse::PlanError;
use strata_passes::fuse::pass::does_not_fit;
use strata_passes::quantise::CalibrationError;

use crate::ports::RunError;

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file is not a model that can be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Calibration failed.
    #[error("calibration: {0}")]
    Calibration(#[from] CalibrationError),
    /// The calibration data do not fit the inputs.
    #[error("calibration data: {0}")]
    CalibrationData(#[source] RunError),
    /// The host's library fails at a node that was left to it.
    #[error("the model uses what Strata does not support:\n  {0}")]
    Host(#[source] HostError),
    /// The model could not be evaluated.
    #[error(transparent)]
    Run(RunError),
    /// Layers that were to be 16-bit are not there.
    #[error("no layer or input that the machine computes with is called {}", quoted(.0))]
    UnknownLayers(Vec<String>),
    /// Ranges are given that do not fit the network.
    #[error("ranges: {0}")]
    Ranges(String),
    /// A pass failed.
    #[error("{pass}: {failure}")]
    Pass {
        /// The pass.
        pass: &'static str,
        /// Why.
        #[source]
        failure: PassFailure,
    },
    /// The scheduled module could not be lowered.
    #[error("emit: {0}")]
    Emit(#[from] strata_backend::emit::LowerError),
    /// The compiler made a program that the machine refuses: a defect of Strata.
    #[error("the compiler made an invalid program, which is a defect of Strata: {}", list(.0))]
    Invalid(Vec<VerifyError>),
    /// The compiler made a bundle that nothing would run: a defect of Strata.
    #[error("the compiler made a bundle that cannot be run, which is a defect of Strata: {0}")]
    Unsound(#[source] RunError),
    /// Modules are not a checkpoint of a compile, or not one that can go on as asked.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The compiled network could not be run to measure it.
    #[error("measuring the outputs: {0}")]
    Measure(#[source] RunError),
}

/// Names, each in quotes.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn list(errors: &[VerifyError]) -> String {
    errors.iter().map(|e| format!("\n  {e}")).collect()
}

impl From<PipelineFailure> for CompileError {
    fn from(PipelineFailure { pass, failure, .. }: PipelineFailure) -> Self {
        Self::Pass { pass, failure }
    }
}

impl CompileError {
    /// What a pass, or what prepares it, says.
    pub(crate) fn of_pass(pass: &'static str, error: PassError) -> Self {
        Self::Pass { pass, failure: PassFailure::Pass(error) }
    }

    /// Whether all that it says is that the target is too small.
    pub fn is_capacity_error(&self) -> bool {
        matches!(self, Self::Pass { failure: PassFailure::Pass(error), .. } if does_not_fit(error))
    }

    /// Fields of the target and the sizes that it says would do.
    pub fn would_do(&self) -> Vec<(&'static str, u64)> {
        let Self::Pass { failure: PassFailure::Pass(PassError::Other(error)), .. } = self else {
            return Vec::new();
        };
        let Some(PlanError::StageTooLarge(stages)) = error.downcast_ref() else { return Vec::new() };
        stages.iter().map(|stage| (stage.resource.field(), stage.needed)).collect()
    }

    /// Whether the model is valid but not supported.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::Import(ImportError::Unsupported { .. })
                | Self::Host(HostError::Node { .. })
                | Self::Calibration(CalibrationError::NotFinite(_))
                | Self::Pass { failure: PassFailure::Pass(PassError::Unsupported(_)), .. }
        )
    }
}
