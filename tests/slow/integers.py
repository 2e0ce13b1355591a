"""Random networks of whole numbers, compiled on noise and run on inputs of all their type holds.

A whole number is exact whatever the data: results equal those of ONNX's reference evaluator, or the network is declined.
"""

import functools
import pathlib
import random
import tempfile

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from harness import SCRATCH, STRATA, Check, Failed, call, last_words, write_inputs
from vectors import DECLINED

# Networks of each type, of which at least half have to be compiled.
NETWORKS = 200
TYPES = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
    "int16": TensorProto.INT16,
    "bool": TensorProto.BOOL,
}
ARITHMETIC = ["Add", "Sub", "Mul", "Max", "Min"]
COMPARISONS = ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]
LOGIC = ["And", "Or", "Xor"]
SHAPE = (1, 3, 4, 5)


class Network:
    """A network that is drawn layer by layer. `pool` holds the values so far by their type."""

    def __init__(self, seed, dtype):
        self.random = random.Random(seed)
        self.numbers = numpy.random.default_rng(seed)
        self.dtype = dtype
        self.nodes, self.constants = [], []
        self.inputs = [f"x{at}" for at in range(self.random.randint(1, 2))]
        self.pool = {dtype: list(self.inputs), "bool": list(self.inputs) if dtype == "bool" else []}

    def data(self, shape):
        """An array of anything that the type holds."""
        if self.dtype == "bool":
            return self.numbers.random(shape) < 0.5
        limits = numpy.iinfo(self.dtype)
        array = self.numbers.integers(limits.min, limits.max, shape, dtype=self.dtype, endpoint=True)
        # Some small numbers, as most data has them.
        small = self.numbers.integers(max(limits.min, -3), 3, shape).astype(self.dtype)
        return numpy.where(self.numbers.random(shape) < 0.3, small, array)

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(array), name))
        return name

    def value(self, dtype):
        """A value so far, or a constant of its type: of its shape, or one number."""
        pool = self.pool[dtype]
        if dtype == self.dtype and self.random.random() < 0.4:
            return self.constant(self.data(self.random.choice([SHAPE, (1, 1, 1, 1), (1, 3, 1, 1)])))
        return self.random.choice(pool)

    def add(self, op, operands, dtype, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [name], name=f"{op}_{name}", **attributes))
        self.pool[dtype].append(name)

    def slice(self, value, start, end):
        """Columns of a value, which are not in the pool."""
        ends = [self.constant(numpy.array([n], dtype=numpy.int64)) for n in (start, end, 3)]
        self.add("Slice", [value, *ends], self.dtype)
        return self.pool[self.dtype].pop()

    def layer(self):
        """Adds a node."""
        statements, own = self.pool["bool"], self.dtype
        kinds = ["logic"] if own == "bool" else ["arithmetic", "arithmetic", "compare", "move", "extreme"]
        kinds += ["logic", "not"] if statements else []
        kinds += ["choose"] if statements and own != "bool" else []
        kind = self.random.choice(kinds)
        first = self.random.choice(self.pool[own])
        if kind == "arithmetic":
            self.add(self.random.choice(ARITHMETIC), [first, self.value(own)], own)
        elif kind == "compare":
            self.add(self.random.choice(COMPARISONS), [first, self.value(own)], "bool")
        elif kind == "logic":
            self.add(self.random.choice(LOGIC), [self.random.choice(statements), self.value("bool")], "bool")
        elif kind == "not":
            self.add("Not", [self.random.choice(statements)], "bool")
        elif kind == "choose":
            self.add("Where", [self.random.choice(statements), first, self.value(own)], own)
        elif kind == "move":
            part = self.slice(first, 2, 3)
            self.add("Concat", [first, part], own, axis=3)
            joined = self.pool[own].pop()
            self.pool[own].append(self.slice(joined, 1, 1 + SHAPE[3]))
        elif kind == "extreme":
            bounds = sorted(int(bound) for bound in self.data(2))
            self.add("Clip", [first, *(self.constant(numpy.array(b, dtype=own)) for b in bounds)], own)

    def model(self):
        for _ in range(self.random.randint(1, 5)):
            self.layer()
        used = {name for node in self.nodes for name in node.input}
        ends = [(name, t) for t, pool in self.pool.items() for name in pool if name not in used and name not in self.inputs]
        port = lambda name, dtype: helper.make_tensor_value_info(name, TYPES[dtype], None)
        given = [helper.make_tensor_value_info(name, TYPES[self.dtype], SHAPE) for name in self.inputs]
        outputs = [port(name, dtype) for name, dtype in dict.fromkeys(ends)]
        graph = helper.make_graph(self.nodes, "integers", given, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def tried(seed, dtype):
    """Whether a network was compiled; fails if it is wrong."""
    network = Network(seed, dtype)
    model = network.model()
    inputs = {name: network.data(SHAPE) for name in network.inputs}
    due = ReferenceEvaluator(model).run(None, inputs)
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        folder = pathlib.Path(name)
        onnx.save(model, folder / "model.onnx")
        bundle = folder / "x.strata"
        done = call([STRATA, "compile", folder / "model.onnx", "-o", bundle, "--no-measure", "--quiet"])
        if done.returncode == DECLINED:
            return False
        where = f"{dtype}, seed {seed}, {' '.join(node.op_type for node in model.graph.node)}"
        if done.returncode != 0:
            raise Failed(f"{where}: exit {done.returncode}: {last_words(done)}")
        done = call([STRATA, "run", bundle, "--quiet", "--output-dir", folder, *write_inputs(folder, inputs)])
        if done.returncode != 0:
            raise Failed(f"{where}: run: exit {done.returncode}: {last_words(done)}")
        for port, array in zip(model.graph.output, due):
            got = numpy.load(folder / f"{port.name}.npy")
            if got.dtype != array.dtype or got.shape != array.shape:
                raise Failed(f"{where}: {port.name} is {got.dtype}{got.shape}, not {array.dtype}{array.shape}")
            if (got != array).any():
                raise Failed(f"{where}: {(got != array).sum()} of {array.size} elements of {port.name} are wrong")
    return True


def check(dtype):
    compiled, wrong = 0, []
    for seed in range(NETWORKS):
        try:
            compiled += tried(seed, dtype)
        except Failed as reason:
            wrong.append(str(reason))
    if wrong:
        raise Failed(f"{len(wrong)} of {NETWORKS} are wrong:\n    " + "\n    ".join(wrong))
    if 2 * compiled < NETWORKS:
        raise Failed(f"only {compiled} of {NETWORKS} are compiled")
    return f"{compiled} networks are exact, {NETWORKS - compiled} declined"


CHECKS = [Check(f"integers/{dtype}", functools.partial(check, dtype)) for dtype in TYPES]
