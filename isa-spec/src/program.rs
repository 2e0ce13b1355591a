//! A program in structured form, as the decoder gives it and the compiler fills it.

use serde::{Deserialize, Serialize};

use crate::inst::{Elem, Head, Tail, View, WeightAddr};
pub use crate::inst::{Mapping, SegmentKind};

/// A DRAM segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What it is for.
    pub kind: SegmentKind,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A ring of rows in activation SRAM. It lives from the first to the last phase that names it, or a stream
/// whose [prefix](Prefix) it is; one that lives in more than one phase is [whole](Self::is_whole). Streams
/// that live at once share no bytes, but for one that grows into another or stands in its place, as
/// [`dataflow`](crate::dataflow) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stream {
    /// Element type.
    pub elem: Elem,
    /// Rows of the tensor.
    pub rows: u32,
    /// Columns of the tensor.
    pub cols: u32,
    /// Channels of the tensor.
    pub chs: u32,
    /// Address of slot 0 in activation SRAM.
    pub base: u32,
    /// Distance of slots in bytes.
    pub pitch_bytes: u32,
    /// Row slots.
    pub slots: u32,
    /// Where its first rows stand, if not in its own slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
}

/// The stream that holds the first rows of another, of the same columns, channels and element type. So a part
/// of a tensor can stay in SRAM from one phase to the next, while the rest is a ring in each; or be loaded in
/// the phase before the one that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The stream that holds them. A phase names it only through the one stream whose prefix it is there.
    pub stream: u32,
    /// How many: all rows of that stream, fewer than of this one.
    pub rows: u32,
}

impl Stream {
    /// The first row that stands in its own slots: row `r` from there on is in slot
    /// `(r - first_row) mod slots`.
    pub fn first_row(&self) -> u32 {
        self.prefix.map_or(0, |prefix| prefix.rows)
    }

    /// Whether every row that does not stand in its prefix has a slot.
    pub fn is_whole(&self) -> bool {
        self.slots == self.rows.saturating_sub(self.first_row())
    }

    /// Bytes of one row, without padding.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.cols) * u64::from(self.chs) * u64::from(self.elem.size_bytes())
    }

    /// Bytes of activation SRAM that the ring takes.
    pub fn size_bytes(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.pitch_bytes)
    }

    /// Whether both hold whole tensors, the element at a position of the one in the very bytes of that of the
    /// other.
    pub fn is_congruent(&self, other: &Self) -> bool {
        let place = |s: &Self| (s.base, s.pitch_bytes, s.rows, s.slots, s.cols, s.chs, s.elem.size_bytes());
        place(self) == place(other) && self.slots == self.rows
    }
}

/// What a stage computes, apart from where it runs. In a program it names streams and addresses in weight
/// SRAM; a compiler has it name tensors and tables that have no place yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageCode<Tensor = u32, Addr = WeightAddr> {
    /// The operation that makes the accumulator row.
    pub head: Head<Tensor, Addr>,
    /// Elementwise operations on it, in order.
    pub tail: Vec<Tail<Tensor, Addr>>,
    /// Where the rows go; the default (empty) view for DMA-out.
    pub out: View<Tensor>,
}

impl<Tensor: Copy, Addr: Copy> StageCode<Tensor, Addr> {
    /// The same code of other tensors: `view` gives the view that takes a view's place, in the order of
    /// [`reads`](Self::reads), of the output last.
    pub fn map_views<T>(&self, mut view: impl FnMut(&View<Tensor>) -> View<T>) -> StageCode<T, Addr> {
        let same = &mut |table| table;
        let head = self.head.map(&mut view, same);
        let tail = self.tail.iter().map(|tail| tail.map(&mut view, same)).collect();
        StageCode { head, tail, out: view(&self.out) }
    }

    /// The same code with other tables: `table` gives the one that takes a table's place.
    pub fn map_tables<A>(&self, mut table: impl FnMut(Addr) -> A) -> StageCode<Tensor, A> {
        let same = &mut |view: &View<Tensor>| *view;
        let head = self.head.map(same, &mut table);
        let tail = self.tail.iter().map(|tail| tail.map(same, &mut table)).collect();
        StageCode { head, tail, out: self.out }
    }

    /// Bytes of weight SRAM that a stage reads: address and length of each table, in the order of its fields.
    /// The verifier bounds them, the compiler lays them out.
    pub fn tables(&self) -> Vec<(Addr, u64)> {
        let chs = u64::from(self.out.chs);
        let bias_bytes = match &self.head {
            Head::Conv2dI16(_) | Head::DepthwiseConv2dI16(_) | Head::TransposeConv2dI16(_) => 8,
            _ => 4,
        };
        let mut all = match &self.head {
            Head::Conv2d(h) | Head::Conv2dI16(h) => {
                let taps = u64::from(h.window.kernel_h) * u64::from(h.window.kernel_w);
                let inputs = u64::from(h.src.chs) / u64::from(h.groups.max(1));
                vec![(h.weights, chs * taps * inputs), (h.bias, chs * bias_bytes)]
            }
            Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => {
                let taps = u64::from(h.window.kernel_h) * u64::from(h.window.kernel_w);
                vec![(h.weights, chs * taps), (h.bias, chs * bias_bytes)]
            }
            Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => {
                let taps = u64::from(h.kernel_h) * u64::from(h.kernel_w);
                vec![(h.weights, chs * taps * u64::from(h.src.chs)), (h.bias, chs * bias_bytes)]
            }
            _ => Vec::new(),
        };
        for tail in &self.tail {
            match tail {
                Tail::Rescale(t) => {
                    let n = if t.per_channel { chs } else { 1 };
                    all.extend([(t.multipliers, n * 4), (t.shifts, n)]);
                }
                Tail::Rescale16(t) => {
                    let n = if t.per_channel { chs } else { 1 };
                    all.extend([(t.multipliers, n * 2), (t.shifts, n)]);
                }
                Tail::RescaleBySign(t) => {
                    let n = if t.per_channel { chs } else { 1 };
                    all.extend([(t.multipliers, n * 4), (t.shifts, n)]);
                    all.extend([(t.multipliers_below, n * 4), (t.shifts_below, n)]);
                }
                Tail::Table(t) => all.push((t.table, 256)),
                Tail::TableI16(t) => all.push((t.table, 513 * 2)),
                Tail::BinaryConst(t) => {
                    let n = if t.per_channel { chs } else { 1 };
                    all.push((t.table, n * u64::from(t.elem.size_bytes())));
                }
                Tail::Clamp(_) | Tail::Binary(_) => {}
            }
        }
        all
    }
}

/// A stage of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The partition, an index into the phase's.
    pub partition: u32,
    /// Weight loads, counted over the program, that must be complete before its first row.
    pub wait_loads: u32,
    /// How the array is divided.
    pub mapping: Mapping,
    /// What it computes.
    pub code: StageCode,
    /// The source layer, an index into the debug names.
    pub source: u32,
}

/// A background DMA of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLoad {
    /// Destination in weight SRAM.
    pub dst: WeightAddr,
    /// Byte offset in the weight segment.
    pub src: u64,
    /// Length in bytes.
    pub bytes: u32,
}

/// A phase: partitions, the weight loads that it starts, and the stages that run at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Clusters of each partition. DMA stages name a partition too, but take no time on it.
    pub partitions: Vec<u32>,
    /// Loads queued when the phase begins, for its own stages or for later ones (prefetch).
    pub loads: Vec<WeightLoad>,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// A program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// DRAM segments.
    pub segments: Vec<Segment>,
    /// Streams of all phases.
    pub streams: Vec<Stream>,
    /// Phases, in order.
    pub phases: Vec<Phase>,
}

impl Program {
    /// A stream, its prefix, the prefix of that, and so on.
    pub fn chain(&self, stream: u32) -> impl Iterator<Item = u32> {
        let prefix = |stream: &u32| self.streams.get(*stream as usize)?.prefix.map(|prefix| prefix.stream);
        std::iter::successors(Some(stream), prefix).take(self.streams.len())
    }

    /// First and last phase that names each stream, or one whose prefix it is; none of a stream that no phase
    /// names.
    pub(crate) fn stream_lives(&self) -> Vec<Option<(usize, usize)>> {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.streams.len()];
        for (index, phase) in self.phases.iter().enumerate() {
            for stage in &phase.stages {
                let out = (stage.code.out.rows > 0).then_some(stage.code.out);
                for view in stage.code.reads().into_iter().chain(out) {
                    for stream in self.chain(view.tensor) {
                        let life = lives[stream as usize].get_or_insert((index, index));
                        life.1 = index;
                    }
                }
            }
        }
        lives
    }

    /// A view as views of the streams in whose own slots its rows stand, numbered as in the view's.
    pub fn parts(&self, view: &View) -> Vec<View> {
        let (from, mut to) = (view.row0, view.row0 + view.rows);
        let mut parts = Vec::new();
        for stream in self.chain(view.tensor) {
            let first = self.streams.get(stream as usize).map_or(0, Stream::first_row).max(from);
            if first < to {
                parts.push(View { tensor: stream, row0: first, rows: to - first, ..*view });
                to = first;
            }
        }
        parts
    }
}

/// Address in activation SRAM of a row of a stream.
pub(crate) fn row_address(streams: &[Stream], stream: u32, row: u32) -> usize {
    let mut stream = &streams[stream as usize];
    while let Some(prefix) = stream.prefix.filter(|prefix| row < prefix.rows) {
        stream = &streams[prefix.stream as usize];
    }
    let slot = (row - stream.first_row()) % stream.slots;
    stream.base as usize + slot as usize * stream.pitch_bytes as usize
}
