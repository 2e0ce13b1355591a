"""TOSA's own generated unit tests, at integer level, and the forms in which other tools write TOSA.

`tosa_verif_build_tests` makes tests of every op of the dialect table: a flatbuffer, its inputs, and whether it must run or
be refused. What must run is run by the reference model, by the evaluator and, wherever the machine has a stage for it, by a
compiled program: all three must agree bit for bit. What must be refused must not run, and nothing may crash.
"""

import functools
import json
import re

import numpy

from harness import (
    RELEASE,
    ROOT,
    STRATA,
    TOOLS,
    Check,
    Failed,
    call,
    demand,
    dump,
    last_words,
    manifest,
    once,
    scratch,
    strata,
    zoo,
)

SUITE = ROOT / "tests/suites/tosa"
SCHEMA = next((TOOLS.parent / "lib").glob("python*/site-packages/bin/tosa.fbs"), None)
UNSUPPORTED = 3
# The levels of TOSA bound what a machine must take, not what is right.
LEVEL = ["--tosa_level", "NONE"]


def claimed():
    """The ops of the dialect table."""
    table = (ROOT / "ir/src/dialect/table.rs").read_text(encoding="utf-8")
    return [op for op in re.findall(r'"tosa\.(\w+)"', table) if op != "const_shape"]


def listed(name):
    """The lines of a list of this suite, without comments."""
    lines = (SUITE / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


@once
def generated(op):
    """The folders of an op's tests, and how many of how many they are."""
    folder = scratch("tosa")
    done = call([TOOLS / "python", "-B", SUITE / "generate.py", folder, op], 1200)
    found = re.search(r"sampled (\d+) of (\d+), (\d+) of (\d+)", done.stdout)
    demand(done.returncode == 0 and found, f"the generator: {last_words(done)}")
    return sorted(path.parent for path in folder.rglob("desc.json")), [int(n) for n in found.groups()]


class Test:
    """A generated test."""

    def __init__(self, folder):
        self.folder = folder
        said = json.loads((folder / "desc.json").read_text(encoding="utf-8"))
        self.error = said["test_details"].get("ERRORIF")
        self.outputs = said["ofm_name"]
        self.wants = [folder / name for name in said["ofm_file"]]
        self.inputs = [f"--input={name}={folder / file}" for name, file in zip(said["ifm_name"], said["ifm_file"])]
        self.file = folder / said["tosa_file"]
        tensors = said.get("meta", {}).get("data_gen", {}).get("tensors", {})
        first = tensors.get(said["ifm_name"][0]) if said["ifm_name"] else None
        types = [first["data_type"] if first else "nothing", *said["test_details"]["output_types"]]
        self.types = " to ".join(types).lower()

    def reference(self):
        """What is due, made by the reference model."""
        command = [TOOLS / "tosa_reference_model", "--test_desc", self.folder / "desc.json", "--operator_fbs", SCHEMA]
        done = call([*command, *LEVEL])
        demand(done.returncode == 0, f"{self.folder.name}: the reference model: {last_words(done)}")
        return [numpy.load(path) for path in self.wants]

    def run(self, model):
        """The process that runs a model on the test's inputs, and its outputs if it succeeds."""
        results = scratch("results")
        done = call([STRATA, "run", model, "--raw", "--quiet", "--output-dir", results, *self.inputs])
        if done.returncode != 0:
            return done, []
        return done, [numpy.load(results / f"{name}.npy") for name in self.outputs]


def difference(wants, gots):
    for want, got in zip(wants, gots, strict=True):
        if want.shape != got.shape:
            return f"shape {got.shape}, not {want.shape}"
        wrong = want.astype(numpy.int64) != got.astype(numpy.int64)
        if wrong.any():
            return f"{int(wrong.sum())} of {want.size} elements are wrong"
    return None


def reason(process):
    """Why something is not supported, without the numbers of the case."""
    said = re.findall(r"\(\w+\.\w+\): (.*)", process.stderr)
    text = re.sub(r"-?\d+(?=[^a-z\d]|$)", "#", said[0] if said else last_words(process))
    return re.sub(r"\[[#, ]*\]", "[#]", re.sub(r"tensor<[^>]*>", "tensor", text))


def positive(op, test, known, seen):
    """`evaluated`, or `compiled` too, or what is wrong."""
    wants = test.reference()
    done, gots = test.run(test.file)
    if done.returncode != 0:
        return f"the evaluator: exit {done.returncode}: {last_words(done)}"
    if problem := difference(wants, gots):
        return f"the evaluator: {problem}"
    bundle = scratch("bundle") / "x.strata"
    done = call([STRATA, "compile", test.file, "-o", bundle, "--quiet"])
    if done.returncode == UNSUPPORTED:
        line = f"{op} {test.types}: {reason(done)}"
        seen.add(line)
        return "evaluated" if line in known else f"declined, but not in declined.txt: {line}"
    if done.returncode != 0:
        return f"compiling: exit {done.returncode}: {last_words(done)}"
    done, gots = test.run(bundle)
    if done.returncode != 0:
        return f"the machine: exit {done.returncode}: {last_words(done)}"
    problem = difference(wants, gots)
    return f"the machine: {problem}" if problem else "compiled"


def negative(op, test, known, seen):
    """`refused`, `accepted` as known, or what is wrong."""
    done, _ = test.run(test.file)
    if done.returncode in (1, UNSUPPORTED):
        return "refused"
    line = f"{op} {test.error}"
    if done.returncode == 0:
        seen.add(line)
        return "accepted" if line in known else f"accepted, but not in accepted.txt: {line}"
    return f"exit {done.returncode}: {last_words(done)}"


def units(op):
    folders, (n_positive, all_positive, n_negative, all_negative) = generated(op)
    of_op = {name: {line for line in listed(name) if line.startswith(f"{op} ")} for name in LISTS}
    seen = {name: set() for name in LISTS}
    counts = dict.fromkeys(["compiled", "evaluated", "refused", "accepted"], 0)
    problems = []
    for test in map(Test, folders):
        judge, name = (negative, "accepted.txt") if test.error else (positive, "declined.txt")
        verdict = judge(op, test, of_op[name], seen[name])
        if verdict in counts:
            counts[verdict] += 1
        else:
            problems.append(f"{test.folder.name}: {verdict}")
    for name in LISTS:
        problems += [f"take it off {name}: {line}" for line in sorted(of_op[name] - seen[name])]
    right = counts["compiled"] + counts["evaluated"]
    told = (
        f"{right} of {n_positive} evaluated, {counts['compiled']} of them compiled too (of {all_positive}); "
        f"{counts['refused']} of {n_negative} wrong ones refused, {counts['accepted']} accepted as known (of {all_negative})"
    )
    if problems:
        raise Failed(told + ", but\n    " + "\n    ".join(problems))
    return told


LISTS = ["declined.txt", "accepted.txt"]
# Ops without integer tests: those of floats.
FLOATS = set("ceil cos erf exp floor log pow reciprocal rsqrt sigmoid sin tanh".split())


def forms(name):
    """What tosa-opt makes of a quantised network is the same network: in its own form to the letter, and as a flatbuffer in
    what the evaluator and the compiled program make of random integers."""
    network, folder = zoo(name), scratch("forms")
    common = ["--inline-constants", "--no-measure", "--quiet", "--dump-levels", folder]
    strata("compile", network.path, "-o", folder / "x.strata", *common)
    quant, pretty = dump(folder, "quant"), folder / "pretty.mlir"
    done = call([TOOLS / "tosa-opt", "--mlir-print-debuginfo", quant, "-o", pretty])
    demand(done.returncode == 0, f"tosa-opt: {last_words(done)}")
    demand("tosa.rescale %" in pretty.read_text(encoding="utf-8"), "tosa-opt prints another form than its own")
    # tosa-opt gives what has no place one in the file that it read.
    place = re.compile(rf' loc\("{re.escape(str(quant))}":\d+:\d+\)')
    again = [place.sub("", strata("opt", path).stdout) for path in (quant, pretty)]
    demand(again[0] == again[1], "tosa-opt's own form is read as another module")

    ports = manifest(folder / "x.strata")["inputs"]
    generator = numpy.random.default_rng(3)
    flags = []
    for at, port in enumerate(ports):
        numpy.save(folder / f"in{at}.npy", generator.integers(-128, 128, port["machine_shape"], numpy.int8))
        flags.append(f"--input={at}={folder / f'in{at}.npy'}")
    done = call([RELEASE / "examples/evaluate", quant, folder])
    demand(done.returncode == 0, f"the evaluator: {last_words(done)}")
    wants = [numpy.load(path) for path in sorted(folder.glob("out*.npy"), key=lambda path: int(path.stem[3:]))]
    flat = folder / "flat.tosa"
    done = call([TOOLS / "tosa-opt", folder / "case.mlir", "--tosa-serialize", f"--tosa-flatbuffer-filename={flat}", "-o", "/dev/null"])
    demand(done.returncode == 0, f"tosa-opt: {last_words(done)}")
    strata("compile", flat, "-o", folder / "flat.strata", "--quiet")
    for model in [flat, folder / "flat.strata"]:
        results = scratch("results")
        strata("run", model, "--raw", "--quiet", "--output-dir", results, *flags)
        problem = difference(wants, [numpy.load(results / f"{at}.npy") for at in range(len(wants))])
        demand(problem is None, f"{model.name}: {problem}")
    return f"{sum(want.size for want in wants)} integers; both forms"


CHECKS = [Check(f"tosa/{op}", functools.partial(units, op)) for op in claimed() if op not in FLOATS]
CHECKS += [Check(f"forms/{name}", functools.partial(forms, name)) for name in ["mobilenetv2", "unet", "yolov3-tiny"]]
