//! `rewrite-tosa`: integer-exact rewrites of the quantised function, found by equality saturation.
//!
//! | module | what it holds |
//! |---|---|
//! | [`families`] | the table of families, and which are on |
//! | `language` | ops as terms of `egg`, and what is known of their classes |
//! | `constants` | weights by recipe, made only if they are taken |
//! | `make`, `rules` | making terms; the rewrites, one file a family |
//! | `cost` | what a selection of terms costs on the target |
//! | `extract` | which terms to take |
//! | `convert` | from a function and back |
//!
//! The pass stands between `quantise` and `form-stages`. It is the first tier of the e-graph: what the ops
//! are; the second, [`plan::egraph`](crate::fuse::egraph), says which stages may run together. They are two
//! e-graphs because stages are not terms of TOSA, and the choice of groups needs addresses and time, which no
//! cost of terms has.
//!
//! Every rewrite is an equation of integer tensors, whatever they hold; the pass relies on that and on its
//! types, and does not prove it: `verify` checks the types of the result, and tests and the pass manager
//! evaluate both sides. Limits count nodes and iterations, never time.

mod constants;
mod convert;
mod cost;
mod extract;
pub mod families;
mod language;
mod make;
mod rules;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use egg::{Id, Runner, SimpleScheduler};
use strata_ir::{BlockId, Module};
use strata_isa_spec::Target;

use crate::rewrite::convert::{Function, canonical};
use crate::rewrite::extract::{Choice, ExtractionProblem};
pub use crate::rewrite::families::{FAMILIES, Families, FamilyInfo, Tier, UnknownFamily};
use crate::rewrite::language::Term;
use crate::rewrite::selection::Selection;
use strata_ir::pass::{
    Changed, Level, OptionInfo, OptionKind, Pass, PassContext, PassError, PassInfo, PassOptions,
};

/// Nodes of the e-graph beyond those of the function, at most.
const NODES: usize = 20_000;
/// Rounds of rewriting, at most.
const ITERATIONS: usize = 24;

/// The row of [`RewriteTosa`].
pub static REWRITE_TOSA: PassInfo = PassInfo {
    name: "rewrite-tosa",
    doc: "Rewrites ops to others that compute the same bits in less time on the target, by the families of \
          [rewrites](rewrites.md) that are on.",
    takes: &[Level::Quant],
    gives: None,
    options: &[
        OptionInfo {
            name: "families",
            kind: OptionKind::Text {
                accepts: |text| Families::parse(text, '+').is_ok(),
                description: "families joined by `+`, with `-` before those to leave out; `all`, `none` or \
                    `default`",
            },
            default: "default",
            doc: "Which families are on.",
        },
        OptionInfo {
            name: "take",
            kind: OptionKind::Choice(&["cheapest", "every"]),
            default: "cheapest",
            doc: "Take what costs least, or every rewrite that the machine can run.",
        },
    ],
    build: |options| {
        // The option's kind has been checked.
        let families = Families::parse(options.text("families"), '+').unwrap_or_default();
        let take = if options.text("take") == "every" { Take::Every } else { Take::Cheapest };
        Arc::new(RewriteTosa { families, take })
    },
};

/// Which of equal ops are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Take {
    /// Those that cost least.
    #[default]
    Cheapest,
    /// Those of every rewrite that the machine can run.
    Every,
}

/// Rewrites `@main`.
#[derive(Clone, Debug, Default)]
pub struct RewriteTosa {
    /// The families of rewrites that are on.
    pub families: Families,
    /// What is taken of what they offer.
    pub take: Take,
}

impl Pass for RewriteTosa {
    fn info(&self) -> &'static PassInfo {
        &REWRITE_TOSA
    }

    fn options(&self) -> PassOptions {
        let take = match self.take {
            Take::Cheapest => "cheapest",
            Take::Every => "every",
        };
        let families = self.families.to_string().replace(',', "+");
        PassOptions::defaults(&REWRITE_TOSA).with("families", families).with("take", take)
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let target = context.require::<Target>("a target, to judge what is cheaper")?.clone();
        let choice = match self.take {
            Take::Cheapest => Choice::Cost,
            Take::Every => Choice::Every,
        };
        let Some(func) = module.function("main") else { return Ok(Changed::No) };
        let block = module.entry_block(func);
        let outcome = rewrite(module, block, &target, &self.families, choice)?;
        for (counter, n) in outcome.counts {
            context.count(counter, n);
        }
        Ok(outcome.changed.into())
    }
}

/// What was done to a block.
struct Outcome {
    changed: bool,
    counts: Vec<(&'static str, u64)>,
}

/// Saturates the e-graph of a block.
fn saturate(function: Function, families: &Families) -> Function {
    let Function { egraph, ops, roots } = function;
    let nodes = egraph.total_size() + NODES;
    let runner = Runner::default()
        .with_egraph(egraph)
        .with_scheduler(SimpleScheduler)
        .with_node_limit(nodes)
        .with_iter_limit(ITERATIONS)
        .with_time_limit(Duration::from_secs(1 << 32))
        .run(&rules::rewrites(families));
    Function { egraph: runner.egraph, ops, roots }
}

/// How many terms of each rule were taken.
fn taken(
    function: &Function,
    problem: &ExtractionProblem,
    selection: &Selection,
) -> Vec<(&'static str, u64)> {
    let egraph = &function.egraph;
    let mut origins: BTreeMap<Term, &'static str> = BTreeMap::new();
    for (term, rule) in &egraph.analysis.origins {
        origins.entry(canonical(egraph, term)).or_insert(rule);
    }
    let initial = problem.initial();
    let is_new = |class: Id, term: &Term| !initial.is_used(class) || initial.term(class) != term;
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (_, term) in selection.terms().filter(|&(class, term)| is_new(class, term)) {
        if let Some(rule) = origins.get(term) {
            *counts.entry(rule).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

fn rewrite(
    module: &mut Module,
    block: BlockId,
    target: &Target,
    families: &Families,
    choice: Choice,
) -> Result<Outcome, PassError> {
    let nothing = Outcome { changed: false, counts: Vec::new() };
    let Some(function) = Function::new(module, block) else { return Ok(nothing) };
    let function = saturate(function, families);
    if !function.egraph.analysis.conflicts.is_empty() {
        return Err(PassError::Invalid(function.egraph.analysis.conflicts));
    }
    let problem = ExtractionProblem::new(&function, target);
    let found = problem.solve(choice);
    let stays = |(_, class, term): &(_, _, _)| {
        let class = function.egraph.find(*class);
        !found.selection.is_used(class) || *found.selection.term(class) == canonical(&function.egraph, term)
    };
    if found.selection == problem.initial() && function.ops.iter().all(stays) {
        return Ok(nothing);
    }
    let mut counts = taken(&function, &problem, &found.selection);
    counts.push(("cycles before", found.before));
    counts.push(("cycles after", found.after));
    convert::write_back(module, block, &function, &found.selection);
    Ok(Outcome { changed: true, counts })
}
