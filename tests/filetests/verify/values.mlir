// RUN: verify
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    // expected-error@below {{[E0305]}}
    %0 = "tosa.transpose"(%x) <{perms = array<i32: 0, 0, 1, 2>}> : (tensor<1x2x3x4xf32>) -> tensor<1x1x2x3xf32>
    // expected-error@below {{has no axis 4 [E0305]}}
    %1 = "tosa.reverse"(%x) <{axis = 4 : i32}> : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    "func.return"(%x) : (tensor<1x2x3x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
