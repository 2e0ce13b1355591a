//! Calibration of a model that is one part: at its own size or, on noise, at a smaller one.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::pass::PassError;
use strata_ir::{Module, Op};
use strata_isa_spec::bundle::Port;
use strata_passes::quantise;
use strata_passes::quantise::{Calibration, CalibrationError, SampleSource};

use super::model::Model;
use super::noise::{self, NoiseInput};
use super::precision::{Chosen, PrecisionMode};
use super::{CalibrationData, Clock, CompileError, Compiler, Event, GivenRanges, main_ports, missing};
use crate::io::array::Array;
use crate::ports::RunError;
use crate::ptq::{self, Samples};
use crate::work;

/// Multiply-accumulates of an f32 forward pass up to which a network is calibrated on noise at its own input
/// size; larger ones are calibrated at a smaller one.
const NOISE_CALIBRATION_MACS: u64 = 12_000_000_000;

/// A model at one input size, calibrated.
pub(super) struct Calibrated {
    pub calibration: Calibration,
    /// Which activations are 16-bit.
    pub chosen: Chosen,
    /// The first sample, or noise of the model's own size where it was calibrated at a smaller one, to
    /// measure outputs on.
    pub sample: Vec<Array>,
}

/// Which part of a model is calibrated.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartOf {
    /// Which, from 0.
    pub index: usize,
    /// Whether it is the whole model.
    pub is_alone: bool,
}

impl Compiler {
    /// Prepares `module` and `original`, the same at perhaps another size, and gathers ranges of `module` on
    /// the given data, or on noise. `rows` tells of inputs that number the rows of tables how many there are.
    pub(super) fn calibrate_on(
        &self,
        mut module: Module,
        original: &mut Module,
        rows: &BTreeMap<String, usize>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Calibrated, CompileError> {
        let given = quantise::given_scales(&module);
        let needed = given.needs_calibration;
        observe_given(&given, observer);
        let sample = match &self.options.calibration {
            CalibrationData::Samples(samples) => samples.first().cloned().unwrap_or_default(),
            CalibrationData::Noise { seed, samples } => {
                if needed {
                    observer(Event::noise(*samples, &noise_inputs(&module, rows)?));
                }
                let inputs = noise_inputs(original, rows)?;
                demand_noise(1, &inputs)?;
                noise::sample(*seed, 0, &inputs)
            }
        };
        let tensors = self.options.calibration.arguments(&module, rows)?;
        let part = PartOf { index: 0, is_alone: true };
        let (calibration, chosen) =
            self.choose(part, &mut [&mut module, original], &tensors, clock, observer)?;
        Ok(Calibrated { calibration, chosen, sample })
    }

    /// Prepares the networks of a part, the first of which the samples fit, and chooses what quantising them
    /// needs: ranges, precision, corrections of biases.
    pub(super) fn choose(
        &self,
        part: PartOf,
        modules: &mut [&mut Module],
        samples: &Samples,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Calibration, Chosen), CompileError> {
        let module = modules.first().ok_or_else(|| missing("a network"))?;
        let given = quantise::given_scales(module);
        if given.n_fixed + given.n_dynamic > 0 {
            // Weights and biases that are quantised already are left as they are.
            let needed = given.needs_calibration;
            clock.begin("calibrate", observer);
            let mut calibration =
                if needed { Calibration::collect(module, samples)? } else { Calibration::none() };
            let unknown_ranges = self.take_given_ranges(part.index, module, &mut calibration)?;
            let mut precision = self.options.precision.clone();
            // What is chosen for the whole model is not meant for a part of it that leaves no choice.
            if given.fix_precision && !part.is_alone && precision.mode != PrecisionMode::Int8 {
                precision.mode = PrecisionMode::Int8;
                observer(Event::Note(format!(
                    "part {} brings its own scales: its precision stays as it is",
                    part.index
                )));
            }
            clock.begin("choose precision", observer);
            let chosen = self.precision(&precision, module, &calibration, samples, observer)?;
            return Ok((calibration, Chosen { unknown_ranges, ..chosen }));
        }
        let mut ptq = self.options.ptq.clone();
        // What noise shows of single channels and of means is nothing to fit a network to.
        ptq.equalise = self.options.equalises();
        ptq.bias_correction &= self.options.calibration.is_data();
        clock.begin("equalise", observer);
        ptq.prepare(modules, samples)?;
        clock.begin("calibrate", observer);
        let module = modules.first().ok_or_else(|| missing("a network"))?;
        let mut calibration = Calibration::collect(module, samples)?;
        let unknown_ranges = self.take_given_ranges(part.index, module, &mut calibration)?;
        clock.begin("choose precision", observer);
        let chosen = self.precision(&self.options.precision, module, &calibration, samples, observer)?;
        clock.begin("correct biases", observer);
        ptq.correct(&mut calibration, module, &chosen.precision, samples)?;
        Ok((calibration, Chosen { unknown_ranges, ..chosen }))
    }

    /// Takes the ranges that are given for a part in place of those chosen. Gives those of values that it
    /// does not have.
    fn take_given_ranges(
        &self,
        part: usize,
        module: &Module,
        calibration: &mut Calibration,
    ) -> Result<Vec<String>, CompileError> {
        let Some(GivenRanges { file }) = &self.options.ranges else { return Ok(Vec::new()) };
        if file.equalised != self.options.equalises() {
            let which = |equalised| if equalised { "equalised" } else { "not equalised" };
            return Err(CompileError::Ranges(format!(
                "they are of a network that is {}, and this one is {}: channels are equalised with \
                 --calibrate and without --equalise off",
                which(file.equalised),
                which(self.options.equalises())
            )));
        }
        Ok(calibration.set_ranges(module, &file.of_part(part)))
    }

    /// That every range that is given was of a value of a part. `unknown` are those of parts that do not have
    /// the value; `has_part` tells which parts the machine runs.
    pub(super) fn demand_known_ranges(
        &self,
        mut unknown: Vec<String>,
        has_part: impl Fn(usize) -> bool,
    ) -> Result<(), CompileError> {
        let given = self.options.ranges.iter().flat_map(|given| &given.file.tensors);
        let elsewhere = given.filter(|range| !has_part(range.part));
        unknown.extend(elsewhere.map(|range| format!("`{}` of part {}", range.tensor, range.part)));
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(CompileError::Calibration(CalibrationError::UnknownTensors(unknown))),
        }
    }

    /// The network at a smaller input size to be calibrated at, if it is large, there is but noise to
    /// calibrate it on, and its spatial extents may shrink.
    pub(super) fn smaller(&self, model: &Model<'_>, module: &Module) -> Option<Module> {
        let CalibrationData::Noise { .. } = self.options.calibration else { return None };
        let ports = main_ports(module).ok()?;
        if model.depends_on_shapes() {
            return None;
        }
        let macs = work::macs(module);
        let mut shrink = 1;
        while macs / (shrink * shrink) as u64 > NOISE_CALIBRATION_MACS {
            shrink *= 2;
        }
        while shrink > 1 {
            let shapes = ports.iter().map(|port| {
                // The two axes after batch and channels in the machine's order are height and width.
                let mut shape = port.shape.clone();
                for machine_axis in [1, 2] {
                    if let (4, Some(&axis)) = (shape.len(), port.perm.get(machine_axis)) {
                        shape[axis] = (shape[axis] / shrink).next_multiple_of(32).min(shape[axis]);
                    }
                }
                (port.name.clone(), shape)
            });
            // A network whose layers depend on the size (a reshape to fully connected layers) does not
            // shrink.
            if let Ok(mut small) = model.import(&shapes.collect())
                && ptq::canonicalise(&mut small.module).is_ok()
                && small.module.walk(small.module.body()).len() == module.walk(module.body()).len()
            {
                share_constants(module, &mut small.module);
                return Some(small.module);
            }
            shrink /= 2;
        }
        None
    }
}

/// Has the constants of a module that are equal to those at the same place of another be the same tensors.
fn share_constants(with: &Module, module: &mut Module) {
    let ops = |module: &Module| module.walk(module.body());
    for (op, other) in ops(module).into_iter().zip(ops(with)) {
        let (Op::Const(constant), Op::Const(other)) = (&mut module.op_mut(op).op, &with.op(other).op) else {
            continue;
        };
        if constant.values.tensor == other.values.tensor {
            constant.values.tensor = Arc::clone(&other.values.tensor);
        }
    }
}

/// What a network is calibrated on where passes do it themselves.
#[derive(Debug)]
pub(crate) struct GivenSamples {
    /// The data, or what noise to make.
    pub data: CalibrationData,
    /// For inputs that number the rows of tables, how many rows there are.
    pub rows: BTreeMap<String, usize>,
}

impl SampleSource for GivenSamples {
    fn samples(&self, module: &Module) -> Result<Samples, PassError> {
        self.data.arguments(module, &self.rows).map_err(PassError::other)
    }

    fn are_data(&self) -> bool {
        self.data.is_data()
    }
}

impl CalibrationData {
    /// The samples as arguments of a network's `@main`. `rows` tells of inputs that number the rows of tables
    /// how many there are.
    fn arguments(&self, module: &Module, rows: &BTreeMap<String, usize>) -> Result<Samples, CompileError> {
        let noise: Vec<Vec<Array>>;
        let arrays = match self {
            Self::Samples(samples) => samples,
            Self::Noise { seed, samples } => {
                let inputs = noise_inputs(module, rows)?;
                demand_noise(*samples, &inputs)?;
                noise = (0..*samples).map(|at| noise::sample(*seed, at, &inputs)).collect();
                &noise
            }
        };
        ptq::arguments(module, arrays).map_err(CompileError::CalibrationData)
    }
}

/// That noise can be made.
pub(super) fn demand_noise(samples: usize, inputs: &[NoiseInput]) -> Result<(), CompileError> {
    let refused = |problem| CompileError::CalibrationData(RunError::Inputs { problems: vec![problem] });
    noise::demand_room(samples, inputs).map_err(refused)
}

/// The inputs of a network that noise is made for. `rows` tells of those that number the rows of tables how
/// many there are.
fn noise_inputs(module: &Module, rows: &BTreeMap<String, usize>) -> Result<Vec<NoiseInput>, CompileError> {
    let ports = main_ports(module)?;
    let input = |port: &Port| NoiseInput::new(&port.shape, &port.dtype, rows.get(&port.name).copied());
    Ok(ports.iter().map(input).collect())
}

/// Says what the model quantises itself.
fn observe_given(given: &quantise::GivenScales, observer: &mut dyn FnMut(Event<'_>)) {
    let quantise::GivenScales { n_fixed, n_dynamic, needs_calibration, .. } = *given;
    if n_dynamic > 0 {
        observer(Event::Note(format!(
            "the model quantises {n_dynamic} activations with scales that it computes from the data; their \
                scales are \
             calibrated and fixed here, the weights' are the model's"
        )));
    }
    if !needs_calibration {
        observer(Event::Note("the model quantises every value itself: no calibration is needed".to_owned()));
    } else if n_fixed > 0 {
        observer(Event::Note(format!(
            "the model quantises {n_fixed} values itself; only the others are calibrated"
        )));
    }
}
