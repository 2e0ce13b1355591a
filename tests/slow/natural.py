"""Every trained model at its natural size, on the default target and on the smallest: the program computes the evaluator's
integers, bit for bit. (The reference model judges the evaluator at smaller sizes: see `bits`.)
"""

import functools

import numpy

import bits
from harness import (
    RELEASE,
    Check,
    Failed,
    Network,
    Skipped,
    cached,
    call,
    declared,
    demand,
    dump,
    entries,
    last_words,
    manifest,
    onnx_name,
    scratch,
    strata,
    told_of_all,
    trained,
)

TARGETS = ["x1", "micro"]


def network(name):
    """A model of the manifest as an ONNX file; Darknet's weights are put into the zoo's network of their name."""
    if onnx_name(entries()[name]):
        return trained(name)
    entry = entries()[name]
    [weights] = [file["name"] for file in entry["files"] if file["name"].endswith(".weights")]
    [[_, _, height, width]] = entry["inputs"].values()
    path = scratch("zoo") / f"{name}.onnx"
    zoo_name = weights.removesuffix(".weights")
    strata("zoo", zoo_name, "--size", f"{width}x{height}", "--weights", cached(weights), "-o", path, "--quiet")
    return declared(name, path)


def judged(model, target):
    """How many integers the program for a target and the evaluator agree on, all of them."""
    folder, bundle = bits.compiled(model, "multi", ["--target", target])
    programs = [part for part in manifest(bundle)["parts"] if part["runner"] == "machine"]
    if len(programs) != 1:
        raise Skipped(f"in {len(programs)} programs with host parts between them, which no quant dump describes as one")
    inputs = bits.random_integers(programs[0]["inputs"])
    case = scratch("case")
    for at, array in enumerate(inputs):
        numpy.save(case / f"in{at}.npy", array)
    done = call([RELEASE / "examples/evaluate", dump(folder, "quant"), case])
    demand(done.returncode == 0, f"the evaluator: {last_words(done)}")
    gots = bits.interpreted(folder, bundle, inputs)
    wants = [numpy.load(case / f"out{at}.npy") for at in range(len(gots))]
    total = sum(want.size for want in wants)
    wrong = sum(int((want != got).sum()) if want.shape == got.shape else want.size for want, got in zip(wants, gots))
    demand(wrong == 0, f"{wrong} of {total} integers differ")
    return total


def told(model, target):
    """What is to be said of a target; a network may be too large for the smallest."""
    try:
        return f"{judged(model, target)} integers"
    except Failed as reason:
        if "do not fit the target" not in str(reason):
            raise
        return "it does not fit"


def check(name):
    model = network(name)
    return told_of_all((target, lambda target=target: told(model, target)) for target in TARGETS)


MODELS = [name for name, entry in entries().items() if "inputs" in entry]
CHECKS = [Check(f"natural/{name}", functools.partial(check, name)) for name in MODELS]
