//! The middle of a token simulation, skipped: once a phase repeats itself, it does so until something ends.
//!
//! The state of a simulation is how many steps each actor has taken. What happens next depends on it and on
//! which rows the steps to come read. So if between two moments every actor took some steps, and over a
//! stretch its demand repeats after as many steps, further down its streams by as many rows as their writers
//! made, then what comes next is what has just been, shifted: no ring holds more rows than it did, and whole
//! repetitions can be jumped over, as long as all demands looked at keep within their stretch and nothing
//! meets the end of a tensor. A gap that is probed between two streams changes by the same bytes with each
//! repetition, so it is largest in the first or after the last, both of which are simulated.
//!
//! Skipping changes no result, only how long it takes; whatever does not fit the pattern is simulated step by
//! step.

use crate::cost::rings::{Port, Reader, Simulation};

/// Periods that are looked for, in steps: a resize to `n` times the size repeats after `n`.
const PERIODS: std::ops::RangeInclusive<usize> = 1..=4;

/// Turns of the first sink, since the anchor, after which the anchor is moved up at the latest. A skip is
/// tried after one turn, two, four and so on. The first anchors are moved up sooner, since most phases repeat
/// themselves as soon as all have begun.
const MOST_TURNS: u32 = 16;

/// Sinks of more steps are not skipped: their lags, rounded, might not keep their order.
const MOST_SINK_STEPS: u32 = 1 << 16;

/// The longest stretch of steps over which a port's demand repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its first step, and one past its last.
    from: u32,
    to: u32,
    /// Steps after which it repeats; zero if it never does.
    period: u32,
    /// Rows that the demand has moved on by then.
    rows: u32,
}

impl Stretch {
    /// The stretch around the middle, under the least period that covers half of all steps.
    pub(super) fn new(first: &[u32], end: &[u32]) -> Self {
        let n = end.len();
        for period in PERIODS {
            let middle = n / 2;
            if middle + period >= n {
                break;
            }
            let moved = |values: &[u32], at: usize| values[at + period].checked_sub(values[at]);
            let Some(rows) = moved(end, middle) else { continue };
            let repeats = |at: usize| moved(end, at) == Some(rows) && moved(first, at) == Some(rows);
            let from = (0..=middle).rev().take_while(|&at| repeats(at)).last();
            let Some(from) = from else { continue };
            let to = (middle..n - period)
                .take_while(|&at| repeats(at))
                .last()
                .map_or(middle, |at| at + period + 1);
            if 2 * (to - from) >= n {
                return Self { from: from as u32, to: to as u32, period: period as u32, rows };
            }
        }
        Self::default()
    }

    /// Rows that the demand moves on by over `steps` steps, if that is a whole number of periods.
    fn moved(&self, steps: u32) -> Option<u32> {
        let whole = self.period > 0 && steps.is_multiple_of(self.period);
        whole.then(|| steps / self.period * self.rows)
    }
}

/// A moment to compare later ones with.
#[derive(Debug)]
pub(super) struct Anchor {
    steps: Vec<u32>,
    turns: u32,
    /// Turns after which the anchor is moved up.
    most_turns: u32,
    done: bool,
}

impl Anchor {
    pub(super) fn new(simulation: &Simulation<'_>) -> Self {
        Self { steps: simulation.steps.clone(), turns: 0, most_turns: 1, done: false }
    }

    /// After a turn of the first sink: skips what can be skipped; whether it did.
    pub(super) fn turn(&mut self, simulation: &mut Simulation<'_>, sinks: &[usize]) -> bool {
        if self.done {
            return false;
        }
        self.turns += 1;
        if !self.turns.is_power_of_two() {
            return false;
        }
        if let Some(times) = repetitions(simulation, &self.steps, sinks) {
            for (actor, &then) in self.steps.iter().enumerate() {
                simulation.skip(actor, then, times);
            }
            self.done = true;
            return true;
        } else if self.turns == self.most_turns {
            self.steps.clone_from(&simulation.steps);
            self.turns = 0;
            self.most_turns = (2 * self.most_turns).min(MOST_TURNS);
        }
        false
    }
}

/// How often what happened since `anchor` will happen again, if it is sure to do so at least once.
fn repetitions(simulation: &Simulation<'_>, anchor: &[u32], sinks: &[usize]) -> Option<u32> {
    let since = Since { simulation, anchor };
    if !since.sinks_keep_their_order(sinks) {
        return None;
    }
    let actors = 0..simulation.actors.len();
    let mut times = u32::MAX;
    for actor in actors.clone().filter(|&actor| since.taken(actor) > 0) {
        times = times.min(since.repetitions_of(actor)?);
    }
    let keep_up = actors.clone().all(|actor| since.writers_keep_apart(actor) && since.readers_keep_up(actor));
    (keep_up && (1..u32::MAX).contains(&times)).then_some(times)
}

/// What a simulation has done since its steps were `anchor`.
struct Since<'s, 'a> {
    simulation: &'s Simulation<'a>,
    anchor: &'s [u32],
}

impl Since<'_, '_> {
    /// Steps that an actor has taken.
    fn taken(&self, actor: usize) -> u32 {
        self.simulation.steps[actor] - self.anchor[actor]
    }

    fn rows_made(&self, actor: usize) -> u32 {
        self.taken(actor) * self.simulation.actors[actor].rows_per_step
    }

    /// Whichever sink lags most is next: they must have moved on by the same share of their steps.
    fn sinks_keep_their_order(&self, sinks: &[usize]) -> bool {
        let Some(&lead) = sinks.first() else { return false };
        let n_steps = |sink: usize| self.simulation.actors[sink].n_steps();
        let product = |taken: usize, of: usize| u64::from(self.taken(taken)) * u64::from(n_steps(of));
        sinks.iter().all(|&sink| {
            let is_done = self.simulation.steps[sink] >= n_steps(sink);
            let keeps_up = product(sink, lead) == product(lead, sink) && self.taken(sink) > 0;
            if is_done { self.taken(sink) == 0 } else { keeps_up && n_steps(sink) <= MOST_SINK_STEPS }
        })
    }

    /// How often an actor can do again what it did, before what it reads or writes ends or its demand no
    /// longer repeats.
    fn repetitions_of(&self, actor: usize) -> Option<u32> {
        let this = &self.simulation.actors[actor];
        let taken = self.taken(actor);
        // The last repetition, the step after it, and what it looks ahead to.
        let reached = self.simulation.steps[actor] + taken + 2;
        let room = (this.n_rows / this.rows_per_step.max(1)).checked_sub(reached)?;
        let mut times = room / taken;
        for (number, port) in this.ports.iter().enumerate() {
            let inputs = self.simulation.inputs(actor).iter().filter(|input| input.port == number);
            let writers: Vec<usize> = inputs.map(|input| input.writer).collect();
            let is_probed = self.simulation.probed.binary_search(&(actor, number)).is_ok();
            if writers.is_empty() && !is_probed {
                continue;
            }
            let Port { stretch, end, .. } = port;
            let moved = stretch.moved(taken)?;
            // A probe looks back at the step before.
            if self.anchor[actor] < stretch.from + u32::from(is_probed) {
                return None;
            }
            times = times.min(stretch.to.checked_sub(reached)? / taken);
            for writer in writers {
                let (from, to) = (end[self.anchor[actor] as usize], *end.get(reached as usize)?);
                times = times.min(self.repetitions_of_rows(writer, from, to, moved)?);
            }
        }
        Some(times)
    }

    /// How often a demand on the rows of a writer can move on by `moved` rows: from row `from` at the anchor,
    /// up to row `to` after the first repetition.
    fn repetitions_of_rows(&self, writer: usize, from: u32, to: u32, moved: u32) -> Option<u32> {
        let writer = &self.simulation.actors[writer];
        let row0 = writer.out.map_or(0, |out| out.row0);
        let left = (row0 + writer.n_rows).checked_sub(to + 2 * writer.rows_per_step)?;
        (from >= row0).then(|| left.checked_div(moved).unwrap_or(u32::MAX))
    }

    /// Whether what is between the rows of an actor and of others that write the same ring stays the same, or
    /// they are not in each other's way.
    fn writers_keep_apart(&self, actor: usize) -> bool {
        let simulation = self.simulation;
        let this = &simulation.actors[actor];
        let end = this.out.map_or(0, |out| out.row0 + this.n_rows);
        simulation.writers[actor].iter().all(|&other| {
            self.rows_made(other) == self.rows_made(actor)
                || simulation.next_row(other).is_none_or(|next| next >= end)
                || simulation.next_row(actor).is_none()
        })
    }

    /// Whether the readers of what an actor writes have moved on by as many rows as it made.
    fn readers_keep_up(&self, actor: usize) -> bool {
        self.simulation.readers(actor).iter().all(|&Reader { actor: reader, port, .. }| {
            let stretch = &self.simulation.actors[reader].ports[port].stretch;
            match self.taken(reader) {
                0 => self.rows_made(actor) == 0,
                taken => {
                    self.anchor[reader] >= stretch.from && stretch.moved(taken) == Some(self.rows_made(actor))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cost::rings::{Actor, Buffering, OverlapProbe, Simulation};
    use crate::model::graph::views_meet;
    use crate::model::samples::{mobilenetv2, resnet50, unet, yolov3};
    use crate::model::{BufferId, StageGraph};

    #[test]
    fn stretches_are_found_around_the_middle() {
        // A 3x3 window of stride 1 over ten rows.
        let end = [2, 3, 4, 5, 6, 7, 8, 9, 10, 10];
        let first = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX];
        assert_eq!(Stretch::new(&first, &end), Stretch { from: 1, to: 9, period: 1, rows: 1 });
        // Rows that a resize reads twice.
        let end = [1, 1, 2, 2, 3, 3, 4, 4];
        let first = [0, 0, 1, 1, 2, 2, 3, 3, u32::MAX];
        assert_eq!(Stretch::new(&first, &end), Stretch { from: 0, to: 8, period: 2, rows: 1 });
        assert_eq!(Stretch::new(&[0, 5, u32::MAX], &[1, 9]).period, 0);
    }

    /// The stages from one on, their transfers in front.
    fn actors(graph: &StageGraph, from: usize, n: usize) -> Vec<Actor> {
        let codes: Vec<_> = graph.stages.values().skip(from).take(n).map(|node| &node.code).collect();
        let mut loaded = BTreeSet::new();
        let mut actors = Vec::new();
        for view in codes.iter().flat_map(|code| code.reads()) {
            let is_written = codes.iter().any(|code| views_meet(&code.out, &view));
            if !is_written && loaded.insert((view.tensor, view.ch0, view.row0)) {
                actors.push(Actor::dma_in(view));
            }
        }
        actors.extend(codes.into_iter().map(Actor::new));
        actors
    }

    /// The first, the middle and the last stream written, each to grow into the first and the last one read.
    fn probes(actors: &[Actor]) -> Vec<OverlapProbe> {
        let written: Vec<BufferId> =
            actors.iter().filter_map(|actor| actor.out.map(|out| out.tensor)).collect();
        let read: Vec<BufferId> =
            actors.iter().flat_map(|actor| actor.ports.iter()).map(|port| port.view.tensor).collect();
        let growing = [written.first(), written.get(written.len() / 2), written.last()];
        let dying = [read.first(), read.last()];
        let pairs = growing
            .into_iter()
            .flatten()
            .flat_map(|&growing| dying.into_iter().flatten().map(move |&dying| (growing, dying)));
        let probe = |(growing, dying)| OverlapProbe { dying, dying_pitch: 640, growing, growing_pitch: 704 };
        pairs.filter(|(growing, dying)| growing != dying).map(probe).collect()
    }

    #[test]
    fn skipping_changes_nothing_but_time() {
        let mut skipped = 0;
        for graph in [yolov3(416, 416), resnet50(224, 224), mobilenetv2(224, 224), unet(256, 256)] {
            let all = graph.stages.len();
            for from in (0..all).step_by(2) {
                for n in [1, 2, 3, 5, 9, 17, 40, all] {
                    let actors = actors(&graph, from, n);
                    for slack in [Buffering::Lockstep, Buffering::Overlap] {
                        let probes = probes(&actors);
                        let [mut fast, mut slow] = [true, false].map(|skips| Simulation {
                            skips,
                            ..Simulation::probing(&actors, slack, &probes)
                        });
                        fast.run();
                        slow.run();
                        assert_eq!(fast.slots, slow.slots, "{slack:?}: {n} stages from {from} of {all}");
                        assert_eq!(fast.steps, slow.steps);
                        let gaps = |simulation: &Simulation<'_>| {
                            simulation.probes.iter().map(|w| w.gap).collect::<Vec<_>>()
                        };
                        assert_eq!(gaps(&fast), gaps(&slow), "{slack:?}: {n} stages from {from} of {all}");
                        skipped += usize::from(fast.taken < slow.taken / 2);
                    }
                }
            }
        }
        assert!(skipped > 300, "{skipped} simulations took less than half of their steps");
    }
}
