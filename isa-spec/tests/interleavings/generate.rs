//! Small random programs: a few stages over tensors of a few rows, rings that may be too small, joins by
//! rows, columns and channels, crops, strides past the kernel, streams that grow into others, stand in their
//! place or have prefixes, and tensors that go through DRAM. About half of them are valid.

use strata_isa_spec::inst::{
    Axis, Binary, BinaryKind, Conv2d, DmaIn, DmaOut, Elem, Load, MaxPool2d, Pad, Reduce, ReduceKind, Rescale,
    Resize, ResizeMode, WeightAddr, Window,
};
use strata_isa_spec::{
    Head, Mapping, Phase, Prefix, Program, Segment, SegmentKind, Stage, StageCode, Stream, Tail, View,
    WeightLoad,
};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `least..=most`.
    fn int(&mut self, least: u32, most: u32) -> u32 {
        least + (self.next() % u64::from(most - least + 1)) as u32
    }

    /// True with a chance of `percent`.
    fn chance(&mut self, percent: u32) -> bool {
        self.int(1, 100) <= percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.int(0, of.len() as u32 - 1) as usize]
    }
}

const WEIGHTS: u32 = 0;
const INPUT: u32 = 1;
const SCRATCH: u32 = 2;
const OUTPUT: u32 = 3;
/// Where the tables of convolutions stand in weight SRAM.
const SCRATCH_BYTES: u64 = 256;
/// Input channels from which on the array may run two rows of a convolution at a time.
const WINOGRAD_CHANNELS: u32 = 16;
const BIAS: u32 = 288;
const MULTIPLIERS: u32 = 296;
const SHIFTS: u32 = 300;
const TABLE_BYTES: u32 = 304;

struct Draft {
    random: Random,
    program: Program,
    /// Regions that are written and may be read in this phase.
    written: Vec<View>,
    /// Regions of joined streams without a writer.
    open: Vec<View>,
    /// Streams that later phases may read.
    kept: Vec<u32>,
    stages: Vec<Stage>,
    /// Bytes of the output and of scratch that are stored so far.
    output: u64,
    scratch: Vec<(u64, View)>,
}

/// The extents of a view.
fn extents(view: &View) -> [u32; 3] {
    [view.rows, view.cols, view.chs]
}

/// The same view but for one axis.
fn along(mut view: View, axis: usize, from: u32, n: u32) -> View {
    match axis {
        0 => (view.row0, view.rows) = (from, n),
        1 => (view.col0, view.cols) = (from, n),
        _ => (view.ch0, view.chs) = (from, n),
    }
    view
}

impl Draft {
    /// Declares a stream of the given extents, whole and without an address.
    fn stream(&mut self, [rows, cols, chs]: [u32; 3]) -> u32 {
        let pitch_bytes = cols * chs + u32::from(self.random.chance(15));
        let stream =
            Stream { elem: Elem::I8, rows, cols, chs, base: 0, pitch_bytes, slots: rows, prefix: None };
        self.program.streams.push(stream);
        self.program.streams.len() as u32 - 1
    }

    /// Where a result of the given extents goes: a stream of its own, or a piece of a joined one of which the
    /// rest is left for other stages.
    fn place(&mut self, size: [u32; 3]) -> View {
        let [rows, cols, chs] = size;
        if !self.random.chance(40) {
            let stream = self.stream(size);
            return View::whole(stream, rows, cols, chs);
        }
        let axis = self.random.pick(&[0, 0, 0, 1, 2]);
        let other = self.random.int(1, if axis == 0 { 3 } else { 1 });
        let mut all = size;
        all[axis] += other;
        let stream = self.stream(all);
        let whole = View::whole(stream, rows, cols, chs);
        let (from, rest_from) = if self.random.chance(50) { (0, size[axis]) } else { (other, 0) };
        self.open.push(along(whole, axis, rest_from, other));
        along(whole, axis, from, size[axis])
    }

    /// A part of something that is written: often all of it, else fewer rows, columns or channels; now and
    /// then a view over several writers' rows, written or not.
    fn source(&mut self) -> View {
        let mut view = self.random.pick(&self.written);
        if self.random.chance(35) {
            let s = self.program.streams[view.tensor as usize];
            view = View::whole(view.tensor, s.rows, s.cols, s.chs);
        }
        if self.random.chance(40) {
            let rows = self.random.int(1, view.rows);
            view.row0 += self.random.int(0, view.rows - rows);
            view.rows = rows;
        }
        if view.cols > 1 && self.random.chance(15) {
            (view.col0, view.cols) = (view.col0 + self.random.int(0, view.cols - 1), 1);
        }
        if view.chs > 1 && self.random.chance(15) {
            (view.ch0, view.chs) = (view.ch0 + self.random.int(0, view.chs - 1), 1);
        }
        view
    }

    fn push(&mut self, head: Head, tail: Vec<Tail>, out: View) {
        let code = StageCode { head, tail, out };
        let wait_loads = u32::from(matches!(code.head, Head::Conv2d(_)));
        self.stages.push(Stage { partition: 0, wait_loads, mapping: Mapping::default(), code, source: 0 });
        if out.rows > 0 {
            self.written.push(out);
        }
    }

    /// Brings a tensor from the input, or from scratch.
    fn load(&mut self) {
        let size = [self.random.int(1, 5), self.random.int(1, 2), self.random.pick(&[1, 1, 2, 2, 2, 16])];
        let out = self.place(size);
        let pixel = out.chs;
        let (mut segment, mut offset, mut pitch) = (INPUT, 0, u64::from(out.cols * pixel));
        if !self.scratch.is_empty() && self.random.chance(70) {
            let (at, stored) = self.random.pick(&self.scratch);
            let moved = at + u64::from(self.random.chance(20));
            let other = u64::from(stored.cols * stored.chs) + u64::from(self.random.chance(10));
            let bytes = u64::from(out.rows - 1) * other + u64::from(out.cols * pixel);
            if other >= u64::from(out.cols * pixel) && moved + bytes <= SCRATCH_BYTES {
                (segment, offset, pitch) = (SCRATCH, moved, other);
            }
        }
        let head = DmaIn { segment, offset, row_pitch_bytes: pitch, pixel_pitch_bytes: pixel };
        self.push(head.into(), Vec::new(), out);
    }

    /// Sends a tensor to the output, or to scratch.
    fn store(&mut self, to_output: bool) {
        let src = if self.random.chance(60) { self.random.pick(&self.written) } else { self.source() };
        let row = u64::from(src.cols * src.chs);
        let fits =
            |(at, view): &(u64, View)| at + view.n_elements() + u64::from(src.rows) * row <= SCRATCH_BYTES;
        let to_output = to_output || !self.scratch.last().is_none_or(fits);
        let (segment, offset) = if to_output {
            (OUTPUT, self.output)
        } else {
            (SCRATCH, self.scratch.last().map_or(0, |(at, view)| at + view.n_elements()))
        };
        let bytes = u64::from(src.rows) * row;
        if to_output {
            self.output += bytes;
        } else {
            self.scratch.push((offset, src));
        }
        // Now and then over what is stored already, with a distance of rows that says nothing, or with an
        // output of its own.
        let offset = offset.saturating_sub(u64::from(self.random.chance(5)));
        let says_nothing = src.rows == 1 && self.random.chance(20);
        let row_pitch_bytes = if says_nothing { u64::from(self.random.int(0, 2)) } else { row };
        let head = DmaOut { src, segment, offset, row_pitch_bytes, pixel_pitch_bytes: src.chs };
        let out = if self.random.chance(2) { self.random.pick(&self.written) } else { View::default() };
        self.push(head.into(), Vec::new(), out);
    }

    /// A stage that fills a region which a join has left.
    fn fill(&mut self) {
        let at = self.random.int(0, self.open.len() as u32 - 1) as usize;
        let out = self.open.swap_remove(at);
        let mut src = self.source();
        (src.rows, src.cols, src.chs) =
            (src.rows.min(out.rows), src.cols.min(out.cols), src.chs.min(out.chs));
        let head = if extents(&src) == extents(&out) && self.random.chance(50) {
            Load { src }.into()
        } else {
            let top = self.random.int(0, out.rows - src.rows);
            Pad { src, top, left: out.cols - src.cols, front: out.chs - src.chs, value: 1 }.into()
        };
        self.push(head, Vec::new(), out);
    }

    fn compute(&mut self) {
        let src = self.source();
        let [rows, cols, chs] = extents(&src);
        match self.random.int(0, 9) {
            0..=2 => {
                let (kernel_h, stride_h) = (self.random.int(1, 3), self.random.int(1, 3));
                let [pad_top, pad_bottom] = [0; 2].map(|_| self.random.int(0, kernel_h - 1));
                let Some(room) = (rows + pad_top + pad_bottom).checked_sub(kernel_h) else { return };
                let (kernel_w, stride_w) = (1, 1);
                let (dilation_h, dilation_w, pad_left, pad_right) = (1, 1, 0, 0);
                let window = Window {
                    kernel_h,
                    kernel_w,
                    stride_h,
                    stride_w,
                    dilation_h,
                    dilation_w,
                    pad_top,
                    pad_bottom,
                    pad_left,
                    pad_right,
                };
                let out = self.place([room / stride_h + 1, cols, chs]);
                self.push(MaxPool2d { src, window }.into(), Vec::new(), out);
            }
            3 if rows < 4 => {
                let out = self.place([2 * rows, cols, chs]);
                let (mode, scale_y_n, scale_y_d) = (ResizeMode::Nearest, 2, 1);
                let (scale_x_n, scale_x_d, offset_y, offset_x) = (1, 1, 0, 0);
                let head =
                    Resize { src, mode, scale_y_n, scale_y_d, scale_x_n, scale_x_d, offset_y, offset_x };
                self.push(head.into(), Vec::new(), out);
            }
            4 => {
                let out = self.place([1, cols, chs]);
                self.push(Reduce { src, axis: Axis::H, kind: ReduceKind::Max }.into(), Vec::new(), out);
            }
            5 => {
                let (top, bottom) = (self.random.int(0, 2), self.random.int(0, 1));
                let out = self.place([rows + top + bottom, cols, chs]);
                self.push(Pad { src, top, left: 0, front: 0, value: 0 }.into(), Vec::new(), out);
            }
            6 | 7 => self.convolve(src),
            _ => {
                let same: Vec<View> =
                    self.written.iter().copied().filter(|v| extents(v) == extents(&src)).collect();
                let mut tail = Vec::new();
                if !same.is_empty() && self.random.chance(60) {
                    let operand = self.random.pick(&same);
                    let kind = BinaryKind::Maximum;
                    tail.push(Tail::from(Binary { kind, src: operand, rescale: None, shift: 0 }));
                }
                let out = self.place([rows, cols, chs]);
                self.push(Load { src }.into(), tail, out);
            }
        }
    }

    /// A convolution of three rows, which the array may run two rows at a time.
    fn convolve(&mut self, src: View) {
        let pad = self.random.int(0, 1);
        let room = (src.rows + 2 * pad).checked_sub(3).filter(|_| src.chs <= WINOGRAD_CHANNELS);
        let Some(room) = room else { return };
        let window = Window {
            kernel_h: 3,
            kernel_w: 3,
            stride_h: 1,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: pad,
            pad_bottom: pad,
            pad_left: 1,
            pad_right: 1,
        };
        let (multipliers, shifts) = (WeightAddr(MULTIPLIERS), WeightAddr(SHIFTS));
        let (weights, bias) = (WeightAddr(0), WeightAddr(BIAS));
        let winograd = src.chs >= WINOGRAD_CHANNELS && self.random.chance(80);
        let head = Conv2d { src, window, groups: 1, input_zp: 0, weight_zp: 0, weights, bias, winograd };
        let rescale = Rescale {
            multipliers,
            shifts,
            per_channel: false,
            input_zp: 0,
            output_zp: 0,
            to: Elem::I8,
            double_round: false,
        };
        let chs = self.random.int(1, 2);
        let out = self.place([room + 1, src.cols, chs]);
        self.push(head.into(), vec![rescale.into()], out);
    }

    fn phase(&mut self, is_first: bool, is_last: bool) {
        self.written = Vec::new();
        for stream in self.kept.clone() {
            let s = self.program.streams[stream as usize];
            self.written.push(View::whole(stream, s.rows, s.cols, s.chs));
        }
        if self.written.is_empty() || self.random.chance(25) {
            self.load();
        }
        for _ in 0..self.random.int(1, 3) {
            if !self.open.is_empty() && self.random.chance(70) { self.fill() } else { self.compute() }
        }
        while !self.open.is_empty() && self.stages.len() < 5 && self.random.chance(85) {
            self.fill();
        }
        self.open.clear();
        if is_last || self.random.chance(30) {
            let to_output = is_last || self.random.chance(50);
            self.store(to_output);
        }
        let mut stages = std::mem::take(&mut self.stages);
        for last in (1..stages.len()).rev() {
            stages.swap(last, self.random.int(0, last as u32) as usize);
        }
        let load = WeightLoad { dst: WeightAddr(0), src: 0, bytes: TABLE_BYTES };
        let loads = if is_first { vec![load] } else { Vec::new() };
        self.program.phases.push(Phase { partitions: vec![1], loads, stages });
        // What a later phase may read is whole; the rest are rings.
        let outs = self.written.clone();
        for stream in outs.into_iter().map(|out| out.tensor) {
            if !is_last && !self.kept.contains(&stream) && self.random.chance(60) {
                self.kept.push(stream);
            }
        }
        self.kept.retain(|_| !self.random.chance(15));
    }

    /// The first and the last phase that names a stream.
    fn life(&self, stream: u32) -> (usize, usize) {
        let names = |phase: &Phase| {
            let views = phase.stages.iter().flat_map(|s| s.code.reads().into_iter().chain([s.code.out]));
            views.filter(|view| view.rows > 0).any(|view| view.tensor == stream)
        };
        let mut phases = self.program.phases.iter().enumerate().filter(|(_, p)| names(p)).map(|(at, _)| at);
        let first = phases.next().unwrap_or(0);
        (first, phases.next_back().unwrap_or(first))
    }

    /// Gives some streams prefixes, rings their slots and all their addresses.
    fn address(&mut self) {
        let n = self.program.streams.len() as u32;
        for stream in 0..n {
            let s = self.program.streams[stream as usize];
            let (first, last) = self.life(stream);
            if s.rows > 1 && first == last && self.random.chance(8) {
                let rows = self.random.int(1, s.rows - 1);
                let prefix = self.stream([rows, s.cols, s.chs]);
                let ring = &mut self.program.streams[stream as usize];
                (ring.prefix, ring.slots) = (Some(Prefix { stream: prefix, rows }), s.rows - rows);
            }
            let ring = &mut self.program.streams[stream as usize];
            let is_whole = last > first || self.random.chance(20);
            if !is_whole && ring.slots > 1 {
                ring.slots = self.random.int(1, ring.slots);
            }
        }
        let mut end = 0;
        for stream in &mut self.program.streams {
            stream.base = end;
            end += stream.slots * stream.pitch_bytes;
        }
        for stream in 0..n {
            if self.random.chance(25) {
                self.share(stream);
            }
        }
    }

    /// Moves a stream to where another stands that is read for the last time as it is first written, or
    /// anywhere.
    fn share(&mut self, stream: u32) {
        let (born, _) = self.life(stream);
        let n = self.program.streams.len() as u32;
        let dying: Vec<u32> = (0..n).filter(|&other| other != stream && self.life(other).1 == born).collect();
        let anyone: Vec<u32> = (0..n).collect();
        let other = if dying.is_empty() || self.random.chance(15) {
            self.random.pick(&anyone)
        } else {
            self.random.pick(&dying)
        };
        let other = self.program.streams[other as usize];
        let before = self.random.int(0, 3) * other.pitch_bytes;
        let own = &mut self.program.streams[stream as usize];
        if self.random.chance(50) {
            (own.base, own.pitch_bytes) = (other.base, own.pitch_bytes.max(other.pitch_bytes));
        } else {
            own.base = other.base.saturating_sub(before);
        }
    }
}

/// The program of a seed.
pub(crate) fn random_program(seed: u64) -> Program {
    let kinds = [SegmentKind::Weights, SegmentKind::Input, SegmentKind::Scratch, SegmentKind::Output];
    let bytes = [u64::from(TABLE_BYTES), 180, SCRATCH_BYTES, 0];
    let segments = kinds.into_iter().zip(bytes).map(|(kind, bytes)| Segment { kind, bytes }).collect();
    let mut draft = Draft {
        random: Random(seed),
        program: Program { segments, ..Program::default() },
        written: Vec::new(),
        open: Vec::new(),
        kept: Vec::new(),
        stages: Vec::new(),
        output: 0,
        scratch: Vec::new(),
    };
    let n_phases = draft.random.int(1, 3);
    for phase in 0..n_phases {
        draft.phase(phase == 0, phase + 1 == n_phases);
    }
    draft.address();
    draft.program.segments[WEIGHTS as usize].bytes = u64::from(TABLE_BYTES);
    draft.program.segments[OUTPUT as usize].bytes = draft.output;
    draft.program
}

/// Whether two streams of a phase share bytes.
pub(crate) fn shares_bytes(program: &Program) -> bool {
    let range = |stream: u32| {
        let s = &program.streams[stream as usize];
        s.base..s.base + s.slots * s.pitch_bytes
    };
    program.phases.iter().any(|phase| {
        let views = phase.stages.iter().flat_map(|s| s.code.reads().into_iter().chain([s.code.out]));
        let mut named: Vec<u32> =
            views.filter(|v| v.rows > 0).flat_map(|v| program.chain(v.tensor).collect::<Vec<_>>()).collect();
        named.sort_unstable();
        named.dedup();
        let meet = |a: u32, b: u32| range(a).start < range(b).end && range(b).start < range(a).end;
        named.iter().any(|&a| named.iter().any(|&b| a < b && meet(a, b)))
    })
}

/// Whether several stages of a phase write a ring that is not whole.
pub(crate) fn joins(program: &Program) -> bool {
    program.phases.iter().any(|phase| {
        let mut outs: Vec<u32> =
            phase.stages.iter().filter(|s| s.code.out.rows > 0).map(|s| s.code.out.tensor).collect();
        outs.sort_unstable();
        outs.windows(2).any(|pair| pair[0] == pair[1] && !program.streams[pair[0] as usize].is_whole())
    })
}
