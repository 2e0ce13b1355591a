//! Each class of error: a text that parses, and all that the verifier says of it.

use super::*;
use crate::attr::FunctionType;
use crate::dialect::{Abs, FuncReturn, Phase, Yield};
use crate::module::Location;
use crate::text::parse;
use crate::types::ElemType;

const T: &str = "tensor<4xf32>";

/// `body` in a function `@f` of one argument `%x`, a `tensor<4xf32>` that it returns the like of.
fn function(body: &str) -> String {
    format!(
        "\"func.func\"() <{{function_type = ({T}) -> {T}, sym_name = \"f\"}}> ({{ ^bb0(%x: {T}): {body} }}) \
            : () -> ()"
    )
}

fn errors(text: &str) -> String {
    let module = parse(text, None).expect("the text parses");
    match verify(&module) {
        Ok(()) => "verifies".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

const RETURN: &str = "\"func.return\"(%x) : (tensor<4xf32>) -> ()";

#[test]
fn a_good_module_verifies() {
    let stage = format!(
        "%0 = \"strata.phase\"() ({{ %1 = \"strata.stage\"(%x) <{{name = \"s\"}}> ({{ ^bb0(%y: {T}): \
         %2 = \"tosa.abs\"(%y) : ({T}) -> {T} \"strata.yield\"(%2) : ({T}) -> () }}) : ({T}) -> {T} \
         \"strata.yield\"(%1) : ({T}) -> () }}) : () -> {T} \"func.return\"(%0) : ({T}) -> ()"
    );
    assert_eq!(errors(&function(&stage)), "verifies");
    assert_eq!(verify(&Module::new()), Ok(()));
}

#[test]
fn all_errors_are_found_in_order() {
    let body = format!(
        "%0 = \"tosa.abs\"(%x) : ({T}) -> tensor<5xf32> loc(\"a node\"(\"m.onnx\":3:0)) \
         %1 = \"tosa.add\"(%x) : ({T}) -> {T} \
         %2 = \"tosa.logical_not\"(%x) : ({T}) -> {T} \"func.return\"(%0) : (tensor<5xf32>) -> ()"
    );
    assert_eq!(
        errors(&function(&body)),
        "\"func.return\"(%a_node) in @f: returns tensor<5xf32>, the function's type gives tensor<4xf32> \
         [E0205]\n\
         `a node` (m.onnx:3): %a_node = \"tosa.abs\"(%arg0) in @f: the result type is tensor<5xf32>, it must \
         be tensor<4xf32> [E0303]\n\
         %add = \"tosa.add\"(%arg0) in @f: `tosa.add` has 2 operands, found 1 [E0201]\n\
         %logical_not = \"tosa.logical_not\"(%arg0) in @f: `tosa.logical_not`: operand 0 (input1) must be \
         of i1, found tensor<4xf32> [E0301]"
    );
}

#[test]
fn functions_agree_with_their_types() {
    let wrong_args = "\"func.func\"() <{function_type = () -> (), sym_name = \"f\", arg_attrs = [{}]}> ({ \
                      ^bb0(%x: tensor<4xf32>): \"func.return\"() : () -> () }) : () -> ()";
    assert_eq!(
        errors(wrong_args),
        "\"func.func\"() @f: the type takes (), the block has tensor<4xf32> [E0205]\n\
         \"func.func\"() @f: arg_attrs must be an array of 0 dictionaries [E0205]"
    );
    let twice = format!("{}{}", function(RETURN), function(RETURN));
    assert_eq!(errors(&twice), "\"func.func\"() @f: two functions are called @f [E0205]");
    let empty = "\"func.func\"() <{function_type = () -> (), sym_name = \"f\"}> ({ }) : () -> ()";
    assert_eq!(errors(empty), "\"func.func\"() @f: the region must have one block, it has 0 [E0201]");
}

#[test]
fn terminators_end_blocks_and_ops_stand_where_they_must() {
    let early = format!("{RETURN} {RETURN}");
    assert_eq!(
        errors(&function(&early)),
        "\"func.return\"(%arg0) in @f: `func.return` must end its block [E0204]"
    );
    let none = format!("%0 = \"tosa.abs\"(%x) : ({T}) -> {T}");
    assert_eq!(errors(&function(&none)), "\"func.func\"() @f: the block must end in `func.return` [E0204]");
    let misplaced = format!("\"strata.yield\"(%x) : ({T}) -> ()");
    assert_eq!(
        errors(&function(&misplaced)),
        "\"func.func\"() @f: the block must end in `func.return` [E0204]\n\
         \"strata.yield\"(%arg0) in @f: `strata.yield` must stand in a stage or a phase [E0202]"
    );
    let outside = "%0 = \"tosa.const\"() <{values = dense<1> : tensor<1xi8>}> : () -> tensor<1xi8>";
    assert_eq!(
        errors(outside),
        "%const = \"tosa.const\"(): `tosa.const` must stand in a function, a phase or a stage [E0202]"
    );
}

#[test]
fn stages_capture_nothing_and_mirror_their_operands() {
    let stage = |operand: &str, arg: &str, body: &str, result: &str| {
        let text = format!(
            "%c = \"tosa.const\"() <{{values = dense<1.0> : {T}}}> : () -> {T} \
             %0 = \"strata.stage\"({operand}) <{{name = \"s\"}}> ({{ ^bb0(%y: {arg}): {body} }}) : ({T}) -> \
                 {result} {RETURN}"
        );
        errors(&function(&text))
    };
    let yields = |value: &str| format!("\"strata.yield\"({value}) : ({T}) -> ()");
    assert_eq!(stage("%x", T, &yields("%y"), T), "verifies");
    assert_eq!(
        stage("%x", T, &yields("%x"), T),
        "\"strata.yield\"(%arg0) in @f: operand 0 is captured from outside a region that may capture \
            nothing [E0203]"
    );
    assert_eq!(
        stage("%x", "tensor<3xf32>", "\"strata.yield\"(%y) : (tensor<3xf32>) -> ()", T),
        "%s = \"strata.stage\"(%arg0) in @f: the operands are tensor<4xf32>, the block has tensor<3xf32> \
            [E0206]\n\
         \"strata.yield\"(%s_in) in @f: yields tensor<3xf32>, `strata.stage` gives tensor<4xf32> [E0206]"
    );
    assert_eq!(
        stage("%c", T, &yields("%y"), T),
        "%s = \"strata.stage\"(%inputs) in @f: operand 0 is a constant [E0206]"
    );
}

#[test]
fn constants_and_empty_tensors() {
    let empty = "%1 = \"tosa.const\"() <{values = dense<> : tensor<0xi8>}> : () -> tensor<0xi8>";
    let body = format!(
        "%0 = \"tosa.mul\"(%x, %x, %x) : ({T}, {T}, {T}) -> {T} {empty} \
         %2 = \"tosa.identity\"(%1) : (tensor<0xi8>) -> tensor<0xi8> {RETURN}"
    );
    let found = errors(&function(&body));
    assert!(found.contains("operand 2 (shift) must be of i8"), "{found}");
    // A constant may be empty, what is computed may not.
    assert!(
        found.contains("tosa.identity\"(%input1) in @f: tensor<0xi8> is empty or too large [E0302]"),
        "{found}"
    );
    assert!(!found.contains("tosa.const"), "{found}");
}

/// What a constant holds is not what its result says.
#[test]
fn constants_that_hold_too_little_are_found() {
    let body = format!(
        "%1 = \"tosa.const\"() <{{values = dense<> : tensor<0xi8>}}> : () -> tensor<1xi8> \
         %2 = \"tosa.mul\"(%x, %x, %1) : ({T}, {T}, tensor<1xi8>) -> {T} \
         %3 = \"tosa.negate\"(%x, %1, %1) : ({T}, tensor<1xi8>, tensor<1xi8>) -> {T} {RETURN}"
    );
    let found = errors(&function(&body));
    assert!(found.contains("(shift) holds 0 elements, not 1 [E0302]"), "{found}");
}

#[test]
fn uses_before_definitions_are_found() {
    let mut module = Module::new();
    let ty = Type::tensor([4], ElemType::F32);
    let (_, block) =
        module.add_function("f", FunctionType { inputs: vec![ty.clone()], results: vec![ty.clone()] });
    let x = module.args(block)[0];
    let first = module.append(block, Abs {}, &[x], std::slice::from_ref(&ty), Location::unknown());
    let second = module.append(block, Abs {}, &[x], std::slice::from_ref(&ty), Location::unknown());
    let gone = module.append(block, Abs {}, &[x], std::slice::from_ref(&ty), Location::unknown());
    let late = module.result(second);
    module.set_operand(first, 0, late);
    let phase = module.append(block, Phase { plan: crate::Attribute::Unit }, &[], &[], Location::unknown());
    let region = module.add_region(phase);
    let inner = module.add_block(region, &[]);
    let hidden = module.append(inner, Abs {}, &[x], &[ty], Location::unknown());
    module.append(inner, Yield {}, &[], &[], Location::unknown());
    let hidden = module.result(hidden);
    let erased = module.result(gone);
    module.append(block, FuncReturn {}, &[hidden], &[], Location::unknown());
    module.set_operand(second, 0, erased);
    module.erase(gone);
    let undefined = "operand 0 is not defined before its use in an enclosing block [E0203]";
    let want = [
        format!("%abs = \"tosa.abs\"(%abs_1) in @f: {undefined}"),
        format!("%abs_1 = \"tosa.abs\"(%undefined) in @f: {undefined}"),
        format!("\"func.return\"(%abs_2) in @f: {undefined}"),
    ];
    assert_eq!(verify(&module).expect_err("three values out of scope").to_string(), want.join("\n"));
}
