"""The graphs that exports have to show, found without Strata's exporters: of a program from its text, of a module by xDSL."""

import collections
import dataclasses
import importlib.util
import re
import sys

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.ir import BlockArgument
from xdsl.parser import Parser

from harness import TOOLS, demand, strata

LEVELS = ["import", "quant", "stages", "phases", "sched"]
CONSTANTS = {"tosa.const", "tosa.const_shape"}
WRAPPERS = {"strata.phase", "strata.stage"}


@dataclasses.dataclass
class Expected:
    """Nodes in order, each with the number of groups that it stands in; edges as pairs of numbers of nodes."""

    depths: list[int | None]
    edges: collections.Counter


def kind(op):
    """The name of an op, whether or not xDSL knows it."""
    return op.op_name.data if op.name == "builtin.unregistered" else op.name


def body_of(text):
    """The body of the one function of a module in the generic form."""
    context = Context(allow_unregistered=True)
    context.load_dialect(Builtin)
    module = Parser(context, text).parse_module()
    [function] = [op for op in module.body.block.ops if kind(op) == "func.func"]
    return function.regions[0].block


def ops_of(text):
    """Of the one function of a module in the generic form how many ops of each name there are, without constants and returns:
    those that stand in the function itself, and those that compute, wherever they stand."""
    block = body_of(text)
    left_out = CONSTANTS | {"func.return"}
    outer = collections.Counter(kind(op) for op in block.ops if kind(op) not in left_out)
    left_out |= WRAPPERS | {"strata.yield"}
    return outer, collections.Counter(kind(op) for op in block.walk() if kind(op) not in left_out)


def of_module(text):
    """The graph of the one function of a module in the generic form."""
    body = body_of(text)
    number = {argument: at for at, argument in enumerate(body.args)}
    graph = Expected([None] * len(number), collections.Counter())
    visit(body, 0, number, graph)
    return graph


def visit(block, depth, number, graph):
    for op in block.ops:
        if kind(op) in WRAPPERS:
            inner = op.regions[0].block
            number |= {to: number[of] for to, of in zip(inner.args, op.operands) if of in number}
            visit(inner, depth + 1, number, graph)
            number |= {to: number[of] for to, of in zip(op.results, inner.last_op.operands) if of in number}
        elif kind(op) not in CONSTANTS and kind(op) != "strata.yield":
            at = len(graph.depths)
            # What is in no stage may be in scopes of its layer's name.
            graph.depths.append(depth or None)
            graph.edges.update((number[of], at) for of in op.operands if of in number)
            number |= dict.fromkeys(op.results, at)
    assert all(isinstance(argument, BlockArgument) for argument in block.args)


View = collections.namedtuple("View", "stream row rows col cols ch chs")
VIEW = re.compile(r"s(\d+)\[(\d+)\+(\d+),(\d+)\+(\d+),(\d+)\+(\d+)\]")


def views(line):
    return [View(*map(int, found)) for found in VIEW.findall(line)]


def meet(a, b):
    overlaps = [a[at] < b[at] + b[at + 1] and b[at] < a[at] + a[at + 1] for at in (1, 3, 5)]
    return a.stream == b.stream and all(overlaps)


def of_program(path):
    """The graph of the one program of a bundle, from its text."""
    segments, prefixes, streams = {}, {}, 0
    stages = []
    phase = -1
    for line in strata("disasm", path).stdout.splitlines():
        words = line.split()
        fields = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        match words[:1]:
            case ["segment"] if fields["kind"] != "weights":
                segments[int(fields["segment"])] = len(segments)
            case ["stream"]:
                streams += 1
            case ["prefix"]:
                prefixes[streams - 1] = int(fields["prefix"]), int(fields["rows"])
            case ["phase"]:
                phase += 1
            case ["stage"]:
                stages.append({"phase": phase, "out": views(fields["out"])[0], "reads": [], "from": None, "to": None})
            case [mnemonic] if stages and line.startswith("    "):
                stages[-1]["reads"] += views(line)
                if mnemonic in ("dma_in", "dma_out"):
                    stages[-1]["from" if mnemonic == "dma_in" else "to"] = segments.get(int(fields["segment"]))

    def parts(view):
        stream, end = view.stream, view.row + view.rows
        while True:
            prefix, first = prefixes.get(stream, (None, 0))
            row = max(first, view.row)
            if row < end:
                yield view._replace(stream=stream, row=row, rows=end - row)
                end = row
            if prefix is None:
                return
            stream = prefix

    first = len(segments)
    graph = Expected([None] * first + [1] * len(stages), collections.Counter())
    edges = set()
    for at, stage in enumerate(stages):
        for view in stage["reads"]:
            needed = list(parts(view))
            for before, writer in enumerate(stages):
                written = list(parts(writer["out"])) if writer["out"].rows else []
                if writer["phase"] <= stage["phase"] and any(meet(a, b) for a in needed for b in written):
                    edges.add((first + before, first + at, view.stream, view.rows, view.cols, view.chs))
        if stage["from"] is not None:
            edges.add((stage["from"], first + at))
        if stage["to"] is not None:
            edges.add((first + at, stage["to"]))
    graph.edges.update(edge[:2] for edge in edges)
    return graph


def model_explorer():
    """The module with Model Explorer's own classes, without what its package needs beside; None if it is not there."""
    found = next((TOOLS.parent / "lib").glob("python*/site-packages/model_explorer/graph_builder.py"), None)
    if found is None:
        return None
    spec = importlib.util.spec_from_file_location("graph_builder", found)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its classes look up the types of their fields there
    spec.loader.exec_module(module)
    return module


def demand_groups(graph, depths, what):
    """That nodes stand as deep in groups as expected, where that is known."""
    for at, (want, got) in enumerate(zip(graph.depths, depths, strict=True)):
        demand(want in (None, got), f"{what}: node {at} is in {got} groups, expected {want}")


def demand_like(graph, nodes, edges, what):
    """That there are as many nodes as expected, and edges lead from where to where they should."""
    demand(nodes == len(graph.depths), f"{what}: {nodes} nodes, expected {len(graph.depths)}")
    wrong = (edges - graph.edges) | (graph.edges - edges)
    demand(not wrong, f"{what}: {len(wrong)} edges are wrong or missing, such as {next(iter(wrong), None)}")
