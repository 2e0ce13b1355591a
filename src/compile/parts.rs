//! From a model to its parts: what the machine runs, as modules at the stages level, and what it leaves to
//! the host.
//!
//! A model that the machine can run as a whole is one part. Else the nodes that are in the way go to the
//! host, the rest is tried again part by part, and so on: the set of host nodes only grows. What a part is
//! calibrated on is what the parts before it give for the samples, in f32.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_frontend::import::{self, Blocked, ImportError, ImportOptions, Imported, Resolved, import_proto};
use strata_frontend::partition::{GraphPart, partition};
use strata_frontend::proto::ValueInfoProto;
use strata_ir::Module;
use strata_ir::pass::{Level, PassError, PassFailure, UnsupportedOp};
use strata_isa_spec::bundle::Port;
use strata_passes::quantise;

use super::calibrate::{Calibrated, PartOf, demand_noise};
use super::checkpoint::{Checkpoint, CheckpointPart, HostCode, Record};
use super::forms::Forms;
use super::host::host_part;
use super::measure::Yardstick;
use super::model::{Model, Tensors};
use super::noise::{self, NoiseInput};
use super::{
    CalibrationData, Clock, CompileError, Compiler, Event, PrecisionOptions, Ranges, missing, network_name,
};
use crate::io::array::Array;
use crate::ptq::{self, Samples};
use crate::session::{self, RunError};
use crate::stats::PrecisionStats;
use crate::work;

/// A part of a model that is ready to be planned, or to be run by the host.
#[derive(Clone, Debug)]
pub(super) enum PreparedPart {
    /// A module at the stages level or a later one.
    Machine(Box<Forms>),
    /// What the host runs.
    Host(HostCode),
}

/// All parts of a model.
#[derive(Clone, Debug)]
pub(super) struct PreparedParts {
    /// In the order in which they run.
    pub parts: Vec<PreparedPart>,
    /// What is known of the whole.
    pub record: Record,
    /// What the bundle is measured by, if it is.
    pub yardstick: Option<Yardstick>,
}

impl PreparedParts {
    /// The checkpoint at the level of integers.
    fn in_integers(&self) -> Checkpoint {
        let parts = self.parts.iter().filter_map(|part| match part {
            PreparedPart::Machine(forms) => {
                Some(CheckpointPart::Machine { module: forms.in_integers.clone()?, model: None })
            }
            PreparedPart::Host(host) => Some(CheckpointPart::Host(host.clone())),
        });
        Checkpoint::of_parts(Level::Quant, self.record.clone(), parts.collect())
    }
}

/// A network that is one part, in integers.
pub(super) struct InIntegers {
    /// It.
    pub module: Module,
    /// Ops at its end that stay on the host.
    pub tail: Vec<UnsupportedOp>,
    /// A sample of its inputs, to measure its outputs on.
    pub sample: Vec<Array>,
}

/// Why parts could not be prepared.
enum Obstacle {
    /// Nodes that the machine cannot run, by index, and why.
    Nodes(BTreeMap<usize, Blocked>),
    /// Anything else.
    Error(CompileError),
}

impl<E: Into<CompileError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// The ONNX nodes that ops of a module stand for; `None` if an op's origin is not known.
fn origins(ops: &[UnsupportedOp], nodes: &[usize]) -> Option<BTreeMap<usize, Blocked>> {
    let origin = |op: &UnsupportedOp| {
        let line = usize::try_from(op.line?).ok()?;
        Some((*nodes.get(line)?, Blocked::Unsupported(format!("{}: {}", op.op, op.reason))))
    };
    ops.iter().map(origin).collect()
}

impl Compiler {
    /// Imports, calibrates and quantises a model, in as many parts as it takes.
    pub(super) fn parts(
        &self,
        model: &Resolved,
        file_name: &str,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        let model = Model::new(model, file_name, &self.options.input_shapes);
        let mut blocked = model.long_recurrences()?;
        if !self.options.host || model.leaves_nothing(&blocked)? {
            blocked.clear();
        }
        if blocked.is_empty() {
            match self.whole(&model, clock, observer) {
                Ok(parts) => return Ok(parts),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Nodes(nodes)) => blocked = nodes,
            }
        }
        blocked.extend(model.survey()?.blocked.clone());
        let mut samples = None;
        loop {
            let host: BTreeSet<usize> = blocked.keys().copied().collect();
            let cut = partition(model.proto(), model.survey()?, &host);
            if !self.options.host && cut.iter().all(GraphPart::on_host) {
                return Err(model.unsupported(&blocked));
            }
            model.demand_runner(&cut, &blocked)?;
            let samples = match &samples {
                Some(samples) => samples,
                None => samples.insert(self.samples(&self.record(&model)?, observer)?),
            };
            match self.cut((&model, samples.clone()), &cut, &mut blocked, clock, observer) {
                Ok(parts) if self.options.host => {
                    if cut.iter().all(GraphPart::on_host) {
                        let what = "the machine can run nothing of the model: the host runs all of it";
                        observer(Event::Note(what.to_owned()));
                    }
                    return Ok(parts);
                }
                Ok(_) => return Err(model.unsupported(&blocked)),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Nodes(more)) => {
                    let known = blocked.len();
                    blocked.extend(more);
                    // Each round has to bring news, or it would go on for ever.
                    if blocked.len() == known {
                        return Err(model.unsupported(&blocked));
                    }
                }
            }
        }
    }

    /// The model as one machine part.
    fn whole(
        &self,
        model: &Model<'_>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, Obstacle> {
        let mut imported = match model.import(&BTreeMap::new()) {
            Ok(imported) => imported,
            // Which nodes, and whether it is nodes at all, the survey says.
            Err(ImportError::Unsupported(_)) => return Err(Obstacle::Nodes(BTreeMap::new())),
            Err(error) => return Err(CompileError::from(error).into()),
        };
        clock.begin("canonicalise", observer);
        ptq::canonicalise(&mut imported.module)?;
        let mut record = self.record(model)?;
        record.parameters = imported.n_parameters;
        let nodes: Vec<usize> = (0..imported.n_nodes).collect();
        clock.begin("samples", observer);
        let smaller = self.smaller(model, &imported.module);
        let as_imported = imported.module.clone();
        let calibrated_at = smaller.as_ref().unwrap_or(&as_imported).clone();
        let calibrated =
            self.calibrate_on(calibrated_at, &mut imported.module, &record.table_rows, clock, observer);
        let quantised = calibrated
            .and_then(|calibrated| self.whole_in_integers(&imported.module, calibrated, clock, observer));
        let tail = quantised.as_ref().ok().and_then(|(quantised, _)| origins(&quantised.tail, &nodes));
        let tail = tail.unwrap_or_default();
        if !tail.is_empty() {
            record.host = Some(model.host_stats(model.survey()?, &tail, &[]));
        }
        observer(Event::Reached(&Checkpoint {
            smaller,
            ..Checkpoint::of_one(Level::Import, &record, as_imported)
        }));
        let (quantised, precision) = quantised.map_err(|error| obstacle(error, &nodes))?;
        if !self.options.host && !tail.is_empty() {
            return Err(Obstacle::Error(model.unsupported(&tail)));
        }
        record.precision.extend(precision);
        observer(Event::Reached(&Checkpoint::of_one(Level::Quant, &record, quantised.module.clone())));
        // Before the stages are formed, so that weights in f32 do not stand beside all that comes of them.
        // What it has to say waits until it is known that the model is one part.
        let mut notes = Vec::new();
        let yardstick = self.yardstick(&imported.module, quantised.sample, clock, &mut |event| match event {
            Event::Note(note) => notes.push(note),
            other => observer(other),
        });
        drop(imported);
        let forms = self.forms(quantised.module, clock, observer);
        let forms = forms.map_err(|error| obstacle(error, &nodes))?;
        notes.into_iter().for_each(|note| observer(Event::Note(note)));
        Ok(PreparedParts { parts: vec![PreparedPart::Machine(Box::new(forms))], record, yardstick })
    }

    /// A calibrated network in integers, and what a search for 16-bit activations found.
    pub(super) fn whole_in_integers(
        &self,
        in_floats: &Module,
        calibrated: Calibrated,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(InIntegers, Option<PrecisionStats>), CompileError> {
        let Calibrated { calibration, chosen, sample } = calibrated;
        let mut module = in_floats.clone();
        let ranges = Ranges { calibration, precision: chosen.precision };
        let tail = self.quantise(&mut module, ranges, clock, observer)?;
        demand_known(chosen.unknown)?;
        self.demand_known_ranges(chosen.unknown_ranges, |part| part == 0)?;
        Ok((InIntegers { module, tail, sample }, chosen.stats))
    }

    /// The parts of a cut, calibrated on `samples` of the model's inputs. Nodes that turn out to be of an f32
    /// tail are added to those that are blocked.
    fn cut(
        &self,
        (model, samples): (&Model<'_>, Vec<Tensors>),
        cut: &[GraphPart],
        blocked: &mut BTreeMap<usize, Blocked>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, Obstacle> {
        clock.begin("calibrate", observer);
        let mut record = self.record(model)?;
        let mut series = PartSeries::new(samples, &self.options.precision);
        let (mut parts, mut as_imported) = (Vec::new(), Vec::new());
        let (mut tails, mut new) = (BTreeMap::new(), BTreeMap::new());
        for (index, part) in cut.iter().enumerate() {
            observer(Event::Part { index, of: cut.len(), on_host: part.on_host(), is_planned: false });
            series.part = index;
            if part.on_host() {
                let host = host_part(part, model.file_name, &mut series.samples)?;
                as_imported.push(CheckpointPart::Host(host.clone()));
                parts.push(PreparedPart::Host(host));
                continue;
            }
            let options = ImportOptions { file_name: model.file_name.to_owned(), ..ImportOptions::default() };
            let Imported { mut module, n_parameters, .. } = import_proto(&part.model, &options)?;
            ptq::canonicalise(&mut module)?;
            as_imported.push(CheckpointPart::Machine { module: module.clone(), model: None });
            record.parameters += n_parameters;
            match self.part_to_stages(module, &mut series, clock, observer) {
                Ok((forms, tail)) => {
                    tails.extend(origins(&tail, &part.nodes).unwrap_or_default());
                    parts.push(PreparedPart::Machine(Box::new(forms)));
                }
                // Other parts may have more to say.
                Err(error) => match obstacle(error, &part.nodes) {
                    Obstacle::Nodes(nodes) => new.extend(nodes),
                    error @ Obstacle::Error(_) => return Err(error),
                },
            }
        }
        if !new.is_empty() {
            return Err(Obstacle::Nodes(new));
        }
        blocked.extend(tails);
        record.host = Some(model.host_stats(model.survey()?, blocked, cut));
        observer(Event::Reached(&Checkpoint::of_parts(Level::Import, record.clone(), as_imported)));
        Ok(self.finish_series(parts, record, series, observer)?)
    }

    /// Calibrates a part of several on what the parts before it give, and brings it to its stages, with the
    /// ops at its end that stay on the host.
    pub(super) fn part_to_stages(
        &self,
        mut module: Module,
        series: &mut PartSeries,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Forms, Vec<UnsupportedOp>), CompileError> {
        let tensors = part_arguments(&module, &mut series.samples)?;
        let part = PartOf { index: series.part, is_alone: false };
        let (calibration, chosen) = self.choose(part, &mut [&mut module], &tensors, clock, observer)?;
        series.unknown_ranges.extend(chosen.unknown_ranges);
        series.unknown.retain(|name| chosen.unknown.contains(name));
        series.precision.extend(chosen.stats);
        series.macs += work::macs(&module);
        let ranges = Ranges { calibration, precision: chosen.precision };
        let tail = self.quantise(&mut module, ranges, clock, observer)?;
        Ok((self.forms(module, clock, observer)?, tail))
    }

    /// All parts of several, each of which was brought to its stages.
    pub(super) fn finish_series(
        &self,
        parts: Vec<PreparedPart>,
        mut record: Record,
        series: PartSeries,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<PreparedParts, CompileError> {
        demand_known(series.unknown)?;
        let is_of_machine = |part: usize| matches!(parts.get(part), Some(PreparedPart::Machine(_)));
        self.demand_known_ranges(series.unknown_ranges, is_of_machine)?;
        record.precision = series.precision;
        let measured = self.measures(series.macs, observer);
        let sample = series.samples.into_iter().next().filter(|_| measured);
        let yardstick = sample.map(|tensors| Yardstick::of_parts(&record.inputs, &record.outputs, tensors));
        let prepared = PreparedParts { parts, record, yardstick };
        observer(Event::Reached(&prepared.in_integers()));
        Ok(prepared)
    }

    /// The calibration samples, with a tensor for each of the model's inputs.
    ///
    /// # Errors
    /// If noise takes more memory than there is.
    pub(super) fn samples(
        &self,
        record: &Record,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Tensors>, CompileError> {
        let named = |arrays: Vec<Array>| -> Tensors {
            let names = record.inputs.iter().map(|port| port.name.clone());
            let internal = |array| session::to_internal(Cow::Owned(array)).into_owned();
            names.zip(arrays.into_iter().map(internal)).collect()
        };
        Ok(match &self.options.calibration {
            CalibrationData::Samples(samples) => samples.iter().cloned().map(named).collect(),
            CalibrationData::Noise { seed, samples } => {
                let input = |port: &Port| {
                    NoiseInput::new(&port.shape, &port.dtype, record.table_rows.get(&port.name).copied())
                };
                let inputs: Vec<NoiseInput> = record.inputs.iter().map(input).collect();
                demand_noise(*samples, &inputs)?;
                observer(Event::noise(*samples, &inputs));
                (0..*samples).map(|sample| named(noise::sample(*seed, sample, &inputs))).collect()
            }
        })
    }

    /// What is known of a model before its parts are.
    fn record(&self, model: &Model<'_>) -> Result<Record, ImportError> {
        let port = |port: &import::Port| session::plain_port(&port.name, &port.shape, port.dtype);
        let outputs = model.proto().graph.iter().flat_map(|graph| &graph.output);
        let seen = |info: &ValueInfoProto| {
            Some((info.name.clone(), model.resolved.user_dtype(&info.name)?.to_owned()))
        };
        Ok(Record {
            network: network_name(model.file_name),
            options: self.options.to_record(self.options.aim()),
            inputs: import::inputs(model.resolved, model.options())?.iter().map(port).collect(),
            output_types: outputs.clone().filter_map(seen).collect(),
            outputs: outputs.map(|info| info.name.clone()).collect(),
            table_rows: model.indexed_rows(),
            parameters: 0,
            precision: Vec::new(),
            host: None,
        })
    }
}

/// Parts of a model, one after the other, on their way from floats to stages.
pub(super) struct PartSeries {
    /// For every sample the tensors that are known: the model's inputs, and what the parts so far give.
    pub samples: Vec<Tensors>,
    /// Which part comes, from 0.
    pub part: usize,
    /// Layers to be 16-bit that no part so far has.
    unknown: BTreeSet<String>,
    /// Values with given ranges that their part does not have.
    unknown_ranges: Vec<String>,
    /// What searches for 16-bit activations found.
    precision: Vec<PrecisionStats>,
    /// Multiply-accumulates of the parts so far.
    macs: u64,
}

impl PartSeries {
    /// Before the first part.
    pub(super) fn new(samples: Vec<Tensors>, precision: &PrecisionOptions) -> Self {
        let unknown = precision.int16.iter().cloned().collect();
        Self { samples, part: 0, unknown, unknown_ranges: Vec::new(), precision: Vec::new(), macs: 0 }
    }
}

/// What stops a pass: nodes of the model that can go to the host, if that is what it says.
fn obstacle(error: CompileError, nodes: &[usize]) -> Obstacle {
    if let CompileError::Pass { failure: PassFailure::Pass(PassError::Unsupported(ops)), .. } = &error
        && let Some(nodes) = origins(ops, nodes)
    {
        return Obstacle::Nodes(nodes);
    }
    Obstacle::Error(error)
}

/// That every layer asked for is there.
pub(super) fn demand_known(unknown: BTreeSet<String>) -> Result<(), CompileError> {
    if unknown.is_empty() { Ok(()) } else { Err(CompileError::UnknownLayers(unknown.into_iter().collect())) }
}

/// The arguments of a machine part for every sample; the samples get what it gives.
fn part_arguments(module: &Module, samples: &mut [Tensors]) -> Result<Samples, CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    let wrong = CompileError::CalibrationData;
    let (takes, gives) = (
        session::ports(module, func, false).map_err(wrong)?,
        session::ports(module, func, true).map_err(CompileError::CalibrationData)?,
    );
    let mut tensors = Samples::new();
    for sample in samples.iter() {
        let arrays: Vec<Array> = takes.iter().filter_map(|port| sample.get(&port.name)).cloned().collect();
        let arguments = session::to_arguments(module, &arrays).map_err(CompileError::CalibrationData)?;
        tensors.push(arguments.into_iter().map(Arc::new).collect());
    }
    for (sample, arguments) in samples.iter_mut().zip(&tensors) {
        let results = quantise::forward(module, func, arguments, &mut |_, _| {})
            .map_err(|error| CompileError::CalibrationData(RunError::Eval(error)))?;
        for (port, tensor) in gives.iter().zip(&results) {
            let array = session::from_tensor(port, tensor).map_err(CompileError::CalibrationData)?;
            sample.insert(port.name.clone(), array);
        }
    }
    Ok(tensors)
}
