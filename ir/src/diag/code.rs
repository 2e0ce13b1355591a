//! The codes of this crate: `E01xx` text, `E02xx` structure, `E03xx` types and values.
//!
//! A row holds what a code means, a text that has this error, and what to do about it; `strata explain` shows
//! them.

crate::codes! {
    /// The text does not follow the grammar of MLIR's generic form.
    SYNTAX = "E0101", "syntax" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.negate"(%x : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Compare the line with a dump of `strata compile --dump-levels`; what a tool wrote in its own \
               form, `mlir-opt --mlir-print-op-generic` writes in the generic one.",
    }
    /// No op has this name. The op set is closed; the generated reference lists it.
    UNKNOWN_OP = "E0102", "unknown-op" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.frobnicate"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Look the op up in docs/generated/ops.md; ops of other dialects are lowered to `tosa` before \
               Strata reads them.",
    }
    /// An inherent attribute is missing, unknown, or of another kind than the op's row says.
    BAD_ATTRIBUTE = "E0103", "bad-attribute" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<4xf32> {
  %0 = "tosa.concat"(%x, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}"#,
        help: "Give each attribute that the op's row of docs/generated/ops.md names, here \
               `<{axis = 0 : i32}>`; attributes of your own have a dot in their name.",
    }
    /// A value is used that is not defined before its use, in this block or one that encloses it.
    UNDEFINED_VALUE = "E0104", "undefined-value" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.add"(%x, %y) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Define the value earlier, or mend its name. `%undefined` in a text that Strata printed is the \
               use of a value that a pass erased.",
    }
    /// A value's or a block's name is defined twice where both are visible.
    REDEFINED = "E0105", "redefined" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.add"(%x, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  %0 = "tosa.add"(%0, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Give one of the two another name.",
    }
    /// The type in an op's signature is not the type that its operand has.
    TYPE_MISMATCH = "E0106", "type-mismatch" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.exp"(%x) : (tensor<3xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Write the type with which the operand is defined; if that is the wrong one, mend it there.",
    }
    /// A constant's data does not fit its type: wrong count, shape or range.
    BAD_CONSTANT = "E0107", "bad-constant" {
        example: r#"func.func @main() -> tensor<2xf32> {
  %0 = "tosa.const"() <{values = dense<[1.0, 2.0, 3.0]> : tensor<2xf32>}> : () -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Give as many elements as the type has, nested as its shape says, or one for all of them; a \
               blob has the bytes of all elements.",
    }
    /// A `dense_resource` has no blob in the text and none in the side file.
    MISSING_RESOURCE = "E0108", "missing-resource" {
        example: r#"func.func @main() -> tensor<2xf32> {
  %0 = "tosa.const"() <{values = dense_resource<w> : tensor<2xf32>}> : () -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Keep the side file beside the text: NAME.resources beside NAME.mlir, or constants.resources \
               in a folder of dumps. A text that was printed without its constants has none: write it again \
               with `-o FILE` or --inline-constants.",
    }
    /// The text nests deeper, or describes more data, than this program reads.
    LIMIT = "E0109", "limit" {
        example: r#"func.func @main() -> tensor<99999x9999xf32> {
  %0 = "tosa.const"() <{values = dense<0.0> : tensor<99999x9999xf32>}> : () -> tensor<99999x9999xf32>
  return %0 : tensor<99999x9999xf32>
}"#,
        help: "Make the tensor smaller; regions and attributes that nest this deep are hardly meant.",
    }
    /// The op does not take this many operands, results or regions.
    ARITY = "E0201", "arity" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.add"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Give the operands that the op's row of docs/generated/ops.md names, in that order.",
    }
    /// The op does not stand where it must: functions in the module, a yield at the end of a stage, and
    /// so on.
    MISPLACED = "E0202", "misplaced" {
        example: r#""builtin.module"() ({
  %0 = "tosa.const"() <{values = dense<1.0> : tensor<2xf32>}> : () -> tensor<2xf32>
}) : () -> ()"#,
        help: "Move it: ops into a function, functions into the module, stages into a function or a phase.",
    }
    /// An operand is defined after its use, in another block that does not enclose it, or was erased.
    DOMINANCE = "E0203", "dominance" {
        example: r#""builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "strata.stage"(%x) <{name = "s"}> ({
    ^bb0(%y: tensor<2xf32>):
      %1 = "tosa.identity"(%x) : (tensor<2xf32>) -> tensor<2xf32>
      "strata.yield"(%1) : (tensor<2xf32>) -> ()
    }) : (tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()"#,
        help: "Inside a stage use the arguments of its block, here `%y`: functions and stages see nothing of \
               what is around them. After a pass it is a defect of the pass.",
    }
    /// A block has no terminator at its end, or has one before its end.
    TERMINATOR = "E0204", "terminator" {
        example: r#""builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "tosa.exp"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  }) : () -> ()
}) : () -> ()"#,
        help: "End a function with `func.return` and a stage or a phase with `strata.yield`, and put nothing \
               behind it.",
    }
    /// A function's type does not agree with its arguments, its return, or its attributes; or two
    /// functions have one name.
    FUNCTION = "E0205", "function" {
        example: r#"func.func @main(%x: tensor<2xf32>, %y: tensor<3xf32>) -> tensor<2xf32> {
  return %y : tensor<3xf32>
}"#,
        help: "Let the function's type name the types of its arguments and of what it returns, in order.",
    }
    /// A stage's or a phase's region does not agree with the op.
    STAGE = "E0206", "stage" {
        example: r#""builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32>):
    %k = "tosa.const"() <{values = dense<1.0> : tensor<2xf32>}> : () -> tensor<2xf32>
    %0 = "strata.stage"(%k) <{name = "s"}> ({
    ^bb0(%y: tensor<2xf32>):
      %1 = "tosa.exp"(%y) : (tensor<2xf32>) -> tensor<2xf32>
      "strata.yield"(%1) : (tensor<2xf32>) -> ()
    }) : (tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()"#,
        help: "Give the block an argument of the same type for each operand, yield what the op gives, and \
               have constants inside the region, not as operands.",
    }
    /// An operand's type is none that the op takes.
    OPERAND_TYPE = "E0301", "operand-type" {
        example: r#"func.func @main(%x: tensor<2xi8>) -> tensor<2xi8> {
  %0 = "tosa.exp"(%x) : (tensor<2xi8>) -> tensor<2xi8>
  return %0 : tensor<2xi8>
}"#,
        help: "Cast or rescale the operand first; docs/generated/ops.md says what the op takes.",
    }
    /// The operands' shapes do not fit together or the attributes.
    SHAPE = "E0302", "shape" {
        example: r#"func.func @main(%x: tensor<2xf32>, %y: tensor<3xf32>) -> tensor<2xf32> {
  %0 = "tosa.add"(%x, %y) : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Elementwise operands have one rank, and equal extents but for those of 1; other ops say in \
               docs/generated/ops.md what fits.",
    }
    /// The declared result type is not the one that follows from the operands.
    RESULT_TYPE = "E0303", "result-type" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<3xf32> {
  %0 = "tosa.exp"(%x) : (tensor<2xf32>) -> tensor<3xf32>
  return %0 : tensor<3xf32>
}"#,
        help: "Write the type that the message names, or mend the operand or attribute that it follows from.",
    }
    /// An operand that must be a constant is not one.
    NOT_CONSTANT = "E0304", "not-constant" {
        example: r#"func.func @main(%x: tensor<2xi8>, %s: tensor<1xi8>) -> tensor<2xi32> {
  %0 = "tosa.mul"(%x, %x, %s) : (tensor<2xi8>, tensor<2xi8>, tensor<1xi8>) -> tensor<2xi32>
  return %0 : tensor<2xi32>
}"#,
        help: "Let a `tosa.const` give the operand: zero points, shifts and shapes are fixed before anything \
               runs.",
    }
    /// A constant or an attribute has a value that the op does not take.
    VALUE_RANGE = "E0305", "value-range" {
        example: r#"func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "tosa.concat"(%x) <{axis = 5 : i32}> : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"#,
        help: "Give a value within what the message names.",
    }
}
