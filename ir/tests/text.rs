//! Text and module are two forms of one thing: what is printed parses back to an equal module and prints the
//! same again; no text makes the parser panic.

use proptest::prelude::*;
use strata_ir::attr::FunctionType;
use strata_ir::dialect::{FuncReturn, Phase, Stage, Yield};
use strata_ir::equal::difference;
use strata_ir::eval::random::{RandomOptions, random_network};
use strata_ir::text::{
    Form, PrintOptions, ResourcePlacement, Resources, parse, print, resources::to_bytes, to_string,
};
use strata_ir::{Attribute, ElemType, Location, Module, Op, Tensor, TensorData, Type, verify};

/// Prints in both forms, parses, compares and prints again, with the blobs in the text and beside it.
fn round_trip(module: &Module) {
    let placements = [ResourcePlacement::Inline, ResourcePlacement::SideFile];
    for (form, resources) in
        [Form::Pretty, Form::Generic].into_iter().flat_map(|f| placements.map(|p| (f, p)))
    {
        let options = PrintOptions { form, resources, ..PrintOptions::default() };
        let printed = print(module, &options);
        let side = Resources::from_bytes(to_bytes(&printed.resources)).expect("a side file reads");
        let again = match parse(&printed.text, Some(&side)) {
            Ok(again) => again,
            Err(errors) => panic!("{errors}\n{}", printed.text),
        };
        assert_eq!(difference(module, &again), None);
        assert_eq!(print(&again, &options), printed);
    }
}

#[test]
fn quantised_networks_round_trip_and_verify() {
    for seed in 0..20 {
        let module = random_network(seed, &RandomOptions::default());
        verify(&module).unwrap_or_else(|errors| panic!("seed {seed}: {errors}"));
        round_trip(&module);
    }
}

/// A module with constants of every element type, all kinds of attributes, and regions.
fn assorted() -> Module {
    let mut module = Module::new();
    let ty = Type::tensor([2, 2], ElemType::F32);
    let (func, block) =
        module.add_function("main", FunctionType { inputs: vec![ty.clone()], results: vec![ty.clone()] });
    let x = module.args(block)[0];
    let floats = vec![1.0e-7, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 8.0, f32::MAX];
    let large: Vec<f32> = (0..40).map(|i| i as f32 / 3.0).collect();
    for data in [
        TensorData::F32(floats),
        TensorData::F32(large.clone()),
        TensorData::F32(large),
        TensorData::F32(vec![0.5; 100]),
        TensorData::I1((0..20).map(|i| i % 3 == 0).collect()),
        TensorData::I8((-60..60).collect()),
        TensorData::I16(vec![i16::MIN, i16::MAX]),
        TensorData::I32((0..17).collect()),
        TensorData::I48((0..17).map(|i| i << 40).collect()),
        TensorData::I64(vec![i64::MIN, i64::MAX]),
        TensorData::Index(vec![1, 2, 3]),
        TensorData::I8(vec![]),
    ] {
        module.append_const(block, Tensor::new(vec![data.len()], data), Location::named("a \"name\"\n"));
    }
    module.append_const(block, Tensor::new(vec![], TensorData::I8(vec![3])), Location::at("f", 1, 2));
    module.append_const(block, Tensor::i8(vec![2, 1, 2], vec![1, 2, 3, 4]), Location::unknown());
    let a = serde_json::json!([1, 2.5, null, {"odd key": "é\\\""}]);
    let extra = serde_json::json!({"a": a, "b": {}, "c": -3, "d": true, "e": null});
    let phase = module.append(
        block,
        Phase { plan: Attribute::from_serde(&extra).expect("JSON") },
        &[],
        &[ty.clone(), ty.clone()],
        Location::in_file("p", "m.onnx", 3, 0),
    );
    let region = module.add_region(phase);
    let inner = module.add_block(region, &[]);
    let stage = module.append(
        inner,
        Stage { name: "s".to_owned(), code: Attribute::Unit },
        &[x],
        std::slice::from_ref(&ty),
        Location::unknown(),
    );
    let region = module.add_region(stage);
    let body = module.add_block(region, std::slice::from_ref(&ty));
    let y = module.args(body)[0];
    module.append(body, Yield {}, &[y], &[], Location::unknown());
    let staged = module.result(stage);
    module.append(inner, Yield {}, &[staged, x], &[], Location::unknown());
    let second = module.op(phase).results()[1];
    let end = module.append(block, FuncReturn {}, &[second], &[], Location::unknown());
    let attrs = [
        ("i8", Attribute::Int(-3, ElemType::I8)),
        ("f32", Attribute::Float(f64::from(0.1f32), Some(ElemType::F32))),
        ("inf", Attribute::Float(f64::INFINITY, None)),
        ("arrays", Attribute::Array(vec![Attribute::I32Array(vec![]), Attribute::I64Array(vec![-1, 2])])),
        ("type", Attribute::Type(Type::Shape(3))),
        ("elem", Attribute::Elem(ElemType::I48)),
        ("fn", Attribute::Function(FunctionType { inputs: vec![ty.clone()], results: vec![] })),
        ("enum", Attribute::Enum("tosa.nan_mode".to_owned(), "IGNORE".to_owned())),
    ];
    module.op_mut(end).extra = attrs.into_iter().map(|(name, value)| (format!("x.{name}"), value)).collect();
    let perm = Attribute::Dict([("strata.perm".to_owned(), Attribute::I64Array(vec![1, 0]))].into());
    if let Op::Func(func) = &mut module.op_mut(func).op {
        func.arg_attrs = Some(Attribute::Array(vec![perm]));
    }
    module
}

#[test]
fn everything_that_prints_parses() {
    let module = assorted();
    round_trip(&module);
    insta::assert_snapshot!(to_string(&module));
}

proptest! {
    #[test]
    fn random_networks_round_trip(seed: u64) {
        round_trip(&random_network(seed, &RandomOptions::default()));
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = parse(&text, None);
    }

    #[test]
    fn no_damage_panics(
        at in 0usize..4000,
        with in prop::collection::vec("[ -~]|[{}<>()]|é", 0..4),
        cut in 0usize..8,
    ) {
        let whole = to_string(&assorted());
        let from = whole.floor_char_boundary(at.min(whole.len()));
        let to = whole.ceil_char_boundary((from + cut).min(whole.len()));
        let text = format!("{}{}{}", &whole[..from], with.concat(), &whole[to..]);
        if let Ok(module) = parse(&text, None) {
            let _ = verify(&module);
            round_trip(&module);
        }
    }
}

#[test]
fn what_tosa_opt_prints_parses() {
    let text = r##"#loc1 = loc("a.mlir":3:8)
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%arg0: tensor<2xf32> loc("a.mlir":3:8)):
    %0 = "tosa.const"() <{values = dense<"0x0000803F00000040"> : tensor<2xf32>}>
        : () -> tensor<2xf32> loc(#loc2)
    %1 = "tosa.maximum"(%0, %arg0) <{nan_mode = #tosa.nan_mode<PROPAGATE>}> {s.d = [1, 2.500000e+00]}
        : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32> loc(#loc4)
    %2 = "tosa.reverse"(%1) {axis = 0 : i32}
        : (tensor<2xf32>) -> tensor<2xf32> loc(fused<"x">["a", "b"(#loc1)])
    "func.return"(%2) : (tensor<2xf32>) -> () loc(#loc1)
  }) : () -> () loc(#loc)
}) : () -> () loc(#loc)
#loc = loc(unknown)
#loc2 = loc("const")
#loc3 = loc("m.onnx":12:0)
#loc4 = loc("conv\221"(#loc3))
"##;
    let module = parse(text, None).expect("it parses");
    verify(&module).expect("it verifies");
    insta::assert_snapshot!(to_string(&module));
    round_trip(&module);
}

/// However long the names of layers are.
#[test]
fn lines_are_short() {
    let layer = "a/rather/long/name/of/a/layer/as/exporters/write/them/".repeat(2);
    let ty = "tensor<1x64x64x128xf32>";
    let operands = ["%x"; 4].join(", ");
    let arguments: Vec<String> = (0..4).map(|n| format!("%y{n}: {ty}")).collect();
    let types = [ty; 4].join(", ");
    let text = format!(
        "\"func.func\"() <{{sym_name = \"main\", function_type = ({ty}) -> {ty}}}> ({{ ^bb0(%x: {ty}): \
         %0 = \"strata.stage\"({operands}) <{{name = \"{layer}\"}}> ({{ ^bb0({}): \
         %1 = \"tosa.add\"(%y0, %y1) : ({ty}, {ty}) -> {ty} loc(\"{layer}\") \
         \"strata.yield\"(%1) : ({ty}) -> () }}) : ({types}) -> {ty} loc(\"{layer}\") \
         \"func.return\"(%0) : ({ty}) -> () }}) : () -> ()",
        arguments.join(", ")
    );
    let module = parse(&text, None).expect("a module");
    round_trip(&module);
    let printed = to_string(&module);
    assert!(printed.contains("strata.stage"), "{printed}");
    let longest = printed.lines().map(str::len).max();
    assert!(longest.is_some_and(|n| n <= 200), "{printed}");
}

/// Handles are hashes of what they name.
#[test]
fn damaged_side_files_are_refused() {
    let module = assorted();
    let options = PrintOptions { resources: ResourcePlacement::SideFile, ..PrintOptions::default() };
    let mut printed = print(&module, &options);
    let blob = &mut printed.resources[0].1;
    let mut bytes = blob.bytes().into_owned();
    bytes[3] ^= 0x10;
    *blob = bytes.into();
    let side = Resources::from_bytes(to_bytes(&printed.resources)).expect("a side file reads");
    let errors = parse(&printed.text, Some(&side)).expect_err("it is damaged").to_string();
    assert!(errors.contains("is not what its name is the hash of"), "{errors}");
}
