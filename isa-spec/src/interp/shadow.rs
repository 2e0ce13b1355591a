//! A shadow of the memories: what each byte holds, so that a read of anything else is seen.
//!
//! A byte of activation SRAM remembers the stream and the row that were written there last, a byte of weight
//! SRAM the load that brought it, a byte of DRAM whether it was stored. Since the place of an element in a
//! row is fixed, that tells whether a read finds the very elements it names. Reads are noted where the
//! interpreter takes bytes from memory, not by what the row demand ([`crate::demand`]) or the token flow
//! ([`crate::dataflow`]) say it reads.

use std::fmt;
use std::sync::OnceLock;

use crate::inst::View;
use crate::program::{Program, SegmentKind, WeightLoad, row_address};

/// A row of a stream, the one in whose own slots it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    stream: u32,
    row: u32,
}

/// Of a byte that nothing was written to.
const NOTHING: Held = Held { stream: u32::MAX, row: u32::MAX };

/// What a byte of weight SRAM holds before the first load.
const NO_LOAD: u32 = u32::MAX;

/// A use of memory that does not find what it is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The phase.
    pub phase: usize,
    /// The stage in the phase.
    pub stage: usize,
    /// The row of its output that the stage was making.
    pub row: u32,
    /// The byte that is wrong, in its memory.
    pub address: u64,
    /// What was to be there, in which memory, and what is.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, stage, row, address, message } = self;
        write!(f, "phase {phase}, stage {stage}, making row {row}: {message} at byte {address}")
    }
}

impl std::error::Error for Fault {}

/// A fault before it is known whose it is.
#[derive(Clone, Debug)]
struct WrongByte {
    address: u64,
    message: String,
}

/// What the memories hold.
#[derive(Debug)]
pub(super) struct Shadow {
    activation: Vec<Held>,
    /// Which load brought each byte of weight SRAM.
    weight: Vec<u32>,
    /// For each segment that the program writes, which bytes are stored.
    dram: Vec<Vec<bool>>,
    /// The first wrong byte. Rows are computed on several threads.
    wrong: OnceLock<WrongByte>,
}

impl Shadow {
    pub(super) fn new(program: &Program, activation_bytes: usize, weight_bytes: usize) -> Self {
        let stored = |kind: SegmentKind, bytes: u64| match kind {
            SegmentKind::Output | SegmentKind::Scratch => vec![false; bytes as usize],
            SegmentKind::Input | SegmentKind::Weights => Vec::new(),
        };
        Self {
            activation: vec![NOTHING; activation_bytes],
            weight: vec![NO_LOAD; weight_bytes],
            dram: program.segments.iter().map(|s| stored(s.kind, s.bytes)).collect(),
            wrong: OnceLock::new(),
        }
    }

    /// The fault that a stage ran into, if it did.
    pub(super) fn fault(&mut self, phase: usize, stage: usize, row: u32) -> Result<(), Fault> {
        match self.wrong.take() {
            None => Ok(()),
            Some(WrongByte { address, message }) => Err(Fault { phase, stage, row, address, message }),
        }
    }

    fn note(&self, address: usize, message: impl FnOnce() -> String) {
        self.wrong.get_or_init(|| WrongByte { address: address as u64, message: message() });
    }

    /// Notes that a row of a view (counted from the view's first) is written.
    pub(super) fn write_row(&mut self, program: &Program, view: &View, row: u32) {
        let bytes = RowBytes::new(program, view, row);
        for range in bytes.pixels() {
            self.activation[range].fill(bytes.held);
        }
    }

    /// Checks that a row of a view (counted from the view's first) stands where it is read.
    pub(super) fn read_row(&self, program: &Program, view: &View, row: u32) {
        let bytes = RowBytes::new(program, view, row);
        for range in bytes.pixels() {
            let wrong = |&at: &usize| self.activation[at] != bytes.held;
            if let Some(at) = range.into_iter().find(wrong) {
                let (wanted, found) = (bytes.held, self.activation[at]);
                self.note(at, || {
                    let what =
                        format!("reads row {} of stream {} in activation SRAM", wanted.row, wanted.stream);
                    if found == NOTHING {
                        return format!("{what}, where nothing was written");
                    }
                    format!("{what}, where row {} of stream {} stands", found.row, found.stream)
                });
                return;
            }
        }
    }

    /// Notes that a run of bytes of a segment is stored.
    pub(super) fn store(&mut self, segment: usize, at: usize, bytes: usize) {
        self.dram[segment][at..at + bytes].fill(true);
    }

    /// Checks that a run of bytes of a segment that the program writes is stored before it is loaded.
    pub(super) fn load(&self, segment: usize, at: usize, bytes: usize) {
        let stored = &self.dram[segment];
        if stored.is_empty() {
            return;
        }
        if let Some(missing) = stored[at..at + bytes].iter().position(|&is_stored| !is_stored) {
            self.note(at + missing, || format!("loads what was not stored in segment {segment} of DRAM"));
        }
    }

    /// Notes that a load of weights is complete.
    pub(super) fn load_weights(&mut self, index: u32, load: &WeightLoad) {
        let at = load.dst.0 as usize;
        self.weight[at..at + load.bytes as usize].fill(index);
    }

    /// Checks that a table was brought by the loads that its stage waits for.
    pub(super) fn read_table(&self, at: u32, bytes: u64, wait_loads: u32) {
        let at = at as usize;
        let wrong = |&load: &u32| load >= wait_loads;
        if let Some(offset) = self.weight[at..at + bytes as usize].iter().position(wrong) {
            let load = self.weight[at + offset];
            self.note(at + offset, || match load {
                NO_LOAD => "reads a table in weight SRAM where nothing was loaded".to_owned(),
                _ => format!(
                    "reads a table in weight SRAM where load {load} stands, one of those after the \
                        {wait_loads} that it \
                     waits for"
                ),
            });
        }
    }
}

/// The bytes of a row of a view.
struct RowBytes {
    held: Held,
    /// The address of the view's first column and channel.
    at: usize,
    pixels: usize,
    /// Bytes from one pixel to the next, and of the view's channels.
    pitch: usize,
    bytes: usize,
}

impl RowBytes {
    fn new(program: &Program, view: &View, row: u32) -> Self {
        let row = view.row0 + row;
        let holds = |stream: &u32| program.streams[*stream as usize].first_row() <= row;
        let own = program.chain(view.tensor).find(holds).unwrap_or(view.tensor);
        let stream = &program.streams[own as usize];
        let size = stream.elem.size_bytes() as usize;
        let pitch = stream.chs as usize * size;
        Self {
            held: Held { stream: own, row },
            at: row_address(&program.streams, view.tensor, row)
                + view.col0 as usize * pitch
                + view.ch0 as usize * size,
            pixels: view.cols as usize,
            pitch,
            bytes: view.chs as usize * size,
        }
    }

    /// The runs of bytes.
    fn pixels(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (at, pitch, bytes) = (self.at, self.pitch, self.bytes);
        let (runs, bytes) = if pitch == bytes { (1, bytes * self.pixels) } else { (self.pixels, bytes) };
        (0..runs).map(move |x| at + x * pitch..at + x * pitch + bytes)
    }
}
