//! How many row slots each ring of a phase needs, by simulating row tokens.
//!
//! The stages of a phase form a Kahn process network; with bounded rings it can deadlock. A ring is sized by
//! running the phase once, on demand: a step is taken only when a later stage asks for its rows, so rows
//! appear as late as they can and each ring holds the least. The most that a ring ever held is its size.
//! Since the network is determinate, any other order of ready steps also finishes in rings of these sizes,
//! and enlarging a ring never hurts.
//!
//! Several stages may write one ring, such as the parts of a join. None writes a row before the others have
//! written the rows that stood in its slot, so a ring holds what is between the oldest row that is still to
//! be read *or written* and the newest. Rows that no stage will read, which a crop or a stride leaves out,
//! would be made last, as nobody asks for them; so a writer asks the others for such rows before it writes
//! its own.
//!
//! With [`Buffering::Lockstep`] producer and consumer of a ring alternate: least memory, but neither overlaps
//! the other. With [`Buffering::Overlap`] a step is taken only when the rows of the *next* step (or one more
//! step of the producer) are there too, so a stage always finds its next rows ready while its producer works:
//! the pipeline runs at the rate of its slowest stage. A skip path grows by the slack of the longer path that
//! it runs beside. A transfer has room for as many rows as the DRAM channel moves in a burst of weights, for
//! which it may have to wait.
//!
//! The same run tells how close behind a tensor that is read for the last time a new one may be written: see
//! [`OverlapProbe`].
//!
//! The middle of a tensor, where a phase repeats itself, is skipped (`steady`), so a simulation takes time by
//! the depth of a phase rather than by its rows.
//!
//! Deliberately not here: addresses, and whether the sizes fit.

mod steady;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strata_isa_spec::inst::Head;
use strata_isa_spec::timed::BURST_BYTES;

use crate::cost::rings::steady::{Anchor, Stretch};
use crate::model::graph::views_meet;
use crate::model::{BufferId, BufferView, StageTemplate};

/// How far a producer may run ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Buffering {
    /// Just far enough for the phase to finish.
    Lockstep,
    /// One step further, so that producer and consumer work at once.
    #[default]
    Overlap,
}

/// One view that a stage reads, as rows of the stream by step.
#[derive(Clone, Debug)]
struct Port {
    view: BufferView,
    /// First row that this or any later step needs; one past the last step it is `u32::MAX`.
    first: Arc<[u32]>,
    /// One past the last row that this or any earlier step needs.
    end: Arc<[u32]>,
    /// Where its demand repeats.
    stretch: Stretch,
}

impl Port {
    fn new(view: BufferView, first: Arc<[u32]>, end: Arc<[u32]>) -> Self {
        Self { view, stretch: Stretch::new(&first, &end), first, end }
    }
}

/// A stage as the token simulation sees it. Making one costs a look at every row; it is cheap to clone.
#[derive(Clone, Debug)]
pub struct Actor {
    n_rows: u32,
    rows_per_step: u32,
    ports: Arc<[Port]>,
    out: Option<BufferView>,
    /// Whether it moves rows to or from DRAM.
    is_transfer: bool,
}

impl Actor {
    /// The actor of a stage, a DMA stage included. `winograd` in the code decides the rows of a step.
    pub fn new(code: &StageTemplate) -> Self {
        let (n_rows, rows_per_step) = (code.n_rows(), code.rows_per_step());
        let views = code.reads();
        let n_steps = n_rows.div_ceil(rows_per_step) as usize;
        let mut firsts = vec![vec![u32::MAX; n_steps + 1]; views.len()];
        let mut ends = vec![vec![0; n_steps]; views.len()];
        for row in 0..n_rows {
            let step = (row / rows_per_step) as usize;
            for (port, need) in code.demand(row).into_iter().enumerate() {
                if need.start < need.end {
                    let row0 = views[port].row0;
                    firsts[port][step] = firsts[port][step].min(row0 + need.start);
                    ends[port][step] = ends[port][step].max(row0 + need.end);
                }
            }
        }
        for (first, end) in firsts.iter_mut().zip(&mut ends) {
            for step in (0..n_steps).rev() {
                first[step] = first[step].min(first[step + 1]);
            }
            for step in 1..n_steps {
                end[step] = end[step].max(end[step - 1]);
            }
        }
        let ports = (views.into_iter().zip(firsts).zip(ends))
            .map(|((view, first), end)| Port::new(view, first.into(), end.into()))
            .collect();
        let is_transfer = matches!(code.head, Head::DmaIn(_) | Head::DmaOut(_));
        Self { n_rows, rows_per_step, ports, out: (code.out.rows > 0).then_some(code.out), is_transfer }
    }

    /// The actor of a part of the columns of this one's stage: rows are demanded as by the whole.
    pub fn of_columns(&self, code: &StageTemplate) -> Self {
        let ports = (self.ports.iter().zip(code.reads())).map(|(port, view)| Port { view, ..port.clone() });
        Self { ports: ports.collect(), out: (code.out.rows > 0).then_some(code.out), ..self.clone() }
    }

    /// A transfer of rows from DRAM into a view.
    pub fn dma_in(view: BufferView) -> Self {
        Self { n_rows: view.rows, rows_per_step: 1, ports: Arc::new([]), out: Some(view), is_transfer: true }
    }

    /// A transfer of the rows of a view to DRAM.
    pub fn dma_out(view: BufferView) -> Self {
        let first = (0..view.rows).map(|row| view.row0 + row).chain([u32::MAX]).collect();
        let end = (0..view.rows).map(|row| view.row0 + row + 1).collect();
        let ports = Arc::new([Port::new(view, first, end)]);
        Self { n_rows: view.rows, rows_per_step: 1, ports, out: None, is_transfer: true }
    }

    /// Steps in all.
    pub fn n_steps(&self) -> u32 {
        self.n_rows.div_ceil(self.rows_per_step)
    }

    /// For each view that the actor reads, in order: what its steps wait for.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.ports.iter().map(|port| Edge {
            view: port.view,
            first_end: port.end.first().copied().unwrap_or(0),
            end: &port.end,
        })
    }

    /// For each view that the actor reads, the most rows that one of its steps needs at once.
    pub fn widest(&self) -> impl Iterator<Item = (BufferView, u32)> + '_ {
        self.ports.iter().map(|port| {
            let spans = port.end.iter().zip(port.first.iter());
            (port.view, spans.map(|(end, first)| end.saturating_sub(*first)).max().unwrap_or(0).max(1))
        })
    }

    /// The most rows of a stream that stand in its ring in any simulation, if nobody else reads it and one
    /// stage writes it, so many rows a step: it is asked for the rows of a step and of the next, or of one
    /// more of its own steps, when those of the step before have been passed.
    pub fn most_between(&self, stream: BufferId, writer_rows: u32) -> u32 {
        let mut ports = self.ports.iter().filter(|port| port.view.tensor == stream);
        let (Some(port), None) = (ports.next(), ports.next()) else { return u32::MAX };
        let steps = port.first.iter().zip(port.end.iter()).zip(port.end.iter().skip(1).chain([&0]));
        // The step that reaches the last row asked for may make others beside it.
        let rows = steps.map(|((first, end), next)| {
            (*next).max(end + writer_rows).saturating_add(writer_rows - 1).saturating_sub(*first)
        });
        rows.max().unwrap_or(u32::MAX)
    }

    /// Rows that one step makes.
    pub fn rows_per_step(&self) -> u32 {
        self.rows_per_step
    }

    /// Rows in all.
    pub fn n_rows(&self) -> u32 {
        self.n_rows
    }

    /// What it writes.
    pub fn out(&self) -> Option<BufferView> {
        self.out
    }
}

/// How far a writer is to be ahead of the rows of a view that are needed, if stages overlap: its own step,
/// and what a transfer is behind after a burst of weights.
fn ahead(writer: &Actor, reader: &Actor, read: &BufferView) -> u32 {
    // A ring has one width for all that write and read it, so slots of narrow pieces of wide rows are dear.
    let rows = match &writer.out {
        Some(out) if writer.is_transfer || reader.is_transfer => burst_rows(out).min(burst_rows(read)),
        _ => 0,
    };
    rows.max(writer.rows_per_step)
}

/// Rows of a view, of a byte an element, that the DRAM channel moves in the time of a burst of weights. A row
/// that is asked for while one is served waits for its end.
fn burst_rows(view: &BufferView) -> u32 {
    let row_bytes = u64::from(view.cols) * u64::from(view.chs);
    u32::try_from(BURST_BYTES.div_ceil(row_bytes.max(1))).unwrap_or(u32::MAX)
}

/// What a reader waits for at the ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// The view read.
    pub view: BufferView,
    /// One past the last stream row that the first step needs.
    pub first_end: u32,
    /// One past the last stream row that each step or any before it needs.
    end: &'a [u32],
}

impl Edge<'_> {
    /// Steps that wait for a stream row, those after them included.
    pub fn steps_from(&self, row: u32) -> u32 {
        (self.end.len() - self.end.partition_point(|&end| end <= row)) as u32
    }
}

/// Slots for each stream that the phase touches, by stream: enough that it finishes, at most the rows
/// written. `actors` are all stages of the phase, DMA stages included, in an order in which writers stand
/// before their readers. Rows that no actor writes count as written before.
pub fn ring_slots(actors: &[Actor], slack: Buffering) -> BTreeMap<BufferId, u32> {
    ring_slots_and_gaps(actors, slack, &[]).0
}

/// A tensor that a phase reads for the last time and one that it writes, both whole, that are to share bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlapProbe {
    /// The tensor that is read.
    pub dying: BufferId,
    /// Bytes from one of its rows to the next.
    pub dying_pitch: u64,
    /// The tensor that is written.
    pub growing: BufferId,
    /// Bytes from one of its rows to the next.
    pub growing_pitch: u64,
}

/// As [`ring_slots`]; and for each probe the least number of bytes by which the growing stream must begin
/// before the dying one, so that no row is written before the rows that stand there are passed.
pub fn ring_slots_and_gaps(
    actors: &[Actor],
    slack: Buffering,
    probes: &[OverlapProbe],
) -> (BTreeMap<BufferId, u32>, Vec<u64>) {
    let mut simulation = Simulation::probing(actors, slack, probes);
    simulation.run();
    let gaps = simulation.probes.iter().map(|probing| probing.gap).collect();
    (simulation.slots, gaps)
}

/// The actors, and which of their ports, that read a stream.
fn readers_of(actors: &[Actor], tensor: BufferId) -> Rc<[(usize, usize)]> {
    let reads = actors.iter().enumerate().flat_map(|(reader, actor)| {
        let ports = actor.ports.iter().enumerate();
        ports.filter(move |(_, p)| p.view.tensor == tensor).map(move |(port, _)| (reader, port))
    });
    reads.collect()
}

/// Slots of the phase's streams from its stages' codes. See [`ring_slots`].
pub fn size_rings(codes: &[StageTemplate], slack: Buffering) -> BTreeMap<BufferId, u32> {
    let actors: Vec<Actor> = codes.iter().map(Actor::new).collect();
    ring_slots(&actors, slack)
}

/// A probe, and what was seen so far.
struct Probed {
    probe: OverlapProbe,
    /// Who reads the dying stream.
    readers: Rc<[(usize, usize)]>,
    /// Bytes by which the growing stream must begin before it.
    gap: u64,
}

/// Rows that an actor reads of what another writes.
struct Input<'a> {
    /// Through which port of the reader.
    port: usize,
    writer: usize,
    /// The first row of the stream that the writer makes.
    row0: u32,
    /// Rows that the writer makes in all.
    rows: u32,
    /// How much further than a step's rows the writer is to be if stages overlap and the next step does not
    /// need more: its own step, or what a transfer is behind after a burst.
    ahead: u32,
    /// One past the last row that each step of the reader needs.
    end: &'a [u32],
}

impl Input<'_> {
    /// Rows of the writer that must be there before a step.
    fn wanted(&self, step: usize, slack: Buffering) -> u32 {
        let mut wanted = self.end[step];
        if slack == Buffering::Overlap {
            let next = self.end.get(step + 1).copied().unwrap_or(wanted);
            wanted = next.max(wanted + self.ahead);
        }
        wanted.saturating_sub(self.row0).min(self.rows)
    }
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reader {
    tensor: BufferId,
    actor: usize,
    port: usize,
}

/// Who reads and who writes each tensor.
struct Ends {
    /// All ports, tensor by tensor.
    ports: Vec<Reader>,
    /// Each tensor that is written, with the actor that writes it.
    outs: Vec<(BufferId, usize)>,
}

impl Ends {
    fn of(actors: &[Actor]) -> Self {
        let mut ports: Vec<Reader> = Vec::with_capacity(actors.len());
        let mut outs: Vec<(BufferId, usize)> = Vec::with_capacity(actors.len());
        for (actor, this) in actors.iter().enumerate() {
            let reads = this.ports.iter().enumerate();
            ports.extend(reads.map(|(port, read)| Reader { tensor: read.view.tensor, actor, port }));
            outs.extend(this.out.map(|out| (out.tensor, actor)));
        }
        ports.sort_unstable();
        outs.sort_unstable();
        Self { ports, outs }
    }

    /// The actors that write a tensor.
    fn writers(&self, tensor: BufferId) -> impl Iterator<Item = usize> + '_ {
        let from = self.outs.partition_point(|&(other, _)| other < tensor);
        let same = self.outs[from..].iter().take_while(move |&&(other, _)| other == tensor);
        same.map(|&(_, writer)| writer)
    }

    /// Where the ports that read a tensor begin and end.
    fn readers(&self, tensor: BufferId) -> (usize, usize) {
        let from = self.ports.partition_point(|reader| reader.tensor < tensor);
        (from, self.ports.partition_point(|reader| reader.tensor <= tensor))
    }
}

struct Simulation<'a> {
    actors: &'a [Actor],
    slack: Buffering,
    /// Steps taken by each actor.
    steps: Vec<u32>,
    /// Rows that each actor has made.
    rows_done: Vec<u32>,
    /// All that actors read of others' rows, actor by actor and port by port, and where each actor's begin.
    inputs: Vec<Input<'a>>,
    first_input: Vec<usize>,
    /// All ports, tensor by tensor.
    ports: Vec<Reader>,
    /// For each of them, the first row that each step of its actor or any later one needs.
    firsts: Vec<&'a [u32]>,
    /// For each actor, where the ports on the stream that it writes begin and end.
    readers: Vec<(usize, usize)>,
    /// For each actor, the others that write its stream.
    writers: Vec<Vec<usize>>,
    /// Actors whose step is under way: it waits for those that it asked for rows.
    asking: Vec<bool>,
    slots: BTreeMap<BufferId, u32>,
    peak: Vec<u32>,
    probes: Vec<Probed>,
    /// For each actor, the probes on the stream that it writes.
    probes_of: Vec<Vec<usize>>,
    /// The actors, and which of their ports, that read a dying stream, in order.
    probed: Vec<(usize, usize)>,
    /// Whether repetitions may be skipped.
    skips: bool,
    /// Steps that were simulated, those skipped not counted.
    #[cfg(test)]
    taken: u64,
}

impl<'a> Simulation<'a> {
    fn new(actors: &'a [Actor], slack: Buffering) -> Self {
        let ends = Ends::of(actors);
        let mut inputs = Vec::with_capacity(ends.ports.len());
        let mut first_input = Vec::with_capacity(actors.len() + 1);
        for actor in actors {
            first_input.push(inputs.len());
            inputs.extend(actor.ports.iter().enumerate().flat_map(|(port, read)| {
                let meets = |w: &usize| actors[*w].out.is_some_and(|out| views_meet(&out, &read.view));
                ends.writers(read.view.tensor).filter(meets).map(move |writer| Input {
                    port,
                    writer,
                    row0: actors[writer].out.map_or(0, |out| out.row0),
                    rows: actors[writer].n_rows,
                    ahead: ahead(&actors[writer], actor, &read.view),
                    end: &read.end,
                })
            }));
        }
        first_input.push(inputs.len());
        let writers = actors.iter().enumerate().map(|(actor, this)| {
            let tensor = this.out.map(|out| out.tensor);
            let writers = tensor.into_iter().flat_map(|tensor| ends.writers(tensor));
            writers.filter(|&writer| writer != actor).collect()
        });
        let writers = writers.collect();
        let readers = actors.iter().map(|actor| actor.out.map_or((0, 0), |out| ends.readers(out.tensor)));
        let firsts = ends.ports.iter().map(|reader| &*actors[reader.actor].ports[reader.port].first);
        Self {
            actors,
            slack,
            firsts: firsts.collect(),
            steps: vec![0; actors.len()],
            rows_done: vec![0; actors.len()],
            readers: readers.collect(),
            writers,
            asking: vec![false; actors.len()],
            inputs,
            first_input,
            ports: ends.ports,
            slots: BTreeMap::new(),
            peak: vec![0; actors.len()],
            probes: Vec::new(),
            probes_of: Vec::new(),
            probed: Vec::new(),
            skips: true,
            #[cfg(test)]
            taken: 0,
        }
    }

    /// A simulation that looks at the gaps of these probes.
    fn probing(actors: &'a [Actor], slack: Buffering, probes: &[OverlapProbe]) -> Self {
        let mut readers: BTreeMap<BufferId, Rc<[(usize, usize)]>> = BTreeMap::new();
        let probing = |&probe: &OverlapProbe| {
            let of_dying = readers.entry(probe.dying);
            let readers = Rc::clone(of_dying.or_insert_with(|| readers_of(actors, probe.dying)));
            Probed { probe, readers, gap: 0 }
        };
        let probes: Vec<Probed> = probes.iter().map(probing).collect();
        let on = |tensor: BufferId| {
            let numbered = probes.iter().enumerate();
            numbered.filter(move |(_, w)| w.probe.growing == tensor).map(|(at, _)| at).collect()
        };
        let probes_of = actors.iter().map(|a| a.out.map_or_else(Vec::new, |out| on(out.tensor))).collect();
        let mut probed: Vec<(usize, usize)> =
            readers.values().flat_map(|readers| readers.iter()).copied().collect();
        probed.sort_unstable();
        Self { probes, probes_of, probed, ..Self::new(actors, slack) }
    }

    fn run(&mut self) {
        // Whose rows nobody in the phase reads pulls the rest; those that lag most go first, so that no sink
        // runs ahead. A stage may read other rows of the stream that it writes, from an earlier phase, and is
        // a sink nevertheless.
        let mut is_read = vec![false; self.actors.len()];
        for input in &self.inputs {
            is_read[input.writer] = true;
        }
        let sinks: Vec<usize> = (0..self.actors.len()).filter(|&actor| !is_read[actor]).collect();
        let mut anchor = Anchor::new(self);
        let all = |this: &Self| sinks.iter().map(|&sink| this.progress(sink)).collect::<Vec<u64>>();
        // Only this loop takes a sink's steps, and whoever writes the same ring.
        let writes_with_others = self.writers.iter().any(|writers| !writers.is_empty());
        let mut progress = all(self);
        loop {
            let least = progress.iter().enumerate().min_by_key(|&(_, progress)| *progress);
            let Some((at, _)) = least.filter(|&(_, progress)| *progress < u64::MAX) else { break };
            let sink = sinks[at];
            if !self.step(sink) {
                break;
            }
            let skipped = self.skips && at == 0 && anchor.turn(self, &sinks);
            if skipped || writes_with_others {
                progress = all(self);
            } else {
                progress[at] = self.progress(sink);
            }
        }
        // Rows that no sink asked for, such as those that a crop leaves out.
        for actor in 0..self.actors.len() {
            while self.steps[actor] < self.actors[actor].n_steps() && self.step(actor) {}
        }
        for (actor, &peak) in self.actors.iter().zip(&self.peak) {
            if let Some(out) = actor.out {
                let slots = self.slots.entry(out.tensor).or_insert(1);
                *slots = (*slots).max(peak);
            }
        }
    }

    /// Which share of its steps an actor has taken, in 2^32nds; the most there is if it has taken all.
    fn progress(&self, actor: usize) -> u64 {
        let (taken, all) = (u64::from(self.steps[actor]), u64::from(self.actors[actor].n_steps()));
        if taken < all { (taken << 32) / all } else { u64::MAX }
    }

    /// What an actor reads of others' rows.
    fn inputs(&self, actor: usize) -> &[Input<'a>] {
        &self.inputs[self.first_input[actor]..self.first_input[actor + 1]]
    }

    /// The ports on the stream that an actor writes.
    fn readers(&self, actor: usize) -> &[Reader] {
        let (from, to) = self.readers[actor];
        &self.ports[from..to]
    }

    /// Takes the steps of an actor again that it took since it had taken `then`, so many times, without
    /// looking at them.
    fn skip(&mut self, actor: usize, then: u32, times: u32) {
        let now = &mut self.steps[actor];
        *now += times * (*now - then);
        let Actor { rows_per_step, n_rows, .. } = self.actors[actor];
        self.rows_done[actor] = (*now * rows_per_step).min(n_rows);
    }

    /// The first row that an actor has still to write, if it writes any.
    fn next_row(&self, actor: usize) -> Option<u32> {
        let Actor { out, n_rows, .. } = &self.actors[actor];
        out.filter(|_| self.rows_done[actor] < *n_rows).map(|out| out.row0 + self.rows_done[actor])
    }

    /// The first row of an actor's stream that a step to come reads; `u32::MAX` if none does.
    fn oldest_read(&self, actor: usize) -> u32 {
        let (from, to) = self.readers[actor];
        let readers = self.ports[from..to].iter().zip(&self.firsts[from..to]);
        readers.map(|(reader, first)| first[self.steps[reader.actor] as usize]).min().unwrap_or(u32::MAX)
    }

    /// Has the other writers of an actor's stream write what they can of the rows before `row` that no step
    /// to come reads: nobody else would ask for those, and until they are written the actor's own have no
    /// room.
    fn write_unread_before(&mut self, actor: usize, row: u32) {
        for at in 0..self.writers[actor].len() {
            let writer = self.writers[actor][at];
            let is_unread = |this: &Self| {
                this.next_row(writer).is_some_and(|next| next < row.min(this.oldest_read(writer)))
            };
            while is_unread(self) && self.step(writer) {}
        }
    }

    /// Takes the next step of an actor after those that it waits for; whether it could, since an actor whose
    /// step is under way takes no other. Stages stand after those that they read, so only steps that nobody
    /// waits for are refused.
    fn step(&mut self, actor: usize) -> bool {
        if self.asking[actor] {
            return false;
        }
        self.asking[actor] = true;
        let is_ready = self.ask_for_inputs(actor);
        if is_ready {
            self.make_rows(actor);
        }
        self.asking[actor] = false;
        is_ready
    }

    /// Has others take the steps that the next one of an actor waits for; whether they could.
    fn ask_for_inputs(&mut self, actor: usize) -> bool {
        let step = self.steps[actor] as usize;
        for at in self.first_input[actor]..self.first_input[actor + 1] {
            let input = &self.inputs[at];
            let (writer, wanted) = (input.writer, input.wanted(step, self.slack));
            while self.rows_done[writer] < wanted {
                if !self.step(writer) {
                    return false;
                }
            }
        }
        true
    }

    /// Takes the next step of an actor whose inputs are there.
    fn make_rows(&mut self, actor: usize) {
        let actors = self.actors;
        let this = &actors[actor];
        if !self.writers[actor].is_empty()
            && let Some(next) = self.next_row(actor)
        {
            self.write_unread_before(actor, next);
        }
        let made = ((self.steps[actor] + 1) * this.rows_per_step).min(this.n_rows);
        if let Some(out) = this.out {
            let begin = out.row0 + self.rows_done[actor];
            let end = out.row0 + made;
            let unwritten = self.writers[actor].iter().filter_map(|&writer| self.next_row(writer)).min();
            let oldest = self.oldest_read(actor).min(unwritten.unwrap_or(begin)).min(begin);
            self.peak[actor] = self.peak[actor].max(end - oldest);
            for &at in self.probes_of.get(actor).into_iter().flatten() {
                let probing = &mut self.probes[at];
                // The actor's own step counts as not taken: it still reads while it writes. Where stages
                // overlap, so does the last step of every reader, which then is still under way.
                let under_way =
                    |reader: usize| u32::from(self.slack == Buffering::Overlap && reader != actor);
                let taken = |reader: usize| self.steps[reader].saturating_sub(under_way(reader)) as usize;
                let needed = (probing.readers.iter())
                    .map(|&(reader, port)| actors[reader].ports[port].first[taken(reader)])
                    .min()
                    .filter(|&row| row != u32::MAX);
                if let Some(row) = needed {
                    let written = u64::from(end) * probing.probe.growing_pitch;
                    let passed = u64::from(row) * probing.probe.dying_pitch;
                    probing.gap = probing.gap.max(written.saturating_sub(passed));
                }
            }
        }
        self.steps[actor] += 1;
        self.rows_done[actor] = made;
        #[cfg(test)]
        {
            self.taken += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage that makes row `n` of `out` from row `n` of each view that it reads.
    fn row_by_row(reads: &[BufferView], out: BufferView) -> Actor {
        let ports = reads.iter().flat_map(|view| Actor::dma_out(*view).ports.to_vec()).collect();
        Actor { ports, is_transfer: false, ..Actor::dma_in(out) }
    }

    fn rows(tensor: u32, row0: u32, rows: u32) -> BufferView {
        BufferView { row0, rows, ..BufferView::whole(BufferId::from_u32(tensor), rows, 4, 8) }
    }

    #[test]
    fn a_stage_that_reads_other_rows_of_its_own_stream_pulls_the_rest() {
        // The sum of a part of a join, written in an earlier phase, and of what the first stage makes, is
        // another part.
        let sum = row_by_row(&[rows(7, 7, 7), rows(3, 0, 7)], rows(7, 0, 7));
        let actors = [row_by_row(&[rows(2, 0, 7)], rows(3, 0, 7)), sum];
        assert_eq!(ring_slots(&actors, Buffering::Lockstep)[&BufferId::from_u32(3)], 1);
        assert_eq!(ring_slots(&actors, Buffering::Overlap)[&BufferId::from_u32(3)], 2);
    }
}
