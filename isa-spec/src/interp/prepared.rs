//! The tables of a stage, as they stand ready for its rows.

use crate::inst::Head;
use crate::interp::fused::Fused;
use crate::interp::heads::{HeadTables, Ready};
use crate::interp::simd::Simd;
use crate::interp::sram::{Sram, WeightSram};
use crate::interp::tails::TailTables;
use crate::program::{StageCode, Stream};

/// Tables of a stage, read from weight SRAM once.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) head: HeadTables,
    pub(super) tails: Vec<TailTables>,
    /// Tails that are done with the head.
    pub(super) fused: Option<Fused>,
}

impl Prepared {
    /// Reads the tables of a stage of a program with such streams.
    pub(super) fn new(code: &StageCode, streams: &[Stream], weights: WeightSram<'_>, simd: Simd) -> Self {
        Self::with_head(code, HeadTables::new(code, weights, simd), streams, weights, simd)
    }

    /// As [`new`](Self::new), with the tables of the head at hand.
    pub(super) fn with_head(
        code: &StageCode,
        head: HeadTables,
        streams: &[Stream],
        weights: WeightSram<'_>,
        simd: Simd,
    ) -> Self {
        let chs = code.out.chs as usize;
        let tails: Vec<_> = code.tail.iter().map(|tail| TailTables::new(tail, chs, weights, simd)).collect();
        let fused = match &code.head {
            Head::Load(h) => Fused::of_load(h, code, &tails, streams),
            _ => head.sums().and_then(|sums| Fused::new(code, &tails, streams, &sums)),
        };
        Self { head, tails, fused }
    }

    /// The stage whose tables these are, ready for its rows.
    pub(super) fn ready<'a>(&'a self, code: &'a StageCode, sram: &'a Sram<'a>) -> Ready<'a> {
        Ready { code, head: &self.head, tails: &self.tails, fused: self.fused.as_ref(), sram }
    }
}
