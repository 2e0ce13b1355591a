//! Stages whose tails are done with their head, against the same stages tail by tail.

use super::*;
use crate::inst::{
    Binary, BinaryKind, Clamp, Conv2d, DepthwiseConv2d, Elem, Load, OperandRescale, Rescale, Table, View,
    WeightAddr, Window,
};
use crate::interp::fused::Rescaled;
use crate::interp::order::Random;
use crate::interp::prepared::Prepared;
use crate::interp::simd::Simd;
use crate::interp::sram::WeightSram;
use crate::program::{Program, Stream};

/// A stage, and the memories that it reads.
struct Case {
    program: Program,
    code: StageCode,
    weights: Vec<u8>,
    activation: Vec<u8>,
}

/// Draws a case.
struct Draw {
    random: Random,
    weights: Vec<u8>,
    program: Program,
    activation: usize,
}

impl Draw {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), weights: Vec::new(), program: Program::default(), activation: 0 }
    }

    /// A number from `least` to `most`.
    fn within(&mut self, least: i32, most: i32) -> i32 {
        least + self.random.below((most - least + 1) as u64) as i32
    }

    fn table(&mut self, bytes: impl IntoIterator<Item = u8>) -> WeightAddr {
        let at = WeightAddr(self.weights.len() as u32);
        self.weights.extend(bytes);
        at
    }

    fn bytes(&mut self, n: u32) -> WeightAddr {
        let bytes: Vec<u8> = (0..n).map(|_| self.random.next() as u8).collect();
        self.table(bytes)
    }

    /// A stream, and a view of it: of all of it, or of some of its channels.
    fn stream(&mut self, elem: Elem, rows: u32, cols: u32, chs: u32, whole: bool) -> View {
        let more = if whole { 0 } else { self.within(0, 1) as u32 * 3 };
        let pitch_bytes = cols * (chs + more) * elem.size_bytes();
        let base = self.activation as u32;
        self.activation += (rows * pitch_bytes) as usize;
        let tensor = self.program.streams.len() as u32;
        let chs_of_stream = chs + more;
        self.program.streams.push(Stream {
            elem,
            rows,
            cols,
            chs: chs_of_stream,
            base,
            pitch_bytes,
            slots: rows,
            prefix: None,
        });
        View { tensor, row0: 0, rows, col0: 0, cols, ch0: more.min(1), chs }
    }

    fn rescale(&mut self, chs: u32, per_channel: bool, input_zp: i32, to: Elem, shifts: [i32; 2]) -> Rescale {
        let n = if per_channel { chs } else { 1 };
        let multipliers: Vec<u8> =
            (0..n).flat_map(|_| self.within(1 << 30, i32::MAX).to_le_bytes()).collect();
        let shifts: Vec<u8> = (0..n).map(|_| self.within(shifts[0], shifts[1]) as u8).collect();
        let output_zp = if to == Elem::I8 { self.within(-128, 127) } else { 0 };
        let (multipliers, shifts) = (self.table(multipliers), self.table(shifts));
        let double_round = self.random.below(12) == 0;
        Rescale { multipliers, shifts, per_channel, input_zp, output_zp, to, double_round }
    }

    /// Tails that make bytes, of sums or of other bytes.
    fn tails(&mut self, out: &View, sums: bool) -> Vec<Tail> {
        let per_channel = self.random.below(3) > 0;
        let shifts = if sums { [30, 44] } else { [29, 32] };
        let first = self.rescale(out.chs, per_channel, 0, Elem::I8, shifts);
        let mut zero_point = first.output_zp;
        let mut tails: Vec<Tail> = vec![first.into()];
        for _ in 0..self.random.below(3) {
            match self.random.below(3) {
                0 => tails.push(Table { table: self.bytes(256) }.into()),
                1 => {
                    let min = self.within(-128, 100);
                    tails.push(Clamp { min, max: self.within(min, 127) }.into());
                }
                _ => {
                    let rows = if self.random.below(3) == 0 { 1 } else { out.rows };
                    let src = self.stream(Elem::I8, rows, out.cols, out.chs, false);
                    let is_product = self.random.below(2) == 0;
                    let shifts = if is_product { [18, 31] } else { [10, 20] };
                    let own = self.rescale(out.chs, false, zero_point, Elem::I32, shifts);
                    let multiplier = self.within(1 << 30, i32::MAX);
                    let (shift, input_zp) = (self.within(shifts[0], shifts[1]) as u8, self.within(-128, 127));
                    let rescale = OperandRescale { multiplier, shift, input_zp, double_round: false };
                    let of_result = if is_product { [30, 44] } else { [45, 52] };
                    let result = self.rescale(out.chs, false, 0, Elem::I8, of_result);
                    zero_point = result.output_zp;
                    let kind = if is_product { BinaryKind::Mul } else { BinaryKind::Add };
                    let pair = Binary { kind, src, rescale: Some(rescale), shift: 0 };
                    tails.extend([Tail::from(own), pair.into(), result.into()]);
                }
            }
        }
        tails
    }

    fn window(&mut self) -> Window {
        let mut of = |most: i32| self.within(1, most) as u32;
        let (kernel_h, kernel_w) = (of(4), of(4));
        let (stride_h, stride_w, dilation_h, dilation_w) = (of(2), of(2), of(2), of(2));
        let (pad_top, pad_left) = (of(kernel_h as i32) - 1, of(kernel_w as i32) - 1);
        let (pad_bottom, pad_right) = (pad_top, pad_left);
        Window {
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
        }
    }

    fn case(mut self) -> Case {
        let w = self.window();
        let (rows, cols) = (self.within(1, 6) as u32, self.within(1, 20) as u32);
        let reach = |kernel: u32, dilation: u32| if kernel > 1 { (kernel - 1) * dilation } else { 0 };
        let input = |out: u32, stride: u32, reach: u32, pads: u32| {
            ((out - 1) * stride + reach + 1).saturating_sub(pads).max(1)
        };
        let src_rows = input(rows, w.stride_h, reach(w.kernel_h, w.dilation_h), w.pad_top + w.pad_bottom);
        let src_cols = input(cols, w.stride_w, reach(w.kernel_w, w.dilation_w), w.pad_left + w.pad_right);
        let input_zp = self.within(-128, 127);
        let weight_zp = if self.random.below(6) == 0 { self.within(-3, 3) } else { 0 };
        let bias = |draw: &mut Self, chs: u32| {
            let bytes: Vec<u8> =
                (0..chs).flat_map(|_| draw.within(-100_000, 100_000).to_le_bytes()).collect();
            draw.table(bytes)
        };
        let kind = self.random.below(5);
        let (head, chs): (Head, u32) = if kind == 0 {
            let chs = self.within(1, 70) as u32;
            (Load { src: self.stream(Elem::I8, rows, cols, chs, false) }.into(), chs)
        } else if kind < 3 {
            let groups = if self.random.below(3) == 0 { self.within(2, 4) as u32 } else { 1 };
            let (ins, outs) = (groups * self.within(1, 9) as u32, groups * self.within(1, 40) as u32);
            let src = self.stream(Elem::I8, src_rows, src_cols, ins, false);
            let weights = self.bytes(outs * w.kernel_h * w.kernel_w * (ins / groups));
            let bias = bias(&mut self, outs);
            let conv = Conv2d { src, window: w, groups, input_zp, weight_zp, weights, bias, winograd: false };
            (conv.into(), outs)
        } else {
            let (ins, multiplier) = (self.within(1, 70) as u32, self.within(1, 2) as u32);
            let chs = ins * multiplier;
            let src = self.stream(Elem::I8, src_rows, src_cols, ins, false);
            let weights = self.bytes(chs * w.kernel_h * w.kernel_w);
            let bias = bias(&mut self, chs);
            (DepthwiseConv2d { src, window: w, multiplier, input_zp, weight_zp, weights, bias }.into(), chs)
        };
        let out = self.stream(Elem::I8, rows, cols, chs, true);
        let tail = self.tails(&out, kind > 0);
        let activation = (0..self.activation).map(|_| self.random.next() as u8).collect();
        Case { program: self.program, code: StageCode { head, tail, out }, weights: self.weights, activation }
    }
}

impl Case {
    /// What a level makes of a tile, with tails that are done with the head or one by one; whether some are
    /// bytes to the end.
    fn run(&self, simd: Simd, tile: &Tile, fuse: bool) -> Made {
        let sram = Sram { program: &self.program, activation: &self.activation, shadow: None, simd };
        let mut prepared = Prepared::new(&self.code, &self.program.streams, WeightSram(&self.weights), simd);
        let stays_bytes = prepared.fused.as_ref().map(|fused| matches!(fused.rescaled, Rescaled::Bytes(_)));
        if !fuse {
            prepared.fused = None;
        }
        let mut bytes = vec![0; tile.len()];
        compute(&prepared.ready(&self.code, &sram), tile, &mut Scratch::default(), &mut bytes);
        Made { bytes, stays_bytes }
    }
}

struct Made {
    bytes: Vec<u8>,
    /// Of tails that are done with the head, whether all are done on bytes.
    stays_bytes: Option<bool>,
}

#[test]
fn tails_that_are_done_with_the_head_give_the_same() {
    let (mut of_bytes, mut of_numbers, mut apart) = (0, 0, 0);
    for seed in 0..2000 {
        let case = Draw::new(seed).case();
        let (rows, cols, chs) = (case.code.out.rows, case.code.out.cols as usize, case.code.out.chs as usize);
        let mut tiles = vec![Tile::of_rows(&case.code, 0..rows)];
        let (some_rows, some_cols) = (rows / 2..rows, cols / 3..cols.div_ceil(2));
        match &case.code.head {
            Head::Conv2d(h) if h.groups == 1 && chs > 32 => {
                tiles.push(Tile { rows: some_rows, cols: some_cols, chs: 32..chs });
            }
            Head::DepthwiseConv2d(_) => tiles.push(Tile { rows: some_rows, cols: some_cols, chs: 0..chs }),
            _ => {}
        }
        tiles.retain(|tile| tile.len() > 0);
        for tile in &tiles {
            let expected = case.run(Simd::available().next().unwrap_or(Simd::best()), tile, false).bytes;
            for simd in Simd::available() {
                let made = case.run(simd, tile, true);
                match made.stays_bytes {
                    Some(true) => of_bytes += 1,
                    Some(false) => of_numbers += 1,
                    None => apart += 1,
                }
                let place = format!("seed {seed}, {}, {tile:?}: {:?}", simd.level(), case.code);
                assert!(made.bytes == expected, "{place}");
                assert!(case.run(simd, tile, false).bytes == expected, "one by one: {place}");
            }
        }
    }
    assert!(of_bytes > 300 && of_numbers > 50 && apart > 50, "{of_bytes}, {of_numbers}, {apart} of each");
}
