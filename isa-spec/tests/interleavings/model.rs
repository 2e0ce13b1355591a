//! A second definition of the machine, by the text of its manual, and all orders of a program's steps on it.
//!
//! Every rule is written as what it says, over single rows and bytes, with no regard for speed.

use std::collections::HashSet;
use std::ops::Range;

use strata_isa_spec::inst::{Head, ResizeMode, Tail};
use strata_isa_spec::{Phase, Program, SegmentKind, Stage, View};

/// States of a program that are looked at at most.
const MAX_STATES: usize = 60_000;

/// What all orders of a program come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every order ends, and reads what it names.
    Right,
    /// Some order does not, or the program breaks a rule of its own making.
    Wrong(String),
    /// There are more states than are looked at.
    TooLarge,
}

/// What was found, after how many states.
pub(crate) struct Exploration {
    pub(crate) verdict: Verdict,
    pub(crate) states: u64,
}

/// What a byte of activation SRAM holds: a row of a stream.
type Tag = Option<(u8, u8)>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Rows that each stage of the phase has made.
    done: Vec<u32>,
    sram: Vec<Tag>,
    /// Which bytes of each segment are stored.
    dram: Vec<Vec<bool>>,
}

/// The views that a stage reads.
fn reads(stage: &Stage) -> Vec<View> {
    let mut views = match &stage.code.head {
        Head::Load(h) => vec![h.src],
        Head::Conv2d(h) => vec![h.src],
        Head::MaxPool2d(h) => vec![h.src],
        Head::Resize(h) => vec![h.src],
        Head::Pad(h) => vec![h.src],
        Head::Reduce(h) => vec![h.src],
        Head::DmaIn(_) => vec![],
        Head::DmaOut(h) => vec![h.src],
        other => unreachable!("{other:?} is not generated"),
    };
    views.extend(stage.code.tail.iter().filter_map(|tail| match tail {
        Tail::Binary(t) => Some(t.src),
        _ => None,
    }));
    views
}

fn n_rows(stage: &Stage) -> u32 {
    match &stage.code.head {
        Head::DmaOut(h) => h.src.rows,
        _ => stage.code.out.rows,
    }
}

/// Rows of a window over `rows` rows of input.
fn window(row: u32, kernel: u32, stride: u32, pad: u32, rows: u32) -> Vec<u32> {
    let taps = (0..kernel).map(|k| i64::from(row * stride + k) - i64::from(pad));
    taps.filter(|y| (0..i64::from(rows)).contains(y)).map(|y| y as u32).collect()
}

/// Rows of the view number `which`, counted from its first, that a row of a stage needs.
fn needs(stage: &Stage, which: usize, row: u32) -> Vec<u32> {
    if which > 0 {
        return vec![row];
    }
    match &stage.code.head {
        Head::Load(_) | Head::DmaOut(_) => vec![row],
        Head::Conv2d(h) => window(row, h.window.kernel_h, h.window.stride_h, h.window.pad_top, h.src.rows),
        Head::MaxPool2d(h) => window(row, h.window.kernel_h, h.window.stride_h, h.window.pad_top, h.src.rows),
        Head::Pad(h) => window(row, 1, 1, h.top, h.src.rows),
        Head::Reduce(h) => (0..h.src.rows).collect(),
        Head::Resize(h) => {
            assert_eq!((h.mode, h.scale_y_n, h.scale_y_d, h.offset_y), (ResizeMode::Nearest, 2, 1, 0));
            // Twice as many rows, from the corner: 0, 1 (the half rounds up), 1, 2, 2 and so on.
            vec![row.div_ceil(2).min(h.src.rows - 1)]
        }
        other => unreachable!("{other:?} is not generated"),
    }
}

fn step(stage: &Stage, done: u32) -> Range<u32> {
    let winograd = matches!(&stage.code.head, Head::Conv2d(h) if h.winograd);
    done..(done + if winograd { 2 } else { 1 }).min(n_rows(stage))
}

fn meets(a: u32, n: u32, b: u32, m: u32) -> bool {
    (a..a + n).any(|x| (b..b + m).contains(&x))
}

fn views_meet(a: &View, b: &View) -> bool {
    a.tensor == b.tensor
        && meets(a.row0, a.rows, b.row0, b.rows)
        && meets(a.col0, a.cols, b.col0, b.cols)
        && meets(a.ch0, a.chs, b.ch0, b.chs)
}

/// The stream in whose own slots a row of a stream stands.
fn home(program: &Program, stream: u32, row: u32) -> u32 {
    match program.streams[stream as usize].prefix {
        Some(prefix) if row < prefix.rows => home(program, prefix.stream, row),
        _ => stream,
    }
}

/// Bytes of a row of a view, the row counted from the stream's first.
fn bytes(program: &Program, view: &View, row: u32) -> Vec<usize> {
    let own = &program.streams[home(program, view.tensor, row) as usize];
    let first = own.prefix.map_or(0, |prefix| prefix.rows);
    let at = own.base + (row - first) % own.slots * own.pitch_bytes;
    let pixels = (view.col0..view.col0 + view.cols)
        .flat_map(|x| (view.ch0..view.ch0 + view.chs).map(move |c| x * own.chs + c));
    pixels.map(|element| (at + element) as usize).collect()
}

/// The elements of a view, each by stream, row, column and channel.
fn elements(program: &Program, view: &View) -> Vec<(u32, u32, u32, u32)> {
    let mut all = Vec::new();
    for row in view.row0..view.row0 + view.rows {
        for col in view.col0..view.col0 + view.cols {
            all.extend(
                (view.ch0..view.ch0 + view.chs).map(|ch| (home(program, view.tensor, row), row, col, ch)),
            );
        }
    }
    all
}

/// Whether a stage writes a stream.
fn writes(stage: &Stage) -> Option<View> {
    (stage.code.out.rows > 0).then_some(stage.code.out)
}

/// Rows of a stream that a stage has still to read through one of its views, counted from the stream's first.
fn still_reads<'a>(stage: &'a Stage, which: usize, done: u32) -> impl Iterator<Item = u32> + 'a {
    let row0 = reads(stage)[which].row0;
    (done..n_rows(stage)).flat_map(move |row| needs(stage, which, row)).map(move |row| row0 + row)
}

struct Machine<'a> {
    program: &'a Program,
    phase: &'a Phase,
}

impl Machine<'_> {
    /// Whether a stage may take its next step.
    fn may_step(&self, number: usize, done: &[u32]) -> bool {
        let stage = &self.phase.stages[number];
        let rows = step(stage, done[number]);
        !rows.is_empty()
            && self.inputs_are_there(stage, &rows, done)
            && self.slots_are_free(number, &rows, done)
    }

    /// The rows that a step reads, and those before, are written by every stage that writes what it reads.
    fn inputs_are_there(&self, stage: &Stage, rows: &Range<u32>, done: &[u32]) -> bool {
        reads(stage).iter().enumerate().all(|(which, view)| {
            let last = rows.clone().flat_map(|row| needs(stage, which, row)).map(|row| view.row0 + row).max();
            self.phase.stages.iter().enumerate().all(|(writer, other)| {
                let Some(out) = writes(other).filter(|out| views_meet(out, view)) else { return true };
                (done[writer]..out.rows).all(|row| last.is_none_or(|last| out.row0 + row > last))
            })
        })
    }

    /// The rows that stand where a step writes have been read, and written, by all that are to.
    fn slots_are_free(&self, number: usize, rows: &Range<u32>, done: &[u32]) -> bool {
        let Some(out) = writes(&self.phase.stages[number]) else { return true };
        rows.clone().all(|row| {
            self.ring_is_free(number, &out, out.row0 + row, done)
                && self.others_are_read(number, &out, out.row0 + row, done)
        })
    }

    /// Of a ring of `R` slots, all rows up to `row - R` have been passed by its readers and written by its
    /// writers.
    fn ring_is_free(&self, number: usize, out: &View, row: u32, done: &[u32]) -> bool {
        let ring = &self.program.streams[out.tensor as usize];
        let first = ring.prefix.map_or(0, |prefix| prefix.rows);
        if row < first + ring.slots {
            return true;
        }
        let before = row - ring.slots;
        let stages = self.phase.stages.iter().enumerate();
        stages.clone().all(|(reader, other)| {
            let views = reads(other);
            (0..views.len())
                .filter(|&which| views[which].tensor == out.tensor)
                .all(|which| still_reads(other, which, done[reader]).all(|needed| needed > before))
        }) && stages.clone().filter(|&(writer, _)| writer != number).all(|(writer, other)| {
            let Some(other) = writes(other).filter(|other| other.tensor == out.tensor) else { return true };
            // Who writes rows of the prefix alone takes no slot of the ring.
            other.row0 + other.rows <= first
                || (done[writer]..other.rows).all(|row| other.row0 + row > before)
        })
    }

    /// Rows of other streams that stand where a stream is written, up to the slot of the row, have been
    /// passed by their readers. What a step reads element by element in the very place where it writes does
    /// not count.
    fn others_are_read(&self, number: usize, out: &View, row: u32, done: &[u32]) -> bool {
        let into_all: HashSet<u32> =
            (out.row0..out.row0 + out.rows).map(|row| home(self.program, out.tensor, row)).collect();
        into_all.into_iter().all(|into| {
            let grown = &self.program.streams[into as usize];
            let first = grown.prefix.map_or(0, |prefix| prefix.rows);
            if row < first {
                return true;
            }
            let slots = (row - first).min(grown.slots - 1) + 1;
            let reach = grown.base + slots * grown.pitch_bytes;
            self.phase.stages.iter().enumerate().all(|(reader, other)| {
                let views = reads(other);
                (0..views.len()).all(|which| {
                    let view = &views[which];
                    let homes: HashSet<u32> = (view.row0..view.row0 + view.rows)
                        .map(|row| home(self.program, view.tensor, row))
                        .filter(|&other| other != into && self.share(other, into))
                        .collect();
                    homes.into_iter().all(|other| {
                        if self.in_place((number, out), (reader, which, view), (into, other)) {
                            return true;
                        }
                        let read = &self.program.streams[other as usize];
                        let first = read.prefix.map_or(0, |prefix| prefix.rows);
                        let overwritten: Option<u32> = (first..read.rows)
                            .filter(|row| read.base + (row - first) * read.pitch_bytes < reach)
                            .max();
                        still_reads(&self.phase.stages[reader], which, done[reader])
                            .all(|needed| overwritten.is_none_or(|row| needed > row))
                    })
                })
            })
        })
    }

    fn share(&self, a: u32, b: u32) -> bool {
        let range = |stream: u32| {
            let s = &self.program.streams[stream as usize];
            s.base..s.base + s.slots * s.pitch_bytes
        };
        range(a).start < range(b).end && range(b).start < range(a).end
    }

    /// Whether a read does not keep a writer from a stream that stands element by element where the read one
    /// does: it reads other elements, or just those that the writer's own step replaces.
    fn in_place(
        &self,
        (writer, out): (usize, &View),
        (reader, which, view): (usize, usize, &View),
        (into, other): (u32, u32),
    ) -> bool {
        let s = |stream: u32| &self.program.streams[stream as usize];
        let place = |stream: u32| {
            (s(stream).base, s(stream).pitch_bytes, s(stream).rows, s(stream).cols, s(stream).chs)
        };
        let is_whole = s(into).slots == s(into).rows && s(other).slots == s(other).rows;
        if place(into) != place(other) || !is_whole || (into, other) != (out.tensor, view.tensor) {
            return false;
        }
        let like = View { tensor: out.tensor, ..*view };
        let is_elementwise = which > 0 || matches!(self.phase.stages[reader].code.head, Head::Load(_));
        !views_meet(&like, out) || (reader == writer && is_elementwise && like == *out)
    }

    /// Takes the next step of a stage; what is wrong with what it reads.
    fn step(&self, number: usize, state: &mut State) -> Option<String> {
        let stage = &self.phase.stages[number];
        for row in step(stage, state.done[number]) {
            for (which, view) in reads(stage).iter().enumerate() {
                for needed in needs(stage, which, row).into_iter().map(|row| view.row0 + row) {
                    let want = Some((home(self.program, view.tensor, needed) as u8, needed as u8));
                    let wrong =
                        bytes(self.program, view, needed).into_iter().find(|&at| state.sram[at] != want);
                    if let Some(at) = wrong {
                        let found = state.sram[at];
                        return Some(format!(
                            "stage {number} finds {found:?} for {want:?} at byte {at} (done {:?})",
                            state.done
                        ));
                    }
                }
            }
            let moved = |at: u64, pitch: u64, pixel_pitch: u32, view: &View| -> Vec<usize> {
                let pixels = (0..u64::from(view.cols))
                    .map(|x| at + u64::from(row) * pitch + x * u64::from(pixel_pitch));
                pixels.flat_map(|at| (0..u64::from(view.chs)).map(move |c| (at + c) as usize)).collect()
            };
            match &stage.code.head {
                Head::DmaIn(h) => {
                    let bytes = moved(h.offset, h.row_pitch_bytes, h.pixel_pitch_bytes, &stage.code.out);
                    if bytes.into_iter().any(|at| !state.dram[h.segment as usize][at]) {
                        return Some(format!("stage {number} loads what is not stored"));
                    }
                }
                Head::DmaOut(h) => {
                    for at in moved(h.offset, h.row_pitch_bytes, h.pixel_pitch_bytes, &h.src) {
                        state.dram[h.segment as usize][at] = true;
                    }
                }
                _ => {}
            }
            if let Some(out) = writes(stage) {
                let row = out.row0 + row;
                for at in bytes(self.program, &out, row) {
                    state.sram[at] = Some((home(self.program, out.tensor, row) as u8, row as u8));
                }
            }
        }
        state.done[number] = step(stage, state.done[number]).end;
        None
    }
}

/// What the program itself says wrong, whatever the order: an element or a stored byte written twice, a view
/// of which something is never written, a stream that outlives its phase as a ring.
fn contradiction(program: &Program) -> Option<String> {
    let mut written = HashSet::new();
    let mut stored = HashSet::new();
    let mut named: Vec<HashSet<usize>> = vec![HashSet::new(); program.streams.len()];
    for (index, phase) in program.phases.iter().enumerate() {
        for stage in &phase.stages {
            let outs = writes(stage).map_or_else(Vec::new, |out| elements(program, &out));
            if let Some(element) = outs.into_iter().find(|&element| !written.insert(element)) {
                return Some(format!("{element:?} is written twice"));
            }
            if let Head::DmaOut(h) = &stage.code.head {
                if stage.code.out.rows > 0 {
                    return Some("a stage that stores declares an output".to_owned());
                }
                for (row, col) in (0..h.src.rows).flat_map(|r| (0..h.src.cols).map(move |c| (r, c))) {
                    let at =
                        h.offset + u64::from(row) * h.row_pitch_bytes + u64::from(col * h.pixel_pitch_bytes);
                    if (0..u64::from(h.src.chs)).any(|c| !stored.insert((h.segment, at + c))) {
                        return Some("a byte of DRAM is stored twice".to_owned());
                    }
                }
            }
            for view in reads(stage).into_iter().chain(writes(stage)) {
                let mut stream = Some(view.tensor);
                while let Some(at) = stream {
                    named[at as usize].insert(index);
                    stream = program.streams[at as usize].prefix.map(|prefix| prefix.stream);
                }
            }
        }
        for view in phase.stages.iter().flat_map(reads) {
            if elements(program, &view).iter().any(|element| !written.contains(element)) {
                return Some("a view holds what is not written by then".to_owned());
            }
        }
    }
    let outlives = |(stream, phases): (usize, &HashSet<usize>)| {
        let s = &program.streams[stream];
        phases.len() > 1 && s.slots < s.rows - s.prefix.map_or(0, |prefix| prefix.rows)
    };
    named
        .iter()
        .enumerate()
        .any(|(stream, phases)| outlives((stream, phases)))
        .then(|| "a ring outlives a phase".to_owned())
}

/// All orders of all phases.
pub(crate) fn explore(program: &Program) -> Exploration {
    let mut states = 0;
    let verdict = contradiction(program).map_or_else(|| all_orders(program, &mut states), Verdict::Wrong);
    Exploration { verdict, states }
}

fn all_orders(program: &Program, states: &mut u64) -> Verdict {
    let is_there = |kind: SegmentKind| matches!(kind, SegmentKind::Input | SegmentKind::Weights);
    let dram = program.segments.iter().map(|s| vec![is_there(s.kind); s.bytes as usize]).collect();
    let sram = program.streams.iter().map(|s| s.base + s.slots * s.pitch_bytes).max().unwrap_or(0);
    let mut begin: HashSet<State> =
        HashSet::from([State { done: Vec::new(), sram: vec![None; sram as usize], dram }]);
    for (index, phase) in program.phases.iter().enumerate() {
        let machine = Machine { program, phase };
        let mut seen: HashSet<State> = HashSet::new();
        let mut ends: HashSet<State> = HashSet::new();
        let mut open: Vec<State> = begin.drain().collect();
        for state in &mut open {
            state.done = vec![0; phase.stages.len()];
        }
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            *states += 1;
            if seen.len() > MAX_STATES {
                return Verdict::TooLarge;
            }
            let ready: Vec<usize> =
                (0..phase.stages.len()).filter(|&stage| machine.may_step(stage, &state.done)).collect();
            let is_done = phase.stages.iter().zip(&state.done).all(|(stage, &done)| done == n_rows(stage));
            if ready.is_empty() && !is_done {
                return Verdict::Wrong(format!("phase {index} is stuck at {:?}", state.done));
            }
            if is_done {
                ends.insert(State { done: Vec::new(), ..state });
                continue;
            }
            for stage in ready {
                let mut next = state.clone();
                if let Some(what) = machine.step(stage, &mut next) {
                    return Verdict::Wrong(format!("phase {index}: {what}"));
                }
                open.push(next);
            }
        }
        begin = ends;
    }
    let missing = |state: &State| {
        let outputs = program.segments.iter().zip(&state.dram).filter(|(s, _)| s.kind == SegmentKind::Output);
        outputs.into_iter().any(|(_, stored)| stored.contains(&false))
    };
    if begin.iter().any(missing) {
        Verdict::Wrong("an output is not stored".to_owned())
    } else {
        Verdict::Right
    }
}
