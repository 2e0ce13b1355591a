// RUN: round-trip
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    // expected-error@below {{[E0107]}}
    %0 = "tosa.const"() <{values = dense<300> : tensor<2xi8>}> : () -> tensor<2xi8>
    "func.return"(%x) : (tensor<1x4x4x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
