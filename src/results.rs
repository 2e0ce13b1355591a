//! Which values of a function are results of the model's nodes, so that what stands for them in two forms of
//! a network finds each other.

use std::collections::BTreeMap;

use strata_ir::{Module, OpId, ValueId};

/// The values of a function that are read by others than their own node, each with the name of that node; of
/// several of one name, with `#` and its number.
pub(crate) fn node_results(module: &Module, func: OpId) -> BTreeMap<ValueId, String> {
    let block = module.entry_block(func);
    let users = module.users(block);
    let node = |op: OpId| module.op(op).loc.name();
    let mut of_node: BTreeMap<&str, Vec<ValueId>> = BTreeMap::new();
    for &op in module.block_ops(block) {
        let data = module.op(op);
        let (Some(name), false) = (data.loc.name(), data.op.is_constant()) else { continue };
        let results = data.results().iter().copied();
        let is_read = |value: &ValueId| users[*value].iter().any(|&user| node(user) != Some(name));
        of_node.entry(name).or_default().extend(results.filter(is_read));
    }
    let mut results = BTreeMap::new();
    for (name, values) in of_node {
        let is_one = values.len() == 1;
        for (at, value) in values.into_iter().enumerate() {
            results.insert(value, if is_one { name.to_owned() } else { format!("{name}#{at}") });
        }
    }
    results
}
