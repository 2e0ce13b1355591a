//! What DMA stages move to and from DRAM: in bounds, allowed, written once, and written by an earlier phase
//! before it is read.
//!
//! A transfer touches `rows x cols` runs of `pixel` bytes at fixed distances. Which bytes two of them share
//! is counted exactly, whatever their distances.

use super::{Check, Rule};
use crate::inst::{Head, View};
use crate::program::{SegmentKind, Stage};

/// Runs of a transfer that are looked at one by one at most; beyond, transfers that may share bytes are taken
/// to do so when both write, and not to do so when one reads what the other wrote.
const MAX_RUNS: u64 = 1 << 22;

/// The bytes of a DRAM segment that a stage reads or writes.
#[derive(Clone, Debug)]
struct Transfer {
    phase: usize,
    stage: usize,
    /// Whether it writes the segment.
    out: bool,
    segment: usize,
    bytes: Strided,
}

/// `rows x cols` runs of `pixel` bytes; no two share a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strided {
    offset: u64,
    row_pitch: u64,
    pixel_pitch: u64,
    rows: u64,
    cols: u64,
    pixel: u64,
}

/// How many bytes two transfers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    Exactly(u64),
    /// Too many runs to look at.
    Unknown,
}

impl Strided {
    /// Whether rows and pixels follow one another without sharing bytes.
    fn is_disjoint(&self) -> bool {
        let row = u128::from(self.cols - 1) * u128::from(self.pixel_pitch) + u128::from(self.pixel);
        self.pixel_pitch >= self.pixel && (self.rows == 1 || u128::from(self.row_pitch) >= row)
    }

    /// The same bytes in as few runs as there can be.
    fn merged(mut self) -> Self {
        if self.cols == 1 || self.pixel_pitch == self.pixel {
            self.pixel *= self.cols;
            (self.cols, self.pixel_pitch) = (1, self.pixel);
        }
        if self.cols == 1 && (self.rows == 1 || self.row_pitch == self.pixel) {
            self.pixel *= self.rows;
            (self.rows, self.row_pitch, self.pixel_pitch) = (1, self.pixel, self.pixel);
        }
        self
    }

    /// Bytes in all.
    fn volume(&self) -> u128 {
        u128::from(self.rows) * u128::from(self.cols) * u128::from(self.pixel)
    }

    /// One past the last byte.
    fn end(&self) -> u128 {
        u128::from(self.offset)
            + u128::from(self.rows - 1) * u128::from(self.row_pitch)
            + u128::from(self.cols - 1) * u128::from(self.pixel_pitch)
            + u128::from(self.pixel)
    }

    /// How many of its bytes stand before an address.
    fn before(&self, address: u64) -> u64 {
        let Some(at) = address.checked_sub(self.offset) else { return 0 };
        let row = at.checked_div(self.row_pitch).unwrap_or(0).min(self.rows - 1);
        let at = at - row * self.row_pitch;
        let col = at.checked_div(self.pixel_pitch).unwrap_or(0).min(self.cols - 1);
        let at = at - col * self.pixel_pitch;
        (row * self.cols + col) * self.pixel + at.min(self.pixel)
    }

    /// The position `[row, column, byte]` of its first byte in a grid of its own pitches, if none of its rows
    /// or pixels crosses the end of one of the grid's.
    fn in_grid(&self) -> Option<[u64; 3]> {
        let (row, rest) = (self.offset.checked_div(self.row_pitch)?, self.offset % self.row_pitch);
        let (col, byte) = (rest.checked_div(self.pixel_pitch)?, rest % self.pixel_pitch);
        let fits = u128::from(col) + u128::from(self.cols) <= u128::from(self.row_pitch / self.pixel_pitch)
            && u128::from(byte) + u128::from(self.pixel) <= u128::from(self.pixel_pitch);
        fits.then_some([row, col, byte])
    }

    /// Bytes that both touch.
    fn shared(&self, other: &Self) -> Shared {
        if u128::from(self.offset) >= other.end() || u128::from(other.offset) >= self.end() {
            return Shared::Exactly(0);
        }
        if (self.row_pitch, self.pixel_pitch) == (other.row_pitch, other.pixel_pitch)
            && let (Some(a), Some(b)) = (self.in_grid(), other.in_grid())
        {
            let (n, m) = ([self.rows, self.cols, self.pixel], [other.rows, other.cols, other.pixel]);
            let spans = (0..3).map(|i| (a[i] + n[i]).min(b[i] + m[i]).saturating_sub(a[i].max(b[i])));
            return Shared::Exactly(spans.product());
        }
        let (few, many) =
            if self.rows * self.cols <= other.rows * other.cols { (self, other) } else { (other, self) };
        if few.rows * few.cols > MAX_RUNS {
            return Shared::Unknown;
        }
        let runs = (0..few.rows).flat_map(|row| {
            (0..few.cols).map(move |col| few.offset + row * few.row_pitch + col * few.pixel_pitch)
        });
        Shared::Exactly(runs.map(|run| many.before(run + few.pixel) - many.before(run)).sum())
    }
}

impl Check<'_> {
    /// Checks all transfers of the program.
    pub(super) fn transfers(&mut self) {
        let mut all: Vec<Transfer> = Vec::new();
        for (phase, p) in self.program.phases.iter().enumerate() {
            for (stage, s) in p.stages.iter().enumerate() {
                (self.phase, self.stage) = (Some(phase), Some(stage));
                all.extend(self.transfer(phase, stage, s));
            }
        }
        self.written_once(&all);
        self.read_after_written(&all);
        (self.phase, self.stage) = (None, None);
        self.outputs_written(&all);
    }

    /// What a stage moves, if it is in bounds of a segment.
    fn transfer(&mut self, phase: usize, number: usize, stage: &Stage) -> Option<Transfer> {
        let (out, view, segment, offset, row_pitch, pixel_pitch) = match &stage.code.head {
            Head::DmaIn(d) => {
                (false, stage.code.out, d.segment, d.offset, d.row_pitch_bytes, d.pixel_pitch_bytes)
            }
            Head::DmaOut(d) => (true, d.src, d.segment, d.offset, d.row_pitch_bytes, d.pixel_pitch_bytes),
            _ => return None,
        };
        let bytes = self.strided(&view, offset, row_pitch, u64::from(pixel_pitch));
        let Some(declared) = self.program.segments.get(segment as usize) else {
            self.fail(Rule::Bounds, format!("segment {segment} is not declared"));
            return None;
        };
        let (kind, have) = (declared.kind, declared.bytes);
        let is_disjoint = self.need(bytes.is_disjoint(), Rule::Overlap, || {
            let pixel = bytes.pixel;
            format!(
                "rows or pixels of the transfer overlap: pitches {row_pitch} and {pixel_pitch}, {pixel} \
                    bytes a pixel"
            )
        });
        let end = bytes.end();
        let is_inside = self.need(end <= u128::from(have), Rule::Bounds, || {
            format!("the transfer ends at byte {end} of {have} of segment {segment}")
        });
        let allowed = match kind {
            SegmentKind::Weights => false,
            SegmentKind::Input => !out,
            SegmentKind::Output | SegmentKind::Scratch => true,
        };
        self.need(allowed, Rule::Rewrite, || {
            format!("a {} segment may not be {}", segment_name(kind), if out { "written" } else { "read" })
        });
        (is_disjoint && is_inside).then(|| Transfer {
            phase,
            stage: number,
            out,
            segment: segment as usize,
            bytes: bytes.merged(),
        })
    }

    fn strided(&self, view: &View, offset: u64, row_pitch: u64, pixel_pitch: u64) -> Strided {
        Strided {
            offset,
            row_pitch,
            pixel_pitch,
            rows: u64::from(view.rows),
            cols: u64::from(view.cols),
            pixel: u64::from(view.chs) * u64::from(self.elem(view).size_bytes()),
        }
    }

    /// No byte of DRAM is written twice.
    fn written_once(&mut self, all: &[Transfer]) {
        for (n, a) in all.iter().enumerate().filter(|(_, t)| t.out) {
            for b in all[n + 1..].iter().filter(|b| b.out && b.segment == a.segment) {
                if a.bytes.shared(&b.bytes) != Shared::Exactly(0) {
                    (self.phase, self.stage) = (Some(b.phase), Some(b.stage));
                    self.fail(
                        Rule::Rewrite,
                        format!("writes bytes of segment {} that phase {} writes", a.segment, a.phase),
                    );
                }
            }
        }
    }

    /// What is read of a segment that the program writes was written by earlier phases.
    fn read_after_written(&mut self, all: &[Transfer]) {
        for read in all.iter().filter(|t| !t.out) {
            let kind = self.program.segments[read.segment].kind;
            if !matches!(kind, SegmentKind::Output | SegmentKind::Scratch) {
                continue;
            }
            let earlier = all.iter().filter(|w| w.out && w.segment == read.segment && w.phase < read.phase);
            let written: u128 = earlier
                .map(|w| match w.bytes.shared(&read.bytes) {
                    Shared::Exactly(bytes) => u128::from(bytes),
                    Shared::Unknown => 0,
                })
                .sum();
            (self.phase, self.stage) = (Some(read.phase), Some(read.stage));
            let want = read.bytes.volume();
            self.need(written >= want, Rule::Unwritten, || {
                let kind = segment_name(kind);
                format!("reads {want} bytes of {kind}, of which {written} were stored by earlier phases")
            });
        }
    }

    /// Every byte of the outputs is written. Since none is written twice, counting them is enough.
    fn outputs_written(&mut self, all: &[Transfer]) {
        for (index, segment) in self.program.segments.iter().enumerate() {
            if segment.kind == SegmentKind::Output {
                let writes = all.iter().filter(|t| t.out && t.segment == index);
                let written: u128 = writes.map(|t| t.bytes.volume()).sum();
                self.need(written == u128::from(segment.bytes), Rule::Unwritten, || {
                    format!("{written} bytes of output segment {index} are written, it has {}", segment.bytes)
                });
            }
        }
    }
}

fn segment_name(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Weights => "weights",
        SegmentKind::Input => "input",
        SegmentKind::Output => "output",
        SegmentKind::Scratch => "scratch",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn addresses(s: &Strided) -> BTreeSet<u64> {
        let runs = (0..s.rows).flat_map(|r| (0..s.cols).map(move |c| r * s.row_pitch + c * s.pixel_pitch));
        runs.flat_map(|run| (0..s.pixel).map(move |byte| s.offset + run + byte)).collect()
    }

    /// Any distances, of which many make runs overlap.
    fn strided() -> impl Strategy<Value = Strided> {
        (0..12u64, 0..14u64, 0..5u64, 1..5u64, 1..5u64, 1..4u64).prop_map(
            |(offset, row_pitch, pixel_pitch, rows, cols, pixel)| Strided {
                offset,
                row_pitch,
                pixel_pitch,
                rows,
                cols,
                pixel,
            },
        )
    }

    /// Distances at which no runs overlap.
    fn disjoint() -> impl Strategy<Value = Strided> {
        (strided(), 0..3u64, 0..6u64).prop_map(|(s, pixel_gap, row_gap)| {
            let pixel_pitch = s.pixel + pixel_gap;
            let row_pitch = (s.cols - 1) * pixel_pitch + s.pixel + row_gap;
            Strided { row_pitch: if s.rows == 1 { s.row_pitch } else { row_pitch }, pixel_pitch, ..s }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn overlapping_runs_are_seen(s in strided()) {
            let n_distinct = u128::try_from(addresses(&s).len()).expect("few bytes");
            prop_assert!(!s.is_disjoint() || n_distinct == s.volume());
        }

        #[test]
        fn shared_bytes_are_those_of_the_sets(a in disjoint(), b in disjoint()) {
            prop_assert!(a.is_disjoint() && b.is_disjoint());
            prop_assert_eq!(addresses(&a), addresses(&a.merged()));
            let want = addresses(&a).intersection(&addresses(&b)).count() as u64;
            prop_assert_eq!(a.shared(&b), Shared::Exactly(want));
            prop_assert_eq!(a.merged().shared(&b.merged()), Shared::Exactly(want));
        }
    }
}
