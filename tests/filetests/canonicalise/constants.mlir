// RUN: canonicalise
// Equal constants merge, ops of constants fold, dead ops go; 0.0 and -0.0 are not equal.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    %a = "tosa.const"() <{values = dense<1.0> : tensor<1x1x1x1xf32>}> : () -> tensor<1x1x1x1xf32>
    %b = "tosa.const"() <{values = dense<1.0> : tensor<1x1x1x1xf32>}> : () -> tensor<1x1x1x1xf32>
    %z = "tosa.const"() <{values = dense<0.0> : tensor<1x1x1x1xf32>}> : () -> tensor<1x1x1x1xf32>
    %n = "tosa.const"() <{values = dense<-0.0> : tensor<1x1x1x1xf32>}> : () -> tensor<1x1x1x1xf32>
    %two = "tosa.add"(%a, %b) : (tensor<1x1x1x1xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x1x1xf32>
    %dead = "tosa.sub"(%x, %a) : (tensor<1x2x3x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x2x3x4xf32>
    %0 = "tosa.add"(%x, %two) : (tensor<1x2x3x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x2x3x4xf32>
    %1 = "tosa.maximum"(%0, %z) : (tensor<1x2x3x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x2x3x4xf32>
    %2 = "tosa.maximum"(%1, %n) : (tensor<1x2x3x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x2x3x4xf32>
    "func.return"(%2) : (tensor<1x2x3x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
