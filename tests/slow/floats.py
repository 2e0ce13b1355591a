"""The f32 import, evaluated by Strata, against onnxruntime."""

import functools

import numpy

from harness import ZOO, Check, Failed, float_models, noise, scratch, session, strata, trained, write_inputs, zoo

# Of the largest magnitude of an output.
TOLERANCE = 1e-4
# Where a network amplifies the rounding of its first sums, onnxruntime differs from itself when it optimises less. This
# many times that difference is allowed too, up to a bound that no wrong operator hides below.
AMPLIFIED, BOUND = 4, 1e-2


def relative_error(got, want):
    """The largest difference, of the largest magnitude."""
    return float(numpy.abs(got - want).max() / max(float(numpy.abs(want).max()), 1e-30))


def check(network_of, name):
    network = network_of(name)
    inputs = {port: noise(shape, seed) for seed, (port, shape) in enumerate(network.shapes.items())}
    judge = session(network)
    wants = judge.run(None, inputs)
    others = session(network, optimise=False).run(None, inputs)
    folder = scratch("floats")
    flags = [*write_inputs(folder, dict(enumerate(inputs.values()))), *network.shape_flags(), "--quiet"]
    strata("run", network.path, "--output-dir", folder, *flags)
    worst, problems = 0.0, []
    for at, (port, want, other) in enumerate(zip(judge.get_outputs(), wants, others)):
        got = numpy.load(folder / f"{at}.npy")
        if got.shape != want.shape or got.dtype != want.dtype:
            problems.append(f"{port.name}: {got.dtype}{got.shape}, not {want.dtype}{want.shape}")
            continue
        error = relative_error(got, want)
        worst = max(worst, error)
        if not error <= min(max(TOLERANCE, AMPLIFIED * relative_error(other, want)), BOUND):
            problems.append(f"{port.name}: off by {error:.1e} of the largest magnitude")
    if problems:
        raise Failed("; ".join(problems))
    return f"off by at most {worst:.1e} of the largest magnitude"


CHECKS = [Check(f"floats/{name}", functools.partial(check, zoo, name)) for name in ZOO]
CHECKS += [Check(f"floats/{name}", functools.partial(check, trained, name)) for name in float_models()]
