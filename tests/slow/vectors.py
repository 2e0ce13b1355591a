"""ONNX's own backend vectors: Strata gives the right answer, or declines a vector that is known to be declined."""

import collections
import dataclasses
import functools
import json
import pathlib
import re
import tempfile

import numpy
import onnx
from onnx import numpy_helper

from harness import ROOT, SCRATCH, STRATA, Check, Failed, call, last_words, real_inputs, write_inputs

LISTS = ROOT / "tests/suites/onnx"
DATA = pathlib.Path(onnx.__file__).parent / "backend/test/data"
DECLINED = 3
# Half of the distance of two neighbours, of their magnitude.
BFLOAT16_ROUNDING = 2**-8
# Operators whose inputs are all alike: none of them is a weight.
SYMMETRIC = set("Add Mul Sub Div Concat Max Min Sum Mean Pow Where".split())


@dataclasses.dataclass
class Vector:
    """A model with inputs and the outputs that are due."""

    model: onnx.ModelProto
    inputs: list[numpy.ndarray]
    outputs: list[numpy.ndarray]
    relative: float = 1e-3
    absolute: float = 1e-7


def tensors(paths):
    numbered = sorted(paths, key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))
    return [numpy_helper.to_array(onnx.load_tensor(path)) for path in numbered]


def freeze(model, arrays):
    """Makes initialisers of weights, scales and shapes: of all inputs but the first that no symmetric operator reads."""
    alike = {name for node in model.graph.node if node.op_type in SYMMETRIC for name in node.input}
    ports = real_inputs(model.graph)
    kept = arrays[:1]
    for port, array in list(zip(ports, arrays))[1:]:
        if port.name in alike:
            kept.append(array)
            continue
        model.graph.initializer.append(numpy_helper.from_array(array, port.name))
        model.graph.input.remove(port)
    return kept


def tolerances(folder):
    """How far outputs of a folder's vectors may be off, relatively and absolutely."""
    options = folder / "data.json"
    given = json.loads(options.read_text(encoding="utf-8")) if options.exists() else {}
    return given.get("rtol", 1e-3), given.get("atol", 1e-7)


def node_vectors(folder):
    """The data sets of a folder of the backend test."""
    for data_set in sorted(folder.glob("test_data_set_*")):
        model = onnx.load(folder / "model.onnx")
        inputs = freeze(model, tensors(data_set.glob("input_*.pb")))
        outputs = tensors(data_set.glob("output_*.pb"))
        yield Vector(model, inputs, outputs, *tolerances(folder))


def light_vectors(path):
    """A whole network whose weights are constants; its inputs count from 0 to 1, as ONNX's own runner has it."""
    model = onnx.load(path)
    inputs = []
    for port in real_inputs(model.graph):
        shape = [dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim]
        size = numpy.prod(shape, dtype=int)
        inputs.append((numpy.arange(size).reshape(shape) / size).astype(numpy.float32))
    outputs = tensors(path.parent.glob(f"{path.stem}_output_*.pb"))
    yield Vector(model, inputs, outputs, 2e-3, 1e-6)


def difference(got, want, vector):
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if want.dtype.kind == "f":
        close = numpy.isclose(got, want, vector.relative, vector.absolute, equal_nan=True)
    else:
        close = got == want
    return None if close.all() else f"{int((~close).sum())} of {want.size} elements are wrong"


def as_npy(array):
    """An array as Strata takes and gives it: NumPy's format has no bfloat16, which goes as f32."""
    return array.astype(numpy.float32) if array.dtype.name == "bfloat16" else array


def verdict(vector):
    """`passed`; `declined: ` and why; or what is wrong."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        return run_in(pathlib.Path(name), vector)


def run_in(folder, vector):
    onnx.save(vector.model, folder / "model.onnx")
    flags = write_inputs(folder, dict(enumerate(map(as_npy, vector.inputs))))
    done = call([STRATA, "run", folder / "model.onnx", "--quiet", "--output-dir", folder, *flags])
    if done.returncode == DECLINED:
        return f"declined: {reason(done.stderr)}"
    if done.returncode != 0:
        return f"exit {done.returncode}: {last_words(done)}"
    # Outputs go by position as the inputs do, unless there are none.
    for at, want in enumerate(vector.outputs):
        path = folder / f"{at if vector.inputs else vector.model.graph.output[at].name}.npy"
        if not path.exists():
            return f"output {at} is not written"
        if want.dtype.name == "bfloat16":
            # It is given as the f32 that it was computed in.
            vector = dataclasses.replace(vector, relative=max(vector.relative, BFLOAT16_ROUNDING))
        if problem := difference(numpy.load(path), as_npy(want), vector):
            return f"output {at}: {problem}"
    return "passed"


def reason(text):
    """Why a model is declined: what is said of its first unsupported part."""
    said = [line.split("`: ", 1)[1] for line in text.splitlines() if "`: " in line]
    return said[0] if said else text.strip()


def entries(listing):
    """The names of a list; what follows a name on its line is a remark."""
    lines = (LISTS / listing).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def check(cases):
    """Every case, a name with its vectors, is passed or known to be declined."""
    known = set(entries("declined.txt"))
    passed, declined, problems = 0, collections.Counter(), []
    for name, vectors in cases:
        verdicts = sorted({verdict(vector) for vector in vectors()} - {"passed"})
        wrong = [text for text in verdicts if not text.startswith("declined: ")]
        if wrong:
            problems.append(f"{name}: {'; '.join(wrong)}")
        elif verdicts:
            declined[verdicts[0].removeprefix("declined: ")] += 1
            if name not in known:
                problems.append(f"{name}: {verdicts[0]}, but not in declined.txt")
        else:
            passed += 1
            if name in known:
                problems.append(f"{name}: passed, take it off declined.txt")
    if problems:
        raise Failed(f"{passed} passed, {declined.total()} declined, but\n    " + "\n    ".join(problems))
    reasons = "".join(f"\n    {n:4} {why}" for why, n in sorted(declined.items()))
    return f"{passed} passed, {declined.total()} declined, as known{reasons}"


def listed(listing, folder):
    return [(name, functools.partial(node_vectors, DATA / folder / name)) for name in entries(listing)]


@functools.cache
def claimed():
    """The operators that the importer's table has."""
    table = (ROOT / "docs/generated/onnx.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))


def all_claimed(folder):
    """The vectors of a folder that use only operators which Strata claims, on tensors alone."""
    cases, mistaken = [], set(entries("mistaken.txt"))
    for path in sorted((DATA / folder).glob("*/model.onnx")):
        if path.parent.name in mistaken:
            continue
        model = onnx.load(path)
        operators = {(node.domain, node.op_type) for node in model.graph.node}
        ports = [*model.graph.input, *model.graph.output]
        if all(domain == "" and name in claimed() for domain, name in operators) and all(
            port.type.HasField("tensor_type") for port in ports
        ):
            cases.append((path.parent.name, functools.partial(node_vectors, path.parent)))
    return cases


def core():
    return check(listed("core.txt", "node"))


def pytorch():
    return check(listed("pytorch-converted.txt", "pytorch-converted"))


def claims(folder):
    return check(all_claimed(folder))


def light(path):
    return check([(path.stem, functools.partial(light_vectors, path))])


CHECKS = [Check("vectors/core", core), Check("vectors/pytorch-converted", pytorch)]
CHECKS += [Check(f"vectors/{name}", functools.partial(claims, name)) for name in ["node", "pytorch-operator", "simple"]]
CHECKS += [
    Check(f"vectors/{path.stem}", functools.partial(light, path)) for path in sorted(DATA.glob("light/light_*.onnx"))
]
