//! Fewer passes.

use strata_ir::pass::Pipeline;

/// The passes of a pipeline without which it no longer fails: up to the one after which it does, and of those
/// before only what it takes.
pub fn reduce_pipeline(pipeline: &Pipeline, still_fails: &mut dyn FnMut(&Pipeline) -> bool) -> Pipeline {
    let n = pipeline.passes().len();
    let mut reduced = pipeline.clone();
    if let Some(shorter) = (0..n).map(|n| pipeline.first(n)).find(|shorter| still_fails(shorter)) {
        reduced = shorter;
    }
    let mut at = 0;
    while at < reduced.passes().len() {
        let without = reduced.first(at).and_then(reduced.from_pass(at + 1));
        if still_fails(&without) {
            reduced = without;
        } else {
            at += 1;
        }
    }
    reduced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passes_that_it_takes_are_left() {
        let registry = crate::registry();
        let parse = |text: &str| registry.parse(text).expect("passes");
        let pipeline = parse("canonicalise,equalise,canonicalise,quantise,form-stages,schedule");
        let mut fails = |pipeline: &Pipeline| {
            let text = pipeline.to_string();
            text.contains("equalise") && text.contains("quantise")
        };
        assert_eq!(reduce_pipeline(&pipeline, &mut fails).to_string(), "equalise,quantise");
        assert_eq!(reduce_pipeline(&pipeline, &mut |_| true).to_string(), "");
        assert_eq!(reduce_pipeline(&pipeline, &mut |_| false).to_string(), pipeline.to_string());
    }
}
