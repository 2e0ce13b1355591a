"""The order in which a file has its nodes changes no plan: networks with branches, with their nodes shuffled."""

import json
import random

import onnx
from harness import Check, demand, scratch, strata, trained, zoo

# Networks of the zoo with branches, at their sizes, and trained ones.
NETWORKS = {
    "squeezenet": lambda: zoo("squeezenet", "224x224"),
    "inception-v3": lambda: zoo("inception-v3", "299x299"),
    "yolov8n": lambda: zoo("yolov8n", "320x320"),
    "hrnet-w18-small": lambda: zoo("hrnet-w18-small", "224x224"),
    "picodet_layout": lambda: trained("picodet_layout"),
}
N_ORDERS = 4
# A plan of another order may take so much more or less.
TOLERANCE = 0.005


def shuffled(network, seed, folder):
    """The network's file with its nodes in another topological order."""
    model, choose = onnx.load(network.path), random.Random(seed)
    nodes = list(model.graph.node)
    maker = {name: at for at, node in enumerate(nodes) for name in node.output}
    waits = [{maker[name] for name in node.input if name in maker} for node in nodes]
    order, left = [], list(range(len(nodes)))
    while left:
        at = choose.choice([at for at in left if not waits[at]])
        left.remove(at)
        order.append(nodes[at])
        for others in waits:
            others.discard(at)
    del model.graph.node[:]
    model.graph.node.extend(order)
    path = folder / f"{seed}.onnx"
    onnx.save(model, path)
    return path


def planned(network, path, folder):
    stats = folder / "stats.json"
    small = ["--set", "memory.activation=512KiB"]
    flags = ["--no-measure", "--stats", stats, "--quiet", *small, *network.shape_flags()]
    strata("compile", path, "-o", folder / "x.strata", *flags)
    plan = json.loads(stats.read_text(encoding="utf-8"))["plan"]
    return plan["cycles"], plan["dram_bytes"]["total"]


def same_plans(network):
    folder = scratch("orders")
    cycles, moved = planned(network, network.path, folder)
    worst = 0
    for seed in range(N_ORDERS):
        other, other_moved = planned(network, shuffled(network, seed, folder), folder)
        off = abs(other / cycles - 1)
        demand(off <= TOLERANCE, f"order {seed} takes {other} cycles and {other_moved} bytes, not {cycles} and {moved}")
        worst = max(worst, off)
    return f"{N_ORDERS} orders, cycles differ by {100 * worst:.2f} % at most"


CHECKS = [Check(f"orders/{name}", lambda make=make: same_plans(make())) for name, make in NETWORKS.items()]
