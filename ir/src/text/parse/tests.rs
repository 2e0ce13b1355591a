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
        "\"builtin.module\"() ({{\n\"func.func\"() <{{function_type = (tensor<4xf32>) -> (), sym_name = \
            \"f\"}}> ({{\n\
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

/// The same module in the generic form and in the form that `tosa-opt` prints.
#[test]
fn both_forms_are_read_as_the_same_module() {
    let pretty = "#loc1 = loc(\"pool\")
        module @net attributes {strata.level = \"quant\"} {
          func.func private @\"main\"(%arg0: tensor<1x4x4x1xi8> {strata.name = \"x\"} loc(\"x\"), %arg1: \
              tensor<1xi8>) -> (tensor<1x2x2x1xi8> {strata.name = \"y\"}, tensor<1xi8>) attributes \
              {strata.note = 1 : i32} {
            %0 = tosa.max_pool2d %arg0 {kernel = array<i64: 2, 2>, nan_mode = IGNORE,
                pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 2, 2>}
                : (tensor<1x4x4x1xi8>) -> tensor<1x2x2x1xi8> loc(#loc1)
            %1 = tosa.const_shape  {values = dense<[1, 2, 2, 1]> : tensor<4xindex>} : () -> !tosa.shape<4>
            %2 = tosa.reshape %0, %1 : (tensor<1x2x2x1xi8>, !tosa.shape<4>) -> tensor<1x2x2x1xi8>
            return %2, %arg1 : tensor<1x2x2x1xi8>, tensor<1xi8>
          }
        }";
    let generic = "\"builtin.module\"() ({
        \"func.func\"() <{sym_name = \"main\", function_type = (tensor<1x4x4x1xi8>, tensor<1xi8>) -> \
            (tensor<1x2x2x1xi8>, tensor<1xi8>), arg_attrs = [{strata.name = \"x\"}, {}], res_attrs = \
            [{strata.name = \"y\"}, {}]}> ({
          ^bb0(%a: tensor<1x4x4x1xi8>, %b: tensor<1xi8>):
            %0 = \"tosa.max_pool2d\"(%a) <{kernel = array<i64: 2, 2>, nan_mode = #tosa.nan_mode<IGNORE>, \
                pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 2, 2>}> : (tensor<1x4x4x1xi8>) -> \
                tensor<1x2x2x1xi8> loc(\"pool\")
            %1 = \"tosa.const_shape\"() <{values = dense<[1, 2, 2, 1]> : tensor<4xindex>}> : () -> \
                !tosa.shape<4>
            %2 = \"tosa.reshape\"(%0, %1) : (tensor<1x2x2x1xi8>, !tosa.shape<4>) -> tensor<1x2x2x1xi8>
            \"func.return\"(%2, %b) : (tensor<1x2x2x1xi8>, tensor<1xi8>) -> ()
        }) {strata.note = 1 : i32} : () -> ()
      }) {strata.level = \"quant\"} : () -> ()";
    let [pretty, generic] = [pretty, generic].map(|text| parse(text, None).expect("it parses"));
    assert_eq!(crate::text::to_string(&pretty), crate::text::to_string(&generic));
    crate::verify::verify(&pretty).expect("it verifies");
}

#[test]
fn errors_in_the_own_form_have_places() {
    let in_function = |body: &str| format!("func.func @f(%x: tensor<4xi8>) {{\n{body}\nreturn\n}}");
    let cases = [
        ("%0 = tosa.abz %x : (tensor<4xi8>) -> tensor<4xi8>", "2:6: unknown operation `tosa.abz` [E0102]"),
        (
            "%0 = tosa.abs %y : (tensor<4xi8>) -> tensor<4xi8>",
            "2:15: %y is not defined before its use [E0104]",
        ),
        (
            "%0 = tosa.reverse %x {axis = FIRST} : (tensor<4xi8>) -> tensor<4xi8>",
            "2:30: `FIRST` begins no attribute that is known [E0101]",
        ),
        (
            "%0 = linalg.abs %x : (tensor<4xi8>) -> tensor<4xi8>",
            "2:6: `linalg.abs` has no short form that is read here [E0101]",
        ),
        (
            "%0 = tosa.abs %x : (tensor<5xi8>) -> tensor<4xi8>",
            "2:15: the value has type tensor<4xi8>, the signature says tensor<5xi8> [E0106]",
        ),
        ("return %x, : tensor<4xi8>", "2:12: expected a value, found `:` [E0101]"),
    ];
    for (body, want) in cases {
        assert_eq!(errors(&in_function(body)), want, "{body}");
    }
    assert_eq!(errors("module { module { } }"), "1:10: the module must be the only one, at the top [E0101]");
}
