//! `--bisect-limit`: how many passes run, so that the one that breaks something is found by halving.

use strata_ir::pass::Pipeline;

/// Counts passes over the modules of a file up to a limit.
#[derive(Debug)]
pub(super) struct Bisect {
    limit: Option<usize>,
    n_run: usize,
    /// The last pass that ran.
    last: Option<String>,
    /// The first that did not.
    next: Option<String>,
}

impl Bisect {
    /// None has run yet.
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit, n_run: 0, last: None, next: None }
    }

    /// What of a pipeline runs on the next module; `label` says on which.
    pub(super) fn allow(&mut self, pipeline: &Pipeline, label: &str) -> Pipeline {
        let Some(limit) = self.limit else { return pipeline.clone() };
        let allowed = pipeline.first(limit - self.n_run);
        let name = |at: usize| {
            let pass = pipeline.passes().get(at)?;
            Some(format!("`{}`{label} (number {})", pass.info().name, self.n_run + at + 1))
        };
        let n = allowed.passes().len();
        let (last, next) = (n.checked_sub(1).and_then(name), name(n));
        self.last = last.or(self.last.take());
        self.next = self.next.take().or(next);
        self.n_run += n;
        allowed
    }

    /// What ran last and what did not run, if there is a limit.
    pub(super) fn told(&self) -> Option<String> {
        let limit = self.limit?;
        Some(match (&self.last, &self.next) {
            (Some(last), Some(next)) => {
                format!("bisect: the last pass that ran is {last}; {next} did not run")
            }
            (None, Some(next)) => format!("bisect: no pass ran; the first is {next}"),
            (Some(last), None) => {
                format!("bisect: all passes ran, {} of at most {limit}; the last is {last}", self.n_run)
            }
            (None, None) => "bisect: there is no pass to run".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    /// What ran on each of three modules, and what is told.
    fn bisected(limit: usize) -> (Vec<String>, String) {
        let pipeline = registry().parse("canonicalise,quantise").expect("a pipeline");
        let mut bisect = Bisect::new(Some(limit));
        let ran = (1..4).map(|n| bisect.allow(&pipeline, &format!(" on module {n}")).to_string()).collect();
        (ran, bisect.told().expect("there is a limit"))
    }

    #[test]
    fn counts_over_all_modules() {
        let (ran, told) = bisected(3);
        assert_eq!(ran, ["canonicalise,quantise", "canonicalise", ""]);
        assert_eq!(
            told,
            "bisect: the last pass that ran is `canonicalise` on module 2 (number 3); \
             `quantise` on module 2 (number 4) did not run"
        );
        assert_eq!(bisected(0).1, "bisect: no pass ran; the first is `canonicalise` on module 1 (number 1)");
        let all = "bisect: all passes ran, 6 of at most 9; the last is `quantise` on module 3 (number 6)";
        assert_eq!(bisected(9).1, all);
        assert_eq!(Bisect::new(None).told(), None);
    }
}
