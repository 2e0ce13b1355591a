//! Why a plan is as it is: why each phase ends where it does, why tensors go through DRAM, and which change
//! of the target would help most.
//!
//! | module | what it holds |
//! |---|---|
//! | `account` | a plan as the search sees it, on which other ways are tried |
//! | [`borders`] | why two phases are not one |
//! | [`spills`] | why a tensor is written to DRAM and read back |
//! | [`what_if`] | plans for targets with more of something |
//!
//! Nothing is argued that was not tried: two phases are evaluated as one, with as much of what there is too
//! little of as they need, and a tensor is kept, by the rules by which the search evaluates candidates. What
//! these say is true of the plan as it is otherwise; a planner with more SRAM may make another.

mod account;
pub mod borders;
pub mod spills;
#[cfg(test)]
mod tests;
pub mod what_if;

use serde::{Deserialize, Serialize};
use strata_backend::model::graph::GraphError;
use strata_backend::model::{Objective, Plan, StageGraph, StageId};
use strata_isa_spec::Target;

use self::account::Account;
use self::borders::Border;
use self::spills::Spill;
use crate::fuse::PlanOptions;
use crate::fuse::too_large::Resource;

/// Why a plan cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Stages or tensors of the plan and of the graph are not the same.
    #[error("the plan places other stages or tensors than the graph has")]
    OtherGraph,
    /// A phase of the plan is not one of this target.
    #[error("phase {0} of the plan does not fit the target: was it made for another?")]
    DoesNotFit(usize),
}

/// A stage that computes a strip of the columns of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip {
    /// The stage.
    pub stage: StageId,
    /// The layer: strips of one number are of one.
    pub layer: i64,
}

/// A plan that is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The stages that it places; strips are stages of their own.
    pub graph: &'a StageGraph,
    /// The plan.
    pub plan: &'a Plan,
    /// The target that it was made for.
    pub target: &'a Target,
    /// What was asked of the planner.
    pub options: &'a PlanOptions,
    /// Stages that compute a strip of the columns of a layer.
    pub strips: &'a [Strip],
}

/// Why a plan is as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Why phases end where they do, in order.
    pub borders: Vec<Border>,
    /// Why tensors go through DRAM, the most bytes first.
    pub spills: Vec<Spill>,
}

/// What a target has too little of for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The field of the target, such as `memory.activation`.
    pub field: String,
    /// How much there is.
    pub limit: u64,
    /// How much would do.
    pub needed: u64,
    /// The difference.
    pub missing: u64,
}

impl Shortage {
    /// What a target lacks of something, if it does.
    fn of(resource: Resource, target: &Target, needed: u64) -> Option<Self> {
        let limit = resource.of(target);
        let field = resource.field().to_owned();
        (needed > limit).then(|| Self { field, limit, needed, missing: needed - limit })
    }
}

/// What a plan costs by the estimate of the search, whose figures can be compared with one another, and not
/// with simulated ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanCost {
    /// Under the objective, in its unit.
    pub cost: f64,
    /// Cycles of one inference.
    pub cycles: u64,
    /// DRAM bytes of one inference, without first rows that stay.
    pub dram_bytes: u64,
}

impl From<&account::Estimate> for PlanCost {
    fn from(estimate: &account::Estimate) -> Self {
        Self { cost: estimate.cost, cycles: estimate.cycles, dram_bytes: estimate.dram_bytes }
    }
}

/// Explains the borders between the phases of a plan, and the tensors that it spills.
///
/// # Errors
/// If the graph makes no sense, or the plan was made of another graph or for another target.
pub fn explain(subject: Subject<'_>) -> Result<Explained, ExplainError> {
    let Subject { graph, plan, target, options, strips } = subject;
    let mut target = target.clone();
    // A plan for the least SRAM has as little as it needs, though the machine has more.
    if plan.objective != Objective::Sram {
        target.memory.activation = plan.activation_bytes;
    }
    let account = Account::new(graph, &target, plan, options)?;
    Ok(Explained { borders: borders::borders(&account, strips), spills: spills::spills(&account, plan)? })
}
