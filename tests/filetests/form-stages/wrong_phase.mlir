// RUN: form-stages
// expected-error@unknown {{takes quant, the module is at import}}
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    %0 = "tosa.add"(%x, %x) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    "func.return"(%0) : (tensor<1x2x3x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
