"""The dumps of every phase are MLIR that tosa-opt takes: import and quant as valid TOSA, later ones as text."""

import functools
import re

from harness import ZOO, Check, Failed, dump, float_models, scratch, strata, tosa_opt, trained, zoo

VALID_TOSA = ["import", "quant"]
LATER = ["stages", "plan", "sched"]
# A pass that changes nothing, so that tosa-opt does verify what it has read.
VERIFY = ["--verify-each"]


def check(network_of, name):
    network = network_of(name)
    folder = scratch("dumps")
    flags = ["--inline-constants", "--no-measure", "--quiet", *network.shape_flags()]
    strata("compile", network.path, "-o", folder / "x.strata", "--dump-phases", folder, *flags)
    problems = []
    for phase in VALID_TOSA:
        path = dump(folder, phase)
        if problem := tosa_opt(path, *VERIFY):
            problems.append(f"{phase}: {problem}")
    for path in sorted(folder.glob("*.mlir")):
        phase = re.sub(r"^\d+-", "", path.stem)
        if phase not in VALID_TOSA and (problem := tosa_opt(path, "--allow-unregistered-dialect")):
            problems.append(f"{phase}: {problem}")
    if problems:
        raise Failed("; ".join(problems))
    return f"{len(list(folder.glob('*.mlir')))} phases"


CHECKS = [Check(f"dumps/{name}", functools.partial(check, zoo, name)) for name in ZOO]
CHECKS += [Check(f"dumps/{name}", functools.partial(check, trained, name)) for name in float_models()]
