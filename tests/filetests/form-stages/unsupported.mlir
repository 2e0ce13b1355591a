// RUN: form-stages
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x2xi8>, tensor<1x3xi32>) -> tensor<1x3x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x2xi8>, %i: tensor<1x3xi32>):
    // expected-error@below {{tosa.gather}}
    %0 = "tosa.gather"(%x, %i) : (tensor<1x4x2xi8>, tensor<1x3xi32>) -> tensor<1x3x2xi8>
    "func.return"(%0) : (tensor<1x3x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
