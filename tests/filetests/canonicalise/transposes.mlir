// RUN: canonicalise
// One that undoes another leaves nothing; others become one.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<1x4x3x2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    %0 = "tosa.transpose"(%x) <{perms = array<i32: 0, 3, 1, 2>}> : (tensor<1x2x3x4xf32>) -> tensor<1x4x2x3xf32>
    %1 = "tosa.transpose"(%0) <{perms = array<i32: 0, 2, 3, 1>}> : (tensor<1x4x2x3xf32>) -> tensor<1x2x3x4xf32>
    %2 = "tosa.transpose"(%1) <{perms = array<i32: 0, 3, 1, 2>}> : (tensor<1x2x3x4xf32>) -> tensor<1x4x2x3xf32>
    %3 = "tosa.transpose"(%2) <{perms = array<i32: 0, 1, 3, 2>}> : (tensor<1x4x2x3xf32>) -> tensor<1x4x3x2xf32>
    "func.return"(%3) : (tensor<1x4x3x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
