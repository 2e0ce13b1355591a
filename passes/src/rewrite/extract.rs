//! Extraction: which term of every class to take, judged by the [cost](crate::rewrite::cost) of the whole.
//!
//! It starts from the function as it stands and takes exchanges of terms, one class or several that go
//! together, as long as the whole becomes cheaper; where no single exchange helps it looks further, at what
//! follows an exchange near by. Classes that only a rewrite has made begin with the term that is cheapest as
//! a tree. Equal costs keep the function as it stands, and the order of everything is that of classes and
//! terms, so the same function gives the same result.
//!
//! It is a search, not an optimum: tests hold it against all selections of small e-graphs. Its limit counts
//! evaluations.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use strata_ir::eval::random::Rng;
use strata_isa_spec::Target;

use crate::rewrite::convert::{Function, canonical};
use crate::rewrite::cost::{INFINITE, Part, Pricer, Prices, Role};
use crate::rewrite::language::{ARG, CONST, Term};
use crate::rewrite::selection::Selection;

/// Evaluations of whole selections, at most.
const EVALUATIONS: usize = 100_000;
/// How far an exchange is followed, in operands.
const NEAR: usize = 3;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// By cost.
    Cost,
    /// Every rewrite that can be taken, whatever it costs.
    Every,
    /// Rewrites at random, whatever they cost.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of exactness want all kinds of selections"))]
    Random(u64),
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What to take.
    pub(crate) selection: Selection,
    /// What the function as it stands costs.
    pub(crate) before: u64,
    /// What the selection costs.
    pub(crate) after: u64,
}

/// Numbers of classes with the numbers of the terms that they take.
type Exchange = Vec<(usize, usize)>;

/// Classes and terms by number.
pub(crate) struct ExtractionProblem {
    classes: Vec<Id>,
    terms: Vec<Term>,
    parts: Vec<Part>,
    /// When rules made each term, from 1; 0 for the function's own.
    ages: Vec<usize>,
    /// The terms of each class.
    candidates: Vec<Vec<usize>>,
    /// The term of each class to begin with.
    first: Vec<usize>,
    roots: Vec<usize>,
    exchanges: Vec<Exchange>,
    prices: Prices,
}

impl ExtractionProblem {
    /// The choices that an e-graph leaves.
    pub(crate) fn new(function: &Function, target: &Target) -> Self {
        let egraph = &function.egraph;
        let roots: Vec<Id> = function.roots.iter().map(|&id| egraph.find(id)).collect();
        let is_const = |id: Id| egraph[id].data.constant.is_some();
        let mut seen: BTreeSet<Id> = BTreeSet::new();
        let mut open: Vec<Id> = roots.iter().copied().filter(|&id| !is_const(id)).collect();
        while let Some(class) = open.pop() {
            if seen.insert(class) {
                let below = egraph[class].nodes.iter().flat_map(|term| &term.children);
                open.extend(below.map(|&id| egraph.find(id)).filter(|&id| !is_const(id)));
            }
        }
        let classes: Vec<Id> = seen.into_iter().collect();
        let number = |id: Id| classes.binary_search(&egraph.find(id)).unwrap_or_default();
        let mut pricer = Pricer::new(target);
        let (mut terms, mut parts, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
        for &class in &classes {
            let mut own: Vec<Term> = egraph[class].nodes.iter().map(|term| canonical(egraph, term)).collect();
            own.retain(|term| term.kind != CONST);
            own.sort();
            own.dedup();
            let from = terms.len();
            parts.extend(own.iter().map(|term| pricer.part(egraph, class, term, number)));
            terms.extend(own);
            candidates.push((from..terms.len()).collect::<Vec<usize>>());
        }
        let mut made: BTreeMap<Term, usize> = BTreeMap::new();
        for (age, (term, _)) in egraph.analysis.origins.iter().enumerate() {
            made.entry(canonical(egraph, term)).or_insert(age + 1);
        }
        for (_, _, term) in &function.ops {
            made.remove(&canonical(egraph, term));
        }
        let mut problem = Self {
            ages: terms.iter().map(|term| made.get(term).copied().unwrap_or(0)).collect(),
            roots: roots.iter().filter(|&&id| !is_const(id)).map(|&id| number(id)).collect(),
            first: Vec::new(),
            exchanges: Vec::new(),
            prices: Prices::new(target, 0, 0),
            classes,
            terms,
            parts,
            candidates,
        };
        problem.begin(function);
        let order = problem.order(&problem.first).unwrap_or_default();
        let first = |of: fn(&Part) -> u64| -> u64 {
            order.iter().map(|&class| of(&problem.parts[problem.first[class]])).sum()
        };
        let weight_bytes = first(|part| part.weights) * u64::from(target.dram.bytes_per_cycle.max(1));
        let cycles = first(|part| if part.role == Role::Head { part.cycles } else { 0 });
        problem.prices = Prices::new(target, cycles, weight_bytes);
        problem.collect_exchanges(function);
        problem
    }

    fn number(&self, class: Id) -> Option<usize> {
        self.classes.binary_search(&class).ok()
    }

    fn term_number(&self, class: usize, term: &Term) -> Option<usize> {
        self.candidates[class].iter().copied().find(|&at| self.terms[at] == *term)
    }

    /// Begins with the function's own terms, and elsewhere with the cheapest trees.
    fn begin(&mut self, function: &Function) {
        let n = self.classes.len();
        let mut cost = vec![INFINITE; n];
        let mut first: Vec<usize> =
            self.candidates.iter().map(|own| own.first().copied().unwrap_or(0)).collect();
        let mut changed = true;
        while changed {
            changed = false;
            for class in 0..n {
                for &at in &self.candidates[class] {
                    let part = &self.parts[at];
                    let own = match part.role {
                        Role::None => INFINITE,
                        Role::Head => part.cycles + part.weights + self.prices.alone(part),
                        _ => part.weights + self.prices.alone(part),
                    };
                    let below = part.streamed.iter().map(|&id| cost[id]);
                    let all = below.fold(own, u64::saturating_add).min(INFINITE);
                    if all < cost[class] {
                        (cost[class], first[class], changed) = (all, at, true);
                    }
                }
            }
        }
        let egraph = &function.egraph;
        for (_, class, term) in function.ops.iter().rev() {
            if let Some(class) = self.number(egraph.find(*class))
                && let Some(at) = self.term_number(class, &canonical(egraph, term))
            {
                first[class] = at;
            }
        }
        // An argument is there already, whatever else is equal to it.
        for (class, own) in self.candidates.iter().enumerate() {
            if let Some(&at) = own.iter().find(|&&at| self.terms[at].kind == ARG) {
                first[class] = at;
            }
        }
        self.first = first;
    }

    fn collect_exchanges(&mut self, function: &Function) {
        let egraph = &function.egraph;
        for joint in &egraph.analysis.joints {
            let exchange = joint.iter().map(|(class, term)| {
                let class = self.number(egraph.find(*class))?;
                Some((class, self.term_number(class, &canonical(egraph, term))?))
            });
            self.exchanges.extend(exchange.collect::<Option<Exchange>>());
        }
        for (class, own) in self.candidates.iter().enumerate().filter(|(_, own)| own.len() > 1) {
            self.exchanges.extend(own.iter().map(|&at| vec![(class, at)]));
        }
        self.exchanges.sort();
        self.exchanges.dedup();
    }

    /// The classes that a choice uses, operands first; `None` if it goes in circles.
    fn order(&self, choice: &[usize]) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; choice.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(usize, usize)> = Vec::new();
        for &root in &self.roots {
            if marks[root] == Mark::New {
                stack.push((root, 0));
                marks[root] = Mark::Open;
            }
            while let Some((class, next)) = stack.last_mut() {
                let operands = &self.parts[choice[*class]].streamed;
                match operands.get(*next) {
                    Some(&operand) => {
                        *next += 1;
                        match marks[operand] {
                            Mark::New => {
                                marks[operand] = Mark::Open;
                                stack.push((operand, 0));
                            }
                            Mark::Open => return None,
                            Mark::Done => {}
                        }
                    }
                    None => {
                        marks[*class] = Mark::Done;
                        order.push(*class);
                        stack.pop();
                    }
                }
            }
        }
        Some(order)
    }

    /// What a choice costs.
    fn cost(&self, choice: &[usize]) -> u64 {
        let Some(order) = self.order(choice) else { return INFINITE };
        self.prices.cost(&order, choice, &self.parts, &self.roots)
    }

    fn apply(choice: &mut [usize], exchange: &Exchange) {
        for &(class, at) in exchange {
            choice[class] = at;
        }
    }

    /// Takes exchanges that make a choice cheaper until none does; gives the cost.
    fn descend(&self, choice: &mut Vec<usize>, exchanges: &[&Exchange], left: &mut usize) -> u64 {
        let mut best = self.cost(choice);
        let mut improved = true;
        while improved {
            improved = false;
            for exchange in exchanges {
                if *left == 0 || exchange.iter().all(|&(class, at)| choice[class] == at) {
                    continue;
                }
                *left -= 1;
                let mut trial = choice.clone();
                Self::apply(&mut trial, exchange);
                let cost = self.cost(&trial);
                if cost < best {
                    (*choice, best, improved) = (trial, cost, true);
                }
            }
        }
        best
    }

    /// The exchanges of classes within [`NEAR`] operands of those of an exchange.
    fn near(&self, exchange: &Exchange) -> Vec<&Exchange> {
        let mut inside: BTreeSet<usize> = exchange.iter().map(|&(class, _)| class).collect();
        for _ in 0..NEAR {
            let mut more = inside.clone();
            for class in 0..self.classes.len() {
                let below = self.candidates[class].iter().flat_map(|&at| &self.parts[at].streamed);
                let below: Vec<usize> = below.copied().collect();
                if inside.contains(&class) {
                    more.extend(below);
                } else if below.iter().any(|id| inside.contains(id)) {
                    more.insert(class);
                }
            }
            inside = more;
        }
        self.exchanges.iter().filter(|it| it.iter().any(|(class, _)| inside.contains(class))).collect()
    }

    fn cheapest(&self) -> Vec<usize> {
        let all: Vec<&Exchange> = self.exchanges.iter().collect();
        let mut left = EVALUATIONS;
        let mut choice = self.first.clone();
        let mut best = self.descend(&mut choice, &all, &mut left);
        let mut improved = true;
        while improved {
            improved = false;
            for exchange in &self.exchanges {
                if left == 0 || exchange.iter().all(|&(class, at)| choice[class] == at) {
                    continue;
                }
                let mut trial = choice.clone();
                Self::apply(&mut trial, exchange);
                // What was just exchanged stays, or nothing would be seen beyond it.
                let near: Vec<&Exchange> = self.near(exchange);
                let fixed =
                    |it: &&Exchange| it.iter().all(|(class, _)| exchange.iter().all(|(c, _)| c != class));
                let near: Vec<&Exchange> = near.into_iter().filter(fixed).collect();
                if self.descend(&mut trial, &near, &mut left) < best {
                    best = self.descend(&mut trial, &all, &mut left);
                    (choice, improved) = (trial, true);
                }
            }
        }
        choice
    }

    /// Takes exchanges in the given order wherever the machine can run what results.
    fn whatever(&self, exchanges: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut choice = self.first.clone();
        for at in exchanges {
            let mut trial = choice.clone();
            Self::apply(&mut trial, &self.exchanges[at]);
            if self.cost(&trial) < INFINITE {
                choice = trial;
            }
        }
        choice
    }

    /// Chooses.
    pub(crate) fn solve(&self, how: Choice) -> Found {
        let n = self.exchanges.len();
        // The latest terms are what is left when no rule has more to say.
        let age = |at: usize| self.exchanges[at].iter().map(|&(_, to)| self.ages[to]).max().unwrap_or(0);
        let mut by_age: Vec<usize> = (0..n).filter(|&at| age(at) > 0).collect();
        by_age.sort_by_key(|&at| age(at));
        let choice = match how {
            Choice::Cost => self.cheapest(),
            Choice::Every => self.whatever(by_age),
            Choice::Random(seed) => {
                let mut rng = Rng::new(seed);
                self.whatever((0..4 * n).map(|_| rng.count(0, n - 1)).collect::<Vec<_>>())
            }
        };
        Found {
            before: self.cost(&self.first),
            after: self.cost(&choice),
            selection: self.selection(&choice),
        }
    }

    /// The function as it stands, but that equal classes have one term.
    pub(crate) fn initial(&self) -> Selection {
        self.selection(&self.first)
    }

    fn selection(&self, choice: &[usize]) -> Selection {
        let order = self.order(choice).unwrap_or_default();
        let used = order.into_iter().map(|class| (self.classes[class], self.terms[choice[class]].clone()));
        Selection { terms: used.collect() }
    }

    /// The least cost of all choices, if there are at most so many.
    #[cfg(test)]
    pub(crate) fn least(&self, at_most: usize) -> Option<u64> {
        let free: Vec<usize> =
            (0..self.classes.len()).filter(|&class| self.candidates[class].len() > 1).collect();
        let n = free.iter().try_fold(1usize, |n, &class| n.checked_mul(self.candidates[class].len()))?;
        (n <= at_most).then_some(())?;
        let choice = |mut number: usize| {
            let mut choice = self.first.clone();
            for &class in &free {
                let own = &self.candidates[class];
                choice[class] = own[number % own.len()];
                number /= own.len();
            }
            choice
        };
        (0..n).map(|number| self.cost(&choice(number))).min()
    }
}
