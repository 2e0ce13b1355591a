"""What the host runs of ONNX models: every row of its table, on ONNX's vectors and on random nodes, through `run` and
through `compile` and `run`."""

import collections
import functools
import pathlib
import re
import tempfile

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

import operators
from harness import ROOT, SCRATCH, STRATA, Check, Failed, call, last_words, real_inputs, write_inputs
from vectors import DATA, DECLINED, Vector, difference, node_vectors

# What the import takes of operators that the host ran before, or that no machine has a form of.
IMPORTED = ["GRU", "GlobalLpPool", "GridSample", "LSTM", "LpNormalization", "RNN"]
# Decibels that an output of the machine has to reach.
LEAST = 20.0
# Types that can be hidden: those that the host's `Gather` and `Reshape` are verified for.
HIDDEN = {numpy.dtype(name) for name in ["float32", "int32", "int64", "bool"]}


@functools.cache
def table():
    """The operators that may be handed to the host."""
    page = (ROOT / "docs/generated/onnx.md").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"^\| `(\w+)` \|", page.split("## On the host")[1], re.MULTILINE)))


def opset(model):
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def can_hide(array):
    return array.dtype in HIDDEN and array.size > 0 and (array.dtype.kind != "f" or numpy.isfinite(array).all())


def hide(vector):
    """The vector with inputs whose shapes depend on the data, so that the host runs all nodes; None if that cannot be.

    Each input is gathered by the indices of a mask that is all true.
    """
    model = onnx.ModelProto()
    model.CopyFrom(vector.model)
    graph, version = model.graph, opset(model)
    ports = real_inputs(graph)
    if not ports or not all(can_hide(array) for array in vector.inputs):
        return None
    if version < 9:
        # `NonZero` is of operator set 9; those of the table that are older have not changed since.
        version = 13
        for entry in model.opset_import:
            entry.version = version
    before, arrays = [], []
    for at, (port, array) in enumerate(zip(ports, vector.inputs)):
        name = f"hidden{at}"
        for node in graph.node:
            for place, operand in enumerate(node.input):
                if operand == port.name:
                    node.input[place] = name
        constants = {"flat": [-1], "shape": list(array.shape), "first": [0]}
        graph.initializer.extend(
            numpy_helper.from_array(numpy.array(values, numpy.int64), f"{name}_{what}")
            for what, values in constants.items()
        )
        graph.input.append(helper.make_tensor_value_info(f"{name}_mask", TensorProto.BOOL, [array.size]))
        squeeze = {"axes": [0]} if version < 13 else {}
        operands = [f"{name}_places"] + ([] if version < 13 else [f"{name}_first"])
        before += [
            helper.make_node("Reshape", [port.name, f"{name}_flat"], [f"{name}_row"]),
            helper.make_node("NonZero", [f"{name}_mask"], [f"{name}_places"]),
            helper.make_node("Squeeze", operands, [f"{name}_indices"], **squeeze),
            helper.make_node("Gather", [f"{name}_row", f"{name}_indices"], [f"{name}_taken"], axis=0),
            helper.make_node("Reshape", [f"{name}_taken", f"{name}_shape"], [name]),
        ]
        arrays.append(numpy.ones(array.size, bool))
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return Vector(model, [*vector.inputs, *arrays], vector.outputs, vector.relative, vector.absolute)


def beside_convolution(vector):
    """The vector with a convolution beside it, which the machine runs."""
    model = onnx.ModelProto()
    model.CopyFrom(vector.model)
    picture = numpy.linspace(-1, 1, 32, dtype=numpy.float32).reshape(1, 2, 4, 4)
    weight = numpy.eye(2, dtype=numpy.float32).reshape(2, 2, 1, 1)
    model.graph.input.append(helper.make_tensor_value_info("picture", TensorProto.FLOAT, picture.shape))
    model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, picture.shape))
    model.graph.initializer.append(numpy_helper.from_array(weight, "identity"))
    model.graph.node.append(helper.make_node("Conv", ["picture", "identity"], ["same"]))
    return Vector(model, [*vector.inputs, picture], [*vector.outputs, picture], vector.relative, vector.absolute)


def outputs(folder, vector, file):
    """The outputs of a run, by position; None if it is declined."""
    ports = real_inputs(vector.model.graph)
    flags = write_inputs(folder, {port.name: array for port, array in zip(ports, vector.inputs)})
    done = call([STRATA, "run", file, "--quiet", "--output-dir", folder / "out", *flags])
    if done.returncode == DECLINED:
        return None
    if done.returncode != 0:
        raise Failed(f"run: exit {done.returncode}: {last_words(done)}")
    return [numpy.load(folder / "out" / f"{port.name}.npy") for port in vector.model.graph.output]


def decibels(got, want):
    """The signal-to-noise ratio of an output."""
    noise = float(((got.astype(float) - want.astype(float)) ** 2).sum())
    return numpy.inf if noise == 0 else 10 * numpy.log10(float((want.astype(float) ** 2).sum()) / noise)


def judge(vector, exact):
    """Whether a vector is right both ways; None if it is declined both ways. `exact`: nothing of it is in integers."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        folder = pathlib.Path(name)
        onnx.save(vector.model, folder / "model.onnx")
        found = outputs(folder, vector, folder / "model.onnx")
        for at, (got, want) in enumerate(zip(found or [], vector.outputs)):
            if problem := difference(got, want, vector):
                raise Failed(f"run: output {at}: {problem}")
        if any(array.dtype.kind == "f" and not numpy.isfinite(array).all() for array in vector.inputs):
            # Nothing can be calibrated on it.
            return found is not None
        whole = beside_convolution(vector)
        onnx.save(whole.model, folder / "whole.onnx")
        ports = real_inputs(whole.model.graph)
        numpy.savez(folder / "sample.npz", **{port.name: a for port, a in zip(ports, whole.inputs)})
        flags = ["--calibrate", folder / "sample.npz", "-o", folder / "whole.strata", "--quiet"]
        done = call([STRATA, "compile", folder / "whole.onnx", *flags])
        if (done.returncode == DECLINED) != (found is None):
            raise Failed(f"compile: exit {done.returncode}, run: {'declined' if found is None else 'right'}")
        if found is None:
            return None
        if done.returncode != 0:
            raise Failed(f"compile: exit {done.returncode}: {last_words(done)}")
        compiled = outputs(folder, whole, folder / "whole.strata")
        for at, (got, want) in enumerate(zip(compiled, vector.outputs)):
            if exact or want.dtype.kind != "f":
                problem = difference(got, want, vector)
            else:
                ratio = decibels(got, want)
                problem = None if ratio >= LEAST else f"{ratio:.1f} dB"
            if problem:
                raise Failed(f"compiled: output {at}: {problem}")
        return True


def tell(counts, problems):
    told = f"{counts['right']} right, {counts['declined']} declined, each through run and through compile and run"
    if problems:
        raise Failed("\n    ".join([told, *problems]))
    return told


def single_nodes(names):
    """The vectors of models that are one node of these operators, by name."""
    mistaken = {line.split()[0] for line in (ROOT / "tests/suites/onnx/mistaken.txt").read_text("utf-8").splitlines()}
    for path in sorted((DATA / "node").glob("*/model.onnx")):
        graph = onnx.load(path).graph
        ports = [*graph.input, *graph.output]
        is_one = len(graph.node) == 1 and graph.node[0].op_type in names and graph.node[0].domain == ""
        if is_one and path.parent.name not in mistaken and all(port.type.HasField("tensor_type") for port in ports):
            for vector in node_vectors(path.parent):
                yield path.parent.name, graph.node[0].op_type, vector


def rows():
    """Every vector of an operator of the table, as the host runs it."""
    counts, problems, verified = collections.Counter(), [], set()
    for name, operator, vector in single_nodes(table()):
        hidden = hide(vector)
        if hidden is None:
            continue
        try:
            right = judge(hidden, exact=True)
        except Failed as reason:
            problems.append(f"{name}: {reason}")
            continue
        counts["right" if right else "declined"] += 1
        verified |= {operator} if right else set()
    # No vector casts between the types that the host casts between: random nodes do.
    problems += [f"nothing verifies the row {name}" for name in table() if name not in verified | {"Cast"}]
    return tell(counts, problems)


def imported():
    """Every vector of operators that the import takes and the machine may not."""
    counts, problems = collections.Counter(), []
    for name, _, vector in single_nodes(IMPORTED):
        try:
            counts["right" if judge(vector, exact=False) else "declined"] += 1
        except Failed as reason:
            problems.append(f"{name}: {reason}")
    return tell(counts, problems)


def drawn(family, operator):
    """Random nodes of an operator as the host runs them, against onnxruntime."""
    counts, problems = collections.Counter(), []
    for seed in range(operators.CASES // 4):
        model, x = family(operators.Case(sum(map(ord, operator)) * 1000 + seed), operator)
        wants = operators.judged(model, x)
        hidden = wants and hide(Vector(model, [x], wants, 1e-4, operators.TOLERANCE))
        if not hidden:
            continue
        try:
            counts["right" if judge(hidden, exact=True) else "declined"] += 1
        except Failed as reason:
            problems.append(f"seed {seed}: {reason}")
    return tell(counts, problems)


def cast(case, operator):
    numbers = case.floats(case.shape(case.random.randint(1, 3))) * 5
    x = numbers.astype(case.draw(numpy.float32, numpy.int32, numpy.int64, numpy.bool_))
    to = case.draw(TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
    return case.model(operator, ["x"], x, to=to)


CHECKS = [Check("host/vectors", rows), Check("host/imported", imported)]
CHECKS += [
    Check(f"host/random/{name}", functools.partial(drawn, family, name))
    for family, names in {**operators.FAMILIES, cast: ["Cast"]}.items()
    for name in names
    if name in table()
]
