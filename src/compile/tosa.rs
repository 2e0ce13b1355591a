//! TOSA functions that other tools wrote, compiled without the ONNX importer.
//!
//! A function of f32 is calibrated, quantised and measured as an import is, at its own size: it has no file
//! from which a smaller one could be imported. A function of integers enters where quantisation ends; its
//! ports take and give the machine's integers, or reals where `strata.quant` attributes say what the integers
//! stand for.

use std::collections::BTreeMap;

use strata_frontend::tosa::entry::{self, Entry};
use strata_ir::Module;
use strata_ir::pass::{Level, PassError};

use super::parts::{PreparedPart, PreparedParts, demand_known};
use super::{
    Clock, CompileError, Compiled, Compiler, Event, PrecisionOptions, Prepared, main_ports, missing,
    network_name,
};
use crate::session;

impl Compiler {
    /// Compiles a module of plain TOSA whose function `main` is the network, as
    /// [`entry::prepare`] leaves it. `file_name` names the network.
    ///
    /// # Errors
    /// If the function mixes floats with narrow integers, or cannot be quantised, planned or emitted for the
    /// target.
    pub fn compile_module(
        &self,
        module: Module,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let (mode, objective) = (self.options.mode, self.options.objective);
        self.prepare_module(module, file_name, observer)?.finish(mode, objective, observer)
    }

    /// Brings a module of plain TOSA to its stages.
    ///
    /// # Errors
    /// As [`compile_module`](Self::compile_module).
    pub fn prepare_module(
        &self,
        mut module: Module,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Prepared, CompileError> {
        self.demand_finite_samples()?;
        let mut clock = Clock::default();
        let entry = entry::of(&module)?;
        let main = module.function("main").ok_or_else(|| missing("main"))?;
        let last = module.function("host").unwrap_or(main);
        let outputs = session::ports(&module, last, true).map_err(CompileError::CalibrationData)?;
        let mut parts = PreparedParts {
            parts: Vec::new(),
            inputs: main_ports(&module)?,
            outputs: outputs.into_iter().map(|port| port.name).collect(),
            output_types: BTreeMap::new(),
            host: None,
            n_parameters: 0,
            yardstick: None,
            precision: Vec::new(),
        };
        let forms = match entry {
            Entry::Integer => {
                if self.options.precision != PrecisionOptions::default() {
                    observer(Event::Note(
                        "the function is of integers already: its precision stays".to_owned(),
                    ));
                }
                Level::Quant.mark(&mut module);
                observer(Event::Reached(Level::Quant, &module));
                self.forms(module, &mut clock, observer)?
            }
            Entry::Float => {
                observer(Event::Reached(Level::Import, &module));
                clock.begin("calibrate", observer);
                let found = self.calibrate_on(module.clone(), &mut module, &BTreeMap::new(), observer)?;
                let ranges = (found.calibration, found.chosen.precision);
                let (forms, tail) = self.to_stages(module.clone(), ranges, &mut clock, observer)?;
                demand_known(found.chosen.unknown)?;
                parts.precision.extend(found.chosen.stats);
                if !self.options.host && !tail.is_empty() {
                    let error = PassError::Unsupported(tail);
                    return Err(CompileError::of_pass("quantise", error));
                }
                parts.yardstick = self.yardstick(&module, found.sample, &mut clock, observer);
                forms
            }
        };
        parts.parts.push(PreparedPart::Machine(Box::new(forms)));
        clock.stop();
        Ok(Prepared { compiler: self.clone(), network: network_name(file_name), parts, clock })
    }
}
