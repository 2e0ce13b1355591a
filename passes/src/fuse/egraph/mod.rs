//! The offer: an e-graph whose group tier finds, on the data flow, the sets of stages that may form a phase.
//!
//! A term is a way to run stages, and an e-class a set of stages with all ways to run it that were found:
//!
//! | term | what it runs |
//! |---|---|
//! | a number | that group |
//! | `(feeds A B)` | A, then B, which reads from A; no stage stands between them |
//! | `(shares A B)` | A, then B, which reads what A does; neither needs the other |
//! | `(then A B)` | A, then B, which is next in the [order of the data flow](crate::fuse::order) |
//! | `(fuse A B)` | the same stages at once, as one phase: a group |
//!
//! The analysis (`groups`) of a class is its set, so that what comes about twice is one class, however
//! it came. The rules say that what runs one after another may run at once:
//!
//! | family | rewrite |
//! |---|---|
//! | producer-consumer | `(feeds ?a ?b)` = `(fuse ?a ?b)` |
//! | sibling | `(shares ?a ?b)` = `(fuse ?a ?b)` |
//! | sequence | `(then ?a ?b)` = `(fuse ?a ?b)` |
//!
//! all under the condition that lower bounds which never fall as a group grows are
//! within the target: tables in weight SRAM, the rows that each reader holds at once
//! in activation SRAM, stages. As they never fall, no family need take in several stages at once: where all
//! from a fork to its join fit, so do those on the way there. Whether a group fits exactly is for
//! [`Candidate`](crate::fuse::candidates::candidate::Candidate) to find. The e-graph offers; it never
//! chooses: its extractor sees no sharing.
//!
//! Groups grow by a stage at a time (`growth`): an e-graph holds the terms of all groups of one size with
//! their neighbours, and the rules make of these the groups of the next. Where paths are many there are more
//! groups than can be looked at. Of those that begin at one stage and have as many stages, the one grows
//! further, and is offered, that has the least bytes at its border: what is inside of a group needs no room
//! as a whole, and never goes to DRAM. What is in sequence is offered beside it.
//!
//! Limits count nodes and groups, never time; nothing depends on hash order.

mod groups;
mod growth;
mod terms;

use egg::{EGraph, Id, Rewrite, SearchMatches, Var, rewrite};
use strata_backend::model::graph::StageSet;

use crate::fuse::candidates::candidate::Context;
use crate::fuse::egraph::groups::Groups;
use crate::fuse::egraph::growth::Growth;
use crate::fuse::egraph::terms::Run;

pub use terms::{Offer, Offered};

/// The rules of the families that are on.
fn rules(offer: &Offer) -> Vec<Rewrite<Run, Groups>> {
    let mut rules = Vec::new();
    if offer.producer_consumer {
        rules.push(rewrite!("producer-consumer"; "(feeds ?a ?b)" => "(fuse ?a ?b)" if is_within_target()));
    }
    if offer.sibling {
        rules.push(rewrite!("sibling"; "(shares ?a ?b)" => "(fuse ?a ?b)" if is_within_target()));
    }
    if offer.sequence {
        rules.push(rewrite!("sequence"; "(then ?a ?b)" => "(fuse ?a ?b)" if is_within_target()));
    }
    rules
}

/// The condition of all rules.
fn is_within_target() -> impl Fn(&mut EGraph<Run, Groups>, Id, &egg::Subst) -> bool {
    let [a, b] =
        ["?a", "?b"].map(|name| name.parse::<Var>().expect("a question mark and a name is a variable"));
    move |egraph, _, subst| {
        let (a, b) = (&egraph[subst[a]].data, &egraph[subst[b]].data);
        egraph.analysis.fits(&a.union(b))
    }
}

/// The groups that the e-graph offers.
///
/// `with_strips` lets sets in that fit only in strips.
pub fn offer(context: &Context<'_>, options: &Offer, with_strips: bool) -> Offered {
    let rules = rules(options);
    let mut groups = Groups::new(context, options, with_strips);
    let mut growth = Growth::new(context, options);
    let mut of_a_size: Vec<StageSet> = context.graph.stages.keys().map(StageSet::of).collect();
    while !of_a_size.is_empty() {
        let mut egraph = EGraph::new(groups);
        let terms = growth.terms(of_a_size, &mut egraph);
        egraph.rebuild();
        let matches: Vec<_> = rules.iter().map(|rule| found(rule, &egraph, &terms)).collect();
        for (rule, matches) in rules.iter().zip(matches) {
            rule.apply(&mut egraph, &matches);
        }
        groups = egraph.analysis;
        of_a_size = groups.take_made();
    }
    growth.offered()
}

/// Where a rule applies among some classes.
fn found<'r>(
    rule: &'r Rewrite<Run, Groups>,
    egraph: &EGraph<Run, Groups>,
    classes: &[Id],
) -> Vec<SearchMatches<'r, Run>> {
    classes.iter().filter_map(|&class| rule.searcher.search_eclass(egraph, class)).collect()
}
