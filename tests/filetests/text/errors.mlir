// RUN: round-trip
// Independent errors are all found, each where it is.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %0 = "tosa.abz"(%x) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8> // expected-error {{unknown operation `tosa.abz` [E0102]}}
    // expected-error@below {{%y is not defined before its use [E0104]}}
    %1 = "tosa.abs"(%y) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    // expected-error@below {{expected i32, found an integer [E0103]}}
    %2 = "tosa.reverse"(%x) <{axis = 0 : i64}> : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    // expected-error@below {{the signature says tensor<5xi8> [E0106]}}
    %3 = "tosa.identity"(%x) : (tensor<5xi8>) -> tensor<1x4x4x2xi8>
    "func.return"(%x) : (tensor<1x4x4x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
