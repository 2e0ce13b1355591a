// RUN: verify
// Operand types, arity and inferred result types.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    // expected-error@below {{the result type is tensor<5xf32>, it must be tensor<1x2x3x4xf32> [E0303]}}
    %0 = "tosa.abs"(%x) : (tensor<1x2x3x4xf32>) -> tensor<5xf32>
    // expected-error@below {{`tosa.add` has 2 operands, found 1 [E0201]}}
    %1 = "tosa.add"(%x) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    // expected-error@below {{operand 0 (input1) must be of i1, found tensor<1x2x3x4xf32> [E0301]}}
    %2 = "tosa.logical_not"(%x) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    "func.return"(%x) : (tensor<1x2x3x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
