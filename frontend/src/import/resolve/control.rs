//! The operators of control flow, and why the import finds one left.

/// Operators that [`expand`](super::expand) replaces.
pub(super) const CONTROL: [&str; 15] = [
    "ConcatFromSequence",
    "If",
    "Loop",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "Scan",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
];

/// Nodes that loops may be unrolled to, in all.
pub const MAX_UNROLLED: usize = 1 << 14;

/// Why a node of control flow is left in a graph that was expanded.
pub(in crate::import) fn why_left(op: &str) -> Option<String> {
    Some(match op {
        "If" => "its condition depends on the data".to_owned(),
        "Loop" | "Scan" => format!(
            "how often it runs depends on the data, or is more than can be unrolled ({MAX_UNROLLED} nodes)"
        ),
        _ if CONTROL.contains(&op) => {
            "what is in its sequence or optional value depends on the data".to_owned()
        }
        _ => return None,
    })
}
