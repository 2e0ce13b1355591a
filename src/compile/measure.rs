//! What a compile says of its outputs' precision: the program that it wrote, run on the interpreter on a
//! sample, against f32.
//!
//! The figure is of the very bundle, so that it covers the plan and the emitted code too, not only the
//! arithmetic that the quantiser chose. An output whose channels are worth much less than the output as a
//! whole is told by groups of channels: in one figure for all, large channels hide what small ones have lost.

use std::sync::Arc;

use strata_ir::Module;
use strata_isa_spec::bundle::Port;
use strata_passes::quantise;
use strata_passes::quantise::noise::Power;

use super::model::Tensors;
use super::{Clock, Compiled, Compiler, Event};
use crate::host::HostPart;
use crate::io::array::Array;
use crate::session::{self, RunError, Session, simd};
use crate::stats::ChannelNoise;
use crate::work;

/// Multiply-accumulates of the f32 network up to which the program is run and its outputs are measured.
const SQNR_MACS: u64 = 24_000_000_000;

/// Channels whose magnitudes differ by more than this belong to different groups.
const APART: f64 = 16.0;
/// A group is told of if its ratio is lower than that of its output by this many decibels, and low by itself.
const LOWER_BY_DB: f64 = 10.0;
const LOW_DB: f64 = 20.0;
/// Of fewer elements a channel's magnitude says nothing.
const FEWEST_ELEMENTS: usize = 4;
/// An axis that is longer holds places rather than channels.
const MOST_CHANNELS: usize = 2048;

/// What a bundle is measured by.
#[derive(Clone, Debug)]
pub(super) struct Yardstick {
    /// The model's inputs of a sample, in its order.
    inputs: Vec<Array>,
    /// The model's outputs in f32, by name.
    reference: Tensors,
}

impl Compiler {
    /// Whether a network of so many multiply-accumulates is measured; if it is only too large for that, says
    /// so.
    pub(super) fn measures(&self, macs: u64, observer: &mut dyn FnMut(Event<'_>)) -> bool {
        let fits = macs <= SQNR_MACS;
        if self.options.measure_sqnr && !fits {
            let why = "the program is not measured against f32: it is too large to run on the interpreter \
                in seconds";
            observer(Event::Note(why.to_owned()));
        }
        self.options.measure_sqnr && fits
    }

    /// What the bundle of an imported network that is one part is measured by, on a sample.
    pub(super) fn yardstick(
        &self,
        module: &Module,
        sample: Vec<Array>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Option<Yardstick> {
        if !self.measures(work::macs(module), observer) {
            return None;
        }
        clock.begin("measure", observer);
        Yardstick::evaluated(module, sample).map_err(|error| observer(not_measured(&error))).ok()
    }
}

/// That the outputs have no figures, and why: the bundle is as good without.
fn not_measured(error: &RunError) -> Event<'static> {
    Event::Note(format!("the program is not measured against f32: {error}"))
}

impl Yardstick {
    /// A sample, and what an imported network gives for it.
    fn evaluated(module: &Module, inputs: Vec<Array>) -> Result<Self, RunError> {
        let main =
            module.function("main").ok_or_else(|| RunError::Bundle("no function `main`".to_owned()))?;
        let arguments: Vec<_> = session::to_arguments(module, &inputs)?.into_iter().map(Arc::new).collect();
        let results = quantise::forward(module, main, &arguments, &mut |_, _| {})?;
        let ports = session::ports(module, main, true)?;
        let named = ports.iter().zip(&results);
        let reference = named
            .map(|(port, tensor)| Ok((port.name.clone(), session::from_tensor(port, tensor)?)))
            .collect::<Result<_, RunError>>()?;
        Ok(Self { inputs, reference })
    }

    /// The inputs and the outputs of a model in parts, among all tensors of a sample.
    pub(super) fn of_parts(inputs: &[Port], outputs: &[String], mut tensors: Tensors) -> Self {
        let inputs = inputs.iter().filter_map(|port| tensors.get(&port.name)).cloned().collect();
        tensors.retain(|name, _| outputs.contains(name));
        Self { inputs, reference: tensors }
    }

    /// Runs the bundle of a compile and adds the signal-to-noise ratio of every output of reals to the
    /// statistics of the compile; those in the bundle are without, for what a compile measures is not what it
    /// makes. `hosts` is what the host runs of each part. If that fails it says so.
    pub(super) fn measure(
        &self,
        compiled: &mut Compiled,
        hosts: Vec<Option<HostPart>>,
        observer: &mut dyn FnMut(Event<'_>),
    ) {
        let inputs: Vec<_> =
            self.inputs.iter().enumerate().map(|(at, array)| (format!("#{at}"), array.clone())).collect();
        let session = simd().and_then(|simd| Session::of_whole(compiled.bundle.clone(), hosts, simd));
        let run = session.and_then(|session| session.run(&inputs, &mut |_| {}));
        let outputs = match run {
            Ok(outputs) => outputs,
            Err(error) => return observer(not_measured(&error)),
        };
        for ((name, got), port) in outputs.into_iter().zip(&compiled.bundle.manifest.outputs) {
            // What a detector keeps of its boxes may be more or fewer in integers: there is nothing to
            // compare then.
            let comparable = |want: &&Array| want.shape == got.shape && got.dtype.is_float();
            let Some(want) = self.reference.get(&name).filter(comparable) else { continue };
            let pairs = Pairs { shape: &got.shape, want: &want.values, got: &got.values };
            let power = pairs.power();
            let ratio = power.decibels();
            if power.noise != 0.0 && !ratio.is_finite() {
                let why = "it is 0 in f32, or holds what is no finite number";
                observer(Event::Note(format!(
                    "output `{name}` is not measured against f32: on the sample {why}"
                )));
                continue;
            }
            let weak = pairs.weak_groups(port, ratio);
            if !weak.is_empty() {
                compiled.stats.weak_channels.insert(name.clone(), weak);
            }
            compiled.stats.sqnr_db.insert(name, ratio.is_finite().then_some(ratio));
        }
    }
}

/// The values of an output in f32, and those that were got.
struct Pairs<'a> {
    shape: &'a [usize],
    want: &'a [f64],
    got: &'a [f64],
}

/// Neighbouring channels of like magnitude.
struct Group {
    first: usize,
    last: usize,
    /// The greatest mean square of a channel.
    loudest: f64,
    /// The least that is not 0.
    softest: f64,
    power: Power,
}

impl Pairs<'_> {
    fn power(&self) -> Power {
        let mut power = Power::default();
        self.want.iter().zip(self.got).for_each(|(&want, &got)| power.observe(want, got));
        power
    }

    /// Groups of channels that are much worse than the output as a whole.
    fn weak_groups(&self, port: &Port, ratio: f64) -> Vec<ChannelNoise> {
        let Some(axis) = channel_axis(self.shape, port) else { return Vec::new() };
        let groups = self.groups(axis);
        if groups.len() < 2 {
            return Vec::new();
        }
        let noise = groups.iter().map(|group| ChannelNoise {
            axis,
            first: group.first,
            last: group.last,
            sqnr_db: group.power.decibels(),
        });
        noise.filter(|noise| noise.sqnr_db < LOW_DB && noise.sqnr_db < ratio - LOWER_BY_DB).collect()
    }

    /// The channels along an axis as groups of neighbours of like magnitude. A channel of nothing but 0 joins
    /// any.
    fn groups(&self, axis: usize) -> Vec<Group> {
        let shape = self.shape;
        let inner: usize = shape[axis + 1..].iter().product();
        let mut channels = vec![Power::default(); shape[axis]];
        for (at, (&want, &got)) in self.want.iter().zip(self.got).enumerate() {
            channels[at / inner % shape[axis]].observe(want, got);
        }
        let n = (self.want.len() / shape[axis]).max(1) as f64;
        let mut groups: Vec<Group> = Vec::new();
        for (channel, power) in channels.into_iter().enumerate() {
            let square = power.signal / n;
            let near = |group: &Group| {
                let (softest, loudest) = (group.softest.min(square), group.loudest.max(square));
                square == 0.0 || loudest <= APART * APART * softest || group.loudest == 0.0
            };
            match groups.last_mut().filter(|group| near(group)) {
                Some(group) => group.add(channel, power, square),
                None => {
                    let softest = if square == 0.0 { f64::INFINITY } else { square };
                    groups.push(Group { first: channel, last: channel, loudest: square, softest, power });
                }
            }
        }
        groups
    }
}

impl Group {
    fn add(&mut self, channel: usize, power: Power, square: f64) {
        self.last = channel;
        self.power.add(power);
        self.loudest = self.loudest.max(square);
        if square > 0.0 {
            self.softest = self.softest.min(square);
        }
    }
}

/// The axis of an output that holds its channels: the last of the machine's four, else the shorter of the
/// inner two.
fn channel_axis(shape: &[usize], port: &Port) -> Option<usize> {
    let axis = match shape.len() {
        4 => port.perm.iter().position(|&axis| axis == 3)?,
        3 if shape[1] < shape[2] => 1,
        3 => 2,
        2 => 1,
        _ => return None,
    };
    let n = shape[axis];
    let n_elements = shape.iter().product::<usize>() / n.max(1);
    (n <= MOST_CHANNELS && n_elements >= FEWEST_ELEMENTS).then_some(axis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::CompileOptions;
    use crate::session::plain_port;
    use strata_backend::model::{Mode, Objective};
    use strata_frontend::proto::encode;
    use strata_frontend::zoo::{ZooOptions, build};
    use strata_isa_spec::Target;

    /// Boxes of up to 300 and scores of up to 1, all rounded to one step.
    fn detections(n: usize) -> Vec<f64> {
        let one =
            |at: usize| if at % 6 < 4 { (at * 37 % 300) as f64 } else { (at * 13 % 100) as f64 / 100.0 };
        (0..n * 6).map(one).collect()
    }

    fn rounded(values: &[f64], step: f64) -> Vec<f64> {
        values.iter().map(|x| (x / step).round() * step).collect()
    }

    #[test]
    fn scores_that_boxes_hide_are_told_of() {
        let want = detections(100);
        let got = rounded(&want, 300.0 / 255.0);
        let pairs = Pairs { shape: &[1, 100, 6], want: &want, got: &got };
        let ratio = pairs.power().decibels();
        assert!(ratio > 40.0, "all of it looks well: {ratio}");
        let weak = pairs.weak_groups(&plain_port("detections", &[1, 100, 6], "f32"), ratio);
        let [scores] = weak.as_slice() else { panic!("one group: {weak:?}") };
        assert_eq!((scores.axis, scores.first, scores.last), (2, 4, 5));
        assert!(scores.sqnr_db < 10.0, "{scores:?}");
    }

    #[test]
    fn channels_of_like_magnitude_are_one_group() {
        let want: Vec<f64> = (0..600).map(|at| ((at * 37) % 101) as f64 - 50.0).collect();
        let got = rounded(&want, 100.0 / 255.0);
        let pairs = Pairs { shape: &[1, 100, 6], want: &want, got: &got };
        let port = plain_port("features", &[1, 100, 6], "f32");
        assert_eq!(pairs.groups(2).len(), 1);
        assert!(pairs.weak_groups(&port, pairs.power().decibels()).is_empty());
    }

    #[test]
    fn a_program_that_cannot_be_measured_is_written_all_the_same() {
        let options = ZooOptions { size: Some((24, 16)), ..ZooOptions::default() };
        let model = encode(&build("fsrcnn", &options).expect("the zoo has it"));
        let compiler = Compiler::new(CompileOptions::new(Target::preset("x1", &[]).expect("a preset")));
        let mut prepared = compiler.prepare(&model, "net.onnx", &mut |_| {}).expect("it is prepared");
        prepared.parts.yardstick.as_mut().expect("it is small").inputs.clear();
        let mut notes = Vec::new();
        let mut observer = |event: Event<'_>| {
            if let Event::Note(note) = event {
                notes.push(note);
            }
        };
        let compiled = prepared.finish(Mode::Multi, Objective::default(), &mut observer).expect("a program");
        assert!(compiled.stats.sqnr_db.is_empty() && compiled.bundle.stats.is_some());
        assert!(notes.len() == 1 && notes[0].contains("is missing"), "{notes:?}");
    }
}
