//! A stage graph of which some stages are column strips of those of another.

use std::ops::Range;

use super::{StageGraph, StageId};

/// A stage of the new graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The stage of the old graph that it is, or is a part of.
    pub origin: StageId,
    /// If it is a part: which.
    pub strip: Option<StripPart>,
}

/// Which part of a stage a stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripPart {
    /// Which set of stages in strips it belongs to, from 0.
    pub group: usize,
    /// Which strip of it.
    pub strip: usize,
    /// The columns of the stage that it computes.
    pub cols: Range<u32>,
    /// For each view that it reads, the columns of the whole stage's; `None` where it reads all.
    pub reads: Vec<Option<Range<u32>>>,
}

/// A graph with its strips as stages.
#[derive(Clone, Debug, Default)]
pub struct Realised {
    /// The graph; the order of its stages is that of the phases.
    pub graph: StageGraph,
    /// What each stage was, by index.
    pub parts: Vec<Part>,
    /// Stages of each phase.
    pub phases: Vec<Vec<StageId>>,
    /// For each phase, which of the chosen ones it is of.
    pub chosen: Vec<usize>,
}

impl Realised {
    /// Whether anything runs in strips.
    pub fn has_strips(&self) -> bool {
        self.parts.iter().any(|part| part.strip.is_some())
    }
}
