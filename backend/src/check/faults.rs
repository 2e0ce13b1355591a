//! What can be wrong with a plan.

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// A stage does not run exactly once.
    #[error("stage `{stage}` runs {times} times")]
    Coverage {
        /// The stage.
        stage: String,
        /// How often it runs.
        times: usize,
    },
    /// A stage runs before one that it reads from.
    #[error("stage `{stage}` runs in phase {phase}, before `{needs}`, whose output it reads")]
    Order {
        /// The stage.
        stage: String,
        /// Its phase.
        phase: usize,
        /// The stage that it reads from.
        needs: String,
    },
    /// Partitions or mappings do not fit.
    #[error("phase {phase}: {problem}")]
    Array {
        /// The phase.
        phase: usize,
        /// What does not fit.
        problem: String,
    },
    /// A memory is too small.
    #[error("phase {phase} needs {needed} bytes of {memory}, {} more than there are", .needed - .limit)]
    Capacity {
        /// The phase.
        phase: usize,
        /// The memory.
        memory: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        limit: u64,
    },
    /// A tensor is needed where it no longer is.
    #[error("phase {phase} reads `{buffer}`, which is neither whole in SRAM nor in DRAM")]
    Lost {
        /// The phase.
        phase: usize,
        /// The tensor.
        buffer: String,
    },
    /// A tensor is to take the space of another that it cannot have.
    #[error("phase {phase}: `{growing}` cannot take the space of `{dying}`: {problem}")]
    Growth {
        /// The phase.
        phase: usize,
        /// The tensor that is written.
        growing: String,
        /// The tensor whose space it takes.
        dying: String,
        /// Why not.
        problem: String,
    },
    /// First rows of a tensor are to stay that cannot.
    #[error("{rows} rows of `{buffer}` cannot stay up to phase {until}: {problem}")]
    Prefix {
        /// The tensor.
        buffer: String,
        /// The rows.
        rows: u32,
        /// The phase.
        until: u32,
        /// Why not.
        problem: &'static str,
    },
    /// An output is never stored.
    #[error("output `{0}` is not stored")]
    NotStored(String),
    /// A number that the plan states is not what it implies.
    #[error("the plan states {stated} for {what}, but implies {implied}")]
    Miscount {
        /// Which number.
        what: &'static str,
        /// What is stated.
        stated: u64,
        /// What follows from the plan.
        implied: u64,
    },
}
