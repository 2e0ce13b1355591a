//! The token view of a phase: which stage may take its next step.
//!
//! A phase is a Kahn process network, so any order of ready steps gives the same values. The functional
//! interpreter, the timed interpreter and the verifier's deadlock check all advance the same [`Flow`]; they
//! differ in which ready stage they pick and in what a step costs.
//!
//! A step is ready when the rows that it reads have been written by every writer of this phase whose view
//! meets the read one, and when the slots that it writes are free. Rows that no stage of this phase writes
//! were written by an earlier phase; that this is so is for the verifier to show.
//!
//! A slot is free for row `r` of a ring of `R` slots when every reader has passed all rows up to `r - R`,
//! *and every other writer has written its rows up to there*. Both are needed: a row without a reader, which
//! a crop or a stride leaves out, still takes its slot when it is written, so it must not come after the row
//! that follows it there. Since stages read and write their rows in order, what each waits for is a count of
//! another's steps that depends on its own count only. The steps of a phase are therefore partially ordered,
//! and every order of ready steps is an extension of that one order: one run that finishes shows that all do.
//!
//! A stream may *grow into* another: its slots share bytes with rows of a stream that the phase reads for the
//! last time. A slot is then free when the readers of that stream have passed the rows that stand there, the
//! step that writes the slot included. Where each element stands in the very bytes of its like, only reads of
//! those elements count, and not those by the step that writes there, if they are
//! [in place](crate::StageCode::in_place_reads).
//!
//! A step may be taken in two parts: it begins when it has read its rows and ends when it has written its
//! own. What waits for reads waits for the beginning, what waits for rows for the end, so that steps which
//! have begun together can be computed side by side and then written.
//!
//! The rows of a stream that stand in its [prefix](crate::Prefix) are rows like the others, but have slots of
//! their own. What grows into another, and what is grown into, may be a prefix.

use crate::inst::View;
use crate::program::{Phase, Program, Stream};

/// Why a stage cannot take its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It has produced its last row.
    Finished,
    /// Rows of its input number `read` are missing: stage `writer` has to write them.
    Input {
        /// Which of the stage's reads.
        read: usize,
        /// The stage that is waited for.
        writer: usize,
    },
    /// A slot that it writes is not free: stage `by` has still to read, or to write, a row that stands there
    /// before.
    Output {
        /// The stage that is waited for.
        by: usize,
    },
}

#[derive(Clone, Debug)]
struct Read {
    /// Stages of the phase whose output meets the read view, and the first row that each writes.
    writers: Vec<(usize, u32)>,
    /// For each output row, the first stream row that it or any later row needs; one past the end is
    /// `u32::MAX`.
    first: Vec<u32>,
    /// For each output row, one past the last stream row that it needs (0 for none).
    end: Vec<u32>,
}

#[derive(Clone, Debug)]
struct StageFlow {
    n_rows: u32,
    rows_per_step: u32,
    reads: Vec<Read>,
    /// First row that the stage writes, and the ring.
    out: Option<(u32, Ring)>,
    /// Readers of the output stream: stage and which of its reads.
    readers: Vec<(usize, usize)>,
    /// Other stages that write rows of the output ring.
    writers: Vec<OtherWriter>,
    /// Streams that the output stream grows into.
    over: Vec<GrowsInto>,
}

/// A stage that writes rows of the same ring.
#[derive(Clone, Copy, Debug)]
struct OtherWriter {
    stage: usize,
    /// The first row that it writes, and how many.
    row0: u32,
    rows: u32,
}

impl OtherWriter {
    /// The first row that it has still to write after so many.
    fn next(self, done: u32) -> Option<u32> {
        (done < self.rows).then_some(self.row0 + done)
    }
}

/// Slots of a stream's rows.
#[derive(Clone, Copy, Debug)]
struct Ring {
    /// The first row that has a slot: those before are in the prefix.
    first: u32,
    /// How many slots there are.
    slots: u32,
}

impl Ring {
    fn of(stream: &Stream) -> Self {
        Self { first: stream.first_row(), slots: stream.slots }
    }

    /// The row that stands where a row is to be written, if one does.
    fn overwritten(self, row: u32) -> Option<u32> {
        (row - self.first.min(row)).checked_sub(self.slots).map(|own| own + self.first)
    }
}

/// A stream that another one's slots share bytes with.
#[derive(Clone, Debug)]
struct GrowsInto {
    /// The growing stream's slots.
    ring: Ring,
    /// For each of them, one past the last row of the other stream that begins before its last byte; 0 if
    /// none does.
    ends: Vec<u32>,
    /// Readers of the other stream: stage and which of its reads.
    readers: Vec<(usize, usize)>,
}

impl GrowsInto {
    /// One past the last row of the other stream that is overwritten when this row and those before have been
    /// written.
    fn overwritten(&self, row: u32) -> u32 {
        let own = row.checked_sub(self.ring.first);
        own.map_or(0, |own| self.ends[own.min(self.ring.slots - 1) as usize])
    }

    /// What a stream that is written shares with one that is read, if anything.
    fn new(written: &Stream, read: &Stream, readers: Vec<(usize, usize)>) -> Option<Self> {
        let end = |s: &Stream| u64::from(s.base) + s.size_bytes();
        let shares = u64::from(written.base) < end(read) && u64::from(read.base) < end(written);
        if !shares || readers.is_empty() {
            return None;
        }
        let first = read.first_row();
        let ends = (1..=u64::from(written.slots)).map(|slots| {
            let reach = u64::from(written.base) + slots * u64::from(written.pitch_bytes);
            let rows =
                reach.saturating_sub(u64::from(read.base)).div_ceil(u64::from(read.pitch_bytes.max(1)));
            if rows == 0 { 0 } else { first + rows.min(u64::from(read.rows - first)) as u32 }
        });
        Some(Self { ring: Ring::of(written), ends: ends.collect(), readers })
    }
}

/// The state of a phase that is running: how many rows each stage has produced.
#[derive(Clone, Debug)]
pub struct Flow {
    stages: Vec<StageFlow>,
    /// Rows whose steps have begun: what they read is passed.
    done: Vec<u32>,
    /// Rows that are written.
    written: Vec<u32>,
}

/// Whether two views of one stream share a column and a channel.
fn meet(a: &View, b: &View) -> bool {
    let overlap = |a0: u32, an: u32, b0: u32, bn: u32| {
        u64::from(a0) < u64::from(b0) + u64::from(bn) && u64::from(b0) < u64::from(a0) + u64::from(an)
    };
    a.tensor == b.tensor
        && overlap(a.ch0, a.chs, b.ch0, b.chs)
        && overlap(a.col0, a.cols, b.col0, b.cols)
        && overlap(a.row0, a.rows, b.row0, b.rows)
}

impl Flow {
    /// The flow of a phase at its start. Views must name streams that exist.
    pub fn new(program: &Program, phase: &Phase) -> Self {
        let outs: Vec<Option<View>> =
            phase.stages.iter().map(|s| (s.code.out.rows > 0).then_some(s.code.out)).collect();
        let reads: Vec<Vec<View>> = phase.stages.iter().map(|s| s.code.reads()).collect();
        let readers_of = |stream: u32| -> Vec<(usize, usize)> {
            let views = reads.iter().enumerate();
            let of = views.flat_map(|(reader, views)| {
                let own = views.iter().enumerate().filter(move |(_, view)| view.tensor == stream);
                own.map(move |(which, _)| (reader, which))
            });
            of.collect()
        };
        // Each stream that stands where something is read, with the one by which it is named.
        let mut read_streams: Vec<(u32, u32)> = (reads.iter().flatten())
            .flat_map(|view| program.parts(view).into_iter().map(|part| (part.tensor, view.tensor)))
            .collect();
        read_streams.sort_unstable();
        read_streams.dedup();
        let stages = phase.stages.iter().enumerate().map(|(index, stage)| {
            let n_rows = stage.code.n_rows();
            let demands: Vec<_> = (0..n_rows).map(|row| stage.code.demand(row)).collect();
            let stage_reads = reads[index].iter().enumerate().map(|(which, view)| {
                let mut first = vec![u32::MAX; n_rows as usize + 1];
                let mut end = vec![0; n_rows as usize];
                for row in (0..n_rows as usize).rev() {
                    let need = &demands[row][which];
                    first[row] = first[row + 1];
                    if need.start < need.end {
                        first[row] = first[row].min(view.row0 + need.start);
                        end[row] = view.row0 + need.end;
                    }
                }
                let writers = outs.iter().enumerate().filter_map(|(writer, out)| {
                    out.filter(|out| meet(out, view)).map(|out| (writer, out.row0))
                });
                Read { writers: writers.collect(), first, end }
            });
            let out = outs[index]
                .and_then(|out| Some((out.row0, Ring::of(program.streams.get(out.tensor as usize)?))));
            // Rows that stand in the prefix of the stream take no slot of its ring.
            let writers = outs.iter().enumerate().filter_map(|(writer, other)| {
                let (other, (_, ring)) = (other.as_ref()?, out.as_ref()?);
                let shares_ring = writer != index
                    && Some(other.tensor) == outs[index].map(|out| out.tensor)
                    && u64::from(other.row0) + u64::from(other.rows) > u64::from(ring.first);
                shares_ring.then_some(OtherWriter { stage: writer, row0: other.row0, rows: other.rows })
            });
            let in_place = stage.code.in_place_reads();
            let over = outs[index].iter().flat_map(|out| {
                let written = program.parts(out).into_iter().map(|part| part.tensor);
                let pairs = written.flat_map(|into| read_streams.iter().map(move |&read| (into, read)));
                pairs.filter(|(into, (stream, _))| into != stream).filter_map(|(into, (stream, named))| {
                    let written = program.streams.get(into as usize)?;
                    let read = program.streams.get(stream as usize)?;
                    let mut readers = readers_of(named);
                    if (into, stream) == (out.tensor, named) && written.is_congruent(read) {
                        readers.retain(|&(reader, which)| {
                            let like = View { tensor: out.tensor, ..reads[reader][which] };
                            let is_in_place = reader == index && in_place.contains(&which);
                            meet(out, &like) && !is_in_place
                        });
                    }
                    GrowsInto::new(written, read, readers)
                })
            });
            StageFlow {
                n_rows,
                rows_per_step: stage.code.rows_per_step(),
                reads: stage_reads.collect(),
                out,
                writers: writers.collect(),
                readers: outs[index].map_or_else(Vec::new, |out| readers_of(out.tensor)),
                over: over.collect(),
            }
        });
        let stages: Vec<_> = stages.collect();
        Self { done: vec![0; stages.len()], written: vec![0; stages.len()], stages }
    }

    /// Rows that a stage has produced.
    pub fn done(&self, stage: usize) -> u32 {
        self.done[stage]
    }

    /// Rows that the next step of a stage produces.
    pub fn next_rows(&self, stage: usize) -> std::ops::Range<u32> {
        let flow = &self.stages[stage];
        let from = self.done[stage];
        from..(from + flow.rows_per_step).min(flow.n_rows)
    }

    /// Whether every stage has produced its last row.
    pub fn finished(&self) -> bool {
        self.stages.iter().zip(&self.done).all(|(stage, &done)| done == stage.n_rows)
    }

    /// Whether a stage may take its next step; if not, what it waits for.
    pub fn blocked(&self, stage: usize) -> Option<Blocked> {
        let flow = &self.stages[stage];
        let rows = self.next_rows(stage);
        if rows.is_empty() {
            return Some(Blocked::Finished);
        }
        for (which, read) in flow.reads.iter().enumerate() {
            let end = rows.clone().map(|row| read.end[row as usize]).max().unwrap_or(0);
            for &(writer, row0) in &read.writers {
                let wanted = end.saturating_sub(row0).min(self.stages[writer].n_rows);
                if self.written[writer] < wanted {
                    return Some(Blocked::Input { read: which, writer });
                }
            }
        }
        self.output_blocked(flow, rows.end).map(|by| Blocked::Output { by })
    }

    /// The stage that a step waits for before it may write its rows, up to the one before `end` of its view.
    fn output_blocked(&self, flow: &StageFlow, end: u32) -> Option<usize> {
        let (row0, ring) = flow.out?;
        let last = row0 + end - 1;
        let still_needed =
            |reader: usize, which: usize| self.stages[reader].reads[which].first[self.done[reader] as usize];
        if let Some(overwritten) = ring.overwritten(last) {
            let reads = |&&(reader, which): &&(usize, usize)| still_needed(reader, which) <= overwritten;
            if let Some(&(reader, _)) = flow.readers.iter().find(reads) {
                return Some(reader);
            }
            let writes =
                |w: &&OtherWriter| w.next(self.written[w.stage]).is_some_and(|next| next <= overwritten);
            if let Some(writer) = flow.writers.iter().find(writes) {
                return Some(writer.stage);
            }
        }
        flow.over.iter().find_map(|other| {
            let overwritten = other.overwritten(last);
            let reads = |&&(reader, which): &&(usize, usize)| still_needed(reader, which) < overwritten;
            other.readers.iter().find(reads).map(|&(reader, _)| reader)
        })
    }

    /// Takes the next step of a stage that is not blocked.
    pub fn advance(&mut self, stage: usize) {
        self.begin(stage);
        self.written[stage] = self.done[stage];
    }

    /// Begins the next step of a stage that is not blocked: it has read its rows, but not written any. Steps
    /// that have begun may be followed by others, which [`end_all`](Self::end_all) ends together.
    pub fn begin(&mut self, stage: usize) {
        self.done[stage] = self.next_rows(stage).end;
    }

    /// Ends all steps that have begun, in the order in which they did.
    pub fn end_all(&mut self) {
        self.written.copy_from_slice(&self.done);
    }

    /// Stages whose readiness a step of `stage` can change: those that read what it writes, those that write
    /// the same ring, and those that write what it reads or grow into it.
    pub fn neighbours(&self, stage: usize) -> Vec<usize> {
        let flow = &self.stages[stage];
        let mut near: Vec<usize> = flow.readers.iter().map(|&(reader, _)| reader).collect();
        near.extend(flow.writers.iter().map(|writer| writer.stage));
        near.extend(flow.reads.iter().flat_map(|read| read.writers.iter().map(|&(writer, _)| writer)));
        // Writers of a stream wait for its readers even where their views do not meet.
        let waits_for = |writer: &StageFlow| {
            let over = writer.over.iter().flat_map(|other| &other.readers);
            writer.readers.iter().chain(over).any(|&(reader, _)| reader == stage)
        };
        near.extend((0..self.stages.len()).filter(|&w| waits_for(&self.stages[w])));
        near.sort_unstable();
        near.dedup();
        near
    }
}
