"""The dumps of every phase are MLIR that tosa-opt takes: import and quant as valid TOSA, later ones in the generic form."""

import functools

from harness import STRATA, ZOO, Check, Failed, call, dump, float_models, last_words, scratch, tosa_opt, trained, zoo

VALID_TOSA = ["import", "quant"]
DECLINED = 3


def check(network_of, name):
    network = network_of(name)
    folder = scratch("dumps")
    flags = ["--inline-constants", "--no-measure", "--quiet", *network.shape_flags()]
    command = [STRATA, "compile", network.path, "-o", folder / "x.strata", *flags]
    done = call([*command, "--dump-levels", folder / "pretty"])
    # A network may hold what the machine has no stage for; what was reached until then counts all the same.
    declined = done.returncode == DECLINED
    if done.returncode != 0 and not declined:
        raise Failed(f"strata compile: exit {done.returncode}: {last_words(done)}")
    problems = []
    for phase in VALID_TOSA:
        # It is parsed and verified, without leave for anything but TOSA.
        if problem := tosa_opt(dump(folder / "pretty", phase)):
            problems.append(f"{phase}: {problem}")
    call([*command, "--generic", "--dump-levels", folder / "generic"])
    dumps = sorted((folder / "generic").glob("*.mlir"))
    for path in dumps:
        phase = path.stem.split("-", 1)[1]
        leave = [] if phase in VALID_TOSA else ["--allow-unregistered-dialect"]
        if problem := tosa_opt(path, *leave):
            problems.append(f"{phase}, generic: {problem}")
    if problems:
        raise Failed("; ".join(problems))
    if declined:
        reason = " ".join(done.stderr.split(f"{network.path}: ")[-1].split())
        return f"{len(dumps)} phases, then declined: {reason[:100]}"
    return f"{len(dumps)} phases"


# What a TOSA machine must have for quant dumps: integers, with the extension to 16-bit activations; floats for what stays
# on the host.
CONFORMS = [
    "--tosa-attach-target=profiles=pro_int,pro_fp extensions=int16 level=8k",
    "--tosa-validate=strict-op-spec-alignment",
]


def check_conformance(network_of, name, precision):
    """A quant dump is within the profiles and levels of the specification, operand by operand."""
    network = network_of(name)
    folder = scratch("dumps")
    flags = ["--precision", precision, "--inline-constants", "--no-measure", "--quiet", *network.shape_flags()]
    done = call([STRATA, "compile", network.path, "--emit", "quant", "-o", folder / "quant.mlir", *flags])
    if done.returncode != 0:
        raise Failed(f"strata compile: exit {done.returncode}: {last_words(done)}")
    if problem := tosa_opt(folder / "quant.mlir", *CONFORMS):
        raise Failed(problem)
    return f"{precision}, in the integer profile with int16"


CHECKS = [Check(f"dumps/{name}", functools.partial(check, zoo, name)) for name in ZOO]
CHECKS += [
    Check(f"dumps/conform/{name}-{precision}", functools.partial(check_conformance, source, name, precision))
    for source, name in [(zoo, "mobilenetv2"), (trained, "ppocr_cls")]
    for precision in ["int8", "int16", "mixed"]
]
CHECKS += [Check(f"dumps/{name}", functools.partial(check, trained, name)) for name in float_models()]
