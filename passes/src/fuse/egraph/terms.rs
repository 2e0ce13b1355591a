//! The language of the e-graph, what it is asked for, and what comes of it.

use egg::{Id, define_language};
use serde::{Deserialize, Serialize};
use strata_backend::model::graph::StageSet;

define_language! {
    /// Ways to run stages.
    pub(super) enum Run {
        Group(u32),
        "feeds" = Feeds([Id; 2]),
        "shares" = Shares([Id; 2]),
        "then" = Then([Id; 2]),
        "fuse" = Fuse([Id; 2]),
    }
}

/// Which families of rewrites are on, and limits of the e-graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// A stage with one that reads from it.
    pub producer_consumer: bool,
    /// Stages that read the same.
    pub sibling: bool,
    /// Stages that are next to one another in the order of the graph.
    pub sequence: bool,
    /// Groups of as many stages that begin at one stage, at most, but for those in sequence.
    pub alike: usize,
    /// Groups, at most: in a graph of more stages there are only those in sequence.
    pub groups: usize,
    /// Nodes of all e-graphs, at most.
    pub nodes: usize,
    /// Stages of a group, at most.
    pub longest: usize,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            producer_consumer: true,
            sibling: true,
            sequence: true,
            alike: 1,
            groups: 40_000,
            nodes: 400_000,
            longest: 64,
        }
    }
}

impl Offer {
    /// The same without any groups but those in sequence.
    pub fn in_sequence(self) -> Self {
        Self { producer_consumer: false, sibling: false, ..self }
    }

    /// Every stage alone.
    pub fn none(self) -> Self {
        Self { producer_consumer: false, sibling: false, sequence: false, ..self }
    }
}

/// What the e-graph offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Groups, each once, in order.
    pub sets: Vec<StageSet>,
    /// Whether a limit of the e-graph was reached, so that there may be more.
    pub is_limited: bool,
}
