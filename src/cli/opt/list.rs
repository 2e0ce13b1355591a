//! The passes that there are, with their options.

use strata_ir::pass::{OptionInfo, PassInfo, Registry};

use crate::cli::tables::{row, show, words};

/// A line for each pass, and one for each of its options.
pub(super) fn passes(registry: &Registry) -> String {
    let mut lines = words(&["pass", "takes", "gives", ""]);
    for info in registry.passes() {
        let PassInfo { name, takes, gives, doc, .. } = info;
        let takes = takes.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
        let gives = gives.map_or("the same", |level| level.name());
        row(&mut lines, &[name, takes.as_str(), gives, first_sentence(doc)]);
        for OptionInfo { name, kind, default, doc } in info.options {
            let meaning = format!("{} ({})", first_sentence(doc), kind.describe());
            row(&mut lines, &[&format!("  {name}={default}"), "", "", meaning.as_str()]);
        }
    }
    show(&lines)
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive(". ").next().unwrap_or_default().trim_end()
}
