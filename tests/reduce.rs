//! Planted bugs in networks of a hundred layers, and how small `strata::reduce` makes them.

use std::sync::Arc;

use strata::reduce::oracle::{Oracle, Symptom};
use strata::reduce::{reduce_lines, reduce_module, reduce_onnx, reduce_pipeline};
use strata_frontend::import::{ImportOptions, NoSideFiles, resolve};
use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooOptions, build};
use strata_ir::pass::{Changed, Level, Pass, PassContext, PassError, PassInfo, PassOptions, Registry};
use strata_ir::{Module, Op, OpId, text};
use strata_isa_spec::Target;

/// A pass with a bug at a maximum of sums.
macro_rules! buggy {
    ($info:ident, $made:ident, $name:literal, |$module:ident, $op:ident| $bug:expr) => {
        static $info: PassInfo = PassInfo {
            name: $name,
            doc: "A pass with a bug.",
            takes: &[Level::Quant],
            gives: None,
            options: &[],
            build: |_: &PassOptions| Arc::new($made),
        };

        #[derive(Debug)]
        struct $made;

        impl Pass for $made {
            fn info(&self) -> &'static PassInfo {
                &$info
            }

            fn run(&self, $module: &mut Module, _: &mut PassContext) -> Result<Changed, PassError> {
                let Some($op) = maximum_of_sums($module) else { return Ok(Changed::No) };
                $bug
            }
        }
    };
}

buggy!(MISCOMPILE, Miscompile, "miscompile", |module, op| {
    let second = module.op(op).operands()[1];
    module.set_operand(op, 0, second);
    Ok(Changed::Yes)
});
buggy!(PANIC, Panic, "panic", |module, op| panic!("no good: {:?}", module.op(op).op));
buggy!(REFUSE, Refuse, "refuse", |module, op| {
    let _ = (module, op);
    Err(PassError::invalid("a maximum of sums is too much"))
});

/// The first maximum of which one operand is a sum.
fn maximum_of_sums(module: &Module) -> Option<OpId> {
    module.walk(module.body()).into_iter().find(|&op| {
        let data = module.op(op);
        let is_sum =
            |&value: &_| module.defining_op(value).is_some_and(|of| matches!(module.op(of).op, Op::Add(_)));
        matches!(data.op, Op::Maximum(_)) && data.operands().iter().any(is_sum)
    })
}

/// A hundred layers in integers, of which the 61st is a maximum of a sum and of what is far back.
fn network() -> Module {
    let ty = "tensor<1x6x6x4xi32>";
    let mut lines = Vec::new();
    for at in 1..=100 {
        let (last, back) = (format!("%{}", at - 1), format!("%{}", at / 2));
        let binary = |name: &str| format!("tosa.{name} {last}, {back} : ({ty}, {ty}) -> {ty}");
        let unary = |rest: &str| format!("tosa.{} : ({ty}) -> {ty}", rest.replace('_', &last));
        let op = match at {
            60 => binary("add"),
            61 => binary("maximum"),
            _ if at % 7 == 0 => binary("maximum"),
            _ if at % 3 == 0 => unary("reverse _ {axis = 1 : i32}"),
            _ => unary("abs _"),
        };
        lines.push(format!("    %{at} = {op}\n"));
    }
    let head = format!("module attributes {{strata.level = \"quant\"}} {{\n  func.func @main(%0: {ty})");
    let text =
        format!("{head} -> ({ty}, {ty}) {{\n{}    return %50, %100 : {ty}, {ty}\n  }}\n}}\n", lines.concat());
    text::parse(&text, None).unwrap_or_else(|errors| panic!("{errors}"))
}

fn registry() -> Registry {
    strata::registry().with([&MISCOMPILE, &PANIC, &REFUSE])
}

fn oracle(symptom: Symptom, passes: &str) -> Oracle {
    let target = Target::preset("x1", &[]).expect("a preset");
    Oracle {
        symptom,
        pipeline: registry().parse(passes).expect("they are known"),
        target,
        input_shapes: Default::default(),
        calibration: Default::default(),
        only_valid: true,
    }
}

/// The names of the ops that are left, and how many candidates were tried.
fn reduced(symptom: Symptom, passes: &str) -> (Vec<&'static str>, String, usize) {
    let (module, oracle) = (network(), oracle(symptom, passes));
    assert!(oracle.module_fails(&module), "the whole fails");
    let mut n_tried = 0;
    let mut count = |told: strata::reduce::Progress| n_tried = told.n_tried;
    let small = reduce_module(&module, &mut |module| oracle.module_fails(module), &mut count);
    let small = small.expect("`main` fails");
    let pipeline =
        reduce_pipeline(&oracle.pipeline, &mut |p| oracle.with_pipeline(p.clone()).module_fails(&small));
    let ops = small.block_ops(small.entry_block(small.function("main").expect("it is there")));
    let names = ops.iter().map(|&op| small.op(op).op.name()).collect();
    let again = text::parse(&text::to_string(&small), None).expect("it is printed to be read");
    assert!(oracle.module_fails(&again), "what is printed fails, too");
    (names, pipeline.to_string(), n_tried)
}

#[test]
fn planted_bugs_are_found_in_a_hundred_layers() {
    let left = ["tosa.add", "tosa.maximum", "func.return"];
    let error = Symptom::Error("a maximum of sums is too much".to_owned());
    for (symptom, pass) in [(Symptom::Panic, "panic"), (error, "refuse"), (Symptom::Miscompile, "miscompile")]
    {
        let (names, pipeline, n_tried) =
            reduced(symptom.clone(), &format!("canonicalise,{pass},canonicalise"));
        assert_eq!((&names[..], pipeline.as_str()), (&left[..], pass), "{symptom:?}");
        assert!(n_tried < 120, "{n_tried} candidates for {symptom:?}");
    }
}

#[test]
fn what_does_not_fail_is_no_symptom() {
    for symptom in [Symptom::Panic, Symptom::Miscompile, Symptom::Error("E0302".to_owned())] {
        assert!(!oracle(symptom.clone(), "canonicalise").module_fails(&network()), "{symptom:?}");
    }
    // Other bugs are other symptoms.
    assert!(!oracle(Symptom::Miscompile, "panic").module_fails(&network()));
    assert!(!oracle(Symptom::Panic, "miscompile").module_fails(&network()));
}

/// A script sees each candidate as a file: here one whose network has a maximum.
#[test]
fn scripts_judge_files() {
    let oracle = oracle(Symptom::Script("grep -q tosa.maximum".to_owned()), "");
    let small = reduce_module(&network(), &mut |module| oracle.module_fails(module), &mut |_| {});
    let text = text::to_string(&small.expect("it holds for the whole"));
    assert_eq!(text.matches("tosa.").count(), 1, "{text}");
}

/// Of a zoo's network in ONNX the first node of a kind is left that an import has to have.
#[test]
fn models_are_reduced() {
    let options = ZooOptions { size: Some((64, 64)), ..ZooOptions::default() };
    let bytes = encode(&build("mobilenetv2", &options).expect("the zoo has it"));
    let import = ImportOptions::default();
    let model = resolve(&bytes, &import, &NoSideFiles).expect("it is a model").model;
    let n_nodes =
        |model: &strata_frontend::proto::ModelProto| model.graph.as_ref().map_or(0, |g| g.node.len());
    assert!(n_nodes(&model) > 100);
    let oracle = oracle(Symptom::Script("grep -q GlobalAveragePool".to_owned()), "");
    let small = reduce_onnx(&model, &import, &mut |model| oracle.model_fails(model), &mut |_| {});
    let small = small.expect("it is surveyed").expect("it holds");
    assert_eq!(n_nodes(&small), 1);
    let input = &small.graph.as_ref().expect("a graph").input[0];
    assert!(input.r#type.is_some(), "the shape of what was cut is known");
}

#[test]
fn programs_are_reduced() {
    let text = std::fs::read_to_string("tests/filetests/asm/overlap.asm").expect("it is there");
    let whole = oracle(Symptom::Error("Overlap".to_owned()), "");
    assert!(whole.assembly_fails(&text), "the file breaks this rule");
    let small = reduce_lines(&text, &mut |text| whole.assembly_fails(text), &mut |_| {});
    assert!(2 * small.lines().count() < text.lines().count(), "{small}");
    assert!(whole.assembly_fails(&small));
}
