"""Single operators at random shapes and attributes, against onnxruntime: the right answer, or declined."""

import functools
import pathlib
import random
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from harness import SCRATCH, STRATA, Check, Failed, call, last_words, write_inputs

CASES = 40
DECLINED = 3
OPSET = 19
# Of the largest magnitude of an output.
TOLERANCE = 2e-5


class Case:
    """A model of one operator under construction, drawn from a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.numbers = numpy.random.default_rng(seed)
        self.constants = []

    def shape(self, rank, least=1, most=7):
        return [self.random.randint(least, most) for _ in range(rank)]

    def draw(self, *choices):
        return self.random.choice(choices)

    def floats(self, shape):
        return self.numbers.standard_normal(shape).astype(numpy.float32)

    def constant(self, array):
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(array), name))
        return name

    def int64s(self, values):
        return self.constant(numpy.array(values, numpy.int64))

    def model(self, operator, inputs, x, n_outputs=1, **attributes):
        outputs = [f"y{at}" for at in range(n_outputs)]
        node = helper.make_node(operator, inputs, outputs, **attributes)
        elem = helper.np_dtype_to_tensor_dtype(x.dtype)
        graph = helper.make_graph(
            [node],
            operator,
            [helper.make_tensor_value_info("x", elem, x.shape)],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
            self.constants,
        )
        for port in graph.output:
            port.ClearField("type")
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model), x


def window(case, n):
    """Attributes of a window over `n` axes."""
    kernel = case.shape(n, 1, 3)
    attributes = {"kernel_shape": kernel, "strides": case.shape(n, 1, 3)}
    padding = case.draw("none", "pads", "auto")
    if padding == "pads":
        attributes["pads"] = [case.random.randint(0, k - 1) for k in kernel * 2]
    elif padding == "auto":
        attributes["auto_pad"] = case.draw("SAME_UPPER", "SAME_LOWER", "VALID")
        # Where the kernel is smaller than the step, onnxruntime's operators differ from each other.
        attributes["strides"] = [min(pair) for pair in zip(kernel, attributes["strides"])]
    return attributes


def convolution(case, operator):
    n = case.random.randint(1, 3)
    group, c_in, c_out = case.draw(1, 1, 2, 3), case.random.randint(1, 3), case.random.randint(1, 3)
    attributes = window(case, n) | {"group": group}
    if "auto_pad" not in attributes:
        attributes["dilations"] = case.shape(n, 1, 2)
    x = case.floats([case.draw(1, 2), c_in * group, *case.shape(n, 5, 9)])
    channels = [c_out * group, c_in] if operator == "Conv" else [c_in * group, c_out]
    weight = case.constant(case.floats([*channels, *attributes["kernel_shape"]]))
    bias = case.constant(case.floats([c_out * group]))
    if operator == "ConvTranspose" and case.draw(True, False):
        attributes["output_padding"] = [case.random.randint(0, s - 1) for s in attributes["strides"]]
    return case.model(operator, ["x", weight, bias], x, **attributes)


def pool(case, operator):
    n = case.random.randint(1, 3)
    attributes = window(case, n)
    n_outputs = 1
    if "auto_pad" not in attributes:
        # onnxruntime leaves the dilation out where it pads by itself.
        attributes["dilations"] = case.shape(n, 1, 2)
        attributes["ceil_mode"] = case.draw(0, 1)
    if operator == "AveragePool":
        attributes["count_include_pad"] = case.draw(0, 1)
    if operator == "LpPool":
        attributes["p"] = case.draw(1, 2, 3)
    if operator == "MaxPool":
        n_outputs = case.draw(1, 2)
        if n_outputs == 2:
            attributes["storage_order"] = case.draw(0, 1) if n == 2 else 0
    x = case.floats([case.draw(1, 2), case.random.randint(1, 3), *case.shape(n, 6, 9)])
    return case.model(operator, ["x"], x, n_outputs, **attributes)


def resize(case, operator):
    mode = case.draw("nearest", "linear", "cubic")
    x = case.floats([1, 2, *case.shape(2, 2, 8)])
    attributes = {
        "mode": mode,
        # onnxruntime's own reading of the other modes differs from ONNX's where extents are fractional.
        "coordinate_transformation_mode": case.draw("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"),
    }
    if mode == "nearest":
        attributes["nearest_mode"] = case.draw("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if mode == "cubic":
        attributes["exclude_outside"] = case.draw(0, 1)
        attributes["cubic_coeff_a"] = case.draw(-0.75, -0.5)
    empty = case.constant(numpy.zeros(0, numpy.float32))
    sizes = case.int64s([1, 2, *case.shape(2, 2, 12)])
    return case.model(operator, ["x", empty, empty, sizes], x, **attributes)


def move(case, operator):
    rank = case.random.randint(1, 5)
    x = case.floats(case.shape(rank, 1, 6))
    if operator == "Slice":
        axes = case.random.sample(range(rank), case.random.randint(1, rank))
        starts, ends = ([case.random.randint(-8, 8) for _ in axes] for _ in range(2))
        steps = [case.draw(1, 1, 2, 3, -1, -2) for _ in axes]
        return case.model(operator, ["x", *map(case.int64s, [starts, ends, axes, steps])], x)
    if operator == "Pad":
        mode = case.draw("constant", "edge", "reflect", "wrap")
        most = {"constant": 4, "edge": 4}.get(mode)
        pads = [case.random.randint(0, min(x.shape) - 1 if most is None else most) for _ in range(2 * rank)]
        return case.model(operator, ["x", case.int64s(pads)], x, mode=mode)
    if operator == "Transpose":
        return case.model(operator, ["x"], x, perm=case.random.sample(range(rank), rank))
    if operator == "Tile":
        return case.model(operator, ["x", case.int64s(case.shape(rank, 1, 3))], x)
    if operator == "Expand":
        shape = [case.draw(extent, 1) for extent in x.shape]
        x = case.floats([case.draw(extent, 1) for extent in x.shape])
        return case.model(operator, ["x", case.int64s(case.shape(case.draw(0, 1), 1, 3) + shape)], x)
    raise ValueError(operator)


def pick(case, operator):
    rank = case.random.randint(1, 4)
    x = case.floats(case.shape(rank, 1, 6))
    axis = case.random.randint(-rank, rank - 1)
    extent = x.shape[axis]
    if operator == "Gather":
        indices = case.numbers.integers(-extent, extent, case.shape(case.random.randint(0, 2), 1, 5))
        return case.model(operator, ["x", case.constant(indices)], x, axis=axis)
    if operator == "GatherElements":
        shape = [case.random.randint(1, e) for e in x.shape]
        shape[axis] = case.random.randint(1, 5)
        return case.model(operator, ["x", case.constant(case.numbers.integers(-extent, extent, shape))], x, axis=axis)
    if operator == "GatherND":
        depth = case.random.randint(1, rank)
        tuples = [case.numbers.integers(-e, e, 4) for e in x.shape[:depth]]
        return case.model(operator, ["x", case.constant(numpy.stack(tuples, -1))], x)
    if operator == "ScatterElements":
        shape = [case.random.randint(1, e) for e in x.shape]
        order = numpy.argsort(case.numbers.random([*x.shape]), axis=axis)
        indices = order[tuple(slice(e) for e in shape)]
        reduction = case.draw("none", "add", "mul", "max", "min")
        operands = ["x", case.constant(indices), case.constant(case.floats(shape))]
        return case.model(operator, operands, x, axis=axis, reduction=reduction)
    if operator == "ScatterND":
        reduction = case.draw("none", "add", "mul", "max", "min")
        rows = case.random.sample(range(x.shape[0]), case.random.randint(1, x.shape[0]))
        rows += rows[:1] if reduction != "none" else []
        updates = case.floats([len(rows), *x.shape[1:]])
        operands = ["x", case.int64s([[row] for row in rows]), case.constant(updates)]
        return case.model(operator, operands, x, reduction=reduction)
    if operator == "TopK":
        k = case.int64s([case.random.randint(1, extent)])
        x = x.round()
        return case.model(operator, ["x", k], x, 2, axis=axis, largest=case.draw(0, 1))
    if operator in ("ArgMax", "ArgMin"):
        attributes = {"keepdims": case.draw(0, 1), "select_last_index": case.draw(0, 1)}
        return case.model(operator, ["x"], x.round(), axis=axis, **attributes)
    if operator == "CumSum":
        attributes = {"exclusive": case.draw(0, 1), "reverse": case.draw(0, 1)}
        return case.model(operator, ["x", case.constant(numpy.int64(axis))], x, **attributes)
    raise ValueError(operator)


def reduce(case, operator):
    rank = case.random.randint(1, 5)
    x = case.floats(case.shape(rank, 1, 5))
    if operator == "ReduceLogSum":
        x = abs(x) + 0.1
    axes = case.random.sample(range(-rank, 0), case.random.randint(1, rank))
    keep = case.draw(0, 1)
    return case.model(operator, ["x", case.int64s(axes)], x, keepdims=keep)


def arithmetic(case, operator):
    dtype = case.draw(numpy.float32, numpy.int8, numpy.uint8, numpy.int32)
    shape = case.shape(case.random.randint(1, 4), 1, 4)
    other = [case.draw(e, 1) for e in shape][case.random.randint(0, len(shape) - 1) :]

    def numbers(shape, least):
        if dtype == numpy.float32:
            return case.floats(shape)
        info = numpy.iinfo(dtype)
        low, high = max(info.min, -1000, least), min(info.max, 1000)
        return case.numbers.integers(low, high, shape, dtype, endpoint=True)

    x = numbers(shape, -1000)
    divides = operator in ("Div", "Mod")
    return case.model(operator, ["x", case.constant(numbers(other, 1 if divides else -1000))], x)


def einsum(case, operator):
    letters = "abcde"
    extents = dict(zip(letters, case.shape(5, 1, 5)))
    left, right = (case.random.sample(letters, case.random.randint(1, 4)) for _ in range(2))
    known = sorted({*left, *right})
    out = case.random.sample(known, case.random.randint(1, min(4, len(known))))
    equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    x = case.floats([extents[i] for i in left])
    other = case.constant(case.floats([extents[i] for i in right]))
    return case.model(operator, ["x", other], x, equation=equation)


FAMILIES = {
    convolution: ["Conv", "ConvTranspose"],
    pool: ["MaxPool", "AveragePool", "LpPool"],
    resize: ["Resize"],
    move: ["Slice", "Pad", "Transpose", "Tile", "Expand"],
    pick: "Gather GatherElements GatherND ScatterElements ScatterND TopK ArgMax ArgMin CumSum".split(),
    reduce: [f"Reduce{name}" for name in "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare".split()],
    arithmetic: ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"],
    einsum: ["Einsum"],
}


def judged(model, x):
    """What onnxruntime makes of a model, or None if it takes none such."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})
    except Exception:  # onnxruntime has many kinds
        return None


def verdict(model, x, wants):
    """`passed`, `declined`, or what is wrong."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        folder = pathlib.Path(name)
        onnx.save(model, folder / "model.onnx")
        flags = write_inputs(folder, {0: x})
        done = call([STRATA, "run", folder / "model.onnx", "--quiet", "--output-dir", folder, *flags])
        if done.returncode == DECLINED:
            return "declined"
        if done.returncode != 0:
            return f"exit {done.returncode}: {last_words(done)}"
        for at, want in enumerate(wants):
            got = numpy.load(folder / f"{at}.npy")
            if got.shape != want.shape or got.dtype != want.dtype:
                return f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
            if want.dtype.kind != "f" and not (got == want).all():
                return f"output {at}: {int((got != want).sum())} of {want.size} elements are wrong"
            if want.dtype.kind == "f" and want.size:
                bound = TOLERANCE * max(1.0, float(abs(want).max()))
                if not numpy.allclose(got, want, 0, bound, equal_nan=True):
                    return f"output {at} is off by {float(abs(got - want).max()):.1e}"
    return "passed"


def check(family, operator):
    counts, problems = {"passed": 0, "declined": 0}, []
    for seed in range(CASES):
        model, x = family(Case(sum(map(ord, operator)) * 1000 + seed), operator)
        wants = judged(model, x)
        if wants is None:
            continue
        told = verdict(model, x, wants)
        if told in counts:
            counts[told] += 1
        else:
            attributes = " ".join(f"{a.name}={helper.get_attribute_value(a)}" for a in model.graph.node[0].attribute)
            problems.append(f"seed {seed}, {x.dtype}{x.shape} {attributes}: {told}")
    told = f"{counts['passed']} agree, {counts['declined']} are declined"
    if problems or counts["passed"] == 0:
        raise Failed("\n    ".join([told, *problems]))
    return told


CHECKS = [
    Check(f"operators/{name}", functools.partial(check, family, name))
    for family, operators in FAMILIES.items()
    for name in operators
]
