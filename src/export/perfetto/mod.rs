//! The timed run of a bundle as a trace that Perfetto (ui.perfetto.dev) shows.
//!
//! Each program of a bundle is a process with these tracks: the phases; each partition of the array; each
//! queue of the DMA engine; each stage, by phases; and as counters the activation SRAM in use. A slice is
//! named after the stage that works or after what is waited for, and its category is the key of
//! [`TimeUse`](strata_isa_spec::timed::TimeUse), so that the slices of a category add up to what
//! `strata run --timing` reports. Where a track is idle it has no slice.
//!
//! # Units
//! Viewers know nanoseconds only. A cycle is shown as one, whatever the clock, so that no figure is rounded.

mod proto;
mod writer;

use strata_isa_spec::bundle::{Bundle, Machine};
use strata_isa_spec::timed::{Activity, PhaseTrace, Slice, Traced, activation_use, simulate_traced};
use strata_isa_spec::{Head, Phase};

use self::writer::{Event, Track, Writer};
use super::{ExportError, Format, Kind, Source};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "perfetto",
    summary: "a trace of the timed run, for ui.perfetto.dev",
    takes: &[Kind::Bundle],
    is_text: false,
    write,
};

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    let bundle = source.bundle()?;
    if bundle.machines().next().is_none() {
        return Err(ExportError::Content("the bundle holds no program: the host runs all of it".to_owned()));
    }
    Ok(trace(bundle))
}

/// The trace of all programs of a bundle, one after another, as if the host took no time.
fn trace(bundle: &Bundle) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut start = 0;
    for (index, machine) in bundle.machines().enumerate() {
        let traced = simulate_traced(&machine.program, &bundle.manifest.target);
        let network = &bundle.manifest.network;
        let process = writer.process(&format!("{network}, program {index} (1 ns is 1 cycle)"));
        let mut tracks = ProgramTracks { writer: &mut writer, machine, traced: &traced, start, process };
        tracks.phases();
        tracks.memory();
        tracks.partitions();
        tracks.queues();
        tracks.stages();
        start += traced.timing.cycles;
    }
    writer.finish()
}

/// The tracks of a program.
struct ProgramTracks<'a> {
    writer: &'a mut Writer,
    machine: &'a Machine,
    traced: &'a Traced,
    /// The cycle at which the program begins.
    start: u64,
    process: Track,
}

impl ProgramTracks<'_> {
    fn phases(&mut self) {
        let track = self.writer.track(self.process, "phases");
        for (index, time) in self.traced.timing.phases.iter().enumerate() {
            let start = self.start + time.start;
            let stages = ("stages", time.stages.len() as u64);
            let name = format!("phase {index}");
            let end = start + time.cycles;
            self.writer
                .event(track, &Event { start, end, name: &name, category: "phase", arguments: &[stages] });
        }
    }

    fn memory(&mut self) {
        let in_use = self.writer.counter(self.process, "activation SRAM in use");
        let highest = self.writer.counter(self.process, "activation SRAM up to the last byte in use");
        let held = activation_use(&self.machine.program);
        for (held, time) in held.iter().zip(&self.traced.timing.phases) {
            self.writer.value(in_use, self.start + time.start, held.bytes);
            self.writer.value(highest, self.start + time.start, held.end);
        }
        for counter in [in_use, highest] {
            self.writer.value(counter, self.start + self.traced.timing.cycles, 0);
        }
    }

    fn partitions(&mut self) {
        let group = self.writer.track(self.process, "array");
        let n_partitions = self.traced.phases.iter().map(|phase| phase.partitions.len()).max();
        for partition in 0..n_partitions.unwrap_or(0) {
            let track = self.writer.track(group, &format!("partition {partition}"));
            self.slices_of_phases(track, |phase| phase.partitions.get(partition));
        }
    }

    fn queues(&mut self) {
        let group = self.writer.track(self.process, "DMA");
        let load = self.writer.track(group, "loads");
        self.slices_of_phases(load, |phase| Some(&phase.load));
        let store = self.writer.track(group, "stores");
        self.slices_of_phases(store, |phase| Some(&phase.store));
        let weights = self.writer.track(group, "weights");
        self.slices_of_phases(weights, |phase| Some(&phase.weights));
    }

    fn stages(&mut self) {
        let group = self.writer.track(self.process, "stages");
        let (machine, traced) = (self.machine, self.traced);
        for (index, (phase, trace)) in machine.program.phases.iter().zip(&traced.phases).enumerate() {
            let of_phase = self.writer.track(group, &format!("phase {index}"));
            for (stage, slices) in trace.stages.iter().enumerate() {
                let track = self.writer.track(of_phase, &stage_name(machine, phase, stage));
                self.slices(track, phase, slices);
            }
        }
    }

    fn slices_of_phases<'t>(&mut self, track: Track, of: impl Fn(&'t PhaseTrace) -> Option<&'t Vec<Slice>>)
    where
        Self: 't,
    {
        let (machine, traced) = (self.machine, self.traced);
        for (phase, trace) in machine.program.phases.iter().zip(&traced.phases) {
            if let Some(slices) = of(trace) {
                self.slices(track, phase, slices);
            }
        }
    }

    fn slices(&mut self, track: Track, phase: &Phase, slices: &[Slice]) {
        for slice in slices {
            let Some(shown) = shown(slice.activity) else { continue };
            let worker = slice.stage.filter(|_| slice.activity == Activity::Busy);
            let name = worker.map(|stage| stage_name(self.machine, phase, stage));
            let (start, end) = (self.start + slice.start, self.start + slice.end());
            let name = name.as_deref().unwrap_or(shown.name);
            let event = Event { start, end, name, category: shown.category, arguments: &[] };
            self.writer.event(track, &event);
        }
    }
}

/// What a viewer calls an activity.
struct Shown {
    name: &'static str,
    /// The key of the statistics.
    category: &'static str,
}

fn shown(activity: Activity) -> Option<Shown> {
    let (name, category) = match activity {
        Activity::Configuring => ("reconfiguring", "configuring"),
        Activity::Switching => ("switching stages", "switching"),
        Activity::Busy => ("weights", "busy"),
        Activity::Input => ("waits for input rows", "stalled_input"),
        Activity::Output => ("waits for room for its output", "stalled_output"),
        Activity::Weights => ("waits for weights", "stalled_weights"),
        Activity::Turn => ("waits for its turn", "waiting_turn"),
        Activity::Idle => return None,
    };
    Some(Shown { name, category })
}

/// The layer that a stage comes from, and what it does.
fn stage_name(machine: &Machine, phase: &Phase, stage: usize) -> String {
    let Some(stage) = phase.stages.get(stage) else { return format!("stage {stage}") };
    let name = machine.names.get(stage.source as usize).map_or("", String::as_str);
    match &stage.code.head {
        // Their names say so.
        Head::DmaIn(_) | Head::DmaOut(_) => name.to_owned(),
        head => format!("{name} ({})", head.mnemonic()),
    }
}
