//! What a simulated program does when: the slices that a trace viewer shows, and the activation SRAM that
//! each phase holds.
//!
//! The slices of a track follow each other without a gap, and those of an activity add up to its time in
//! [`TimeUse`](super::TimeUse): both are booked by the same [`Meter`].

use super::Timing;
use super::account::{Meter, Slice};
use crate::program::Program;

/// The times of a program with all slices that they are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traced {
    /// The times.
    pub timing: Timing,
    /// The slices of each phase.
    pub phases: Vec<PhaseTrace>,
}

/// The slices of a phase, each list in order of time from the phase's first cycle to its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhaseTrace {
    /// Of each stage.
    pub stages: Vec<Vec<Slice>>,
    /// Of each partition of the array.
    pub partitions: Vec<Vec<Slice>>,
    /// Of the queue of rows from DRAM.
    pub load: Vec<Slice>,
    /// Of the queue of rows to DRAM.
    pub store: Vec<Slice>,
    /// Of the queue of weights.
    pub weights: Vec<Slice>,
}

impl PhaseTrace {
    pub(super) fn of(stages: Vec<Meter>, partitions: Vec<Meter>, queues: [Meter; 3]) -> Self {
        let slices = |meters: Vec<Meter>| meters.into_iter().map(Meter::into_slices).collect();
        let [load, store, weights] = queues.map(Meter::into_slices);
        Self { stages: slices(stages), partitions: slices(partitions), load, store, weights }
    }
}

/// The activation SRAM that a phase holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivationUse {
    /// Bytes that streams hold; those that two of them share count once.
    pub bytes: u64,
    /// One past the last byte that a stream holds.
    pub end: u64,
}

/// The activation SRAM that each phase holds. A stream holds its slots from the first to the last phase that
/// names it, or a stream whose prefix it is.
pub fn activation_use(program: &Program) -> Vec<ActivationUse> {
    let lives = program.stream_lives();
    let in_phase = |phase: usize| {
        let alive = lives.iter().zip(&program.streams);
        let mut ranges: Vec<(u64, u64)> = alive
            .filter(|(life, _)| life.is_some_and(|(from, to)| from <= phase && phase <= to))
            .map(|(_, stream)| (u64::from(stream.base), u64::from(stream.base) + stream.size_bytes()))
            .collect();
        ranges.sort_unstable();
        let mut held = ActivationUse::default();
        for (from, to) in ranges {
            held.bytes += to.saturating_sub(from.max(held.end));
            held.end = held.end.max(to);
        }
        held
    };
    (0..program.phases.len()).map(in_phase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inst::{DmaIn, DmaOut, Elem, Load};
    use crate::program::{Phase, Segment, SegmentKind, Stage, StageCode, Stream};
    use crate::timed::{Activity, simulate, simulate_traced};
    use crate::{Head, Mapping, Target, View};

    fn stream(base: u32, rows: u32, slots: u32) -> Stream {
        Stream { elem: Elem::I8, rows, cols: 4, chs: 16, base, pitch_bytes: 64, slots, prefix: None }
    }

    fn stage(head: Head, out: View) -> Stage {
        let mapping = Mapping::default();
        Stage {
            partition: 0,
            wait_loads: 0,
            mapping,
            code: StageCode { head, tail: Vec::new(), out },
            source: 0,
        }
    }

    /// Two phases: rows come in, are copied and go out; the tensor between them is whole and crosses phases.
    fn program() -> Program {
        let view = |tensor: u32| View { tensor, rows: 8, cols: 4, chs: 16, ..View::default() };
        let pitches = (64, 16);
        let dma_in =
            DmaIn { segment: 0, offset: 0, row_pitch_bytes: pitches.0, pixel_pitch_bytes: pitches.1 };
        let dma_out = DmaOut {
            src: view(2),
            segment: 1,
            offset: 0,
            row_pitch_bytes: pitches.0,
            pixel_pitch_bytes: pitches.1,
        };
        let copy = |from: u32, to: u32| stage(Head::Load(Load { src: view(from) }), view(to));
        let phase = |stages| Phase { partitions: vec![1], loads: Vec::new(), stages };
        let segment = |kind| Segment { kind, bytes: 512 };
        Program {
            segments: vec![segment(SegmentKind::Input), segment(SegmentKind::Output)],
            streams: vec![stream(0, 8, 2), stream(128, 8, 8), stream(0, 8, 2)],
            phases: vec![
                phase(vec![stage(Head::DmaIn(dma_in), view(0)), copy(0, 1)]),
                phase(vec![copy(1, 2), stage(Head::DmaOut(dma_out), View::default())]),
            ],
        }
    }

    #[test]
    fn slices_add_up_to_the_times_without_a_gap() {
        let (program, target) = (program(), Target::preset("x1", &[]).expect("a preset"));
        let problems = crate::verify::verify(&program, &target);
        assert!(problems.is_empty(), "{problems:?}");
        let traced = simulate_traced(&program, &target);
        assert_eq!(traced.timing, simulate(&program, &target));
        for (time, trace) in traced.timing.phases.iter().zip(&traced.phases) {
            let queues = [(&time.dma.load, &trace.load), (&time.dma.store, &trace.store)];
            let queues = queues.into_iter().chain([(&time.dma.weights, &trace.weights)]);
            let stages = time.stages.iter().zip(&trace.stages);
            let all = stages.chain(time.partitions.iter().zip(&trace.partitions)).chain(queues);
            for (time, slices) in all {
                for activity in Activity::ALL {
                    let of = slices.iter().filter(|slice| slice.activity == activity);
                    assert_eq!(of.map(|slice| slice.cycles).sum::<u64>(), time.of(activity), "{activity:?}");
                }
                assert!(slices.windows(2).all(|pair| pair[0].end() == pair[1].start), "{slices:?}");
            }
        }
        let of_rows = traced.phases[0].load.iter().find(|slice| slice.activity == Activity::Busy);
        assert_eq!(of_rows.and_then(|slice| slice.stage), Some(0), "the queue says whose rows it loads");
    }

    #[test]
    fn bytes_are_held_from_the_first_phase_to_the_last() {
        // Rings of 2 rows of 64 bytes, and a whole tensor of 8 that lives in both phases.
        let held = |bytes| ActivationUse { bytes, end: 640 };
        assert_eq!(activation_use(&program()), [held(640), held(640)]);
        let mut shared = program();
        shared.streams[2].base = 64;
        assert_eq!(
            activation_use(&shared),
            [held(640), held(576)],
            "bytes that two streams share count once"
        );
    }
}
