//! Programs: those that a test assembles, and what scheduled modules become.

use strata_ir::Module;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::random_inputs;
use strata_ir::expect::Found;
use strata_ir::pass::Level;
use strata_isa_spec::verify::{VerifyError, verify};
use strata_isa_spec::{Target, asm, codec, interp};

use super::trouble::{N_INPUTS, Trouble};

/// The text that an assembled program prints to. It assembles to the same program, and encoding loses
/// nothing.
pub(super) fn assemble(text: &str, target: Option<&Target>) -> Result<String, Trouble> {
    let program = asm::parse(text).map_err(|error| {
        let found = Found { line: Some(error.line), ..Found::placeless(error.reason) };
        Trouble::Found(vec![found])
    })?;
    let printed = asm::disassemble(&program, &[]);
    if asm::parse(&printed).as_ref() != Ok(&program) {
        return Err(Trouble::broken(format!("what is printed assembles to another program:\n{printed}")));
    }
    if codec::decode(&codec::encode(&program)).as_ref() != Ok(&program) {
        return Err(Trouble::broken("the encoded program decodes to another"));
    }
    let errors = target.map_or(Vec::new(), |target| verify(&program, target));
    if errors.is_empty() {
        return Ok(printed);
    }
    let found = |error: &VerifyError| Found::placeless(format!("{error} ({:?})", error.rule));
    Err(Trouble::Found(errors.iter().map(found).collect()))
}

/// The assembly of a scheduled module. If `checked`, the machine accepts the program, and it gives the
/// results of `before`, the module that the passes began with; of the scheduled one where that was one of
/// floats.
pub(super) fn program(
    before: &Module,
    module: &Module,
    target: &Target,
    checked: bool,
) -> Result<String, Trouble> {
    let lowered = strata_backend::emit::lower(module).map_err(Trouble::broken)?;
    let listing = asm::disassemble(&lowered.program, &lowered.names);
    if !checked {
        return Ok(listing);
    }
    let errors = verify(&lowered.program, target);
    if !errors.is_empty() {
        let errors: String = errors.iter().map(|error| format!("\n  {error}")).collect();
        return Err(Trouble::broken(format!("the machine refuses the program:{errors}\n{listing}")));
    }
    let reference = if Level::of(before) >= Level::Quant { before } else { module };
    let main = reference.function("main").ok_or_else(|| Trouble::broken("there is no `@main` to run"))?;
    for seed in 0..N_INPUTS as u64 {
        let inputs = random_inputs(reference, main, seed);
        let bytes: Vec<Vec<u8>> = inputs.iter().map(|tensor| tensor.data().to_bytes()).collect();
        let want = eval_function(reference, main, inputs).map_err(Trouble::broken)?;
        let want: Vec<Vec<u8>> = want.iter().map(|tensor| tensor.data().to_bytes()).collect();
        let got = interp::run(&lowered.program, target, &lowered.weights, &bytes).map_err(Trouble::broken)?;
        if let Some(output) = (0..want.len()).find(|&at| got.get(at) != want.get(at)) {
            let what = format!("output {output} of the program differs from the evaluator's on input {seed}");
            return Err(Trouble::Miscompiled(what));
        }
    }
    Ok(listing)
}
