//! The verifier: what must hold of a program before anything runs it. It shares no code with the compiler.
//!
//! Checked: limits of the target; streams, views, tables and transfers in bounds of their memories; shapes,
//! types and channel ranges of every head and tail; prefixes hold the first rows of the same tensors; no two
//! streams that live at once overlap, but for one that grows into another as that is read for the last time,
//! or that is written in place of another, element by element; every element is written once, before it is
//! read; every table byte is loaded before its stage starts, and no load in flight touches it; every phase
//! reaches its last row (token simulation); every output byte is written. All violations are returned.
//!
//! Not checked: that the weights are the right ones, which no verifier can know.

mod geometry;
mod transfers;

use std::fmt;

use crate::dataflow::Flow;
use crate::inst::{Elem, Head, View};
use crate::program::{Phase, Program, SegmentKind, Stage, Stream};
use crate::target::Target;

/// The rule that a program breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A limit of the target or of the machine.
    Limit,
    /// An access outside its memory or tensor.
    Bounds,
    /// Shapes, types or parameters that do not agree.
    Shape,
    /// Two live ranges share bytes.
    Overlap,
    /// Something is read that was not written.
    Unwritten,
    /// Something is written twice, or where nothing may be written.
    Rewrite,
    /// A table is not loaded, or is loaded over while in use.
    Load,
    /// A phase never finishes.
    Deadlock,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The rule.
    pub rule: Rule,
    /// The phase, if it is about one.
    pub phase: Option<usize>,
    /// The stage in the phase, if it is about one.
    pub stage: Option<usize>,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(phase) = self.phase {
            write!(f, "phase {phase}")?;
            if let Some(stage) = self.stage {
                write!(f, ", stage {stage}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for VerifyError {}

/// Rows of a stream and of a stage at most; a machine limit, so that no program makes the verifier itself run
/// away.
pub const MAX_ROWS: u32 = 1 << 20;
/// Steps of a phase at most.
pub const MAX_PHASE_STEPS: u64 = 1 << 24;
/// Bytes of all DRAM segments at most.
pub const MAX_DRAM_BYTES: u64 = 1 << 35;

pub(crate) struct Check<'a> {
    program: &'a Program,
    target: &'a Target,
    errors: Vec<VerifyError>,
    phase: Option<usize>,
    stage: Option<usize>,
}

impl Check<'_> {
    fn fail(&mut self, rule: Rule, message: String) {
        self.errors.push(VerifyError { rule, phase: self.phase, stage: self.stage, message });
    }

    fn need(&mut self, ok: bool, rule: Rule, message: impl FnOnce() -> String) -> bool {
        if !ok {
            self.fail(rule, message());
        }
        ok
    }
}

/// All violations of a program for a target; empty if it may run.
pub fn verify(program: &Program, target: &Target) -> Vec<VerifyError> {
    let mut check = Check { program, target, errors: Vec::new(), phase: None, stage: None };
    check.segments();
    check.streams();
    for (index, phase) in program.phases.iter().enumerate() {
        check.phase = Some(index);
        check.partitions(phase);
        for (number, stage) in phase.stages.iter().enumerate() {
            check.stage = Some(number);
            check.stage(phase, stage);
        }
        check.stage = None;
    }
    check.phase = None;
    // What follows indexes by what the checks above have bounded.
    if check.errors.is_empty() {
        check.live_ranges();
        check.writes_and_reads();
        check.transfers();
        check.loads();
    }
    if check.errors.is_empty() {
        check.progress();
    }
    check.errors
}

impl Check<'_> {
    fn segments(&mut self) {
        let total: u128 = self.program.segments.iter().map(|s| u128::from(s.bytes)).sum();
        self.need(total <= u128::from(MAX_DRAM_BYTES), Rule::Limit, || {
            format!("the DRAM segments take {total} bytes, more than {MAX_DRAM_BYTES}")
        });
        let weights = self.program.segments.iter().filter(|s| s.kind == SegmentKind::Weights).count();
        self.need(weights <= 1, Rule::Limit, || format!("{weights} weight segments, at most one is allowed"));
    }

    fn streams(&mut self) {
        for (index, s) in self.program.streams.iter().enumerate() {
            let whole = s.rows > 0 && s.cols > 0 && s.chs > 0 && s.slots > 0;
            self.need(whole, Rule::Shape, || format!("stream {index} has an extent of zero"));
            self.need(s.rows <= MAX_ROWS, Rule::Limit, || {
                format!("stream {index} has {} rows, more than {MAX_ROWS}", s.rows)
            });
            let own_rows = s.rows.saturating_sub(s.first_row());
            self.need(s.slots <= own_rows, Rule::Shape, || {
                format!("stream {index} has {} slots for {own_rows} rows", s.slots)
            });
            self.prefix(index, s);
            let row = u128::from(s.cols) * u128::from(s.chs) * u128::from(s.elem.size_bytes());
            self.need(row <= u128::from(s.pitch_bytes), Rule::Bounds, || {
                format!("stream {index}: a row takes {row} bytes, the pitch is {}", s.pitch_bytes)
            });
            let end = u128::from(s.base) + u128::from(s.slots) * u128::from(s.pitch_bytes);
            let sram = self.target.memory.activation;
            self.need(end <= u128::from(sram), Rule::Bounds, || {
                format!("stream {index} ends at byte {end} of {sram} of activation SRAM")
            });
        }
    }

    /// The prefix of a stream holds the first rows of the same tensor. It has fewer, so no stream is a prefix
    /// of its own.
    fn prefix(&mut self, index: usize, s: &Stream) {
        let Some(prefix) = s.prefix else { return };
        let Some(f) = self.program.streams.get(prefix.stream as usize) else {
            self.fail(
                Rule::Bounds,
                format!("the prefix of stream {index} is {}, which is not declared", prefix.stream),
            );
            return;
        };
        let shape = |s: &Stream| (s.cols, s.chs, s.elem);
        self.need(shape(f) == shape(s) && f.rows == prefix.rows && f.rows < s.rows, Rule::Shape, || {
            format!(
                "the prefix of stream {index} is {} rows of stream {}, of [{}, {}, {}] {:?}: expected all of \
                    fewer than \
                 {} rows of [{}, {}] {:?}",
                prefix.rows, prefix.stream, f.rows, f.cols, f.chs, f.elem, s.rows, s.cols, s.chs, s.elem
            )
        });
    }

    /// Streams that a phase names, and their prefixes, which no stage may name too: who waits for whom is
    /// told by one stream of each tensor.
    fn named(&mut self, phase: &Phase) -> Vec<u32> {
        let views = phase.stages.iter().flat_map(|s| s.code.reads().into_iter().chain([s.code.out]));
        let mut streams: Vec<u32> = views.filter(|v| v.rows > 0).map(|v| v.tensor).collect();
        streams.sort_unstable();
        streams.dedup();
        let prefixes: Vec<u32> =
            streams.iter().flat_map(|&stream| self.program.chain(stream).skip(1)).collect();
        streams.extend(prefixes);
        streams.sort_unstable();
        for pair in streams.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.fail(
                Rule::Shape,
                format!("stream {} is the prefix of one and named by another too", pair[0]),
            );
        }
        streams
    }

    fn partitions(&mut self, phase: &Phase) {
        let clusters: u64 = phase.partitions.iter().map(|&c| u64::from(c)).sum();
        let have = self.target.array.clusters;
        self.need(clusters <= u64::from(have), Rule::Limit, || {
            format!("the partitions take {clusters} clusters, the target has {have}")
        });
        let (n, most) = (phase.stages.len(), self.target.limits.stages);
        self.need(n <= most as usize, Rule::Limit, || format!("{n} stages, the target allows {most}"));
        let (n, most) = (self.named(phase).len(), self.target.limits.streams);
        self.need(n <= most as usize, Rule::Limit, || format!("{n} streams, the target allows {most}"));
        let steps: u64 = phase.stages.iter().map(|s| u64::from(s.code.n_rows())).sum();
        self.need(steps <= MAX_PHASE_STEPS, Rule::Limit, || {
            format!("{steps} rows in the phase, more than {MAX_PHASE_STEPS}")
        });
    }

    fn view(&mut self, what: &str, view: &View) -> bool {
        let Some(s) = self.program.streams.get(view.tensor as usize) else {
            self.fail(Rule::Bounds, format!("{what} names stream {}, which is not declared", view.tensor));
            return false;
        };
        let inside =
            |from: u32, n: u32, extent: u32| n > 0 && u64::from(from) + u64::from(n) <= u64::from(extent);
        let ok = inside(view.row0, view.rows, s.rows)
            && inside(view.col0, view.cols, s.cols)
            && inside(view.ch0, view.chs, s.chs);
        self.need(ok, Rule::Bounds, || {
            format!(
                "{what} [{}+{}, {}+{}, {}+{}] is empty or outside stream {} of [{}, {}, {}]",
                view.row0,
                view.rows,
                view.col0,
                view.cols,
                view.ch0,
                view.chs,
                view.tensor,
                s.rows,
                s.cols,
                s.chs
            )
        })
    }

    fn stage(&mut self, phase: &Phase, stage: &Stage) {
        let dma = matches!(stage.code.head, Head::DmaIn(_) | Head::DmaOut(_));
        match phase.partitions.get(stage.partition as usize) {
            _ if dma => {}
            None => self.fail(Rule::Limit, format!("partition {} is not declared", stage.partition)),
            Some(&clusters) => {
                let m = stage.mapping;
                let used = m.clusters();
                self.need(used >= 1 && used <= u64::from(clusters), Rule::Limit, || {
                    format!("the mapping uses {used} clusters, the partition has {clusters}")
                });
                let lanes = self.target.array.lanes;
                self.need(
                    m.lanes_reduction.is_power_of_two() && m.lanes_reduction <= lanes,
                    Rule::Limit,
                    || {
                        format!(
                            "{} reduction lanes: expected a power of two up to {lanes}",
                            m.lanes_reduction
                        )
                    },
                );
            }
        }
        let mut ok = true;
        for (index, view) in stage.code.reads().iter().enumerate() {
            ok &= self.view(&format!("read {index}"), view);
        }
        if matches!(stage.code.head, Head::DmaOut(_)) {
            let out = &stage.code.out;
            ok &= self.need([out.rows, out.cols, out.chs] == [0; 3], Rule::Shape, || {
                format!(
                    "the output of a `dma_out` is [{}, {}, {}] of stream {}: it writes no stream, so it \
                        must be empty",
                    out.rows, out.cols, out.chs, out.tensor
                )
            });
        } else {
            ok &= self.view("the output", &stage.code.out);
        }
        if ok {
            self.geometry(&stage.code);
            for (at, len) in stage.code.tables() {
                let end = u64::from(at.0) + len;
                let sram = self.target.memory.weight;
                self.need(end <= sram, Rule::Bounds, || {
                    format!("a table ends at byte {end} of {sram} of weight SRAM")
                });
            }
        }
    }

    fn elem(&self, view: &View) -> Elem {
        self.program.streams[view.tensor as usize].elem
    }

    fn live_ranges(&mut self) {
        let lives = self.program.stream_lives();
        let streams = &self.program.streams;
        let mut live: Vec<(usize, usize, usize)> = Vec::new();
        for (index, life) in lives.iter().enumerate() {
            let Some((from, to)) = *life else { continue };
            if from != to && !streams[index].is_whole() {
                let (slots, rows) = (streams[index].slots, streams[index].rows - streams[index].first_row());
                self.fail(
                    Rule::Overlap,
                    format!(
                        "stream {index} lives from phase {from} to {to} but holds {slots} of {rows} rows"
                    ),
                );
            }
            live.push((from, to, index));
        }
        for (n, &(from, to, a)) in live.iter().enumerate() {
            for &(from_b, to_b, b) in &live[n + 1..] {
                let (x, y) = (&streams[a], &streams[b]);
                let (x0, x1) = (u64::from(x.base), u64::from(x.base) + x.size_bytes());
                let (y0, y1) = (u64::from(y.base), u64::from(y.base) + y.size_bytes());
                let shares = from <= to_b && from_b <= to && x0 < y1 && y0 < x1;
                let (one, other) = ((from, to, a), (from_b, to_b, b));
                if shares && !self.grows_into(one, other) && !self.stands_in_place(one, other) {
                    self.fail(
                        Rule::Overlap,
                        format!(
                            "streams {a} (bytes {x0}..{x1}, phases {from}..={to}) and {b} (bytes \
                                {y0}..{y1}, phases \
                             {from_b}..={to_b}) share activation SRAM"
                        ),
                    );
                }
            }
        }
    }

    /// Whether one of two streams, each with its first and last phase, may grow into the other: it begins in
    /// the phase in which the other, whole and written before, is read for the last time. That it waits for
    /// those reads is the flow's rule, and that the wait ends is shown by [`progress`](Self::progress).
    fn grows_into(&self, a: (usize, usize, usize), b: (usize, usize, usize)) -> bool {
        let (dying, growing) = if a.1 == b.0 { (a, b) } else { (b, a) };
        let (born, phase, stream) = dying;
        let is_written = |stage: &Stage| {
            self.program.parts(&stage.code.out).iter().any(|part| part.tensor as usize == stream)
        };
        growing.0 == phase
            && born < phase
            && self.program.streams[stream].is_whole()
            && !self.program.phases[phase].stages.iter().any(is_written)
    }

    /// Whether one of two streams, each with its first and last phase, stands in place of the other: both are
    /// whole and laid out alike, it begins later, and of what it has overwritten nothing is written or read
    /// from then on, but in place by the stage that overwrites it.
    fn stands_in_place(&self, a: (usize, usize, usize), b: (usize, usize, usize)) -> bool {
        let (old, new) = if a.0 < b.0 { (a, b) } else { (b, a) };
        let streams = &self.program.streams;
        if old.0 == new.0 || !streams[old.2].is_congruent(&streams[new.2]) {
            return false;
        }
        let mut overwritten: Vec<View> = Vec::new();
        for phase in &self.program.phases[new.0..=old.1] {
            let of = |stream: usize, view: &View| {
                self.program.parts(view).into_iter().find(|part| part.tensor as usize == stream)
            };
            let writes = phase.stages.iter().enumerate();
            let writes: Vec<(usize, View)> =
                writes.filter_map(|(number, s)| Some((number, of(new.2, &s.code.out)?))).collect();
            let meets = |a: &View, b: &View| shared_volume(a, &View { tensor: a.tensor, ..*b }) > 0;
            for (number, stage) in phase.stages.iter().enumerate() {
                let in_place = stage.code.in_place_reads();
                let reads =
                    stage.code.reads().into_iter().enumerate().map(|(which, view)| (Some(which), view));
                let uses = reads.chain([(None, stage.code.out)]);
                for (which, view) in uses.filter_map(|(which, view)| Some((which, of(old.2, &view)?))) {
                    let spares = |&(writer, out): &(usize, View)| {
                        let is_own = writer == number && which.is_some_and(|which| in_place.contains(&which));
                        is_own || !meets(&view, &out)
                    };
                    if overwritten.iter().any(|out| meets(&view, out)) || !writes.iter().all(spares) {
                        return false;
                    }
                }
            }
            overwritten.extend(writes.into_iter().map(|(_, out)| out));
        }
        true
    }

    /// Every element is written once, and before or while it is read.
    fn writes_and_reads(&mut self) {
        let mut writes: Vec<Vec<(usize, View)>> = vec![Vec::new(); self.program.streams.len()];
        for (index, phase) in self.program.phases.iter().enumerate() {
            for stage in &phase.stages {
                for part in self.program.parts(&stage.code.out) {
                    writes[part.tensor as usize].push((index, part));
                }
            }
        }
        for (stream, writes) in writes.iter().enumerate() {
            for (n, (_, a)) in writes.iter().enumerate() {
                if writes[n + 1..].iter().any(|(_, b)| shared_volume(a, b) > 0) {
                    self.fail(
                        Rule::Rewrite,
                        format!("two stages write the same elements of stream {stream}"),
                    );
                }
            }
        }
        for (index, phase) in self.program.phases.iter().enumerate() {
            self.phase = Some(index);
            for (number, stage) in phase.stages.iter().enumerate() {
                self.stage = Some(number);
                for view in stage.code.reads().iter().flat_map(|view| self.program.parts(view)) {
                    let written: u64 = writes[view.tensor as usize]
                        .iter()
                        .filter(|(at, _)| *at <= index)
                        .map(|(_, write)| shared_volume(&view, write))
                        .sum();
                    let want = view.n_elements();
                    self.need(written >= want, Rule::Unwritten, || {
                        format!(
                            "reads {want} elements of stream {}, of which {written} are written",
                            view.tensor
                        )
                    });
                }
            }
        }
        (self.phase, self.stage) = (None, None);
    }

    fn loads(&mut self) {
        let source = self.program.segments.iter().find(|s| s.kind == SegmentKind::Weights);
        let bytes = source.map_or(0, |s| s.bytes);
        let mut issued: Vec<(u64, u64)> = Vec::new();
        for (index, phase) in self.program.phases.iter().enumerate() {
            (self.phase, self.stage) = (Some(index), None);
            for load in &phase.loads {
                let (from, to) = (u64::from(load.dst.0), u64::from(load.dst.0) + u64::from(load.bytes));
                let sram = self.target.memory.weight;
                self.need(to <= sram, Rule::Bounds, || {
                    format!("a weight load ends at byte {to} of {sram} of weight SRAM")
                });
                let end = u128::from(load.src) + u128::from(load.bytes);
                self.need(end <= u128::from(bytes), Rule::Bounds, || {
                    format!("a weight load ends at byte {end} of {bytes} of the weight segment")
                });
                issued.push((from, to));
            }
            for (number, stage) in phase.stages.iter().enumerate() {
                self.stage = Some(number);
                let wait = stage.wait_loads as usize;
                if !self.need(wait <= issued.len(), Rule::Load, || {
                    format!("waits for {wait} loads, {} are queued by then", issued.len())
                }) {
                    continue;
                }
                for (at, len) in stage.code.tables() {
                    let (from, to) = (u64::from(at.0), u64::from(at.0) + len);
                    if issued[wait..].iter().any(|&(a, b)| a < to && from < b) {
                        self.fail(
                            Rule::Load,
                            format!("the table at {from}..{to} of weight SRAM is loaded over while in use"),
                        );
                    }
                    if let Some(byte) = first_uncovered(from, to, &issued[..wait]) {
                        self.fail(
                            Rule::Load,
                            format!(
                                "byte {byte} of the table at {from}..{to} is not loaded when the stage starts"
                            ),
                        );
                    }
                }
            }
        }
        (self.phase, self.stage) = (None, None);
    }

    fn progress(&mut self) {
        for (index, phase) in self.program.phases.iter().enumerate() {
            let mut flow = Flow::new(self.program, phase);
            let mut ready: Vec<usize> = (0..phase.stages.len()).rev().collect();
            while let Some(stage) = ready.pop() {
                if flow.blocked(stage).is_none() {
                    flow.advance(stage);
                    ready.push(stage);
                    ready.extend(flow.neighbours(stage));
                    ready.dedup();
                }
            }
            if !flow.finished() {
                let stuck: Vec<String> = (0..phase.stages.len())
                    .filter_map(|s| {
                        let why = flow.blocked(s)?;
                        (why != crate::dataflow::Blocked::Finished)
                            .then(|| format!("stage {s} at row {} ({why:?})", flow.done(s)))
                    })
                    .collect();
                self.phase = Some(index);
                self.fail(Rule::Deadlock, format!("the phase never finishes: {}", stuck.join(", ")));
            }
        }
        self.phase = None;
    }
}

/// Elements that two views of one stream share.
fn shared_volume(a: &View, b: &View) -> u64 {
    let span = |a: u32, an: u32, b: u32, bn: u32| {
        let (a, b) = (u64::from(a), u64::from(b));
        (a + u64::from(an)).min(b + u64::from(bn)).saturating_sub(a.max(b))
    };
    span(a.row0, a.rows, b.row0, b.rows)
        * span(a.col0, a.cols, b.col0, b.cols)
        * span(a.ch0, a.chs, b.ch0, b.chs)
}

/// The first byte of `from..to` that no range covers.
fn first_uncovered(from: u64, to: u64, ranges: &[(u64, u64)]) -> Option<u64> {
    let mut at = from;
    while at < to {
        match ranges.iter().filter(|&&(a, b)| a <= at && at < b).map(|&(_, b)| b).max() {
            Some(next) => at = next,
            None => return Some(at),
        }
    }
    None
}
