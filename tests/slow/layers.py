"""What `inspect` says of every layer is what a compile says of the whole, and what the nodes of the model say for themselves.

The multiply-accumulates of each node are counted here from the shapes that onnx infers, which shares nothing with
Strata's own count.
"""

import json
import math

import onnx
from harness import ZOO, demand, over_networks, scratch, strata


def inspected(path, flags=()):
    return json.loads(strata("inspect", path, "--format", "json", *flags).stdout)


def rows(shown):
    return [layer for part in shown["parts"] for layer in part["layers"]]


def by_node(shown):
    """Multiply-accumulates by the node of the model that the first op of a row comes from."""
    macs = {}
    for row in rows(shown):
        if row["macs"]:
            node = row["ops"][0]["node"]
            macs[node] = macs.get(node, 0) + row["macs"]
    return macs


def counted(path, flags):
    """Multiply-accumulates of the convolutions of a file whose shapes onnx can infer, by node."""
    model = onnx.load(path)
    given = dict(flag.rsplit("=", 1) for flag in flags if "=" in flag)
    for value in model.graph.input:
        if value.name in given:
            dims = value.type.tensor_type.shape.dim
            for dim, extent in zip(dims, given[value.name].split("x"), strict=True):
                dim.dim_value = int(extent)
    # Declared shapes of all but the inputs are often stale.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        extents = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if extents and min(extents) > 0:
            shapes[value.name] = extents
    shapes.update({tensor.name: list(tensor.dims) for tensor in graph.initializer})
    macs = {}
    for node in graph.node:
        known = all(name in shapes for name in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv" and known:
            macs[node.name or node.output[0]] = math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    return macs


def agree(network):
    folder = scratch("layers")
    flags = network.shape_flags()
    bundle, stats = folder / "x.strata", folder / "x.json"
    # Rewrites and column strips compute the same by more multiply-accumulates, where that is quicker.
    plain = ["--mode", "single", "--egraph-rules", "none"]
    strata("compile", network.path, "-o", bundle, "--stats", stats, "--quiet", *plain, *flags)
    told = json.loads(stats.read_text())["model"]["macs_direct"]
    model, program = inspected(network.path, flags), inspected(bundle)
    machine = program["totals"]["macs"] - program["totals"]["host_macs"]
    demand(machine == told, f"the program's layers add up to {machine} MACs, statistics say {told}")
    # The machine computes some elementwise ops by a depthwise convolution, which the model does not.
    ours, stages = by_node(model), by_node(program)
    for name, macs in ours.items():
        found = stages.get(name)
        demand(found == macs, f"`{name}` has {macs} MACs in the model, {found} in the program")
    theirs = counted(network.path, flags)
    for name, macs in theirs.items():
        demand(ours.get(name) == macs, f"`{name}` has {macs} MACs by onnx's shapes, {ours.get(name)} by ours")
    return f"{len(rows(model))} layers, {len(rows(program))} stages, {len(theirs)} counted from onnx's shapes"


CHECKS = over_networks("layers", ZOO, agree)
