//! Random networks through the passes: the evaluator gives the same results before and after, and the
//! machine, running one stage a phase with everything resident, the same again.

use std::collections::BTreeMap;

use strata_ir::attr::{FunctionType, NanMode};
use strata_ir::build::Builder;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{RandomOptions, random_inputs, random_network};
use strata_ir::pass::{Pass, PassContext};
use strata_ir::{Attribute, ElemType, Module, Op, OpId, Tensor, TensorData, Type, dialect};
use strata_isa_spec::Target;

use crate::model::graph::{StageSet, Topology};
use crate::model::{StageGraph, StageId};
use crate::select::erase::EraseWrappers;
use crate::select::split::SplitChannels;
use crate::select::{FormStages, check};

fn run(pass: &dyn Pass, module: &mut Module) {
    let mut context = PassContext::new();
    context.insert(Target::preset("x1", &[]).expect("a preset"));
    if let Err(error) = pass.run(module, &mut context) {
        panic!("{}: {error}", pass.info().name);
    }
}

fn main_of(module: &Module) -> OpId {
    module.function("main").expect("random networks have a @main")
}

fn results(module: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    match eval_function(module, main_of(module), inputs.to_vec()) {
        Ok(results) => results,
        Err(error) => panic!("{error}\n{}", strata_ir::text::to_string(module)),
    }
}

#[test]
fn random_networks_keep_their_results() {
    for seed in 0..150 {
        let i16_percent = [0, 40, 100][seed as usize % 3];
        let mut module = random_network(seed, &RandomOptions { i16_percent, ..RandomOptions::default() });
        let inputs = random_inputs(&module, main_of(&module), seed);
        let expected = results(&module, &inputs);
        run(&FormStages, &mut module);
        assert_eq!(results(&module, &inputs), expected, "seed {seed}, stages");
        run(&SplitChannels { budget_bytes: 700 }, &mut module);
        assert_eq!(results(&module, &inputs), expected, "seed {seed}, split");
        run(&EraseWrappers, &mut module);
        assert_eq!(results(&module, &inputs), expected, "seed {seed}, erased");
    }
}

#[test]
fn elementwise_ops_join_the_stage_before_them() {
    let (mut n_stages, mut n_alone) = (0, 0);
    for seed in 0..50 {
        let mut module = random_network(seed, &RandomOptions::default());
        run(&FormStages, &mut module);
        let graph = StageGraph::from_module(&module, main_of(&module)).expect("just formed");
        n_stages += graph.stages.len();
        let is_load =
            |stage: &&crate::model::StageNode| matches!(stage.code.head, strata_isa_spec::Head::Load(_));
        n_alone += graph.stages.values().filter(is_load).count();
    }
    assert!(n_alone * 3 < n_stages, "{n_alone} of {n_stages} stages have no head of their own");
}

#[test]
fn the_judge_sees_a_wrong_view() {
    let mut module = random_network(3, &RandomOptions::default());
    run(&FormStages, &mut module);
    let func = main_of(&module);
    assert_eq!(check::check(&module, func), Ok(()));
    let graph = StageGraph::from_module(&module, func).expect("just formed");
    let stage = graph.stages.values().find(|stage| stage.code.out.chs > 1).expect("some stage has channels");
    let mut code = stage.code.clone();
    code.out.chs -= 1;
    crate::select::set_code(&mut module, stage.op, &code).expect("a code is an attribute");
    assert!(check::check(&module, func).is_err());
}

#[test]
fn results_alias_only_what_is_theirs() {
    // Two results of one value, and an argument returned as it is: each needs a buffer of its own.
    let ty = Type::tensor([1, 2, 2, 3], ElemType::I8);
    let mut module = Module::new();
    let signature = FunctionType { inputs: vec![ty.clone()], results: vec![ty.clone(), ty.clone(), ty] };
    let (_, block) = module.add_function("main", signature);
    let arg = module.args(block)[0];
    let mut builder = Builder::new(&mut module, block);
    let bound = |v: i64| Attribute::Int(v, ElemType::I8);
    let clamp = dialect::Clamp { min_val: bound(-5), max_val: bound(5), nan_mode: NanMode::Propagate };
    let clamped = builder.op(clamp, &[arg]).expect("a valid clamp");
    builder.terminator(dialect::FuncReturn {}, &[clamped, clamped, arg]);
    let data = TensorData::I8(vec![9, -9, 3, 0, 1, 2, 5, 6, -5, -6, 7, 8]);
    let inputs = [Tensor::new([1, 2, 2, 3], data)];
    let expected = results(&module, &inputs);
    run(&FormStages, &mut module);
    assert_eq!(results(&module, &inputs), expected);
    let graph = StageGraph::from_module(&module, main_of(&module)).expect("just formed");
    assert_eq!(graph.stages.len(), 3);
}

/// Through slices and concatenations a stage reaches just the stages that write what its views read: a plan
/// may put it before any others.
#[test]
fn stages_stand_behind_what_they_read_only() {
    let mut n_narrow = 0;
    for seed in 0..60 {
        let mut module = random_network(seed, &RandomOptions::default());
        run(&FormStages, &mut module);
        run(&SplitChannels { budget_bytes: 300 }, &mut module);
        let graph = StageGraph::from_module(&module, main_of(&module)).expect("just formed");
        let topology = Topology::new(&graph).expect("it is a graph");
        let stage_of: BTreeMap<OpId, StageId> =
            graph.stages.iter().map(|(stage, node)| (node.op, stage)).collect();
        for (stage, node) in &graph.stages {
            let mut reached = StageSet::default();
            let mut open = module.op(node.op).operands().to_vec();
            while let Some(value) = open.pop() {
                let Some(op) = module.defining_op(value) else { continue };
                match stage_of.get(&op) {
                    Some(&stage) => reached.insert(stage),
                    None => open.extend(module.op(op).operands()),
                }
            }
            assert_eq!(reached, topology.preds[stage], "seed {seed}, `{}`", node.name);
            let is_slice = |&value: &strata_ir::ValueId| {
                module.defining_op(value).is_some_and(|op| matches!(module.op(op).op, Op::Slice(_)))
            };
            n_narrow += module.op(node.op).operands().iter().filter(|value| is_slice(value)).count();
        }
    }
    assert!(n_narrow > 20, "{n_narrow} slices are read");
}
