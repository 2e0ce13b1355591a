//! The judge of what a dump brings: it may have been edited, and its parts be others'.
//!
//! A stage of a dump says twice what it computes: as ops in its region, and as the code that the machine
//! runs. The program is run on the interpreter and the ops in the evaluator, on the same random inputs.

use strata_backend::emit::Lowered;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::random_inputs;
use strata_ir::pass::compare::first_differing;
use strata_ir::{Module, Tensor, TensorData};
use strata_isa_spec::{Target, interp};

use super::{CompileError, Event, missing};

/// That a program computes what the ops in its module's stages do.
pub(super) fn demand_same_results(
    module: &Module,
    lowered: &Lowered,
    target: &Target,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(), CompileError> {
    let func = module.function("main").ok_or_else(|| missing("main"))?;
    let inputs = random_inputs(module, func, 0);
    let expected = match eval_function(module, func, inputs.clone()) {
        Ok(expected) => expected,
        Err(error) => {
            observer(Event::Note(format!(
                "what the stages of the dump compute is not checked against their ops, which cannot be \
                 evaluated on random inputs: {error}"
            )));
            return Ok(());
        }
    };
    let inputs: Vec<Vec<u8>> = inputs.iter().map(|input| input.data().to_bytes()).collect();
    let got = interp::run(&lowered.program, target, &lowered.weights, &inputs)
        .map_err(|error| CompileError::Checkpoint(format!("its program does not run: {error}")))?;
    let problems: String = (expected.iter().zip(&got).enumerate())
        .filter_map(|(index, (want, got))| Some(format!("\n  result {index}: {}", difference(want, got)?)))
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(CompileError::Checkpoint(format!(
        "stages whose code is not what their ops say, on random inputs (was what a stage `runs`, or an op in \
         it, edited alone?):{problems}"
    )))
}

/// The first element of a result, row-major, that a program gives another value than the ops.
fn difference(want: &Tensor, got: &[u8]) -> Option<String> {
    let ty = want.ty();
    if got.len() != ty.size_bytes() {
        let n = ty.size_bytes();
        return Some(format!("{n} bytes by the ops, a {ty}, and {} by the code", got.len()));
    }
    let got = Tensor::new(ty.shape.clone(), TensorData::from_bytes(ty.elem, got)?);
    let at = first_differing(want, &got)?;
    let value = |tensor: &Tensor| tensor.data().int_at(at);
    Some(format!("element {at} of {ty} is {} by the ops, {} by the code", value(want)?, value(&got)?))
}
