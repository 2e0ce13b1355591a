//! An independent judge of a schedule: it must move the bytes that the plan says, and no more.
//!
//! That the program is valid at all (addresses, rings, loads) is for the machine's own verifier, which every
//! program passes before it runs.

use strata_isa_spec::Program;
use strata_isa_spec::timed::traffic;

use crate::model::Plan;

/// What differs between the traffic of a program and that of its plan.
///
/// # Errors
/// If something does; the text says what.
pub(super) fn check(program: &Program, plan: &Plan) -> Result<(), String> {
    let (made, planned) = (traffic(program), &plan.dram_bytes);
    let kinds = [
        ("weights", made.weights, planned.weights),
        ("inputs", made.inputs, planned.inputs),
        ("outputs", made.outputs, planned.outputs),
        ("stored activations", made.spill_write, planned.spill_write),
        ("loaded activations", made.spill_read, planned.spill_read),
    ];
    let differing = kinds.iter().filter(|(_, made, planned)| made != planned);
    let lines: Vec<String> =
        differing.map(|(what, made, planned)| format!("{what}: {made} bytes, planned {planned}")).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("; ")) }
}
