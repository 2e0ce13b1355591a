"""All node vectors of `onnx`: of the version that wheels had files of last, and of the newest.

Each goes through `strata run` on the model, as it is and with its weights as constants, which is f32 on the evaluator and the
host; and, with its weights as constants, through `strata compile` and the bundle. What comes of it is right, or declined with the
exit code for it and listed with its reason; nothing else passes.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy
import onnx

import vectors
from harness import SCRATCH, STRATA, Check, Failed, Skipped, call, last_words, once, scratch, write_inputs

# Beside the check there may be another.
WORKERS = 2
LIMIT_SECONDS = 60
LEAST_DB = 20
# Inputs beyond are no test of 8 bits.
LARGEST = 1e4
# Types of inputs that a network can be calibrated on.
CALIBRATED = "efd?bBhHiIlLqQ"
# Of the vectors of 1.19.1, so many have to pass.
LEAST_PASSED = {"1.19.1": 1000}
# How far a few roundings to bfloat16, which Strata does not round to, are off as a part of a number.
BFLOAT16_RELATIVE = 2**-6
HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass
class Outcome:
    """What came of a vector: `passed`, `declined` or `wrong`, and why."""

    kind: str
    why: str = ""


PASSED = Outcome("passed")


def is_plain(model):
    """Whether all inputs and outputs are tensors of types that can be read here."""
    ports = [port.type for port in [*model.graph.input, *model.graph.output]]
    known = onnx.helper.get_all_tensor_dtypes()
    return all(port.HasField("tensor_type") and port.tensor_type.elem_type in known for port in ports)


def values(data_set):
    """Inputs and outputs of a data set; those of bfloat16, which files of arrays do not have, as float32."""
    found = [vectors.tensors(data_set.glob(f"{kind}_*.pb")) for kind in ["input", "output"]]
    widened = lambda array: array.astype(numpy.float32) if array.dtype.name == "bfloat16" else array
    return [[widened(array) for array in arrays] for arrays in found]


def ended(done):
    """What a run that did not end well came to."""
    text = done.stdout + done.stderr
    if "panicked" in text or done.returncode < 0 or done.returncode == 101:
        return Outcome("wrong", f"panics: {text.strip()[:200]}")
    if done.returncode == vectors.DECLINED:
        return Outcome("declined", vectors.reason(done.stderr))
    return Outcome("wrong", f"exit {done.returncode}: {last_words(done)}")


def outputs_of(folder, model, inputs, count):
    """What a run wrote; `None` in place of what it did not."""
    taken = {port.name for port in model.graph.input}
    by_position = inputs and not any(str(at) in taken for at in range(len(inputs)))
    paths = [folder / f"{at if by_position else model.graph.output[at].name}.npy" for at in range(count)]
    return [numpy.load(path) if path.exists() else None for path in paths]


def run(folder, program, model, inputs, count):
    """Runs a model or a bundle: what came of it if it is not outputs, and those."""
    flags = write_inputs(folder, dict(enumerate(inputs)))
    done = call([STRATA, "run", program, "--quiet", "--output-dir", folder, *flags], LIMIT_SECONDS)
    if done.returncode != 0:
        return refused(done, inputs) or ended(done), []
    return None, outputs_of(folder, model, inputs, count)


def judged(got, want, differs):
    """The outcome of outputs, of which `differs` says what is wrong."""
    for at, (own, due) in enumerate(zip(got, want)):
        if own is None:
            return Outcome("wrong", f"output {at} is not written")
        if problem := differs(own, due):
            return Outcome("wrong", f"output {at}: {problem}")
    return PASSED


def in_floats(model, inputs, outputs, tolerances):
    """A model through `strata run`, which computes numbers of 16 bits in 32."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        folder = pathlib.Path(name)
        onnx.save(model, folder / "model.onnx")
        failed, got = run(folder, folder / "model.onnx", model, inputs, len(outputs))
        relative, absolute = tolerances
        if any(port.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for port in model.graph.output):
            relative = max(relative, BFLOAT16_RELATIVE)
        vector = vectors.Vector(model, inputs, outputs, relative, absolute)
        return failed or judged(got, outputs, lambda own, due: vectors.difference(own, due, vector))


def is_sane(arrays):
    """Whether 8 bits can stand for some tensors: nothing in them is infinite, or beyond all measure."""
    floats = [array.astype(numpy.float64) for array in arrays if array.dtype.kind == "f"]
    return all(numpy.isfinite(array).all() and (numpy.abs(array) <= LARGEST).all() for array in floats)


def noise(got, want):
    """What is wrong with an output in 8 bits, if anything."""
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if want.dtype.kind != "f":
        wrong = int((got != want).sum())
        return f"{wrong} of {want.size} elements are wrong" if wrong else None
    error = numpy.square(got.astype(numpy.float64) - want).sum()
    signal = numpy.square(want.astype(numpy.float64)).sum()
    if error <= signal * 10 ** (-LEAST_DB / 10):
        return None
    return f"{10 * numpy.log10(signal / error):.1f} dB" if signal else f"{error:.1e} where there is to be 0"


def refused(done, inputs):
    """The outcome of a refusal of inputs that no integers stand for, if it is one and told as such."""
    is_told = done.returncode == 1 and ("NaN" in done.stderr or "infinit" in done.stderr)
    has_some = any(array.dtype.kind == "f" and not numpy.isfinite(array).all() for array in inputs)
    return Outcome("declined", "its inputs hold NaN or infinities, which are refused") if is_told and has_some else None


def in_integers(model, inputs, outputs):
    """A model through `strata compile`, calibrated on its inputs, and `strata run` of the bundle."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as name:
        folder = pathlib.Path(name)
        onnx.save(model, folder / "model.onnx")
        flags = ["-o", folder / "x.strata", "--no-measure", "--quiet"]
        if inputs and all(array.dtype.char in CALIBRATED for array in inputs):
            names = [port.name for port in vectors.real_inputs(model.graph)]
            numpy.savez(folder / "calibration.npz", **dict(zip(names, inputs)))
            flags += ["--calibrate", folder / "calibration.npz"]
        done = call([STRATA, "compile", folder / "model.onnx", *flags], LIMIT_SECONDS)
        if done.returncode != 0:
            return refused(done, inputs) or ended(done)
        failed, got = run(folder, folder / "x.strata", model, inputs, len(outputs))
        if failed or not is_sane([*inputs, *outputs]):
            return failed or PASSED
        return judged(got, outputs, noise)


def of_all(outcomes):
    """One outcome of several ways to run: wrong if one is, declined if all are."""
    for kind in ["wrong", "passed"]:
        found = [outcome for outcome in outcomes if outcome.kind == kind]
        if found:
            return found[0]
    return outcomes[-1]


def outcomes(folder):
    """What comes of a vector through `run` and through `compile`."""
    model = onnx.load(folder / "model.onnx")
    tolerances = vectors.tolerances(folder)
    by_run, by_compile = [], []
    for data_set in sorted(folder.glob("test_data_set_*")):
        if not is_plain(model):
            by_run.append(in_floats(model, [], [], tolerances))
            by_compile.append(in_integers(model, [], []))
            continue
        inputs, due = values(data_set)
        frozen = onnx.ModelProto()
        frozen.CopyFrom(model)
        kept = vectors.freeze(frozen, inputs)
        ways = [(model, inputs)] if len(kept) == len(inputs) else [(model, inputs), (frozen, kept)]
        by_run.append(of_all([in_floats(*way, due, tolerances) for way in ways]))
        by_compile.append(in_integers(frozen, kept, due))
    return {"run": worst(by_run), "compile": worst(by_compile)}


def worst(of_data_sets):
    """One outcome of several data sets."""
    order = ["wrong", "declined", "passed"]
    return min(of_data_sets, key=lambda outcome: order.index(outcome.kind), default=PASSED)


def listed(version):
    """The vectors of a version that are known to be declined, by how they run, each with its reason."""
    known = {}
    for line in (vectors.LISTS / f"node-{version}.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, ways, why = line.split(maxsplit=2)
            known[name] = {way: why for way in ways.split("+")}
    return known


def looked_at(name):
    """A list of vectors that were looked at, each with what was found."""
    lines = (vectors.LISTS / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))


def problems_of(name, found, known, excused):
    """What is not as it should be of a vector: anything wrong, or declined and not listed; or listed and not declined."""
    for way, outcome in found.items():
        if outcome.kind == "wrong" and not (way == "compile" and name in excused):
            yield f"{name}: {way}: {outcome.why}"
        if outcome.kind == "declined" and way not in known:
            yield f"{name}: {way}: declined: {outcome.why}; it is not listed"
        if outcome.kind != "declined" and way in known:
            yield f"{name}: {way}: {outcome.kind}; take it off the list"


def check(version, data):
    """All vectors of a version are right, or declined and listed."""
    known, mistaken = listed(version), set(vectors.entries("mistaken.txt"))
    excused = looked_at("node-noise.txt")
    folder = data()
    names = sorted(path.parent.name for path in folder.glob("*/model.onnx"))
    with ThreadPoolExecutor(WORKERS) as pool:
        found = dict(zip(names, pool.map(lambda name: outcomes(folder / name), names)))
    problems = [f"{name}: there is no such vector" for name in known if name not in found]
    counts = {way: collections.Counter(of[way].kind for of in found.values()) for way in ["run", "compile"]}
    for name in names:
        if name not in mistaken:
            problems += problems_of(name, found[name], known.get(name, {}), excused)
    told = "; ".join(f"{way}: {', '.join(f'{n} {kind}' for kind, n in sorted(c.items()))}" for way, c in counts.items())
    if counts["run"]["passed"] < LEAST_PASSED.get(version, 0):
        problems.append(f"fewer than {LEAST_PASSED[version]} pass")
    if problems:
        raise Failed(f"{told}, but\n    " + "\n    ".join(problems))
    return told


def of_wheel():
    """The folder of vectors that came with `onnx`."""
    return vectors.DATA / "node"


@once
def of_newest():
    """A folder of the newest vectors, which their own version of `onnx` writes."""
    python = os.environ.get("STRATA_NEWEST_PYTHON")
    if not python:
        raise Skipped("there is no environment with the newest onnx")
    folder = scratch("newest")
    done = call([python, HERE / "newest_vectors.py", folder], limit=300)
    if done.returncode != 0:
        raise Failed(last_words(done))
    return folder


CHECKS = [
    Check("node/1.19.1", functools.partial(check, "1.19.1", of_wheel)),
    Check("node/newest", functools.partial(check, "newest", of_newest)),
]
