"""Whether onnxruntime computes what a module of integers does, layer by layer and as a whole.

Floats round otherwise than integers where a result lies next to the middle of two steps, and what is one step off in one layer
is more in later ones. So each layer is looked at by itself: all layers run at once, each on what the evaluator computes for
the layers before it.
"""

import re

import numpy
import onnx
import onnxruntime

from harness import demand, scratch, strata, write_inputs

#: Ops of a module whose results of 8 or 16 bits are made by a QuantizeLinear.
QUANTISED = "rescale|clamp|max_pool2d|avg_pool2d|maximum|minimum|select|abs"
RESULT = re.compile(rf"\n    (%\S+) = tosa\.({QUANTISED}|table)\s(?:(?!\n    %)(?:.|\n))*?-> (tensor<(?:\d+x)*i\d+>)(?=\n| loc)")


def runtime(model):
    options = onnxruntime.SessionOptions()
    # Its fused integer kernels saturate sums of pairs of products where the processor has no other instruction.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_strata(path, inputs, *flags):
    folder = scratch("onnx")
    named = write_inputs(folder, {str(at): array for at, array in enumerate(inputs)})
    strata("run", path, "--quiet", "--output-dir", folder, *flags, *named)
    return [numpy.load(found) for found in sorted(folder.glob("[0-9]*.npy"), key=lambda found: int(found.stem))]


def all_results(text):
    """A module whose function returns what each op makes of 8 or 16 bits, and how many these are."""
    text, trailer, blobs = text.partition("\n{-#")
    body = text.partition("\n  func.func @host")[0]
    found = [match.group(1, 3) for match in RESULT.finditer(body) if re.search(r"xi(8|16)>$", match[3])]
    types = ", ".join(kind for _, kind in found)
    body = re.sub(r"\)\s*-> \((?:.|\n)*?\)\s*\{\n", lambda _: f") -> ({types}) {{\n", body, count=1)
    body = re.sub(r"\n    return (?:.|\n)*", lambda _: f"\n    return {', '.join(name for name, _ in found)} : {types}\n  }}\n}}\n", body)
    return body + trailer + blobs, len(found)


def with_layers_apart(model):
    """The model with what each layer quantises as an output, and given to the others by an input; the names of these."""
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    graph = apart.graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    produced = {name for node in graph.node for name in node.output}
    layers = []
    for node in graph.node:
        is_table = node.op_type == "Gather" and constants.get(node.input[0]) == onnx.TensorProto.INT8
        if node.op_type == "QuantizeLinear" and node.input[0] in produced or is_table:
            kind = constants[node.input[2]] if node.op_type == "QuantizeLinear" else onnx.TensorProto.INT8
            layers.append((node.output[0], kind))
    for node in graph.node:
        renamed = [f"{name} given" if any(name == layer for layer, _ in layers) else name for name in node.input]
        del node.input[:]
        node.input.extend(renamed)
    for layer, kind in layers:
        graph.output.append(onnx.helper.make_tensor_value_info(layer, kind, None))
        graph.input.append(onnx.helper.make_tensor_value_info(f"{layer} given", kind, None))
    return apart, [layer for layer, _ in layers]


def shapes(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in inferred.graph.value_info}


def in_order(array, shape):
    """Arrays of the module's order that may be what a tensor of this shape holds: as it is, and channels second."""
    orders = [array]
    if array.ndim == 4:
        orders.append(array.transpose(0, 3, 1, 2))
    return [numpy.ascontiguousarray(order) for order in orders if list(order.shape) == shape]


def by_layers(model, text, inputs):
    """The share of elements of all layers that are a step off; more than a step is a failure."""
    every, count = all_results(text)
    path = scratch("onnx") / "layers.mlir"
    path.write_text(every, encoding="utf-8")
    wants = run_strata(path, inputs)
    apart, layers = with_layers_apart(model)
    demand(len(layers) == count == len(wants), f"ONNX quantises {len(layers)} results, the module has {count}")
    of = shapes(model)
    given = {port.name: array for port, array in zip(model.graph.input, inputs)}
    choices = {layer: in_order(want, of[layer]) for layer, want in zip(layers, wants)}
    demand(all(choices.values()), "a layer is of another shape")
    # Where rows, columns and channels are as many, the first layer's order is that of all: channels second.
    given |= {f"{layer} given": orders[-1] for layer, orders in choices.items()}
    gots = runtime(apart).run(layers, given)
    off = elements = 0
    for layer, got in zip(layers, gots):
        steps = numpy.abs(got.astype(numpy.int64) - choices[layer][-1].astype(numpy.int64))
        demand(steps.max() <= 1, f"{layer}: {int((steps > 1).sum())} of {steps.size} elements are {steps.max()} steps off at most")
        off += int((steps > 0).sum())
        elements += steps.size
    return off, elements


def decibels(want, got):
    noise = float(numpy.square(want.astype(numpy.float64) - got).sum())
    return 10 * numpy.log10(float(numpy.square(want.astype(numpy.float64)).sum()) / noise) if noise else numpy.inf
