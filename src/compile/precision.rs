//! Which activations are 16-bit: as the user says, or as a search on the calibration's samples finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strata_ir::{Module, Tensor};
use strata_passes::quantise::mixed::{Goal, search};
use strata_passes::quantise::{Calibration, Precision};

use super::{CompileError, Compiler, Event, missing};
use crate::stats::{I16Group, PrecisionStats};

/// How precise activations are.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct PrecisionOptions {
    /// What is 16-bit apart from `int16`.
    pub mode: PrecisionMode,
    /// Layers whose results are 16-bit in any case, by the names of their nodes, or inputs.
    pub int16: Vec<String>,
}

/// What is 16-bit.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionMode {
    /// Nothing.
    #[default]
    Int8,
    /// All that can be.
    Int16,
    /// What a search finds worth its time.
    Mixed {
        /// Array cycles that it may add, in per cent.
        budget_percent: f64,
        /// Decibels of signal to noise that are enough.
        target_db: Option<f64>,
    },
}

/// The precision of a module, and what is to be told of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub precision: Precision,
    pub stats: Option<PrecisionStats>,
    /// The layers asked for that the module does not have.
    pub unknown: BTreeSet<String>,
    /// The values with given ranges that the module does not have.
    pub unknown_ranges: Vec<String>,
}

impl Compiler {
    /// The precision of `module`, which was calibrated on `samples`, as `wished`.
    pub(super) fn precision(
        &self,
        wished: &PrecisionOptions,
        module: &Module,
        calibration: &Calibration,
        samples: &[Vec<Arc<Tensor>>],
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Chosen, CompileError> {
        let PrecisionOptions { mode, int16 } = wished;
        let func = module.function("main").ok_or_else(|| missing("main"))?;
        let base = if *mode == PrecisionMode::Int16 { Precision::Int16 } else { Precision::Int8 };
        let mut names = int16.clone();
        let mut unknown = BTreeSet::new();
        let precision = loop {
            match base.clone().with_layers(module, func, &names) {
                Ok(precision) => break precision,
                Err(absent) => {
                    names.retain(|name| !absent.contains(name));
                    unknown.extend(absent);
                }
            }
        };
        let PrecisionMode::Mixed { budget_percent, target_db } = *mode else {
            return Ok(Chosen { precision, unknown, ..Chosen::default() });
        };
        let options = self.options.ptq.quantise(precision);
        let goal = Goal { budget_percent, target_db, winograd: self.options.target.array.winograd };
        let error = |error| CompileError::of_pass("quantise", error);
        let found = search(module, calibration, samples, &options, &goal).map_err(error)?;
        let promoted = found.candidates.iter().filter(|c| c.promoted);
        let stats = PrecisionStats {
            i16: promoted
                .map(|c| I16Group {
                    layers: c.layers.clone(),
                    noise_share: c.noise_share,
                    cost_percent: c.cost_percent,
                })
                .collect(),
            cost_percent: found.cost_percent,
            predicted_before_db: found.before_db,
            predicted_after_db: found.after_db,
        };
        observer(Event::Note(stats.to_string()));
        Ok(Chosen { precision: found.precision, stats: Some(stats), unknown, unknown_ranges: Vec::new() })
    }
}
