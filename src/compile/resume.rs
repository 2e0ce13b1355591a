//! Compiles that go on from a checkpoint, or from a function of TOSA that another tool wrote.
//!
//! A function of f32 is calibrated, quantised and measured as an import is, at its own size: it has no file
//! from which a smaller one could be imported. A function of integers enters where quantisation ends; its
//! ports take and give the machine's integers, or reals where `strata.quant` attributes say what the integers
//! stand for.

use strata_backend::select::check::check;
use strata_frontend::tosa::entry::{self, Entry};
use strata_ir::Module;
use strata_ir::pass::{Level, PassError};

use super::checkpoint::{Checkpoint, CheckpointPart, Record};
use super::forms::Forms;
use super::host::run_host_code;
use super::parts::{PartSeries, PreparedPart, PreparedParts};
use super::{
    CalibrationData, Clock, CompileError, CompileOptions, Compiled, Compiler, Event, GivenRanges,
    PrecisionOptions, Prepared, missing,
};
use crate::ptq;
use crate::ranges::RangeFile;

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
        self.prepare_module(module, file_name, observer)?.finish_as_asked(observer)
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
        let level = match entry::of(&module)? {
            Entry::Integer => Level::Quant,
            Entry::Float => Level::Import,
        };
        ptq::canonicalise(&mut module)?;
        let record = Record::of_function(&module, file_name, &self.options)?;
        self.prepare_checkpoint(Checkpoint::of_one(level, &record, module), file_name, observer)
    }

    /// Goes on with a compile from a checkpoint. `file_name` names the network where the checkpoint does not.
    ///
    /// # Errors
    /// If the checkpoint needs calibration samples that this compiler does not have, its plan was made for
    /// another target, or what is left of the compile fails.
    pub fn compile_checkpoint(
        &self,
        checkpoint: Checkpoint,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let prepared = self.prepare_checkpoint(checkpoint, file_name, observer)?;
        // A dump may have been edited: what does not fit together may be its own parts.
        prepared.finish_as_asked(observer).map_err(|error| match error {
            CompileError::Unsound(error) => {
                CompileError::Checkpoint(format!("its parts do not fit together: {error}"))
            }
            other => other,
        })
    }

    fn prepare_checkpoint(
        &self,
        checkpoint: Checkpoint,
        file_name: &str,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Prepared, CompileError> {
        self.demand_finite_samples()?;
        let Checkpoint { level, record, mut parts, smaller } = checkpoint;
        let Some(mut record) = record else {
            return match parts.pop() {
                Some(CheckpointPart::Machine { module, .. }) if level <= Level::Quant => {
                    self.prepare_module(module, file_name, observer)
                }
                _ => Err(CompileError::Checkpoint(format!(
                    "a module at level `{level}` without a record of its compile, as `--dump-levels` writes"
                ))),
            };
        };
        if !self.options.host && parts.iter().any(|part| matches!(part, CheckpointPart::Host(_))) {
            return Err(CompileError::Checkpoint(
                "some of its parts are the host's, and with --no-host there is no host".to_owned(),
            ));
        }
        let compiler = self.bound_by(level, &record.options, observer)?;
        record.options = compiler.options.to_record(compiler.options.aim());
        let mut clock = Clock::default();
        let parts = match level {
            Level::Import => {
                let smaller = smaller.filter(|_| compiler.calibrates_on_noise());
                let checkpoint = Checkpoint { smaller, ..Checkpoint::of_parts(level, record, parts) };
                compiler.parts_of_floats(checkpoint, &mut clock, observer)?
            }
            Level::Quant => compiler.parts_of_integers(parts, record, &mut clock, observer)?,
            _ => {
                let part = |part| {
                    Ok(match part {
                        CheckpointPart::Machine { module, model } => {
                            demand_sound_stages(&module)?;
                            PreparedPart::Machine(Box::new(Forms::only(module, model)?))
                        }
                        CheckpointPart::Host(host) => PreparedPart::Host(host),
                    })
                };
                let parts = parts.into_iter().map(part).collect::<Result<_, CompileError>>()?;
                PreparedParts { parts, record, yardstick: None }
            }
        };
        clock.stop();
        Ok(Prepared { compiler, parts, clock })
    }

    fn calibrates_on_noise(&self) -> bool {
        !self.options.calibration.is_data()
    }

    /// This compiler, bound by what is decided already at a level.
    fn bound_by(
        &self,
        level: Level,
        recorded: &CompileOptions,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, CompileError> {
        let mut compiler = self.clone();
        let options = &mut compiler.options;
        let needs_samples = level == Level::Import
            && matches!(&options.calibration, CalibrationData::Samples(samples) if samples.is_empty());
        if needs_samples {
            return Err(CompileError::Checkpoint(
                "the network was calibrated on samples, which a checkpoint does not hold: give them again \
                 with --calibrate"
                    .to_owned(),
            ));
        }
        let lacks_ranges = |given: &GivenRanges| given.file == RangeFile::default();
        if level == Level::Import && options.ranges.as_ref().is_some_and(lacks_ranges) {
            return Err(CompileError::Checkpoint(
                "ranges were given for the network, which a checkpoint does not hold: give them again with \
                 --ranges"
                    .to_owned(),
            ));
        }
        if level < Level::Phases {
            return Ok(compiler);
        }
        if options.target != recorded.target {
            return Err(CompileError::Checkpoint(format!(
                "the plan was made for another target than `{}` as it is now; compile for this one from a \
                 level before `phases`",
                options.target.name
            )));
        }
        if options.aim() != recorded.aim() {
            observer(Event::Note(format!(
                "the plan is made already: it stays of mode {} and for least {}",
                recorded.mode.name(),
                recorded.objective.name()
            )));
            (options.mode, options.objective) = (recorded.mode, recorded.objective);
        }
        Ok(compiler)
    }

    /// The parts of a checkpoint at the import level, quantised and brought to their stages.
    fn parts_of_floats(
        &self,
        checkpoint: Checkpoint,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        observer(Event::Reached(&checkpoint));
        clock.begin("calibrate", observer);
        let only = checkpoint.only_module().cloned();
        let Checkpoint { record, parts, smaller, .. } = checkpoint;
        let record = record.ok_or_else(|| missing("the record of a compile"))?;
        if let Some(module) = only {
            let calibrated_at = smaller.unwrap_or_else(|| module.clone());
            return self.part_of_floats(module, calibrated_at, record, clock, observer);
        }
        let of = parts.len();
        let mut series = PartSeries::new(self.samples(&record, observer)?, &self.options.precision);
        let mut prepared = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let on_host = matches!(part, CheckpointPart::Host(_));
            observer(Event::Part { index, of, on_host, is_planned: false });
            series.part = index;
            prepared.push(match part {
                CheckpointPart::Host(host) => {
                    run_host_code(&host, &mut series.samples)?;
                    PreparedPart::Host(host)
                }
                CheckpointPart::Machine { module, .. } => {
                    let (forms, _) = self.part_to_stages(module, &mut series, clock, observer)?;
                    PreparedPart::Machine(Box::new(forms))
                }
            });
        }
        self.finish_series(prepared, record, series, observer)
    }

    /// The only part of a checkpoint at the import level, quantised and brought to its stages;
    /// `calibrated_at` is the same at perhaps another size.
    fn part_of_floats(
        &self,
        mut module: Module,
        calibrated_at: Module,
        mut record: Record,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        let calibrated =
            self.calibrate_on(calibrated_at, &mut module, &record.table_rows, clock, observer)?;
        let (quantised, precision) = self.whole_in_integers(&module, calibrated, clock, observer)?;
        if !self.options.host && !quantised.tail.is_empty() {
            return Err(CompileError::of_pass("quantise", PassError::Unsupported(quantised.tail)));
        }
        record.host = record.host.filter(|_| !quantised.tail.is_empty());
        record.precision.extend(precision);
        observer(Event::Reached(&Checkpoint::of_one(Level::Quant, &record, quantised.module.clone())));
        let forms = self.forms(quantised.module, clock, observer)?;
        let yardstick = self.yardstick(&module, quantised.sample, clock, observer);
        Ok(PreparedParts { parts: vec![PreparedPart::Machine(Box::new(forms))], record, yardstick })
    }

    /// The parts of a checkpoint at the level of integers, brought to their stages.
    fn parts_of_integers(
        &self,
        parts: Vec<CheckpointPart>,
        record: Record,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        if self.options.precision != PrecisionOptions::default() && record.precision.is_empty() {
            observer(Event::Note("the function is of integers already: its precision stays".to_owned()));
        }
        let mut prepared = Vec::new();
        let mut marked = Vec::new();
        for part in parts {
            marked.push(match part {
                CheckpointPart::Machine { mut module, model } => {
                    Level::Quant.mark(&mut module);
                    CheckpointPart::Machine { module, model }
                }
                host @ CheckpointPart::Host(_) => host,
            });
        }
        let checkpoint = Checkpoint::of_parts(Level::Quant, record.clone(), marked);
        observer(Event::Reached(&checkpoint));
        for part in checkpoint.parts {
            prepared.push(match part {
                CheckpointPart::Host(host) => PreparedPart::Host(host),
                CheckpointPart::Machine { module, .. } => {
                    PreparedPart::Machine(Box::new(self.forms(module, clock, observer)?))
                }
            });
        }
        Ok(PreparedParts { parts: prepared, record, yardstick: None })
    }
}

/// That the code of every stage does what its ops say: a dump may have been edited.
fn demand_sound_stages(module: &Module) -> Result<(), CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    check(module, func).map_err(|faults| {
        let faults: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
        CompileError::Checkpoint(format!("stages that are not what their ops say:{faults}"))
    })
}

impl Prepared {
    /// Plans, schedules and emits as the options say.
    pub(super) fn finish_as_asked(
        &self,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let CompileOptions { mode, objective, .. } = self.compiler.options;
        self.finish(mode, objective, observer)
    }
}
