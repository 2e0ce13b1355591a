//! Errors with their places; round trips are in `tests/text.rs`.

use super::*;

fn errors(text: &str) -> String {
    match parse(text, None) {
        Ok(_) => "parses".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

fn in_function(body: &str) -> String {
    format!(
        "\"builtin.module\"() ({{\n\"func.func\"() <{{function_type = (tensor<4xf32>) -> (), sym_name = \"f\"}}> ({{\n\
         ^bb0(%x: tensor<4xf32>):\n{body}\n}}) : () -> ()\n}}) : () -> ()\n"
    )
}

#[test]
fn an_unknown_op_is_named_with_its_place_and_a_suggestion() {
    let text = in_function("%0 = \"tosa.abz\"(%x) : (tensor<4xf32>) -> tensor<4xf32>");
    let found = parse(&text, None).expect_err("no such op");
    assert_eq!(found.to_string(), "4:6: unknown operation `tosa.abz` [E0102]");
    assert_eq!(found.0[0].help.as_deref(), Some("did you mean `tosa.abs`?"));
    let far = in_function("\"tosa.variable\"() : () -> ()");
    assert_eq!(errors(&far), "4:1: unknown operation `tosa.variable` [E0102]");
}

#[test]
fn independent_errors_are_all_found() {
    let text = in_function(
        "%0 = \"tosa.abs\"(%y) : (tensor<4xf32>) -> tensor<4xf32>\n\
         %0 = \"tosa.reverse\"(%x) <{axis = 0 : i64}> : (tensor<4xf32>) -> tensor<4xf32>\n\
         %1 = \"tosa.abs\"(%x) <{axes = 0 : i32}> : (tensor<5xf32>) -> tensor<4xf32>",
    );
    assert_eq!(
        errors(&text),
        "4:17: %y is not defined before its use [E0104]\n\
         5:6: attribute `axis` of `tosa.reverse`: expected i32, found an integer [E0103]\n\
         5:1: %0 is defined twice [E0105]\n\
         6:17: the value has type tensor<4xf32>, the signature says tensor<5xf32> [E0106]\n\
         6:6: `tosa.abs` has no property `axes` [E0103]"
    );
}

#[test]
fn values_of_other_functions_are_not_visible() {
    let function = |name: &str, value: &str| {
        format!(
            "\"func.func\"() <{{function_type = () -> (), sym_name = \"{name}\"}}> ({{ {value} \
             \"func.return\"() : () -> () }}) : () -> ()\n"
        )
    };
    let constant = "%0 = \"tosa.const\"() <{values = dense<1> : tensor<1xi8>}> : () -> tensor<1xi8>";
    let used = "%1 = \"tosa.abs\"(%0) : (tensor<1xi8>) -> tensor<1xi8>";
    assert_eq!(errors(&(function("f", constant) + &function("g", constant))), "parses");
    assert!(errors(&(function("f", constant) + &function("g", used))).contains("E0104"));
}

#[test]
fn bad_constants_are_errors() {
    let cases = [
        ("dense<[1, 2, 3]> : tensor<2xi8>", "E0107"),
        ("dense<[[1], [2, 3]]> : tensor<2x1xi8>", "E0107"),
        ("dense<300> : tensor<2xi8>", "E0107"),
        ("dense<1> : tensor<2xf32>", "E0107"),
        ("dense<0> : tensor<1000000000x1000xi8>", "E0109"),
        ("dense<0> : tensor<99999999999x99999999999x99999999999xi8>", "E0109"),
        ("dense<0> : tensor<99999999999999999999999xi8>", "E0109"),
        ("dense<\"0x01020\"> : tensor<2xi8>", "E0107"),
        ("dense<0> : tensor<?xi8>", "E0101"),
        ("dense<0> : tensor<2xui7>", "E0101"),
        ("dense_resource<w> : tensor<2xi8>", "E0108"),
    ];
    for (values, code) in cases {
        let text =
            in_function(&format!("%0 = \"tosa.const\"() <{{values = {values}}}> : () -> tensor<2xi8>"));
        assert!(errors(&text).contains(code), "{values}: {}", errors(&text));
    }
}

#[test]
fn a_blob_must_fill_its_type() {
    let constant = in_function(
        "%0 = \"tosa.const\"() <{values = dense_resource<w> : tensor<2xi8>}> : () -> tensor<2xi8>",
    );
    let with = |blob: &str| {
        errors(&format!("{constant}{{-# dialect_resources: {{ builtin: {{ w: {blob} }} }} #-}}"))
    };
    assert_eq!(with("\"0x010000000708\""), "parses");
    assert!(
        with("\"0x0100000007\"").contains("takes 2 bytes, resource `w` has 1"),
        "{}",
        with("\"0x0100000007\"")
    );
    assert!(with("\"0x0100\"").contains("the blob of `w` is not"), "{}", with("\"0x0100\""));
    assert!(with("\"zz\"").contains("the blob of `w` is not"));
    let mut side = Resources::new();
    side.insert("w", vec![1, 2]);
    assert!(parse(&constant, Some(&side)).is_ok());
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{a = ", "}")] {
        let deep = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        let text = in_function(&format!("\"func.return\"() {{a = {deep}}} : () -> ()"));
        assert!(errors(&text).contains("E0109"));
    }
    let regions = "\"strata.phase\"() ({ ".repeat(10_000);
    assert!(errors(&in_function(&regions)).contains("E0109"));
    let lists = format!("dense<{}", "[".repeat(100_000));
    assert!(errors(&in_function(&format!("\"f\"() {{a = {lists}}}"))).contains("E0109"));
}

#[test]
fn many_errors_end_the_parse() {
    let text = in_function(&"\"no.such\"() : () -> ()\n".repeat(1000));
    let errors = parse(&text, None).expect_err("nothing there is known").0;
    assert_eq!(errors.len(), MAX_ERRORS + 1);
}

#[test]
fn every_prefix_ends_in_an_error() {
    let text = in_function(
        "%0 = \"tosa.abs\"(%x) {s = \"é\\22\"} : (tensor<4xf32>) -> tensor<4xf32> loc(\"a\"(\"f\":1:2))",
    );
    let whole = text.trim_end();
    assert_eq!(errors(whole), "parses");
    for (at, _) in whole.char_indices().skip(1) {
        assert_ne!(errors(&whole[..at]), "parses", "{}", &whole[..at]);
    }
}
