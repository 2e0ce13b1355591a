// RUN: verify
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>, %y: tensor<1x2x5x4xf32>):
    // expected-error@below {{[E0302]}}
    %0 = "tosa.add"(%x, %y) : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    // expected-error@below {{[E0302]}}
    %1 = "tosa.concat"(%x, %y) <{axis = 3 : i32}> : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x8xf32>
    "func.return"(%x) : (tensor<1x2x3x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
